"""NumPyro model functions, and nothing that fits them.

Each model is an ordinary function: `MCMC(NUTS(mlp), num_warmup=500, num_samples=500).run(key, x, y)` works with
no help from hmcvi. Hyperparameters are keyword arguments, so `functools.partial(mlp, widths=(32,))` is a
configured model.
"""

from .cnn import cnn
from .gp import gp
from .hsgp import hsgp
from .layers import conv, dense
from .mlp import mlp
from .priors import Hierarchical, Laplace, Normal, Prior, ScaleMixture
from .sgp import sgp

__all__ = [
    "Hierarchical",
    "Laplace",
    "Normal",
    "Prior",
    "ScaleMixture",
    "cnn",
    "conv",
    "dense",
    "gp",
    "hsgp",
    "mlp",
    "sgp",
]
