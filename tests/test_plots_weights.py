"""Figures of single weights, of pixels and of gradients show the numbers they are given, whole and legible."""

import numpy as np
import pytest
from matplotlib import colors
from matplotlib import pyplot as plt
from matplotlib.collections import LineCollection

import hmcvi.plots as plots
from hmcvi.plots import style

from .drawn_text import check_apart, drawn_on_a_page, visible_texts

METHODS = ("nuts", "svi", "bbb-local")
LAYERS = ("hidden_0", "hidden_1", "hidden_2", "out")


@pytest.fixture(autouse=True)
def _no_figures_left():
    yield
    plt.close("all")


# --- what a benchmark would draw


def weights(layers=LAYERS, methods=METHODS, size=2000):
    """Normals whose scale differs by method and by layer; none is exactly 0."""
    random = np.random.default_rng(0)
    return {m: {layer: 0.1 * (i + 1) * random.normal(size=size) for layer in layers} for i, m in enumerate(methods)}


def pruned(share=0.75, size=2000):
    """One method with this share of its weights at exactly 0, beside one that has none."""
    random = np.random.default_rng(1)
    kept = random.normal(size=size)
    removed = kept.copy()
    removed[: round(share * size)] = 0
    return {"bbb": {"out": kept}, "bbb, pruned": {"out": removed}}


def ratios(layers=LAYERS, methods=METHODS, size=500):
    random = np.random.default_rng(2)
    return {m: {layer: random.lognormal(i, 1.5, size=size) for layer in layers} for i, m in enumerate(methods)}


def pixels(rows=3, channels=1, height=8, width=6):
    """Images of uint8 with a mean gradient and its sd."""
    random = np.random.default_rng(3)
    shape = (rows, height, width, channels)
    return random.integers(256, size=shape, dtype=np.uint8), random.normal(size=shape), random.uniform(0.1, 2, shape)


def variances():
    sizes = np.array([1, 4, 16, 64, 256, 1024])
    random = np.random.default_rng(4)
    found = {}
    for name, floor in (("shared", 2.0), ("local", 0.0), ("flipout", 0.0)):
        value = (40 / sizes + floor) * random.uniform(0.9, 1.1, len(sizes))
        found[name] = {"batch_size": sizes, "value": value, "standard_error": 0.1 * value}
    return found


LABELS = ["3, predicted\n3 at 0.99", "cat, predicted\ndog at 0.51", "a"]

FIGURES = {
    "weights": lambda: plots.weight_histograms(weights()),
    "weights, pruned": lambda: plots.weight_histograms(pruned()),
    "weights, one layer of five methods": lambda: plots.weight_histograms(
        weights(("out",), (*METHODS, "map", "ensemble"))
    ),
    "signal to noise": lambda: plots.signal_to_noise(ratios()),
    "signal to noise, one layer": lambda: plots.signal_to_noise(ratios(("out",), ("bbb",))),
    "importance": lambda: plots.feature_importance(*pixels(), labels=LABELS),
    "importance, colour": lambda: plots.feature_importance(*pixels(channels=3)),
    "variance": lambda: plots.gradient_variance(variances()),
}


@pytest.mark.parametrize("name", FIGURES)
def test_no_text_is_clipped_or_overlaps_another(name):
    figure = drawn_on_a_page(lambda: np.ravel(FIGURES[name]())[0].get_figure())
    texts = visible_texts(figure)
    for ax in figure.axes:  # a colour bar has its numbers on the right
        low, high = sorted(ax.yaxis.get_view_interval())
        right = [tick.label2 for tick in ax.yaxis.get_major_ticks() if low <= tick.get_loc() <= high]
        texts += [(label.get_text(), label.get_window_extent()) for label in right if label.get_visible()]
    assert len(texts) > 5
    check_apart(figure, texts)


# --- densities of weights


def test_lines_are_the_densities_of_the_weights():
    given = weights()
    axes = plots.weight_histograms(given)
    assert [ax.get_title() for ax in axes.flat if ax.get_visible()] == list(LAYERS)
    assert [ax.get_visible() for ax in axes.flat] == [True] * 4  # two rows of two, and not of three and one
    for layer, ax in zip(LAYERS, axes.flat, strict=False):
        assert ax.get_yscale() == "log"
        assert not ax.texts  # nothing is exactly 0, so nothing is said of it
        # The axis holds 99.8 % of the weights of the widest method.
        reach = max(np.quantile(np.abs(given[method][layer]), 0.998) for method in METHODS)
        np.testing.assert_allclose(ax.get_xlim(), (-reach, reach))
        assert len(ax.lines) == len(METHODS)
        for method, line in zip(METHODS, ax.lines, strict=True):
            x, density = line.get_data()
            width = np.diff(x)
            np.testing.assert_allclose(width, width[0])
            edges = np.append(x - width[0] / 2, x[-1] + width[0] / 2)
            np.testing.assert_allclose(edges[[0, -1]], (-reach, reach))
            values = given[method][layer]
            wanted = np.histogram(values, edges)[0] / (len(values) * width[0])
            np.testing.assert_allclose(np.nan_to_num(density), wanted)
            assert not (density == 0).any()  # an empty bin is a gap: 0 has no place on a log axis
            assert line.get_color() == plots.looks(METHODS)[method].color
            # The area is the share of the weights inside the axis: 99.8 % of the widest method, all of a narrow one.
            assert np.nansum(density) * width[0] == pytest.approx((np.abs(values) <= reach).mean())


def test_what_was_pruned_is_a_share_and_no_density():
    (ax,) = plots.weight_histograms(pruned(0.75)).flat
    (text,) = ax.texts  # the method that has no zeros has no note
    assert text.get_text() == "bbb, pruned: 75 % are 0"
    look = plots.looks(["bbb", "bbb, pruned"])["bbb, pruned"]
    assert colors.to_hex(text.get_color()) == style.text_color(look.color)
    whole, left = (line.get_ydata() for line in ax.lines)
    width = np.diff(ax.lines[1].get_xdata())[0]
    # Densities are of all weights: what is left of them has an area of a quarter, and no peak at 0.
    assert np.nansum(left) * width == pytest.approx(0.25, abs=0.005)
    assert np.nansum(whole) * width == pytest.approx(1, abs=0.005)
    assert np.nanmax(left) < np.nanmax(whole)


def test_a_layer_without_any_weight_left_is_drawn_empty():
    (ax,) = plots.weight_histograms({"bbb": {"out": np.zeros(10)}}).flat
    assert [text.get_text() for text in ax.texts] == ["bbb: 100 % are 0"]
    assert np.isnan(ax.lines[0].get_ydata()).all()
    ax.get_figure().canvas.draw()  # a log axis without any value warns of it, and warnings are errors here
    assert ax.get_xlim() == (-1, 1)


# --- signal-to-noise


def test_lines_are_shares_of_weights_below_each_decibel():
    # 20 dB is a mean a hundred times its standard deviation, 0 dB one as large as it.
    axes = plots.signal_to_noise({"bbb": {"out": [0.1, 1.0, 10.0, 100.0]}})
    (ax,) = axes.flat
    grey, line = ax.lines
    np.testing.assert_array_equal(grey.get_xdata(), [0, 0])
    assert grey.get_color() == style.GREY
    decibels, share = line.get_data()
    assert (decibels[0], decibels[-1]) == pytest.approx((-30, 20))
    wanted = np.select([decibels < -10, decibels < 0, decibels < 10, decibels < 20], [0, 0.25, 0.5, 0.75], 1)
    # The steps stand at decibels that rounding may move to either side of a point of the grid.
    at_steps = np.isclose(decibels[:, None], [-10, 0, 10]).any(1)
    np.testing.assert_array_equal(share[~at_steps], wanted[~at_steps])
    assert share[-1] == 1
    assert axes[0, 0].get_figure().get_supxlabel() == "signal-to-noise |μ| / σ (dB)"


def test_every_layer_and_method_has_its_cumulative_shares():
    given = ratios()
    axes = plots.signal_to_noise(given)
    for layer, ax in zip(LAYERS, axes.flat, strict=False):
        assert ax.get_title() == layer
        _, *lines = ax.lines
        for method, line in zip(METHODS, lines, strict=True):
            decibels, share = line.get_data()
            wanted = (10 * np.log10(given[method][layer]) <= decibels[:, None]).mean(1)
            np.testing.assert_allclose(share, wanted)
            assert line.get_color() == plots.looks(METHODS)[method].color
            assert ax.get_xlim() == pytest.approx((decibels[0], decibels[-1]))


def test_what_was_pruned_is_the_height_at_the_left_end():
    (ax,) = plots.signal_to_noise({"bbb": {"out": [0, 0, 0, 1e-9, 2.0]}}).flat
    assert ax.lines[1].get_ydata()[0] == pytest.approx(0.8)  # −∞ and −90 dB alike
    (ax,) = plots.signal_to_noise({"bbb": {"out": np.zeros(3)}}).flat
    np.testing.assert_array_equal(ax.lines[1].get_ydata(), 1)


# --- both of them: panels, legend


@pytest.mark.parametrize("draw", [plots.weight_histograms, plots.signal_to_noise])
def test_one_legend_names_the_methods(draw):
    given = ratios()
    axes = draw(given)
    figure = axes.flat[0].get_figure()
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == list(METHODS)
    assert [handle.get_color() for handle in legend.get_lines()] == [look.color for look in plots.looks(given).values()]
    assert not any(ax.get_legend() for ax in axes.flat)
    assert figure.get_supylabel() in ("density", "share of weights below")


@pytest.mark.parametrize("draw", [plots.weight_histograms, plots.signal_to_noise])
def test_they_draw_into_the_axes_given(draw):
    given = ratios(("hidden_0", "out"))
    _, panels = plt.subplots(1, 3)
    axes = draw(given, axes=panels)
    assert list(axes.flat) == list(panels)
    assert [ax.get_title() for ax in panels] == ["hidden_0", "out", ""]
    assert [ax.get_legend() is not None for ax in panels] == [True, False, False]
    assert not panels[0].get_figure().legends
    assert panels[0].get_ylabel() in ("density", "share of weights below")
    _, ax = plt.subplots()
    assert draw(ratios(("out",)), axes=ax).flat[0] is ax


# --- importance


def pictures(axes):
    """The four images of each row, without the colour bars: (row, 4)."""
    return [[ax.images[0] for ax in row] for row in axes]


def test_images_gradients_and_their_ratio_are_drawn_as_given():
    images, mean, sd = pixels()
    axes = plots.feature_importance(images, mean, sd, labels=LABELS)
    assert axes.shape == (3, 4)
    assert [ax.get_title() for ax in axes[0]] == ["input", "mean gradient", "sd over draws", "mean / sd"]
    assert [ax.get_ylabel() for ax in axes[:, 0]] == LABELS
    for row, (image, of_mean, of_sd, ratio) in enumerate(pictures(axes)):
        np.testing.assert_allclose(image.get_array(), images[row, ..., 0] / 255)
        np.testing.assert_array_equal(of_mean.get_array(), mean[row, ..., 0])
        np.testing.assert_array_equal(of_sd.get_array(), sd[row, ..., 0])
        np.testing.assert_allclose(ratio.get_array(), (mean / sd)[row, ..., 0])
        assert image.get_clim() == (0, 1)  # the same brightness is the same grey in every row
        # Mean and sd of an image share one range, symmetric for the mean, so that 0 is the middle colour.
        reach = max(np.abs(mean[row]).max(), sd[row].max())
        assert of_mean.get_clim() == (-reach, reach)
        assert of_sd.get_clim() == (0, reach)
        assert ratio.get_clim() == (-3, 3)
    # Orange raises the prediction and purple lowers it.
    for value, warm in ((1.0, True), (-1.0, False)):
        red, _, blue, _ = pictures(axes)[0][1].cmap((value + 1) / 2)
        assert bool(red > blue) == warm


def test_gradients_of_colour_images_are_summed_over_channels():
    images, mean, sd = pixels(rows=2, channels=3)
    for row, (image, of_mean, of_sd, ratio) in enumerate(pictures(plots.feature_importance(images, mean, sd))):
        np.testing.assert_allclose(image.get_array(), images[row] / 255)
        np.testing.assert_allclose(of_mean.get_array(), mean[row].sum(-1))
        root = np.sqrt((sd[row] ** 2).sum(-1))
        np.testing.assert_allclose(of_sd.get_array(), root)
        np.testing.assert_allclose(ratio.get_array(), mean[row].sum(-1) / root)


def test_pixels_without_any_gradient_have_no_ratio():
    """Where the draws agree exactly, as on a border that no weight sees, mean / sd is drawn as 0 and not as 0 / 0."""
    images, mean, sd = pixels(rows=2)
    mean[0, :2], sd[0, :2] = 0, 0
    mean[1], sd[1] = 0, 0
    first, second = pictures(plots.feature_importance(images, mean, sd))
    np.testing.assert_array_equal(first[3].get_array()[:2], 0)
    assert np.isfinite(first[3].get_array()).all()
    # An image without any gradient at all still has a range.
    assert second[1].get_clim() == (-1, 1)
    assert second[2].get_clim() == (0, 1)


def test_brightness_is_that_of_the_dtype_and_the_channel_axis_may_be_missing():
    images, mean, sd = (array[..., 0] for array in pixels(rows=1))
    for given, wanted in (
        (images, images / 255),
        (images / 255, images / 255),
        (images // 2 / 127.5, images // 2 / 127.5),
    ):
        ((image, of_mean, *_),) = pictures(plots.feature_importance(given, mean, sd))
        np.testing.assert_allclose(image.get_array(), wanted[0])
        np.testing.assert_array_equal(of_mean.get_array(), mean[0])


def test_importance_draws_into_the_axes_given():
    _, given = plt.subplots(3, 4)
    assert (plots.feature_importance(*pixels(), axes=given) == given).all()
    assert all(len(ax.images) == 1 for ax in given.flat)
    _, flat = plt.subplots(1, 4)
    assert plots.feature_importance(*pixels(rows=1), axes=flat).shape == (1, 4)


# --- gradients


def test_variances_stand_at_their_batch_sizes_with_bars_of_one_error():
    given = variances()
    ax = plots.gradient_variance(given)
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    assert [container.get_label() for container in ax.containers] == list(given)
    bars = [np.array(c.get_segments()) for c in ax.collections if isinstance(c, LineCollection)]
    for (name, curve), container, ends in zip(given.items(), ax.containers, bars, strict=True):
        line = container.lines[0]
        np.testing.assert_array_equal(line.get_xydata(), np.stack([curve["batch_size"], curve["value"]], axis=1))
        np.testing.assert_allclose(ends[:, 0, 1], curve["value"] - curve["standard_error"])
        np.testing.assert_allclose(ends[:, 1, 1], curve["value"] + curve["standard_error"])
        assert line.get_color() == plots.looks(given)[name].color
    ticks = [label.get_text() for label in ax.get_xticklabels()]
    assert ticks == ["1", "4", "16", "64", "256", "1024"]
    assert ax.get_xlabel() == "batch size (rows)"


def test_the_grey_line_falls_as_one_over_the_batch_size_from_the_mean_of_the_curves():
    given = variances()
    ax = plots.gradient_variance(given)
    (grey,) = [line for line in ax.lines if line.get_label() == "1 / batch size"]
    sizes, value = grey.get_data()
    np.testing.assert_allclose(value * sizes, np.mean([curve["value"][0] for curve in given.values()]))
    np.testing.assert_array_equal(sizes, given["flipout"]["batch_size"])
    legend = ax.get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["1 / batch size", *given]
    assert not ax.get_figure().legends


def test_a_bar_longer_than_its_variance_stays_on_the_log_axis():
    curve = {"batch_size": [1, 10], "value": [1.0, 0.1], "standard_error": [0.1, 5.0]}
    ax = plots.gradient_variance({"flipout": curve})
    (bars,) = [np.array(c.get_segments()) for c in ax.collections if isinstance(c, LineCollection)]
    assert 0 < bars[1, 0, 1] < 0.001
    assert bars[1, 1, 1] == pytest.approx(5.1)


def test_gradient_variance_draws_into_the_axes_given():
    _, ax = plt.subplots()
    assert plots.gradient_variance(variances(), ax=ax) is ax
    assert not ax.spines["top"].get_visible()


# --- losses


def test_the_quantity_names_the_axis_of_losses():
    assert plots.loss_curves({"svi": [2.0, 1.0]}).get_ylabel() == "negative ELBO (nats)"
    ax = plots.loss_curves({"map": [2.0, 1.0]}, quantity="negative log joint")
    assert ax.get_ylabel() == "negative log joint (nats)"


# --- inputs that do not fit

IMAGES, MEAN, SD = pixels()
CURVE = variances()["flipout"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: plots.weight_histograms({"bbb": {"a": [1.0]}, "svi": {"b": [1.0]}}),
            r"weights\['svi'\] has the layers \['b'\] and weights\['bbb'\] has \['a'\]: give every method the same",
        ),
        (lambda: plots.weight_histograms({"bbb": {}}), r"weights\['bbb'\] is empty"),
        (lambda: plots.weight_histograms({"bbb": {"a": []}}), r"weights\['bbb'\]\['a'\] has"),
        (lambda: plots.weight_histograms({"bbb": {"a": [[1.0]]}}), r"weights\['bbb'\]\['a'\] has shape \(1, 1\)"),
        (lambda: plots.weight_histograms({"bbb": {"a": [1.0, np.nan]}}), r"\['a'\] has 1 of 2 values NaN"),
        (
            lambda: plots.weight_histograms(weights(("a", "b")), axes=plt.subplots()[1]),
            "axes has 1 panels and there are 2 layers: pass one for each",
        ),
        (
            lambda: plots.signal_to_noise({"bbb": {"a": [1.0, -0.5]}}),
            r"ratios\['bbb'\]\['a'\] goes down to -0.5: \|μ\| / σ is at least 0",
        ),
        (lambda: plots.signal_to_noise({"bbb": {"a": [1.0, np.inf]}}), r"\['a'\] has 1 of 2 values NaN or infinite"),
        (
            lambda: plots.feature_importance(IMAGES, MEAN, SD[:2]),
            r"images, mean and sd have the shapes \(3, 8, 6, 1\), \(3, 8, 6, 1\) and \(2, 8, 6, 1\): wanted one shape",
        ),
        (lambda: plots.feature_importance(*(a[0, ..., 0] for a in (IMAGES, MEAN, SD))), "wanted one shape"),
        (
            lambda: plots.feature_importance(IMAGES, MEAN, SD, labels=["a"]),
            "labels has 1 entries for 3 images: give one for each, or none",
        ),
        (
            lambda: plots.feature_importance(IMAGES, MEAN, SD, axes=plt.subplots(1, 4)[1]),
            r"axes has shape \(4,\) but should be \(3, 4\)",
        ),
        (lambda: plots.gradient_variance({}), "curves is empty: pass a mapping from estimator to its arrays"),
        (
            lambda: plots.gradient_variance({"flipout": {"batch_size": [1], "value": [1.0]}}),
            r"curves\['flipout'\] has no 'standard_error': give batch_size, value, standard_error",
        ),
        (
            lambda: plots.gradient_variance({"flipout": CURVE | {"value": np.array([1, 1, 0, 1, 1, 1])}}),
            r"curves\['flipout'\] holds a variance of 0: a log axis takes those above 0",
        ),
        (
            lambda: plots.gradient_variance({"flipout": CURVE | {"standard_error": np.full(6, np.nan)}}),
            r"curves\['flipout'\]\['standard_error'\] has 6 of 6 values NaN",
        ),
    ],
)
def test_inputs_that_do_not_fit_are_named_in_one_sentence(call, message):
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("draw", [plots.weight_histograms, plots.signal_to_noise])
@pytest.mark.parametrize("given", [np.ones(3), {"bbb": np.ones(3)}, {}])
def test_an_array_in_place_of_a_mapping_is_a_type_error(draw, given):
    with pytest.raises(TypeError, match="map"):
        draw(given)
