"""Is a classifier as sure as it is right: reliability curve, expected calibration error, its null level."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Integer

from .score_base import (
    Labels,
    Probs,
    Score,
    bootstrap_error,
    check_at_least,
    checked_classification,
    checked_probs,
    score_of_rows,
)

__all__ = [
    "ReliabilityCurve",
    "class_wise_ece",
    "ece",
    "ece_null",
    "maximum_calibration_error",
    "reliability_curve",
    "signed_calibration_error",
]

Bins = Literal["width", "mass"]


@dataclass(frozen=True)
class ReliabilityCurve:
    """Mean confidence and accuracy in each bin of confidence; both NaN where no row fell.

    Bin k is (edges[k], edges[k + 1]]; the first bin holds its left edge, 0, too.
    """

    confidence: Float[np.ndarray, " bin"]
    accuracy: Float[np.ndarray, " bin"]
    count: Integer[np.ndarray, " bin"]
    edges: Float[np.ndarray, " edge"]


def reliability_curve(probs: Probs, y: Labels, num_bins: int = 15, bins: Bins = "width") -> ReliabilityCurve:
    """Accuracy against confidence max_c p_c, by bins of confidence.

    Args:
        probs: (row, class), each row sums to 1.
        y: (row,), integers in [0, class).
        num_bins: how many bins cover [0, 1].
        bins: "width" for equal width; "mass" for equally many rows, where rows of equal confidence always
            share a bin (so some bins may be empty).

    Returns:
        ReliabilityCurve, arrays (bin,) and edges (bin + 1,).

    Raises:
        ValueError: probs and y do not fit each other, num_bins is below 1, or bins is another word.

    >>> curve = reliability_curve(np.array([[0.5, 0.5], [0.0, 1.0]]), np.array([0, 1]), num_bins=2)
    >>> curve.count
    array([1, 1])

    Source: Guo et al. 2017, On calibration of modern neural networks, eq. 3; "mass": Nixon et al. 2019.
    """
    return _curve(*_confidence_and_correct(probs, y), num_bins, bins)


def _curve(confidence: np.ndarray, correct: np.ndarray, num_bins: int, bins: Bins) -> ReliabilityCurve:
    edges = _edges(confidence, num_bins, bins)
    bin_of_row = _bin_of_row(confidence, edges)
    count = np.bincount(bin_of_row, minlength=num_bins)
    filled = np.where(count > 0, count, np.nan)  # an empty bin has no mean: NaN, without a warning
    return ReliabilityCurve(
        confidence=np.bincount(bin_of_row, weights=confidence, minlength=num_bins) / filled,
        accuracy=np.bincount(bin_of_row, weights=correct, minlength=num_bins) / filled,
        count=count,
        edges=edges,
    )


def ece(
    probs: Probs,
    y: Labels,
    *,
    num_bins: int = 15,
    bins: Bins = "width",
    num_bootstrap: int = 200,
    seed: int = 0,
    rng: np.random.Generator | None = None,
) -> Score:
    """Expected calibration error of the top label: sum_b (n_b / n) |accuracy_b - confidence_b|.

    It is biased upward, and a perfect classifier does not score 0: read it beside `ece_null`.

    Args:
        probs: (row, class), each row sums to 1.
        y: (row,), integers in [0, class).
        num_bins: how many bins cover [0, 1].
        bins: "width" or "mass", as in `reliability_curve`.
        num_bootstrap: bootstrap replicates for the standard error; the bins' edges are held fixed.
        seed: of the bootstrap. A fixed default, as it moves only the error's own Monte Carlo error.
        rng: used instead of `seed` where given.

    Returns:
        Score in [0, 1]; the standard error by bootstrap over rows.

    Raises:
        ValueError: as `reliability_curve`, or num_bootstrap is below 2.

    >>> ece(np.array([[0.5, 0.5], [0.5, 0.5]]), np.array([0, 0])).value  # half sure, always right
    0.5

    Source: Naeini et al. 2015, Obtaining well calibrated probabilities; Guo et al. 2017, eq. 3.
    """
    confidence, correct = _confidence_and_correct(probs, y)
    curve = _curve(confidence, correct, num_bins, bins)
    gap = np.abs(curve.accuracy - curve.confidence)
    value = float(np.nansum(curve.count * gap) / curve.count.sum())

    order = np.lexsort((correct, confidence))
    excess = (correct - confidence)[order]
    bin_of_row = _bin_of_row(confidence, curve.edges)[order]

    def resampled_error(rows: np.ndarray) -> float:
        return _calibration_error(bin_of_row[rows], excess[rows], num_bins)

    rows = np.arange(len(order))
    error = bootstrap_error(resampled_error, rows, num_bootstrap=num_bootstrap, seed=seed, rng=rng)
    return Score(value, error)


def ece_null(
    probs: Probs, *, num_bins: int = 15, bins: Bins = "width", num_simulations: int = 200, seed: int = 0
) -> Score:
    """The ECE that a perfectly calibrated classifier with these very confidences shows at this many rows.

    Labels are drawn from `probs`, y_i ~ Categorical(p_i); all that matters is whether the top label came up,
    which is Bernoulli(max_c p_ic).

    Args:
        probs: (row, class), each row sums to 1.
        num_bins: as for the `ece` it stands beside.
        bins: as for the `ece` it stands beside.
        num_simulations: how many label sets are drawn.
        seed: of the simulation.

    Returns:
        Score: the mean ECE over simulations and, as standard_error, the *sd over simulations*: an observed
        ECE less than about two of them above the mean is no evidence of miscalibration.

    Raises:
        ValueError: bad probs, num_bins below 1, num_simulations below 2, or bins is another word.

    >>> ece_null(np.array([[1.0, 0.0], [1.0, 0.0]]))  # certain and always right
    Score(value=0.0, standard_error=0.0)

    Source: Bröcker and Smith 2007, Increasing the reliability of reliability diagrams (consistency
    resampling); Vaicenavicius et al. 2019, Evaluating model calibration in classification.
    """
    check_at_least("num_simulations", num_simulations, 2)
    confidence = np.sort(checked_probs(probs).max(axis=1))  # sorted: the same for every order of rows
    bin_of_row = _bin_of_row(confidence, _edges(confidence, num_bins, bins))
    rng = np.random.default_rng(seed)
    errors = [
        _calibration_error(bin_of_row, (rng.random(len(confidence)) < confidence) - confidence, num_bins)
        for _ in range(num_simulations)
    ]
    return Score(float(np.mean(errors)), float(np.std(errors, ddof=1)))


def signed_calibration_error(probs: Probs, y: Labels) -> Score:
    """Mean confidence less accuracy: above 0 the classifier is overconfident, below 0 underconfident.

    The ECE tells how far the two are apart and not which is larger; errors of both signs cancel here.

    Args:
        probs: (row, class), each row sums to 1.
        y: (row,), integers in [0, class).

    Returns:
        Score in [-1, 1], sd / sqrt(rows).

    >>> signed_calibration_error(np.array([[0.5, 0.5], [0.5, 0.5]]), np.array([0, 0])).value  # half sure, always right
    -0.5

    Source: "calibration in the large", Cox 1958; "confidence - accuracy", Guo et al. 2017, figure 2.
    """
    confidence, correct = _confidence_and_correct(probs, y)
    return score_of_rows(confidence - correct)


def maximum_calibration_error(
    probs: Probs, y: Labels, *, num_bins: int = 15, bins: Bins = "mass", num_bootstrap: int = 200, seed: int = 0
) -> Score:
    """Largest |accuracy_b - confidence_b| over the bins that hold rows.

    Bins of equal mass by default: among bins of equal width the largest gap is mostly that of the emptiest bin.

    Args:
        probs: (row, class), each row sums to 1.
        y: (row,), integers in [0, class).
        num_bins: how many bins.
        bins: as in `reliability_curve`.
        num_bootstrap: bootstrap replicates for the standard error; the bins' edges are held fixed.
        seed: of the bootstrap.

    Returns:
        Score in [0, 1], biased upward like the ECE.

    Raises:
        ValueError: as `ece`.

    >>> maximum_calibration_error(np.array([[0.5, 0.5], [0.0, 1.0]]), np.array([0, 1]), num_bins=2).value
    0.5

    Source: Naeini et al. 2015; Guo et al. 2017, eq. 5.
    """
    confidence, correct = _confidence_and_correct(probs, y)
    order = np.lexsort((correct, confidence))
    bin_of_row = _bin_of_row(confidence, _edges(confidence, num_bins, bins))[order]
    excess = (correct - confidence)[order]

    def largest(rows: np.ndarray) -> float:
        count = np.bincount(bin_of_row[rows], minlength=num_bins)
        total = np.bincount(bin_of_row[rows], weights=excess[rows], minlength=num_bins)
        return float(np.max(np.abs(total[count > 0] / count[count > 0])))

    return _bootstrapped(largest, len(order), num_bootstrap, seed)


def class_wise_ece(probs: Probs, y: Labels, *, num_bins: int = 15, num_bootstrap: int = 200, seed: int = 0) -> Score:
    """Mean over classes of the calibration error of p_c as the probability that the label is c; bins of equal width.

    Args:
        probs: (row, class), each row sums to 1.
        y: (row,), integers in [0, class).
        num_bins: how many bins cover [0, 1].
        num_bootstrap: bootstrap replicates for the standard error; the bins' edges are held fixed.
        seed: of the bootstrap.

    Returns:
        Score in [0, 1], biased upward like the ECE.

    Raises:
        ValueError: as `ece`.

    >>> class_wise_ece(np.array([[0.5, 0.5], [0.5, 0.5]]), np.array([0, 0])).value
    0.5

    Source: Kull et al. 2019, Beyond temperature scaling, eq. 4; Nixon et al. 2019, "static calibration error".
    """
    probs, labels = checked_classification(probs, y)
    order = np.lexsort((labels, *probs.T))
    probs, labels = probs[order], labels[order]
    num_classes = probs.shape[1]
    excess = (labels[:, None] == np.arange(num_classes)) - probs
    cell = _bin_of_row(probs, _edges(probs, num_bins, "width")) + num_bins * np.arange(num_classes)

    def resampled_error(rows: np.ndarray) -> float:
        sums = np.bincount(cell[rows].ravel(), weights=excess[rows].ravel(), minlength=num_bins * num_classes)
        return float(np.abs(sums).sum() / len(rows) / num_classes)

    return _bootstrapped(resampled_error, len(order), num_bootstrap, seed)


def _bootstrapped(statistic: Callable[[np.ndarray], float], num_rows: int, num_bootstrap: int, seed: int) -> Score:
    """The statistic of all rows, given by their numbers, and its error over resamples of them."""
    rows = np.arange(num_rows)
    return Score(statistic(rows), bootstrap_error(statistic, rows, num_bootstrap=num_bootstrap, seed=seed, rng=None))


def _confidence_and_correct(probs: Probs, y: Labels) -> tuple[np.ndarray, np.ndarray]:
    probs, labels = checked_classification(probs, y)
    return probs.max(axis=1), (probs.argmax(axis=1) == labels).astype(np.float64)


def _calibration_error(bin_of_row: np.ndarray, excess: np.ndarray, num_bins: int) -> float:
    """sum_b |sum_{i in b} (correct_i - confidence_i)| / n, which is the ECE without its n_b."""
    return float(np.abs(np.bincount(bin_of_row, weights=excess, minlength=num_bins)).sum() / len(excess))


def _edges(confidence: np.ndarray, num_bins: int, bins: Bins) -> np.ndarray:
    check_at_least("num_bins", num_bins, 1)
    edges = np.linspace(0.0, 1.0, num_bins + 1)
    if bins == "mass":
        # The smallest confidence that at least k / num_bins of the rows do not exceed, in exact integers:
        # ties give equal edges, so empty bins, and never a tie that is split by the order of rows.
        rank = -(-np.arange(1, num_bins) * len(confidence) // num_bins)
        edges[1:-1] = np.sort(confidence)[rank - 1]
    elif bins != "width":
        raise ValueError(f'bins is {bins!r} but should be "width" or "mass": pass one of the two')
    return edges


def _bin_of_row(confidence: np.ndarray, edges: np.ndarray) -> np.ndarray:
    # Bins are (left, right]; a confidence of exactly 0 has no left neighbour and joins the first bin.
    return np.maximum(np.searchsorted(edges, confidence, side="left") - 1, 0)
