"""The models of `speed.py` as a NumPyro user writes them by hand: sites and log joint of ours, without our layers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax import lax
from numpyro import handlers
from numpyro.infer.util import potential_energy

from hmcvi.models.gp import jitter

from .peer_protocol import weights

__all__ = ["BY_HAND", "cnn_by_hand", "gp_by_hand", "log_joint_of", "mlp_by_hand", "normal_prior"]

PRIOR_SCALE = 3.0
"""That of `hmcvi.models.Normal`, over the root of the fan-in."""

ADDRESSES = ("net/", "net.")
"""What NumPyro puts before the names of a Flax module's sites."""


def normal_prior(name: str, shape: tuple[int, ...]) -> dist.Distribution:
    """Return the prior that our layers have: Normal(0, (3 / √fan-in)²), the fan-in of a bias being 1."""
    fan_in = math.prod(shape[:-1])
    return dist.Normal(jnp.zeros(shape), PRIOR_SCALE / fan_in**0.5).to_event(len(shape))


def mlp_by_hand(
    x: jax.Array,
    y: jax.Array | None = None,
    *,
    widths: Sequence[int] = (16,),
    likelihood: str = "categorical",
    num_classes: int = 10,
) -> None:
    """Draw and observe as `hmcvi.models.mlp` does with tanh."""

    def layer(name: str, hidden: jax.Array, width: int) -> jax.Array:
        kernel = numpyro.sample(f"{name}.kernel", normal_prior("", (hidden.shape[1], width)))
        return hidden @ kernel + numpyro.sample(f"{name}.bias", normal_prior("", (width,)))

    hidden = x.reshape(len(x), -1)
    for i, width in enumerate(widths):
        hidden = jnp.tanh(layer(f"hidden_{i}", hidden, width))
    if likelihood == "categorical":
        numpyro.sample("y", dist.Categorical(logits=layer("out", hidden, num_classes)), obs=y)
    else:
        outputs = layer("out", hidden, 1)
        numpyro.sample("y", dist.Normal(outputs[:, 0], numpyro.sample("noise_scale", dist.HalfNormal())), obs=y)


def cnn_by_hand(
    x: jax.Array, y: jax.Array, *, channels: Sequence[int], kernel_size: int, width: int, num_classes: int
) -> None:
    """Draw and observe as `hmcvi.models.cnn` does, by `jax.lax`."""

    def drawn(name: str, shape: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
        kernel = numpyro.sample(f"{name}.kernel", normal_prior("", shape))
        return kernel, numpyro.sample(f"{name}.bias", normal_prior("", shape[-1:]))

    hidden = x
    for i, number in enumerate(channels):
        kernel, bias = drawn(f"conv_{i}", (kernel_size, kernel_size, hidden.shape[-1], number))
        hidden = lax.conv_general_dilated(hidden, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        hidden = jax.nn.relu(hidden + bias)
        hidden = lax.reduce_window(hidden, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    hidden = hidden.reshape(len(x), -1)
    kernel, bias = drawn("hidden_0", (hidden.shape[1], width))
    kernel_out, bias_out = drawn("out", (width, num_classes))
    outputs = jax.nn.relu(hidden @ kernel + bias) @ kernel_out + bias_out
    numpyro.sample("y", dist.Categorical(logits=outputs), obs=y)


def gp_by_hand(x: jax.Array, y: jax.Array | None = None, *, likelihood: str = "normal") -> None:
    """Draw and observe as `hmcvi.models.gp` does in regression with Matérn 5/2."""
    rows, features = x.shape
    lengthscale = numpyro.sample(
        "lengthscale", dist.LogNormal(jnp.full(features, math.log(features) / 2), 1).to_event(1)
    )
    amplitude = numpyro.sample("amplitude", dist.LogNormal())
    noise_scale = numpyro.sample("noise_scale", dist.HalfNormal())
    z = x / lengthscale
    squared = (z**2).sum(1)[:, None] + (z**2).sum(1)[None] - 2 * z @ z.T
    r = jnp.sqrt(5 * jnp.maximum(squared, 1e-12))  # the root has no gradient at 0
    correlation = (1 + r + r**2 / 3) * jnp.exp(-r) + jitter(rows, x.dtype) * jnp.eye(rows)
    covariance = amplitude**2 * correlation + noise_scale**2 * jnp.eye(rows)
    numpyro.sample("y", dist.MultivariateNormal(jnp.zeros(rows), covariance), obs=y)


BY_HAND: dict[str, Callable[..., None]] = {"mlp": mlp_by_hand, "gp": gp_by_hand}
"""Models that take the options of ours of that name."""


def log_joint_of(
    model: Callable[..., Any], x: jax.Array, y: jax.Array
) -> tuple[Callable[..., jax.Array], dict[str, jax.Array]]:
    """Return (sites, x, y) -> log joint, and the weights that every contestant begins with, by the model's sites."""

    def log_joint(z: Mapping[str, jax.Array], x: jax.Array, y: jax.Array) -> jax.Array:
        return -potential_energy(handlers.seed(model, jax.random.key(0)), (x, y), {}, z)

    trace = handlers.trace(handlers.seed(model, jax.random.key(0))).get_trace(x, y)
    shapes = {name: site["value"].shape for name, site in trace.items() if _is_latent(site)}
    shared = weights({plain(name): shape for name, shape in shapes.items()})
    return log_joint, {name: jnp.asarray(shared[plain(name)]) for name in shapes}


def plain(name: str) -> str:
    """Return a site's name as our models have it."""
    for address in ADDRESSES:
        name = name.removeprefix(address)
    return name


def _is_latent(site: Mapping[str, Any]) -> bool:
    return site["type"] == "sample" and not site["is_observed"]
