"""Does a method know when to be silent: its loss on the rows that are kept when the most uncertain are rejected."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from hmcvi.inference import scores
from hmcvi.inference.score_base import check_same_rows

from . import style
from ._arrays import checked_mapping
from ._panels import written

__all__ = ["rejection_curves"]

# Points of a curve: more than a page has pixels would only make files large.
_MOST_POINTS = 1000
# The axis holds every curve from this share on: below, a mean of few rows would flatten all the rest.
_SHARE_SHOWN = 0.05


@style.styled
def rejection_curves(
    uncertainties: Mapping[str, ArrayLike],
    losses: Mapping[str, ArrayLike],
    *,
    ylabel: str = "error",
    ax: Axes | None = None,
) -> Axes:
    """Draw each method's mean loss on its k surest rows against k / n, the share of rows that it answers.

    A curve is that of `hmcvi.inference.scores.risk_coverage`: rows of equal uncertainty share the mean loss of their
    group, and its right end is the mean loss of all rows. Were uncertainty blind to loss, the curve would be flat. The
    band is ±1 standard error of the mean of the k rows, as if they had been chosen beforehand; a single row has none.
    The axis of losses holds all bands from a share of 5 % on, and lines may leave it on the left. The legend has the
    AURC, the mean of the curve, with its standard error.

    Args:
        uncertainties: for each method one score a row (row,), in any unit; its order alone counts.
        losses: for the same methods one loss a row (row,), such as 1 where a prediction is wrong and 0 elsewhere.
        ylabel: what the mean loss is, with its unit.
        ax: where to draw; a figure one column wide is made when None.

    Returns:
        The axes.

    Raises:
        TypeError: ``uncertainties`` or ``losses`` is not a mapping.
        ValueError: the two differ in their methods, methods differ in their rows, or an array has the wrong shape or a
            value that is not finite.

    Example:
        >>> ax = rejection_curves({"nuts": [0.1, 0.5, 0.9]}, {"nuts": [0.0, 0.0, 1.0]})
        >>> ax.get_legend().get_texts()[0].get_text()
        'nuts   AURC 0.111 ± 0.227'

    Source: El-Yaniv and Wiener (2010), "On the foundations of noise-free selective classification".
    """
    uncertain = checked_mapping("uncertainties", uncertainties, "row")
    lost = checked_mapping("losses", losses, "row")
    if set(uncertain) != set(lost):
        raise ValueError(
            f"losses has the methods {list(lost)} and uncertainties has {list(uncertain)}: give both for every method"
        )
    first = next(iter(uncertain))
    for method in uncertain:
        name = f"uncertainties[{method!r}]"
        check_same_rows(f"losses[{method!r}]", len(lost[method]), name, len(uncertain[method]))
        check_same_rows(name, len(uncertain[method]), f"uncertainties[{first!r}]", len(uncertain[first]))
    if ax is None:
        ax = style.new_axes(size=(style.COLUMN_WIDTH, 3.0))[0, 0]

    highest, lowest = -np.inf, np.inf
    for method, look in style.looks(uncertain).items():
        share, risk, error = _curve(uncertain[method], lost[method])
        label = f"{method}   AURC {written(scores.aurc(uncertain[method], lost[method]))}"
        ax.plot(share, risk, color=look.color, linestyle=look.linestyle, label=label)
        ax.fill_between(share, risk - error, risk + error, color=look.color, alpha=0.15, linewidth=0)
        shown = share >= min(_SHARE_SHOWN, share[-1])
        lowest = min(lowest, np.min((risk - np.nan_to_num(error))[shown]))
        highest = max(highest, np.max((risk + np.nan_to_num(error))[shown]))
    span = highest - lowest or abs(highest) or 1.0
    # Losses that are never below 0, such as errors, have an axis that begins there: by a line's width below.
    beginning = 0.0 if min(array.min() for array in lost.values()) >= 0 else lowest - 0.05 * span
    ax.set(
        xlim=(0, 1),
        ylim=(beginning - 0.015 * (highest - beginning), highest + 0.05 * span),
        xlabel="share of rows answered",
        ylabel=ylabel,
    )
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1.0), borderaxespad=0)
    style.settle((ax,))
    return ax


def _curve(uncertainty: np.ndarray, losses: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return shares of rows answered, the mean loss at each, and its standard error, all (point,)."""
    curve = scores.risk_coverage(uncertainty, losses)
    count = np.arange(1, len(losses) + 1)
    # Losses less their mean, so that squares of large equal losses do not round to a variance.
    centred, centre = losses - losses.mean(), losses.mean()
    squares = scores.risk_coverage(uncertainty, centred**2).risk
    variance = np.maximum(squares - (curve.risk - centre) ** 2, 0) * count / np.maximum(count - 1, 1)
    error = np.where(count > 1, np.sqrt(variance / count), np.nan)
    chosen = np.unique(np.linspace(0, len(losses) - 1, min(len(losses), _MOST_POINTS)).round().astype(int))
    return curve.coverage[chosen], curve.risk[chosen], error[chosen]
