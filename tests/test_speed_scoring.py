"""The cases "scoring-*" of `speed.py`: both sides give the same scores, each from a process of its own."""

import dataclasses

import numpy as np
import pytest
from scipy import stats

from hmcvi.benchmarks import speed_scoring
from hmcvi.benchmarks.speed_process import Case, Contestant, FailedError, check_facts, measure
from hmcvi.benchmarks.speed_scoring import SCORERS, Draws, random_fit
from hmcvi.inference import predict_draws

SMALL = Draws(features=5, units=4, classes=3, chains=2, draws=10, rows=40)


@pytest.fixture(scope="module")
def found():
    given = random_fit(SMALL)
    return {name: score(*given) for name, score in SCORERS.items()}


def test_all_give_the_scores_of_the_draws_own_predictions(found):
    fit, x, y = random_fit(SMALL)
    probs = predict_draws(fit, x).reshape(-1, SMALL.rows, SMALL.classes).astype(float)
    mean = probs.mean(0)
    total, inner = stats.entropy(mean, axis=-1).mean(), stats.entropy(probs, axis=-1).mean()
    wanted = {
        "accuracy": (mean.argmax(1) == y).mean(),
        "nll": -np.log(mean[np.arange(SMALL.rows), y]).mean(),
        "entropy, total": total,
        "entropy, aleatoric": inner,
        "entropy, epistemic": total - inner,
    }
    assert 0.01 < wanted["entropy, epistemic"] < total  # the draws differ: there is something to tell
    for name, of in found.items():
        assert {score: of[score] for score in wanted} == pytest.approx(wanted, abs=1e-5), name
    check_facts(_shared(found), tolerances())
    errors = {name for name in found["hmcvi"] if name.startswith("error of ")}
    assert errors == {f"error of {name}" for name in found["Predictive, serial"]}
    assert found["hmcvi"]["error of nll"] > 0


def _shared(found):
    return {name: {score: of[score] for score in found["Predictive, serial"]} for name, of in found.items()}


def tolerances():
    """Return those of the cases, at as many rows as here."""
    case = speed_scoring.cases(quick=True)[0]
    rows = case.size["rows"]
    return {name: 2 / SMALL.rows if value == 2 / rows else value for name, value in case.tolerances.items()}


def test_pieces_of_rows_change_no_score(found, monkeypatch):
    monkeypatch.setattr(speed_scoring, "available_bytes", lambda: 4 * 20 * (3 * 3) * 40 / speed_scoring.SHARE / 2)
    fit, x, y = random_fit(SMALL)
    assert speed_scoring._num_pieces(fit, len(x), parallel=False) == 2
    assert SCORERS["Predictive, serial"](fit, x, y) == pytest.approx(found["Predictive, serial"], abs=1e-6)


@pytest.mark.parametrize(("score", "off"), [("nll", 0.001), ("accuracy", 0.08), ("entropy, aleatoric", np.nan)])
def test_unequal_scores_end_the_comparison(found, score, off):
    shared = _shared(found)
    wrong = shared | {"Predictive, parallel": shared["Predictive, parallel"] | {score: found["hmcvi"][score] + off}}
    with pytest.raises(FailedError, match=f"{score} is .* by Predictive, parallel and .* by hmcvi: what is compared"):
        check_facts(wrong, tolerances())


def test_scorers_run_in_processes_of_their_own_and_say_what_memory_they_added():
    names = ("hmcvi", "Predictive, serial")  # each takes seconds to start
    contestants = tuple(Contestant(name, "speed_scoring", ours=name == "hmcvi") for name in names)
    size = dataclasses.asdict(SMALL)
    found = measure(Case("scoring", "a title", "s", contestants, size, tolerances=tolerances()), rounds=1)
    for one in found:
        assert one.failure == ""
        assert len(one.values) == 1
        assert one.values[0] > 0
        assert one.compile_seconds > 0
        added = one.note.removeprefix("adds ").removesuffix(" MB").replace(",", "")
        assert int(added) >= 0
