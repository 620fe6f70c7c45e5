"""`hmcvi compare` from the outside: the scoreboard, the run folder, what is continued and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import arviz as az
import numpy as np
import pandas as pd
import pytest

from hmcvi.benchmarks import cli
from hmcvi.benchmarks.datasets import load
from hmcvi.benchmarks.evaluate import POSTERIOR_MEAN
from hmcvi.benchmarks.table import COLUMNS
from hmcvi.inference import load_datatree

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
