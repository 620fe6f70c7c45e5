"""One tidy table of several finished runs: what they share is checked, and the best scores are marked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from .evaluate import POSTERIOR_MEAN
from .finished import UNCONVERGED, FinishedRun, check_comparable, read_finished
from .options import UsageError
from .table import BETTER, FROM_SEVERAL, average_seeds

__all__ = ["BEST", "COST", "TIED", "direction", "join", "join_runs"]

BEST, TIED = "best", "tied"
"""Marks of a method's score: the best on average over seeds, and within noise of the best."""

COST = {
    "seconds, run": "run_seconds",
    "seconds, compile": "compile_seconds",
    "gradient evaluations": "num_gradients",
    "passes over the data": "num_passes",
    "parameters of the model": "num_parameters",
    "parameters optimised": "num_optimised",
}
"""What a fit cost, by its keys in summary.json; on the joined table these are scores of the set "fit"."""

LEVEL = 0.95
"""Level of the interval of a difference that must leave out 0, or the two scores are tied."""

DISTANCE_TO = "to "
"""What the set of distances begins with, as in "to nuts"; table.csv, whose run has one reference, says "reference"."""

CELL = ["data", "model", "set", "score"]
"""Columns that say which line of the joined table a score is on."""


def join_runs(folders: Iterable[str | Path]) -> pd.DataFrame:
    """Join finished runs of `hmcvi compare` into one tidy table.

    Runs of the same data set and model make one group: methods from several runs stand beside each other, and the
    same method at further seeds is averaged with what is there. Of a fit that two runs hold, the first run's scores
    are taken. Where a reference is unconverged at any seed of a group, the group has no distances to it. Distances to
    different references are different sets, "to nuts" and "to mclmc", and are never on one line.

    Arguments:
        folders: the runs' folders.

    Returns:
        One row for each (data, model, method, set, score, seed). Beside the columns of a run's table.csv (`value`,
        `standard_error` over the rows, `monte_carlo_error` of the posterior):

        - `kind`: what the set is, one of "scored" (test or validation rows), "posterior mean" (those rows, predicted
          from the mean), "difference" (paired, from another method), "reference" (distances to one), "OOD", "shift" (a
          severity of a graded change), "fit" (costs: seconds, gradient evaluations, parameters) and "other" (of the
          training rows);
        - `mark`: "best" for the method whose average over seeds is best, "tied" for those within noise of it: the 95 %
          interval of their difference holds 0. That is the t interval of the difference paired over seeds, and not less
          than that of the difference paired over rows, where the run has it; with one seed, or different ones, the
          interval of the rows' difference and the Monte Carlo errors, or of all the errors as if they were independent;
        - `verdict` on the fit, and `rows` in the set, `training_rows`, `temperature` and `quick` (small budgets).

    Raises:
        UsageError: a folder holds no finished run, or runs of one group differ in prior, likelihood or another option
            of the model, temperature, data, split or precision, or in the settings of a method.

    Example:
        Of runs that are there, `join_runs(folders).query("score == 'nll'").pivot_table("value", ["data", "model"],
        "method")` has a row for each data set and model.

        >>> join_runs(["runs/another"])
        Traceback (most recent call last):
        ...
        hmcvi.benchmarks.options.UsageError: runs/another holds no finished run (table.csv is not there)
    """
    return join([read_finished(Path(folder)) for folder in folders])


def join(runs: Sequence[FinishedRun]) -> pd.DataFrame:
    """As `join_runs`, of runs that are read already."""
    if not runs:
        raise UsageError("no run was given: give the folder of at least one")
    groups: dict[tuple[str, str], list[FinishedRun]] = {}
    for run in runs:
        groups.setdefault((run.data, run.model), []).append(run)
    for group in groups.values():
        check_comparable(group)
    joined = pd.concat([_join_group(group) for group in groups.values()], ignore_index=True)
    marks = {}
    paired = dict(list(joined[joined["kind"] == "difference"].groupby([*CELL, "method"])))
    for cell, rows in joined.groupby(CELL, sort=False):
        for method, mark in _marks(rows, paired).items():
            marks[(*cell, method)] = mark
    keys = joined[[*CELL, "method"]].itertuples(index=False, name=None)
    joined.insert(joined.columns.get_loc("value"), "mark", [marks.get(key, "") for key in keys])
    return joined


def direction(kind: str, score: str) -> str:
    """Return which way a score of this kind of set is better: "↑", "↓", or "" where neither is."""
    if kind in ("difference", "fit"):
        return ""
    if kind == "OOD" and score not in BETTER:
        return {"auroc": "↑", "aupr": "↑", "fpr95": "↓"}.get(score.partition(",")[0], "")
    return BETTER.get(score, "")


def _join_group(runs: Sequence[FinishedRun]) -> pd.DataFrame:
    frames = [_tidy(run) for run in runs]
    group = pd.concat(frames, ignore_index=True).drop_duplicates(["method", "set", "score", "seed"])
    # as in one run: an average over the seeds that happened to converge would pass for one over all
    lost = DISTANCE_TO + group.loc[group["verdict"] == UNCONVERGED, "method"]
    return group[~((group["kind"] == "reference") & group["set"].isin(lost))]


def _tidy(run: FinishedRun) -> pd.DataFrame:
    """Return the scores and costs of one run with all that the joined table says of them."""
    cost = pd.DataFrame(
        [
            (seed, method, "fit", score, float(record[key]))
            for method, seed, record in run.records()
            for score, key in COST.items()
            if record.get(key) is not None
        ],
        columns=["seed", "method", "set", "score", "value"],
    )
    # reindexed: a column of nothing but NaN, as a missing one would become, has its type
    table = pd.concat([run.table, cost.reindex(columns=run.table.columns).astype(run.table.dtypes)], ignore_index=True)
    records = {(method, seed): record for method, seed, record in run.records()}
    alone = {method for (method, _), record in records.items() if record["num_draws"] * record["num_chains"] == 1}
    table = table[~(table["method"].isin(alone) & table["score"].isin(FROM_SEVERAL))]
    sets = run.summary["sets"]
    graded = {part for parts in run.summary.get("shifts", {}).values() for part in parts}
    front = {
        "data": run.data,
        "model": run.model,
        "method": table["method"],
        "set": table["set"].replace("reference", f"{DISTANCE_TO}{run.reference}"),
        "kind": [_kind(part, run, graded) for part in table["set"]],
        "score": table["score"],
        "seed": table["seed"],
    }
    back = {
        "verdict": [records[key]["verdict"] for key in zip(table["method"], table["seed"], strict=True)],
        "rows": [
            run.training_rows if kind in ("fit", "other") else sets.get(part, sets[run.scored_on])
            for kind, part in zip(front["kind"], table["set"], strict=True)
        ],
        "training_rows": run.training_rows,
        "temperature": next(iter(run.temperatures.values())),
        "quick": bool(run.request["quick"]),
        "failed": ", ".join(run.summary.get("failed", {})),
    }
    return pd.concat(
        [pd.DataFrame(front, index=table.index), table.drop(columns=["method", "set", "score", "seed"])], axis=1
    ).assign(**back)


def _kind(part: str, run: FinishedRun, graded: set[str]) -> str:
    if part == run.scored_on:
        return "scored"
    if part in graded:
        return "shift"
    if part in (POSTERIOR_MEAN, "reference", "fit"):
        return part
    if part.startswith("minus "):
        return "difference"
    return "OOD" if part in run.summary["sets"] else "other"


def _marks(rows: pd.DataFrame, paired: Mapping[Any, pd.DataFrame]) -> dict[str, str]:
    """Return the marks by method of the rows of one line; none where no way is better or one method stands alone."""
    kind, score = rows[["kind", "score"]].iloc[0]
    better = direction(kind, score)
    if kind == "reference":  # whose distance to itself is the noise floor
        rows = rows[rows["method"] != rows["set"].iloc[0].removeprefix(DISTANCE_TO)]
    rows = rows.dropna(subset=["value"])
    if not better or rows["method"].nunique() < 2:
        return {}
    averages = average_seeds(rows).set_index("method")
    best = averages["value"].idxmax() if better == "↑" else averages["value"].idxmin()
    by_method = {method: of_method.set_index("seed") for method, of_method in rows.groupby("method")}
    data, model = rows[["data", "model"]].iloc[0]
    marks = {method: BEST for method in averages.index if averages.loc[method, "value"] == averages.loc[best, "value"]}
    for method in averages.index.drop(list(marks)):
        over_rows = None
        for one, other in ((best, method), (method, best)) if kind == "scored" else ():
            over_rows = paired.get((data, model, f"minus {other}", score, one), over_rows)
        if _is_tie(by_method[best], by_method[method], averages.loc[[best, method]], over_rows):
            marks[method] = TIED
    return marks


def _is_tie(ours: pd.DataFrame, theirs: pd.DataFrame, averages: pd.DataFrame, over_rows: pd.DataFrame | None) -> bool:
    """Return whether the interval of a difference holds 0.

    Arguments:
        ours: scores of one method, by seed.
        theirs: those of the other.
        averages: the averages over seeds of both.
        over_rows: their differences paired over the rows, a row for each seed, where they are known.
    """
    seeds = set(ours.index)
    same_seeds = seeds == set(theirs.index)
    rows_error = None
    if same_seeds and over_rows is not None and seeds <= set(over_rows["seed"]):
        rows_error = np.sqrt((over_rows["standard_error"] ** 2).sum()) / len(over_rows)
    middle, times = averages["value"].diff().iloc[-1], stats.norm.ppf((1 + LEVEL) / 2)
    if same_seeds and len(seeds) > 1:
        spread = (ours["value"] - theirs["value"]).std(ddof=1) / np.sqrt(len(seeds))
        # two or three seeds may differ by the same by chance, as counts of right answers do
        half = max(stats.t.ppf((1 + LEVEL) / 2, len(seeds) - 1) * spread, times * (rows_error or 0.0))
    else:
        sampling = (averages["standard_error"] ** 2).sum() if rows_error is None else rows_error**2
        half = times * np.sqrt(sampling + np.nansum(averages["monte_carlo_error"] ** 2))
    return not abs(middle) > half
