"""Which method the others' distances are taken to, and what the boards say of it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from hmcvi.benchmarks import cli
from hmcvi.benchmarks.compare import _distances, _without
from hmcvi.benchmarks.datasets import load
from hmcvi.benchmarks.evaluate import Evaluation
from hmcvi.benchmarks.reference import REFERENCES, UNADJUSTED, bias_notes, reference_of
from hmcvi.benchmarks.table import COLUMNS
from hmcvi.inference import NormalPredictive
from hmcvi.inference.diagnostics import verdict

from .run_folders import change, write_run

MIXED = verdict({"values": np.random.default_rng(0).normal(size=(4, 500, 3))})
APART = dataclasses.replace(MIXED, converged=False, reason="R-hat 1.2, wanted < 1.01")


@pytest.mark.parametrize(
    ("methods", "wanted"),
    [
        (["svi", "mclmc", "mams", "hmc", "nuts"], "nuts"),
        (["mclmc", "mams", "svi", "hmc"], "hmc"),
        (["mclmc", "mams"], "mams"),
        (["map", "mclmc"], "mclmc"),
        (["svi", "svi-full", "laplace", "bbb", "map", "ensemble"], None),
        ([], None),
    ],
)
def test_the_most_trusted_sampler_is_the_reference_wherever_it_stands(methods: list[str], wanted: str | None) -> None:
    assert reference_of(methods) == wanted


def test_no_biased_sampler_is_trusted_before_an_exact_one() -> None:
    biased = [name in UNADJUSTED for name in REFERENCES]
    assert biased == sorted(biased)
    assert bias_notes([name for name in REFERENCES if name not in UNADJUSTED], REFERENCES) == []


def evaluation(shift: float, convergence: object) -> Evaluation:
    """Of a predictive that is N(shift, 1) at every test row of diabetes, up to the scatter of 4 x 50 draws."""
    loc = np.random.default_rng(1).normal(scale=0.01, size=(4, 50, len(DIABETES.x_test))) + shift
    batch = np.repeat(np.arange(20).reshape(4, 5), 10, axis=1)
    return Evaluation([], NormalPredictive(loc, np.ones_like(loc), batch), 200, {}, convergence)


DIABETES = load("diabetes", seed=0)
FITS = {
    name: SimpleNamespace(draws={"weight": np.random.default_rng(seed).normal(size=(4, 50, 1))})
    for seed, name in enumerate(("nuts", "mclmc", "svi"))
}


def test_distances_are_taken_to_the_method_that_is_named() -> None:
    found = {"nuts": evaluation(1.0, MIXED), "mclmc": evaluation(3.0, MIXED), "svi": evaluation(0.0, None)}
    for reference, shift in (("nuts", 1.0), ("mclmc", 3.0)):
        rows = {row.score: row for row in _distances("svi", reference, FITS, found, DIABETES)}
        assert {row.set for row in rows.values()} == {"reference"}
        assert rows["wasserstein-2"].value == pytest.approx(shift * DIABETES.target_scale, rel=0.02)
    # mclmc beside nuts is one of the others
    (row,) = (r for r in _distances("mclmc", "nuts", FITS, found, DIABETES) if r.score == "wasserstein-2")
    assert row.value == pytest.approx(2 * DIABETES.target_scale, rel=0.02)


def test_no_sampler_takes_the_place_of_a_reference_that_is_none() -> None:
    found = {"nuts": evaluation(1.0, APART), "mclmc": evaluation(3.0, MIXED), "svi": evaluation(0.0, None)}
    assert _distances("svi", "nuts", FITS, found, DIABETES) == []
    assert _distances("svi", None, FITS, found, DIABETES) == []
    del found["nuts"]  # it failed at this seed
    assert _distances("svi", "nuts", FITS, found, DIABETES) == []


def test_distances_go_with_a_reference_that_failed_at_another_seed() -> None:
    rows = [(0, "svi", part, "wasserstein-2", 1.0) for part in ("reference", "test")]
    table = pd.DataFrame(rows, columns=list(COLUMNS[:5]))
    records = {"mclmc": [], "svi": []}
    assert list(_without({"mclmc"}, table, records, "mclmc")[0]["set"]) == ["test"]
    assert list(_without({"mclmc"}, table, records, "nuts")[0]["set"]) == ["reference", "test"]


def printed(folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """The scoreboard of a run, on one line."""
    assert cli.main(["table", str(folder)]) == 0
    return " ".join(capsys.readouterr().out.split())


def test_the_scoreboard_names_its_reference(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    distances = [(0, method, "reference", "agreement", 0.9, 0.01, np.nan) for method in ("mclmc", "svi")]
    values = {"svi": [0.2], "map": [0.3], "laplace": [0.3], "mclmc": [0.1]}
    verdicts = {"mclmc": ["converged"]}
    folder = write_run(tmp_path / "run", values, further=distances, verdicts=verdicts)
    board = printed(folder, capsys)
    # it leads both tables, as its column is the noise floor
    assert board.count("mclmc svi map fit") == board.count("mclmc laplace fit") == 1
    assert "distance to mclmc, unadjusted agreement ↑ 0.900" in board
    assert "mclmc's distance to itself is the noise floor" in board
    assert "so that distances to mclmc hold this bias too (at its default tuning" in board
    assert "nuts" not in board


def test_the_scoreboard_says_why_there_is_no_distance(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_run(tmp_path / "run", {"hmc": [0.1], "svi": [0.2]}, verdicts={"hmc": ["unconverged"]})
    assert "distance to hmc none: hmc is unconverged" in printed(folder, capsys)
    change(folder, "summary.json", "reference", to="nuts")
    change(folder, "summary.json", "failed", to={"nuts": "seed 0 left the finite numbers"})
    assert "distance to nuts none: nuts failed" in printed(folder, capsys)
    # a run of before had no other reference than nuts
    change(folder, "summary.json", "failed", to={})
    change(folder, "summary.json", "reference", to=None)
    assert "distance to" not in printed(folder, capsys)


def test_any_converged_sampler_serves_where_one_is_required(tmp_path: Path) -> None:
    for method in ("hmc", "mclmc"):
        good = write_run(tmp_path / method, {method: [0.1], "svi": [0.2]}, verdicts={method: ["converged"]})
        assert cli.main(["table", str(good), "--require-converged"]) == 0
        bad = write_run(tmp_path / f"{method}-bad", {method: [0.1]}, verdicts={method: ["unconverged"]})
        assert cli.main(["table", str(bad), "--require-converged"]) == 1


@pytest.mark.parametrize(("format", "label"), [("markdown", "agreement, to mclmc ↑"), ("latex", "agreement, to mclmc")])
def test_joined_tables_name_the_reference_and_its_bias(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], format: str, label: str
) -> None:
    distances = [(0, method, "reference", "agreement", 0.9, 0.01, np.nan) for method in ("mclmc", "svi")]
    verdicts = {"mclmc": ["converged"]}
    folder = write_run(tmp_path / "run", {"mclmc": [0.1], "svi": [0.2]}, further=distances, verdicts=verdicts)
    assert cli.main(["table", str(folder), "--format", format]) == 0
    text = capsys.readouterr().out
    assert label in text
    assert "mclmc is unadjusted" in text
    assert cli.main(["table", str(folder), "--format", "csv"]) == 0
    assert ",to mclmc,reference,agreement," in capsys.readouterr().out
