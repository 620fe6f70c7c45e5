"""When has a sampler converged? The one judge of the cases "nuts-*" of `speed.py`: the same code for all of them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np

from hmcvi.inference import SVI, Fit, predict, predict_draws
from hmcvi.inference.diagnostics import PROBABILITY_ROWS, verdict

from .experiment import Experiment
from .speed_models import BY_HAND, log_joint_of

__all__ = ["Draws", "Probes", "until_converged"]

Draws = Mapping[str, jax.Array]
"""Draws (chain, draw, ...) by site, in the constrained space."""


class Probes:
    """What is judged: function values at held-out rows, as `hmcvi.inference.convergence` takes them.

    Its `model` is ours, and `by_hand` what a NumPyro user writes for the same posterior.

    Arguments:
        data: name of a data set.
        model: name of a model.
        rows: training rows to keep; None keeps all.
    """

    def __init__(self, data: str, model: str, rows: int | None) -> None:
        experiment = Experiment(data=data, model=model, rows=rows)
        found, _ = experiment.load(0)
        self.model = experiment.configure_model(found)
        self.by_hand = functools.partial(BY_HAND[model], **experiment.model_options(found))
        self.x, self.y = jnp.asarray(found.x_train), jnp.asarray(found.y_train)
        self._x_test, self._y_test = found.x_test, found.y_test

    def facts(self, model: Callable[..., Any]) -> dict[str, float]:
        """Return what a model shares with all others of a case."""
        log_joint, z = log_joint_of(model, self.x, self.y)
        return {"its log joint": float(jax.jit(log_joint)(z, self.x, self.y))}

    def values(self, draws: Draws) -> dict[str, np.ndarray]:
        """Return the function values (chain, draw, value) of draws (chain, draw, ...), by kind."""
        kept = {name: jnp.asarray(values) for name, values in draws.items()}
        of = Fit(self.model, SVI(), self.x, self.y, jax.random.key(0), kept, 0, len(self.x), 0.0)
        likelihoods = predict(of, self._x_test, self._y_test).log_likelihood
        assert likelihoods is not None
        outputs = predict_draws(of, self._x_test[:PROBABILITY_ROWS])
        return {"log-likelihoods": likelihoods, "outputs": outputs.reshape(*outputs.shape[:2], -1)}


def until_converged(
    blocks: Iterator[tuple[float, Mapping[str, np.ndarray]]], cap: float, most: int, *, anew: bool = False
) -> dict[str, Any]:
    """Return a round's answer: the seconds when the draws so far were first judged converged, or how far they came.

    Arguments:
        blocks: of each block, the seconds since the beginning, and the function values (chain, draw, value) by kind.
        cap: seconds after which it has not converged.
        most: draws a chain after which it has not.
        anew: whether each block is a longer run from the beginning, and not what follows the last one.
    """
    so_far: dict[str, np.ndarray] = {}
    came, draws = "no draw after the warm-up came in time", 0
    for seconds, values in blocks:
        if seconds > cap:
            break
        for kind, of in values.items():
            so_far[kind] = np.concatenate([so_far[kind], of] if kind in so_far and not anew else [of], axis=1)
        judged, draws = verdict(so_far), so_far["log-likelihoods"].shape[1]
        lowest = min(judged.ess_bulk, judged.ess_tail)
        came = f"{draws:,} draws a chain had R-hat {judged.rhat:.3f}, ESS {lowest:,.0f}"
        if judged.converged:
            return {"count": 1, "seconds": seconds, "note": f"{came}, {_score(so_far['log-likelihoods'])}"}
        if draws >= most:
            return {"failure": f"not converged within {most:,} draws a chain: {came}"}
    return {"failure": f"not converged within {cap:,.0f} s: {came}"}


def _score(log_likelihoods: np.ndarray) -> str:
    """Return the mean of log likelihoods (chain, draw, row) with its Monte Carlo error, which tells samplers apart."""
    series = log_likelihoods.mean(axis=2, dtype=np.float64)
    return f"log likelihood of a held-out row {series.mean():.4f} ± {float(az.mcse(series)):.4f}"
