"""Is this sampler converged? Asked in function space: weights have symmetries, so R-hat on them means nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Float
from numpyro.diagnostics import effective_sample_size, split_gelman_rubin
from scipy.special import ndtri
from scipy.stats import rankdata

from .base import Fit
from .predict import predict, predict_draws
from .predictive import ClassPredictive

__all__ = ["Convergence", "FunctionSpace", "bulk_ess", "convergence", "ebfmi", "rank_rhat", "tail_ess", "verdict"]

RHAT_LIMIT = 1.01
"""Vehtari et al. (2021), section 4."""

ESS_PER_CHAIN = 100
"""Vehtari et al. (2021), section 4.1: 400 for four chains."""

EBFMI_LIMIT = 0.3
"""Betancourt (2016), A Conceptual Introduction to HMC, section 6.1."""

DIVERGENCE_LIMIT = 0.01
"""Largest share of divergent draws. None is the strict rule for biased scales; a few in a network's hundreds of
thousands of gradients are mended by the other checks, a percent is not."""

TUNED = 3.0
"""Factor by which an unadjusted sampler's energy variance, and so its bias, may exceed what was asked for: the median
over the draws of its worst chain. The tuning aims at a typical value too, and weighs large ones down: of networks on
digits a hundredth of the draws hold nearly all of the mean (0.3 to 0.7 where 5e-4 was asked for), with medians of at
most 8e-4 and predictions at NUTS' noise floor; a chain whose median was 5 had not converged."""

TAIL = 0.05
"""The checks hold for all but this share of each kind of function values, which number in the thousands: the largest
of so many R-hats lies over 1.01 by chance alone."""

PROBABILITY_ROWS = 32
"""Held-out rows whose predictive probabilities of every class are judged, beside all row log-likelihoods."""


@dataclass(frozen=True, eq=False)
class FunctionSpace:
    """How well chains agree on the function values of one kind, value by value.

    Attributes:
        rhat: rank-normalised split R-hat (value,); NaN where nothing moves or a draw is not finite.
        ess_bulk: bulk effective sample size (value,), of all chains together.
        ess_tail: the same of the tails.
        num_chains: chains behind them.
    """

    rhat: Float[np.ndarray, " value"]
    ess_bulk: Float[np.ndarray, " value"]
    ess_tail: Float[np.ndarray, " value"]
    num_chains: int

    @classmethod
    def of(cls, values: Float[np.ndarray, "chain draw value"]) -> FunctionSpace:
        """Return what chains of function values (chain, draw, value) say of each value."""
        return cls(rank_rhat(values), bulk_ess(values), tail_ess(values), len(values))

    @property
    def judged_rhat(self) -> float:
        """R-hat that 95 % of the values stay below; infinite where that is one of NaN."""
        return -_all_but_tail(-self.rhat)

    @property
    def judged_ess_bulk(self) -> float:
        """Bulk effective sample size that 95 % of the values exceed; at least 0."""
        return max(_all_but_tail(self.ess_bulk), 0.0)

    @property
    def judged_ess_tail(self) -> float:
        """The same of the tails."""
        return max(_all_but_tail(self.ess_tail), 0.0)


@dataclass(frozen=True)
class Convergence:
    """The verdict on a sampler, and the numbers behind it.

    Attributes:
        converged: whether every check passed.
        reason: the checks that failed, or the numbers that passed, in one line.
        rhat: R-hat (rank-normalised, split) that 95 % of the function values stay below, of the kind that is worse;
            infinite where chains stick.
        ess_bulk: bulk effective sample size that 95 % of the function values exceed, of the kind that is worse.
        ess_tail: the same of the tails.
        ebfmi: lowest energy Bayesian fraction of missing information of a chain; NaN where the sampler has no energy
            whose moves it could be read from.
        divergences: divergent draws after warm-up.
        num_values: function values judged.
        by_kind: what the chains say of every function value judged, by kind: "log-likelihoods", and "probabilities"
            or "means and sds".
    """

    converged: bool
    reason: str
    rhat: float
    ess_bulk: float
    ess_tail: float
    ebfmi: float
    divergences: int
    num_values: int
    by_kind: Mapping[str, FunctionSpace] = field(default_factory=dict, repr=False, compare=False)


def convergence(fit: Fit, x: Any, y: Any) -> Convergence | None:
    """Judge a sampler's fit by its predictions at held-out rows; None for methods whose draws are no chains.

    The function values are the log-likelihoods of all rows given, and the predictive probabilities (or means and
    standard deviations) of the first 32: two kinds, judged apart, as a thousand log-likelihoods would outnumber the
    means and standard deviations. Energies and divergences are judged where the sampler records them. A fit
    whose budget ended within the warm-up is unconverged, whatever its draws look like.

    Arguments:
        fit: the fit.
        x: held-out inputs (row, feature...).
        y: held-out targets (row,).
    """
    if not fit.stats:
        return None
    predictions = predict(fit, x, y)
    assert predictions.log_likelihood is not None
    outputs = predict_draws(fit, x[:PROBABILITY_ROWS])
    kind = "probabilities" if isinstance(predictions, ClassPredictive) else "means and sds"
    stats = {name: np.asarray(fit.stats[name]) for name in ("energy", "diverging") if name in fit.stats}
    kinds = {"log-likelihoods": predictions.log_likelihood, kind: outputs.reshape(*outputs.shape[:2], -1)}
    judged = verdict(kinds, **stats)
    if "energy_variance" in fit.stats:
        judged = _unadjusted(judged, float(np.median(fit.stats["energy_variance"], axis=1).max()), fit.method)
    if fit.ended_in_warmup is None:
        return judged
    reason = f"the budget ended within warm-up after {fit.ended_in_warmup} draws"
    return replace(judged, converged=False, reason=reason if judged.converged else f"{reason}; {judged.reason}")


def _unadjusted(judged: Convergence, energy_variance: float, method: Any) -> Convergence:
    """Say of a sampler without a Metropolis step that it is biased; it is unconverged where its tuning failed."""
    wanted = method.desired_energy_var
    if energy_variance <= TUNED * wanted:
        return replace(judged, reason=f"{judged.reason}; unadjusted: biased by its step size")
    measured = f"energy variance {energy_variance:.1e} in a chain, wanted ≤ {TUNED:g} × {wanted:.1e}"
    failure = f"{measured}: tune longer (num_warmup)"
    return replace(judged, converged=False, reason=failure if judged.converged else f"{failure}; {judged.reason}")


def verdict(
    kinds: Mapping[str, Float[np.ndarray, "chain draw value"]] | Sequence[Float[np.ndarray, "chain draw value"]],
    energy: Float[np.ndarray, "chain draw"] | None = None,
    diverging: np.ndarray | None = None,
) -> Convergence:
    """Judge chains by function values (chain, draw, value), energies (chain, draw) and divergences (chain, draw).

    The values are of one kind or of several, by name or in a sequence, each of which must pass. Energies are None for
    a sampler that has none, and divergences for one that cannot diverge: neither is judged then.
    """
    named = kinds if isinstance(kinds, Mapping) else {f"kind {place}": values for place, values in enumerate(kinds)}
    num_chains, num_draws, _ = next(iter(named.values())).shape
    if num_draws < 4:
        raise ValueError(f"{num_draws} draws a chain: convergence needs at least 4")
    # A value that is one constant in all chains depends on no site, as a known noise scale does: nothing to judge.
    # Where every value is so, the chains are stuck at one point, and R-hat, 0 / 0 there, counts as the worst. A value
    # that is not finite in every draw is not dropped: its R-hat is NaN, which is the worst too.
    with np.errstate(invalid="ignore"):
        moving = {name: values[..., ~(np.ptp(values, axis=(0, 1)) == 0)] for name, values in named.items()}
    num_values = sum(values.shape[2] for values in moving.values())
    not_finite = sum(int((~np.isfinite(values).all(axis=(0, 1))).sum()) for values in moving.values())
    if not_finite:  # one kind of it, which no rank or quantile has an opinion on
        moving = {name: np.where(np.isfinite(values), values, np.nan) for name, values in moving.items()}
    judged = {name: values for name, values in moving.items() if values.shape[2]} or named
    by_kind = {name: FunctionSpace.of(values) for name, values in judged.items()}
    rhat = max(found.judged_rhat for found in by_kind.values())
    ess_bulk = min(found.judged_ess_bulk for found in by_kind.values())
    ess_tail = min(found.judged_ess_tail for found in by_kind.values())
    lowest_ebfmi = math.nan if energy is None else float(ebfmi(energy).min())
    divergences = 0 if diverging is None else int(diverging.sum())
    stuck = [
        chain
        for chain in range(num_chains)
        if any((np.ptp(values[chain], axis=0) == 0).mean() > TAIL for values in judged.values())
    ]
    ess_limit = ESS_PER_CHAIN * num_chains
    failures = []
    if num_chains < 2:
        failures.append("one chain alone cannot show that it has converged")
    if not_finite:
        failures.append(f"{not_finite} of {num_values} function values are not finite in every draw")
    if stuck:
        failures.append(f"chain {', '.join(map(str, stuck))} is stuck")
    if not rhat < RHAT_LIMIT:
        failures.append(f"R-hat {rhat:.3f}, wanted < {RHAT_LIMIT}")
    if not min(ess_bulk, ess_tail) >= ess_limit:
        failures.append(f"ESS bulk {ess_bulk:.0f}, tail {ess_tail:.0f}, wanted ≥ {ess_limit}")
    if energy is not None and not lowest_ebfmi >= EBFMI_LIMIT:
        failures.append(f"E-BFMI {lowest_ebfmi:.2f}, wanted ≥ {EBFMI_LIMIT}")
    if divergences > DIVERGENCE_LIMIT * num_chains * num_draws:
        failures.append(f"{divergences} of {num_chains * num_draws} draws diverged")
    passed = f"R-hat {rhat:.3f}, ESS bulk {ess_bulk:.0f}, tail {ess_tail:.0f}, {divergences} divergences"
    reason = "; ".join(failures) or passed
    if energy is None:
        reason += "; E-BFMI is not applicable"
    return Convergence(
        converged=not failures,
        reason=reason,
        rhat=rhat,
        ess_bulk=ess_bulk,
        ess_tail=ess_tail,
        ebfmi=lowest_ebfmi,
        divergences=divergences,
        num_values=num_values,
        by_kind=by_kind,
    )


def rank_rhat(values: Float[np.ndarray, "chain draw *value"]) -> Float[np.ndarray, "*value"]:
    """Return the rank-normalised split R-hat: the larger of bulk and folded (Vehtari et al. 2021, section 4)."""
    folded = np.abs(values - np.median(values, axis=(0, 1)))
    with np.errstate(divide="ignore", invalid="ignore"):  # NaN is the answer where nothing moves
        return np.maximum(split_gelman_rubin(_normal_scores(values)), split_gelman_rubin(_normal_scores(folded)))


def bulk_ess(values: Float[np.ndarray, "chain draw *value"]) -> Float[np.ndarray, "*value"]:
    """Return the effective sample size of the rank-normalised split chains (Vehtari et al. 2021, section 4)."""
    return _ess(_normal_scores(_split(values)))


def tail_ess(values: Float[np.ndarray, "chain draw *value"]) -> Float[np.ndarray, "*value"]:
    """Return the smaller effective sample size of the 5 % and 95 % quantiles' indicators (the same, section 4.3)."""
    lower, upper = np.quantile(values, [0.05, 0.95], axis=(0, 1))
    split = _split(values)
    below, above = (split <= lower).astype(float), (split <= upper).astype(float)
    return np.minimum(_ess(below), _ess(above))


def ebfmi(energy: Float[np.ndarray, "chain draw"]) -> Float[np.ndarray, " chain"]:
    """Return each chain's E-BFMI = Σ (Eₙ − Eₙ₋₁)² / Σ (Eₙ − Ē)² (Betancourt 2016); 0 where the energy is stuck."""
    moves = (np.diff(energy, axis=1) ** 2).sum(1)
    spread = ((energy - energy.mean(1, keepdims=True)) ** 2).sum(1)
    return np.divide(moves, spread, out=np.zeros_like(moves), where=spread > 0)


def _all_but_tail(values: np.ndarray) -> float:
    """Return what 95 % of the values exceed; NaN counts as the worst."""
    return float(np.quantile(np.where(np.isnan(values), -np.inf, values), TAIL, method="lower"))


def _ess(values: np.ndarray) -> np.ndarray:
    """Return the effective sample size, at most N log₁₀ N as in Stan and ArviZ, and N where nothing moves.

    Nothing moves in the indicator of a quantile that lies at a bound of the values, as a probability of exactly 1.
    """
    num_values = values.shape[0] * values.shape[1]
    cap = num_values * np.log10(num_values)
    with np.errstate(divide="ignore", invalid="ignore"):
        sizes = effective_sample_size(values)
    # Antithetic chains have a negative autocorrelation time at most: more information than independent draws.
    capped = np.where((sizes <= 0) | (sizes > cap), cap, sizes)
    return np.where(np.ptp(values, axis=(0, 1)) > 0, capped, float(num_values))


def _split(values: np.ndarray) -> np.ndarray:
    half = values.shape[1] // 2
    return np.concatenate([values[:, :half], values[:, -half:]])


def _normal_scores(values: np.ndarray) -> np.ndarray:
    """Return Φ⁻¹((rank − 3/8) / (N + 1/4)), ranks over all chains (Vehtari et al. 2021, eq. 14)."""
    ranks = rankdata(values.reshape(-1, *values.shape[2:]), axis=0).reshape(values.shape)
    return ndtri((ranks - 0.375) / (values.shape[0] * values.shape[1] + 0.25))
