"""`hmcvi table` and `hmcvi compare` on several data sets: five formats, files, exit statuses."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pandas as pd
import pytest

from hmcvi.benchmarks import cli
from hmcvi.benchmarks.formats import FORMATS, render
from hmcvi.benchmarks.grouped import lay_out
from hmcvi.benchmarks.joined import join_runs

from .run_folders import change, write_run

NOISE = [
    (seed, method, "uniform_noise", "auroc, entropy", value, 0.01, 0.0)
    for seed in (0, 1)
    for method, value in (("nuts", 0.9), ("svi", 0.8), ("bbb", 0.85), ("bbb-local", 0.7), ("map", 0.6))
]
NLL = {"nuts": [0.10, 0.11], "svi": [0.20, 0.21], "bbb": [0.10, 0.12], "bbb-local": [0.3, 0.3], "map": [0.5, 0.6]}
WORDS = {"nuts": ["unconverged", "converged"], "map": ["finished", "unfinished"]}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two data sets; one has five methods, two seeds and an OOD set."""
    folder = tmp_path_factory.mktemp("runs")
    sets = {"uniform_noise": 36}
    many = write_run(folder / "wine", NLL, further=NOISE, sets=sets, verdicts=WORDS)
    few = write_run(folder / "cancer", {"svi": [0.4]}, data="breast_cancer", verdicts={"svi": ["schedule ended"]})
    return [str(many), str(few)]


def test_plain_text_fits_100_columns_and_marks_the_best(runs: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["table", *runs]) == 0
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 100
    assert "…" not in printed
    lines = [line.split() for line in printed.splitlines()]
    # d = 0.10 at both seeds for svi; 0 and 0.01 for bbb, within 12.7 · 0.005
    (nll,) = [line for line in lines if line[:3] == ["nll", "↓", "0.1050"]]
    assert nll == ["nll", "↓", "0.1050", "±0.0050", "*", "0.2050", "±0.0050", "0.110", "±0.010", "~", *nll[10:]]
    assert "auroc, entropy, uniform_noise ↑" in printed
    text = " ".join(printed.split())
    for words in (
        "wine, mlp: 142 training and 36 test rows, seeds 0, 1",
        "breast_cancer, mlp: 455 training",
        "verdict unconverged, 1 finished finished finished of 2",  # on two lines
        "*: best; ~: tied with the best",
        "schedule ended",
    ):
        assert words in text
    for method in NLL:
        assert method in text


def test_one_run_prints_its_scoreboard_and_in_another_format_its_block(
    runs: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["table", runs[1]]) == 0
    assert "wine, by hand" in capsys.readouterr().out  # the scoreboard's title, as the fixture wrote it
    assert cli.main(["table", runs[1], "--format", "markdown"]) == 0
    assert capsys.readouterr().out.startswith("### breast\\_cancer, mlp: 455 training and 114 test rows, seed 0\n")


def test_one_run_of_before_prints_its_scoreboard_unless_it_mixes_temperatures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A manifest that does not say the model cannot be joined, but the scoreboard needs none."""
    folder = write_run(tmp_path / "run", {"svi": [0.4], "bbb": [0.3]})
    change(folder, "manifest.json", "model", to=None)
    assert cli.main(["table", str(folder)]) == 0
    assert "wine, by hand" in capsys.readouterr().out
    (record,) = json.loads((folder / "summary.json").read_text())["fits"]["bbb"]
    change(folder, "summary.json", "fits", "bbb", to=[{**record, "temperature": 0.5}])
    assert cli.main(["table", str(folder)]) == 2
    printed = capsys.readouterr()
    assert "run mixes temperatures: 1 for svi and 0.5 for bbb" in printed.err
    assert printed.out == ""


def test_markdown_has_as_many_cells_in_every_row(runs: list[str]) -> None:
    joined = join_runs(runs)
    joined["data"] = joined["data"].replace("wine", "a|b*c")
    text = render(joined, "markdown")
    assert isinstance(text, str)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    counts = [len(re.split(r"(?<!\\)\|", row)) - 2 for row in rows]
    assert set(counts) == {6, 2}  # a label and five methods, or one
    assert "### a\\|b\\*c, mlp" in text
    assert "| nll ↓ | **0.1050 ±0.0050** | 0.2050 ±0.0050 | *0.110 ±0.010* |" in text
    assert rows[1] == "| --- | ---: | ---: | ---: | ---: | ---: |"


def test_latex_has_nothing_that_pdflatex_lacks(runs: list[str]) -> None:
    joined = join_runs(runs)
    name = r"50% of_a&b $5 #1 {x} ~y^z\w <é> 数"
    joined["data"] = joined["data"].replace("wine", name)
    text = render(joined, "latex")
    assert isinstance(text, str)
    assert text.isascii()
    escaped = (
        r"50\% of\_a\&b \$5 \#1 \{x\} \textasciitilde{}y\textasciicircum{}z\textbackslash{}w "
        r"\textless{}e\textgreater{} U+6570"
    )
    assert rf"\caption{{{escaped}, mlp: 142 training" in text
    joined["score"] = joined["score"].replace("accuracy", "confidence − accuracy")
    assert "\nconfidence $-$ accuracy & " in render(joined, "latex", ["confidence − accuracy"]).replace("    ", "")
    assert r"nll $\downarrow$ & \textbf{0.1050 $\pm$0.0050} & 0.2050 $\pm$0.0050 & \textit{0.110 $\pm$0.010} &" in text
    assert r"uniform\_noise $\uparrow$" in text
    assert text.count(r"\begin{tabular}{lrrrrr}") == 1
    for command in ("table", "tabular"):
        assert text.count(rf"\begin{{{command}}}") == text.count(rf"\end{{{command}}}") == 2
    # Every row has a cell for each column, and braces close.
    body = text[text.index(r"\toprule") : text.index(r"\bottomrule")]
    assert {len(re.findall(r"(?<!\\)&", row)) for row in body.splitlines() if row.endswith(r"\\")} == {5}
    plain = re.sub(r"\\[{}]", "", text)
    assert plain.count("{") == plain.count("}")
    assert plain.replace(r"\$", "").count("$") % 2 == 0


def test_csv_and_parquet_hold_every_seed(runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    joined = join_runs(runs)
    assert cli.main(["table", *runs, "--format", "csv"]) == 0
    printed = pd.read_csv(io.StringIO(capsys.readouterr().out), keep_default_na=False, na_values={"value": [""]})
    assert printed["value"].tolist() == joined["value"].tolist()
    assert {"data", "model", "method", "set", "score", "seed", "value", "standard_error", "mark"} <= set(printed)
    out = tmp_path / "all.parquet"
    assert cli.main(["table", *runs, "--out", str(out)]) == 0
    pd.testing.assert_frame_equal(pd.read_parquet(out), joined, check_dtype=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["all.parquet"]  # and no part of a file
    assert cli.main(["table", *runs, "--format", "csv", "--scores", "nll"]) == 0
    assert set(pd.read_csv(io.StringIO(capsys.readouterr().out))["score"]) == {"nll"}


@pytest.mark.parametrize("name", FORMATS)
def test_the_ending_of_a_file_chooses_the_format(name: str, runs: list[str], tmp_path: Path) -> None:
    out = tmp_path / f"table{FORMATS[name]}"
    assert cli.main(["table", *runs, "--out", str(out)]) == 0
    content = render(join_runs(runs), name)
    assert out.read_bytes() == (content.encode() if isinstance(content, str) else content)


def test_scores_are_shown_by_name_by_label_or_all(runs: list[str]) -> None:
    joined = join_runs(runs)

    def labels(*names: str) -> list[str]:
        return [label for label, _ in lay_out(joined, names)[0].lines][1:]

    assert labels("nll") == ["nll ↓"]
    assert labels("auroc, entropy") == ["auroc, entropy, uniform_noise ↑"]
    assert labels("auroc, entropy, uniform_noise", "passes over the data") == [
        "auroc, entropy, uniform_noise ↑",
        "passes over the data",
    ]
    costs = ["seconds, run", "seconds, compile", "gradient evaluations", "passes over the data"]
    assert labels("all") == ["accuracy ↑", "nll ↓", "auroc, entropy, uniform_noise ↑", *costs]
    assert labels() == ["accuracy ↑", "nll ↓", "auroc, entropy, uniform_noise ↑", costs[0], costs[3]]


BAD = {
    "unknown score": (["--scores", "nil"], "no run has a score 'nil' (did you mean 'nll'?): give all, a line's label"),
    "unknown ending": (["--out", "table.doc"], "ends in none of .txt, .md, .csv, .parquet, .tex"),
    "ending of another format": (
        ["--format", "latex", "--out", "table.md"],
        "--format latex and --out table.md, which is markdown, contradict each other",
    ),
    "parquet on a screen": (["--format", "parquet"], "parquet is no text to print: give --out FILE.parquet"),
    "no such folder": (["--out", "nowhere/table.md"], "nowhere/table.md cannot be written (No such file"),
    "a run without the reference": (["--require-converged"], "has no reference, whose convergence is required"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_request_gets_one_sentence_and_leaves_nothing(
    case: str,
    runs: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments, wanted = BAD[case]
    monkeypatch.chdir(tmp_path)
    assert cli.main(["table", *runs, *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("hmcvi: error: ")
    assert wanted in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""
    assert list(tmp_path.iterdir()) == []


def test_a_refused_join_exits_with_2(runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = write_run(tmp_path / "other", {"bbb": [0.1]}, options={"model": ("prior=laplace",)})
    assert cli.main(["table", runs[0], str(other)]) == 2
    assert "prior is Normal(" in capsys.readouterr().err


def test_an_unconverged_reference_is_printed_and_then_fails(
    runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments in ([], ["--scores", "nll"]):  # the scoreboard, and the grouped table
        assert cli.main(["table", runs[0], "--require-converged", *arguments]) == 1
        captured = capsys.readouterr()
        assert "nll" in captured.out
        assert captured.err == "hmcvi: nuts is unconverged (wine, mlp, seed 0: as it was written)\n"
    good = write_run(tmp_path / "good", {"nuts": [0.1]}, verdicts={"nuts": ["converged"]})
    assert cli.main(["table", str(good), "--require-converged"]) == 0
    assert capsys.readouterr().err == ""


# --- hmcvi compare on several data sets

SEVERAL = ["--methods", "map", "--map", "num_steps=30", "--rows", "60", "--ood", "--model-options", "widths=2"]


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Two data sets in one command, and what it printed."""
    out = tmp_path_factory.mktemp("several") / "runs"
    with pytest.MonkeyPatch.context() as patch:
        printed = io.StringIO()
        patch.setattr("sys.stdout", printed)
        command = ["compare", "--data", "wine", "breast_cancer", *SEVERAL, "--no-figures", "--quiet", "--out", str(out)]
        assert cli.main(command) == 0
    return out, printed.getvalue()


def test_several_data_sets_get_a_folder_each_and_one_table(
    compared: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    out, printed = compared
    assert sorted(path.name for path in out.iterdir()) == ["breast_cancer", "wine"]
    at = [printed.index(f"{name}, mlp{sign}") for sign in (", ", ": 60 training") for name in ("wine", "breast_cancer")]
    assert at == sorted(at)  # both scoreboards, then the blocks of both
    assert cli.main(["table", str(out / "wine"), str(out / "breast_cancer")]) == 0
    assert capsys.readouterr().out in printed


def test_what_a_run_was_made_with_is_in_its_manifest(compared: tuple[Path, str]) -> None:
    manifest = json.loads((compared[0] / "wine" / "manifest.json").read_text())
    assert manifest["data"] == "wine"
    assert manifest["training_rows"] == 60
    assert manifest["model"] == {
        "name": "mlp",
        "options": {
            "widths": [2],
            "activation": "tanh",
            "likelihood": "categorical",
            "num_classes": 3,
            "prior": {"class": "Normal", "scale": 3.0, "fan_in_scaled": True},
        },
    }


def test_nothing_is_fitted_where_a_later_folder_holds_another_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path / "breast_cancer", {"svi": [0.1]}, data="breast_cancer")
    assert cli.main(["compare", "--data", "wine", "breast_cancer", *SEVERAL, "--out", str(tmp_path)]) == 2
    assert f"{tmp_path}/breast_cancer holds another run" in capsys.readouterr().err
    assert list((tmp_path / "wine" / "fits").iterdir()) == []
