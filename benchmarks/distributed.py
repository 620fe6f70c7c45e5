"""Several processes that make one run together: who they are, how they begin, and how they end where one of them does.

Each process is two: the worker, which computes, and one that started it and waits. JAX ends a worker from within where
the coordinator is gone, without a word that a person could use; whoever waits says the sentence, whatever happened.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any

__all__ = [
    "LostError",
    "Place",
    "add_options",
    "begin",
    "end",
    "find_place",
    "is_lost",
    "is_worker",
    "leave",
    "lost_sentence",
    "supervise",
]

GOES_ON = "start all processes again with the same commands, and the run goes on from what was last kept in its folder"

WORKER = "HMCVI_WORKER_PIPES"
"""Holds, in a worker's environment, two pipes: one whose end says that nobody waits for it any more, and one that it
writes a byte to once it has joined the others."""

HEARTBEAT_SECONDS = 20
"""Silence after which JAX holds a process for dead: one that was stopped, or whose network is gone. One that was killed
closes its connections, which the others notice at once."""

JOIN_SECONDS = 50
"""Time that all processes may take to come together: within a minute, something is said."""

ENDING_SECONDS = 2.0
"""What process 0, by which all are in touch, gives the others to end by themselves where all end early."""

LOST = re.compile(
    r"\b(gloo\b|nccl)|coordination service|distributed service|UNAVAILABLE|DEADLINE_EXCEEDED|"
    r"connection (reset|closed)|heartbeat|barrier",
    re.IGNORECASE,
)
"""What JAX's own errors say where another process does not answer; those of collectives are of that kind too."""

LAUNCHERS = {
    "SLURM": ("SLURM_NTASKS", "SLURM_PROCID"),
    "Open MPI": ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),
    "the environment": ("JAX_NUM_PROCESSES", "JAX_PROCESS_ID"),
}
"""Variables with the number of processes and this one's place. JAX finds the coordinator of the first two by itself."""

COORDINATOR = "JAX_COORDINATOR_ADDRESS"


class LostError(RuntimeError):
    """Another process does not answer."""


@dataclass(frozen=True)
class Place:
    """This process among those of a run.

    Attributes:
        coordinator: address of process 0 as HOST:PORT; None where JAX reads it off the launcher's variables.
        num_processes: number of processes.
        process_id: this one's place, from 0.
    """

    coordinator: str | None
    num_processes: int
    process_id: int

    def __str__(self) -> str:
        return f"process {self.process_id} of {self.num_processes}"


def add_options(parser: Any, whole: Any) -> None:
    """Add the options of a mesh and of several processes."""
    parser.add_argument(
        "--chains-per-device",
        type=whole,
        metavar="K",
        help="divide the samplers' chains over devices, K to each (or to each group that shares rows)",
    )
    parser.add_argument(
        "--shard-rows",
        type=whole,
        metavar="N",
        help="divide the training rows over N devices, which add up their gradients. On a CPU as many host devices are "
        "made as the two options ask for; elsewhere there must be as many",
    )
    parser.add_argument(
        "--rows-across-processes",
        action="store_true",
        help="divide the rows over processes before devices within one: each process then holds a part of them only, "
        "and every gradient crosses the network",
    )
    parser.add_argument(
        "--coordinator",
        metavar="HOST:PORT",
        help=f"of several processes, the address of the first. Default: ${COORDINATOR}, or what SLURM or Open MPI say",
    )
    parser.add_argument("--num-processes", type=whole, metavar="P", help="number of processes, likewise")
    parser.add_argument("--process-id", type=whole, metavar="I", help="which of them this is, from 0, likewise")


def find_place(options: Any, environment: Mapping[str, str]) -> Place | None:
    """Return this process's place by the flags, or by what a launcher put into the environment; None where it is alone.

    A launcher's variables are heeded where a mesh is asked for: else each of its processes makes a run of its own.

    Raises:
        UsageError: some of the flags are missing or cannot be.
    """
    from .options import UsageError  # which takes JAX to import

    flags = {"--coordinator": options.coordinator, "--num-processes": options.num_processes}
    flags["--process-id"] = options.process_id
    given = [name for name, value in flags.items() if value is not None]
    wants_mesh = options.chains_per_device is not None or options.shard_rows is not None
    if not given and not wants_mesh:
        return None
    coordinator = options.coordinator or environment.get(COORDINATOR)
    number, place = options.num_processes, options.process_id
    launcher = ""
    if number is None and place is None:
        for name, variables in LAUNCHERS.items():
            found = [environment.get(variable) for variable in variables]
            if all(value is not None for value in found):
                for variable, value in zip(variables, found, strict=True):
                    if not str(value).isdecimal():
                        raise UsageError(f"${variable} is {value!r}: a whole number was expected of {name}")
                number, place, launcher = int(str(found[0])), int(str(found[1])), name
                break
    if not given and (number is None or number == 1):
        return None
    missing = [name for name, value in (("--num-processes", number), ("--process-id", place)) if value is None]
    if missing or (coordinator is None and launcher not in ("SLURM", "Open MPI")):
        missing += ["--coordinator"] if coordinator is None else []
        raise UsageError(f"of several processes each needs its place: {' and '.join(missing)} must be given too")
    assert number is not None
    assert place is not None
    if number < 1:
        raise UsageError(f"--num-processes {number}: give a whole number of at least 1")
    if not 0 <= place < number:
        raise UsageError(f"--process-id {place} of {number} processes: give a whole number from 0 to {number - 1}")
    if coordinator is not None:
        host, _, port = coordinator.rpartition(":")
        if not host or not port.isdecimal() or not 1 <= int(port) <= 65535:
            raise UsageError(f"--coordinator {coordinator!r}: give HOST:PORT, a port from 1 to 65535")
    if not wants_mesh:
        raise UsageError("several processes divide chains and rows: give --chains-per-device or --shard-rows too")
    return None if number == 1 else Place(coordinator, number, place)


def is_worker() -> bool:
    """Return whether another process waits for this one."""
    return WORKER in os.environ


def supervise(place: Place, arguments: Sequence[str], going_on: str) -> int:
    """Run the command in a worker, and return its exit status; say a sentence where it did not end by itself.

    Arguments:
        place: this process's place.
        arguments: the command's.
        going_on: how the run goes on.
    """
    held, closing = os.pipe()
    joined, joining = os.pipe()
    command = [sys.executable, "-m", "hmcvi.benchmarks.cli", *arguments]
    # a group of its own: a terminal's Ctrl-C then comes once, from here
    worker = subprocess.Popen(
        command,
        env=os.environ | {WORKER: f"{held} {joining}"},
        pass_fds=[held, joining],
        process_group=0,
        stdin=subprocess.DEVNULL,
    )
    os.close(held)
    os.close(joining)

    def pass_on(number: int, frame: FrameType | None) -> None:
        with contextlib.suppress(ProcessLookupError):
            worker.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        status = worker.wait()
        os.set_blocking(joined, False)  # what the worker began may hold its end still
        try:
            has_joined = bool(os.read(joined, 1))
        except BlockingIOError:
            has_joined = False
    finally:
        os.close(closing)
        os.close(joined)
        for number, handler in before.items():
            signal.signal(number, handler)
    if status >= 0:
        return status
    name = signal.Signals(-status).name
    if -status != signal.SIGABRT:
        print(f"hmcvi: error: {place} was ended by {name}; {going_on}", file=sys.stderr)
        return 1
    # JAX ends it so where the others are gone, or have not come
    print(f"hmcvi: error: {lost_sentence(place, going_on) if has_joined else absent_sentence(place)}", file=sys.stderr)
    return 1 if has_joined else 2


def lost_sentence(place: Place, going_on: str) -> str:
    """Return what is said where another process does not answer."""
    return f"{place} stopped, because another of them ended or does not answer (its own messages say more); {going_on}"


def absent_sentence(place: Place, reason: str = "") -> str:
    """Return what is said where the others did not come; `reason` is what JAX said of it."""
    where = place.coordinator or "the launcher's address"
    return (
        f"{place} could not join the others at {where} within {JOIN_SECONDS} s{f' ({reason})' if reason else ''}: "
        "start all of them, with one --coordinator that they can reach"
    )


def is_lost(error: BaseException) -> bool:
    """Return whether an error of JAX, or one that it led to, says that another process does not answer.

    An error with a sentence of its own says what is wrong, whatever led to it.
    """
    from jax.errors import JaxRuntimeError

    from hmcvi.inference import FitError

    from .options import UsageError
    from .raw import DataError

    if isinstance(error, UsageError | DataError | FitError | OSError):
        return False
    chain: BaseException | None = error
    while chain is not None:
        if isinstance(chain, JaxRuntimeError) and LOST.search(str(chain)):
            return True
        chain = chain.__cause__ or chain.__context__
    return False


def begin(place: Place) -> None:
    """Join the other processes; before JAX has computed anything.

    Raises:
        UsageError: they did not come within a minute.
    """
    import jax

    from .options import UsageError

    _end_with_whoever_waits()
    _keep_output_clean()
    # SIGTERM is ours: the fit is kept, and the command ends
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            place.coordinator,
            place.num_processes,
            place.process_id,
            initialization_timeout=JOIN_SECONDS,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
            shutdown_timeout_seconds=HEARTBEAT_SECONDS,
        )
    except (RuntimeError, ValueError) as error:
        raise UsageError(absent_sentence(place, str(error).partition("\n")[0][:200])) from error
    if is_worker():
        os.write(_pipes()[1], b"1")


def leave() -> None:
    """Wait until all processes are done, and part from them."""
    import jax
    from jax.experimental import multihost_utils

    multihost_utils.sync_global_devices("all processes are done")
    jax.distributed.shutdown()


def end(status: int) -> None:
    """End this worker without JAX's own end, which would wait for processes that may not come."""
    sys.stdout.flush()
    sys.stderr.flush()
    if status and "jax" in sys.modules and sys.modules["jax"].process_index() == 0:
        time.sleep(ENDING_SECONDS)
    os._exit(status)


def _pipes() -> tuple[int, int]:
    """Return this worker's pipes: to read where nobody waits any more, and to write to once it has joined."""
    held, joining = os.environ[WORKER].split()
    return int(held), int(joining)


def _end_with_whoever_waits() -> None:
    """End this process where the one that waits for it is gone: nobody would hear it, or could stop it."""
    if not is_worker():
        return
    held, _ = _pipes()

    def watch() -> None:
        os.read(held, 1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _keep_output_clean() -> None:
    """Send what Gloo prints on standard output to standard error: the scoreboard is read there."""
    sys.stdout.flush()
    own = os.dup(1)
    os.dup2(2, 1)
    sys.stdout = os.fdopen(own, "w", buffering=1, encoding=sys.stdout.encoding, errors="backslashreplace")
