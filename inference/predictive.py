"""What a prediction is: a mixture over posterior draws, of class probabilities or of Normals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from .base import counted

__all__ = ["ClassPredictive", "NormalPredictive", "Predictive"]


@dataclass(frozen=True, eq=False)
class ClassPredictive:
    """Predictive class probabilities: the equally weighted mixture over draws, kept as means over batches of draws.

    Attributes:
        batch_probs: mean probabilities in each batch of draws (batch, row, class).
        batch_entropy: mean entropy of a draw's probabilities in each batch (batch, row), in nats.
        batch_size: draws in each batch (batch,).
        log_likelihood: log p(y | x, draw) (chain, draw, row), where y was given and every draw's was asked for.
        batch_log_likelihood: its mean over the draws of each batch (batch, row), where y was given.
        num_chains: chains that the batches come from, equally many of each, one chain after the other.
    """

    batch_probs: Float[np.ndarray, "batch row class"]
    batch_entropy: Float[np.ndarray, "batch row"]
    batch_size: np.ndarray
    log_likelihood: Float[np.ndarray, "chain draw row"] | None = None
    batch_log_likelihood: Float[np.ndarray, "batch row"] | None = None
    num_chains: int = 1

    def __repr__(self) -> str:
        """Return one line; the arrays themselves would fill the screen."""
        _, rows, classes = self.batch_probs.shape
        draws = counted(int(self.batch_size.sum()), "draw")
        return f"ClassPredictive({counted(rows, 'row')}, {classes} classes: the mean over {draws})"

    @property
    def probs(self) -> Float[np.ndarray, "row class"]:
        """Probabilities of the mixture (row, class)."""
        return self.mixture(self.batch_size)[0]

    @property
    def log_probs(self) -> Float[np.ndarray, "row class"]:
        """Logarithms of `probs` (row, class), in nats; a probability that underflows counts as the least float."""
        probs = self.probs
        return np.log(np.maximum(probs, np.finfo(self.batch_probs.dtype).tiny))

    @property
    def aleatoric_entropy(self) -> Float[np.ndarray, " row"]:
        """Mean entropy of the draws' probabilities (row,), in nats."""
        return self.mixture(self.batch_size)[1]

    def mixture(
        self, weights: Float[np.ndarray, " batch"]
    ) -> tuple[Float[np.ndarray, "row class"], Float[np.ndarray, " row"]]:
        """Return (probabilities (row, class), mean entropy (row,)) of the batches under these weights."""
        weights = weights / weights.sum()
        return np.tensordot(weights, self.batch_probs, 1), np.tensordot(weights, self.batch_entropy, 1)


@dataclass(frozen=True, eq=False)
class NormalPredictive:
    """Predictive density: the equally weighted mixture over draws of Normals.

    Attributes:
        loc: means (chain, draw, row).
        scale: standard deviations (chain, draw, row), noise included.
        batch: number of the batch of draws that each draw belongs to (chain, draw).
        log_likelihood: log p(y | x, draw) (chain, draw, row), where y was given.
        noise_scale: the part of `scale` that is noise (chain, draw, row), where a draw leaves doubt about the mean
            as well, as a Gaussian process does; None where all of it is noise.
    """

    loc: Float[np.ndarray, "chain draw row"]
    scale: Float[np.ndarray, "chain draw row"]
    batch: np.ndarray
    log_likelihood: Float[np.ndarray, "chain draw row"] | None = None
    noise_scale: Float[np.ndarray, "chain draw row"] | None = None

    def __repr__(self) -> str:
        """Return one line; the arrays themselves would fill the screen."""
        chains, draws, rows = self.loc.shape
        return f"NormalPredictive({counted(rows, 'row')}: a mixture of {counted(chains * draws, 'draw')})"

    @property
    def noise(self) -> Float[np.ndarray, "chain draw row"]:
        """Standard deviation of the noise under each draw (chain, draw, row)."""
        return self.scale if self.noise_scale is None else self.noise_scale

    @property
    def mean(self) -> Float[np.ndarray, " row"]:
        """Mean of the mixture (row,)."""
        return self.loc.mean((0, 1))

    @property
    def epistemic_sd(self) -> Float[np.ndarray, " row"]:
        """Standard deviation that is not noise (row,): that of the means over draws, and each draw's own doubt."""
        doubt = (self.scale**2 - self.noise**2).mean((0, 1))
        return np.sqrt(self.loc.var((0, 1)) + np.maximum(doubt, 0))

    @property
    def total_sd(self) -> Float[np.ndarray, " row"]:
        """Standard deviation of the mixture (row,)."""
        return np.sqrt(self.loc.var((0, 1)) + (self.scale**2).mean((0, 1)))


Predictive = ClassPredictive | NormalPredictive
