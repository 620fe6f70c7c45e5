"""The Gaussian process against the textbook's formulas by one dense solve in NumPy, over its prior's hyperparameters.

`tests/test_gp.py` has the same of scikit-learn at one setting and few rows; here are 200 rows, and a Cholesky factor
nowhere in what is compared with.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro import handlers

from hmcvi.models import gp
from hmcvi.models.gp import jitter
from hmcvi.models.kernels import KERNELS

CHECK = "GP against a dense solve, float64"
ROWS, NEW_ROWS, FEATURES, NUM_DRAWS = 200, 50, 3, 20
LEAST_NOISE = 0.05
"""Of the amplitude: the condition number stays below 200 / 0.05² = 80,000, and rounding below 1e-11."""

LIMIT = 1e-8


def correlation(kernel: str, x1: np.ndarray, x2: np.ndarray, lengthscale: np.ndarray, period: float) -> np.ndarray:
    """Rasmussen & Williams (2006), eq. 4.9 and 4.17, MacKay (1998), eq. 47, by differences."""
    difference = x1[:, None] - x2[None]
    if kernel == "periodic":
        return np.exp(-2 * (np.sin(np.pi * difference / period) ** 2 / lengthscale**2).sum(-1))
    r = np.sqrt((difference**2 / lengthscale**2).sum(-1))
    return {
        "rbf": lambda: np.exp(-(r**2) / 2),
        "matern32": lambda: (1 + np.sqrt(3) * r) * np.exp(-np.sqrt(3) * r),
        "matern52": lambda: (1 + np.sqrt(5) * r + 5 * r**2 / 3) * np.exp(-np.sqrt(5) * r),
    }[kernel]()


@pytest.mark.validate
@pytest.mark.parametrize("kernel", KERNELS)
def test_marginal_likelihood_and_predictions_are_those_of_a_dense_solve(kernel, record) -> None:
    random = np.random.default_rng(0)
    x, x_new = random.normal(size=(ROWS, FEATURES)), random.normal(size=(NEW_ROWS, FEATURES))
    y = np.sin(x.sum(1)) + random.normal(0, 0.3, size=ROWS)
    likelihoods, means, sds = [], [], []

    @jax.jit
    def model(values):
        found = handlers.substitute(handlers.seed(gp, jax.random.key(0)), data=values)
        trace = handlers.trace(found).get_trace(x, y, x_new=x_new, kernel=kernel)
        return trace["y"]["fn"].log_prob(y), trace["y_new"]["fn"].loc, trace["y_new"]["fn"].scale

    for _ in range(NUM_DRAWS):
        lengthscale = np.exp(random.normal(np.log(FEATURES) / 2, 1, FEATURES))
        amplitude, period = np.exp(random.normal(size=2))
        noise_scale = max(abs(random.normal()), LEAST_NOISE * amplitude)
        values = {"lengthscale": lengthscale, "amplitude": amplitude, "noise_scale": noise_scale}
        values |= {"period": period} if kernel == "periodic" else {}
        with jax.enable_x64(True):
            log_prob, loc, scale = map(np.asarray, model(jax.tree.map(jnp.asarray, values)))

        def covariance(x1, x2, length=lengthscale, size=amplitude, every=period):
            return size**2 * correlation(kernel, x1, x2, length, every)

        diagonal = noise_scale**2 + amplitude**2 * jitter(ROWS, np.float64)
        whole, cross = covariance(x, x) + diagonal * np.eye(ROWS), covariance(x, x_new)
        solved = np.linalg.solve(whole, np.column_stack([y, cross]))
        wanted = -(y @ solved[:, 0] + np.linalg.slogdet(whole)[1] + ROWS * np.log(2 * np.pi)) / 2
        sd = np.sqrt(amplitude**2 - (cross * solved[:, 1:]).sum(0) + noise_scale**2)
        likelihoods.append(abs(log_prob / wanted - 1))
        means.append(np.abs(loc - cross.T @ solved[:, 0]).max() / sd.min())
        sds.append(np.abs(scale / sd - 1).max())
    what = ("log marginal likelihood, relative error", "predictive mean, error in sds", "predictive sd, relative error")
    for name, errors in zip(what, (likelihoods, means, sds), strict=True):
        record(CHECK, f"{kernel}, {name}", np.max(errors), high=LIMIT)
