"""Which TFDS image sets there are: prepared on this disk, known, and how another one is prepared.

Everything but `is_known_to_tfds` and `prepare` reads the disk alone: TFDS's own `builder(name)` starts to download
where a set is not prepared and, without a network, tries for 204 seconds before it says so.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import json
import os
import re
import shlex
import socket
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from .raw import DataError

__all__ = [
    "KNOWN",
    "Entry",
    "damaged",
    "data_folder",
    "find_prepared",
    "is_known_to_tfds",
    "prepare",
    "prepared",
    "read_entry",
]

NAME = re.compile(r"\w+(/[\w.-]+)?")
VERSION = re.compile(r"\d+\.\d+\.\d+")

PORTS = {"http": 80, "https": 443, "ftp": 21}

MOST_HOSTS = 3
"""Hosts that are asked before a set counts as out of reach: a few sets are gathered from thousands."""

CONNECT_SECONDS = 5.0

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
    return Path(data_dir or os.environ.get("TFDS_DATA_DIR") or Path.home() / "tensorflow_datasets").expanduser()


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
    _check_name(name)
    root = data_folder(data_dir)
    versions = _versions(root / name)
    if not versions:
        configurations = sorted(f"{name}/{folder.name}" for folder in (root / name).glob("*") if _versions(folder))
        if configurations and "/" not in name:
            raise DataError(f"{name} has configurations: write {_listed(configurations, 'or')}")
        raise DataError(
            f"{name} is not prepared in {root}: "
            + _how_to_prepare(name, data_dir, "needs a network and pip install 'hmcvi[prepare]'")
        )
    if not _records(versions[0]):
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
        shape, num_classes = _image_and_label(name, features.get("featuresDict", {}).get("features", {}))
    except DataError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise damaged(name, folder, f"{type(error).__name__}: {error}") from error
    wanted = sum(len(lengths) for lengths in shards.values())
    if len(_records(folder)) < wanted:
        raise damaged(name, folder, f"{len(_records(folder))} of {wanted} record files are there")
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
    for folder in sorted(path for pattern in ("*", "*/*") for path in root.glob(pattern) if _versions(path)):
        name = folder.relative_to(root).as_posix()
        with contextlib.suppress(DataError):
            entries.append(read_entry(name, find_prepared(name, data_dir=root)))
    return entries


def is_known_to_tfds(name: str) -> bool:
    """Whether the installed TFDS can prepare NAME, or the NAME of NAME/CONFIG; half a second, no network."""
    return NAME.fullmatch(name) is not None and name.partition("/")[0] in _builders()


def prepare(name: str, *, data_dir: str | os.PathLike[str] | None = None) -> Path:
    """Download and prepare a TFDS set as ArrayRecord; one that is prepared already is left alone.

    A set that is there as TFRecord is converted, which needs neither TensorFlow nor a network. TFDS writes into
    a folder of another name and renames it at the end, so that what was interrupted never counts as prepared.

    Args:
        name: NAME or NAME/CONFIG.
        data_dir: see `data_folder`; downloads are kept in its `downloads` folder.

    Returns:
        The folder, as `find_prepared` finds it.

    Raises:
        DataError: an unknown name, no TensorFlow, no network, a set without images or labels, one that must be
            downloaded by hand, and whatever else TFDS fails on.
    """
    _check_name(name)
    root = data_folder(data_dir)
    versions = _versions(root / name)
    if not versions:
        known, base = _builders(), name.partition("/")[0]
        if base not in known:
            close = difflib.get_close_matches(base, known, n=1)
            raise DataError(
                f"TFDS has no set {name!r}: " + (f"did you mean {close[0]}?" if close else "check the name")
            )
        _import_tensorflow()
        _download(name, root)
    elif not _records(versions[0]):
        _convert(name, versions[0])
    folder = find_prepared(name, data_dir=data_dir)
    read_entry(name, folder)
    return folder


def damaged(name: str, folder: Path, reason: str) -> DataError:
    """The error for a prepared folder whose files are not what they should be."""
    return DataError(f"{name} in {folder} cannot be read ({reason}): remove that folder and prepare it again")


# --- on the disk


def _check_name(name: str) -> None:
    if not NAME.fullmatch(name):
        raise DataError(
            f"{name!r} cannot be a TFDS set: NAME or NAME/CONFIG is wanted, such as mnist or emnist/letters"
        )


def _versions(folder: Path) -> list[Path]:
    """The prepared versions in a folder, newest first."""
    versions = [
        path for path in folder.glob("*") if VERSION.fullmatch(path.name) and (path / "dataset_info.json").is_file()
    ]
    return sorted(versions, key=lambda path: tuple(int(part) for part in path.name.split(".")), reverse=True)


def _records(folder: Path) -> list[Path]:
    return list(folder.glob("*.array_record*"))


def _image_and_label(name: str, features: Mapping[str, Any]) -> tuple[tuple[int | None, int | None, int], int]:
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


def _listed(names: Sequence[str], word: str) -> str:
    if len(names) > SHOWN:
        return f"one of {', '.join(names[:SHOWN])} and {len(names) - SHOWN} more"
    return f" {word} ".join(part for part in (", ".join(names[:-1]), names[-1]) if part)


def _convert(name: str, folder: Path) -> None:
    """Add ArrayRecord files to a folder of TFRecord ones: TFDS keeps several formats side by side."""
    from tensorflow_datasets.core.file_adapters import ArrayRecordFileAdapter

    made: dict[Path, Path] = {}
    try:
        info = json.loads((folder / "dataset_info.json").read_text())
        lengths = [int(length) for split in info["splits"] for length in split.get("shardLengths", ())]
        sources = sorted(folder.glob("*.tfrecord*"))
        if not sources or len(sources) != len(lengths):
            raise ValueError(f"{len(sources)} of {len(lengths)} TFRecord files are there")
        written = 0
        for number, source in enumerate(sources):
            # Under names that do not count as ArrayRecord until all are whole.
            partial = folder / f"{number}.partial"
            made[partial] = folder / source.name.replace(".tfrecord", ".array_record")
            ArrayRecordFileAdapter.write_examples(partial, enumerate(_tfrecords(source)))
            written += ArrayRecordFileAdapter.num_examples(partial)
        if written != sum(lengths):
            raise ValueError(f"{written} of {sum(lengths)} records are there")
        info["alternativeFileFormats"] = sorted({*info.get("alternativeFileFormats", ()), "array_record"})
        rewritten = folder / "info.partial"
        made[rewritten] = folder / "dataset_info.json"
        rewritten.write_text(json.dumps(info, indent=2))
        for partial, target in reversed(made.items()):  # the info first: without files, its word does no harm
            partial.replace(target)
    except (ValueError, KeyError, struct.error) as error:
        raise damaged(name, folder, f"{type(error).__name__}: {error}") from error
    except Exception as error:  # a full disk, a folder that cannot be written to: array_record raises its own kinds
        raise DataError(
            f"{name} in {folder} cannot be converted to ArrayRecord ({type(error).__name__}: {_sentence(error)}): put "
            "that right and run it again"
        ) from error
    finally:
        for partial in made:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)


def _tfrecords(path: Path) -> Iterator[bytes]:
    """The records of a TFRecord file: each is its length, a checksum of that, the bytes, and their checksum."""
    with path.open("rb") as file:
        while header := file.read(12):
            (length,) = struct.unpack("<Q", header[:8])
            record = file.read(length)
            if len(record) != length or len(file.read(4)) != 4:
                raise ValueError(f"{path.name} ends within a record")
            yield record


# --- by TFDS


def _builders() -> list[str]:
    import tensorflow_datasets as tfds

    return tfds.list_builders(with_community_datasets=False)


def _import_tensorflow() -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # its remarks on processors and GPUs are no concern here
    try:
        importlib.import_module("tensorflow")
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name == "tensorflow"
        raise DataError(
            "hmcvi data prepare needs TensorFlow, which "
            + ("is not installed here" if missing else f"cannot be imported here ({_sentence(error)})")
            + ": pip install 'hmcvi[prepare]'"
        ) from error


def _download(name: str, root: Path) -> None:
    import tensorflow_datasets as tfds

    base, _, configuration = name.partition("/")
    try:
        configurations = list(tfds.builder_cls(base).builder_configs)
        if configurations and configuration not in configurations:
            names = [f"{base}/{other}" for other in configurations]
            if not configuration:
                raise DataError(f"{name} has configurations: write {_listed(names, 'or')}")
            raise DataError(f"{base} has no configuration {configuration!r}: write {_listed(names, 'or')}")
        if configuration and not configurations:
            raise DataError(f"{base} has no configurations: write {base}")
        builder = tfds.builder(name, data_dir=root, file_format="array_record")
        _image_and_label(name, builder.info.features.to_json()["content"].get("features", {}))
        downloads = root / "downloads"
        instructions = builder.MANUAL_DOWNLOAD_INSTRUCTIONS
        if instructions and not any((downloads / "manual").glob("*")):
            raise DataError(
                f"{name} must be downloaded by hand into {downloads / 'manual'} before it is prepared; TFDS says: "
                + _sentence(instructions)
            )
        _check_network(name, builder.url_infos or {}, downloads)
        # Google's copies of prepared sets are TFRecord, and asking for them costs minutes without a network.
        builder.download_and_prepare(download_config=tfds.download.DownloadConfig(try_download_gcs=False))
    except DataError:
        raise
    except Exception as error:  # builders raise what they like: network, disk, archives, missing packages
        raise DataError(
            f"TFDS cannot prepare {name} ({type(error).__name__}: {_sentence(error)}): put that right and run it "
            "again; what was downloaded is kept"
        ) from error


def _check_network(name: str, urls: Mapping[str, Any], downloads: Path) -> None:
    """Raise unless a host of the files that are still to be downloaded can be reached."""
    from tensorflow_datasets.core.download import resource

    if {"http", "https", "all"} & getproxies().keys():
        return  # behind a proxy this machine need not reach, nor know, the host itself
    wanted = [
        urlsplit(url)
        for url, info in urls.items()
        if not (info.filename and (downloads / "manual" / info.filename).exists())
        and not (downloads / resource.get_dl_fname(url, info.checksum)).exists()
    ]
    ports = {url.hostname: url.port or PORTS[url.scheme] for url in wanted if url.hostname and url.scheme in PORTS}
    hosts = list(ports)[:MOST_HOSTS]
    for host in hosts:
        with contextlib.suppress(OSError), socket.create_connection((host, ports[host]), timeout=CONNECT_SECONDS):
            return
    if hosts:
        raise DataError(
            f"{name} is downloaded from {_listed(hosts, 'and')}, which cannot be reached: connect to a network, or "
            f"put the files by hand into {downloads / 'manual'}, and run it again"
        )


def _sentence(error: object, most: int = 300) -> str:
    """Somebody else's message on one line, cut where it is long."""
    text = " ".join(str(error).split())
    return text if len(text) <= most else text[:most].rstrip() + " ..."
