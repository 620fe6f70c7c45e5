"""The benchmark of scaling: every case is measured on every number of devices, and ratios are those of a round."""

from __future__ import annotations

import dataclasses
import json
import sys

import pandas as pd
import pytest

from hmcvi.benchmarks import scaling


def test_quick_measures_every_case_on_every_number_of_devices(tmp_path, capsys):
    assert scaling.main(["--quick", "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    rates, table = (pd.read_csv(tmp_path / f"{name}.csv") for name in ("rates", "scaling"))
    cases = {(case, kind) for case in ("hmc, chains", "hmc, rows", "bbb, rows") for kind in ("strong", "weak")}
    for number in (1, 2):
        found = rates[rates["devices"] == number]
        assert set(zip(found["case"], found["kind"], strict=True)) == cases
        assert (found["rows a second"] > 0).all()
    assert (table[table["devices"] == 1]["speed-up"] == 1).all()
    assert all(case in printed for case, _ in cases)
    page = (tmp_path / "scaling.md").read_text()
    assert "| | 1 device | 2 devices |" in page
    assert sum(line.startswith("| hmc, ") or line.startswith("| bbb, ") for line in page.splitlines()) == len(cases)
    assert json.loads((tmp_path / "conditions.json").read_text())["size"]["rows"] == scaling.QUICK.rows


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--devices", "0"], "devices and rounds are whole numbers of at least 1"),
        (["--rounds", "0"], "devices and rounds are whole numbers of at least 1"),
        (["--devices", "1", "3"], "4 chains cannot be divided over 3 devices: give divisors of 4"),
        (["--quick", "--devices", "8"], "4 chains cannot be divided over 8 devices: give divisors of 4"),
        (["--devices", "2", "2"], "--devices 2 2 has a number twice: give each once"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_a_sentence(arguments, sentence, capsys, tmp_path):
    with pytest.raises(SystemExit) as stopped:
        scaling.main([*arguments, "--out", str(tmp_path / "out")], command=["false"])
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert sentence in said
    assert len(said.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_batches_are_divided_too(monkeypatch, capsys):
    monkeypatch.setattr(scaling, "QUICK", dataclasses.replace(scaling.QUICK, batch_size=18))
    with pytest.raises(SystemExit):
        scaling.main(["--quick", "--devices", "4"], command=["false"])
    assert "18 rows of a minibatch cannot be divided over 4 devices: give divisors of 18" in capsys.readouterr().err


FAILED = "ended with status 7: out of memory"

# In place of the measuring process: the rate is that of its devices; on 4 it fails.
PROCESS = """
import json, pathlib, sys
number = int(sys.argv[1])
before = pathlib.Path(sys.argv[0]).with_name("out") / "rates.csv"
with pathlib.Path(sys.argv[0]).with_name("rows_before").open("a") as file:
    file.write(f"{len(before.read_text().splitlines()) if before.exists() else 0}\\n")
if number == 4:
    print("some lines\\nout of memory", file=sys.stderr)
    sys.exit(7)
print("a line of its own")
print(json.dumps([{"case": "a", "kind": "weak", "devices": number, "rows a second": 10.0 * number}]))
"""


@pytest.fixture
def command(tmp_path):
    (tmp_path / "process.py").write_text(PROCESS)
    return [sys.executable, str(tmp_path / "process.py")]


def test_a_process_that_fails_is_a_row_and_the_others_are_measured(command, tmp_path, capsys):
    out = tmp_path / "out"
    status = scaling.main(["--quick", "--devices", "1", "4", "2", "--rounds", "2", "--out", str(out)], command=command)
    assert status == 1
    rates = pd.read_csv(out / "rates.csv", keep_default_na=False)
    assert rates["devices"].tolist() == [1, 4, 2, 2, 4, 1]  # as asked, also with --quick
    assert rates["failed"].tolist() == ["", FAILED, "", "", FAILED, ""]
    table = pd.read_csv(out / "scaling.csv")
    assert table[["devices", "speed-up"]].to_numpy().tolist() == [[1, 1], [2, 2]]
    # the files were written after each process: a line of names, and one of each process before
    assert (tmp_path / "rows_before").read_text().split() == ["0", "2", "3", "4", "5", "6"]
    assert f"4 devices failed: {FAILED}" in capsys.readouterr().err


def test_only_what_was_measured_in_full_is_published(command, tmp_path, capsys, monkeypatch):
    folders = ["--out", str(tmp_path / "out"), "--publish", str(tmp_path / "published")]
    scaling.main(["--rounds", "1", *folders], command=command)
    assert "- round 1, 4 devices: " + FAILED in (tmp_path / "out" / "scaling.md").read_text()
    monkeypatch.setattr(scaling, "DEVICES", (1, 2))
    monkeypatch.setattr(scaling, "ROUNDS", 2)
    assert scaling.main(["--rounds", "1", *folders], command=command) == 0
    assert scaling.main(["--devices", "1", *folders], command=command) == 0
    assert not (tmp_path / "published").exists()
    assert "published are 2 rounds on 1, 2 devices, none of which fails" in capsys.readouterr().err
    assert scaling.main(folders, command=command) == 0
    assert "| a, weak | 1.00 (1.00–1.00) | 2.00 (2.00–2.00) |" in (tmp_path / "published" / "scaling.md").read_text()
    assert json.loads((tmp_path / "published" / "conditions.json").read_text())["rounds"] == 2


def test_where_all_fail_that_is_told(command, tmp_path, capsys):
    assert scaling.main(["--devices", "4", "--rounds", "1", "--out", str(tmp_path / "out")], command=command) == 1
    assert "nothing was measured" in capsys.readouterr().out
    assert pd.read_csv(tmp_path / "out" / "rates.csv")["failed"].tolist() == [FAILED]
