"""The folder of a run: configuration, manifest, fits, tables and figures; an interrupted run goes on where it was."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import pandas as pd

from hmcvi.inference import Fit, from_datatree, load_datatree, save_datatree, to_datatree
from hmcvi.inference.base import Method, Model, accepts

from .datasets import Dataset
from .experiment import Experiment
from .options import UsageError

__all__ = ["RunFolder", "data_stem", "default_folder", "made_with", "processor", "write_whole"]

PACKAGES = ("hmcvi", "jax", "jaxlib", "numpyro", "flax", "optax", "arviz", "numpy", "scipy", "scikit-learn")

TREE_ROWS = 2_000
"""A tree holds predictions of the training rows up to this many, else (and for a GP) of the first test rows."""


def default_folder(experiment: Experiment) -> Path:
    """Return runs/<data>-<model>-<hash>: the same request finds its own folder, another one never does."""
    text = json.dumps(experiment.configuration(), sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return Path("runs") / f"{data_stem(experiment)}-{experiment.model}-{digest}"


def data_stem(experiment: Experiment) -> str:
    """Return what folders call the data: a file's name without its ending, or the set's name."""
    name = experiment.data_name
    return Path(name).stem if Path(name).suffix else name.replace("/", "-")


class RunFolder:
    """Reads and writes one run's folder.

    Arguments:
        path: the folder, made where it is absent.
        experiment: what is run there.

    Raises:
        UsageError: the folder holds another run or other files, or cannot be written.
    """

    def __init__(self, path: Path, experiment: Experiment):
        self.path = path
        self._claim(experiment)

    def _claim(self, experiment: Experiment) -> None:
        wanted = json.loads(json.dumps(experiment.configuration()))
        file = self.path / "config.json"
        if file.exists():
            try:
                found = json.loads(file.read_text())
            except (OSError, ValueError) as error:
                raise UsageError(f"{file} cannot be read ({error}): give another --out folder") from error
            if found != wanted:
                differs = [key for key in wanted if not isinstance(found, dict) or found.get(key) != wanted[key]]
                field = differs[0] if differs else "its list of fields"
                there = found.get(field) if isinstance(found, dict) else found
                raise UsageError(
                    f"{self.path} holds another run: {field} is {there!r} there and "
                    f"{wanted.get(field)!r} here; give another --out folder"
                )
            return
        if self.path.is_file() or (self.path.is_dir() and any(self.path.iterdir())):
            raise UsageError(f"{self.path} is there and is no run folder: give an --out folder that is new or empty")
        try:
            (self.path / "fits").mkdir(parents=True, exist_ok=True)
            self.write_json("config.json", wanted)
        except OSError as error:
            raise UsageError(f"{self.path} cannot be written ({error.strerror}): give another --out folder") from error

    def write_json(self, name: str, value: Any) -> None:
        """Write a JSON file that appears whole or not at all."""
        write_whole(self.path / name, json.dumps(value, indent=2) + "\n")

    def load_fit(self, label: str, seed: int, model: Model, data: Dataset, method: Method) -> Fit | None:
        """Return the fit that an earlier run of the same command finished here, or None.

        Raises:
            UsageError: the file is damaged or made with other settings.
        """
        file = self._fit_file(label, seed)
        if not file.exists():
            return None
        try:
            tree = load_datatree(file)
            wanted = {"data_hash": data.data_hash, "made_with": json.dumps(made_with())}
            for name, value in wanted.items():
                if name == "data_hash" and tree.attrs.get(name) != value:
                    raise ValueError("the data have changed since it was made")
                if tree.attrs.get(name) != value:
                    raise ValueError(f"its {name} is {tree.attrs.get(name)} and here it is {value}")
            return from_datatree(tree, model, data.x_train, data.y_train, method)
        except (ValueError, KeyError) as error:
            raise UsageError(f"{file} cannot be continued from: {error}; delete it or give another --out") from error

    def save_fit(self, fit: Fit, label: str, seed: int, data: Dataset) -> None:
        """Write the fit's ArviZ tree to fits/<label>-seed<seed>.nc."""
        at_training_rows = len(data.x_train) <= TREE_ROWS and not accepts(fit.model, "x_new")
        tree = (
            to_datatree(fit) if at_training_rows else to_datatree(fit, data.x_test[:TREE_ROWS], data.y_test[:TREE_ROWS])
        )
        tree.attrs["data_hash"] = data.data_hash
        tree.attrs["made_with"] = json.dumps(made_with())
        tree.attrs["seed"] = seed
        save_datatree(tree, self._fit_file(label, seed))

    def save_failed(self, fit: Fit, label: str, seed: int, data: Dataset) -> str:
        """Write the last finite state of a fit that failed beside the fits, and return a sentence that says so."""
        file = self.path / "fits" / f"{label}-seed{seed}-failed.nc"
        tree = to_datatree(fit, data.x_test[:TREE_ROWS], data.y_test[:TREE_ROWS])
        save_datatree(tree, file)
        return f"; its last finite state is in {file}"

    def write_table(self, name: str, table: pd.DataFrame) -> None:
        """Write <name>.csv and <name>.parquet."""
        write_whole(self.path / f"{name}.csv", table.to_csv(index=False))
        write_whole(self.path / f"{name}.parquet", table.to_parquet(index=False))

    def write_manifest(self, experiment: Experiment, data: Mapping[int, Dataset], methods: Mapping[str, Any]) -> None:
        """Write manifest.json: what a reader needs to repeat the run, to doubt it or to join it with others.

        Arguments:
            experiment: what was run.
            data: the data set of each seed.
            methods: by name, how each method was set and ran.
        """
        first = data[experiment.seeds[0]]
        self.write_json(
            "manifest.json",
            {
                "written": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
                **made_with(),
                "processor": processor(),
                "visible_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
                "device_count": jax.local_device_count(),
                "seeds": list(experiment.seeds),
                "data": first.name,
                "data_hash": {str(seed): of_seed.data_hash for seed, of_seed in data.items()},
                "training_rows": len(first.x_train),
                "model": experiment.describe_model(first),
                "methods": dict(methods),
            },
        )

    def _fit_file(self, label: str, seed: int) -> Path:
        return self.path / "fits" / f"{label}-seed{seed}.nc"


def processor() -> str:
    """Return the processor's name, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def made_with() -> dict[str, Any]:
    """Return what a fit must have been made with to be continued from: versions, device and precision."""
    device = jax.devices()[0]
    return {
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "device": f"{device.platform}: {device.device_kind}",
        "precision": "float64" if jax.config.read("jax_enable_x64") else "float32",
    }


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file that appears whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(content.encode() if isinstance(content, str) else content)
    partial.replace(path)
