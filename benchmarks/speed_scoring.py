"""Scoring many posterior draws: hmcvi beside NumPyro's Predictive followed by NumPy; a case of `speed.py`.

Both score the same network, draws and rows: accuracy, NLL, ECE, and the entropy of the mixture in its two parts. hmcvi
keeps sums while the draws go by, and gives each score its Monte Carlo error by half-samples too. Predictive returns the
class probabilities of every draw, from which a person takes means and entropies in NumPy, without such errors. It is
compiled as a whole by `jax.jit`, which it is not by itself, and draws go by at once (parallel) or one by one.

Each contestant is a process of its own, so that the peak of its memory is its own; what it added is in its note.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import psutil
from numpyro import handlers
from numpyro.infer import Predictive

from hmcvi.inference import SVI, ClassPredictive, Fit, predict, scores
from hmcvi.models import mlp

from .memory import SHARE, available_bytes, peak_bytes
from .peer_protocol import Ready, serve
from .speed_process import Case, Contestant, Stopwatch

__all__ = ["CONTESTANTS", "Draws", "cases"]


@dataclass(frozen=True)
class Draws:
    """A network features-units-classes and how much is scored."""

    features: int
    units: int
    classes: int = 10
    chains: int = 4
    draws: int = 1000
    rows: int = 10_000

    def __str__(self) -> str:
        """Say what is scored."""
        network = f"{self.features}-{self.units}-{self.classes}"
        return f"MLP {network}, {self.chains} × {self.draws:,} draws, {self.rows:,} rows"

    @property
    def operations(self) -> float:
        """Floating-point operations of the matrix products, which no contestant can avoid."""
        return 2.0 * self.chains * self.draws * self.rows * self.units * (self.features + self.classes)


SIZES = {"scoring-mnist": Draws(784, 32), "scoring-digits": Draws(64, 16)}
"""MNIST's pixels, where the first layer's products are most of the work, and those of the digits of scikit-learn."""

SCORES = ("nll", "entropy, total", "entropy, aleatoric", "entropy, epistemic")

QUICK = Draws(64, 16, chains=2, draws=25, rows=300)


def cases(quick: bool) -> list[Case]:
    """Return both cases."""
    return [
        Case(
            name,
            f"scoring an {size}; {size.operations / 1e12:.2g} × 10¹² operations of matrix products",
            "s",
            tuple(Contestant(one, "speed_scoring", ours=one.startswith("hmcvi")) for one in SCORERS),
            {"features": size.features, "units": size.units, "chains": size.chains}
            | {"draws": size.draws, "rows": size.rows},
            tolerances=dict.fromkeys(SCORES, 1e-4) | dict.fromkeys(("accuracy", "ece"), 2 / size.rows),
        )
        for name, size in ((name, QUICK if quick else size) for name, size in SIZES.items())
    ]


def random_fit(size: Draws) -> tuple[Fit, np.ndarray, np.ndarray]:
    """Return a fit with random draws around one network, inputs (row, feature), and what that network says (row,)."""
    random = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:  # in float32 from the start: twice the memory would hide the peak
        return random.standard_normal(shape, dtype=np.float32)

    shapes = {
        "hidden_0.kernel": (size.features, size.units),
        "hidden_0.bias": (size.units,),
        "out.kernel": (size.units, size.classes),
        "out.bias": (size.classes,),
    }
    centre = {site: normal(*shape) * np.float32(2 / np.sqrt(shape[0])) for site, shape in shapes.items()}
    draws = {}
    for site, shape in shapes.items():
        values = normal(size.chains, size.draws, *shape)
        values *= np.float32(0.5 / np.sqrt(shape[0]))
        values += centre[site]
        draws[site] = jnp.asarray(values)
    x = normal(size.rows, size.features)
    hidden = np.tanh(x @ centre["hidden_0.kernel"] + centre["hidden_0.bias"])
    y = (hidden @ centre["out.kernel"] + centre["out.bias"]).argmax(1)
    model = functools.partial(mlp, widths=(size.units,), num_classes=size.classes)
    few = slice(0, 8)  # of the training rows a network's predictions know nothing
    fit = Fit(model, SVI(), jnp.asarray(x[few]), jnp.asarray(y[few]), jax.random.key(0), draws, 0, 8, 0.0)
    return fit, x, y


def score_by_hmcvi(fit: Fit, x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Return the scores, with their Monte Carlo errors under "error of ..."."""
    prediction = predict(fit, x)
    assert isinstance(prediction, ClassPredictive)
    sizes = prediction.batch_size

    def scored(mixture: tuple[np.ndarray, np.ndarray], num_bootstrap: int) -> dict[str, float]:
        probs, aleatoric = mixture
        total = scores.entropy(probs)
        return {
            "accuracy": scores.accuracy(probs, y).value,
            "nll": scores.negative_log_likelihood(probs, y).value,
            "ece": scores.ece(probs, y, num_bootstrap=num_bootstrap).value,
            "entropy, total": scores.mean(total).value,
            "entropy, aleatoric": scores.mean(aleatoric).value,
            "entropy, epistemic": scores.mean(total - aleatoric).value,
        }

    found = scored(prediction.mixture(sizes), num_bootstrap=200)
    replicates = scores.batch_replicates(len(sizes), prediction.num_chains)
    # few resamples will do: of the replicates only the values are read
    under = [scored(prediction.mixture(weights * sizes), num_bootstrap=2) for weights in replicates.weights]
    errors = {name: replicates.error(value, [of[name] for of in under]) for name, value in found.items()}
    return found | {f"error of {name}": error for name, error in errors.items()}


def score_by_numpyro(fit: Fit, x: np.ndarray, y: np.ndarray, *, parallel: bool) -> dict[str, float]:
    """Return the scores as a person writes them after Predictive; in pieces of rows only where memory asks for it."""
    draws = {site: d.reshape(-1, *d.shape[2:]) for site, d in fit.draws.items()}
    probs, aleatoric = [], []
    for piece in np.array_split(x, _num_pieces(fit, len(x), parallel)):
        of_draws = np.asarray(_predictive(fit.model, parallel)(draws, piece))  # (draw, row, class)
        probs.append(of_draws.mean(0))
        # A probability that underflows has entropy 0, and its logarithm none.
        aleatoric.append(-(of_draws * np.log(np.maximum(of_draws, 1e-38))).sum(-1).mean(0))
        del of_draws
    p, inner = np.concatenate(probs), np.concatenate(aleatoric)
    total = -(p * np.log(np.maximum(p, 1e-38))).sum(-1)
    confidence, correct = p.max(1), p.argmax(1) == y
    bin_of_row = np.clip(np.ceil(confidence * 15).astype(int) - 1, 0, 14)
    gaps = np.bincount(bin_of_row, weights=confidence - correct, minlength=15)
    return {
        "accuracy": float(correct.mean()),
        "nll": float(-np.log(p[np.arange(len(y)), y]).mean()),
        "ece": float(np.abs(gaps).sum() / len(y)),
        "entropy, total": float(total.mean()),
        "entropy, aleatoric": float(inner.mean()),
        "entropy, epistemic": float((total - inner).mean()),
    }


SCORERS: dict[str, Callable[[Fit, np.ndarray, np.ndarray], dict[str, float]]] = {
    "hmcvi": score_by_hmcvi,
    "Predictive, serial": functools.partial(score_by_numpyro, parallel=False),
    "Predictive, parallel": functools.partial(score_by_numpyro, parallel=True),
}


@functools.cache
def _predictive(model: Callable[..., Any], parallel: bool) -> Callable[..., jax.Array]:
    """Return Predictive of the class probabilities (draw, row, class) as a compiled function of draws and inputs."""

    def with_probs(x: jax.Array) -> None:
        with handlers.trace() as sites:
            model(x)
        distribution = sites["y"]["fn"]
        while hasattr(distribution, "base_dist"):  # Predictive masks the likelihood
            distribution = distribution.base_dist
        numpyro.deterministic("probs", jax.nn.softmax(distribution.logits))

    @jax.jit
    def run(draws: Any, x: jax.Array) -> jax.Array:
        predictive = Predictive(with_probs, draws, return_sites=["probs"], parallel=parallel)
        return predictive(jax.random.key(0), x)["probs"]

    return run


def _num_pieces(fit: Fit, rows: int, parallel: bool) -> int:
    """Return in how many pieces the rows fit into memory: probabilities, their logarithms and products."""
    units, classes = fit.draws["out.kernel"].shape[2:]
    numbers = fit.num_chains * fit.num_draws * (3 * classes + (2 * units if parallel else 0))
    return min(rows, int(np.ceil(4 * numbers * rows / (SHARE * available_bytes()))))


def contestant(name: str, **given: int) -> Ready:
    """Return a scorer, which has scored once by then: its scores are the facts that all must share."""
    fit, x, y = random_fit(Draws(**given))
    jax.block_until_ready(dict(fit.draws))
    before = psutil.Process().memory_info().rss
    watch = Stopwatch()
    found = SCORERS[name](fit, x, y)
    compile_seconds = watch.stop().compile_seconds

    def run(number: int) -> dict[str, Any]:
        watch = Stopwatch()
        SCORERS[name](fit, x, y)
        return {"count": 1, "seconds": watch.stop().seconds, "note": f"adds {(peak_bytes() - before) / 1e6:,.0f} MB"}

    shared = {score: value for score, value in found.items() if not score.startswith("error of ")}
    return Ready(run, shared, compile_seconds=compile_seconds)


CONTESTANTS: dict[str, Callable[..., Ready]] = {name: functools.partial(contestant, name) for name in SCORERS}

if __name__ == "__main__":
    serve(CONTESTANTS)
