"""Published splits: which rows to train, validate and test on, read from files of row numbers."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .npz import read_npz
from .paths import as_path, is_file, require_file
from .raw import DataError

__all__ = ["Splits", "check_splits", "read_splits"]

PARTS = ("train", "validation", "test")


class Splits(NamedTuple):
    """Row numbers, counted from 0 in the source's own order; `validation` may be empty."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def read_splits(source: str | os.PathLike[str] | Mapping[str, Any], *, seed: int) -> dict[str, np.ndarray]:
    """Read row numbers by part, not yet checked against the data.

    Args:
        source: one of
            an `.npz` with whole-number arrays `train` and `test`, and `validation` if there is one;
            a `.json` object of lists with the same names;
            a pattern with `{part}` in it for text files of one row number a line, as the UCI regression splits
            of Hernández-Lobato & Adams (2015) have them: `index_{part}_{seed}.txt`;
            a mapping of the same names to arrays.
        seed: takes the place of `{seed}` in a file's name, so that each seed has its own split.

    Returns:
        The row numbers (row,) by part.

    Raises:
        DataError: no such file, a damaged one, or entries that are no whole numbers.

    Example:
        >>> read_splits({"train": [0, 1], "test": [2]}, seed=0)["train"]
        array([0, 1])
    """
    if isinstance(source, Mapping):
        return {name: _whole(f"splits[{name!r}]", rows) for name, rows in source.items()}
    name = os.fspath(source).replace("{seed}", str(seed))
    if "{part}" in name:
        files = {part: as_path(name.replace("{part}", part)) for part in PARTS}
        return {part: _read_text(file) for part, file in files.items() if part != "validation" or is_file(file)}
    path = as_path(name)
    if path.suffix.lower() not in (".npz", ".json"):
        raise DataError(
            f"splits {path} is no .npz and no .json file: give one with train and test in it, or a pattern of text "
            "files such as index_{part}_{seed}.txt"
        )
    require_file(path, "file of splits")
    if path.suffix.lower() == ".npz":
        parts = read_npz(path, ("train", "test"), None, example="train=train, test=test")
    else:
        parts = _read_json(path)
    return {part: _whole(f"{path.name}, {part}", rows) for part, rows in parts.items()}


def check_splits(parts: Mapping[str, np.ndarray], num_rows: int, name: str) -> Splits:
    """Return the parts of a data set, or raise where they cannot be parts of it.

    Args:
        parts: row numbers (row,) by part.
        num_rows: rows of the data set.
        name: what to call the data set in a sentence.

    Raises:
        DataError: an unknown or missing part, a row that is not there, one that comes twice, or parts that
            overlap; the sentence names the row.

    Example:
        >>> check_splits({"train": np.array([0, 1]), "test": np.array([1, 2])}, 3, "wine")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        hmcvi.benchmarks.raw.DataError: the splits of wine overlap: row 1 (one of 1) is in train and in test: ...
    """
    unknown = sorted(set(parts) - set(PARTS))
    if unknown:
        raise DataError(f"the splits of {name} have a part {unknown[0]!r}: train, test and validation are wanted")
    for part in ("train", "test"):
        if part not in parts or not len(parts[part]):
            raise DataError(f"the splits of {name} have no {part} rows: give row numbers for train and test")
    for part, rows in parts.items():
        if len(rows) and (rows.min() < 0 or rows.max() >= num_rows):
            bad = int(rows[(rows < 0) | (rows >= num_rows)][0])
            hint = " (are they counted from 1?)" if rows.min() == 1 and rows.max() == num_rows else ""
            raise DataError(
                f"the splits of {name} have row {bad} in {part}, but its {num_rows:,} rows are counted from 0 to "
                f"{num_rows - 1:,}{hint}"
            )
        values, counts = np.unique(rows, return_counts=True)
        if (counts > 1).any():
            raise DataError(f"the splits of {name} have row {values[counts > 1][0]} twice in {part}: give it once")
    for i, first in enumerate(PARTS):
        for second in PARTS[i + 1 :]:
            shared = np.intersect1d(parts.get(first, ()), parts.get(second, ()))
            if len(shared):
                raise DataError(
                    f"the splits of {name} overlap: row {int(shared[0])} (one of {len(shared)}) is in {first} and "
                    f"in {second}: give every row to one part"
                )
    return Splits(*(parts.get(part, np.zeros(0, np.int64)) for part in PARTS))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        parts = json.loads(path.read_text())
    except (ValueError, OSError, RecursionError) as error:
        raise DataError(f"splits {path.name} cannot be read as .json ({error}): check the file") from error
    if not isinstance(parts, dict):
        raise DataError(f'splits {path.name} holds no object: {{"train": [...], "test": [...]}} is wanted')
    return parts


def _read_text(path: Path) -> np.ndarray:
    require_file(path, "file of splits")
    try:
        lines = path.read_text().split()
    except (OSError, ValueError) as error:
        raise DataError(f"splits {path.name} cannot be read ({error}): one row number a line is wanted") from error
    try:
        numbers = [float(line) for line in lines]  # np.savetxt writes 12 as 1.2e+01
    except ValueError as error:
        raise DataError(f"splits {path.name}: {error}, but one row number a line is wanted") from error
    return _whole(path.name, numbers)


def _whole(what: str, rows: Sequence[Any] | np.ndarray) -> np.ndarray:
    try:
        array = np.asarray(rows)
    except ValueError:  # lists of unequal lengths
        raise DataError(f"{what} holds lists within lists: a list of whole row numbers is wanted") from None
    is_whole = array.ndim == 1 and array.dtype.kind in "iuf" and np.array_equal(array, np.floor(array))
    if array.size and not is_whole:
        raise DataError(f"{what} holds {array.dtype} of shape {array.shape}: a list of whole row numbers is wanted")
    if array.size and not np.abs(array).max() < 2**53:  # beyond, and for infinity, a float is no row number
        raise DataError(f"{what} holds {np.abs(array).max():g}: a list of whole row numbers is wanted")
    return array.astype(np.int64).reshape(-1)
