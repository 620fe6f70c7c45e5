"""Microcanonical sampling with a Metropolis step: blackjax's adjusted kernel and tuning, an optional extra."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from .base import Model
from .chains import LEAST_TUNING, Chains, Sampler
from .hmc import check_target_accept
from .microcanonical import Microcanonical, check_blackjax
from .spread import Spread

__all__ = ["MAMS"]


@dataclass(frozen=True)
class MAMS(Sampler):
    """Metropolis-adjusted microcanonical sampler: trajectories of constant speed, each accepted or not at its end.

    The dynamics are those of `MCLMC`, whose integrator's error the Metropolis step takes out: draws are of the
    posterior itself, as those of NUTS are. A trajectory starts in a random direction and has a random number of
    steps, uniform with mean `mean_num_steps`; each step evaluates two gradients.

    The tuning spends half of num_warmup steps on the unadjusted sampler, which finds the posterior and its scales, and
    half on trajectories, whose dual averaging aims at acceptance `target_accept`. They are few and begin with the
    unadjusted sampler's step size, so that the acceptance ends above its target: of 30 correlated coefficients, after
    4,000 steps, at 0.965 for 0.9 and at 0.81 for 0.6. What that costs is efficiency: draws are right at any step size.

    Arguments:
        num_warmup: tuning steps of each chain (the lengths of trajectories are random: on average).
        num_draws: draws kept of each chain.
        num_chains: independent chains.
        thinning: trajectories for each draw that is kept.
        mean_num_steps: steps of a trajectory, on average; above 1.
        target_accept: target of the mean acceptance probability.
        chain_method, max_passes, max_seconds: see `hmcvi.inference.chains.Sampler`.

    Raises:
        ValueError: blackjax is not installed, or a number makes no sense.

    Source: Robnik, Cohn-Gordon & Seljak (2025), Metropolis Adjusted Microcanonical Hamiltonian Monte Carlo; blackjax.
    """

    COUNTS: ClassVar[tuple[str, ...]] = (*Sampler.COUNTS, "thinning")
    GRADIENTS_PER_STEP: ClassVar[int] = 2
    RECORDED_WARMUP: ClassVar[float] = 0.3
    """Share of the warm-up whose positions are in memory at once."""

    UNADJUSTED: ClassVar[float] = 0.5
    """Share of the warm-up that the unadjusted sampler takes."""

    ENERGY_VARIANCE: ClassVar[float] = 5e-4
    """Var[energy change of a step] / dimension that the unadjusted tuning holds: see `MCLMC`."""

    num_warmup: int = 4000
    num_draws: int = 500
    num_chains: int = 4
    thinning: int = 2
    mean_num_steps: float = 10.0
    target_accept: float = 0.9
    chain_method: str = "auto"
    max_passes: float | None = None
    max_seconds: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_target_accept("MAMS", self.target_accept)
        if not (math.isfinite(self.mean_num_steps) and self.mean_num_steps > 1):
            raise ValueError(f"MAMS got mean_num_steps={self.mean_num_steps}: give a number above 1")
        check_blackjax("MAMS")

    @property
    def name(self) -> str:
        """Short name for tables and figures."""
        return "mams"

    def start(
        self, chain_keys: jax.Array, model: Model, x: jax.Array, y: jax.Array, spread: Spread | None = None
    ) -> Chains:
        """Return the chains at draws of the prior, and how to tune and advance them.

        Raises:
            ValueError: the model has a single parameter: a direction in one dimension cannot turn.
        """
        from blackjax.adaptation.adjusted_mclmc_adaptation import adjusted_mclmc_find_L_and_step_size
        from blackjax.mcmc import adjusted_mclmc_dynamic
        from blackjax.mcmc.dynamic_hmc import DynamicHMCState
        from blackjax.mcmc.integrators import IntegratorState

        begun = Microcanonical("MAMS", chain_keys, model, x, y, spread)
        make_length = adjusted_mclmc_dynamic.make_random_trajectory_length_fn(True)
        adjusted = adjusted_mclmc_dynamic.build_kernel(integration_steps_fn=make_length)

        def trajectory_kernel(
            key: jax.Array, place: Any, log_density: Any, step_size: jax.Array, inverse_mass_matrix: jax.Array
        ) -> Any:  # infinite: no noise turns a trajectory on its way
            mean_length = (self.mean_num_steps,)
            return adjusted(key, place, log_density, step_size, jnp.inf, inverse_mass_matrix, mean_length)

        def of_drawn_length(
            rng_key: jax.Array,
            state: Any,
            logdensity_fn: Any,
            step_size: jax.Array,
            inverse_mass_matrix: jax.Array,
            integration_steps_params: tuple[Any, ...],
        ) -> Any:  # with these names the tuning calls it, at a length of its own, which draws would not have
            return trajectory_kernel(rng_key, state, logdensity_fn, step_size, inverse_mass_matrix)

        def tune(num_steps: int) -> Any:
            unadjusted = max(LEAST_TUNING, int(self.UNADJUSTED * num_steps))
            trajectories = max(LEAST_TUNING, int((num_steps - unadjusted) / self.mean_num_steps))

            def tuned(state: _State, x: jax.Array, y: jax.Array) -> _State:
                key, key_unadjusted, key_adjusted = jax.random.split(state.key, 3)
                place = state.place
                integrator = IntegratorState(place.position, state.momentum, place.logdensity, place.logdensity_grad)
                integrator, parameters = begun.tune(unadjusted, integrator, key_unadjusted, x, y, self.ENERGY_VARIANCE)
                place = place._replace(
                    position=integrator.position,
                    logdensity=integrator.logdensity,
                    logdensity_grad=integrator.logdensity_grad,
                )
                place, parameters, steps = adjusted_mclmc_find_L_and_step_size(
                    of_drawn_length,
                    begun.log_density(x, y),
                    trajectories,
                    place,
                    key_adjusted,
                    self.target_accept,
                    frac_tune1=1.0,
                    frac_tune2=0.0,  # the scales stay as they were found
                    params=parameters,
                    target_num_integration_steps=self.mean_num_steps,
                )
                return state._replace(
                    place=place,
                    step_size=parameters.step_size,
                    inverse_mass_matrix=parameters.inverse_mass_matrix,
                    key=key,
                    num_steps=(unadjusted + steps).astype(state.num_steps.dtype),
                )

            return tuned

        def draw(state: _State, x: jax.Array, y: jax.Array) -> _State:
            key, key_trajectories = jax.random.split(state.key)

            def trajectory(place: Any, key: jax.Array) -> Any:
                density = begun.log_density(x, y)
                place, info = trajectory_kernel(key, place, density, state.step_size, state.inverse_mass_matrix)
                return place, (info.num_integration_steps, info.acceptance_rate, info.is_divergent)

            keys = jax.random.split(key_trajectories, self.thinning)
            place, (num_steps, acceptance_rate, diverging) = lax.scan(trajectory, state.place, keys)
            return state._replace(
                place=place,
                key=key,
                num_steps=num_steps.sum().astype(state.num_steps.dtype),
                acceptance_rate=acceptance_rate.mean(),
                diverging=diverging.any(),
            )

        def record(state: _State) -> dict[str, Any]:
            return {
                "z": state.place.position,
                "lp": state.place.logdensity,
                "n_steps": state.num_steps,
                "step_size": state.step_size,
                "acceptance_rate": state.acceptance_rate,
                "diverging": state.diverging,
            }

        integrator, lead = begun.integrator, (self.num_chains,)
        keys, length_keys = jnp.moveaxis(jax.vmap(jax.random.split)(begun.keys), 1, 0)
        state = _State(
            place=DynamicHMCState(integrator.position, integrator.logdensity, integrator.logdensity_grad, length_keys),
            momentum=integrator.momentum,
            step_size=begun.parameters.step_size,
            inverse_mass_matrix=begun.parameters.inverse_mass_matrix,
            key=keys,
            num_steps=jnp.zeros(lead, jnp.int32),
            acceptance_rate=jnp.zeros(lead, integrator.logdensity.dtype),
            diverging=jnp.zeros(lead, bool),
        )
        return begun.chains(state, draw, record, tune, lambda state: state.num_steps)


class _State(NamedTuple):
    """What the next draw of a chain needs, and what the last one left to be recorded.

    Attributes:
        place: blackjax's position, log density and its gradient, and the key of a trajectory's length.
        momentum: the direction in which the tuning begins.
        step_size: of the integrator.
        inverse_mass_matrix: (parameter,).
        key: random key.
        num_steps: steps of the last draw's trajectories, or of the tuning.
        acceptance_rate: mean of those trajectories' acceptance probabilities.
        diverging: whether one of them left the finite numbers.
    """

    place: Any
    momentum: Any
    step_size: jax.Array
    inverse_mass_matrix: jax.Array
    key: jax.Array
    num_steps: jax.Array
    acceptance_rate: jax.Array
    diverging: jax.Array
