"""The soak measures what it says: slopes of known curves, deaths on the way, tables that are the same or are not."""

import csv
import re
import subprocess
import sys
import threading

import numpy as np
import pytest
from matplotlib import pyplot as plt

from hmcvi.benchmarks import soak, soak_sweep
from hmcvi.benchmarks.soak_sweep import Sweep
from hmcvi.plots.memory import memory_curve

from .drawn_text import check_apart, drawn_on_a_page, visible_texts

# --- the slope and the verdict


def noisy(number, slope, *, level=1000.0, sd=5.0, seed=0):
    """Memory that rises to its level in the first tenth and goes on with this slope, in MiB per 100 fits."""
    fits = np.arange(1, number + 1)
    warming = -400 * np.exp(-fits / (number / 50))
    return level + warming + slope / 100 * fits + np.random.default_rng(seed).normal(0, sd, number)


@pytest.mark.parametrize("slope", [0.0, 3.0, 40.0])
def test_the_slope_is_found_within_its_error(slope):
    """Within 5 of its errors in each of twenty noises: false alarms of independent stretches in 1e-5."""
    found = [soak.growth(noisy(600, slope, seed=seed)) for seed in range(20)]
    assert all(abs(one.slope - slope) < 5 * one.standard_error for one in found)
    # and the error is about the spread that is seen, within a factor of 2
    spread = np.std([one.slope for one in found], ddof=1)
    assert 0.5 < np.median([one.standard_error for one in found]) / spread < 2


def test_leaps_that_come_back_move_the_slope_less_than_noise_does():
    """A program of 300 MiB is compiled and freed a few times, as a large model between small ones would be."""
    calm = noisy(600, 10.0)
    leaping = calm.copy()
    leaping[[150, 151, 300, 420, 421, 590]] += 300
    assert abs(soak.growth(leaping).slope - soak.growth(calm).slope) < soak.growth(calm).standard_error


@pytest.mark.parametrize(
    ("resident", "steady"),
    [
        (noisy(400, 0.0), True),
        (noisy(400, 10.0), True),  # 26 MiB
        (noisy(400, 25.0), False),  # 65 of 1,030 MiB between the medians
        (noisy(400, 25.0, level=2000.0), True),  # the same of 2,030 MiB: 3.2 %
        (noisy(400, -50.0), True),  # what shrinks does not grow
        (np.r_[np.linspace(100, 1000, 100), np.full(300, 1000.0)], True),  # all of it in the first quarter
        (np.r_[np.full(200, 1000.0), np.full(200, 1100.0)], False),  # one leap that stays
    ],
)
def test_the_verdict_is_on_the_last_three_quarters(resident, steady):
    assert soak.growth(resident).steady is steady


def test_too_few_fits_have_no_verdict():
    with pytest.raises(ValueError, match="resident holds 39 fits: give at least 40"):
        soak.growth(np.ones(39))


# --- what is fitted


def test_fits_take_turns_and_shapes_come_again():
    made = [soak.request(number, 3) for number in range(90)]
    assert [name for name, _ in made[:5]] == ["nuts", "svi", "bbb", "map", "laplace"]
    assert [one.model for _, one in made[::5]] == ["mlp", "gp", "cnn"] * 6
    shapes = [(one.model, one.rows, one.test_rows, one.options["model"]) for _, one in made]
    assert len(set(shapes)) == 9
    assert shapes[:45] == shapes[45:]
    assert made[7][1].seeds != made[52][1].seeds  # the data and the key are others


# --- a sweep that is killed

SWEEP = """
import pathlib, sys, time
out = pathlib.Path(sys.argv[-1])
out.mkdir(exist_ok=True)
for step in range(4):
    part = out / f"part{step}"
    if not part.exists():
        time.sleep(0.15)
        part.write_text("done")
(out / "table.csv").write_text(f"score,seconds\\n0.5,{time.time()}\\n")
"""
"""Four steps, each kept once it is made; then a table with a score and a time."""


@pytest.fixture
def script(tmp_path):
    def write(source):
        path = tmp_path / "sweep.py"
        path.write_text(source)
        return [sys.executable, str(path)]

    return write


def test_a_sweep_goes_on_through_its_deaths(script, tmp_path):
    moments = iter([0.2, 0.4, np.inf])
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "part0").write_text("of an earlier sweep")
    sweep = soak_sweep.run_sweep(script(SWEEP), folder, lambda: next(moments), threading.Event())
    assert (sweep.kills, sweep.failure) == (2, "")
    assert (folder / "part0").read_text() == "done"  # it began in an empty folder
    assert sweep.sound
    assert sweep.digest == soak_sweep.digest(folder)
    assert 1 < sweep.peak_mib < 200  # of a bare interpreter


def test_sweeps_share_their_digest_whatever_the_time_and_another_score_is_seen(script, tmp_path):
    found, stop = [], threading.Event()

    def say(sentence):
        if len(found) == 2:
            stop.set()

    generator = np.random.default_rng(0)
    soak_sweep.sweeps(tmp_path / "out", generator, stop, found, say, script(SWEEP))
    assert found[0].kills == 0  # the first is left alone
    assert [sweep.sound for sweep in found] == [True, True]
    assert not (tmp_path / "out").exists()
    assert soak_sweep.same_tables(found).endswith("ended with the same tables")
    changed = soak_sweep.run_sweep(
        script(SWEEP.replace("0.5", "0.6")), tmp_path / "out", lambda: np.inf, threading.Event(), first=found[0].digest
    )
    assert not changed.sound
    assert soak_sweep.same_tables([*found, changed]).endswith("1 WITH OTHER TABLES")


def test_a_sweep_that_fails_of_itself_ends_the_sweeps_and_says_what_it_said(script, tmp_path):
    found, said = [], []
    command = script("import pathlib, sys; pathlib.Path(sys.argv[-1]).mkdir(); sys.exit('no such row')")
    soak_sweep.sweeps(tmp_path / "out", np.random.default_rng(0), threading.Event(), found, said.append, command)
    assert [sweep.failure for sweep in found] == ["ended with status 1: no such row"]
    assert not found[0].sound
    assert (tmp_path / "out").exists()  # left to be looked at
    assert soak_sweep.same_tables(found) == "a sweep ended with status 1: no such row"


def test_a_stop_in_the_midst_of_a_sweep_leaves_no_process_and_no_folder(script, tmp_path, monkeypatch):
    started, found, stop = [], [], threading.Event()

    class Kept(subprocess.Popen):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            started.append(self)

    monkeypatch.setattr(subprocess, "Popen", Kept)
    threading.Timer(0.5, stop.set).start()
    endless = script("import pathlib, sys, time; pathlib.Path(sys.argv[-1]).mkdir(); time.sleep(60)")
    soak_sweep.sweeps(tmp_path / "out", np.random.default_rng(0), stop, found, print, endless)
    assert found == []
    assert [process.returncode for process in started] == [-9]
    assert not (tmp_path / "out").exists()


def test_the_sweep_is_a_command_that_hmcvi_takes():
    from hmcvi.benchmarks.cli import main

    with pytest.raises(SystemExit) as stopped:
        main([*soak_sweep.COMMAND[3:], "--help"])
    assert stopped.value.code == 0


# --- the command


def test_a_soak_of_a_moment_leaves_its_curve_figure_and_page(tmp_path, monkeypatch, script, capsys):
    monkeypatch.setattr(
        soak, "request", lambda number, shapes: quick_request(3)
    )  # MAP on the MLP: the quickest to compile
    monkeypatch.setattr(soak, "COMMAND", script(SWEEP))
    assert soak.main(["--minutes", "0.02", "--out", str(tmp_path / "out"), "--publish", str(tmp_path / "kept")]) == 0
    out = tmp_path / "out"
    rows = list(csv.DictReader((out / "soak.csv").read_text().splitlines()))
    assert list(rows[0]) == list(soak.COLUMNS)
    assert [int(row["fit"]) for row in rows] == list(range(1, len(rows) + 1))
    assert all(float(row["resident_mib"]) > 100 for row in rows)
    assert {"sweeps.csv", "soak.md", "soak.png", "soak.svg"} <= {path.name for path in out.iterdir()}
    written = (out / "soak.md").read_text()
    assert f"**too short to tell**: {len(rows)} fits in one process" in written
    assert re.search(r"\| with \| hmcvi \S+, jax \S+", written)
    assert not (tmp_path / "kept").exists()  # nothing is published without a verdict
    assert "are too few for a verdict" in capsys.readouterr().err


quick_request = soak.request


def sweep_of(**changed):
    return Sweep(**{"minutes": 1.0, "kills": 2, "peak_mib": 800.0, "digest": "a", "first": "a", **changed})


def test_the_page_says_what_was_found():
    rows = [{"minutes": 60.0, "in_use_mib": level} for level in noisy(400, 2.0, level=500.0)]
    measured = soak.growth(noisy(400, 25.0))
    written = soak.page(rows, measured, [sweep_of(), sweep_of(kills=5, peak_mib=900.0)], asked=60, shapes=4)
    assert "**growing**: 400 fits in one process, 60.0 minutes" in written
    assert "2 sweeps, killed 7 times, ended with the same tables" in written
    assert f"| {measured.slope:.2f} ± {measured.standard_error:.2f} MiB per 100 fits |" in written
    assert "| largest memory of a sweep's process | 900 MiB |" in written
    assert re.search(r"of the heap, in use after a quarter, after half, at the end \| 50\d, 50\d, 50\d MiB", written)
    assert "of the heap" not in soak.page(
        [{"minutes": 60.0, "in_use_mib": None}] * 400, measured, [], asked=60, shapes=4
    )


@pytest.mark.parametrize(
    ("resident", "found", "status"),
    [
        (noisy(400, 0.0), [sweep_of()], 0),
        (noisy(400, 90.0), [sweep_of()], 1),
        (noisy(400, 0.0), [sweep_of(), sweep_of(digest="b")], 1),
        (noisy(400, 0.0), [sweep_of(failure="ended with status 2")], 1),
    ],
)
def test_the_status_is_0_where_memory_and_tables_are_sound(tmp_path, monkeypatch, resident, found, status):
    rows = [
        {"fit": place + 1, "minutes": place / 10, "resident_mib": level, "in_use_mib": level / 2, "live_arrays": 3}
        for place, level in enumerate(resident)
    ]

    def write(seconds, shapes, out, say):
        (out / "soak.csv").write_text("fit\n")
        return rows

    monkeypatch.setattr(soak, "_fits", write)
    monkeypatch.setattr(soak, "sweeps", lambda folder, generator, stop, into, say, command: into.extend(found))
    kept = tmp_path / "kept"
    assert soak.main(["--out", str(tmp_path / "out"), "--publish", str(kept)]) == status
    assert {path.name for path in kept.iterdir()} == {"soak.md", "soak.csv", "sweeps.csv", "soak.png", "soak.svg"}
    assert [row["sound"] for row in csv.DictReader((kept / "sweeps.csv").read_text().splitlines())] == [
        str(one.sound) for one in found
    ]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--minutes", "0"], "--minutes 0: give a number above 0"),
        (["--shapes", "0"], "--shapes 0: give at least 1"),
    ],
)
def test_no_minutes_and_no_shapes_are_refused(arguments, sentence, capsys):
    with pytest.raises(SystemExit) as stopped:
        soak.main(arguments)
    assert stopped.value.code == 2
    assert sentence in capsys.readouterr().err


# --- the figure


@pytest.mark.parametrize("line", [None, (1000.0, 12.3, 0.4), (1000.0, -0.04, 120.0)])
@pytest.mark.parametrize("number", [1, 45, 1200])
def test_the_curve_can_be_read(number, line):
    figure = drawn_on_a_page(
        lambda: memory_curve(
            np.arange(1, number + 1),
            noisy(max(number, 50), 10.0)[:number],
            in_use=noisy(max(number, 50), 1.0, level=600.0)[:number],
            line=line,
        ).get_figure()
    )
    check_apart(figure, visible_texts(figure))
    plt.close("all")


def test_the_curve_is_what_was_measured_and_the_line_its_slope():
    resident = noisy(100, 10.0)
    ax = memory_curve(np.arange(1, 101), resident, line=(1000.0, 10.0, 1.5))
    measured, line = ax.get_lines()
    np.testing.assert_array_equal(measured.get_ydata(), resident)
    np.testing.assert_allclose(line.get_ydata(), [1005.05, 1010.0])  # over the second half, which it was fitted to
    assert line.get_label() == "+10.0 ± 1.5 MiB per 100 fits"
    assert ax.get_ylim()[0] == 0
    plt.close("all")


def test_a_curve_of_other_length_is_refused():
    with pytest.raises(ValueError, match="fits has 2 entries and resident 1"):
        memory_curve([1, 2], [1.0])
    with pytest.raises(ValueError, match="fits has 2 entries and in_use 1"):
        memory_curve([1, 2], [1.0, 2.0], in_use=[1.0])
