"""The atlas at a glance: what the reference buys over the cheap methods in each cell, and what it costs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hmcvi import plots

from .reference import REFERENCES, possessive, recorded_reference
from .table import POOR

__all__ = ["differences_from_reference", "draw_overview", "named_references", "overview"]

CHEAP = ("svi", "bbb", "map")
"""The methods that stand for the cheap ones: mean field by SVI, Bayes-by-Backprop, and the mode."""

DRAWN = (*CHEAP, "laplace", "ensemble")
"""Those and two more are in the figure."""

LINEAR_WITHIN = 0.01
"""Nats around 0 over which the figure's axis is linear: about what the test rows of these sets can tell from 0."""

SCORES = ("accuracy", "squared error")
"""Shown beside the nll, where the task has one of them."""

HOW_TO_READ = (
    "A method's score less {whose}, paired over rows and seeds, with its 95 % bootstrap interval; nll in nats a row, "
    "squared error in squared units of the target. An nll above 0 is what HMC buys, below 0 what it loses; where the "
    "interval holds 0 it buys nothing that these rows could show. **Bold**: the interval leaves out 0 and both fits "
    "ended; (u): that fit is unconverged or unfinished at some seed. Cost: {whose} passes over the data, in those of "
    "SVI."
)


def differences_from_reference(summaries: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Return the paired differences from the reference, of all cells (cell, method, score, value, low, ...).

    Arguments:
        summaries: summary.json by cell.
    """
    found = [
        {"cell": cell, **difference}
        for cell, summary in summaries.items()
        for difference in summary.get("differences", ())
        if difference["minus"] == recorded_reference(summary)
        and difference["low"] is not None  # infinite rows have no interval
    ]
    return pd.DataFrame(found, columns=["cell", "method", "minus", "score", "value", "low", "high", "tied"])


def overview(differences: pd.DataFrame, summaries: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return a table in Markdown with a row for each cell, and how to read it.

    Arguments:
        differences: as `differences_from_reference` returns them.
        summaries: summary.json by cell; those without a reference have no row, and none of them no table.
    """
    references = _references(summaries)
    if not references:
        return []
    by_key = differences.set_index(["cell", "method", "score"])
    heads = [
        "cell",
        *(f"{method}: nll" for method in CHEAP),
        *(f"{method}: accuracy or squared error" for method in CHEAP[:2]),
    ]
    how_to_read = HOW_TO_READ.format(whose=possessive(named_references(summaries)))
    lines = [how_to_read, "", "| " + " | ".join([*heads, "cost"]) + " |", "|---|" + "---:|" * len(heads)]
    for cell, reference in references.items():
        fits = summaries[cell]["fits"]
        second = next((score for score in SCORES if (cell, CHEAP[0], score) in by_key.index), SCORES[0])
        cells = [f"{cell}{_from(reference)}{_mark(fits[reference])}"]
        for methods, score in ((CHEAP, "nll"), (CHEAP[:2], second)):
            cells += [
                _difference(by_key.loc[cell, method, score], _mark(fits[reference]), _mark(fits[method]))
                if (cell, method, score) in by_key.index
                else "–"
                for method in methods
            ]
        cost = [fits.get(name) for name in (reference, CHEAP[0])]
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
    references = _references(summaries)
    for row in shown.itertuples():
        reference = references[row.cell]
        label = row.cell.replace("-", ", ") + _from(reference)
        if _mark(summaries[row.cell]["fits"][reference]):
            label += f"\n({reference} unconverged)"
        groups.setdefault(label, {})[row.method] = (row.value, row.low, row.high)
    if not groups:
        return []
    whose = possessive(named_references(summaries))
    axes = plots.score_differences(
        groups,
        xlabel=f"nll minus {whose} (nats a row): above 0 is what HMC buys, below 0 what it loses",
        linear_within=LINEAR_WITHIN,
    )
    return plots.save(axes, stem)


def named_references(summaries: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the cells' references as a sentence names them.

    Example:
        >>> named_references({"wave-mlp": {"fits": {"nuts": []}}, "wave-gp": {"fits": {"hmc": []}, "reference": "hmc"}})
        'NUTS or HMC'
    """
    return " or ".join(name.upper() for name in dict.fromkeys(_references(summaries).values()))


def _references(summaries: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Return the reference by cell, of those whose reference was fitted."""
    found = {cell: recorded_reference(summary) for cell, summary in summaries.items()}
    return {cell: name for cell, name in found.items() if name is not None and name in summaries[cell]["fits"]}


def _from(reference: str) -> str:
    return "" if reference == REFERENCES[0] else f", from {reference}"


def _difference(row: pd.Series, mark_of_reference: str, mark: str) -> str:
    text = f"{row['value']:+.3g} [{row['low']:.3g}, {row['high']:.3g}]"
    return f"{text}{mark}" if row["tied"] or mark or mark_of_reference else f"**{text}**"


def _mark(records: list[Mapping[str, Any]]) -> str:
    return " (u)" if any(record["verdict"] in POOR for record in records) else ""


def _passes(records: list[Mapping[str, Any]]) -> float:
    return float(np.mean([record["num_passes"] for record in records]))
