"""Hamiltonian Monte Carlo with trajectories of a fixed length: NumPyro's HMC kernel."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpyro.infer
from numpyro.infer.util import constrain_fn

from .base import Model
from .chains import Chains, Sampler
from .spread import Spread
from .start import all_finite, run_once

__all__ = ["HMC", "check_target_accept", "hamiltonian_chains", "record"]


@dataclass(frozen=True)
class HMC(Sampler):
    """Hamiltonian Monte Carlo of a fixed trajectory length, with dual averaging and an adapted mass matrix.

    A draw integrates Hamilton's equations over the time `trajectory_length` in ⌈trajectory_length / step size⌉
    leapfrog steps, and is accepted or not at its end. The unit of that time is set by the mass matrix, which is
    adapted to the posterior's scales: π/2 takes a Gaussian with the mass matrix's scales to an independent draw, and
    2π back to where it came from.

    Arguments:
        num_warmup, num_draws, num_chains, chain_method, max_passes, max_seconds: see `hmcvi.inference.chains.Sampler`.
        trajectory_length: time of a trajectory.
        target_accept: target of the mean acceptance probability, which sets the step size.
        dense_mass: adapt a dense mass matrix.
        max_num_steps: leapfrog steps of a trajectory at most. It is shorter where the step size asks for more, as
            early in the warm-up: a step size near 0 would never end.

    Source: Duane et al. (1987); Neal (2011), MCMC Using Hamiltonian Dynamics; the length of a trajectory: Izmailov et
    al. (2021), What Are Bayesian Neural Network Posteriors Really Like?, section 3; the kernel is NumPyro's.
    """

    COUNTS: ClassVar[tuple[str, ...]] = (*Sampler.COUNTS, "max_num_steps")

    num_warmup: int = 500
    num_draws: int = 500
    num_chains: int = 4
    trajectory_length: float = math.pi / 2
    target_accept: float = 0.8
    dense_mass: bool = False
    max_num_steps: int = 1000
    chain_method: str = "auto"
    max_passes: float | None = None
    max_seconds: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (math.isfinite(self.trajectory_length) and self.trajectory_length > 0):
            raise ValueError(f"HMC got trajectory_length={self.trajectory_length}: give a number above 0")
        check_target_accept("HMC", self.target_accept)

    @property
    def name(self) -> str:
        """Short name for tables and figures."""
        return "hmc"

    def start(
        self, chain_keys: jax.Array, model: Model, x: jax.Array, y: jax.Array, spread: Spread | None = None
    ) -> Chains:
        """Return the chains at draws of the prior, and how to advance them."""
        make_kernel = partial(
            numpyro.infer.HMC,
            trajectory_length=self.trajectory_length,
            target_accept_prob=self.target_accept,
            dense_mass=self.dense_mass,
            init_strategy=numpyro.infer.init_to_sample,
        )

        def shortened(state: Any) -> Any:
            # A step under the whole number: the kernel rounds the quotient of the two up.
            longest = (self.max_num_steps - 0.5) * state.adapt_state.step_size
            length = jnp.minimum(self.trajectory_length, longest)
            return state._replace(trajectory_length=length.astype(state.trajectory_length.dtype))

        return hamiltonian_chains(
            make_kernel, model, self.num_warmup, chain_keys, x, y, record, shortened, spread=spread
        )


def check_target_accept(what: str, target_accept: float) -> None:
    """Raise ValueError where no step size could reach this acceptance rate."""
    if not 0 < target_accept < 1:
        raise ValueError(f"{what} got target_accept={target_accept}: give a number in (0, 1)")


def hamiltonian_chains(
    make_kernel: Callable[[Model], numpyro.infer.HMC],
    model: Model,
    num_warmup: int,
    chain_keys: jax.Array,
    x: jax.Array,
    y: jax.Array,
    record: Callable[[Any], dict[str, Any]],
    prepare: Callable[[Any], Any] = lambda state: state,
    *,
    spread: Spread | None = None,
) -> Chains:
    """Return chains of a NumPyro kernel whose first draws adapt it; `prepare` is applied to the state before each."""
    # Two kernels: initialising many chains at once leaves a kernel that can only sample them in lock step.
    if spread is not None:
        return _over_mesh(make_kernel, model, num_warmup, chain_keys, x, y, record, prepare, spread)
    kernel, starter = make_kernel(model), make_kernel(model)
    jax.eval_shape(lambda key: kernel.init(key, num_warmup, None, (x, y), {}), chain_keys[0])  # its functions alone
    state = run_once(lambda keys, x, y: starter.init(keys, num_warmup, None, (x, y), {}), chain_keys, x, y)
    if not all_finite(state.potential_energy, state.z_grad):
        state = make_kernel(model).init(
            chain_keys, num_warmup, None, (x, y), {}
        )  # op by op, NumPyro says what is wrong
    return Chains(
        state=state,
        draw=lambda state, x, y: kernel.sample(prepare(state), (x, y), {}),
        record=record,
        constrain=lambda x, y: kernel.postprocess_fn((x, y), {}),
        num_warmup=num_warmup,
    )


def _over_mesh(
    make_kernel: Callable[[Model], numpyro.infer.HMC],
    model: Model,
    num_warmup: int,
    chain_keys: jax.Array,
    x: jax.Array,
    y: Any,
    record: Callable[[Any], dict[str, Any]],
    prepare: Callable[[Any], Any],
    spread: Spread,
) -> Chains:
    """Return the chains likewise, divided over a mesh, on the model whose density is that of all its rows."""
    whole = spread.of_all_rows(model)
    kernel, starter = make_kernel(whole), make_kernel(whole)

    def functions(keys: jax.Array, x: jax.Array, y: Any) -> jax.Array:
        kernel.init(keys[0], num_warmup, None, (x, y), {})
        return keys

    keys = spread.place_chains(chain_keys)
    jax.eval_shape(spread.over_chains(functions), keys, x, y)
    state = run_once(
        spread.over_chains(lambda keys, x, y: starter.init(keys, num_warmup, None, (x, y), {})), keys, x, y
    )
    if not all_finite(state.potential_energy, state.z_grad):
        raise RuntimeError("Cannot find valid initial parameters")  # as NumPyro says it
    return Chains(
        state=state,
        draw=lambda state, x, y: kernel.sample(prepare(state), (x, y), {}),
        record=record,
        # after sampling, which is no program over the mesh: the model as it was given
        constrain=lambda x, y: partial(constrain_fn, model, (x, y), {}),
        num_warmup=num_warmup,
    )


def record(state: Any) -> dict[str, Any]:
    """Return what is kept of the state of a NumPyro kernel."""
    return {
        "z": state.z,
        "diverging": state.diverging,
        "energy": state.energy,
        "lp": -state.potential_energy,
        "acceptance_rate": state.accept_prob,
        "n_steps": state.num_steps,
        "step_size": state.adapt_state.step_size,
    }
