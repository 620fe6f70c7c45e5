"""The Laplace approximation: a Gaussian at the mode, as wide as the log joint is curved there."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from numpyro import handlers
from numpyro.distributions import biject_to
from numpyro.infer.util import potential_energy
from scipy import linalg

from .base import Fit, FitError, Model, is_count, latent_sites
from .checkpoint import Checkpoint
from .density import log_joint, log_prior
from .descend import Problem, best_of, descend, restart_keys
from .division import Division
from .progress import Progress
from .start import Beginning
from .training import Training, check_memory

__all__ = ["Laplace"]

BLOCK = 32
"""Columns of the Hessian at once: as many rows' activations and tangents are in memory."""

DECOMPOSED = 512
"""Columns of the matrix whose decomposition is timed: a few hundredths of a second, and of more the time is cubic."""

COPIES = 12
"""Numbers of 4 bytes for each entry of the Hessian: in double precision, those of log joint, prior and eigenvectors."""

PASSES_PER_COLUMN = 2
"""Passes over the data that a Hessian-vector product is counted as: a gradient and its tangent (Pearlmutter 1994)."""


@dataclass(frozen=True)
class Laplace(Training):
    """Laplace's approximation q(z) = Normal(ẑ, H⁻¹), ẑ the mode in the unconstrained space, over all rows.

    H = −∇² log p(z) + [−∇² log p(y | z)]₊ at ẑ, of the prior with the Jacobian, and of the likelihood with its
    negative eigenvalues cut to 0. Where the likelihood is log-concave at ẑ this is the Hessian of the negative log
    joint: the exact Laplace approximation (MacKay 1992). A network's likelihood is not, and after minibatches ẑ is
    the mode but nearly, so that the whole Hessian is often not positive definite. The generalised Gauss-Newton
    matrix (Ritter et al. 2018; Daxberger et al. 2021), the usual answer, needs to know a network's outputs; the cut
    asks nothing of the model and keeps all curvature that is positive, so that q is no wider than the log joint.

    The mode is found as by `MAP`, but of the density in the unconstrained space, where the Gaussian is.

    Arguments:
        num_draws: draws taken from the Gaussian.
        others: those of `Training`: num_steps, batch_size, learning_rate, schedule, optimizer, clip_norm, start,
            num_restarts, max_passes, max_seconds. The Hessian's columns count as two passes over the data each, and
            an allowance covers them.

    Source: MacKay (1992), A Practical Bayesian Framework for Backpropagation Networks.
    """

    LEAVES_MEANS: ClassVar[bool] = False

    num_draws: int = 1000

    def __post_init__(self) -> None:
        super().__post_init__()
        if not is_count(self.num_draws):
            raise ValueError(f"Laplace got num_draws={self.num_draws}: give a whole number of at least 1")

    @property
    def name(self) -> str:
        """Short name for tables and figures."""
        return "laplace"

    @property
    def loss_name(self) -> str:
        """What the loss trace holds."""
        return "negative log joint"

    def check_model(self, model: Model, x: jax.Array, y: jax.Array, division: Division | None = None) -> None:
        """Raise ValueError where this model cannot be fitted: nothing is computed."""
        super().check_model(model, x, y, division)
        sites, _ = latent_sites(model, x, y)
        check_memory(self.name, sites, lambda n: COPIES * n * n, "take svi-lowrank or svi, or a smaller model")

    def fit(
        self, key: jax.Array, model: Model, x: jax.Array, y: jax.Array, progress: Progress, checkpoint: Checkpoint
    ) -> Fit:
        """Climb to the mode, measure the curvature and draw; see `hmcvi.inference.fit`."""
        self.check_model(model, x, y)
        sites, _ = latent_sites(model, x, y)

        def set_up(begin: Beginning, key: jax.Array) -> Problem:
            def objective(params: Any, key: jax.Array, x: jax.Array, y: jax.Array, in_epoch: jax.Array | None) -> Any:
                loss = potential_energy(handlers.seed(begin.model, key), (x, y), {}, params)
                return loss, loss

            return Problem(objective, begin.values)

        zeros = {name: jnp.zeros(unconstrained_shape(site), site.dtype) for name, site in sites.items()}
        entries = ravel_pytree(zeros)[0].size
        hessians = Hessians(model, x, y, zeros)
        allowed = self._allowance(entries, hessians)
        runs = descend(restart_keys(key, self.num_restarts), allowed, model, x, y, progress, checkpoint, set_up)
        best, outcome = best_of(runs)
        mode, unravel = ravel_pytree(best.result.params)
        scales, log_q = np.zeros((1, entries)), None
        if not best.result.failure:
            started = time.perf_counter()
            precision = curvature(*hessians.at(mode))
            noise = np.asarray(jax.random.normal(best.key_draws, (self.num_draws, entries)), np.float64)
            scales, log_density = _draw(precision, noise)
            log_q = jnp.asarray(log_density, mode.dtype)[None]
            outcome["run_seconds"] += time.perf_counter() - started
            outcome["num_gradients"] += -(-PASSES_PER_COLUMN * entries * len(x) // best.begin.batch_size)
        free = jax.vmap(unravel)(jnp.asarray(np.asarray(mode, np.float64) + scales, mode.dtype))
        return Fit(
            model=model,
            method=self,
            x=x,
            y=y,
            key=key,
            draws={name: biject_to(site.support)(free[name])[None] for name, site in sites.items()},
            log_q=log_q,
            **outcome,
        )

    def _allowance(self, entries: int, hessians: Hessians) -> Laplace:
        """Return the hyperparameters with what the Hessian will take off their allowance."""
        left: dict[str, Any] = {}
        if self.max_passes is not None:
            # one more: gradients are of minibatches, and a part of one is one
            left["max_passes"] = self.max_passes - PASSES_PER_COLUMN * entries - 1
        if self.max_seconds is not None:
            left["max_seconds"] = self.max_seconds - hessians.seconds()
        for name, value in left.items():
            if value <= 0:
                raise FitError(
                    f"Laplace got {name}={getattr(self, name):g}, which the Hessian over {entries:,} weights takes "
                    f"alone: raise {name} by {-value:.3g} at least, or take svi"
                )
        return dataclasses.replace(self, **left)


class Hessians:
    """Hessians of minus the log joint over all rows and of minus the log prior, in blocks of columns.

    Arguments:
        model: the model function.
        x: inputs (row, feature...).
        y: targets (row,).
        values: values by site in the unconstrained space, of which the shapes are read.
    """

    def __init__(self, model: Model, x: jax.Array, y: jax.Array, values: Any):
        flat, unravel = ravel_pytree(values)
        self._data, self._size = (x, y), flat.size
        self._functions = [self._compile(f(model, x, y), flat, unravel) for f in (log_joint, log_prior)]

    def _compile(self, log_density: Callable[..., jax.Array], flat: jax.Array, unravel: Callable[..., Any]) -> Any:
        def columns(at: jax.Array, first: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
            def gradient(flat: jax.Array) -> jax.Array:
                return jax.grad(lambda flat: -log_density(unravel(flat), x, y))(flat)

            basis = jax.nn.one_hot(first + jnp.arange(min(BLOCK, len(at))), len(at), dtype=at.dtype)
            return jax.vmap(lambda tangent: jax.jvp(gradient, (at,), (tangent,))[1])(basis)

        return jax.jit(columns).lower(flat, jnp.asarray(0), *self._data).compile()

    def seconds(self) -> float:
        """Return how long both take, from the first block, and their decomposition, from that of a smaller matrix."""
        at = jnp.zeros(self._size, self._functions[0].out_info.dtype)
        started = time.perf_counter()
        for function in self._functions:
            jax.block_until_ready(function(at, jnp.asarray(0), *self._data))
        columns = (time.perf_counter() - started) * -(-self._size // BLOCK)
        size = min(self._size, DECOMPOSED)
        factor = np.random.default_rng(0).normal(size=(size, size))  # a diagonal matrix would take less
        joint, prior = factor @ factor.T, np.eye(size)
        started = time.perf_counter()
        _draw(curvature(joint, prior), np.zeros((1, size)))
        return columns + (time.perf_counter() - started) * (self._size / size) ** 3

    def at(self, flat: jax.Array) -> tuple[np.ndarray, np.ndarray]:
        """Return both at these values, each (entry, entry), in double precision."""
        found = []
        for function in self._functions:
            blocks = [
                np.asarray(function(flat, jnp.asarray(first), *self._data), np.float64)
                for first in range(0, self._size, BLOCK)
            ]
            whole = np.concatenate(blocks)[: self._size]
            found.append((whole + whole.T) / 2)
        return found[0], found[1]


def curvature(joint: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """Return H = prior + [joint − prior]₊ (entry, entry), of Hessians of minus the log densities.

    Raises:
        FitError: a Hessian is not finite.
    """
    if not (np.isfinite(joint).all() and np.isfinite(prior).all()):
        raise FitError("the Hessian at the mode is not finite: take svi, or look at the prior and the data")
    values, vectors = linalg.eigh(joint - prior)
    return prior + (vectors * np.maximum(values, 0)) @ vectors.T


def _draw(precision: np.ndarray, noise: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return L⁻ᵀ ε of Normal(0, P⁻¹), P = L Lᵀ (draw, entry), and their log densities (draw,)."""
    try:
        factor = linalg.cholesky(precision, lower=True)
    except linalg.LinAlgError:
        raise FitError(
            "the Hessian at the mode is not positive definite, as happens under a hierarchical prior: take svi, or a "
            "prior of known scale"
        ) from None
    draws = linalg.solve_triangular(factor.T, noise.T, lower=False).T
    log_density = -(noise**2).sum(1) / 2 + np.log(np.diag(factor)).sum() - noise.shape[1] / 2 * np.log(2 * np.pi)
    return draws, log_density


def unconstrained_shape(site: Any) -> tuple[int, ...]:
    """Return the shape of a latent site's value in the unconstrained space."""
    return biject_to(site.support).inverse_shape(site.shape)
