"""`hmcvi report`: a finished run as one page that needs no network and can be sent."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup

from hmcvi import plots
from hmcvi.inference.durable import write_whole

from .explain import PAGE_FOLDER, explain_score, find_caption, glossary
from .finished import UNCONVERGED, FinishedRun, check_temperatures, read_finished, show_value
from .joined import BEST, TIED, join
from .options import UsageError
from .reference import UNADJUSTED, bias_notes
from .repeat import is_of_arrays, repeat_command
from .report_board import Board, board, pairs, sections
from .report_figures import Embedded, embed
from .table import POOR, how_to_read

__all__ = ["page_of", "render_page", "write_report"]

NAME = "report.html"

MOST_BYTES = 5_000_000
"""What a page may weigh, so that it can be sent."""

MOST_NAMED = 3
"""Methods whose cost the summary names one by one."""

COVERED = "coverage, 90%"
"""The score of a regression that the summary holds against its nominal level."""

FIRST_QUESTIONS = ("accuracy", "nll", "rmse")
"""Scores that the summary at the top speaks of, where the run has them."""


def write_report(folder: Path, out: Path | None = None) -> Path:
    """Write the report of a finished run, and return its path.

    Arguments:
        folder: the run's folder.
        out: the file to write; report.html in the run's folder by default.

    Raises:
        UsageError: the folder holds no finished run, its files or figures are damaged, or the page cannot be written.
    """
    run = read_finished(folder)
    check_temperatures(folder, run.summary)
    path = folder / NAME if out is None else out
    page = page_of(run)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, page)
    except OSError as error:
        raise UsageError(f"{path} cannot be written ({error.strerror}): give another --out file") from error
    return path


def page_of(run: FinishedRun) -> str:
    """Return the page of a run as HTML, without any address that it would load from."""
    joined = join([run])
    table, methods = board(run, joined), tuple(run.settings)
    has_reference = bool((run.table["set"] == "reference").any())
    facts = {
        "run": run,
        "title": run.summary["title"],
        "question": _question(run),
        "answers": _answers(run, table),
        "set_up": _set_up(run),
        "hyperparameters": [(name, _settings(settings)) for name, settings in run.settings.items()],
        "board": table,
        "read_board": how_to_read(run.table, {**run.summary, "shifts": {}}),  # the page has every severity apart
        "sections": sections(run, joined),
        "pairs": pairs(run),
        "verdicts": list(run.records()),
        "failed": run.summary.get("failed", {}),
        "command": None if is_of_arrays(run.request) else _command(run),
        "manifest": json.dumps(run.manifest, indent=2),
        "configuration": json.dumps(run.request, indent=2),
        "fit_files": [f"fits/{method}-seed{run.seeds[0]}.nc" for method in methods],
        "explain": explain_score,
        "looks": plots.looks(methods),
        "glossary": glossary([*_scores(joined), "verdict", "probability better", "R-hat", "ESS", "Pareto k-hat"]),
        "has_reference": has_reference,
        "notes": bias_notes(methods, [run.reference] if has_reference and run.reference else []),
        "BEST": BEST,
        "TIED": TIED,
        "POOR": POOR,
        "several_seeds": len(run.seeds) > 1,
    }
    bare = render_page("report.html", figures=[], left_out=[], **facts)
    figures, left_out = embed(run.folder / "figures", methods, MOST_BYTES - len(bare.encode()) - 100_000)
    return render_page("report.html", figures=_grouped(figures), left_out=left_out, **facts)


def render_page(template: str, **facts: Any) -> str:
    """Fill in one of the templates of page/, with style and script inside."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(PAGE_FOLDER), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["slug"] = slug
    environment.filters["number"] = lambda value: repr(float(value)).replace(
        "inf", "Infinity"
    )  # as JavaScript reads it
    inside = {name: Markup((PAGE_FOLDER / f"page.{name}").read_text(encoding="utf-8")) for name in ("css", "js")}
    return environment.get_template(template).render(**inside, **facts)


def slug(text: str) -> str:
    """Return a text as a part of an address inside the page.

    Example:
        >>> slug("AUROC, 1 − confidence")
        'auroc-1-confidence'
    """
    return "-".join(re.findall(r"\w+", text.lower()))


def _grouped(figures: Sequence[Embedded]) -> list[tuple[str, list[list[Embedded]]]]:
    """Return the figures by group, those of one kind (a method each) together."""
    groups: dict[str, dict[str, list[Embedded]]] = {}
    for figure in figures:
        kinds = groups.setdefault(figure.caption.group, {})
        kind = find_caption(figure.caption.stem)
        assert kind is not None
        kinds.setdefault(kind.stem, []).append(figure)
    return [(group, list(kinds.values())) for group, kinds in groups.items()]


def _scores(joined: pd.DataFrame) -> list[str]:
    """Return the names of all scores that the page shows, without those of single sites."""
    return list(dict.fromkeys(score for score in joined["score"] if ":" not in score))


def _command(run: FinishedRun) -> str:
    """Return what repeats the run, at its precision."""
    return f"{'JAX_ENABLE_X64=1 ' if run.precision == 'float64' else ''}{repeat_command(run.request)}"


def _question(run: FinishedRun) -> str:
    """Return what was asked: which methods, on which rows."""
    methods, fits = list(run.settings), run.summary["fits"]
    cheap = [name for name in methods if fits[name][0]["num_chains"] == 1]  # draws of a sampler are chains
    if len(methods) == 1:
        asked = f"How good is {methods[0]}?"
    elif run.reference in methods and cheap:
        asked = f"What does cheap inference cost against {run.reference}?"
    else:
        asked = "Which method is better?"
    of_seeds = f"at each of the seeds {', '.join(map(str, run.seeds))} " if len(run.seeds) > 1 else ""
    fitted = f"{', '.join(methods)} {'were' if len(methods) > 1 else 'was'} {of_seeds}fitted to"
    shared = "the same " if len(methods) > 1 else ""
    return (
        f"{asked} {fitted} {shared}{run.training_rows:,} rows of {run.data}, with {shared or 'the '}model {run.model} "
        f"and {shared or 'its '}prior, and scored on {_scored_rows(run)}."
    )


def _scored_rows(run: FinishedRun) -> str:
    inside, sets, shifts = run.scored_on, run.summary["sets"], run.summary.get("shifts", {})
    foreign = len(sets) - 1 - sum(map(len, shifts.values()))
    rows = f"{sets[inside]:,} {inside} rows"
    if shifts:
        rows += f" (also under growing {' and '.join(shifts)})"
    if foreign:
        rows += f" and {foreign} set{'s' if foreign > 1 else ''} of rows from elsewhere"
    return rows


def _answers(run: FinishedRun, table: Board) -> list[str]:
    """Return what the board says, in sentences that hold nothing but its numbers."""
    found = []
    if run.request["quick"]:
        found.append("The budgets were too small to conclude from (--quick).")
    reference = run.reference
    if reference in run.settings:
        records = run.summary["fits"][reference]
        bad = [str(seed) for seed, r in zip(run.seeds, records, strict=True) if r["verdict"] == UNCONVERGED]
        biased = ", an unadjusted one, whose bias is in every distance to it" if reference in UNADJUSTED else ""
        found.append(
            f"{reference} converged: it is the reference that the others are held against{biased}."
            if not bad
            else f"{reference} is unconverged{f' at seed {", ".join(bad)}' if len(run.seeds) > 1 else ''}: there is no "
            "reference, and it stands here as one predictor among others."
        )
    elif reference is not None:
        found.append(f"{reference}, which the others were to be held against, failed: there is no reference.")
    early = [line.label for line in table.lines if line.poor and line.label != reference]
    if early:
        found.append(f"Not what they are meant to be, see the verdicts: {', '.join(early)}.")
    for place, column in enumerate(table.columns):
        if column.score == COVERED and not column.part:
            shares = ", ".join(f"{line.cells[place].text} under {line.label}" for line in table.lines)
            found.append(f"Share of {run.scored_on} rows inside 90 % intervals: {shares}.")
        if column.part or column.score not in FIRST_QUESTIONS:
            continue
        by_mark = {
            mark: [f"{line.label} ({line.cells[place].text})" for line in table.lines if line.cells[place].mark == mark]
            for mark in (BEST, TIED)
        }
        if by_mark[BEST]:
            tied = f"; tied with it: {', '.join(by_mark[TIED])}" if by_mark[TIED] else "; no other is tied with it"
            tied = "; all are equal" if len(by_mark[BEST]) == len(table.lines) else tied
            found.append(f"Best {column.score}: {', '.join(by_mark[BEST])}{tied}.")
    passes = {
        line.label: cell.value
        for line in table.lines
        for cell, of in zip(line.cells, table.columns, strict=True)
        if of.score == "passes over the data" and cell.value
    }
    if reference in passes and len(passes) > 1:
        ratios = {name: passes[reference] / spent for name, spent in passes.items() if name != reference}
        if len(ratios) > MOST_NAMED:  # the ends alone: the board has all
            ends = (min(ratios, key=ratios.__getitem__), max(ratios, key=ratios.__getitem__))
            ratios = {name: ratios[name] for name in ends}
        times = " and ".join(
            f"{f'{ratio:,.0f}' if ratio >= 100 else f'{ratio:.3g}'} times those of {name}"
            for name, ratio in ratios.items()
        )
        found.append(f"Passes over the data: {reference} took {times}.")
    return found


def _set_up(run: FinishedRun) -> list[tuple[str, str]]:
    """Return what was run, as terms and their descriptions."""
    summary, sets = run.summary, run.summary["sets"]
    about: Mapping[str, str] = summary.get("about_sets", {})
    graded = {part for parts in summary.get("shifts", {}).values() for part in parts}
    terms = [
        ("Data", summary.get("description") or run.data),
        *[("Note", note) for note in summary.get("notes", ())],
        ("Rows", f"{run.training_rows:,} to train on, {sets[run.scored_on]:,} to score on ({run.scored_on})"),
        *[
            (f"OOD: {part}", f"{about[part]} ({sets[part]:,} rows)" if part in about else f"{sets[part]:,} rows")
            for part in sets
            if part != run.scored_on and part not in graded
        ],
        *[(f"Shift: {shift}", f"severities 1 to {len(parts)}") for shift, parts in summary.get("shifts", {}).items()],
        ("Model", f"{run.model}: {_settings(_read_options(run.options))}"),
        ("Seeds", ", ".join(map(str, run.seeds))),
    ]
    budget = run.request.get("budget")
    if budget:
        terms.append(("Budget", f"at most {budget['amount']:g} {budget['unit']} a method"))
    manifest = run.manifest
    device = str(manifest["device"]).partition(": ")[2]  # the kind behind the platform
    made = f"{manifest.get('processor', '')}, {manifest['visible_cores']} cores, {device}, {run.precision}"
    terms.append(("Made on", f"{manifest['written'][:10]}, {made}".replace(" ,", "")))
    return terms


def _read_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that this likelihood reads: a regression has no classes."""
    unread = {"num_classes"} if options.get("likelihood") == "normal" else set()
    return {name: value for name, value in options.items() if name not in unread}


def _settings(settings: Mapping[str, Any]) -> str:
    shown = {name: value for name, value in settings.items() if name != "class" and value is not None}
    words = {name: value if isinstance(value, str) else show_value(value) for name, value in shown.items()}
    return ", ".join(f"{name} {word}" for name, word in words.items())
