"""What more computing buys: scores against the budget that was spent."""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator
from numpy.typing import ArrayLike

from . import style
from ._arrays import check_lengths, check_parts, check_standard_error, checked_curves, checked_numbers
from ._score_panels import draw_panel, finish, inches, method_handles

__all__ = ["score_against_budget"]

_ARRAYS = ("budget", "value", "standard_error", "done")
_EXAMPLE = "{'svi': {'nll': {'budget': ..., 'value': ..., 'standard_error': ..., 'done': ...}}}"
_UNITS = {"passes": "passes over the training data", "seconds": "seconds"}


@style.styled
def score_against_budget(
    curves: Mapping[str, Mapping[str, Mapping[str, ArrayLike]]],
    *,
    unit: Literal["passes", "seconds"],
    score: str | Sequence[str] | None = None,
    title: str = "",
    ax: np.ndarray | Axes | None = None,
) -> np.ndarray:
    """Draw scores against the budget spent, one line a method with a band of ±1 standard error.

    One panel a score. Budgets are on a logarithmic axis, the same in all panels. A filled marker is a run that had
    converged, or whose optimiser had finished; a hollow one had not, and says only how far that budget leads: a
    key tells them apart where there is a hollow one. A score that is NaN leaves a gap; one that is infinite leaves a
    gap with an ∞ at the top of the panel. A point without neighbours has a bar in place of the band. An arrow says
    which way is better; coverage has a grey line at its nominal level instead. Panels do not zoom in on differences
    below a twentieth of their values.

    Args:
        curves: for each method a mapping from score to four arrays (point,): "budget", positive and increasing, in
            ``unit``; "value" and "standard_error", in the score's unit; "done", whether the run had converged or
            finished. Every method has the same scores; methods may differ in their points.
        unit: what budgets are counted in: "passes" over the training data (gradient evaluations times the rows
            that each reads, over rows), or "seconds".
        score: the score or scores to draw, in this order; all when None.
        title: what stands above the legend, such as the data set.
        ax: where to draw, one panel a score; a figure is made when None, a page wide for three scores or more. Title
            and legend go above the panels in either case.

    Returns:
        The axes (score,).

    Raises:
        TypeError: a level of ``curves`` is not a mapping.
        ValueError: ``unit`` is another word, there is no method or no score, methods differ in their scores, an array
            is missing, has the wrong shape or holds what is not a number (of "done": a truth value), budgets are
            not positive and increasing, a standard error is negative, or ``ax`` has not one panel a score.

    Example:
        >>> nll = {"budget": [10, 100], "value": [0.9, 0.4], "standard_error": [0.1, 0.02], "done": [False, True]}
        >>> axes = score_against_budget({"svi": {"nll": nll}}, unit="passes")
        >>> axes[0].get_ylabel(), axes[0].get_xscale()
        ('nll (nats) ↓', 'log')
    """
    if unit not in _UNITS:
        raise ValueError(f"unit is {unit!r} but should be one of {', '.join(_UNITS)}: say what budgets are counted in")
    checked_of = checked_curves(curves, _checked_curve, example=_EXAMPLE)
    names = _chosen(score, next(iter(checked_of.values())))
    own_figure = ax is None
    if own_figure:
        full_width = float(np.clip(2.4 * len(names), style.COLUMN_WIDTH, style.PAGE_WIDTH))
        # A row of the legend for every five methods or so takes height that the panels keep.
        num_rows = np.ceil(len(checked_of) / (full_width / 1.3))
        ax = style.new_axes(1, len(names), size=(full_width, 2.3 + 0.14 * float(num_rows)))
    axes = np.atleast_1d(np.asarray(ax, dtype=object)).ravel()
    if len(axes) != len(names):
        raise ValueError(f"ax has {len(axes)} panels and there are {len(names)} scores: pass one panel a score")

    found = style.looks(checked_of)
    budgets = np.concatenate([curve["budget"] for of in checked_of.values() for curve in of.values()])
    draw_curve = partial(_draw_curve, band=0.15 if len(found) <= 6 else 0.08)
    for name, panel in zip(names, axes, strict=True):
        _log_axis(panel, budgets)  # first: a single point would leave an axis without a width
        of_method = {method: of[name] for method, of in checked_of.items()}
        draw_panel(panel, name, of_method, found, draw_curve, along="budget")
        panel.set_xlabel(_UNITS[unit], labelpad=1.5)

    all_done = all(of[name]["done"].all() for of in checked_of.values() for name in names)
    handles = [*method_handles(found), *([] if all_done else _verdict_handles())]
    finish(axes, handles, title, own_figure=own_figure)
    return axes


def _draw_curve(ax: Axes, curve: Mapping[str, np.ndarray], look: style.Look, method: str, *, band: float) -> None:
    """Draw one method's line, its band, and its markers: filled where a run was done, hollow where not."""
    budget, done = curve["budget"], curve["done"].astype(bool)
    value, error = (np.where(np.isfinite(curve[part]), curve[part], np.nan) for part in ("value", "standard_error"))
    ax.fill_between(budget, value - error, value + error, color=look.color, alpha=band, linewidth=0, zorder=2)
    known = np.isfinite(value + error)
    alone = known & ~np.append(known[1:], False) & ~np.append(False, known[:-1])
    if alone.any():
        ax.errorbar(budget[alone], value[alone], error[alone], fmt="none", ecolor=look.color, elinewidth=0.7)
    ax.plot(budget, value, color=look.color, linestyle=look.linestyle, linewidth=1.0, label=method, zorder=3)
    for where, fill in ((done, look.color), (~done, "white")):
        ax.plot(
            budget[where],
            value[where],
            color=look.color,
            linestyle="none",
            marker=look.marker,
            markerfacecolor=fill,
            markeredgewidth=0.8,
            zorder=4,
        )


def _log_axis(ax: Axes, budgets: np.ndarray) -> None:
    """Set a logarithmic axis from the least budget to the largest, with the ticks that a panel has room for."""
    ax.set_xscale("log")
    low, high = budgets.min() / 1.35, budgets.max() * 1.35
    ax.set_xlim(low, high)
    width, _ = inches(ax)
    # A number takes 0.3 inches: 1, 2 and 5 in each decade where there is room, else powers of ten, or every other.
    room = width / 0.3
    decades = np.log10(high / low)
    subs = (1.0, 2.0, 5.0) if 3 * decades <= room else (1.0, 3.0) if 2 * decades <= room else (1.0,)
    ax.xaxis.set_major_locator(LogLocator(subs=subs, numticks=max(2, int(room))))
    ax.xaxis.set_major_formatter(FuncFormatter(_short))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_minor_formatter(NullFormatter())


def _short(value: float, _: int | None = None) -> str:
    """Write a budget in few characters.

    Example:
        >>> [_short(value) for value in (0.05, 200, 5000, 20_000, 3e6)]
        ['0.05', '200', '5k', '20k', '3M']
    """
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def _verdict_handles() -> list[Line2D]:
    """Return the key to filled and hollow markers."""
    return [
        Line2D([], [], color=style.GREY, linestyle="none", marker="o", markerfacecolor=fill, label=label)
        for fill, label in ((style.GREY, "converged or finished"), ("white", "not yet"))
    ]


def _chosen(score: str | Sequence[str] | None, there: Iterable[str]) -> list[str]:
    """Return the scores to draw, in order."""
    known = list(there)
    names = known if score is None else [score] if isinstance(score, str) else list(score)
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise ValueError(f"score is {score!r} and curves has {known}: pass one or more of them, or None for all")
    return names


def _checked_curve(name: str, curve: Mapping[str, ArrayLike]) -> dict[str, np.ndarray]:
    """Check one curve: four arrays (point,), budgets positive and increasing, errors from 0 on."""
    check_parts(name, curve, _ARRAYS, "point")
    done = np.asarray(curve["done"])
    if done.dtype.kind != "b" or done.ndim != 1:
        raise ValueError(
            f"{name}['done'] has dtype {done.dtype} and shape {done.shape} but should be bool (point,): pass True where"
            " a run had converged or finished"
        )
    arrays = {part: checked_numbers(f"{name}[{part!r}]", curve[part], "point") for part in _ARRAYS[:3]} | {"done": done}
    check_lengths(name, arrays, "point")
    budget = arrays["budget"]
    if not np.isfinite(budget).all() or budget[0] <= 0 or (np.diff(budget) <= 0).any():
        raise ValueError(
            f"{name}['budget'] is {budget.tolist()} but should be positive and increase: sort the points, one each"
        )
    check_standard_error(name, arrays["standard_error"])
    return arrays
