"""The layer effect: where weights meet inputs.

`dense` and `conv` draw a layer's weights at the sample sites `<name>.kernel` and `<name>.bias` and apply them. To
NUTS, SVI and every NumPyro handler that is all they do. They also send one NumPyro message of type "layer" around
the two draws, which lets a handler answer with the layer's *output* in place of its weights: Bayes-by-Backprop does
so to give each row noise of its own (local reparameterization, Flipout).
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from numpyro.primitives import apply_stack

from .ops import Conv, Dense, LinearOp
from .priors import Normal, Prior

__all__ = ["conv", "dense", "flatten", "layer"]


def dense(
    name: str,
    x: jax.Array,
    features: int,
    *,
    prior: Prior | None = None,
    use_bias: bool = True,
) -> jax.Array:
    """Affine layer x W + b with weights drawn from their prior.

    Arguments:
        name: sites are `<name>.kernel` (in, features) and `<name>.bias` (features,).
        x: inputs (row, in).
        features: number of outputs.
        prior: prior of the weights; `Normal()` (scaled by fan-in) by default. The bias has the same prior with a
            fan-in of 1.
        use_bias: whether to add b.

    Returns:
        Outputs (row, features).

    Raises:
        ValueError: x is not (row, in), or a draw does not have its prior's shape, as happens inside a plate.
    """
    if x.ndim != 2:
        raise ValueError(f"dense layer {name!r} got x of shape {x.shape}: wanted (row, feature), flatten it first")
    return layer(name, Dense(), x, (x.shape[-1], features), prior=prior, use_bias=use_bias)


def conv(
    name: str,
    x: jax.Array,
    features: int,
    *,
    kernel_size: int | tuple[int, int] = 3,
    strides: int | tuple[int, int] = 1,
    padding: str = "SAME",
    prior: Prior | None = None,
    use_bias: bool = True,
) -> jax.Array:
    """Two-dimensional convolution with weights drawn from their prior.

    Arguments:
        name: sites are `<name>.kernel` (kernel height, kernel width, channel, features), `<name>.bias` (features,).
        x: images (row, height, width, channel).
        features: number of output channels.
        kernel_size: height and width of the kernel, in pixels.
        strides: steps of the kernel, in pixels.
        padding: "SAME" or "VALID".
        prior: as in `dense`; fan-in is kernel height × kernel width × channel.
        use_bias: whether to add a bias to each output channel.

    Returns:
        Images (row, out height, out width, features).

    Raises:
        ValueError: x is not (row, height, width, channel), the image is smaller than a VALID kernel, or a draw
            does not have its prior's shape.
    """
    if x.ndim != 4:
        raise ValueError(f"conv layer {name!r} got x of shape {x.shape}: wanted (row, height, width, channel)")
    op = Conv(strides=strides, padding=padding)
    size = (kernel_size, kernel_size) if isinstance(kernel_size, int) else tuple(kernel_size)
    if padding == "VALID" and (x.shape[1] < size[0] or x.shape[2] < size[1]):
        raise ValueError(f"conv layer {name!r}: a {x.shape[1]}x{x.shape[2]} image is smaller than its {size} kernel")
    return layer(name, op, x, (*size, x.shape[-1], features), prior=prior, use_bias=use_bias)


def layer(
    name: str,
    op: LinearOp,
    x: jax.Array,
    kernel_shape: tuple[int, ...],
    *,
    prior: Prior | None = None,
    use_bias: bool = True,
) -> jax.Array:
    """Send the layer effect for any operation that is linear in its kernel; `dense` and `conv` call this.

    Arguments:
        name: the layer's name; see `dense`.
        op: maps (x, kernel) to the output without bias, linear in both.
        x: inputs (row, ..., in).
        kernel_shape: shape of the kernel, whose last axis is the output's.
        prior: as in `dense`.
        use_bias: whether to add a bias over the output's last axis.
    """
    prior = Normal() if prior is None else prior
    x = _as_floating(x)
    dtype = x.dtype
    fan_in = math.prod(kernel_shape[:-1])
    priors = {"kernel": prior.distribution(f"{name}.kernel", kernel_shape, fan_in, dtype)}
    if use_bias:
        priors["bias"] = prior.distribution(f"{name}.bias", kernel_shape[-1:], 1, dtype)
    message: dict[str, Any] = {
        "type": "layer",
        "name": name,
        "fn": lambda inputs: _draw_and_apply(name, message["op"], inputs, priors),  # which a handler may have changed
        "args": (x,),
        "kwargs": {},
        "value": None,
        "op": op,
        "priors": priors,
    }
    return apply_stack(message)["value"]


def flatten(x: jax.Array) -> jax.Array:
    """Return x (row, ...) as a floating-point (row, feature) array."""
    return _as_floating(x).reshape(x.shape[0], -1)


def _as_floating(x: jax.Array) -> jax.Array:
    """Return x as JAX holds it: NumPy's float64 becomes float32 unless x64 is enabled, integers become floats."""
    x = jnp.asarray(x)
    return x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(jnp.result_type(float))


def _draw_and_apply(name: str, op: LinearOp, x: jax.Array, priors: dict[str, dist.Distribution]) -> jax.Array:
    weights = {}
    for part, prior in priors.items():
        weights[part] = numpyro.sample(f"{name}.{part}", prior)
        if jnp.shape(weights[part]) != prior.shape():
            raise ValueError(
                f"site {name}.{part} drew shape {jnp.shape(weights[part])} where its prior has {prior.shape()}: "
                "draw weights outside the data plate"
            )
    output = op(x, weights["kernel"])
    return output + weights["bias"] if "bias" in weights else output
