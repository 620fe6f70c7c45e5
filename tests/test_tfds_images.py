"""Images from TFDS: any prepared set of images and labels, decoded once, and the same afterwards."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from hmcvi.benchmarks import memory, tfds_images
from hmcvi.benchmarks.datasets import load
from hmcvi.benchmarks.raw import DataError
from hmcvi.benchmarks.tfds_images import read_images

from .prepared_sets import encoded, features, png, write_set

needs_tfds = pytest.mark.skipif(
    not os.environ.get("TFDS_DATA_DIR"), reason="TFDS_DATA_DIR names no folder of prepared TFDS data sets"
)


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    """An empty TFDS folder and an empty cache."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    monkeypatch.setenv("HMCVI_CACHE", str(tmp_path / "cache"))
    return tmp_path / "tfds"


@pytest.fixture
def decoded(monkeypatch):
    """The name of every set that was decoded, not read from the cache."""
    calls = []
    decode = tfds_images._decode

    def count(entry, *arguments, **options):
        calls.append(entry.name)
        return decode(entry, *arguments, **options)

    monkeypatch.setattr(tfds_images, "_decode", count)
    return calls


def noise(rows, shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (rows, *shape), dtype=np.uint8)


def labelled(images, num_classes=3):
    return [(png(image), row % num_classes) for row, image in enumerate(images)]


def test_every_pixel_and_label_arrives_in_order(root):
    x, x_test = noise(131, (5, 4, 1)), noise(11, (5, 4, 1), seed=1)
    splits = {"train": labelled(x), "test": labelled(x_test)}
    write_set(root, "toy", splits, like=features((5, 4, 1), names=("ant", "bee", "cat")), shards=3, version="2.0.1")
    for _ in ("decoded", "from the cache"):
        raw = read_images("toy")
        np.testing.assert_array_equal(raw.x, x)
        np.testing.assert_array_equal(raw.x_test, x_test)
        np.testing.assert_array_equal(raw.y, np.arange(131) % 3)
        np.testing.assert_array_equal(raw.y_test, np.arange(11) % 3)
        assert (raw.x.dtype, raw.y.dtype) == (np.uint8, np.int64)
        assert raw.class_names == ("ant", "bee", "cat")
        assert (raw.name, raw.task, raw.brightness) == ("toy", "classification", 255.0)
        assert raw.x_validation is None
        assert raw.notes == ()
        assert raw.description == "toy 2.0.1 by TFDS: 5x4 grey images in three classes, 131 and 11."


def test_images_of_various_sizes_are_resized(root):
    colours = noise(20, (3,))
    rows = [
        (png(np.broadcast_to(colour, (9 + row, 40 - row, 3)).copy()), row % 3) for row, colour in enumerate(colours)
    ]
    write_set(root, "toy", {"train": rows})
    raw = read_images("toy")
    np.testing.assert_array_equal(raw.x, np.broadcast_to(colours[:, None, None], (20, 32, 32, 3)))
    assert raw.notes == ("Images of various sizes were resized to 32x32 (Lanczos).",)
    assert raw.description == "toy 1.0.0 by TFDS: colour images of various sizes in three classes, 20."
    assert read_images("toy", image_size=7).x.shape == (20, 7, 7, 3)
    with pytest.raises(DataError, match="image_size=0, but a whole number of pixels from 1 is wanted, such as 32"):
        read_images("toy", image_size=0)


def test_resizing_neither_aliases_nor_turns(root):
    fine = np.indices((64, 64)).sum(0)[..., None] % 2 * np.uint8(255)  # a chessboard of single pixels
    halves = np.repeat(np.array([0, 200], np.uint8), 32)[:, None, None] * np.ones((1, 64, 1), np.uint8)  # dark above
    rows = [(png(fine.astype(np.uint8)), 0), (png(halves), 1), (png(halves), 2)]
    write_set(root, "toy", {"train": rows}, like=features((64, 64, 1)))
    raw = read_images("toy", image_size=16)
    assert raw.notes == ("Images of 64x64 were resized to 16x16 (Lanczos).",)
    inside = raw.x[0, 2:-2, 2:-2].astype(int)
    assert abs(inside - 127.5).max() < 8  # every fourth pixel alone would be 0 or 255
    assert raw.x[1, :6].max() <= 1
    assert raw.x[1, -6:].min() >= 199


def test_the_size_that_images_have_changes_nothing(root, decoded, tmp_path):
    write_set(root, "toy", {"train": labelled(noise(9, (6, 6, 1)))}, like=features((6, 6, 1)))
    plain, same = read_images("toy"), read_images("toy", image_size=6)
    np.testing.assert_array_equal(plain.x, same.x)
    assert same.notes == ()
    assert decoded == ["toy"]
    assert read_images("toy", image_size=3).x.shape == (9, 3, 3, 1)
    assert decoded == ["toy", "toy"]
    assert len(list((tmp_path / "cache").glob("toy-1.0.0-*.npz"))) == 2


def test_channels_are_those_of_the_feature_however_an_image_is_stored(root):
    colour = Image.fromarray(noise(1, (4, 4, 3))[0])
    grey = Image.fromarray(noise(1, (4, 4))[0])
    with_alpha = colour.copy()
    with_alpha.putalpha(100)
    few = colour.quantize(4)
    write_set(root, "toy", {"train": [(encoded(image), 0) for image in (colour, grey, with_alpha, few)]}, like=None)
    x = read_images("toy", image_size=4).x
    np.testing.assert_array_equal(x[0], np.asarray(colour))
    np.testing.assert_array_equal(x[1], np.repeat(np.asarray(grey)[..., None], 3, axis=-1))
    np.testing.assert_array_equal(x[2], np.asarray(colour))
    np.testing.assert_array_equal(x[3], np.asarray(few.convert("RGB")))
    assert len(np.unique(x[3].reshape(-1, 3), axis=0)) == 4


@pytest.mark.parametrize(
    ("given", "used", "notes"),
    [
        ({"train": 9}, (9, 0, 0), ()),
        ({"train": 9, "test": 6}, (9, 0, 6), ()),
        ({"train": 9, "validation": 3, "test": 6}, (9, 3, 6), ()),
        (
            {"train": 9, "validation": 3},
            (9, 0, 3),
            ("The validation split (3 rows) is the test set: there is no test split.",),
        ),
        (
            {"extra": 12, "test": 6, "train": 9},
            (9, 0, 6),
            ("The split extra (12 rows) was left out: it belongs to neither training nor test.",),
        ),
    ],
)
def test_published_splits(root, given, used, notes):
    images = {split: noise(count, (2, 2, 1), seed=count) for split, count in given.items()}
    write_set(root, "toy", {split: labelled(x) for split, x in images.items()}, like=features((2, 2, 1)))
    raw = read_images("toy")
    assert raw.notes == notes
    parts = [(raw.x, raw.y), (raw.x_validation, raw.y_validation), (raw.x_test, raw.y_test)]
    for (x, y), count in zip(parts, used, strict=True):
        if count:
            np.testing.assert_array_equal(x, noise(count, (2, 2, 1), seed=count))
            np.testing.assert_array_equal(y, np.arange(count) % 3)
        else:
            assert x is None
            assert y is None


def test_rows_are_counted_in_the_description(root):
    sizes = {"train": 1200, "validation": 3, "test": 6}
    one = png(noise(1, (2, 2, 4))[0])
    names = [str(label) for label in range(13)]
    splits = {split: [(one, row % 13) for row in range(count)] for split, count in sizes.items()}
    write_set(root, "toy/small", splits, like=features((2, 2, 4), names))
    expected = "toy/small 1.0.0 by TFDS: 2x2 images of 4 channels in 13 classes, 1,200 and 6, and 3 for validation."
    assert read_images("toy/small").description == expected


def test_a_test_split_without_labels_is_left_out(root):
    hidden = [(pixels, -1) for pixels, _ in labelled(noise(4, (2, 2, 1)))]
    rows = labelled(noise(6, (2, 2, 1)))
    write_set(root, "toy", {"train": rows, "test": hidden, "validation": rows[:3]}, like=features((2, 2, 1)))
    raw = read_images("toy")
    assert (len(raw.x), len(raw.x_test), raw.x_validation) == (6, 3, None)
    assert raw.notes == (
        "The validation split (3 rows) is the test set: the test split has no labels.",
        "The split test (4 rows) was left out: its rows have no labels.",
    )
    write_set(root, "wrong", {"train": hidden}, like=features((2, 2, 1)))
    with pytest.raises(DataError, match="row 0 of train, counted from 0, has label -1"):
        read_images("wrong")


def test_classes_without_rows_are_told(root):
    rows = labelled(noise(6, (2, 2, 1)), num_classes=2)
    write_set(root, "toy", {"train": rows}, like=features((2, 2, 1), names=("none", "one", "two", "three")))
    assert read_images("toy").notes == ("2 of the 4 declared classes have no row: two, three.",)


def test_a_configuration_is_read_by_its_full_name(root, tmp_path):
    x = {config: noise(3, (2, 2, 1), seed=seed) for seed, config in enumerate(("digits.v2", "letters"))}
    for config, images in x.items():
        write_set(root, f"toy/{config}", {"train": labelled(images)}, like=features((2, 2, 1)))
    for config, images in x.items():
        np.testing.assert_array_equal(read_images(f"toy/{config}").x, images)
    assert len(list((tmp_path / "cache").glob("toy.*-1.0.0-*.npz"))) == 2
    with pytest.raises(DataError, match=r"^toy has configurations: write toy/digits.v2 or toy/letters$"):
        read_images("toy")


def features_of(**others):
    return features((2, 2, 1), **others)


@pytest.mark.parametrize(
    ("make", "row", "message"),
    [
        (
            lambda: features_of(label=tfds.features.Sequence(tfds.features.ClassLabel(num_classes=3))),
            {"label": [0, 2]},
            r"^toy has the features image \(Image\), label \(Sequence\), but image \(Image\) and label \(ClassLabel\) "
            "are wanted: choose an image-classification set$",
        ),
        (lambda: tfds.features.FeaturesDict({"text": tfds.features.Text()}), {"text": "a"}, r"features text \(Text\)"),
        (
            lambda: features_of(image=tfds.features.Image(shape=(2, 2, 1), dtype=np.uint16)),
            {},
            "^toy has images of dtype uint16, but uint8 is wanted: choose another set$",
        ),
        (lambda: features_of(image=tfds.features.Image(shape=(2, 2, 0))), {}, r"images of shape \(2, 2, 0\), but"),
        (lambda: features_of(label=tfds.features.ClassLabel(num_classes=1)), {}, "has num_classes=1, but at least 2"),
    ],
)
def test_a_set_of_another_kind_is_refused(root, make, row, message):
    like = make()
    full = {"image": png(noise(1, (2, 2, 1))[0]), "label": 0} | row
    write_set(root, "toy", {"train": [{key: full[key] for key in like}]}, like=like)
    with pytest.raises(DataError, match=message):
        read_images("toy")


def test_a_set_without_training_rows_is_refused(root):
    write_set(root, "toy", {"test": labelled(noise(3, (2, 2, 1)))}, like=features((2, 2, 1)))
    with pytest.raises(DataError, match=r"^toy has no train split \(it has test\), but rows to train on are wanted: c"):
        read_images("toy")


def test_damaged_files_are_named(root):
    folder = write_set(root, "toy", {"train": labelled(noise(8, (2, 2, 1)))}, like=features((2, 2, 1)), shards=2)
    first, _ = sorted(folder.glob("*.array_record*"))
    whole = first.read_bytes()
    for content in (b"no record", whole[: len(whole) // 2], b""):
        first.write_bytes(content)
        with pytest.raises(DataError, match=rf"^toy in {folder} cannot be read \(.*: remove that folder and prepare"):
            read_images("toy")
    first.unlink()
    with pytest.raises(DataError, match=r"cannot be read \(1 of 2 record files are there\): remove that folder and"):
        read_images("toy")
    first.write_bytes(whole)
    assert len(read_images("toy").x) == 8
    (folder / "features.json").write_text("[]")
    with pytest.raises(DataError, match=r"cannot be read \(.*: remove that folder and prepare it again$"):
        read_images("toy")


def test_an_image_of_another_size_than_declared_is_an_error(root):
    write_set(root, "toy", {"train": [(png(noise(1, (3, 2, 1))[0]), 0)]}, like=features((2, 3, 1)))
    with pytest.raises(DataError, match="an image is 3x2, not 2x3"):
        read_images("toy")


def test_sixteen_bits_are_not_cut_to_eight(root):
    deep = Image.fromarray(np.full((2, 2), 60_000, np.uint16))
    write_set(root, "toy", {"train": [(encoded(deep), 0)]}, like=features((2, 2, 1)))
    with pytest.raises(DataError, match="more than 8 bits a channel"):
        read_images("toy")


def test_the_cache_is_rebuilt_where_it_is_damaged(root, decoded, tmp_path):
    x = noise(40, (4, 4, 1))
    write_set(root, "toy", {"train": labelled(x)}, like=features((4, 4, 1)))
    for _ in range(2):
        read_images("toy")
    assert decoded == ["toy"]
    (cached,) = (tmp_path / "cache").glob("*.npz")
    checksum = cached.with_suffix(".sha256")
    assert checksum.read_text().strip() == hashlib.sha256(cached.read_bytes()).hexdigest()
    whole = bytearray(cached.read_bytes())
    whole[len(whole) // 2] ^= 0xFF
    for damage in (bytes(whole), bytes(whole[:100]), b""):
        cached.write_bytes(damage)
        np.testing.assert_array_equal(read_images("toy").x, x)
    checksum.unlink()
    np.testing.assert_array_equal(read_images("toy").x, x)
    assert decoded == ["toy"] * 5
    np.testing.assert_array_equal(read_images("toy").x, x)
    assert decoded == ["toy"] * 5
    assert sorted(path.suffix for path in cached.parent.iterdir()) == [".npz", ".sha256"]


def test_another_preparation_of_the_same_version_is_decoded_anew(root, decoded):
    folder = write_set(root, "toy", {"train": labelled(noise(4, (2, 2, 1)))}, like=features((2, 2, 1)))
    read_images("toy")
    info = json.loads((folder / "dataset_info.json").read_text())
    (folder / "dataset_info.json").write_text(json.dumps(info | {"description": "another"}))
    read_images("toy")
    assert decoded == ["toy"] * 2


def test_a_cache_that_cannot_be_written_only_warns(root, tmp_path, monkeypatch):
    x = noise(4, (2, 2, 1))
    write_set(root, "toy", {"train": labelled(x)}, like=features((2, 2, 1)))
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HMCVI_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.warns(UserWarning, match="set HMCVI_CACHE to a folder that can be written to"):
        raw = read_images("toy")
    np.testing.assert_array_equal(raw.x, x)


def test_memory_is_asked_for_before_anything_is_decoded_or_loaded(root, decoded, monkeypatch):
    write_set(root, "toy", {"train": labelled(noise(4, (2, 2, 1)))}, like=features((2, 2, 1)))
    available = tfds_images.OVERHEAD / memory.SHARE
    monkeypatch.setattr(memory, "available_bytes", lambda: available)
    with pytest.raises(DataError, match=r"^toy \(4 images of 2x2\) needs about .*: pass a smaller image size$"):
        read_images("toy")
    assert decoded == []
    available += 4 * (2 * 2 + 8) / memory.SHARE + 1
    assert len(read_images("toy").x) == 4
    available -= 2
    with pytest.raises(DataError, match="pass a smaller image size"):
        read_images("toy")
    assert decoded == ["toy"]


PEAK = """
import sys
from pathlib import Path
import numpy as np
import hmcvi.inference.memory  # which asks how much is left: JAX is no part of the images
from hmcvi.benchmarks.tfds_images import OVERHEAD, read_images
def peak():
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])
before = peak()
raw = read_images("toy")
print(peak() - before - raw.x.nbytes - raw.y.nbytes - OVERHEAD)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system does not say how much memory was used")
def test_no_more_memory_is_taken_than_was_asked_for(root):
    one = png(noise(1, (200, 200, 3))[0])
    write_set(
        root, "toy", {"train": [(one, 0)] * 1000}, like=features((200, 200, 3))
    )  # 120 MB: a copy would not go unseen
    for _ in ("decoded", "from the cache"):
        run = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stderr
        assert int(run.stdout) < 0


def test_a_published_split_is_kept(root):
    splits = {"train": labelled(noise(40, (4, 4, 1)), 10), "test": labelled(noise(20, (4, 4, 1), seed=1), 10)}
    names = [str(label) for label in range(10)]
    write_set(root, "toy", splits, like=features((4, 4, 1), names))
    first, other = load("toy", seed=0), load("toy", seed=1)
    np.testing.assert_array_equal(first.x_test, other.x_test)
    assert first.x_train.shape == (40, 16)
    assert load("toy", seed=0, rows=10, image=True).x_train.shape == (10, 4, 4, 1)
    held = load("toy", seed=0, held_out_classes=(0, 1))
    assert (len(held.x_train), len(held.x_test), len(held.x_held_out)) == (32, 16, 12)


# The folder is read when this file is imported, before the fixture above points to an empty one.
PREPARED = os.environ.get("TFDS_DATA_DIR")


@needs_tfds
@pytest.mark.parametrize(
    ("name", "shape", "sizes", "mean"),
    [
        # the published means of the training pixels; CIFAR-10's tolerance covers copies rebuilt from JPEG
        ("mnist", (28, 28, 1), (60_000, 10_000), 0.1307),
        ("cifar10", (32, 32, 3), (50_000, 10_000), 0.4734),
    ],
)
def test_prepared_tfds_images(name, shape, sizes, mean):
    raw = read_images(name, data_dir=PREPARED)
    assert raw.x.shape == (sizes[0], *shape)
    assert raw.x_test.shape == (sizes[1], *shape)
    assert raw.x.dtype == np.uint8
    assert abs(raw.x.mean(dtype=np.float64) / 255 - mean) < 5e-4
    assert np.bincount(raw.y_test).tolist() == (
        [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009] if name == "mnist" else [1000] * 10
    )
    assert raw.notes == ()
