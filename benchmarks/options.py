"""Hyperparameters from the command line: `key=value` strings, typed as a model's or a method's defaults are."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import optax
from numpyro.infer import autoguide

from hmcvi.inference import MAP, FanIn
from hmcvi.inference.request import MOST
from hmcvi.models.priors import PRIORS, Normal

__all__ = ["OPTIMIZERS", "STARTS", "UsageError", "check_name", "option_help", "parse_options"]

LONGEST = 80
"""Characters of a value that a sentence repeats."""

LEAST_FLOAT, MOST_FLOAT = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)
"""What a number of a model or method may be in size: it is held as float32."""

GUIDES = (
    autoguide.AutoNormal,
    autoguide.AutoDiagonalNormal,
    autoguide.AutoLowRankMultivariateNormal,
    autoguide.AutoMultivariateNormal,
    autoguide.AutoDelta,
)
"""Guides that need no setting up; from Python, `SVI(guide=...)` takes any."""

OPTIMIZERS = ("adam", "adamw", "nadam", "adabelief", "lion", "lamb", "rmsprop", "sgd")
"""Optimisers of optax by name; from Python, `optimizer=` takes any."""

STARTS = ("prior", "fan_in", "map")
"""Where means start, by name; from Python, `start=` takes another fit too."""

SET_ELSEWHERE = frozenset({"x", "y", "x_new", "num_rows", "num_classes", "likelihood", "max_bytes", "estimator"})
"""Arguments that no option sets: the data decide them, or (the estimator) the method's name does."""


class UsageError(ValueError):
    """A request that cannot be served; the sentence says what came, what was wanted and what to do."""


def check_name(what: str, name: str, known: Mapping[str, Any]) -> None:
    """Raise UsageError, listing the known names, where `name` is not one of them."""
    if not isinstance(name, str) or name not in known:
        near = difflib.get_close_matches(name, known, n=1) if isinstance(name, str) else []
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise UsageError(f"unknown {what} {_cut(repr(name))}{hint}: give one of {', '.join(known)}")


def parse_options(make: Callable[..., Any], given: Sequence[str], flag: str) -> dict[str, Any]:
    """Return hyperparameters from `key=value` strings, typed as the callable's defaults are.

    Raises:
        UsageError: a string is not key=value, the key is unknown, or the value has the wrong type.
    """
    fields = options_of(make)
    parsed = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"{flag} got {_cut(repr(text))}: wanted key=value, with a key of {', '.join(fields)}")
        if key == "estimator":
            raise UsageError(f"{flag} got {text}: the method's name says it, as in --methods bbb bbb-local bbb-shared")
        check_name(f"option of {flag}", key, fields)
        try:
            parsed[key] = _cast(key, value, fields[key])
        except ValueError as error:
            raise UsageError(f"{flag} {key}={_cut(value)}: {error}") from error
    return parsed


def options_of(make: Callable[..., Any]) -> dict[str, Any]:
    """Return the settable keyword arguments of a model function or method, with their defaults."""
    parameters = inspect.signature(make).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty and p.name not in SET_ELSEWHERE}


def option_help(make: Callable[..., Any]) -> str:
    """Return the options of a model function or method as `key=default`, for the command's help."""
    return ", ".join(
        f"{key}={_show(key, Normal() if key == 'prior' else value)}" for key, value in options_of(make).items()
    )


def _cast(key: str, text: str, default: Any) -> Any:
    if default is None and text == _show(key, None):
        return None
    if key in _CASTS:
        return _CASTS[key](text)
    if isinstance(default, bool):
        if text.lower() not in ("true", "false"):
            raise ValueError("wanted true or false")
        return text.lower() == "true"
    if isinstance(default, tuple):
        return _sizes(text)
    if isinstance(default, int):
        return _count(text)
    if isinstance(default, float):
        return _float(text)
    return text


def _prior(text: str) -> Any:
    name, _, scale = text.partition(":")
    check_name("prior", name, PRIORS)
    if scale and "scale" not in inspect.signature(PRIORS[name]).parameters:
        raise ValueError(f"the {name} prior takes no scale: give prior={name}")
    return PRIORS[name](**({"scale": _float(scale)} if scale else {}))


def _guide(text: str) -> Any:
    guides = {guide.__name__: guide for guide in GUIDES}
    check_name("guide", text, guides)
    return guides[text]


def _optimizer(text: str) -> Any:
    """Return an optax optimiser by its name; "sgd:0.9" is SGD with that momentum."""
    name, _, momentum = _argument(text)
    check_name("optimizer", name, dict.fromkeys(OPTIMIZERS))
    if momentum and name != "sgd":
        raise ValueError(f"{name} takes no momentum: give optimizer={name}")
    if not momentum:
        return getattr(optax, name)
    if not 0 <= _float(momentum) < 1:
        raise ValueError("wanted a momentum from 0 to below 1, as in sgd:0.9")
    return functools.partial(optax.sgd, momentum=_float(momentum))


def _start(text: str) -> Any:
    """Return where means start: prior, fan_in, fan_in:GAIN, map or map:STEPS."""
    name, _, argument = _argument(text)
    check_name("start", name, dict.fromkeys(STARTS))
    if name == "prior":
        if argument:
            raise ValueError("prior takes no argument: give start=prior")
        return None
    if name == "fan_in":
        return FanIn(_float(argument)) if argument else FanIn()
    return MAP(num_steps=_count(argument)) if argument else MAP()


def _argument(text: str) -> tuple[str, str, str]:
    name, colon, argument = text.partition(":")
    if colon and not argument:
        raise ValueError(f"nothing follows the colon: give {name}, or an argument too")
    return name, colon, argument


def _count(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        raise ValueError("wanted a whole number") from None
    if number < 1:
        raise ValueError("wanted a whole number of at least 1")
    if number > MOST:
        raise ValueError(f"wanted a whole number of at most {MOST:,}")
    return number


def _float(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise ValueError("wanted a number") from None
    # infinity and NaN are refused by what they are given to, which says what it wants
    if np.isfinite(number) and number and not LEAST_FLOAT <= abs(number) <= MOST_FLOAT:
        raise ValueError(f"wanted a number of size {LEAST_FLOAT:.0e} to {MOST_FLOAT:.0e}, as float32 holds")
    return number


def _sizes(text: str) -> tuple[int, ...]:
    parts = text.removesuffix(",").split(",") if text else []
    try:
        sizes = tuple(int(part) for part in parts)
    except ValueError:
        sizes = (0,)
    if any(not 1 <= size <= MOST for size in sizes):
        raise ValueError("wanted whole numbers of at least 1 with commas between, such as 32,32")
    return sizes


def _pool(text: str) -> int | tuple[int, ...]:
    return _sizes(text) if "," in text else _count(text)


_CASTS: dict[str, Callable[[str], Any]] = {
    "prior": _prior,
    "guide": _guide,
    "optimizer": _optimizer,
    "start": _start,
    "batch_size": _count,
    "clip_norm": _float,
    "max_passes": _float,
    "max_seconds": _float,
    "pool": _pool,
}
"""Options whose default does not tell their type."""

_NONE = {"clip_norm": "none", "max_passes": "none", "max_seconds": "none", "start": "prior"}
"""What no value means, where it is not a choice made for the data."""


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}... ({len(text):,} characters)"


def _show(key: str, value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    if value is None:
        return _NONE.get(key, "auto")
    if isinstance(value, Normal):
        return f"normal:{value.scale:g}"
    return getattr(value, "__name__", str(value))
