"""Data by name or from a file: split, scaled and ready for a model, with what a report must say about it.

NumPy only at import, so that `hmcvi --help` stays quick; scikit-learn, pandas and TFDS load when they are
needed.
"""

from __future__ import annotations

import difflib
import hashlib
import math
import operator
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from .bundled import BUNDLED
from .files import SUFFIXES, read_file
from .raw import DataError, Raw, Task, check_arrays
from .splits import choose_rows, encode_labels, find_labels, settle_task, split_rows, standardisation
from .tfds_images import DESCRIPTIONS as TFDS_NAMES
from .tfds_images import read_images

__all__ = ["DataError", "Dataset", "check_arrays", "known", "load"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Dataset:
    """One data set, split and scaled; every number it was scaled by was learned on the training rows.

    Attributes:
        name: the name it was asked for by, or the file's own.
        task: "classification" or "regression".
        x_train: (row, feature) float32, or (row, height, width, channel) where images were asked for.
        y_train: (row,) int32 labels from 0, or float32 targets with mean 0 and sd 1.
        x_test: like `x_train`.
        y_test: like `y_train`.
        num_classes: how many labels there are; None for regression.
        class_names: (class,) names in label order; empty for regression.
        feature_names: (feature,) column names; empty for images.
        image_shape: (height, width, channel), also where images come flattened; None for a table.
        target_loc: a target in its own unit is `y * target_scale + target_loc`; 0 for classification.
        target_scale: see `target_loc`; 1 for classification.
        feature_loc: inputs in their own unit are `x * feature_scale + feature_loc`; (feature,), or () for
            images.
        feature_scale: see `feature_loc`; 1 for a column that is constant on the training rows.
        x_held_out: inputs of the classes that were left out, like `x_test`; None where none were.
        held_out_names: (class,) names of the classes that were left out.
        description: one sentence on what the rows are.
    """

    name: str
    task: Task
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    num_classes: int | None
    class_names: tuple[str, ...]
    feature_names: tuple[str, ...]
    image_shape: tuple[int, int, int] | None
    target_loc: float
    target_scale: float
    feature_loc: np.ndarray
    feature_scale: np.ndarray
    x_held_out: np.ndarray | None
    held_out_names: tuple[str, ...]
    description: str

    @cached_property
    def data_hash(self) -> str:
        """SHA-256 over the bytes, shapes and dtypes of all rows: equal where a run saw the same data."""
        digest = hashlib.sha256()
        for field in ("x_train", "y_train", "x_test", "y_test", "x_held_out"):
            array = getattr(self, field)
            digest.update(f"{field} {None if array is None else (array.dtype.str, array.shape)}\n".encode())
            if array is not None:
                digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


def known() -> list[str]:
    """The names that `load` takes besides files, in alphabetical order.

    Example:
        >>> known()
        ['breast_cancer', 'cifar10', 'diabetes', 'digits', 'fashion_mnist', 'mnist', 'wave', 'wine']
    """
    return sorted({**BUNDLED, **TFDS_NAMES})


def load(
    name_or_file: str | os.PathLike[str],
    *,
    seed: int,
    rows: int | None = None,
    test_rows: int | None = None,
    target: str | None = None,
    task: Task | None = None,
    held_out_classes: Sequence[int | str] = (),
    test_fraction: float = 0.2,
    image: bool = False,
    data_dir: str | os.PathLike[str] | None = None,
) -> Dataset:
    """Load a data set by name, or from a `.npz`, `.csv` or `.parquet` file, split and scaled.

    Tables and targets are standardised by the mean and sd of the training rows (those left after `rows`),
    images divided by their full brightness. The split is stratified by class; MNIST, Fashion-MNIST and
    CIFAR-10 keep their published one, and `wave` is drawn anew from each seed.

    Args:
        name_or_file: one of `known()`, or a file's path.
        seed: fixes the split, the choice of rows and the draws of `wave`; from 0 to 2³² - 1.
        rows: how many training rows to keep, as many of each class as there are; all by default. The rows
            for a smaller number are among those for a larger one.
        test_rows: how many test rows to keep, and held-out ones at most; all by default.
        target: the target column of a table; for `.csv` and `.parquet`, where it is required.
        task: what a file is for. By default classification where the targets are text, or whole numbers with
            at most 50 distinct values and five rows for each; else regression.
        held_out_classes: labels (or class names) to take out of training and test rows; their inputs become
            `x_held_out`, and the labels that remain are renumbered from 0 in their old order.
        test_fraction: the part of the rows to test on, where the split is not published.
        image: keep images as (row, height, width, channel) instead of flattening them to (row, feature).
        data_dir: the TFDS folder; by default `$TFDS_DATA_DIR`.

    Returns:
        The data set.

    Raises:
        DataError: an unknown name, an unreadable file, values that cannot be used, too few rows, or options
            that do not fit the data; the sentence says which and what to do.

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

    raw = _read(name_or_file, seed=seed, target=target, data_dir=data_dir)
    if image and raw.brightness is None:
        raise DataError(
            f"{raw.name} is tabular ({raw.x.shape[1]} features), but images were asked for, as the cnn "
            "needs them: use mlp or gp"
        )
    x, y = raw.x, raw.y
    if raw.x_test is not None and raw.y_test is not None:
        x, y = np.concatenate([x, raw.x_test]), np.concatenate([y, raw.y_test])
    task = settle_task(raw, y, task)
    if task == "regression" and held_out_classes:
        raise DataError(f"{raw.name} is a regression and has no classes to hold out: drop held_out_classes")

    strata = None
    class_names: tuple[str, ...] = ()
    held_out_names: tuple[str, ...] = ()
    candidates, held_out = np.arange(len(y)), np.arange(0)
    if task == "classification":
        labels, all_names = encode_labels(raw, y)
        held_out_labels = find_labels(raw.name, all_names, held_out_classes)
        is_held_out = np.isin(labels, held_out_labels)
        candidates, held_out = np.flatnonzero(~is_held_out), np.flatnonzero(is_held_out)
        kept = [label for label in range(len(all_names)) if label not in held_out_labels]
        class_names = tuple(all_names[label] for label in kept)
        held_out_names = tuple(all_names[label] for label in held_out_labels)
        strata = np.searchsorted(kept, labels)  # meaningless on held-out rows, where it is not read

    if raw.x_test is not None:
        train, test = candidates[candidates < len(raw.x)], candidates[candidates >= len(raw.x)]
    else:
        train, test = split_rows(raw.name, candidates, strata, class_names, test_fraction, seed)
    if rows is not None:
        train = choose_rows(raw.name, "rows", train, rows, strata, seed)
    if test_rows is not None:
        test = choose_rows(raw.name, "test_rows", test, test_rows, None, seed)
        if held_out_names:
            number = min(test_rows, len(held_out))
            held_out = choose_rows(raw.name, "test_rows", held_out, number, None, seed)

    if raw.brightness is not None:
        feature_loc, feature_scale = np.zeros(()), np.full((), raw.brightness)
    else:
        feature_loc, feature_scale = standardisation(x[train])
    target_loc, target_scale = np.zeros(()), np.ones(())
    if strata is None:
        target_loc, target_scale = standardisation(y[train])

    def inputs(chosen: np.ndarray) -> np.ndarray:
        if raw.brightness is None:
            return ((x[chosen] - feature_loc) / feature_scale).astype(np.float32)
        # float32 at once: by way of float64, all of CIFAR-10 would take another 1.5 GB
        bright = x[chosen].astype(np.float32) / np.float32(raw.brightness)
        return bright if image else bright.reshape(len(bright), math.prod(bright.shape[1:]))

    def targets(chosen: np.ndarray) -> np.ndarray:
        if strata is not None:
            return strata[chosen].astype(np.int32)
        return ((y[chosen] - target_loc) / target_scale).astype(np.float32)

    return Dataset(
        name=raw.name,
        task=task,
        x_train=inputs(train),
        y_train=targets(train),
        x_test=inputs(test),
        y_test=targets(test),
        num_classes=None if strata is None else len(class_names),
        class_names=class_names,
        feature_names=raw.feature_names or (),
        image_shape=None if raw.brightness is None else (x.shape[1], x.shape[2], x.shape[3]),
        target_loc=float(target_loc),
        target_scale=float(target_scale),
        feature_loc=feature_loc,
        feature_scale=feature_scale,
        x_held_out=inputs(held_out) if held_out_names else None,
        held_out_names=held_out_names,
        description=raw.description,
    )


def _read(
    name_or_file: str | os.PathLike[str],
    *,
    seed: int,
    target: str | None,
    data_dir: str | os.PathLike[str] | None,
) -> Raw:
    name = os.fspath(name_or_file)
    if name in known():
        if target is not None:
            raise DataError(f"target={target!r} names a table's column, but {name} has its own target: drop target")
        return BUNDLED[name](seed) if name in BUNDLED else read_images(name, data_dir=data_dir)
    path = Path(name).expanduser()
    if path.suffix.lower() in SUFFIXES or path.exists():
        return read_file(path, target=target)
    close = difflib.get_close_matches(name, known(), n=1)
    raise DataError(
        f"there is no data set {name!r}{f'; did you mean {close[0]}?' if close else ':'} "
        f"known are {', '.join(known())}, or give a .npz, .csv or .parquet file"
    )
