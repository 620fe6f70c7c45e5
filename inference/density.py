"""Log densities in the unconstrained space, Jacobians included: of a model over all its rows, of a Gaussian."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from numpyro import handlers
from numpyro.distributions import Normal, biject_to
from numpyro.infer.util import potential_energy

from .base import Model, as_floats, latent_sites, minibatches

__all__ = ["log_joint", "log_prior", "normal_log_density", "unconstrain"]

CHUNK_ROWS = 1024
"""Rows in memory at once, where a model's rows are independent given its sites."""

LogDensity = Callable[[Mapping[str, jax.Array], jax.Array, jax.Array], jax.Array]
"""(values by site in the unconstrained space, x, y) -> log density, in nats."""


def log_joint(model: Model, x: jax.Array, y: jax.Array) -> LogDensity:
    """Return log p(y, w) + log |dw/dz| as a function of z: minus NumPyro's `potential_energy`, over all rows.

    Where the model can be minibatched, rows are taken in chunks i of Bᵢ rows. Each chunk's log joint is
    log p(w) + N/Bᵢ Σ log p(y | x, w), so that their mean weighted by Bᵢ/N is exact.

    Arguments:
        model: the model function.
        x: inputs (row, feature...), of which the shape alone is read; the function takes them again.
        y: targets (row,), likewise.

    Example:
        >>> from hmcvi.models import mlp
        >>> x, y = jnp.ones((3000, 2)), jnp.zeros(3000, int)
        >>> model = lambda x, y=None, *, num_rows=None: mlp(x, y, widths=(), num_classes=2, num_rows=num_rows)
        >>> z = {"out.kernel": jnp.ones((2, 2)), "out.bias": jnp.zeros(2)}
        >>> whole = -potential_energy(model, (x, y), {}, z)
        >>> bool(jnp.isclose(log_joint(model, x, y)(z, x, y), whole))
        True
    """
    rows, whole = len(x), _one_log_joint(model)
    chunk_model, size = minibatches(model, x, y, None)
    if size == rows or rows <= CHUNK_ROWS:
        return whole
    number, rest = divmod(rows, CHUNK_ROWS)
    one = jax.checkpoint(_one_log_joint(chunk_model))  # a gradient too keeps one chunk at a time

    def in_chunks(values: Mapping[str, jax.Array], x: jax.Array, y: jax.Array) -> jax.Array:
        parts = [part[: number * CHUNK_ROWS].reshape(number, CHUNK_ROWS, *part.shape[1:]) for part in (x, y)]
        total = lax.map(lambda part: one(values, *part), parts).sum() * (CHUNK_ROWS / rows)
        return total + one(values, x[-rest:], y[-rest:]) * (rest / rows) if rest else total

    return in_chunks


def log_prior(model: Model, x: jax.Array, y: jax.Array) -> LogDensity:
    """Return log p(w) + log |dw/dz| likewise: all sites but the observed `y`."""
    chunk_model, size = minibatches(model, x, y, None)
    hidden = _one_log_joint(handlers.block(chunk_model, hide=["y"]))
    return lambda values, x, y: hidden(values, x[:size], y[:size])


def _one_log_joint(model: Model) -> LogDensity:
    def one(values: Mapping[str, jax.Array], x: jax.Array, y: jax.Array) -> jax.Array:
        return -potential_energy(handlers.seed(model, jax.random.key(0)), (as_floats(x), y), {}, values)

    return one


def unconstrain(model: Model, x: jax.Array, y: jax.Array, draws: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """Return draws (..., *site shape) by site in the unconstrained space."""
    sites, _ = latent_sites(model, x, y)
    return {name: biject_to(site.support).inv(draws[name]) for name, site in sites.items()}


def normal_log_density(
    values: Mapping[str, jax.Array], location: Mapping[str, Any], scale: Mapping[str, Any]
) -> jax.Array:
    """Return log Π Normal(value; location, scale²) of draws (draw, *site shape) by site, one number a draw (draw,)."""
    terms = [Normal(location[name], scale[name]).log_prob(value) for name, value in values.items()]
    return jnp.asarray(sum(term.reshape(len(term), -1).sum(1) for term in terms))
