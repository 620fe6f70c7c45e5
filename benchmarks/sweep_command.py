"""The command `hmcvi sweep`: its options, and the cells and the executor that they ask for."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from . import compare_command, programs
from .arguments import add_require_converged, number, path, status_of, whole

if TYPE_CHECKING:
    from .sweep_pools import Pool

__all__ = ["EXAMPLES", "add_options", "run"]

EXAMPLES = """\
examples:
  hmcvi sweep --data wine diabetes --model mlp gp --seeds 0 1 2      here, a cell on each core
  hmcvi sweep --data digits --methods nuts svi bbb --seeds 0 1 --workers 2 --cores 4
  hmcvi sweep --data wine --methods nuts hmc svi --by-method         the fits of a cell side by side
  hmcvi sweep --data mnist --model cnn --methods svi bbb --executor dask --scheduler tcp://head:8786
  hmcvi sweep --data digits --seeds 0 1 2 --executor slurm --cores 4 --slurm partition=short minutes=90 memory=8

A cell is a data set, a model and a seed, with all methods: hmcvi compare in OUT/DATA-MODEL-seedN. The same command
again runs what is missing or failed; more data sets, models or seeds are added to what is there.
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options; imports what takes seconds."""
    from .options import option_help
    from .sweep_pools import MOST_JOBS, Slurm

    compare_command.add_question(parser, several_models=True)
    where = parser.add_argument_group("where and how")
    compare_command.add_where(where)
    programs.add_options(where)
    where.add_argument(
        "--out",
        type=path,
        default=Path("runs/sweep"),
        metavar="FOLDER",
        help="a folder for each cell, the cells' words in logs/, how each ended in sweep.json, and the joined "
        "table.csv and table.parquet. Workers must see it under the same path. Default: %(default)s",
    )
    where.add_argument(
        "--executor",
        choices=("local", "dask", "slurm"),
        default="local",
        help="local: processes here; dask: a cluster of dask.distributed; slurm: a job for each cell, by submitit (the "
        "latter two need pip install 'hmcvi[sweep]'). Default: %(default)s",
    )
    where.add_argument(
        "--workers",
        type=whole,
        metavar="N",
        help="cells at a time. Default: here all, as far as there are cores; of a Dask scheduler as many as its "
        f"workers have threads; {MOST_JOBS} jobs of SLURM",
    )
    where.add_argument(
        "--cores",
        type=whole,
        metavar="N",
        help="cores of each cell, on which its bytes may depend. Default: here an equal share, else 1",
    )
    where.add_argument(
        "--scheduler", metavar="ADDRESS", help="the Dask scheduler. Default: a cluster of local processes"
    )
    where.add_argument(
        "--slurm", nargs="+", default=(), metavar="KEY=VALUE", help=f"of each job: {option_help(Slurm)} (GB)"
    )
    where.add_argument("--cell-seconds", type=number, metavar="S", help="end a cell that takes longer. Default: never")
    where.add_argument(
        "--by-method",
        action="store_true",
        help="make the fits of a cell's methods side by side, then score them together: where workers outnumber cells",
    )
    add_require_converged(where)


def run(options: argparse.Namespace) -> int:
    """Run what was asked for and return the exit status."""
    from rich.console import Console

    from hmcvi.inference.export import require_writer

    from .options import UsageError
    from .several import check_reference
    from .sweep import cells_of, sweep

    try:
        require_writer()
    except ValueError as error:
        raise UsageError(str(error)) from error
    _check(options)
    experiments = [
        compare_command.experiment_of(options, data=data, model=model)
        for data in options.data
        for model in options.model
    ]
    for experiment in experiments:
        if options.require_converged:
            check_reference(experiment.asked, f"the methods are {', '.join(experiment.asked)}")
    cells = cells_of(experiments, _how(options), by_method=options.by_method)
    say = Console(stderr=True, highlight=False, markup=False, emoji=False, soft_wrap=True).print
    with _pool(options, sum(len(cell.parts) or 1 for cell in cells)) as pool:
        fault = sweep(
            cells,
            options.out,
            pool,
            say=say,
            seconds=float("inf") if options.cell_seconds is None else options.cell_seconds,
            require_converged=options.require_converged,
        )
    return status_of(fault)


def _check(options: argparse.Namespace) -> None:
    """Raise UsageError where options contradict each other."""
    from .options import UsageError

    if options.scheduler is not None and options.executor != "dask":
        raise UsageError(f"--scheduler is Dask's, and the executor is {options.executor}: add --executor dask")
    if options.slurm and options.executor != "slurm":
        raise UsageError(f"--slurm is for jobs of SLURM, and the executor is {options.executor}: add --executor slurm")
    for flag in ("workers", "cores", "cell_seconds"):
        value = getattr(options, flag)
        if value is not None and not value > 0:
            raise UsageError(f"--{flag.replace('_', '-')} {value:g}: give more than 0")


def _how(options: argparse.Namespace) -> list[str]:
    """Return the arguments of each cell's comparison which say how it is made, and not what."""
    how: Sequence[str] = ["--checkpoint-seconds", f"{options.checkpoint_seconds:g}"]
    figures = ["--no-figures"] if options.no_figures else []
    kept = ["--no-programs"] if options.no_programs else []
    if options.programs is not None:
        kept = ["--programs", str(options.programs.absolute())]
    data = ["--data-dir", options.data_dir] if options.data_dir is not None else []
    return [*how, *figures, *kept, *data]


def _pool(options: argparse.Namespace, cells: int) -> AbstractContextManager[Pool]:
    """Return what opens the executor."""
    from .sweep_pools import dask_pool, local_pool, slurm_pool

    if options.executor == "dask":
        return dask_pool(options.scheduler, options.workers, options.cores, cells)
    if options.executor == "slurm":
        return slurm_pool(options.out / ".slurm", tuple(options.slurm), options.workers, options.cores)
    return local_pool(options.workers, options.cores, cells)
