"""Does a model notice foreign inputs: ROC curves of its uncertainty."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter
from numpy.typing import ArrayLike

from hmcvi.inference import scores
from hmcvi.inference.score_base import check_same_rows

from . import style
from ._arrays import checked_sets
from ._panels import panels, written
from .calibration import wilson_interval

__all__ = ["roc"]

# False positive rates where every curve has a point, evenly apart on the square-root scale: straight lines bend on it.
_GRID = np.linspace(0, 1, 201) ** 2


@style.styled
def roc(
    uncertainties: Mapping[str, Mapping[str, ArrayLike]],
    *,
    in_distribution: str = "test",
    axes: np.ndarray | Axes | None = None,
) -> np.ndarray:
    """Draw how well each method's uncertainty tells each OOD set from the in-distribution set, a panel a set.

    OOD is the positive class. A row is flagged where its uncertainty reaches a threshold: the false positive rate is
    the share of in-distribution rows that are flagged, the true positive rate that of the OOD rows, and the curve runs
    over all thresholds; rows of equal uncertainty are joined by a straight line. The scale of the false positive rate
    is its square root, on which good detectors stay apart and chance, in grey, is a parabola.

    Bands hold the true positive rate at each false positive rate with about 95 % or more: they combine Wilson's
    intervals of both rates, and say nothing below the false positive rate that so few rows cannot tell from 0. The
    number beside a method is its AUROC, the area under its curve on a linear scale, with its standard error.

    Args:
        uncertainties: for each method a mapping from the name of a set to one score a row (row,), higher for inputs
            that look more foreign, in any unit; every method has the same sets, ``in_distribution`` among them.
        in_distribution: the name of the in-distribution set.
        axes: where to draw, as many as there are OOD sets; a figure of at most four a row is made when None.

    Returns:
        The axes (row, column) of the panels; those without a set are hidden.

    Raises:
        TypeError: a level of ``uncertainties`` is not a mapping.
        ValueError: a set is missing, there is no OOD set, methods differ in their rows, an array has the wrong shape
            or a value that is not finite, or ``axes`` has too few panels.

    Example:
        >>> axes = roc({"nuts": {"test": [0.0, 0.1, 0.2], "noise": [0.9, 1.1, 0.1]}})
        >>> axes[0, 0].get_title(), axes[0, 0].get_legend().get_texts()[0].get_text()
        ('noise', 'nuts 0.833 ± 0.192')

    Source: Fawcett (2006), "An introduction to ROC analysis", algorithm 1; for OOD: Hendrycks and Gimpel (2017).
    """
    sets = checked_sets("uncertainties", uncertainties, in_distribution)
    first = next(iter(sets))
    for method, of_method in sets.items():
        for name, rows in of_method.items():
            of_first = f"uncertainties[{first!r}][{name!r}]"
            check_same_rows(f"uncertainties[{method!r}][{name!r}]", len(rows), of_first, len(sets[first][name]))
    found = style.looks(sets)
    ood_names = [name for name in sets[first] if name != in_distribution]
    # The legend of a panel, a line a method and one of its own, takes up to half of the height.
    axes, own_figure = panels(axes, len(ood_names), what="OOD sets", height=max(1.6, 0.4 + 0.23 * len(sets)))
    for name, ax in zip(ood_names, axes.flat, strict=False):
        ax.plot(_GRID, _GRID, color=style.GREY, linewidth=0.8)
        handles, areas = [], []
        for method, look in found.items():
            inside, outside = sets[method][in_distribution], sets[method][name]
            ax.fill_between(_GRID, *_band(inside, outside), color=look.color, alpha=0.15, linewidth=0)
            (line,) = ax.plot(*_joined(*_rates(inside, outside)), color=look.color, linestyle=look.linestyle)
            line.set_clip_on(False)  # half its width would be lost along the edges
            auroc = scores.auroc(inside, outside)
            areas.append(auroc.value)
            label = f"{method} {written(auroc)}"
            handles.append(Line2D([], [], color=look.color, linestyle=look.linestyle, label=label))
        # The inverse never meets a negative number: matplotlib's margins would leave the square root's domain.
        ax.set_xscale("function", functions=(lambda rate: np.sqrt(np.maximum(rate, 0)), np.square))
        ax.set(xlim=(0, 1), ylim=(0, 1), title=name)
        ax.xaxis.set_major_locator(FixedLocator([0, 0.05, 0.2, 0.5, 1]))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda rate, _: f"{rate:g}"))
        # Opposite to the curves.
        vertical, horizontal = ("lower", "right") if np.mean(areas) >= 0.5 else ("upper", "left")
        ax.legend(
            handles=handles,
            title="AUROC",
            title_fontsize=6,
            fontsize=6,
            labelcolor=[style.text_color(look.color) for look in found.values()],
            loc=f"{vertical} {horizontal}",
            alignment=horizontal,
            handlelength=1.7,
            labelspacing=0.25,
            borderpad=0.15,
            frameon=True,
            facecolor="white",
            edgecolor="none",
            framealpha=0.75,
        )
    # A caller's panels may be too narrow for one line.
    xlabel = f"false positive rate{' ' if own_figure else chr(10)}(square-root scale)"
    style.shared_labels(axes, xlabel, "true positive rate", own_figure=own_figure)
    style.settle(axes.flat)
    return axes


def _rates(inside: np.ndarray, outside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return false and true positive rates (threshold,), from no row flagged to all."""
    threshold = np.unique(np.concatenate([inside, outside]))[::-1]
    flagged = [len(of_set) - np.searchsorted(np.sort(of_set), threshold) for of_set in (inside, outside)]
    return np.append(0, flagged[0]) / len(inside), np.append(0, flagged[1]) / len(outside)


def _joined(false_positive: np.ndarray, true_positive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a curve with points at the grid as well, so that its straight lines are straight on a linear scale."""
    x = np.concatenate([false_positive, _GRID])
    y = np.concatenate([true_positive, np.interp(_GRID, false_positive, true_positive)])
    order = np.lexsort((y, x))
    return x[order], y[order]


def _band(inside: np.ndarray, outside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the lower and upper end of the true positive rate at each false positive rate of the grid.

    At a threshold both rates are known up to Wilson's intervals. The true positive rate at a false positive rate f is
    at least that of the last threshold whose false positives are surely at most f, and at most that of the first one
    whose false positives are surely f or more.
    """
    false_positive, true_positive = _rates(inside, outside)
    fewest, most = wilson_interval(false_positive, np.array(len(inside)))
    lowest, highest = wilson_interval(true_positive, np.array(len(outside)))
    before = np.searchsorted(most, _GRID, side="right") - 1  # both rise with the threshold's place
    after = np.searchsorted(fewest, _GRID, side="left")
    low = np.where(before >= 0, lowest[np.maximum(before, 0)], 0.0)
    high = np.where(after < len(fewest), highest[np.minimum(after, len(fewest) - 1)], 1.0)
    curve = np.interp(_GRID, false_positive, true_positive)  # which jumps at 0, where the ends do not
    return np.clip(np.minimum(low, curve), 0, 1), np.clip(np.maximum(high, curve), 0, 1)
