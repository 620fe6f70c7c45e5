"""Selective prediction: how often is a classifier wrong where it was let to answer only what it is surest of?"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from .score_base import Array, Rows, Score, bootstrap_error, check_same_rows, checked

__all__ = ["RiskCoverage", "aurc", "risk_at_coverage", "risk_coverage"]

Losses = Float[Array, " row"]


@dataclass(frozen=True)
class RiskCoverage:
    """Mean loss of the rows that are answered, against the share of rows that are.

    Rows of equal uncertainty share the mean loss of their group, so the curve does not depend on the order of rows.
    """

    coverage: Float[np.ndarray, " row"]
    risk: Float[np.ndarray, " row"]


def risk_coverage(uncertainty: Rows, losses: Losses) -> RiskCoverage:
    """Return the risk-coverage curve: risk_k is the mean loss of the k rows of least uncertainty, coverage_k is k / n.

    Args:
        uncertainty: (row,), in any unit, such as an entropy or a negative confidence; its order alone counts.
        losses: (row,), such as 1 where a prediction is wrong and 0 where it is right.

    Returns:
        RiskCoverage, arrays (row,), coverage rising from 1 / rows to 1.

    Raises:
        ValueError: the two differ in length.

    >>> risk_coverage(np.array([0.1, 0.5, 0.9]), np.array([0.0, 0.0, 1.0])).risk.round(2)
    array([0.  , 0.  , 0.33])

    Source: El-Yaniv and Wiener 2010, On the foundations of noise-free selective classification.
    """
    uncertainty, losses = _checked(uncertainty, losses)
    counts = np.arange(1, len(losses) + 1)
    return RiskCoverage(counts / len(losses), _risk(uncertainty, losses))


def aurc(uncertainty: Rows, losses: Losses, *, num_bootstrap: int = 200, seed: int = 0) -> Score:
    """Return the area under the risk-coverage curve: the mean over k of the mean loss of the k surest rows.

    Args:
        uncertainty: as `risk_coverage` takes it.
        losses: as `risk_coverage` takes them.
        num_bootstrap: bootstrap replicates for the standard error.
        seed: of the bootstrap.

    Returns:
        Score in the unit of the losses; lower is better, and a random order scores the mean loss.

    Raises:
        ValueError: the two differ in length, or num_bootstrap is below 2.

    >>> round(aurc(np.array([0.1, 0.5, 0.9]), np.array([0.0, 0.0, 1.0])).value, 4)
    0.1111

    Source: Geifman, Uziel and El-Yaniv 2019, Bias-reduced uncertainty estimation for deep neural classifiers.
    """

    def area(rows: np.ndarray) -> float:
        return float(_risk(rows[:, 0], rows[:, 1]).mean())

    return _score(area, uncertainty, losses, num_bootstrap, seed)


def risk_at_coverage(
    uncertainty: Rows, losses: Losses, coverage: float, *, num_bootstrap: int = 200, seed: int = 0
) -> Score:
    """Return the mean loss of the surest ceil(coverage · n) rows.

    Args:
        uncertainty: as `risk_coverage` takes it.
        losses: as `risk_coverage` takes them.
        coverage: share of the rows that are answered, above 0 and at most 1.
        num_bootstrap: bootstrap replicates for the standard error.
        seed: of the bootstrap.

    Returns:
        Score in the unit of the losses.

    Raises:
        ValueError: the two differ in length, the coverage is out of range, or num_bootstrap is below 2.

    >>> risk_at_coverage(np.array([0.1, 0.5, 0.9, 0.8]), np.array([0.0, 1.0, 1.0, 1.0]), 0.5).value
    0.5

    Source: Geifman and El-Yaniv 2017, Selective classification for deep neural networks.
    """
    if not 0 < coverage <= 1:
        raise ValueError(f"coverage is {coverage} but should be above 0 and at most 1: pass a share of the rows")

    def risk(rows: np.ndarray) -> float:
        # The tolerance keeps 0.1 * 10, which rounds above 1, from counting a row more.
        answered = int(np.ceil(coverage * len(rows) - 1e-9))
        return float(_risk(rows[:, 0], rows[:, 1])[answered - 1])

    return _score(risk, uncertainty, losses, num_bootstrap, seed)


def _score(
    statistic: Callable[[np.ndarray], float], uncertainty: Rows, losses: Losses, num_bootstrap: int, seed: int
) -> Score:
    rows = np.stack(_checked(uncertainty, losses), axis=1)
    rows = rows[np.lexsort(rows.T)]
    error = bootstrap_error(statistic, rows, num_bootstrap=num_bootstrap, seed=seed, rng=None)
    return Score(statistic(rows), error)


def _checked(uncertainty: Rows, losses: Losses) -> tuple[np.ndarray, np.ndarray]:
    uncertainty = checked("uncertainty", uncertainty, "row", allow_infinite=True)
    losses = checked("losses", losses, "row")
    check_same_rows("uncertainty", len(uncertainty), "losses", len(losses))
    return uncertainty, losses


def _risk(uncertainty: np.ndarray, losses: np.ndarray) -> np.ndarray:
    """Mean loss of the k surest rows, for every k; within a tie, that of its rows in a random order, on average."""
    _, group, sizes = np.unique(uncertainty, return_inverse=True, return_counts=True)
    shared = (np.bincount(group, weights=losses) / sizes)[np.sort(group)]
    return np.cumsum(shared) / np.arange(1, len(losses) + 1)
