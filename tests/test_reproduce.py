"""`hmcvi reproduce`: the targets that are named, the verdicts, and what reaches the disk."""

import inspect
import json
import math
from pathlib import Path

import jax
import numpy as np
import pytest
from matplotlib import pyplot as plt

from hmcvi.benchmarks import cli
from hmcvi.benchmarks.reproduce import Claim, judge, read_targets, reproduce
from hmcvi.benchmarks.target_runs import RUNS
from hmcvi.inference import FitError
from hmcvi.inference.scores import Score


def written(folder):
    """Names of the files of a folder, but hidden ones such as its lock."""
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


TARGETS = read_targets()


@pytest.fixture(autouse=True, scope="module")
def _jax_has_started():
    """The command sets the number of devices where JAX has not started: other tests of this process keep theirs."""
    jax.devices()


# --- targets.toml


def test_every_target_has_a_source_and_a_claim_that_quick_confirms():
    assert {target.run for target in TARGETS.values()} == set(RUNS)  # no run without a target
    for target in TARGETS.values():
        assert target.title
        assert target.source
        assert target.asked(quick=True)
        assert target.asked(quick=False) == list(target.claims)
        # Fewer rows reach no published accuracy: of a subset only orderings are asked.
        if "rows" in target.quick:
            assert all(claim.below is not None for claim in target.asked(quick=True))


@pytest.mark.parametrize("form", ["full", "quick"])
@pytest.mark.parametrize("name", TARGETS)
def test_the_settings_of_a_target_are_its_run_s(name, form):
    target = TARGETS[name]
    bound = inspect.signature(RUNS[target.run]).bind(0, None, **getattr(target, form))
    assert bound.arguments.keys() >= {"seed", "data_dir"}


MALFORMED = {
    "no such run": (
        '[a]\ntitle="t"\nsource="s"\nrun="mnist"\nnote=""\nfull={}\nquick={}\n[[a.claims]]\nmeasure="m"\nat_most=1',
        "targets.toml, target a: no run 'mnist', only mnist_mlp, ",
    ),
    "no claims": ('[a]\ntitle="t"', "targets.toml, target a: 'claims'"),
    "no source": (
        '[a]\ntitle="t"\nrun="lenet"\nnote=""\nfull={}\nquick={}\n[[a.claims]]\nmeasure="m"\nat_most=1',
        "targets.toml, target a: .*'source'",
    ),
    "unknown field": (
        '[a]\ntitel="t"\n[[a.claims]]\nmeasure="m"\nat_most=1',
        "targets.toml, target a: .*'titel'",
    ),
    "unknown bound": ('[a]\n[[a.claims]]\nmeasure="m"\nabove=1', "targets.toml, target a: .*'above'"),
    "two bounds": (
        '[a]\n[[a.claims]]\nmeasure="m"\nat_most=1\nat_least=0',
        "claim on 'm': give one of at_most, at_least and below",
    ),
    "no bound": ('[a]\n[[a.claims]]\nmeasure="m"\npublished=1', "claim on 'm': give one of at_most"),
    "no TOML": ("[a\n", "line 1"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_targets_are_refused(case, tmp_path):
    text, message = MALFORMED[case]
    (tmp_path / "targets.toml").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_targets(tmp_path / "targets.toml")


# --- verdicts


@pytest.mark.parametrize(
    ("bound", "value", "passed", "wanted"),
    [
        ({"at_most": 1.6}, 1.6, True, "at most 1.6"),
        ({"at_most": 1.6}, 1.6000001, False, "at most 1.6"),
        ({"at_most": 0.0}, -1.0, True, "at most 0"),
        ({"at_least": 0.985}, 0.985, True, "at least 0.985"),
        ({"at_least": 0.985}, 0.9849, False, "at least 0.985"),
        ({"below": "other"}, 1.999, True, "below 2: other"),
        ({"below": "other"}, 2.0, False, "below 2: other"),  # a tie is no ordering
        ({"at_most": 1.6}, math.nan, False, "at most 1.6"),  # what is not known was not reached
        ({"at_least": 0.0}, math.nan, False, "at least 0"),
        ({"below": "other"}, math.nan, False, "below 2: other"),
        ({"at_most": 1.6}, math.inf, False, "at most 1.6"),
    ],
)
def test_a_claim_is_met_up_to_and_with_its_bound(bound, value, passed, wanted):
    claim = Claim("m", **bound)
    outcome = judge(claim, {"m": Score(value, 0.5), "other": Score(2.0, math.nan)})
    assert (outcome.claim, outcome.passed, outcome.wanted) == (claim, passed, wanted)
    np.testing.assert_equal((outcome.value, outcome.standard_error), (value, 0.5))


# --- the command, with targets and runs that cost nothing

TOY = """
[toy-digits]
title = "A toy on digits"
source = "Nobody (1900), On Nothing, table 1"
run = "toy"
note = "There is this to know."
full = { epochs = 60 }
quick = { epochs = 2, rows = 50 }
[[toy-digits.claims]]
measure = "error (%), mixture prior"
published = 1.36
at_most = 1.6
[[toy-digits.claims]]
measure = "error (%), Gaussian prior"
published = 1.82
at_most = 2.0
[[toy-digits.claims]]
measure = "error (%), mixture prior"
below = "error, one draw (%), mixture prior"
quick = true

[toy-easy]
title = "Another"
source = "Nobody (1901)"
run = "easy"
note = ""
full = {}
quick = {}
[[toy-easy.claims]]
measure = "score"
at_least = 0.5
quick = true

[toy-variance]
title = "Gradients"
source = "Nobody (1902)"
run = "flipout_variance"
note = ""
full = { batch_sizes = [1, 4, 16] }
quick = { batch_sizes = [1, 4] }
[[toy-variance.claims]]
measure = "slope, flipout"
at_most = -0.9
quick = true
"""

MIXTURE, GAUSSIAN = "error (%), mixture prior", "error (%), Gaussian prior"
ONE_DRAW = "error, one draw (%), mixture prior"
FULL, QUICK = {"epochs": 60}, {"epochs": 2, "rows": 50}


@pytest.fixture
def toy(monkeypatch, tmp_path_factory):
    """The toy targets in the place of the published ones; `toy.measures(seed)` is what the first run returns."""

    def run(seed, data_dir, **settings):
        run.calls.append((seed, data_dir, settings))
        return run.measures(seed)

    run.calls = []
    run.measures = lambda seed: {
        MIXTURE: Score(1.5 + 0.2 * seed, 0.12),
        GAUSSIAN: Score(2.25, math.nan),
        ONE_DRAW: Score(3.0, 0.17),
    }
    monkeypatch.setitem(RUNS, "toy", run)
    monkeypatch.setitem(RUNS, "easy", lambda seed, data_dir: {"score": Score(0.5, 0.1)})
    file = tmp_path_factory.mktemp("toy") / "targets.toml"
    file.write_text(TOY)
    targets = read_targets(file)
    monkeypatch.setattr("hmcvi.benchmarks.reproduce.read_targets", lambda: targets)
    return run


def verdicts(printed):
    """The last words of every line of the table that ends in a verdict."""
    return [line.split() for line in printed.splitlines() if line.endswith(("pass", "FAIL"))]


def test_measured_stands_beside_published_and_one_failure_fails_all(toy, tmp_path, capsys):
    assert cli.main(["reproduce", "toy-digits", "--out", str(tmp_path), "--data-dir", "somewhere"]) == 1
    assert toy.calls == [(0, "somewhere", FULL)]
    printed = capsys.readouterr().out
    first, second, third = verdicts(printed)
    assert first[-7:] == ["1.36", "at", "most", "1.6", "1.5", "±0.12", "pass"]
    assert second[-6:] == ["1.82", "at", "most", "2", "2.25", "FAIL"]  # no error is known, and none is printed
    assert third[-3:] == ["1.5", "±0.12", "pass"]
    assert "–" in third  # an ordering has no published value
    for words in (
        "toy-digits: A toy on digits",
        "Source: Nobody (1900), On Nothing, table 1.",
        "There is this to know.",
    ):
        assert words in printed
    assert "seed 0, " in printed
    assert max(map(len, printed.splitlines())) <= 110
    assert "…" not in printed  # nothing is cut


def test_all_passed_is_exit_status_0_and_quick_asks_for_orderings_only(toy, tmp_path, capsys):
    assert cli.main(["reproduce", "toy-digits", "--quick", "--out", str(tmp_path)]) == 0
    assert toy.calls == [(0, None, QUICK)]
    printed = capsys.readouterr().out
    assert [words[-1] for words in verdicts(printed)] == ["pass"]
    assert "quick: subsets of the data, claims that they can show" in printed
    # Two minutes do not replace what hours have found: a file of their own.
    assert written(tmp_path) == ["toy-digits-quick.json"]
    record = json.loads((tmp_path / "toy-digits-quick.json").read_text())
    assert (record["target"], record["quick"], record["passed"]) == ("toy-digits", True, True)
    assert record["settings"] == QUICK


@pytest.fixture
def tunable(toy, monkeypatch):
    """The toy target, whose run takes validation rows too."""

    def run(seed, data_dir, *, tune=False, **settings):
        return toy(seed, data_dir, tune=tune, **settings)

    monkeypatch.setitem(RUNS, "toy", run)
    return toy


def test_tuning_prints_every_measure_and_judges_nothing(tunable, tmp_path, capsys):
    asked = ["reproduce", "toy-digits", "--tune", "--set", "epochs=7", "--out", str(tmp_path)]
    assert cli.main(asked) == 0
    assert tunable.calls == [(0, None, {"epochs": 7, "tune": True})]
    printed = capsys.readouterr().out
    assert "scored on validation rows" in printed
    assert not verdicts(printed)
    for name, words in ((MIXTURE, "1.5 ±0.12"), (GAUSSIAN, "2.25"), (ONE_DRAW, "3 ±0.17")):
        assert any(line.startswith(name) and line.endswith(words) for line in printed.splitlines())
    # The target's own record stays what it was.
    assert written(tmp_path) == ["toy-digits-tune.json"]
    record = strict((tmp_path / "toy-digits-tune.json").read_text())
    assert (record["passed"], record["claims"]) == (None, [])
    assert record["settings"] == {"epochs": 7, "tune": True}


def test_a_subset_can_be_tuned_on_too_and_the_record_says_so(tunable, tmp_path, capsys):
    assert cli.main(["reproduce", "toy-digits", "--tune", "--quick", "--out", str(tmp_path)]) == 0
    assert tunable.calls == [(0, None, {**QUICK, "tune": True})]
    assert "quick: subsets of the data, scored on validation rows" in capsys.readouterr().out
    assert json.loads((tmp_path / "toy-digits-tune.json").read_text())["quick"] is True


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        (["toy-digits", "--set", "epochs=7"], "settings are given with --tune only"),
        (["--tune", "--set", "epochs=7"], "settings belong to one target: name it, before --set"),
        (["--tune"], "name the targets to tune"),
        (["toy-digits", "--tune", "--set", "epoch=7"], "unknown setting 'epoch' (did you mean epochs?)"),
        (["toy-digits", "--tune", "--set", "epochs=many"], "toy-digits got epochs=many: give epochs=int, such as 60"),
        (["toy-digits", "--tune", "--set", "epochs"], "toy-digits got 'epochs': give epochs=VALUE"),
        (["toy-easy", "--tune"], "toy-easy has no test rows, so nothing to tune on: leave --tune away"),
    ],
)
def test_what_cannot_be_tuned_is_one_sentence(tunable, tmp_path, capsys, asked, sentence):
    assert cli.main(["reproduce", *asked, "--out", str(tmp_path)]) == 2
    assert sentence in capsys.readouterr().err
    assert tunable.calls == []


def strict(text):
    """JSON as every reader knows it: NaN and Infinity are Python's own."""

    def refuse(name):
        raise ValueError(name)

    return json.loads(text, parse_constant=refuse)


def test_the_record_is_whole_and_knows_no_nan(toy, tmp_path):
    out = tmp_path / "new" / "folder"
    assert not reproduce(["toy-digits"], out=out)
    assert written(out) == ["toy-digits.json"]  # no partial file
    record = strict((out / "toy-digits.json").read_text())
    assert (record["target"], record["passed"], record["quick"]) == ("toy-digits", False, False)
    assert record["source"] == "Nobody (1900), On Nothing, table 1"
    assert record["measures"] == {"0": {MIXTURE: [1.5, 0.12], GAUSSIAN: [2.25, None], ONE_DRAW: [3.0, 0.17]}}
    mixture, gaussian, ordering = record["claims"]
    assert mixture == {
        "measure": MIXTURE,
        "published": 1.36,
        "at_most": 1.6,
        "quick": False,
        "measured": 1.5,
        "standard_error": 0.12,
        "passed": True,
    }
    assert (gaussian["standard_error"], gaussian["passed"]) == (None, False)
    assert (ordering["below"], "published" in ordering) == (ONE_DRAW, False)
    assert {"jax", "numpyro", "hmcvi"} <= record["versions"].keys()
    (seconds,) = record["seconds"]  # of each seed
    assert seconds >= 0


def test_several_seeds_give_their_mean_and_the_error_between_them(toy, tmp_path, capsys):
    """Seeds 0, 1, 2 measure 1.5, 1.7 and 1.9: mean 1.7, sd 0.2, error 0.2 / √3; the bound of 1.6 is missed."""
    assert cli.main(["reproduce", "toy-digits", "--seeds", "0", "1", "2", "--out", str(tmp_path)]) == 1
    assert [seed for seed, *_ in toy.calls] == [0, 1, 2]
    record = strict((tmp_path / "toy-digits.json").read_text())
    mixture, gaussian, ordering = record["claims"]
    assert mixture["measured"] == pytest.approx(1.7)
    assert mixture["standard_error"] == pytest.approx(0.2 / math.sqrt(3))
    assert (mixture["passed"], ordering["passed"]) == (False, True)
    assert gaussian["standard_error"] == 0  # the same at every seed, which is now known
    assert record["measures"]["2"][MIXTURE] == [pytest.approx(1.9), 0.12]
    assert len(record["seconds"]) == 3
    printed = capsys.readouterr().out
    assert "1.7 ±0.12" in printed
    assert "3 seeds, " in printed


def test_one_failed_target_fails_all_whatever_comes_after_it(toy, tmp_path):
    assert not reproduce(["toy-digits", "toy-easy"], out=tmp_path)
    assert written(tmp_path) == ["toy-digits.json", "toy-easy.json"]
    assert json.loads((tmp_path / "toy-easy.json").read_text())["passed"]
    assert reproduce(["toy-easy"], out=tmp_path)


def test_no_name_means_every_target(toy, monkeypatch, tmp_path):
    monkeypatch.setitem(RUNS, "flipout_variance", lambda seed, data_dir, batch_sizes: gradient_measures(batch_sizes))
    assert not reproduce([], out=tmp_path)
    assert {Path(name).stem for name in written(tmp_path)} == {"toy-digits", "toy-easy", "toy-variance"}


def gradient_measures(sizes):
    """What the run of gradient variances returns, for 1/B above a floor that one estimator has."""
    measures = {}
    for name, floor in (("shared", 1.0), ("flipout", 0.0)):
        measures[f"slope, {name}"] = Score(floor - 1, 0.01)
        measures |= {f"variance at batch {size}, {name}": Score(1 / size + floor, 0.01) for size in sizes}
    return measures


def test_gradient_variances_are_drawn(toy, monkeypatch, tmp_path):
    monkeypatch.setitem(RUNS, "flipout_variance", lambda seed, data_dir, batch_sizes: gradient_measures(batch_sizes))
    drawn = {}
    monkeypatch.setattr("hmcvi.plots.save", lambda axes, stem: drawn.update({stem: axes}))
    assert reproduce(["toy-variance", "toy-easy"], out=tmp_path)
    ((stem, axes),) = drawn.items()  # of the other target there is nothing to draw
    assert stem == tmp_path / "toy-variance"
    assert [container.get_label() for container in axes.containers] == ["shared", "flipout"]
    for container, floor in zip(axes.containers, (1, 0), strict=True):
        x, y = container.lines[0].get_data()
        np.testing.assert_array_equal(x, [1, 4, 16])
        np.testing.assert_allclose(y, 1 / x + floor)
    plt.close(axes.get_figure())


def test_list_prints_sources_and_runs_nothing(toy, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["reproduce", "--list"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "toy-digits: A toy on digits",
        "  Nobody (1900), On Nothing, table 1",
        "toy-easy: Another",
        "  Nobody (1901)",
        "toy-variance: Gradients",
        "  Nobody (1902)",
    ]
    assert toy.calls == []
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_target_is_refused_before_any_is_run(toy, tmp_path, capsys):
    out = tmp_path / "out"
    assert cli.main(["reproduce", "toy-digits", "toy-digit", "--out", str(out)]) == 2
    said = capsys.readouterr()
    assert "unknown target 'toy-digit' (did you mean toy-digits?): give one of toy-digits, toy-easy" in said.err
    assert said.err.count("\n") == 1
    assert said.out == ""
    assert toy.calls == []
    assert not out.exists()


@pytest.mark.parametrize("below", ["", "folder"])
def test_a_folder_that_cannot_be_made_is_refused_before_anything_is_run(toy, tmp_path, capsys, below):
    (tmp_path / "file").write_text("kept")
    assert cli.main(["reproduce", "toy-digits", "--out", str(tmp_path / "file" / below)]) == 2
    said = capsys.readouterr().err
    assert "cannot be written (" in said
    assert "give another --out folder" in said
    assert toy.calls == []
    assert (tmp_path / "file").read_text() == "kept"


def test_a_seed_twice_is_refused(toy, tmp_path, capsys):
    assert cli.main(["reproduce", "toy-digits", "--seeds", "1", "1", "--out", str(tmp_path)]) == 2
    assert "a seed was given twice: give each once" in capsys.readouterr().err
    assert toy.calls == []


def test_a_fit_that_fails_fails_its_target_and_the_others_run(toy, tmp_path, capsys):
    def fail(seed):
        raise FitError("the loss became nan at step 3 of 9: lower the learning rate")

    toy.measures = fail
    assert cli.main(["reproduce", "toy-digits", "toy-easy", "--out", str(tmp_path)]) == 1
    said = capsys.readouterr()
    assert "FAIL: seed 0: the loss became nan at step 3 of 9: lower the learning rate" in said.out
    assert said.err == ""
    assert [words[-1] for words in verdicts(said.out)] == ["pass"]  # of the other
    assert written(tmp_path) == ["toy-easy.json"]


def test_seeds_are_saved_one_by_one(toy, tmp_path):
    """What a seed took hours for is on the disk before the next one starts."""
    found = []

    def measures(seed):
        file = tmp_path / "toy-digits.json"
        found.append(sorted(json.loads(file.read_text())["measures"]) if file.exists() else [])
        return {MIXTURE: Score(1.0, 0.1), GAUSSIAN: Score(1.0, 0.1), ONE_DRAW: Score(2.0, 0.1)}

    toy.measures = measures
    assert reproduce(["toy-digits"], seeds=(0, 1, 7), out=tmp_path)
    assert found == [[], ["0"], ["0", "1"]]


def test_an_interruption_keeps_the_targets_before_it(toy, tmp_path, capsys):
    def interrupt(seed):
        raise KeyboardInterrupt

    toy.measures = interrupt
    assert cli.main(["reproduce", "toy-easy", "toy-digits", "--out", str(tmp_path)]) == 130
    assert "the targets before this one are finished, and their results are saved" in capsys.readouterr().err
    assert written(tmp_path) == ["toy-easy.json"]


def test_a_data_set_that_is_not_prepared_gets_one_sentence_and_fails(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    names = {"lenet-fashion": "fashion_mnist", "blundell-mnist": "mnist"}
    assert cli.main(["reproduce", *names, "--out", str(tmp_path / "out"), "--data-dir", str(tmp_path)]) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert said.count("FAIL: ") == 2
    for name in names.values():
        assert f"FAIL: {name} is not prepared in {tmp_path}" in said
        assert f'"hmcvi data prepare {name} ' in said
    assert written(tmp_path / "out") == []
