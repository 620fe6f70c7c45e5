"""What each target of `hmcvi reproduce` runs: functions of a seed and settings that return named measures."""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import functools
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

from hmcvi.inference import (
    MAP,
    NUTS,
    SVI,
    BayesByBackprop,
    ClassPredictive,
    FanIn,
    Fit,
    fit,
    predict,
    predict_draws,
    prune,
    scores,
)
from hmcvi.inference.base import Method, Model
from hmcvi.inference.describe import describe
from hmcvi.inference.durable import sha256_of
from hmcvi.inference.family import pareto_khat
from hmcvi.inference.scores import Score
from hmcvi.inference.variational import ESTIMATORS
from hmcvi.models import Normal, ScaleMixture, cnn, mlp
from hmcvi.models.priors import Prior

from . import datasets, eight_schools, ood
from .datasets import Dataset
from .gradient_variance import gradient_variance, slope

__all__ = ["RUNS", "Measures", "keeping_fits_in"]

Measures = dict[str, Score]
"""Measured values by name, each with its standard error (NaN where one run cannot know it)."""

BATCH_SIZE = 128

_FOLDER: contextvars.ContextVar[Path | None] = contextvars.ContextVar("folder of the fits in the making", default=None)

SGD = functools.partial(optax.sgd, momentum=0.9)
"""The optimiser of the image targets' variational fits."""

SINGLE_DRAWS = 10
"""Draws that the error of one draw alone is averaged over."""

PRUNED = (50, 75, 95, 98)
"""Percent of the weights that Blundell et al. (2015) remove."""

KHAT_REPEATS = 10
"""Sets of draws that a k-hat is averaged over: one alone is noisy."""

MNIST_PRIORS: dict[str, Prior] = {
    "mixture": ScaleMixture(mixture_weight=0.25, scale_1=1.0, scale_2=math.exp(-6)),
    "Gaussian": Normal(math.exp(-1), fan_in_scaled=False),
}
"""Priors of the MNIST MLP; the scales are on the grid of Blundell et al. (2015), section 5.1."""


def mnist_mlp(seed: int, data_dir: str | None, *, tune: bool = False, **settings: Any) -> Measures:
    """Test error of a 784-400-400-10 MLP under the scale mixture and under a Gaussian prior."""
    measures: Measures = {}
    for prior in MNIST_PRIORS:
        fitted = _mixture_fit if prior == "mixture" else functools.partial(_mnist_fit, prior=prior)
        result, data = fitted(seed, data_dir, tune=tune, **settings)
        for name, score in _class_measures(result, data, _probs(result, data.x_test)).items():
            measures[f"{name}, {prior} prior"] = score
    return measures


def mnist_pruning(seed: int, data_dir: str | None, *, tune: bool = False, **settings: Any) -> Measures:
    """Test error that removing weights adds, those of lowest signal-to-noise first, under the scale mixture."""
    result, data = _mixture_fit(seed, data_dir, tune=tune, **settings)
    whole = _wrong(_probs(result, data.x_test), data)
    measures = {"test error, nothing removed (%)": scores.mean(whole)}
    for percent in PRUNED:
        pruned = _wrong(_probs(prune(result, percent / 100), data.x_test), data)
        measures[f"test error, {percent} % removed (%)"] = scores.mean(pruned)
        measures[f"test error added, {percent} % removed (points)"] = scores.paired_difference(pruned, whole)
    return measures


def lenet(
    seed: int,
    data_dir: str | None,
    *,
    data: str,
    rows: int | None = None,
    test_rows: int | None = None,
    tune: bool = False,
    **training: Any,
) -> Measures:
    """Accuracy, NLL and ECE (10 bins, as the source has) of LeNet-5: convolutions of 6, 16 and 120, a dense of 84."""
    loaded = _load(data, seed, data_dir, tune, rows=rows, test_rows=test_rows, image=True)
    model = functools.partial(cnn, channels=(6, 16, 120), kernel_size=5, pool=(2, 2, 1), widths=(84,), num_classes=10)
    result = _flipout(seed, model, loaded, **training)
    probs = _probs(result, loaded.x_test)
    measures = _class_measures(result, loaded, probs)
    measures["ece (10 bins)"] = scores.ece(probs, loaded.y_test, num_bins=10)
    return measures


def cifar10_cnn(
    seed: int,
    data_dir: str | None,
    *,
    rows: int | None = None,
    test_rows: int | None = None,
    tune: bool = False,
    **training: Any,
) -> Measures:
    """Accuracy, ECE and entropies of a Flipout CNN: convolutions of 32, 64 and 128 channels, a dense layer of 128."""
    data = _load("cifar10", seed, data_dir, tune, rows=rows, test_rows=test_rows, image=True)
    model = functools.partial(cnn, channels=(32, 64, 128), widths=(128,), num_classes=10)
    result = _flipout(seed, model, data, **training)
    probs = _probs(result, data.x_test)
    measures = _class_measures(result, data, probs)
    inside = scores.entropy(probs)
    measures["mean entropy, test images (nats)"] = scores.mean(inside)
    for name in ("mnist", "permutation"):
        outside = scores.entropy(_probs(result, ood.make(name, data, seed=seed, data_dir=data_dir).x))
        measures[f"mean entropy, {name} (nats)"] = scores.mean(outside)
        measures[f"auroc of entropy, {name}"] = scores.auroc(inside, outside)
    return measures


def flipout_variance(
    seed: int, data_dir: str | None, *, num_steps: int, num_repeats: int, batch_sizes: list[int]
) -> Measures:
    """Slopes of log gradient variance against log batch size, and the variances themselves, by estimator."""
    data = datasets.load("digits", seed=seed)
    model = functools.partial(mlp, widths=(64,), activation="relu", num_classes=10)
    method = BayesByBackprop(num_steps=num_steps, num_draws=1)
    result = _kept_fit(seed, model, data.x_train, data.y_train, method)
    measures: Measures = {}
    for estimator in ESTIMATORS:
        key = jax.random.key(seed + 1)
        variances = gradient_variance(result, key, estimator, batch_sizes, num_repeats=num_repeats)
        measures[f"slope, {estimator}"] = slope(batch_sizes, variances)
        measures[f"slope between the two largest batches, {estimator}"] = slope(batch_sizes[-2:], variances[-2:])
        for size, variance in zip(batch_sizes, variances, strict=True):
            measures[f"variance at batch {size}, {estimator}"] = variance
    return measures


def eight_schools_forms(seed: int, data_dir: str | None, *, num_draws: int) -> Measures:
    """Pareto k-hat of AutoNormal and divergences of NUTS, for the centred and the non-centred form."""
    measures: Measures = {}
    for form, model in (("centred", eight_schools.centred), ("non-centred", eight_schools.non_centred)):
        x, y = eight_schools.SCHOOLS, eight_schools.EFFECTS
        svi = _kept_fit(seed, model, x, y, SVI(num_particles=10, num_draws=KHAT_REPEATS * num_draws))
        khats = np.array([pareto_khat(part) for part in _split_draws(svi, KHAT_REPEATS)])
        measures[f"k-hat of AutoNormal, {form}"] = scores.mean(khats)
        nuts = _kept_fit(seed, model, x, y, NUTS())
        measures[f"divergences of NUTS, {form}"] = Score(float(nuts.stats["diverging"].sum()), math.nan)
    return measures


def _split_draws(result: Fit, number: int) -> list[Fit]:
    """Return the fit with its draws split into this many sets."""
    assert result.log_q is not None
    size = result.num_draws // number
    parts = [slice(i * size, (i + 1) * size) for i in range(number)]
    return [
        dataclasses.replace(
            result, draws={site: draws[:, part] for site, draws in result.draws.items()}, log_q=result.log_q[:, part]
        )
        for part in parts
    ]


RUNS: dict[str, Callable[..., Measures]] = {
    run.__name__: run for run in (mnist_mlp, mnist_pruning, lenet, cifar10_cnn, flipout_variance, eight_schools_forms)
}
"""The runs by name, as targets.toml calls them."""


@contextlib.contextmanager
def keeping_fits_in(folder: Path) -> Iterator[None]:
    """Keep the fits of the runs within in this folder while they are made: the same runs go on from there."""
    token = _FOLDER.set(folder)
    try:
        yield
    finally:
        _FOLDER.reset(token)


def _kept_fit(seed: int, model: Model, x: Any, y: Any, method: Method) -> Fit:
    """Fit, kept under a name that tells this fit from every other of the target."""
    folder = _FOLDER.get()
    if folder is None:
        return fit(jax.random.key(seed), model, x, y, method)
    folder.mkdir(exist_ok=True)
    name = sha256_of(json.dumps([seed, describe(model), describe(method), len(x)]).encode())[:12]
    return fit(jax.random.key(seed), model, x, y, method, checkpoint=folder / f"{method.name}-{name}")


def _load(name: str, seed: int, data_dir: str | None, tune: bool, **options: Any) -> Dataset:
    """Load a data set; to tune, validation rows taken from the training rows stand in the place of the test rows."""
    fraction = datasets.TUNING_FRACTION if tune else 0.0
    data = datasets.load(name, seed=seed, data_dir=data_dir, validation_fraction=fraction, **options)
    return data.for_tuning() if tune else data


def _mnist_fit(
    seed: int,
    data_dir: str | None,
    *,
    prior: str,
    tune: bool,
    epochs: int,
    learning_rate: float,
    init_scale: float,
    rows: int | None = None,
) -> tuple[Fit, Dataset]:
    """Fit the MNIST MLP.

    Plain SGD with momentum, as in the paper: Adam would follow the KL, whose gradient is the same for every weight
    at every step, ahead of the likelihood's, and widen the posterior until the network is mostly noise.
    """
    data = _load("mnist", seed, data_dir, tune, rows=rows)
    model = functools.partial(mlp, widths=(400, 400), activation="relu", num_classes=10, prior=MNIST_PRIORS[prior])
    method = BayesByBackprop(
        "local",
        num_steps=epochs * (len(data.x_train) // BATCH_SIZE),
        batch_size=BATCH_SIZE,
        num_draws=100,
        optimizer=SGD,
        learning_rate=learning_rate / len(data.x_train),  # given for the mean loss of a row; losses here are sums
        schedule="cosine",
        start=FanIn(),
        init_scale=init_scale,
    )
    return _kept_fit(seed, model, data.x_train, data.y_train, method), data


@functools.lru_cache(maxsize=4)
def _mixture_fit(seed: int, data_dir: str | None, **settings: Any) -> tuple[Fit, Dataset]:
    """Fit the MNIST MLP under the scale mixture; kept for up to four seeds, as two targets look at the same fit."""
    return _mnist_fit(seed, data_dir, prior="mixture", **settings)


def _flipout(
    seed: int,
    model: Callable[..., Any],
    data: Dataset,
    *,
    map_epochs: int,
    epochs: int,
    learning_rate: float,
    init_scale: float,
    num_draws: int,
) -> Fit:
    """Fit by Flipout and SGD from the means of a MAP fit by Adam, both with a cosine decay."""
    steps = len(data.x_train) // BATCH_SIZE
    shared: dict[str, Any] = {"batch_size": BATCH_SIZE, "schedule": "cosine"}
    method = BayesByBackprop(
        num_steps=epochs * steps,
        num_draws=num_draws,
        optimizer=SGD,
        learning_rate=learning_rate / len(data.x_train),
        init_scale=init_scale,
        start=MAP(num_steps=map_epochs * steps, learning_rate=0.001, start=FanIn(), **shared),
        **shared,
    )
    return _kept_fit(seed, model, data.x_train, data.y_train, method)


def _class_measures(result: Fit, data: Dataset, probs: np.ndarray) -> Measures:
    """Score predictions of the test rows, and for comparison those of the posterior mean and of single draws."""
    y = data.y_test
    mean = _probs(result, data.x_test, deterministic=True)
    few = dataclasses.replace(result, draws={site: draws[:, :SINGLE_DRAWS] for site, draws in result.draws.items()})
    single = predict_draws(few, data.x_test)[0]  # (draw, row, class)
    single_nll = np.mean([scores.row_negative_log_likelihood(draw, y) for draw in single], axis=0)
    assert result.losses is not None
    final = result.losses[-(len(data.x_train) // BATCH_SIZE) :] / len(data.x_train)
    return {
        "accuracy": scores.accuracy(probs, y),
        "test error (%)": scores.mean(_wrong(probs, data)),
        "test error, posterior mean (%)": scores.mean(_wrong(mean, data)),
        "test error, one draw (%)": scores.mean(np.mean([_wrong(draw, data) for draw in single], axis=0)),
        "nll (nats)": scores.negative_log_likelihood(probs, y),
        "nll, one draw (nats)": scores.mean(single_nll),
        "nll, uniform guess (nats)": Score(math.log(10), 0.0),
        "ece (15 bins)": scores.ece(probs, y),
        "negative ELBO, last epoch (nats a row)": scores.mean(final),
    }


def _probs(result: Fit, x: np.ndarray, *, deterministic: bool = False) -> np.ndarray:
    predictions = predict(result, x, deterministic=deterministic)
    assert isinstance(predictions, ClassPredictive)
    return predictions.probs


def _wrong(probs: np.ndarray, data: Dataset) -> np.ndarray:
    """Return 100 where the most probable class is wrong and 0 elsewhere (row,): its mean is an error in percent."""
    return 100 * (1 - scores.row_accuracy(probs, data.y_test))
