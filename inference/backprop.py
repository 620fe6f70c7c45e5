"""Bayes-by-Backprop: mean-field Gaussian weights in Flax, trained by the reparameterised ELBO."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from numpyro import handlers
from numpyro.distributions import biject_to, constraints
from numpyro.distributions.util import sum_rightmost
from numpyro.primitives import Messenger

from .base import Fit, LatentSite, Model, latent_sites
from .checkpoint import Checkpoint
from .density import normal_log_density, unconstrain
from .descend import Problem, best_of, descend, restart_keys
from .progress import Progress
from .spread import Spread
from .start import Beginning
from .training import Training, check_variational
from .variational import ESTIMATORS, Estimator, Gaussian, VariationalLayer

__all__ = ["BayesByBackprop", "MeanField", "elbo_terms", "kl_weights", "negative_elbo"]


KL_WEIGHTINGS = ("uniform", "blundell")


@dataclass(frozen=True)
class BayesByBackprop(Training):
    """Bayes-by-Backprop: q(w) = Π Normal(μ, softplus(ρ)²) in the unconstrained space, fitted by gradient descent.

    Where the model calls a layer effect, a Flax layer answers with an output drawn by the estimator; every other
    latent site has one draw shared by the minibatch. The loss is the unbiased negative ELBO
    KL(q ‖ prior) − N/B Σ log p(y | x, w), with the KL in closed form where NumPyro knows it and by Monte Carlo where
    it does not (a scale mixture).

    Arguments:
        estimator: "flipout", "local" or "shared"; see `hmcvi.inference.variational`.
        num_draws: draws taken from the fitted posterior.
        init_scale: standard deviations at the start, in the unconstrained space.
        num_particles: Monte Carlo samples averaged in one ELBO estimate.
        kl_weighting: "uniform" gives each of the M minibatches of an epoch KL/M, which is unbiased; "blundell" gives
            the i-th of them KL 2^(M−i) / (2^M − 1) (Blundell et al. 2015, eq. 9): unbiased over an epoch only.
        temperature: multiplies the KL. 1 is Bayes; below 1 the posterior is tempered ("cold"), and the scoreboard
            says so.
        others: those of `Training`: num_steps, batch_size, learning_rate, schedule, optimizer, clip_norm, start,
            num_restarts, max_passes, max_seconds.

    Source: Blundell et al. (2015), Weight Uncertainty in Neural Networks; Kingma, Salimans & Welling (2015),
    Variational Dropout and the Local Reparameterization Trick; Wen et al. (2018), Flipout.
    """

    estimator: Estimator = "flipout"
    num_draws: int = 1000
    init_scale: float = 0.05
    num_particles: int = 1
    kl_weighting: Literal["uniform", "blundell"] = "uniform"
    temperature: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_variational(self)
        if self.estimator not in ESTIMATORS:
            raise ValueError(f"BayesByBackprop got estimator={self.estimator!r}: give one of {', '.join(ESTIMATORS)}")
        if self.kl_weighting not in KL_WEIGHTINGS:
            raise ValueError(
                f"BayesByBackprop got kl_weighting={self.kl_weighting!r}: give one of {', '.join(KL_WEIGHTINGS)}"
            )
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise ValueError(f"BayesByBackprop got temperature={self.temperature}: give a number above 0; 1 is Bayes")

    @property
    def name(self) -> str:
        """Short name for tables and figures; the default estimator goes unnamed."""
        return "bbb" if self.estimator == "flipout" else f"bbb-{self.estimator}"

    @property
    def loss_name(self) -> str:
        """What the loss trace holds."""
        return "negative ELBO" if self.temperature == 1 else "tempered negative ELBO"

    def fit(
        self,
        key: jax.Array,
        model: Model,
        x: jax.Array,
        y: jax.Array,
        progress: Progress,
        checkpoint: Checkpoint,
        spread: Spread | None = None,
    ) -> Fit:
        """Train the mean-field posterior and draw from it; see `hmcvi.inference.fit`."""

        def set_up(begin: Beginning, key: jax.Array) -> Problem:
            sites, ops = latent_sites(begin.model, x[: begin.batch_size], y[: begin.batch_size])
            mean_field = MeanField(begin.values, ops, estimator=self.estimator, init_scale=self.init_scale)
            graph, params = nnx.split(mean_field)
            rows = len(x) if spread is None else spread.padded_rows
            weights = kl_weights(self.kl_weighting, max(rows // begin.batch_size, 1))

            def objective(params: Any, key: jax.Array, x: jax.Array, y: jax.Array, in_epoch: jax.Array | None) -> Any:
                posterior = nnx.merge(graph, params)

                def terms(key: jax.Array) -> tuple[jax.Array, jax.Array]:
                    return elbo_terms(posterior, begin.model, key, x, y)

                if self.num_particles == 1:
                    kl, log_likelihood = terms(key)
                else:
                    # One after the other: drawn together, a CPU's convolutions would fall to their slowest form.
                    keys = jax.random.split(key, self.num_particles)
                    kl, log_likelihood = jax.tree.map(jnp.mean, lax.map(terms, keys))
                weight = self.temperature * (1.0 if in_epoch is None else weights[in_epoch].astype(kl.dtype))
                return weight * kl - log_likelihood, self.temperature * kl - log_likelihood

            return Problem(objective, params, (graph, sites))

        # the same keys as SVI's: the same start and minibatches
        keys = restart_keys(key, self.num_restarts)
        particles = self.num_particles
        runs = descend(
            keys, self, model, x, y, progress, checkpoint, set_up, gradients_per_step=particles, spread=spread
        )
        best, outcome = best_of(runs)
        graph, sites = best.problem.made
        posterior = nnx.merge(graph, best.result.params)
        gaussians = {name: posterior.gaussians()[name] for name in sites}
        draws = posterior.draw(best.key_draws, self.num_draws, sites)
        location = {name: gaussian.loc[...] for name, gaussian in gaussians.items()}
        scale = {name: gaussian.scale for name, gaussian in gaussians.items()}
        return Fit(
            model=model,
            method=self,
            x=x,
            y=y,
            key=key,
            draws={name: draw[None] for name, draw in draws.items()},
            location=location,
            scale=scale,
            log_q=normal_log_density(unconstrain(model, x, y, draws), location, scale)[None],
            **outcome,
        )


def kl_weights(kl_weighting: str, num_batches: int) -> jax.Array:
    """Return what multiplies the KL in each minibatch of an epoch (minibatch,), whose losses are for all rows.

    Blundell et al. (2015), eq. 9: π_i = 2^(M−i) / (2^M − 1) for i = 1, ..., M, times M, as each minibatch's
    likelihood is scaled by M here. The weights average to 1.
    """
    if kl_weighting == "uniform":
        return jnp.ones(num_batches)
    i = np.arange(1, num_batches + 1, dtype=float)
    # both sides divided by 2^M, which would overflow
    return jnp.asarray(num_batches * 0.5**i / (1 - 0.5**num_batches))


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


def elbo_terms(
    posterior: MeanField, model: Model, key: jax.Array, x: jax.Array, y: jax.Array, **kwargs: Any
) -> tuple[jax.Array, jax.Array]:
    """Return one estimate of (KL(q ‖ prior), E_q[log p(y | x, w)]), two scalars in nats.

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
    return jnp.asarray(answer.kl), jnp.asarray(answer.log_likelihood)


def negative_elbo(
    posterior: MeanField, model: Model, key: jax.Array, x: jax.Array, y: jax.Array, **kwargs: Any
) -> jax.Array:
    """Return one estimate of −ELBO = KL(q ‖ prior) − E_q[log p(y | x, w)], a scalar in nats; see `elbo_terms`."""
    kl, log_likelihood = elbo_terms(posterior, model, key, x, y, **kwargs)
    return kl - log_likelihood


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
