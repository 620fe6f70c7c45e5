"""The `hmcvi` command."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from .interrupts import EndingSoon
from .refusal import refuse, say

__all__ = ["main"]

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

PIPE_CLOSED = 141
"""The exit status where nobody reads the output any more: 128 and the number of SIGPIPE, as shells have it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status.

    0 done, 1 failed on the way, 2 asked for something impossible, 70 a fault of hmcvi itself, 130 or 143 interrupted.
    Whatever is wrong is said in one sentence on standard error; no traceback is shown.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a letter that the terminal lacks must not end a run
            stream.reconfigure(errors="backslashreplace")
    options = argparse.Namespace(command=None)
    try:
        status = _run(arguments, options)
        sys.stdout.flush()  # here, where a full disk or a closed pipe can still be said
    except BrokenPipeError:  # whoever reads the output has seen enough, as head does
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    except KeyboardInterrupt:  # before anything was begun
        print("hmcvi: interrupted; nothing was written", file=sys.stderr)
        return 130
    except Exception as error:
        return refuse(error, options)
    return status


def _run(arguments: Sequence[str], options: argparse.Namespace) -> int:
    """Run the command; what it was asked for is put into `options`."""
    parser = _Parser(
        prog="hmcvi",
        description="Compare HMC, variational inference and Bayes-by-Backprop on one NumPyro model.",
        epilog="hmcvi COMMAND --help explains a command.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    compare = commands.add_parser(
        "compare",
        help="fit one model by several methods and print the scoreboard",
        description="Fit one model by several methods to the same rows, and put their posteriors on one scoreboard.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    reproducing = commands.add_parser(
        "reproduce",
        help="run published results anew: measured against published, pass or fail",
        description="Run published results anew and print measured against published, with pass or fail. The exit "
        "status is 0 where all pass and 1 where one fails.",
    )
    _add_reproduce_options(reproducing)
    table = commands.add_parser(
        "table",
        help="print the scoreboard of a finished run, or join several runs in one grouped table",
        description="Print the scoreboard of one finished run. Several runs, a format, a file or scores give one "
        "grouped table: a block for each data set and model, a column for each method, means and errors over seeds. "
        "Runs that differ in prior, likelihood, temperature, data, split or a method's settings are refused.",
    )
    _add_table_options(table)
    reporting = commands.add_parser(
        "report",
        help="write a finished run as one page that needs no network",
        description="Write a finished run as one HTML page that needs no network and can be sent: the question, the "
        "scoreboard (sortable), the verdicts, the figures and how to read them, the set-up and how to repeat it.",
    )
    reporting.add_argument("runs", nargs="+", type=_path, metavar="RUN", help="a run's folder; each gets its own page")
    reporting.add_argument("--out", type=_path, metavar="FILE", help="the page of one run. Default: RUN/report.html")
    data = commands.add_parser("data", help="list data sets, or prepare one of TFDS's")
    actions = data.add_subparsers(dest="action", required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="what is bundled, prepared and known, with rows, shape and classes")
    prepare = actions.add_parser(
        "prepare", help="download and prepare a TFDS data set (needs a network and pip install 'hmcvi[prepare]')"
    )
    prepare.add_argument("name", metavar="NAME", help="such as kmnist, or emnist/letters")
    for action in (listing, prepare):
        _add_data_dir(action)
    _check_prepared(arguments)
    if "compare" in arguments[:1]:
        # What there is to choose from is known to modules that take seconds to import: only this command pays.
        _add_compare_options(compare)
    parser.parse_args(arguments, options)
    commands_by_name: dict[str, Callable[[argparse.Namespace], int | None]] = {
        "compare": _compare,
        "reproduce": _reproduce,
        "table": _table,
        "report": _report,
        "data": _data,
    }
    command = shlex.join(arguments)
    kept = {
        "compare": f"the same command goes on: hmcvi {command}",
        "reproduce": "the targets before this one are finished, and their results are saved; the same command, without "
        f"them, goes on: hmcvi {command}",
    }.get(options.command, "nothing was written")
    ending = EndingSoon(kept)
    try:
        with ending:
            return commands_by_name[options.command](options) or 0
    except KeyboardInterrupt as error:
        state = [str(error)] if str(error) else []
        print("; ".join(["hmcvi: interrupted", *state, kept]), file=sys.stderr)
        return ending.status


def _check_prepared(arguments: Sequence[str]) -> None:
    """Raise DataError where a TFDS set is asked for that is not prepared: at once, before JAX is imported."""
    parser = argparse.ArgumentParser(add_help=False, exit_on_error=False)
    parser.add_argument("--data", nargs="*", default=())
    parser.add_argument("--data-dir")
    parser.add_argument("--ood", nargs="*", default=())
    try:
        asked, _ = parser.parse_known_args(arguments)
    except argparse.ArgumentError:
        return  # the whole parser says it better
    if not asked.data and not asked.ood:
        return
    from . import datasets, ood
    from .tfds_catalogue import find_prepared

    sources = [*(asked.data or ["digits"]), *map(ood.source_of, asked.ood)]
    for name in filter(None, sources):
        if datasets.is_tfds_source(name, data_dir=asked.data_dir):
            find_prepared(name, data_dir=asked.data_dir)


class _Parser(argparse.ArgumentParser):
    """One that says what is wrong in a sentence, without a screen of usage before it."""

    def error(self, message: str) -> NoReturn:
        """Say it and exit with status 2."""
        say(f"{message}; {self.prog} --help lists what there is")
        raise SystemExit(2)


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text[:80]!r} is no whole number") from None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text[:80]!r} is no number") from None


def _interval(text: str) -> float:
    seconds = _number(text)
    if not seconds >= 0:
        raise argparse.ArgumentTypeError(f"{text} is no number of seconds of at least 0")
    return seconds


def _path(text: str) -> Path:
    try:
        is_path = bool(text.strip()) and b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        is_path = False
    if not is_path:
        raise argparse.ArgumentTypeError(f"{text[:80]!r} is no path")
    return Path(text)


def _add_compare_options(parser: argparse.ArgumentParser) -> None:
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
    what.add_argument("--rows", type=_whole, metavar="N", help="keep N training rows, balanced by class. Default: all")
    what.add_argument(
        "--test-rows",
        type=_whole,
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
        "--image-size", type=_whole, metavar="N", help="resize a TFDS set's images to N x N. Default: 32 if sizes vary"
    )
    _add_data_dir(what)
    what.add_argument(
        "--model",
        default=default.model,
        metavar="MODEL",
        help=f"{', '.join(MODELS)}. Default: %(default)s",
    )
    what.add_argument(
        "--methods",
        nargs="+",
        metavar="METHOD",
        help=f"any of {', '.join(METHODS)} (hmc has trajectories of a fixed length; mclmc, "
        f"unadjusted microcanonical Langevin dynamics, needs pip install 'hmcvi[samplers]'; bbb is Bayes-by-Backprop "
        f"with Flipout; map and ensemble are baselines: maximum a posteriori, and a deep ensemble of it). Default: "
        f"{' '.join(default.asked)}, without nuts where the data make it too costly",
    )
    what.add_argument(
        "--seeds",
        nargs="+",
        type=_whole,
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
    where = parser.add_argument_group("where and how")
    budgets = where.add_mutually_exclusive_group()
    budgets.add_argument(
        "--budget-seconds",
        type=_number,
        metavar="S",
        help="allow every method S seconds of its compiled loop (compile time apart), and draw scores against seconds",
    )
    budgets.add_argument(
        "--budget-gradients",
        type=_number,
        metavar="G",
        help="allow every method G gradient evaluations over all training rows (or of as many rows in minibatches), "
        "and draw scores against them",
    )
    where.add_argument(
        "--out",
        type=_path,
        metavar="FOLDER",
        help="the run's folder: report.html, ArviZ trees, table.csv, table.parquet, configuration, manifest, figures. "
        "Default: runs/DATA-MODEL-HASH; of several data sets each has FOLDER/DATA",
    )
    where.add_argument("--quick", action="store_true", help="tiny budgets, to see that all works")
    where.add_argument(
        "--checkpoint-seconds",
        type=_interval,
        default=30.0,
        metavar="S",
        help="keep a running fit every S seconds (0: after every compiled call). Default: %(default)g",
    )
    where.add_argument("--no-figures", action="store_true", help="draw no figures: they take half a minute")
    where.add_argument("--quiet", action="store_true", help="show no progress: print the scoreboard only")
    _add_require_converged(where)


def _add_require_converged(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--require-converged",
        action="store_true",
        help="exit with status 1 where nuts, the reference, is unconverged at any seed, and with 2 where it is absent",
    )


def _compare(options: argparse.Namespace) -> int:
    import jax

    from hmcvi.inference.export import require_writer

    from .budget import Budget
    from .experiment import METHODS, Experiment
    from .options import UsageError

    try:
        require_writer()
    except ValueError as error:
        raise UsageError(str(error)) from error
    budget = None
    if options.budget_seconds is not None:
        budget = Budget(options.budget_seconds, "seconds")
    elif options.budget_gradients is not None:
        budget = Budget(options.budget_gradients, "passes")
    experiment = Experiment(
        data=options.data[0],
        model=options.model,
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
    chains = max((getattr(experiment.method(name), "num_chains", 1) for name in experiment.asked), default=1)
    # Chains run in parallel over host devices, whose number is fixed once JAX has started: then they take turns.
    with contextlib.suppress(RuntimeError):
        jax.config.update("jax_num_cpu_devices", min(chains, MOST_DEVICES))

    from .several import compare_several

    experiments = [experiment, *(dataclasses.replace(experiment, data=data) for data in options.data[1:])]
    fault = compare_several(
        experiments,
        options.out,
        figures=not options.no_figures,
        quiet=options.quiet,
        require_converged=options.require_converged,
        checkpoint_seconds=options.checkpoint_seconds,
    )
    return _unconverged(fault)


def _unconverged(sentence: str) -> int:
    """Say that the reference is unconverged, where it is required and so, and return the exit status."""
    if sentence:
        print(f"hmcvi: {sentence}", file=sys.stderr)
    return 1 if sentence else 0


def _add_reproduce_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="what to reproduce (see --list). Default: all")
    parser.add_argument("--list", action="store_true", help="list the targets with their sources, and run nothing")
    parser.add_argument(
        "--quick", action="store_true", help="subsets of the data, under 2 minutes each: what they can show"
    )
    parser.add_argument(
        "--tune", action="store_true", help="score on a fifth of the training rows instead, and judge nothing"
    )
    parser.add_argument(
        "--set",
        nargs="+",
        default=(),
        metavar="KEY=VALUE",
        help="with --tune and one TARGET: other settings of its run",
    )
    parser.add_argument(
        "--seeds",
        nargs="+",
        type=_whole,
        default=(0,),
        metavar="SEED",
        help="several give errors between seeds. Default: 0",
    )
    parser.add_argument(
        "--out", type=_path, default=Path("runs/reproduce"), metavar="FOLDER", help="results. Default: %(default)s"
    )
    _add_data_dir(parser)


def _reproduce(options: argparse.Namespace) -> int:
    import jax

    # the chains of eight schools run side by side; the number is fixed once JAX has started
    with contextlib.suppress(RuntimeError):
        jax.config.update("jax_num_cpu_devices", 4)

    from .reproduce import list_targets, reproduce

    if options.list:
        list_targets()
        return 0
    passed = reproduce(
        options.targets,
        quick=options.quick,
        tune=options.tune,
        settings=options.set,
        seeds=options.seeds,
        out=options.out,
        data_dir=options.data_dir,
    )
    return 0 if passed else 1


def _add_data_dir(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--data-dir", metavar="FOLDER", help="TFDS's data folder. Default: $TFDS_DATA_DIR, else ~/tensorflow_datasets"
    )


def _data(options: argparse.Namespace) -> None:
    from .data_command import list_data, prepare_data

    if options.action == "list":
        list_data(options.data_dir)
    else:
        prepare_data(options.name, options.data_dir)


def _report(options: argparse.Namespace) -> None:
    from .options import UsageError
    from .report import write_report

    if options.out is not None and len(options.runs) > 1:
        raise UsageError(f"--out names one page and {len(options.runs)} runs were given: give one run, or leave --out")
    for run in options.runs:
        print(write_report(run, options.out))


def _add_table_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs="+", type=_path, metavar="RUN", help="a run's folder")
    parser.add_argument(
        "--format",
        choices=("text", "markdown", "csv", "parquet", "latex"),
        help="csv and parquet hold the scores of every seed, a row each. Default: by the ending of --out, else text",
    )
    parser.add_argument("--out", type=_path, metavar="FILE", help="write to a .txt, .md, .csv, .parquet or .tex file")
    parser.add_argument(
        "--scores",
        nargs="+",
        default=(),
        metavar="NAME",
        help='scores to show, such as nll "auroc, entropy", or all. Default: a short list; all in csv and parquet',
    )
    _add_require_converged(parser)


def _table(options: argparse.Namespace) -> int:
    from . import formats
    from .finished import check_temperatures, read_finished, unconverged
    from .joined import join
    from .table import print_scoreboard, read_run

    format = formats.choose_format(options.format, options.out)
    scoreboard = len(options.runs) == 1 and format == "text" and options.out is None and not options.scores
    runs = [read_finished(folder) for folder in options.runs] if options.require_converged or not scoreboard else []
    fault = unconverged(runs) if options.require_converged else ""
    if scoreboard:
        table, summary = read_run(options.runs[0])
        check_temperatures(options.runs[0], summary)
        print_scoreboard(table, summary)
        return _unconverged(fault)
    content = formats.render(join(runs), format, options.scores)
    if options.out is not None:
        formats.write(options.out, content)
    else:
        print(content, end="")
    return _unconverged(fault)


if __name__ == "__main__":
    sys.exit(main())
