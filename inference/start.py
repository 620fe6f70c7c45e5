"""Where an optimisation begins: means of every site, in the unconstrained space."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpyro
from numpyro.infer import init_to_sample
from numpyro.infer.util import initialize_model

from .base import Fit, FitError, Model, as_floats, latent_sites, minibatches
from .checkpoint import Checkpoint
from .optimise import Optimised
from .progress import Progress
from .spread import Spread
from .training import FanIn, Training

__all__ = ["Beginning", "InitialValues", "all_finite", "run_once", "starting_point"]


@dataclass(frozen=True)
class Beginning:
    """What an optimisation begins with.

    Attributes:
        model: the model as minibatches call it.
        batch_size: rows in a minibatch.
        values: means by site, in the unconstrained space.
        made: the fit whose means they are, where it was made for this.
    """

    model: Model
    batch_size: int
    values: dict[str, jax.Array]
    made: Fit | None

    def cost(self, result: Optimised, gradients_per_step: int) -> dict[str, Any]:
        """Return `num_gradients`, `rows_per_gradient` and `run_seconds` of a `Fit`, a fit made for the start included.

        Its gradients are counted in those of this method's minibatches, so that `Fit.num_passes` stays right.
        """
        gradients = self.gradients_made() + len(result.losses) * gradients_per_step
        seconds = result.run_seconds + (0.0 if self.made is None else self.made.run_seconds)
        return {"num_gradients": gradients, "rows_per_gradient": self.batch_size, "run_seconds": seconds}

    def gradients_made(self) -> int:
        """Return the gradients of the fit made for the start, counted in those of this method's minibatches."""
        if self.made is None:
            return 0
        return round(self.made.num_gradients * self.made.rows_per_gradient / self.batch_size)


def starting_point(
    key: jax.Array,
    training: Training,
    model: Model,
    x: jax.Array,
    y: jax.Array,
    initial: InitialValues,
    progress: Progress,
    checkpoint: Checkpoint,
    spread: Spread | None = None,
) -> Beginning:
    """Return where `training.start` says to begin.

    Arguments:
        key: random key.
        training: the hyperparameters.
        model: the model as the user gave it.
        x: inputs (row, feature...).
        y: targets (row,).
        initial: draws values from the prior.
        progress: told about a fit that is made first.
        checkpoint: keeps that fit while it runs.
        spread: the mesh that it is fitted over, if any.

    Raises:
        ValueError: a fit to start from has no means, or sites of other names or shapes.
    """
    values, start, made = initial(key), training.start, None
    if isinstance(start, FanIn):
        _, layers = latent_sites(initial.model, initial.x, initial.y)
        values = _as_networks_start(key, values, layers, start.gain)
    elif start is not None:
        if not isinstance(start, Fit):
            name = "fit to start from"
            with progress.ahead(name):
                inner = checkpoint.part(name)
                method = _within_half(start, training)
                over_mesh = () if spread is None else (spread,)
                start = made = method.fit(key, model, x, y, progress, inner, *over_mesh)
            if made.failure:
                kept = made if made.losses is not None and len(made.losses) else None
                raise FitError(f"the fit to start from: {made.failure}", kept)
        values = _means(start, values)
    return Beginning(initial.model, initial.batch_size, values, made)


def _within_half(start: Any, training: Training) -> Any:
    """Return the method to start from with an allowance of half the training's at most."""
    halves = {}
    for name in ("max_passes", "max_seconds"):
        whole, own = getattr(training, name), getattr(start, name)
        if whole is not None:
            halves[name] = whole / 2 if own is None else min(own, whole / 2)
    return dataclasses.replace(start, **halves) if halves else start


def _means(start: Fit, values: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    if start.location is None:
        raise ValueError(
            f"a fit by {start.method.name} leaves no means to start from: give MAP(...), BayesByBackprop(...) or "
            "SVI(...) with its own guide"
        )
    wanted, found = ({name: jnp.shape(v) for name, v in part.items()} for part in (values, start.location))
    if found != wanted:
        raise ValueError(f"the fit to start from has sites {found} and the model has {wanted}: fit the same model")
    return {name: jnp.asarray(start.location[name]) for name in values}


class InitialValues:
    """One draw of each latent site from its prior, in the unconstrained space, with a finite log joint.

    The variational methods all start their means here unless told otherwise: with fan-in scaled priors this is the
    usual random initialisation of a network, where NumPyro's default (uniform on (−2, 2) for every weight)
    saturates it. One program, compiled at the first call, serves every key.

    Arguments:
        model: the model as the user gave it.
        x: inputs (row, feature...).
        y: targets (row,).
        batch_size: rows in a minibatch, as `minibatches` takes them.
        spread: the mesh that is fitted over, if any; x and y are then its first rows.
    """

    def __init__(self, model: Model, x: jax.Array, y: jax.Array, batch_size: int | None, spread: Spread | None = None):
        if spread is None:
            self.model, self.batch_size = minibatches(model, x, y, batch_size)
        else:
            self.model, self.batch_size = spread.minibatches(model, batch_size)
        self.x, self.y = x[: self.batch_size], y[: self.batch_size]
        self._compiled: Callable[..., Any] | None = None

    def __call__(self, key: jax.Array) -> dict[str, jax.Array]:
        """Return values by site."""
        sites, _ = latent_sites(self.model, self.x, self.y)
        with numpyro.validation_enabled(False):
            if self._compiled is None:
                self._compiled = jax.jit(self._draw).lower(key, self.x, self.y).compile()
            found = self._compiled(key, self.x, self.y)
            if not all_finite(found.potential_energy, found.z_grad):
                found = self._draw(key, self.x, self.y)  # op by op, NumPyro says what is wrong
        return {name: found.z[name] for name in sites}

    def _draw(self, key: jax.Array, x: jax.Array, y: jax.Array) -> Any:
        arguments = (as_floats(x), y)
        return initialize_model(key, self.model, init_strategy=init_to_sample, model_args=arguments).param_info


def run_once(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return what a function gives, as one program that goes when it has run.

    Run op by op, each loop in it would stay in JAX's caches for good, as a new program with every call. Within another
    program it is a part of that.
    """
    if is_traced(arguments):
        return function(*arguments)
    return jax.jit(function).lower(*arguments).compile()(*arguments)


def is_traced(tree: Any) -> bool:
    """Return whether numbers of this tree are yet to be computed by a program in the making."""
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(tree))


def all_finite(*trees: Any) -> bool:
    """Return whether every number of these trees is finite, as far as numbers are known yet."""
    return is_traced(trees) or all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(trees))


def _as_networks_start(
    key: jax.Array, values: Mapping[str, jax.Array], layers: Iterable[str], gain: float
) -> dict[str, jax.Array]:
    """Replace the weights of layers by Normal(0, 2 gain²/fan-in), and their biases by 0."""
    replaced = dict(values)
    for i, name in enumerate(layers):
        kernel = values[f"{name}.kernel"]
        scale = gain * math.sqrt(2 * kernel.shape[-1] / kernel.size)
        replaced[f"{name}.kernel"] = scale * jax.random.normal(jax.random.fold_in(key, i), kernel.shape, kernel.dtype)
        if f"{name}.bias" in values:
            replaced[f"{name}.bias"] = jnp.zeros_like(values[f"{name}.bias"])
    return replaced
