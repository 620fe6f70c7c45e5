"""The scoreboard: a tidy table of scores, and the same as a person reads it at 100 columns."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from .checksums import INCOMPLETE, read_json, read_summed, refuse_links
from .evaluate import POSTERIOR_MEAN
from .loo import BAD_ROWS, ELPD, TRAINING_ROWS
from .moments import MEANS, SDS
from .options import UsageError
from .reference import UNADJUSTED, bias_notes, possessive, recorded_reference

__all__ = [
    "COLUMNS",
    "POOR",
    "average_seeds",
    "how_to_read",
    "interval_cell",
    "print_scoreboard",
    "probability_better",
    "read_run",
    "scoreboard",
    "worst_verdict",
]

COLUMNS = ("seed", "method", "set", "score", "value", "standard_error", "monte_carlo_error", "low", "high")

WIDTH = 100
"""Columns of text that a scoreboard fits in."""

LABEL_WIDTH = 28
"""Columns of text that a label takes at least, so that the boards of several runs line up."""

CELL_WIDTH = 22
"""Columns of text that a cell takes, as in "0.979 ±0.008 (±0.000)": a long name is wrapped, a number never cut."""

METHODS_PER_TABLE = 3
"""More methods are laid out in further tables beneath, each beside the reference."""

BETTER = {
    "accuracy": "↑",
    "nll": "↓",
    "nll, of single draws": "↓",
    "nll, refinement": "↓",
    "nll, miscalibration": "↓",
    "brier": "↓",
    "ece": "↓",
    "ece, equal mass": "↓",
    "ece, class-wise": "↓",
    "calibration error, max": "↓",
    "aurc, entropy": "↓",
    "error at 80% coverage": "↓",
    "error at 95% coverage": "↓",
    "crps": "↓",
    "rmse": "↓",
    "pit distance": "↓",
    "agreement": "↑",
    "total variation": "↓",
    "jensen-shannon": "↓",
    "wasserstein-2": "↓",
    MEANS: "↓",
    ELPD: "↑",
}
"""Which way is better, where one way is."""

ON_BOARD = ("auroc, entropy", "auroc, mutual information", "auroc, 1 − confidence")
"""OOD scores shown to a person; table.csv has AUPR, FPR95 and the mean uncertainties too."""

OFF_BOARD = ("width of 50%", "width of 80%", "width of 95%")
"""Scores of the test rows in table.csv alone, as are the posterior moments site by site."""

POOR = ("unconverged", "unfinished", "restarts disagree")
"""Verdicts on fits that are not what they are meant to be."""

FROM_SEVERAL = (
    "entropy, epistemic",
    "auroc, mutual information",
    "nll, of single draws",
    "nll, gained by averaging",
    SDS,
)
"""Scores of how draws differ: one draw alone has none."""


def average_seeds(table: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each (method, set, score), averaged over seeds.

    With several seeds the standard error is that between them, sd / √seeds: it holds the test set's sampling error
    and the training's. The Monte Carlo error is that of the average, √(Σ error²) / seeds. An interval is over the rows
    of one seed, so several have none.
    """
    rows = []
    for (method, part, score), group in table.groupby(["method", "set", "score"], sort=False):
        values, errors = group["value"].to_numpy(), group["standard_error"].to_numpy()
        count = len(values)
        with np.errstate(invalid="ignore"):  # infinite at some seed: no error
            error = errors[0] if count == 1 else values.std(ddof=1) / np.sqrt(count)
        monte_carlo = np.sqrt((group["monte_carlo_error"].to_numpy() ** 2).sum()) / count
        ends = group[["low", "high"]].iloc[0] if count == 1 else (np.nan, np.nan)
        rows.append((method, part, score, values.mean(), error, monte_carlo, *ends))
    return pd.DataFrame(rows, columns=["method", "set", "score", *COLUMNS[4:]])


def scoreboard(table: pd.DataFrame, summary: Mapping[str, Any], methods: Sequence[str]) -> Table:
    """Return the scoreboard of up to three methods as a rich table.

    Arguments:
        table: tidy scores with `COLUMNS`.
        summary: what `hmcvi compare` writes to summary.json.
        methods: the methods to show, one a column.
    """
    averaged = average_seeds(table).set_index(["set", "score", "method"])
    board = Table(box=None, pad_edge=False, padding=(0, 1), header_style="bold")
    board.add_column("", overflow="fold", min_width=LABEL_WIDTH)
    for method in methods:
        board.add_column(method, justify="right", no_wrap=True, min_width=CELL_WIDTH)

    def section(title: str) -> None:
        board.add_row()
        board.add_row(Text(title, style="bold"))

    fits = summary["fits"]
    board.add_row(Text("fit", style="bold"))
    board.add_row("  verdict", *(worst_verdict([record["verdict"] for record in fits[method]]) for method in methods))
    for label, key, digits in (
        ("seconds, run", "run_seconds", 1),
        ("seconds, compile", "compile_seconds", 1),
    ):
        board.add_row(f"  {label}", *(_mean(fits[method], key, digits) for method in methods))
    board.add_row("  gradient evaluations", *(_mean(fits[method], "num_gradients", 0) for method in methods))
    board.add_row("  passes over the data", *(_mean(fits[method], "num_passes", 0) for method in methods))
    board.add_row("  parameters of the model", *(_mean(fits[method], "num_parameters", 0) for method in methods))
    board.add_row("  parameters optimised", *(_mean(fits[method], "num_optimised", 0) for method in methods))
    board.add_row("  posterior draws", *(f"{_draws(fits[method]):,}" for method in methods))
    for label, key, digits in (
        ("R-hat, 95 % below", "rhat", 3),
        ("ESS, 95 % above", "ess", 0),
        ("gradient signal/noise", "gradient_snr", 3),
        ("Pareto k-hat", "khat", 2),
    ):
        board.add_row(f"  {label}", *(_mean(fits[method], key, digits) for method in methods))

    if any(_temperature(records) != 1 for records in fits.values()):
        board.add_row("  temperature of the KL", *(f"{_temperature(fits[method]):g}" for method in methods))

    by_set: dict[str, list[str]] = {}
    for part, score, _ in averaged.index:
        if score not in by_set.setdefault(part, []):
            by_set[part].append(score)

    def line(part: str, score: str, label: str) -> None:
        cells = []
        for method in methods:
            if score in FROM_SEVERAL and _draws(fits[method]) == 1:
                cells.append("not applicable")
            elif (part, score, method) not in averaged.index:
                cells.append("–")
            else:
                row = averaged.loc[(part, score, method)]
                if np.isfinite(row["low"]):
                    cells.append(interval_cell(row["value"], row["low"], row["high"]))
                else:
                    cells.append(_cell(row["value"], row["standard_error"], row["monte_carlo_error"]))
        board.add_row(Text(f"  {label}"), *cells)

    inside = next(iter(summary["sets"]))
    section(f"{inside}, {summary['sets'][inside]:,} rows")
    for score in by_set[inside]:
        if score not in OFF_BOARD:
            line(inside, score, f"{score} {BETTER.get(score, '')}".rstrip())
    if any((POSTERIOR_MEAN, score, method) in averaged.index for score in by_set[inside] for method in methods):
        section("at the posterior mean")
        for score in by_set[POSTERIOR_MEAN]:
            line(POSTERIOR_MEAN, score, f"{score} {BETTER.get(score, '')}".rstrip())
    for part in by_set:
        if part.startswith("minus "):
            first = part.removeprefix("minus ")
            unsure = " (unconverged: as one predictor among others)" if _unconverged(fits.get(first, ())) else ""
            section(f"difference from {first}{unsure}, paired")
            of = {(d["method"], d["score"]): d for d in summary.get("differences", ()) if d["minus"] == first}
            for score in by_set[part]:
                if not of:
                    line(part, score, score)
                    continue
                found = [of.get((method, score)) for method in methods]
                board.add_row(Text(f"  {score}"), *map(_difference, found))
                board.add_row(Text(f"    P(better than {first})"), *map(_better, found))
    reference = recorded_reference(summary)
    if reference is not None:
        section(f"distance to {reference}{', unadjusted' if reference in UNADJUSTED else ''}")
        for score in by_set.get("reference", ()):
            if ":" not in score:  # site by site
                line("reference", score, f"{score} {BETTER.get(score, '')}".rstrip())
        if "reference" not in by_set:
            board.add_row(f"  none: {reference} {'is unconverged' if reference in fits else 'failed'}")
    if TRAINING_ROWS in by_set:
        section(f"{TRAINING_ROWS}, left out")
        elpd, bad = ([_training(averaged, summary, method, score) for method in methods] for score in (ELPD, BAD_ROWS))
        board.add_row(f"  {ELPD} {BETTER[ELPD]}", *elpd)
        board.add_row(f"  {BAD_ROWS}", *bad)
    shifts = summary.get("shifts", {})
    graded = [part for parts in shifts.values() for part in parts]
    foreign = [part for part in summary["sets"] if part != inside and part not in graded]
    for score in ON_BOARD:
        if not any(score in by_set[part] for part in foreign):  # a regression has no confidence
            continue
        section(f"{score.replace('auroc', 'AUROC')} ↑")
        for part in foreign:
            line(part, score, f"{part}, {summary['sets'][part]:,} rows")
    for shift, parts in shifts.items():
        section(f"{shift}, severities 1 to {len(parts)}")
        known = [score for score in by_set[inside] if score in by_set[parts[0]]]
        # where no answer is right after the change, there is the uncertainty alone
        for score in known or ["mean entropy"]:
            cells = []
            for method in methods:
                values = averaged.loc[[(part, score, method) for part in parts]].mean()
                cells.append(_cell(values["value"], values["standard_error"], values["monte_carlo_error"]))
            board.add_row(f"  {score} {BETTER.get(score, '')}".rstrip(), *cells)
    gaps = [part for part in foreign if (part, "rmse") in averaged.index.droplevel("method")]
    for part in gaps:
        section(f"{part}, {summary['sets'][part]:,} rows")
        for score in by_set[part]:
            if score in by_set[inside]:
                line(part, score, f"{score} {BETTER.get(score, '')}".rstrip())
    return board


def print_scoreboard(table: pd.DataFrame, summary: Mapping[str, Any], console: Console | None = None) -> None:
    """Print title, scoreboard and how to read it."""
    console = Console(width=WIDTH, highlight=False, markup=False, emoji=False) if console is None else console
    methods = list(summary["fits"])
    seeds = summary["seeds"]
    console.print()
    console.print(summary["title"], style="bold")
    for shown in _layout(methods, recorded_reference(summary)):
        console.print()
        console.print(scoreboard(table, summary, shown))
    console.print(f"\n{how_to_read(table, summary)}", style="dim")
    for method, records in summary["fits"].items():
        for seed, record in zip(seeds, records, strict=True):
            of_seed = f", seed {seed}" if len(seeds) > 1 else ""
            console.print(f"{method}{of_seed}: {record['reason']}", style="dim")
    for method, reason in summary.get("failed", {}).items():
        # not wrapped: a path in it is there to be copied
        console.print(f"{method} failed and is left out: {reason}", style="dim", soft_wrap=True)


def how_to_read(table: pd.DataFrame, summary: Mapping[str, Any]) -> str:
    """Return what the numbers on this board mean: a sentence for each thing that is on it."""
    inside, *others = summary["sets"]
    error = "the test set's sampling error over rows"
    if (number := len(summary["seeds"])) > 1:
        error = f"the standard error over {number} seeds (splits and fits)"
    sentences = [
        f"value ± {error} (± the posterior's Monte Carlo error, from halves of its draws); entropies and nll "
        "in nats. ↑ higher is better, ↓ lower."
    ]
    if (table["set"] == POSTERIOR_MEAN).any():
        sentences.append("At the posterior mean: one deterministic pass, in place of an average over draws.")
    if (table["score"] == "aurc, entropy").any():
        sentences.append(
            "Error at 80% coverage: where only the rows of least entropy are answered; aurc: its mean over all shares."
        )
    if others:
        sentences.append(f"AUROC: how well an uncertainty tells OOD rows from {inside} rows, 0.5 is chance.")
    if summary.get("shifts"):
        sentences.append("Under a graded shift: the mean over its severities.")
    if (table["score"] == "nll, refinement").any():
        sentences.append(
            "nll = that of single draws − gained by averaging = refinement + miscalibration; the latter is what the "
            "best temperature mends, above 1 for overconfidence; 0 where every row is right."
        )
    if (table["score"] == "pit distance").any():
        sentences.append("PIT distance: mean error of the coverage over all levels.")
    reference = recorded_reference(summary)
    held_against = [reference] if reference is not None and (table["set"] == "reference").any() else []
    if held_against:
        sentences.append(
            f"{possessive(held_against[0])} distance to itself is the noise floor, between two halves of its chains; "
            "[95 % interval]. Posterior sds below 0 in log ratio are too narrow; where hidden units change places "
            "between chains the floor of the posterior moments is high, and they say nothing."
        )
    if len(summary["fits"]) > 1:
        over = "rows, with the Monte Carlo errors"
        if len(summary["seeds"]) > 1:
            over = "seeds and rows, or Student's over the seeds where that is wider"
        sentences.append(
            f"Methods share their {inside} rows, so that their errors go together: judge them by the paired "
            f"differences, [95 % interval] by bootstrap over {over}; a tie's holds 0."
        )
    if TRAINING_ROWS in set(table["set"]):
        sentences.append(
            "elpd_loo: log density of each training row under the draws reweighted to leave it out (PSIS-LOO), which "
            "a k-hat that is too high in over 1 % of the rows forbids."
        )
        none = summary.get("no_loo", {})
        sentences += [f"Not applicable to {method}: {reason}." for method, reason in none.items()]
    return " ".join([*sentences, *bias_notes(summary["fits"], held_against)])


def read_run(folder: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return (tidy table, summary) of a run folder.

    Raises:
        UsageError: the folder holds no finished run, or its files are damaged.
    """
    try:
        refuse_links(folder)
        if (folder / INCOMPLETE).exists():
            raise UsageError(
                f"{folder} is incomplete: the command that began it, which {INCOMPLETE} holds, goes on with it"
            )
        table = pd.read_csv(io.BytesIO(read_summed(folder / "table.csv")))
        summary = read_json(folder / "summary.json")
    except FileNotFoundError as error:
        inside = sorted(path.parent.name for path in folder.glob("*/summary.json"))
        hint = f"; inside it are the runs {', '.join(inside[:5])}{', ...' if len(inside) > 5 else ''}" if inside else ""
        raise UsageError(f"{folder} holds no finished run ({Path(error.filename).name} is not there){hint}") from error
    except NotADirectoryError as error:
        raise UsageError(f"{folder} is a file: give the run's folder") from error
    except UsageError:
        raise
    except (OSError, ValueError) as error:
        raise UsageError(f"{folder} cannot be read: {error}") from error
    is_summary = isinstance(summary, dict) and {"fits", "sets", "seeds", "title"} <= summary.keys()
    is_summary = is_summary and isinstance(summary.get("reference"), str | None)
    if tuple(table.columns) != COLUMNS or not is_summary:
        raise UsageError(
            f"{folder}/table.csv or summary.json is not what this version of hmcvi compare writes: run it again"
        )
    return table, summary


def _layout(methods: Sequence[str], reference: str | None) -> list[list[str]]:
    """Return the methods of each table; the reference, whose column holds the noise floor, leads every one."""
    if len(methods) <= METHODS_PER_TABLE:
        return [list(methods)]
    lead = [method for method in methods if method == reference]
    others = [method for method in methods if method not in lead]
    step = METHODS_PER_TABLE - len(lead)
    return [lead + others[start : start + step] for start in range(0, len(others), step)]


def _cell(value: float, error: float, monte_carlo: float) -> str:
    if np.isnan(error):
        return f"{value:.3f}"
    parts = (error,) if np.isnan(monte_carlo) else (error, monte_carlo)

    def text(digits: str, of_errors: str) -> str:
        errors = [f"±{part:{of_errors}}" for part in parts]
        return " ".join([f"{value:{digits}}", *errors[:1], *(f"({one})" for one in errors[1:])])

    tries = [(f".{digits}f", f".{digits}f") for digits in ((3, 2, 1, 0) if abs(value) < 100 else (1, 0))]
    if 0 < abs(value) < 0.01 and 0 < error < 5e-4:  # a target of small unit: three digits would say zero
        tries = [(".2g", ".1g")]
    return _that_fits([text(*one) for one in tries] + [text(".0e", ".0e")])


def interval_cell(value: float, low: float, high: float) -> str:
    """Return "value [low, high]" no wider than a cell, with as many of three digits as fit.

    >>> interval_cell(0.0123, 0.0101, 0.0149), interval_cell(-0.0123, -0.0201, -0.0049), interval_cell(1e-4, 5e-5, 2e-4)
    ('0.012 [0.010, 0.015]', '-0.012 [-0.020,-0.005]', '1e-04 [5e-05, 2e-04]')
    """
    tries = [f".{digits}f" for digits in ((3, 2, 1, 0) if abs(value) < 100 else (1, 0))]
    if 0 < max(abs(value), high - low) < 0.005:  # three digits would say zero
        tries = []
    texts = []
    for digits in (*tries, ".0e"):
        of_value, of_low, of_high = (f"{float(f'{number:{digits}}') + 0.0:{digits}}" for number in (value, low, high))
        texts += [f"{of_value} [{of_low}{gap}{of_high}]" for gap in (", ", ",")]
    return _that_fits(texts)


def _that_fits(texts: Sequence[str]) -> str:
    return next((text for text in texts if len(text) <= CELL_WIDTH), texts[-1])


def _difference(found: Mapping[str, Any] | None) -> str:
    if found is None or found["value"] is None:  # infinite rows of both
        return "–"
    if found["low"] is None:
        return f"{found['value']:.3f}"
    return interval_cell(found["value"], found["low"], found["high"])


def _better(found: Mapping[str, Any] | None) -> str:
    if found is None or found["probability_better"] is None:
        return "–"
    text = probability_better(found["probability_better"])
    return f"tie, {text}" if found["tied"] else text


def probability_better(share: float) -> str:
    """Return a share of resamples with three digits; of finitely many, none says 0 or 1."""
    return ">0.999" if share > 0.9994 else "<0.001" if share < 0.0006 else f"{share:.3f}"


def _training(averaged: pd.DataFrame, summary: Mapping[str, Any], method: str, score: str) -> str:
    if (TRAINING_ROWS, score, method) not in averaged.index:
        return "not applicable"
    row = averaged.loc[(TRAINING_ROWS, score, method)]
    if score == BAD_ROWS:
        return f"{row['value']:,.0f} of {summary['training_rows']:,}"
    if np.isnan(row["value"]):
        return "k-hat too high"
    return _cell(row["value"], row["standard_error"], row["monte_carlo_error"])


def worst_verdict(verdicts: Sequence[str]) -> str:
    """Return the verdict on all seeds, or the worst and how often it was passed.

    Example:
        >>> worst_verdict(["finished", "unfinished", "finished"])
        'unfinished, 1 of 3'
    """
    worst = max(verdicts, key=lambda verdict: verdict in POOR)
    return worst if len(set(verdicts)) == 1 else f"{worst}, {verdicts.count(worst)} of {len(verdicts)}"


def _temperature(records: Sequence[Mapping[str, Any]]) -> float:
    return float(records[0].get("temperature", 1.0))


def _draws(records: Sequence[Mapping[str, Any]]) -> int:
    return int(records[0]["num_draws"] * records[0]["num_chains"])


def _unconverged(records: Sequence[Mapping[str, Any]]) -> bool:
    return any(record["verdict"] == "unconverged" for record in records)


def _mean(records: Sequence[Mapping[str, Any]], key: str, digits: int) -> str:
    values = [float(record[key]) for record in records if record.get(key) is not None]
    return f"{np.mean(values):,.{digits}f}" if len(values) == len(records) else "not applicable"
