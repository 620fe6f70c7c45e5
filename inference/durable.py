"""Files that appear whole or not at all, even where a disk fills up or the power fails."""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path

__all__ = ["DamagedError", "UnmarkedError", "read_checked", "sha256_of", "write_checked", "write_whole"]

MARK = b"\nsha256:"
"""What stands before the checksum at the end of a file that `write_checked` wrote."""


class DamagedError(ValueError):
    """The bytes of a file are not those that were written; the sentence does not name the file."""


def write_whole(path: Path, *content: str | bytes | memoryview, previous: Path | None = None) -> None:
    """Write a file that appears whole or not at all; text as UTF-8.

    It is written under another name beside its place, is on the disk before it takes that place, and whatever goes
    wrong before, what was there stays as it was.

    Arguments:
        path: the file; its folder is there.
        content: what it holds, one part after another.
        previous: what the file that was there is called from then on; None replaces it.

    Raises:
        OSError: the file cannot be written; the name it tells is the file's own.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.unlink(missing_ok=True)  # what another process left, or a link that leads elsewhere
        with open(partial, "xb") as file:
            for part in content:
                file.write(part.encode() if isinstance(part, str) else part)
            file.flush()
            os.fsync(file.fileno())
        if previous is not None and path.exists():
            path.replace(previous)
        partial.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        partial.unlink(missing_ok=True)


class UnmarkedError(DamagedError):
    """A file holds no checksum: it is cut short, or somebody else's."""


def write_checked(path: Path, content: bytes | memoryview, previous: Path | None = None) -> None:
    """Write a file as `write_whole` does, with a SHA-256 of its content at its end; raises as that.

    Formats that know their own length, such as zip and HDF5, are read as if it were not there.
    """
    write_whole(path, content, MARK + sha256_of(content).encode(), previous=previous)


def read_checked(path: Path) -> memoryview:
    """Return the content of a file that `write_checked` wrote.

    Raises:
        OSError: the file cannot be read.
        DamagedError: it is not what was written; its content must not be read.
    """
    whole = path.read_bytes()
    end = len(whole) - len(MARK) - DIGITS
    if end < 0 or whole[end : end + len(MARK)] != MARK:
        raise UnmarkedError("it does not end in its checksum")
    content = memoryview(whole)[:end]
    if sha256_of(content).encode() != whole[-DIGITS:]:
        raise DamagedError("its checksum is not that of its content")
    return content


def sha256_of(*parts: bytes | memoryview) -> str:
    """Return the SHA-256 of these bytes, one after another, in hexadecimal."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


DIGITS = len(sha256_of())
"""Hexadecimal digits of a checksum."""


def _sync_folder(folder: Path) -> None:
    """Have the folder's list of names on the disk, where the system can: a rename is in it."""
    try:
        opened = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows opens no folders
        return
    try:
        with contextlib.suppress(OSError):  # some network file systems sync none
            os.fsync(opened)
    finally:
        os.close(opened)
