"""Hamiltonian Monte Carlo: NumPyro's NUTS kernel, driven in compiled chunks."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.infer
from jax import lax
from jax.sharding import AxisType, PartitionSpec

from .base import Fit, Model, as_floats, latent_sites
from .progress import Progress

__all__ = ["NUTS"]

CHAIN_METHODS = ("auto", "parallel", "sequential", "vectorized")

NUM_CHUNKS = 20
"""Chunks that a run is driven in: often enough for a progress bar, seldom enough to cost nothing."""


@dataclass(frozen=True)
class NUTS:
    """The No-U-Turn Sampler with dual averaging and a diagonal (or dense) adapted mass matrix.

    One program is compiled for warm-up and sampling together and run in chunks. Chains start from draws of the
    prior.

    Arguments:
        num_warmup: warm-up draws of each chain, for adaptation, not kept.
        num_draws: draws kept of each chain.
        num_chains: independent chains.
        target_accept: target of the mean acceptance probability.
        max_tree_depth: a trajectory takes at most 2^max_tree_depth − 1 gradient evaluations.
        dense_mass: adapt a dense mass matrix.
        chain_method: "parallel" (chains over devices), "vectorized" (in lock step on one device), "sequential", or
            "auto": parallel where there is more than one device, else vectorized on an accelerator, else
            sequential. Draws differ between chain methods by float rounding that NUTS amplifies.

    Source: Hoffman & Gelman (2014), with the iterative tree of Phan, Pradhan & Jankowiak (2019), in NumPyro.
    """

    num_warmup: int = 500
    num_draws: int = 500
    num_chains: int = 4
    target_accept: float = 0.8
    max_tree_depth: int = 10
    dense_mass: bool = False
    chain_method: str = "auto"

    def __post_init__(self) -> None:
        for name in ("num_warmup", "num_draws", "num_chains", "max_tree_depth"):
            if getattr(self, name) < 1:
                raise ValueError(f"NUTS got {name}={getattr(self, name)}: give a whole number of at least 1")
        if not 0 < self.target_accept < 1:
            raise ValueError(f"NUTS got target_accept={self.target_accept}: give a number in (0, 1)")
        if self.chain_method not in CHAIN_METHODS:
            raise ValueError(f"NUTS got chain_method={self.chain_method!r}: give one of {', '.join(CHAIN_METHODS)}")

    @property
    def name(self) -> str:
        """Short name for tables and figures."""
        return "nuts"

    @property
    def loss_name(self) -> str:
        """Empty: a sampler has no loss."""
        return ""

    def fit(self, key: jax.Array, model: Model, x: jax.Array, y: jax.Array, progress: Progress) -> Fit:
        """Draw from the posterior; see `hmcvi.inference.fit`."""
        sites, _ = latent_sites(model, x, y)
        given, x = x, as_floats(x)  # once: every gradient reads all rows
        chain_keys = jax.random.split(key, self.num_chains)
        # Two kernels: initialising many chains at once leaves a kernel that can only sample them in lock step.
        kernel, starter = self._kernel(model), self._kernel(model)
        kernel.init(chain_keys[0], self.num_warmup, None, (x, y), {})
        state = starter.init(chain_keys, self.num_warmup, None, (x, y), {})

        total = self.num_warmup + self.num_draws
        chunk = -(-total // NUM_CHUNKS)
        one_chain = partial(_advance, kernel, chunk)
        advance = jax.jit(_over_chains(one_chain, self._chain_method(), self.num_chains))
        compiled = advance.lower(state, jnp.asarray(chunk), x, y).compile()

        started = time.perf_counter()
        chunks = []
        for done in range(0, total, chunk):
            length = min(chunk, total - done)
            state, recorded = compiled(state, jnp.asarray(length), x, y)
            recorded = jax.tree.map(lambda leaf, n=length: np.asarray(leaf)[:, :n], recorded)
            chunks.append(recorded)
            progress.update(done + length, total, self._detail(recorded, done))
        recorded = jax.tree.map(lambda *parts: np.concatenate(parts, axis=1), *chunks)
        kept = jax.tree.map(lambda leaf: leaf[:, self.num_warmup :], recorded)
        draws = _constrain(kernel, kept.pop("z"), x, y)
        run_seconds = time.perf_counter() - started
        return Fit(
            model=model,
            method=self,
            x=given,
            y=y,
            key=key,
            draws={name: draws[name] for name in sites},
            stats=kept,
            chain_method=self._chain_method(),
            num_gradients=int(recorded["n_steps"].sum()),
            rows_per_gradient=len(x),
            run_seconds=run_seconds,
        )

    def _kernel(self, model: Model) -> numpyro.infer.NUTS:
        return numpyro.infer.NUTS(
            model,
            target_accept_prob=self.target_accept,
            max_tree_depth=self.max_tree_depth,
            dense_mass=self.dense_mass,
            init_strategy=numpyro.infer.init_to_sample,
        )

    def _chain_method(self) -> str:
        if self.chain_method != "auto":
            return self.chain_method
        if self.num_chains > 1 and jax.local_device_count() > 1:
            return "parallel"
        return "sequential" if jax.default_backend() == "cpu" else "vectorized"

    def _detail(self, recorded: dict[str, Any], done: int) -> str:
        stage = "warm-up" if done < self.num_warmup else "sampling"
        steps, step_size = recorded["n_steps"].mean(), recorded["step_size"][:, -1].mean()
        return f"{stage}, step size {step_size:.2g}, {steps:.0f} gradients a draw"


def _advance(
    kernel: numpyro.infer.NUTS, chunk: int, state: Any, length: jax.Array, x: jax.Array, y: jax.Array
) -> tuple[Any, dict[str, Any]]:
    """Advance one chain by `length` ≤ chunk draws; return the state and the record of them (chunk, ...)."""

    def record(state: Any) -> dict[str, Any]:
        return {
            "z": state.z,
            "diverging": state.diverging,
            "energy": state.energy,
            "lp": -state.potential_energy,
            "acceptance_rate": state.accept_prob,
            "n_steps": state.num_steps,
            "tree_depth": 31 - lax.clz((state.num_steps + 1).astype(jnp.int32)),
            "step_size": state.adapt_state.step_size,
        }

    buffer = jax.tree.map(lambda leaf: jnp.zeros((chunk, *leaf.shape), leaf.dtype), record(state))

    def step(i: jax.Array, carry: tuple[Any, Any]) -> tuple[Any, Any]:
        state, buffer = carry
        state = kernel.sample(state, (x, y), {})
        return state, jax.tree.map(lambda b, leaf: b.at[i].set(leaf), buffer, record(state))

    return lax.fori_loop(0, length, step, (state, buffer))


def _over_chains(one_chain: Callable[..., Any], chain_method: str, num_chains: int) -> Callable[..., Any]:
    """Return a function of (states, length, x, y) that advances every chain."""

    def in_turn(states: Any, length: jax.Array, x: jax.Array, y: jax.Array) -> Any:
        return lax.map(lambda state: one_chain(state, length, x, y), states)

    if chain_method == "sequential":
        return in_turn
    if chain_method == "vectorized":
        return jax.vmap(one_chain, in_axes=(0, None, None, None))
    num_devices = max(n for n in range(1, jax.local_device_count() + 1) if num_chains % n == 0)
    devices = jax.local_devices()[:num_devices]
    mesh = jax.make_mesh((num_devices,), ("chain",), axis_types=(AxisType.Auto,), devices=devices)
    chains, whole = PartitionSpec("chain"), PartitionSpec()
    return jax.shard_map(in_turn, mesh=mesh, in_specs=(chains, whole, whole, whole), out_specs=chains, check_vma=False)


def _constrain(kernel: numpyro.infer.NUTS, z: dict[str, Any], x: jax.Array, y: jax.Array) -> dict[str, jax.Array]:
    """Map draws (chain, draw, ...) from the unconstrained space; what else the model computes is compiled away."""
    constrain = jax.jit(lambda z, x, y: lax.map(lambda chain: lax.map(kernel.postprocess_fn((x, y), {}), chain), z))
    return constrain(z, x, y)
