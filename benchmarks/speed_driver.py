"""What our driver costs a draw: the cases "driver" and "driver-parallel" of `speed.py`.

The same kernel, key, data and chain method, once in one compiled loop that does nothing else, and once under `fit` with
progress shown, a checkpoint written as often as by default, and all statistics kept. Both count from the first draw
on, so that starting counts for neither: the driver from its first word of progress to the end of the call, which holds
the last checkpoint and the constrained draws, too. Both make the same draws: the length of the last ones is compared.
In parallel, where a chunk ends when the slowest of its chains does, the bare loop is one `pmap` over the same devices.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

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

CHAINS = {"sequential": 2, "parallel": 4}


def cases(quick: bool) -> list[Case]:
    """Return the cases."""
    module, draws = "speed_driver", 40 if quick else 400
    said = "draws of NUTS a second with everything our driver does, and in a bare compiled loop"
    return [
        Case(
            name,
            f"{said}: {DATA}, {MODEL}, {how}",
            "draws/s",
            (Contestant("hmcvi fit", module, ours=True), Contestant("the bare loop", module)),
            {"rows": 60 if quick else None, "chain_method": chain_method, "warmup": draws, "draws": draws},
        )
        for name, chain_method, how in (
            ("driver", "sequential", "2 chains in turn"),
            ("driver-parallel", "parallel", "4 chains over 4 host devices"),
        )
    ]


def method_of(chain_method: Literal["sequential", "parallel"], warmup: int, draws: int) -> NUTS:
    """Return the sampler."""
    chains = CHAINS[chain_method]
    return NUTS(num_warmup=warmup, num_draws=draws, num_chains=chains, chain_method=chain_method)


def probes_of(method: NUTS, rows: int | None) -> Probes:
    """Return the data and model, where JAX has a device for each chain that is to have one."""
    if method.chain_method == "parallel":
        jax.config.update("jax_num_cpu_devices", method.num_chains)
    return Probes(DATA, MODEL, rows)


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


def driver(*, rows: int | None, **sizes: Any) -> Ready:
    """Return `fit`."""
    method = method_of(**sizes)
    probes = probes_of(method, rows)

    def run(number: int) -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as folder, (Path(folder) / "said").open("w") as file:
            progress = Spoken(Console(file=file))
            watch = Stopwatch()
            result = fit(
                jax.random.key(number),
                probes.model,
                probes.x,
                probes.y,
                method,
                progress=progress,
                checkpoint=Path(folder) / "fit.ckpt",
            )
            jax.block_until_ready(dict(result.draws))
            assert progress.watch is not None
            seconds = progress.watch.stop().seconds
        return {"count": _count(method), "seconds": seconds, "compile": watch.stop().compile_seconds}

    result = fit(jax.random.key(0), probes.model, probes.x, probes.y, method, progress=False)
    return Ready(run, _facts(result.draws))


def bare(*, rows: int | None, **sizes: Any) -> Ready:
    """Return the loop."""
    method = method_of(**sizes)
    probes = probes_of(method, rows)

    def run(number: int) -> dict[str, Any]:
        _, seconds, compile_seconds = bare_draws(jax.random.key(number), probes, method)
        return {"count": _count(method), "seconds": seconds, "compile": compile_seconds}

    draws_made, *_ = bare_draws(jax.random.key(0), probes, method)
    return Ready(run, _facts(draws_made))


def bare_draws(key: jax.Array, probes: Probes, method: NUTS) -> tuple[dict[str, jax.Array], float, float]:
    """Return draws (chain, draw, ...) by site, the seconds from the second on, and of compiling."""
    watch = Stopwatch()
    chains = method.start(jax.random.split(key, method.num_chains), probes.model, probes.x, probes.y)

    def chain(number: int, state: Any, x: jax.Array, y: jax.Array) -> Any:
        def step(state: Any, _: None) -> Any:
            state = chains.draw(state, x, y)
            return state, chains.record(state)["z"]

        return lax.scan(step, state, None, length=number)

    def in_turn(number: int, states: Any, x: jax.Array, y: jax.Array) -> Any:
        return lax.map(lambda state: chain(number, state, x, y), states)

    def all_chains(number: int) -> Any:
        if method.chain_method == "sequential":
            return jax.jit(partial(in_turn, number))
        return jax.pmap(partial(chain, number), in_axes=(0, None, None))

    first, rest = (
        all_chains(number).lower(chains.state, probes.x, probes.y).compile()
        for number in (1, method.num_warmup + method.num_draws - 1)
    )
    compile_seconds = watch.stop().compile_seconds
    states, _ = jax.block_until_ready(first(chains.state, probes.x, probes.y))
    watch = Stopwatch()
    _, z = jax.block_until_ready(rest(states, probes.x, probes.y))
    seconds = watch.stop().seconds
    constrain = jax.jit(jax.vmap(jax.vmap(chains.constrain(probes.x, probes.y))))
    return constrain(np.asarray(z)[:, method.num_warmup - 1 :]), seconds, compile_seconds


def _count(method: NUTS) -> int:
    """Return the draws of all chains from the second on."""
    return method.num_chains * (method.num_warmup + method.num_draws - 1)


def _facts(draws: Mapping[str, jax.Array]) -> dict[str, float]:
    """Return the length of the last draws."""
    squares = sum(float((np.asarray(values)[:, -1].astype(np.float64) ** 2).sum()) for values in draws.values())
    return {"the length of its last draws": squares**0.5}


CONTESTANTS: dict[str, Callable[..., Ready]] = {"hmcvi fit": driver, "the bare loop": bare}

if __name__ == "__main__":
    serve(CONTESTANTS)
