"""Posteriors of single weights, through ArviZ: methods side by side, and the chains of one NUTS fit.

Weights of a network have symmetries: chains may sit in mirrored modes and predict the same. These figures
show what a method does to a weight; whether a fit converged is asked of predictions, in
``hmcvi.inference.diagnostics``.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import arviz_plots
import arviz_stats  # noqa: F401  (registers .azstats)
import numpy as np
import xarray as xr
from arviz_plots import PlotCollection
from matplotlib.lines import Line2D

from hmcvi.inference.score_base import checked

from . import style

__all__ = ["forest", "rank"]

# The two intervals of the forest: the thick line and the thin line.
_INNER, _OUTER = 0.5, 0.95


@style.styled
def forest(
    trees: Mapping[str, xr.DataTree], *, sites: Sequence[str] | None = None, num_weights: int = 8
) -> PlotCollection:
    """Draw the marginal posteriors of a few weights, all methods side by side.

    For each weight and method: the median, the central 50 % (thick) and the central 95 % (thin), over all
    chains together. The few weights are taken out before anything is computed, because ArviZ needs minutes
    for thousands.

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
    if not isinstance(trees, Mapping) or not trees:
        raise TypeError("trees must map at least one label to its DataTree, such as {'nuts': tree}")
    posteriors = {label: _posterior(tree, f"trees[{label!r}]") for label, tree in trees.items()}
    first = next(iter(posteriors.values()))
    shared = [
        site
        for site in first
        if all(site in p and p[site].shape[2:] == first[site].shape[2:] for p in posteriors.values())
    ]
    chosen = choose_weights(_sizes(first, shared, sites), num_weights)
    weights = {label: _scalars(posterior, chosen) for label, posterior in posteriors.items()}
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
def rank(tree: xr.DataTree, *, sites: Sequence[str] | None = None, num_weights: int = 6) -> PlotCollection:
    """Draw, for a few weights, whether the chains of one fit explore the same values.

    Draws are ranked over all chains together; the line of a chain is the difference between the distribution
    function of its ranks and the uniform one. Chains that agree wander around zero; a chain apart from the
    others leaves it. ArviZ prints the p-value of a test for uniformity, and marks the points that speak
    against it.

    Args:
        tree: an ArviZ DataTree with the group ``posterior`` (chain, draw, ...), of at least two chains.
        sites: the sites to choose from; all when None.
        num_weights: how many scalars to draw, spread evenly over the sites and within each.

    Returns:
        ArviZ's plot collection; its matplotlib figure is ``.viz["figure"].item()``.

    Raises:
        ValueError: the tree has no posterior or only one chain, a site is missing, or a draw is not finite.

    Example:
        >>> from arviz_base import from_dict
        >>> draws = np.random.default_rng(0).normal(size=(4, 50))
        >>> rank(from_dict({"posterior": {"lengthscale": draws}})).data.sizes["chain"]
        4
    """
    posterior = _posterior(tree, "tree")
    num_chains = posterior.sizes["chain"]
    if num_chains < 2:
        raise ValueError(
            f"the posterior has {num_chains} chain but a rank plot compares at least 2:"
            " pass a NUTS fit (draws of a variational fit are not chains)"
        )
    weights = _scalars(posterior, choose_weights(_sizes(posterior, list(posterior), sites), num_weights))
    colors = _chain_colors(num_chains)
    num_columns = min(3, len(weights))
    num_rows = -(-len(weights) // num_columns)
    collection = arviz_plots.plot_rank(
        xr.DataTree.from_dict({"posterior": weights}),
        col_wrap=num_columns,
        color=colors,
        visuals={
            "ecdf_lines": {"width": 0.9},
            "title": {"size": 7, "color": style.INK},
            "xlabel": {"text": "fractional rank", "size": 7, "color": style.INK},
            "remove_axis": False,
        },
        figure_kwargs={
            "figsize": (2.33 * num_columns if num_columns > 1 else style.COLUMN_WIDTH, 0.5 + 1.4 * num_rows),
            "figsize_units": "inches",
            "sharey": True,
        },
        backend="matplotlib",
    )
    _finish_rank(collection, colors)
    return collection


def choose_weights(sizes: Mapping[str, tuple[int, ...]], num_weights: int) -> list[tuple[str, tuple[int, ...]]]:
    """Choose scalars evenly over sites, and evenly within each, always the same ones.

    Args:
        sizes: for each site the shape of one draw.
        num_weights: how many to choose; all of them where there are fewer.

    Returns:
        Pairs of a site and the index of one element, in the order of the sites.

    Raises:
        ValueError: ``num_weights`` is less than 1, or there is nothing to choose from.

    Example:
        >>> choose_weights({"out.kernel": (4, 3), "lengthscale": ()}, 3)
        [('out.kernel', (0, 2)), ('out.kernel', (2, 1)), ('lengthscale', ())]
    """
    if num_weights < 1:
        raise ValueError(f"num_weights is {num_weights}: pass at least 1")
    capacity = {site: int(np.prod(shape)) for site, shape in sizes.items() if np.prod(shape) > 0}
    if not capacity:
        raise ValueError("no site has an element to draw: pass trees with a posterior that holds weights")
    if len(capacity) > num_weights:
        kept = np.linspace(0, len(capacity) - 1, num_weights).round().astype(int)
        capacity = {site: capacity[site] for site in np.array(list(capacity))[kept].tolist()}
    # Deal one weight to each site in turn until the number is reached or every site is exhausted.
    dealt = dict.fromkeys(capacity, 0)
    while sum(dealt.values()) < min(num_weights, sum(capacity.values())):
        for site in capacity:
            if dealt[site] < capacity[site] and sum(dealt.values()) < num_weights:
                dealt[site] += 1
    chosen = []
    for site, number in dealt.items():
        # Steps of the golden section spread over the flattened site without keeping step with its rows, as
        # equal steps would: they find the same column again and again.
        flat: set[int] = set()
        for step in range(1, number + 1):
            place = int(step * 0.6180339887 % 1 * capacity[site])
            while place in flat:
                place = (place + 1) % capacity[site]
            flat.add(place)
        chosen += [(site, tuple(int(i) for i in np.unravel_index(place, sizes[site]))) for place in sorted(flat)]
    return chosen


def _posterior(tree: xr.DataTree, name: str) -> xr.Dataset:
    """Return the posterior of a tree as a dataset, sample dimensions first."""
    if not isinstance(tree, xr.DataTree) or "posterior" not in tree.children:
        raise ValueError(f"{name} has no group 'posterior': pass the DataTree that hmcvi.inference.to_datatree returns")
    posterior = tree["posterior"].to_dataset()
    missing = [dim for dim in ("chain", "draw") if dim not in posterior.dims]
    if missing:
        raise ValueError(f"{name} has a posterior without the dimension {missing[0]!r}: pass draws (chain, draw, ...)")
    return posterior.transpose("chain", "draw", ...)


def _sizes(posterior: xr.Dataset, available: Iterable[str], sites: Sequence[str] | None) -> dict[str, tuple[int, ...]]:
    """Return the shape of one draw of each site asked for."""
    available = list(available)
    missing = [site for site in sites or () if site not in available]
    if missing or not available:
        raise ValueError(
            f"the sites {missing or sites} are not in every posterior in the same shape: choose from {available}"
        )
    return {site: posterior[site].shape[2:] for site in sites or available}


def _scalars(posterior: xr.Dataset, chosen: Sequence[tuple[str, tuple[int, ...]]]) -> xr.Dataset:
    """Return a dataset with one scalar variable (chain, draw) for each weight chosen, named as in numpy."""
    scalars = {}
    for site, index in chosen:
        name = f"{site}[{', '.join(map(str, index))}]" if index else site
        scalars[name] = (
            ("chain", "draw"),
            checked(name, posterior[site].values[(..., *index)], "chain", "draw"),
        )
    return xr.Dataset(scalars, coords={dim: np.arange(posterior.sizes[dim]) for dim in ("chain", "draw")})


def _chain_colors(num_chains: int) -> list[str]:
    """Return tones of the colour of NUTS, one a chain: the chains of one method are equals, not methods."""
    return [look.color for look in style.looks(f"nuts chain {chain}" for chain in range(num_chains)).values()]


def _finish_forest(collection: PlotCollection, found: Mapping[str, style.Look]) -> None:
    """Set what plot_forest has no argument for: the line at zero, the axis label and the legend."""
    ax_labels, ax = collection.viz["figure"].item().axes
    style.settle((ax,))
    ax_labels.set_axis_off()
    ax.grid(False, axis="y")
    low, high = ax.dataLim.intervaly
    ax.set_ylim(low - 0.4, high + 0.4)
    ax.axvline(0, color=style.GREY, linewidth=0.6, zorder=0.5)
    ax.set_xlabel("value")
    handles = [
        Line2D([], [], color=look.color, linewidth=2.2, marker=look.marker, markerfacecolor="white", label=label)
        for label, look in found.items()
    ]
    style.shared_legend(np.array([ax]), handles, own_figure=True)


def _finish_rank(collection: PlotCollection, colors: Sequence[str]) -> None:
    """Set what plot_rank has no argument for: labels on the outer panels only, the marks and the legend."""
    axes = np.array([ax for ax in collection.viz["figure"].item().axes if ax.axison])
    num_columns = max(collection.viz["col_index"].dataset.values()).item() + 1
    style.settle(axes)
    low, high = axes[0].get_ylim()
    axes[0].set_ylim(1.1 * low, 1.35 * high)  # shared by all; the p-value has room above the lines
    for place, ax in enumerate(axes):
        ax.axhline(0, color=style.GREY, linewidth=0.6, zorder=0.5)
        if place + num_columns < len(axes):
            ax.set_xlabel("")
        else:
            ax.tick_params(labelbottom=True)
        if place % num_columns == 0:
            ax.set_ylabel("ECDF difference")
        for text in ax.texts:
            text.set(text=text.get_text().replace("(", " (").strip(), fontsize=6, va="top", y=0.97)
            text.set_transform(ax.get_xaxis_transform())
        for marks in ax.collections:
            marks.set(sizes=[2.0], color=style.INK)
    handles = [Line2D([], [], color=color, label=f"chain {chain}") for chain, color in enumerate(colors)]
    style.shared_legend(axes, handles, own_figure=True)
