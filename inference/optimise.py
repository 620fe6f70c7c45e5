"""The optimisation loop that SVI and Bayes-by-Backprop share: minibatches, Adam, a plateau rule, compiled chunks."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from .base import FitError, as_floats
from .progress import Progress

__all__ = ["Optimised", "Schedule", "check_optimisation", "minimise", "plateaued"]

Schedule = Callable[[jax.Array], jax.Array]
"""A learning-rate schedule: step -> learning rate, as optax makes them."""

NUM_WINDOWS = 10
"""A tenth of the step budget is the chunk that is compiled, and the window of the plateau rule."""

LEAST_WINDOW = 500
"""Steps in a window of the plateau rule at least: over fewer, minibatch noise hides a loss that is still falling."""

DECAY_WINDOWS = 2
"""The learning rate falls linearly to 0 over this many windows at the end, to quiet the last minibatches' noise."""


@dataclass(frozen=True, eq=False)
class Optimised:
    """The end of an optimisation: parameters, loss trace (step,), and whether it reached its plateau."""

    params: Any
    losses: np.ndarray
    finished: bool
    run_seconds: float


def check_optimisation(
    what: str, num_steps: int, num_draws: int, learning_rate: float | Schedule, init_scale: float
) -> None:
    """Raise ValueError where a hyperparameter that the variational methods share is out of range."""
    if num_steps < 1 or num_draws < 1:
        raise ValueError(f"{what} got num_steps={num_steps}, num_draws={num_draws}: give whole numbers of at least 1")
    if not callable(learning_rate) and not (np.isfinite(learning_rate) and learning_rate > 0):
        raise ValueError(f"{what} got learning_rate={learning_rate}: give a number above 0 or an optax schedule")
    if not (np.isfinite(init_scale) and init_scale > 0):
        raise ValueError(f"{what} got init_scale={init_scale}: give a number above 0")


def plateaued(losses: np.ndarray, window: int) -> bool:
    """Return whether the mean loss of the last window is no better than the one before, at two standard errors.

    Losses on minibatches are noisy: a fall that two windows' noise can explain is no fall.
    """
    if len(losses) < 2 * window:
        return False
    before, last = losses[-2 * window : -window], losses[-window:]
    error = np.sqrt((before.var() + last.var()) / window)
    return bool(before.mean() - last.mean() <= 2 * error)


def minimise(
    key: jax.Array,
    loss: Callable[[Any, jax.Array, jax.Array, jax.Array], jax.Array],
    params: Any,
    x: jax.Array,
    y: jax.Array,
    *,
    batch_size: int,
    num_steps: int,
    learning_rate: float | Schedule,
    progress: Progress,
) -> Optimised:
    """Minimise loss(params, key, x_batch, y_batch) by Adam (Kingma & Ba 2015).

    Each epoch visits the rows in a new random order; where batch_size does not divide them, the rows left over sit
    that epoch out. A constant learning rate is held until the loss reaches a plateau (or 8/10 of the budget is
    spent), then falls linearly to 0; a schedule is followed as given, to its end. The data stay on the device and
    a tenth of the budget is one compiled loop.

    Arguments:
        key: random key of the minibatches and of the loss's noise.
        loss: scalar estimate of the negative ELBO, in nats for the whole data set.
        params: pytree of parameters to start from.
        x: inputs (row, feature...).
        y: targets (row,).
        batch_size: rows in one step.
        num_steps: budget of steps.
        learning_rate: Adam's, or a schedule of it.
        progress: told after every chunk.

    Raises:
        FitError: the loss is not finite; the message names the step.
    """
    window = -(-num_steps // NUM_WINDOWS)
    decay = min(DECAY_WINDOWS * window, num_steps)
    key_order, key_noise = jax.random.split(key)
    adam = optax.scale_by_adam()
    steps_per_epoch = max(len(x) // batch_size, 1)

    def rate(step: jax.Array, decay_start: jax.Array) -> jax.Array:
        if callable(learning_rate):
            return learning_rate(step)
        return learning_rate * jnp.clip(1 - (step - decay_start) / decay, 0, 1)

    def chunk(state: Any, start: jax.Array, length: jax.Array, decay_start: jax.Array, x: Any, y: Any) -> Any:
        def one_step(i: jax.Array, carry: Any) -> Any:
            params, moments, order, losses = carry
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
            value, gradient = jax.value_and_grad(loss)(params, key_step, as_floats(x_batch), y_batch)
            direction, moments = adam.update(gradient, moments, params)
            size = rate(step, decay_start)
            params = jax.tree.map(lambda p, d: (p - size * d).astype(p.dtype), params, direction)
            return params, moments, order, losses.at[i].set(value)

        losses = jnp.zeros(window, as_floats(x[:1]).dtype)
        *state, losses = lax.fori_loop(0, length, one_step, (*state, losses))
        return tuple(state), losses

    state = (params, adam.init(params), jnp.arange(len(x)))
    decay_start = num_steps - decay
    arguments = (jnp.asarray(0), jnp.asarray(window), jnp.asarray(decay_start), x, y)
    compiled = jax.jit(chunk, donate_argnums=0).lower(state, *arguments).compile()
    state = jax.tree.map(jnp.copy, state)  # the caller keeps its own: what is donated is gone

    started = time.perf_counter()
    losses = np.zeros(0)
    finished = False
    end = num_steps
    while len(losses) < end:
        done, length = len(losses), min(window, end - len(losses))
        steps = (jnp.asarray(done), jnp.asarray(length), jnp.asarray(decay_start))
        state, new = compiled(state, *steps, x, y)
        losses = np.concatenate([losses, np.asarray(new, np.float64)[:length]])
        bad = np.flatnonzero(~np.isfinite(losses[done:]))
        if len(bad):
            raise FitError(
                f"the loss became {losses[done + bad[0]]} at step {done + int(bad[0])} of {num_steps}: "
                "lower the learning rate"
            )
        progress.update(len(losses), end, f"loss {losses[-window:].mean():.4g}")
        if callable(learning_rate):
            finished = len(losses) == end and plateaued(losses, max(window, LEAST_WINDOW))
        elif not finished and len(losses) <= decay_start and plateaued(losses, max(window, LEAST_WINDOW)):
            finished, decay_start = True, len(losses)
            end = min(decay_start + decay, num_steps)
    return Optimised(state[0], losses, finished, time.perf_counter() - started)
