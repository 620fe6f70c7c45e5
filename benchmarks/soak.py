"""Does a long session stay as large as it was, and does a sweep that is killed end as one that is not? `make soak`.

For the minutes asked, two things run side by side:

- fits, one after the other in one process: NUTS, SVI, Bayes-by-Backprop, MAP and Laplace by turns, on an MLP, a
  Gaussian process and a CNN, each of which compiles programs of its own, is predicted from, scored and written as an
  ArviZ tree. After each the memory of the process is noted. Rows and sizes differ, in two ways by turns: what runs
  op by op JAX compiles for each shape and keeps, some thousand programs at most, which is a cache and no leak
  (`--shapes` takes another number);
- a sweep of `hmcvi compare --quick` in a process of its own, killed at random moments and started again until it is
  finished, then begun anew in an empty folder; see `soak_sweep.py`.

The verdict is "steady" where the resident memory grew by under 50 MiB, or by under 5 %, over the last three quarters
of the fits: the median of their last tenth less the median of the tenth that follows the first quarter. What comes
before is not held against it, as libraries are loaded and JAX's caches filled then. The slope, a Theil–Sen fit, is that
of the second half. What is in use of the heap is told beside it: the resident memory also holds what was freed and
not given back.
"""

from __future__ import annotations

import argparse
import csv
import importlib.metadata
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import Any

import jax
import numpy as np
import psutil
from rich.console import Console
from scipy.stats import theilslopes

from hmcvi import plots
from hmcvi.inference import fit, save_datatree, to_datatree
from hmcvi.plots.memory import memory_curve

from .evaluate import evaluate
from .experiment import Experiment
from .memory import heap_in_use
from .records import fit_record
from .reproduce import where
from .run_folder import made_with, write_whole
from .soak_sweep import COMMAND, Sweep, same_tables, sweeps

__all__ = ["Growth", "growth", "main", "request"]

MIB = 2**20

MOST_GROWTH, MOST_SHARE = 50.0, 0.05
"""What steady memory may grow by over the last three quarters of a run, in MiB or as a share of what it was."""

LEAST_FITS = 40
"""Fits that a verdict is given on at least: each tenth, whose median is taken, then holds four."""

BLOCKS = 20
"""Stretches of the second half whose medians the slope is fitted to: neighbours share what JAX compiled or freed."""

CASES: tuple[tuple[str, str, dict[str, tuple[int, int]]], ...] = (
    ("mlp", "wine", {"widths": (3, 12)}),
    ("gp", "wave", {}),
    ("cnn", "digits", {"channels": (2, 5), "widths": (3, 8)}),
)
"""Model, data set, and the range of each size that differs from fit to fit, as do the rows."""

ROWS, TEST_ROWS = (50, 90), (20, 36)
"""Ranges of training and test rows; 36 is all that wine has."""

SHAPES = 2
"""Shapes of each model unless said otherwise: 30 fits see them all, before the first quarter of an hour is over."""

BUDGETS = {
    "nuts": ("num_warmup=20", "num_draws=20", "num_chains=2", "max_tree_depth=5"),
    "svi": ("num_steps=200", "num_draws=50"),
    "bbb": ("num_steps=200", "num_draws=50"),
    "map": ("num_steps=200",),
    "laplace": ("num_steps=200", "num_draws=50"),
}
"""Options of the methods, which take turns: budgets under which compiling takes longer than running."""

COLUMNS = ("fit", "minutes", "model", "method", "seconds", "resident_mib", "in_use_mib", "live_arrays")


@dataclass(frozen=True)
class Growth:
    """How the resident memory of a run went on after its beginning.

    Attributes:
        slope: MiB per 100 fits in the second half.
        standard_error: of the slope.
        intercept: MiB at fit 0 of that line.
        quarter: MiB after the first quarter.
        half: MiB after the first half.
        end: MiB at the end.
    """

    slope: float
    standard_error: float
    intercept: float
    quarter: float
    half: float
    end: float

    @property
    def grown(self) -> float:
        """MiB over the last three quarters."""
        return self.end - self.quarter

    @property
    def steady(self) -> bool:
        """Whether that is under 50 MiB, or under 5 %."""
        return self.grown < max(MOST_GROWTH, MOST_SHARE * self.quarter)


def growth(resident: np.ndarray) -> Growth:
    """Return how resident memory went on.

    The slope is the median of those between all pairs of medians of 20 stretches (Theil 1950; Sen 1968), which no
    single leap moves. Its standard error is half of the interval that holds 68 % of it, were the stretches independent.

    Arguments:
        resident: MiB after each fit (fit,), at least 40 of them.

    Raises:
        ValueError: there are fewer.

    Example:
        >>> found = growth(1000 + 0.5 * np.arange(200))
        >>> round(found.slope, 6), found.grown, found.steady
        (50.0, 65.0, False)
    """
    number = len(resident)
    if number < LEAST_FITS:
        raise ValueError(f"resident holds {number} fits: give at least {LEAST_FITS}, by more minutes")
    fits = np.arange(1, number + 1)
    kept = np.array_split(np.arange(number // 2, number), BLOCKS)
    medians = [(np.median(fits[part]), np.median(resident[part])) for part in kept]
    at, level = np.array(medians).T
    slope, intercept, low, high = theilslopes(level, at, alpha=0.6827)
    tenth = number // 10
    quarter, half = (float(np.median(resident[first : first + tenth])) for first in (number // 4, number // 2))
    return Growth(
        slope=100 * float(slope),
        standard_error=100 * float(high - low) / 2,
        intercept=float(intercept),
        quarter=quarter,
        half=half,
        end=float(np.median(resident[-tenth:])),
    )


def request(number: int, shapes: int = SHAPES) -> tuple[str, Experiment]:
    """Return the method of the number-th fit and what it is asked to fit.

    Arguments:
        number: counts from 0: methods take turns, then models, then shapes.
        shapes: shapes of each model, over and over.
    """
    names = tuple(BUDGETS)
    name = names[number % len(names)]
    model, data, sizes = CASES[number // len(names) % len(CASES)]
    generator = np.random.default_rng(number // (len(names) * len(CASES)) % shapes)

    def size(ends: tuple[int, int]) -> int:
        return int(generator.integers(*ends, endpoint=True))

    return name, Experiment(
        data=data,
        model=model,
        methods=(name,),
        seeds=(number,),
        ood=(),
        rows=size(ROWS),
        test_rows=size(TEST_ROWS),
        options={"model": tuple(f"{option}={size(ends)}" for option, ends in sizes.items()), **BUDGETS},
    )


def fit_once(number: int, shapes: int, folder: Path) -> dict[str, Any]:
    """Make the number-th fit with all that is asked of it, and return its row of `COLUMNS` but for the minutes."""
    started = time.perf_counter()
    name, experiment = request(number, shapes)
    data, _ = experiment.load(number)
    model, method = experiment.configure_model(data), experiment.method(name)
    result = fit(jax.random.key(number), model, data.x_train, data.y_train, method, progress=False)
    fit_record(result, evaluate(result, data, []))
    save_datatree(to_datatree(result, data.x_test, data.y_test), folder / "soak.nc")
    del result
    in_use = heap_in_use()
    return {
        "fit": number + 1,
        "model": experiment.model,
        "method": name,
        "seconds": round(time.perf_counter() - started, 3),
        # no garbage is collected for it: a user's session does not either
        "resident_mib": round(psutil.Process().memory_info().rss / MIB, 2),
        "in_use_mib": None if in_use is None else round(in_use / MIB, 2),
        "live_arrays": len(jax.live_arrays()),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run for the minutes asked, write the results, and return 0 where memory was steady and all tables the same."""
    parser = argparse.ArgumentParser(prog="python -m hmcvi.benchmarks.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0, help="how long. Default: %(default)g")
    parser.add_argument("--out", type=Path, default=Path("runs/soak"), help="results. Default: %(default)s")
    parser.add_argument("--publish", type=Path, metavar="FOLDER", help="copy them there, where there is a verdict")
    parser.add_argument("--shapes", type=int, default=SHAPES, help="shapes of each model. Default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of the moments of killing. Default: %(default)s")
    options = parser.parse_args(arguments)
    if not options.minutes > 0:
        parser.error(f"--minutes {options.minutes:g}: give a number above 0")
    if options.shapes < 1:
        parser.error(f"--shapes {options.shapes}: give at least 1")
    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)
    say = Console(stderr=True, highlight=False, markup=False, emoji=False, soft_wrap=True).print
    found: list[Sweep] = []
    stop = Event()
    generator = np.random.default_rng(options.seed)
    beside = Thread(target=sweeps, args=(out / "sweep", generator, stop, found, say, COMMAND))
    beside.start()
    try:
        rows = _fits(60 * options.minutes, options.shapes, out, say)
    finally:
        stop.set()
        beside.join()
    _write_rows(out / "sweeps.csv", [sweep.row() for sweep in found])
    resident = np.array([row["resident_mib"] for row in rows])
    measured = growth(resident) if len(rows) >= LEAST_FITS else None
    line = None if measured is None else (measured.intercept, measured.slope, measured.standard_error)
    in_use = _in_use(rows)
    plots.save(memory_curve(np.arange(1, len(rows) + 1), resident, in_use=in_use, line=line), out / "soak")
    write_whole(out / "soak.md", page(rows, measured, found, asked=options.minutes, shapes=options.shapes))
    say(f"{out / 'soak.md'}: {verdict(measured)}; {same_tables(found)}")
    if options.publish is not None and measured is not None:
        options.publish.mkdir(parents=True, exist_ok=True)
        for name in ("soak.md", "soak.csv", "sweeps.csv", "soak.png", "soak.svg"):
            shutil.copyfile(out / name, options.publish / name)
    elif options.publish is not None:
        say(f"{options.publish} is left as it is: {len(rows)} fits are too few for a verdict")
    return 0 if (measured is None or measured.steady) and all(sweep.sound for sweep in found) else 1


def verdict(measured: Growth | None) -> str:
    """Return "steady", "growing", or that nothing can be said."""
    return "too short to tell" if measured is None else "steady" if measured.steady else "growing"


def page(
    rows: Sequence[Mapping[str, Any]], measured: Growth | None, found: Sequence[Sweep], *, asked: float, shapes: int
) -> str:
    """Return soak.md: the verdict, the numbers behind it, and where and with what they were measured."""
    versions = made_with()["versions"]
    took = rows[-1]["minutes"]
    lines = [
        "# Soak",
        "",
        f"**{verdict(measured)}**: {len(rows):,} fits in one process, {took:.1f} minutes; {same_tables(found)}.",
        "",
        "![Resident memory after each fit](soak.png)",
        "",
        "| | |",
        "|---|---|",
    ]
    if measured is not None:
        share = measured.grown / measured.quarter
        lines += [
            "| resident memory after a quarter, after half, at the end "
            f"| {measured.quarter:,.0f}, {measured.half:,.0f}, {measured.end:,.0f} MiB |",
            f"| slope in the second half | {measured.slope:.2f} ± {measured.standard_error:.2f} MiB per 100 fits |",
            f"| growth over the last three quarters | {measured.grown:,.1f} MiB, {share:.1%} |",
            f"| steady is | under {MOST_GROWTH:g} MiB, or under {MOST_SHARE:.0%} |",
        ]
        if (in_use := _in_use(rows)) is not None:
            of_heap = growth(in_use)
            lines += [
                "| of the heap, in use after a quarter, after half, at the end "
                f"| {of_heap.quarter:,.0f}, {of_heap.half:,.0f}, {of_heap.end:,.0f} MiB |",
                "| its slope in the second half "
                f"| {of_heap.slope:.2f} ± {of_heap.standard_error:.2f} MiB per 100 fits |",
            ]
    if found:
        peak = max(sweep.peak_mib for sweep in found)
        lines += [
            f"| sweeps finished | {len(found)} |",
            f"| killed on the way | {sum(sweep.kills for sweep in found)} times |",
            f"| largest memory of a sweep's process | {peak:,.0f} MiB |",
        ]
    lines += [
        f"| measured | {time.strftime('%Y-%m-%d')}, on {where()} |",
        f"| with | {', '.join(f'{name} {version}' for name, version in versions.items())} |",
        f"| python | {made_with()['python']}; psutil {importlib.metadata.version('psutil')} |",
        f"| command | `python -m hmcvi.benchmarks.soak --minutes {asked:g} --shapes {shapes}` |",
        "",
        "Every fit is in soak.csv, every sweep in sweeps.csv.",
    ]
    return "\n".join(lines) + "\n"


def _in_use(rows: Sequence[Mapping[str, Any]]) -> np.ndarray | None:
    """Return what is in use of the heap after each fit (fit,), in MiB; None where the C library does not say."""
    found = [row["in_use_mib"] for row in rows]
    return None if None in found else np.array(found)


def _fits(seconds: float, shapes: int, out: Path, say: Any) -> list[dict[str, Any]]:
    """Fit until the seconds have passed, at least once, and return the rows, each written as soon as it is known."""
    rows: list[dict[str, Any]] = []
    started = time.perf_counter()
    with (out / "soak.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        while not rows or time.perf_counter() - started < seconds:
            row = fit_once(len(rows), shapes, out)
            row["minutes"] = round((time.perf_counter() - started) / 60, 4)
            rows.append(row)
            writer.writerow(row)
            file.flush()
            if len(rows) % 20 == 0:
                say(f"{len(rows)} fits, {row['minutes']:.1f} minutes, {row['resident_mib']:,.0f} MiB")
    (out / "soak.nc").unlink()
    return rows


def _write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(Sweep.COLUMNS))
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    sys.exit(main())
