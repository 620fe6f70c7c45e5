"""NumPy and JAX arrays as data, how the task is settled, and memory that is asked for before it is taken."""

from __future__ import annotations

import zipfile

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from hmcvi.benchmarks import experiment as experiments
from hmcvi.benchmarks import memory
from hmcvi.benchmarks.datasets import DataError, arrays, load
from hmcvi.benchmarks.experiment import Experiment, UsageError
from hmcvi.inference import memory as inference_memory

GENERATOR = np.random.default_rng(0)
X = GENERATOR.normal(size=(60, 3))
Y = X @ [1.0, 2.0, 3.0]


def test_numpy_and_jax_arrays_give_the_same_data_set():
    ours, theirs = (load(arrays(x, y), seed=0) for x, y in ((X.astype(np.float32), Y), (jnp.asarray(X), Y)))
    assert ours.data_hash == theirs.data_hash
    assert ours.feature_names == ("x0", "x1", "x2")
    assert ours.task == "regression"


def test_a_test_part_of_ones_own_is_kept():
    dataset = load(arrays(X[:50], Y[:50], x_test=X[50:], y_test=Y[50:], name="mine"), seed=3)
    np.testing.assert_allclose(dataset.x_test * dataset.feature_scale + dataset.feature_loc, X[50:], atol=1e-5)
    assert len(dataset.x_train) == 50
    assert dataset.name == "mine"


def test_flattened_images_are_brightness_and_a_table_of_bytes_is_scaled_as_any_other():
    pixels = GENERATOR.integers(0, 256, (40, 6, 5), dtype=np.uint8)
    flat, square = (load(arrays(pixels, np.arange(40) % 2), seed=0, image=image) for image in (False, None))
    assert square.x_train.dtype == np.uint8
    np.testing.assert_allclose(flat.x_train, square.x_train.reshape(len(square.x_train), 30) / 255, rtol=1e-6)
    table = load(arrays(pixels.reshape(40, 30), np.arange(40) % 2), seed=0, image=None)
    np.testing.assert_allclose(table.x_train.mean(axis=0), 0, atol=1e-6)


def test_a_data_frame_keeps_the_names_of_its_columns():
    frame = pd.DataFrame(X, columns=["area", "rooms", "age"])
    dataset = load(arrays(frame, pd.Series(Y)), seed=0)
    assert dataset.feature_names == ("area", "rooms", "age")
    assert dataset.description == "60 rows from arrays, 3 features."


def test_byte_images_stay_bytes_and_three_dimensions_are_grey_images():
    pixels = GENERATOR.integers(0, 256, (40, 6, 5), dtype=np.uint8)
    dataset = load(arrays(pixels, np.arange(40) % 2), seed=0, image=True)
    assert dataset.image_shape == (6, 5, 1)
    assert dataset.x_train.dtype == np.uint8
    words = np.array(["cat", "dog"] * 20, dtype=object)
    assert load(arrays(pixels, words), seed=0).class_names == ("cat", "dog")


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"x": X[:, :, None, None, None]}, r"x has shape \(60, 3, 1, 1, 1\), but \(row, feature\)"),
        ({"x": X[:, 0]}, r"x has shape \(60,\), but \(row, feature\) is wanted"),
        ({"x": np.full((60, 4, 4), 7.0)}, r"images of dtype float64 with values from 7 to 7, but uint8, or brightness"),
        ({"x": np.zeros((60, 3, 9, 9), np.uint8)}, r"looks like \(row, channel, height, width\), so pass x.transpose"),
        ({"x": np.zeros((60, 9, 9, 9), np.uint8)}, r"at most 4 channels is wanted: reshape it"),
        ({"x_test": X}, r"only one of x_test and y_test was given"),
        ({"x_test": X[:, :2], "y_test": Y}, r"x_test has rows of shape \(2,\) and dtype float64, but x has \(3,\)"),
        ({"x_test": X, "y_test": np.array(["a"] * 60)}, r"y holds float64 and y_test <U1"),
        ({"name": "digits"}, r"the arrays are named 'digits', as a data set is already: pass arrays\(\) another name"),
        ({"x": X * np.array([1, 1e300, 1])}, r"'x1' is too large or too small in size to be standardised"),
        ({"x": X * np.array([1, 1, 1e-320])}, r"'x2' is too large or too small"),
        ({"y": Y * 1e300}, r"'the target' is too large"),
        ({"feature_names": ("a",)}, r"1 feature names were given for 3 columns"),
        ({"x": np.where(X > 2, np.nan, X)}, r"x holds nan in row \d+, index \(\d,\)"),
    ],
)
def test_arrays_that_cannot_be_learned_from_say_why(given, sentence):
    with pytest.raises(DataError, match=sentence):
        load(arrays(**{"x": X, "y": Y, **given}), seed=0)


@pytest.mark.parametrize(
    ("y", "asked", "task", "said"),
    [
        (np.arange(60) % 3, None, "classification", "The target has 3 whole-number values: taken for a classification"),
        (np.arange(60) % 3, "regression", "regression", None),
        (Y, None, "regression", "The target has 60 different numbers: taken for a regression"),
        (np.array(["a", "b"] * 30), None, "classification", "The target is text with 2 values"),
    ],
)
def test_an_inferred_task_is_said_and_a_given_one_is_not(y, asked, task, said):
    dataset = load(arrays(X, y), seed=0, task=asked)
    assert dataset.task == task
    assert [note for note in dataset.notes if said is None or said in note] == list(dataset.notes)
    assert len(dataset.notes) == (said is not None)


def test_a_constant_column_is_kept_harmless_and_named():
    x = X.copy()
    x[:, 1] = 0.1
    dataset = load(arrays(x, Y), seed=0)
    assert (dataset.x_train[:, 1] == 0).all()
    assert "Constant on the training rows, so of no use: x1." in dataset.notes


def test_experiments_say_what_data_may_be(tmp_path):
    np.savez(tmp_path / "a.npz", x=X, y=Y)
    assert Experiment(data=tmp_path / "a.npz", ood=()).load(0)[0].name == "a.npz"
    for data in (X, (X, Y)):
        with pytest.raises(UsageError, match=r"give a name, a file's path, or arrays\(x, y\)"):
            Experiment(data=data)
    with pytest.raises(UsageError, match=r"OOD set noise was given twice"):
        Experiment(ood=("noise", "noise"))
    with pytest.raises(UsageError, match=r"a.npz is the data set itself"):
        Experiment(data=str(tmp_path / "a.npz"), ood=(f"{tmp_path}/../{tmp_path.name}/a.npz",)).load(0)
    names = [s.name for s in Experiment(ood=("blur@3", "noise"), shifts=("blur",)).load(0)[1]]
    assert names == ["noise", "blur@1", "blur@2", "blur@3", "blur@4", "blur@5"]
    with pytest.raises(DataError, match=r"rows='50', but a whole number is wanted"):
        load("digits", seed=0, rows="50")


def test_rows_to_score_are_bounded_and_the_number_is_said(monkeypatch):
    monkeypatch.setattr(experiments, "MOST_TEST_ROWS", 30)
    for tune in (False, True):
        data, _ = Experiment(data="wine", tune=tune, ood=("held_out:0",)).load(0)
        scored = 19 if tune else 24
        assert len(data.x_test) == scored  # fewer than the bound: all
    data, foreign = Experiment(data="digits", tune=True, ood=("held_out:8,9",)).load(0)
    assert (len(data.x_test), foreign[0].num_rows) == (30, 30)
    assert any(note.startswith("30 of 231 rows are scored") for note in data.notes)


def test_experiments_take_arrays_and_tell_them_apart():
    ours, same, other = (Experiment(data=arrays(X, y)).configuration()["data"] for y in (Y, Y.copy(), Y + 1))
    assert ours == same != other
    data, foreign = Experiment(data=arrays(X, Y, name="mine"), ood=("gap:x1",)).load(0)
    assert (data.name, data.gap[0], foreign[0].num_rows) == ("mine", "x1", 20)


# --- memory


def test_memory_is_the_least_of_the_machine_and_its_container(tmp_path, monkeypatch):
    (tmp_path / "memory.max").write_text("1000000\n")
    (tmp_path / "memory.current").write_text("400000\n")
    monkeypatch.setattr(inference_memory, "CGROUP", tmp_path)
    assert memory.available_bytes() == 600_000
    (tmp_path / "memory.max").write_text("max\n")  # no limit: the machine's own memory counts
    assert memory.available_bytes() > 2**20
    memory.require(1000, name="small", advice="")
    with pytest.raises(DataError, match=r"large needs about 931.3 GiB of memory and [\d.]+ GiB are free.*: keep fewer"):
        memory.require(1e12, name="large", advice="keep fewer rows")


@pytest.mark.parametrize("suffix", [".npz", ".csv", ".parquet"])
def test_a_file_that_does_not_fit_is_refused_before_it_is_read(tmp_path, monkeypatch, suffix):
    path = tmp_path / f"big{suffix}"
    table = pd.DataFrame(GENERATOR.normal(size=(2000, 20)), columns=[f"c{i}" for i in range(20)])
    if suffix == ".npz":
        np.savez(path, x=table.to_numpy(), y=table["c0"].to_numpy())
    elif suffix == ".csv":
        table.to_csv(path, index=False)
    else:
        table.to_parquet(path)
    target = None if suffix == ".npz" else "c0"
    load(path, seed=0, target=target)
    monkeypatch.setattr(memory, "available_bytes", lambda: 2000 * 20 * 8)
    for reader in ("numpy.load", "pandas.read_csv", "pandas.read_parquet"):
        monkeypatch.setattr(reader, None)  # would be called if the size were not asked for first
    with pytest.raises(DataError, match=f"big{suffix} needs about 0.0 GiB .*: keep fewer rows or columns in the file"):
        load(path, seed=0, target=target)


def test_copies_of_byte_images_are_asked_for_too(monkeypatch):
    raw = arrays(GENERATOR.integers(0, 256, (200, 20, 20), dtype=np.uint8), np.arange(200) % 4)
    load(raw, seed=0, image=True, held_out_classes=(3,))
    monkeypatch.setattr(memory, "available_bytes", lambda: 50_000)
    with pytest.raises(DataError, match=r"arrays needs about .* keep fewer rows"):
        load(raw, seed=0, image=True, held_out_classes=(3,))


def test_a_header_that_claims_more_than_there_is_memory_is_refused(tmp_path):
    """A hundred bytes on disk that would take 800 TB."""
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w") as archive:
        for name, shape in (("x", (10**8, 10**6)), ("y", (10**8,))):
            with archive.open(f"{name}.npy", "w") as file:
                np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": shape})
    with pytest.raises(DataError, match=r"bomb.npz needs about [\d,]+\.\d GiB of memory"):
        load(tmp_path / "bomb.npz", seed=0)


def test_predictions_that_do_not_fit_are_refused_before_anything_is_fitted(monkeypatch):
    monkeypatch.setattr(memory, "available_bytes", lambda: 2**21)
    with pytest.raises(DataError, match=r"Predictions of 3 methods at 720 rows needs.* keep fewer test rows"):
        Experiment(data="digits", ood=("noise",)).load(0)
