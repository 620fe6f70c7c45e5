"""Severity curves show the numbers they are given, method by method, whole and legible."""

import numpy as np
import pytest
from matplotlib import colors
from matplotlib import pyplot as plt
from matplotlib.collections import LineCollection

import hmcvi.plots as plots
from hmcvi.plots._score_panels import kind_of

from .drawn_text import check_score_panels

TITLES = ("rotation", "gaussian noise", "drift")
METHODS = ("nuts", "svi", "bbb-local", "bbb-shared", "laplace", "ensemble")
CLASSIFICATION = ("accuracy", "nll", "ece", "entropy, total")
REGRESSION = ("rmse", "nll", "coverage, 90%", "entropy, total")


@pytest.fixture(autouse=True)
def _no_figures_left():
    yield
    plt.close("all")


def curves(num_methods=3, names=CLASSIFICATION, num_levels=6):
    """Plausible curves: accuracy and coverage fall from 1, all else rises from 0."""
    rng = np.random.default_rng(0)
    severity = np.arange(num_levels)
    found = {}
    for place, method in enumerate(METHODS[:num_methods]):
        found[method] = {}
        for name in names:
            value = 0.02 * (1 + place) * severity**1.5 + rng.uniform(0, 0.02, num_levels)
            value = 0.98 - value if name.startswith(("accuracy", "coverage")) else value
            error = rng.uniform(0.01, 0.03, num_levels)
            found[method][name] = {"severity": severity, "value": value, "standard_error": error}
    return found


def with_values(value, error=0.01, names=CLASSIFICATION):
    """Curves of two methods whose values are all the same array (level,)."""
    curve = {"severity": np.arange(6), "value": np.broadcast_to(value, 6), "standard_error": np.full(6, error)}
    return {method: dict.fromkeys(names, curve) for method in METHODS[:2]}


def changed(part, array):
    """Curves of one method with one array replaced."""
    return {"nuts": {"accuracy": curves(1)["nuts"]["accuracy"] | {part: array}}}


def given(num_panels, size):
    return plt.subplots(1, num_panels, figsize=size, layout="constrained")[1]


FIGURES = {
    **{f"{n} methods": lambda n=n: plots.severity_curves(curves(n), shift="rotation") for n in (1, 3, 6)},
    "no title": lambda: plots.severity_curves(curves()),
    "one score": lambda: plots.severity_curves(curves(6, ["nll"]), shift="gaussian noise"),
    "two scores": lambda: plots.severity_curves(curves(3, ["ece", "entropy, epistemic"]), shift="rotation"),
    "regression": lambda: plots.severity_curves(curves(3, REGRESSION), shift="drift"),
    "flat": lambda: plots.severity_curves(with_values(0.031, 0.0), shift="rotation"),
    "infinite": lambda: plots.severity_curves(with_values([1, 1, 1, 1, np.inf, np.inf]), shift="rotation"),
    "all NaN": lambda: plots.severity_curves(with_values(np.nan, np.nan), shift="rotation"),
    "axes given": lambda: plots.severity_curves(curves(6), shift="rotation", ax=given(4, (7, 2.6))),
    "axes given, no layout": lambda: plots.severity_curves(curves(6, ["nll"]), shift="rotation", ax=plt.subplots()[1]),
}


@pytest.mark.parametrize("name", FIGURES)
def test_no_text_is_clipped_or_overlaps_another(name):
    check_score_panels(FIGURES[name], TITLES, num_titles=int(name != "no title"))


# --- what is drawn


def bars_of(ax):
    """The error bars of each method as (level, 2, 2): lower and upper end, x and y."""
    return [np.array(c.get_segments()) for c in ax.collections if isinstance(c, LineCollection)]


def test_lines_and_bars_stand_at_the_scores():
    drawn = curves()
    axes = plots.severity_curves(drawn, shift="rotation")
    assert axes.shape == (4,)
    for name, ax in zip(CLASSIFICATION, axes, strict=True):
        assert [container.get_label() for container in ax.containers] == list(drawn)
        for method, container, bars in zip(drawn, ax.containers, bars_of(ax), strict=True):
            curve = drawn[method][name]
            wanted = np.stack([curve["severity"], curve["value"]], axis=1)
            np.testing.assert_array_equal(container.lines[0].get_xydata(), wanted)
            ends = curve["value"] + np.array([[-1], [1]]) * curve["standard_error"]
            np.testing.assert_allclose(bars[..., 1].T, ends)
            np.testing.assert_array_equal(bars[:, 0, 0], curve["severity"])
            low, high = ax.get_ylim()
            assert low < ends.min()
            assert ends.max() < high


def test_a_method_keeps_its_look_in_every_panel_and_the_legend():
    drawn = curves(6)
    axes = plots.severity_curves(drawn)
    (legend,) = axes[0].get_figure().legends
    assert [text.get_text() for text in legend.get_texts()] == list(METHODS)
    for ax in axes:
        lines = [container.lines[0] for container in ax.containers]
        for look, line, handle in zip(plots.looks(drawn).values(), lines, legend.get_lines(), strict=True):
            for drawn_line in (line, handle):
                assert colors.to_hex(drawn_line.get_color()) == look.color.lower()
                assert drawn_line.get_marker() == look.marker
    alone = plots.severity_curves({"svi": drawn["svi"]})[0].containers[0].lines[0]
    assert alone.get_color() == axes[0].containers[1].lines[0].get_color()


def test_labels_hold_name_unit_and_which_way_is_better():
    axes = plots.severity_curves(curves(), shift="rotation")
    assert [ax.get_ylabel() for ax in axes] == ["accuracy ↑", "nll (nats) ↓", "ece ↓", "entropy, total (nats)"]
    assert axes[0].get_figure().legends[0].get_title().get_text() == "rotation"
    axes = plots.severity_curves(curves(2, [*REGRESSION, "Loss of the user's own"]))
    assert [ax.get_ylabel() for ax in axes] == [
        "rmse (target's unit) ↓",
        "nll (nats) ↓",
        "coverage, 90% (best 0.9)",
        "entropy, total (nats)",
        "Loss of the user's own",
    ]
    assert [line.get_ydata() for line in axes[2].lines if len(line.get_xdata()) == 2] == [[0.9, 0.9]]


def test_arrows_are_the_scoreboards():
    from hmcvi.benchmarks.table import BETTER  # here, since figures need no benchmark

    assert {score: kind_of(score)[0].better for score in BETTER} == BETTER
    assert not any(kind_of(score)[0].better for score in ("ece, null level", "nll-like", "entropy, total"))


def test_severities_are_whole_numbers_from_none_to_five():
    axes = plots.severity_curves(curves(num_levels=3))
    axes[0].get_figure().canvas.draw()
    for ax in axes:
        low, high = ax.get_xlim()
        ticks = [label.get_text().strip() for label in ax.get_xticklabels() if low <= label.get_position()[0] <= high]
        assert ticks == ["0\nnone", "1", "2", "3", "4", "5"]
        assert ax.get_xlabel() == "severity"
    # In a panel too narrow for six numbers there are fewer of them, and still whole ones.
    for width in (3.5, 4.0, 4.5):
        narrow = plots.severity_curves(curves(), ax=given(4, (width, 1.7)))[0]
        low, high = narrow.get_xlim()
        assert [tick for tick in narrow.get_xticks() if low <= tick <= high] == [0, 2, 4]


def test_what_is_not_finite_leaves_a_gap_and_the_infinite_is_written():
    ax = plots.severity_curves(with_values([0.1, np.nan, 0.3, np.inf, 0.5, -np.inf], names=["nll"]))[0]
    for container in ax.containers:
        np.testing.assert_array_equal(container.lines[0].get_ydata(), [0.1, np.nan, 0.3, np.nan, 0.5, np.nan])
    marks = [(text.get_text(), text.get_position()[0], text.get_color()) for text in ax.texts]
    assert marks == [
        (mark, level, plots.looks([method])[method].color.lower())
        for method in METHODS[:2]
        for mark, level in (("∞", 3), ("−∞", 5))
    ]
    # The marks stand above every point: two lines of them are free.
    low, high = ax.get_ylim()
    assert (0.51 - low) / (high - low) < min(text.get_position()[1] for text in ax.texts)


def test_a_missing_error_leaves_the_point_without_a_bar():
    ax = plots.severity_curves(with_values(0.5, np.nan, ["nll"]))[0]
    np.testing.assert_array_equal(ax.containers[0].lines[0].get_ydata(), np.full(6, 0.5))
    assert all(bars.size == 0 for bars in bars_of(ax))


@pytest.mark.parametrize("value", [0.0, 0.031, 0.9, 1.0, -1234.5])
def test_flat_curves_are_not_magnified(value):
    nll, accuracy = plots.severity_curves(
        with_values(
            value * (1 + 1e-13 * np.arange(6)), 0.0, ["nll", "accuracy"] if 0 <= value <= 1 else ["nll", "loss"]
        )
    )
    low, high = nll.get_ylim()
    assert high - low > 0.05 * (abs(value) or 1)
    assert low < value < high
    nll.get_figure().canvas.draw()
    ticks = [label.get_text() for label in nll.get_yticklabels()]
    assert len(set(ticks)) == len(ticks)
    if value == 1.0:  # no tick promises more than the largest accuracy
        assert max(tick for tick in accuracy.get_yticks() if tick <= accuracy.get_ylim()[1]) == 1


def test_methods_may_differ_in_their_levels():
    drawn = curves(2, ["nll"])
    drawn["svi"]["nll"] = {part: array[1:4] for part, array in drawn["svi"]["nll"].items()}
    ax = plots.severity_curves(drawn)[0]
    assert [len(container.lines[0].get_xdata()) for container in ax.containers] == [6, 3]


def test_it_draws_into_the_axes_given():
    panels = given(4, (7, 2.4))
    axes = plots.severity_curves(curves(), shift="rotation", ax=panels)
    assert (axes == panels).all()
    assert axes[0].get_title(loc="left") == "rotation"
    assert [ax.get_legend() is not None for ax in axes] == [True, False, False, False]
    # The legend of all, wider than the first panel, leaves the panels their width.
    axes[0].get_figure().canvas.draw()
    assert sum(ax.get_position().width for ax in axes) > 0.65
    _, ax = plt.subplots()
    assert plots.severity_curves(curves(1, ["nll"]), ax=ax)[0] is ax


def test_it_is_saved_in_both_formats(tmp_path):
    paths = plots.save(plots.severity_curves(curves(), shift="rotation"), tmp_path / "severity")
    assert [path.name for path in paths] == ["severity.png", "severity.svg"]
    assert plt.imread(paths[0]).shape[1] == round(plots.PAGE_WIDTH * 200)
    assert "<svg" in paths[1].read_text()


# --- inputs that do not fit


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: plots.severity_curves({}), "curves is empty"),
        (lambda: plots.severity_curves({"nuts": {}}), r"curves\['nuts'\] is empty"),
        (
            lambda: plots.severity_curves({**curves(1), "svi": curves(2, ["nll"])["svi"]}),
            r"curves\['svi'\] has the scores \['nll'\] and curves\['nuts'\] has \['accuracy', .* the same scores",
        ),
        (
            lambda: plots.severity_curves({"nuts": {"nll": {"severity": [0], "value": [1.0]}}}),
            r"curves\['nuts'\]\['nll'\] has \['severity', 'value'\] but no \['standard_error'\]",
        ),
        (lambda: plots.severity_curves(changed("value", np.ones(5))), "'severity': 6, 'value': 5, .* equal lengths"),
        (lambda: plots.severity_curves(changed("value", np.ones((6, 1)))), r"has shape \(6, 1\) but"),
        (lambda: plots.severity_curves(changed("value", 0.5)), r"has shape \(\) but should be \(level,\)"),
        (lambda: plots.severity_curves(changed("severity", [])), r"has shape \(0,\) but"),
        (lambda: plots.severity_curves(changed("value", list("012345"))), r"\['value'\] has dtype <U1 but .* numbers"),
        (lambda: plots.severity_curves(changed("value", [0.5, None] * 3)), "has dtype object but .* pass NaN"),
        (lambda: plots.severity_curves(changed("value", [[1], [1, 2]])), "has dtype object but"),
        (lambda: plots.severity_curves(changed("severity", [0, 1, 2, 4, 3, 5])), "should increase from 0 on"),
        (lambda: plots.severity_curves(changed("severity", [0, 1, 1, 2, 3, 4])), "should increase from 0 on"),
        (lambda: plots.severity_curves(changed("severity", np.arange(6) - 1)), "should increase from 0 on"),
        (lambda: plots.severity_curves(changed("severity", [0, 1, 2, 3, 4, np.nan])), "should increase from 0 on"),
        (lambda: plots.severity_curves(changed("standard_error", -np.ones(6))), "standard_error'.* reaches -1 but"),
        (lambda: plots.severity_curves(curves(), ax=given(3, (7, 2))), "ax has 3 panels and curves has 4 scores"),
    ],
)
def test_inputs_that_do_not_fit_are_named_in_one_sentence(call, message):
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("given_curves", [np.ones(3), {"nuts": np.ones(3)}, {"nuts": {"nll": np.ones(3)}}])
def test_an_array_in_place_of_a_mapping_is_a_type_error(given_curves):
    with pytest.raises(TypeError, match=r"^curves.* is a ndarray but should map each"):
        plots.severity_curves(given_curves)
