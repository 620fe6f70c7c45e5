"""What is malformed is refused in one sentence, before any sampling, and nothing that was there is lost.

The laws throw options, names, files and runs' folders at the command, up to where sampling would begin; the lists after
them name each fault that is promised a sentence of its own.
"""

from __future__ import annotations

import errno
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hmcvi.benchmarks import cli, refusal, several
from hmcvi.benchmarks.paths import require_file
from hmcvi.benchmarks.raw import DataError
from hmcvi.inference import FitError, memory

from .malformed import (
    ask,
    check_refusal,
    files_in,
    letters,
    malformed,
    many,
    names,
    numbers,
    rows_of,
    stop_before_sampling,
)
from .run_folders import write_run

X = np.random.default_rng(0).normal(size=(40, 2))
Y = np.arange(40) % 2


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder to work in, where no fit begins; good.npz and the finished run `run` are in it."""
    folder = tmp_path_factory.mktemp("place")
    with pytest.MonkeyPatch.context() as monkeypatch:
        stop_before_sampling(monkeypatch, folder)
        np.savez(folder / "good.npz", x=X, y=Y)
        write_run(folder / "run", {"nuts": [0.5], "svi": [0.4]})
        yield folder


def answer(place, arguments):
    """Ask the command, check what holds of every answer, and leave the folder as it was."""
    before = files_in(place)
    status, said, printed = ask(arguments)
    if status is None:
        shutil.rmtree(place / "runs", ignore_errors=True)
        return None
    assert status in (0, 1, 2)
    if status:
        check_refusal(said)
        assert printed == "" or arguments[0] != "compare"
    assert files_in(place) == before
    return said


# --- the laws of the command

NUMERIC = ("--rows", "--test-rows", "--seeds", "--image-size", "--budget-seconds", "--budget-gradients")

GOOD = ("compare", "--data", "good.npz", "--ood", "--quiet")


@many(100)
@given(flags=st.lists(st.tuples(st.sampled_from((*NUMERIC, "--checkpoint-seconds")), numbers), min_size=1, max_size=3))
def test_numbers(place, flags):
    arguments = [part for flag, number in flags for part in (flag, number)]
    answer(place, [*GOOD, "--methods", "map", *arguments])


OPTIONS = {
    "nuts": "num_warmup num_draws num_chains target_accept max_tree_depth dense_mass chain_method max_passes",
    "hmc": "trajectory_length max_num_steps num_draws max_seconds",
    "mclmc": "thinning desired_energy_var num_warmup",
    "mams": "thinning mean_num_steps target_accept num_warmup",
    "svi": "num_draws init_scale num_particles guide num_steps batch_size learning_rate schedule optimizer start",
    "bbb": "clip_norm temperature kl_weighting num_draws num_restarts estimator",
    "ensemble": "size num_steps learning_rate",
    "laplace": "num_draws num_steps",
}
KEYS = [(method, key) for method, keys in OPTIONS.items() for key in keys.split()]


@many(120)
@given(
    option=st.sampled_from([*KEYS, *[("model-options", key) for key in ("widths", "prior", "activation", "x")]]),
    value=st.one_of(
        numbers, numbers.map("normal:{}".format), numbers.map("sgd:{}".format), numbers.map("map:{}".format)
    ),
    joint=st.sampled_from(["=", "=", "=", "", ":", "=="]),
)
def test_hyperparameters(place, option, value, joint):
    group, key = option
    method = group if group in OPTIONS else "map"
    answer(place, [*GOOD, "--methods", method, f"--{group}", f"{key}{joint}{value}"])


NAMED = ("--model", "--methods", "--ood", "--shift", "--target", "--task", "--splits", "--data-dir", "--foo", "--seeds")


@many(120)
@given(
    data=st.one_of(st.just("good.npz"), names),
    flags=st.lists(st.tuples(st.sampled_from(NAMED), names), max_size=2),
)
@example(data="x" * 5000, flags=[])
@example(data="~nobody/x.csv", flags=[])
@example(data="good.npz", flags=[("--ood", "held_out:" + "9" * 5000)])
@example(data="mnist", flags=[("--data-dir", "x" * 5000)])
def test_names(place, data, flags):
    arguments = [part for flag, name in flags for part in (flag, name)]
    methods = [] if "--methods" in arguments else ["--methods", "map"]
    answer(place, ["compare", "--quiet", f"--data={data}", *methods, *arguments])


@many(30)
@given(
    out=st.one_of(
        st.sampled_from(["", " ", "\0", "\ud800", "good.npz", "run", "/dev/null/x", "/proc/x", "x" * 300]), letters
    )
)
def test_folders(place, out):
    before = files_in(place)
    said = answer(place, [*GOOD, "--methods", "map", f"--out={out}"])
    if said is None:  # a folder was made, and is the only change
        made = sorted(set(files_in(place)) - set(before))
        assert made
        shutil.rmtree(made[0])
    assert files_in(place) == before


COMMANDS = (["table"], ["table", "run"], ["report"], ["data", "list", "--data-dir"], ["data", "prepare"], ["data"], [])
COMMANDS += (
    ["reproduce"],
    ["reproduce", "--list", "--seeds"],
    ["table", "run", "--scores"],
    ["table", "run", "--format"],
)


@many(100)
@given(command=st.sampled_from(COMMANDS), given_names=st.lists(names, min_size=1, max_size=2))
def test_the_other_commands(place, command, given_names):
    if command == ["reproduce"] and not all(given_names):
        return
    answer(place, [*command, *given_names])


# --- the laws of files


@many(100)
@given(
    x=rows_of(10),
    y=rows_of(10),
    further=st.sampled_from(["", "x_test", "y_test", "both"]),
    test=st.tuples(malformed, malformed),
)
def test_npz_files(place, x, y, further, test):
    parts = {"x": x, "y": y}
    parts |= {"x_test": test[0]} if further in ("x_test", "both") else {}
    parts |= {"y_test": test[1]} if further in ("y_test", "both") else {}
    try:
        np.savez(place / "drawn.npz", **parts)
    except ValueError:  # NumPy writes no rows of unequal lengths
        return
    answer(place, ["compare", "--quiet", "--data", "drawn.npz", "--methods", "map", "--ood"])


cell = st.one_of(
    st.sampled_from(["1", "2", "0", "", "nan", "inf", "1e400", "1e300", "a", '"', "\0", "é", "NA", "-1"]), numbers
)


@many(80)
@given(
    lines=st.lists(st.lists(cell, min_size=1, max_size=4), max_size=12),
    ending=st.sampled_from(["csv", "parquet", "npz", "json"]),
    encoding=st.sampled_from(["utf-8", "utf-16", "latin-1"]),
    target=st.sampled_from(["y", "a", "", None]),
)
def test_tables(place, lines, ending, encoding, target):
    text = "\n".join(",".join(line) for line in [["a", "y"], *lines])
    (place / f"drawn.{ending}").write_bytes(text.encode(encoding, errors="replace"))
    options = [] if target is None else ["--target", target]
    answer(place, ["compare", "--quiet", "--data", f"drawn.{ending}", "--methods", "map", "--ood", *options])
    answer(place, [*GOOD[:3], "--quiet", "--methods", "map", "--ood", f"drawn.{ending}"])


@many(60)
@given(
    content=st.binary(max_size=60),
    head=st.sampled_from([b"", b"PK\x03\x04", b"PAR1", b"\x93NUMPY\x01\x00", b"{", b"["]),
    file=st.sampled_from(["npz", "csv", "parquet", "json"]),
)
def test_binary_rubbish(place, content, head, file):
    (place / f"drawn.{file}").write_bytes(head + content)
    answer(place, ["compare", "--data", f"drawn.{file}", "--target", "y"])
    answer(place, [*GOOD, "--splits", f"drawn.{file}"])


plain = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-50, 50), st.floats(), st.text(max_size=3)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=2)),
    max_leaves=5,
)


@many(60)
@given(splits=st.one_of(plain, st.fixed_dictionaries({"train": plain, "test": plain}, optional={"validation": plain})))
def test_splits(place, splits):
    (place / "drawn.json").write_text(json.dumps(splits))
    answer(place, [*GOOD, "--methods", "map", "--splits", "drawn.json"])


@many(40)
@given(
    file=st.sampled_from(["table.csv", "summary.json", "config.json", "manifest.json", "SHA256SUMS"]),
    content=st.one_of(st.binary(max_size=40), plain.map(repr).map(str.encode), st.just(b"[" * 100_000)),
)
def test_damaged_folders(place, file, content):
    path = place / "run" / file
    whole = path.read_bytes()
    try:
        path.write_bytes(content)
        for command in (["table", "run"], ["report", "run"], ["table", "run", "--format", "markdown"]):
            status, said, _ = ask(command)
            if status:
                assert status in (1, 2)
                check_refusal(said)
    finally:
        path.write_bytes(whole)
        (place / "run" / "report.html").unlink(missing_ok=True)


# --- each fault by name


def with_value(array, value, *at):
    array = array.astype(float)
    array[at] = value
    return array


FILES = {
    "NaN": ({"x": with_value(X, np.nan, 3, 1), "y": Y}, "x holds nan in row 3"),
    "infinite": ({"x": with_value(X, -np.inf, 3, 1), "y": Y}, "x holds -inf in row 3"),
    "all targets NaN": ({"x": X, "y": np.full(40, np.nan)}, "y holds nan in row 0"),
    "wrong shape": ({"x": X, "y": np.eye(40)}, "y has shape (40, 40)"),
    "no columns": ({"x": X[:, :0], "y": Y}, "x is empty (shape (40, 0))"),
    "no rows": ({"x": X[:0], "y": Y[:0]}, "x is empty"),
    "a label that is none": (
        {"x": X, "y": Y, "x_test": X, "y_test": Y + 1},
        "class 2 is in 20 of the rows to score and in no training row",
    ),
    "labels that are no whole numbers": (
        {"x": X, "y": Y + 0.5, "x_test": X, "y_test": X[:, 0] * 1e300},
        "'the target' is",
    ),
    "a test row that is far out": ({"x": X, "y": Y, "x_test": X * 1e200, "y_test": Y}, "more than 1e+12 sds"),
    "beyond float64": ({"x": X.astype("g") * np.longdouble("1e400"), "y": Y}, "x holds"),
}


@pytest.mark.parametrize("fault", FILES)
def test_arrays_of_a_file(fault, place):
    arrays, wanted = FILES[fault]
    np.savez(place / "drawn.npz", **arrays)
    said = answer(place, ["compare", "--data", "drawn.npz"])
    assert wanted in said


REQUESTS = {
    "label out of range": (["--splits", "all-zeros.json"], "class 1 is in"),
    "empty split": (["--splits", "empty.json"], "have no test rows"),
    "missing data set": (["--data", "kmnist"], "hmcvi data prepare kmnist"),
    "missing file": (["--data", "nowhere.csv"], "there is no file nowhere.csv"),
    "folder for a file": (["--data", "folder.csv"], "folder.csv is a folder, but a file is wanted"),
    "folder for splits": (["--splits", "folder.json"], "folder.json is a folder, but a file of splits is wanted"),
    "unwritable folder": (["--out", "/dev/null/x"], "/dev/null/x cannot be written"),
    "file for a folder": (["--out", "good.npz"], "good.npz"),
    "folder in a file": (["--out", "good.npz/x"], "good.npz/x cannot be written"),
    "no folder": (["--out", ""], "argument --out: '' is no path"),
    "seed below 0": (["--seeds", "-1"], "seed -1: give a whole number from 0 to 2³² - 1"),
    "seed beyond 32 bits": (["--seeds", "99999999999999999999"], "seed 99999999999999999999: give a whole number"),
    "rows that are no whole number": (["--rows", "1e9"], "argument --rows: '1e9' is no whole number"),
    "budget that is no number": (["--budget-seconds", "nan"], "a budget of nan seconds"),
    "endless budget": (["--budget-seconds", "inf"], "a budget of inf seconds"),
    "checkpoints that are never": (["--checkpoint-seconds", "-1"], "no number of seconds"),
    "more draws than 32 bits count": (["--nuts", "num_draws=1000000000000"], "a whole number of at most 2,147,483,647"),
    "more draws than memory": (["--nuts", "num_draws=2000000000"], "GiB of memory (4 chains x 2,000,000,"),
    "more draws of svi": (["--methods", "svi", "--svi", "num_draws=2000000000"], "(2,000,000,000 draws x "),
    "more members": (["--methods", "ensemble", "--ensemble", "size=2000000000"], "(2,000,000,000 members x "),
    "a mass matrix": (
        ["--methods", "nuts", "--nuts", "dense_mass=true", "--model-options", "widths=90000"],
        "a dense mass matrix of ",
    ),
    "a model beyond memory": (["--methods", "map", "--model-options", "widths=99999,99999"], "parameters x 4 bytes"),
    "draws that convergence cannot be judged of": (["--methods", "nuts", "--nuts", "num_draws=3"], "at least 4"),
    "a learning rate that is none": (["--methods", "bbb", "--bbb", "learning_rate=nan"], "learning_rate=nan"),
    "no width": (["--model-options", "widths=0"], "whole numbers of at least 1"),
    "commas alone": (["--model-options", "widths=,"], "whole numbers of at least 1"),
    "a prior that float32 does not hold": (["--model-options", "prior=normal:1e300"], "as float32 holds"),
    "a momentum that only grows": (["--methods", "svi", "--svi", "optimizer=sgd:nan"], "a momentum from 0 to below 1"),
    "far beyond all data": (["--ood", "extrapolation:1e38"], "a factor above 1 is wanted"),
    "far beyond all data, step by step": (["--ood", "+".join(["extrapolation:1e6"] * 3)], "no prediction is finite"),
}


@pytest.mark.parametrize("fault", REQUESTS)
def test_requests(fault, place):
    arguments, wanted = REQUESTS[fault]
    (place / "all-zeros.json").write_text(str({"train": [0, 2, 4], "test": [1, 3]}).replace("'", '"'))
    (place / "empty.json").write_text('{"train": [0, 1], "test": []}')
    for name in ("folder.csv", "folder.json"):
        (place / name).mkdir(exist_ok=True)
    said = answer(place, ["compare", "--data", "good.npz", *arguments])
    assert wanted in said


@pytest.mark.parametrize(
    ("package", "arguments", "wanted"),
    [
        ("blackjax", ["--methods", "mclmc"], "pip install 'hmcvi[samplers]'"),
        ("h5netcdf", ["--methods", "map"], "no netCDF writer is installed: pip install 'arviz[h5netcdf]'"),
    ],
)
def test_a_missing_package_is_named_with_what_installs_it(package, arguments, wanted, place, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == package else found(name, *rest)
    )
    assert wanted in answer(place, [*GOOD, *arguments])


def test_too_little_memory_is_said_with_the_estimate(place, monkeypatch):
    monkeypatch.setattr(memory, "available_bytes", lambda: 2**21)
    said = answer(place, [*GOOD, "--methods", "nuts"])
    assert (
        "nuts would hold about 0.0 GiB of memory (4 chains x 1,000 draws with those of the warm-up x 82 parameters"
        in said
    )
    assert "take fewer draws" in said


def test_a_large_run_says_what_it_will_hold(place, capsys):
    options = ["--methods", "nuts", "--nuts", "num_draws=200000"]
    status, said, _ = ask(["compare", "--data", "good.npz", "--ood", *options])
    shutil.rmtree(place / "runs")
    assert status is None
    assert "The fits of a seed will hold about" in said
    assert "200,500 draws" in said


def test_a_file_that_may_not_be_read_says_so(tmp_path, monkeypatch):
    (tmp_path / "secret.csv").write_text("a,y\n")
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may read everything
    with pytest.raises(DataError, match=r"secret\.csv cannot be read \(Permission denied\)"):
        require_file(tmp_path / "secret.csv")


# --- what is nobody's fault, and what is hmcvi's


def fail_with(monkeypatch, error):
    def fail(*arguments, **options):
        raise error

    monkeypatch.setattr(several, "compare_several", fail)


class OutOfDeviceMemory(RuntimeError):
    """Stands for JAX's own."""


ENDS = {
    "no memory": (MemoryError(), 1, "the memory is full: take fewer rows, fewer draws or a smaller model"),
    "no device memory": (OutOfDeviceMemory("RESOURCE_EXHAUSTED: Out of memory"), 1, "the memory is full"),
    "full disk": (
        OSError(errno.ENOSPC, "No space left on device", "x/y.nc"),
        1,
        "x/y.nc cannot be read or written (No",
    ),
    "diverged": (FitError("svi, seed 0: the loss became inf"), 1, "svi, seed 0: the loss became inf"),
    "missing module": (ModuleNotFoundError("No module named 'torch'", name="torch"), 2, "pip install 'hmcvi[peers]'"),
    "no such data": (DataError("no such\ndata \0"), 2, "hmcvi: error: no such data \\x00\n"),
}


@pytest.mark.parametrize("end", ENDS)
def test_ends(end, place, monkeypatch):
    error, status, wanted = ENDS[end]
    fail_with(monkeypatch, error)
    before = files_in(place)
    found, said, _ = ask([*GOOD, "--methods", "map"])
    assert found == status
    check_refusal(said)
    assert wanted in said
    assert files_in(place) == before


@pytest.mark.parametrize(
    "error", [KeyError("a"), ValueError("shapes (3,) and (4,)"), TypeError("x"), RecursionError("deep")]
)
def test_a_fault_of_hmcvi_is_no_bad_input(error, place, monkeypatch):
    fail_with(monkeypatch, error)
    status, said, _ = ask([*GOOD, "--methods", "map"])
    assert status == refusal.FAULT == 70
    check_refusal(said)
    assert f"{type(error).__name__}: {error}; this is a fault of hmcvi" in said
    file = Path(said.rpartition(" ")[2].strip())
    assert file.parent == place
    written = file.read_text()
    file.unlink()
    assert "Traceback" in written
    assert "raise error" in written
    assert "command='compare'" in written


def test_the_traceback_of_a_run_is_in_its_folder(place, monkeypatch):
    fail_with(monkeypatch, KeyError("a"))
    assert ask([*GOOD, "--methods", "map", "--out", "run"])[0] == 70
    assert "KeyError" in (place / "run" / "fault.txt").read_text()
    (place / "run" / "fault.txt").unlink()


def test_an_interruption_before_anything_began(place, monkeypatch):
    def interrupted(arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_check_prepared", interrupted)
    assert ask([*GOOD])[:2] == (130, "hmcvi: interrupted; nothing was written\n")


def test_a_reader_that_goes_away_ends_it_quietly(place):
    """A pipe is closed before a line of it is read."""
    command = f"{sys.executable} -m hmcvi.benchmarks.cli data list | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, cwd=place)
    assert done.stderr == ""
    assert done.stdout.strip() in ("0", "1", "141")  # Rich, which prints the list, ends it with 1


def test_a_terminal_without_a_letter_shows_its_number(place):
    command = [sys.executable, "-m", "hmcvi.benchmarks.cli", "compare", "--data", "dïgits"]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=place, env=environment)
    assert done.returncode == 2
    assert "there is no data set 'd\\xefgits'" in done.stderr
    assert "Traceback" not in done.stderr


def test_nothing_saved_is_lost_by_a_refusal(place):
    """A finished run's folder, asked for with other options, is refused and left as it is."""
    before = {path: path.read_bytes() for path in (place / "run").rglob("*") if path.is_file()}
    for options in (["--rows", "-1"], ["--methods", "map"], ["--svi", "num_steps=nan"]):
        assert answer(place, ["compare", "--data", "wine", "--out", "run", *options])
    assert {path: path.read_bytes() for path in before} == before
