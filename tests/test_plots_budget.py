"""Scores against budgets show the numbers they are given, who was done and who was not, whole and legible."""

import itertools

import numpy as np
import pytest
from matplotlib import colors
from matplotlib import pyplot as plt

import hmcvi.plots as plots

from .drawn_text import check_score_panels

TITLES = ("digits, mlp", "wine")
METHODS = (
    *("nuts", "hmc", "mclmc", "mams", "svi", "svi-full", "svi-lowrank", "svi-flow"),
    *("laplace", "bbb", "bbb-local", "bbb-shared", "map", "ensemble"),
)
SCORES = ("accuracy", "nll", "ece")


@pytest.fixture(autouse=True)
def _no_figures_left():
    yield
    plt.close("all")


def curves(num_methods=3, names=SCORES, budget=(10, 30, 100, 300, 1000)):
    """Plausible curves: they improve with the logarithm of the budget, and the larger half of budgets is enough."""
    rng = np.random.default_rng(0)
    budget = np.asarray(budget, float)
    found = {}
    for place, method in enumerate(METHODS[:num_methods]):
        found[method] = {}
        for name in names:
            value = (0.5 + 0.03 * place) / (1 + np.log10(budget / budget[0])) + rng.uniform(0, 0.02, len(budget))
            value = 1 - value if name == "accuracy" else value
            error = rng.uniform(0.01, 0.02, len(budget))
            done = budget > np.median(budget)
            found[method][name] = {"budget": budget, "value": value, "standard_error": error, "done": done}
    return found


def one(**changes):
    """A curve of one method and score, with some of its arrays replaced."""
    return {"svi": {"nll": curves(1)["nuts"]["nll"] | changes}}


def drawn(given, unit="passes", **options):
    return plots.score_against_budget(given, unit=unit, **options)


def panels(num, size):
    return plt.subplots(1, num, figsize=size, layout="constrained")[1]


FIGURES = {
    **{f"{n} methods": lambda n=n: drawn(curves(n), title=TITLES[0]) for n in (1, 3, 13)},
    "no title": lambda: drawn(curves(), "seconds"),
    "one score, 13 methods": lambda: drawn(curves(13), score="nll", title=TITLES[1]),
    "two scores": lambda: drawn(curves(3, ["rmse", "coverage, 90%"]), title=TITLES[1]),
    "less than a decade": lambda: drawn(curves(budget=(0.3, 0.6, 0.9)), "seconds", title=TITLES[1]),
    "many decades": lambda: drawn(curves(budget=np.geomspace(0.01, 1e7, 6)), "seconds", title=TITLES[1]),
    "one point": lambda: drawn(curves(budget=[100]), title=TITLES[1]),
    "infinite": lambda: drawn(one(value=[np.inf, np.inf, 1, 0.5, 0.4]), title=TITLES[1]),
    "axes given": lambda: drawn(curves(13), title=TITLES[1], ax=panels(3, (7, 3))),
}


@pytest.mark.parametrize("name", FIGURES)
def test_no_text_is_clipped_or_overlaps_another(name):
    axes = check_score_panels(FIGURES[name], TITLES, num_titles=int(name != "no title"))
    # Panels stay tall enough to read, however many methods the legend names.
    assert min(ax.get_window_extent().height for ax in axes) / axes[0].get_figure().dpi > 1.2
    for ax in axes:
        low, high = ax.get_xlim()
        assert sum(low <= tick <= high for tick in ax.get_xticks()) >= (1 if name == "one point" else 2)


# --- what is drawn


def test_lines_bands_and_markers_stand_at_the_scores():
    given = curves()
    given["svi"] = given.pop("mclmc")
    axes = drawn(given)
    assert axes.shape == (3,)
    for name, ax in zip(SCORES, axes, strict=True):
        assert ax.get_xscale() == "log"
        lines = [line for line in ax.lines if line.get_linestyle() != "None"]
        assert [line.get_label() for line in lines] == list(given)
        for method, line, band in zip(given, lines, ax.collections, strict=True):
            curve = given[method][name]
            np.testing.assert_array_equal(line.get_xydata(), np.stack([curve["budget"], curve["value"]], 1))
            ends = curve["value"] + np.array([[-1], [1]]) * curve["standard_error"]
            outline = band.get_paths()[0].vertices
            assert {tuple(point) for point in zip(curve["budget"].repeat(2), ends.T.ravel(), strict=True)} <= {
                tuple(vertex) for vertex in outline
            }
            low, high = ax.get_ylim()
            assert low < ends.min()
            assert ends.max() < high


def markers_of(ax, method):
    """Budgets with a filled marker and with a hollow one, of one method."""
    look = plots.looks([method])[method]
    found = {}
    for line in ax.lines:
        if line.get_marker() == look.marker and line.get_linestyle() == "None":
            hollow = colors.to_hex(line.get_markerfacecolor()) == "#ffffff"
            found["hollow" if hollow else "filled"] = line.get_xdata().tolist()
    return found


def test_only_what_was_done_is_filled_and_a_key_says_so():
    ax = drawn(one(done=[False, True, False, True, True]))[0]
    assert markers_of(ax, "svi") == {"filled": [30, 300, 1000], "hollow": [10, 100]}
    (legend,) = ax.get_figure().legends
    assert [text.get_text() for text in legend.get_texts()] == ["svi", "converged or finished", "not yet"]
    filled, hollow = legend.get_lines()[1:]
    assert colors.to_hex(hollow.get_markerfacecolor()) == "#ffffff" != colors.to_hex(filled.get_markerfacecolor())
    # Where all are done there is nothing to tell apart.
    ax = drawn(one(done=np.ones(5, bool)))[0]
    assert [text.get_text() for text in ax.get_figure().legends[0].get_texts()] == ["svi"]
    assert markers_of(ax, "svi") == {"filled": [10, 30, 100, 300, 1000], "hollow": []}


def test_labels_hold_name_unit_and_which_way_is_better():
    axes = drawn(curves(2, ["accuracy", "nll", "coverage, 90%", "loss"]), ax=panels(4, (7, 2.5)))
    assert [ax.get_ylabel() for ax in axes] == ["accuracy ↑", "nll (nats) ↓", "coverage, 90% (best 0.9)", "loss"]
    assert {ax.get_xlabel() for ax in axes} == {"passes over the training data"}
    assert drawn(curves(), "seconds")[0].get_xlabel() == "seconds"


def test_scores_are_drawn_as_chosen():
    assert [ax.get_ylabel() for ax in drawn(curves(), score=["ece", "accuracy"])] == ["ece ↓", "accuracy ↑"]
    assert [ax.get_ylabel() for ax in drawn(curves(), score="ece")] == ["ece ↓"]


def test_panels_have_the_same_budgets_with_every_point_inside():
    given = curves(2)
    given["hmc"] = {name: {part: array[:2] for part, array in of.items()} for name, of in given["hmc"].items()}
    axes = drawn(given)
    assert len({ax.get_xlim() for ax in axes}) == 1
    low, high = axes[0].get_xlim()
    assert low < 10
    assert high > 1000


def test_what_is_not_finite_leaves_a_gap_and_the_infinite_is_written():
    ax = drawn(one(value=np.array([0.9, np.nan, 0.5, np.inf, 0.3])))[0]
    (line,) = (line for line in ax.lines if line.get_linestyle() != "None")
    np.testing.assert_array_equal(line.get_ydata(), [0.9, np.nan, 0.5, np.nan, 0.3])
    assert [(text.get_text(), text.get_position()[0]) for text in ax.texts] == [("∞", 300)]
    # Points without neighbours have no band: a bar each in its place.
    (bars,) = (c for c in ax.collections if hasattr(c, "get_segments"))
    assert [segment[0, 0] for segment in bars.get_segments()] == [10, 100, 1000]
    assert not any(hasattr(c, "get_segments") for c in drawn(one())[0].collections)


def test_flat_curves_are_not_magnified():
    ax = drawn(one(value=np.full(5, 0.7) + 1e-12 * np.arange(5), standard_error=np.zeros(5)))[0]
    low, high = ax.get_ylim()
    assert high - low > 0.05 * 0.7


def test_it_draws_into_the_axes_given():
    given = panels(3, (7, 2.6))
    axes = drawn(curves(), title="wine", ax=given)
    assert (axes == given).all()
    assert axes[0].get_title(loc="left") == "wine"
    assert [ax.get_legend() is not None for ax in axes] == [True, False, False]


# --- thirteen methods


def test_every_method_has_colour_line_and_marker_of_its_own_in_any_company():
    found = plots.looks(METHODS)
    for part in ("color", "linestyle", "marker"):
        assert len({str(getattr(look, part)) for look in found.values()}) == len(METHODS), part
    assert all(plots.looks([method])[method] == look for method, look in found.items())
    assert plots.looks(["svi-full seed 1", "svi"]) == {"svi-full seed 1": found["svi-full"], "svi": found["svi"]}
    unknown = list(plots.looks(["swag", "sgld", "vogn"]).values())
    assert len({look.color for look in [*unknown, *found.values()]}) == len(METHODS) + 3


def lightness_and_hue(color):
    """CIELAB (lightness, a, b) of a colour: distances in it are what eyes tell apart."""
    linear = np.array([c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colors.to_rgb(color)])
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    x, y, z = np.cbrt(to_xyz @ linear / [0.9505, 1.0, 1.089])
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


# Linear RGB under full deficiency: Machado, Oliveira and Fernandes (2009), table 1, severity 1.0.
DEFICIENCIES = {
    "none": np.eye(3),
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
}


@pytest.mark.parametrize("deficiency", DEFICIENCIES)
def test_colours_stay_apart_under_colour_vision_deficiencies(deficiency):
    seen = {}
    for method, look in plots.looks(METHODS).items():
        rgb = np.array(colors.to_rgb(look.color))
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        mixed = np.clip(DEFICIENCIES[deficiency] @ linear, 0, 1)
        srgb = np.where(mixed <= 0.0031308, 12.92 * mixed, 1.055 * mixed ** (1 / 2.4) - 0.055)
        seen[method] = lightness_and_hue(np.clip(srgb, 0, 1))
    apart = {pair: np.linalg.norm(seen[pair[0]] - seen[pair[1]]) for pair in itertools.combinations(seen, 2)}
    # 2.3 is just noticeable; the first three methods are far from one another.
    assert min(apart.values()) > 5, min(apart, key=apart.get)
    assert min(apart[pair] for pair in itertools.combinations(("nuts", "svi", "bbb"), 2)) > 25


# --- inputs that do not fit


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: drawn({}), "curves is empty"),
        (lambda: drawn({"nuts": {}}), r"curves\['nuts'\] is empty"),
        (lambda: drawn(curves(), "hours"), "unit is 'hours' but should be one of passes, seconds"),
        (lambda: drawn(curves(), score="brier"), r"score is 'brier' and curves has \['accuracy', 'nll', 'ece'\]"),
        (lambda: drawn(curves(), score=[]), r"score is \[\] and"),
        (lambda: drawn(curves(1) | one()), r"curves\['svi'\] has the scores \['nll'\] and curves\['nuts'\] has"),
        (lambda: drawn({"nuts": {"nll": {"budget": [1], "value": [1.0]}}}), r"no \['standard_error', 'done'\]"),
        (lambda: drawn(one(done=[1, 0, 1, 1, 1])), r"\['done'\] has dtype int64 .* should be bool"),
        (lambda: drawn(one(done=[True])), "lengths .*'done': 1.* equal lengths"),
        (lambda: drawn(one(value=np.ones((5, 1)))), r"has shape \(5, 1\) but"),
        (lambda: drawn(one(budget=[0, 1, 2, 3, 4])), "should be positive and increase"),
        (lambda: drawn(one(budget=[1, 2, 2, 3, 4])), "should be positive and increase"),
        (lambda: drawn(one(budget=[1, 2, 3, 4, np.inf])), "should be positive and increase"),
        (lambda: drawn(one(standard_error=-np.ones(5))), "standard_error'.* reaches -1 but"),
        (lambda: drawn(curves(), ax=panels(2, (7, 2))), "ax has 2 panels and there are 3 scores"),
    ],
)
def test_inputs_that_do_not_fit_are_named_in_one_sentence(call, message):
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("given", [np.ones(3), {"nuts": np.ones(3)}, {"nuts": {"nll": np.ones(3)}}])
def test_an_array_in_place_of_a_mapping_is_a_type_error(given):
    with pytest.raises(TypeError, match=r"^curves.* is a ndarray but should map each"):
        drawn(given)
