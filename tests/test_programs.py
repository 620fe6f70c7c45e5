"""A fit leaves no compiled program behind: a long session of equal requests stays as large as it was."""

import gc
from functools import partial

import jax
import numpy as np
import pytest

from hmcvi.inference import (
    HMC,
    MAMS,
    MAP,
    MCLMC,
    NUTS,
    SVI,
    BayesByBackprop,
    Ensemble,
    Laplace,
    convergence,
    fit,
    predict,
    to_datatree,
)
from hmcvi.inference.optimise import LEAST_ASKED
from hmcvi.models import mlp

CHAINS = {"num_warmup": 5, "num_draws": 5, "num_chains": 2}
STEPS = {"num_steps": LEAST_ASKED}

METHODS = [
    NUTS(**CHAINS, max_tree_depth=3),
    HMC(**CHAINS, max_num_steps=5),
    MCLMC(**{**CHAINS, "num_warmup": 50}),
    MAMS(**{**CHAINS, "num_warmup": 50}),
    SVI(**STEPS, num_draws=5),
    BayesByBackprop(**STEPS, num_draws=5),
    MAP(**STEPS),
    Laplace(**STEPS, num_draws=5),
    Ensemble(**STEPS, size=2),
]


@pytest.fixture
def no_collector():
    """Nothing that is held in a circle goes by itself: Python looks at old objects seldom, where there are many."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def programs():
    """How many compiled programs the process holds."""
    return len(jax.devices()[0].client.live_executables())


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_a_fit_its_predictions_and_its_tree_leave_no_program(method, no_collector):
    """JAX keeps what runs op by op, a `lax.while_loop` too, in caches: of a new closure, one program more each time."""
    random = np.random.default_rng(0)
    x = random.normal(size=(150, 3))  # more than a minibatch
    y = (x[:, 0] > 0).astype(int)
    model = partial(mlp, widths=(), num_classes=2)

    def whole(seed):
        result = fit(jax.random.key(seed), model, x, y, method, progress=False)
        predict(result, x, y)
        to_datatree(result)
        convergence(result, x, y)

    jax.clear_caches()  # of other tests' programs, which go when they please
    whole(0)
    gc.collect()
    before = programs()
    whole(1)
    assert programs() == before
