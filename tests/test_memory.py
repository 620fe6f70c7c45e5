"""The memory that a process holds and has held: its own, whatever its parent holds."""

from __future__ import annotations

import resource
import subprocess
import sys

import numpy as np
import pytest

from hmcvi.benchmarks import memory

MIB = 2**20

# The module's own packages are left out of the child, so that it holds next to nothing.
CHILD = """
import importlib.util, pathlib, resource, sys, types
package = types.ModuleType("package")
package.__path__ = []
raw = types.ModuleType("package.raw")
raw.DataError = ValueError
sys.modules |= {"package": package, "package.raw": raw}
spec = importlib.util.spec_from_file_location("package.memory", sys.argv[1])
memory = importlib.util.module_from_spec(spec)
spec.loader.exec_module(memory)
before = memory.peak_bytes()
held = bytearray(64 * 2**20)
print(before, memory.peak_bytes())
"""


@pytest.mark.skipif(not memory.PROCESSES.is_dir(), reason="needs /proc, where Linux says what a process holds")
def test_a_child_reports_its_own_peak_and_not_that_of_its_large_parent():
    held = np.ones(400 * MIB, np.uint8)
    run = subprocess.run([sys.executable, "-c", CHILD, memory.__file__], stdout=subprocess.PIPE, text=True, check=True)
    before, after = map(int, run.stdout.split())
    assert memory.peak_bytes() > held.nbytes
    assert MIB < before < 100 * MIB  # an interpreter with psutil
    assert 60 * MIB < after - before < 80 * MIB


def test_another_process_is_asked_by_its_number():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        found = memory.peak_bytes(process.pid)
        process.communicate(b"\n")
    assert 0 < found < 100 * MIB
    with pytest.raises(ProcessLookupError, match=f"process {process.pid} has ended"):
        memory.peak_bytes(process.pid)


def test_a_system_without_proc_is_asked_otherwise(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "PROCESSES", tmp_path)
    unit = 1 if sys.platform == "darwin" else 1024
    assert memory.peak_bytes() == pytest.approx(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit, rel=0.01)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        assert memory.peak_bytes(process.pid) > 0
        process.communicate(b"\n")


def test_the_heap_in_use_grows_and_shrinks_with_what_is_held():
    before = memory.heap_in_use()
    if before is None:
        pytest.skip("this C library does not say")
    held = [np.ones(2**20), np.ones(2**20)]
    assert 16 * 2**20 <= memory.heap_in_use() - before < 17 * 2**20
    del held
    assert abs(memory.heap_in_use() - before) < 2**20
