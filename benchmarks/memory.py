"""The memory that a process has held, and a sentence instead of a crash where data would not fit into what is left."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

import psutil

from .raw import DataError

__all__ = ["SHARE", "available_bytes", "heap_in_use", "peak_bytes", "require"]

PROCESSES = Path("/proc")
"""Where Linux says what a process holds; elsewhere there is no such folder."""

SHARE = 0.8
"""The part of the free memory that data may take: the rest is for the fit."""


def available_bytes() -> int:
    """Bytes that this process may still take."""
    from hmcvi.inference import memory  # not sooner: listing data sets needs no JAX

    return memory.available_bytes()


def peak_bytes(pid: int | None = None) -> int:
    """Return the largest resident memory of a process so far, in bytes.

    Linux says it of any process. `getrusage`, which a system without /proc has for the process itself, also counts what
    its parent held when it started it: a child that does nothing then reports the memory of a large parent. Of another
    process there is only what it holds at this moment.

    Arguments:
        pid: which process; None is this one.

    Raises:
        ProcessLookupError: there is no such process (any more).
    """
    try:
        status = (PROCESSES / str(os.getpid() if pid is None else pid) / "status").read_text()
    except OSError:
        status = ""
    for line in status.splitlines():
        if line.startswith("VmHWM:"):
            return 1024 * int(line.split()[1])
    if pid is None:
        import resource  # Windows has none

        # in KiB, and in bytes on macOS
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error as error:
        raise ProcessLookupError(f"process {pid} has ended") from error


FIELDS = (
    *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
    *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
)
"""Of glibc's `struct mallinfo2`, see its mallinfo(3)."""


class _Mallinfo(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_size_t) for name in FIELDS)


def heap_in_use() -> int | None:
    """Return the bytes of this process's heap that something holds; None where the C library is not glibc (2.33).

    The resident memory also holds what was freed between pieces in use and is kept to be given out again, so that it
    can grow where nothing leaks. Python's small objects, compiled code and what libraries map themselves are not in it.
    """
    try:
        mallinfo = ctypes.CDLL(None).mallinfo2
    except (AttributeError, OSError, TypeError):  # TypeError: of None on Windows
        return None
    mallinfo.restype = _Mallinfo
    found = mallinfo()
    return int(found.uordblks + found.hblkhd)


def require(num_bytes: float, *, name: str, advice: str) -> None:
    """Raise where `num_bytes` would not fit into the memory that is left.

    Args:
        num_bytes: what is about to be taken at its peak, in bytes.
        name: what to call the data in the sentence.
        advice: what to do about it, such as "keep fewer rows".

    Raises:
        DataError: more than four fifths of the free memory.

    Example:
        >>> require(1e18, name="huge.npz", advice="keep fewer rows")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        hmcvi.benchmarks.raw.DataError: huge.npz needs about 931,322,574.6 GiB of memory and ... keep fewer rows
    """
    left = available_bytes()
    if num_bytes > SHARE * left:
        raise DataError(
            f"{name} needs about {num_bytes / 2**30:,.1f} GiB of memory and {left / 2**30:,.1f} GiB are free, of "
            f"which {SHARE:.0%} may hold data: {advice}"
        )
