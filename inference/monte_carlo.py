"""The posterior's Monte Carlo error of any score: the score again under other weights of the batches of draws."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from .score_base import check_at_least

__all__ = ["BatchReplicates", "batch_replicates"]

LEAST_BATCHES = 8
"""Fewer do not halve in enough ways (of two, each half is one batch): they are left out one at a time."""


@dataclass(frozen=True, eq=False)
class BatchReplicates:
    """Weights of the batches, and what the spread of a score under them is times for a variance.

    Attributes:
        weights: (replicate, batch), 1 for a batch that takes part and 0 for one that does not; no replicate for a
            single batch. The first halve the batches, the last the chains.
        factor: variance = factor · sum over the replicates that halve batches of (score − its mean over them)².
        num_by_chain: how many replicates halve the chains.
        factor_by_chain: variance = factor_by_chain · sum over those of (score − mean over the halves of batches)²: two
            or three of them do not know a mean of their own, and all halves share the bias of half as many draws.
    """

    weights: Float[np.ndarray, "replicate batch"]
    factor: float
    num_by_chain: int = 0
    factor_by_chain: float = 0.0

    def error(self, value: float, under: Sequence[float] | Float[np.ndarray, " replicate"]) -> float:
        """Return the Monte Carlo error of a score from its value, and from those under each of the weights.

        NaN for a single batch, which cannot tell its own error, and for an infinite value.
        """
        if not len(under):
            return float("nan")
        with np.errstate(invalid="ignore"):
            differences = np.asarray(under, np.float64) - value
            of_batches, of_chains = np.split(differences, [len(differences) - self.num_by_chain])
            middle = of_batches.mean()
            by_batch = self.factor * np.sum((of_batches - middle) ** 2)
            by_chain = self.factor_by_chain * np.sum((of_chains - middle) ** 2)
            return float(np.sqrt(np.maximum(by_batch, by_chain)))  # NaN where one of them is


def batch_replicates(num_batches: int, num_chains: int = 1) -> BatchReplicates:
    """Return balanced half-samples of the batches: every replicate averages over half of them.

    With H a Hadamard matrix, replicate r takes the batches with H_rb = +1. Its rows are orthogonal, so that for a
    mean over draws the error is sd(batch means) / √batches, to a few percent, as the jackknife's. A half-sample
    differs from the whole by as much as the whole does from the truth, where the jackknife moves a score by
    1 / √batches of that: for a score that jumps, such as an accuracy or an ECE, rows flip in proportion, and scaled
    back up the jackknife is √√batches too large for an accuracy, and more for binned scores. The spread is taken
    about the half-samples' own mean, which leaves out the bias of having half as many draws, and of a row that flips
    counts p (1 − p), as between fits. Below 8 batches the jackknife it is all the same.

    Batches of one chain are alike where it remembers for longer than a batch, or sits in a mode of its own. So chains
    are halved as well, where there are three or more, and the larger of the two errors counts: from four chains alone
    it would be noise, and the larger of the two is 15 % too large on average where batches would do.

    Args:
        num_batches: how many batches (chains, or blocks of draws longer than their autocorrelation).
        num_chains: chains that they come from, equally many of each, one chain after the other.

    Returns:
        BatchReplicates.

    Raises:
        ValueError: num_batches is below 1.

    >>> batch_replicates(20).weights.shape, batch_replicates(20).weights.sum(axis=1)[:3]
    ((19, 20), array([10., 10., 10.]))
    >>> batch_values = np.arange(12.0)
    >>> replicates = batch_replicates(12)
    >>> means = [np.average(batch_values, weights=weights) for weights in replicates.weights]
    >>> round(replicates.error(5.5, means), 1), float(round(np.std(batch_values, ddof=1) / np.sqrt(12), 1))
    (1.0, 1.0)

    Source: McCarthy 1969, Pseudo-replication: half samples; Wolter 2007, Introduction to variance estimation,
    chapter 3; the matrix: Paley 1933, On orthogonal matrices.
    """
    check_at_least("num_batches", num_batches, 1)
    if num_batches < LEAST_BATCHES:
        left_out = 1.0 - np.eye(num_batches) if num_batches > 1 else np.empty((0, 1))
        return BatchReplicates(left_out, (num_batches - 1) / num_batches)
    weights, factor = _halves(num_batches)
    factor *= (num_batches - 1) / (num_batches - 2)  # the mean over replicates takes one degree of freedom with it
    if not 3 <= num_chains < num_batches:
        return BatchReplicates(weights, factor)
    by_chain, factor_by_chain = _halves(num_chains)
    weights = np.vstack([weights, np.repeat(by_chain, num_batches // num_chains, axis=1)])
    return BatchReplicates(weights, factor, len(by_chain), factor_by_chain)


def _halves(number: int) -> tuple[np.ndarray, float]:
    """Balanced halves of three things or more, (replicate, thing), and the factor that makes a variance of them."""
    signs = _paley(number)
    signs[1::2] *= -1  # the other half will do as well: so that every one of them takes part about as often
    # The first row is all of them. Where the matrix has more columns than there are things the halves are nearly so:
    # a mean over k of n things differs from that over all by σ² (1 / k − 1 / n), where σ² / n is wanted.
    weights = (signs[1:, :number] > 0).astype(float)
    return weights, 1 / number / float(np.sum(1 / weights.sum(axis=1) - 1 / number))


def _paley(least: int) -> np.ndarray:
    """The smallest Hadamard matrix of Paley's first kind with at least so many columns, its first row all +1."""
    prime = next(q for q in itertools.count(least - 1) if q % 4 == 3 and all(q % d for d in range(2, q)))
    squares = {i * i % prime for i in range(1, prime)}
    character = np.array([0, *(1 if i in squares else -1 for i in range(1, prime))])
    core = character[np.subtract.outer(np.arange(prime), np.arange(prime)) % prime]
    skew = np.block([[np.zeros((1, 1), int), np.ones((1, prime), int)], [-np.ones((prime, 1), int), core]])
    matrix = skew + np.eye(prime + 1, dtype=int)
    return matrix * matrix[0]  # columns by their sign in the first row
