"""The threads of linear algebra, beside XLA's own."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from threadpoolctl import ThreadpoolController

__all__ = ["one_blas_thread"]


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Have every call of LAPACK run in one thread within, whatever the environment says.

    On a CPU jaxlib factorises and solves by SciPy's OpenBLAS. Its threads wait for work spinning, on the cores that
    XLA's threads need, and serve one caller at a time, so that chains on several host devices wait for one another.

    The number of threads is the whole process's, NumPy's too. Of several threads of Python that are within at once, the
    first one sets it, and puts back what it found when it leaves.
    """
    if not _turn.acquire(blocking=False):
        yield
        return
    try:
        with _libraries().limit(limits=1, user_api="blas"):
            yield
    finally:
        _turn.release()


_turn = threading.Lock()


@functools.cache
def _libraries() -> ThreadpoolController:
    """Return what speaks to the libraries of linear algebra that importing JAX and SciPy has loaded."""
    return ThreadpoolController()
