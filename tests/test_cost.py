"""Counted operations, the default without NUTS where it costs too much, and how many draws scores average over."""

from __future__ import annotations

import dataclasses
from functools import partial

import jax
import numpy as np
import pytest

from hmcvi.benchmarks import evaluate as evaluation
from hmcvi.benchmarks import experiment as experiments
from hmcvi.benchmarks import ood
from hmcvi.benchmarks.cost import gradient_operations, prediction_operations
from hmcvi.benchmarks.datasets import arrays, load
from hmcvi.benchmarks.experiment import Experiment
from hmcvi.inference import SVI, fit
from hmcvi.models import gp, mlp

X = np.random.default_rng(0).normal(size=(64, 5)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int32)


@pytest.fixture(scope="module")
def fitted():
    model = partial(mlp, widths=(8,), num_classes=2)
    return fit(jax.random.key(0), model, X, Y, SVI(num_steps=50, num_draws=400))


def test_operations_grow_with_rows_and_weights_as_matrix_products_do():
    counts = [
        gradient_operations(partial(mlp, widths=(width,)), np.zeros((rows, 50), np.float32), np.zeros(rows, np.int32))
        for rows, width in ((400, 64), (800, 64), (400, 128))
    ]
    # what does not grow with rows (the prior) or with width (the softmax) keeps both ratios a little off 2
    assert counts[1] / counts[0] == pytest.approx(2, rel=0.1)
    assert counts[2] / counts[0] == pytest.approx(2, rel=0.1)


def test_one_prediction_costs_one_forward_pass(fitted):
    assert prediction_operations(fitted) == pytest.approx(2 * (5 * 8 + 8 * 2), rel=0.8)
    # a Gaussian process pays for its training rows, whatever is predicted
    assert prediction_operations(dataclasses.replace(fitted, model=gp)) == 0


def test_nuts_is_left_out_by_default_where_its_gradients_cost_too_much(monkeypatch):
    data = load("digits", seed=0, rows=50)
    default, asked = Experiment(), Experiment(methods=("nuts", "bbb"))
    settled, notes = default.settle(data)
    assert (settled.methods, notes) == (("nuts", "svi", "bbb"), [])
    monkeypatch.setattr(experiments, "TOO_COSTLY", 1e3)
    settled, notes = default.settle(data)
    assert settled.methods == ("svi", "bbb")
    assert "nuts is left out: one gradient over 50 rows" in notes[0]
    assert "--methods nuts svi bbb" in notes[0]
    assert asked.settle(data) == (asked, [])


def test_an_ood_set_larger_than_the_test_set_is_what_draws_are_counted_for(monkeypatch):
    """A regression keeps every draw: a gap of a third of the rows is larger than the test set."""
    x = np.random.default_rng(0).normal(size=(300, 2)).astype(np.float32)
    data = load(arrays(x, x[:, 0]), seed=0, gap="x1")
    result = fit(jax.random.key(0), partial(mlp, likelihood="normal"), data.x_train, data.y_train, SVI(num_steps=20))
    monkeypatch.setattr(evaluation, "MOST_VALUES", 100 * 400)  # 100 held-out rows, 40 test rows
    scored = evaluation.evaluate(result, data, [ood.make("gap", data, seed=0)])
    assert scored.num_draws == 334  # every third of 1,000
    assert evaluation.evaluate(result, data, []).num_draws == 1000


def test_scores_average_over_fewer_draws_where_predictions_cost_too_much(fitted, monkeypatch):
    data = load(arrays(X, Y), seed=0)
    assert evaluation.evaluate(fitted, data, []).num_draws == 400
    monkeypatch.setattr(evaluation, "MOST_OPERATIONS", prediction_operations(fitted) * len(data.x_test) * 210)
    thinned = evaluation.evaluate(fitted, data, [])
    assert thinned.num_draws == 200  # every other draw: 210 or fewer
    monkeypatch.setattr(evaluation, "MOST_OPERATIONS", 1.0)
    thinned = evaluation.evaluate(fitted, data, [])
    assert thinned.num_draws == experiments.LEAST_DRAWS == 200
    assert fitted.num_draws == 400
