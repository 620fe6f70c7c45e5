"""`speed.py` compares fairly: equal work, turns and ratios within rounds, failures in words. Nothing here is timed."""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from hmcvi.benchmarks import peer_protocol, speed, speed_process, speed_table
from hmcvi.benchmarks.speed_process import Case, Contestant, FailedError, Stopwatch, check_facts, measure
from hmcvi.benchmarks.speed_table import Measurement, publish, ratios, read, shown

PEER = """
import json, sys
from pathlib import Path
asked = json.loads(sys.argv[1])
name, log = asked["contestant"], Path(asked["size"]["log"])
if name == "missing":
    raise ModuleNotFoundError("No module named 'pyro.infer'")
print(json.dumps({"facts": {"answer": asked["size"][name]["fact"]}, "about": f"{name} 9", "compile": 1}), flush=True)
for line in sys.stdin:
    log.write_text(log.read_text() + name)
    number = int(line)
    if number >= len(asked["size"][name]["seconds"]):
        print("Traceback", "ValueError: it broke", "JAX adds a remark", sep="\\n", file=sys.stderr)
        sys.exit(3)
    answer = {"count": 40, "seconds": asked["size"][name]["seconds"][number], "compile": 2, "note": f"round {number}"}
    print(json.dumps(answer if answer["seconds"] else {"failure": "not converged"}), flush=True)
"""
"""A contestant that says what it was told to."""


@pytest.fixture
def compared(tmp_path, monkeypatch):
    """Return a function that measures contestants of given seconds, and who was asked in which order."""
    (tmp_path / "peer.py").write_text(PEER)
    (tmp_path / "log").write_text("")
    monkeypatch.setattr(speed_process, "__file__", str(tmp_path / "speed_process.py"))

    def run(rounds=2, unit="steps/s", limit=60.0, **told):
        contestants = tuple(Contestant(name, "peer.py", ours=name == "a") for name in told)
        size = {"log": str(tmp_path / "log"), **told}
        found = measure(Case("case", "a title", unit, contestants, size, limit=limit), rounds, sys.executable)
        return {one.contestant: one for one in found}, (tmp_path / "log").read_text()

    return run


def test_contestants_take_turns_in_every_round(compared):
    found, asked = compared(
        a={"fact": 1, "seconds": [1.0, 2.0]},
        b={"fact": 1.0005, "seconds": [4.0, 8.0]},
        c={"fact": 1, "seconds": [0.5, 1]},
    )
    assert asked == "abcabc"
    assert found["a"].values == (40, 20)
    assert found["b"].values == (10, 5)
    assert found["c"].run_seconds == (0.5, 1)
    assert found["b"].compile_seconds == 3  # of starting and of the first round: later ones have it from a cache
    assert found["b"].note == "b 9; round 1"
    assert [one.ours for one in found.values()] == [True, False, False]


def test_whoever_does_other_work_is_not_timed(compared):
    found, asked = compared(a={"fact": 1, "seconds": [1, 1]}, b={"fact": 1.01, "seconds": [1, 1]})
    assert asked == "aa"
    assert found["b"].failure == "answer is 1.01 by b and 1 by a: what is compared is not the same"
    assert found["b"].values == ()
    assert found["a"].failure == ""


def test_failures_are_recorded_and_end_nobody_else_s_rounds(compared):
    found, asked = compared(
        a={"fact": 1, "seconds": [1, 1, 1]},
        b={"fact": 1, "seconds": [2]},
        missing={},
        c={"fact": 1, "seconds": [0, 1, 1]},
        rounds=3,
    )
    assert asked == "abcabcac"  # b is out after its second round; c, which broke nothing, tries again
    assert found["a"].values == (40, 40, 40)
    assert found["b"].values == (20,)
    assert found["b"].failure == "it ended with status 3: ValueError: it broke"
    assert found["missing"].failure == "pyro is not here (pip install 'hmcvi[peers]')"
    assert found["c"].failure == "1 of 3 rounds not converged"
    np.testing.assert_array_equal(found["c"].values, (np.nan, 40, 40))
    np.testing.assert_array_equal(ratios(found["a"], found["c"]), (1, 1))


def test_whoever_fails_in_every_round_has_no_value(compared):
    found, _ = compared(a={"fact": 1, "seconds": [1, 1]}, b={"fact": 1, "seconds": [0, 0]})
    assert found["b"].values == ()
    assert found["b"].failure == "2 of 2 rounds not converged"
    assert list(ratios(found["a"], found["b"])) == []


def test_whoever_does_not_answer_is_not_waited_for(tmp_path, monkeypatch):
    (tmp_path / "peer.py").write_text(
        'print(\'{"facts": {}, "about": "", "compile": 0}\', flush=True)\ninput()\ninput()'
    )
    monkeypatch.setattr(speed_process, "__file__", str(tmp_path / "speed_process.py"))
    case = Case("case", "a title", "s", (Contestant("slow", "peer.py"),), limit=0.2)
    (found,) = measure(case, 1, sys.executable)
    assert found.failure == "no answer within 0 s"


def test_a_package_that_is_missing_is_named_with_its_extra():
    (found,) = measure(Case("case", "a title", "s", (Contestant("x", "speed_gp", needs="no_such_package"),)), 1)
    assert found.failure == "no_such_package is not here (pip install 'hmcvi[peers]')"


@pytest.mark.parametrize(("value", "fails"), [(1.0009, False), (1.002, True), (np.nan, True)])
def test_facts_agree_to_a_thousandth_or_to_their_own_tolerance(value, fails):
    facts = {"a": {"nll": 1.0, "accuracy": 0.9}, "b": {"nll": value, "accuracy": 0.91}}
    if fails:
        with pytest.raises(FailedError, match=r"nll is .* by b and 1 by a"):
            check_facts(facts, {"accuracy": 0.02})
    else:
        check_facts(facts, {"accuracy": 0.02})
    with pytest.raises(FailedError, match="accuracy"):
        check_facts({"a": {"accuracy": 0.9}, "b": {"accuracy": 0.91}}, {"accuracy": 0.002})
    check_facts({}, {})


@pytest.mark.parametrize("given", [{"nll": 1.0}, {"nll": 1.0, "accuracy": 0.9, "ece": 0.1}, {"loss": 1.0}])
def test_facts_that_only_one_tells_are_not_taken_for_equal(given):
    with pytest.raises(FailedError, match=r"and a accuracy, nll: what is compared is unknown"):
        check_facts({"a": {"nll": 1.0, "accuracy": 0.9}, "b": given}, {})


def test_compiling_is_the_union_of_what_jax_says_it_took():
    now = [0.0]
    watch = Stopwatch(clock=lambda: now[0])
    for ended, seconds in ((4.0, 1.0), (5.0, 4.0), (9.0, 2.0), (9.5, 1.0)):  # 3–4 within 1–5, then 7–9 and 8.5–9.5
        now[0] = ended
        watch._heard("/jax/core/compile/backend_compile_duration", seconds)
        watch._heard("/jax/elsewhere", 100.0)
    now[0] = 12.0
    assert watch.compile_seconds == 6.5
    assert watch.seconds == 5.5


def test_jax_tells_the_stopwatch_of_its_compiling():
    watch = Stopwatch()
    jax.jit(lambda x: jnp.sin(x) + 3.25)(jnp.ones(3))
    assert 0 < watch.compile_seconds < np.inf
    seconds, compiling = watch.stop().seconds, watch.compile_seconds
    jax.jit(lambda x: jnp.cos(x) + 3.25)(jnp.ones(3))  # what a judge compiles
    assert (watch.seconds, watch.compile_seconds) == (seconds, compiling)
    assert watch.stop().seconds == seconds


def measurement(contestant, values, *, ours=False, unit="s", **more):
    given = {"case": "case", "title": "what is measured", "run_seconds": values, "compile_seconds": 1.5}
    return Measurement(contestant=contestant, ours=ours, unit=unit, values=values, **given | more)


def test_ratios_are_taken_within_rounds_and_above_one_is_faster():
    """A machine that slows down tenfold on the way slows all: the ratio stays what it is in each round."""
    fast, slow = (1.0, 3.0, 10.0), (2.0, 6.0, 20.0)
    np.testing.assert_array_equal(ratios(measurement("a", fast), measurement("b", slow)), [2, 2, 2])
    np.testing.assert_array_equal(
        ratios(measurement("a", fast, unit="x/s"), measurement("b", slow, unit="x/s")), [0.5] * 3
    )
    assert len(ratios(measurement("a", fast), measurement("b", slow[:1]))) == 1  # b failed later


def printed(found):
    console = Console(width=100, highlight=False, markup=False, emoji=False, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(shown(found))
    console.file.close()
    return console.export_text()


def test_the_table_says_who_is_how_fast_and_who_failed():
    text = printed(
        [
            measurement("hmcvi nuts", (1.0, 3.0), ours=True, note="4 host devices"),
            measurement("numpyro nuts", (3.0, 9.0)),
            measurement("nutpie", (), failure="nutpie is not here"),
        ]
    )
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "hmcvi nuts 2 (1–3) 1.5" in lines
    assert "nutpie – –" in lines
    assert "times as fast as hmcvi nuts" in lines
    assert "numpyro nuts 3.00 (3.00–3.00)" in lines
    assert "nutpie: nutpie is not here" in lines
    assert "hmcvi nuts: 4 host devices" in lines


def test_an_overhead_is_told_in_per_cent():
    found = [
        measurement("fit", (99.0, 98.0), ours=True, unit="draws/s"),
        measurement("loop", (100.0, 100.0), unit="draws/s"),
    ]
    assert "fit takes 1.53 (1.01–2.04) % longer than loop" in printed(found)


@pytest.mark.parametrize("quick", [False, True])
def test_every_table_fits_into_a_hundred_columns(quick):
    """With three digits everywhere, each cell is whole and on one line."""
    for case in speed.all_cases(quick).values():
        found = [
            measurement(one.name, values, ours=one.ours, unit=case.unit, case=case.name, title=case.title)
            for one in case.contestants
            for values in [(12345.0, 54321.0, 98765.0) if one.ours else (10000.0, 11111.0, 12222.0)]
        ]
        lines = [line.strip() for line in printed(found).splitlines()]
        assert max(map(len, lines)) <= 100
        ours = [one for one in case.contestants if one.ours]
        for one in case.contestants:
            (row,) = [line for line in lines if line.startswith(one.name) and "," in line.removeprefix(one.name)]
            assert ("54,321 (12,345–98,765)" if one.ours else "11,111 (10,000–12,222)") in row
            if not one.ours:
                assert any(line.startswith(one.name) and line.count(" (") == len(ours) for line in lines), one.name


def test_what_is_published_is_read_back_and_other_cases_stay(tmp_path):
    made = {"date": "2026-01-01", "device": "2 cores | of a test", "versions": "jax 1"}
    first = [measurement("hmcvi", (1.0, 2.0), ours=True, note="a|b"), measurement("peer", (), failure="not here")]
    other = [measurement("hmcvi", (5.0,), ours=True, case="other"), measurement("peer", (10.0,), case="other")]
    publish(tmp_path, first, made)
    publish(tmp_path, other, made | {"date": "2026-02-02"})
    page = publish(tmp_path, [measurement("hmcvi", (3.0,), ours=True)], made | {"date": "2026-03-03"})
    cases = {found[0].case: (of["date"], found) for of, found in read(tmp_path / "speed.csv")}
    assert cases == {"other": ("2026-02-02", other), "case": ("2026-03-03", [measurement("hmcvi", (3.0,), ours=True)])}
    text = page.read_text()
    assert text.startswith("# Speed\n")
    assert "| times as fast as | hmcvi |\n| --- | ---: |\n| peer | 2.00 |" in text
    assert "- measured 2026-02-02 in 1 round on 2 cores | of a test, with jax 1" in text
    assert "not here" not in text  # the case was measured anew

    publish(tmp_path, first, made)
    assert read(tmp_path / "speed.csv")[1][1] == first


def test_a_contestant_answers_in_json_and_what_libraries_print_goes_elsewhere(tmp_path):
    (tmp_path / "one.py").write_text(
        "from peer_protocol import Ready, serve\n"
        "def make(*, size):\n"
        "    print('a library speaks')\n"
        "    return Ready(lambda number: {'count': size, 'seconds': number}, {'fact': 7}, 'about', 0.5)\n"
        "serve({'x': make})\n"
    )
    import subprocess

    done = subprocess.run(
        [sys.executable, str(tmp_path / "one.py"), '{"contestant": "x", "size": {"size": 3}}'],
        input="4\n5\n",
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(next(iter(peer_protocol.__spec__.origin.rsplit("/", 1)))), "PATH": ""},
    )
    assert [json.loads(line) for line in done.stdout.splitlines()] == [
        {"facts": {"fact": 7}, "about": "about", "compile": 0.5},
        {"count": 3, "seconds": 4},
        {"count": 3, "seconds": 5},
    ]
    assert "a library speaks" in done.stderr


def test_a_round_takes_as_many_steps_as_were_counted():
    taken = []
    ready = peer_protocol.repeated(taken.append, 0.0, count=2.5, facts={"a": 1}, about="b", compile_seconds=4)
    answer = ready.run(0)
    assert answer["count"] == 2.5 * taken[-1]
    assert (ready.facts, ready.about, ready.compile_seconds) == ({"a": 1}, "b", 4)


def test_shared_work_is_the_same_each_time():
    shapes = {"out.kernel": (3, 2), "hidden.bias": (4,)}
    one, two = peer_protocol.weights(shapes), peer_protocol.weights(dict(reversed(shapes.items())))
    for site, values in one.items():
        np.testing.assert_array_equal(values, two[site])
        assert values.shape == shapes[site]
        assert values.dtype == np.float32
    x, y = peer_protocol.inputs(5, (2, 3), 4)
    assert x.shape == (5, 2, 3)
    assert x.dtype == np.float32
    assert y.max() < 4


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


OTHERS = ("numpyro SVI.run", "numpyro SVI, scanned", "bayesian-torch", "pyro")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--rounds", "0"], "--rounds 0: give at least 1"),
        (["--cases", "nut", "x"], "no case 'x': give some of nuts-dig"),
        (["--without", "tinygp", "x"], "no contestant 'x': give some of"),
        (["--cases", "gp-fit", "--without", "scikit-learn"], "--without leaves a case nothing"),
        (["--cases", "gp", "--without", "hmcvi gp"], "--without leaves a case nothing"),
        (["--cases", "driver", "--without", "the bare loop"], "--without leaves a case nothing"),
        (["--cases", "vi-cnn", "--without", *OTHERS], "--without leaves a case nothing"),  # but four of hmcvi's
    ],
)
def test_what_cannot_be_measured_is_refused(arguments, sentence, capsys):
    with pytest.raises(SystemExit) as stopped:
        speed.main(arguments)
    assert stopped.value.code == 2
    assert sentence in capsys.readouterr().err


def test_the_command_measures_prints_and_publishes(tmp_path, monkeypatch, capsys):
    cases = []

    def measured(case, rounds, torch_python, say):
        assert (rounds, torch_python) == (3, sys.executable)
        cases.append(case)
        return [measurement(one.name, (1.0,) * rounds, ours=one.ours, case=case.name) for one in case.contestants]

    monkeypatch.setattr(speed, "measure", measured)
    asked = ["--rounds", "3", "--torch-python", sys.executable, "--publish", str(tmp_path / "out")]
    assert speed.main(["--cases", "gp", "driver", *asked]) == 0
    said = capsys.readouterr().out
    assert "driver: what is measured" in said
    assert [found[0].case for _, found in read(tmp_path / "out" / "speed.csv")] == [
        "driver",  # by its name, and so without driver-parallel
        "gp-gradient",
        "gp-predict",
        "gp-fit",
    ]
    assert speed.main(["--cases", "gp", "--without", "tinygp", *asked]) == 0
    asked_of = {case.name: ([one.name for one in case.contestants], case.title) for case in cases}
    assert asked_of["gp-predict"][0] == ["hmcvi gp", "scikit-learn"]
    assert asked_of["gp-predict"][1].endswith(
        "a lengthscale for each of 10 features) on diabetes, 353 rows; left out: tinygp"
    )
    assert "left out" not in asked_of["gp-fit"][1]  # tinygp has no part in it
    monkeypatch.setattr(speed, "measure", lambda case, *_: measured(case, 3, sys.executable, None))
    assert speed.main(["--cases", "gp-fit", "--quick", "--publish", str(tmp_path / "quick")]) == 0
    assert not (tmp_path / "quick").exists()
    assert "nothing is published" in capsys.readouterr().out


def test_numbers_read_well():
    assert [speed_table._number(value) for value in (0.01234, 2.5, 999.6, 1234.6)] == [
        "0.0123",
        "2.5",
        "1,000",
        "1,235",
    ]
