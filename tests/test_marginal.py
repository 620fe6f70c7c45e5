"""The normal density whose gradient has a closed form, against NumPyro's and automatic differentiation."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from jax.test_util import check_grads

from hmcvi.models.marginal import LEAST_BLOCK, MarginalNormal

SIZES = (1, 2, LEAST_BLOCK, LEAST_BLOCK + 1, 2 * LEAST_BLOCK + 3)
"""Around the size at which a matrix is inverted block by block."""


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def problem(rows, seed=0):
    """Return means, covariance and value."""
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(rows, rows)) / np.sqrt(rows)
    covariance = root @ root.T + 0.3 * np.eye(rows)
    return tuple(map(jnp.asarray, (rng.normal(size=rows), covariance, rng.normal(size=rows))))


def ours(loc, covariance, y):
    return MarginalNormal(loc, covariance).log_prob(y)


def numpyros(loc, covariance, y):
    return dist.MultivariateNormal(loc, covariance_matrix=covariance).log_prob(y)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("rows", SIZES)
def test_value_and_gradient_are_numpyros(rows):
    given = problem(rows)
    value, gradient = jax.value_and_grad(ours, argnums=(0, 1, 2))(*given)
    expected, of_numpyro = jax.value_and_grad(numpyros, argnums=(0, 1, 2))(*given)
    np.testing.assert_allclose(value, expected, rtol=1e-12)
    np.testing.assert_allclose(ours(*given), expected, rtol=1e-12)  # where no gradient is asked
    loc, covariance, y = gradient
    np.testing.assert_allclose(loc, of_numpyro[0], rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(y, of_numpyro[2], rtol=1e-9, atol=1e-11)
    # a covariance moves symmetrically, so a part of its gradient that is not symmetric says nothing
    np.testing.assert_allclose(covariance, (of_numpyro[1] + of_numpyro[1].T) / 2, rtol=1e-8, atol=1e-10)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("rows", [5, LEAST_BLOCK + 1])
def test_first_and_second_derivatives_against_differences(rows):
    loc, covariance, y = problem(rows)
    direction = problem(rows, seed=1)[1]

    def along(step, y):
        return ours(loc, covariance + step * direction, y)

    check_grads(along, (0.1, y), order=2, modes=("fwd", "rev"), rtol=1e-4, atol=1e-4)
    hessian, expected = (
        jax.hessian(lambda step, of=of: of(loc, covariance + step * direction, y))(0.1) for of in (ours, numpyros)
    )
    np.testing.assert_allclose(hessian, expected, rtol=1e-8)


def test_single_precision_is_as_good_as_numpyros_where_rows_are_close():
    """The gradient of a GP's nearly singular covariance, against double precision."""
    x = np.linspace(-1, 1, 150)

    def log_density(of, log_lengthscale, dtype):
        inputs = jnp.asarray(x, dtype)
        squares = (inputs[:, None] - inputs[None]) ** 2
        covariance = jnp.exp(-squares / 2 * jnp.exp(-2 * log_lengthscale)) + 1e-3 * jnp.eye(len(x), dtype=dtype)
        return of(jnp.zeros(len(x), dtype), covariance, jnp.sin(3 * inputs))

    with jax.enable_x64(True):
        exact = float(jax.grad(lambda scale: log_density(numpyros, scale, jnp.float64))(jnp.float64(-1.0)))
    mine, of_numpyro = (
        float(jax.grad(lambda scale, of=of: log_density(of, scale, jnp.float32))(jnp.float32(-1.0)))
        for of in (ours, numpyros)
    )
    assert abs(mine - exact) <= max(2 * abs(of_numpyro - exact), 1e-3 * abs(exact))


def test_covariance_that_has_no_factor():
    covariance = jnp.asarray([[1.0, 2.0], [2.0, 1.0]])
    value, gradient = jax.jit(jax.value_and_grad(ours, argnums=1))(jnp.zeros(2), covariance, jnp.ones(2))
    assert np.isnan(value)
    assert np.isnan(gradient).all()
    with pytest.raises(ValueError, match="scale_tril"):
        MarginalNormal(jnp.zeros(2), covariance, validate_args=True)


def test_a_value_that_cannot_be_is_told_as_numpyro_tells_it():
    loc, covariance, _ = problem(2)
    with pytest.warns(UserWarning, match="Out-of-support"):
        found = MarginalNormal(loc, covariance, validate_args=True).log_prob(jnp.asarray([0.0, jnp.nan]))
    assert found == -jnp.inf


def test_batches_and_expanded_rows_are_numpyros():
    loc, covariance, y = problem(4)
    values = jnp.stack([y, 2 * y])
    for of_covariance in (covariance, jnp.stack([covariance, 2 * covariance])):
        found, expected = (of(loc, of_covariance, values) for of in (ours, numpyros))
        np.testing.assert_allclose(found, expected, rtol=1e-5)
    np.testing.assert_allclose(
        jax.vmap(ours, (None, None, 0))(loc, covariance, values), numpyros(loc, covariance, values), rtol=1e-5
    )
    assert MarginalNormal(loc, covariance).sample(jax.random.key(0), (3,)).shape == (3, 4)
