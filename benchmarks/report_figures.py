"""The figures of a run as a page holds them: within a number of bytes, in order, with title, reading and alt text."""

from __future__ import annotations

import base64
import functools
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from .explain import Caption, captions, find_caption
from .options import UsageError

__all__ = ["Embedded", "embed"]

LARGEST_VECTOR = 150_000
"""Bytes of a vector drawing that is taken as it is; of a larger one its pixels are smaller and faster to show."""

DOTS_PER_INCH = 125
"""Of a figure on the page: its small print, 6 points, is 10 pixels high then."""

COLOURS = 256
"""Colours of an embedded picture: more than a figure's flat tones and their edges need, at half the bytes."""


@dataclass(frozen=True)
class Embedded:
    """A figure in a page: its caption, its bytes as a data address, and its size in pixels."""

    caption: Caption
    source: str
    width: int
    height: int


def embed(folder: Path, methods: Sequence[str], max_bytes: int) -> tuple[list[Embedded], list[str]]:
    """Return the figures of a folder in the order of their captions, and the stems of those that do not fit.

    Arguments:
        folder: holds <stem>.png and perhaps <stem>.svg.
        methods: the methods that are drawn, for the captions; figures of one method come in their order.
        max_bytes: bytes that all may take as base64. Where they take more, pixels stand in for vectors, the largest
            first; what is still too much is left out, from the last.

    Raises:
        UsageError: a file is no picture.
    """
    stems = [path.stem for path in folder.glob("*.png") if find_caption(path.stem) is not None]
    captioned = {stem: _caption(stem, methods) for stem in sorted(stems, key=lambda stem: _place(stem, methods))}
    pixels = functools.cache(lambda stem: _fewer_colours(folder / f"{stem}.png"))
    content = {}
    for stem in captioned:
        vector = folder / f"{stem}.svg"
        small = vector.exists() and vector.stat().st_size <= LARGEST_VECTOR
        content[stem] = ("svg+xml", vector.read_bytes()) if small else ("png", pixels(stem))

    def size() -> int:
        return sum(-(-len(data) // 3) * 4 for _, data in content.values())

    for stem in sorted(content, key=lambda stem: -len(content[stem][1])):
        if size() > max_bytes and len(pixels(stem)) < len(content[stem][1]):
            content[stem] = ("png", pixels(stem))
    left_out: list[str] = []
    while content and size() > max_bytes:
        stem, _ = content.popitem()
        left_out.insert(0, stem)
    found = []
    for stem, (kind, data) in content.items():
        with _picture(folder / f"{stem}.png") as picture:
            dots = picture.info.get("dpi", (200, 200))[0]
            width, height = (round(length * DOTS_PER_INCH / dots) for length in picture.size)
        source = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
        found.append(Embedded(captioned[stem], source, width, height))
    return found, left_out


def _caption(stem: str, methods: Sequence[str]) -> Caption:
    caption = find_caption(stem)
    assert caption is not None
    return caption.about(stem, methods)


def _place(stem: str, methods: Sequence[str]) -> tuple[int, int, str]:
    caption = find_caption(stem)
    assert caption is not None
    each = stem.removeprefix(caption.stem)
    return captions().index(caption), methods.index(each) if each in methods else len(methods), stem


@contextmanager
def _picture(path: Path) -> Iterator[Image.Image]:
    try:
        with Image.open(path) as picture:
            picture.load()
            yield picture
    except OSError as error:
        raise UsageError(
            f"{path} is no whole picture: delete it, or run the command again, which draws it anew"
        ) from error


def _fewer_colours(path: Path) -> bytes:
    """Return a picture as PNG with a palette of its own."""
    with _picture(path) as picture:
        file = io.BytesIO()
        # not Pillow's dithering, which would speckle flat tones
        flat = picture.convert("RGB").quantize(COLOURS, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
        flat.save(file, "png", optimize=True)
    return file.getvalue()
