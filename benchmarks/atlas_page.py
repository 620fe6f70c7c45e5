"""The page that the atlas writes: its tables, its findings with their support, and the data beside it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from .atlas_overview import differences_from_reference, draw_overview, named_references, overview
from .checksums import read_json
from .reference import bias_notes, recorded_reference
from .table import BETTER, POOR, read_run

__all__ = ["Claim", "Finding", "Page", "confidence_interval", "judge_claim", "write_page"]

LEVEL = 0.95
"""Of the intervals that a finding stands on."""

FIT = "fit"
"""The set of what a run's summary says of a fit, as scores."""

SETTLED = "settled"
"""1 for a fit that converged or finished, 0 for one that did not."""

SPENT = {"run_seconds": "seconds", "num_passes": "passes over the data", "khat": "Pareto k-hat"}
"""Numbers of a run's summary, by the names they have as scores."""

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

    It holds where the two intervals do not overlap, both were measured at every seed, and (but for what a fit spent)
    both fits converged or finished at every seed.

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
    seconds: float,
    quick: bool,
) -> Page:
    """Write atlas.md, atlas.parquet, differences.parquet and the figure atlas.png and atlas.svg.

    Arguments:
        out: the folder to write to.
        folders: run folders by cell.
        findings: what to hold against the data.
        notes: a sentence or more by cell, for all cells that were asked for.
        seconds: what the cells took, one after another.
        quick: whether budgets were tiny.
    """
    summaries: dict[str, dict[str, Any]] = {}
    tables = []
    for cell, folder in folders.items():
        table, summaries[cell] = read_run(folder)
        table.insert(0, "cell", cell)
        tables.append(pd.concat([table, _spent(cell, summaries[cell], list(table.columns))]))
    data = pd.concat(tables, ignore_index=True)
    supports = [[judge_claim(claim, data) for claim in finding.claims] for finding in findings]
    supported = sum(all(support.holds for support in group) for group in supports)
    text = [
        "# The atlas: what HMC buys over cheap inference, and what it costs",
        "",
        f"{_made(folders)} {len(folders)} cells (a bundled data set and a model each), seeds {_seeds(summaries)}; "
        f"{seconds / 60:,.0f} minutes of cells, each on one core. `make atlas` repeats it; every number is in "
        "`atlas.parquet` and `differences.parquet` beside this page.",
        "",
    ]
    if quick:
        text += ["**Quick: budgets too small to conclude anything from.**", ""]
    differences = differences_from_reference(summaries)
    out.mkdir(parents=True, exist_ok=True)
    glance, drawn = overview(differences, summaries), draw_overview(differences, summaries, out / "atlas")
    text += ["## At a glance", "", *glance, ""] if glance else []
    text += (
        [f"![Differences in nll from {named_references(summaries)}, cell by cell]({drawn[0].name})", ""]
        if drawn
        else []
    )
    text += ["## Three findings" if len(findings) == 3 else "## Findings", ""]
    for number, (finding, group) in enumerate(zip(findings, supports, strict=True), 1):
        text += [f"### {number}. {finding.title}", "", finding.text.strip(), ""]
        if not all(support.holds for support in group):
            text += ["**Not supported by this run**: intervals overlap, or a cell is missing.", ""]
        text += [f"- {support.sentence}" for support in group] + [""]
    text += ["## Cells", "", _how_to_read(summaries), ""]
    for cell, summary in summaries.items():
        text += [f"### {summary['title']}", ""]
        text += [f"{notes[cell]}", ""] if notes.get(cell) else []
        text += [*_table(data[data["cell"] == cell], summary), ""]
    missing = [cell for cell in notes if cell not in folders]
    text += [f"Not finished: {cell}. {notes[cell]}\n" for cell in missing]
    data.to_parquet(out / "atlas.parquet", index=False)
    differences.to_parquet(out / "differences.parquet", index=False)
    (out / "atlas.md").write_text("\n".join(text).rstrip() + "\n")
    return Page(out / "atlas.md", supported)


_HOW_TO_READ = (
    "Means over seeds ± the standard error over them; each seed is another split and another key. "
    "Distances are to the predictions of the method in the column's head, only where it converged at every seed; its "
    "own row holds the noise floor, between halves of its chains. Seconds are those of the compiled loop on one core, "
    "beside whatever else the machine did. nll in nats a row. **Bold**: "
    "the best mean of the column, by however little, among the fits that converged or finished at every seed; (u) "
    "marks the others. Both errors of every score, and all scores, are in `atlas.parquet`."
)


@dataclass(frozen=True)
class Support:
    """A claim held against the data: whether the intervals keep apart, and a sentence with both."""

    holds: bool
    sentence: str


def judge_claim(claim: Claim, data: pd.DataFrame) -> Support:
    """Hold a claim against the atlas' data: both sides' intervals must not overlap."""
    what = f"{claim.cell}, {claim.score} ({claim.set})"
    in_cell = data[data["cell"] == claim.cell]
    sides = []
    for side in (claim.above, claim.below):
        if isinstance(side, str):
            of_side = in_cell[in_cell["method"] == side]
            rows = of_side[(of_side["set"] == claim.set) & (of_side["score"] == claim.score)]
            if rows.empty or rows["seed"].nunique() < in_cell["seed"].nunique():
                return Support(False, f"{what}: {side} was not measured at every seed")
            settled = of_side.loc[(of_side["set"] == FIT) & (of_side["score"] == SETTLED), "value"]
            if claim.set != FIT and not (len(settled) and settled.min() == 1):
                return Support(False, f"{what}: {side} is unconverged or unfinished at some seed")
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
    if count == 1 and not own.any():
        half = math.inf  # one number without an error says nothing of its neighbours
    if count > 1:
        between = values.std(ddof=1) / math.sqrt(count)
        half = max(half, float(stats.t.ppf((1 + level) / 2, count - 1) * between))
    center = float(values.mean())
    return center, center - half, center + half


def _spent(cell: str, summary: Mapping[str, Any], columns: Sequence[str]) -> pd.DataFrame:
    rows = [
        {"cell": cell, "seed": seed, "method": method, "set": FIT, "score": score, "value": value}
        for method, records in summary["fits"].items()
        for seed, record in zip(summary["seeds"], records, strict=True)
        for score, value in (
            *((score, record.get(key)) for key, score in SPENT.items()),
            (SETTLED, float(record["verdict"] not in POOR)),
        )
        if value is not None
    ]
    return pd.DataFrame(rows).reindex(columns=columns)


def _table(data: pd.DataFrame, summary: Mapping[str, Any]) -> list[str]:
    """Return one cell's table in Markdown: a row for each method."""
    inside = next(iter(summary["sets"]))
    scores = [(inside, score, label) for score, label in COLUMNS.items()]
    scores += [("reference", score, f"{score} to {recorded_reference(summary)}") for score in DISTANCES]
    foreign = [name for name in summary["sets"] if name != inside]
    scores += [(name, "auroc, entropy", f"AUROC, {name}") for name in foreign[:1]]
    scores += [(FIT, "passes over the data", "passes"), (FIT, "seconds", "seconds")]
    by_cell = dict(iter(data.groupby(["set", "score", "method"])))
    scores = [key for key in scores if any((key[0], key[1], method) in by_cell for method in summary["fits"])]
    sound = [m for m, records in summary["fits"].items() if not any(r["verdict"] in POOR for r in records)]
    best = {}
    for part, score, _ in scores:
        better = BETTER.get(score) if part == inside else None
        means = {m: by_cell[part, score, m]["value"].mean() for m in sound if (part, score, m) in by_cell}
        if better and means:
            best[part, score] = (max if better == "↑" else min)(means, key=lambda method: means[method])
    heads = [f"{label} {BETTER.get(score, '')}".rstrip() for _, score, label in scores]
    lines = ["| " + " | ".join(["method", *heads]) + " |", "|---|" + "---:|" * len(heads)]
    for method in summary["fits"]:
        cells = [f"{method}{'' if method in sound else ' (u)'}"]
        for part, score, _ in scores:
            rows = by_cell.get((part, score, method))
            text = "–" if rows is None else _mean(rows["value"].to_numpy(float), part)
            cells.append(f"**{text}**" if best.get((part, score)) == method else text)
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _mean(values: np.ndarray, part: str) -> str:
    center = values.mean()
    if part == FIT:
        return f"{center:,.1f}" if center < 100 else f"{center:,.0f}"
    error = values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    digits = 1 if abs(center) >= 10 else 3
    text = f"{center:.{digits}f}"
    return text if math.isnan(error) else f"{text} ±{error:.{digits}f}"


def _seeds(summaries: Mapping[str, Mapping[str, Any]]) -> str:
    return ", ".join(
        str(seed) for seed in sorted({seed for summary in summaries.values() for seed in summary["seeds"]})
    )


def _how_to_read(summaries: Mapping[str, Mapping[str, Any]]) -> str:
    """Return how to read the tables of the cells, with what is to be known of their methods."""
    methods = {method: None for summary in summaries.values() for method in summary["fits"]}
    references = {name for name in map(recorded_reference, summaries.values()) if name is not None}
    return " ".join([_HOW_TO_READ, *bias_notes(methods, sorted(references))])


def _made(folders: Mapping[str, Path]) -> str:
    """Return when, where and with which versions the cells were measured, by their own manifests."""
    manifests = [read_json(folder / "manifest.json") for folder in folders.values()]
    days = sorted({manifest["written"][:10] for manifest in manifests})
    versions = {name: sorted({manifest["versions"][name] for manifest in manifests}) for name in PACKAGES}
    machines = sorted({manifest["processor"] for manifest in manifests})
    return (
        f"Measured {' to '.join(dict.fromkeys((days[0], days[-1])))} on {', '.join(machines)}; "
        f"{', '.join(name + ' ' + ' and '.join(of) for name, of in versions.items())}."
    )
