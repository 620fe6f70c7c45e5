"""One-dimensional regression: what each method knows, and where it knows that it does not."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from hmcvi.inference.score_base import check_same_rows, checked

from . import style

__all__ = ["Band", "predictive_bands"]

# The central 95 % of a Normal, in standard deviations.
_Z = 1.96
# A stretch without training points counts as a gap from this share of their range on.
_GAP = 0.1


@dataclass(frozen=True)
class Band:
    """A method's predictive distribution along one input, in the unit of y.

    Args:
        x: the inputs (row,), in increasing order.
        mean: the predictive mean (row,).
        epistemic_sd: the standard deviation of the mean over draws (row,).
        total_sd: the standard deviation of a new observation (row,), not less than ``epistemic_sd``.

    Raises:
        ValueError: an array is not (row,), the lengths differ, x decreases or an sd is negative.

    Example:
        >>> x = np.array([0.0, 1.0])
        >>> Band(x=x, mean=x / 2, epistemic_sd=0.1 + x, total_sd=0.2 + x).mean.tolist()
        [0.0, 0.5]
    """

    x: np.ndarray
    mean: np.ndarray
    epistemic_sd: np.ndarray
    total_sd: np.ndarray

    def __post_init__(self) -> None:
        for name in ("x", "mean", "epistemic_sd", "total_sd"):
            array = checked(name, np.asarray(getattr(self, name)), "row")
            check_same_rows(name, len(array), "x", np.size(self.x))
            if name.endswith("_sd") and array.min() < 0:
                raise ValueError(f"{name} reaches {array.min():.3g}: a standard deviation is not negative")
            object.__setattr__(self, name, array)
        if (np.diff(self.x) < 0).any():
            raise ValueError("x decreases: sort the rows of the band by x")


@style.styled
def predictive_bands(
    bands: Mapping[str, Band],
    x_train: ArrayLike,
    y_train: ArrayLike,
    *,
    truth: tuple[ArrayLike, ArrayLike] | None = None,
    shade_gaps: bool = True,
    xlabel: str = "x",
    ylabel: str = "y",
    axes: np.ndarray | Axes | None = None,
) -> np.ndarray:
    """Draw each method's mean with its 95 % epistemic band (darker) inside its 95 % total band (lighter).

    One panel a method, side by side, with the same axes. The bands are ``mean ± 1.96 sd``.

    Args:
        bands: for each label its :class:`Band`.
        x_train: the training inputs (row,).
        y_train: the training targets (row,).
        truth: the noiseless function as inputs (row,) and values (row,).
        shade_gaps: whether stretches without training points have a grey ground: outside their range, and
            between neighbours further apart than a tenth of it.
        xlabel: what the input is, with its unit.
        ylabel: what the target is, with its unit.
        axes: where to draw, one a method; a figure is made when None.

    Returns:
        The axes (method,).

    Raises:
        TypeError: ``bands`` is not a mapping.
        ValueError: an array or ``axes`` has the wrong shape.

    Example:
        >>> x = np.array([0.0, 1.0])
        >>> band = Band(x=x, mean=x / 2, epistemic_sd=0.1 + x, total_sd=0.2 + x)
        >>> axes = predictive_bands({"nuts": band}, [0.1, 0.4, 0.8], [0.0, 0.3, 0.4])
        >>> axes[0].get_title()
        'nuts'
    """
    if not isinstance(bands, Mapping) or not bands:
        raise TypeError("bands must map at least one label to its Band, such as {'nuts': Band(x=..., mean=..., ...)}")
    x_train = checked("x_train", np.asarray(x_train), "row")
    y_train = checked("y_train", np.asarray(y_train), "row")
    check_same_rows("x_train", len(x_train), "y_train", len(y_train))
    if truth is not None:
        truth = (
            checked("truth[0]", np.asarray(truth[0]), "row"),
            checked("truth[1]", np.asarray(truth[1]), "row"),
        )
    own_figure = axes is None
    if own_figure:
        width = style.COLUMN_WIDTH if len(bands) == 1 else min(style.PAGE_WIDTH, 0.5 + 2.2 * len(bands))
        axes = style.new_axes(1, len(bands), size=(width, 2.5), sharex=True, sharey=True)
    axes = np.atleast_1d(np.asarray(axes, dtype=object)).ravel()
    if len(axes) != len(bands):
        raise ValueError(f"axes has {len(axes)} panels and bands has {len(bands)} labels: pass one panel a label")

    low_x = min(x_train.min(), *(band.x[0] for band in bands.values()))
    high_x = max(x_train.max(), *(band.x[-1] for band in bands.values()))
    for (label, look), ax in zip(style.looks(bands).items(), axes, strict=True):
        band = bands[label]
        if shade_gaps:
            for start, stop in gaps(x_train, low_x, high_x):
                ax.axvspan(start, stop, color="#f4f4f4", linewidth=0, zorder=0)
        for sd, alpha in ((band.total_sd, 0.18), (band.epistemic_sd, 0.35)):
            ax.fill_between(
                band.x, band.mean - _Z * sd, band.mean + _Z * sd, color=look.color, alpha=alpha, linewidth=0
            )
        if truth is not None:
            ax.plot(*truth, color=style.INK, linestyle=(0, (1, 1.2)), linewidth=1.0)
        ax.plot(band.x, band.mean, color=look.color, linewidth=1.4)
        ax.plot(
            x_train,
            y_train,
            linestyle="none",
            marker="o",
            markersize=2.2,
            color=style.INK,
            markeredgewidth=0,
            alpha=0.7,
        )
        ax.set_title(label)
        ax.xaxis.set_major_locator(MaxNLocator(5))
        ax.set(xlabel=xlabel, xlim=(low_x, high_x), ylim=_limits(bands, y_train))
    axes[0].set_ylabel(ylabel)
    handles = [
        Line2D([], [], linestyle="none", marker="o", markersize=2.2, color=style.INK, label="training points"),
        Line2D([], [], color=style.GREY, linewidth=1.4, label="mean"),
        Patch(color=style.GREY, alpha=0.65, linewidth=0, label="95 % epistemic"),
        Patch(color=style.GREY, alpha=0.3, linewidth=0, label="95 % total"),
    ]
    if truth is not None:
        handles.insert(1, Line2D([], [], color=style.INK, linestyle=(0, (1, 1.2)), linewidth=1.0, label="truth"))
    style.shared_legend(axes, handles, own_figure=own_figure)
    style.settle(axes)
    return axes


def gaps(x_train: np.ndarray, low: float, high: float) -> list[tuple[float, float]]:
    """Return the stretches of [low, high] without training points.

    Example:
        >>> gaps(np.array([0.0, 0.05, 0.9, 1.0]), -1.0, 1.0)
        [(-1.0, 0.0), (0.05, 0.9)]
    """
    points = np.sort(x_train)
    widest = _GAP * (points[-1] - points[0])
    between = [(float(a), float(b)) for a, b in pairwise(points) if b - a > widest]
    ends = [(float(low), float(points[0])), (float(points[-1]), float(high))]
    return [(a, b) for a, b in (ends[0], *between, ends[1]) if b > a]


def _limits(bands: Mapping[str, Band], y_train: np.ndarray) -> tuple[float, float]:
    """Return y-limits that hold all bands, cut where extrapolation leaves the data far behind."""
    low = min(y_train.min(), *((band.mean - _Z * band.total_sd).min() for band in bands.values()))
    high = max(y_train.max(), *((band.mean + _Z * band.total_sd).max() for band in bands.values()))
    span = (y_train.max() - y_train.min()) or 1.0
    low, high = max(low, y_train.min() - 1.5 * span), min(high, y_train.max() + 1.5 * span)
    return low - 0.03 * (high - low), high + 0.03 * (high - low)
