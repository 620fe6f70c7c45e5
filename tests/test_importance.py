"""Which inputs a prediction hangs on: against the derivatives that are known, or taken by differences.

Fits are made by hand from random draws: importance asks only that the draws are there.
"""

import dataclasses
import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from scipy.special import expit, softmax

from hmcvi.inference import MAP, SVI, Fit, feature_importance, predict
from hmcvi.models import mlp

from .targets import linear_regression

CHAINS, DRAWS, ROWS, FEATURES, UNITS, CLASSES = 2, 10, 6, 3, 4, 3
X = np.random.default_rng(0).normal(size=(ROWS, FEATURES))
LABELS = np.array([2, 0, 1, 1, 0, 2])
SHAPES = {
    "hidden_0.kernel": (FEATURES, UNITS),
    "hidden_0.bias": (UNITS,),
    "out.kernel": (UNITS, CLASSES),
    "out.bias": (CLASSES,),
}
classifier = partial(mlp, widths=(UNITS,), num_classes=CLASSES)


def made(model, shapes, x=X, y=LABELS, method=None):
    """A fit with random draws, made without fitting."""
    random = np.random.default_rng(2)
    draws = {site: random.normal(size=(CHAINS, DRAWS, *shape)) for site, shape in shapes.items()}
    draws = {site: jnp.asarray(draw, jnp.result_type(float)) for site, draw in draws.items()}
    return Fit(model, method or SVI(), jnp.asarray(x), jnp.asarray(y), jax.random.key(0), draws, 0, len(x), 0.0)


def probs_of(draws, x):
    """Class probabilities of every draw (draw, row, class), in NumPy."""
    d = {site: np.asarray(v, float).reshape(-1, *v.shape[2:]) for site, v in draws.items()}
    hidden = np.tanh(x @ d["hidden_0.kernel"] + d["hidden_0.bias"][:, None])
    return softmax(hidden @ d["out.kernel"] + d["out.bias"][:, None], axis=-1)


def differences(probs, labels, x, step=1e-5):
    """Central differences of probs(x) (..., row, class) at each row's label, by each input: (..., row, feature)."""
    found = []
    for feature in range(x.shape[1]):
        move = step * np.eye(x.shape[1])[feature]
        change = (probs(x + move) - probs(x - move)) / (2 * step)
        found.append(np.take_along_axis(change, np.broadcast_to(labels[:, None], (*change.shape[:-1], 1)), -1)[..., 0])
    return np.stack(found, axis=-1)


def test_a_linear_model_hangs_on_its_kernel_everywhere():
    result = made(linear_regression, {"out.kernel": (FEATURES, 1)}, X.astype(np.float32), X[:, 0].astype(np.float32))
    found = feature_importance(result, X)
    kernels = np.asarray(result.draws["out.kernel"], float)[..., 0].reshape(-1, FEATURES)
    assert found.mean.shape == found.sd.shape == X.shape
    np.testing.assert_allclose(found.mean, np.tile(kernels.mean(0), (ROWS, 1)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found.sd, np.tile(kernels.std(0), (ROWS, 1)), rtol=1e-4)
    assert found.label is None


def test_one_draw_agrees_with_itself():
    result = made(linear_regression, {"out.kernel": (FEATURES, 1)}, y=X[:, 0], method=MAP())
    one = {site: draw[:1, :1] for site, draw in result.draws.items()}
    found = feature_importance(dataclasses.replace(result, draws=one), X)
    np.testing.assert_allclose(found.mean, np.tile(one["out.kernel"][0, 0, :, 0], (ROWS, 1)), rtol=1e-5)
    np.testing.assert_array_equal(found.sd, 0)


@pytest.fixture(scope="module")
def explained():
    """A classifier in double precision, and its importance for the labels that it chooses and for ours."""
    with jax.enable_x64(True):
        result = made(classifier, SHAPES)
        assert result.draws["out.kernel"].dtype == np.float64
        return result, feature_importance(result, X), feature_importance(result, X, LABELS)


@pytest.mark.parametrize("given", [False, True])
def test_a_classifiers_mean_is_the_slope_of_what_it_predicts(explained, given):
    result, found = explained[0], explained[1 + given]
    with jax.enable_x64(True):
        prediction = predict(result, X)
        labels = LABELS if given else prediction.probs.argmax(1)
        expected = differences(lambda x: predict(result, x).probs, labels, X)
    assert found.mean.shape == X.shape
    np.testing.assert_array_equal(found.label, labels)
    np.testing.assert_allclose(found.mean, expected, atol=1e-8)
    assert np.abs(found.mean).max() > 0.05


@pytest.mark.parametrize("given", [False, True])
def test_a_classifiers_sd_is_that_over_its_draws(explained, given):
    result, found = explained[0], explained[1 + given]
    slopes = differences(partial(probs_of, result.draws), found.label, X)
    assert slopes.shape == (CHAINS * DRAWS, ROWS, FEATURES)
    np.testing.assert_allclose(found.mean, slopes.mean(0), atol=1e-8)
    np.testing.assert_allclose(found.sd, slopes.std(0), atol=1e-8)


def test_labels_of_ones_own_are_those_explained(explained):
    _, chosen, given = explained
    differ = chosen.label != given.label
    assert 0 < differ.sum() < ROWS
    np.testing.assert_array_equal(given.mean[~differ], chosen.mean[~differ])
    assert not np.isclose(given.mean[differ], chosen.mean[differ]).any()


def linear_logistic(x, y=None):
    weights = numpyro.sample("weights", dist.Normal(jnp.zeros(4), 1.0).to_event(1))
    logits = x.reshape(len(x), 4) @ weights
    with numpyro.plate("data", len(x)):
        return numpyro.sample("y", dist.Bernoulli(logits=logits), obs=y)


def test_pixels_of_bytes_are_explained_per_unit_of_brightness():
    pixels = np.random.default_rng(1).integers(0, 256, (ROWS, 2, 2), dtype=np.uint8)
    bright = pixels / np.float32(255)
    result = made(linear_logistic, {"weights": (4,)}, pixels, LABELS % 2)
    found = feature_importance(result, pixels, np.ones(ROWS, int))
    # d/dx expit(x w) = p (1 − p) w, of the pixels' own shape.
    weights = np.asarray(result.draws["weights"], float).reshape(-1, 4)
    p = expit(bright.reshape(ROWS, 4) @ weights.T)
    slopes = (p * (1 - p))[..., None] * weights
    np.testing.assert_allclose(found.mean, slopes.mean(1).reshape(pixels.shape), rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(found.sd, slopes.std(1).reshape(pixels.shape), rtol=1e-3, atol=1e-6)
    # The same brightness as floating point, to the rounding of the division.
    of_floats = feature_importance(result, bright, np.ones(ROWS, int))
    np.testing.assert_allclose(of_floats.mean, found.mean, rtol=1e-4, atol=1e-6)
    with pytest.raises(ValueError, match="the fit was trained on images of uint8"):
        feature_importance(result, pixels.astype(float))


def test_labels_that_cannot_be_explained_are_refused():
    regression = made(linear_regression, {"out.kernel": (FEATURES, 1)}, y=X[:, 0])
    with pytest.raises(ValueError, match="feature_importance got labels for a regression: leave them out"):
        feature_importance(regression, X, LABELS)
    result = made(classifier, SHAPES)
    for labels in (LABELS[:5], LABELS[:, None], np.array(1)):
        refused = rf"feature_importance got labels of shape {re.escape(str(labels.shape))}: give one for each of 6 rows"
        with pytest.raises(ValueError, match=refused):
            feature_importance(result, X, labels)
    for label, lowest, highest in ((CLASSES, "0", "3"), (-1, "-1", "2"), (0.5, "0.0", "2.0")):
        refused = f"labels run from {lowest} to {highest} and the model knows whole numbers from 0 to 2: relabel them"
        with pytest.raises(ValueError, match=refused):
            feature_importance(result, X, np.array([label, *LABELS[1:]]))
    with pytest.raises(ValueError, match=r"x has rows of shape \(2,\) and the fit was trained on \(3,\)"):
        feature_importance(result, X[:, :2])
