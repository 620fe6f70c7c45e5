"""A typed description of a run: model × data × methods × seeds × budget, from names and `key=value` options."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import inspect
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np
from numpyro.infer.autoguide import AutoLowRankMultivariateNormal, AutoMultivariateNormal

from hmcvi.inference import (
    HMC,
    MAP,
    MCLMC,
    NUTS,
    SVI,
    AutoFlow,
    BayesByBackprop,
    Ensemble,
    Laplace,
    Method,
)
from hmcvi.inference.base import check_data, latent_sites, minibatches
from hmcvi.inference.export import describe_method
from hmcvi.inference.training import Training
from hmcvi.models import Normal, cnn, gp, mlp

from . import datasets, memory, ood
from .budget import Budget
from .cost import gradient_operations
from .datasets import Dataset
from .ood import OODSet
from .options import UsageError, check_name, parse_options
from .raw import Raw, Task

__all__ = ["METHODS", "MODELS", "Experiment", "temperature_of"]

MODELS: dict[str, Callable[..., Any]] = {"mlp": mlp, "cnn": cnn, "gp": gp}
"""Model functions by name; a new model is a new entry."""

METHODS: dict[str, tuple[str, Callable[..., Method]]] = {
    "nuts": ("nuts", NUTS),
    "hmc": ("hmc", HMC),
    "mclmc": ("mclmc", MCLMC),
    "svi": ("svi", SVI),
    "svi-full": ("svi", functools.partial(SVI, guide=AutoMultivariateNormal)),
    "svi-lowrank": ("svi", functools.partial(SVI, guide=AutoLowRankMultivariateNormal)),
    "svi-flow": ("svi", functools.partial(SVI, guide=AutoFlow)),
    "laplace": ("laplace", Laplace),
    "bbb": ("bbb", BayesByBackprop),
    "bbb-local": ("bbb", functools.partial(BayesByBackprop, estimator="local")),
    "bbb-shared": ("bbb", functools.partial(BayesByBackprop, estimator="shared")),
    "map": ("map", MAP),
    "ensemble": ("ensemble", Ensemble),
}
"""Methods by name: the group of options they read, and what makes them; a new method is a new entry."""

DATA_ARGUMENTS = frozenset({"x", "y", "x_new", "num_rows", "max_bytes"})
"""Arguments of a model function that say nothing of which model it is."""

DEFAULT_METHODS = ("nuts", "svi", "bbb")

QUICK: dict[str, dict[str, Any]] = {
    "nuts": {"num_warmup": 100, "num_draws": 100, "num_chains": 2},
    "hmc": {"num_warmup": 100, "num_draws": 100, "num_chains": 2},
    "mclmc": {"num_warmup": 500, "num_draws": 100, "num_chains": 2},
    "svi": {"num_steps": 1000, "num_draws": 200},
    "laplace": {"num_steps": 1000, "num_draws": 200},
    "bbb": {"num_steps": 1000, "num_draws": 200},
    "map": {"num_steps": 1000},
    "ensemble": {"num_steps": 1000, "size": 3},
}
"""Budgets of `--quick`: to see that all works, too small to conclude anything from."""

GP_CLASS_ROWS = 150
"""Training rows of a GP classification unless said otherwise: each gradient costs rows³."""

TOO_COSTLY = 5e8
"""Floating-point operations of one gradient over all rows beyond which NUTS is left out unless it is asked for.

NUTS took 564,447 gradients on digits; at this cost each, that is an hour on two cores of a laptop."""

ACCELERATION = 100
"""How much more an accelerator is trusted with."""

MOST_TEST_ROWS = 20_000
"""Test rows unless said otherwise: an accuracy is then known to 0.3 %, and predictions stay small."""

LEAST_DRAWS = 200
"""Draws that scores average over at least, however costly a prediction is."""


@dataclass(frozen=True)
class Experiment:
    """What `hmcvi compare` runs.

    Attributes:
        data: name of a data set, a file's path, or what `arrays(x, y)` returned.
        model: a name in `MODELS`.
        methods: names in `METHODS`, in the order of the scoreboard; None takes nuts, svi and bbb, or leaves nuts
            out where the data make it too costly (`settle` decides).
        seeds: each seed is a split of the data and a key of every fit.
        ood: names of OOD sets; None takes the data set's own, () none.
        shifts: names of graded changes, each scored at severities 1 to 5.
        rows: training rows to keep, balanced by class; None keeps all.
        test_rows: test rows to keep; None keeps all up to 20,000.
        target: target column of a table.
        task: "classification" or "regression"; None reads it off the data.
        splits: file of published row numbers, as `load` takes it.
        tune: whether to score on validation rows and leave the test rows unread.
        image_size: side in pixels to resize a TFDS set's images to.
        data_dir: the TFDS folder; None takes `$TFDS_DATA_DIR`.
        quick: whether to take the small budgets.
        budget: what each method may spend on a fit, in place of its own number of steps or draws where that is more;
            scores at shares of it are drawn as curves.
        options: hyperparameters by group ("model", "nuts", "svi", "laplace", ...), as `key=value` strings.
    """

    data: str | Raw = "digits"
    model: str = "mlp"
    methods: tuple[str, ...] | None = None
    seeds: tuple[int, ...] = (0,)
    ood: tuple[str, ...] | None = None
    shifts: tuple[str, ...] = ()
    rows: int | None = None
    test_rows: int | None = None
    target: str | None = None
    task: Task | None = None
    splits: str | None = None
    tune: bool = False
    image_size: int | None = None
    data_dir: str | None = None
    quick: bool = False
    budget: Budget | None = None
    options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_name("model", self.model, MODELS)
        for what, names in (("methods", self.methods), ("ood", self.ood), ("shifts", self.shifts)):
            if isinstance(names, str):
                raise UsageError(f"{what} is the text {names!r}: give a tuple of names, such as ({names!r},)")
        for name in self.asked:
            check_name("method", name, METHODS)
        asked = (("method", self.asked), ("seed", self.seeds), ("OOD set", self.ood or ()), ("shift", self.shifts))
        for what, values in asked:
            repeated = [value for value in values if values.count(value) > 1]
            if repeated:
                raise UsageError(f"{what} {repeated[0]} was given twice: give each {what} once")
            if not values and what in ("method", "seed"):
                raise UsageError(f"no {what} was given: give at least one")
        if isinstance(self.data, os.PathLike):
            object.__setattr__(self, "data", os.fspath(self.data))
        if not isinstance(self.data, str | Raw):
            raise UsageError(
                f"data is {type(self.data).__name__}: give a name, a file's path, or arrays(x, y) of "
                "hmcvi.benchmarks.datasets"
            )
        for what, number in (("rows", self.rows), ("test rows", self.test_rows), ("image size", self.image_size)):
            if number is not None and number < 1:
                raise UsageError(f"{number} {what} were asked for: give a whole number of at least 1")
        parse_options(MODELS[self.model], self.options.get("model", ()), "--model-options")
        self._check_temperatures({name: temperature_of(self.method(name)) for name in self.asked})

    def _check_temperatures(self, temperatures: Mapping[str, float]) -> None:
        """Raise UsageError where the methods are after posteriors of different temperatures: one board mixes none."""
        (first, shared), *others = temperatures.items()
        for name, temperature in others:
            if temperature != shared:
                raise UsageError(
                    f"temperature is {shared:g} for {first} and {temperature:g} for {name} (a method without that "
                    "option is at 1): one table compares posteriors of one temperature, run them apart"
                )

    @property
    def asked(self) -> tuple[str, ...]:
        """The methods that were asked for, or all three."""
        return DEFAULT_METHODS if self.methods is None else self.methods

    @property
    def data_name(self) -> str:
        """What to call the data in titles and file names."""
        return self.data.name if isinstance(self.data, Raw) else self.data

    def method(self, name: str, share: float = 1.0) -> Method:
        """Return the method of this name with its options, within this share of the budget."""
        group, make = METHODS[name]
        given = parse_options(make, self.options.get(group, ()), f"--{group}")
        fixed = set(given) & set(getattr(make, "keywords", ()))
        if fixed:
            raise UsageError(f"--{group} got {min(fixed)}=..., which the method's name {name} says: leave one of them")
        small = QUICK.get(group, {}) if self.quick else {}
        if "num_steps" in small and given.get("start") == MAP():  # one of a length of its own keeps it
            given["start"] = dataclasses.replace(given["start"], num_steps=small["num_steps"])
        try:
            method = make(**{**small, **given})
        except ValueError as error:
            raise UsageError(str(error)) from error
        return method if self.budget is None else self.budget.limit(method, share)

    def load(self, seed: int) -> tuple[Dataset, list[OODSet]]:
        """Return the data set of a seed, and its OOD sets; with `tune`, its test rows are validation rows."""
        data_dir = self.data_dir
        names = ood.defaults(self.data, data_dir=data_dir) if self.ood is None else self.ood
        arguments: dict[str, Any] = {
            "seed": seed,
            "rows": self.rows,
            "test_rows": self.test_rows,
            "target": self.target,
            "task": self.task,
            "held_out_classes": ood.held_out_classes(names),
            "gap": ood.gap_column(names),
            "validation_fraction": datasets.TUNING_FRACTION if self.tune else 0.0,
            "splits": self.splits,
            "image": True if self.model == "cnn" else None,  # the other models flatten what they get
            "image_size": self.image_size,
            "data_dir": data_dir,
        }
        data = datasets.load(self.data, **arguments)
        notes = []
        is_class_gp = self.model == "gp" and data.task == "classification"
        if self.rows is None and is_class_gp and len(data.x_train) > GP_CLASS_ROWS:
            arguments["rows"] = GP_CLASS_ROWS
            notes.append(f"A GP classification keeps {GP_CLASS_ROWS} training rows: --rows N takes another number.")
            data = datasets.load(self.data, **arguments)
        if self.tune:
            data = data.for_tuning()
        scored = len(data.x_test)
        if self.test_rows is None and scored > MOST_TEST_ROWS:
            data = _fewer_test_rows(data, MOST_TEST_ROWS, seed)
            notes.append(f"{MOST_TEST_ROWS:,} of {scored:,} rows are scored: --test-rows N takes another number.")
        data = dataclasses.replace(data, notes=(*data.notes, *notes))
        if self.ood is None:
            suited = ood.defaults(data, data_dir=data_dir)
            names = tuple(name for name in suited if name in names or not _is_known(self.data_name))
        shifted = ood.graded(self.shifts)
        names = (*(name for name in names if name not in shifted), *shifted)
        for name in names:
            self._check_foreign(name)
        foreign = [ood.make(name, data, seed=seed, data_dir=data_dir) for name in names]
        self._check_memory(data, foreign)
        return data, foreign

    def _check_foreign(self, name: str) -> None:
        """Raise UsageError where a foreign file is the data set itself."""
        source = ood.source_of(name)
        if source is None or not isinstance(self.data, str) or not Path(source).expanduser().is_file():
            return
        data = Path(self.data).expanduser()
        if data.is_file() and data.samefile(Path(source).expanduser()):
            raise UsageError(f"{source} is the data set itself, so nothing in it is foreign: choose another")

    def _check_memory(self, data: Dataset, foreign: Sequence[OODSet]) -> None:
        """Raise DataError where the predictions would not fit into memory."""
        rows = len(data.x_test) + sum(ood_set.num_rows for ood_set in foreign)
        # of every method: probabilities in 20 batches of draws, or up to LEAST_DRAWS Normals of three numbers
        width = 20 * (data.num_classes + 1) if data.num_classes else 3 * LEAST_DRAWS
        memory.require(
            4 * rows * width * len(self.asked),
            name=f"Predictions of {len(self.asked)} methods at {rows:,} rows",
            advice="keep fewer test rows (--test-rows) or OOD sets",
        )

    def settle(self, data: Dataset) -> tuple[Experiment, list[str]]:
        """Return the experiment with its methods settled for this data, and sentences on what was left out."""
        if self.methods is not None:
            return self, []
        limit = TOO_COSTLY * (1 if jax.default_backend() == "cpu" else ACCELERATION)
        operations = gradient_operations(self.configure_model(data), *check_data(data.x_train, data.y_train))
        if operations <= limit:
            return dataclasses.replace(self, methods=DEFAULT_METHODS), []
        note = (
            f"nuts is left out: one gradient over {len(data.x_train):,} rows takes {operations / 1e9:,.1f} billion "
            "operations, and a run takes hundreds of thousands of gradients. --methods nuts svi bbb runs it all the "
            "same; --rows N makes it cheaper."
        )
        return dataclasses.replace(self, methods=DEFAULT_METHODS[1:]), [note]

    def configure_model(self, data: Dataset) -> Callable[..., Any]:
        """Return the model function with its options, and what the data decide."""
        given = parse_options(MODELS[self.model], self.options.get("model", ()), "--model-options")
        if data.task == "classification":
            given |= {"likelihood": "categorical", "num_classes": data.num_classes}
        else:
            given |= {"likelihood": "normal"}
        return functools.partial(MODELS[self.model], **given)

    def describe_model(self, data: Dataset) -> dict[str, Any]:
        """Return the model's name and every option as it is after defaults and what the data decide, as plain data."""
        parameters = inspect.signature(self.configure_model(data)).parameters
        options = {name: p.default for name, p in parameters.items() if name not in DATA_ARGUMENTS}
        if "prior" in options and options["prior"] is None:
            options["prior"] = Normal()
        # told apart as a method's hyperparameters are
        return {
            "name": self.model,
            "options": {name: json.loads(describe_method(value)) for name, value in options.items()},
        }

    def check(self, data: Dataset) -> None:
        """Raise UsageError where the model or a method cannot serve this data; nothing is computed or written."""
        model = self.configure_model(data)
        x, y = check_data(data.x_train, data.y_train)
        try:
            latent_sites(model, x, y)
            for name in self.asked:
                method = self.method(name)
                minibatches(model, x, y, getattr(method, "batch_size", None))
                if isinstance(method, Training):
                    method.check_model(model, x, y)
        except (ValueError, TypeError, ZeroDivisionError) as error:
            raise UsageError(str(error)) from error

    def configuration(self) -> dict[str, Any]:
        """Return the experiment as plain data, for the run folder; arrays are told apart by their hash."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        # where the data lie says nothing of what they are: the fits themselves check the rows' hash
        del fields["data_dir"]
        if self.budget is not None:
            fields["budget"] = dataclasses.asdict(self.budget)
        if isinstance(self.data, Raw):
            fields["data"] = f"{self.data.name} {_hash(self.data)}"
        return fields | {
            "options": {group: sorted(options) for group, options in sorted(self.options.items()) if options},
        }


def temperature_of(method: Method) -> float:
    """Return the temperature of what a method is after.

    That is 1, the posterior of Bayes, for every method that has no such option: also for MAP and the ensemble, whose
    objective weighs the prior in full and whose point is therefore the mode of the posterior at 1.
    """
    return float(getattr(method, "temperature", 1.0))


def _fewer_test_rows(data: Dataset, number: int, seed: int) -> Dataset:
    """Keep this many of the rows to score, and of the held-out ones at most."""

    def chosen(x: np.ndarray) -> np.ndarray:
        return np.sort(np.random.default_rng([seed, 4]).permutation(len(x))[:number])

    test = chosen(data.x_test)
    fewer = dataclasses.replace(data, x_test=data.x_test[test], y_test=data.y_test[test])
    if data.x_held_out is None:
        return fewer
    held_out = chosen(data.x_held_out)
    y_held_out = None if data.y_held_out is None else data.y_held_out[held_out]
    return dataclasses.replace(fewer, x_held_out=data.x_held_out[held_out], y_held_out=y_held_out)


def _hash(raw: Raw) -> str:
    digest = hashlib.sha256()
    for part in raw.parts:
        for array in part:
            digest.update(f"{array.dtype.str} {array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _is_known(data: str) -> bool:
    return data in datasets.known()
