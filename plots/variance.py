"""How noisy gradients are: their variance against the size of the minibatch."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, NullFormatter, NullLocator
from numpy.typing import ArrayLike

from . import style
from ._arrays import checked_mapping

__all__ = ["gradient_variance"]

_ARRAYS = ("batch_size", "value", "standard_error")


@style.styled
def gradient_variance(curves: Mapping[str, Mapping[str, ArrayLike]], *, ax: Axes | None = None) -> Axes:
    """Draw the variance of a gradient against the batch size, both on log axes, with bars of ±1 standard error.

    A grey line falls as 1 / batch size from the mean of the curves at the smallest batch: noise that is independent
    between rows follows it, noise that all rows share levels off above it.

    Args:
        curves: for each estimator three arrays (batch,): "batch_size" in rows, "value" and "standard_error" of the
            variance, in the squared unit of the gradient.
        ax: where to draw; a figure one column wide is made when None.

    Returns:
        The axes.

    Raises:
        ValueError: there is no curve, one lacks an array, or a variance is not above 0.

    Example:
        >>> curve = {"batch_size": [1, 10, 100], "value": [1.0, 0.1, 0.01], "standard_error": [0.1, 0.01, 0.001]}
        >>> gradient_variance({"flipout": curve}).get_xlabel()
        'batch size (rows)'
    """
    if not curves:
        raise ValueError("curves is empty: pass a mapping from estimator to its arrays")
    if ax is None:
        ax = style.new_axes(size=(style.COLUMN_WIDTH, 2.6))[0, 0]
    every: list[np.ndarray] = []
    first = []
    for (name, curve), look in zip(curves.items(), style.looks(curves).values(), strict=True):
        missing = [array for array in _ARRAYS if array not in curve]
        if missing:
            raise ValueError(f"curves[{name!r}] has no {missing[0]!r}: give {', '.join(_ARRAYS)}")
        arrays = checked_mapping(f"curves[{name!r}]", {array: curve[array] for array in _ARRAYS}, "batch")
        sizes, value, error = (arrays[array] for array in _ARRAYS)
        if not len(sizes) == len(value) == len(error) or not (sizes > 0).all():
            raise ValueError(f"curves[{name!r}] wants batch sizes above 0, and as many values and errors")
        if not (value > 0).all():
            raise ValueError(f"curves[{name!r}] holds a variance of {value.min():g}: a log axis takes those above 0")
        ax.errorbar(
            sizes,
            value,
            # a bar below 0 has no place on a log axis
            yerr=np.stack([np.minimum(error, 0.999 * value), error]),
            color=look.color,
            linestyle=look.linestyle,
            marker=look.marker,
            label=name,
            elinewidth=0.8,
            capsize=1.5,
        )
        every.append(sizes)
        first.append(value[sizes.argmin()] * sizes.min())
    sizes = np.unique(np.concatenate(every))
    ax.plot(sizes, np.mean(first) / sizes, color=style.GREY, linewidth=0.8, zorder=1, label="1 / batch size")
    ax.set(xscale="log", yscale="log", xlabel="batch size (rows)", ylabel="variance of the gradient")
    ax.xaxis.set_major_locator(FixedLocator(list(sizes)))
    ax.xaxis.set_major_formatter(lambda size, _: f"{size:g}")
    ax.xaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_minor_formatter(NullFormatter())
    ax.legend(loc="lower left")
    style.settle((ax,))
    return ax
