"""Which pixels a prediction hangs on, and how far the posterior's draws agree on it."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from . import style
from ._images import scaled_images, show_image

__all__ = ["feature_importance"]

_COLUMNS = ("input", "mean gradient", "sd over draws", "mean / sd")


@style.styled
def feature_importance(
    images: ArrayLike,
    mean: ArrayLike,
    sd: ArrayLike,
    *,
    labels: Sequence[str] = (),
    axes: np.ndarray | Axes | None = None,
) -> np.ndarray:
    """Draw images beside the gradient of their prediction: its mean over draws, its sd, and the ratio of the two.

    One row an image. Orange pixels raise the prediction where they grow brighter, purple ones lower it. Mean and sd of
    an image share one range, so that they compare; the ratio is cut at ±3, beyond which a sign is beyond doubt.
    Colour images are drawn as they are, and their gradients summed over channels (the sd as the root of the sum of
    squares, as if channels were independent).

    Args:
        images: inputs (row, height, width, channel), uint8 or floats from 0 to 1; a channel axis may be missing.
        mean: mean gradient, of the shape of ``images``.
        sd: its standard deviation over draws, of the same shape.
        labels: one line for each image, such as its class and prediction.
        axes: where to draw, an array (row, 4); a figure is made when None.

    Returns:
        The axes (row, 4).

    Raises:
        ValueError: the shapes differ, or ``axes`` or ``labels`` do not go with the images.

    Example:
        >>> random = np.random.default_rng(0)
        >>> images, mean = random.uniform(size=(2, 8, 8, 1)), random.normal(size=(2, 8, 8, 1))
        >>> feature_importance(images, mean, np.ones((2, 8, 8, 1)), labels=["3", "7"]).shape
        (2, 4)
    """
    images, mean, sd = np.asarray(images), np.asarray(mean, float), np.asarray(sd, float)
    if images.ndim not in (3, 4) or not images.shape == mean.shape == sd.shape:
        raise ValueError(
            f"images, mean and sd have the shapes {images.shape}, {mean.shape} and {sd.shape}: wanted one shape "
            "(row, height, width, channel)"
        )
    if len(labels) not in (0, len(images)):
        raise ValueError(f"labels has {len(labels)} entries for {len(images)} images: give one for each, or none")
    shown = scaled_images(images)
    if images.ndim == 4:
        mean, sd = mean.sum(-1), np.sqrt((sd**2).sum(-1))
    rows = len(images)
    if axes is None:
        axes = style.new_axes(rows, len(_COLUMNS), size=(1.25 * len(_COLUMNS) + 0.9, 1.25 * rows + 0.35))
    axes = np.asarray(axes, dtype=object)
    if axes.size != rows * len(_COLUMNS):
        raise ValueError(f"axes has shape {axes.shape} but should be {(rows, len(_COLUMNS))}")
    axes = axes.reshape(rows, len(_COLUMNS))

    for row in range(rows):
        reach = max(float(np.abs(mean[row]).max()), float(sd[row].max())) or 1.0
        ratio = np.divide(mean[row], sd[row], out=np.zeros_like(mean[row]), where=sd[row] > 0)
        drawn = [
            show_image(axes[row, 0], shown[row]),
            axes[row, 1].imshow(mean[row], cmap="PuOr_r", vmin=-reach, vmax=reach),
            axes[row, 2].imshow(sd[row], cmap="Oranges", vmin=0, vmax=reach),
            axes[row, 3].imshow(ratio, cmap="PuOr_r", vmin=-3, vmax=3),
        ]
        figure = axes[row, 0].get_figure(root=True)
        for ax, picture in zip(axes[row, 1:], drawn[1:], strict=True):
            bar = figure.colorbar(picture, ax=ax, fraction=0.05, pad=0.03)
            bar.outline.set_visible(False)
            bar.ax.tick_params(labelsize=5, length=1.5, width=0.4)
        if labels:
            axes[row, 0].set_ylabel(labels[row], fontsize=6.5)
    for ax, title in zip(axes[0], _COLUMNS, strict=True):
        ax.set_title(title)
    style.settle(axes.flat)
    for ax in axes.flat:
        ax.grid(False)
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    return axes
