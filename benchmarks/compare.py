"""`hmcvi compare`: fit one model by every method, score the posteriors side by side, and write the run folder."""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd
from rich.console import Console

from hmcvi import plots
from hmcvi.inference import Fit, FitError, completion, family_fit, fit
from hmcvi.inference.export import describe_method, require_writer

from .budget_curves import BUDGET_COLUMNS, SHARES, budget_curves, budget_rows
from .cost import gradient_operations
from .datasets import Dataset
from .evaluate import REFERENCE, Evaluation, Row, distance_rows, evaluate, paired_rows
from .experiment import Experiment, temperature_of
from .figures import draw_figures
from .run_folder import RunFolder, default_folder
from .shifts import LEVELS
from .table import COLUMNS, print_scoreboard

__all__ = ["compare"]

MOST_KHAT_OPERATIONS = 1e11
"""Floating-point operations that Pareto k-hat may take: some ten seconds on two cores of a laptop."""


def compare(experiment: Experiment, out: Path | None = None, *, quiet: bool = False) -> Path:
    """Run an experiment, print its scoreboard and return its folder.

    Fits that an earlier run of the same experiment finished in the folder are read, not repeated.

    Arguments:
        experiment: what to run.
        out: the run folder; runs/<data>-<model>-<hash> by default.
        quiet: print nothing but the scoreboard.

    Raises:
        UsageError, DataError: the request cannot be served; nothing was fitted.
        FitError: a fit did not stay finite. The other methods were fitted and scored all the same, without the one
            that failed; only where none is left is there no scoreboard.
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
    spent: list[tuple[Any, ...]] = []
    failures: dict[str, FitError] = {}
    shown: tuple[dict[str, Fit], dict[str, Evaluation]] | None = None
    for seed in experiment.seeds:
        data, foreign = loaded[seed]
        runner = _Runner(experiment, seed, data, folder, say, quiet)
        fits = runner.fit_all(failures)
        sets = f" and {len(foreign)} OOD set{'s' if len(foreign) > 1 else ''}" if foreign else ""
        say.print(f"scoring {len(data.x_test):,} {data.scored_on} rows{sets}, seed {seed}")
        evaluations = {}
        for name, result in fits.items():
            evaluations[name] = evaluate(result, data, foreign)
            total, used = result.num_chains * result.num_draws, evaluations[name].num_draws
            if used < total:
                say.print(f"{name}: scores average over {used:,} of {total:,} draws, as more would take too long")
        for name, evaluation in evaluations.items():
            records[name].append(_record(fits[name], evaluation))
            rows = evaluation.rows + _distances(name, evaluations, data) + _paired(name, evaluations, data)
            table += [(seed, name, r.set, r.score, r.value, r.standard_error, r.monte_carlo_error) for r in rows]
            if experiment.budget is not None:
                spent += budget_rows(seed, name, 1.0, records[name][-1], evaluation.rows, data.scored_on)
                spent += runner.at_smaller_budgets(name)
        shown = shown or (fits, evaluations)

    frame = pd.DataFrame(table, columns=list(COLUMNS))
    if failures:
        frame, records = _without(failures, frame, records)
        shown = tuple({name: part[name] for name in records} for part in shown)  # type: ignore[assignment]
    if any(record["verdict"] == "unconverged" for record in records.get(REFERENCE, [])):
        # An average over the seeds that happened to converge would pass for one over all.
        frame = frame[frame["set"] != "reference"].reset_index(drop=True)
    summary = {
        "title": title,
        "seeds": list(experiment.seeds),
        "sets": {first.scored_on: len(first.x_test), **{s.name: s.num_rows for s in loaded[experiment.seeds[0]][1]}},
        "shifts": {shift: [f"{shift}@{level}" for level in LEVELS] for shift in experiment.shifts},
        "fits": records,
        "failed": {name: str(error) for name, error in failures.items()},
    }
    folder.write_table("table", frame)
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
    say.print("drawing figures")
    draw_figures(folder.path / "figures", first, loaded[experiment.seeds[0]][1], *shown)
    if experiment.budget is not None:
        curve = pd.DataFrame([row for row in spent if row[1] in records], columns=list(BUDGET_COLUMNS))
        folder.write_table("budget", curve)
        figure = plots.score_against_budget(budget_curves(curve, experiment.budget.unit), unit=experiment.budget.unit)
        plots.save(figure, folder.path / "figures" / "budget")
    print_scoreboard(frame, summary)
    say.print(f"\nposteriors, tables and figures: {folder.path}")
    if failures:
        raise FitError("; ".join(map(str, failures.values())))
    return folder.path


@dataclass(frozen=True)
class _Runner:
    """Fits the methods of one seed, or reads what an earlier run of the same command finished."""

    experiment: Experiment
    seed: int
    data: Dataset
    folder: RunFolder
    say: Console
    quiet: bool

    def fit_all(self, failures: dict[str, FitError]) -> dict[str, Fit]:
        """Return the fits by method; a method that fails is put among the failures, and left out from then on.

        Raises:
            FitError: no method is left.
        """
        fits = {}
        for name in self.experiment.asked:
            if name in failures:
                continue
            try:
                fits[name] = self._fit(name, 1.0)
            except FitError as error:
                self.say.print(str(error))
                failures[name] = error
        if not fits:
            raise FitError("; ".join(map(str, failures.values())))
        return fits

    def at_smaller_budgets(self, name: str) -> list[tuple[Any, ...]]:
        """Return the scores of this method at shares of the budget; a share that buys no posterior has none."""
        rows = []
        for share in SHARES:
            try:
                result = self._fit(name, share)
            except FitError as error:
                self.say.print(f"{error}: the curve begins later")
                continue
            evaluation = evaluate(result, self.data, [])
            record = _record(result, evaluation)
            rows += budget_rows(self.seed, name, share, record, evaluation.rows, self.data.scored_on)
        return rows

    def _fit(self, name: str, share: float) -> Fit:
        method = self.experiment.method(name, share)
        model = self.experiment.configure_model(self.data)
        label, what = (name, "") if share == 1 else (f"{name}@{share:g}", f", {share:g} of the budget")
        said = f"{name}, seed {self.seed}{what}"
        result = self.folder.load_fit(label, self.seed, model, self.data, method)
        if result is not None:
            self.say.print(f"{said}: read from {self.folder.path}")
            return result
        started = time.perf_counter()
        self.say.print(f"{said}: fitting {len(self.data.x_train)} rows")
        x, y, progress = self.data.x_train, self.data.y_train, False if self.quiet else None
        try:
            result = fit(jax.random.key(self.seed), model, x, y, method, progress=progress)
        except FitError as error:
            kept = "" if error.fit is None else self.folder.save_failed(error.fit, label, self.seed, self.data)
            raise FitError(f"{said}: {error}{kept}", error.fit) from error
        self.folder.save_fit(result, label, self.seed, self.data)
        self.say.print(f"{said}: done in {time.perf_counter() - started:.0f} s")
        return result


def _without(
    failures: Collection[str], table: pd.DataFrame, records: Mapping[str, Any]
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return (table, records) without the methods that failed, and without what was measured against them.

    A method that failed at one seed is left out at all: an average over the seeds that went well would flatter it.
    """
    gone = {f"minus {name}" for name in failures} | ({"reference"} if REFERENCE in failures else set())
    kept = table[~table["method"].isin(failures) & ~table["set"].isin(gone)].reset_index(drop=True)
    return kept, {name: record for name, record in records.items() if name not in failures}


def _record(result: Fit, evaluation: Evaluation) -> dict[str, Any]:
    """Return what the scoreboard says of a fit itself, as plain data."""
    verdict = evaluation.convergence
    record: dict[str, Any] = {
        "run_seconds": result.run_seconds,
        "compile_seconds": result.compile_seconds,
        "num_gradients": result.num_gradients,
        "num_passes": result.num_passes,
        "chain_method": result.chain_method,
        "temperature": temperature_of(result.method),
        "num_chains": result.num_chains,
        "num_draws": result.num_draws,
        "num_scored_draws": evaluation.num_draws,
        "num_parameters": int(sum(np.prod(d.shape[2:]) for d in result.draws.values())),
        "rhat": None,
        "ess": None,
        "gradient_snr": None,
        "restarts": None,
        "khat": None,
    }
    if verdict is not None:
        state = "converged" if verdict.converged else "unconverged"
        low = min(verdict.ess_bulk, verdict.ess_tail)
        return record | {"verdict": state, "reason": verdict.reason, "rhat": verdict.rhat, "ess": low}
    ending = completion(result)
    assert ending is not None
    tempered = ""
    if record["temperature"] != 1:
        tempered = f"; tempered: its KL is multiplied by {record['temperature']:g}, so it is not the model's posterior"
    family = None if result.log_q is None else family_fit(result, num_draws=_khat_draws(result))
    return record | {
        "verdict": ending.verdict,
        "reason": "; ".join([ending.reason, *([] if family is None else [family.reason])]) + tempered,
        "gradient_snr": ending.gradient_snr,
        "restarts": None if result.restarts is None else [float(loss) for loss in result.restarts],
        "khat": None if family is None else family.khat,
    }


def _khat_draws(result: Fit) -> int:
    """Return how many draws Pareto k-hat is asked of: each takes a log joint, a third of a gradient, over all rows."""
    operations = gradient_operations(result.model, result.x, result.y) / 3
    return max(1, int(MOST_KHAT_OPERATIONS / max(operations, 1)))


def _distances(name: str, evaluations: Mapping[str, Evaluation], data: Dataset) -> list[Row]:
    reference = evaluations.get(REFERENCE)
    if reference is None or reference.convergence is None or not reference.convergence.converged:
        return []
    return distance_rows(evaluations[name], reference, data)


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
