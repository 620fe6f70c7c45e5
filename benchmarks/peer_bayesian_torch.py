"""Training steps of Intel's bayesian-torch, for `speed.py` to stand beside; run by a Python that has it.

Imports nothing of hmcvi, so that it runs in an environment of its own. Reads lines "CASE STEPS" from standard input,
and answers each with the seconds that so many steps of that case took, after one warm-up of each case.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
import time
from collections.abc import Callable

import torch
from bayesian_torch.layers import Conv2dFlipout, LinearFlipout
from torch import nn

BATCH_SIZE, ROWS, LEARNING_RATE = 128, 12_800, 0.001

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


def training(network: Network, shape: tuple[int, ...]) -> Callable[[int], float]:
    """Return a function that takes so many training steps and returns the seconds they took."""
    x, y = torch.rand(ROWS, *shape), torch.randint(10, (ROWS,))
    optimizer = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)

    def steps(number: int) -> float:
        started = time.perf_counter()
        for i in range(number):
            if i % (ROWS // BATCH_SIZE) == 0:
                order = torch.randperm(ROWS)
            first = i % (ROWS // BATCH_SIZE) * BATCH_SIZE
            rows = order[first : first + BATCH_SIZE]
            outputs, kl = network(x[rows])
            loss = nn.functional.cross_entropy(outputs, y[rows]) + kl / ROWS
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return time.perf_counter() - started

    return steps


def main() -> None:
    """Answer requests until the input ends."""
    cases = {
        "mlp": training(Network([], [(784, 400), (400, 400), (400, 10)]), (784,)),
        "cnn": training(Network([(1, 32), (32, 64)], [(64 * 7 * 7, 128), (128, 10)]), (1, 28, 28)),
    }
    for steps in cases.values():
        steps(2)
    about = {
        "version": torch.__version__,
        "bayesian_torch": importlib.metadata.version("bayesian-torch"),
        "threads": torch.get_num_threads(),
    }
    print(json.dumps(about), flush=True)
    for line in sys.stdin:
        case, number = line.split()
        print(cases[case](int(number)), flush=True)


if __name__ == "__main__":
    main()
