"""`hmcvi compare` from the outside: the scoreboard, the run folder, what is continued and what is refused."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
from pathlib import Path

import arviz as az
import jax
import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from hmcvi.benchmarks import cli
from hmcvi.benchmarks.datasets import load
from hmcvi.benchmarks.evaluate import POSTERIOR_MEAN, Evaluation
from hmcvi.benchmarks.records import fit_record
from hmcvi.benchmarks.table import CELL_WIDTH, COLUMNS, _cell, _layout, average_seeds, print_scoreboard
from hmcvi.inference import MAP, BayesByBackprop, ClassPredictive, Fit, load_datatree

QUICK = [
    "compare",
    "--data",
    "wine",
    "--quick",
    "--nuts",
    "num_warmup=60",
    "num_draws=40",
    "--model-options",
    "widths=4",
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A finished run in a process of its own, as a user starts it, from another folder than the repository's."""
    folder = tmp_path_factory.mktemp("runs")
    command = [sys.executable, "-m", "hmcvi.benchmarks.cli", *QUICK, "--seeds", "0", "1", "--out", "wine"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "no figure" not in done.stderr
    return folder / "wine", done.stdout


def unwrapped(printed: str) -> str:
    """What was printed, its lines and gaps as single spaces."""
    return " ".join(printed.split())


def test_scoreboard_fits_100_columns_and_names_all(finished: tuple[Path, str]) -> None:
    _, printed = finished
    assert max(len(line) for line in printed.splitlines()) <= 100
    assert "…" not in printed  # nothing is cut
    for words in ("nuts", "svi", "bbb", "accuracy", "ece, null level", "entropy, epistemic", "permutation", "AUROC"):
        assert words in printed
    assert "not applicable" in printed  # R-hat of the variational methods
    assert "unconverged" in printed
    assert "budgets too small" in printed


def test_folder_holds_trees_tables_configuration_and_figures(finished: tuple[Path, str]) -> None:
    folder, _ = finished
    fits = sorted(path.name for path in (folder / "fits").iterdir())
    assert fits == sorted(f"{method}-seed{seed}.nc" for method in ("nuts", "svi", "bbb") for seed in (0, 1))
    table = pd.read_csv(folder / "table.csv")
    assert tuple(table.columns) == COLUMNS
    pd.testing.assert_frame_equal(table, pd.read_parquet(folder / "table.parquet"))
    assert json.loads((folder / "config.json").read_text())["data"] == "wine"
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["data_hash"] == {str(seed): load("wine", seed=seed).data_hash for seed in (0, 1)}
    assert manifest["device_count"] == 2  # one for each chain of --quick
    figures = {path.name for path in (folder / "figures").iterdir()}
    predictions = ["reliability", "confidence", "probabilities", "entropy", "mutual-information", "roc"]
    right = table[(table["set"] == "test") & (table["score"] == "accuracy") & (table["seed"] == 0)]["value"]
    predictions += ["rejection"] if (right < 1).any() else []  # where nobody errs there is nothing to reject
    posteriors = ["forest", "marginals", "ridge", "pairs", "weights", "pruning", "signal-to-noise"]
    fits = ["convergence", "rank-nuts", "trace-nuts", "energy-nuts", "loss"]
    assert figures == {f"{name}.{ending}" for name in predictions + posteriors + fits for ending in ("png", "svg")}
    page = (folder / "report.html").read_text()
    assert page.count("<img ") == len(figures) / 2


def test_trees_are_arviz_trees_of_the_same_sites(finished: tuple[Path, str]) -> None:
    folder, _ = finished
    trees = {method: load_datatree(folder / "fits" / f"{method}-seed0.nc") for method in ("nuts", "svi", "bbb")}
    sites = {method: set(tree["posterior"].data_vars) for method, tree in trees.items()}
    assert (
        sites["nuts"]
        == sites["svi"]
        == sites["bbb"]
        == {f"{a}.{b}" for a in ("hidden_0", "out") for b in ("kernel", "bias")}
    )
    assert dict(trees["nuts"]["posterior"].sizes)["chain"] == 2
    summary = az.summary(trees["nuts"], var_names=["out.bias"], round_to="none")
    np.testing.assert_allclose(
        summary["mean"], trees["nuts"]["posterior"]["out.bias"].mean(("chain", "draw")), rtol=1e-5
    )
    assert trees["svi"].attrs["draws_are_chains"].startswith("no")
    assert trees["nuts"]["log_likelihood"]["y"].shape == (2, 40, len(load("wine", seed=0).x_train))


def test_unconverged_nuts_is_no_reference(finished: tuple[Path, str]) -> None:
    """40 draws in 2 chains cannot reach the gate's 200 effective draws: no distance may be printed."""
    folder, printed = finished
    verdicts = [record["verdict"] for record in json.loads((folder / "summary.json").read_text())["fits"]["nuts"]]
    assert verdicts == ["unconverged", "unconverged"]
    assert json.loads((folder / "summary.json").read_text())["reference"] == "nuts"
    assert "none: nuts is unconverged" in printed
    assert "reference" not in set(pd.read_csv(folder / "table.csv")["set"])


def test_only_gaussian_posteriors_are_scored_at_their_mean(finished: tuple[Path, str]) -> None:
    folder, printed = finished
    table = pd.read_csv(folder / "table.csv")
    at_mean = table[table["set"] == POSTERIOR_MEAN]
    assert set(at_mean["method"]) == {"svi", "bbb"}
    for _, rows in at_mean.groupby(["method", "seed"]):
        assert list(rows["score"]) == ["accuracy", "nll", "ece", "entropy, total"]
    assert at_mean["monte_carlo_error"].isna().all()  # one pass, so nothing varies with draws
    lines = printed.splitlines()
    start = lines.index(next(line for line in lines if line.startswith("at the posterior mean")))
    for line, score in zip(lines[start + 1 : start + 5], ("accuracy", "nll", "ece", "entropy, total"), strict=True):
        assert line.strip().startswith(score)
        assert "–" in line  # nuts has no mean to predict from
        assert line.count("±") == 2
    assert "At the posterior mean: one deterministic pass" in unwrapped(printed)


def test_nothing_is_said_of_a_temperature_of_one(finished: tuple[Path, str]) -> None:
    folder, printed = finished
    records = json.loads((folder / "summary.json").read_text())["fits"]
    assert {record["temperature"] for method in records.values() for record in method} == {1.0}
    assert "temperature of the KL" not in printed
    assert "tempered" not in printed


def test_same_command_reads_what_is_finished_and_fits_what_is_missing(
    finished: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _ = finished
    before = pd.read_csv(folder / "table.csv")
    kept = folder / "fits" / "nuts-seed0.nc"
    written = kept.stat().st_mtime_ns
    (folder / "fits" / "svi-seed1.nc").unlink()
    # All is done and printed; then the exit status says that the reference is none, where it is asked to be one.
    assert cli.main([*QUICK, "--seeds", "0", "1", "--out", str(folder), "--require-converged"]) == 1
    printed = capsys.readouterr()
    said = printed.err
    assert "accuracy" in printed.out
    assert "hmcvi: nuts is unconverged (wine, mlp, seed 0: R-hat " in said.splitlines()[-1]
    assert "wine, mlp, seed 1: " in said.splitlines()[-1]
    assert "nuts, seed 0: read from" in said
    assert "svi, seed 1: fitting" in said
    assert kept.stat().st_mtime_ns == written
    after = pd.read_csv(folder / "table.csv")
    # The fit that was repeated is the same up to the rounding of another device count.
    np.testing.assert_allclose(after["value"], before["value"], rtol=1e-3, atol=1e-3)


def test_table_prints_the_same_scoreboard(finished: tuple[Path, str], capsys: pytest.CaptureFixture[str]) -> None:
    folder, printed = finished
    assert cli.main(["table", str(folder)]) == 0
    accuracy = [line for line in printed.splitlines() if "accuracy" in line]
    assert accuracy[0] in capsys.readouterr().out


def test_folder_of_another_run_is_refused_and_left_alone(
    finished: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _ = finished
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert cli.main(["compare", "--data", "digits", "--out", str(folder)]) == 2
    said = capsys.readouterr().err
    assert "holds another run" in said
    assert "'wine' there" in said
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_damaged_fit_is_named_and_not_read(finished: tuple[Path, str], capsys: pytest.CaptureFixture[str]) -> None:
    folder, _ = finished
    file = folder / "fits" / "bbb-seed1.nc"
    whole = file.read_bytes()
    try:
        file.write_bytes(whole[: len(whole) // 2])
        assert cli.main([*QUICK, "--seeds", "0", "1", "--out", str(folder)]) == 2
        assert str(file) in capsys.readouterr().err
    finally:
        file.write_bytes(whole)


def test_regression_on_a_curve_draws_bands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "wave"
    command = ["compare", "--data", "wave", "--model", "gp", "--methods", "svi", "bbb", "--rows", "30", "--quick"]
    assert cli.main([*command, "--quiet", "--out", str(out)]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert {f"{name}.png" for name in ("bands", "coverage", "rejection", "loss", "forest", "entropy", "roc")} <= {
        path.name for path in (out / "figures").iterdir()
    }
    table = pd.read_csv(out / "table.csv").set_index(["set", "method", "score"])
    for method in ("svi", "bbb"):
        # The noise of the curve has sd 0.1; predicting the mean would err by about 0.7.
        assert 0.08 < table.loc[("test", method, "rmse"), "value"] < 0.3


def test_more_than_three_methods_stand_beside_the_noise_floor_in_every_table() -> None:
    assert _layout(["svi", "nuts", "bbb", "bbb-local", "bbb-shared"], "nuts") == [
        ["nuts", "svi", "bbb"],
        ["nuts", "bbb-local", "bbb-shared"],
    ]
    assert _layout(["svi", "bbb", "mclmc", "map"], "mclmc") == [["mclmc", "svi", "bbb"], ["mclmc", "map"]]
    assert _layout(["svi", "bbb"], None) == [["svi", "bbb"]]
    # nuts was asked for and failed: the tables go on without it
    for reference in (None, "nuts"):
        assert _layout(["svi", "bbb", "map", "laplace"], reference) == [["svi", "bbb", "map"], ["laplace"]]


def test_errors_of_several_seeds_are_those_between_seeds() -> None:
    rows = [(s, "svi", "test", "nll", v, 9.0, 0.3, v - 1, v + 1) for s, v in enumerate((1.0, 2.0, 3.0))]
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    row = average_seeds(table).iloc[0]
    assert row["value"] == 2
    assert row["standard_error"] == pytest.approx(1 / np.sqrt(3))
    assert row["monte_carlo_error"] == pytest.approx(0.3 / np.sqrt(3))
    assert np.isnan([row["low"], row["high"]]).all()  # intervals are over the rows of one seed
    assert average_seeds(table[:1]).iloc[0][["low", "high"]].tolist() == [0, 2]


BAD = {
    "unknown model": (["--model", "mpl"], "'mpl' (did you mean mlp?): give one of mlp, cnn, gp, hsgp, sgp"),
    "unknown method": (["--methods", "gibbs"], "give one of nuts, hmc, mclmc, "),
    "unknown data": (["--data", "digit"], "digits"),
    "unknown OOD set": (["--ood", "nois"], "uniform_noise"),
    "severity out of range": (["--ood", "blur@9"], "a severity from 1 to 5 is wanted"),
    "shift without severities": (["--shift", "permutation"], "no graded shift 'permutation'"),
    "no rows": (["--rows", "0"], "rows 0: give a whole number of at least 1"),
    "more test rows than there are": (["--test-rows", "9999"], "has 289 test rows"),
    "task that the data contradict": (["--task", "regression"], "digits is a classification"),
    "missing splits": (["--splits", "nowhere.npz"], "there is no file of splits nowhere.npz"),
    "target of named data": (["--target", "x"], "digits has its own target"),
    "TFDS set that is not prepared": (["--data", "kmnist"], '"hmcvi data prepare kmnist"'),
    "the same as OOD": (["--ood", "kmnist"], '"hmcvi data prepare kmnist"'),
    "resized digits": (["--image-size", "16"], "only TFDS sets are resized"),
    "unknown option": (["--nuts", "draws=5"], "num_draws"),
    "option without value": (["--svi", "num_steps"], "wanted key=value"),
    "option of the wrong type": (["--svi", "num_steps=many"], "wanted a whole number"),
    "option out of range": (["--bbb", "learning_rate=-1"], "learning_rate=-1.0: give a number above 0"),
    "batch larger than the data": (["--data", "wine", "--svi", "batch_size=5000"], "batch_size=5000"),
    "no units": (["--model-options", "widths=0"], "at least 1"),
    "unknown activation": (["--model-options", "activation=foo"], "relu, tanh"),
    "too much pooling": (["--model", "cnn", "--model-options", "pool=8"], "pool less"),
    "guide that needs setting up": (["--svi", "guide=AutoGuideList"], "AutoMultivariateNormal"),
    "unknown prior": (["--model-options", "prior=horseshoe"], "normal, mixture, laplace, hierarchical"),
    "prior without a scale": (["--model-options", "prior=mixture:2"], "takes no scale"),
    "cnn of a table": (["--data", "wine", "--model", "cnn"], "mlp or gp"),
    "too many rows": (["--rows", "999999"], "1154"),
    "seed twice": (["--seeds", "1", "1"], "seed 1 was given twice"),
    "temperatures of several methods": (
        ["--methods", "nuts", "bbb", "--bbb", "temperature=0.5"],
        "temperature is 1 for nuts and 0.5 for bbb",
    ),
    "temperature beside a point": (
        ["--methods", "bbb", "map", "--bbb", "temperature=2"],
        "temperature is 2 for bbb and 1 for map",
    ),
    "data set twice": (["--data", "wine", "wine"], "would share the folder"),
    "second of two data sets": (["--data", "wine", "digit", "--methods", "map"], "digits"),
    "second set that is not prepared": (["--data", "wine", "kmnist"], '"hmcvi data prepare kmnist"'),
    "no reference to converge": (
        ["--methods", "svi", "bbb", "--require-converged"],
        "the methods on digits are svi, bbb",
    ),
    "missing file": (["--data", "nowhere.csv", "--target", "y"], "nowhere.csv"),
}


@pytest.mark.parametrize("case", BAD, ids=str)
def test_bad_requests_get_one_sentence_and_leave_nothing(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, wanted = BAD[case]
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))  # where TFDS's own folder would be
    assert cli.main(["compare", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("hmcvi: error: ")
    assert wanted in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""
    assert list(tmp_path.iterdir()) == []


def test_nan_in_a_file_names_row_and_column(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    frame = pd.DataFrame({"a": np.arange(40.0), "b": np.arange(40) % 2})
    frame.loc[7, "a"] = np.nan
    frame.to_csv("bad.csv", index=False)
    assert cli.main(["compare", "--data", "bad.csv", "--target", "b"]) == 2
    said = capsys.readouterr().err
    assert "'a'" in said
    assert "row 7 (counted from 0" in said


def test_diverging_fit_fails_and_leaves_the_other_methods_scores_and_its_own_last_finite_state(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    command = ["compare", "--data", "wave", "--methods", "svi", "bbb", "--quick", "--bbb", "learning_rate=1e3"]
    assert cli.main([*command, "--no-figures", "--quiet", "--out", str(out)]) == 1
    assert not (out / "figures").exists()
    assert "bbb failed and is left out" in (out / "report.html").read_text()
    failed = out / "fits" / "bbb-seed0-failed.nc"
    said = capsys.readouterr().err
    assert "bbb, seed 0: the loss became" in said
    assert f"lower the learning rate; its last finite state is in {failed}" in said
    assert said.count("\n") == 1
    # The fit that failed is none to continue from: it has a name of its own.
    assert sorted(path.name for path in (out / "fits").iterdir()) == ["bbb-seed0-failed.nc", "svi-seed0.nc"]
    # What did not fail is scored all the same, and what failed is on no board.
    table = pd.read_csv(out / "table.csv")
    assert set(table["method"]) == {"svi"}
    summary = json.loads((out / "summary.json").read_text())
    assert list(summary["fits"]) == ["svi"]
    assert summary["failed"]["bbb"] in said
    tree = load_datatree(failed)
    assert tree.attrs["failure"] in said
    assert json.loads(tree.attrs["method"])["learning_rate"] == 1000
    for part in ("posterior", "location", "scale"):
        assert all(np.isfinite(values).all() for values in tree[part].data_vars.values()), part
    assert np.isfinite(tree["optimisation"]["loss"]).all()
    assert tree["optimisation"]["restart_loss"].item() == np.inf  # a start that failed is no start to keep
    # The losses end before the one that was not finite.
    step = int(tree.attrs["failure"].partition("at step ")[2].split()[0])
    assert len(tree["optimisation"]["loss"]) == step
    assert cli.main(["table", str(out)]) == 0
    board = capsys.readouterr().out
    assert f"bbb failed and is left out: {summary['failed']['bbb']}" in " ".join(board.split())


def test_where_every_method_fails_there_is_no_board(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    command = ["compare", "--data", "wave", "--methods", "svi", "--quick", "--svi", "learning_rate=1e3"]
    assert cli.main([*command, "--quiet", "--out", str(out)]) == 1
    assert "svi, seed 0: the loss became" in capsys.readouterr().err
    assert not (out / "table.csv").exists()
    assert cli.main(["table", str(out)]) == 2
    assert "is incomplete" in capsys.readouterr().err


def test_every_optimised_method_that_diverges_leaves_its_last_finite_state(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    methods = ["laplace", "map", "ensemble"]  # beside bbb and svi, above and below
    rates = [part for name in methods for part in (f"--{name}", "learning_rate=1e3")]
    command = ["compare", "--data", "wave", "--ood", "--model-options", "widths=2", "--quick", "--quiet"]
    assert cli.main([*command, "--methods", *methods, *rates, "--out", str(tmp_path / "run")]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert sorted(path.name for path in (tmp_path / "run" / "fits").iterdir()) == sorted(
        f"{name}-seed0-failed.nc" for name in methods
    )
    for name in methods:
        tree = load_datatree(tmp_path / "run" / "fits" / f"{name}-seed0-failed.nc")
        assert f"{name}, seed 0: {tree.attrs['failure']}; its last finite state is in" in said
        assert all(np.isfinite(values).all() for values in tree["posterior"].data_vars.values()), name


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


def optimised(method: MAP | BayesByBackprop, *, finished: bool | None = True) -> tuple[Fit, Evaluation]:
    """A fit by this method and its evaluation, of which the board reads the record only."""
    fitted = Fit(
        model=lambda x, y=None: None,
        method=method,
        x=np.zeros((10, 2)),
        y=np.zeros(10),
        key=jax.random.key(0),
        draws={"w": np.zeros((1, 5, 3))},
        num_gradients=40,
        rows_per_gradient=5,
        run_seconds=1.0,
        compile_seconds=2.0,
        losses=np.ones(40),
        finished=finished,
    )
    probs = np.full((1, 4, 2), 0.5)
    return fitted, Evaluation([], ClassPredictive(probs, probs[..., 0], np.array([5])), 5, {}, None)


def test_a_tempered_posterior_says_so_on_the_board_and_in_its_reason() -> None:
    records = {
        name: [fit_record(*optimised(method))]
        for name, method in {
            "bbb": BayesByBackprop(temperature=0.25),
            "bbb-local": BayesByBackprop("local", temperature=0.25),
            "bbb-shared": BayesByBackprop("shared"),
            "map": MAP(),  # has no KL to multiply
        }.items()
    }
    assert [record["temperature"] for (record,) in records.values()] == [0.25, 0.25, 1.0, 1.0]
    rows = [(0, name, "test", "nll", 0.5, 0.1, 0.01, np.nan, np.nan) for name in records]
    printed = {}
    for shown in (["bbb", "bbb-local"], ["bbb-shared", "map"]):
        summary = {"title": "toy", "seeds": [0], "sets": {"test": 4}, "fits": {name: records[name] for name in shown}}
        console = Console(width=100, file=io.StringIO(), color_system=None)
        print_scoreboard(pd.DataFrame(rows, columns=list(COLUMNS)), summary, console)
        printed[shown[0]] = console.file.getvalue()
    (line,) = [line for line in printed["bbb"].splitlines() if "temperature of the KL" in line]
    assert line.split()[-2:] == ["0.25", "0.25"]
    reason = "tempered: its KL is multiplied by 0.25, so it is not the model's posterior"
    assert reason in unwrapped(printed["bbb"])
    assert "temper" not in printed["bbb-shared"]
    assert "tempered" not in records["bbb-shared"][0]["reason"] + records["map"][0]["reason"]
    assert reason in fit_record(*optimised(BayesByBackprop(temperature=0.25)))["reason"]


def test_how_an_optimisation_ended_is_its_verdict() -> None:
    cosine = BayesByBackprop(schedule="cosine", temperature=0.5)
    ended = {finished: fit_record(*optimised(cosine, finished=finished)) for finished in (True, False, None)}
    assert [record["verdict"] for record in ended.values()] == ["finished", "unfinished", "schedule ended"]
    # A loss is flat where the learning rate is next to 0: that is no plateau, and is not called one.
    assert "plateau" not in ended[None]["reason"]
    assert all("40 steps" in record["reason"] and "tempered" in record["reason"] for record in ended.values())


def test_folders_of_before_temperatures_are_printed_still() -> None:
    """A summary.json that an earlier version wrote has no temperature: that of Bayes."""
    (record,) = [fit_record(*optimised(MAP()))]
    del record["temperature"]
    summary = {"title": "toy", "seeds": [0], "sets": {"test": 4}, "fits": {"map": [record]}}
    console = Console(width=100, file=io.StringIO(), color_system=None)
    rows = [(0, "map", "test", "nll", 0.5, 0.1, 0.01, np.nan, np.nan)]
    print_scoreboard(pd.DataFrame(rows, columns=list(COLUMNS)), summary, console)
    assert "0.500 ±0.100" in console.file.getvalue()
    assert "temper" not in console.file.getvalue()


def test_shifts_gaps_and_given_splits_from_end_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A user's own table, with published splits, a gap, graded noise, tuned on validation rows."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(120, 2)), columns=["a", "b"])
    frame["y"] = frame["a"] + 0.1 * rng.normal(size=120)
    frame.to_csv("own.csv", index=False)
    for name, rows in {"train": range(80), "validation": range(80, 100), "test": range(100, 120)}.items():
        Path(f"index_{name}_0.txt").write_text("\n".join(map(str, rows)))
    command = ["compare", "--data", "own.csv", "--target", "y", "--methods", "svi", "--svi", "num_steps=300"]
    command += ["--ood", "gap:b", "--shift", "gaussian_noise", "--splits", "index_{part}_{seed}.txt"]
    assert cli.main([*command, "--tune", "--out", "tuned"]) == 0
    printed = capsys.readouterr()
    assert "The target has 120 different numbers: taken for a regression" in printed.err
    assert "Rows with b between" in printed.err
    table = pd.read_csv("tuned/table.csv").set_index(["set", "score"])["value"]
    assert set(table.index.get_level_values("set")) == {"validation", POSTERIOR_MEAN, "training rows", "gap:b"} | {
        f"gaussian_noise@{level}" for level in range(1, 6)
    }
    errors = [table[f"gaussian_noise@{level}", "rmse"] for level in (1, 3, 5)]
    assert table["validation", "rmse"] < errors[1] < errors[2]
    assert table["gap:b", "rmse"] > 0
    for words in ("validation, ", "gaussian_noise, severities 1 to 5", "gap:b, "):
        assert words in printed.out
    assert max(len(line) for line in printed.out.splitlines()) <= 100
    assert "…" not in printed.out
    assert Path("tuned/figures/shift-gaussian_noise.png").exists()
    assert cli.main(["table", "tuned"]) == 0
    assert "gaussian_noise, severities 1 to 5" in capsys.readouterr().out
    assert cli.main([*command, "--out", "tuned"]) == 2
    assert "tune is True there and False here" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--data", "kmnist"], ["--ood", "noise", "kmnist+blur@2"]])
def test_a_set_that_is_not_prepared_is_refused_before_jax_is_imported(tmp_path: Path, arguments: list[str]) -> None:
    code = "import sys; from hmcvi.benchmarks import cli\n"
    code += f"assert cli.main(['compare', '--data-dir', {str(tmp_path)!r}, *{arguments}]) == 2\n"
    code += "assert 'jax' not in sys.modules and 'numpyro' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "hmcvi data prepare kmnist" in done.stderr


def test_help_needs_no_jax_and_names_every_choice(capsys: pytest.CaptureFixture[str]) -> None:
    code = "import sys; from hmcvi.benchmarks import cli\ntry: cli.main(['--help'])\nexcept SystemExit: pass\n"
    code += "assert 'jax' not in sys.modules and 'numpyro' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60)
    with pytest.raises(SystemExit) as stopped:
        cli.main(["compare", "--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    for words in (
        "digits",
        "bbb-local",
        "held_out",
        "num_warmup=500",
        "--ensemble",
        "optimizer=adam",
        "clip_norm=none",
        "widths=16",
        "prior=",
        "--target",
        "blur",
        "--shift",
        "--splits",
    ):
        assert words in text


@pytest.mark.parametrize("value", [0.979, 0.00067, 6.8e-5, -0.0049, 123.4])
@pytest.mark.parametrize(("error", "monte_carlo"), [(0.0004, 4e-5), (0.00012, 0.00034), (0.008, 0.0003)])
def test_a_cell_is_never_wider_than_its_column(value: float, error: float, monte_carlo: float) -> None:
    """What is wider is cut at the board's edge, a digit at a time."""
    text = _cell(value, error, monte_carlo)
    assert len(text) <= CELL_WIDTH
    assert float(text.split()[0]) == pytest.approx(value, rel=0.06, abs=5e-4 if error >= 5e-4 else 0)
    assert text.split()[1].startswith("±")
