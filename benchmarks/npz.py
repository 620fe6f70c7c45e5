"""Arrays from a `.npz` file of unknown origin: never unpickled, and never more of them than there is memory."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from . import memory
from .raw import DataError

__all__ = ["FEWER_ROWS", "damaged", "read_npz"]

COPIES_OF_ARRAYS = 1.5
"""Peak memory of reading a file over the size of its arrays (measured at 1.2)."""

FEWER_ROWS = "keep fewer rows or columns in the file"


def read_npz(path: Path, wanted: Sequence[str], welcome: Sequence[str] | None = (), *, example: str) -> dict[str, Any]:
    """Read arrays by name.

    Args:
        path: the file.
        wanted: names that must be in it.
        welcome: further names to read where they are there; None reads all.
        example: how `np.savez` is called to write such a file, after the path.

    Returns:
        The arrays by name.

    Raises:
        DataError: the file is damaged, holds pickled objects, lacks an array, or claims more than there is memory.
    """
    try:
        memory.require(COPIES_OF_ARRAYS * _size(path, wanted, welcome), name=path.name, advice=FEWER_ROWS)
        # Opened here, because NumPy leaves a damaged file open.
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise DataError(f"{path.name} holds a single array: write it with np.savez(path, {example})")
            names = archive.files
            for name in wanted:
                if name not in names:
                    raise DataError(
                        f"{path.name} has no array {name!r} (it has {', '.join(names) or 'none'}): "
                        f"write it with np.savez(path, {example})"
                    )
            return {name: archive[name] for name in names if _is_read(name, wanted, welcome)}
    except DataError:
        raise
    except Exception as error:  # damaged archives raise zlib.error, RuntimeError, NotImplementedError and more
        # NumPy raises a plain ValueError both for an object array and for a file that may be a pickle. Its
        # sentence suggests allow_pickle=True, which must not be passed on about a file from elsewhere.
        if isinstance(error, ValueError) and "Object arrays" in str(error):
            raise DataError(
                f"{path.name} holds pickled Python objects, which are never loaded because they can run "
                "code: save arrays of numbers (or text labels), for instance np.asarray(y, dtype=str)"
            ) from None
        if isinstance(error, ValueError) and "pickle" in str(error).lower():
            raise DataError(
                f"{path.name} is no .npz file, and a pickle is never loaded because it can run code: write it with "
                f"np.savez(path, {example})"
            ) from None
        raise DataError(damaged(path, error)) from error


def damaged(path: Path, error: Exception) -> str:
    """The sentence for a file that cannot be read."""
    what = " ".join(str(error).split()) or type(error).__name__
    return f"{path.name} cannot be read as {path.suffix} ({what}): it may be damaged or another kind of file"


def _is_read(name: str, wanted: Sequence[str], welcome: Sequence[str] | None) -> bool:
    return welcome is None or name in wanted or name in welcome


def _size(path: Path, wanted: Sequence[str], welcome: Sequence[str] | None) -> int:
    """What the arrays take once they are read, by their headers; nothing else of the file is read."""
    total = 0
    if not zipfile.is_zipfile(path):
        return total  # a single array, a pickle or nothing of the kind: np.load tells which
    with zipfile.ZipFile(path) as archive:
        for entry in archive.namelist():
            if not entry.endswith(".npy") or not _is_read(entry.removesuffix(".npy"), wanted, welcome):
                continue
            with archive.open(entry) as file:
                version = np.lib.format.read_magic(file)
                read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                shape, _, dtype = read(file)
            total += math.prod(shape) * dtype.itemsize
    return total
