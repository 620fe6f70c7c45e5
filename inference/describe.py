"""Hyperparameters, models and functions as plain data: what tells one from another, the same in every process."""

from __future__ import annotations

import dataclasses
import functools
import json
import re
import types
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.distributions import Distribution

from .base import Fit, Method
from .durable import sha256_of
from .provenance import PACKAGES

__all__ = ["describe", "describe_method"]


def describe_method(method: Method) -> str:
    """Return the method's class and hyperparameters as JSON."""
    return json.dumps(describe(method))


def describe(value: Any) -> Any:
    """Return plain data that tell one hyperparameter from another: functions by name and what they hold on to."""
    if isinstance(value, str | int | float | bool | None):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray | jax.Array):
        return _array(value)
    if isinstance(value, Fit):
        means = {name: _array(loc) for name, loc in (value.location or {}).items()}
        return {"fit": describe(value.method), "key": _array(value.key), "means": means}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: describe(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {"class": type(value).__name__, **fields}
    if isinstance(value, functools.partial):
        held = [describe(part) for part in value.args] + [{k: describe(v)} for k, v in sorted(value.keywords.items())]
        return [describe(value.func), *held]
    if isinstance(value, list | tuple):
        return [describe(part) for part in value]
    if isinstance(value, dict):
        return {str(name): describe(part) for name, part in value.items()}
    if isinstance(value, types.FunctionType):
        held = [_held(cell) for cell in value.__closure__ or ()]
        name = value.__qualname__
        # made inside another function there is one name for all that are, and one's own may change under its name
        if "<" in name or not _is_versioned(value.__module__):
            held += [describe(default) for default in value.__defaults__ or ()]
            held += [{key: describe(default)} for key, default in sorted((value.__kwdefaults__ or {}).items())]
            name += " " + _hash(_instructions(value.__code__))
        return [name, *held] if held else name
    if isinstance(value, type):
        own = [] if _is_versioned(value.__module__) else [v for v in vars(value).values() if callable(v)]
        code = [_instructions(one.__code__) for one in own if isinstance(one, types.FunctionType)]
        return f"{value.__qualname__} {_hash(code)}" if code else value.__qualname__
    if hasattr(value, "__qualname__"):
        return value.__qualname__
    # by what it holds, where its own words are an address, which is another one in every process
    if isinstance(value, Distribution) or type(value).__repr__ is object.__repr__:
        return [describe(type(value)), describe(dict(getattr(value, "__dict__", {})))]
    return _without_addresses(repr(value))


def _is_versioned(module: str | None) -> bool:
    """Return whether a module is of a package whose version tells its code."""
    return (module or "").partition(".")[0] in PACKAGES


def _without_addresses(text: str) -> str:
    return re.sub(r" at 0x[0-9a-f]+", "", text)


def _array(value: Any) -> str:
    if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        value = jax.random.key_data(value)
    array = np.ascontiguousarray(value)
    return f"{array.dtype} {array.shape} {sha256_of(array.data.cast('B') if array.size else b'')[:16]}"


def _hash(value: Any) -> str:
    return sha256_of(repr(value).encode())[:8]


def _instructions(code: types.CodeType) -> tuple[Any, ...]:
    """Return what a function does, the same in every process."""

    def lasting(const: Any) -> Any:
        if isinstance(const, types.CodeType):  # a function inside it, whose own representation is an address
            return _instructions(const)
        return sorted(map(repr, const)) if isinstance(const, frozenset) else const

    return code.co_code, [lasting(const) for const in code.co_consts], code.co_names


def _held(cell: types.CellType) -> Any:
    """Return what a function holds on to; a schedule may turn a count it holds into a float when it is first asked."""
    try:
        held = cell.cell_contents
    except ValueError:  # a name that was never given a value
        return None
    return float(held) if isinstance(held, int) and not isinstance(held, bool) else describe(held)
