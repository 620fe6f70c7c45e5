"""`speed.py` compares fairly: turns within a round, ratios within a round. Nothing real is timed here."""

import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from hmcvi.benchmarks import speed
from hmcvi.benchmarks.speed import Contestant, measure
from hmcvi.inference import fit
from hmcvi.models import mlp


def contestant(name, seconds, calls):
    """Someone whose rounds take these seconds in turn, and who writes down when it was asked."""
    rounds = iter(seconds)

    def run(steps):
        calls.append((name, steps))
        return next(rounds)

    return Contestant(name, run)


def test_contestants_take_turns_in_every_round():
    calls = []
    three = [contestant("a", (1.0, 2.0), calls), contestant("b", (4.0, 8.0), calls), contestant("c", (0.5, 1.0), calls)]
    rates = measure(three, steps=40, rounds=2)
    assert calls == [(name, 40) for name in "abcabc"]
    assert list(rates) == ["a", "b", "c"]
    np.testing.assert_array_equal(rates["a"], [40, 20])
    np.testing.assert_array_equal(rates["b"], [10, 5])
    np.testing.assert_array_equal(rates["c"], [80, 40])


def test_ratios_are_taken_within_rounds():
    """A machine that slows down tenfold on the way slows everybody: the ratio stays what it is in each round."""
    slower = np.array([1.0, 3.0, 10.0])
    calls = []
    two = [contestant("hmcvi bbb", slower, calls), contestant("numpyro svi", 2 * slower, calls)]
    table = speed._table("mlp", two, measure(two, steps=60, rounds=3))
    names, rates, ratios = (list(column.cells) for column in table.columns)
    assert names == ["hmcvi bbb", "numpyro svi"]
    assert rates == ["20 (6–60)", "10 (3–30)"]  # median, and the extremes over rounds
    assert ratios == ["2 (2–2)", "1 (1–1)"]  # of medians or of extremes it would not be 2 alone
    assert [column.header for column in table.columns][1:] == ["steps/s", "× numpyro svi"]


def test_a_ratio_stands_beside_each_of_the_others_that_took_part():
    calls = []
    three = [contestant(name, (s,), calls) for name, s in (("hmcvi svi", 1), ("numpyro svi", 4), ("bayesian-torch", 2))]
    table = speed._table("cnn", three, measure(three, steps=8, rounds=1))
    assert [column.header for column in table.columns][2:] == ["× numpyro svi", "× bayesian-torch"]
    assert [[cell.split()[0] for cell in column.cells] for column in table.columns][2:] == [
        ["4", "1", "2"],
        ["2", "0.5", "1"],
    ]


def linear(x, y=None, *, num_rows=None):
    """A model of one layer, which compiles soon."""
    return mlp(x, y, widths=(), num_classes=10, num_rows=num_rows)


def test_everyone_takes_the_steps_that_were_asked_for(monkeypatch):
    """The seconds are those of so many steps, whatever the loss does on the way; where programs are kept, too."""
    monkeypatch.setattr(speed, "ROWS", 256)
    taken, before = [], jax.config.jax_compilation_cache_dir

    def fitting(*args, **kwargs):
        taken.append(fit(*args, **kwargs))
        return taken[-1]

    monkeypatch.setattr(speed, "fit", fitting)
    folders = []
    for _ in range(2):
        with speed._programs_kept():
            folders.append(jax.config.jax_compilation_cache_dir)
            for one in speed._contestants(linear, (3,)):
                assert one.run(6) > 0
            assert list(Path(folders[-1]).iterdir())  # the second folder is written to as the first was
    assert [len(result.losses) for result in taken] == [6] * 8
    assert {result.rows_per_gradient for result in taken} == {speed.BATCH_SIZE}
    assert jax.config.jax_compilation_cache_dir == before
    assert not any(Path(folder).exists() for folder in folders)


@pytest.mark.parametrize(
    ("make", "reason"),
    [(lambda path: path / "no-python", "No such file"), (lambda path: path, "Permission denied")],
    ids=["nothing there", "a folder"],
)
def test_an_interpreter_that_cannot_be_run_is_named_in_one_sentence(tmp_path, capsys, make, reason):
    python = make(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        speed.main(["--quick", "--torch-python", str(python)])
    assert stopped.value.code == 2
    said = capsys.readouterr()
    assert f"error: --torch-python {python} cannot be run ({reason}" in said.err
    assert said.out == ""  # nothing was measured


def test_a_peer_that_ends_early_ends_the_comparison(tmp_path, monkeypatch):
    """As an interpreter without bayesian-torch does, whose own message stands above."""
    (tmp_path / "peer.py").write_text("")
    monkeypatch.setattr(speed, "PEER", tmp_path / "peer.py")
    started = []

    class Kept(subprocess.Popen):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            started.append(self)

    monkeypatch.setattr(subprocess, "Popen", Kept)
    with pytest.raises(SystemExit, match="bayesian-torch ended early"):
        speed.main(["--quick", "--torch-python", sys.executable])
    (process,) = started
    process.communicate()  # the command ends here, and its pipes with it; this process goes on


PEER = """
import sys
print('{"version": "9"}', flush=True)
for line in sys.stdin:
    case, steps = line.split()
    print(int(steps) / 4 + len(case), flush=True)
"""


def test_the_peer_s_rounds_are_those_it_was_asked_for(tmp_path, monkeypatch):
    """One line goes out for each round, CASE STEPS, and its seconds come back."""
    (tmp_path / "peer.py").write_text(PEER)
    monkeypatch.setattr(speed, "PEER", tmp_path / "peer.py")
    peer = speed.Peer(sys.executable)
    try:
        found = [peer.contestant("cnn").run(8), peer.contestant("mlpx").run(4)]
    finally:
        peer.close()
    assert peer.about == {"version": "9"}
    assert found == [5, 5]


@pytest.mark.parametrize("arguments", [["--steps", "0"], ["--rounds", "-1"]])
def test_no_steps_and_no_rounds_are_refused(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        speed.main(arguments)
    assert stopped.value.code == 2
    assert "give at least one step and one round" in capsys.readouterr().err
