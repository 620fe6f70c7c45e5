"""The Gaussian process against scikit-learn's, and against formulas written out in NumPy."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from numpyro import handlers
from numpyro.infer.util import log_density, potential_energy
from scipy import stats
from sklearn.datasets import load_breast_cancer
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process import kernels as sklearn_kernels

from hmcvi.benchmarks.datasets import load
from hmcvi.models import gp, sgp
from hmcvi.models.gp import COPIES, jitter, most_rows
from hmcvi.models.kernels import KERNELS, kernel_matrix

KEY = jax.random.key(0)
FEATURES = 3
LENGTHSCALE = np.array([0.5, 1.0, 3.0])
PERIOD = 1.7


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def inputs(rows=12, features=FEATURES, seed=0):
    return np.random.default_rng(seed).normal(size=(rows, features))


SKLEARN = {
    "rbf": lambda lengthscale: sklearn_kernels.RBF(lengthscale),
    "matern32": lambda lengthscale: sklearn_kernels.Matern(lengthscale, nu=1.5),
    "matern52": lambda lengthscale: sklearn_kernels.Matern(lengthscale, nu=2.5),
    "periodic": lambda lengthscale: sklearn_kernels.ExpSineSquared(lengthscale.item(), periodicity=PERIOD),
}


def periodic(x1, x2, lengthscale, period):
    """exp(-2 sum_d sin²(π (x_d - x'_d) / period) / lengthscale_d²)."""
    sines = np.sin(np.pi * (x1[:, None] - x2[None]) / period)
    return np.exp(-2 * (sines**2 / lengthscale**2).sum(-1))


# --- kernels


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("offset", [0.0, 1000.0])
@pytest.mark.parametrize("kernel", ["rbf", "matern32", "matern52"])
def test_kernels_with_a_lengthscale_for_each_feature(kernel, offset):
    x1, x2 = inputs() + offset, inputs(7, seed=1) + offset
    found = kernel_matrix(kernel, jnp.asarray(x1), jnp.asarray(x2), jnp.asarray(LENGTHSCALE))
    np.testing.assert_allclose(found, SKLEARN[kernel](LENGTHSCALE)(x1, x2), rtol=1e-9)
    itself = kernel_matrix(kernel, jnp.asarray(x1), jnp.asarray(x1), jnp.asarray(LENGTHSCALE))
    np.testing.assert_allclose(itself, SKLEARN[kernel](LENGTHSCALE)(x1), rtol=1e-9)


@pytest.mark.usefixtures("x64")
def test_periodic_kernel():
    x1, x2 = inputs(features=1), inputs(7, features=1, seed=1)
    lengthscale = np.array([0.8])
    found = kernel_matrix("periodic", *map(jnp.asarray, (x1, x2, lengthscale, PERIOD)))
    np.testing.assert_allclose(found, SKLEARN["periodic"](lengthscale)(x1, x2), rtol=1e-10)
    again = kernel_matrix("periodic", *map(jnp.asarray, (x1, x2 + 5 * PERIOD, lengthscale, PERIOD)))
    np.testing.assert_allclose(again, found, rtol=1e-10)


@pytest.mark.usefixtures("x64")
def test_periodic_kernel_in_several_dimensions():
    x1, x2 = inputs(), inputs(7, seed=1)
    found = kernel_matrix("periodic", *map(jnp.asarray, (x1, x2, LENGTHSCALE, PERIOD)))
    np.testing.assert_allclose(found, periodic(x1, x2, LENGTHSCALE, PERIOD), rtol=1e-10)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("kernel", KERNELS)
def test_gradients_of_kernels_where_inputs_coincide(kernel):
    # Whole numbers with mean 0, over powers of 2: distances of exactly 0, where the root has no gradient, both on the
    # diagonal and between the first two rows.
    x = np.array([[0.0, 0, 0], [0, 0, 0], [1, -1, 2], [-1, 1, -2]])
    lengthscale = np.array([0.5, 1.0, 2.0])
    weights = jnp.asarray(np.random.default_rng(2).normal(size=(4, 4)))

    def total(x1, x2, lengthscale, period):
        return (weights * kernel_matrix(kernel, x1, x2, lengthscale, period)).sum()

    arguments = tuple(map(jnp.asarray, (x, x.copy(), lengthscale, PERIOD)))
    assert all(np.isfinite(gradient).all() for gradient in jax.grad(total, (0, 1, 2, 3))(*arguments))
    # Differences over 1e-5: the kink |r|³ of Matérn 3/2 at distance 0 leaves an error of some 1e-5 squared.
    check = functools.partial(check_grads, order=1, modes=["rev"], atol=1e-6, rtol=1e-6, eps=1e-5)
    check(total, arguments)
    # With respect to both inputs at once, as where a kernel is taken of a matrix with itself.
    check(lambda x: total(x, x, *arguments[2:]), arguments[:1])


# --- regression

HYPERPARAMETERS = {"lengthscale": LENGTHSCALE, "amplitude": 1.3, "noise_scale": 0.2, "period": PERIOD}


def values_of(kernel, features=FEATURES, *, classification=False):
    """Fixed hyperparameters, those that the model has."""
    leave_out = {"period"} - {"period" if kernel == "periodic" else ""} | ({"noise_scale"} if classification else set())
    values = {name: jnp.asarray(value) for name, value in HYPERPARAMETERS.items() if name not in leave_out}
    return values | {"lengthscale": values["lengthscale"][:features]}


def correlation(kernel, x1, x2):
    if kernel == "periodic":
        return periodic(x1, x2, LENGTHSCALE[: x1.shape[1]], PERIOD)
    return SKLEARN[kernel](LENGTHSCALE[: x1.shape[1]])(x1, x2)


def sites_of(x, y=None, values=(), **options):
    model = handlers.seed(handlers.substitute(gp, data=dict(values)), KEY)
    return handlers.trace(model).get_trace(jnp.asarray(x), None if y is None else jnp.asarray(y), **options)


def sklearn_regressor(kernel, x, y):
    """The same process at the same hyperparameters: amplitude² (k + jitter) + noise²."""
    amplitude, noise_scale = HYPERPARAMETERS["amplitude"], HYPERPARAMETERS["noise_scale"]
    covariance = sklearn_kernels.ConstantKernel(amplitude**2) * SKLEARN[kernel](LENGTHSCALE[: x.shape[1]])
    alpha = noise_scale**2 + amplitude**2 * jitter(1, np.float64)
    return GaussianProcessRegressor(covariance, alpha=alpha, optimizer=None).fit(x, y)


REGRESSIONS = [("rbf", 3), ("matern32", 3), ("matern52", 3), ("periodic", 1)]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("kernel", "features"), REGRESSIONS)
def test_marginal_likelihood_of_regression(kernel, features):
    x, y = inputs(30, features), np.random.default_rng(3).normal(size=30)
    site = sites_of(x, y, values_of(kernel, features), kernel=kernel)["y"]
    wanted = sklearn_regressor(kernel, x, y).log_marginal_likelihood_value_
    assert site["is_observed"]
    np.testing.assert_allclose(site["fn"].log_prob(jnp.asarray(y)), wanted, rtol=1e-10)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("kernel", "features"), REGRESSIONS)
def test_predictions_of_regression(kernel, features):
    x, x_new, y = inputs(30, features), inputs(9, features, seed=1), np.random.default_rng(3).normal(size=30)
    site = sites_of(x, y, values_of(kernel, features), kernel=kernel, x_new=jnp.asarray(x_new))["y_new"]
    mean, sd = sklearn_regressor(kernel, x, y).predict(x_new, return_std=True)
    np.testing.assert_allclose(site["fn"].loc, mean, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(site["fn"].scale, np.sqrt(sd**2 + HYPERPARAMETERS["noise_scale"] ** 2), rtol=1e-8)


@pytest.mark.usefixtures("x64")
def test_log_joint_of_regression():
    x, y = inputs(10), np.random.default_rng(3).normal(size=10)
    values = values_of("periodic")
    found = log_density(gp, (jnp.asarray(x), jnp.asarray(y)), {"kernel": "periodic"}, values)[0]
    amplitude, noise_scale = HYPERPARAMETERS["amplitude"], HYPERPARAMETERS["noise_scale"]
    covariance = amplitude**2 * (
        correlation("periodic", x, x) + jitter(1, np.float64) * np.eye(10)
    ) + noise_scale**2 * np.eye(10)
    wanted = (
        stats.lognorm.logpdf(LENGTHSCALE, 1, scale=np.sqrt(FEATURES)).sum()
        + stats.lognorm.logpdf([amplitude, PERIOD], 1).sum()
        + stats.halfnorm.logpdf(noise_scale)
        + stats.multivariate_normal.logpdf(y, np.zeros(10), covariance)
    )
    np.testing.assert_allclose(found, wanted, rtol=1e-10)


@pytest.mark.usefixtures("x64")
def test_further_axes_are_features():
    x, y = inputs(10, 4), np.zeros(10)
    values = values_of("matern52") | {"lengthscale": jnp.asarray([0.5, 1.0, 2.0, 3.0])}
    flat = sites_of(x, y, values, x_new=jnp.asarray(x[:3]))
    images = sites_of(x.reshape(10, 2, 2), y, values, x_new=jnp.asarray(x[:3].reshape(3, 2, 2)))
    np.testing.assert_array_equal(flat["y"]["fn"].scale_tril, images["y"]["fn"].scale_tril)
    np.testing.assert_array_equal(flat["y_new"]["fn"].scale, images["y_new"]["fn"].scale)


# --- classification


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("num_classes", [2, 3])
@pytest.mark.parametrize("kernel", KERNELS)
def test_latent_functions_of_classification(kernel, num_classes):
    rows, functions = 10, 1 if num_classes == 2 else num_classes
    x, x_new, y = inputs(rows), inputs(5, seed=1), np.arange(rows) % num_classes
    latent = np.random.default_rng(4).normal(size=(rows, functions))
    values = values_of(kernel, classification=True) | {"latent": jnp.asarray(latent)}
    sites = sites_of(
        x, y, values, x_new=jnp.asarray(x_new), kernel=kernel, likelihood="categorical", num_classes=num_classes
    )
    # f = amplitude L z has covariance amplitude² K; given f, f_new is Normal (Rasmussen & Williams 2006, eq. 2.19).
    amplitude = HYPERPARAMETERS["amplitude"]
    covariance = correlation(kernel, x, x) + jitter(1, np.float64) * np.eye(rows)
    cross = correlation(kernel, x, x_new)
    f = amplitude * np.linalg.cholesky(covariance) @ latent
    logits = f if functions > 1 else np.concatenate([np.zeros_like(f), f], axis=1)
    np.testing.assert_allclose(sites["y"]["fn"].logits, logits, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(
        sites["latent_new"]["fn"].mean, cross.T @ np.linalg.solve(covariance, f), rtol=1e-6, atol=1e-7
    )
    variance = amplitude**2 * (1 - np.einsum("ij,ij->j", cross, np.linalg.solve(covariance, cross)))
    assert variance.min() > 1e-3  # the comparison below is of numbers well above rounding
    np.testing.assert_allclose(
        sites["latent_new"]["fn"].variance, np.repeat(variance[:, None], functions, axis=1), rtol=1e-6
    )
    f_new = np.asarray(sites["latent_new"]["value"])
    logits_new = f_new if functions > 1 else np.concatenate([np.zeros_like(f_new), f_new], axis=1)
    np.testing.assert_array_equal(sites["y_new"]["fn"].logits, logits_new)


@pytest.mark.usefixtures("x64")
def test_log_joint_of_classification():
    rows = 6
    x, y = inputs(rows), np.arange(rows) % 2
    latent = np.random.default_rng(4).normal(size=(rows, 1))
    values = values_of("rbf", classification=True) | {"latent": jnp.asarray(latent)}
    options = {"kernel": "rbf", "likelihood": "categorical", "num_classes": 2}
    found = log_density(gp, (jnp.asarray(x), jnp.asarray(y)), options, values)[0]
    amplitude = HYPERPARAMETERS["amplitude"]
    f = amplitude * np.linalg.cholesky(correlation("rbf", x, x) + jitter(1, np.float64) * np.eye(rows)) @ latent[:, 0]
    wanted = (
        stats.lognorm.logpdf(LENGTHSCALE, 1, scale=np.sqrt(FEATURES)).sum()
        + stats.lognorm.logpdf(amplitude, 1)
        + stats.norm.logpdf(latent).sum()
        - np.log1p(np.exp(np.where(y == 1, -f, f))).sum()
    )
    np.testing.assert_allclose(found, wanted, rtol=1e-10)


def test_a_function_is_known_where_it_was_seen():
    # float32, and a variance that rounds below 0: at a training row f_new is f to the jitter's root, not NaN.
    x = np.linspace(-2, 2, 30, dtype=np.float32)[:, None]
    values = {"lengthscale": jnp.ones(1), "amplitude": jnp.asarray(1.0)}
    values["latent"] = jnp.asarray(np.random.default_rng(0).normal(size=(30, 1)), jnp.float32)
    sites = sites_of(
        x, np.arange(30) % 2, values, x_new=jnp.asarray(x), kernel="rbf", likelihood="categorical", num_classes=2
    )
    f = np.asarray(sites["y"]["fn"].logits)[:, 1]
    # Five sd of √(jitter), and 1e-3 for the two triangular solves.
    np.testing.assert_allclose(sites["latent_new"]["value"][:, 0], f, atol=5 * np.sqrt(jitter(30, np.float32)) + 1e-3)


# --- in single precision


@pytest.mark.parametrize("noise_scale", [2e-22, 0.0])
def test_a_noise_whose_square_underflows_leaves_a_predictive_scale(noise_scale):
    """Where a chain is stuck: the variance of f rounds to 0 under correlations that reach all rows."""
    x = np.linspace(-2, 2, 100, dtype=np.float32)[:, None]
    values = {"lengthscale": jnp.full(1, 100.0), "amplitude": jnp.ones(()), "noise_scale": jnp.asarray(noise_scale)}
    predicted = sites_of(x, np.zeros(100, np.float32), values, x_new=jnp.asarray(x))["y_new"]["fn"]
    floor = np.sqrt(np.finfo(np.float32).tiny)
    np.testing.assert_allclose(predicted.scale.min(), np.hypot(floor, noise_scale), rtol=1e-6)  # √(0 + noise²) is 0


@pytest.mark.parametrize("model", [gp, sgp])
@pytest.mark.parametrize("likelihood", ["normal", "categorical"])
def test_gradients_of_predictions_by_their_inputs_are_finite_where_a_function_is_known(model, likelihood):
    """Feature importance takes them; there the variance rounds to 0 and below, where a root has no gradient."""
    x = jnp.linspace(-2, 2, 100, dtype=jnp.float32)[:, None]
    values = {"lengthscale": jnp.full(1, 100.0), "amplitude": jnp.ones(()), "noise_scale": jnp.asarray(1e-3)}
    values["latent"] = jnp.asarray(np.random.default_rng(0).normal(size=(100, 1)), jnp.float32)
    options = {"num_inducing": 100} if model is sgp else {}
    options |= {"kernel": "rbf", "likelihood": likelihood, "num_classes": 2}

    def total(x_new):
        seeded = handlers.seed(handlers.substitute(model, data=values), KEY)
        sites = handlers.trace(seeded).get_trace(x, jnp.arange(100) % 2, x_new=x_new, **options)
        return sites["y_new" if likelihood == "normal" else "latent_new"]["fn"].variance.sum()

    assert np.isfinite(jax.jit(jax.grad(total))(x)).all()


NUM_DRAWS = 300


def hyperparameter_draws(features):
    """Draws of every hyperparameter from its prior (draw, ...)."""
    rng = np.random.default_rng(0)
    draws = {
        "lengthscale": np.exp(rng.normal(np.log(features) / 2, 1, size=(NUM_DRAWS, features))),
        "amplitude": np.exp(rng.normal(size=NUM_DRAWS)),
        "period": np.exp(rng.normal(size=NUM_DRAWS)),
        "noise_scale": np.abs(rng.normal(size=NUM_DRAWS)),
    }
    return {name: jnp.asarray(draw, jnp.float32) for name, draw in draws.items()}


def errors_over_the_prior(x, kernel, likelihood):
    """max |L Lᵀ - covariance| / largest covariance (draw,) of the model's factor L: NaN where there is none."""
    rows = len(x)
    classification = likelihood == "categorical"

    @jax.jit
    def factor_and_correlation(values):
        # As many classes as rows, and z = I, makes the logits amplitude L.
        latent = {"latent": jnp.eye(rows)} if classification else {}
        y = None if classification else jnp.zeros(rows)
        site = sites_of(x, y, values | latent, kernel=kernel, likelihood=likelihood, num_classes=rows)["y"]
        factor = site["fn"].logits if classification else site["fn"].scale_tril
        return factor / values["amplitude"], kernel_matrix(kernel, x, x, values["lengthscale"], values["period"])

    draws, errors = hyperparameter_draws(x.shape[1]), []
    for i in range(NUM_DRAWS):
        values = {name: draw[i] for name, draw in draws.items()}
        # NumPy from here: XLA's maximum on a CPU passes over some NaN.
        factor, wanted = (np.asarray(matrix) for matrix in factor_and_correlation(values))
        nugget = jitter(rows, np.float32) + (
            0 if classification else float(values["noise_scale"] / values["amplitude"]) ** 2
        )
        errors.append(np.abs(factor @ factor.T - wanted - nugget * np.eye(rows)).max() / (1 + nugget))
    return np.array(errors)


def breast_cancer():
    x = load_breast_cancer().data[:200]
    return jnp.asarray((x - x.mean(0)) / x.std(0), jnp.float32)


def grid(rows=200):
    x = np.linspace(-1, 1, rows)[:, None]
    return jnp.asarray(x / x.std(), jnp.float32)


# The factor of a matrix with unit diagonal is exact to rows x epsilon = 200 x 1.2e-7, or it is NaN. The matrix itself
# is known to |x / lengthscale|² x epsilon = 35² x 1.2e-7, at the shortest lengthscale of 300 draws.
FACTOR_ERROR = 3e-4


@pytest.mark.parametrize("kernel", ["rbf", "matern52", "periodic"])
def test_the_factor_holds_over_the_prior_on_breast_cancer(kernel):
    assert errors_over_the_prior(breast_cancer(), kernel, "categorical").max() < FACTOR_ERROR


@pytest.mark.parametrize("kernel", ["rbf", "matern52", "periodic"])
def test_the_factor_holds_over_the_prior_in_regression_on_a_grid(kernel):
    assert errors_over_the_prior(grid(), kernel, "normal").max() < FACTOR_ERROR


def test_the_factor_holds_over_the_prior_in_classification_on_a_grid():
    assert errors_over_the_prior(grid(), "rbf", "categorical").max() < FACTOR_ERROR


# --- limits


def test_most_rows_fills_the_memory_and_no_more():
    for max_bytes, itemsize in ((2 * 2**30, 4), (2 * 2**30, 8), (10**6, 4), (COPIES * 4 * 49, 4)):
        rows = most_rows(max_bytes, itemsize)
        assert COPIES * itemsize * rows**2 <= max_bytes < COPIES * itemsize * (rows + 1) ** 2
    assert most_rows(2 * 2**30, 4) == 8192  # as the docstring says


def test_the_limit_on_rows_is_named():
    max_bytes = 10**4
    limit = most_rows(max_bytes, 4)
    wanted = f"gp got {limit + 1} rows and serves at most {limit} in 9.31e-06 GiB"
    with pytest.raises(ValueError, match=re.escape(wanted) + ".*: take fewer rows or raise max_bytes"):
        sites_of(jnp.zeros((limit + 1, 2)), max_bytes=max_bytes)
    assert sites_of(jnp.zeros((limit, 2)), max_bytes=max_bytes)["y"]["value"].shape == (limit,)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_rows": 60}, "gp got 6 of 60 rows: a Gaussian process has no minibatches, fit it with batch_size=None"),
        ({"num_rows": 5}, "gp got 6 of 5 rows: a Gaussian process has no minibatches"),
        ({"y": np.zeros((6, 1))}, r"y has shape \(6, 1\) and x has 6 rows: wanted y of shape \(6,\)"),
        ({"y": np.zeros(5)}, r"y has shape \(5,\) and x has 6 rows: wanted y of shape \(6,\)"),
        ({"kernel": "linear"}, "unknown kernel 'linear': give one of rbf, matern32, matern52, periodic"),
        ({"likelihood": "poisson"}, "unknown likelihood 'poisson': give one of categorical, normal"),
        ({"likelihood": "categorical", "num_classes": 1}, "num_classes=1: a classification has at least 2 classes"),
        (
            {"likelihood": "categorical", "num_classes": 3, "y": np.arange(6)},
            "labels reach 5 but the model has num_classes=3",
        ),
    ],
)
def test_bad_input(options, message):
    with pytest.raises(ValueError, match=message):
        sites_of(jnp.zeros((6, 2)), **options)


def test_all_rows_are_no_minibatch():
    assert sites_of(jnp.zeros((6, 2)), num_rows=6)["y"]["value"].shape == (6,)


def test_a_periodic_kernel_needs_a_period():
    x = jnp.zeros((2, 1))
    with pytest.raises(ValueError, match="kernel 'periodic' needs a period"):
        kernel_matrix("periodic", x, x, jnp.ones(1))


@pytest.mark.parametrize("kernel", ["matern32", "matern52"])
def test_compiled_gradient_is_finite_where_distances_round(kernel, monkeypatch):
    """A compiler may compute the distance anew in the gradient and round it to 0 there: √ would have no gradient.

    On these inputs and by matrix products, half of the gradients were NaN with a masked √.
    """
    monkeypatch.setattr("hmcvi.models.kernels.FEW_FEATURES", 0)
    data = load("wave", seed=0)
    x, y = data.x_train, data.y_train
    gradient = jax.jit(jax.grad(lambda z: potential_energy(gp, (x, y), {"kernel": kernel}, z)))
    for offset in np.linspace(-1.2, 0.8, 100):
        found = gradient({"lengthscale": jnp.array([offset]), "amplitude": 2 + offset / 3, "noise_scale": -0.3})
        assert all(np.isfinite(np.asarray(part)).all() for part in found.values())


def test_x_new_with_other_features_is_refused():
    with pytest.raises(ValueError, match="x with 2 features and x_new with 1"), handlers.seed(rng_seed=0):
        gp(jnp.ones((6, 2)), jnp.ones(6), x_new=jnp.ones((4, 1)))


@pytest.mark.parametrize("kernel", ["rbf", "matern32", "matern52"])
def test_the_hessian_by_the_lengthscales_is_that_of_differences_also_where_rows_coincide(kernel):
    # Laplace takes it. Float64, five features, so that distances go through a matrix product, and two equal rows.
    with jax.enable_x64(True):
        x = np.random.default_rng(0).normal(size=(6, 5))
        x[1] = x[0]
        weights = np.random.default_rng(1).normal(size=(6, 6))

        def total(lengthscale):
            return (weights * kernel_matrix(kernel, x, x, lengthscale)).sum()

        lengthscale = jnp.asarray([1.0, 1.5, 2.0, 2.5, 3.0])
        step = 1e-5 * np.eye(5)
        slope = jax.grad(total)
        differences = np.stack([(slope(lengthscale + s) - slope(lengthscale - s)) / 2e-5 for s in step])
        # Matrix products leave distances of equal rows at 1e-16 or so in place of 0, and √ makes 1e-8 of it.
        np.testing.assert_allclose(jax.hessian(total)(lengthscale), differences, atol=1e-6)
