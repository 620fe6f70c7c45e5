"""Does a model notice that its inputs drift: its scores against the severity of a shift."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import ArrayLike

from . import style
from ._arrays import check_lengths, check_parts, check_standard_error, checked_curves, checked_numbers
from ._score_panels import draw_panel, finish, inches, method_handles

__all__ = ["severity_curves"]

_ARRAYS = ("severity", "value", "standard_error")
_EXAMPLE = "{'nuts': {'accuracy': {'severity': ..., 'value': ..., 'standard_error': ...}}}"
# The axis reaches this far in every figure, so that two shifts compare: the scale of Hendrycks and Dietterich.
_HIGHEST_SEVERITY = 5


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
    checked_of = checked_curves(curves, _checked_curve, example=_EXAMPLE)
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
        width, _ = inches(panel)
        of_method = {method: of[name] for method, of in checked_of.items()}
        draw_panel(panel, name, of_method, found, _draw_curve, along="severity")
        # Beyond both ends, so that their points are drawn whole.
        panel.set_xlim(-0.1 * highest, 1.1 * highest)
        panel.set_xlabel("severity", labelpad=1.5)
        # Every whole number where there is room: a digit and the space around it take 0.16 inches.
        panel.xaxis.set_major_locator(MaxNLocator(int(np.clip(width / 0.16, 1, 6)), integer=True))
        # Two lines each, which puts all digits at one height.
        panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}\n" if value else "0\nnone"))

    finish(axes, method_handles(found), shift, own_figure=own_figure)
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


def _checked_curve(name: str, curve: Mapping[str, ArrayLike]) -> dict[str, np.ndarray]:
    """Check one curve: three arrays (level,) of numbers, severities that increase from 0 on, errors from 0 on."""
    check_parts(name, curve, _ARRAYS, "level")
    arrays = {part: checked_numbers(f"{name}[{part!r}]", curve[part], "level") for part in _ARRAYS}
    check_lengths(name, arrays, "level")
    severity = arrays["severity"]
    if not np.isfinite(severity).all() or severity[0] < 0 or (np.diff(severity) <= 0).any():
        raise ValueError(
            f"{name}['severity'] is {severity.tolist()} but should increase from 0 on, 0 being no shift: sort the"
            " levels, one row each"
        )
    check_standard_error(name, arrays["standard_error"])
    return arrays
