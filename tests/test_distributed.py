"""Two real processes of two host devices each, on loopback: the same posteriors, and a clear end where one dies."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import psutil
import pytest
from numpyro.diagnostics import effective_sample_size

from hmcvi.benchmarks.distributed import Place, supervise
from hmcvi.inference import load_datatree

from .mesh_program import ROWS
from .targets import conjugate_regression
from .test_mesh import check_draws, check_mean_field

ROOT = Path(__file__).resolve().parent.parent
TARGET = conjugate_regression(rows=ROWS)

CASES = {
    # chains are divided within a process and rows over both: each holds its own rows alone
    "nuts": {"mesh": [2, 2], "method": "nuts", "across": True, "own_rows": True},
    "svi": {"mesh": [1, 4], "method": "svi"},
    "bbb": {"mesh": [2, 2], "method": "bbb", "across": True},
    "other rows": {"mesh": [1, 4], "method": "svi", "differ": True},
}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# --- from Python


def run_program(folder: Path, processes: int, cases: dict) -> list[dict]:
    """Return what each process found."""
    address = f"127.0.0.1:{free_port()}"
    running = []
    for place in range(processes):
        request = {"devices": 4 // processes, "cases": cases, "out": str(folder / f"of-{processes}"), "process": place}
        request |= {"coordinator": address, "processes": processes}
        command = [sys.executable, "-m", "tests.mesh_program", json.dumps(request)]
        running.append(subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True))
    try:
        said = [process.communicate(timeout=900)[1] for process in running]
    finally:
        for process in running:
            process.kill()
    assert [process.returncode for process in running] == [0] * processes, said
    return [dict(np.load(folder / f"of-{processes}-{place}.npz")) for place in range(processes)]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return run_program(tmp_path_factory.mktemp("two"), 2, CASES)


def test_every_process_has_all_draws(found):
    for name in ("nuts", "svi", "bbb"):
        np.testing.assert_array_equal(found[0][f"{name}: draws"], found[1][f"{name}: draws"])
        assert len(np.unique(found[0][f"{name}: draws"][:, 0, 0])) == (4 if name == "nuts" else 1)


def test_nuts_over_two_processes_draws_from_the_exact_posterior(found):
    check_draws(found[0]["nuts: draws"])


def test_it_has_the_moments_of_one_process(found, tmp_path):
    (alone,) = run_program(tmp_path, 1, {"nuts": {"mesh": None, "method": "nuts"}})
    two, one = found[0]["nuts: draws"], alone["nuts: draws"]
    for power in (1, 2):
        moments = [(draws - TARGET.mean) ** power for draws in (two, one)]
        errors = [values.std((0, 1)) / np.sqrt(effective_sample_size(values)) for values in moments]
        difference = moments[0].mean((0, 1)) - moments[1].mean((0, 1))
        # 4.5 Monte Carlo errors of the difference in 6 numbers: 4e-5 false alarms.
        np.testing.assert_array_less(np.abs(difference), 4.5 * np.hypot(*errors))


@pytest.mark.parametrize("name", ["svi", "bbb"])
def test_a_variational_fit_over_two_processes_reaches_the_optimal_mean_field(found, name):
    check_mean_field(found[0][f"{name}: draws"][0])


def test_each_process_holds_its_own_rows_alone(found):
    own = [ROWS // 3, ROWS - ROWS // 3]
    x = np.asarray(TARGET.x, np.float32)
    held = [np.unique(one["nuts: rows on devices"], axis=0) for one in found]
    assert [len(rows) for rows in held] == own
    np.testing.assert_array_equal(np.unique(np.concatenate(held), axis=0), np.unique(x, axis=0))
    for one, number in zip(found, own, strict=True):
        assert one["nuts: number of rows"] == ROWS
        assert len(one["nuts: x of the fit"]) == number


def test_processes_of_different_rows_are_told_so(found):
    for one in found:
        assert "were given different rows where they share them" in str(one["other rows: refused"])


# --- the command

REQUEST = ["--data", "wine", "--methods", "nuts", "--ood", "--no-figures", "--checkpoint-seconds", "0"]
REQUEST += ["--nuts", "num_warmup=40", "num_draws=40", "num_chains=2"]
REQUEST += ["--chains-per-device", "1", "--shard-rows", "2", "--rows-across-processes"]


# the first method's loss is not finite at the first seed, the second goes well
FAILING = ["--data", "wine", "--methods", "bbb", "map", "--seeds", "0", "1", "--ood", "--no-figures", "--quick"]
FAILING += ["--bbb", "learning_rate=1e30", "--shard-rows", "2"]


def begin(out: Path, request: Sequence[str] = REQUEST) -> list[subprocess.Popen[str]]:
    """Begin both processes of a run."""
    address = f"127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "hmcvi.benchmarks.cli", "compare", *request, "--out", str(out)]
    place = ["--coordinator", address, "--num-processes", "2", "--process-id"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return [subprocess.Popen([*command, *place, str(i)], **pipes) for i in (0, 1)]


def end(processes: list[subprocess.Popen[str]], seconds: float) -> list[tuple[int, str, str]]:
    """Return the exit status of each and what it printed and said."""
    try:
        said = [process.communicate(timeout=seconds) for process in processes]
    finally:
        for process in processes:
            process.kill()  # and with it the worker, which sees that nobody waits
    return [(process.returncode, *texts) for process, texts in zip(processes, said, strict=True)]


def begin_until_kept(out: Path) -> list[subprocess.Popen[str]]:
    """Begin both processes, and return once they have kept the fit in the middle, anew."""
    file, ends = out / "fits" / "nuts-seed0.checkpoint", time.monotonic() + 600
    before = file.stat().st_mtime_ns if file.exists() else 0
    processes = begin(out)
    while not (file.exists() and file.stat().st_mtime_ns > before) and time.monotonic() < ends:
        assert all(process.poll() is None for process in processes)
        time.sleep(0.02)
    return processes


def kill_worker(process: subprocess.Popen[str]) -> None:
    (worker,) = psutil.Process(process.pid).children()
    worker.kill()


def test_where_a_process_dies_the_other_stops_and_the_same_commands_end_in_the_same_draws(tmp_path):
    interrupted, whole = tmp_path / "interrupted", tmp_path / "whole"
    processes = begin_until_kept(interrupted)
    kill_worker(processes[1])
    (status, _, other), (killed, _, said) = end(processes, 60)
    assert (status, killed) == (1, 1)
    assert "process 0 of 2 stopped, because another of them ended or does not answer" in other
    assert "the run goes on from what was last kept" in other
    assert "process 1 of 2 was ended by SIGKILL" in said

    processes = begin_until_kept(interrupted)
    kill_worker(processes[0])  # by which all are in touch
    (killed, _, said), (status, _, other) = end(processes, 60)
    assert (status, killed) == (1, 1)
    assert "process 1 of 2 stopped, because another of them ended or does not answer" in other
    assert "process 0 of 2 was ended by SIGKILL" in said

    processes = begin_until_kept(interrupted)
    processes[1].send_signal(signal.SIGTERM)  # one is told, both end in good order
    for status, _, said in end(processes, 60):
        assert status == 143 or "interrupted" in said

    for out in (interrupted, whole):
        (first, board, said), (second, printed, _) = end(begin(out), 900)
        assert (first, second) == (0, 0), said
        assert "scoring" in said
        assert "nll" in board
        assert printed == ""  # the first process prints, and writes
        assert ("going on where it was interrupted" in said) == (out == interrupted)
    one, other = (load_datatree(out / "fits" / "nuts-seed0.nc") for out in (interrupted, whole))
    for name, draws in one["posterior"].data_vars.items():
        np.testing.assert_array_equal(draws.values, other["posterior"][name].values)
    assert json.loads((whole / "config.json").read_text())["shard_rows"] == 2


def test_a_method_that_fails_is_left_out_at_all_seeds_in_every_process(tmp_path):
    (first, board, said), (second, printed, helped) = end(begin(tmp_path / "out", FAILING), 300)
    assert (first, second) == (1, 1), said + helped
    for text in (said, helped):
        assert "hmcvi: error: bbb, seed 0: the loss became" in text
        assert "bbb, seed 1" not in text
        assert "another of them ended" not in text
    assert "map, seed 1: done" in said
    assert "map" in board
    assert printed == ""


@pytest.mark.parametrize(
    ("first", "status", "sentence"),
    [
        ("", 2, "process 0 of 2 could not join the others at 127.0.0.1:1 within 50 s: start all of them"),
        ("import os; os.write(int(os.environ['HMCVI_WORKER_PIPES'].split()[1]), b'1')", 1, "because another of them"),
    ],
)
def test_a_worker_that_jax_aborts_tells_others_that_never_came_from_others_that_went(
    first, status, sentence, tmp_path, monkeypatch, capsys
):
    worker = tmp_path / "worker"  # which ends as JAX ends one
    worker.write_text(f"#!{sys.executable}\n{first}\nimport os, signal\nos.kill(os.getpid(), signal.SIGABRT)\n")
    worker.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(worker))
    assert supervise(Place("127.0.0.1:1", 2, 0), ["compare"], "start again") == status
    assert sentence in capsys.readouterr().err


def test_a_place_that_cannot_be_is_said_before_anything_begins(tmp_path):
    command = [sys.executable, "-m", "hmcvi.benchmarks.cli", "compare", "--shard-rows", "2"]
    command += ["--out", str(tmp_path / "no")]
    run = subprocess.run([*command, "--num-processes", "2"], capture_output=True, text=True, timeout=300, check=False)
    assert run.returncode == 2
    assert run.stderr.count("\n") == 1
    assert "--process-id and --coordinator must be given too" in run.stderr
    assert not (tmp_path / "no").exists()
