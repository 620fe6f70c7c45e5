"""Posteriors of single weights, all methods side by side: intervals and ridges through ArviZ, and densities.

Weights of a network have symmetries: chains may sit in mirrored modes and predict the same. These figures
show what a method does to a weight; whether a fit converged is asked of predictions, in
``hmcvi.inference.diagnostics``.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import arviz_plots
import arviz_stats  # noqa: F401  (registers .azstats)
import numpy as np
import xarray as xr
from arviz_plots import PlotCollection
from arviz_stats.base import array_stats
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from . import style
from ._panels import panels
from ._weights import same_weights

__all__ = ["forest", "marginals", "ridge"]

# The two intervals of the forest: the thick line and the thin line.
_INNER, _OUTER = 0.5, 0.95
# A density of fewer draws shows the kernel and not them: each is a line of its own, as of MAP or an ensemble.
_LEAST_DRAWS = 10
# Height of a ridge: the methods of a weight stand on lines within 0.4, and the next weight's 0.6 above them.
_RIDGE = 0.55


@style.styled
def forest(
    trees: Mapping[str, xr.DataTree], *, sites: Sequence[str] | None = None, num_weights: int = 8
) -> PlotCollection:
    """Draw the marginal posteriors of a few weights, all methods side by side.

    For each weight and method: the median, the central 50 % (thick) and the central 95 % (thin), over all
    chains together.

    Args:
        trees: for each label an ArviZ DataTree with the group ``posterior`` (chain, draw, ...); numbers of
            chains and draws may differ between labels.
        sites: the sites to choose from; all that every tree has, in one shape, when None.
        num_weights: how many scalars to draw, spread evenly over the sites and within each.

    Returns:
        ArviZ's plot collection; its matplotlib figure is ``.viz["figure"].item()``.

    Raises:
        TypeError: ``trees`` is not a mapping.
        ValueError: a tree has no posterior, a site is missing, the trees share none, or a draw is not finite.

    Example:
        >>> from arviz_base import from_dict
        >>> tree = from_dict({"posterior": {"lengthscale": np.linspace(0.5, 1.5, 50)[None, :]}})
        >>> forest({"svi": tree}).data.model.values.tolist()
        ['svi']
    """
    weights = same_weights(trees, sites, num_weights)
    labels = list(weights)
    found = style.looks(labels)

    def over_draws(statistic: str, **kwargs: Any) -> xr.Dataset:
        """One statistic of every method. Taken before methods meet: they differ in their numbers of draws."""
        parts = [getattr(ds.azstats, statistic)(dim=["chain", "draw"], **kwargs) for ds in weights.values()]
        return xr.concat(parts, dim="model").assign_coords(model=labels)

    # plot_forest reads only names and labels from this, since every statistic is handed over below.
    frame = xr.concat([ds.isel(chain=[0], draw=[0]) for ds in weights.values()], dim="model", join="override")
    collection = arviz_plots.plot_forest(
        xr.DataTree.from_dict({"posterior": frame.assign_coords(model=labels)}),
        combined=True,
        point_estimate="median",
        ci_kind="eti",
        stats={
            "trunk": over_draws("eti", prob=_INNER),
            "twig": over_draws("eti", prob=_OUTER),
            "point_estimate": over_draws("median", round_to="none"),
        },
        aes={"color": ["model"], "marker": ["model"]},
        color=[look.color for look in found.values()],
        marker=[look.marker for look in found.values()],
        aes_by_visuals={"credible_interval": ["color", "y"], "point_estimate": ["color", "y", "marker"]},
        visuals={
            "twig": {"width": 0.8},
            "trunk": {"width": 2.2},
            "point_estimate": {"size": 12, "facecolor": "white", "width": 0.9},
            "labels": {"size": 6.5, "color": style.INK},
            "ticklabels": False,
        },
        figure_kwargs={
            "figsize": (style.COLUMN_WIDTH, 0.8 + len(frame) * (0.14 + 0.1 * len(labels))),
            "figsize_units": "inches",
            "width_ratios": [1, 2.6],
        },
        backend="matplotlib",
    )
    _finish_forest(collection, found)
    return collection


@style.styled
def ridge(
    trees: Mapping[str, xr.DataTree], *, sites: Sequence[str] | None = None, num_weights: int = 8
) -> PlotCollection:
    """Draw the marginal densities of a few weights as ridges on one axis, all methods side by side.

    Where a forest has intervals, a ridge has the shape: a skew, or a second mode of chains that differ. Every ridge has
    one height, so that places, widths and shapes compare and heights say nothing: a density is in `marginals`. A
    method of fewer than 10 draws has a line at each.

    Args:
        trees: as in `forest`.
        sites: as in `forest`.
        num_weights: as in `forest`.

    Returns:
        ArviZ's plot collection; its matplotlib figure is ``.viz["figure"].item()``.

    Raises:
        TypeError, ValueError: as `forest` does.

    Example:
        >>> from arviz_base import from_dict
        >>> tree = from_dict({"posterior": {"lengthscale": np.linspace(0.5, 1.5, 50)[None, :]}})
        >>> list(ridge({"svi": tree}).viz["edge"].data_vars)
        ['lengthscale']
    """
    weights = same_weights(trees, sites, num_weights)
    labels = list(weights)
    found = style.looks(labels)
    # Methods differ in their numbers of draws: NaN fills up the shorter ones, and the density leaves it out.
    flat = [
        xr.Dataset({name: ("sample", ds[name].values.ravel()) for name in ds}).assign_coords(
            sample=np.arange(ds.sizes["chain"] * ds.sizes["draw"])
        )
        for ds in weights.values()
    ]
    frame = xr.concat(flat, dim="model", join="outer").assign_coords(model=labels)
    collection = arviz_plots.plot_ridge(
        xr.DataTree.from_dict({"posterior": frame}),
        sample_dims=["sample"],
        kind="kde",
        aes={"color": ["model"], "linestyle": ["model"]},
        color=[look.color for look in found.values()],
        linestyle=[look.linestyle for look in found.values()],
        visuals={
            "edge": {"width": 0.9},
            "face": False,
            "labels": {"size": 6.5, "color": style.INK},
            "ticklabels": False,
        },
        figure_kwargs={
            "figsize": (style.COLUMN_WIDTH, 0.8 + len(frame) * (0.3 + 0.05 * len(labels))),
            "figsize_units": "inches",
            "width_ratios": [1, 2.6],
        },
        backend="matplotlib",
    )
    _finish_ridge(collection, weights, found)
    return collection


@style.styled
def marginals(
    trees: Mapping[str, xr.DataTree],
    *,
    sites: Sequence[str] | None = None,
    num_weights: int = 6,
    axes: np.ndarray | Axes | None = None,
) -> np.ndarray:
    """Draw the posterior marginal densities of a few weights under all methods: a panel a weight, a line a method.

    The density is ArviZ's kernel density estimate of all draws, chains together. Its axis has a square-root scale, on
    which a posterior that is far too narrow does not flatten the others. The first method, the reference, is filled:
    put the sampler first. A method of fewer than 10 draws has a vertical line at each: MAP has one, an ensemble one a
    member.

    Args:
        trees: as in `forest`.
        sites: as in `forest`.
        num_weights: as in `forest`; a panel each.
        axes: where to draw, at least a panel a weight; a figure of three panels a row is made when None.

    Returns:
        The axes (row, column).

    Raises:
        TypeError, ValueError: as `forest` does; ``axes`` has too few panels.

    Example:
        >>> from arviz_base import from_dict
        >>> tree = from_dict({"posterior": {"lengthscale": np.linspace(0.5, 1.5, 50)[None, :]}})
        >>> marginals({"svi": tree})[0, 0].get_title()
        'lengthscale'
    """
    weights = same_weights(trees, sites, num_weights)
    names = list(next(iter(weights.values())))
    found = style.looks(weights)
    axes, own_figure = panels(axes, len(names), what="weights", height=1.4, most_columns=3, share=False)
    for name, ax in zip(names, axes.flat, strict=False):
        draws = {label: weights[label][name].values.ravel() for label in found}
        positive = all((values > 0).all() for values in draws.values())
        peaks = [
            _draw_marginal(ax, draws[label], look, alpha=0.25 if place == 0 else 0.08, positive=positive)
            for place, (label, look) in enumerate(found.items())
        ]
        _set_limits(ax, draws, max(peaks) or 1.0)
        ax.set_title(name)
    for ax in axes.flat[len(names) :]:
        ax.set_visible(False)
    style.shared_labels(axes, "value", "density (square-root scale)", own_figure=own_figure)
    style.shared_legend(axes, _line_handles(found), own_figure=own_figure)
    style.settle(axes.flat)
    return axes


def _set_limits(ax: Axes, draws: Mapping[str, np.ndarray], tallest: float) -> None:
    """Show what holds 99.8 % of every method's draws, on an axis where a narrow density does not flatten a wide one."""
    ends = np.concatenate([np.quantile(values, (0.001, 0.999)) for values in draws.values()])
    margin = 0.05 * np.ptp(ends) or 0.5
    ax.set_xlim(ends.min() - margin, ends.max() + margin)
    ax.set_yscale("function", functions=(lambda density: np.sqrt(np.maximum(density, 0)), np.square))
    ax.set_ylim(0, 1.1 * tallest)
    ax.yaxis.set_major_locator(MaxNLocator(3))


def _finish_forest(collection: PlotCollection, found: Mapping[str, style.Look]) -> None:
    """Set what plot_forest has no argument for: the axis, and the legend of its markers."""
    ax = _finish_rows(collection)
    handles = [
        Line2D([], [], color=look.color, linewidth=2.2, marker=look.marker, markerfacecolor="white", label=label)
        for label, look in found.items()
    ]
    style.shared_legend(np.array([ax]), handles, own_figure=True)


def _finish_ridge(
    collection: PlotCollection, weights: Mapping[str, xr.Dataset], found: Mapping[str, style.Look]
) -> None:
    """Set what plot_ridge has no argument for: one height for every ridge, lines at few draws, axis and legend.

    ArviZ gives the tallest ridge of all the height: one narrow weight would flatten all others.
    """
    ax = collection.viz["figure"].item().axes[1]
    baselines = collection.get_aes_as_dataset("y")
    few: list[np.ndarray] = []  # ends of the lines at few draws, which are no lines to relim
    for name in collection.viz["edge"].dataset:
        for label, look in found.items():
            line, draws = collection.get_viz("edge", name, model=label), weights[label][name].values.ravel()
            baseline = baselines[name].sel(model=label).item()
            if not _has_density(draws):
                line.set_data([], [])
                ax.vlines(np.unique(draws), baseline, baseline + _RIDGE, color=look.color, linewidth=0.9)
                few += [np.array([[draw, end] for draw in draws for end in (baseline, baseline + _RIDGE)])]
                continue
            height = line.get_ydata() - baseline
            line.set_ydata(baseline + height * _RIDGE / height.max())
            ax.fill_between(line.get_xdata(), baseline, line.get_ydata(), color=look.color, alpha=0.15, linewidth=0)
    ax.relim()
    for ends in few:
        ax.update_datalim(ends)
    ax.autoscale_view(scaley=False)
    _finish_rows(collection, margin=0.15)
    style.shared_legend(np.array([ax]), _line_handles(found), own_figure=True)


def _finish_rows(collection: PlotCollection, *, margin: float = 0.4) -> Axes:
    """Put the axis of values under the weights of a forest or ridge, with a line at zero, and return it."""
    ax_labels, ax = collection.viz["figure"].item().axes
    style.settle((ax,))
    ax_labels.set_axis_off()
    ax.grid(False, axis="y")
    low, high = ax.dataLim.intervaly
    ax.set_ylim(low - margin, high + margin)
    ax.axvline(0, color=style.GREY, linewidth=0.6, zorder=0.5)
    ax.set_xlabel("value")
    return ax


def _line_handles(found: Mapping[str, style.Look]) -> list[Line2D]:
    """Return a legend's handle for each method that is drawn as a line."""
    return [Line2D([], [], color=look.color, linestyle=look.linestyle, label=label) for label, look in found.items()]


def _has_density(draws: np.ndarray) -> bool:
    """Whether draws are many enough, and not all the same, for a kernel density."""
    return len(draws) >= _LEAST_DRAWS and bool(np.ptp(draws) > 0)


def _draw_marginal(ax: Axes, draws: np.ndarray, look: style.Look, *, alpha: float, positive: bool) -> float:
    """Draw the density of one weight under one method and return its height, or draw a line at each of few draws."""
    if not _has_density(draws):
        for value in np.unique(draws):
            ax.axvline(value, color=look.color, linestyle=look.linestyle, linewidth=1.0)
        return 0.0
    # A tail goes on by one standard deviation of the draws. Not so beyond 0 where no draw is negative, as of a scale:
    # there ArviZ reflects at the ends of the draws.
    bounded = positive and draws.min() < draws.std()
    grid, density, _ = array_stats.kde(draws, bound_correction=bounded, extend=not bounded, extend_fct=1.0)
    ax.fill_between(grid, density, color=look.color, alpha=alpha, linewidth=0)
    ax.plot(grid, density, color=look.color, linestyle=look.linestyle)
    return float(density.max())
