"""How far a fit is, on standard error: a live bar on a terminal, plain lines elsewhere, or nothing."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Literal

from rich import progress as rich_progress
from rich.console import Console

__all__ = ["Progress", "next_length"]

LINE_SECONDS = 10.0
"""Seconds between two plain lines: a log of an hour has some hundred of them."""

RECENT = 6
"""Updates whose pace tells the time left: the early ones of a warm-up, whose trajectories are long, are soon out."""


UPDATE_SECONDS = 2.0
"""What one compiled call takes at most, where a step is not longer: a person sees it move."""


def next_length(length: int, seconds: float, most: int) -> int:
    """Return how many steps the next compiled call may hold, so that it takes two seconds at the pace of the last.

    Arguments:
        length: steps of the last call.
        seconds: what it took.
        most: what a call may hold.

    Example:
        >>> next_length(1, 1e-4, 50), next_length(40, 4.0, 50), next_length(3, 60.0, 50)
        (2, 20, 1)
    """
    affordable = int(length * UPDATE_SECONDS / seconds) if seconds > 0 else most
    return max(1, min(most, 2 * length, affordable))


class Progress:
    """What is running, how far it is, how long it took, what is left, and a detail such as the loss.

    The time left is the steps to come at the pace of the latest ones, and is not told before there is a pace: a
    program's compilation comes first.

    Arguments:
        label: what is running.
        show: "bar" for a live line on a terminal, "lines" for a plain line every ten seconds, None for nothing.
        begin: what a live line says before the first update.
        console: where to write; standard error by default.
        clock: returns seconds.
    """

    def __init__(
        self,
        label: str,
        show: Literal["bar", "lines"] | None,
        *,
        begin: str = "compiling",
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._label, self._show, self._begin, self._clock = label, show, begin, clock
        self._console = console or Console(stderr=True, highlight=False, markup=False, emoji=False, soft_wrap=True)
        self._started = self._last_line = clock()
        self._ahead, self._part, self._place, self._count = "", "", 1, 1
        self._marks: deque[tuple[float, int]] = deque(maxlen=RECENT)
        self._bar: rich_progress.Progress | None = None
        if show == "bar":
            self._bar = rich_progress.Progress(
                rich_progress.BarColumn(bar_width=12),
                rich_progress.TimeElapsedColumn(),
                rich_progress.TextColumn("{task.description}", markup=False),  # on a narrow terminal its end is cut
                console=self._console,
                transient=True,
            )

    @staticmethod
    def suited(wanted: bool | None) -> Literal["bar", "lines"] | None:
        """Return how to show progress that is wanted (True), is not (False), or is for a person only (None)."""
        watched = sys.stderr.isatty()
        return "bar" if watched and wanted is not False else "lines" if wanted else None

    def __enter__(self) -> Progress:
        if self._bar is not None:
            self._bar.start()
            self._task = self._bar.add_task(f"{self._label}: {self._begin}", total=None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def part(self, name: str, place: int, count: int) -> None:
        """Say that a part of the fit begins, of several alike: a start, an ensemble's member.

        Arguments:
            name: what each part is.
            place: its place among them, from 1.
            count: how many of them there are.
        """
        self._part, self._place, self._count = f"{name} {place} of {count}, ", place, count
        self._marks.clear()

    @contextmanager
    def ahead(self, name: str) -> Iterator[None]:
        """Name what is done ahead of a part's own steps, such as a fit to start from.

        No time left is told during it: nobody knows yet what the steps after it take.
        """
        outer = self._ahead, self._part, self._place, self._count
        self._ahead, self._part = f"{self._ahead}{self._part}{name}, ", ""
        self._marks.clear()
        try:
            yield
        finally:
            self._ahead, self._part, self._place, self._count = outer
            self._marks.clear()

    def update(self, done: int, total: int, unit: str, detail: str) -> None:
        """Say that `done` of `total` steps are over.

        Arguments:
            done: steps that are over.
            total: all steps.
            unit: what a step is, in the plural.
            detail: what a person wants to see move, such as the step size or the loss.
        """
        now = self._clock()
        self._marks.append((now, done))
        if self._show is None:
            return
        left = self._seconds_left(done, total)
        to_come = "" if left is None else f", about {_duration(left)} left"
        if done >= total and self._place >= self._count and not self._ahead:
            to_come = ", finishing"  # what a fit does after its last step, such as probing its gradient
        steps = f"{self._label}: {self._ahead}{self._part}{done:,} of {total:,} {unit}"
        if self._bar is not None:  # which counts the seconds itself
            self._bar.update(self._task, completed=done, total=total, description=f"{steps}{to_come}; {detail}")
        elif now - self._last_line >= LINE_SECONDS:
            self._last_line = now
            self._console.print(f"{steps}, {_duration(now - self._started)}{to_come}; {detail}")

    def _seconds_left(self, done: int, total: int) -> float | None:
        """Return what the steps and the parts to come take at the latest pace; None where there is none yet."""
        (first, before), (last, after) = self._marks[0], self._marks[-1]
        if self._ahead or after <= before:
            return None
        return (last - first) / (after - before) * (total - done + (self._count - self._place) * total)


def _duration(seconds: float) -> str:
    """Write a duration as a person says it.

    Example:
        >>> _duration(4.2), _duration(200), _duration(8000)
        ('4 s', '3 min 20 s', '2 h 13 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
