"""Predictions input by input: the class probabilities of chosen rows, and the inputs a method is surest of."""

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike

from hmcvi.inference.score_base import check_at_least, check_same_rows, checked_probs

from . import style
from ._arrays import checked_mapping
from ._images import scaled_images, show_image
from ._panels import legend_above
from ._score_panels import inches

__all__ = ["certain_inputs", "class_probabilities"]

_CHARACTER = 0.05  # inches of a character at the size of ticks and labels
_GAP = 0.3  # between the most and the least certain inputs, in widths of an input
_DODGED = 0.76  # the share of a class's width that its methods fill
# Line widths of the intervals, in points.
_THICK, _THIN = 2.0, 0.7


@style.styled
def class_probabilities(
    probs: Mapping[str, ArrayLike],
    *,
    images: ArrayLike | None = None,
    labels: Sequence[str] = (),
    class_names: Sequence[str] = (),
    axes: np.ndarray | Axes | None = None,
) -> np.ndarray:
    """Draw the class probabilities of chosen rows with their spread over draws, all methods side by side.

    One line a row: its image at the left, where images are given, then for each class and method the mean over draws,
    which is what the method predicts, with the central 50 % (thick) and 95 % (thin) of the draws. The spread is
    what the draws disagree on; a method of a single draw has none.

    Args:
        probs: for each method the class probabilities of each draw (draw, row, class); methods may differ in draws.
        images: inputs (row, height, width, channel), uint8 or floats from 0 to 1; a channel axis may be missing.
        labels: one line for each row, such as its class and what was predicted.
        class_names: what the classes are called; their numbers, from 0, when empty.
        axes: where to draw, an array (row, 2) with images and (row, 1) without; a figure is made when None.

    Returns:
        The axes (row, 2) or (row, 1).

    Raises:
        TypeError: ``probs`` is not a mapping.
        ValueError: an array has the wrong shape, methods differ in rows or classes, probabilities are no distribution,
            or ``images``, ``labels``, ``class_names`` or ``axes`` do not go with them.

    Example:
        >>> probs = {"nuts": [[[0.9, 0.1]], [[0.6, 0.4]]], "map": [[[0.8, 0.2]]]}
        >>> axes = class_probabilities(probs, labels=["cat, predicted cat"], class_names=["cat", "dog"])
        >>> axes.shape, axes[0, 0].get_title(loc="left")
        ((1, 1), 'cat, predicted cat')
    """
    arrays = _checked_draws(probs)
    _, num_rows, num_classes = next(iter(arrays.values())).shape
    shown = None if images is None else scaled_images(images)
    if shown is not None:
        check_same_rows("images", len(shown), "probs", num_rows)
    for name, given, count, what in (
        ("labels", labels, num_rows, "rows"),
        ("class_names", class_names, num_classes, "classes"),
    ):
        if len(given) not in (0, count):
            raise ValueError(f"{name} has {len(given)} entries for {count} {what}: give one for each, or none")
    found = style.looks(arrays)
    shape = (num_rows, 1 if shown is None else 2)
    own_figure = axes is None
    if own_figure:
        # Inches: 0.1 a method and as much between classes; image, ticks and label beside them.
        panel = num_classes * (0.1 * len(arrays) + 0.1)
        width = float(np.clip(0.6 + 1.1 * (shape[1] - 1) + panel, style.COLUMN_WIDTH, style.PAGE_WIDTH))
        ratios = [1.0] if shown is None else [1.0, width - 1.6]
        axes = style.new_axes(*shape, size=(width, 0.7 + 1.15 * num_rows), width_ratios=ratios)
    grid = _grid(axes, shape)

    names = list(class_names) or [str(number) for number in range(num_classes)]
    for row, of_row in enumerate(grid):
        if shown is not None:
            show_image(of_row[0], shown[row])
        _draw_probabilities(of_row[-1], {method: array[:, row] for method, array in arrays.items()}, found)
        if labels:
            of_row[-1].set_title(labels[row], loc="left", fontsize=6.5, pad=3)
    style.settle(grid[:, -1])
    for ax in grid[:, -1]:
        ax.grid(False, axis="x")
        ax.tick_params(axis="x", length=0)
        _name_classes(ax, names)
        ax.set_ylabel("probability")
    grid[-1, -1].set_xlabel("class")
    handles: list[Artist] = [
        Line2D([], [], color=look.color, linewidth=_THIN, marker=look.marker, label=method)
        for method, look in found.items()
    ]
    for linewidth, label in ((_THICK, "50 % of draws"), (_THIN, "95 % of draws")):
        handles.append(Line2D([], [], color=style.GREY, linewidth=linewidth, label=label))
    if own_figure:
        style.shared_legend(grid, handles, own_figure=True)
    else:
        legend_above(grid[0, -1], handles, least_columns=2, side="right")
    return grid


@style.styled
def certain_inputs(
    images: ArrayLike,
    uncertainties: Mapping[str, ArrayLike],
    *,
    labels: Sequence[str] = (),
    num_inputs: int = 6,
    xlabel: str = "entropy (nats)",
    axes: np.ndarray | Axes | None = None,
) -> np.ndarray:
    """Show the inputs that each method is surest of and those it is least sure of, with its uncertainty below each.

    One row a method, uncertainty rising from left to right. Of inputs of equal uncertainty the earlier rows come first.
    Where there are fewer than twice ``num_inputs`` inputs, some are shown on both sides.

    Args:
        images: inputs (row, height, width, channel), uint8 or floats from 0 to 1; a channel axis may be missing.
        uncertainties: for each method one score a row (row,).
        labels: for each row what to write below its uncertainty, such as its class; nothing when empty.
        num_inputs: how many inputs are shown on either side.
        xlabel: what the uncertainty is, with its unit.
        axes: where to draw, an array (method, 2 * num_inputs); a figure a page wide is made when None.

    Returns:
        The axes (method, 2 * num_inputs).

    Raises:
        TypeError: ``uncertainties`` is not a mapping.
        ValueError: an array has the wrong shape or a value that is not finite, the rows of images, uncertainties or
            labels differ, there are fewer than ``num_inputs`` inputs, or ``axes`` has the wrong shape.

    Example:
        >>> axes = certain_inputs(np.zeros((4, 8, 8)), {"nuts": [0.3, 0.1, 0.2, 0.4]}, num_inputs=2)
        >>> [ax.get_xlabel() for ax in axes[0]]
        ['0.100', '0.200', '0.300', '0.400']
    """
    shown = scaled_images(images)
    arrays = checked_mapping("uncertainties", uncertainties, "row")
    for method, values in arrays.items():
        check_same_rows(f"uncertainties[{method!r}]", len(values), "images", len(shown))
    if len(labels) not in (0, len(shown)):
        raise ValueError(f"labels has {len(labels)} entries for {len(shown)} images: give one for each, or none")
    check_at_least("num_inputs", num_inputs, 1)
    if num_inputs > len(shown):
        raise ValueError(f"num_inputs is {num_inputs} but there are {len(shown)} images: pass num_inputs={len(shown)}")
    shape = (len(arrays), 2 * num_inputs)
    order = {method: np.argsort(values, kind="stable") for method, values in arrays.items()}
    chosen = {method: [*rows[:num_inputs], *rows[-num_inputs:]] for method, rows in order.items()}
    own_figure = axes is None
    if own_figure:
        width = float(np.clip(0.4 + 0.75 * (shape[1] + _GAP), style.COLUMN_WIDTH, style.PAGE_WIDTH))
        side = (width - 0.4) / (shape[1] + _GAP)
    else:
        grid = _grid(axes, shape)
        side = inches(grid[0, 0])[0]
    below = {
        row: textwrap.wrap(labels[row], max(3, int(side / _CHARACTER))) if labels else []
        for rows in chosen.values()
        for row in rows
    }
    if own_figure:
        # Inches: an image, a little narrower than its place, its uncertainty and what is below it, and the gap.
        height = 0.88 * side + 0.16 + 0.12 * max(map(len, below.values()))
        grid = _pages_of_two(num_inputs, size=(width, 0.55 + len(arrays) * height), num_rows=len(arrays))

    for (method, look), of_method in zip(style.looks(arrays).items(), grid, strict=True):
        for row, ax in zip(chosen[method], of_method, strict=True):
            show_image(ax, shown[row])
            value = f"{arrays[method][row] + 0.0:#.3g}".rstrip(".").replace("-", "\N{MINUS SIGN}")
            ax.set_xlabel("\n".join([value, *below[row]]), fontsize=6.2, labelpad=2)
        of_method[0].set_ylabel(method, color=style.text_color(look.color), fontweight="bold", fontsize=7.5)
    measure = "" if own_figure else f",\n{xlabel} below"
    for first, heading in ((0, "most certain"), (num_inputs, "least certain")):
        grid[0, first].set_title(heading + measure, loc="left", pad=3)
    if own_figure:
        grid[0, 0].get_figure().supxlabel(f"below each input: {xlabel}", fontsize=7.5)
    return grid


def _pages_of_two(num_inputs: int, *, size: tuple[float, float], num_rows: int) -> np.ndarray:
    """Make a figure of axes (num_rows, 2 * num_inputs) with a gap in the middle."""
    ratios = [1.0] * num_inputs + [_GAP] + [1.0] * num_inputs
    axes = style.new_axes(num_rows, len(ratios), size=size, width_ratios=ratios)
    for ax in axes[:, num_inputs]:
        ax.set_visible(False)
    return np.delete(axes, num_inputs, axis=1)


def _checked_draws(probs: Mapping[str, ArrayLike]) -> dict[str, np.ndarray]:
    """Check that every method has a distribution for each draw and row, of the same rows and classes."""
    arrays = checked_mapping("probs", probs, "draw", "row", "class")
    first, wanted = next((method, array.shape[1:]) for method, array in arrays.items())
    for method, array in arrays.items():
        if array.shape[1:] != wanted:
            raise ValueError(
                f"probs[{method!r}] has {array.shape[1]} rows and {array.shape[2]} classes but probs[{first!r}] has"
                f" {wanted[0]} and {wanted[1]}: pass the same rows and classes of every method"
            )
        for draw in array:
            checked_probs(draw)
    return arrays


def _grid(axes: np.ndarray | Axes | None, shape: tuple[int, int]) -> np.ndarray:
    """Return axes in a shape, which their number must fill."""
    array = np.asarray(axes, dtype=object)
    if array.size != shape[0] * shape[1]:
        raise ValueError(f"axes has shape {array.shape} but should be {shape}: pass one for each panel")
    return array.reshape(shape)


def _draw_probabilities(ax: Axes, draws: Mapping[str, np.ndarray], found: Mapping[str, style.Look]) -> None:
    """Draw one row of every method, (draw, class) each: means with their intervals, dodged side by side."""
    num_classes = next(iter(draws.values())).shape[1]
    for number in range(0, num_classes, 2):
        ax.axvspan(number - 0.5, number + 0.5, color="#f6f6f6", zorder=0, linewidth=0)
    offsets = _DODGED * ((np.arange(len(draws)) + 0.5) / len(draws) - 0.5)
    for (method, look), offset in zip(found.items(), offsets, strict=True):
        place = np.arange(num_classes) + offset
        for levels, linewidth in (((0.025, 0.975), _THIN), ((0.25, 0.75), _THICK)):
            ax.vlines(place, *np.quantile(draws[method], levels, axis=0), color=look.color, linewidth=linewidth)
        # At 0 and 1 markers are drawn whole.
        mean = draws[method].mean(axis=0)
        ax.plot(place, mean, look.marker, color=look.color, markersize=3, markeredgewidth=0, clip_on=False, zorder=3)
    ax.set(xlim=(-0.5, num_classes - 0.5), ylim=(0, 1), yticks=[0, 0.5, 1])
    ax.set_yticklabels(["0", "0.5", "1"])


def _name_classes(ax: Axes, names: Sequence[str]) -> None:
    """Write the name of each class below it, slanted where they would meet."""
    ax.set_xticks(range(len(names)), names)
    if max(map(len, names)) * _CHARACTER > inches(ax)[0] / len(names):
        ax.tick_params(axis="x", labelrotation=30, pad=1)
        for label in ax.get_xticklabels():
            label.set(horizontalalignment="right", rotation_mode="anchor")
