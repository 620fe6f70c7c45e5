"""NLL in parts, PIT distance, widths without a batch: closed forms, identities, and their errors over fresh rows."""

import numpy as np
import pytest
from scipy import stats
from scipy.special import softmax

from hmcvi.inference import scores


def overconfident(seed, temperature=2.0, rows=2000):
    """Probabilities sharpened by a known temperature, and labels of the true ones."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(rows, 5)) * 2
    y = np.minimum((rng.random((rows, 1)) > softmax(logits, axis=1).cumsum(axis=1)).sum(axis=1), 4)
    return softmax(logits * temperature, axis=1), y


# --- averaging


def test_the_mixture_scores_what_single_draws_do_less_the_gain():
    draws = np.stack([softmax(np.random.default_rng(seed).normal(size=(200, 4)), axis=1) for seed in range(6)])
    y = np.random.default_rng(9).integers(4, size=200)
    single = np.mean([scores.row_negative_log_likelihood(draw, y) for draw in draws], axis=0)
    mixture = scores.row_negative_log_likelihood(draws.mean(axis=0), y)
    gain = scores.averaging_gain(-mixture, -single)
    assert mixture.mean() == pytest.approx(single.mean() - gain.value)
    assert gain == pytest.approx((np.mean(single - mixture), stats.sem(single - mixture)))
    assert (single - mixture >= 0).all()  # Jensen, row by row
    assert scores.averaging_gain(-mixture, -mixture) == (0.0, 0.0)
    with pytest.raises(ValueError, match="log_likelihood has 200 rows but mean_log_likelihood has 199"):
        scores.averaging_gain(-mixture, -single[1:])


# --- temperature


def test_two_confidences_have_their_temperature_in_closed_form():
    # Sure to 0.9, right 3 times in 4: log(0.9 / 0.1) / T = log(3), and what is left is the entropy of 3 in 4.
    parts = scores.temperature_scaling(np.tile([0.9, 0.1], (400, 1)), np.repeat([0, 1], [300, 100]))
    assert parts.temperature.value == pytest.approx(2.0, rel=1e-4)
    assert parts.refinement.value == pytest.approx(stats.entropy([0.75, 0.25]))
    nll = -0.75 * np.log(0.9) - 0.25 * np.log(0.1)
    assert parts.calibration.value == pytest.approx(nll - stats.entropy([0.75, 0.25]))


def test_parts_add_up_and_their_errors_are_the_spread_over_fresh_rows():
    found = [scores.temperature_scaling(*overconfident(seed)) for seed in range(120)]
    for seed in range(3):
        nll = scores.negative_log_likelihood(*overconfident(seed)).value
        assert found[seed].refinement.value + found[seed].calibration.value == pytest.approx(nll)
    for name, truth in {"temperature": 2.0, "refinement": None, "calibration": None}.items():
        values, errors = np.array([getattr(parts, name) for parts in found]).T
        # 120 sets know an sd to 6.5 %: 30 % is over four of those, 6e-5 false alarms each.
        assert np.mean(errors) == pytest.approx(np.std(values, ddof=1), rel=0.3), name
        if truth is not None:
            assert values.mean() == pytest.approx(truth, abs=4 * values.std() / np.sqrt(len(values)) + 0.01)


def test_calibration_is_never_negative_and_small_where_calibrated():
    for seed in range(20):
        parts = scores.temperature_scaling(*overconfident(seed, temperature=1.0, rows=300))
        # 2 n times it is chi-squared with one degree of freedom: above 20 once in 100,000.
        assert 0 <= parts.calibration.value < 20 / 600
    sure = scores.temperature_scaling(np.eye(3)[[0, 1]], np.array([0, 1]))
    assert sure.calibration.value == 0
    assert (sure.temperature.value, sure.refinement.value) == (0, 0)
    # Where every row is right, however hesitantly, no temperature is the best: the NLL falls to 0 with it.
    right = scores.temperature_scaling(np.array([[0.6, 0.4], [0.3, 0.7]]), np.array([0, 1]))
    assert (right.temperature.value, right.refinement.value) == (0, 0)
    assert right.calibration.value == pytest.approx(-np.log([0.6, 0.7]).mean())
    uniform = scores.temperature_scaling(np.full((4, 2), 0.5), np.array([0, 1, 1, 0]))
    assert (uniform.temperature.value, uniform.refinement.value) == (1.0, pytest.approx(np.log(2)))
    wrong = scores.temperature_scaling(np.eye(2)[[0, 0]], np.array([0, 1]))  # what was ruled out happened
    assert wrong.temperature.value == pytest.approx(100, rel=0.01)
    assert np.isfinite(wrong.refinement.value)


# --- PIT


def at(transform):
    """A standard Normal's targets whose PIT is this."""
    transform = np.asarray(transform, dtype=float)
    return np.zeros((1, len(transform))), np.ones((1, len(transform))), stats.norm.ppf(transform)


def test_pit_distance_is_the_area_between_its_steps_and_the_diagonal():
    # Midpoints: n triangles of base and height 1 / (2 n) on either side.
    assert scores.pit_distance(*at((np.arange(10) + 0.5) / 10)).value == pytest.approx(1 / 40)
    # All at 1/2: two triangles of area 1/8. Half at 1/4, half at 3/4: four of 1/32.
    assert scores.pit_distance(*at([0.5] * 7)).value == pytest.approx(1 / 4)
    assert scores.pit_distance(*at([0.25, 0.75])).value == pytest.approx(1 / 8)
    transform = np.random.default_rng(0).beta(2, 3, size=57)
    grid = (np.arange(200_000) + 0.5) / 200_000
    steps = np.searchsorted(np.sort(transform), grid, side="right") / len(transform)
    area = np.mean(np.abs(steps - grid))
    assert scores.pit_distance(*at(transform)).value == pytest.approx(area, abs=1e-4)
    # It is the Wasserstein-1 distance from uniform, which SciPy has of samples.
    transport = stats.wasserstein_distance(transform, grid)
    assert scores.pit_distance(*at(transform)).value == pytest.approx(transport, abs=1e-4)


def test_a_calibrated_predictive_scores_its_null_and_a_narrow_one_does_not():
    y = np.random.default_rng(1).normal(size=500)
    null = scores.pit_distance_null(500)
    assert null.value == pytest.approx(np.sqrt(2 / np.pi) * np.pi / 8 / np.sqrt(500), rel=0.05)
    zero, one = np.zeros((1, 500)), np.ones((1, 500))
    # The null's tail falls faster than that of a Normal beyond 5 of its sds.
    assert abs(scores.pit_distance(zero, one, y).value - null.value) < 5 * null.standard_error
    assert scores.pit_distance(zero, one / 2, y).value > null.value + 10 * null.standard_error
    assert scores.pit_distance_null(1).value == pytest.approx(1 / 3, abs=0.02)  # E (u² + (1 − u)²) / 2
    with pytest.raises(ValueError, match="num_rows is 0 but should be at least 1"):
        scores.pit_distance_null(0)


# --- widths


@pytest.mark.parametrize("level", [0.5, 0.95])
def test_widths_under_half_of_the_draws_are_those_of_that_half(level):
    rng = np.random.default_rng(2)
    batch = np.repeat(np.arange(10), 40)
    loc = rng.normal(size=(400, 30)) + 0.2 * rng.normal(size=(10, 30))[batch]
    scale = rng.uniform(0.5, 2, size=(400, 30))
    kept = scores.batch_replicates(10).weights[:, batch]
    found = scores.row_interval_width_under(loc, scale, kept, *scores.interval(loc, scale, level))
    wanted = np.array([np.subtract(*scores.interval(loc[w > 0], scale[w > 0], level)[::-1]) for w in kept])
    # One Newton step is exact to second order in the difference that half of 400 draws make.
    np.testing.assert_allclose(found, wanted, rtol=0.05)
    spread = [widths.mean(axis=1).std() for widths in (found, wanted)]
    assert spread[0] == pytest.approx(spread[1], rel=0.1)


# --- the posterior's Monte Carlo error


@pytest.mark.parametrize("batches", [2, 5, 8, 14, 20, 21, 64])
def test_the_error_of_a_mean_over_draws_is_that_of_batch_means(batches):
    values = np.random.default_rng(batches).normal(size=batches)
    replicates = scores.batch_replicates(batches)
    error = replicates.error(values.mean(), [np.average(values, weights=weights) for weights in replicates.weights])
    # The jackknife of few is exact. Of halves one direction in (batches - 1) is lost to their mean.
    assert error == pytest.approx(values.std(ddof=1) / np.sqrt(batches), rel=1e-9 if batches < 8 else 0.2)
    assert (replicates.weights.sum(axis=1) >= 1).all()


@pytest.mark.parametrize("batches", [8, 14, 20, 32])
def test_the_error_of_a_mean_over_draws_is_right_on_average(batches):
    random = np.random.default_rng(batches)
    replicates = scores.batch_replicates(batches)
    kept = replicates.weights / replicates.weights.sum(axis=1, keepdims=True)
    values = random.normal(size=(4000, batches))
    squares = [replicates.error(one.mean(), kept @ one) ** 2 for one in values]
    # 4,000 squares of 6 degrees of freedom know their mean to 1 %; of 14, halves of 4 to 10 add a tenth.
    assert np.mean(squares) == pytest.approx(1 / batches, rel=0.15 if batches == 14 else 0.05)


@pytest.mark.parametrize("num_chains", [3, 4, 5, 10])
def test_chains_that_disagree_count_for_what_they_are(num_chains):
    """Batches of a chain are all but one number: 20 of them know no more than the chains do."""
    random = np.random.default_rng(0)
    errors, values = [], []
    num_batches = 20 // num_chains * num_chains
    for _ in range(400):
        batches = np.repeat(random.normal(size=num_chains), num_batches // num_chains)
        batches += 0.01 * random.normal(size=num_batches)
        replicates = scores.batch_replicates(num_batches, num_chains)
        values.append(batches.mean())
        errors.append(replicates.error(batches.mean(), [np.average(batches, weights=w) for w in replicates.weights]))
        alone = scores.batch_replicates(num_batches)
        assert alone.error(batches.mean(), [np.average(batches, weights=w) for w in alone.weights]) < errors[-1] * 1.001
    # 400 fits know both to 4 %.
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(np.std(values), rel=0.2)


def test_what_is_not_finite_under_some_weights_has_no_error():
    replicates = scores.batch_replicates(20, 4)
    under = np.random.default_rng(0).normal(size=len(replicates.weights))
    assert np.isfinite(replicates.error(0.0, under))
    for place in (0, -1):  # a half of the batches, a half of the chains
        broken = under.copy()
        broken[place] = np.nan
        assert np.isnan(replicates.error(0.0, broken))


def test_one_batch_has_no_monte_carlo_error():
    replicates = scores.batch_replicates(1)
    assert len(replicates.weights) == 0
    assert np.isnan(replicates.error(1.0, []))
    with pytest.raises(ValueError, match="num_batches is 0 but should be at least 1"):
        scores.batch_replicates(0)


def test_the_error_of_a_score_that_jumps_is_its_spread_where_the_jackknife_is_twice_that():
    """An accuracy of 2,000 rows near the boundary, whose logits 20 batches know to an sd of 0.1."""
    boundary = np.random.default_rng(0).normal(0, 0.3, size=2000)
    values, half, left_out = [], [], []
    for seed in range(60):
        logits = boundary + np.sqrt(20) * 0.1 * np.random.default_rng(seed + 1).normal(size=(20, 2000))
        accuracy = lambda weights, logits=logits: float(np.mean(np.average(logits, axis=0, weights=weights) > 0))  # noqa: E731
        replicates = scores.batch_replicates(20)
        values.append(accuracy(np.ones(20)))
        half.append(replicates.error(values[-1], [accuracy(weights) for weights in replicates.weights]))
        left_out.append(scores.jackknife(accuracy, 20))
    # 60 seeds know an sd to 9 %: 35 % is nearly four of those.
    assert np.sqrt(np.mean(np.square(half))) == pytest.approx(np.std(values, ddof=1), rel=0.35)
    assert np.sqrt(np.mean(np.square(left_out))) > 1.6 * np.std(values, ddof=1)
