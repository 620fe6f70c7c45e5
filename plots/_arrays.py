"""The checks that figures of several methods share."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from hmcvi.inference.score_base import checked


def checked_mapping(
    name: str, values: Mapping[str, ArrayLike], *dims: str, finite: bool = True
) -> dict[str, np.ndarray]:
    """Return every array of a mapping as float64 with the dimensions ``dims``.

    Args:
        name: what to call the mapping in a message.
        values: for each label an array with the dimensions ``dims``.
        dims: the names of the dimensions, for example ``"row", "class"``.
        finite: whether NaN and infinity are refused.

    Raises:
        TypeError: ``values`` is not a mapping.
        ValueError: it is empty, or one of its arrays has the wrong shape, no element or a value not finite.

    Example:
        >>> checked_mapping("pit", {"nuts": [0.1, 0.9]}, "row")["nuts"].shape
        (2,)
    """
    if not isinstance(values, Mapping):
        raise TypeError(
            f"{name} is a {type(values).__name__} but should map each label to an array: pass {{'nuts': {name}}}"
        )
    if not values:
        raise ValueError(f"{name} is empty but should hold an array for each label: pass at least one")
    arrays = {label: np.asarray(array, dtype=np.float64) for label, array in values.items()}
    for label, array in arrays.items():
        checked(f"{name}[{label!r}]", array if finite else np.zeros_like(array), *dims)
    return arrays


def check_same_keys(name: str, values: Mapping[str, Mapping[str, object]], what: str, advice: str = "") -> None:
    """Raise ValueError where the methods of a figure differ in their keys.

    Args:
        name: what to call the mapping in a message.
        values: for each method a mapping, such as from set to scores.
        what: what the keys are, in the plural.
        advice: what to add to the message.

    Example:
        >>> check_same_keys("ratios", {"nuts": {"out": 1}, "svi": {}}, "layers")
        Traceback (most recent call last):
        ...
        ValueError: ratios['svi'] has the layers [] and ratios['nuts'] has ['out']: give every method the same layers
    """
    first = next(iter(values))
    for method, of_method in values.items():
        if set(of_method) != set(values[first]):
            raise ValueError(
                f"{name}[{method!r}] has the {what} {list(of_method)} and {name}[{first!r}] has "
                f"{list(values[first])}: give every method the same {what}{advice}"
            )
