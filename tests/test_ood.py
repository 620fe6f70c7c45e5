"""Foreign inputs: what each change keeps and what it changes, and what each wrong request is told."""

import numpy as np
import pytest

from hmcvi.benchmarks import datasets, ood
from hmcvi.benchmarks.datasets import DataError
from hmcvi.benchmarks.shifts import SHIFTS

IMAGE_SHIFTS = [kind for kind, shift in SHIFTS.items() if shift.suits in ("both", "images")]
TABLE_SHIFTS = [kind for kind, shift in SHIFTS.items() if shift.suits in ("both", "tables")]


@pytest.fixture(scope="module")
def digits():
    return datasets.load("digits", seed=0, rows=200, held_out_classes=(8, 9))


@pytest.fixture(scope="module")
def images():
    return datasets.load("digits", seed=0, rows=200, held_out_classes=(8, 9), image=True)


@pytest.fixture(scope="module")
def wine():
    return datasets.load("wine", seed=0)


@pytest.fixture
def colours(tmp_path):
    """Images that are neither square nor grey, where a mistaken axis shows."""
    x = np.random.default_rng(0).integers(0, 256, (60, 6, 4, 3), dtype=np.uint8)
    np.savez(tmp_path / "colours.npz", x=x, y=np.arange(60) % 2)
    return datasets.load(tmp_path / "colours.npz", seed=0, image=True)


@pytest.mark.parametrize("kind", IMAGE_SHIFTS)
def test_image_sets_keep_shape_dtype_and_brightness_range_and_do_not_care_about_flattening(kind, digits, images):
    flat, square = ood.make(kind, digits, seed=1), ood.make(kind, images, seed=1)
    assert flat.x.shape == digits.x_test.shape
    assert square.x.shape == images.x_test.shape
    assert flat.x.dtype == digits.x_test.dtype
    np.testing.assert_array_equal(flat.x, square.x.reshape(flat.x.shape))
    assert flat.x.min() >= 0
    assert flat.x.max() <= 1
    assert flat.description.endswith(".")
    assert not np.array_equal(flat.x, digits.x_test)


@pytest.mark.parametrize("kind", TABLE_SHIFTS)
def test_table_sets_keep_shape_and_dtype(kind, wine):
    made = ood.make(kind, wine, seed=1)
    assert made.x.shape == wine.x_test.shape
    assert made.x.dtype == np.float32
    assert not np.array_equal(made.x, wine.x_test)


@pytest.mark.parametrize("kind", ["permutation", "uniform_noise", "gaussian_noise"])
def test_a_seed_fixes_what_is_drawn(kind, digits):
    first, again, other = (ood.make(kind, digits, seed=seed).x for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_permutation_is_one_for_all_rows_and_keeps_every_rows_pixels(digits):
    made = ood.make("permutation", digits, seed=0).x
    np.testing.assert_array_equal(np.sort(made, axis=1), np.sort(digits.x_test, axis=1))
    # one permutation: each new column is a whole old column
    old = {column.tobytes() for column in digits.x_test.T}
    assert {column.tobytes() for column in made.T} == old


def test_permutation_moves_every_place_and_keeps_colours_together(colours):
    made = ood.make("permutation", colours, seed=0).x
    pixels = colours.x_test.reshape(-1, 24, 3)
    moved = made.reshape(-1, 24, 3)
    assert not (moved == pixels).all(axis=(0, 2)).any()
    for before, after in zip(pixels, moved, strict=True):
        assert sorted(map(tuple, before)) == sorted(map(tuple, after))


@pytest.mark.parametrize("seed", range(5))
def test_permutation_of_two_columns_swaps_them(seed, tmp_path):
    x = np.random.default_rng(0).normal(size=(40, 2))
    np.savez(tmp_path / "two.npz", x=x, y=x[:, 0])
    two = datasets.load(tmp_path / "two.npz", seed=0)
    np.testing.assert_array_equal(ood.make("permutation", two, seed=seed).x, two.x_test[:, ::-1])


def test_permutation_of_one_column_is_refused():
    wave = datasets.load("wave", seed=0)
    with pytest.raises(DataError, match="wave has one feature and nothing to permute: use extrapolation"):
        ood.make("permutation", wave, seed=0)


@pytest.mark.parametrize(("name", "factor"), [("contrast", 0.3), ("contrast:0.5", 0.5), ("contrast:0", 0.0)])
def test_contrast_scales_the_variance_by_its_factor_squared_and_keeps_the_mean(name, factor, digits):
    made = ood.make(name, digits, seed=0).x
    # float32 images: relative rounding of 1e-7 a pixel
    np.testing.assert_allclose(made.mean(axis=1), digits.x_test.mean(axis=1), rtol=1e-5)
    np.testing.assert_allclose(made.var(axis=1), factor**2 * digits.x_test.var(axis=1), rtol=1e-4, atol=1e-10)


def test_uniform_noise_fills_each_columns_training_range(wine):
    made = ood.make("uniform_noise", wine, seed=0).x
    low, high = wine.x_train.min(axis=0), wine.x_train.max(axis=0)
    assert (made >= low).all()
    assert (made <= high).all()
    unit = (made - low) / (high - low)
    # mean of n uniforms: 0.5 with sd 1/√(12 n); four sd, false alarm 6e-5
    assert abs(unit.mean() - 0.5) < 4 / np.sqrt(12 * unit.size)


def test_gaussian_noise_has_its_sd(wine):
    added = ood.make("gaussian_noise:2", wine, seed=0).x - wine.x_test
    # sd of an sd's estimate: sd/√(2n); four of them, false alarm 6e-5
    assert abs(added.std() - 2) < 4 * 2 / np.sqrt(2 * added.size)
    assert ood.make("gaussian_noise:2", wine, seed=0).description == ("The test rows, plus Normal noise of sd 2.")


def test_brightness_adds_and_inversion_undoes_itself(digits):
    np.testing.assert_allclose(
        ood.make("brightness:-0.2", digits, seed=0).x, np.clip(digits.x_test - 0.2, 0, 1), atol=1e-7
    )
    np.testing.assert_array_equal(ood.make("inversion", digits, seed=0).x, 1 - digits.x_test)


def test_rotation_turns_anticlockwise_and_agrees_with_interpolation_near_a_quarter(images):
    quarter = ood.make("rotation", images, seed=0).x
    np.testing.assert_array_equal(quarter[0, :, :, 0], np.rot90(images.x_test[0, :, :, 0]))
    np.testing.assert_array_equal(ood.make("rotation:-270", images, seed=0).x, quarter)
    nearly = ood.make("rotation:89.999", images, seed=0).x
    # the corners may fall outside by the last thousandth of a degree
    np.testing.assert_allclose(nearly[:, 1:-1, 1:-1], quarter[:, 1:-1, 1:-1], atol=1e-3)


def test_rotation_keeps_the_shape_of_images_that_are_not_square(colours):
    assert ood.make("rotation", colours, seed=0).x.shape == colours.x_test.shape
    half = ood.make("rotation:180", colours, seed=0).x
    np.testing.assert_array_equal(half, colours.x_test[:, ::-1, ::-1])


@pytest.mark.parametrize(("name", "factor"), [("extrapolation", 3), ("extrapolation:10", 10)])
def test_extrapolation_goes_beyond_the_training_range(name, factor):
    wave = datasets.load("wave", seed=0)
    made = ood.make(name, wave, seed=0).x
    mean = wave.x_train.mean()
    np.testing.assert_allclose(made - mean, factor * (wave.x_test - mean), rtol=1e-4, atol=1e-5)
    assert ((made < wave.x_train.min()) | (made > wave.x_train.max())).all()


def test_held_out_classes_come_from_the_data_set(digits, images):
    made = ood.make("held_out:8,9", digits, seed=0)
    np.testing.assert_array_equal(made.x, digits.x_held_out)
    assert made.name == "held_out:8,9"
    assert made.description == "Rows of classes never trained on (8, 9)."
    assert ood.make("held_out", images, seed=0).x.shape == (354, 8, 8, 1)


def test_held_out_classes_are_read_off_the_names():
    assert ood.held_out_classes(("permutation", "contrast:0.5")) == ()
    assert ood.held_out_classes(("permutation", "held_out:9, 8")) == (8, 9)
    assert ood.held_out_classes(("held_out:cat",)) == ("cat",)
    assert ood.held_out_classes(("held_out",), (1, 2)) == (1, 2)
    assert ood.held_out_classes(("held_out", "held_out:2,1"), (1, 2)) == (1, 2)
    with pytest.raises(DataError, match="held_out:1 and held_out:2 hold out different classes"):
        ood.held_out_classes(("held_out:1", "held_out:2"))
    with pytest.raises(DataError, match="held_out names no class: write for example held_out:8,9"):
        ood.held_out_classes(("held_out",))


def test_classes_named_by_words_are_held_out_by_word_or_number():
    wine = datasets.load("wine", seed=0, held_out_classes=ood.held_out_classes(("held_out:1",)))
    for name in ("held_out:1", "held_out:class_1", "held_out"):
        np.testing.assert_array_equal(ood.make(name, wine, seed=0).x, wine.x_held_out)
    with pytest.raises(DataError, match="wine was loaded without the classes class_1: load it again"):
        ood.make("held_out:class_2", wine, seed=0)


def test_another_data_set_is_resized_and_has_its_channels_changed(colours, digits):
    made = ood.make("digits", colours, seed=0)
    assert made.x.shape == colours.x_test.shape
    np.testing.assert_array_equal(made.x[..., 0], made.x[..., 2])
    assert made.description == (
        "12 of 1,797 images of digits, their grey in all 3 channels, resized from 8x8 to 6x4 (Lanczos)."
    )
    assert made.x.max() > 0.5


def test_colour_images_become_grey(images, colours, monkeypatch):
    monkeypatch.setattr(ood, "_IMAGE_SETS", (*ood._IMAGE_SETS, "colours"))
    pixels = np.random.default_rng(1).integers(0, 256, (12, 6, 4, 3), dtype=np.uint8)
    monkeypatch.setattr(
        datasets, "read", lambda *args, **options: datasets.arrays(pixels, np.arange(12), name="colours")
    )
    made = ood.make("colours", images, seed=0)
    assert made.x.shape == (12, 8, 8, 1)
    # linear resizing and luma are both averages with weights that add up to one
    assert abs(made.x.mean() - pixels.mean() / 255) < 0.05
    assert "made grey, resized from 6x4 to 8x8" in made.description


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("permutatoin", r"no OOD set 'permutatoin'; did you mean permutation\? known are blur, brightness, .*"),
        ("qqq", r"no OOD set 'qqq': known are blur, brightness, cifar10, contrast"),
        (
            "contrast:2",
            r"contrast:2, but a factor from 0 to below 1 is wanted: write for example contrast:0.3",
        ),
        ("contrast:low", r"contrast:low, but a factor from 0 to below 1 is wanted"),
        ("contrast:nan", r"contrast:nan, but a factor from 0 to below 1 is wanted"),
        ("rotation:720", r"rotation:720, but an angle in degrees that is no full turn is wanted"),
        ("brightness:0", r"brightness:0, but a number from -1 to 1 other than 0 is wanted"),
        ("gaussian_noise:0", r"gaussian_noise:0, but an sd above 0 is wanted"),
        ("inversion:3", r"inversion:3, but inversion takes no argument: write inversion"),
        ("permutation:3", r"permutation takes no argument"),
        ("mnist:3", r"another data set takes no argument: write mnist"),
        ("digits", r"digits is the data set itself, so nothing in it is foreign"),
        (
            "extrapolation",
            r"extrapolation is for tables, but digits holds images: use held_out:8,9, permutation",
        ),
        (
            "held_out:7",
            r"held_out:7, but digits was loaded without the classes 8, 9: load it again with these",
        ),
    ],
)
def test_wrong_names_and_arguments_say_what_is_wanted(name, sentence, digits):
    with pytest.raises(DataError, match=sentence):
        ood.make(name, digits, seed=0)


@pytest.mark.parametrize("kind", sorted(set(IMAGE_SHIFTS) - set(TABLE_SHIFTS)))
def test_image_shifts_of_a_table_name_what_suits_it(kind, wine):
    with pytest.raises(DataError, match=f"{kind} is for images, but wine is tabular: use permutation, uniform"):
        ood.make(kind, wine, seed=0)


def test_sets_that_a_table_cannot_give_are_refused(wine):
    with pytest.raises(DataError, match="mnist holds images, but wine is tabular"):
        ood.make("mnist", wine, seed=0)
    with pytest.raises(DataError, match=r"wine was loaded with every class in it.*held_out_classes=\(1\)"):
        ood.make("held_out:1", wine, seed=0)


@pytest.mark.parametrize("name", ["breast_cancer", "diabetes", "digits", "wave", "wine"])
def test_every_default_can_be_made(name):
    names = ood.defaults(name)
    assert names
    dataset = datasets.load(name, seed=0, held_out_classes=ood.held_out_classes(names))
    assert ood.defaults(dataset) == names
    for set_name in names:
        made = ood.make(set_name, dataset, seed=0)
        assert made.x.shape[1:] == dataset.x_test.shape[1:]


def test_defaults_of_files_follow_what_is_in_them(colours, tmp_path):
    assert ood.defaults("mine.npz") == ("permutation", "uniform_noise")
    assert ood.defaults("mine.csv") == ("permutation", "uniform_noise", "extrapolation")
    assert ood.defaults(colours) == ("permutation", "uniform_noise", "contrast")
    np.savez(tmp_path / "one.npz", x=np.arange(40.0)[:, None], y=np.arange(40.0))
    assert ood.defaults(datasets.load(tmp_path / "one.npz", seed=0)) == ("extrapolation",)
