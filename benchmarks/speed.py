"""Training steps per second, and scoring, side by side in one run: `python -m hmcvi.benchmarks.speed`.

In the cases "mlp" and "cnn" every contestant trains the same architecture at batch size 128 on the same number of rows,
in rounds that take turns, so that a machine that slows down slows all of them. Compile time counts for none. "scoring"
scores thousands of draws; see `speed_scoring.py`. The ratios are what carries over to another machine; no test reads
them.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jax import lax
from jax.experimental.compilation_cache import compilation_cache
from numpyro.infer import SVI as NumPyroSVI
from numpyro.infer import TraceMeanField_ELBO
from numpyro.infer.autoguide import AutoNormal
from rich.console import Console
from rich.table import Table

from hmcvi.inference import SVI, BayesByBackprop, fit
from hmcvi.models import cnn, mlp

from . import speed_scoring
from .reproduce import where

__all__ = ["Contestant", "main"]

PEER = Path(__file__).with_name("peer_bayesian_torch.py")

BATCH_SIZE, ROWS, LEARNING_RATE = 128, 12_800, 0.001

CASES = ("mlp", "cnn", "scoring")

MODELS: dict[str, tuple[Callable[..., Any], tuple[int, ...], int]] = {
    "mlp": (functools.partial(mlp, widths=(400, 400), activation="relu"), (784,), 500),
    "cnn": (functools.partial(cnn, channels=(32, 64), kernel_size=5, widths=(128,)), (28, 28, 1), 100),
}
"""784-400-400-10, and a LeNet-like CNN of 32 and 64 channels; the shape of an input and the steps of a round each."""


@dataclass(frozen=True)
class Contestant:
    """Someone who trains: `run(steps)` returns the seconds that so many steps took, without those of compiling."""

    name: str
    run: Callable[[int], float]


def ours(method: Any, model: Callable[..., Any], x: np.ndarray, y: np.ndarray) -> Contestant:
    """Return a method of hmcvi; each round is a fit of its own with the same key, of which the compiled loop counts."""

    def run(steps: int) -> float:
        # A schedule, as a plateau would end a fit of many steps before they were taken.
        timed = dataclasses.replace(method, num_steps=steps, schedule="cosine")
        return fit(jax.random.key(0), model, x, y, timed, progress=False).run_seconds

    return Contestant(f"hmcvi {method.name}", run)


def raw_svi(model: Callable[..., Any], x: np.ndarray, y: np.ndarray) -> Contestant:
    """Return NumPyro's own SVI with AutoNormal, its updates over minibatches in one scan an epoch: the fair setting."""
    x_device, y_device = jnp.asarray(x), jnp.asarray(y)
    batch_model = functools.partial(model, num_rows=len(x))
    svi = NumPyroSVI(batch_model, AutoNormal(batch_model), numpyro.optim.Adam(LEARNING_RATE), TraceMeanField_ELBO())
    per_epoch = len(x) // BATCH_SIZE

    @jax.jit
    def epoch(state: Any, key: jax.Array, x: jax.Array, y: jax.Array) -> Any:
        order = jax.random.permutation(key, len(x))[: per_epoch * BATCH_SIZE].reshape(per_epoch, BATCH_SIZE)
        return lax.scan(lambda state, rows: svi.update(state, x[rows], y[rows]), state, order)

    state = svi.init(jax.random.key(0), x_device[:BATCH_SIZE], y_device[:BATCH_SIZE])
    jax.block_until_ready(epoch(state, jax.random.key(1), x_device, y_device))  # compiled here

    def run(steps: int) -> float:
        current, started = state, time.perf_counter()
        for i in range(-(-steps // per_epoch)):
            current, losses = epoch(current, jax.random.key(i), x_device, y_device)
        jax.block_until_ready(losses)
        return (time.perf_counter() - started) * steps / (-(-steps // per_epoch) * per_epoch)

    return Contestant("numpyro svi", run)


class Peer:
    """bayesian-torch in a process of its own."""

    def __init__(self, python: str):
        self._process = subprocess.Popen(
            [python, str(PEER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        self.about = json.loads(self._answer())

    def contestant(self, case: str) -> Contestant:
        """Return its training of a case."""

        def run(steps: int) -> float:
            assert self._process.stdin is not None
            self._process.stdin.write(f"{case} {steps}\n")
            return float(self._answer())

        return Contestant("bayesian-torch", run)

    def close(self) -> None:
        """End the process."""
        self._process.communicate()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self.close()
            raise SystemExit("speed: bayesian-torch ended early; see its message above")
        return line


def measure(contestants: Sequence[Contestant], steps: int, rounds: int) -> dict[str, np.ndarray]:
    """Return steps per second (round,) by contestant; in each round all take turns."""
    rates: dict[str, list[float]] = {contestant.name: [] for contestant in contestants}
    for _ in range(rounds):
        for contestant in contestants:
            rates[contestant.name].append(steps / contestant.run(steps))
    return {name: np.array(values) for name, values in rates.items()}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table and return 0."""
    parser = argparse.ArgumentParser(prog="python -m hmcvi.benchmarks.speed", description=__doc__)
    steps_each = ", ".join(f"{steps} ({case})" for case, (*_, steps) in MODELS.items())
    parser.add_argument("--steps", type=int, help=f"steps a round. Default: {steps_each}")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=CASES, help="what to measure. Default: all")
    parser.add_argument("--rounds", type=int, default=5, help="rounds. Default: %(default)s")
    parser.add_argument("--quick", action="store_true", help="20 steps, 2 rounds: to see that it works, in minutes")
    parser.add_argument(
        "--torch-python",
        metavar="PYTHON",
        help="an interpreter that has bayesian-torch. Default: this one, where it has (pip install 'hmcvi[peers]')",
    )
    options = parser.parse_args(arguments)
    steps, rounds = (20, 2) if options.quick else (options.steps, options.rounds)
    if rounds < 1 or (steps is not None and steps < 1):
        parser.error("give at least one step and one round")
    python = options.torch_python
    if python is None and options.cases != ["scoring"] and importlib.util.find_spec("bayesian_torch") is not None:
        python = sys.executable
    try:
        peer = None if python is None else Peer(python)
    except OSError as error:
        parser.error(f"--torch-python {python} cannot be run ({error.strerror})")
    console = Console(width=100, highlight=False, markup=False, emoji=False)
    beside = "bayesian-torch is not here (pip install 'hmcvi[peers]', or --torch-python)"
    if peer is not None:
        about = peer.about
        beside = f"bayesian-torch {about['bayesian_torch']}, torch {about['version']} with {about['threads']} threads"
    console.print(f"On {where()}; jax {jax.__version__}, numpyro {numpyro.__version__}, {beside}.")
    with _programs_kept():
        for case in (case for case in MODELS if case in options.cases):
            model, shape, usual_steps = MODELS[case]
            contestants = _contestants(model, shape)
            if peer is not None:
                contestants.append(peer.contestant(case))
            console.print(_table(case, contestants, measure(contestants, steps or usual_steps, rounds)))
    if peer is not None:
        peer.close()
    if "scoring" in options.cases:
        for scored in speed_scoring.QUICK if options.quick else speed_scoring.CASES:
            console.print(speed_scoring.table(scored, speed_scoring.compare(scored, rounds)))
    console.print("Medians over rounds, with their range; hmcvi bbb is Flipout.", style="dim")
    if options.quick:
        console.print("--quick: rounds too short to conclude anything from.", style="dim")
    return 0


def _contestants(model: Callable[..., Any], shape: tuple[int, ...]) -> list[Contestant]:
    """Return the methods of hmcvi and NumPyro's own SVI, all with the same rows of noise and random labels."""
    random = np.random.default_rng(0)
    x = random.uniform(size=(ROWS, *shape)).astype(np.float32)
    y = random.integers(10, size=ROWS)
    shared: dict[str, Any] = {"batch_size": BATCH_SIZE, "num_draws": 1, "learning_rate": LEARNING_RATE}
    methods = [BayesByBackprop(estimator, **shared) for estimator in ("flipout", "local", "shared")]
    return [*(ours(method, model, x, y) for method in (*methods, SVI(**shared))), raw_svi(model, x, y)]


@contextlib.contextmanager
def _programs_kept() -> Iterator[None]:
    """Keep compiled programs: a later fit of as many steps reads its own from a folder that goes away at the end."""
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = [getattr(jax.config, name) for name in names]
    with tempfile.TemporaryDirectory() as folder:
        _configure(zip(names, (folder, 0), strict=True))
        try:
            yield
        finally:
            _configure(zip(names, before, strict=True))


def _configure(options: Iterable[tuple[str, Any]]) -> None:
    for name, value in options:
        jax.config.update(name, value)
    compilation_cache.reset_cache()  # it would keep the folder it has


def _table(case: str, contestants: Sequence[Contestant], rates: dict[str, np.ndarray]) -> Table:
    """Return steps per second, and ratios to the two others: medians over rounds, from the lowest to the highest."""
    others = [name for name in ("numpyro svi", "bayesian-torch") if name in rates]
    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="bold")
    for column in (f"{case}, batch {BATCH_SIZE}", "steps/s", *(f"× {name}" for name in others)):
        table.add_column(column, justify="left" if column.startswith(case) else "right", no_wrap=True)
    for contestant in contestants:
        own = rates[contestant.name]
        ratios = [_spread(own / rates[name]) for name in others]
        table.add_row(contestant.name, _spread(own), *ratios)
    return table


def _spread(values: np.ndarray) -> str:
    return f"{np.median(values):.3g} ({values.min():.3g}–{values.max():.3g})"


if __name__ == "__main__":
    sys.exit(main())
