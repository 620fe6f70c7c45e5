"""The sparse Gaussian process: a GP seen through a few of its rows, for many rows of many inputs."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.scipy.linalg import cho_solve, solve_triangular

from .gp import functions_of, hyperparameters, jitter, logits_of, standard_deviation
from .kernels import kernel_matrix
from .layers import flatten
from .likelihoods import observe, output_width

__all__ = ["sgp"]


def sgp(
    x: jax.Array,
    y: jax.Array | None = None,
    *,
    x_new: jax.Array | None = None,
    kernel: str = "matern52",
    num_inducing: int = 100,
    likelihood: str = "normal",
    num_classes: int = 10,
    num_rows: int | None = None,
) -> jax.Array:
    """Sparse Gaussian process with inducing inputs, a NumPyro model function.

    Z are `num_inducing` of the rows of x, evenly spaced in their order, L Lᵀ = K(Z, Z) and W = K(x, Z) L⁻ᵀ.
    Regression: y ~ Normal(0, amplitude² (W Wᵀ + diag(1 − Σ_j W_ij²)) + noise_scale² I), the fully independent training
    conditional: the prior's variance is that of `gp` at every row (Snelson & Ghahramani 2006, eq. 9;
    Quiñonero-Candela & Rasmussen 2005, sec. 6). Classification: f = amplitude W z, z ~ Normal(0, I), the deterministic
    training conditional (there, sec. 5), y ~ Categorical(softmax(f)); two classes share one function, (0, f). With
    every row inducing both are `gp`. A gradient costs rows × num_inducing², where `gp` costs rows³.

    Sites: `lengthscale` (feature,), `amplitude` (), `period` () for the periodic kernel and `noise_scale` () in
    regression with the priors they have in `gp`, `latent` (inducing, function) = z in classification, and the observed
    `y`. Inputs and regression targets are expected standardised. With `x_new` the model conditions on (x, y) as `gp`
    does, and draws `y_new`: far from Z predictions return to the prior.

    Arguments:
        x: training inputs (row, feature...); further axes are flattened.
        y: targets (row,), or None to draw them.
        x_new: inputs to predict at (new row, feature...), or None.
        kernel: "rbf", "matern32", "matern52" or "periodic".
        num_inducing: inducing rows; all rows where there are fewer.
        likelihood: "normal" (regression) or "categorical" (classification).
        num_classes: number of classes; ignored in regression.
        num_rows: must be None or the number of rows: Z are rows of the whole data set, so there are no minibatches.

    Returns:
        y (row,), or y_new (new row,) where x_new is given.

    Raises:
        ValueError: num_inducing under 1, a minibatch, an unknown name, or bad y as in `mlp`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from numpyro.infer import MCMC, NUTS
        >>> from hmcvi.models import sgp
        >>> x = jnp.linspace(-1, 1, 20)[:, None]
        >>> mcmc = MCMC(NUTS(sgp), num_warmup=20, num_samples=20, progress_bar=False)
        >>> mcmc.run(jax.random.key(0), x, jnp.sin(3 * x[:, 0]), num_inducing=5)
        >>> mcmc.get_samples()["lengthscale"].shape
        (20, 1)
    """
    x = flatten(x)
    rows, features = x.shape
    dtype = x.dtype
    if num_inducing < 1:
        raise ValueError(f"num_inducing={num_inducing}: give at least 1 inducing row")
    if num_rows is not None and num_rows != rows:
        raise ValueError(f"sgp got {rows} of {num_rows} rows: it has no minibatches, fit it with batch_size=None")
    if y is not None and jnp.shape(y) != (rows,):
        raise ValueError(f"y has shape {jnp.shape(y)} and x has {rows} rows: wanted y of shape ({rows},)")
    if x_new is not None and (shape := flatten(x_new).shape[1:]) != (features,):
        raise ValueError(f"sgp got x with {features} features and x_new with {shape[0]}: give both the same")

    lengthscale, amplitude, period = hyperparameters(kernel, features, dtype)
    inducing = x[inducing_rows(rows, num_inducing)]
    number = len(inducing)
    nugget = jitter(number, dtype) * jnp.eye(number, dtype=dtype)
    factor = jnp.linalg.cholesky(kernel_matrix(kernel, inducing, inducing, lengthscale, period) + nugget)

    def whitened(inputs: jax.Array) -> jax.Array:
        """W (row, inducing) of these inputs."""
        return solve_triangular(factor, kernel_matrix(kernel, inducing, inputs, lengthscale, period), lower=True).T

    w = whitened(x)
    if output_width(likelihood, num_classes) == 1:
        noise_scale = numpyro.sample("noise_scale", dist.HalfNormal(jnp.ones((), dtype)))
        # a noise whose square underflows would leave an inducing row no variance of its own
        own = jnp.maximum(amplitude**2 * _left_out(w) + noise_scale**2, jnp.finfo(dtype).tiny)
        y = numpyro.sample("y", dist.LowRankMultivariateNormal(jnp.zeros(rows, dtype), amplitude * w, own), obs=y)
        if x_new is None:
            return y
        w_new = whitened(flatten(x_new))
        precision = jnp.linalg.cholesky(jnp.eye(number, dtype=dtype) + amplitude**2 * (w.T / own) @ w)
        mean = w_new @ (amplitude**2 * cho_solve((precision, True), w.T @ (y / own)))
        known = solve_triangular(precision, w_new.T, lower=True)
        variance = amplitude**2 * (_left_out(w_new) + (known**2).sum(0))
        numpyro.deterministic("noise_new", noise_scale)
        return numpyro.sample("y_new", dist.Normal(mean, jnp.hypot(standard_deviation(variance), noise_scale)))

    zeros = jnp.zeros((number, functions_of(num_classes)), dtype)
    latent = numpyro.sample("latent", dist.Normal(zeros, jnp.ones((), dtype)).to_event(2))
    outputs = logits_of(w @ (amplitude * latent))
    y = observe(outputs, y, likelihood=likelihood, num_rows=num_rows, num_classes=num_classes)
    if x_new is None:
        return y
    w_new = whitened(flatten(x_new))
    spread = standard_deviation(amplitude**2 * _left_out(w_new))[:, None]
    latent_new = numpyro.sample("latent_new", dist.Normal(w_new @ (amplitude * latent), spread).to_event(2))
    return numpyro.sample("y_new", dist.Categorical(logits=logits_of(latent_new)))


def inducing_rows(rows: int, num_inducing: int) -> np.ndarray:
    """Return the numbers of the inducing rows (inducing,), evenly spaced from the first row to the last."""
    return np.linspace(0, rows - 1, min(num_inducing, rows)).round().astype(int)


def _left_out(w: jax.Array) -> jax.Array:
    """Return 1 − Σ_j W_ij² (row,): the share of the prior's variance that the inducing rows do not tell."""
    return jnp.maximum(1 - (w**2).sum(1), 0)
