"""What every back end shares: the method protocol, the result of a fit, and what a model says of itself."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from numpyro import handlers

from .progress import Progress

if TYPE_CHECKING:
    from .checkpoint import Checkpoint

__all__ = [
    "Fit",
    "FitError",
    "Method",
    "Model",
    "as_floats",
    "latent_sites",
    "minibatches",
]

MOST_ALLOWANCE = 1e15
"""What an allowance may be: far more than any machine spends, and a number that counts of steps can be made of."""

Model = Callable[..., Any]
"""A NumPyro model function `model(x, y=None, *, num_rows=None, ...)`."""


class FitError(RuntimeError):
    """A fit that went wrong on sound input, such as a loss that is not finite.

    Attributes:
        fit: the fit at its last finite state, to be looked at or started from; None where there was none.
    """

    def __init__(self, message: str, fit: Fit | None = None):
        super().__init__(message)
        self.fit = fit


@dataclass(frozen=True, eq=False, repr=False)
class Fit:
    """What every back end returns.

    Attributes:
        model: the model function that was fitted.
        method: the method, with its hyperparameters.
        x: training inputs (row, feature...), floating point, or uint8 images.
        y: training targets (row,).
        key: the random key of the fit.
        draws: posterior draws by site, each (chain, draw, *site shape), in the constrained space. The variational
            methods have one chain of independent draws.
        stats: sampler statistics by ArviZ's names, each (chain, draw); empty for the variational methods.
        chain_method: how the chains ran ("parallel", "sequential", "vectorized", "mesh 4x2"); None for the
            variational methods.
        location: means of a Gaussian posterior by site, or the one point of a MAP fit, in the unconstrained space;
            None where the method has neither.
        scale: standard deviations of that Gaussian by site, in the unconstrained space; None where there are none.
        losses: negative ELBO (MAP: negative log joint) at each step (step,), in nats for the whole data set; None
            for samplers.
        finished: whether the optimiser reached a plateau before its budget; None for samplers, and where a
            learning-rate schedule decided the end.
        ended_in_warmup: draws of each chain after which the budget ended a sampler's warm-up, whose second half is kept
            as `draws`; None where the warm-up was finished, and for the variational methods.
        gradient_snr: length of the mean gradient over the standard deviation of one step's gradient, at the final
            parameters, from 64 to 512 further gradients that are counted neither as steps nor as gradients; None
            for samplers, where the gradient has no noise, and after too few steps to ask.
        gradient_z: how surely that mean is not 0, as a standard Normal's value; None where there is no
            `gradient_snr`.
        restarts: final mean loss of each start of an optimisation (restart,), infinite where one failed; None for
            samplers and ensembles.
        restart_errors: standard errors of those means (restart,).
        num_optimised: numbers that the optimiser moved, of all members of an ensemble together: the parameters of the
            variational family, or the weights of a point (Laplace's too); None for samplers.
        log_q: log density of a variational posterior at each draw (chain, draw), in the unconstrained space as
            NumPyro's `potential_energy`; None where the method has none.
        num_rows: rows of the whole data set, where x and y are one process's own; None where they are all.
        failure: what stopped the fit, where `FitError` carries it; "" otherwise.
        num_gradients: gradient evaluations of the log joint, warm-up included.
        rows_per_gradient: rows that one of them reads.
        run_seconds: time spent in the compiled loop of sampling or optimisation.
        compile_seconds: all other time of the fit: initialisation, tracing, compilation, and what is asked of the
            result (the gradients behind `gradient_snr`, the densities of `log_q`).
    """

    model: Model
    method: Method
    x: jax.Array
    y: jax.Array
    key: jax.Array
    draws: Mapping[str, jax.Array]
    num_gradients: int
    rows_per_gradient: int
    run_seconds: float
    compile_seconds: float = math.nan
    stats: Mapping[str, jax.Array] = field(default_factory=dict)
    chain_method: str | None = None
    location: Mapping[str, jax.Array] | None = None
    scale: Mapping[str, jax.Array] | None = None
    losses: np.ndarray | None = None
    finished: bool | None = None
    ended_in_warmup: int | None = None
    gradient_snr: float | None = None
    gradient_z: float | None = None
    num_optimised: int | None = None
    restarts: np.ndarray | None = None
    restart_errors: np.ndarray | None = None
    log_q: jax.Array | None = None
    failure: str = ""
    num_rows: int | None = None

    def __repr__(self) -> str:
        """Return one line; the arrays themselves would fill the screen."""
        return f"Fit({self.method}, {self.num_chains} x {self.num_draws} draws of {', '.join(self.draws)})"

    @property
    def num_chains(self) -> int:
        """Number of chains."""
        return next(iter(self.draws.values())).shape[0]

    @property
    def num_draws(self) -> int:
        """Number of draws in each chain."""
        return next(iter(self.draws.values())).shape[1]

    @property
    def num_passes(self) -> float:
        """Gradient evaluations in passes over the training data: comparable between minibatch sizes."""
        return self.num_gradients * self.rows_per_gradient / (self.num_rows or len(self.x))


class Method(Protocol):
    """A frozen object of hyperparameters that can fit a model."""

    @property
    def name(self) -> str:
        """Short name for tables and figures."""
        ...

    @property
    def loss_name(self) -> str:
        """What `Fit.losses` holds, such as "negative ELBO"; "" where it is None."""
        ...

    def fit(
        self, key: jax.Array, model: Model, x: jax.Array, y: jax.Array, progress: Progress, checkpoint: Checkpoint
    ) -> Fit:
        """Fit the model; called by `hmcvi.inference.fit`, which has checked the data."""
        ...


def as_floats(x: jax.Array) -> jax.Array:
    """Return inputs as a model takes them: uint8 images as brightness from 0 to 1, all else unchanged."""
    return x.astype(jnp.result_type(float)) / 255 if x.dtype == jnp.uint8 else x


def is_count(value: Any) -> bool:
    """Return whether this is a whole number of at least 1."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and bool(value >= 1)


def counted(number: int, what: str, plural: str = "s") -> str:
    """Return a number and what it counts, such as "1 draw" or "1,000 draws"."""
    return f"{number:,} {what}{plural if number != 1 else ''}"


def check_allowances(method: Any) -> None:
    """Raise ValueError where `max_passes` or `max_seconds` of a method is no allowance."""
    for name in ("max_passes", "max_seconds"):
        value = getattr(method, name)
        if value is not None and not 0 < value <= MOST_ALLOWANCE:
            raise ValueError(
                f"{type(method).__name__} got {name}={value}: give a number above 0, or None for no limit, and at most "
                f"{MOST_ALLOWANCE:g}"
            )


def accepts(model: Model, argument: str) -> bool:
    """Return whether the model function names this argument; **kwargs may swallow or pass on anything."""
    return argument in inspect.signature(model).parameters


@dataclass(frozen=True)
class LatentSite:
    """A latent site: shape and dtype of its constrained value, and the support of its prior."""

    shape: tuple[int, ...]
    dtype: Any
    support: Any


def latent_sites(
    model: Model, x: jax.Array, y: jax.Array, **kwargs: Any
) -> tuple[dict[str, LatentSite], dict[str, Any]]:
    """Return the model's latent sites, and the operations of its layer effects, by name; nothing is computed.

    Raises:
        ValueError: the model has no observed site `y`, or no latent site.
    """
    sites: dict[str, LatentSite] = {}
    layers: dict[str, Any] = {}
    observed = []

    def run(key: jax.Array, x: jax.Array) -> None:
        trace = handlers.trace(handlers.seed(model, key)).get_trace(as_floats(x), y, **kwargs)
        for name, site in trace.items():
            if site["type"] == "layer":
                layers[name] = site
            elif site["type"] == "sample" and site["is_observed"]:
                observed.append(name)
            elif site["type"] == "sample":
                if site["fn"].support.is_discrete:
                    raise ValueError(f"site {name!r} is discrete: every method here infers continuous sites only")
                sites[name] = LatentSite(jnp.shape(site["value"]), jnp.result_type(site["value"]), site["fn"].support)

    jax.eval_shape(run, jax.random.key(0), x)
    if "y" not in observed:
        raise ValueError(f"the model observes {observed or 'nothing'}: wanted a site 'y' with obs=y")
    if not sites:
        raise ValueError("the model has no latent site: there is nothing to infer")
    # A layer any of whose weights the model was conditioned on draws the others as in plain NumPyro.
    whole = {
        name: layer for name, layer in layers.items() if {f"{name}.{part}" for part in layer["priors"]} <= set(sites)
    }
    return sites, {name: layer["op"] for name, layer in whole.items()}


def minibatches(model: Model, x: jax.Array, y: jax.Array, batch_size: int | None) -> tuple[Model, int]:
    """Return the model for minibatches `model(x_batch, y_batch)`, and the rows in one.

    `batch_size=None` takes 128 rows where the model's rows are independent given its sites (it takes `num_rows` and
    its latent sites keep their shapes on fewer rows), and all rows otherwise, as for a Gaussian process.

    Raises:
        ValueError: batch_size is not between 1 and the number of rows, or the model cannot be minibatched.
    """
    rows = len(x)
    if batch_size is not None and not 1 <= batch_size <= rows:
        raise ValueError(f"batch_size={batch_size} and the data have {rows} rows: give a number from 1 to {rows}")
    if batch_size == rows or rows == 1:
        return model, rows
    size = min(batch_size or 128, rows)
    if size == rows:
        return model, rows
    reason = ""
    if not accepts(model, "num_rows"):
        reason = "it takes no argument num_rows"
    else:
        try:
            whole, _ = latent_sites(model, x, y)
            part, _ = latent_sites(model, x[:size], y[:size], num_rows=rows)
        except ValueError as error:
            reason = str(error)
        else:
            scale = _likelihood_scale(model, x[:size], y[:size], rows)
            changed = [name for name in whole if part[name].shape != whole[name].shape]
            if changed:
                reason = f"its site {changed[0]!r} has one entry for each row"
            elif abs(scale / (rows / size) - 1) > 1e-6:
                reason = (
                    f"its likelihood of {size} rows is scaled by {scale:g} and not by {rows}/{size}: observe y in "
                    "numpyro.plate('data', num_rows, subsample_size=len(x))"
                )
    if not reason:
        return functools.partial(model, num_rows=rows), size
    if batch_size is not None:
        raise ValueError(f"the model cannot be fitted in minibatches of {batch_size}: {reason}; pass batch_size=None")
    return model, rows


def _likelihood_scale(model: Model, x: jax.Array, y: jax.Array, num_rows: int) -> float:
    """Return what the model multiplies the log likelihood of a minibatch by."""
    scales = []

    def run(key: jax.Array, x: jax.Array) -> None:
        trace = handlers.trace(handlers.seed(model, key)).get_trace(as_floats(x), y, num_rows=num_rows)
        scales.append(trace["y"]["scale"])

    jax.eval_shape(run, jax.random.key(0), x)
    return 1.0 if scales[0] is None else float(scales[0])
