"""The optimisation that SVI, Bayes-by-Backprop and MAP share: minibatches, an optax optimiser, a plateau rule."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from .base import as_floats
from .checkpoint import Checkpoint, Kept
from .plateau import Signal, plateaued, signal_of
from .progress import Progress, next_length
from .training import DECAY_WINDOWS, LEAST_WINDOW, NUM_WINDOWS, Plan, Training

__all__ = ["Descent", "Objective", "Optimised"]

Objective = Callable[[Any, jax.Array, jax.Array, jax.Array, jax.Array | None], tuple[jax.Array, jax.Array]]
"""(params, key, x, y, number of the minibatch in its epoch) -> (what to minimise, what the loss trace records).

The number is None for a minibatch of no epoch, where an objective that weighs minibatches by it weighs all the same."""

LEAST_PROBES, MOST_PROBES = 64, 512
"""Gradients from which `Optimised.signal` is estimated, at the final parameters: a sixteenth of the steps taken,
between these. Each finds a signal that as many steps would only just have left the noise by."""

LEAST_ASKED = 16 * LEAST_PROBES
"""Steps of a fit whose gradient is asked, at least: of fewer, asking would cost over a sixteenth and tell little."""

TIMED_SECONDS = 0.1
"""What the timing of a step takes at least, so that the clock and the call do not decide it."""


KEPT_VALUES = ("finished", "failure", "run_seconds", "mean_loss", "mean_loss_error")
"""Fields of `Optimised` that a checkpoint keeps as they are."""


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
        mean_loss: mean loss of the last window of the plateau rule; infinite where the fit failed.
        mean_loss_error: its standard error.
        signal: what is left of the gradient's mean at the end. None where the gradient has no noise, the fit failed,
            or had too few steps to be asked.
    """

    params: Any
    losses: np.ndarray
    finished: bool | None
    failure: str
    run_seconds: float
    mean_loss: float = np.inf
    mean_loss_error: float = np.nan
    signal: Signal | None = None

    def keep(self) -> Kept:
        """Return it as a checkpoint keeps it."""
        values = {name: getattr(self, name) for name in KEPT_VALUES}
        values["signal"] = None if self.signal is None else dataclasses.asdict(self.signal)
        return Kept.of(values, params=self.params, losses=self.losses)

    @classmethod
    def restore(cls, kept: Kept, params: Any) -> Optimised:
        """Return what was kept, with parameters of the structure and shapes of these."""
        values = dict(kept.values)
        signal = values.pop("signal")
        return cls(
            params=kept.tree("params", params),
            losses=kept.tree("losses", 0, same_shapes=False),
            signal=None if signal is None else Signal(**signal),
            **values,
        )


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
        noisy: whether the objective draws noise of its own. The loss of all rows without any shows within
            `LEAST_WINDOW` steps whether it falls, and needs no more to come to rest.
    """

    def __init__(
        self,
        objective: Objective,
        params: Any,
        x: jax.Array,
        y: jax.Array,
        *,
        batch_size: int,
        training: Training,
        noisy: bool = True,
    ):
        self._training, self._noisy = training, noisy
        self._data = x, y
        self._batch_size, self._in_parts = batch_size, batch_size < self._num_rows()
        self._piece = 1  # steps of the next call, by the pace of the last
        self._objective, self._optimizer = objective, training.transformation()
        self._steps_per_epoch = max(len(x) // self._batch_size, 1)
        keys = jax.random.split(jax.random.key(0))
        zero = jnp.asarray(0)
        arguments = (self._state(params), *self._placed(((keys[0], keys[1]), zero, zero, Plan.of(1, 1, 0))), x, y)
        self._compiled = jax.jit(self._program(self._chunk, 5), donate_argnums=0).lower(*arguments).compile()
        self._probes: dict[int, Any] = {}  # by how many, compiled when first asked

    # What is compiled. These are methods, as a function kept by this object that holds on to it would be a cycle: its
    # programs, megabytes each, would then stay in memory until Python's collector next looks at old objects.

    def _gradient_and_loss(self, params: Any, key: jax.Array, batch: Any, x: Any, y: Any, in_epoch: Any) -> Any:
        x_batch, y_batch = (x, y) if batch is None else jax.tree.map(lambda rows: rows[batch], (x, y))
        of_batch = jax.grad(self._objective, has_aux=True)
        return self._of_all(of_batch(params, self._own_key(key), as_floats(x_batch), y_batch, in_epoch))

    def _chunk(
        self, state: Any, keys: Any, start: jax.Array, length: jax.Array, plan: Plan, x: Any, y: Any
    ) -> tuple[Any, jax.Array]:
        """Take this many steps; return the state and the losses (a tenth of the budget,)."""
        training, (key_order, key_noise) = self._training, keys

        def one_step(carry: Any) -> Any:
            i, _, params, moments, order, losses = carry
            step = start + i
            in_epoch = step % self._steps_per_epoch
            batch = None
            if self._in_parts:
                order = lax.cond(in_epoch == 0, lambda: self._order(key_order, step, len(x)), lambda: order)
                batch = self._batch(order, in_epoch)
            key_step = jax.random.fold_in(key_noise, step)
            gradient, loss = self._gradient_and_loss(params, key_step, batch, x, y, in_epoch)
            updates, moments = self._optimizer.update(gradient, moments, params)
            rate = training.rate(step, plan)
            params = jax.tree.map(lambda p, u: (p + rate * u).astype(p.dtype), params, updates)
            return i + 1, jnp.isfinite(loss), params, moments, order, losses.at[i].set(loss)

        def goes_on(carry: Any) -> jax.Array:
            return (carry[0] < length) & carry[1]

        losses = jnp.zeros(-(-training.num_steps // NUM_WINDOWS), as_floats(x[:1]).dtype)
        begin = (jnp.asarray(0), jnp.asarray(True), *self._with_order(state, key_order, start, len(x)), losses)
        _, _, *state, losses = lax.while_loop(goes_on, one_step, begin)
        return self._without_order(tuple(state)), losses

    def _probe(self, number: int, params: Any, keys: Any, start: jax.Array, x: Any, y: Any) -> Any:
        """Return what `signal_of` wants to know of so many gradients at these parameters, and their losses."""
        key_order, key_noise = keys

        def one(total: Any, step: jax.Array) -> Any:
            batch = None
            if self._in_parts:  # minibatches of one epoch would not be independent
                batch = self._batch(self._order(key_order, step, len(x)), None)
            key_step = jax.random.fold_in(key_noise, step)
            gradient, loss = self._gradient_and_loss(params, key_step, batch, x, y, None)
            found = _product(gradient, total), _product(gradient, gradient), loss
            return jax.tree.map(jnp.add, total, gradient), found

        zeros = jax.tree.map(jnp.zeros_like, params)
        return lax.scan(one, zeros, start + jnp.arange(number))[1]

    # What is otherwise over a mesh: see `SpreadDescent`.

    def _num_rows(self) -> int:
        """Return how many rows stand for some."""
        return len(self._data[0])

    def _own_key(self, key: jax.Array) -> jax.Array:
        """Return the key of this device's noise."""
        return key

    def _of_all(self, estimate: Any) -> Any:
        """Return the estimate from the rows of all devices."""
        return estimate

    def _order(self, key: jax.Array, step: jax.Array, rows: int) -> jax.Array:
        """Return the order of an epoch that begins at this step."""
        return jax.random.permutation(jax.random.fold_in(key, step), rows)

    def _batch(self, order: jax.Array, in_epoch: jax.Array | None) -> jax.Array:
        """Return the rows of a minibatch of this order, of the first where None."""
        size = self._batch_size
        return order[:size] if in_epoch is None else lax.dynamic_slice(order, (in_epoch * size,), (size,))

    def _with_order(self, state: Any, key: jax.Array, start: jax.Array, rows: int) -> Any:
        return state

    def _without_order(self, state: Any) -> Any:
        return state

    def _program(self, function: Callable[..., Any], num_shared: int) -> Callable[..., Any]:
        return function

    def _placed(self, tree: Any) -> Any:
        """Put numbers where the program wants them."""
        return tree

    def _agreed(self, seconds: float) -> float:
        """Return the seconds that decide how long the next call is."""
        return seconds

    def _found(self, tree: Any) -> Any:
        """Return what the program gave as ordinary arrays."""
        return tree

    def affordable_steps(self, seconds: float, key: jax.Array, params: Any, checkpoint: Checkpoint) -> int:
        """Return how many steps this time buys: by steps whose results are thrown away, or as it was when it began.

        Arguments:
            seconds: what the steps may take.
            key: random key.
            params: where to start; they stay the caller's.
            checkpoint: says what an interrupted run was given.
        """
        begun = checkpoint.saved("steps")
        if begun is not None:
            return int(begun.values["num_steps"])
        return int(seconds / self._seconds_per_step(key, params))

    def _seconds_per_step(self, key: jax.Array, params: Any) -> float:
        num_steps, length = self._training.num_steps, 1
        longest = -(-num_steps // NUM_WINDOWS)
        while True:
            state = jax.tree.map(jnp.copy, self._state(params))
            started = time.perf_counter()
            plan = Plan.of(num_steps, 1, num_steps)
            jax.block_until_ready(self._advance(state, tuple(jax.random.split(key)), 0, length, plan))
            seconds = self._agreed(time.perf_counter() - started)
            if seconds >= TIMED_SECONDS or length >= longest:
                return seconds / length
            length = min(2 * length, longest)

    def run(
        self, key: jax.Array, params: Any, progress: Progress, checkpoint: Checkpoint, num_steps: int | None = None
    ) -> Optimised:
        """Minimise from these parameters.

        Arguments:
            key: random key of the minibatches and of the objective's noise.
            params: where to start; they stay the caller's.
            progress: told after every compiled call.
            checkpoint: asked where an interrupted run was, and offered the state after every compiled call.
            num_steps: budget of steps, at most that of the hyperparameters, which None takes.
        """
        order, noise = jax.random.split(key)
        keys, training = (order, noise), self._training
        num_steps = training.num_steps if num_steps is None else num_steps
        window = -(-num_steps // NUM_WINDOWS)
        if not (self._noisy or self._in_parts):
            window = min(window, LEAST_WINDOW)
        decay = min(DECAY_WINDOWS * window, num_steps)
        end, decay_start = num_steps, num_steps - decay
        plan = Plan.of(num_steps, decay, decay_start)
        state = jax.tree.map(jnp.copy, self._state(params))  # what is donated is gone

        started = time.perf_counter()
        losses = np.zeros(0)
        finished = False if training.stops_early else None
        begun = checkpoint.saved("steps")
        if begun is not None:
            state = self._placed(begun.tree("state", state))
            losses = begun.tree("losses", 0, same_shapes=False)
            finished, decay_start = begun.values["finished"], begun.values["decay_start"]
            started -= begun.values["seconds"]
        chunks: list[tuple[int, Any]] = []
        while True:
            done = len(losses)
            if (
                training.stops_early
                and not finished
                and done % window == 0
                and done <= decay_start
                and plateaued(losses, max(window, LEAST_WINDOW))
            ):
                finished, decay_start = True, done
            if finished:
                plan = Plan.of(num_steps, decay, decay_start)
                end = min(decay_start + decay, num_steps)
            if done >= end:
                break
            length = min(window - done % window, end - done)
            chunks = [*chunks[-1:], (done, jax.tree.map(jnp.copy, state))]
            for new in self._in_pieces(state, keys, done, length, plan):
                state, losses = new[0], np.concatenate([losses, new[1]])
                progress.update(len(losses), end, "steps", f"loss {losses[-window:].mean():.4g}")
                seconds = time.perf_counter() - started
                values = {"num_steps": num_steps, "finished": finished, "decay_start": decay_start, "seconds": seconds}
                started += checkpoint.offer("steps", partial(_going_on_from, state, losses, values))
            bad = np.flatnonzero(~np.isfinite(losses[done:]))
            if len(bad) or not _finite(state[0]):
                step = done + int(bad[0]) if len(bad) else len(losses)
                what = f"the loss became {losses[step]}" if len(bad) else "the parameters were no longer finite"
                advice = "lower the learning rate" if step else "look at the data, the prior and the start"
                failure = f"{what} at step {step} of {num_steps}: {advice}"

                def repeat(state: Any, done: int, length: int, plan: Plan = plan) -> Any:
                    return self._advance(state, keys, done, length, plan)

                params = _last_finite(repeat, chunks, step - 1)
                return Optimised(self._found(params), losses[:step], finished, failure, time.perf_counter() - started)
        seconds = time.perf_counter() - started
        last = losses[-window:]
        return Optimised(
            params=self._found(state[0]),
            losses=losses,
            finished=finished,
            failure="",
            run_seconds=seconds,
            mean_loss=float(last.mean()),
            mean_loss_error=float(last.std(ddof=1) / np.sqrt(len(last))) if len(last) > 1 else np.nan,
            signal=self._signal(state[0], keys, len(losses)),
        )

    def _signal(self, params: Any, keys: Any, done: int) -> Signal | None:
        """Return what is left of the gradient's mean at the end; None where the gradient has no noise.

        Nor is a fit of fewer than `LEAST_ASKED` steps asked.
        """
        if done < LEAST_ASKED:
            return None
        number = min(done // 16, MOST_PROBES)
        arguments = params, *self._placed((keys, jnp.asarray(done))), *self._data
        if number not in self._probes:
            program = self._program(partial(self._probe, number), 3)
            self._probes[number] = jax.jit(program).lower(*arguments).compile()
        products, squares, losses = (np.asarray(found, float) for found in self._probes[number](*arguments))
        if not np.isfinite(losses).all() or np.ptp(losses) == 0:
            return None
        return signal_of(products, squares)

    def _in_pieces(self, state: Any, keys: Any, done: int, length: int, plan: Plan) -> Iterator[tuple[Any, np.ndarray]]:
        """Yield the state and the losses (step,) after calls of some seconds each; after a loss not finite no more."""
        end, most = done + length, length
        while done < end:
            length = min(self._piece, end - done)
            started = time.perf_counter()
            state, losses = self._advance(state, keys, done, length, plan)
            new = np.asarray(losses, np.float64)[:length]
            seconds = self._agreed(time.perf_counter() - started)
            yield state, new
            if not np.isfinite(new).all():
                return
            done += length
            following = next_length(length, seconds, most)
            # a call that the chunk's end cut short says nothing against longer ones
            self._piece = max(following, self._piece) if length < self._piece else following

    def _advance(self, state: Any, keys: Any, done: int, length: int, plan: Plan) -> Any:
        return self._compiled(state, *self._placed((keys, jnp.asarray(done), jnp.asarray(length), plan)), *self._data)

    def _state(self, params: Any) -> Any:
        return params, self._optimizer.init(params), jnp.arange(len(self._data[0]))


def _going_on_from(state: Any, losses: np.ndarray, values: dict[str, Any]) -> Kept | None:
    """Return what an interrupted run goes on from; None where it would go on from numbers that are not finite."""
    if not (np.isfinite(losses).all() and _finite(state[0])):
        return None
    return Kept.of(values, state=state, losses=losses)


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


def _product(left: Any, right: Any) -> jax.Array:
    """Return the scalar product of all leaves together."""
    return jnp.asarray(sum(jax.tree.leaves(jax.tree.map(jnp.vdot, left, right))))
