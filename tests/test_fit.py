"""`fit`: what it refuses and how it says so, how optimisation ends, and the laws of chains and guides.

Stochastic tests have fixed keys; each states its false-alarm rate, the chance that a correct implementation would
fail it on a fresh key.
"""

import json
import os
import subprocess
import sys
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from numpyro.diagnostics import effective_sample_size
from numpyro.infer.autoguide import AutoLaplaceApproximation, AutoMultivariateNormal
from scipy import stats

from hmcvi.inference import NUTS, SVI, BayesByBackprop, FitError, fit
from hmcvi.inference.base import as_floats, minibatches
from hmcvi.inference.checks import check_data
from hmcvi.inference.plateau import plateaued
from hmcvi.models import gp, mlp

from .targets import conjugate_regression, linear_regression

TARGET = conjugate_regression()
X, Y = TARGET.x.astype(np.float32), TARGET.y.astype(np.float32)
ROWS = len(X)

TINY = {"num_steps": 20, "num_draws": 2}
METHODS = [NUTS(num_warmup=2, num_draws=2, num_chains=1), SVI(**TINY), BayesByBackprop(**TINY)]


def by_name(method):
    return method.name


# --- the data


def with_value(array, value, *place):
    array = array.copy()
    array[place] = value
    return array


BAD_DATA = {
    r"x holds nan in row 7 \(1 such values\): remove or impute them": (with_value(X, np.nan, 7, 1), Y),
    r"x holds inf in row 0 \(2 such values\)": (with_value(X, np.inf, 0, slice(0, 2)), Y),
    r"y holds nan in row 11 \(1 such values\)": (X, with_value(Y, np.nan, 11)),
    r"y has shape \(40, 1\): wanted \(row,\); pass y\[:, 0\]": (X, Y[:, None]),
    r"y has shape \(40, 2\): wanted \(row,\), one label or target for each row of x": (X, X[:, :2]),
    r"y has shape \(\): wanted \(row,\)": (X, 1.0),
    "x has 40 rows and y has 39: wanted one label or target for each row": (X, Y[1:]),
    "x and y have no rows: the split is empty": (X[:0], Y[:0]),
    r"x has shape \(40,\): wanted \(row, feature...\); for one feature pass x\[:, None\]": (X[:, 0], Y),
    "x holds object: wanted an array of numbers": (X.astype(object), Y),
    "y holds <U5: wanted an array of numbers": (X, np.array(["apple", "pear"] * 20)),
    "x holds complex64: wanted an array of numbers": (X.astype(np.complex64), Y),
}


@pytest.mark.parametrize("message", BAD_DATA)
def test_bad_data_are_named(message):
    x, y = BAD_DATA[message]
    with pytest.raises(ValueError, match=message):
        check_data(x, y)
    with pytest.raises(ValueError, match=message):
        fit(jax.random.key(0), linear_regression, x, y, SVI(**TINY))


def test_data_become_arrays_of_numbers():
    x, y = check_data([[1, 2], [3, 4]], [True, False])
    assert (x.dtype, y.dtype) == (jnp.float32, jnp.int32)
    np.testing.assert_array_equal(y, [1, 0])
    x, y = check_data(X.astype(np.float16), Y.astype(np.float32))
    assert x.dtype == y.dtype == jnp.float16
    assert check_data(X, np.arange(ROWS))[1].dtype == jnp.int32


@pytest.mark.parametrize("method", METHODS, ids=by_name)
def test_images_of_bytes_are_fitted_as_their_brightness_and_stay_bytes(method):
    pixels = np.random.default_rng(0).integers(0, 256, (ROWS, 2, 2, 1), dtype=np.uint8)
    labels = (pixels.mean(axis=(1, 2, 3)) > 127).astype(int)
    model = partial(mlp, widths=(2,), num_classes=2)
    bright = as_floats(jnp.asarray(pixels))
    np.testing.assert_allclose(bright, pixels / 255, rtol=1e-6)
    ours, theirs = (fit(jax.random.key(0), model, x, labels, method) for x in (pixels, bright))
    assert ours.x.dtype == jnp.uint8
    for site, draws in ours.draws.items():
        # NUTS converts all rows beforehand, by the same division; a minibatch may be divided within the gradient
        tolerance = 0 if ours.losses is None else 1e-4
        np.testing.assert_allclose(draws, theirs.draws[site], atol=tolerance, rtol=0)


def test_a_table_of_uint8_is_no_image():
    table = np.array([[1, 0], [0, 200]], np.uint8)
    x, _ = check_data(table, [0, 1])
    assert x.dtype == jnp.float32
    np.testing.assert_array_equal(as_floats(x), table)


BAD_LABELS = {
    r"labels reach 3 but the model has num_classes=3 \(labels run from 0 to 2\): pass num_classes=4": 3,
    "labels go down to -1: they run from 0 to 2, relabel them": -1,
}


@pytest.mark.parametrize("method", METHODS, ids=by_name)
@pytest.mark.parametrize("model", [partial(mlp, num_classes=3), partial(gp, likelihood="categorical", num_classes=3)])
def test_bad_labels_are_named_by_every_method(method, model):
    labels = np.arange(ROWS) % 3
    for message, label in BAD_LABELS.items():
        with pytest.raises(ValueError, match=message):
            fit(jax.random.key(0), model, X, with_value(labels, label, 4), method)
    with pytest.raises(ValueError, match=r"y holds float32 where class labels \(integers\) were wanted"):
        fit(jax.random.key(0), model, X, Y, method)


# --- models that break the contract


def without_y(x, y=None):
    weights = numpyro.sample("weights", dist.Normal(jnp.zeros(3), 1.0).to_event(1))
    return numpyro.sample("target", dist.Normal(x @ weights, 1.0).to_event(1), obs=y)


def without_sites(x, y=None):
    return numpyro.sample("y", dist.Normal(x[:, 0], 1.0).to_event(1), obs=y)


@pytest.mark.parametrize("method", METHODS, ids=by_name)
def test_models_without_y_or_without_sites_are_refused(method):
    with pytest.raises(ValueError, match=r"the model observes \['target'\]: wanted a site 'y' with obs=y"):
        fit(jax.random.key(0), without_y, X, Y, method)
    with pytest.raises(ValueError, match="the model has no latent site: there is nothing to infer"):
        fit(jax.random.key(0), without_sites, X, Y, method)


@pytest.mark.parametrize("method", [SVI, BayesByBackprop])
def test_minibatches_that_cannot_be_are_refused(method):
    with pytest.raises(ValueError, match="cannot be fitted in minibatches of 10: gp got 10 of 40 rows"):
        fit(jax.random.key(0), gp, X, Y, method(batch_size=10, **TINY))
    latent = partial(gp, likelihood="categorical", num_classes=2)
    with pytest.raises(ValueError, match=r"cannot be fitted in minibatches of 10: .*; pass batch_size=None"):
        fit(jax.random.key(0), latent, X, np.arange(ROWS) % 2, method(batch_size=10, **TINY))

    def whole_data_only(x, y=None):
        return linear_regression(x, y)

    with pytest.raises(ValueError, match="minibatches of 10: it takes no argument num_rows"):
        fit(jax.random.key(0), whole_data_only, X, Y, method(batch_size=10, **TINY))
    with pytest.raises(ValueError, match="batch_size=41 and the data have 40 rows: give a number from 1 to 40"):
        fit(jax.random.key(0), linear_regression, X, Y, method(batch_size=ROWS + 1, **TINY))
    for size in (0, -1, 2.5):
        with pytest.raises(ValueError, match=f"got batch_size={size}: give a whole number of at least 1, or None"):
            method(batch_size=size)


@pytest.mark.parametrize("in_plate", [True, False])
def test_a_likelihood_whose_shape_is_not_that_of_the_targets_is_refused(in_plate):
    """(row, 1) and (row,) broadcast to (row, row): every target would meet every row's mean, and nothing be said."""

    def column(x, y=None):
        w = numpyro.sample("w", dist.Normal(jnp.zeros((3, 1)), 1.0).to_event(2))
        with numpyro.plate("data", len(x)) if in_plate else nullcontext():
            return numpyro.sample("y", dist.Normal(x @ w, 1.0), obs=y)

    with pytest.raises(ValueError, match=r"y has shape \(40, (40|1)\) where the targets have \(40,\): .* mean\[:, 0\]"):
        fit(jax.random.key(0), column, X, Y, SVI(**TINY))

    def alike(x, y=None):  # of all rows the same distribution, which is meant
        mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
        return numpyro.sample("y", dist.Normal(mean, 1.0), obs=y)

    assert fit(jax.random.key(0), alike, X, Y, SVI(**TINY)).num_draws == 2


@pytest.mark.parametrize("method", METHODS, ids=by_name)
def test_a_key_of_the_older_kind_gives_the_same_draws(method):
    new, old = (
        fit(key, linear_regression, X, Y, method, progress=False) for key in (jax.random.key(3), jax.random.PRNGKey(3))
    )
    for name, draws in new.draws.items():
        np.testing.assert_array_equal(old.draws[name], draws)


def test_the_default_minibatch_is_128_rows_where_rows_are_independent():
    x, y = jnp.zeros((300, 3)), jnp.zeros(300)

    def effects(x, y=None, *, num_rows=None):
        offsets = numpyro.sample("offsets", dist.Normal(jnp.zeros(len(x)), 1.0).to_event(1))
        with numpyro.plate("data", num_rows or len(x), subsample_size=len(x)):
            return numpyro.sample("y", dist.Normal(offsets, 1.0), obs=y)

    assert minibatches(linear_regression, x, y, None)[1] == 128
    assert minibatches(linear_regression, x[:100], y[:100], None)[1] == 100
    assert minibatches(linear_regression, x, y, 7)[1] == 7
    # One latent value for each row, a GP's or a random effect's, needs all rows.
    assert minibatches(gp, x, y, None)[1] == 300
    assert minibatches(effects, x, y, None) == (effects, 300)
    with pytest.raises(ValueError, match="its site 'offsets' has one entry for each row"):
        minibatches(effects, x, y, 7)


# --- the methods


@pytest.mark.parametrize(
    ("make", "message"),
    [
        *((partial(NUTS, **{name: 0}), f"NUTS got {name}=0") for name in ("num_warmup", "num_draws", "num_chains")),
        (lambda: NUTS(max_tree_depth=0), "NUTS got max_tree_depth=0: give a whole number of at least 1"),
        (lambda: NUTS(target_accept=1.0), r"NUTS got target_accept=1.0: give a number in \(0, 1\)"),
        (
            lambda: NUTS(chain_method="threads"),
            "chain_method='threads': give one of auto, parallel, sequential, vectorized",
        ),
        *(
            (partial(method, **{name: value}), f"{method.__name__} got .*{name}={value}")
            for method in (SVI, BayesByBackprop)
            for name, value in [
                ("num_steps", 0),
                ("num_draws", 0),
                ("learning_rate", 0.0),
                ("learning_rate", -0.1),
                ("learning_rate", float("nan")),
                ("init_scale", 0.0),
                ("init_scale", float("inf")),
                ("num_particles", 0),
            ]
        ),
        (lambda: BayesByBackprop("flip"), "estimator='flip': give one of shared, local, flipout"),
    ],
)
def test_methods_refuse_hyperparameters_out_of_range(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_the_names_of_methods():
    names = [method.name for method in (NUTS(), SVI(), BayesByBackprop(), BayesByBackprop("local"))]
    assert names == ["nuts", "svi", "bbb", "bbb-local"]


# --- how an optimisation ends

VARIATIONAL = {"svi": SVI, "bbb": BayesByBackprop}


@pytest.mark.parametrize("method", VARIATIONAL.values(), ids=VARIATIONAL)
def test_divergence_names_the_step(method):
    with pytest.raises(FitError, match=r"the loss became (inf|nan) at step \d+ of 50: lower the learning rate"):
        fit(jax.random.key(0), linear_regression, X, Y, method(num_steps=50, num_draws=2, learning_rate=1e6))


WINDOW = 100


def windows(fall, replicates=2000, num_windows=2):
    """Losses with Normal noise of sd 1 that fall by `fall` standard errors of a difference from window to window."""
    noise = np.random.default_rng(0).normal(100, 1, size=(replicates, num_windows * WINDOW))
    error = np.sqrt(2 / WINDOW)
    return noise - fall * error * np.repeat(np.arange(num_windows), WINDOW)


@pytest.mark.parametrize("fall", [-3, 0, 1, 4, 6])
def test_a_plateau_is_a_fall_of_less_than_two_standard_errors(fall):
    """The rule holds with probability Φ(2 − fall): 97.7 % on a plateau, 0.003 % at a fall of six errors."""
    share = np.mean([plateaued(losses, WINDOW) for losses in windows(fall)])
    expected = stats.norm.cdf(2 - fall)
    # 4 binomial errors, 6e-5 false alarms each, and 1 % for the noise of the two estimated variances.
    assert share == pytest.approx(expected, abs=4 * np.sqrt(expected * (1 - expected) / 2000) + 0.01)


def test_a_plateau_needs_two_windows_and_looks_at_the_last_two():
    flat, falling = windows(0, 1)[0], windows(100, 1)[0]
    assert plateaued(flat, WINDOW)
    assert not plateaued(falling, WINDOW)
    assert not plateaued(flat[1:], WINDOW)
    assert plateaued(np.concatenate([falling, falling[-WINDOW:]]), WINDOW)
    assert plateaued(np.ones(2 * WINDOW), WINDOW)


def without_noise(*falls):
    """A loss that falls by these amounts from window to window and has next to no spread within each."""
    means = 100 - np.cumsum([0.0, *falls])
    slope = np.linspace(1e-6, -1e-6, WINDOW)
    return np.concatenate([mean + slope for mean in means])


@pytest.mark.parametrize(
    ("falls", "expected"),
    [
        ((20, 0.009, 0.003), True),  # and would fall by 0.0015 more
        ((20, 0.009, 0.0085), False),  # by 0.14
        ((20, 0.009), False),  # a first descent foretells nothing
        ((20, 0.011, 0.0001), False),
        ((20, 0.001, 0.002), False),  # ever faster
        ((20, 5e-6, 6e-6), True),  # less than its rounding
        ((0.009,), False),
    ],
)
def test_losses_without_noise_are_at_their_plateau_where_little_is_left_to_fall(falls, expected):
    assert plateaued(without_noise(*falls), WINDOW) is expected


@pytest.mark.parametrize("method", VARIATIONAL.values(), ids=VARIATIONAL)
def test_a_fit_stops_at_its_plateau(method):
    result = fit(jax.random.key(0), linear_regression, X, Y, method(num_steps=5000, num_draws=1000))
    assert result.finished
    # A whole number of windows of 500 steps: the plateau takes two, quieting the noise another two.
    assert len(result.losses) in range(2000, 5000, 500)
    assert result.num_gradients == len(result.losses)
    # At the optimum to a tenth of a nat: the last window's loss less the known gap, within 4 standard errors (6e-5).
    last = result.losses[-250:]
    assert last.mean() == pytest.approx(TARGET.gap - TARGET.log_evidence, abs=4 * last.std() / np.sqrt(250) + 0.1)


@pytest.mark.parametrize("method", VARIATIONAL.values(), ids=VARIATIONAL)
def test_a_budget_that_ends_first_is_spent_whole_and_not_finished(method):
    chosen = method(num_steps=105, num_draws=2, learning_rate=0.001, num_particles=2)
    result = fit(jax.random.key(0), linear_regression, X, Y, chosen)
    assert result.finished is False
    assert result.losses.shape == (105,)
    assert result.num_gradients == 210
    assert result.losses[-10:].mean() < result.losses[:10].mean()


@pytest.mark.parametrize("method", VARIATIONAL.values(), ids=VARIATIONAL)
def test_a_schedule_is_followed_to_its_end(method):
    # Nothing moves while the rate is 0, and the plateau that this makes does not end the fit; at its end the loss
    # falls, so it has not finished.
    def schedule(step):
        return 0.005 * (step >= 1600)

    chosen = method(num_steps=2000, num_draws=2, learning_rate=schedule)
    result = fit(jax.random.key(0), linear_regression, X, Y, chosen)
    assert len(result.losses) == 2000
    assert not result.finished
    still, moving = result.losses[:1600], result.losses[1600:]
    slope = stats.linregress(np.arange(1600), still)
    assert abs(slope.slope) < 4 * slope.stderr  # 6e-5 false alarms
    assert moving[-50:].mean() < still.mean() - 10 * still.std() / np.sqrt(1600)


@pytest.mark.parametrize("method", VARIATIONAL.values(), ids=VARIATIONAL)
def test_minibatches_reach_the_whole_datas_optimum(method):
    # 40 rows in batches of 16: 8 rows sit each epoch out, others each time.
    rate = optax.exponential_decay(0.03, 6000, 1e-3)
    chosen = method(num_steps=6000, num_draws=20_000, batch_size=16, learning_rate=rate, num_particles=2)
    result = fit(jax.random.key(0), linear_regression, X, Y, chosen)
    assert result.finished is None  # any loss is flat where a schedule ends: that says nothing of a plateau
    assert result.rows_per_gradient == 16
    assert result.num_passes == 12_000 * 16 / 40
    draws = np.asarray(result.draws["out.kernel"], np.float64)[0, :, :, 0]
    sd = np.sqrt(TARGET.mean_field_variance)
    # The minibatches' noise left 0.03 sd in the means and 5 % in the variances over 24 entries of other keys: these
    # are 5 such errors, 1e-5 false alarms. A likelihood that is not scaled by 40/16 gives variances 2.4 times too wide.
    assert (np.abs(draws.mean(0) - TARGET.mean) < 0.15 * sd).all()
    np.testing.assert_allclose(draws.var(0), sd**2, rtol=0.25)


# --- guides


def test_a_full_rank_guide_recovers_the_correlated_posterior():
    rate = optax.exponential_decay(0.03, 10_000, 1e-3)
    method = SVI(num_steps=10_000, num_draws=40_000, learning_rate=rate, num_particles=8, guide=AutoMultivariateNormal)
    result = fit(jax.random.key(0), linear_regression, X, Y, method)
    draws = np.asarray(result.draws["out.kernel"], np.float64)[0, :, :, 0]
    sd = np.sqrt(np.diag(TARGET.covariance))
    # Over four other keys the largest errors were 0.009 sd and 0.017: these tolerances are more than 4 errors.
    assert (np.abs(draws.mean(0) - TARGET.mean) < 0.05 * sd).all()
    np.testing.assert_allclose(np.cov(draws.T) / np.outer(sd, sd), TARGET.covariance / np.outer(sd, sd), atol=0.05)
    # Its bound is the evidence itself: no gap is left.
    last = result.losses[-300:]
    assert last.mean() == pytest.approx(-TARGET.log_evidence, abs=4 * last.std() / np.sqrt(300) + 0.01)
    assert TARGET.gap > 1


# --- chains


def check_moments(draws):
    """Judge draws (chain, draw, feature) by the exact moments, at 4 Monte Carlo errors in 6 numbers: 4e-4."""
    draws = np.asarray(draws, np.float64)
    for values, exact in (
        (draws, TARGET.mean),
        ((draws - TARGET.mean) ** 2, np.diag(TARGET.covariance)),
    ):
        error = values.std((0, 1)) / np.sqrt(effective_sample_size(values))
        np.testing.assert_array_less(np.abs(values.mean((0, 1)) - exact), 4 * error)
    assert effective_sample_size(draws).min() > 400
    # Chains are not copies of each other.
    assert len(np.unique(draws[:, -1], axis=0)) == len(draws)


@pytest.mark.parametrize("chain_method", ["sequential", "vectorized"])
@pytest.mark.parametrize("dense_mass", [False, True])
def test_chain_methods_have_the_same_law(chain_method, dense_mass):
    method = NUTS(300, 500, num_chains=3, chain_method=chain_method, dense_mass=dense_mass)
    result = fit(jax.random.key(0), linear_regression, X, Y, method)
    check_moments(result.draws["out.kernel"][..., 0])


PARALLEL = """
import json, sys
import jax
jax.config.update("jax_num_cpu_devices", 2)
import numpy as np
sys.path.insert(0, sys.argv[1])
from targets import conjugate_regression, linear_regression
from hmcvi.inference import NUTS, fit
assert jax.local_device_count() == 2
target = conjugate_regression()
method = NUTS(300, 500, num_chains=4)
assert method._chain_method() == "parallel"
x, y = target.x.astype(np.float32), target.y.astype(np.float32)
result = fit(jax.random.key(0), linear_regression, x, y, method)
print(json.dumps(np.asarray(result.draws["out.kernel"])[..., 0].tolist()))
"""


def test_parallel_chains_have_the_same_law_over_two_devices():
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PARALLEL, str(Path(__file__).parent)],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    draws = np.array(json.loads(done.stdout))
    assert draws.shape == (4, 500, 3)
    check_moments(draws)


def test_numpyros_laplace_guide_is_refused_as_it_reads_one_minibatch():
    x = np.random.default_rng(0).normal(size=(30, 2)).astype(np.float32)
    with pytest.raises(ValueError, match=r"guide='AutoNormal': give a class of numpyro.infer.autoguide"):
        SVI(guide="AutoNormal")
    with pytest.raises(ValueError, match=r"guide=AutoLaplaceApproximation.*use Laplace\(\)"):
        fit(jax.random.key(0), linear_regression, x, x[:, 0], SVI(guide=AutoLaplaceApproximation))
