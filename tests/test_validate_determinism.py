"""What the README promises of repeated runs: the same bytes in a fresh process, one law for every chain method."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from .run_folders import differences

pytestmark = pytest.mark.validate

RUNS = {
    "mlp": "--data wine --methods nuts hmc mclmc mams svi svi-full laplace bbb bbb-local bbb-shared map ensemble",
    "mlp, regression": "--data wave --methods nuts svi bbb",
    "cnn": "--data digits --model cnn --rows 60 --test-rows 60 --methods nuts svi bbb",
    "gp": "--data wave --model gp --methods nuts svi bbb",
}
"""Every method and every model, at the small budgets of --quick."""


@pytest.mark.parametrize("name", RUNS)
def test_two_fresh_processes_write_the_same_bytes(name: str, tmp_path: Path, record: Any) -> None:
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        command = [sys.executable, "-m", "hmcvi.benchmarks.cli", "compare", *RUNS[name].split(), "--ood"]
        done = subprocess.run(
            [*command, "--quick", "--no-figures", "--quiet", "--out", str(folder)], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    compared, differ = differences(*folders)
    assert compared > 10
    record(
        "Determinism: two fresh processes", f"{name}: arrays and tables that differ, of {compared}", len(differ), high=1
    )


CHAINS = """
import json, sys
import jax
jax.config.update("jax_num_cpu_devices", 2)
import numpy as np
from functools import partial
from numpyro.diagnostics import effective_sample_size
from hmcvi.benchmarks.datasets import load
from hmcvi.inference import NUTS, fit, predict_draws
from hmcvi.models import mlp

data = load("wave", seed=0)
model = partial(mlp, widths=(5,), likelihood="normal")
found = {}
for chain_method in ("parallel", "sequential", "vectorized"):
    method = NUTS(num_warmup=500, num_draws=1000, num_chains=4, chain_method=chain_method)
    result = fit(jax.random.key(0), model, data.x_train, data.y_train, method)
    assert result.chain_method == chain_method
    means = predict_draws(result, np.linspace(-1.5, 1.5, 9)[:, None])[..., 0].astype(float)  # (chain, draw, row)
    quantities = np.concatenate([means, means**2, np.log(result.draws["noise_scale"])[..., None]], -1)
    ess = np.array([effective_sample_size(quantities[..., i]) for i in range(quantities.shape[-1])])
    error = quantities.std((0, 1)) / np.sqrt(ess)
    found[chain_method] = [quantities.mean((0, 1)).tolist(), error.tolist()]
print(json.dumps(found))
"""


def test_chain_methods_agree_within_their_monte_carlo_errors(record: Any) -> None:
    done = subprocess.run([sys.executable, "-c", CHAINS], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = {name: np.array(pair) for name, pair in json.loads(done.stdout).items()}
    for (one, (mean, error)), (other, (other_mean, other_error)) in itertools.combinations(found.items(), 2):
        z = np.abs(mean - other_mean) / np.hypot(error, other_error)
        what = f"{one} and {other}: largest |z| of {len(z)} moments of a BNN's mean function and noise"
        record("Determinism: chain methods, in Monte Carlo errors", what, z.max(), high=4)
