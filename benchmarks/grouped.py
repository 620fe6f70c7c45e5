"""The grouped table of several runs as a person reads it: a block for each data set and model, a column a method."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from .joined import COST, DISTANCE_TO, direction
from .options import UsageError
from .reference import bias_notes
from .table import average_seeds, worst_verdict

__all__ = ["SHORT", "Block", "Cell", "chosen", "how_to_read", "lay_out", "number"]

SHORT: dict[str, tuple[str, ...]] = {
    "scored": ("accuracy", "nll", "brier", "ece", "rmse", "crps", "coverage, 90%"),
    "reference": ("agreement", "total variation", "wasserstein-2"),
    "OOD": ("auroc, entropy",),
    "fit": ("seconds, run", "passes over the data"),
}
"""Scores shown unless others are asked for, by the kind of their set."""

ALL = "all"
"""In place of names: every score of every set."""


@dataclass(frozen=True)
class Cell:
    """What one method has on one line: its text, and a mark ("best", "tied" or "")."""

    text: str
    mark: str = ""


@dataclass(frozen=True)
class Block:
    """One data set and model.

    Attributes:
        heading: data, model, numbers of rows, seeds.
        methods: the columns.
        lines: labels, each with a cell for every method.
        num_words: how many of the first lines hold words, and no numbers.
        notes: what is to be known of its methods, a sentence each.
    """

    heading: str
    methods: tuple[str, ...]
    lines: tuple[tuple[str, tuple[Cell, ...]], ...]
    num_words: int
    notes: tuple[str, ...]


def lay_out(joined: pd.DataFrame, names: Sequence[str] = ()) -> list[Block]:
    """Return the blocks of a joined table.

    Arguments:
        joined: what `join_runs` returns.
        names: scores to show: a score's name, as it is on the test rows, or a line's label; ("all",) for all; a short
            list by default.

    Raises:
        UsageError: no run has a score of that name.
    """
    shown = joined[chosen(joined, names)]
    blocks = joined.groupby(["data", "model"], sort=False)
    return [_block(shown.loc[shown.index.intersection(group.index)], group) for _, group in blocks]


def how_to_read(best: str, tied: str, blocks: Sequence[Block]) -> str:
    """Return what the signs of a table mean, where these words or signs stand for its marks, and its notes."""
    signs = (
        "Mean ± standard error over seeds (of one seed: the sampling error over its rows). "
        f"{best}: best; {tied}: tied with the best, whose difference is within its 95 % interval, paired "
        "where it can be. –: not run, or not at every seed of the method. ↑ higher is better, ↓ lower."
    )
    return " ".join([signs, *dict.fromkeys(note for block in blocks for note in block.notes)])


def _labels(joined: pd.DataFrame) -> pd.Series:
    """Return what each row's line is called: the score's name, and its set where that is another than was scored."""

    def label(kind: str, part: str, score: str) -> str:
        if kind in ("scored", "fit"):
            return score
        return f"{score}, {'at the ' if kind == 'posterior mean' else ''}{part}"

    parts = joined[["kind", "set", "score"]].itertuples(index=False, name=None)
    return pd.Series([label(*part) for part in parts], index=joined.index, dtype=object)


def chosen(joined: pd.DataFrame, names: Sequence[str]) -> pd.Series:
    """Return for each row of the joined table whether its line is asked for; see `lay_out`."""
    labels = _labels(joined)
    if list(names) == [ALL]:
        return pd.Series(True, index=joined.index)
    pairs = list(zip(joined["kind"], joined["score"], strict=True))
    if not names:
        return pd.Series([score in SHORT.get(kind, ()) for kind, score in pairs], index=joined.index)
    inside = set(joined.loc[joined["kind"].isin(["scored", "fit", "reference"]), "score"])
    # a name means the score on the test rows; on other sets only where the test rows have none of that name
    named = [
        score if kind in ("scored", "fit", "reference") or (kind == "OOD" and score not in inside) else ""
        for kind, score in pairs
    ]
    known = dict.fromkeys([*filter(None, named), *labels])
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            listed = "; ".join(dict.fromkeys(filter(None, named)))
            raise UsageError(f"no run has a score {name!r}{hint}: give {ALL}, a line's label, or names of {listed}")
    return pd.Series([name in names for name in named], index=joined.index) | labels.isin(names)


def _block(shown: pd.DataFrame, group: pd.DataFrame) -> Block:
    methods = tuple(dict.fromkeys(group["method"]))
    fits = group.drop_duplicates(["method", "seed"])
    seeds = {method: tuple(sorted(fits.loc[fits["method"] == method, "seed"])) for method in methods}
    lines = [
        (
            "verdict",
            tuple(Cell(worst_verdict(list(fits.loc[fits["method"] == method, "verdict"]))) for method in methods),
        )
    ]
    if len(set(seeds.values())) > 1:
        lines.append(("seeds", tuple(Cell(", ".join(map(str, seeds[method]))) for method in methods)))
    num_words = len(lines)
    labels = _labels(shown)
    for (kind, _, score), rows in shown.groupby(["kind", "set", "score"], sort=False):
        sign = direction(kind, score)
        label = f"{labels[rows.index[0]]} {sign}".rstrip()
        averages = average_seeds(rows).set_index("method")
        counts = rows.groupby("method")["seed"].nunique()
        marks = rows.drop_duplicates("method").set_index("method")["mark"]
        cells = []
        for method in methods:
            if counts.get(method, 0) < len(seeds[method]):  # an average over fewer seeds would pass for one over all
                cells.append(Cell("–"))
            else:
                value, error = averages.loc[method, ["value", "standard_error"]]
                cells.append(Cell(" ".join(filter(None, number(value, error, cost=score in COST))), marks[method]))
        lines.append((label, tuple(cells)))
    references = dict.fromkeys(shown.loc[shown["kind"] == "reference", "set"].str.removeprefix(DISTANCE_TO))
    notes = tuple(bias_notes(methods, list(references)))
    return Block(_heading(group, sorted(set().union(*seeds.values()))), methods, tuple(lines), num_words, notes)


def _heading(group: pd.DataFrame, seeds: Sequence[int]) -> str:
    data, model, training_rows, temperature = group[["data", "model", "training_rows", "temperature"]].iloc[0]
    scored = group[group["kind"] == "scored"].iloc[0]
    return (
        f"{data}, {model}: {training_rows:,} training and {scored['rows']:,} {scored['set']} rows, "
        f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
        f"{'' if temperature == 1 else f', temperature {temperature:g}'}"
        f"{''.join(f', without {names}, which failed' for names in sorted(set(group['failed']) - {''}))}"
        f"{', quick: budgets too small to conclude from' if group['quick'].any() else ''}"
    )


def number(value: float, error: float, *, cost: bool = False) -> tuple[str, str]:
    """Return ("0.979", "±0.008"), with a digit more than the error's first, three at least unless the value is large.

    The second is "" where the error is NaN.
    """
    if cost or abs(value) >= 100:
        digits = 1 if abs(value) < 1000 and value % 1 else 0  # a count has no digits behind the point
    else:
        # an average of equal numbers differs by its rounding
        digits = 3 if not error > 1e-9 * abs(value) else int(np.clip(1 - np.floor(np.log10(error)), 3, 5))
    spread = "" if np.isnan(error) else f"±{error:,.{digits}f}"
    return f"{value:,.{digits}f}", spread
