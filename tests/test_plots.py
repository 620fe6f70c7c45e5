"""The figures show the numbers they are given, whole and legible, and reach the disk whole or not at all."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib import colors
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

import hmcvi.plots as plots
from hmcvi.plots import style

from .drawn_text import check_apart, drawn_on_a_page, visible_texts
from .plot_data import bands, class_probs, draw_bands, entropies, losses, pit, train_points


@pytest.fixture(autouse=True)
def _no_figures_left():
    yield
    plt.close("all")


FIGURES = {
    "reliability": lambda: plots.reliability(*class_probs()),
    "reliability, few rows": lambda: plots.reliability(*class_probs(60)),
    "reliability, equal mass": lambda: plots.reliability(*class_probs(), bins="mass"),
    "interval coverage": lambda: plots.interval_coverage(pit()),
    **{
        f"entropy, {n} OOD sets": lambda n=n: plots.entropy_histograms(entropies(n), max_entropy=2.303)
        for n in (1, 2, 3, 4, 5)
    },
    "loss": lambda: plots.loss_curves(losses()),
    "loss, 40,000 steps": lambda: plots.loss_curves(losses(40_000)),
    "bands": lambda: draw_bands(truth=(np.linspace(-2, 2, 50), np.sin(np.linspace(-2, 2, 50)))),
    "bands, one method": lambda: plots.predictive_bands({"nuts": bands()["nuts"]}, *train_points()),
}


# --- laws of every figure


@pytest.mark.parametrize("name", FIGURES)
def test_no_text_is_clipped_or_overlaps_another(name):
    drawn = FIGURES[name]()
    figure = np.ravel(drawn)[0].get_figure()
    figure.canvas.draw()
    texts = visible_texts(figure)
    assert len(texts) > 5
    check_apart(figure, texts)


@pytest.mark.parametrize("name", FIGURES)
def test_figures_fit_a_page_and_leave_matplotlibs_settings_alone(name):
    figure = drawn_on_a_page(lambda: np.ravel(FIGURES[name]())[0].get_figure())
    shown = [ax for ax in figure.axes if ax.axison]
    # Ticks are made when the figure is drawn, outside the house settings: they keep their size all the same.
    assert {label.get_fontsize() for ax in shown for label in ax.get_xticklabels()} == {6.5}


def test_importing_the_package_chooses_no_backend():
    code = "import hmcvi.plots, matplotlib; print(matplotlib.get_backend(auto_select=False))"
    environment = {key: value for key, value in os.environ.items() if key != "MPLBACKEND"}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "None"


# --- style


def test_looks_are_the_same_in_every_figure_and_differ_within_one():
    found = plots.looks(["nuts", "svi", "bbb"])
    assert [plots.looks([label])[label] for label in found] == list(found.values())
    assert plots.looks(["BBB seed 1"])["BBB seed 1"] == found["bbb"]
    labels = ["nuts", "svi seed 0", "svi seed 1", "svi seed 2", "bbb-local", "bbb-shared", "laplace", "swag"]
    many = plots.looks(labels)
    assert list(many) == labels
    assert len({look.color for look in many.values()}) == len(labels)
    assert many["svi seed 0"] == found["svi"]
    # A longer word that begins like a method is another method.
    assert plots.looks(["svitlana"])["svitlana"].color not in {look.color for look in found.values()}


def test_method_colours_stay_apart_in_grey_print_or_by_line_and_marker():
    found = list(plots.looks(["nuts", "svi", "bbb", "laplace", "swag"]).values())
    assert len({str(look.linestyle) for look in found}) == len({look.marker for look in found}) == len(found)


# --- saving


def test_pale_colours_are_darkened_for_text_only():
    labels = [f"svi seed {seed}" for seed in range(5)]
    for label, look in plots.looks(labels).items():
        red, green, blue = colors.to_rgb(style.text_color(look.color))
        assert 0.2126 * red + 0.7152 * green + 0.0722 * blue <= 0.55, label
    plain = plots.looks(["svi"])["svi"].color
    assert style.text_color(plain) == plain.lower()


def test_axes_made_elsewhere_get_the_house_settings():
    _, ax = plt.subplots()
    plots.interval_coverage(pit(), ax=ax)
    assert not ax.spines["top"].get_visible()
    assert ax.xaxis.label.get_fontsize() == 7.5
    assert {label.get_fontsize() for label in ax.get_yticklabels()} == {6.5}


def test_save_writes_every_format_closes_and_is_the_same_twice(tmp_path):
    written = []
    for turn in ("first", "second"):
        ax = plots.interval_coverage(pit())
        written.append(plots.save(ax, tmp_path / turn / "coverage.v1"))
        assert not plt.get_fignums()
    assert [path.name for path in written[0]] == ["coverage.v1.png", "coverage.v1.svg"]
    for first, second in zip(*written, strict=True):
        assert first.read_bytes() == second.read_bytes()
    width = plt.imread(written[0][0]).shape[1]
    assert width == round(plots.COLUMN_WIDTH * 200)


@pytest.mark.parametrize(
    "as_given",
    [
        lambda ax: ax,
        lambda ax: ax.get_figure(),
        lambda ax: (ax, None),
        lambda ax: np.array([[ax]], dtype=object),
    ],
)
def test_save_takes_figures_and_axes(as_given, tmp_path):
    _, ax = plt.subplots()
    assert plots.save(as_given(ax), tmp_path / "a", ("png",)) == [tmp_path / "a.png"]


def test_a_failed_save_leaves_the_older_files_and_nothing_else(tmp_path, monkeypatch):
    for extension in ("png", "svg"):
        (tmp_path / f"a.{extension}").write_text("older")
    genuine = Figure.savefig

    def fail_at_svg(self, path, **kwargs):
        assert Path(path).name not in ("a.png", "a.svg")
        genuine(self, path, **kwargs)
        if kwargs["format"] == "svg":
            raise OSError("no space left on device")

    monkeypatch.setattr(Figure, "savefig", fail_at_svg)
    with pytest.raises(OSError, match="no space"):
        plots.save(plots.interval_coverage(pit()), tmp_path / "a")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "a.png": "older",
        "a.svg": "older",
    }
    assert not plt.get_fignums()


@pytest.mark.parametrize(
    ("stem", "formats", "said"),
    [
        ("coverage.png", ("png",), r"leave out the ending and pass formats=\('png',\)"),
        ("coverage", ("png", "holiday"), r"formats has 'holiday', which matplotlib cannot write: give any of .*svg"),
    ],
)
def test_save_says_what_is_no_stem_and_no_format(tmp_path, stem, formats, said):
    with pytest.raises(ValueError, match=said):
        plots.save(plots.interval_coverage(pit()), tmp_path / stem, formats)
    assert list(tmp_path.iterdir()) == []
    plt.close("all")


def test_save_says_what_it_cannot_save(tmp_path):
    with pytest.raises(TypeError, match="figure is a dict but should be"):
        plots.save({}, tmp_path / "a")
    with pytest.raises(ValueError, match="pass a sequence of extensions"):
        plots.save(Figure(), tmp_path / "a", "png")


# --- inputs that do not fit


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: plots.reliability({"nuts": np.ones(3)}, np.zeros(3, int)),
            r"probs\['nuts'\] has shape \(3,\)",
        ),
        (lambda: plots.reliability({"nuts": np.eye(3)}, np.zeros(4, int)), r"3 rows but y has 4"),
        (lambda: plots.reliability({}, np.zeros(4, int)), "probs is empty"),
        (lambda: plots.interval_coverage({"nuts": np.ones((3, 2))}), r"pit\['nuts'\] has shape \(3, 2\)"),
        (lambda: plots.interval_coverage({"nuts": np.array([0.2, 1.3])}), r"from 0.2 to 1.3 but"),
        (lambda: plots.interval_coverage({"nuts": np.array([0.2, np.nan])}), "1 of 2 values NaN or infinite"),
        (lambda: plots.entropy_histograms({"nuts": {"test": np.ones(3)}}), "add an OOD set"),
        (lambda: plots.entropy_histograms({"nuts": {"noise": np.ones(3)}}), "no in-distribution set 'test'"),
        (
            lambda: plots.entropy_histograms({"nuts": {"test": np.ones(3), "noise": np.ones((3, 2))}}),
            r"\['noise'\] has shape \(3, 2\)",
        ),
        (
            lambda: plots.entropy_histograms(
                {"nuts": {"test": np.ones(3), "a": np.ones(3)}, "svi": {"test": np.ones(3), "b": np.ones(3)}}
            ),
            "the same sets",
        ),
        (
            lambda: plots.entropy_histograms(entropies(2), axes=plt.subplots(1, 2)[1]),
            r"axes has shape \(2,\) but should be \(3, 2\)",
        ),
        (lambda: plots.loss_curves({"svi": np.ones((3, 2))}), r"losses\['svi'\] has shape \(3, 2\)"),
        (lambda: plots.loss_curves({"svi": np.ones(3)}, smooth=0), "smooth is 0"),
        (lambda: plots.Band(np.ones(3), np.ones(2), np.ones(3), np.ones(3)), "mean has 2 rows but x has 3"),
        (lambda: plots.Band(np.ones(2), np.ones(2), -np.ones(2), np.ones(2)), "epistemic_sd reaches -1"),
        (lambda: plots.Band(np.array([1, 0]), np.ones(2), np.ones(2), np.ones(2)), "sort the rows"),
        (lambda: plots.predictive_bands(bands(), np.ones((3, 1)), np.ones(3)), r"x_train\[:, 0\]"),
        (
            lambda: plots.predictive_bands(bands(), np.ones(3), np.ones(4)),
            "x_train has 3 rows but y_train has 4",
        ),
        (lambda: draw_bands(axes=plt.subplots(1, 2)[1]), "axes has 2 panels"),
    ],
)
def test_inputs_that_do_not_fit_are_named_in_one_sentence(call, message):
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "draw",
    [plots.reliability, plots.interval_coverage, plots.entropy_histograms, plots.loss_curves],
)
def test_an_array_in_place_of_a_mapping_is_a_type_error(draw):
    with pytest.raises(TypeError):
        draw(np.ones((3, 2)), *([np.zeros(3, int)] if draw is plots.reliability else []))
