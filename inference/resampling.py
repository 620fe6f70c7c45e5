"""Percentile bootstrap over rows, and over seeds: intervals of means, and which of two methods is better."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Real
from scipy import stats

from .score_base import Array, Rows, check_at_least, checked

__all__ = ["Interval", "PairedBootstrap", "bootstrap_interval", "paired_bootstrap"]

BLOCK = 2**21
"""Weights made at once: 16 MiB, whatever the number of rows and replicates."""

Differences = Real[Array, "row pair"]


class Interval(NamedTuple):
    """The ends of an interval, in the unit of its score; NaN where a row is infinite."""

    low: float
    high: float


@dataclass(frozen=True)
class PairedBootstrap:
    """Mean differences of pairs of methods, and what resampling says of them; one entry for each pair.

    Attributes:
        value: mean difference a − b, over rows and then over seeds.
        low: lower end of the percentile interval.
        high: upper end of it.
        above: share of the resamples in which the mean difference is above 0 (an exact 0 counts half): where higher
            is better, the probability that a is better than b.
    """

    value: Float[np.ndarray, " pair"]
    low: Float[np.ndarray, " pair"]
    high: Float[np.ndarray, " pair"]
    above: Float[np.ndarray, " pair"]

    @property
    def tied(self) -> Bool[np.ndarray, " pair"]:
        """Whether the interval holds 0: a difference within noise. False where a row was infinite."""
        return (self.low <= 0) & (self.high >= 0)


def bootstrap_interval(values: Rows, *, level: float = 0.95, num_bootstrap: int = 1000, seed: int = 0) -> Interval:
    """Percentile interval of the mean of `values` over resampled rows.

    Args:
        values: (row,), any unit, such as each row's total variation. Their order does not matter.
        level: the share of the resamples' means inside.
        num_bootstrap: resamples.
        seed: of the resampling. A fixed default, as it moves only the ends' own Monte Carlo error.

    Returns:
        Interval; both ends NaN for a single row, which cannot tell its error, and where a row is infinite.

    Raises:
        ValueError: values are not (row,), are empty or hold a NaN; level is not between 0 and 1.

    >>> bootstrap_interval(np.array([2.0, 2.0, 2.0]))
    Interval(low=2.0, high=2.0)

    Source: Efron and Tibshirani 1993, An introduction to the bootstrap, section 13.3.
    """
    column = np.sort(checked("values", values, "row", allow_infinite=True))[:, None]
    _check_level(level)
    if len(column) == 1:
        return Interval(float("nan"), float("nan"))
    low, high = _ends(resampled_means(column, num_bootstrap, np.random.default_rng(seed)), level)
    return Interval(float(low[0]), float(high[0]))


def paired_bootstrap(
    differences: Sequence[Differences],
    *,
    same_rows: bool = False,
    monte_carlo_error: Float[np.ndarray, " pair"] | None = None,
    level: float = 0.95,
    num_bootstrap: int = 2000,
    seed: int = 0,
) -> PairedBootstrap:
    """Bootstrap the mean differences of paired row scores, over rows, and over seeds where there are several.

    A replicate draws as many seeds as there are, with replacement, then as many rows as each one drawn has, and
    averages the means of the rows. All pairs share its rows, so that what is said of them goes together. With one
    seed that is the bootstrap over rows. Two or three seeds say little of the spread between seeds, which resampling
    them does not show: the interval is Student's over the seeds' means where that is wider, and `above` is its
    probability where that is nearer to 1/2.

    Args:
        differences: of each seed, the row scores of a less those of b, (row, pair), over the same rows; seeds may
            differ in their rows but not in their pairs. A pair with a row that is infinite or NaN (both methods ruled
            out what happened) has no interval.
        same_rows: whether the seeds have the same rows in the same order, as where a published split serves all:
            their means then share the rows' error, and the interval is no narrower than that of the seeds' average
            over resampled rows.
        monte_carlo_error: standard deviation (pair,) of what finitely many posterior draws add to a pair's mean, drawn
            as a Normal of its own in every replicate; seeds that are several show it in their spread.
        level: the share of the replicates inside the interval.
        num_bootstrap: replicates.
        seed: of the resampling.

    Returns:
        PairedBootstrap, arrays (pair,).

    Raises:
        ValueError: there is no seed, one has no rows, seeds differ in their pairs, or level is not between 0 and 1.

    >>> found = paired_bootstrap([np.array([[1.0, -0.5], [1.5, 0.5], [0.5, 0.5], [1.0, -0.5]])])
    >>> found.value, found.tied
    (array([1., 0.]), array([False,  True]))

    Source: Efron and Tibshirani 1993, sections 8.3 and 13.3; resampling of seeds and rows: Davison and Hinkley 1997,
    Bootstrap methods and their application, section 3.8 (hierarchical data).
    """
    if not len(differences):
        raise ValueError("differences is empty but should hold an array (row, pair) for each seed: pass at least one")
    by_seed = [np.asarray(array, np.float64) for array in differences]
    for array in by_seed:
        if array.ndim != 2 or not len(array) or array.shape[1] != by_seed[0].shape[1]:
            raise ValueError(
                f"differences have shapes {[array.shape for array in by_seed]} but should be (row, pair), with rows in "
                "each and as many pairs in all: leave out the pairs that a seed lacks"
            )
    check_at_least("num_bootstrap", num_bootstrap, 2)
    _check_level(level)
    with np.errstate(invalid="ignore"):  # inf - inf is NaN: neither is better
        value = np.mean([array.mean(axis=0) for array in by_seed], axis=0)
    num_seeds = len(by_seed)
    rng = np.random.default_rng(seed)
    drawn = rng.integers(num_seeds, size=(num_bootstrap, num_seeds))
    replicates = np.zeros((num_bootstrap, by_seed[0].shape[1]))
    for index, array in enumerate(by_seed):
        where = np.nonzero(drawn == index)[0]
        np.add.at(replicates, where, resampled_means(array, len(where), rng) / num_seeds)
    if num_seeds == len(by_seed[0]) == 1:
        replicates[:] = np.nan  # one row redrawn is the same row: an interval of no width would be a lie
    if monte_carlo_error is not None:
        replicates += np.asarray(monte_carlo_error) * rng.normal(size=replicates.shape)
    low, high = _ends(replicates, level)
    above = (np.mean(replicates > 0, axis=0) + np.mean(replicates >= 0, axis=0)) / 2
    if num_seeds > 1:
        if same_rows:
            alone = paired_bootstrap([np.mean(by_seed, axis=0)], level=level, num_bootstrap=num_bootstrap, seed=seed)
            low, high = np.minimum(low, alone.low), np.maximum(high, alone.high)
            above = _milder(above, alone.above)
        low, high, above = _as_wide_as_students(
            np.stack([array.mean(axis=0) for array in by_seed]), low, high, above, level
        )
    return PairedBootstrap(value, low, high, np.where(np.isnan(low), np.nan, above))


def _as_wide_as_students(
    means: np.ndarray, low: np.ndarray, high: np.ndarray, above: np.ndarray, level: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Widen intervals (pair,) to Student's over the seeds' means (seed, pair), and draw probabilities towards 1/2.

    A bootstrap of two or three seeds stays between the least and the largest of them.
    """
    num_seeds = len(means)
    with np.errstate(invalid="ignore", divide="ignore"):
        value, error = means.mean(axis=0), means.std(axis=0, ddof=1) / np.sqrt(num_seeds)
        half = stats.t.ppf((1 + level) / 2, num_seeds - 1) * error
        by_t = stats.t.cdf(np.where(error > 0, value / error, np.sign(value) * np.inf), num_seeds - 1)
    return np.minimum(low, value - half), np.maximum(high, value + half), _milder(above, by_t)


def _milder(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return of two probabilities (pair,) the one nearer to 1/2; the first where the other is NaN."""
    return np.where(np.abs(other - 0.5) < np.abs(one - 0.5), other, one)


def resampled_means(values: np.ndarray, num_bootstrap: int, rng: np.random.Generator) -> np.ndarray:
    """Means (replicate, column) over resampled rows of values (row, column): counts of rows times values.

    A column that holds what is not finite is NaN in every replicate, which rows came up in it does not matter.
    """
    num_rows = len(values)
    finite = np.isfinite(values).all(axis=0)
    values = np.where(finite, values, 0.0)
    means = np.empty((num_bootstrap, values.shape[1]))
    step = max(BLOCK // num_rows, 1)
    for start in range(0, num_bootstrap, step):
        count = min(step, num_bootstrap - start)
        rows = rng.integers(num_rows, size=(count, num_rows)) + num_rows * np.arange(count)[:, None]
        counts = np.bincount(rows.ravel(), minlength=count * num_rows).reshape(count, num_rows)
        means[start : start + count] = counts @ values / num_rows
    means[:, ~finite] = np.nan
    return means


def _ends(replicates: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
    low, high = np.quantile(replicates, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"level is {level} but should be between 0 and 1: pass 0.95 for 95 %")
