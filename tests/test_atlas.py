"""The atlas: what it asks for, how it holds findings against data, and the page that is committed."""

import re
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from hmcvi.benchmarks import atlas, bundled
from hmcvi.benchmarks.atlas_overview import differences_from_reference, overview
from hmcvi.benchmarks.atlas_page import Claim, confidence_interval, judge_claim
from hmcvi.benchmarks.experiment import METHODS, MODELS
from hmcvi.benchmarks.table import COLUMNS

RESULTS = Path(atlas.__file__).parent / "results" / "atlas"


def scores(cell="wave-mlp", part="test", score="nll", settled=1, **methods):
    rows = []
    for method, values in methods.items():
        for seed, value in enumerate(values):
            row = {"cell": cell, "seed": seed, "method": method, "set": part, "score": score, "value": value}
            rows.append(row | {"standard_error": 0.01, "monte_carlo_error": np.nan})
            rows.append({**row, "set": "fit", "score": "settled", "value": settled})
    return pd.DataFrame(rows).reindex(columns=["cell", *COLUMNS])


def only(data):
    return data[data["set"] != "fit"]


def test_every_bundled_data_set_has_every_model_that_fits_it():
    cells = {cell.name: cell for cell in atlas.read_atlas().cells}
    images = {"digits"}
    models = set(MODELS) - {"hsgp", "sgp"}  # approximations of gp for more rows than any bundled data set has
    wanted = {f"{data}-{model}" for data in bundled.BUNDLED for model in models if model != "cnn" or data in images}
    assert set(cells) == wanted
    methods = set(METHODS) - {"mams"}  # as exact as nuts and hmc, and slower: nothing new to compare
    # A method may be left out where it is another one under a second name, or cannot run: the note says so.
    for cell in cells.values():
        assert set(cell.methods) <= methods
        assert set(cell.methods) == methods or cell.note, cell.name


def test_a_cells_own_options_come_last(tmp_path):
    path = tmp_path / "atlas.toml"
    path.write_text(
        'seeds = [0]\nmethods = ["map", "svi"]\n[options]\nmap = ["num_steps=9"]\n[brief]\nsvi = ["num_steps=5"]\n'
        '[[cells]]\ndata = "wave"\nmodel = "mlp"\nbrief = true\noptions = ["--map", "num_steps=3"]\n'
        '[[cells]]\ndata = "wine"\nmodel = "mlp"\nwithout = ["svi"]\n'
    )
    brief, plain = atlas.read_atlas(path).cells
    assert brief.options == ("--map", "num_steps=9", "--svi", "num_steps=5", "--map", "num_steps=3")
    assert plain.options == ("--map", "num_steps=9")
    assert plain.methods == ("map",)


def test_the_interval_is_students_over_seeds_or_the_seeds_own_errors_where_those_are_wider():
    values = np.array([1.0, 2.0, 4.0])
    center, low, high = confidence_interval(only(scores(svi=values)))
    half = stats.t.ppf(0.975, 2) * values.std(ddof=1) / np.sqrt(3)
    np.testing.assert_allclose([center, low, high], [values.mean(), values.mean() - half, values.mean() + half])
    # Three seeds that agree by chance know no more than their rows tell: 1.96 * 0.01 / √3.
    center, low, high = confidence_interval(only(scores(svi=[1.0, 1.0, 1.0])))
    np.testing.assert_allclose([center - low, high - center], 1.959964 * 0.01 / np.sqrt(3), rtol=1e-6)


@pytest.mark.parametrize(
    ("nuts", "svi", "holds"),
    [((1.0, 1.01, 0.99), (2.0, 2.01, 1.99), True), ((1.0, 1.5, 0.5), (2.0, 2.01, 1.99), False)],
)
def test_a_claim_holds_only_where_intervals_keep_apart(nuts, svi, holds):
    support = judge_claim(Claim("wave-mlp", "test", "nll", "svi", "nuts"), scores(nuts=nuts, svi=svi))
    assert support.holds is holds
    assert ("NOT above" in support.sentence) is not holds
    assert "svi 2 [" in support.sentence


def test_a_claim_may_be_against_a_number_and_never_holds_unmeasured():
    data = scores(part="minus nuts", svi=(0.2, 0.21, 0.19))
    assert judge_claim(Claim("wave-mlp", "minus nuts", "nll", "svi", 0.0), data).holds
    assert not judge_claim(Claim("wave-mlp", "minus nuts", "nll", 0.0, "svi"), data).holds
    missing = judge_claim(Claim("wave-mlp", "minus nuts", "nll", "bbb", 0.0), data)
    assert not missing.holds
    assert "bbb was not measured at every seed" in missing.sentence


def test_a_claim_rests_on_fits_that_ended_at_every_seed():
    claim = Claim("wave-mlp", "test", "nll", "svi", "nuts")
    apart = {"nuts": (1.0, 1.01, 0.99), "svi": (2.0, 2.01, 1.99)}
    assert judge_claim(claim, scores(**apart)).holds
    unsettled = judge_claim(claim, scores(settled=0, **apart))
    assert not unsettled.holds
    assert "svi is unconverged or unfinished" in unsettled.sentence
    one_seed_less = judge_claim(claim, scores(nuts=apart["nuts"], svi=apart["svi"][:2]))
    assert "svi was not measured at every seed" in one_seed_less.sentence


def test_one_number_without_an_error_is_above_nothing():
    data = scores(part="fit", score="seconds", nuts=(1.0,), svi=(1.0001,)).assign(standard_error=np.nan)
    assert not judge_claim(Claim("wave-mlp", "fit", "seconds", "svi", "nuts"), data).holds


def test_a_cell_runs_resumes_and_stands_on_the_page(tmp_path, monkeypatch):
    """Two real cells, one of which fails; the second time nothing runs."""
    path = tmp_path / "atlas.toml"
    path.write_text(
        'seeds = [0]\nmethods = ["map", "ensemble"]\nfindings = []\n[options]\nmap = ["num_steps=50"]\n'
        'ensemble = ["num_steps=50", "size=2"]\n[[cells]]\ndata = "wave"\nmodel = "mlp"\nnote = "Short fits."\n'
        '[[cells]]\ndata = "wave"\nmodel = "cnn"\n'
    )
    small = atlas.read_atlas(path)
    monkeypatch.setattr(atlas, "read_atlas", lambda: small)
    arguments = ["--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "page")]
    assert atlas.main(arguments) == 1  # a curve is no image: the CNN's cell fails, and is said to
    page = (tmp_path / "page" / "atlas.md").read_text()
    assert "Short fits." in page
    assert "| map" in page
    assert "Not finished: wave-cnn. The run ended with status 2" in page
    data = pd.read_parquet(tmp_path / "page" / "atlas.parquet")
    assert set(data["method"]) == {"map", "ensemble"}
    assert set(data["cell"]) == {"wave-mlp"}
    assert "seconds" in set(data.loc[data["set"] == "fit", "score"])

    started = []
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: started.append(a) or pytest.fail("nothing is to run"))
    assert atlas.main([*arguments, "--cells", "wave-mlp"]) == 0
    assert not started


def test_the_overview_shows_what_nuts_buys_and_what_it_costs():
    def records(passes, verdict):
        return [{"num_passes": passes, "verdict": verdict}, {"num_passes": 3 * passes, "verdict": "finished"}]

    fits = {"nuts": records(100, "converged"), "svi": records(10, "unfinished"), "bbb": records(20, "finished")}
    found = [
        {"method": "svi", "minus": "nuts", "score": score, "value": value, "low": low, "high": high, "tied": low < 0}
        for score, value, low, high in (("nll", 0.02, 0.01, 0.03), ("squared error", 0.002, -0.001, 0.005))
    ]
    found += [found[0] | {"minus": "map"}, found[0] | {"method": "bbb"}]
    found.append(found[0] | {"method": "map", "value": None, "low": None, "high": None})  # a row ruled out
    summaries = {"wave-mlp": {"fits": fits, "differences": found}, "wave-gp": {"fits": {"map": []}}}
    differences = differences_from_reference(summaries)
    assert len(differences) == 3
    lines = overview(differences, summaries)
    assert lines[-1] == (
        "| wave-mlp | +0.02 [0.01, 0.03] (u) | **+0.02 [0.01, 0.03]** | – | +0.002 [-0.001, 0.005] (u) | – | 10 × (u) |"
    )
    fits["nuts"][0]["verdict"] = "unconverged"
    assert "**" not in overview(differences, summaries)[-1]
    assert lines[-2].count("|") == lines[-1].count("|") == lines[-3].count("|")
    assert overview(differences, {"wave-gp": summaries["wave-gp"]}) == []
    assert lines[0].startswith("A method's score less NUTS', paired")
    # a cell without nuts is held against its next best sampler, and says so
    of_hmc = {"hmc": fits["bbb"], "svi": fits["svi"]}
    minus_hmc = [of | {"minus": "hmc"} for of in found[:2]]
    summaries["wave-cnn"] = {"fits": of_hmc, "reference": "hmc", "differences": minus_hmc}
    mixed = overview(differences_from_reference(summaries), summaries)
    assert mixed[0].startswith("A method's score less NUTS or HMC's, paired")
    assert mixed[-1].startswith("| wave-cnn, from hmc | +0.02 [0.01, 0.03] (u) | – | – |")


def test_an_unknown_cell_is_refused(capsys):
    with pytest.raises(SystemExit) as stopped:
        atlas.main(["--cells", "moons-mlp"])
    assert stopped.value.code == 2
    assert "no cell 'moons-mlp'" in capsys.readouterr().err


def test_the_committed_page_holds_every_finding():
    data = pd.read_parquet(RESULTS / "atlas.parquet")
    page = (RESULTS / "atlas.md").read_text()
    findings = atlas.read_atlas().findings
    assert len(findings) == 3
    for finding in findings:
        assert finding.title in page
        assert finding.claims
        for claim in finding.claims:
            support = judge_claim(claim, data)
            assert support.holds, support.sentence
            assert support.sentence in page
    differences = pd.read_parquet(RESULTS / "differences.parquet")
    assert set(differences["cell"]) == set(data["cell"])
    shown = differences[differences["method"].isin(["svi", "bbb", "map"]) & (differences["score"] == "nll")]
    for row in shown.itertuples():
        (line,) = (line for line in page.splitlines() if re.match(rf"\| {row.cell}( \(u\))? \|", line))
        text = f"{row.value:+.3g} [{row.low:.3g}, {row.high:.3g}]"
        assert f" {text} |" in line or f" {text} (u) |" in line or (f" **{text}** |" in line and not row.tied)
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    for line in (line for line in page.splitlines() if re.match(r"\| [a-z_]+-(cnn|mlp|gp)\b", line)):
        assert line in readme  # the README shows the same table
    assert all(finding.title in " ".join(readme.split()) for finding in findings)
    cells = {cell.name for cell in atlas.read_atlas().cells}
    assert set(data["cell"]) == cells
