"""How noisy an estimator's gradients are, against the size of the minibatch: Flipout's law."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

from hmcvi.inference import Fit
from hmcvi.inference.backprop import MeanField, elbo_terms
from hmcvi.inference.base import as_floats, latent_sites, minibatches
from hmcvi.inference.scores import Score
from hmcvi.inference.variational import Estimator

__all__ = ["gradient_variance", "slope"]


def gradient_variance(
    fit: Fit, key: jax.Array, estimator: Estimator, batch_sizes: Sequence[int], *, num_repeats: int = 400
) -> list[Score]:
    """Return the variance of the gradient of the likelihood term, summed over all means, for each batch size.

    The gradient is that of −(1/B) Σ log p(y | x, w) over minibatches of B rows, drawn with replacement, and over the
    estimator's noise, at the posterior of the fit; the KL has no noise where it has a closed form. Standard errors
    are over repeats.

    Arguments:
        fit: a fit by Bayes-by-Backprop, with any estimator.
        key: random key.
        estimator: "flipout", "local" or "shared".
        batch_sizes: rows in a minibatch.
        num_repeats: gradients for each batch size.

    Source: Wen et al. (2018), Flipout, section 4.1 and figure 1.
    """
    assert fit.location is not None
    assert fit.scale is not None
    _, ops = latent_sites(fit.model, fit.x, fit.y)
    mean_field = MeanField(fit.location, ops, estimator=estimator, init_scale=1.0)
    for name, gaussian in mean_field.gaussians().items():
        gaussian.rho.set_value(jnp.log(jnp.expm1(fit.scale[name])))
    graph, params = nnx.split(mean_field)
    rows = len(fit.x)
    batch_model, _ = minibatches(fit.model, fit.x, fit.y, rows - 1)

    def gradient(key: jax.Array, batch_size: int) -> jax.Array:
        key_rows, key_noise = jax.random.split(key)
        chosen = jax.random.choice(key_rows, rows, (batch_size,))
        x, y = as_floats(fit.x[chosen]), fit.y[chosen]

        def loss(params: Any) -> jax.Array:
            return -elbo_terms(nnx.merge(graph, params), batch_model, key_noise, x, y)[1] / rows

        by_mean = nnx.merge(graph, jax.grad(loss)(params)).gaussians()
        return jnp.concatenate([gaussian.loc[...].ravel() for gaussian in by_mean.values()])

    variances = []
    for i, batch_size in enumerate(batch_sizes):
        keys = jax.random.split(jax.random.fold_in(key, i), num_repeats)
        gradients = np.asarray(jax.jit(lambda keys, size=batch_size: lax.map(lambda k: gradient(k, size), keys))(keys))
        squares = ((gradients - gradients.mean(0)) ** 2).sum(1) * num_repeats / (num_repeats - 1)
        variances.append(Score(float(squares.mean()), float(squares.std(ddof=1) / np.sqrt(num_repeats))))
    return variances


def slope(batch_sizes: Sequence[int], variances: Sequence[Score]) -> Score:
    """Return d log variance / d log B by weighted least squares, with its standard error: −1 is a fall as 1/B."""
    x = np.log(np.asarray(batch_sizes, float))
    y = np.log([variance.value for variance in variances])
    weights = np.array([(v.value / v.standard_error) ** 2 for v in variances])  # 1 / Var(log v), by the delta method
    x = x - np.average(x, weights=weights)
    information = (weights * x**2).sum()
    return Score(float((weights * x * y).sum() / information), float(1 / np.sqrt(information)))
