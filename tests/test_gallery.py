"""The gallery: every figure of hmcvi.plots from runs that the command takes, and the README's six among them."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import hmcvi.plots as plots
from hmcvi.benchmarks import cli, gallery
from hmcvi.benchmarks.explain import find_caption

ROOT = Path(__file__).parents[1]

NO_FIGURES = {"COLUMN_WIDTH", "PAGE_WIDTH", "Band", "Look", "context", "looks", "save"}
"""Names of hmcvi.plots that draw nothing."""


def draw_stems(plan, out):
    """A picture in place of every figure that the plan asks for."""
    for run in plan["run"]:
        folder = out / run["name"] / "figures"
        folder.mkdir(parents=True)
        for place, stem in enumerate(run["stems"]):
            (out / run["name"] / "manifest.json").write_text("{}")
            Image.fromarray(np.full((10, 20, 3), 10 * place, np.uint8)).save(folder / f"{stem}.png", dpi=(200, 200))


def test_every_function_that_draws_is_in_the_gallery():
    stems = [stem for run in gallery.read_runs()["run"] for stem in run["stems"]]
    captions = [find_caption(stem) for stem in [*stems, "atlas"]]
    assert {caption.function for caption in captions} == set(plots.__all__) - NO_FIGURES


def test_commands_are_ones_that_the_command_takes(monkeypatch):
    """Each says what it would run; nothing runs here."""
    asked = []
    monkeypatch.setattr(
        "hmcvi.benchmarks.several.compare_several", lambda experiments, *a, **k: asked.extend(experiments) or ""
    )
    monkeypatch.setattr(
        "hmcvi.benchmarks.reproduce.reproduce", lambda targets, **k: bool(asked.append(targets)) or True
    )
    runs = gallery.read_runs()["run"]
    for run in runs:
        assert cli.main(shlex.split(run["command"])) == 0
    assert len(asked) == len(runs)
    for run, experiment in zip(runs, asked, strict=True):
        if run["command"].startswith("compare"):
            assert gallery._methods(run) == list(experiment.asked)


def test_the_readme_shows_the_best_six_and_they_are_there():
    plan = gallery.read_runs()
    names = [name.replace("/", "-") for name in plan["best"]["figures"]]
    assert len(names) == 6
    shown = re.findall(r"!\[([^\]]+)\]\(benchmarks/results/gallery/([^)]+)\.png\)", (ROOT / "README.md").read_text())
    assert sorted(name for _, name in shown) == sorted(names)
    assert all(len(alt) > 10 for alt, _ in shown)
    for name in names:
        with Image.open(ROOT / "benchmarks" / "results" / "gallery" / f"{name}.png") as picture:
            assert picture.width >= 600
    of_runs = {f"{run['name']}/{stem}" for run in plan["run"] for stem in run["stems"]}
    assert set(plan["best"]["figures"]) <= of_runs


def test_page_holds_each_figure_once_with_its_function_and_command(tmp_path, monkeypatch, capsys):
    plan = gallery.read_runs()
    draw_stems(plan, tmp_path / "out")
    ran = []
    monkeypatch.setattr(cli, "main", lambda arguments: ran.append(arguments) or 0)
    assert gallery.main(["--out", str(tmp_path / "out"), "--publish", str(tmp_path / "best"), "--quick"]) == 0
    page = (tmp_path / "out" / "gallery.html").read_text()
    assert capsys.readouterr().out.strip().endswith("gallery.html")
    assert all(command[-1] == "--quick" for command in ran)
    assert [command[command.index("--out") + 1] for command in ran] == [
        str(tmp_path / "out" / run["name"]) for run in plan["run"]
    ]
    for run in plan["run"]:
        assert f"hmcvi {run['command']}" in page
        for stem in run["stems"]:
            assert page.count(f'id="figure-{run["name"]}-{stem}"') == 1
    for name in set(plots.__all__) - NO_FIGURES:
        assert f"hmcvi.plots.{name}</code>" in page
    published = sorted(path.name for path in (tmp_path / "best").glob("*.png"))
    assert published == sorted(f"{name.replace('/', '-')}.png" for name in plan["best"]["figures"])
    runs = {name.partition("/")[0] for name in plan["best"]["figures"]}
    assert {path.name for path in (tmp_path / "best").glob("*.json")} == {f"{run}-manifest.json" for run in runs}


def test_a_figure_that_a_run_has_not_drawn_is_named(tmp_path):
    plan = gallery.read_runs()
    draw_stems(plan, tmp_path)
    (tmp_path / "wave-mlp" / "figures" / "bands.png").unlink()
    with pytest.raises(ValueError, match=r"wave-mlp has no figure bands: run hmcvi compare --data wave .* again"):
        gallery.collect(plan, tmp_path)


def test_a_missing_figure_is_a_sentence_of_the_command_and_no_page(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cli, "main", lambda arguments: 0)
    assert gallery.main(["--out", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert said.startswith("gallery: ")
    assert "has no figure" in said
    assert said.count("\n") == 1
    assert not (tmp_path / "gallery.html").exists()


def test_a_run_that_fails_ends_the_gallery_with_its_status(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cli, "main", lambda arguments: 3)
    assert gallery.main(["--out", str(tmp_path / "out")]) == 3
    assert "ended with status 3" in capsys.readouterr().err
    assert not (tmp_path / "out" / "gallery.html").exists()
