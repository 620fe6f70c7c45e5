"""What every model shares after its last layer: activations by name, checks, and the observed site `y`."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

__all__ = ["ACTIVATIONS", "LIKELIHOODS", "activation_function", "observe", "output_width"]

Activation = str | Callable[[jax.Array], jax.Array]

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "relu": jax.nn.relu,
    "tanh": jnp.tanh,
    "silu": jax.nn.silu,
    "gelu": jax.nn.gelu,
    "elu": jax.nn.elu,
    "leaky_relu": jax.nn.leaky_relu,
    "sigmoid": jax.nn.sigmoid,
}

LIKELIHOODS = ("categorical", "normal")


def activation_function(activation: Activation) -> Callable[[jax.Array], jax.Array]:
    """Return the function named, or the one given."""
    if callable(activation):
        return activation
    if activation not in ACTIVATIONS:
        raise ValueError(f"unknown activation {activation!r}: give a function or one of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[activation]


def output_width(likelihood: str, num_classes: int) -> int:
    """Return how many outputs per row the likelihood takes."""
    if likelihood not in LIKELIHOODS:
        raise ValueError(f"unknown likelihood {likelihood!r}: give one of {', '.join(LIKELIHOODS)}")
    if likelihood == "normal":
        return 1
    if num_classes < 2:
        raise ValueError(f"num_classes={num_classes}: a classification has at least 2 classes")
    return num_classes


def observe(
    outputs: jax.Array,
    y: jax.Array | None,
    *,
    likelihood: str,
    num_rows: int | None,
    num_classes: int,
    own_variance: jax.Array | None = None,
) -> jax.Array:
    """Observe `y` given the outputs, inside the plate `data`.

    "categorical": y ~ Categorical(softmax(outputs)). "normal": y ~ Normal(outputs, noise_scale), where
    noise_scale ~ HalfNormal(1) is learned, for targets scaled to unit variance.

    Arguments:
        outputs: (row, class) logits, or (row, 1) means.
        y: (row,) labels or targets, or None to draw them.
        likelihood: "categorical" or "normal".
        num_rows: rows of the whole data set where `outputs` is a minibatch: the plate scales the likelihood by
            num_rows / row.
        num_classes: number of classes, for the check of the labels.
        own_variance: of a regression, what each row's mean varies by of its own (row,): it adds to noise_scale²,
            and where y is None the site `noise_new` tells the noise from it.

    Raises:
        ValueError: y does not have shape (row,), or (where y is not being traced) a label is out of range.
    """
    rows = outputs.shape[0]
    if y is not None:
        _check_targets(y, rows, likelihood, num_classes)
    size = rows if num_rows is None else num_rows
    if size < rows:
        raise ValueError(f"num_rows={size} but x has {rows} rows: num_rows is the size of the whole data set")
    if likelihood == "categorical":
        conditional: dist.Distribution = dist.Categorical(logits=outputs)
    else:
        unit = jnp.ones((), outputs.dtype)
        noise_scale = numpyro.sample("noise_scale", dist.HalfNormal(unit))
        scale = noise_scale
        if own_variance is not None:
            # a noise whose square underflows would leave a row no variance
            scale = jnp.sqrt(jnp.maximum(own_variance + noise_scale**2, jnp.finfo(outputs.dtype).tiny))
            if y is None:
                numpyro.deterministic("noise_new", noise_scale)
        conditional = dist.Normal(outputs[:, 0], scale)
    with numpyro.plate("data", size, subsample_size=rows):
        return numpyro.sample("y", conditional, obs=y)


def _check_targets(y: jax.Array, rows: int, likelihood: str, num_classes: int) -> None:
    if jnp.shape(y) != (rows,):
        raise ValueError(f"y has shape {jnp.shape(y)} and x has {rows} rows: wanted y of shape ({rows},)")
    if likelihood != "categorical":
        return
    if not jnp.issubdtype(jnp.result_type(y), jnp.integer):
        raise ValueError(
            f"y holds {jnp.result_type(y)} where class labels (integers) were wanted: convert y with "
            "y.astype(int), or pass likelihood='normal' for regression"
        )
    if isinstance(y, jax.core.Tracer):
        return
    labels = np.asarray(y)  # NumPy: inside a trace, jnp would trace even what is concrete
    lowest, highest = int(labels.min()), int(labels.max())
    if lowest < 0:
        raise ValueError(f"labels go down to {lowest}: they run from 0 to {num_classes - 1}, relabel them")
    if highest >= num_classes:
        raise ValueError(
            f"labels reach {highest} but the model has num_classes={num_classes} "
            f"(labels run from 0 to {num_classes - 1}): pass num_classes={highest + 1} or relabel"
        )
