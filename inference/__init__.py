"""From a model and data to draws, predictions, scores.

`fit(key, model, x, y, method)` with `NUTS(...)`, `SVI(...)` or `BayesByBackprop(...)` returns a `Fit`;
`predict(fit, x)` turns it into predictions, and `to_datatree(fit)` into an ArviZ DataTree.
"""

from .backprop import BayesByBackprop
from .base import Fit, FitError, Method, fit
from .nuts import NUTS
from .predict import ClassPredictive, NormalPredictive, predict, predict_draws
from .svi import SVI
from .variational import VariationalConv, VariationalDense

__all__ = [
    "NUTS",
    "SVI",
    "BayesByBackprop",
    "ClassPredictive",
    "Fit",
    "FitError",
    "Method",
    "NormalPredictive",
    "VariationalConv",
    "VariationalDense",
    "fit",
    "predict",
    "predict_draws",
]
