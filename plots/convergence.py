"""Has a sampler converged in what it predicts: R-hat and effective sample size over function values."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

from hmcvi.inference.diagnostics import ESS_PER_CHAIN, RHAT_LIMIT, TAIL, FunctionSpace

from . import style
from ._arrays import check_same_keys

__all__ = ["convergence"]

# R-hats below 1 plus this are drawn at it: the axis is logarithmic in what they exceed 1 by.
_LEAST_EXCESS = 1e-3
_RHAT_TICKS = (1.001, 1.003, 1.01, 1.03, 1.1, 1.3, 2.0, 4.0, 11.0, 31.0)
_TAIL_LINE = (0, (4, 1.5))
_MARK: dict[str, Any] = {"markersize": 6, "markeredgecolor": "white", "markeredgewidth": 0.6}


@style.styled
def convergence(values: Mapping[str, Mapping[str, FunctionSpace]], *, axes: np.ndarray | None = None) -> np.ndarray:
    """Draw how R-hat and effective sample sizes are distributed over function values, beside what a verdict asks for.

    A row of panels for each kind of function values. Left, the share of values whose rank-normalised split R-hat lies
    below; right, the share whose effective sample size lies above, in draws a chain: bulk as lines, tail dashed. The
    verdict asks that 95 % of the values of each kind have an R-hat below 1.01, and 100 effective draws a chain in bulk
    and tail: a curve that enters the grey does not pass. A marker stands at the number that the verdict reads off a
    curve. Values without an R-hat, where all chains are stuck or a draw is not finite, count as failed, and a
    curve of R-hats ends below 1 by their share; their effective sample sizes say nothing, so look left first.

    Args:
        values: for each sampler what ``Convergence.by_kind`` of ``hmcvi.inference.convergence`` is, a mapping from kind
            to R-hats and effective sample sizes (value,). Samplers have the same kinds.
        axes: where to draw, (kind, 2); a figure is made when None.

    Returns:
        The axes (kind, 2), of R-hat and of effective sample size.

    Raises:
        TypeError: ``values`` or what it holds of a sampler is not a mapping, or a kind is no `FunctionSpace`.
        ValueError: there is no sampler or kind, or no value of one, samplers differ in their kinds, or ``axes`` has
            another shape.

    Example:
        >>> draws = np.random.default_rng(0).normal(size=(4, 500, 30))
        >>> axes = convergence({"nuts": {"log-likelihoods": FunctionSpace.of(draws)}})
        >>> axes[0, 0].get_xlabel(), axes[0, 1].get_xlabel()
        ('R-hat', 'effective sample size, draws a chain')

    Source: Vehtari et al. (2021), "Rank-normalization, folding, and localization: an improved R-hat for assessing
    convergence of MCMC".
    """
    kinds = _checked_kinds(values)
    own_figure = axes is None
    if axes is None:
        axes = style.new_axes(len(kinds), 2, size=(style.PAGE_WIDTH, 0.8 + 1.7 * len(kinds)), sharex="col", sharey=True)
    axes = np.asarray(axes, dtype=object)
    if axes.shape != (len(kinds), 2):
        raise ValueError(f"axes has shape {axes.shape} but should be {(len(kinds), 2)}: a row for each of {kinds}")
    found = style.looks(values)
    for kind, (ax_rhat, ax_ess) in zip(kinds, axes, strict=True):
        for label, look in found.items():
            of = values[label][kind]
            _draw_shares(ax_rhat, of.rhat, of.judged_rhat, look, linestyle="-", above=False)
            for sizes, judged, linestyle in (
                (of.ess_bulk, of.judged_ess_bulk, "-"),
                (of.ess_tail, of.judged_ess_tail, _TAIL_LINE),
            ):
                per_chain = sizes / of.num_chains
                _draw_shares(ax_ess, per_chain, judged / of.num_chains, look, linestyle=linestyle, above=True)
    _set_axes(axes, kinds, values)
    _finish(axes, found, own_figure=own_figure)
    return axes


def _checked_kinds(values: Mapping[str, Mapping[str, FunctionSpace]]) -> list[str]:
    """Return the kinds of function values that every sampler has, or raise."""
    advice = "pass {'nuts': convergence.by_kind}"
    if not isinstance(values, Mapping) or not values:
        raise TypeError(f"values must map at least one sampler to its kinds of function values: {advice}")
    for label, of in values.items():
        if not isinstance(of, Mapping) or not all(isinstance(found, FunctionSpace) for found in of.values()):
            raise TypeError(f"values[{label!r}] must map each kind of function values to a FunctionSpace: {advice}")
        empty = [kind for kind, found in of.items() if not len(found.rhat)]
        if empty or not of:
            raise ValueError(f"values[{label!r}] has the kinds {list(of)} and no value of {empty or 'any'}: {advice}")
    check_same_keys("values", values, "kinds")
    return list(next(iter(values.values())))


def _draw_shares(
    ax: Axes, numbers: np.ndarray, judged: float, look: style.Look, *, linestyle: Any, above: bool
) -> None:
    """Draw the share of numbers (value,) that lie at or below each point of the axis, or at or above; NaN is neither.

    The marker stands where the verdict looks: all but a twentieth of the numbers are on its good side.
    """
    known = np.sort(numbers[np.isfinite(numbers)])
    share = np.arange(len(known) + 1) / len(numbers)
    if above:
        x, y, drawstyle = np.array([0, *known, 1e9]), np.array([share[-1], *share[::-1]]), "steps-pre"
    else:
        x, y, drawstyle = np.array([0, *known, 1e9]), np.array([*share, share[-1]]), "steps-post"
    ax.plot(x, y, color=look.color, linestyle=linestyle, drawstyle=drawstyle, linewidth=1.1)
    if np.isfinite(judged) and judged > 0:
        marked = max(judged, 1 + _LEAST_EXCESS) if not above else judged
        ax.plot(marked, 1 - TAIL, color=look.color, marker=look.marker, clip_on=False, zorder=3, **_MARK)


def _set_axes(axes: np.ndarray, kinds: list[str], values: Mapping[str, Mapping[str, FunctionSpace]]) -> None:
    """Set scales, limits and labels, and shade where a curve fails."""
    every = [found for of in values.values() for found in of.values()]
    rhat = np.concatenate([found.rhat for found in every])
    excess = 1.3 * max(rhat[np.isfinite(rhat)] - 1, default=0.0)
    highest = 1 + max(excess, 3 * (RHAT_LIMIT - 1))
    sizes = np.concatenate([part / found.num_chains for found in every for part in (found.ess_bulk, found.ess_tail)])
    sizes = sizes[np.isfinite(sizes) & (sizes > 0)]
    fewest = min(ESS_PER_CHAIN / 3, 0.8 * min(sizes, default=np.inf))
    most = max(3 * ESS_PER_CHAIN, 1.25 * max(sizes, default=0.0))
    for kind, (ax_rhat, ax_ess) in zip(kinds, axes, strict=True):
        for ax, low, high in ((ax_rhat, RHAT_LIMIT, highest), (ax_ess, fewest, ESS_PER_CHAIN)):
            ax.fill_between([low, high], 0, 1 - TAIL, color=style.LIGHT_GREY, alpha=0.6, linewidth=0, zorder=0.5)
            ax.set(ylim=(0, 1.04), yticks=(0, 0.25, 0.5, 0.75, 1 - TAIL))
        ax_rhat.set_xscale("function", functions=(_log_excess, _from_log_excess))
        ax_rhat.set(xlim=(1 + _LEAST_EXCESS, highest), ylabel=f"{kind}\nshare of values below")
        ticks = _RHAT_TICKS if highest < 1.5 else _RHAT_TICKS[::2]
        ax_rhat.xaxis.set_major_locator(FixedLocator([tick for tick in ticks if tick <= highest]))
        ax_ess.set_xscale("log")
        ax_ess.set(xlim=(fewest, most), ylabel="share of values above")
        ax_ess.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if most < 300 * fewest else (1,)))
        for ax in (ax_rhat, ax_ess):
            ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            ax.xaxis.set_minor_locator(NullLocator())
    axes[-1, 0].set_xlabel("R-hat")
    axes[-1, 1].set_xlabel("effective sample size, draws a chain")


def _finish(axes: np.ndarray, found: Mapping[str, style.Look], *, own_figure: bool) -> None:
    """Put the legend above, and the panels under the house settings."""
    handles = [
        *(Line2D([], [], color=look.color, marker=look.marker, label=label, **_MARK) for label, look in found.items()),
        Line2D([], [], color=style.INK, label="R-hat, bulk size"),
        Line2D([], [], color=style.INK, linestyle=_TAIL_LINE, label="tail size"),
        Line2D([], [], color=style.GREY, marker="o", linestyle="none", label="what the verdict reads", **_MARK),
        Patch(color=style.LIGHT_GREY, alpha=0.6, linewidth=0, label="fails"),
    ]
    style.shared_legend(axes, handles, own_figure=own_figure)
    style.settle(axes.flat)


def _log_excess(rhat: np.ndarray) -> np.ndarray:
    """Return log₁₀ (R-hat − 1), of what the axis shows at least."""
    return np.log10(np.maximum(np.asarray(rhat) - 1, _LEAST_EXCESS))


def _from_log_excess(logarithm: np.ndarray) -> np.ndarray:
    """Return the inverse of `_log_excess`."""
    return 1 + 10 ** np.asarray(logarithm)
