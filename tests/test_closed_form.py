"""Every back end against posteriors that are known exactly, and against each other.

Stochastic tests have fixed keys; each states its false-alarm rate, the chance that a correct implementation would
fail it on a fresh key.
"""

import itertools
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from numpyro import handlers
from numpyro.diagnostics import effective_sample_size
from numpyro.distributions import biject_to
from numpyro.infer import Trace_ELBO, TraceMeanField_ELBO, init_to_value
from numpyro.infer.autoguide import AutoNormal
from numpyro.infer.util import log_density, potential_energy

from hmcvi.inference import NUTS, SVI, BayesByBackprop, VariationalConv, fit
from hmcvi.inference.backprop import MeanField, negative_elbo
from hmcvi.inference.base import latent_sites
from hmcvi.inference.variational import ESTIMATORS, Gaussian
from hmcvi.models import Hierarchical, ScaleMixture, gp, mlp

from .targets import NOISE_SCALE, PRIOR_SCALE, conjugate_regression, linear_regression

TARGET = conjugate_regression()
X, Y = TARGET.x.astype(np.float32), TARGET.y.astype(np.float32)

NUM_DRAWS = 40_000
"""Draws of a variational fit: its variances are known to √(2/n) = 0.7 %, its means to 0.005 sd."""

VARIATIONAL = {
    "svi": SVI,
    **{f"bbb-{estimator}": partial(BayesByBackprop, estimator) for estimator in ESTIMATORS},
}
NUM_STEPS = 10_000


@cache
def variational_fit(name):
    # Down to 3e-5, where Adam's last steps add no noise: a constant rate of 0.01 leaves 5 % in the variances.
    rate = optax.exponential_decay(0.03, NUM_STEPS, 1e-3)
    method = VARIATIONAL[name](
        num_steps=NUM_STEPS, batch_size=len(X), num_draws=NUM_DRAWS, learning_rate=rate, num_particles=4
    )
    return fit(jax.random.key(0), linear_regression, X, Y, method)


# --- the conjugate regression


def test_nuts_recovers_the_exact_mean_and_covariance():
    result = fit(jax.random.key(0), linear_regression, X, Y, NUTS(num_warmup=300, num_draws=1000))
    draws = np.asarray(result.draws["out.kernel"], np.float64)[..., 0]
    centred = draws - TARGET.mean
    moments = {
        "mean": (draws, TARGET.mean),
        "covariance": (centred[..., :, None] * centred[..., None, :], TARGET.covariance),
    }
    for name, (values, exact) in moments.items():
        # 4 Monte Carlo standard errors in 9 numbers: 6e-4 false alarms.
        error = values.std((0, 1)) / np.sqrt(effective_sample_size(values))
        np.testing.assert_array_less(np.abs(values.mean((0, 1)) - exact), 4 * error, err_msg=name)
        # The errors are small enough to tell: correlations of −0.3 and less are not 0, means not those of the prior.
        assert (error < 0.1 * np.sqrt(np.abs(TARGET.covariance)).max()).all()


@pytest.mark.parametrize("name", VARIATIONAL)
def test_a_variational_fit_reaches_the_optimal_mean_field(name):
    draws = np.asarray(variational_fit(name).draws["out.kernel"], np.float64)[0, :, :, 0]
    sd = np.sqrt(TARGET.mean_field_variance)
    # Over twelve keys and entries the means were off by 0.01 sd (root mean square; 0.005 of it the draws' own
    # Monte Carlo error) and the variances by 1.3 %: these are 4 such errors and more, 4e-4 false alarms a method.
    assert (np.abs(draws.mean(0) - TARGET.mean) < 0.05 * sd).all()
    np.testing.assert_allclose(draws.var(0), TARGET.mean_field_variance, rtol=0.05)


def exact_elbo(mean, variance):
    """ELBO of independent Normals on the regression, in closed form; nats."""
    residual = TARGET.y - TARGET.x @ mean
    fit_term = -(residual @ residual + (TARGET.x**2 @ variance).sum()) / (2 * NOISE_SCALE**2)
    log_likelihood = fit_term - len(X) / 2 * np.log(2 * np.pi * NOISE_SCALE**2)
    ratio = variance / PRIOR_SCALE**2
    kl = (ratio + mean**2 / PRIOR_SCALE**2 - 1 - np.log(ratio)).sum() / 2
    return log_likelihood - kl


def test_the_closed_forms_agree():
    elbo = exact_elbo(TARGET.mean, TARGET.mean_field_variance)
    assert TARGET.log_evidence - elbo == pytest.approx(TARGET.gap, rel=1e-9)
    assert TARGET.gap > 1
    for factor in (0.95, 1.05):
        assert exact_elbo(TARGET.mean, factor * TARGET.mean_field_variance) < elbo
        assert exact_elbo(factor * TARGET.mean, TARGET.mean_field_variance) < elbo


@pytest.mark.parametrize("name", VARIATIONAL)
def test_the_loss_ends_at_the_evidence_less_the_known_gap(name):
    result = variational_fit(name)
    draws = np.asarray(result.draws["out.kernel"], np.float64)[0, :, :, 0]
    # Second order in errors of a few percent: less than 3 × 0.05² nats.
    assert TARGET.log_evidence - exact_elbo(draws.mean(0), draws.var(0)) == pytest.approx(TARGET.gap, abs=0.01)
    last = result.losses[-300:]
    error = last.std() / np.sqrt(len(last))
    assert error < 0.1
    # The last steps hardly move. 4 standard errors: 6e-5 false alarms, and the 0.01 nats of above.
    assert last.mean() == pytest.approx(TARGET.gap - TARGET.log_evidence, abs=4 * error + 0.01)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_the_estimated_elbo_is_the_exact_one(estimator):
    mean, scale = TARGET.mean + 0.05, np.array([0.1, 0.05, 0.15])
    _, ops = latent_sites(linear_regression, X, Y)
    start = {"out.kernel": jnp.asarray(mean[:, None], jnp.float32)}
    posterior = MeanField(start, ops, estimator=estimator, init_scale=0.1)
    posterior.layers["out"].kernel.rho[...] = jnp.log(jnp.expm1(jnp.asarray(scale[:, None], jnp.float32)))
    keys = jax.random.split(jax.random.key(0), 4000)
    found = np.asarray(jax.vmap(lambda key: negative_elbo(posterior, linear_regression, key, X, Y))(keys))
    # 4 standard errors: 6e-5 false alarms; an error of 2 % would show.
    error = found.std() / np.sqrt(len(found))
    assert found.mean() == pytest.approx(-exact_elbo(mean, scale**2), abs=4 * error)
    assert 4 * error < 0.02 * abs(found.mean())


# --- the same log joint

ROWS = 15
RANDOM = np.random.default_rng(0)
INPUTS, NUMBERS, LABELS = RANDOM.normal(size=(ROWS, 2)), RANDOM.normal(size=ROWS), RANDOM.integers(3, size=ROWS)

JOINTS = {
    "linear": (linear_regression, NUMBERS),
    "hierarchical mlp": (partial(mlp, widths=(3,), likelihood="normal", prior=Hierarchical()), NUMBERS),
    "mixture mlp": (partial(mlp, widths=(), num_classes=3, prior=ScaleMixture()), LABELS),
    "gp": (gp, NUMBERS),
}
TINY = 1e-9


def points(model, y, number=20):
    """Sites and layers of the model, and points in the unconstrained space: {site: (point, *shape)}."""
    sites, ops = latent_sites(model, INPUTS, y)
    random = np.random.default_rng(1)
    shapes = {name: jax.eval_shape(biject_to(site.support).inv, np.zeros(site.shape)) for name, site in sites.items()}
    return sites, ops, {name: random.normal(0, 0.7, (number, *like.shape)) for name, like in shapes.items()}


def at_its_mean(gaussian, key, shape=()):
    return jnp.zeros((*shape, *gaussian.loc[...].shape)) + gaussian.loc[...]


@pytest.mark.parametrize("name", JOINTS)
def test_the_three_back_ends_compute_the_same_log_joint(name, monkeypatch):
    """At a scale of 1e-9 the ELBO is log p(y, w) − log q(w) at the mean of q, up to the scale squared.

    The draws of Bayes-by-Backprop are set to the mean, where −log q of an entry is log(scale √2π); a divergence in
    closed form has the entropy of an entry, ½ more. SVI's guide tells its own
    log q, both in the constrained space: the Jacobian takes it to the unconstrained one.
    """
    model, y = JOINTS[name]
    monkeypatch.setattr(Gaussian, "draw", at_its_mean)
    with jax.enable_x64(True):
        sites, ops, at = points(model, y)
        sizes = {site: leaf[0].size for site, leaf in at.items()}
        guide = AutoNormal(model, init_loc_fn=init_to_value(values={n: jnp.ones(s.shape) for n, s in sites.items()}))
        with handlers.seed(rng_seed=0):
            guide(INPUTS, y)

        @jax.jit
        def nuts(point):
            return -potential_energy(model, (INPUTS, y), {}, point)

        def bbb(estimator):
            def elbo(point):
                posterior = MeanField(point, ops, estimator=estimator, init_scale=TINY)
                return -negative_elbo(posterior, model, jax.random.key(0), INPUTS, y)

            return elbo

        def svi(point):
            params = {f"{site}_auto_loc": value for site, value in point.items()}
            params |= {f"{site}_auto_scale": jnp.full_like(value, TINY) for site, value in point.items()}
            key = jax.random.key(0)
            _, key_guide = jax.random.split(key)  # as Trace_ELBO splits it
            log_q, _ = log_density(handlers.seed(guide, key_guide), (INPUTS, y), {}, params)
            jacobian = sum(
                biject_to(site.support).log_abs_det_jacobian(at, biject_to(site.support)(at)).sum()
                for site, at in ((sites[n], value) for n, value in point.items())
            )
            return log_q - Trace_ELBO().loss(key, params, model, guide, INPUTS, y) + jacobian

        estimators = ESTIMATORS if ops else ESTIMATORS[:1]  # without layers they are one program
        everything = {"nuts": nuts, "svi": svi} | {estimator: bbb(estimator) for estimator in estimators}
        found = jax.jit(partial(jax.lax.map, lambda point: {k: f(point) for k, f in everything.items()}))(at)
    found = jax.tree.map(np.asarray, found)

    minus_log_q = sum(sizes.values()) * np.log(TINY * np.sqrt(2 * np.pi))
    in_closed_form = [site for site in sites if site.endswith((".kernel", ".bias")) and name != "mixture mlp"]
    entropy_excess = sum(sizes[site] for site in in_closed_form) / 2
    # Sites of other supports than the reals, where a Jacobian enters, are in the table.
    assert ("mlp" in name and name != "mixture mlp") == any(site.endswith(".scale") for site in sites)
    np.testing.assert_allclose(found["svi"], found["nuts"], rtol=1e-6)
    for estimator in estimators:
        np.testing.assert_allclose(found[estimator] - minus_log_q - entropy_excess, found["nuts"], rtol=1e-6)


# --- minibatches


@pytest.mark.parametrize("likelihood", ["normal", "categorical"])
def test_the_elbo_of_minibatches_averages_to_that_of_all_rows(likelihood):
    y = NUMBERS if likelihood == "normal" else LABELS
    model = partial(mlp, widths=(3,), likelihood=likelihood, num_classes=3)
    batches = np.random.default_rng(0).permutation(ROWS).reshape(3, -1)
    key = jax.random.key(0)
    with jax.enable_x64(True):
        _, ops, at = points(model, y)
        posterior = MeanField({n: leaf[0] for n, leaf in at.items()}, ops, estimator="shared", init_scale=0.3)
        guide = AutoNormal(model, init_scale=0.3)
        with handlers.seed(rng_seed=0):
            guide(INPUTS, y)
        params = {f"{n}_auto_loc": leaf[0] for n, leaf in at.items()}
        params |= {f"{n}_auto_scale": jnp.full_like(leaf[0], 0.3) for n, leaf in at.items()}

        @partial(jax.jit, static_argnames="num_rows")
        def losses(x, y, num_rows=None):
            configured = partial(model, num_rows=num_rows)
            return jnp.stack(
                [
                    negative_elbo(posterior, configured, key, x, y),
                    TraceMeanField_ELBO().loss(key, params, configured, guide, x, y),
                ]
            )

        whole = np.asarray(losses(INPUTS, y))
        parts = np.array([losses(INPUTS[rows], y[rows], num_rows=ROWS) for rows in batches])
    np.testing.assert_allclose(parts.mean(0), whole, rtol=1e-6)
    # The batches differ, and a likelihood that is not scaled by N/B would show.
    assert (parts.std(0) > 0.01 * np.abs(whole)).all()


# --- the estimators against each other

BATCH, FEATURES, UNITS = 128, 20, 24


def test_estimators_agree_in_expectation_and_share_less_noise_between_rows():
    """Loss and gradients of a one-hidden-layer network at batch 128 over several hundred keys."""
    random = np.random.default_rng(0)
    x = random.normal(size=(BATCH, FEATURES)).astype(np.float32)
    y = random.integers(3, size=BATCH)
    model = partial(mlp, widths=(UNITS,), num_classes=3)
    sites, ops = latent_sites(model, x, y)
    start = {n: jnp.asarray(random.normal(0, 0.3, site.shape), jnp.float32) for n, site in sites.items()}
    keys = jax.random.split(jax.random.key(0), 400)
    losses, variances = {}, {}
    for estimator in ESTIMATORS:
        graph, params = nnx.split(MeanField(start, ops, estimator=estimator, init_scale=0.3))

        def loss(params, key, graph=graph):
            return negative_elbo(nnx.merge(graph, params), model, key, x, y)

        values, gradients = jax.jit(jax.vmap(jax.value_and_grad(loss), (None, 0)))(params, keys)
        losses[estimator] = np.asarray(values, np.float64)
        variances[estimator] = sum(leaf.var(0).sum() for leaf in jax.tree.leaves(gradients))
    for one, other in itertools.combinations(losses.values(), 2):
        # 4 standard errors in 3 differences: 2e-4 false alarms.
        error = np.sqrt((one.var() + other.var()) / len(keys))
        assert one.mean() == pytest.approx(other.mean(), abs=4 * error)
        assert 4 * error < 0.05 * one.mean()
    # Found: 0.44 and 0.24 of the shared variance, each known to about 5 % from 400 keys.
    assert variances["flipout"] < 0.6 * variances["shared"]
    assert variances["local"] < 0.6 * variances["shared"]


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_convolution_noise_has_the_exact_covariance_between_positions(estimator):
    """Outputs are linear in the weights, so their covariance is J diag(σ²) Jᵀ; "local" keeps its diagonal alone."""
    layer = VariationalConv(2, 2, 3, estimator=estimator, init_scale=0.3, rngs=nnx.Rngs(0))
    layer.kernel.rho[...] += jax.random.normal(jax.random.key(1), layer.kernel.rho[...].shape)
    x = jax.random.normal(jax.random.key(2), (1, 3, 3, 2))
    number = 4000
    keys = jax.random.split(jax.random.key(3), number)
    outputs = np.asarray(jax.jit(jax.vmap(lambda key: layer(x, key=key).ravel()))(keys), np.float64)
    jacobian = jax.jacobian(lambda kernel: layer.op(x, kernel).ravel())(layer.kernel.loc[...])
    jacobian = np.asarray(jacobian, np.float64).reshape(outputs.shape[1], -1)
    of_bias = np.tile(np.eye(2), (9, 1))
    exact = jacobian * np.asarray(layer.kernel.scale).ravel() ** 2 @ jacobian.T
    exact += of_bias * np.asarray(layer.bias.scale) ** 2 @ of_bias.T
    between = exact - np.diag(np.diag(exact))
    assert np.abs(between).max() > 0.3 * np.diag(exact).max()
    if estimator == "local":
        exact = np.diag(np.diag(exact))
    centred = outputs - np.asarray(layer(x)).ravel()
    # 5 standard errors in 18 means and 171 covariances: 1e-4 false alarms.
    variance = np.diag(exact)
    assert (np.abs(centred.mean(0)) < 5 * np.sqrt(variance / number)).all()
    products = centred[:, :, None] * centred[:, None, :]
    assert (np.abs(products.mean(0) - exact) < 5 * products.std(0) / np.sqrt(number)).all()
    assert 5 * products.std(0).max() / np.sqrt(number) < 0.5 * np.abs(between).max()
