"""The mesh that an experiment asks for: how many groups of devices its chains take, and of how many devices each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
from jax.sharding import Mesh

from hmcvi.inference.base import Model
from hmcvi.inference.chains import Sampler
from hmcvi.inference.division import divide, serves_mesh
from hmcvi.inference.mesh import fit_mesh
from hmcvi.inference.training import Training

from .options import UsageError

if TYPE_CHECKING:
    from .experiment import Experiment

__all__ = ["check_mesh", "make_mesh", "mesh_shape"]


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
    for name, method in methods.items():
        if not all(map(serves_mesh, _with_starts(method))):
            raise UsageError(
                f"{name} cannot be fitted over a mesh: leave it out, or run it without --chains-per-device and "
                "--shard-rows"
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


def check_mesh(experiment: Experiment, model: Model, x: Any, y: Any) -> None:
    """Raise ValueError where the mesh cannot serve this model, these rows or a method; nothing is computed.

    Arguments:
        experiment: what is asked for; without a mesh, all is well.
        model: the configured model.
        x: training inputs (row, feature...).
        y: targets (row,).
    """
    shape = mesh_shape(experiment)
    if shape is None:
        return
    try:
        division = divide(*shape, x, y)
        if division.num_row_shards > 1:
            division.check_independent(model)
    except ValueError as error:
        raise UsageError(f"--shard-rows {experiment.shard_rows}: {error}") from error
    for name in experiment.asked:
        for method in _with_starts(experiment.method(name)):
            try:
                if isinstance(method, Sampler):
                    method.check_division(model, division)
                elif isinstance(method, Training):
                    method.check_model(model, *division.head, division)
            except ValueError as error:
                raise UsageError(f"{name}: {error}") from error


def _with_starts(method: Any) -> list[Any]:
    """Return the method, and those that are fitted before it for it to start from."""
    start = getattr(method, "start", None)
    return [method, *(_with_starts(start) if hasattr(start, "fit") else [])]


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
