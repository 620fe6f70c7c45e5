"""Seconds until a reference has converged: the cases "nuts-*" of `speed.py`.

One rule for all. A contestant warms up, then draws in blocks; after each block the same code judges the same function
values at the same held-out rows (`hmcvi.inference.diagnostics.verdict`: R-hat < 1.01 and ESS of at least 100 a chain,
400 in all, for 95 % of them). The clock counts warm-up and draws; compiling and judging count for none. Whoever spends
the cap has not converged, and the table says how far it came. Samplers whose call cannot be continued begin anew with
the same key and more draws, and the first call that converged counts alone: ours draws an eighth, a half and all of the
most draws that are allowed, and a block counts from when its driver said that so many were made; nutpie's calls grow by
a quarter each, and are judged whole.

Everybody has four chains and float32 (JAX's default). NUTS warms up for 500 draws, by nutpie as long as that chooses;
microcanonical samplers are tuned for as long as each does by default, but blackjax's, which is told of 10,000 steps.
Ours run as under `hmcvi compare`, chains over host devices, and so do blackjax's. NumPyro's default chain method finds
one device and takes chains in turn, so that it takes part with four devices too; its model is written by hand, as its
users do, and ours where the name says so. blackjax and nutpie are given ours. All models have the same log joint, which
is checked. MCLMC is unadjusted: what its step size adds is in no verdict, but in the log likelihood that each note
tells, with its Monte Carlo error.
"""

from __future__ import annotations

import dataclasses
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.infer
from jax import lax
from jax.flatten_util import ravel_pytree
from numpyro.infer.util import initialize_model

from hmcvi.inference import MAMS, MCLMC, NUTS, FitError, fit
from hmcvi.inference.progress import Progress

from .peer_protocol import Ready, serve
from .speed_process import Case, Contestant, Stopwatch, keep_programs
from .speed_reference import Draws, Probes, until_converged

__all__ = ["CONTESTANTS", "cases"]

CHAINS, WARMUP, THINNING = 4, 500, 20

SHARES = 8, 2, 1
"""What the most draws are divided by, call by call, where a sampler of ours is judged after its call."""


def cases(quick: bool) -> list[Case]:
    """Return the three cases."""
    module, cap = "speed_nuts", 10.0 if quick else 900.0
    contestants = (
        Contestant("hmcvi nuts", module, ours=True),
        Contestant("hmcvi mclmc", module, ours=True, needs="blackjax"),
        Contestant("hmcvi mams", module, ours=True, needs="blackjax"),
        Contestant("numpyro nuts", module),
        Contestant("numpyro, our model", module),
        Contestant("numpyro, 4 devices", module),
        Contestant("blackjax nuts", module, needs="blackjax"),
        Contestant("blackjax mclmc", module, needs="blackjax"),
        Contestant("nutpie", module, needs="nutpie"),
    )
    sizes = {"cap": cap, "block": 50, "most": 600 if quick else 4000}
    warmup = 100 if quick else WARMUP
    what = {"digits": ("digits", "mlp"), "diabetes": ("diabetes", "mlp"), "gp": ("diabetes", "gp")}
    return [
        Case(
            f"nuts-{name}",
            f"until a reference has converged: {data}, {model}{', 60 rows' if quick else ''}; cap {cap:,.0f} s",
            "s",
            contestants,
            {"data": data, "model": model, "rows": 60 if quick else None, "warmup": warmup, **sizes},
            limit=10 * cap + 600,  # nutpie's calls that grow by a quarter draw five times the last, and all warm up
        )
        for name, (data, model) in what.items()
    ]


class Laps(Progress):
    """Writes down when the driver of a fit said that so many draws of each chain were made."""

    def __init__(self, watch: Stopwatch) -> None:
        super().__init__("speed", None)
        self._watch = watch
        self.laps: list[tuple[int, float]] = [(0, 0.0)]

    def update(self, done: int, total: int, unit: str, detail: str) -> None:
        """See `Progress.update`."""
        self.laps.append((done, self._watch.seconds))


def hmcvi(
    method: Any, num_warmup: int, laps_of_warmup: int, probes: Probes, *, cap: float, block: int, most: int
) -> Ready:
    """Return a sampler of ours.

    Arguments:
        method: its class.
        num_warmup: what it is given for its warm-up.
        laps_of_warmup: how many of the draws that its driver counts are warm-up.
        probes: what is judged.
        cap: see `until_converged`, as the rest.
    """

    def run(number: int) -> dict[str, Any]:
        drawn = 0

        def blocks(num_draws: int) -> Iterator[tuple[float, Mapping[str, np.ndarray]]]:
            nonlocal drawn
            watch = Stopwatch()
            laps = Laps(watch)
            asked = method(num_warmup=num_warmup, num_draws=num_draws, num_chains=CHAINS, max_seconds=cap)
            try:
                result = fit(jax.random.key(number), probes.model, probes.x, probes.y, asked, progress=laps)
            except FitError:  # the cap came within the first draws
                return
            finally:
                compiled.append(watch.stop().compile_seconds)
            if result.ended_in_warmup is not None:
                return
            drawn = result.num_draws
            done, seconds = np.array(laps.laps).T  # rising, so that the first lap with that many draws is found
            for first in range(0, result.num_draws - block + 1, block):
                part = {name: draws[:, first : first + block] for name, draws in result.draws.items()}
                lap = int(np.searchsorted(done, laps_of_warmup + first + block))
                yield float(seconds[min(lap, len(seconds) - 1)]), probes.values(part)

        compiled: list[float] = []  # by the first call, before programs are in the cache
        answer: dict[str, Any] = {}
        for share in SHARES:
            drawn = 0
            answer = until_converged(blocks(most // share), cap, most // share)
            if "seconds" in answer or drawn < most // share:
                break
        return answer | {"compile": compiled[0]}

    return Ready(run, about=f"{jax.local_device_count()} host devices, our model")


def numpyro_nuts(
    model: Callable[..., Any], whose: str, probes: Probes, *, warmup: int, cap: float, block: int, most: int
) -> Ready:
    """Return `MCMC(NUTS(model))`, its default initial values and chain method; `whose` says which model it is."""

    def run(number: int) -> dict[str, Any]:
        compiled: list[float] = []

        def blocks() -> Iterator[tuple[float, Mapping[str, np.ndarray]]]:
            kernel = numpyro.infer.NUTS(model)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of one device
                mcmc = numpyro.infer.MCMC(
                    kernel, num_warmup=warmup, num_samples=block, num_chains=CHAINS, progress_bar=False
                )
            watch = Stopwatch()
            mcmc.warmup(jax.random.key(number), probes.x, probes.y)
            jax.block_until_ready(mcmc.post_warmup_state.z)
            seconds = watch.stop().seconds
            compiled.append(watch.compile_seconds)
            while True:
                watch = Stopwatch()
                mcmc.run(mcmc.post_warmup_state.rng_key, probes.x, probes.y)
                draws = jax.block_until_ready(mcmc.get_samples(group_by_chain=True))
                seconds += watch.stop().seconds
                compiled.append(watch.compile_seconds)
                mcmc.post_warmup_state = mcmc.last_state
                yield seconds, probes.values(draws)

        answer = until_converged(blocks(), cap, most)
        return answer | {"compile": sum(compiled[:2])}  # NumPyro compiles each call anew

    devices = jax.local_device_count()
    how = f"parallel over {devices} devices" if devices > 1 else "one device: chains in turn"
    return Ready(run, about=f"{how}, {whose}")


class Density:
    """The model's log density as a function of its unconstrained sites, for samplers that take such a function."""

    def __init__(self, probes: Probes, number: int) -> None:
        keys = jax.random.split(jax.random.key(number), CHAINS)
        found = initialize_model(keys, probes.model, model_args=(probes.x, probes.y))
        self.positions: Any = found.param_info.z
        self._potential, self._constrain = found.potential_fn, found.postprocess_fn

    def __call__(self, z: Any) -> jax.Array:
        """Return the log density."""
        return -self._potential(z)

    def constrained(self, z: Any) -> Draws:
        """Return draws (chain, draw, ...) in the constrained space."""
        found: Draws = jax.jit(jax.vmap(jax.vmap(self._constrain)))(z)
        return {name: found[name] for name in z}


def blackjax_nuts(probes: Probes, *, warmup: int, cap: float, block: int, most: int) -> Ready:
    """Return blackjax's NUTS after its window adaptation."""
    import blackjax

    def prepare(density: Density) -> tuple[Callable[..., Any], Callable[..., Any]]:
        adapt = blackjax.window_adaptation(blackjax.nuts, density)

        def begin(key: jax.Array, position: Any) -> Any:
            (state, parameters), _ = adapt.run(key, position, warmup)
            return state, parameters

        def advance(key: jax.Array, begun: Any) -> Any:
            state, parameters = begun
            kernel = blackjax.nuts(density, **parameters).step

            def step(state: Any, key: jax.Array) -> tuple[Any, Any]:
                following, _ = kernel(key, state)
                return following, following

            state, states = lax.scan(step, state, jax.random.split(key, block))
            return (state, parameters), states.position

        return begin, advance

    return _by_pmap(prepare, probes, cap, most)


def blackjax_mclmc(probes: Probes, *, warmup: int, cap: float, block: int, most: int) -> Ready:
    """Return blackjax's MCLMC after its own tuning, one draw of twenty kept."""
    import blackjax

    def prepare(density: Density) -> tuple[Callable[..., Any], Callable[..., Any]]:
        kernel = blackjax.mcmc.mclmc.build_kernel()

        def begin(key: jax.Array, position: Any) -> Any:
            key_init, key_tuning = jax.random.split(key)
            state = blackjax.mclmc.init(position, density, key_init)
            steps = warmup * THINNING  # said to come: by default three tenths as many tune
            state, parameters, _ = blackjax.mclmc_find_L_and_step_size(
                kernel, steps, state, key_tuning, logdensity_fn=density
            )
            return state, parameters

        def advance(key: jax.Array, begun: Any) -> Any:
            state, (length, step_size, inverse_mass_matrix) = begun

            def step(state: Any, key: jax.Array) -> Any:
                return kernel(key, state, density, inverse_mass_matrix, length, step_size)[0], None

            def draw(state: Any, key: jax.Array) -> Any:
                state, _ = lax.scan(step, state, jax.random.split(key, THINNING))
                return state, state.position

            state, positions = lax.scan(draw, state, jax.random.split(key, block))
            return (state, begun[1]), positions

        return begin, advance

    return _by_pmap(prepare, probes, cap, most)


def _by_pmap(prepare: Callable[[Density], tuple[Any, Any]], probes: Probes, cap: float, most: int) -> Ready:
    """Return a sampler that is two functions of one chain: (key, position) -> begun, and (key, begun) -> a block.

    Chains go by `pmap`, as blackjax's guide to multiple chains has it on CPUs: by `vmap` all wait for the longest
    trajectory.
    """

    def run(number: int) -> dict[str, Any]:
        compiled: list[float] = []

        def blocks() -> Iterator[tuple[float, Mapping[str, np.ndarray]]]:
            density = Density(probes, number)
            begin, advance = (jax.pmap(function) for function in prepare(density))
            key_begin, key = jax.random.split(jax.random.key(number))
            watch = Stopwatch()
            begun = jax.block_until_ready(begin(jax.random.split(key_begin, CHAINS), density.positions))
            seconds = watch.stop().seconds
            compiled.append(watch.compile_seconds)
            while True:
                key, key_block = jax.random.split(key)
                watch = Stopwatch()
                begun, z = jax.block_until_ready(advance(jax.random.split(key_block, CHAINS), begun))
                seconds += watch.stop().seconds
                compiled.append(watch.compile_seconds)
                yield seconds, probes.values(density.constrained(jax.device_put(z, jax.devices()[0])))

        answer = until_converged(blocks(), cap, most)
        return answer | {"compile": sum(compiled[:2])}

    return Ready(run, about=f"{jax.local_device_count()} host devices, our model")


def nutpie(probes: Probes, *, cap: float, block: int, most: int, **_: Any) -> Ready:
    """Return nutpie over the compiled log density and gradient, its own warm-up and as many threads as it takes."""
    from nutpie import sample
    from nutpie.compiled_pyfunc import from_pyfunc

    def run(number: int) -> dict[str, Any]:
        density = Density(probes, number)
        flat, unravel = ravel_pytree(jax.tree.map(lambda leaf: leaf[0], density.positions))
        compiled = jax.jit(jax.value_and_grad(lambda flat: density(unravel(flat))))
        watch = Stopwatch()
        jax.block_until_ready(compiled(flat))
        watch.stop()

        def log_density(z: np.ndarray) -> tuple[float, np.ndarray]:
            value, gradient = compiled(z.astype(np.float32))
            return float(value), np.asarray(gradient, dtype=np.float64)

        size = flat.size
        start = np.asarray(jax.vmap(lambda z: ravel_pytree(z)[0])(density.positions), dtype=np.float64)
        model = from_pyfunc(
            size,
            lambda: log_density,
            lambda seed1, seed2, chain: lambda z: {"z": z},
            [np.dtype("float64")],
            [(size,)],
            ["z"],
            make_initial_point_fn=lambda seed: start[seed % CHAINS],
        )

        def blocks() -> Iterator[tuple[float, Mapping[str, np.ndarray]]]:
            length, seconds = block, 0.0
            while length <= most and seconds <= cap:
                begun = time.perf_counter()
                options = {"draws": length, "chains": CHAINS, "seed": number, "progress_bar": False}
                trace = sample(model, save_warmup=False, **options)
                seconds = time.perf_counter() - begun
                z = jax.vmap(jax.vmap(unravel))(jnp.asarray(trace.posterior["z"].values, dtype=jnp.float32))
                yield seconds, probes.values(density.constrained(z))
                length = min(-(-length * 5 // 4), most) if length < most else most + 1

        return until_converged(blocks(), cap, most, anew=True) | {"compile": watch.compile_seconds}

    return Ready(run, about="a thread for each core, our model; each gradient goes through a function of Python's")


def _made(make: Callable[..., Ready], devices: int, by_hand: bool = False) -> Callable[..., Ready]:
    """Return what makes a contestant from the sizes of a case, in a process with so many host devices.

    Arguments:
        make: (probes, sizes) -> the contestant.
        devices: of JAX.
        by_hand: whether its model is the one written by hand.
    """

    def made(*, data: str, model: str, rows: int | None, **sizes: Any) -> Ready:
        if devices > 1:
            jax.config.update("jax_num_cpu_devices", devices)
        keep_programs()  # NumPyro compiles each call anew, and so does what judges
        probes = Probes(data, model, rows)
        ready = make(probes=probes, **sizes)
        return dataclasses.replace(ready, facts=probes.facts(probes.by_hand if by_hand else probes.model))

    return made


def _our_nuts(*, probes: Probes, warmup: int, **sizes: Any) -> Ready:
    return hmcvi(NUTS, warmup, warmup, probes, **sizes)


def _our_mclmc(*, probes: Probes, warmup: int, **sizes: Any) -> Ready:
    return hmcvi(MCLMC, 8 * warmup, 0, probes, **sizes)  # 4,000 steps, its default, ahead of all draws


def _our_mams(*, probes: Probes, warmup: int, **sizes: Any) -> Ready:
    return hmcvi(MAMS, MAMS().num_warmup, 0, probes, **sizes)


def _numpyro_by_hand(*, probes: Probes, **sizes: Any) -> Ready:
    return numpyro_nuts(probes.by_hand, "a model written by hand", probes, **sizes)


def _numpyro_our_model(*, probes: Probes, **sizes: Any) -> Ready:
    return numpyro_nuts(probes.model, "our model", probes, **sizes)


CONTESTANTS: dict[str, Callable[..., Ready]] = {
    "hmcvi nuts": _made(_our_nuts, CHAINS),
    "hmcvi mclmc": _made(_our_mclmc, CHAINS),
    "hmcvi mams": _made(_our_mams, CHAINS),
    "numpyro nuts": _made(_numpyro_by_hand, 1, by_hand=True),
    "numpyro, our model": _made(_numpyro_our_model, 1),
    "numpyro, 4 devices": _made(_numpyro_by_hand, CHAINS, by_hand=True),
    "blackjax nuts": _made(blackjax_nuts, CHAINS),
    "blackjax mclmc": _made(blackjax_mclmc, CHAINS),
    "nutpie": _made(nutpie, 1),
}

if __name__ == "__main__":
    serve(CONTESTANTS)
