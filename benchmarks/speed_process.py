"""The contestants of `speed.py`, each in a process of its own, and the clock that keeps compiling apart.

Processes differ as users' do: in the number of JAX's devices, in the interpreter. Nobody's failure ends another's
measurement, and what a case compares is compared first: contestants that do not do the same work are not timed.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import json
import math
import queue
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import jax

from .speed_table import Measurement

__all__ = ["Case", "Contestant", "Stopwatch", "keep_programs", "measure"]

PEERS = "pip install 'hmcvi[peers]'"

TOLERANCE = 1e-3
"""Relative difference of facts up to which work counts as equal: float32 sums over ten thousand rows agree to 1e-5."""

STARTING_SECONDS = 900.0
"""What importing and compiling may take."""

LEAVING_SECONDS = 5.0
"""What ending may take."""


@dataclass(frozen=True)
class Contestant:
    """Someone who takes part.

    Attributes:
        name: as the table says it, and as its module's `CONTESTANTS` does.
        module: a module of this room, or the script of a peer ("peer_torch.py").
        ours: whether it is hmcvi's.
        needs: a package that is not among hmcvi's own dependencies.
    """

    name: str
    module: str
    ours: bool = False
    needs: str = ""

    @property
    def is_script(self) -> bool:
        """Whether it may run under an interpreter of its own, as torch's do."""
        return self.module.endswith(".py")


@dataclass(frozen=True)
class Case:
    """What is compared.

    Attributes:
        name: as `--cases` takes it.
        title: what is measured, for a reader.
        unit: "s" (of which fewer are better), or something a second.
        contestants: who takes part, in the order of the table.
        size: what every contestant is made with.
        limit: seconds after which a round's answer is waited for no more.
        tolerances: absolute differences of facts up to which work counts as equal, by fact; others have a relative one.
    """

    name: str
    title: str
    unit: str
    contestants: tuple[Contestant, ...]
    size: Mapping[str, Any] = field(default_factory=dict)
    limit: float = 3600.0
    tolerances: Mapping[str, float] = field(default_factory=dict)


class Stopwatch:
    """Seconds since it was made, those of JAX's tracing and compiling apart.

    JAX says of each trace, lowering and compilation when it ends and how long it took. They lie within each other, so
    that their union counts, not their sum. What comes after `stop` counts for nothing.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock, self._started = clock, clock()
        self._compiling: list[tuple[float, float]] = []
        self._stopped: float | None = None
        jax.monitoring.register_event_duration_secs_listener(self._heard)

    def _heard(self, event: str, duration_secs: float, **kwargs: str | int) -> None:
        if event.startswith("/jax/core/compile/"):
            now = self._clock()
            self._compiling.append((max(now - duration_secs, self._started), now))

    @property
    def compile_seconds(self) -> float:
        """Seconds in which something was compiled."""
        total, reached = 0.0, -math.inf
        for begun, ended in sorted(self._compiling):
            total += max(0.0, ended - max(begun, reached))
            reached = max(reached, ended)
        return total

    @property
    def seconds(self) -> float:
        """All others."""
        now = self._clock() if self._stopped is None else self._stopped
        return now - self._started - self.compile_seconds

    def stop(self) -> Self:
        """Hold both numbers as they are."""
        if self._stopped is None:
            self._stopped = self._clock()
            jax.monitoring.unregister_event_duration_listener(self._heard)
        return self

    def took(self, count: float, **more: Any) -> dict[str, Any]:
        """Return a round's answer: see `peer_protocol.Ready`."""
        self.stop()
        return {"count": count, "seconds": self.seconds, "compile": self.compile_seconds, **more}


def keep_programs() -> str:
    """Keep compiled programs in a folder that goes with this process, and return what that is called."""
    folder = tempfile.TemporaryDirectory(prefix="hmcvi-speed-")
    atexit.register(folder.cleanup)
    jax.config.update("jax_compilation_cache_dir", folder.name)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    return "JAX's compilation cache"


class FailedError(Exception):
    """A contestant that cannot go on; the sentence says why."""


class Process:
    """A contestant's process."""

    def __init__(self, contestant: Contestant, size: Mapping[str, Any], torch_python: str | None) -> None:
        place = Path(__file__).parent
        command = [sys.executable, "-m", f"{__package__}.{contestant.module}"]
        if contestant.is_script:
            command = [torch_python or sys.executable, str(place / contestant.module)]
        if (not contestant.is_script or torch_python is None) and not _is_here(contestant.needs):
            raise FailedError(f"{contestant.needs} is not here ({PEERS})")
        self._contestant = contestant
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115, closed with the process
        self._process = subprocess.Popen(
            [*command, json.dumps({"contestant": contestant.name, "size": size})],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            bufsize=1,
        )
        self._lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        try:
            self.ready = self._answer(STARTING_SECONDS)
        except BaseException:
            self.close()
            raise

    def round(self, number: int, limit: float) -> dict[str, Any]:
        """Ask for a round and return its answer."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{number}\n")
        except BrokenPipeError:
            raise FailedError(self._last_words()) from None
        return self._answer(limit)

    def close(self) -> None:
        """End the process: its input ends, and it is not waited for long."""
        try:
            self._process.communicate(timeout=LEAVING_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
        self._errors.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with contextlib.suppress(ValueError):  # closed meanwhile
            for line in self._process.stdout:
                self._lines.put(line)
        self._lines.put("")

    def _answer(self, limit: float) -> dict[str, Any]:
        try:
            line = self._lines.get(timeout=limit)
        except queue.Empty:
            raise FailedError(f"no answer within {limit:,.0f} s") from None
        if not line:
            raise FailedError(self._last_words())
        found: dict[str, Any] = json.loads(line)
        return found

    def _last_words(self) -> str:
        """Return why the process ended."""
        status = self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().strip().splitlines() or ["it said nothing"]
        # JAX closes a traceback with a remark of its own.
        raised = [line for line in lines if re.match(r"[\w.]*(Error|Exception|Interrupt)\b", line)]
        last = (raised or lines)[-1]
        missing = re.search(r"No module named '(\w+)", last)
        return f"{missing[1]} is not here ({PEERS})" if missing else f"it ended with status {status}: {last}"


def measure(
    case: Case, rounds: int, torch_python: str | None = None, say: Callable[[str], Any] = lambda sentence: None
) -> list[Measurement]:
    """Return what each contestant took; in each round all take turns, and whoever breaks down is out.

    A round whose answer is a failure ("not converged") has no value, and the next round is another try.

    Arguments:
        case: what is compared.
        rounds: how often.
        torch_python: an interpreter for the peers that are scripts; None takes this one.
        say: told who is at it.
    """
    found = {contestant.name: _Tally(case, contestant) for contestant in case.contestants}
    processes: dict[str, Process] = {}
    try:
        for contestant in case.contestants:
            say(f"{case.name}: {contestant.name} starts")
            tally = found[contestant.name]
            try:
                processes[contestant.name] = process = Process(contestant, case.size, torch_python)
                tally.begin(process.ready)
                check_facts(
                    {name: of.facts for name, of in found.items() if not of.failure and of.facts}, case.tolerances
                )
            except FailedError as error:
                tally.failure = str(error)
        for number in range(rounds):
            for contestant in case.contestants:
                tally = found[contestant.name]
                if tally.failure:
                    continue
                say(f"{case.name}: round {number + 1}, {contestant.name}")
                try:
                    tally.add(processes[contestant.name].round(number, case.limit))
                except FailedError as error:
                    tally.failure = str(error)
                    processes.pop(contestant.name).close()  # it would go on beside the others
    finally:
        for process in processes.values():
            process.close()
    return [tally.measurement() for tally in found.values()]


def check_facts(facts: Mapping[str, Mapping[str, float]], tolerances: Mapping[str, float]) -> None:
    """Raise FailedError where the last contestant's facts are not those of the first.

    Arguments:
        facts: by contestant, those that have some.
        tolerances: see `Case`.
    """
    if not facts:
        return
    (first, wanted), (last, given) = next(iter(facts.items())), list(facts.items())[-1]
    if set(given) != set(wanted):
        raise FailedError(f"{last} tells {_listed(given)} and {first} {_listed(wanted)}: what is compared is unknown")
    for name, value in given.items():
        allowed = tolerances.get(name, TOLERANCE * abs(wanted[name]))
        if not abs(value - wanted[name]) <= allowed:  # NaN is no agreement
            raise FailedError(
                f"{name} is {value:.6g} by {last} and {wanted[name]:.6g} by {first}: what is compared is not the same"
            )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "nothing"


class _Tally:
    """What one contestant said so far."""

    def __init__(self, case: Case, contestant: Contestant) -> None:
        self._case, self._contestant = case, contestant
        self.failure, self.facts = "", dict[str, float]()
        self._answers: list[Mapping[str, Any]] = []
        self._about, self._compile_seconds = "", 0.0

    def begin(self, ready: Mapping[str, Any]) -> None:
        self._about, self._compile_seconds, self.facts = ready["about"], ready["compile"], ready["facts"]

    def add(self, answer: Mapping[str, Any]) -> None:
        if not self._answers:  # later rounds find programs in a cache
            self._compile_seconds += answer.get("compile", 0.0)
        self._answers.append(answer)

    def measurement(self) -> Measurement:
        missed = [answer["failure"] for answer in self._answers if answer.get("failure")]
        came = len(missed) < len(self._answers)
        seconds = tuple(float(answer.get("seconds", math.nan)) for answer in self._answers) if came else ()
        counts = [float(answer.get("count", math.nan)) for answer in self._answers] if came else []
        values = seconds if self._case.unit == "s" else tuple(c / s for c, s in zip(counts, seconds, strict=True))
        notes = [answer["note"] for answer in self._answers if answer.get("note")]
        failures = [f"{len(missed)} of {len(self._answers)} rounds {missed[-1]}"] if missed else []
        if self.failure:
            failures.append(self.failure)
        return Measurement(
            case=self._case.name,
            title=self._case.title,
            contestant=self._contestant.name,
            ours=self._contestant.ours,
            unit=self._case.unit,
            values=values,
            run_seconds=seconds,
            compile_seconds=self._compile_seconds,
            note="; ".join(part for part in (self._about, notes[-1] if notes else "") if part),
            failure="; ".join(failures),
        )


def _is_here(package: str) -> bool:
    return not package or importlib.util.find_spec(package) is not None
