"""What runs the cells of a sweep: threads that each wait for a local process, Dask's workers, or SLURM's jobs.

All are `concurrent.futures.Executor`; what tells them apart is how they begin and how they end what is running.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hmcvi.inference.base import counted

from .options import UsageError, parse_options
from .sweep_cell import end_running

__all__ = ["Pool", "Slurm", "dask_pool", "local_pool", "slurm_pool"]

CONNECT_SECONDS = 10
"""How long a Dask scheduler may take to answer."""

HEED_NO_CTRL_C = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"
"""What Dask's local workers run first: Ctrl-C in a terminal reaches them too, and is the sweep's to heed."""

MOST_JOBS = 50
"""Jobs of SLURM at a time, waiting or running, unless said otherwise."""


@dataclass(frozen=True)
class Pool:
    """An open executor.

    Attributes:
        executor: where cells are submitted.
        workers: how many run at a time.
        cores: how many each may use.
        end: tells the cells of a sweep, by its folder, to end.
        about: what it is, in words.
    """

    executor: Executor
    workers: int
    cores: int
    end: Callable[[str], Any]
    about: str


@contextmanager
def local_pool(workers: int | None = None, cores: int | None = None, cells: int | None = None) -> Iterator[Pool]:
    """Run cells here, each in a process of its own on its share of the cores.

    Arguments:
        workers: cells at a time; None takes as many as there are cores for, and no more than there are cells.
        cores: cores of each; None shares all of them equally.
        cells: how many there are, where that is known.

    Raises:
        UsageError: more workers, or cores, than there are cores here.
    """
    workers, cores = _shares(workers, cores, cells)
    executor = ThreadPoolExecutor(workers)
    try:
        yield Pool(executor, workers, cores, end_running, f"{counted(workers, 'process', 'es')} here")
    finally:
        executor.shutdown(wait=False)  # nothing runs, or what runs was told to end: that is said before it has


@contextmanager
def dask_pool(
    scheduler: str | None = None, workers: int | None = None, cores: int | None = None, cells: int | None = None
) -> Iterator[Pool]:
    """Run cells on a Dask cluster, which tries those of a worker that dies on another.

    Arguments:
        scheduler: its address; None begins a cluster of local processes, which ends with the sweep.
        workers: of a local cluster, as of `local_pool`; of another, cells at a time, one a thread unless said.
        cores: cores of each cell; with a scheduler 1 unless said.
        cells: how many there are, where that is known.

    Raises:
        UsageError: no scheduler answers, it has no worker, or there are not as many cores here.
        ModuleNotFoundError: distributed is not installed.
    """
    import dask
    from distributed import Client, LocalCluster

    if scheduler is None:
        workers, cores = _shares(workers, cores, cells)
        # cells hold what memory they hold in processes of their own, of which Dask's limits know nothing
        options = {"threads_per_worker": 1, "memory_limit": 0, "dashboard_address": None, "preload": [HEED_NO_CTRL_C]}
        dask.config.set({"distributed.scheduler.allowed-failures": 0})  # it is the sweep that begins a cell again
        with LocalCluster(n_workers=workers, processes=True, **options) as cluster, Client(cluster) as client:
            yield _dask(client, workers, cores, f"{counted(workers, 'local worker')} of Dask")
        return
    try:
        client = Client(scheduler, timeout=CONNECT_SECONDS)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"no Dask scheduler answers at {scheduler}: check the address, or begin one with dask scheduler"
        ) from error
    with client:
        threads = sum(worker["nthreads"] for worker in client.scheduler_info(n_workers=-1)["workers"].values())
        if not threads:
            raise UsageError(
                f"the Dask scheduler at {scheduler} has no worker: begin some with dask worker {scheduler}"
            )
        workers = threads if workers is None else workers
        yield _dask(client, workers, cores or 1, f"{counted(workers, 'thread')} of the Dask cluster at {scheduler}")


def _dask(client: Any, workers: int, cores: int, about: str) -> Pool:
    def end(sweep: str) -> None:
        client.run(end_running, sweep, on_error="ignore")

    return Pool(client.get_executor(pure=False), workers, cores, end, about)


@dataclass(frozen=True)
class Slurm:
    """What a job asks of SLURM; "" or 0 leaves it to the cluster.

    Attributes:
        partition: where it runs.
        minutes: how long it may take.
        memory: its memory in GB.
        account: who pays.
        qos: its quality of service.
        constraint: features that its node must have.
    """

    partition: str = ""
    minutes: int = 0
    memory: float = 0.0
    account: str = ""
    qos: str = ""
    constraint: str = ""


@contextmanager
def slurm_pool(
    folder: Path,
    given: tuple[str, ...] = (),
    workers: int | None = None,
    cores: int | None = None,
    cluster: str = "slurm",
) -> Iterator[Pool]:
    """Run each cell as a job of SLURM, by submitit.

    Arguments:
        folder: where submitit keeps what it sends and receives; the nodes must see it.
        given: options of `Slurm`, as key=value.
        workers: jobs at a time.
        cores: CPUs of each.
        cluster: submitit's name of the cluster; "local" runs the jobs as processes here.

    Raises:
        UsageError: an option is wrong, or there is no SLURM here.
        ModuleNotFoundError: submitit is not installed.
    """
    import submitit

    asked = Slurm(**parse_options(Slurm, given, "--slurm"))
    workers, cores = workers or MOST_JOBS, cores or 1
    try:
        jobs = submitit.AutoExecutor(folder=folder, cluster=cluster)
    except RuntimeError as error:  # it finds no srun
        raise UsageError(
            "SLURM is not here (no srun): run the sweep on a login node, or choose --executor local or dask"
        ) from error
    named = {"partition": asked.partition, "account": asked.account, "qos": asked.qos, "constraint": asked.constraint}
    jobs.update_parameters(
        name="hmcvi-sweep",
        cpus_per_task=cores,
        timeout_min=asked.minutes or None,
        mem_gb=asked.memory or None,
        **{f"slurm_{key}": value for key, value in named.items() if value},
    )
    executor = _JobExecutor(jobs, workers)
    try:
        yield Pool(executor, workers, cores, executor.cancel, f"up to {counted(workers, 'job')} of SLURM")
    finally:
        executor.shutdown(wait=False)


class _JobExecutor(Executor):
    """submitit's executor with futures of the standard library: a thread waits for each job.

    Arguments:
        jobs: submitit's executor.
        workers: jobs at a time.
    """

    def __init__(self, jobs: Any, workers: int) -> None:
        self._jobs = jobs
        self._threads = ThreadPoolExecutor(workers)
        self._submitting = threading.Lock()
        self._running: list[Any] = []

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
        """Submit a call as a job."""
        return self._threads.submit(self._wait_for, function, arguments, named)

    def _wait_for(self, function: Callable[..., Any], arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        with self._submitting:
            job = self._jobs.submit(function, *arguments, **named)
            self._running.append(job)
        try:
            return job.result()
        finally:
            self._running.remove(job)

    def cancel(self, sweep: str) -> None:
        """Cancel the jobs that wait or run; all are of one sweep."""
        for job in list(self._running):
            job.cancel()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End, after the jobs unless told not to wait."""
        self._threads.shutdown(wait, cancel_futures=cancel_futures)


def _shares(workers: int | None, cores: int | None, cells: int | None) -> tuple[int, int]:
    """Return how many cells run at a time here, and the cores of each."""
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if cores is not None and not 1 <= cores <= here:
        raise UsageError(f"--cores {cores}: give 1 to {here}, as many as there are here")
    most = here // (cores or 1)
    if workers is not None and not 1 <= workers <= most:
        of_each = f" of {counted(cores, 'core')} each" if cores is not None else ""
        raise UsageError(f"--workers {workers}: give 1 to {most}, as many{of_each} as there are cores for here")
    workers = min(most, cells or most) if workers is None else workers
    return workers, here // workers if cores is None else cores
