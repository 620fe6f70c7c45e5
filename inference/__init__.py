"""From a model and data to draws, predictions, scores.

`fit(key, model, x, y, method)` with `NUTS(...)`, `SVI(...)` or `BayesByBackprop(...)` returns a `Fit`;
`predict(fit, x)` turns it into predictions, and `to_datatree(fit)` into an ArviZ DataTree.
"""

from .backprop import BayesByBackprop
from .base import Fit, FitError, Method, fit
from .diagnostics import Convergence, convergence
from .export import from_datatree, load_datatree, save_datatree, to_datatree
from .nuts import NUTS
from .predict import ClassPredictive, NormalPredictive, predict, predict_draws
from .svi import SVI
from .variational import VariationalConv, VariationalDense

__all__ = [
    "NUTS",
    "SVI",
    "BayesByBackprop",
    "ClassPredictive",
    "Convergence",
    "Fit",
    "FitError",
    "Method",
    "NormalPredictive",
    "VariationalConv",
    "VariationalDense",
    "convergence",
    "fit",
    "from_datatree",
    "load_datatree",
    "predict",
    "predict_draws",
    "save_datatree",
    "to_datatree",
]
