"""The log joint and its gradient, again and again in one compiled loop: the cases "gradient-*" of `speed.py`.

That is what a sampler does all day. Weights move by a little in every step, so that nothing can be computed ahead.
`gradient-mlp` counts the floating-point operations of the matrix products, which nobody can avoid, against the rate
that the same products reach alone, and one large square product. `gradient-cnn` stands beside the same network made of
other convolutions; inside a loop XLA's own gradient of one leaves its fast path on a CPU (see `models/ops.py`).
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from flax import linen, nnx
from jax import lax
from numpyro.contrib.module import random_flax_module, random_nnx_module

from hmcvi.models import cnn, mlp

from .peer_protocol import Ready, inputs, repeated, serve, weights
from .speed_models import cnn_by_hand, log_joint_of, mlp_by_hand, normal_prior
from .speed_process import Case, Contestant

__all__ = ["CONTESTANTS", "cases"]

CLASSES, UNITS, PIXELS = 10, 100, 28

CHANNELS, KERNEL, WIDTH = (32, 64), 5, 128
"""The network of `gradient-cnn`, as in `vi-cnn`."""

STEP = 1e-9
"""What weights move by, in gradients: little enough that the facts stay true."""

SQUARE = 4096


def cases(quick: bool) -> list[Case]:
    """Return both cases."""
    module, seconds = "speed_gradient", 0.3 if quick else 5.0
    rows, images, square = (500, 16, 512) if quick else (10_000, 128, SQUARE)
    operations = mlp_operations(rows)
    return [
        Case(
            "gradient-mlp",
            f"log joint and gradient of an MLP 784-{UNITS}-{CLASSES}, {rows:,} rows, {operations / 1e9:.3g} billion "
            "operations of matrix products",
            "GFLOP/s",
            (
                Contestant("hmcvi mlp", module, ours=True),
                Contestant("numpyro, by hand", module),
                Contestant("torch mlp", "peer_torch.py", needs="torch"),
                Contestant("these products alone", module),
                Contestant("a square product", module),
            ),
            {"rows": rows, "seconds": seconds, "square": square},
        ),
        Case(
            "gradient-cnn",
            f"log joint and gradient of a CNN 5×5, {CHANNELS[0]}–{CHANNELS[1]} channels, {images} images of "
            f"{PIXELS}×{PIXELS}, in a compiled loop",
            "gradients/s",
            (
                Contestant("hmcvi cnn", module, ours=True),
                Contestant("numpyro, flax.linen", module),
                Contestant("numpyro, flax.nnx", module),
                Contestant("numpyro, jax.lax", module),
                Contestant("torch cnn", "peer_torch.py", needs="torch"),
            ),
            {"rows": images, "seconds": seconds},
        ),
    ]


def mlp_operations(rows: int) -> float:
    """Return the operations of the products: 2 forward, 4 backward but for the gradient of the inputs."""
    return 2.0 * rows * (2 * PIXELS**2 * UNITS + 3 * UNITS * CLASSES)


class LinenNetwork(linen.Module):
    """The same network in Flax Linen."""

    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Return the logits (row, class)."""
        for i, width in enumerate(CHANNELS):
            x = linen.relu(linen.Conv(width, (KERNEL, KERNEL), name=f"conv_{i}")(x))
            x = linen.max_pool(x, (2, 2), (2, 2))
        x = linen.relu(linen.Dense(WIDTH, name="hidden_0")(x.reshape(len(x), -1)))
        return linen.Dense(CLASSES, name="out")(x)


class NNXNetwork(nnx.Module):
    """The same network in Flax NNX."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        first, second = CHANNELS
        self.conv_0 = nnx.Conv(1, first, (KERNEL, KERNEL), rngs=rngs)
        self.conv_1 = nnx.Conv(first, second, (KERNEL, KERNEL), rngs=rngs)
        self.hidden_0 = nnx.Linear((PIXELS // 4) ** 2 * second, WIDTH, rngs=rngs)
        self.out = nnx.Linear(WIDTH, CLASSES, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Return the logits (row, class)."""
        for convolution in (self.conv_0, self.conv_1):
            x = nnx.max_pool(nnx.relu(convolution(x)), (2, 2), (2, 2))
        return self.out(nnx.relu(self.hidden_0(x.reshape(len(x), -1))))


def cnn_by_linen(x: jax.Array, y: jax.Array) -> None:
    """Draw and observe as a NumPyro user lifts a Linen module."""
    network = random_flax_module("net", LinenNetwork(), prior=normal_prior, input_shape=x.shape)
    numpyro.sample("y", dist.Categorical(logits=network(x)), obs=y)


def cnn_by_nnx(x: jax.Array, y: jax.Array) -> None:
    """Draw and observe as a NumPyro user lifts an NNX module."""
    made = NNXNetwork(nnx.Rngs(0))
    network = random_nnx_module("net", made, prior=normal_prior, scope_divider=".")
    numpyro.sample("y", dist.Categorical(logits=network(x)), obs=y)


MODELS: dict[str, Callable[..., Any]] = {
    "hmcvi mlp": functools.partial(mlp, widths=(UNITS,), num_classes=CLASSES),
    "numpyro, by hand": functools.partial(mlp_by_hand, widths=(UNITS,), num_classes=CLASSES),
    "hmcvi cnn": functools.partial(cnn, channels=CHANNELS, kernel_size=KERNEL, widths=(WIDTH,), num_classes=CLASSES),
    "numpyro, flax.linen": cnn_by_linen,
    "numpyro, flax.nnx": cnn_by_nnx,
    "numpyro, jax.lax": functools.partial(
        cnn_by_hand, channels=CHANNELS, kernel_size=KERNEL, width=WIDTH, num_classes=CLASSES
    ),
}
"""Model functions of the same log joint, by contestant."""


def network(name: str, *, rows: int, seconds: float, **_: Any) -> Ready:
    """Return a contestant that computes log joints and their gradients."""
    is_mlp = "mlp" in name or "by hand" in name
    shape, count = ((PIXELS**2,), mlp_operations(rows) / 1e9) if is_mlp else ((PIXELS, PIXELS, 1), 1.0)
    x, y = (jnp.asarray(part) for part in inputs(rows, shape, CLASSES))
    log_joint, z = log_joint_of(MODELS[name], x, y)
    with_gradient = jax.value_and_grad(log_joint)

    def steps(number: jax.Array, z: Any, x: jax.Array, y: jax.Array) -> Any:
        def step(_: int, carried: Any) -> Any:
            z, total = carried
            value, gradient = with_gradient(z, x, y)
            return jax.tree.map(lambda a, b: a + STEP * b, z, gradient), total + value

        return lax.fori_loop(0, number, step, (z, jnp.zeros(())))

    started = time.perf_counter()
    compiled = jax.jit(steps).lower(jnp.asarray(1), z, x, y).compile()
    compile_seconds = time.perf_counter() - started
    value, gradient = jax.jit(with_gradient)(z, x, y)
    norm = jnp.sqrt(sum((leaf**2).sum() for leaf in jax.tree.leaves(gradient)))
    facts = {"its log joint": float(value), "the length of its gradient": float(norm)}

    def take(number: int) -> None:
        jax.block_until_ready(compiled(jnp.asarray(number), z, x, y))

    return repeated(take, seconds, count, facts, "float32", compile_seconds)


def products_alone(*, rows: int, seconds: float, **_: Any) -> Ready:
    """Return a contestant that computes the matrix products of `gradient-mlp` and nothing else."""
    x = inputs(rows, (PIXELS**2,), CLASSES)[0]
    kernels = weights({"hidden_0.kernel": (PIXELS**2, UNITS), "out.kernel": (UNITS, CLASSES)})

    def step(carried: Any, x: jax.Array) -> Any:
        first, second = carried
        hidden = x @ first
        outputs = hidden @ second
        return first + STEP * x.T @ (outputs @ second.T), second + STEP * hidden.T @ outputs

    return _product(
        step, tuple(map(jnp.asarray, kernels.values())), jnp.asarray(x), seconds, mlp_operations(rows) / 1e9
    )


def square_product(*, seconds: float, square: int, **_: Any) -> Ready:
    """Return a contestant that multiplies square matrices."""
    matrix = jnp.asarray(weights({"square": (square, square)})["square"])  # of spectral radius about 1
    return _product(lambda a, b: a @ b, matrix, matrix, seconds, 2.0 * square**3 / 1e9, f"{square:,} × {square:,}")


def _product(
    step: Callable[[Any, jax.Array], Any], carried: Any, given: jax.Array, seconds: float, count: float, about: str = ""
) -> Ready:
    def steps(number: jax.Array, carried: Any, given: jax.Array) -> Any:
        return lax.fori_loop(0, number, lambda _, carried: step(carried, given), carried)

    started = time.perf_counter()
    compiled = jax.jit(steps).lower(jnp.asarray(1), carried, given).compile()

    def take(number: int) -> None:
        jax.block_until_ready(compiled(jnp.asarray(number), carried, given))

    compile_seconds = time.perf_counter() - started
    return repeated(take, seconds, count, about=about or "float32", compile_seconds=compile_seconds)


CONTESTANTS: dict[str, Callable[..., Ready]] = {
    **{name: functools.partial(network, name) for name in MODELS},
    "these products alone": products_alone,
    "a square product": square_product,
}

if __name__ == "__main__":
    serve(CONTESTANTS)
