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
    MCLMC,
    NUTS,
    FitError,
    chains,
    convergence,
    fit,
    from_datatree,
    load_datatree,
    save_datatree,
    to_datatree,
)
from hmcvi.inference.chains import Chains, Sampler
from hmcvi.inference.diagnostics import bulk_ess

from .targets import conjugate_regression, linear_regression

TARGET = conjugate_regression()
X, Y = TARGET.x.astype(np.float32), TARGET.y.astype(np.float32)

# --- the right posterior

SAMPLERS = {
    "hmc": HMC(num_warmup=300, num_draws=1000),
    "hmc, dense": HMC(num_warmup=300, num_draws=1000, dense_mass=True, chain_method="vectorized"),
    "mclmc": MCLMC(num_warmup=2000, num_draws=1000, thinning=10),
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
        # Nine moments (three of each) of three fits, 4.5 standard errors: 1e-4 false alarms.
        np.testing.assert_array_less(np.abs(moment.mean((0, 1)) - exact), 4.5 * sd / np.sqrt(size) + bias)


@pytest.mark.parametrize("name", ["hmc", "mclmc"])
def test_the_verdict_holds_for_every_sampler(name):
    found = convergence(fitted(name), X, Y)
    assert found.converged, found.reason
    assert np.isnan(found.ebfmi) == (name == "mclmc")
    assert ("E-BFMI is not applicable" in found.reason) == (name == "mclmc")


def test_a_trajectory_takes_as_many_gradients_as_its_length_asks_for():
    result, method = fitted("hmc"), SAMPLERS["hmc"]
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
    # 100 passes are 50 steps of a chain: 25 of tuning, and draws of 2 steps for the rest. The seconds are no limit here:
    # they have the driver measure a draw's price ahead of the tuning, which must change nothing.
    method = MCLMC(num_warmup=1000, num_draws=100, num_chains=1, thinning=2, max_passes=100.0, max_seconds=1e6)
    result = fit(jax.random.key(0), linear_regression, X, Y, method)
    assert result.num_passes == 50 + 4 * result.num_draws
    assert 100 <= result.num_passes < 104
    # Where a draw of 2 steps takes a second, half of 50 seconds pays for 50 steps.
    timed = dataclasses.replace(method, max_passes=None, max_seconds=50.0)
    assert timed._tuning_steps(1.0) == 50


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
