"""One cell of the growth benchmark, in a process of its own so that the peak of its memory is its own.

`python -m hmcvi.benchmarks.growth_cell '{"curve": "rows", "subject": "svi", "size": 1000}'` makes one fit and prints
one line of JSON: what it took, or why it failed. `growth.py` starts one process for each cell.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import psutil

from hmcvi.inference import MAP, MCLMC, NUTS, SVI, BayesByBackprop, Ensemble, FitError, Laplace, Method, fit
from hmcvi.models import gp, hsgp, mlp, sgp

from .memory import peak_bytes

__all__ = ["CURVES", "Cell", "Curve", "measure", "request"]

MIB = 2**20


@dataclass(frozen=True)
class Curve:
    """What grows, by which sizes, whose cost is measured, and the rest of the request.

    Attributes:
        title: what grows, in words.
        per_gradient: whether time is that of one gradient; else of the whole fit's loop.
        sizes: by subject, in increasing order.
        options: of `request`, in place of its defaults.
    """

    title: str
    per_gradient: bool
    sizes: dict[str, tuple[int, ...]]
    options: dict[str, float]


ROWS = (250, 1500, 10_000, 64_000)
WIDTHS = (4, 24, 160, 1024)
DRAWS = (100, 500, 2500, 10_000)
CHAINS = (1, 2, 4, 8)
EXACT_ROWS = (250, 500, 1000, 2000, 4000)
"""Of the exact Gaussian process, whose gradient takes rows³: `gp` serves 4,096."""

EVERY = ("nuts", "mclmc", "svi", "bbb", "map", "laplace")

CURVES = {
    "rows": Curve("training rows", True, dict.fromkeys(EVERY, ROWS), {}),
    "parameters": Curve("parameters", True, dict.fromkeys(EVERY, WIDTHS), {}),
    "draws": Curve(
        "draws", False, dict.fromkeys(("nuts", "mclmc", "svi", "bbb", "laplace"), DRAWS), {"width": 64, "depth": 3}
    ),
    "chains": Curve(
        "chains or members",
        False,
        {"nuts": CHAINS, "mclmc": CHAINS, "ensemble": (2, 4, 8, 16)},
        {"width": 64, "depth": 3, "draws": 100},
    ),
    "gp rows": Curve("rows of a GP", True, {"gp": EXACT_ROWS, "hsgp": ROWS, "sgp": ROWS}, {}),
}
"""Everything but what grows stays as `Setting` has it, or as the curve's own options."""


@dataclass(frozen=True)
class Setting:
    """The size of everything, of which a curve changes one.

    Attributes:
        rows: training rows; samplers read all of them in each gradient, the other methods 128 in each step.
        width: hidden units of the MLP 16-width-4.
        draws: draws kept of each chain.
        chains: chains of a sampler, members of an ensemble.
        depth: of a NUTS tree at most, so that a draw takes 2^depth − 1 gradients at most.
        steps: of an optimiser.
        share: of the steps of a GP's optimiser, which `GP_STEPS` has.
    """

    rows: int = 1000
    width: int = 16
    draws: int = 50
    chains: int = 1
    depth: int = 5
    steps: int = 5000
    share: float = 1.0


QUICK = {"steps": 100, "share": 0.0, "draws": 20, "depth": 3}
"""What `--quick` makes smaller."""

NAMES = {"rows": "rows", "parameters": "width", "draws": "draws", "chains": "chains", "gp rows": "rows"}
"""Field of `Setting` that each curve's size is."""


@dataclass(frozen=True)
class Cell:
    """One fit: a point of a curve."""

    curve: str
    subject: str
    size: int
    quick: bool = False

    @property
    def setting(self) -> Setting:
        """Everything's size in this cell."""
        options: dict[str, Any] = CURVES[self.curve].options | (QUICK if self.quick else {})
        return dataclasses.replace(Setting(), **{**options, NAMES[self.curve]: self.size})


METHODS: dict[str, Callable[[Setting], Method]] = {
    "nuts": lambda s: NUTS(num_warmup=50, num_draws=s.draws, num_chains=s.chains, max_tree_depth=s.depth),
    "mclmc": lambda s: MCLMC(num_warmup=1000, num_draws=s.draws, num_chains=s.chains, thinning=2),
    # A cosine, as a plateau would end a fit before all of its steps were taken.
    "svi": lambda s: SVI(num_steps=s.steps, schedule="cosine", num_draws=s.draws),
    "bbb": lambda s: BayesByBackprop(num_steps=s.steps, schedule="cosine", num_draws=s.draws),
    "map": lambda s: MAP(num_steps=s.steps, schedule="cosine"),
    "laplace": lambda s: Laplace(num_steps=s.steps, schedule="cosine", num_draws=s.draws),
    "ensemble": lambda s: Ensemble(num_steps=s.steps, schedule="cosine", size=s.chains),
}

GP_STEPS = {"gp": (20_000, 100), "hsgp": (4_000_000, 4000), "sgp": (400_000, 1000)}
"""Rows that the steps of a GP's optimiser read together, all rows in each, and steps at most; at least 10 are taken.

Starting the loop takes a tenth of a second on a busy machine, beside which its steps must be long."""

PROCESSES: dict[str, Callable[..., Any]] = {"gp": gp, "hsgp": hsgp, "sgp": sgp}


def request(cell: Cell) -> tuple[Callable[..., Any], Method, np.ndarray, np.ndarray]:
    """Return (model, method, x, y): an MLP on 16 inputs and 4 classes, or a GP on one input, of made-up data.

    Gaussian processes are fitted by MAP over all rows, so that one step is one gradient of the log joint.
    """
    s, random = cell.setting, np.random.default_rng(0)
    if cell.subject in PROCESSES:
        x = random.uniform(-1.7, 1.7, size=(s.rows, 1)).astype(np.float32)
        y = (np.sin(3 * x[:, 0]) + random.normal(0, 0.3, s.rows)).astype(np.float32)
        read, most = GP_STEPS[cell.subject]
        steps = int(np.clip(s.share * read // s.rows, 10, most))
        method = MAP(num_steps=steps, schedule="cosine", batch_size=s.rows)
        return PROCESSES[cell.subject], method, x, y
    x = random.normal(size=(s.rows, 16)).astype(np.float32)
    scores = np.tanh(x @ random.normal(size=(16, 8))) @ random.normal(size=(8, 4))
    labels = (scores + random.gumbel(size=scores.shape)).argmax(1)
    return functools.partial(mlp, widths=(s.width,), num_classes=4), METHODS[cell.subject](s), x, labels


def measure(cell: Cell) -> dict[str, Any]:
    """Fit once and return what it took, or the sentence that refused it under "failed".

    Memory is that of the whole process: "before" the fit, with everything imported and the data made, and at its peak.
    """
    model, method, x, y = request(cell)
    jax.block_until_ready(jax.numpy.zeros(()))
    before = psutil.Process().memory_info().rss
    try:
        result = fit(jax.random.key(0), model, x, y, method, progress=False)
    except (ValueError, FitError, MemoryError) as error:
        return {"failed": str(error)}
    shapes = [draws.shape[2:] for draws in result.draws.values()]
    return {
        "parameters": sum(math.prod(shape) for shape in shapes),
        "run_seconds": result.run_seconds,
        "compile_seconds": result.compile_seconds,
        "num_gradients": result.num_gradients,
        # Laplace's Hessian is no part of its steps, and grows as nothing else does: it is spread over them
        "units": method.num_steps if isinstance(method, Laplace) else result.num_gradients,
        "before_mib": before / MIB,
        "peak_mib": peak_bytes() / MIB,
    }


if __name__ == "__main__":
    print(json.dumps(measure(Cell(**json.loads(sys.argv[1])))), flush=True)
