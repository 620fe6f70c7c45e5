"""Training steps of Pyro's SVI with AutoNormal, for `speed.py` to stand beside; run by a Python that has it.

Imports nothing of hmcvi, so that it runs in an environment of its own. The model has the sites and priors of ours.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import pyro
import pyro.distributions as dist
import torch
from peer_protocol import Ready, inputs, serve
from pyro.infer import SVI, TraceMeanField_ELBO
from pyro.infer.autoguide import AutoNormal
from torch.nn import functional

LEARNING_RATE, CLASSES = 0.001, 10


def drawn(name: str, *shape: int, fan_in: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a kernel, outputs first, and its bias."""
    scale = torch.tensor(3.0)
    kernel = dist.Normal(torch.zeros(shape), scale / math.sqrt(fan_in)).to_event(len(shape))
    bias = dist.Normal(torch.zeros(shape[0]), scale).to_event(1)
    return pyro.sample(f"{name}.kernel", kernel), pyro.sample(f"{name}.bias", bias)


def mlp(x: torch.Tensor) -> torch.Tensor:
    """Return logits (row, class)."""
    for i, width in enumerate((400, 400)):
        x = torch.relu(functional.linear(x, *drawn(f"hidden_{i}", width, x.shape[1], fan_in=x.shape[1])))
    return functional.linear(x, *drawn("out", CLASSES, x.shape[1], fan_in=x.shape[1]))


def cnn(x: torch.Tensor) -> torch.Tensor:
    """Return logits (row, class)."""
    for i, width in enumerate((32, 64)):
        channels = x.shape[1]
        weights = drawn(f"conv_{i}", width, channels, 5, 5, fan_in=25 * channels)
        x = functional.max_pool2d(torch.relu(functional.conv2d(x, *weights, padding=2)), 2)
    x = x.flatten(1)
    x = torch.relu(functional.linear(x, *drawn("hidden_0", 128, x.shape[1], fan_in=x.shape[1])))
    return functional.linear(x, *drawn("out", CLASSES, 128, fan_in=128))


MODELS: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], tuple[int, ...]]] = {
    "mlp": (mlp, (784,)),
    "cnn": (cnn, (1, 28, 28)),
}


def training(*, model: str, rows: int, batch: int, steps: int) -> Ready:
    """Return the contestant, two steps of which are taken to warm up."""
    logits, shape = MODELS[model]
    x, y = (torch.from_numpy(part) for part in inputs(rows, shape, CLASSES))

    def observed(x: torch.Tensor, y: torch.Tensor) -> None:
        outputs = logits(x)
        with pyro.plate("data", rows, subsample_size=len(x)):
            pyro.sample("y", dist.Categorical(logits=outputs), obs=y)

    pyro.clear_param_store()
    svi = SVI(observed, AutoNormal(observed), pyro.optim.Adam({"lr": LEARNING_RATE}), TraceMeanField_ELBO())

    def take(number: int) -> float:
        started = time.perf_counter()
        for i in range(number):
            if i % (rows // batch) == 0:
                order = torch.randperm(rows)
            first = i % (rows // batch) * batch
            chosen = order[first : first + batch]
            svi.step(x[chosen], y[chosen])
        return time.perf_counter() - started

    take(2)
    about = f"{pyro.__version__}, torch {torch.__version__}, {torch.get_num_threads()} threads"
    numbers = {"numbers optimised": sum(p.numel() for p in pyro.get_param_store().values())}
    return Ready(lambda number: {"count": steps, "seconds": take(steps)}, numbers, about)


if __name__ == "__main__":
    serve({"pyro": training})
