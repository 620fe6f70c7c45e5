"""The `hmcvi` command."""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from . import compare_command, distributed, programs, sweep_command
from .arguments import Parser, add_data_dir, add_require_converged, path, status_of, whole
from .interrupts import EndingSoon
from .refusal import refuse

__all__ = ["main"]

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
    parser = Parser(
        prog="hmcvi",
        description="Compare HMC, variational inference and Bayes-by-Backprop on one NumPyro model.",
        epilog="hmcvi COMMAND --help explains a command.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    compare = commands.add_parser(
        "compare",
        help="fit one model by several methods and print the scoreboard",
        description="Fit one model by several methods to the same rows, and put their posteriors on one scoreboard.",
        epilog=compare_command.EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    sweeping = commands.add_parser(
        "sweep",
        help="run many comparisons, models × data × methods × seeds, side by side or on a cluster",
        description="Run a comparison for each data set, model and seed, on local processes, a Dask cluster or SLURM, "
        "and put all on one table. A cell that fails is recorded and stops no other; the same command goes on.",
        epilog=sweep_command.EXAMPLES,
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
    reporting.add_argument("runs", nargs="+", type=path, metavar="RUN", help="a run's folder; each gets its own page")
    reporting.add_argument("--out", type=path, metavar="FILE", help="the page of one run. Default: RUN/report.html")
    data = commands.add_parser("data", help="list data sets, or prepare one of TFDS's")
    actions = data.add_subparsers(dest="action", required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="what is bundled, prepared and known, with rows, shape and classes")
    prepare = actions.add_parser(
        "prepare", help="download and prepare a TFDS data set (needs a network and pip install 'hmcvi[prepare]')"
    )
    prepare.add_argument("name", metavar="NAME", help="such as kmnist, or emnist/letters")
    for action in (listing, prepare):
        add_data_dir(action)
    _check_prepared(arguments)
    if "compare" in arguments[:1]:
        # What there is to choose from is known to modules that take seconds to import: only these commands pay.
        compare_command.add_options(compare)
    if "sweep" in arguments[:1]:
        sweep_command.add_options(sweeping)
    parser.parse_args(arguments, options)
    commands_by_name: dict[str, Callable[[argparse.Namespace], int | None]] = {
        "compare": compare_command.run,
        "sweep": sweep_command.run,
        "reproduce": _reproduce,
        "table": _table,
        "report": _report,
        "data": _data,
    }
    command = shlex.join(arguments)
    kept = {
        "compare": f"the same command goes on: hmcvi {command}",
        "sweep": f"the same command goes on: hmcvi {command}",
        "reproduce": "the targets before this one are finished, and their results are saved; the same command, without "
        f"them, goes on: hmcvi {command}",
    }.get(options.command, "nothing was written")
    if options.command == "compare" and not distributed.is_worker():
        place = distributed.find_place(options, os.environ)
        if place is not None:
            return distributed.supervise(place, arguments, distributed.GOES_ON)
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
        type=whole,
        default=(0,),
        metavar="SEED",
        help="several give errors between seeds. Default: 0",
    )
    parser.add_argument(
        "--out", type=path, default=Path("runs/reproduce"), metavar="FOLDER", help="results. Default: %(default)s"
    )
    programs.add_options(parser)
    add_data_dir(parser)


def _reproduce(options: argparse.Namespace) -> int:
    import jax

    # the chains of eight schools run side by side; the number is fixed once JAX has started
    with contextlib.suppress(RuntimeError):
        jax.config.update("jax_num_cpu_devices", 4)

    from .reproduce import list_targets, reproduce

    if options.list:
        list_targets()
        return 0
    programs.keep_programs(options)
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
    parser.add_argument("runs", nargs="+", type=path, metavar="RUN", help="a run's folder")
    parser.add_argument(
        "--format",
        choices=("text", "markdown", "csv", "parquet", "latex"),
        help="csv and parquet hold the scores of every seed, a row each. Default: by the ending of --out, else text",
    )
    parser.add_argument("--out", type=path, metavar="FILE", help="write to a .txt, .md, .csv, .parquet or .tex file")
    parser.add_argument(
        "--scores",
        nargs="+",
        default=(),
        metavar="NAME",
        help='scores to show, such as nll "auroc, entropy", or all. Default: a short list; all in csv and parquet',
    )
    add_require_converged(parser)


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
        return status_of(fault)
    content = formats.render(join(runs), format, options.scores)
    if options.out is not None:
        formats.write(options.out, content)
    else:
        print(content, end="")
    return status_of(fault)


if __name__ == "__main__":
    exit_status = main()
    if distributed.is_worker():
        distributed.end(exit_status)
    sys.exit(exit_status)
