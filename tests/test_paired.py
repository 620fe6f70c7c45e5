"""Paired bootstrap: against the Normal theory of a mean, over seeds, and what a comparison writes of all pairs."""

import numpy as np
import pytest
from scipy import stats

from hmcvi.benchmarks.differences import COLUMNS, all_differences
from hmcvi.inference import scores


def test_one_seed_is_the_bootstrap_of_a_mean():
    differences = np.random.default_rng(0).normal(0.05, 1, size=(900, 1))
    found = scores.paired_bootstrap([differences], num_bootstrap=5000)
    mean, error = scores.mean(differences[:, 0])
    assert found.value[0] == pytest.approx(mean)
    assert (found.low[0], found.high[0]) == pytest.approx((mean - 1.96 * error, mean + 1.96 * error), abs=0.15 * error)
    # Five standard errors of a share of 5,000: 6e-7 false alarms, and 0.01 for "nearly Normal".
    assert found.above[0] == pytest.approx(stats.norm.cdf(mean / error), abs=0.035 + 0.01)


def test_a_clear_difference_is_no_tie_and_noise_is():
    rng = np.random.default_rng(1)
    noise = rng.normal(size=400)
    noise -= noise.mean()
    found = scores.paired_bootstrap([np.stack([noise + 1, noise, noise - 1, np.zeros(400)], axis=1)])
    np.testing.assert_array_equal(found.tied, [False, True, False, True])
    assert found.above[0] == 1
    assert found.above[1] == pytest.approx(0.5, abs=0.06)
    assert found.above[2] == 0
    assert found.above[3] == 0.5  # equal in every resample: neither is better


def test_the_probabilities_of_a_pair_and_of_its_mirror_add_to_one():
    differences = np.random.default_rng(2).normal(0.1, 1, size=(50, 1))
    found = scores.paired_bootstrap([np.hstack([differences, -differences])])
    assert found.above.sum() == pytest.approx(1)
    assert found.low[0] == pytest.approx(-found.high[1])


def test_several_seeds_widen_the_interval_by_what_lies_between_them():
    rng = np.random.default_rng(3)
    seeds = 12
    between = rng.normal(0, 1, size=seeds)
    by_seed = [rng.normal(mean, 0.01, size=(30 + i, 1)) for i, mean in enumerate(between)]
    found = scores.paired_bootstrap(by_seed, num_bootstrap=4000)
    means = np.array([d.mean() for d in by_seed])
    assert found.value[0] == pytest.approx(means.mean())
    # Student's interval over the seeds' means: resampling them alone would take the plug-in sd and the Normal.
    half = stats.t.ppf(0.975, seeds - 1) * means.std(ddof=1) / np.sqrt(seeds)
    assert (found.high[0] - found.low[0]) / 2 == pytest.approx(half, rel=0.1)
    alone = scores.paired_bootstrap([np.vstack(by_seed)])
    assert np.ptp([alone.low[0], alone.high[0]]) < 0.7 * np.ptp([found.low[0], found.high[0]])
    # Where seeds are all alike, rows alone are left: the error of a mean over all of them.
    alike = [rng.normal(0, 1, size=(100, 1)) for _ in range(9)]
    alike = [d - d.mean() for d in alike]
    found = scores.paired_bootstrap(alike, num_bootstrap=4000)
    assert (found.high[0] - found.low[0]) / 2 == pytest.approx(1.96 / 30, rel=0.1)


def test_seeds_that_share_their_rows_share_the_rows_error():
    rng = np.random.default_rng(0)
    rows = rng.normal(0, 1, size=(100, 200))  # no difference in truth, and the same rows thrice
    differences = [rows + rng.normal(0, 0.1, size=rows.shape) for _ in range(3)]
    # 5 % of 200 independent pairs are 10, sd 3.1.
    assert (~scores.paired_bootstrap(differences, same_rows=True, num_bootstrap=400).tied).sum() <= 26
    assert (~scores.paired_bootstrap(differences, num_bootstrap=400).tied).sum() > 26


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_few_seeds_without_a_difference_are_seldom_told_apart(seeds):
    rng = np.random.default_rng(0)
    rows, pairs = 200, 400
    differences = [rng.normal(0, 1, size=pairs) + rng.normal(0, 1, size=(rows, pairs)) for _ in range(seeds)]
    found = scores.paired_bootstrap(differences, num_bootstrap=400)
    # 5 % of 400 independent pairs are 20, with a standard deviation of 4.4: five of them are 1e-6 false alarms.
    assert (~found.tied).sum() <= 42
    # Student's probability is uniform without a difference: beyond 1 % on either side lie 8, sd 2.8.
    assert ((found.above < 0.01) | (found.above > 0.99)).sum() <= 22


def test_infinite_rows_leave_no_interval_and_one_row_neither():
    found = scores.paired_bootstrap([np.array([[np.inf, 1.0], [0.0, 2.0], [0.0, np.nan]])])
    assert np.isnan([found.low, found.high, found.above]).all()
    assert not found.tied.any()
    assert found.value[0] == np.inf
    assert np.isnan(scores.paired_bootstrap([np.array([[1.0]])]).low[0])


@pytest.mark.parametrize(
    ("differences", "message"),
    [
        ([], "differences is empty but should hold an array"),
        ([np.zeros(3)], r"differences have shapes \[\(3,\)\] but should be \(row, pair\)"),
        ([np.zeros((3, 2)), np.zeros((3, 1))], "as many pairs in all"),
        ([np.zeros((0, 1))], "with rows in each"),
    ],
)
def test_bad_differences_are_refused(differences, message):
    with pytest.raises(ValueError, match=message):
        scores.paired_bootstrap(differences)


def test_all_pairs_of_methods_each_once_in_the_direction_of_the_score():
    rng = np.random.default_rng(4)
    nll = rng.normal(size=200)
    right = (rng.random(200) < 0.7).astype(float)
    of = {
        "nuts": {"nll": nll, "accuracy": right},
        "svi": {"nll": nll + 0.1, "accuracy": right},
        "bbb": {"nll": nll + rng.normal(0, 1, 200), "accuracy": 1 - right},
    }
    table = all_differences([of])
    assert tuple(table.columns) == COLUMNS
    assert list(zip(table["method"], table["minus"], table["score"], strict=True)) == [
        (a, b, s) for a, b in (("svi", "nuts"), ("bbb", "nuts"), ("bbb", "svi")) for s in ("nll", "accuracy")
    ]
    table = table.set_index(["method", "minus", "score"])
    worse = table.loc[("svi", "nuts", "nll")]
    assert (worse["value"], worse["low"], worse["high"]) == pytest.approx((0.1, 0.1, 0.1))
    assert worse["probability_better"] == 0  # its nll is higher
    assert not worse["tied"]
    assert table.loc[("svi", "nuts", "accuracy"), "tied"]
    assert table.loc[("bbb", "nuts", "accuracy"), "probability_better"] == 0  # its accuracy is lower
    assert table.loc[("bbb", "svi", "accuracy"), "value"] == pytest.approx((1 - 2 * right).mean())
    assert all_differences([{"nuts": of["nuts"]}]).empty

    errors = {"nuts": {"nll": 0.03, "accuracy": 0.0}, "svi": {"nll": 0.04, "accuracy": 0.0}}
    noisy = all_differences([{name: of[name] for name in errors}], monte_carlo_errors=errors)
    noisy = noisy.set_index("score")
    # 0.1 for every row, known to √(0.03² + 0.04²); 2,000 replicates know an end to 0.003.
    assert noisy.loc["nll", "value"] == pytest.approx(0.1)
    assert list(noisy.loc["nll", ["low", "high"]]) == pytest.approx([0.1 - 0.098, 0.1 + 0.098], abs=0.012)
    assert 0 < noisy.loc["nll", "probability_better"] < 0.06  # Φ(−2) = 0.023
    assert (noisy.loc["accuracy", ["low", "high"]] == 0).all()
