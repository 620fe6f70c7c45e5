"""From a fit to its scores: one tidy row for each score on each set, with both of its errors."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from hmcvi.inference import ClassPredictive, Fit, NormalPredictive, predict, scores
from hmcvi.inference.diagnostics import Convergence, convergence
from hmcvi.inference.predict import MAX_BYTES, NUM_BATCHES, Predictive, at_posterior_mean

from .cost import prediction_operations
from .datasets import Dataset
from .experiment import LEAST_DRAWS
from .ood import OODSet

__all__ = ["POSTERIOR_MEAN", "REFERENCE", "Evaluation", "Row", "distance_rows", "evaluate", "paired_rows"]

REFERENCE = "nuts"
"""The method that earns the name of reference where its diagnostics pass."""

POSTERIOR_MEAN = "posterior mean"
"""The set of rows that score the deterministic pass: the test rows, predicted from the mean of a Gaussian posterior."""

MOST_OPERATIONS = 1.5e12
"""Floating-point operations that the predictions of one set may take: about a minute on two cores of a laptop."""

MOST_VALUES = 2**22
"""Rows times draws of a regression's scores: a mixture's quantiles cost microseconds for each, twenty times over."""

WIDTH_ROWS = 2000
"""Rows beyond which the Monte Carlo error of an interval's width is left out: each of 20 takes a bisection."""

BYTES_PER_NUMBER = 8
"""As in float64, where that is switched on."""

CONVERGENCE_ROWS = 1000
"""Held-out rows at most whose log-likelihoods judge a sampler: what more would add is not worth its memory."""

NUM_BOOTSTRAP = 200
"""Resamples of the rows behind the sampling error of scores that are no means."""

COVERAGES = (0.8, 0.95)
"""Shares of the test rows, the surest first, whose error is scored: selective prediction."""

CRPS_DRAWS = 1000
"""Draws that a CRPS is taken from: more would sort for seconds, twenty times over for its Monte Carlo error."""

LEVELS = (0.5, 0.9)
"""Levels of the central predictive intervals whose coverage is scored."""


@dataclass(frozen=True)
class Row:
    """One score: its value, its sampling error over the set's rows, and the posterior's Monte Carlo error."""

    set: str
    score: str
    value: float
    standard_error: float
    monte_carlo_error: float


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The scores of one fit, and the arrays that the figures draw.

    Attributes:
        rows: the scores.
        predictions: predictive distribution at the test rows.
        num_draws: posterior draws that the scores average over.
        uncertainty: total entropy by set (row,), the test set first, in nats.
        convergence: the verdict on a sampler; None for the variational methods.
    """

    rows: list[Row]
    predictions: ClassPredictive | NormalPredictive
    num_draws: int
    uncertainty: Mapping[str, np.ndarray]
    convergence: Convergence | None


def evaluate(fit: Fit, data: Dataset, foreign: list[OODSet]) -> Evaluation:
    """Score a fit on the test rows and on every OOD set.

    Arguments:
        fit: a fit of `data`'s training rows.
        data: the data set; regression scores are reported in the target's own unit.
        foreign: the OOD sets.
    """
    thinned = _thin(fit, data, max([len(data.x_test), *(ood_set.num_rows for ood_set in foreign)]))
    test = _predict(thinned, data, data.x_test)
    inside = _scores(test, data, data.y_test)
    rows = inside.rows(data.scored_on)
    if fit.location is not None and fit.num_draws > 1:
        mean = _scores(_predict(at_posterior_mean(fit), data, data.x_test), data, data.y_test)
        rows += mean.rows(POSTERIOR_MEAN, mean.under_shift)
    uncertainty = {data.scored_on: inside.uncertainties(None)["entropy"]}
    for ood_set in foreign:
        predictions = _predict(thinned, data, ood_set.x)
        outside = _scores(predictions, data, ood_set.y)
        uncertainty[ood_set.name] = outside.uncertainties(None)["entropy"]
        rows += _ood_rows(ood_set.name, inside, outside)
        if ood_set.y is not None:
            rows += outside.rows(ood_set.name, outside.under_shift)
    judged = slice(CONVERGENCE_ROWS)
    verdict = convergence(fit, data.x_test[judged], data.y_test[judged])
    return Evaluation(rows, test, thinned.num_chains * thinned.num_draws, uncertainty, verdict)


def _thin(fit: Fit, data: Dataset, rows: int) -> Fit:
    """Every k-th draw, where predictions at this many rows by all of them would take too long or too much memory."""
    draws = fit.num_chains * fit.num_draws
    affordable = MOST_OPERATIONS / max(prediction_operations(fit), 1.0) / rows
    if data.task == "regression":  # where every draw is kept; a classification keeps means over batches of them
        affordable = min(affordable, MOST_VALUES / rows)
    step = min(math.ceil(draws / max(affordable, 1.0)), max(draws // LEAST_DRAWS, 1))
    if step == 1:
        return fit
    return dataclasses.replace(fit, draws={site: values[:, ::step] for site, values in fit.draws.items()})


def _predict(fit: Fit, data: Dataset, x: np.ndarray) -> Predictive:
    """Predict under the usual bound, or that of the result where it is larger: memory was asked for beforehand."""
    width = NUM_BATCHES * (data.num_classes + 1) if data.num_classes else 3 * fit.num_chains * fit.num_draws
    return predict(fit, x, max_bytes=max(MAX_BYTES, BYTES_PER_NUMBER * width * len(x)))


def _scores(predictions: Predictive, data: Dataset, y: np.ndarray | None) -> _ClassScores | _NormalScores:
    if isinstance(predictions, ClassPredictive):
        return _ClassScores(predictions, y)
    return _NormalScores(predictions, data, y)


def _ood_rows(name: str, inside: _ClassScores | _NormalScores, outside: _ClassScores | _NormalScores) -> list[Row]:
    rows = []
    whole_in, whole_out = inside.uncertainties(None), outside.uncertainties(None)
    weights = _leave_one_out(inside.num_batches)
    left_out = [(inside.uncertainties(part), outside.uncertainties(part)) for part in weights]
    for measure in whole_in:
        value, error = scores.mean(whole_out[measure])
        rows.append(Row(name, f"mean {measure}", value, error, _spread([o[measure].mean() for _, o in left_out])))
        # Few resamples serve the jackknife: it reads the values only.
        resampled = {"aupr": scores.aupr, "fpr95": scores.fpr95}
        value, error = scores.auroc(whole_in[measure], whole_out[measure])
        areas = [scores.auroc(i[measure], o[measure]).value for i, o in left_out]
        rows.append(Row(name, f"auroc, {measure}", value, error, _spread(areas)))
        for score, function in resampled.items():
            value, error = function(whole_in[measure], whole_out[measure])
            values = [function(i[measure], o[measure], num_bootstrap=2).value for i, o in left_out]
            rows.append(Row(name, f"{score}, {measure}", value, error, _spread(values)))
    return rows


class _ClassScores:
    """Scores of a classification; `y` (row,) is None where no answer is right."""

    under_shift = ("accuracy", "nll", "ece", "entropy, total")

    def __init__(self, predictions: ClassPredictive, y: np.ndarray | None):
        self.predictions, self.y = predictions, y
        self.num_batches = len(predictions.batch_size)

    def uncertainties(self, weights: np.ndarray | None) -> dict[str, np.ndarray]:
        """Each uncertainty (row,) by name, under weights of the batches of draws (None for all alike)."""
        sizes = self.predictions.batch_size
        probs, aleatoric = self.predictions.mixture(sizes if weights is None else weights * sizes)
        total = scores.entropy(probs)
        return {"entropy": total, "mutual information": self._epistemic(total, aleatoric)}

    def _epistemic(self, total: np.ndarray, aleatoric: np.ndarray) -> np.ndarray:
        """The mutual information (row,); of one draw it is 0, not the rounding of two sums."""
        alone = self.predictions.batch_size.sum() == 1
        return np.zeros_like(total) if alone else np.maximum(total - aleatoric, 0)

    def rows(self, part: str, names: Collection[str] | None = None) -> list[Row]:
        """The scores of these names, or all, as rows of the set `part`."""
        assert self.y is not None
        y = self.y

        def risks(score: Callable[..., scores.Score], p: np.ndarray, *coverage: float, n: int) -> scores.Score:
            return score(scores.entropy(p), 1 - scores.row_accuracy(p, y), *coverage, num_bootstrap=n)

        named: dict[str, Callable[..., scores.Score]] = {
            "accuracy": lambda p, a, n: scores.accuracy(p, y),
            "nll": lambda p, a, n: scores.negative_log_likelihood(p, y),
            "brier": lambda p, a, n: scores.brier(p, y),
            "ece": lambda p, a, n: scores.ece(p, y, num_bootstrap=n),
            "ece, null level": lambda p, a, n: scores.ece_null(p),
            "ece, equal mass": lambda p, a, n: scores.ece(p, y, bins="mass", num_bootstrap=n),
            "ece, class-wise": lambda p, a, n: scores.class_wise_ece(p, y, num_bootstrap=n),
            "calibration error, max": lambda p, a, n: scores.maximum_calibration_error(p, y, num_bootstrap=n),
            "confidence − accuracy": lambda p, a, n: scores.signed_calibration_error(p, y),
            "aurc, entropy": lambda p, a, n: risks(scores.aurc, p, n=n),
            **{
                f"error at {share:.0%} coverage": functools.partial(
                    lambda share, p, a, n: risks(scores.risk_at_coverage, p, share, n=n), share
                )
                for share in COVERAGES
            },
            "entropy, total": lambda p, a, n: scores.mean(scores.entropy(p)),
            "entropy, aleatoric": lambda p, a, n: scores.mean(a),
            "entropy, epistemic": lambda p, a, n: scores.mean(self._epistemic(scores.entropy(p), a)),
        }
        sizes = self.predictions.batch_size
        whole = self.predictions.mixture(sizes)
        left_out = [self.predictions.mixture(w * sizes) for w in _leave_one_out(self.num_batches)]
        # Few resamples serve the jackknife: it reads the values only.
        return [
            Row(part, name, *score(*whole, n=NUM_BOOTSTRAP), _spread([score(*one, n=2).value for one in left_out]))
            for name, score in named.items()
            if names is None or name in names
        ]


class _NormalScores:
    """Scores of a regression, in the unit of the target; `y` (row,) is None where no answer is right."""

    under_shift = ("rmse", "nll", "coverage, 90%", "entropy, total")

    def __init__(self, predictions: NormalPredictive, data: Dataset, y: np.ndarray | None):
        self.batch = predictions.batch.ravel()
        self.num_batches = int(self.batch.max()) + 1
        num_rows = predictions.loc.shape[-1]
        parts = (predictions.loc, predictions.scale, predictions.noise)
        loc, scale, noise = (part.reshape(-1, num_rows).astype(float) * data.target_scale for part in parts)
        self.loc, self.scale, self.noise = loc + data.target_loc, scale, noise
        self.y = None if y is None else y * data.target_scale + data.target_loc

    def _kept(self, weights: np.ndarray | None) -> tuple[np.ndarray, ...]:
        parts = (self.loc, self.scale, self.noise)
        if weights is None:
            return parts
        kept = weights[self.batch] > 0
        return tuple(part[kept] for part in parts)

    def uncertainties(self, weights: np.ndarray | None) -> dict[str, np.ndarray]:
        """Each uncertainty (row,) by name, under weights of the batches of draws (None for all alike)."""
        total, _, epistemic = scores.normal_entropy(*self._kept(weights))
        return {"entropy": total, "mutual information": epistemic}

    def rows(self, part: str, names: Collection[str] | None = None) -> list[Row]:
        """The scores of these names, or all, as rows of the set `part`."""
        assert self.y is not None
        y = self.y
        named: dict[str, Callable[..., scores.Score]] = {
            "rmse": lambda m, s, n: scores.rmse(m, y),
            "nll": lambda m, s, n: _negative(scores.log_likelihood(m, s, y)),
            "crps": lambda m, s, n: scores.crps(m[:: _step(m)], s[:: _step(m)], y),
            **{f"coverage, {level:.0%}": _coverage(level, y) for level in LEVELS},
            f"width of {LEVELS[-1]:.0%}": lambda m, s, n: scores.interval_width(m, s, LEVELS[-1]),
            "entropy, total": lambda m, s, n: scores.mean(scores.normal_entropy(m, s, n)[0]),
            "entropy, aleatoric": lambda m, s, n: scores.mean(scores.normal_entropy(m, s, n)[1]),
            "entropy, epistemic": lambda m, s, n: scores.mean(scores.normal_entropy(m, s, n)[2]),
        }
        whole = self._kept(None)
        left_out = [self._kept(weights) for weights in _leave_one_out(self.num_batches)]
        return [
            Row(part, name, *score(*whole), self._monte_carlo_error(name, score, left_out))
            for name, score in named.items()
            if names is None or name in names
        ]

    def _monte_carlo_error(self, name: str, score: Callable[..., scores.Score], left_out: list[Any]) -> float:
        if name.startswith("width") and self.loc.shape[1] > WIDTH_ROWS:
            return math.nan
        return _spread([score(*one).value for one in left_out])


def distance_rows(evaluation: Evaluation, reference: Evaluation, data: Dataset) -> list[Row]:
    """Return the distance of a fit's predictions from the reference's, at the test rows.

    Where the two are one and the same, the rows hold the noise floor: the distance between the two halves of the
    reference's own chains. The Monte Carlo error is left out (NaN): the floor stands in its place.
    """
    ours, theirs = evaluation.predictions, reference.predictions
    if ours is theirs:
        ours, theirs = _halves(theirs)
    if isinstance(ours, ClassPredictive) and isinstance(theirs, ClassPredictive):
        named = {
            "agreement": scores.agreement(ours.probs, theirs.probs),
            "total variation": scores.total_variation(ours.probs, theirs.probs),
            "jensen-shannon": scores.jensen_shannon(ours.probs, theirs.probs),
        }
    else:
        assert isinstance(ours, NormalPredictive)
        assert isinstance(theirs, NormalPredictive)
        normals = [part.reshape(-1, part.shape[-1]) for p in (ours, theirs) for part in (p.loc, p.scale)]
        value, error = scores.wasserstein2(*normals)
        named = {"wasserstein-2": scores.Score(value * data.target_scale, error * data.target_scale)}
    return [Row("reference", name, *score, float("nan")) for name, score in named.items()]


def paired_rows(evaluation: Evaluation, other: Evaluation, data: Dataset, name: str) -> list[Row]:
    """Return the mean differences of two fits' row scores, paired over the test rows, under the set `name`.

    The errors hold the rows' sampling error; the Monte Carlo error is left out (NaN).
    """
    ours, theirs = _row_scores(evaluation.predictions, data), _row_scores(other.predictions, data)
    return [Row(name, score, *scores.paired_difference(ours[score], theirs[score]), float("nan")) for score in ours]


def _row_scores(predictions: Predictive, data: Dataset) -> dict[str, np.ndarray]:
    """Return the scores that are means over rows, row by row; regression in the unit of the target."""
    if isinstance(predictions, ClassPredictive):
        probs, y = predictions.probs, data.y_test
        return {
            "accuracy": scores.row_accuracy(probs, y),
            "nll": scores.row_negative_log_likelihood(probs, y),
            "brier": scores.row_brier(probs, y),
        }
    scored = _NormalScores(predictions, data, data.y_test)
    assert scored.y is not None
    return {
        "squared error": (scored.loc.mean(0) - scored.y) ** 2,
        "nll": -scores.row_log_likelihood(scored.loc, scored.scale, scored.y),
    }


def _halves(predictions: Predictive) -> tuple[Predictive, ...]:
    """Split the draws: the first half of the chains against the second (of the one chain's draws, where alone)."""
    if isinstance(predictions, ClassPredictive):
        middle = len(predictions.batch_size) // 2
        return tuple(
            ClassPredictive(
                predictions.batch_probs[part], predictions.batch_entropy[part], predictions.batch_size[part]
            )
            for part in (slice(None, middle), slice(middle, None))
        )
    chains = len(predictions.loc)
    axis, middle = (0, chains // 2) if chains > 1 else (1, predictions.loc.shape[1] // 2)
    arrays = (predictions.loc, predictions.scale, predictions.batch)
    parts = [np.split(array, [middle], axis) for array in arrays]
    return tuple(NormalPredictive(*half) for half in zip(*parts, strict=True))


def _leave_one_out(num_batches: int) -> np.ndarray:
    """Return weights (left out, batch): 0 for the batch left out, 1 for the others; no row for a single batch."""
    return 1.0 - np.eye(num_batches) if num_batches > 1 else np.empty((0, num_batches))


def _spread(left_out: list[float]) -> float:
    """Return the jackknife standard error of values that leave one batch out each; NaN of one draw, which has none."""
    if not left_out:
        return math.nan
    values = np.asarray(left_out)
    return scores.jackknife(lambda weights: float(values[np.argmin(weights)]), len(values))


def _step(draws: np.ndarray) -> int:
    """Every how many-th of the draws a CRPS is taken from."""
    return -(-len(draws) // CRPS_DRAWS)


def _negative(score: scores.Score) -> scores.Score:
    return scores.Score(-score.value, score.standard_error)


def _coverage(level: float, y: np.ndarray) -> Callable[..., scores.Score]:
    return lambda loc, scale, noise: scores.coverage(loc, scale, y, level=level)
