"""A dozen posteriors whose moments are known, in closed form or by quadrature that shares no code with the models.

Each is a NumPyro model function that keeps the models' contract, with data at a fixed seed, and the exact mean and
standard deviation of every latent site. Together they have what makes posteriors hard: correlation, curvature, a
funnel, two modes, heavy tails, bounded supports.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from scipy import stats
from scipy.special import expit, logsumexp

from hmcvi.benchmarks import eight_schools
from hmcvi.models import Normal, dense, gp
from hmcvi.models.gp import jitter

__all__ = ["POSTERIORS", "Moments", "Posterior"]

Moments = Mapping[str, tuple[np.ndarray, np.ndarray]]
"""Mean and standard deviation by site, each of the site's shape."""


@dataclass(frozen=True, eq=False)
class Posterior:
    """A model, its data, and what is known of its posterior.

    Attributes:
        model: the model function.
        x: inputs (row, feature).
        y: targets (row,).
        exact: computes the moments of every site.
        sampler: hyperparameters of NUTS that this posterior asks for.
        judged: whether NUTS is to find the moments. It is known not to where a funnel is written in its centred form.
    """

    model: Callable[..., Any]
    x: np.ndarray
    y: np.ndarray
    exact: Callable[[np.ndarray, np.ndarray], Moments]
    sampler: Mapping[str, Any] = field(default_factory=dict)
    judged: bool = True


def _rows(x: Any, num_rows: int | None) -> Any:
    return numpyro.plate("data", num_rows or len(x), subsample_size=len(x))


def _on_grid(log_density: np.ndarray, *axes: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Mean and sd of functions of the point of a grid, by the trapezoid rule on even steps.

    For a density that is smooth and gone at the ends the rule's error falls faster than any power of the step.

    Arguments:
        log_density: at each point of the grid, any shape; Jacobians of the grid's variables included.
        axes: values at each point, which broadcast with it.
    """
    edges = [np.take(log_density, (0, -1), axis) for axis in range(log_density.ndim) if log_density.shape[axis] > 1]
    reach = max(edge.max() for edge in edges) - log_density.max()
    assert reach < np.log(1e-8), f"the grid ends where the density is still exp({reach:.1f}) of its greatest"
    weights = np.exp(log_density - logsumexp(log_density))
    found = []
    for values in axes:
        mean = (weights * values).sum()
        found.append((mean, np.sqrt((weights * (values - mean) ** 2).sum())))
    return found


def _mixed(weights: np.ndarray, means: np.ndarray, variances: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and sd of a mixture of components (component, entry), by the law of total variance."""
    mean = weights @ means
    return mean, np.sqrt(weights @ (variances + (means - mean) ** 2))


# --- correlation


CORRELATION = 0.95 ** np.abs(np.subtract.outer(np.arange(5), np.arange(5)))
NOISE = 2.0


def correlated_gaussian(x, y=None, *, num_rows=None):
    """w ~ Normal(0, Σ) with Σ_ij = 0.95^|i−j|, y_j ~ Normal(w_j, 2²): row j sees entry x_j of w."""
    w = numpyro.sample("w", dist.MultivariateNormal(jnp.zeros(5), jnp.asarray(CORRELATION)))
    with _rows(x, num_rows):
        return numpyro.sample("y", dist.Normal(w[x[:, 0].astype(int)], NOISE), obs=y)


def _correlated_gaussian(x: np.ndarray, y: np.ndarray) -> Moments:
    """Posterior covariance (Σ⁻¹ + I / 2²)⁻¹. Source: Bishop (2006), eq. 2.116–2.117."""
    covariance = np.linalg.inv(np.linalg.inv(CORRELATION) + np.eye(5) / NOISE**2)
    return {"w": (covariance @ y / NOISE**2, np.sqrt(np.diag(covariance)))}


# --- curvature


def funnel(x, y=None):
    """v ~ Normal(0, 3²), w_j ~ Normal(0, exp(v)), y_j ~ Normal(w_j, 1): Neal's funnel, seen through noise.

    In the centred form, whose neck the data leave open: they are all near 0. No one step size serves neck and mouth,
    so that NUTS leaves out a part of the neck and makes sd(v) too small: by 8 % at 10,000 draws, which is 4 Monte Carlo
    standard errors, and by 6 % at 80,000, which is 7 (chains of another key found the whole neck). Source: Neal (2003),
    Slice Sampling, section 8; Betancourt & Girolami (2015), Hamiltonian Monte Carlo for Hierarchical Models.
    """
    v = numpyro.sample("v", dist.Normal(0, 3))
    w = numpyro.sample("w", dist.Normal(0, jnp.exp(v / 2)).expand([FUNNEL_ROWS]).to_event(1))
    with numpyro.plate("data", len(x)):
        return numpyro.sample("y", dist.Normal(w[x[:, 0].astype(int)], 1), obs=y)


FUNNEL_ROWS = 6


def _funnel(x: np.ndarray, y: np.ndarray) -> Moments:
    """Given v, y_j ~ Normal(0, e^v + 1) and w_j is Normal with variance s = e^v / (e^v + 1) and mean s y_j."""
    v = np.linspace(-25, 20, 20_001)
    log_density = stats.norm.logpdf(v, 0, 3) + stats.norm.logpdf(y[:, None], 0, np.sqrt(np.exp(v) + 1)).sum(0)
    shrinkage = expit(v)[:, None]
    weights = np.exp(log_density - logsumexp(log_density))
    return {
        "v": _on_grid(log_density, v)[0],
        "w": _mixed(weights, shrinkage * y, shrinkage * np.ones_like(y)),
    }


def funnel_non_centred(x, y=None):
    """The same with w_j = exp(v / 2) u_j and u_j ~ Normal(0, 1): the same posterior of v, without the funnel."""
    v = numpyro.sample("v", dist.Normal(0, 3))
    u = numpyro.sample("u", dist.Normal(0, 1).expand([FUNNEL_ROWS]).to_event(1))
    with numpyro.plate("data", len(x)):
        return numpyro.sample("y", dist.Normal((jnp.exp(v / 2) * u)[x[:, 0].astype(int)], 1), obs=y)


def _funnel_non_centred(x: np.ndarray, y: np.ndarray) -> Moments:
    """Given v, u_j is Normal with variance 1 / (e^v + 1) and mean e^(v/2) y_j / (e^v + 1)."""
    v = np.linspace(-25, 20, 20_001)
    log_density = stats.norm.logpdf(v, 0, 3) + stats.norm.logpdf(y[:, None], 0, np.sqrt(np.exp(v) + 1)).sum(0)
    variance = expit(-v)[:, None]
    weights = np.exp(log_density - logsumexp(log_density))
    means = np.exp(v / 2)[:, None] * variance * y
    return {"v": _on_grid(log_density, v)[0], "u": _mixed(weights, means, variance * np.ones_like(y))}


def banana(x, y=None, *, num_rows=None):
    """a, b ~ Normal(0, 1), y_i ~ Normal(a + b², 1): the data know a + b² alone.

    Source: Bornn & Cornebise (2011), discussion of Girolami & Calderhead, Riemann Manifold HMC.
    """
    a, b = numpyro.sample("a", dist.Normal(0, 1)), numpyro.sample("b", dist.Normal(0, 1))
    with _rows(x, num_rows):
        return numpyro.sample("y", dist.Normal(a + b**2, 1), obs=y)


def _banana(x: np.ndarray, y: np.ndarray) -> Moments:
    a, b = np.linspace(-7, 7, 1401)[:, None], np.linspace(-7, 7, 1401)[None]
    log_density = stats.norm.logpdf(a) + stats.norm.logpdf(b)
    log_density = log_density + len(y) * stats.norm.logpdf(y.mean(), a + b**2, 1)  # the mean of y is sufficient
    return dict(zip("ab", _on_grid(log_density, a, b), strict=True))


def _eight_schools(x: np.ndarray, y: np.ndarray) -> Moments:
    """Given τ, y = μ 1 + τ z + noise is linear in (μ, z), whose posterior is Normal; τ by quadrature on log τ."""
    log_tau = np.linspace(np.log(1e-6), np.log(1e4), 4001)
    noise, means, variances, log_density = np.diag(x[:, 1] ** 2), [], [], []
    prior = np.diag([5.0**2, *np.ones(8)])
    for tau in np.exp(log_tau):
        design = np.column_stack([np.ones(8), tau * np.eye(8)])
        marginal = design @ prior @ design.T + noise
        gain = prior @ design.T @ np.linalg.inv(marginal)
        means.append(gain @ y)
        variances.append(np.diag(prior - gain @ design @ prior))
        log_density.append(
            stats.multivariate_normal.logpdf(y, np.zeros(8), marginal)
            + stats.halfcauchy.logpdf(tau, scale=5)
            + np.log(tau)
        )
    log_density = np.array(log_density)
    weights = np.exp(log_density - logsumexp(log_density))
    mean, sd = _mixed(weights, np.array(means), np.array(variances))
    # τ → 0 is no end of the support: the density of log τ falls as τ there, and is below 1e-6 of its greatest.
    tau_mean, tau_sd = _mixed(weights, np.exp(log_tau)[:, None], np.zeros((len(log_tau), 1)))
    return {"mu": (mean[0], sd[0]), "tau": (tau_mean[0], tau_sd[0]), "z": (mean[1:], sd[1:])}


# --- regressions


def conjugate_regression(x, y=None, *, num_rows=None):
    """precision ~ Gamma(2, 1), w ~ Normal(0, 1 / precision), y ~ Normal(x w, 1 / precision)."""
    precision = numpyro.sample("precision", dist.Gamma(2.0, 1.0))
    w = numpyro.sample("w", dist.Normal(0, precision**-0.5).expand([x.shape[1]]).to_event(1))
    with _rows(x, num_rows):
        return numpyro.sample("y", dist.Normal(x @ w, precision**-0.5), obs=y)


def _conjugate_regression(x: np.ndarray, y: np.ndarray) -> Moments:
    """Normal-Gamma: w is Student-t. Source: Bishop (2006), exercise 3.12; Gelman et al. (2013), section 14.2."""
    lam = x.T @ x + np.eye(x.shape[1])
    mean = np.linalg.solve(lam, x.T @ y)
    shape, rate = 2 + len(y) / 2, 1 + (y @ y - mean @ lam @ mean) / 2
    return {
        "precision": (shape / rate, np.sqrt(shape) / rate),
        "w": (mean, np.sqrt(rate / (shape - 1) * np.diag(np.linalg.inv(lam)))),
    }


def logistic_regression(x, y=None, *, num_rows=None):
    """y ~ Bernoulli(sigmoid(x w + b)) with w, b ~ Normal(0, 2²), drawn by the layer effect."""
    logits = dense("out", x, 1, prior=Normal(2.0, fan_in_scaled=False))[:, 0]
    with _rows(x, num_rows):
        return numpyro.sample("y", dist.Bernoulli(logits=logits), obs=y)


def _logistic_regression(x: np.ndarray, y: np.ndarray) -> Moments:
    w, v, b = np.meshgrid(np.linspace(-5, 10, 101), np.linspace(-11, 6, 101), np.linspace(-7, 8, 101), indexing="ij")
    log_density = stats.norm.logpdf([w, v, b], 0, 2).sum(0)
    for (x_1, x_2), label in zip(x, y, strict=True):
        log_density -= np.logaddexp(0, (1 - 2 * label) * (w * x_1 + v * x_2 + b))
    moments = np.array(_on_grid(log_density, w, v, b))
    return {"out.kernel": (moments[:2, :1], moments[:2, 1:]), "out.bias": (moments[2:, 0], moments[2:, 1])}


def student_regression(x, y=None, *, num_rows=None):
    """y ~ StudentT(3, a + b x, scale) with a, b ~ Normal(0, 2²), scale ~ HalfNormal(1).

    Source: Gelman et al. (2013), Bayesian Data Analysis, section 17.2.
    """
    a, b = numpyro.sample("a", dist.Normal(0, 2)), numpyro.sample("b", dist.Normal(0, 2))
    scale = numpyro.sample("scale", dist.HalfNormal(1))
    with _rows(x, num_rows):
        return numpyro.sample("y", dist.StudentT(3.0, a + b * x[:, 0], scale), obs=y)


def _student_regression(x: np.ndarray, y: np.ndarray) -> Moments:
    a, b = np.linspace(-0.5, 2.5, 91)[:, None, None], np.linspace(-2.5, 0.7, 91)[None, :, None]
    scale = np.exp(np.linspace(-4, 1.5, 91))[None, None]
    log_density = stats.norm.logpdf(a, 0, 2) + stats.norm.logpdf(b, 0, 2)
    log_density = log_density + stats.halfnorm.logpdf(scale) + np.log(scale)
    for x_i, y_i in zip(x[:, 0], y, strict=True):
        log_density = log_density + stats.t.logpdf((y_i - a - b * x_i) / scale, 3) - np.log(scale)
    return dict(zip(("a", "b", "scale"), _on_grid(log_density, a, b, scale), strict=True))


def autoregression(x, y=None, *, num_rows=None):
    """A stationary AR(1): y_t ~ Normal(φ y_{t−1}, σ²), y_1 ~ Normal(0, σ² / (1 − φ²)), φ ~ Uniform(−1, 1).

    Arguments:
        x: the value before, and 1 where there is one, 0 for the first (row, 2).
        y: the series (row,).

    Source: Box & Jenkins (1976), Time Series Analysis, appendix A7.4; σ ~ HalfNormal(1).
    """
    phi = numpyro.sample("phi", dist.Uniform(-1, 1))
    sigma = numpyro.sample("sigma", dist.HalfNormal(1))
    scale = sigma * jnp.where(x[:, 1] > 0, 1, (1 - phi**2) ** -0.5)
    with _rows(x, num_rows):
        return numpyro.sample("y", dist.Normal(phi * x[:, 0], scale), obs=y)


def _autoregression(x: np.ndarray, y: np.ndarray) -> Moments:
    """By the joint Normal of the series, whose covariance is σ² φ^|i−j| / (1 − φ²)."""
    z = np.linspace(-8, 14, 801)  # φ = tanh(z / 2), so that the ends of its support are far away
    phi = np.tanh(z / 2)
    log_sigma = np.linspace(-4, 3, 501)
    lags = np.abs(np.subtract.outer(np.arange(len(y)), np.arange(len(y))))
    log_density = np.empty((len(phi), len(log_sigma)))
    for i, at in enumerate(phi):
        covariance = at**lags / (1 - at**2)
        quadratic, log_det = y @ np.linalg.solve(covariance, y), np.linalg.slogdet(covariance)[1]
        log_density[i] = -quadratic / 2 * np.exp(-2 * log_sigma) - len(y) * log_sigma - log_det / 2
    log_density += np.log1p(-(phi[:, None] ** 2)) + stats.halfnorm.logpdf(np.exp(log_sigma)) + log_sigma
    return dict(zip(("phi", "sigma"), _on_grid(log_density, phi[:, None], np.exp(log_sigma)), strict=True))


def _gp_regression(x: np.ndarray, y: np.ndarray) -> Moments:
    """The three hyperparameters of `gp` by quadrature on their logarithms.

    With K = V diag(λ) Vᵀ the covariance a² (K + jitter) + s² I has the eigenvalues a² (λ + jitter) + s². Matérn 5/2:
    Rasmussen & Williams (2006), eq. 4.17.
    """
    u = np.linspace(-7, 6, 105)
    log_a, log_s = np.linspace(-6, 7, 105)[:, None], np.linspace(-20, 2.5, 201)[None]
    squares = np.exp(2 * log_a), np.exp(2 * log_s)
    log_density = np.empty((len(u), log_a.size, log_s.size))
    distance = np.abs(x - x.T)
    for i, lengthscale in enumerate(np.exp(u)):
        r = np.sqrt(5) * distance / lengthscale
        values, vectors = np.linalg.eigh((1 + r + r**2 / 3) * np.exp(-r))
        log_density[i] = 0
        for value, projected in zip(np.maximum(values, 0), vectors.T @ y, strict=True):
            variance = squares[0] * (value + jitter(len(x), np.float32)) + squares[1]
            log_density[i] -= (np.log(variance) + projected**2 / variance) / 2
    log_density += stats.norm.logpdf(u)[:, None, None] + stats.norm.logpdf(log_a)
    log_density += stats.halfnorm.logpdf(np.exp(log_s)) + log_s
    found = _on_grid(log_density, np.exp(u)[:, None, None], np.exp(log_a), np.exp(log_s))
    (mean, sd), amplitude, noise_scale = found
    return {"lengthscale": (mean[None], sd[None]), "amplitude": amplitude, "noise_scale": noise_scale}


# --- other likelihoods


def beta_bernoulli(x, y=None, *, num_rows=None):
    """p ~ Beta(2, 3), y ~ Bernoulli(p): p | y ~ Beta(2 + Σ y, 3 + Σ (1 − y))."""
    p = numpyro.sample("p", dist.Beta(2.0, 3.0))
    with _rows(x, num_rows):
        return numpyro.sample("y", dist.Bernoulli(p), obs=y)


def _beta_bernoulli(x: np.ndarray, y: np.ndarray) -> Moments:
    """Source: Gelman et al. (2013), section 2.4."""
    exact = stats.beta(2 + y.sum(), 3 + (1 - y).sum())
    return {"p": (exact.mean(), exact.std())}


def gamma_poisson(x, y=None, *, num_rows=None):
    """rate ~ Gamma(2, 1), y ~ Poisson(rate): rate | y ~ Gamma(2 + Σ y, 1 + rows)."""
    rate = numpyro.sample("rate", dist.Gamma(2.0, 1.0))
    with _rows(x, num_rows):
        return numpyro.sample("y", dist.Poisson(rate), obs=y)


def _gamma_poisson(x: np.ndarray, y: np.ndarray) -> Moments:
    """Source: Gelman et al. (2013), section 2.6."""
    exact = stats.gamma(2 + y.sum(), scale=1 / (1 + len(y)))
    return {"rate": (exact.mean(), exact.std())}


def mixture(x, y=None, *, num_rows=None):
    """y ~ ½ Normal(a, 1) + ½ Normal(b, 1) with a ~ Normal(−1, 1), b ~ Normal(1, 1): the priors tell the labels apart.

    Not quite: means that have changed places are a second mode, which the sampler must visit. Source: Bishop (2006),
    section 9.2.
    """
    a, b = numpyro.sample("a", dist.Normal(-1, 1)), numpyro.sample("b", dist.Normal(1, 1))
    components = dist.Normal(jnp.stack([a, b]), 1)
    with _rows(x, num_rows):
        return numpyro.sample("y", dist.MixtureSameFamily(dist.Categorical(probs=jnp.ones(2) / 2), components), obs=y)


def _mixture(x: np.ndarray, y: np.ndarray) -> Moments:
    a, b = np.linspace(-8, 8, 801)[:, None], np.linspace(-8, 8, 801)[None]
    log_density = stats.norm.logpdf(a, -1) + stats.norm.logpdf(b, 1)
    for value in y:
        log_density = log_density + np.logaddexp(stats.norm.logpdf(value, a), stats.norm.logpdf(value, b)) - np.log(2)
    return dict(zip("ab", _on_grid(log_density, a, b), strict=True))


# --- their data


def _data() -> dict[str, Posterior]:
    random = np.random.default_rng(0)
    index, none = np.arange(20.0)[:, None], np.zeros((20, 1))
    inputs = random.normal(size=(20, 2))
    labels = (random.random(20) < expit(inputs @ [1.5, -1.0] + 0.5)).astype(int)
    series = [random.normal() / np.sqrt(1 - 0.7**2)]
    for _ in range(24):
        series.append(0.7 * series[-1] + random.normal())
    before = np.stack([[0.0, *series[:-1]], [0.0, *np.ones(24)]], axis=1)
    curve = np.linspace(-1.7, 1.7, 14)[:, None]
    sides = np.where(random.random(8) < 0.5, -1, 1)
    near_1, near_0 = random.normal(0, NOISE, 5) + 1, random.normal(size=FUNNEL_ROWS)
    return {
        "correlated Gaussian": Posterior(correlated_gaussian, index[:5], near_1, _correlated_gaussian),
        "funnel, centred": Posterior(
            funnel, index[:FUNNEL_ROWS], near_0, _funnel, {"target_accept": 0.99}, judged=False
        ),
        "funnel, non-centred": Posterior(funnel_non_centred, index[:FUNNEL_ROWS], near_0, _funnel_non_centred),
        "banana": Posterior(banana, none[:4], random.normal(1.5, 1, size=4), _banana),
        "eight schools, non-centred": Posterior(
            eight_schools.non_centred, eight_schools.SCHOOLS, eight_schools.EFFECTS, _eight_schools
        ),
        "conjugate regression": Posterior(
            conjugate_regression, inputs, inputs @ [1.0, -1.0] + random.normal(size=20), _conjugate_regression
        ),
        "logistic regression": Posterior(logistic_regression, inputs, labels, _logistic_regression),
        "Student-t regression": Posterior(
            student_regression,
            inputs[:, :1],
            1 - inputs[:, 0] + 0.5 * random.standard_t(3, size=20),
            _student_regression,
        ),
        "AR(1)": Posterior(autoregression, before, np.array(series), _autoregression),
        "GP regression": Posterior(gp, curve, np.sin(2 * curve[:, 0]) + random.normal(0, 0.3, 14), _gp_regression),
        "beta-Bernoulli": Posterior(beta_bernoulli, none, (random.random(20) < 0.3).astype(int), _beta_bernoulli),
        "gamma-Poisson": Posterior(gamma_poisson, none, random.poisson(3, size=20), _gamma_poisson),
        "Gaussian mixture": Posterior(mixture, none[:8], sides + random.normal(size=8), _mixture),
    }


POSTERIORS = _data()
"""The dozen, by name."""
