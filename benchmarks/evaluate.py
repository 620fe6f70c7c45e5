"""From a fit to its scores: one tidy row for each score on each set, with both of its errors."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

from hmcvi.inference import ClassPredictive, Fit, NormalPredictive, predict, scores
from hmcvi.inference.diagnostics import Convergence, convergence
from hmcvi.inference.predict import MAX_BYTES, NUM_BATCHES, at_posterior_mean
from hmcvi.inference.predictive import Predictive

from .cost import prediction_operations
from .datasets import Dataset
from .experiment import LEAST_DRAWS
from .ood import OODSet

__all__ = [
    "POSTERIOR_MEAN",
    "Evaluation",
    "Row",
    "distance_rows",
    "evaluate",
    "paired_rows",
    "row_score_errors",
    "row_scores",
]

POSTERIOR_MEAN = "posterior mean"
"""The set of rows that score the deterministic pass: the test rows, predicted from the mean of a Gaussian posterior."""

MOST_OPERATIONS = 1.5e12
"""Floating-point operations that the predictions of one set may take: about a minute on two cores of a laptop."""

MOST_VALUES = 2**22
"""Rows times draws of a regression's scores: a mixture's quantiles cost microseconds for each, twenty times over."""

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

LEVELS = (0.5, 0.8, 0.9, 0.95)
"""Levels of the central predictive intervals whose coverage and width are scored."""


@dataclass(frozen=True)
class Row:
    """One score: its value, its sampling error over the set's rows, and the posterior's Monte Carlo error.

    `low` and `high` are the ends of its 95 % bootstrap interval, where it has one: a distance or a paired difference.
    """

    set: str
    score: str
    value: float
    standard_error: float
    monte_carlo_error: float
    low: float = math.nan
    high: float = math.nan


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The scores of one fit, and the arrays that the figures draw.

    Attributes:
        rows: the scores.
        predictions: predictive distribution at the test rows.
        num_draws: posterior draws that the scores average over.
        uncertainty: by measure ("entropy", "mutual information", ...) and set, the test set first: (row,), entropies
            in nats.
        convergence: the verdict on a sampler; None for the variational methods.
    """

    rows: list[Row]
    predictions: ClassPredictive | NormalPredictive
    num_draws: int
    uncertainty: Mapping[str, Mapping[str, np.ndarray]]
    convergence: Convergence | None


def evaluate(fit: Fit, data: Dataset, foreign: list[OODSet]) -> Evaluation:
    """Score a fit on the test rows and on every OOD set.

    Arguments:
        fit: a fit of `data`'s training rows.
        data: the data set; regression scores are reported in the target's own unit.
        foreign: the OOD sets.
    """
    thinned = _thin(fit, data, max([len(data.x_test), *(ood_set.num_rows for ood_set in foreign)]))
    test = _predict(thinned, data, data.x_test, data.y_test)
    inside = _scores(test, data, data.y_test)
    rows = inside.rows(data.scored_on)
    if fit.location is not None and fit.num_draws > 1:
        mean = _scores(_predict(at_posterior_mean(fit), data, data.x_test), data, data.y_test)
        rows += mean.rows(POSTERIOR_MEAN, mean.under_shift)
    uncertainty = {measure: {data.scored_on: of} for measure, of in inside.uncertainties(None).items()}
    for ood_set in foreign:
        predictions = _predict(thinned, data, ood_set.x)  # no y: no score of it takes a draw's own likelihood
        outside = _scores(predictions, data, ood_set.y)
        for measure, of in outside.uncertainties(None).items():
            uncertainty[measure][ood_set.name] = of
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


def _predict(fit: Fit, data: Dataset, x: np.ndarray, y: np.ndarray | None = None) -> Predictive:
    """Predict under the usual bound, or that of the result where it is larger: memory was asked for beforehand."""
    width = NUM_BATCHES * (data.num_classes + 2) if data.num_classes else 3 * fit.num_chains * fit.num_draws
    y = y if data.num_classes else None  # a regression's densities come from its means and scales
    return predict(fit, x, y, every_draw=False, max_bytes=max(MAX_BYTES, BYTES_PER_NUMBER * width * len(x)))


def _scores(predictions: Predictive, data: Dataset, y: np.ndarray | None) -> _ClassScores | _NormalScores:
    if isinstance(predictions, ClassPredictive):
        return _ClassScores(predictions, y)
    return _NormalScores(predictions, data, y)


def _ood_rows(name: str, inside: _ClassScores | _NormalScores, outside: _ClassScores | _NormalScores) -> list[Row]:
    rows = []
    whole_in, whole_out = inside.uncertainties(None), outside.uncertainties(None)
    draws = scores.batch_replicates(inside.num_batches, inside.num_chains)
    halves = [(inside.uncertainties(part), outside.uncertainties(part)) for part in draws.weights]
    for measure in whole_in:
        value, error = scores.mean(whole_out[measure])
        rows.append(
            Row(name, f"mean {measure}", value, error, draws.error(value, [o[measure].mean() for _, o in halves]))
        )
        # Few resamples serve the Monte Carlo error: it reads the values only.
        resampled = {"aupr": scores.aupr, "fpr95": scores.fpr95}
        value, error = scores.auroc(whole_in[measure], whole_out[measure])
        areas = [scores.auroc(i[measure], o[measure]).value for i, o in halves]
        rows.append(Row(name, f"auroc, {measure}", value, error, draws.error(value, areas)))
        for score, function in resampled.items():
            value, error = function(whole_in[measure], whole_out[measure])
            values = [function(i[measure], o[measure], num_bootstrap=2).value for i, o in halves]
            rows.append(Row(name, f"{score}, {measure}", value, error, draws.error(value, values)))
    return rows


@dataclass(frozen=True, eq=False)
class _Mixture:
    """A classifier under weights of its batches of draws, with what several scores are taken from, once."""

    probs: np.ndarray
    aleatoric: np.ndarray
    single_draws: np.ndarray | None  # mean over draws of each one's log-likelihood (row,), where it was asked for
    y: np.ndarray | None

    @functools.cached_property
    def log_likelihood(self) -> np.ndarray:
        assert self.y is not None
        return -scores.row_negative_log_likelihood(self.probs, self.y)

    @functools.cached_property
    def parts(self) -> scores.TemperatureScaling:
        assert self.y is not None
        return scores.temperature_scaling(self.probs, self.y)


class _ClassScores:
    """Scores of a classification; `y` (row,) is None where no answer is right."""

    under_shift = ("accuracy", "nll", "ece", "entropy, total")

    def __init__(self, predictions: ClassPredictive, y: np.ndarray | None):
        self.predictions, self.y = predictions, y
        self.num_batches, self.num_chains = len(predictions.batch_size), predictions.num_chains

    def _mixture(self, weights: np.ndarray | None) -> _Mixture:
        """The mixture under weights of the batches of draws (None for all alike)."""
        sizes = self.predictions.batch_size
        sizes = sizes if weights is None else weights * sizes
        each = self.predictions.batch_log_likelihood
        single = None if each is None else np.tensordot(sizes / sizes.sum(), each, 1)
        mixture = _Mixture(*self.predictions.mixture(sizes), single, self.y)
        alone = self.predictions.batch_size.sum() == 1 and self.y is not None
        # One draw is its own mixture, without the rounding of two ways to it.
        return dataclasses.replace(mixture, single_draws=mixture.log_likelihood) if alone else mixture

    def uncertainties(self, weights: np.ndarray | None) -> dict[str, np.ndarray]:
        """Each uncertainty (row,) by name, under weights of the batches of draws (None for all alike)."""
        mixture = self._mixture(weights)
        total = scores.entropy(mixture.probs)
        return {
            "entropy": total,
            "mutual information": self._epistemic(total, mixture.aleatoric),
            "1 − confidence": 1 - mixture.probs.max(axis=1),
        }

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
            "accuracy": lambda m, n: scores.accuracy(m.probs, y),
            "nll": lambda m, n: scores.negative_log_likelihood(m.probs, y),
        }
        if self.predictions.batch_log_likelihood is not None:
            named |= {
                "nll, of single draws": lambda m, n: scores.mean(-m.single_draws),
                "nll, gained by averaging": lambda m, n: scores.averaging_gain(m.log_likelihood, m.single_draws),
            }
        named |= {
            "nll, refinement": lambda m, n: m.parts.refinement,
            "nll, miscalibration": lambda m, n: m.parts.calibration,
            "best temperature": lambda m, n: m.parts.temperature,
            "brier": lambda m, n: scores.brier(m.probs, y),
            "ece": lambda m, n: scores.ece(m.probs, y, num_bootstrap=n),
            "ece, null level": lambda m, n: scores.ece_null(m.probs),
            "ece, equal mass": lambda m, n: scores.ece(m.probs, y, bins="mass", num_bootstrap=n),
            "ece, class-wise": lambda m, n: scores.class_wise_ece(m.probs, y, num_bootstrap=n),
            "calibration error, max": lambda m, n: scores.maximum_calibration_error(m.probs, y, num_bootstrap=n),
            "confidence − accuracy": lambda m, n: scores.signed_calibration_error(m.probs, y),
            "aurc, entropy": lambda m, n: risks(scores.aurc, m.probs, n=n),
            **{
                f"error at {share:.0%} coverage": functools.partial(
                    lambda share, m, n: risks(scores.risk_at_coverage, m.probs, share, n=n), share
                )
                for share in COVERAGES
            },
            "entropy, total": lambda m, n: scores.mean(scores.entropy(m.probs)),
            "entropy, aleatoric": lambda m, n: scores.mean(m.aleatoric),
            "entropy, epistemic": lambda m, n: scores.mean(self._epistemic(scores.entropy(m.probs), m.aleatoric)),
        }
        whole = self._mixture(None)
        draws = scores.batch_replicates(self.num_batches, self.num_chains)
        halves = [self._mixture(weights) for weights in draws.weights]
        # Few resamples serve the Monte Carlo error: it reads the values only.
        found = {name: score(whole, n=NUM_BOOTSTRAP) for name, score in named.items() if names is None or name in names}
        return [
            Row(part, name, *of, draws.error(of.value, [named[name](half, n=2).value for half in halves]))
            for name, of in found.items()
        ]


class _NormalScores:
    """Scores of a regression, in the unit of the target; `y` (row,) is None where no answer is right."""

    under_shift = ("rmse", "nll", "coverage, 90%", "entropy, total")

    def __init__(self, predictions: NormalPredictive, data: Dataset, y: np.ndarray | None):
        self.batch = predictions.batch.ravel()
        self.num_batches, self.num_chains = int(self.batch.max()) + 1, len(predictions.loc)
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
        null = functools.cache(lambda: scores.pit_distance_null(len(y)))
        named: dict[str, Callable[..., scores.Score]] = {
            "rmse": lambda m, s, n: scores.rmse(m, y),
            "nll": lambda m, s, n: _negative(scores.log_likelihood(m, s, y)),
            "nll, of single draws": lambda m, s, n: scores.mean(-self._row_single_draws(m, s)),
            "nll, gained by averaging": self._gain,
            "crps": lambda m, s, n: scores.crps(m[:: _step(m)], s[:: _step(m)], y),
            **{f"coverage, {level:.0%}": _coverage(level, y) for level in LEVELS},
            "pit distance": lambda m, s, n: scores.pit_distance(m, s, y),
            "pit distance, null level": lambda m, s, n: null(),
            "entropy, total": lambda m, s, n: scores.mean(scores.normal_entropy(m, s, n)[0]),
            "entropy, aleatoric": lambda m, s, n: scores.mean(scores.normal_entropy(m, s, n)[1]),
            "entropy, epistemic": lambda m, s, n: scores.mean(scores.normal_entropy(m, s, n)[2]),
        }
        whole = self._kept(None)
        draws = scores.batch_replicates(self.num_batches, self.num_chains)
        halves = [self._kept(weights) for weights in draws.weights]
        found = {name: score(*whole) for name, score in named.items() if names is None or name in names}
        rows = [
            Row(part, name, *of, draws.error(of.value, [named[name](*half).value for half in halves]))
            for name, of in found.items()
        ]
        widths = [level for level in LEVELS if names is None or f"width of {level:.0%}" in names]
        return rows + [self._width(part, level) for level in widths]

    def _width(self, part: str, level: float) -> Row:
        """The width of the central interval; its Monte Carlo error without a bisection for each half of the draws."""
        ends = scores.interval(self.loc, self.scale, level)
        score = scores.mean(ends[1] - ends[0])
        draws = scores.batch_replicates(self.num_batches, self.num_chains)
        weights = draws.weights[:, self.batch]
        widths = np.empty(0)
        if len(weights):
            widths = scores.row_interval_width_under(self.loc, self.scale, weights, *ends).mean(axis=1)
        return Row(part, f"width of {level:.0%}", *score, draws.error(score.value, widths))

    def _row_single_draws(self, loc: np.ndarray, scale: np.ndarray) -> np.ndarray:
        """Mean over draws of each one's log density (row,)."""
        assert self.y is not None
        if len(loc) == 1:  # its own mixture, without the rounding of two ways to it
            return scores.row_log_likelihood(loc, scale, self.y)
        return norm.logpdf(self.y, loc, scale).mean(axis=0)

    def _gain(self, loc: np.ndarray, scale: np.ndarray, noise: np.ndarray) -> scores.Score:
        assert self.y is not None
        return scores.averaging_gain(scores.row_log_likelihood(loc, scale, self.y), self._row_single_draws(loc, scale))


def distance_rows(evaluation: Evaluation, reference: Evaluation, data: Dataset) -> list[Row]:
    """Return the distance of a fit's predictions from the reference's, at the test rows.

    Where the two are one and the same, the rows hold the noise floor: the distance between the two halves of the
    reference's own chains. The intervals are bootstrapped over rows. The Monte Carlo error is left out (NaN): the
    floor stands in its place.
    """
    ours, theirs = evaluation.predictions, reference.predictions
    if ours is theirs:
        ours, theirs = _halves(theirs)
    if isinstance(ours, ClassPredictive) and isinstance(theirs, ClassPredictive):
        named = {
            "agreement": scores.row_agreement(ours.probs, theirs.probs),
            "total variation": scores.row_total_variation(ours.probs, theirs.probs),
            "jensen-shannon": scores.row_jensen_shannon(ours.probs, theirs.probs),
        }
    else:
        assert isinstance(ours, NormalPredictive)
        assert isinstance(theirs, NormalPredictive)
        normals = [part.reshape(-1, part.shape[-1]) for p in (ours, theirs) for part in (p.loc, p.scale)]
        named = {"wasserstein-2": scores.row_wasserstein2(*normals) * data.target_scale}
    return [
        Row("reference", name, *scores.mean(values), math.nan, *scores.bootstrap_interval(values))
        for name, values in named.items()
    ]


def paired_rows(evaluation: Evaluation, other: Evaluation, data: Dataset, name: str) -> list[Row]:
    """Return the mean differences of two fits' row scores, paired over the test rows, under the set `name`.

    The errors and intervals hold the rows' sampling error; the Monte Carlo error is left out (NaN).
    """
    ours, theirs = row_scores(evaluation.predictions, data), row_scores(other.predictions, data)
    rows = []
    for score in ours:
        with np.errstate(invalid="ignore"):  # both ruled out what happened: neither is better
            found = scores.paired_bootstrap([(ours[score] - theirs[score])[:, None]])
        pair = scores.paired_difference(ours[score], theirs[score])
        rows.append(Row(name, score, *pair, math.nan, float(found.low[0]), float(found.high[0])))
    return rows


def row_scores(predictions: Predictive, data: Dataset) -> dict[str, np.ndarray]:
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


def row_score_errors(evaluation: Evaluation, data: Dataset) -> dict[str, float]:
    """Return the Monte Carlo errors of the means of `row_scores`; 0 for a single draw, whose score has none."""
    found = {row.score: row for row in evaluation.rows if row.set == data.scored_on}
    errors: dict[str, float] = {
        name: found[name].monte_carlo_error for name in ("accuracy", "nll", "brier") if name in found
    }
    if "rmse" in found:  # d x² = 2 x dx
        errors["squared error"] = 2 * found["rmse"].value * found["rmse"].monte_carlo_error
    return {name: 0.0 if math.isnan(error) else error for name, error in errors.items()}


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


def _step(draws: np.ndarray) -> int:
    """Every how many-th of the draws a CRPS is taken from."""
    return -(-len(draws) // CRPS_DRAWS)


def _negative(score: scores.Score) -> scores.Score:
    return scores.Score(-score.value, score.standard_error)


def _coverage(level: float, y: np.ndarray) -> Callable[..., scores.Score]:
    return lambda loc, scale, noise: scores.coverage(loc, scale, y, level=level)
