"""How far a posterior's means and standard deviations lie from the reference's, site by site."""

from __future__ import annotations

import itertools
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
"""Batches of contiguous draws that are resampled, as those of the predictions; of chains, at least one each."""

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
            above 0 too wide. NaN of a single draw, which has no standard deviation; of fewer than 20 draws it has no
            interval, as resamples of so few are often all one draw.
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
        num_bootstrap: resamples behind the intervals, of both sides: of batches of contiguous draws, and as many of
            whole chains where there are several. The wider interval counts: chains that sit in modes of their own
            differ by more than their batches tell, and three or four chains alone would be noise.
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
    our_counts, their_counts = (_counts(of, num_bootstrap, rng) for of in (draws, reference))
    sizes, squares, logs = {}, {}, {}
    for site, values in reference.items():
        ours, theirs = (np.reshape(of, (*np.shape(of)[:2], -1)) for of in (draws[site], values))
        centre = theirs.mean(axis=(0, 1), dtype=np.float64)  # squares about 0 would lose the digits of a narrow site
        our_sums, their_sums = _batch_sums(ours, centre), _batch_sums(theirs, centre)
        sizes[site], squares[site], logs[site] = ours.shape[2], np.empty(len(our_counts)), np.empty(len(our_counts))
        for i, (our_count, their_count) in enumerate(zip(our_counts, their_counts, strict=True)):
            mean, sd = _mean_and_sd(our_count, *our_sums)
            mean_ref, sd_ref = _mean_and_sd(their_count, *their_sums)
            with np.errstate(divide="ignore", invalid="ignore"):  # a stuck or pruned entry has sd 0: infinite or NaN
                squares[site][i] = np.sum(((mean - mean_ref) / sd_ref) ** 2)
                logs[site][i] = np.sum(np.log(sd / sd_ref))
    if min(np.prod(np.shape(next(iter(of.values())))[:2]) for of in (draws, reference)) < NUM_BATCHES:
        for of_site in logs.values():
            of_site[1:] = np.nan
    whole = _errors(sum(squares.values()) / sum(sizes.values()), sum(logs.values()) / sum(sizes.values()))
    return {ALL_SITES: whole} | {s: _errors(squares[s] / n, logs[s] / n) for s, n in sizes.items()}


def _counts(draws: Draws, num_bootstrap: int, rng: np.random.Generator) -> np.ndarray:
    """How often each batch counts, (1 + 2 replicate, batch): once, then in resampled batches, then in resampled chains.

    One fewer than there are is drawn, which gives the variance of a mean without bias (Rao and Wu 1988, Resampling
    inference with complex survey data): of four chains a bootstrap of four would lose a quarter of it. A single chain
    has its batches resampled in the last rows too, so that those vary with the chains of the other side.
    """
    num_chains, num_draws = np.shape(next(iter(draws.values())))[:2]
    batches = _batches_of_a_chain(num_chains, num_draws)

    def resampled(number: int) -> np.ndarray:
        size = max(number - 1, 1)
        return rng.multinomial(size, np.full(number, 1 / number), size=num_bootstrap)

    by_batch = resampled(num_chains * batches)
    by_chain = np.repeat(resampled(num_chains), batches, axis=1) if num_chains > 1 else resampled(batches)
    return np.vstack([np.ones_like(by_batch[:1]), by_batch, by_chain])


def _batches_of_a_chain(num_chains: int, num_draws: int) -> int:
    return min(max(NUM_BATCHES // num_chains, 1), num_draws)


def _batch_sums(values: np.ndarray, centre: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Number of draws (batch,), sum and sum of squares (batch, entry) of values (chain, draw, entry) − centre."""
    num_chains, num_draws, _ = values.shape
    batches = _batches_of_a_chain(num_chains, num_draws)
    ends = np.arange(batches + 1) * num_draws // batches
    sums = []
    for chain in values:
        for start, end in itertools.pairwise(ends):  # a batch at a time: in double precision all are twice the draws
            batch = chain[start:end] - centre
            sums.append((end - start, batch.sum(0), (batch**2).sum(0)))
    sizes, first, second = zip(*sums, strict=True)
    return np.array(sizes), np.stack(first), np.stack(second)


def _mean_and_sd(count: np.ndarray, sizes: np.ndarray, first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, ...]:
    """Mean and standard deviation (entry,) of the draws of the batches, each counted so many times."""
    num_draws = count @ sizes
    mean = count @ first / num_draws
    if num_draws == 1:
        return mean, np.full_like(mean, np.nan)
    variance = (count @ second / num_draws - mean**2) * num_draws / (num_draws - 1)
    return mean, np.sqrt(np.maximum(variance, 0))


def _errors(squares: np.ndarray, logs: np.ndarray) -> MomentErrors:
    """From the value and its replicates, (1 + 2 replicate,), to the values and their intervals."""
    return MomentErrors(_error(np.sqrt(squares), least=0), _error(logs, least=-np.inf))


def _error(values: np.ndarray, least: float) -> MomentError:
    value = float(values[0])
    with np.errstate(invalid="ignore"):
        half = HALF_WIDTH * float(max(np.std(values[1:].reshape(2, -1), axis=1, ddof=1)))
    if not np.isfinite(half):
        return MomentError(value, Interval(np.nan, np.nan))
    return MomentError(value, Interval(max(value - half, least), value + half))
