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
from .microcanonical import begin, chain_keys_for, check_blackjax, first_parameters, tune_unadjusted

__all__ = ["MAMS"]


@dataclass(frozen=True)
class MAMS(Sampler):
    """Metropolis-adjusted microcanonical sampler: trajectories of constant speed, each accepted or not at its end.

    The dynamics are those of `MCLMC`, whose integrator's error the Metropolis step takes out: draws are of the
    posterior itself, as those of NUTS are. A trajectory starts in a random direction and has a random number of
    steps, uniform with mean `mean_num_steps`; each step evaluates two gradients.

    The tuning takes num_warmup steps of the unadjusted sampler, which find the posterior and its scales, and then
    num_warmup / 4 trajectories, which find the step size of acceptance `target_accept` by dual averaging.

    Arguments:
        num_warmup: steps of the unadjusted tuning of each chain.
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
