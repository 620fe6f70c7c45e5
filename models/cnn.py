"""The Bayesian convolutional network."""

from __future__ import annotations

from collections.abc import Sequence

import jax

from .layers import conv, dense, flatten
from .likelihoods import Activation, activation_function, observe, output_width
from .ops import max_pool
from .priors import Prior

__all__ = ["cnn"]


def cnn(
    x: jax.Array,
    y: jax.Array | None = None,
    *,
    channels: Sequence[int] = (8, 16),
    kernel_size: int = 3,
    pool: int | Sequence[int] = 2,
    widths: Sequence[int] = (32,),
    activation: Activation = "relu",
    likelihood: str = "categorical",
    num_classes: int = 10,
    prior: Prior | None = None,
    num_rows: int | None = None,
) -> jax.Array:
    """Bayesian convolutional network, a NumPyro model function.

    One block for each entry of `channels`: convolution (SAME padding), activation, maximum over pool × pool
    windows. Then dense layers as in `mlp`. The defaults fit 8×8 digits, 28×28×1 and 32×32×3 images alike.

    Sites: `conv_<i>.kernel` (kernel_size, kernel_size, in, out), `conv_<i>.bias`, then those of `mlp`.

    Arguments:
        x: images (row, height, width, channel), scaled to about unit size.
        y: labels or targets (row,), or None to draw them.
        channels: output channels of each block.
        kernel_size: side of every convolution kernel, in pixels.
        pool: side of every pooling window, in pixels, or one for each block; 1 does not pool.
        widths: units of each dense hidden layer.
        activation: as in `mlp`.
        likelihood: "categorical" or "normal".
        num_classes: number of classes; ignored in regression.
        prior: as in `mlp`.
        num_rows: rows of the whole data set where x is a minibatch.

    Returns:
        y as observed or drawn (row,).

    Raises:
        ValueError: x is not images, `pool` has not one entry for each block, pooling leaves no pixel, a name is
            unknown, or y is bad as in `mlp`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from numpyro import handlers
        >>> from hmcvi.models import cnn
        >>> trace = handlers.trace(handlers.seed(cnn, jax.random.key(0))).get_trace(jnp.ones((2, 8, 8, 1)))
        >>> trace["conv_1.kernel"]["value"].shape
        (3, 3, 8, 16)
    """
    if x.ndim != 4:
        raise ValueError(f"cnn got x of shape {x.shape}: wanted images (row, height, width, channel)")
    pools = [pool] * len(channels) if isinstance(pool, int) else list(pool)
    if len(pools) != len(channels):
        raise ValueError(f"cnn got pool={pool!r} for {len(channels)} blocks: give one number, or one for each block")
    activate = activation_function(activation)
    features = output_width(likelihood, num_classes)
    hidden = x
    for i, (width, size) in enumerate(zip(channels, pools, strict=True)):
        hidden = activate(conv(f"conv_{i}", hidden, width, kernel_size=kernel_size, prior=prior))
        hidden = max_pool(hidden, size)
    hidden = flatten(hidden)
    for i, width in enumerate(widths):
        hidden = activate(dense(f"hidden_{i}", hidden, width, prior=prior))
    outputs = dense("out", hidden, features, prior=prior)
    return observe(outputs, y, likelihood=likelihood, num_rows=num_rows, num_classes=num_classes)
