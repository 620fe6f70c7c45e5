"""The changes that turn test rows into foreign inputs: one function each, and one table of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from .datasets import Dataset
from .raw import DataError

__all__ = ["LEVELS", "SHIFTS", "Case", "Shift"]

LEVELS = (1, 2, 3, 4, 5)
"""Severities of a graded shift, as in Hendrycks & Dietterich (2019)."""


class Case(NamedTuple):
    """What a change works on.

    `x` holds the test rows, (row, height, width, channel) in 0 to 1 for images, however the data set has them,
    and (row, feature) for a table; `argument` is the number after the colon, or its default.
    """

    dataset: Dataset
    x: np.ndarray
    argument: float
    generator: np.random.Generator


@dataclass(frozen=True, kw_only=True)
class Shift:
    """One change, what it suits, what its argument may be, and its argument at each of the five severities."""

    change: Callable[[Case], np.ndarray]
    description: str  # {} stands for the argument
    suits: Literal["both", "images", "tables"] = "both"
    image_default: float | None = None  # None where it takes no argument
    table_default: float | None = None
    allowed: Callable[[float], bool] = lambda argument: True
    wanted: str = ""  # what `allowed` allows, in words
    keeps_labels: bool = False  # whether the right answer stays what it was, so that accuracy means something
    image_levels: tuple[float, ...] = ()  # () where it is not graded
    table_levels: tuple[float, ...] = ()


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
        return case.generator.random(case.x.shape, np.float32)
    x_train = case.dataset.x_train
    return case.generator.uniform(x_train.min(axis=0), x_train.max(axis=0), case.x.shape)


def _gaussian_noise(case: Case) -> np.ndarray:
    noisy = case.x + np.float32(case.argument) * case.generator.standard_normal(case.x.shape, np.float32)
    return noisy if case.dataset.image_shape is None else np.clip(noisy, 0.0, 1.0)


def _contrast(case: Case) -> np.ndarray:
    mean = case.x.mean(axis=(1, 2, 3), keepdims=True)
    return mean + np.float32(case.argument) * (case.x - mean)


def _brightness(case: Case) -> np.ndarray:
    return np.clip(case.x + np.float32(case.argument), 0.0, 1.0)


def _blur(case: Case) -> np.ndarray:
    from scipy import ndimage

    sd = case.argument * max(case.x.shape[1:3])
    return np.clip(ndimage.gaussian_filter(case.x, sd, axes=(1, 2), mode="nearest"), 0.0, 1.0)


def _rotation(case: Case) -> np.ndarray:
    is_square = case.x.shape[1] == case.x.shape[2]
    if case.argument % (90 if is_square else 180) == 0:
        return np.rot90(case.x, int(case.argument // 90), axes=(1, 2))
    from scipy import ndimage

    turned = ndimage.rotate(case.x, case.argument, axes=(1, 2), reshape=False, order=1)
    return np.clip(turned, 0.0, 1.0)


def _occlusion(case: Case) -> np.ndarray:
    rows, height, width = case.x.shape[:3]
    tall, wide = (max(round(np.sqrt(case.argument) * side), 1) for side in (height, width))
    top = case.generator.integers(0, height - tall + 1, rows)[:, None]
    left = case.generator.integers(0, width - wide + 1, rows)[:, None]
    y, x = np.arange(height), np.arange(width)
    in_rows, in_columns = (y >= top) & (y < top + tall), (x >= left) & (x < left + wide)
    return np.where((in_rows[:, :, None] & in_columns[:, None, :])[..., None], np.float32(0), case.x)


def _inversion(case: Case) -> np.ndarray:
    return 1.0 - case.x


def _extrapolation(case: Case) -> np.ndarray:
    mean = case.dataset.x_train.mean(axis=0, dtype=np.float64)
    return mean + case.argument * (case.x - mean)


SHIFTS = {
    "permutation": Shift(
        change=_permutation,
        description="their pixels or columns in one fixed other order",
    ),
    "uniform_noise": Shift(
        change=_uniform_noise,
        description="replaced by uniform noise: images over 0 to 1, columns over their range on the training rows",
    ),
    "gaussian_noise": Shift(
        change=_gaussian_noise,
        description="plus Normal noise of sd {}",
        image_default=0.3,
        table_default=1.0,  # the sd of a standardised column
        allowed=lambda sd: sd > 0,
        wanted="an sd above 0",
        keeps_labels=True,
        image_levels=(0.08, 0.12, 0.18, 0.26, 0.38),  # Hendrycks & Dietterich's
        table_levels=(0.1, 0.2, 0.4, 0.8, 1.6),
    ),
    "contrast": Shift(
        change=_contrast,
        description="each pixel's distance from its image's mean times {}",
        suits="images",
        image_default=0.3,
        allowed=lambda factor: 0 <= factor < 1,
        wanted="a factor from 0 to below 1",
        keeps_labels=True,
        image_levels=(0.4, 0.3, 0.2, 0.1, 0.05),  # Hendrycks & Dietterich's
    ),
    "brightness": Shift(
        change=_brightness,
        description="{} added to every pixel, clipped to 0 to 1",
        suits="images",
        image_default=0.3,
        allowed=lambda added: 0 < abs(added) <= 1,
        wanted="a number from -1 to 1 other than 0",
        keeps_labels=True,
        image_levels=(0.1, 0.2, 0.3, 0.4, 0.5),  # Hendrycks & Dietterich's
    ),
    "blur": Shift(
        change=_blur,
        description="blurred by a Gaussian whose sd is {} of the image's longer side",
        suits="images",
        image_default=0.05,
        allowed=lambda sd: 0 < sd <= 1,
        wanted="an sd above 0 and at most 1, as a part of the longer side",
        keeps_labels=True,
        image_levels=(0.02, 0.03, 0.045, 0.06, 0.08),
    ),
    "rotation": Shift(
        change=_rotation,
        description="turned by {} degrees anticlockwise",
        suits="images",
        image_default=90.0,
        allowed=lambda degrees: degrees % 360 != 0,
        wanted="an angle in degrees that is no full turn",
        keeps_labels=True,
        image_levels=(15.0, 30.0, 45.0, 60.0, 75.0),  # the first five steps of Ovadia et al. (2019)
    ),
    "occlusion": Shift(
        change=_occlusion,
        description="with a black rectangle over {} of the area, at a random place in each",
        suits="images",
        image_default=0.25,
        allowed=lambda part: 0 < part < 1,
        wanted="a part of the area between 0 and 1",
        keeps_labels=True,
        image_levels=(0.05, 0.1, 0.2, 0.3, 0.4),
    ),
    "inversion": Shift(
        change=_inversion,
        description="as negatives: 1 minus each pixel",
        suits="images",
    ),
    "extrapolation": Shift(
        change=_extrapolation,
        description="{} times as far from the training mean",
        suits="tables",
        table_default=3.0,
        allowed=lambda factor: factor > 1,
        wanted="a factor above 1",
        table_levels=(1.5, 2.0, 3.0, 4.0, 6.0),
    ),
}
SHIFTS["noise"] = SHIFTS["uniform_noise"]
