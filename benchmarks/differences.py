"""Which of two methods is better: paired bootstrap over test rows, and over seeds, for all pairs of methods at once."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from hmcvi.inference import scores

__all__ = ["COLUMNS", "all_differences"]

COLUMNS = ("method", "minus", "score", "value", "low", "high", "probability_better", "tied")

HIGHER_IS_BETTER = ("accuracy",)
"""Of the scores that are means over rows; of the others lower is better."""

RowScores = Mapping[str, Mapping[str, np.ndarray]]
"""By method and score, the values of the rows (row,)."""


def all_differences(
    by_seed: Sequence[RowScores],
    *,
    same_rows: bool = False,
    monte_carlo_errors: Mapping[str, Mapping[str, float]] | None = None,
) -> pd.DataFrame:
    """Return the paired difference of every two methods in every score that is a mean over rows, with `COLUMNS`.

    `value` is the mean of `method` less that of `minus`; `low` and `high` are the ends of its 95 % interval;
    `probability_better` is the share of the resamples in which `method` is the better one; `tied` says that the
    interval holds 0.

    Arguments:
        by_seed: for each seed the row scores of every method, the same methods in all; `minus` is the one that comes
            earlier.
        same_rows: whether all seeds are scored on the same rows.
        monte_carlo_errors: by method and score, the Monte Carlo error of its mean at the one seed, which widens the
            intervals; several seeds show it in their spread, and need none.
    """
    pairs = [(b, a, score) for a, b in itertools.combinations(by_seed[0], 2) for score in by_seed[0][a]]
    if not pairs:
        return pd.DataFrame(columns=list(COLUMNS))
    with np.errstate(invalid="ignore"):  # both ruled out what happened: neither is better
        by_pair = [np.stack([of[a][s] - of[b][s] for a, b, s in pairs], 1) for of in by_seed]
        of = monte_carlo_errors
        noise = None if of is None else np.array([np.hypot(of[a][s], of[b][s]) for a, b, s in pairs])
        found = scores.paired_bootstrap(by_pair, same_rows=same_rows, monte_carlo_error=noise)
    upward = np.array([score in HIGHER_IS_BETTER for _, _, score in pairs])
    better = np.where(upward, found.above, 1 - found.above)
    columns = (found.value, found.low, found.high, better, found.tied)
    return pd.DataFrame([(*pair, *of) for pair, *of in zip(pairs, *columns, strict=True)], columns=list(COLUMNS))
