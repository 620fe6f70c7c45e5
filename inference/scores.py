"""Scores of predictions: pure functions of arrays, each with its sampling error over the test set's rows.

Every score is a `Score(value, standard_error)`; functions called `row_...`, the entropies and `pit` give the
rows' own values, for pairing and plotting. Arguments may be NumPy or JAX arrays of any float width; the sums
are float64. Class probabilities are `(row, class)`; regression predictives are `(draw, row)`, the equally
weighted mixture over draws of Normals. The *other* error, the posterior's Monte Carlo error, comes from
`batch_replicates`, or for smooth scores from `jackknife`.

Every function raises ValueError, in one sentence with the remedy, on arrays of the wrong shape, without rows,
with NaN, with different numbers of rows, on rows of `probs` that are no distribution, on labels out of range
and on scales that are not positive. A docstring's Raises names only what comes on top of that.
"""

import numpy as np
from jaxtyping import Float
from scipy.special import entr

from .calibration import (
    ReliabilityCurve,
    class_wise_ece,
    ece,
    ece_null,
    maximum_calibration_error,
    reliability_curve,
    signed_calibration_error,
)
from .decomposition import TemperatureScaling, averaging_gain, temperature_scaling
from .distance import (
    agreement,
    jensen_shannon,
    row_agreement,
    row_jensen_shannon,
    row_total_variation,
    row_wasserstein2,
    total_variation,
    wasserstein2,
)
from .moments import MomentError, MomentErrors, moment_errors
from .monte_carlo import BatchReplicates, batch_replicates
from .regression import (
    coverage,
    crps,
    interval,
    interval_width,
    log_likelihood,
    normal_entropy,
    pit,
    pit_distance,
    pit_distance_null,
    rmse,
    row_crps,
    row_interval_width_under,
    row_log_likelihood,
)
from .resampling import Interval, PairedBootstrap, bootstrap_interval, paired_bootstrap
from .score_base import (
    Array,
    Labels,
    Probs,
    Rows,
    RowValues,
    Score,
    as_reals,
    bootstrap_error,
    checked,
    checked_classification,
    checked_probs,
    jackknife,
    mean,
    paired_difference,
    score_of_rows,
)
from .selective import RiskCoverage, aurc, risk_at_coverage, risk_coverage

__all__ = [
    "BatchReplicates",
    "Interval",
    "MomentError",
    "MomentErrors",
    "PairedBootstrap",
    "ReliabilityCurve",
    "RiskCoverage",
    "Score",
    "TemperatureScaling",
    "accuracy",
    "agreement",
    "aupr",
    "aurc",
    "auroc",
    "averaging_gain",
    "batch_replicates",
    "bootstrap_interval",
    "brier",
    "class_wise_ece",
    "coverage",
    "crps",
    "ece",
    "ece_null",
    "entropy",
    "entropy_decomposition",
    "fpr95",
    "interval",
    "interval_width",
    "jackknife",
    "jensen_shannon",
    "log_likelihood",
    "maximum_calibration_error",
    "mean",
    "moment_errors",
    "negative_log_likelihood",
    "normal_entropy",
    "ood",
    "paired_bootstrap",
    "paired_difference",
    "pit",
    "pit_distance",
    "pit_distance_null",
    "reliability_curve",
    "risk_at_coverage",
    "risk_coverage",
    "rmse",
    "row_accuracy",
    "row_agreement",
    "row_brier",
    "row_crps",
    "row_interval_width_under",
    "row_jensen_shannon",
    "row_log_likelihood",
    "row_negative_log_likelihood",
    "row_total_variation",
    "row_wasserstein2",
    "signed_calibration_error",
    "temperature_scaling",
    "total_variation",
    "wasserstein2",
]

# --- classification


def row_accuracy(probs: Probs, y: Labels) -> RowValues:
    """1[argmax_c p_ic = y_i] for each row, (row,); of equally probable classes the first is predicted.

    >>> row_accuracy(np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([0, 0]))
    array([1., 0.])
    """
    probs, labels = checked_classification(probs, y)
    return (probs.argmax(axis=1) == labels).astype(np.float64)


def accuracy(probs: Probs, y: Labels) -> Score:
    """Share of rows whose most probable class is the label.

    >>> accuracy(np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([0, 0])).value
    0.5
    """
    return score_of_rows(row_accuracy(probs, y))


def row_negative_log_likelihood(probs: Probs, y: Labels) -> RowValues:
    """-log p_i(y_i) for each row, (row,), in nats; infinite where the label had probability exactly 0.

    >>> row_negative_log_likelihood(np.array([[0.5, 0.5]]), np.array([1])).round(4)
    array([0.6931])
    """
    probs, labels = checked_classification(probs, y)
    with np.errstate(divide="ignore"):  # log 0 = -inf is the score of a class that was ruled out
        return -np.log(probs[np.arange(len(labels)), labels])


def negative_log_likelihood(probs: Probs, y: Labels) -> Score:
    """-(1/n) sum_i log p_i(y_i), in nats; no clipping, so one label ruled out makes it infinite (error NaN).

    >>> round(negative_log_likelihood(np.array([[0.5, 0.5], [0.5, 0.5]]), np.array([0, 1])).value, 4)
    0.6931

    Source: Good 1952, Rational decisions; Gneiting and Raftery 2007, Strictly proper scoring rules.
    """
    return score_of_rows(row_negative_log_likelihood(probs, y))


def row_brier(probs: Probs, y: Labels) -> RowValues:
    """sum_c (p_ic - 1[y_i = c])^2 for each row, (row,), in [0, 2].

    >>> row_brier(np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([0, 1]))
    array([0., 2.])
    """
    probs, labels = checked_classification(probs, y)
    return np.sum((probs - np.eye(probs.shape[1])[labels]) ** 2, axis=1)


def brier(probs: Probs, y: Labels) -> Score:
    """(1/n) sum_i sum_c (p_ic - 1[y_i = c])^2, the multi-class form (with two classes, twice the binary one).

    >>> brier(np.array([[0.5, 0.5], [0.5, 0.5]]), np.array([0, 1])).value
    0.5

    Source: Brier 1950, Verification of forecasts expressed in terms of probability.
    """
    return score_of_rows(row_brier(probs, y))


def entropy(probs: Probs) -> RowValues:
    """-sum_c p_ic log p_ic for each row, (row,), in nats, with 0 log 0 = 0.

    >>> entropy(np.array([[0.5, 0.5], [1.0, 0.0]])).round(4)
    array([0.6931, 0.    ])
    """
    return entr(checked_probs(probs)).sum(axis=1)


def entropy_decomposition(
    draw_probs: Float[Array, "draw row class"],
) -> tuple[RowValues, RowValues, RowValues]:
    """Predictive entropy split in two, H[E_d p_d] = E_d H[p_d] + I, I the information on the weights.

    Args:
        draw_probs: (draw, row, class), class probabilities under each posterior draw.

    Returns:
        total, aleatoric and epistemic entropy, each (row,), in nats. Epistemic is total - aleatoric, which is
        never negative but for rounding, and then 0.

    >>> total, aleatoric, epistemic = entropy_decomposition(np.array([[[1.0, 0.0]], [[0.0, 1.0]]]))
    >>> aleatoric, epistemic.round(4)  # each draw is certain, the draws disagree
    (array([0.]), array([0.6931]))

    Source: Houlsby et al. 2011, Bayesian active learning, eq. 2; Depeweg et al. 2018.
    """
    draws = as_reals("draw_probs", draw_probs)
    if draws.ndim != 3 or draws.size == 0:
        raise ValueError(
            f"draw_probs has shape {draws.shape} but should be (draw, row, class) with none of them 0:"
            " keep the axis of draws, and flatten (chain, draw) into it"
        )
    mean_probs, aleatoric = np.zeros(draws.shape[1:]), np.zeros(draws.shape[1])
    for draw in draws:  # one draw at a time: the float64 copy of all of them could fill the memory
        probs = checked_probs(draw)
        mean_probs += probs / len(draws)
        aleatoric += entr(probs).sum(axis=1) / len(draws)
    total = entr(mean_probs).sum(axis=1)
    return total, aleatoric, np.maximum(total - aleatoric, 0.0)


# --- detection of foreign inputs: OOD is the positive class, a higher score means more OOD


def auroc(scores_in: Rows, scores_out: Rows) -> Score:
    """P(score of an OOD row > score of an in-distribution row) + P(equal) / 2.

    Args:
        scores_in: (row,), of in-distribution inputs, for example `entropy`.
        scores_out: (row,), of OOD inputs; their number may differ.

    Returns:
        Score in [0, 1], 0.5 for a useless one. The error is DeLong's, with V the placement values:
        sqrt(var(V_out) / n_out + var(V_in) / n_in); 0 where the sets do not overlap, which only says "too few
        rows to see an overlap".

    >>> auroc(np.array([0.1, 0.2]), np.array([0.2, 0.3])).value
    0.875

    Source: DeLong et al. 1988, Comparing the areas under correlated receiver operating curves.
    """
    in_, out = _checked_ood(scores_in, scores_out)
    placement_out = _share_below(np.sort(in_), out)
    placement_in = 1.0 - _share_below(np.sort(out), in_)
    value, error_out = score_of_rows(placement_out)
    error_in = score_of_rows(placement_in).standard_error
    return Score(value, float(np.hypot(error_out, error_in)))


def aupr(
    scores_in: Rows,
    scores_out: Rows,
    *,
    num_bootstrap: int = 200,
    seed: int = 0,
    rng: np.random.Generator | None = None,
) -> Score:
    """Average precision sum_k (R_k - R_{k-1}) P_k over thresholds, OOD positive; useless is n_out / n.

    Args:
        scores_in: (row,), of in-distribution inputs.
        scores_out: (row,), of OOD inputs.
        num_bootstrap: replicates for the standard error; both sets are redrawn, each by itself.
        seed: of the bootstrap. A fixed default, as it moves only the error's own Monte Carlo error.
        rng: used instead of `seed` where given.

    Returns:
        Score in [0, 1]; the standard error by bootstrap over rows.

    >>> aupr(np.array([0.1, 0.2]), np.array([0.3, 0.4])).value
    1.0

    Source: Davis and Goadrich 2006, The relationship between precision-recall and ROC curves; for OOD:
    Hendrycks and Gimpel 2017, A baseline for detecting misclassified and out-of-distribution examples.
    """
    ranks = _ranks(scores_in, scores_out)
    error = bootstrap_error(_average_precision, *ranks, num_bootstrap=num_bootstrap, seed=seed, rng=rng)
    return Score(_average_precision(*ranks), error)


def fpr95(
    scores_in: Rows,
    scores_out: Rows,
    *,
    num_bootstrap: int = 200,
    seed: int = 0,
    rng: np.random.Generator | None = None,
) -> Score:
    """Share of in-distribution rows flagged at the highest threshold that flags at least 95 % of OOD rows.

    A row is flagged when its score reaches the threshold. Arguments as in `aupr`; lower is better.

    >>> fpr95(np.array([0.1, 0.2, 0.3, 0.9]), np.array([0.3, 0.8])).value  # 0.3 and 0.9 are flagged
    0.5

    Source: Liang et al. 2018, Enhancing the reliability of out-of-distribution image detection.
    """
    ranks = _ranks(scores_in, scores_out)
    error = bootstrap_error(_false_positive_rate, *ranks, num_bootstrap=num_bootstrap, seed=seed, rng=rng)
    return Score(_false_positive_rate(*ranks), error)


def ood(scores_in: Rows, scores_out: Rows) -> dict[str, Score]:
    """The three detection scores by name: "auroc", "aupr" and "fpr95".

    >>> list(ood(np.array([0.1, 0.2]), np.array([0.3, 0.4])))
    ['auroc', 'aupr', 'fpr95']
    """
    return {
        "auroc": auroc(scores_in, scores_out),
        "aupr": aupr(scores_in, scores_out),
        "fpr95": fpr95(scores_in, scores_out),
    }


def _checked_ood(scores_in: Rows, scores_out: Rows) -> tuple[np.ndarray, np.ndarray]:
    # Only their order counts, so an infinite score (a class ruled out) is as good as any other.
    return (
        checked("scores_in", scores_in, "row", allow_infinite=True),
        checked("scores_out", scores_out, "row", allow_infinite=True),
    )


def _share_below(ordered: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Share of `ordered` below each value, ties counted half."""
    below = np.searchsorted(ordered, values, side="left")
    not_above = np.searchsorted(ordered, values, side="right")
    return (below + not_above) / (2 * len(ordered))


def _ranks(scores_in: Rows, scores_out: Rows) -> tuple[np.ndarray, np.ndarray]:
    """Each row's place among the distinct thresholds, 0 the most OOD; sorted once for all replicates."""
    in_, out = _checked_ood(scores_in, scores_out)
    thresholds, place = np.unique(np.concatenate([in_, out]), return_inverse=True)
    rank = len(thresholds) - 1 - place
    return np.sort(rank[: len(in_)]), np.sort(rank[len(in_) :])


def _average_precision(rank_in: np.ndarray, rank_out: np.ndarray) -> float:
    num_ranks = max(rank_in.max(), rank_out.max()) + 1
    found_here = np.bincount(rank_out, minlength=num_ranks)
    found = np.cumsum(found_here)
    flagged = found + np.cumsum(np.bincount(rank_in, minlength=num_ranks))
    step = found_here > 0  # recall moves only there, and there precision is defined
    return float(np.sum(found_here[step] * found[step] / flagged[step]) / len(rank_out))


def _false_positive_rate(rank_in: np.ndarray, rank_out: np.ndarray) -> float:
    found = np.cumsum(np.bincount(rank_out))
    threshold = np.argmax(100 * found >= 95 * len(rank_out))  # integers: 0.95 n rounds to the wrong row
    return float(np.mean(rank_in <= threshold))
