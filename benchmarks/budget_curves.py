"""How scores grow with the budget: fits at shares of it, as a table and as curves."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from .table import average_seeds

__all__ = ["BUDGET_COLUMNS", "SHARES", "budget_curves", "budget_rows"]

SHARES = (0.125, 0.25, 0.5)
"""Shares of the budget at which every method is fitted once more, for the curves: each a fit planned for its share."""

DONE = ("converged", "finished", "schedule ended")
"""Verdicts of a fit that would gain nothing from a larger budget, as far as it can tell."""

BUDGET_COLUMNS = (
    "seed",
    "method",
    "share",
    "passes",
    "seconds",
    "verdict",
    "score",
    "value",
    "standard_error",
    "monte_carlo_error",
)

SAME = 0.98
"""Share of the next point's spending from which on a point is that one again."""

CURVES = ("accuracy", "rmse", "nll", "ece", "crps")
"""Scores that are drawn against the budget, where the task has them."""


def budget_curves(table: pd.DataFrame, unit: str) -> dict[str, dict[str, dict[str, np.ndarray]]]:
    """Return method -> score -> arrays (point,), averaged over seeds and ordered by what was spent.

    Arguments:
        table: rows with `BUDGET_COLUMNS`.
        unit: "passes" or "seconds": which of the two columns is "budget".

    Returns:
        "budget", "value", "standard_error", and "done": whether every seed's fit converged or finished. A share at
        which a seed has no posterior has no point, and one at which a method stopped short of it has one only.
    """
    curves: dict[str, dict[str, dict[str, np.ndarray]]] = {}
    shown = [score for score in CURVES if score in set(table["score"])]
    for (method, score), group in table.groupby(["method", "score"], sort=False):
        if score not in shown:
            continue
        seeds = group.loc[group["share"] == 1, "seed"].nunique()
        points: list[tuple[float, ...]] = []
        for _, at_share in sorted(group.groupby("share"), reverse=True):
            if at_share["seed"].nunique() < seeds:
                continue  # an average over the seeds for which the share sufficed would flatter it
            if points and at_share[unit].mean() > SAME * points[-1][0]:
                continue  # the method was done before its allowance was: this is the fit at the larger share
            averaged = average_seeds(at_share.assign(set="", low=math.nan, high=math.nan)).iloc[0]
            done = bool(at_share["verdict"].isin(DONE).all())
            points.append((at_share[unit].mean(), averaged["value"], averaged["standard_error"], done))
        spent, value, error, done_at = (np.array(column) for column in zip(*sorted(points), strict=True))
        curves.setdefault(str(method), {})[str(score)] = {
            "budget": spent,
            "value": value,
            "standard_error": error,
            "done": done_at,
        }
    return {method: {score: of[score] for score in shown if score in of} for method, of in curves.items()}


def budget_rows(
    seed: int, method: str, share: float, record: Mapping[str, Any], rows: Any, inside: str
) -> list[tuple[Any, ...]]:
    """Return the rows of `BUDGET_COLUMNS` for one fit.

    Arguments:
        seed: the seed.
        method: the method's name.
        share: the share of the budget that the fit was allowed.
        record: what the scoreboard says of the fit itself.
        rows: the fit's scores.
        inside: name of the set of rows that are scored, as "test".
    """
    spent = (record["num_passes"], record["run_seconds"], record["verdict"])
    return [
        (seed, method, share, *spent, row.score, row.value, row.standard_error, row.monte_carlo_error)
        for row in rows
        if row.set == inside
    ]
