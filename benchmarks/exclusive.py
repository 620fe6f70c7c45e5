"""One process at a time in a folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock

from .options import UsageError

__all__ = ["alone_in"]

LOCK = ".lock"


@contextmanager
def alone_in(folder: Path, patience: float = 0.0) -> Iterator[None]:
    """Make a folder where it is absent, and keep it to this process; a process that is gone keeps nothing.

    Arguments:
        folder: the folder.
        patience: seconds to wait for another process to leave it.

    Raises:
        UsageError: another process is there, or the folder cannot be written.
    """
    lock = filelock.FileLock(folder / LOCK)
    try:
        if folder.is_file():
            raise UsageError(f"{folder} cannot be written (it is a file): give another --out folder")
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=patience)
    except filelock.Timeout as error:
        raise UsageError(f"{folder} is in use by another run: wait for it, or give another --out folder") from error
    except OSError as error:
        raise UsageError(f"{folder} cannot be written ({error.strerror}): give another --out folder") from error
    try:
        yield
    finally:
        lock.release()
