"""How much memory is left, and a sentence instead of a crash where data would not fit into it."""

from __future__ import annotations

from pathlib import Path

import psutil

from .raw import DataError

__all__ = ["available_bytes", "require"]

CGROUP = Path("/sys/fs/cgroup")
"""Where Linux says what a container may use; elsewhere there is no such folder."""

SHARE = 0.8
"""The part of the free memory that data may take: the rest is for the fit."""


def available_bytes() -> int:
    """Bytes that this process may still take: free memory, or less where a container's limit is nearer."""
    left = [psutil.virtual_memory().available]
    for limit, used in (
        ("memory.max", "memory.current"),  # cgroup 2
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),  # cgroup 1
    ):
        try:
            left.append(int((CGROUP / limit).read_text()) - int((CGROUP / used).read_text()))
        except (OSError, ValueError):  # no container, or no limit ("max")
            continue
    return max(min(left), 0)


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
