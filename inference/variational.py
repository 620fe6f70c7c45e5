"""Mean-field Gaussian layers for Flax NNX: weights that are Normal, and outputs drawn by one of three estimators.

With w ~ Normal(μ, σ²) and σ = softplus(ρ), a layer's output for a row x can be drawn in three ways that agree in
distribution row by row, and differ in how the rows of a minibatch share noise, so in gradient variance:

- "shared" (Blundell et al. 2015): one ε for the whole minibatch, y = x (μ + σ ε).
- "local" (Kingma, Salimans & Welling 2015): y ~ Normal(x μ, x² σ²), noise of its own for every output. For a
  convolution this drops the correlation between the positions that one kernel visits (each output's mean and
  variance stay right), so there it is an approximation.
- "flipout" (Wen et al. 2018, eq. 4): y = x μ + ((x ∘ s)(σ ε)) ∘ r with random signs s, r for every row.
"""

from __future__ import annotations

from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from flax import nnx
from numpyro.distributions import kl_divergence

from hmcvi.models.ops import Conv, Dense, LinearOp, kept_apart
from hmcvi.models.priors import Hierarchical, Normal, Prior

__all__ = [
    "ESTIMATORS",
    "Estimator",
    "Gaussian",
    "VariationalConv",
    "VariationalDense",
    "VariationalLayer",
    "kl",
]

Estimator = Literal["shared", "local", "flipout"]

ESTIMATORS: tuple[Estimator, ...] = ("shared", "local", "flipout")


class Gaussian(nnx.Module):
    """An array of independent Normals with mean `loc` and standard deviation softplus(`rho`).

    Arguments:
        loc: initial means, any shape.
        scale: initial standard deviation of every entry.
    """

    def __init__(self, loc: jax.Array, scale: float):
        self.loc = nnx.Param(loc)
        self.rho = nnx.Param(jnp.full(loc.shape, jnp.log(jnp.expm1(scale)), loc.dtype))

    @property
    def scale(self) -> jax.Array:
        """Standard deviations, of the shape of `loc`."""
        return jax.nn.softplus(self.rho[...])

    def draw(self, key: jax.Array, shape: tuple[int, ...] = ()) -> jax.Array:
        """Return draws μ + σ ε of shape (*shape, *loc shape)."""
        return self.loc[...] + self.perturbation(key, shape)

    def perturbation(self, key: jax.Array, shape: tuple[int, ...] = ()) -> jax.Array:
        """Return draws (*shape, *parameter shape) of σ ε, the Normals less their means μ."""
        scale = self.scale
        return scale * _normal(key, (*shape, *scale.shape), scale.dtype)

    def distribution(self, event_dim: int) -> dist.Distribution:
        """Return the Normals as a NumPyro distribution whose last `event_dim` axes are event axes."""
        return dist.Normal(self.loc[...], self.scale).to_event(event_dim)

    def kl(self, prior: dist.Distribution, key: jax.Array, value: jax.Array | None = None) -> jax.Array:
        """Return KL(q ‖ prior), in closed form where NumPyro knows it, else estimated from one draw.

        Arguments:
            prior: distribution over an array of this shape, with real support.
            key: key of the draw, where one is needed.
            value: a draw that is already there (then the estimate shares its noise).

        Returns:
            Scalar for a prior whose axes are all event axes, else the prior's batch shape; nats.
        """
        q = self.distribution(prior.event_dim)
        try:
            return kl_divergence(q, prior)
        except NotImplementedError:
            value = self.draw(key) if value is None else value
            return q.log_prob(value) - prior.log_prob(value)


class VariationalLayer(nnx.Module):
    """A linear operation with Gaussian kernel and bias; `VariationalDense` and `VariationalConv` are its two forms.

    Arguments:
        op: the operation, linear in its inputs and its kernel.
        kernel: the variational posterior of the kernel.
        bias: that of the bias over the last axis of the output, or None.
        estimator: "shared", "local" or "flipout".
        prior: prior of the weights for `kl`; `Normal()` by default.
    """

    def __init__(
        self,
        op: LinearOp,
        kernel: Gaussian,
        bias: Gaussian | None,
        *,
        estimator: Estimator = "flipout",
        prior: Prior | None = None,
    ):
        if estimator not in ESTIMATORS:
            raise ValueError(f"unknown estimator {estimator!r}: give one of {', '.join(ESTIMATORS)}")
        if isinstance(prior, Hierarchical):
            raise ValueError("a Hierarchical prior learns its scale as a site of a model: use BayesByBackprop")
        self.op = op
        self.kernel = kernel
        self.bias = bias
        self.estimator = estimator
        self.prior = Normal() if prior is None else prior

    def __call__(self, x: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        """Return outputs (row, ..., out) for inputs (row, ..., in).

        Arguments:
            x: inputs.
            key: key of the noise; None gives the deterministic pass through the posterior mean.
        """
        return self.draw_output(x, key)[0]

    def draw_output(self, x: jax.Array, key: jax.Array | None) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Return the output as `__call__` does, and the weights drawn on the way ("shared" only, else empty)."""
        mean = self.op(x, self.kernel.loc[...])
        if self.bias is not None:
            mean = mean + self.bias.loc[...]
        if key is None:
            return mean, {}
        if self.estimator != "shared":
            noise = self._local_noise if self.estimator == "local" else self._flipout_noise
            return kept_apart(mean + noise(x, mean, key)), {}
        key_kernel, key_bias = jax.random.split(key)
        weights = {"kernel": self.kernel.draw(key_kernel)}
        output = self.op(x, weights["kernel"])
        if self.bias is not None:
            weights["bias"] = self.bias.draw(key_bias)
            output = output + weights["bias"]
        return output, weights

    def kl(self, key: jax.Array) -> jax.Array:
        """Return KL(q ‖ prior) of kernel and bias, a scalar in nats; the key serves priors without a closed form."""
        kernel_shape = self.kernel.loc[...].shape
        fan_in = self.kernel.loc[...].size // kernel_shape[-1]
        key_kernel, key_bias = jax.random.split(key)
        dtype = self.kernel.loc[...].dtype
        total = self.kernel.kl(self.prior.distribution("kernel", kernel_shape, fan_in, dtype), key_kernel)
        if self.bias is not None:
            total += self.bias.kl(self.prior.distribution("bias", kernel_shape[-1:], 1, dtype), key_bias)
        return total

    def _local_noise(self, x: jax.Array, mean: jax.Array, key: jax.Array) -> jax.Array:
        variance = self.op(x**2, self.kernel.scale**2)
        if self.bias is not None:
            variance = variance + self.bias.scale**2
        # The gradient of √ at 0 is infinite, and a row of zeros has variance 0.
        positive = jnp.maximum(variance, jnp.finfo(variance.dtype).tiny)
        return jnp.sqrt(positive) * _normal(key, mean.shape, mean.dtype)

    def _flipout_noise(self, x: jax.Array, mean: jax.Array, key: jax.Array) -> jax.Array:
        key_kernel, key_bias, key_in, key_out, key_signs = jax.random.split(key, 5)
        noise = self.op(x * _signs(key_in, x), self.kernel.perturbation(key_kernel)) * _signs(key_out, mean)
        if self.bias is not None:
            noise = noise + self.bias.perturbation(key_bias) * _signs(key_signs, mean)
        return noise


class VariationalDense(VariationalLayer):
    """Dense layer with Gaussian weights, for Flax NNX networks of one's own.

    Means start at Normal(0, 1/in_features), biases at 0.

    Arguments:
        in_features: inputs.
        out_features: outputs.
        estimator: "flipout", "local" or "shared"; see the module's docstring.
        prior: prior of the weights for `kl`; `Normal()` (scaled by fan-in) by default.
        use_bias: whether to add a bias.
        init_scale: standard deviation of every weight at the start.
        dtype: floating-point type of the weights.
        rngs: its stream `params` initialises the means.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from flax import nnx
        >>> from hmcvi.inference import VariationalDense
        >>> layer = VariationalDense(3, 2, rngs=nnx.Rngs(0))
        >>> layer(jnp.ones((5, 3)), key=jax.random.key(1)).shape
        (5, 2)
        >>> bool(layer.kl(jax.random.key(2)) > 0)
        True
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        estimator: Estimator = "flipout",
        prior: Prior | None = None,
        use_bias: bool = True,
        init_scale: float = 0.05,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        kernel, bias = _initial((in_features, out_features), use_bias, init_scale, dtype, rngs)
        super().__init__(Dense(), kernel, bias, estimator=estimator, prior=prior)


class VariationalConv(VariationalLayer):
    """Two-dimensional convolution with Gaussian weights, for Flax NNX networks of one's own.

    Maps (row, height, width, in_features) to (row, out height, out width, out_features).

    Arguments:
        in_features: input channels.
        out_features: output channels.
        kernel_size: height and width of the kernel, in pixels.
        strides: steps of the kernel, in pixels.
        padding: "SAME" or "VALID".
        estimator: as in `VariationalDense`; "local" is an approximation here, see the module's docstring.
        prior: as in `VariationalDense`.
        use_bias: whether to add a bias to each output channel.
        init_scale: as in `VariationalDense`.
        dtype: floating-point type of the weights.
        rngs: as in `VariationalDense`.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: int | tuple[int, int] = 3,
        *,
        strides: int | tuple[int, int] = 1,
        padding: str = "SAME",
        estimator: Estimator = "flipout",
        prior: Prior | None = None,
        use_bias: bool = True,
        init_scale: float = 0.05,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        size = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
        kernel, bias = _initial((*size, in_features, out_features), use_bias, init_scale, dtype, rngs)
        super().__init__(Conv(strides, padding), kernel, bias, estimator=estimator, prior=prior)


def kl(module: nnx.Module, key: jax.Array) -> jax.Array:
    """Return the KL divergence of every variational layer inside a Flax module, summed; scalar in nats.

    Example:
        >>> import jax
        >>> from flax import nnx
        >>> from hmcvi.inference import VariationalDense
        >>> from hmcvi.inference.variational import kl
        >>> rngs = nnx.Rngs(0)
        >>> net = nnx.Sequential(VariationalDense(3, 4, rngs=rngs), nnx.relu, VariationalDense(4, 2, rngs=rngs))
        >>> bool(kl(net, jax.random.key(0)) > 0)
        True
    """
    layers = [part for _, part in nnx.iter_modules(module) if isinstance(part, VariationalLayer)]
    if not layers:
        raise ValueError(f"{type(module).__name__} holds no VariationalDense or VariationalConv: its KL is undefined")
    terms = [layer.kl(jax.random.fold_in(key, i)) for i, layer in enumerate(layers)]
    return jnp.stack(terms).sum()


def _initial(
    shape: tuple[int, ...], use_bias: bool, init_scale: float, dtype: Any, rngs: nnx.Rngs
) -> tuple[Gaussian, Gaussian | None]:
    kernel = nnx.initializers.lecun_normal()(rngs.params(), shape, dtype)
    return Gaussian(kernel, init_scale), Gaussian(jnp.zeros(shape[-1:], dtype), init_scale) if use_bias else None


def _signs(key: jax.Array, like: jax.Array) -> jax.Array:
    """Return random signs for each row and channel of `like` (row, ..., channel), constant over other axes."""
    shape = (like.shape[0], *(1,) * (like.ndim - 2), like.shape[-1])
    # 32 signs from each random word, where `jax.random.rademacher` takes a word each
    words = jax.random.bits(key, (shape[0], -(-shape[-1] // 32)), jnp.uint32)
    bits = (words[:, :, None] >> jnp.arange(32, dtype=words.dtype)) & 1
    return (2 * bits.reshape(shape[0], -1)[:, : shape[-1]].astype(like.dtype) - 1).reshape(shape)


def _normal(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    """Return standard normals, by the form of threefry that uses both words of a hash, not their exclusive or."""
    with jax.threefry_partitionable(False):
        return jax.random.normal(key, shape, dtype)
