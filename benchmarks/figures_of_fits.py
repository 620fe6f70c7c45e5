"""The figures of a run's posteriors and of how its fits ended."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import arviz as az
import numpy as np
import xarray as xr

from hmcvi import inference, plots
from hmcvi.inference import Fit

from .evaluate import Evaluation

__all__ = ["fit_figures"]

MOST_WEIGHTS = 1_000_000
"""Weights that a histogram is made of at most."""

PRUNED = 0.75
"""Share of the weights that the figure of pruning removes, as in Blundell et al. (2015), section 5.1."""


def fit_figures(
    fits: Mapping[str, Fit], evaluations: Mapping[str, Evaluation]
) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Yield the stems of figures of posteriors and of how the fits ended, each with what draws it.

    Arguments:
        fits: fits by method.
        evaluations: their evaluations by method.
    """
    trees = {name: _tree(fit) for name, fit in fits.items()}
    yield "forest", partial(plots.forest, trees)
    yield "marginals", partial(plots.marginals, trees)
    yield "ridge", partial(plots.ridge, trees)
    samplers = {name: fit for name, fit in fits.items() if fit.stats}
    if samplers and sum(np.prod(draws.shape[2:]) for draws in next(iter(fits.values())).draws.values()) > 1:
        # a mean field's correlations are 0: the largest of its draws' would be noise
        yield "pairs", partial(plots.pairs, trees, reference=next(iter(samplers)))
    yield from _weights(fits)
    found = {name: evaluations[name].convergence for name in samplers}
    by_kind = {name: verdict.by_kind for name, verdict in found.items() if verdict is not None}
    if by_kind:
        shared = [kind for kind in next(iter(by_kind.values())) if all(kind in of for of in by_kind.values())]
        yield "convergence", partial(plots.convergence, {n: {k: of[k] for k in shared} for n, of in by_kind.items()})
    for name, fit in samplers.items():
        if fit.num_chains > 1:
            yield f"rank-{name}", partial(plots.rank, trees[name])
        yield f"trace-{name}", partial(plots.trace, trees[name])
        if "energy" in fit.stats:
            yield f"energy-{name}", partial(plots.energy, trees[name])
    losses: dict[str, dict[str, np.ndarray]] = {}
    for name, fit in fits.items():
        if fit.losses is not None:
            losses.setdefault(fit.method.loss_name, {})[name] = fit.losses
    for quantity, traces in losses.items():
        stem = "loss" if quantity == "negative ELBO" else f"loss-{quantity.replace(' ', '-')}"
        yield stem, partial(plots.loss_curves, traces, quantity=quantity)


def _weights(fits: Mapping[str, Fit]) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Weights by layer, before and after pruning, and how sure the posterior is of each."""
    kernels = {name: _kernels(fit) for name, fit in fits.items()}
    if all(kernels.values()):
        yield "weights", partial(plots.weight_histograms, kernels)
    gaussian = {name: fit for name, fit in fits.items() if fit.scale is not None and kernels[name]}
    if not gaussian:
        return
    ratios = {name: inference.signal_to_noise(fit) for name, fit in gaussian.items()}
    of_layers = {name: {layer: of[f"{layer}.kernel"].ravel() for layer in kernels[name]} for name, of in ratios.items()}
    yield "signal-to-noise", partial(plots.signal_to_noise, of_layers)
    name, fit = next(((n, f) for n, f in gaussian.items() if n.startswith("bbb")), next(iter(gaussian.items())))
    versions = {name: fit, f"{name}, {PRUNED:.0%} pruned": inference.prune(fit, PRUNED)}
    means = {
        version: {layer: np.asarray(of.location[f"{layer}.kernel"]).ravel() for layer in kernels[name]}
        for version, of in versions.items()
        if of.location is not None
    }
    yield "pruning", partial(plots.weight_histograms, means)


def _tree(fit: Fit) -> xr.DataTree:
    """Return what the figures of posteriors read of a fit."""
    groups: dict[str, Any] = {"posterior": dict(fit.draws)}
    if fit.stats and "energy" in fit.stats:
        groups["sample_stats"] = {"energy": np.asarray(fit.stats["energy"])}
    return az.from_dict(groups)


def _kernels(fit: Fit) -> dict[str, np.ndarray]:
    """Return draws of each layer's kernel (weight,), as many as a histogram needs."""
    kernels = {}
    for site, draws in fit.draws.items():
        layer, dot, part = site.rpartition(".")
        if dot and part == "kernel":
            size = int(np.prod(draws.shape[2:]))
            step = max(1, draws.shape[0] * draws.shape[1] * size // MOST_WEIGHTS)
            flat = np.asarray(draws[:, ::step]).ravel()
            # an odd step, which falls into step with no even number of weights and leaves none out
            kernels[layer] = flat[:: -(-len(flat) // MOST_WEIGHTS) | 1]
    return kernels
