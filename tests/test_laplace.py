"""Laplace and the guides that correlate, against the exact posterior; what they refuse, before anything is computed."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer.autoguide import (
    AutoDelta,
    AutoDiagonalNormal,
    AutoLowRankMultivariateNormal,
    AutoMultivariateNormal,
)
from scipy import stats

from hmcvi.inference import MAP, SVI, AutoFlow, Fit, FitError, Laplace, family_fit, fit
from hmcvi.inference.laplace import Hessians, curvature
from hmcvi.models import mlp

from .targets import conjugate_regression, linear_regression

TARGET = conjugate_regression()
X, Y = TARGET.x.astype(np.float32), TARGET.y.astype(np.float32)
KEY = jax.random.key(0)

EXACT = {
    "laplace": Laplace(num_steps=2000, learning_rate=0.03, num_draws=4000),
    # In minibatches: the curvature is of all rows all the same.
    "laplace in minibatches": Laplace(num_steps=3000, batch_size=8, num_draws=4000),
    "svi-full": SVI(guide=AutoMultivariateNormal, num_steps=5000, num_draws=4000),
    "svi-lowrank": SVI(guide=partial(AutoLowRankMultivariateNormal, rank=2), num_steps=5000, num_draws=4000),
    "svi-flow": SVI(guide=AutoFlow, num_steps=5000, num_draws=4000),
}


@pytest.mark.parametrize("name", EXACT)
def test_the_posterior_of_the_conjugate_regression_is_exact(name):
    method = EXACT[name]
    result = fit(KEY, linear_regression, X, Y, method)
    assert name.startswith(method.name)
    draws = np.asarray(result.draws["out.kernel"], float)[0, :, :, 0]
    sd = np.sqrt(np.diag(TARGET.covariance))
    # 5 standard errors of 4000 draws in 3 means and 6 covariances: 6e-6 false alarms; 15 % of an sd and of a variance
    # for what is left to optimise.
    left = 0.02 if name == "laplace" else 0.15
    assert (np.abs(draws.mean(0) - TARGET.mean) < (left + 5 / np.sqrt(4000)) * sd).all()
    error = np.abs(np.cov(draws.T) - TARGET.covariance) / np.outer(sd, sd)
    assert (error < left + 5 * np.sqrt(2 / 4000)).all()
    # The log density is that of the draws: log p(w | y) but for what is left, in all of four thousand.
    exact = stats.multivariate_normal.logpdf(draws, TARGET.mean, TARGET.covariance)
    assert np.mean(np.asarray(result.log_q[0]) - exact) == pytest.approx(0, abs=0.01 if name == "laplace" else 0.15)
    assert np.corrcoef(result.log_q[0], exact)[0, 1] > 0.97
    found = family_fit(result)
    assert found.fits, found.reason
    assert result.location is None
    assert result.scale is None


def logistic(x, y=None, *, num_rows=None):
    w = numpyro.sample("w", dist.Normal(jnp.zeros(3), 2.0).to_event(1))
    with numpyro.plate("data", num_rows or len(x), subsample_size=len(x)):
        return numpyro.sample("y", dist.Bernoulli(logits=x @ w), obs=y)


def test_the_curvature_is_of_all_rows_and_the_formula_of_a_logistic_regression():
    random = np.random.default_rng(0)
    x = random.normal(size=(1500, 3)).astype(np.float32)  # more than a chunk
    y = (random.uniform(size=1500) < 0.5).astype(int)
    w = jnp.array([0.5, -1.0, 0.2])
    joint, prior = Hessians(logistic, jnp.asarray(x), jnp.asarray(y), {"w": w}).at(w)
    p = 1 / (1 + np.exp(-x @ np.asarray(w)))
    np.testing.assert_allclose(prior, np.eye(3) / 4, atol=1e-6)
    np.testing.assert_allclose(joint, (x * (p * (1 - p))[:, None]).T @ x + np.eye(3) / 4, rtol=1e-3, atol=0.05)
    np.testing.assert_allclose(curvature(joint, prior), joint, rtol=1e-6, atol=1e-6)  # log-concave: nothing is cut


def test_negative_curvature_of_the_likelihood_is_cut_and_the_priors_kept():
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    likelihood = rotation @ np.diag([5.0, -2.0, 1.0]) @ rotation.T
    prior = np.diag([1.0, 2.0, 3.0])
    expected = prior + rotation @ np.diag([5.0, 0.0, 1.0]) @ rotation.T
    np.testing.assert_allclose(curvature(prior + likelihood, prior), expected, atol=1e-12)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_hessian_that_is_not_finite_is_refused(value):
    """Of the likelihood or of the prior: an eigendecomposition of NaN would raise in its own words, or not end."""
    whole, broken = np.eye(2), np.array([[1.0, value], [value, 1.0]])
    for joint, prior in ((broken, whole), (whole, broken)):
        with pytest.raises(FitError, match="the Hessian at the mode is not finite: take svi, or look at the prior"):
            curvature(joint, prior)


def test_a_network_has_a_laplace_approximation_and_a_positive_site_is_gaussian_in_its_logarithm():
    result = fit(KEY, partial(mlp, widths=(4,), likelihood="normal"), X, Y, Laplace(num_steps=1000, num_draws=2000))
    noise = np.asarray(result.draws["noise_scale"])[0]
    assert (noise > 0).all()
    assert stats.kstest(stats.zscore(np.log(noise)), "norm").pvalue > 1e-4  # false alarms: 1 in 10,000 keys


def saddle(x, y=None):
    """log p(z) = z²/2 and a constant: curved upwards at 0, where the gradient is 0."""
    z = numpyro.sample("z", dist.Normal(0.0, 1.0))
    numpyro.factor("two modes", z**2)
    with numpyro.plate("data", len(x)):
        return numpyro.sample("y", dist.Normal(jnp.zeros(len(x)), 1.0), obs=y)


def test_a_point_that_is_no_mode_is_refused():
    location = {"z": jnp.asarray(0.0)}
    start = Fit(saddle, MAP(), X, Y, KEY, {"z": jnp.zeros((1, 1))}, 0, len(X), 0.0, location=location)
    with pytest.raises(FitError, match="the Hessian at the mode is not positive definite, as happens under a hier"):
        fit(KEY, saddle, X, Y, Laplace(num_steps=1, start=start))


WIDE = partial(mlp, widths=(400,), num_classes=10)


@pytest.mark.parametrize(
    "method",
    [SVI(guide=AutoMultivariateNormal), SVI(guide=AutoFlow), Laplace()],
    ids=["svi-full", "svi-flow", "laplace"],
)
def test_a_posterior_too_large_for_memory_is_refused_in_a_sentence(method):
    runs = []

    def model(x, y=None, *, num_rows=None):
        runs.append(isinstance(x, jax.core.Tracer))
        return WIDE(x, y, num_rows=num_rows)

    x, y = np.zeros((20, 784), np.float32), np.zeros(20, int)
    with pytest.raises(
        ValueError, match=rf"{method.name} over 318,010 weights would take some [\d,.]+ GiB .*: take svi"
    ):
        fit(KEY, model, x, y, method)
    assert all(runs)  # traced, and never computed
    SVI().check_model(model, jnp.asarray(x), jnp.asarray(y))


def test_the_names_of_guides():
    guides = (AutoMultivariateNormal, AutoLowRankMultivariateNormal, AutoFlow, AutoDelta, AutoDiagonalNormal)
    names = [SVI(guide=guide).name for guide in guides]
    assert names == ["svi-full", "svi-lowrank", "svi-flow", "svi-delta", "svi-diagonalnormal"]
    assert SVI(guide=partial(AutoFlow, num_flows=3)).name == "svi-flow"


@pytest.mark.parametrize("guide", [AutoMultivariateNormal, AutoLowRankMultivariateNormal, AutoFlow])
def test_the_guides_start_where_the_mean_field_starts(guide):
    still = {"num_steps": 1, "learning_rate": 1e-30, "num_draws": 3000, "init_scale": 0.01}
    plain, other = (
        np.asarray(fit(KEY, linear_regression, X, Y, SVI(guide=g, **still)).draws["out.kernel"])[0]
        for g in (SVI().guide, guide)
    )
    # A flow's network is near the identity at the start, and not it: within three of the small scales.
    np.testing.assert_allclose(other.mean(0), plain.mean(0), atol=0.03)
    np.testing.assert_allclose(other.std(0), plain.std(0), rtol=1.0 if guide is AutoFlow else 0.1)


def test_a_guide_without_a_density_has_none():
    result = fit(KEY, linear_regression, X, Y, SVI(guide=AutoDelta, num_steps=20, num_draws=2))
    assert result.log_q is None
