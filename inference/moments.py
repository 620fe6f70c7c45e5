"""How far a posterior's means and standard deviations lie from the reference's, site by site."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from .resampling import Interval
from .score_base import Array

__all__ = ["MomentError", "MomentErrors", "moment_errors"]

ALL_SITES = "all sites"
"""The name under which all entries of all sites are counted as one."""

NUM_BATCHES = 20
"""Batches of contiguous draws that are resampled, as those of the predictions."""

HALF_WIDTH = 1.96
"""Standard errors on either side of a value: 95 % of a Normal."""

Draws = Mapping[str, Float[Array, "chain draw *entry"]]


@dataclass(frozen=True)
class MomentError:
    """An error of posterior moments and its 95 % interval."""

    value: float
    interval: Interval


@dataclass(frozen=True)
class MomentErrors:
    """The errors of one site's moments, averaged over its entries.

    Attributes:
        mean: √(mean over entries of ((E_q w − E_ref w) / sd_ref w)²), in standard deviations of the reference; 0 is
            best.
        log_sd: mean over entries of log(sd_q w / sd_ref w): below 0 the posterior is too narrow, as mean field is,
            above 0 too wide. NaN of a single draw, which has no standard deviation.
    """

    mean: MomentError
    log_sd: MomentError


def moment_errors(
    draws: Draws, reference: Draws, *, num_bootstrap: int = 200, seed: int = 0
) -> dict[str, MomentErrors]:
    """Compare posterior means and standard deviations with the reference's, in the constrained space, by site.

    Both hold the Monte Carlo error of both sides: read them beside the noise floor, the same of two halves of the
    reference's own chains. Where a network's hidden units can change places its chains sit in different copies of
    one posterior: the means then differ between the halves as well, and the floor says that this comparison says
    nothing there, whatever the predictions agree on.

    Args:
        draws: draws by site (chain, draw, *site shape); a single draw has means alone.
        reference: draws of the reference, of the same sites; chains and draws may differ in number.
        num_bootstrap: resamples of batches of contiguous draws, of both sides, behind the intervals.
        seed: of the resampling.

    Returns:
        MomentErrors by site, and under "all sites" those over every entry of all of them. The intervals are
        value ± 1.96 bootstrap standard errors, an error of means not below 0: the percentiles of a root mean square
        would lie above it, as every resample adds to its noise.

    Raises:
        ValueError: a site is missing, or its shape differs.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> found = moment_errors({"w": rng.normal(1, 0.5, (4, 500))}, {"w": rng.normal(0, 1, (4, 500))})
        >>> round(found["w"].mean.value, 1), round(found["w"].log_sd.value, 1)  # log ½
        (1.0, -0.7)

    Source: errors of posterior means in standard deviations of the reference, and ratios of standard deviations, as
    in Yao, Vehtari, Simpson and Gelman 2018, Yes, but did it work?, section 4; that mean field is too narrow:
    Turner and Sahani 2011, Two problems with variational expectation maximisation.
    """
    for site, values in reference.items():
        if site not in draws or np.shape(draws[site])[2:] != np.shape(values)[2:]:
            found = np.shape(draws[site])[2:] if site in draws else "absent"
            raise ValueError(f"site {site!r} is {found} but {np.shape(values)[2:]} in the reference: fit one model")
    rng = np.random.default_rng(seed)
    our_counts, their_counts = (_batch_counts(of, num_bootstrap, rng) for of in (draws, reference))
    sizes, squares, logs = {}, {}, {}
    for site, values in reference.items():
        ours, theirs = (np.reshape(of, (*np.shape(of)[:2], -1)).astype(np.float64) for of in (draws[site], values))
        centre = theirs.mean(axis=(0, 1))  # sums of squares about 0 would lose the digits of a narrow site
        our_sums, their_sums = _batch_sums(ours - centre), _batch_sums(theirs - centre)
        sizes[site], squares[site], logs[site] = ours.shape[2], np.empty(num_bootstrap + 1), np.empty(num_bootstrap + 1)
        for i, (our_count, their_count) in enumerate(zip(our_counts, their_counts, strict=True)):
            mean, sd = _mean_and_sd(our_count, *our_sums)
            mean_ref, sd_ref = _mean_and_sd(their_count, *their_sums)
            with np.errstate(divide="ignore", invalid="ignore"):  # a stuck or pruned entry has sd 0: infinite or NaN
                squares[site][i] = np.sum(((mean - mean_ref) / sd_ref) ** 2)
                logs[site][i] = np.sum(np.log(sd / sd_ref))
    whole = _errors(sum(squares.values()) / sum(sizes.values()), sum(logs.values()) / sum(sizes.values()))
    return {ALL_SITES: whole} | {s: _errors(squares[s] / n, logs[s] / n) for s, n in sizes.items()}


def _batch_counts(draws: Draws, num_bootstrap: int, rng: np.random.Generator) -> np.ndarray:
    """How often each batch counts, (1 + replicate, batch): once in the first row, resampled in the others."""
    num_chains, num_draws = np.shape(next(iter(draws.values())))[:2]
    batches = num_chains * _batches_of_a_chain(num_chains, num_draws)
    resampled = rng.multinomial(batches, np.full(batches, 1 / batches), size=num_bootstrap)
    return np.vstack([np.ones(batches, resampled.dtype), resampled])


def _batches_of_a_chain(num_chains: int, num_draws: int) -> int:
    return min(max(NUM_BATCHES // num_chains, 1), num_draws)


def _batch_sums(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Number of draws (batch,), their sum and sum of squares (batch, entry), of values (chain, draw, entry)."""
    num_chains, num_draws, _ = values.shape
    parts = _batches_of_a_chain(num_chains, num_draws)
    starts = -(-np.arange(parts) * num_draws // parts)
    sizes = np.diff(np.append(starts, num_draws))
    first, second = (np.add.reduceat(v, starts, axis=1).reshape(-1, v.shape[2]) for v in (values, values**2))
    return np.tile(sizes, num_chains), first, second


def _mean_and_sd(count: np.ndarray, sizes: np.ndarray, first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, ...]:
    """Mean and standard deviation (entry,) of the draws of the batches, each counted so many times."""
    num_draws = count @ sizes
    mean = count @ first / num_draws
    if num_draws == 1:
        return mean, np.full_like(mean, np.nan)
    variance = (count @ second / num_draws - mean**2) * num_draws / (num_draws - 1)
    return mean, np.sqrt(np.maximum(variance, 0))


def _errors(squares: np.ndarray, logs: np.ndarray) -> MomentErrors:
    """From the value and its replicates, (1 + replicate,), to the values and their intervals."""
    return MomentErrors(_error(np.sqrt(squares), least=0), _error(logs, least=-np.inf))


def _error(values: np.ndarray, least: float) -> MomentError:
    value = float(values[0])
    with np.errstate(invalid="ignore"):
        half = HALF_WIDTH * float(np.std(values[1:], ddof=1))
    return MomentError(value, Interval(max(value - half, least) if np.isfinite(half) else np.nan, value + half))
