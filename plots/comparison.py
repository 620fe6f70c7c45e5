"""Models by leave-one-out cross-validation: expected log predictive densities and their differences, through ArviZ."""

from typing import Any

import arviz_plots
import numpy as np
import pandas as pd
from arviz_plots import PlotCollection
from matplotlib.lines import Line2D

from hmcvi.inference.score_base import checked

from . import style

__all__ = ["model_comparison"]

_COLUMNS = ("elpd", "se", "elpd_diff", "dse")
# Rows are 1 apart: the difference stands this far below its method.
_BELOW = 0.25


@style.styled
def model_comparison(compared: pd.DataFrame) -> PlotCollection:
    """Draw ``elpd_loo`` of every method with its standard error, and the difference to the best with its own.

    The density of a training row under the draws reweighted to leave it out, added up over the rows: higher is better.
    Methods share their rows, so that their errors go together: two that differ can have bars that overlap. The grey bar
    below a method, about the same value, is one standard error of its difference to the best; where it ends left of the
    grey line, the difference is larger than its error. Under the name of a method stands ArviZ's warning, where it has
    one: of how many rows the Pareto k-hat is too high to trust the sum.

    Args:
        compared: what ``arviz.compare`` returns, of methods fitted to the same rows: best first, with the columns
            "elpd", "se", "elpd_diff" and "dse", in nats. Methods are its index, or its column "method" as in
            ``hmcvi.benchmarks.loo.compare_methods``; then of one seed.

    Returns:
        ArviZ's plot collection; its matplotlib figure is ``.viz["figure"].item()``.

    Raises:
        TypeError: ``compared`` is not a data frame.
        ValueError: a column is missing, a method comes twice, or a number is not finite.

    Example:
        >>> numbers = {"elpd": [-99.0, -107.5], "se": [8.1, 8.4], "elpd_diff": [0.0, -8.5], "dse": [0.0, 2.1]}
        >>> collection = model_comparison(pd.DataFrame(numbers, index=["nuts", "svi"]))
        >>> collection.viz["plot"].item().get_xlabel()
        'elpd_loo (nats)'

    Source: Vehtari, Gelman and Gabry (2017), "Practical Bayesian model evaluation using leave-one-out cross-validation
    and WAIC", section 5.
    """
    compared = _checked(compared)
    reference: dict[str, Any] = {"color": style.GREY, "linestyle": "-", "width": 0.8, "zorder": 1}
    collection = arviz_plots.plot_compare(
        compared,
        relative_scale=False,
        visuals={"point_estimate": False, "error_bar": False, "title": False, "ref_line": reference},
        figure_kwargs={"figsize": (style.COLUMN_WIDTH, 0.9 + 0.3 * len(compared)), "figsize_units": "inches"},
        backend="matplotlib",
    )
    _finish(collection, compared)
    return collection


def _checked(compared: pd.DataFrame) -> pd.DataFrame:
    """Return the comparison with methods as its index, or raise."""
    if not isinstance(compared, pd.DataFrame):
        raise TypeError(
            f"compared is a {type(compared).__name__} but should be the data frame that arviz.compare returns"
        )
    if "method" in compared:
        compared = compared.set_index("method")
    missing = [column for column in _COLUMNS if column not in compared]
    if missing:
        raise ValueError(f"compared has the columns {list(compared)} but no {missing}: pass what arviz.compare returns")
    if compared.empty:
        raise ValueError("compared has no row: pass at least one method")
    twice = compared.index[compared.index.duplicated()].unique().tolist()
    if twice:
        raise ValueError(
            f"compared has more than one row of {twice}: pass one seed, such as compared[compared.seed == 0]"
        )
    checked("compared", compared.loc[:, list(_COLUMNS)].astype(float).values, "method", "column")
    return compared.set_axis(compared.index.astype(str))


def _finish(collection: PlotCollection, compared: pd.DataFrame) -> None:
    """Draw each method in its colour, its difference below it, and name both."""
    ax = collection.viz["plot"].item()
    looks = style.looks(compared.index)
    bars: dict[str, Any] = {"elinewidth": 1.2, "capsize": 2, "capthick": 0.8}
    for row, look in zip(compared.itertuples(), looks.values(), strict=True):
        place = len(compared) - compared.index.get_loc(row.Index)
        ax.errorbar(row.elpd, place, xerr=row.se, color=look.color, marker=look.marker, linestyle="none", **bars)
        if row.dse > 0:
            ax.errorbar(row.elpd, place - _BELOW, xerr=row.dse, color=style.GREY, marker="|", linestyle="none", **bars)
    ax.set(xlabel="elpd_loo (nats)", ylim=(1 - 2 * _BELOW, len(compared) + 2 * _BELOW))
    if "diag_elpd" in compared:
        names = [f"{label}\n{warning}".strip() for label, warning in compared["diag_elpd"].items()]
        ax.set_yticks(range(len(compared), 0, -1), names)
    style.settle((ax,))
    ax.grid(False, axis="y")
    handles = [
        Line2D([], [], color=style.INK, marker="o", label="± standard error"),
        Line2D([], [], color=style.GREY, marker="|", label="± that of the difference to the best"),
    ]
    style.shared_legend(np.array([ax]), handles, own_figure=True)
