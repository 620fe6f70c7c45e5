"""Figures of predictions, all methods side by side, show the scores' numbers, whole and legible."""

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib import colors
from matplotlib import pyplot as plt
from scipy.special import softmax

from hmcvi import plots
from hmcvi.inference import scores
from hmcvi.plots import detection
from hmcvi.plots.calibration import wilson_interval

from .drawn_text import check_apart, drawn_on_a_page, visible_texts

METHODS = ("nuts", "svi-lowrank", "bbb-local", "map")
SETS = ("permuted", "held-out classes", "fashion_mnist", "rotated 90°", "noise")


@pytest.fixture(autouse=True)
def _no_figures_left():
    yield
    plt.close("all")


# --- synthetic predictions


def uncertainties(num_methods=4, num_sets=5):
    """Entropies that tell some sets apart well, some badly and one not at all; rounded, so that there are ties."""
    random = np.random.default_rng(0)
    return {
        method: {
            "test": random.beta(0.5, 3 + place, 200).round(3),
            **{name: random.beta(0.5 + k, 3, 80).round(3) for k, name in enumerate(SETS[:num_sets])},
        }
        for place, method in enumerate(METHODS[:num_methods])
    }


def probs(num_methods=4, num_rows=400, num_classes=10):
    """Class probabilities that differ in sharpness, and labels drawn from the first."""
    random = np.random.default_rng(1)
    logits = 2.0 * random.normal(size=(num_rows, num_classes))
    y = np.array([random.choice(num_classes, p=p) for p in softmax(logits, axis=1)])
    return {m: softmax((1 + k) * logits, axis=1) for k, m in enumerate(METHODS[:num_methods])}, y


def selective(num_methods=4):
    """Uncertainties with ties, and errors that grow with them."""
    random = np.random.default_rng(2)
    uncertain = {m: random.uniform(size=150).round(2) for m in METHODS[:num_methods]}
    return uncertain, {m: (random.uniform(size=150) < u / 2).astype(float) for m, u in uncertain.items()}


FIGURES = {
    **{
        f"ROC, {m} methods, {n} sets": lambda m=m, n=n: plots.roc(uncertainties(m, n))
        for m, n in ((1, 1), (1, 5), (4, 1), (4, 2), (4, 4), (4, 5))
    },
    **{f"confidence, {m} methods": lambda m=m: plots.confidence_histograms(*probs(m)) for m in (1, 2, 3, 4)},
    "confidence, one class": lambda: plots.confidence_histograms({"nuts": np.ones((3, 1))}, [0, 0, 0]),
    "confidence, a row": lambda: plots.confidence_histograms({"nuts": [[0.4, 0.6]]}, [0]),
    **{f"rejection, {m} methods": lambda m=m: plots.rejection_curves(*selective(m)) for m in (1, 4)},
}


def figure_of(drawn):
    return np.ravel(drawn)[0].get_figure()


# --- laws of every figure


@pytest.mark.parametrize("name", FIGURES)
def test_figures_fit_a_page_with_their_texts_apart_and_leave_the_settings_alone(name):
    figure = drawn_on_a_page(lambda: figure_of(FIGURES[name]()))
    texts = visible_texts(figure)
    assert len(texts) > 5
    check_apart(figure, texts)
    assert {label.get_fontsize() for ax in figure.axes for label in ax.get_xticklabels()} == {6.5}


@pytest.mark.parametrize("name", ["ROC, 4 methods, 5 sets", "confidence, 4 methods", "rejection, 4 methods"])
def test_figures_are_saved_in_every_format(name, tmp_path):
    paths = plots.save(FIGURES[name](), tmp_path / "figure", ("png", "svg", "pdf"))
    starts = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}
    for path in paths:
        content = path.read_bytes()
        assert content.startswith(starts.pop(path.suffix))
        assert len(content) > 5000
    assert not starts


def check_looks(lines, methods):
    """Lines, in the order of the methods, in their colours and line styles; styles compare by what is drawn."""
    for look, line in zip(plots.looks(methods).values(), lines, strict=True):
        wanted = mpl.lines.Line2D([], [], linestyle=look.linestyle, linewidth=line.get_linewidth())
        assert line.get_color() == look.color
        assert line._dash_pattern == wanted._dash_pattern


# --- ROC curves


def curves_of(ax):
    """The line of every method; the first of all is chance."""
    return ax.lines[1:]


def test_roc_curves_are_those_of_the_ranks_and_enclose_the_auroc():
    given = uncertainties()
    axes = plots.roc(given)
    assert axes.shape == (2, 3)
    assert [ax.get_visible() for ax in axes.flat] == [True] * 5 + [False]
    assert [ax.get_title() for ax in axes.flat[:5]] == list(SETS)
    for name, ax in zip(SETS, axes.flat, strict=False):
        check_looks(curves_of(ax), METHODS)
        for method, line in zip(METHODS, curves_of(ax), strict=True):
            inside, outside = given[method]["test"], given[method][name]
            x, y = line.get_data()
            assert np.trapezoid(y, x) == pytest.approx(scores.auroc(inside, outside).value, abs=1e-12)
            for threshold in (0.05, 0.1, 0.4):
                point = [np.mean(inside >= threshold), np.mean(outside >= threshold)]
                assert np.abs(line.get_xydata() - point).max(axis=1).min() < 1e-12
            assert (x[0], y[-1], x[-1]) == (0, 1, 1)
            assert min(np.diff(x).min(), np.diff(y).min()) >= 0


def test_roc_panels_say_each_auroc_in_its_methods_colour_opposite_to_the_curves():
    given = uncertainties()
    axes = plots.roc(given)
    for name, ax in zip(SETS, axes.flat, strict=False):
        legend = ax.get_legend()
        areas = [scores.auroc(given[method]["test"], given[method][name]) for method in METHODS]
        words = [f"{m} {area.value:.3f} ± {area.standard_error:.3f}" for m, area in zip(METHODS, areas, strict=True)]
        assert [text.get_text() for text in legend.get_texts()] == words
        for text, look in zip(legend.get_texts(), plots.looks(METHODS).values(), strict=True):
            assert colors.same_color(text.get_color(), plots.style.text_color(look.color))
    swapped = {m: {"test": of["noise"], "noise": of["test"]} for m, of in given.items()}
    for ax, right in ((axes.flat[4], True), (plots.roc(swapped)[0, 0], False)):
        figure = ax.get_figure()
        figure.canvas.draw()
        box, panel = ax.get_legend().get_window_extent(), ax.get_window_extent()
        assert (box.x0 + box.x1 > panel.x0 + panel.x1) == right
        assert (box.y0 + box.y1 < panel.y0 + panel.y1) == right


def test_chance_and_ties_are_straight_on_a_linear_scale():
    # Two values alone: the curve is the two straight lines through (0.25, 0.5), with the points between them.
    axes = plots.roc({"nuts": {"test": [0, 0, 0, 1], "noise": [0, 1]}})
    chance, line = axes[0, 0].lines
    np.testing.assert_array_equal(*chance.get_data())
    assert len(chance.get_xdata()) > 100
    x, y = line.get_data()
    np.testing.assert_allclose(y, np.interp(x, [0, 0.25, 1], [0, 0.5, 1]), atol=1e-12)
    assert len(x) > 100
    quarter, left, right = axes[0, 0].transData.transform([(0.25, 0), (0, 0), (1, 0)])[:, 0]
    assert quarter == pytest.approx((left + right) / 2)  # the square root of 1 / 4


def test_roc_bands_hold_the_curve_and_19_of_20_true_curves():
    random = np.random.default_rng(3)
    held, at = [], detection._GRID
    for _ in range(60):
        inside, outside = random.normal(size=100), random.normal(1.0, size=100)
        band = detection._band(inside, outside)
        curve = np.interp(at, *detection._rates(inside, outside))
        assert (band[0] <= curve + 1e-12).all()
        assert (band[1] >= curve - 1e-12).all()
        # The true curve at four false positive rates: P(N(1, 1) > the threshold of N(0, 1)).
        for rate, true in ((0.0025, 0.03538), (0.01, 0.09236), (0.25, 0.62758), (0.5, 0.84134)):
            low, high = (np.interp(rate, at, end) for end in band)
            held.append(low <= true <= high)
    # Of 240 intervals at least 95 % hold: 0.89 is four standard errors below, a false alarm in 30,000 keys.
    assert np.mean(held) > 0.89
    # A set that is told apart without a fault is no proof that no row is missed, nor that none is flagged falsely.
    low, high = detection._band(np.zeros(20), np.ones(20))
    most_flagged, least_found = 3.8415 / 23.8415, wilson_interval(np.array(1.0), np.array(20))[0]
    np.testing.assert_allclose(low[at > most_flagged + 1e-4], least_found)
    assert (low[at < most_flagged - 1e-4] == 0).all()
    assert (high == 1).all()


def test_a_single_row_has_an_auroc_without_an_error():
    axes = plots.roc({"nuts": {"test": [0.1], "noise": [0.2]}})
    assert axes[0, 0].get_legend().get_texts()[0].get_text() == "nuts 1.000"


# --- confidence


def bars_of(ax):
    """The heights of the rows predicted right and wrong, the fill of each and their edges."""
    right, _, wrong = ax.patches[:3]
    assert right.get_data().edges.tolist() == wrong.get_data().edges.tolist()
    return right, wrong, right.get_data().edges


@pytest.mark.parametrize("num_bins", [1, 20])
def test_confidence_bars_are_the_counts_of_right_and_wrong(num_bins):
    given, y = probs()
    axes = plots.confidence_histograms(given, y, num_bins=num_bins)
    assert axes.shape == (1, 4)
    for (method, look), ax in zip(plots.looks(METHODS).items(), axes.flat, strict=True):
        is_right = scores.row_accuracy(given[method], y) == 1
        confidence = given[method].max(axis=1)
        right, wrong, edges = bars_of(ax)
        np.testing.assert_allclose(edges, np.linspace(0, 1, num_bins + 1))
        for drawn, chosen in ((right, is_right), (wrong, ~is_right)):
            counts = np.where(drawn.get_data().values > 0.5, drawn.get_data().values, 0)
            np.testing.assert_array_equal(counts, np.histogram(confidence[chosen], edges)[0])
            assert counts.sum() == chosen.sum()
        assert colors.to_hex(right.get_facecolor()) == look.color.lower()
        assert wrong.get_hatch()
        assert wrong.get_facecolor()[3] == 0
        accuracy, sure = scores.accuracy(given[method], y), scores.mean(confidence)
        assert ax.texts[0].get_text().split("\n") == [
            f"{is_right.sum()} right, {(~is_right).sum()} wrong",
            f"accuracy {accuracy.value:.3f} ± {accuracy.standard_error:.3f}",
            f"confidence {sure.value:.3f} ± {sure.standard_error:.3f}",
        ]
        assert [line.get_xdata()[0] for line in ax.lines] == [accuracy.value, sure.value]
        spans = [(patch.get_x(), patch.get_x() + patch.get_width()) for patch in ax.patches[3:]]
        wanted = [(s.value - s.standard_error, s.value + s.standard_error) for s in (accuracy, sure)]
        np.testing.assert_allclose(spans, wanted)
        assert ax.get_ylim() == axes[0, 0].get_ylim()


def test_words_stand_above_bars_and_a_bin_of_one_row_has_height():
    axes = plots.confidence_histograms(*probs())
    figure = figure_of(axes)
    figure.canvas.draw()
    for ax in axes.flat:
        tallest = max(patch.get_data().values.max() for patch in ax.patches[:3])
        top = ax.transData.transform((0, tallest))[1]
        floor, one = ax.transData.transform([(0, ax.get_ylim()[0]), (0, 1)])[:, 1]
        assert ax.texts[0].get_window_extent().y0 > top
        assert one - floor > 0.04 * ax.get_window_extent().height
        assert {line.get_ydata()[1] for line in ax.lines} == {ax.lines[0].get_ydata()[1]}


def test_bins_hold_confidences_of_exactly_0_and_1_and_those_rounded_above():
    # Two classes, one of them impossible: confidence 1; float32 rounding may put it above.
    certain = np.array([[1.0, 0.0], [0.0, 1.0], [1.0 + 1e-7, 0.0], [0.5, 0.5]])
    ax = plots.confidence_histograms({"nuts": certain}, [0, 0, 0, 0], num_bins=10)[0, 0]
    right, wrong, _ = bars_of(ax)
    assert right.get_data().values[-1] == 2
    assert wrong.get_data().values[-1] == 1
    assert right.get_data().values[5] == 1
    # The axis begins at 1 / classes; with one class at the last bin.
    assert ax.get_xlim() == (0.5, 1.0)
    alone = plots.confidence_histograms({"nuts": np.ones((3, 1))}, [0, 0, 0], num_bins=10)[0, 0]
    assert alone.get_xlim() == (0.9, 1.0)
    assert alone.texts[0].get_text().startswith("3 right, 0 wrong\n")


@pytest.mark.parametrize(("label", "words"), [(0, "2 right, 0 wrong"), (1, "0 right, 2 wrong")])
def test_all_right_and_all_wrong_are_drawn(label, words):
    ax = plots.confidence_histograms({"nuts": [[0.8, 0.2], [0.7, 0.3]]}, [label, label])[0, 0]
    assert ax.texts[0].get_text().startswith(words)
    right, wrong, _ = bars_of(ax)
    empty, full = (wrong, right) if label == 0 else (right, wrong)
    assert empty.get_data().values.max() < 1 <= full.get_data().values.max()


# --- rejection


def test_rejection_curves_are_the_risk_at_each_coverage():
    uncertain, losses = selective()
    ax = plots.rejection_curves(uncertain, losses, ylabel="error")
    check_looks(ax.lines, METHODS)
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_xlim()) == ("share of rows answered", "error", (0, 1))
    for method, line, text in zip(METHODS, ax.lines, ax.get_legend().get_texts(), strict=True):
        share, risk = line.get_data()
        assert len(share) == 150
        for place in (0, 1, 37, 74, 149):
            wanted = scores.risk_at_coverage(uncertain[method], losses[method], share[place], num_bootstrap=2).value
            assert risk[place] == pytest.approx(wanted, abs=1e-12)
        area = scores.aurc(uncertain[method], losses[method])
        assert text.get_text() == f"{method}   AURC {area.value:.3f} ± {area.standard_error:.3f}"
        assert np.mean(risk) == pytest.approx(area.value)


def test_rejection_bands_are_a_standard_error_of_the_mean_on_either_side():
    random = np.random.default_rng(4)
    uncertain, losses = np.arange(50.0), random.normal(size=50) - 1e6  # no ties; a mean far from 0
    ax = plots.rejection_curves({"nuts": uncertain}, {"nuts": losses})
    band = ax.collections[0].get_paths()[0].vertices
    for count in (2, 10, 50):
        kept = scores.mean(losses[:count])
        for end in (kept.value - kept.standard_error, kept.value + kept.standard_error):
            assert np.abs(band - [count / 50, end]).max(axis=1).min() < 1e-6
    low, high = ax.get_ylim()
    shown = band[band[:, 0] >= 0.05, 1]
    assert low < shown.min()
    assert shown.max() < high < low + 2 * np.ptp(shown)


def test_rows_of_equal_uncertainty_are_rejected_in_no_order():
    losses = np.array([0.0, 1.0, 0.0, 1.0])
    for order in ([0, 1, 2, 3], [3, 1, 0, 2]):
        ax = plots.rejection_curves({"nuts": np.zeros(4)}, {"nuts": losses[order]})
        np.testing.assert_allclose(ax.lines[0].get_ydata(), 0.5)


def test_many_rows_keep_their_ends_and_a_single_row_its_point():
    random = np.random.default_rng(5)
    uncertain, losses = random.uniform(size=(2, 5000))
    share, risk = plots.rejection_curves({"nuts": uncertain}, {"nuts": losses}).lines[0].get_data()
    assert len(share) == 1000
    assert (share[0], share[-1]) == (1 / 5000, 1)
    assert risk[0] == losses[uncertain.argmin()]
    assert risk[-1] == pytest.approx(losses.mean())
    ax = plots.rejection_curves({"nuts": [0.3]}, {"nuts": [2.0]})
    assert ax.lines[0].get_xydata().tolist() == [[1.0, 2.0]]
    assert ax.get_legend().get_texts()[0].get_text() == "nuts   AURC 2.000"


# --- axes of a caller


def test_callers_axes_are_drawn_on_and_those_too_many_hidden():
    grid = plt.subplots(2, 2, layout="constrained")[1]
    axes = plots.roc(uncertainties(2, 3), axes=grid)
    assert (axes == grid).all()
    assert [ax.get_visible() for ax in grid.flat] == [True, True, True, False]
    assert grid[0, 0].get_ylabel() == "true positive rate"
    assert grid[1, 0].get_xlabel() == "false positive rate\n(square-root scale)"
    row = plt.subplots(1, 4, figsize=(7, 2.4), layout="constrained")[1]
    assert (plots.confidence_histograms(*probs(), axes=row)[0] == row).all()
    figure = row[0].get_figure()
    figure.canvas.draw()
    legend = row[0].get_legend()
    assert legend.get_texts()[0].get_text() == "predicted right"
    assert not any(legend.get_window_extent().overlaps(ax.get_window_extent()) for ax in row)
    ax = plt.subplots()[1]
    assert plots.rejection_curves(*selective(), ax=ax) is ax


# --- inputs that do not fit

ROWS = {"test": np.ones(3), "noise": np.ones(3)}


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: plots.roc([]), TypeError, "uncertainties must map each method"),
        (lambda: plots.roc({"nuts": np.ones(3)}), TypeError, r"uncertainties\['nuts'\] is a ndarray"),
        (lambda: plots.roc({"nuts": {"test": np.ones(3)}}), ValueError, "add an OOD set"),
        (lambda: plots.roc({"nuts": ROWS}, in_distribution="val"), ValueError, "no in-distribution set 'val'"),
        (lambda: plots.roc({"nuts": ROWS, "svi": {"test": np.ones(3)}}), ValueError, "give every method the same sets"),
        (lambda: plots.roc({"nuts": ROWS | {"noise": np.ones((3, 1))}}), ValueError, r"\['noise'\] has shape \(3, 1\)"),
        (lambda: plots.roc({"nuts": ROWS | {"noise": [0, np.nan]}}), ValueError, "1 of 2 values NaN"),
        (
            lambda: plots.roc({"nuts": ROWS, "svi": ROWS | {"noise": np.ones(2)}}),
            ValueError,
            r"uncertainties\['svi'\]\['noise'\] has 2 rows but uncertainties\['nuts'\]\['noise'\] has 3",
        ),
        (
            lambda: plots.roc(uncertainties(1, 2), axes=plt.subplots()[1]),
            ValueError,
            "axes has 1 panels and there are 2 OOD sets: pass one for each",
        ),
        (lambda: plots.confidence_histograms(np.eye(2), [0, 1]), TypeError, "probs is a ndarray"),
        (lambda: plots.confidence_histograms({}, [0]), ValueError, "probs is empty"),
        (lambda: plots.confidence_histograms({"nuts": np.ones(3)}, [0]), ValueError, r"has shape \(3,\)"),
        (lambda: plots.confidence_histograms({"nuts": np.eye(2)}, [0]), ValueError, "2 rows but y has 1"),
        (lambda: plots.confidence_histograms({"nuts": np.eye(2)}, [0, 2]), ValueError, "labels reach 2"),
        (lambda: plots.confidence_histograms({"nuts": np.eye(2) / 2}, [0, 1]), ValueError, "sum to 0.5"),
        (lambda: plots.confidence_histograms({"nuts": np.eye(2)}, [0, 1], num_bins=0), ValueError, "num_bins is 0"),
        (
            lambda: plots.confidence_histograms(*probs(2), axes=plt.subplots()[1]),
            ValueError,
            "axes has 1 panels and there are 2 methods",
        ),
        (lambda: plots.rejection_curves(np.ones(3), np.ones(3)), TypeError, "uncertainties is a ndarray"),
        (lambda: plots.rejection_curves({"nuts": [1]}, {"svi": [1]}), ValueError, "give both for every method"),
        (lambda: plots.rejection_curves({"nuts": [1, 2]}, {"nuts": [1]}), ValueError, r"losses\['nuts'\] has 1 rows"),
        (
            lambda: plots.rejection_curves({"nuts": [1, 2], "svi": [1]}, {"nuts": [1, 2], "svi": [1]}),
            ValueError,
            r"uncertainties\['svi'\] has 1 rows but uncertainties\['nuts'\] has 2",
        ),
        (lambda: plots.rejection_curves({"nuts": [1, 2]}, {"nuts": [1, np.nan]}), ValueError, "1 of 2 values NaN"),
    ],
)
def test_inputs_that_do_not_fit_are_named_in_one_sentence(call, kind, message):
    with pytest.raises(kind, match=message) as error:
        call()
    assert "\n" not in str(error.value)


def test_scores_by_set_alone_are_asked_for_by_method():
    with pytest.raises(TypeError, match=r"uncertainties\['test'\] is a ndarray .* pass uncertainties by method"):
        plots.roc({"test": np.zeros(3), "noise": np.ones(3)})
