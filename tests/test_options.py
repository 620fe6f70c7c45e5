"""`key=value` options: every cast, every refusal in one sentence, and the help that shows the defaults."""

import inspect

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from numpyro.infer import autoguide

from hmcvi.benchmarks.experiment import METHODS, MODELS, Experiment
from hmcvi.benchmarks.options import OPTIMIZERS, UsageError, option_help, parse_options
from hmcvi.inference import HMC, MAMS, MAP, MCLMC, NUTS, SVI, BayesByBackprop, Ensemble, FanIn
from hmcvi.models import Hierarchical, Laplace, Normal, ScaleMixture, cnn, gp, hsgp, mlp, sgp


def parsed(make, text):
    """The one value that an option stands for."""
    (value,) = parse_options(make, [text], "--it").values()
    return value


CASTS = [
    (SVI, "num_steps=300", 300),
    (SVI, "batch_size=64", 64),
    (SVI, "learning_rate=1e-3", 0.001),
    (SVI, "clip_norm=2.5", 2.5),
    (SVI, "batch_size=auto", None),  # as the help calls what no number stands for
    (SVI, "clip_norm=none", None),
    (SVI, "schedule=cosine", "cosine"),
    (SVI, "guide=AutoMultivariateNormal", autoguide.AutoMultivariateNormal),
    (SVI, "guide=AutoDelta", autoguide.AutoDelta),
    (SVI, "start=prior", None),
    (SVI, "start=fan_in", FanIn()),
    (SVI, "start=fan_in:0.5", FanIn(0.5)),
    (SVI, "start=map", MAP()),
    (SVI, "start=map:50", MAP(num_steps=50)),
    (BayesByBackprop, "kl_weighting=blundell", "blundell"),
    (BayesByBackprop, "temperature=0.5", 0.5),
    (Ensemble, "size=7", 7),
    (NUTS, "dense_mass=true", True),
    (NUTS, "dense_mass=False", False),
    (NUTS, "target_accept=0.9", 0.9),
    (NUTS, "chain_method=vectorized", "vectorized"),
    (NUTS, "max_passes=1e5", 1e5),
    (MCLMC, "max_seconds=none", None),
    (HMC, "trajectory_length=2", 2.0),
    (mlp, "widths=32,16", (32, 16)),
    (mlp, "widths=32", (32,)),
    (mlp, "widths=", ()),  # a linear model
    (mlp, "activation=relu", "relu"),
    (mlp, "prior=normal", Normal()),
    (mlp, "prior=normal:1", Normal(1.0)),
    (mlp, "prior=laplace:0.5", Laplace(0.5)),
    (mlp, "prior=mixture", ScaleMixture()),
    (mlp, "prior=hierarchical:2", Hierarchical(2.0)),
    (cnn, "kernel_size=5", 5),
    (cnn, "pool=2", 2),
    (cnn, "pool=2,2,1", (2, 2, 1)),
    (cnn, "channels=6,16,120", (6, 16, 120)),
    (gp, "kernel=rbf", "rbf"),
]


@pytest.mark.parametrize(("make", "text", "wanted"), CASTS, ids=[text for _, text, _ in CASTS])
def test_an_option_becomes_what_its_key_wants(make, text, wanted):
    value = parsed(make, text)
    assert value == wanted
    assert type(value) is type(wanted)
    if isinstance(make, type):  # a method takes it too; the models' own tests see theirs
        key = text.partition("=")[0]
        assert getattr(make(**{key: value}), key) == wanted


def test_options_of_several_keys_are_read_together_and_the_last_of_a_key_counts():
    given = ["num_steps=10", "start=map:5", "num_steps=20"]
    assert parse_options(SVI, given, "--svi") == {"num_steps": 20, "start": MAP(num_steps=5)}
    assert parse_options(SVI, [], "--svi") == {}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimisers_are_those_of_optax_that_step_in_proportion_to_their_rate(name):
    """`Training` makes them at a rate of 1 and scales their steps: at 0.5 the step must be half as long."""
    make = parsed(SVI, f"optimizer={name}")
    assert make is getattr(optax, name)
    params, gradient = jnp.array([1.0, -2.0]), jnp.array([0.3, 4.0])
    steps = []
    for rate in (1.0, 0.5):
        optimizer = make(rate)
        steps.append(optimizer.update(gradient, optimizer.init(params), params)[0])
    assert (np.abs(steps[0]) > 0).all()
    np.testing.assert_allclose(steps[1], steps[0] / 2, rtol=1e-6)


def test_sgd_has_the_momentum_it_is_given():
    """Under a constant gradient g the second step of momentum m is −(1 + m) g."""
    for text, momentum in (("optimizer=sgd:0.9", 0.9), ("optimizer=sgd:0", 0.0), ("optimizer=sgd", 0.0)):
        optimizer = parsed(SVI, text)(1.0)
        gradient = jnp.array([2.0])
        state = optimizer.init(gradient)
        first, state = optimizer.update(gradient, state)
        second, _ = optimizer.update(gradient, state)
        np.testing.assert_allclose(first, -gradient)
        np.testing.assert_allclose(second, -(1 + momentum) * gradient, rtol=1e-6)


BAD = [
    (SVI, "optimizer", "--it got 'optimizer': wanted key=value, with a key of num_draws, "),
    (SVI, "optimiser=sgd", "unknown option of --it 'optimiser' (did you mean optimizer?): give one of num_draws, "),
    (
        BayesByBackprop,
        "estimator=local",
        "--it got estimator=local: the method's name says it, as in --methods bbb bbb-local",
    ),
    (gp, "x_new=3", "unknown option of --it 'x_new': give one of kernel"),
    (SVI, "num_steps=many", "--it num_steps=many: wanted a whole number"),
    (SVI, "num_steps=1e3", "--it num_steps=1e3: wanted a whole number"),
    (SVI, "num_steps=0", "--it num_steps=0: wanted a whole number of at least 1"),
    (SVI, "batch_size=-1", "--it batch_size=-1: wanted a whole number of at least 1"),
    (SVI, "learning_rate=fast", "--it learning_rate=fast: wanted a number"),
    (SVI, "clip_norm=tight", "--it clip_norm=tight: wanted a number"),
    (
        SVI,
        "optimizer=addam",
        "--it optimizer=addam: unknown optimizer 'addam' (did you mean adam?): give one of adam, adamw, nadam, "
        "adabelief, lion, lamb, rmsprop, sgd",
    ),
    (SVI, "optimizer=adam:0.9", "--it optimizer=adam:0.9: adam takes no momentum: give optimizer=adam"),
    (SVI, "optimizer=sgd:much", "--it optimizer=sgd:much: wanted a number"),
    (SVI, "start=map:", "--it start=map:: nothing follows the colon: give map, or an argument too"),
    (SVI, "optimizer=sgd:", "--it optimizer=sgd:: nothing follows the colon: give sgd, or an argument too"),
    (SVI, "start=zero", "--it start=zero: unknown start 'zero': give one of prior, fan_in, map"),
    (SVI, "start=prior:1", "--it start=prior:1: prior takes no argument: give start=prior"),
    (SVI, "start=fan_in:big", "--it start=fan_in:big: wanted a number"),
    (SVI, "start=fan_in:-1", "--it start=fan_in:-1: FanIn got gain=-1.0: give a number above 0"),
    (SVI, "start=map:0", "--it start=map:0: wanted a whole number of at least 1"),
    (SVI, "start=map:1.5", "--it start=map:1.5: wanted a whole number"),
    (SVI, "guide=AutoNorml", "unknown guide 'AutoNorml' (did you mean AutoNormal?): give one of AutoNormal, "),
    (NUTS, "dense_mass=yes", "--it dense_mass=yes: wanted true or false"),
    (mlp, "widths=32,none", "--it widths=32,none: wanted whole numbers of at least 1 with commas between, such as"),
    (mlp, "widths=32,0", "wanted whole numbers of at least 1 with commas between"),
    (mlp, "prior=horseshoe", "unknown prior 'horseshoe': give one of normal, mixture, laplace, hierarchical"),
    (mlp, "prior=mixture:2", "--it prior=mixture:2: the mixture prior takes no scale: give prior=mixture"),
    (mlp, "prior=normal:-1", "--it prior=normal:-1: Normal prior got scale=-1.0: give a finite number above 0"),
    (cnn, "pool=0", "--it pool=0: wanted a whole number of at least 1"),
    (cnn, "pool=two", "--it pool=two: wanted a whole number"),
    (cnn, "pool=2,0", "--it pool=2,0: wanted whole numbers of at least 1 with commas between"),
]


@pytest.mark.parametrize(("make", "text", "wanted"), BAD, ids=[text for _, text, _ in BAD])
def test_what_cannot_be_cast_is_refused_in_one_sentence(make, text, wanted):
    with pytest.raises(UsageError) as error:
        parse_options(make, [text], "--it")
    assert wanted in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("method", "text", "wanted"),
    [
        ("bbb", "schedule=cosin", "BayesByBackprop got schedule='cosin': give one of plateau, cosine"),
        ("svi", "schedule=", "SVI got schedule='': give one of plateau, cosine"),
        ("bbb-local", "kl_weighting=even", "got kl_weighting='even': give one of uniform, blundell"),
        ("bbb", "temperature=0", "got temperature=0.0: give a number above 0; 1 is Bayes"),
        ("map", "clip_norm=-1", "MAP got clip_norm=-1.0: give a number above 0, or None"),
        ("ensemble", "size=1", "Ensemble got size=1: give at least 2, or use MAP()"),
        ("svi", "learning_rate=nan", "SVI got learning_rate=nan: give a number above 0"),
    ],
)
def test_what_has_the_right_type_and_no_sense_is_refused_by_the_method(method, text, wanted):
    with pytest.raises(UsageError, match="got") as error:
        Experiment(methods=(method,), options={METHODS[method][0]: (text,)})
    assert wanted in str(error.value)


def test_a_group_s_options_reach_each_of_its_methods_over_the_quick_budgets():
    experiment = Experiment(
        methods=("bbb", "bbb-local", "map", "ensemble"),
        quick=True,
        options={"bbb": ("num_draws=5",), "map": ("start=fan_in",), "ensemble": ("size=2", "optimizer=sgd:0.9")},
    )
    assert experiment.method("bbb") == BayesByBackprop(num_steps=1000, num_draws=5)
    assert experiment.method("bbb-local") == BayesByBackprop("local", num_steps=1000, num_draws=5)
    assert experiment.method("map") == MAP(num_steps=1000, start=FanIn())
    # A start by MAP is part of the budget: --quick makes it small as well.
    started = Experiment(methods=("svi",), quick=True, options={"svi": ("start=map",)})
    assert started.method("svi").start == MAP(num_steps=1000)
    ensemble = experiment.method("ensemble")
    assert (ensemble.size, ensemble.num_steps, ensemble.optimizer.keywords) == (2, 1000, {"momentum": 0.9})


def test_help_shows_defaults_as_a_reader_writes_them():
    shared = (
        "num_steps=20000, batch_size=auto, learning_rate=0.01, schedule=plateau, optimizer=adam, clip_norm=none, "
        "start=prior, num_restarts=1, max_passes=none, max_seconds=none"
    )
    assert option_help(MAP) == shared
    assert option_help(SVI) == f"num_draws=1000, init_scale=0.05, num_particles=1, guide=AutoNormal, {shared}"
    assert option_help(mlp) == "widths=16, activation=tanh, prior=normal:3"
    assert option_help(cnn).startswith("channels=8,16, kernel_size=3, pool=2, widths=32, activation=relu")
    # What Python would print of a function or a class is nothing to read, nor to type.
    everything = [option_help(make) for _, make in METHODS.values()] + [option_help(make) for make in MODELS.values()]
    for text in everything:
        assert not any(sign in text for sign in ("<", ">", "(", ")", "None", "functools", " at 0x"))


@pytest.mark.parametrize("make", [SVI, BayesByBackprop, NUTS, HMC, MCLMC, MAMS, MAP, Ensemble, mlp, cnn, gp, hsgp, sgp])
def test_what_the_help_shows_means_the_default(make):
    for entry in option_help(make).split(", "):
        key = entry.partition("=")[0]
        default = inspect.signature(make).parameters[key].default
        assert parsed(make, entry) == (Normal() if key == "prior" else default), entry
