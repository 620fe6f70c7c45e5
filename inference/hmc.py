"""Hamiltonian Monte Carlo with trajectories of a fixed length: NumPyro's HMC kernel."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
from numpyro.infer.hmc import hmc
from numpyro.infer.util import ParamInfo

from .base import Model
from .chain_start import start_chains
from .chains import Chains, Sampler
from .spread import Spread
from .start import run_once

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
        options = {
            "trajectory_length": self.trajectory_length,
            "target_accept_prob": self.target_accept,
            "dense_mass": self.dense_mass,
        }

        def shortened(state: Any) -> Any:
            # A step under the whole number: the kernel rounds the quotient of the two up.
            longest = (self.max_num_steps - 0.5) * state.adapt_state.step_size
            length = jnp.minimum(self.trajectory_length, longest)
            return state._replace(trajectory_length=length.astype(state.trajectory_length.dtype))

        return hamiltonian_chains(
            "HMC", options, model, self.num_warmup, chain_keys, x, y, record, shortened, spread=spread
        )


def check_target_accept(what: str, target_accept: float) -> None:
    """Raise ValueError where no step size could reach this acceptance rate."""
    if not 0 < target_accept < 1:
        raise ValueError(f"{what} got target_accept={target_accept}: give a number in (0, 1)")


def hamiltonian_chains(
    algorithm: Literal["HMC", "NUTS"],
    options: dict[str, Any],
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
    """Return chains of a kernel of NumPyro's whose first draws adapt it.

    Arguments:
        algorithm: the kernel.
        options: what its `init_kernel` takes by name.
        num_warmup: draws that adapt it.
        chain_keys, model, x, y, spread: see `start_chains`.
        record: state -> what is kept of it.
        prepare: state -> the state that a draw begins with.
    """
    keys, position_keys = jnp.moveaxis(jax.vmap(jax.random.split)(chain_keys), 1, 0)
    if spread is not None:
        keys, position_keys = spread.place_chains((keys, position_keys))
    begun = start_chains(position_keys, model, x, y, spread)
    init, sample = hmc(potential_fn_gen=begun.potential, algo=algorithm)

    def adapting(chains: Any, x: jax.Array, y: Any) -> Any:
        def one(key: jax.Array, *place: jax.Array) -> Any:
            return init(ParamInfo(*place), num_warmup, **options, model_args=(x, y), rng_key=key)

        return jax.vmap(one)(*chains)

    program = adapting if spread is None else spread.over_chains(adapting)
    return Chains(
        state=run_once(program, (keys, begun.position, begun.potential_energy, begun.gradient), x, y),
        draw=lambda state, x, y: sample(prepare(state), (x, y), {}),
        record=record,
        constrain=begun.constrain,
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
