"""The only prediction path: from posterior draws to a predictive distribution, in bounded memory."""

from __future__ import annotations

import dataclasses
import functools
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import lax
from jax.scipy.special import entr
from jaxtyping import Float
from numpyro import handlers
from numpyro.distributions import biject_to
from numpyro.distributions.distribution import ExpandedDistribution, Independent, MaskedDistribution
from numpyro.primitives import Messenger

from hmcvi.models.ops import Dense, DenseOutputsFirst

from .base import Fit, accepts, as_floats, latent_sites
from .checks import check_data
from .draw_steps import batch_steps, most_draws
from .predictive import ClassPredictive, NormalPredictive, Predictive
from .threads import one_blas_thread

__all__ = ["at_posterior_mean", "predict", "predict_draws"]

NUM_BATCHES = 20
"""Batches of contiguous draws that Monte Carlo errors are estimated from (half-samples of the batches)."""

MAX_BYTES = 2**28
"""Memory bound of a prediction: 256 MiB of working space beside the result, and as much for the result itself."""

MOST_ROWS, MOST_ROWS_OF_STACKED = 4096, 16_384
"""Rows in one chunk at most, where draws go by one by one and where they go by several at once: what a step costs
beside its work is then spread over more rows."""

MOST_BYTES_OF_STACKED = 2**25
"""Inputs of a chunk of more than `MOST_ROWS` at most, in bytes: the compiler does not count them as working memory."""

_PROGRAMS: weakref.WeakKeyDictionary[Fit, dict[Any, Any]] = weakref.WeakKeyDictionary()
"""Compiled predictions of each fit that is alive: a scoreboard asks the same fit for many sets of one size."""

_OUTCOMES: weakref.WeakKeyDictionary[Fit, dict[Any, _Outcome]] = weakref.WeakKeyDictionary()
"""What predictions of each fit that is alive are like, by the dtype of inputs."""

_MEANS: weakref.WeakKeyDictionary[Fit, Fit] = weakref.WeakKeyDictionary()
"""`at_posterior_mean` of each fit that is alive, so that its programs are found again."""

KEY_OF_PREDICTIONS = 0x70726564
"""Folded into the fit's key: a number that no split of the key inside a fit comes to."""


def at_posterior_mean(fit: Fit) -> Fit:
    """Return the fit with one draw in place of all: its Gaussian posterior's mean (of a MAP fit, its point).

    The mean is taken in the unconstrained space, where the posterior is Gaussian, and mapped to each site's support.

    Raises:
        ValueError: the fit has no `location`. The mean of NUTS draws of a network's weights, or of an ensemble's
            members, averages over modes and is a sound network nowhere.
    """
    if fit.location is None:
        raise ValueError(f"{fit.method.name} has no posterior mean to predict from: leave deterministic=False")
    if fit not in _MEANS:
        sites, _ = latent_sites(fit.model, fit.x, fit.y)
        draws = {name: biject_to(sites[name].support)(fit.location[name])[None, None] for name in sites}
        _MEANS[fit] = dataclasses.replace(fit, draws=draws)
    return _MEANS[fit]


def predict(
    fit: Fit,
    x: Any,
    y: Any = None,
    *,
    deterministic: bool = False,
    every_draw: bool = True,
    max_bytes: int = MAX_BYTES,
) -> Predictive:
    """Predict at x: the mixture over the fit's draws of the model's distribution of `y`.

    One call for every model. A model that takes `x_new`, as a Gaussian process does, conditions on its training
    rows. Draws are mapped one after the other and rows in chunks, so working memory does not grow with either.

    Arguments:
        fit: what `hmcvi.inference.fit` returned.
        x: inputs (row, feature...), of the training inputs' trailing shape.
        y: targets (row,); with them the row log-likelihoods are kept.
        deterministic: whether to make one pass at the posterior mean instead; see `at_posterior_mean`.
        every_draw: whether to keep them of every draw, as memory for draws × rows; else, for classes, their means
            over batches of draws alone.
        max_bytes: bound on working memory, and on the result, in bytes.

    Returns:
        `ClassPredictive` where `y` is Categorical or Bernoulli, `NormalPredictive` where it is Normal.

    Raises:
        ValueError: x is malformed or of another shape than the training inputs, the likelihood is none of these
            three, a deterministic pass was asked of a method that has none, or the result would take more than
            `max_bytes`.
    """
    if deterministic:
        fit = at_posterior_mean(fit)
    x = check_inputs(fit, x, y)
    targets = None if y is None else check_data(x, y)[1]
    num_draws = fit.num_chains * fit.num_draws
    batch = _batches(fit.num_chains, fit.num_draws)
    outcome = _outcome(fit, x)
    kind, width = outcome.kind, outcome.width
    if targets is not None and kind == "class":
        targets = jnp.asarray(check_labels(np.asarray(targets), width))
    itemsize = as_floats(fit.x[:1]).dtype.itemsize
    per_row = itemsize * (NUM_BATCHES * (width + 1) if kind == "class" else 3 * num_draws)
    keep = targets is not None and every_draw
    per_row += itemsize * num_draws * keep
    if per_row * len(x) > max_bytes:
        raise ValueError(
            f"predictions for {len(x)} rows take {per_row * len(x) / 2**20:.0f} MiB and the bound is "
            f"{max_bytes / 2**20:.0f} MiB: predict {max(max_bytes // per_row, 1)} rows at a time or raise max_bytes"
        )
    reduce: Reduce = _keep_normals
    if kind == "class":
        reduce = _reduce_classes if keep else _reduce_to_batches
    parts = _in_row_chunks(fit, x, targets, reduce, outcome, max_bytes)
    log_likelihood = None
    if "log_likelihood" in parts:
        log_likelihood = parts.pop("log_likelihood").reshape(fit.num_chains, fit.num_draws, len(x))
    if kind == "class":
        sizes = np.bincount(batch.ravel())
        scaled = sizes[:, None]
        means = parts["batch_log_likelihood"] / scaled if targets is not None else None
        return ClassPredictive(
            parts["probs"] / scaled[..., None], parts["entropy"] / scaled, sizes, log_likelihood, means, fit.num_chains
        )
    shape = (fit.num_chains, fit.num_draws, len(x))
    loc, scale, noise = (parts[name].reshape(shape) for name in ("loc", "scale", "noise"))
    return NormalPredictive(loc, scale, batch, log_likelihood, None if np.array_equal(noise, scale) else noise)


def predict_draws(fit: Fit, x: Any, *, max_bytes: int = MAX_BYTES) -> Float[np.ndarray, "chain draw row output"]:
    """Return each draw's own prediction at x: class probabilities, or (mean, standard deviation).

    Arguments and errors are those of `predict`. Meant for a few rows: diagnostics and pictures.
    """
    x = check_inputs(fit, x)
    outcome = _outcome(fit, x)
    kind, width = outcome.kind, outcome.width
    size = as_floats(fit.x[:1]).dtype.itemsize * fit.num_chains * fit.num_draws * len(x) * width
    if size > max_bytes:
        raise ValueError(f"draws of {len(x)} rows take {size / 2**20:.0f} MiB, over max_bytes: use predict, or less")
    parts = _in_row_chunks(fit, x, None, _keep_outputs, outcome, max_bytes)
    outputs = parts["outputs"].reshape(fit.num_chains, fit.num_draws, len(x), width)
    return outputs if kind == "class" else outputs[..., :2]


def outcome_kind(fit: Fit, x: jax.Array) -> str:
    """Return "class" where the model's y is Categorical or Bernoulli, "normal" where it is Normal."""
    return _outcome(fit, x).kind


def check_labels(y: np.ndarray, num_classes: int) -> np.ndarray:
    """Return labels (row,) as integers, or raise ValueError where one is none of `num_classes`."""
    labels = np.asarray(y)
    whole = labels.astype(np.int32)
    if (whole != labels).any() or whole.min() < 0 or whole.max() >= num_classes:
        raise ValueError(
            f"labels run from {labels.min()} to {labels.max()} and the model knows whole numbers from 0 to "
            f"{num_classes - 1}: relabel them"
        )
    return whole


def draw_outputs(
    fit: Fit, draw: dict[str, jax.Array], x: jax.Array, key: jax.Array, x_train: Any, y_train: Any
) -> tuple[str, jax.Array]:
    """Return what the model says of the targets at x given one draw of its sites.

    Either ("class", probabilities (row, class)), or ("normal", means, standard deviations and noise (row, 3)).
    """
    return _outputs(len(x), *_distribution(fit, draw, x, key, x_train, y_train))


class _OutputsFirst(Messenger):
    """Has dense layers take their products as (out, row), as classes go first in what is made of them.

    Of several draws at once that is one product of a stack of kernels, (draw × out, in) @ (in, row), and no reordering
    of what comes out. With `MOST_ROWS_OF_STACKED` in place of `MOST_ROWS`, 4,000 draws of an MLP 64-16-10 took 1.34
    seconds at 10,000 rows in place of 1.56 on two cores; either alone saves nothing.
    """

    def process_message(self, message: Any) -> None:
        """See `numpyro.primitives.Messenger`."""
        if message["type"] == "layer" and type(message["op"]) is Dense and message["args"][0].ndim == 2:
            message["op"] = DenseOutputsFirst()


def _distribution(
    fit: Fit, draw: dict[str, jax.Array], x: jax.Array, key: jax.Array, x_train: Any, y_train: Any
) -> tuple[dist.Distribution, jax.Array | None]:
    """Return the model's distribution of the targets at x given one draw of its sites, and a GP's noise."""
    conditioned = handlers.trace(_OutputsFirst(handlers.substitute(handlers.seed(fit.model, key), data=draw)))
    if accepts(fit.model, "x_new"):
        trace = conditioned.get_trace(x_train, y_train, x_new=x)
        distribution = trace["y_new"]["fn"]
    else:
        trace = conditioned.get_trace(x)
        distribution = trace["y"]["fn"]
    noise = trace["noise_new"]["value"] if "noise_new" in trace else None
    while isinstance(distribution, Independent | ExpandedDistribution | MaskedDistribution):
        distribution = distribution.base_dist
    return distribution, noise


def _outputs(rows: int, distribution: dist.Distribution, noise: jax.Array | None) -> tuple[str, jax.Array]:
    """Return what `draw_outputs` does."""
    if not isinstance(distribution, dist.Normal):
        return "class", _probs_and_entropy(distribution)[0].T
    scale = distribution.scale
    parts = (distribution.loc, scale, scale if noise is None else noise)
    return "normal", jnp.stack([jnp.broadcast_to(part, (rows,)) for part in parts], axis=-1)


def _probs_and_entropy(distribution: dist.Distribution) -> tuple[jax.Array, jax.Array]:
    """Return probabilities (class, row), and their entropy (row,) in nats, of a distribution over classes.

    Classes come first: sums over few of them then run along the rows, as a processor's vectors do.
    """
    if isinstance(distribution, dist.CategoricalLogits):
        logits = jnp.moveaxis(distribution.logits, -1, 0)
        # H = log Σ exp z − Σ p z takes one logarithm a row, not one a class; with the largest z = 0 nothing cancels.
        logits = logits - lax.stop_gradient(logits.max(0))
        exponentials = jnp.exp(logits)
        total = exponentials.sum(0)
        probs = exponentials / total
        return probs, jnp.log(total) - jnp.sum(jnp.where(probs > 0, probs * logits, 0), axis=0)
    if isinstance(distribution, dist.CategoricalProbs):
        probs = jnp.moveaxis(distribution.probs, -1, 0)
    elif isinstance(distribution, dist.BernoulliLogits | dist.BernoulliProbs):
        probs = jnp.stack([1 - distribution.probs, distribution.probs])
    else:
        raise ValueError(
            f"the model's y is {type(distribution).__name__}: predictions are made for Categorical, Bernoulli and "
            "Normal"
        )
    return probs, entr(probs).sum(0)


def check_inputs(fit: Fit, x: Any, y: Any = None) -> jax.Array:
    zeros = np.zeros(len(np.atleast_1d(x)), np.int32) if y is None else y
    array, _ = check_data(x, zeros)
    if array.shape[1:] != fit.x.shape[1:]:
        raise ValueError(f"x has rows of shape {array.shape[1:]} and the fit was trained on {fit.x.shape[1:]}")
    if array.dtype == fit.x.dtype:
        return array
    if fit.x.dtype == jnp.uint8:
        low, high = float(array.min()), float(array.max())
        if low < 0 or high > 1:
            raise ValueError(
                f"x holds values from {low:g} to {high:g} and the fit was trained on images of uint8, read as "
                "brightness from 0 to 1: pass uint8, or x / 255"
            )
        return array
    if array.dtype == jnp.uint8:
        raise ValueError(
            f"x holds uint8 (images, read as x / 255) and the fit was trained on {fit.x.dtype}: convert x as the "
            "training inputs were"
        )
    return array.astype(fit.x.dtype)


def _batches(num_chains: int, num_draws: int) -> np.ndarray:
    """Number the batches (chain, draw): contiguous draws of one chain, NUM_BATCHES in all where draws allow."""
    per_chain = min(max(NUM_BATCHES // num_chains, 1), num_draws)
    in_chain = np.arange(num_draws) * per_chain // num_draws
    return np.arange(num_chains)[:, None] * per_chain + in_chain


@dataclass(frozen=True)
class _Outcome:
    """What is known of a fit's predictions before any is made: "class" or "normal", outputs of a row, the pace."""

    kind: str
    width: int
    draws_per_step: int


def _outcome(fit: Fit, x: jax.Array) -> _Outcome:
    """Return what a fit's predictions will be like: traced once, as tracing takes as long as predicting a few rows."""
    known = _OUTCOMES.setdefault(fit, {})
    if x.dtype in known:
        return known[x.dtype]
    draw = {site: draws[0, 0] for site, draws in fit.draws.items()}
    kind = []

    def run(x: jax.Array) -> jax.Array:
        name, outputs = draw_outputs(fit, draw, as_floats(x), jax.random.key(0), as_floats(fit.x), fit.y)
        kind.append(name)
        return outputs

    program = jax.make_jaxpr(run)(x[:1])
    known[x.dtype] = _Outcome(kind[0], program.out_avals[0].shape[-1], most_draws(program))
    return known[x.dtype]


Reduce = Callable[..., Any]


def _reduce_classes(
    fit: Fit,
    distribution: Any,
    draws: Any,
    keys: Any,
    y: Any,
    rows: int,
    outcome: _Outcome,
    *,
    every_draw: bool = True,
) -> Any:
    """Add up probabilities, entropies and log-likelihoods by batch while draws go by; keep only the last by draw."""
    first, counted = batch_steps(np.bincount(_batches(fit.num_chains, fit.num_draws).ravel()), outcome.draws_per_step)
    dtype = next(iter(draws.values())).dtype
    per_step, all_count = counted.shape[-1], bool(counted.all())

    def of_draw(draw: Any, key: jax.Array, counts: jax.Array) -> Any:
        probs, entropy = _probs_and_entropy(distribution(draw, key)[0])
        added, log_likelihood = {"probs": probs, "entropy": entropy}, None
        if y is not None:
            # A sum in place of a look-up, which would go row by row.
            chosen = jnp.sum(jnp.where(jnp.arange(len(probs))[:, None] == y, probs, 0), axis=0)
            log_likelihood = jnp.log(jnp.maximum(chosen, jnp.finfo(probs.dtype).tiny))
            added["batch_log_likelihood"] = log_likelihood
        sums = added if all_count else jax.tree.map(lambda part: jnp.where(counts, part, 0), added)
        return sums, log_likelihood if every_draw else None

    def of_step(first: jax.Array, counts: jax.Array) -> Any:
        if per_step == 1:
            item = jax.tree.map(lambda d: lax.dynamic_index_in_dim(d, first, keepdims=False), (draws, keys))
            sums, log_likelihood = of_draw(item[0], item[1], counts[0])
            return sums, None if log_likelihood is None else log_likelihood[None]
        items = jax.tree.map(lambda d: lax.dynamic_slice_in_dim(d, first, per_step), (draws, keys))
        sums, log_likelihood = jax.vmap(of_draw)(items[0], items[1], counts)
        return jax.tree.map(lambda part: part.sum(0), sums), log_likelihood

    def of_batch(item: Any) -> Any:
        def step(sums: Any, item: Any) -> Any:
            added, log_likelihood = of_step(*item)
            return jax.tree.map(jnp.add, sums, added), log_likelihood

        zero = {"probs": jnp.zeros((outcome.width, rows), dtype), "entropy": jnp.zeros(rows, dtype)}
        if y is not None:
            zero["batch_log_likelihood"] = zero["entropy"]
        sums, log_likelihood = lax.scan(step, zero, item)
        # Rows become the first axis of a batch, as everywhere outside.
        return sums | {"probs": sums["probs"].T}, log_likelihood

    result, log_likelihood = lax.map(of_batch, (jnp.asarray(first), jnp.asarray(counted)))
    if log_likelihood is None:
        return result
    log_likelihood = log_likelihood.reshape(counted.size, -1)
    return result | {"log_likelihood": log_likelihood if all_count else log_likelihood[np.flatnonzero(counted)]}


_reduce_to_batches = functools.partial(_reduce_classes, every_draw=False)


def _keep_normals(fit: Fit, distribution: Any, draws: Any, keys: Any, y: Any, rows: int, outcome: _Outcome) -> Any:
    kept = _keep_outputs(fit, distribution, draws, keys, y, rows, outcome)["outputs"]
    loc, scale = kept[..., 0], kept[..., 1]
    result = {"loc": loc, "scale": scale, "noise": kept[..., 2]}
    return result if y is None else result | {"log_likelihood": dist.Normal(loc, scale).log_prob(y)}


def _keep_outputs(fit: Fit, distribution: Any, draws: Any, keys: Any, y: Any, rows: int, outcome: _Outcome) -> Any:
    # As even as can be: 50 draws by at most 32 are twice 25.
    per_step = -(-len(keys) // -(-len(keys) // outcome.draws_per_step))
    size = None if per_step == 1 else per_step
    return {"outputs": lax.map(lambda item: _outputs(rows, *distribution(*item))[1], (draws, keys), batch_size=size)}


@one_blas_thread()
def _in_row_chunks(
    fit: Fit, x: jax.Array, y: Any, reduce: Reduce, outcome: _Outcome, max_bytes: int
) -> dict[str, np.ndarray]:
    """Run `reduce` over all draws for chunks of rows, halved until the compiler's working memory fits the bound."""
    draws = {site: jnp.asarray(d) for site, d in fit.draws.items()}
    keys = jax.random.split(jax.random.fold_in(fit.key, KEY_OF_PREDICTIONS), fit.num_chains * fit.num_draws)

    def run(draws: Any, keys: Any, x: Any, y: Any, x_train: Any, y_train: Any) -> Any:
        x, x_train = as_floats(x), as_floats(x_train)
        draws = {site: d.reshape(-1, *d.shape[2:]) for site, d in draws.items()}  # in here it copies nothing

        def distribution(draw: Any, key: jax.Array) -> Any:
            return _distribution(fit, draw, x, key, x_train, y_train)

        return reduce(fit, distribution, draws, keys, y, len(x), outcome)

    programs = _PROGRAMS.setdefault(fit, {})
    most = MOST_ROWS
    if min(outcome.draws_per_step, len(keys)) > 1:
        most = max(most, min(MOST_ROWS_OF_STACKED, MOST_BYTES_OF_STACKED // max(x[:1].nbytes, 1)))
    even = -(-len(x) // -(-len(x) // most))  # 20,000 rows are two chunks of 10,000, not one of 16,384 and another
    asked = (reduce, even, x.dtype, None if y is None else y.dtype, max_bytes)
    chunk, compiled = programs.get(asked, (asked[1], None))
    while compiled is None:
        arguments = (draws, keys, x[:chunk], None if y is None else y[:chunk], fit.x, fit.y)
        compiled = jax.jit(run).lower(*arguments).compile()
        analysis = compiled.memory_analysis()
        if chunk == 1 or analysis is None or analysis.temp_size_in_bytes <= max_bytes:
            programs[asked] = chunk, compiled
        else:
            chunk, compiled = -(-chunk // 2), None
    pieces: dict[str, list[np.ndarray]] = {}  # rows are the second axis of every piece
    for start in range(0, len(x), chunk):
        # The last chunk reaches back so that every chunk has one shape, and one program serves all.
        first = max(min(start, len(x) - chunk), 0)
        rows = slice(first, first + chunk)
        part = compiled(draws, keys, x[rows], None if y is None else y[rows], fit.x, fit.y)
        for name, value in part.items():
            pieces.setdefault(name, []).append(np.asarray(value)[:, start - first :])
    return {name: np.concatenate(values, axis=1) for name, values in pieces.items()}
