"""The fits of one seed: made, or read where an earlier run of the same command finished them."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from typing import Any

import jax
from rich.console import Console

from hmcvi.inference import Checkpoint, Fit, FitError, fit
from hmcvi.inference.processes import any_of, together
from hmcvi.inference.progress import Progress

from .budget_curves import SHARES, budget_rows
from .datasets import Dataset
from .evaluate import evaluate
from .experiment import Experiment
from .layout import make_mesh
from .records import fit_record
from .run_folder import RunFolder

__all__ = ["Runner"]


@dataclass(frozen=True)
class Runner:
    """Fits the methods of one seed, or reads what an earlier run of the same command finished.

    Attributes:
        experiment: what is run.
        seed: the seed.
        data: the seed's data set.
        folder: the run's folder; None in a process that only helps to compute.
        say: where to say what goes on.
        quiet: whether to show no progress.
    """

    experiment: Experiment
    seed: int
    data: Dataset
    folder: RunFolder | None
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
            record = fit_record(result, evaluation)
            rows += budget_rows(self.seed, name, share, record, evaluation.rows, self.data.scored_on)
        return rows

    def help(self, failures: dict[str, FitError]) -> None:
        """Make the fits that another process makes and scores, in its order; `failures` as of `fit_all`."""
        for name in self.fit_all(failures):
            for share in SHARES if self.experiment.budget is not None else ():
                with contextlib.suppress(FitError):
                    self._fit(name, share)

    def _fit(self, name: str, share: float) -> Fit:
        method = self.experiment.method(name, share)
        model = self.experiment.configure_model(self.data)
        label, what = (name, "") if share == 1 else (f"{name}@{share:g}", f", {share:g} of the budget")
        said = f"{name}, seed {self.seed}{what}"
        folder = self.folder
        result: Any = together(
            lambda: None if folder is None else folder.load_fit(label, self.seed, model, self.data, method)
        )
        # where a process only helps, the name says that there is a file: the first reads and writes it
        checkpoint = (
            Checkpoint("of the first process", 0)
            if folder is None
            else folder.checkpoint(label, self.seed, self.say.print)
        )
        if any_of(result is not None):
            checkpoint.remove()  # of a process that died between the two
            self.say.print(f"{said}: read from {folder.path if folder else ''}")
            return result
        started = time.perf_counter()
        going_on = ", going on where it was interrupted" if checkpoint.exists() else ""
        self.say.print(
            f"{said}: fitting {len(self.data.x_train):,} rows{self._place(name) if share == 1 else ''}{going_on}"
        )
        x, y, progress = self.data.x_train, self.data.y_train, Progress(said, Progress.suited(not self.quiet))
        try:
            result = fit(
                jax.random.key(self.seed),
                model,
                x,
                y,
                method,
                progress=progress,
                checkpoint=checkpoint,
                mesh=make_mesh(self.experiment),
            )
        except FitError as error:
            kept = ""
            if error.fit is not None and folder is not None:
                kept = folder.save_failed(error.fit, label, self.seed, self.data)
            raise FitError(f"{said}: {error}{kept}", error.fit) from error
        if folder is not None:
            folder.save_fit(result, label, self.seed, self.data)
        checkpoint.remove()
        self.say.print(f"{said}: done in {time.perf_counter() - started:.0f} s")
        return result

    def _place(self, name: str) -> str:
        """Return which fit of the run this is, where there are several."""
        seeds, methods = self.experiment.seeds, self.experiment.asked
        total = len(seeds) * len(methods)
        place = seeds.index(self.seed) * len(methods) + methods.index(name) + 1
        return f" (fit {place} of {total})" if total > 1 else ""
