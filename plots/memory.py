"""How much memory a long session holds, fit after fit."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from . import style
from ._arrays import checked_numbers

__all__ = ["memory_curve"]


@style.styled
def memory_curve(
    fits: ArrayLike,
    resident: ArrayLike,
    *,
    in_use: ArrayLike | None = None,
    line: tuple[float, float, float] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw the resident memory of a process against the fits it has made.

    The line of its slope spans their second half, to which it is fitted. The memory axis begins at 0, so that a small
    growth looks small.

    Args:
        fits: number of fits made (fit,).
        resident: memory after each in MiB (fit,).
        in_use: the part of its heap that something holds, in MiB (fit,); not drawn when None.
        line: intercept in MiB, slope and its standard error in MiB per 100 fits; no line is drawn when None.
        ax: where to draw; a figure one column wide is made when None.

    Returns:
        The axes.

    Raises:
        ValueError: the arrays are empty, differ in length, or hold what is not a number.

    Example:
        >>> ax = memory_curve([1, 2, 3], [900.0, 910.0, 911.0])
        >>> ax.get_xlabel(), ax.get_ylabel()
        ('fits', 'memory (MiB)')
    """
    at, level = checked_numbers("fits", fits, "fit"), checked_numbers("resident", resident, "fit")
    if len(at) != len(level):
        raise ValueError(f"fits has {len(at)} entries and resident {len(level)}: give one for each fit")
    if ax is None:
        ax = style.new_axes(size=(style.COLUMN_WIDTH, 2.2))[0, 0]
    look = style.looks(["resident", "heap"])
    ax.plot(at, level, color=look["resident"].color, linewidth=0.9, label="resident, after each fit")
    highest = level.max()
    if in_use is not None:
        held = checked_numbers("in_use", in_use, "fit")
        if len(held) != len(at):
            raise ValueError(f"fits has {len(at)} entries and in_use {len(held)}: give one for each fit")
        highest = max(highest, held.max())
        ax.plot(at, held, color=look["heap"].color, linewidth=0.9, label="of the heap, in use")
    if line is not None:
        intercept, slope, error = line
        ends = np.array([(at.min() + at.max()) / 2, at.max()])
        ax.plot(
            ends,
            intercept + slope / 100 * ends,
            color=style.GREY,
            linestyle=(0, (4, 2)),
            linewidth=1.0,
            label=f"{slope:+.1f} ± {error:.1f} MiB per 100 fits",
        )
    ax.legend(loc="lower right")
    ax.set(xlabel="fits", ylabel="memory (MiB)")
    ax.set_ylim(0, 1.08 * highest)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    style.settle((ax,))
    return ax
