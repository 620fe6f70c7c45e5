"""Every figure of hmcvi: numbers in, axes out.

Functions of matplotlib axes take ``ax=None`` (or ``axes=None``) and return the axes; the two ArviZ figures
return its plot collection. :func:`save` writes any of them.
"""

from .budget import score_against_budget
from .calibration import interval_coverage, reliability
from .differences import score_differences
from .importance import feature_importance
from .posterior import forest, rank
from .regression import Band, predictive_bands
from .shift import severity_curves
from .style import COLUMN_WIDTH, PAGE_WIDTH, Look, context, looks, save
from .training import loss_curves
from .uncertainty import entropy_histograms
from .variance import gradient_variance
from .weights import signal_to_noise, weight_histograms

__all__ = [
    "COLUMN_WIDTH",
    "PAGE_WIDTH",
    "Band",
    "Look",
    "context",
    "entropy_histograms",
    "feature_importance",
    "forest",
    "gradient_variance",
    "interval_coverage",
    "looks",
    "loss_curves",
    "predictive_bands",
    "rank",
    "reliability",
    "save",
    "score_against_budget",
    "score_differences",
    "severity_curves",
    "signal_to_noise",
    "weight_histograms",
]
