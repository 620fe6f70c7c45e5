"""The optimisation that SVI, Bayes-by-Backprop and MAP share: its arguments, rates, and starts.

Where a fit can be told exactly (one step, a start, a step of known sign) it is; nothing here is stochastic but the
start of a network, which states its false-alarm rate.
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest

from hmcvi.inference import MAP, NUTS, SVI, BayesByBackprop, Ensemble, FanIn, fit
from hmcvi.inference.training import Plan, Training
from hmcvi.models import conv, dense

from .optimised import KEY, LINEAR, METHODS, ROWS, STAY, TARGET, X, Y, every_method, point
from .targets import NOISE_SCALE, PRIOR_SCALE, linear_regression

# --- arguments


def by_rate(rate):
    return optax.sgd(rate)


BAD_ARGUMENTS = {
    "got num_steps=0: give a whole number of at least 1": {"num_steps": 0},
    "got num_steps=10.5: give a whole number of at least 1": {"num_steps": 10.5},
    r"got learning_rate=0: give a number above 0 or an optax schedule": {"learning_rate": 0},
    "got learning_rate=-0.1: give a number above 0": {"learning_rate": -0.1},
    "got learning_rate=nan: give a number above 0": {"learning_rate": float("nan")},
    "got learning_rate=inf: give a number above 0": {"learning_rate": float("inf")},
    "got schedule='linear': give one of plateau, cosine": {"schedule": "linear"},
    "got schedule='cosine' and a schedule as learning_rate: give one of them": {
        "schedule": "cosine",
        "learning_rate": optax.constant_schedule(0.01),
    },
    r"got an optimizer that is no function of a learning rate: pass optax.adam and learning_rate=0.01, not "
    r"optax.adam\(0.01\)": {"optimizer": optax.adam(0.01)},
    "got an optimizer that is no function of a learning rate": {"optimizer": "adam"},
    "got clip_norm=0: give a number above 0, or None": {"clip_norm": 0},
    "got clip_norm=-1.0: give a number above 0, or None": {"clip_norm": -1.0},
    "got clip_norm=inf: give a number above 0, or None": {"clip_norm": float("inf")},
    r"got start='prior': give None, FanIn\(\)": {"start": "prior"},
    "got start=<class 'hmcvi.inference.training.FanIn'>: give None": {"start": FanIn},
    "got num_restarts=0: give a whole number of at least 1": {"num_restarts": 0},
    "got max_passes=0: give a number above 0, or None": {"max_passes": 0},
    "got max_seconds=nan: give a number above 0, or None": {"max_seconds": float("nan")},
    # Refused before they are fitted: chains and ensembles leave no means.
    r"got start=NUTS\(.*\): give None": {"start": NUTS()},
    r"got start=Ensemble\(.*\): give None": {"start": Ensemble()},
}


@pytest.mark.parametrize("method", [MAP, Ensemble, SVI, BayesByBackprop])
@pytest.mark.parametrize("message", BAD_ARGUMENTS)
def test_bad_arguments_are_refused_by_every_method_in_its_name(method, message):
    with pytest.raises(ValueError, match=f"{method.__name__} {message}"):
        method(**BAD_ARGUMENTS[message])


@pytest.mark.parametrize("gain", [0.0, -1.0, float("nan"), float("inf")])
def test_a_gain_that_is_no_size_is_refused(gain):
    with pytest.raises(ValueError, match=f"FanIn got gain={gain}: give a number above 0"):
        FanIn(gain)


def test_arguments_have_names_only_and_functions_of_ones_own_are_optimisers():
    with pytest.raises(TypeError, match="positional argument"):
        MAP(100)
    assert MAP(optimizer=by_rate).optimizer is by_rate


# --- learning rates


def rates(training, steps, decay_start=0, decay=1):
    plan = Plan.of(training.num_steps, decay, decay_start)
    return np.array([training.rate(jnp.asarray(step), plan) for step in steps], float)


def test_the_cosine_falls_from_the_first_step_to_the_end_of_the_budget():
    training = Training(num_steps=200, learning_rate=0.3, schedule="cosine")
    steps = np.array([0, 1, 50, 100, 150, 199, 200])
    # Loschilov & Hutter (2017), eq. 5, with one period and no least rate. The plateau rule has no say in it.
    expected = 0.5 * 0.3 * (1 + np.cos(np.pi * steps / 200))
    np.testing.assert_allclose(rates(training, steps), expected, rtol=1e-5, atol=1e-8)
    np.testing.assert_allclose(expected[[0, 3, 6]], [0.3, 0.15, 0], atol=1e-12)
    np.testing.assert_allclose(rates(training, steps, 160, 40), expected, rtol=1e-5, atol=1e-8)
    assert not training.stops_early


def test_a_plateaus_rate_holds_and_then_falls_linearly_to_zero():
    training = Training(num_steps=200, learning_rate=0.3)
    steps = np.array([0, 99, 100, 101, 120, 139, 140, 160])
    expected = 0.3 * np.array([1, 1, 1, 39 / 40, 1 / 2, 1 / 40, 0, 0])
    np.testing.assert_allclose(rates(training, steps, 100, 40), expected, rtol=1e-5, atol=1e-8)
    assert training.stops_early


def test_a_schedule_of_ones_own_is_asked_for_the_step_alone():
    training = Training(learning_rate=optax.linear_schedule(1.0, 0.0, 10))
    np.testing.assert_allclose(rates(training, [0, 3, 10], 2, 1), [1, 0.7, 0], atol=1e-6)
    assert not training.stops_early


def loss_gradient(w):
    """Gradient of −log p(y, w) of the conjugate regression (feature,): P w − xᵀy / noise²."""
    return TARGET.precision @ w - TARGET.x.T @ TARGET.y / NOISE_SCALE**2


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        # A tenth of 20 steps is a window; the rate falls over the last two of ten.
        ({"schedule": "plateau"}, np.clip((20 - np.arange(20)) / 4, 0, 1)),
        ({"schedule": "cosine"}, (1 + np.cos(np.pi * np.arange(20) / 20)) / 2),
    ],
    ids=["plateau", "cosine"],
)
def test_a_fit_takes_the_rates_of_its_schedule_step_by_step(schedule, expected):
    method = MAP(num_steps=20, learning_rate=1e-3, optimizer=optax.sgd, start=point(np.zeros((3, 1))), **schedule)
    result = fit(KEY, linear_regression, X, Y, method)
    w = np.zeros(3)
    for rate in 1e-3 * expected:
        w = w - rate * loss_gradient(w)
    np.testing.assert_allclose(result.location["out.kernel"][:, 0], w, rtol=1e-4)
    assert len(result.losses) == 20


# --- optimisers

OPTIMIZERS = {
    "adamw": partial(optax.adamw, weight_decay=1e-2),
    "nesterov": partial(optax.sgd, momentum=0.9, nesterov=True),
    "rmsprop": optax.rmsprop,
    "lion": optax.lion,
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_an_optimiser_at_rate_one_times_the_rate_is_the_optimiser_at_that_rate(optimizer):
    # Against optax's own loop. A schedule, since it moves the rate from step to step.
    schedule = optax.linear_schedule(0.01, 0.001, 15)
    start = np.array([[1.0], [-1.0], [0.5]], np.float32)
    method = MAP(num_steps=15, learning_rate=schedule, optimizer=optimizer, start=point(start))
    result = fit(KEY, linear_regression, X, Y, method)
    assert not np.allclose(result.location["out.kernel"], start, atol=1e-2)

    w = jnp.asarray(start)
    direct = optimizer(schedule)
    state = direct.init(w)
    precision, linear = jnp.asarray(TARGET.precision), jnp.asarray(TARGET.x.T @ TARGET.y / NOISE_SCALE**2)

    @jax.jit
    def step(w, state):
        updates, state = direct.update(precision @ w - linear[:, None], state, w)
        return optax.apply_updates(w, updates), state

    for _ in range(15):
        w, state = step(w, state)
    np.testing.assert_allclose(result.location["out.kernel"], w, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("optimizer", "rate"),
    [
        (optax.adam, 0.03),
        (partial(optax.adamw, weight_decay=0.0), 0.03),
        (partial(optax.sgd, momentum=0.9), 1e-3),
    ],
    ids=["adam", "adamw", "momentum"],
)
def test_every_optimiser_finds_the_ridge_solution(optimizer, rate):
    # The loss is a quadratic of condition number under 20, so that 1000 steps are far more than any needs.
    assert np.linalg.cond(TARGET.precision) < 20
    ridge = np.linalg.solve(X.T @ X + (NOISE_SCALE / PRIOR_SCALE) ** 2 * np.eye(3), X.T @ Y)
    np.testing.assert_allclose(ridge, TARGET.mean, rtol=1e-4)
    method = MAP(num_steps=1000, learning_rate=rate, optimizer=optimizer, schedule="cosine")
    result = fit(KEY, linear_regression, X, Y, method)
    np.testing.assert_allclose(result.location["out.kernel"][:, 0], ridge, atol=1e-4)
    # The loss that it ends at is −log p(y, w) there.
    log_joint = -0.5 * ridge @ TARGET.precision @ ridge + ridge @ X.T @ Y / NOISE_SCALE**2 - Y @ Y / NOISE_SCALE**2 / 2
    log_joint -= 3 * np.log(np.sqrt(2 * np.pi) * PRIOR_SCALE) + ROWS * np.log(np.sqrt(2 * np.pi) * NOISE_SCALE)
    assert result.losses[-1] == pytest.approx(-log_joint, rel=1e-5)


@pytest.mark.parametrize("clip_norm", [0.5, 1e6])
def test_clipping_bounds_the_move_of_one_step_and_keeps_its_direction(clip_norm):
    start = np.array([[1.0], [-2.0], [0.5]], np.float32)
    gradient = loss_gradient(start[:, 0].astype(float))
    norm = np.linalg.norm(gradient)
    assert 0.5 < norm < 1e6  # the last bound clips nothing
    method = MAP(num_steps=1, learning_rate=optax.constant_schedule(0.01), optimizer=optax.sgd, start=point(start))
    result = fit(KEY, linear_regression, X, Y, dataclasses.replace(method, clip_norm=clip_norm))
    move = np.asarray(result.location["out.kernel"], float)[:, 0] - start[:, 0]
    np.testing.assert_allclose(move, -0.01 * gradient * min(1, clip_norm / norm), rtol=1e-4, atol=1e-6)


def test_it_is_gradients_that_are_clipped_and_not_steps():
    # The sign of a gradient that was clipped is its sign, and its steps of 1 are longer than the bound.
    method = MAP(num_steps=1, learning_rate=optax.constant_schedule(1.0), optimizer=optax.sign_sgd, clip_norm=0.5)
    start = np.array([[1.0], [-2.0], [0.5]], np.float32)
    result = fit(KEY, linear_regression, X, Y, dataclasses.replace(method, start=point(start)))
    moves = result.location["out.kernel"] - start
    np.testing.assert_array_equal(moves[:, 0], -np.sign(loss_gradient(start[:, 0].astype(float))))


def test_clipping_takes_the_norm_over_all_sites():
    method = MAP(num_steps=1, learning_rate=optax.constant_schedule(1.0), optimizer=optax.sgd)
    stayed = fit(KEY, LINEAR, X, Y, dataclasses.replace(method, **STAY))
    moved, clipped = (fit(KEY, LINEAR, X, Y, dataclasses.replace(method, clip_norm=norm)) for norm in (None, 2.0))

    def moves(result):
        found = [np.ravel(np.asarray(result.location[s], float) - stayed.location[s]) for s in stayed.location]
        return np.concatenate(found)

    assert len(moves(moved)) == 5
    assert np.linalg.norm(moves(moved)) > 10
    np.testing.assert_allclose(moves(clipped), 2 * moves(moved) / np.linalg.norm(moves(moved)), rtol=1e-3, atol=1e-5)


# --- starts


def wide(x, y=None):
    """Kernels of some 10,000 entries each, of a convolution and of a dense layer."""
    hidden = conv("conv", x, 40, kernel_size=3, padding="VALID")
    mean = dense("out", hidden.reshape(len(x), -1), 250)[:, 0]
    with numpyro.plate("data", len(x)):
        return numpyro.sample("y", dist.Normal(mean, 1.0), obs=y)


def test_a_networks_start_has_the_variance_of_its_fan_in_and_no_biases():
    assert FanIn().gain == 1
    gain, images = 0.3, np.zeros((2, 3, 3, 30), np.float32)
    start = fit(KEY, wide, images, np.zeros(2), MAP(start=FanIn(gain), **STAY)).location
    shapes = {"conv.kernel": (3, 3, 30, 40), "conv.bias": (40,), "out.kernel": (40, 250), "out.bias": (250,)}
    assert {site: value.shape for site, value in start.items()} == shapes
    for site, fan_in in (("conv.kernel", 270), ("out.kernel", 40)):
        size, sd = start[site].size, gain * np.sqrt(2 / fan_in)
        # 4 standard errors of a mean and a variance of Normals, in 2 kernels: 3e-4 false alarms.
        assert abs(float(start[site].mean())) < 4 * sd / np.sqrt(size)
        assert float(start[site].var()) == pytest.approx(sd**2, rel=4 * np.sqrt(2 / size)), site
    for site in ("conv.bias", "out.bias"):
        np.testing.assert_array_equal(start[site], 0)
    # Drawn with one key, the kernels would be copies of each other. 5 standard errors of a correlation: 6e-7.
    first, second = (np.ravel(start[site])[:10_000] for site in ("conv.kernel", "out.kernel"))
    assert abs(np.corrcoef(first, second)[0, 1]) < 5 / np.sqrt(10_000)


def test_a_networks_start_is_one_for_every_method_and_leaves_other_sites_at_their_prior_draw():
    drawn = fit(KEY, LINEAR, X, Y, MAP(**STAY)).location
    network, *others = (fit(KEY, LINEAR, X, Y, make(start=FanIn(), **STAY)).location for make in METHODS.values())
    assert network["noise_scale"] == drawn["noise_scale"]
    assert not np.isclose(drawn["out.kernel"], network["out.kernel"]).any()
    for other in others:
        np.testing.assert_array_equal(other["out.kernel"], network["out.kernel"])
        np.testing.assert_array_equal(other["out.bias"], 0)
        # NumPyro's guide starts from the constrained value: a rounding of log and exp.
        np.testing.assert_allclose(other["noise_scale"], network["noise_scale"], rtol=1e-6)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recorded(MAP):
    """A MAP that keeps what it fitted, for a look at the start that another method made of it."""

    fits: list = dataclasses.field(default_factory=list)

    def fit(self, *arguments):
        self.fits.append(dataclasses.replace(super().fit(*arguments), run_seconds=1000.0))
        return self.fits[-1]


@every_method
def test_a_start_from_a_fit_is_at_its_means_and_costs_nothing(method):
    start = dataclasses.replace(point(np.full((3, 1), 0.3)), num_gradients=77, run_seconds=1000.0)
    result = fit(KEY, linear_regression, X, Y, method(start=start, **STAY))
    np.testing.assert_array_equal(result.location["out.kernel"], np.float32(0.3))
    assert result.num_gradients == 1
    assert result.run_seconds < 1000


@pytest.mark.parametrize("method", [METHODS["svi"], METHODS["bbb"]], ids=["svi", "bbb"])
def test_a_start_from_a_method_is_at_the_means_it_found_and_its_steps_are_counted(method):
    start = Recorded(num_steps=30, batch_size=20)
    result = fit(KEY, linear_regression, X, Y, method(start=start, batch_size=10, **STAY))
    (made,) = start.fits
    np.testing.assert_array_equal(result.location["out.kernel"], made.location["out.kernel"])
    # 30 gradients of 20 rows are 60 of 10 rows: 15 passes over the data, before this method's own step.
    assert made.num_gradients == 30
    assert result.num_gradients == 61
    assert result.num_passes == pytest.approx(15 + 10 / ROWS)
    assert 1000 < result.run_seconds < 1060
    assert len(result.losses) == 1


def test_a_start_in_a_positive_space_survives_the_way_there_and_back():
    means = {"out.kernel": jnp.full((3, 1), 0.3), "out.bias": jnp.full((1,), 0.7), "noise_scale": jnp.asarray(-2.3)}
    start = dataclasses.replace(point(0.0), location=means)
    for name in ("map", "svi"):
        result = fit(KEY, LINEAR, X, Y, METHODS[name](start=start, **STAY))
        for site, mean in means.items():
            np.testing.assert_allclose(result.location[site], mean, rtol=1e-6, err_msg=site)
        assert result.draws["noise_scale"].mean() == pytest.approx(np.exp(-2.3), rel=0.2)


def test_every_member_of_an_ensemble_makes_a_start_of_its_own():
    start = Recorded(num_steps=30, batch_size=20)
    result = fit(KEY, linear_regression, X, Y, Ensemble(start=start, size=2, batch_size=10, **STAY))
    assert len(start.fits) == 2
    for i, made in enumerate(start.fits):
        np.testing.assert_array_equal(result.draws["out.kernel"][0, i], made.draws["out.kernel"][0, 0])
    assert not np.isclose(*result.draws["out.kernel"][0]).any()
    assert result.num_gradients == 2 * 61
    assert 2000 < result.run_seconds < 2060


@every_method
def test_a_fit_without_means_is_no_start(method):
    # By chains, by an ensemble, by a guide that is no mean field: see the conformance table for who has means.
    for made in (NUTS(), Ensemble(), SVI()):
        start = dataclasses.replace(point(np.zeros((3, 1))), method=made, location=None)
        refused = rf"a fit by {made.name} leaves no means to start from: give MAP\(...\), BayesByBackprop\(...\)"
        with pytest.raises(ValueError, match=refused):
            fit(KEY, linear_regression, X, Y, method(start=start, **STAY))


@every_method
def test_a_fit_of_another_model_is_no_start(method):
    refused = r"the fit to start from has sites {.*} and the model has {.*}: fit the same model"
    for start in (point(np.zeros((2, 1))), point(np.zeros((3, 1)), site="other.kernel")):
        with pytest.raises(ValueError, match=refused):
            fit(KEY, linear_regression, X, Y, method(start=start, **STAY))
