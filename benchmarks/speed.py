"""How fast is hmcvi beside what a user would pick instead? `make speed`.

Each case counts one thing: seconds until a reference has converged, gradients, training steps or scorings. Whoever
takes part runs in a process of its own and takes turns with the others within each round, so that a machine that slows
down slows all of them. That the work is the same is checked by its results: a log joint, a gradient's length, scores,
predictions; training by stochastic estimates has none to compare, and there it is the number of weights. Compiling is
apart, and whoever fails is in the table with the reason. Ratios, taken within rounds, are what carries over to another
machine; no test reads them.
"""

from __future__ import annotations

import argparse
import dataclasses
import subprocess
import sys
import time
from collections.abc import Collection, Sequence
from pathlib import Path

from rich.console import Console

from . import speed_driver, speed_gp, speed_gradient, speed_nuts, speed_scoring, speed_vi
from .reproduce import where
from .run_folder import made_with
from .speed_process import Case, measure
from .speed_table import Measurement, publish, shown

__all__ = ["all_cases", "main"]

FAMILIES = (speed_nuts, speed_driver, speed_gradient, speed_vi, speed_scoring, speed_gp)

ROUNDS, QUICK_ROUNDS = 5, 2


def all_cases(quick: bool) -> dict[str, Case]:
    """Return the cases by name."""
    return {case.name: case for family in FAMILIES for case in family.cases(quick)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the tables, publish them where that is asked for, and return 0."""
    known = all_cases(quick=False)
    parser = argparse.ArgumentParser(prog="python -m hmcvi.benchmarks.speed", description=__doc__)
    parser.add_argument(
        "--cases",
        nargs="+",
        metavar="CASE",
        help=f"what to measure, by its name or the beginning of several: {', '.join(known)}. Default: all",
    )
    parser.add_argument(
        "--without",
        nargs="+",
        default=(),
        metavar="CONTESTANT",
        help="who takes no part, by name: a table then says whom it leaves out. Default: nobody",
    )
    parser.add_argument(
        "--rounds", type=int, help=f"rounds of each case. Default: {ROUNDS}, or {QUICK_ROUNDS} with --quick"
    )
    parser.add_argument("--quick", action="store_true", help="small sizes and few rounds: to see that it works")
    parser.add_argument(
        "--torch-python",
        metavar="PYTHON",
        help="an interpreter that has torch, pyro-ppl and bayesian-torch. Default: this one, as far as it has them "
        "(pip install 'hmcvi[peers]')",
    )
    parser.add_argument(
        "--publish",
        type=Path,
        metavar="FOLDER",
        help="write speed.csv and speed.md there; cases that are not measured now stay as they were published",
    )
    options = parser.parse_args(arguments)
    rounds = (QUICK_ROUNDS if options.quick else ROUNDS) if options.rounds is None else options.rounds
    if rounds < 1:
        parser.error(f"--rounds {rounds}: give at least 1")
    for asked in options.cases or ():
        if not any(name.startswith(asked) for name in known):
            parser.error(f"no case {asked!r}: give some of {', '.join(known)}")
    cases = [
        _without(options.without, case)
        for name, case in all_cases(options.quick).items()
        if options.cases is None or any(_means(asked, name, known) for asked in options.cases)
    ]
    there = {one.name for case in known.values() for one in case.contestants}
    if unknown := set(options.without) - there:
        parser.error(f"no contestant {min(unknown)!r}: give some of {'; '.join(sorted(there))}")
    if any(len({one.ours for one in case.contestants}) < 2 for case in cases):
        parser.error("--without leaves a case nothing of hmcvi's or nothing to set it beside: leave fewer out")
    _check_interpreter(parser, options.torch_python)
    console = Console(width=100, highlight=False, markup=False, emoji=False)
    say = Console(stderr=True, highlight=False, markup=False, emoji=False, soft_wrap=True).print
    versions = ", ".join(f"{name} {version}" for name, version in made_with()["versions"].items())
    made = {"date": time.strftime("%Y-%m-%d"), "device": where(), "versions": versions}
    console.print(f"On {made['device']}; {versions}; {rounds} round{'s' if rounds > 1 else ''}.\n")
    for case in cases:
        found: list[Measurement] = measure(case, rounds, options.torch_python, say)
        console.print(shown(found))
        if options.publish is not None and not options.quick:
            publish(options.publish, found, made)  # after each case: the whole takes hours
    console.print(
        "Medians over rounds (lowest to highest). Times as fast: taken within rounds, above 1 where hmcvi is faster.",
        style="dim",
    )
    if options.quick:
        console.print("--quick: too short and too small to conclude anything from; nothing is published.", style="dim")
    return 0


def _means(asked: str, name: str, known: Collection[str]) -> bool:
    """Return whether a case is the one asked for, or begins as asked where none is called that."""
    return name == asked if asked in known else name.startswith(asked)


def _without(names: Collection[str], case: Case) -> Case:
    """Return the case without these contestants, of whom its title tells."""
    left_out = [one.name for one in case.contestants if one.name in names]
    if not left_out:
        return case
    kept = tuple(one for one in case.contestants if one.name not in names)
    return dataclasses.replace(case, contestants=kept, title=f"{case.title}; left out: {'; '.join(left_out)}")


def _check_interpreter(parser: argparse.ArgumentParser, python: str | None) -> None:
    if python is None:
        return
    try:
        subprocess.run([python, "-c", ""], check=True, capture_output=True)
    except OSError as error:
        parser.error(f"--torch-python {python} cannot be run ({error.strerror})")
    except subprocess.CalledProcessError as error:
        parser.error(f"--torch-python {python} is no Python: it ended with status {error.returncode}")


if __name__ == "__main__":
    sys.exit(main())
