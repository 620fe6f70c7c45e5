"""Arrays of images in another form: brightness for bytes, and another size without aliasing."""

from __future__ import annotations

import numpy as np

__all__ = ["brightness", "resized"]


def brightness(x: np.ndarray) -> np.ndarray:
    """Images of uint8 as floats from 0 to 1; all else unchanged."""
    return x.astype(np.float32) / np.float32(255) if x.dtype == np.uint8 else x


def resized(x: np.ndarray, height: int, width: int) -> np.ndarray:
    """Images (row, height, width, channel) in another size, by the filter that TFDS sets are resized by.

    Args:
        x: (row, height, width, channel) floats from 0 to 1.
        height: wanted, in pixels.
        width: wanted, in pixels.
    """
    from PIL import Image

    smaller = np.empty((len(x), height, width, x.shape[3]), np.float32)
    for row, image in enumerate(x):
        for channel in range(x.shape[3]):
            picture = Image.fromarray(np.ascontiguousarray(image[..., channel], np.float32))
            smaller[row, ..., channel] = np.asarray(picture.resize((width, height), Image.Resampling.LANCZOS))
    return np.clip(smaller, 0.0, 1.0)  # the filter overshoots at edges
