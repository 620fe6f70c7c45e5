"""Data by name, from a file or from arrays: split, scaled and ready for a model, with what a report must say about it.

NumPy only at import, so that `hmcvi --help` stays quick; scikit-learn, pandas and TFDS load when they are
needed.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import math
import operator
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from . import memory
from .bundled import BUNDLED
from .files import SUFFIXES, read_file
from .paths import as_path, is_file
from .raw import DataError, Raw, Task, arrays, check_arrays
from .split_files import read_splits
from .splits import (
    check_seen,
    choose_rows,
    encode_labels,
    find_gap,
    find_labels,
    settle_task,
    share_out,
    standardisation,
    standardised,
)
from .tfds_images import DESCRIPTIONS as TFDS_NAMES
from .tfds_images import read_images

__all__ = ["DataError", "Dataset", "arrays", "check_arrays", "known", "load", "read"]

TUNING_FRACTION = 0.2
"""The part of the training rows that `Dataset.for_tuning` is scored on where the data set has no validation rows."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Dataset:
    """One data set, split and scaled; every number it was scaled by was learned on the training rows.

    Images of uint8 stay uint8, a quarter of the size, unless they are flattened: every method and `predict` read them
    as x / 255.

    Attributes:
        name: the name it was asked for by, or the file's own.
        task: "classification" or "regression".
        x_train: (row, feature) float32, or (row, height, width, channel) float32 or uint8 where images were asked for.
        y_train: (row,) int32 labels from 0, or float32 targets with mean 0 and sd 1.
        x_test: like `x_train`.
        y_test: like `y_train`.
        x_validation: like `x_train`; no rows unless they were asked for or are published.
        y_validation: like `y_train`.
        num_classes: how many labels there are; None for regression.
        class_names: (class,) names in label order; empty for regression.
        feature_names: (feature,) column names; empty for images.
        image_shape: (height, width, channel), also where images come flattened; None for a table.
        target_loc: a target in its own unit is `y * target_scale + target_loc`; 0 for classification.
        target_scale: see `target_loc`; 1 for classification.
        feature_loc: inputs in their own unit are `x * feature_scale + feature_loc`; (feature,), or () for
            images. Images of uint8 are in their own unit already.
        feature_scale: see `feature_loc`; 1 for a column that is constant on the training rows.
        x_held_out: inputs of the classes, or of the gap, that were left out, like `x_test`; None where none were.
        y_held_out: targets in the gap, like `y_test`; None where classes were held out, whose labels no model knows.
        held_out_names: (class,) names of the classes that were left out.
        gap: the column and the two ends, in its own unit, of the stretch that was left out; None where none was.
        scored_on: "test", or "validation" for tuning.
        description: one sentence on what the rows are.
        notes: sentences that a report must print, such as how the task was settled.
        curve: the targets' true mean as a function of inputs, both in their own unit; None where nobody knows it.
    """

    name: str
    task: Task
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    x_validation: np.ndarray
    y_validation: np.ndarray
    num_classes: int | None
    class_names: tuple[str, ...]
    feature_names: tuple[str, ...]
    image_shape: tuple[int, int, int] | None
    target_loc: float
    target_scale: float
    feature_loc: np.ndarray
    feature_scale: np.ndarray
    x_held_out: np.ndarray | None
    y_held_out: np.ndarray | None
    held_out_names: tuple[str, ...]
    gap: tuple[str, float, float] | None
    scored_on: str = "test"
    description: str
    notes: tuple[str, ...]
    curve: Callable[[np.ndarray], np.ndarray] | None = None

    @cached_property
    def data_hash(self) -> str:
        """SHA-256 over bytes, shapes and dtypes of what is trained on, tested on and held out."""
        digest = hashlib.sha256()
        for field in ("x_train", "y_train", "x_test", "y_test", "x_held_out"):
            array = getattr(self, field)
            digest.update(f"{field} {None if array is None else (array.dtype.str, array.shape)}\n".encode())
            if array is not None:
                digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    def for_tuning(self) -> Dataset:
        """The same with its validation rows in the place of the test rows, which are no longer in it.

        Raises:
            DataError: there are no validation rows.
        """
        if not len(self.x_validation):
            raise DataError(
                f"{self.name} was loaded without validation rows: pass validation_fraction={TUNING_FRACTION}"
            )
        return dataclasses.replace(
            self,
            x_test=self.x_validation,
            y_test=self.y_validation,
            x_validation=self.x_validation[:0],
            y_validation=self.y_validation[:0],
            scored_on="validation",
        )


def known() -> list[str]:
    """The names that `load` is sure to know, in alphabetical order; any prepared TFDS image set is taken besides.

    Example:
        >>> known()
        ['breast_cancer', 'cifar10', 'diabetes', 'digits', 'fashion_mnist', 'mnist', 'wave', 'wine']
    """
    return sorted({**BUNDLED, **TFDS_NAMES})


def load(
    source: str | os.PathLike[str] | Raw,
    *,
    seed: int,
    rows: int | None = None,
    test_rows: int | None = None,
    target: str | None = None,
    task: Task | None = None,
    held_out_classes: Sequence[int | str] = (),
    gap: str | None = None,
    test_fraction: float = 0.2,
    validation_fraction: float = 0.0,
    splits: str | os.PathLike[str] | Mapping[str, Any] | None = None,
    image: bool | None = False,
    image_size: int | None = None,
    data_dir: str | os.PathLike[str] | None = None,
) -> Dataset:
    """Load a data set by name, from a `.npz`, `.csv` or `.parquet` file, or from arrays, split and scaled.

    Tables and targets are standardised by the mean and sd of the training rows (those left after `rows`),
    images divided by their full brightness. The split is stratified by class; TFDS sets keep their published
    one, and `wave` is drawn anew from each seed.

    Args:
        source: one of `known()`, any other prepared TFDS image-classification set, a file's path, or what
            `arrays(x, y)` returned.
        seed: fixes the split, the choice of rows and the draws of `wave`; from 0 to 2³² - 1.
        rows: how many training rows to keep, as many of each class as there are; all by default. The rows
            for a smaller number are among those for a larger one.
        test_rows: how many test rows to keep, and validation and held-out ones at most; all by default.
        target: the target column of a table; for `.csv` and `.parquet`, where it is required.
        task: what a file is for. By default classification where the targets are text, or whole numbers with
            at most 50 distinct values and five rows for each; else regression.
        held_out_classes: labels (or class names) to take out of all rows; their inputs become `x_held_out`,
            and the labels that remain are renumbered from 0 in their old order.
        gap: a table's column whose middle third of rows is taken out of all rows and becomes `x_held_out`, as
            in the gap splits of Foong et al. (2019), arXiv:1909.00719; `wave` has a gap of its own.
        test_fraction: the part of the rows to test on, where no split is given or published.
        validation_fraction: the part of the training rows to set aside for tuning, where no validation rows are
            given or published.
        splits: published row numbers, as `read_splits` takes them; rows of a TFDS set are counted over train,
            validation and test in turn.
        image: True wants images, (row, height, width, channel); False flattens them to (row, feature); None takes
            the rows as they are. Images of uint8 stay uint8 unless they are flattened.
        image_size: side in pixels to resize the images of a TFDS set to; by default as they are, or 32 where
            they differ in size.
        data_dir: the TFDS folder; by default `$TFDS_DATA_DIR`.

    Returns:
        The data set.

    Raises:
        DataError: an unknown name, an unreadable file, values that cannot be used, too few rows, splits that
            overlap, more data than memory, or options that do not fit the data; the sentence says which and what
            to do.

    Example:
        >>> digits = load("digits", seed=0, rows=100, held_out_classes=(8, 9))
        >>> digits.x_train.shape, digits.num_classes, digits.x_held_out.shape
        ((100, 64), 8, (354, 64))
    """
    seed = operator.index(seed)
    if not 0 <= seed < 2**32:
        raise DataError(f"seed={seed}, but a whole number from 0 to 2³² - 1 is wanted")
    if not 0 < test_fraction < 1:
        raise DataError(f"test_fraction={test_fraction}, but a number between 0 and 1 is wanted, such as 0.2")
    if not 0 <= validation_fraction < 1:
        raise DataError(f"validation_fraction={validation_fraction}, but a number from 0 to below 1 is wanted")
    given = None if splits is None else read_splits(splits, seed=seed)
    raw = read(source, seed=seed, target=target, image_size=image_size, data_dir=data_dir)
    if image and raw.brightness is None:
        raise DataError(
            f"{raw.name} is tabular ({raw.x.shape[1]} features), but images were asked for, as the cnn "
            "needs them: use mlp or gp"
        )

    y = np.concatenate([part for _, part in raw.parts])
    task, reason = settle_task(raw, y, task)
    strata = None
    class_names: tuple[str, ...] = ()
    held_out_names: tuple[str, ...] = ()
    is_foreign, stretch = find_gap(raw, gap, held_out_classes)
    if task == "regression" and held_out_classes:
        raise DataError(f"{raw.name} is a regression and has no classes to hold out: drop held_out_classes")
    if task == "classification":
        labels, all_names = encode_labels(raw, y)
        held_out_labels = find_labels(raw.name, all_names, held_out_classes)
        is_foreign |= np.isin(labels, held_out_labels)
        kept = [label for label in range(len(all_names)) if label not in held_out_labels]
        class_names = tuple(all_names[label] for label in kept)
        held_out_names = tuple(all_names[label] for label in held_out_labels)
        strata = np.searchsorted(kept, labels)  # meaningless on held-out rows, where it is not read
    shared = share_out(raw, given, is_foreign, strata, class_names, test_fraction, validation_fraction, seed)
    train, validation, test = shared
    held_out = np.flatnonzero(is_foreign)
    if rows is not None:
        train = choose_rows(raw.name, "rows", train, rows, strata, seed)
    if test_rows is not None:
        test = choose_rows(raw.name, "test_rows", test, test_rows, None, seed)
        validation, held_out = (
            choose_rows(raw.name, "test_rows", part, min(test_rows, len(part)), None, seed) if len(part) else part
            for part in (validation, held_out)
        )
    if strata is not None:
        check_seen(raw.name, strata, train, np.concatenate([validation, test]), class_names)

    parts = {"train": train, "validation": validation, "test": test, "held_out": held_out}
    row_shape = raw.x.shape[1:]
    is_bytes = image is not False and raw.brightness == 255 and raw.x.dtype == np.uint8
    # Bytes are copied once where rows were chosen. Floats stay as float32, and a table's largest part passes through
    # three copies of float64 while it is scaled.
    largest, total = max(map(len, parts.values())), sum(map(len, parts.values()))
    passing = 24 * largest if raw.brightness is None else 0
    memory.require(
        math.prod(row_shape) * (total if is_bytes else 4 * total + passing),
        name=raw.name,
        advice="keep fewer rows (--rows, --test-rows)",
    )
    feature_loc, feature_scale = np.zeros(()), np.full((), 1.0 if is_bytes else raw.brightness or 1.0)
    notes = [*raw.notes, *([reason] if reason else [])]
    if raw.brightness is None:
        feature_loc, feature_scale = standardisation(_take(raw, train), name=raw.name, columns=raw.feature_names or ())
        notes += _constant_columns(raw, train)
    target_loc, target_scale = np.zeros(()), np.ones(())
    if strata is None:
        target_loc, target_scale = standardisation(y[train], name=raw.name, columns=("the target",))

    def inputs(chosen: np.ndarray) -> np.ndarray:
        x = _take(raw, chosen)
        if raw.brightness is None:
            return standardised(x, feature_loc, feature_scale, name=raw.name, columns=raw.feature_names)
        if not is_bytes:
            x = x.astype(np.float32)
            x /= np.float32(raw.brightness)  # in place: all of MNIST is 188 MB already
        return x if image is not False else x.reshape(len(x), math.prod(row_shape))

    def targets(chosen: np.ndarray) -> np.ndarray:
        if strata is not None:
            return strata[chosen].astype(np.int32)
        return standardised(y[chosen], target_loc, target_scale, name=raw.name, columns=("the target",))

    ready_x = {name: inputs(chosen) for name, chosen in parts.items()}
    ready_y = {name: targets(chosen) for name, chosen in parts.items()}
    return Dataset(
        name=raw.name,
        task=task,
        x_train=ready_x["train"],
        y_train=ready_y["train"],
        x_test=ready_x["test"],
        y_test=ready_y["test"],
        x_validation=ready_x["validation"],
        y_validation=ready_y["validation"],
        num_classes=None if strata is None else len(class_names),
        class_names=class_names,
        feature_names=raw.feature_names or (),
        image_shape=None if raw.brightness is None else (row_shape[0], row_shape[1], row_shape[2]),
        target_loc=float(target_loc),
        target_scale=float(target_scale),
        feature_loc=feature_loc,
        feature_scale=feature_scale,
        x_held_out=ready_x["held_out"] if len(held_out) else None,
        y_held_out=ready_y["held_out"] if len(held_out) and not held_out_names else None,
        held_out_names=held_out_names,
        gap=stretch,
        description=raw.description,
        curve=raw.curve,
        notes=tuple(notes),
    )


def read(
    source: str | os.PathLike[str] | Raw,
    *,
    seed: int,
    target: str | None = None,
    image_size: int | None = None,
    data_dir: str | os.PathLike[str] | None = None,
) -> Raw:
    """Read a source as it is, unsplit and unscaled; arguments and errors are those of `load`."""
    if isinstance(source, Raw):
        if target is not None:
            raise DataError(f"target {target!r} names a table's column, but arrays have their own y: drop it")
        if source.name in known():
            raise DataError(
                f"the arrays are named {source.name!r}, as a data set is already: pass arrays() another name"
            )
        return source
    name = os.fspath(source)
    if _is_file(name):
        path = as_path(name)
        if image_size is not None:
            raise DataError(f"image size {image_size} was asked for, but {path.name} is a file: resize it beforehand")
        return read_file(path, target=target)
    if target is not None and (name in BUNDLED or name in TFDS_NAMES):
        raise DataError(f"target {target!r} names a table's column, but {name} has its own target: drop it")
    if name in BUNDLED:
        if image_size is not None:
            raise DataError(f"image size {image_size} was asked for, but only TFDS sets are resized: drop it")
        return BUNDLED[name](seed)
    if is_tfds_source(name, data_dir=data_dir):
        return read_images(name, data_dir=data_dir, image_size=image_size)
    close = difflib.get_close_matches(name, known(), n=1)
    raise DataError(
        f"there is no data set {name!r}{f'; did you mean {close[0]}?' if close else ':'} "
        f"known are {', '.join(known())}, every other TFDS image set, or give a .npz, .csv or .parquet file"
    )


def is_tfds_source(name: str, *, data_dir: str | os.PathLike[str] | None = None) -> bool:
    """Whether a source is a TFDS set, prepared or not, and neither bundled nor a file."""
    if name in BUNDLED or _is_file(name):
        return False
    if name in TFDS_NAMES:
        return True
    from .tfds_catalogue import data_folder, is_known_to_tfds

    if not name or name != name.strip("/. ") or ".." in name:
        return False
    try:
        if (data_folder(data_dir) / name).is_dir():
            return True
    except OSError:  # too long a name, or a folder that may not be entered
        pass
    return is_known_to_tfds(name)


def _is_file(name: str) -> bool:
    return name not in BUNDLED and (Path(name).suffix.lower() in SUFFIXES or is_file(name))


def _take(raw: Raw, chosen: np.ndarray) -> np.ndarray:
    """The inputs of the chosen rows of all parts in turn; a whole part in order is not copied."""
    start = 0
    for part, _ in raw.parts:
        stop = start + len(part)
        if len(chosen) and chosen.min() >= start and chosen.max() < stop:
            whole = len(chosen) == stop - start and np.array_equal(chosen, np.arange(start, stop))
            return part if whole else part[chosen - start]
        start = stop
    rows = np.empty((len(chosen), *raw.x.shape[1:]), raw.x.dtype)
    start = 0
    for part, _ in raw.parts:
        inside = (chosen >= start) & (chosen < start + len(part))
        rows[inside] = part[chosen[inside] - start]
        start += len(part)
    return rows


def _constant_columns(raw: Raw, train: np.ndarray) -> list[str]:
    x = _take(raw, train)
    names = raw.feature_names or tuple(f"x{i}" for i in range(x.shape[1]))
    constant = [names[i] for i in np.flatnonzero(x.max(axis=0) == x.min(axis=0))]
    if not constant:
        return []
    more = f" and {len(constant) - 5} more" if len(constant) > 5 else ""
    return [f"Constant on the training rows, so of no use: {', '.join(constant[:5])}{more}."]
