"""Do probabilities mean what they say: reliability diagrams and the coverage of central intervals."""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import ArrayLike
from scipy.stats import binom

from hmcvi.inference import scores
from hmcvi.inference.score_base import check_same_rows

from . import style
from ._arrays import checked_mapping

__all__ = ["interval_coverage", "reliability"]

# The central 95 % of a distribution: bands and error bars of this file.
_LOWER, _UPPER = 0.025, 0.975
# A bin with fewer rows can show almost any accuracy: it is drawn hollow and not joined to the others.
_FEW_ROWS = 5


@style.styled
def reliability(
    probs: Mapping[str, ArrayLike],
    y: ArrayLike,
    *,
    num_bins: int = 15,
    bins: Literal["width", "mass"] = "width",
    ax: Axes | None = None,
) -> tuple[Axes, Axes]:
    """Draw accuracy against confidence for every method, above the number of rows in each confidence bin.

    The rows of a method are binned by confidence, the largest class probability. In a bin of ``n`` rows with
    mean confidence ``c``, a perfectly calibrated classifier is right ``Binomial(n, c)`` times: the shaded
    band in the method's colour holds the central 95 % of that, bin by bin. A point outside its band is
    evidence against calibration; a point off the diagonal but inside is not. The bars on the points are 95 %
    intervals for the accuracy (Wilson's, from the same n). Bins of fewer than 5 rows are hollow, outside the
    line, without band and bar. The legend has the ECE with its standard error, and what a calibrated classifier
    would show.

    Args:
        probs: for each label the predictive class probabilities (row, class).
        y: the labels (row,), integers from 0.
        num_bins: the number of bins.
        bins: "width" or "mass", as in `hmcvi.inference.scores.reliability_curve`. Rows are counted in bins of
            equal width in either case.
        ax: where to draw; a figure one column wide is made when None. The lower quarter of its place goes to
            the panel of counts.

    Returns:
        The axes of the curve and the axes of the counts.

    Raises:
        TypeError: ``probs`` is not a mapping.
        ValueError: an array has the wrong shape or values that are not finite.

    Example:
        >>> probs = {"nuts": [[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]]}
        >>> ax_main, ax_count = reliability(probs, [0, 1, 1], num_bins=5)
        >>> ax_main.get_ylabel(), ax_count.get_xlabel()
        ('accuracy', 'confidence')

    Source: Bröcker and Smith (2007), "Increasing the reliability of reliability diagrams", for bands on the
    diagonal.
    """
    probs = checked_mapping("probs", probs, "row", "class")
    y = np.asarray(y)
    for label, array in probs.items():
        check_same_rows(f"probs[{label!r}]", len(array), "y", len(y))

    if ax is None:
        ax = style.new_axes(size=(style.COLUMN_WIDTH, 4.2))[0, 0]
    ax_count = _split_below(ax)

    ax.plot([0, 1], [0, 1], color=style.GREY, linewidth=0.8, zorder=1.5)
    counts = []
    for label, look in style.looks(probs).items():
        curve = scores.reliability_curve(probs[label], y, num_bins=num_bins, bins=bins)
        ece, ece_error = scores.ece(probs[label], y, num_bins=num_bins, bins=bins)
        null, _ = scores.ece_null(probs[label], num_bins=num_bins, bins=bins)
        name = f"{label}   ECE {ece:.3f} ± {ece_error:.3f} (calibrated: {null:.3f})"
        _draw_curve(ax, curve, look, name)
        if bins == "width":
            counts.append(curve.count)
        else:  # bins of equal mass have equal counts, which would say nothing
            counts.append(np.histogram(np.minimum(probs[label].max(axis=1), 1.0), num_bins, (0, 1))[0])
        edges = np.linspace(0, 1, num_bins + 1)
        ax_count.stairs(counts[-1], edges, color=look.color, linestyle=look.linestyle, linewidth=1.0)

    # A little beyond [0, 1], so that a point at the corner is drawn whole.
    ax.set(xlim=(-0.01, 1.01), ylim=(-0.02, 1.02), ylabel="accuracy")
    ax.tick_params(labelbottom=False)
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1.0), borderaxespad=0)
    ax_count.set(xlabel="confidence", ylabel="rows")
    most_rows = np.max(counts)
    if most_rows > 50 * np.min(counts, where=np.array(counts) > 0, initial=most_rows):
        ax_count.set_yscale("log")
        ax_count.set_ylim(0.7, 2 * most_rows)  # below one row, so that a bin with one row has height
        ax_count.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    else:
        ax_count.set_ylim(0, 1.1 * most_rows)
        ax_count.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    style.settle((ax, ax_count))
    figure: Any = ax.get_figure()
    figure.align_ylabels((ax, ax_count))
    return ax, ax_count


@style.styled
def interval_coverage(pit: Mapping[str, ArrayLike], *, ax: Axes | None = None) -> Axes:
    """Draw how often central predictive intervals hold the observation, against how often they should.

    With ``u = F(y)`` the predictive distribution function at the observation (PIT), the central interval of
    nominal level p holds y when ``|2u - 1| <= p``. Above the diagonal the predictive is too wide, below it
    too narrow. The grey band holds the central 95 % of ``Binomial(num_rows, p) / num_rows``, level by level.

    Args:
        pit: for each label the PIT values (row,), between 0 and 1.
        ax: where to draw; a figure one column wide is made when None.

    Returns:
        The axes.

    Raises:
        TypeError: ``pit`` is not a mapping.
        ValueError: an array has the wrong shape or values outside [0, 1].

    Example:
        >>> ax = interval_coverage({"nuts": [0.1, 0.4, 0.7, 0.95]})
        >>> ax.get_xlabel()
        'nominal level of the central interval'
    """
    pit = checked_mapping("pit", pit, "row")
    for label, values in pit.items():
        if values.min() < 0 or values.max() > 1:
            raise ValueError(
                f"pit[{label!r}] runs from {values.min():.3g} to {values.max():.3g} but should lie in [0, 1]:"
                " pass F(y), the predictive distribution function at each observation"
            )
    if ax is None:
        ax = style.new_axes(size=(style.COLUMN_WIDTH, 3.4))[0, 0]

    level = np.linspace(0, 1, 201)
    for num_rows in sorted({len(values) for values in pit.values()}):
        low, high = binomial_band(level, np.full(level.shape, num_rows))
        ax.fill_between(level, low, high, color=style.LIGHT_GREY, alpha=0.7, linewidth=0)
    ax.plot([0, 1], [0, 1], color=style.GREY, linewidth=0.8)
    for label, look in style.looks(pit).items():
        covered_from = np.sort(np.abs(2 * pit[label] - 1))
        coverage = np.searchsorted(covered_from, level, side="right") / len(covered_from)
        at_95 = np.mean(covered_from <= 0.95)
        error = np.sqrt(at_95 * (1 - at_95) / len(covered_from))
        ax.plot(
            level,
            coverage,
            color=look.color,
            linestyle=look.linestyle,
            label=f"{label}   95 % covers {100 * at_95:.1f} ± {100 * error:.1f} %",
        )
    ax.set(
        xlim=(0, 1),
        ylim=(0, 1),
        xlabel="nominal level of the central interval",
        ylabel="share of rows inside",
    )
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1.0), borderaxespad=0)
    style.settle((ax,))
    return ax


def _draw_curve(ax: Axes, curve: scores.ReliabilityCurve, look: style.Look, name: str) -> None:
    """Draw one method: its points with their bars, the line through them, the band on the diagonal."""
    n, confidence, accuracy = curve.count, curve.confidence, curve.accuracy
    joined = n >= _FEW_ROWS
    ax.fill_between(
        confidence[joined],
        *binomial_band(confidence[joined], n[joined]),
        color=look.color,
        alpha=0.13,
        linewidth=0,
    )
    low, high = wilson_interval(accuracy[joined], n[joined])
    # Rounding can put the end of an interval 1e-17 beyond its point, which matplotlib refuses.
    bars = np.maximum([accuracy[joined] - low, high - accuracy[joined]], 0.0)
    shared: dict[str, Any] = {"color": look.color, "marker": look.marker}
    ax.errorbar(
        confidence[joined],
        accuracy[joined],
        yerr=bars,
        linestyle=look.linestyle,
        linewidth=1.0,
        elinewidth=0.7,
        label=name,
        **shared,
    )
    few = (n > 0) & ~joined  # the bars of so few rows would cover the whole panel and say nothing
    ax.plot(confidence[few], accuracy[few], linestyle="none", markerfacecolor="white", alpha=0.5, **shared)


def _split_below(ax: Axes) -> Axes:
    """Shrink axes to the upper part of their place, and return new ones with the same x in the lower part."""
    figure: Any = ax.get_figure()
    cell = ax.get_subplotspec()
    if cell is not None:
        halves = cell.subgridspec(2, 1, height_ratios=(3, 1), hspace=0.05)
        ax.set_subplotspec(halves[0])
        return figure.add_subplot(halves[1], sharex=ax)
    left, bottom, width, height = ax.get_position().bounds
    ax.set_position((left, bottom + 0.28 * height, width, 0.72 * height))
    return figure.add_axes((left, bottom, width, 0.23 * height), sharex=ax)


def binomial_band(probability: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the central 95 % of ``Binomial(count, probability) / count``, element by element."""
    return binom.ppf(_LOWER, count, probability) / count, binom.ppf(_UPPER, count, probability) / count


def wilson_interval(share: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return Wilson's 95 % interval for a probability; unlike the Normal one it has a width at 0 and 1."""
    z = 1.959964
    centre = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * np.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    return centre - half, centre + half
