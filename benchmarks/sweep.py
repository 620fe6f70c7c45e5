"""A sweep: many comparisons, each a cell with a folder of its own, through one executor, and one table of them all.

A cell is a data set, a model and a seed, with all methods in it. Scores are compared row by row with those of the first
method, and distances are taken from the reference's draws, so the methods of a cell must meet in one process; seeds
meet only in averages, which the joined table takes from finished runs. Where workers outnumber cells, the fits of a
cell's methods may be made apart first (`by_method`): the cell then reads them, as it reads what an interrupted run
finished, and its scores are those of one process.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shlex
import shutil
from collections import deque
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import checksums
from .exclusive import alone_in
from .experiment import Experiment
from .finished import FinishedRun, read_finished, unconverged
from .formats import plain_text, render
from .grouped import lay_out
from .joined import join
from .options import UsageError
from .repeat import repeat_command
from .run_folder import data_stem
from .sweep_cell import run_cell
from .sweep_pools import Pool

__all__ = ["Cell", "Outcome", "cells_of", "run_cells", "sweep"]

RECORD = "sweep.json"
"""The file of what became of the cells."""

LOGS = "logs"
"""The folder of the cells' words."""

PARTS = "parts"
"""The folder of fits that are made apart, until their cell has them."""

TRIES = 3
"""How often a cell is begun whose process or worker dies: memory that ran out may be there the next time."""

ENDING_SECONDS = 3.0
"""How long the cells are waited for that an interrupt ends; they end without that too."""

FAILED_FIT = 1
"""The status of a comparison where a fit failed: its other methods are scored."""

INTERRUPTED = (130, 143)


@dataclass(frozen=True)
class Cell:
    """One comparison.

    Attributes:
        name: of its folder.
        arguments: of `hmcvi`, but for the folder: what it is.
        how: further arguments, which its results do not depend on.
        method: fit this one alone, and score nothing; "" for a whole cell.
        parts: the cells that make its fits before.
    """

    name: str
    arguments: tuple[str, ...]
    how: tuple[str, ...] = ()
    method: str = ""
    parts: tuple[Cell, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """How a cell ended.

    Attributes:
        arguments: what it was.
        status: the exit status; 0 is success, less than 0 the death of its process or worker.
        sentence: what went wrong, or "".
        tries: how often it was begun.
        seconds: how long the last try took.
        cores: how many it might use.
    """

    arguments: tuple[str, ...]
    status: int
    sentence: str
    tries: int
    seconds: float
    cores: int


def cells_of(
    experiments: Sequence[Experiment], how: Sequence[str] = (), *, by_method: bool = False
) -> tuple[Cell, ...]:
    """Return a cell for each experiment and seed.

    Arguments:
        experiments: what to run, each with all its methods and seeds.
        how: further arguments of `hmcvi compare`, which results do not depend on.
        by_method: whether to make the fits of each method apart.

    Raises:
        UsageError: two experiments would share folders, or the methods to make apart are not named.
    """
    cells: dict[str, Cell] = {}
    for experiment in experiments:
        if by_method and experiment.methods is None:
            raise UsageError("--by-method fits each of --methods apart: name them, as in --methods nuts svi bbb")
        for seed in experiment.seeds:
            one = dataclasses.replace(experiment, seeds=(seed,))
            configuration = json.loads(json.dumps(one.configuration()))
            arguments = tuple(shlex.split(repeat_command(configuration))[1:])
            name = f"{data_stem(experiment)}-{experiment.model}-seed{seed}"
            if name in cells:
                raise UsageError(
                    f"two cells would share the folder {name}: give each data set, model and seed once, and files of "
                    "one name in sweeps of their own"
                )
            parts = [
                Cell(f"{PARTS}/{name}-{method}", arguments, tuple(how), method)
                for method in (experiment.asked if by_method else ())
            ]
            cells[name] = Cell(name, arguments, tuple(how), parts=tuple(parts))
    return tuple(cells.values())


def sweep(
    cells: Sequence[Cell],
    out: Path,
    pool: Pool,
    *,
    say: Callable[[str], Any],
    seconds: float = float("inf"),
    require_converged: bool = False,
) -> str:
    """Run the cells that are not finished, print one grouped table of all, and write it to table.csv and .parquet.

    Arguments:
        cells: what to run.
        out: the sweep's folder.
        pool: what runs them.
        say: told what goes on.
        seconds: how long a cell may take.
        require_converged: whether the reference is asked for its convergence.

    Returns:
        A sentence on the cells that failed, and on where the reference is unconverged if it is required to be; else "".

    Raises:
        UsageError: the folder holds another sweep or other files, or another process runs there.
        KeyboardInterrupt: the sweep was interrupted; its message says how far it is.
    """
    outcomes = run_cells(cells, out, pool, say=say, seconds=seconds)
    failed = [cell.name for cell in cells if outcomes[cell.name].status != 0]
    scored = [cell.name for cell in cells if outcomes[cell.name].status in (0, FAILED_FIT)]
    runs = [run for name in scored if (run := _finished(out / name)) is not None]
    if runs:
        joined = join(runs)
        for format in ("csv", "parquet"):
            checksums.write_summed(out / f"table.{format}", render(joined, format))
        print(f"\n{plain_text(lay_out(joined))}", end="", flush=True)
        say(f"\na folder for each cell, and table.csv and table.parquet of all: {out}")
    faults = []
    if failed:
        named = f"{', '.join(failed[:5])}{', ...' if len(failed) > 5 else ''}"
        faults.append(
            f"{len(failed)} of {len(cells)} cells failed ({named}): {out / LOGS} has their words, and the same "
            "command runs them again"
        )
    if require_converged and runs:
        faults.append(unconverged(runs))
    return "; ".join(filter(None, faults))


def run_cells(
    cells: Sequence[Cell], out: Path, pool: Pool, *, say: Callable[[str], Any], seconds: float = float("inf")
) -> dict[str, Outcome]:
    """Run the cells that are not finished, and return how each ended, by its name; as `sweep`, without a table."""
    with alone_in(out):
        return _Sweep(cells, out, pool, seconds, say).run()


class _Sweep:
    """The cells of a sweep on their way.

    Cells are handed over only as workers are free: what is submitted runs, and an interrupt leaves no queue behind.
    """

    def __init__(self, cells: Sequence[Cell], out: Path, pool: Pool, seconds: float, say: Callable[[str], Any]) -> None:
        self._cells, self._out, self._pool, self._seconds, self._say = cells, out, pool, seconds, say
        self._record: dict[str, Outcome] = _read_record(out, {cell.name for cell in cells})
        self._running: dict[Future[dict[str, Any]], Cell] = {}
        self._tries: dict[str, int] = {}
        for cell in cells:
            before = self._record.get(cell.name)
            if before is not None and before.arguments != cell.arguments:
                raise UsageError(
                    f"{out} holds another sweep: {cell.name} is {shlex.join(('hmcvi', *before.arguments))} there and "
                    f"{shlex.join(('hmcvi', *cell.arguments))} here; give another --out folder"
                )
        self._waiting = deque(cell for whole in cells if not self._is_done(whole) for cell in self._steps(whole))

    def run(self) -> dict[str, Outcome]:
        """Run what is left, and return how each whole cell ended."""
        whole = {cell.name for cell in self._cells}
        left = sum(cell.name in whole for cell in self._waiting)
        before = f", {len(whole) - left} finished before" if left < len(whole) else ""
        self._say(
            f"{len(whole)} cell{'s' if len(whole) > 1 else ''}{before}: {self._pool.about}, "
            f"{self._pool.cores} core{'s' if self._pool.cores > 1 else ''} each"
        )
        try:
            while self._waiting or self._running:
                self._hand_over()
                done, _ = wait(self._running, return_when=FIRST_COMPLETED)
                for future in done:
                    self._take_back(future)
        except KeyboardInterrupt as error:
            self._pool.end(self._key)
            wait(self._running, ENDING_SECONDS)
            finished = sum(self._is_done(cell) for cell in self._cells)
            raise KeyboardInterrupt(f"{self._out} has {finished} of {len(whole)} cells finished") from error
        return {name: self._record[name] for name in whole}

    @property
    def _key(self) -> str:
        return str(self._out.absolute())

    def _steps(self, cell: Cell) -> list[Cell]:
        """Return what is left of a cell: the parts whose fits are nowhere yet, and itself."""
        fits = self._out / cell.name / "fits"
        made = [part for part in cell.parts if self._is_done(part) or any(fits.glob(f"{part.method}-seed*[0-9].nc"))]
        return [*(part for part in cell.parts if part not in made), cell]

    def _is_done(self, cell: Cell) -> bool:
        outcome = self._record.get(cell.name)
        if outcome is None or outcome.status != 0 or outcome.arguments != cell.arguments:
            return False
        folder = self._out / cell.name
        return any((folder / "fits").glob("*.nc")) if cell.method else _finished(folder) is not None

    def _hand_over(self) -> None:
        """Submit the cells whose parts have ended, as long as there are workers free."""
        for cell in list(self._waiting):
            if len(self._running) >= self._pool.workers:
                return
            if any(part in self._waiting or part in self._running.values() for part in cell.parts):
                continue
            self._waiting.remove(cell)
            ends = [self._record[part.name] for part in cell.parts if part.name in self._tries]
            fault = next((end for end in ends if end.status not in (0, FAILED_FIT)), None)
            if fault is not None:
                self._keep(cell, dataclasses.replace(fault, tries=0, seconds=0.0))
                continue
            self._tries[cell.name] = self._tries.get(cell.name, 0) + 1
            self._say(f"{cell.name}: begun")
            try:
                future = self._pool.executor.submit(run_cell, self._order(cell))
            except Exception as error:  # a cluster that is gone: the cell counts as lost with it
                future = Future()
                future.set_exception(error)
            self._running[future] = cell

    def _order(self, cell: Cell) -> dict[str, str]:
        """Return all that a worker is told: text, and nothing else."""
        out = self._out.absolute()
        return {
            "sweep": self._key,
            "folder": str(out / cell.name),
            "log": str(out / LOGS / f"{cell.name}.log"),
            "cwd": str(Path.cwd()),
            "arguments": shlex.join((*cell.arguments, *cell.how)),
            "method": cell.method,
            "parts": shlex.join(str(out / part.name) for part in cell.parts),
            "cores": str(self._pool.cores),
            "seconds": str(self._seconds),
        }

    def _take_back(self, future: Future[dict[str, Any]]) -> None:
        cell = self._running.pop(future)
        try:
            ended = future.result()
        except Exception as error:  # a worker that died, or a cluster that lost it: each executor has its own
            ended = {"status": -1, "sentence": f"its worker failed ({type(error).__name__}: {error})", "seconds": 0.0}
        tries = self._tries[cell.name]
        if (ended["status"] < 0 or ended["status"] in INTERRUPTED) and tries < TRIES:
            self._say(f"{cell.name}: {ended['sentence']}; tried again")
            self._waiting.append(cell)
            return
        outcome = Outcome(cell.arguments, tries=tries, cores=self._pool.cores, **ended)
        self._keep(cell, outcome)
        if not outcome.status and cell.parts:
            for part in cell.parts:  # its fits are the cell's now
                shutil.rmtree(self._out / part.name, ignore_errors=True)
            with contextlib.suppress(OSError):  # others are there
                (self._out / PARTS).rmdir()

    def _keep(self, cell: Cell, outcome: Outcome) -> None:
        """Write down how a cell ended."""
        self._record[cell.name] = outcome
        content = {name: dataclasses.asdict(outcome) for name, outcome in self._record.items()}
        checksums.write_summed(self._out / RECORD, json.dumps({"cells": content}, indent=2) + "\n")
        to_come = [*self._waiting, *self._running.values()]
        place = f" ({sum(whole not in to_come for whole in self._cells)} of {len(self._cells)})"
        how = "done" if outcome.status == 0 else "FAILED"
        why = f": {outcome.sentence}" if outcome.status else ""
        self._say(f"{cell.name}: {how} after {outcome.seconds:,.0f} s{'' if cell.method else place}{why}")


def _finished(folder: Path) -> FinishedRun | None:
    """Return the finished run of a folder, or None where there is none that can be read."""
    try:
        return read_finished(folder)
    except UsageError:
        return None


def _read_record(out: Path, known: Collection[str]) -> dict[str, Outcome]:
    """Return how the cells of a sweep's folder ended so far.

    Arguments:
        out: the folder.
        known: names of cells; a folder that holds one of them, and no record, is a sweep's too.

    Raises:
        UsageError: the folder holds other files, or its record is damaged.
    """
    file = out / RECORD
    try:
        cells = checksums.read_json(file)["cells"]
        return {
            name: Outcome(**{**outcome, "arguments": tuple(outcome["arguments"])}) for name, outcome in cells.items()
        }
    except FileNotFoundError:
        names = {path.name for path in out.iterdir() if not path.name.startswith(".")}
        if names and not names & {LOGS, *known}:
            raise UsageError(f"{out} is there and is no sweep's folder: give an --out folder that is new") from None
        return {}
    except (AttributeError, KeyError, TypeError, UsageError) as error:
        reason = error if isinstance(error, UsageError) else f"{file} is not what hmcvi sweep writes"
        raise UsageError(f"{reason}, or delete it: then each cell is checked by itself") from error
