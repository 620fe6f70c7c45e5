"""The checks that figures of several methods share."""

from collections.abc import Callable, Mapping

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


def checked_sets(
    name: str, values: Mapping[str, Mapping[str, ArrayLike]], in_distribution: str
) -> dict[str, dict[str, np.ndarray]]:
    """Check that every method has the same sets, the in-distribution one and at least one more.

    Args:
        name: what to call the mapping in a message.
        values: for each method a mapping from set to one score a row (row,).
        in_distribution: the name of the in-distribution set.

    Raises:
        TypeError: a level of ``values`` is not a mapping.
        ValueError: a set is missing, there is no OOD set, or an array has the wrong shape or a value not finite.

    Example:
        >>> list(checked_sets("entropies", {"nuts": {"test": [0.1], "noise": [0.9, 1.1]}}, "test")["nuts"])
        ['test', 'noise']
    """
    if not isinstance(values, Mapping) or not values:
        raise TypeError(
            f"{name} must map each method to a mapping from set to scores, such as "
            "{'nuts': {'test': ..., 'noise': ...}}"
        )
    for method, of_method in values.items():
        if not isinstance(of_method, Mapping):
            raise TypeError(
                f"{name}[{method!r}] is a {type(of_method).__name__} but should map each set to scores: pass "
                f"{name} by method, such as {{'nuts': {{'test': ..., 'noise': ...}}}}"
            )
    sets = {method: checked_mapping(f"{name}[{method!r}]", of, "row") for method, of in values.items()}
    first = next(iter(sets))
    for method, of_method in sets.items():
        if in_distribution not in of_method:
            raise ValueError(
                f"{name}[{method!r}] has the sets {list(of_method)} and no in-distribution set "
                f"{in_distribution!r}: add it or name another by in_distribution="
            )
    check_same_keys(name, sets, "sets")
    if len(sets[first]) < 2:
        raise ValueError(f"{name} has only the in-distribution set {in_distribution!r}: add an OOD set")
    return sets


def checked_curves(
    curves: Mapping[str, Mapping[str, Mapping[str, ArrayLike]]],
    checked_curve: Callable[[str, Mapping[str, ArrayLike]], dict[str, np.ndarray]],
    *,
    example: str,
) -> dict[str, dict[str, dict[str, np.ndarray]]]:
    """Check that every method has the same scores, and each of its curves.

    Args:
        curves: for each method a mapping from score to curve, which maps the name of each array to the array.
        checked_curve: checks one curve, given what to call it, and returns its arrays.
        example: what to pass, for the message where ``curves`` is no mapping.

    Raises:
        TypeError: ``curves`` or what it holds of a method is not a mapping.
        ValueError: there is no method or no score, or methods differ in their scores.
    """
    if not isinstance(curves, Mapping):
        raise TypeError(f"curves is a {type(curves).__name__} but should map each method to its scores: pass {example}")
    if not curves:
        raise ValueError("curves is empty but should hold the scores of each method: pass at least one method")
    found: dict[str, dict[str, dict[str, np.ndarray]]] = {}
    for method, of_method in curves.items():
        name = f"curves[{method!r}]"
        if not isinstance(of_method, Mapping):
            raise TypeError(
                f"{name} is a {type(of_method).__name__} but should map each score to its curve: pass a dict"
            )
        if not of_method:
            raise ValueError(f"{name} is empty but should hold a curve for each score: pass at least one score")
        found[method] = {score: checked_curve(f"{name}[{score!r}]", curve) for score, curve in of_method.items()}
    check_same_keys("curves", found, "scores", advice=", with NaN where one could not be computed")
    return found


def check_parts(name: str, curve: Mapping[str, ArrayLike], parts: tuple[str, ...], dim: str) -> None:
    """Raise unless a curve is a mapping that holds each of ``parts``, arrays with the dimension ``dim``."""
    if not isinstance(curve, Mapping):
        raise TypeError(f"{name} is a {type(curve).__name__} but should map each of {parts} to an array: pass a dict")
    missing = [part for part in parts if part not in curve]
    if missing:
        raise ValueError(f"{name} has {list(curve)} but no {missing}: pass an array ({dim},) for each of {parts}")


def check_lengths(name: str, arrays: Mapping[str, np.ndarray], dim: str) -> None:
    """Raise unless the arrays of a curve, with the dimension ``dim``, have one length."""
    lengths = {part: len(array) for part, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(
            f"{name} has arrays of the lengths {lengths} but one {dim} has one of each: pass equal lengths"
        )


def check_standard_error(name: str, error: np.ndarray) -> None:
    """Raise where a curve has a negative standard error; NaN and infinity may be."""
    if (error < 0).any():
        raise ValueError(
            f"{name}['standard_error'] reaches {error[error < 0].min():.3g} but is not negative: pass sd / √rows"
        )


def checked_numbers(name: str, values: ArrayLike, dim: str) -> np.ndarray:
    """Return an array with the dimension ``dim`` as float64; NaN and infinity stay."""
    try:
        array = np.asarray(values)
    except ValueError:  # lists of different lengths
        array = np.asarray(None)
    if array.dtype.kind not in "iuf":
        raise ValueError(f"{name} has dtype {array.dtype} but should be numbers ({dim},): pass NaN where there is none")
    checked(name, np.zeros(array.shape), dim)
    return array.astype(np.float64)
