"""Where chains begin, and the log joint as their kernels take it: a function of one vector."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax.flatten_util import ravel_pytree
from numpyro import handlers
from numpyro.infer import init_to_sample
from numpyro.infer.util import constrain_fn, initialize_model

from .base import Model
from .spread import Spread
from .start import all_finite, run_once

__all__ = ["ChainStart", "start_chains"]


class ChainStart(NamedTuple):
    """Chains at draws of the prior, in the unconstrained space, whose sites lie end to end in one vector.

    A kernel works on its position, momentum and mass matrix at each step. On one array that takes a program a few
    operations, on an array a site some for each: with a network of 194 parameters, a sixth of NUTS' time and a fifth of
    MCLMC's on two cores.

    Attributes:
        position: (chain, parameter).
        potential_energy: minus the log joint there (chain,).
        gradient: of the potential energy (chain, parameter).
        potential: (x, y) -> a function from a vector (parameter,) to its potential energy; over a mesh, within a
            program there.
        constrain: (x, y) -> a function from a vector (parameter,) to the sites' values, constrained.
    """

    position: jax.Array
    potential_energy: jax.Array
    gradient: jax.Array
    potential: Callable[[jax.Array, Any], Callable[[jax.Array], jax.Array]]
    constrain: Callable[[jax.Array, Any], Callable[[jax.Array], dict[str, jax.Array]]]


def start_chains(
    chain_keys: jax.Array, model: Model, x: jax.Array, y: jax.Array, spread: Spread | None = None
) -> ChainStart:
    """Draw each chain's position from the prior.

    Arguments:
        chain_keys: a random key for each chain; over a mesh they are placed there.
        model: the model as the user gave it.
        x: inputs (row, feature...).
        y: targets (row,).
        spread: the mesh that the chains and rows are divided over; None without one.

    Raises:
        RuntimeError: no draw of a chain had a finite log joint and gradient.
    """
    whole = model if spread is None else spread.of_all_rows(model)
    found: list[Any] = []  # functions, which hold on to nothing of the program that they are made in

    def begin(keys: jax.Array, x: jax.Array, y: Any) -> Any:
        options = {"init_strategy": init_to_sample, "dynamic_args": True, "model_args": (x, y)}
        info = initialize_model(keys, whole, **options)
        position, potential_energy, gradient = info.param_info
        found.append((info.potential_fn, ravel_pytree(jax.tree.map(lambda leaf: leaf[0], position))[1]))
        flat = jax.vmap(lambda sites: ravel_pytree(sites)[0])
        return flat(position), potential_energy, flat(gradient)

    program = begin if spread is None else spread.over_chains(begin)
    position, potential_energy, gradient = run_once(program, chain_keys, x, y)
    if not all_finite(potential_energy, gradient):
        if spread is None:
            begin(chain_keys, x, y)  # op by op, NumPyro says what is wrong
        raise RuntimeError("Cannot find valid initial parameters")  # as NumPyro says it
    potential_of_sites, sites_of = found[0]
    seeded = handlers.seed(model, jax.random.key(0))

    def potential(x: jax.Array, y: Any) -> Callable[[jax.Array], jax.Array]:
        of_sites = potential_of_sites(x, y)
        return lambda vector: of_sites(sites_of(vector))

    def constrain(x: jax.Array, y: Any) -> Callable[[jax.Array], dict[str, jax.Array]]:
        # by the model as it was given: after sampling, and so in no program over a mesh
        return lambda vector: constrain_fn(seeded, (x, y), {}, sites_of(vector))

    return ChainStart(position, potential_energy, gradient, potential, constrain)
