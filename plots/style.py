"""How every figure looks: one colour and line style per method, one set of sizes, one way to save.

A method keeps its look from figure to figure, so that a reader learns it once. Colours are those of Okabe and
Ito (2008, "Color Universal Design"), which stay apart under the three common colour-vision deficiencies; line
style and marker repeat the difference for print in grey.
"""

import functools
import math
import os
import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import colors
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.rcsetup import cycler

__all__ = ["COLUMN_WIDTH", "PAGE_WIDTH", "Look", "context", "looks", "save"]

# Inches: one column and the full text width of a two-column paper.
COLUMN_WIDTH = 3.5
PAGE_WIDTH = 7.0

# Neutral tones: what is not a method (diagonals, null bands, the in-distribution set, training points).
INK = "#262626"
GREY = "#8c8c8c"
LIGHT_GREY = "#d4d4d4"


@dataclass(frozen=True)
class Look:
    """How one method is drawn: a colour, a line style and a marker, in matplotlib's words."""

    color: str
    linestyle: Any
    marker: str


_METHOD_LOOKS = {
    "nuts": Look("#0072B2", "-", "o"),
    "svi": Look("#D55E00", (0, (5, 1.5)), "s"),
    "bbb": Look("#009E73", (0, (5, 1.2, 1.2, 1.2)), "^"),
    "map": Look("#CC79A7", (0, (1.5, 1)), "D"),
    "ensemble": Look("#56B4E9", (0, (8, 2)), "v"),
    "laplace": Look("#E69F00", (0, (3, 1, 1, 1, 1, 1)), "P"),
    # Relatives of the above have their hue in another tone (samplers: blue to indigo, SVI: vermilion, Bayes by
    # Backprop: green); line and marker are nobody else's.
    "hmc": Look("#00466E", (0, (12, 2)), "X"),
    "mclmc": Look("#5B4BB5", (0, (10, 1.5, 3, 1.5)), "p"),
    "mams": Look("#9A8CE0", (0, (2, 1, 5, 1)), "H"),
    "svi-full": Look("#8C3E00", (0, (3, 1)), "*"),
    "svi-lowrank": Look("#E59255", (0, (6, 3)), "d"),
    "svi-flow": Look("#5C2900", (0, (4, 1, 1, 1)), "h"),
    "bbb-local": Look("#5ABF9D", (0, (7, 1, 3, 1)), "<"),
    "bbb-shared": Look("#005E45", (0, (2, 2)), ">"),
}
_OTHER_LOOKS = (
    Look("#000000", (0, (1, 2)), "8"),
    Look("#882255", (0, (6, 1, 2, 1)), "H"),
    Look("#7A7A1F", (0, (9, 1, 1, 1)), "P"),
)
# The second, third, ... label of one method keeps its hue: < 0 mixes in black, > 0 mixes in white.
_SHADES = (0.0, 0.4, -0.4, 0.6, -0.65)
_VARIANT_MARKERS = ("<", ">", "h", "*")
_VARIANT_LINESTYLES = ((0, (2.5, 1)), (0, (1, 1)), (0, (7, 1, 1, 1, 1, 1)), (0, (4, 3)))

_SETTINGS: dict[Any, Any] = {
    # DejaVu Sans ships with matplotlib: text has the same size, so the layout holds, on every machine.
    "font.family": "DejaVu Sans",
    "mathtext.fontset": "dejavusans",
    "font.size": 7.5,
    "axes.labelsize": 7.5,
    "axes.titlesize": 8,
    "axes.titleweight": "normal",
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "legend.fontsize": 6.5,
    "figure.titlesize": 8.5,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.edgecolor": "#595959",
    "xtick.color": "#595959",
    "ytick.color": "#595959",
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.which": "major",
    "grid.color": "#e9e9e9",
    "grid.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "lines.linewidth": 1.3,
    "lines.markersize": 3.5,
    "patch.linewidth": 0.8,
    "axes.prop_cycle": cycler(
        color=[look.color for look in (*_METHOD_LOOKS.values(), *_OTHER_LOOKS)],
    ),
    "legend.frameon": False,
    "legend.handlelength": 2.2,
    "legend.borderaxespad": 0.3,
    "legend.columnspacing": 1.4,
    "figure.constrained_layout.use": True,
    "figure.facecolor": "white",
    "figure.dpi": 150,
    "savefig.dpi": 200,
    # Identifiers inside an SVG are salted at random otherwise: the same figure then gives different bytes.
    "svg.hashsalt": "hmcvi",
}


def looks(labels: Iterable[str]) -> dict[str, Look]:
    """Give each label its look, the same in every figure where the same labels meet.

    A label belongs to a method when it is the method's name or starts with it and goes on with anything but a
    letter or a digit: "bbb", "bbb-mine" and "bbb seed 1" are all "bbb", while "bbb-local" has a look of its own, a
    tone of the same hue. The first label of a method has its plain colour, the next ones lighter and darker tones
    of it. A label of no known method takes the next free colour, in the order given.

    Args:
        labels: the labels of one figure, in the order in which they are drawn.

    Returns:
        A mapping from label to look, in the same order.

    Example:
        >>> found = looks(["nuts", "svi seed 0", "svi seed 1"])
        >>> found["nuts"].color
        '#0072B2'
        >>> found["svi seed 0"].color, found["svi seed 1"].color != found["svi seed 0"].color
        ('#D55E00', True)
    """
    num_seen: dict[str, int] = {}
    num_others = 0
    found: dict[str, Look] = {}
    for label in labels:
        if label in found:
            continue
        method = _method_of(label)
        if method is None:
            turn, place = divmod(num_others, len(_OTHER_LOOKS))
            found[label] = _variant(_OTHER_LOOKS[place], turn)
            num_others += 1
        else:
            found[label] = _variant(_METHOD_LOOKS[method], num_seen.get(method, 0))
            num_seen[method] = num_seen.get(method, 0) + 1
    return found


@contextmanager
def context() -> Iterator[None]:
    """Draw under the house settings, and leave matplotlib's own as they were.

    Every figure of this package is drawn under them already; a caller's own figure can be too.

    Example:
        >>> import matplotlib
        >>> with context():
        ...     matplotlib.rcParams["axes.spines.top"]
        False
    """
    with mpl.rc_context(_SETTINGS):
        yield


def styled[**P, R](draw: Callable[P, R]) -> Callable[P, R]:
    """Run a drawing function under :func:`context`."""

    @functools.wraps(draw)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        with context():
            return draw(*args, **kwargs)

    return wrapped


def save(
    figure: Any,
    path_stem: str | os.PathLike[str],
    formats: Sequence[str] = ("png", "svg"),
) -> list[Path]:
    """Write a figure, one file a format, and close it.

    Each file is written under a temporary name beside its place and moved there when all are whole, so that a
    reader never meets half a figure and a failed write leaves an older figure as it was. The same figure
    gives the same bytes.

    Args:
        figure: a matplotlib figure, axes, an array or a tuple of axes, or an ArviZ ``PlotCollection``.
        path_stem: folder and name without an extension; the folder is made where it is absent.
        formats: extensions that matplotlib can write.

    Returns:
        The paths written, in the order of ``formats``.

    Raises:
        TypeError: ``figure`` holds no matplotlib figure.
        ValueError: no format is given, or matplotlib cannot write one.

    Example:
        >>> import tempfile
        >>> from matplotlib.figure import Figure
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     [path.name for path in save(Figure(), f"{folder}/empty")]
        ['empty.png', 'empty.svg']
    """
    from matplotlib import pyplot as plt

    if isinstance(formats, str) or not formats:
        raise ValueError(f"formats is {formats!r}: pass a sequence of extensions such as ('png', 'svg')")
    to_save = _figure_of(figure)
    known = to_save.canvas.get_supported_filetypes()
    unknown = [extension for extension in formats if extension not in known]
    if unknown:
        raise ValueError(f"formats has {unknown[0]!r}, which matplotlib cannot write: give any of {', '.join(known)}")
    stem = Path(path_stem)
    if stem.suffix[1:] in known:
        raise ValueError(
            f"path_stem is {os.fspath(path_stem)!r}: leave out the ending and pass formats=({stem.suffix[1:]!r},)"
        )
    stem.parent.mkdir(parents=True, exist_ok=True)
    # Not Path.with_suffix: a stem such as "ood.v1" would lose its last part.
    paths = [stem.with_name(f"{stem.name}.{extension}") for extension in formats]
    temporary = [path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp") for path in paths]
    try:
        with context():
            for path, extension in zip(temporary, formats, strict=True):
                to_save.savefig(path, format=extension, metadata=_undated(extension))
                to_save.set_layout_engine("none")  # a layout takes a third of the time, and one serves every format
        for written, path in zip(temporary, paths, strict=True):
            os.replace(written, path)
    finally:
        for path in temporary:
            path.unlink(missing_ok=True)
        plt.close(to_save)
    return paths


def new_axes(num_rows: int = 1, num_columns: int = 1, *, size: tuple[float, float], **kwargs: Any) -> np.ndarray:
    """Make a figure of ``size`` inches and return its axes as an array (num_rows, num_columns)."""
    # Imported late, so that importing the package chooses no backend.
    from matplotlib import pyplot as plt

    _, axes = plt.subplots(num_rows, num_columns, figsize=size, squeeze=False, **kwargs)
    return axes


def settle(axes: Iterable[Axes]) -> None:
    """Put axes under the house settings for good.

    Matplotlib reads some settings when axes are made, which may have been the caller's doing, and others when
    they are drawn, when the house settings are gone.
    """
    settings = mpl.rcParams
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.spines[:].set(linewidth=settings["axes.linewidth"], edgecolor=settings["axes.edgecolor"])
        ax.grid(True, which="major", color=settings["grid.color"], linewidth=settings["grid.linewidth"])
        ax.set_axisbelow(True)
        for axis in (ax.xaxis, ax.yaxis):
            axis.label.set_fontsize(settings["axes.labelsize"])
        ax.tick_params(
            labelsize=settings["xtick.labelsize"],
            labelcolor=settings["xtick.labelcolor"],
            color=settings["xtick.color"],
            width=settings["xtick.major.width"],
            length=settings["xtick.major.size"],
        )
        ax.tick_params(which="minor", length=settings["xtick.minor.size"])


def text_color(color: str) -> str:
    """Darken a colour, where it is too pale for letters on white, until the contrast is readable.

    Example:
        >>> text_color("#0072B2"), text_color("#a6d8c9") == "#a6d8c9"
        ('#0072b2', False)
    """
    rgb = np.array(colors.to_rgb(color))
    # Relative luminance after ITU-R BT.709, without its gamma: enough to rank tones of one hue.
    while rgb @ (0.2126, 0.7152, 0.0722) > 0.55:
        rgb = 0.9 * rgb
    return colors.to_hex((rgb[0], rgb[1], rgb[2]))


def shared_labels(axes: np.ndarray, xlabel: str, ylabel: str, *, own_figure: bool) -> None:
    """Name what panels (row, column) share: once in a figure of ours, at the outer panels of a caller's."""
    if own_figure:
        figure = axes.flat[0].get_figure(root=True)
        figure.supxlabel(xlabel, fontsize=mpl.rcParams["axes.labelsize"])
        figure.supylabel(ylabel, fontsize=mpl.rcParams["axes.labelsize"])
        return
    for ax in axes[-1]:
        ax.set_xlabel(xlabel)
    for ax in axes[:, 0]:
        ax.set_ylabel(f"{ax.get_ylabel()}\n{ylabel}" if ax.get_ylabel() else ylabel)


def shared_legend(axes: np.ndarray, handles: Sequence[Artist], *, own_figure: bool) -> None:
    """One legend for all panels: above them in a figure of ours, in the first panel of a caller's."""
    if own_figure:
        figure = axes.flat[0].get_figure(root=True)
        # Inches: the handle with its gaps, and 0.055 a character at this size of text.
        widest = 0.5 + 0.055 * max(len(str(handle.get_label())) for handle in handles)
        num_fitting = max(1, int(figure.get_figwidth() / widest))
        num_rows = math.ceil(len(handles) / num_fitting)
        num_columns = math.ceil(len(handles) / num_rows)  # rows of one length: 2 + 2 and not 3 + 1
        # Above, because constrained layout puts a legend below on top of the figure's own x label.
        figure.legend(handles=handles, loc="outside upper center", ncols=num_columns)
    else:
        axes.flat[0].legend(handles=handles, loc="best")


def _method_of(label: str) -> str | None:
    """Return the known method that a label names, or None."""
    names = sorted(_METHOD_LOOKS, key=len, reverse=True)  # "svi-full" before "svi"
    found = re.match(rf"({'|'.join(names)})(?![a-z0-9])", label.lower())
    return found.group(1) if found else None


def _variant(look: Look, number: int) -> Look:
    """Return the ``number``-th variant of a look; number 0 is the look itself."""
    if number == 0:
        return look
    shade = _SHADES[number % len(_SHADES)]
    toward = np.ones(3) if shade > 0 else np.zeros(3)
    mixed = (1 - abs(shade)) * np.array(colors.to_rgb(look.color)) + abs(shade) * toward
    place = (number - 1) % len(_VARIANT_MARKERS)
    return Look(colors.to_hex((mixed[0], mixed[1], mixed[2])), _VARIANT_LINESTYLES[place], _VARIANT_MARKERS[place])


def _figure_of(drawn: Any) -> Figure:
    """Find the root figure behind a figure, axes, several axes or a PlotCollection."""
    if hasattr(drawn, "viz"):  # an ArviZ PlotCollection; not imported here, since ArviZ takes seconds to load
        drawn = drawn.viz["figure"].item()
    while isinstance(drawn, np.ndarray | list | tuple) and len(drawn) > 0:
        drawn = drawn[0]
    if not hasattr(drawn, "get_figure"):
        raise TypeError(
            f"figure is a {type(drawn).__name__} but should be a matplotlib figure, axes or an ArviZ"
            " PlotCollection: pass what a function of hmcvi.plots returned"
        )
    return drawn.get_figure(root=True)


def _undated(extension: str) -> dict[str, Any]:
    """Return the metadata that keeps the hour of writing out of a file, where the format stores one."""
    return {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(extension, {})
