"""How fits speed up over host devices: strong scaling (the same work) and weak (work that grows with the devices).

    python -m hmcvi.benchmarks.scaling            1, 2 and 4 host devices, five rounds
    python -m hmcvi.benchmarks.scaling --quick    to see that all works

Every number of devices is a process of its own, and the numbers take turns within a round: what else the machine does
then falls on all of them. Ratios are taken within a round; their median and range are told.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hmcvi.inference.provenance import made_with, processor, visible_cores

from . import checksums
from .arguments import path, whole

__all__ = ["Size", "main", "measure", "speed_ups"]


@dataclass(frozen=True)
class Size:
    """How much is done.

    Attributes:
        rows: training rows of strong scaling, and those of each device of weak scaling.
        features: their features.
        width: hidden units.
        draws: draws of each chain that are timed.
        steps: optimiser steps that are timed.
        batch_size: rows of a minibatch.
    """

    rows: int = 4096
    features: int = 64
    width: int = 32
    draws: int = 20
    steps: int = 400
    batch_size: int = 512


QUICK = Size(rows=64, features=2, width=2, draws=4, steps=20, batch_size=16)

CHAINS = 4
"""Chains of strong scaling."""


def measure(num_devices: int, size: Size) -> list[dict[str, Any]]:
    """Return the rate of each case on this many devices: gradients of so many rows in a second, compile time apart."""
    import jax

    from hmcvi.inference import HMC, BayesByBackprop, fit, fit_mesh
    from hmcvi.models import mlp

    devices = jax.devices()[:num_devices]
    random = np.random.default_rng(0)
    x = random.normal(size=(size.rows * num_devices, size.features)).astype(np.float32)
    y = (x[:, 0] > 0).astype(np.int32)
    model = partial(mlp, widths=(size.width,), num_classes=2)
    # trajectories of 15 steps, so that every number of devices does the same work
    hmc = partial(HMC, num_warmup=size.draws, num_draws=size.draws, trajectory_length=1e3, max_num_steps=15)
    bbb = BayesByBackprop(num_steps=size.steps, batch_size=size.batch_size, num_draws=10, schedule="cosine")
    weak_bbb = BayesByBackprop(
        num_steps=size.steps, batch_size=size.batch_size * num_devices, num_draws=10, schedule="cosine"
    )
    cases: dict[tuple[str, str], tuple[Any, int, tuple[int, int]]] = {
        ("hmc, chains", "strong"): (hmc(num_chains=CHAINS), size.rows, (num_devices, 1)),
        ("hmc, chains", "weak"): (hmc(num_chains=num_devices), size.rows, (num_devices, 1)),
        ("hmc, rows", "strong"): (hmc(num_chains=1), size.rows, (1, num_devices)),
        ("hmc, rows", "weak"): (hmc(num_chains=1), size.rows * num_devices, (1, num_devices)),
        ("bbb, rows", "strong"): (bbb, size.rows, (1, num_devices)),
        ("bbb, rows", "weak"): (weak_bbb, size.rows * num_devices, (1, num_devices)),
    }
    rates = []
    for (case, kind), (method, rows, shape) in cases.items():
        mesh = fit_mesh(*shape, devices)
        result = fit(jax.random.key(0), model, x[:rows], y[:rows], method, mesh=mesh)
        rows_read = result.num_gradients * result.rows_per_gradient
        rates.append(
            {"case": case, "kind": kind, "devices": num_devices, "rows a second": rows_read / result.run_seconds}
        )
    return rates


def speed_ups(rates: pd.DataFrame) -> pd.DataFrame:
    """Return the median and the range over rounds of each case's rate, over that of the fewest devices of its round.

    Rates are rows that gradients read in a second, in strong and weak scaling alike: the ideal is the ratio of devices.

    Arguments:
        rates: "round", "case", "kind", "devices" and "rows a second", a row each.

    Example:
        >>> rates = pd.DataFrame({"round": [0, 0, 1, 1], "case": "a", "kind": "weak", "devices": [1, 2, 1, 2],
        ...                       "rows a second": [10.0, 18.0, 5.0, 10.0]})
        >>> speed_ups(rates)[["devices", "speed-up", "lowest", "highest", "efficiency"]].values.tolist()
        [[1.0, 1.0, 1.0, 1.0, 1.0], [2.0, 1.9, 1.8, 2.0, 0.95]]
    """
    fewest = rates["devices"].min()
    by = ["round", "case", "kind"]
    base = rates[rates["devices"] == fewest].set_index(by)["rows a second"]
    ratio = rates.set_index([*by, "devices"])["rows a second"].div(base)
    over_rounds = ratio.groupby(["case", "kind", "devices"], sort=False)
    table = pd.DataFrame({"speed-up": over_rounds.median(), "lowest": over_rounds.min(), "highest": over_rounds.max()})
    table = table.reset_index()
    table["efficiency"] = table["speed-up"] * fewest / table["devices"]
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the table and write it with what it was measured on."""
    parser = argparse.ArgumentParser(prog="python -m hmcvi.benchmarks.scaling", description=__doc__.split("\n\n")[0])
    parser.add_argument("--devices", nargs="+", type=whole, default=[1, 2, 4], metavar="N", help="Default: 1 2 4")
    parser.add_argument("--rounds", type=whole, default=5, metavar="N", help="Default: %(default)s")
    parser.add_argument("--quick", action="store_true", help="one round of 1 and 2 devices and next to no work")
    parser.add_argument("--out", type=path, default=Path("runs/scaling"), metavar="FOLDER", help="Default: %(default)s")
    parser.add_argument("--one", type=whole, help=argparse.SUPPRESS)  # what the processes of a round are told
    options = parser.parse_args(arguments)
    if min(*options.devices, options.rounds, options.one or 1) < 1:
        parser.error("devices and rounds are whole numbers of at least 1")
    size = QUICK if options.quick else Size()
    if options.one is not None:
        import jax

        jax.config.update("jax_num_cpu_devices", options.one)
        print(json.dumps(measure(options.one, size)))
        return
    devices, rounds = ([1, 2], 1) if options.quick else (options.devices, options.rounds)
    found = []
    for place in range(rounds):
        for number in devices if place % 2 == 0 else devices[::-1]:
            command = [sys.executable, "-m", "hmcvi.benchmarks.scaling", "--one", str(number)]
            run = subprocess.run(
                [*command, *(["--quick"] if options.quick else [])], stdout=subprocess.PIPE, text=True, check=True
            )
            found += [{"round": place, **rate} for rate in json.loads(run.stdout.splitlines()[-1])]
            print(f"round {place + 1} of {rounds}: {number} devices measured", file=sys.stderr)
    rates = pd.DataFrame(found)
    table = speed_ups(rates)
    print(table.to_string(index=False, float_format="{:.2f}".format))
    options.out.mkdir(parents=True, exist_ok=True)
    checksums.write_summed(options.out / "rates.csv", rates.to_csv(index=False))
    checksums.write_summed(options.out / "scaling.csv", table.to_csv(index=False))
    conditions = {**made_with(), "processor": processor(), "cores": visible_cores(), "load": os.getloadavg()}
    conditions |= {"rounds": rounds, "size": size.__dict__}
    checksums.write_summed(options.out / "conditions.json", json.dumps(conditions, indent=2) + "\n")


if __name__ == "__main__":
    main()
