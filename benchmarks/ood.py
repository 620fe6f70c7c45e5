"""Foreign inputs by name: what a posterior should be unsure about, made from a loaded data set.

A name is a source, a change of the test rows, or a chain of them: `fashion_mnist`, `mine.npz`, `held_out:8,9`,
`gap:age`, `rotation:45`, `blur@3` (severity 3 of 5), `rotation:30+contrast:0.5`, `fashion_mnist+blur@2`. Not every
set is a sound test. A mean brightness alone tells noise and inversion from digits, where held-out classes and a fixed
permutation keep it.
"""

from __future__ import annotations

import difflib
import os
import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from . import datasets
from .files import SUFFIXES, read_columns, read_inputs
from .images import brightness, resized
from .paths import as_path, is_file
from .raw import DataError, Raw
from .shifts import LEVELS, SHIFTS, Case, Shift
from .splits import MOST_SDS, standardised
from .tfds_catalogue import find_prepared

__all__ = ["OODSet", "defaults", "gap_column", "graded", "held_out_classes", "known", "make"]

# Data sets whose images can stand in as foreign ones, and which are named in messages.
_IMAGE_SETS = ("digits", "mnist", "fashion_mnist", "cifar10")

MOST_ARGUMENT = 1e6
"""What the argument of a change may be at most, in size: factors, sds and degrees beyond it ask for nothing else."""

_BY_TFDS = ("mnist", "fashion_mnist", "svhn_cropped")


@dataclass(frozen=True, eq=False, kw_only=True)
class OODSet:
    """Inputs that do not come from where the training inputs came from.

    Attributes:
        name: as it was asked for, argument included.
        num_rows: how many rows there are.
        y: (row,) labels or targets like the data set's, where the right answer is known; None where there is none.
        description: one sentence on how the inputs were made.
        shift: what is graded, such as "blur", where the set is one severity of it; None elsewhere.
        level: the severity, 1 to 5; None elsewhere.
    """

    name: str
    num_rows: int
    y: np.ndarray | None
    description: str
    shift: str | None
    level: int | None
    _make: Callable[[], np.ndarray]

    @property
    def x(self) -> np.ndarray:
        """(row, feature...) of the test rows' dtype and row shape; made anew each time, so that few are in memory."""
        return self._make()


def known() -> list[str]:
    """The names that `make` takes, in alphabetical order; every data set of images is one, and so is a file.

    Example:
        >>> "permutation" in known(), "fashion_mnist" in known()
        (True, True)
    """
    return sorted([*SHIFTS, "gap", "held_out", *_IMAGE_SETS])


def defaults(
    dataset: str | Raw | datasets.Dataset, *, data_dir: str | os.PathLike[str] | None = None
) -> tuple[str, ...]:
    """The sets worth showing for a data set, by its name or, more surely, as it was loaded.

    Digits, Fashion-MNIST and the like get sets with the brightness of the real images; another TFDS set is left
    out where it is not prepared. A file is taken for what its suffix says: `.npz` may hold images, so it gets the
    sets that suit both kinds.

    Example:
        >>> defaults("digits")
        ('held_out:8,9', 'permutation', 'uniform_noise', 'contrast')
    """
    name = dataset if isinstance(dataset, str) else dataset.name
    listed = {
        "digits": ("held_out:8,9", "permutation", "uniform_noise", "contrast"),
        "mnist": ("fashion_mnist", "permutation", "uniform_noise", "contrast"),
        "fashion_mnist": ("mnist", "permutation", "uniform_noise", "contrast"),
        "cifar10": ("svhn_cropped", "permutation", "uniform_noise", "contrast"),
        "wave": ("gap", "extrapolation"),
    }
    if name in listed:
        return tuple(kind for kind in listed[name] if kind not in _BY_TFDS or _is_prepared(kind, data_dir))
    if isinstance(dataset, str):
        both = ("permutation", "uniform_noise")
        is_table = name.lower().endswith((".csv", ".parquet")) or name in datasets.known()
        return (*both, "extrapolation") if is_table else both
    is_table = dataset.brightness is None if isinstance(dataset, Raw) else dataset.image_shape is None
    if not is_table:
        return ("permutation", "uniform_noise", "contrast")
    num_columns = dataset.x.shape[1] if isinstance(dataset, Raw) else dataset.x_test.shape[1]
    if num_columns == 1:
        return ("extrapolation",)
    return ("permutation", "uniform_noise", "extrapolation")


def source_of(name: str) -> str | None:
    """The data set or file that a set's inputs come from; None where they are the data set's own, changed.

    Example:
        >>> source_of("fashion_mnist+blur@2"), source_of("rotation:45+blur@2"), source_of("held_out:8,9")
        ('fashion_mnist', None, None)
    """
    first = name if is_file(name) else name.partition("+")[0]
    kind = re.split("[:@]", first, maxsplit=1)[0]
    return None if kind in SHIFTS or kind in ("held_out", "gap") else first


def graded(names: Sequence[str]) -> tuple[str, ...]:
    """The names of every severity of these changes.

    Raises:
        DataError: a change that is unknown, or not graded.

    Example:
        >>> graded(["blur"])
        ('blur@1', 'blur@2', 'blur@3', 'blur@4', 'blur@5')
    """
    listed = sorted(name for name, shift in SHIFTS.items() if shift.image_levels or shift.table_levels)
    for name in names:
        if name not in listed:
            close = difflib.get_close_matches(name, listed, n=1)
            hint = f"; did you mean {close[0]}?" if close else ":"
            raise DataError(f"there is no graded shift {name!r}{hint} graded are {', '.join(listed)}")
    return tuple(f"{name}@{level}" for name in names for level in LEVELS)


def held_out_classes(names: Sequence[str], default: Sequence[int | str] = ()) -> tuple[int | str, ...]:
    """Which classes `datasets.load` must leave out for these sets to be made.

    Args:
        names: names of OOD sets; only `held_out` and `held_out:CLASS,CLASS` matter here.
        default: the classes for a `held_out` without an argument.

    Returns:
        Labels as numbers, class names as text; empty where no set holds a class out.

    Raises:
        DataError: two sets that hold out different classes (one fit cannot serve both), or none named.

    Example:
        >>> held_out_classes(("permutation", "held_out:8,9"))
        (8, 9)
    """
    asked: set[tuple[int | str, ...]] = set()
    for name in names:
        kind, _, argument = name.partition("+")[0].partition(":")
        if kind == "held_out":
            asked.add(tuple(sorted(set(_classes(argument) or default), key=str)))
    if not asked:
        return ()
    if len(asked) > 1:
        raise DataError(
            f"{' and '.join(name for name in names if name.startswith('held_out'))} hold out different "
            "classes, which needs a fit for each: run them apart, or name all classes in one"
        )
    classes = asked.pop()
    if not classes:
        raise DataError("held_out names no class: write for example held_out:8,9")
    return classes


def gap_column(names: Sequence[str]) -> str | None:
    """The column that `datasets.load` must leave a gap in for these sets to be made; None where none is named.

    Raises:
        DataError: two sets that leave different gaps, which needs a fit for each.

    Example:
        >>> gap_column(["gap:age", "extrapolation"])
        'age'
    """
    columns = {name.partition("+")[0].partition(":")[2] for name in names if name.startswith("gap:")}
    if len(columns) > 1:
        raise DataError(
            f"gaps in {' and '.join(sorted(columns))} were asked for, which needs a fit for each: run them apart"
        )
    return columns.pop() if columns else None


def make(name: str, dataset: datasets.Dataset, *, seed: int, data_dir: str | os.PathLike[str] | None = None) -> OODSet:
    """Make one set of foreign inputs for a loaded data set.

    Args:
        name: one of `known()`, another TFDS image set or a file, each with an argument after a colon or a severity
            after an @ where it takes one, and changes after a +.
        dataset: the data set to be foreign to; its test rows are what is shifted.
        seed: fixes the permutation, the noise and the choice of rows.
        data_dir: the TFDS folder, for a set that is another data set; by default `$TFDS_DATA_DIR`.

    Returns:
        As many rows as there are test rows (fewer where another source has fewer; `held_out` and `gap` have their
        own number).

    Raises:
        DataError: an unknown name, an argument that is no number or does nothing, images wanted from a
            table, or a data set that was loaded without `held_out_classes` or `gap`.

    Example:
        >>> digits = datasets.load("digits", seed=0, rows=50, test_rows=20)
        >>> make("contrast:0.5", digits, seed=0).x.shape
        (20, 64)
    """
    first, *others = [name] if is_file(name) else name.split("+")
    x: np.ndarray = dataset.x_test
    y: np.ndarray | None = dataset.y_test
    source = ""
    kind, *rest = re.split("([:@])", first, maxsplit=1)
    argument = "".join(rest[1:])
    if Path(first).suffix.lower() in SUFFIXES:
        (x, source), y = _foreign(first, dataset, seed, data_dir), None
    elif kind == "held_out":
        (x, source), y = _held_out(dataset, argument), None
    elif kind == "gap":
        x, y, source = _gap(dataset, argument)
    elif kind in SHIFTS or not (kind in _IMAGE_SETS or datasets.is_tfds_source(kind, data_dir=data_dir)):
        others = [first, *others]
    else:
        if rest:
            raise DataError(f"{first}: another data set takes no argument: write {kind}")
        (x, source), y = _foreign(first, dataset, seed, data_dir), None
    steps = [_step(text, dataset, seed) for text in others]
    if not all(step.shift.keeps_labels for step in steps):
        y = None
    changed = _apply(steps, x[:2], dataset)  # what cannot be done is said now, before anything is fitted
    if changed.dtype.kind == "f" and not np.abs(changed).max() <= MOST_SDS:
        raise DataError(
            f"{name} takes inputs more than {MOST_SDS:g} sds from the training rows, where no prediction is finite: "
            "ask for less"
        )
    changes = ", then ".join(step.description for step in steps)
    subject = source or f"the {dataset.scored_on} rows"
    subject = subject[0].upper() + subject[1:] + (", " if changes else "")
    level = steps[0].level if len(steps) == 1 and not source else None
    return OODSet(
        name=name,
        num_rows=len(x),
        y=y,
        description=f"{subject}{changes}.",
        shift=steps[0].kind if level is not None else None,
        level=level,
        _make=lambda: _apply(steps, x, dataset),
    )


@dataclass(frozen=True)
class _Step:
    """One change with its argument, and a seed for its noise."""

    kind: str
    shift: Shift
    value: float
    level: int | None
    seeds: tuple[int, int]

    @property
    def description(self) -> str:
        severity = "" if self.level is None else f" (severity {self.level} of {len(LEVELS)})"
        return self.shift.description.format(f"{self.value:g}") + severity


def _step(text: str, dataset: datasets.Dataset, seed: int) -> _Step:
    kind, mark, argument = text.partition("@" if "@" in text else ":")
    if kind not in SHIFTS:
        close = difflib.get_close_matches(kind, known(), n=1)
        raise DataError(
            f"there is no OOD set {kind!r}{f'; did you mean {close[0]}?' if close else ':'} "
            f"known are {', '.join(known())}, other TFDS image sets, and files"
        )
    shift = SHIFTS[kind]
    holds = "tables" if dataset.image_shape is None else "images"
    if shift.suits not in ("both", holds):
        what = "is tabular" if holds == "tables" else "holds images"
        suited = _graded_for(holds) if "@" in text else defaults(dataset)
        raise DataError(f"{kind} is for {shift.suits}, but {dataset.name} {what}: use {', '.join(suited)}")
    default, levels = shift.image_default, shift.image_levels
    if holds == "tables":
        default, levels = shift.table_default, shift.table_levels
    level = None
    value = default or 0.0
    if mark == "@":
        if not levels:
            listed = ", ".join(_graded_for(holds))
            raise DataError(f"{text}, but {kind} has no severities (these have: {listed}): write {kind}")
        if argument not in map(str, LEVELS):
            raise DataError(f"{text}, but a severity from {LEVELS[0]} to {LEVELS[-1]} is wanted: write {kind}@3")
        level = int(argument)
        value = levels[level - 1]
    elif argument:
        if default is None:
            raise DataError(f"{text}, but {kind} takes no argument: write {kind}")
        try:
            value = float(argument)
        except ValueError:
            value = np.nan
        if not abs(value) <= MOST_ARGUMENT or not shift.allowed(value):
            raise DataError(f"{text}, but {shift.wanted} is wanted: write for example {kind}:{default:g}")
    # A stream for each kind: else noise and permutation would be made from the same numbers.
    canonical = next(name for name, known_shift in SHIFTS.items() if known_shift is shift)
    return _Step(kind, shift, value, level, (seed, zlib.crc32(canonical.encode())))


def _graded_for(holds: str) -> tuple[str, ...]:
    """The graded changes of "tables" or "images"."""
    levels = {name: shift.table_levels if holds == "tables" else shift.image_levels for name, shift in SHIFTS.items()}
    return tuple(name for name, values in levels.items() if values)


def _apply(steps: Sequence[_Step], x: np.ndarray, dataset: datasets.Dataset) -> np.ndarray:
    """Rows like the data set's, changed step by step; images of uint8 are rounded to uint8 again."""
    if not steps:
        return x
    changed = x if dataset.image_shape is None else brightness(x).reshape(len(x), *dataset.image_shape)
    for step in steps:
        changed = step.shift.change(Case(dataset, changed, step.value, np.random.default_rng(step.seeds)))
        changed = np.asarray(changed, np.float32).reshape(len(x), *changed.shape[1:])
        changed = changed if dataset.image_shape is None else changed.reshape(len(x), *dataset.image_shape)
    return _like(changed, dataset)


def _like(x: np.ndarray, dataset: datasets.Dataset) -> np.ndarray:
    """Inputs in the dtype and the row shape of the data set's."""
    if dataset.x_test.dtype == np.uint8 and x.dtype != np.uint8:
        x = np.rint(np.clip(x, 0, 1) * np.float32(255)).astype(np.uint8)
    elif dataset.x_test.dtype != np.uint8:
        x = brightness(x).astype(np.float32)
    return x.reshape(len(x), *dataset.x_test.shape[1:])


def _classes(argument: str) -> tuple[int | str, ...]:
    parts = [part.strip() for part in argument.split(",") if part.strip()]
    # beyond 18 digits it is no label, and beyond some thousands Python reads no number
    return tuple(int(part) if part.removeprefix("-").isdecimal() and len(part) <= 18 else part for part in parts)


def _held_out(dataset: datasets.Dataset, argument: str) -> tuple[np.ndarray, str]:
    wanted = _classes(argument)
    if dataset.x_held_out is None:
        classes = ", ".join(str(part) for part in wanted) or "8, 9"
        raise DataError(
            f"{dataset.name} was loaded with every class in it, so none is foreign: "
            f"pass held_out_classes=({classes}) to datasets.load"
        )
    # A number may stand for a class whose name is a word; then only the count can be compared.
    unknown = [part for part in wanted if isinstance(part, str) and part not in dataset.held_out_names]
    if all(name.removeprefix("-").isdecimal() for name in dataset.held_out_names):
        unknown = [str(part) for part in wanted if str(part) not in dataset.held_out_names]
    if wanted and (unknown or len(set(wanted)) != len(dataset.held_out_names)):
        raise DataError(
            f"held_out:{argument}, but {dataset.name} was loaded without the classes "
            f"{', '.join(dataset.held_out_names)}: load it again with these, or write held_out"
        )
    return dataset.x_held_out, f"rows of classes never trained on ({', '.join(dataset.held_out_names)})"


def _gap(dataset: datasets.Dataset, column: str) -> tuple[np.ndarray, np.ndarray | None, str]:
    if dataset.gap is None or dataset.x_held_out is None or (column and column != dataset.gap[0]):
        if dataset.image_shape is not None:
            raise DataError(f"gap is for tables, but {dataset.name} holds images: use {', '.join(defaults(dataset))}")
        column = column or dataset.feature_names[0]
        raise DataError(
            f"{dataset.name} was loaded without a gap in {column!r}, so no row is foreign: write gap:{column} (and "
            f"pass gap={column!r} to datasets.load)"
        )
    name, low, high = dataset.gap
    source = f"rows with {name} between {low:g} and {high:g}, none of them trained on"
    return dataset.x_held_out, dataset.y_held_out, source


def _foreign(
    name: str, dataset: datasets.Dataset, seed: int, data_dir: str | os.PathLike[str] | None
) -> tuple[np.ndarray, str]:
    if dataset.image_shape is None:
        path = as_path(name)
        if path.suffix.lower() not in SUFFIXES:
            raise DataError(f"{name} holds images, but {dataset.name} is tabular: use {', '.join(defaults(dataset))}")
        columns = read_columns(path, dataset.feature_names)
        x = standardised(
            columns, dataset.feature_loc, dataset.feature_scale, name=path.name, columns=dataset.feature_names
        )
        order = np.random.default_rng([seed, zlib.crc32(name.encode())]).permutation(len(x))
        return x[order[: len(dataset.x_test)]], f"{_out_of(len(x), dataset)} rows of {path.name}"
    if name == dataset.name:
        raise DataError(f"{name} is the data set itself, so nothing in it is foreign: choose another")
    path = as_path(name)
    is_npz = path.suffix.lower() == ".npz"
    if path.suffix.lower() in SUFFIXES and not is_npz:
        raise DataError(f"{path.name} is a table, but {dataset.name} holds images: use {', '.join(defaults(dataset))}")
    raw = read_inputs(path) if is_npz else datasets.read(name, seed=seed, data_dir=data_dir)
    if raw.brightness is None:
        raise DataError(f"{name} is tabular, but {dataset.name} holds images: use {', '.join(defaults(dataset))}")
    x = raw.x if raw.x_test is None else raw.x_test
    order = np.random.default_rng([seed, zlib.crc32(name.encode())]).permutation(len(x))
    counted = _out_of(len(x), dataset)
    x = x[order[: len(dataset.x_test)]]
    description = f"{counted} {'' if raw.x_test is None else 'test '}images of {raw.name}"
    if raw.brightness not in (1.0, 255.0):
        x = x.astype(np.float32) / np.float32(raw.brightness)
    height, width, channels = dataset.image_shape
    if x.shape[3] == 3 and channels == 1:
        x = brightness(x) @ np.array([[0.299], [0.587], [0.114]], np.float32)  # luma, ITU-R BT.601
        description += ", made grey"
    elif x.shape[3] != channels:
        x = np.repeat(brightness(x).mean(axis=3, keepdims=True), channels, axis=3)
        description += f", their grey in all {channels} channels"
    if x.shape[1:3] != (height, width):
        description += f", resized from {x.shape[1]}x{x.shape[2]} to {height}x{width} (Lanczos)"
        x = resized(brightness(x), height, width)
    return _like(x, dataset), description


def _out_of(rows: int, dataset: datasets.Dataset) -> str:
    """How many of a foreign set's rows are taken: as many as there are test rows."""
    return f"{len(dataset.x_test):,} of {rows:,}" if rows > len(dataset.x_test) else f"{rows:,}"


def _is_prepared(name: str, data_dir: str | os.PathLike[str] | None) -> bool:
    try:
        find_prepared(name, data_dir=data_dir)
    except DataError:
        return False
    return True
