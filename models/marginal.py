"""The density of a Gaussian process's targets, its functions integrated out, with the gradient in closed form.

Reverse mode through a Cholesky factor solves triangular systems for it twice over and multiplies the results; the
closed form needs the inverse alone, of which half the work is left where it is built from blocks.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.scipy.linalg import solve_triangular
from numpyro.distributions.util import validate_sample

__all__ = ["MarginalNormal"]

LEAST_BLOCK = 64
"""Rows of a triangular matrix that are inverted by solving: fewer are too few for matrix products to gain."""


class MarginalNormal(dist.MultivariateNormal):
    """A multivariate normal given by its covariance, of which the log density's gradient is cheap.

    ∂ log N(y | μ, C) / ∂C = ½ (α αᵀ − C⁻¹), α = C⁻¹ (y − μ). Source: Rasmussen & Williams (2006), eq. 5.9.

    Arguments:
        loc: means μ (row,).
        covariance_matrix: C (row, row).
        validate_args: whether NumPyro checks that C has a Cholesky factor; None as NumPyro is set.
    """

    def __init__(self, loc: Any, covariance_matrix: Any, *, validate_args: bool | None = None) -> None:
        super().__init__(loc, scale_tril=jnp.linalg.cholesky(covariance_matrix), validate_args=validate_args)
        # after its checks: NumPyro calls a matrix symmetric only to 1e-6, whatever the size of its entries
        self.covariance_matrix = covariance_matrix

    @validate_sample
    def log_prob(self, value: Any) -> jax.Array:
        """Return the log density, in nats, at (..., row); NaN where C has no Cholesky factor.

        Batches are served by NumPyro, as ever.
        """
        difference = value - self.loc
        if jnp.ndim(difference) > 1 or jnp.ndim(self.covariance_matrix) > 2:
            found: jax.Array = super().log_prob(value)
            return found
        return _log_density(self.covariance_matrix, difference)


@jax.custom_jvp
def _log_density(covariance: jax.Array, y: jax.Array) -> jax.Array:
    """Return log N(y | 0, covariance)."""
    factor = jnp.linalg.cholesky(covariance)
    return _from_factor(factor, solve_triangular(factor, y, lower=True))


@_log_density.defjvp
def _with_gradient(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    (covariance, y), (of_covariance, of_y) = primals, tangents
    factor = jnp.linalg.cholesky(covariance)
    inverse_factor = _inverse(factor)
    whitened = inverse_factor @ y
    weights = whitened @ inverse_factor
    slope = (jnp.outer(weights, weights) - inverse_factor.T @ inverse_factor) / 2
    return _from_factor(factor, whitened), (slope * of_covariance).sum() - weights @ of_y


def _from_factor(factor: jax.Array, whitened: jax.Array) -> jax.Array:
    """Return the log density from the Cholesky factor and its inverse's product with y."""
    normalizer = len(whitened) * math.log(2 * math.pi) / 2 + jnp.log(jnp.diagonal(factor)).sum()
    return -(whitened @ whitened) / 2 - normalizer


def _inverse(lower: jax.Array) -> jax.Array:
    """Return the inverse of a lower triangular matrix, by the inverses of its blocks on the diagonal."""
    rows = len(lower)
    if rows <= LEAST_BLOCK:
        return solve_triangular(lower, jnp.eye(rows, dtype=lower.dtype), lower=True)
    half = rows // 2
    above, below = _inverse(lower[:half, :half]), _inverse(lower[half:, half:])
    corner = -below @ (lower[half:, :half] @ above)
    return jnp.block([[above, jnp.zeros((half, rows - half), lower.dtype)], [corner, below]])
