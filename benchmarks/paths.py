"""Paths as a user writes them: told apart from names, and refused in a sentence where no file can be read there."""

from __future__ import annotations

import os
from pathlib import Path

from .raw import DataError

__all__ = ["as_path", "is_file", "require_file"]


def as_path(name: str | os.PathLike[str]) -> Path:
    """Return the path, its ~ expanded.

    Raises:
        DataError: a NUL or half a letter, which no path can hold, or the ~ of a user who has no home folder here.

    Example:
        >>> as_path("houses.csv").name
        'houses.csv'
    """
    text = os.fspath(name)
    try:
        encoded = os.fsencode(text)
    except UnicodeEncodeError:
        encoded = b"\0"
    if b"\0" in encoded:
        raise DataError(f"the path {text!r} holds what no path can: check it")
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise DataError(f"the path {text} begins with a ~ that stands for no folder here: write it in full") from None


def is_file(name: str | os.PathLike[str]) -> bool:
    """Whether there is such a file; no text is a fault here, as it may be a name of another kind.

    Example:
        >>> is_file("x" * 10_000)
        False
    """
    try:
        return as_path(name).is_file()
    except (DataError, OSError):
        return False


def require_file(path: Path, what: str = "file") -> None:
    """Raise DataError, saying why, unless this is a file that may be read.

    Args:
        path: the path.
        what: what is wanted there, such as "file of splits".
    """
    try:
        if path.is_dir():
            raise DataError(f"{path} is a folder, but a {what} is wanted: give the path of one")
        is_there = path.is_file()
    except OSError as error:  # too long a name, or a folder above that may not be entered
        raise DataError(f"the {what} {_cut(path)} cannot be read ({error.strerror}): check the path") from error
    if not is_there:
        raise DataError(f"there is no {what} {path} (looked from {Path.cwd()}): check the path")
    if not os.access(path, os.R_OK):
        raise DataError(f"the {what} {path} cannot be read (Permission denied): change who may read it")


def _cut(path: Path) -> str:
    text = str(path)
    return text if len(text) <= 200 else f"{text[:100]}... ({len(text):,} characters)"
