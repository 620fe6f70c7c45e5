"""The wheel in an environment of its own: nothing generic is installed, and the command works from anywhere."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = {"models", "inference", "plots", "benchmarks"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    # A copy: building writes into the source folder.
    source = folder / "source"
    names = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    for name in names:
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(source)]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A new virtual environment that holds the wheel; its dependencies are lent by this one's folder."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    install = [python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel]
    subprocess.run(install, check=True, capture_output=True, timeout=300)
    # On PYTHONPATH, unlike in a site folder, no .pth file is read: this project's editable install stays out.
    variables = {**os.environ, "PYTHONPATH": sysconfig.get_path("purelib"), "MPLBACKEND": "Agg"}
    return folder / "bin", variables


def test_wheel_holds_the_rooms_under_one_name_and_no_tests(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"hmcvi"}
    rooms = {name.split("/")[1] for name in names if name.startswith("hmcvi/")}
    assert rooms == ROOMS
    assert all(f"hmcvi/{room}/py.typed" in names for room in rooms)


def test_wheel_holds_the_files_that_commands_read(wheel: Path) -> None:
    """Without them `hmcvi reproduce`, the atlas, the gallery and every report would work in the source alone."""
    packed = zipfile.ZipFile(wheel)
    pages = {path.relative_to(ROOT / "benchmarks").as_posix() for path in (ROOT / "benchmarks" / "page").iterdir()}
    assert {"page/report.html", "page/page.css", "page/page.js", "page/captions.toml"} <= pages
    files = {f"hmcvi/benchmarks/{name}" for name in ("targets.toml", "atlas.toml", "gallery.toml", *pages)}
    for name in files:
        assert packed.read(name) == (ROOT / name.removeprefix("hmcvi/")).read_bytes()
    others = {name for name in packed.namelist() if name.startswith("hmcvi/") and not name.endswith(".py")}
    assert others == files | {f"hmcvi/{room}/py.typed" for room in ROOMS}


def test_nothing_generic_is_importable(environment: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    binaries, variables = environment
    code = (
        "import importlib.util as u, hmcvi.models; "
        "print(hmcvi.models.__file__, [n for n in ('models', 'inference', 'plots', 'benchmarks') if u.find_spec(n)])"
    )
    command = [binaries / "python", "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, check=True)
    where, found = done.stdout.split(" ", 1)
    assert Path(where).is_relative_to(binaries.parent)
    assert found.strip() == "[]"


def test_installed_command_compares(environment: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    binaries, variables = environment
    command = [binaries / "hmcvi", "compare", "--data", "wine", "--methods", "svi", "--quick", "--ood", "--out", "run"]
    done = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "accuracy" in done.stdout
    assert (tmp_path / "run" / "table.csv").exists()
    assert "<img " in (tmp_path / "run" / "report.html").read_text()  # with the templates that the wheel holds
