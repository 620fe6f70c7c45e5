"""The growth benchmark measures what it says: slopes of known curves, cells that are ended, what is written."""

import csv
import itertools
import json
import sys

import numpy as np
import pytest
from scipy.stats import linregress

from hmcvi.benchmarks import growth, growth_cell
from hmcvi.benchmarks.growth import COLUMNS, MEASURED, cells_of, log_slope, run_cell
from hmcvi.benchmarks.growth_cell import CURVES, Cell, Setting, request
from hmcvi.models import gp
from hmcvi.models.gp import most_rows
from hmcvi.plots.growth import growth_curves

from .drawn_text import check_apart, drawn_on_a_page, visible_texts

# --- slopes


@pytest.mark.parametrize("power", [0.0, 1.0, 2.5])
def test_the_slope_of_a_power_is_its_exponent(power):
    sizes = np.array([250, 1500, 10_000, 64_000])
    found = log_slope(sizes, 3e-5 * sizes**power)
    assert found.value == pytest.approx(power, abs=1e-12)
    assert found.error == pytest.approx(0, abs=1e-12)


def test_slope_and_error_are_those_of_a_regression_of_logarithms():
    sizes, noise = np.array([2.0, 8, 30, 100, 700]), np.exp(np.random.default_rng(0).normal(0, 0.3, 5))
    wanted = linregress(np.log(sizes), np.log(sizes**1.5 * noise))
    found = log_slope(sizes, sizes**1.5 * noise)
    assert (found.value, found.error) == pytest.approx((wanted.slope, wanted.stderr))


def test_few_points_have_no_error_and_fewer_no_slope():
    two = log_slope([1, 10], [1.0, 10.0])
    assert two.value == pytest.approx(1)
    assert np.isnan(two.error)
    assert str(two) == "1.00"
    assert str(log_slope([1], [1.0])) == "–"
    assert log_slope([1, 10, 100], [1.0, 0.0, 100.0]).value == pytest.approx(1)  # what did not grow has no logarithm


# --- cells


def test_a_curve_changes_its_own_size_alone():
    for name, curve in CURVES.items():
        for subject, sizes in curve.sizes.items():
            assert 4 <= len(sizes) <= 5
            assert sizes[-1] / sizes[0] >= 8
            settings = [Cell(name, subject, size).setting for size in sizes]
            for first, second in itertools.pairwise(settings):
                changed = [field for field in vars(Setting()) if getattr(first, field) != getattr(second, field)]
                assert changed == [growth_cell.NAMES[name]]
            request(Cell(name, subject, sizes[0]))  # the method takes it


def test_the_exact_gp_serves_its_largest_size():
    model, method, x, _ = request(Cell("gp rows", "gp", growth_cell.EXACT_ROWS[-1]))
    assert model is gp
    assert len(x) <= most_rows(2**29, 4)
    assert method.batch_size == len(x)  # one step is one gradient over all rows


def test_a_cell_is_measured_in_a_process_of_its_own():
    row = run_cell(Cell("rows", "map", 250, quick=True), most_seconds=300, most_bytes=2**33)
    assert row["status"] == MEASURED
    assert list(row) == list(COLUMNS)
    assert row["parameters"] == 16 * 16 + 16 + 16 * 4 + 4
    assert row["num_gradients"] == growth_cell.QUICK["steps"]
    assert row["units"] == row["num_gradients"]
    assert row["seconds_per_unit"] == pytest.approx(row["run_seconds"] / row["num_gradients"], rel=1e-4)
    assert row["added_mib"] == pytest.approx(row["peak_mib"] - row["before_mib"], abs=0.02)
    assert row["before_mib"] > 100
    assert 0 < row["run_seconds"] + row["compile_seconds"] < row["wall_seconds"]


def script(tmp_path, source):
    path = tmp_path / "cell.py"
    path.write_text(source)
    return [sys.executable, str(path)]


CELL = Cell("rows", "svi", 250)


@pytest.mark.parametrize(
    ("source", "limits", "status"),
    [
        ("import time; time.sleep(60)", {"most_seconds": 0.3, "most_bytes": 2**40}, "over 0.3 s"),
        (
            "import time; held = b'1' * 2**28; time.sleep(60)",
            {"most_seconds": 50, "most_bytes": 2**27},
            "over 0.125 GiB",
        ),
        ("import sys; sys.exit('no such thing')", {}, "failed: ended with status 1: no such thing"),
        ('print(\'{"failed": "too large"}\')', {}, "failed: too large"),
        ("", {}, "failed: ended with status 0: "),
    ],
)
def test_a_cell_that_takes_too_much_or_fails_is_recorded(tmp_path, source, limits, status):
    row = run_cell(CELL, command=script(tmp_path, source), **{"most_seconds": 50, "most_bytes": 2**40, **limits})
    assert row["status"] == status
    assert (row["curve"], row["subject"], row["size"]) == ("rows", "svi", 250)
    assert row["run_seconds"] == ""
    assert row["wall_seconds"] < 45  # it was ended, not waited for


# --- the command

MADE_UP = """
import json, sys
cell = json.loads(sys.argv[1])
size = cell["size"]
if cell["subject"] == "laplace" and size > 500:
    print(json.dumps({"failed": "the Hessian is\\ntoo large"}))
elif cell["subject"] == "nuts" and size > 500:
    import time; time.sleep(60)
else:
    print(json.dumps({"parameters": 7, "run_seconds": 1e-3 * size**2, "compile_seconds": 1.5,
                      "num_gradients": 20, "units": 10,
                      "before_mib": 300.0, "peak_mib": 300.0 + size}))
"""
"""Time grows as size², memory in proportion; of NUTS and Laplace the larger cells fail."""


def run(tmp_path, monkeypatch, *arguments):
    monkeypatch.setattr(growth, "COMMAND", script(tmp_path, MADE_UP))
    folders = ["--out", str(tmp_path / "out"), "--publish", str(tmp_path / "kept")]
    return growth.main([*arguments, "--seconds", "3", *folders])


def test_a_quick_sweep_is_written_and_not_published(tmp_path, monkeypatch, capsys):
    assert run(tmp_path, monkeypatch, "--quick", "--curves", "rows", "chains", "--subjects", "mclmc", "laplace") == 0
    out = tmp_path / "out"
    rows = list(csv.DictReader((out / "growth.csv").read_text().splitlines()))
    assert list(rows[0]) == list(COLUMNS)
    wanted = [("rows", "mclmc", 250), ("rows", "mclmc", 1500), ("rows", "laplace", 250), ("rows", "laplace", 1500)]
    wanted += [("chains", "mclmc", 1), ("chains", "mclmc", 2)]
    assert [(row["curve"], row["subject"], int(row["size"])) for row in rows] == wanted
    statuses = [MEASURED] * 3 + ["failed: the Hessian is too large"] + [MEASURED] * 2
    assert [row["status"] for row in rows] == statuses
    page = (out / "growth.md").read_text()
    assert "Quick: two sizes" in page
    # 1e-3 s · size² over 10 units is 0.1 ms · size²
    assert "| mclmc | 250 to 1,500 | 6,250 to 225,000 | 2.00 | 2.00 | 250 to 1,500 | 1.00 | – |" in page
    assert "| laplace | 250 to 250 | 6,250 to 6,250 | – | – | 250 to 250 | – | 1,500 (failed) |" in page
    assert "- laplace, rows 1,500: failed: the Hessian is too large" in page
    assert "within\n3 seconds and 4 GiB" in page
    assert {"growth.png", "growth.svg"} <= {path.name for path in out.iterdir()}
    assert not (tmp_path / "kept").exists()
    assert "not every cell was run in full" in capsys.readouterr().err


def test_a_sweep_in_full_is_published(tmp_path, monkeypatch):
    few = {"rows": CURVES["rows"], "gp rows": CURVES["gp rows"]}
    few["rows"] = growth_cell.Curve("training rows", True, {"nuts": (250, 1000), "svi": (250, 500, 1000)}, {})
    monkeypatch.setattr(growth, "CURVES", few)
    assert run(tmp_path, monkeypatch) == 0
    kept = tmp_path / "kept"
    assert {path.name for path in kept.iterdir()} == set(growth.FILES)
    page = (kept / "growth.md").read_text()
    assert "| svi | 250 to 1,000 | 6,250 to 100,000 | 2.00 ± 0.00 | 2.00 ± 0.00 |" in page
    assert "1,000 (over 3 s) |" in page
    assert "## Rows of a GP" in page


def test_nothing_measured_is_a_failure(tmp_path, monkeypatch):
    monkeypatch.setattr(growth, "COMMAND", script(tmp_path, "import sys; sys.exit('broken')"))
    arguments = ["--quick", "--curves", "rows", "--subjects", "svi", "--out", str(tmp_path / "out")]
    assert growth.main(arguments) == 1
    assert "failed: ended with status 1: broken" in (tmp_path / "out" / "growth.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--seconds", "0"], "--seconds 0: give a number above 0"),
        (["--gib", "nan"], "--gib nan: give a number above 0"),
        (["--subjects", "gibbs"], "no subject 'gibbs': give some of nuts, "),
        (["--curves", "chains", "--subjects", "svi"], "no cell: chains have none of svi"),
    ],
)
def test_bad_arguments(arguments, said, capsys):
    with pytest.raises(SystemExit) as stopped:
        growth.main(arguments)
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err


def test_quick_takes_the_two_least_sizes():
    cells = list(cells_of(["gp rows"], ["gp"], quick=True))
    assert [cell.size for cell in cells] == [250, 500]
    assert [request(cell)[1].num_steps for cell in cells] == [10, 10]
    assert [request(Cell("gp rows", "gp", size))[1].num_steps for size in (50, 500, 4000)] == [100, 40, 10]
    assert json.loads(json.dumps(vars(cells[0])))["quick"] is True


# --- the figure


def made_up_rows():
    random, rows = np.random.default_rng(0), []
    for cell in cells_of(list(CURVES), None, quick=False):
        seconds = 1e-5 * cell.size**0.9 * np.exp(random.normal(0, 0.2))
        row = dict.fromkeys(COLUMNS, 1.0) | vars(cell) | {"parameters": 21 * cell.size + 4, "status": MEASURED}
        rows.append(row | {"run_seconds": seconds, "seconds_per_unit": seconds, "added_mib": 80 + cell.size / 50})
    return rows


def test_the_figure_fits_a_page_and_its_words_stand_apart():
    figure = drawn_on_a_page(lambda: growth.draw(made_up_rows())[0, 0].get_figure())
    check_apart(figure, visible_texts(figure))
    assert len(figure.axes) == 2 * len(CURVES)
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == [*dict.fromkeys(name for curve in CURVES.values() for name in curve.sizes), "in proportion"]


def test_lines_hold_what_was_measured():
    rows = [row for row in made_up_rows() if row["curve"] in ("parameters", "chains")]
    rows[1]["status"] = "over 60 s"
    axes = growth.draw(rows)
    line = axes[0, 0].get_lines()[0]
    kept = [row for row in rows if row["subject"] == rows[0]["subject"] and row["curve"] == "parameters"]
    kept = [row for row in kept if row["status"] == MEASURED]
    np.testing.assert_allclose(line.get_xdata(), [row["parameters"] for row in kept])
    np.testing.assert_allclose(line.get_ydata(), [row["seconds_per_unit"] for row in kept])
    np.testing.assert_allclose(axes[1, 0].get_lines()[0].get_ydata(), [row["added_mib"] for row in kept])
    guide = axes[0, 0].get_lines()[-1]
    assert np.ptp(np.log(guide.get_ydata())) == pytest.approx(np.ptp(np.log(guide.get_xdata())))
    assert [ax.get_title() for ax in axes[0]] == ["time per gradient", "time per fit"]


LINE = {"size": [1, 2], "seconds": [1, 2], "mib": [1, 2]}


@pytest.mark.parametrize(
    ("curves", "kind", "said"),
    [
        ({}, ValueError, "curves is empty"),
        ([], TypeError, "curves is a list"),
        ({"rows": {}}, ValueError, r"curves\['rows'\] is empty"),
        ({"rows": {"svi": {"size": [1]}}}, ValueError, "has no 'seconds': give size, seconds, mib"),
        ({"rows": {"svi": {**LINE, "mib": [1]}}}, ValueError, "arrays of different lengths"),
        ({"rows": {"svi": {**LINE, "mib": [1, 0]}}}, ValueError, r"\['mib'\] holds 0: a log axis"),
        ({"rows": {"svi": {**LINE, "size": [2, 1]}}}, ValueError, "should increase"),
    ],
)
def test_what_cannot_be_drawn_is_refused(curves, kind, said):
    with pytest.raises(kind, match=said):
        growth_curves(curves)


def test_axes_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"axes has shape \(1, 2\) and there are 1 curves: pass \(2, 1\)"):
        growth_curves({"rows": {"svi": LINE}}, axes=np.empty((1, 2), object))
