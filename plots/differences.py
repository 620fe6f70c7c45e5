"""How far methods are from a reference in one score, group by group."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter
from numpy.typing import ArrayLike

from . import style
from ._arrays import checked_mapping

__all__ = ["score_differences"]

_LINE = 0.09  # inches between the intervals of two methods
_GAP = 0.08  # inches between the last interval of a group and its end


@style.styled
def score_differences(
    groups: Mapping[str, Mapping[str, ArrayLike]],
    *,
    xlabel: str,
    linear_within: float | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw the difference of every method from a reference with its interval, a row of intervals for each group.

    A mark is filled where its interval leaves out 0, and hollow where it holds it: a tie.

    Args:
        groups: for each group (such as a data set and a model) and each method an array (3,): the difference and the
            lower and upper end of its interval, in the unit of the score. Groups may lack methods.
        xlabel: what the difference is, with its unit and what it means to be above 0.
        linear_within: where the axis goes over from linear to logarithmic, on both sides of 0; linear throughout when
            None.
        ax: where to draw; a figure as wide as a page, as high as its groups ask for, is made when None.

    Returns:
        The axes.

    Raises:
        TypeError: ``groups`` or what it holds of a group is not a mapping.
        ValueError: there is no group, an array is not of three finite numbers or its ends are not in order, or
            ``linear_within`` is not above 0.

    Example:
        >>> found = {"wine, mlp": {"svi": [0.026, 0.003, 0.059], "map": [-0.035, -0.054, -0.008]}}
        >>> [label.get_text() for label in score_differences(found, xlabel="nll minus nuts'").get_yticklabels()]
        ['wine, mlp']
    """
    if not isinstance(groups, Mapping):
        raise TypeError(f"groups is a {type(groups).__name__} but should map each group to its methods: pass a dict")
    if not groups:
        raise ValueError("groups is empty but should hold the differences of each group: pass at least one")
    if linear_within is not None and not linear_within > 0:
        raise ValueError(f"linear_within is {linear_within:g} but should be above 0: pass None for a linear axis")
    arrays = {group: checked_mapping(f"groups[{group!r}]", of, "value, low, high") for group, of in groups.items()}
    for group, of_group in arrays.items():
        for method, numbers in of_group.items():
            if numbers.shape != (3,) or not numbers[1] <= numbers[0] <= numbers[2]:
                raise ValueError(
                    f"groups[{group!r}][{method!r}] is {numbers.tolist()}: pass (difference, lower end, upper end)"
                )
    found = style.looks(method for of_group in arrays.values() for method in of_group)
    heights = [_LINE * len(of_group) + _GAP for of_group in arrays.values()]
    if ax is None:
        ax = style.new_axes(size=(style.PAGE_WIDTH, 0.9 + sum(heights)))[0, 0]
    ax.axvline(0, color=style.INK, linewidth=0.8)
    tops = np.concatenate([[0.0], np.cumsum(heights)])
    for place, (of_group, top) in enumerate(zip(arrays.values(), tops, strict=False)):
        if place % 2:
            ax.axhspan(top, tops[place + 1], color="#f6f6f6", zorder=0, linewidth=0)
        for line, (method, (value, low, high)) in enumerate(of_group.items()):
            y = top + _GAP / 2 + _LINE * (line + 0.5)
            look, tie = found[method], low <= 0 <= high
            ax.plot([low, high], [y, y], color=look.color, linewidth=0.9)
            ax.plot(value, y, look.marker, color=look.color, markerfacecolor="white" if tie else look.color)
    if linear_within is not None:
        ax.set_xscale("symlog", linthresh=linear_within)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value + 0.0:g}".replace("-", "\N{MINUS SIGN}")))
    ax.set(ylim=(tops[-1], 0), xlabel=xlabel)
    ax.set_yticks((tops[:-1] + tops[1:]) / 2, list(arrays))
    ax.tick_params(axis="y", length=0)
    handles = [
        Line2D([], [], color=look.color, linewidth=0.9, marker=look.marker, label=method)
        for method, look in found.items()
    ]
    handles.append(
        Line2D([], [], color=style.GREY, linewidth=0.9, marker="o", markerfacecolor="white", label="tie: holds 0")
    )
    ax.legend(handles=handles, loc="lower left", bbox_to_anchor=(0, 1), ncols=len(handles), handletextpad=0.5)
    style.settle((ax,))
    ax.grid(False, axis="y")
    return ax
