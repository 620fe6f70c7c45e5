"""How chains and rows are divided over a mesh, by numbers alone: what can be refused before anything is on a device."""

from __future__ import annotations

import functools
import inspect
from dataclasses import dataclass
from typing import Any

import numpy as np

from .base import Model, minibatches

__all__ = ["HEAD_ROWS", "Division", "divide", "part_edges", "serves_mesh"]

HEAD_ROWS = 128
"""Rows that a model of independent rows is looked at with, and that a start must have a finite log joint on."""


@dataclass(frozen=True, eq=False)
class Division:
    """Numbers of a mesh and of the rows on it.

    Attributes:
        num_chain_shards: groups that the chains are divided over.
        num_row_shards: devices of a group, among which the rows are divided.
        num_rows: rows of the whole data set.
        padded_rows: rows with those that stand for none.
        head: the first rows (x, y); all of them where there is one row shard.
    """

    num_chain_shards: int
    num_row_shards: int
    num_rows: int
    padded_rows: int
    head: tuple[Any, Any]

    def check_independent(self, model: Model) -> None:
        """Raise ValueError where rows cannot be divided, because the likelihood is not a product over them."""
        x, y = self.head
        try:
            minibatches(model, x[:2], y[:2], 1)
        except ValueError as error:
            reason = str(error).partition(": ")[2].partition("; pass batch_size")[0] or str(error)
            raise ValueError(
                f"the rows of this model cannot be divided over {self.num_row_shards} devices, as they depend on each "
                f"other ({reason}): give a mesh of one row shard (--shard-rows 1), over which chains are divided alone"
            ) from None

    def minibatches(self, model: Model, batch_size: int | None) -> tuple[Model, int]:
        """Return the model as a device calls it on its part of a minibatch, and the rows of all parts together.

        The mean of the devices' estimates, each as if its rows were the only ones, is that of the whole minibatch: so
        the likelihood of b rows is scaled by padded rows / b.

        Raises:
            ValueError: the rows depend on each other, or batch_size cannot be divided over the devices.
        """
        x, y = self.head
        workers = self.num_chain_shards * self.num_row_shards
        if self.num_row_shards == 1:
            whole, size = minibatches(model, x, y, batch_size)
            if size == self.num_rows:
                return whole, size
        else:
            self.check_independent(model)
        if batch_size is not None and not 1 <= batch_size <= self.num_rows:
            raise ValueError(
                f"batch_size={batch_size} and the data have {self.num_rows} rows: give a number from 1 to "
                f"{self.num_rows}"
            )
        scaled = functools.partial(model, num_rows=self.padded_rows)
        if batch_size == self.num_rows or (batch_size is None and self.num_rows <= HEAD_ROWS):
            return scaled, self.num_rows
        if batch_size is not None and batch_size % workers:
            raise ValueError(
                f"batch_size={batch_size} cannot be divided over {workers} devices: give a multiple of {workers}"
            )
        own = batch_size // workers if batch_size is not None else max(1, round(HEAD_ROWS / workers))
        most = self.padded_rows // self.num_row_shards // self.num_chain_shards
        if own > most:
            if batch_size is not None:
                raise ValueError(
                    f"batch_size={batch_size} over {workers} devices and {self.num_rows} rows: give at most "
                    f"{most * workers}, or None"
                )
            own = max(most, 1)
        return scaled, own * workers


def divide(num_chain_shards: int, num_row_shards: int, x: Any, y: Any) -> Division:
    """Return how a mesh of so many shards would divide all rows (x, y).

    Raises:
        ValueError: there are fewer rows than devices to divide them over.

    Example:
        >>> import numpy as np
        >>> divide(1, 4, np.zeros((41, 3)), np.zeros(41)).padded_rows
        44
    """
    sizes = np.diff(part_edges(len(x), num_row_shards))
    head = (x, y) if num_row_shards == 1 else (x[:HEAD_ROWS], y[:HEAD_ROWS])
    return Division(num_chain_shards, num_row_shards, len(x), num_row_shards * int(sizes.max()), head)


def part_edges(num_rows: int, num_parts: int) -> np.ndarray:
    """Return where the parts of rows begin and end (part + 1,): parts differ by one row at most.

    Raises:
        ValueError: there are fewer rows than parts.
    """
    if num_rows < num_parts:
        raise ValueError(f"{num_rows} rows cannot be divided over {num_parts} devices: give a mesh of fewer row shards")
    return np.linspace(0, num_rows, num_parts + 1).astype(int)


def serves_mesh(method: Any) -> bool:
    """Return whether a method can be fitted over a mesh: its `fit` then takes the spread rows.

    Example:
        >>> from hmcvi.inference import SVI, Laplace
        >>> serves_mesh(SVI()), serves_mesh(Laplace())
        (True, False)
    """
    return "spread" in inspect.signature(method.fit).parameters
