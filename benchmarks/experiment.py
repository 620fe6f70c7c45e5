"""A typed description of a run: model × data × methods × seeds × budget, from names and `key=value` options."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from numpyro.infer import autoguide

from hmcvi.inference import NUTS, SVI, BayesByBackprop, Method
from hmcvi.inference.base import check_data, latent_sites, minibatches
from hmcvi.models import cnn, gp, mlp
from hmcvi.models.priors import PRIORS, Normal

from . import datasets, ood
from .datasets import Dataset
from .ood import OODSet

__all__ = ["METHODS", "MODELS", "Experiment", "UsageError", "option_help"]

MODELS: dict[str, Callable[..., Any]] = {"mlp": mlp, "cnn": cnn, "gp": gp}
"""Model functions by name; a new model is a new entry."""

METHODS: dict[str, tuple[str, Callable[..., Method]]] = {
    "nuts": ("nuts", NUTS),
    "svi": ("svi", SVI),
    "bbb": ("bbb", BayesByBackprop),
    "bbb-local": ("bbb", functools.partial(BayesByBackprop, estimator="local")),
    "bbb-shared": ("bbb", functools.partial(BayesByBackprop, estimator="shared")),
}
"""Methods by name: the group of options they read, and what makes them; a new method is a new entry."""

QUICK: dict[str, dict[str, Any]] = {
    "nuts": {"num_warmup": 100, "num_draws": 100, "num_chains": 2},
    "svi": {"num_steps": 1000, "num_draws": 200},
    "bbb": {"num_steps": 1000, "num_draws": 200},
}
"""Budgets of `--quick`: to see that all works, too small to conclude anything from."""

GP_CLASS_ROWS = 150
"""Training rows of a GP classification unless said otherwise: each gradient costs rows³."""

GUIDES = (
    autoguide.AutoNormal,
    autoguide.AutoDiagonalNormal,
    autoguide.AutoLowRankMultivariateNormal,
    autoguide.AutoMultivariateNormal,
    autoguide.AutoDelta,
)
"""Guides that need no setting up; from Python, `SVI(guide=...)` takes any."""

SET_ELSEWHERE = frozenset({"x", "y", "x_new", "num_rows", "num_classes", "likelihood", "max_bytes", "estimator"})
"""Arguments that no option sets: the data decide them, or (the estimator) the method's name does."""


class UsageError(ValueError):
    """A request that cannot be served; the sentence says what came, what was wanted and what to do."""


@dataclass(frozen=True)
class Experiment:
    """What `hmcvi compare` runs.

    Attributes:
        data: name of a data set, or a file's path.
        model: a name in `MODELS`.
        methods: names in `METHODS`, in the order of the scoreboard.
        seeds: each seed is a split of the data and a key of every fit.
        ood: names of OOD sets; None takes the data set's own, () none.
        rows: training rows to keep, balanced by class; None keeps all.
        target: target column of a table.
        quick: whether to take the small budgets.
        options: hyperparameters by group ("model", "nuts", "svi", "bbb"), as `key=value` strings.
    """

    data: str = "digits"
    model: str = "mlp"
    methods: tuple[str, ...] = ("nuts", "svi", "bbb")
    seeds: tuple[int, ...] = (0,)
    ood: tuple[str, ...] | None = None
    rows: int | None = None
    target: str | None = None
    quick: bool = False
    options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_name("model", self.model, MODELS)
        for name in self.methods:
            check_name("method", name, METHODS)
        for what, values in (("method", self.methods), ("seed", self.seeds)):
            repeated = [value for value in values if values.count(value) > 1]
            if repeated:
                raise UsageError(f"{what} {repeated[0]} was given twice: give each {what} once")
            if not values:
                raise UsageError(f"no {what} was given: give at least one")
        parse_options(MODELS[self.model], self.options.get("model", ()), "--model-options")
        for name in self.methods:
            self.method(name)

    def method(self, name: str) -> Method:
        """Return the method of this name with its budget and options."""
        group, make = METHODS[name]
        given = parse_options(make, self.options.get(group, ()), f"--{group}")
        try:
            return make(**{**(QUICK.get(group, {}) if self.quick else {}), **given})
        except ValueError as error:
            raise UsageError(str(error)) from error

    def load(self, seed: int) -> tuple[Dataset, list[OODSet]]:
        """Return the data set of a seed, and its OOD sets."""
        names = ood.defaults(self.data) if self.ood is None else self.ood
        rows = self.rows
        arguments: dict[str, Any] = {
            "seed": seed,
            "target": self.target,
            "held_out_classes": ood.held_out_classes(names),
            "image": self.model == "cnn",
        }
        data = datasets.load(self.data, rows=rows, **arguments)
        if rows is None and self.model == "gp" and data.task == "classification" and len(data.x_train) > GP_CLASS_ROWS:
            data = datasets.load(self.data, rows=GP_CLASS_ROWS, **arguments)
        if self.ood is None:
            names = tuple(name for name in ood.defaults(data) if name in names or not _is_known(self.data))
        return data, [ood.make(name, data, seed=seed) for name in names]

    def configure_model(self, data: Dataset) -> Callable[..., Any]:
        """Return the model function with its options, and what the data decide."""
        given = parse_options(MODELS[self.model], self.options.get("model", ()), "--model-options")
        if data.task == "classification":
            given |= {"likelihood": "categorical", "num_classes": data.num_classes}
        else:
            given |= {"likelihood": "normal"}
        return functools.partial(MODELS[self.model], **given)

    def check(self, data: Dataset) -> None:
        """Raise UsageError where the model or a method cannot serve this data; nothing is computed or written."""
        model = self.configure_model(data)
        x, y = check_data(data.x_train, data.y_train)
        try:
            latent_sites(model, x, y)
            for name in self.methods:
                minibatches(model, x, y, getattr(self.method(name), "batch_size", None))
        except (ValueError, TypeError, ZeroDivisionError) as error:
            raise UsageError(str(error)) from error

    def configuration(self) -> dict[str, Any]:
        """Return the experiment as plain data, for the run folder."""
        return {
            **dataclasses.asdict(self),
            "options": {group: sorted(options) for group, options in sorted(self.options.items()) if options},
        }


def check_name(what: str, name: str, known: Mapping[str, Any]) -> None:
    """Raise UsageError, listing the known names, where `name` is not one of them."""
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise UsageError(f"unknown {what} {name!r}{hint}: give one of {', '.join(known)}")


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
            raise UsageError(f"{flag} got {text!r}: wanted key=value, with a key of {', '.join(fields)}")
        check_name(f"option of {flag}", key, fields)
        try:
            parsed[key] = _cast(key, value, fields[key])
        except ValueError as error:
            raise UsageError(f"{flag} {key}={value}: {error}") from error
    return parsed


def options_of(make: Callable[..., Any]) -> dict[str, Any]:
    """Return the settable keyword arguments of a model function or method, with their defaults."""
    parameters = inspect.signature(make).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty and p.name not in SET_ELSEWHERE}


def option_help(make: Callable[..., Any]) -> str:
    """Return the options of a model function or method as `key=default`, for the command's help."""
    return ", ".join(f"{key}={_show(Normal() if key == 'prior' else value)}" for key, value in options_of(make).items())


def _cast(key: str, text: str, default: Any) -> Any:
    if key == "prior":
        name, _, scale = text.partition(":")
        check_name("prior", name, PRIORS)
        if scale and "scale" not in inspect.signature(PRIORS[name]).parameters:
            raise ValueError(f"the {name} prior takes no scale: give prior={name}")
        return PRIORS[name](**({"scale": float(scale)} if scale else {}))
    if key == "guide":
        guides = {guide.__name__: guide for guide in GUIDES}
        check_name("guide", text, guides)
        return guides[text]
    if isinstance(default, bool):
        if text.lower() not in ("true", "false"):
            raise ValueError("wanted true or false")
        return text.lower() == "true"
    if isinstance(default, tuple):
        try:
            sizes = tuple(int(part) for part in text.split(",") if part)
        except ValueError:
            sizes = (0,)
        if any(size < 1 for size in sizes):
            raise ValueError("wanted whole numbers of at least 1 with commas between, such as 32,32")
        return sizes
    if isinstance(default, int) or key == "batch_size":
        try:
            number = int(text)
        except ValueError:
            raise ValueError("wanted a whole number") from None
        if number < 1:
            raise ValueError("wanted a whole number of at least 1")
        return number
    if isinstance(default, float):
        try:
            return float(text)
        except ValueError:
            raise ValueError("wanted a number") from None
    return text


def _show(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    if value is None:
        return "auto"
    if isinstance(value, Normal):
        return f"normal:{value.scale:g}"
    return getattr(value, "__name__", str(value))


def _is_known(data: str) -> bool:
    return data in datasets.known()
