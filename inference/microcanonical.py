"""Microcanonical Langevin Monte Carlo: blackjax's kernel and its tuning, an optional extra."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from .base import Model
from .chain_start import start_chains
from .chains import Chains, Sampler
from .spread import Spread

__all__ = ["MCLMC"]

CHECKED = 0.2
"""Share of MCLMC's tuning that goes to checks of its step size.

What the tuning goes by weighs large errors down, so that it ends at steps that are too long at times. Where 5e-4 was
asked for, 8 fits of the diabetes MLP had chains of median energy variances up to 0.06 without checks (4 of 32 over
1e-3, and 1 fit of 8 unconverged), and up to 1e-4 with them (all converged)."""

BLOCKS, STEPS_OF_A_BLOCK = 5, 40
"""Of one check: the median of the blocks is what an error now and then does not move."""

MOST_TUNED = 3.0
"""Factor by which that median may exceed the energy variance asked for, as in the verdict on convergence."""

SHORTER = 0.8
"""What a step that is too long is multiplied by: the energy's variance goes with its sixth power."""


@dataclass(frozen=True)
class MCLMC(Sampler):
    """Microcanonical Langevin Monte Carlo, unadjusted, with a tuned step size and diagonal preconditioning.

    A chain moves at a speed of constant size, steered by the gradient, while noise turns its direction; its steps
    (minimal-norm integrator, two gradient evaluations each) are far longer than those of Hamiltonian trajectories.
    There is no Metropolis step: **draws are biased** by the error of the integrator, which the tuning holds at
    Var[energy change of a step] / dimension = `desired_energy_var`. On correlated Gaussians of 3 and 10 dimensions
    5e-4 left the means right; variances were 0.4 and 0.7 % too small on average, and 1.2 and 3.7 % along the narrowest
    axis; at 1e-2 they were 2.0 and 4.6 %, and 3.9 and 37 %. Diagnostics of convergence do not see this bias.
    `stats["energy_variance"]` is what the energy variance came to at each draw: values far above those asked for tell
    of a tuning that failed.

    The tuning is one program. Its three stages (step size, scales, length over which the direction is forgotten) take
    3, 4 and 3 parts of num_warmup, of which the last keeps its positions in memory. The last fifth of a num_warmup of
    1000 or more goes to checks of 200 steps: where a chain's energy variance, as the median of 5 blocks, is over three
    times what was asked for, or most blocks diverge, its steps become a fifth shorter. Under an allowance the tuning is
    shortened where it would take more than half of it.

    Arguments:
        num_warmup: tuning steps of each chain.
        num_draws: draws kept of each chain.
        num_chains: independent chains.
        thinning: steps for each draw that is kept.
        desired_energy_var: variance of a step's energy change for each parameter, which sets the step size.
        chain_method, max_passes, max_seconds: see `hmcvi.inference.chains.Sampler`.

    Raises:
        ValueError: blackjax is not installed, or a number makes no sense.

    Source: Robnik, De Luca, Silverstein & Seljak (2023), Microcanonical Hamiltonian Monte Carlo; Robnik & Seljak
    (2024), Fluctuation without dissipation: Microcanonical Langevin Monte Carlo; blackjax.
    """

    COUNTS: ClassVar[tuple[str, ...]] = (*Sampler.COUNTS, "thinning")
    GRADIENTS_PER_STEP: ClassVar[int] = 2
    RECORDED_WARMUP: ClassVar[float] = 0.3
    """Share of the warm-up whose positions are in memory at once, at most."""

    num_warmup: int = 4000
    num_draws: int = 500
    num_chains: int = 4
    thinning: int = 20
    desired_energy_var: float = 5e-4
    chain_method: str = "auto"
    max_passes: float | None = None
    max_seconds: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (math.isfinite(self.desired_energy_var) and self.desired_energy_var > 0):
            raise ValueError(f"MCLMC got desired_energy_var={self.desired_energy_var}: give a number above 0")
        check_blackjax("MCLMC")

    @property
    def name(self) -> str:
        """Short name for tables and figures."""
        return "mclmc"

    def start(
        self, chain_keys: jax.Array, model: Model, x: jax.Array, y: jax.Array, spread: Spread | None = None
    ) -> Chains:
        """Return the chains at draws of the prior, and how to tune and advance them.

        Raises:
            ValueError: the model has a single parameter: a direction in one dimension cannot turn.
        """
        from blackjax.mcmc.mclmc import build_kernel

        begun = Microcanonical("MCLMC", chain_keys, model, x, y, spread)
        kernel = build_kernel()

        def tune(num_steps: int) -> Any:
            checks = int(CHECKED * num_steps) // (BLOCKS * STEPS_OF_A_BLOCK)

            def tuned(state: _State, x: jax.Array, y: jax.Array) -> _State:
                key, key_tuning = jax.random.split(state.key)
                integrator, parameters = begun.tune(
                    num_steps - checks * BLOCKS * STEPS_OF_A_BLOCK,
                    state.integrator,
                    key_tuning,
                    x,
                    y,
                    self.desired_energy_var,
                )
                state = state._replace(integrator=integrator, parameters=parameters, key=key)
                return lax.scan(lambda state, _: (check(state, x, y), None), state, length=checks)[0]

            return tuned

        def check(state: _State, x: jax.Array, y: jax.Array) -> _State:
            def block(state: _State, _: None) -> tuple[_State, jax.Array]:
                state = steps(state, x, y, STEPS_OF_A_BLOCK)
                # a step that diverges is undone, and counts as one without an error
                return state, jnp.where(state.diverging, jnp.inf, state.energy_variance)

            state, energy_variances = lax.scan(block, state, length=BLOCKS)
            too_long = ~(jnp.median(energy_variances) <= MOST_TUNED * self.desired_energy_var)
            parameters = state.parameters
            step_size = jnp.where(too_long, SHORTER * parameters.step_size, parameters.step_size)
            return state._replace(parameters=parameters._replace(step_size=step_size))

        def draw(state: _State, x: jax.Array, y: jax.Array) -> _State:
            return steps(state, x, y, self.thinning)

        def steps(state: _State, x: jax.Array, y: jax.Array, number: int) -> _State:
            key, key_steps = jax.random.split(state.key)
            length, step_size, inverse_mass_matrix = state.parameters

            def step(integrator: Any, key: jax.Array) -> Any:
                return kernel(key, integrator, begun.log_density(x, y), inverse_mass_matrix, length, step_size)

            integrator, info = lax.scan(step, state.integrator, jax.random.split(key_steps, number))
            return _State(
                integrator=integrator,
                parameters=state.parameters,
                key=key,
                energy_error=info.energy_change.sum(),
                energy_variance=(info.energy_change**2).mean() / begun.dim,
                diverging=~info.nonans.all(),
            )

        def record(state: _State) -> dict[str, Any]:
            return {
                "z": state.integrator.position,
                "lp": state.integrator.logdensity,
                "n_steps": jnp.asarray(self.thinning),
                "step_size": state.parameters.step_size,
                "decoherence_length": state.parameters.L,
                "energy_error": state.energy_error,
                "energy_variance": state.energy_variance,
                "diverging": state.diverging,
            }

        lead, dtype = (self.num_chains,), begun.integrator.logdensity.dtype
        state = _State(
            integrator=begun.integrator,
            parameters=begun.parameters,
            key=begun.keys,
            energy_error=jnp.zeros(lead, dtype),
            energy_variance=jnp.zeros(lead, dtype),
            diverging=jnp.zeros(lead, bool),
        )
        return begun.chains(state, draw, record, tune)


class _State(NamedTuple):
    """What the next draw of a chain needs, and what the last one left to be recorded.

    Attributes:
        integrator: blackjax's position, momentum, log density and its gradient.
        parameters: length over which the direction is forgotten, step size, inverse mass matrix (parameter,).
        key: random key.
        energy_error: change of energy over the last draw's steps.
        energy_variance: mean over those steps of (energy change)² / dimension.
        diverging: whether one of them left the finite numbers, and was undone.
    """

    integrator: Any
    parameters: Any
    key: jax.Array
    energy_error: jax.Array
    energy_variance: jax.Array
    diverging: jax.Array


class Microcanonical:
    """Chains at draws of the prior, ready for blackjax's microcanonical kernels, and their unadjusted tuning.

    Arguments:
        what: who asks, for messages.
        chain_keys: a random key for each chain.
        model: the model as the user gave it.
        x: inputs (row, feature...).
        y: targets (row,).
        spread: the mesh that the chains and rows are divided over; None without one.

    Attributes:
        integrator: blackjax's position, momentum, log density and its gradient, every leaf (chain, ...).
        parameters: where the tuning begins: length, step size, inverse mass matrix, every leaf (chain, ...).
        keys: random keys (chain,).
        dim: parameters of the model.

    Raises:
        ValueError: the model has a single parameter: a direction in one dimension cannot turn.
    """

    def __init__(
        self, what: str, chain_keys: jax.Array, model: Model, x: jax.Array, y: jax.Array, spread: Spread | None
    ):
        from blackjax.adaptation.mclmc_adaptation import MCLMCAdaptationState
        from blackjax.mcmc.integrators import IntegratorState
        from blackjax.util import generate_unit_vector

        position_keys, momentum_keys, keys = jnp.moveaxis(jax.vmap(partial(jax.random.split, num=3))(chain_keys), 1, 0)
        if spread is not None:
            position_keys, momentum_keys, keys = spread.place_chains((position_keys, momentum_keys, keys))
        begun = start_chains(position_keys, model, x, y, spread)
        self.keys, self._start, self._spread = keys, begun, spread
        num_chains, self.dim = begun.position.shape
        if self.dim < 2:
            raise ValueError(f"{what} got a model with one parameter and needs at least two: give NUTS() or HMC()")
        momentum = jax.vmap(generate_unit_vector)(momentum_keys, begun.position)
        self.integrator = IntegratorState(begun.position, momentum, -begun.potential_energy, -begun.gradient)
        # Where blackjax's tuning starts: a length and a step that suit parameters of scale 1.
        dtype = begun.position.dtype
        self.parameters = MCLMCAdaptationState(
            jnp.full((num_chains,), math.sqrt(self.dim), dtype),
            jnp.full((num_chains,), 0.25 * math.sqrt(self.dim), dtype),
            jnp.ones((num_chains, self.dim), dtype),
        )

    def chains(
        self,
        state: Any,
        draw: Callable[[Any, jax.Array, jax.Array], Any],
        record: Callable[[Any], dict[str, Any]],
        tune: Callable[[int], Callable[[Any, jax.Array, jax.Array], Any]],
        tuning_steps: Callable[[Any], jax.Array] | None = None,
    ) -> Chains:
        """Return the chains as the driver takes them; the arguments are those of `Chains`."""
        if self._spread is not None:
            state = self._spread.place_chains(state)
        return Chains(state, draw, record, self._start.constrain, tune=tune, tuning_steps=tuning_steps)

    def log_density(self, x: jax.Array, y: jax.Array) -> Any:
        """Return the log joint as a function of the vector of unconstrained sites."""
        potential = self._start.potential(x, y)
        return lambda z: -potential(z)

    def tune(
        self,
        num_steps: int,
        integrator: Any,
        key: jax.Array,
        x: jax.Array,
        y: jax.Array,
        desired_energy_var: float,
    ) -> tuple[Any, Any]:
        """Return one chain's integrator and parameters after so many steps, at `desired_energy_var` of `MCLMC`."""
        from blackjax.adaptation.mclmc_adaptation import mclmc_find_L_and_step_size
        from blackjax.mcmc.mclmc import build_kernel

        integrator, parameters, _ = mclmc_find_L_and_step_size(
            build_kernel(),
            num_steps,
            integrator,
            key,
            self.log_density(x, y),
            # The second stage adds a third to its steps: 3/10 + 4/10 + 3/10.
            frac_tune1=0.3,
            frac_tune2=0.3,
            frac_tune3=0.3,
            desired_energy_var=desired_energy_var,
        )
        return integrator, parameters


def check_blackjax(what: str) -> None:
    """Raise ValueError where blackjax is not installed."""
    if importlib.util.find_spec("blackjax") is None:
        raise ValueError(f"{what} needs blackjax, which is not installed: pip install 'hmcvi[samplers]'")
