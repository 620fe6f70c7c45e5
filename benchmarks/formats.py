"""The grouped table in five formats: plain text, Markdown, LaTeX, CSV and parquet."""

from __future__ import annotations

import io
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from hmcvi.inference.durable import write_whole

from .grouped import Block, chosen, how_to_read, lay_out
from .joined import BEST, TIED
from .options import UsageError

__all__ = ["FORMATS", "choose_format", "plain_text", "render", "write"]

FORMATS = {"text": ".txt", "markdown": ".md", "csv": ".csv", "parquet": ".parquet", "latex": ".tex"}
"""Formats by name, with the ending of their files."""

WIDTH = 100
"""Columns of plain text that a table fits in."""

LABEL_WIDTH = 28
"""Columns of plain text that a line's label has at least: as many methods as fit beside it make one table."""

SIGNS = {BEST: " *", TIED: " ~", "": "  "}
"""Marks of plain text: after the number, each of the same width, so that digits stay in line."""

MARKDOWN_MARKS = {BEST: ("**", "**"), TIED: ("*", "*"), "": ("", "")}
LATEX_MARKS = {BEST: (r"\textbf{", "}"), TIED: (r"\textit{", "}"), "": ("", "")}
"""Marks around a number: bold is the best, italic tied with it."""

LATEX = {
    "\\": r"\textbackslash{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "±": r"$\pm$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "−": "$-$",
    "×": r"$\times$",
    "–": "--",
    "\xa0": "~",
}
"""What pdflatex, with no package but booktabs, wants in the place of a character."""


def choose_format(name: str | None, out: Path | None) -> str:
    """Return the format that is asked for by name, or else by the ending of the file.

    Raises:
        UsageError: the two contradict each other, the ending is unknown, or parquet has no file to go to.
    """
    by_ending = {ending: format for format, ending in FORMATS.items()}
    if out is not None:
        found = by_ending.get(out.suffix.lower())
        if name is None and found is None:
            raise UsageError(f"{out} ends in none of {', '.join(by_ending)}: give such an ending, or --format")
        if name is not None and found not in (None, name):
            raise UsageError(f"--format {name} and --out {out}, which is {found}, contradict each other: drop one")
        return name or str(found)
    if name == "parquet":
        raise UsageError("parquet is no text to print: give --out FILE.parquet")
    return name or "text"


def render(joined: pd.DataFrame, format: str, names: Sequence[str] = ()) -> str | bytes:
    """Return the table in a format.

    CSV and parquet hold the joined table itself, tidy, one row for each score at each seed (all of them, unless scores
    are named); the others its blocks.

    Arguments:
        joined: what `join_runs` returns.
        format: a name in `FORMATS`.
        names: scores to show, as `lay_out` takes them.

    Raises:
        UsageError: no run has a score of that name.
    """
    if format in ("csv", "parquet"):
        tidy = joined[chosen(joined, names)] if names else joined
        return tidy.to_csv(index=False) if format == "csv" else tidy.to_parquet(index=False)
    blocks = lay_out(joined, names)
    return {"text": plain_text, "markdown": _markdown, "latex": _latex}[format](blocks)


def write(path: Path, content: str | bytes) -> None:
    """Write a rendered table to a file that appears whole or not at all.

    Raises:
        UsageError: the file cannot be written.
    """
    try:
        write_whole(path, content)
    except OSError as error:
        raise UsageError(f"{path} cannot be written ({error.strerror}): give another --out file") from error


def plain_text(blocks: Sequence[Block]) -> str:
    """Return the blocks as plain text of 100 columns."""
    console = Console(file=io.StringIO(), width=WIDTH, color_system=None, highlight=False, markup=False, emoji=False)
    for block in blocks:
        console.print(Text(block.heading))
        # numbers are never cut; a verdict is words, and wraps
        numbers = [len(cell.text) for _, cells in block.lines[block.num_words :] for cell in cells]
        width = len(SIGNS[""]) + max([*numbers, *map(len, block.methods), len("unconverged,")])
        step = max((WIDTH - LABEL_WIDTH) // (width + 2), 1)
        for start in range(0, len(block.methods), step):
            part = slice(start, start + step)
            table = Table(box=None, pad_edge=False, padding=(0, 1))
            table.add_column("", overflow="fold", min_width=LABEL_WIDTH - 1)
            for method in block.methods[part]:
                table.add_column(Text(f"{method}{SIGNS['']}"), justify="right", width=width)
            for label, cells in block.lines:
                table.add_row(Text(label), *(Text(f"{cell.text}{SIGNS[cell.mark]}") for cell in cells[part]))
            console.print()
            console.print(table)
        console.print()
    console.print(Text(how_to_read("*", "~", blocks)))
    assert isinstance(console.file, io.StringIO)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines()) + "\n"


def _markdown(blocks: Sequence[Block]) -> str:
    lines = []
    for block in blocks:
        lines += [f"### {_markdown_text(block.heading)}", ""]
        lines.append(_markdown_row(["", *map(_markdown_text, block.methods)]))
        lines.append(_markdown_row(["---", *["---:"] * len(block.methods)]))
        for label, cells in block.lines:
            marked = [_marked(_markdown_text(cell.text), MARKDOWN_MARKS[cell.mark]) for cell in cells]
            lines.append(_markdown_row([_markdown_text(label), *marked]))
        lines.append("")
    best, tied = (_marked(word, MARKDOWN_MARKS[mark]) for word, mark in (("Bold", BEST), ("italic", TIED)))
    return "\n".join([*lines, how_to_read(best, tied, blocks)]) + "\n"


def _markdown_text(text: str) -> str:
    return re.sub(r"([\\`*_{}\[\]<>#|~])", r"\\\1", text)


def _markdown_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _latex(blocks: Sequence[Block]) -> str:
    lines = [r"% needs \usepackage{booktabs}"]
    for block in blocks:
        lines += [
            r"\begin{table}",
            r"  \centering",
            rf"  \caption{{{_latex_text(block.heading)}}}",
            rf"  \begin{{tabular}}{{l{'r' * len(block.methods)}}}",
            r"    \toprule",
            rf"    {' & '.join(['', *map(_latex_text, block.methods)])} \\",
            r"    \midrule",
        ]
        for label, cells in block.lines:
            marked = [_marked(_latex_text(cell.text), LATEX_MARKS[cell.mark]) for cell in cells]
            lines.append(rf"    {' & '.join([_latex_text(label), *marked])} \\")
        lines += [r"    \bottomrule", r"  \end{tabular}", r"\end{table}"]
    best, tied = (_marked(word, LATEX_MARKS[mark]) for word, mark in (("Bold", BEST), ("italic", TIED)))
    note = _latex_text(how_to_read("BEST", "TIED", blocks)).replace("BEST", best).replace("TIED", tied)
    return "\n".join([*lines, rf"\noindent {note}"]) + "\n"


def _latex_text(text: str) -> str:
    """Return the text with what LaTeX reads otherwise escaped; letters that plain pdflatex lacks lose their accents."""
    return "".join(LATEX.get(sign) or (sign if sign.isascii() else _ascii(sign)) for sign in text)


def _ascii(sign: str) -> str:
    plain = unicodedata.normalize("NFKD", sign).encode("ascii", "ignore").decode()
    return "".join(LATEX.get(part, part) for part in plain) or f"U+{ord(sign):04X}"


def _marked(text: str, mark: tuple[str, str]) -> str:
    return f"{mark[0]}{text}{mark[1]}"
