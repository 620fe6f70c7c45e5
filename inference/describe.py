"""Hyperparameters, models and functions as plain data: what tells one from another, the same in every process."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import types
from typing import Any

import jax
import numpy as np

from .base import Fit, Method

__all__ = ["describe", "describe_method"]


def describe_method(method: Method) -> str:
    """Return the method's class and hyperparameters as JSON."""
    return json.dumps(describe(method))


def describe(value: Any) -> Any:
    """Return plain data that tell one hyperparameter from another: functions by name and what they hold on to."""
    if isinstance(value, str | int | float | bool | None):
        return value
    if isinstance(value, Fit):
        return {"fit": describe(value.method), "key": np.asarray(jax.random.key_data(value.key)).tolist()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: describe(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {"class": type(value).__name__, **fields}
    if isinstance(value, functools.partial):
        held = [describe(part) for part in value.args] + [{k: describe(v)} for k, v in sorted(value.keywords.items())]
        return [describe(value.func), *held]
    if isinstance(value, list | tuple):
        return [describe(part) for part in value]
    if isinstance(value, types.FunctionType):
        held = [_held(cell) for cell in value.__closure__ or ()]
        name = value.__qualname__
        if "<" in name:  # made inside another function: one name for all that are
            held += [describe(default) for default in value.__defaults__ or ()]
            held += [{key: describe(default)} for key, default in sorted((value.__kwdefaults__ or {}).items())]
            name += " " + hashlib.sha256(repr(_instructions(value.__code__)).encode()).hexdigest()[:8]
        return [name, *held] if held else name
    return getattr(value, "__qualname__", repr(value))


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
