"""What growth costs: time and memory against rows, parameters, draws and chains. `make growth`.

For each method on a small MLP, and for the exact Gaussian process beside its two approximations, one size grows by a
factor of 8 to 256 while all others stay as they are. Each cell is one fit in a process of its own (`growth_cell.py`):
the seconds of its compiled loop, compiling apart, and the peak of its memory above what it held before the fit. A cell
that takes more than a number of seconds or bytes is ended, and recorded as such; so is one that is refused.

A curve's slope is that of log cost on log size by least squares: 1 where twice the size costs twice as much. With few
cells the slope's standard error tells as much of a curve that bends as of noise.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import io
import json
import math
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from rich.console import Console

from hmcvi import plots
from hmcvi.inference.durable import write_whole
from hmcvi.plots.growth import growth_curves

from .growth_cell import CURVES, Cell
from .reproduce import where
from .run_folder import made_with

__all__ = ["COLUMNS", "Slope", "log_slope", "main", "run_cell"]

COMMAND = (sys.executable, "-m", "hmcvi.benchmarks.growth_cell")
"""How a cell is started."""

COLUMNS = (
    "curve",
    "subject",
    "size",
    "parameters",
    "run_seconds",
    "num_gradients",
    "units",
    "seconds_per_unit",
    "compile_seconds",
    "before_mib",
    "peak_mib",
    "added_mib",
    "wall_seconds",
    "status",
)

MEASURED = "measured"
"""Status of a cell that came to its end; any other is the reason why it did not."""

MOST_SECONDS, MOST_GIB = 60.0, 4.0
"""What a cell may take unless said otherwise, importing and compiling included."""

PAUSE = 0.05
"""Seconds between two looks at a cell's memory."""

FILES = ("growth.md", "growth.csv", "growth.png", "growth.svg")


@dataclass(frozen=True)
class Slope:
    """A slope and its standard error; both NaN of fewer than two points, the error of two."""

    value: float
    error: float

    def __str__(self) -> str:
        """Write the slope as the table does."""
        if math.isnan(self.value):
            return "–"
        return f"{self.value:.2f}" + ("" if math.isnan(self.error) else f" ± {self.error:.2f}")


def log_slope(sizes: Sequence[float], costs: Sequence[float]) -> Slope:
    """Return the slope of log cost on log size by least squares, with its standard error.

    b = Σ (u − ū)(v − v̄) / Σ (u − ū)², error² = Σ residual² / (n − 2) / Σ (u − ū)², of u = log size, v = log cost.

    Arguments:
        sizes: positive, not all the same (cell,).
        costs: in any unit (cell,); those that are not positive, such as memory that did not grow, are left out.

    Example:
        >>> str(log_slope([1, 10, 100], [3, 300, 30_000]))
        '2.00 ± 0.00'
    """
    kept = [(size, cost) for size, cost in zip(sizes, costs, strict=True) if cost > 0]
    if len(kept) < 2:
        return Slope(math.nan, math.nan)
    u, v = np.log(np.array(kept, float)).T
    u, v = u - u.mean(), v - v.mean()
    slope = float(u @ v / (u @ u))
    if len(kept) == 2:
        return Slope(slope, math.nan)
    residual = v - slope * u
    return Slope(slope, float(np.sqrt(residual @ residual / (len(kept) - 2) / (u @ u))))


def cells_of(curves: Sequence[str], subjects: Sequence[str] | None, *, quick: bool) -> Iterator[Cell]:
    """Yield the cells of these curves and subjects (None: all), curve by curve; quick: the two least sizes of each."""
    for name in curves:
        for subject, sizes in CURVES[name].sizes.items():
            if subjects is None or subject in subjects:
                yield from (Cell(name, subject, size, quick) for size in (sizes[:2] if quick else sizes))


def run_cell(cell: Cell, *, most_seconds: float, most_bytes: float, command: Sequence[str] = COMMAND) -> dict[str, Any]:
    """Run a cell in a process of its own and return its row of `COLUMNS`; it ends where it takes more than it may.

    Arguments:
        cell: what to run.
        most_seconds: of the process, from its start.
        most_bytes: of its resident memory.
        command: what is started, with the cell as JSON behind it.
    """
    row: dict[str, Any] = dict.fromkeys(COLUMNS, "")
    row |= {"curve": cell.curve, "subject": cell.subject, "size": cell.size}
    started = time.perf_counter()
    with tempfile.TemporaryFile("w+") as said, tempfile.TemporaryFile("w+") as complained:
        given = json.dumps(dataclasses.asdict(cell))
        process = subprocess.Popen([*command, given], stdout=said, stderr=complained)
        try:
            over = _watch(process, started + most_seconds, most_bytes)
        finally:
            process.kill()
            process.wait()
        row["wall_seconds"] = round(time.perf_counter() - started, 3)
        if over:
            limit = f"{most_seconds:g} s" if over == "seconds" else f"{most_bytes / 2**30:g} GiB"
            return row | {"status": f"over {limit}"}
        said.seek(0)
        complained.seek(0)
        lines, last = said.read().splitlines(), complained.read().strip().splitlines()[-1:]
    if process.returncode != 0 or not lines:
        return row | {"status": f"failed: ended with status {process.returncode}: {''.join(last)}"}
    found = json.loads(lines[-1])
    if "failed" in found:
        return row | {"status": f"failed: {found['failed']}"}
    derived = {
        "seconds_per_unit": found["run_seconds"] / found["units"],
        "added_mib": found["peak_mib"] - found["before_mib"],
    }
    return row | {name: float(f"{value:.6g}") for name, value in (found | derived).items()} | {"status": MEASURED}


def _watch(process: subprocess.Popen[Any], end: float, most_bytes: float) -> str:
    """Wait for a process, and return "" where it ended, or "seconds" or "bytes" where it took more than it may."""
    of_process = psutil.Process(process.pid)
    while process.poll() is None:
        if time.perf_counter() > end:
            return "seconds"
        try:
            if of_process.memory_info().rss > most_bytes:
                return "bytes"
        except psutil.NoSuchProcess:
            break
        time.sleep(PAUSE)
    process.wait()
    return ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the cells one after the other, write the results as they come, and return 0 where any was measured."""
    parser = argparse.ArgumentParser(prog="python -m hmcvi.benchmarks.growth", description=__doc__)
    parser.add_argument("--curves", nargs="+", choices=list(CURVES), default=list(CURVES), help="Default: all")
    parser.add_argument("--subjects", nargs="+", metavar="NAME", help="methods and processes. Default: all of a curve")
    parser.add_argument("--quick", action="store_true", help="the two least sizes, few steps: conclude nothing")
    parser.add_argument("--seconds", type=float, default=MOST_SECONDS, help="a cell may take. Default: %(default)g")
    parser.add_argument("--gib", type=float, default=MOST_GIB, help="memory a cell may take. Default: %(default)g")
    parser.add_argument("--out", type=Path, default=Path("runs/growth"), help="results. Default: %(default)s")
    parser.add_argument("--publish", type=Path, metavar="FOLDER", help="copy them there, where all cells were run")
    options = parser.parse_args(arguments)
    for name, value in (("--seconds", options.seconds), ("--gib", options.gib)):
        if not value > 0:
            parser.error(f"{name} {value:g}: give a number above 0")
    known = dict.fromkeys(subject for curve in CURVES.values() for subject in curve.sizes)
    unknown = [name for name in options.subjects or () if name not in known]
    if unknown:
        parser.error(f"no subject {unknown[0]!r}: give some of {', '.join(known)}")
    cells = list(cells_of(options.curves, options.subjects, quick=options.quick))
    if not cells:
        parser.error(f"no cell: {', '.join(options.curves)} have none of {', '.join(options.subjects)}")
    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)
    say = Console(stderr=True, highlight=False, markup=False, emoji=False, soft_wrap=True).print
    rows: list[dict[str, Any]] = []
    started = time.perf_counter()
    for cell in cells:
        row = run_cell(cell, most_seconds=options.seconds, most_bytes=options.gib * 2**30, command=COMMAND)
        rows.append(row)
        write_whole(out / "growth.csv", _as_csv(rows))
        say(f"{len(rows)}/{len(cells)} {cell.curve}, {cell.subject}, {cell.size:,}: {row['status']}")
    minutes = (time.perf_counter() - started) / 60
    if any(row["status"] == MEASURED for row in rows):
        plots.save(draw(rows), out / "growth")
    limits = f"{options.seconds:g} seconds and {options.gib:g} GiB"
    write_whole(out / "growth.md", page(rows, minutes, limits, quick=options.quick))
    in_full = not options.quick and options.subjects is None and set(options.curves) == set(CURVES)
    if options.publish is not None and in_full:
        options.publish.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            shutil.copyfile(out / name, options.publish / name)
    elif options.publish is not None:
        say(f"{options.publish} is left as it is: not every cell was run in full")
    return 0 if any(row["status"] == MEASURED for row in rows) else 1


def size_of(row: Mapping[str, Any]) -> float:
    """Return what a cell is drawn and fitted at: parameters themselves where it is they that grow."""
    return float(row["parameters"] if row["curve"] == "parameters" and row["status"] == MEASURED else row["size"])


def seconds_of(row: Mapping[str, Any]) -> float:
    """Return a measured cell's time: of a gradient, or of the fit's loop, as its curve says."""
    return float(row["seconds_per_unit" if CURVES[row["curve"]].per_gradient else "run_seconds"])


def page(rows: Sequence[Mapping[str, Any]], minutes: float, limits: str, *, quick: bool) -> str:
    """Return growth.md: the figure, one table of slopes a curve, what was not measured, and where all of it was."""
    lines = ["# What growth costs", ""]
    if quick:
        lines += ["Quick: two sizes and few steps, from which nothing can be concluded.", ""]
    lines += [
        "Slopes of log cost on log size, ± standard error: 1 where twice the size costs twice as much. Seconds are of",
        "the compiled loop, without compiling; memory is the peak of the process above what it held before the fit, in",
        "which compiling has its share. A gradient of SVI, Bayes-by-Backprop, MAP and Laplace reads 128 rows, of all",
        "others every row; Laplace's time has its Hessian in it, spread over the steps to the mode.",
        "",
        "![Time and memory against what grows](growth.png)",
        "",
    ]
    for name in dict.fromkeys(row["curve"] for row in rows):
        curve = CURVES[name]
        unit = "ms per gradient" if curve.per_gradient else "s per fit"
        lines += [
            f"## {curve.title[0].upper()}{curve.title[1:]}",
            "",
            f"| | {curve.title} | {unit} | slope | slope of the fit's seconds | MiB added | slope | not measured |",
            "|---|---|---|---|---|---|---|---|",
        ]
        of_curve = [row for row in rows if row["curve"] == name]
        for subject in dict.fromkeys(row["subject"] for row in of_curve):
            lines.append(_line(subject, [row for row in of_curve if row["subject"] == subject], curve.per_gradient))
        lines.append("")
    made = made_with()
    versions = ", ".join(f"{name} {version}" for name, version in made["versions"].items())
    refused = [row for row in rows if str(row["status"]).startswith("failed")]
    lines += [f"- {row['subject']}, {row['curve']} {row['size']:,}: {_plain(row['status'])}" for row in refused]
    lines += [
        *([""] if refused else []),
        f"Measured {time.strftime('%Y-%m-%d')} on {where()}, in {minutes:.1f} minutes, one cell at a time, each within",
        f"{limits}, with {versions}, python {made['python']}. Every cell is in growth.csv.",
    ]
    return "\n".join(lines) + "\n"


def _line(subject: str, rows: Sequence[Mapping[str, Any]], per_gradient: bool) -> str:
    """Return a subject's line of a curve's table."""
    measured = [row for row in rows if row["status"] == MEASURED]
    missing = ", ".join(
        f"{row['size']:,} ({str(row['status']).partition(':')[0]})" for row in rows if row not in measured
    )
    if not measured:
        return f"| {subject} | – | – | – | – | – | – | {missing} |"
    sizes = [size_of(row) for row in measured]
    times = [seconds_of(row) for row in measured]
    run, added = ([float(row[name]) for row in measured] for name in ("run_seconds", "added_mib"))
    scale = 1e3 if per_gradient else 1.0

    def ends(values: Sequence[float]) -> str:
        first, last = (f"{value:,.0f}" if value >= 1000 else f"{value:.3g}" for value in (values[0], values[-1]))
        return f"{first} to {last}"

    cells = (
        subject,
        f"{sizes[0]:,.0f} to {sizes[-1]:,.0f}",
        ends([scale * value for value in times]),
        log_slope(sizes, times),
        log_slope(sizes, run),
        f"{added[0]:,.0f} to {added[-1]:,.0f}",
        log_slope(sizes, added),
        missing or "–",
    )
    return "| " + " | ".join(map(str, cells)) + " |"


def draw(rows: Sequence[Mapping[str, Any]]) -> Any:
    """Return the figure's axes: the measured cells of each curve."""
    curves: dict[str, dict[str, dict[str, list[float]]]] = {}
    labels = {}
    for row in rows:
        if row["status"] == MEASURED:
            curve = CURVES[row["curve"]]
            labels[curve.title] = f"time per {'gradient' if curve.per_gradient else 'fit'}"
            line = curves.setdefault(curve.title, {}).setdefault(row["subject"], {"size": [], "seconds": [], "mib": []})
            line["size"].append(size_of(row))
            line["seconds"].append(seconds_of(row))
            line["mib"].append(max(float(row["added_mib"]), 1.0))  # less is the allocator's doing, and 0 has no place
    return growth_curves(curves, time_labels=labels)


def _as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows({**row, "status": _plain(row["status"])} for row in rows)
    return text.getvalue()


def _plain(sentence: object) -> str:
    """Return a sentence on one line."""
    return " ".join(str(sentence).split())


if __name__ == "__main__":
    sys.exit(main())
