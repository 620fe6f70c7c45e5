"""The user's own files: all three kinds come back whole, and each unusable one is told why."""

import pickle

import numpy as np
import pandas as pd
import pytest

from hmcvi.benchmarks.datasets import DataError, load


def row_set(x):
    return {row.tobytes() for row in x}


def write_npz(path, x, y):
    np.savez(path, x=x, y=y)
    return path


@pytest.fixture
def table():
    generator = np.random.default_rng(0)
    frame = pd.DataFrame({"area": generator.normal(50, 9, 60), "rooms": generator.integers(1, 6, 60)})
    frame["price"] = 3.5 * frame["area"] + generator.normal(0, 5, 60)
    frame["kind"] = np.where(frame["area"] > 50, "house", "flat")
    return frame


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize("target", ["price", "kind"])
def test_tables_round_trip(tmp_path, table, suffix, target):
    path = tmp_path / f"homes{suffix}"
    wanted = table.drop(columns="kind") if target == "price" else table.drop(columns="price")
    wanted.to_csv(path, index=False) if suffix == ".csv" else wanted.to_parquet(path)
    dataset = load(path, seed=0, target=target)
    assert dataset.name == path.name
    assert dataset.feature_names == ("area", "rooms")
    x = np.concatenate([dataset.x_train, dataset.x_test]) * dataset.feature_scale + dataset.feature_loc
    order, expected = np.argsort(x[:, 0]), table.sort_values("area")
    np.testing.assert_allclose(x[order], expected[["area", "rooms"]], rtol=1e-5, atol=1e-5)
    y = np.concatenate([dataset.y_train, dataset.y_test])[order]
    if target == "price":
        assert dataset.task == "regression"
        back = y * dataset.target_scale + dataset.target_loc
        np.testing.assert_allclose(back, expected["price"], rtol=1e-4, atol=1e-3)
    else:
        assert dataset.class_names == ("flat", "house")
        assert [dataset.class_names[label] for label in y] == expected["kind"].tolist()


def test_npz_images_round_trip(tmp_path):
    x = np.random.default_rng(0).integers(0, 256, (40, 5, 4), dtype=np.uint8)
    y = np.array(["cat", "dog"] * 20)
    dataset = load(write_npz(tmp_path / "pets.npz", x, y), seed=0, image=True)
    assert dataset.image_shape == (5, 4, 1)
    assert dataset.class_names == ("cat", "dog")
    assert dataset.x_train.dtype == dataset.x_test.dtype == np.uint8  # a quarter of the size, until used
    assert row_set(np.concatenate([dataset.x_train, dataset.x_test])[..., 0]) == row_set(x)
    halves = load(write_npz(tmp_path / "f.npz", x[..., None] / np.float32(255), y), seed=0)
    np.testing.assert_allclose(halves.x_test, dataset.x_test.reshape(len(dataset.x_test), 20) / 255, rtol=1e-6)


@pytest.mark.parametrize(
    ("y", "task"),
    [
        (np.arange(100) % 3, "classification"),
        (np.arange(100) % 3 + 5.0, "classification"),
        (np.arange(100) % 2 == 0, "classification"),
        (np.array(["a", "b"] * 50), "classification"),
        (np.arange(100) % 40, "regression"),  # 40 values in 100 rows are counts, not labels
        (np.arange(100) / 7, "regression"),
    ],
)
def test_the_task_is_read_off_the_targets(tmp_path, y, task):
    path = write_npz(tmp_path / "a.npz", np.arange(200.0).reshape(100, 2), y)
    assert load(path, seed=0).task == task


def test_numeric_labels_keep_their_names_and_are_held_out_by_them(tmp_path):
    path = write_npz(tmp_path / "a.npz", np.arange(90.0)[:, None], np.repeat([-1, 5, 7], 30))
    assert load(path, seed=0).class_names == ("-1", "5", "7")
    assert load(path, seed=0, held_out_classes=(5,)).class_names == ("-1", "7")
    with pytest.raises(DataError, match="has no class 1 to hold out: its classes are -1, 5, 7"):
        load(path, seed=0, held_out_classes=(1,))
    assert load(path, seed=0, task="regression").task == "regression"


X, Y = np.arange(40.0).reshape(20, 2), np.arange(20) % 2


def with_entry(array, index, value):
    changed = array.astype(float)
    changed[index] = value
    return changed


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({"x": X}, r"has no array 'y' \(it has x\): write it with np\.savez"),
        (
            {"x": with_entry(X, (7, 1), np.nan), "y": Y},
            r"x holds nan in row 7, column 'x1'|x holds nan in row 7",
        ),
        ({"x": with_entry(X, (3, 0), -np.inf), "y": Y}, r"x holds -inf in row 3"),
        ({"x": X, "y": with_entry(Y, 4, np.inf)}, r"y holds inf in row 4"),
        ({"x": X, "y": Y[:, None]}, r"y has shape \(20, 1\), .* pass y\[:, 0\]"),
        ({"x": X, "y": np.eye(20)}, r"y has shape \(20, 20\), .* y\.argmax\(axis=1\)"),
        ({"x": X[:, 0], "y": Y}, r"x has shape \(20,\), .* pass x\[:, None\]"),
        ({"x": X[:19], "y": Y}, r"x has 19 rows and y has 20"),
        ({"x": X[:0], "y": Y[:0]}, r"x is empty \(shape \(0, 2\)\)"),
        ({"x": X * 1j, "y": Y}, r"x has dtype complex128, but real numbers are wanted"),
        (
            {"x": X.reshape(20, 1, 2) * 9, "y": Y},
            r"values from 0 to 351, but uint8, or brightness from 0 to 1",
        ),
        ({"x": X.reshape(20, 1, 1, 1, 2), "y": Y}, r"x has shape \(20, 1, 1, 1, 2\), but \(row, feature\)"),
        ({"x": X, "y": np.zeros(20, int)}, r"has 1 class \(0\), but at least 2 are wanted"),
        ({"x": X, "y": np.array(["a"] * 19 + ["b"])}, r"class b has 1 row, but 2 are wanted"),
    ],
)
def test_arrays_that_cannot_be_used_say_why(tmp_path, arrays, sentence):
    path = tmp_path / "a.npz"
    np.savez(path, **arrays)
    with pytest.raises(DataError, match=sentence):
        load(path, seed=0)


def test_tasks_that_the_targets_do_not_allow_are_refused(tmp_path):
    path = write_npz(tmp_path / "a.npz", X, Y + 0.25)
    with pytest.raises(DataError, match=r"the target is 0.25 in row 0 .* pass --task regression .* or relabel"):
        load(path, seed=0, task="classification")
    path = write_npz(tmp_path / "b.npz", X, np.array(["a", "b"] * 10))
    with pytest.raises(DataError, match=r"the target is text \('a', \.\.\.\), which no regression can predict"):
        load(path, seed=0, task="regression")
    with pytest.raises(DataError, match=r"target 'y' names a table's column, but b.npz holds x and y"):
        load(path, seed=0, target="y")


def test_pickled_objects_are_refused_and_never_run(tmp_path):
    class Touch:
        def __reduce__(self):
            return (open, (str(tmp_path / "touched"), "w"))

    np.savez(tmp_path / "a.npz", x=X, y=np.array([Touch()] * 20, dtype=object))
    (tmp_path / "b.npz").write_bytes(pickle.dumps(Touch()))
    with pytest.raises(DataError, match=r"a\.npz holds pickled Python objects, which are never loaded"):
        load(tmp_path / "a.npz", seed=0)
    with pytest.raises(DataError, match=r"b\.npz is no .npz file, and a pickle is never loaded"):
        load(tmp_path / "b.npz", seed=0)
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize("suffix", [".npz", ".parquet", ".csv"])
def test_damage_anywhere_is_a_sentence_and_never_another_error(tmp_path, suffix):
    """Two hundred files with one byte changed, and some cut short: each is read, or refused as what it is."""
    path = tmp_path / f"a{suffix}"
    table = pd.DataFrame({"a": X[:, 0], "b": X[:, 1], "y": Y})
    if suffix == ".npz":
        np.savez_compressed(path, x=X, y=Y)
    elif suffix == ".csv":
        table.to_csv(path, index=False)
    else:
        table.to_parquet(path)
    whole = path.read_bytes()
    generator = np.random.default_rng(0)
    refused = 0
    for case in range(200):
        damaged = bytearray(whole)
        damaged[generator.integers(len(whole))] ^= int(generator.integers(1, 256))
        path.write_bytes(damaged if case % 4 else whole[: generator.integers(len(whole))])
        try:
            load(path, seed=0, target=None if suffix == ".npz" else "y")
        except DataError:
            refused += 1
    assert refused > 50


def test_text_among_the_numbers_of_a_target_is_named_by_row_and_column(tmp_path):
    frame = pd.DataFrame({"a": np.arange(30.0), "price": [str(value) for value in np.arange(30) / 7]})
    frame.loc[17, "price"] = "abc"
    frame.to_csv(tmp_path / "a.csv", index=False)
    with pytest.raises(DataError, match=r"the target column 'price' holds 'abc' in row 17 .*not a number as most"):
        load(tmp_path / "a.csv", seed=0, target="price")


def test_two_columns_of_one_name_are_refused(tmp_path):
    frame = pd.DataFrame(np.arange(60.0).reshape(20, 3), columns=["a", "b", "y"])
    frame.columns = ["a", "a", "y"]
    table = __import__("pyarrow").table([frame.iloc[:, i].to_numpy() for i in range(3)], names=["a", "a", "y"])
    __import__("pyarrow.parquet").parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a.parquet (has two columns 'a'|cannot be read)"):
        load(tmp_path / "a.parquet", seed=0, target="y")


@pytest.mark.parametrize("suffix", [".npz", ".csv", ".parquet"])
def test_damaged_and_absent_files_are_named(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    with pytest.raises(DataError, match=rf"there is no file .*a\{suffix}"):
        load(path, seed=0, target=None)
    path.write_bytes({".npz": b"PK\x03\x04 cut short", ".csv": b"", ".parquet": b"PAR1 cut short"}[suffix])
    with pytest.raises(DataError, match=rf"a\{suffix} cannot be read as \{suffix} .* it may be damaged"):
        load(path, seed=0)


def test_other_kinds_of_file_are_refused(tmp_path):
    (tmp_path / "a.txt").write_text("1 2 3")
    with pytest.raises(DataError, match=r"a\.txt is not a \.npz, \.csv or \.parquet file"):
        load(tmp_path / "a.txt", seed=0)
    with (tmp_path / "a.npz").open("wb") as file:
        np.save(file, X)
    with pytest.raises(DataError, match="holds a single array"):
        load(tmp_path / "a.npz", seed=0)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize(
    ("change", "target", "sentence"),
    [
        ({}, None, r"needs a target column: name it by --target .*, one of area, rooms, price, kind"),
        (
            {},
            "prize",
            r"has no column 'prize' to predict: did you mean 'price'\? Its columns are area, rooms, price, kind",
        ),
        ({}, "price", r"column 'kind' holds '(flat|house)' in row 0 .* encode it as numbers or remove"),
        ({"area": (3, np.nan)}, "kind", r"column 'area' has no value in row 3 \(counted from 0; 1 such rows"),
        ({"area": (3, np.inf)}, "kind", r"x holds inf in row 3, column 'area'"),
        ({"kind": (5, None)}, "kind", r"column 'kind' has no value in row 5"),
        ({"price": (2, np.inf)}, "price", r"y holds inf in row 2"),
    ],
)
def test_tables_that_cannot_be_used_say_where(tmp_path, table, suffix, change, target, sentence):
    for column, (row, value) in change.items():
        table.loc[row, column] = value
    if target == "price" and change:
        table = table.drop(columns="kind")
    path = tmp_path / f"homes{suffix}"
    table.to_csv(path, index=False) if suffix == ".csv" else table.to_parquet(path)
    with pytest.raises(DataError, match=sentence):
        load(path, seed=0, target=target)


def test_one_word_among_numbers_and_a_nameless_index_are_found(tmp_path, table):
    path = tmp_path / "homes.csv"
    table = table.drop(columns="kind")
    table["rooms"] = table["rooms"].astype(object)
    table.loc[17, "rooms"] = "many"
    table.to_csv(path, index=False)
    with pytest.raises(DataError, match=r"column 'rooms' holds 'many' in row 17"):
        load(path, seed=0, target="price")
    table.drop(columns="rooms").to_csv(path)
    with pytest.raises(DataError, match=r"column 0 has no name.*to_csv\(index=False\)"):
        load(path, seed=0, target="price")
