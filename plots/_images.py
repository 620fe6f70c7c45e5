"""Inputs that are images: how they are scaled and shown in every figure."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.image import AxesImage
from numpy.typing import ArrayLike

from hmcvi.inference.score_base import checked


def scaled_images(images: ArrayLike) -> np.ndarray:
    """Return images as floats from 0 to 1, (row, height, width) in grey or (row, height, width, 3 or 4) in colour.

    Bytes are divided by 255; floats above 1 by the largest of all images.

    Args:
        images: (row, height, width, channel), uint8 or floats from 0 to 1; a channel axis may be missing.

    Raises:
        ValueError: the shape is another, there is no image, or a value is not finite.

    Example:
        >>> scaled_images(np.full((2, 8, 8, 1), 51, np.uint8))[0, 0, 0]
        np.float64(0.2)
    """
    array = np.asarray(images)
    if array.ndim not in (3, 4) or (array.ndim == 4 and array.shape[-1] not in (1, 3, 4)):
        raise ValueError(
            f"images has shape {array.shape} but should be (row, height, width) or (row, height, width, channel) with"
            " 1, 3 or 4 channels: reshape it"
        )
    checked("images", array, *("row", "height", "width", "channel")[: array.ndim])
    brightest = 255 if array.dtype == np.uint8 else max(1.0, float(array.max()))
    return (array[..., 0] if array.ndim == 4 and array.shape[-1] == 1 else array) / brightest


def show_image(ax: Axes, image: np.ndarray) -> AxesImage:
    """Show one of the :func:`scaled_images`, without ticks, grid or frame."""
    shown = ax.imshow(image, cmap="gray", vmin=0, vmax=1)
    ax.grid(False)
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    return shown
