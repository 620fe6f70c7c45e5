"""Training steps of Intel's bayesian-torch, for `speed.py` to stand beside; run by a Python that has it.

Imports nothing of hmcvi, so that it runs in an environment of its own.
"""

from __future__ import annotations

import importlib.metadata
import time

import torch
from bayesian_torch.layers import Conv2dFlipout, LinearFlipout
from peer_protocol import Ready, inputs, serve
from torch import nn

LEARNING_RATE = 0.001

PRIOR = {"prior_mean": 0.0, "prior_variance": 1.0, "posterior_mu_init": 0.0, "posterior_rho_init": -3.0}
"""The settings of bayesian-torch's own examples."""


class Network(nn.Module):
    """Flipout layers with ReLU between them; returns outputs and the KL divergence."""

    def __init__(self, convolutions: list[tuple[int, int]], dense: list[tuple[int, int]]):
        super().__init__()
        self.convolutions = nn.ModuleList(
            Conv2dFlipout(i, o, kernel_size=5, padding=2, **PRIOR) for i, o in convolutions
        )
        self.dense = nn.ModuleList(LinearFlipout(i, o, **PRIOR) for i, o in dense)
        self.pool = nn.MaxPool2d(2)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (outputs, KL)."""
        total = torch.zeros(())
        for layer in self.convolutions:
            x, kl = layer(x)
            x, total = self.pool(torch.relu(x)), total + kl
        x = x.flatten(1)
        for i, layer in enumerate(self.dense):
            x, kl = layer(x)
            total = total + kl
            if i + 1 < len(self.dense):
                x = torch.relu(x)
        return x, total


NETWORKS = {
    "mlp": (([], [(784, 400), (400, 400), (400, 10)]), (784,)),
    "cnn": (([(1, 32), (32, 64)], [(64 * 7 * 7, 128), (128, 10)]), (1, 28, 28)),
}
"""Layers, and the shape of an input."""


def training(*, model: str, rows: int, batch: int, steps: int) -> Ready:
    """Return the contestant, two steps of which are taken to warm up."""
    sizes, shape = NETWORKS[model]
    network = Network(*sizes)
    x, y = (torch.from_numpy(part) for part in inputs(rows, shape, 10))
    optimizer = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)

    def take(number: int) -> float:
        started = time.perf_counter()
        for i in range(number):
            if i % (rows // batch) == 0:
                order = torch.randperm(rows)
            first = i % (rows // batch) * batch
            chosen = order[first : first + batch]
            outputs, kl = network(x[chosen])
            loss = nn.functional.cross_entropy(outputs, y[chosen]) + kl / rows
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return time.perf_counter() - started

    take(2)
    version = importlib.metadata.version("bayesian-torch")
    about = f"{version}, Flipout, torch {torch.__version__}, {torch.get_num_threads()} threads"
    numbers = {"numbers optimised": sum(p.numel() for p in network.parameters())}
    return Ready(lambda number: {"count": steps, "seconds": take(steps)}, numbers, about)


if __name__ == "__main__":
    serve({"bayesian-torch": training})
