"""Where a fit over many devices runs: the mesh, and the rows on it.

A group of devices shares a chain's rows: each of them holds a part, and the sums over rows are added up once a
gradient, in one all-reduce of P + 1 numbers for P weights. Groups differ in their chains, and say nothing to each
other while they sample: a trajectory of one may be longer than another's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding

from .division import HEAD_ROWS, part_edges
from .processes import ElsewhereError, gathered, same_everywhere, together
from .spread import CHAIN, ROW, ROWS, MarkedRows, Spread

__all__ = ["fit_mesh", "shard_rows"]


def fit_mesh(
    num_chain_shards: int = 1,
    num_row_shards: int = 1,
    devices: Sequence[jax.Device] | None = None,
    *,
    rows_across_processes: bool = False,
) -> Mesh:
    """Return a mesh for `fit`, with the axes "chain" and "row", over all devices of all processes.

    Device groups that share rows speak at every gradient, groups of different chains only at the end of a compiled
    call. So the devices of a group are neighbours, within a process as far as they go; `rows_across_processes` lays
    them out the other way round, so that each process holds a part of the rows only. A CPU is one device, unless
    `jax.config.update("jax_num_cpu_devices", n)` makes n of it before JAX computes anything.

    Arguments:
        num_chain_shards: groups that the chains are divided over.
        num_row_shards: devices of a group, among which the rows are divided.
        devices: the devices; all of JAX's by default.
        rows_across_processes: whether a group's devices are in different processes where there are several.

    Raises:
        ValueError: the two numbers do not make up the number of devices.

    Example:
        >>> import jax
        >>> fit_mesh(1, 1, jax.devices()[:1]).axis_names
        ('chain', 'row')
    """
    chosen = list(jax.devices() if devices is None else devices)
    for name, number in (("num_chain_shards", num_chain_shards), ("num_row_shards", num_row_shards)):
        if not isinstance(number, int | np.integer) or isinstance(number, bool) or number < 1:
            raise ValueError(f"fit_mesh got {name}={number!r}: give a whole number of at least 1")
    if num_chain_shards * num_row_shards != len(chosen):
        asked = num_chain_shards * num_row_shards
        more = devices is None and jax.default_backend() == "cpu" and jax.process_count() == 1 and asked > len(chosen)
        advice = "give numbers whose product that is, or name the devices"
        if more:
            advice += f'; jax.config.update("jax_num_cpu_devices", {asked}) makes as many of a CPU before JAX computes'
        raise ValueError(
            f"a mesh of {num_chain_shards} chain shards x {num_row_shards} row shards takes {asked} devices and there "
            f"are {len(chosen)}: {advice}"
        )
    # by process, so that both layouts are what they promise whatever order JAX lists them in
    ordered = np.array(sorted(chosen, key=lambda device: (device.process_index, device.id)))
    if rows_across_processes:
        grid = ordered.reshape(num_row_shards, num_chain_shards).T
    else:
        grid = ordered.reshape(num_chain_shards, num_row_shards)
    return Mesh(grid, (CHAIN, ROW), axis_types=(AxisType.Auto, AxisType.Auto))


def shard_rows(mesh: Mesh, x: np.ndarray, y: np.ndarray, *, own_rows: bool = False) -> Spread:
    """Divide rows over the axis "row" of a mesh: each device, and each process, holds its part of them on device.

    Parts differ by one row at most; where they do, the shorter ones are filled up with a row that does not count.

    Arguments:
        mesh: as `fit_mesh` makes it.
        x: inputs (row, feature...): all rows, the same in every process, or this process's own.
        y: targets (row,) likewise.
        own_rows: whether each process gives its own rows alone. Processes whose devices share row shards, because
            chains are divided over them, give the same ones.

    Raises:
        ValueError: the mesh has other axes, the processes' rows differ where they must not, or there are fewer rows
            than devices to divide them over.
    """
    if not isinstance(mesh, Mesh) or mesh.axis_names != (CHAIN, ROW):
        raise ValueError('mesh is no mesh with the axes ("chain", "row"): make it by fit_mesh(chains, rows)')
    if jax.process_count() > 1 and set(mesh.devices.flat) != set(jax.devices()):
        raise ValueError("the mesh leaves devices of some process out: make it over all of jax.devices()")
    shards = mesh.shape[ROW]
    place = jax.process_index()
    held = sorted({j for _, j in np.argwhere([[d.process_index == place for d in group] for group in mesh.devices])})
    same_everywhere("the type or the shape of rows", f"{x.dtype} {x.shape[1:]} {y.dtype}")
    among = held if own_rows else range(shards)

    edges = together(lambda: part_edges(len(x), len(among)))
    parts = {j: slice(first, end) for j, first, end in zip(among, edges[:-1], edges[1:], strict=True)}
    digests = np.zeros((shards, 16), np.uint8)
    sizes = np.full(shards, -1, np.int32)
    for j, rows in parts.items():
        sizes[j] = rows.stop - rows.start
        digests[j] = np.frombuffer(_digest(x[rows], y[rows]), np.uint8)
    all_sizes, all_digests = gathered(sizes), gathered(digests)
    for j in range(shards):
        holders = np.flatnonzero(all_sizes[:, j] >= 0)
        for other in holders[1:]:
            if (all_digests[other, j] != all_digests[holders[0], j]).any():
                raise ElsewhereError(
                    f"processes {holders[0]} and {other} were given different rows where they share them: "
                    + ("give both the same" if own_rows else "give every process all rows, in one order")
                )
    by_shard = all_sizes.max(0)
    num_rows, size = int(by_shard.sum()), int(by_shard.max())

    def filled(array: np.ndarray) -> jax.Array:
        def part(index: Any) -> np.ndarray:
            own = array[parts[(index[0].start or 0) // size]]
            more = np.repeat(own[:1], size - len(own), axis=0)
            return np.ascontiguousarray(np.concatenate([own, more]) if len(more) else own)

        shape = (shards * size, *array.shape[1:])
        return jax.make_array_from_callback(shape, NamedSharding(mesh, ROWS), part)

    targets: Any = filled(y)
    if num_rows != shards * size:

        def counted(index: Any) -> np.ndarray:
            return np.arange(size) < by_shard[(index[0].start or 0) // size]

        counts = jax.make_array_from_callback((shards * size,), NamedSharding(mesh, ROWS), counted)
        targets = MarkedRows(targets, counts)
    digest = hashlib.sha256(b"".join(all_digests[:, j].max(0).tobytes() for j in range(shards))).hexdigest()
    head = (x, y) if shards == 1 else _head(x, y, own_rows)
    return Spread(mesh, filled(x), targets, num_rows, head, (x, y), digest)


def _head(x: np.ndarray, y: np.ndarray, own_rows: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return process 0's first rows, in every process."""
    if not own_rows or jax.process_count() == 1:
        return x[:HEAD_ROWS], y[:HEAD_ROWS]
    number = int(gathered(np.asarray(len(x), np.int32)).min())
    first = [gathered(np.ascontiguousarray(array[: min(number, HEAD_ROWS)]))[0] for array in (x, y)]
    return first[0].astype(x.dtype), first[1].astype(y.dtype)


def _digest(x: np.ndarray, y: np.ndarray) -> bytes:
    digest = hashlib.sha256(f"{x.dtype} {x.shape} {y.dtype}".encode())
    digest.update(np.ascontiguousarray(x).data)
    digest.update(np.ascontiguousarray(y).data)
    return digest.digest()[:16]
