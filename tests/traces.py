"""Toy data, and the traces of a model on them."""

import jax
import jax.numpy as jnp
import numpy as np
from numpyro import handlers

KEY = jax.random.key(0)
ROWS, FEATURES, CLASSES = 6, 4, 3


def data(likelihood="categorical", shape=(FEATURES,)):
    """Inputs and targets of ROWS rows, in double precision where that is on."""
    rng = np.random.default_rng(0)
    x, y = jnp.asarray(rng.normal(size=(ROWS, *shape)).tolist()), jnp.asarray(rng.normal(size=ROWS).tolist())
    return x, (y if likelihood == "normal" else jnp.arange(ROWS) % CLASSES)


def trace(model, *args, key=KEY, **kwargs):
    return handlers.trace(handlers.seed(model, key)).get_trace(*args, **kwargs)


def shapes(model, *args, **kwargs):
    """Shape of every sample site by name; nothing is computed."""

    def sites():
        found = trace(model, *args, **kwargs)
        return {name: site["value"] for name, site in found.items() if site["type"] == "sample"}

    return {name: value.shape for name, value in jax.eval_shape(sites).items()}


def sample_sites(sites):
    return {name for name, site in sites.items() if site["type"] == "sample"}
