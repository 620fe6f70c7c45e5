"""The samplers beside NUTS against a closed form, the budgets of all of them, and blackjax as an extra."""

import dataclasses
import subprocess
import sys
from functools import cache
from itertools import count, pairwise
from types import SimpleNamespace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hmcvi.benchmarks import cli
from hmcvi.inference import (
    HMC,
    MAMS,
    MCLMC,
    NUTS,
    FitError,
    chains,
    convergence,
    fit,
    from_datatree,
    load_datatree,
    microcanonical,
    save_datatree,
    to_datatree,
)
from hmcvi.inference.chains import Chains, Sampler
from hmcvi.inference.diagnostics import TUNED, bulk_ess
from hmcvi.inference.microcanonical import Microcanonical

from .targets import conjugate_regression, linear_regression

TARGET = conjugate_regression()
X, Y = TARGET.x.astype(np.float32), TARGET.y.astype(np.float32)

# --- the right posterior

SAMPLERS = {
    "hmc": HMC(num_warmup=300, num_draws=1000),
    "hmc, dense": HMC(num_warmup=300, num_draws=1000, dense_mass=True, chain_method="vectorized"),
    "mclmc": MCLMC(num_warmup=2000, num_draws=1000, thinning=10),
    "mams": MAMS(num_warmup=3000, num_draws=1000),
}


@cache
def fitted(name):
    return fit(jax.random.key(0), linear_regression, X, Y, SAMPLERS[name])


@pytest.mark.parametrize("name", SAMPLERS)
def test_moments_are_those_of_the_conjugate_posterior(name):
    draws = np.asarray(fitted(name).draws["out.kernel"], float)[..., 0]
    # In the axes of the posterior's covariance: three independent standard Normals.
    standard = (draws - TARGET.mean) @ np.linalg.inv(np.linalg.cholesky(TARGET.covariance)).T
    # MCLMC may be off by the bias of its step size: 20 chains of 10,000 draws had variances 1.2 (0.3) % too small along
    # the narrowest axis, and less along the others and in the means.
    bias = 0.02 if name == "mclmc" else 0.0
    for moment, exact, sd in ((standard, 0, 1.0), (standard**2, 1, np.sqrt(2))):
        size = bulk_ess(moment)
        assert size.min() > 400
        # Six moments of four fits, 4.5 standard errors: 2e-4 false alarms.
        np.testing.assert_array_less(np.abs(moment.mean((0, 1)) - exact), 4.5 * sd / np.sqrt(size) + bias)


@pytest.mark.parametrize("name", ["hmc", "mclmc", "mams"])
def test_the_verdict_holds_for_every_sampler(name):
    found = convergence(fitted(name), X, Y)
    assert found.converged, found.reason
    # Trajectories of constant speed have no kinetic energy to draw anew.
    assert np.isnan(found.ebfmi) == (name != "hmc")
    assert ("E-BFMI is not applicable" in found.reason) == (name != "hmc")


def test_a_trajectory_takes_as_many_gradients_as_its_length_asks_for():
    result, method = fitted("hmc"), SAMPLERS["hmc"]
    wanted = np.ceil(method.trajectory_length / result.stats["step_size"])
    np.testing.assert_array_equal(result.stats["n_steps"], wanted)
    short = HMC(num_warmup=20, num_draws=10, num_chains=1, trajectory_length=100.0, max_num_steps=7)
    steps = fit(jax.random.key(0), linear_regression, X, Y, short).stats["n_steps"]
    np.testing.assert_array_equal(steps, 7)


def test_the_tuning_reaches_the_energy_variance_that_it_was_asked_for():
    # Var[ΔE]/d of 4 × 10,000 steps is known to percents; the tuning's estimate scatters by some ten percent.
    found = float(np.mean(fitted("mclmc").stats["energy_variance"]))
    assert 0.5 < found / SAMPLERS["mclmc"].desired_energy_var < 2


@pytest.mark.parametrize("factor", [2.5, 1e19], ids=["inaccurate", "not finite"])
def test_steps_that_the_tuning_left_too_long_are_shortened(factor, monkeypatch):
    tune = Microcanonical.tune

    def too_long(*arguments):
        integrator, parameters = tune(*arguments)
        return integrator, parameters._replace(step_size=factor * parameters.step_size)

    def fitted_with(checked):
        monkeypatch.setattr(microcanonical, "CHECKED", checked)
        return fit(jax.random.key(0), linear_regression, X, Y, method, progress=False).stats

    method = dataclasses.replace(SAMPLERS["mclmc"], num_warmup=4000, num_draws=100)
    monkeypatch.setattr(Microcanonical, "tune", too_long)
    before, after = fitted_with(0.0), fitted_with(0.2)
    # four checks, each of which shortens by a fifth
    shortened = np.asarray(after["step_size"]) / np.asarray(before["step_size"])
    assert (shortened < 0.9).all()
    if factor < 1e19:
        # the energy's variance goes with the sixth power of the step: it was some 200 times what was asked for
        worst = [np.median(of["energy_variance"], axis=1).max() / method.desired_energy_var for of in (before, after)]
        assert worst[0] > 10 * TUNED
        assert worst[1] < TUNED
    else:
        assert before["diverging"].all()
        np.testing.assert_allclose(shortened, 0.8**4, rtol=0.5)  # 4 of 4 checks; the tuning was of fewer steps


def test_a_step_that_suits_is_left_as_it_is(monkeypatch):
    """By 20 checks of 4 chains, few are shortened where the tuning is right."""
    monkeypatch.setattr(microcanonical, "CHECKED", 2 / 3)
    method = dataclasses.replace(SAMPLERS["mclmc"], num_warmup=6000, num_draws=100)
    with_checks = fit(jax.random.key(1), linear_regression, X, Y, method, progress=False)
    found = np.median(with_checks.stats["energy_variance"]) / method.desired_energy_var
    assert found > 0.2  # one shortening of all chains would leave 0.26, two 0.07


def test_mclmc_counts_every_gradient_of_tuning_and_steps():
    # 2000 tuning steps and 1000 draws of 10 steps, of two gradients each, in 4 chains.
    assert fitted("mclmc").num_gradients == 4 * 2 * (2000 + 1000 * 10)
    assert (np.asarray(fitted("mclmc").stats["n_steps"]) == 10).all()


def test_mams_reaches_its_acceptance_and_counts_every_gradient():
    method, result = SAMPLERS["mams"], fitted("mams")
    # Dual averaging over 150 trajectories leaves some hundredths.
    assert abs(float(np.mean(result.stats["acceptance_rate"])) - method.target_accept) < 0.08
    per_draw = np.asarray(result.stats["n_steps"])
    # Lengths of 2 trajectories a draw, uniform from 1 to 19 where the mean is 10: sd √(2 · 30).
    assert abs(per_draw.mean() - 2 * 10) < 4.5 * np.sqrt(60 / per_draw.size)
    tuning = result.num_gradients / 2 - per_draw.sum()
    # 1500 unadjusted steps and 150 trajectories of 10 on average, in each of 4 chains.
    assert abs(tuning - 4 * 3000) < 4.5 * np.sqrt(4 * 150 * 30)


# --- budgets


class Where(NamedTuple):
    z: dict[str, jax.Array]
    key: jax.Array
    steps: jax.Array


@dataclasses.dataclass(frozen=True)
class Independent(Sampler):
    """A toy whose draws are independent noise, and whose i-th draw of chain c costs 1 + (i + c) % 5 gradients."""

    num_warmup: int = 60
    num_draws: int = 140
    num_chains: int = 2
    chain_method: str = "sequential"
    max_passes: float | None = None
    max_seconds: float | None = None

    @property
    def name(self):
        return "independent"

    def start(self, chain_keys, model, x, y, spread=None):
        def draw(state, x, y):
            key, key_noise = jax.random.split(state.key)
            z = {"out.kernel": jax.random.normal(key_noise, (3, 1))}
            return Where(z, key, (state.steps % 5) + 1)

        return Chains(
            state=Where({"out.kernel": jnp.zeros((2, 3, 1))}, chain_keys, jnp.arange(2)),
            draw=draw,
            record=lambda state: {"z": state.z, "n_steps": state.steps, "step_size": jnp.ones(())},
            constrain=lambda x, y: lambda z: z,
            num_warmup=self.num_warmup,
        )


PRICES = sum(1 + (np.arange(200) + chain) % 5 for chain in range(2))
SPENT = np.cumsum(PRICES)


def independent(monkeypatch, **allowance):
    """Return (fit, draws of each chain at the end of every chunk)."""
    ends = [0]
    monkeypatch.setattr(chains.Progress, "update", lambda self, done, total, unit, detail: ends.append(done))
    result = fit(jax.random.key(0), linear_regression, X, Y, Independent(**allowance), progress=False)
    return result, ends


def test_a_run_without_allowances_is_whole(monkeypatch):
    result, ends = independent(monkeypatch)
    assert result.num_draws == 140
    assert result.num_gradients == SPENT[-1]
    # twice as many draws a call, up to the chunk of a twentieth
    assert ends == [0, 1, 3, 7, *range(15, 200, 10), 200]
    assert result.ended_in_warmup is None


def test_calls_of_few_draws_keep_those_draws_alone(monkeypatch):
    """A slow machine's call of one draw must not hold the buffer of a whole chunk."""
    sizes = []
    concatenate = np.concatenate

    def measured(parts, *arguments, **options):
        sizes.extend(part.nbytes if part.base is None else part.base.nbytes for part in parts)
        return concatenate(parts, *arguments, **options)

    monkeypatch.setattr("hmcvi.inference.progress.UPDATE_SECONDS", 0.0)
    monkeypatch.setattr(chains.np, "concatenate", measured)
    independent(monkeypatch)
    assert len(sizes) == 3 * 200  # draws, steps and step sizes, one draw of each chain a call
    assert max(sizes) <= 2 * 3 * 8


@pytest.mark.parametrize("passes", [400, 777.5, 1000])
def test_an_allowance_of_passes_ends_after_the_chunk_that_spends_it(monkeypatch, passes):
    whole, _ = independent(monkeypatch)
    result, ends = independent(monkeypatch, max_passes=passes)
    assert SPENT[ends[-2] - 1] < passes <= SPENT[ends[-1] - 1] == result.num_gradients == result.num_passes
    # By then a chunk is one draw of each chain, the dearest of which takes ten gradients.
    assert result.num_passes - passes < PRICES.max()
    # Half of what was left, at the price of the chunk before, which differs by a factor of 9/3 at most.
    for before, end in pairwise(ends[1:]):
        assert end - before == 1 or SPENT[end - 1] - SPENT[before - 1] <= 3 * (passes - SPENT[before - 1]) / 2
    # The draws are those of the whole run, as many of each chain.
    assert result.num_draws == ends[-1] - 60
    for site, draws in result.draws.items():
        np.testing.assert_array_equal(draws, whole.draws[site][:, : result.num_draws])
    assert {values.shape for values in result.stats.values()} == {(2, result.num_draws)}
    assert result.ended_in_warmup is None


def test_an_allowance_that_is_never_spent_changes_nothing(monkeypatch):
    (whole, _), (result, _) = independent(monkeypatch), independent(monkeypatch, max_passes=1e6, max_seconds=1e6)
    np.testing.assert_array_equal(result.draws["out.kernel"], whole.draws["out.kernel"])
    assert result.num_gradients == whole.num_gradients


@pytest.mark.parametrize("passes", [45, 200, SPENT[61] - 1])
def test_an_allowance_that_ends_within_the_warm_up_keeps_its_second_half_and_says_so(monkeypatch, tmp_path, passes):
    whole, ends = independent(monkeypatch, max_passes=float(passes))
    done = ends[-1]
    # Fewer than four draws after the warm-up are not enough to judge anything by.
    assert done < 64
    assert whole.ended_in_warmup == done
    assert whole.num_draws == done - done // 2
    x, y = X[:8], Y[:8]
    found = convergence(whole, x, y)
    assert not found.converged
    assert found.reason.startswith(f"the budget ended within warm-up after {done} draws; ")
    save_datatree(to_datatree(whole), tmp_path / "fit.nc")
    back = from_datatree(load_datatree(tmp_path / "fit.nc"), whole.model, X, Y, whole.method)
    assert back.ended_in_warmup == done
    assert type(back.ended_in_warmup) is int
    assert convergence(back, x, y) == found


def test_an_allowance_of_seconds_counts_compiled_calls_alone(monkeypatch):
    ticks = count()
    # The driver reads its clock before and after a call of compiled code, and nowhere else: each takes a second.
    monkeypatch.setattr(chains, "time", SimpleNamespace(perf_counter=lambda: float(next(ticks))))
    result, ends = independent(monkeypatch, max_seconds=12.0)
    assert result.run_seconds == 12.0
    assert len(ends) - 1 == 12
    assert result.num_draws == ends[-1] - 60


@pytest.mark.parametrize("allowance", [{"max_passes": 20.0}, {"max_seconds": 1e-9}])
def test_a_budget_that_leaves_fewer_than_four_draws_is_refused_in_one_sentence(monkeypatch, allowance):
    ((name, value),) = allowance.items()
    wanted = rf"independent spent its budget of {name}={value:g} within \d+ draws of each chain: raise it"
    with pytest.raises(FitError, match=wanted):
        independent(monkeypatch, **allowance)


def test_nuts_under_an_allowance_draws_what_it_draws_without():
    method = NUTS(num_warmup=50, num_draws=50, num_chains=2, max_tree_depth=4)
    whole = fit(jax.random.key(0), linear_regression, X, Y, method)
    allowance = 0.75 * whole.num_gradients
    result = fit(jax.random.key(0), linear_regression, X, Y, dataclasses.replace(method, max_passes=allowance))
    assert allowance <= result.num_passes < allowance + 2 * (2**4 - 1)
    assert 4 <= result.num_draws < 50
    for site, draws in result.draws.items():
        np.testing.assert_array_equal(draws, whole.draws[site][:, : result.num_draws])


def test_the_tuning_of_mclmc_takes_half_of_its_allowance_at_most():
    # 100 passes are 50 steps of a chain: 25 of tuning, and draws of 2 steps for the rest. The seconds, no limit here,
    # have the driver measure a draw's price ahead of the tuning, which must change nothing.
    method = MCLMC(num_warmup=1000, num_draws=100, num_chains=1, thinning=2, max_passes=100.0, max_seconds=1e6)
    result = fit(jax.random.key(0), linear_regression, X, Y, method)
    assert result.num_passes == 50 + 4 * result.num_draws
    assert 100 <= result.num_passes < 104
    # Where a step takes half a second, half of 50 seconds pays for 50 steps.
    timed = dataclasses.replace(method, max_passes=None, max_seconds=50.0)
    assert timed._tuning_steps(0.5) == 50


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: NUTS(max_passes=0), "NUTS got max_passes=0: give a number above 0, or None for no limit"),
        (lambda: HMC(max_seconds=float("nan")), "HMC got max_seconds=nan: give a number above 0, or None"),
        (lambda: HMC(trajectory_length=0.0), "HMC got trajectory_length=0.0: give a number above 0"),
        (lambda: HMC(target_accept=0.0), r"HMC got target_accept=0.0: give a number in \(0, 1\)"),
        (lambda: HMC(max_num_steps=0), "HMC got max_num_steps=0: give a whole number of at least 1"),
        (lambda: MCLMC(thinning=0), "MCLMC got thinning=0: give a whole number of at least 1"),
        (lambda: MCLMC(desired_energy_var=-1.0), "MCLMC got desired_energy_var=-1.0: give a number above 0"),
        (lambda: MCLMC(chain_method="all"), "MCLMC got chain_method='all': give one of auto, parallel"),
    ],
)
def test_hyperparameters_out_of_range_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_mclmc_needs_two_parameters():
    with pytest.raises(ValueError, match="MCLMC got a model with one parameter and needs at least two: give NUTS"):
        fit(jax.random.key(0), linear_regression, X[:, :1], Y, MCLMC())


# --- blackjax as an extra

HIDDEN = """
import sys
sys.modules["blackjax"] = None
import hmcvi.inference
assert hmcvi.inference.HMC().name == "hmc"
try:
    hmcvi.inference.MCLMC()
except ValueError as error:
    print(error)
"""


def test_without_blackjax_all_but_mclmc_works():
    done = subprocess.run([sys.executable, "-c", HIDDEN], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "MCLMC needs blackjax, which is not installed: pip install 'hmcvi[samplers]'\n"


def test_the_command_says_what_to_install(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "blackjax", None)
    monkeypatch.chdir(tmp_path)
    assert cli.main(["compare", "--methods", "mclmc", "--data", "wine"]) == 2
    said = capsys.readouterr().err
    assert said == "hmcvi: error: MCLMC needs blackjax, which is not installed: pip install 'hmcvi[samplers]'\n"
    assert list(tmp_path.iterdir()) == []


def test_an_unadjusted_sampler_says_so_and_is_no_converged_one_where_its_tuning_failed():
    sound = fitted("mclmc")
    assert "unadjusted: biased by its step size" in convergence(sound, X, Y).reason
    stats = dict(sound.stats) | {"energy_variance": 100 * np.asarray(sound.stats["energy_variance"])}
    found = convergence(dataclasses.replace(sound, stats=stats), X, Y)
    assert not found.converged
    assert "energy variance" in found.reason
    assert "tune longer" in found.reason
