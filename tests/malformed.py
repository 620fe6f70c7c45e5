"""What a careless or hostile user hands in: numbers, names, arrays and files that are none; and the command asked."""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hmcvi.benchmarks import cli, runner


def many(examples):
    """Settings of a law: the same examples in every run, however long one takes; HMCVI_EXAMPLES asks for more."""
    examples = int(os.environ.get("HMCVI_EXAMPLES", examples))
    return settings(
        derandomize=True,
        deadline=None,
        database=None,
        max_examples=examples,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
    )


class Sampled(BaseException):
    """Raised where sampling would begin: what was asked for is sound."""


def begin(*arguments, **options):
    raise Sampled


def ask(arguments):
    """Run the command up to its first fit, and return its exit status (None where sampling would begin) and words."""
    said, printed = io.StringIO(), io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(printed):
        try:
            status = cli.main(arguments)
        except Sampled:
            status = None
        except SystemExit as stopped:
            status = stopped.code
    return status, said.getvalue(), printed.getvalue()


def check_refusal(said):
    """What a refusal is: one line of letters that begins as every error does, and no traceback."""
    assert said.startswith("hmcvi: error: ")
    assert said.count("\n") == 1
    assert said.endswith("\n")
    assert said[:-1].isprintable()
    assert "Traceback" not in said


def stop_before_sampling(monkeypatch, folder):
    """Let no fit begin, and temporary files and TFDS sets be looked for in a folder of the test's own."""
    monkeypatch.setattr(runner, "fit", begin)
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    monkeypatch.chdir(folder)


def files_in(folder):
    return {path: path.stat().st_size for path in Path(folder).rglob("*")}


# --- what is no number, no name

NUMBERS = """
nan inf -inf 0 -0 -1 1 2 1.5 1e9 1e400 1e-400 1e308 2147483648 4294967296 99999999999999999999 10**12 0x10 1_0 ٣ ² none
auto true
"""

NAMES = """
digit wine wave mnist kmnist a.csv a.npz a.parquet a.txt / . .. /dev/null /dev/null/x /proc/x ~nobody/x.csv mlp gp cnn
nuts blur blur@9 rotation:nan gap:x held_out:9 extrapolation:1e38 {part} {seed}.json
"""

numbers = st.one_of(
    st.sampled_from(NUMBERS.split()),
    st.sampled_from(["", " ", "-", "--", ",", "1,", ":", "1:2", "\0", "\ud800", "9" * 5000]),
    st.integers(-(2**70), 2**70).map(str),
    st.floats().map(str),
    st.text(max_size=6),
)

letters = st.text(st.characters(exclude_characters="/.~"), max_size=10)  # no path out of the folder

names = st.one_of(
    st.sampled_from(NAMES.split()),
    st.sampled_from(
        ["", " ", "+", "\0", "\udcff", "x" * 5000, "wine\n", "a\0b.npz", "x" * 300 + ".csv", "held_out:" + "9" * 5000]
    ),
    letters,
)

# --- what is no array

shapes = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)

kinds = st.sampled_from(
    ["f2", "f4", "f8", ">f8", "g", "i1", "u1", "i8", "u8", "?", "c8", "U2", "S2", "O", "M8[s]", "m8[s]", "V4"]
)


def filled(dtype, shape):
    """An array of a kind that may hold anything of it: NaN, infinity, numbers that float32 does not hold."""
    if np.dtype(dtype).kind in "OV":
        return st.just(np.zeros(shape, dtype))
    return hnp.arrays(dtype, shape)


any_array = st.tuples(kinds, shapes).flatmap(lambda drawn: filled(*drawn))

no_array = st.one_of(
    st.none(),
    st.text(max_size=3),
    st.integers(),
    st.floats(),
    st.dictionaries(st.text(max_size=2), st.integers(), max_size=2),
    st.lists(st.lists(st.integers(-3, 3), max_size=3), max_size=3),  # rows of unequal lengths among them
    st.just(object()),
    st.just(np.ma.masked_array(np.ones((6, 2)), np.eye(6, 2, dtype=bool))),
)

malformed = st.one_of(any_array, no_array)


def rows_of(number):
    """Arrays of so many rows: near enough to be taken."""
    some = st.sampled_from(["f4", "f8", "i8", "u8", "?", "u1"])
    return st.one_of(
        st.tuples(some, st.sampled_from([(number,), (number, 2), (number, 1), (number, 0), (number, 4, 4, 1)])).flatmap(
            lambda drawn: filled(*drawn)
        ),
        malformed,
    )
