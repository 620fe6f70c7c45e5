"""Splits: given, published or drawn; validation rows; and that test rows are read by scores alone."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from functools import partial

import jax
import numpy as np
import pytest

from hmcvi.benchmarks.datasets import DataError, arrays, load
from hmcvi.benchmarks.experiment import Experiment
from hmcvi.benchmarks.split_files import read_splits
from hmcvi.inference import SVI, BayesByBackprop, fit
from hmcvi.models import mlp

GENERATOR = np.random.default_rng(0)
X = GENERATOR.normal(size=(60, 3))
Y = (X[:, 0] > 0).astype(int)
TRAIN, VALIDATION, TEST = np.arange(0, 40), np.arange(40, 50), np.arange(50, 60)


def numbers(rows, raw):
    """Which rows these are, by their first column in its own unit."""
    return [int(np.flatnonzero(np.isclose(X[:, 0], value, atol=1e-5))[0]) for value in raw.feature_loc[0] + rows]


def of(dataset, part):
    return numbers(getattr(dataset, f"x_{part}")[:, 0] * dataset.feature_scale[0], dataset)


def write_splits(folder, kind):
    parts = {"train": TRAIN, "validation": VALIDATION, "test": TEST}
    if kind == "npz":
        np.savez(folder / "s.npz", **parts)
        return folder / "s.npz"
    if kind == "json":
        (folder / "s.json").write_text(json.dumps({name: rows.tolist() for name, rows in parts.items()}))
        return folder / "s.json"
    if kind == "mapping":
        return parts
    for name, rows in parts.items():
        np.savetxt(folder / f"index_{name}_7.txt", rows)  # "1.2e+01", as the published UCI files have it
    return folder / "index_{part}_{seed}.txt"


def test_damaged_split_files_are_refused_as_what_they_are(tmp_path):
    np.savez_compressed(tmp_path / "s.npz", train=TRAIN, test=TEST)
    whole = (tmp_path / "s.npz").read_bytes()
    generator = np.random.default_rng(0)
    for _ in range(200):
        damaged = bytearray(whole)
        damaged[generator.integers(len(whole))] ^= int(generator.integers(1, 256))
        (tmp_path / "s.npz").write_bytes(damaged)
        with contextlib.suppress(DataError):
            load(arrays(X, Y), seed=0, splits=tmp_path / "s.npz")
    np.save(tmp_path / "one.npy", TRAIN)
    (tmp_path / "one.npy").rename(tmp_path / "one.npz")
    with pytest.raises(DataError, match=r"one.npz holds a single array: write it with np.savez\(path, train=train"):
        read_splits(tmp_path / "one.npz", seed=0)


@pytest.mark.parametrize("kind", ["npz", "json", "mapping", "text"])
def test_published_splits_are_kept_row_by_row(tmp_path, kind):
    dataset = load(arrays(X, Y), seed=7, splits=write_splits(tmp_path, kind))
    assert of(dataset, "train") == TRAIN.tolist()
    assert of(dataset, "validation") == VALIDATION.tolist()
    assert of(dataset, "test") == TEST.tolist()
    np.testing.assert_array_equal(dataset.y_test, Y[TEST])
    np.testing.assert_allclose(dataset.feature_loc, X[TRAIN].mean(axis=0))  # of the training rows alone


@pytest.mark.parametrize(
    ("parts", "sentence"),
    [
        ({"train": [0, 1, 2], "test": [2, 3]}, r"overlap: row 2 \(one of 1\) is in train and in test: give every row"),
        ({"train": [0, 1], "validation": [5, 6], "test": [6]}, r"row 6 .* is in validation and in test"),
        ({"train": [0, 1, 1], "test": [3]}, r"row 1 twice in train"),
        ({"train": [0, 60], "test": [3]}, r"row 60 in train, but its 60 rows are counted from 0 to 59"),
        ({"train": np.arange(1, 50), "test": np.arange(50, 61)}, r"row 60 in test, but its 60 rows are counted"),
        ({"train": [-1], "test": [3]}, r"row -1 in train"),
        ({"train": [0, 1]}, r"no test rows: give row numbers for train and test"),
        ({"train": [0, 1], "test": []}, r"no test rows"),
        ({"train": [0, 1], "test": [3], "valid": [4]}, r"a part 'valid': train, test and validation are wanted"),
        ({"train": [0.5, 1], "test": [3]}, r"splits\['train'\] holds float64 of shape \(2,\): a list of whole"),
        ({"train": ["a"], "test": [3]}, r"splits\['train'\] holds <U1"),
        ({"train": [0, [1, 2]], "test": [3]}, r"splits\['train'\] holds lists within lists"),
        ({"train": [0, np.inf], "test": [3]}, r"splits\['train'\] holds inf: a list of whole row numbers"),
        ({"train": [0, 1e30], "test": [3]}, r"splits\['train'\] holds 1e\+30"),
        ({"train": [[0, 1]], "test": [3]}, r"shape \(1, 2\): a list of whole row numbers is wanted"),
    ],
)
def test_splits_that_cannot_be_say_which_row(parts, sentence):
    with pytest.raises(DataError, match=sentence):
        load(arrays(X, Y), seed=0, splits=parts)


def test_split_files_that_cannot_be_read_are_named(tmp_path):
    for name, text, sentence in (
        ("a.json", "[1, 2]", r"a.json holds no object"),
        ("b.json", "{", r"b.json cannot be read as .json"),
        ("c.npz", "no zip", r"c.npz is no .npz file"),
        ("d.csv", "1\n2\n", r"is no .npz and no .json file"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(DataError, match=sentence):
            read_splits(tmp_path / name, seed=0)
    with pytest.raises(DataError, match=r"there is no file of splits .*gone.npz"):
        read_splits(tmp_path / "gone.npz", seed=0)
    with pytest.raises(DataError, match=r"there is no file of splits .*i_train_0.txt .*check the path"):
        read_splits(tmp_path / "i_{part}_{seed}.txt", seed=0)
    (tmp_path / "i_train_0.txt").write_text("1\ntwo\n")
    with pytest.raises(DataError, match=r"i_train_0.txt: could not convert string to float: 'two', but one row number"):
        read_splits(tmp_path / "i_{part}_{seed}.txt", seed=0)
    np.savez(tmp_path / "p.npz", train=np.array([{}], dtype=object), test=[1])
    with pytest.raises(DataError, match=r"p.npz holds pickled Python objects, which are never loaded"):
        read_splits(tmp_path / "p.npz", seed=0)


def test_a_label_that_no_training_row_has_is_refused_and_may_be_held_out():
    labels = np.array(["cat", "dog"] * 25 + ["eel"] * 10)
    parts = {"train": TRAIN, "test": np.arange(40, 60)}
    with pytest.raises(
        DataError, match=r"class eel is in 10 of the rows to score and in no training row: .*held_out:eel"
    ):
        load(arrays(X, labels), seed=0, splits=parts)
    held = load(arrays(X, labels), seed=0, splits=parts, held_out_classes=("eel",))
    assert (len(held.x_train), len(held.x_test), len(held.x_held_out)) == (40, 10, 10)
    assert held.class_names == ("cat", "dog")


def test_validation_rows_come_from_the_training_rows_and_leave_the_test_rows_alone():
    whole = load("digits", seed=0)
    part = load("digits", seed=0, validation_fraction=0.25)
    np.testing.assert_array_equal(part.x_test, whole.x_test)
    assert len(part.x_train) + len(part.x_validation) == len(whole.x_train)
    assert {row.tobytes() for row in part.x_train} | {row.tobytes() for row in part.x_validation} == {
        row.tobytes() for row in whole.x_train
    }
    counts = np.bincount(part.y_validation)
    assert counts.max() - counts.min() <= 2  # stratified
    assert len(whole.x_validation) == 0
    with pytest.raises(DataError, match=r"without validation rows: pass validation_fraction=0.2"):
        whole.for_tuning()


def test_a_declared_class_without_rows_hinders_no_split():
    raw = dataclasses.replace(arrays(X, Y), class_names=("no", "yes", "never"), task="classification")
    for options in ({}, {"validation_fraction": 0.2}):
        data = load(raw, seed=0, **options)
        assert data.class_names == ("no", "yes", "never")
        assert set(data.y_train) == set(data.y_test) == {0, 1}


def test_for_tuning_the_test_rows_are_nowhere_in_the_data_set():
    experiment = Experiment(data="digits", ood=("held_out:8,9", "contrast"), tune=True)
    tuned, foreign = experiment.load(0)
    known = load("digits", seed=0, held_out_classes=(8, 9))
    test_rows = {row.tobytes() for row in known.x_test}
    for field in ("x_train", "x_test", "x_validation"):
        assert not test_rows & {row.tobytes() for row in getattr(tuned, field)}
    assert tuned.scored_on == "validation"
    assert foreign[1].description.startswith("The validation rows")
    assert foreign[1].num_rows == len(tuned.x_test)


@pytest.mark.parametrize(
    "method",
    [
        SVI(num_steps=6000, num_draws=10),  # enough for the plateau rule to stop it early
        BayesByBackprop(num_steps=6000, num_draws=10),
    ],
    ids=lambda method: method.name,
)
def test_no_fit_depends_on_test_rows(method):
    """Other test rows, other test labels: the same scaling, draws, losses and stopping step, bit for bit.

    Only training rows are handed to `fit`; this holds the whole way from the data set to the fit to it.
    """
    other_x, other_y = X.copy(), Y.copy()
    other_x[TEST] *= 100
    other_y[TEST] = 1 - Y[TEST]
    fits = []
    for x, y in ((X, Y), (other_x, other_y)):
        data = load(arrays(x, y, task="classification"), seed=0, splits={"train": TRAIN, "test": TEST})
        fits.append(
            fit(jax.random.key(0), partial(mlp, widths=(4,), num_classes=2), data.x_train, data.y_train, method)
        )
    ours, theirs = fits
    for site, draws in ours.draws.items():
        np.testing.assert_array_equal(draws, theirs.draws[site])
    np.testing.assert_array_equal(ours.losses, theirs.losses)
    assert ours.finished
    assert len(ours.losses) < method.num_steps  # stopped early, by what only training rows say


def test_a_gap_takes_the_middle_third_of_a_column_out_and_keeps_its_targets():
    dataset = load("diabetes", seed=0, gap="bmi")
    column = dataset.feature_names.index("bmi")
    unit = lambda x: x[:, column] * dataset.feature_scale[column] + dataset.feature_loc[column]  # noqa: E731
    name, low, high = dataset.gap
    assert name == "bmi"
    seen = np.concatenate([unit(dataset.x_train), unit(dataset.x_test)])
    held = unit(dataset.x_held_out)
    assert not ((seen > low + 1e-3) & (seen < high - 1e-3)).any()
    assert ((held > low - 1e-3) & (held < high + 1e-3)).all()
    assert len(seen) + len(held) == 442
    assert 0.28 < len(held) / 442 < 0.34  # a third, less ties at its ends
    targets = dataset.y_held_out * dataset.target_scale + dataset.target_loc
    everything = load("diabetes", seed=0)
    whole = np.concatenate([everything.y_train, everything.y_test]) * everything.target_scale + everything.target_loc
    assert np.isin(np.round(targets), np.round(whole)).all()


def test_gaps_that_cannot_be_left_say_why():
    with pytest.raises(DataError, match=r"diabetes has no column 'weight' to leave a gap in: its columns are age, sex"):
        load("diabetes", seed=0, gap="weight")
    with pytest.raises(DataError, match=r"digits holds images: hold classes out instead"):
        load("digits", seed=0, gap="age")
    with pytest.raises(DataError, match=r"no row lies in the middle third of 'sex' \(1 to 2\)"):
        load("diabetes", seed=0, gap="sex")
    with pytest.raises(DataError, match=r"a gap and held-out classes were asked for"):
        load("wine", seed=0, gap="alcohol", held_out_classes=(0,))


def test_the_wave_has_a_gap_of_its_own_with_targets_from_its_curve():
    wave = load("wave", seed=0)
    assert wave.gap == ("x", -0.7, 0.5)
    x = wave.x_held_out[:, 0] * wave.feature_scale[0] + wave.feature_loc[0]
    y = wave.y_held_out * wave.target_scale + wave.target_loc
    residual = y - np.cos(4 * x + 0.8)
    # 200 residuals of sd 0.1: the sd's own error is 0.005, so four of them (false alarm 6e-5)
    assert abs(residual.std() - 0.1) < 0.02
    assert (len(wave.x_train), len(wave.x_test), len(x)) == (100, 200, 200)
    assert ((x > -0.7) & (x < 0.5)).all()
