"""Scoring many posterior draws: hmcvi beside NumPyro's Predictive followed by NumPy; a case of `speed.py`.

Both score the same network, draws and rows: accuracy, NLL, ECE, and the entropy of the mixture in its two parts. hmcvi
keeps sums while the draws go by, and gives each score its Monte Carlo error by half-samples too. Predictive returns the
class probabilities of every draw, from which a person takes means and entropies in NumPy, without such errors. It is
compiled as a whole by `jax.jit`, which it is not by itself, and draws go by at once (parallel) or one by one.

Each contestant is a process of its own, so that the peak of its memory is its own.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import psutil
from numpyro import handlers
from numpyro.infer import Predictive
from rich.table import Table

from hmcvi.inference import SVI, ClassPredictive, Fit, predict, scores
from hmcvi.models import mlp

from .memory import SHARE, available_bytes

__all__ = ["CONTESTANTS", "Case", "check_equal", "compare", "table"]


@dataclass(frozen=True)
class Case:
    """A network features-units-classes and how much is scored."""

    features: int
    units: int
    classes: int = 10
    chains: int = 4
    draws: int = 1000
    rows: int = 10_000

    def __str__(self) -> str:
        """Name the case as a table does."""
        network = f"{self.features}-{self.units}-{self.classes}"
        return f"scoring {network}, {self.chains} × {self.draws:,} draws, {self.rows:,} rows"

    @property
    def operations(self) -> float:
        """Floating-point operations of the matrix products, which no contestant can avoid."""
        return 2.0 * self.chains * self.draws * self.rows * self.units * (self.features + self.classes)


CASES = (Case(784, 32), Case(64, 16))
"""MNIST's pixels, where the first layer's products are most of the work, and those of the digits of scikit-learn."""

COMMAND = (sys.executable, "-m", "hmcvi.benchmarks.speed_scoring")
"""How a contestant is started."""

QUICK = (Case(64, 16, chains=2, draws=25, rows=300),)


def random_fit(case: Case) -> tuple[Fit, np.ndarray, np.ndarray]:
    """Return a fit with random draws around one network, inputs (row, feature), and what that network says (row,)."""
    random = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:  # in float32 from the start: twice the memory would hide the peak
        return random.standard_normal(shape, dtype=np.float32)

    shapes = {
        "hidden_0.kernel": (case.features, case.units),
        "hidden_0.bias": (case.units,),
        "out.kernel": (case.units, case.classes),
        "out.bias": (case.classes,),
    }
    centre = {site: normal(*shape) * np.float32(2 / np.sqrt(shape[0])) for site, shape in shapes.items()}
    draws = {}
    for site, shape in shapes.items():
        values = normal(case.chains, case.draws, *shape)
        values *= np.float32(0.5 / np.sqrt(shape[0]))
        values += centre[site]
        draws[site] = jnp.asarray(values)
    x = normal(case.rows, case.features)
    hidden = np.tanh(x @ centre["hidden_0.kernel"] + centre["hidden_0.bias"])
    y = (hidden @ centre["out.kernel"] + centre["out.bias"]).argmax(1)
    model = functools.partial(mlp, widths=(case.units,), num_classes=case.classes)
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


CONTESTANTS: dict[str, Callable[[Fit, np.ndarray, np.ndarray], dict[str, float]]] = {
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


def check_equal(found: dict[str, dict[str, float]], rows: int) -> None:
    """Raise SystemExit unless all contestants found the same scores; accuracy and ECE may differ by two rows."""
    first, *others = found
    for other in others:
        for name, value in found[other].items():
            tolerance = 2 / rows if name in ("accuracy", "ece") else 1e-4
            if not abs(value - found[first][name]) <= tolerance:
                raise SystemExit(
                    f"speed: {name} is {found[first][name]:.6g} by {first} and {value:.6g} by {other}: what is "
                    "compared is not the same"
                )


class Scorer:
    """A contestant in a process of its own."""

    def __init__(self, name: str, case: Case):
        given = json.dumps([name, dataclasses.asdict(case)])
        self._process = subprocess.Popen(
            [*COMMAND, given], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        self.name = name

    def score(self) -> dict[str, Any]:
        """Score once: "seconds", "scores", and "before" and "peak" of the process's memory in bytes."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write("score\n")
            return json.loads(self._process.stdout.readline())
        except (BrokenPipeError, json.JSONDecodeError):
            self.close()
            raise SystemExit(f"speed: {self.name} ended early; see its message above") from None

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


def compare(case: Case, rounds: int) -> dict[str, list[dict[str, Any]]]:
    """Return what each contestant said in each round, after a first one that compiles; in each all take turns."""
    scorers = [Scorer(name, case) for name in CONTESTANTS]
    try:
        said = [{scorer.name: scorer.score() for scorer in scorers} for _ in range(1 + rounds)]
    finally:
        for scorer in scorers:
            scorer.close()
    for one in said:
        check_equal({name: of["scores"] for name, of in one.items()}, case.rows)
    return {name: [one[name] for one in said] for name in CONTESTANTS}


def table(case: Case, said: dict[str, list[dict[str, Any]]]) -> Table:
    """Return seconds with and without compiling, ratios to hmcvi within rounds, and memory."""
    shown = Table(title=f"{case}; {case.operations / 1e12:.2g} × 10¹² operations", title_justify="left", box=None)
    shown.pad_edge, shown.padding = False, (0, 1, 0, 1)
    for column in ("", "first, s", "later, s", "× hmcvi", "before, MB", "added, MB"):
        shown.add_column(column, justify="right" if column else "left", no_wrap=True)
    first = next(iter(said))
    seconds = {name: np.array([one["seconds"] for one in rounds]) for name, rounds in said.items()}
    for name, rounds in said.items():
        ratios = seconds[name][1:] / seconds[first][1:]
        before, peak = rounds[0]["before"], max(one["peak"] for one in rounds)
        cells = (f"{seconds[name][0]:.3g}", _spread(seconds[name][1:]), _spread(ratios))
        shown.add_row(name, *cells, f"{before / 1e6:.0f}", f"{(peak - before) / 1e6:.0f}")
    return shown


def _spread(values: Sequence[float] | np.ndarray) -> str:
    return f"{np.median(values):.3g} ({np.min(values):.3g}–{np.max(values):.3g})"


def peak_bytes() -> int:
    """Return the most memory that this process has ever held, in bytes; the system counts in KiB, macOS in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def serve(name: str, case: Case) -> None:
    """Score once for each line that comes in, and answer with one line."""
    fit, x, y = random_fit(case)
    jax.block_until_ready(dict(fit.draws))
    before = psutil.Process().memory_info().rss
    for _ in sys.stdin:
        started = time.perf_counter()
        found = CONTESTANTS[name](fit, x, y)
        seconds = time.perf_counter() - started
        print(json.dumps({"seconds": seconds, "scores": found, "before": before, "peak": peak_bytes()}), flush=True)


if __name__ == "__main__":
    contestant, numbers = json.loads(sys.argv[1])
    serve(contestant, Case(**numbers))
