"""The atlas: every bundled data set, every model made for it, the methods, three seeds: `make atlas`.

Each cell of `atlas.toml`, a data set and a model, is one `hmcvi compare`, run as the cells of a sweep are: in a process
of its own on one core. Cells that are finished are not run again, and one that fails does not stop the rest.
"""

from __future__ import annotations

import argparse
import os
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from .atlas_page import Claim, Finding, write_page
from .options import UsageError
from .sweep import Cell as SweepCell
from .sweep import run_cells
from .sweep_pools import local_pool

__all__ = ["Atlas", "Cell", "main", "read_atlas"]

ATLAS = Path(__file__).with_name("atlas.toml")

DEFAULT_CORES = min(2, os.cpu_count() or 1)
"""Cells that run side by side unless said otherwise, each on one core."""


@dataclass(frozen=True)
class Cell:
    """One data set and one model.

    Attributes:
        data: the data set's name.
        model: the model's name.
        methods: the methods that fit it.
        options: further arguments of `hmcvi compare`.
        note: what is left out here, and why.
    """

    data: str
    model: str
    methods: tuple[str, ...]
    options: tuple[str, ...]
    note: str

    @property
    def name(self) -> str:
        """Name of the cell's folder."""
        return f"{self.data}-{self.model}"

    def arguments(self, seeds: Sequence[int], *, quick: bool) -> list[str]:
        """Return the arguments of `hmcvi`, but for the folder."""
        what = ["compare", "--data", self.data, "--model", self.model, "--methods", *self.methods]
        how = ["--seeds", *map(str, seeds), *self.options]
        return [*what, *how, "--quick"] if quick else [*what, *how]


@dataclass(frozen=True)
class Atlas:
    """What `atlas.toml` holds: the cells, the seeds of each, and the findings that the page draws from them."""

    seeds: tuple[int, ...]
    cells: tuple[Cell, ...]
    findings: tuple[Finding, ...]


def read_atlas(path: Path = ATLAS) -> Atlas:
    """Return what the file holds.

    Raises:
        ValueError: the file is malformed.
    """
    entries = tomllib.loads(path.read_text())
    shared, brief = (
        [word for flag, words in entries.get(part, {}).items() for word in (f"--{flag}", *words)]
        for part in ("options", "brief")
    )
    try:
        cells = [
            Cell(
                data=cell["data"],
                model=cell["model"],
                methods=tuple(name for name in entries["methods"] if name not in cell.get("without", ())),
                options=(*shared, *(brief if cell.get("brief", False) else ()), *cell.get("options", ())),
                note=cell.get("note", ""),
            )
            for cell in entries["cells"]
        ]
        findings = [
            Finding(title=f["title"], text=f["text"], claims=tuple(Claim(**claim) for claim in f["claims"]))
            for f in entries.get("findings", ())
        ]
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path.name}: {error}") from error
    return Atlas(tuple(entries["seeds"]), tuple(cells), tuple(findings))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is not finished, write the page, and return 0 where every cell ran and every finding holds."""
    parser = argparse.ArgumentParser(prog="python -m hmcvi.benchmarks.atlas", description=__doc__)
    parser.add_argument("--cells", nargs="+", metavar="DATA-MODEL", help="these cells only. Default: all")
    parser.add_argument("--seeds", nargs="+", type=int, metavar="SEED", help="seeds. Default: those of atlas.toml")
    parser.add_argument("--cores", type=int, default=DEFAULT_CORES, help="cells side by side. Default: %(default)s")
    parser.add_argument("--quick", action="store_true", help="tiny budgets, to see that it works: conclude nothing")
    parser.add_argument("--runs", type=Path, default=Path("runs/atlas"), help="run folders. Default: %(default)s")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/atlas"), help="where atlas.md and its data go. Default: %(default)s"
    )
    parser.add_argument(
        "--publish",
        type=Path,
        metavar="FOLDER",
        help="write them there too, where every cell of atlas.toml has run in full at its seeds",
    )
    options = parser.parse_args(arguments)
    atlas = read_atlas()
    known = {cell.name: cell for cell in atlas.cells}
    unknown = [name for name in options.cells or () if name not in known]
    if unknown:
        parser.error(f"no cell {unknown[0]!r}: give one of {', '.join(known)}")
    available = len(_available_cores())
    if not 1 <= options.cores <= available:
        parser.error(f"--cores {options.cores}: give 1 to {available}, as many as there are here")
    cells = [known[name] for name in options.cells or known]
    seeds = tuple(options.seeds or atlas.seeds)
    say = Console(stderr=True, highlight=False, markup=False, emoji=False, soft_wrap=True)
    wanted = [SweepCell(cell.name, tuple(cell.arguments(seeds, quick=options.quick))) for cell in cells]
    try:
        with local_pool(options.cores, 1) as pool:
            ended = run_cells(wanted, options.runs, pool, say=say.print)
    except UsageError as error:
        parser.error(str(error))
    failed = {
        name: f"The run ended with status {outcome.status}: {outcome.sentence}"
        for name, outcome in ended.items()
        if outcome.status
    }
    whole = [cell for cell in cells if cell.name not in failed]
    if not whole:
        say.print("hmcvi: error: no cell was finished, so there is no page")
        return 1
    folders = {cell.name: options.runs / cell.name for cell in whole}
    seconds = sum(ended[cell.name].seconds for cell in whole)
    notes = {cell.name: " ".join(filter(None, (cell.note, failed.get(cell.name)))) for cell in cells}
    in_full = not options.quick and len(whole) == len(atlas.cells) and seeds == atlas.seeds
    places = [options.out, *([options.publish] if options.publish is not None and in_full else [])]
    for place in places:
        page = write_page(place, folders, atlas.findings, notes, seconds=seconds, quick=options.quick)
        say.print(
            f"{page.path}: {len(whole)} of {len(cells)} cells, {page.supported} of {len(atlas.findings)} findings hold"
        )
    if options.publish is not None and not in_full:
        say.print(f"{options.publish} is left as it is: not every cell of atlas.toml has run in full at its seeds")
    return 0 if not failed and page.supported == len(atlas.findings) else 1


def _available_cores() -> list[int]:
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


if __name__ == "__main__":
    sys.exit(main())
