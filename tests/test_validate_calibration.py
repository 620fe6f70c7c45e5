"""Simulation-based calibration of NUTS on every model of the package; `tests/simulated.py` says what that is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hmcvi.inference import NUTS
from hmcvi.inference.base import Model
from hmcvi.models import Normal, cnn, gp, mlp

from .simulated import Quantities, nuts_ranks, uniformity, values_at

CHECK = "Simulation-based calibration"
NUM_SIMULATIONS = 500

RANDOM = np.random.default_rng(0)
TABLE = jnp.asarray(RANDOM.normal(size=(12, 2)), jnp.float32)
IMAGES = jnp.asarray(RANDOM.normal(size=(8, 4, 4, 1)), jnp.float32)
LINE = jnp.linspace(-1.5, 1.5, 9)[:, None]


def log_likelihood(model: Model, sites: Mapping[str, jax.Array], x: jax.Array, y: jax.Array) -> jax.Array:
    return values_at(model, sites, x, y)["y"]["fn"].log_prob(y).sum()


def of_classifier(model: Model, weights: tuple[str, ...]) -> Quantities:
    """The log likelihood, how much likelier class 0 is than 1 at a further input, and single weights."""

    def quantities(sites: Mapping[str, jax.Array], x: jax.Array, y: jax.Array) -> dict[str, jax.Array]:
        logits = values_at(model, sites, -x[:1] / 2, None)["y"]["fn"].logits[0]
        found = {"log likelihood": log_likelihood(model, sites, x, y), "logit at a new input": logits[0] - logits[1]}
        return found | {name: sites[name].ravel()[0] for name in weights}

    return quantities


def of_regression(model: Model, weights: tuple[str, ...]) -> Quantities:
    """The log likelihood, the mean at a further input, the noise, and single weights."""

    def quantities(sites: Mapping[str, jax.Array], x: jax.Array, y: jax.Array) -> dict[str, jax.Array]:
        mean = values_at(model, sites, -x[:1] / 2, None)["y"]["fn"].loc[0]
        found = {"log likelihood": log_likelihood(model, sites, x, y), "mean at a new input": mean}
        return found | {name: sites[name].ravel()[0] for name in ("noise_scale", *weights)}

    return quantities


def of_process(model: Model, sites_of: tuple[str, ...]) -> Quantities:
    """The log likelihood, all hyperparameters, and what is predicted at a further input or, of labels, the function."""

    def quantities(sites: Mapping[str, jax.Array], x: jax.Array, y: jax.Array) -> dict[str, jax.Array]:
        found = {name: sites[name].ravel()[0] for name in sites_of}
        found["log likelihood"] = log_likelihood(model, sites, x, y)
        if "noise_scale" in sites:
            predicted = values_at(model, sites, x, y, x_new=x[:1] - 0.2)["y_new"]["fn"]
            return found | {"mean at a new input": predicted.loc[0], "sd at a new input": predicted.scale[0]}
        logits = values_at(model, sites, x, y)["y"]["fn"].logits[3]
        return found | {"function at an input": logits[1] - logits[0]}

    return quantities


@dataclass(frozen=True, eq=False)
class Case:
    """A model at a small size.

    Attributes:
        model: the model function.
        x: inputs (row, feature...).
        quantities: what is ranked.
        thin: draws of which one is ranked among.
        sampler: hyperparameters of NUTS.
    """

    model: Model
    x: jax.Array
    quantities: Quantities
    thin: int = 4
    sampler: Mapping[str, Any] = field(default_factory=dict)


def case(function: Model, x: jax.Array, of: Any, sites: tuple[str, ...], options: Any, **settings: Any) -> Case:
    model = partial(function, **options)
    return Case(model, x, of(model, sites), **settings)


PRIOR = {"prior": Normal(1.0)}
KERNELS = ("hidden_0.kernel", "out.kernel", "out.bias")
CASES = {
    "mlp, classification": case(mlp, TABLE, of_classifier, KERNELS, {"widths": (3,), "num_classes": 3, **PRIOR}),
    "mlp, regression": case(mlp, TABLE, of_regression, KERNELS, {"widths": (3,), "likelihood": "normal", **PRIOR}),
    "cnn, classification": case(
        cnn,
        IMAGES,
        of_classifier,
        ("conv_0.kernel", "conv_0.bias", "out.kernel"),
        {"channels": (2,), "widths": (), "num_classes": 2, "activation": "tanh", **PRIOR},
    ),
    "gp, regression": case(
        gp,
        LINE,
        of_process,
        ("lengthscale", "amplitude", "noise_scale"),
        {},
        thin=8,
        sampler={"target_accept": 0.95},
    ),
    "gp, classification": case(
        gp, LINE, of_process, ("lengthscale", "amplitude", "latent"), {"likelihood": "categorical", "num_classes": 2}
    ),
}

NUM_QUANTITIES = 27
"""Numbers judged in all: each may fail one seed in 2,700, so that all pass with 99 seeds of 100."""


def test_simulations_are_one_program() -> None:
    """Two of them: the validation, which takes minutes, is no place to find out that they no longer compile."""
    it = CASES["mlp, regression"]
    small = NUTS(num_warmup=5, max_tree_depth=2)
    found = nuts_ranks(jax.random.key(0), it.model, it.x, it.quantities, num_simulations=2, thin=1, method=small)
    assert all(ranks.ranks.shape == (2,) for ranks in found.values())


@pytest.mark.validate
@pytest.mark.parametrize("name", CASES)
def test_ranks_of_nuts_are_uniform(name, record) -> None:
    it = CASES[name]
    found = nuts_ranks(
        jax.random.key(1),
        it.model,
        it.x,
        it.quantities,
        num_simulations=NUM_SIMULATIONS,
        thin=it.thin,
        method=NUTS(num_warmup=300, max_tree_depth=7, **it.sampler),
    )
    for what, ranks in found.items():
        record(CHECK, f"{name}, nuts, {what}: p-value", uniformity(ranks.ranks), low=0.01 / NUM_QUANTITIES)
        record(CHECK, f"{name}, nuts, {what}: autocorrelation of the draws", ranks.autocorrelation, high=0.1)
