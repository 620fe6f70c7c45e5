"""The mesh that an experiment asks for: how many groups of devices its chains take, and of how many devices each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
from jax.sharding import Mesh

from hmcvi.inference.chains import Sampler
from hmcvi.inference.mesh import fit_mesh

from .options import UsageError

if TYPE_CHECKING:
    from .experiment import Experiment

__all__ = ["make_mesh", "mesh_shape"]

METHODS_OVER_MESH = ("laplace",)
"""Methods that no mesh serves: their Hessian is of all rows at once."""


def mesh_shape(experiment: Experiment) -> tuple[int, int] | None:
    """Return (groups that chains are divided over, devices of each that rows are divided over); None without a mesh.

    Raises:
        UsageError: chains cannot be divided so, or a method cannot be fitted over a mesh.
    """
    per_device, rows = experiment.chains_per_device, experiment.shard_rows
    if per_device is None and rows is None:
        if experiment.rows_across_processes:
            raise UsageError("--rows-across-processes says how rows are divided: give --shard-rows N too")
        return None
    methods = {name: experiment.method(name) for name in experiment.asked}
    for name in methods:
        if name in METHODS_OVER_MESH:
            raise UsageError(f"{name} cannot be fitted over a mesh: leave it out, or run it by itself")
    if experiment.model == "gp" and (rows or 1) > 1:
        raise UsageError(
            f"--shard-rows {rows}: the rows of a Gaussian process depend on each other and cannot be divided; leave "
            "it out, chains are divided by --chains-per-device alone"
        )
    chains = {name: method.num_chains for name, method in methods.items() if isinstance(method, Sampler)}
    if per_device is None:
        return 1, rows or 1
    if not chains:
        raise UsageError(
            f"--chains-per-device {per_device}: {', '.join(methods)} have no chains; divide their rows by --shard-rows"
        )
    if len(set(chains.values())) > 1:
        told = ", ".join(f"{number} of {name}" for name, number in chains.items())
        raise UsageError(f"--chains-per-device {per_device}: give the samplers equally many chains, there are {told}")
    (number,) = set(chains.values())
    if number % per_device:
        raise UsageError(
            f"--chains-per-device {per_device}: {number} chains cannot be divided so; give a divisor of {number}, or "
            "num_chains=... with the sampler's options"
        )
    return number // per_device, rows or 1


def make_mesh(experiment: Experiment) -> Mesh | None:
    """Return the mesh over this run's devices.

    Raises:
        UsageError: there are fewer devices, or with several processes another number.
    """
    shape = mesh_shape(experiment)
    if shape is None:
        return None
    groups, rows = shape
    devices, wanted = jax.devices(), groups * rows
    if wanted > len(devices) or (wanted < len(devices) and jax.process_count() > 1):
        raise UsageError(
            f"the mesh of {groups} chain shards x {rows} row shards takes {wanted} devices and there are "
            f"{len(devices)} in {jax.process_count()} processes: change --chains-per-device, --shard-rows or the "
            "number of chains"
        )
    chosen = devices[:wanted]
    return fit_mesh(groups, rows, chosen, rows_across_processes=experiment.rows_across_processes)
