"""The case "scoring" of `speed.py`: both sides give the same scores, each from a process of its own."""

import re
import sys

import numpy as np
import pytest
from scipy import stats

from hmcvi.benchmarks import speed, speed_scoring
from hmcvi.benchmarks.speed_scoring import CONTESTANTS, Case, check_equal, random_fit, table
from hmcvi.inference import predict_draws

SMALL = Case(features=5, units=4, classes=3, chains=2, draws=10, rows=40)


@pytest.fixture(scope="module")
def found():
    given = random_fit(SMALL)
    return {name: score(*given) for name, score in CONTESTANTS.items()}


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
    check_equal(found, SMALL.rows)
    errors = {name for name in found["hmcvi"] if name.startswith("error of ")}
    assert errors == {f"error of {name}" for name in found["Predictive, serial"]}
    assert found["hmcvi"]["error of nll"] > 0


def test_pieces_of_rows_change_no_score(found, monkeypatch):
    monkeypatch.setattr(speed_scoring, "available_bytes", lambda: 4 * 20 * (3 * 3) * 40 / speed_scoring.SHARE / 2)
    fit, x, y = random_fit(SMALL)
    assert speed_scoring._num_pieces(fit, len(x), parallel=False) == 2
    assert CONTESTANTS["Predictive, serial"](fit, x, y) == pytest.approx(found["Predictive, serial"], abs=1e-6)


@pytest.mark.parametrize(("score", "off"), [("nll", 0.001), ("accuracy", 0.08), ("entropy, aleatoric", np.nan)])
def test_unequal_scores_end_the_comparison(found, score, off):
    wrong = found | {"Predictive, parallel": found["Predictive, parallel"] | {score: found["hmcvi"][score] + off}}
    with pytest.raises(SystemExit, match=f"speed: {score} is .* by hmcvi and .* by Predictive, parallel: what is comp"):
        check_equal(wrong, SMALL.rows)


def test_ratios_are_taken_within_rounds_and_the_first_call_stands_apart():
    """A machine that slows down slows both: the ratio stays what it is. Compiling is in the first call alone."""

    def said(seconds, before, peak):
        return [{"seconds": s, "before": before, "peak": p} for s, p in zip(seconds, peak, strict=True)]

    shown = table(
        SMALL,
        {
            "hmcvi": said((9, 1, 10, 2), 300e6, (340e6, 350e6, 350e6, 350e6)),
            "Predictive, serial": said((20, 5, 50, 12), 300e6, (900e6, 1300e6, 1300e6, 1300e6)),
        },
    )
    assert [list(column.cells) for column in shown.columns[1:]] == [
        ["9", "20"],
        ["2 (1–10)", "12 (5–50)"],
        ["1 (1–1)", "5 (5–6)"],
        ["300", "300"],
        ["50", "1000"],
    ]


def test_the_command_scores_in_processes_of_their_own(capsys, monkeypatch):
    monkeypatch.setattr(speed_scoring, "QUICK", (SMALL,))
    monkeypatch.delitem(CONTESTANTS, "Predictive, parallel")  # each takes seconds to start
    assert speed.main(["--cases", "scoring", "--quick"]) == 0
    said = capsys.readouterr().out
    for name in CONTESTANTS:
        (line,) = re.findall(rf"^{name} .*", said, re.MULTILINE)
        # first, median and range of the later ones, ratio and range, memory before and added
        numbers = [float(number) for number in re.findall(r"[\d.]+(?:e-\d+)?", line)]
        assert len(numbers) == 9
        assert numbers[7] > 50  # MB: an interpreter with JAX
        assert numbers[8] > 0


def test_a_scorer_that_ends_early_is_named(monkeypatch):
    monkeypatch.setattr(speed_scoring, "COMMAND", (sys.executable, "-c", ""))
    scorer = speed_scoring.Scorer("nobody", SMALL)
    with pytest.raises(SystemExit, match="nobody ended early"):
        scorer.score()
