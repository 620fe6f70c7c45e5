"""The Gaussian process: exact regression, and classification through whitened latent function values."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax.scipy.linalg import cho_solve, solve_triangular

from .kernels import kernel_matrix
from .layers import flatten
from .likelihoods import observe, output_width
from .marginal import MarginalNormal

__all__ = ["gp", "most_rows"]

COPIES = 8
"""Row × row matrices alive at once in a gradient: kernel, distance, factor, their cotangents, and scratch."""

LEAST_JITTER = {"float32": 1e-5, "float64": 1e-10}
"""The least of what `jitter` returns, by dtype."""


def gp(
    x: jax.Array,
    y: jax.Array | None = None,
    *,
    x_new: jax.Array | None = None,
    kernel: str = "matern52",
    likelihood: str = "normal",
    num_classes: int = 10,
    num_rows: int | None = None,
    max_bytes: int = 2**29,
) -> jax.Array:
    """Gaussian process with a lengthscale for each feature, a NumPyro model function.

    f ~ GP(0, amplitude² k(x, x')). Regression: y ~ Normal(0, amplitude² K + noise_scale² I), with f integrated out
    (Rasmussen & Williams 2006, eq. 2.30). Classification: f = amplitude L z with L Lᵀ = K, z ~ Normal(0, I)
    (whitened, Murray & Adams 2010), y ~ Categorical(softmax(f)); two classes share one function, (0, f).

    Sites: `lengthscale` (feature,), `amplitude` (), `period` () for the periodic kernel, `noise_scale` () in
    regression, `latent` (row, function) = z in classification, and the observed `y`. Inputs and regression targets
    are expected standardised: the priors are lengthscale ~ LogNormal(½ log features, 1), since distances grow with
    √features, amplitude ~ LogNormal(0, 1), period ~ LogNormal(0, 1), noise_scale ~ HalfNormal(1).

    A GP's predictions depend on its training rows, so it conditions on them itself: with `x_new`, the model draws
    the further site `y_new` at x_new given (x, y) and the sites above (eq. 2.23–2.24; in classification through
    `latent_new` ~ its conditional marginals). `hmcvi.inference.predict` does this for every model that takes
    `x_new`. The site `noise_new` tells the noise in y_new from the doubt about f, which is epistemic.

    Arguments:
        x: training inputs (row, feature...); further axes are flattened.
        y: targets (row,), or None to draw them.
        x_new: inputs to predict at (new row, feature...), or None.
        kernel: "rbf", "matern32", "matern52" or "periodic".
        likelihood: "normal" (regression) or "categorical" (classification).
        num_classes: number of classes; ignored in regression.
        num_rows: must be None or the number of rows: a GP has no minibatches.
        max_bytes: memory that row × row matrices may take in one chain, in bytes; 512 MiB serve 4,096 rows in float32.

    Returns:
        y (row,), or y_new (new row,) where x_new is given.

    Raises:
        ValueError: more rows than `max_bytes` serves, a minibatch, an unknown name, or bad y as in `mlp`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from numpyro.infer import MCMC, NUTS
        >>> from hmcvi.models import gp
        >>> x = jnp.linspace(-1, 1, 20)[:, None]
        >>> mcmc = MCMC(NUTS(gp), num_warmup=20, num_samples=20, progress_bar=False)
        >>> mcmc.run(jax.random.key(0), x, jnp.sin(3 * x[:, 0]))
        >>> mcmc.get_samples()["lengthscale"].shape
        (20, 1)
    """
    x = flatten(x)
    rows, features = x.shape
    dtype = x.dtype
    limit = most_rows(max_bytes, dtype.itemsize)
    if rows > limit:
        raise ValueError(
            f"gp got {rows} rows and serves at most {limit} in {max_bytes / 2**30:.3g} GiB ({COPIES} matrices of "
            "rows x rows): take fewer rows or raise max_bytes"
        )
    if num_rows is not None and num_rows != rows:
        raise ValueError(
            f"gp got {rows} of {num_rows} rows: a Gaussian process has no minibatches, fit it with batch_size=None"
        )
    if y is not None and jnp.shape(y) != (rows,):
        raise ValueError(f"y has shape {jnp.shape(y)} and x has {rows} rows: wanted y of shape ({rows},)")

    unit = jnp.ones((), dtype)
    lengthscale, amplitude, period = hyperparameters(kernel, features, dtype)

    def correlation(x1: jax.Array, x2: jax.Array) -> jax.Array:
        return kernel_matrix(kernel, x1, x2, lengthscale, period)

    if x_new is not None and (shape := flatten(x_new).shape[1:]) != (features,):
        raise ValueError(f"gp got x with {features} features and x_new with {shape[0]}: give both the same")
    jittered = correlation(x, x) + jitter(rows, dtype) * jnp.eye(rows, dtype=dtype)
    if output_width(likelihood, num_classes) == 1:
        noise_scale = numpyro.sample("noise_scale", dist.HalfNormal(unit))
        covariance = amplitude**2 * jittered + noise_scale**2 * jnp.eye(rows, dtype=dtype)
        marginal = MarginalNormal(jnp.zeros(rows, dtype), covariance)
        y = numpyro.sample("y", marginal, obs=y)
        if x_new is None:
            return y
        factor = marginal.scale_tril
        cross = amplitude**2 * correlation(x, flatten(x_new))
        mean = cross.T @ cho_solve((factor, True), y)
        variance = amplitude**2 - (solve_triangular(factor, cross, lower=True) ** 2).sum(0)
        numpyro.deterministic("noise_new", noise_scale)
        # not √(variance + noise²), which is 0 where a chain is stuck at a noise whose square underflows
        spread = jnp.hypot(standard_deviation(variance), noise_scale)
        return numpyro.sample("y_new", dist.Normal(mean, spread))

    functions = functions_of(num_classes)
    latent = numpyro.sample("latent", dist.Normal(jnp.zeros((rows, functions), dtype), unit).to_event(2))
    factor = jnp.linalg.cholesky(jittered)
    y = observe(
        logits_of(amplitude * factor @ latent),
        y,
        likelihood=likelihood,
        num_rows=num_rows,
        num_classes=num_classes,
    )
    if x_new is None:
        return y
    whitened = solve_triangular(factor, correlation(x, flatten(x_new)), lower=True)
    mean = amplitude * whitened.T @ latent
    variance = amplitude**2 * (1 - (whitened**2).sum(0))
    spread = standard_deviation(variance)[:, None]
    latent_new = numpyro.sample("latent_new", dist.Normal(mean, spread).to_event(2))
    return numpyro.sample("y_new", dist.Categorical(logits=logits_of(latent_new)))


def standard_deviation(variance: jax.Array) -> jax.Array:
    """Return √variance, at a floor above 0: rounding takes variances to 0 and below, where a root has no gradient."""
    return jnp.sqrt(jnp.maximum(variance, jnp.finfo(variance.dtype).tiny))


def hyperparameters(kernel: str, features: int, dtype: Any) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    """Draw the sites `lengthscale` (feature,) and `amplitude` (), and `period` () for the periodic kernel, else None.

    Every Gaussian process here has these and their priors, which `gp` states.
    """
    unit = jnp.ones((), dtype)
    centre = jnp.full((features,), math.log(features) / 2, dtype)
    lengthscale = numpyro.sample("lengthscale", dist.LogNormal(centre, unit).to_event(1))
    amplitude = numpyro.sample("amplitude", dist.LogNormal(0 * unit, unit))
    period = numpyro.sample("period", dist.LogNormal(0 * unit, unit)) if kernel == "periodic" else None
    return lengthscale, amplitude, period


def functions_of(outputs: int) -> int:
    """Return how many latent functions give so many outputs: two classes share one, any other number has its own."""
    return 1 if outputs == 2 else outputs


def jitter(rows: int, dtype: Any) -> float:
    """Return what is added to the correlation matrix's diagonal, so that rounding leaves it a Cholesky factor.

    Rounding moves the eigenvalues of a rows × rows matrix of correlations by up to about rows · eps.
    """
    return max(LEAST_JITTER.get(jnp.dtype(dtype).name, 1e-5), rows * float(jnp.finfo(dtype).eps))


def most_rows(max_bytes: int, itemsize: int) -> int:
    """Return how many rows a GP serves in `max_bytes`, for numbers of `itemsize` bytes."""
    return math.isqrt(max_bytes // (COPIES * itemsize))


def logits_of(functions: jax.Array) -> jax.Array:
    """Return (row, class) logits: one function f stands for the two classes (0, f)."""
    if functions.shape[1] > 1:
        return functions
    return jnp.concatenate([jnp.zeros_like(functions), functions], axis=1)
