"""The user's own data: `.npz`, `.csv` and `.parquet` files read into a `Raw`.

Nothing here unpickles: an array file is read with `allow_pickle=False`, because a pickle runs code.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .raw import DataError, Raw, check_arrays

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["SUFFIXES", "read_file"]

SUFFIXES = (".npz", ".csv", ".parquet")


def read_file(path: Path, *, target: str | None = None) -> Raw:
    """Read one file of rows.

    Args:
        path: a `.npz` with arrays `x` (row, feature), (row, height, width) or (row, height, width, channel),
            and `y` (row,); or a `.csv` or `.parquet` table of numbers with one named target column. Three-
            and four-dimensional `x` are images: uint8, or floats in 0..1.
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
    if not path.is_file():
        raise DataError(f"there is no file {path} (looked from {Path.cwd()}): check the path")
    if suffix == ".npz":
        if target is not None:
            raise DataError(f"target={target!r} names a table's column, but {path.name} holds x and y: drop target")
        return _read_npz(path)
    return _read_table(path, target)


def _read_npz(path: Path) -> Raw:
    arrays: dict[str, np.ndarray] = {}
    try:
        # Opened here, because NumPy leaves a damaged file open.
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise DataError(f"{path.name} holds a single array: write it with np.savez(path, x=x, y=y)")
            names = archive.files
            for name in ("x", "y"):
                if name not in names:
                    raise DataError(
                        f"{path.name} has no array {name!r} (it has {', '.join(names) or 'none'}): "
                        "write it with np.savez(path, x=x, y=y)"
                    )
                arrays[name] = archive[name]
    except DataError:
        raise
    except ValueError as error:
        # NumPy raises a plain ValueError both for an object array and for a file that may be a pickle. Its
        # sentence suggests allow_pickle=True, which must not be passed on about a file from elsewhere.
        if "pickle" in str(error).lower():
            raise DataError(
                f"{path.name} holds pickled Python objects, which are never loaded because they can run "
                "code: save x and y as arrays of numbers (or text labels), for instance np.asarray(y, "
                "dtype=str)"
            ) from None
        raise DataError(_damaged(path, error)) from error
    except (zipfile.BadZipFile, OSError, EOFError, KeyError) as error:
        raise DataError(_damaged(path, error)) from error

    x, y = arrays["x"], arrays["y"]
    if x.ndim == 3:
        x = x[..., None]
    if x.ndim not in (1, 2, 4):
        raise DataError(
            f"{path.name}: x has shape {x.shape}, but (row, feature), (row, height, width) or "
            "(row, height, width, channel) is wanted: reshape it"
        )
    check_arrays(x, y, source=path.name)
    description = f"{len(x)} rows from {path.name}."
    if x.ndim == 2:
        columns = tuple(f"x{i}" for i in range(x.shape[1]))
        return Raw(name=path.name, x=x, y=y, feature_names=columns, description=description)
    if x.dtype != np.uint8 and (x.min() < 0 or x.max() > 1):
        raise DataError(
            f"{path.name}: x holds images of dtype {x.dtype} with values from {x.min():g} to {x.max():g}, "
            "but uint8, or brightness from 0 to 1, is wanted: convert it"
        )
    brightness = 255.0 if x.dtype == np.uint8 else 1.0
    return Raw(name=path.name, x=x, y=y, brightness=brightness, description=description)


def _read_table(path: Path, target: str | None) -> Raw:
    try:
        table = _load_table(path)
    except (ValueError, OSError, NotImplementedError) as error:  # the bases of pandas' and pyarrow's errors
        raise DataError(_damaged(path, error)) from error
    table.columns = [str(column) for column in table.columns]
    columns = list(table.columns)
    listed = ", ".join(columns)
    if target is None:
        raise DataError(f"{path.name} needs a target column: pass target=NAME, one of {listed}")
    if target not in columns:
        raise DataError(f"{path.name} has no column {target!r}: pass target=NAME, one of {listed}")
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
    return np.array([str(value) for value in column])


def _check_present(path: Path, name: str, column: pd.Series) -> None:
    missing = np.flatnonzero(column.isna().to_numpy())
    if missing.size:
        raise DataError(
            f"{path.name}: column {name!r} has no value in row {int(missing[0])} (counted from 0; "
            f"{missing.size} such rows; words such as NA and None count as missing): remove or fill in "
            "those rows"
        )


def _damaged(path: Path, error: Exception) -> str:
    return f"{path.name} cannot be read as {path.suffix} ({error}): it may be damaged or another kind of file"
