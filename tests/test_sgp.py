"""The sparse GP against the exact one, and against its definition by dense matrices in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro import handlers
from numpyro.infer.util import potential_energy

from hmcvi.inference.base import minibatches
from hmcvi.models import gp, sgp
from hmcvi.models.gp import jitter
from hmcvi.models.kernels import KERNELS, kernel_matrix
from hmcvi.models.sgp import inducing_rows

ROWS, NEW_ROWS, FEATURES = 20, 7, 5
KEY = jax.random.key(0)


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


RANDOM = np.random.default_rng(0)
X, X_NEW, Y = RANDOM.normal(size=(ROWS, FEATURES)), RANDOM.normal(size=(NEW_ROWS, FEATURES)), RANDOM.normal(size=ROWS)
AMPLITUDE, NOISE, PERIOD = 1.3, 0.3, 2.3
LENGTHSCALE = np.array([1.0, 1.5, 2.0, 2.5, 3.0])


def values_of(kernel, **others):
    values = {"lengthscale": LENGTHSCALE, "amplitude": AMPLITUDE, "noise_scale": NOISE, "period": PERIOD, **others}
    return {name: jnp.asarray(value) for name, value in values.items() if name != "period" or kernel == "periodic"}


def sites_of(model, values, *arguments, **options):
    found = handlers.seed(handlers.substitute(model, data=values), KEY)
    return handlers.trace(found).get_trace(*arguments, **options)


def correlation(kernel, x1, x2):
    return np.asarray(kernel_matrix(kernel, *map(jnp.asarray, (x1, x2, LENGTHSCALE, PERIOD))))


def low_rank(kernel, x1, x2, num_inducing):
    """K(x1, Z) K(Z, Z)⁻¹ K(Z, x2)."""
    z = X[np.linspace(0, ROWS - 1, num_inducing).round().astype(int)]
    inner = correlation(kernel, z, z) + jitter(num_inducing, np.float64) * np.eye(num_inducing)
    return correlation(kernel, x1, z) @ np.linalg.solve(inner, correlation(kernel, z, x2))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("kernel", KERNELS)
def test_with_every_row_inducing_it_is_the_exact_gp(kernel):
    found, wanted = (
        sites_of(model, values_of(kernel), jnp.asarray(X), jnp.asarray(Y), x_new=jnp.asarray(X_NEW), kernel=kernel)
        for model in (sgp, gp)
    )
    # the jitter, 1e-10, over noise² / amplitude² = 0.05 of the smallest eigenvalue
    np.testing.assert_allclose(found["y"]["fn"].log_prob(Y), wanted["y"]["fn"].log_prob(Y), rtol=1e-7)
    np.testing.assert_allclose(found["y_new"]["fn"].loc, wanted["y_new"]["fn"].loc, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(found["y_new"]["fn"].scale, wanted["y_new"]["fn"].scale, rtol=1e-6)
    assert found["noise_new"]["value"] == wanted["noise_new"]["value"]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("kernel", KERNELS)
def test_marginal_and_predictions_by_dense_matrices(kernel):
    """Snelson & Ghahramani (2006), eq. 9: the joint of y and f_new is Normal, conditioned by one dense solve."""
    num_inducing = 6
    options = {"kernel": kernel, "num_inducing": num_inducing}
    found = sites_of(sgp, values_of(kernel), jnp.asarray(X), jnp.asarray(Y), x_new=jnp.asarray(X_NEW), **options)
    q = low_rank(kernel, X, X, num_inducing)
    covariance = AMPLITUDE**2 * (q + np.diag(1 - np.diag(q))) + NOISE**2 * np.eye(ROWS)
    np.testing.assert_allclose(found["y"]["fn"].covariance_matrix, covariance, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(np.diag(covariance), AMPLITUDE**2 + NOISE**2)  # as the exact GP's
    cross = AMPLITUDE**2 * low_rank(kernel, X, X_NEW, num_inducing)
    np.testing.assert_allclose(found["y_new"]["fn"].loc, cross.T @ np.linalg.solve(covariance, Y), rtol=1e-7, atol=1e-9)
    variance = AMPLITUDE**2 + NOISE**2 - (cross * np.linalg.solve(covariance, cross)).sum(0)
    np.testing.assert_allclose(found["y_new"]["fn"].variance, variance, rtol=1e-7)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("num_classes", [2, 3])
def test_latent_functions_of_classification(num_classes):
    num_inducing, functions = 6, {2: 1, 3: 3}[num_classes]
    latent = np.random.default_rng(4).normal(size=(num_inducing, functions))
    options = {"likelihood": "categorical", "num_classes": num_classes, "num_inducing": num_inducing}
    values = values_of("matern52", latent=latent)
    del values["noise_scale"]
    labels = jnp.arange(ROWS) % num_classes
    found = sites_of(sgp, values, jnp.asarray(X), labels, x_new=jnp.asarray(X_NEW), **options)
    z = X[inducing_rows(ROWS, num_inducing)]
    inner = correlation("matern52", z, z) + jitter(num_inducing, np.float64) * np.eye(num_inducing)
    f = AMPLITUDE * correlation("matern52", X, z) @ np.linalg.solve(np.linalg.cholesky(inner).T, latent)
    logits = np.c_[np.zeros(ROWS), f] if num_classes == 2 else f
    np.testing.assert_allclose(found["y"]["fn"].logits, logits, rtol=1e-8, atol=1e-10)
    deviance = AMPLITUDE**2 * (1 - np.diag(low_rank("matern52", X_NEW, X_NEW, num_inducing)))
    np.testing.assert_allclose(found["latent_new"]["fn"].variance, np.repeat(deviance[:, None], functions, 1))


def test_the_hyperparameters_have_the_priors_of_the_exact_gp():
    x = jnp.zeros((4, 3))
    ours, exact = (sites_of(model, {}, x, kernel="periodic") for model in (sgp, gp))
    assert set(ours) == set(exact)
    for site in ("lengthscale", "amplitude", "noise_scale", "period"):
        drawn = exact[site]["fn"].sample(KEY, (20,))
        np.testing.assert_array_equal(ours[site]["fn"].log_prob(drawn), exact[site]["fn"].log_prob(drawn))


def test_inducing_rows_are_spread_from_the_first_to_the_last():
    np.testing.assert_array_equal(inducing_rows(10, 4), [0, 3, 6, 9])
    np.testing.assert_array_equal(inducing_rows(3, 100), [0, 1, 2])
    assert len(set(inducing_rows(1001, 1000))) == 1000


def test_far_from_its_rows_predictions_return_to_the_prior():
    far = jnp.full((1, FEATURES), 1e4)
    values = {name: jnp.asarray(value, jnp.float32) for name, value in values_of("rbf").items()}
    found = sites_of(sgp, values, jnp.asarray(X), jnp.asarray(Y, jnp.float32), x_new=far, num_inducing=6, kernel="rbf")
    np.testing.assert_allclose(found["y_new"]["fn"].loc, 0, atol=1e-6)
    np.testing.assert_allclose(found["y_new"]["fn"].scale, np.hypot(AMPLITUDE, NOISE), rtol=1e-6)


@pytest.mark.parametrize("kernel", KERNELS)
def test_gradients_are_finite_over_the_prior_in_single_precision(kernel):
    """Also where two inducing rows coincide, and where the noise's square underflows."""
    x = jnp.asarray(np.r_[X, X[:3]], jnp.float32)
    y = jnp.asarray(np.r_[Y, Y[:3]], jnp.float32)
    gradient = jax.jit(jax.grad(lambda z: potential_energy(sgp, (x, y), {"kernel": kernel}, z)))
    random = np.random.default_rng(1)
    for _ in range(30):
        values = {"lengthscale": random.normal(0.8, 1, FEATURES), "amplitude": random.normal()}
        values |= {"noise_scale": random.normal(-1, 1)} | ({"period": random.normal()} if kernel == "periodic" else {})
        found = gradient({name: jnp.asarray(value, jnp.float32) for name, value in values.items()})
        assert all(np.isfinite(np.asarray(part)).all() for part in found.values())


def test_it_has_no_minibatches():
    x, y = jnp.zeros((300, 2)), jnp.zeros(300)
    assert minibatches(sgp, x, y, None) == (sgp, 300)
    with pytest.raises(ValueError, match="sgp got 50 of 300 rows: it has no minibatches, fit it with batch_size=None"):
        minibatches(sgp, x, y, 50)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_inducing": 0}, "num_inducing=0: give at least 1 inducing row"),
        ({"y": np.zeros(5)}, r"y has shape \(5,\) and x has 6 rows: wanted y of shape \(6,\)"),
        ({"kernel": "linear"}, "unknown kernel 'linear'"),
        ({"x_new": np.zeros((2, 3))}, "x with 2 features and x_new with 3: give both the same"),
        ({"likelihood": "poisson"}, "unknown likelihood 'poisson'"),
    ],
)
def test_bad_input(options, message):
    with pytest.raises(ValueError, match=message):
        sites_of(sgp, {}, jnp.zeros((6, 2)), **options)
