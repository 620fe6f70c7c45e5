"""Bayes-by-Backprop: mean-field Gaussian weights in Flax, trained by the reparameterised ELBO."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from numpyro import handlers
from numpyro.distributions import biject_to, constraints
from numpyro.distributions.util import sum_rightmost
from numpyro.primitives import Messenger

from .base import Fit, LatentSite, Model, initial_values, latent_sites, minibatches
from .optimise import Schedule, check_optimisation, minimise
from .progress import Progress
from .variational import ESTIMATORS, Estimator, Gaussian, VariationalLayer

__all__ = ["BayesByBackprop", "MeanField", "negative_elbo"]


@dataclass(frozen=True)
class BayesByBackprop:
    """Bayes-by-Backprop: q(w) = Π Normal(μ, softplus(ρ)²) in the unconstrained space, fitted by gradient descent.

    Where the model calls a layer effect, a Flax layer answers with an output drawn by the estimator; every other
    latent site has one draw shared by the minibatch. The loss is the unbiased negative ELBO
    KL(q ‖ prior) − N/B Σ log p(y | x, w), with the KL in closed form where NumPyro knows it.

    Arguments:
        estimator: "flipout", "local" or "shared"; see `hmcvi.inference.variational`.
        num_steps: budget of optimiser steps; a plateau of the loss ends the fit earlier.
        batch_size: rows in a minibatch; None takes 128 where the model allows minibatches, else all rows.
        num_draws: draws taken from the fitted posterior.
        learning_rate: Adam's, or an optax schedule of it.
        init_scale: standard deviations at the start, in the unconstrained space.
        num_particles: draws averaged in one ELBO estimate.

    Source: Blundell et al. (2015), Weight Uncertainty in Neural Networks; Wen et al. (2018), Flipout.
    """

    estimator: Estimator = "flipout"
    num_steps: int = 20_000
    batch_size: int | None = None
    num_draws: int = 1000
    learning_rate: float | Schedule = 0.01
    init_scale: float = 0.05
    num_particles: int = 1

    def __post_init__(self) -> None:
        check_optimisation("BayesByBackprop", self.num_steps, self.num_draws, self.learning_rate, self.init_scale)
        if self.estimator not in ESTIMATORS:
            raise ValueError(f"BayesByBackprop got estimator={self.estimator!r}: give one of {', '.join(ESTIMATORS)}")
        if self.num_particles < 1:
            raise ValueError(f"BayesByBackprop got num_particles={self.num_particles}: give at least 1")

    @property
    def name(self) -> str:
        """Short name for tables and figures; the default estimator goes unnamed."""
        return "bbb" if self.estimator == "flipout" else f"bbb-{self.estimator}"

    def fit(self, key: jax.Array, model: Model, x: jax.Array, y: jax.Array, progress: Progress) -> Fit:
        """Train the mean-field posterior and draw from it; see `hmcvi.inference.fit`."""
        batch_model, batch_size = minibatches(model, x, y, self.batch_size)
        key_init, key_steps, key_draws, _ = jax.random.split(key, 4)  # as SVI does: the same start and minibatches
        x_batch, y_batch = x[:batch_size], y[:batch_size]
        sites, ops = latent_sites(batch_model, x_batch, y_batch)
        start = initial_values(key_init, batch_model, x_batch, y_batch)
        mean_field = MeanField(start, ops, estimator=self.estimator, init_scale=self.init_scale)
        graph, params = nnx.split(mean_field)

        def loss(params: Any, key: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
            posterior = nnx.merge(graph, params)
            keys = jax.random.split(key, self.num_particles)
            return jnp.stack([negative_elbo(posterior, batch_model, k, x, y) for k in keys]).mean()

        result = minimise(
            key_steps,
            loss,
            params,
            x,
            y,
            batch_size=batch_size,
            num_steps=self.num_steps,
            learning_rate=self.learning_rate,
            progress=progress,
        )
        draws = nnx.merge(graph, result.params).draw(key_draws, self.num_draws, sites)
        return Fit(
            model=model,
            method=self,
            x=x,
            y=y,
            key=key,
            draws={name: draw[None] for name, draw in draws.items()},
            losses=result.losses,
            finished=result.finished,
            num_gradients=len(result.losses) * self.num_particles,
            rows_per_gradient=batch_size,
            run_seconds=result.run_seconds,
        )


class MeanField(nnx.Module):
    """The variational posterior of a whole model: a layer for each layer effect, a Gaussian for each other site.

    Arguments:
        start: initial means by site, in the unconstrained space.
        ops: the linear operation of each layer effect, by the layer's name.
        estimator: how layers draw their outputs.
        init_scale: standard deviation of every entry at the start.
    """

    def __init__(
        self,
        start: Mapping[str, jax.Array],
        ops: Mapping[str, Any],
        *,
        estimator: Estimator,
        init_scale: float,
    ):
        gaussians = {name: Gaussian(loc, init_scale) for name, loc in start.items()}
        layers = {}
        for name, op in ops.items():
            kernel, bias = gaussians.pop(f"{name}.kernel"), gaussians.pop(f"{name}.bias", None)
            layers[name] = VariationalLayer(op, kernel, bias, estimator=estimator)
        self.layers = nnx.Dict(layers)
        self.sites = nnx.Dict(gaussians)

    def gaussians(self) -> dict[str, Gaussian]:
        """Return the Gaussian of every site by its name, those inside layers too."""
        found = dict(self.sites.items())
        for name, layer in self.layers.items():
            found[f"{name}.kernel"] = layer.kernel
            if layer.bias is not None:
                found[f"{name}.bias"] = layer.bias
        return found

    def draw(self, key: jax.Array, num_draws: int, sites: Mapping[str, LatentSite]) -> dict[str, jax.Array]:
        """Return draws (draw, *site shape) by site, in the constrained space."""
        gaussians = self.gaussians()
        return {
            name: biject_to(site.support)(gaussians[name].draw(jax.random.fold_in(key, i), (num_draws,)))
            for i, (name, site) in enumerate(sites.items())
        }


def negative_elbo(
    posterior: MeanField, model: Model, key: jax.Array, x: jax.Array, y: jax.Array, **kwargs: Any
) -> jax.Array:
    """Return one estimate of −ELBO = KL(q ‖ prior) − E_q[log p(y | x, w)], a scalar in nats.

    Arguments:
        posterior: the variational posterior.
        model: the model function; a minibatch is scaled by its own plate (`num_rows`).
        key: key of the noise.
        x: inputs (row, feature...).
        y: targets (row,).
        kwargs: further arguments of the model.
    """
    key_noise, key_model = jax.random.split(key)
    answer = _AnswerFromPosterior(posterior, key_noise)
    with handlers.seed(rng_seed=key_model), answer:
        model(x, y, **kwargs)
    return jnp.asarray(answer.kl - answer.log_likelihood)


class _AnswerFromPosterior(Messenger):
    """Answers layer effects with drawn outputs and latent sites with draws, adding up KL and log likelihood."""

    def __init__(self, posterior: MeanField, key: jax.Array):
        super().__init__()
        self.posterior = posterior
        self.key = key
        self.kl: jax.Array | float = 0.0
        self.log_likelihood: jax.Array | float = 0.0

    def process_message(self, message: Any) -> None:
        name = message.get("name")
        if message["type"] == "layer" and name in self.posterior.layers:
            self._answer_layer(message)
        elif message["type"] == "sample" and message["is_observed"]:
            log_prob = message["fn"].log_prob(message["value"])
            self.log_likelihood += _scaled_sum(log_prob, message["scale"])
        elif message["type"] == "sample" and message["value"] is None and name in self.posterior.sites:
            self._answer_site(message)

    def _answer_layer(self, message: Any) -> None:
        layer = self.posterior.layers[message["name"]]
        (x,) = message["args"]
        message["value"], weights = layer.draw_output(x, self._next_key())
        for part, prior in message["priors"].items():
            gaussian = getattr(layer, part)
            self.kl += gaussian.kl(prior, self._next_key(), weights.get(part)).sum()

    def _answer_site(self, message: Any) -> None:
        gaussian, prior = self.posterior.sites[message["name"]], message["fn"]
        unconstrained = gaussian.draw(self._next_key())
        if _is_real(prior.support):
            message["value"] = unconstrained
            divergence = gaussian.kl(prior, self._next_key(), unconstrained)
        else:
            transform = biject_to(prior.support)
            value = transform(unconstrained)
            message["value"] = value
            log_q = gaussian.distribution(0).log_prob(unconstrained)
            log_jacobian = transform.log_abs_det_jacobian(unconstrained, value)
            log_p = sum_rightmost(log_jacobian, jnp.ndim(log_jacobian) - len(prior.batch_shape)) + prior.log_prob(value)
            divergence = sum_rightmost(log_q, jnp.ndim(log_q) - len(prior.batch_shape)) - log_p
        self.kl += _scaled_sum(divergence, message["scale"])

    def _next_key(self) -> jax.Array:
        self.key, key = jax.random.split(self.key)
        return key


def _scaled_sum(terms: jax.Array, scale: Any) -> jax.Array:
    return jnp.sum(terms if scale is None else scale * terms)


def _is_real(support: Any) -> bool:
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    return support is constraints.real
