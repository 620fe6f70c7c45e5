"""Where a negative log-likelihood comes from: single draws less what averaging gains; refinement plus calibration."""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from .score_base import Labels, Probs, Rows, Score, check_same_rows, checked, checked_classification, score_of_rows

__all__ = ["TemperatureScaling", "averaging_gain", "temperature_scaling"]

LARGEST_TEMPERATURE = 100.0
"""The best temperature is looked for between its inverse and itself: beyond them a classifier is all but sure, or
all but uniform, and labels at random would send it there without end."""


@dataclass(frozen=True)
class TemperatureScaling:
    """An NLL in two parts, calibration + refinement = NLL, and the temperature that parts them.

    Attributes:
        temperature: the best single T in p_T ∝ p^(1/T): above 1 the classifier was overconfident, below 1
            underconfident.
        refinement: the NLL at that temperature, in nats: what no single temperature mends.
        calibration: the NLL less the refinement, in nats, never negative: what the temperature mends.
    """

    temperature: Score
    refinement: Score
    calibration: Score


def averaging_gain(log_likelihood: Rows, mean_log_likelihood: Rows) -> Score:
    """Mean of log p(y_i) - (1/D) sum_d log p_d(y_i): what averaging D draws gains over one of them drawn at random.

    p = (1/D) sum_d p_d, so by Jensen's inequality no row's gain is negative, and the mixture's NLL is exactly the
    mean NLL of single draws less this gain. Class probabilities and densities alike.

    Args:
        log_likelihood: (row,), of the mixture.
        mean_log_likelihood: (row,), the mean over draws of each draw's own.

    Returns:
        Score in nats per row, 0 for a single draw.

    Raises:
        ValueError: the two differ in length.

    >>> probs = np.array([[0.2], [0.8]])  # (draw, row), of the label
    >>> round(averaging_gain(np.log(probs.mean(axis=0)), np.log(probs).mean(axis=0)).value, 4)  # log(0.5 / 0.4)
    0.2231

    Source: Krogh and Vedelsby 1995, Neural network ensembles (the ambiguity decomposition), for the log score:
    Heskes 1998, Bias/variance decompositions for likelihood-based estimators.
    """
    mixture = checked("log_likelihood", log_likelihood, "row", allow_infinite=True)
    single = checked("mean_log_likelihood", mean_log_likelihood, "row", allow_infinite=True)
    check_same_rows("log_likelihood", len(mixture), "mean_log_likelihood", len(single))
    with np.errstate(invalid="ignore"):  # a label that every draw ruled out: -inf - -inf is NaN
        return score_of_rows(mixture - single)


def temperature_scaling(probs: Probs, y: Labels) -> TemperatureScaling:
    """Part the NLL in calibration and refinement by the one temperature that lowers it most.

    T = argmin_T -(1/n) sum_i log softmax(log p_i / T)(y_i), fitted on these very rows: one parameter, so the
    refinement is too low by about 1 / (2 n) only, and the calibration of a calibrated classifier is as much above 0.

    Args:
        probs: (row, class), each row sums to 1. A probability of 0 counts as the least float64 here.
        y: (row,), integers in [0, class).

    Returns:
        TemperatureScaling; where every row is right, the NLL falls to 0 with T, and both are 0 (error NaN). The
        errors are those of means over rows at the temperature found, which is enough: the NLL is flat there (the
        envelope theorem). That of T is the sandwich estimate of an M-estimator.

    >>> probs = np.array([[0.8, 0.2]] * 4)  # sure to 0.8, right 3 times in 4
    >>> parts = temperature_scaling(probs, np.array([0, 0, 0, 1]))
    >>> round(parts.temperature.value, 2)  # log(0.8 / 0.2) / log(0.75 / 0.25)
    1.26

    Source: Guo et al. 2017, On calibration of modern neural networks, section 4.2; calibration and refinement:
    DeGroot and Fienberg 1983; by the best recalibration: Berta et al. 2025, Rethinking early stopping.
    """
    probs, labels = checked_classification(probs, y)
    log_probs = np.log(np.maximum(probs, np.finfo(np.float64).tiny))
    rows = np.arange(len(labels))

    def row_nll(log_temperature: float) -> np.ndarray:
        return -log_softmax(log_probs * np.exp(-log_temperature), axis=1)[rows, labels]

    others = np.where(np.arange(log_probs.shape[1]) == labels[:, None], -np.inf, log_probs).max(axis=1)
    if (log_probs[rows, labels] > others).all():
        nothing = Score(0.0, float("nan"))
        return TemperatureScaling(nothing, nothing, score_of_rows(row_nll(0.0)))
    limit = np.log(LARGEST_TEMPERATURE)
    # The NLL is convex in 1 / T, so it has one minimum over log T; the values are flat at it, so 1e-6 is exact.
    found = minimize_scalar(
        lambda t: row_nll(t).mean(), bounds=(-limit, limit), method="bounded", options={"xatol": 1e-6}
    )
    best = 0.0 if row_nll(0.0).mean() <= found.fun else float(found.x)
    unscaled, scaled = row_nll(0.0), row_nll(best)
    return TemperatureScaling(
        Score(float(np.exp(best)), _temperature_error(log_probs, labels, np.exp(-best))),
        score_of_rows(scaled),
        score_of_rows(unscaled - scaled),
    )


def _temperature_error(log_probs: np.ndarray, labels: np.ndarray, inverse: float) -> float:
    """sqrt(E psi^2 / n) / E psi' at b = 1 / T, psi the derivative of a row's NLL; by the delta method times T^2."""
    if len(labels) == 1:
        return float("nan")
    scaled = np.exp(log_softmax(log_probs * inverse, axis=1))
    expected = (scaled * log_probs).sum(axis=1)
    slope = expected - log_probs[np.arange(len(labels)), labels]
    curvature = np.mean((scaled * log_probs**2).sum(axis=1) - expected**2)
    if curvature <= 0:  # uniform probabilities stay uniform at any temperature
        return float("inf")
    return float(np.sqrt(np.mean(slope**2) / len(labels)) / curvature / inverse**2)
