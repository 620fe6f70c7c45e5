"""The linear operations of layers, and pooling, in forms that are fast inside a compiled loop on a CPU.

XLA's CPU gradient of a convolution with respect to its kernel leaves the fast path inside `lax.scan` and
`lax.while_loop`, so inside NUTS and inside a scanned epoch, and can be 200 times slower there. `Conv` therefore
carries its own gradient on a CPU: plain forward convolutions, of the inputs with the cotangent and of the cotangent
with the flipped kernel. On an accelerator it is `jax.lax`'s own.

A layer's width is often 10 to 50 where rows are in the thousands, and a processor's vectors run along the last axis in
memory: `rows_last` lays a whole data set out so, and XLA then computes what follows from it likewise.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Protocol

import jax
import jax.numpy as jnp
from jax import lax

__all__ = ["Conv", "Dense", "LinearOp", "kept_apart", "max_pool", "rows_last"]

DIMENSIONS = ("NHWC", "HWIO", "NHWC")

Window = tuple[tuple[int, int], tuple[tuple[int, int], tuple[int, int]]]
"""Strides (height, width), and padding ((top, bottom), (left, right))."""


class LinearOp(Protocol):
    """A map (x, kernel) -> output that is linear in x and in the kernel; rows come first, channels last."""

    def __call__(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        """Return the output (row, ..., out) for inputs (row, ..., in)."""
        ...


@dataclass(frozen=True)
class Dense:
    """The matrix product (row, in) @ (in, out) -> (row, out)."""

    def __call__(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        """Return x @ kernel."""
        return x @ kernel


@dataclass(frozen=True)
class DenseOutputsFirst:
    """The same product, taken as (out, in) @ (in, row), and handed out as (row, out)."""

    def __call__(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        """Return x @ kernel of matrices."""
        return (kernel.T @ x.T).T


@dataclass(frozen=True)
class Conv:
    """Two-dimensional convolution (row, height, width, in) * (kernel height, kernel width, in, out).

    Arguments:
        strides: steps of the kernel, in pixels.
        padding: "SAME" (output is input size / strides, rounded up) or "VALID".
    """

    strides: int | tuple[int, int] = 1
    padding: str = "SAME"

    def __post_init__(self) -> None:
        if self.padding not in ("SAME", "VALID"):
            raise ValueError(f"convolution got padding={self.padding!r}: give 'SAME' or 'VALID'")
        if min(self._strides) < 1:
            raise ValueError(f"convolution got strides={self.strides}: give whole numbers of at least 1")

    @property
    def _strides(self) -> tuple[int, int]:
        return (self.strides, self.strides) if isinstance(self.strides, int) else self.strides

    def __call__(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        """Return the convolution (row, out height, out width, out), equal to `jax.lax.conv_general_dilated`."""
        pads = lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], self._strides, self.padding)
        (top, bottom), (left, right) = pads
        window: Window = (self._strides, ((int(top), int(bottom)), (int(left), int(right))))
        return lax.platform_dependent(
            x,
            kernel,
            cpu=functools.partial(_convolve_own_gradient, window),
            default=functools.partial(_convolve, window),
        )


def max_pool(x: jax.Array, size: int) -> jax.Array:
    """Maximum over non-overlapping size × size windows; rows and columns left over at the far edges are dropped.

    Equal to `lax.reduce_window` with VALID padding, whose gradient is 14 times slower on a CPU. Where maxima tie,
    the gradient is shared among them. Written by pairs: the gradient of `jnp.max` divides by the number of entries
    that equal the maximum, and a compiler that computes x anew with other rounding finds none.

    Arguments:
        x: images (row, height, width, channel).
        size: side of the window, in pixels.

    Returns:
        Images (row, height // size, width // size, channel).

    Raises:
        ValueError: the image is smaller than the window.
    """
    rows, height, width, channels = x.shape
    out_height, out_width = height // size, width // size
    if out_height == 0 or out_width == 0:
        raise ValueError(f"max_pool got a {height}x{width} image, smaller than its {size}x{size} window: pool less")
    x = x[:, : out_height * size, : out_width * size]
    windows = x.reshape(rows, out_height, size, out_width, size, channels)
    places = [windows[:, :, i, :, j] for i in range(size) for j in range(size)]
    while len(places) > 1:
        pairs = [jnp.maximum(a, b) for a, b in zip(places[::2], places[1::2], strict=False)]
        places = pairs + places[2 * len(pairs) :]
    return kept_apart(places[0])


def kept_apart(x: jax.Array) -> jax.Array:
    """Return x, computed once on a CPU: XLA would there compute it anew in everything that reads it."""
    return lax.platform_dependent(x, cpu=lax.optimization_barrier, default=lambda x: x)


def rows_last(x: jax.Array) -> jax.Array:
    """Return x (row, feature) laid out in memory with rows last, for data that one gradient after another reads.

    A compiled program makes the copy once, before its loops. The copy takes about as long as three gradients of a layer
    of 100 units, each of which is then about a tenth quicker.
    """
    return kept_apart(x.T).T


def _convolve(window: Window, x: jax.Array, kernel: jax.Array) -> jax.Array:
    strides, pads = window
    return lax.conv_general_dilated(x, kernel, strides, pads, dimension_numbers=DIMENSIONS)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _convolve_own_gradient(window: Window, x: jax.Array, kernel: jax.Array) -> jax.Array:
    return _convolve(window, x, kernel)


def _forward(window: Window, x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _convolve(window, x, kernel), (x, kernel)


def _backward(
    window: Window, residuals: tuple[jax.Array, jax.Array], cotangent: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = residuals
    return _input_gradient(window, x, kernel, cotangent), _kernel_gradient(window, x, kernel, cotangent)


def _kernel_gradient(window: Window, x: jax.Array, kernel: jax.Array, cotangent: jax.Array) -> jax.Array:
    """dL/dK[i, j] = Σ over rows and positions of x[row, position·stride + (i, j)]ᵀ · cotangent[row, position].

    At stride 1 that is a forward convolution of x with the cotangent, rows in the place of channels and channels in
    that of rows: spelt out by transposing, it stays on the fast path that XLA's own gradient leaves, and takes half
    of the time of the matrix products below for 5×5 kernels, and the same for 3×3.
    """
    strides, pads = window
    if strides == (1, 1):
        channels_first, by_row = x.transpose(3, 1, 2, 0), cotangent.transpose(1, 2, 0, 3)
        return _convolve(window, channels_first, by_row).transpose(1, 2, 0, 3)
    step_y, step_x = strides
    padded = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    _, out_height, out_width, out_channels = cotangent.shape
    flat_cotangent = cotangent.reshape(-1, out_channels)

    def at(i: int, j: int) -> jax.Array:
        seen = padded[
            :,
            i : i + (out_height - 1) * step_y + 1 : step_y,
            j : j + (out_width - 1) * step_x + 1 : step_x,
            :,
        ]
        return seen.reshape(-1, x.shape[-1]).T @ flat_cotangent

    height, width = kernel.shape[:2]
    return jnp.stack([jnp.stack([at(i, j) for j in range(width)]) for i in range(height)])


def _input_gradient(window: Window, x: jax.Array, kernel: jax.Array, cotangent: jax.Array) -> jax.Array:
    """Correlate the (stride-dilated) cotangent with the kernel, flipped in space and transposed in channels."""
    strides, pads = window
    flipped = kernel[::-1, ::-1].swapaxes(2, 3)
    back_pads = []
    for axis in range(2):
        size, (before, _) = kernel.shape[axis], pads[axis]
        dilated = (cotangent.shape[1 + axis] - 1) * strides[axis] + 1
        low = size - 1 - before
        back_pads.append((low, x.shape[1 + axis] + size - 1 - dilated - low))
    return lax.conv_general_dilated(
        cotangent, flipped, (1, 1), back_pads, lhs_dilation=strides, dimension_numbers=DIMENSIONS
    )


_convolve_own_gradient.defvjp(_forward, _backward)
