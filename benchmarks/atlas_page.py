"""The page that the atlas writes: its tables, its findings with their support, and the data beside it."""

from __future__ import annotations

import datetime
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from .reproduce import where
from .run_folder import made_with
from .table import BETTER, read_run

__all__ = ["Claim", "Finding", "Page", "confidence_interval", "judge_claim", "write_page"]

LEVEL = 0.95
"""Of the intervals that a finding stands on."""

SPENT = {"run_seconds": "seconds", "num_passes": "passes over the data", "khat": "Pareto k-hat"}
"""What a run's summary says of a fit, as scores of the set "fit"."""

PACKAGES = ("hmcvi", "jax", "numpyro", "flax", "optax", "arviz")

COLUMNS = {
    "accuracy": "accuracy",
    "rmse": "rmse",
    "nll": "nll",
    "ece": "ece",
    "coverage, 90%": "90 % coverage",
    "crps": "crps",
}
"""Scores of the test rows that the tables show, where the task has them."""

DISTANCES = ("total variation", "wasserstein-2")
"""Distances from the reference that the tables show, where the task has them."""


@dataclass(frozen=True)
class Claim:
    """That one method's score is above another's (or above a number) in one cell.

    Attributes:
        cell: "<data>-<model>".
        set: name of the rows, as in table.csv; "fit" for what the fit itself spent.
        score: the score.
        above: the method whose score is higher.
        below: the method, or the number, that it is higher than; or the other way round with a number in `above`.
    """

    cell: str
    set: str
    score: str
    above: str | float
    below: str | float


@dataclass(frozen=True)
class Finding:
    """What a reader should take away: a title, a text, and the claims it stands on."""

    title: str
    text: str
    claims: tuple[Claim, ...]


@dataclass(frozen=True)
class Page:
    """A page that was written: its path, and how many findings are supported by every one of their claims."""

    path: Path
    supported: int


def write_page(
    out: Path,
    folders: Mapping[str, Path],
    findings: Sequence[Finding],
    notes: Mapping[str, str],
    *,
    cores: int,
    quick: bool,
) -> Page:
    """Write atlas.md and atlas.parquet.

    Arguments:
        out: the folder to write to.
        folders: run folders by cell.
        findings: what to hold against the data.
        notes: a sentence or more by cell, for all cells that were asked for.
        cores: cells that ran side by side.
        quick: whether budgets were tiny.
    """
    summaries: dict[str, dict[str, Any]] = {}
    tables = []
    for cell, folder in folders.items():
        table, summaries[cell] = read_run(folder)
        table.insert(0, "cell", cell)
        tables.append(pd.concat([table, _spent(cell, summaries[cell], list(table.columns))]))
    data = pd.concat(tables, ignore_index=True)
    seconds = sum(_seconds(folder) for folder in folders.values())
    supports = [[judge_claim(claim, data) for claim in finding.claims] for finding in findings]
    supported = sum(all(support.holds for support in group) for group in supports)
    text = [
        "# The atlas: what HMC buys over cheap inference, and what it costs",
        "",
        f"Written {datetime.date.today().isoformat()} on {where()}; {_versions()}. {len(folders)} cells (a bundled "
        f"data set and a model each), seeds {_seeds(summaries)}; {seconds / 60:,.0f} minutes of cells, {cores} at a "
        "time on one core each. `make atlas` repeats it; every number is in `atlas.parquet` beside this page.",
        "",
    ]
    if quick:
        text += ["**Quick: budgets too small to conclude anything from.**", ""]
    text += ["## Three findings" if len(findings) == 3 else "## Findings", ""]
    for number, (finding, group) in enumerate(zip(findings, supports, strict=True), 1):
        text += [f"### {number}. {finding.title}", "", finding.text.strip(), ""]
        if not all(support.holds for support in group):
            text += ["**Not supported by this run**: intervals overlap, or a cell is missing.", ""]
        text += [f"- {support.sentence}" for support in group] + [""]
    text += ["## Cells", "", _HOW_TO_READ, ""]
    for cell, summary in summaries.items():
        text += [f"### {summary['title'].removesuffix(', quick: budgets too small to conclude from')}", ""]
        text += [f"{notes[cell]}", ""] if notes.get(cell) else []
        text += [*_table(data[data["cell"] == cell], summary), ""]
    missing = [cell for cell in notes if cell not in folders]
    text += [f"Not finished: {cell}. {notes[cell]}\n" for cell in missing]
    out.mkdir(parents=True, exist_ok=True)
    data.to_parquet(out / "atlas.parquet", index=False)
    (out / "atlas.md").write_text("\n".join(text).rstrip() + "\n")
    return Page(out / "atlas.md", supported)


_HOW_TO_READ = (
    "Means over seeds ± the standard error over them; each seed is another split and another key. "
    "Distances are to NUTS' predictions, only where NUTS converged at every seed; its own row holds the noise floor, "
    "between halves of its chains. Seconds are those of the compiled loop on one core. nll in nats a row. **Bold**: "
    "the best mean of the column (of accuracy, errors and nll); (u): a fit is unconverged or unfinished at some seed."
)


@dataclass(frozen=True)
class Support:
    """A claim held against the data: whether the intervals keep apart, and a sentence with both."""

    holds: bool
    sentence: str


def judge_claim(claim: Claim, data: pd.DataFrame) -> Support:
    """Hold a claim against the atlas' data: both sides' intervals must not overlap."""
    what = f"{claim.cell}, {claim.score} ({claim.set})"
    sides = []
    for side in (claim.above, claim.below):
        if isinstance(side, str):
            rows = data[
                (data["cell"] == claim.cell)
                & (data["set"] == claim.set)
                & (data["score"] == claim.score)
                & (data["method"] == side)
            ]
            if rows.empty:
                return Support(False, f"{what}: {side} was not measured")
            sides.append(confidence_interval(rows))
        else:
            sides.append((float(side), float(side), float(side)))
    (high, high_low, high_high), (low, low_low, low_high) = sides
    holds = high_low > low_high

    def say(side: str | float, value: float, bottom: float, top: float) -> str:
        return f"{side} {value:.4g} [{bottom:.4g}, {top:.4g}]" if isinstance(side, str) else f"{value:g}"

    relation = "above" if holds else "NOT above"
    return Support(
        holds,
        f"{what}: {say(claim.above, high, high_low, high_high)} {relation} {say(claim.below, low, low_low, low_high)}",
    )


def confidence_interval(rows: pd.DataFrame, level: float = LEVEL) -> tuple[float, float, float]:
    """Return (mean, low, high) of a score over seeds.

    The half width is the larger of two: Student's t over the seeds' spread, t sd / √S, which holds everything and
    is known from few seeds only; and z √(Σ (standard error² + Monte Carlo error²)) / S, the errors that each seed
    reports, which a chance agreement of three seeds cannot shrink.

    Arguments:
        rows: one row a seed, with value, standard_error and monte_carlo_error; errors may be NaN.
        level: the interval's level.
    """
    values = rows["value"].to_numpy(float)
    own = np.nan_to_num(rows[["standard_error", "monte_carlo_error"]].to_numpy(float))
    count = len(values)
    half = stats.norm.ppf((1 + level) / 2) * math.sqrt(float((own**2).sum())) / count
    if count > 1:
        between = values.std(ddof=1) / math.sqrt(count)
        half = max(half, float(stats.t.ppf((1 + level) / 2, count - 1) * between))
    center = float(values.mean())
    return center, center - half, center + half


def _spent(cell: str, summary: Mapping[str, Any], columns: Sequence[str]) -> pd.DataFrame:
    rows = [
        {"cell": cell, "seed": seed, "method": method, "set": "fit", "score": score, "value": record.get(key)}
        for method, records in summary["fits"].items()
        for seed, record in zip(summary["seeds"], records, strict=True)
        for key, score in SPENT.items()
        if record.get(key) is not None
    ]
    return pd.DataFrame(rows).reindex(columns=columns)


def _table(data: pd.DataFrame, summary: Mapping[str, Any]) -> list[str]:
    """Return one cell's table in Markdown: a row for each method."""
    inside = next(iter(summary["sets"]))
    scores = [(inside, score, label) for score, label in COLUMNS.items()]
    scores += [("reference", score, f"{score} to nuts") for score in DISTANCES]
    foreign = [name for name in summary["sets"] if name != inside]
    scores += [(name, "auroc, entropy", f"AUROC, {name}") for name in foreign[:1]]
    scores += [("fit", "passes over the data", "passes"), ("fit", "seconds", "seconds")]
    by_cell = dict(data.groupby(["set", "score", "method"]))
    scores = [key for key in scores if any((key[0], key[1], method) in by_cell for method in summary["fits"])]
    best = {}
    for part, score, _ in scores:
        better = BETTER.get(score) if part == inside else None
        means = {m: by_cell[part, score, m]["value"].mean() for m in summary["fits"] if (part, score, m) in by_cell}
        if better:
            best[part, score] = (max if better == "↑" else min)(means, key=lambda method: means[method])
    heads = [f"{label} {BETTER.get(score, '')}".rstrip() for _, score, label in scores]
    lines = ["| " + " | ".join(["method", *heads]) + " |", "|---|" + "---:|" * len(heads)]
    for method, records in summary["fits"].items():
        poor = any(record["verdict"].startswith("un") for record in records)
        cells = [f"{method}{' (u)' if poor else ''}"]
        for part, score, _ in scores:
            rows = by_cell.get((part, score, method))
            text = "–" if rows is None else _mean(rows["value"].to_numpy(float), part)
            cells.append(f"**{text}**" if best.get((part, score)) == method else text)
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _mean(values: np.ndarray, part: str) -> str:
    center = values.mean()
    if part == "fit":
        return f"{center:,.1f}" if center < 100 else f"{center:,.0f}"
    error = values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    digits = 1 if abs(center) >= 10 else 3
    text = f"{center:.{digits}f}"
    return text if math.isnan(error) else f"{text} ±{error:.{digits}f}"


def _seconds(folder: Path) -> float:
    try:
        return float(json.loads((folder / "atlas.json").read_text())["seconds"])
    except (OSError, ValueError, KeyError):
        return 0.0


def _seeds(summaries: Mapping[str, Mapping[str, Any]]) -> str:
    return ", ".join(
        str(seed) for seed in sorted({seed for summary in summaries.values() for seed in summary["seeds"]})
    )


def _versions() -> str:
    versions = made_with()["versions"]
    return ", ".join(f"{name} {versions[name]}" for name in PACKAGES)
