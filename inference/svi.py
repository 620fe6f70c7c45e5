"""Stochastic variational inference with NumPyro's autoguides."""

from __future__ import annotations

import functools
import inspect
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpyro
from numpyro import handlers
from numpyro.distributions import biject_to
from numpyro.infer import SVI as NumPyroSVI
from numpyro.infer import Trace_ELBO, TraceMeanField_ELBO, init_to_value
from numpyro.infer.autoguide import (
    AutoContinuous,
    AutoGuide,
    AutoLaplaceApproximation,
    AutoLowRankMultivariateNormal,
    AutoMultivariateNormal,
    AutoNormal,
)

from .base import Fit, Model, as_floats, latent_sites
from .checkpoint import Checkpoint
from .density import normal_log_density, unconstrain
from .descend import Problem, best_of, descend, restart_keys
from .division import Division
from .flow import AutoFlow
from .progress import Progress
from .spread import Spread
from .start import Beginning, run_once
from .training import Training, check_memory, check_variational

__all__ = ["SVI"]

NAMES = {
    AutoNormal: "svi",
    AutoMultivariateNormal: "svi-full",
    AutoLowRankMultivariateNormal: "svi-lowrank",
    AutoFlow: "svi-flow",
}
"""Short names of guides; any other is called by its class."""

COPIES = 12
"""Parameters, gradient, Adam's two moments and its update, and what failed steps are repeated from: as many numbers."""


@dataclass(frozen=True)
class SVI(Training):
    """Stochastic variational inference by the reparameterised ELBO with one draw of the weights a step.

    With AutoNormal the KL divergence is in closed form where NumPyro knows it (TraceMeanField_ELBO); every other
    guide uses Trace_ELBO. Initialisation, minibatches, optimiser and stopping rule are those of `BayesByBackprop`.

    Arguments:
        num_draws: draws taken from the fitted guide.
        init_scale: standard deviations at the start, in the unconstrained space, for guides that take them.
        num_particles: draws averaged in one ELBO estimate.
        guide: a NumPyro autoguide class, called as `guide(model, init_loc_fn=...)`; functools.partial sets its
            options. AutoNormal is mean-field; AutoMultivariateNormal has a full covariance (memory: the square of
            the number of weights), AutoLowRankMultivariateNormal one of rank √n and a diagonal; `AutoFlow` bends a
            Normal (memory: the square again).
        others: those of `Training`: num_steps, batch_size, learning_rate, schedule, optimizer, clip_norm, start,
            num_restarts, max_passes, max_seconds.

    Source: Ranganath et al. (2014), Kucukelbir et al. (2017); AutoNormal is mean-field in the unconstrained space.
    """

    num_draws: int = 1000
    init_scale: float = 0.05
    num_particles: int = 1
    guide: Callable[..., AutoGuide] = AutoNormal

    def __post_init__(self) -> None:
        super().__post_init__()
        check_variational(self)
        if not callable(self.guide):
            raise ValueError(
                f"SVI got guide={self.guide!r}: give a class of numpyro.infer.autoguide, such as AutoNormal"
            )

    @property
    def name(self) -> str:
        """Short name for tables and figures; the default guide goes unnamed."""
        guide = _unwrapped(self.guide)[0]
        return NAMES.get(guide) or f"svi-{getattr(guide, '__name__', 'guide').removeprefix('Auto').lower()}"

    def check_model(self, model: Model, x: jax.Array, y: jax.Array, division: Division | None = None) -> None:
        """Raise ValueError where this model cannot be fitted: nothing is computed."""
        super().check_model(model, x, y, division)
        if inspect.isclass(self.guide) and issubclass(self.guide, AutoLaplaceApproximation):
            raise ValueError(
                "SVI got guide=AutoLaplaceApproximation, which takes its Hessian from one minibatch: use Laplace(), "
                "which takes it from all rows"
            )
        sites, _ = latent_sites(model, x, y)
        advice = "take svi-lowrank or svi (guide=AutoLowRankMultivariateNormal or AutoNormal), or a smaller model"
        check_memory(self.name, sites, lambda n: COPIES * _guide_numbers(self.guide, n), advice)

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
        """Fit the guide and draw from it; see `hmcvi.inference.fit`."""
        self.check_model(model, x, y, None if spread is None else spread.division)
        sites, _ = latent_sites(model, x, y)
        mean_field = self.guide is AutoNormal
        elbo = TraceMeanField_ELBO(self.num_particles) if mean_field else _OrderedELBO(self.num_particles)

        def set_up(begin: Beginning, key: jax.Array) -> Problem:
            x_batch, y_batch = as_floats(x[: begin.batch_size]), y[: begin.batch_size]
            start = {name: biject_to(sites[name].support)(value) for name, value in begin.values.items()}
            options: dict[str, Any] = {"init_loc_fn": init_to_value(values=start)}
            if "init_scale" in inspect.signature(self.guide).parameters:
                options["init_scale"] = self.init_scale
            guide = self.guide(handlers.substitute(begin.model, substitute_fn=_first_rows), **options)
            svi = NumPyroSVI(begin.model, guide, numpyro.optim.Adam(1.0), elbo)  # its optimiser is not used
            with handlers.substitute(substitute_fn=_first_rows):
                params = svi.optim.get_params(svi.init(key, x_batch, y_batch).optim_state)

            def objective(params: Any, key: jax.Array, x: jax.Array, y: jax.Array, in_epoch: jax.Array | None) -> Any:
                loss = elbo.loss(key, svi.constrain_fn(params), begin.model, guide, x, y)
                return loss, loss

            return Problem(objective, params, svi)

        keys = restart_keys(key, self.num_restarts)
        particles = self.num_particles
        runs = descend(
            keys, self, model, x, y, progress, checkpoint, set_up, gradients_per_step=particles, spread=spread
        )
        best, outcome = best_of(runs)
        svi = best.problem.made
        fitted, guide = svi.constrain_fn(best.result.params), svi.guide
        drawn = run_once(
            lambda key, fitted: guide.sample_posterior(key, fitted, sample_shape=(self.num_draws,)),
            best.key_draws,
            fitted,
        )
        draws = {name: drawn[name] for name in sites}
        location = scale = log_q = None
        if self.guide is AutoNormal:
            location = {name: fitted[f"{name}_auto_loc"] for name in sites}
            scale = {name: fitted[f"{name}_auto_scale"] for name in sites}
            log_q = normal_log_density(unconstrain(model, x, y, draws), location, scale)
        elif type(guide).sample_posterior is AutoContinuous.sample_posterior:
            log_q = _log_density(guide, best.key_draws, fitted, self.num_draws)
        return Fit(
            model=model,
            method=self,
            x=x,
            y=y,
            key=key,
            draws={name: values[None] for name, values in draws.items()},
            location=location,
            scale=scale,
            log_q=None if log_q is None else log_q[None],
            **outcome,
        )


def _first_rows(site: Mapping[str, Any]) -> jax.Array | None:
    """Hand a plate of a minibatch its row numbers, which nothing reads; every other site goes its way.

    NumPyro would draw them by a loop, and each time one runs outside of a program it stays in JAX's caches as another.
    """
    if site["type"] != "plate" or site["value"] is not None:
        return None
    _, subsample_size = site["args"]
    return jnp.arange(subsample_size)


class _OrderedELBO(Trace_ELBO):
    """NumPyro's `Trace_ELBO` with its sites added up in the order of their names.

    NumPyro adds them up in the order of a set, which differs between processes, and with it the last bit of the loss.
    """

    def __init__(self, num_particles: int) -> None:
        super().__init__(num_particles=num_particles, sum_sites=False)

    def loss(self, *arguments: Any, **options: Any) -> jax.Array:
        """Return -ELBO, in nats."""
        losses = super().loss(*arguments, **options)
        return jnp.asarray(sum(losses[name] for name in sorted(losses)))


def _log_density(guide: AutoContinuous, key: jax.Array, fitted: Mapping[str, Any], num_draws: int) -> jax.Array:
    """Return log q of the draws that `guide.sample_posterior` takes with this key (draw,), unconstrained.

    Drawn anew, since a flow knows the density of what it has just drawn: its inverse would take a pass for each entry.
    """
    seeded = handlers.seed(handlers.substitute(guide._sample_latent, fitted), key)
    trace = handlers.trace(seeded).get_trace(sample_shape=(num_draws,))
    (site,) = [site for site in trace.values() if site["type"] == "sample"]
    known = (site["intermediates"],) if site["intermediates"] else ()
    return site["fn"].log_prob(site["value"], *known)


def _guide_numbers(guide: Callable[..., AutoGuide], n: int) -> int:
    """Return about how many numbers a guide over n entries learns."""
    made, options = _unwrapped(guide)
    if made is AutoMultivariateNormal:
        return n * n
    if made is AutoLowRankMultivariateNormal:
        return n * (options.get("rank") or round(n**0.5))
    if made is AutoFlow:
        widths = (n, *(options.get("hidden_dims") or (n,)), 2 * n)
        return options.get("num_flows", 1) * sum(a * b for a, b in itertools.pairwise(widths))
    return 2 * n


def _unwrapped(guide: Callable[..., AutoGuide]) -> tuple[Any, dict[str, Any]]:
    """Return the class of a guide and the options that functools.partial gave it."""
    return (guide.func, guide.keywords) if isinstance(guide, functools.partial) else (guide, {})
