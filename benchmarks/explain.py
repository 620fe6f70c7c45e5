"""What scores and figures mean, in words: read from page/glossary.toml and page/captions.toml."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

__all__ = ["PAGE_FOLDER", "Caption", "captions", "explain_score", "find_caption", "glossary"]

PAGE_FOLDER = Path(__file__).parent / "page"


@dataclass(frozen=True)
class Caption:
    """What stands under a figure of a run.

    Attributes:
        group: heading of the figures it stands among.
        stem: name of the figure's file without its ending; one that ends in "-" is followed by a method or a shift.
        function: the function of `hmcvi.plots` that draws it.
        title: what it shows.
        read: how to read it.
        alt: what stands in its place where it cannot be seen.
    """

    group: str
    stem: str
    function: str
    title: str
    read: str
    alt: str

    def about(self, stem: str, methods: Iterable[str]) -> Caption:
        """Return the caption of one file, with its method or shift and the methods that are drawn filled in."""
        each = stem.removeprefix(self.stem)
        each = each.replace("-", " ") if self.stem == "loss-" else each  # a quantity, in place of a method
        words = {"each": each, "methods": ", ".join(methods)}
        title, read, alt = (text.format(**words) for text in (self.title, self.read, self.alt))
        return Caption(self.group, stem, self.function, title, read, alt[:1].upper() + alt[1:])


@functools.cache
def captions() -> tuple[Caption, ...]:
    """Return the captions of all figures, in the order in which a report shows them."""
    groups = tomllib.loads((PAGE_FOLDER / "captions.toml").read_text(encoding="utf-8"))["group"]
    return tuple(Caption(group=group["title"], **figure) for group in groups for figure in group["figure"])


def find_caption(stem: str) -> Caption | None:
    """Return the caption of a figure by its file's stem: its own, or that of figures of its kind.

    Example:
        >>> find_caption("loss").stem, find_caption("rank-nuts").stem, find_caption("holiday")
        ('loss', 'rank-', None)
    """
    for caption in captions():
        if stem == caption.stem or (caption.stem.endswith("-") and stem.startswith(caption.stem)):
            return caption
    return None


def explain_score(score: str) -> str:
    """Return what a score means, in a sentence or two; "" for one that is not known.

    Example:
        >>> explain_score("coverage, 90%")[:40], explain_score("luck")
        ('Share of rows inside the central predict', '')
    """
    known = _glossary()
    score = score.partition(":")[0]  # "posterior means, in sds: out.kernel"
    if score in known:
        return known[score]
    starts = [name for name in known if name.endswith("*") and score.startswith(name[:-1])]
    return known[max(starts, key=len)] if starts else ""


def glossary(scores: Iterable[str]) -> list[tuple[str, str]]:
    """Return each of the scores that is known with what it means, in the alphabet's order."""
    found = {score: explain_score(score) for score in scores}
    return sorted(((score, text) for score, text in found.items() if text), key=lambda pair: pair[0].lower())


@functools.cache
def _glossary() -> dict[str, str]:
    return tomllib.loads((PAGE_FOLDER / "glossary.toml").read_text(encoding="utf-8"))["scores"]
