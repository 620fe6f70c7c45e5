"""Stochastic variational inference with NumPyro's autoguides."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpyro
from numpyro.distributions import biject_to
from numpyro.infer import SVI as NumPyroSVI
from numpyro.infer import Trace_ELBO, TraceMeanField_ELBO, init_to_value
from numpyro.infer.autoguide import AutoGuide, AutoNormal

from .base import Fit, Model, as_floats, initial_values, latent_sites, minibatches
from .optimise import Schedule, check_optimisation, minimise
from .progress import Progress

__all__ = ["SVI"]


@dataclass(frozen=True)
class SVI:
    """Stochastic variational inference by the reparameterised ELBO with one draw of the weights a step.

    With AutoNormal the KL divergence is in closed form where NumPyro knows it (TraceMeanField_ELBO); every other
    guide uses Trace_ELBO. Initialisation, minibatches, optimiser and stopping rule are those of `BayesByBackprop`.

    Arguments:
        num_steps: budget of optimiser steps; a plateau of the loss ends the fit earlier.
        batch_size: rows in a minibatch; None takes 128 where the model allows minibatches, else all rows.
        num_draws: draws taken from the fitted guide.
        learning_rate: Adam's, or an optax schedule of it.
        init_scale: standard deviations at the start, in the unconstrained space.
        num_particles: draws averaged in one ELBO estimate.
        guide: a NumPyro autoguide class, called as `guide(model, init_loc_fn=...)`.

    Source: Ranganath et al. (2014), Kucukelbir et al. (2017); AutoNormal is mean-field in the unconstrained space.
    """

    num_steps: int = 20_000
    batch_size: int | None = None
    num_draws: int = 1000
    learning_rate: float | Schedule = 0.01
    init_scale: float = 0.05
    num_particles: int = 1
    guide: Callable[..., AutoGuide] = AutoNormal

    def __post_init__(self) -> None:
        check_optimisation("SVI", self.num_steps, self.num_draws, self.learning_rate, self.init_scale)
        if self.num_particles < 1:
            raise ValueError(f"SVI got num_particles={self.num_particles}: give a whole number of at least 1")

    @property
    def name(self) -> str:
        """Short name for tables and figures."""
        return "svi"

    def fit(self, key: jax.Array, model: Model, x: jax.Array, y: jax.Array, progress: Progress) -> Fit:
        """Fit the guide and draw from it; see `hmcvi.inference.fit`."""
        sites, _ = latent_sites(model, x, y)
        batch_model, batch_size = minibatches(model, x, y, self.batch_size)
        key_init, key_steps, key_draws, key_guide = jax.random.split(key, 4)
        x_batch, y_batch = as_floats(x[:batch_size]), y[:batch_size]
        start = initial_values(key_init, batch_model, x_batch, y_batch)
        start = {name: biject_to(sites[name].support)(value) for name, value in start.items()}
        elbo_class = TraceMeanField_ELBO if self.guide is AutoNormal else Trace_ELBO
        options: dict[str, Any] = {"init_loc_fn": init_to_value(values=start)}
        if "init_scale" in inspect.signature(self.guide).parameters:
            options["init_scale"] = self.init_scale
        guide = self.guide(batch_model, **options)
        elbo = elbo_class(num_particles=self.num_particles)
        svi = NumPyroSVI(batch_model, guide, numpyro.optim.Adam(1.0), elbo)  # its optimiser is not used
        params = svi.optim.get_params(svi.init(key_guide, x_batch, y_batch).optim_state)

        def loss(params: Any, key: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
            return elbo.loss(key, svi.constrain_fn(params), batch_model, guide, x, y)

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
        draws = guide.sample_posterior(key_draws, svi.constrain_fn(result.params), sample_shape=(self.num_draws,))
        return Fit(
            model=model,
            method=self,
            x=x,
            y=y,
            key=key,
            draws={name: draws[name][None] for name in sites},
            losses=result.losses,
            finished=result.finished,
            num_gradients=len(result.losses) * self.num_particles,
            rows_per_gradient=batch_size,
            run_seconds=result.run_seconds,
        )
