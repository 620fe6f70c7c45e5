"""Which TFDS image sets there are: prepared on this disk, or known.

All but `is_known_to_tfds` and `builders` read the disk alone: TFDS's own `builder(name)` starts to download where a
set is not prepared and, without a network, tries for 204 seconds before it says so.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .paths import as_path
from .raw import DataError

__all__ = [
    "KNOWN",
    "Entry",
    "builders",
    "check_name",
    "damaged",
    "data_folder",
    "find_prepared",
    "image_and_label",
    "is_known_to_tfds",
    "listed_names",
    "prepared",
    "read_entry",
    "records",
    "versions_in",
]

NAME = re.compile(r"\w+(/[\w.-]+)?")
VERSION = re.compile(r"\d+\.\d+\.\d+")

SHOWN = 12
"""Names that a sentence lists at most: some sets have a hundred configurations."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One TFDS image-classification set.

    Attributes:
        name: NAME, or NAME/CONFIG where the set has configurations.
        rows: how many rows each split has, by the split's name; always a "train".
        shape: (height, width, channel) of an image; height and width are None where images differ.
        num_classes: how many classes the labels are declared to have.
        version: the prepared version; None for a set that is only known.
    """

    name: str
    rows: Mapping[str, int] = field(hash=False)
    shape: tuple[int | None, int | None, int]
    num_classes: int
    version: str | None = None

    @property
    def test_split(self) -> str | None:
        """The split to test on: "test", else "validation", else None (the training rows are to be split)."""
        return next((split for split in ("test", "validation") if split in self.rows), None)


# Rows, shape and classes as TFDS's catalogue has them (docs/catalog in its repository), shape and classes also as its
# builders declare them. emnist/letters counts 37 classes, of which its labels use 26.
KNOWN: tuple[Entry, ...] = tuple(
    Entry(name=name, rows={"train": train} | ({"test": test} if test else {}), shape=shape, num_classes=classes)
    for name, train, test, shape, classes in (
        ("mnist", 60_000, 10_000, (28, 28, 1), 10),
        ("fashion_mnist", 60_000, 10_000, (28, 28, 1), 10),
        ("kmnist", 60_000, 10_000, (28, 28, 1), 10),
        ("emnist/balanced", 112_800, 18_800, (28, 28, 1), 47),
        ("emnist/letters", 88_800, 14_800, (28, 28, 1), 37),
        ("cmaterdb/bangla", 5_000, 1_000, (32, 32, 3), 10),
        ("cifar10", 50_000, 10_000, (32, 32, 3), 10),
        ("cifar100", 50_000, 10_000, (32, 32, 3), 100),
        ("svhn_cropped", 73_257, 26_032, (32, 32, 3), 10),
        ("stl10", 5_000, 8_000, (96, 96, 3), 10),
        ("tf_flowers", 3_670, 0, (None, None, 3), 5),
    )
)


def data_folder(data_dir: str | os.PathLike[str] | None = None) -> Path:
    """The TFDS folder: `data_dir`, else `$TFDS_DATA_DIR`, else TFDS's own `~/tensorflow_datasets`."""
    return as_path(data_dir or os.environ.get("TFDS_DATA_DIR") or Path.home() / "tensorflow_datasets")


def find_prepared(name: str, *, data_dir: str | os.PathLike[str] | None = None) -> Path:
    """Find the newest prepared version of a TFDS data set by looking at the disk only.

    What TFDS itself calls prepared is a folder `NAME/VERSION` or `NAME/CONFIG/VERSION` with a
    `dataset_info.json`, which it writes elsewhere and moves there when all is done.

    Args:
        name: NAME or NAME/CONFIG.
        data_dir: see `data_folder`.

    Raises:
        DataError: no such folder, one whose records need TensorFlow to be read, or a NAME of which only
            configurations are prepared.

    Example:
        >>> find_prepared("mnist", data_dir="/nowhere")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        hmcvi.benchmarks.raw.DataError: mnist is not prepared in /nowhere: prepare it with "hmcvi data prepare mnist ...
    """
    check_name(name)
    root = data_folder(data_dir)
    versions = versions_in(root / name)
    if not versions:
        configurations = sorted(f"{name}/{folder.name}" for folder in (root / name).glob("*") if versions_in(folder))
        if configurations and "/" not in name:
            raise DataError(f"{name} has configurations: write {listed_names(configurations, 'or')}")
        raise DataError(
            f"{name} is not prepared in {root}: "
            + _how_to_prepare(name, data_dir, "needs a network and pip install 'hmcvi[prepare]'")
        )
    if not records(versions[0]):
        raise DataError(
            f"{name} in {versions[0]} has no ArrayRecord files, which are read without TensorFlow: "
            + _how_to_prepare(name, data_dir, "converts it if it is there as TFRecord")
        )
    return versions[0]


def read_entry(name: str, folder: Path) -> Entry:
    """Read what a prepared folder holds from its two JSON files.

    Args:
        name: what to call the set.
        folder: the folder of one version, as `find_prepared` returns it.

    Raises:
        DataError: not images of uint8 with one label each and rows to train on, or damaged files.
    """
    try:
        info = json.loads((folder / "dataset_info.json").read_text())
        features = json.loads((folder / "features.json").read_text())
        shards = {split["name"]: split.get("shardLengths", ()) for split in info.get("splits", ())}
        rows = {split: sum(int(length) for length in lengths) for split, lengths in shards.items()}
        shape, num_classes = image_and_label(name, features.get("featuresDict", {}).get("features", {}))
    except DataError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise damaged(name, folder, f"{type(error).__name__}: {error}") from error
    wanted = sum(len(lengths) for lengths in shards.values())
    if len(records(folder)) < wanted:
        raise damaged(name, folder, f"{len(records(folder))} of {wanted} record files are there")
    rows = {split: count for split, count in rows.items() if count}
    if "train" not in rows:
        raise DataError(
            f"{name} has no train split (it has {', '.join(sorted(rows)) or 'no rows'}), but rows to train on are "
            "wanted: choose another set"
        )
    return Entry(name=name, rows=rows, shape=shape, num_classes=num_classes, version=folder.name)


def prepared(data_dir: str | os.PathLike[str] | None = None) -> list[Entry]:
    """Every set in the TFDS folder that can be read without TensorFlow, in the order of names."""
    root = data_folder(data_dir)
    entries = []
    for folder in sorted(path for pattern in ("*", "*/*") for path in root.glob(pattern) if versions_in(path)):
        name = folder.relative_to(root).as_posix()
        with contextlib.suppress(DataError):
            entries.append(read_entry(name, find_prepared(name, data_dir=root)))
    return entries


def is_known_to_tfds(name: str) -> bool:
    """Whether the installed TFDS can prepare NAME, or the NAME of NAME/CONFIG; half a second, no network."""
    return NAME.fullmatch(name) is not None and name.partition("/")[0] in builders()


def damaged(name: str, folder: Path, reason: str) -> DataError:
    """The error for a prepared folder whose files are not what they should be."""
    return DataError(f"{name} in {folder} cannot be read ({reason}): remove that folder and prepare it again")


# --- on the disk


def check_name(name: str) -> None:
    """Raise DataError unless this could be NAME or NAME/CONFIG; a path out of the TFDS folder could not."""
    if not NAME.fullmatch(name):
        raise DataError(
            f"{name!r} cannot be a TFDS set: NAME or NAME/CONFIG is wanted, such as mnist or emnist/letters"
        )


def versions_in(folder: Path) -> list[Path]:
    """The prepared versions in a folder, newest first."""
    versions = [
        path for path in folder.glob("*") if VERSION.fullmatch(path.name) and (path / "dataset_info.json").is_file()
    ]
    return sorted(versions, key=lambda path: tuple(int(part) for part in path.name.split(".")), reverse=True)


def records(folder: Path) -> list[Path]:
    """The ArrayRecord files in a folder."""
    return list(folder.glob("*.array_record*"))


def image_and_label(name: str, features: Mapping[str, Any]) -> tuple[tuple[int | None, int | None, int], int]:
    """The image's shape and the number of classes, from features as TFDS writes them to features.json."""
    kinds = {key: str(value.get("pythonClassName", "?")).rpartition(".")[2] for key, value in features.items()}
    if kinds.get("image") != "Image" or kinds.get("label") != "ClassLabel":
        listed = ", ".join(f"{key} ({kind})" for key, kind in sorted(kinds.items()))
        raise DataError(
            f"{name} has the features {listed or 'of no known kind'}, but image (Image) and label (ClassLabel) are "
            "wanted: choose an image-classification set"
        )
    image = features["image"]["image"]
    if image["dtype"] != "uint8":
        raise DataError(f"{name} has images of dtype {image['dtype']}, but uint8 is wanted: choose another set")
    shape = [None if int(size) < 0 else int(size) for size in image["shape"].get("dimensions", ())]
    channels = shape[-1] if len(shape) == 3 else None
    if channels not in (1, 2, 3, 4):
        raise DataError(
            f"{name} has images of shape {tuple(shape)}, but (height, width, channel) with one to four channels is "
            "wanted: choose another set"
        )
    num_classes = int(features["label"]["classLabel"].get("numClasses", 0))
    if num_classes < 2:
        raise DataError(f"{name} has num_classes={num_classes}, but at least 2 classes are wanted: choose another set")
    return (shape[0], shape[1], channels), num_classes


def _how_to_prepare(name: str, data_dir: str | os.PathLike[str] | None, remark: str) -> str:
    option = f" --data-dir {shlex.quote(os.fspath(data_dir))}" if data_dir else ""
    return (
        f'prepare it with "hmcvi data prepare {name}{option}" ({remark}), or point TFDS_DATA_DIR or --data-dir to a '
        "folder that holds it"
    )


def listed_names(names: Sequence[str], word: str) -> str:
    """The names as a sentence has them: "a, b or c", cut where there are many."""
    if len(names) > SHOWN:
        return f"one of {', '.join(names[:SHOWN])} and {len(names) - SHOWN} more"
    return f" {word} ".join(part for part in (", ".join(names[:-1]), names[-1]) if part)


def builders() -> list[str]:
    """The names that the installed TFDS knows."""
    import tensorflow_datasets as tfds

    return tfds.list_builders(with_community_datasets=False)
