"""What the network models and the GP refuse, in a sentence: targets, options, priors, shapes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro import handlers
from numpyro.infer import MCMC, NUTS

from hmcvi.models import Hierarchical, Laplace, Normal, ScaleMixture, cnn, conv, dense, gp, hsgp, mlp, sgp

from .traces import CLASSES, FEATURES, KEY, ROWS

IMAGES = jnp.zeros((ROWS, 8, 8, 1))
X = jnp.zeros((ROWS, FEATURES))
LABELS = np.arange(ROWS) % CLASSES
HIGH, LOW = np.array([0, 1, 2, 1, 3, 0]), np.array([0, 1, -2, 1, 2, 0])


def call(model, *args, **kwargs):
    """The model as a call to make; nothing is computed, since every check is of shapes or of the labels given."""
    options = {"num_classes": CLASSES} | kwargs
    return lambda: jax.eval_shape(lambda: handlers.seed(model, KEY)(*args, **options))


BAD_TARGETS = {
    r"y holds float32 where class labels \(integers\) were wanted: convert y with y\.astype\(int\), or pass "
    r"likelihood='normal'": {"y": LABELS.astype(np.float32)},
    r"labels reach 3 but the model has num_classes=3 \(labels run from 0 to 2\): pass num_classes=4 or relabel": {
        "y": HIGH
    },
    r"labels go down to -2: they run from 0 to 2, relabel them": {"y": LOW},
    r"y has shape \(6, 1\) and x has 6 rows: wanted y of shape \(6,\)": {"y": LABELS[:, None]},
    r"y has shape \(5,\) and x has 6 rows: wanted y of shape \(6,\)": {"y": LABELS[:-1]},
}


@pytest.mark.parametrize("message", BAD_TARGETS)
@pytest.mark.parametrize(
    ("model", "x"),
    [
        (mlp, X),
        (cnn, IMAGES),
        (functools.partial(gp, likelihood="categorical"), X),
        (functools.partial(hsgp, likelihood="categorical", num_basis=3), X),
        (functools.partial(sgp, likelihood="categorical"), X),
    ],
    ids=["mlp", "cnn", "gp", "hsgp", "sgp"],
)
def test_bad_labels(model, x, message):
    with pytest.raises(ValueError, match=message):
        call(model, x, **BAD_TARGETS[message])()


@pytest.mark.parametrize(
    ("model", "x"),
    [(mlp, X), (cnn, IMAGES), (gp, X), (functools.partial(hsgp, num_basis=3), X), (sgp, X)],
    ids=["mlp", "cnn", "gp", "hsgp", "sgp"],
)
def test_bad_regression_targets(model, x):
    # A column of targets against a row of means would broadcast to row x row.
    with pytest.raises(ValueError, match=r"y has shape \(6, 1\) and x has 6 rows: wanted y of shape \(6,\)"):
        call(model, x, jnp.zeros((ROWS, 1)), likelihood="normal")()


def test_labels_out_of_range_raise_inside_a_sampler():
    with pytest.raises(ValueError, match="labels reach 3 but the model has num_classes=3"):
        MCMC(NUTS(mlp), num_warmup=1, num_samples=1, progress_bar=False).run(KEY, X, HIGH, num_classes=CLASSES)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (
            call(mlp, X, activation="swish"),
            "unknown activation 'swish': give a function or one of relu, tanh, silu, gelu, elu, leaky_relu, sigmoid",
        ),
        (call(cnn, IMAGES, activation="swish"), "unknown activation 'swish': give a function or one of relu, tanh"),
        (call(mlp, X, likelihood="poisson"), "unknown likelihood 'poisson': give one of categorical, normal"),
        (call(cnn, IMAGES, likelihood="poisson"), "unknown likelihood 'poisson': give one of categorical, normal"),
        (call(gp, X, likelihood="poisson"), "unknown likelihood 'poisson': give one of categorical, normal"),
        (call(gp, X, kernel="linear"), "unknown kernel 'linear': give one of rbf, matern32, matern52, periodic"),
        (call(mlp, X, num_classes=1), "num_classes=1: a classification has at least 2 classes"),
        (call(mlp, X, num_rows=ROWS - 1), "num_rows=5 but x has 6 rows: num_rows is the size of the whole data set"),
        (call(cnn, X), r"cnn got x of shape \(6, 4\): wanted images \(row, height, width, channel\)"),
        (
            call(cnn, IMAGES, pool=(2, 2, 1)),
            r"cnn got pool=\(2, 2, 1\) for 2 blocks: give one number, or one for each block",
        ),
        (call(cnn, IMAGES, pool=()), r"cnn got pool=\(\) for 2 blocks: give one number, or one for each block"),
        (call(cnn, IMAGES, pool=(2, 5)), "max_pool got a 4x4 image, smaller than its 5x5 window: pool less"),
        (call(cnn, IMAGES, pool=9), "max_pool got a 8x8 image, smaller than its 9x9 window: pool less"),
        (
            lambda: dense("out", IMAGES, 3),
            r"dense layer 'out' got x of shape \(6, 8, 8, 1\): wanted \(row, feature\), flatten it first",
        ),
        (
            lambda: conv("edges", X, 3),
            r"conv layer 'edges' got x of shape \(6, 4\): wanted \(row, height, width, channel\)",
        ),
        (lambda: Normal(0), "Normal prior got scale=0: give a finite number above 0"),
        (lambda: Normal(np.nan), "Normal prior got scale=nan: give a finite number above 0"),
        (lambda: Laplace(-1.0), "Laplace prior got scale=-1.0: give a finite number above 0"),
        (lambda: ScaleMixture(scale_1=np.inf), "ScaleMixture prior got scale_1=inf: give a finite number above 0"),
        (lambda: ScaleMixture(scale_2=0.0), "ScaleMixture prior got scale_2=0.0: give a finite number above 0"),
        (lambda: ScaleMixture(1.0), r"ScaleMixture prior got mixture_weight=1.0: give a number in \(0, 1\)"),
        (lambda: Hierarchical(scale=0.0), "Hierarchical prior got scale=0.0: give a finite number above 0"),
        (lambda: Hierarchical(spread=-1.0), "Hierarchical prior got spread=-1.0: give a finite number above 0"),
    ],
)
def test_bad_input(bad, message):
    with pytest.raises(ValueError, match=message):
        bad()
