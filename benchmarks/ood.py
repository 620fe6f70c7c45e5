"""Foreign inputs by name: what a posterior should be unsure about, made from a loaded data set.

A name may carry one argument after a colon: `rotation:45`, `held_out:8,9`. Not every set is a sound test. A
mean brightness alone tells noise and inversion from digits, where held-out classes and a fixed permutation
keep it.
"""

from __future__ import annotations

import difflib
import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from . import datasets
from .raw import DataError
from .shifts import SHIFTS, Case

__all__ = ["OODSet", "defaults", "held_out_classes", "known", "make"]

# Data sets whose images can stand in as foreign ones.
_IMAGE_SETS = ("digits", "mnist", "fashion_mnist", "cifar10")


@dataclass(frozen=True, eq=False, kw_only=True)
class OODSet:
    """Inputs that do not come from where the training inputs came from.

    Attributes:
        name: as it was asked for, argument included.
        x: (row, feature...) float32, one row shaped like one of the data set's test rows.
        description: one sentence on how the inputs were made.
    """

    name: str
    x: np.ndarray
    description: str


def known() -> list[str]:
    """The names that `make` takes, in alphabetical order; each data set of images is one.

    Example:
        >>> "permutation" in known(), "fashion_mnist" in known()
        (True, True)
    """
    return sorted([*SHIFTS, "held_out", *_IMAGE_SETS])


def defaults(dataset: str | datasets.Dataset) -> tuple[str, ...]:
    """The sets worth showing for a data set, by its name or, more surely, as it was loaded.

    Digits, Fashion-MNIST and the like get sets with the brightness of the real images. A file is taken for
    what its suffix says: `.npz` may hold images, so it gets the sets that suit both kinds.

    Example:
        >>> defaults("digits")
        ('held_out:8,9', 'permutation', 'uniform_noise', 'contrast')
    """
    name = dataset if isinstance(dataset, str) else dataset.name
    listed = {
        "digits": ("held_out:8,9", "permutation", "uniform_noise", "contrast"),
        "mnist": ("fashion_mnist", "permutation", "uniform_noise", "contrast"),
        "fashion_mnist": ("mnist", "permutation", "uniform_noise", "contrast"),
        "cifar10": ("held_out:8,9", "permutation", "uniform_noise", "contrast"),
        "wave": ("extrapolation",),
    }
    if name in listed:
        return listed[name]
    if isinstance(dataset, str):
        both = ("permutation", "uniform_noise")
        return both if name.lower().endswith(".npz") else (*both, "extrapolation")
    if dataset.image_shape is not None:
        return ("permutation", "uniform_noise", "contrast")
    if dataset.x_test.shape[1] == 1:
        return ("extrapolation",)
    return ("permutation", "uniform_noise", "extrapolation")


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
        kind, _, argument = name.partition(":")
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


def make(name: str, dataset: datasets.Dataset, *, seed: int, data_dir: str | os.PathLike[str] | None = None) -> OODSet:
    """Make one set of foreign inputs for a loaded data set.

    Args:
        name: one of `known()`, with an argument after a colon where it takes one.
        dataset: the data set to be foreign to; its test rows are what is shifted.
        seed: fixes the permutation, the noise and the choice of rows.
        data_dir: the TFDS folder, for a set that is another data set; by default `$TFDS_DATA_DIR`.

    Returns:
        As many rows as there are test rows (fewer where another source has fewer; `held_out` has its own
        number).

    Raises:
        DataError: an unknown name, an argument that is no number or does nothing, images wanted from a
            table, or a data set that was loaded without `held_out_classes`.

    Example:
        >>> digits = datasets.load("digits", seed=0, rows=50, test_rows=20)
        >>> make("contrast:0.5", digits, seed=0).x.shape
        (20, 64)
    """
    kind, _, argument = name.partition(":")
    if kind not in known():
        close = difflib.get_close_matches(kind, known(), n=1)
        raise DataError(
            f"there is no OOD set {kind!r}{f'; did you mean {close[0]}?' if close else ':'} "
            f"known are {', '.join(known())}"
        )
    if kind == "held_out":
        x, description = _held_out(dataset, argument)
    elif kind in _IMAGE_SETS:
        if argument:
            raise DataError(f"{name}: another data set takes no argument: write {kind}")
        x, description = _foreign(kind, dataset, seed, data_dir)
    else:
        x, description = _shift(kind, argument, dataset, seed)
    return OODSet(name=name, x=x.reshape(-1, *dataset.x_test.shape[1:]).astype(np.float32), description=description)


def _shift(kind: str, argument: str, dataset: datasets.Dataset, seed: int) -> tuple[np.ndarray, str]:
    shift = SHIFTS[kind]
    holds = "tables" if dataset.image_shape is None else "images"
    if shift.suits not in ("both", holds):
        what = "is tabular" if holds == "tables" else "holds images"
        raise DataError(f"{kind} is for {shift.suits}, but {dataset.name} {what}: use {', '.join(defaults(dataset))}")
    default = shift.table_default if holds == "tables" else shift.image_default
    if argument and default is None:
        raise DataError(f"{kind}:{argument}, but {kind} takes no argument: write {kind}")
    value = default or 0.0
    if argument:
        try:
            value = float(argument)
        except ValueError:
            value = np.nan
        if not np.isfinite(value) or not shift.allowed(value):
            raise DataError(f"{kind}:{argument}, but {shift.wanted} is wanted: write for example {kind}:{default:g}")
    x = dataset.x_test
    if dataset.image_shape is not None:
        x = x.reshape(len(x), *dataset.image_shape)
    # A stream for each kind: else noise and permutation would be made from the same numbers.
    generator = np.random.default_rng([seed, zlib.crc32(kind.encode())])
    return shift.change(Case(dataset, x, value, generator)), shift.description.format(f"{value:g}")


def _classes(argument: str) -> tuple[int | str, ...]:
    parts = [part.strip() for part in argument.split(",") if part.strip()]
    return tuple(int(part) if part.removeprefix("-").isdecimal() else part for part in parts)


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
    return dataset.x_held_out, f"Rows of classes never trained on ({', '.join(dataset.held_out_names)})."


def _foreign(
    name: str, dataset: datasets.Dataset, seed: int, data_dir: str | os.PathLike[str] | None
) -> tuple[np.ndarray, str]:
    if dataset.image_shape is None:
        raise DataError(f"{name} holds images, but {dataset.name} is tabular: use {', '.join(defaults(dataset))}")
    if name == dataset.name:
        raise DataError(f"{name} is the data set itself, so nothing in it is foreign: choose another")
    # Only its test rows are used: with few training rows, 50,000 images need not become floats.
    foreign = datasets.load(name, seed=seed, rows=10, image=True, data_dir=data_dir)
    order = np.random.default_rng([seed, zlib.crc32(name.encode())]).permutation(len(foreign.x_test))
    x = foreign.x_test[order[: len(dataset.x_test)]]
    description = f"{len(x)} test images of {name}"
    height, width, channels = dataset.image_shape
    if x.shape[3] == 3 and channels == 1:
        x = x @ np.array([[0.299], [0.587], [0.114]], np.float32)  # luma, ITU-R BT.601
        description += ", made grey"
    elif x.shape[3] != channels:
        x = np.repeat(x.mean(axis=3, keepdims=True), channels, axis=3)
        description += f", their grey in all {channels} channels"
    if x.shape[1:3] != (height, width):
        from scipy import ndimage

        zoom = (1, height / x.shape[1], width / x.shape[2], 1)
        description += f", resized from {x.shape[1]}x{x.shape[2]} to {height}x{width} (linear)"
        x = np.clip(ndimage.zoom(x, zoom, order=1, mode="nearest", grid_mode=True), 0.0, 1.0)
    return x, description + "."
