"""Point estimates: maximum a posteriori, and deep ensembles of it, the baselines that every reader asks for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from numpyro import handlers
from numpyro.distributions import biject_to
from numpyro.infer.util import log_density

from .base import Fit, Model, latent_sites
from .checkpoint import Checkpoint
from .descend import Problem, best_of, descend, restart_keys, signal_fields
from .progress import Progress
from .spread import Spread
from .start import Beginning
from .training import Training

__all__ = ["MAP", "Ensemble"]


@dataclass(frozen=True)
class MAP(Training):
    """Maximum a posteriori: the weights that maximise log p(y | x, w) + log p(w), as one draw.

    The density is that of the sites in their own space, as NumPyro's AutoDelta takes it: no Jacobian enters.
    Initialisation, minibatches, optimiser and stopping rule are those of `BayesByBackprop`. A hierarchical prior has
    no such maximum (the density grows without bound as a scale and its weights shrink together).

    Arguments:
        others: those of `Training`: num_steps, batch_size, learning_rate, schedule, optimizer, clip_norm, start,
            num_restarts, max_passes, max_seconds.
    """

    @property
    def name(self) -> str:
        """Short name for tables and figures."""
        return "map"

    @property
    def loss_name(self) -> str:
        """What the loss trace holds."""
        return "negative log joint"

    def fit(
        self,
        key: jax.Array,
        model: Model,
        x: jax.Array,
        y: jax.Array,
        progress: Progress,
        checkpoint: Checkpoint,
        spread: Spread | None = None,
    ) -> Fit:
        """Climb to the maximum; see `hmcvi.inference.fit`."""
        return _fit_points(self, key, restart_keys(key, self.num_restarts), model, x, y, progress, checkpoint, spread)


@dataclass(frozen=True)
class Ensemble(Training):
    """Deep ensemble: `size` MAP fits from starts, minibatch orders and noise of their own, each one draw.

    Arguments:
        size: members.
        others: those of `Training`, for every member, which share an allowance; the gradient's signal is the
            largest of a member's.

    Source: Lakshminarayanan, Pritzel & Blundell (2017), Simple and Scalable Predictive Uncertainty Estimation using
    Deep Ensembles; without its adversarial training.
    """

    LEAVES_MEANS: ClassVar[bool] = False

    size: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.size < 2:
            raise ValueError(f"Ensemble got size={self.size}: give at least 2, or use MAP()")
        if self.num_restarts != 1:
            raise ValueError(f"Ensemble got num_restarts={self.num_restarts}: its members are starts: raise size")
        if isinstance(self.start, Fit):
            raise ValueError("Ensemble got one Fit to start every member from: they would all end alike; give MAP(...)")

    @property
    def name(self) -> str:
        """Short name for tables and figures."""
        return "ensemble"

    @property
    def loss_name(self) -> str:
        """What the loss trace holds."""
        return "negative log joint"

    def fit(
        self,
        key: jax.Array,
        model: Model,
        x: jax.Array,
        y: jax.Array,
        progress: Progress,
        checkpoint: Checkpoint,
        spread: Spread | None = None,
    ) -> Fit:
        """Fit every member; see `hmcvi.inference.fit`."""
        return _fit_points(self, key, list(jax.random.split(key, self.size)), model, x, y, progress, checkpoint, spread)


def _fit_points(
    method: MAP | Ensemble,
    key: jax.Array,
    keys: list[jax.Array],
    model: Model,
    x: jax.Array,
    y: jax.Array,
    progress: Progress,
    checkpoint: Checkpoint,
    spread: Spread | None,
) -> Fit:
    """Fit a point from each key: an ensemble's are the draws of one chain, of a MAP's restarts the best is."""
    sites, _ = latent_sites(model, x, y)
    transforms = {name: biject_to(site.support) for name, site in sites.items()}

    def set_up(begin: Beginning, key: jax.Array) -> Problem:
        def objective(params: Any, key: jax.Array, x: jax.Array, y: jax.Array, in_epoch: jax.Array | None) -> Any:
            values = {name: transforms[name](value) for name, value in params.items()}
            loss = -log_density(handlers.seed(begin.model, key), (x, y), {}, values)[0]
            return loss, loss

        return Problem(objective, begin.values, noisy=False)

    # the same keys as Bayes-by-Backprop's: the same start and minibatches
    is_one = isinstance(method, MAP)
    runs = descend(
        keys,
        method,
        model,
        x,
        y,
        progress,
        checkpoint,
        set_up,
        each="start" if is_one else "member",
        ends_at_failure=not is_one,
        spread=spread,
    )
    best, outcome = best_of(runs)
    if not is_one:
        results = [run.result for run in runs]
        outcome |= {
            "losses": _mean_losses([result.losses for result in results]),
            "finished": _all_finished([result.finished for result in results]),
            "failure": results[-1].failure,
            **signal_fields(results),
            "num_optimised": len(keys) * outcome["num_optimised"],
            "restarts": None,  # members are meant to differ
            "restart_errors": None,
        }
    points = [
        {name: transforms[name](run.result.params[name]) for name in sites} for run in ([best] if is_one else runs)
    ]
    return Fit(
        model=model,
        method=method,
        x=x,
        y=y,
        key=key,
        draws={name: jnp.stack([point[name] for point in points])[None] for name in sites},
        location=dict(best.result.params) if is_one else None,
        **outcome,
    )


def _mean_losses(losses: list[np.ndarray]) -> np.ndarray:
    """Return the mean loss of the members at each step (step,); members that have ended are left out of it."""
    table = np.full((len(losses), max(map(len, losses))), np.nan)
    for row, member in zip(table, losses, strict=True):
        row[: len(member)] = member
    return np.nanmean(table, axis=0)


def _all_finished(flags: list[bool | None]) -> bool | None:
    """Return whether every member finished: False where one did not, None where a schedule decided one's end."""
    return False if False in flags else None if None in flags else True
