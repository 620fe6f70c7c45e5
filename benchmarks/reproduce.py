"""`hmcvi reproduce`: run published results anew, and say of each whether it was reached."""

from __future__ import annotations

import dataclasses
import inspect
import json
import math
import shutil
import time
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from hmcvi import plots
from hmcvi.inference import FitError
from hmcvi.inference.durable import write_whole
from hmcvi.inference.provenance import made_with, processor, visible_cores
from hmcvi.inference.scores import Score

from .exclusive import alone_in
from .options import UsageError, check_name
from .raw import DataError
from .target_runs import RUNS, Measures, keeping_fits_in

__all__ = ["Claim", "Outcome", "Target", "judge", "list_targets", "read_targets", "reproduce", "where"]

TARGETS = Path(__file__).with_name("targets.toml")

WIDTH = 110
"""Columns of text that the table fits in."""


@dataclass(frozen=True)
class Claim:
    """What a target wants of one measure.

    Attributes:
        measure: name of what the run returns.
        published: the source's value, where it has one.
        at_most: the measure's upper bound.
        at_least: its lower bound.
        below: name of a measure that it stays below, whatever both are.
        quick: whether a subset of the data confirms it too.
    """

    measure: str
    published: float | None = None
    at_most: float | None = None
    at_least: float | None = None
    below: str | None = None
    quick: bool = False

    def __post_init__(self) -> None:
        if sum(bound is not None for bound in (self.at_most, self.at_least, self.below)) != 1:
            raise ValueError(f"claim on {self.measure!r}: give one of at_most, at_least and below")


@dataclass(frozen=True)
class Target:
    """A published result: where it is from, what runs it, with which settings, and what is wanted of it."""

    name: str
    title: str
    source: str
    run: str
    note: str
    full: Mapping[str, Any]
    quick: Mapping[str, Any]
    claims: tuple[Claim, ...]

    def asked(self, *, quick: bool) -> list[Claim]:
        """Return the claims that a run of this form can confirm."""
        return [claim for claim in self.claims if claim.quick or not quick]


@dataclass(frozen=True)
class Outcome:
    """One claim, measured: the value with its standard error, what was wanted, and whether it was met."""

    claim: Claim
    value: float
    standard_error: float
    wanted: str
    passed: bool


def read_targets(path: Path = TARGETS) -> dict[str, Target]:
    """Return the targets of a file by name, in its order.

    Raises:
        ValueError: the file is malformed, or names a run that there is none of.
    """
    targets = {}
    for name, entry in tomllib.loads(path.read_text()).items():
        try:
            claims = tuple(Claim(**claim) for claim in entry.pop("claims"))
            targets[name] = Target(name=name, claims=claims, **entry)
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"{path.name}, target {name}: {error}") from error
        if targets[name].run not in RUNS:
            raise ValueError(f"{path.name}, target {name}: no run {targets[name].run!r}, only {', '.join(RUNS)}")
    return targets


def judge(claim: Claim, measures: Mapping[str, Score]) -> Outcome:
    """Hold a claim against measures.

    Raises:
        ValueError: a measure that the claim names is not among them.
    """
    for name in (claim.measure, claim.below):
        if name is not None and name not in measures:
            raise ValueError(f"no measure {name!r}: the run returned {', '.join(measures)}")
    value, error = measures[claim.measure]
    if claim.at_most is not None:
        return Outcome(claim, value, error, f"at most {claim.at_most:g}", value <= claim.at_most)
    if claim.at_least is not None:
        return Outcome(claim, value, error, f"at least {claim.at_least:g}", value >= claim.at_least)
    assert claim.below is not None
    bound = measures[claim.below].value
    return Outcome(claim, value, error, f"below {bound:.3g}: {claim.below}", value < bound)


def reproduce(
    names: Sequence[str],
    *,
    quick: bool = False,
    tune: bool = False,
    settings: Sequence[str] = (),
    seeds: Sequence[int] = (0,),
    out: Path = Path("runs/reproduce"),
    data_dir: str | None = None,
    console: Console | None = None,
) -> bool:
    """Run targets, print measured against published, write OUT/TARGET[-quick|-tune].json, return whether all passed.

    With several seeds, each a fit (and, for the digits, a split) of its own, the value is their mean and its error
    that between them.

    Arguments:
        names: targets; none means all.
        quick: whether to run on subsets, and to judge the what a subset can show.
        tune: whether to score on validation rows, taken from the training rows, and to judge nothing. Each trial
            replaces the target's last.
        settings: "KEY=VALUE" in the place of a target's settings, for one target and with `tune` only.
        seeds: random seeds.
        out: folder of the results.
        data_dir: the TFDS folder; None takes `$TFDS_DATA_DIR`.
        console: where to print; standard output by default.

    A target whose data set is not prepared, or whose fit does not stay finite, fails with the reason; the others run.

    Raises:
        UsageError: a target is unknown or has nothing to tune, no target is named to tune, a setting is unknown or
            given without `tune` or for several targets, a seed was given twice or is out of range, or the folder
            cannot be written.
    """
    targets = read_targets()
    for name in names:
        check_name("target", name, targets)
    chosen = [targets[name] for name in dict.fromkeys(names or targets)]
    if len(set(seeds)) != len(seeds):
        raise UsageError("a seed was given twice: give each once")
    for seed in seeds:
        if not 0 <= seed < 2**32:
            raise UsageError(f"seed {seed}: give a whole number from 0 to 2³² - 1")
    if settings and len(chosen) > 1:
        raise UsageError("settings belong to one target: name it, before --set")
    if tune:
        if not names:
            raise UsageError("--tune trains as long as a full run does: name the targets to tune")
        chosen = [_for_tuning(target, settings, quick=quick) for target in chosen]
    elif settings:
        raise UsageError("settings are given with --tune only: a target's own are part of its claim")
    passed = True
    with alone_in(out):
        console = Console(width=WIDTH, highlight=False, markup=False, emoji=False) if console is None else console
        form = ", quick: subsets of the data" + (", claims that they can show" if not tune else "") if quick else ""
        console.print(f"On {where()}{form}{', scored on validation rows' if tune else ''}.")
        if not (names or quick):
            console.print(
                "All targets in full take hours without an accelerator; --list names them, --quick takes minutes."
            )
        for target in chosen:
            console.print(f"\n{target.name}: {target.title}", style="bold")
            console.print(f"Source: {target.source}.")
            if target.note:
                console.print(target.note)
            try:
                passed &= _run_target(target, quick=quick, seeds=seeds, out=out, data_dir=data_dir, console=console)
            except (FitError, DataError) as error:
                # the others are still worth their hours
                passed = False
                console.print(f"FAIL: {error}")
    return passed


def _run_target(
    target: Target, *, quick: bool, seeds: Sequence[int], out: Path, data_dir: str | None, console: Console
) -> bool:
    """Run one target for every seed, saving after each, print its table and return whether it passed."""
    settings = target.quick if quick else target.full
    # a trial, or a check of two minutes, must not replace hours
    stem = f"{target.name}-tune" if settings.get("tune") else f"{target.name}-quick" if quick else target.name
    in_the_making = out / f"{stem}-fits"
    by_seed: list[Measures] = []
    seconds: list[float] = []
    for seed in seeds:
        started = time.perf_counter()
        try:
            with keeping_fits_in(in_the_making):
                by_seed.append(RUNS[target.run](seed, data_dir, **settings))
        except (FitError, DataError) as error:
            shutil.rmtree(in_the_making, ignore_errors=True)  # going on would fail again
            if isinstance(error, DataError):
                raise
            raise FitError(f"seed {seed}: {error}", error.fit) from error
        seconds.append(time.perf_counter() - started)
        done = seeds[: len(by_seed)]
        measures = _over_seeds(by_seed)
        outcomes = [judge(claim, measures) for claim in target.asked(quick=quick)]
        complete = len(done) == len(seeds)  # until then nothing has passed
        _write(out / f"{stem}.json", target, settings, done, by_seed, outcomes, seconds, quick=quick, complete=complete)
    shutil.rmtree(in_the_making, ignore_errors=True)
    saved = f"all measures: {out / stem}.json"
    if target.run == "flipout_variance":
        plots.save(plots.gradient_variance(_curves(measures, settings["batch_sizes"])), out / stem)
        saved += f", curves: {out / stem}.png"
    console.print(_table(outcomes) if outcomes else _measures_table(measures))
    count = f"{len(seeds)} seeds" if len(seeds) > 1 else f"seed {seeds[0]}"
    console.print(f"{count}, {sum(seconds):.0f} s; {saved}", style="dim")
    return all(outcome.passed for outcome in outcomes)


def _for_tuning(target: Target, given: Sequence[str], *, quick: bool) -> Target:
    """Return the target with validation rows for test rows, these settings, and no claims."""
    if "tune" not in inspect.signature(RUNS[target.run]).parameters:
        raise UsageError(f"{target.name} has no test rows, so nothing to tune on: leave --tune away")
    settings = dict(target.quick if quick else target.full)
    for text in given:
        key, equals, value = text.partition("=")
        check_name("setting", key, settings)
        if not equals:
            raise UsageError(f"{target.name} got {text!r}: give {key}=VALUE")
        kind = type(settings[key])
        try:
            settings[key] = kind(value)
        except ValueError:
            raise UsageError(f"{target.name} got {text}: give {key}={kind.__name__}, such as {settings[key]}") from None
    settings["tune"] = True
    return dataclasses.replace(target, full=settings, quick=settings, claims=())


def list_targets(console: Console | None = None) -> None:
    """Print the targets with their titles and sources."""
    console = Console(width=WIDTH, highlight=False, markup=False, emoji=False) if console is None else console
    for target in read_targets().values():
        console.print(f"{target.name}: {target.title}", style="bold")
        console.print(f"  {target.source}")


def _over_seeds(by_seed: Sequence[Measures]) -> Measures:
    """Return each measure's mean over seeds, with the error between them; of one seed, its own."""
    if len(by_seed) == 1:
        return by_seed[0]
    measures = {}
    for name in by_seed[0]:
        values = np.array([one[name].value for one in by_seed])
        measures[name] = Score(float(values.mean()), float(values.std(ddof=1) / math.sqrt(len(values))))
    return measures


def _table(outcomes: Sequence[Outcome]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="bold")
    table.add_column("measure", overflow="fold", min_width=36)
    table.add_column("published", justify="right")
    table.add_column("wanted", overflow="fold")
    table.add_column("measured", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for outcome in outcomes:
        published = "–" if outcome.claim.published is None else f"{outcome.claim.published:g}"
        verdict = "pass" if outcome.passed else "FAIL"
        measured = _with_error(outcome.value, outcome.standard_error)
        table.add_row(outcome.claim.measure, published, outcome.wanted, measured, verdict)
    return table


def _measures_table(measures: Measures) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="bold")
    table.add_column("measure")
    table.add_column("measured", justify="right")
    for name, (value, error) in measures.items():
        table.add_row(name, _with_error(value, error))
    return table


def _with_error(value: float, standard_error: float) -> str:
    return f"{value:.4g}" + ("" if math.isnan(standard_error) else f" ±{standard_error:.2g}")


def _write(
    file: Path,
    target: Target,
    settings: Mapping[str, Any],
    seeds: Sequence[int],
    by_seed: Sequence[Measures],
    outcomes: Sequence[Outcome],
    seconds: Sequence[float],
    *,
    quick: bool,
    complete: bool,
) -> None:
    record = {
        "target": target.name,
        "source": target.source,
        "quick": quick,
        "settings": dict(settings),
        "passed": complete and all(outcome.passed for outcome in outcomes) if outcomes else None,
        "claims": [
            {
                **{key: value for key, value in dataclasses.asdict(outcome.claim).items() if value is not None},
                "measured": _number(outcome.value),
                "standard_error": _number(outcome.standard_error),
                "passed": outcome.passed,
            }
            for outcome in outcomes
        ],
        "measures": {
            str(seed): {name: [_number(value), _number(error)] for name, (value, error) in measures.items()}
            for seed, measures in zip(seeds, by_seed, strict=True)
        },
        "where": where(),
        "seconds": list(seconds),
        "written": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        **made_with(),
    }
    write_whole(file, json.dumps(record, indent=2) + "\n")


def _number(value: float) -> float | None:
    """JSON knows neither NaN nor infinity."""
    return value if math.isfinite(value) else None


def _curves(measures: Measures, batch_sizes: Sequence[int]) -> dict[str, dict[str, np.ndarray]]:
    """Return arrays by estimator for the figure, from measures named "variance at batch B, ESTIMATOR"."""
    curves = {}
    for estimator in dict.fromkeys(name.rpartition(", ")[2] for name in measures):
        scored = [measures[f"variance at batch {size}, {estimator}"] for size in batch_sizes]
        curves[estimator] = {
            "batch_size": np.array(batch_sizes),
            "value": np.array([score.value for score in scored]),
            "standard_error": np.array([score.standard_error for score in scored]),
        }
    return curves


def where() -> str:
    """Return what this runs on: the processor and how many of its cores, or the accelerator."""
    device = jax.devices()[0]
    if device.platform != "cpu":
        return f"{device.device_kind} ({device.platform})"
    cores = visible_cores()
    return f"{cores} core{'s' if cores != 1 else ''} of {processor()}"
