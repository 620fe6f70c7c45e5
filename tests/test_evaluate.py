"""Scores of whole fits: values, both errors, and the distance to the reference with its noise floor."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro.distributions import biject_to

from hmcvi.benchmarks import ood
from hmcvi.benchmarks.datasets import Dataset, arrays, load
from hmcvi.benchmarks.evaluate import (
    POSTERIOR_MEAN,
    Evaluation,
    _ClassScores,
    _NormalScores,
    _ood_rows,
    distance_rows,
    evaluate,
    paired_rows,
)
from hmcvi.inference import (
    MAP,
    BayesByBackprop,
    ClassPredictive,
    Ensemble,
    Fit,
    Method,
    NormalPredictive,
    predict,
    scores,
)
from hmcvi.inference.base import latent_sites
from hmcvi.inference.checks import check_data
from hmcvi.models import mlp


def class_predictive(rng: np.random.Generator, rows: int, batches: int = 20, spread: float = 0.3) -> ClassPredictive:
    """Draws batches of softmax probabilities (batch, row, 8) around common logits."""
    logits = rng.normal(size=(rows, 8)) * 2 + spread * rng.normal(size=(batches, rows, 8))
    probs = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    return ClassPredictive(
        probs, scores.entropy(probs.reshape(-1, 8)).reshape(batches, rows) * 0.9, np.full(batches, 50)
    )


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load("digits", seed=0, held_out_classes=(8, 9))


@pytest.fixture(scope="module")
def diabetes() -> Dataset:
    return load("diabetes", seed=0)


def named(rows: list) -> dict:
    return {(row.set, row.score): row for row in rows}


def test_classification_scores_are_those_of_the_mixture(digits: Dataset) -> None:
    predictions = class_predictive(np.random.default_rng(0), len(digits.x_test))
    rows = named(_ClassScores(predictions, digits.y_test).rows("test"))
    probs = predictions.batch_probs.mean(0)
    assert rows["test", "accuracy"].value == scores.accuracy(probs, digits.y_test).value
    nll = scores.negative_log_likelihood(probs, digits.y_test)
    assert rows["test", "nll"].value == pytest.approx(nll.value)
    assert rows["test", "nll"].standard_error == pytest.approx(nll.standard_error)
    parts = [rows["test", f"entropy, {part}"].value for part in ("total", "aleatoric", "epistemic")]
    assert parts[0] == pytest.approx(parts[1] + parts[2])
    y, wrong = digits.y_test, 1 - scores.row_accuracy(probs, digits.y_test)
    for name, wanted in {
        "ece": scores.ece(probs, y),
        "ece, class-wise": scores.class_wise_ece(probs, y),
        "calibration error, max": scores.maximum_calibration_error(probs, y),
        "confidence − accuracy": scores.signed_calibration_error(probs, y),
        "aurc, entropy": scores.aurc(scores.entropy(probs), wrong),
        "error at 80% coverage": scores.risk_at_coverage(scores.entropy(probs), wrong, 0.8),
        "error at 95% coverage": scores.risk_at_coverage(scores.entropy(probs), wrong, 0.95),
    }.items():
        found = rows["test", name]
        assert (found.value, found.standard_error) == pytest.approx(wanted), name
        assert 0 < found.monte_carlo_error < 0.2, name


def test_monte_carlo_error_is_the_spread_between_batches(digits: Dataset) -> None:
    """For a mean over draws it is sd / √batches; more noise between batches, more error."""
    predictions = class_predictive(np.random.default_rng(1), len(digits.x_test))
    aleatoric = named(_ClassScores(predictions, digits.y_test).rows("test"))["test", "entropy, aleatoric"]
    batches = predictions.batch_entropy.mean(1)
    assert aleatoric.monte_carlo_error == pytest.approx(batches.std(ddof=1) / np.sqrt(20), rel=0.15)
    noisy = class_predictive(np.random.default_rng(1), len(digits.x_test), spread=1.5)
    quiet_error, noisy_error = (
        named(_ClassScores(p, digits.y_test).rows("test", {"nll"}))["test", "nll"].monte_carlo_error
        for p in (predictions, noisy)
    )
    assert noisy_error > 2 * quiet_error


def test_regression_scores_come_in_the_unit_of_the_target(diabetes: Dataset) -> None:
    rng = np.random.default_rng(2)
    rows_ = len(diabetes.y_test)
    loc = diabetes.y_test + rng.normal(size=(2, 100, rows_)) * 0.1
    batch = np.repeat(np.arange(20).reshape(2, 10), 10, axis=1)
    predictions = NormalPredictive(loc, np.full_like(loc, 0.5), batch)
    rows = named(_NormalScores(predictions, diabetes, diabetes.y_test).rows("test"))
    error = (loc.mean((0, 1)) - diabetes.y_test) * diabetes.target_scale
    assert rows["test", "rmse"].value == pytest.approx(np.sqrt((error**2).mean()))
    normals = (part.reshape(-1, rows_) * diabetes.target_scale for part in (loc, np.full_like(loc, 0.5)))
    crps = scores.crps(*normals, diabetes.y_test * diabetes.target_scale)
    assert (rows["test", "crps"].value, rows["test", "crps"].standard_error) == pytest.approx(crps)
    width = rows["test", "width of 90%"].value / diabetes.target_scale
    # The mixture's sd is √(0.5² + 0.1²) = 0.51 and it is all but Normal.
    assert width == pytest.approx(2 * 1.645 * 0.51, rel=0.01)


def test_ood_rows_tell_sets_apart_and_pair_batches() -> None:
    """An uncertainty that is higher by far on the OOD rows in every batch has AUROC 1 with no Monte Carlo error."""
    sure, unsure = np.eye(8)[np.zeros(50, int)] * 0.9 + 0.0125, np.full((40, 8), 1 / 8)
    inside, outside = (
        _ClassScores(ClassPredictive(np.stack([p] * 20), np.zeros((20, len(p))), np.full(20, 50)), None)
        for p in (sure, unsure)
    )
    rows = named(_ood_rows("noise", inside, outside))
    for measure in ("entropy", "mutual information", "1 − confidence"):
        assert rows["noise", f"auroc, {measure}"].value == 1
        assert rows["noise", f"auroc, {measure}"].monte_carlo_error == 0
        assert rows["noise", f"fpr95, {measure}"].value == 0
    assert rows["noise", "mean entropy"].value == pytest.approx(np.log(8))


def test_noise_floor_is_the_distance_between_halves_and_lies_below_a_real_distance(digits: Dataset) -> None:
    rng = np.random.default_rng(3)
    reference = class_predictive(rng, len(digits.x_test))
    other = class_predictive(np.random.default_rng(4), len(digits.x_test))
    ours, theirs = (Evaluation([], p, 1000, {}, None) for p in (other, reference))
    floor, distance = named(distance_rows(theirs, theirs, digits)), named(distance_rows(ours, theirs, digits))
    halves = reference.batch_probs[:10].mean(0), reference.batch_probs[10:].mean(0)
    expected = scores.total_variation(*halves).value
    assert floor["reference", "total variation"].value == pytest.approx(expected)
    assert floor["reference", "jensen-shannon"].value == pytest.approx(scores.jensen_shannon(*halves).value)
    assert floor["reference", "jensen-shannon"].value < 0.2 * distance["reference", "jensen-shannon"].value
    assert floor["reference", "total variation"].value < 0.2 * distance["reference", "total variation"].value
    assert floor["reference", "agreement"].value > distance["reference", "agreement"].value


def test_regression_distance_is_the_shift_in_the_unit_of_the_target(diabetes: Dataset) -> None:
    rng = np.random.default_rng(5)
    loc = rng.normal(size=(4, 50, 30))
    batch = np.repeat(np.arange(20).reshape(4, 5), 10, axis=1)
    reference = NormalPredictive(loc, np.ones_like(loc), batch)
    shifted = NormalPredictive(loc + 2, np.ones_like(loc), batch)
    rows = distance_rows(Evaluation([], shifted, 200, {}, None), Evaluation([], reference, 200, {}, None), diabetes)
    assert rows[0].value == pytest.approx(2 * diabetes.target_scale)
    floor = distance_rows(*[Evaluation([], reference, 200, {}, None)] * 2, diabetes)
    assert floor[0].value < 0.2 * rows[0].value


def test_paired_differences_are_those_of_the_scores_with_less_error_than_either(digits: Dataset) -> None:
    rng = np.random.default_rng(6)
    one = class_predictive(rng, len(digits.x_test))
    other = ClassPredictive(one.batch_probs * 0.98 + 0.02 / 8, one.batch_entropy, one.batch_size)
    rows = named(
        paired_rows(Evaluation([], one, 1000, {}, None), Evaluation([], other, 1000, {}, None), digits, "minus svi")
    )
    nlls = [scores.negative_log_likelihood(p.probs, digits.y_test) for p in (one, other)]
    assert rows["minus svi", "nll"].value == pytest.approx(nlls[0].value - nlls[1].value)
    assert 0 < rows["minus svi", "nll"].standard_error < 0.5 * nlls[0].standard_error


# --- whole fits: what there is to score, and with which errors


X = np.random.default_rng(7).normal(size=(80, 3)).astype(np.float32)
TASKS = {
    "classification": (load(arrays(X, (X[:, 0] > 0).astype(int)), seed=0), {"num_classes": 2}),
    "regression": (load(arrays(X, X[:, 0] * 5 + 2), seed=0), {"likelihood": "normal"}),
}


def gaussian(task: str, method: Method, num_draws: int, *, has_mean: bool = True) -> tuple[Fit, Dataset]:
    """Draws from a Gaussian about some network's weights, as that method would leave them; nothing is fitted."""
    data, options = TASKS[task]
    model = partial(mlp, widths=(4,), **options)
    x, y = check_data(data.x_train, data.y_train)
    sites, _ = latent_sites(model, x, y)
    random = np.random.default_rng(8)
    location = {name: jnp.asarray(random.normal(size=site.shape), jnp.float32) for name, site in sites.items()}
    scale = {name: jnp.full(site.shape, 0.3) for name, site in sites.items()}
    draws = {
        name: biject_to(site.support)(
            location[name] + 0.3 * random.normal(size=(1, num_draws, *site.shape)).astype(np.float32)
        )
        for name, site in sites.items()
    }
    fitted = Fit(
        model=model,
        method=method,
        x=x,
        y=y,
        key=jax.random.key(0),
        draws=draws,
        num_gradients=0,
        rows_per_gradient=0,
        run_seconds=0.0,
        location=location if has_mean else None,
        scale=scale if has_mean else None,
        losses=np.zeros(1),
        finished=True,
    )
    return fitted, data


@pytest.mark.parametrize("task", TASKS)
def test_one_draw_has_no_monte_carlo_error_and_nothing_to_disagree_with(task: str) -> None:
    fitted, data = gaussian(task, MAP(), 1)
    noise = ood.make("gaussian_noise", data, seed=0)
    rows = named(evaluate(fitted, data, [noise]).rows)
    assert np.isnan([row.monte_carlo_error for row in rows.values()]).all()
    assert {part for part, _ in rows} == {"test", noise.name}  # its draw is its mean: it is scored once
    # Exactly: the difference of two sums would leave a rounding error, which an AUROC takes for an order.
    assert rows["test", "entropy, epistemic"].value == 0
    assert rows["test", "entropy, total"].value == pytest.approx(rows["test", "entropy, aleatoric"].value, rel=1e-6)
    assert rows[noise.name, "mean mutual information"].value == 0
    assert rows[noise.name, "auroc, mutual information"].value == 0.5
    # What does not come from draws is known with an error all the same.
    assert rows["test", "nll"].standard_error > 0


@pytest.mark.parametrize("task", TASKS)
def test_members_of_an_ensemble_are_draws_without_a_mean(task: str) -> None:
    fitted, data = gaussian(task, Ensemble(size=4), 4, has_mean=False)
    rows = named(evaluate(fitted, data, []).rows)
    assert {part for part, _ in rows} == {"test"}
    assert np.isfinite([row.monte_carlo_error for row in rows.values()]).all()
    assert rows["test", "entropy, epistemic"].value > 0
    assert rows["test", "nll"].monte_carlo_error > 0


@pytest.mark.parametrize("task", TASKS)
def test_posterior_mean_rows_are_the_scores_of_the_deterministic_pass(task: str) -> None:
    fitted, data = gaussian(task, BayesByBackprop(), 40)
    rows = named(evaluate(fitted, data, []).rows)
    mean = predict(fitted, data.x_test, deterministic=True)
    if isinstance(mean, ClassPredictive):
        wanted = {
            "accuracy": scores.accuracy(mean.probs, data.y_test),
            "nll": scores.negative_log_likelihood(mean.probs, data.y_test),
            "ece": scores.ece(mean.probs, data.y_test),
            "entropy, total": scores.mean(scores.entropy(mean.probs)),
        }
    else:
        # In the target's own unit, as the board has it; one Normal for each row.
        unit, y = data.target_scale, data.y_test * data.target_scale
        loc, scale = mean.loc[0, 0] * unit, mean.scale[0, 0] * unit
        nll = 0.5 * np.log(2 * np.pi * scale**2) + (y - loc) ** 2 / (2 * scale**2)
        wanted = {
            "rmse": scores.Score(float(np.sqrt(((y - loc) ** 2).mean())), np.nan),
            "nll": scores.mean(nll),
            "coverage, 90%": scores.mean((np.abs(y - loc) < 1.6448536 * scale).astype(float)),
            "entropy, total": scores.mean(0.5 * np.log(2 * np.pi * np.e * scale**2)),
        }
    found = {score: row for (part, score), row in rows.items() if part == POSTERIOR_MEAN}
    assert list(found) == list(wanted)
    for score, (value, error) in wanted.items():
        assert found[score].value == pytest.approx(value, rel=1e-5), score
        assert np.isnan(error) or found[score].standard_error == pytest.approx(error, rel=1e-4, abs=1e-6), score
        assert np.isnan(found[score].monte_carlo_error)
        assert found[score].value != rows["test", score].value or score in ("accuracy", "coverage, 90%")


def test_batches_of_log_likelihoods_are_means_of_the_draws_and_cost_no_more_memory_than_batches() -> None:
    fitted, data = gaussian("classification", BayesByBackprop(), 45)
    kept = predict(fitted, data.x_test, data.y_test)
    streamed = predict(fitted, data.x_test, data.y_test, every_draw=False)
    assert isinstance(kept, ClassPredictive)
    assert isinstance(streamed, ClassPredictive)
    assert kept.log_likelihood is not None
    assert streamed.log_likelihood is None
    batch = np.arange(45) * 20 // 45
    wanted = np.stack([kept.log_likelihood[0, batch == b].mean(0) for b in range(20)])
    np.testing.assert_allclose(streamed.batch_log_likelihood, wanted, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(streamed.batch_probs, kept.batch_probs, rtol=1e-6)
    # Of one draw the board says that averaging gained nothing; of these the mixture is the better one, exactly by it.
    rows = named(
        _ClassScores(streamed, data.y_test).rows("test", {"nll", "nll, of single draws", "nll, gained by averaging"})
    )
    gained = rows["test", "nll, gained by averaging"]
    assert gained.value > 0
    assert rows["test", "nll"].value == pytest.approx(rows["test", "nll, of single draws"].value - gained.value)
