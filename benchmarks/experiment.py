"""A typed description of a run: model × data × methods × seeds × budget, from names and `key=value` options."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import inspect
import json
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np
from numpyro.infer.autoguide import AutoLowRankMultivariateNormal, AutoMultivariateNormal

from hmcvi.inference import (
    HMC,
    MAMS,
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
from hmcvi.inference.base import is_count, latent_sites, minibatches
from hmcvi.inference.chains import LEAST_DRAWS as FEWEST_DRAWS
from hmcvi.inference.chains import Sampler
from hmcvi.inference.checks import check_data, check_targets
from hmcvi.inference.describe import describe_method
from hmcvi.inference.export import require_writer
from hmcvi.inference.memory import SHARE, Holding, available_bytes, holding, require_room
from hmcvi.inference.request import check_counts
from hmcvi.inference.training import Training
from hmcvi.models import Normal, cnn, gp, hsgp, mlp, sgp

from . import datasets, memory, ood
from .budget import Budget
from .cost import gradient_operations
from .datasets import Dataset
from .layout import check_mesh, mesh_shape
from .ood import OODSet
from .options import UsageError, check_name, parse_options
from .raw import Raw, Task

__all__ = ["METHODS", "MODELS", "Experiment", "temperature_of"]

MODELS: dict[str, Callable[..., Any]] = {"mlp": mlp, "cnn": cnn, "gp": gp, "hsgp": hsgp, "sgp": sgp}
"""Model functions by name; a new model is a new entry."""

METHODS: dict[str, tuple[str, Callable[..., Method]]] = {
    "nuts": ("nuts", NUTS),
    "hmc": ("hmc", HMC),
    "mclmc": ("mclmc", MCLMC),
    "mams": ("mams", MAMS),
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
"""The first of them is left out where it would cost too much."""

QUICK: dict[str, dict[str, Any]] = {
    "nuts": {"num_warmup": 100, "num_draws": 100, "num_chains": 2},
    "hmc": {"num_warmup": 100, "num_draws": 100, "num_chains": 2},
    "mclmc": {"num_warmup": 500, "num_draws": 100, "num_chains": 2},
    "mams": {"num_warmup": 500, "num_draws": 100, "num_chains": 2},
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

LARGE_BYTES = 2**30
"""Memory of a seed's fits beyond which a run says how much it will be."""

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
        chains_per_device: chains of each device, or of each group that shares rows; with `shard_rows`, what the mesh
            is laid out by. None, where rows are divided: all chains in one group.
        shard_rows: devices that the training rows are divided over; None divides none.
        rows_across_processes: whether rows are divided over processes before devices within one.
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
    chains_per_device: int | None = None
    shard_rows: int | None = None
    rows_across_processes: bool = False
    options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_name("model", self.model, MODELS)
        self._check_kinds()
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
        counts = {"rows": self.rows, "test rows": self.test_rows, "image size": self.image_size}
        counts |= {"chains per device": self.chains_per_device, "row shards": self.shard_rows}
        for what, number in counts.items():
            if number is not None and not is_count(number):
                raise UsageError(f"{what} {number!r}: give a whole number of at least 1")
        for seed in self.seeds:
            if not 0 <= seed < 2**32:
                raise UsageError(f"seed {seed}: give a whole number from 0 to 2³² - 1")
        parse_options(MODELS[self.model], self.options.get("model", ()), "--model-options")
        self._check_temperatures({name: temperature_of(self.method(name)) for name in self.asked})
        mesh_shape(self)

    def _check_kinds(self) -> None:
        """Raise UsageError where a field holds another kind of thing than it should."""
        for what, names in (("methods", self.methods), ("ood", self.ood), ("shifts", self.shifts)):
            if isinstance(names, str):
                raise UsageError(f"{what} is the text {names!r}: give a tuple of names, such as ({names!r},)")
            is_tuple = isinstance(names, tuple) and all(isinstance(name, str) for name in names)
            if not is_tuple and (names is not None or what == "shifts"):
                raise UsageError(f"{what} is {names!r:.80}: give a tuple of names")
        if not isinstance(self.seeds, tuple) or not all(map(_is_whole, self.seeds)):
            raise UsageError(f"seeds is {self.seeds!r:.80}: give a tuple of whole numbers, such as (0, 1, 2)")
        for what, text in (("target", self.target), ("task", self.task)):
            if text is not None and not isinstance(text, str):
                raise UsageError(f"{what} is {text!r:.80}: give text")
        for what, path in (("splits", self.splits), ("data_dir", self.data_dir)):
            if path is not None and not isinstance(path, str | os.PathLike):
                raise UsageError(f"{what} is {path!r:.80}: give a path")
        if self.budget is not None and not isinstance(self.budget, Budget):
            raise UsageError(f"budget is {self.budget!r:.80}: give Budget(amount, unit) of hmcvi.benchmarks.budget")
        if not isinstance(self.options, Mapping):
            raise UsageError(f"options is {self.options!r:.80}: give a mapping of key=value strings by group")
        groups = dict.fromkeys(["model", *(group for group, _ in METHODS.values())])
        for group, given in self.options.items():
            check_name("group of options", group, groups)
            if isinstance(given, str) or not all(isinstance(text, str) for text in given):
                raise UsageError(f"options of {group} are {given!r:.80}: give a tuple of key=value strings")

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
            check_counts(method)
            draws = getattr(method, "num_draws", FEWEST_DRAWS)
            if isinstance(method, Sampler) and draws < FEWEST_DRAWS:
                raise ValueError(
                    f"{name} got num_draws={draws}: give at least {FEWEST_DRAWS}, from which convergence is judged"
                )
            return method if self.budget is None else self.budget.limit(method, share)
        except ValueError as error:
            raise UsageError(str(error)) from error

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
        """Return the experiment with its methods settled for this data, and sentences on what was left out.

        A sentence says what the fits will hold in memory, where that is much.
        """
        x, y = check_data(data.x_train, data.y_train)
        model = self.configure_model(data)
        sites, _ = latent_sites(model, x, y)
        settled, notes = self, []
        if self.methods is None:
            limit = TOO_COSTLY * (1 if jax.default_backend() == "cpu" else ACCELERATION)
            operations, needed = gradient_operations(model, x, y), holding(self.method(DEFAULT_METHODS[0]), sites)
            methods = DEFAULT_METHODS if operations <= limit else DEFAULT_METHODS[1:]
            if operations > limit:
                notes.append(
                    f"nuts is left out: one gradient over {len(x):,} rows takes {operations / 1e9:,.1f} billion "
                    "operations, and a run takes hundreds of thousands of gradients. --methods nuts svi bbb runs it "
                    "all the same; --rows N makes it cheaper."
                )
            elif needed.peak > SHARE * available_bytes():
                methods = DEFAULT_METHODS[1:]
                notes.append(f"nuts is left out: it would hold {needed}; {needed.advice}.")
            settled = dataclasses.replace(self, methods=methods)
        held = {name: holding(settled.method(name), sites) for name in settled.asked}
        largest = max(held, key=lambda name: held[name].peak)
        if _together(held.values()) > LARGE_BYTES:
            notes.append(
                f"The fits of a seed will hold about {_together(held.values()) / 2**30:,.1f} GiB of memory together; "
                f"{largest} alone {held[largest]}."
            )
        return settled, notes

    def configure_model(self, data: Dataset) -> Callable[..., Any]:
        """Return the model function with its options, and what the data decide."""
        return functools.partial(MODELS[self.model], **self.model_options(data))

    def model_options(self, data: Dataset) -> dict[str, Any]:
        """Return the model's options that were given, and what the data decide."""
        given = parse_options(MODELS[self.model], self.options.get("model", ()), "--model-options")
        if data.task == "classification":
            return given | {"likelihood": "categorical", "num_classes": data.num_classes}
        return given | {"likelihood": "normal"}

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
        try:
            require_writer()
            x, y = check_data(data.x_train, data.y_train)
            model = self.configure_model(data)
            sites, _ = latent_sites(model, x, y)
            check_targets(model, x, y)
            check_mesh(self, model, x, y)
            held = {}
            for name in self.asked:
                method = self.method(name)
                minibatches(model, x, y, getattr(method, "batch_size", None))
                if isinstance(method, Training):
                    method.check_model(model, x, y)
                group = METHODS[name][0]
                # else it is left out where it is too much
                if self.methods is not None or name != DEFAULT_METHODS[0] or self.options.get(group):
                    held[name] = holding(method, sites)
                    require_room(name, held[name])
        except (ValueError, TypeError, ZeroDivisionError, OverflowError) as error:
            raise UsageError(str(error)) from error
        # a seed's fits are in memory together, to be compared
        memory.require(
            _together(held.values()),
            name=f"The draws of {', '.join(held)} together",
            advice="take fewer draws, a smaller model, or some of the methods at a time",
        )

    def configuration(self) -> dict[str, Any]:
        """Return the experiment as plain data, for the run folder; arrays are told apart by their hash."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        # where the data lie says nothing of what they are: the fits themselves check the rows' hash
        del fields["data_dir"]
        for name in ("chains_per_device", "shard_rows", "rows_across_processes"):
            if not fields[name]:  # as runs without a mesh have always been described
                del fields[name]
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


def _is_whole(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _together(held: Collection[Holding]) -> float:
    """Return the bytes that fits take which are made one after the other, and kept."""
    kept = sum(one.kept for one in held)
    return kept + max((one.peak - one.kept for one in held), default=0.0)


def _is_known(data: str) -> bool:
    return data in datasets.known()
