"""What a model costs, in floating-point operations, before anything is run.

Counted by XLA on the program it would compile, so that the number is the same on every machine: a rule that
depended on a stopwatch would choose other methods on a busy day.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from numpyro.infer.util import log_density

from hmcvi.inference import Fit
from hmcvi.inference.base import accepts, as_floats, latent_sites

__all__ = ["gradient_operations", "prediction_operations"]


def gradient_operations(model: Callable[..., Any], x: jax.Array, y: jax.Array) -> float:
    """Operations of one gradient of the log joint over all rows.

    Args:
        model: the model function.
        x: inputs (row, feature...).
        y: labels or targets (row,).

    Example:
        >>> from hmcvi.models import mlp
        >>> import jax.numpy as jnp
        >>> count = gradient_operations(mlp, jnp.zeros((100, 5)), jnp.zeros(100, int))
        >>> 0.5 < count / (6 * 100 * (5 * 16 + 16 * 10)) < 2  # two operations, forwards and twice backwards
        True
    """
    sites, _ = latent_sites(model, x, y)
    values = {name: jax.ShapeDtypeStruct(site.shape, site.dtype) for name, site in sites.items()}

    def log_joint(values: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        return log_density(model, (as_floats(x), y), {}, values)[0]

    return _count(jax.grad(log_joint), values, *(jax.ShapeDtypeStruct(a.shape, a.dtype) for a in (x, y)))


def prediction_operations(fit: Fit) -> float:
    """Operations of one draw's prediction of one row; 0 where a draw's cost is in its training rows, as a GP's is."""
    if accepts(fit.model, "x_new"):
        return 0.0
    values = {name: jax.ShapeDtypeStruct(draws.shape[2:], draws.dtype) for name, draws in fit.draws.items()}
    rows = 100  # what is paid once, such as a prior's density, does not count

    def log_joint(values: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        return log_density(fit.model, (as_floats(x), y), {}, values)[0]

    x = jax.ShapeDtypeStruct((rows, *fit.x.shape[1:]), fit.x.dtype)
    return _count(log_joint, values, x, jax.ShapeDtypeStruct((rows,), fit.y.dtype)) / rows


def _count(function: Callable[..., Any], *arguments: Any) -> float:
    analysis = jax.jit(function).lower(*arguments).cost_analysis()
    operations = (analysis or {}).get("flops", 0.0)
    return float(operations) if np.isfinite(operations) else 0.0
