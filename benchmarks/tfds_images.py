"""Images of any prepared TFDS classification set, without TensorFlow and without a network.

Decoding 60,000 images takes five seconds, so the decoded arrays are kept as an `.npz` beside its SHA-256 in
`$HMCVI_CACHE` (by default `~/.cache/hmcvi`). A damaged copy is built again.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
import operator
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from . import memory
from .raw import DataError, Raw
from .tfds_catalogue import Entry, damaged, find_prepared, read_entry

__all__ = ["DESCRIPTIONS", "cache_folder", "read_images"]

# The two numbers are training and test rows.
DESCRIPTIONS = {
    "mnist": "28x28 grey images of handwritten digits, 60,000 and 10,000 (LeCun et al. 2010).",
    "fashion_mnist": "28x28 grey images of clothes in ten classes, 60,000 and 10,000 (Xiao et al. 2017).",
    "cifar10": "32x32 colour images in ten classes, 50,000 and 10,000 (Krizhevsky 2009).",
}

SPLITS = ("train", "validation", "test")
"""The splits that are read, in the order in which rows are counted; others are not, and a note says so."""

VARIOUS = 32
"""The height and width that images of various sizes are resized to unless another is asked for."""

MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
"""What PIL calls images of so many channels, a byte each."""

BATCH = 64
"""Records read at a time: twice as fast as one by one, and more at a time is no faster."""

OVERHEAD = 96 * 2**20
"""Bytes that decoding takes besides the arrays: TFDS, PIL, a batch and the cache's writer took 65 to 73 MiB."""

NUMBERS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]


def read_images(name: str, *, data_dir: str | os.PathLike[str] | None = None, image_size: int | None = None) -> Raw:
    """Read every image of a prepared TFDS data set, as uint8, with its published split.

    Where there is no test split, the validation split takes its place, and `x_validation` is None; where there is
    neither, `x_test` is None. Splits of other names, and a test split without labels, are left out. Notes say so.

    Args:
        name: NAME or NAME/CONFIG, such as "mnist" or "emnist/letters".
        data_dir: the TFDS folder; by default `$TFDS_DATA_DIR`, then TFDS's own `~/tensorflow_datasets`.
        image_size: height and width in pixels to resize every image to; by default their own where all have the
            same, else 32. Resizing is PIL's Lanczos filter, widened when shrinking so that nothing aliases;
            an image that is not square is stretched.

    Returns:
        `x`, `x_test` and `x_validation` (row, height, width, channel) uint8, `y` and so on (row,) int64.

    Raises:
        DataError: the data set is not prepared there, not in a form that TensorFlow is not needed for, holds no
            images of uint8 with one label each, is damaged, or does not fit into memory.

    Example:
        >>> read_images("mnist", data_dir="/nowhere")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        hmcvi.benchmarks.raw.DataError: mnist is not prepared in /nowhere: ...
    """
    folder = find_prepared(name, data_dir=data_dir)
    entry = read_entry(name, folder)
    shape, resize = _shape(entry, image_size)
    size = f"{shape[0]}x{shape[1]}"
    num_rows = sum(entry.rows.get(split, 0) for split in SPLITS)
    memory.require(
        num_rows * (math.prod(shape) + np.dtype(np.int64).itemsize) + OVERHEAD,
        name=f"{name} ({num_rows:,} images of {size})",
        advice="pass a smaller image size",
    )
    version = f"{name.replace('/', '.')}-{folder.name}-{_fingerprint(folder)}"
    cached = cache_folder() / (f"{version}-{size}.npz" if resize else f"{version}.npz")
    arrays = _load_cache(cached)
    if arrays is None:
        arrays = _decode(entry, folder, shape=shape, resize=resize)
        _save_cache(cached, arrays)

    test = next((split for split in ("test", "validation") if f"x_{split}" in arrays), None)
    validation = "validation" if test == "test" and "x_validation" in arrays else None
    return Raw(
        name=name,
        x=arrays["x_train"],
        y=arrays["y_train"],
        x_test=arrays[f"x_{test}"] if test else None,
        y_test=arrays[f"y_{test}"] if test else None,
        x_validation=arrays[f"x_{validation}"] if validation else None,
        y_validation=arrays[f"y_{validation}"] if validation else None,
        task="classification",
        class_names=tuple(str(label) for label in arrays["class_names"]),
        brightness=255.0,
        description=DESCRIPTIONS.get(name) or _describe(entry, test, validation),
        notes=_notes(entry, arrays, test, resized_to=size if resize else None),
    )


def cache_folder() -> Path:
    """Where decoded images are kept: `$HMCVI_CACHE`, or `~/.cache/hmcvi`."""
    return Path(os.environ.get("HMCVI_CACHE") or Path.home() / ".cache" / "hmcvi")


def _shape(entry: Entry, image_size: int | None) -> tuple[tuple[int, int, int], bool]:
    """Height, width and channels that every image gets, and whether they are resized to them."""
    height, width, channels = entry.shape
    if image_size is not None:
        image_size = operator.index(image_size)
        if image_size < 1:
            raise DataError(f"image_size={image_size}, but a whole number of pixels from 1 is wanted, such as 32")
    elif height is not None and width is not None:
        return (height, width, channels), False
    else:
        image_size = VARIOUS
    return (image_size, image_size, channels), (height, width) != (image_size, image_size)


def _describe(entry: Entry, test: str | None, validation: str | None) -> str:
    height, width, channels = entry.shape
    kind = {1: "grey images", 3: "colour images"}.get(channels, f"images of {channels} channels")
    kind = f"{kind} of various sizes" if height is None or width is None else f"{height}x{width} {kind}"
    classes = NUMBERS[entry.num_classes] if entry.num_classes < len(NUMBERS) else f"{entry.num_classes:,}"
    rows = f"{entry.rows['train']:,}" + (f" and {entry.rows[test]:,}" if test else "")
    rows += f", and {entry.rows[validation]:,} for validation" if validation else ""
    return f"{entry.name} {entry.version} by TFDS: {kind} in {classes} classes, {rows}."


def _notes(entry: Entry, arrays: Mapping[str, np.ndarray], test: str | None, resized_to: str | None) -> tuple[str, ...]:
    notes = []
    if resized_to is not None:
        old = "various sizes" if None in entry.shape else f"{entry.shape[0]}x{entry.shape[1]}"
        notes.append(f"images of {old} were resized to {resized_to} (Lanczos)")
    if test == "validation":
        reason = "the test split has no labels" if "test" in entry.rows else "there is no test split"
        notes.append(f"the validation split ({entry.rows[test]:,} rows) is the test set: {reason}")
    for split, count in entry.rows.items():
        if f"x_{split}" not in arrays:
            reason = "its rows have no labels" if split in SPLITS else "it belongs to neither training nor test"
            notes.append(f"the split {split} ({count:,} rows) was left out: {reason}")
    labels = np.concatenate([labels for key, labels in arrays.items() if key.startswith("y_")])
    counts = np.bincount(labels, minlength=entry.num_classes)
    empty = [str(name) for name, count in zip(arrays["class_names"], counts, strict=True) if not count]
    if empty:
        listed = ", ".join(empty[:12]) + (", ..." if len(empty) > 12 else "")
        notes.append(f"{len(empty)} of the {entry.num_classes} declared classes have no row: {listed}")
    return tuple(f"{note[0].upper()}{note[1:]}." for note in notes)


def _fingerprint(folder: Path) -> str:
    """Tell two preparations of one version apart: a CIFAR-10 rebuilt from JPEG copies is also 3.0.2."""
    parts = sorted((file.name, file.stat().st_size) for file in folder.iterdir() if file.is_file())
    info = (folder / "dataset_info.json").read_bytes()
    return hashlib.sha256(info + json.dumps(parts).encode()).hexdigest()[:12]


def _decode(entry: Entry, folder: Path, *, shape: tuple[int, int, int], resize: bool) -> dict[str, np.ndarray]:
    """Images and labels of each split, straight into arrays of their final size: no copies."""
    import tensorflow_datasets as tfds

    raw_bytes = tfds.decode.DeserializeMethod.RAW_BYTES
    arrays: dict[str, np.ndarray] = {}
    try:
        builder = tfds.builder_from_directory(folder)
        arrays["class_names"] = np.array(builder.info.features["label"].names)
        for split in (split for split in SPLITS if split in entry.rows):
            source: Any = builder.as_data_source(split=split, deserialize_method=raw_bytes)
            if split == "test" and _example(source[0])["label"].int64_list.value[0] < 0:
                continue  # TFDS's sign that a competition keeps its test labels to itself
            images = arrays[f"x_{split}"] = np.empty((len(source), *shape), np.uint8)
            labels = arrays[f"y_{split}"] = np.empty(len(source), np.int64)
            for start in range(0, len(source), BATCH):
                rows = range(start, min(start + BATCH, len(source)))
                for row, record in zip(rows, source.__getitems__(rows), strict=True):
                    example = _example(record)
                    images[row] = _pixels(example["image"].bytes_list.value[0], shape, resize)
                    labels[row] = example["label"].int64_list.value[0]
            wrong = np.flatnonzero((labels < 0) | (labels >= entry.num_classes))
            if wrong.size:
                raise ValueError(f"row {wrong[0]} of {split}, counted from 0, has label {labels[wrong[0]]}")
    except Exception as error:  # array_record, protobuf and PIL each raise their own kinds for a damaged record
        raise damaged(entry.name, folder, f"{type(error).__name__}: {error}") from error
    return arrays


def _example(record: bytes) -> Mapping[str, Any]:
    """The features of one record, as TFDS stores them: an image is a PNG or a JPEG, a label a number.

    They are taken apart here because TFDS would decode every other feature too, and because its own decoder for
    NumPy gives a palette's numbers for colours, keeps an alpha channel, and is another where OpenCV is installed.
    """
    from tensorflow_datasets.proto import tf_example_pb2

    return tf_example_pb2.Example.FromString(record).features.feature


def _pixels(encoded: bytes, shape: tuple[int, int, int], resize: bool) -> np.ndarray:
    from PIL import Image

    height, width, channels = shape
    with Image.open(io.BytesIO(encoded)) as image:
        if image.mode.startswith(("I", "F")):
            raise ValueError(f"an image has more than 8 bits a channel (PIL mode {image.mode})")
        picture = image.convert(MODES[channels])  # also what is stored as a palette, or grey in a colour set
    if resize:
        picture = picture.resize((width, height), Image.Resampling.LANCZOS)
    if picture.size != (width, height):
        raise ValueError(f"an image is {picture.height}x{picture.width}, not {height}x{width}")
    return np.asarray(picture).reshape(shape)


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
    except (OSError, ValueError):  # ValueError: a checksum file of bytes that are no text
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
