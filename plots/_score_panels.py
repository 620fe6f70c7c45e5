"""Panels that hold one score each, a curve for every method: what figures of scores against something share."""

import math
import re
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from . import style

# A space at which a label is not broken.
_HELD = "\N{NO-BREAK SPACE}"


@dataclass(frozen=True)
class _Kind:
    """What is known of a score: its unit, which way is better, and the values that it can take."""

    unit: str = ""
    better: str = ""
    lowest: float = -np.inf
    highest: float = np.inf


# A score belongs to the first entry that its name is or starts with, "mean" apart. The arrows are the scoreboard's.
_KINDS = {
    "accuracy": _Kind(better="↑", lowest=0, highest=1),
    "nll, gained by averaging": _Kind(unit="nats", lowest=0),
    "nll": _Kind(unit="nats", better="↓"),
    "best temperature": _Kind(lowest=0),
    "brier": _Kind(better="↓", lowest=0, highest=2),
    "ece, null level": _Kind(lowest=0, highest=1),
    "ece": _Kind(better="↓", lowest=0, highest=1),
    "calibration error": _Kind(better="↓", lowest=0, highest=1),
    "confidence − accuracy": _Kind(lowest=-1, highest=1),
    "aurc": _Kind(better="↓", lowest=0, highest=1),
    "error at": _Kind(better="↓", lowest=0, highest=1),
    "rmse": _Kind(unit="target's unit", better="↓", lowest=0),
    "crps": _Kind(unit="target's unit", better="↓", lowest=0),
    "coverage": _Kind(lowest=0, highest=1),
    "width": _Kind(unit="target's unit", lowest=0),
    "pit distance, null level": _Kind(lowest=0, highest=0.5),
    "pit distance": _Kind(better="↓", lowest=0, highest=0.5),
    "1 − confidence": _Kind(lowest=0, highest=1),
    "entropy": _Kind(unit="nats"),
    "mutual information": _Kind(unit="nats", lowest=0),
    "agreement": _Kind(better="↑", lowest=0, highest=1),
    "total variation": _Kind(better="↓", lowest=0, highest=1),
    "jensen-shannon": _Kind(unit="nats", better="↓", lowest=0, highest=float(np.log(2))),
    "wasserstein-2": _Kind(unit="target's unit", better="↓", lowest=0),
    "posterior means": _Kind(unit="sds", better="↓", lowest=0),
    "posterior sds": _Kind(),
    "elpd_loo": _Kind(unit="nats", better="↑"),
    "auroc": _Kind(better="↑", lowest=0, highest=1),
    "aupr": _Kind(better="↑", lowest=0, highest=1),
    "fpr95": _Kind(better="↓", lowest=0, highest=1),
}


def draw_panel(
    ax: Axes,
    score: str,
    of_method: Mapping[str, Mapping[str, np.ndarray]],
    found: Mapping[str, style.Look],
    draw_curve: Callable[[Axes, Mapping[str, np.ndarray], style.Look, str], None],
    *,
    along: str,
) -> None:
    """Draw one score of every method, and set the axis of its values: limits, ticks and label.

    Args:
        ax: where to draw; its horizontal axis is the caller's.
        score: the name of the score.
        of_method: for each method a curve: arrays (point,) "value", in the score's unit, "standard_error" and
            ``along``, and what else ``draw_curve`` reads.
        found: how each method looks.
        draw_curve: draws one curve, given axes, curve, look and method.
        along: the array of a curve that runs along the horizontal axis.
    """
    kind, nominal = kind_of(score)
    _, height = inches(ax)
    if nominal is not None:
        ax.axhline(nominal, color=style.GREY, linewidth=0.8)
    for method, look in found.items():
        draw_curve(ax, of_method[method], look, method)
    head = _mark_infinite(ax, of_method, found, along)
    low, high = _limits(of_method.values(), kind, nominal)
    ax.set(ylim=(low, low + (high - low) / (1 - head)), ylabel=_label(score, kind, nominal, height))
    ax.yaxis.set_major_locator(MaxNLocator(int(np.clip(height / 0.25, 1, 6)), steps=(1, 2, 2.5, 5, 10)))
    ax.yaxis.set_major_formatter(FuncFormatter(_number))


def method_handles(found: Mapping[str, style.Look]) -> list[Line2D]:
    """Return a legend's handle for each method."""
    return [
        Line2D([], [], color=look.color, linestyle=look.linestyle, linewidth=1.0, marker=look.marker, label=method)
        for method, look in found.items()
    ]


def finish(axes: np.ndarray, handles: Sequence[Line2D], title: str, *, own_figure: bool) -> None:
    """Put title and legend above all panels, and the panels under the house settings for good."""
    if own_figure:
        style.shared_legend(axes, handles, own_figure=True)
        # Not a suptitle, which constrained layout would put on top of the legend.
        axes[0].get_figure().legends[0].set_title(title, prop={"size": mpl.rcParams["axes.titlesize"]})
    else:
        _head_of(axes, handles, title)
    style.settle(axes)


def kind_of(score: str) -> tuple[_Kind, float | None]:
    """Return what is known of a score, and the level that a coverage should have.

    Example:
        >>> kind_of("entropy, total")[0].unit, kind_of("coverage, 90%")[1], kind_of("loss")[0].better
        ('nats', 0.9, '')
    """
    named = re.match(rf"(?:mean )?({'|'.join(_KINDS)})(?![\w-])", score.lower())
    if named is None:
        return _Kind(), None
    percent = re.search(r"(\d+(?:\.\d+)?) ?%", score) if named.group(1) == "coverage" else None
    return _KINDS[named.group(1)], None if percent is None else float(percent.group(1)) / 100


def inches(ax: Axes) -> tuple[float, float]:
    """Return width and height of axes, before a layout has taken room for what stands around them."""
    box, figure = ax.get_window_extent(), ax.get_figure(root=True)
    assert figure is not None
    return box.width / figure.dpi, box.height / figure.dpi


def _mark_infinite(
    ax: Axes, of_method: Mapping[str, Mapping[str, np.ndarray]], found: Mapping[str, style.Look], along: str
) -> float:
    """Write ∞ in a method's colour where its score is infinite, and return the share of the height to keep free."""
    num_at: dict[float, int] = {}
    line = 0.09  # of the height: one mark, at the size of text and the usual height of a panel
    for method, curve in of_method.items():
        for place, value in zip(curve[along], curve["value"], strict=True):
            if np.isinf(value):
                ax.text(
                    place,
                    1 - line * num_at.get(place, 0),
                    _number(value).replace("inf", "∞"),
                    transform=ax.get_xaxis_transform(),
                    ha="center",
                    va="top",
                    color=style.text_color(found[method].color),
                )
                num_at[place] = num_at.get(place, 0) + 1
    return min(0.5, line * max(num_at.values(), default=0))


def _head_of(axes: np.ndarray, handles: Sequence[Line2D], title: str) -> None:
    """Put title and legend above a caller's panels, from the left edge of the first to the right edge of the last."""
    boxes = [panel.get_window_extent() for panel in axes]
    width = (max(box.x1 for box in boxes) - boxes[0].x0) / axes[0].get_figure(root=True).dpi
    # Inches and points as the legend is set: 0.055 inches a character, 10.1 points a row.
    widest = 0.5 + 0.055 * max(len(str(handle.get_label())) for handle in handles)
    num_rows = math.ceil(len(handles) / max(1, int(width / widest)))
    legend = axes[0].legend(
        handles=handles, loc="lower left", bbox_to_anchor=(0, 1), ncols=math.ceil(len(handles) / num_rows)
    )
    # A layout would widen the first panel's column to hold the legend of all; the title keeps the height free, also
    # as a blank.
    legend.set_in_layout(False)
    axes[0].set_title(title or " ", loc="left", pad=5 + 10.1 * num_rows)


def _number(value: float, _: int | None = None) -> str:
    """Write a tick: no trailing zeros, no negative zero, a minus and not a hyphen."""
    return f"{value + 0.0:g}".replace("-", "\N{MINUS SIGN}")


def _label(score: str, kind: _Kind, nominal: float | None, height: float) -> str:
    """Return a score's name with its unit and which way is better, in lines that fit a height in inches.

    Example:
        >>> _label("coverage, 90%", _Kind(), 0.9, 1.2)
        'coverage, 90%\\n(best 0.9)'
    """
    unit = f" ({kind.unit.replace(' ', _HELD)})" if kind.unit else ""
    wanted = "" if nominal is None else f" (best{_HELD}{nominal:g})"
    # Never broken before the arrow: alone on a line it points at nothing.
    better = f"{_HELD}{kind.better}" if kind.better else ""
    # 0.058 inches a character at this size of text, and a fifth of the height for the layout to take.
    num_characters = max(12, int(0.8 * height / 0.058))
    return textwrap.fill(f"{score}{unit}{wanted}{better}", num_characters, break_long_words=False).replace(_HELD, " ")


def _limits(curves: Iterable[Mapping[str, np.ndarray]], kind: _Kind, nominal: float | None) -> tuple[float, float]:
    """Return y-limits that hold every bar, do not magnify a flat curve, and end where the score does.

    Example:
        >>> flat = {"value": np.array([1.0, 1.0]), "standard_error": np.array([0.0, np.nan])}
        >>> [round(end, 3) for end in _limits([flat], _Kind(lowest=0, highest=1), None)]
        [0.972, 1.002]
    """
    ends = [np.zeros(0) if nominal is None else np.array([nominal])]
    for curve in curves:
        error = np.where(np.isfinite(curve["standard_error"]), curve["standard_error"], 0.0)
        ends += [curve["value"] - error, curve["value"] + error]
    joined = np.concatenate(ends)
    finite = joined[np.isfinite(joined)]
    if not len(finite):
        return 0.0, 1.0
    low, high = finite.min(), finite.max()
    least = 0.05 * max(abs(low), abs(high)) or 0.1
    if high - low < least:
        low, high = (low + high - least) / 2, (low + high + least) / 2
    span = high - low
    # Beyond the ends of the score by just enough for whole points and no tick.
    return (
        float(max(low - 0.06 * span, min(finite.min(), kind.lowest) - 0.04 * span)),
        float(min(high + 0.06 * span, max(finite.max(), kind.highest) + 0.04 * span)),
    )
