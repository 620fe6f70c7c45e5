"""A sentence instead of a crash where data would not fit into the memory that is left."""

from __future__ import annotations

from .raw import DataError

__all__ = ["SHARE", "available_bytes", "require"]

SHARE = 0.8
"""The part of the free memory that data may take: the rest is for the fit."""


def available_bytes() -> int:
    """Bytes that this process may still take."""
    from hmcvi.inference import memory  # not sooner: listing data sets needs no JAX

    return memory.available_bytes()


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
