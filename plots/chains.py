"""The chains of one sampler, through ArviZ: do they explore the same values, do they move, is their energy explored.

Of a network's weights they say little: symmetries put chains into mirrored modes that predict the same. Whether a fit
converged is asked of predictions, in ``hmcvi.inference.diagnostics`` and `hmcvi.plots.convergence`.
"""

from collections.abc import Sequence
from typing import Any

import arviz_plots
import numpy as np
import xarray as xr
from arviz_plots import PlotCollection
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from hmcvi.inference.diagnostics import EBFMI_LIMIT, ebfmi
from hmcvi.inference.score_base import checked

from . import style
from ._weights import weights_of

__all__ = ["energy", "rank", "trace"]

# A density of fewer draws shows the kernel and not them.
_LEAST_DRAWS = 10


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
    weights = weights_of(tree, sites, num_weights)
    num_chains = weights.sizes["chain"]
    if num_chains < 2:
        raise ValueError(
            f"the posterior has {num_chains} chain but a rank plot compares at least 2:"
            " pass a NUTS fit (draws of a variational fit are not chains)"
        )
    colors = _chain_colors(num_chains)
    collection = arviz_plots.plot_rank(
        xr.DataTree.from_dict({"posterior": weights}),
        col_wrap=_columns(weights),
        color=colors,
        visuals={
            "ecdf_lines": {"width": 0.9},
            "title": {"size": 7, "color": style.INK},
            "xlabel": {"text": "fractional rank", "size": 7, "color": style.INK},
            "remove_axis": False,
        },
        figure_kwargs={**_figure_of(weights), "sharey": True},
        backend="matplotlib",
    )
    _finish_rank(collection, colors)
    return collection


@style.styled
def trace(tree: xr.DataTree, *, sites: Sequence[str] | None = None, num_weights: int = 6) -> PlotCollection:
    """Draw, for a few weights, the draws of every chain of one fit in their order.

    A chain that mixes is a band of even height; one that drifts, or stays at another level than the others, is seen at
    once. Ticks below mark divergent draws, where the sampler records any.

    Args:
        tree: an ArviZ DataTree with the group ``posterior`` (chain, draw, ...); ``diverging`` (chain, draw) of its
            ``sample_stats`` is drawn where there is one.
        sites: the sites to choose from; all when None.
        num_weights: how many scalars to draw, spread evenly over the sites and within each.

    Returns:
        ArviZ's plot collection; its matplotlib figure is ``.viz["figure"].item()``.

    Raises:
        ValueError: the tree has no posterior or only one draw, a site is missing, or a draw is not finite.

    Example:
        >>> from arviz_base import from_dict
        >>> draws = np.random.default_rng(0).normal(size=(4, 50))
        >>> trace(from_dict({"posterior": {"lengthscale": draws}})).viz["trace"].dataset.sizes["chain"]
        4
    """
    weights = weights_of(tree, sites, num_weights)
    if weights.sizes["draw"] < 2:
        raise ValueError("the posterior has 1 draw but a trace joins at least 2: pass the fit of a sampler")
    groups = {"posterior": weights}
    diverging = _stat(tree, "diverging")
    if diverging is not None:
        groups["sample_stats"] = xr.Dataset({"diverging": (("chain", "draw"), diverging.astype(bool))}, weights.coords)
    colors = _chain_colors(weights.sizes["chain"])
    collection = arviz_plots.plot_trace(
        xr.DataTree.from_dict(groups),
        col_wrap=_columns(weights),
        color=colors,
        visuals={
            "trace": {"width": 0.5, "alpha": 0.8},
            "divergence": {"color": style.INK, "size": 14, "width": 0.6},
            "title": {"size": 7, "color": style.INK},
            "xlabel": False,
        },
        figure_kwargs=_figure_of(weights),
        backend="matplotlib",
    )
    axes, num_columns = _shown(collection)
    style.settle(axes)
    for place, ax in enumerate(axes):
        if place + num_columns >= len(axes):
            ax.tick_params(labelbottom=True)
            ax.set_xlabel("draw")
        if place % num_columns == 0:
            ax.set_ylabel("value")
        ax.set_xlim(0, weights.sizes["draw"] - 1)
        ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    handles = [Line2D([], [], color=color, label=f"chain {chain}") for chain, color in enumerate(colors)]
    if diverging is not None and diverging.any():
        mark = Line2D([], [], color=style.INK, linestyle="none", marker="|", label=f"{diverging.sum():.0f} divergent")
        handles.append(mark)
    style.shared_legend(axes, handles, own_figure=True)
    return collection


@style.styled
def energy(tree: xr.DataTree) -> PlotCollection:
    """Draw whether a Hamiltonian sampler explores its energies, and E-BFMI of each chain.

    Right, the marginal distribution of the energy beside that of its moves from draw to draw. Where moves are much
    narrower, the sampler needs many draws from one level to another, and the tails are not explored. Left, for each
    chain the energy Bayesian fraction of missing information, Σ (Eₙ − Eₙ₋₁)² / Σ (Eₙ − Ē)²: the verdict on a fit asks
    for 0.3 at least.

    Args:
        tree: an ArviZ DataTree whose group ``sample_stats`` has ``energy`` (chain, draw), in nats.

    Returns:
        ArviZ's plot collection; its matplotlib figure is ``.viz["figure"].item()``.

    Raises:
        ValueError: the tree has no energy, fewer than 10 draws a chain, one that is not finite, or all are the same.

    Example:
        >>> from arviz_base import from_dict
        >>> draws = np.random.default_rng(0).normal(size=(4, 50))
        >>> tree = from_dict({"posterior": {"lengthscale": draws}, "sample_stats": {"energy": draws**2}})
        >>> energy(tree).get_viz("bfmi_points", "bfmi").get_offsets().shape
        (4, 2)

    Source: Betancourt (2016), "Diagnosing suboptimal cotangent disintegrations in Hamiltonian Monte Carlo".
    """
    values = _stat(tree, "energy")
    if values is None:
        raise ValueError("tree has no energy in its group 'sample_stats': pass the fit of NUTS or HMC")
    if values.shape[1] < _LEAST_DRAWS:
        raise ValueError(
            f"the energy has {values.shape[1]} draws a chain but its distribution needs {_LEAST_DRAWS}: draw more"
        )
    if np.ptp(values) == 0:
        raise ValueError(f"the energy is {values[0, 0]:g} in every draw: look for a sampler whose chains are stuck")
    colors = _chain_colors(len(values))
    visuals: dict[Any, Any] = {
        "bfmi_points": {"color": colors, "size": 22},
        "ref_line": {"color": style.INK, "width": 0.8, "linestyle": "--"},
        "dist": {"width": 1.3},
        "face": {"alpha": 0.2},
        "title": False,
        "ylabel": False,
        "legend": False,
        "remove_axis": False,
    }
    with np.errstate(invalid="ignore"):  # 0 / 0 of a chain that is stuck, whose E-BFMI we take to be 0
        collection = arviz_plots.plot_energy(
            xr.DataTree.from_dict({"sample_stats": xr.Dataset({"energy": (("chain", "draw"), values)})}),
            kind="kde",
            # Beyond the draws by one standard deviation: ArviZ's own densities end in a cliff at the first and last.
            stats={"dist": {"bound_correction": False, "extend": True, "extend_fct": 1.0}},
            threshold=EBFMI_LIMIT,
            color=[style.GREY, colors[0]],
            visuals=visuals,
            figure_kwargs={
                "figsize": (style.PAGE_WIDTH, 1.7 + 0.12 * len(values)),
                "figsize_units": "inches",
                "width_ratios": [1, 2],
            },
            backend="matplotlib",
        )
    _finish_energy(collection, ebfmi(values), colors)
    return collection


def _chain_colors(num_chains: int) -> list[str]:
    """Return tones of the colour of NUTS, one a chain: the chains of one method are equals, not methods."""
    return [look.color for look in style.looks(f"nuts chain {chain}" for chain in range(num_chains)).values()]


def _stat(tree: xr.DataTree, name: str) -> np.ndarray | None:
    """Return one of the sampler's statistics (chain, draw); None where it records none."""
    if not isinstance(tree, xr.DataTree) or "sample_stats" not in tree.children or name not in tree["sample_stats"]:
        return None
    return checked(name, tree["sample_stats"][name].transpose("chain", "draw").values, "chain", "draw")


def _columns(weights: xr.Dataset) -> int:
    """Return how many panels stand in a row: three at most, in rows of nearly one length."""
    num_rows = -(-len(weights) // 3)
    return -(-len(weights) // num_rows)


def _figure_of(weights: xr.Dataset) -> dict[str, Any]:
    """Return the size of a figure with a panel a weight, in ArviZ's words."""
    num_columns = _columns(weights)
    width = 2.33 * num_columns if num_columns > 1 else style.COLUMN_WIDTH
    return {"figsize": (width, 0.5 + 1.4 * -(-len(weights) // num_columns)), "figsize_units": "inches"}


def _shown(collection: PlotCollection) -> tuple[np.ndarray, int]:
    """Return the panels that are drawn, in their order, and how many stand in a row."""
    axes = np.array([ax for ax in collection.viz["figure"].item().axes if ax.axison])
    return axes, max(collection.viz["col_index"].dataset.values()).item() + 1


def _finish_rank(collection: PlotCollection, colors: Sequence[str]) -> None:
    """Set what plot_rank has no argument for: labels on the outer panels only, the marks and the legend."""
    axes, num_columns = _shown(collection)
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


def _finish_energy(collection: PlotCollection, shares: np.ndarray, colors: Sequence[str]) -> None:
    """Set what plot_energy has no argument for: the chains' names and numbers, the limit's, axis labels and legend."""
    ax_share, ax = collection.viz["figure"].item().axes
    style.settle((ax_share, ax))
    collection.get_viz("bfmi_points", "bfmi").set_offsets(np.stack([shares, np.arange(len(shares))], axis=1))
    for chain, share in enumerate(shares):
        ax_share.annotate(f"{share:.2f}", (share, chain), (5, 0), textcoords="offset points", va="center", fontsize=6.5)
    ax_share.set(
        xlim=(0, 1.25 * max(*shares, EBFMI_LIMIT)),
        ylim=(len(colors) - 0.4, -0.6),
        yticks=range(len(colors)),
        yticklabels=[f"chain {chain}" for chain in range(len(colors))],
        xlabel="E-BFMI",
    )
    ax_share.grid(False, axis="y")
    ax.set(ylim=(0, None), xlabel="energy (nats)", ylabel="density")
    handles = [
        Line2D([], [], color=style.GREY, label="energy, less its mean"),
        Line2D([], [], color=colors[0], label="move from draw to draw"),
        Line2D([], [], color=style.INK, linewidth=0.8, linestyle="--", label=f"least E-BFMI, {EBFMI_LIMIT:g}"),
    ]
    style.shared_legend(np.array([ax]), handles, own_figure=True)
