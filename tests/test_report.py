"""`hmcvi report`: the page says what the run's files say, needs nothing from elsewhere, and stays small."""

from __future__ import annotations

import dataclasses
import html
import json
import re
import shlex
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

import hmcvi.plots as plots
from hmcvi.benchmarks import cli, figures
from hmcvi.benchmarks.experiment import Experiment
from hmcvi.benchmarks.explain import captions, explain_score, find_caption
from hmcvi.benchmarks.finished import read_finished
from hmcvi.benchmarks.joined import BEST, COST, TIED, join
from hmcvi.benchmarks.repeat import FLAGS, SWITCHES, is_of_arrays, repeat_command
from hmcvi.benchmarks.report import MOST_BYTES, write_report
from hmcvi.benchmarks.report_board import board, sections
from hmcvi.benchmarks.report_figures import embed
from hmcvi.benchmarks.table import BETTER
from hmcvi.inference.progress import Progress

from .run_folders import change, write_run

NOISE = [
    (seed, method, "gaussian_noise", "auroc, entropy", value, 0.01, 0.0)
    for seed in (0, 1)
    for method, value in (("nuts", 0.9), ("svi", 0.8), ("map", 0.6))
]
NLL = {"nuts": [0.10, 0.12], "svi": [0.30, 0.35], "map": [0.20, 0.15]}
ATLAS = Path(__file__).parents[1] / "benchmarks" / "results" / "atlas" / "atlas.parquet"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of wine at two seeds."""
    verdicts = {"nuts": ["converged", "unconverged"], "svi": ["finished"] * 2, "map": ["unfinished"] * 2}
    return write_run(tmp_path / "wine", NLL, further=NOISE, sets={"gaussian_noise": 36}, verdicts=verdicts)


class Tags(HTMLParser):
    """Every tag of a page with its attributes."""

    def __init__(self, page: str):
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attributes)))


def text_of(page: str) -> str:
    """What a reader reads of a page, on one line."""
    body = re.sub(r"<(style|script).*?</\1>", "", page, flags=re.S)
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", body)).split())


def test_command_writes_the_page_and_says_where(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["report", str(run)]) == 0
    assert capsys.readouterr().out == f"{run / 'report.html'}\n"
    assert (run / "report.html").read_text().startswith("<!doctype html>")
    out = run.parent / "new" / "page.html"
    assert cli.main(["report", str(run), "--out", str(out)]) == 0
    assert out.read_text() == (run / "report.html").read_text()


def test_several_runs_get_a_page_each(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = write_run(tmp_path / "cancer", {"svi": [0.4]}, data="breast_cancer")
    assert cli.main(["report", str(run), str(other)]) == 0
    assert capsys.readouterr().out.splitlines() == [str(run / "report.html"), str(other / "report.html")]
    assert "How good is svi?" in text_of((other / "report.html").read_text())


def test_page_loads_nothing_from_elsewhere(run: Path) -> None:
    page = write_report(run).read_text()
    for tag, attributes in Tags(page).found:
        for name in ("src", "href", "action", "srcset"):
            address = attributes.get(name) or ""
            assert address.startswith(("#", "data:")) or not address, (tag, name, address)
    assert "default-src 'none'" in page
    assert not re.search(r"@import|url\(|fetch\(|XMLHttp", page)


def test_every_link_and_description_leads_somewhere_and_no_id_comes_twice(run: Path) -> None:
    tags = Tags(write_report(run).read_text()).found
    ids = [of["id"] for _, of in tags if "id" in of]
    assert len(set(ids)) == len(ids)
    targets = [(of.get("href") or "")[1:] for tag, of in tags if tag == "a"]
    targets += [
        word for _, of in tags for name in ("aria-describedby", "aria-labelledby") for word in [of.get(name)] if word
    ]
    assert len(targets) > 20
    assert set(targets) <= set(ids)


def test_board_holds_the_averages_and_marks_of_the_joined_table(run: Path) -> None:
    finished = read_finished(run)
    found = board(finished, join([finished]))
    place = [column.score for column in found.columns].index("nll")
    assert found.columns[place].better == "↓"
    assert {line.label: line.cells[place].value for line in found.lines} == pytest.approx(
        {"nuts": 0.11, "svi": 0.325, "map": 0.175}
    )
    # t interval of 2 seeds: 12.7 times the differences' standard error, which is 0.015 for svi and 0.035 for map
    assert [line.cells[place].mark for line in found.lines] == [BEST, "", TIED]
    assert [line.poor for line in found.lines] == [True, False, True]
    assert [column.part for column in found.columns if column.score.startswith("auroc")] == ["gaussian_noise"]


def test_sections_hold_every_score_of_the_table_but_those_of_single_sites(run: Path) -> None:
    finished = read_finished(run)
    joined = join([finished])
    shown = {(line.label) for section in sections(finished, joined) for line in section.lines}
    assert set(joined["score"]) == shown


def test_page_says_what_the_files_say(run: Path) -> None:
    page = text_of(write_report(run).read_text())
    for words in (
        "nuts, svi, map were at each of the seeds 0, 1 fitted to the same 142 rows of wine, with the same model mlp",
        "and scored on 36 test rows and 1 set of rows from elsewhere.",
        "nuts is unconverged at seed 1: there is no reference",
        "Best nll: nuts (0.110); tied with it: map (0.175).",
        "Not what they are meant to be, see the verdicts: map.",
        "✗ unconverged, 1 of 2",
        "as it was written",  # the reason of each verdict
        "hmcvi compare --data wine --methods nuts svi map --seeds 0 1 --ood",
        "Negative log-likelihood",
        "num_warmup 500",
        "prior Normal(",
    ):
        assert words in page, words


def test_a_converged_reference_is_called_one(tmp_path: Path) -> None:
    verdicts = {"nuts": ["converged"], "svi": ["finished"]}
    folder = write_run(tmp_path / "run", {"nuts": [0.1], "svi": [0.3]}, verdicts=verdicts)
    page = text_of(write_report(folder).read_text())
    assert "nuts converged: it is the reference" in page
    assert "Passes over the data: nuts took 1 times those of svi." in page  # 20,000 each, as written by hand


def test_a_page_names_the_reference_it_has_and_its_bias(tmp_path: Path) -> None:
    verdicts = {"mclmc": ["converged"], "svi": ["finished"]}
    further = [(0, method, "reference", "agreement", 0.9, 0.01, np.nan) for method in verdicts]
    folder = write_run(tmp_path / "run", {"mclmc": [0.1], "svi": [0.3]}, further=further, verdicts=verdicts)
    page = text_of(write_report(folder).read_text())
    for words in (
        "What does cheap inference cost against mclmc?",
        "mclmc converged: it is the reference that the others are held against, an unadjusted one",
        "Distances to mclmc stand beside its own",
        "agreement, to mclmc ↑",
        "Distance to mclmc mclmc's own column is the noise floor",
    ):
        assert words in page, words
    # beneath the board, beside the distances, and where the board is explained
    assert page.count("so that distances to mclmc hold this bias too") == 3
    assert "nuts" not in page.partition("Glossary")[0]


def test_a_page_of_mclmc_beside_nuts_says_where_its_bias_shows(tmp_path: Path) -> None:
    verdicts = {"nuts": ["converged"], "mclmc": ["converged"]}
    further = [(0, method, "reference", "agreement", 0.9, 0.01, np.nan) for method in verdicts]
    folder = write_run(tmp_path / "run", {"mclmc": [0.1], "nuts": [0.1]}, further=further, verdicts=verdicts)
    page = text_of(write_report(folder).read_text())
    assert "nuts converged: it is the reference that the others are held against." in page
    assert "its distance to nuts, beside the noise floor, shows how much." in page
    assert "hold this bias too" not in page
    verdicts["nuts"] = ["unconverged"]
    without = write_run(tmp_path / "without", {"mclmc": [0.1], "nuts": [0.1]}, verdicts=verdicts)
    page = text_of(write_report(without).read_text())
    assert "mclmc is unadjusted: its step size biases its draws, which no diagnostic of convergence sees." in page


def test_a_page_whose_reference_failed_says_that_there_is_none(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", {"hmc": [0.1], "svi": [0.3]}, verdicts={"hmc": ["converged"]})
    change(folder, "summary.json", "reference", to="nuts")
    change(folder, "summary.json", "failed", to={"nuts": "seed 0 left the finite numbers"})
    page = text_of(write_report(folder).read_text())
    assert "nuts, which the others were to be held against, failed: there is no reference." in page
    assert "Which method is better?" in page


def test_what_comes_from_outside_is_text_and_no_markup(run: Path) -> None:
    """A file's name, a message, a setting: none of them can put a script on the page."""
    evil = "<script>alert(1)</script>"
    change(run, "summary.json", "title", to=evil)
    change(run, "summary.json", "fits", "map", "0", "reason", to=evil)
    change(run, "manifest.json", "data", to=evil)
    page = write_report(run).read_text()
    assert evil not in page
    assert page.count("<script>") == 1
    assert html.escape(evil) in page


def test_bad_runs_get_a_sentence(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def fails(*arguments: str) -> str:
        assert cli.main(["report", *arguments]) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        return said

    assert "holds no finished run (table.csv is not there)" in fails(str(tmp_path / "nothing"))
    picture(run / "figures" / "loss.png", 40, 0)
    whole = (run / "figures" / "loss.png").read_bytes()
    (run / "figures" / "loss.png").write_bytes(whole[: len(whole) // 2])
    assert "loss.png is no whole picture: delete it" in fails(str(run))
    (run / "figures" / "loss.png").unlink()
    assert "is a file: give the run's folder" in fails(str(run / "table.csv"))
    assert f"{run.parent} holds no finished run (table.csv is not there); inside it are the runs wine" in fails(
        str(run.parent)
    )
    assert "--out names one page and 2 runs were given" in fails(str(run), str(run), "--out", str(tmp_path / "x.html"))
    assert "cannot be written" in fails(str(run), "--out", str(run / "table.csv" / "page.html"))
    (run / "manifest.json").write_text("{")
    assert "manifest.json is damaged" in fails(str(run))
    assert not (run / "report.html").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        "",
        "--data wine --methods svi bbb --seeds 2 0 --rows 50 --test-rows 20 --quick",
        "--data digits --ood held_out:8,9 rotation:30+blur@2 --shift rotation blur",
        "--data digits --ood --tune",
        "--methods svi --budget-gradients 1234567.5 --svi num_steps=500 --model-options widths=8,8 prior=laplace",
        "--methods map --budget-seconds 0.25",
        "--data 'my file.csv' --target 'a column' --task regression --splits 'rows_{part}.txt'",
        "--data digits --image-size 14 --task classification",
    ],
)
def test_the_command_on_the_page_repeats_the_run(arguments: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command of a configuration gives that configuration again."""
    asked = []
    monkeypatch.setattr(
        "hmcvi.benchmarks.several.compare_several", lambda experiments, *a, **k: asked.extend(experiments) or ""
    )
    assert cli.main(["compare", *shlex.split(arguments)]) == 0
    first = json.loads(json.dumps(asked[0].configuration()))
    command = shlex.split(repeat_command(first))
    assert command[:2] == ["hmcvi", "compare"]
    assert cli.main(command[1:]) == 0
    assert json.loads(json.dumps(asked[1].configuration())) == first


def test_no_field_of_an_experiment_is_forgotten_by_its_command() -> None:
    fields = {field.name for field in dataclasses.fields(Experiment)}
    # where the data lie is the reader's own affair; the rows' hash tells whether they are the same
    assert {*FLAGS, *SWITCHES, "budget", "options"} == fields - {"data_dir"}


def test_the_command_keeps_the_precision(run: Path) -> None:
    change(run, "manifest.json", "precision", to="float64")
    assert "JAX_ENABLE_X64=1 hmcvi compare --data wine" in text_of(write_report(run).read_text())


def test_a_figure_that_cannot_be_drawn_is_said_and_costs_no_other(tmp_path: Path) -> None:
    """Whatever a plotting library raises; and no picture of an earlier run stands in its place."""

    def fails() -> None:
        raise KeyError("no such axis")

    (tmp_path / "bad.png").write_bytes(b"of an earlier version")
    further = {"bad": fails, "good": lambda: Figure(figsize=(1, 1))}
    with pytest.MonkeyPatch.context() as patch, Progress("figures", None) as progress:
        for part in ("_calibration", "_inputs", "_detection", "fit_figures"):
            patch.setattr(figures, part, lambda *arguments: iter(()))
        faults = figures.draw_figures(tmp_path, None, [], {}, {}, further, progress)
    assert faults == {"bad": "KeyError: 'no such axis'"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["good.png", "good.svg"]


def test_a_run_of_arrays_has_no_command(run: Path) -> None:
    name = f"my-wine {'0123456789abcdef' * 4}"
    assert is_of_arrays({"data": name})
    assert not is_of_arrays({"data": "wine"})
    change(run, "config.json", "data", to=name)
    page = text_of(write_report(run).read_text())
    assert "arrays given from Python" in page
    assert "hmcvi compare --data" not in page


def test_every_score_that_a_run_can_have_is_explained() -> None:
    """Those of the atlas (every bundled data set, model and method), of the board and of the costs."""
    scores = {*pd.read_parquet(ATLAS)["score"], *BETTER, *COST}
    unknown = sorted(score for score in scores - {"settled", "seconds"} if not explain_score(score))
    assert unknown == []


def test_captions_name_functions_of_plots_and_each_figure_once() -> None:
    stems = [caption.stem for caption in captions()]
    assert len(set(stems)) == len(stems)
    assert {caption.function for caption in captions()} <= set(plots.__all__)
    for caption in captions():
        about = caption.about(f"{caption.stem}x" if caption.stem.endswith("-") else caption.stem, ["nuts", "svi"])
        assert "{" not in about.title + about.read + about.alt
        assert find_caption(about.stem) == caption


def picture(path: Path, side: int, seed: int) -> None:
    """Write a picture that cannot be compressed."""
    path.parent.mkdir(exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, dpi=(200, 200))


def test_figures_come_in_the_order_of_their_captions_methods_in_the_run_s(run: Path) -> None:
    for place, stem in enumerate(("rank-svi", "loss", "rank-nuts", "reliability", "importance-map", "no-caption")):
        picture(run / "figures" / f"{stem}.png", 20, place)
    found, left_out = embed(run / "figures", ["nuts", "svi", "map"], 10**6)
    assert [figure.caption.stem for figure in found] == [
        "reliability",
        "importance-map",
        "loss",
        "rank-nuts",
        "rank-svi",
    ]
    assert left_out == []
    assert found[0].width == pytest.approx(20 * 125 / 200, abs=0.6)
    assert "nuts, svi, map" in found[0].caption.alt
    assert found[-1].caption.title.endswith("svi")


def test_page_stays_under_its_limit_and_says_what_is_left_out(run: Path) -> None:
    stems = [caption.stem for caption in captions() if not caption.stem.endswith("-")]
    for place, stem in enumerate(stems[:12]):
        picture(run / "figures" / f"{stem}.png", 800, place)  # 12 times 0.7 MB with a palette
    path = write_report(run)
    assert 0.8 * MOST_BYTES < path.stat().st_size < MOST_BYTES
    page = path.read_text()
    shown = [stem for stem in stems[:12] if f'id="figure-{stem}"' in page]
    assert 0 < len(shown) < 12
    assert shown == stems[: len(shown)]
    assert f"figures/</code>: {', '.join(stems[len(shown) : 12])}." in page


def test_a_small_vector_is_taken_and_a_large_one_is_not(run: Path) -> None:
    for stem, bytes in (("loss", 10**5), ("reliability", 10**6)):
        picture(run / "figures" / f"{stem}.png", 20, 0)
        (run / "figures" / f"{stem}.svg").write_text("<svg/>" + " " * bytes)
    found = {figure.caption.stem: figure.source for figure in embed(run / "figures", ["nuts"], 10**8)[0]}
    assert found["loss"].startswith("data:image/svg+xml;base64,")
    assert found["reliability"].startswith("data:image/png;base64,")
    # where there is no room for a vector that is larger than the pixels, they stand in for it
    assert embed(run / "figures", ["nuts"], 10**4)[0][1].source.startswith("data:image/png;base64,")


def test_equal_methods_are_called_equal(tmp_path: Path) -> None:
    page = text_of(write_report(write_run(tmp_path / "run", {"svi": [0.2], "bbb": [0.2]})).read_text())
    assert "Best nll: svi (0.200), bbb (0.200); all are equal." in page
    assert "no other" not in page
