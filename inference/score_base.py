"""What every score shares: the pair it returns, the checks of what it is given, and its standard errors."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Integer, Real
from scipy.special import ndtri

__all__ = ["Score", "jackknife", "mean", "paired_difference"]

# What callers may hand in; inside, everything is a float64 NumPy array.
Array = np.ndarray | jax.Array
Probs = Float[Array, "row class"]
Labels = Integer[Array, " row"]
Rows = Real[Array, " row"]
Draws = Float[Array, "*chain draw row"]
"""As `predict` gives them, chain by chain, or all in one axis: scores take the chains together."""
RowValues = Float[np.ndarray, " row"]

# float32 softmax averaged over draws misses 1 by about 1e-6; a logit or a percentage misses it by far more.
_SUM_TOLERANCE = 1e-4


class Score(NamedTuple):
    """A score and its sampling error: how far it would move on another test set of as many rows."""

    value: float
    standard_error: float


def mean(values: Rows) -> Score:
    """Mean of per-row values, with sd / sqrt(rows).

    Args:
        values: (row,), any unit. Infinite values are kept: the mean is then infinite and its error NaN.

    Returns:
        Score; the standard error of a single row is NaN.

    Raises:
        ValueError: values are not (row,), are empty or hold a NaN.

    >>> mean(np.array([1.0, 2.0, 3.0, 2.0])).value
    2.0
    """
    return score_of_rows(checked("values", values, "row", allow_infinite=True))


def paired_difference(values_a: Rows, values_b: Rows) -> Score:
    """Mean of a - b over the same rows; pairing removes the error both methods share.

    Args:
        values_a: (row,), for example `row_brier` of one method.
        values_b: (row,), the same quantity of the other method on the same rows in the same order.

    Returns:
        Score; negative values mean that a is the smaller one. NaN where both have an infinite row.

    Raises:
        ValueError: the two differ in length, are not (row,), are empty or hold a NaN.

    >>> paired_difference(np.array([1.0, 5.0]), np.array([0.0, 4.0]))
    Score(value=1.0, standard_error=0.0)
    """
    a = checked("values_a", values_a, "row", allow_infinite=True)
    b = checked("values_b", values_b, "row", allow_infinite=True)
    check_same_rows("values_a", len(a), "values_b", len(b))
    # inf - inf is NaN without a warning: both methods ruled out what happened, and neither is better.
    with np.errstate(invalid="ignore"):
        return score_of_rows(a - b)


def jackknife(score_of: Callable[[np.ndarray], float], num_batches: int) -> float:
    """Delete-one-batch jackknife: the posterior's Monte Carlo error of any score of the predictive mixture.

    sqrt((B - 1) / B sum_i (theta_(i) - theta_bar)^2), theta_(i) the score without batch i of the draws.

    Args:
        score_of: takes weights (batch,) that sum to 1 and gives the score of the batches' weighted mixture.
        num_batches: B, how many batches (chains, or blocks of draws longer than their autocorrelation).

    Returns:
        The standard error, in the score's unit; NaN for one batch, which cannot tell its own error.

    Raises:
        ValueError: num_batches is below 1.

    >>> batch_values = np.array([1.0, 2.0, 3.0])
    >>> round(jackknife(lambda weights: float(weights @ batch_values), 3), 6)  # sd / sqrt(3)
    0.57735

    Source: Tukey 1958; Efron and Stein 1981, The jackknife estimate of variance.
    """
    check_at_least("num_batches", num_batches, 1)
    if num_batches == 1:
        return float("nan")
    weights = (1.0 - np.eye(num_batches)) / (num_batches - 1)
    left_out = np.array([score_of(row) for row in weights], dtype=np.float64)
    return float(np.sqrt((num_batches - 1) / num_batches * np.sum((left_out - left_out.mean()) ** 2)))


def score_of_rows(values: np.ndarray) -> Score:
    """Mean and sd / sqrt(rows) of values (row,) that are already checked."""
    # An infinite row makes the mean infinite and the error NaN: that is meant, so without a warning.
    with np.errstate(invalid="ignore"):
        standard_error = np.std(values, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
        return Score(float(np.mean(values)), float(standard_error))


def bootstrap_error(
    statistic: Callable[..., float],
    *samples: np.ndarray,
    num_bootstrap: int,
    seed: int,
    rng: np.random.Generator | None,
) -> float:
    """Bootstrap standard error of `statistic(*samples)`, each sample's rows redrawn separately.

    Callers sort their samples first: with a fixed seed the error then does not depend on the order of rows.
    """
    check_at_least("num_bootstrap", num_bootstrap, 2)
    if min(len(sample) for sample in samples) == 1:
        return float("nan")  # one row redrawn is the same row: an error of 0 would be a lie
    rng = np.random.default_rng(seed) if rng is None else rng
    replicates = [
        statistic(*(sample[rng.integers(len(sample), size=len(sample))] for sample in samples))
        for _ in range(num_bootstrap)
    ]
    return float(np.std(replicates, ddof=1))


def checked(name: str, values: Array, *dims: str, allow_infinite: bool = False) -> np.ndarray:
    """The values as float64 with one axis for each of `dims`, none of them empty, without NaN.

    Draws may come chain by chain, with an axis before them: they are put one after the other.
    """
    array = as_reals(name, values).astype(np.float64)
    if dims[0] == "draw" and array.ndim == len(dims) + 1:
        array = array.reshape(-1, *array.shape[2:])
    wanted = f"({', '.join(dims)}{',' if len(dims) == 1 else ''})"
    if array.ndim != len(dims):
        column = array.ndim == 2 and dims == ("row",) and array.shape[1] == 1
        remedy = f"pass {name}[:, 0]" if column else "reshape it or pass another array"
        raise ValueError(f"{name} has shape {array.shape} but should be {wanted}: {remedy}")
    if array.size == 0:
        raise ValueError(f"{name} has shape {array.shape} but no axis of {wanted} may be 0: give at least one row")
    bad = int(np.sum(np.isnan(array) if allow_infinite else ~np.isfinite(array)))
    if bad:
        kind = "NaN" if allow_infinite else "NaN or infinite"
        raise ValueError(
            f"{name} has {bad} of {array.size} values {kind} but every value should be a number:"
            " look for a diverged fit, or leave those rows out"
        )
    return array


def as_reals(name: str, values: Any) -> np.ndarray:
    """The values as an array of numbers, of whatever type they are."""
    try:
        array = np.asarray(values)
    except ValueError:
        raise ValueError(f"{name} holds rows of unequal lengths but should be an array: give each as many") from None
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{name} holds {array.dtype} but should hold real numbers: convert it first")
    if np.ma.is_masked(values):
        raise ValueError(f"{name} has masked values but every value should be a number: leave those rows out")
    return array


def checked_probs(probs: Array) -> np.ndarray:
    """Class probabilities (row, class) as float64, every row of them a distribution."""
    array = checked("probs", probs, "row", "class")
    if array.min() < 0:
        raise ValueError(f"probs go down to {array.min():.6g} but should lie in [0, 1]: pass probabilities, not logits")
    sums = array.sum(axis=1)
    worst = int(np.argmax(np.abs(sums - 1)))
    if abs(sums[worst] - 1) > _SUM_TOLERANCE:
        raise ValueError(
            f"probs of row {worst} sum to {sums[worst]:.6g} but should sum to 1 within {_SUM_TOLERANCE:g}:"
            " normalise over the class axis"
        )
    return np.minimum(array, 1.0)  # rounding above 1 would fall outside the last bin


def checked_classification(probs: Array, y: Array) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (row, class) and labels (row,) that fit each other."""
    probs = checked_probs(probs)
    labels = as_reals("y", y)
    checked("y", labels, "row")
    if labels.dtype.kind not in "iu":
        raise ValueError(
            f"y has dtype {labels.dtype} but labels should be integers: pass y.astype(int) if they are whole"
        )
    check_same_rows("probs", len(probs), "y", len(labels))
    num_classes = probs.shape[1]
    run = f"but probs has {num_classes} classes (labels run from 0 to {num_classes - 1})"
    if labels.max() >= num_classes:
        raise ValueError(f"labels reach {labels.max()} {run}: fit with num_classes={labels.max() + 1} or relabel")
    if labels.min() < 0:
        raise ValueError(f"labels go down to {labels.min()} {run}: relabel from 0")
    return probs, labels.astype(np.int64)


def equally_likely_points(num_draws: int, least: int, in_all: int) -> np.ndarray:
    """Equally likely points of a standard Normal for each of several draws, (point, draw).

    Each draw has levels of its own, so that equal draws add up to one fine grid and not to one coarse grid many times.

    Args:
        num_draws: how many draws.
        least: points of each at least.
        in_all: points of all together at least.
    """
    num_points = max(least, -(-in_all // num_draws))
    offset = (0.5 + np.arange(num_draws) * (np.sqrt(5) - 1) / 2) % 1  # the golden ratio's multiples fill [0, 1) evenly
    return ndtri((np.arange(num_points)[:, None] + offset) / num_points)


def check_same_rows(name_a: str, rows_a: int, name_b: str, rows_b: int) -> None:
    """Raise unless both have as many rows."""
    if rows_a != rows_b:
        raise ValueError(f"{name_a} has {rows_a} rows but {name_b} has {rows_b}: pass the same rows in the same order")


def check_at_least(name: str, value: int, least: int) -> None:
    """Raise unless a count is big enough."""
    if value < least:
        raise ValueError(f"{name} is {value} but should be at least {least}: pass {name}={least} or more")
