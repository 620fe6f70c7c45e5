"""Fits over a mesh of host devices: the density is that of all rows to rounding, and posteriors are the exact ones."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from numpyro.diagnostics import effective_sample_size
from numpyro.infer.util import potential_energy

from hmcvi.benchmarks.distributed import Place, find_place, is_lost
from hmcvi.benchmarks.experiment import Experiment
from hmcvi.benchmarks.layout import make_mesh, mesh_shape
from hmcvi.benchmarks.options import UsageError
from hmcvi.benchmarks.raw import DataError
from hmcvi.inference import NUTS, SVI, FitError, Laplace, fit
from hmcvi.inference.mesh import fit_mesh, shard_rows
from hmcvi.inference.spread import MarkedRows
from hmcvi.models import gp

from .mesh_program import ROWS
from .targets import conjugate_regression, linear_regression

ROOT = Path(__file__).resolve().parent.parent
TARGET = conjugate_regression(rows=ROWS)

CASES = {
    "density 2x2": {"mesh": [2, 2], "density": True},
    "density 1x4": {"mesh": [1, 4], "density": True},
    "nuts 2x2": {"mesh": [2, 2], "method": "nuts"},
    "nuts 1x4": {"mesh": [1, 4], "method": "nuts"},
    "mclmc 2x2": {"mesh": [2, 2], "method": "mclmc"},
    "svi 1x4": {"mesh": [1, 4], "method": "svi"},
    "bbb 2x2": {"mesh": [2, 2], "method": "bbb", "options": {"batch_size": 20}},
    "map": {"mesh": None, "method": "map"},
    "map 2x2": {"mesh": [2, 2], "method": "map"},
    "minibatches": {"mesh": None, "method": "map, standing still", "options": {"batch_size": 63}, "rows": 63},
    "minibatches 2x2": {"mesh": [2, 2], "method": "map, standing still", "rows": 63},
    "kept 2x1": {"mesh": [4, 1], "method": "nuts", "options": {"num_warmup": 8, "num_draws": 8}},
    "kept, other mesh": {"mesh": [1, 4], "method": "nuts", "options": {"num_warmup": 8, "num_draws": 8}},
}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What the fits over four host devices found."""
    folder = tmp_path_factory.mktemp("mesh")
    cases = {name: dict(case) for name, case in CASES.items()}
    for name in ("kept 2x1", "kept, other mesh"):
        cases[name]["checkpoint"] = str(folder / "kept.checkpoint")
    request = {"devices": 4, "cases": cases, "out": str(folder / "found")}
    command = [sys.executable, "-m", "tests.mesh_program", json.dumps(request)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900, check=False)
    assert run.returncode == 0, run.stderr
    return dict(np.load(folder / "found-0.npz"))


@pytest.mark.parametrize("name", ["density 2x2", "density 1x4"])
def test_the_density_and_its_gradient_are_those_of_all_rows(found, name):
    x, y = np.asarray(TARGET.x, np.float32), np.asarray(TARGET.y, np.float32)
    for z, value, gradient in zip(*(found[f"{name}: {what}"] for what in ("z", "value", "gradient")), strict=True):
        exact = jax.value_and_grad(partial(potential_energy, linear_regression, (x, y), {}))({"out.kernel": z})
        np.testing.assert_allclose(value, exact[0], rtol=1e-5)
        np.testing.assert_allclose(gradient, exact[1]["out.kernel"], rtol=1e-4, atol=1e-4)


def check_draws(draws: np.ndarray) -> None:
    """Mean and covariance of draws (chain, draw, feature) are the exact ones."""
    centred = draws - TARGET.mean
    moments = {
        "mean": (draws, TARGET.mean),
        "covariance": (centred[..., :, None] * centred[..., None, :], TARGET.covariance),
    }
    for name, (values, exact) in moments.items():
        # 4 Monte Carlo standard errors in 9 numbers: 6e-4 false alarms.
        error = values.std((0, 1)) / np.sqrt(effective_sample_size(values))
        np.testing.assert_array_less(np.abs(values.mean((0, 1)) - exact), 4 * error, err_msg=name)
        assert (error < 0.15 * np.sqrt(np.abs(TARGET.covariance)).max()).all()


@pytest.mark.parametrize("name", ["nuts 2x2", "nuts 1x4", "mclmc 2x2"])
def test_a_sampler_over_a_mesh_draws_from_the_exact_posterior(found, name):
    draws = found[f"{name}: draws"]
    assert len(np.unique(draws[:, 0, 0])) == 4  # no two chains are one
    check_draws(draws)


def check_mean_field(draws: np.ndarray) -> None:
    """Mean and variance of draws (draw, feature) are those of the best factorised Normal."""
    sd = np.sqrt(TARGET.mean_field_variance)
    # as on one device: 4 errors of an optimisation and more, 4e-4 false alarms a method
    assert (np.abs(draws.mean(0) - TARGET.mean) < 0.05 * sd).all()
    np.testing.assert_allclose(draws.var(0), TARGET.mean_field_variance, rtol=0.05)


def test_svi_on_divided_rows_reaches_the_optimal_mean_field(found):
    check_mean_field(found["svi 1x4: draws"][0])


def test_bayes_by_backprop_in_minibatches_of_divided_rows_reaches_it_too(found):
    check_mean_field(found["bbb 2x2: draws"][0])


def test_an_optimisation_without_noise_takes_the_same_way_over_a_mesh(found):
    np.testing.assert_allclose(found["map 2x2: losses"], found["map: losses"], rtol=1e-4)


def test_an_epoch_of_minibatches_over_a_mesh_reads_every_row_once(found):
    # 63 rows and one that stands for none, in minibatches of 8: the mean of an epoch's 8 losses is that of all rows.
    losses, exact = found["minibatches 2x2: losses"], found["minibatches: losses"][0]
    epochs = losses[: len(losses) // 8 * 8].reshape(-1, 8)
    assert len(epochs) >= 5
    np.testing.assert_allclose(epochs.mean(1), exact, rtol=1e-4)
    assert (epochs.std(1) > 0.01 * abs(exact)).all()


def test_each_device_holds_its_part_of_the_rows(found):
    for name, size in (("density 2x2", 21), ("density 1x4", 11)):
        rows = found[f"{name}: rows on devices"]
        assert len(rows) == 4 * size
        assert len(np.unique(rows, axis=0)) == ROWS == found[f"{name}: number of rows"]


def test_a_fit_kept_under_one_mesh_is_not_gone_on_from_under_another(found):
    assert "kept 2x1: draws" in found
    assert "its mesh.chain shards is 4 and 1 was asked for" in str(found["kept, other mesh: refused"])


# --- on one device

ONE = fit_mesh(1, 1, jax.devices()[:1])
X, Y = np.asarray(TARGET.x, np.float32), np.asarray(TARGET.y, np.float32)


def test_a_row_that_stands_for_none_is_left_out_of_the_likelihood_alone():
    spread = shard_rows(ONE, X, Y)
    counts = np.arange(ROWS) < 30
    z = {"out.kernel": np.ones((3, 1), np.float32)}
    marked = potential_energy(spread.marked(linear_regression), (X, MarkedRows(Y, counts)), {}, z)
    assert marked == pytest.approx(float(potential_energy(linear_regression, (X[:30], Y[:30]), {}, z)), rel=1e-5)


@pytest.mark.parametrize(
    ("chains", "rows", "sentence"),
    [
        (2, 1, "takes 2 devices and there are 1"),
        (0, 1, "num_chain_shards=0: give a whole number of at least 1"),
        (1, 1.5, "num_row_shards=1.5: give a whole number"),
        (True, 1, "num_chain_shards=True"),
    ],
)
def test_a_mesh_that_cannot_be_is_refused(chains, rows, sentence):
    with pytest.raises(ValueError, match=sentence):
        fit_mesh(chains, rows, jax.devices()[:1])


def test_whoever_asks_for_more_devices_than_a_cpu_has_is_told_how_to_make_them():
    many = 2 * jax.device_count()
    with pytest.raises(ValueError, match=rf'jax.config.update\("jax_num_cpu_devices", {many}\) makes as many'):
        fit_mesh(1, many)


def test_what_no_mesh_serves_is_refused_before_anything_is_computed():
    with pytest.raises(ValueError, match="laplace cannot be fitted over a mesh"):
        fit(jax.random.key(0), linear_regression, X, Y, Laplace(), mesh=ONE)
    with pytest.raises(ValueError, match="is no mesh with the axes"):
        fit(jax.random.key(0), linear_regression, X, Y, SVI(), mesh=jax.make_mesh((1,), ("row",)))


def test_rows_that_depend_on_each_other_are_not_divided():
    with pytest.raises(ValueError, match=r"depend on each other .*: give a mesh of one row shard"):
        shard_rows(ONE, X, (Y > 0).astype(int)).check_independent(partial(gp, likelihood="categorical", num_classes=2))
    shard_rows(ONE, X, Y).check_independent(linear_regression)


@pytest.mark.parametrize(
    ("batch_size", "sentence"), [(0, "give a number from 1 to 41"), (42, "give a number from 1 to 41")]
)
def test_a_batch_size_beyond_the_rows_is_refused(batch_size, sentence):
    with pytest.raises(ValueError, match=sentence):
        shard_rows(ONE, X, Y).minibatches(linear_regression, batch_size)


def test_chains_that_cannot_be_divided_are_refused():
    division = SimpleNamespace(num_chain_shards=3, num_row_shards=1)
    with pytest.raises(ValueError, match="4 chains of nuts cannot be divided over 3 chain shards"):
        NUTS().check_division(linear_regression, division)


# --- the command's request

NONE = {"coordinator": None, "num_processes": None, "process_id": None, "chains_per_device": None, "shard_rows": None}
SLURM = {"SLURM_NTASKS": "4", "SLURM_PROCID": "3"}
FLAGS = {"coordinator": "node:123", "num_processes": 2, "process_id": 1, "shard_rows": 2}


@pytest.mark.parametrize(
    ("given", "environment", "place"),
    [
        ({}, {}, None),
        ({}, SLURM, None),  # a launcher's copies of a run that asks for no mesh
        ({"shard_rows": 2}, {}, None),
        ({"shard_rows": 2}, SLURM, Place(None, 4, 3)),
        ({"shard_rows": 2, "coordinator": "node:123"}, SLURM, Place("node:123", 4, 3)),
        ({"shard_rows": 2}, {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "0"}, Place(None, 2, 0)),
        (FLAGS, SLURM, Place("node:123", 2, 1)),
        ({"shard_rows": 2}, {"SLURM_NTASKS": "1", "SLURM_PROCID": "0"}, None),
    ],
)
def test_a_process_finds_its_place(given, environment, place):
    assert find_place(SimpleNamespace(**(NONE | given)), environment) == place


@pytest.mark.parametrize(
    ("given", "environment", "sentence"),
    [
        ({"coordinator": "node:1"}, {}, "--num-processes and --process-id must be given too"),
        ({"num_processes": 2, "process_id": 0, "shard_rows": 2}, {}, "--coordinator must be given too"),
        (FLAGS | {"coordinator": "node"}, {}, "'node': give HOST:PORT"),
        (FLAGS | {"coordinator": "node:99999"}, {}, "a port from 1 to 65535"),
        (FLAGS | {"process_id": 2}, {}, "--process-id 2 of 2 processes: give a whole number from 0 to 1"),
        (FLAGS | {"num_processes": 0}, {}, "--num-processes 0: give a whole number of at least 1"),
        (FLAGS | {"shard_rows": None}, {}, "give --chains-per-device or --shard-rows too"),
        ({"shard_rows": 2}, SLURM | {"SLURM_PROCID": "x"}, "SLURM_PROCID is 'x'"),
    ],
)
def test_a_place_that_cannot_be_is_refused_in_a_sentence(given, environment, sentence):
    with pytest.raises(UsageError, match=sentence):
        find_place(SimpleNamespace(**(NONE | given)), environment)


# as JAX words it, of a collective and of a barrier
LOST_BY_JAX = (
    "UNKNOWN: Gloo all-reduce failed: [gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:4242",
    "DEADLINE_EXCEEDED: Barrier timed out. Id: all processes are done::1",
)


@pytest.mark.parametrize("said", LOST_BY_JAX)
def test_what_jax_says_of_processes_that_do_not_answer_is_told_apart(said):
    lost = jax.errors.JaxRuntimeError(said)
    assert is_lost(lost)
    led_to = RuntimeError("the fit could not go on")
    led_to.__cause__ = lost
    assert is_lost(led_to)
    refused = UsageError("could not join the others")
    refused.__cause__ = lost
    assert not is_lost(refused)


@pytest.mark.parametrize(
    "error",
    [
        UsageError("igloo.csv has no column price"),
        DataError("heartbeat.npz has no array x"),
        FileNotFoundError("barrier.csv"),
        ConnectionResetError("connection reset by peer"),
        FitError("barrier: the loss became nan"),
        RuntimeError("barrier"),
        jax.errors.JaxRuntimeError("INTERNAL: igloo.csv has no column price"),
    ],
)
def test_an_error_that_speaks_of_something_else_is_no_lost_process(error):
    assert not is_lost(error)


@pytest.mark.parametrize(
    ("given", "shape"),
    [
        ({}, None),
        ({"shard_rows": 2}, (1, 2)),
        ({"chains_per_device": 2}, (2, 1)),
        ({"chains_per_device": 1, "shard_rows": 2}, (4, 2)),
        ({"shard_rows": 2, "methods": ("svi",)}, (1, 2)),
    ],
)
def test_an_experiment_lays_its_mesh_out(given, shape):
    assert mesh_shape(Experiment(**given)) == shape


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"chains_per_device": 3}, "4 chains cannot be divided so; give a divisor of 4"),
        ({"chains_per_device": 0}, "chains per device 0: give a whole number of at least 1"),
        ({"shard_rows": 2, "methods": ("laplace",)}, "laplace cannot be fitted over a mesh"),
        ({"chains_per_device": 1, "methods": ("svi",)}, "svi have no chains"),
        ({"rows_across_processes": True}, "give --shard-rows N too"),
        (
            {"chains_per_device": 1, "methods": ("nuts", "hmc"), "options": {"hmc": ("num_chains=2",)}},
            "give the samplers equally many chains, there are 4 of nuts, 2 of hmc",
        ),
    ],
)
def test_a_mesh_that_an_experiment_cannot_have_is_refused(given, sentence):
    with pytest.raises(UsageError, match=sentence):
        Experiment(**given)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"model": "sgp"}, "--shard-rows 3: the rows of this model cannot be divided .* as they depend on each other"),
        ({"model": "gp"}, "--shard-rows 3: the rows of this model cannot be divided .* as they depend on each other"),
        (
            {"methods": ("map", "bbb"), "options": {"bbb": ("batch_size=32",)}},
            "bbb: batch_size=32 cannot be divided over 3 devices: give a multiple of 3",
        ),
        ({"shard_rows": 143}, "--shard-rows 143: 142 rows cannot be divided over 143 devices"),
    ],
)
def test_a_mesh_that_cannot_serve_the_data_or_a_method_is_refused_before_any_fit(given, sentence):
    experiment = Experiment(**({"data": "wine", "ood": (), "methods": ("map",), "shard_rows": 3} | given))
    data, _ = experiment.load(0)
    with pytest.raises(UsageError, match=sentence):
        experiment.check(data)


def test_a_mesh_that_can_is_not_refused():
    options = {"bbb": ("batch_size=33",), "svi": ("start=map:50",)}
    experiment = Experiment(data="wine", ood=(), methods=("map", "bbb", "svi"), shard_rows=3, options=options)
    experiment.check(experiment.load(0)[0])
    chains = Experiment(data="wine", ood=(), model="gp", methods=("nuts",), chains_per_device=2)
    chains.check(chains.load(0)[0])


def test_too_few_devices_are_said_before_anything_is_fitted():
    with pytest.raises(UsageError, match="takes 4096 devices and there are"):
        make_mesh(Experiment(methods=("svi",), shard_rows=4096))


def test_a_run_without_a_mesh_is_described_as_it_always_was():
    assert not {"chains_per_device", "shard_rows", "rows_across_processes"} & set(Experiment().configuration())
    assert Experiment(shard_rows=2).configuration()["shard_rows"] == 2
