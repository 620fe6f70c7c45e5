"""A progress bar on standard error, shown only where somebody can see it."""

from __future__ import annotations

import sys
from types import TracebackType

from rich import progress as rich_progress
from rich.console import Console

__all__ = ["Progress"]


class Progress:
    """A bar for one fit: what is running, how far, time left, and a detail such as the loss.

    Arguments:
        label: what is running.
        show: whether to draw the bar; by default where standard error is a terminal.
    """

    def __init__(self, label: str, show: bool | None = None) -> None:
        self._label = label
        self._bar: rich_progress.Progress | None = None
        if show if show is not None else sys.stderr.isatty():
            self._bar = rich_progress.Progress(
                rich_progress.TextColumn("{task.fields[label]:<14}"),
                rich_progress.BarColumn(bar_width=28),
                rich_progress.MofNCompleteColumn(),
                rich_progress.TimeRemainingColumn(elapsed_when_finished=True),
                rich_progress.TextColumn("{task.fields[detail]}"),
                console=Console(stderr=True),
            )

    def __enter__(self) -> Progress:
        if self._bar is not None:
            self._bar.start()
            self._task = self._bar.add_task("", total=None, label=self._label, detail="compiling")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, done: int, total: int, detail: str) -> None:
        """Show that `done` of `total` steps are over, and a detail."""
        if self._bar is not None:
            self._bar.update(self._task, completed=done, total=total, detail=detail)
