"""What a Gaussian posterior says of single weights: signal-to-noise, and pruning by it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from .base import Fit, latent_sites

__all__ = ["prune", "signal_to_noise"]


def signal_to_noise(fit: Fit) -> dict[str, np.ndarray]:
    """Return |μ| / σ of every weight that a layer effect drew, by site, of the site's shape; a pruned weight has 0.

    In decibels, as in the paper's figure 3: 10 log10 of it.

    Arguments:
        fit: a fit with a Gaussian posterior: by `BayesByBackprop`, or by `SVI` with its own guide.

    Raises:
        ValueError: the fit has no Gaussian posterior, or its model no layer.

    Source: Blundell et al. (2015), Weight Uncertainty in Neural Networks, section 5.1.
    """
    location, scale = _gaussian(fit)
    ratios = {}
    for site in _weights(fit):
        mean, sd = np.asarray(location[site]), np.asarray(scale[site])
        ratios[site] = np.divide(np.abs(mean), sd, out=np.zeros_like(mean), where=sd > 0)
    return ratios


def prune(fit: Fit, fraction: float, *, sites: Sequence[str] | None = None) -> Fit:
    """Return the fit without the weights of the lowest signal-to-noise: in it they are 0, for certain.

    Their draws, means and standard deviations are set to 0; the other weights stay as they were. All layers share
    one threshold.

    Arguments:
        fit: as `signal_to_noise` takes it.
        fraction: part of the weights to remove, from 0 to 1.
        sites: the weights to choose from; None takes the kernels of all layers, and leaves the biases.

    Raises:
        ValueError: the fraction is out of range, a site is unknown, or as `signal_to_noise` raises.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from functools import partial
        >>> from hmcvi.inference import BayesByBackprop, fit, prune
        >>> from hmcvi.models import mlp
        >>> x = jnp.linspace(-1, 1, 40)[:, None]
        >>> model = partial(mlp, widths=(10,), num_classes=2)
        >>> result = fit(jax.random.key(0), model, x, (x[:, 0] > 0).astype(int), BayesByBackprop(num_steps=100))
        >>> pruned = prune(result, 0.5)
        >>> sum(int((pruned.location[site] == 0).sum()) for site in ("hidden_0.kernel", "out.kernel"))
        15
    """
    if not 0 <= fraction <= 1:
        raise ValueError(f"prune got fraction={fraction}: give the part of the weights to remove, from 0 to 1")
    ratios = signal_to_noise(fit)
    chosen = [site for site in ratios if site.endswith(".kernel")] if sites is None else list(dict.fromkeys(sites))
    if not chosen:
        raise ValueError(f"prune got no site to choose weights from: the layers' weights are {', '.join(ratios)}")
    unknown = [site for site in chosen if site not in ratios]
    if unknown:
        raise ValueError(f"prune got the site {unknown[0]!r}: the layers' weights are {', '.join(ratios)}")
    location, scale = _gaussian(fit)
    flat = np.concatenate([ratios[site].ravel() for site in chosen])
    removed = np.zeros(len(flat), bool)
    removed[np.argsort(flat, kind="stable")[: round(fraction * len(flat))]] = True  # ties too: exactly this many
    ends = np.cumsum([ratios[site].size for site in chosen])[:-1]
    kept = {
        site: jnp.asarray(~part.reshape(ratios[site].shape))
        for site, part in zip(chosen, np.split(removed, ends), strict=True)
    }

    def without(values: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        return {site: jnp.where(kept[site], v, 0) if site in kept else v for site, v in values.items()}

    return dataclasses.replace(
        fit, draws=without(fit.draws), location=without(location), scale=without(scale), log_q=None
    )


def _gaussian(fit: Fit) -> tuple[Mapping[str, jax.Array], Mapping[str, jax.Array]]:
    if fit.location is None or fit.scale is None:
        raise ValueError(
            f"{fit.method.name} leaves no standard deviation for each weight: fit by BayesByBackprop(...), or by "
            "SVI(...) with its own guide"
        )
    return fit.location, fit.scale


def _weights(fit: Fit) -> list[str]:
    """Return the sites that layer effects draw; their support is the real line, so that 0 removes a weight."""
    sites, layers = latent_sites(fit.model, fit.x, fit.y)
    found = [f"{name}.{part}" for name in layers for part in ("kernel", "bias") if f"{name}.{part}" in sites]
    if not found:
        raise ValueError(f"the model has no layer (dense, conv) among its sites {', '.join(sites)}: nothing to look at")
    return found
