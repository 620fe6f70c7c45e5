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
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hmcvi.inference.provenance import made_with, processor, visible_cores

from . import checksums
from .arguments import Parser, path, whole
from .reproduce import where

__all__ = ["Size", "main", "measure", "page", "speed_ups"]


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

DEVICES, ROUNDS = (1, 2, 4), 5

CHAINS = 4
"""Chains of strong scaling."""

COLUMNS = ("round", "devices", "case", "kind", "rows a second", "failed")
"""Of rates.csv; "failed" says in one row why a process has no rates."""

COMMAND = (sys.executable, "-m", "hmcvi.benchmarks.scaling", "--one")
"""A process that measures every case on as many devices as follow."""


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

    A round in which the fewest devices failed has no ratios.

    Rates are rows that gradients read in a second, in strong and weak scaling alike: the ideal is the ratio of devices.

    Arguments:
        rates: "round", "case", "kind", "devices" and "rows a second", a row each.

    Example:
        >>> rates = pd.DataFrame({"round": [0, 0, 1, 1], "case": "a", "kind": "weak", "devices": [1, 2, 1, 2],
        ...                       "rows a second": [10.0, 18.0, 5.0, 10.0]})
        >>> speed_ups(rates)[["devices", "speed-up", "lowest", "highest", "efficiency"]].values.tolist()
        [[1.0, 1.0, 1.0, 1.0, 1.0], [2.0, 1.9, 1.8, 2.0, 0.95]]
    """
    if rates.empty:
        return pd.DataFrame(columns=["case", "kind", "devices", "speed-up", "lowest", "highest", "efficiency"])
    fewest = rates["devices"].min()
    by = ["round", "case", "kind"]
    base = rates[rates["devices"] == fewest].set_index(by)["rows a second"]
    ratio = rates.set_index([*by, "devices"])["rows a second"].div(base).dropna()
    over_rounds = ratio.groupby(["case", "kind", "devices"], sort=False)
    table = pd.DataFrame({"speed-up": over_rounds.median(), "lowest": over_rounds.min(), "highest": over_rounds.max()})
    table = table.reset_index()
    table["efficiency"] = table["speed-up"] * fewest / table["devices"]
    return table


def main(arguments: Sequence[str] | None = None, *, command: Sequence[str] = COMMAND) -> int:
    """Measure, print the table and write it with what it was measured on, as far as it has come.

    Arguments:
        arguments: of the command line.
        command: what is started, with the number of devices behind it.

    Returns:
        The exit status: 1 where a process failed, which its row says.
    """
    options = _options(arguments)
    size = QUICK if options.quick else Size()
    if options.one is not None:
        import jax

        jax.config.update("jax_num_cpu_devices", options.one)
        print(json.dumps(measure(options.one, size)))
        return 0
    options.out.mkdir(parents=True, exist_ok=True)
    found: list[dict[str, Any]] = []
    table, load = pd.DataFrame(), os.getloadavg()[0]
    for place in range(options.rounds):
        for number in options.devices if place % 2 == 0 else options.devices[::-1]:
            rates = _run([*command, str(number), *(["--quick"] if options.quick else [])])
            found += [{"round": place, "devices": number, **rate} for rate in rates]
            said = f"failed: {rates[0]['failed']}" if rates[0]["failed"] else "measured"
            print(f"round {place + 1} of {options.rounds}: {number} devices {said}", file=sys.stderr)
            table = _write(options.out, found, options.rounds, size, load)
    failed = any(rate["failed"] for rate in found)
    whole_run = not options.quick and set(DEVICES) <= set(options.devices) and options.rounds >= ROUNDS
    if options.publish is not None and whole_run and not failed:
        options.publish.mkdir(parents=True, exist_ok=True)
        for name in ("scaling.md", "scaling.csv", "rates.csv", "conditions.json"):
            shutil.copyfile(options.out / name, options.publish / name)
    elif options.publish is not None:
        wanted = f"{ROUNDS} rounds on {', '.join(map(str, DEVICES))} devices, none of which fails"
        print(f"{options.publish} is left as it is: published are {wanted}", file=sys.stderr)
    print("nothing was measured" if table.empty else table.to_string(index=False, float_format="{:.2f}".format))
    return int(failed)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(prog="python -m hmcvi.benchmarks.scaling", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--devices", nargs="+", type=whole, metavar="N", help="Default: 1 2 4; with --quick: 1 2")
    parser.add_argument("--rounds", type=whole, metavar="N", help="Default: 5; with --quick: 1")
    parser.add_argument("--quick", action="store_true", help="next to no work: to see that all works")
    parser.add_argument("--out", type=path, default=Path("runs/scaling"), metavar="FOLDER", help="Default: %(default)s")
    parser.add_argument(
        "--publish", type=path, metavar="FOLDER", help="copy table and page there, where all was measured"
    )
    parser.add_argument("--one", type=whole, help=argparse.SUPPRESS)  # what the processes of a round are told
    options = parser.parse_args(arguments)
    options.devices = options.devices or list(DEVICES[:2] if options.quick else DEVICES)
    options.rounds = (1 if options.quick else ROUNDS) if options.rounds is None else options.rounds
    if options.one is not None:
        options.devices = [options.one]
    if min(*options.devices, options.rounds) < 1:
        parser.error("devices and rounds are whole numbers of at least 1")
    if len(set(options.devices)) < len(options.devices):
        parser.error(f"--devices {' '.join(map(str, options.devices))} has a number twice: give each once")
    batch_size = (QUICK if options.quick else Size()).batch_size
    for number in options.devices:
        for count, what in ((CHAINS, "chains"), (batch_size, "rows of a minibatch")):
            if count % number:
                parser.error(f"{count} {what} cannot be divided over {number} devices: give divisors of {count}")
    return options


def _run(command: Sequence[str]) -> list[dict[str, Any]]:
    """Run one process and return its rates, or one row that says in "failed" why it has none."""
    run = subprocess.run(command, capture_output=True, text=True)
    try:
        rates = json.loads(run.stdout.splitlines()[-1]) if run.returncode == 0 else []
    except (IndexError, ValueError):
        rates = []
    if rates:
        return [{**rate, "failed": ""} for rate in rates]
    last = "".join(run.stderr.strip().splitlines()[-1:])
    return [{"failed": f"ended with status {run.returncode}: {last or 'it said nothing'}"}]


def _write(folder: Path, found: list[dict[str, Any]], rounds: int, size: Size, load: float) -> pd.DataFrame:
    """Write what was found so far, and return its table; load is the machine's before the first round."""
    rates = pd.DataFrame(found, columns=list(COLUMNS))
    table = speed_ups(rates[rates["failed"] == ""])
    checksums.write_summed(folder / "rates.csv", rates.to_csv(index=False))
    checksums.write_summed(folder / "scaling.csv", table.to_csv(index=False))
    conditions = {**made_with(), "processor": processor(), "cores": visible_cores(), "load": load}
    conditions |= {"rounds": rounds, "rounds_done": rates["round"].nunique(), "size": size.__dict__}
    checksums.write_summed(folder / "conditions.json", json.dumps(conditions, indent=2) + "\n")
    checksums.write_summed(folder / "scaling.md", page(table, rates[rates["failed"] != ""], conditions))
    return table


def page(table: pd.DataFrame, failures: pd.DataFrame, conditions: Mapping[str, Any]) -> str:
    """Return scaling.md: a row for each case, a column for each number of devices, what failed, and the conditions."""
    devices = sorted(set(table["devices"]))
    size = conditions["size"]
    lines = [
        "# Scaling over host devices",
        "",
        "Rows that gradients read in a second, over those on the fewest devices of the same round: medians of "
        f"{conditions['rounds_done']} rounds (lowest to highest), compiling apart. Strong scaling divides the same "
        "work, weak scaling gives every device as much as one had; the ideal is the number of devices in both, as far "
        "as there are cores for them.",
        "",
        f"| | {' | '.join(f'{number} device' + 's' * (number > 1) for number in devices)} |",
        f"|---|{'---:|' * len(devices)}",
    ]
    for (case, kind), rows in table.groupby(["case", "kind"], sort=False):
        cells = [f"{row['speed-up']:.2f} ({row['lowest']:.2f}–{row['highest']:.2f})" for _, row in rows.iterrows()]
        lines.append(f"| {case}, {kind} | {' | '.join(cells)} |")
    versions = ", ".join(f"{name} {version}" for name, version in conditions["versions"].items())
    return "\n".join(
        [
            *lines,
            "",
            *(
                f"- round {row['round'] + 1}, {row['devices']} devices: {row['failed']}"
                for _, row in failures.iterrows()
            ),
            f"- an MLP {size['features']}-{size['width']}-2, {size['rows']:,} rows (of each device in weak scaling); "
            f"hmc: {CHAINS} chains (weak: one a device) or one over divided rows, {2 * size['draws']} draws of 15 "
            f"steps; bbb: minibatches of {size['batch_size']} rows (weak: of each device), {size['steps']} steps",
            f"- measured {time.strftime('%Y-%m-%d')} on {where()}, {conditions['cores']} cores, load "
            f"{conditions['load']:.1f} before the first round, with {versions}",
            "- `make scaling` measures anew; every round is in rates.csv. [The plan](plan.md) for 8 GPUs and 64 hosts.",
            "",
        ]
    )


if __name__ == "__main__":
    raise SystemExit(main())
