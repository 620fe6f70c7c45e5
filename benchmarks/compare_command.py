"""The command `hmcvi compare`: its options, and the experiments that they ask for."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from . import distributed, programs
from .arguments import add_data_dir, add_require_converged, interval, number, path, status_of, whole

if TYPE_CHECKING:
    from .experiment import Experiment

__all__ = ["EXAMPLES", "add_options", "add_question", "add_where", "experiment_of", "run", "spread_chains"]

EXAMPLES = """\
examples:
  hmcvi compare                                    digits, a Bayesian MLP, all three methods
  hmcvi compare --model cnn --methods svi bbb      a Bayesian CNN, variational methods only
  hmcvi compare --data wave --model gp             bands of a Gaussian process on a curve with a gap
  hmcvi compare --data houses.csv --target price   your own table
  hmcvi compare --data digits wine --seeds 0 1 2   a run of each, and one table of means and errors
  hmcvi compare --data mnist --rows 2000 --ood fashion_mnist --shift rotation blur
  hmcvi compare --nuts num_draws=2000 --bbb init_scale=0.1 --model-options widths=32,32 prior=laplace

The same command again continues what was interrupted, and reads what is finished.
"""

MOST_DEVICES = 8
"""Host devices that chains are spread over at most; further chains take turns."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options; what there is to choose from is known to modules that take seconds to import."""
    add_question(parser)
    where = parser.add_argument_group("where and how")
    add_where(where)
    programs.add_options(where)
    devices = parser.add_argument_group("many devices, several processes")
    distributed.add_options(devices, whole)
    where.add_argument(
        "--out",
        type=path,
        metavar="FOLDER",
        help="the run's folder: report.html, ArviZ trees, table.csv, table.parquet, configuration, manifest, figures. "
        "Default: runs/DATA-MODEL-HASH; of several data sets each has FOLDER/DATA",
    )
    where.add_argument("--quiet", action="store_true", help="show no progress: print the scoreboard only")
    add_require_converged(where)


def add_question(parser: argparse.ArgumentParser, *, several_models: bool = False) -> None:
    """Add the options of what to compare, and its hyperparameters; imports what takes seconds."""
    from hmcvi.inference.backprop import KL_WEIGHTINGS
    from hmcvi.inference.training import SCHEDULES
    from hmcvi.models.kernels import KERNELS
    from hmcvi.models.likelihoods import ACTIVATIONS
    from hmcvi.models.priors import PRIORS

    from . import datasets, ood
    from .experiment import METHODS, MODELS, MOST_TEST_ROWS, Experiment
    from .options import OPTIMIZERS, STARTS, option_help
    from .shifts import SHIFTS

    default = Experiment()
    what = parser.add_argument_group("what to compare")
    what.add_argument(
        "--data",
        nargs="+",
        default=[default.data],
        metavar="NAME_OR_FILE",
        help="a data set, or several for a run each and one table of all "
        f"({', '.join(datasets.known())}), any other TFDS image set (see hmcvi data list), or your own "
        f".csv, .parquet (with --target) or .npz file (arrays x and y). Default: {default.data}",
    )
    what.add_argument("--target", metavar="COLUMN", help="the column of a table to predict")
    what.add_argument(
        "--task", choices=("classification", "regression"), help="what a file is for. Default: read off its target"
    )
    what.add_argument("--rows", type=whole, metavar="N", help="keep N training rows, balanced by class. Default: all")
    what.add_argument(
        "--test-rows",
        type=whole,
        metavar="N",
        help=f"keep N test rows, and as many of other sets. Default: all, up to {MOST_TEST_ROWS:,}",
    )
    what.add_argument(
        "--splits",
        metavar="FILE",
        help="published row numbers, counted from 0: a .npz or .json with train, test and perhaps validation, or text "
        "files by a pattern such as index_{part}_{seed}.txt. Default: the data set's own split, or a fifth to test on",
    )
    what.add_argument(
        "--tune",
        action="store_true",
        help="score on validation rows (the data set's, those of --splits, or a fifth of the training rows) and leave "
        "the test rows unread: for choosing hyperparameters",
    )
    what.add_argument(
        "--image-size", type=whole, metavar="N", help="resize a TFDS set's images to N x N. Default: 32 if sizes vary"
    )
    add_data_dir(what)
    what.add_argument(
        "--model",
        nargs="+" if several_models else None,
        default=[default.model] if several_models else default.model,
        metavar="MODEL",
        help=f"{'one or several of ' if several_models else ''}{', '.join(MODELS)}. Default: {default.model}",
    )
    what.add_argument(
        "--methods",
        nargs="+",
        metavar="METHOD",
        help=f"any of {', '.join(METHODS)} (hmc has trajectories of a fixed length; mclmc, "
        f"unadjusted microcanonical Langevin dynamics, and mams, its Metropolis-adjusted form, need pip install "
        f"'hmcvi[samplers]'; bbb is Bayes-by-Backprop "
        f"with Flipout; map and ensemble are baselines: maximum a posteriori, and a deep ensemble of it). Default: "
        f"{' '.join(default.asked)}, without nuts where the data make it too costly",
    )
    what.add_argument(
        "--seeds",
        nargs="+",
        type=whole,
        default=default.seeds,
        metavar="SEED",
        help="each is a split of the data and a random key; several give errors between seeds. Default: 0",
    )
    what.add_argument(
        "--ood",
        nargs="*",
        metavar="NAME",
        help=f"inputs from elsewhere: {', '.join(ood.known())}, another TFDS set, a file; some take an argument "
        "(held_out:8,9, gap:COLUMN, contrast:0.5) or a severity (blur@3), and + chains them (rotation:30+blur@2). "
        "Nothing after --ood means none. Default: a choice for the data set",
    )
    what.add_argument(
        "--shift",
        nargs="+",
        default=(),
        metavar="NAME",
        help="score at severities 1 to 5 of each of these (no argument, no chain) and draw the curves: "
        f"{', '.join(sorted(name for name, shift in SHIFTS.items() if shift.image_levels or shift.table_levels))}",
    )
    how = parser.add_argument_group("hyperparameters, each as KEY=VALUE")
    models = [f"{name}: {option_help(model)}" for name, model in MODELS.items()]
    choices: dict[str, Iterable[str]] = {
        "activation": ACTIVATIONS,
        "kernel": KERNELS,
        "prior": PRIORS,
        "optimizer": OPTIMIZERS,
        "start": STARTS,
        "schedule": SCHEDULES,
        "kl_weighting": KL_WEIGHTINGS,
    }
    listed = [f"{key} is one of {', '.join(known)}" for key, known in choices.items()]
    how.description = "\n".join(
        [
            "models and their options:",
            *models,
            *listed,
            "a prior takes a scale, as in normal:1; sgd a momentum, as in sgd:0.9; start a gain or a number of steps, "
            "as in fan_in:0.5 or map:5000",
        ]
    )
    how.add_argument("--model-options", nargs="+", default=(), metavar="KEY=VALUE", help="of the model, see above")
    for group in dict.fromkeys(group for group, _ in METHODS.values()):
        make: Any = METHODS[group][1]
        how.add_argument(f"--{group}", nargs="+", default=(), metavar="KEY=VALUE", help=option_help(make))


def add_where(where: argparse._ArgumentGroup) -> None:
    """Add the options of how a run is made, wherever it is made."""
    budgets = where.add_mutually_exclusive_group()
    budgets.add_argument(
        "--budget-seconds",
        type=number,
        metavar="S",
        help="allow every method S seconds of its compiled loop (compile time apart), and draw scores against seconds",
    )
    budgets.add_argument(
        "--budget-gradients",
        type=number,
        metavar="G",
        help="allow every method G gradient evaluations over all training rows (or of as many rows in minibatches), "
        "and draw scores against them",
    )
    where.add_argument("--quick", action="store_true", help="tiny budgets, to see that all works")
    where.add_argument(
        "--checkpoint-seconds",
        type=interval,
        default=30.0,
        metavar="S",
        help="keep a running fit every S seconds (0: after every compiled call). Default: %(default)g",
    )
    where.add_argument("--no-figures", action="store_true", help="draw no figures: they take half a minute")


def experiment_of(options: argparse.Namespace, *, data: str, model: str) -> Experiment:
    """Return the experiment that the options ask for, on this data set with this model."""
    from .budget import Budget
    from .experiment import METHODS, Experiment

    budget = None
    if options.budget_seconds is not None:
        budget = Budget(options.budget_seconds, "seconds")
    elif options.budget_gradients is not None:
        budget = Budget(options.budget_gradients, "passes")
    return Experiment(
        data=data,
        model=model,
        methods=None if options.methods is None else tuple(options.methods),
        seeds=tuple(options.seeds),
        ood=None if options.ood is None else tuple(options.ood),
        shifts=tuple(options.shift),
        rows=options.rows,
        test_rows=options.test_rows,
        target=options.target,
        task=options.task,
        splits=options.splits,
        tune=options.tune,
        image_size=options.image_size,
        data_dir=options.data_dir,
        quick=options.quick,
        budget=budget,
        options={group: tuple(getattr(options, group)) for group, _ in METHODS.values()}
        | {"model": tuple(options.model_options)},
    )


def spread_chains(experiment: Experiment, number: int | None = None) -> None:
    """Have as many host devices as the mesh takes, or as the experiment has chains, which then run in parallel.

    Their number is fixed once JAX has started: then chains take turns.
    """
    import jax

    chains = max((getattr(experiment.method(name), "num_chains", 1) for name in experiment.asked), default=1)
    with contextlib.suppress(RuntimeError):
        jax.config.update("jax_num_cpu_devices", number or min(chains, MOST_DEVICES))


def run(options: argparse.Namespace) -> int:
    """Run what was asked for, with other processes where there are some, and return the exit status."""
    place = distributed.find_place(options, os.environ)
    if place is None:
        return _run(options, None)
    from jax.errors import JaxRuntimeError

    from hmcvi.inference import FitError

    try:
        try:
            status = _run(options, place)
        except FitError:
            with contextlib.suppress(JaxRuntimeError):  # what failed says more than who did not answer
                distributed.leave()  # every process came to it: none is to take it for the end of another
            raise
        distributed.leave()
        return status
    except Exception as error:
        if distributed.is_lost(error):
            raise distributed.LostError(distributed.lost_sentence(place, distributed.GOES_ON)) from error
        raise


def _run(options: argparse.Namespace, place: distributed.Place | None) -> int:
    from hmcvi.inference.export import require_writer

    from .options import UsageError

    try:
        require_writer()
    except ValueError as error:
        raise UsageError(str(error)) from error
    programs.keep_programs(options)
    experiment = dataclasses.replace(
        experiment_of(options, data=options.data[0], model=options.model),
        chains_per_device=options.chains_per_device,
        shard_rows=options.shard_rows,
        rows_across_processes=options.rows_across_processes,
    )
    spread_chains(experiment, _devices(experiment, place))
    if place is not None:
        if len(options.data) > 1:
            raise UsageError(f"--data names {len(options.data)} data sets: several processes make one run at a time")
        distributed.begin(place)

    from hmcvi.inference.processes import is_first

    from .compare import compare
    from .several import compare_several

    if not is_first():  # whose tables the first process prints
        compare(experiment, options.out, figures=False, quiet=True, checkpoint_seconds=options.checkpoint_seconds)
        return 0

    experiments = [experiment, *(dataclasses.replace(experiment, data=data) for data in options.data[1:])]
    fault = compare_several(
        experiments,
        options.out,
        figures=not options.no_figures,
        quiet=options.quiet,
        require_converged=options.require_converged,
        checkpoint_seconds=options.checkpoint_seconds,
    )
    return status_of(fault)


def _devices(experiment: Any, place: distributed.Place | None) -> int | None:
    """Return how many host devices this process makes for the mesh; None without one."""
    from .layout import mesh_shape
    from .options import UsageError

    shape = mesh_shape(experiment)
    if shape is None:
        return None
    groups, rows = shape
    processes = 1 if place is None else place.num_processes
    if groups * rows % processes:
        raise UsageError(
            f"the mesh of {groups} chain shards x {rows} row shards takes {groups * rows} devices, which cannot be "
            f"divided over {processes} processes: change --chains-per-device, --shard-rows or the number of chains"
        )
    return groups * rows // processes
