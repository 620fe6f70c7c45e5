"""Training steps a second of the variational methods: the cases "vi-*" of `speed.py`.

All train the same architecture at the same batch size on the same rows of noise. Everyone optimises two numbers a
weight, which is checked; priors and initial values, which cost nothing, are each library's own.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jax import lax
from numpyro.infer import SVI as NumPyroSVI
from numpyro.infer import TraceMeanField_ELBO
from numpyro.infer.autoguide import AutoNormal

from hmcvi.inference import SVI, BayesByBackprop, fit
from hmcvi.models import cnn, mlp

from .peer_protocol import Ready, inputs, serve
from .speed_process import Case, Contestant, Stopwatch, keep_programs

__all__ = ["CONTESTANTS", "cases"]

CLASSES, LEARNING_RATE = 10, 0.001

MODELS: dict[str, tuple[Callable[..., Any], tuple[int, ...], str]] = {
    "mlp": (functools.partial(mlp, widths=(400, 400), activation="relu"), (784,), "MLP 784-400-400-10"),
    "cnn": (functools.partial(cnn, channels=(32, 64), kernel_size=5, widths=(128,)), (28, 28, 1), "CNN 5×5, 32–64"),
}
"""Models, the shape of an input, and what a table calls them."""

STEPS = {"mlp": 500, "cnn": 300}
"""Steps of a round."""

METHODS: dict[str, Any] = {
    "hmcvi bbb, flipout": BayesByBackprop("flipout"),
    "hmcvi bbb, local": BayesByBackprop("local"),
    "hmcvi bbb, shared": BayesByBackprop("shared"),
    "hmcvi svi": SVI(),
}


def cases(quick: bool) -> list[Case]:
    """Return both cases."""
    module, rows, batch = "speed_vi", *((256, 32) if quick else (12_800, 128))
    contestants = (
        *(Contestant(name, module, ours=True) for name in METHODS),
        Contestant("numpyro SVI.run", module),
        Contestant("numpyro SVI, scanned", module),
        Contestant("bayesian-torch", "peer_bayesian_torch.py", needs="bayesian_torch"),
        Contestant("pyro", "peer_pyro.py", needs="pyro"),
    )
    return [
        Case(
            f"vi-{name}",
            f"training steps of a {title}, batch {batch} of {rows:,} rows, fits of {steps} steps",
            "steps/s",
            contestants,
            {"model": name, "rows": rows, "batch": batch, "steps": steps},
        )
        for name, (_, _, title) in MODELS.items()
        for steps in [8 if quick else STEPS[name]]
    ]


def hmcvi(name: str, *, model: str, rows: int, batch: int, steps: int) -> Ready:
    """Return a method of ours; each round is a fit with a key of its own."""
    function, x, y = _work(model, rows)
    # A schedule, as a plateau would end a fit of many steps before they were taken.
    given = {"batch_size": batch, "num_draws": 1, "learning_rate": LEARNING_RATE, "schedule": "cosine"}
    method = dataclasses.replace(METHODS[name], num_steps=steps, **given)
    numbers = []

    def run(number: int) -> dict[str, float]:
        watch = Stopwatch()
        result = fit(jax.random.key(number), function, x, y, method, progress=False)
        numbers.append(float(result.num_optimised or 0))
        return {"count": steps, "seconds": watch.stop().seconds}

    kept = keep_programs()
    watch = Stopwatch()
    run(0)
    about = f"seconds of the whole call, without compiling; later rounds find their programs in {kept}"
    return Ready(run, {"numbers optimised": numbers[0]}, about, watch.stop().compile_seconds)


def numpyro_run(*, model: str, rows: int, batch: int, steps: int) -> Ready:
    """Return `SVI.run` as its documentation has it: minibatches are a plate's subsample."""
    function, x, y = _work(model, rows)
    data = jnp.asarray(x), jnp.asarray(y)

    def subsampled(x: jax.Array, y: jax.Array) -> None:
        with numpyro.plate("rows", rows, subsample_size=batch) as chosen:
            pass
        function(x[chosen], y[chosen], num_rows=rows)

    svi = _svi(subsampled)

    def run(number: int) -> dict[str, float]:
        watch = Stopwatch()
        result = svi.run(jax.random.key(number), steps, *data, progress_bar=False)
        jax.block_until_ready(result.losses)
        return {"count": steps, "seconds": watch.stop().seconds}

    kept = keep_programs()
    watch = Stopwatch()
    run(0)
    compiled = watch.stop().compile_seconds
    about = (
        f"our model, seconds of the whole call, without compiling, which each call does; later rounds find it in {kept}"
    )
    return Ready(run, _numbers(svi, *data), about, compiled)


def numpyro_scanned(*, model: str, rows: int, batch: int, steps: int) -> Ready:
    """Return `SVI.update` over minibatches in one compiled scan an epoch: the fastest form that one can write."""
    function, x, y = _work(model, rows)
    batches = functools.partial(function, num_rows=rows)
    svi, per_epoch = _svi(batches), rows // batch
    epochs = -(-steps // per_epoch)

    @jax.jit
    def epoch(state: Any, key: jax.Array, x: jax.Array, y: jax.Array) -> Any:
        order = jax.random.permutation(key, rows)[: per_epoch * batch].reshape(per_epoch, batch)
        return lax.scan(lambda state, rows: svi.update(state, x[rows], y[rows]), state, order)

    data = jnp.asarray(x), jnp.asarray(y)
    watch = Stopwatch()
    beginning = svi.init(jax.random.key(0), data[0][:batch], data[1][:batch])
    jax.block_until_ready(epoch(beginning, jax.random.key(1), *data))
    compiled = watch.stop().compile_seconds

    def run(number: int) -> dict[str, float]:
        state, watch = beginning, Stopwatch()
        for i in range(epochs):
            state, losses = epoch(state, jax.random.key(i), *data)
        jax.block_until_ready(losses)
        return {"count": epochs * per_epoch, "seconds": watch.stop().seconds}

    return Ready(run, _numbers(svi, data[0][:batch], data[1][:batch]), "our model", compiled)


def _work(model: str, rows: int) -> tuple[Callable[..., Any], np.ndarray, np.ndarray]:
    function, shape, _ = MODELS[model]
    return function, *inputs(rows, shape, CLASSES)


def _svi(model: Callable[..., Any]) -> NumPyroSVI:
    return NumPyroSVI(model, AutoNormal(model), numpyro.optim.Adam(LEARNING_RATE), TraceMeanField_ELBO())


def _numbers(svi: NumPyroSVI, x: jax.Array, y: jax.Array) -> dict[str, float]:
    found = jax.eval_shape(lambda key: svi.get_params(svi.init(key, x, y)), jax.random.key(0))
    return {"numbers optimised": float(sum(leaf.size for leaf in jax.tree.leaves(found)))}


CONTESTANTS: dict[str, Callable[..., Ready]] = {
    **{name: functools.partial(hmcvi, name) for name in METHODS},
    "numpyro SVI.run": numpyro_run,
    "numpyro SVI, scanned": numpyro_scanned,
}

if __name__ == "__main__":
    serve(CONTESTANTS)
