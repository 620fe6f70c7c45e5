"""Finished runs in one table: what is averaged, what is best or tied, and which runs share no table."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hmcvi.benchmarks.checksums import write_summed
from hmcvi.benchmarks.finished import read_finished, unconverged
from hmcvi.benchmarks.grouped import lay_out
from hmcvi.benchmarks.joined import join_runs
from hmcvi.benchmarks.options import UsageError

from .run_folders import change, write_run


def marks(folders: list[Path], score: str = "nll", part: str = "test") -> dict[str, str]:
    """The marks of one line of the joined table, by method."""
    table = join_runs(folders)
    line = table[(table["score"] == score) & (table["set"] == part)]
    return dict(zip(line["method"], line["mark"], strict=True))


def cells(folders: list[Path], label: str) -> dict[str, str]:
    """The texts of one line of the only block, by method."""
    (block,) = lay_out(join_runs(folders))
    return {method: cell.text for method, cell in zip(block.methods, dict(block.lines)[label], strict=True)}


def test_methods_of_several_folders_stand_side_by_side_and_further_seeds_are_averaged(tmp_path: Path) -> None:
    first = write_run(tmp_path / "a", {"nuts": [0.1, 0.2], "svi": [0.3, 0.5]})
    further = write_run(tmp_path / "b", {"nuts": [0.6], "svi": [0.7]}, seeds=(2,))
    other = write_run(tmp_path / "c", {"bbb": [0.4, 0.4, 0.4]})
    elsewhere = write_run(tmp_path / "d", {"svi": [0.9]}, data="breast_cancer")
    table = join_runs([first, further, other, elsewhere])
    blocks = lay_out(table)
    assert [block.methods for block in blocks] == [("nuts", "svi", "bbb"), ("svi",)]
    assert blocks[0].heading == "wine, mlp: 142 training and 36 test rows, seeds 0, 1, 2"
    assert blocks[1].heading == "breast_cancer, mlp: 455 training and 114 test rows, seed 0"
    # mean ± sd / √3
    assert [cell.text.split()[0] for cell in dict(blocks[0].lines)["nll ↓"]] == ["0.300", "0.500", "0.400"]
    error = float(dict(blocks[0].lines)["nll ↓"][0].text.partition("±")[2])
    assert error == pytest.approx(np.std([0.1, 0.2, 0.6], ddof=1) / np.sqrt(3), abs=1e-3)
    # of one seed: the error over its rows
    assert dict(blocks[1].lines)["nll ↓"][0].text == "0.900 ±0.010"
    tidy = table.set_index(["data", "method", "score", "seed"])["value"]
    assert tidy["wine", "svi", "nll", 2] == 0.7
    assert tidy["wine", "nuts", "gradient evaluations", 1] == 20_000
    assert not table.duplicated(["data", "model", "method", "set", "score", "seed"]).any()


def test_of_a_fit_in_two_runs_the_first_run_s_scores_count_and_other_sets_are_joined(tmp_path: Path) -> None:
    noise = [(0, "svi", "noise", "auroc, entropy", 0.8, 0.1, 0.0)]
    first = write_run(tmp_path / "a", {"svi": [0.3]})
    second = write_run(tmp_path / "b", {"svi": [0.4]}, further=noise, sets={"noise": 36})
    values = join_runs([first, second]).set_index(["set", "score"])["value"]
    assert values["test", "nll"] == 0.3
    assert values["noise", "auroc, entropy"] == 0.8


def test_a_method_that_lacks_a_seed_has_no_average_there(tmp_path: Path) -> None:
    """An average over fewer seeds would pass for one over all."""
    noise = [(0, "svi", "noise", "auroc, entropy", 0.8, 0.1, 0.0)]
    first = write_run(tmp_path / "a", {"svi": [0.3]}, further=noise, sets={"noise": 36})
    second = write_run(tmp_path / "b", {"svi": [0.4], "bbb": [0.2]}, seeds=(1,))
    folders = [first, second]
    assert cells(folders, "auroc, entropy, noise ↑") == {"svi": "–", "bbb": "–"}
    assert cells(folders, "seeds") == {"svi": "0, 1", "bbb": "1"}
    assert cells([first], "auroc, entropy, noise ↑") == {"svi": "0.800 ±0.100"}


def test_distances_to_a_reference_that_is_unconverged_at_one_seed_are_left_out(tmp_path: Path) -> None:
    def distance(seed: int) -> list[tuple]:
        return [(seed, method, "reference", "agreement", 0.9, 0.01, np.nan) for method in ("nuts", "svi")]

    good = {"nuts": ["converged"], "svi": ["finished"]}
    first = write_run(tmp_path / "a", {"nuts": [0.1], "svi": [0.2]}, further=distance(0), verdicts=good)
    bad = {"nuts": ["unconverged"], "svi": ["finished"]}
    second = write_run(tmp_path / "b", {"nuts": [0.1], "svi": [0.2]}, seeds=(1,), verdicts=bad)
    assert "to nuts" in set(join_runs([first])["set"])
    assert "reference" not in set(join_runs([first, second])["kind"])
    assert cells([first, second], "verdict")["nuts"] == "unconverged, 1 of 2"
    # nuts' distance to itself is the floor, so it is not the best.
    assert marks([first], "agreement", "to nuts") == {"nuts": "", "svi": ""}
    assert unconverged([read_finished(first)]) == ""
    sentence = unconverged([read_finished(first), read_finished(second)])
    assert sentence == "nuts is unconverged (wine, mlp, seed 1: as it was written)"
    with pytest.raises(UsageError, match="c has no reference, whose convergence is required: run it with one of nuts,"):
        unconverged([read_finished(write_run(tmp_path / "c", {"svi": [0.2]}))])


def distances(reference: str, *methods: str, value: float = 0.9) -> list[tuple]:
    """Rows of table.csv with the agreement of each method; the reference's own is the noise floor."""
    return [
        (0, method, "reference", "agreement", 0.99 if method == reference else value, 0.01, np.nan)
        for method in (reference, *methods)
    ]


def test_distances_to_different_references_stand_on_lines_of_their_own(tmp_path: Path) -> None:
    """One line of both would hold svi's distance to the posterior against bbb's distance to a biased sampler."""
    converged = {name: ["converged"] for name in ("nuts", "mclmc")}
    exact = write_run(
        tmp_path / "exact",
        {"nuts": [0.1], "svi": [0.2], "map": [0.3]},
        further=distances("nuts", "svi", "map"),
        verdicts=converged,
    )
    biased = write_run(
        tmp_path / "biased",
        {"mclmc": [0.1], "svi": [0.2], "bbb": [0.3]},
        further=distances("mclmc", "svi", "bbb", value=0.8),
        verdicts=converged,
    )
    both = [exact, biased]
    assert cells(both, "agreement, to nuts ↑") == {
        "nuts": "0.990 ±0.010",
        "svi": "0.900 ±0.010",
        "map": "0.900 ±0.010",
        "mclmc": "–",
        "bbb": "–",
    }
    to_mclmc = cells(both, "agreement, to mclmc ↑")
    assert {method: text.split()[0] for method, text in to_mclmc.items()} == {
        "nuts": "–",
        "svi": "0.800",
        "map": "–",
        "mclmc": "0.990",
        "bbb": "0.800",
    }
    assert marks(both, "agreement", "to mclmc") == {"mclmc": "", "svi": "best", "bbb": "best"}
    (block,) = lay_out(join_runs(both))
    (note,) = block.notes
    assert note.startswith("mclmc is unadjusted")
    assert "distances to mclmc hold this bias too" in note
    # only of the distances that are shown
    (block,) = lay_out(join_runs(both), ["nll"])
    assert block.notes == (note.partition(", so that")[0] + ".",)
    assert lay_out(join_runs([exact]))[0].notes == ()
    # where the one is unconverged, the distances to the other stay
    change(exact, "summary.json", "fits", "nuts", "0", "verdict", to="unconverged")
    joined = join_runs(both)
    assert set(joined.loc[joined["kind"] == "reference", "set"]) == {"to mclmc"}


def test_an_unadjusted_sampler_beside_nuts_is_compared_with_it(tmp_path: Path) -> None:
    values = {"mclmc": [0.1], "nuts": [0.1], "svi": [0.2]}
    verdicts = {name: ["converged"] for name in ("nuts", "mclmc")}
    rows = distances("nuts", "mclmc", "svi")
    run = write_run(tmp_path / "run", values, further=rows, verdicts=verdicts)
    assert read_finished(run).reference == "nuts"
    assert marks([run], "agreement", "to nuts") == {"nuts": "", "mclmc": "best", "svi": "best"}
    (block,) = lay_out(join_runs([run]))
    assert block.notes[0].endswith("its distance to nuts, beside the noise floor, shows how much.")


def test_a_run_of_before_references_were_recorded_was_held_against_nuts_alone(tmp_path: Path) -> None:
    old = write_run(tmp_path / "old", {"nuts": [0.1], "svi": [0.2]}, further=distances("nuts", "svi"))
    change(old, "summary.json", "reference", to=None)
    assert read_finished(old).reference == "nuts"
    assert "to nuts" in set(join_runs([old])["set"])
    other = write_run(tmp_path / "other", {"hmc": [0.1], "svi": [0.2]}, verdicts={"hmc": ["converged"]})
    assert unconverged([read_finished(other)]) == ""
    change(other, "summary.json", "reference", to=None)
    assert read_finished(other).reference is None
    with pytest.raises(UsageError, match=r"other has no reference, .*: run its command again, which now takes hmc"):
        unconverged([read_finished(other)])


def test_a_reference_that_failed_is_none_and_no_other_takes_its_place(tmp_path: Path) -> None:
    """Which method is the reference must not depend on a seed's luck."""
    run = write_run(tmp_path / "run", {"hmc": [0.1], "svi": [0.2]}, verdicts={"hmc": ["converged"]})
    change(run, "summary.json", "failed", to={"nuts": "seed 0 left the finite numbers"})
    change(run, "summary.json", "reference", to="nuts")
    assert unconverged([read_finished(run)]) == "nuts is unconverged (wine, mlp: it failed)"


def test_references_of_several_runs_are_each_named(tmp_path: Path) -> None:
    bad = {"hmc": ["unconverged"], "mclmc": ["unconverged"]}
    first = write_run(tmp_path / "a", {"hmc": [0.1], "mclmc": [0.1]}, verdicts=bad)
    second = write_run(tmp_path / "b", {"mclmc": [0.1]}, verdicts=bad, data="breast_cancer")
    assert unconverged([read_finished(first), read_finished(second)]) == (
        "hmc is unconverged (wine, mlp, seed 0: as it was written); "
        "mclmc is unconverged (breast_cancer, mlp, seed 0: as it was written)"
    )


@pytest.mark.parametrize(
    ("reference", "wanted"), [("gibbs", "summary.json has the reference gibbs"), (["nuts"], "is not what this version")]
)
def test_a_reference_that_the_run_does_not_have_is_refused(tmp_path: Path, reference: object, wanted: str) -> None:
    run = write_run(tmp_path / "run", {"nuts": [0.1], "svi": [0.2]})
    change(run, "summary.json", "reference", to=reference)
    with pytest.raises(UsageError, match=wanted):
        read_finished(run)


def test_distances_without_a_reference_are_refused(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {"svi": [0.1]}, further=distances("svi"))
    with pytest.raises(UsageError, match=r"table\.csv has distances where the run's reference is None"):
        read_finished(run)


# --- best and tied


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        # d = 0.10, 0.11, 0.12: 0.11 against a half width of 4.30 · 0.01 / √3 = 0.025
        ({"svi": [0.1, 0.2, 0.3], "bbb": [0.2, 0.31, 0.42]}, {"svi": "best", "bbb": ""}),
        # d = −0.1, 0.1, 0.3: 0.1 against 4.30 · 0.2 / √3 = 0.50
        ({"svi": [0.1, 0.2, 0.3], "bbb": [0.0, 0.3, 0.6]}, {"svi": "best", "bbb": "tied"}),
        # one seed, errors of 0.01 each: 1.96 · 0.01 · √2 = 0.0277
        ({"svi": [0.10], "bbb": [0.127]}, {"svi": "best", "bbb": "tied"}),
        ({"svi": [0.10], "bbb": [0.129]}, {"svi": "best", "bbb": ""}),
        ({"svi": [0.10]}, {"svi": ""}),
    ],
)
def test_within_noise_of_the_best_is_tied(tmp_path: Path, values: dict, wanted: dict) -> None:
    found = join_runs([write_run(tmp_path / "run", values)])
    for score in ("nll", "accuracy"):  # the one is better down, the other, 1 - nll, up
        line = found[found["score"] == score].drop_duplicates("method")
        assert dict(zip(line["method"], line["mark"], strict=True)) == wanted
    assert (found.loc[found["set"] == "fit", "mark"] == "").all()


@pytest.mark.parametrize(("error", "wanted"), [(0.004, ""), (0.006, "tied")])
def test_one_seed_is_judged_by_the_difference_paired_over_rows(tmp_path: Path, error: float, wanted: str) -> None:
    """0.01 apart: within the errors of 0.01 each, but what counts are 1.96 errors of the difference."""
    paired = [(0, "bbb", "minus svi", "nll", 0.01, error, np.nan)]
    run = write_run(tmp_path / "run", {"svi": [0.10], "bbb": [0.11]}, further=paired)
    assert marks([run]) == {"svi": "best", "bbb": wanted}
    assert marks([run], "nll", "minus svi") == {"bbb": ""}


def test_seeds_that_differ_by_the_same_by_chance_do_not_beat_the_rows_error(tmp_path: Path) -> None:
    """One more right answer at both seeds: no spread, and still no difference to be sure of."""
    paired = [(seed, "bbb", "minus svi", "nll", 0.01, 0.02, np.nan) for seed in (0, 1)]
    run = write_run(tmp_path / "run", {"svi": [0.10, 0.20], "bbb": [0.11, 0.21]}, further=paired)
    assert join_runs([run]).query("score == 'nll' and method == 'bbb'")["mark"].iloc[0] == "tied"


def test_methods_at_different_seeds_are_not_paired(tmp_path: Path) -> None:
    """Averages 0.15 ±0.05 and 0.25 ±0.05: 0.1 against 1.96 · 0.0707; paired by position they would differ for sure."""
    first = write_run(tmp_path / "a", {"svi": [0.1, 0.2]})
    second = write_run(tmp_path / "b", {"bbb": [0.2, 0.3]}, seeds=(2, 3))
    found = join_runs([first, second])
    assert set(found.loc[(found["method"] == "bbb") & (found["score"] == "nll"), "mark"]) == {"tied"}


# --- which runs share no table

SVI = {"svi": [0.2]}
BBB = {"bbb": [0.3]}

REFUSED: dict[str, tuple[dict, dict, str]] = {
    "prior": (
        {"options": {"model": ("prior=normal:1",)}},
        {},
        "prior is Normal(scale=1.0, fan_in_scaled=true) in the first and Normal(scale=3.0, fan_in_scaled=true) in the "
        "second",
    ),
    "model option": ({"options": {"model": ("widths=8",)}}, {}, "model option widths is [8] in the first and [16] in"),
    "temperature": ({}, {"options": {"bbb": ("temperature=0.5",)}}, "temperature is 1.0 in the first and 0.5 in"),
    "training rows": ({"rows": 60}, {}, "the number of training rows is 60 in the first and 142 in the second"),
    "test rows": ({"test_rows": 20}, {}, "the data's hash at seed 0 is"),
    "test rows at other seeds": ({"test_rows": 20}, {"seeds": (1,)}, "the number of rows of test is 20 in the first"),
    "tune": ({"tune": True, "seeds": (1,)}, {"rows": 113}, "tune is true in the first and false in the second"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_runs_that_share_too_little_are_refused(case: str, tmp_path: Path) -> None:
    one, other, wanted = REFUSED[case]
    folders = [write_run(tmp_path / "a", SVI, **one), write_run(tmp_path / "b", BBB, **other)]
    with pytest.raises(UsageError) as error:
        join_runs(folders)
    assert wanted in str(error.value)
    assert str(error.value).startswith(f"{tmp_path}/a and {tmp_path}/b cannot share a table: ")
    assert "\n" not in str(error.value)


CHANGED = {
    "likelihood": (("manifest.json", "model", "options", "likelihood"), "normal"),
    "precision": (("manifest.json", "precision"), "float64"),
    "splits": (("config.json", "splits"), "index.npz"),
    "the budget of each method": (("config.json", "budget"), {"amount": 300.0, "unit": "passes"}),
    "the data's hash at seed 0": (("manifest.json", "data_hash", "0"), "0123"),
    "held-out classes": (("summary.json", "sets", "held_out:2"), 59),
    "the gap's column": (("summary.json", "sets", "gap:hue"), 12),
}


@pytest.mark.parametrize("field", CHANGED)
def test_what_no_option_of_wine_changes_is_compared_as_well(field: str, tmp_path: Path) -> None:
    folders = [write_run(tmp_path / "a", SVI), write_run(tmp_path / "b", BBB)]
    assert len(lay_out(join_runs(folders))) == 1
    (file, *path), value = CHANGED[field]
    change(folders[1], file, *path, to=value)
    with pytest.raises(UsageError, match=re.escape(f"cannot share a table: {field} is ")):
        join_runs(folders)


def test_a_manifest_of_other_seeds_contradicts_its_run(tmp_path: Path) -> None:
    """As where a manifest was copied between runs: its hashes would be taken for those of the run's rows."""
    folder = write_run(tmp_path / "a", SVI)
    change(folder, "manifest.json", "data_hash", to={"3": "0123"})
    with pytest.raises(UsageError, match=r"manifest.json has data of seeds \[3\] where the run has \[0\]"):
        read_finished(folder)


def test_files_of_one_name_are_compared_by_path_where_no_seed_is_shared(tmp_path: Path) -> None:
    folders = [write_run(tmp_path / "a", SVI), write_run(tmp_path / "b", SVI, seeds=(1,))]
    change(folders[1], "config.json", "data", to="elsewhere/wine")
    with pytest.raises(UsageError, match='data is "wine" in the first and "elsewhere/wine" in the second'):
        join_runs(folders)


@pytest.mark.parametrize("seeds", [(0,), (1,)])
def test_a_method_of_two_settings_is_no_column(tmp_path: Path, seeds: tuple[int, ...]) -> None:
    """At the same seed, and at another: an average over both would be of no method. A --quick run is such a one."""
    whole = write_run(tmp_path / "whole", {"nuts": [0.1], "svi": [0.2]})
    quick = write_run(tmp_path / "quick", SVI, quick=True, seeds=seeds)
    with pytest.raises(UsageError, match="num_steps of svi is 20000 in the first and 1000 in the second"):
        join_runs([whole, quick])


def test_a_run_of_before_that_mixes_temperatures_is_refused(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", {"nuts": [0.1], "bbb": [0.2]})
    records = read_finished(folder).summary["fits"]["bbb"]
    change(folder, "summary.json", "fits", "bbb", to=[{**records[0], "temperature": 0.5}])
    with pytest.raises(UsageError, match=re.escape("run mixes temperatures: 1 for nuts and 0.5 for bbb")):
        join_runs([folder])


# --- folders that are no finished runs

DAMAGED = {
    "no manifest": ("manifest.json", None, "holds no finished run (manifest.json is not there)"),
    "no table": ("table.csv", None, "holds no finished run (table.csv is not there)"),
    "half a manifest": ("manifest.json", '{"model": {', "manifest.json cannot be read"),
    "a list": ("config.json", "[]", "is not what hmcvi compare writes"),
    "an older manifest": ("manifest.json", "{}", "does not say what its model was, as older versions did not"),
    "a request of other fields": ("config.json", "{}", "is not what hmcvi compare writes (KeyError: 'splits')"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_folder_is_named(case: str, tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", SVI)
    file, text, wanted = DAMAGED[case]
    if text is None:
        (folder / file).unlink()
    else:
        write_summed(folder / file, text)
    with pytest.raises(UsageError) as error:
        join_runs([folder])
    assert wanted in str(error.value)
    assert str(folder) in str(error.value)


def test_files_of_different_runs_in_one_folder_are_found_out(tmp_path: Path) -> None:
    folder, other = write_run(tmp_path / "a", {"svi": [0.1]}), write_run(tmp_path / "b", {"svi": [0.1], "bbb": [0.2]})
    for file, wanted in (
        ("table.csv", "table.csv has methods ['bbb', 'svi'] where the run has ['svi']"),
        ("summary.json", "summary.json has fits of {'svi': 1, 'bbb': 1} where manifest.json has methods ['svi']"),
    ):
        whole = (folder / file).read_bytes()
        write_summed(folder / file, (other / file).read_bytes())
        with pytest.raises(UsageError, match=re.escape(wanted)):
            read_finished(folder)
        write_summed(folder / file, whole)
    table = pd.read_csv(folder / "table.csv", dtype={"value": object})
    table.loc[0, "value"] = "high"
    write_summed(folder / "table.csv", table.to_csv(index=False))
    with pytest.raises(UsageError, match="values that are no numbers"):
        read_finished(folder)


def test_no_folder_is_asked_for_one() -> None:
    with pytest.raises(UsageError, match="no run was given"):
        join_runs([])
