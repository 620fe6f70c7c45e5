"""`speed.py` compares fairly: turns within a round, ratios within a round. Nothing real is timed here."""

import subprocess
import sys

import numpy as np
import pytest

from hmcvi.benchmarks import speed
from hmcvi.benchmarks.speed import Contestant, measure


def contestant(name, seconds, calls, compile_seconds=3.4):
    """Someone whose rounds take these seconds in turn, and who writes down when it was asked."""
    rounds = iter(seconds)

    def run(steps):
        calls.append((name, steps))
        return next(rounds)

    return Contestant(name, run, compile_seconds)


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
    two = [contestant("hmcvi bbb", slower, calls), contestant("numpyro svi", 2 * slower, calls, 0.0)]
    table = speed._table("mlp", two, measure(two, steps=60, rounds=3))
    names, rates, ratios, compiled = (list(column.cells) for column in table.columns)
    assert names == ["hmcvi bbb", "numpyro svi"]
    assert rates == ["20 (6–60)", "10 (3–30)"]  # median, and the extremes over rounds
    assert ratios == ["2 (2–2)", "1 (1–1)"]  # of medians or of extremes it would not be 2 alone
    assert compiled == ["3", "–"]  # who does not compile has no time for it
    assert [column.header for column in table.columns][1:3] == ["steps/s", "× numpyro svi"]


def test_a_ratio_stands_beside_each_of_the_others_that_took_part():
    calls = []
    three = [contestant(name, (s,), calls) for name, s in (("hmcvi svi", 1), ("numpyro svi", 4), ("bayesian-torch", 2))]
    table = speed._table("cnn", three, measure(three, steps=8, rounds=1))
    assert [column.header for column in table.columns][2:4] == ["× numpyro svi", "× bayesian-torch"]
    assert [[cell.split()[0] for cell in column.cells] for column in table.columns][2:4] == [
        ["4", "1", "2"],
        ["2", "0.5", "1"],
    ]


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
