"""Is a model less sure where it should be: entropies inside and outside the training distribution."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import ArrayLike

from hmcvi.inference import scores

from . import style
from ._arrays import checked_sets

__all__ = ["entropy_histograms"]

_NUM_BINS = 25


@style.styled
def entropy_histograms(
    entropies: Mapping[str, Mapping[str, ArrayLike]],
    *,
    in_distribution: str = "test",
    max_entropy: float | None = None,
    xlabel: str = "predictive entropy (nats)",
    axes: np.ndarray | Axes | None = None,
) -> np.ndarray:
    """Draw, for each method and each OOD set, its entropies over those of the in-distribution set.

    One row a method, one column an OOD set, the same bins and the same axes everywhere. The in-distribution
    set is grey; the OOD set has the method's colour. The height is the share of a set's rows in the bin, on a
    square-root scale, which keeps a thin tail visible beside a peak at zero. Each panel names its AUROC: how
    well the entropy tells the two sets apart, 0.5 being chance.

    Args:
        entropies: for each method a mapping from the name of a set to one score a row (row,); every method
            has the same sets, ``in_distribution`` among them.
        in_distribution: the name of the in-distribution set.
        max_entropy: where the axis ends, for example ``log(num_classes)``; the largest value when None.
        xlabel: what the scores are, with their unit.
        axes: where to draw, an array (method, OOD set); a figure is made when None.

    Returns:
        The axes (method, OOD set).

    Raises:
        TypeError: a level of ``entropies`` is not a mapping.
        ValueError: a set is missing, there is no OOD set, or an array or ``axes`` has the wrong shape.

    Example:
        >>> entropies = {"nuts": {"test": [0.0, 0.1, 0.2], "noise": [0.9, 1.1, 0.1]}}
        >>> axes = entropy_histograms(entropies, max_entropy=1.2)
        >>> axes.shape, axes[0, 0].get_title()
        ((1, 1), 'noise')
    """
    sets = checked_sets("entropies", entropies, in_distribution)
    methods = list(sets)
    ood_names = [name for name in sets[methods[0]] if name != in_distribution]
    shape = (len(methods), len(ood_names))
    own_figure = axes is None
    if own_figure:
        width = style.COLUMN_WIDTH if shape[1] == 1 else min(style.PAGE_WIDTH, 0.8 + 2.1 * shape[1])
        axes = style.new_axes(*shape, size=(width, 0.75 + 1.15 * shape[0]), sharex=True, sharey=True)
    else:
        axes = np.atleast_1d(np.asarray(axes, dtype=object))
        if axes.size != shape[0] * shape[1]:
            raise ValueError(
                f"axes has shape {axes.shape} but should be {shape}: pass one row a method and one column an OOD set"
            )
        axes = axes.reshape(shape)

    every = np.concatenate([values for of_method in sets.values() for values in of_method.values()])
    # Entropies of classes start at 0; those of densities have no natural origin.
    lowest = float(every.min()) if max_entropy is None else min(0.0, every.min())
    highest = max(every.max() if max_entropy is None else max_entropy, every.max())
    edges = np.linspace(lowest, highest if highest > lowest else lowest + 1.0, _NUM_BINS + 1)
    tallest = 0.0
    for (method, look), axes_row in zip(style.looks(methods).items(), axes, strict=True):
        inside = sets[method][in_distribution]
        for name, ax in zip(ood_names, axes_row, strict=True):
            outside = sets[method][name]
            share_inside, share_outside = (np.histogram(v, edges)[0] / len(v) for v in (inside, outside))
            ax.stairs(share_inside, edges, fill=True, color=style.LIGHT_GREY)
            ax.stairs(share_outside, edges, fill=True, color=look.color, alpha=0.35)
            ax.stairs(share_outside, edges, color=look.color, linewidth=0.9)
            auroc, error = scores.auroc(inside, outside)
            ax.text(
                0.97,
                0.96,
                f"AUROC {auroc:.3f} ± {error:.3f}",
                transform=ax.transAxes,
                ha="right",
                va="top",
                fontsize=6.2,
            )
            tallest = max(tallest, share_inside.max(), share_outside.max())

    for ax in axes.flat:
        ax.set_yscale("function", functions=(_signed_sqrt, _signed_square))
        # A head of empty space for the AUROC: a fifth of the height, which is 1/0.8² on the square-root
        # scale.
        ax.set(xlim=(edges[0], edges[-1]), ylim=(0, tallest / 0.8**2))
        ax.set_yticks(_sqrt_ticks(tallest))
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        ax.xaxis.set_major_locator(MaxNLocator(4))
    for ax in axes[:-1].flat:
        ax.tick_params(labelbottom=False)
    for ax in axes[:, 1:].flat:
        ax.tick_params(labelleft=False)
    for ax, name in zip(axes[0], ood_names, strict=True):
        ax.set_title(name)
    for ax, (method, look) in zip(axes[:, 0], style.looks(methods).items(), strict=True):
        ax.set_ylabel(method, color=look.color, fontweight="bold")
    style.shared_labels(axes, xlabel, "share of rows (square-root scale)", own_figure=own_figure)
    handles = [Patch(color=style.LIGHT_GREY, label=f"{in_distribution} (in distribution)")]
    handles.append(Patch(facecolor="white", edgecolor=style.INK, label="OOD set"))
    style.shared_legend(axes, handles, own_figure=own_figure)
    style.settle(axes.flat)
    return axes


def _signed_sqrt(values: np.ndarray) -> np.ndarray:
    """Return the square root, continued to negative values so that matplotlib's margins stay defined."""
    return np.sign(values) * np.sqrt(np.abs(values))


def _signed_square(values: np.ndarray) -> np.ndarray:
    """Return the inverse of :func:`_signed_sqrt`."""
    return np.sign(values) * np.square(values)


def _sqrt_ticks(tallest: float) -> list[float]:
    """Return 0 and up to three round ticks, near thirds of the height on a square-root scale."""
    ticks = [0.0]
    for share in (1 / 9, 4 / 9, 1):
        power = 10.0 ** np.floor(np.log10(share * tallest))
        ticks.append(float(power * max(digit for digit in (1, 2, 5) if digit * power <= share * tallest)))
    return sorted(set(ticks))
