"""The atlas at a glance: what NUTS buys over the cheap methods in each cell, and what it costs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hmcvi import plots

from .evaluate import REFERENCE
from .table import POOR

__all__ = ["differences_from_reference", "draw_overview", "overview"]

CHEAP = ("svi", "bbb", "map")
"""The methods that stand for the cheap ones: mean field by SVI, Bayes-by-Backprop, and the mode."""

DRAWN = (*CHEAP, "laplace", "ensemble")
"""Those and two more are in the figure."""

LINEAR_WITHIN = 0.01
"""Nats around 0 over which the figure's axis is linear: about what the test rows of these sets can tell from 0."""

SCORES = ("accuracy", "squared error")
"""Shown beside the nll, where the task has one of them."""

HOW_TO_READ = (
    "A method's score less NUTS', paired over rows and seeds, with its 95 % bootstrap interval; nll in nats a row, "
    "squared error in squared units of the target. An nll above 0 is what HMC buys, below 0 what it loses; where the "
    "interval holds 0 it buys nothing that these rows could show. **Bold**: the interval leaves out 0 and both fits "
    "ended; (u): that fit is unconverged or unfinished at some seed. Cost: NUTS' passes over the data, in those of SVI."
)


def differences_from_reference(summaries: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Return the paired differences of every method from NUTS, of all cells (cell, method, score, value, low, ...).

    Arguments:
        summaries: summary.json by cell.
    """
    found = [
        {"cell": cell, **difference}
        for cell, summary in summaries.items()
        for difference in summary.get("differences", ())
        if difference["minus"] == REFERENCE and difference["low"] is not None  # infinite rows have no interval
    ]
    return pd.DataFrame(found, columns=["cell", "method", "minus", "score", "value", "low", "high", "tied"])


def overview(differences: pd.DataFrame, summaries: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return a table in Markdown with a row for each cell, and how to read it.

    Arguments:
        differences: as `differences_from_reference` returns them.
        summaries: summary.json by cell; those without NUTS have no row, and none of them no table.
    """
    summaries = {cell: summary for cell, summary in summaries.items() if REFERENCE in summary["fits"]}
    if not summaries:
        return []
    by_key = differences.set_index(["cell", "method", "score"])
    heads = [
        "cell",
        *(f"{method}: nll" for method in CHEAP),
        *(f"{method}: accuracy or squared error" for method in CHEAP[:2]),
    ]
    lines = [HOW_TO_READ, "", "| " + " | ".join([*heads, "cost"]) + " |", "|---|" + "---:|" * len(heads)]
    for cell, summary in summaries.items():
        fits = summary["fits"]
        second = next((score for score in SCORES if (cell, CHEAP[0], score) in by_key.index), SCORES[0])
        cells = [f"{cell}{_mark(fits[REFERENCE])}"]
        for methods, score in ((CHEAP, "nll"), (CHEAP[:2], second)):
            cells += [
                _difference(by_key.loc[cell, method, score], _mark(fits[REFERENCE]), _mark(fits[method]))
                if (cell, method, score) in by_key.index
                else "–"
                for method in methods
            ]
        cost = [fits.get(name) for name in (REFERENCE, CHEAP[0])]
        cells.append("–" if None in cost else f"{_passes(cost[0]) / _passes(cost[1]):,.0f} ×{_mark(cost[1])}")
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def draw_overview(differences: pd.DataFrame, summaries: Mapping[str, Mapping[str, Any]], stem: Path) -> list[Path]:
    """Draw the differences in nll of all cells as PNG and SVG, and return their paths; none without differences.

    Arguments:
        differences: as `differences_from_reference` returns them.
        summaries: summary.json by cell.
        stem: folder and name without an extension.
    """
    shown = differences[differences["method"].isin(DRAWN) & (differences["score"] == "nll")]
    groups: dict[str, dict[str, tuple[float, float, float]]] = {}
    for row in shown.itertuples():
        label = row.cell.replace("-", ", ")
        if _mark(summaries[row.cell]["fits"][REFERENCE]):
            label += f"\n({REFERENCE} unconverged)"
        groups.setdefault(label, {})[row.method] = (row.value, row.low, row.high)
    if not groups:
        return []
    axes = plots.score_differences(
        groups,
        xlabel="nll minus NUTS' (nats a row): above 0 is what HMC buys, below 0 what it loses",
        linear_within=LINEAR_WITHIN,
    )
    return plots.save(axes, stem)


def _difference(row: pd.Series, mark_of_reference: str, mark: str) -> str:
    text = f"{row['value']:+.3g} [{row['low']:.3g}, {row['high']:.3g}]"
    return f"{text}{mark}" if row["tied"] or mark or mark_of_reference else f"**{text}**"


def _mark(records: list[Mapping[str, Any]]) -> str:
    return " (u)" if any(record["verdict"] in POOR for record in records) else ""


def _passes(records: list[Mapping[str, Any]]) -> float:
    return float(np.mean([record["num_passes"] for record in records]))
