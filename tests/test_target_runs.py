"""The runs behind the targets of `hmcvi reproduce`: every measure that a claim names, from tiny data."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro.distributions import biject_to
from scipy.stats import norm

from hmcvi.benchmarks import datasets, target_runs
from hmcvi.benchmarks.reproduce import judge, read_targets
from hmcvi.benchmarks.target_runs import RUNS
from hmcvi.inference import Fit, fit, predict
from hmcvi.inference.base import latent_sites
from hmcvi.inference.checks import check_data
from hmcvi.inference.scores import Score
from hmcvi.models import ScaleMixture, mlp

from .prepared_sets import features, png, write_set

TARGETS = read_targets()

ROWS, TEST_ROWS, SIDE = 60, 20, 8

TINY = {
    "mnist_mlp": ("blundell-mnist", {"epochs": 1, "rows": 40}),
    "mnist_pruning": ("blundell-pruning", {"epochs": 1, "rows": 40}),
    "lenet": ("lenet-fashion", {"map_epochs": 1, "epochs": 1, "rows": 40, "test_rows": 15}),
    "cifar10_cnn": ("flipout-cifar10", {"map_epochs": 1, "epochs": 1, "rows": 40, "test_rows": 15}),
    "flipout_variance": ("flipout-variance", {"num_steps": 20, "num_repeats": 5, "batch_sizes": [1, 4, 1024]}),
    "eight_schools_forms": ("eight-schools", {"num_draws": 200}),
}
TINY = {run: {**TARGETS[name].quick, **tiny} for run, (name, tiny) in TINY.items()}
"""Settings of a target, made to show what its run returns, and nothing else."""


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """A TFDS folder with noise in the place of three image sets, eight pixels wide."""
    root = tmp_path_factory.mktemp("tfds")
    random = np.random.default_rng(0)
    for name, channels in (("mnist", 1), ("fashion_mnist", 1), ("cifar10", 3)):
        shape = (SIDE, SIDE, channels)
        splits = {
            split: [(png(random.integers(256, size=shape, dtype=np.uint8)), row % 10) for row in range(rows)]
            for split, rows in (("train", ROWS), ("test", TEST_ROWS))
        }
        write_set(root, name, splits, like=features(shape, names=[str(i) for i in range(10)]), version="3.0.1")
    return str(root)


def linear(x, y=None, *, num_rows=None, num_classes, prior=None, **architecture):
    """In the place of `mlp` and `cnn`, whose compilation takes most of a run's time; takes their arguments."""
    return mlp(x, y, widths=(), num_rows=num_rows, num_classes=num_classes, prior=prior)


DIVERGENCES = 3


def untrained(key, model, x, y, method):
    """In the place of `fit`: a Gaussian posterior about 0 that nothing was optimised for, in no time."""
    x, y = check_data(x, y)
    sites, _ = latent_sites(model, x, y)
    noise = {
        name: jax.random.normal(jax.random.fold_in(key, i), (1, method.num_draws, *site.shape))
        for i, (name, site) in enumerate(sites.items())
    }
    return Fit(
        model=model,
        method=method,
        x=x,
        y=y,
        key=key,
        draws={name: biject_to(site.support)(0.1 * noise[name]) for name, site in sites.items()},
        stats={"diverging": np.arange(8).reshape(2, 4) < DIVERGENCES},
        location={name: jnp.zeros(site.shape) for name, site in sites.items()},
        scale={name: jnp.full(site.shape, 0.1) for name, site in sites.items()},
        losses=np.full(100, 2.0),
        log_q=sum(norm.logpdf(0.1 * n, scale=0.1).reshape(1, method.num_draws, -1).sum(2) for n in noise.values()),
        num_gradients=0,
        rows_per_gradient=0,
        run_seconds=0.0,
    )


def fitted_once(key, model, x, y, method):
    """In the place of `fit`: the two MNIST fits differ in their prior only, and one of them is enough."""
    chosen = fit if isinstance(model.keywords["prior"], ScaleMixture) else untrained
    return chosen(key, model, x, y, method)


FITS = {"lenet": fit, "mnist_mlp": fitted_once, "mnist_pruning": fitted_once}
"""How much of a run is fitted: these show that such methods fit, the others are left untrained."""


def power_law(result, key, estimator, batch_sizes, *, num_repeats):
    """In the place of `gradient_variance`, whose own tests know its values: 1/B, above a floor under "shared"."""
    floor = 0.5 if estimator == "shared" else 0.0
    return [Score(1 / size + floor, 0.01 * (1 / size + floor)) for size in batch_sizes]


@functools.cache
def returned(run, data_dir):
    """What a run returns of tiny data with tiny settings and models: its names are those of the full one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HMCVI_CACHE", data_dir + "/cache")
        patch.setattr(target_runs, "BATCH_SIZE", 16)
        patch.setattr(target_runs, "KHAT_REPEATS", 2)
        patch.setattr(target_runs, "mlp", linear)
        patch.setattr(target_runs, "cnn", linear)
        patch.setattr(target_runs, "fit", FITS.get(run, untrained))
        patch.setattr(target_runs, "gradient_variance", power_law)
        return RUNS[run](0, data_dir, **TINY[run])


@pytest.mark.parametrize("run", RUNS)
def test_every_measure_that_a_claim_names_is_returned(run, data_dir):
    measures = returned(run, data_dir)
    for target in TARGETS.values():
        if target.run == run:
            for claim in target.claims:
                outcome = judge(claim, measures)
                assert math.isfinite(outcome.value), claim.measure
    # All else that is returned is a score as well.
    assert all(isinstance(score, Score) for score in measures.values())


def test_errors_and_accuracies_are_those_of_one_set_of_predictions(data_dir):
    measures = returned("mnist_mlp", data_dir)
    for prior in ("mixture", "Gaussian"):
        accuracy, wrong = (measures[f"{name}, {prior} prior"] for name in ("accuracy", "test error (%)"))
        assert wrong.value == pytest.approx(100 * (1 - accuracy.value))
        assert wrong.standard_error == pytest.approx(100 * accuracy.standard_error, rel=0.05)
        assert 0 <= measures[f"test error, one draw (%), {prior} prior"].value <= 100
        # Labels of noise: 90 % are wrong, of 20 rows within four standard errors (1e-4 false alarms for each prior).
        assert abs(wrong.value - 90) < 4 * 100 * math.sqrt(0.09 / TEST_ROWS)


@pytest.mark.parametrize("run", ["mnist_mlp", "lenet", "cifar10_cnn"])
def test_tuning_scores_a_fifth_of_the_training_rows(run, data_dir, monkeypatch):
    fitted, scored = [], []

    def fitting(key, model, x, y, method):
        fitted.append(np.asarray(x))
        return untrained(key, model, x, y, method)

    def predicting(result, x, **options):
        scored.append(np.asarray(x))
        return predict(result, x, **options)

    monkeypatch.setenv("HMCVI_CACHE", data_dir + "/cache")
    for name, value in {"mlp": linear, "cnn": linear, "fit": fitting, "predict": predicting, "BATCH_SIZE": 16}.items():
        monkeypatch.setattr(target_runs, name, value)
    settings = {key: value for key, value in TINY[run].items() if key not in ("rows", "test_rows")}
    RUNS[run](0, data_dir, tune=True, **settings)
    assert {len(x) for x in fitted} == {ROWS - ROWS // 5}
    train = datasets.load(
        TINY[run].get("data", "cifar10" if run == "cifar10_cnn" else "mnist"),
        seed=0,
        data_dir=data_dir,
        image=run != "mnist_mlp",
    ).x_train
    rows = {row.tobytes() for row in np.asarray(train)}
    assert len(scored[0]) == ROWS // 5
    assert all(row.tobytes() in rows for row in scored[0])
    assert not {row.tobytes() for row in fitted[0]} & {row.tobytes() for row in scored[0]}


def test_slopes_are_those_of_the_variances(data_dir):
    measures = returned("flipout_variance", data_dir)
    for estimator in ("flipout", "local"):
        assert measures[f"slope, {estimator}"].value == pytest.approx(-1)
        assert measures[f"slope between the two largest batches, {estimator}"].value == pytest.approx(-1)
        assert measures[f"variance at batch 4, {estimator}"] == (0.25, 0.0025)
    # from 1/4 + 1/2 at 4 rows to 1/1024 + 1/2
    last = measures["slope between the two largest batches, shared"].value
    assert last == pytest.approx(math.log((1 / 1024 + 0.5) / 0.75) / math.log(256))
    assert measures["slope, shared"].value < last


def test_divergences_are_counted_over_chains_and_draws(data_dir):
    measures = returned("eight_schools_forms", data_dir)
    for form in ("centred", "non-centred"):
        value, error = measures[f"divergences of NUTS, {form}"]
        assert value == DIVERGENCES
        assert math.isnan(error)  # one run cannot know it


def test_pruning_looks_at_the_fit_of_the_mixture_prior(data_dir):
    """Nothing removed, the error is that of `mnist_mlp`; what is added is the difference."""
    whole = returned("mnist_mlp", data_dir)["test error (%), mixture prior"]
    before = target_runs._mixture_fit.cache_info().misses
    measures = returned("mnist_pruning", data_dir)
    assert target_runs._mixture_fit.cache_info().misses == before
    assert measures["test error, nothing removed (%)"] == whole
    for percent in target_runs.PRUNED:
        removed = measures[f"test error, {percent} % removed (%)"].value
        added = measures[f"test error added, {percent} % removed (points)"].value
        assert added == pytest.approx(removed - whole.value)


@pytest.fixture(autouse=True, scope="module")
def _fits_are_let_go():
    yield
    target_runs._mixture_fit.cache_clear()
    returned.cache_clear()
