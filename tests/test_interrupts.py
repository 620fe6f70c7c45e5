"""Ctrl-C and kill on the real command: what is done is kept, and the same command ends in the same bytes."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from .run_folders import differences

COMMAND = [sys.executable, "-m", "hmcvi.benchmarks.cli", "compare", "--data", "wine", "--no-figures", "--ood"]
METHODS = ["--methods", "nuts", "svi", "--nuts", "num_warmup=100", "num_draws=100", "num_chains=2", "--svi"]
STEPS = ["num_steps=3000", "num_draws=50"]


@pytest.fixture(autouse=True)
def heeded() -> Iterator[None]:
    """Ctrl-C is heeded, here and in the processes begun here, also where this one was begun with it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def begin(out: Path) -> subprocess.Popen[str]:
    command = [*COMMAND, *METHODS, *STEPS, "--checkpoint-seconds", "0", "--out", str(out)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(out: Path) -> str:
    process = begin(out)
    _, said = process.communicate(timeout=600)
    assert process.returncode == 0, said
    return said


def stop(out: Path, number: signal.Signals, when: Callable[[Path], bool]) -> tuple[int, str]:
    """Begin or go on, send a signal as soon as the folder is so, and return the exit status and what was said."""
    process, ends = begin(out), time.monotonic() + 600
    while not when(out) and process.poll() is None and time.monotonic() < ends:
        time.sleep(0.01)
    process.send_signal(number)
    _, said = process.communicate(timeout=600)
    return process.returncode, said


def test_after_an_interrupt_and_a_kill_the_same_command_ends_in_the_same_bytes(tmp_path: Path) -> None:
    whole, out = tmp_path / "whole", tmp_path / "run"
    finish(whole)
    checkpoint = out / "fits" / "nuts-seed0.checkpoint"
    status, said = stop(out, signal.SIGINT, lambda out: checkpoint.exists())
    assert status == 130
    assert "Traceback" not in said
    assert f"interrupted; {out} is incomplete: 0 of 2 fits are finished; the fit is kept in {checkpoint}" in said
    assert "the same command goes on: hmcvi compare --data wine" in said
    assert "0 of 2 fits" in (out / "INCOMPLETE").read_text()
    kept = checkpoint.read_bytes()
    status, said = stop(out, signal.SIGKILL, lambda out: checkpoint.exists() and checkpoint.read_bytes() != kept)
    assert status == -signal.SIGKILL
    assert "going on where it was interrupted" in said
    said = finish(out)
    assert "nuts, seed 0: fitting" in said
    assert not (out / "INCOMPLETE").exists()
    assert sorted(file.name for file in (out / "fits").iterdir()) == ["nuts-seed0.nc", "svi-seed0.nc"]
    assert differences(whole, out)[1] == []
    assert "nuts, seed 0: read from" in finish(out)


@pytest.mark.validate
def test_five_kills_at_random_moments(tmp_path: Path, record: Any) -> None:
    whole, out = tmp_path / "whole", tmp_path / "run"
    began = time.monotonic()
    finish(whole)
    seconds = time.monotonic() - began
    random = np.random.default_rng(int(began))
    moments = sorted(random.uniform(0.05, 1.2, 5) * seconds / 2)
    for moment in moments:
        after = time.monotonic() + moment
        stop(out, signal.SIGKILL, lambda out, after=after: time.monotonic() > after)
    finish(out)
    number, differ = differences(whole, out)
    what = f"after SIGKILL at {', '.join(f'{moment:.0f}' for moment in moments)} s: arrays that differ, of {number}"
    record("Resumed runs", what, len(differ), high=1)


BUSY = """
import hashlib, sys, threading
from hmcvi.benchmarks.interrupts import EndingSoon
print("ready", flush=True)
with EndingSoon("nothing was lost", patience=0.2):
    hashlib.pbkdf2_hmac("sha512", b"x", b"y", 2_000_000_000)  # minutes in which Python heeds nothing, as in XLA
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_heeds_no_interrupt_is_ended(number: signal.Signals) -> None:
    process = subprocess.Popen([sys.executable, "-c", BUSY], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.5)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert said.strip() == "hmcvi: interrupted; nothing was lost"
