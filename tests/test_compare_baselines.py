"""`hmcvi compare` of MAP and a deep ensemble, which are no posteriors."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hmcvi.benchmarks import cli
from hmcvi.benchmarks.evaluate import POSTERIOR_MEAN
from hmcvi.inference import load_datatree


@pytest.fixture(scope="module")
def baselines(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A finished run of the two methods that are no posteriors."""
    out = tmp_path_factory.mktemp("baselines") / "run"
    command = ["compare", "--data", "wine", "--methods", "map", "ensemble", "--quick", "--ood"]
    command += ["--map", "num_steps=200", "--ensemble", "num_steps=200", "size=3", "--model-options", "widths=4"]
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert cli.main([*command, "--quiet", "--out", str(out)]) == 0
    return out, printed.getvalue()


def test_map_and_ensemble_stand_on_the_board(baselines: tuple[Path, str]) -> None:
    folder, printed = baselines
    records = json.loads((folder / "summary.json").read_text())["fits"]
    assert list(records) == ["map", "ensemble"]
    assert [records[method][0]["num_draws"] for method in records] == [1, 3]
    assert [records[method][0]["num_gradients"] for method in records] == [200, 600]
    header = next(line for line in printed.splitlines() if "ensemble" in line)
    assert header.split() == ["map", "ensemble"]
    table = pd.read_csv(folder / "table.csv").set_index(["set", "method", "score"])
    for method in ("map", "ensemble"):
        # Guessing the largest of three classes is right for 40 % of wines.
        assert table.loc[("test", method, "accuracy"), "value"] > 0.6
    assert ("minus map", "ensemble", "nll") in table.index
    assert json.loads((folder / "summary.json").read_text())["reference"] is None
    assert "reference" not in table.index.get_level_values("set")
    assert POSTERIOR_MEAN not in table.index.get_level_values("set")
    assert "at the posterior mean" not in printed
    figures = {path.stem for path in (folder / "figures").iterdir()}
    # What they minimise is no ELBO, and neither has a sigma for a weight.
    found = ["reliability", "confidence", "probabilities", "forest", "marginals", "ridge", "weights"]
    errs = any(table.loc[("test", method, "accuracy"), "value"] < 1 for method in ("map", "ensemble"))
    assert figures == {*found, "loss-negative-log-joint", *(["rejection"] if errs else [])}


def test_one_draw_has_no_monte_carlo_error_and_no_epistemic_entropy(baselines: tuple[Path, str]) -> None:
    folder, printed = baselines
    table = pd.read_csv(folder / "table.csv")
    test = table[table["set"] == "test"].set_index(["method", "score"])
    assert test.loc["map", "monte_carlo_error"].isna().all()
    assert test.loc["map", "standard_error"].notna().all()
    assert test.loc["ensemble", "monte_carlo_error"].notna().all()
    assert test.loc[("map", "entropy, epistemic"), ["value", "standard_error"]].tolist() == [0, 0]
    assert test.loc[("map", "entropy, total"), "value"] == pytest.approx(
        test.loc[("map", "entropy, aleatoric"), "value"], rel=1e-6
    )
    assert test.loc[("ensemble", "entropy, epistemic"), "value"] > 0
    accuracy = next(line for line in printed.splitlines() if "accuracy ↑" in line)
    assert accuracy.count("±") == 3  # two sampling errors, and the ensemble's Monte Carlo error
    assert "nan" not in printed


def test_point_estimates_are_kept_with_their_loss(baselines: tuple[Path, str]) -> None:
    folder, _ = baselines
    trees = {method: load_datatree(folder / "fits" / f"{method}-seed0.nc") for method in ("map", "ensemble")}
    assert [dict(tree["posterior"].sizes)["draw"] for tree in trees.values()] == [1, 3]
    point = trees["map"]["posterior"]["hidden_0.kernel"].values[0, 0]
    np.testing.assert_array_equal(trees["map"]["location"]["hidden_0.kernel"].values, point)
    assert "scale" not in trees["map"].children
    assert "location" not in trees["ensemble"].children
    for tree in trees.values():
        loss = tree["optimisation"]["loss"].values
        assert len(loss) == 200
        assert loss[-20:].mean() < 0.5 * loss[:20].mean()
