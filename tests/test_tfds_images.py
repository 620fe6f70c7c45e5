"""Images from TFDS: found without a network, decoded once, and the same afterwards."""

import hashlib
import os
import time

import numpy as np
import pytest

from hmcvi.benchmarks import tfds_images
from hmcvi.benchmarks.datasets import DataError, load

needs_tfds = pytest.mark.skipif(
    not os.environ.get("TFDS_DATA_DIR"), reason="TFDS_DATA_DIR names no folder of prepared TFDS data sets"
)


def test_an_unprepared_tfds_set_is_named_at_once(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    start = time.perf_counter()
    with pytest.raises(DataError, match=r"mnist is not prepared in .*set TFDS_DATA_DIR.*download_and_prepare"):
        load("mnist", seed=0)
    # TFDS itself retries the network for 206 s; nothing here touches it
    assert time.perf_counter() - start < 5
    (tmp_path / "mnist" / "3.0.1").mkdir(parents=True)
    (tmp_path / "mnist" / "3.0.1" / "dataset_info.json").write_text("{}")
    with pytest.raises(DataError, match=r"has no ArrayRecord files.*file_format='array_record'"):
        load("mnist", seed=0)
    (tmp_path / "mnist" / "3.0.1" / "mnist-train.array_record-00000-of-00001").write_text("no record")
    with pytest.raises(DataError, match=r"mnist in .* cannot be read \(.*prepare it again"):
        load("mnist", seed=0)


def test_the_newest_prepared_version_is_found(tmp_path):
    for version in ("3.0.9", "3.0.10", "3.0.11.incomplete"):
        (tmp_path / "mnist" / version).mkdir(parents=True)
        (tmp_path / "mnist" / version / "dataset_info.json").write_text("{}")
        (tmp_path / "mnist" / version / "mnist-train.array_record-00000-of-00001").write_text("")
    assert tfds_images.find_prepared("mnist", data_dir=tmp_path).name == "3.0.10"


@pytest.fixture
def decoded(tmp_path, monkeypatch):
    """A prepared folder whose decoder is replaced by one that counts its calls, and an empty cache."""
    folder = tmp_path / "tfds" / "mnist" / "3.0.1"
    folder.mkdir(parents=True)
    (folder / "dataset_info.json").write_text("{}")
    (folder / "mnist-train.array_record-00000-of-00001").write_text("")
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    monkeypatch.setenv("HMCVI_CACHE", str(tmp_path / "cache"))
    calls = []

    def decode(name, path):
        calls.append(name)
        x = np.random.default_rng(0).integers(0, 256, (60, 28, 28, 1), dtype=np.uint8)
        y = np.arange(60) % 10
        names = np.array([str(label) for label in range(10)])
        return {
            "x_train": x[:40],
            "y_train": y[:40],
            "x_test": x[40:],
            "y_test": y[40:],
            "class_names": names,
        }

    monkeypatch.setattr(tfds_images, "_decode", decode)
    return calls


def test_decoded_images_are_cached_and_a_damaged_cache_is_rebuilt(decoded, tmp_path):
    first = load("mnist", seed=0)
    again = load("mnist", seed=0)
    assert decoded == ["mnist"]
    assert first.data_hash == again.data_hash
    (cached,) = (tmp_path / "cache").glob("*.npz")
    checksum = cached.with_suffix(".sha256")
    assert checksum.read_text().strip() == hashlib.sha256(cached.read_bytes()).hexdigest()
    whole = bytearray(cached.read_bytes())
    whole[len(whole) // 2] ^= 0xFF
    for damage in (bytes(whole), bytes(whole[:100]), b""):
        cached.write_bytes(damage)
        assert load("mnist", seed=0).data_hash == first.data_hash
    checksum.unlink()
    assert load("mnist", seed=0).data_hash == first.data_hash
    assert decoded == ["mnist"] * 5
    assert load("mnist", seed=0).data_hash == first.data_hash
    assert decoded == ["mnist"] * 5
    assert sorted(path.suffix for path in cached.parent.iterdir()) == [".npz", ".sha256"]


def test_a_cache_that_cannot_be_written_only_warns(decoded, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HMCVI_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.warns(UserWarning, match="set HMCVI_CACHE to a folder that can be written to"):
        dataset = load("mnist", seed=0, rows=20, held_out_classes=(9,))
    assert dataset.num_classes == 9


def test_a_published_split_is_kept(decoded):
    first, other = load("mnist", seed=0), load("mnist", seed=1)
    np.testing.assert_array_equal(first.x_test, other.x_test)
    assert first.x_train.shape == (40, 784)
    assert load("mnist", seed=0, rows=10, image=True).x_train.shape == (10, 28, 28, 1)
    held = load("mnist", seed=0, held_out_classes=(0, 1))
    assert (len(held.x_train), len(held.x_test), len(held.x_held_out)) == (32, 16, 12)


@needs_tfds
@pytest.mark.parametrize(
    ("name", "shape", "sizes", "mean"),
    [
        # the published means of the training pixels; CIFAR-10's tolerance covers copies rebuilt from JPEG
        ("mnist", (28, 28, 1), (60_000, 10_000), 0.1307),
        ("fashion_mnist", (28, 28, 1), (60_000, 10_000), 0.2860),
        ("cifar10", (32, 32, 3), (50_000, 10_000), 0.4734),
    ],
)
def test_prepared_tfds_images(name, shape, sizes, mean, tmp_path_factory, monkeypatch):
    monkeypatch.setenv("HMCVI_CACHE", str(tmp_path_factory.getbasetemp() / "hmcvi-cache"))
    raw = tfds_images.read_images(name)
    assert (len(raw.x), len(raw.x_test)) == sizes
    assert raw.x.dtype == np.uint8
    assert abs(raw.x.mean(dtype=np.float64) / 255 - mean) < 5e-4
    dataset = load(name, seed=0, rows=200, test_rows=100, image=True)
    assert dataset.image_shape == shape
    assert np.bincount(dataset.y_train).tolist() == [20] * 10
    assert dataset.x_test.shape == (100, *shape)
    assert 0.9 < dataset.x_train.max() <= 1.0
