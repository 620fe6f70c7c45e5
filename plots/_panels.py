"""What figures of many panels share: the grid that holds them, and how a score is written with its error."""

from collections.abc import Sequence
from typing import Literal

import matplotlib as mpl
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes

from hmcvi.inference.scores import Score

from . import style
from ._score_panels import inches


def panels(
    axes: np.ndarray | Axes | None, count: int, *, what: str, height: float, most_columns: int = 4, share: bool = True
) -> tuple[np.ndarray, bool]:
    """Return axes (row, column) with a panel for each of ``count``, and whether the figure is ours; the rest is hidden.

    Args:
        axes: the caller's axes, at least ``count``; a figure is made when None, with rows of nearly one length.
        count: how many panels are drawn.
        what: what has a panel, in the plural, for the message.
        height: inches of a panel in a figure of ours.
        most_columns: panels in a row at most; four still leave each an inch and a half of a page.
        share: whether the panels of a figure of ours have the same axes.

    Raises:
        ValueError: ``axes`` has fewer than ``count``.

    Example:
        >>> grid, own_figure = panels(None, 5, what="sets", height=1.5)
        >>> grid.shape, own_figure, grid[1, 2].get_visible()
        ((2, 3), True, False)
    """
    own_figure = axes is None
    if own_figure:
        num_rows = -(-count // most_columns)
        num_columns = -(-count // num_rows)
        width = style.COLUMN_WIDTH if num_columns == 1 else min(style.PAGE_WIDTH, 0.8 + 2.1 * num_columns)
        size = (width, 0.75 + height * num_rows)
        grid = style.new_axes(num_rows, num_columns, size=size, sharex=share, sharey=share)
    else:
        grid = np.atleast_2d(np.asarray(axes, dtype=object))
        if grid.size < count:
            raise ValueError(f"axes has {grid.size} panels and there are {count} {what}: pass one for each")
    for place, ax in enumerate(grid.flat):
        if place >= count:
            ax.set_visible(False)
        elif own_figure and place + grid.shape[1] >= count:
            ax.tick_params(labelbottom=True)  # the panel below is hidden, and its numbers with it
    return grid, own_figure


def legend_above(ax: Axes, handles: Sequence[Artist], *, least_columns: int, side: Literal["left", "right"]) -> None:
    """Put a legend above a caller's panel and its title, where the panel itself has no room for one.

    Args:
        ax: the panel.
        handles: the entries.
        least_columns: how many entries stand beside one another, also where the panel is too narrow for them.
        side: the side of the panel at which the legend begins; it may reach beyond the other.
    """
    # Inches: a handle with its gaps, and a character.
    widest = 0.5 + 0.055 * max(len(str(handle.get_label())) for handle in handles)
    num_columns = max(least_columns, int(inches(ax)[0] / widest))
    # In units of the legend's text: 15 points for the title.
    pad = 15 / mpl.rcParams["legend.fontsize"]
    loc: Literal["lower left", "lower right"] = "lower left" if side == "left" else "lower right"
    anchor = (float(side == "right"), 1.0)
    ax.legend(handles=handles, loc=loc, bbox_to_anchor=anchor, borderaxespad=pad, ncols=num_columns)


def written(score: Score) -> str:
    """Write a score with its standard error, which is left out where there is none, as for a single row.

    Example:
        >>> written(Score(0.9532, 0.0061)), written(Score(1.0, float("nan"))), written(Score(3089.157, 587.68))
        ('0.953 ± 0.006', '1.000', '3,089 ± 588')
        >>> written(Score(0.00034, 0.00021))
        '0.00034 ± 0.0002'
    """
    if 0 < abs(score.value) < 0.01 and 0 < score.standard_error < 5e-4:  # three digits would say zero
        return f"{score.value:.2g} ± {score.standard_error:.1g}"
    digits = 3 if abs(score.value) < 10 else 1 if abs(score.value) < 1000 else 0
    error = f" ± {score.standard_error:,.{digits}f}" if np.isfinite(score.standard_error) else ""
    return f"{score.value:,.{digits}f}{error}"
