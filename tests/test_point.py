"""Point estimates against modes in closed form, and ensembles against the points they are made of."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest

from hmcvi.inference import MAP, Ensemble, FitError, completion, fit, predict

from .targets import NOISE_SCALE, conjugate_regression, linear_regression

TARGET = conjugate_regression()
X, Y = TARGET.x.astype(np.float32), TARGET.y.astype(np.float32)
KEY = jax.random.key(0)


def test_the_mode_of_the_conjugate_regression_is_its_mean():
    result = fit(KEY, linear_regression, X, Y, MAP(num_steps=1000, learning_rate=0.03))
    np.testing.assert_allclose(result.draws["out.kernel"][0, 0, :, 0], TARGET.mean, atol=1e-4)
    np.testing.assert_array_equal(result.location["out.kernel"], result.draws["out.kernel"][0, 0])
    assert result.scale is None
    assert result.method.loss_name == "negative log joint"
    # One draw predicts its own line, with the known noise and no doubt.
    prediction = predict(result, X)
    np.testing.assert_allclose(prediction.mean, X @ TARGET.mean, atol=1e-3)
    np.testing.assert_allclose(prediction.total_sd, NOISE_SCALE, rtol=1e-6)


def waiting(x, y=None):
    """y ~ Exponential(rate) with rate ~ Exponential(2)."""
    rate = numpyro.sample("rate", dist.Exponential(2.0))
    with numpyro.plate("data", len(x)):
        return numpyro.sample("y", dist.Exponential(rate), obs=y)


def test_a_mode_by_all_rows_comes_to_rest_when_it_is_reached_and_one_by_minibatches_after_a_tenth_of_the_budget():
    """The loss of all rows has no noise to average over."""
    exact, noisy = (
        fit(jax.random.key(0), linear_regression, X, Y, MAP(num_steps=20_000, batch_size=size)) for size in (None, 8)
    )
    assert len(exact.losses) % 500 == 0
    assert len(exact.losses) <= 4000
    assert exact.finished
    np.testing.assert_allclose(exact.draws["out.kernel"][0, 0, :, 0], TARGET.mean, atol=1e-4)
    assert len(noisy.losses) % 2000 == 0
    assert len(noisy.losses) >= 8000


def test_a_mode_that_is_far_off_along_a_narrow_valley_is_not_called_reached():
    """Two inputs that are nearly one: the loss creeps, by less in each window than would be worth going on for."""
    random = np.random.default_rng(0)
    first = random.normal(size=40)
    x = np.stack([first, first + 1e-3 * random.normal(size=40), np.ones(40)], axis=1).astype(np.float32)
    y = (300 * (x[:, 1] - x[:, 0])).astype(np.float32)

    def wide(x, y=None):
        weights = numpyro.sample("weights", dist.Normal(0, 1000).expand([3]).to_event(1))
        numpyro.sample("y", dist.Normal(x @ weights, 0.05), obs=y)

    def loss(weights):
        return ((y - x @ weights) ** 2).sum() / (2 * 0.05**2) + (weights**2).sum() / (2 * 1000**2)

    result = fit(KEY, wide, x, y, MAP(num_steps=10_000))
    found = np.asarray(result.draws["weights"][0, 0], np.float64)
    mode = np.linalg.solve(x.T.astype(float) @ x / 0.05**2 + np.eye(3) / 1000**2, x.T.astype(float) @ y / 0.05**2)
    assert loss(found) - loss(mode) > 1
    assert result.finished is False


def test_restarts_without_noise_that_meet_are_said_to_agree():
    result = fit(KEY, linear_regression, X, Y, MAP(num_steps=20_000, num_restarts=3))
    assert np.ptp(result.restarts) < 0.01
    assert completion(result).verdict == "finished"


def test_the_mode_of_a_positive_site_is_that_of_its_own_space():
    times = np.array([0.1, 0.7, 0.4], np.float32)
    result = fit(KEY, waiting, np.zeros((3, 1)), times, MAP(num_steps=1000, learning_rate=0.03))
    # p(rate | y) = Gamma(1 + n, 2 + Σ y), whose mode is n / (2 + Σ y); with the Jacobian of the logarithm it would be
    # a third higher.
    rate = 3 / (2 + times.sum())
    assert result.draws["rate"][0, 0] == pytest.approx(rate, rel=1e-4)
    assert result.location["rate"] == pytest.approx(np.log(rate), abs=1e-4)
    log_joint = np.log(2) - 2 * rate + 3 * np.log(rate) - rate * times.sum()
    assert result.losses[-1] == pytest.approx(-log_joint, abs=1e-5)


# --- ensembles

SIZE = 3
BUDGET = {"num_steps": 2000, "batch_size": 10, "learning_rate": 0.003}


@cache
def ensemble():
    return fit(KEY, linear_regression, X, Y, Ensemble(size=SIZE, **BUDGET))


@cache
def member(i):
    """A MAP fit by itself, with the key that the member of this number has."""
    return fit(jax.random.split(KEY, SIZE)[i], linear_regression, X, Y, MAP(**BUDGET))


def test_the_members_of_an_ensemble_are_map_fits_bit_for_bit():
    result = ensemble()
    assert result.draws["out.kernel"].shape == (1, SIZE, 3, 1)
    for i in range(SIZE):
        np.testing.assert_array_equal(result.draws["out.kernel"][:, i], member(i).draws["out.kernel"][:, 0])
    assert len(np.unique(result.draws["out.kernel"][0, :, 0, 0])) == SIZE
    assert result.num_gradients == sum(member(i).num_gradients for i in range(SIZE))
    assert result.rows_per_gradient == 10
    assert result.location is None
    assert result.scale is None


def test_the_loss_of_an_ensemble_is_the_mean_of_the_members_that_are_still_at_it():
    losses = [member(i).losses for i in range(SIZE)]
    lengths = sorted(map(len, losses))
    assert lengths[0] < lengths[-1]  # members stop at plateaus of their own
    found = ensemble().losses
    assert len(found) == lengths[-1]
    for step in (0, 500, lengths[0] - 1, lengths[0], lengths[-1] - 1):
        running = [trace[step] for trace in losses if len(trace) > step]
        assert found[step] == pytest.approx(np.mean(running), rel=1e-12)
    assert ensemble().finished == all(member(i).finished for i in range(SIZE))


def test_an_ensemble_predicts_the_mixture_of_its_members():
    prediction, members = predict(ensemble(), X), [predict(member(i), X) for i in range(SIZE)]
    np.testing.assert_allclose(prediction.mean, np.mean([m.mean for m in members], 0), rtol=1e-5)
    np.testing.assert_allclose(prediction.epistemic_sd, np.std([m.mean for m in members], 0), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("size", [1, 0, -3])
def test_an_ensemble_of_one_is_refused(size):
    with pytest.raises(ValueError, match=rf"Ensemble got size={size}: give at least 2, or use MAP\(\)"):
        Ensemble(size=size)


def cliff(x, y=None):
    """As in test_optimise_failures: NaN as soon as w passes 2, and a start on either side of −40."""
    w = numpyro.sample("w", dist.Normal(-40.0, 20.0))
    with numpyro.plate("data", len(x)):
        return numpyro.sample("y", dist.Normal(jnp.where(w > 2, jnp.nan, w), 1.0), obs=y)


def test_a_member_that_goes_wrong_ends_the_ensemble_and_those_before_it_are_kept():
    # Steps of 1: after 35 of them a start over −33 has passed the bound, and one below has not.
    settings = {"num_steps": 36, "learning_rate": optax.constant_schedule(1.0), "optimizer": optax.sign_sgd}
    fit_one = partial(fit, model=cliff, x=X, y=np.full(len(X), 100.0))
    keys = jax.random.split(KEY, 6)
    failures = []
    for i, key in enumerate(keys):
        try:
            fit_one(key, method=MAP(**settings))
        except FitError as error:
            failures.append((i, error))
    first, error = failures[0]
    assert 0 < first < 5  # some members are sound, and one is left that is not tried
    with pytest.raises(FitError, match=str(error)) as e:
        fit_one(KEY, method=Ensemble(size=6, **settings))
    left = e.value.fit
    assert left.num_draws == first + 1
    np.testing.assert_array_equal(left.draws["w"][0, first], error.fit.draws["w"][0, 0])
    np.testing.assert_array_equal(left.draws["w"][0, 0], fit_one(keys[0], method=MAP(**settings)).draws["w"][0, 0])
    assert left.num_gradients == 36 * first + len(error.fit.losses)
