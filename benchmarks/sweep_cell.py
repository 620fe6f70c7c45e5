"""One cell of a sweep on a worker: a process of its own, on cores of its own, that ends when the worker does.

A fresh process for each cell keeps what JAX holds (compiled programs, the number of host devices, threads) out of the
next one, so that a cell's results are the same bytes whoever ran it, and a crash of XLA ends one cell and no worker.
Nothing but text goes between the processes. This half is imported by workers, so it imports no JAX.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import filelock

__all__ = ["LATE", "end_running", "run_cell"]

LATE = 124
"""The status of a cell that took longer than it may, as that of the command `timeout`."""

ENDED = 128 + int(signal.SIGTERM)

GRACE = 10.0
"""Seconds in which a cell that is told to end does so, or is killed."""

PATIENCE = 30.0
"""Seconds to wait for the process of a worker that died to leave the cell's folder."""

THREADS = ("NPROC", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""What limits threads where cores cannot be chosen; XLA on a CPU heeds NPROC, and none of its own flags."""

SHARED_DEVICE = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
"""Cells side by side may share an accelerator, of which JAX would give three quarters to the first."""

_running: dict[subprocess.Popen[bytes], str] = {}


def run_cell(cell: Mapping[str, str]) -> dict[str, Any]:
    """Run one cell in a process of its own, and return how it ended.

    Arguments:
        cell: `sweep`, the sweep's folder; `folder`, the cell's; `log`, the file for its words; `cwd`, from where paths
            are looked up; `arguments` of `hmcvi`, as a shell takes them; `method`, the one to fit without scoring, or
            ""; `parts`, folders with finished fits, as a shell takes them; `cores`, how many it may use; `seconds`,
            how long it may take, or "inf".

    Returns:
        `status`, the exit status (negative: the signal that killed it); `sentence`, what it said last where it failed;
        `seconds`.
    """
    started = time.perf_counter()
    log = Path(cell["log"])
    log.parent.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)  # a process that outlives its worker by seconds goes on writing to the old one
    environment = {**SHARED_DEVICE, **os.environ, **dict.fromkeys(THREADS, cell["cores"])}
    with log.open("w") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "hmcvi.benchmarks.sweep_cell"],
            stdin=subprocess.PIPE,
            stdout=said,
            stderr=subprocess.STDOUT,
            cwd=cell["cwd"],
            env=environment,
            start_new_session=True,  # Ctrl-C is for the sweep, which tells its cells
        )
    _running[process] = cell["sweep"]
    late = False
    try:
        assert process.stdin is not None
        process.stdin.write(json.dumps(dict(cell)).encode() + b"\n")
        process.stdin.flush()
        limit = float(cell["seconds"])
        process.wait(None if limit == float("inf") else limit)
    except BrokenPipeError:  # it is dead, of which its status tells
        process.wait()
    except subprocess.TimeoutExpired:
        late = True
    finally:
        _end(process)
        del _running[process]
    seconds = time.perf_counter() - started
    if late:
        return {
            "status": LATE,
            "sentence": f"it took longer than the {cell['seconds']} seconds of --cell-seconds, and was ended",
            "seconds": seconds,
        }
    return {"status": process.returncode, "sentence": _last_words(process.returncode, log), "seconds": seconds}


def end_running(sweep: str) -> None:
    """Tell the cells of this sweep that run here to end; they keep what they have."""
    for process, folder in list(_running.items()):
        if folder == sweep and process.stdin is not None:
            process.stdin.close()


def _end(process: subprocess.Popen[bytes]) -> None:
    """See to it that a cell's process is gone."""
    assert process.stdin is not None
    process.stdin.close()
    try:
        process.wait(GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _last_words(status: int, log: Path) -> str:
    if status == 0:
        return ""
    if status < 0:
        return f"its process was killed by signal {-status}"
    return (
        (log.read_text(errors="replace").strip() or "it said nothing").splitlines()[-1].removeprefix("hmcvi: error: ")
    )


# --- in the cell's own process


def _main() -> int:
    with open(0, "rb", buffering=0, closefd=False) as given:
        cell: dict[str, str] = json.loads(given.readline())
    threading.Thread(target=_end_with_worker, daemon=True).start()
    kept = _take_cores(int(cell["cores"]))  # before JAX counts them
    folder, arguments = Path(cell["folder"]), shlex.split(cell["arguments"])
    status = _run(cell, folder, [*arguments, "--out", str(folder)])
    for lock in kept:
        lock.release()
    return status


def _run(cell: Mapping[str, str], folder: Path, arguments: list[str]) -> int:
    from . import cli
    from .exclusive import alone_in
    from .interrupts import EndingSoon
    from .refusal import refuse

    ending = EndingSoon("what is finished is kept")
    try:
        with ending:
            with alone_in(folder, PATIENCE):
                pass  # nobody is there any more: of a worker that died, the cell's process may outlive it by seconds
            if cell["method"]:
                _fit_alone(arguments, cell["method"], folder)
                return 0
            for part in shlex.split(cell["parts"]):
                _bring_fits(Path(part), folder)
    except KeyboardInterrupt:
        return ending.status
    except Exception as error:
        return refuse(error, argparse.Namespace(command="sweep", out=folder))
    return cli.main(arguments)


def _fit_alone(arguments: list[str], method: str, folder: Path) -> None:
    """Fit one method of a comparison, among as many host devices as the whole has, and score nothing."""
    import dataclasses

    from . import compare_command, programs
    from .arguments import Parser
    from .compare import fit_only

    parser = Parser(prog="hmcvi compare")
    compare_command.add_options(parser)
    options = parser.parse_args(arguments[1:])
    programs.keep_programs(options)
    experiment = compare_command.experiment_of(options, data=options.data[0], model=options.model)
    compare_command.spread_chains(experiment)
    fit_only(dataclasses.replace(experiment, methods=(method,)), folder, checkpoint_seconds=options.checkpoint_seconds)


def _bring_fits(part: Path, folder: Path) -> None:
    """Put the fits that another folder holds into this one."""
    (folder / "fits").mkdir(parents=True, exist_ok=True)
    for file in sorted((part / "fits").glob("*.nc")):
        there = folder / "fits" / file.name
        if there.exists():
            continue
        try:
            os.link(file, there)
        except OSError:  # another file system, or one without links
            partial = there.with_name(f".{there.name}.partial")
            shutil.copyfile(file, partial)
            partial.replace(there)


def _end_with_worker() -> None:
    """End this process in good order once the worker closes the pipe, as it does when it dies."""
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE)
    os._exit(ENDED)  # whatever did not heed it


def _take_cores(number: int) -> list[filelock.FileLock]:
    """Keep this process to so many cores, no other cell's as far as there are enough; return what holds them."""
    if not hasattr(os, "sched_setaffinity"):
        return []
    available = sorted(os.sched_getaffinity(0))
    number = min(number, len(available))
    locks: dict[int, filelock.FileLock] = {}
    folder = Path(tempfile.gettempdir()) / f"hmcvi-cores-{os.getuid()}"
    for core in available:
        if len(locks) == number:
            break
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            lock = filelock.FileLock(folder / f"{core}.lock")
            lock.acquire(blocking=False)
        except (filelock.Timeout, OSError):
            continue
        locks[core] = lock
    others = [core for core in available if core not in locks]  # of another sweep: they are shared
    os.sched_setaffinity(0, [*locks, *others][:number])
    return list(locks.values())


if __name__ == "__main__":
    sys.exit(_main())
