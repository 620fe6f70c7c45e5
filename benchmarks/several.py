"""`hmcvi compare` on several data sets: all requests are checked first, then each is run, then one table shows all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from hmcvi.inference import FitError

from .compare import compare
from .experiment import Experiment
from .finished import read_finished, unconverged
from .formats import plain_text
from .grouped import lay_out
from .joined import join
from .options import UsageError
from .reference import REFERENCES, reference_of
from .run_folder import RunFolder, data_stem, default_folder

__all__ = ["compare_several"]


def compare_several(
    experiments: Sequence[Experiment],
    out: Path | None = None,
    *,
    figures: bool = True,
    quiet: bool = False,
    require_converged: bool = False,
    checkpoint_seconds: float = 30.0,
) -> str:
    """Run experiments one after another, print the scoreboard of each, and one grouped table where they are several.

    Arguments:
        experiments: what to run; of one, everything is as `compare` does it.
        out: the run folder of one experiment; of several, the folder of their run folders, each named after its data.
            runs/<data>-<model>-<hash> by default.
        figures: whether to draw any.
        quiet: print nothing but the tables.
        require_converged: whether the reference must be there, and is asked for its convergence.
        checkpoint_seconds: seconds between two times that a running fit is kept, at least.

    Returns:
        A sentence on where the reference is unconverged, where it is required to be; else "".

    Raises:
        UsageError, DataError: one of the requests cannot be served; nothing was fitted.
        FitError: a fit did not stay finite; all others were made and scored.
    """
    several = len(experiments) > 1
    folders: list[Path | None] = [out]
    if several or require_converged:
        settled = [_checked(experiment, require_converged) for experiment in experiments]
        if several:
            folders = list(_folders(settled, out))
            for experiment, folder in zip(settled, folders, strict=True):
                assert folder is not None
                RunFolder(folder, experiment)
    finished, failures = [], []
    for experiment, folder in zip(experiments, folders, strict=True):
        try:
            made = compare(experiment, folder, figures=figures, quiet=quiet, checkpoint_seconds=checkpoint_seconds)
            finished.append(made)
        except FitError as error:
            if not several:
                raise
            failures.append(f"{experiment.data_name}, {error}")
            if folder is not None and (folder / "summary.json").exists():
                finished.append(folder)  # the methods that did not fail
    runs = [read_finished(folder) for folder in finished] if several or require_converged else []
    if several and runs:
        print(f"\n{plain_text(lay_out(join(runs)))}", end="")
    if failures:
        raise FitError("; ".join(failures))
    return unconverged(runs) if require_converged else ""


def _checked(experiment: Experiment, require_converged: bool) -> Experiment:
    """Return the experiment with its methods settled, after all that can be refused without a fit."""
    loaded = [experiment.load(seed)[0] for seed in experiment.seeds]
    for data in loaded:
        experiment.check(data)
    settled, left_out = experiment.settle(loaded[0])
    if require_converged:
        why = "".join(f" ({note})" for note in left_out)
        check_reference(settled.asked, f"the methods on {experiment.data_name} are {', '.join(settled.asked)}{why}")
    return settled


def check_reference(methods: Iterable[str], asked: str) -> None:
    """Raise UsageError where no sampler is among the methods, whose convergence is required; `asked` says which are."""
    if reference_of(methods) is None:
        raise UsageError(
            f"--require-converged asks for a converged sampler, but {asked}: add one of {', '.join(REFERENCES)} to "
            "--methods, or drop --require-converged"
        )


def _folders(experiments: Sequence[Experiment], out: Path | None) -> list[Path]:
    """Return the folder of each run.

    Raises:
        UsageError: two runs would share one.
    """
    folders: dict[Path, Experiment] = {}
    for experiment in experiments:
        folder = default_folder(experiment) if out is None else out / data_stem(experiment)
        other = folders.setdefault(folder, experiment)
        if other is not experiment:
            raise UsageError(
                f"data {other.data_name} and {experiment.data_name} would share the folder {folder}: give each data "
                "set once, or run them apart"
            )
    return list(folders)
