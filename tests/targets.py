"""Targets whose posterior is known exactly: what every back end is judged by."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
from scipy import stats

from hmcvi.models import Normal, dense

__all__ = ["ConjugateRegression", "conjugate_regression", "linear_regression"]

NOISE_SCALE, PRIOR_SCALE = 0.5, 1.0


def linear_regression(x: jax.Array, y: jax.Array | None = None, *, num_rows: int | None = None) -> jax.Array:
    """y ~ Normal(x w, NOISE_SCALE²) with w = `out.kernel` (feature, 1) ~ Normal(0, PRIOR_SCALE²)."""
    prior = Normal(PRIOR_SCALE, fan_in_scaled=False)
    mean = dense("out", x, 1, prior=prior, use_bias=False)[:, 0]
    with numpyro.plate("data", num_rows or len(x), subsample_size=len(x)):
        return numpyro.sample("y", dist.Normal(mean, NOISE_SCALE), obs=y)


@dataclass(frozen=True, eq=False)
class ConjugateRegression:
    """Data of `linear_regression`, and the closed forms of its posterior (Bishop 2006, sections 3.3 and 10.1.2).

    Attributes:
        x: inputs (row, feature), their columns correlated, so that mean field is wrong by a known amount.
        y: targets (row,).
    """

    x: np.ndarray
    y: np.ndarray

    @property
    def precision(self) -> np.ndarray:
        """P = xᵀx / noise² + I / prior², the posterior precision (feature, feature)."""
        return self.x.T @ self.x / NOISE_SCALE**2 + np.eye(self.x.shape[1]) / PRIOR_SCALE**2

    @property
    def covariance(self) -> np.ndarray:
        """P⁻¹ (feature, feature)."""
        return np.linalg.inv(self.precision)

    @property
    def mean(self) -> np.ndarray:
        """P⁻¹ xᵀy / noise² (feature,)."""
        return self.covariance @ self.x.T @ self.y / NOISE_SCALE**2

    @property
    def log_evidence(self) -> float:
        """log Normal(y; 0, noise² I + prior² x xᵀ), in nats."""
        rows = len(self.x)
        marginal = NOISE_SCALE**2 * np.eye(rows) + PRIOR_SCALE**2 * self.x @ self.x.T
        return float(stats.multivariate_normal.logpdf(self.y, np.zeros(rows), marginal))

    @property
    def mean_field_variance(self) -> np.ndarray:
        """1 / P_ii (feature,), the variances of the factorised Normal nearest in KL(q ‖ p); its mean is exact."""
        return 1 / np.diag(self.precision)

    @property
    def gap(self) -> float:
        """Log evidence − ELBO* = KL(mean field ‖ posterior) = ½ (Σ log P_ii − log |P|), in nats."""
        return float((np.log(np.diag(self.precision)).sum() - np.linalg.slogdet(self.precision)[1]) / 2)


def conjugate_regression(rows: int = 40, features: int = 3, correlation: float = 0.7) -> ConjugateRegression:
    """Return data drawn from the model itself, at a fixed seed."""
    random = np.random.default_rng(0)
    covariance = correlation + (1 - correlation) * np.eye(features)
    x = random.multivariate_normal(np.zeros(features), covariance, size=rows)
    weights = random.normal(0, PRIOR_SCALE, size=features)
    return ConjugateRegression(x, x @ weights + random.normal(0, NOISE_SCALE, size=rows))
