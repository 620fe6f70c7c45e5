"""What `speed.py` measured: one record a contestant, ratios within rounds, tables, and the files that are published."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from hmcvi.inference.durable import write_whole

__all__ = ["Measurement", "publish", "ratios", "read", "shown"]

OVERHEAD = "draws/s"
"""The unit of a comparison whose answer is an overhead: it is told in per cent too."""

CSV, PAGE = "speed.csv", "speed.md"


@dataclass(frozen=True)
class Measurement:
    """What one contestant of one case took.

    Attributes:
        case: name of the case.
        title: what is measured.
        contestant: who took part.
        ours: whether that is hmcvi.
        unit: "s", of which fewer are better, or something a second.
        values: in that unit, by round (round,); NaN where a round failed; empty where all did.
        run_seconds: of each round, compiling apart (round,).
        compile_seconds: until the first round was over, compiling alone.
        note: versions, settings, and what a reader must know.
        failure: why values are missing; "" where none is.
    """

    case: str
    title: str
    contestant: str
    ours: bool
    unit: str
    values: tuple[float, ...]
    run_seconds: tuple[float, ...]
    compile_seconds: float
    note: str = ""
    failure: str = ""


def ratios(one: Measurement, other: Measurement) -> np.ndarray:
    """Return how many times as fast one is as another, in the rounds that both came through (round,)."""
    rounds = min(len(one.values), len(other.values))
    a, b = np.array(one.values[:rounds]), np.array(other.values[:rounds])
    both = np.isfinite(a) & np.isfinite(b)
    return b[both] / a[both] if one.unit == "s" else a[both] / b[both]


def shown(found: Sequence[Measurement]) -> Group:
    """Return the tables of one case, for a terminal of 100 columns."""
    parts: list[Any] = [Text(f"{found[0].case}: {found[0].title}", style="bold")]
    for header, rows in _tables(found):
        table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="bold")
        for place, column in enumerate(header):
            table.add_column(column, justify="right" if place else "left", overflow="fold", vertical="bottom")
        for row in rows:
            table.add_row(*row)
        parts.append(Padding(table, (0, 0, 0, 2)))
    parts += [Padding(Text(sentence, style="dim"), (0, 0, 0, 2)) for sentence in _sentences(found)]
    return Group(*parts, Text(""))


def publish(folder: Path, found: Sequence[Measurement], made: Mapping[str, str]) -> Path:
    """Write speed.csv and speed.md, and return the latter; cases that were published before and not measured now stay.

    Arguments:
        folder: where; made if it is not there.
        found: what was measured.
        made: "date", "device" and "versions", kept with each case.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{**made, **row} for one in found for row in _rows(one)]
    table = pd.DataFrame(rows)
    path = folder / CSV
    if path.exists():
        before = pd.read_csv(path, keep_default_na=False, dtype=str)
        kept = before[~before["case"].isin(set(table["case"]))]
        table = pd.concat([kept, table.astype(str)], ignore_index=True)
    text = io.StringIO()
    table.to_csv(text, index=False, lineterminator="\n")
    write_whole(path, text.getvalue())
    write_whole(folder / PAGE, _page(path))
    return folder / PAGE


def read(path: Path) -> list[tuple[Mapping[str, str], list[Measurement]]]:
    """Return what a published speed.csv holds, by case: what it was made with, and its measurements."""
    table = pd.read_csv(path, keep_default_na=False, dtype=str)
    cases: list[tuple[Mapping[str, str], list[Measurement]]] = []
    for _, rows in table.groupby("case", sort=False):
        made = {name: rows[name].iloc[0] for name in ("date", "device", "versions")}
        cases.append((made, [_measurement(of) for _, of in rows.groupby("contestant", sort=False)]))
    return cases


def _rows(one: Measurement) -> list[dict[str, Any]]:
    """Return a row for each round; a contestant without any has one without numbers."""
    shared = {
        name: getattr(one, name) for name in ("case", "title", "contestant", "ours", "unit", "note", "failure")
    } | {"compile_seconds": f"{one.compile_seconds:.4g}"}
    numbers = [
        {"round": number + 1, "value": f"{value:.6g}", "run_seconds": f"{seconds:.6g}"}
        for number, (value, seconds) in enumerate(zip(one.values, one.run_seconds, strict=True))
    ]
    return [shared | of for of in numbers or [{"round": "", "value": "", "run_seconds": ""}]]


def _measurement(rows: pd.DataFrame) -> Measurement:
    first, numbers = rows.iloc[0], rows[rows["round"] != ""]
    words = {name: first[name] for name in ("case", "title", "contestant", "unit", "note", "failure")}
    return Measurement(
        **words,
        ours=first["ours"] == "True",
        values=tuple(map(float, numbers["value"])),
        run_seconds=tuple(map(float, numbers["run_seconds"])),
        compile_seconds=float(first["compile_seconds"]),
    )


def _tables(found: Sequence[Measurement]) -> list[tuple[list[str], list[list[str]]]]:
    """Return (header, rows) of what was measured, and of how many times as fast ours are as others."""
    unit = found[0].unit
    header = ["", "seconds" if unit == "s" else unit, *([] if unit == "s" else ["run, s"]), "compile, s"]
    rows = []
    for one in found:
        came = np.isfinite(one.values).sum()
        cells = [_spread(np.array(one.values)) + (f", {came} of {len(one.values)}" if came < len(one.values) else "")]
        if unit != "s":
            cells.append(_number(float(np.nanmedian(one.run_seconds))) if one.run_seconds else "–")
        rows.append([one.contestant, *cells, _number(one.compile_seconds) if one.values else "–"])
    tables = [(header, rows)]
    ours = [one for one in found if one.ours and one.values]
    others = [one for one in found if not one.ours and one.values]
    if ours and others:
        # a row for each of the others: ours are four at most, so that they fit side by side
        against = [[other.contestant, *(_spread(ratios(one, other), _ratio) for one in ours)] for other in others]
        tables.append((["times as fast as", *(one.contestant for one in ours)], against))
    return tables


def _sentences(found: Sequence[Measurement]) -> list[str]:
    """Return what there is to say of each contestant."""
    failed = [f"{one.contestant}: {one.failure}" for one in found if one.failure]
    ours, others = ([one for one in found if one.ours is mine and one.values] for mine in (True, False))
    longer = [
        f"{one.contestant} takes {_spread(100 / ratios(one, other) - 100)} % longer than {other.contestant}"
        for one in ours
        for other in others
        if one.unit == OVERHEAD and len(ratios(one, other))
    ]
    return [*failed, *longer, *(f"{one.contestant}: {one.note}" for one in found if one.note)]


def _page(path: Path) -> str:
    lines = [
        "# Speed",
        "",
        "hmcvi beside what a user would pick instead, in the same run on the same work: medians over rounds (lowest to "
        "highest), in which all take turns; “2 of 5” stands where the other rounds failed, and counts those "
        "two. Ratios are taken within rounds, above 1 where hmcvi is faster; compiling is apart. `make speed` measures "
        "anew; every round is in speed.csv.",
    ]
    for made, found in read(path):
        lines += ["", f"## {found[0].case}", "", f"{found[0].title[0].upper()}{found[0].title[1:]}."]
        for header, rows in _tables(found):
            lines += ["", _line(header), _line(["---", *["---:"] * (len(header) - 1)]), *map(_line, rows)]
        lines += ["", *(f"- {sentence}" for sentence in _sentences(found))]
        rounds = max(len(one.values) for one in found)
        told = f" in {rounds} round{'s' if rounds != 1 else ''}" if rounds else ""
        lines += [f"- measured {made['date']}{told} on {made['device']}, with {made['versions']}"]
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '\\|') for cell in cells)} |"


def _number(value: float) -> str:
    """Return three digits of a number, never as a power of ten where it can be read.

    >>> _number(0.01234), _number(2.5), _number(1234.6), _number(0)
    ('0.0123', '2.5', '1,235', '0')
    """
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    return f"{value:,.0f}" if abs(value) >= 999.5 else f"{value:.3g}"


def _ratio(value: float) -> str:
    """Return a ratio to a hundredth, or to two digits where it is small.

    >>> _ratio(1.066), _ratio(0.0213), _ratio(61.24), _ratio(1234)
    ('1.07', '0.021', '61.2', '1,234')
    """
    return f"{value:.2g}" if value < 0.1 else f"{value:.2f}" if value < 10 else _number(value)


def _spread(values: np.ndarray, number: Callable[[float], str] = _number) -> str:
    """Return the median, and the extremes where there are several; NaN stands for a round that has no value."""
    values = values[np.isfinite(values)]
    if not len(values):
        return "–"
    if len(values) == 1:
        return number(float(values[0]))
    middle, low, high = (number(float(value)) for value in (np.median(values), values.min(), values.max()))
    return f"{middle} ({low}–{high})"
