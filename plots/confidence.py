"""How sure is a classifier where it is right, and where it is wrong."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from numpy.typing import ArrayLike

from hmcvi.inference import scores
from hmcvi.inference.score_base import check_at_least, check_same_rows

from . import style
from ._arrays import checked_mapping
from ._panels import legend_above, panels, written
from ._score_panels import inches

__all__ = ["confidence_histograms"]

# Where the logarithmic axis begins, below one row, so that a bin with one row has height.
_FLOOR = 0.5
# Inches of a panel's height that are kept for its words: three lines.
_HEAD = 0.46
_WRONG: dict[str, Any] = {
    "facecolor": "none",
    "edgecolor": style.INK,
    "linewidth": 0.7,
    "hatch": "//////",
    "hatch_linewidth": 0.4,
}
_MARKS: dict[str, Any] = {"accuracy": "-", "confidence": (0, (2, 1.2))}


@style.styled
def confidence_histograms(
    probs: Mapping[str, ArrayLike],
    y: ArrayLike,
    *,
    num_bins: int = 20,
    axes: np.ndarray | Axes | None = None,
) -> np.ndarray:
    """Draw how many rows each method predicts right, and how many wrong, at each confidence, one panel a method.

    Confidence is the largest class probability. Rows that are predicted right are filled in the method's colour, rows
    predicted wrong are hatched; both are counted from the bottom, on a logarithmic scale, on which a few wrong ones
    show beside many right ones. A good classifier has its hatched bars on the left. Lines stand at the accuracy and
    at the mean confidence, in bands of ±1 standard error: a mean confidence to the right of the accuracy is
    overconfident.

    Args:
        probs: for each method the predictive class probabilities (row, class).
        y: the labels (row,), integers from 0.
        num_bins: the number of bins of equal width from 0 to 1, both included. The axis begins with the bin that
            holds 1 / classes, the least confidence there is.
        axes: where to draw, as many as there are methods; a figure of at most four a row is made when None.

    Returns:
        The axes (row, column) of the panels; those without a method are hidden.

    Raises:
        TypeError: ``probs`` is not a mapping.
        ValueError: an array has the wrong shape, a row of ``probs`` is no distribution, labels are out of range,
            ``num_bins`` is below 1, or ``axes`` has too few panels.

    Example:
        >>> axes = confidence_histograms({"nuts": [[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]]}, [0, 1, 1], num_bins=5)
        >>> print(axes[0, 0].texts[0].get_text())
        2 right, 1 wrong
        accuracy 0.667 ± 0.333
        confidence 0.767 ± 0.088

    Source: Hendrycks and Gimpel (2017), "A baseline for detecting misclassified and out-of-distribution examples in
    neural networks".
    """
    arrays = checked_mapping("probs", probs, "row", "class")
    check_at_least("num_bins", num_bins, 1)
    labels = np.asarray(y)
    for method, array in arrays.items():
        check_same_rows(f"probs[{method!r}]", len(array), "y", len(labels))
    right = {method: scores.row_accuracy(array, labels) == 1 for method, array in arrays.items()}
    # Rounding above 1 would fall outside the last bin.
    confidence = {method: np.minimum(array.max(axis=1), 1.0) for method, array in arrays.items()}
    axes, own_figure = panels(axes, len(arrays), what="methods", height=1.75)

    edges = np.linspace(0, 1, num_bins + 1)
    tallest = 1.0
    body = 1 - min(0.5, _HEAD / inches(axes.flat[0])[1])  # the share of the height that is left to the bars
    for (method, look), ax in zip(style.looks(arrays).items(), axes.flat, strict=False):
        sure, is_right = confidence[method], right[method]
        counts = [np.histogram(sure[chosen], edges)[0] for chosen in (is_right, ~is_right)]
        tallest = max(tallest, *(count.max() for count in counts))
        # An empty bin would reach down to the logarithm of 0.
        heights = [np.maximum(count, _FLOOR) for count in counts]
        ax.stairs(heights[0], edges, baseline=_FLOOR, fill=True, color=look.color, alpha=0.35, linewidth=0)
        ax.stairs(heights[0], edges, baseline=_FLOOR, color=look.color, linewidth=0.9)
        ax.stairs(heights[1], edges, baseline=_FLOOR, fill=True, **_WRONG)
        marks = {"accuracy": scores.accuracy(arrays[method], labels), "confidence": scores.mean(sure)}
        for name, (value, error) in marks.items():
            if np.isfinite(error):
                ax.axvspan(value - error, value + error, ymax=body, color=style.INK, alpha=0.15, linewidth=0)
            ax.axvline(value, ymax=body, color=style.INK, linestyle=_MARKS[name], linewidth=1.0, clip_on=False)
        words = [f"{is_right.sum():,} right, {(~is_right).sum():,} wrong"]
        words += [f"{name} {written(score)}" for name, score in marks.items()]
        ax.text(0.03, 0.98, "\n".join(words), transform=ax.transAxes, va="top", fontsize=6.2, linespacing=1.25)
        ax.set_title(method, color=style.text_color(look.color), fontweight="bold")

    num_classes = max(array.shape[1] for array in arrays.values())
    lowest = edges[min(int(num_bins / num_classes + 1e-9), num_bins - 1)]
    # Where there are few rows, 2 and 5 as well as the powers of ten.
    digits = (1, 2, 5) if tallest < 20 else (1,)
    ticks = [
        digit * power for power in (10**place for place in range(12)) for digit in digits if digit * power <= tallest
    ]
    for ax in axes.flat[: len(arrays)]:
        ax.set(xlim=(lowest, 1), yscale="log", ylim=(_FLOOR, _FLOOR * (tallest / _FLOOR) ** (1 / (body - 0.03))))
        ax.xaxis.set_major_locator(MaxNLocator(4, steps=(1, 2, 2.5, 5, 10)))
        ax.yaxis.set_major_locator(FixedLocator(ticks))
        ax.yaxis.set_minor_locator(NullLocator())
        ax.yaxis.set_major_formatter(FuncFormatter(lambda count, _: f"{count:,.0f}"))
    style.shared_labels(axes, "confidence", "rows (logarithmic scale)", own_figure=own_figure)
    handles: list[Artist] = [
        Patch(facecolor=style.LIGHT_GREY, edgecolor=style.GREY, label="predicted right"),
        Patch(**_WRONG, label="predicted wrong"),
    ]
    names = {"accuracy": "accuracy", "confidence": "mean confidence"}
    handles += [
        Line2D([], [], color=style.INK, linestyle=_MARKS[key], linewidth=1.0, label=names[key]) for key in names
    ]
    if own_figure:
        style.shared_legend(axes, handles, own_figure=True)
    else:
        legend_above(axes.flat[0], handles, least_columns=1, side="left")
    style.settle(axes.flat)
    return axes
