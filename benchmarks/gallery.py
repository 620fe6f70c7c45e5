"""`make gallery`: every figure of `hmcvi.plots`, drawn from real runs, on one page."""

from __future__ import annotations

import argparse
import importlib.metadata
import shlex
import shutil
import sys
import time
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hmcvi.inference.durable import write_whole
from hmcvi.inference.provenance import processor

from . import cli
from .explain import captions, find_caption
from .report import render_page
from .report_figures import Embedded, embed

__all__ = ["Item", "collect", "main", "read_runs"]

MOST_BYTES = 20_000_000
"""What the figures of one run may weigh: none has come near it."""

ATLAS = Path(__file__).parent / "results" / "atlas"
"""The atlas' own page, whose figure stands in the gallery: it took more than an hour to make."""


@dataclass(frozen=True)
class Item:
    """A figure of the gallery.

    Attributes:
        name: run/stem.
        figure: its picture and caption.
        command: what made its run.
    """

    name: str
    figure: Embedded
    command: str


def read_runs(path: Path | None = None) -> dict[str, Any]:
    """Return what gallery.toml says: the runs with their commands and figures, and the best ones."""
    path = Path(__file__).with_suffix(".toml") if path is None else path
    return tomllib.loads(path.read_text(encoding="utf-8"))


def collect(plan: Mapping[str, Any], out: Path, *, whole: bool = True) -> list[Item]:
    """Return the figures that the runs have drawn, in the order of the captions.

    Arguments:
        plan: what `read_runs` returns.
        out: the folder of the run folders.
        whole: whether every figure must be there; tiny budgets may leave a method without leave-one-out, for one.

    Raises:
        ValueError: a run has not drawn a figure that the gallery shows.
    """
    items = []
    for run in plan["run"]:
        folder = out / run["name"]
        command = f"hmcvi {run['command']}"
        found, _ = embed(folder / "figures" if (folder / "figures").is_dir() else folder, _methods(run), MOST_BYTES)
        by_stem = {figure.caption.stem: figure for figure in found}
        missing = [stem for stem in run["stems"] if stem not in by_stem]
        if missing and whole:
            raise ValueError(f"{folder} has no figure {', '.join(missing)}: run {command} again")
        items += [Item(f"{run['name']}/{stem}", by_stem[stem], command) for stem in run["stems"] if stem in by_stem]
    if ATLAS.is_dir():
        items += [Item("atlas/atlas", figure, "make atlas") for figure in embed(ATLAS, (), MOST_BYTES)[0]]
    order = [caption.stem for caption in captions()]
    return sorted(items, key=lambda item: order.index(_kind(item.figure.caption.stem)))


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the runs that are not there, and the page; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m hmcvi.benchmarks.gallery", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/gallery"), help="runs and page. Default: %(default)s")
    parser.add_argument("--publish", type=Path, metavar="FOLDER", help="copy the README's figures and manifests here")
    parser.add_argument("--quick", action="store_true", help="tiny budgets, to see that all works")
    options = parser.parse_args(arguments)
    plan = read_runs()
    for run in plan["run"]:
        command = [*shlex.split(run["command"]), "--out", str(options.out / run["name"])]
        status = cli.main([*command, *(["--quick"] if options.quick else [])])
        if status:
            print(f"gallery: hmcvi {shlex.join(command)} ended with status {status}", file=sys.stderr)
            return status
    try:
        items = collect(plan, options.out, whole=not options.quick)
    except ValueError as error:
        print(f"gallery: {error}", file=sys.stderr)
        return 1
    groups: dict[str, list[Item]] = {}
    for item in items:
        groups.setdefault(item.figure.caption.group, []).append(item)
    page = options.out / "gallery.html"
    write_whole(
        page,
        render_page(
            "gallery.html",
            groups=list(groups.items()),
            version=importlib.metadata.version("hmcvi"),
            written=time.strftime("%Y-%m-%d"),
            processor=processor(),
        ),
    )
    print(page)
    if options.publish is not None:
        _publish(plan["best"]["figures"], options.out, options.publish)
    return 0


def _publish(names: Sequence[str], out: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        run, stem = name.split("/")
        shutil.copyfile(out / run / "figures" / f"{stem}.png", folder / f"{run}-{stem}.png")
        shutil.copyfile(out / run / "manifest.json", folder / f"{run}-manifest.json")


def _methods(run: Mapping[str, Any]) -> list[str]:
    """Return the methods that a command names, for the captions."""
    words = shlex.split(run["command"])
    if "--methods" not in words:
        return []
    rest = words[words.index("--methods") + 1 :]
    return rest[: next((i for i, word in enumerate(rest) if word.startswith("--")), len(rest))]


def _kind(stem: str) -> str:
    caption = find_caption(stem)
    assert caption is not None
    return caption.stem


if __name__ == "__main__":
    sys.exit(main())
