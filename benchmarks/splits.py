"""Which rows to train on, what their labels are, and the scale they set."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence

import numpy as np

from .raw import DataError, Raw, Task
from .split_files import Splits, check_splits

__all__ = [
    "check_seen",
    "choose_rows",
    "encode_labels",
    "find_gap",
    "find_labels",
    "settle_task",
    "share_out",
    "split_rows",
    "standardisation",
    "standardised",
]

MOST_SDS = 1e12
"""How many sds of the training rows a value may lie from their mean: its square is far below what float32 holds."""


def settle_task(raw: Raw, y: np.ndarray, asked: Task | None) -> tuple[Task, str]:
    """The task that was asked for, that the source knows, or that its targets look like, and then why ("" else).

    Args:
        raw: the data, for its name and for what its source knows.
        y: (row,) all targets, numbers or text.
        asked: what the user said, if anything.

    Raises:
        DataError: no such task, one that the source contradicts, or text to regress on.
    """
    if asked not in (None, "classification", "regression"):
        raise DataError(f"task {asked!r} was asked for, but classification or regression is wanted")
    if raw.task is not None and asked not in (None, raw.task):
        raise DataError(f"{raw.name} is a {raw.task}, but {asked} was asked for: drop --task (task=)")
    is_text = y.dtype.kind == "U"
    if asked == "regression" and is_text:
        raise DataError(f"{raw.name}: the target is text ({str(y[0])!r}, ...), which no regression can predict")
    settled = asked or raw.task
    if settled is not None:
        return settled, ""
    num_distinct = len(np.unique(y))
    # Whole numbers may be counts or ages: labels are few, and each comes back (say, five times).
    if is_text:
        return "classification", f"The target is text with {num_distinct} values: taken for a classification."
    if np.array_equal(y, np.floor(y)) and num_distinct <= 50 and 5 * num_distinct <= len(y):
        return (
            "classification",
            f"The target has {num_distinct} whole-number values: taken for a classification, unless --task regression.",
        )
    why = f"{num_distinct} different numbers"
    return "regression", f"The target has {why}: taken for a regression, unless --task classification."


def encode_labels(raw: Raw, y: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels 0, 1, ... (row,) in the sorted order of the values, and the name of each (class,).

    Raises:
        DataError: a target that is no whole number, or only one class.
    """
    if raw.class_names is not None:
        return y, raw.class_names
    if y.dtype.kind == "f" and not (y == np.floor(y)).all():
        row = int(np.flatnonzero(y != np.floor(y))[0])
        raise DataError(
            f"{raw.name}: the target is {y[row]:g} in row {row} (counted from 0), but class labels are "
            "whole numbers or text: pass --task regression (task='regression') or relabel"
        )
    values, labels = np.unique(y, return_inverse=True)
    if len(values) < 2:
        raise DataError(f"{raw.name} has {len(values)} class ({values[0]}), but at least 2 are wanted")
    return labels, tuple(str(value if y.dtype.kind == "U" else int(value)) for value in values)


def find_labels(name: str, class_names: tuple[str, ...], classes: Sequence[int | str]) -> list[int]:
    """The labels, sorted, of the classes to hold out; where class names are words, a label is taken too.

    Raises:
        DataError: no such class, or fewer than two classes would be left.
    """
    # A file labelled 3, 5, 7 has a class "5" but no sixth class: a number is a position only among words.
    by_position = not all(name.removeprefix("-").isdecimal() for name in class_names)
    labels = []
    for wanted in classes:
        if str(wanted) in class_names:
            labels.append(class_names.index(str(wanted)))
        elif by_position and not isinstance(wanted, str) and 0 <= wanted < len(class_names):
            labels.append(int(wanted))
        else:
            raise DataError(f"{name} has no class {wanted!r} to hold out: its classes are {', '.join(class_names)}")
    num_left = len(class_names) - len(set(labels))
    if labels and num_left < 2:
        raise DataError(
            f"holding out {len(set(labels))} of the {len(class_names)} classes of {name} leaves {num_left}, "
            "but at least 2 are wanted: hold out fewer"
        )
    return sorted(set(labels))


def find_gap(
    raw: Raw, column: str | None, held_out_classes: Sequence[int | str]
) -> tuple[np.ndarray, tuple[str, float, float] | None]:
    """Which rows (row,) lie in the gap, and the gap as its column and two ends in the column's own unit.

    Args:
        raw: the data, which may have a gap of its own.
        column: whose middle third is left out; None for the data's own gap, or none.
        held_out_classes: classes that are held out as well, which cannot be.

    Raises:
        DataError: images, an unknown column, one whose middle third is empty, or held-out classes.
    """
    names = raw.feature_names or ()
    number, low, high = raw.gap or (0, 0.0, 0.0)
    if column is not None:
        if raw.brightness is not None:
            raise DataError(f"a gap in {column!r} was asked for, but {raw.name} holds images: hold classes out instead")
        if held_out_classes:
            raise DataError("a gap and held-out classes were asked for, which needs a fit for each: run them apart")
        if column not in names:
            raise DataError(
                f"{raw.name} has no column {column!r} to leave a gap in: its columns are {', '.join(names)}"
            )
        number = names.index(column)
    values = np.concatenate([part[:, number] for part, _ in raw.parts]) if raw.brightness is None else np.zeros(0)
    if column is not None and (raw.gap is None or raw.gap[0] != number):
        low, high = (float(q) for q in np.quantile(values, [1 / 3, 2 / 3]))
    elif raw.gap is None:
        return np.zeros(sum(len(part) for part, _ in raw.parts), bool), None
    inside = (values > low) & (values < high)
    if not inside.any():
        raise DataError(
            f"{raw.name}: no row lies in the middle third of {column!r} ({low:g} to {high:g}), which repeats a few "
            "values: choose another column"
        )
    return inside, (names[number], low, high)


def share_out(
    raw: Raw,
    given: Mapping[str, np.ndarray] | None,
    is_foreign: np.ndarray,
    strata: np.ndarray | None,
    class_names: tuple[str, ...],
    test_fraction: float,
    validation_fraction: float,
    seed: int,
) -> Splits:
    """The row numbers of each part: as given, as published, or by a stratified shuffle.

    Args:
        raw: the data.
        given: row numbers by part, counted over all parts of the data in turn; None where none are given.
        is_foreign: (row,) whether a row is held out of every part.
        strata: (row,) labels of all rows; None for a regression.
        class_names: (class,) names; empty for a regression.
        test_fraction: the part of the rows to test on, where nothing else says.
        validation_fraction: the part of the training rows to validate on, where nothing else says.
        seed: fixes the shuffle.

    Raises:
        DataError: splits that cannot be, or too few rows.
    """
    none = np.zeros(0, np.int64)
    if given is not None:
        parts = check_splits(given, len(is_foreign), raw.name)
        train, validation, test = (part[~is_foreign[part]] for part in parts)
        for name, part in (("train", train), ("test", test)):
            if not len(part):
                raise DataError(f"{raw.name}: no {name} row of the splits is left beside the held-out ones")
    elif raw.x_test is not None:
        sizes = [len(raw.x), 0 if raw.x_validation is None else len(raw.x_validation)]
        whole = np.split(np.arange(len(is_foreign)), np.cumsum(sizes))
        train, validation, test = (part[~is_foreign[part]] for part in whole)
    else:
        candidates = np.flatnonzero(~is_foreign)
        train, test = split_rows(raw.name, candidates, strata, class_names, test_fraction, seed)
        validation = none
    if validation_fraction and not len(validation):
        train, validation = split_rows(raw.name, train, strata, class_names, validation_fraction, seed)
    return Splits(train, validation, test)


def split_rows(
    name: str,
    candidates: np.ndarray,
    strata: np.ndarray | None,
    class_names: tuple[str, ...],
    test_fraction: float,
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Training and test rows out of `candidates`: every class in both, in proportion, or simply shuffled.

    Args:
        name: what to call the data in a sentence.
        candidates: (candidate,) row numbers to share out.
        strata: (row,) labels of all rows; None for a regression.
        class_names: (class,) names; empty for a regression.
        test_fraction: the part that goes to the test rows, rounded up.
        seed: fixes the shuffle.

    Raises:
        DataError: too few rows for every class to be in both.
    """
    from sklearn.model_selection import train_test_split

    num_test = math.ceil(test_fraction * len(candidates))
    least = 2
    if strata is not None:
        # A declared class without any row, as emnist/letters has, is nobody's loss.
        labels, counts = np.unique(strata[candidates], return_counts=True)
        least = max(len(labels), 2)
        if counts.min(initial=2) < 2:
            raise DataError(
                f"{name}: class {class_names[labels[counts.argmin()]]} has 1 row, but 2 are wanted, "
                "one to train and one to test on: remove the class or add rows (or, for numbers to predict, "
                "--task regression)"
            )
    if num_test < least or len(candidates) - num_test < least:
        raise DataError(
            f"{name}: {len(candidates)} rows at a fraction of {test_fraction} give {len(candidates) - num_test} to "
            f"train and {num_test} to test on, but at least {least} of each are wanted: add rows or change the fraction"
        )
    train, test = train_test_split(
        candidates,
        test_size=num_test,
        random_state=seed,
        stratify=None if strata is None else strata[candidates],
    )
    return train, test


def check_seen(
    name: str, labels: np.ndarray, train: np.ndarray, others: np.ndarray, class_names: Sequence[str]
) -> None:
    """Raise where a label is scored on that no training row has: no model could ever predict it.

    Args:
        name: what to call the data in the sentence.
        labels: (row,) labels of all rows.
        train: (row,) numbers of the training rows.
        others: (row,) numbers of the validation and test rows.
        class_names: (class,) names.
    """
    unseen = np.setdiff1d(labels[others], labels[train])
    if len(unseen):
        label = class_names[int(unseen[0])]
        count = int((labels[others] == unseen[0]).sum())
        raise DataError(
            f"{name}: class {label} is in {count} of the rows to score and in no training row: give it training rows, "
            f"or hold it out as foreign (--ood held_out:{label})"
        )


def choose_rows(
    name: str, option: str, candidates: np.ndarray, number: int, strata: np.ndarray | None, seed: int
) -> np.ndarray:
    """The first `number` of a seeded shuffle of `candidates`, dealt out class by class where given `strata`.

    Args:
        name: what to call the data in a sentence.
        option: "rows" or "test_rows", likewise.
        candidates: (candidate,) row numbers to choose from.
        number: how many to choose.
        strata: (row,) labels of all rows, for an equal number of each class as far as there are; None for
            any rows.
        seed: fixes the shuffle; a smaller number is then a part of a larger one.

    Raises:
        DataError: more than there are, or fewer than one of each class.
    """
    try:
        number = operator.index(number)
    except TypeError:
        raise DataError(f"{option}={number!r}, but a whole number is wanted") from None
    own_strata = np.zeros(len(candidates), np.int64) if strata is None else strata[candidates]
    least = len(np.unique(own_strata))
    if not least <= number <= len(candidates):
        kind = "test" if option == "test_rows" else "training"
        classes = "" if strata is None else f" in {least} classes"
        raise DataError(
            f"{option}={number}, but {name} has {len(candidates)} {kind} rows{classes}: "
            f"ask for {least} to {len(candidates)}"
        )
    order = np.random.default_rng([seed, *option.encode()]).permutation(len(candidates))
    turn = np.empty(len(order), np.int64)
    for label in np.unique(own_strata):
        own = np.flatnonzero(own_strata[order] == label)
        turn[own] = np.arange(len(own))
    return candidates[order[np.argsort(turn, kind="stable")[:number]]]


def standardisation(values: np.ndarray, *, name: str, columns: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and sd of each column of (row, ...), in float64; a constant column gets its own value and 1.

    Args:
        values: (row,) or (row, column).
        name: what to call the data in a sentence.
        columns: (column,) names, or one.

    Raises:
        DataError: a column so large or so small that float64 holds no sd of it.
    """
    values = values.astype(np.float64)
    # By range: rounding leaves a constant column of 0.1 a tiny sd, which would blow up the test rows.
    constant = values.max(axis=0) == values.min(axis=0)
    with np.errstate(over="ignore", invalid="ignore"):
        loc = np.where(constant, values[0], values.mean(axis=0))
        scale = np.where(constant, 1.0, values.std(axis=0))
    bad = ~(np.isfinite(scale) & (scale >= np.finfo(np.float64).tiny) & np.isfinite(loc))
    if bad.any():
        column = columns[int(np.flatnonzero(np.atleast_1d(bad))[0])]
        raise DataError(f"{name}: {column!r} is too large or too small in size to be standardised: change its unit")
    return loc, scale


def standardised(
    values: np.ndarray, loc: np.ndarray, scale: np.ndarray, *, name: str, columns: Sequence[str] | None
) -> np.ndarray:
    """Values less their mean, in sds, as float32.

    Args:
        values: (row,) or (row, column).
        loc: mean of each column on the training rows.
        scale: its sd there.
        name: what to call the data in a sentence.
        columns: (column,) names, or one; numbered where None.

    Raises:
        DataError: a value so far from the training rows that a model's output there would not be finite.
    """
    with np.errstate(over="ignore"):
        distances = (values - loc) / scale
    # by the ends: a mask of all would be one more copy of them
    if distances.size and not (distances.max() <= MOST_SDS and distances.min() >= -MOST_SDS):
        row, *rest = map(int, np.argwhere(~(np.abs(distances) <= MOST_SDS))[0])
        column = columns[rest[0] if rest else 0] if columns else f"x{rest[0]}"
        raise DataError(
            f"{name}: {column!r} is {values[(row, *rest)]:g} in a row that is scored, more than {MOST_SDS:g} sds of "
            "the training rows from their mean: change its unit, or remove such rows"
        )
    return distances.astype(np.float32)
