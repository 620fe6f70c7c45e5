"""The folder of a run: configuration, manifest, fits, tables and figures; an interrupted run goes on where it was."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import pandas as pd

from hmcvi.inference import Checkpoint, Fit, from_datatree, load_datatree, save_datatree, to_datatree
from hmcvi.inference.base import Method, Model, accepts
from hmcvi.inference.checkpoint import first_difference
from hmcvi.inference.describe import describe
from hmcvi.inference.durable import write_whole
from hmcvi.inference.provenance import environment, made_with, processor, visible_cores

from . import checksums
from .checksums import INCOMPLETE, refuse_links
from .datasets import Dataset
from .exclusive import alone_in
from .experiment import Experiment
from .options import UsageError
from .repeat import is_of_arrays, repeat_command

__all__ = ["RunFolder", "data_stem", "default_folder"]

TREE_ROWS = 2_000
"""A tree holds predictions of the training rows up to this many, else (and for a GP) of the first test rows."""


def default_folder(experiment: Experiment) -> Path:
    """Return runs/<data>-<model>-<hash>: the same request finds its own folder, another one never does."""
    text = json.dumps(experiment.configuration(), sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return Path("runs") / f"{data_stem(experiment)}-{experiment.model}-{digest}"


def data_stem(experiment: Experiment) -> str:
    """Return what folders call the data: a file's name without its ending, or the set's name.

    A name that would lead out of a folder, or that a file system cannot hold, loses what is wrong with it.
    """
    name = experiment.data_name
    stem = Path(name).stem if Path(name).suffix else name.replace("/", "-")
    return re.sub(r"[^\w.,=+@-]", "-", stem)[:80].lstrip(".-") or "data"


class RunFolder:
    """Reads and writes one run's folder.

    Arguments:
        path: the folder, made where it is absent.
        experiment: what is run there.
        checkpoint_seconds: seconds between two times a running fit is kept, at least.

    Raises:
        UsageError: the folder holds another run or other files, another process runs there, or it cannot be written.
    """

    def __init__(self, path: Path, experiment: Experiment, *, checkpoint_seconds: float = 30.0):
        self.path = path
        self._every = checkpoint_seconds
        configuration = _as_json(experiment.configuration())
        out = [] if path == default_folder(experiment) else ["--out", str(path)]
        command = " ".join([repeat_command(configuration), *map(shlex.quote, out)])
        self._command = "." if is_of_arrays(configuration) else f":\n{command}"
        self._number_of_fits = len(experiment.seeds) * len(experiment.asked)
        with alone_in(self.path):
            self._claim(experiment)
            (self.path / "fits").mkdir(exist_ok=True)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep the folder to this process, and mark the run as incomplete until `complete` is called.

        Raises:
            UsageError: another process runs there.
            KeyboardInterrupt: the run was interrupted; its message says what is kept.
        """
        with alone_in(self.path):
            if self._count_fits() < self._number_of_fits or not (self.path / "summary.json").exists():
                self._mark()
            try:
                yield
            except KeyboardInterrupt as error:
                kept = f"; {error}" if str(error) else ""
                if (self.path / INCOMPLETE).exists():
                    self._mark(kept)
                raise KeyboardInterrupt(f"{self.state()}{kept}") from error

    def state(self) -> str:
        """Return how far the run is, in words."""
        if not (self.path / INCOMPLETE).exists():
            return f"{self.path} is complete"
        return self._so_far()

    def complete(self) -> None:
        """Take the mark of an incomplete run away."""
        (self.path / INCOMPLETE).unlink(missing_ok=True)

    def _mark(self, kept: str = "") -> None:
        write_whole(self.path / INCOMPLETE, f"{self._so_far()}{kept}. The same command goes on{self._command}\n")

    def _so_far(self) -> str:
        return f"{self.path} is incomplete: {self._count_fits()} of {self._number_of_fits} fits are finished"

    def _count_fits(self) -> int:
        # the label of a fit at a share of the budget, or of one that failed, says so
        fits = (self.path / "fits").glob("*.nc")
        return sum(re.fullmatch(r"[^@]+-seed\d+", path.stem) is not None for path in fits)

    def _claim(self, experiment: Experiment) -> None:
        wanted = _as_json(experiment.configuration())
        refuse_links(self.path)
        file = self.path / "config.json"
        try:
            found = checksums.read_json(file)
        except FileNotFoundError:
            names = {path.name for path in self.path.iterdir() if not path.name.startswith(".")}
            if names and not names & {checksums.NAME, INCOMPLETE, "fits"}:
                raise UsageError(
                    f"{self.path} is there and is no run folder: give an --out folder that is new or empty"
                ) from None
            try:
                self._mark()  # whatever results are there, they need not be those of this request
                self.write_json("config.json", wanted)
            except OSError as error:
                raise UsageError(f"{self.path} cannot be written ({error.strerror}): give another --out") from error
            return
        except UsageError as error:
            if not (self.path / "fits").is_dir():
                raise UsageError(f"{self.path} is there and is no run folder: give another --out folder") from error
            raise UsageError(f"{error}, or delete {file}: then each fit is checked by itself") from error
        if found != wanted:
            differs = [key for key in wanted if not isinstance(found, dict) or found.get(key) != wanted[key]]
            field = differs[0] if differs else "its list of fields"
            there = found.get(field) if isinstance(found, dict) else found
            raise UsageError(
                f"{self.path} holds another run: {field} is {there!r} there and "
                f"{wanted.get(field)!r} here; give another --out folder"
            )

    def write_json(self, name: str, value: Any) -> None:
        """Write a JSON file that appears whole or not at all, and its checksum."""
        checksums.write_summed(self.path / name, json.dumps(value, indent=2) + "\n")

    def checkpoint(self, label: str, seed: int, say: Callable[[str], None]) -> Checkpoint:
        """Return where this fit is kept while it runs.

        Arguments:
            label: the method, perhaps with its share of a budget.
            seed: the seed.
            say: told what is out of the ordinary.
        """
        return Checkpoint(self._fit_file(label, seed).with_suffix(".checkpoint"), self._every, say, keeps_end=False)

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
        except ValueError as error:
            raise UsageError(str(error)) from error
        try:
            for name, value in _made_of(model, seed, data).items():
                if name == "data_hash" and tree.attrs.get(name) != value:
                    raise ValueError("the data have changed since it was made")
                differs = first_difference(_read(tree.attrs.get(name)), _read(value), name)
                if differs is not None:
                    raise ValueError("its {} is {} and here it is {}".format(*differs))
            return from_datatree(tree, model, data.x_train, data.y_train, method)
        except (ValueError, KeyError) as error:
            raise UsageError(f"{file} cannot be continued from: {error}; delete it or give another --out") from error

    def save_fit(self, fit: Fit, label: str, seed: int, data: Dataset) -> None:
        """Write the fit's ArviZ tree to fits/<label>-seed<seed>.nc."""
        at_training_rows = len(data.x_train) <= TREE_ROWS and not accepts(fit.model, "x_new")
        tree = (
            to_datatree(fit) if at_training_rows else to_datatree(fit, data.x_test[:TREE_ROWS], data.y_test[:TREE_ROWS])
        )
        tree.attrs |= _made_of(fit.model, seed, data)
        save_datatree(tree, self._fit_file(label, seed))
        if (self.path / INCOMPLETE).exists():
            self._mark()

    def save_failed(self, fit: Fit, label: str, seed: int, data: Dataset) -> str:
        """Write the last finite state of a fit that failed beside the fits, and return a sentence that says so."""
        file = self.path / "fits" / f"{label}-seed{seed}-failed.nc"
        tree = to_datatree(fit, data.x_test[:TREE_ROWS], data.y_test[:TREE_ROWS])
        save_datatree(tree, file)
        return f"; its last finite state is in {file}"

    def write_table(self, name: str, table: pd.DataFrame) -> None:
        """Write <name>.csv and <name>.parquet."""
        checksums.write_summed(self.path / f"{name}.csv", table.to_csv(index=False))
        checksums.write_summed(self.path / f"{name}.parquet", table.to_parquet(index=False))

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
                "environment": environment(),
                "processor": processor(),
                "visible_cores": visible_cores(),
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


def _as_json(value: Any) -> Any:
    """Return plain data as they come back from a JSON file."""
    return json.loads(json.dumps(value))


def _read(value: Any) -> Any:
    """Return what a JSON text holds, any other value as it is."""
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _made_of(model: Model, seed: int, data: Dataset) -> dict[str, Any]:
    """Return what a saved fit must agree in with the one that is asked for, besides its method."""
    return {
        "seed": seed,
        "data_hash": data.data_hash,
        "made_with": json.dumps(made_with()),
        "model": json.dumps(describe(model)),
    }
