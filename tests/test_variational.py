"""Variational layers in a Flax network of one's own, and the closed forms behind them.

Stochastic tests have fixed keys; each states its false-alarm rate, the chance that a correct implementation would
fail it on a fresh key.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from scipy import stats

from hmcvi.inference import VariationalConv, VariationalDense
from hmcvi.inference.variational import ESTIMATORS, Gaussian, _normal, _signs, kl
from hmcvi.models import Hierarchical, Laplace, Normal, ScaleMixture
from hmcvi.models.ops import max_pool

from .targets import NOISE_SCALE, PRIOR_SCALE, conjugate_regression


def train(network, loss, steps, rate):
    """Minimise loss(network, key) by Adam in one compiled loop; return the losses (step,)."""
    optimizer = nnx.Optimizer(network, optax.adam(rate), wrt=nnx.Param)

    @nnx.scan(in_axes=(nnx.Carry, 0), out_axes=(nnx.Carry, 0))
    def step(carry, key):
        network, optimizer = carry
        value, gradient = nnx.value_and_grad(loss)(network, key)
        optimizer.update(network, gradient)
        return carry, value

    keys = jax.random.split(jax.random.key(0), steps)
    return np.asarray(nnx.jit(step)((network, optimizer), keys)[1])


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_dense_layer_trained_by_hand_reaches_the_known_evidence_bound(estimator):
    """On the conjugate regression the least loss is KL(mean field ‖ posterior) − log evidence."""
    target = conjugate_regression()
    x, y = jnp.asarray(target.x, jnp.float32), jnp.asarray(target.y, jnp.float32)
    prior = Normal(PRIOR_SCALE, fan_in_scaled=False)
    layer = VariationalDense(3, 1, estimator=estimator, prior=prior, use_bias=False, rngs=nnx.Rngs(0))

    def loss(layer, key):
        mean = layer(x, key=key)[:, 0]
        normaliser = len(x) / 2 * np.log(2 * np.pi * NOISE_SCALE**2)
        return kl(layer, key) + ((y - mean) ** 2).sum() / (2 * NOISE_SCALE**2) + normaliser

    rate = optax.exponential_decay(0.03, 3000, 1e-3)
    losses = train(layer, loss, 3000, rate)
    last = losses[-300:]
    error = last.std() / np.sqrt(len(last))
    known = target.gap - target.log_evidence
    # 4 standard errors in each of 3 tests: 2e-4 false alarms, and 0.05 nats for what is left to optimise.
    assert last.mean() == pytest.approx(known, abs=4 * error + 0.05)
    assert losses[0] > known + 10
    sd = np.sqrt(target.mean_field_variance)
    assert (np.abs(np.asarray(layer.kernel.loc[...])[:, 0] - target.mean) < 0.1 * sd).all()


class Bars(nnx.Module):
    """A convolution that sees 4×4 images, and a dense layer that says whether their bar is upright."""

    def __init__(self, estimator, rngs):
        self.conv = VariationalConv(1, 8, 3, estimator=estimator, rngs=rngs)
        self.out = VariationalDense(8, 2, estimator=estimator, rngs=rngs)

    def __call__(self, x, *, key=None):
        key_conv, key_out = (None, None) if key is None else jax.random.split(key)
        hidden = nnx.relu(self.conv(x, key=key_conv)).mean((1, 2))
        return self.out(hidden, key=key_out)


def bars(rows=200):
    random = np.random.default_rng(0)
    x = random.normal(0, 0.1, size=(rows, 4, 4, 1))
    y = random.integers(2, size=rows)
    for image, upright, place in zip(x, y, random.integers(4, size=rows), strict=True):
        image[(slice(None), place) if upright else place] += 1
    return jnp.asarray(x, jnp.float32), jnp.asarray(y)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_layers_in_a_network_of_ones_own_learn_to_tell_bars_apart(estimator):
    x, y = bars()
    network = Bars(estimator, nnx.Rngs(0))

    def loss(network, key):
        key_noise, key_kl = jax.random.split(key)
        nats = optax.softmax_cross_entropy_with_integer_labels(network(x, key=key_noise), y).sum()
        return nats + kl(network, key_kl)

    before = np.mean(network(x).argmax(1) == y)
    losses = train(network, loss, 600, 0.02)
    assert np.mean(network(x).argmax(1) == y) == 1.0
    assert before < 0.9
    # Guessing costs log 2 a row without any KL: the bound is below it, so the labels are told, not guessed.
    assert losses[-50:].mean() < len(x) * np.log(2) < losses[0]


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_without_a_key_the_pass_goes_through_the_means(estimator):
    x = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    layer = VariationalDense(3, 2, estimator=estimator, rngs=nnx.Rngs(0))
    layer.bias.loc[...] = jnp.array([1.0, -2.0])
    expected = x @ np.asarray(layer.kernel.loc[...]) + [1.0, -2.0]
    np.testing.assert_allclose(layer(x), expected, rtol=1e-5, atol=1e-6)
    assert not np.allclose(layer(x, key=jax.random.key(0)), expected)

    images = np.random.default_rng(0).normal(size=(2, 5, 5, 3)).astype(np.float32)
    conv = VariationalConv(3, 2, (3, 2), strides=2, padding="VALID", estimator=estimator, rngs=nnx.Rngs(0))
    # The top left output by hand, and the shape of the rest.
    corner = np.einsum("rijc,ijco->ro", images[:, :3, :2], np.asarray(conv.kernel.loc[...]))
    assert conv(images).shape == (2, 2, 2, 2)
    np.testing.assert_allclose(conv(images)[:, 0, 0], corner, rtol=1e-5, atol=1e-5)


def set_gaussian(gaussian, seed):
    """Give a Gaussian means and scales of its own, and return them."""
    random = np.random.default_rng(seed)
    loc, scale = random.normal(0, 0.3, gaussian.loc.shape), random.uniform(0.05, 0.5, gaussian.loc.shape)
    gaussian.loc[...] = jnp.asarray(loc, jnp.float32)
    gaussian.rho[...] = jnp.asarray(np.log(np.expm1(scale)), jnp.float32)
    return loc, scale


@pytest.mark.parametrize(
    ("layer", "fan_in"),
    [
        (lambda prior: VariationalDense(4, 3, prior=prior, rngs=nnx.Rngs(0)), 4),
        (lambda prior: VariationalConv(2, 3, (3, 2), prior=prior, rngs=nnx.Rngs(0)), 12),
    ],
    ids=["dense", "conv"],
)
@pytest.mark.parametrize("fan_in_scaled", [True, False])
def test_kl_to_a_normal_prior_is_the_formula(layer, fan_in, fan_in_scaled):
    """KL = Σ log(p/s) + (s² + m²)/(2p²) − ½ with prior sd p, scaled by the fan-in: 1 for the bias."""
    layer = layer(Normal(2.0, fan_in_scaled=fan_in_scaled))
    expected = 0.0
    for seed, (gaussian, inputs) in enumerate([(layer.kernel, fan_in), (layer.bias, 1)]):
        loc, scale = set_gaussian(gaussian, seed)
        p = 2.0 / np.sqrt(inputs) if fan_in_scaled else 2.0
        expected += (np.log(p / scale) + (scale**2 + loc**2) / (2 * p**2) - 0.5).sum()
    assert float(layer.kl(jax.random.key(0))) == pytest.approx(expected, rel=1e-5)
    # A closed form has no noise.
    assert layer.kl(jax.random.key(0)) == layer.kl(jax.random.key(1))


def quadrature(loc, scale, log_prior):
    """Σ ∫ q (log q − log p) over entries, by the trapezoid rule on ±10 standard deviations."""
    grid = np.linspace(-10, 10, 400_001)
    total = 0.0
    for m, s in zip(loc.ravel(), scale.ravel(), strict=True):
        log_q = stats.norm.logpdf(m + s * grid, m, s)
        total += np.trapezoid(np.exp(log_q) * (log_q - log_prior(m + s * grid)), m + s * grid)
    return total


@pytest.mark.parametrize("prior", ["mixture", "laplace"])
def test_kl_without_a_closed_form_is_estimated_without_bias(prior):
    if prior == "mixture":
        chosen = ScaleMixture(0.25, 1.0, 0.1)

        def log_prior(w):
            return np.logaddexp(np.log(0.25) + stats.norm.logpdf(w), np.log(0.75) + stats.norm.logpdf(w, 0, 0.1))
    else:
        chosen = Laplace(2.0)

        def log_prior(w):
            return stats.laplace.logpdf(w, 0, 2.0 / np.sqrt(2 * 3))

    layer = VariationalDense(3, 2, prior=chosen, use_bias=False, rngs=nnx.Rngs(0))
    exact = quadrature(*set_gaussian(layer.kernel, 0), log_prior)
    keys = jax.random.split(jax.random.key(0), 20_000)
    found = np.asarray(jax.jit(jax.vmap(layer.kl))(keys), np.float64)
    error = found.std() / np.sqrt(len(found))
    # 4 standard errors: 6e-5 false alarms; 1e-4 for float32 where there is no noise.
    assert found.mean() == pytest.approx(exact, abs=4 * error + 1e-4 * abs(exact))
    assert 4 * error < 0.02 * exact


def test_kl_of_a_module_adds_up_its_layers():
    rngs = nnx.Rngs(0)
    inner = nnx.Sequential(VariationalDense(3, 4, rngs=rngs), nnx.relu, nnx.Linear(4, 4, rngs=rngs))
    network = nnx.Sequential(inner, VariationalDense(4, 2, rngs=rngs))
    parts = [inner.layers[0].kl(jax.random.key(0)), network.layers[1].kl(jax.random.key(0))]
    assert float(kl(network, jax.random.key(0))) == pytest.approx(float(sum(parts)), rel=1e-6)
    with pytest.raises(ValueError, match="Linear holds no VariationalDense or VariationalConv"):
        kl(nnx.Linear(3, 2, rngs=rngs), jax.random.key(0))


@pytest.mark.parametrize("layer", [VariationalDense, VariationalConv])
def test_bad_arguments(layer):
    with pytest.raises(ValueError, match="unknown estimator 'flip': give one of shared, local, flipout"):
        layer(3, 2, estimator="flip", rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="Hierarchical prior learns its scale as a site of a model"):
        layer(3, 2, prior=Hierarchical(), rngs=nnx.Rngs(0))


@pytest.mark.parametrize("layer", [VariationalDense, VariationalConv])
def test_layers_have_the_dtype_and_the_start_they_are_given(layer):
    with jax.enable_x64(True):
        made = layer(30, 20, dtype=jnp.float64, init_scale=0.2, rngs=nnx.Rngs(0))
        leaves = jax.tree.leaves(nnx.state(made, nnx.Param))
        assert {leaf.dtype for leaf in leaves} == {np.dtype("float64")}
        np.testing.assert_allclose(made.kernel.scale, 0.2, rtol=1e-12)
    assert layer(3, 2, use_bias=False, rngs=nnx.Rngs(0)).bias is None


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_rows_have_noise_of_their_own_and_every_output_its_exact_variance(estimator):
    layer = VariationalDense(6, 2, estimator=estimator, rngs=nnx.Rngs(0))
    set_gaussian(layer.kernel, 0)
    set_gaussian(layer.bias, 1)
    row = np.random.default_rng(0).normal(size=6).astype(np.float32)
    x = np.stack([row, row, np.zeros(6, np.float32)])  # the bias alone reaches the last row
    number = 4000
    keys = jax.random.split(jax.random.key(0), number)
    noise = np.asarray(jax.jit(jax.vmap(lambda key: layer(x, key=key)))(keys) - layer(x), np.float64)
    exact = x**2 @ np.asarray(layer.kernel.scale) ** 2 + np.asarray(layer.bias.scale) ** 2
    # 5 standard errors of a Normal's variance, √(2/n), in 6 outputs (flipout's mixture of signs is that Normal too):
    # 4e-6 false alarms.
    np.testing.assert_allclose(noise.var(0), exact, rtol=5 * np.sqrt(2 / number))
    assert (np.abs(noise.mean(0)) < 5 * np.sqrt(exact / number)).all()
    for output in range(2):
        correlation = np.corrcoef(noise[:, 0, output], noise[:, 1, output])[0, 1]
        if estimator == "shared":
            assert correlation == pytest.approx(1, abs=1e-5)
        else:
            # 4 standard errors in each of 2 outputs and 2 estimators: 3e-4 false alarms.
            assert abs(correlation) < 4 / np.sqrt(number)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_dense_layer_takes_axes_between_row_and_feature(estimator):
    """Of equal lengths, so that axes that are mixed up give no error but other numbers."""
    layer = VariationalDense(4, 4, estimator=estimator, rngs=nnx.Rngs(0))
    set_gaussian(layer.kernel, 0)
    set_gaussian(layer.bias, 1)
    x = np.random.default_rng(0).normal(size=(4, 4, 4)).astype(np.float32)
    expected = x @ np.asarray(layer.kernel.loc[...]) + np.asarray(layer.bias.loc[...])
    np.testing.assert_allclose(layer(x), expected, rtol=1e-5, atol=1e-6)
    number = 4000
    keys = jax.random.split(jax.random.key(0), number)
    noise = np.asarray(jax.jit(jax.vmap(lambda key: layer(x, key=key)))(keys) - layer(x), np.float64)
    exact = x**2 @ np.asarray(layer.kernel.scale) ** 2 + np.asarray(layer.bias.scale) ** 2
    # 6 standard errors of a Normal's variance in 64 outputs: 1e-7 false alarms.
    np.testing.assert_allclose(noise.var(0), exact, rtol=6 * np.sqrt(2 / number))


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_gradients_of_a_row_of_zeros_are_finite_and_zero(estimator):
    layer = VariationalDense(3, 2, estimator=estimator, use_bias=False, rngs=nnx.Rngs(0))
    gradient = nnx.grad(lambda layer: (layer(jnp.zeros((4, 3)), key=jax.random.key(0)) + 1).sum())(layer)
    for leaf in jax.tree.leaves(gradient):
        np.testing.assert_array_equal(leaf, 0)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_gradients_through_max_pooling_are_the_same_compiled_and_not(estimator):
    # XLA may compute a fused activation twice with other rounding; the gradient of a maximum then finds no entry
    # that equals it, and divides 0 by 0.
    layer = VariationalConv(1, 4, 3, estimator=estimator, rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(0), (200, 4, 4, 1))
    graph, params = nnx.split(layer)

    def loss(params, key):
        return max_pool(nnx.relu(nnx.merge(graph, params)(x, key=key)), 4).sum()

    eager = jax.grad(loss)(params, jax.random.key(1))
    compiled = jax.jit(jax.grad(loss))(params, jax.random.key(1))
    for found, wanted in zip(jax.tree.leaves(compiled), jax.tree.leaves(eager), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-3 * float(jnp.abs(wanted).max()))


def test_gaussian_draws_have_its_mean_and_scale():
    gaussian = Gaussian(jnp.array([1.0, -2.0]), 0.5)
    draws = np.asarray(gaussian.draw(jax.random.key(0), (10_000,)))
    # 4 standard errors in 2 means and 2 variances: 3e-4 false alarms.
    np.testing.assert_allclose(draws.mean(0), [1, -2], atol=4 * 0.5 / 100)
    np.testing.assert_allclose(draws.var(0), 0.25, rtol=4 * np.sqrt(2 / 10_000))


def test_signs_are_fair_and_independent_over_rows_and_channels():
    """Packed 32 to a word, over three words: of channels of different words too, and constant over an image."""
    rows, channels = 4096, 70
    signs = np.asarray(_signs(jax.random.key(0), jnp.zeros((rows, 5, 4, channels))))
    assert signs.shape == (rows, 1, 1, channels)
    assert set(np.unique(signs)) == {-1.0, 1.0}
    signs = signs[:, 0, 0]
    # Means and correlations of fair coins have sd 1/64; the largest of 2,500 is beyond 6 sd once in 200,000 seeds.
    assert np.abs(signs.mean(0)).max() < 6 / np.sqrt(rows)
    correlation = signs.T @ signs / rows - np.eye(channels)
    assert np.abs(correlation).max() < 6 / np.sqrt(rows)
    neighbours = (signs[1:] * signs[:-1]).mean(0)
    assert np.abs(neighbours).max() < 6 / np.sqrt(rows - 1)


def test_noise_is_standard_normal_and_the_same_compiled_or_not():
    key = jax.random.key(0)
    noise = np.asarray(_normal(key, (300, 101), jnp.float32))
    compiled = np.asarray(jax.jit(lambda k: _normal(k, (300, 101), jnp.float32))(key))
    np.testing.assert_allclose(noise, compiled, rtol=1e-5, atol=1e-6)
    assert stats.kstest(noise.ravel(), "norm").pvalue > 1e-4  # false alarms: 1 in 10,000 seeds
    assert abs(np.corrcoef(noise.ravel()[1:], noise.ravel()[:-1])[0, 1]) < 4 / np.sqrt(noise.size)
