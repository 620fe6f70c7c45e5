"""How much memory is left, how much a fit will hold, and a sentence instead of a crash where it would not fit."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

__all__ = ["Holding", "available_bytes", "holding", "require_room"]

CGROUP = Path("/sys/fs/cgroup")
"""Where Linux says what a container may use; elsewhere there is no such folder."""

SHARE = 0.8
"""The part of the free memory that data or draws may take: the rest is for what computes with them."""

STATISTICS = 10
"""Numbers at most that a sampler records of a draw beside its sites."""

COPIES_OF_RECORD = 2
"""Of all draws of a sampler, warm-up included: what each call recorded, and all of it joined."""

COPIES_OF_CHAINS = 3
"""Of the draws that a sampler keeps: in the unconstrained and the constrained space (measured: 2), and in its file."""

COPIES_OF_DRAWS = 5
"""Of the draws of the other methods, which noise and densities of the same size are taken of (measured: 4.1)."""

COPIES_OF_STATE = 12
"""Vectors of the size of the model for each chain or optimisation: position, gradient, moments, the state before."""

COPIES_OF_MASS = 3
"""Matrices of a dense mass matrix: its estimate, the matrix and its factor."""

COPIES_OF_LOSSES = 3
"""Of the loss at each step, in the compiled chunk (a tenth of all) and in memory."""


def available_bytes() -> int:
    """Bytes that this process may still take: free memory, or less where a container's limit is nearer."""
    left = [psutil.virtual_memory().available]
    for limit, used in (
        ("memory.max", "memory.current"),  # cgroup 2
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),  # cgroup 1
    ):
        try:
            left.append(int((CGROUP / limit).read_text()) - int((CGROUP / used).read_text()))
        except (OSError, ValueError):  # no container, or no limit ("max")
            continue
    return max(min(left), 0)


@dataclass(frozen=True)
class Holding:
    """What a fit holds in memory: an estimate, made before anything is computed.

    Attributes:
        kept: bytes of the draws that its result keeps.
        peak: bytes at most while it runs, the result and copies included.
        product: what the numbers are a product of, such as "4 chains x 1,000 draws x 1,210 parameters x 4 bytes".
        advice: what would make it less.
    """

    kept: float
    peak: float
    product: str
    advice: str

    def __str__(self) -> str:
        """Return the peak and what it is made of."""
        return f"about {self.peak / 2**30:,.1f} GiB of memory ({self.product}, and copies of them)"


def holding(method: Any, sites: Mapping[str, Any]) -> Holding:
    """Estimate what a method holds while it fits a model.

    A sampler records every draw of every chain, those of the warm-up too; the other methods take their draws at the
    end.

    Arguments:
        method: the method, with its hyperparameters.
        sites: the model's latent sites, as `latent_sites` returns them.
    """
    entries = sum(math.prod(site.shape) for site in sites.values())
    size = max(np.dtype(site.dtype).itemsize for site in sites.values())
    chains, draws = getattr(method, "num_chains", 1), getattr(method, "num_draws", 1)
    # a sampler that is tuned ahead of its draws records none of the tuning but a part of it, for the time it takes
    share = float(getattr(method, "RECORDED_WARMUP", 1.0))
    warmup = share * getattr(method, "num_warmup", 0)
    members = getattr(method, "size", 1)
    state = COPIES_OF_STATE + 2 * getattr(method, "max_tree_depth", 0)  # NUTS keeps two vectors of each doubling
    numbers = float(chains * state * entries)
    advice = "take a smaller model"
    record, width, copies = 0.0, entries, COPIES_OF_DRAWS
    if hasattr(method, "num_chains"):
        width, copies = entries + STATISTICS, COPIES_OF_CHAINS
        record = COPIES_OF_RECORD * chains * (warmup + draws) * width
        numbers += COPIES_OF_MASS * chains * entries**2 if getattr(method, "dense_mass", False) else 0
        advice = "take fewer draws (num_draws, num_warmup), fewer chains (num_chains) or a smaller model"
        counted = f"{chains:,} chains x {warmup + draws:,.0f} draws with those of the warm-up"
    elif hasattr(method, "size"):
        draws = members
        advice = "take fewer members (size), fewer steps (num_steps) or a smaller model"
        counted = f"{members:,} members"
    else:
        advice = "take fewer draws (num_draws), fewer steps (num_steps) or a smaller model"
        counted = f"{draws:,} draws"
        if not hasattr(method, "num_draws"):
            counted, advice = "1 point", "take fewer steps (num_steps) or a smaller model"
    steps = getattr(method, "num_steps", 0) * members * getattr(method, "num_restarts", 1)
    kept = float(chains * draws * width)
    numbers += record + copies * kept + COPIES_OF_LOSSES * steps
    product = f"{counted} x {entries:,} parameters x {size} bytes"
    if steps > entries * draws:
        product += f", {steps:,} steps"
    if getattr(method, "dense_mass", False):
        product += f", a dense mass matrix of {entries:,} x {entries:,} for each chain"
    return Holding(size * kept, size * numbers, product, advice)


def require_room(name: str, needed: Holding) -> None:
    """Raise ValueError where a fit would hold more than four fifths of the memory that is left.

    Arguments:
        name: the method's name.
        needed: what it would hold.

    Example:
        >>> require_room("nuts", Holding(1e18, 4e18, "4 chains x 1e9 draws", "take fewer draws"))  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        ValueError: nuts would hold about 3,725,290,298.5 GiB of memory (4 chains x 1e9 draws, and copies of them) ...
    """
    left = available_bytes()
    if needed.peak > SHARE * left:
        raise ValueError(
            f"{name} would hold {needed} and {left / 2**30:,.1f} GiB are free, of which {SHARE:.0%} may be taken: "
            f"{needed.advice}"
        )
