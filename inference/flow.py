"""A normalising-flow guide that starts where the other guides do."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpyro
from numpyro.distributions import TransformedDistribution, constraints
from numpyro.distributions.transforms import AffineTransform, IndependentTransform
from numpyro.infer.autoguide import AutoIAFNormal

__all__ = ["AutoFlow"]


class AutoFlow(AutoIAFNormal):
    """z = location + scale ⊙ f(ε) with ε ~ Normal(0, I) and f NumPyro's inverse autoregressive flow.

    NumPyro's guide is f alone, of location near 0 and scale near 1: no start for a network's weights, and deaf to
    `init_loc_fn`. The affine map behind it gives it the other guides' start and scale.

    Arguments:
        model: the model.
        init_loc_fn: where the location starts.
        init_scale: what the scale starts at.
        num_flows: autoregressive transforms, in alternating order of the sites' entries.
        hidden_dims: widths of their networks, none less than the number n of entries, as NumPyro wants; None takes
            one layer of n: 3 n² numbers for each transform.
        others: those of `numpyro.infer.autoguide.AutoIAFNormal`.

    Source: Kingma et al. (2016), Improving Variational Inference with Inverse Autoregressive Flow, eq. 10.
    """

    scale_constraint = constraints.softplus_positive

    def __init__(
        self,
        model: Any,
        *,
        init_scale: float = 0.1,
        num_flows: int = 1,
        hidden_dims: tuple[int, ...] | None = None,
        **others: Any,
    ):
        self._init_scale = init_scale
        super().__init__(model, num_flows=num_flows, hidden_dims=hidden_dims, **others)

    def _get_posterior(self) -> TransformedDistribution:
        self._hidden_dims: Any = list(self._hidden_dims or (self.latent_dim,))
        flow = super()._get_posterior()
        location = numpyro.param(f"{self.prefix}_loc", self._init_latent)
        scale = numpyro.param(
            f"{self.prefix}_scale",
            jnp.full(self.latent_dim, self._init_scale),
            constraint=self.scale_constraint,
        )
        affine = IndependentTransform(AffineTransform(location, scale), 1)
        return TransformedDistribution(flow.base_dist, [*flow.transforms, affine])
