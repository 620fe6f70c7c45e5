"""How a fit that SVI, Bayes-by-Backprop or MAP makes goes wrong: named by its step, its last finite state kept."""

import dataclasses
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest

from hmcvi.inference import MAP, Ensemble, FitError, fit, predict

from .optimised import KEY, METHODS, ROWS, STAY, X, Y, point
from .targets import linear_regression


def cliff(x, y=None, *, bound=0.9375):
    """y ~ Normal(w, 1) for targets far above, and NaN as soon as w passes the bound."""
    w = numpyro.sample("w", dist.Normal(0.0, 1000.0))
    with numpyro.plate("data", len(x)):
        return numpyro.sample("y", dist.Normal(jnp.where(w > bound, jnp.nan, w), 1.0), obs=y)


FAR = np.full(ROWS, 100.0, np.float32)

# Every step is 1/8 up, in exact binary: w is k/8 after k steps, and 8 steps pass the bound. The width of the
# variational posteriors, a millionth, and its own 1/8 a step in log do not reach it.
STEEP = {"learning_rate": optax.constant_schedule(0.125), "optimizer": optax.sign_sgd}
NARROW = {"map": {}, "svi": {"init_scale": 1e-6}, "bbb": {"init_scale": 1e-6}}


def climb(name, num_steps, model=cliff, start=0.0):
    method = METHODS[name](num_steps=num_steps, start=point(start, site="w"), **STEEP, **NARROW[name])
    return fit(KEY, model, X, FAR, method)


@cache
def climbed(name, num_steps, model=cliff):
    return climb(name, num_steps, model)


def check_same_bits(found, expected):
    for field in ("draws", "location", "scale"):
        values = getattr(expected, field) or {}
        for site, value in values.items():
            np.testing.assert_array_equal(getattr(found, field)[site], value)


# A tenth of the budget is a chunk: the bad step is the first of the second chunk, within a chunk, the first of the
# third chunk, a chunk by itself, the last of all.
@pytest.mark.parametrize(
    ("name", "num_steps"),
    [
        ("map", 80),
        ("map", 50),
        ("map", 40),
        ("map", 10),
        ("map", 9),
        ("svi", 40),
        ("bbb", 40),
    ],
)
def test_a_loss_that_turns_nan_is_named_by_its_step_and_leaves_the_state_before_it(name, num_steps):
    with pytest.raises(FitError, match=f"^the loss became nan at step 8 of {num_steps}: lower the learning rate") as e:
        climb(name, num_steps)
    left = e.value.fit
    # The loss at step 7 was the last finite one: that of the parameters after 7 steps.
    assert left.location["w"] == pytest.approx(0.875, abs=1e-6)
    check_same_bits(left, climbed(name, 7))
    # Their last loss is the last that was recorded.
    np.testing.assert_array_equal(left.losses, climbed(name, 8).losses)
    assert left.num_gradients == 8
    assert left.finished is None  # a schedule decides the end
    assert left.failure == str(e.value)
    assert left.compile_seconds > 0


@pytest.mark.parametrize("name", METHODS)
def test_a_second_loss_that_is_bad_leaves_the_start(name):
    with pytest.raises(FitError, match="the loss became nan at step 1 of 30") as e:
        climb(name, 30, partial(cliff, bound=0.0625))
    assert e.value.fit.location["w"] == 0
    assert len(e.value.fit.losses) == 1


# NumPyro's guide runs the model at the start by itself, and its own check of the distributions speaks first.
SVI_AT_A_BAD_START = pytest.param(
    "svi", marks=pytest.mark.xfail(raises=ValueError, strict=True, reason="NumPyro's ValueError in place of FitError")
)


@pytest.mark.parametrize("name", ["map", "bbb", SVI_AT_A_BAD_START])
def test_a_first_loss_that_is_bad_leaves_nothing(name):
    with pytest.raises(FitError, match="step 0 of 30: look at the data, the prior and the start") as e:
        climb(name, 30, start=2.0)
    assert e.value.fit is None


def edge(x, y=None):
    """A likelihood that is finite past w = 1 too, but not its gradient: that of 0 times the infinite slope of √0."""
    w = numpyro.sample("w", dist.Normal(0.0, 1000.0))
    with numpyro.plate("data", len(x)):
        return numpyro.sample("y", dist.Normal(w - 1e-3 * jnp.sqrt(jnp.maximum(1 - w, 0)), 1.0), obs=y)


@pytest.mark.parametrize("num_steps", [100, 10])
def test_parameters_that_turn_nan_after_the_last_loss_of_a_chunk_are_caught(num_steps):
    # Loss 9, at w = 9/8, is finite, and ends a chunk of ten steps or of one: only the parameters after it tell.
    with pytest.raises(FitError, match=f"^the parameters were no longer finite at step 10 of {num_steps}") as e:
        climb("map", num_steps, edge)
    assert e.value.fit.location["w"] == 1.125
    check_same_bits(e.value.fit, climbed("map", 9, edge))
    assert len(e.value.fit.losses) == 10
    assert np.isfinite(e.value.fit.losses).all()


def blind(x, y=None):
    """As `cliff`, but past w = 15/16 it is the gradient of a site that no loss shows which turns NaN."""
    w = numpyro.sample("w", dist.Normal(0.0, 1000.0))
    unseen = numpyro.sample("unseen", dist.Normal(0.0, 1.0).mask(False))
    passed = jax.lax.stop_gradient(w) > 0.9375
    # Past it the root is of 0, with an infinite slope, and 0 times that is NaN where it is left out.
    root = jnp.where(passed, 0.0, jnp.sqrt(jnp.where(passed, 0.0, 1.0) * unseen**2))
    with numpyro.plate("data", len(x)):
        return numpyro.sample("y", dist.Normal(w + 1e-3 * root, 1.0), obs=y)


@pytest.mark.parametrize("num_steps", [100, 30])
def test_parameters_that_turn_nan_within_a_chunk_and_in_silence_are_found(num_steps):
    start = dataclasses.replace(point(0.0, site="w"), location={"w": jnp.asarray(0.0), "unseen": jnp.asarray(1.0)})
    method = MAP(num_steps=num_steps, start=start, **STEEP)
    last = num_steps // 10 * (9 // (num_steps // 10) + (9 % (num_steps // 10) > 0))  # the end of the chunk of step 9
    with pytest.raises(FitError, match=f"^the parameters were no longer finite at step {last} of {num_steps}") as e:
        fit(KEY, blind, X, FAR, method)
    # After 8 steps w passes the bound, at 1; the gradient there breaks the other site, with the ninth step.
    assert e.value.fit.location["w"] == 1
    assert np.isfinite(e.value.fit.location["unseen"])


def slope(x, y=None, *, num_rows=None):
    """y ~ Normal(w x, 1), and NaN as soon as w passes a bound."""
    w = numpyro.sample("w", dist.Normal(0.0, 1000.0))
    with numpyro.plate("data", num_rows or len(x), subsample_size=len(x)):
        return numpyro.sample("y", dist.Normal(jnp.where(w > 2, jnp.nan, w) * x[:, 0], 1.0), obs=y)


@pytest.mark.parametrize("name", ["map", "bbb"])
def test_the_way_back_repeats_minibatches_noise_and_moments(name):
    def fitted(num_steps):
        method = METHODS[name](
            num_steps=num_steps,
            batch_size=7,
            learning_rate=optax.linear_schedule(0.05, 0.2, 40),
            start=point(0.0, site="w"),
        )
        return fit(KEY, slope, X, 100 * X[:, 0], method)

    with pytest.raises(FitError, match=r"the loss became nan at step \d+ of 60") as e:
        fitted(60)
    step = len(e.value.fit.losses)
    assert f"step {step} of 60" in str(e.value)
    assert 12 < step < 60  # beyond the first two chunks of 6 and epochs of 5
    check_same_bits(e.value.fit, fitted(step - 1))


@pytest.mark.parametrize("method", [METHODS["map"], METHODS["bbb"]], ids=["map", "bbb"])
def test_a_rate_that_is_far_too_high_leaves_a_fit_to_predict_and_to_start_from(method):
    rate = {"learning_rate": 1e3, "optimizer": optax.sgd}
    with pytest.raises(FitError, match=r"the loss became (inf|nan) at step \d+ of 50") as e:
        fit(KEY, linear_regression, X, Y, method(num_steps=50, **rate))
    left = e.value.fit
    assert np.isfinite(left.losses).all()
    assert np.isfinite(predict(left, X, deterministic=True).loc).all()
    again = fit(KEY, linear_regression, X, Y, method(start=left, **STAY))
    np.testing.assert_array_equal(again.location["out.kernel"], left.location["out.kernel"])


def test_a_start_that_goes_wrong_is_no_start():
    start = MAP(num_steps=50, learning_rate=1e3, optimizer=optax.sgd)
    with pytest.raises(FitError, match=r"^the fit to start from: the loss became (inf|nan) at step \d+ of 50") as e:
        fit(KEY, linear_regression, X, Y, MAP(num_steps=5, start=start))
    assert e.value.fit.method == start


def test_one_fit_is_no_start_of_an_ensemble():
    with pytest.raises(ValueError, match=r"one Fit to start every member from: they would all end alike; give MAP"):
        Ensemble(start=point(np.zeros((3, 1))))
