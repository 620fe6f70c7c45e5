"""The hyperparameters that everything optimised shares: steps, minibatches, learning rates, starts, restarts."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from .base import Fit, Method, Model, check_allowances, is_count, minibatches
from .division import Division

__all__ = ["FanIn", "Plan", "Schedule", "Start", "Training", "check_memory", "check_variational"]

Schedule = Callable[[jax.Array], jax.Array]
"""A learning-rate schedule: step -> learning rate, as optax makes them."""


@dataclass(frozen=True)
class FanIn:
    """Start as networks do: kernels from Normal(0, 2 gain²/fan-in), biases at 0, other sites from their prior.

    Arguments:
        gain: 1 keeps the size of activations behind ReLUs; far less suits a scale mixture, whose narrow component
            must hold most weights from the first step on.

    Source: He et al. (2015), Delving Deep into Rectifiers, eq. 10.
    """

    gain: float = 1.0

    def __post_init__(self) -> None:
        if not (np.isfinite(self.gain) and self.gain > 0):
            raise ValueError(f"FanIn got gain={self.gain}: give a number above 0")


Start = FanIn | Method | Fit | None
"""Where means start: the usual initialisation of a network, another fit's means, or (None) a draw from the prior."""

NUM_WINDOWS = 10
"""A tenth of the step budget is the chunk that is compiled, and the window of the plateau rule."""

LEAST_WINDOW = 500
"""Steps in a window of the plateau rule at least: over fewer, minibatch noise hides a loss that is still falling."""

DECAY_WINDOWS = 2
"""The learning rate falls linearly to 0 over this many windows at the end, to quiet the last minibatches' noise."""

SCHEDULES = ("plateau", "cosine")

MOST_SCALE = 1e6
"""Standard deviation that a posterior may start with, in the unconstrained space: its square stays a float32."""

MOST_BYTES = 4 * 2**30
"""Memory that a posterior may take while it is fitted."""


class Plan(NamedTuple):
    """When the learning rate falls: linearly from `decay_start` on, or (a cosine) over all steps.

    Attributes:
        decay_start: first step of the linear fall.
        per_decay: 1 / steps of the linear fall. Reciprocals, as XLA makes of a division by a constant: the same bits.
        per_step: 1 / steps of the whole budget.
    """

    decay_start: Any
    per_decay: Any
    per_step: Any

    @classmethod
    def of(cls, num_steps: int, decay: int, decay_start: int) -> Plan:
        """Return the plan of this many steps, of which the fall takes `decay`."""
        one = jnp.ones((), jnp.result_type(float))
        return cls(jnp.asarray(decay_start), one / decay, one / num_steps)


@dataclass(frozen=True, kw_only=True)
class Training:
    """Hyperparameters of an optimisation, which `SVI`, `BayesByBackprop`, `MAP` and `Ensemble` share.

    Arguments:
        num_steps: budget of optimiser steps; those of a method to start from come on top.
        batch_size: rows in a minibatch; None takes 128 where the model allows minibatches, else all rows.
        learning_rate: step size of the optimiser, or an optax schedule of it, which is then followed to its end.
        schedule: what becomes of a learning rate that is a number. "plateau" holds it until the loss falls no
            further (or 8/10 of the budget is spent), then lowers it linearly to 0 and ends the fit; MAP's loss of all
            rows, which has no noise, is looked at every 500 steps and lowered over 1,000. "cosine" lowers it from
            the first step to 0 at the end of the budget (Loshchilov & Hutter 2017).
        optimizer: called with a learning rate, it makes an optax optimiser whose steps are proportional to that
            rate: `optax.adam`, `functools.partial(optax.sgd, momentum=0.9)`, a function of one's own.
        clip_norm: gradients of a larger norm are scaled down to it, in nats of the whole data set; None clips none.
        num_restarts: independent starts, each with its own minibatches and noise, through the same compiled program;
            the one of the lowest final mean loss is kept, and whether they agree is part of the verdict
            (`hmcvi.inference.completion`). Gradients and seconds of all are counted.
        max_passes: allowance of passes over the training data, gradients × rows each reads / rows; None sets none.
            The plateau rule and the final decay are planned within the steps that it affords.
        max_seconds: the same in seconds of the compiled loop. A step is timed on a few that are thrown away, which
            count neither as gradients nor as seconds.
            Restarts share an allowance; a method to start from is given half of it at most, and what it spends counts.
        start: where the means start. None takes one draw from the prior; `FanIn()` a network's usual initialisation,
            for priors whose draws are no network to start from, such as a scale mixture's; a method, such as
            `MAP(num_steps=5000)`, is fitted first, and its steps are counted; a `Fit` of the model lends its means.
    """

    LEAVES_MEANS: ClassVar[bool] = True
    """Whether another method can start from the means of a fit by this one."""

    num_steps: int = 20_000
    batch_size: int | None = None
    learning_rate: float | Schedule = 0.01
    schedule: Literal["plateau", "cosine"] = "plateau"
    optimizer: Callable[[float], optax.GradientTransformation] = optax.adam
    clip_norm: float | None = None
    start: Start = None
    num_restarts: int = 1
    max_passes: float | None = None
    max_seconds: float | None = None

    def __post_init__(self) -> None:
        what, rate = type(self).__name__, self.learning_rate
        if not is_count(self.num_steps):
            raise ValueError(f"{what} got num_steps={self.num_steps}: give a whole number of at least 1")
        if not (self.batch_size is None or is_count(self.batch_size)):
            raise ValueError(f"{what} got batch_size={self.batch_size}: give a whole number of at least 1, or None")
        if not callable(rate) and not (np.isfinite(rate) and rate > 0):
            raise ValueError(f"{what} got learning_rate={rate}: give a number above 0 or an optax schedule")
        if self.schedule not in SCHEDULES:
            hint = "; an optax schedule goes in the place of learning_rate" if callable(self.schedule) else ""
            given = "a function" if callable(self.schedule) else repr(self.schedule)
            raise ValueError(f"{what} got schedule={given}: give one of {', '.join(SCHEDULES)}{hint}")
        if callable(rate) and self.schedule != "plateau":
            raise ValueError(f"{what} got schedule={self.schedule!r} and a schedule as learning_rate: give one of them")
        if isinstance(self.optimizer, optax.GradientTransformation) or not callable(self.optimizer):
            raise ValueError(
                f"{what} got an optimizer that is no function of a learning rate: pass optax.adam and "
                "learning_rate=0.01, not optax.adam(0.01)"
            )
        if self.clip_norm is not None and not (np.isfinite(self.clip_norm) and self.clip_norm > 0):
            raise ValueError(f"{what} got clip_norm={self.clip_norm}: give a number above 0, or None")
        if not is_count(self.num_restarts):
            raise ValueError(f"{what} got num_restarts={self.num_restarts}: give a whole number of at least 1")
        check_allowances(self)
        if self.num_restarts > 1 and isinstance(self.start, Fit):
            raise ValueError(f"{what} got one Fit to start every restart from: they would all agree; give MAP(...)")
        leaves_means = isinstance(self.start, Training) and self.start.LEAVES_MEANS
        if not (self.start is None or isinstance(self.start, FanIn | Fit) or leaves_means):
            raise ValueError(
                f"{what} got start={self.start!r}: give None, FanIn(), MAP(), SVI(), BayesByBackprop() or a Fit"
            )

    @property
    def loss_name(self) -> str:
        """What the loss trace holds."""
        return "negative ELBO"

    def check_model(self, model: Model, x: jax.Array, y: jax.Array, division: Division | None = None) -> None:
        """Raise ValueError where this model cannot be fitted, over a mesh if there is one: nothing is computed."""
        if division is None:
            minibatches(model, x, y, self.batch_size)
        else:
            division.minibatches(model, self.batch_size)

    def transformation(self) -> optax.GradientTransformation:
        """Return the optimiser at a learning rate of 1, behind the clipping."""
        optimizer = self.optimizer(1.0)
        return (
            optimizer if self.clip_norm is None else optax.chain(optax.clip_by_global_norm(self.clip_norm), optimizer)
        )

    def rate(self, step: jax.Array, plan: Plan) -> jax.Array:
        """Return the learning rate at a step, which "plateau" and "cosine" lower as planned."""
        if callable(self.learning_rate):
            return self.learning_rate(step)
        if self.schedule == "cosine":
            return self.learning_rate * (1 + jnp.cos(jnp.pi * step * plan.per_step)) / 2
        return self.learning_rate * jnp.clip(1 - (step - plan.decay_start) * plan.per_decay, 0, 1)

    @property
    def stops_early(self) -> bool:
        """Whether a plateau ends the fit: a schedule is followed to its end."""
        return self.schedule == "plateau" and not callable(self.learning_rate)


def check_variational(method: Any) -> None:
    """Raise ValueError where a hyperparameter that the variational methods share is out of range."""
    what = type(method).__name__
    for name in ("num_draws", "num_particles"):
        if not is_count(getattr(method, name)):
            raise ValueError(f"{what} got {name}={getattr(method, name)}: give a whole number of at least 1")
    if not 0 < method.init_scale <= MOST_SCALE:
        raise ValueError(f"{what} got init_scale={method.init_scale}: give a number above 0 and at most {MOST_SCALE:g}")


def check_memory(name: str, sites: Mapping[str, Any], numbers: Callable[[int], int], advice: str) -> None:
    """Raise ValueError where a method would hold more numbers than there is room for.

    Arguments:
        name: the method's name.
        sites: the model's latent sites.
        numbers: (entries of all sites) -> numbers held at once, of 4 bytes.
        advice: what to do instead.
    """
    entries = sum(math.prod(site.shape) for site in sites.values())
    needed = 4 * numbers(entries)
    if needed > MOST_BYTES:
        raise ValueError(
            f"{name} over {entries:,} weights would take some {needed / 2**30:,.1f} GiB and at most "
            f"{MOST_BYTES / 2**30:g} GiB are allowed: {advice}"
        )
