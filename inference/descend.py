"""From keys to optimised parameters: starts, restarts, and the allowance that they share."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from .base import FitError, Model
from .checkpoint import Checkpoint
from .optimise import Descent, Objective, Optimised
from .processes import agreed
from .progress import Progress
from .spread import Spread
from .spread_descent import SpreadDescent
from .start import Beginning, InitialValues, starting_point
from .training import Training

__all__ = ["Problem", "Run", "best_of", "descend", "restart_keys", "signal_fields"]


class Problem(NamedTuple):
    """What is minimised, from which parameters, what the method wants back at the end, and if minimising adds noise."""

    objective: Objective
    params: Any
    made: Any = None
    noisy: bool = True


@dataclass(frozen=True, eq=False)
class Run:
    """One start and where it ended."""

    begin: Beginning
    problem: Problem
    result: Optimised
    key_draws: jax.Array
    gradients_per_step: int

    def cost(self) -> dict[str, Any]:
        """Return `num_gradients`, `rows_per_gradient` and `run_seconds` of a `Fit`."""
        return self.begin.cost(self.result, self.gradients_per_step)


def restart_keys(key: jax.Array, number: int) -> list[jax.Array]:
    """Return a key for each start; one start alone has the key of the fit itself."""
    return [key] if number == 1 else list(jax.random.split(key, number))


def descend(
    keys: Sequence[jax.Array],
    training: Training,
    model: Model,
    x: jax.Array,
    y: jax.Array,
    progress: Progress,
    checkpoint: Checkpoint,
    set_up: Callable[[Beginning, jax.Array], Problem],
    *,
    gradients_per_step: int = 1,
    each: str = "start",
    ends_at_failure: bool = False,
    spread: Spread | None = None,
) -> list[Run]:
    """Optimise from every key through one compiled program, and return the runs in the keys' order.

    Arguments:
        keys: a key for each start.
        training: the hyperparameters; its allowance is shared equally.
        model: the model as the user gave it.
        x: inputs (row, feature...).
        y: targets (row,).
        progress: told about every chunk.
        checkpoint: keeps the runs that are over, and the one that is going on.
        set_up: (start, key) -> what to minimise; called for each start, and the first objective serves all.
        gradients_per_step: gradient evaluations of the log joint in one step.
        each: what one of several runs is called.
        ends_at_failure: whether the first start that fails is the last.
        spread: the mesh to optimise over; x and y are then its first rows.

    Raises:
        FitError: the allowance does not afford one step.
    """
    share = _share(training, len(keys))
    initial = InitialValues(model, x, y, training.batch_size, spread)
    rows = len(x) if spread is None else spread.num_rows
    descent: Descent | None = None
    runs: list[Run] = []
    for place, key in enumerate(keys, 1):
        key_init, key_steps, key_draws, key_set_up = jax.random.split(key, 4)
        inner = checkpoint
        if len(keys) > 1:
            progress.part(each, place, len(keys))
            inner = checkpoint.part(f"{each} {place}")
        begin = starting_point(key_init, share, model, x, y, initial, progress, inner, spread)
        problem = set_up(begin, key_set_up)
        num_steps = _steps_by_passes(share, begin, rows, gradients_per_step)
        over = inner.saved("end")
        if over is None:
            if descent is None:
                make: Any = Descent if spread is None else partial(SpreadDescent, spread=spread)
                sizes = {"batch_size": begin.batch_size, "noisy": problem.noisy}
                descent = make(problem.objective, problem.params, x, y, training=training, **sizes)
                assert descent is not None
            if share.max_seconds is not None:
                left = share.max_seconds - (begin.made.run_seconds if begin.made else 0.0)
                affordable = descent.affordable_steps(left, key_steps, problem.params, inner)
                num_steps = min(num_steps, affordable if spread is None else int(agreed(affordable)))
                _check_steps(num_steps, "max_seconds", share.max_seconds)
            result = descent.run(key_steps, problem.params, progress, inner, num_steps)
            if callable(training.learning_rate) and num_steps < training.num_steps:
                result = dataclasses.replace(result, finished=False)  # a schedule of one's own that was cut
            inner.finish("end", result.keep)
        else:
            result = Optimised.restore(over, problem.params)
        runs.append(Run(begin, problem, result, key_draws, gradients_per_step))
        if ends_at_failure and result.failure:
            break
    return runs


def best_of(runs: Sequence[Run]) -> tuple[Run, dict[str, Any]]:
    """Return the run of the lowest final mean loss, and the fields of a `Fit` that the runs decide together."""
    best = min(runs, key=lambda run: run.result.mean_loss)  # a start that failed is infinitely bad
    costs = [run.cost() for run in runs]
    result = best.result
    return best, {
        "losses": result.losses,
        "finished": result.finished,
        "failure": result.failure,
        **signal_fields([result]),
        "num_optimised": sum(leaf.size for leaf in jax.tree.leaves(best.problem.params)),
        "restarts": np.array([run.result.mean_loss for run in runs]),
        "restart_errors": np.array([run.result.mean_loss_error for run in runs]),
        "num_gradients": sum(cost["num_gradients"] for cost in costs),
        "rows_per_gradient": costs[0]["rows_per_gradient"],
        "run_seconds": sum(cost["run_seconds"] for cost in costs),
    }


def signal_fields(results: Sequence[Optimised]) -> dict[str, float | None]:
    """Return `gradient_snr` and `gradient_z` of a `Fit`: those of the optimisation whose gradient is surest not 0."""
    known = [result.signal for result in results if result.signal is not None]
    surest = max(known, key=lambda signal: signal.z, default=None)
    return {"gradient_snr": None if surest is None else surest.snr, "gradient_z": None if surest is None else surest.z}


def _share(training: Training, number: int) -> Training:
    """Return the hyperparameters of one start of several."""
    if training.max_passes is None and training.max_seconds is None:
        return training
    shares: dict[str, Any] = {
        name: None if whole is None else whole / number
        for name, whole in (("max_passes", training.max_passes), ("max_seconds", training.max_seconds))
    }
    return dataclasses.replace(training, **shares)


def _steps_by_passes(training: Training, begin: Beginning, rows: int, gradients_per_step: int) -> int:
    if training.max_passes is None:
        return training.num_steps
    # 1e-9: a third of 30 passes is 10 of them, whatever the rounding
    affordable = math.floor(training.max_passes * rows / begin.batch_size + 1e-9)
    num_steps = min(training.num_steps, (affordable - begin.gradients_made()) // gradients_per_step)
    _check_steps(num_steps, "max_passes", training.max_passes)
    return num_steps


def _check_steps(num_steps: int, name: str, share: float) -> None:
    if num_steps < 1:
        raise FitError(f"{name} leaves {share:g} to a start, which does not afford one step: raise {name}")
