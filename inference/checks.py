"""What data and targets must be before anything is computed: each fault in one sentence that says what to mend."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro import handlers
from numpyro.distributions import constraints
from numpyro.distributions.distribution import ExpandedDistribution, Independent, MaskedDistribution

from .base import Model, as_floats

__all__ = ["as_numbers", "check_data", "check_rows", "check_targets", "checked_cast"]


def check_data(x: Any, y: Any) -> tuple[jax.Array, jax.Array]:
    """Return (x, y) as JAX arrays, or raise; see `check_rows`."""
    x, y = check_rows(x, y)
    return jnp.asarray(x), jnp.asarray(y)


def check_rows(x: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return (x, y) as NumPy's arrays of JAX's types, or raise ValueError with one sentence that says what to mend.

    Integer x becomes floating point, but images of uint8 (three axes or more: a table of uint8 is none) stay as they
    are until `as_floats`; x and y may be anything that NumPy reads as arrays of numbers. Numbers that JAX's own types
    cannot hold (a float64 beyond float32, a label beyond int32) are refused: they would become infinite, or others.
    """
    x, y = as_numbers("x", x), as_numbers("y", y)
    if x.ndim < 2:
        raise ValueError(f"x has shape {x.shape}: wanted (row, feature...); for one feature pass x[:, None]")
    if y.ndim == 2 and y.shape[1] == 1:
        raise ValueError(f"y has shape {y.shape}: wanted (row,); pass y[:, 0]")
    if y.ndim != 1:
        raise ValueError(f"y has shape {y.shape}: wanted (row,), one label or target for each row of x")
    if len(x) != len(y):
        raise ValueError(f"x has {len(x)} rows and y has {len(y)}: wanted one label or target for each row")
    if len(x) == 0:
        raise ValueError("x and y have no rows: the split is empty")
    if x.size == 0:
        raise ValueError(f"x has shape {x.shape}: wanted at least one feature in each row")
    if y.dtype.kind == "b":
        y = y.astype(np.int32)
    kept = x.dtype.kind == "f" or (x.dtype == np.uint8 and x.ndim >= 3)
    x_type = _held_as(x.dtype) if kept else jnp.result_type(float)
    y_type = jnp.result_type(float) if x_type == jnp.uint8 else x_type
    if y.dtype.kind != "f":
        y_type = _held_as(y.dtype)
        for value in (y.min(), y.max()):
            if not jnp.iinfo(y_type).min <= int(value) <= jnp.iinfo(y_type).max:
                row = int(np.argmax(y == value))
                raise ValueError(f"y holds {value} in row {row}, more than {y_type} holds: relabel, or make y floats")
    return checked_cast("x", x, x_type), checked_cast("y", y, y_type)


def as_numbers(name: str, given: Any) -> np.ndarray:
    """Return anything that NumPy reads as an array of finite numbers, or raise ValueError in a sentence."""
    try:
        array = np.asarray(given)
    except ValueError:  # lists of unequal lengths
        raise ValueError(f"{name} holds rows of unequal lengths: wanted an array of numbers") from None
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{name} holds {array.dtype}: wanted an array of numbers")
    if np.ma.is_masked(given):
        masked = int(np.ma.count_masked(given))
        raise ValueError(f"{name} has {masked} masked values: remove those rows, or fill the values in")
    if array.dtype.kind == "f":
        bad = np.argwhere(~np.isfinite(array))
        if len(bad):
            row = int(bad[0][0]) if array.ndim else 0
            value = array[tuple(bad[0])]
            raise ValueError(f"{name} holds {value} in row {row} ({len(bad)} such values): remove or impute them")
    return array


def _held_as(dtype: np.dtype) -> Any:
    """Return the type that JAX makes of one: without 64 bits, unless they were switched on."""
    widest = jnp.result_type(float if dtype.kind == "f" else int)
    return dtype if dtype.itemsize <= widest.itemsize else np.dtype(f"{dtype.kind}{widest.itemsize}")


def checked_cast(name: str, array: np.ndarray, dtype: Any) -> np.ndarray:
    """Return finite numbers in another type, or raise ValueError where it is too small to hold one of them."""
    with np.errstate(over="ignore"):
        cast = array.astype(dtype, copy=False)
    if cast.dtype.kind == "f" and cast.dtype.itemsize < array.dtype.itemsize and not np.isfinite(cast).all():
        row, *rest = map(int, np.argwhere(~np.isfinite(cast))[0])
        value = array[(row, *rest)]
        raise ValueError(f"{name} holds {value:g} in row {row}, more than {cast.dtype} holds: scale {name} down")
    return cast


def check_targets(model: Model, x: jax.Array, y: jax.Array) -> None:
    """Raise ValueError where the targets are none that the model's site `y` can take; nothing is computed.

    A label may lie beyond its classes: JAX would clip it to the last one and say nothing. Or the site's shape, as
    (row, 1), makes every target meet every row's prediction: NumPyro would broadcast, and the fit be of another model.
    """
    found: list[tuple[str, Any]] = []

    def run(key: jax.Array, x: jax.Array) -> None:
        site = handlers.trace(handlers.seed(model, key)).get_trace(as_floats(x), y).get("y")
        if site is None or site["type"] != "sample":
            return
        distribution = site["fn"]
        shape, observed = distribution.shape(), jnp.shape(site["value"])
        if shape not in ((), (1,), observed):
            raise ValueError(
                f"the model's y has shape {shape} where the targets have {observed}: give its distribution parameters "
                "of shape (row,), such as mean[:, 0] where the mean is (row, 1)"
            )
        while isinstance(distribution, Independent | ExpandedDistribution | MaskedDistribution):
            distribution = distribution.base_dist
        found.append((type(distribution).__name__, distribution.support))

    jax.eval_shape(run, jax.random.key(0), x)
    for name, support in found:
        if name.startswith("Categorical") and jnp.issubdtype(y.dtype, jnp.floating):
            raise ValueError(f"y holds {y.dtype} where class labels (integers) were wanted: pass y.astype(int)")
        is_boolean = support is constraints.boolean
        ends = {"from": "lower_bound", "to": "upper_bound"}
        bounds = {word: getattr(support, end) for word, end in ends.items() if hasattr(support, end)}
        bounds = {"from": 0, "to": 1} if is_boolean else bounds
        if not bounds or any(isinstance(bound, jax.core.Tracer) for bound in bounds.values()):
            continue  # any number, or bounds that depend on the model's parameters
        outside = ~np.asarray(support(y))
        if outside.any():
            row = int(np.argmax(outside))
            kind = "whole numbers" if support.is_discrete else "numbers"
            taken = " ".join(f"{word} {bound}" for word, bound in bounds.items())
            raise ValueError(
                f"y holds {y[row]} in row {row} ({int(outside.sum())} such values), but the model's y ({name}) takes "
                f"{kind} {taken}: relabel or rescale y, or change the model"
            )
