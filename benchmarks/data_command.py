"""What `hmcvi data list` and `hmcvi data prepare` print."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .bundled import BUNDLED
from .raw import DataError, Raw
from .tfds_catalogue import KNOWN, Entry, data_folder, find_prepared, prepared, read_entry
from .tfds_prepare import prepare

__all__ = ["list_data", "prepare_data"]

WIDTH = 100
"""Columns of text that the list fits in."""

COLUMNS = {"name": 38, "rows, train + test": 22, "shape": 22, "classes": 10}
"""The columns and their widths: each section is laid out by itself, so that its title may be long."""

OTHERS = (
    "Any other TFDS set with an image and a label is prepared and named in the same way, and your own .npz, .csv or "
    ".parquet file by its path."
)


def list_data(data_dir: str | os.PathLike[str] | None = None, console: Console | None = None) -> None:
    """Print the data sets that are here and those that TFDS can prepare, with their sizes.

    Args:
        data_dir: the TFDS folder; see `tfds_catalogue.data_folder`.
        console: where to print; by default on standard output, at most 100 columns wide.
    """
    console = _console() if console is None else console
    here = prepared(data_dir)
    names = {entry.name for entry in here}
    option = f" --data-dir {shlex.quote(os.fspath(data_dir))}" if data_dir else ""
    console.print(_table([], show_header=True))
    _print_section(console, "bundled", [_bundled(name) for name in BUNDLED])
    _print_section(console, f"prepared in {data_folder(data_dir)}", [_images(entry) for entry in here])
    missing = [_images(entry) for entry in KNOWN if entry.name not in names]
    _print_section(console, f"known, not prepared (hmcvi data prepare NAME{option})", missing)
    console.print(f"\n{OTHERS}", style="dim")


def prepare_data(name: str, data_dir: str | os.PathLike[str] | None = None, console: Console | None = None) -> None:
    """Prepare a TFDS set unless it is prepared, and print where it is.

    Raises:
        DataError: see `tfds_prepare.prepare`.
    """
    console = _console() if console is None else console
    if name in BUNDLED:
        console.print(f"{name} is bundled: there is nothing to prepare", markup=False)
        return
    try:
        folder, verb = find_prepared(name, data_dir=data_dir), "was prepared before"
    except DataError:
        folder, verb = prepare(name, data_dir=data_dir), "is prepared"
    _, rows, shape, classes = _images(read_entry(name, folder))
    parts = "train + test" if "+" in rows else "no test split of its own"
    console.print(f"{name} {verb}: {folder}", markup=False, soft_wrap=True)
    console.print(f"{rows} rows ({parts}), {shape}, {classes} classes", markup=False)


def _console() -> Console:
    return Console(width=WIDTH, highlight=False, emoji=False)


def _print_section(console: Console, title: str, rows: Sequence[tuple[str, ...]]) -> None:
    console.print()
    console.print(title, style="bold", markup=False, soft_wrap=True)
    console.print(_table(rows) if rows else "  none")


def _table(rows: Sequence[tuple[str, ...]], *, show_header: bool = False) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1), show_header=show_header)
    for column, width in COLUMNS.items():
        table.add_column(column, width=width, overflow="fold")
    for name, *cells in rows:
        table.add_row(*(escape(cell) for cell in (f"  {name}", *cells)))
    return table


def _bundled(name: str) -> tuple[str, ...]:
    raw = BUNDLED[name](0)  # sizes do not depend on the seed
    counts = [_rows_outside_gap(raw, raw.x)] + ([] if raw.x_test is None else [_rows_outside_gap(raw, raw.x_test)])
    if raw.brightness is not None:
        shape = _size(*raw.x.shape[1:])
    else:
        shape = f"{raw.x.shape[1]} feature{'s' if raw.x.shape[1] > 1 else ''}"
    classes = "regression" if raw.task == "regression" else f"{len(np.unique(raw.y))}"
    return name, " + ".join(f"{count:,}" for count in counts), shape, classes


def _rows_outside_gap(raw: Raw, x: np.ndarray) -> int:
    """Rows within a gap are foreign: neither trained nor tested on."""
    if raw.gap is None:
        return len(x)
    column, low, high = raw.gap
    return int(((x[:, column] <= low) | (x[:, column] >= high)).sum())


def _images(entry: Entry) -> tuple[str, ...]:
    counts = [entry.rows[split] for split in ("train", entry.test_split) if split is not None]
    rows = " + ".join(f"{count:,}" for count in counts)
    return entry.name, rows, _size(*entry.shape), f"{entry.num_classes:,}"


def _size(height: int | None, width: int | None, channels: int) -> str:
    colour = {1: "grey", 3: "colour"}.get(channels, f"{channels} channels")
    return f"{'various sizes,' if height is None or width is None else f'{height}x{width}'} {colour}"
