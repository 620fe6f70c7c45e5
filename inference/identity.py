"""What the bytes of a fit depend on: request, data, model, versions and device."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from numpyro import handlers

from .base import Method, Model, as_floats
from .describe import describe
from .durable import sha256_of
from .provenance import made_with
from .spread import Spread

__all__ = ["identity_of"]


def identity_of(
    key: jax.Array, model: Model, x: jax.Array, y: jax.Array, method: Method, spread: Spread | None = None
) -> dict[str, Any]:
    """Return all that the bytes of a fit depend on, as plain data."""
    data = {
        name: f"{array.dtype} {array.shape} {sha256_of(np.ascontiguousarray(array).data)}"
        for name, array in (("x", np.asarray(x)), ("y", np.asarray(y)))
    }
    if spread is not None:  # of all rows, not of those that this process has
        data = {"rows": f"{spread.num_rows} {spread.digest}"}
        x, y = spread.head
    return {
        # first, as the hash of the rows is by the parts that they are divided into
        **({} if spread is None else {"mesh": spread.layout()}),
        "method": describe(method),
        "data": data,
        "key": [*np.asarray(jax.random.key_data(key)).tolist(), str(jax.random.key_impl(key))],
        "model": {"function": describe(model), "program": _program(model, x, y)},
        **made_with(),
        "number of devices": jax.local_device_count(),
    }


def _program(model: Model, x: jax.Array, y: jax.Array) -> str:
    """Return a hash of what the model computes: it changes with its code and with the functions that this calls."""

    def run(key: jax.Array, x: jax.Array, y: jax.Array) -> Any:
        trace = handlers.trace(handlers.seed(model, key)).get_trace(as_floats(x), y)
        sampled = [site for site in trace.values() if site["type"] == "sample"]
        return [(site["value"], site["fn"].log_prob(site["value"]), site["scale"]) for site in sampled]

    # with the numbers that the model and what it calls hold on to
    return sha256_of(jax.jit(run).lower(jax.random.key(0), x, y).as_text().encode())
