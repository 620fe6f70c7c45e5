"""`hmcvi compare`: fit one model by every method, score the posteriors side by side, and write the run folder."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd
from rich.console import Console

from hmcvi.inference import Fit, FitError, fit
from hmcvi.inference.export import describe_method, require_writer

from .datasets import Dataset
from .differences import all_differences
from .evaluate import REFERENCE, Evaluation, Row, distance_rows, evaluate, paired_rows, row_scores
from .experiment import Experiment
from .figures import draw_figures
from .loo import compare_methods, loo_rows, score_training_rows
from .moments import moment_rows
from .run_folder import RunFolder, default_folder
from .shifts import LEVELS
from .table import COLUMNS, print_scoreboard

__all__ = ["compare"]


def compare(experiment: Experiment, out: Path | None = None, *, quiet: bool = False) -> Path:
    """Run an experiment, print its scoreboard and return its folder.

    Fits that an earlier run of the same experiment finished in the folder are read, not repeated.

    Arguments:
        experiment: what to run.
        out: the run folder; runs/<data>-<model>-<hash> by default.
        quiet: print nothing but the scoreboard.

    Raises:
        UsageError, DataError: the request cannot be served; nothing was fitted.
        FitError: a fit did not stay finite; the fits before it are saved.
    """
    say = Console(stderr=True, quiet=quiet, highlight=False, markup=False, emoji=False, soft_wrap=True)
    require_writer()
    loaded = {seed: experiment.load(seed) for seed in experiment.seeds}
    for data, _ in loaded.values():
        experiment.check(data)
    first, foreign = loaded[experiment.seeds[0]]
    experiment, left_out = experiment.settle(first)
    folder = RunFolder(default_folder(experiment) if out is None else out, experiment)
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
    by_row, left_out_rows, no_loo = [], {}, {}
    shown: tuple[dict[str, Fit], dict[str, Evaluation]] | None = None
    for seed in experiment.seeds:
        data, foreign = loaded[seed]
        fits = _fit_all(experiment, seed, data, folder, say, quiet)
        sets = f" and {len(foreign)} OOD set{'s' if len(foreign) > 1 else ''}" if foreign else ""
        say.print(f"scoring {len(data.x_test):,} {data.scored_on} rows{sets}, seed {seed}")
        evaluations = {}
        for name, result in fits.items():
            evaluations[name] = evaluate(result, data, foreign)
            total, used = result.num_chains * result.num_draws, evaluations[name].num_draws
            if used < total:
                say.print(f"{name}: scores average over {used:,} of {total:,} draws, as more would take too long")
        by_row.append({name: row_scores(evaluation.predictions, data) for name, evaluation in evaluations.items()})
        left_out_rows[seed], no_loo[seed] = score_training_rows(
            fits, data.target_scale if data.task == "regression" else 1.0
        )
        for name, evaluation in evaluations.items():
            records[name].append(_record(fits[name], evaluation))
            rows = evaluation.rows + _distances(name, fits, evaluations, data) + _paired(name, evaluations, data)
            rows += loo_rows(left_out_rows[seed][name]) if name in left_out_rows[seed] else []
            table += [(seed, name, *dataclasses.astuple(row)) for row in rows]
        shown = shown or (fits, evaluations)

    frame = pd.DataFrame(table, columns=list(COLUMNS))
    if any(record["verdict"] == "unconverged" for record in records.get(REFERENCE, [])):
        # An average over the seeds that happened to converge would pass for one over all.
        frame = frame[frame["set"] != "reference"].reset_index(drop=True)
    differences = all_differences(by_row)
    summary = {
        "title": title,
        "seeds": list(experiment.seeds),
        "sets": {first.scored_on: len(first.x_test), **{s.name: s.num_rows for s in loaded[experiment.seeds[0]][1]}},
        "shifts": {shift: [f"{shift}@{level}" for level in LEVELS] for shift in experiment.shifts},
        "fits": records,
        "differences": json.loads(differences.to_json(orient="records")),
        "training_rows": len(first.x_train),
        "no_loo": no_loo[experiment.seeds[0]],
    }
    folder.write_tables(frame)
    folder.write_tables(differences, "differences")
    if (compared := compare_methods(left_out_rows)) is not None:
        folder.write_tables(compared, "loo")
    folder.write_json("summary.json", summary)
    hashes = {seed: data.data_hash for seed, (data, _) in loaded.items()}
    made = {
        name: {
            "settings": json.loads(describe_method(experiment.method(name))),
            "chain_method": records[name][0]["chain_method"],
        }
        for name in experiment.asked
    }
    folder.write_manifest(experiment, hashes, made)
    assert shown is not None
    say.print("drawing figures")
    draw_figures(folder.path / "figures", first, loaded[experiment.seeds[0]][1], *shown)
    print_scoreboard(frame, summary)
    say.print(f"\nposteriors, tables and figures: {folder.path}")
    return folder.path


def _fit_all(
    experiment: Experiment, seed: int, data: Dataset, folder: RunFolder, say: Console, quiet: bool
) -> dict[str, Fit]:
    model = experiment.configure_model(data)
    fits = {}
    for name in experiment.asked:
        method = experiment.method(name)
        result = folder.load_fit(name, seed, model, data, method)
        if result is None:
            started = time.perf_counter()
            say.print(f"{name}, seed {seed}: fitting {len(data.x_train)} rows")
            try:
                result = fit(
                    jax.random.key(seed),
                    model,
                    data.x_train,
                    data.y_train,
                    method,
                    progress=False if quiet else None,
                )
            except FitError as error:
                kept = "" if error.fit is None else folder.save_failed(error.fit, name, seed, data)
                raise FitError(f"{name}, seed {seed}: {error}{kept}", error.fit) from error
            folder.save_fit(result, name, seed, data)
            say.print(f"{name}, seed {seed}: done in {time.perf_counter() - started:.0f} s")
        else:
            say.print(f"{name}, seed {seed}: read from {folder.path}")
        fits[name] = result
    return fits


def _record(result: Fit, evaluation: Evaluation) -> dict[str, Any]:
    """Return what the scoreboard says of a fit itself, as plain data."""
    verdict = evaluation.convergence
    record: dict[str, Any] = {
        "run_seconds": result.run_seconds,
        "compile_seconds": result.compile_seconds,
        "num_gradients": result.num_gradients,
        "num_passes": result.num_passes,
        "chain_method": result.chain_method,
        "temperature": getattr(result.method, "temperature", 1.0),
        "num_chains": result.num_chains,
        "num_draws": result.num_draws,
        "num_scored_draws": evaluation.num_draws,
        "num_parameters": int(sum(np.prod(d.shape[2:]) for d in result.draws.values())),
        "rhat": None,
        "ess": None,
    }
    if verdict is not None:
        state = "converged" if verdict.converged else "unconverged"
        low = min(verdict.ess_bulk, verdict.ess_tail)
        return record | {"verdict": state, "reason": verdict.reason, "rhat": verdict.rhat, "ess": low}
    assert result.losses is not None
    steps = f"{len(result.losses):,} steps"
    tempered = ""
    if record["temperature"] != 1:
        tempered = f"; tempered: its KL is multiplied by {record['temperature']:g}, so it is not the model's posterior"
    if result.finished is None:
        return record | {
            "verdict": "schedule ended",
            "reason": f"the learning rate fell to its end over {steps}, where any loss is flat{tempered}",
        }
    if result.finished:
        return record | {"verdict": "finished", "reason": f"the loss reached its plateau within {steps}{tempered}"}
    return record | {
        "verdict": "unfinished",
        "reason": f"the loss reached no plateau within the budget of {steps}: raise num_steps{tempered}",
    }


def _distances(name: str, fits: Mapping[str, Fit], evaluations: Mapping[str, Evaluation], data: Dataset) -> list[Row]:
    reference = evaluations.get(REFERENCE)
    if reference is None or reference.convergence is None or not reference.convergence.converged:
        return []
    return distance_rows(evaluations[name], reference, data) + moment_rows(fits[name], fits[REFERENCE])


def _paired(name: str, evaluations: Mapping[str, Evaluation], data: Dataset) -> list[Row]:
    """Return this method's row-paired differences from the first method on the board."""
    first = next(iter(evaluations))
    return [] if name == first else paired_rows(evaluations[name], evaluations[first], data, f"minus {first}")


def _title(experiment: Experiment, data: Dataset) -> str:
    kind = f"{data.num_classes} classes" if data.task == "classification" else "regression"
    seeds = ", ".join(map(str, experiment.seeds))
    quick = ", quick: budgets too small to conclude from" if experiment.quick else ""
    return (
        f"{data.name}, {experiment.model}, {kind}, {len(data.x_train):,} training and {len(data.x_test):,} "
        f"{data.scored_on} rows, seed {seeds}{quick}"
    )
