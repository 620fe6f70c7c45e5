"""Differences from a reference are drawn where they are, ties apart from what is none, whole and legible."""

import numpy as np
import pytest
from matplotlib import colors
from matplotlib import pyplot as plt

from hmcvi import plots
from hmcvi.plots.style import looks

from .drawn_text import check_apart, visible_texts

GROUPS = {
    "digits, gp": {"svi": (0.27, 0.21, 0.34), "bbb": (0.27, 0.21, 0.35), "map": (7.9, 6.7, 9.1)},
    "wine, mlp": {"svi": (0.026, -0.003, 0.059), "map": (-0.035, -0.054, -0.008)},
}
LABEL = "nll minus NUTS' (nats a row)"


@pytest.fixture(autouse=True)
def _no_figures_left():
    yield
    plt.close("all")


def intervals(ax):
    """By method the (low, high, value, filled) of its lines, from the top."""
    found = {}
    names = {look.color: method for method, look in looks(["svi", "bbb", "map"]).items()}
    bars = [line for line in ax.lines if line.get_color() in names and len(line.get_xdata()) == 2]
    marks = [line for line in ax.lines if line.get_color() in names and len(line.get_xdata()) == 1]
    for bar, mark in zip(bars, marks, strict=True):
        assert bar.get_ydata()[0] == bar.get_ydata()[1] == mark.get_ydata()[0]
        filled = colors.same_color(mark.get_markerfacecolor(), mark.get_color())
        found.setdefault(names[bar.get_color()], []).append((*bar.get_xdata(), mark.get_xdata()[0], filled))
    return found


@pytest.mark.parametrize("linear_within", [None, 0.01])
def test_every_interval_stands_where_it_is_and_ties_are_hollow(linear_within):
    ax = plots.score_differences(GROUPS, xlabel=LABEL, linear_within=linear_within)
    assert intervals(ax) == {
        "svi": [(0.21, 0.34, 0.27, True), (-0.003, 0.059, 0.026, False)],
        "bbb": [(0.21, 0.35, 0.27, True)],
        "map": [(6.7, 9.1, 7.9, True), (-0.054, -0.008, -0.035, True)],
    }
    assert ax.get_xscale() == ("linear" if linear_within is None else "symlog")
    assert [text.get_text() for text in ax.get_yticklabels()] == list(GROUPS)
    heights = [line.get_ydata()[0] for line in ax.lines if len(line.get_xdata()) == 1]
    assert heights == sorted(heights)  # from the top, as the axis points down
    low, high = ax.get_ylim()
    assert low > max(heights) > min(heights) > high == 0


@pytest.mark.parametrize("num_groups", [1, 2, 12])
def test_all_text_is_whole_and_apart(num_groups):
    methods = ("svi", "bbb", "map", "laplace", "ensemble")
    random = np.random.default_rng(0)
    middles = random.normal(size=(num_groups, len(methods)))
    groups = {
        f"breast_cancer, mlp {place}": {method: (m, m - 0.1, m + 0.3) for method, m in zip(methods, row, strict=True)}
        for place, row in enumerate(middles)
    }
    ax = plots.score_differences(groups, xlabel=LABEL, linear_within=0.01)
    figure = ax.get_figure()
    figure.canvas.draw()
    assert figure.get_figwidth() == plots.PAGE_WIDTH
    check_apart(figure, visible_texts(figure))
    assert not ax.get_legend().get_window_extent().overlaps(ax.get_window_extent())


def test_a_callers_axes_are_drawn_on():
    _, ax = plt.subplots()
    assert plots.score_differences(GROUPS, xlabel=LABEL, ax=ax) is ax
    assert ax.get_xlabel() == LABEL


@pytest.mark.parametrize(
    ("groups", "options", "kind", "said"),
    [
        ([], {}, TypeError, "groups is a list"),
        ({}, {}, ValueError, "groups is empty"),
        ({"wine": [1, 2, 3]}, {}, TypeError, r"groups\['wine'\] is a list"),
        ({"wine": {}}, {}, ValueError, r"groups\['wine'\] is empty"),
        ({"wine": {"svi": (1.0, 2.0, 3.0)}}, {}, ValueError, "pass .difference, lower end, upper end."),
        ({"wine": {"svi": (1.0, 2.0)}}, {}, ValueError, "pass .difference, lower end, upper end."),
        ({"wine": {"svi": (1.0, 0.0, np.nan)}}, {}, ValueError, r"groups\['wine'\]\['svi'\]"),
        (GROUPS, {"linear_within": 0.0}, ValueError, "linear_within is 0 but should be above 0"),
    ],
)
def test_what_cannot_be_drawn_is_refused(groups, options, kind, said):
    with pytest.raises(kind, match=said):
        plots.score_differences(groups, xlabel=LABEL, **options)
