"""What is asked of a request for a fit before anything is computed: its types, its counts, its targets, its memory."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .base import Model, latent_sites
from .checks import check_targets
from .memory import holding, require_room

__all__ = ["MOST", "check_counts", "check_request", "typed_key"]

MOST = 2**31 - 1
"""What a whole number of a method may be: compiled loops count in 32 bits."""


def check_request(key: Any, model: Model, x: jax.Array, y: jax.Array, method: Any) -> None:
    """Raise where a fit cannot be made, or could not be held in memory; nothing is computed.

    Arguments:
        key: random key.
        model: the model function.
        x: inputs (row, feature...), as `check_data` returns them.
        y: targets (row,), likewise.
        method: the method, with its hyperparameters.

    Raises:
        TypeError: key, model or method are of another kind.
        ValueError: a count is too large, the model has no site `y` or no latent site, a target is none that the model
            can have, or the memory that is left would not hold the fit.
    """
    _check_kinds(key, model, method)
    check_counts(method)
    sites, _ = latent_sites(model, x, y)
    check_targets(model, x, y)
    require_room(method.name, holding(method, sites))


def check_counts(method: Any) -> None:
    """Raise ValueError where a whole number of the method, or of the method that it starts from, is too large."""
    if not dataclasses.is_dataclass(method):
        return
    for field in dataclasses.fields(method):
        value = getattr(method, field.name)
        if isinstance(value, int | np.integer) and value > MOST:
            raise ValueError(f"{type(method).__name__} got {field.name}={value}: give at most {MOST:,}")
        if field.name == "start":
            check_counts(value)


def typed_key(key: Any) -> Any:
    """Return a key of `jax.random.PRNGKey` as one of `jax.random.key`, which compiled programs are made for.

    Anything else is returned as it is.
    """
    is_raw = getattr(key, "dtype", None) == np.uint32 and np.shape(key) == (2,)
    return jax.random.wrap_key_data(jnp.asarray(key)) if is_raw else key


def _check_kinds(key: Any, model: Any, method: Any) -> None:
    if not (isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and key.ndim == 0):
        shape = f" of shape {np.shape(key)}" if hasattr(key, "shape") else ""
        raise TypeError(f"key is {type(key).__name__}{shape}: give one random key, such as jax.random.key(0)")
    if not callable(model):
        raise TypeError(f"model is {type(model).__name__}: give a NumPyro model function, such as hmcvi.models.mlp")
    if isinstance(method, type):
        raise TypeError(f"method is the class {method.__name__}: give a method with its numbers, {method.__name__}()")
    if not callable(getattr(method, "fit", None)):
        kind = type(method).__name__
        raise TypeError(f"method is {kind}: give a method such as NUTS(), SVI() or BayesByBackprop()")
