"""The figures of scores show the numbers they are given: reliability, coverage, entropies, losses, bands."""

import numpy as np
import pytest
from matplotlib import colors
from matplotlib import pyplot as plt
from matplotlib.collections import LineCollection
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from scipy.stats import binom

import hmcvi.plots as plots
from hmcvi.inference import scores
from hmcvi.plots import regression, training

from .plot_data import METHODS, SETS, bands, class_probs, draw_bands, entropies, losses, pit, train_points


@pytest.fixture(autouse=True)
def _no_figures_left():
    yield
    plt.close("all")


# --- reliability


def points_of(ax):
    """The points of each errorbar container, and the hollow ones, which have no bars, as (num_points, 2)."""
    with_bars = [c.lines[0].get_xydata() for c in ax.containers if isinstance(c, ErrorbarContainer)]
    return with_bars + [line.get_xydata() for line in ax.lines if line.get_markerfacecolor() == "white"]


@pytest.mark.parametrize("bins", ["width", "mass"])
def test_reliability_points_are_those_of_the_score(bins):
    probs, y = class_probs()
    ax, ax_count = plots.reliability(probs, y, num_bins=10, bins=bins)
    shown = np.concatenate(points_of(ax))
    wanted = []
    for place, (label, array) in enumerate(probs.items()):
        curve = scores.reliability_curve(array, y, num_bins=10, bins=bins)
        filled = curve.count > 0
        wanted.append(np.stack([curve.confidence, curve.accuracy], axis=1)[filled])
        ece, null = (
            scores.ece(array, y, num_bins=10, bins=bins),
            scores.ece_null(array, num_bins=10, bins=bins),
        )
        text = ax.get_legend().get_texts()[place].get_text()
        assert text.startswith(label)
        for number in (*ece, null.value):
            assert f"{number:.3f}" in text
        counts, edges, _ = ax_count.patches[place].get_data()
        np.testing.assert_allclose(edges, np.linspace(0, 1, 11))
        np.testing.assert_array_equal(counts, np.histogram(array.max(axis=1), 10, (0, 1))[0])
    wanted = np.concatenate(wanted)
    np.testing.assert_allclose(shown[np.lexsort(shown.T)], wanted[np.lexsort(wanted.T)])


def test_reliability_null_band_is_binomial_around_the_diagonal():
    probs, y = class_probs()
    ax, _ = plots.reliability({"nuts": probs["nuts"]}, y, num_bins=10)
    curve = scores.reliability_curve(probs["nuts"], y, num_bins=10)
    joined = curve.count >= 5
    c, n = curve.confidence[joined], curve.count[joined]
    band = ax.collections[0].get_paths()[0].vertices
    for probability in (0.025, 0.975):
        edge = np.stack([c, binom.ppf(probability, n, c) / n], axis=1)
        assert all(np.isclose(band, point).all(axis=1).any() for point in edge)


def test_reliability_bars_are_wilson_intervals():
    # 10 rows of confidence 0.9, of which 8 are right: Wilson's interval is (0.4902, 0.9433).
    probs = np.tile([0.9, 0.1], (10, 1))
    ax, _ = plots.reliability({"nuts": probs}, np.repeat([0, 1], [8, 2]))
    (bar,) = [c for c in ax.collections if isinstance(c, LineCollection)]
    np.testing.assert_allclose(bar.get_segments()[0], [[0.9, 0.4902], [0.9, 0.9433]], atol=1e-4)


def test_reliability_draws_thin_bins_hollow_and_off_the_line():
    probs = np.concatenate([np.tile([0.9, 0.1], (20, 1)), np.tile([0.6, 0.4], (2, 1))])
    ax, _ = plots.reliability({"nuts": probs}, np.zeros(22, int))
    ((line, *_),) = ax.containers  # bars for the bin of 20 rows alone
    hollow = ax.lines[-1]
    np.testing.assert_allclose(line.get_xydata(), [[0.9, 1.0]])
    np.testing.assert_allclose(hollow.get_xydata(), [[0.6, 1.0]])
    assert hollow.get_linestyle() == "None"
    assert hollow.get_markerfacecolor() == "white"


def test_reliability_draws_into_axes_given_and_keeps_to_their_place():
    _, given = plt.subplots(1, 2)
    place = given[1].get_subplotspec().get_position(given[1].get_figure())
    ax, ax_count = plots.reliability(*class_probs(100), ax=given[1])
    assert ax is given[1]
    assert not given[0].containers
    for part in (ax, ax_count):
        box = part.get_position()
        assert place.x0 - 1e-6 <= box.x0 < box.x1 <= place.x1 + 1e-6
        assert place.y0 - 1e-6 <= box.y0 < box.y1 <= place.y1 + 1e-6
    assert ax_count.get_position().y1 < ax.get_position().y0
    free = Figure().add_axes((0.2, 0.2, 0.5, 0.5))
    ax, ax_count = plots.reliability(*class_probs(100), ax=free)
    assert ax_count.get_position().y0 == pytest.approx(0.2)
    assert ax.get_position().y1 == pytest.approx(0.7)


# --- coverage


def test_interval_coverage_counts_rows_inside():
    values = {"nuts": np.array([0.5, 0.4, 0.05, 0.99])}  # inside from the levels 0, 0.2, 0.9, 0.98 on
    ax = plots.interval_coverage(values)
    (line,) = [line for line in ax.lines if line.get_label().startswith("nuts")]
    shown = dict(zip(line.get_xdata().round(3).tolist(), line.get_ydata(), strict=True))
    assert [shown[level] for level in (0.0, 0.1, 0.3, 0.89, 0.95, 0.99, 1.0)] == [
        0.25,
        0.25,
        0.5,
        0.5,
        0.75,
        1.0,
        1.0,
    ]
    assert "95 % covers 75.0 ± 21.7 %" in line.get_label()
    band = ax.collections[0].get_paths()[0].vertices
    assert np.isclose(band, [0.5, binom.ppf(0.975, 4, 0.5) / 4]).all(axis=1).any()


def test_interval_coverage_draws_into_the_axes_given():
    _, ax = plt.subplots()
    assert plots.interval_coverage(pit(), ax=ax) is ax


# --- entropies


def test_entropy_panels_hold_the_shares_and_the_auroc():
    given = entropies(2)
    axes = plots.entropy_histograms(given, max_entropy=np.log(10))
    assert axes.shape == (3, 2)
    assert [ax.get_title() for ax in axes[0]] == list(SETS[:2])
    assert [ax.get_ylabel() for ax in axes[:, 0]] == list(METHODS)
    for method, row in zip(METHODS, axes, strict=True):
        for name, ax in zip(SETS, row, strict=False):
            auroc, error = scores.auroc(given[method]["test"], given[method][name])
            assert [text.get_text() for text in ax.texts] == [f"AUROC {auroc:.3f} ± {error:.3f}"]
            inside, outside, _ = (patch.get_data() for patch in ax.patches)
            for shown, values in ((inside, given[method]["test"]), (outside, given[method][name])):
                np.testing.assert_allclose(shown.edges[[0, -1]], [0, np.log(10)])
                np.testing.assert_allclose(shown.values, np.histogram(values, shown.edges)[0] / len(values))
                assert shown.values.sum() == pytest.approx(1)
            red, green, blue, _ = ax.patches[0].get_facecolor()
            assert red == green == blue
            assert colors.to_hex(ax.patches[1].get_facecolor()) == plots.looks(METHODS)[method].color.lower()
            assert ax.get_xlim() == axes[0, 0].get_xlim()
            assert ax.get_ylim() == axes[0, 0].get_ylim()
            # The text stands above every bar of every panel.
            tallest = max(patch.get_data().values.max() for ax in axes.flat for patch in ax.patches)
            assert tallest < ax.get_ylim()[1] * 0.65


def test_entropy_histograms_draw_into_the_axes_given():
    _, given = plt.subplots(3, 3)
    axes = plots.entropy_histograms(entropies(2), axes=given[:, 1:])
    assert (axes == given[:, 1:]).all()
    assert axes[2, 0].get_xlabel() == "predictive entropy (nats)"
    assert axes[0, 0].get_ylabel() == "nuts\nshare of rows (square-root scale)"
    assert axes[0, 0].get_legend() is not None


def test_entropy_of_constant_scores_is_drawn():
    axes = plots.entropy_histograms({"nuts": {"test": np.zeros(5), "noise": np.zeros(5)}})
    assert axes[0, 0].patches[0].get_data().values[0] == 1


# --- training


def test_running_median_equals_the_median_of_the_window_and_has_no_end_effect():
    rng = np.random.default_rng(6)
    values = rng.normal(size=101)
    smoothed = training.running_median(values, 5)
    np.testing.assert_allclose(smoothed[2:-2], np.median(np.lib.stride_tricks.sliding_window_view(values, 5), 1))
    # One outlier at the very end, the value an optimiser happens to stop at, does not become the final value.
    values[-1] = 1e6
    assert training.running_median(values, 5)[-1] < 10


def test_loss_curves_label_the_final_running_median():
    given = losses()
    ax = plots.loss_curves(given, smooth=101)
    shown = {line.get_label(): line for line in ax.lines if line.get_label() in given}
    assert set(shown) == set(given)
    low, high = ax.get_ylim()
    for (label, loss), text in zip(
        sorted(given.items(), key=lambda kv: shown[kv[0]].get_ydata()[-1]), ax.texts, strict=True
    ):
        median = shown[label].get_ydata()
        np.testing.assert_allclose(median, training.running_median(loss, 101))
        name, value = text.get_text().rsplit(" ", 1)
        assert name == label
        assert float(value) == pytest.approx(median[-1], rel=1e-3)
        # The last half is inside the axis, and the fall from 1e5 does not flatten it.
        late = median[1500:]
        assert low < late.min()
        assert late.max() < high < 1200


def test_loss_labels_keep_apart_and_in_order():
    ax = plots.loss_curves({f"svi seed {seed}": np.full(50, 10.0 + 1e-3 * seed) for seed in range(5)})
    heights = [text.xy[1] for text in ax.texts]
    assert (np.diff(heights) > 0.05).all()
    assert [text.get_text().split()[2] for text in ax.texts] == list("01234")
    spread = training.spread(np.array([0.0, 0.0, 0.9, 1.0, 1.0]), 0.15)
    assert spread[-1] <= 1
    assert spread[0] >= 0
    assert (np.diff(spread) >= 0.15 - 1e-12).all()


def test_a_diverged_run_is_named_and_does_not_hide_the_others():
    loss = losses()["svi"]
    ax = plots.loss_curves({"svi": loss, "bbb": np.where(np.arange(len(loss)) > 900, np.nan, loss)})
    assert [text.get_text().split()[-1] for text in ax.texts if "bbb" in text.get_text()] == ["diverged"]
    assert ax.get_ylim()[1] < 1500
    assert "diverged" in plots.loss_curves({"svi": [np.inf, np.nan]}).texts[0].get_text()


def test_loss_curves_draw_into_the_axes_given():
    _, ax = plt.subplots()
    assert plots.loss_curves({"svi": [2.0, 1.0]}, ax=ax) is ax


# --- regression


def test_bands_are_the_mean_with_196_standard_deviations():
    axes = draw_bands(shade_gaps=False)
    for (label, band), ax in zip(bands().items(), axes, strict=True):
        assert ax.get_title() == label
        total, epistemic = ax.collections
        assert total.get_alpha() < epistemic.get_alpha()
        for shown, sd in ((total, band.total_sd), (epistemic, band.epistemic_sd)):
            vertices = shown.get_paths()[0].vertices
            for edge in (band.mean - 1.96 * sd, band.mean + 1.96 * sd):
                wanted = np.stack([band.x, edge], axis=1)
                distance = np.abs(vertices[:, None] - wanted[None]).max(axis=2).min(axis=0)
                np.testing.assert_allclose(distance, 0, atol=1e-12)
        mean, points = ax.lines
        np.testing.assert_array_equal(mean.get_ydata(), band.mean)
        np.testing.assert_array_equal(points.get_xydata(), np.stack(train_points(), axis=1))
        assert ax.get_ylim() == axes[0].get_ylim()


def test_gaps_are_where_no_training_point_is():
    x = np.array([0.0, 0.1, 0.15, 0.6, 0.65, 1.0])
    assert regression.gaps(x, -0.5, 1.0) == [(-0.5, 0.0), (0.15, 0.6), (0.65, 1.0)]
    assert regression.gaps(np.linspace(0, 1, 50), 0.0, 1.0) == []
    axes = draw_bands()
    assert len(axes[0].patches) == 3  # before, between and after the two clusters of points


def test_wild_extrapolation_does_not_flatten_the_data():
    x, y = train_points()
    wild = plots.Band(x=[-2, 2], mean=[0, 1e4], epistemic_sd=[1, 1e4], total_sd=[1, 1e4])
    low, high = plots.predictive_bands({"nuts": wild}, x, y)[0].get_ylim()
    assert high - low < 5 * np.ptp(y)


def test_predictive_bands_draw_into_the_axes_given():
    _, given = plt.subplots(1, 3)
    assert (draw_bands(axes=given) == given).all()
    _, ax = plt.subplots()
    assert plots.predictive_bands({"nuts": bands()["nuts"]}, *train_points(), axes=ax)[0] is ax
