"""What every sampler shares: its budget, and the driver that advances chains in compiled chunks."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import AxisType, PartitionSpec

from .base import Fit, FitError, Model, as_floats, check_allowances, counted, is_count, latent_sites
from .checkpoint import Checkpoint, Kept
from .division import Division
from .processes import agreed
from .progress import Progress, next_length
from .spread import Spread

__all__ = ["CHAIN_METHODS", "Chains", "Sampler"]

CHAIN_METHODS = ("auto", "parallel", "sequential", "vectorized")

NUM_CHUNKS = 20
"""Chunks that a run is driven in at least, each of two seconds at most."""

LEAST_DRAWS = 4
"""Draws of each chain that must be left where a budget ended the run: convergence is judged from four on."""

LEAST_TUNING = 10
"""Steps that a tuning of its own takes at least, however small the budget."""


@dataclass(frozen=True)
class Chains:
    """What a sampler gives the driver. The functions are of one chain, and are compiled.

    Attributes:
        state: where the chains stand, every leaf (chain, ...).
        draw: (state, x, y) -> the state one draw on.
        record: state -> what is kept of it by name: the position "z" in the unconstrained space, "n_steps" and
            "step_size", and further statistics by ArviZ's names.
        constrain: (x, y) -> a function from the position of one draw to the sites' values in the constrained space.
        num_warmup: draws at the beginning that adapt the sampler and are not kept.
        tune: number of steps -> (state, x, y) -> the tuned state, where one program adapts the sampler ahead of all
            draws; None where the first draws do.
        tuning_steps: tuned state -> steps that the tuning took (chain,); None where that is the number it was given.
    """

    state: Any
    draw: Callable[[Any, jax.Array, jax.Array], Any]
    record: Callable[[Any], dict[str, Any]]
    constrain: Callable[[jax.Array, jax.Array], Callable[[Any], dict[str, jax.Array]]]
    num_warmup: int = 0
    tune: Callable[[int], Callable[[Any, jax.Array, jax.Array], Any]] | None = None
    tuning_steps: Callable[[Any], jax.Array] | None = None


class Sampler:
    """Hyperparameters that every sampler has, and `fit`. A sampler is a frozen dataclass of them and of its own.

    Arguments:
        num_warmup: warm-up draws of each chain (a sampler may count steps), for adaptation, not kept.
        num_draws: draws kept of each chain.
        num_chains: independent chains.
        chain_method: "parallel" (chains over devices), "vectorized" (in lock step on one device), "sequential", or
            "auto": parallel where there is more than one device, else vectorized on an accelerator, else
            sequential. Draws differ between chain methods by float rounding that chaotic trajectories amplify.
        max_passes: allowance of gradient evaluations, each of which passes once over the training data, of all
            chains together and warm-up included; None sets none.
        max_seconds: allowance of seconds in compiled calls (`Fit.run_seconds`; compile time apart); None sets none.
            What is drawn then depends on the machine's speed.

    An allowance ends the run after the chunk of draws that spends it. Under one, a chunk takes no more than half of
    what was left at the price of the chunk before, down to one draw of each chain: the last chunk, by which the run
    is over its allowance, is a small share of it unless one draw of each chain is not. The chains keep equal numbers
    of draws. If the allowance ends within the warm-up, the second half of the draws so far is kept, and
    `Fit.ended_in_warmup` says so; then no such sampler is called converged.
    """

    COUNTS: ClassVar[tuple[str, ...]] = ("num_warmup", "num_draws", "num_chains")
    """Hyperparameters that are whole numbers of at least 1."""

    GRADIENTS_PER_STEP: ClassVar[int] = 1
    """Gradient evaluations in one of the steps that `n_steps` counts."""

    num_warmup: int
    num_draws: int
    num_chains: int
    chain_method: str
    max_passes: float | None
    max_seconds: float | None

    def __post_init__(self) -> None:
        what = type(self).__name__
        for name in self.COUNTS:
            if not is_count(getattr(self, name)):
                raise ValueError(f"{what} got {name}={getattr(self, name)}: give a whole number of at least 1")
        if self.chain_method not in CHAIN_METHODS:
            raise ValueError(f"{what} got chain_method={self.chain_method!r}: give one of {', '.join(CHAIN_METHODS)}")
        check_allowances(self)

    @property
    def name(self) -> str:
        """Short name for tables and figures."""
        raise NotImplementedError

    @property
    def loss_name(self) -> str:
        """Empty: a sampler has no loss."""
        return ""

    def start(
        self, chain_keys: jax.Array, model: Model, x: jax.Array, y: jax.Array, spread: Spread | None = None
    ) -> Chains:
        """Return the chains (one for each of the keys) at draws of the prior, and how to advance them.

        Over a mesh the state is divided over it, and drawing is for programs that run there.
        """
        raise NotImplementedError

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
        """Draw from the posterior; see `hmcvi.inference.fit`."""
        sites, _ = latent_sites(model, x, y)
        given, x, rows = x, as_floats(x), len(x)  # once: every gradient reads all rows
        head = x, y
        if spread is not None:
            self.check_division(model, spread.division)
            x, y, rows = as_floats(spread.x), spread.y, spread.num_rows
        chains = self.start(jax.random.split(key, self.num_chains), model, x, y, spread)
        total = chains.num_warmup + self.num_draws
        chunk = -(-total // NUM_CHUNKS)
        meter = _Meter(self, spread)
        advance = meter.compiled(partial(_advance, chains, chunk), chains.state, _count(chunk), x, y)
        state, done, parts = chains.state, 0, []
        begun = checkpoint.saved("draws")
        if begun is not None:
            state = begun.tree("state", state)
            if spread is not None:
                state = spread.place_chains(state)
            parts = [begun.tree("recorded", jax.eval_shape(jax.vmap(chains.record), state), same_shapes=False)]
            done, meter.gradients, meter.seconds = (begun.values[name] for name in ("done", "gradients", "seconds"))
        elif chains.tune is not None:
            with progress.ahead("tuning"):
                progress.update(0, total, "draws a chain", "all chains at once")
                seconds_per_step = 0.0
                if self.max_seconds is not None:  # a draw for its price alone
                    _, recorded = advance(state, _count(1), x, y)
                    recorded = recorded if spread is None else spread.on_host(recorded)
                    seconds_per_step = meter.seconds / float(np.mean(np.asarray(recorded["n_steps"])[:, 0]))
                tuning_steps = self._tuning_steps(seconds_per_step)
                state = meter.compiled(chains.tune(tuning_steps), state, x, y)(state, x, y)
            steps = tuning_steps * self.num_chains
            if chains.tuning_steps is not None:
                taken = chains.tuning_steps(state)
                steps = int(np.sum(taken if spread is None else spread.on_host(taken)))
            meter.gradients += steps * self.GRADIENTS_PER_STEP

        length = 1
        while done < total and meter.share < 1:
            length, before, seconds = min(length, total - done), meter.share, meter.seconds
            state, recorded = advance(state, _count(length), x, y)
            recorded = recorded if spread is None else spread.on_host(recorded)
            # copied: a view would keep the whole chunk's buffer, as often as a chunk is cut into calls
            recorded = jax.tree.map(lambda leaf, n=length: np.array(np.asarray(leaf)[:, :n]), recorded)
            parts.append(recorded)
            meter.gradients += int(recorded["n_steps"].sum()) * self.GRADIENTS_PER_STEP
            done += length
            stage = "warm-up" if done <= chains.num_warmup else "sampling"
            progress.update(done, total, "draws a chain", self._detail(recorded, stage))

            def reached(state: Any = state, done: int = done) -> Kept:
                values = {"done": done, "gradients": meter.gradients, "seconds": meter.seconds}
                whole = state if spread is None else spread.on_host(state)
                return Kept.of(values, state=whole, recorded=_joined(parts))

            checkpoint.offer("draws", reached)
            affordable = meter.affordable(length, before)
            length = min(next_length(length, meter.seconds - seconds, chunk), affordable)

        recorded = _joined(parts)
        if self.max_passes is not None:
            done = meter.end_at_allowance(recorded["n_steps"], self.max_passes)
            recorded = jax.tree.map(lambda leaf: leaf[:, :done], recorded)
        first, ended_in_warmup = chains.num_warmup, None
        if done < total and done - first < LEAST_DRAWS:
            first, ended_in_warmup = done // 2, done
            if done - first < LEAST_DRAWS:
                raise FitError(
                    f"{self.name} spent its budget of {self._budget()} within {done} draws of each chain: raise it, "
                    f"as at least {2 * LEAST_DRAWS - 1} are needed"
                )
        kept = jax.tree.map(lambda leaf: leaf[:, first:], recorded)
        draws = _constrain(chains, kept.pop("z"), *(head if spread is not None else (x, y)))
        return Fit(
            model=model,
            method=self,
            x=given,
            y=y,
            key=key,
            draws={name: draws[name] for name in sites},
            stats=kept,
            chain_method=self._chain_method() if spread is None else str(spread),
            ended_in_warmup=ended_in_warmup,
            num_gradients=meter.gradients,
            rows_per_gradient=rows,
            run_seconds=meter.seconds,
        )

    def _chain_method(self) -> str:
        """Return how the chains run here: what "auto" comes to."""
        if self.chain_method != "auto":
            return self.chain_method
        if self.num_chains > 1 and jax.local_device_count() > 1:
            return "parallel"
        return "sequential" if jax.default_backend() == "cpu" else "vectorized"

    def check_division(self, model: Model, division: Division) -> None:
        """Raise ValueError where the chains or the rows cannot be divided over a mesh."""
        if self.num_chains % division.num_chain_shards:
            raise ValueError(
                f"{self.num_chains} chains of {self.name} cannot be divided over {division.num_chain_shards} chain "
                "shards: give a multiple of that as num_chains, or another mesh"
            )
        if division.num_row_shards > 1:
            division.check_independent(model)

    def _tuning_steps(self, seconds_per_step: float) -> int:
        """Return the steps of a tuning ahead of all draws: under an allowance it may take half of it.

        Arguments:
            seconds_per_step: what a step of every chain takes; 0 where no seconds are counted.
        """
        steps = [float(self.num_warmup)]
        if self.max_passes is not None:
            steps.append(self.max_passes / 2 / (self.num_chains * self.GRADIENTS_PER_STEP))
        if self.max_seconds is not None:
            steps.append(self.max_seconds / 2 / seconds_per_step)
        return max(LEAST_TUNING, int(min(steps)))

    def _budget(self) -> str:
        given = {name: getattr(self, name) for name in ("max_passes", "max_seconds")}
        return " and ".join(f"{name}={value:g}" for name, value in given.items() if value is not None)

    def _detail(self, recorded: dict[str, Any], stage: str) -> str:
        gradients = recorded["n_steps"].mean() * self.GRADIENTS_PER_STEP
        step_size = recorded["step_size"][:, -1].mean()
        return f"{stage}, step size {step_size:.2g}, {counted(round(float(gradients)), 'gradient')} a draw"


class _Meter:
    """What a run has spent: gradient evaluations, and seconds in compiled calls."""

    def __init__(self, sampler: Sampler, spread: Spread | None = None) -> None:
        self._sampler, self._spread = sampler, spread
        self.gradients, self.seconds = 0, 0.0

    @property
    def share(self) -> float:
        """The share of its allowances that is spent, the larger of the two; 0 where there is none."""
        spent = ((self.gradients, self._sampler.max_passes), (self.seconds, self._sampler.max_seconds))
        return max(0.0 if allowance is None else used / allowance for used, allowance in spent)

    def end_at_allowance(self, n_steps: np.ndarray, max_passes: float) -> int:
        """Return how many of the draws the allowance of gradients pays for, and count no more: not how they were cut.

        Arguments:
            n_steps: steps of each draw (chain, draw).
            max_passes: the allowance.
        """
        of_draws = n_steps.sum(0, dtype=np.int64) * self._sampler.GRADIENTS_PER_STEP
        spent = self.gradients - of_draws.sum() + of_draws.cumsum()
        done = min(int(np.searchsorted(spent, max_passes)) + 1, len(spent))
        self.gradients = int(spent[done - 1])
        return done

    def affordable(self, length: int, share_before: float) -> int:
        """Return how many draws half of what is left pays for, at the price of the last `length`; at least one."""
        price = (self.share - share_before) / length
        return max(1, int((1 - self.share) / (2 * price))) if price > 0 else 2 * length

    def compiled(self, one_chain: Callable[..., Any], *arguments: Any) -> Callable[..., Any]:
        """Compile a function of one chain's state and more for all chains; its calls are timed."""
        sampler, spread = self._sampler, self._spread
        if spread is None:
            over_chains = _over_chains(one_chain, sampler._chain_method(), sampler.num_chains)
        else:
            in_group = "vectorized" if sampler._chain_method() == "vectorized" else "sequential"
            all_chains = _over_chains(one_chain, in_group, sampler.num_chains)
            over_chains = spread.over_chains(all_chains, num_shared=len(arguments) - 3)
        function = jax.jit(over_chains).lower(*arguments).compile()

        def timed(*arguments: Any) -> Any:
            started = time.perf_counter()
            result = jax.block_until_ready(function(*arguments))
            seconds = time.perf_counter() - started
            # one clock decides for all processes how long the next call is
            self.seconds += seconds if self._spread is None else agreed(seconds)
            return result

        return timed


def _advance(
    chains: Chains, chunk: int, state: Any, length: jax.Array, x: jax.Array, y: jax.Array
) -> tuple[Any, dict[str, Any]]:
    """Advance one chain by `length` ≤ chunk draws; return the state and the record of them (chunk, ...)."""
    buffer = jax.tree.map(lambda leaf: jnp.zeros((chunk, *leaf.shape), leaf.dtype), chains.record(state))

    def step(i: jax.Array, carry: tuple[Any, Any]) -> tuple[Any, Any]:
        state, buffer = carry
        state = chains.draw(state, x, y)
        return state, jax.tree.map(lambda b, leaf: b.at[i].set(leaf), buffer, chains.record(state))

    return lax.fori_loop(0, length, step, (state, buffer))


def _count(number: int) -> np.ndarray:
    """Return a number as a program takes it: of NumPy, which is on no device yet, and so goes to all of a mesh."""
    return np.asarray(number, jnp.result_type(int))


def _joined(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the record of all calls (chain, draw, ...)."""
    return jax.tree.map(lambda *leaves: np.concatenate(leaves, axis=1), *parts)


def _over_chains(one_chain: Callable[..., Any], chain_method: str, num_chains: int) -> Callable[..., Any]:
    """Return a function of (states, ...) that calls `one_chain(state, ...)` on every chain."""

    def in_turn(states: Any, *shared: Any) -> Any:
        return lax.map(lambda state: one_chain(state, *shared), states)

    def in_lock_step(states: Any, *shared: Any) -> Any:
        return jax.vmap(lambda state: one_chain(state, *shared))(states)

    def over_devices(states: Any, *shared: Any) -> Any:
        num_devices = max(n for n in range(1, jax.local_device_count() + 1) if num_chains % n == 0)
        devices = jax.local_devices()[:num_devices]
        mesh = jax.make_mesh((num_devices,), ("chain",), axis_types=(AxisType.Auto,), devices=devices)
        chains, whole = PartitionSpec("chain"), PartitionSpec()
        specs = (chains, *(whole for _ in shared))
        return jax.shard_map(in_turn, mesh=mesh, in_specs=specs, out_specs=chains, check_vma=False)(states, *shared)

    return {"sequential": in_turn, "vectorized": in_lock_step, "parallel": over_devices}[chain_method]


def _constrain(chains: Chains, z: Any, x: jax.Array, y: jax.Array) -> dict[str, jax.Array]:
    """Map positions (chain, draw, ...) from the unconstrained space; what else the model computes is compiled away."""
    constrain = jax.jit(lambda z, x, y: lax.map(lambda chain: lax.map(chains.constrain(x, y), chain), z))
    return constrain(z, x, y)
