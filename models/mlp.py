"""The Bayesian multilayer perceptron."""

from __future__ import annotations

from collections.abc import Sequence

import jax

from .layers import dense, flatten
from .likelihoods import Activation, activation_function, observe, output_width
from .ops import rows_last
from .priors import Prior

__all__ = ["mlp"]


def mlp(
    x: jax.Array,
    y: jax.Array | None = None,
    *,
    widths: Sequence[int] = (16,),
    activation: Activation = "tanh",
    likelihood: str = "categorical",
    num_classes: int = 10,
    prior: Prior | None = None,
    num_rows: int | None = None,
) -> jax.Array:
    """Bayesian multilayer perceptron, a NumPyro model function.

    h₀ = x, hᵢ₊₁ = activation(hᵢ Wᵢ + bᵢ), outputs = h W + b; y ~ Categorical(softmax(outputs)) or
    Normal(outputs, noise_scale).

    Sites: `hidden_<i>.kernel`, `hidden_<i>.bias`, `out.kernel`, `out.bias`; `noise_scale` in regression;
    `<weights>.scale` for each array under the `Hierarchical` prior; the observed `y` in the plate `data`.

    Arguments:
        x: inputs (row, feature...); further axes are flattened.
        y: labels or targets (row,), or None to draw them.
        widths: units of each hidden layer; () is a linear model.
        activation: "tanh", "relu", "silu", "gelu", "elu", "leaky_relu", "sigmoid" or a function.
        likelihood: "categorical" (classification) or "normal" (regression, learned noise).
        num_classes: number of classes; ignored in regression.
        prior: prior of every layer's weights; `Normal()` scaled by fan-in where None.
        num_rows: rows of the whole data set where x is a minibatch.

    Returns:
        y as observed or drawn (row,).

    Raises:
        ValueError: a name is unknown, y is not (row,), or a label is out of range.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from numpyro.infer import MCMC, NUTS
        >>> from hmcvi.models import mlp
        >>> x = jnp.linspace(-1, 1, 20)[:, None]
        >>> mcmc = MCMC(NUTS(mlp), num_warmup=20, num_samples=20, progress_bar=False)
        >>> mcmc.run(jax.random.key(0), x, (x[:, 0] > 0).astype(int), num_classes=2)
        >>> mcmc.get_samples()["hidden_0.kernel"].shape
        (20, 1, 16)
    """
    activate = activation_function(activation)
    features = output_width(likelihood, num_classes)
    hidden = flatten(x)
    if y is not None and num_rows is None:  # a minibatch is read once: laying it out anew would cost more than it saves
        hidden = rows_last(hidden)
    for i, width in enumerate(widths):
        hidden = activate(dense(f"hidden_{i}", hidden, width, prior=prior))
    outputs = dense("out", hidden, features, prior=prior)
    return observe(outputs, y, likelihood=likelihood, num_rows=num_rows, num_classes=num_classes)
