"""`hmcvi reproduce`: the targets that are named, the runs behind them, the verdicts, and what reaches the disk."""

import functools
import inspect
import json
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib import pyplot as plt
from numpyro.distributions import biject_to
from scipy.stats import norm

from hmcvi.benchmarks import cli, datasets, target_runs
from hmcvi.benchmarks.reproduce import Claim, judge, read_targets, reproduce
from hmcvi.benchmarks.target_runs import RUNS
from hmcvi.inference import Fit, FitError, fit, predict
from hmcvi.inference.base import latent_sites
from hmcvi.inference.checks import check_data
from hmcvi.inference.scores import Score
from hmcvi.models import ScaleMixture, mlp

from .prepared_sets import features, png, write_set


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


# --- what the runs return

ROWS, TEST_ROWS, SIDE = 60, 20, 8

TINY = {
    "mnist_mlp": ("blundell-mnist", {"epochs": 1, "rows": 40}),
    "mnist_pruning": ("blundell-pruning", {"epochs": 1, "rows": 40}),
    "lenet": ("lenet-fashion", {"map_epochs": 1, "epochs": 1, "rows": 40, "test_rows": 15}),
    "cifar10_cnn": ("flipout-cifar10", {"map_epochs": 1, "epochs": 1, "rows": 40, "test_rows": 15}),
    "flipout_variance": ("flipout-variance", {"num_steps": 20, "num_repeats": 5, "batch_sizes": [1, 4, 1024]}),
    "eight_schools_forms": ("eight-schools", {"num_draws": 200}),
}
TINY = {run: {**TARGETS[name].quick, **tiny} for run, (name, tiny) in TINY.items()}
"""Settings of a target, made to show what its run returns, and nothing else."""


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """A TFDS folder with noise in the place of three image sets, eight pixels wide."""
    root = tmp_path_factory.mktemp("tfds")
    random = np.random.default_rng(0)
    for name, channels in (("mnist", 1), ("fashion_mnist", 1), ("cifar10", 3)):
        shape = (SIDE, SIDE, channels)
        splits = {
            split: [(png(random.integers(256, size=shape, dtype=np.uint8)), row % 10) for row in range(rows)]
            for split, rows in (("train", ROWS), ("test", TEST_ROWS))
        }
        write_set(root, name, splits, like=features(shape, names=[str(i) for i in range(10)]), version="3.0.1")
    return str(root)


def linear(x, y=None, *, num_rows=None, num_classes, prior=None, **architecture):
    """In the place of `mlp` and `cnn`, whose compilation takes most of a run's time; takes their arguments."""
    return mlp(x, y, widths=(), num_rows=num_rows, num_classes=num_classes, prior=prior)


DIVERGENCES = 3


def untrained(key, model, x, y, method):
    """In the place of `fit`: a Gaussian posterior about 0 that nothing was optimised for, in no time."""
    x, y = check_data(x, y)
    sites, _ = latent_sites(model, x, y)
    noise = {
        name: jax.random.normal(jax.random.fold_in(key, i), (1, method.num_draws, *site.shape))
        for i, (name, site) in enumerate(sites.items())
    }
    return Fit(
        model=model,
        method=method,
        x=x,
        y=y,
        key=key,
        draws={name: biject_to(site.support)(0.1 * noise[name]) for name, site in sites.items()},
        stats={"diverging": np.arange(8).reshape(2, 4) < DIVERGENCES},
        location={name: jnp.zeros(site.shape) for name, site in sites.items()},
        scale={name: jnp.full(site.shape, 0.1) for name, site in sites.items()},
        losses=np.full(100, 2.0),
        log_q=sum(norm.logpdf(0.1 * n, scale=0.1).reshape(1, method.num_draws, -1).sum(2) for n in noise.values()),
        num_gradients=0,
        rows_per_gradient=0,
        run_seconds=0.0,
    )


def fitted_once(key, model, x, y, method):
    """In the place of `fit`: the two MNIST fits differ in their prior only, and one of them is enough."""
    chosen = fit if isinstance(model.keywords["prior"], ScaleMixture) else untrained
    return chosen(key, model, x, y, method)


FITS = {"lenet": fit, "mnist_mlp": fitted_once, "mnist_pruning": fitted_once}
"""How much of a run is fitted: these show that such methods fit, the others are left untrained."""


def power_law(result, key, estimator, batch_sizes, *, num_repeats):
    """In the place of `gradient_variance`, whose own tests know its values: 1/B, above a floor under "shared"."""
    floor = 0.5 if estimator == "shared" else 0.0
    return [Score(1 / size + floor, 0.01 * (1 / size + floor)) for size in batch_sizes]


@functools.cache
def returned(run, data_dir):
    """What a run returns of tiny data with tiny settings and models: its names are those of the full one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HMCVI_CACHE", data_dir + "/cache")
        patch.setattr(target_runs, "BATCH_SIZE", 16)
        patch.setattr(target_runs, "KHAT_REPEATS", 2)
        patch.setattr(target_runs, "mlp", linear)
        patch.setattr(target_runs, "cnn", linear)
        patch.setattr(target_runs, "fit", FITS.get(run, untrained))
        patch.setattr(target_runs, "gradient_variance", power_law)
        return RUNS[run](0, data_dir, **TINY[run])


@pytest.mark.parametrize("run", RUNS)
def test_every_measure_that_a_claim_names_is_returned(run, data_dir):
    measures = returned(run, data_dir)
    for target in TARGETS.values():
        if target.run == run:
            for claim in target.claims:
                outcome = judge(claim, measures)
                assert math.isfinite(outcome.value), claim.measure
    # All else that is returned is a score as well.
    assert all(isinstance(score, Score) for score in measures.values())


def test_errors_and_accuracies_are_those_of_one_set_of_predictions(data_dir):
    measures = returned("mnist_mlp", data_dir)
    for prior in ("mixture", "Gaussian"):
        accuracy, wrong = (measures[f"{name}, {prior} prior"] for name in ("accuracy", "test error (%)"))
        assert wrong.value == pytest.approx(100 * (1 - accuracy.value))
        assert wrong.standard_error == pytest.approx(100 * accuracy.standard_error, rel=0.05)
        assert 0 <= measures[f"test error, one draw (%), {prior} prior"].value <= 100
        # Labels of noise: 90 % are wrong, of 20 rows within four standard errors (1e-4 false alarms for each prior).
        assert abs(wrong.value - 90) < 4 * 100 * math.sqrt(0.09 / TEST_ROWS)


@pytest.mark.parametrize("run", ["mnist_mlp", "lenet", "cifar10_cnn"])
def test_tuning_scores_a_fifth_of_the_training_rows(run, data_dir, monkeypatch):
    fitted, scored = [], []

    def fitting(key, model, x, y, method):
        fitted.append(np.asarray(x))
        return untrained(key, model, x, y, method)

    def predicting(result, x, **options):
        scored.append(np.asarray(x))
        return predict(result, x, **options)

    monkeypatch.setenv("HMCVI_CACHE", data_dir + "/cache")
    for name, value in {"mlp": linear, "cnn": linear, "fit": fitting, "predict": predicting, "BATCH_SIZE": 16}.items():
        monkeypatch.setattr(target_runs, name, value)
    settings = {key: value for key, value in TINY[run].items() if key not in ("rows", "test_rows")}
    RUNS[run](0, data_dir, tune=True, **settings)
    assert {len(x) for x in fitted} == {ROWS - ROWS // 5}
    train = datasets.load(
        TINY[run].get("data", "cifar10" if run == "cifar10_cnn" else "mnist"),
        seed=0,
        data_dir=data_dir,
        image=run != "mnist_mlp",
    ).x_train
    rows = {row.tobytes() for row in np.asarray(train)}
    assert len(scored[0]) == ROWS // 5
    assert all(row.tobytes() in rows for row in scored[0])
    assert not {row.tobytes() for row in fitted[0]} & {row.tobytes() for row in scored[0]}


def test_slopes_are_those_of_the_variances(data_dir):
    measures = returned("flipout_variance", data_dir)
    for estimator in ("flipout", "local"):
        assert measures[f"slope, {estimator}"].value == pytest.approx(-1)
        assert measures[f"slope between the two largest batches, {estimator}"].value == pytest.approx(-1)
        assert measures[f"variance at batch 4, {estimator}"] == (0.25, 0.0025)
    # from 1/4 + 1/2 at 4 rows to 1/1024 + 1/2
    last = measures["slope between the two largest batches, shared"].value
    assert last == pytest.approx(math.log((1 / 1024 + 0.5) / 0.75) / math.log(256))
    assert measures["slope, shared"].value < last


def test_divergences_are_counted_over_chains_and_draws(data_dir):
    measures = returned("eight_schools_forms", data_dir)
    for form in ("centred", "non-centred"):
        value, error = measures[f"divergences of NUTS, {form}"]
        assert value == DIVERGENCES
        assert math.isnan(error)  # one run cannot know it


def test_pruning_looks_at_the_fit_of_the_mixture_prior(data_dir):
    """Nothing removed, the error is that of `mnist_mlp`; what is added is the difference."""
    whole = returned("mnist_mlp", data_dir)["test error (%), mixture prior"]
    before = target_runs._mixture_fit.cache_info().misses
    measures = returned("mnist_pruning", data_dir)
    assert target_runs._mixture_fit.cache_info().misses == before
    assert measures["test error, nothing removed (%)"] == whole
    for percent in target_runs.PRUNED:
        removed = measures[f"test error, {percent} % removed (%)"].value
        added = measures[f"test error added, {percent} % removed (points)"].value
        assert added == pytest.approx(removed - whole.value)


@pytest.fixture(autouse=True, scope="module")
def _fits_are_let_go():
    yield
    target_runs._mixture_fit.cache_clear()
    returned.cache_clear()
