"""What our driver costs a draw: the case "driver" of `speed.py`.

The same kernel, key, data and chain method, once in one compiled loop that does nothing else, and once under `fit` with
progress shown, a checkpoint written as often as by default, and all statistics kept. Both count from the first draw
on, so that starting counts for neither: the driver from its first word of progress to the end of the call, which holds
the last checkpoint and the constrained draws, too. Both make the same draws: the length of the last ones is compared.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import lax
from rich.console import Console

from hmcvi.inference import NUTS, fit
from hmcvi.inference.progress import Progress

from .peer_protocol import Ready, serve
from .speed_process import Case, Contestant, Stopwatch
from .speed_reference import Probes

__all__ = ["CONTESTANTS", "cases"]

DATA, MODEL = "digits", "mlp"


def cases(quick: bool) -> list[Case]:
    """Return the case."""
    module, draws = "speed_driver", 40 if quick else 400
    return [
        Case(
            "driver",
            f"draws of NUTS a second with everything our driver does, and in a bare compiled loop: {DATA}, {MODEL}, "
            "2 chains in turn",
            "draws/s",
            (Contestant("hmcvi fit", module, ours=True), Contestant("the bare loop", module)),
            {"rows": 60 if quick else None, "warmup": draws, "draws": draws},
        )
    ]


def method_of(warmup: int, draws: int) -> NUTS:
    """Return the sampler."""
    return NUTS(num_warmup=warmup, num_draws=draws, num_chains=2, chain_method="sequential")


class Spoken(Progress):
    """Writes to a file that goes, and notes when the first draw was made."""

    def __init__(self, console: Console) -> None:
        super().__init__("speed", "lines", console=console)
        self.watch: Stopwatch | None = None

    def update(self, done: int, total: int, unit: str, detail: str) -> None:
        """See `Progress.update`."""
        if self.watch is None:
            assert done == 1
            self.watch = Stopwatch()
        super().update(done, total, unit, detail)


def driver(*, rows: int | None, warmup: int, draws: int) -> Ready:
    """Return `fit`."""
    probes = Probes(DATA, MODEL, rows)

    def run(number: int) -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as folder, (Path(folder) / "said").open("w") as file:
            progress = Spoken(Console(file=file))
            watch = Stopwatch()
            result = fit(
                jax.random.key(number),
                probes.model,
                probes.x,
                probes.y,
                method_of(warmup, draws),
                progress=progress,
                checkpoint=Path(folder) / "fit.ckpt",
            )
            jax.block_until_ready(dict(result.draws))
            assert progress.watch is not None
            seconds = progress.watch.seconds
        return {"count": 2 * (warmup + draws - 1), "seconds": seconds, "compile": watch.compile_seconds}

    return Ready(run, _mean_of(probes, draws, warmup))


def bare(*, rows: int | None, warmup: int, draws: int) -> Ready:
    """Return the loop."""
    probes = Probes(DATA, MODEL, rows)

    def run(number: int) -> dict[str, Any]:
        _, seconds, compile_seconds = bare_draws(jax.random.key(number), probes, warmup, draws)
        return {"count": 2 * (warmup + draws - 1), "seconds": seconds, "compile": compile_seconds}

    draws_made, *_ = bare_draws(jax.random.key(0), probes, warmup, draws)
    return Ready(run, _facts(draws_made))


def bare_draws(key: jax.Array, probes: Probes, warmup: int, draws: int) -> tuple[dict[str, np.ndarray], float, float]:
    """Return draws (chain, draw, ...) by site, unconstrained, the seconds from the second on, and of compiling."""
    method = method_of(warmup, draws)
    watch = Stopwatch()
    chains = method.start(jax.random.split(key, method.num_chains), probes.model, probes.x, probes.y)

    def over_chains(number: int, states: Any, x: jax.Array, y: jax.Array) -> Any:
        def step(state: Any, _: None) -> Any:
            state = chains.draw(state, x, y)
            return state, chains.record(state)["z"]

        return lax.map(lambda state: lax.scan(step, state, None, length=number), states)

    first, rest = (
        jax.jit(partial(over_chains, number)).lower(chains.state, probes.x, probes.y).compile()
        for number in (1, warmup + draws - 1)
    )
    compile_seconds = watch.compile_seconds
    states, _ = jax.block_until_ready(first(chains.state, probes.x, probes.y))
    watch = Stopwatch()
    _, z = jax.block_until_ready(rest(states, probes.x, probes.y))
    return {name: np.asarray(values)[:, warmup - 1 :] for name, values in z.items()}, watch.seconds, compile_seconds


def _mean_of(probes: Probes, draws: int, warmup: int) -> dict[str, float]:
    result = fit(jax.random.key(0), probes.model, probes.x, probes.y, method_of(warmup, draws), progress=False)
    return _facts({name: np.asarray(values) for name, values in result.draws.items()})


def _facts(draws: dict[str, np.ndarray]) -> dict[str, float]:
    """Return the length of the last draws, of sites whose support is the whole line."""
    squares = sum(float((values[:, -1].astype(np.float64) ** 2).sum()) for values in draws.values())
    return {"the length of its last draws": squares**0.5}


CONTESTANTS: dict[str, Callable[..., Ready]] = {"hmcvi fit": driver, "the bare loop": bare}

if __name__ == "__main__":
    serve(CONTESTANTS)
