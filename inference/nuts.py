"""Hamiltonian Monte Carlo with trajectories that end where they turn: NumPyro's NUTS kernel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import lax

from .base import Model
from .chains import Chains, Sampler
from .hmc import check_target_accept, hamiltonian_chains, record
from .spread import Spread

__all__ = ["NUTS"]


@dataclass(frozen=True)
class NUTS(Sampler):
    """The No-U-Turn Sampler with dual averaging and a diagonal (or dense) adapted mass matrix.

    One program is compiled for warm-up and sampling together and run in chunks. Chains start from draws of the
    prior.

    Arguments:
        num_warmup, num_draws, num_chains, chain_method, max_passes, max_seconds: see `hmcvi.inference.chains.Sampler`.
        target_accept: target of the mean acceptance probability.
        max_tree_depth: a trajectory takes at most 2^max_tree_depth − 1 gradient evaluations.
        dense_mass: adapt a dense mass matrix.

    Source: Hoffman & Gelman (2014), with the iterative tree of Phan, Pradhan & Jankowiak (2019), in NumPyro.
    """

    COUNTS: ClassVar[tuple[str, ...]] = (*Sampler.COUNTS, "max_tree_depth")

    num_warmup: int = 500
    num_draws: int = 500
    num_chains: int = 4
    target_accept: float = 0.8
    max_tree_depth: int = 10
    dense_mass: bool = False
    chain_method: str = "auto"
    max_passes: float | None = None
    max_seconds: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_target_accept("NUTS", self.target_accept)

    @property
    def name(self) -> str:
        """Short name for tables and figures."""
        return "nuts"

    def start(
        self, chain_keys: jax.Array, model: Model, x: jax.Array, y: jax.Array, spread: Spread | None = None
    ) -> Chains:
        """Return the chains at draws of the prior, and how to advance them."""
        options = {
            "trajectory_length": None,
            "target_accept_prob": self.target_accept,
            "max_tree_depth": self.max_tree_depth,
            "dense_mass": self.dense_mass,
        }
        return hamiltonian_chains("NUTS", options, model, self.num_warmup, chain_keys, x, y, _record, spread=spread)


def _record(state: Any) -> dict[str, Any]:
    # Doublings that were accepted, as Stan counts them: a tree of them has 2^depth − 1 steps.
    return record(state) | {"tree_depth": 31 - lax.clz((state.num_steps + 1).astype(jnp.int32))}
