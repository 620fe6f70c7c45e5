"""The network models against formulas written out in NumPy and SciPy: sites, densities, priors."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from numpyro import handlers
from numpyro.infer import MCMC, NUTS
from numpyro.infer.util import log_density
from scipy import stats
from scipy.special import logsumexp

from hmcvi.models import Hierarchical, Laplace, Normal, ScaleMixture, cnn, conv, dense, gp, mlp
from hmcvi.models.likelihoods import ACTIVATIONS, activation_function
from hmcvi.models.priors import PRIORS

from .traces import CLASSES, FEATURES, KEY, ROWS, data, shapes, trace


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


# --- sites

TWO_LAYERS = {
    "hidden_0.kernel": (FEATURES, 5),
    "hidden_0.bias": (5,),
    "hidden_1.kernel": (5, 2),
    "hidden_1.bias": (2,),
}


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"widths": (5, 2), "num_classes": CLASSES}, TWO_LAYERS | {"out.kernel": (2, CLASSES), "out.bias": (CLASSES,)}),
        (
            {"widths": (5, 2), "likelihood": "normal"},
            TWO_LAYERS | {"out.kernel": (2, 1), "out.bias": (1,), "noise_scale": ()},
        ),
        ({"widths": (), "num_classes": 2}, {"out.kernel": (FEATURES, 2), "out.bias": (2,)}),
        (
            {"widths": (), "num_classes": 2, "prior": Hierarchical()},
            {"out.kernel": (FEATURES, 2), "out.bias": (2,), "out.kernel.scale": (), "out.bias.scale": ()},
        ),
    ],
)
def test_sites_of_mlp(options, wanted):
    x, _ = data()
    assert shapes(mlp, x, **options) == wanted | {"y": (ROWS,)}
    # Further axes of x are features.
    assert shapes(mlp, x.reshape(ROWS, 2, 2), **options) == wanted | {"y": (ROWS,)}


@pytest.mark.parametrize(
    ("image", "flat"), [((8, 8, 1), 2 * 2 * 16), ((28, 28, 1), 7 * 7 * 16), ((32, 32, 3), 8 * 8 * 16)]
)
def test_sites_of_cnn(image, flat):
    wanted = {
        "conv_0.kernel": (3, 3, image[-1], 8),
        "conv_0.bias": (8,),
        "conv_1.kernel": (3, 3, 8, 16),
        "conv_1.bias": (16,),
        "hidden_0.kernel": (flat, 32),
        "hidden_0.bias": (32,),
        "out.kernel": (32, 10),
        "out.bias": (10,),
        "y": (2,),
    }
    assert shapes(cnn, jnp.zeros((2, *image))) == wanted


def test_options_of_cnn_reach_its_sites():
    found = shapes(cnn, jnp.zeros((2, 9, 9, 2)), channels=(4,), kernel_size=2, pool=3, widths=(), likelihood="normal")
    assert found == {
        "conv_0.kernel": (2, 2, 2, 4),
        "conv_0.bias": (4,),
        "out.kernel": (3 * 3 * 4, 1),
        "out.bias": (1,),
        "noise_scale": (),
        "y": (2,),
    }


LENET_5 = {"channels": (6, 16, 120), "kernel_size": 5, "widths": (84,)}


def test_every_block_has_the_pooling_of_its_place():
    # LeCun et al. (1998): 28 x 28 pixels, halved twice and then left, so 7 x 7 x 120 meet the dense layer.
    lenet = shapes(cnn, jnp.zeros((2, 28, 28, 1)), pool=(2, 2, 1), **LENET_5)
    assert lenet == {
        "conv_0.kernel": (5, 5, 1, 6),
        "conv_0.bias": (6,),
        "conv_1.kernel": (5, 5, 6, 16),
        "conv_1.bias": (16,),
        "conv_2.kernel": (5, 5, 16, 120),
        "conv_2.bias": (120,),
        "hidden_0.kernel": (5880, 84),
        "hidden_0.bias": (84,),
        "out.kernel": (84, 10),
        "out.bias": (10,),
        "y": (2,),
    }
    # One number stands for every block.
    alike = [shapes(cnn, jnp.zeros((2, 28, 28, 1)), pool=pool, **LENET_5) for pool in (2, [2, 2, 2])]
    assert alike[0] == alike[1] != lenet
    # The sites' shapes do not tell the order: the image that the second block sees does.
    seen = []
    for pool in ((3, 1), (1, 3)):
        model = functools.partial(cnn, channels=(1, 1), widths=(), pool=pool)
        jax.eval_shape(
            lambda model=model: seen.append(trace(model, jnp.zeros((2, 6, 6, 1)))["conv_1"]["args"][0].shape)
        )
    assert seen == [(2, 2, 2, 1), (2, 6, 6, 1)]


REGRESSION_GP = {"lengthscale": (FEATURES,), "amplitude": (), "noise_scale": (), "y": (ROWS,)}


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({}, REGRESSION_GP),
        ({"kernel": "periodic"}, REGRESSION_GP | {"period": ()}),
        ({"x_new": jnp.zeros((3, FEATURES))}, REGRESSION_GP | {"y_new": (3,)}),
        (
            {"likelihood": "categorical", "num_classes": 3, "x_new": jnp.zeros((5, FEATURES))},
            {
                "lengthscale": (FEATURES,),
                "amplitude": (),
                "latent": (ROWS, 3),
                "y": (ROWS,),
                "latent_new": (5, 3),
                "y_new": (5,),
            },
        ),
        (
            {"likelihood": "categorical", "num_classes": 2},
            {"lengthscale": (FEATURES,), "amplitude": (), "latent": (ROWS, 1), "y": (ROWS,)},
        ),
    ],
)
def test_sites_of_gp(options, wanted):
    assert shapes(gp, data()[0], **options) == wanted


@pytest.mark.parametrize(
    ("model", "shape", "options", "site"),
    [
        (mlp, (FEATURES,), {"widths": (2,), "likelihood": "normal"}, ("hidden_0.kernel", (FEATURES, 2))),
        (cnn, (8, 8, 1), {"channels": (2,), "widths": (), "num_classes": CLASSES}, ("conv_0.kernel", (3, 3, 1, 2))),
        (gp, (FEATURES,), {"likelihood": "categorical", "num_classes": CLASSES}, ("latent", (ROWS, CLASSES))),
    ],
)
def test_plain_numpyro_samples_every_model(model, shape, options, site):
    # The other likelihood of mlp and gp is sampled by their docstrings' examples: a compilation takes five seconds.
    x, y = data(options.get("likelihood", "categorical"), shape=shape)
    mcmc = MCMC(NUTS(model), num_warmup=5, num_samples=5, progress_bar=False)
    mcmc.run(KEY, x, y, **options)
    draws = mcmc.get_samples()
    latent = {name: (5, *value) for name, value in shapes(model, x, **options).items() if name != "y"}
    assert {name: value.shape for name, value in draws.items()} == latent
    assert draws[site[0]].shape == (5, *site[1])
    # A chain that rejects every step repeats its first draw.
    assert all(len(np.unique(value.reshape(5, -1), axis=0)) > 1 for value in draws.values())


# --- densities


def log_normal(value, scale):
    return stats.norm.logpdf(np.asarray(value, float), 0, scale).sum()


def network_log_prior(values):
    """Normal(0, 9 / fan-in) for kernels, Normal(0, 9) for biases, HalfNormal(1) for the noise."""
    total = 0.0
    for name, value in values.items():
        if name.endswith("kernel"):
            total += log_normal(value, 3 / np.sqrt(np.prod(value.shape[:-1])))
        elif name.endswith("bias"):
            total += log_normal(value, 3)
        else:
            total += stats.halfnorm.logpdf(float(value))
    return total


def network_log_likelihood(values, outputs, y):
    if "noise_scale" in values:
        return stats.norm.logpdf(y, outputs[:, 0], float(values["noise_scale"])).sum()
    return (outputs[np.arange(len(y)), y] - logsumexp(outputs, axis=1)).sum()


def mlp_outputs(values, x):
    values = {name: np.asarray(value) for name, value in values.items()}
    hidden = np.tanh(np.asarray(x) @ values["hidden_0.kernel"] + values["hidden_0.bias"])
    hidden = np.tanh(hidden @ values["hidden_1.kernel"] + values["hidden_1.bias"])
    return hidden @ values["out.kernel"] + values["out.bias"]


def cnn_outputs(values, x):
    """One block: 3 x 3 convolution with a border of zeros, relu, 2 x 2 maxima; by loops over pixels."""
    values = {name: np.asarray(value) for name, value in values.items()}
    x = np.pad(np.asarray(x), ((0, 0), (1, 1), (1, 1), (0, 0)))
    rows, height, width, _ = x.shape
    image = np.zeros((rows, height - 2, width - 2, values["conv_0.bias"].size))
    for i in range(height - 2):
        for j in range(width - 2):
            image[:, i, j] = np.einsum("rhwi,hwio->ro", x[:, i : i + 3, j : j + 3], values["conv_0.kernel"])
    image = np.maximum(image + values["conv_0.bias"], 0)
    pooled = np.stack(
        [[image[:, i : i + 2, j : j + 2].max((1, 2)) for j in range(0, width - 2, 2)] for i in range(0, height - 2, 2)]
    )  # (out height, out width, row, channel)
    return pooled.transpose(2, 0, 1, 3).reshape(rows, -1) @ values["out.kernel"] + values["out.bias"]


NETWORKS = [
    (mlp, (FEATURES,), {"widths": (5, 2)}, mlp_outputs),
    (cnn, (4, 6, 2), {"channels": (3,), "widths": ()}, cnn_outputs),
]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("num_rows", [None, 7 * ROWS])
@pytest.mark.parametrize("likelihood", ["categorical", "normal"])
@pytest.mark.parametrize(("model", "shape", "options", "outputs"), NETWORKS)
def test_log_joint_of_networks(model, shape, options, outputs, likelihood, num_rows):
    x, y = data(likelihood, shape=shape)
    options = options | {"likelihood": likelihood, "num_classes": CLASSES, "num_rows": num_rows}
    scale = 1 if num_rows is None else num_rows / ROWS  # a minibatch stands for N / B times its rows
    for seed in range(3):
        rng = np.random.default_rng(seed)
        values = {name: rng.normal(size=size) for name, size in shapes(model, x, **options).items() if name != "y"}
        values |= {"noise_scale": np.abs(values["noise_scale"])} if likelihood == "normal" else {}
        found = log_density(handlers.seed(model, KEY), (x, y), options, values)[0]
        wanted = network_log_prior(values) + scale * network_log_likelihood(values, outputs(values, x), np.asarray(y))
        np.testing.assert_allclose(found, wanted, rtol=1e-10)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_are_those_named(name):
    x = jnp.linspace(-3, 3, 7)
    np.testing.assert_array_equal(activation_function(name)(x), getattr(jax.nn, name)(x))


@pytest.mark.parametrize("activation", ["relu", jnp.sin])
def test_the_activation_given_is_applied(activation):
    # The log joints above see the defaults, tanh in mlp and relu in cnn.
    values = {"hidden_0.kernel": jnp.eye(FEATURES), "out.kernel": jnp.eye(FEATURES)}
    values |= {"hidden_0.bias": jnp.zeros(FEATURES), "out.bias": jnp.zeros(FEATURES)}
    x, _ = data()
    model = handlers.substitute(mlp, data=values)
    sites = trace(model, x, widths=(FEATURES,), num_classes=FEATURES, activation=activation)
    wanted = np.maximum(x, 0) if activation == "relu" else np.sin(x)
    np.testing.assert_allclose(sites["y"]["fn"].logits, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("likelihood", ["categorical", "normal"])
def test_drawn_targets_follow_the_outputs(likelihood):
    # Weights of 0 but for a bias: labels have probabilities softmax(bias), targets are Normal(bias, noise).
    rows, classes = 20_000, 3
    bias = jnp.asarray([0.0, 1.0, -1.0]) if likelihood == "categorical" else jnp.asarray([2.0])
    values = {"out.kernel": jnp.zeros((1, bias.size)), "out.bias": bias, "noise_scale": jnp.asarray(0.5)}
    model = handlers.seed(handlers.substitute(mlp, data=values), KEY)
    y = np.asarray(model(jnp.zeros((rows, 1)), widths=(), likelihood=likelihood, num_classes=classes))
    assert y.shape == (rows,)
    # Four standard errors: 6e-5 false alarms for each number compared.
    if likelihood == "categorical":
        probs = np.exp(bias - logsumexp(bias))
        np.testing.assert_array_less(
            np.abs(np.bincount(y, minlength=3) / rows - probs), 4 * np.sqrt(probs * (1 - probs) / rows)
        )
    else:
        assert y.mean() == pytest.approx(2.0, abs=4 * 0.5 / np.sqrt(rows))
        assert y.std() == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(2 * rows))


# --- priors

SHAPE, FAN_IN = (3, 4), 7


def mixture_log_density(weights, prior):
    terms = [
        np.log(prior.mixture_weight) + stats.norm.logpdf(weights, 0, prior.scale_1),
        np.log(1 - prior.mixture_weight) + stats.norm.logpdf(weights, 0, prior.scale_2),
    ]
    return logsumexp(terms, axis=0).sum()


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("prior", "log_prob"),
    [
        (Normal(), lambda w: log_normal(w, 3 / np.sqrt(FAN_IN))),
        (Normal(0.5), lambda w: log_normal(w, 0.5 / np.sqrt(FAN_IN))),
        (Normal(0.5, fan_in_scaled=False), lambda w: log_normal(w, 0.5)),
        (Laplace(), lambda w: stats.laplace.logpdf(w, 0, 3 / np.sqrt(2 * FAN_IN)).sum()),
        (Laplace(0.5), lambda w: stats.laplace.logpdf(w, 0, 0.5 / np.sqrt(2 * FAN_IN)).sum()),
        (ScaleMixture(), lambda w: mixture_log_density(w, ScaleMixture(0.5, 1.0, np.exp(-6)))),
        (ScaleMixture(0.25, 2.0, 0.01), lambda w: mixture_log_density(w, ScaleMixture(0.25, 2.0, 0.01))),
    ],
)
def test_log_density_of_priors(prior, log_prob):
    distribution = prior.distribution("w", SHAPE, FAN_IN, jnp.float64)
    assert (distribution.batch_shape, distribution.event_shape) == ((), SHAPE)
    for scale in (0.001, 0.5, 3.0):
        weights = np.random.default_rng(0).normal(scale=scale, size=SHAPE)
        np.testing.assert_allclose(distribution.log_prob(weights), log_prob(weights), rtol=1e-10)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("options", "median", "spread"), [({}, 1.0, 1.0), ({"scale": 2.0, "spread": 0.3}, 2.0, 0.3)])
def test_log_density_of_the_hierarchical_prior(options, median, spread):
    def model():
        numpyro.sample("w", Hierarchical(**options).distribution("w", SHAPE, FAN_IN, jnp.float64))

    weights = np.random.default_rng(0).normal(size=SHAPE)
    for scale in (0.1, 1.7):
        total, sites = log_density(model, (), {}, {"w.scale": jnp.asarray(scale), "w": jnp.asarray(weights)})
        of_scale = stats.lognorm.logpdf(scale, spread, scale=median)
        of_weights = log_normal(weights, scale / np.sqrt(FAN_IN))
        np.testing.assert_allclose(total, of_scale + of_weights, rtol=1e-10)
        np.testing.assert_allclose(sites["w"]["fn"].log_prob(weights), of_weights, rtol=1e-10)


def test_the_command_line_s_names_are_the_priors():
    assert {"normal": Normal, "mixture": ScaleMixture, "laplace": Laplace, "hierarchical": Hierarchical} == PRIORS


@pytest.mark.parametrize(("prior", "kernel_sd"), [(Normal(2.0), 2.0), (Laplace(2.0), 2.0), (None, 3.0)])
def test_fan_in_is_the_number_of_inputs_of_an_output(prior, kernel_sd):
    # A dense output sums over its features, a convolution's over height x width x channel, a bias over 1.
    with handlers.trace() as dense_sites, handlers.seed(rng_seed=0):
        dense("a", jnp.zeros((2, 5)), 3, prior=prior)
    with handlers.trace() as conv_sites, handlers.seed(rng_seed=0):
        conv("a", jnp.zeros((2, 8, 8, 4)), 3, kernel_size=(2, 3), prior=prior)
    for sites, fan_in in ((dense_sites, 5), (conv_sites, 2 * 3 * 4)):
        variance = np.asarray(sites["a.kernel"]["fn"].variance)
        np.testing.assert_allclose(variance, kernel_sd**2 / fan_in, rtol=1e-6)
        np.testing.assert_allclose(sites["a.bias"]["fn"].variance, kernel_sd**2, rtol=1e-6)
