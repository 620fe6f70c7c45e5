"""Finished runs, read back from their folders, and what those that stand on one table must share."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from . import ood
from .checksums import read_json
from .options import UsageError
from .reference import REFERENCES, recorded_reference, reference_of
from .table import read_run

__all__ = ["FinishedRun", "check_comparable", "check_temperatures", "read_finished", "show_value", "unconverged"]

UNCONVERGED = "unconverged"
"""The verdict on a reference that is none."""

IN_SPLIT = ("splits", "tune")
"""Fields of a request that decide which rows are trained and scored on, whatever the seed."""

BEHIND_HASH = ("data", "target", "image_size")
"""Fields of a request that need no comparing where two runs share a seed, at which the hashes of their data agree."""


@dataclass(frozen=True, eq=False)
class FinishedRun:
    """What a run's folder says of the run.

    Attributes:
        folder: the folder.
        table: its tidy scores.
        summary: its summary.json; `fits` holds a record for each method and seed.
        request: its config.json, what was asked for.
        manifest: its manifest.json, what it was made with.
        data: name of the data set.
        model: name of the model.
        options: the model's options, after defaults and what the data decided; likelihood and prior are among them.
        seeds: its seeds.
        hashes: hash of the data by seed.
        settings: hyperparameters by method.
        temperatures: temperature by method; 1 for one that has no such option.
        training_rows: how many rows were trained on.
        precision: "float32" or "float64".
    """

    folder: Path
    table: pd.DataFrame
    summary: Mapping[str, Any]
    request: Mapping[str, Any]
    manifest: Mapping[str, Any]
    data: str
    model: str
    options: Mapping[str, Any]
    seeds: tuple[int, ...]
    hashes: Mapping[int, str]
    settings: Mapping[str, Mapping[str, Any]]
    temperatures: Mapping[str, float]
    training_rows: int
    precision: str

    @property
    def scored_on(self) -> str:
        """The set that every method is scored on: "test", or "validation" where hyperparameters were chosen."""
        return next(iter(self.summary["sets"]))

    @property
    def reference(self) -> str | None:
        """The method that distances are taken to, which may be unconverged or have failed; None without one."""
        return recorded_reference(self.summary)

    def records(self) -> Iterator[tuple[str, int, Mapping[str, Any]]]:
        """Yield (method, seed, what summary.json says of that fit)."""
        for method, records in self.summary["fits"].items():
            for seed, record in zip(self.seeds, records, strict=True):
                yield method, seed, record


def read_finished(folder: Path) -> FinishedRun:
    """Read a finished run.

    Raises:
        UsageError: the folder holds no finished run, its files are damaged or disagree, or its methods are after
            posteriors of different temperatures.
    """
    table, summary = read_run(folder)
    request, manifest = (_read_json(folder / name) for name in ("config.json", "manifest.json"))
    if isinstance(manifest, dict) and "model" not in manifest:
        raise UsageError(
            f"{folder} does not say what its model was, as older versions did not: run its command again, which reads "
            "the fits that are there"
        )
    try:
        run = FinishedRun(
            folder=folder,
            table=table,
            summary=summary,
            request={field: request[field] for field in (*IN_SPLIT, *BEHIND_HASH, "quick")}
            | {"budget": request.get("budget")}
            | request,
            manifest=manifest,
            data=str(manifest["data"]),
            model=str(manifest["model"]["name"]),
            options=dict(manifest["model"]["options"]),
            seeds=tuple(map(int, summary["seeds"])),
            hashes={int(seed): str(value) for seed, value in manifest["data_hash"].items()},
            settings={name: dict(method["settings"]) for name, method in manifest["methods"].items()},
            temperatures=_temperatures(summary),
            training_rows=int(manifest["training_rows"]),
            precision=str(manifest["precision"]),
        )
        _ = manifest["written"][:10], manifest["device"], manifest["visible_cores"], manifest["versions"]["hmcvi"]
        fault = _disagreement(run)
    except (AttributeError, IndexError, KeyError, StopIteration, TypeError, ValueError) as error:
        raise UsageError(
            f"{folder}: config.json, manifest.json or summary.json is not what hmcvi compare writes "
            f"({type(error).__name__}: {error}): run it again"
        ) from error
    if fault:
        raise UsageError(f"{folder}: {fault}: its files are not of one run, run it again")
    check_temperatures(folder, summary)
    return run


def check_temperatures(folder: Path, summary: Mapping[str, Any]) -> None:
    """Raise UsageError where the methods of one run are after posteriors of different temperatures.

    `hmcvi compare` refuses to make such a run; versions before did not.
    """
    (first, shared), *others = _temperatures(summary).items()
    for method, temperature in others:
        if temperature != shared:
            raise UsageError(
                f"{folder} mixes temperatures: {shared:g} for {first} and {temperature:g} for {method}; one table "
                "compares posteriors of one temperature, run them apart"
            )


def check_comparable(runs: Sequence[FinishedRun]) -> None:
    """Check that runs of one data set and model can stand on one table.

    They must share the model's options (prior and likelihood among them), the temperature, the split and its numbers of
    rows, the precision, the budget of `--budget-gradients` or `--budget-seconds`, at each common seed the data
    themselves, and the settings of each common method.

    Raises:
        UsageError: they do not; the sentence names the field, both values and both folders.
    """
    first = runs[0]
    hashes: dict[int, FinishedRun] = {}
    methods: dict[str, FinishedRun] = {}
    sets: dict[str, FinishedRun] = {}
    for run in runs:
        _require_same(first, run, _shared(first), _shared(run))
        if not set(first.seeds) & set(run.seeds):
            _require_same(first, run, *({field: r.request[field] for field in BEHIND_HASH} for r in (first, run)))
        for seed in run.seeds:
            other = hashes.setdefault(seed, run)
            field = f"the data's hash at seed {seed}"
            _require_same(other, run, {field: other.hashes[seed]}, {field: run.hashes[seed]})
        for method, settings in run.settings.items():
            other = methods.setdefault(method, run)
            before = {f"{key} of {method}": value for key, value in other.settings[method].items()}
            _require_same(other, run, before, {f"{key} of {method}": value for key, value in settings.items()})
        for part, rows in run.summary["sets"].items():
            other = sets.setdefault(part, run)
            field = f"the number of rows of {part}"
            _require_same(other, run, {field: other.summary["sets"][part]}, {field: rows})


def unconverged(runs: Sequence[FinishedRun]) -> str:
    """Return a sentence on where the reference is unconverged and why; "" where it converged everywhere.

    Raises:
        UsageError: a run has no reference.
    """
    where: dict[str, list[str]] = {}
    for run in runs:
        if run.reference is None:
            sampler = reference_of(run.settings)
            mend = (
                f"run its command again, which now takes {sampler} for one and reads the fits that are there"
                if sampler
                else f"run it with one of {', '.join(REFERENCES)} among its --methods"
            )
            raise UsageError(
                f"{run.folder} has no reference, whose convergence is required: {mend}, or drop --require-converged"
            )
        of_run = [
            f"{run.data}, {run.model}, seed {seed}: {record['reason']}"
            for method, seed, record in run.records()
            if method == run.reference and record["verdict"] == UNCONVERGED
        ]
        if run.reference in run.summary.get("failed", {}):
            of_run.append(f"{run.data}, {run.model}: it failed")
        if of_run:
            where.setdefault(run.reference, []).extend(of_run)
    return "; ".join(f"{name} is unconverged ({'; '.join(of_name)})" for name, of_name in where.items())


def _read_json(path: Path) -> Any:
    try:
        return read_json(path)
    except FileNotFoundError as error:
        raise UsageError(f"{path.parent} holds no finished run ({path.name} is not there)") from error
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error}") from error


def _disagreement(run: FinishedRun) -> str:
    """Return in what the files of a folder contradict each other; "" where they agree."""
    fits = {method: len(records) for method, records in run.summary["fits"].items()}
    if fits != dict.fromkeys(run.settings, len(run.seeds)):
        wanted = f"methods {list(run.settings)} at seeds {list(run.seeds)}"
        return f"summary.json has fits of {fits} where manifest.json has {wanted}"
    for field, of_run in (("method", set(run.settings)), ("seed", set(run.seeds))):
        found = set(run.table[field])
        if found != of_run:
            return f"table.csv has {field}s {sorted(found)} where the run has {sorted(of_run)}"
    if set(run.hashes) != set(run.seeds):
        return f"manifest.json has data of seeds {sorted(run.hashes)} where the run has {sorted(run.seeds)}"
    if run.reference not in (None, *run.settings, *run.summary.get("failed", {})):
        return f"summary.json has the reference {run.reference} where the run has {list(run.settings)}"
    if (run.table["set"] == "reference").any() and run.reference not in run.settings:
        return f"table.csv has distances where the run's reference is {run.reference}"
    if not all(pd.api.types.is_numeric_dtype(run.table[name]) for name in ("value", "standard_error")):
        return "table.csv has values that are no numbers"
    for _, _, record in run.records():
        record["verdict"], record["reason"], record["num_draws"] * record["num_chains"]
    return ""


def _temperatures(summary: Mapping[str, Any]) -> dict[str, float]:
    """Return the temperature by method; summaries of before there was one have that of Bayes."""
    return {method: float(records[0].get("temperature", 1.0)) for method, records in summary["fits"].items()}


def _shared(run: FinishedRun) -> dict[str, Any]:
    """Return what runs on one table must share, whatever their seeds, by the words of a sentence."""
    parts = list(run.summary["sets"])
    return {
        **{key if key in ("prior", "likelihood") else f"model option {key}": v for key, v in run.options.items()},
        "temperature": next(iter(run.temperatures.values())),
        "the number of training rows": run.training_rows,
        "held-out classes": list(ood.held_out_classes(parts)),
        "the gap's column": ood.gap_column(parts),
        **{field: run.request[field] for field in IN_SPLIT},
        "precision": run.precision,
        "the budget of each method": run.request["budget"] and "{amount:g} {unit}".format(**run.request["budget"]),
    }


def _require_same(first: FinishedRun, second: FinishedRun, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
    for field in {**ours, **theirs}:
        if ours.get(field) != theirs.get(field):
            one, other = show_value(ours.get(field)), show_value(theirs.get(field))
            raise UsageError(
                f"{first.folder} and {second.folder} cannot share a table: {field} is {one} in the first and {other} "
                "in the second; print them apart"
            )


def show_value(value: Any) -> str:
    """Return an option as a person reads it.

    Example:
        >>> show_value({"class": "Normal", "scale": 3.0}), show_value([16, 16])
        ('Normal(scale=3.0)', '[16, 16]')
    """
    if isinstance(value, Mapping) and "class" in value:
        return f"{value['class']}({', '.join(f'{k}={show_value(v)}' for k, v in value.items() if k != 'class')})"
    return json.dumps(value)
