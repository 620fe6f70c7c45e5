"""Rows that are spread over a mesh: the model as each device sees it, and programs that run on all of them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jax import lax
from jax.flatten_util import ravel_pytree
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from numpyro import handlers
from numpyro.primitives import Messenger

from .base import Model
from .division import Division

__all__ = ["CHAIN", "ROW", "ROWS", "MarkedRows", "Spread", "mean_over_devices", "place_of_device"]

CHAIN, ROW = "chain", "row"
"""Axes of a mesh."""

CHAINS, ROWS, WHOLE = PartitionSpec(CHAIN), PartitionSpec(ROW), PartitionSpec()


class MarkedRows(NamedTuple):
    """Targets of which some stand for no row: they fill up the parts of devices that have a row less.

    Attributes:
        y: targets (row,).
        counts: whether each row counts (row,).
    """

    y: Any
    counts: Any


class _Mask(Messenger):
    """Takes rows that do not count out of the likelihood: a mask on the observed sites alone."""

    def __init__(self, fn: Callable[..., Any], counts: jax.Array) -> None:
        super().__init__(fn)
        self.counts = counts

    def process_message(self, message: Any) -> None:
        if _is_observed(message):
            message["fn"] = message["fn"].mask(self.counts)


@dataclass(frozen=True, eq=False)
class Spread:
    """The rows of a fit over a mesh, and how its programs run there.

    Attributes:
        mesh: the mesh, with the axes "chain" and "row".
        x: inputs (padded row, feature...), divided over the axis "row".
        y: targets (padded row,) likewise, `MarkedRows` where some stand for no row.
        num_rows: rows of the whole data set.
        head: the first rows (x, y) as ordinary arrays, the same in every process; all of them where "row" is 1.
        mine: the rows (x, y) that this process was given, as ordinary arrays.
        digest: hash of all rows.
    """

    mesh: Mesh
    x: jax.Array
    y: Any
    num_rows: int
    head: tuple[Any, Any]
    mine: tuple[Any, Any]
    digest: str

    @property
    def num_row_shards(self) -> int:
        """Devices among which the rows are divided."""
        return self.mesh.shape[ROW]

    @property
    def num_chain_shards(self) -> int:
        """Groups that the chains are divided over."""
        return self.mesh.shape[CHAIN]

    @property
    def padded_rows(self) -> int:
        """Rows with those that stand for none."""
        return self.x.shape[0]

    @property
    def division(self) -> Division:
        """The numbers of the mesh and of the rows on it."""
        return Division(self.num_chain_shards, self.num_row_shards, self.num_rows, self.padded_rows, self.head)

    def __str__(self) -> str:
        return f"mesh {self.num_chain_shards}x{self.num_row_shards}"

    def layout(self) -> dict[str, Any]:
        """Return, as plain data, what the bytes of a fit depend on."""
        return {
            "chain shards": self.num_chain_shards,
            "row shards": self.num_row_shards,
            "processes": jax.process_count(),
            "process of each device": [[device.process_index for device in group] for group in self.mesh.devices],
        }

    # --- models

    def marked(self, model: Model) -> Model:
        """Return the model for a device's own rows: those that stand for none are left out of its likelihood."""

        @functools.wraps(model)
        def of_own_rows(x: Any, y: Any = None, **options: Any) -> Any:
            if not isinstance(y, MarkedRows):
                return model(x, y, **options)
            return _Mask(model, y.counts)(x, y.y, **options)

        return of_own_rows

    def check_independent(self, model: Model) -> None:
        """Raise ValueError where rows cannot be divided, because the likelihood is not a product over them."""
        self.division.check_independent(model)

    def of_all_rows(self, model: Model) -> Model:
        """Return the model whose density, in a program over the mesh, is that of all rows; its gradient too.

        log p(w) + Σ over devices of Σ over own rows log p(y | x, w): the latter's value and gradient are added up in
        one all-reduce.
        """
        return model if self.num_row_shards == 1 else functools.partial(_with_rows_of_all, model)

    def minibatches(self, model: Model, batch_size: int | None) -> tuple[Model, int]:
        """Return the model as a device calls it on its part of a minibatch, and the rows of all parts together."""
        return self.division.minibatches(model, batch_size)

    # --- programs

    def over_chains(self, all_chains: Callable[..., Any], num_shared: int = 0) -> Callable[..., Any]:
        """Return a program (states, shared..., x, y) of which each group runs its own chains.

        Arguments:
            all_chains: (states, shared..., x, y) -> what every leaf of has a leading axis of chains.
            num_shared: arguments between, which are whole on every device.
        """
        specs = (CHAINS, *([WHOLE] * num_shared), ROWS, ROWS)
        # check_vma: loops whose ends differ between groups are meant
        return jax.shard_map(all_chains, mesh=self.mesh, in_specs=specs, out_specs=CHAINS, check_vma=False)

    def over_rows(self, program: Callable[..., Any], num_shared: int) -> Callable[..., Any]:
        """Return a program (shared..., x, y) of which every device does the same on its own rows."""
        specs = (*([WHOLE] * num_shared), ROWS, ROWS)
        return jax.shard_map(program, mesh=self.mesh, in_specs=specs, out_specs=WHOLE, check_vma=False)

    # --- arrays

    def place_chains(self, tree: Any) -> Any:
        """Put a tree of arrays (chain, ...) on the mesh, divided over the groups."""
        return jax.tree.map(lambda leaf: _placed(leaf, NamedSharding(self.mesh, CHAINS)), tree)

    def place_whole(self, tree: Any) -> Any:
        """Put a tree of arrays on the mesh, whole on every device."""
        return jax.tree.map(lambda leaf: _placed(leaf, NamedSharding(self.mesh, WHOLE)), tree)

    def on_host(self, tree: Any) -> Any:
        """Return a tree of arrays as every process holds it: those divided over processes are gathered."""
        return jax.tree.map(self._one_on_host, tree)

    def _one_on_host(self, leaf: Any) -> Any:
        if not isinstance(leaf, jax.Array):
            return leaf
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            data = self._one_on_host(jax.random.key_data(leaf))
            return jax.random.wrap_key_data(jnp.asarray(data), impl=jax.random.key_impl(leaf))
        if not (leaf.is_fully_addressable or leaf.is_fully_replicated):
            leaf = jax.jit(lambda a: a, out_shardings=NamedSharding(self.mesh, WHOLE))(leaf)
        return np.array(leaf.addressable_data(0) if leaf.is_fully_replicated else leaf)


def mean_over_devices(tree: Any) -> Any:
    """Return the mean of a tree over all devices of the mesh, in one all-reduce; within a program over it."""
    flat, restore = ravel_pytree(tree)
    return restore(lax.pmean(flat, (CHAIN, ROW)))


def place_of_device() -> jax.Array:
    """Return which of the mesh's devices this is; within a program over it."""
    return lax.axis_index((CHAIN, ROW))


def _with_rows_of_all(model: Model, x: Any, y: Any = None) -> None:
    # once for the priors; what it computes of the likelihood is thrown away by the compiler
    with handlers.block(hide_fn=_is_observed), handlers.trace() as trace:
        model(x, y)
    values = {
        name: site["value"] for name, site in trace.items() if site["type"] == "sample" and not site["is_observed"]
    }

    def own(values: Mapping[str, jax.Array]) -> jax.Array:
        run = handlers.seed(handlers.substitute(model, data=values), jax.random.key(0))
        with handlers.block():  # the sites are told already
            found = handlers.trace(run).get_trace(x, y)
        observed = filter(_is_observed, found.values())
        terms = [(site["fn"].log_prob(site["value"]), site["scale"]) for site in observed]
        return jnp.asarray(sum(jnp.sum(term if scale is None else scale * term) for term, scale in terms))

    @jax.custom_vjp
    def log_likelihood(values: Mapping[str, jax.Array]) -> jax.Array:
        return lax.psum(own(values), ROW)

    def forward(values: Mapping[str, jax.Array]) -> tuple[jax.Array, Any]:
        flat, restore = ravel_pytree(jax.value_and_grad(own)(values))
        return restore(lax.psum(flat, ROW))

    def backward(gradient: Any, cotangent: jax.Array) -> tuple[Any]:
        return (jax.tree.map(lambda leaf: cotangent * leaf, gradient),)

    log_likelihood.defvjp(forward, backward)
    numpyro.factor("y.of_all_rows", log_likelihood(values))


def _placed(leaf: Any, sharding: NamedSharding) -> Any:
    """Put an array that every process has whole where it belongs; one that is on the mesh already stays."""
    if isinstance(leaf, jax.Array) and leaf.sharding == sharding:
        return leaf
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(_placed(jax.random.key_data(leaf), sharding), impl=jax.random.key_impl(leaf))
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
        return jax.jit(lambda a: a, out_shardings=sharding)(leaf)
    whole = np.asarray(leaf)
    return jax.make_array_from_callback(whole.shape, sharding, lambda index: whole[index])


def _is_observed(site: Any) -> bool:
    return bool(site["type"] == "sample" and site["is_observed"])
