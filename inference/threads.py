"""The threads of linear algebra, beside XLA's own."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager

from threadpoolctl import ThreadpoolController

__all__ = ["one_blas_thread"]

SAID = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
"""Variables of the environment by which a person says how many threads linear algebra takes."""


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Have every call of LAPACK run in one thread within, unless the environment says how many.

    On a CPU jaxlib factorises and solves by SciPy's OpenBLAS. Its threads wait for work spinning, on the cores that
    XLA's threads need, and serve one caller at a time, so that chains on several host devices wait for one another. On
    2 cores a gradient of `hmcvi.models.gp` takes 4.8 ms by two threads and 2.4 by one at 353 rows, 70 and 39 at 1,000,
    830 and 717 at 3,000.
    """
    if any(name in os.environ for name in SAID):
        yield
        return
    with _libraries().limit(limits=1, user_api="blas"):
        yield


@functools.cache
def _libraries() -> ThreadpoolController:
    """Return what speaks to the libraries of linear algebra that importing JAX and SciPy has loaded."""
    return ThreadpoolController()
