"""The optimisation that SVI, Bayes-by-Backprop and MAP share: minibatches, an optax optimiser, a plateau rule."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from .base import Fit, Method, as_floats
from .progress import Progress

__all__ = [
    "Descent",
    "FanIn",
    "Objective",
    "Optimised",
    "Schedule",
    "Start",
    "Training",
    "check_variational",
    "plateaued",
]

Schedule = Callable[[jax.Array], jax.Array]
"""A learning-rate schedule: step -> learning rate, as optax makes them."""

Objective = Callable[[Any, jax.Array, jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]
"""(params, key, x, y, number of the minibatch in its epoch) -> (what to minimise, what the loss trace records)."""


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


@dataclass(frozen=True, kw_only=True)
class Training:
    """Hyperparameters of an optimisation, which `SVI`, `BayesByBackprop`, `MAP` and `Ensemble` share.

    Arguments:
        num_steps: budget of optimiser steps; those of a method to start from come on top.
        batch_size: rows in a minibatch; None takes 128 where the model allows minibatches, else all rows.
        learning_rate: step size of the optimiser, or an optax schedule of it, which is then followed to its end.
        schedule: what becomes of a learning rate that is a number. "plateau" holds it until the loss falls no
            further (or 8/10 of the budget is spent), then lowers it linearly to 0 and ends the fit; "cosine" lowers
            it from the first step to 0 at the end of the budget (Loshchilov & Hutter 2017).
        optimizer: called with a learning rate, it makes an optax optimiser whose steps are proportional to that
            rate: `optax.adam`, `functools.partial(optax.sgd, momentum=0.9)`, a function of one's own.
        clip_norm: gradients of a larger norm are scaled down to it, in nats of the whole data set; None clips none.
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

    def __post_init__(self) -> None:
        what, rate = type(self).__name__, self.learning_rate
        if not is_count(self.num_steps):
            raise ValueError(f"{what} got num_steps={self.num_steps}: give a whole number of at least 1")
        if not callable(rate) and not (np.isfinite(rate) and rate > 0):
            raise ValueError(f"{what} got learning_rate={rate}: give a number above 0 or an optax schedule")
        if self.schedule not in SCHEDULES:
            raise ValueError(f"{what} got schedule={self.schedule!r}: give one of {', '.join(SCHEDULES)}")
        if callable(rate) and self.schedule != "plateau":
            raise ValueError(f"{what} got schedule={self.schedule!r} and a schedule as learning_rate: give one of them")
        if isinstance(self.optimizer, optax.GradientTransformation) or not callable(self.optimizer):
            raise ValueError(
                f"{what} got an optimizer that is no function of a learning rate: pass optax.adam and "
                "learning_rate=0.01, not optax.adam(0.01)"
            )
        if self.clip_norm is not None and not (np.isfinite(self.clip_norm) and self.clip_norm > 0):
            raise ValueError(f"{what} got clip_norm={self.clip_norm}: give a number above 0, or None")
        leaves_means = isinstance(self.start, Training) and self.start.LEAVES_MEANS
        if not (self.start is None or isinstance(self.start, FanIn | Fit) or leaves_means):
            raise ValueError(
                f"{what} got start={self.start!r}: give None, FanIn(), MAP(), SVI(), BayesByBackprop() or a Fit"
            )

    @property
    def loss_name(self) -> str:
        """What the loss trace holds."""
        return "negative ELBO"

    def transformation(self) -> optax.GradientTransformation:
        """Return the optimiser at a learning rate of 1, behind the clipping."""
        optimizer = self.optimizer(1.0)
        return (
            optimizer if self.clip_norm is None else optax.chain(optax.clip_by_global_norm(self.clip_norm), optimizer)
        )

    def rate(self, step: jax.Array, decay_start: jax.Array, decay: int) -> jax.Array:
        """Return the learning rate at a step, for a rate that falls over `decay` steps from `decay_start` on."""
        if callable(self.learning_rate):
            return self.learning_rate(step)
        if self.schedule == "cosine":
            return self.learning_rate * (1 + jnp.cos(jnp.pi * step / self.num_steps)) / 2
        return self.learning_rate * jnp.clip(1 - (step - decay_start) / decay, 0, 1)

    @property
    def stops_early(self) -> bool:
        """Whether a plateau ends the fit: a schedule is followed to its end."""
        return self.schedule == "plateau" and not callable(self.learning_rate)


def is_count(value: Any) -> bool:
    """Return whether this is a whole number of at least 1."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and bool(value >= 1)


def check_variational(method: Any) -> None:
    """Raise ValueError where a hyperparameter that the variational methods share is out of range."""
    what = type(method).__name__
    for name in ("num_draws", "num_particles"):
        if not is_count(getattr(method, name)):
            raise ValueError(f"{what} got {name}={getattr(method, name)}: give a whole number of at least 1")
    if not (np.isfinite(method.init_scale) and method.init_scale > 0):
        raise ValueError(f"{what} got init_scale={method.init_scale}: give a number above 0")


@dataclass(frozen=True, eq=False)
class Optimised:
    """The end of an optimisation.

    Attributes:
        params: the parameters; where the loss was not finite, the last ones at which it was.
        losses: loss trace (step,).
        finished: whether the loss reached its plateau; None where a schedule decided the end, as any loss is flat
            once its learning rate is next to 0.
        failure: what went wrong, in a sentence; "" where nothing did.
        run_seconds: time in the compiled loop.
    """

    params: Any
    losses: np.ndarray
    finished: bool | None
    failure: str
    run_seconds: float


def plateaued(losses: np.ndarray, window: int) -> bool:
    """Return whether the mean loss of the last window is no better than the one before, at two standard errors.

    Losses on minibatches are noisy: a fall that two windows' noise can explain is no fall.
    """
    if len(losses) < 2 * window:
        return False
    before, last = losses[-2 * window : -window], losses[-window:]
    error = np.sqrt((before.var() + last.var()) / window)
    return bool(before.mean() - last.mean() <= 2 * error)


class Descent:
    """A compiled optimisation, to be run from any key and start.

    Each epoch visits the rows in a new random order; where batch_size does not divide them, the rows left over sit
    that epoch out. The data stay on the device and a tenth of the budget is one compiled loop.

    Arguments:
        objective: estimate of the negative ELBO (or log joint), in nats for the whole data set; see `Objective`.
        params: pytree of parameters, of which shapes and dtypes are read.
        x: inputs (row, feature...).
        y: targets (row,).
        batch_size: rows in one step.
        training: the hyperparameters.
    """

    def __init__(
        self, objective: Objective, params: Any, x: jax.Array, y: jax.Array, *, batch_size: int, training: Training
    ):
        self._training = training
        self._data = x, y
        self._window = window = -(-training.num_steps // NUM_WINDOWS)
        self._decay = decay = min(DECAY_WINDOWS * window, training.num_steps)
        self._optimizer = optimizer = training.transformation()
        steps_per_epoch = max(len(x) // batch_size, 1)

        def chunk(
            state: Any, keys: Any, start: jax.Array, length: jax.Array, decay_start: jax.Array, x: Any, y: Any
        ) -> Any:
            key_order, key_noise = keys

            def one_step(carry: Any) -> Any:
                i, _, params, moments, order, losses = carry
                step = start + i
                in_epoch = step % steps_per_epoch
                if batch_size < len(x):
                    order = lax.cond(
                        in_epoch == 0,
                        lambda: jax.random.permutation(jax.random.fold_in(key_order, step), len(x)),
                        lambda: order,
                    )
                    batch = lax.dynamic_slice(order, (in_epoch * batch_size,), (batch_size,))
                    x_batch, y_batch = x[batch], y[batch]
                else:
                    x_batch, y_batch = x, y
                key_step = jax.random.fold_in(key_noise, step)
                gradient, loss = jax.grad(objective, has_aux=True)(
                    params, key_step, as_floats(x_batch), y_batch, in_epoch
                )
                updates, moments = optimizer.update(gradient, moments, params)
                rate = training.rate(step, decay_start, decay)
                params = jax.tree.map(lambda p, u: (p + rate * u).astype(p.dtype), params, updates)
                return i + 1, jnp.isfinite(loss), params, moments, order, losses.at[i].set(loss)

            def goes_on(carry: Any) -> jax.Array:
                return (carry[0] < length) & carry[1]

            losses = jnp.zeros(window, as_floats(x[:1]).dtype)
            begin = (jnp.asarray(0), jnp.asarray(True), *state, losses)
            _, _, *state, losses = lax.while_loop(goes_on, one_step, begin)
            return tuple(state), losses

        zero = jnp.asarray(0)
        keys = jax.random.split(jax.random.key(0))
        arguments = (self._state(params), (keys[0], keys[1]), zero, zero, zero, x, y)
        self._compiled = jax.jit(chunk, donate_argnums=0).lower(*arguments).compile()

    def run(self, key: jax.Array, params: Any, progress: Progress) -> Optimised:
        """Minimise from these parameters.

        Arguments:
            key: random key of the minibatches and of the objective's noise.
            params: where to start; they stay the caller's.
            progress: told after every chunk.
        """
        key_order, key_noise = jax.random.split(key)
        training, window, decay = self._training, self._window, self._decay
        end = training.num_steps
        decay_start = end - decay
        state = jax.tree.map(jnp.copy, self._state(params))  # what is donated is gone

        def advance(state: Any, done: int, length: int) -> Any:
            steps = (jnp.asarray(done), jnp.asarray(length), jnp.asarray(decay_start))
            return self._compiled(state, (key_order, key_noise), *steps, *self._data)

        started = time.perf_counter()
        losses = np.zeros(0)
        finished = False if training.stops_early else None
        chunks: list[tuple[int, Any]] = []
        while len(losses) < end:
            done, length = len(losses), min(window, end - len(losses))
            chunks = [*chunks[-1:], (done, jax.tree.map(jnp.copy, state))]
            state, new = advance(state, done, length)
            losses = np.concatenate([losses, np.asarray(new, np.float64)[:length]])
            bad = np.flatnonzero(~np.isfinite(losses[done:]))
            if len(bad) or not _finite(state[0]):
                step = done + int(bad[0]) if len(bad) else len(losses)
                what = f"the loss became {losses[step]}" if len(bad) else "the parameters were no longer finite"
                advice = "lower the learning rate" if step else "look at the data, the prior and the start"
                failure = f"{what} at step {step} of {training.num_steps}: {advice}"
                params = _last_finite(advance, chunks, step - 1)
                return Optimised(params, losses[:step], finished, failure, time.perf_counter() - started)
            progress.update(len(losses), end, f"loss {losses[-window:].mean():.4g}")
            if (
                training.stops_early
                and not finished
                and len(losses) <= decay_start
                and plateaued(losses, max(window, LEAST_WINDOW))
            ):
                finished, decay_start = True, len(losses)
                end = min(decay_start + decay, training.num_steps)
        return Optimised(state[0], losses, finished, "", time.perf_counter() - started)

    def _state(self, params: Any) -> Any:
        return params, self._optimizer.init(params), jnp.arange(len(self._data[0]))


def _last_finite(advance: Callable[..., Any], chunks: list[tuple[int, Any]], last: int) -> Any:
    """Return the parameters after `last` updates, or after fewer where those are not finite, by repeating the way.

    Arguments:
        advance: (state, step, number of steps) -> (state, losses).
        chunks: (step, state) at the start of the last chunks.
        last: the step of the last finite loss, which was that of the parameters after as many updates.
    """

    def params_after(updates: int) -> Any:
        begin, state = next(((d, s) for d, s in reversed(chunks) if d <= updates), chunks[0])
        return advance(jax.tree.map(jnp.copy, state), begin, max(updates - begin, 0))[0][0]

    sound, broken = chunks[0][0], max(last, chunks[0][0]) + 1
    params = params_after(broken - 1)
    if _finite(params):
        return params
    while broken - sound > 1:  # a gradient can break parameters that the loss does not show
        middle = (sound + broken) // 2
        sound, broken = (middle, broken) if _finite(params_after(middle)) else (sound, middle)
    return params_after(sound)


def _finite(params: Any) -> bool:
    """Return whether every parameter is finite; a sum tells, where a maximum may drop NaN."""
    return all(bool(jnp.isfinite(leaf.sum())) for leaf in jax.tree.leaves(params))
