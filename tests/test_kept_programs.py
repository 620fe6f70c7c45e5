"""Compiled programs on disk: read by later runs, to the same bytes; damaged ones are compiled anew."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import platformdirs
import pytest

from hmcvi.benchmarks import cli, programs
from hmcvi.benchmarks.options import UsageError
from hmcvi.benchmarks.programs import add_options, keep_programs

COMMAND = ["compare", "--data", "diabetes", "--methods", "map", "--ood"]

FIT = """
import argparse, sys, jax, numpy as np
from functools import partial
from hmcvi.benchmarks.options import UsageError
from hmcvi.benchmarks.programs import add_options, keep_programs
parser = argparse.ArgumentParser()
add_options(parser)
keep_programs(parser.parse_args())
from hmcvi.inference import SVI, fit
from hmcvi.models import mlp
x = np.linspace(-1, 1, 20)[:, None]
model, method = partial(mlp, widths=(3,), likelihood="normal"), SVI(num_steps=50, num_draws=5)
found = fit(jax.random.key(0), model, x, x[:, 0], method)
print({name: np.asarray(draws).tobytes().hex() for name, draws in found.draws.items()})
"""


def run(*options: str, **variables: str) -> str:
    """Fit in a process of its own, without the settings of the cache that the tests have; return the draws' bytes."""
    own = {name: value for name, value in os.environ.items() if "CACHE" not in name} | variables
    done = subprocess.run([sys.executable, "-c", FIT, *options], env=own, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done.stdout


def entries(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.glob("*-cache")}


def test_a_second_process_reads_what_the_first_one_compiled_and_none_reads_damage(tmp_path: Path) -> None:
    first = run(XDG_CACHE_HOME=str(tmp_path))  # on by default, in the user's folder
    folder = tmp_path / "hmcvi" / "programs"
    assert folder.stat().st_mode & 0o077 == 0  # machine code: nobody else may write it
    compiled = entries(folder)
    assert len(compiled) > 5

    assert run("--programs", str(folder)) == first
    assert entries(folder) == compiled

    random = np.random.default_rng(0)
    for name, content in compiled.items():
        damaged = bytearray(content)
        damaged[random.integers(len(content))] ^= 1 << random.integers(8)
        (folder / name).write_bytes(damaged if random.random() < 0.5 else content[: random.integers(len(content))])
    assert run("--programs", str(folder)) == first

    assert run("--no-programs", XDG_CACHE_HOME=str(tmp_path / "other")) == first
    assert not (tmp_path / "other" / "hmcvi").exists()


@pytest.mark.parametrize("command", [["compare", "--data", "wine"], ["reproduce", "--quick"]])
def test_the_commands_keep_programs_unless_told_otherwise(command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(options: argparse.Namespace) -> None:
        raise SystemExit(f"{options.programs}, {options.no_programs}")

    monkeypatch.setattr(programs, "keep_programs", stop)
    for given, wanted in (
        ([], "None, False"),
        (["--programs", "here"], "here, False"),
        (["--no-programs"], "None, True"),
    ):
        with pytest.raises(SystemExit, match=f"^{wanted}$"):
            cli.main([*command, *given])


@pytest.fixture
def settings() -> dict[str, object]:
    """What JAX is set to; put back at the end."""
    names = [
        "jax_compilation_cache_dir",
        "jax_compilation_cache_max_size",
        "jax_enable_compilation_cache",
        "jax_persistent_cache_min_compile_time_secs",
    ]
    before = {name: getattr(jax.config, name) for name in names}
    yield before
    for name, value in before.items():
        jax.config.update(name, value)


def asked(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_options(parser)
    return parser.parse_args(arguments)


def test_what_jax_was_told_holds_where_no_option_is_given(settings: dict[str, object]) -> None:
    keep_programs(asked())  # conftest names a folder
    assert {name: getattr(jax.config, name) for name in settings} == settings


def test_a_folder_of_nobody_is_done_without_and_one_asked_for_is_refused(
    settings: dict[str, object], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file"
    file.write_text("")
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda *_, **__: str(file))
    jax.config.update("jax_compilation_cache_dir", None)
    keep_programs(asked())
    assert jax.config.jax_compilation_cache_dir is None
    assert "cannot be written: no compiled programs are kept" in capsys.readouterr().err

    assert cli.main([*COMMAND, "--programs", str(file / "programs"), "--out", str(tmp_path / "run")]) == 2
    assert "cannot be written: name another folder, or --no-programs" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_folder_that_others_can_write_to_is_refused(
    settings: dict[str, object], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "programs"
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(UsageError, match="can be written by others, and programs read from there would run: name"):
        keep_programs(asked("--programs", str(folder)))
    jax.config.update("jax_compilation_cache_dir", None)
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda *_, **__: str(tmp_path))
    keep_programs(asked())
    assert jax.config.jax_compilation_cache_dir is None
    assert "can be written by others" in capsys.readouterr().err
