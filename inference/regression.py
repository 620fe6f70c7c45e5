"""Scores of a regression's predictive, in each row the mixture (1/D) sum_d Normal(loc_d, scale_d)."""

import numpy as np
from jaxtyping import Float
from scipy.special import logsumexp, ndtr, ndtri

from .score_base import (
    Array,
    Draws,
    Rows,
    RowValues,
    Score,
    bootstrap_error,
    check_at_least,
    check_same_rows,
    checked,
    equally_likely_points,
    score_of_rows,
)

__all__ = [
    "coverage",
    "crps",
    "interval",
    "interval_width",
    "log_likelihood",
    "normal_entropy",
    "pit",
    "pit_distance",
    "pit_distance_null",
    "rmse",
    "row_crps",
    "row_interval_width_under",
    "row_log_likelihood",
]


def rmse(loc: Draws, y: Rows) -> Score:
    """sqrt((1/n) sum_i (y_i - (1/D) sum_d loc_di)^2), the error of the mixture's mean, in the unit of y.

    Args:
        loc: (draw, row).
        y: (row,).

    Returns:
        Score; the standard error by the delta method, se(mse) / (2 rmse).

    >>> rmse(np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([0.0, 1.0]))
    Score(value=2.0, standard_error=0.0)
    """
    loc, y = checked("loc", loc, "draw", "row"), checked("y", y, "row")
    check_same_rows("loc", loc.shape[1], "y", len(y))
    mean_square, error = score_of_rows((y - loc.mean(axis=0)) ** 2)
    root = float(np.sqrt(mean_square))
    return Score(root, error / (2 * root) if root > 0 else error)


def row_log_likelihood(loc: Draws, scale: Draws, y: Rows) -> RowValues:
    """log (1/D) sum_d Normal(y_i; loc_di, scale_di) for each row, (row,), in nats (and the unit of y).

    >>> row_log_likelihood(np.array([[0.0]]), np.array([[1.0]]), np.array([0.0])).round(4)
    array([-0.9189])
    """
    loc, scale, y = _checked_normals(loc, scale, y)
    log_density = -0.5 * ((y - loc) / scale) ** 2 - np.log(scale) - 0.5 * np.log(2 * np.pi)
    return logsumexp(log_density, axis=0) - np.log(len(loc))


def log_likelihood(loc: Draws, scale: Draws, y: Rows) -> Score:
    """Mean over rows of the log density of the mixture; higher is better.

    Args:
        loc: (draw, row).
        scale: (draw, row), standard deviations, positive.
        y: (row,).

    Returns:
        Score in nats per row.

    >>> round(log_likelihood(np.zeros((1, 2)), np.ones((1, 2)), np.array([0.0, 0.0])).value, 4)
    -0.9189

    Source: Gneiting and Raftery 2007, Strictly proper scoring rules, section 4.1 (logarithmic score).
    """
    return score_of_rows(row_log_likelihood(loc, scale, y))


def pit(loc: Draws, scale: Draws, y: Rows) -> RowValues:
    """Probability integral transform F_i(y_i) = (1/D) sum_d Phi((y_i - loc_di) / scale_di), (row,).

    Uniform on [0, 1] where the predictive is calibrated.

    >>> pit(np.array([[0.0]]), np.array([[1.0]]), np.array([0.0]))
    array([0.5])

    Source: Dawid 1984; Gneiting, Balabdaoui and Raftery 2007, Probabilistic forecasts, section 3.1.
    """
    loc, scale, y = _checked_normals(loc, scale, y)
    return ndtr((y - loc) / scale).mean(axis=0)


def pit_distance(loc: Draws, scale: Draws, y: Rows, *, num_bootstrap: int = 200, seed: int = 0) -> Score:
    """Distance of the PIT from uniform, the area between its distribution function and the diagonal.

    Integral over u in [0, 1] of |(1/n) sum_i 1[F_i(y_i) <= u] - u|, exactly: the error of the coverage averaged over
    all one-sided levels at once. Like the ECE it is not 0 for a calibrated predictive: read it beside
    `pit_distance_null`.

    Args:
        loc: (draw, row).
        scale: (draw, row), standard deviations, positive.
        y: (row,).
        num_bootstrap: bootstrap replicates for the standard error.
        seed: of the bootstrap.

    Returns:
        Score in [0, 1/2]; the standard error by bootstrap over rows.

    Raises:
        ValueError: num_bootstrap is below 2.

    >>> pit_distance(np.zeros((1, 1)), np.ones((1, 1)), np.array([0.0])).value  # all at 0.5
    0.25

    Source: Kuleshov, Fenner and Ermon 2018, Accurate uncertainties for deep learning using calibrated regression,
    section 3.5; its absolute form: Dheur and Ben Taieb 2023, A large-scale study of probabilistic calibration.
    """
    transform = np.sort(pit(loc, scale, y))
    error = bootstrap_error(_area_from_diagonal, transform, num_bootstrap=num_bootstrap, seed=seed, rng=None)
    return Score(_area_from_diagonal(transform), error)


def pit_distance_null(num_rows: int, *, num_simulations: int = 1000, seed: int = 0) -> Score:
    """The `pit_distance` of a calibrated predictive at this many rows: that of uniform draws, about 0.313 / sqrt(n).

    Args:
        num_rows: n.
        num_simulations: how many sets of n uniform draws are made.
        seed: of the simulation.

    Returns:
        Score: the mean over simulations and, as standard_error, the *sd over simulations*, as `ece_null` has it.

    Raises:
        ValueError: num_rows is below 1, or num_simulations below 2.

    >>> round(pit_distance_null(400).value, 2)
    0.02

    Source: for the constant, E|Brownian bridge| integrated, sqrt(2 / pi) pi / 8: Shorack and Wellner 1986, Empirical
    processes with applications to statistics, section 3.8.
    """
    check_at_least("num_rows", num_rows, 1)
    check_at_least("num_simulations", num_simulations, 2)
    rng = np.random.default_rng(seed)
    areas = [_area_from_diagonal(rng.random(num_rows)) for _ in range(num_simulations)]
    return Score(float(np.mean(areas)), float(np.std(areas, ddof=1)))


def coverage(loc: Draws, scale: Draws, y: Rows, *, level: float = 0.9) -> Score:
    """Share of rows inside the mixture's central interval, (1 - level) / 2 <= F_i(y_i) <= (1 + level) / 2.

    Calibrated predictives score `level`: more is too wide, less is too narrow.

    Raises:
        ValueError: level is not between 0 and 1.

    >>> coverage(np.zeros((1, 2)), np.ones((1, 2)), np.array([0.0, 3.0]), level=0.9).value
    0.5
    """
    low, high = _tails(level)
    transform = pit(loc, scale, y)
    return score_of_rows(((low <= transform) & (transform <= high)).astype(np.float64))


def row_crps(loc: Draws, scale: Draws, y: Rows) -> RowValues:
    """Continuous ranked probability score of each row, E|X - y| - ½ E|X - X'|, (row,), in the unit of y.

    The first term in closed form. For the second each Normal stands as equally likely points, at least 2,000 in all
    and 4 for each draw, at levels of its own, so that equal draws add up to one fine grid and not to one coarse grid
    many times: an error below 0.1 % of a scale.

    >>> row_crps(np.array([[0.0]]), np.array([[1.0]]), np.array([0.0])).round(3)  # (√2 - 1) / √π
    array([0.234])

    Source: Gneiting and Raftery 2007, Strictly proper scoring rules, eqs. 20 and 21; Grimit et al. 2006.
    """
    loc, scale, y = _checked_normals(loc, scale, y)
    standard = (y - loc) / scale
    density = np.exp(-(standard**2) / 2) / np.sqrt(2 * np.pi)
    to_y = (scale * (standard * (2 * ndtr(standard) - 1) + 2 * density)).mean(axis=0)
    points = equally_likely_points(len(loc), 4, 2000)
    rank = 2 * np.arange(1, points.size + 1) - points.size - 1
    spread = np.empty(len(y))
    for row in range(len(y)):
        ordered = np.sort((loc[:, row] + scale[:, row] * points).ravel())
        spread[row] = 2 * (rank @ ordered) / len(ordered) ** 2
    return to_y - spread / 2


def crps(loc: Draws, scale: Draws, y: Rows) -> Score:
    """Mean over rows of `row_crps`: a proper score like the NLL, but in the unit of y, and kinder to outliers.

    >>> round(crps(np.zeros((1, 2)), np.ones((1, 2)), np.array([0.0, 0.0])).value, 3)
    0.234
    """
    return score_of_rows(row_crps(loc, scale, y))


def interval(loc: Draws, scale: Draws, level: float = 0.9) -> tuple[RowValues, RowValues]:
    """Central interval of the mixture: its (1 - level) / 2 and (1 + level) / 2 quantiles, by bisection.

    Args:
        loc: (draw, row).
        scale: (draw, row), standard deviations, positive.
        level: the probability inside.

    Returns:
        lower and upper, each (row,), in the unit of y, to 1e-10 of the row's smallest scale.

    Raises:
        ValueError: level is not between 0 and 1.

    >>> lower, upper = interval(np.zeros((1, 1)), np.ones((1, 1)), 0.95)
    >>> lower.round(2), upper.round(2)
    (array([-1.96]), array([1.96]))
    """
    loc, scale = _checked_normals(loc, scale)
    low, high = _tails(level)
    return _mixture_quantile(loc, scale, low), _mixture_quantile(loc, scale, high)


def interval_width(loc: Draws, scale: Draws, level: float = 0.9) -> Score:
    """Mean over rows of upper - lower of `interval`: how sharp the predictive is, in the unit of y.

    >>> round(interval_width(np.zeros((1, 2)), np.ones((1, 2)), 0.95).value, 2)
    3.92
    """
    lower, upper = interval(loc, scale, level)
    return score_of_rows(upper - lower)


def row_interval_width_under(
    loc: Draws, scale: Draws, weights: Float[Array, "replicate draw"], lower: Rows, upper: Rows
) -> Float[np.ndarray, "replicate row"]:
    """Width of each row's interval under other weights of the draws: one Newton step from the whole mixture's ends.

    F_r(q_r) = F(q) at q_r = q - (F_r(q) - F(q)) / f(q) to first order, F_r the distribution function under weights r
    and f the whole mixture's density (that under r could be next to 0 there): all that a Monte Carlo error needs, for
    the price of a single evaluation where bisection takes eighty for each replicate.

    Args:
        loc: (draw, row).
        scale: (draw, row), standard deviations, positive.
        weights: (replicate, draw), not negative, their sums above 0.
        lower: ends of the whole mixture's `interval`, (row,).
        upper: the other ends.

    Returns:
        Widths (replicate, row), in the unit of y.

    >>> loc, ends = np.zeros((4, 1)), interval(np.zeros((4, 1)), np.ones((4, 1)))
    >>> row_interval_width_under(loc, loc + 1, np.array([[1.0, 1.0, 0.0, 0.0]]), *ends).round(2)  # equal draws
    array([[3.29]])
    """
    loc, scale = _checked_normals(loc, scale)
    weights = checked("weights", weights, "replicate", "draw")
    weights = weights / weights.sum(axis=1, keepdims=True)
    ends = []
    for end in (checked("lower", lower, "row"), checked("upper", upper, "row")):
        standard = (end - loc) / scale
        below, density = ndtr(standard), np.exp(-(standard**2) / 2) / (scale * np.sqrt(2 * np.pi))
        ends.append(end - (weights @ below - below.mean(axis=0)) / density.mean(axis=0))
    return ends[1] - ends[0]


def normal_entropy(loc: Draws, scale: Draws, noise: Draws | None = None) -> tuple[RowValues, RowValues, RowValues]:
    """Differential entropy of the predictive, split as in `entropy_decomposition`.

    total = 0.5 log(2 pi e (E_d scale_d^2 + Var_d loc_d)), aleatoric = E_d 0.5 log(2 pi e scale_d^2).

    The mixture's own entropy has no closed form: total is that of the Normal with its mean and variance
    (moment matching), an upper bound, so epistemic is an upper bound of the mutual information as well.

    Args:
        loc: (draw, row).
        scale: (draw, row), standard deviations, positive.
        noise: (draw, row), the part of scale that is noise, where a draw leaves doubt about its mean as well (a
            Gaussian process does): it takes scale's place in aleatoric.

    Returns:
        total, aleatoric and epistemic = total - aleatoric (0 where rounding makes it negative), each (row,),
        in nats. The first two move with the unit of y and may be negative.

    >>> total, aleatoric, epistemic = normal_entropy(np.array([[0.0], [0.0]]), np.array([[1.0], [1.0]]))
    >>> total.round(4), epistemic
    (array([1.4189]), array([0.]))

    Source: Depeweg et al. 2018, Decomposition of uncertainty in Bayesian deep learning; that the Normal is
    the upper bound: Cover and Thomas 2006, Elements of information theory, theorem 8.6.5.
    """
    loc, scale = _checked_normals(loc, scale)
    variance = np.mean(scale**2, axis=0) + np.var(loc, axis=0)
    total = 0.5 * np.log(2 * np.pi * np.e * variance)
    noise = scale if noise is None else _checked_normals(loc, noise)[1]
    aleatoric = np.mean(0.5 * np.log(2 * np.pi * np.e * noise**2), axis=0)
    return total, aleatoric, np.maximum(total - aleatoric, 0.0)


def _checked_normals(loc: Draws, scale: Draws, y: Rows | None = None) -> tuple[np.ndarray, ...]:
    loc, scale = checked("loc", loc, "draw", "row"), checked("scale", scale, "draw", "row")
    if loc.shape != scale.shape:
        raise ValueError(
            f"loc has shape {loc.shape} but scale has {scale.shape}: pass both as (draw, row),"
            " np.broadcast_to(scale, loc.shape) if the scale is shared"
        )
    if scale.min() <= 0:
        raise ValueError(
            f"scale goes down to {scale.min():.6g} but should be positive:"
            " pass standard deviations, not their logarithms"
        )
    if y is None:
        return loc, scale
    y = checked("y", y, "row")
    check_same_rows("loc", loc.shape[1], "y", len(y))
    return loc, scale, y


def _tails(level: float) -> tuple[float, float]:
    if not 0 < level < 1:
        raise ValueError(f"level is {level} but should be between 0 and 1: pass 0.9 for 90 %")
    return (1 - level) / 2, (1 + level) / 2


def _area_from_diagonal(transform: np.ndarray) -> float:
    """Integral of |F_n(u) - u| over [0, 1] = that of |F_n^-1(t) - t|, whose steps are the sorted values."""
    steps = np.arange(len(transform) + 1) / len(transform)
    # Over [t_k, t_k+1] the integral of |value - t| is the difference of the antiderivative (t - value) |t - value| / 2.
    start, end = (side - np.sort(transform) for side in (steps[:-1], steps[1:]))
    return float(np.sum(end * np.abs(end) - start * np.abs(start)) / 2)


def _mixture_quantile(loc: np.ndarray, scale: np.ndarray, probability: float) -> np.ndarray:
    # The mixture's quantile lies between the smallest and the largest of its components' quantiles.
    ends = loc + scale * ndtri(probability)
    low, high = ends.min(axis=0), ends.max(axis=0)
    enough = 1e-10 * scale.min(axis=0)
    for _ in range(100):  # a bound for brackets whose own rounding exceeds `enough`
        if np.all(high - low <= enough):
            break
        middle = (low + high) / 2
        too_low = ndtr((middle - loc) / scale).mean(axis=0) < probability
        low, high = np.where(too_low, middle, low), np.where(too_low, high, middle)
    return (low + high) / 2
