"""What growth costs: time and memory against rows, parameters, draws or chains."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, NullFormatter, NullLocator
from numpy.typing import ArrayLike

from . import style
from ._arrays import checked_mapping

__all__ = ["growth_curves"]

_ARRAYS = ("size", "seconds", "mib")
_ROWS = ("seconds", "mib")


@style.styled
def growth_curves(
    curves: Mapping[str, Mapping[str, Mapping[str, ArrayLike]]],
    *,
    time_labels: Mapping[str, str] | None = None,
    axes: np.ndarray | None = None,
) -> np.ndarray:
    """Draw seconds (above) and memory (below) against what grows, a column each, all axes logarithmic.

    A grey line above rises in proportion to the size, from the shortest time of the smallest size. Memory has
    none: most of it is there at every size.

    Args:
        curves: for each thing that grows a mapping from method to three arrays (cell,): "size", increasing,
            "seconds" and "mib", all above 0.
        time_labels: for each thing that grows what its seconds are of; "time" where it has none.
        axes: where to draw (2, column); a figure a page wide at most is made when None.

    Returns:
        The axes (2, column).

    Raises:
        TypeError: a level of ``curves`` is not a mapping.
        ValueError: there is no curve, one lacks an array, a number is not above 0 or sizes do not increase, or
            ``axes`` has another shape.

    Example:
        >>> lines = {"svi": {"size": [100, 1000], "seconds": [0.1, 0.2], "mib": [10, 20]}}
        >>> growth_curves({"training rows": lines})[1, 0].get_xlabel()
        'training rows'
    """
    checked = {what: _checked(what, lines) for what, lines in _mapping("curves", curves).items()}
    labels = {what: (time_labels or {}).get(what, "time") for what in checked}
    own_figure = axes is None
    if axes is None:
        width = float(np.clip(1.75 * len(checked), style.COLUMN_WIDTH, style.PAGE_WIDTH))
        axes = style.new_axes(2, len(checked), size=(width, 3.6), sharex="col")
    axes = np.asarray(axes, dtype=object)
    if axes.shape != (2, len(checked)):
        raise ValueError(f"axes has shape {axes.shape} and there are {len(checked)} curves: pass (2, {len(checked)})")
    found = style.looks(dict.fromkeys(label for lines in checked.values() for label in lines))
    for (what, lines), column in zip(checked.items(), axes.T, strict=True):
        for panel, part in zip(column, _ROWS, strict=True):
            for label, arrays in lines.items():
                look = found[label]
                panel.plot(
                    arrays["size"],
                    arrays[part],
                    color=look.color,
                    linestyle=look.linestyle,
                    marker=look.marker,
                    markersize=3,
                    linewidth=1.0,
                )
            _log_axes(
                panel,
                part == "seconds",
                [arrays["size"] for arrays in lines.values()],
                [arrays[part] for arrays in lines.values()],
            )
        column[0].yaxis.set_major_formatter(EngFormatter(unit="s", sep=" "))
        column[1].yaxis.set_major_formatter(FuncFormatter(_count))
        column[0].set_title(labels[what])
        column[1].set_title("MiB added")
        column[1].set_xlabel(what)
    handles = [
        Line2D([], [], color=look.color, linestyle=look.linestyle, marker=look.marker, label=label)
        for label, look in found.items()
    ]
    handles.append(Line2D([], [], color=style.GREY, linewidth=0.8, label="in proportion"))
    style.shared_legend(axes, handles, own_figure=own_figure)
    style.settle(axes.flat)
    return axes


def _log_axes(ax: Axes, guided: bool, sizes: list[np.ndarray], costs: list[np.ndarray]) -> None:
    """Set logarithmic axes round the data, with few numbers on them, and draw the line of proportion if asked."""
    every_size, every_cost = np.concatenate(sizes), np.concatenate(costs)
    ax.set(xscale="log", yscale="log")
    ax.set_xlim(every_size.min() / 1.4, every_size.max() * 1.4)
    # half a decade each way at least: noise of a few per cent is no growth
    low, high = every_cost.min() / 1.5, every_cost.max() * 1.5
    middle, half = np.sqrt(low * high), max(np.sqrt(high / low), 10**0.75)
    low, high = middle / half, middle * half
    ax.set_ylim(low, high)
    first = every_size.min()
    start = min(cost[0] for size, cost in zip(sizes, costs, strict=True) if size[0] == first)
    ends = np.array([first, every_size.max()])
    if guided:
        ax.plot(ends, start * ends / first, color=style.GREY, linewidth=0.8, zorder=1, scalex=False, scaley=False)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_minor_locator(NullLocator())
        axis.set_minor_formatter(NullFormatter())
    few = every_size.max() / first < 30
    ax.xaxis.set_major_locator(LogLocator(base=2 if few else 10, numticks=5))
    ax.xaxis.set_major_formatter(FuncFormatter(_count))
    # two powers of ten at least, or the numbers between them that a reader needs to tell the scale
    decades = np.log10(high / low)
    ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if decades < 1.7 else (1.0,), numticks=6))


def _count(value: float, _: int | None = None) -> str:
    """Write a number in few characters.

    Example:
        >>> [_count(value) for value in (0.1, 8, 1000, 64_000)]
        ['0.1', '8', '1k', '64k']
    """
    return f"{value / 1000:g}k" if value >= 1000 else f"{value:g}"


def _mapping[T](name: str, values: Mapping[str, T]) -> Mapping[str, T]:
    """Return a mapping that is one and holds something."""
    if not isinstance(values, Mapping):
        raise TypeError(f"{name} is a {type(values).__name__} but should be a mapping: pass one from name to cells")
    if not values:
        raise ValueError(f"{name} is empty: pass at least one")
    return values


def _checked(what: str, lines: Mapping[str, Mapping[str, ArrayLike]]) -> dict[str, dict[str, np.ndarray]]:
    """Check the curves of one thing that grows."""
    checked = {}
    for label, curve in _mapping(f"curves[{what!r}]", lines).items():
        name = f"curves[{what!r}][{label!r}]"
        missing = [part for part in _ARRAYS if part not in _mapping(name, curve)]
        if missing:
            raise ValueError(f"{name} has no {missing[0]!r}: give {', '.join(_ARRAYS)}")
        arrays = checked_mapping(name, {part: curve[part] for part in _ARRAYS}, "cell")
        if len({len(array) for array in arrays.values()}) > 1:
            raise ValueError(f"{name} has arrays of different lengths: give one number for each cell")
        for part, array in arrays.items():
            if not (array > 0).all():
                raise ValueError(f"{name}[{part!r}] holds {array.min():g}: a log axis takes numbers above 0")
        if (np.diff(arrays["size"]) <= 0).any():
            raise ValueError(f"{name}['size'] is {arrays['size'].tolist()} but should increase: sort the cells")
        checked[label] = arrays
    return checked
