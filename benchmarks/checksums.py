"""What keeps a run folder's files honest: checksums, no links that lead out, a mark while results are missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hmcvi.inference.durable import sha256_of, write_whole

from .options import UsageError

__all__ = ["INCOMPLETE", "NAME", "read_json", "read_summed", "refuse_links", "write_summed"]

INCOMPLETE = "INCOMPLETE"
"""The file that marks a run whose results are not all there."""

NAME = "SHA256SUMS"
"""The file of the checksums, as `sha256sum --check` reads it."""


def refuse_links(folder: Path) -> None:
    """Raise UsageError where a symbolic link in a run's folder leads out of it: what it names is not the run's."""
    inside = folder.resolve()
    for path in folder.rglob("*"):
        if path.is_symlink() and not path.resolve().is_relative_to(inside):
            raise UsageError(f"{path} is a symbolic link that leads out of the run's folder: remove it")


def write_summed(path: Path, content: str | bytes) -> None:
    """Write a file that appears whole or not at all, and its checksum beside it.

    Between the two the folder lists both the old and the new checksum, so that a crash leaves a file that is known.
    """
    content = content.encode() if isinstance(content, str) else content
    sums = _sums(path.parent)
    new, old = sha256_of(content), sums.get(path.name, [])
    if old != [new]:
        _write_sums(path.parent, {**sums, path.name: [new, *old]})
    write_whole(path, content)
    if old != [new]:
        _write_sums(path.parent, {**sums, path.name: [new]})


def read_summed(path: Path) -> bytes:
    """Return the content of a file that `write_summed` wrote.

    Raises:
        FileNotFoundError: the file is not there.
        UsageError: its checksum is not the one written, or there is none.
    """
    if path.is_symlink():
        raise UsageError(f"{path} is a symbolic link: a run's files are its own, copy the file itself")
    content = path.read_bytes()
    known = _sums(path.parent).get(path.name)
    if known is None:
        raise UsageError(
            f"{path} has no checksum in {NAME}, which was lost, or not written yet by an older version: run its "
            "command again in a new folder"
        )
    if sha256_of(content) not in known:
        raise UsageError(f"{path} is damaged, or {NAME} is: its checksum is not the one written; run its command again")
    return content


def read_json(path: Path) -> Any:
    """Return what a JSON file of a run folder holds; raises as `read_summed`."""
    content = read_summed(path)
    try:
        return json.loads(content)
    except ValueError as error:
        raise UsageError(f"{path} cannot be read: {error}") from error


def _sums(folder: Path) -> dict[str, list[str]]:
    """Return the checksums by file name; lines that are none are left out, and so are their files' checksums."""
    path = folder / NAME
    if path.is_symlink() or not path.exists():
        return {}
    sums: dict[str, list[str]] = {}
    for line in path.read_text(errors="replace").splitlines():
        digest, _, name = line.partition("  ")
        if name:
            sums.setdefault(name, []).append(digest)
    return sums


def _write_sums(folder: Path, sums: dict[str, list[str]]) -> None:
    lines = [f"{digest}  {name}\n" for name, digests in sorted(sums.items()) for digest in digests]
    write_whole(folder / NAME, "".join(lines))
