"""Finished run folders without a fit, written by what writes those of `hmcvi compare`; and how two folders differ."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hmcvi.benchmarks.checksums import write_summed
from hmcvi.benchmarks.experiment import Experiment, temperature_of
from hmcvi.benchmarks.reference import reference_of
from hmcvi.benchmarks.run_folder import RunFolder
from hmcvi.benchmarks.table import COLUMNS
from hmcvi.inference import load_datatree
from hmcvi.inference.describe import describe_method

Values = Mapping[str, Sequence[float]]
"""Values of one score by method, one for each seed."""

NAMES = ["seed", "method", "set", "score", "value", "standard_error", "monte_carlo_error"]
"""Columns that are written by hand; any others of `COLUMNS` are left empty."""


def write_run(
    folder: Path,
    values: Values,
    *,
    error: float = 0.01,
    further: Sequence[tuple[Any, ...]] = (),
    sets: Mapping[str, int] | None = None,
    verdicts: Mapping[str, Sequence[str]] | None = None,
    **request: Any,
) -> Path:
    """Write a run of wine (unless `data` is another), whose nll is `values` and whose accuracy is 1 - nll.

    Arguments:
        folder: where.
        values: nll by method and seed.
        error: standard error of each over its rows.
        further: further rows (seed, method, set, score, value, standard_error, monte_carlo_error).
        sets: further sets and their numbers of rows.
        verdicts: by method and seed; "finished" by default.
        request: fields of the `Experiment`; seeds 0, 1, ... by default.
    """
    number = len(next(iter(values.values())))
    request = {"data": "wine", "ood": (), "seeds": tuple(range(number)), **request}
    experiment = Experiment(methods=tuple(values), **request)
    data = {seed: experiment.load(seed)[0] for seed in experiment.seeds}
    first = data[experiment.seeds[0]]
    scores = [
        (seed, method, first.scored_on, score, value, error, 0.0)
        for method, of_seeds in values.items()
        for seed, nll in zip(experiment.seeds, of_seeds, strict=True)
        for score, value in (("accuracy", 1 - nll), ("nll", nll))
    ]
    record = {
        "run_seconds": 1.5,
        "compile_seconds": 3.0,
        "num_gradients": 20_000,
        "num_passes": 20_000.0,
        "num_chains": 1,
        "rhat": None,
        "ess": None,
        "reason": "as it was written",
    }
    fits = {}
    for name in values:
        method = experiment.method(name)
        draws = getattr(method, "num_draws", getattr(method, "size", 1))
        made = {**record, "num_draws": draws, "temperature": temperature_of(method)}
        fits[name] = [{**made, "verdict": verdict} for verdict in (verdicts or {}).get(name, ["finished"] * number)]
    run = RunFolder(folder, experiment)
    table = pd.DataFrame([*scores, *further], columns=NAMES)
    run.write_table("table", table.reindex(columns=list(COLUMNS)))
    run.write_json(
        "summary.json",
        {
            "title": "wine, by hand",
            "seeds": list(experiment.seeds),
            "sets": {first.scored_on: len(first.x_test), **(sets or {})},
            "shifts": {},
            "reference": reference_of(values),
            "fits": fits,
        },
    )
    settings = {name: json.loads(describe_method(experiment.method(name))) for name in values}
    run.write_manifest(experiment, data, {name: {"settings": of_method} for name, of_method in settings.items()})
    run.complete()
    return folder


def change(folder: Path, file: str, *path: str, to: Any) -> None:
    """Write another value into one of the folder's JSON files, as if it were the run's own; None takes the key away."""
    whole = json.loads((folder / file).read_text())
    inner = whole
    for key in path[:-1]:
        inner = inner[int(key)] if isinstance(inner, list) else inner[key]
    if to is None:
        del inner[path[-1]]
    else:
        inner[path[-1]] = to
    write_summed(folder / file, json.dumps(whole))


def differences(first: Path, second: Path) -> tuple[int, list[str]]:
    """Return how many arrays and tables of two runs were compared, and which of them are not the same bytes."""
    names = ["table.csv", "differences.csv"]
    found = [name for name in names if (first / name).read_bytes() != (second / name).read_bytes()]
    number = len(names)
    for file in sorted((first / "fits").glob("*.nc")):
        one, other = load_datatree(file), load_datatree(second / "fits" / file.name)
        assert [node.path for node in one.subtree] == [node.path for node in other.subtree]
        for node in one.subtree:
            for name, variable in node.dataset.variables.items():
                number += 1
                if np.asarray(variable.values).tobytes() != other[node.path].dataset[name].values.tobytes():
                    found.append(f"{file.name}{node.path}/{name}")
    return number, found
