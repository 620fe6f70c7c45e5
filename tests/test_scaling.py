"""The benchmark of scaling: every case is measured on every number of devices, and ratios are those of a round."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from hmcvi.benchmarks import scaling


def test_quick_measures_every_case_on_every_number_of_devices(tmp_path, capsys):
    scaling.main(["--quick", "--out", str(tmp_path)])
    printed = capsys.readouterr().out
    rates, table = (pd.read_csv(tmp_path / f"{name}.csv") for name in ("rates", "scaling"))
    cases = {(case, kind) for case in ("hmc, chains", "hmc, rows", "bbb, rows") for kind in ("strong", "weak")}
    for number in (1, 2):
        found = rates[rates["devices"] == number]
        assert set(zip(found["case"], found["kind"], strict=True)) == cases
        assert (found["rows a second"] > 0).all()
    assert (table[table["devices"] == 1]["speed-up"] == 1).all()
    assert all(case in printed for case, _ in cases)
    assert json.loads((tmp_path / "conditions.json").read_text())["size"]["rows"] == scaling.QUICK.rows


def test_no_devices_are_refused(capsys):
    with pytest.raises(SystemExit):
        scaling.main(["--devices", "0"])
    assert "whole numbers of at least 1" in capsys.readouterr().err
