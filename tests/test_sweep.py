"""Sweeps: cells in processes of their own, on every executor; failures, deaths, interrupts, and going on after them."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest

from hmcvi.benchmarks import cli, sweep_pools
from hmcvi.benchmarks.experiment import Experiment
from hmcvi.benchmarks.options import UsageError
from hmcvi.benchmarks.sweep import TRIES, Cell, Outcome, cells_of, run_cells, sweep
from hmcvi.benchmarks.sweep_cell import LATE, end_running, run_cell
from hmcvi.benchmarks.sweep_pools import Pool, local_pool, slurm_pool

METHODS = ("map", "ensemble")
OPTIONS = {"map": ("num_steps=40",), "ensemble": ("num_steps=40", "size=2")}
HOW = ("--no-figures",)
TABLES = ("table.csv", "differences.csv")


def experiment(model: str = "mlp", seeds: tuple[int, ...] = (0, 1)) -> Experiment:
    return Experiment(data="wave", model=model, methods=METHODS, seeds=seeds, ood=(), options=OPTIONS)


def quiet(_: str) -> None:
    pass


def tables(out: Path, seed: int = 0) -> dict[str, bytes]:
    return {name: (out / f"wave-mlp-seed{seed}" / name).read_bytes() for name in TABLES}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a sweep of two seeds, one core each, which nothing disturbed."""
    out = tmp_path_factory.mktemp("sweep") / "undisturbed"
    with local_pool(cores=1) as pool:
        assert sweep(cells_of([experiment()], HOW), out, pool, say=quiet) == ""
    return out


class Scripted(Executor):
    """Ends each call as it is told to, and keeps what it was given."""

    def __init__(self, endings: Callable[[str, int], Any]) -> None:
        self.endings, self.given = endings, []

    def submit(self, function: Any, /, *arguments: Any, **named: Any) -> Future[Any]:
        (order,) = arguments
        assert function is run_cell
        assert all(type(value) is str for value in order.values())
        name = Path(order["folder"]).name
        self.given.append(name)
        future: Future[Any] = Future()
        ending = self.endings(name, self.given.count(name))
        future.set_exception(ending) if isinstance(ending, Exception) else future.set_result(ending)
        return future


def scripted(endings: Callable[[str, int], Any], workers: int = 2) -> tuple[Scripted, Pool]:
    executor = Scripted(endings)
    return executor, Pool(executor, workers, 1, lambda sweep: None, "a script")


def ended(status: int, sentence: str = "") -> dict[str, Any]:
    return {"status": status, "sentence": sentence, "seconds": 1.0}


# --- cells


def test_a_cell_is_a_data_set_a_model_and_a_seed_with_all_methods() -> None:
    asked = [experiment(model) for model in ("mlp", "gp")]
    cells = cells_of(asked, HOW)
    assert [cell.name for cell in cells] == ["wave-mlp-seed0", "wave-mlp-seed1", "wave-gp-seed0", "wave-gp-seed1"]
    assert shlex.join(cells[3].arguments) == (
        "compare --data wave --model gp --methods map ensemble --seeds 1 --ood "
        "--ensemble num_steps=40 size=2 --map num_steps=40"
    )
    assert all(cell.how == HOW for cell in cells)


def test_all_cores_are_shared_between_the_cells_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(16)), raising=False)
    for given, wanted in (
        ((None, None, None), (16, 1)),
        ((None, None, 3), (3, 5)),
        ((None, 4, 100), (4, 4)),
        ((2, None, 100), (2, 8)),
        ((2, 3, 1), (2, 3)),
    ):
        with local_pool(*given) as pool:
            assert (pool.workers, pool.cores) == wanted
    with pytest.raises(UsageError, match="--workers 5: give 1 to 4, as many of 4 cores each as there are cores for"):
        local_pool(5, 4).__enter__()


def test_two_cells_of_one_name_are_refused() -> None:
    with pytest.raises(UsageError, match="two cells would share the folder wave-mlp-seed0: give each"):
        cells_of([experiment(), experiment()])


def test_methods_made_apart_must_be_named() -> None:
    with pytest.raises(UsageError, match="--by-method fits each of --methods apart: name them"):
        cells_of([Experiment(data="wave")], by_method=True)


# --- what is kept, and what is tried again


def test_a_cell_that_is_lost_is_tried_again_and_at_last_recorded(tmp_path: Path) -> None:
    def endings(name: str, tries: int) -> Any:
        if name == "often":
            return BrokenProcessPool("a child process terminated abruptly")
        return ended(-9, "its process was killed by signal 9") if tries < TRIES else ended(0)

    executor, pool = scripted(endings)
    said: list[str] = []
    cells = [Cell(name, ("compare", "--data", name)) for name in ("often", "twice")]
    outcomes = run_cells(cells, tmp_path / "out", pool, say=said.append)
    assert executor.given.count("often") == executor.given.count("twice") == TRIES
    assert outcomes["twice"] == Outcome(("compare", "--data", "twice"), 0, "", TRIES, 1.0, 1)
    lost = "its worker failed (BrokenProcessPool: a child process terminated abruptly)"
    assert outcomes["often"] == Outcome(("compare", "--data", "often"), -1, lost, TRIES, 0.0, 1)
    assert said.count("twice: its process was killed by signal 9; tried again") == TRIES - 1
    assert f"often: FAILED after 0 s (2 of 2): {lost}" in said or f"often: FAILED after 0 s (1 of 2): {lost}" in said


def test_a_cell_that_fails_by_itself_is_not_tried_again(tmp_path: Path) -> None:
    executor, pool = scripted(lambda name, tries: ended(2, "no such column"))
    outcomes = run_cells([Cell("wrong", ("compare",))], tmp_path / "out", pool, say=quiet)
    assert executor.given == ["wrong"]
    record = json.loads((tmp_path / "out" / "sweep.json").read_text())["cells"]["wrong"]
    assert (record["status"], record["sentence"], record["tries"]) == (2, "no such column", 1)
    assert outcomes["wrong"].sentence == "no such column"


def test_an_executor_that_takes_nothing_any_more_fails_the_cells_and_not_the_sweep(tmp_path: Path) -> None:
    def gone(name: str, tries: int) -> Any:
        raise OSError("the scheduler is gone")

    _, pool = scripted(gone)
    outcomes = run_cells([Cell("one", ("compare",)), Cell("two", ("compare",))], tmp_path / "out", pool, say=quiet)
    assert {outcome.sentence for outcome in outcomes.values()} == {"its worker failed (OSError: the scheduler is gone)"}


def test_no_more_cells_are_handed_over_than_there_are_workers(tmp_path: Path) -> None:
    waiting: list[Future[Any]] = []
    most = []

    class Slow(Executor):
        def submit(self, function: Any, /, *arguments: Any, **named: Any) -> Future[Any]:
            waiting.append(Future())
            most.append(len(waiting))
            if len(waiting) == 2:
                threading.Timer(0.05, release).start()
            return waiting[-1]

    def release() -> None:
        for future in [waiting.pop(), waiting.pop()]:
            future.set_result(ended(0))

    pool = Pool(Slow(), 2, 1, lambda sweep: None, "slow ones")
    cells = [Cell(str(number), ("compare", str(number))) for number in range(4)]
    assert len(run_cells(cells, tmp_path / "out", pool, say=quiet)) == 4
    assert max(most) == 2


def test_a_cell_waits_for_its_parts_and_fails_with_one_that_could_not_be_made(tmp_path: Path) -> None:
    parts = {name: tuple(Cell(f"parts/{name}-{m}", ("compare",), method=m) for m in "ab") for name in ("good", "bad")}
    executor, pool = scripted(lambda name, tries: ended(2, "too large") if name == "bad-b" else ended(0), workers=9)
    cells = [Cell(name, ("compare",), parts=of) for name, of in parts.items()]
    outcomes = run_cells(cells, tmp_path / "out", pool, say=quiet)
    assert executor.given == ["good-a", "good-b", "bad-a", "bad-b", "good"]
    assert outcomes["good"].status == 0
    assert (outcomes["bad"].status, outcomes["bad"].sentence) == (2, "too large")


def test_a_folder_of_another_sweep_or_of_other_files_is_refused(tmp_path: Path) -> None:
    _, pool = scripted(lambda name, tries: ended(0))
    out = tmp_path / "out"
    run_cells([Cell("one", ("compare", "--rows", "9"))], out, pool, say=quiet)
    with pytest.raises(
        UsageError, match=r"holds another sweep: one is hmcvi compare --rows 9 there and .*--rows 8 here"
    ):
        run_cells([Cell("one", ("compare", "--rows", "8"))], out, pool, say=quiet)
    (out / "sweep.json").write_text("{}")
    with pytest.raises(UsageError, match=r"sweep\.json is damaged.*or delete it: then each cell is checked by itself"):
        run_cells([Cell("one", ("compare",))], out, pool, say=quiet)
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "letter.txt").write_text("dear")
    with pytest.raises(UsageError, match="is there and is no sweep's folder"):
        run_cells([Cell("one", ("compare",))], tmp_path / "letters", pool, say=quiet)


# --- real cells


def test_a_failed_cell_is_recorded_and_the_same_sweep_runs_only_what_is_missing(
    undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The CNN cannot have a curve; the two seeds of the MLP are there already."""
    cells = cells_of([experiment("cnn", seeds=(0,)), experiment()], HOW)
    said: list[str] = []
    with local_pool(cores=1) as pool:
        fault = sweep(cells, undisturbed, pool, say=said.append)
    assert fault.startswith("1 of 3 cells failed (wave-cnn-seed0): ")
    assert said[0].startswith("3 cells, 2 finished before")
    assert [line.split(":")[0] for line in said if line.endswith("begun")] == ["wave-cnn-seed0"]
    assert any("FAILED" in line and "images were asked for, as the cnn needs them" in line for line in said)
    record = json.loads((undisturbed / "sweep.json").read_text())["cells"]
    assert {name: outcome["status"] for name, outcome in record.items()} == {
        "wave-cnn-seed0": 2,
        "wave-mlp-seed0": 0,
        "wave-mlp-seed1": 0,
    }
    assert "wave, mlp: 100 training and 200 test rows, seeds 0, 1" in capsys.readouterr().out
    joined = pd.read_csv(undisturbed / "table.csv")
    assert set(joined["seed"]) == {0, 1}
    assert set(joined["method"]) == set(METHODS)
    assert "minus map" in set(joined["set"])  # paired over rows, within each cell


def test_a_cell_of_which_one_fit_failed_is_on_the_table_with_its_others(
    undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(undisturbed / "wave-mlp-seed0", tmp_path / "wave-mlp-seed0")  # what a comparison leaves then
    _, pool = scripted(lambda name, tries: ended(1, "svi, seed 0: the loss became nan"))
    fault = sweep(cells_of([experiment(seeds=(0,))]), tmp_path, pool, say=quiet)
    assert fault.startswith("1 of 1 cells failed (wave-mlp-seed0): ")
    assert "wave, mlp: 100 training and 200 test rows, seed 0" in capsys.readouterr().out
    assert set(pd.read_csv(tmp_path / "table.csv")["method"]) == set(METHODS)


def test_a_cell_is_the_same_bytes_as_the_comparison_by_itself(undisturbed: Path, tmp_path: Path) -> None:
    (cell,) = cells_of([experiment(seeds=(1,))], HOW)
    code = (
        "import os, sys; from hmcvi.benchmarks.cli import main\n"
        "os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, *cell.arguments, *cell.how, "--out", str(tmp_path / "wave-mlp-seed1")]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    assert tables(tmp_path, 1) == tables(undisturbed, 1)
    assert json.loads((undisturbed / "wave-mlp-seed1" / "manifest.json").read_text())["visible_cores"] == 1


def test_fits_made_apart_are_scored_together_with_the_same_bytes(undisturbed: Path, tmp_path: Path) -> None:
    cells = cells_of([experiment(seeds=(0,))], HOW, by_method=True)
    with local_pool(cores=1) as pool:
        assert sweep(cells, tmp_path, pool, say=quiet) == ""
    assert tables(tmp_path) == tables(undisturbed)
    words = (tmp_path / "logs" / "wave-mlp-seed0.log").read_text()
    assert [f"{method}, seed 0: read from" in words for method in METHODS] == [True, True]
    assert not (tmp_path / "parts").exists()
    (tmp_path / "wave-mlp-seed0" / "summary.json").unlink()  # then it is scored anew, from the fits that it has
    executor, pool = scripted(lambda name, tries: ended(1))
    run_cells(cells, tmp_path, pool, say=quiet)
    assert executor.given == ["wave-mlp-seed0"]


def test_a_cell_that_takes_too_long_is_ended_and_recorded(tmp_path: Path) -> None:
    cells = cells_of([experiment(seeds=(0,))], HOW)
    with local_pool(workers=1) as pool:
        fault = sweep(cells, tmp_path, pool, seconds=0.5, say=quiet)
    assert "1 of 1 cells failed" in fault
    record = json.loads((tmp_path / "sweep.json").read_text())["cells"]["wave-mlp-seed0"]
    assert record["status"] == LATE
    assert record["sentence"] == "it took longer than the 0.5 seconds of --cell-seconds, and was ended"


SHARE = """
import os, sys
from hmcvi.benchmarks.sweep_cell import _take_cores
kept = _take_cores(1)
import jax, jax.numpy as jnp
jnp.ones((64, 64)).dot(jnp.ones((64, 64))).block_until_ready()
names = [open(f"/proc/self/task/{task}/comm").read().strip() for task in os.listdir("/proc/self/task")]
print(*os.sched_getaffinity(0), names.count("tf_XLAEigen"), flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system pins no process to cores")
def test_cells_side_by_side_have_cores_and_threads_of_their_own(tmp_path: Path) -> None:
    here = len(os.sched_getaffinity(0))
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen([sys.executable, "-c", SHARE], env=environment, **pipes) for _ in range(2)]
    found = [process.stdout.readline().split() for process in processes]
    for process in processes:
        process.communicate(timeout=60)
    assert [threads for _, threads in found] == ["1", "1"]  # XLA's, which follow the cores
    assert len({core for core, _ in found}) == min(2, here)


# --- clusters


def kill_a_busy_worker(client: Any, out: Path, killed: list[int]) -> None:
    """Kill the process of a worker as soon as the cell that it runs has a folder."""
    ends = time.monotonic() + 120
    while time.monotonic() < ends and len(list(out.glob("*/config.json"))) < 2:
        time.sleep(0.05)
    busy = [address for address, tasks in client.processing().items() if tasks]
    pids = client.run(os.getpid)
    os.kill(pids[busy[0]], signal.SIGKILL)
    killed.append(pids[busy[0]])


def test_a_dask_worker_that_is_killed_midway_costs_no_cell(undisturbed: Path, tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed")
    options = {"threads_per_worker": 1, "processes": True, "memory_limit": 0, "dashboard_address": None}
    out, killed = tmp_path / "out", []
    with distributed.LocalCluster(n_workers=2, **options) as cluster, distributed.Client(cluster) as client:
        before = set(client.run(os.getpid).values())
        executor = client.get_executor(pure=False)
        pool = Pool(executor, 2, 1, lambda sweep: client.run(end_running, sweep), "two workers")
        killer = threading.Thread(target=kill_a_busy_worker, args=(client, out, killed))
        killer.start()
        fault = sweep(cells_of([experiment()], HOW), out, pool, say=quiet)
        killer.join()
    assert len(killed) == 1
    assert killed[0] in before
    assert fault == ""
    assert [tables(out, seed) for seed in (0, 1)] == [tables(undisturbed, seed) for seed in (0, 1)]
    assert not list(out.glob("*/INCOMPLETE"))


def test_a_job_of_submitit_is_the_same_bytes(undisturbed: Path, tmp_path: Path) -> None:
    """By submitit's executor of local jobs, which are what SLURM's are but for who starts them."""
    pytest.importorskip("submitit")
    cells = cells_of([experiment(seeds=(0,))], HOW)
    given = ("partition=short", "minutes=5")
    with slurm_pool(tmp_path / "jobs", given, cluster="local") as pool:
        assert sweep(cells, tmp_path / "out", pool, say=quiet) == ""
    assert tables(tmp_path / "out") == tables(undisturbed)
    assert list((tmp_path / "jobs").glob("*_submitted.pkl"))  # it went as a job


# --- the command


@pytest.fixture
def heeded() -> Iterator[None]:
    """Ctrl-C is heeded in the processes begun here, also where this one was begun with it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heeded")
def test_an_interrupt_ends_every_worker_and_says_how_to_go_on(tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "hmcvi.benchmarks.cli", "sweep", "--data", "wine", "--seeds", "0", "1", "--ood"]
    command += ["--methods", "nuts", "--nuts", "num_warmup=9000", "--workers", "1", "--out", str(out)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    ends = time.monotonic() + 120
    while not (out / "wine-mlp-seed0" / "config.json").exists() and time.monotonic() < ends:
        time.sleep(0.05)
    children = psutil.Process(process.pid).children(recursive=True)
    assert children
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    _, alive = psutil.wait_procs(children, timeout=60)
    assert not alive
    assert process.returncode == 130
    assert "Traceback" not in said
    assert f"interrupted; {out} has 0 of 2 cells finished; the same command goes on: hmcvi sweep --data wine" in said
    assert "0 of 1 fits" in (out / "wine-mlp-seed0" / "INCOMPLETE").read_text()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--model", "mlp", "mpl"], "unknown model 'mpl' (did you mean mlp?)"),
        (["--nuts", "num_draw=3"], "unknown option of --nuts 'num_draw' (did you mean num_draws?)"),
        (["--data", "wave", "wave"], "two cells would share the folder wave-mlp-seed0"),
        (["--workers", "0"], "--workers 0: give more than 0"),
        (["--workers", "999999"], "--workers 999999: give 1 to"),
        (["--cores", "999999"], "--cores 999999: give 1 to"),
        (["--cell-seconds", "nan"], "--cell-seconds nan: give more than 0"),
        (["--scheduler", "tcp://here:1"], "--scheduler is Dask's, and the executor is local: add --executor dask"),
        (["--slurm", "partition=short"], "--slurm is for jobs of SLURM, and the executor is local"),
        (["--by-method"], "--by-method fits each of --methods apart: name them"),
        (["--require-converged", "--methods", "map"], "--require-converged asks for a converged sampler"),
        (["--executor", "ray"], "invalid choice: 'ray'"),
    ],
)
def test_a_bad_option_is_one_sentence(
    arguments: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        status = cli.main(["sweep", *arguments, "--out", str(tmp_path / "out")])
    except SystemExit as stopped:
        status = stopped.code
    said = capsys.readouterr().err
    assert status == 2
    assert sentence in said
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_bad_options_of_clusters_are_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("submitit")
    pytest.importorskip("distributed")
    monkeypatch.setenv("PATH", str(tmp_path))  # where no srun is
    monkeypatch.setattr(sweep_pools, "CONNECT_SECONDS", 1)
    for arguments, sentence in (
        (["slurm", "--slurm", "partitoin=short"], "unknown option of --slurm 'partitoin' (did you mean partition?)"),
        (["slurm"], "SLURM is not here (no srun): run the sweep on a login node"),
        (["dask", "--scheduler", "tcp://127.0.0.1:9"], "no Dask scheduler answers at tcp://127.0.0.1:9"),
    ):
        assert cli.main(["sweep", "--out", str(tmp_path / "out"), "--executor", *arguments]) == 2
        assert sentence in capsys.readouterr().err


def test_a_missing_package_is_named_with_its_extra(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for package, executor in (("distributed", "dask"), ("submitit", "slurm")):
        monkeypatch.setitem(sys.modules, package, None)
        assert cli.main(["sweep", "--executor", executor, "--out", str(tmp_path / "out")]) == 2
        assert f"the package {package} is not installed: pip install 'hmcvi[sweep]'" in capsys.readouterr().err
