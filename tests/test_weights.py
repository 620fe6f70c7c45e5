"""Signal-to-noise and pruning, judged on posteriors written down by hand."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hmcvi.inference import (
    MAP,
    NUTS,
    SVI,
    BayesByBackprop,
    Ensemble,
    Fit,
    from_datatree,
    load_datatree,
    predict,
    prune,
    save_datatree,
    signal_to_noise,
    to_datatree,
)
from hmcvi.models import gp, mlp

FEATURES, UNITS, CLASSES, DRAWS = 3, 4, 2, 7
RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(6, FEATURES)).astype(np.float32)
LABELS = np.array([0, 1, 0, 1, 1, 0])
SHAPES = {
    "hidden_0.kernel": (FEATURES, UNITS),
    "hidden_0.bias": (UNITS,),
    "out.kernel": (UNITS, CLASSES),
    "out.bias": (CLASSES,),
}
KERNELS = ("hidden_0.kernel", "out.kernel")
NUM_WEIGHTS = FEATURES * UNITS + UNITS * CLASSES

model = partial(mlp, widths=(UNITS,), num_classes=CLASSES)


def values(shapes, lead=()):
    random = np.random.default_rng(1)
    return {site: jnp.asarray(random.normal(size=(*lead, *shape)), jnp.float32) for site, shape in shapes.items()}


def made(location, scale, model=model, method=None, y=LABELS):
    """A fit with this posterior, made without fitting; its draws have nothing to do with it, and no zeros."""
    draws = values({site: jnp.shape(mean) for site, mean in location.items()}, (1, DRAWS))
    method = method or BayesByBackprop()
    return Fit(
        model, method, jnp.asarray(X), jnp.asarray(y), jax.random.key(0), draws, 0, len(X), 0.0,
        location=location, scale=scale, losses=np.ones(3), finished=True, compile_seconds=0.0,
    )  # fmt: skip


def posterior():
    """A fit whose weights have ratios of their own, all different."""
    location = values(SHAPES)
    scale = {site: 0.1 + jnp.abs(mean) ** 0.5 for site, mean in location.items()}
    return made(location, scale)


def zeros(result, sites=KERNELS):
    return {site: np.asarray(result.location[site]) == 0 for site in sites}


def test_signal_to_noise_is_the_ratio_of_every_weight_of_a_layer():
    result = posterior()
    ratios = signal_to_noise(result)
    assert set(ratios) == set(SHAPES)
    for site, ratio in ratios.items():
        assert ratio.shape == SHAPES[site]
        expected = np.abs(result.location[site]) / np.asarray(result.scale[site])
        np.testing.assert_allclose(ratio, expected, rtol=1e-6)


def test_sites_that_no_layer_drew_are_no_weights():
    regression = partial(mlp, widths=(), likelihood="normal")
    location = values({"out.kernel": (FEATURES, 1), "out.bias": (1,), "noise_scale": ()})
    result = made(location, {site: jnp.ones_like(mean) for site, mean in location.items()}, regression, y=X[:, 0])
    assert set(signal_to_noise(result)) == {"out.kernel", "out.bias"}
    pruned = prune(result, 1.0, sites=["out.kernel", "out.bias"])
    assert not pruned.location["out.kernel"].any()
    assert pruned.location["noise_scale"] == location["noise_scale"]
    with pytest.raises(ValueError, match="prune got the site 'noise_scale'"):
        prune(result, 0.5, sites=["noise_scale"])


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_the_weights_of_lowest_ratio_go_over_all_layers_together(fraction):
    result = posterior()
    pruned = prune(result, fraction)
    gone = zeros(pruned)
    assert sum(part.sum() for part in gone.values()) == round(fraction * NUM_WEIGHTS)
    ratios = signal_to_noise(result)
    flat = np.concatenate([ratios[site].ravel() for site in KERNELS])
    flat_gone = np.concatenate([gone[site].ravel() for site in KERNELS])
    # One threshold for both layers, so that each loses a part of its own.
    np.testing.assert_array_equal(flat_gone, flat < np.sort(np.append(flat, np.inf))[round(fraction * NUM_WEIGHTS)])
    if fraction == 0.5:
        assert len({part.mean() for part in gone.values()}) == 2


def test_what_is_pruned_is_zero_for_certain_and_the_rest_keeps_its_bits():
    result = posterior()
    pruned = prune(result, 0.5)
    for site in SHAPES:
        gone = zeros(pruned).get(site, np.zeros(SHAPES[site], bool))
        for field in ("location", "scale", "draws"):
            before, after = (np.asarray(getattr(f, field)[site]) for f in (result, pruned))
            assert after.dtype == before.dtype
            # Biases have ratios lower than many a kernel's, and stay.
            np.testing.assert_array_equal(after, np.where(gone, 0, before))
    low = min(signal_to_noise(result)[site].min() for site in ("hidden_0.bias", "out.bias"))
    assert low < np.median(signal_to_noise(result)["hidden_0.kernel"])
    for field in dataclasses.fields(Fit):
        if field.name not in ("location", "scale", "draws"):
            assert getattr(pruned, field.name) is getattr(result, field.name)


def test_nothing_and_everything_can_be_pruned():
    result = posterior()
    whole, bare = prune(result, 0.0), prune(result, 1)
    for site in SHAPES:
        np.testing.assert_array_equal(whole.draws[site], result.draws[site])
        assert (np.asarray(bare.draws[site]) == 0).all() == (site in KERNELS)
        assert (signal_to_noise(bare)[site] == 0).all() == (site in KERNELS)


@pytest.mark.parametrize(("fraction", "number"), [(0.0, 0), (0.25, 5), (0.3, 6), (0.5, 10), (0.99, 20), (1.0, 20)])
def test_ties_are_cut_at_the_exact_number(fraction, number):
    # All ratios are equal: a threshold would take all of them or none.
    location = {site: jnp.full(shape, -2.0) for site, shape in SHAPES.items()}
    result = made(location, {site: jnp.full(shape, 0.5) for site, shape in SHAPES.items()})
    assert {*np.concatenate([ratio.ravel() for ratio in signal_to_noise(result).values()])} == {4.0}
    assert sum(part.sum() for part in zeros(prune(result, fraction)).values()) == number


def test_a_weight_that_was_pruned_has_no_signal_and_goes_first_again():
    result = posterior()
    half = prune(result, 0.5)
    ratios = signal_to_noise(half)
    for site, gone in zeros(half).items():
        assert (ratios[site][gone] == 0).all()
        assert (ratios[site][~gone] > 0).all()
    # In two goes as in one, and never less.
    twice, once, again = prune(half, 0.8), prune(result, 0.8), prune(half, 0.2)
    for site in KERNELS:
        np.testing.assert_array_equal(twice.draws[site], once.draws[site])
        np.testing.assert_array_equal(again.draws[site], half.draws[site])


def test_the_sites_to_choose_from_can_be_named():
    result = posterior()
    pruned = prune(result, 0.5, sites=["out.kernel", "out.bias"])
    np.testing.assert_array_equal(pruned.location["hidden_0.kernel"], result.location["hidden_0.kernel"])
    gone = zeros(pruned, ("out.kernel", "out.bias"))
    assert sum(part.sum() for part in gone.values()) == (UNITS * CLASSES + CLASSES) / 2
    ratios = {site: signal_to_noise(result)[site] for site in gone}
    kept = np.concatenate([ratios[site][~gone[site]] for site in gone])
    assert max(ratios[site][gone[site]].max(initial=0) for site in gone) < kept.min()
    twice = prune(result, 0.5, sites=["out.kernel", "out.bias", "out.kernel"])  # named twice, counted once
    np.testing.assert_array_equal(twice.location["out.kernel"], pruned.location["out.kernel"])


def test_bad_arguments_are_named():
    result = posterior()
    for fraction in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match=rf"prune got fraction={fraction}: give the part .* from 0 to 1"):
            prune(result, fraction)
    unknown = (
        "prune got the site 'conv_0.kernel': the layers' weights are hidden_0.kernel, hidden_0.bias, out.kernel, "
        "out.bias"
    )
    with pytest.raises(ValueError, match=unknown):
        prune(result, 0.5, sites=["out.kernel", "conv_0.kernel"])
    with pytest.raises(ValueError, match="prune got no site to choose weights from: the layers' weights are hidden_0"):
        prune(result, 0.5, sites=[])


@pytest.mark.parametrize("call", [signal_to_noise, partial(prune, fraction=0.5)], ids=["ratio", "prune"])
def test_fits_without_a_gaussian_for_each_weight_are_refused(call):
    whole = posterior()
    for method, location in ((NUTS(), None), (Ensemble(), None), (MAP(), whole.location), (SVI(), None)):
        result = dataclasses.replace(whole, method=method, location=location, scale=None)
        with pytest.raises(ValueError, match=f"{method.name} leaves no standard deviation for each weight: fit by"):
            call(result)
    sites = values({"amplitude": (), "lengthscale": (FEATURES,), "noise_scale": ()})
    with pytest.raises(ValueError, match=r"the model has no layer \(dense, conv\) among its sites lengthscale, ampl"):
        call(made(sites, sites, gp, y=X[:, 0]))


def test_a_pruned_fit_predicts_with_its_zeros():
    pruned = prune(posterior(), 0.5)
    w = {site: np.asarray(mean, float) for site, mean in pruned.location.items()}
    hidden = np.tanh(X @ w["hidden_0.kernel"] + w["hidden_0.bias"])
    logits = hidden @ w["out.kernel"] + w["out.bias"]
    probs = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(predict(pruned, X, deterministic=True).probs, probs, rtol=1e-4)
    assert not np.allclose(predict(posterior(), X, deterministic=True).probs, probs, rtol=0.05)
    # Of a network without kernels only the last biases are left: every row has their probabilities.
    bare = prune(posterior(), 1.0)
    bias = np.asarray(bare.draws["out.bias"], float)[0]
    expected = (np.exp(bias) / np.exp(bias).sum(1, keepdims=True)).mean(0)
    np.testing.assert_allclose(predict(bare, X).probs, np.tile(expected, (len(X), 1)), rtol=1e-4)


def test_a_pruned_fit_survives_the_disk(tmp_path):
    result = posterior()
    pruned = prune(result, 0.5)
    save_datatree(to_datatree(pruned), tmp_path / "pruned.nc")
    back = from_datatree(load_datatree(tmp_path / "pruned.nc"), model, X, LABELS, pruned.method)
    for field in ("location", "scale", "draws"):
        for site in SHAPES:
            np.testing.assert_array_equal(getattr(back, field)[site], getattr(pruned, field)[site])
    for site, ratio in signal_to_noise(pruned).items():
        np.testing.assert_array_equal(signal_to_noise(back)[site], ratio)
    np.testing.assert_array_equal(
        predict(back, X, deterministic=True).probs, predict(pruned, X, deterministic=True).probs
    )
    # It can be pruned further, to what the whole fit would be pruned to.
    further, direct = prune(back, 0.75), prune(result, 0.75)
    for site in SHAPES:
        np.testing.assert_array_equal(further.draws[site], direct.draws[site])
