"""The optimisation over a mesh: every device takes a part of each minibatch from its own rows, and all add up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from .optimise import Descent, Objective
from .processes import agreed
from .spread import CHAIN, ROW, Spread, mean_over_devices, place_of_device

__all__ = ["SpreadDescent"]


class SpreadDescent(Descent):
    """A `Descent` over a mesh: parameters are whole on every device, rows stay where they are.

    Of a minibatch of B rows each of the D devices takes B/D of its own, in a random order of each epoch that is the row
    shard's own; devices of one shard in different chain groups take different parts of it. Each draws noise of its
    own, and the mean of their D gradients is taken in one all-reduce of P + 1 numbers for P parameters. Both leave the
    estimate unbiased: the mean of estimates, each of which scales its rows up to the whole data set. A row that stands
    for none may be drawn, and then counts nothing.

    Arguments:
        objective, params: see `Descent`, as the others.
        x, y: the first rows.
        spread: the rows on the mesh.
    """

    def __init__(self, objective: Objective, params: Any, x: jax.Array, y: jax.Array, *, spread: Spread, **others: Any):
        self._spread = spread
        super().__init__(objective, params, spread.x, spread.y, **others)

    def _num_rows(self) -> int:
        return self._spread.num_rows

    def _own_key(self, key: jax.Array) -> jax.Array:
        return jax.random.fold_in(key, place_of_device())

    def _of_all(self, estimate: Any) -> Any:
        return mean_over_devices(estimate)

    def _order(self, key: jax.Array, step: jax.Array, rows: int) -> jax.Array:
        return super()._order(jax.random.fold_in(key, lax.axis_index(ROW)), step, rows)

    def _batch(self, order: jax.Array, in_epoch: jax.Array | None) -> jax.Array:
        groups, size = self._spread.num_chain_shards, self._batch_size // self._spread.mesh.size
        place = (0 if in_epoch is None else in_epoch) * groups + lax.axis_index(CHAIN)
        return lax.dynamic_slice(order, (place * size,), (size,))

    def _with_order(self, state: Any, key: jax.Array, start: jax.Array, rows: int) -> Any:
        # it differs between devices, so no process could keep it: made anew at the beginning of a call
        order = self._order(key, start - start % self._steps_per_epoch, rows) if self._in_parts else jnp.arange(rows)
        return *state, order

    def _without_order(self, state: Any) -> Any:
        return state[:-1]

    def _program(self, function: Callable[..., Any], num_shared: int) -> Callable[..., Any]:
        return self._spread.over_rows(function, num_shared)

    def _placed(self, tree: Any) -> Any:
        return self._spread.place_whole(tree)

    def _agreed(self, seconds: float) -> float:
        return agreed(seconds)

    def _found(self, tree: Any) -> Any:
        return jax.tree.map(jnp.asarray, self._spread.on_host(tree))

    def _state(self, params: Any) -> Any:
        return self._placed((params, self._optimizer.init(params)))
