"""Does a model notice that its inputs drift: its scores against the severity of a shift."""

import math
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import ArrayLike

from hmcvi.inference.score_base import checked

from . import style
from ._arrays import check_same_keys

__all__ = ["severity_curves"]

_ARRAYS = ("severity", "value", "standard_error")
# The axis reaches this far in every figure, so that two shifts compare: the scale of Hendrycks and Dietterich.
_HIGHEST_SEVERITY = 5


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


@style.styled
def severity_curves(
    curves: Mapping[str, Mapping[str, Mapping[str, ArrayLike]]],
    *,
    shift: str = "",
    ax: np.ndarray | Axes | None = None,
) -> np.ndarray:
    """Draw every score against the severity of a shift, one line a method with bars of ±1 standard error.

    One panel a score, in the order given. A score that is NaN leaves a gap in its line; one that is infinite,
    the NLL of a method that ruled out what happened, leaves a gap with an ∞ at the top of the panel; a
    standard error that is not finite has no bar. An arrow says which way is better; coverage has a grey line at
    its nominal level instead. Each panel has its own range of values, and does not zoom in on differences
    below a twentieth of them.

    Args:
        curves: for each method a mapping from score to three arrays (level,): "severity", numbers from 0 for
            no shift, in increasing order; "value" and "standard_error", in the score's unit: nats for NLL and
            entropies, the target's for RMSE and widths, none for shares. Every method has the same scores;
            methods may differ in their levels.
        shift: what shifts the inputs, for example "rotation": the title.
        ax: where to draw, one panel a score; a figure is made when None, a page wide for four scores. Title and
            legend go above the panels in either case.

    Returns:
        The axes (score,).

    Raises:
        TypeError: a level of ``curves`` is not a mapping.
        ValueError: there is no method or no score, methods differ in their scores, an array is missing, has
            the wrong shape or holds what is not a number, severities do not increase from 0 on, a standard
            error is negative, or ``ax`` has not one panel a score.

    Example:
        >>> accuracy = {"severity": [0, 1, 2], "value": [0.98, 0.9, 0.7], "standard_error": [0.01, 0.01, 0.02]}
        >>> axes = severity_curves({"nuts": {"accuracy": accuracy}}, shift="rotation")
        >>> axes.shape, axes[0].get_ylabel()
        ((1,), 'accuracy ↑')

    Source: Ovadia et al. (2019), "Can you trust your model's uncertainty?", for scores against severity;
    Hendrycks and Dietterich (2019), "Benchmarking neural network robustness", for severities up to 5.
    """
    checked_of = _checked_curves(curves)
    names = list(next(iter(checked_of.values())))
    own_figure = ax is None
    if own_figure:
        # One or two panels fit a column, four the page.
        full_width = float(np.clip(1.75 * len(names), style.COLUMN_WIDTH, style.PAGE_WIDTH))
        ax = style.new_axes(1, len(names), size=(full_width, 2.4))
    axes = np.atleast_1d(np.asarray(ax, dtype=object)).ravel()
    if len(axes) != len(names):
        raise ValueError(f"ax has {len(axes)} panels and curves has {len(names)} scores: pass one panel a score")

    found = style.looks(checked_of)
    every_level = np.concatenate([curve["severity"] for of in checked_of.values() for curve in of.values()])
    highest = max(_HIGHEST_SEVERITY, every_level.max())
    for name, panel in zip(names, axes, strict=True):
        kind, nominal = _kind_of(name)
        of_method = {method: of[name] for method, of in checked_of.items()}
        width, height = _inches(panel)
        if nominal is not None:
            panel.axhline(nominal, color=style.GREY, linewidth=0.8)
        for method, look in found.items():
            _draw_curve(panel, of_method[method], look, method)
        head = _mark_infinite(panel, of_method, found)
        low, high = _limits(of_method.values(), kind, nominal)
        panel.set(
            # Beyond both ends, so that their points are drawn whole.
            xlim=(-0.1 * highest, 1.1 * highest),
            ylim=(low, low + (high - low) / (1 - head)),
            ylabel=_label(name, kind, nominal, height),
        )
        panel.set_xlabel("severity", labelpad=1.5)
        # Every whole number where there is room: a digit and the space around it take 0.16 inches.
        panel.xaxis.set_major_locator(MaxNLocator(int(np.clip(width / 0.16, 1, 6)), integer=True))
        # Two lines each, which puts all digits at one height.
        panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}\n" if value else "0\nnone"))
        panel.yaxis.set_major_locator(MaxNLocator(int(np.clip(height / 0.25, 1, 6)), steps=(1, 2, 2.5, 5, 10)))
        panel.yaxis.set_major_formatter(FuncFormatter(_number))

    handles = [
        Line2D([], [], color=look.color, linestyle=look.linestyle, linewidth=1.0, marker=look.marker, label=method)
        for method, look in found.items()
    ]
    if own_figure:
        style.shared_legend(axes, handles, own_figure=True)
        # Not a suptitle, which constrained layout would put on top of the legend.
        axes[0].get_figure().legends[0].set_title(shift, prop={"size": mpl.rcParams["axes.titlesize"]})
    else:
        _head_of(axes, handles, shift)
    style.settle(axes)
    return axes


def _draw_curve(ax: Axes, curve: Mapping[str, np.ndarray], look: style.Look, method: str) -> None:
    """Draw one method's line with its bars; what is not finite leaves a gap."""
    value, error = (np.where(np.isfinite(curve[part]), curve[part], np.nan) for part in ("value", "standard_error"))
    ax.errorbar(
        curve["severity"],
        value,
        yerr=error,
        color=look.color,
        linestyle=look.linestyle,
        marker=look.marker,
        linewidth=1.0,
        elinewidth=0.7,
        label=method,
    )


def _mark_infinite(
    ax: Axes, of_method: Mapping[str, Mapping[str, np.ndarray]], found: Mapping[str, style.Look]
) -> float:
    """Write ∞ in a method's colour where its score is infinite, and return the share of the height to keep free."""
    num_at: dict[float, int] = {}
    line = 0.09  # of the height: one mark, at the size of text and the usual height of a panel
    for method, curve in of_method.items():
        for severity, value in zip(curve["severity"], curve["value"], strict=True):
            if np.isinf(value):
                ax.text(
                    severity,
                    1 - line * num_at.get(severity, 0),
                    _number(value).replace("inf", "∞"),
                    transform=ax.get_xaxis_transform(),
                    ha="center",
                    va="top",
                    color=style.text_color(found[method].color),
                )
                num_at[severity] = num_at.get(severity, 0) + 1
    return min(0.5, line * max(num_at.values(), default=0))


def _head_of(axes: np.ndarray, handles: Sequence[Line2D], shift: str) -> None:
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
    axes[0].set_title(shift or " ", loc="left", pad=5 + 10.1 * num_rows)


def _inches(ax: Axes) -> tuple[float, float]:
    """Return width and height of axes, before a layout has taken room for what stands around them."""
    box, figure = ax.get_window_extent(), ax.get_figure(root=True)
    assert figure is not None
    return box.width / figure.dpi, box.height / figure.dpi


def _number(value: float, _: int | None = None) -> str:
    """Write a tick: no trailing zeros, no negative zero, a minus and not a hyphen."""
    return f"{value + 0.0:g}".replace("-", "\N{MINUS SIGN}")


def _kind_of(score: str) -> tuple[_Kind, float | None]:
    """Return what is known of a score, and the level that a coverage should have.

    Example:
        >>> _kind_of("entropy, total")[0].unit, _kind_of("coverage, 90%")[1], _kind_of("loss")[0].better
        ('nats', 0.9, '')
    """
    named = re.match(rf"(?:mean )?({'|'.join(_KINDS)})(?![\w-])", score.lower())
    if named is None:
        return _Kind(), None
    percent = re.search(r"(\d+(?:\.\d+)?) ?%", score) if named.group(1) == "coverage" else None
    return _KINDS[named.group(1)], None if percent is None else float(percent.group(1)) / 100


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


def _checked_curves(
    curves: Mapping[str, Mapping[str, Mapping[str, ArrayLike]]],
) -> dict[str, dict[str, dict[str, np.ndarray]]]:
    """Check that every method has the same scores, each with its three arrays of one length."""
    if not isinstance(curves, Mapping):
        raise TypeError(
            f"curves is a {type(curves).__name__} but should map each method to its scores: pass"
            " {'nuts': {'accuracy': {'severity': ..., 'value': ..., 'standard_error': ...}}}"
        )
    if not curves:
        raise ValueError("curves is empty but should hold the scores of each method: pass at least one method")
    found: dict[str, dict[str, dict[str, np.ndarray]]] = {}
    for method, of_method in curves.items():
        name = f"curves[{method!r}]"
        if not isinstance(of_method, Mapping):
            raise TypeError(
                f"{name} is a {type(of_method).__name__} but should map each score to its curve: pass a dict"
            )
        if not of_method:
            raise ValueError(f"{name} is empty but should hold a curve for each score: pass at least one score")
        found[method] = {score: _checked_curve(f"{name}[{score!r}]", curve) for score, curve in of_method.items()}
    check_same_keys("curves", found, "scores", advice=", with NaN where one could not be computed")
    return found


def _checked_curve(name: str, curve: Mapping[str, ArrayLike]) -> dict[str, np.ndarray]:
    """Check one curve: three arrays (level,) of numbers, severities that increase from 0 on, errors from 0 on."""
    if not isinstance(curve, Mapping):
        raise TypeError(f"{name} is a {type(curve).__name__} but should map each of {_ARRAYS} to an array: pass a dict")
    missing = [part for part in _ARRAYS if part not in curve]
    if missing:
        raise ValueError(f"{name} has {list(curve)} but no {missing}: pass an array (level,) for each of {_ARRAYS}")
    arrays = {part: _numbers(f"{name}[{part!r}]", curve[part]) for part in _ARRAYS}
    lengths = {part: len(array) for part, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(
            f"{name} has arrays of the lengths {lengths} but one level has one of each: pass equal lengths"
        )
    severity, error = arrays["severity"], arrays["standard_error"]
    if not np.isfinite(severity).all() or severity[0] < 0 or (np.diff(severity) <= 0).any():
        raise ValueError(
            f"{name}['severity'] is {severity.tolist()} but should increase from 0 on, 0 being no shift: sort the"
            " levels, one row each"
        )
    if (error < 0).any():
        raise ValueError(
            f"{name}['standard_error'] reaches {error[error < 0].min():.3g} but is not negative: pass sd / √rows"
        )
    return arrays


def _numbers(name: str, values: ArrayLike) -> np.ndarray:
    """Return an array (level,) as float64; NaN and infinity stay."""
    try:
        array = np.asarray(values)
    except ValueError:  # lists of different lengths
        array = np.asarray(None)
    if array.dtype.kind not in "iuf":
        raise ValueError(f"{name} has dtype {array.dtype} but should be numbers (level,): pass NaN where there is none")
    checked(name, np.zeros(array.shape), "level")
    return array.astype(np.float64)
