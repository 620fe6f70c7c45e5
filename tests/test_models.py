"""The network models against formulas written out in NumPy and SciPy: sites, densities, priors, the layer effect."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.infer import MCMC, NUTS
from numpyro.infer.util import log_density
from numpyro.primitives import Messenger
from scipy import stats
from scipy.special import logsumexp

from hmcvi.models import Hierarchical, Laplace, Normal, ScaleMixture, cnn, conv, dense, gp, hsgp, mlp, sgp
from hmcvi.models.likelihoods import ACTIVATIONS, activation_function
from hmcvi.models.priors import PRIORS

KEY = jax.random.key(0)
ROWS, FEATURES, CLASSES = 6, 4, 3


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def data(likelihood="categorical", shape=(FEATURES,)):
    """Inputs and targets of ROWS rows, in double precision where that is on."""
    rng = np.random.default_rng(0)
    x, y = jnp.asarray(rng.normal(size=(ROWS, *shape)).tolist()), jnp.asarray(rng.normal(size=ROWS).tolist())
    return x, (y if likelihood == "normal" else jnp.arange(ROWS) % CLASSES)


def trace(model, *args, key=KEY, **kwargs):
    return handlers.trace(handlers.seed(model, key)).get_trace(*args, **kwargs)


def shapes(model, *args, **kwargs):
    """Shape of every sample site by name; nothing is computed."""

    def sites():
        found = trace(model, *args, **kwargs)
        return {name: site["value"] for name, site in found.items() if site["type"] == "sample"}

    return {name: value.shape for name, value in jax.eval_shape(sites).items()}


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


# --- the layer effect

WIDTHS = {"widths": (5,), "num_classes": CLASSES}
SITES = ("hidden_0.kernel", "hidden_0.bias", "out.kernel", "out.bias", "y")


class Answer(Messenger):
    """Answers the layer named with an output of its own, and keeps the message."""

    def __init__(self, fn=None, *, layer, output):
        self.layer, self.output, self.message = layer, output, None
        super().__init__(fn)

    def process_message(self, msg):
        if msg["type"] == "layer" and msg["name"] == self.layer:
            self.message = dict(msg)
            msg["value"] = self.output


def sample_sites(sites):
    return {name for name, site in sites.items() if site["type"] == "sample"}


def test_a_handler_may_answer_a_layer():
    x, y = data()
    output = jnp.arange(ROWS * CLASSES, dtype=jnp.float32).reshape(ROWS, CLASSES)
    answer = Answer(mlp, layer="out", output=output)
    sites = trace(answer, x, y, **WIDTHS)
    assert sample_sites(sites) == {"hidden_0.kernel", "hidden_0.bias", "y"}  # no weights of `out` are drawn
    np.testing.assert_array_equal(sites["y"]["fn"].logits, output)
    # The message holds what an answer needs: the input, the operation, the priors.
    (hidden,) = answer.message["args"]
    np.testing.assert_array_equal(hidden, jnp.tanh(sites["hidden_0"]["value"]))
    assert {part: prior.shape() for part, prior in answer.message["priors"].items()} == {
        "kernel": (5, CLASSES),
        "bias": (CLASSES,),
    }
    kernel = jnp.ones((5, CLASSES))
    np.testing.assert_allclose(answer.message["op"](hidden, kernel), hidden @ kernel, rtol=1e-6)


def test_a_layer_without_a_handler_is_its_two_draws():
    x, y = data()
    sites = trace(mlp, x, y, **WIDTHS)
    assert sample_sites(sites) == set(SITES)
    weights = {name: np.asarray(sites[name]["value"]) for name in SITES}
    hidden = np.tanh(np.asarray(x) @ weights["hidden_0.kernel"] + weights["hidden_0.bias"])
    wanted = hidden @ weights["out.kernel"] + weights["out.bias"]
    np.testing.assert_allclose(sites["y"]["fn"].logits, wanted, rtol=1e-4, atol=1e-5)


def test_a_layer_without_a_bias_has_one_site():
    with handlers.trace() as sites, handlers.seed(rng_seed=0):
        output = dense("a", jnp.ones((2, 3)), 4, use_bias=False)
    assert sample_sites(sites) == {"a.kernel"}
    np.testing.assert_allclose(output[0], sites["a.kernel"]["value"].sum(0), rtol=1e-5)


@pytest.mark.parametrize("prior", [None, Hierarchical()])
def test_scope_renames_every_site(prior):
    x, y = data()
    plain = sample_sites(trace(mlp, x, y, prior=prior, **WIDTHS))
    scoped = trace(handlers.scope(mlp, prefix="net", divider="."), x, y, prior=prior, **WIDTHS)
    assert sample_sites(scoped) == {f"net.{name}" for name in plain}


@pytest.mark.parametrize("prior", [None, ScaleMixture(), Hierarchical()])
def test_condition_and_substitute_set_a_weight(prior):
    x, y = data()
    options = WIDTHS | {"prior": prior}
    values = {"out.kernel": jnp.zeros((5, CLASSES)), "out.bias": jnp.asarray([3.0, 2.0, 1.0])}
    conditioned = trace(handlers.condition(mlp, data=values), x, y, **options)
    substituted = trace(handlers.substitute(mlp, data=values), x, y, **options)
    for sites, observed in ((conditioned, True), (substituted, False)):
        assert all(sites[name]["is_observed"] is observed for name in values)
        assert not sites["hidden_0.kernel"]["is_observed"]
        np.testing.assert_array_equal(sites["y"]["fn"].logits, np.tile([3.0, 2.0, 1.0], (ROWS, 1)))


def in_plate(layer, rows=5):
    with handlers.seed(rng_seed=0), numpyro.plate("data", rows):
        layer()


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (lambda: dense("a", jnp.zeros((5, 2)), 3), r"a\.kernel drew shape \(5, 2, 3\) where its prior has \(2, 3\)"),
        (
            lambda: conv("a", jnp.zeros((5, 4, 4, 2)), 3),
            r"a\.kernel drew shape \(5, 3, 3, 2, 3\) where its prior has \(3, 3, 2, 3\)",
        ),
        (
            lambda: dense("a", jnp.zeros((5, 2)), 3, prior=Hierarchical()),
            r"a\.kernel\.scale drew shape \(5,\) where its prior has \(\)",
        ),
    ],
)
def test_weights_inside_a_plate_raise(layer, message):
    with pytest.raises(ValueError, match=f"site {message}: draw weights outside the data plate"):
        in_plate(layer)


def test_weights_inside_a_plate_of_one_row_raise():
    with pytest.raises(ValueError, match=r"drew shape \(1, 2, 3\) where its prior has \(2, 3\)"):
        in_plate(lambda: dense("a", jnp.zeros((1, 2)), 3), rows=1)


@pytest.mark.parametrize("dtype", ["int32", "uint8", "bool"])
@pytest.mark.parametrize(
    ("model", "shape"),
    [(functools.partial(mlp, widths=(5,)), (4,)), (functools.partial(cnn, channels=(2,)), (4, 4, 1))],
)
def test_inputs_that_are_whole_numbers_become_floating_point(model, shape, dtype):
    pixels = jnp.asarray(np.random.default_rng(0).integers(2, size=(ROWS, *shape)).astype(dtype))
    sites, floats = trace(model, pixels), trace(model, pixels.astype(jnp.float32))
    assert all(sites[name]["value"].dtype == jnp.float32 for name in sample_sites(sites) - {"y"})
    np.testing.assert_array_equal(sites["y"]["fn"].logits, floats["y"]["fn"].logits)


@pytest.mark.usefixtures("x64")
def test_inputs_in_double_precision_keep_it():
    x, y = data("normal")
    sites = trace(mlp, x, y, likelihood="normal")
    assert all(sites[name]["value"].dtype == jnp.float64 for name in sample_sites(sites))


# --- bad input

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


def test_weights_of_a_custom_prior_need_only_the_protocol():
    class Uniform:
        def distribution(self, name, shape, fan_in, dtype):
            return dist.Uniform(jnp.full(shape, -1 / fan_in, dtype), 1 / fan_in).to_event(len(shape))

    x, _ = data()
    sites = trace(mlp, x, prior=Uniform(), **WIDTHS)
    assert (
        np.abs(sites["hidden_0.kernel"]["value"]).max() <= 1 / FEATURES < np.abs(sites["hidden_0.bias"]["value"]).max()
    )
