"""Preparing a TFDS set: download it, or convert what is there, to files that are read without TensorFlow."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import json
import os
import socket
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from .raw import DataError
from .tfds_catalogue import (
    builders,
    check_name,
    damaged,
    data_folder,
    find_prepared,
    image_and_label,
    listed_names,
    read_entry,
    records,
    versions_in,
)

__all__ = ["prepare"]

PORTS = {"http": 80, "https": 443, "ftp": 21}

MOST_HOSTS = 3
"""Hosts that are asked before a set counts as out of reach: a few sets are gathered from thousands."""

CONNECT_SECONDS = 5.0


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
    check_name(name)
    root = data_folder(data_dir)
    versions = versions_in(root / name)
    if not versions:
        known, base = builders(), name.partition("/")[0]
        if base not in known:
            close = difflib.get_close_matches(base, known, n=1)
            raise DataError(
                f"TFDS has no set {name!r}: " + (f"did you mean {close[0]}?" if close else "check the name")
            )
        _import_tensorflow()
        _download(name, root)
    elif not records(versions[0]):
        _convert(name, versions[0])
    folder = find_prepared(name, data_dir=data_dir)
    read_entry(name, folder)
    return folder


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
                raise DataError(f"{name} has configurations: write {listed_names(names, 'or')}")
            raise DataError(f"{base} has no configuration {configuration!r}: write {listed_names(names, 'or')}")
        if configuration and not configurations:
            raise DataError(f"{base} has no configurations: write {base}")
        builder = tfds.builder(name, data_dir=root, file_format="array_record")
        image_and_label(name, builder.info.features.to_json()["content"].get("features", {}))
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
            f"{name} is downloaded from {listed_names(hosts, 'and')}, which cannot be reached: connect to a network, "
            f"or put the files by hand into {downloads / 'manual'}, and run it again"
        )


def _sentence(error: object, most: int = 300) -> str:
    """Somebody else's message on one line, cut where it is long."""
    text = " ".join(str(error).split())
    return text if len(text) <= most else text[:most].rstrip() + " ..."
