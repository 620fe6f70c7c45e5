"""How many posterior draws go by in one step of a prediction: several where one matrix product serves them all.

Draws one after the other are narrow matrix products, (row, in) @ (in, 16), and softmaxes over ten numbers, of which a
processor makes little. Stacked, they are one product (row, in) @ (in, draw × 16), and the same numbers come out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.extend
import numpy as np

__all__ = ["batch_steps", "most_draws"]

COLUMNS = 512
"""Outputs of a layer, over all draws of a step, at which a matrix product has reached its speed. Measured on two cores
with 784 and 64 inputs: 16 to 32 draws of 16 or 32 units are as fast as any, more only take more memory."""

MOST_DRAWS = 32
"""Draws of a step at most: the softmax of a narrow layer gains no more."""

UNFIT = frozenset(
    {"conv_general_dilated", "cholesky", "triangular_solve", "lu", "eigh", "geqrf", "householder_product", "svd"}
    | {"while", "scan"}
)
"""Operations that do not gain from several draws at once, or lose: a convolution with a kernel for each draw is a
grouped one, which is slow on a CPU; a factorisation is a loop over draws, whose matrices are then all alive."""


def most_draws(program: jax.extend.core.ClosedJaxpr) -> int:
    """Return how many draws one step should take at most.

    Arguments:
        program: the prediction of a single row by a single draw, traced by `jax.make_jaxpr`.

    >>> import jax.numpy as jnp
    >>> kernel, x = jnp.ones((3, 40)), jnp.ones((1, 3))
    >>> most_draws(jax.make_jaxpr(lambda kernel, x: jnp.tanh(x @ kernel))(kernel, x))
    12
    >>> most_draws(jax.make_jaxpr(lambda kernel: jnp.linalg.cholesky(kernel.T @ kernel))(kernel))
    1
    """
    operations = list(_operations(program.jaxpr))
    if any(operation.primitive.name in UNFIT for operation in operations):
        return 1
    products = [operation for operation in operations if operation.primitive.name == "dot_general"]
    widest = max((math.prod(output.aval.shape) for product in products for output in product.outvars), default=1)
    return int(np.clip(COLUMNS // max(widest, 1), 1, MOST_DRAWS))


def batch_steps(sizes: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Cut batches of contiguous draws into steps of equally many draws.

    The last step of a batch reaches back over draws that the step before it took, so that all are equally long;
    those are not counted twice.

    Arguments:
        sizes: draws in each batch (batch,), which differ by one at most.
        most: draws in a step at most.

    Returns:
        The first draw of each step (batch, step), and whether each draw of it counts (batch, step, draw).

    >>> first, counted = batch_steps(np.array([3, 4]), most=2)
    >>> first
    array([[0, 1],
           [3, 5]])
    >>> counted.astype(int)
    array([[[1, 1],
            [0, 1]],
    <BLANKLINE>
           [[1, 1],
            [1, 1]]])
    """
    # As even as can be: 50 draws by at most 32 are twice 25.
    num_steps = -(-int(sizes.max()) // min(most, int(sizes.min())))
    per_step = -(-int(sizes.max()) // num_steps)
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    wanted = np.arange(num_steps) * per_step
    first = np.minimum(wanted, sizes[:, None] - per_step)
    counted = first[..., None] + np.arange(per_step) >= wanted[:, None]
    return starts[:, None] + first, counted


def _operations(jaxpr: Any) -> Iterator[Any]:
    """Go through the operations of a program, those of the programs inside it too."""
    for operation in jaxpr.eqns:
        yield operation
        for value in jax.tree.leaves(operation.params):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from _operations(inner)
