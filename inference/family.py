"""Does the variational family fit? Asked of the importance ratios at its own draws, whatever the optimiser did."""

from __future__ import annotations

import math
from dataclasses import dataclass

import jax
import numpy as np
from arviz_stats.base import array_stats
from jax import lax

from .base import Fit
from .density import log_joint, unconstrain

__all__ = ["FamilyFit", "family_fit", "pareto_khat"]

KHAT_LIMIT = 0.7
"""Yao et al. (2018), section 3: importance sampling from q works below it."""

LEAST_DRAWS = 100
"""Draws that k-hat is estimated from at least: fewer say little of a tail."""

ROUNDING = 1e-5
"""Relative differences between log densities that single precision explains by itself."""


@dataclass(frozen=True)
class FamilyFit:
    """Whether a variational family can hold the posterior, as far as its own draws tell.

    Attributes:
        fits: whether k-hat is below 0.7.
        reason: the number, in one line.
        khat: Pareto k-hat of p(y, w) / q(w); −∞ where q is the posterior.
        standard_error: Monte Carlo error of k-hat.
        num_draws: draws it was estimated from.
    """

    fits: bool
    reason: str
    khat: float
    standard_error: float
    num_draws: int


def family_fit(fit: Fit, *, num_draws: int | None = None) -> FamilyFit | None:
    """Judge a variational family by `pareto_khat`; None where there is no density, or fewer than 100 draws.

    The error is that of the maximum-likelihood shape of M exceedances, (1 + k) / √M (Smith 1987), M = min(S/5, 3 √S)
    of S draws (Vehtari et al. 2024): about 0.17 at k = 0.7 and 1,000 draws.

    Arguments:
        fit: the fit.
        num_draws: draws to use of the fit's own; None takes all. Each costs a log joint over all rows.
    """
    if fit.log_q is None:
        return None
    used = min(fit.log_q.size, num_draws or fit.log_q.size)
    if used < LEAST_DRAWS:
        return None
    khat = pareto_khat(fit, num_draws=used)
    tail = min(used / 5, 3 * math.sqrt(used))
    error = (1 + khat) / math.sqrt(tail) if np.isfinite(khat) else 0.0
    fits = khat < KHAT_LIMIT
    said = f"Pareto k-hat {khat:.2f} ±{error:.2f}"
    return FamilyFit(fits, said if fits else f"{said}, wanted < {KHAT_LIMIT}", khat, error, used)


def pareto_khat(fit: Fit, *, num_draws: int | None = None) -> float:
    """Return the Pareto k-hat of log p(y, w) − log q(w) at draws from the posterior q: does the family fit?

    −∞ where q is the posterior. Below 0.7 importance sampling from q would work; above it q misses the posterior,
    whatever the optimiser did. Expect that of any mean-field posterior of a whole network.

    Arguments:
        fit: a fit with `log_q`: by `SVI` with a guide that has a density, `BayesByBackprop` or `Laplace`.
        num_draws: how many of its draws to use; None takes all. Fewer than some hundred say little of a tail.

    Raises:
        ValueError: the fit has no density, as a sampler's, a point's or a pruned posterior has none.

    Source: Yao, Vehtari, Simpson & Gelman (2018), Yes, but Did It Work?: Evaluating Variational Inference, section 3.
    """
    ratios = log_ratios(fit, num_draws)
    finite = ratios[np.isfinite(ratios)]
    if len(finite) < len(ratios) and not np.isneginf(ratios[~np.isfinite(ratios)]).all():
        return math.inf  # a density of q that is 0 or unknown at its own draw
    if len(finite) == 0:
        return math.inf
    if np.ptp(finite) <= ROUNDING * max(1.0, float(np.abs(finite).max())) and len(finite) == len(ratios):
        return -math.inf  # q is the posterior: the ratios have no tail
    _, khat = array_stats.psislw(-ratios)
    return float(khat)


def log_ratios(fit: Fit, num_draws: int | None = None) -> np.ndarray:
    """Return log p(y, w) − log q(w) at the posterior's own draws (chain × draw,), one draw in memory at a time."""
    if fit.log_q is None:
        raise ValueError(f"{fit.method.name} leaves no density at its draws: k-hat judges a variational posterior")
    log_q = np.asarray(fit.log_q, float).ravel()[:num_draws]
    flat = {site: values.reshape(-1, *values.shape[2:])[:num_draws] for site, values in fit.draws.items()}
    one = log_joint(fit.model, fit.x, fit.y)
    free = unconstrain(fit.model, fit.x, fit.y, flat)
    joint = jax.jit(lambda values, x, y: lax.map(lambda value: one(value, x, y), values))(free, fit.x, fit.y)
    return np.asarray(joint, float) - log_q
