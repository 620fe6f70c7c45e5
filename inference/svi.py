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

from .base import Fit, Model, as_floats, latent_sites
from .optimise import Descent, Training, check_variational
from .progress import Progress
from .start import starting_point

__all__ = ["SVI"]


@dataclass(frozen=True)
class SVI(Training):
    """Stochastic variational inference by the reparameterised ELBO with one draw of the weights a step.

    With AutoNormal the KL divergence is in closed form where NumPyro knows it (TraceMeanField_ELBO); every other
    guide uses Trace_ELBO. Initialisation, minibatches, optimiser and stopping rule are those of `BayesByBackprop`.

    Arguments:
        num_draws: draws taken from the fitted guide.
        init_scale: standard deviations at the start, in the unconstrained space.
        num_particles: draws averaged in one ELBO estimate.
        guide: a NumPyro autoguide class, called as `guide(model, init_loc_fn=...)`.
        others: those of `Training`: num_steps, batch_size, learning_rate, schedule, optimizer, clip_norm, start.

    Source: Ranganath et al. (2014), Kucukelbir et al. (2017); AutoNormal is mean-field in the unconstrained space.
    """

    num_draws: int = 1000
    init_scale: float = 0.05
    num_particles: int = 1
    guide: Callable[..., AutoGuide] = AutoNormal

    def __post_init__(self) -> None:
        super().__post_init__()
        check_variational(self)

    @property
    def name(self) -> str:
        """Short name for tables and figures."""
        return "svi"

    def fit(self, key: jax.Array, model: Model, x: jax.Array, y: jax.Array, progress: Progress) -> Fit:
        """Fit the guide and draw from it; see `hmcvi.inference.fit`."""
        sites, _ = latent_sites(model, x, y)
        key_init, key_steps, key_draws, key_guide = jax.random.split(key, 4)
        begin = starting_point(key_init, self, model, x, y, progress)
        x_batch, y_batch = as_floats(x[: begin.batch_size]), y[: begin.batch_size]
        start = {name: biject_to(sites[name].support)(value) for name, value in begin.values.items()}
        elbo_class = TraceMeanField_ELBO if self.guide is AutoNormal else Trace_ELBO
        options: dict[str, Any] = {"init_loc_fn": init_to_value(values=start)}
        if "init_scale" in inspect.signature(self.guide).parameters:
            options["init_scale"] = self.init_scale
        guide = self.guide(begin.model, **options)
        elbo = elbo_class(num_particles=self.num_particles)
        svi = NumPyroSVI(begin.model, guide, numpyro.optim.Adam(1.0), elbo)  # its optimiser is not used
        params = svi.optim.get_params(svi.init(key_guide, x_batch, y_batch).optim_state)

        def objective(params: Any, key: jax.Array, x: jax.Array, y: jax.Array, in_epoch: jax.Array) -> Any:
            loss = elbo.loss(key, svi.constrain_fn(params), begin.model, guide, x, y)
            return loss, loss

        descent = Descent(objective, params, x, y, batch_size=begin.batch_size, training=self)
        result = descent.run(key_steps, params, progress)
        fitted = svi.constrain_fn(result.params)
        draws = guide.sample_posterior(key_draws, fitted, sample_shape=(self.num_draws,))
        is_mean_field = self.guide is AutoNormal
        return Fit(
            model=model,
            method=self,
            x=x,
            y=y,
            key=key,
            draws={name: draws[name][None] for name in sites},
            location={name: fitted[f"{name}_auto_loc"] for name in sites} if is_mean_field else None,
            scale={name: fitted[f"{name}_auto_scale"] for name in sites} if is_mean_field else None,
            losses=result.losses,
            finished=result.finished,
            failure=result.failure,
            **begin.cost(result, self.num_particles),
        )
