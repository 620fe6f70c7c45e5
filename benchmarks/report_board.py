"""The tables of a report: one of the methods by the scores people ask for first, and every score in sections."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from .finished import FinishedRun
from .grouped import SHORT, number
from .joined import COST, direction
from .loo import BAD_ROWS, ELPD
from .moments import MEANS, SDS
from .reference import bias_notes, possessive
from .table import FROM_SEVERAL, OFF_BOARD, POOR, average_seeds, interval_cell, probability_better, worst_verdict

__all__ = ["Board", "Cell", "Column", "Line", "Section", "board", "pairs", "sections"]

NONE = "–"
"""What stands where a method has no value."""

SPENT = ("seconds, run", "seconds, compile", "gradient evaluations", "passes over the data")
"""Costs of which less is better."""

KINDS = {
    "scored": ("On the {part} rows", ""),
    "posterior mean": ("At the posterior mean", "One deterministic pass, in place of an average over draws."),
    "reference": (
        "Distance {part}",
        "{reference} own column is the noise floor, the distance between two halves of its chains: a distance near "
        "it is no distance. In brackets the 95 % interval.",
    ),
    "OOD": ("On {part}", ""),
    "shift": ("Under the shift {part}", ""),
    "other": ("On the training rows, left out", ""),
    "fit": ("What the fits cost", ""),
}
"""Headings and notes of the sections, by kind of set, in their order."""


@dataclass(frozen=True)
class Cell:
    """One value of one method: what is shown, what it is sorted by (None: last), and its mark."""

    text: str
    detail: str = ""
    value: float | None = None
    mark: str = ""


@dataclass(frozen=True)
class Column:
    """A column of the board: the score, the set it is on or what it is a distance to, and which way is better."""

    score: str
    part: str
    better: str


@dataclass(frozen=True)
class Line:
    """A row of a table: its label, and cells."""

    label: str
    cells: tuple[Cell, ...]
    better: str = ""
    verdict: str = ""

    @property
    def poor(self) -> bool:
        """Whether the fit is not what it is meant to be."""
        return self.verdict.partition(",")[0] in POOR


@dataclass(frozen=True)
class Board:
    """The scoreboard: a row for each method, a column for each score."""

    columns: tuple[Column, ...]
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Section:
    """Scores of one set: a row for each score, a column for each method."""

    heading: str
    note: str
    methods: tuple[str, ...]
    lines: tuple[Line, ...]


def board(run: FinishedRun, joined: pd.DataFrame) -> Board:
    """Return the scoreboard of a run.

    Arguments:
        run: the run.
        joined: `join([run])`.
    """
    methods = tuple(run.settings)
    columns, cells = [], []
    for (kind, part, score), rows in joined.groupby(["kind", "set", "score"], sort=False):
        if score in SHORT.get(kind, ()):
            columns.append(Column(score, "" if kind in ("scored", "fit") else part, _better(kind, score)))
            cells.append(_cells(kind, score, rows, methods))
    order = sorted(range(len(columns)), key=lambda i: columns[i].score in COST)  # cost last, all else as it comes
    lines = [
        Line(method, tuple(cells[i][place] for i in order), verdict=_verdict(run, method))
        for place, method in enumerate(methods)
    ]
    return Board(tuple(columns[i] for i in order), tuple(lines))


def sections(run: FinishedRun, joined: pd.DataFrame) -> list[Section]:
    """Return every score of a run, in sections; see `board` for the arguments."""
    methods = tuple(run.settings)
    names = {"reference": possessive(run.reference or ""), "part": ""}
    found = []
    for kind, (heading, note) in KINDS.items():
        of_kind = joined[joined["kind"] == kind]
        for part, rows in of_kind.groupby("set", sort=False):
            lines = [
                Line(score, _cells(kind, score, of_score, methods, monte_carlo=True), _better(kind, score))
                for score, of_score in rows.groupby("score", sort=False)
                if score not in OFF_BOARD and not score.startswith((f"{MEANS}:", f"{SDS}:"))  # table.csv has them
            ]
            words = names | {"part": part}
            size = f", {int(rows['rows'].iloc[0]):,} rows" if kind in ("OOD", "shift") else ""
            notes = [note.format(**words)]
            if kind == "reference" and run.reference is not None:
                notes += bias_notes([run.reference], [run.reference])
            found.append(Section(heading.format(**words) + size, " ".join(notes), methods, tuple(lines)))
    return found


def pairs(run: FinishedRun) -> list[Line]:
    """Return a line for every pair of methods and score that is a mean over rows: difference, and who is better."""
    lines = []
    for of in run.summary.get("differences", ()):
        value, low, high = (of.get(key) for key in ("value", "low", "high"))
        if value is None:
            continue
        shown = f"{value:.3f}" if low is None else interval_cell(value, low, high)
        share, tied = of.get("probability_better"), of.get("tied")
        cells = (
            Cell(of["method"]),
            Cell(of["minus"]),
            Cell(of["score"]),
            Cell(shown, value=value),
            Cell(NONE) if share is None else Cell(probability_better(share), value=share),
            Cell(NONE if tied is None else "tie" if tied else "differ"),
        )
        lines.append(Line("", cells))
    return lines


def _better(kind: str, score: str) -> str:
    return "↓" if score in SPENT else direction(kind, score)


def _verdict(run: FinishedRun, method: str) -> str:
    return worst_verdict([record["verdict"] for record in run.summary["fits"][method]])


def _cells(
    kind: str, score: str, rows: pd.DataFrame, methods: Sequence[str], *, monte_carlo: bool = False
) -> tuple[Cell, ...]:
    averages = average_seeds(rows).set_index("method")
    marks: Mapping[str, str] = rows.drop_duplicates("method").set_index("method")["mark"].to_dict()
    cells = []
    for method in methods:
        if method not in averages.index or math.isnan(averages.loc[method, "value"]):
            unsound = score == ELPD and method in averages.index
            cells.append(Cell("k-hat too high" if unsound else "not applicable" if score in FROM_SEVERAL else NONE))
            continue
        row = averages.loc[method]
        text, detail = number(row["value"], row["standard_error"], cost=kind == "fit" or score == BAD_ROWS)
        if monte_carlo and detail and not math.isnan(row["monte_carlo_error"]):
            digits = len(text.partition(".")[2])
            detail += f" (±{row['monte_carlo_error']:,.{digits}f})"
        if np.isfinite(row["low"]):
            text, _, detail = interval_cell(row["value"], row["low"], row["high"]).partition(" ")
        cells.append(Cell(text, detail, float(row["value"]), marks.get(method, "")))
    return tuple(cells)
