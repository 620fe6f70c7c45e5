"""Predictions against direct NumPy over the draws, whatever the memory bound, for our models and a user's own.

Most fits here are made by hand from random draws: prediction asks only that the draws are there.
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from flax import nnx
from numpyro.contrib.module import random_nnx_module
from scipy import stats
from scipy.special import expit, log_softmax, softmax

from hmcvi.inference import (
    MAP,
    NUTS,
    SVI,
    BayesByBackprop,
    ClassPredictive,
    Ensemble,
    Fit,
    NormalPredictive,
    fit,
    predict,
    predict_draws,
    scores,
)
from hmcvi.inference.predict import NUM_BATCHES, _batches
from hmcvi.models import gp, mlp

from .targets import NOISE_SCALE, linear_regression

CHAINS, DRAWS, ROWS, FEATURES, UNITS, CLASSES = 2, 30, 50, 3, 4, 3
RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(ROWS, FEATURES)).astype(np.float32)
LABELS = RANDOM.integers(CLASSES, size=ROWS)
NUMBERS = RANDOM.normal(size=ROWS).astype(np.float32)


def made(model, draws, x=X, y=LABELS):
    """A fit with these draws, made without fitting."""
    draws = {name: jnp.asarray(value, jnp.result_type(float)) for name, value in draws.items()}
    method = SVI()
    return Fit(model, method, jnp.asarray(x), jnp.asarray(y), jax.random.key(0), draws, 0, len(x), 0.0)


def network(outputs=CLASSES, chains=CHAINS, draws=DRAWS, scale=1.5):
    lead = (chains, draws)
    random = np.random.default_rng(1)
    shapes = {
        "hidden_0.kernel": (FEATURES, UNITS),
        "hidden_0.bias": (UNITS,),
        "out.kernel": (UNITS, outputs),
        "out.bias": (outputs,),
    }
    return {name: random.normal(0, scale, (*lead, *shape)).astype(np.float32) for name, shape in shapes.items()}


def forward(draws, x):
    """The network's outputs (chain, draw, row, output), in NumPy."""
    d = {name: np.asarray(value, np.float64) for name, value in draws.items()}
    hidden = np.tanh(x @ d["hidden_0.kernel"] + d["hidden_0.bias"][..., None, :])
    return hidden @ d["out.kernel"] + d["out.bias"][..., None, :]


classifier = partial(mlp, widths=(UNITS,), num_classes=CLASSES)
regressor = partial(mlp, widths=(UNITS,), likelihood="normal")


# --- the mixture over draws


def test_class_predictions_are_the_mixture_over_draws():
    draws = network()
    prediction = predict(made(classifier, draws), X, LABELS)
    assert isinstance(prediction, ClassPredictive)
    logits = forward(draws, X)
    probs = softmax(logits, axis=-1)
    np.testing.assert_allclose(prediction.probs, probs.mean((0, 1)), rtol=1e-4, atol=1e-6)
    entropy = -(probs * log_softmax(logits, axis=-1)).sum(-1)
    np.testing.assert_allclose(prediction.aleatoric_entropy, entropy.mean((0, 1)), rtol=1e-4, atol=1e-6)
    log_likelihood = np.take_along_axis(
        log_softmax(logits, axis=-1), np.broadcast_to(LABELS[:, None], (*logits.shape[:3], 1)), -1
    )[..., 0]
    np.testing.assert_allclose(prediction.log_likelihood, log_likelihood, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(predict_draws(made(classifier, draws), X), probs, rtol=1e-4, atol=1e-6)


def test_a_prediction_is_printed_as_one_line():
    classes = predict(made(classifier, network()), X)
    numbers = predict(made(regressor, network(outputs=1) | {"noise_scale": np.ones((CHAINS, DRAWS))}, y=NUMBERS), X)
    draws = f"{CHAINS * DRAWS:,} draws"
    assert repr(classes) == f"ClassPredictive({len(X)} rows, {CLASSES} classes: the mean over {draws})"
    assert repr(numbers) == f"NormalPredictive({len(X)} rows: a mixture of {draws})"
    one = {site: values[:1, :1] for site, values in network().items()}
    assert (
        repr(predict(made(classifier, one), X[:1]))
        == f"ClassPredictive(1 row, {CLASSES} classes: the mean over 1 draw)"
    )


def test_a_probability_of_zero_has_entropy_zero_and_a_finite_log_likelihood():
    draws = network(scale=300.0)
    prediction = predict(made(classifier, draws), X, LABELS)
    probs = softmax(forward(draws, X), axis=-1)
    assert (probs.astype(np.float32) == 0).mean() > 0.3
    np.testing.assert_allclose(prediction.probs, probs.mean((0, 1)), atol=1e-3)
    floor = np.log(np.finfo(np.float32).tiny)
    assert prediction.log_likelihood.min() == pytest.approx(floor, rel=1e-5)
    assert prediction.aleatoric_entropy.max() < 0.1


def test_normal_predictions_are_the_mixture_over_draws():
    draws = network(outputs=1) | {"noise_scale": np.random.default_rng(2).uniform(0.2, 2, (CHAINS, DRAWS))}
    result = made(regressor, draws, y=NUMBERS)
    prediction = predict(result, X, NUMBERS)
    assert isinstance(prediction, NormalPredictive)
    loc = forward(draws, X)[..., 0]
    scale = np.broadcast_to(draws["noise_scale"][..., None], loc.shape)
    np.testing.assert_allclose(prediction.loc, loc, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(prediction.scale, scale, rtol=1e-6)
    np.testing.assert_allclose(prediction.mean, loc.mean((0, 1)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(prediction.epistemic_sd, loc.std((0, 1)), rtol=1e-4)
    # The law of total variance.
    total = np.sqrt(loc.var((0, 1)) + (scale**2).mean((0, 1)))
    np.testing.assert_allclose(prediction.total_sd, total, rtol=1e-4)
    np.testing.assert_allclose(prediction.log_likelihood, stats.norm.logpdf(NUMBERS, loc, scale), rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(predict_draws(result, X)[..., 0], loc, rtol=1e-4, atol=1e-5)


def matern52(a, b, lengthscale):
    r = np.sqrt(5 * (((a[:, None] - b[None]) / lengthscale) ** 2).sum(-1))
    return (1 + r + r**2 / 3) * np.exp(-r)


GP_DRAWS = 6


def gp_sites(random):
    return {
        "lengthscale": random.uniform(0.5, 3, (1, GP_DRAWS, FEATURES)),
        "amplitude": random.uniform(0.5, 2, (1, GP_DRAWS)),
    }


def test_gp_predictions_are_the_exact_conditional_of_every_draw():
    """Rasmussen & Williams (2006), eq. 2.23 and 2.24, by a dense inverse."""
    random = np.random.default_rng(3)
    draws = gp_sites(random) | {"noise_scale": random.uniform(0.1, 1, (1, GP_DRAWS))}
    x, y = X[:20].astype(np.float64), NUMBERS[:20].astype(np.float64)
    new = np.concatenate([X[20:30], X[:2]]).astype(np.float64)
    with jax.enable_x64(True):
        prediction = predict(made(gp, draws, x, y), new, np.zeros(12))
    for i in range(GP_DRAWS):
        lengthscale, amplitude, noise = (draws[n][0, i] for n in ("lengthscale", "amplitude", "noise_scale"))
        inverse = np.linalg.inv(amplitude**2 * matern52(x, x, lengthscale) + noise**2 * np.eye(20))
        cross = amplitude**2 * matern52(x, new, lengthscale)
        variance = amplitude**2 - np.einsum("ij,ik,kj->j", cross, inverse, cross) + noise**2
        # 1e-6: the jitter of 1e-10 through an inverse of condition 1e3.
        np.testing.assert_allclose(prediction.loc[0, i], cross.T @ inverse @ y, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(prediction.scale[0, i], np.sqrt(variance), rtol=1e-6)
    np.testing.assert_allclose(
        prediction.log_likelihood, stats.norm.logpdf(0, prediction.loc, prediction.scale), rtol=1e-6
    )
    # What is not noise is epistemic: the draws' means apart, and each draw's own doubt about the function.
    noise = np.broadcast_to(draws["noise_scale"][..., None], prediction.scale.shape)
    np.testing.assert_allclose(prediction.noise, noise, rtol=1e-9)
    np.testing.assert_allclose(prediction.epistemic_sd**2 + (noise**2).mean((0, 1)), prediction.total_sd**2, rtol=1e-9)


def test_gp_classification_gives_its_latent_functions_back_at_the_training_rows():
    random = np.random.default_rng(4)
    draws = gp_sites(random) | {"latent": random.normal(size=(1, GP_DRAWS, 20, CLASSES))}
    x = X[:20].astype(np.float64)
    with jax.enable_x64(True):
        result = made(partial(gp, likelihood="categorical", num_classes=CLASSES), draws, x, LABELS[:20])
        probs = predict_draws(result, x)
    for i in range(GP_DRAWS):
        factor = np.linalg.cholesky(matern52(x, x, draws["lengthscale"][0, i]) + 1e-10 * np.eye(20))
        functions = draws["amplitude"][0, i] * factor @ draws["latent"][0, i]
        # The conditional's sd there is √jitter = 1e-5 of the amplitude.
        np.testing.assert_allclose(probs[0, i], softmax(functions, axis=-1), atol=1e-4)


# --- at the posterior mean


def with_means(result, means):
    """The fit with these means by site, in the unconstrained space; its draws are elsewhere."""
    return dataclasses.replace(result, location={site: jnp.asarray(mean) for site, mean in means.items()})


def first_draw(draws):
    return {site: draw[0, 0] for site, draw in draws.items()}


def test_a_deterministic_regression_is_the_line_of_the_means():
    weights = np.array([[0.5], [-1.0], [2.0]], np.float32)
    draws = {"out.kernel": np.random.default_rng(6).normal(size=(CHAINS, DRAWS, FEATURES, 1))}
    result = with_means(made(linear_regression, draws, y=NUMBERS), {"out.kernel": weights})
    prediction = predict(result, X, NUMBERS, deterministic=True)
    assert prediction.loc.shape == prediction.log_likelihood.shape == (1, 1, ROWS)
    np.testing.assert_allclose(prediction.mean, X @ weights[:, 0], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(prediction.epistemic_sd, 0)
    np.testing.assert_allclose(prediction.total_sd, NOISE_SCALE, rtol=1e-6)
    expected = stats.norm.logpdf(NUMBERS, X @ weights[:, 0], NOISE_SCALE)
    np.testing.assert_allclose(prediction.log_likelihood[0, 0], expected, rtol=1e-4, atol=1e-3)
    # The fit itself is as it was: its draws' mixture.
    mixture = X @ draws["out.kernel"].mean((0, 1))[:, 0]
    np.testing.assert_allclose(predict(result, X).mean, mixture, rtol=1e-3, atol=1e-5)


def test_a_deterministic_classification_is_the_softmax_of_the_mean_weights():
    draws = network()
    means = first_draw(network(scale=0.7))
    result = with_means(made(classifier, draws), means)
    prediction = predict(result, X, LABELS, deterministic=True)
    logits = forward({site: mean[None, None] for site, mean in means.items()}, X)[0, 0]
    np.testing.assert_allclose(prediction.probs, softmax(logits, axis=-1), rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(prediction.batch_size, [1])
    chosen = log_softmax(logits, axis=-1)[np.arange(ROWS), LABELS]
    np.testing.assert_allclose(prediction.log_likelihood[0, 0], chosen, rtol=1e-4, atol=1e-4)
    # Of one draw all entropy is aleatoric; the mixture over draws is another prediction.
    entropy = -(softmax(logits, axis=-1) * log_softmax(logits, axis=-1)).sum(-1)
    np.testing.assert_allclose(prediction.aleatoric_entropy, entropy, rtol=1e-4, atol=1e-6)
    assert np.abs(predict(result, X).probs - prediction.probs).max() > 0.1


def test_the_mean_of_a_positive_site_is_that_of_the_space_where_the_posterior_is_gaussian():
    means = {"out.kernel": np.zeros((FEATURES, 1)), "out.bias": np.ones(1), "noise_scale": np.array(np.log(0.3))}
    draws = {site: np.ones((1, 5, *np.shape(mean))) for site, mean in means.items()}
    result = with_means(made(partial(mlp, widths=(), likelihood="normal"), draws, y=NUMBERS), means)
    prediction = predict(result, X, deterministic=True)
    # HalfNormal's positive half-line is mapped by exp: the median of a LogNormal, and not its mean.
    np.testing.assert_allclose(prediction.scale, 0.3, rtol=1e-5)
    np.testing.assert_allclose(prediction.loc, 1.0, rtol=1e-6)


@pytest.mark.parametrize("method", [NUTS(), Ensemble(), SVI()], ids=lambda method: method.name)
def test_methods_without_a_mean_predict_by_their_draws_alone(method):
    # SVI has none where its guide is not the mean field.
    result = dataclasses.replace(made(classifier, network()), method=method)
    with pytest.raises(ValueError, match=f"{method.name} has no posterior mean to predict from: leave determ"):
        predict(result, X, deterministic=True)


def test_a_point_is_its_own_mean():
    means = first_draw(network())
    draws = {site: mean[None, None] for site, mean in means.items()}
    result = dataclasses.replace(with_means(made(classifier, draws), means), method=MAP())
    np.testing.assert_array_equal(predict(result, X, deterministic=True).probs, predict(result, X).probs)


# --- logarithms


def test_log_probs_are_the_logarithms_of_the_mixture():
    prediction = predict(made(classifier, network()), X)
    probs = softmax(forward(network(), X), axis=-1).mean((0, 1))
    np.testing.assert_allclose(prediction.log_probs, np.log(probs), rtol=1e-4, atol=1e-5)


def test_log_probs_are_finite_where_a_probability_underflows():
    prediction = predict(made(classifier, network(chains=1, draws=2, scale=300.0)), X)
    underflown = prediction.probs == 0
    assert 0.2 < underflown.mean() < 0.7
    (floor,) = set(prediction.log_probs[underflown])
    assert np.isfinite(floor)
    assert floor < prediction.log_probs[~underflown].min()
    np.testing.assert_array_equal(prediction.log_probs[~underflown], np.log(prediction.probs[~underflown]))
    # Certainty is 0 nats, and nothing is above it.
    assert prediction.log_probs.max() == 0


@pytest.mark.xfail(strict=True, reason="batch_probs is float64 whatever the fit: log_probs counts −708 nats, not −87")
def test_log_probs_and_log_likelihood_have_one_floor():
    prediction = predict(made(classifier, network(chains=1, draws=1, scale=300.0)), X, LABELS)
    chosen = prediction.log_probs[np.arange(ROWS), LABELS]
    assert (prediction.probs[np.arange(ROWS), LABELS] == 0).any()
    np.testing.assert_allclose(chosen, prediction.log_likelihood[0, 0], rtol=1e-5, atol=1e-5)


# --- in bounded memory


def counting(model):
    """The model, and a list that grows by one with every trace of it."""
    traces = []

    def counted(x, y=None, *, num_rows=None):
        traces.append(len(x))
        return model(x, y, num_rows=num_rows)

    return counted, traces


def arrays(prediction):
    return {name: value for name, value in vars(prediction).items() if value is not None}


def in_least_memory(call):
    """Call with a bound that the result itself hardly fits, with nothing to spare for the work."""
    bound = 4 * CHAINS * DRAWS
    while True:
        try:
            return call(max_bytes=bound)
        except ValueError:
            bound = bound * 5 // 4


@pytest.mark.parametrize("kind", ["class", "normal"])
def test_numbers_do_not_depend_on_the_memory_bound(kind):
    draws = network() if kind == "class" else network(1) | {"noise_scale": np.full((CHAINS, DRAWS), 0.5)}
    y = LABELS if kind == "class" else NUMBERS
    model, traces = counting(classifier if kind == "class" else regressor)
    result = made(model, draws, y=y)
    whole = predict(result, X, y)
    assert max(traces) == min(n for n in traces if n > 1) == ROWS
    tight = in_least_memory(partial(predict, result, X, y))
    drawn = in_least_memory(partial(predict_draws, result, X))
    for name, value in arrays(whole).items():
        np.testing.assert_allclose(getattr(tight, name), value, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(drawn, predict_draws(result, X), rtol=1e-5, atol=1e-6)


def test_rows_beyond_a_chunk_are_predicted_in_their_places(monkeypatch):
    model, traces = counting(classifier)
    result = made(model, network())
    whole = predict(result, X, LABELS)
    # Any program takes more than a byte of working memory: chunks are halved to one row.
    traces.clear()
    original = jax.stages.Compiled.memory_analysis

    def more_for_more_rows(self):
        analysis = original(self)
        return type("Analysis", (), {"temp_size_in_bytes": 2**40 * (traces[-1] > 7), "of": analysis})

    monkeypatch.setattr(jax.stages.Compiled, "memory_analysis", more_for_more_rows)
    chunked = predict(made(model, network()), X, LABELS)  # another fit: a fit keeps the programs it was predicted by
    # 50, 25, 13 and 7 rows: the last of 8 chunks of 7 reaches back over rows that the one before it covered.
    assert [n for n in traces if n > 1] == [50, 25, 13, 7]
    for name, value in arrays(whole).items():
        np.testing.assert_allclose(getattr(chunked, name), value, rtol=1e-5, atol=1e-6)


def test_a_result_over_the_bound_says_how_many_rows_fit():
    result = made(classifier, network())
    with pytest.raises(ValueError, match=r"predict 31 rows at a time or raise max_bytes"):
        predict(result, X, max_bytes=10_000)
    assert predict(result, X[:31], max_bytes=10_000).probs.shape == (31, CLASSES)
    with pytest.raises(ValueError, match="over max_bytes: use predict, or less"):
        predict_draws(result, X, max_bytes=10_000)


# --- batches of draws


@pytest.mark.parametrize(("chains", "draws"), [(4, 100), (1, 1000), (3, 7), (40, 5), (4, 2), (1, 1)])
def test_batches_are_contiguous_draws_of_one_chain(chains, draws):
    batch = _batches(chains, draws)
    assert batch.shape == (chains, draws)
    per_chain = min(max(NUM_BATCHES // chains, 1), draws)
    assert set(batch.ravel()) == set(range(chains * per_chain))
    for chain in range(chains):
        assert (np.diff(batch[chain]) >= 0).all()
        assert set(batch[chain]) == set(range(chain * per_chain, (chain + 1) * per_chain))
    sizes = np.bincount(batch.ravel())
    assert sizes.max() - sizes.min() <= 1


def test_batches_of_unequal_size_are_weighted_by_it():
    draws = network(chains=3, draws=7)  # 18 batches, of one draw or two
    prediction = predict(made(classifier, draws), X)
    assert sorted(set(prediction.batch_size)) == [1, 2]
    assert prediction.batch_probs.shape == (18, ROWS, CLASSES)
    probs = softmax(forward(draws, X), axis=-1)
    np.testing.assert_allclose(prediction.probs, probs.mean((0, 1)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(prediction.batch_probs[0], probs[0, :2].mean(0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(prediction.batch_probs.sum(-1), 1, rtol=1e-5)


def test_the_jackknife_of_a_probability_is_the_error_of_batch_means():
    prediction = predict(made(classifier, network(chains=4, draws=40)), X)
    assert prediction.batch_probs.shape[0] == NUM_BATCHES
    error = scores.jackknife(lambda weights: prediction.mixture(weights)[0][7, 1], NUM_BATCHES)
    assert error == pytest.approx(stats.sem(prediction.batch_probs[:, 7, 1]), rel=1e-4)


# --- bad input


def test_a_fit_is_predicted_by_one_program_for_all_sets_of_a_size():
    model, traces = counting(classifier)
    result = made(model, network())
    first = predict(result, X)
    compiled = len(traces)
    again = predict(result, X[::-1])
    assert len(traces) == compiled
    np.testing.assert_allclose(again.probs[::-1], first.probs, rtol=1e-6)


def test_images_of_bytes_are_predicted_as_their_brightness():
    pixels = np.random.default_rng(3).integers(0, 256, (ROWS, 3, 1), dtype=np.uint8)
    bright = pixels / np.float32(255)

    def flattened(x, y=None):
        return classifier(x.reshape(len(x), 3), y)

    of_bytes = dataclasses.replace(made(flattened, network()), x=jnp.asarray(pixels))
    of_floats = dataclasses.replace(made(flattened, network()), x=jnp.asarray(bright))
    expected = predict(of_floats, bright).probs
    for x in (pixels, bright):
        np.testing.assert_allclose(predict(of_bytes, x).probs, expected, rtol=1e-5)
    with pytest.raises(ValueError, match=r"x holds values from \d to 25\d and the fit was trained on images of uint8"):
        predict(of_bytes, pixels.astype(int))
    with pytest.raises(
        ValueError, match=r"x holds uint8 \(images, read as x / 255\) and the fit was trained on float32"
    ):
        predict(of_floats, pixels)


def test_bad_inputs():
    result = made(classifier, network())
    with pytest.raises(ValueError, match=r"x has rows of shape \(2,\) and the fit was trained on \(3,\)"):
        predict(result, X[:, :2])
    bad = X.copy()
    bad[4, 1] = np.nan
    for call in (predict, predict_draws):
        with pytest.raises(ValueError, match=r"x holds nan in row 4 \(1 such values\)"):
            call(result, bad)
    with pytest.raises(ValueError, match=r"x has shape \(50,\): wanted \(row, feature...\)"):
        predict(result, X[:, 0])
    with pytest.raises(ValueError, match="x has 50 rows and y has 49"):
        predict(result, X, LABELS[:-1])
    with pytest.raises(ValueError, match="the split is empty"):
        predict(result, X[:0])


@pytest.mark.parametrize("label", [CLASSES, -1])
def test_labels_at_prediction_are_judged_as_in_training(label):
    y = LABELS.copy()
    y[3] = label
    with pytest.raises(ValueError, match="labels"):
        predict(made(classifier, network()), X, y)


# --- a user's own model


def logistic(x, y=None, *, num_rows=None):
    weights = numpyro.sample("weights", dist.Normal(jnp.zeros(FEATURES), 1.0).to_event(1))
    with numpyro.plate("data", num_rows or len(x), subsample_size=len(x)):
        return numpyro.sample("y", dist.Bernoulli(logits=x @ weights), obs=y)


def test_a_bernoulli_model_has_two_classes():
    weights = np.random.default_rng(5).normal(size=(CHAINS, DRAWS, FEATURES)).astype(np.float32)
    y = LABELS % 2
    prediction = predict(made(logistic, {"weights": weights}, y=y), X, y)
    p = expit(np.einsum("rf,cdf->cdr", X, weights))
    np.testing.assert_allclose(prediction.probs, np.stack([1 - p, p], -1).mean((0, 1)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(prediction.log_likelihood, stats.bernoulli.logpmf(y, p), rtol=1e-3, atol=1e-4)


def test_a_likelihood_without_predictions_is_named():
    def counts(x, y=None):
        weights = numpyro.sample("weights", dist.Normal(jnp.zeros(FEATURES), 1.0).to_event(1))
        return numpyro.sample("y", dist.Poisson(jnp.exp(x @ weights)).to_event(1), obs=y)

    result = made(counts, {"weights": np.zeros((1, 2, FEATURES))}, y=LABELS)
    with pytest.raises(ValueError, match="y is Poisson: predictions are made for Categorical, Bernoulli and Normal"):
        predict(result, X)


class Small(nnx.Module):
    """A Flax network that knows nothing of hmcvi."""

    def __init__(self, rngs):
        self.hidden = nnx.Linear(FEATURES, UNITS, rngs=rngs)
        self.out = nnx.Linear(UNITS, CLASSES, rngs=rngs)

    def __call__(self, x):
        return self.out(jnp.tanh(self.hidden(x)))


SMALL = Small(nnx.Rngs(0))


def lifted(x, y=None, *, num_rows=None):
    net = random_nnx_module("net", SMALL, dist.Normal(0, 1.0), scope_divider=".")
    logits = net(x)
    with numpyro.plate("data", num_rows or len(x), subsample_size=len(x)):
        return numpyro.sample("y", dist.Categorical(logits=logits), obs=y)


@pytest.mark.parametrize(
    "method",
    [
        NUTS(num_warmup=200, num_draws=100, num_chains=1, max_tree_depth=5),
        SVI(num_steps=1000, num_draws=100, batch_size=25),
        BayesByBackprop("flipout", num_steps=1000, num_draws=100, batch_size=25),
    ],
    ids=lambda method: method.name,
)
def test_a_lifted_flax_module_is_fitted_and_predicted_by_every_method(method):
    y = X[:, :CLASSES].argmax(1)  # three classes that a linear map tells apart
    result = fit(jax.random.key(0), lifted, X, y, method)
    shapes = {name: draws.shape[2:] for name, draws in result.draws.items()}
    assert shapes == {
        "net.hidden.kernel": (FEATURES, UNITS),
        "net.hidden.bias": (UNITS,),
        "net.out.kernel": (UNITS, CLASSES),
        "net.out.bias": (CLASSES,),
    }
    prediction = predict(result, X, y)
    by_hand = forward(
        {name.removeprefix("net.").replace("hidden", "hidden_0"): d for name, d in result.draws.items()}, X
    )
    np.testing.assert_allclose(prediction.probs, softmax(by_hand, axis=-1).mean((0, 1)), rtol=1e-3, atol=1e-5)
    # One class in three by guessing; learnt, whatever the method.
    assert (prediction.probs.argmax(1) == y).mean() > 0.85
