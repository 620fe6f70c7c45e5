"""Several processes that make one fit together: what they must agree on, and what only the first of them does.

Every process runs the same programs in the same order; whatever a clock, a signal or a file decides, process 0 decides
for all. In a single process each of these functions gives back what it got.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

__all__ = ["ElsewhereError", "agreed", "any_of", "from_first", "gathered", "is_first", "same_everywhere", "together"]


class ElsewhereError(ValueError):
    """Processes cannot do together what was asked: another cannot, and the sentence is its own, or they differ."""


def is_first() -> bool:
    """Return whether this is the process that writes files, prints and decides."""
    return jax.process_index() == 0


def agreed(value: float) -> float:
    """Return process 0's number, in every process."""
    if jax.process_count() == 1:
        return value
    # as bytes: JAX would round a double to single precision
    sent = np.frombuffer(np.float64(value).tobytes(), np.uint8)
    return float(np.asarray(multihost_utils.broadcast_one_to_all(sent)).astype(np.uint8).view(np.float64)[0])


def any_of(flag: bool) -> bool:
    """Return whether any process says so, in every process."""
    if jax.process_count() == 1:
        return flag
    return bool(np.asarray(multihost_utils.process_allgather(np.asarray(flag, np.int32))).any())


def from_first(make: Callable[[], bytes]) -> bytes:
    """Return the bytes that process 0 makes, in every process; the others do not make them."""
    if jax.process_count() == 1:
        return make()
    mine = np.frombuffer(make() if is_first() else b"", np.uint8)
    size = int(agreed(float(len(mine))))
    sent = mine if is_first() else np.zeros(size, np.uint8)
    return np.asarray(multihost_utils.broadcast_one_to_all(sent)).astype(np.uint8).tobytes() if size else b""


def same_everywhere(what: str, digest: str) -> None:
    """Raise ElsewhereError where processes differ in what must be the same.

    Arguments:
        what: what it is, in words that begin a sentence.
        digest: tells what this process has.
    """
    if jax.process_count() == 1:
        return
    mine = np.frombuffer(hashlib.sha256(digest.encode()).digest()[:16], np.uint8)
    differs = np.flatnonzero((np.asarray(gathered(mine)) != np.asarray(gathered(mine))[0]).any(1))
    if len(differs):
        raise ElsewhereError(
            f"{what} of process {differs[0]} and of process 0 differ: start every process with the same request, "
            "versions and kind of processor"
        )


def gathered(array: np.ndarray) -> np.ndarray:
    """Return the arrays (of one shape) of all processes (process, ...)."""
    if jax.process_count() == 1:
        return array[None]
    return np.asarray(multihost_utils.process_allgather(array))


def together(check: Callable[[], Any]) -> Any:
    """Return what a function that each process runs for itself gives, or raise in all of them where it raises in one.

    A process that ended alone would leave the others waiting for it.

    Raises:
        ValueError, TypeError: this process's own, or, where only another raised, an ElsewhereError with its sentence.
    """
    if jax.process_count() == 1:
        return check()
    fault: Exception | None = None
    result = None
    try:
        result = check()
    except (ValueError, TypeError) as error:
        fault = error
    said = json.dumps("" if fault is None else str(fault)).encode()[:SENTENCE]
    mine = np.zeros(SENTENCE, np.uint8)
    mine[: len(said)] = np.frombuffer(said, np.uint8)
    everybody = gathered(mine)
    if fault is not None:
        raise fault
    for place, row in enumerate(everybody):
        sentence = bytes(row.astype(np.uint8)).rstrip(b"\0").decode(errors="replace").strip('"')
        if sentence:
            raise ElsewhereError(f"process {place}: {sentence}")
    return result


SENTENCE = 500
"""Bytes of a sentence that processes tell each other."""
