"""Figures of single inputs show the right images with the right numbers, whole and legible."""

import numpy as np
import pytest
from matplotlib import colors
from matplotlib import pyplot as plt
from matplotlib.collections import LineCollection
from scipy.special import softmax

from hmcvi import plots
from hmcvi.plots import _images

from .drawn_text import check_apart, drawn_on_a_page, visible_texts

METHODS = ("nuts", "svi-lowrank", "bbb-local", "map")
GARMENTS = ("T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")


@pytest.fixture(autouse=True)
def _no_figures_left():
    yield
    plt.close("all")


def draws(num_methods=4, num_rows=3, num_classes=10):
    """Class probabilities of 50, 51, ... draws; of one draw for the last of four methods."""
    random = np.random.default_rng(0)
    shapes = [(1 if place == 3 else 50 + place, num_rows, num_classes) for place in range(num_methods)]
    return {m: softmax(2 * random.normal(size=s), axis=2) for m, s in zip(METHODS, shapes, strict=False)}


def images(num_rows=3):
    """Images that differ in brightness, each with a gradient of its own."""
    return np.linspace(0, 1, num_rows * 64).reshape(num_rows, 8, 8)


def labels(num_rows=3):
    return [f"{row}, predicted {row + 1} at 0.43" for row in range(num_rows)]


def uncertainties(num_methods=4, num_rows=30):
    """A permutation of rows for each method, from about 1e-5 on."""
    random = np.random.default_rng(1)
    return {m: 10 ** np.linspace(-5, 0.3, num_rows)[random.permutation(num_rows)] for m in METHODS[:num_methods]}


def probabilities(num_methods, num_classes, num_rows=3, **options):
    given = draws(num_methods, num_rows, num_classes)
    return plots.class_probabilities(given, labels=labels(num_rows), **options)


FIGURES = {
    **{
        f"probabilities, {m} methods, {c} classes": lambda m=m, c=c: probabilities(m, c, images=images())
        for m, c in ((1, 2), (4, 2), (4, 3), (1, 10), (4, 10))
    },
    "probabilities, no images": lambda: probabilities(4, 10),
    "probabilities, long names": lambda: probabilities(4, 10, images=images(), class_names=GARMENTS),
    "probabilities, one row": lambda: probabilities(2, 1, num_rows=1),
    "probabilities, axes given": lambda: probabilities(
        4, 10, images=images(), axes=plt.subplots(3, 2, figsize=(3.5, 4.2), layout="constrained")[1]
    ),
    **{
        f"inputs, {m} methods, {n} inputs": lambda m=m, n=n: plots.certain_inputs(
            images(30), uncertainties(m), labels=["9 as 7"] * 30, num_inputs=n
        )
        for m, n in ((1, 1), (1, 6), (4, 2), (4, 6))
    },
    "inputs, no labels": lambda: plots.certain_inputs(images(30), uncertainties(4)),
    "inputs, long labels": lambda: plots.certain_inputs(images(30), uncertainties(2), labels=["boot as sandal"] * 30),
    "inputs, one row": lambda: plots.certain_inputs(images(1), {"nuts": [0.0]}, num_inputs=1),
    "inputs, axes given": lambda: plots.certain_inputs(
        images(30),
        uncertainties(2),
        num_inputs=3,
        axes=plt.subplots(2, 6, figsize=(7, 2.6), layout="constrained")[1],
    ),
}


@pytest.mark.parametrize("name", FIGURES)
def test_figures_fit_a_page_with_their_texts_apart_and_leave_the_settings_alone(name):
    figure = drawn_on_a_page(lambda: FIGURES[name]()[0, 0].get_figure())
    texts = visible_texts(figure)
    heads = [ax._left_title for ax in figure.axes if ax._left_title.get_text()]
    texts += [(head.get_text(), head.get_window_extent()) for head in heads]
    assert len(texts) > 3
    # Names at a slant have boxes that meet while the letters do not.
    upright = [(text, box) for text, box in texts if not (name.endswith("long names") and text in GARMENTS)]
    check_apart(figure, upright)
    pictures = [ax.get_window_extent() for ax in figure.axes if ax.images]
    assert not any(box.overlaps(picture.padded(-1)) for _, box in upright for picture in pictures)


@pytest.mark.parametrize("name", ["probabilities, 4 methods, 10 classes", "inputs, 4 methods, 6 inputs"])
def test_figures_are_saved_in_every_format(name, tmp_path):
    paths = plots.save(FIGURES[name](), tmp_path / "figure", ("png", "svg", "pdf"))
    for path, start in zip(paths, (b"\x89PNG", b"<?xml", b"%PDF"), strict=True):
        assert path.read_bytes().startswith(start)
        assert path.stat().st_size > 5000


# --- class probabilities


def test_marks_are_means_and_bars_the_central_50_and_95_percent_of_draws():
    given = draws()
    axes = plots.class_probabilities(given, images=images(), labels=labels())
    assert axes.shape == (3, 2)
    for row, (picture, ax) in enumerate(axes):
        np.testing.assert_allclose(picture.images[0].get_array(), images()[row])
        assert ax.get_title(loc="left") == labels()[row]
        assert ax.get_ylim() == (0, 1)
        assert [tick.get_text() for tick in ax.get_xticklabels()] == list("0123456789")
        bars = [c for c in ax.collections if isinstance(c, LineCollection)]
        for place, (method, look) in enumerate(plots.looks(METHODS).items()):
            marks, (thin, thick) = ax.lines[place], bars[2 * place : 2 * place + 2]
            assert (marks.get_color(), marks.get_marker()) == (look.color, look.marker)
            x, y = marks.get_data()
            np.testing.assert_allclose(y, given[method][:, row].mean(axis=0))
            np.testing.assert_array_equal(x.round(), np.arange(10))
            assert thin.get_linewidth()[0] < thick.get_linewidth()[0]
            for drawn, levels in ((thin, (0.025, 0.975)), (thick, (0.25, 0.75))):
                assert colors.same_color(drawn.get_color()[0], look.color)
                ends = np.array(drawn.get_segments())
                np.testing.assert_allclose(ends[:, 0, 0], x)
                np.testing.assert_allclose(ends[..., 1].T, np.quantile(given[method][:, row], levels, axis=0))
        # Methods stand beside one another in the order given, the same distance apart.
        distances = np.diff([line.get_xdata()[0] for line in ax.lines])
        np.testing.assert_allclose(distances, distances[0])
        assert distances[0] > 0.1


def test_a_single_draw_and_probabilities_of_0_and_1_are_drawn():
    ax = plots.class_probabilities({"map": [[[0.0, 1.0]]]}, class_names=["cat", "dog"])[0, 0]
    assert ax.lines[0].get_ydata().tolist() == [0, 1]
    ends = [np.array(c.get_segments())[..., 1] for c in ax.collections if isinstance(c, LineCollection)]
    assert all((e[:, 0] == e[:, 1]).all() for e in ends)
    assert not ax.lines[0].get_clip_on()
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["cat", "dog"]
    assert ax.get_xticklabels()[0].get_rotation() == 0


def test_long_names_of_classes_are_slanted():
    ax = probabilities(4, 10, class_names=GARMENTS)[0, 0]
    assert {tick.get_rotation() for tick in ax.get_xticklabels()} == {30}


def test_the_legend_names_methods_and_intervals_and_covers_no_panel_of_a_caller():
    names = [*METHODS, "50 % of draws", "95 % of draws"]
    figure = probabilities(4, 10, images=images())[0, 0].get_figure()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == names
    given = plt.subplots(3, 2, figsize=(3.5, 4.2), layout="constrained")[1]
    axes = probabilities(4, 10, images=images(), axes=given)
    assert (axes == given).all()
    given[0, 0].get_figure().canvas.draw()
    legend = axes[0, 1].get_legend()
    assert [text.get_text() for text in legend.get_texts()] == names
    assert not any(legend.get_window_extent().overlaps(ax.get_window_extent()) for ax in axes.flat)


# --- the most and the least certain inputs


def number_of(ax):
    """The row of the image that axes show, among the 30."""
    return int(np.argmin(np.abs(images(30) - np.asarray(ax.images[0].get_array())).sum(axis=(1, 2))))


def test_inputs_are_those_at_the_ends_in_order_with_their_numbers():
    given = uncertainties()
    axes = plots.certain_inputs(images(30), given, labels=[f"row {row}" for row in range(30)], num_inputs=4)
    assert axes.shape == (4, 8)
    for (method, look), of_method in zip(plots.looks(METHODS).items(), axes, strict=True):
        order = np.argsort(given[method])
        assert [number_of(ax) for ax in of_method] == [*order[:4], *order[-4:]]
        assert of_method[0].get_ylabel() == method
        assert colors.same_color(of_method[0].yaxis.label.get_color(), plots.style.text_color(look.color))
        for ax in of_method:
            value, label = ax.get_xlabel().split("\n")
            row = number_of(ax)
            assert label == f"row {row}"
            assert float(value.replace("\N{MINUS SIGN}", "-")) == pytest.approx(given[method][row], rel=5e-3)
    heads = {place: ax.get_title(loc="left") for place, ax in enumerate(axes[0]) if ax.get_title(loc="left")}
    assert heads == {0: "most certain", 4: "least certain"}
    assert axes[0, 0].get_figure()._supxlabel.get_text() == "below each input: entropy (nats)"


def test_equal_uncertainties_keep_the_order_of_rows_and_few_inputs_stand_on_both_sides():
    axes = plots.certain_inputs(images(30), {"nuts": np.zeros(30)}, num_inputs=2)
    assert [number_of(ax) for ax in axes[0]] == [0, 1, 28, 29]
    assert {ax.get_xlabel() for ax in axes[0]} == {"0.00"}
    axes = plots.certain_inputs(images(30)[:3], {"nuts": [2.0, -1.0, 100.0]}, num_inputs=2)
    assert [ax.get_xlabel() for ax in axes[0]] == ["\N{MINUS SIGN}1.00", "2.00", "2.00", "100"]


def test_inputs_are_drawn_on_the_axes_of_a_caller_with_their_measure():
    given = plt.subplots(2, 4)[1]
    axes = plots.certain_inputs(
        images(30), uncertainties(2), num_inputs=2, xlabel="mutual information (nats)", axes=given
    )
    assert (axes == given).all()
    assert given[0, 0].get_title(loc="left") == "most certain,\nmutual information (nats) below"
    assert given[0, 0].get_figure()._supxlabel is None


# --- images


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (np.full((2, 3, 4), 51, np.uint8), np.full((2, 3, 4), 0.2)),
        (np.full((2, 3, 4, 1), 0.5), np.full((2, 3, 4), 0.5)),
        (np.full((2, 3, 4, 3), 0.5), np.full((2, 3, 4, 3), 0.5)),
        (np.arange(8).reshape(2, 2, 2), np.arange(8).reshape(2, 2, 2) / 7),
        (np.zeros((1, 3, 4)), np.zeros((1, 3, 4))),
    ],
)
def test_images_are_scaled_to_0_and_1(given, wanted):
    np.testing.assert_allclose(_images.scaled_images(given), wanted)
    axes = plots.certain_inputs(given, {"nuts": np.arange(len(given))}, num_inputs=1)
    picture = axes[0, 0].images[0]
    np.testing.assert_allclose(picture.get_array(), wanted[0])
    # A constant image keeps its brightness.
    assert picture.get_clim() == (0, 1)


def test_importance_shows_images_as_the_others_do():
    given = np.random.default_rng(2).integers(0, 256, (2, 4, 4, 1), dtype=np.uint8)
    axes = plots.feature_importance(given, np.ones(given.shape), np.ones(given.shape))
    for row in range(2):
        np.testing.assert_allclose(axes[row, 0].images[0].get_array(), given[row, ..., 0] / 255)
        assert axes[row, 0].images[0].get_clim() == (0, 1)


# --- inputs that do not fit

PROBS = {"nuts": np.full((4, 2, 2), 0.5)}


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: plots.class_probabilities(PROBS["nuts"]), TypeError, "probs is a ndarray"),
        (lambda: plots.class_probabilities({}), ValueError, "probs is empty"),
        (lambda: plots.class_probabilities({"nuts": np.eye(2)}), ValueError, r"should be \(draw, row, class\)"),
        (lambda: plots.class_probabilities({"nuts": np.full((1, 1, 2), np.nan)}), ValueError, "2 of 2 values NaN"),
        (lambda: plots.class_probabilities({"nuts": np.ones((1, 2, 2))}), ValueError, "row 0 sum to 2"),
        (
            lambda: plots.class_probabilities(PROBS | {"svi": np.full((4, 1, 2), 0.5)}),
            ValueError,
            r"probs\['svi'\] has 1 rows and 2 classes but probs\['nuts'\] has 2 and 2",
        ),
        (lambda: plots.class_probabilities(PROBS, images=images(3)), ValueError, "images has 3 rows but probs has 2"),
        (lambda: plots.class_probabilities(PROBS, labels=["a"]), ValueError, "labels has 1 entries for 2 rows"),
        (
            lambda: plots.class_probabilities(PROBS, class_names=["a"]),
            ValueError,
            "class_names has 1 entries for 2 classes",
        ),
        (
            lambda: plots.class_probabilities(PROBS, images=images(2), axes=plt.subplots(2, 1)[1]),
            ValueError,
            r"axes has shape \(2,\) but should be \(2, 2\)",
        ),
        (lambda: plots.certain_inputs(np.ones((3, 4)), {"nuts": np.ones(3)}), ValueError, r"images has shape \(3, 4\)"),
        (lambda: plots.certain_inputs(np.ones((3, 4, 4, 2)), {"nuts": np.ones(3)}), ValueError, "1, 3 or 4 channels"),
        (lambda: plots.certain_inputs(np.full((1, 2, 2), np.nan), {"nuts": [1]}), ValueError, "4 of 4 values NaN"),
        (lambda: plots.certain_inputs(images(), np.ones(3)), TypeError, "uncertainties is a ndarray"),
        (lambda: plots.certain_inputs(images(), {"nuts": [1, 2]}), ValueError, r"\['nuts'\] has 2 rows but images"),
        (lambda: plots.certain_inputs(images(), {"nuts": [1, 2, np.inf]}), ValueError, "1 of 3 values NaN or inf"),
        (lambda: plots.certain_inputs(images(), {"nuts": np.ones(3)}), ValueError, "num_inputs is 6 but there are 3"),
        (lambda: plots.certain_inputs(images(), {"nuts": np.ones(3)}, num_inputs=0), ValueError, "num_inputs is 0"),
        (
            lambda: plots.certain_inputs(images(), {"nuts": np.ones(3)}, num_inputs=1, labels=["a"]),
            ValueError,
            "labels has 1 entries for 3 images",
        ),
        (
            lambda: plots.certain_inputs(images(), {"nuts": np.ones(3)}, num_inputs=1, axes=plt.subplots()[1]),
            ValueError,
            r"axes has shape \(\) but should be \(1, 2\)",
        ),
    ],
)
def test_inputs_that_do_not_fit_are_named_in_one_sentence(call, kind, message):
    with pytest.raises(kind, match=message) as error:
        call()
    assert "\n" not in str(error.value)
