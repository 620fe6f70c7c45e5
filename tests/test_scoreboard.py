"""The printed scoreboard: its tables, its seeds, its verdicts and its cells."""

from __future__ import annotations

import io

import jax
import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from hmcvi.benchmarks.evaluate import Evaluation
from hmcvi.benchmarks.records import fit_record
from hmcvi.benchmarks.table import CELL_WIDTH, COLUMNS, _cell, _layout, average_seeds, print_scoreboard
from hmcvi.inference import MAP, BayesByBackprop, ClassPredictive, Fit


def unwrapped(printed: str) -> str:
    """What was printed, its lines and gaps as single spaces."""
    return " ".join(printed.split())


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


@pytest.mark.parametrize("value", [0.979, 0.00067, 6.8e-5, -0.0049, 123.4])
@pytest.mark.parametrize(("error", "monte_carlo"), [(0.0004, 4e-5), (0.00012, 0.00034), (0.008, 0.0003)])
def test_a_cell_is_never_wider_than_its_column(value: float, error: float, monte_carlo: float) -> None:
    """What is wider is cut at the board's edge, a digit at a time."""
    text = _cell(value, error, monte_carlo)
    assert len(text) <= CELL_WIDTH
    assert float(text.split()[0]) == pytest.approx(value, rel=0.06, abs=5e-4 if error >= 5e-4 else 0)
    assert text.split()[1].startswith("±")
