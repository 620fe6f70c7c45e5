"""MNIST, Fashion-MNIST and CIFAR-10 from a prepared TFDS folder, without TensorFlow and without a network.

Decoding 60,000 images takes ten seconds, so the decoded arrays are kept as an `.npz` beside its SHA-256 in
`$HMCVI_CACHE` (by default `~/.cache/hmcvi`). A damaged copy is built again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from .raw import DataError, Raw

__all__ = ["DESCRIPTIONS", "cache_folder", "find_prepared", "read_images"]

# The two numbers are training and test rows.
DESCRIPTIONS = {
    "mnist": "28x28 grey images of handwritten digits, 60,000 and 10,000 (LeCun et al. 2010).",
    "fashion_mnist": "28x28 grey images of clothes in ten classes, 60,000 and 10,000 (Xiao et al. 2017).",
    "cifar10": "32x32 colour images in ten classes, 50,000 and 10,000 (Krizhevsky 2009).",
}


def read_images(name: str, *, data_dir: str | os.PathLike[str] | None = None) -> Raw:
    """Read every image of a prepared TFDS data set, as uint8, with its published split.

    Args:
        name: one of `DESCRIPTIONS`.
        data_dir: the TFDS folder; by default `$TFDS_DATA_DIR`, then TFDS's own `~/tensorflow_datasets`.

    Returns:
        `x` and `x_test` (row, height, width, channel) uint8, `y` and `y_test` (row,) int64.

    Raises:
        DataError: the data set is not prepared there, or not in a form that TensorFlow is not needed for.

    Example:
        >>> read_images("mnist", data_dir="/nowhere")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        hmcvi.benchmarks.raw.DataError: mnist is not prepared in /nowhere: ...
    """
    folder = find_prepared(name, data_dir=data_dir)
    cached = cache_folder() / f"{name}-{folder.name}-{_fingerprint(folder)}.npz"
    arrays = _load_cache(cached)
    if arrays is None:
        arrays = _decode(name, folder)
        _save_cache(cached, arrays)
    return Raw(
        name=name,
        x=arrays["x_train"],
        y=arrays["y_train"],
        x_test=arrays["x_test"],
        y_test=arrays["y_test"],
        task="classification",
        class_names=tuple(str(label) for label in arrays["class_names"]),
        brightness=255.0,
        description=DESCRIPTIONS[name],
    )


def cache_folder() -> Path:
    """Where decoded images are kept: `$HMCVI_CACHE`, or `~/.cache/hmcvi`."""
    return Path(os.environ.get("HMCVI_CACHE") or Path.home() / ".cache" / "hmcvi")


def find_prepared(name: str, *, data_dir: str | os.PathLike[str] | None = None) -> Path:
    """Find the newest prepared version of a TFDS data set by looking at the disk only.

    `tfds.builder(name)` asks the network about a set that is not prepared and, without one, tries for 206
    seconds before it says so. A folder `NAME/VERSION` with a `dataset_info.json` is what TFDS itself calls
    prepared.

    Raises:
        DataError: no such folder, or one whose records need TensorFlow to be read.
    """
    root = Path(data_dir or os.environ.get("TFDS_DATA_DIR") or Path.home() / "tensorflow_datasets").expanduser()
    prepare = (
        "set TFDS_DATA_DIR to a folder that holds it, or prepare it (needs a network and tensorflow-cpu): "
        'python -c "import tensorflow_datasets as tfds; '
        f"tfds.builder('{name}', file_format='array_record').download_and_prepare()\""
    )
    versions = [
        folder
        for folder in (root / name).glob("*")
        if re.fullmatch(r"\d+\.\d+\.\d+", folder.name) and (folder / "dataset_info.json").is_file()
    ]
    if not versions:
        raise DataError(f"{name} is not prepared in {root}: {prepare}")
    newest = max(versions, key=lambda folder: tuple(int(part) for part in folder.name.split(".")))
    if not list(newest.glob("*.array_record*")):
        # TFDS writes TFRecord unless told otherwise, and only TensorFlow reads that.
        raise DataError(f"{name} in {newest} has no ArrayRecord files, which are read without TensorFlow: {prepare}")
    return newest


def _fingerprint(folder: Path) -> str:
    """Tell two preparations of one version apart: a CIFAR-10 rebuilt from JPEG copies is also 3.0.2."""
    parts = sorted((file.name, file.stat().st_size) for file in folder.iterdir() if file.is_file())
    info = (folder / "dataset_info.json").read_bytes()
    return hashlib.sha256(info + json.dumps(parts).encode()).hexdigest()[:12]


def _decode(name: str, folder: Path) -> dict[str, np.ndarray]:
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder_from_directory(folder)
        arrays: dict[str, np.ndarray] = {"class_names": np.array(builder.info.features["label"].names)}
        for split in ("train", "test"):
            source: Any = builder.as_data_source(split=split)
            images = np.empty((len(source), *builder.info.features["image"].shape), np.uint8)
            labels = np.empty(len(source), np.int64)
            for row in range(len(source)):
                example = source[row]
                images[row], labels[row] = example["image"], example["label"]
            arrays[f"x_{split}"], arrays[f"y_{split}"] = images, labels
    except Exception as error:  # array_record, protobuf and PIL each raise their own kinds for a damaged record
        raise DataError(f"{name} in {folder} cannot be read ({error}): prepare it again") from error
    return arrays


def _load_cache(path: Path) -> dict[str, np.ndarray] | None:
    """The cached arrays, or None where they are absent or differ from the checksum written with them."""
    try:
        expected = path.with_suffix(".sha256").read_text().strip()
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != expected:
                return None
            file.seek(0)
            with np.load(file, allow_pickle=False) as archive:
                return {key: archive[key] for key in archive.files}
    except OSError:
        return None


def _save_cache(path: Path, arrays: dict[str, np.ndarray]) -> None:
    # The process id keeps two runs that fill the cache at once out of each other's half-written file.
    partial = path.with_suffix(f".{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
        with partial.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        partial.replace(path)
        path.with_suffix(".sha256").write_text(digest + "\n")
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        warnings.warn(
            f"the decoded images were not kept ({error}), so each run decodes them again: "
            "set HMCVI_CACHE to a folder that can be written to",
            stacklevel=2,
        )
