"""Are the gradients that move a fit unbiased: every estimator, both weightings of the KL, SVI and MAP, in minibatches.

What is differentiated is the objective that a method hands to its optimiser, caught on the way there. Where a model is
linear the exact gradient is in closed form; of a network it is the mean over many draws of the weights, written out in
JAX without the models, the layers or the estimators. Of some 200 z-values a correct gradient puts one beyond 4 with
another key once in 80 times.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.nn import log_softmax, softplus

import hmcvi.inference.descend
from hmcvi.inference import MAP, SVI, BayesByBackprop, fit
from hmcvi.inference.variational import ESTIMATORS
from hmcvi.models import Normal, mlp

from .targets import NOISE_SCALE, PRIOR_SCALE, conjugate_regression, linear_regression

CHECK = "Unbiased gradients"
TARGET = conjugate_regression()
BATCH_SIZE = 12
"""Of 40 rows: three minibatches an epoch, and four rows that sit it out."""

METHODS = {
    f"bbb, {estimator}, {weighting} KL": BayesByBackprop(estimator, kl_weighting=weighting, batch_size=BATCH_SIZE)
    for estimator in ESTIMATORS
    for weighting in ("uniform", "blundell")
} | {"svi": SVI(batch_size=BATCH_SIZE)}


class Caught(Exception):
    """Carries what was to be optimised."""


def objective_of(monkeypatch: pytest.MonkeyPatch, method: Any, model: Any, x: Any, y: Any) -> tuple[Any, Any]:
    """Return the objective of a method and the parameters it starts from, at the door of the optimiser."""

    def catch(objective: Any, params: Any, *_: Any, **__: Any) -> None:
        raise Caught(objective, params)

    monkeypatch.setattr(hmcvi.inference.descend, "Descent", catch)
    with pytest.raises(Caught) as caught:
        fit(jax.random.key(0), model, x, y, method)
    return caught.value.args


def gradients(objective: Any, params: Any, x: jax.Array, y: jax.Array, number: int) -> list[np.ndarray]:
    """Gradients (epoch, *shape) by leaf: means over the minibatches of an epoch, for `number` of them."""
    num_batches = len(x) // BATCH_SIZE

    def epoch(key: jax.Array) -> Any:
        key_order, key_noise = jax.random.split(key)
        order = jax.random.permutation(key_order, len(x))

        def minibatch(i: jax.Array) -> Any:
            rows = jax.lax.dynamic_slice(order, (i * BATCH_SIZE,), (BATCH_SIZE,))
            return jax.grad(objective, has_aux=True)(params, jax.random.fold_in(key_noise, i), x[rows], y[rows], i)[0]

        return jax.tree.map(lambda leaf: leaf.mean(0), jax.lax.map(minibatch, jnp.arange(num_batches)))

    keys = jax.random.split(jax.random.key(1), number)
    found = jax.jit(lambda keys: jax.lax.map(epoch, keys, batch_size=500))(keys)
    return [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(found)]


def judge(record: Any, name: str, found: list[np.ndarray], exact: list[np.ndarray], errors: list[Any]) -> None:
    """Record the largest |z|, and how far a gradient could be off for all that z tells."""
    z, reach = [], []
    for samples, wanted, error in zip(found, exact, errors, strict=True):
        both = np.hypot(samples.std(0) / np.sqrt(len(samples)), error)
        z.append(((samples.mean(0) - wanted) / both).ravel())
        reach.append((both / np.abs(wanted).max()).ravel())
    z = np.concatenate(z)
    record(CHECK, f"{name}: largest z of {len(z)}", z[np.argmax(np.abs(z))], -4, 4)
    # A quarter of the KL's or the likelihood's share that went missing would show in many entries.
    record(CHECK, f"{name}: median standard error, relative", np.median(np.concatenate(reach)), high=0.05)


# --- the linear regression


def exact_negative_elbo(loc: jax.Array, rho: jax.Array) -> jax.Array:
    """−ELBO of Normal(loc, softplus(rho)²) up to a constant. Source: Bishop (2006), section 10.1.2."""
    mean, variance = loc[:, 0], softplus(rho[:, 0]) ** 2
    residual = TARGET.y - TARGET.x @ mean
    misfit = (residual @ residual + (TARGET.x**2 @ variance).sum()) / (2 * NOISE_SCALE**2)
    return misfit + ((variance + mean**2) / PRIOR_SCALE**2 - jnp.log(variance)).sum() / 2


LOC = np.array([[0.4], [-0.3], [0.9]], np.float32)
RHO = np.array([[-1.0], [-2.0], [0.0]], np.float32)


@pytest.mark.validate
@pytest.mark.parametrize("name", METHODS)
def test_gradients_on_a_linear_regression_are_the_closed_form_on_average(name, monkeypatch, record) -> None:
    x, y = jnp.asarray(TARGET.x, jnp.float32), jnp.asarray(TARGET.y, jnp.float32)
    objective, params = objective_of(monkeypatch, METHODS[name], linear_regression, x, y)
    params = jax.tree.unflatten(jax.tree.structure(params), [LOC, RHO])  # by name: the mean, then the scale
    found = gradients(objective, params, x, y, 10_000)
    with jax.enable_x64(True):
        exact = jax.grad(exact_negative_elbo, (0, 1))(LOC.astype(np.float64), RHO.astype(np.float64))
    judge(record, f"linear regression, {name}", found, [np.asarray(leaf) for leaf in exact], [0.0, 0.0])


@pytest.mark.validate
def test_gradients_of_the_log_joint_of_minibatches_are_those_of_all_rows_on_average(monkeypatch, record) -> None:
    x, y = jnp.asarray(TARGET.x, jnp.float32), jnp.asarray(TARGET.y, jnp.float32)
    objective, params = objective_of(monkeypatch, MAP(batch_size=BATCH_SIZE), linear_regression, x, y)
    params = jax.tree.unflatten(jax.tree.structure(params), [LOC])
    found = gradients(objective, params, x, y, 10_000)
    exact = -TARGET.x.T @ (TARGET.y[:, None] - TARGET.x @ LOC) / NOISE_SCALE**2 + LOC / PRIOR_SCALE**2
    judge(record, "linear regression, map", found, [exact], [0.0])


# --- a network

WIDTH, CLASSES, ROWS = 3, 3, 30


def network_negative_elbo(leaves: list[jax.Array], noise: list[jax.Array], x: jax.Array, y: jax.Array) -> jax.Array:
    """−ELBO of a tanh network at one draw of all its weights; leaves are (loc, rho) of b₀, W₀, b₁, W₁ in turn."""
    kl, weights = 0.0, []
    fan_in = (1, x.shape[1], 1, WIDTH)
    for loc, rho, eps, inputs in zip(leaves[::2], leaves[1::2], noise, fan_in, strict=True):
        scale, prior = softplus(rho), 1 / np.sqrt(inputs)
        kl += (jnp.log(prior / scale) + (scale**2 + loc**2) / (2 * prior**2) - 0.5).sum()
        weights.append(loc + scale * eps)
    logits = jnp.tanh(x @ weights[1] + weights[0]) @ weights[3] + weights[2]
    return kl - jnp.take_along_axis(log_softmax(logits), y[:, None], 1).sum()


@pytest.mark.validate
def test_gradients_on_a_network_are_those_of_all_rows_and_shared_weights_on_average(monkeypatch, record) -> None:
    random = np.random.default_rng(0)
    x, y = jnp.asarray(random.normal(size=(ROWS, 2)), jnp.float32), jnp.asarray(random.integers(CLASSES, size=ROWS))
    model = partial(mlp, widths=(WIDTH,), num_classes=CLASSES, activation="tanh", prior=Normal(1.0))
    shapes = [(WIDTH,), (2, WIDTH), (CLASSES,), (WIDTH, CLASSES)]
    leaves = [
        jnp.asarray(values, jnp.float32)
        for shape in shapes
        for values in (random.normal(size=shape), random.normal(-1, 0.3, size=shape))
    ]

    @jax.jit
    def written_out(keys: jax.Array) -> Any:
        def one(key: jax.Array) -> Any:
            noise = [jax.random.normal(jax.random.fold_in(key, i), shape) for i, shape in enumerate(shapes)]
            return jax.grad(network_negative_elbo)(leaves, noise, x, y)

        return jax.lax.map(one, keys, batch_size=1000)

    samples = [np.asarray(leaf, np.float64) for leaf in written_out(jax.random.split(jax.random.key(2), 200_000))]
    exact = [leaf.mean(0) for leaf in samples]
    errors = [leaf.std(0) / np.sqrt(len(leaf)) for leaf in samples]
    for name in (name for name in METHODS if "blundell" not in name):  # of a KL without noise the same numbers
        objective, params = objective_of(monkeypatch, METHODS[name], model, x, y)
        assert [leaf.shape for leaf in jax.tree.leaves(params)] == [leaf.shape for leaf in leaves]
        params = jax.tree.unflatten(jax.tree.structure(params), leaves)
        judge(record, f"network, {name}", gradients(objective, params, x, y, 10_000), exact, errors)
