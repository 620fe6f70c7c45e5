"""Eight schools: a hierarchical model that is no network, in the two forms whose posteriors differ in shape."""

from __future__ import annotations

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist

__all__ = ["EFFECTS", "SCHOOLS", "centred", "non_centred"]

EFFECTS = np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
"""Estimated effect of coaching in each school (row,), in points. Rubin (1981), table 1."""

SCHOOLS = np.stack([np.arange(8.0), [15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0]], axis=1)
"""Number of each school, and the standard error of its estimate in points (row, 2). Rubin (1981), table 1."""


def centred(x: jax.Array, y: jax.Array | None = None) -> jax.Array:
    """θ_j ~ Normal(μ, τ²), y_j ~ Normal(θ_j, σ_j²), μ ~ Normal(0, 5²), τ ~ HalfCauchy(5): a funnel in (τ, θ).

    Arguments:
        x: number of the school j and standard error σ_j (row, 2), as in `SCHOOLS`.
        y: effects (row,), or None to draw them.

    Source: Rubin (1981), Estimation in Parallel Randomized Experiments; priors of Yao et al. (2018), section 4.2.
    """
    mu, tau = _population()
    theta = numpyro.sample("theta", dist.Normal(mu, tau).expand([len(SCHOOLS)]).to_event(1))
    return _observe(theta, x, y)


def non_centred(x: jax.Array, y: jax.Array | None = None) -> jax.Array:
    """As `centred`, with θ_j = μ + τ z_j and z_j ~ Normal(0, 1): the same model, without the funnel."""
    mu, tau = _population()
    z = numpyro.sample("z", dist.Normal(0, 1).expand([len(SCHOOLS)]).to_event(1))
    return _observe(mu + tau * z, x, y)


def _population() -> tuple[jax.Array, jax.Array]:
    return numpyro.sample("mu", dist.Normal(0, 5)), numpyro.sample("tau", dist.HalfCauchy(5))


def _observe(theta: jax.Array, x: jax.Array, y: jax.Array | None) -> jax.Array:
    with numpyro.plate("data", len(x)):
        return numpyro.sample("y", dist.Normal(theta[x[:, 0].astype(int)], x[:, 1]), obs=y)
