"""From a model and data to draws, predictions, scores.

`fit(key, model, x, y, method)` with `NUTS(...)`, `SVI(...)` or `BayesByBackprop(...)` returns a `Fit`;
`predict(fit, x)` turns it into predictions, and `to_datatree(fit)` into an ArviZ DataTree. `Laplace(...)`,
`MAP(...)` and `Ensemble(...)` are baselines with the same interface.
"""

from .backprop import BayesByBackprop
from .base import Fit, FitError, Method
from .checkpoint import Checkpoint, CheckpointError
from .completion import Completion, completion
from .diagnostics import Convergence, convergence
from .export import from_datatree, load_datatree, save_datatree, to_datatree
from .family import FamilyFit, family_fit
from .fitting import fit
from .flow import AutoFlow
from .hmc import HMC
from .importance import Importance, feature_importance
from .laplace import Laplace
from .mams import MAMS
from .mesh import fit_mesh
from .microcanonical import MCLMC
from .nuts import NUTS
from .point import MAP, Ensemble
from .predict import predict, predict_draws
from .predictive import ClassPredictive, NormalPredictive
from .svi import SVI
from .training import FanIn
from .variational import VariationalConv, VariationalDense
from .weights import prune, signal_to_noise

__all__ = [
    "HMC",
    "MAMS",
    "MAP",
    "MCLMC",
    "NUTS",
    "SVI",
    "AutoFlow",
    "BayesByBackprop",
    "Checkpoint",
    "CheckpointError",
    "ClassPredictive",
    "Completion",
    "Convergence",
    "Ensemble",
    "FamilyFit",
    "FanIn",
    "Fit",
    "FitError",
    "Importance",
    "Laplace",
    "Method",
    "NormalPredictive",
    "VariationalConv",
    "VariationalDense",
    "completion",
    "convergence",
    "family_fit",
    "feature_importance",
    "fit",
    "fit_mesh",
    "from_datatree",
    "load_datatree",
    "predict",
    "predict_draws",
    "prune",
    "save_datatree",
    "signal_to_noise",
    "to_datatree",
]
