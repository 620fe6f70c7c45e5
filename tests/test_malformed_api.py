"""The Python API refuses what is malformed by ValueError (TypeError for another kind of thing), before any sampling."""

from __future__ import annotations

import sys
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmcvi.benchmarks.budget import Budget
from hmcvi.benchmarks.datasets import DataError, arrays, load
from hmcvi.benchmarks.experiment import Experiment
from hmcvi.benchmarks.options import UsageError
from hmcvi.inference import (
    HMC,
    MAMS,
    MAP,
    MCLMC,
    NUTS,
    SVI,
    BayesByBackprop,
    Ensemble,
    Fit,
    FitError,
    Laplace,
    fit,
    memory,
    predict,
    scores,
    to_datatree,
)
from hmcvi.inference.base import latent_sites
from hmcvi.inference.checks import check_data
from hmcvi.models import Normal, cnn, gp, mlp

from .malformed import Sampled, begin, malformed, many, rows_of
from .test_scores_laws import calls

KEY = jax.random.key(0)
X = np.random.default_rng(0).normal(size=(6, 2)).astype(np.float32)
Y = np.arange(6) % 3


@dataclass(frozen=True)
class Begin:
    """A method that ends where sampling would begin."""

    name = "begin"
    num_draws: int = 10

    def fit(self, *arguments):
        raise Sampled


def linear(likelihood):
    """A model of the user's own, whose likelihood checks nothing."""

    def model(x, y=None):
        weights = numpyro.sample("weights", dist.Normal(jnp.zeros((x.shape[1], 3)), 1).to_event(2))
        with numpyro.plate("data", len(x)):
            numpyro.sample("y", likelihood(x @ weights), obs=y)

    return model


LIKELIHOODS = {
    "categorical": lambda outputs: dist.Categorical(logits=outputs),
    "bernoulli": lambda outputs: dist.Bernoulli(logits=outputs[:, 0]),
    "poisson": lambda outputs: dist.Poisson(jnp.exp(outputs[:, 0])),
    "lognormal": lambda outputs: dist.LogNormal(outputs[:, 0]),
    "gamma": lambda outputs: dist.Gamma(jnp.exp(outputs[:, 0])),
    "uniform": lambda outputs: dist.Uniform(outputs[:, 0], outputs[:, 0] + jnp.exp(outputs[:, 1])),
}

MODELS = [
    partial(mlp, widths=(2,), num_classes=3),
    partial(mlp, widths=(2,), likelihood="normal"),
    partial(cnn, channels=(2,), num_classes=3),
    gp,
    partial(gp, likelihood="categorical", num_classes=3),
    linear(LIKELIHOODS["categorical"]),
]


# --- laws


@many(120)
@given(model=st.sampled_from(MODELS), x=rows_of(6), y=rows_of(6))
def test_fit(model, x, y):
    with suppress(ValueError, Sampled):
        fit(KEY, model, x, y, Begin())


def fit_by_hand(model, x, y):
    """A fit without fitting: three draws of zeros."""
    x, y = check_data(x, y)
    sites, _ = latent_sites(model, x, y)
    draws = {name: jnp.ones((1, 3, *site.shape), site.dtype) for name, site in sites.items()}
    return Fit(model, SVI(num_draws=3), x, y, KEY, draws, num_gradients=1, rows_per_gradient=6, run_seconds=0.0)


FITS = [
    fit_by_hand(MODELS[0], X, Y),
    fit_by_hand(MODELS[1], X, X[:, 0]),
    fit_by_hand(MODELS[2], np.zeros((6, 4, 4, 1), np.uint8), Y),
    fit_by_hand(MODELS[1], X.astype(np.float16), X[:, 0]),
]


@pytest.fixture(scope="module")
def no_programs():
    """Nothing is compiled: predictions end where they would be."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(sys.modules["hmcvi.inference.predict"], "_in_row_chunks", begin)
        yield


@many(120)
@given(
    of=st.sampled_from(FITS),
    x=rows_of(6),
    y=st.one_of(st.none(), rows_of(6)),
    max_bytes=st.sampled_from([2**28, 1, 0, -1, float("nan")]),
)
def test_predict_and_to_datatree(no_programs, of, x, y, max_bytes):
    for call in (partial(predict, of, x, y, max_bytes=max_bytes), partial(to_datatree, of, x, y)):
        with suppress(ValueError, Sampled):
            call()


CALLS = calls()


@many(200)
@given(name=st.sampled_from(sorted(CALLS)), data=st.data())
def test_scores(name, data):
    function, given_arguments = getattr(scores, name), list(CALLS[name])
    of_arrays = [place for place, value in enumerate(given_arguments) if isinstance(value, np.ndarray)]
    given_arguments[data.draw(st.sampled_from(of_arrays))] = data.draw(malformed)
    with suppress(ValueError):
        function(*given_arguments)


@many(120)
@given(
    x=rows_of(10),
    y=rows_of(10),
    test=st.one_of(st.none(), st.tuples(malformed, malformed)),
    name=st.one_of(st.just("mine"), st.text(max_size=3)),
)
def test_arrays_and_load(x, y, test, name):
    with suppress(DataError):
        raw = arrays(x, y, name=name, **({} if test is None else {"x_test": test[0], "y_test": test[1]}))
        load(raw, seed=0)


anything = st.one_of(
    st.none(),
    st.integers(),
    st.floats(),
    st.text(max_size=4),
    st.lists(st.integers(), max_size=2),
    st.tuples(st.integers()),
    st.tuples(st.text(max_size=3)),
    st.tuples(st.just("map"), st.just("map")),
    st.just({"map": "num_steps=3"}),
    st.just({"map": (3,)}),
    st.just({"maps": ()}),
    st.just(object()),
    st.booleans(),
)

FIELDS = (
    *("data", "model", "methods", "seeds", "ood", "shifts", "rows", "test_rows"),
    *("target", "task", "splits", "image_size", "data_dir", "budget", "options"),
)


@many(150)
@given(fields=st.dictionaries(st.sampled_from(FIELDS), anything, min_size=1, max_size=2))
def test_experiments(fields):
    with suppress(UsageError):
        Experiment(**{"data": "wave", **fields})


@many(100)
@given(
    method=st.sampled_from([NUTS, HMC, MCLMC, MAMS, SVI, BayesByBackprop, MAP, Ensemble, Laplace]),
    name=st.sampled_from(["num_draws", "num_chains", "num_steps", "num_warmup", "size", "num_restarts", "batch_size"]),
    number=st.one_of(st.integers(-2, 2), st.integers(2**30, 2**70), st.floats(), st.booleans()),
)
def test_counts(method, name, number):
    """A count is taken, refused where the method is made, or refused by `fit` before anything is computed."""
    if name not in method.__dataclass_fields__:
        return
    try:
        made = method(**{name: number})
    except ValueError:
        return
    object.__setattr__(made, "fit", begin)
    with suppress(ValueError, Sampled):
        fit(KEY, MODELS[0], X, Y, made)


# --- each fault by name


TARGETS = {
    "categorical": (12, "y holds 12 in row 0 .*Categorical.* whole numbers from 0 to 2"),
    "bernoulli": (2, "whole numbers from 0 to 1"),
    "poisson": (-1, "whole numbers from 0: relabel"),
    "lognormal": (-0.5, "numbers from 0"),
    "gamma": (0, "numbers from 0"),
}


@pytest.mark.parametrize("likelihood", TARGETS)
def test_targets_that_a_model_cannot_have_are_refused(likelihood):
    target, message = TARGETS[likelihood]
    with pytest.raises(ValueError, match=message):
        fit(KEY, linear(LIKELIHOODS[likelihood]), X, np.full(6, target), Begin())


def test_targets_that_a_model_can_have_are_taken():
    for likelihood, targets in (
        ("categorical", Y),
        ("bernoulli", Y % 2),
        ("bernoulli", Y % 2 * 1.0),
        ("poisson", Y * 100),
        ("lognormal", Y + 0.5),
        ("uniform", Y),
    ):
        with pytest.raises(Sampled):
            fit(KEY, linear(LIKELIHOODS[likelihood]), X, targets, Begin())


def test_float_labels_of_classes_are_refused():
    with pytest.raises(ValueError, match=r"y holds float32 where class labels \(integers\) were wanted"):
        fit(KEY, linear(LIKELIHOODS["categorical"]), X, Y * 1.0, Begin())


UNHELD = {
    "x holds 1e+300 in row 1, more than float32 holds": (np.array([[0.0], [1e300]]), [0, 1]),
    "y holds 1e+300 in row 1, more than float32 holds": ([[0.0], [1.0]], [0.0, 1e300]),
    "y holds 70000 in row 1, more than float16 holds": (np.zeros((2, 1), np.float16), [0.0, 70000.0]),
    "y holds 4294967299 in row 0, more than int32 holds": ([[0.0], [1.0]], [2**32 + 3, 0]),
    "x has shape (2, 0): wanted at least one feature": (np.zeros((2, 0)), [0, 1]),
    "x holds rows of unequal lengths": ([[1], [1, 2]], [0, 1]),
    "x has 1 masked values": (np.ma.masked_equal([[0.0], [1.0]], 1), [0, 1]),
}


@pytest.mark.parametrize("message", UNHELD)
def test_numbers_that_would_become_others_are_refused(message):
    with pytest.raises(ValueError) as raised:  # noqa: PT011 (the message follows)
        check_data(*UNHELD[message])
    assert str(raised.value).startswith(message)


@pytest.mark.parametrize(
    ("key", "model", "method", "message"),
    [
        (0, mlp, SVI(), r"key is int: give one random key, such as jax.random.key\(0\)"),
        (jax.random.split(KEY), mlp, SVI(), r"key is \w+ of shape \(2,\)"),
        (KEY, "mlp", SVI(), "model is str: give a NumPyro model function"),
        (KEY, mlp, NUTS, r"method is the class NUTS: give a method with its numbers, NUTS\(\)"),
        (KEY, mlp, "nuts", r"method is str: give a method such as NUTS\(\)"),
    ],
)
def test_other_kinds_of_thing_are_type_errors(key, model, method, message):
    with pytest.raises(TypeError, match=message):
        fit(key, model, X, Y, method)


HOLDINGS = [
    (NUTS(num_draws=2 * 10**9), r"4 chains x 2,000,000,500 draws with those of the warm-up x 15 parameters x 4 bytes"),
    (NUTS(num_warmup=2 * 10**9), "2,000,000,500 draws"),
    (NUTS(num_chains=2 * 10**9), "2,000,000,000 chains"),
    (SVI(num_draws=2 * 10**9), r"svi would hold about .* \(2,000,000,000 draws x 15 parameters"),
    (BayesByBackprop(num_draws=2 * 10**9), r"take fewer draws \(num_draws\)"),
    (Laplace(num_draws=2 * 10**9), "laplace would hold"),
    (Ensemble(size=2 * 10**9), r"2,000,000,000 members x 15 parameters"),
]


@pytest.mark.parametrize(("method", "message"), HOLDINGS, ids=lambda value: getattr(value, "name", ""))
def test_what_memory_would_not_hold_is_refused_with_the_estimate(method, message):
    with pytest.raises(ValueError, match=message):
        fit(KEY, partial(mlp, widths=(2,), num_classes=3), X, Y, method)


def test_a_model_and_a_mass_matrix_are_held_too():
    wide = partial(mlp, widths=(10**5, 10**5), num_classes=3)
    with pytest.raises(ValueError, match=r"map would hold .* \(1 point x 10,000,700,003 parameters x 4 bytes"):
        fit(KEY, wide, X, Y, MAP())
    dense = NUTS(dense_mass=True)
    with pytest.raises(ValueError, match="a dense mass matrix of 1,200,003 x 1,200,003 for each chain"):
        fit(KEY, partial(mlp, widths=(200_000,), num_classes=3), X, Y, dense)


def test_the_estimate_is_of_the_draws_and_their_copies():
    sites, _ = latent_sites(MODELS[0], *check_data(X, Y))
    held = memory.holding(NUTS(num_warmup=300, num_draws=700, num_chains=2), sites)
    width = 15 + memory.STATISTICS
    assert held.kept == 4 * 2 * 700 * width
    record, draws = memory.COPIES_OF_RECORD * 2 * 1000 * width, memory.COPIES_OF_CHAINS * 2 * 700 * width
    assert held.peak == pytest.approx(4 * (record + draws + 2 * (memory.COPIES_OF_STATE + 20) * 15))
    memory.require_room("nuts", held)


@pytest.mark.parametrize("number", [2**31, 10**12])
def test_counts_beyond_32_bits_are_refused(number):
    for method in (NUTS(num_draws=number), SVI(num_steps=number), SVI(start=MAP(num_steps=number))):
        with pytest.raises(ValueError, match=rf"got num_\w+={number}: give at most 2,147,483,647"):
            fit(KEY, MODELS[0], X, Y, method)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"seeds": (-1,)}, "seed -1: give a whole number from 0"),
        ({"seeds": (2**32,)}, "seed 4294967296: give a whole number"),
        ({"seeds": 3}, r"seeds is 3: give a tuple of whole numbers"),
        ({"seeds": (0.5,)}, "seeds is"),
        ({"rows": 2.5}, "rows 2.5: give a whole number of at least 1"),
        ({"rows": 0}, "rows 0: give"),
        ({"image_size": -1}, "image size -1: give"),
        ({"methods": "svi"}, "methods is the text 'svi'"),
        ({"methods": (3,)}, "methods is"),
        ({"options": {"nutz": ()}}, r"unknown group of options 'nutz' \(did you mean nuts\?\)"),
        ({"options": {"nuts": "num_draws=5"}}, "options of nuts are 'num_draws=5': give a tuple"),
        ({"options": ["a"]}, "options is"),
        ({"budget": 3}, "budget is 3: give Budget"),
        ({"target": 3}, "target is 3: give text"),
        ({"splits": 3}, "splits is 3: give a path"),
        ({"methods": ("nuts",), "options": {"nuts": ("num_draws=2",)}}, "nuts got num_draws=2: give at least 4"),
    ],
)
def test_experiments_that_are_none(fields, message):
    with pytest.raises(UsageError, match=message):
        Experiment(**fields)


@pytest.mark.parametrize("amount", [0, -1, float("nan"), float("inf"), 1e300])
def test_budgets_that_are_none(amount):
    with pytest.raises(UsageError, match="give a number above 0, and at most"):
        Budget(amount, "passes")


class Nowhere(Begin):
    """One that NumPyro finds no beginning for, after a hundred tries."""

    def fit(self, *arguments):
        raise RuntimeError("Cannot find valid initial parameters. Please check your model again.")


def test_a_prior_without_a_finite_draw_ends_in_a_sentence():
    model = partial(mlp, widths=(2,), likelihood="normal", prior=Normal(1e30))
    with pytest.raises(FitError, match="no draw of the prior has a finite log joint, so begin has nowhere to begin"):
        fit(KEY, model, X, X[:, 0], Nowhere())
