"""The half of the soak that is killed: a sweep in a process of its own, from an empty folder to its tables."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from .memory import peak_bytes

__all__ = ["COMMAND", "Sweep", "digest", "run_sweep", "same_tables", "sweeps"]

MIB = 2**20

COMMAND = (
    *(sys.executable, "-m", "hmcvi.benchmarks.cli", "compare", "--quick", "--quiet", "--no-figures"),
    *("--data", "wine", "--methods", "nuts", "svi", "bbb", "--seeds", "0", "1", "--ood"),
)
"""The sweep, but for its folder: three methods at two seeds."""

TIMES = ("seconds",)
"""Columns of tables that hold times, which no two runs share."""

LONGEST = 1.5
"""A start is killed after up to so many times what the sweep takes undisturbed: one in three goes through at least."""

POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Sweep:
    """A sweep that came to its end, or failed of itself.

    Attributes:
        minutes: from the empty folder to the end.
        kills: how often it was killed on the way.
        peak_mib: the largest memory of any of its processes, in MiB.
        digest: SHA-256 over its tables, times left out.
        first: the digest of the first sweep, which nothing disturbed.
        failure: what it said where it ended with another status than 0; "" where it did not.
    """

    COLUMNS: ClassVar[tuple[str, ...]] = ("minutes", "kills", "peak_mib", "digest", "sound")

    minutes: float
    kills: int
    peak_mib: float
    digest: str
    first: str
    failure: str = ""

    @property
    def sound(self) -> bool:
        """Whether it ended with the tables of the sweep that nothing disturbed."""
        return not self.failure and self.digest == self.first

    def row(self) -> dict[str, Any]:
        """Return its row of sweeps.csv."""
        whole = {"minutes": round(self.minutes, 3), "kills": self.kills, "peak_mib": round(self.peak_mib, 1)}
        return {**whole, "digest": self.digest, "sound": self.sound}


def sweeps(
    folder: Path,
    generator: np.random.Generator,
    stop: Event,
    found: list[Sweep],
    say: Callable[[str], Any],
    command: Sequence[str],
) -> None:
    """Run sweeps until told to stop: the first undisturbed, all others killed at random moments.

    Arguments:
        folder: where; what is there goes away before each sweep, and at the end.
        generator: of the moments.
        stop: tells to stop, in the midst of a sweep too, which then counts for nothing.
        found: where each sweep that ended is added.
        say: told what happens.
        command: the sweep, which gets `--out` and its folder besides.
    """

    def after() -> float:
        return generator.uniform(0, LONGEST * 60 * found[0].minutes) if found else np.inf

    while not stop.is_set():
        sweep = run_sweep(command, folder, after, stop, first=found[0].digest if found else "")
        if sweep is not None:
            found.append(sweep)
            say(f"sweep {len(found)}: {sweep.failure or 'finished'}, killed {sweep.kills} times")
            if sweep.failure:
                break  # its folder is left to be looked at
    else:
        shutil.rmtree(folder, ignore_errors=True)


def run_sweep(
    command: Sequence[str], folder: Path, after: Callable[[], float], stop: Event, *, first: str = ""
) -> Sweep | None:
    """Run a sweep from an empty folder to its end, through as many deaths as it takes; None where told to stop.

    Arguments:
        command: the sweep, which gets `--out` and its folder besides.
        folder: where.
        after: returns the seconds that a start is given before it is killed; infinity spares it.
        stop: tells to stop.
        first: the digest to compare with; its own where it is "".
    """
    shutil.rmtree(folder, ignore_errors=True)
    log = folder.with_suffix(".log")
    started, kills, peak = time.perf_counter(), 0, 0.0
    while True:
        status, used = _start([*command, "--out", str(folder)], log, after(), stop)
        peak = max(peak, used)
        if status is not None:
            break
        if stop.is_set():
            return None
        kills += 1
    failure = "" if status == 0 else f"ended with status {status}: {_last_line(log)}"
    made = digest(folder)
    return Sweep((time.perf_counter() - started) / 60, kills, peak, made, first or made, failure)


def digest(folder: Path) -> str:
    """Return the SHA-256 over every CSV table of the folder and those in it, without the columns that hold times."""
    whole = hashlib.sha256()
    for path in sorted(folder.rglob("*.csv")):
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        scores = table.drop(columns=[column for column in TIMES if column in table])
        whole.update(f"{path.relative_to(folder).as_posix()}\n{scores.to_csv(index=False)}".encode())
    return whole.hexdigest()


def same_tables(found: Sequence[Sweep]) -> str:
    """Return what is to be said of the sweeps."""
    if not found:
        return "no sweep came to its end"
    failed = [sweep.failure for sweep in found if sweep.failure]
    if failed:
        return f"a sweep {failed[0]}"
    differing = sum(not sweep.sound for sweep in found)
    kills = sum(sweep.kills for sweep in found)
    ended = f"{len(found)} sweep{'s' if len(found) > 1 else ''}, killed {kills} times"
    return f"{ended}, {'ended with the same tables' if not differing else f'{differing} WITH OTHER TABLES'}"


def _start(command: Sequence[str], log: Path, seconds: float, stop: Event) -> tuple[int | None, float]:
    """Run a command for so many seconds at most; return its status, None where it was killed, and its peak in MiB."""
    until, peak, status = time.perf_counter() + seconds, 0.0, None
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
        try:
            while (status := process.poll()) is None and time.perf_counter() < until and not stop.is_set():
                peak = max(peak, _peak(process.pid))
                stop.wait(POLL_SECONDS)
        finally:
            if status is None:
                process.kill()
            process.wait()
    return status, peak


def _peak(pid: int) -> float:
    """Return the largest resident memory of a process so far in MiB; 0 where it ended meanwhile."""
    try:
        return peak_bytes(pid) / MIB
    except ProcessLookupError:
        return 0.0


def _last_line(log: Path) -> str:
    lines = log.read_text().strip().splitlines()
    return lines[-1] if lines else "it said nothing"
