"""Loading data: what is split, scaled, chosen and left out, and what each unusable input is told."""

import subprocess
import sys

import numpy as np
import pytest

from hmcvi.benchmarks.datasets import DataError, load

BUNDLED = ("breast_cancer", "diabetes", "digits", "wave", "wine")


def row_set(x):
    return {row.tobytes() for row in x}


def write_npz(path, x, y):
    np.savez(path, x=x, y=y)
    return path


@pytest.mark.parametrize("name", BUNDLED)
def test_bundled_sets_have_the_types_and_shapes_that_models_expect(name):
    dataset = load(name, seed=0)
    assert dataset.x_train.dtype == dataset.x_test.dtype == np.float32
    assert dataset.x_train.shape[1:] == dataset.x_test.shape[1:]
    assert len(dataset.x_train) == len(dataset.y_train)
    assert len(dataset.x_test) == len(dataset.y_test)
    if dataset.task == "classification":
        assert dataset.y_train.dtype == dataset.y_test.dtype == np.int32
        assert sorted(set(dataset.y_train)) == sorted(set(dataset.y_test)) == list(range(dataset.num_classes))
        assert len(dataset.class_names) == dataset.num_classes
        assert (dataset.target_loc, dataset.target_scale) == (0.0, 1.0)
    else:
        assert dataset.num_classes is None
        assert dataset.y_train.dtype == dataset.y_test.dtype == np.float32
    if dataset.image_shape is None:
        assert len(dataset.feature_names) == dataset.x_train.shape[1]


@pytest.mark.parametrize("name", ["digits", "diabetes", "wave", "breast_cancer"])
def test_training_and_test_rows_are_disjoint(name):
    dataset = load(name, seed=0)
    assert not row_set(dataset.x_train) & row_set(dataset.x_test)


def test_the_split_is_stratified_by_class():
    dataset = load("breast_cancer", seed=3)
    train_part, test_part = dataset.y_train.mean(), dataset.y_test.mean()
    # 114 test rows: proportions that are rounded to whole rows differ by at most one row
    assert abs(train_part - test_part) < 1 / len(dataset.y_test)


@pytest.mark.parametrize("name", BUNDLED)
def test_a_seed_fixes_the_data_and_another_seed_changes_it(name):
    first, again, other = (load(name, seed=seed, rows=60) for seed in (1, 1, 2))
    assert first.data_hash == again.data_hash
    np.testing.assert_array_equal(first.x_train, again.x_train)
    assert first.data_hash != other.data_hash


def test_the_hash_sees_values_shapes_and_held_out_rows():
    flat, images = (load("digits", seed=0, rows=50, image=image) for image in (False, True))
    assert flat.data_hash != images.data_hash
    assert flat.data_hash != load("digits", seed=0, rows=50, test_rows=7).data_hash


def test_tables_and_targets_are_standardised_on_the_training_rows():
    dataset = load("diabetes", seed=0)
    np.testing.assert_allclose(dataset.x_train.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(dataset.x_train.std(axis=0), 1, rtol=1e-5)
    np.testing.assert_allclose([dataset.y_train.mean(), dataset.y_train.std()], [0, 1], atol=1e-5)
    # whole-number ages come back from loc and scale, for the test rows too
    age = dataset.x_test[:, 0] * dataset.feature_scale[0] + dataset.feature_loc[0]
    np.testing.assert_allclose(age, np.round(age), atol=1e-4)
    target = dataset.y_test * dataset.target_scale + dataset.target_loc
    np.testing.assert_allclose(target, np.round(target), atol=1e-3)


def test_changing_test_rows_changes_no_scale(tmp_path):
    generator = np.random.default_rng(0)
    # the first column numbers the rows, so that the test rows can be found again
    x = np.column_stack([np.arange(50.0), generator.normal(size=50)])
    y = generator.normal(size=50)
    before = load(write_npz(tmp_path / "a.npz", x, y), seed=4)
    number = before.x_test[:, 0] * before.feature_scale[0] + before.feature_loc[0]
    test = np.round(number).astype(int)
    x[test, 1] += 1000.0
    y[test] -= 1000.0
    after = load(write_npz(tmp_path / "a.npz", x, y), seed=4)
    np.testing.assert_array_equal(before.feature_loc, after.feature_loc)
    np.testing.assert_array_equal(before.feature_scale, after.feature_scale)
    assert (before.target_loc, before.target_scale) == (after.target_loc, after.target_scale)
    np.testing.assert_array_equal(before.x_train, after.x_train)
    assert (after.x_test[:, 1] > 100).all()


@pytest.mark.parametrize("rows", [None, 10])
def test_scales_come_from_the_rows_that_are_trained_on(rows):
    dataset = load("wine", seed=0, rows=rows)
    np.testing.assert_allclose(dataset.x_train.mean(axis=0), 0, atol=1e-6)


def test_a_constant_column_gets_scale_one(tmp_path):
    x = np.column_stack([np.full(40, 0.1), np.arange(40.0)])
    dataset = load(write_npz(tmp_path / "a.npz", x, np.arange(40) * 0.5), seed=0)
    assert dataset.feature_scale[0] == 1.0
    assert (dataset.x_train[:, 0] == 0).all()
    assert (dataset.x_test[:, 0] == 0).all()
    constant = load(write_npz(tmp_path / "b.npz", x, np.full(40, 7.0)), seed=0, task="regression")
    assert (constant.target_loc, constant.target_scale) == (7.0, 1.0)


def test_digits_are_divided_by_their_full_brightness():
    images = load("digits", seed=0, image=True)
    assert images.image_shape == (8, 8, 1)
    assert images.x_train.shape == (1437, 8, 8, 1)
    assert (images.x_train.min(), images.x_train.max()) == (0.0, 1.0)
    flat = load("digits", seed=0)
    np.testing.assert_array_equal(flat.x_train, images.x_train.reshape(len(images.x_train), 64))
    assert flat.image_shape == (8, 8, 1)


def test_wave_leaves_a_gap_and_has_its_noise():
    dataset = load("wave", seed=0)
    for inputs, targets in ((dataset.x_train, dataset.y_train), (dataset.x_test, dataset.y_test)):
        x = inputs[:, 0] * dataset.feature_scale[0] + dataset.feature_loc[0]
        assert (((x > -1.001) & (x < -0.699)) | ((x > 0.499) & (x < 1.001))).all()
        y = targets * dataset.target_scale + dataset.target_loc
        # sd of the sd's estimate is 0.1 / √(2n) ≤ 0.0071: four of them; false alarm 6e-5
        assert abs((y - np.cos(4 * x + 0.8)).std() - 0.1) < 4 * 0.1 / np.sqrt(2 * len(y))


def test_chosen_rows_are_balanced_nested_and_leave_the_test_rows_alone():
    whole, large, small = (load("digits", seed=5, rows=rows) for rows in (None, 205, 100))
    assert np.bincount(small.y_train).tolist() == [10] * 10
    assert set(np.bincount(large.y_train)) == {20, 21}
    assert row_set(small.x_train) <= row_set(large.x_train) <= row_set(whole.x_train)
    np.testing.assert_array_equal(small.x_test, whole.x_test)


def test_a_class_that_runs_out_is_made_up_for_by_the_others(tmp_path):
    y = np.repeat([0, 1], [10, 90])
    path = write_npz(tmp_path / "a.npz", np.arange(100.0)[:, None], y)
    assert np.bincount(load(path, seed=0, rows=60).y_train).tolist() == [8, 52]


def test_test_rows_are_the_first_of_a_shuffle():
    whole, large, small = (load("digits", seed=5, test_rows=number) for number in (None, 60, 20))
    np.testing.assert_array_equal(large.x_test[:20], small.x_test)
    assert row_set(large.x_test) <= row_set(whole.x_test)
    assert len(set(large.y_test)) == 10
    np.testing.assert_array_equal(small.x_train, whole.x_train)


def test_held_out_classes_are_gone_and_the_rest_renumbered():
    whole, kept = load("digits", seed=0), load("digits", seed=0, held_out_classes=(3, 8))
    assert kept.num_classes == 8
    assert kept.class_names == ("0", "1", "2", "4", "5", "6", "7", "9")
    assert kept.held_out_names == ("3", "8")
    assert set(kept.y_train) == set(kept.y_test) == set(range(8))
    everything = np.concatenate([whole.x_train, whole.x_test])
    labels = np.concatenate([whole.y_train, whole.y_test])
    assert row_set(kept.x_held_out) == row_set(everything[np.isin(labels, (3, 8))])
    assert len(kept.x_held_out) == np.isin(labels, (3, 8)).sum()
    name_of = {row.tobytes(): whole.class_names[label] for row, label in zip(everything, labels, strict=True)}
    for x, y in ((kept.x_train, kept.y_train), (kept.x_test, kept.y_test)):
        assert [name_of[row.tobytes()] for row in x] == [kept.class_names[label] for label in y]


def test_held_out_inputs_are_scaled_like_training_rows_and_limited_like_test_rows():
    dataset = load("wine", seed=0, held_out_classes=("class_1",), test_rows=12)
    assert len(dataset.x_held_out) == len(dataset.x_test) == 12
    alcohol = dataset.x_held_out[:, 0] * dataset.feature_scale[0] + dataset.feature_loc[0]
    assert ((alcohol > 11) & (alcohol < 14)).all()
    assert load("wine", seed=0, held_out_classes=(1,)).held_out_names == ("class_1",)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"source": "digitz"},
            r"no data set 'digitz'; did you mean digits\? known are breast_cancer, .*",
        ),
        ({"source": "qqq"}, r"no data set 'qqq': known are .*give a \.npz, \.csv or \.parquet file"),
        ({"seed": -1}, r"seed=-1, but a whole number from 0"),
        ({"test_fraction": 1.0}, r"test_fraction=1.0, but a number between 0 and 1"),
        ({"test_fraction": 0.001}, r"at least 10 of each are wanted: add rows or change the fraction"),
        ({"rows": 5000}, r"rows=5000, but digits has 1437 training rows in 10 classes: ask for 10 to 1437"),
        ({"rows": 3}, r"rows=3, but .* ask for 10 to 1437"),
        ({"test_rows": 361}, r"test_rows=361, but digits has 360 test rows: ask for 1 to 360"),
        ({"target": "price"}, r"target 'price' .* digits has its own target: drop it"),
        ({"task": "regression"}, r"digits is a classification, but regression was asked for: drop --task"),
        ({"task": "ranking"}, r"task 'ranking' was asked for, but classification or regression is wanted"),
        ({"held_out_classes": (10,)}, r"digits has no class 10 to hold out: its classes are 0, 1, .*, 9"),
        (
            {"held_out_classes": range(9)},
            r"holding out 9 of the 10 classes of digits leaves 1, but at least 2",
        ),
        ({"source": "wine", "image": True}, r"wine is tabular \(13 features\).* use mlp or gp"),
        (
            {"source": "diabetes", "held_out_classes": (1,)},
            r"diabetes is a regression .* drop held_out",
        ),
    ],
)
def test_requests_that_cannot_be_met_say_what_to_do(options, sentence):
    with pytest.raises(DataError, match=sentence):
        load(**{"source": "digits", "seed": 0, **options})


def test_neither_jax_nor_a_data_library_is_imported_until_it_is_needed():
    code = (
        "import sys, hmcvi.benchmarks.datasets, hmcvi.benchmarks.ood; "
        "print([name for name in ('jax', 'sklearn', 'pandas', 'tensorflow_datasets') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_curve_of_wave_is_its_targets_true_mean():
    """300 rows, noise of sd 0.1: the mean residual errs by 0.006, their sd by 4 %; four of these are allowed."""
    data = load("wave", seed=0)
    x, y = (np.concatenate(parts) for parts in ((data.x_train, data.x_test), (data.y_train, data.y_test)))
    residual = y * data.target_scale + data.target_loc - data.curve((x * data.feature_scale + data.feature_loc)[:, 0])
    assert abs(residual.mean()) < 0.024
    assert 0.084 < residual.std() < 0.116
    assert load("diabetes", seed=0).curve is None
