"""Leave-one-out cross-validation at the training rows, by Pareto-smoothed importance sampling, through ArviZ."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import arviz as az
import numpy as np
from arviz_stats.base import array_stats
from jaxtyping import Float
from numpyro.diagnostics import effective_sample_size
from scipy.special import logsumexp

from .base import Fit, accepts
from .predict import MAX_BYTES, predict
from .score_base import Score

__all__ = ["LeaveOneOut", "leave_one_out", "why_no_loo"]

MOST_VALUES = 2**23
"""Rows times draws at most: ArviZ takes about 0.6 µs for each, so five seconds, and 64 MiB a copy."""

LEAST_DRAWS = 100
"""Fewer leave no tail to fit a Pareto distribution to: it takes the largest fifth of the ratios."""

MOST_BAD = 0.01
"""Share of the rows whose k-hat may exceed the limit: few enough to leave one out in earnest, by fitting again. Above
it the sum rests on rows whose error nobody knows."""


STEADY = 1e-3
"""Range of a row's log-likelihoods, in nats, below which its ratios are one number: all within 0.1 %."""


@dataclass(frozen=True, eq=False)
class LeaveOneOut:
    """Expected log predictive density of rows left out, and whether to trust it.

    Attributes:
        result: ArviZ's own, with its pointwise values and k-hats: what `az.compare` takes.
        num_bad: rows whose Pareto k-hat exceeds `result.good_k`, which is min(1 − 1 / log₁₀ draws, 0.7).
    """

    result: Any
    num_bad: int

    @property
    def num_rows(self) -> int:
        """Training rows."""
        return int(self.result.n_data_points)

    @property
    def allowed(self) -> bool:
        """Whether k-hat is within ArviZ's limit in all but 1 % of the rows."""
        return self.num_bad <= MOST_BAD * self.num_rows

    @property
    def per_row(self) -> Score:
        """elpd_loo / rows with its standard error over rows, in nats; both NaN where k-hat does not allow it."""
        if not self.allowed:
            return Score(math.nan, math.nan)
        return Score(float(self.result.elpd) / self.num_rows, float(self.result.se) / self.num_rows)


def why_no_loo(fit: Fit, *, max_values: int = MOST_VALUES) -> str:
    """Say why a fit has no PSIS-LOO; "" where it has.

    The ratios 1 / p(y_i | w) turn a draw of the posterior of all rows into one of the posterior without row i. That
    takes draws, rows that are independent given a draw, and a likelihood that was not tempered.
    """
    draws = fit.num_chains * fit.num_draws
    if draws == 1:
        return "one draw is no posterior"
    if accepts(fit.model, "x_new"):
        return "a Gaussian process's rows are not independent given its hyperparameters"
    if getattr(fit.method, "temperature", 1.0) != 1:
        return "a tempered posterior weighs its rows by another power of the likelihood"
    if draws < LEAST_DRAWS:
        return f"{draws} draws are too few for a tail: {LEAST_DRAWS} are wanted"
    if draws * len(fit.x) > max_values:
        return f"{len(fit.x):,} rows × {draws:,} draws are over the bound of {max_values:,}"
    return ""


def leave_one_out(fit: Fit, *, unit: float = 1.0, max_values: int = MOST_VALUES) -> LeaveOneOut:
    """Estimate log p(y_i | the other training rows) for every training row, without fitting again.

    elpd_loo = Σ_i log (Σ_s w_is p(y_i | draw_s) / Σ_s w_is), w_is the Pareto-smoothed 1 / p(y_i | draw_s). The draws
    of a variational method are taken for draws of the posterior, which they are not: what this scores is that
    approximation, and k-hat does not see how far it lies from the posterior (`pareto_khat` does).

    Arguments:
        fit: a fit with draws, of a model whose rows are independent given them.
        unit: of the targets the model was fitted to, such as the sd that a regression's were divided by: densities
            are per unit of the target itself.
        max_values: bound on rows × draws.

    Returns:
        `LeaveOneOut`. ArviZ's relative efficiency is that of the likelihoods of the rows, averaged, for a sampler's
        chains, and 1 for independent draws.

    Raises:
        ValueError: the fit has no PSIS-LOO; the sentence says why.

    Source: Vehtari, Gelman and Gabry (2017), Practical Bayesian model evaluation using leave-one-out
    cross-validation and WAIC; Vehtari et al. (2024), Pareto smoothed importance sampling.
    """
    reason = why_no_loo(fit, max_values=max_values)
    if reason:
        raise ValueError(f"{fit.method.name} has no PSIS-LOO: {reason}")
    values = fit.num_chains * fit.num_draws * len(fit.x)
    # Draws are kept for each row here, so that the bound is that of `max_values` and not of a prediction.
    predictions = predict(fit, fit.x, fit.y, max_bytes=max(MAX_BYTES, 64 * values))
    assert predictions.log_likelihood is not None
    return from_log_likelihood(predictions.log_likelihood - math.log(unit), chains=bool(fit.stats))


def from_log_likelihood(log_likelihood: Float[np.ndarray, "chain draw row"], *, chains: bool) -> LeaveOneOut:
    """Estimate it from the draws' log-likelihoods (chain, draw, row), of a sampler's chains or of independent draws."""
    values = np.asarray(log_likelihood, np.float64)
    tree = az.from_dict({"log_likelihood": {"y": values}})
    efficiency = _relative_efficiency(values) if chains else 1.0
    log_weights, khat = _smoothed(values.reshape(-1, values.shape[2]).T, efficiency)
    each = tree["log_likelihood"]["y"]
    given = {
        "log_weights": each.copy(data=log_weights.T.reshape(values.shape)),
        "pareto_k": each.isel(chain=0, draw=0, drop=True).copy(data=khat),
    }
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Estimated shape parameter of Pareto")  # `num_bad` says so
        warnings.filterwarnings("ignore", message="The point-wise LOO is the same")  # of one row it is
        result = az.loo(tree, pointwise=True, reff=efficiency, **given)
    return LeaveOneOut(result, int((~(result.pareto_k.values <= result.good_k)).sum()))


def _smoothed(
    log_likelihood: Float[np.ndarray, "row draw"], efficiency: float
) -> tuple[Float[np.ndarray, "row draw"], Float[np.ndarray, " row"]]:
    """Return ArviZ's smoothed log weights (row, draw) and k-hats (row,), also of rows that it refuses.

    Rows whose ratios are one number have nothing to smooth and k-hat −∞; where the largest ratios are equal, as at
    a probability that underflows, there is no tail to fit and k-hat is ∞: such a row cannot be left out.
    """
    log_weights = -log_likelihood - logsumexp(-log_likelihood, axis=1, keepdims=True)
    steady = np.ptp(log_likelihood, axis=1) < STEADY
    khat = np.where(steady, -np.inf, np.inf)
    for row in np.flatnonzero(~steady):
        with contextlib.suppress(ValueError):  # "All tail values are the same"
            log_weights[row], khat[row] = array_stats.psislw(log_likelihood[row], r_eff=efficiency)
    return log_weights, khat


def compare_loo(found: Mapping[str, LeaveOneOut]) -> Any:
    """Return ArviZ's table of the differences in elpd_loo, best first, a data frame with one row a method.

    Raises:
        ValueError: there is no method, or they were fitted to different numbers of rows.
    """
    if len({one.num_rows for one in found.values()}) != 1:
        rows = {name: one.num_rows for name, one in found.items()}
        raise ValueError(f"the training rows number {rows}: pass at least one method, all fitted to the same rows")
    return az.compare({name: one.result for name, one in found.items()}, round_to="none")


def _relative_efficiency(log_likelihood: np.ndarray) -> float:
    """Mean over rows of the effective sample size of p(y_i | draw), by draws; at most 1, as in R's loo."""
    likelihood = np.exp(log_likelihood - log_likelihood.max(axis=(0, 1)))
    with np.errstate(divide="ignore", invalid="ignore"):  # a row that is certain under every draw does not vary
        share = effective_sample_size(likelihood) / (likelihood.shape[0] * likelihood.shape[1])
    share = share[np.isfinite(share) & (share > 0)]
    return float(min(share.mean(), 1.0)) if len(share) else 1.0
