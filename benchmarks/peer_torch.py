"""Log joints and gradients by PyTorch, for `speed.py` to stand beside; run by a Python that has it.

Imports nothing of hmcvi, so that it runs in an environment of its own. Networks, priors, rows and weights are those of
`speed_gradient.py`, whose sites and layouts are told here in PyTorch's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from peer_protocol import Ready, inputs, repeated, serve, weights
from torch.nn import functional

CLASSES, UNITS, PIXELS, CHANNELS, KERNEL, WIDTH, PRIOR_SCALE, STEP = 10, 100, 28, (32, 64), 5, 128, 3.0, 1e-9


def mlp_logits(w: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """Return logits (row, class)."""
    hidden = torch.tanh(functional.linear(x, w["hidden_0.kernel"], w["hidden_0.bias"]))
    return functional.linear(hidden, w["out.kernel"], w["out.bias"])


def cnn_logits(w: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """Return logits (row, class)."""
    for i in range(len(CHANNELS)):
        x = functional.conv2d(x, w[f"conv_{i}.kernel"], w[f"conv_{i}.bias"], padding="same")
        x = functional.max_pool2d(torch.relu(x), 2)
    hidden = x.permute(0, 2, 3, 1).flatten(1)  # pixels before channels, as weights are shared
    hidden = torch.relu(functional.linear(hidden, w["hidden_0.kernel"], w["hidden_0.bias"]))
    return functional.linear(hidden, w["out.kernel"], w["out.bias"])


def layers(sizes: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of kernels and biases by site, from those of the kernels by layer."""
    shapes = {f"{name}.kernel": shape for name, shape in sizes.items()}
    return shapes | {f"{name}.bias": shape[-1:] for name, shape in sizes.items()}


def in_torch(values: Any) -> torch.Tensor:
    """Return a kernel with its outputs first and, of a convolution, its inputs next."""
    tensor = torch.from_numpy(values)
    axes = (3, 2, 0, 1) if tensor.ndim == 4 else (1, 0) if tensor.ndim == 2 else (0,)
    return tensor.permute(*axes).contiguous().requires_grad_()


def contestant(
    logits: Callable[..., torch.Tensor],
    shapes: dict[str, tuple[int, ...]],
    x: torch.Tensor,
    y: torch.Tensor,
    seconds: float,
    count: float,
) -> Ready:
    """Return whoever computes log joints and their gradients."""
    w = {site: in_torch(values) for site, values in weights(shapes).items()}
    scales = {site: PRIOR_SCALE / math.sqrt(math.prod(shape[:-1])) for site, shape in shapes.items()}

    def log_joint() -> torch.Tensor:
        total = -functional.cross_entropy(logits(w, x), y, reduction="sum")
        for site, value in w.items():
            of_one = math.log(scales[site]) + 0.5 * math.log(2 * math.pi)
            total = total - (value**2).sum() / (2 * scales[site] ** 2) - value.numel() * of_one
        return total

    def take(number: int) -> None:
        for _ in range(number):
            gradient = torch.autograd.grad(log_joint(), list(w.values()))
            with torch.no_grad():
                for value, slope in zip(w.values(), gradient, strict=True):
                    value.add_(slope, alpha=STEP)

    value = log_joint()
    norm = math.sqrt(sum(float((slope**2).sum()) for slope in torch.autograd.grad(value, list(w.values()))))
    facts = {"its log joint": value.item(), "the length of its gradient": norm}
    return repeated(take, seconds, count, facts, f"torch {torch.__version__}, {torch.get_num_threads()} threads")


def mlp(*, rows: int, seconds: float, **_: Any) -> Ready:
    """Return the contestant of `gradient-mlp`."""
    shapes = layers({"hidden_0": (PIXELS**2, UNITS), "out": (UNITS, CLASSES)})
    x, y = (torch.from_numpy(part) for part in inputs(rows, (PIXELS**2,), CLASSES))
    operations = 2.0 * rows * (2 * PIXELS**2 * UNITS + 3 * UNITS * CLASSES)
    return contestant(mlp_logits, shapes, x, y, seconds, operations / 1e9)


def cnn(*, rows: int, seconds: float, **_: Any) -> Ready:
    """Return the contestant of `gradient-cnn`."""
    first, second = CHANNELS
    flat = (PIXELS // 4) ** 2 * second
    convolutions = {"conv_0": (KERNEL, KERNEL, 1, first), "conv_1": (KERNEL, KERNEL, first, second)}
    shapes = layers({**convolutions, "hidden_0": (flat, WIDTH), "out": (WIDTH, CLASSES)})
    x, y = (torch.from_numpy(part) for part in inputs(rows, (PIXELS, PIXELS, 1), CLASSES))
    return contestant(cnn_logits, shapes, x.permute(0, 3, 1, 2).contiguous(), y, seconds, 1.0)


if __name__ == "__main__":
    serve({"torch mlp": mlp, "torch cnn": cnn})
