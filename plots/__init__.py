"""Every figure of hmcvi: numbers in, axes out.

Functions of matplotlib axes take ``ax=None`` (or ``axes=None``) and return the axes; figures through ArviZ
return its plot collection. :func:`save` writes any of them.
"""

from .budget import score_against_budget
from .calibration import interval_coverage, reliability
from .chains import energy, rank, trace
from .comparison import model_comparison
from .confidence import confidence_histograms
from .convergence import convergence
from .detection import roc
from .differences import score_differences
from .importance import feature_importance
from .inputs import certain_inputs, class_probabilities
from .pairs import pairs
from .posterior import forest, marginals, ridge
from .regression import Band, predictive_bands
from .selective import rejection_curves
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
    "certain_inputs",
    "class_probabilities",
    "confidence_histograms",
    "context",
    "convergence",
    "energy",
    "entropy_histograms",
    "feature_importance",
    "forest",
    "gradient_variance",
    "interval_coverage",
    "looks",
    "loss_curves",
    "marginals",
    "model_comparison",
    "pairs",
    "predictive_bands",
    "rank",
    "rejection_curves",
    "reliability",
    "ridge",
    "roc",
    "save",
    "score_against_budget",
    "score_differences",
    "severity_curves",
    "signal_to_noise",
    "trace",
    "weight_histograms",
]
