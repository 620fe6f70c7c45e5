"""What the weights look like, layer by layer: their values, and how sure the posterior is of each."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullFormatter
from numpy.typing import ArrayLike

from . import style
from ._arrays import check_same_keys, checked_mapping
from ._panels import panels

__all__ = ["signal_to_noise", "weight_histograms"]

_NUM_BINS = 81
_GRID = 400

# Signal-to-noise below this counts as this: a weight that was pruned has none at all, −∞ decibels.
_LOWEST_DECIBELS = -30.0


@style.styled
def weight_histograms(
    weights: Mapping[str, Mapping[str, ArrayLike]], *, axes: np.ndarray | Axes | None = None
) -> np.ndarray:
    """Draw the density of the weights of each layer, one panel a layer and one line a method.

    The axis holds 99.8 % of the weights of every method; the density is on a log scale, on which a Normal is a
    parabola, so that a narrow peak at 0 and wide tails show in one picture. What is exactly 0, as pruned weights
    are, is no density: the panel says its share.

    Args:
        weights: for each method a mapping from layer to weights, flattened (weight,): posterior draws, means, or both
            before and after pruning, under names of their own. Every method has the same layers.
        axes: where to draw, as many as there are layers; a figure is made when None.

    Returns:
        The axes (row, column) of the panels; those without a layer are hidden.

    Raises:
        TypeError: a level of ``weights`` is not a mapping.
        ValueError: the methods differ in their layers, or ``axes`` has too few panels.

    Example:
        >>> random = np.random.default_rng(0)
        >>> axes = weight_histograms({"bbb": {"hidden_0": random.normal(size=1000), "out": random.normal(size=50)}})
        >>> [ax.get_title() for ax in axes.flat]
        ['hidden_0', 'out']
    """
    checked = _checked_layers("weights", weights)
    layers = list(next(iter(checked.values())))
    axes, own_figure = panels(axes, len(layers), what="layers", height=1.5, most_columns=3, share=False)
    for layer, ax in zip(layers, axes.flat, strict=False):
        low, high = _range([of[layer][of[layer] != 0] for of in checked.values()])
        # few weights, as a MAP fit has in a small layer, would leave most of the bins empty
        fewest = min(len(of[layer]) for of in checked.values())
        edges = np.linspace(low, high, min(_NUM_BINS, max(7, int(2 * np.sqrt(fewest)))) + 1)
        notes = []
        for (method, of), look in zip(checked.items(), style.looks(checked).values(), strict=True):
            present = of[layer][of[layer] != 0]
            removed = 1 - len(present) / len(of[layer])
            if removed > 0:
                notes.append((f"{method}: {100 * removed:.3g} % are 0", look.color))
            _step(ax, present, edges, look, total=len(of[layer]))
        ax.set_yscale("log")
        for i, (note, color) in enumerate(notes):
            ax.text(
                0.03,
                0.97 - 0.1 * i,
                note,
                transform=ax.transAxes,
                va="top",
                fontsize=6,
                color=style.text_color(color),
            )
        if notes:  # room for them above the lines
            bottom, top = ax.get_ylim()
            ax.set_ylim(bottom, top * (top / bottom) ** (0.05 + 0.12 * len(notes)))
        ax.yaxis.set_minor_formatter(NullFormatter())
        ax.set(title=layer, xlim=(low, high))
        ax.xaxis.set_major_locator(MaxNLocator(5))
    _finish(axes, checked, "weight", "density", own_figure=own_figure)
    return axes


@style.styled
def signal_to_noise(
    ratios: Mapping[str, Mapping[str, ArrayLike]], *, axes: np.ndarray | Axes | None = None
) -> np.ndarray:
    """Draw the share of weights below each signal-to-noise |μ| / σ in decibels: a panel a layer, a line a method.

    10 log10(|μ| / σ), as in figure 3 of Blundell et al. (2015). The grey line at 0 dB marks a mean as large as its
    standard deviation; weights far to its left can be pruned, and the height of the line there is how many they are.
    The axis begins at −30 dB: what lies below is the height at its left end.

    Args:
        ratios: for each method a mapping from layer to ratios, flattened (weight,), none below 0.
        axes: as in `weight_histograms`.

    Returns:
        As `weight_histograms` does.

    Raises:
        TypeError, ValueError: as `weight_histograms` does; a ratio is below 0.

    Example:
        >>> axes = signal_to_noise({"bbb": {"out": [0.1, 1.0, 3.0, 0.5]}})
        >>> axes[0, 0].get_title()
        'out'
    """
    checked = _checked_layers("ratios", ratios)
    decibels: dict[str, dict[str, np.ndarray]] = {}
    for method, of in checked.items():
        for layer, values in of.items():
            if (values < 0).any():
                raise ValueError(f"ratios[{method!r}][{layer!r}] goes down to {values.min():g}: |μ| / σ is at least 0")
            floor = 10 ** (_LOWEST_DECIBELS / 10)
            decibels.setdefault(method, {})[layer] = 10 * np.log10(np.maximum(values, floor))
    layers = list(next(iter(decibels.values())))
    axes, own_figure = panels(axes, len(layers), what="layers", height=1.5, most_columns=3, share=False)
    highest = max(5.0, *(float(values.max()) for of in decibels.values() for values in of.values()))
    grid = np.linspace(_LOWEST_DECIBELS, highest, _GRID)
    for layer, ax in zip(layers, axes.flat, strict=False):
        ax.axvline(0, color=style.GREY, linewidth=0.8, zorder=1)
        for (_, of), look in zip(decibels.items(), style.looks(decibels).values(), strict=True):
            below = np.searchsorted(np.sort(of[layer]), grid, side="right") / len(of[layer])
            ax.plot(grid, below, color=look.color, linestyle=look.linestyle)
        ax.set(title=layer, xlim=(grid[0], grid[-1]), ylim=(0, 1.02))
        ax.xaxis.set_major_locator(MaxNLocator(5))
    _finish(axes, decibels, "signal-to-noise |μ| / σ (dB)", "share of weights below", own_figure=own_figure)
    return axes


def _checked_layers(name: str, values: Mapping[str, Mapping[str, ArrayLike]]) -> dict[str, dict[str, np.ndarray]]:
    if not isinstance(values, Mapping) or not values:
        raise TypeError(f"{name} must map each method to a mapping from layer to an array (weight,)")
    checked = {method: checked_mapping(f"{name}[{method!r}]", of, "weight") for method, of in values.items()}
    check_same_keys(name, checked, "layers")
    return checked


def _range(arrays: list[np.ndarray]) -> tuple[float, float]:
    """Return a range, symmetric about 0, that holds 99.8 % of each array."""
    reach = max((float(np.quantile(np.abs(a), 0.998)) for a in arrays if len(a)), default=1.0)
    return -(reach or 1.0), reach or 1.0


def _step(ax: Axes, values: np.ndarray, edges: np.ndarray, look: style.Look, *, total: int) -> None:
    counts, _ = np.histogram(values, edges)
    density = counts / (total * np.diff(edges))
    middle = (edges[1:] + edges[:-1]) / 2
    # a line through the middles keeps the method's line style, which tells methods apart in grey print
    ax.plot(middle, np.where(density > 0, density, np.nan), color=look.color, linestyle=look.linestyle, linewidth=1.1)


def _finish(axes: np.ndarray, methods: Mapping[str, object], xlabel: str, ylabel: str, *, own_figure: bool) -> None:
    handles = [
        Line2D([], [], color=look.color, linestyle=look.linestyle, label=method)
        for method, look in style.looks(methods).items()
    ]
    style.shared_labels(axes, xlabel, ylabel, own_figure=own_figure)
    style.shared_legend(axes, handles, own_figure=own_figure)
    style.settle(axes.flat)
