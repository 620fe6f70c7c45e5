"""Equal budgets from the command line to the curves, and what they do not afford."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hmcvi.benchmarks import cli
from hmcvi.benchmarks.budget import Budget
from hmcvi.benchmarks.budget_curves import BUDGET_COLUMNS, budget_curves
from hmcvi.benchmarks.options import UsageError
from hmcvi.inference import NUTS, SVI


def rows(spent: dict[float, tuple[float, ...]], verdict: str = "finished") -> pd.DataFrame:
    """Rows of one method and score: passes by share and seed."""
    table = [
        (seed, "svi", share, passes, passes / 100, verdict, "nll", 1 / passes, 0.1, 0.0)
        for share, of_seeds in spent.items()
        for seed, passes in enumerate(of_seeds)
    ]
    return pd.DataFrame(table, columns=list(BUDGET_COLUMNS))


def test_a_curve_goes_through_what_was_spent() -> None:
    curve = budget_curves(rows({0.5: (50.0, 52.0), 1.0: (100.0, 104.0)}), "passes")["svi"]["nll"]
    np.testing.assert_array_equal(curve["budget"], [51, 102])
    np.testing.assert_allclose(curve["value"], [(1 / 50 + 1 / 52) / 2, (1 / 100 + 1 / 104) / 2])
    assert curve["done"].tolist() == [True, True]
    assert budget_curves(rows({1.0: (100.0,)}), "seconds")["svi"]["nll"]["budget"].tolist() == [1.0]


def test_a_method_that_is_done_before_its_allowance_has_one_point_for_it() -> None:
    curve = budget_curves(rows({0.25: (50.0,), 0.5: (80.0,), 1.0: (80.0,)}), "passes")["svi"]["nll"]
    np.testing.assert_array_equal(curve["budget"], [50, 80])


def test_a_share_that_failed_at_one_seed_has_no_point() -> None:
    curve = budget_curves(rows({0.5: (50.0,), 1.0: (100.0, 100.0)}), "passes")["svi"]["nll"]
    np.testing.assert_array_equal(curve["budget"], [100])


def test_an_unfinished_seed_leaves_the_point_undone() -> None:
    table = rows({1.0: (100.0, 100.0)})
    table.loc[1, "verdict"] = "unfinished"
    assert budget_curves(table, "passes")["svi"]["nll"]["done"].tolist() == [False]


@pytest.mark.parametrize("amount", [0.0, -1.0, np.inf, np.nan])
def test_a_budget_of_nothing_is_refused(amount: float) -> None:
    with pytest.raises(UsageError, match="give a number above 0"):
        Budget(amount, "seconds")


def test_a_share_of_a_budget_is_planned_for() -> None:
    budget = Budget(1000, "passes")
    sampler = NUTS(num_warmup=400, num_draws=20)
    assert budget.limit(sampler, 0.25) == NUTS(num_warmup=100, num_draws=20, max_passes=250)
    assert budget.limit(sampler) == NUTS(num_warmup=400, num_draws=20, max_passes=1000)
    assert budget.limit(NUTS(num_warmup=5), 0.5).num_warmup == 5
    assert budget.limit(SVI(num_steps=300), 0.5) == SVI(num_steps=300, max_passes=500)


def test_a_budget_from_the_command_to_the_figure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """MAP stops at its own number of steps before the budget; an eighth of it may buy Laplace nothing."""
    out = tmp_path / "run"
    command = [
        "compare",
        "--data",
        "wave",
        "--methods",
        "map",
        "laplace",
        "--budget-gradients",
        "400",
        "--out",
        str(out),
    ]
    own = ["--map", "num_steps=150", "--laplace", "num_steps=300", "num_draws=20", "--model-options", "widths=3"]
    assert cli.main([*command, *own, "--ood", "--quiet", "--out", str(out)]) == 0
    assert "at most 400 passes over the data a method" in " ".join(capsys.readouterr().out.split())
    table = pd.read_csv(out / "budget.csv")
    assert set(table["method"]) == {"map", "laplace"}
    assert (table["passes"] <= table["share"] * 400).all()
    of_map = table[(table["method"] == "map") & (table["score"] == "nll")].set_index("share")
    assert of_map.loc[1.0, "passes"] == of_map.loc[0.5, "passes"] == 150
    assert (out / "figures" / "budget.png").exists()
    assert json.loads((out / "config.json").read_text())["budget"] == {"amount": 400.0, "unit": "passes"}
    assert cli.main(["compare", "--budget-seconds", "0"]) == 2
    assert "a budget of 0 seconds was asked for" in capsys.readouterr().err
