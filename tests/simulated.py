"""Simulation-based calibration: ranks of true values among posterior draws, over many data sets of one program.

Where θ is drawn from the prior and y from the model, θ and a draw from p(θ | y) have the same distribution, so that the
rank of any scalar f(θ, y) among L independent posterior draws is uniform on 0, ..., L. Source: Talts et al. (2018),
Validating Bayesian Inference Algorithms with Simulation-Based Calibration, theorem 1; of functions of the data too:
Modrák et al. (2023), Simulation-Based Calibration Checking for Bayesian Computation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax import lax
from numpyro import handlers
from scipy import stats

from hmcvi.inference import NUTS
from hmcvi.inference.base import Model

__all__ = ["NUM_DRAWS", "Quantities", "Ranks", "nuts_ranks", "uniformity", "values_at"]

NUM_DRAWS = 63
"""Draws that a true value is ranked among: 64 ranks, in bins of equally many."""

NUM_BINS = 16

Quantities = Callable[[Mapping[str, jax.Array], jax.Array, jax.Array], dict[str, jax.Array]]
"""(values by site, x, y) -> scalars by name."""


@dataclass(frozen=True, eq=False)
class Ranks:
    """Ranks of one quantity.

    Attributes:
        ranks: number of draws below the true value (simulation,).
        autocorrelation: of neighbouring draws, all simulations together: the draws are to be independent.
        divergences: share of divergent draws.
    """

    ranks: np.ndarray
    autocorrelation: float
    divergences: float


def uniformity(ranks: np.ndarray) -> float:
    """Return the p-value of ranks from 0 to NUM_DRAWS being uniform, by Pearson's χ² on equal bins."""
    counts = np.histogram(ranks, bins=NUM_BINS, range=(0, NUM_DRAWS + 1))[0]
    return float(stats.chisquare(counts).pvalue)


def values_at(model: Model, sites: Mapping[str, jax.Array], x: jax.Array, y: jax.Array | None, **options: Any) -> Any:
    """Return the model's trace at these values of its sites."""
    conditioned = handlers.substitute(handlers.seed(model, jax.random.key(0)), data=dict(sites))
    return handlers.trace(conditioned).get_trace(x, y, **options)


def nuts_ranks(
    key: jax.Array,
    model: Model,
    x: jax.Array,
    quantities: Quantities,
    *,
    num_simulations: int,
    thin: int,
    method: NUTS,
) -> dict[str, Ranks]:
    """Return the ranks of every quantity: one chain for each simulated data set, all of them in one compiled program.

    Arguments:
        key: random key.
        model: the model function.
        x: inputs (row, feature...), the same in all simulations.
        quantities: what is ranked.
        num_simulations: data sets.
        thin: draws of which one is kept.
        method: the sampler; how many draws and chains it would take is not read.
    """

    def one(key: jax.Array) -> Any:
        key_prior, key_chain = jax.random.split(key)
        trace = handlers.trace(handlers.seed(model, key_prior)).get_trace(x)
        truth = {name: site["value"] for name, site in trace.items() if site["type"] == "sample" and name != "y"}
        y = trace["y"]["value"]
        chains = method.start(jax.random.split(key_chain, 1), model, x, y)
        state = jax.tree.map(lambda leaf: leaf[0], chains.state)
        state = lax.fori_loop(0, chains.num_warmup, lambda _, state: chains.draw(state, x, y), state)
        constrain = chains.constrain(x, y)

        def kept(state: Any, _: Any) -> Any:
            def draw(carry: Any, _: Any) -> Any:
                state = chains.draw(carry, x, y)
                return state, chains.record(state)["diverging"]

            state, diverging = lax.scan(draw, state, length=thin)
            record = chains.record(state)
            return state, (quantities(constrain(record["z"]), x, y), diverging.mean())

        _, (draws, diverging) = lax.scan(kept, state, length=NUM_DRAWS)
        return quantities(truth, x, y), draws, diverging.mean()

    program = jax.jit(lambda keys: lax.map(one, keys))
    truth, draws, diverging = jax.tree.map(np.asarray, program(jax.random.split(key, num_simulations)))
    return {
        name: Ranks(ranks_of(truth[name], draws[name]), _autocorrelation(draws[name]), float(diverging.mean()))
        for name in truth
    }


def ranks_of(truth: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Return how many draws (simulation, draw) lie below the truth (simulation,)."""
    return (draws < truth[:, None]).sum(1)


def _autocorrelation(draws: np.ndarray) -> float:
    """Correlation of neighbouring draws (simulation, draw), about each simulation's mean, in sds of its draws."""
    centred = draws - draws.mean(1, keepdims=True)
    centred /= draws.std(1, keepdims=True)
    return float((centred[:, 1:] * centred[:, :-1]).mean())
