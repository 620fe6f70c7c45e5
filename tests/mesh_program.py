"""Fits over a mesh in processes of their own, as the number of devices is fixed once JAX has started.

Run with one argument, a request in JSON: `devices` of each process, the `cases` by name, the file `out`; of several
processes also `coordinator`, `processes` and `process`.
"""

from __future__ import annotations

import json
import sys
from functools import partial
from typing import Any

import jax
import numpy as np
import optax

ROWS = 41  # no multiple of 2 or 4: parts differ by a row, and one stands for none

# as where one device meets the closed form: a constant rate of 0.01 leaves 5 % in the variances
RATE = optax.exponential_decay(0.03, 10_000, 1e-3)

METHODS: dict[str, dict[str, Any]] = {
    "nuts": {"num_warmup": 400, "num_draws": 600, "num_chains": 4},
    "mclmc": {"num_warmup": 2000, "num_draws": 400, "num_chains": 4},
    "svi": {"num_steps": 10_000, "num_draws": 40_000, "num_particles": 4, "learning_rate": RATE},
    "bbb": {"num_steps": 10_000, "num_draws": 40_000, "num_particles": 4, "learning_rate": RATE},
    "map": {"num_steps": 300},
    # steps too small to move anything: the losses are those of the start
    "map, standing still": {"num_steps": 120, "batch_size": 8, "learning_rate": 1e-12},
}


def main(request: dict[str, Any]) -> None:
    """Make the fits, and write what each process found of them."""
    jax.config.update("jax_num_cpu_devices", request["devices"])
    if request.get("processes", 1) > 1:
        jax.config.update("jax_enable_preemption_service", False)
        jax.distributed.initialize(
            request["coordinator"], request["processes"], request["process"], heartbeat_timeout_seconds=20
        )
    from hmcvi.inference import MAP, MCLMC, NUTS, SVI, BayesByBackprop, fit
    from hmcvi.inference.mesh import fit_mesh, shard_rows

    from .targets import conjugate_regression, linear_regression

    makers = {"nuts": NUTS, "mclmc": MCLMC, "svi": SVI, "bbb": BayesByBackprop, "map": MAP}
    found: dict[str, np.ndarray] = {}
    for name, case in request["cases"].items():
        target = conjugate_regression(rows=case.get("rows", ROWS))
        x, y = np.asarray(target.x, np.float32), np.asarray(target.y, np.float32)
        if case.get("differ"):
            x = x + jax.process_index()
        mesh, own = None, case.get("own_rows", False)
        if case["mesh"] is not None:
            mesh = fit_mesh(*case["mesh"], rows_across_processes=case.get("across", False))
            if own:  # of unequal parts
                x, y = (part[: ROWS // 3] if jax.process_index() == 0 else part[ROWS // 3 :] for part in (x, y))
            if not case.get("differ"):
                spread = shard_rows(mesh, x, y, own_rows=own)
                held = [np.asarray(shard.data) for shard in spread.x.addressable_shards]
                found[f"{name}: rows on devices"] = np.concatenate(held)
                found[f"{name}: number of rows"] = np.asarray(spread.num_rows)
            if case.get("density"):
                found |= {f"{name}: {what}": value for what, value in density(spread, linear_regression).items()}
                continue
        method = makers[case["method"].partition(",")[0]](**(METHODS[case["method"]] | case.get("options", {})))
        checkpoint = case.get("checkpoint")
        try:
            result = fit(
                jax.random.key(0), linear_regression, x, y, method, mesh=mesh, own_rows=own, checkpoint=checkpoint
            )
        except ValueError as error:
            found[f"{name}: refused"] = np.asarray(str(error))
            continue
        found[f"{name}: draws"] = np.asarray(result.draws["out.kernel"], np.float64)[..., 0]
        found[f"{name}: passes"] = np.asarray(result.num_passes)
        found[f"{name}: x of the fit"] = np.asarray(result.x)
        if result.losses is not None:
            found[f"{name}: losses"] = result.losses
    np.savez(f"{request['out']}-{request.get('process', 0)}.npz", **found)


def density(spread: Any, model: Any) -> dict[str, np.ndarray]:
    """Return minus the log joint of all rows and its gradient, as a program over the mesh finds them in each group."""
    from numpyro.infer.util import potential_energy

    def one(z: Any, x: Any, y: Any) -> Any:
        whole = spread.of_all_rows(spread.marked(model))
        return jax.value_and_grad(partial(potential_energy, whole, (x, y), {}))(z)

    groups = spread.num_chain_shards
    z = spread.place_chains({"out.kernel": np.arange(3 * groups, dtype=np.float32).reshape(groups, 3, 1) / 10})
    program = spread.over_chains(lambda z, x, y: jax.vmap(one, (0, None, None))(z, x, y))
    value, gradient = spread.on_host(jax.jit(program)(z, spread.x, spread.y))
    return {"z": spread.on_host(z)["out.kernel"], "value": value, "gradient": gradient["out.kernel"]}


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
