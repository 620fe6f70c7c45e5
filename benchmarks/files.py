"""The user's own data: `.npz`, `.csv` and `.parquet` files read into a `Raw`.

Nothing here unpickles: an array file is read with `allow_pickle=False`, because a pickle runs code.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from . import memory
from .npz import FEWER_ROWS, damaged, read_npz
from .paths import require_file
from .raw import DataError, Raw, arrays, check_arrays

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["SUFFIXES", "read_columns", "read_file", "read_inputs"]

SUFFIXES = (".npz", ".csv", ".parquet")

COPIES_OF_CSV = 5
COPIES_OF_PARQUET = 7
"""Peak memory of reading a file over the size of its values as arrays or float64 (measured at 1.2, 4.7 and 6.7)."""

SAMPLE_BYTES = 2**16
"""Bytes at the head of a `.csv` from which its number of values is estimated."""


def read_file(path: Path, *, target: str | None = None) -> Raw:
    """Read one file of rows.

    Args:
        path: a `.npz` with arrays `x` (row, feature), (row, height, width) or (row, height, width, channel),
            and `y` (row,), and `x_test`, `y_test` where the split is published; or a `.csv` or `.parquet`
            table of numbers with one named target column. Three- and four-dimensional `x` are images: uint8,
            or floats in 0..1.
        target: the target column's name; for tables only, where it is required.

    Returns:
        The rows as they are in the file, text labels as text, each value checked.

    Raises:
        DataError: the file is absent, damaged, pickled or of another kind; `target` is missing or unknown; a
            feature is text, missing or not finite.

    Example:
        >>> read_file(Path("houses.txt"))
        Traceback (most recent call last):
        ...
        hmcvi.benchmarks.raw.DataError: houses.txt is not a .npz, .csv or .parquet file: save it as one
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise DataError(f"{path} is not a .npz, .csv or .parquet file: save it as one")
    require_file(path)
    if suffix == ".npz":
        if target is not None:
            raise DataError(f"target {target!r} names a table's column, but {path.name} holds x and y: drop it")
        return _read_npz(path)
    return _read_table(path, target)


def read_columns(path: Path, feature_names: Sequence[str]) -> np.ndarray:
    """Read inputs alone, to be foreign to a table: no target is wanted.

    Args:
        path: a `.csv` or `.parquet` table with these columns, in any order and among others; or a `.npz` with an
            array `x` (row, feature).
        feature_names: (feature,) columns of the data set.

    Returns:
        The inputs, (row, feature), unscaled.

    Raises:
        DataError: an unreadable file, a missing column, or entries that are no numbers.
    """
    require_file(path)
    if path.suffix.lower() == ".npz":
        x = read_npz(path, ("x",), example="x=x")["x"]
        if x.ndim != 2 or x.shape[1] != len(feature_names):
            raise DataError(
                f"{path.name}: x has shape {x.shape}, but (row, {len(feature_names)}) is wanted, the columns "
                f"{', '.join(feature_names)}"
            )
    else:
        table = _checked_table(path)
        missing = [name for name in feature_names if name not in table.columns]
        if missing:
            raise DataError(
                f"{path.name} has no column {missing[0]!r}, which the training rows have: its columns are "
                f"{', '.join(table.columns)}"
            )
        x = np.column_stack([_feature(path, name, table[name]) for name in feature_names])
    check_arrays(x, np.zeros(len(x)), source=path.name, feature_names=feature_names)
    return x


def read_inputs(path: Path) -> Raw:
    """Read the array `x` of a `.npz` alone, images or a table, to be foreign to a data set; its `y` is zeros.

    Raises:
        DataError: as `read_file`.
    """
    require_file(path)
    x = read_npz(path, ("x",), example="x=x")["x"]
    return arrays(x, np.zeros(len(x)), name=path.name)


def _read_npz(path: Path) -> Raw:
    return arrays(**read_npz(path, ("x", "y"), ("x_test", "y_test"), example="x=x, y=y"), name=path.name)


def _read_table(path: Path, target: str | None) -> Raw:
    table = _checked_table(path)
    columns = list(table.columns)
    listed = ", ".join(columns)
    if target is None:
        raise DataError(f"{path.name} needs a target column: name it by --target (target= in Python), one of {listed}")
    if target not in columns:
        close = difflib.get_close_matches(target, columns, n=1)
        hint = f"did you mean {close[0]!r}? Its columns are" if close else "its columns are"
        if len(columns) == 1 and ";" in columns[0]:
            hint = "it seems to be separated by ; where commas are wanted, its one column being"
        raise DataError(f"{path.name} has no column {target!r} to predict: {hint} {listed}")
    nameless = [column for column in columns if column.startswith("Unnamed:")]
    if nameless:
        # A row number written by `to_csv` would be learned from: in a sorted file it gives the answer away.
        raise DataError(
            f"{path.name}: column {columns.index(nameless[0])} has no name, most often a row number that "
            "was saved with the table: remove it (to_csv(index=False)) or name it"
        )
    feature_names = tuple(column for column in columns if column != target)
    if not feature_names or table.empty:
        raise DataError(f"{path.name} has {len(feature_names)} feature columns and {len(table)} rows: give some")

    y = _target(path, target, table[target])
    x = np.column_stack([_feature(path, name, table[name]) for name in feature_names])
    check_arrays(x, y, source=path.name, feature_names=feature_names)
    return Raw(
        name=path.name,
        x=x,
        y=y,
        feature_names=feature_names,
        description=f"{len(x)} rows from {path.name}, target {target}.",
    )


def _checked_table(path: Path) -> pd.DataFrame:
    """The table as it is, with its columns' names as text."""
    try:
        memory.require(_table_bytes(path), name=path.name, advice=FEWER_ROWS)
        table = _load_table(path)
    except DataError:
        raise
    except Exception as error:  # on damaged files pandas and pyarrow raise whatever comes, KeyError and TypeError too
        raise DataError(damaged(path, error)) from error
    table.columns = [str(column) for column in table.columns]
    if not table.columns.is_unique:
        twice = table.columns[table.columns.duplicated()][0]
        raise DataError(f"{path.name} has two columns {twice!r}: rename one")
    return table


def _table_bytes(path: Path) -> float:
    """An estimate of the peak while the table is read, before it is."""
    if path.suffix.lower() == ".parquet":
        import pyarrow.parquet

        about = pyarrow.parquet.read_metadata(path)
        return COPIES_OF_PARQUET * 8 * about.num_rows * about.num_columns
    with path.open("rb") as file:
        head = file.read(SAMPLE_BYTES)
    values = head.count(b",") + head.count(b"\n") + 1
    return COPIES_OF_CSV * 8 * values * path.stat().st_size / max(len(head), 1)


def _load_table(path: Path) -> pd.DataFrame:
    import pandas as pd  # half a second that `hmcvi --help` need not wait for

    if path.suffix.lower() == ".parquet":
        return pd.read_parquet(path, engine="pyarrow")
    # In one piece: else pandas guesses a column's type chunk by chunk, and warns where the guesses differ.
    return pd.read_csv(path, low_memory=False)


def _feature(path: Path, name: str, column: pd.Series) -> np.ndarray:
    """One column as float64, or a sentence that names its first unusable entry."""
    import pandas as pd

    _check_present(path, name, column)
    if column.dtype.kind in "mM":
        raise DataError(f"{path.name}: column {name!r} holds dates or times: turn it into numbers first")
    values = pd.to_numeric(column.astype(object), errors="coerce")
    unreadable = np.flatnonzero(values.isna().to_numpy())
    if unreadable.size:
        row = int(unreadable[0])
        raise DataError(
            f"{path.name}: column {name!r} holds {str(column.iloc[row])!r} in row {row} (counted from 0), "
            "which is not a number: encode it as numbers or remove the column"
        )
    return values.to_numpy(dtype=np.float64)


def _target(path: Path, name: str, column: pd.Series) -> np.ndarray:
    """The target column as numbers where every entry is one, else as text labels."""
    import pandas as pd

    _check_present(path, name, column)
    if pd.api.types.is_numeric_dtype(column):
        return column.to_numpy(dtype=np.float64)
    unreadable = pd.to_numeric(column.astype(object), errors="coerce").isna().to_numpy()
    if 0 < unreadable.sum() < len(column) / 2:
        # Labels are words or numbers; a few words among numbers are mistakes, and would make a class for each number.
        row = int(np.flatnonzero(unreadable)[0])
        raise DataError(
            f"{path.name}: the target column {name!r} holds {str(column.iloc[row])!r} in row {row} (counted from 0), "
            "which is not a number as most of it is: mend or remove such rows"
        )
    return np.array([str(value) for value in column])


def _check_present(path: Path, name: str, column: pd.Series) -> None:
    missing = np.flatnonzero(column.isna().to_numpy())
    if missing.size:
        raise DataError(
            f"{path.name}: column {name!r} has no value in row {int(missing[0])} (counted from 0; "
            f"{missing.size} such rows; words such as NA and None count as missing): remove or fill in "
            "those rows"
        )
