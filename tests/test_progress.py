"""What a person sees of a fit that goes on: on a terminal, in a log, and nothing where it is not wanted."""

import io

import jax
import numpy as np
import pytest
from rich.console import Console

from hmcvi.inference import MAP, NUTS, SVI, Ensemble, fit
from hmcvi.inference.progress import Progress, next_length

from .targets import linear_regression

X = np.linspace(-1, 1, 30)[:, None]
Y = 2 * X[:, 0] + 1


class Clock:
    """A clock that a test sets."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


class Ticking(Clock):
    """A clock that moves by so many seconds whenever it is read."""

    def __init__(self, step):
        super().__init__()
        self._step = step

    def __call__(self):
        self.now += self._step
        return self.now


def written(show, steps, clock=None, label="nuts, seed 0", **options):
    """What is written of updates (seconds, done, total, detail)."""
    clock, file = clock or Clock(), io.StringIO()
    console = Console(file=file, width=200, color_system=None, soft_wrap=True, **options)
    with Progress(label, show, console=console, clock=clock) as progress:
        for now, done, total, detail in steps:
            clock.now = now
            progress.update(done, total, "draws a chain", detail)
    return file.getvalue()


def test_lines_come_every_ten_seconds_with_pace_and_detail():
    steps = [(4, 10, 100, "warm-up"), (9, 20, 100, "warm-up"), (14, 30, 100, "step size 0.1"), (19, 40, 100, "late")]
    steps += [(200, 90, 100, "sampling")]
    lines = written("lines", steps).splitlines()
    assert lines == [
        "nuts, seed 0: 30 of 100 draws a chain, 14 s, about 35 s left; step size 0.1",
        # the pace of the latest updates: (200 - 4) s for 80 draws, 10 to go
        "nuts, seed 0: 90 of 100 draws a chain, 3 min 20 s, about 24 s left; sampling",
    ]


def test_time_left_is_not_told_before_there_is_a_pace():
    assert written("lines", [(60, 1, 100, "warm-up")]) == "nuts, seed 0: 1 of 100 draws a chain, 1 min 0 s; warm-up\n"


def test_time_left_follows_the_latest_pace():
    """A warm-up of 10 s a draw is forgotten once the draws take 1 s."""
    slow = [(10 * i, i, 100, "warm-up") for i in range(1, 11)]
    fast = [(100 + i, 10 + i, 100, "sampling") for i in range(1, 21)]
    last = written("lines", slow + fast).splitlines()[-1]
    assert ", 2 min 0 s, about 1 min 10 s left; sampling" in last


def test_quiet_writes_nothing():
    assert written(None, [(60, 1, 100, "warm-up"), (90, 2, 100, "warm-up")]) == ""


def test_a_bar_shows_label_count_time_left_and_detail():
    shown = written("bar", [(1, 25, 100, "loss 3"), (2, 50, 100, "loss 2.5")], force_terminal=True)
    assert "nuts, seed 0: 50 of 100 draws a chain, about 2 s left; loss 2.5" in shown


def test_parts_are_named_and_their_time_is_counted():
    clock, file = Clock(), io.StringIO()
    with Progress("ensemble", "lines", console=Console(file=file, width=200, soft_wrap=True), clock=clock) as progress:
        progress.part("member", 2, 4)
        for clock.now in (10, 20):
            progress.update(int(clock.now), 40, "steps", "loss 1")
    # 20 steps to go, and 40 of each of two members, at a second each
    assert "ensemble: member 2 of 4, 20 of 40 steps, 20 s, about 1 min 40 s left; loss 1" in file.getvalue()


@pytest.mark.parametrize(
    ("method", "wanted", "detail"),
    [
        (NUTS(num_warmup=20, num_draws=30, num_chains=2), "50 of 50 draws a chain, ", "; sampling, step size "),
        (SVI(num_steps=300), "of 300 steps, ", "; loss "),
        (Ensemble(size=2, num_steps=200), "member 2 of 2, 200 of 200 steps, ", "; loss "),
        (SVI(num_steps=200, start=MAP(num_steps=100)), "fit to start from, 100 of 100 steps, ", "; loss "),
        (
            SVI(num_steps=200, num_restarts=2, start=MAP(num_steps=100, num_restarts=3)),
            "start 2 of 2, fit to start from, start 3 of 3, ",
            "; loss ",
        ),
    ],
)
def test_every_kind_of_method_tells_how_far_it_is(method, wanted, detail, capsys):
    console, lines = Console(file=io.StringIO(), width=200, soft_wrap=True), []
    console.print = lines.append
    progress = Progress(method.name, "lines", console=console, clock=Ticking(30.0))
    fit(jax.random.key(0), linear_regression, X, Y, method, progress=progress)
    assert any(line.startswith(f"{method.name}: ") and wanted in line and detail in line for line in lines), lines
    # what comes after a fit to start from is not known yet
    assert not [line for line in lines if "fit to start from" in line and " left" in line]
    assert [line for line in lines if "fit to start from" not in line and " left" in line]
    assert capsys.readouterr().err == ""


def test_wanted_progress_goes_to_standard_error_and_unwanted_nowhere(capsys, monkeypatch):
    monkeypatch.setattr("hmcvi.inference.progress.LINE_SECONDS", 0.0)
    for wanted in (None, False, True):
        fit(jax.random.key(0), linear_regression, X, Y, SVI(num_steps=100), progress=wanted)
        said = capsys.readouterr()
        assert said.out == ""
        assert ("svi: 100 of 100 steps" in said.err) is (wanted is True)


@pytest.mark.parametrize("seconds", [1e-9, 1e-3, 0.3, 5.0])
def test_calls_grow_to_two_seconds_and_no_further(seconds):
    length = 1
    for _ in range(40):
        before, length = length, next_length(length, length * seconds, 10_000)
        assert length <= 2 * before
    assert length == max(1, min(10_000, int(2.0 / seconds)))


def test_draws_and_losses_do_not_depend_on_how_calls_are_cut(monkeypatch):
    """Two machines, a fast and a slow one, cut a fit in other pieces: the bytes are the same."""
    methods = NUTS(num_warmup=15, num_draws=20, num_chains=2), SVI(num_steps=200, batch_size=8)
    found = []
    for allowed in (2.0, 0.0):  # as many as a call may hold, and one step a call
        monkeypatch.setattr("hmcvi.inference.progress.UPDATE_SECONDS", allowed)
        fits = [fit(jax.random.key(1), linear_regression, X, Y, method, progress=False) for method in methods]
        found.append([np.asarray(draws).tobytes() for one in fits for draws in one.draws.values()])
        found[-1].append(fits[1].losses.tobytes())
    assert found[0] == found[1]
