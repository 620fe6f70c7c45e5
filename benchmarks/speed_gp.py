"""Exact Gaussian process regression beside scikit-learn and tinygp: the cases "gp-*" of `speed.py`.

`gp-gradient` is the log marginal likelihood and its gradient in the logarithms of all hyperparameters, at the same
hyperparameters; `gp-predict` conditions on the training rows and gives mean and standard deviation at new ones, at the
same hyperparameters; `gp-fit` is fit and prediction as a user calls them, where scikit-learn maximises the marginal
likelihood by L-BFGS and ours (`MAP`) the posterior density by Adam: not the same work, but the same wish. scikit-learn
computes in float64, the others in float32, their default.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from numpyro import handlers

from hmcvi.inference import MAP, Fit, NormalPredictive, fit, predict
from hmcvi.inference.threads import one_blas_thread
from hmcvi.models import gp
from hmcvi.models.gp import jitter

from .experiment import Experiment
from .peer_protocol import Ready, repeated, serve
from .speed_process import Case, Contestant, Stopwatch

__all__ = ["CONTESTANTS", "Problem", "cases"]

STEP = 1e-7
"""What the logarithms move by in each step of the loop, in gradients."""


def cases(quick: bool) -> list[Case]:
    """Return the three cases."""
    module, rows = "speed_gp", 60 if quick else None
    size = {"rows": rows, "seconds": 0.3 if quick else 5.0}
    where = f"a GP (Matérn 5/2, a lengthscale for each of 10 features) on diabetes, {rows or 353} rows"
    tinygp = Contestant("tinygp", module, needs="tinygp")
    return [
        Case(
            f"gp-{name}",
            f"{what} of {where}",
            unit,
            (
                Contestant("hmcvi gp", module, ours=True),
                Contestant("scikit-learn", module),
                *(() if name == "fit" else (tinygp,)),
            ),
            {"task": name, **size},
        )
        for name, what, unit in (
            ("gradient", "log marginal likelihood and gradient", "gradients/s"),
            ("predict", "conditioning and prediction at 89 new rows", "predictions/s"),
            ("fit", "fit and prediction", "s"),
        )
    ]


class Problem:
    """Training rows, new rows, and the hyperparameters of a comparison at equal ones.

    Attributes:
        x, y: training rows, standardised.
        x_new: new rows.
        logs: logarithms of "lengthscale" (feature,), "amplitude" () and "noise_scale" ().
    """

    def __init__(self, rows: int | None) -> None:
        data, _ = Experiment(data="diabetes", model="gp", rows=rows).load(0)
        self.x, self.y = np.asarray(data.x_train, np.float32), np.asarray(data.y_train, np.float32)
        self.x_new = np.asarray(data.x_test, np.float32)
        features = self.x.shape[1]
        lengthscale = np.linspace(math.log(2.0), math.log(8.0), features, dtype=np.float32)
        self.logs = {"lengthscale": lengthscale, "amplitude": np.float32(0.1), "noise_scale": np.float32(-0.3)}
        self.jitter = jitter(len(self.x), np.float32)

    def facts(self, value: float, gradient: Any) -> dict[str, float]:
        """Return what everyone must agree on.

        Arguments:
            value: log marginal likelihood.
            gradient: in the logarithms: by name, as `logs`.
        """
        squares = sum(float((np.asarray(part, np.float64) ** 2).sum()) for part in gradient.values())
        return {"its log likelihood": float(value), "the length of its gradient": squares**0.5}


def hmcvi(*, task: str, rows: int | None, seconds: float) -> Ready:
    """Return our `gp`."""
    problem = Problem(rows)
    x, y = jnp.asarray(problem.x), jnp.asarray(problem.y)

    def log_likelihood(logs: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        sites = {name: jnp.exp(value) for name, value in logs.items()}
        trace = handlers.trace(handlers.substitute(handlers.seed(gp, jax.random.key(0)), sites)).get_trace(x, y)
        return trace["y"]["fn"].log_prob(y)

    if task == "gradient":
        return _in_a_loop(log_likelihood, problem, seconds, one_blas_thread)  # as within `fit`
    if task == "predict":
        draws = {name: jnp.exp(jnp.asarray(value))[None, None] for name, value in problem.logs.items()}
        of = Fit(gp, MAP(), x, y, jax.random.key(0), draws, 0, len(x), 0.0)

        def predicted() -> tuple[np.ndarray, np.ndarray]:
            found = predict(of, problem.x_new)
            assert isinstance(found, NormalPredictive)
            return np.asarray(found.mean), np.asarray(found.total_sd)

        return _calls(predicted, seconds, "hmcvi.inference.predict, whose programs stay compiled where it keeps them")

    def run(number: int) -> dict[str, Any]:
        watch = Stopwatch()
        found = predict(fit(jax.random.key(number), gp, x, y, MAP(), progress=False), problem.x_new)
        assert isinstance(found, NormalPredictive)
        score = _score(np.asarray(found.mean), problem)
        return watch.took(1, note=f"R² at new rows {score:.3f}")

    return Ready(run, about="MAP()")


def scikit_learn(*, task: str, rows: int | None, seconds: float) -> Ready:
    """Return `GaussianProcessRegressor`."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

    problem = Problem(rows)
    x, y, x_new = (np.asarray(part, np.float64) for part in (problem.x, problem.y, problem.x_new))
    scale = {name: np.exp(np.asarray(value, np.float64)) for name, value in problem.logs.items()}

    def kernel(start: bool) -> Any:
        values = {name: np.ones_like(value) for name, value in scale.items()} if start else scale
        amplitude, noise = ConstantKernel(values["amplitude"] ** 2), WhiteKernel(values["noise_scale"] ** 2)
        return amplitude * Matern(values["lengthscale"], nu=2.5) + noise

    if task == "fit":

        def run(number: int) -> dict[str, Any]:
            started = time.perf_counter()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)  # a lengthscale at its bound
                mean, _ = GaussianProcessRegressor(kernel(True)).fit(x, y).predict(x_new, return_std=True)
            took = time.perf_counter() - started
            return {"count": 1, "seconds": took, "note": f"R² at new rows {_score(mean, problem):.3f}"}

        return Ready(run, about="L-BFGS from one start")
    alpha = problem.jitter * float(scale["amplitude"]) ** 2
    if task == "predict":

        def predicted() -> tuple[np.ndarray, np.ndarray]:
            fitted = GaussianProcessRegressor(kernel(False), alpha=alpha, optimizer=None).fit(x, y)
            mean, sd = fitted.predict(x_new, return_std=True)
            return mean, sd

        return _calls(predicted, seconds, "float64")
    fitted = GaussianProcessRegressor(kernel(False), alpha=alpha, optimizer=None).fit(x, y)
    theta = fitted.kernel_.theta
    value, gradient = fitted.log_marginal_likelihood(theta, eval_gradient=True)
    # its kernel's logarithms are of the squares of amplitude and noise
    parts = {"amplitude": 2 * gradient[0], "lengthscale": gradient[1:-1], "noise_scale": 2 * gradient[-1]}

    def take(number: int) -> None:
        for _ in range(number):
            fitted.log_marginal_likelihood(theta, eval_gradient=True)

    return repeated(take, seconds, 1.0, problem.facts(value, parts), "float64")


def tinygp(*, task: str, rows: int | None, seconds: float) -> Ready:
    """Return tinygp."""
    from tinygp import GaussianProcess, kernels, transforms

    problem = Problem(rows)

    def process(logs: Any, x: jax.Array) -> Any:
        lengthscale, amplitude, noise = (jnp.exp(logs[name]) for name in ("lengthscale", "amplitude", "noise_scale"))
        matern = kernels.Matern52(distance=kernels.distance.L2Distance())
        kernel = amplitude**2 * transforms.Linear(1 / lengthscale, matern)
        return GaussianProcess(kernel, x, diag=noise**2 + problem.jitter * amplitude**2)

    if task == "gradient":
        return _in_a_loop(lambda logs, x, y: process(logs, x).log_probability(y), problem, seconds)

    @jax.jit
    def conditioned(logs: Any, x: jax.Array, y: jax.Array, x_new: jax.Array) -> Any:
        of = process(logs, x).condition(y, x_new).gp
        return of.loc, jnp.sqrt(of.variance + jnp.exp(logs["noise_scale"]) ** 2)

    def predicted() -> tuple[np.ndarray, np.ndarray]:
        mean, sd = conditioned(problem.logs, problem.x, problem.y, problem.x_new)
        return np.asarray(mean), np.asarray(sd)

    return _calls(predicted, seconds, "compiled by jax.jit")


def _in_a_loop(
    log_likelihood: Callable[..., jax.Array],
    problem: Problem,
    seconds: float,
    within: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> Ready:
    """Return the gradient in one compiled loop, as a sampler takes it, run `within` this."""
    with_gradient = jax.value_and_grad(log_likelihood)
    given = {name: jnp.asarray(value) for name, value in problem.logs.items()}
    x, y = jnp.asarray(problem.x), jnp.asarray(problem.y)

    def steps(number: jax.Array, logs: Any, x: jax.Array, y: jax.Array) -> Any:
        def step(_: int, carried: Any) -> Any:
            logs, total = carried
            value, gradient = with_gradient(logs, x, y)
            return jax.tree.map(lambda a, b: a + STEP * b, logs, gradient), total + value

        return lax.fori_loop(0, number, step, (logs, jnp.zeros(())))

    watch = Stopwatch()
    compiled = jax.jit(steps).lower(jnp.asarray(1), given, x, y).compile()
    compile_seconds = watch.stop().compile_seconds
    facts = problem.facts(*jax.jit(with_gradient)(given, x, y))

    def take(number: int) -> None:
        with within():
            jax.block_until_ready(compiled(jnp.asarray(number), given, x, y))

    return repeated(take, seconds, 1.0, facts, "float32", compile_seconds)


def _calls(predicted: Callable[[], tuple[np.ndarray, np.ndarray]], seconds: float, about: str) -> Ready:
    """Return a contestant that is called again and again, from Python."""
    watch = Stopwatch()
    mean, sd = predicted()
    compile_seconds = watch.stop().compile_seconds
    facts = {"the length of its means": float(np.linalg.norm(mean)), "that of its sds": float(np.linalg.norm(sd))}

    def take(number: int) -> None:
        for _ in range(number):
            predicted()

    return repeated(take, seconds, 1.0, facts, about, compile_seconds)


def _score(mean: np.ndarray, problem: Problem) -> float:
    """Return R² at the new rows."""
    from sklearn.metrics import r2_score

    data, _ = Experiment(data="diabetes", model="gp").load(0)
    return float(r2_score(data.y_test, mean))


CONTESTANTS: dict[str, Callable[..., Ready]] = {
    "hmcvi gp": hmcvi,
    "scikit-learn": scikit_learn,
    "tinygp": tinygp,
}

if __name__ == "__main__":
    serve(CONTESTANTS)
