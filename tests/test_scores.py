"""Scores against hand-computed cases, closed forms, scikit-learn and SciPy.

Stochastic tests have fixed seeds; each states its false-alarm rate, the chance that a correct implementation
would fail it on a fresh seed.
"""

import numpy as np
import pytest
from scipy import stats
from scipy.spatial.distance import jensenshannon
from scipy.special import logsumexp
from sklearn import metrics

from hmcvi.inference import (
    calibration,
    scores,
)

from .score_data import NUM_CLASSES, NUM_DRAWS, NUM_ROWS, classification, detection, normals, two_class

# --- classification


def test_accuracy_and_its_error_by_hand():
    probs = np.array([[0.6, 0.4], [0.3, 0.7], [0.5, 0.5], [0.1, 0.9]])
    # A tie goes to the first class: rows 0 and 1 are right, 2 and 3 wrong; sd 1 / sqrt(3), over sqrt(4).
    assert scores.accuracy(probs, np.array([0, 1, 1, 0])) == pytest.approx((0.5, 1 / np.sqrt(12)))


def test_means_agree_with_sklearn():
    probs, y = classification()
    labels = np.arange(NUM_CLASSES)
    assert scores.accuracy(probs, y).value == pytest.approx(metrics.accuracy_score(y, probs.argmax(1)))
    assert scores.negative_log_likelihood(probs, y).value == pytest.approx(metrics.log_loss(y, probs, labels=labels))
    assert scores.brier(probs, y).value == pytest.approx(
        metrics.brier_score_loss(y, probs, labels=labels, scale_by_half=False)
    )


@pytest.mark.parametrize("name", ["accuracy", "negative_log_likelihood", "brier"])
def test_the_error_of_a_mean_is_that_of_its_rows(name):
    probs, y = classification()
    rows = getattr(scores, f"row_{name}")(probs, y)
    assert rows.shape == (NUM_ROWS,)
    assert getattr(scores, name)(probs, y) == pytest.approx((rows.mean(), stats.sem(rows)))


def test_a_label_that_was_ruled_out_costs_infinity():
    score = scores.negative_log_likelihood(np.array([[1.0, 0.0], [0.5, 0.5]]), np.array([1, 0]))
    assert score.value == np.inf
    assert np.isnan(score.standard_error)


def test_one_row_has_no_standard_error():
    probs, y = np.array([[0.2, 0.8]]), np.array([1])
    for score in (scores.accuracy, scores.brier, scores.negative_log_likelihood, scores.ece):
        assert np.isnan(score(probs, y).standard_error)
    for score in scores.ood(np.array([0.0]), np.array([1.0])).values():
        assert np.isnan(score.standard_error)


def test_paired_difference_is_tighter_than_two_separate_errors():
    probs, y = classification()
    other = 0.9 * probs + 0.1 / NUM_CLASSES
    rows, other_rows = scores.row_brier(probs, y), scores.row_brier(other, y)
    difference = scores.paired_difference(rows, other_rows)
    assert difference == pytest.approx((np.mean(rows - other_rows), stats.sem(rows - other_rows)))
    apart = np.hypot(scores.brier(probs, y).standard_error, scores.brier(other, y).standard_error)
    assert difference.standard_error < 0.2 * apart


def test_paired_difference_of_two_ruled_out_labels_is_nan_and_of_one_infinite():
    assert scores.paired_difference(np.array([np.inf, 1.0]), np.array([0.0, 1.0])).value == np.inf
    assert np.isnan(scores.paired_difference(np.array([np.inf, 1.0]), np.array([np.inf, 1.0])).value)


# --- calibration


def test_ece_by_hand_with_equal_width():
    # Bins (0.5, 0.75] and (0.75, 1]: 0.6 and 0.75 (an edge, so the left bin) with one of two right;
    # 0.8 and exactly 1 both right. (2 |0.5 - 0.675| + 2 |1 - 0.9|) / 4 = 0.1375.
    probs, y = two_class([0.6, 0.75, 0.8, 1.0]), np.array([1, 0, 1, 1])
    curve = scores.reliability_curve(probs, y, num_bins=4)
    np.testing.assert_array_equal(curve.count, [0, 0, 2, 2])
    np.testing.assert_allclose(curve.confidence, [np.nan, np.nan, 0.675, 0.9])
    np.testing.assert_allclose(curve.accuracy, [np.nan, np.nan, 0.5, 1.0])
    np.testing.assert_allclose(curve.edges, [0, 0.25, 0.5, 0.75, 1])
    assert scores.ece(probs, y, num_bins=4).value == pytest.approx(0.1375)


def test_ece_by_hand_with_equal_mass():
    # Two rows a bin: {0.6, 0.75}, {0.8, 0.9}, {0.95, 1}; accuracies 0.5, 1, 0.5.
    probs, y = two_class([0.6, 0.75, 0.8, 0.9, 0.95, 1.0]), np.array([1, 0, 1, 1, 0, 1])
    curve = scores.reliability_curve(probs, y, num_bins=3, bins="mass")
    np.testing.assert_array_equal(curve.count, [2, 2, 2])
    np.testing.assert_allclose(curve.edges, [0, 0.75, 0.9, 1])
    assert scores.ece(probs, y, num_bins=3, bins="mass").value == pytest.approx((0.175 + 0.15 + 0.475) / 3)


@pytest.mark.parametrize("bins", ["width", "mass"])
def test_every_row_is_counted_at_the_ends_of_the_interval(bins):
    # A top label's confidence is never below 1 / classes, so confidence 0 is asked of the binning itself.
    confidence = np.array([0.0, 0.0, 0.3, 1.0, 1.0, 1.0])
    bin_of_row = calibration._bin_of_row(confidence, calibration._edges(confidence, 3, bins))
    assert bin_of_row.min() == 0
    assert bin_of_row.max() <= 2
    np.testing.assert_array_equal(bin_of_row[:2], 0)
    if bins == "width":
        np.testing.assert_array_equal(bin_of_row, [0, 0, 0, 2, 2, 2])


@pytest.mark.parametrize("bins", ["width", "mass"])
@pytest.mark.parametrize("num_bins", [1, 2, 15, 100])
@pytest.mark.parametrize("confidence", [0.5, 0.7, 1.0])
def test_tied_confidences_share_a_bin_and_the_rest_is_empty(bins, num_bins, confidence):
    probs, y = two_class([confidence] * 8), np.array([1, 1, 1, 1, 1, 1, 0, 0])
    correct = np.mean(probs.argmax(axis=1) == y)  # at 0.5 the first class is predicted
    curve = scores.reliability_curve(probs, y, num_bins, bins)
    assert sorted(curve.count)[-1] == curve.count.sum() == 8
    assert np.isnan(curve.accuracy).sum() == np.isnan(curve.confidence).sum() == num_bins - 1
    assert scores.ece(probs, y, num_bins=num_bins, bins=bins).value == pytest.approx(abs(correct - confidence))


def test_mass_bins_split_no_tie_and_hold_equal_shares_without_ties():
    tied = two_class([0.6, 0.6, 0.6, 0.9])
    np.testing.assert_array_equal(scores.reliability_curve(tied, np.ones(4, int), 2, "mass").count, [3, 1])
    probs, y = classification(rows=150)
    np.testing.assert_array_equal(scores.reliability_curve(probs, y, 15, "mass").count, 10)


@pytest.mark.parametrize("bins", ["width", "mass"])
def test_one_class_is_always_right(bins):
    probs, y = np.ones((5, 1)), np.zeros(5, int)
    assert scores.ece(probs, y, bins=bins) == (0.0, 0.0)
    assert scores.brier(probs, y) == (0.0, 0.0)
    np.testing.assert_array_equal(scores.entropy(probs), 0.0)


def test_probabilities_that_round_above_one_stay_in_the_last_bin():
    probs = np.array([[1.00001, 0.0], [0.0, 1.00001]], dtype=np.float32)
    curve = scores.reliability_curve(probs, np.array([0, 1]), 10)
    np.testing.assert_array_equal(curve.count, [0] * 9 + [2])


def test_the_bootstrap_error_of_ece_where_it_is_known():
    # One bin, sure to 0.9 and right 0.7 of the time: ece = 0.9 - mean(correct), whose error is sd / sqrt(n).
    # 2,000 replicates know an sd to 1 / sqrt(4,000) = 1.6 %; 8 % is five of those: 6e-7 false alarms.
    y = (np.arange(1000) < 700).astype(int)
    score = scores.ece(two_class(np.full(1000, 0.9)), y, num_bootstrap=2000)
    assert score.value == pytest.approx(0.2)
    assert score.standard_error == pytest.approx(np.sqrt(0.7 * 0.3 / 1000), rel=0.08)


def test_draws_chain_by_chain_are_scored_as_all_of_them_together():
    random = np.random.default_rng(0)
    loc, scale, y = random.normal(size=(3, 20, 7)), random.uniform(0.5, 2, (3, 20, 7)), random.normal(size=7)
    together = loc.reshape(60, 7), scale.reshape(60, 7)
    assert scores.rmse(loc, y) == scores.rmse(together[0], y)
    for score in (scores.crps, scores.log_likelihood, scores.pit_distance):
        assert score(loc, scale, y) == score(*together, y)
    with pytest.raises(ValueError, match=r"loc has shape \(1, 3, 20, 7\) but should be \(draw, row\)"):
        scores.rmse(loc[None], y)


def test_a_given_generator_replaces_the_seed():
    probs, y = classification()
    by_seed = scores.ece(probs, y, seed=5)
    assert scores.ece(probs, y, rng=np.random.default_rng(5)) == by_seed
    assert scores.ece(probs, y, seed=6).standard_error != by_seed.standard_error
    in_, out = detection()
    for score in (scores.aupr, scores.fpr95):
        assert score(in_, out, rng=np.random.default_rng(5)) == score(in_, out, seed=5)


def test_the_null_of_ece_where_it_is_known_exactly():
    # All rows as sure: ece = |Binomial(n, c) / n - c|, whose mean and sd are finite sums.
    rows, confidence, simulations = 60, 0.8, 4000
    hits = np.arange(rows + 1)
    chance = stats.binom.pmf(hits, rows, confidence)
    gap = np.abs(hits / rows - confidence)
    expected = chance @ gap
    sd = np.sqrt(chance @ (gap - expected) ** 2)
    null = scores.ece_null(two_class(np.full(rows, confidence)), num_simulations=simulations)
    # 4 Monte Carlo errors: 6e-5 false alarms; the sd to 5 of its own, 1 / sqrt(2 simulations) of it.
    assert null.value == pytest.approx(expected, abs=4 * sd / np.sqrt(simulations))
    assert null.standard_error == pytest.approx(sd, rel=5 / np.sqrt(2 * simulations))


@pytest.mark.parametrize(("rows", "known"), [(200, 0.052), (1000, 0.025), (10_000, 0.008)])
@pytest.mark.parametrize("bins", ["width", "mass"])
def test_the_null_of_ece_shrinks_with_the_rows_as_the_theory_says(rows, known, bins):
    # Not seed 0, ece_null's default: one stream for confidences and labels would tie them together.
    confidence = np.random.default_rng(7).uniform(0.5, 1.0, size=rows)
    null = scores.ece_null(two_class(confidence), bins=bins)
    # The excess of hits in a bin is nearly Normal, and E|Normal(0, v)| = sqrt(2 v / pi).
    edges = calibration._edges(confidence, 15, bins)
    variance = np.histogram(confidence, edges, weights=confidence * (1 - confidence))[0]
    theory = np.sqrt(2 * variance / np.pi).sum() / rows
    # 4 Monte Carlo errors (6e-5 false alarms) and 2 % for "nearly".
    tolerance = 4 * null.standard_error / np.sqrt(200) + 0.02 * theory
    assert null.value == pytest.approx(theory, abs=tolerance)
    if bins == "width":  # the levels that DESIGN.md tells users to expect, whose confidences differ a little
        assert null.value == pytest.approx(known, rel=0.3)


def test_a_calibrated_classifier_scores_its_null_and_an_overconfident_one_does_not():
    rng = np.random.default_rng(1)
    probs = rng.dirichlet(np.ones(5), size=2000)
    y = (rng.random((2000, 1)) > probs.cumsum(axis=1)).sum(axis=1).clip(max=4)
    null = scores.ece_null(probs)
    # The null's upper tail is nearly Normal: 4 sd are 1e-4 false alarms.
    assert abs(scores.ece(probs, y).value - null.value) < 4 * null.standard_error
    sharpened = probs**3 / np.sum(probs**3, axis=1, keepdims=True)
    null = scores.ece_null(sharpened)
    assert scores.ece(sharpened, y).value > null.value + 10 * null.standard_error


# --- entropies


def test_entropy_of_uniform_and_certain_rows():
    probs = np.array([[0.25] * 4, [0.0, 1.0, 0.0, 0.0], [0.5, 0.5, 0.0, 0.0]])
    np.testing.assert_allclose(scores.entropy(probs), [np.log(4), 0.0, np.log(2)])
    np.testing.assert_allclose(scores.entropy(classification()[0]), stats.entropy(classification()[0], axis=1))


def test_mean_entropy_is_a_score():
    values = scores.entropy(classification()[0])
    assert scores.mean(values) == pytest.approx((values.mean(), stats.sem(values)))


def test_entropy_decomposition_by_hand():
    agree_unsure = [[0.5, 0.5], [0.5, 0.5]]
    disagree_sure = [[1.0, 0.0], [0.0, 1.0]]
    agree_sure = [[1.0, 0.0], [1.0, 0.0]]
    draw_probs = np.array([agree_unsure, disagree_sure, agree_sure]).swapaxes(0, 1)
    total, aleatoric, epistemic = scores.entropy_decomposition(draw_probs)
    np.testing.assert_allclose(total, [np.log(2), np.log(2), 0.0])
    np.testing.assert_allclose(aleatoric, [np.log(2), 0.0, 0.0])
    np.testing.assert_allclose(epistemic, [0.0, np.log(2), 0.0])


def test_entropy_decomposition_adds_up_to_the_mutual_information():
    draw_probs = np.stack([classification(seed)[0] for seed in range(NUM_DRAWS)])
    total, aleatoric, epistemic = scores.entropy_decomposition(draw_probs)
    np.testing.assert_allclose(total, scores.entropy(draw_probs.mean(axis=0)))
    np.testing.assert_allclose(aleatoric + epistemic, total)
    # Mutual information is also the mean Kullback-Leibler divergence of a draw from the mixture.
    divergence = np.sum(draw_probs * np.log(draw_probs / draw_probs.mean(axis=0)), axis=2).mean(axis=0)
    np.testing.assert_allclose(epistemic, divergence)


def test_epistemic_entropy_of_equal_draws_is_zero_not_a_rounding_below_it():
    probs = classification()[0].astype(np.float32)
    epistemic = scores.entropy_decomposition(np.stack([probs] * 3))[2]
    assert epistemic.min() >= 0.0
    np.testing.assert_allclose(epistemic, 0.0, atol=1e-12)


# --- detection


@pytest.mark.parametrize("decimals", [15, 1, 0])  # 1 and 0 leave many ties
def test_detection_agrees_with_sklearn(decimals):
    in_, out = (np.round(values, decimals) for values in detection())
    is_out = np.r_[np.zeros(len(in_)), np.ones(len(out))]
    both = np.r_[in_, out]
    assert scores.auroc(in_, out).value == pytest.approx(metrics.roc_auc_score(is_out, both))
    assert scores.aupr(in_, out).value == pytest.approx(metrics.average_precision_score(is_out, both))
    false_positives, found, _ = metrics.roc_curve(is_out, both, drop_intermediate=False)
    assert scores.fpr95(in_, out).value == pytest.approx(false_positives[found >= 0.95].min())


def test_all_ties_are_a_coin():
    found = scores.ood(np.full(30, 2.0), np.full(10, 2.0))
    assert found["auroc"] == (0.5, 0.0)
    assert found["aupr"] == (0.25, 0.0)  # the share of OOD rows
    assert found["fpr95"] == (1.0, 0.0)  # to flag one is to flag all


def test_perfect_and_inverted_detection():
    low, high = np.arange(10.0), np.arange(10.0) + 100
    assert {name: score.value for name, score in scores.ood(low, high).items()} == {
        "auroc": 1.0,
        "aupr": 1.0,
        "fpr95": 0.0,
    }
    inverted = scores.ood(high, low)
    assert (inverted["auroc"].value, inverted["fpr95"].value) == (0.0, 1.0)


def test_fpr95_by_hand():
    # 19 of the 20 OOD rows must be flagged: the threshold is their second smallest, 2. Of the in-distribution
    # rows 2 (equal counts as flagged), 7 and 30 are flagged, 0 and 1.5 are not.
    assert scores.fpr95(np.array([0.0, 1.5, 2.0, 7.0, 30.0]), np.arange(1.0, 21.0)).value == 0.6


def test_infinite_scores_are_ordered_like_any_other():
    assert scores.auroc(np.array([-np.inf, 0.0]), np.array([1.0, np.inf])).value == 1.0


def test_delong_error_agrees_with_the_bootstrap():
    in_, out = detection(rows_in=500, rows_out=400)
    rng = np.random.default_rng(0)
    replicates = [scores.auroc(rng.choice(in_, 500), rng.choice(out, 400)).value for _ in range(1000)]
    # 1,000 replicates know an sd to 2.2 %: 15 % is over six of those, below 1e-9 false alarms.
    assert scores.auroc(in_, out).standard_error == pytest.approx(np.std(replicates), rel=0.15)


@pytest.mark.parametrize("name", ["auroc", "aupr", "fpr95"])
def test_detection_errors_are_the_spread_over_fresh_test_sets(name):
    score = getattr(scores, name)
    values = [score(*detection(seed, 1000, 1000)).value for seed in range(100, 300)]
    errors = [score(*detection(seed, 1000, 1000)).standard_error for seed in range(100, 110)]
    # 200 sets know an sd to 5 %, ten mean errors add 2 to 4 % (fpr95 the most): 25 % is four of them, 6e-5.
    assert np.mean(errors) == pytest.approx(np.std(values), rel=0.25)


# --- regression


def test_regression_agrees_with_sklearn_and_scipy():
    loc, scale, y = normals()
    assert scores.rmse(loc, y).value == pytest.approx(metrics.root_mean_squared_error(y, loc.mean(axis=0)))
    log_density = logsumexp(stats.norm.logpdf(y, loc, scale), axis=0) - np.log(NUM_DRAWS)
    np.testing.assert_allclose(scores.row_log_likelihood(loc, scale, y), log_density)
    assert scores.log_likelihood(loc, scale, y) == pytest.approx((log_density.mean(), stats.sem(log_density)))
    np.testing.assert_allclose(scores.pit(loc, scale, y), stats.norm.cdf(y, loc, scale).mean(axis=0))


def test_log_likelihood_far_out_does_not_underflow():
    # exp(-5000) is 0 in float64, its logarithm is not.
    value = scores.row_log_likelihood(np.array([[0.0], [0.0]]), np.ones((2, 1)), np.array([100.0]))
    assert value == pytest.approx(stats.norm.logpdf(100.0))


def test_the_error_of_rmse_where_it_is_known():
    # Normal errors: se(rmse) = sigma / sqrt(2 n). Its own relative error is that of the sd of chi-squared
    # variables, sqrt(14 / n) / 2 = 1.9 %: 10 % is five of those, 6e-7 false alarms.
    y = np.random.default_rng(0).normal(0, 3.0, size=10_000)
    score = scores.rmse(np.zeros((2, 10_000)), y)
    assert score.standard_error == pytest.approx(3.0 / np.sqrt(20_000), rel=0.1)
    assert score.value == pytest.approx(3.0, abs=4 * 3.0 / np.sqrt(20_000))  # 6e-5
    assert scores.rmse(np.zeros((2, 3)), np.zeros(3)) == (0.0, 0.0)


@pytest.mark.parametrize("level", [0.5, 0.9, 0.99])
def test_coverage_of_the_true_predictive_is_its_level(level):
    rows = 5000
    loc, scale, _ = normals(rows=rows)
    rng = np.random.default_rng(3)
    draw = rng.integers(NUM_DRAWS, size=rows)
    y = rng.normal(loc[draw, np.arange(rows)], scale[draw, np.arange(rows)])  # y from the mixture itself
    binomial_error = np.sqrt(level * (1 - level) / rows)
    # Four binomial errors: 6e-5 false alarms a level.
    assert scores.coverage(loc, scale, y, level=level).value == pytest.approx(level, abs=4 * binomial_error)
    assert scores.coverage(loc, scale, y, level=level).standard_error == pytest.approx(binomial_error, rel=0.25)
    # A predictive that is three times too narrow does not cover.
    assert scores.coverage(loc, scale / 3, y, level=level).value < level - 10 * binomial_error
    # The uniform law of the PIT: Kolmogorov-Smirnov at 1e-4 false alarms.
    assert stats.kstest(scores.pit(loc, scale, y), "uniform").pvalue > 1e-4


@pytest.mark.parametrize("level", [0.5, 0.9, 0.999])
def test_interval_of_a_single_draw_is_the_normal_one(level):
    loc, scale, _ = normals(draws=1)
    lower, upper = scores.interval(loc, scale, level)
    np.testing.assert_allclose(lower, stats.norm.ppf((1 - level) / 2, loc[0], scale[0]))
    np.testing.assert_allclose(upper, stats.norm.ppf((1 + level) / 2, loc[0], scale[0]))
    assert scores.interval_width(loc, scale, level) == pytest.approx((np.mean(upper - lower), stats.sem(upper - lower)))


@pytest.mark.parametrize("spread", [0.0, 1.0, 1000.0])
def test_interval_ends_are_quantiles_of_the_mixture(spread):
    loc, scale, _ = normals()
    lower, upper = scores.interval(spread * loc, scale, 0.8)
    np.testing.assert_allclose(scores.pit(spread * loc, scale, lower), 0.1, rtol=1e-8)
    np.testing.assert_allclose(scores.pit(spread * loc, scale, upper), 0.9, rtol=1e-8)


def test_coverage_and_interval_agree():
    loc, scale, y = normals()
    lower, upper = scores.interval(loc, scale, 0.7)
    inside = np.mean((lower <= y) & (y <= upper))
    assert scores.coverage(loc, scale, y, level=0.7).value == inside


def test_normal_entropy():
    loc, scale, _ = normals(draws=1)
    total, aleatoric, epistemic = scores.normal_entropy(loc, scale)
    np.testing.assert_allclose(total, stats.norm.entropy(loc[0], scale[0]))
    np.testing.assert_allclose(aleatoric, total)
    np.testing.assert_allclose(epistemic, 0.0, atol=1e-12)
    # Two draws a distance 2 d apart with the same scale s: epistemic = log(1 + d^2 / s^2) / 2.
    total, aleatoric, epistemic = scores.normal_entropy(np.array([[-3.0], [3.0]]), np.full((2, 1), 2.0))
    np.testing.assert_allclose(epistemic, 0.5 * np.log(1 + 9 / 4))
    np.testing.assert_allclose(aleatoric, stats.norm.entropy(0, 2.0))
    np.testing.assert_allclose(aleatoric + epistemic, total)
    # Draws that differ only in scale, 1 and 3: the mixture's variance is (1 + 9) / 2.
    total, aleatoric, _ = scores.normal_entropy(np.zeros((2, 1)), np.array([[1.0], [3.0]]))
    np.testing.assert_allclose(total, stats.norm.entropy(0, np.sqrt(5)))
    np.testing.assert_allclose(aleatoric, stats.norm.entropy(0, np.sqrt(3)))


def test_epistemic_normal_entropy_of_equal_draws_is_zero_not_a_rounding_below_it():
    loc, scale, _ = normals(draws=1)
    epistemic = scores.normal_entropy(np.repeat(loc, 3, axis=0), np.repeat(scale, 3, axis=0))[2]
    assert epistemic.min() >= 0.0
    np.testing.assert_allclose(epistemic, 0.0, atol=1e-12)


# --- the posterior's Monte Carlo error


def test_jackknife_of_a_mean_is_its_standard_error():
    batches = np.random.default_rng(0).normal(size=8)
    assert scores.jackknife(lambda weights: weights @ batches, 8) == pytest.approx(stats.sem(batches))


def test_jackknife_leaves_one_batch_out_and_renormalises():
    seen = []
    scores.jackknife(lambda weights: seen.append(weights) or 0.0, 3)
    np.testing.assert_allclose(seen, [[0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])


def test_jackknife_of_a_curved_score_follows_the_delta_method():
    # log of the mean: se = se(mean) / mean to first order; 2 % covers the second order at so small an error.
    batches = np.random.default_rng(0).normal(5.0, 0.5, size=20)
    expected = stats.sem(batches) / batches.mean()
    assert scores.jackknife(lambda weights: np.log(weights @ batches), 20) == pytest.approx(expected, rel=0.02)


def test_jackknife_of_one_batch_is_nan():
    assert np.isnan(scores.jackknife(lambda weights: pytest.fail("nothing to leave out"), 1))


def test_distances_of_different_rows_are_refused():
    probs = classification()[0]
    for distance_of in (scores.agreement, scores.total_variation, scores.jensen_shannon):
        with pytest.raises(ValueError, match="predict the same rows with both"):
            distance_of(probs, probs[:-1])
    loc, scale, _ = normals()
    with pytest.raises(ValueError, match="loc_b"):
        scores.wasserstein2(loc, scale, loc[:, :-1], scale[:, :-1])


def test_wasserstein_of_two_normals_is_its_closed_form():
    # W2 of Normal(0, 1) and Normal(3, 2) is sqrt(3**2 + (2 - 1)**2); a mean alone hides what is wrong with the scales.
    one, two = np.zeros((1, 4)), np.full((1, 4), 3.0)
    assert scores.wasserstein2(one, one + 1, two, one + 2).value == pytest.approx(np.sqrt(10), rel=0.002)
    for draws in (1, 3, 100):
        none = np.zeros((draws, 4))
        assert scores.wasserstein2(none, none + 1, none, none + 2).value == pytest.approx(1, rel=0.01)


def test_total_variation_and_agreement_by_hand():
    a, b = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1]]), np.array([[0.2, 0.7, 0.1], [0.1, 0.6, 0.3]])
    assert scores.agreement(a, b).value == 0.5
    assert scores.total_variation(a, b).value == pytest.approx((0.5 + 0.2) / 2)


def test_jensen_shannon_agrees_with_scipy():
    a, b = classification()[0], classification(1)[0]
    wanted = [jensenshannon(p, q) ** 2 for p, q in zip(a, b, strict=True)]  # SciPy gives the distance, its root
    assert scores.jensen_shannon(a, b).value == pytest.approx(np.mean(wanted))
    assert scores.jensen_shannon(a, a).value == 0


def test_signed_error_tells_over_from_underconfidence():
    probs = two_class(np.full(100, 0.9))
    right = np.repeat([probs[0].argmax(), 1 - probs[0].argmax()], [70, 30])
    over = scores.signed_calibration_error(probs, right)
    assert over.value == pytest.approx(0.2)
    assert over.standard_error == pytest.approx(np.sqrt(0.7 * 0.3 / 99))
    assert scores.signed_calibration_error(probs, np.full(100, probs[0].argmax())).value == pytest.approx(-0.1)
    # with one bin the ECE is its size
    assert scores.ece(probs, right, num_bins=1).value == pytest.approx(abs(over.value))


def test_the_maximum_is_that_of_the_worst_bin():
    probs, y = classification()
    for bins in ("width", "mass"):
        curve = scores.reliability_curve(probs, y, 10, bins)
        worst = np.nanmax(np.abs(curve.accuracy - curve.confidence))
        found = scores.maximum_calibration_error(probs, y, num_bins=10, bins=bins).value
        assert found == pytest.approx(worst)
        assert found >= scores.ece(probs, y, num_bins=10, bins=bins).value


def test_class_wise_error_is_the_mean_of_each_class_against_the_rest():
    probs, y = classification()
    each = []
    for label in range(probs.shape[1]):
        bin_of_row = np.clip(np.ceil(probs[:, label] * 10) - 1, 0, 9).astype(int)
        gaps = [abs(((y == label) - probs[:, label])[bin_of_row == b].sum()) for b in range(10)]
        each.append(sum(gaps) / len(y))
    assert scores.class_wise_ece(probs, y, num_bins=10).value == pytest.approx(np.mean(each))


def test_crps_of_a_normal_is_its_closed_form():
    loc, scale, y = np.array([[1.0, -2.0]]), np.array([[2.0, 0.5]]), np.array([0.3, -4.0])
    z = (y - loc[0]) / scale[0]
    wanted = scale[0] * (z * (2 * stats.norm.cdf(z) - 1) + 2 * stats.norm.pdf(z) - 1 / np.sqrt(np.pi))
    np.testing.assert_allclose(scores.row_crps(loc, scale, y), wanted, atol=1e-3 * scale[0].max())
    # as many equal draws are the same predictive
    many = scores.row_crps(np.repeat(loc, 3, 0), np.repeat(scale, 3, 0), y)
    np.testing.assert_allclose(many, wanted, atol=1e-3 * scale[0].max())


def test_crps_of_a_mixture_is_the_integral_of_its_distribution_function():
    loc, scale, y = np.array([[0.0], [3.0], [3.5]]), np.array([[1.0], [0.2], [2.0]]), np.array([1.0])
    z = np.linspace(-15, 20, 200_001)
    distribution = stats.norm.cdf((z[:, None] - loc[:, 0]) / scale[:, 0]).mean(1)
    wanted = np.trapezoid((distribution - (z >= y[0])) ** 2, z)
    assert scores.row_crps(loc, scale, y)[0] == pytest.approx(wanted, abs=2e-3)
