"""The layer effect: what a handler sees and may answer, scopes, conditions, plates, types of inputs."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.primitives import Messenger

from hmcvi.inference import SVI, Fit, predict
from hmcvi.models import Hierarchical, ScaleMixture, cnn, conv, dense, mlp
from hmcvi.models.layers import layer
from hmcvi.models.ops import Dense

from .traces import CLASSES, FEATURES, ROWS, data, sample_sites, trace

WIDTHS = {"widths": (5,), "num_classes": CLASSES}
SITES = ("hidden_0.kernel", "hidden_0.bias", "out.kernel", "out.bias", "y")


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


class Answer(Messenger):
    """Answers the layer named with an output of its own, and keeps the message."""

    def __init__(self, fn=None, *, layer, output):
        self.layer, self.output, self.message = layer, output, None
        super().__init__(fn)

    def process_message(self, msg):
        if msg["type"] == "layer" and msg["name"] == self.layer:
            self.message = dict(msg)
            msg["value"] = self.output


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


class Doubled(Dense):
    """A product of a user's own."""

    def __call__(self, x, kernel):
        return 2 * super().__call__(x, kernel)


class Shifted:
    """An operation that is no product."""

    def __call__(self, x, kernel):
        return x @ kernel + 1


@pytest.mark.parametrize(
    ("op", "shape", "out", "use_bias"),
    [
        (Dense(), (7, 3), 3, True),
        (Dense(), (7, 3), 2, False),
        (Dense(), (7, 3, 3), 3, True),  # matrices a row, which turned about would still fit
        (Dense(), (7, 3, 4), 2, False),
        (Doubled(), (7, 3), 3, True),
        (Shifted(), (7, 3), 3, True),
    ],
)
def test_predictions_are_of_the_operation_that_was_fitted(op, shape, out, use_bias):
    def model(x, y=None, *, num_rows=None):
        outputs = layer("a", op, x, (shape[-1], out), use_bias=use_bias)
        with numpyro.plate("data", len(x)):
            numpyro.sample("y", dist.Normal(outputs.sum(tuple(range(1, outputs.ndim))), 1.0), obs=y)

    random = np.random.default_rng(0)
    x = random.normal(size=shape).astype(np.float32)
    draws = {"a.kernel": random.normal(size=(1, 4, shape[-1], out)).astype(np.float32)}
    if use_bias:
        draws["a.bias"] = random.normal(size=(1, 4, out)).astype(np.float32)
    result = Fit(model, SVI(), jnp.asarray(x), jnp.zeros(7), jax.random.key(0), draws, 0, 7, 0.0)
    for draw in range(4):
        outputs = op(x, draws["a.kernel"][0, draw]) + (draws["a.bias"][0, draw] if use_bias else 0)
        wanted = outputs.sum(tuple(range(1, outputs.ndim)))
        np.testing.assert_allclose(predict(result, x).loc[0, draw], wanted, rtol=1e-4, atol=1e-5)


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


def test_weights_of_a_custom_prior_need_only_the_protocol():
    class Uniform:
        def distribution(self, name, shape, fan_in, dtype):
            return dist.Uniform(jnp.full(shape, -1 / fan_in, dtype), 1 / fan_in).to_event(len(shape))

    x, _ = data()
    sites = trace(mlp, x, prior=Uniform(), **WIDTHS)
    assert (
        np.abs(sites["hidden_0.kernel"]["value"]).max() <= 1 / FEATURES < np.abs(sites["hidden_0.bias"]["value"]).max()
    )
