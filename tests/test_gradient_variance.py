"""Gradient variances against their closed forms on a linear regression, and the two forms of eight schools.

For a linear model with q(w) = Normal(μ, diag s²) and minibatches drawn with replacement everything is known. With
S = E‖g‖² over rows and noise of a row's gradient g, and m = E g, rows whose noise is uncorrelated ("local", and
"flipout" by its signs) have the variance (S − ‖m‖²) / B. "shared" adds the floor tr(A diag(s²) A), A = xᵀx / (N
noise²): the variance over its one draw of the weights of the gradient over all rows, which no B lowers.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro import handlers
from numpyro.infer.util import log_density
from scipy import stats

from hmcvi.benchmarks import eight_schools
from hmcvi.benchmarks.gradient_variance import gradient_variance, slope
from hmcvi.inference import BayesByBackprop
from hmcvi.inference.base import Fit
from hmcvi.inference.scores import Score
from hmcvi.inference.variational import ESTIMATORS

from .targets import NOISE_SCALE, conjugate_regression, linear_regression

ROWS, SIZES, REPEATS = 300, [1, 16, 256], 10_000
TARGET = conjugate_regression(ROWS)
LOC, SCALE = TARGET.mean + 0.1, np.array([0.1, 0.2, 0.3])

# Squares of gradients are skewed, those of single rows most of all (their sd is six times their mean): over 10,000
# repeats 5 standard errors of such a mean let about 1e-4 false alarms through for each number compared.
ERRORS = 5


def posterior(x=TARGET.x, y=TARGET.y):
    """A fit with the Gaussian posterior above, which no optimiser had to find."""
    moments = {
        name: {"out.kernel": jnp.asarray(v[:, None], jnp.float32)} for name, v in (("loc", LOC), ("scale", SCALE))
    }
    return Fit(
        model=linear_regression,
        method=BayesByBackprop(),
        x=jnp.asarray(x, jnp.float32),
        y=jnp.asarray(y, jnp.float32),
        key=jax.random.key(0),
        draws={"out.kernel": jnp.zeros((1, 1, 3, 1))},
        num_gradients=0,
        rows_per_gradient=0,
        run_seconds=0.0,
        location=moments["loc"],
        scale=moments["scale"],
    )


@functools.cache
def measured(estimator):
    return gradient_variance(posterior(), jax.random.key(0), estimator, SIZES, num_repeats=REPEATS)


def closed_form(estimator, batch_size):
    x, y = TARGET.x, TARGET.y
    residual = x @ LOC - y
    row = ((x**2).sum(1) * (residual**2 + x**2 @ SCALE**2)).mean() / NOISE_SCALE**4
    average = x.T @ residual / ROWS / NOISE_SCALE**2
    independent = row - average @ average
    if estimator != "shared":
        return independent / batch_size
    return (independent - floor()) / batch_size + floor()


def floor():
    a = TARGET.x.T @ TARGET.x / ROWS / NOISE_SCALE**2
    return np.trace(a @ np.diag(SCALE**2) @ a)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_variances_are_the_closed_forms(estimator):
    for size, (value, error) in zip(SIZES, measured(estimator), strict=True):
        wanted = closed_form(estimator, size)
        assert 0 < error < 0.12 * wanted  # as exact as that at one row, and more so at more
        assert value == pytest.approx(wanted, abs=ERRORS * error)


@pytest.mark.parametrize("estimator", ["flipout", "local"])
def test_noise_of_each_row_s_own_falls_as_one_over_the_batch_size(estimator):
    found = slope(SIZES, measured(estimator))
    assert found.standard_error < 0.02
    assert found.value == pytest.approx(-1, abs=ERRORS * found.standard_error)


def test_noise_that_all_rows_share_levels_off_at_the_variance_of_the_whole_gradient():
    value, error = measured("shared")[-1]
    assert value > floor() - ERRORS * error
    # At 256 rows the floor is all but 3 % of it, and the other two estimators are far below.
    assert closed_form("shared", SIZES[-1]) < 1.05 * floor()
    for estimator in ("flipout", "local"):
        assert measured(estimator)[-1].value < 0.1 * value
    assert slope(SIZES[1:], measured("shared")[1:]).value > -0.25


def test_one_row_has_the_same_variance_under_every_estimator():
    """With a minibatch of one there is nobody to share noise with."""
    values = [measured(estimator)[0] for estimator in ESTIMATORS]
    for one in values:
        for other in values:
            error = np.hypot(one.standard_error, other.standard_error)
            assert one.value == pytest.approx(other.value, abs=ERRORS * error)


# --- slopes


@pytest.mark.parametrize("power", [-1.0, 0.0, -0.5])
def test_slope_of_a_power_law_is_its_exponent(power):
    sizes = [1, 4, 16, 64]
    variances = [Score(3.0 * size**power, 0.1 * 3.0 * size**power) for size in sizes]
    found = slope(sizes, variances)
    assert found.value == pytest.approx(power, abs=1e-12)
    # Errors of 10 % each, in log space: 0.1 / √Σ (x − x̄)².
    x = np.log(sizes)
    assert found.standard_error == pytest.approx(0.1 / np.sqrt(((x - x.mean()) ** 2).sum()))


def test_slope_weighs_points_by_their_relative_errors():
    sizes, values, errors = [1, 2, 8, 32], np.array([5.0, 2.0, 0.8, 0.1]), np.array([0.5, 0.1, 0.2, 0.001])
    found = slope(sizes, [Score(*pair) for pair in zip(values, errors, strict=True)])
    fitted, covariance = np.polyfit(np.log(sizes), np.log(values), 1, w=values / errors, cov="unscaled")
    assert found.value == pytest.approx(fitted[0])
    assert found.standard_error == pytest.approx(np.sqrt(covariance[0, 0]))


# --- eight schools


def school_points():
    """A few points (μ, τ, z), the funnel's neck among them."""
    random = np.random.default_rng(0)
    return [(mu, tau, random.normal(size=8)) for mu, tau in ((0.0, 1.0), (5.0, 8.0), (-3.0, 0.05))]


def test_the_two_forms_are_one_model_up_to_the_jacobian():
    """θ = μ + τ z: log p(μ, τ, z, y) = log p(μ, τ, θ, y) + 8 log τ, and both are the formula."""
    x, y = eight_schools.SCHOOLS, eight_schools.EFFECTS
    with jax.enable_x64(True):
        for mu, tau, z in school_points():
            theta = mu + tau * z
            non_centred, _ = log_density(eight_schools.non_centred, (x, y), {}, {"mu": mu, "tau": tau, "z": z})
            centred, _ = log_density(eight_schools.centred, (x, y), {}, {"mu": mu, "tau": tau, "theta": theta})
            assert float(non_centred) == pytest.approx(float(centred) + 8 * np.log(tau), rel=1e-10)
            wanted = stats.norm.logpdf(mu, 0, 5) + stats.halfcauchy.logpdf(tau, scale=5)
            wanted += stats.norm.logpdf(theta, mu, tau).sum() + stats.norm.logpdf(y, theta, x[:, 1]).sum()
            assert float(centred) == pytest.approx(wanted, rel=1e-10)


def test_schools_are_found_by_their_number():
    """A minibatch or another order of rows reaches the effects of its own schools."""
    x, y = eight_schools.SCHOOLS, eight_schools.EFFECTS
    theta = np.arange(8.0)
    for rows in ([3], [7, 0, 2]):
        values = {"mu": 0.0, "tau": 1.0, "theta": theta}
        model = handlers.substitute(handlers.seed(eight_schools.centred, jax.random.key(0)), data=values)
        site = handlers.trace(model).get_trace(jnp.asarray(x[rows]), jnp.asarray(y[rows]))["y"]
        np.testing.assert_allclose(site["fn"].loc, theta[rows])
        np.testing.assert_allclose(site["fn"].scale, x[rows, 1])
