"""The atlas at a glance: what NUTS buys over the cheap methods in each cell, and what it costs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from .evaluate import REFERENCE
from .table import POOR

__all__ = ["differences_from_reference", "overview"]

CHEAP = ("svi", "bbb", "map")
"""The methods that stand for the cheap ones: mean field by SVI, Bayes-by-Backprop, and the mode."""

SCORES = ("accuracy", "rmse")
"""Shown beside the nll, where the task has one of them."""

HOW_TO_READ = (
    "A method's score less NUTS', paired over rows and seeds, with its 95 % bootstrap interval; nll in nats a row. "
    "**Bold**: the interval leaves out 0. An nll above 0 is what HMC buys, below 0 what it loses; elsewhere it buys "
    "nothing that these rows could show. Cost: NUTS' passes over the data, in those of SVI. (u): that fit is "
    "unconverged or unfinished at some seed."
)


def differences_from_reference(summaries: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Return the paired differences of every method from NUTS, of all cells (cell, method, score, value, low, ...).

    Arguments:
        summaries: summary.json by cell.
    """
    found = [
        {"cell": cell, **difference}
        for cell, summary in summaries.items()
        for difference in summary["differences"]
        if difference["minus"] == REFERENCE
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
    heads = ["cell", *(f"{method}: nll" for method in CHEAP), *(f"{method}: accuracy or rmse" for method in CHEAP[:2])]
    lines = [HOW_TO_READ, "", "| " + " | ".join([*heads, "cost"]) + " |", "|---|" + "---:|" * len(heads)]
    for cell, summary in summaries.items():
        fits = summary["fits"]
        second = next((score for score in SCORES if (cell, CHEAP[0], score) in by_key.index), SCORES[0])
        cells = [f"{cell}{_mark(fits[REFERENCE])}"]
        for methods, score in ((CHEAP, "nll"), (CHEAP[:2], second)):
            cells += [
                _difference(by_key.loc[cell, method, score]) + _mark(fits[method])
                if (cell, method, score) in by_key.index
                else "–"
                for method in methods
            ]
        cells.append(f"{_passes(fits[REFERENCE]) / _passes(fits[CHEAP[0]]):,.0f} ×" if CHEAP[0] in fits else "–")
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _difference(row: pd.Series) -> str:
    text = f"{row['value']:+.3f} [{row['low']:.3f}, {row['high']:.3f}]"
    return text if row["tied"] else f"**{text}**"


def _mark(records: list[Mapping[str, Any]]) -> str:
    return " (u)" if any(record["verdict"] in POOR for record in records) else ""


def _passes(records: list[Mapping[str, Any]]) -> float:
    return float(np.mean([record["num_passes"] for record in records]))
