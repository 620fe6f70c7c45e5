"""The Hilbert-space GP against the exact one, whose covariance and posterior it approaches as its basis grows."""

import functools
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro import handlers
from numpyro.contrib.hsgp.spectral_densities import (
    diag_spectral_density_matern,
    diag_spectral_density_squared_exponential,
)
from numpyro.infer.util import log_density, potential_energy
from scipy import stats

from hmcvi.inference import SVI, Fit, predict
from hmcvi.inference.base import minibatches
from hmcvi.models import gp, hsgp
from hmcvi.models.hsgp import MOST_BASIS, SMOOTHNESS, contract, eigenbasis, root_spectral_density
from hmcvi.models.kernels import kernel_matrix

KERNELS = ("rbf", "matern32", "matern52")
KEY = jax.random.key(0)


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def grid(rows=40, reach=1.5):
    return jnp.linspace(-reach, reach, rows)[:, None]


def sites_of(model, values, *arguments, **options):
    found = handlers.seed(handlers.substitute(model, data=values), KEY)
    return handlers.trace(found).get_trace(*arguments, **options)


def features_of(x, kernel, lengthscale, num_basis, half_width):
    """sqrt(S) phi (row, basis function) by NumPy, every product written out."""
    x, features = np.asarray(x), x.shape[1]
    numbers = np.array(list(itertools.product(range(1, num_basis + 1), repeat=features)))
    frequency = numbers * np.pi / 2 / half_width
    phi = np.sin(frequency * (x[:, None] + half_width)).prod(-1) / half_width ** (features / 2)
    inside = (np.abs(x) <= half_width).all(1)[:, None]
    return inside * phi * np.asarray(root_spectral_density(kernel, jnp.asarray(frequency), lengthscale))


def remainder_of(phi):
    return np.maximum(1 - (phi**2).sum(1), 0)


def covariance_error(kernel, num_basis, x, lengthscale, half_width=6.0):
    """The largest difference from the exact correlations."""
    phi = features_of(x, kernel, lengthscale, num_basis, half_width)
    found = phi @ phi.T + np.diag(remainder_of(phi))
    return float(np.abs(found - kernel_matrix(kernel, x, x, lengthscale)).max())


# --- the covariance

# Nothing for the RBF. The remainder r² is the tail of the spectral density beyond w = 160 π / 12 = 42, about w⁻³ and
# w⁻⁵ times a constant for the Matérn kernels.
TOLERANCE = {"rbf": 1e-10, "matern32": 2e-4, "matern52": 2e-6}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("kernel", KERNELS)
def test_the_covariance_approaches_the_exact_one_as_the_basis_grows(kernel):
    sizes = (5, 10, 20, 40, 160)
    errors = [covariance_error(kernel, size, grid(), jnp.array([0.7])) for size in sizes]
    assert all(more < less / 2 for less, more in itertools.pairwise(errors) if less > TOLERANCE[kernel])
    assert errors[-1] < TOLERANCE[kernel]
    assert errors[0] > 0.05  # five functions are too few, so the comparison could have failed


@pytest.mark.usefixtures("x64")
def test_two_features_with_a_lengthscale_each():
    x = jnp.asarray(np.random.default_rng(0).uniform(-1.2, 1.2, size=(30, 2)))
    # r(x) in both features: the RBF's tail at w = 40 π / 10 = 12.6, lengthscale 0.6, is exp(-28)
    assert covariance_error("rbf", 40, x, jnp.array([0.6, 1.1]), 5.0) < 1e-6


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("features", [1, 2, 3])
def test_features_contracted_one_by_one_are_the_sum_over_every_product(features):
    random = np.random.default_rng(0)
    x = jnp.asarray(random.uniform(-6, 6, size=(9, features)))  # some outside the box
    frequency = np.array(list(itertools.product(range(1, 5), repeat=features))) * np.pi / 10
    lengthscale, weights = jnp.full(features, 0.8), random.normal(size=(4**features, 2))
    root = np.asarray(root_spectral_density("rbf", jnp.asarray(frequency), lengthscale))
    found = contract(eigenbasis(x, 4, 5.0), jnp.asarray(root[:, None] * weights))
    np.testing.assert_allclose(found, features_of(x, "rbf", lengthscale, 4, 5.0) @ weights, rtol=1e-10, atol=1e-12)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("likelihood", ["normal", "categorical"])
def test_the_prior_variance_is_that_of_the_exact_gp_at_every_input(kernel, likelihood):
    """In the box, at its edge and beyond, with a basis that is too small too."""
    x = jnp.array([0.0, 1.0, 4.5, 5.0, 5.1, 80.0, -1e6])[:, None]
    for lengthscale in (0.05, 0.5, 5.0):
        values = VALUES | {"lengthscale": jnp.array([lengthscale]), "latent": jnp.zeros((20, 1))}
        phi = features_of(x, kernel, values["lengthscale"], 20, 5.0)
        found = sites_of(hsgp, values, x, kernel=kernel, num_basis=20, likelihood=likelihood, num_classes=2)
        own = found["y"]["fn"].variance - 0.2**2 if likelihood == "normal" else found["latent_new"]["fn"].variance[:, 0]
        # a long lengthscale has a variance above 1 in the box's middle: by images of itself at its edges
        total = (phi**2).sum(1) + np.asarray(own) / 1.3**2
        np.testing.assert_allclose(total, 1, atol=0.01 if lengthscale == 5.0 else 1e-12)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("features", [1, 2])
def test_spectral_densities_are_those_of_numpyro(kernel, features):
    lengthscale = jnp.array([0.6, 1.7])[:features]
    sizes, half_width = [7] * features, 3.0
    arguments = (1.0, lengthscale, half_width, sizes, features)
    if kernel == "rbf":
        wanted = diag_spectral_density_squared_exponential(*arguments)
    else:
        if features == 2:  # NumPyro's takes one lengthscale's power for all features
            lengthscale = jnp.full(2, 0.6)
            arguments = (1.0, 0.6, half_width, sizes, features)
        wanted = diag_spectral_density_matern(SMOOTHNESS[kernel], *arguments)
    axes = [np.arange(1, 8) * np.pi / 2 / half_width] * features
    frequency = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, features)
    found = root_spectral_density(kernel, jnp.asarray(frequency), lengthscale)
    np.testing.assert_allclose(found**2, np.asarray(wanted).ravel(), rtol=1e-10)


# --- the model

VALUES = {"lengthscale": np.array([0.6]), "amplitude": np.array(1.3), "noise_scale": np.array(0.2)}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("kernel", KERNELS)
def test_the_posterior_at_fixed_hyperparameters_is_that_of_the_exact_gp(kernel):
    """Mean and standard deviation inside, between and beyond the rows; the exact ones come from `gp` itself."""
    random = np.random.default_rng(0)
    x = jnp.asarray(np.r_[random.uniform(-1.5, -0.5, 12), random.uniform(0.4, 1.5, 12)])[:, None]
    y = jnp.sin(3 * x[:, 0]) + 0.2 * random.normal(size=24)
    x_new = jnp.linspace(-2, 2, 25)[:, None]
    exact = sites_of(gp, VALUES, x, y, x_new=x_new, kernel=kernel)["y_new"]["fn"]
    options = {"kernel": kernel, "num_basis": 100, "half_width": 6.0}

    def outputs(latent, x):
        return sites_of(hsgp, VALUES | {"latent": latent}, x, **options)["y"]["fn"].loc

    # f = Φ z is linear, so that Φ is its Jacobian, and z's posterior the textbook's (Rasmussen & Williams, eq. 2.8)
    phi, phi_new = (jax.jacobian(outputs)(jnp.zeros((100, 1)), at)[:, :, 0] for at in (x, x_new))
    own, own_new = (1.3**2 * remainder_of(np.asarray(p) / 1.3) + 0.2**2 for p in (phi, phi_new))
    covariance = jnp.linalg.inv((phi.T / own) @ phi + jnp.eye(100))
    mean = phi_new @ covariance @ phi.T @ (y / own)
    sd = jnp.sqrt((phi_new @ covariance * phi_new).sum(1) + own_new)
    tolerance = {"rbf": 1e-6, "matern32": 1e-2, "matern52": 1e-3}[kernel]
    np.testing.assert_allclose(mean, exact.loc, atol=tolerance)
    np.testing.assert_allclose(sd, exact.scale, atol=tolerance)


@pytest.mark.parametrize("features", [1, 3])
def test_the_hyperparameters_have_the_priors_of_the_exact_gp(features):
    x = jnp.zeros((4, features))
    ours, exact = sites_of(hsgp, {}, x, num_basis=4), sites_of(gp, {}, x)
    for site in ("lengthscale", "amplitude", "noise_scale"):
        drawn = exact[site]["fn"].sample(KEY, (20,))
        np.testing.assert_array_equal(ours[site]["fn"].log_prob(drawn), exact[site]["fn"].log_prob(drawn))
    assert set(ours) - set(exact) == {"latent", "data", "noise_new"}
    assert ours["latent"]["fn"].shape() == (4**features, 1)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("num_classes", [2, 3])
def test_log_joint_of_classification(num_classes):
    rows, functions = 6, {2: 1, 3: 3}[num_classes]
    x, y = grid(rows), np.arange(rows) % num_classes
    latent = np.random.default_rng(1).normal(size=(8, functions))
    values = {"lengthscale": VALUES["lengthscale"], "amplitude": VALUES["amplitude"], "latent": jnp.asarray(latent)}
    options = {"likelihood": "categorical", "num_classes": num_classes, "num_basis": 8}
    found = log_density(hsgp, (x, jnp.asarray(y)), options, values)[0]
    f = 1.3 * features_of(x, "matern52", VALUES["lengthscale"], 8, 5.0) @ latent
    logits = np.c_[np.zeros(rows), f] if num_classes == 2 else f
    wanted = (
        stats.lognorm.logpdf([0.6, 1.3], 1).sum()
        + stats.norm.logpdf(latent).sum()
        + (logits[np.arange(rows), y] - np.log(np.exp(logits).sum(1))).sum()
    )
    np.testing.assert_allclose(found, wanted, rtol=1e-10)


def posterior_with_one_row_outside(num_draws=400):
    """Exact draws of z given 200 rows inside the box and one at 5.5, y = 3, with the hyperparameters fixed."""
    random = np.random.default_rng(0)
    x = np.r_[random.uniform(-1.7, 1.7, 200), 5.5][:, None]
    y = np.r_[np.sin(3 * x[:-1, 0]) + 0.1 * random.normal(size=200), 3.0]
    phi = features_of(x, "matern52", jnp.array([1.0]), 40, 5.0)
    own = remainder_of(phi) + 0.1**2
    precision = (phi.T / own) @ phi + np.eye(40)
    root = np.linalg.inv(np.linalg.cholesky(precision))
    latent = np.linalg.solve(precision, phi.T @ (y / own)) + random.normal(size=(num_draws, 40)) @ root
    draws = {"lengthscale": np.ones((1, num_draws, 1)), "amplitude": np.ones((1, num_draws))}
    draws |= {"noise_scale": np.full((1, num_draws), 0.1), "latent": latent[None, :, :, None]}
    return Fit(hsgp, SVI(), jnp.asarray(x), jnp.asarray(y), KEY, draws, 0, 8, 0.0)


@pytest.mark.usefixtures("x64")
def test_a_row_outside_the_box_tells_nothing_of_another():
    """At -8 the prediction is the prior: with one z for what the basis leaves out it was 2.97 +- 0.10."""
    prediction = predict(posterior_with_one_row_outside(), np.array([[-8.0], [0.5]]))
    np.testing.assert_allclose(prediction.mean[0], 0, atol=1e-12)
    np.testing.assert_allclose(prediction.total_sd[0], np.hypot(1, 0.1), rtol=1e-6)
    # what is not noise is doubt about the function: all of the prior's there, little among the rows
    np.testing.assert_allclose(prediction.epistemic_sd[0], 1, rtol=1e-6)
    np.testing.assert_allclose(prediction.noise, 0.1)
    np.testing.assert_allclose(prediction.mean[1], np.sin(1.5), atol=0.1)
    assert prediction.epistemic_sd[1] < 0.1


@pytest.mark.usefixtures("x64")
def test_outside_the_box_classes_are_the_priors():
    """f ~ Normal(0, 4²) for each draw apart: most draws are certain of a class, half of them of either."""
    draws = {"lengthscale": np.ones((1, 4000, 1)), "amplitude": np.full((1, 4000), 4.0)}
    draws["latent"] = np.random.default_rng(0).normal(size=(1, 4000, 40, 1))
    model = functools.partial(hsgp, likelihood="categorical", num_classes=2)
    fitted = Fit(model, SVI(), grid(8), jnp.arange(8) % 2, KEY, draws, 0, 8, 0.0)
    prediction = predict(fitted, np.array([[-8.0]]))
    f = np.linspace(-40, 40, 4001)
    p = 1 / (1 + np.exp(-f))
    entropy = np.average(stats.bernoulli.entropy(p), weights=stats.norm.pdf(f / 4))
    np.testing.assert_allclose(prediction.probs, 0.5, atol=0.03)  # 4.5 standard errors
    np.testing.assert_allclose(prediction.aleatoric_entropy, entropy, atol=0.02)


def test_it_is_fitted_in_minibatches():
    x, y = grid(300), jnp.zeros(300)
    part, size = minibatches(hsgp, x, y, None)
    assert size == 128
    assert sites_of(part, {}, x[:size], y[:size])["y"]["scale"] == pytest.approx(300 / 128)


@pytest.mark.parametrize("kernel", KERNELS)
def test_gradients_are_finite_over_wide_hyperparameters_in_single_precision(kernel):
    """Of the RBF with a lengthscale of 50, most densities underflow: √ would have no gradient there."""
    x = grid(30, reach=5.5)  # beyond the box too
    gradient = jax.jit(jax.grad(lambda z: potential_energy(hsgp, (x, jnp.zeros(30)), {"kernel": kernel}, z)))
    latent = jnp.asarray(np.random.default_rng(0).normal(size=(40, 1)), jnp.float32)
    for lengthscale in (1e-3, 0.03, 1.0, 50.0, 1e4):
        values = {"lengthscale": jnp.log(jnp.array([lengthscale])), "amplitude": 0.0, "noise_scale": -0.5}
        found = gradient(values | {"latent": latent})
        assert all(np.isfinite(np.asarray(part)).all() for part in found.values()), lengthscale


# --- limits


def test_the_limit_on_basis_functions_is_named():
    assert MOST_BASIS == 16**3
    assert sites_of(hsgp, {}, jnp.zeros((2, 3)), num_basis=16)["y"]["value"].shape == (2,)
    wanted = "3 features, for which 17 basis functions along each make 17^3, and it serves 4,096: pass num_basis=16 or"
    with pytest.raises(ValueError, match=re.escape(wanted)):
        sites_of(hsgp, {}, jnp.zeros((2, 3)), num_basis=17)
    wanted = "10 features, for which 40 basis functions along each make 40^10, and it serves 4,096: take sgp"
    with pytest.raises(ValueError, match=re.escape(wanted)):
        sites_of(hsgp, {}, jnp.zeros((2, 10)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernel": "periodic"}, "kernel 'periodic': give one of rbf, matern32, matern52, or take gp, which has it"),
        ({"kernel": "linear"}, "kernel 'linear': give one of rbf, matern32, matern52$"),
        ({"num_basis": 0}, "num_basis=0: give at least 1"),
        ({"half_width": 0.0}, "half_width=0: give a number above 0"),
        ({"half_width": np.inf}, "half_width=inf: give a number above 0"),
        ({"likelihood": "poisson"}, "unknown likelihood 'poisson': give one of categorical, normal"),
        ({"y": np.zeros(5)}, r"y has shape \(5,\) and x has 6 rows"),
        ({"num_rows": 5}, "num_rows=5 but x has 6 rows"),
    ],
)
def test_bad_input(options, message):
    with pytest.raises(ValueError, match=message):
        sites_of(hsgp, {}, jnp.zeros((6, 1)), **options)
