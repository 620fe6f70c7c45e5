"""The rows of the board that compare a fit's posterior means and standard deviations with the reference's."""

from __future__ import annotations

import math

import numpy as np

from hmcvi.inference import Fit, scores
from hmcvi.inference.moments import ALL_SITES, Draws

from .evaluate import Row

__all__ = ["MEANS", "SDS", "moment_rows"]

MEANS = "posterior means, in sds"
SDS = "posterior sds, log ratio"


def moment_rows(fit: Fit, reference: Fit) -> list[Row]:
    """Return the errors of posterior moments in reference standard deviations, over all sites and site by site.

    Where the two are one and the same, the rows hold the noise floor: the first half of the reference's chains (of
    one chain, its draws) against the second. A site's rows are named "..., in sds: hidden_0.kernel". A fit of one
    draw has no rows of standard deviations.
    """
    theirs = {site: np.asarray(values) for site, values in reference.draws.items()}
    ours: Draws = {site: np.asarray(values) for site, values in fit.draws.items()}
    if fit is reference:
        halves = [_halves(values) for values in theirs.values()]
        ours, theirs = (dict(zip(theirs, half, strict=True)) for half in zip(*halves, strict=True))
    rows = []
    for site, errors in scores.moment_errors(ours, theirs).items():
        suffix = "" if site == ALL_SITES else f": {site}"
        for name, error in ((MEANS, errors.mean), (SDS, errors.log_sd)):
            if not math.isnan(error.value):
                spread = (error.interval.high - error.value) / 1.96
                rows.append(Row("reference", f"{name}{suffix}", error.value, math.nan, spread, *error.interval))
    return rows


def _halves(values: np.ndarray) -> list[np.ndarray]:
    axis = 0 if len(values) > 1 else 1
    return np.split(values, [values.shape[axis] // 2], axis)
