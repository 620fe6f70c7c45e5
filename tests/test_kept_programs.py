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

from hmcvi.benchmarks import cli
from hmcvi.benchmarks.programs import add_options, keep_programs

from .run_folders import differences

COMMAND = ["compare", "--data", "diabetes", "--methods", "svi", "--svi", "num_steps=50", "num_draws=20", "--ood"]


def run(out: Path, *options: str, **variables: str) -> None:
    """Run the command in a process of its own, without the settings of the cache that the tests have."""
    command = [sys.executable, "-m", "hmcvi.benchmarks.cli", *COMMAND, "--no-figures", "--quiet", "--out", str(out)]
    own = {name: value for name, value in os.environ.items() if "CACHE" not in name} | variables
    done = subprocess.run([*command, *options], env=own, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert not done.stderr


def entries(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.glob("*-cache")}


def test_a_second_run_reads_what_the_first_one_compiled_and_one_reads_no_damage(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    run(tmp_path / "first", XDG_CACHE_HOME=str(cache))  # on by default, in the user's folder
    folder = cache / "hmcvi" / "programs"
    assert folder.stat().st_mode & 0o077 == 0  # machine code: nobody else may write it
    compiled = entries(folder)
    assert len(compiled) > 50

    run(tmp_path / "second", "--programs", str(folder))
    assert entries(folder) == compiled
    assert differences(tmp_path / "first", tmp_path / "second")[1] == []

    random = np.random.default_rng(0)
    for name, content in compiled.items():
        damaged = bytearray(content)
        damaged[random.integers(len(content))] ^= 1 << random.integers(8)
        (folder / name).write_bytes(damaged if random.random() < 0.5 else content[: random.integers(len(content))])
    run(tmp_path / "third", "--programs", str(folder))
    assert differences(tmp_path / "first", tmp_path / "third")[1] == []

    run(tmp_path / "fourth", "--no-programs", XDG_CACHE_HOME=str(tmp_path / "other"))
    assert not (tmp_path / "other" / "hmcvi").exists()
    assert differences(tmp_path / "first", tmp_path / "fourth")[1] == []


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
    assert "is no folder that can be written" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
