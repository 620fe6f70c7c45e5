"""Did the optimisers finish: the loss against the step."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter, MaxNLocator
from numpy.typing import ArrayLike
from scipy.ndimage import median_filter

from . import style
from ._arrays import checked_mapping

__all__ = ["loss_curves"]


@style.styled
def loss_curves(
    losses: Mapping[str, ArrayLike],
    *,
    quantity: str = "negative ELBO",
    smooth: int | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw losses, such as negative ELBOs, against the step: a running median over the raw noise.

    The axis is cut so that the last half of every run is readable: a loss falls by orders of magnitude at the
    start, which leaves the axis at the top, and the question is whether it is flat at the end. Each curve is
    labelled with its final value, the last of the running median. Values that are not finite are left out of
    the curve, and a run whose last value is not finite is labelled "diverged".

    Args:
        losses: for each label the loss (step,) in nats.
        quantity: what the losses are, for the axis.
        smooth: the window of the running median in steps; a hundredth of the run when None, and 1 for none.
        ax: where to draw; a figure one column wide is made when None.

    Returns:
        The axes.

    Raises:
        TypeError: ``losses`` is not a mapping.
        ValueError: an array has the wrong shape, or ``smooth`` is less than 1.

    Example:
        >>> ax = loss_curves({"svi": [9.0, 4.0, 3.0, 2.0, 2.0]}, smooth=1)
        >>> [text.get_text() for text in ax.texts]
        ['svi 2.00']
    """
    losses = checked_mapping("losses", losses, "step", finite=False)
    if smooth is not None and smooth < 1:
        raise ValueError(f"smooth is {smooth}: pass a window of at least 1 step")
    if ax is None:
        ax = style.new_axes(size=(style.COLUMN_WIDTH, 2.4))[0, 0]

    late, ends = [], []
    for label, look in style.looks(losses).items():
        loss = np.where(np.isfinite(losses[label]), losses[label], np.nan).astype(float)
        step = np.arange(1, len(loss) + 1)
        median = running_median(loss, smooth or max(1, len(loss) // 100))
        if len(loss) > 1 and not np.array_equal(median, loss, equal_nan=True):
            # As pixels, also in an SVG: 100,000 steps as vectors would take megabytes.
            ax.plot(step, loss, color=look.color, alpha=0.22, linewidth=0.4, rasterized=True, zorder=2)
        ax.plot(step, median, color=look.color, linestyle=look.linestyle, label=label, zorder=3)
        late.append(loss[len(loss) // 2 :])
        ends.append((label, look.color, median[-1] if np.isfinite(losses[label][-1]) else np.nan))

    ax.set(xlabel="step", ylabel=f"{quantity} (nats)", ylim=_readable_limits(late))
    longest = max(len(loss) for loss in losses.values())
    ax.set_xlim(0, longest)
    ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    if longest >= 10_000:
        ax.xaxis.set_major_formatter(EngFormatter(sep=""))
    _label_ends(ax, ends)
    style.settle((ax,))
    return ax


def running_median(values: np.ndarray, window: int) -> np.ndarray:
    """Return the median of the ``window`` values around each value (step,), NaN where a value is NaN.

    Example:
        >>> running_median(np.array([1.0, 9.0, 2.0, 3.0]), 3).tolist()
        [1.0, 2.0, 3.0, 3.0]
    """
    finite = np.isfinite(values)
    if window == 1 or not finite.any():
        return values
    smoothed = np.full(values.shape, np.nan)
    smoothed[finite] = median_filter(values[finite], size=min(window, int(finite.sum())), mode="reflect")
    return smoothed


def _readable_limits(late: list[np.ndarray]) -> tuple[float, float]:
    """Return y-limits around the late parts (step,) of all runs: their noise but for its rare peaks."""
    ends = [np.quantile(loss[np.isfinite(loss)], (0.01, 0.99)) for loss in late if np.isfinite(loss).any()]
    if not ends:
        return 0.0, 1.0
    low, high = np.min(ends), np.max(ends)
    span = high - low or max(abs(high), 1.0) * 0.1
    return low - 0.1 * span, high + 0.5 * span


def _label_ends(ax: Axes, ends: list[tuple[str, str, float]]) -> None:
    """Write each label with its final value at the right of the axes, level with the curve's end.

    Labels that would overlap are moved apart by the least that makes them readable, in the order of the
    values.
    """
    low, high = ax.get_ylim()
    font_size = 6.5
    figure: Any = ax.get_figure(root=True)
    height = ax.get_window_extent().height / figure.dpi * 72
    gap = 1.5 * font_size / height
    # A diverged run has no end to stand beside: its label goes to the top, where losses diverge to.
    wanted = np.array([1.0 if np.isnan(value) else (value - low) / (high - low) for _, _, value in ends])
    order = np.argsort(wanted, kind="stable")
    placed = spread(np.clip(wanted[order], 0, 1), gap)
    for place, index in zip(placed, order, strict=True):
        label, color, value = ends[index]
        ax.annotate(
            f"{label} diverged" if np.isnan(value) else f"{label} {_figures(value)}",
            xy=(1, place),
            xycoords="axes fraction",
            xytext=(3, 0),
            textcoords="offset points",
            color=style.text_color(color),
            va="center",
            fontsize=font_size,
            annotation_clip=False,
        )


def spread(positions: np.ndarray, gap: float) -> np.ndarray:
    """Move sorted positions in [0, 1] apart until neighbours differ by ``gap``, keeping their order.

    Example:
        >>> spread(np.array([0.5, 0.5, 0.9]), 0.2).round(2).tolist()
        [0.4, 0.6, 0.9]
    """
    # Positions less their minimal offsets must not decrease: this is an isotonic regression, solved by
    # pooling.
    offsets = gap * np.arange(len(positions))
    pools: list[list[float]] = []
    for value in positions - offsets:
        pools.append([value])
        while len(pools) > 1 and np.mean(pools[-2]) > np.mean(pools[-1]):
            last = pools.pop()
            pools[-1] += last
    pooled = np.concatenate([[np.mean(pool)] * len(pool) for pool in pools])
    return np.clip(pooled, 0, max(0, 1 - offsets[-1])) + offsets


def _figures(value: float) -> str:
    """Write a loss with three to five figures, never as a power of ten."""
    decimals = 0 if abs(value) >= 1000 else 1 if abs(value) >= 100 else 2
    return f"{value:.{decimals}f}".replace("-", "\N{MINUS SIGN}")
