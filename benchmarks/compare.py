"""`hmcvi compare`: fit one model by every method, score the posteriors side by side, and write the run folder."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd
from rich.console import Console

from hmcvi import plots
from hmcvi.inference import Fit, FitError
from hmcvi.inference.describe import describe_method
from hmcvi.inference.export import require_writer
from hmcvi.inference.processes import from_first, is_first, together
from hmcvi.inference.progress import Progress

from .budget_curves import BUDGET_COLUMNS, budget_curves, budget_rows
from .datasets import Dataset
from .differences import all_differences
from .evaluate import Evaluation, Row, distance_rows, evaluate, paired_rows, row_score_errors, row_scores
from .experiment import Experiment
from .figures import draw_figures
from .layout import make_mesh
from .loo import compare_methods, loo_rows, score_training_rows
from .moments import moment_rows
from .ood import OODSet
from .records import fit_record
from .reference import reference_of
from .report import write_report
from .run_folder import RunFolder, default_folder
from .runner import Runner
from .shifts import LEVELS
from .table import COLUMNS, print_scoreboard

__all__ = ["compare", "fit_only"]


def compare(
    experiment: Experiment,
    out: Path | None = None,
    *,
    figures: bool = True,
    quiet: bool = False,
    checkpoint_seconds: float = 30.0,
) -> Path:
    """Run an experiment, print its scoreboard and return its folder.

    Fits that an earlier run of the same experiment finished in the folder are read, not repeated.

    Arguments:
        experiment: what to run.
        out: the run folder; runs/<data>-<model>-<hash> by default.
        figures: whether to draw any.
        quiet: print nothing but the scoreboard.
        checkpoint_seconds: seconds between two times that a running fit is kept, at least.

    Raises:
        UsageError, DataError: the request cannot be served, or another process runs in the folder; nothing was fitted.
        FitError: a fit did not stay finite. The other methods were fitted and scored all the same, without the one
            that failed; only where none is left is there no scoreboard.
        KeyboardInterrupt: the run was interrupted; its message says how far it is, and the same call goes on.
    """
    say = Console(stderr=True, quiet=quiet, highlight=False, markup=False, emoji=False, soft_wrap=True)
    require_writer()
    make_mesh(experiment)  # which says where there are too few devices
    loaded = together(lambda: {seed: experiment.load(seed) for seed in experiment.seeds})
    for data, _ in loaded.values():
        experiment.check(data)
    first, _ = loaded[experiment.seeds[0]]
    experiment, left_out = experiment.settle(first)
    if jax.process_count() > 1:  # what is left out depends on the memory of the first process
        asked = json.loads(from_first(lambda: json.dumps(experiment.asked).encode()))
        experiment = dataclasses.replace(experiment, methods=tuple(asked))
    path = default_folder(experiment) if out is None else out
    with contextlib.ExitStack() as held:

        def claim() -> RunFolder | None:
            if not is_first():
                return None
            folder = RunFolder(path, experiment, checkpoint_seconds=checkpoint_seconds)
            held.enter_context(folder.held())
            return folder

        folder = together(claim)
        if folder is not None:
            _run(experiment, folder, loaded, left_out, figures=figures, say=say, quiet=quiet)
        else:
            _help(experiment, loaded)
    return path


def fit_only(experiment: Experiment, out: Path, *, checkpoint_seconds: float = 30.0) -> None:
    """Make the fits of an experiment in a folder, and score nothing: `compare` reads them where it finds them.

    Arguments:
        experiment: what to fit.
        out: the run folder, which stays marked as incomplete.
        checkpoint_seconds: seconds between two times that a running fit is kept, at least.

    Raises:
        UsageError, DataError, FitError, KeyboardInterrupt: as `compare`.
    """
    say = Console(stderr=True, highlight=False, markup=False, emoji=False, soft_wrap=True)
    require_writer()
    for seed in experiment.seeds:
        data, _ = experiment.load(seed)
        experiment.check(data)
        folder = RunFolder(out, experiment, checkpoint_seconds=checkpoint_seconds)
        with folder.held():
            runner = Runner(experiment, seed, data, folder, say, quiet=False)
            for name in runner.fit_all({}):
                if experiment.budget is not None:
                    runner.at_smaller_budgets(name)


def _run(
    experiment: Experiment,
    folder: RunFolder,
    loaded: Mapping[int, tuple[Dataset, list[OODSet]]],
    left_out: Sequence[str],
    *,
    figures: bool,
    say: Console,
    quiet: bool,
) -> None:
    """Fit, score, write and draw what was checked."""
    live = Progress.suited(not quiet)
    first, foreign = loaded[experiment.seeds[0]]
    title = _title(experiment, first)
    say.print(title, style="bold")
    say.print(first.description)
    for note in (*first.notes, *left_out):
        say.print(note)
    for ood_set in foreign:
        if ood_set.level in (None, LEVELS[0], LEVELS[-1]):
            say.print(f"  OOD {ood_set.name}: {ood_set.description}")

    table: list[tuple[Any, ...]] = []
    records: dict[str, list[dict[str, Any]]] = {name: [] for name in experiment.asked}
    spent: list[tuple[Any, ...]] = []
    failures: dict[str, FitError] = {}
    by_row: list[dict[str, Any]] = []
    errors: dict[str, dict[str, float]] = {}
    left_out_rows: dict[int, dict[str, Any]] = {}
    no_loo: dict[int, dict[str, str]] = {}
    shown: tuple[dict[str, Fit], dict[str, Evaluation]] | None = None
    reference = reference_of(experiment.asked)
    for seed in experiment.seeds:
        data, foreign = loaded[seed]
        runner = Runner(experiment, seed, data, folder, say, quiet)
        fits = runner.fit_all(failures)
        sets = f" and {len(foreign)} OOD set{'s' if len(foreign) > 1 else ''}" if foreign else ""
        say.print(f"scoring {len(data.x_test):,} {data.scored_on} rows{sets}, seed {seed}")
        evaluations = {}
        with Progress(f"scoring, seed {seed}", live, begin=f"0 of {len(fits)} methods") as progress:
            for place, (name, result) in enumerate(fits.items(), 1):
                evaluations[name] = evaluate(result, data, foreign)
                progress.update(place, len(fits), "methods", name)
        for name, result in fits.items():
            total, used = result.num_chains * result.num_draws, evaluations[name].num_draws
            if used < total:
                say.print(f"{name}: scores average over {used:,} of {total:,} draws, as more would take too long")
        by_row.append({name: row_scores(evaluation.predictions, data) for name, evaluation in evaluations.items()})
        errors = {name: row_score_errors(evaluation, data) for name, evaluation in evaluations.items()}
        left_out_rows[seed], no_loo[seed] = score_training_rows(
            fits, data.target_scale if data.task == "regression" else 1.0
        )
        for name, evaluation in evaluations.items():
            records[name].append(fit_record(fits[name], evaluation))
            rows = evaluation.rows + _distances(name, reference, fits, evaluations, data)
            rows += _paired(name, evaluations, data)
            rows += loo_rows(left_out_rows[seed][name]) if name in left_out_rows[seed] else []
            table += [(seed, name, *dataclasses.astuple(row)) for row in rows]
            if experiment.budget is not None:
                spent += budget_rows(seed, name, 1.0, records[name][-1], evaluation.rows, data.scored_on)
                spent += runner.at_smaller_budgets(name)
        shown = shown or (fits, evaluations)

    frame = pd.DataFrame(table, columns=list(COLUMNS))
    if failures:
        frame, records = _without(failures, frame, records, reference)
        by_row, parts = [_only(records, of_seed) for of_seed in by_row], (left_out_rows, no_loo)
        left_out_rows, no_loo = ({seed: _only(records, of) for seed, of in part.items()} for part in parts)
        assert shown is not None
        shown = _only(records, shown[0]), _only(records, shown[1])
    if any(record["verdict"] == "unconverged" for record in records.get(reference or "", [])):
        # An average over the seeds that happened to converge would pass for one over all.
        frame = frame[frame["set"] != "reference"].reset_index(drop=True)
    same_rows = all(np.array_equal(data.x_test, first.x_test) for data, _ in loaded.values())
    alone = errors if len(experiment.seeds) == 1 else None
    differences = all_differences(by_row, same_rows=same_rows, monte_carlo_errors=alone)
    summary = {
        "title": title,
        "description": first.description,
        "notes": [*first.notes, *left_out],
        "about_sets": {ood_set.name: ood_set.description for ood_set in loaded[experiment.seeds[0]][1]},
        "seeds": list(experiment.seeds),
        "sets": {first.scored_on: len(first.x_test), **{s.name: s.num_rows for s in loaded[experiment.seeds[0]][1]}},
        "shifts": {shift: [f"{shift}@{level}" for level in LEVELS] for shift in experiment.shifts},
        "reference": reference,
        "fits": records,
        "failed": {name: str(error) for name, error in failures.items()},
        "differences": json.loads(differences.to_json(orient="records")),
        "training_rows": len(first.x_train),
        "no_loo": no_loo[experiment.seeds[0]],
    }
    folder.write_table("table", frame)
    folder.write_table("differences", differences)
    compared = compare_methods(left_out_rows)
    if compared is not None:
        folder.write_table("loo", compared)
    folder.write_json("summary.json", summary)
    made = {
        name: {
            "settings": json.loads(describe_method(experiment.method(name))),
            "chain_method": records[name][0]["chain_method"],
        }
        for name in records
    }
    folder.write_manifest(experiment, {seed: data for seed, (data, _) in loaded.items()}, made)
    assert shown is not None
    further: dict[str, Callable[[], Any]] = {}
    if experiment.budget is not None:
        unit = experiment.budget.unit
        curve = pd.DataFrame([row for row in spent if row[1] in records], columns=list(BUDGET_COLUMNS))
        folder.write_table("budget", curve)
        further["budget"] = partial(plots.score_against_budget, budget_curves(curve, unit), unit=unit)
    if compared is not None and (compared["seed"] == experiment.seeds[0]).sum() > 1:
        further["loo"] = partial(plots.model_comparison, compared[compared["seed"] == experiment.seeds[0]])
    folder.complete()
    print_scoreboard(frame, summary)
    if figures:
        with Progress("drawing figures", live, begin="the first") as progress:
            foreign = loaded[experiment.seeds[0]][1]
            faults = draw_figures(folder.path / "figures", first, foreign, *shown, further, progress)
        for stem, reason in faults.items():
            say.print(f"no figure {stem}: {reason}")
    page = write_report(folder.path)
    say.print(f"\nposteriors, tables and figures: {folder.path}\nreport: {page}")
    _raise(failures)


def _help(experiment: Experiment, loaded: Mapping[int, tuple[Dataset, list[OODSet]]]) -> None:
    """Make the fits of all seeds that another process makes and scores, and fail as it does."""
    failures: dict[str, FitError] = {}
    for seed, (data, _) in loaded.items():
        Runner(experiment, seed, data, None, Console(quiet=True), quiet=True).help(failures)
    _raise(failures)


def _raise(failures: Mapping[str, FitError]) -> None:
    """Raise FitError where methods failed."""
    if failures:
        raise FitError("; ".join(map(str, failures.values())))


def _without(
    failures: Collection[str], table: pd.DataFrame, records: Mapping[str, Any], reference: str | None
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return (table, records) without the methods that failed, and without what was measured against them.

    A method that failed at one seed is left out at all: an average over the seeds that went well would flatter it.
    """
    gone = {f"minus {name}" for name in failures} | ({"reference"} if reference in failures else set())
    kept = table[~table["method"].isin(failures) & ~table["set"].isin(gone)].reset_index(drop=True)
    return kept, {name: record for name, record in records.items() if name not in failures}


def _only(names: Collection[str], by_name: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in by_name.items() if name in names}


def _distances(
    name: str,
    reference: str | None,
    fits: Mapping[str, Fit],
    evaluations: Mapping[str, Evaluation],
    data: Dataset,
) -> list[Row]:
    """Return this method's distances to the reference; none where that was not asked for, failed or is unconverged."""
    if reference is None or reference not in evaluations:
        return []
    held_against = evaluations[reference]
    if held_against.convergence is None or not held_against.convergence.converged:
        return []
    return distance_rows(evaluations[name], held_against, data) + moment_rows(fits[name], fits[reference])


def _paired(name: str, evaluations: Mapping[str, Evaluation], data: Dataset) -> list[Row]:
    """Return this method's row-paired differences from the first method on the board."""
    first = next(iter(evaluations))
    return [] if name == first else paired_rows(evaluations[name], evaluations[first], data, f"minus {first}")


def _title(experiment: Experiment, data: Dataset) -> str:
    kind = f"{data.num_classes} classes" if data.task == "classification" else "regression"
    seeds = ", ".join(map(str, experiment.seeds))
    budget = "" if experiment.budget is None else f", at most {experiment.budget} a method"
    quick = ", quick: budgets too small to conclude from" if experiment.quick else ""
    return (
        f"{data.name}, {experiment.model}, {kind}, {len(data.x_train):,} training and {len(data.x_test):,} "
        f"{data.scored_on} rows, seed {seeds}{budget}{quick}"
    )
