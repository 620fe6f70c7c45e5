"""PSIS-LOO at the training rows: the rows of the board, and ArviZ's own comparison of the methods."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pandas as pd

from hmcvi.inference import Fit
from hmcvi.inference.loo import LeaveOneOut, compare_loo, leave_one_out, why_no_loo

from .evaluate import Row

__all__ = ["BAD_ROWS", "ELPD", "TRAINING_ROWS", "compare_methods", "loo_rows", "score_training_rows"]

TRAINING_ROWS = "training rows"
ELPD = "elpd_loo per row"
BAD_ROWS = "rows of too high k-hat"


def score_training_rows(fits: Mapping[str, Fit], unit: float = 1.0) -> tuple[dict[str, LeaveOneOut], dict[str, str]]:
    """Return PSIS-LOO by method where there is one, and where there is none the reason.

    Arguments:
        fits: by method.
        unit: what the targets were divided by; 1 for classes.
    """
    reasons = {name: why_no_loo(fit) for name, fit in fits.items()}
    found = {name: leave_one_out(fit, unit=unit) for name, fit in fits.items() if not reasons[name]}
    return found, {name: reason for name, reason in reasons.items() if reason}


def loo_rows(found: LeaveOneOut) -> list[Row]:
    """Return elpd_loo per row, NaN where k-hat does not allow it, and the number of rows whose k-hat is too high."""
    return [
        Row(TRAINING_ROWS, ELPD, *found.per_row, math.nan),
        Row(TRAINING_ROWS, BAD_ROWS, found.num_bad, math.nan, math.nan),
    ]


def compare_methods(by_seed: Mapping[int, Mapping[str, LeaveOneOut]]) -> pd.DataFrame | None:
    """Return ArviZ's comparison of each seed's methods whose k-hat allows it, best first; None where there is none."""
    sound = {seed: {name: one for name, one in found.items() if one.allowed} for seed, found in by_seed.items()}
    tables = [
        compare_loo(found).rename_axis("method").reset_index().assign(seed=seed)
        for seed, found in sound.items()
        if found
    ]
    return pd.concat(tables, ignore_index=True) if tables else None
