"""A run's folder: damage is found, one run at a time, nothing outside it is read or written."""

from __future__ import annotations

import re
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from hmcvi.benchmarks import cli
from hmcvi.benchmarks.checksums import NAME, read_summed, write_summed
from hmcvi.benchmarks.datasets import arrays
from hmcvi.benchmarks.experiment import Experiment
from hmcvi.benchmarks.finished import read_finished
from hmcvi.benchmarks.options import UsageError
from hmcvi.benchmarks.run_folder import RunFolder, data_stem, default_folder
from hmcvi.inference import load_datatree, save_datatree

from .run_folders import write_run
from .test_checkpoint import damages

FILES = ("config.json", "manifest.json", "summary.json", "table.csv")
"""What `hmcvi table` and `hmcvi report` read."""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("run") / "wine", {"svi": [0.1, 0.2], "bbb": [0.3, 0.4]})


@pytest.fixture
def limited() -> Iterator[None]:
    """A disk that holds files of 2,000 bytes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_named_and_never_read(name: str, finished: Path) -> None:
    file = finished / name
    whole = file.read_bytes()
    try:
        for content in damages(whole):
            file.write_bytes(content)
            with pytest.raises(UsageError, match=re.escape(f"{file} is damaged, or {NAME} is")):
                read_finished(finished)
    finally:
        file.write_bytes(whole)


def test_damaged_checksums_read_no_other_number(finished: Path) -> None:
    file, wanted = finished / NAME, read_finished(finished).table
    whole = file.read_bytes()
    refusals = []
    try:
        for content in damages(whole):
            file.write_bytes(content)
            try:
                assert read_finished(finished).table.equals(wanted)  # the line of a file that is not read
            except UsageError as error:
                refusals.append(str(error))
    finally:
        file.write_bytes(whole)
    assert len(refusals) > 30
    assert all(NAME in refusal for refusal in refusals)


def test_checksums_are_what_sha256sum_reads(finished: Path) -> None:
    done = subprocess.run(["sha256sum", "--check", NAME], cwd=finished, capture_output=True, text=True, check=True)
    assert done.stdout.count(": OK") == len((finished / NAME).read_text().splitlines()) >= len(FILES)


@pytest.mark.parametrize("moment", ["before the file", "after the file"])
def test_a_crash_between_a_file_and_its_checksum_leaves_a_file_that_is_known(
    moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hmcvi.benchmarks import checksums

    file = tmp_path / "table.csv"
    write_summed(file, "old")
    real, calls = checksums.write_whole, []

    def crashing(path: Path, content: str | bytes) -> None:
        calls.append(path.name)
        if len(calls) == {"before the file": 2, "after the file": 3}[moment]:
            raise InterruptedError
        real(path, content)

    monkeypatch.setattr(checksums, "write_whole", crashing)
    with pytest.raises(InterruptedError):
        write_summed(file, "new")
    assert calls[:2] == [NAME, "table.csv"]
    assert read_summed(file) == (b"old" if moment == "before the file" else b"new")


def test_a_damaged_tree_is_never_read(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(2, 30, 4))
    tree = xr.DataTree.from_dict(
        {"/": xr.Dataset(attrs={"method": "nuts"}), "posterior": xr.Dataset({"w": (("chain", "draw", "i"), values)})}
    )
    path = tmp_path / "fit.nc"
    save_datatree(tree, path)
    assert load_datatree(path).identical(tree)
    with xr.open_datatree(path, engine="h5netcdf") as plain:  # as any reader of netCDF reads it
        assert plain.load().identical(tree)
    for content in damages(path.read_bytes()):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=rf"{re.escape(str(path))} cannot be read \(it"):
            load_datatree(path)


def test_a_tree_without_a_checksum_is_refused(tmp_path: Path) -> None:
    xr.DataTree(xr.Dataset({"a": ("i", np.arange(3.0))})).to_netcdf(tmp_path / "other.nc", engine="h5netcdf")
    with pytest.raises(
        ValueError, match=r"other.nc cannot be read \(it does not end in its checksum\): .* xarray.open_datatree"
    ):
        load_datatree(tmp_path / "other.nc")


def test_on_a_full_disk_what_was_there_stays(tmp_path: Path, limited: None) -> None:
    small = xr.DataTree(xr.Dataset({"a": ("i", np.arange(3.0))}))
    file, path = tmp_path / "table.csv", tmp_path / "fit.nc"
    write_summed(file, "short")
    with pytest.raises(OSError, match=f"File too large.*{re.escape(str(file))}"):
        write_summed(file, "long" * 1_000)
    assert read_summed(file) == b"short"
    with pytest.raises(OSError, match=re.escape(str(path))):
        save_datatree(small, path)  # HDF5 takes more than that for anything
    assert sorted(found.name for found in tmp_path.iterdir()) == [NAME, "table.csv"]


REQUEST = Experiment(data="wine", methods=("svi",), ood=())


def test_of_two_runs_in_one_folder_one_proceeds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = RunFolder(tmp_path / "run", REQUEST)
    command = ["compare", "--data", "wine", "--methods", "svi", "--ood", "--out", str(folder.path)]
    with folder.held():
        assert cli.main(command) == 2
        assert f"{folder.path} is in use by another run" in capsys.readouterr().err
        code = f"from hmcvi.benchmarks import cli; raise SystemExit(cli.main({command!r}))"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert (done.returncode, "is in use by another run" in done.stderr) == (2, True)
    with RunFolder(tmp_path / "run", REQUEST).held():
        pass


def test_a_run_is_marked_until_it_is_complete(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = RunFolder(tmp_path / "run", REQUEST)
    with (
        pytest.raises(KeyboardInterrupt, match=r"run is incomplete: 0 of 1 fits are finished; at draw 3$"),
        folder.held(),
    ):
        raise KeyboardInterrupt("at draw 3")
    command = f"hmcvi compare --data wine --methods svi --ood --out {folder.path}"
    assert (folder.path / "INCOMPLETE").read_text().endswith(f"at draw 3. The same command goes on:\n{command}\n")
    assert cli.main(["table", str(folder.path)]) == 2
    assert "is incomplete: the command that began it, which INCOMPLETE holds, goes on" in capsys.readouterr().err
    with folder.held():
        folder.write_json("summary.json", {})
        folder.complete()
    assert not (folder.path / "INCOMPLETE").exists()


@pytest.mark.parametrize("name", ["config.json", "fits", "figures"])
def test_a_link_that_leads_out_is_refused(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, outside = write_run(tmp_path / "run", {"svi": [0.1]}), tmp_path / "outside"
    if (run / name).is_dir():
        (run / name).rmdir()
    (run / name).unlink(missing_ok=True)
    outside.write_text("{}") if name == "config.json" else outside.mkdir()
    (run / name).symlink_to(outside)
    refused = f"{run / name} is a symbolic link that leads out of the run's folder"
    for command in (
        ["report", str(run)],
        ["compare", "--data", "wine", "--methods", "svi", "--ood", "--out", str(run)],
    ):
        assert cli.main(command) == 2
        assert refused in capsys.readouterr().err
    assert outside.is_file() or not list(outside.iterdir())


@pytest.mark.parametrize("name", ["..", "../../evil", "/etc/passwd", "a\\b", "...", "ü" * 300, "~/.ssh/id.csv"])
def test_a_name_stays_in_the_folder(name: str) -> None:
    raw = arrays(np.zeros((8, 2)) + np.arange(8.0)[:, None], np.arange(8) % 2, name=name)
    experiment = Experiment(data=raw, methods=("svi",))
    stem = data_stem(experiment)
    assert re.fullmatch(r"[\w=,+@-][\w.,=+@-]{0,79}", stem)
    assert default_folder(experiment).parent == Path("runs")
