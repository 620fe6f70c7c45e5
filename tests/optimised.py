"""A conjugate regression to optimise, and the methods that do it."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hmcvi.inference import MAP, SVI, BayesByBackprop, Fit
from hmcvi.models import mlp

from .targets import conjugate_regression, linear_regression

TARGET = conjugate_regression()
X, Y = TARGET.x.astype(np.float32), TARGET.y.astype(np.float32)
ROWS = len(X)
KEY = jax.random.key(0)

METHODS = {"map": MAP, "svi": partial(SVI, num_draws=2), "bbb": partial(BayesByBackprop, num_draws=2)}

LINEAR = partial(mlp, widths=(), likelihood="normal")
"""A kernel, a bias and a positive noise scale."""

every_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)

STAY = {"num_steps": 1, "learning_rate": 1e-300}
"""One step of no length: float32 rounds the rate to 0, and the means stay where they started."""


def point(value, model=linear_regression, x=X, y=Y, site="out.kernel"):
    """A fit whose mean is this value, made without fitting."""
    location = {site: jnp.asarray(value, jnp.float32)}
    draws = {name: mean[None, None] for name, mean in location.items()}
    return Fit(model, MAP(), jnp.asarray(x), jnp.asarray(y), KEY, draws, 0, len(x), 0.0, location=location)
