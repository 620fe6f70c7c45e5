"""Which inputs a prediction hangs on: its gradient with respect to them, and how far the draws agree on it."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Float

from .base import Fit, as_floats
from .predict import check_inputs, check_labels, draw_outputs, outcome_kind

__all__ = ["Importance", "feature_importance"]


class Importance(NamedTuple):
    """Gradient of a prediction with respect to its input, over the posterior's draws.

    Attributes:
        mean: mean over draws (row, feature...): the gradient of the predictive itself.
        sd: standard deviation over draws (row, feature...).
        label: class whose probability was differentiated (row,); None in a regression.
    """

    mean: Float[np.ndarray, "row ..."]
    sd: Float[np.ndarray, "row ..."]
    label: np.ndarray | None


def feature_importance(fit: Fit, x: Any, labels: Any = None) -> Importance:
    """Differentiate what each draw predicts with respect to each input, pixel by pixel for an image.

    In a classification it is ∂ p(label | x, w) / ∂x, per unit of the input (of brightness from 0 to 1 for images of
    uint8); in a regression ∂ E[y | x, w] / ∂x. A feature matters where the mean is large, and is known to matter where
    it is large against the standard deviation. Meant for a few rows, which are taken together; the draws go by one
    after the other, so memory does not grow with them.

    Arguments:
        fit: any fit.
        x: inputs (row, feature...), of the training inputs' trailing shape.
        labels: classes (row,) to explain; None takes the most probable class under the mean over draws.

    Raises:
        ValueError: x or the labels are malformed, or labels were given in a regression.

    Source: Simonyan, Vedaldi & Zisserman (2014), Deep Inside Convolutional Networks, section 3 (saliency), here of
    the probability and over a posterior.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from functools import partial
        >>> from hmcvi.inference import SVI, feature_importance, fit
        >>> from hmcvi.models import mlp
        >>> x = jax.random.normal(jax.random.key(1), (60, 3))
        >>> model = partial(mlp, widths=(), num_classes=2)
        >>> result = fit(jax.random.key(0), model, x, (x[:, 0] > 0).astype(int), SVI(num_steps=500))
        >>> bool(abs(feature_importance(result, x[:1]).mean).argmax() == 0)
        True
    """
    x = check_inputs(fit, x)
    kind = outcome_kind(fit, x)
    if kind != "class" and labels is not None:
        raise ValueError("feature_importance got labels for a regression: leave them out")
    draws = {site: jnp.asarray(d).reshape(-1, *d.shape[2:]) for site, d in fit.draws.items()}
    x_train = as_floats(fit.x)
    inputs = as_floats(x)

    def output(draw: Any, x: jax.Array) -> jax.Array:
        return draw_outputs(fit, draw, x, fit.key, x_train, fit.y)[1]

    chosen = None
    if kind == "class":
        probs = jax.jit(lambda draws, x: lax.map(lambda d: output(d, x), draws).mean(0))(draws, inputs)
        chosen = np.asarray(probs.argmax(-1)) if labels is None else check_labels(np.asarray(labels), probs.shape[-1])
        if chosen.shape != (len(x),):
            raise ValueError(
                f"feature_importance got labels of shape {chosen.shape}: give one for each of {len(x)} rows"
            )

    def explained(x: jax.Array, draw: Any, chosen: jax.Array | None) -> jax.Array:
        outputs = output(draw, x)
        return outputs[:, 0].sum() if chosen is None else jnp.take_along_axis(outputs, chosen[:, None], 1).sum()

    @jax.jit
    def moments(draws: Any, inputs: jax.Array, chosen: jax.Array | None) -> Any:
        def step(carry: Any, draw: Any) -> Any:
            count, mean, squares = carry  # Welford (1962): sums of squares of gradients would cancel
            gradient = jax.grad(explained)(inputs, draw, chosen)
            count, change = count + 1, gradient - mean
            mean = mean + change / count
            return (count, mean, squares + change * (gradient - mean)), None

        zero = jnp.zeros_like(inputs)
        return lax.scan(step, (0, zero, zero), draws)[0]

    count, mean, squares = moments(draws, inputs, None if chosen is None else jnp.asarray(chosen))
    return Importance(np.asarray(mean), np.sqrt(np.asarray(squares) / int(count)), chosen)
