"""How far one predictive distribution lies from another, row by row: the distance to the HMC reference."""

import numpy as np
from jaxtyping import Float
from scipy.special import rel_entr

from .score_base import (
    Array,
    Draws,
    Probs,
    RowValues,
    Score,
    check_same_rows,
    checked,
    checked_probs,
    equally_likely_points,
    mean,
)

__all__ = [
    "agreement",
    "jensen_shannon",
    "row_agreement",
    "row_jensen_shannon",
    "row_total_variation",
    "row_wasserstein2",
    "total_variation",
    "wasserstein2",
]

OtherDraws = Float[Array, "other_draw row"]

QUANTILE_LEVELS = (np.arange(1000) + 0.5) / 1000
"""Midpoints of the unit interval at which two quantile functions are compared."""


def row_agreement(probs_a: Probs, probs_b: Probs) -> RowValues:
    """Return 1[argmax_c a_ic = argmax_c b_ic] for each row, (row,); of equal probabilities the first counts.

    Example:
        >>> row_agreement(np.array([[0.9, 0.1], [0.4, 0.6]]), np.array([[0.8, 0.2], [0.7, 0.3]]))
        array([1., 0.])
    """
    a, b = _checked_pair(probs_a, probs_b)
    return (a.argmax(1) == b.argmax(1)).astype(np.float64)


def agreement(probs_a: Probs, probs_b: Probs) -> Score:
    """Return the share of rows where both predictions have the same most probable class.

    Source: Izmailov et al. (2021), What Are Bayesian Neural Network Posteriors Really Like?, section 5, and the
    NeurIPS 2021 competition on approximate inference (Wilson et al. 2022).

    Example:
        >>> agreement(np.array([[0.9, 0.1], [0.4, 0.6]]), np.array([[0.8, 0.2], [0.7, 0.3]])).value
        0.5
    """
    return mean(row_agreement(probs_a, probs_b))


def row_total_variation(probs_a: Probs, probs_b: Probs) -> RowValues:
    """Return ½ Σ_class |p_a − p_b| for each row, (row,), between 0 and 1.

    Example:
        >>> row_total_variation(np.array([[0.9, 0.1]]), np.array([[0.6, 0.4]])).round(6)
        array([0.3])
    """
    a, b = _checked_pair(probs_a, probs_b)
    return np.abs(a - b).sum(1) / 2


def total_variation(probs_a: Probs, probs_b: Probs) -> Score:
    """Return the mean over rows of ½ Σ_class |p_a − p_b|, between 0 and 1. Source: as `agreement`.

    Example:
        >>> round(total_variation(np.array([[0.9, 0.1]]), np.array([[0.6, 0.4]])).value, 6)
        0.3
    """
    return mean(row_total_variation(probs_a, probs_b))


def row_jensen_shannon(probs_a: Probs, probs_b: Probs) -> RowValues:
    """Return each row's ½ KL(p_a ‖ m) + ½ KL(p_b ‖ m), m = ½ (p_a + p_b), (row,), in nats, between 0 and log 2.

    Example:
        >>> row_jensen_shannon(np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])).round(6)  # log 2
        array([0.693147])
    """
    a, b = _checked_pair(probs_a, probs_b)
    middle = (a + b) / 2
    return (rel_entr(a, middle) + rel_entr(b, middle)).sum(1) / 2


def jensen_shannon(probs_a: Probs, probs_b: Probs) -> Score:
    """Return the mean over rows of the Jensen-Shannon divergence ½ KL(p_a ‖ m) + ½ KL(p_b ‖ m), m = ½ (p_a + p_b).

    In nats, between 0 and log 2.

    Source: Lin (1991), Divergence measures based on the Shannon entropy.

    Example:
        >>> round(jensen_shannon(np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])).value, 6)  # log 2
        0.693147
    """
    return mean(row_jensen_shannon(probs_a, probs_b))


def row_wasserstein2(loc_a: Draws, scale_a: Draws, loc_b: OtherDraws, scale_b: OtherDraws) -> RowValues:
    """Return each row's 2-Wasserstein distance of two mixtures of Normals, (row,): see `wasserstein2`.

    Example:
        >>> one, two = np.zeros((1, 2)), np.full((1, 2), 2.0)
        >>> row_wasserstein2(one, one + 1, two, one + 1).round(6)
        array([2., 2.])
    """
    ours, theirs = _quantiles(loc_a, scale_a), _quantiles(loc_b, scale_b)
    check_same_rows("loc_a", ours.shape[1], "loc_b", theirs.shape[1])
    return np.sqrt(((ours - theirs) ** 2).mean(0))


def wasserstein2(loc_a: Draws, scale_a: Draws, loc_b: OtherDraws, scale_b: OtherDraws) -> Score:
    """Return the mean over rows of the 2-Wasserstein distance of two predictive mixtures of Normals.

    W₂² = ∫₀¹ (F_a⁻¹(u) − F_b⁻¹(u))² du for distributions on the line, by the midpoint rule at 1,000 levels, with
    at least 16 equally likely points for each draw's Normal, and 4,000 in all. In the unit of the target.

    Source: Villani (2003), Topics in Optimal Transportation, theorem 2.18.

    Example:
        >>> one, two = np.zeros((1, 3)), np.full((1, 3), 2.0)
        >>> round(wasserstein2(one, one + 1, two, one + 1).value, 6)  # a shift by 2
        2.0
    """
    return mean(row_wasserstein2(loc_a, scale_a, loc_b, scale_b))


def _checked_pair(probs_a: Probs, probs_b: Probs) -> tuple[np.ndarray, np.ndarray]:
    a, b = checked_probs(probs_a), checked_probs(probs_b)
    if a.shape != b.shape:
        raise ValueError(f"probs_a has shape {a.shape} but probs_b has {b.shape}: predict the same rows with both")
    return a, b


def _quantiles(loc: Draws, scale: Draws) -> np.ndarray:
    """Return the mixture's quantiles (level, row) from equally likely points of each of its Normals."""
    loc, scale = checked("loc", loc, "draw", "row"), checked("scale", scale, "draw", "row")
    if loc.shape != scale.shape:
        raise ValueError(f"loc has shape {loc.shape} but scale has {scale.shape}: pass both as (draw, row)")
    points = equally_likely_points(len(loc), 16, 4000)
    ranks = np.arange(points.size)
    # as np.quantile, which selects each of many levels on its own and takes a thousand times as long
    columns = [
        np.interp(QUANTILE_LEVELS * ranks[-1], ranks, np.sort((mean_ + sd * points).ravel()))
        for mean_, sd in zip(loc.T, scale.T, strict=True)
    ]
    return np.stack(columns, axis=1)
