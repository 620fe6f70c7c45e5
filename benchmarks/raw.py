"""What every source of data hands to `datasets.load`: unscaled arrays with their names, checked.

Bundled sets, files and TFDS images all become a `Raw`; splitting, scaling and class bookkeeping happen once,
after it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

__all__ = ["DataError", "Raw", "Task", "arrays", "check_arrays"]

MOST_CHANNELS = 4
"""Channels that an image may have: more is a table, or an image with its axes in another order."""

Task = Literal["classification", "regression"]


class DataError(ValueError):
    """Data, or a request for data, that cannot be used; the sentence says what to do about it."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Raw:
    """One data set as its source has it: unscaled and, unless its split is published, not yet split.

    `x` is (row, feature) for a table or (row, height, width, channel) for images; `y` is (row,), labels or
    targets. `x_test`, `y_test` are set only where the split belongs to the data set (MNIST, say), and
    `x_validation`, `y_validation` only where that split has validation rows. `brightness` is the number that
    images are divided by to reach 0..1; None marks a table, whose columns are standardised instead. `gap` is
    a column's number and the two ends of a stretch of it that no row may be trained or tested on: its rows
    are foreign. `notes` are sentences that a report must print, such as that images were resized. `curve` is the
    targets' true mean as a function of the inputs, where it is known.
    """

    name: str
    x: np.ndarray
    y: np.ndarray
    description: str
    x_test: np.ndarray | None = None
    y_test: np.ndarray | None = None
    x_validation: np.ndarray | None = None
    y_validation: np.ndarray | None = None
    task: Task | None = None
    class_names: tuple[str, ...] | None = None
    feature_names: tuple[str, ...] | None = None
    brightness: float | None = None
    gap: tuple[int, float, float] | None = None
    notes: tuple[str, ...] = ()
    curve: Callable[[np.ndarray], np.ndarray] | None = None

    @property
    def parts(self) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
        """Inputs and targets of the published parts, in the order in which rows are counted: train first."""
        pairs = ((self.x, self.y), (self.x_validation, self.y_validation), (self.x_test, self.y_test))
        return tuple((x, y) for x, y in pairs if x is not None and y is not None)


def arrays(
    x: Any,
    y: Any,
    *,
    x_test: Any = None,
    y_test: Any = None,
    name: str = "arrays",
    task: Task | None = None,
    feature_names: Sequence[str] | None = None,
) -> Raw:
    """NumPy, JAX or other arrays as a source for `datasets.load` and `Experiment(data=...)`.

    Args:
        x: inputs, (row, feature), or images (row, height, width) or (row, height, width, channel) of uint8 or of
            brightness from 0 to 1.
        y: labels or targets, (row,), numbers or text.
        x_test: test inputs like `x`, where the split is made already; by default the rows are split by seed.
        y_test: their targets, like `y`.
        name: what to call the data in tables and file names.
        task: "classification" or "regression"; inferred where None, and said.
        feature_names: (feature,) column names; x0, x1, ... by default.

    Raises:
        DataError: arrays that cannot be learned from, or a test part that does not match.

    Example:
        >>> raw = arrays(np.arange(12.0).reshape(6, 2), np.array([0, 1, 0, 1, 0, 1]), name="toy")
        >>> raw.feature_names
        ('x0', 'x1')
    """
    if feature_names is None and hasattr(x, "columns"):  # of a pandas DataFrame
        feature_names = tuple(str(column) for column in x.columns)
    if not isinstance(name, str) or not name.strip() or not name.isprintable():
        raise DataError(f"the arrays are named {name!r}, but a few letters are wanted: they go into the folder's name")
    parts = []
    for what, given_x, given_y in (("", x, y), ("_test", x_test, y_test)):
        if given_x is None and given_y is None and what:
            continue
        if given_x is None or given_y is None:
            raise DataError(f"{name}: only one of x{what} and y{what} was given: give both or neither")
        part_x, part_y = _as_array(f"{name}: x{what}", given_x), _as_array(f"{name}: y{what}", given_y)
        part_x = part_x[..., None] if part_x.ndim == 3 else part_x
        if part_x.ndim not in (1, 2, 4):  # a vector has a sentence of its own in check_arrays
            raise DataError(
                f"{name}: x{what} has shape {part_x.shape}, but (row, feature), (row, height, width) or "
                "(row, height, width, channel) is wanted: reshape it"
            )
        if part_y.dtype.kind == "O" and all(isinstance(value, str) for value in part_y.ravel()):
            part_y = part_y.astype(str)
        check_arrays(part_x, part_y, source=name + what)
        is_image = part_x.ndim == 4
        if is_image and part_x.shape[3] > MOST_CHANNELS:
            hint = ""
            if part_x.shape[1] <= MOST_CHANNELS:
                hint = f": it looks like (row, channel, height, width), so pass x{what}.transpose(0, 2, 3, 1)"
            raise DataError(
                f"{name}: x{what} has shape {part_x.shape}, but (row, height, width, channel) with at most "
                f"{MOST_CHANNELS} channels is wanted{hint or ': reshape it'}"
            )
        if is_image and part_x.dtype != np.uint8 and (part_x.min() < 0 or part_x.max() > 1):
            raise DataError(
                f"{name}: x{what} holds images of dtype {part_x.dtype} with values from {part_x.min():g} to "
                f"{part_x.max():g}, but uint8, or brightness from 0 to 1, is wanted: convert it"
            )
        parts.append((part_x, part_y))
    (x, y), (x_test, y_test) = parts[0], parts[1] if len(parts) > 1 else (None, None)
    if x_test is not None and (x_test.shape[1:] != x.shape[1:] or x_test.dtype != x.dtype):
        raise DataError(
            f"{name}: x_test has rows of shape {x_test.shape[1:]} and dtype {x_test.dtype}, but x has "
            f"{x.shape[1:]} and {x.dtype}: bring both into one form"
        )
    if y_test is not None and y_test.dtype.kind != y.dtype.kind and "U" in (y_test.dtype.kind, y.dtype.kind):
        raise DataError(f"{name}: y holds {y.dtype} and y_test {y_test.dtype}: bring both into one form")
    is_table = x.ndim == 2
    columns = tuple(feature_names or (f"x{i}" for i in range(x.shape[1]))) if is_table else None
    if columns is not None and len(columns) != x.shape[1]:
        raise DataError(f"{name}: {len(columns)} feature names were given for {x.shape[1]} columns: give one for each")
    brightness = None if is_table else 255.0 if x.dtype == np.uint8 else 1.0
    return Raw(
        name=name,
        x=x,
        y=y,
        x_test=x_test,
        y_test=y_test,
        task=task,
        feature_names=columns,
        brightness=brightness,
        description=f"{len(x)} rows from {name}, {_kind(x)}.",
    )


def _as_array(what: str, given: Any) -> np.ndarray:
    try:
        array = np.asarray(given)
    except ValueError:  # lists of unequal lengths
        raise DataError(f"{what} holds rows of unequal lengths: give each row as many values") from None
    if np.ma.is_masked(given):
        raise DataError(f"{what} has masked values: remove those rows, or fill the values in")
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        with np.errstate(over="ignore"):
            return array.astype(np.float64)  # what that cannot hold is infinite, and refused as such
    return array


def _kind(x: np.ndarray) -> str:
    """What inputs were taken for, such as "12x12 colour images"."""
    if x.ndim == 2:
        return f"{x.shape[1]} feature{'s' if x.shape[1] > 1 else ''}"
    colour = {1: "grey ", 3: "colour "}.get(x.shape[3], "")
    return f"{x.shape[1]}x{x.shape[2]} {colour}images" + ("" if colour else f" of {x.shape[3]} channels")


def check_arrays(
    x: np.ndarray, y: np.ndarray, *, source: str = "data", feature_names: Sequence[str] | None = None
) -> None:
    """Raise unless inputs and targets can be learned from.

    Args:
        x: inputs, (row, feature...), numbers.
        y: labels or targets, (row,), numbers or text.
        source: what to call the arrays in the sentence, such as a file's name.
        feature_names: (feature,) column names, so that a bad column is called by its name.

    Raises:
        DataError: an empty array, unequal lengths, a `y` that is not (row,), entries that are not real
            numbers, and NaN or infinity, with the array and the first row (counted from 0) that holds one.

    Example:
        >>> check_arrays(np.zeros((3, 2)), np.zeros((3, 1)))
        Traceback (most recent call last):
        ...
        hmcvi.benchmarks.raw.DataError: data: y has shape (3, 1), but one value a row is wanted: pass y[:, 0]
    """
    if y.ndim == 2 and y.shape[1] == 1:
        raise DataError(f"{source}: y has shape {y.shape}, but one value a row is wanted: pass y[:, 0]")
    if y.ndim != 1:
        raise DataError(
            f"{source}: y has shape {y.shape}, but (row,) is wanted: pass one label or target a row "
            "(for one-hot rows, y.argmax(axis=1))"
        )
    if x.ndim < 2:
        raise DataError(
            f"{source}: x has shape {x.shape}, but (row, feature) is wanted: for one feature pass x[:, None]"
        )
    if len(x) != len(y):
        raise DataError(f"{source}: x has {len(x)} rows and y has {len(y)}: give every row one target")
    if x.size == 0:
        raise DataError(f"{source}: x is empty (shape {x.shape}): give at least a few rows and one feature")
    if x.dtype.kind not in "fiub":
        raise DataError(f"{source}: x has dtype {x.dtype}, but real numbers are wanted: convert it first")
    if y.dtype.kind not in "fiubU":
        raise DataError(f"{source}: y has dtype {y.dtype}, but real numbers or text are wanted: convert it first")
    for array_name, array in (("x", x), ("y", y)):
        if array.dtype.kind != "f" or np.isfinite(array).all():
            continue
        row, *rest = (int(i) for i in np.argwhere(~np.isfinite(array))[0])
        where = f", column {feature_names[rest[0]]!r}" if rest and feature_names is not None else ""
        where = where or (f", index {tuple(rest)}" if rest else "")
        raise DataError(
            f"{source}: {array_name} holds {array[(row, *rest)]} in row {row}{where} (counted from 0): "
            "remove or fill in such rows"
        )
