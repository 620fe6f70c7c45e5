"""The few weights that the posterior figures draw: what all of them share."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import xarray as xr

from hmcvi.inference.score_base import checked

__all__ = ["choose_weights", "same_weights", "weights_of"]


def same_weights(
    trees: Mapping[str, xr.DataTree], sites: Sequence[str] | None, num_weights: int
) -> dict[str, xr.Dataset]:
    """Take the same few weights out of the posterior of every method.

    They are taken out before anything is computed, because ArviZ needs minutes for thousands.

    Args:
        trees: for each label an ArviZ DataTree with the group ``posterior`` (chain, draw, ...).
        sites: the sites to choose from; all that every tree has, in one shape, when None.
        num_weights: how many scalars to take, spread evenly over the sites and within each.

    Returns:
        For each label a dataset with one variable (chain, draw) for each weight, named as in numpy.

    Raises:
        TypeError: ``trees`` is not a mapping.
        ValueError: a tree has no posterior, a site is missing, the trees share none, or a draw is not finite.

    Example:
        >>> from arviz_base import from_dict
        >>> tree = from_dict({"posterior": {"out.kernel": np.zeros((1, 50, 2))}})
        >>> list(same_weights({"svi": tree}, None, 2)["svi"])
        ['out.kernel[0]', 'out.kernel[1]']
    """
    if not isinstance(trees, Mapping) or isinstance(trees, xr.DataTree) or not trees:  # a tree is a mapping too
        raise TypeError("trees must map at least one label to its DataTree, such as {'nuts': tree}")
    posteriors = {label: _posterior(tree, f"trees[{label!r}]") for label, tree in trees.items()}
    first = next(iter(posteriors.values()))
    shared = [
        site
        for site in first
        if all(site in p and p[site].shape[2:] == first[site].shape[2:] for p in posteriors.values())
    ]
    chosen = choose_weights(_sizes(first, shared, sites), num_weights)
    return {label: _scalars(posterior, chosen) for label, posterior in posteriors.items()}


def weights_of(tree: xr.DataTree, sites: Sequence[str] | None, num_weights: int) -> xr.Dataset:
    """Take a few weights out of the posterior of one fit, as `same_weights` does of several."""
    posterior = _posterior(tree, "tree")
    return _scalars(posterior, choose_weights(_sizes(posterior, list(posterior), sites), num_weights))


def choose_weights(sizes: Mapping[str, tuple[int, ...]], num_weights: int) -> list[tuple[str, tuple[int, ...]]]:
    """Choose scalars evenly over sites, and evenly within each, always the same ones.

    Args:
        sizes: for each site the shape of one draw.
        num_weights: how many to choose; all of them where there are fewer.

    Returns:
        Pairs of a site and the index of one element, in the order of the sites.

    Raises:
        ValueError: ``num_weights`` is less than 1, or there is nothing to choose from.

    Example:
        >>> choose_weights({"out.kernel": (4, 3), "lengthscale": ()}, 3)
        [('out.kernel', (0, 2)), ('out.kernel', (2, 1)), ('lengthscale', ())]
    """
    if num_weights < 1:
        raise ValueError(f"num_weights is {num_weights}: pass at least 1")
    capacity = {site: int(np.prod(shape)) for site, shape in sizes.items() if np.prod(shape) > 0}
    if not capacity:
        raise ValueError("no site has an element to draw: pass trees with a posterior that holds weights")
    if len(capacity) > num_weights:
        kept = np.linspace(0, len(capacity) - 1, num_weights).round().astype(int)
        capacity = {site: capacity[site] for site in np.array(list(capacity))[kept].tolist()}
    # Deal one weight to each site in turn until the number is reached or every site is exhausted.
    dealt = dict.fromkeys(capacity, 0)
    while sum(dealt.values()) < min(num_weights, sum(capacity.values())):
        for site in capacity:
            if dealt[site] < capacity[site] and sum(dealt.values()) < num_weights:
                dealt[site] += 1
    chosen = []
    for site, number in dealt.items():
        # Steps of the golden section spread over the flattened site without keeping step with its rows, as
        # equal steps would: they find the same column again and again.
        flat: set[int] = set()
        for step in range(1, number + 1):
            place = int(step * 0.6180339887 % 1 * capacity[site])
            while place in flat:
                place = (place + 1) % capacity[site]
            flat.add(place)
        chosen += [(site, tuple(int(i) for i in np.unravel_index(place, sizes[site]))) for place in sorted(flat)]
    return chosen


def _posterior(tree: xr.DataTree, name: str) -> xr.Dataset:
    """Return the posterior of a tree as a dataset, sample dimensions first."""
    if not isinstance(tree, xr.DataTree) or "posterior" not in tree.children:
        raise ValueError(f"{name} has no group 'posterior': pass the DataTree that hmcvi.inference.to_datatree returns")
    posterior = tree["posterior"].to_dataset()
    missing = [dim for dim in ("chain", "draw") if dim not in posterior.dims]
    if missing:
        raise ValueError(f"{name} has a posterior without the dimension {missing[0]!r}: pass draws (chain, draw, ...)")
    return posterior.transpose("chain", "draw", ...)


def _sizes(posterior: xr.Dataset, available: Iterable[str], sites: Sequence[str] | None) -> dict[str, tuple[int, ...]]:
    """Return the shape of one draw of each site asked for."""
    available = list(available)
    missing = [site for site in sites or () if site not in available]
    if missing or not available:
        raise ValueError(
            f"the sites {missing or sites} are not in every posterior in the same shape: choose from {available}"
        )
    return {site: posterior[site].shape[2:] for site in sites or available}


def _scalars(posterior: xr.Dataset, chosen: Sequence[tuple[str, tuple[int, ...]]]) -> xr.Dataset:
    """Return a dataset with one scalar variable (chain, draw) for each weight chosen, named as in numpy."""
    scalars = {}
    for site, index in chosen:
        name = f"{site}[{', '.join(map(str, index))}]" if index else site
        scalars[name] = (
            ("chain", "draw"),
            checked(name, posterior[site].values[(..., *index)], "chain", "draw"),
        )
    return xr.Dataset(scalars, coords={dim: np.arange(posterior.sizes[dim]) for dim in ("chain", "draw")})
