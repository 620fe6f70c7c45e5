"""Did the optimiser finish: gradients of known signal, restarts that agree or not, allowances that are kept to."""

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
    FitError,
    Laplace,
    completion,
    fit,
    from_datatree,
    to_datatree,
)
from hmcvi.inference.optimise import LEAST_ASKED, LEAST_PROBES
from hmcvi.inference.plateau import signal_of

from .targets import conjugate_regression, linear_regression

TARGET = conjugate_regression()
X, Y = TARGET.x.astype(np.float32), TARGET.y.astype(np.float32)
ROWS = len(X)
KEY = jax.random.key(0)


# --- the gradient


@pytest.mark.parametrize("signal", [0.0, 0.3, 1.0, 5.0])
def test_the_signal_of_gradients_is_what_they_were_made_with(signal):
    random = np.random.default_rng(0)
    scale = np.array([3.0, 1.0, 0.1, 0.1, 0.1])
    mean = signal * np.sqrt((scale**2).sum()) * np.array([0.6, 0.8, 0, 0, 0])
    gradients = mean + scale * random.normal(size=(2000, LEAST_PROBES, 5))
    found = [asked(of_fit) for of_fit in gradients]
    # The square is cut at 0, where half of a normal error of about √(2/d) / K with d effective dimensions is left.
    assert np.mean([of.snr**2 for of in found]) == pytest.approx(signal**2, rel=0.05, abs=1 / LEAST_PROBES)
    if signal >= 1:
        assert min(of.z for of in found) > 4


def asked(gradients):
    """What the optimisation asks of gradients (gradient, parameter), one after the other."""
    before = np.cumsum(gradients, 0) - gradients
    return signal_of((gradients * before).sum(1), (gradients**2).sum(1))


@pytest.mark.parametrize("directions", [1, 2, 10, 1000])
def test_gradients_of_no_signal_seldom_seem_to_have_one_in_however_many_directions(directions):
    random = np.random.default_rng(0)
    z = np.array([asked(random.normal(size=(LEAST_PROBES, directions))).z for _ in range(1000)])
    # A Normal passes 2.33 in 10 of 1000, and in more than 25 with a chance of 1e-5; few directions pass it less often.
    assert (z > 2.33).sum() <= 25
    assert z.max() < 4.5  # 0.3 % false alarms
    if directions == 1000:  # and it is no empty promise
        assert 0.85 < z.std() < 1.15


@pytest.mark.parametrize("method", [SVI, BayesByBackprop], ids=["svi", "bbb"])
def test_a_gradient_has_a_direction_at_the_start_and_none_at_the_end(method):
    early = fit(KEY, linear_regression, X, Y, method(num_steps=LEAST_ASKED, learning_rate=1e-6, num_draws=2))
    late = fit(KEY, linear_regression, X, Y, method(num_steps=3000, num_draws=2))
    assert late.finished
    assert early.gradient_snr > 2
    assert early.gradient_z > 4
    assert late.gradient_snr < 0.25
    assert late.gradient_z < 4
    assert completion(late).verdict == "finished"
    assert completion(early).verdict == "unfinished"
    back = from_datatree(to_datatree(early), early.model, X, Y, early.method)
    assert (back.gradient_snr, back.gradient_z) == (early.gradient_snr, early.gradient_z)


def test_a_point_on_all_rows_has_no_noise_and_on_minibatches_it_has():
    whole = fit(KEY, linear_regression, X, Y, MAP(num_steps=LEAST_ASKED))
    assert whole.gradient_snr is whole.gradient_z is None
    assert "gradient not asked" in completion(whole).reason
    assert fit(KEY, linear_regression, X, Y, MAP(num_steps=LEAST_ASKED, batch_size=10)).gradient_snr >= 0
    assert fit(KEY, linear_regression, X, Y, MAP(num_steps=LEAST_ASKED - 1, batch_size=10)).gradient_snr is None


# --- the verdict


def ended(**changes):
    """A fit of 100 steps that has finished, but for these changes; made without fitting."""
    settled = {
        "losses": np.ones(100),
        "finished": True,
        "gradient_snr": 0.1,
        "gradient_z": 1.5,
        "restarts": np.array([5.0]),
        "restart_errors": np.array([0.1]),
    }
    draws = {"w": jnp.zeros((1, 2, 3))}
    return Fit(
        linear_regression, SVI(), jnp.asarray(X), jnp.asarray(Y), KEY, draws, 100, ROWS, 0.0, **settled | changes
    )


VERDICTS = {
    "finished": ({}, "finished", "plateau within 100 steps; gradient signal/noise 0.100, z = 1.5; one start"),
    "no plateau": ({"finished": False}, "unfinished", "no plateau within the budget of 100 steps: raise num_steps"),
    "schedule": ({"finished": None}, "schedule ended", "where any loss is flat"),
    "moving": ({"gradient_z": 9.0}, "unfinished", "z = 9.0, wanted z ≤ 4: raise num_steps"),
    "moving on schedule": ({"finished": None, "gradient_z": 9.0}, "unfinished", "z = 9.0, wanted z ≤ 4"),
    "no noise": ({"gradient_snr": None, "gradient_z": None}, "finished", "gradient not asked"),
    "agree": (
        {"restarts": np.array([5.2, 5.0, 5.1]), "restart_errors": np.array([0.1, 0.1, 0.1])},
        "finished",
        "3 restarts within 0.2 nats, 1.4 standard errors",
    ),
    "disagree": (
        {"restarts": np.array([5.6, 5.0]), "restart_errors": np.array([0.1, 0.1])},
        "restarts disagree",
        "2 restarts within 0.6 nats, 4.2 standard errors",
    ),
    "one failed": (
        {"restarts": np.array([5.6, np.inf]), "restart_errors": np.array([0.1, np.nan])},
        "restarts disagree",
        "1 of 2 restarts failed",
    ),
    "members": ({"restarts": None, "restart_errors": None}, "finished", "members are meant to differ"),
}


@pytest.mark.parametrize("case", VERDICTS)
def test_the_verdict_and_its_reasons(case):
    changes, verdict, reason = VERDICTS[case]
    found = completion(ended(**changes))
    assert found.verdict == verdict
    assert reason in found.reason


def test_a_fit_that_its_allowance_cut_short_is_advised_to_have_more_of_it():
    cut = dataclasses.replace(ended(finished=False), method=SVI(num_steps=500, max_passes=10))
    assert "no plateau within the budget of 100 steps: raise the allowance" in completion(cut).reason
    spent = dataclasses.replace(cut, method=SVI(num_steps=100, max_passes=10))
    assert "raise num_steps" in completion(spent).reason


def test_a_sampler_does_not_finish():
    assert completion(dataclasses.replace(ended(), method=NUTS(), losses=None)) is None


# --- restarts


@pytest.mark.parametrize("method", [MAP, partial(SVI, num_draws=3), partial(BayesByBackprop, num_draws=3)])
def test_the_best_of_several_starts_is_kept_and_all_are_paid_for(method):
    settings = {"num_steps": 30, "batch_size": 10}
    result = fit(KEY, linear_regression, X, Y, method(num_restarts=3, **settings))
    alone = [fit(key, linear_regression, X, Y, method(**settings)) for key in jax.random.split(KEY, 3)]
    np.testing.assert_array_equal(result.restarts, [one.restarts[0] for one in alone])
    best = alone[int(result.restarts.argmin())]
    np.testing.assert_array_equal(result.losses, best.losses)
    np.testing.assert_array_equal(result.draws["out.kernel"], best.draws["out.kernel"])
    assert result.num_gradients == 90
    assert len(set(result.restarts)) == 3


def test_members_are_starts_and_one_fit_is_no_start_of_several():
    with pytest.raises(ValueError, match="Ensemble got num_restarts=2: its members are starts"):
        Ensemble(num_restarts=2)
    with pytest.raises(ValueError, match="SVI got one Fit to start every restart from"):
        SVI(num_restarts=2, start=ended())


# --- allowances


ALLOWED = {
    "svi": SVI(num_draws=2, batch_size=16),
    "particles": SVI(num_draws=2, batch_size=16, num_particles=3),
    "restarts": BayesByBackprop(num_draws=2, batch_size=16, num_restarts=3),
    "start": MAP(start=MAP(batch_size=7), batch_size=16),
    "ensemble": Ensemble(size=3, batch_size=16),
    "laplace": Laplace(num_draws=2, batch_size=16),
}


@pytest.mark.parametrize("name", ALLOWED)
def test_passes_never_exceed_the_allowance_and_come_close_to_it(name):
    method = dataclasses.replace(ALLOWED[name], max_passes=31.7)
    result = fit(KEY, linear_regression, X, Y, method)
    assert 0.8 * 31.7 < result.num_passes <= 31.7
    assert result.finished is False
    assert completion(result).verdict == "unfinished"


def test_the_rate_falls_to_its_end_within_the_allowance():
    afforded = fit(KEY, linear_regression, X, Y, MAP(max_passes=50.0, schedule="cosine"))
    planned = fit(KEY, linear_regression, X, Y, MAP(num_steps=50, schedule="cosine"))
    assert len(afforded.losses) == 50
    assert afforded.finished is None
    np.testing.assert_array_equal(afforded.losses, planned.losses)
    # A schedule of one's own knows nothing of the allowance: cut, it has not ended.
    cut = fit(KEY, linear_regression, X, Y, MAP(max_passes=50.0, learning_rate=lambda step: 0.01))
    assert cut.finished is False
    members = fit(KEY, linear_regression, X, Y, Ensemble(size=2, max_passes=50.0, learning_rate=lambda step: 0.01))
    assert members.finished is False


def test_seconds_are_an_allowance_too():
    result = fit(KEY, linear_regression, X, Y, MAP(num_steps=10_000_000, max_seconds=0.5))
    # However fast the machine, ten million steps take longer than half a second.
    assert 1 <= len(result.losses) < 10_000_000
    assert result.finished is not None


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (MAP(max_passes=0.5), "max_passes leaves 0.5 to a start, which does not afford one step: raise max_passes"),
        (Ensemble(max_passes=4.0), "max_passes leaves 0.8 to a start"),
        (MAP(max_seconds=1e-9), "max_seconds leaves 1e-09 to a start, which does not afford one step"),
        (Laplace(max_passes=5.0), "Laplace got max_passes=5, which the Hessian over 3 weights takes alone"),
    ],
)
def test_an_allowance_of_nothing_buys_no_posterior(method, message):
    with pytest.raises(FitError, match=message):
        fit(KEY, linear_regression, X, Y, method)
