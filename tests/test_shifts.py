"""Graded and chained changes, and gaps and files as foreign inputs."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from hmcvi.benchmarks import datasets, images, ood
from hmcvi.benchmarks.datasets import DataError
from hmcvi.benchmarks.shifts import LEVELS, SHIFTS

GRADED_IMAGES = [kind for kind, shift in SHIFTS.items() if shift.image_levels]
GRADED_TABLES = [kind for kind, shift in SHIFTS.items() if shift.table_levels]


@pytest.fixture(scope="module")
def digits():
    return datasets.load("digits", seed=0, rows=100)


@pytest.fixture(scope="module")
def wine():
    return datasets.load("wine", seed=0)


@pytest.fixture(scope="module")
def photos():
    """Colour images of bytes, as TFDS sets are, with large blobs of light that a blur does not erase."""
    generator = np.random.default_rng(0)
    coarse = generator.integers(0, 256, (60, 4, 4, 3), dtype=np.uint8)
    return datasets.load(datasets.arrays(coarse.repeat(4, 1).repeat(4, 2), np.arange(60) % 2), seed=0, image=True)


@pytest.mark.parametrize("kind", GRADED_IMAGES)
def test_every_severity_changes_images_more_than_the_one_before(kind, photos):
    before = photos.x_test.astype(float)
    distances = [np.abs(ood.make(f"{kind}@{level}", photos, seed=0).x - before).mean() for level in LEVELS]
    assert distances[0] > 0.3  # of 255
    assert (np.diff(distances) > 0).all()


@pytest.mark.parametrize("kind", GRADED_TABLES)
def test_every_severity_changes_tables_more_than_the_one_before(kind, wine):
    distances = [np.abs(ood.make(f"{kind}@{level}", wine, seed=0).x - wine.x_test).mean() for level in LEVELS]
    assert distances[0] > 0.05  # of a training sd
    assert (np.diff(distances) > 0).all()


def test_a_severity_is_its_argument_and_says_so(digits):
    graded, plain = ood.make("rotation@3", digits, seed=0), ood.make("rotation:45", digits, seed=0)
    np.testing.assert_array_equal(graded.x, plain.x)
    assert graded.description == "The test rows, turned by 45 degrees anticlockwise (severity 3 of 5)."
    assert (graded.shift, graded.level, plain.level) == ("rotation", 3, None)
    assert ood.graded(["rotation", "blur"])[4:6] == ("rotation@5", "blur@1")


def test_bytes_stay_bytes_and_are_rounded_once(photos):
    made = ood.make("contrast:0.5", photos, seed=0)
    assert made.x.dtype == np.uint8
    x = photos.x_test / 255
    mean = x.mean(axis=(1, 2, 3), keepdims=True)
    np.testing.assert_allclose(made.x, 255 * (mean + 0.5 * (x - mean)), atol=0.51)  # half a step, and float32


def test_blur_keeps_the_light_and_takes_the_detail(photos):
    made = ood.make("blur:0.1", photos, seed=0).x / 255
    sharp = photos.x_test / 255
    np.testing.assert_allclose(made.mean(), sharp.mean(), atol=0.01)
    assert np.abs(np.diff(made, axis=1)).max() < 0.5 * np.abs(np.diff(sharp, axis=1)).max()
    grey = np.abs(made.mean(axis=3, keepdims=True) - made).mean()
    assert grey > 0.5 * np.abs(sharp.mean(axis=3, keepdims=True) - sharp).mean()  # channels are not mixed


def test_occlusion_blackens_its_part_of_the_area_at_many_places():
    white = datasets.load(datasets.arrays(np.ones((100, 20, 10)), np.arange(100) % 2), seed=0, image=True)
    made = ood.make("occlusion:0.25", white, seed=0).x[..., 0]
    assert (made == 0).sum(axis=(1, 2)).tolist() == [10 * 5] * len(made)
    corners = {tuple(np.argwhere(image == 0)[0]) for image in made}
    assert len(corners) > 5
    for image in made:  # one rectangle: as many black cells as its sides say
        dark = np.argwhere(image == 0)
        assert np.prod(np.ptp(dark, axis=0) + 1) == len(dark)


def test_changes_are_chained_in_order(digits):
    turned = ood.make("rotation:90", digits, seed=0).x.reshape(-1, 8, 8)
    chained = ood.make("rotation:90+contrast:0.5", digits, seed=0)
    mean = turned.mean(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(chained.x.reshape(-1, 8, 8), mean + 0.5 * (turned - mean), atol=1e-6)
    assert chained.description == (
        "The test rows, turned by 90 degrees anticlockwise, then each pixel's distance from its image's mean times 0.5."
    )
    assert chained.level is None


def test_a_chain_may_start_from_foreign_rows(tmp_path, digits):
    pixels = np.random.default_rng(1).integers(0, 256, (30, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "other.npz", x=pixels)  # inputs alone: foreign rows need no labels
    plain, dark = (ood.make(f"{tmp_path}/other.npz{end}", digits, seed=0) for end in ("", "+brightness:-1"))
    assert plain.num_rows == 30
    assert plain.y is None
    assert {row.tobytes() for row in (plain.x * 255).round().astype(np.uint8)} == {p.tobytes() for p in pixels}
    assert (dark.x == 0).all()
    assert plain.description == "30 images of other.npz."
    assert dark.description == "30 images of other.npz, -1 added to every pixel, clipped to 0 to 1."


def test_labels_stay_where_the_answer_does(digits, wine):
    for name, keeps in (("rotation@1", True), ("contrast", True), ("noise", False), ("permutation", False)):
        made = ood.make(name, digits, seed=0)
        assert (made.y is not None) == keeps
    np.testing.assert_array_equal(ood.make("gaussian_noise", wine, seed=0).y, wine.y_test)
    assert ood.make("contrast+permutation", digits, seed=0).y is None
    assert ood.make("extrapolation", wine, seed=0).y is None


def test_inputs_are_made_when_they_are_asked_for(digits, monkeypatch):
    made = ood.make("blur", digits, seed=0)
    rows = []
    change = SHIFTS["blur"].change
    monkeypatch.setitem(ood.SHIFTS, "blur", SHIFTS["blur"])
    object.__setattr__(SHIFTS["blur"], "change", lambda case: rows.append(len(case.x)) or change(case))
    try:
        np.testing.assert_array_equal(made.x, made.x)
    finally:
        object.__setattr__(SHIFTS["blur"], "change", change)
    assert rows == [len(digits.x_test)] * 2


def test_noise_is_another_name_of_uniform_noise(digits):
    np.testing.assert_array_equal(ood.make("noise", digits, seed=0).x, ood.make("uniform_noise", digits, seed=0).x)


def test_held_out_classes_may_be_changed_further():
    names = ("held_out:8,9+contrast:0.5",)
    assert ood.held_out_classes(names) == (8, 9)
    digits = datasets.load("digits", seed=0, held_out_classes=ood.held_out_classes(names))
    made = ood.make(names[0], digits, seed=0)
    assert made.num_rows == len(digits.x_held_out)
    np.testing.assert_allclose(made.x.var(axis=1), 0.25 * digits.x_held_out.var(axis=1), rtol=1e-4)


def test_shrinking_averages_what_it_leaves_out(digits):
    """Stripes of one column in four: read at every fourth column alone, they would be all black or all white."""
    stripes = np.zeros((5, 32, 32), np.uint8)
    stripes[:, :, ::4] = 255
    made = images.resized(stripes[..., None] / np.float32(255), 8, 8)
    np.testing.assert_allclose(made[:, :, 2:-2], 0.25, atol=0.05)


def test_a_table_file_is_foreign_by_its_columns_names(tmp_path, wine):
    other = pd.DataFrame(wine.x_test * wine.feature_scale + wine.feature_loc, columns=list(wine.feature_names))
    shuffled = other[other.columns[::-1]].assign(grower="unknown")
    shuffled.to_csv(tmp_path / "other.csv", index=False)
    made = ood.make(str(tmp_path / "other.csv"), wine, seed=0)
    rows = {tuple(row) for row in np.round(made.x, 3).tolist()}
    assert rows == {tuple(row) for row in np.round(wine.x_test, 3).tolist()}
    assert made.description == f"{len(other)} rows of other.csv."
    shuffled.drop(columns="ash").to_parquet(tmp_path / "less.parquet")
    with pytest.raises(DataError, match=r"less.parquet has no column 'ash', which the training rows have"):
        ood.make(str(tmp_path / "less.parquet"), wine, seed=0)
    np.savez(tmp_path / "narrow.npz", x=np.ones((5, 2)))
    with pytest.raises(DataError, match=r"narrow.npz: x has shape \(5, 2\), but \(row, 13\) is wanted"):
        ood.make(str(tmp_path / "narrow.npz"), wine, seed=0)


def test_the_gap_is_foreign_with_its_targets():
    wave = datasets.load("wave", seed=0)
    made = ood.make("gap", wave, seed=0)
    np.testing.assert_array_equal(made.x, wave.x_held_out)
    np.testing.assert_array_equal(made.y, wave.y_held_out)
    assert made.description == "Rows with x between -0.7 and 0.5, none of them trained on."
    assert ood.gap_column(["gap", "extrapolation"]) is None
    diabetes = datasets.load("diabetes", seed=0, gap=ood.gap_column(["gap:bmi"]))
    assert ood.make("gap:bmi", diabetes, seed=0).num_rows == len(diabetes.y_held_out)
    with pytest.raises(
        DataError, match=r"diabetes was loaded without a gap in 'age', so no row is foreign: write gap:age"
    ):
        ood.make("gap:age", diabetes, seed=0)
    with pytest.raises(DataError, match=r"gaps in age and bmi were asked for"):
        ood.gap_column(["gap:age", "gap:bmi"])


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("rotation@6", r"rotation@6, but a severity from 1 to 5 is wanted: write rotation@3"),
        ("rotation@x", r"rotation@x, but a severity from 1 to 5 is wanted"),
        (
            "permutation@2",
            r"permutation@2, but permutation has no severities \(these have: gaussian",
        ),
        ("blur:0", r"blur:0, but an sd above 0 and at most 1"),
        ("occlusion:1", r"occlusion:1, but a part of the area between 0 and 1"),
        ("blur+qqq", r"there is no OOD set 'qqq'"),
        ("gap", r"gap is for tables, but digits holds images"),
        ("gone.npz", r"there is no file gone.npz"),
        ("houses.csv", r"houses.csv is a table, but digits holds images: use held_out"),
        ("wine", r"there is no OOD set 'wine'"),
    ],
)
def test_names_that_cannot_be_made_say_what_is_wanted(name, sentence, digits):
    with pytest.raises(DataError, match=sentence):
        ood.make(name, digits, seed=0)


def test_shifts_that_are_not_graded_are_refused():
    with pytest.raises(DataError, match=r"no graded shift 'permutation'.* graded are blur, brightness, contrast"):
        ood.graded(["permutation"])
    with pytest.raises(DataError, match=r"no graded shift 'blurr'; did you mean blur\?"):
        ood.graded(["blurr"])
