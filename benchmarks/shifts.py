"""The changes that turn test rows into foreign inputs: one function each, and one table of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from .datasets import Dataset
from .raw import DataError

__all__ = ["SHIFTS", "Case", "Shift"]


class Case(NamedTuple):
    """What a change works on.

    `x` holds the test rows, (row, height, width, channel) for images, however the data set has them, and
    (row, feature) for a table; `argument` is the number after the colon, or its default.
    """

    dataset: Dataset
    x: np.ndarray
    argument: float
    generator: np.random.Generator


@dataclass(frozen=True, kw_only=True)
class Shift:
    """One change, what it suits, and what its argument may be."""

    change: Callable[[Case], np.ndarray]
    description: str  # {} stands for the argument
    suits: Literal["both", "images", "tables"] = "both"
    image_default: float | None = None  # None where it takes no argument
    table_default: float | None = None
    allowed: Callable[[float], bool] = lambda argument: True
    wanted: str = ""  # what `allowed` allows, in words


def _permutation(case: Case) -> np.ndarray:
    # (row, place, value): a pixel moves with all its channels, so that every colour stays as common as it was
    places = case.x.reshape(len(case.x), -1, case.x.shape[-1] if case.x.ndim > 2 else 1)
    number = places.shape[1]
    if number < 2:
        raise DataError(f"{case.dataset.name} has one feature and nothing to permute: use extrapolation")
    # One cycle through all places, so that none stays: half of all permutations of two columns are none.
    cycle = case.generator.permutation(number)
    source = np.empty(number, np.int64)
    source[cycle] = np.roll(cycle, 1)
    return places[:, source]


def _uniform_noise(case: Case) -> np.ndarray:
    if case.dataset.image_shape is not None:
        return case.generator.uniform(0.0, 1.0, case.x.shape)
    x_train = case.dataset.x_train
    return case.generator.uniform(x_train.min(axis=0), x_train.max(axis=0), case.x.shape)


def _gaussian_noise(case: Case) -> np.ndarray:
    noisy = case.x + case.generator.normal(0.0, case.argument, case.x.shape)
    return noisy if case.dataset.image_shape is None else np.clip(noisy, 0.0, 1.0)


def _contrast(case: Case) -> np.ndarray:
    mean = case.x.mean(axis=(1, 2, 3), keepdims=True, dtype=np.float64)
    return mean + case.argument * (case.x - mean)


def _brightness(case: Case) -> np.ndarray:
    return np.clip(case.x + case.argument, 0.0, 1.0)


def _rotation(case: Case) -> np.ndarray:
    is_square = case.x.shape[1] == case.x.shape[2]
    if case.argument % (90 if is_square else 180) == 0:
        return np.rot90(case.x, int(case.argument // 90), axes=(1, 2))
    from scipy import ndimage

    turned = ndimage.rotate(case.x, case.argument, axes=(1, 2), reshape=False, order=1)
    return np.clip(turned, 0.0, 1.0)


def _inversion(case: Case) -> np.ndarray:
    return 1.0 - case.x


def _extrapolation(case: Case) -> np.ndarray:
    mean = case.dataset.x_train.mean(axis=0, dtype=np.float64)
    return mean + case.argument * (case.x - mean)


SHIFTS = {
    "permutation": Shift(
        change=_permutation,
        description="The test rows with their pixels or columns in one fixed other order.",
    ),
    "uniform_noise": Shift(
        change=_uniform_noise,
        description="Uniform noise: images over 0 to 1, columns over their range on the training rows.",
    ),
    "gaussian_noise": Shift(
        change=_gaussian_noise,
        description="The test rows plus Normal noise of sd {} (images clipped to 0 to 1).",
        image_default=0.3,
        table_default=1.0,  # the sd of a standardised column
        allowed=lambda sd: sd > 0,
        wanted="an sd above 0",
    ),
    "contrast": Shift(
        change=_contrast,
        description="The test images with each pixel's distance from its image's mean times {}.",
        suits="images",
        image_default=0.3,
        allowed=lambda factor: 0 <= factor < 1,
        wanted="a factor from 0 to below 1",
    ),
    "brightness": Shift(
        change=_brightness,
        description="The test images with {} added to every pixel, clipped to 0 to 1.",
        suits="images",
        image_default=0.3,
        allowed=lambda added: 0 < abs(added) <= 1,
        wanted="a number from -1 to 1 other than 0",
    ),
    "rotation": Shift(
        change=_rotation,
        description="The test images turned by {} degrees anticlockwise.",
        suits="images",
        image_default=90.0,
        allowed=lambda degrees: degrees % 360 != 0,
        wanted="an angle in degrees that is no full turn",
    ),
    "inversion": Shift(
        change=_inversion,
        description="The test images as negatives: 1 minus each pixel.",
        suits="images",
    ),
    "extrapolation": Shift(
        change=_extrapolation,
        description="The test rows {} times as far from the training mean.",
        suits="tables",
        table_default=3.0,
        allowed=lambda factor: factor > 1,
        wanted="a factor above 1",
    ),
}
