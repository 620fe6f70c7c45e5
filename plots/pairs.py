"""Pairs of weights that the posterior correlates: what a factorised approximation leaves out."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from scipy.stats import gaussian_kde

from . import style
from ._panels import panels
from ._weights import same_weights

__all__ = ["pairs"]

# Weights among which correlations are looked for: 19,900 pairs, well under a second.
_NUM_CANDIDATES = 200
# Points that are drawn of each method: more only hide each other.
_MOST_POINTS = 500
# Fewer draws have no contour and no correlation worth a number: MAP, the members of an ensemble.
_LEAST_DRAWS = 10
# Share of the draws that a contour should hold.
_HELD = 0.9
# Points of a contour's grid along each axis: 48² under 500 draws cost 0.03 s.
_GRID = 48
# Characters of a correlation with its label that leave room for two in a line.
_HALF_LINE = 17


@style.styled
def pairs(
    trees: Mapping[str, xr.DataTree],
    *,
    sites: Sequence[str] | None = None,
    num_pairs: int = 3,
    reference: str | None = None,
    axes: np.ndarray | Axes | None = None,
) -> np.ndarray:
    """Draw the pairs of weights that the reference correlates most, with the draws of every method.

    At most 200 weights, spread evenly over the sites and within each, are looked at. Correlations are of draws about
    the mean of their chain: chains in mirrored modes are no correlation of weights. Each method has at most 500 of its
    draws as points, the contour of the highest-density region that holds 90 % of these under their Gaussian kernel
    density estimate (SciPy's, with Scott's bandwidth), and the correlation ρ of all its draws in its colour. A method
    of fewer than 10 draws has a marker at each and nothing else: MAP has one, an ensemble one a member.

    Args:
        trees: for each label an ArviZ DataTree with the group ``posterior`` (chain, draw, ...).
        sites: the sites to choose from; all that every tree has, in one shape, when None.
        num_pairs: how many pairs to draw, a panel each; all where there are fewer.
        reference: the label whose correlations choose the pairs; the first when None.
        axes: where to draw, at least a panel a pair; a figure of three panels a row is made when None.

    Returns:
        The axes (row, column).

    Raises:
        TypeError: ``trees`` is not a mapping.
        ValueError: as of `forest`; also where the reference is unknown, has fewer than 10 draws, or no two weights
            that move, or ``axes`` has too few panels.

    Example:
        >>> from arviz_base import from_dict
        >>> draws = np.random.default_rng(0).normal(size=(4, 50, 2))
        >>> draws[..., 1] += 2 * draws[..., 0]
        >>> ax = pairs({"nuts": from_dict({"posterior": {"out.bias": draws}})})[0, 0]
        >>> ax.get_xlabel(), ax.get_ylabel()
        ('out.bias[0]', 'out.bias[1]')
    """
    if num_pairs < 1:
        raise ValueError(f"num_pairs is {num_pairs}: pass at least 1")
    weights = same_weights(trees, sites, _NUM_CANDIDATES)
    reference = next(iter(weights)) if reference is None else reference
    if reference not in weights:
        raise ValueError(f"reference is {reference!r} but trees has {list(weights)}: pass one of them")
    chosen = _most_correlated(weights[reference], num_pairs, reference)
    found = style.looks(weights)
    axes, own_figure = panels(axes, len(chosen), what="pairs", height=2.3, most_columns=3, share=False)
    for (first, second), ax in zip(chosen, axes.flat, strict=False):
        both = {label: np.stack([ds[first].values, ds[second].values]) for label, ds in weights.items()}
        for label, look in found.items():
            _draw_method(ax, both[label], look)
        _set_limits(ax, both, head=_write_correlations(ax, both, found))
        ax.set(xlabel=first, ylabel=second)
    for ax in axes.flat[len(chosen) :]:
        ax.set_visible(False)
    handles = []
    for label, look in found.items():
        few = weights[label].sizes["chain"] * weights[label].sizes["draw"] < _LEAST_DRAWS
        shown: dict[str, Any] = {"linestyle": "none", "marker": look.marker} if few else {"linestyle": look.linestyle}
        handles.append(Line2D([], [], color=look.color, label=label, **shown))
    style.shared_legend(axes, handles, own_figure=own_figure)
    style.settle(axes.flat)
    return axes


def correlation(draws: np.ndarray) -> float:
    """Return the correlation of two weights (2, chain, draw), of draws about the mean of their chain.

    NaN where one of them does not move.

    Example:
        >>> first, second = [[0.0, 1.0, 0.0, 1.0], [5.0, 6.0, 5.0, 6.0]], [[0.0, 0.0, 1.0, 1.0], [5.0, 5.0, 6.0, 6.0]]
        >>> round(correlation(np.array([first, second])), 3) + 0.0
        0.0
        >>> round(float(np.corrcoef(np.ravel(first), np.ravel(second))[0, 1]), 2)
        0.96
    """
    return float(_correlations(draws)[0, 1])


def _correlations(draws: np.ndarray) -> np.ndarray:
    """Return the correlations (weight, weight) of draws (weight, chain, draw) about the mean of their chain."""
    centred = (draws - draws.mean(axis=2, keepdims=True)).reshape(len(draws), -1)
    with np.errstate(divide="ignore", invalid="ignore"):  # NaN of a weight that does not move
        return np.asarray(np.corrcoef(centred))


def _most_correlated(weights: xr.Dataset, num_pairs: int, reference: str) -> list[tuple[str, str]]:
    """Return the names of the pairs of largest absolute correlation, the largest first."""
    names = list(weights)
    draws = np.stack([weights[name].values for name in names])
    if draws[0].size < _LEAST_DRAWS:
        raise ValueError(
            f"the reference {reference!r} has {draws[0].size} draws but a correlation needs {_LEAST_DRAWS}:"
            " pass reference= with the label of a sampler"
        )
    rows, columns = np.triu_indices(len(names), 1)
    size = np.abs(_correlations(draws)[rows, columns]) if len(names) > 1 else np.zeros(0)
    known = np.flatnonzero(np.isfinite(size))
    if not len(known):
        raise ValueError(f"the reference {reference!r} has no two weights that move: choose other sites or reference=")
    best = known[np.argsort(-size[known], kind="stable")][:num_pairs]
    return [(names[row], names[column]) for row, column in zip(rows[best], columns[best], strict=True)]


def _draw_method(ax: Axes, draws: np.ndarray, look: style.Look) -> None:
    """Draw one method's draws (2, chain, draw) as points with a contour, or as markers where they are few."""
    x, y = draws.reshape(2, -1)
    if len(x) < _LEAST_DRAWS:
        edge: dict[str, Any] = {"markeredgecolor": "white", "markeredgewidth": 0.6, "zorder": 3}
        ax.plot(x, y, color=look.color, marker=look.marker, linestyle="none", markersize=6, **edge)
        return
    thinned = np.unique(np.linspace(0, len(x) - 1, _MOST_POINTS).round().astype(int))
    kept = np.stack([x[thinned], y[thinned]])
    ax.scatter(kept[0], kept[1], s=2.5, color=look.color, alpha=0.3, linewidth=0)
    if np.isfinite(_correlations(kept[:, None])).all() and np.linalg.cond(np.cov(kept)) < 1e10:
        _draw_contour(ax, kept, look)


def _draw_contour(ax: Axes, draws: np.ndarray, look: style.Look) -> None:
    """Draw the highest-density contour that holds 90 % of draws (2, draw), under their kernel density estimate."""
    density = gaussian_kde(draws)
    # A quarter beyond the central 99 %, so that the contour closes, and a heavy tail does not coarsen the grid.
    low, high = np.quantile(draws, (0.005, 0.995), axis=1)
    margin = 0.25 * (high - low)
    grid = np.meshgrid(*np.linspace(low - margin, high + margin, _GRID).T)
    height = density(np.reshape(grid, (2, -1))).reshape(_GRID, _GRID)
    level = np.quantile(density(draws), 1 - _HELD)
    ax.contour(*grid, height, levels=[level], colors=look.color, linestyles=[look.linestyle], linewidths=1.1)


def _set_limits(ax: Axes, draws: Mapping[str, np.ndarray], *, head: float) -> None:
    """Show what holds 99.8 % of every method's draws, with a share ``head`` of the height free above."""
    for axis, (name, free) in enumerate((("xlim", 0.0), ("ylim", head))):
        ends = np.concatenate([np.quantile(both[axis], (0.001, 0.999)) for both in draws.values()])
        margin = 0.04 * np.ptp(ends) or 0.5
        low, high = ends.min() - margin, ends.max() + margin
        ax.set(**{name: (low, low + (high - low) / (1 - free))})
    ax.xaxis.set_major_locator(MaxNLocator(5))
    ax.yaxis.set_major_locator(MaxNLocator(5))


def _write_correlations(ax: Axes, draws: Mapping[str, np.ndarray], found: Mapping[str, style.Look]) -> float:
    """Write the correlation under each method in its colour, and return the share of the height that they take."""
    written = {}
    for label, both in draws.items():
        if both[0].size >= _LEAST_DRAWS:
            value = correlation(both)
            number = f"{round(value, 2) + 0.0:.2f}".replace("-", "\N{MINUS SIGN}") if np.isfinite(value) else "–"
            written[label] = f"{label} ρ {number}"
    num_columns = 2 if max(map(len, written.values())) <= _HALF_LINE else 1
    line = 0.08  # of the height of a panel of ours, at this size of text
    for place, (label, text) in enumerate(written.items()):
        row, column = divmod(place, num_columns)
        ax.text(
            0.03 + 0.97 * column / num_columns,
            0.985 - line * row,
            text,
            transform=ax.transAxes,
            color=style.text_color(found[label].color),
            fontsize=6,
            va="top",
        )
    return line * -(-len(written) // num_columns)
