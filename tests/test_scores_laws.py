"""What holds of every score: order and kind of rows do not matter, annotations are true, bad input is refused."""

import inspect

import beartype
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hmcvi.inference import (
    calibration,
    decomposition,
    distance,
    moments,
    regression,
    resampling,
    score_base,
    scores,
    selective,
)

from .score_data import NUM_ROWS, classification, detection, normals, two_class


def calls():
    """Arguments of every function, by its name."""
    probs, y = classification()
    in_, out = detection(rows_out=NUM_ROWS)
    loc, scale, target = normals()
    draw_probs = np.stack([classification(seed)[0] for seed in range(3)])
    by_label = (
        "row_accuracy accuracy row_negative_log_likelihood negative_log_likelihood row_brier brier ece"
        " reliability_curve signed_calibration_error maximum_calibration_error class_wise_ece temperature_scaling"
    )
    wrong = (y != probs.argmax(axis=1)).astype(float)
    return {
        **dict.fromkeys(by_label.split(), (probs, y)),
        **dict.fromkeys(("entropy", "ece_null"), (probs,)),
        "entropy_decomposition": (draw_probs,),
        **dict.fromkeys(("auroc", "aupr", "fpr95", "ood"), (in_, out)),
        **dict.fromkeys(("risk_coverage", "aurc"), (scores.entropy(probs), wrong)),
        "risk_at_coverage": (scores.entropy(probs), wrong, 0.8),
        **dict.fromkeys(
            [f"{row}{name}" for row in ("", "row_") for name in ("agreement", "total_variation", "jensen_shannon")],
            (probs, classification(1)[0]),
        ),
        **dict.fromkeys(("wasserstein2", "row_wasserstein2"), (loc, scale, loc + 1, scale)),
        "averaging_gain": (in_, in_ - out**2),
        "mean": (in_,),
        "paired_difference": (in_, out),
        "rmse": (loc, target),
        **dict.fromkeys(
            ("row_log_likelihood", "log_likelihood", "row_crps", "crps", "pit", "pit_distance", "coverage"),
            (loc, scale, target),
        ),
        **dict.fromkeys(("interval", "interval_width", "normal_entropy"), (loc, scale)),
    }


ROW_AXIS = dict.fromkeys(("loc", "scale", "draw_probs", "loc_a", "scale_a", "loc_b", "scale_b"), 1)
SCORES = sorted(
    name
    for name in calls()
    if inspect.signature(getattr(scores, name)).return_annotation is scores.Score
    or name in ("ood", "temperature_scaling")
)


def flatten(result):
    if isinstance(result, scores.ReliabilityCurve | scores.RiskCoverage):
        return list(vars(result).values())
    if isinstance(result, scores.TemperatureScaling):
        return [number for score in vars(result).values() for number in score]
    if isinstance(result, dict):
        return [number for score in result.values() for number in score]
    return list(result) if isinstance(result, tuple) else [result]


TYPES = {name for name in scores.__all__ if name[0].isupper()}
# Of other arguments than one array for each row: see test_distance, test_paired, test_decomposition.
ELSEWHERE = {
    "batch_replicates",
    "bootstrap_interval",
    "jackknife",
    "moment_errors",
    "paired_bootstrap",
    "pit_distance_null",
    "row_interval_width_under",
}


def test_the_table_of_calls_is_complete():
    assert set(calls()) | TYPES | ELSEWHERE == set(scores.__all__)
    assert {"Score", "ReliabilityCurve", "RiskCoverage"} < TYPES


@pytest.mark.parametrize("name", SCORES)
@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_a_score_and_its_error_do_not_depend_on_the_order_of_rows(name, seed):
    function, arguments = getattr(scores, name), calls()[name]
    order = np.random.default_rng(seed).permutation(NUM_ROWS)
    shuffled = [
        values if np.ndim(values) == 0 else np.take(values, order, axis=ROW_AXIS.get(parameter, 0))
        for parameter, values in zip(inspect.signature(function).parameters, arguments, strict=False)
    ]
    assert flatten(function(*shuffled)) == pytest.approx(flatten(function(*arguments)))


@pytest.mark.parametrize("name", ["ece", "ece_null"])
def test_mass_bins_do_not_depend_on_the_order_of_tied_rows(name):
    probs, y = classification()
    probs = two_class(np.round(probs.max(axis=1) / 2 + 0.5, 1))
    arguments = (probs, np.minimum(y, 1)) if name == "ece" else (probs,)
    function = getattr(scores, name)
    backward = [values[::-1] for values in arguments]
    assert function(*arguments, bins="mass") == pytest.approx(function(*backward, bins="mass"))


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(-5, 5), min_size=2, max_size=20), st.lists(st.integers(-5, 5), min_size=2))
def test_detection_only_sees_the_order_of_scores(in_, out):
    in_, out = np.array(in_, dtype=float), np.array(out, dtype=float)
    assert scores.ood(in_, out) == scores.ood(np.exp(in_), np.exp(out))
    # Exchanging the roles exchanges the two sides of every pair.
    assert scores.auroc(in_, out) == pytest.approx(np.array(scores.auroc(-in_, -out)) * [-1, 1] + [1, 0])


@pytest.mark.parametrize("kind", ["numpy64", "numpy32", "jax"])
@pytest.mark.parametrize("name", sorted(calls()))
def test_the_annotations_hold_and_the_kind_of_array_does_not_matter(name, kind):
    convert = {
        "numpy64": lambda a: a,
        "numpy32": to_float32,
        "jax": lambda a: jnp.asarray(to_float32(a)) if np.ndim(a) else a,
    }[kind]
    typed = jaxtyping.jaxtyped(typechecker=beartype.beartype)(getattr(scores, name))
    arguments = calls()[name]
    # float32 could round a confidence over a bin's edge: none of these rows is that close.
    for found, wanted in zip(
        flatten(typed(*map(convert, arguments))), flatten(getattr(scores, name)(*arguments)), strict=True
    ):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6)
        assert np.asarray(found).dtype.itemsize == 8


def to_float32(array):
    if np.ndim(array) == 0:
        return array
    return array.astype(np.float32) if array.dtype.kind == "f" else array.astype(np.int32)


# --- bad input

PROBS = np.full((3, 10), 0.1)
Y = np.array([0, 9, 5])
LOC, SCALE, TARGET = np.zeros((2, 3)), np.ones((2, 3)), np.zeros(3)
WITH_NAN = np.array([0.0, np.nan])

BAD_LABELS = {
    r"labels reach 10 but probs has 10 classes \(labels run from 0 to 9\): fit with num_classes=11": (
        PROBS,
        np.array([0, 10, 5]),
    ),
    r"labels go down to -1 but probs has 10 classes \(labels run from 0 to 9\): relabel from 0": (
        PROBS,
        np.array([0, -1, 5]),
    ),
    r"y has shape \(3, 1\) but should be \(row,\): pass y\[:, 0\]": (PROBS, Y[:, None]),
    r"y has dtype float64 but labels should be integers: pass y.astype\(int\)": (PROBS, Y.astype(float)),
    "probs has 3 rows but y has 2: pass the same rows": (PROBS, Y[:2]),
    r"y has shape \(0,\) but no axis of \(row,\) may be 0: give at least one row": (PROBS, Y[:0]),
}
BAD_PROBS = {
    r"probs has shape \(10,\) but should be \(row, class\): reshape it": PROBS[0],
    r"probs has shape \(0, 10\) but no axis of \(row, class\) may be 0: give at least one row": PROBS[:0],
    "probs has 1 of 2 values NaN or infinite but every value should be a number": WITH_NAN[None],
    r"probs go down to -2 but should lie in \[0, 1\]: pass probabilities, not logits": np.array([[-2.0, 3.0]]),
    "probs of row 1 sum to 0.9 but should sum to 1 within 0.0001: normalise": np.array([[0.5, 0.5], [0.5, 0.4]]),
}
BY_LABEL = [name for name, arguments in calls().items() if arguments[0].ndim == 2 and arguments[-1].dtype.kind == "i"]


@pytest.mark.parametrize("message", BAD_LABELS)
@pytest.mark.parametrize("name", BY_LABEL)
def test_bad_labels(name, message):
    with pytest.raises(ValueError, match=message):
        getattr(scores, name)(*BAD_LABELS[message])


@pytest.mark.parametrize("message", BAD_PROBS)
@pytest.mark.parametrize("name", [*BY_LABEL, "entropy", "ece_null"])
def test_bad_probs(name, message):
    probs = BAD_PROBS[message]
    with pytest.raises(ValueError, match=message):
        getattr(scores, name)(*([probs, Y] if name in BY_LABEL else [probs]))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: scores.entropy_decomposition(PROBS),
            r"draw_probs has shape \(3, 10\) but should be \(draw, row",
        ),
        (
            lambda: scores.entropy_decomposition(PROBS[None] * 2),
            "probs of row 0 sum to 2 but should sum to 1",
        ),
        (
            lambda: scores.entropy_decomposition(PROBS[None, :0]),
            "with none of them 0: keep the axis of draws",
        ),
        (lambda: scores.ece(PROBS, Y, bins="depth"), 'bins is \'depth\' but should be "width" or "mass"'),
        (lambda: scores.ece(PROBS, Y, num_bins=0), "num_bins is 0 but should be at least 1: pass num_bins=1"),
        (lambda: scores.ece(PROBS, Y, num_bootstrap=1), "num_bootstrap is 1 but should be at least 2"),
        (lambda: scores.ece_null(PROBS, num_simulations=1), "num_simulations is 1 but should be at least 2"),
        (lambda: scores.reliability_curve(PROBS, Y, 0), "num_bins is 0 but should be at least 1"),
        (lambda: scores.mean(WITH_NAN), "values has 1 of 2 values NaN but every value should be a number"),
        (lambda: scores.mean(TARGET[:0]), r"values has shape \(0,\) but no axis of \(row,\) may be 0"),
        (
            lambda: scores.paired_difference(TARGET, TARGET[:2]),
            "values_a has 3 rows but values_b has 2: pass the",
        ),
        (lambda: scores.auroc(WITH_NAN, TARGET), "scores_in has 1 of 2 values NaN but"),
        (lambda: scores.aupr(TARGET, WITH_NAN), "scores_out has 1 of 2 values NaN but"),
        (lambda: scores.fpr95(TARGET, TARGET[:0]), r"scores_out has shape \(0,\) but no axis"),
        (
            lambda: scores.ood(TARGET[:, None], TARGET),
            r"scores_in has shape \(3, 1\) but .*: pass scores_in\[:, 0\]",
        ),
        (
            lambda: scores.rmse(TARGET, TARGET),
            r"loc has shape \(3,\) but should be \(draw, row\): reshape it",
        ),
        (
            lambda: scores.rmse(LOC, TARGET[:, None]),
            r"y has shape \(3, 1\) but should be \(row,\): pass y\[:, 0\]",
        ),
        (lambda: scores.rmse(LOC, TARGET[:2]), "loc has 3 rows but y has 2: pass the same rows"),
        (
            lambda: scores.pit(LOC, SCALE[:1], TARGET),
            r"loc has shape \(2, 3\) but scale has \(1, 3\): pass both as",
        ),
        (
            lambda: scores.log_likelihood(LOC, LOC, TARGET),
            "scale goes down to 0 but should be positive: pass sta",
        ),
        (
            lambda: scores.log_likelihood(LOC, SCALE * np.nan, TARGET),
            "scale has 6 of 6 values NaN or infinite",
        ),
        (lambda: scores.coverage(LOC, SCALE, TARGET[:2]), "loc has 3 rows but y has 2: pass the same rows"),
        (
            lambda: scores.coverage(LOC, SCALE, TARGET, level=90),
            "level is 90 but should be between 0 and 1: pass",
        ),
        (lambda: scores.interval(LOC, SCALE, 1.0), "level is 1.0 but should be between 0 and 1: pass 0.9"),
        (lambda: scores.interval_width(LOC, -SCALE, 0.9), "scale goes down to -1 but should be positive"),
        (
            lambda: scores.normal_entropy(LOC, SCALE[:, :2]),
            r"but scale has \(2, 2\): pass both as \(draw, row\)",
        ),
        (lambda: scores.aurc(TARGET, TARGET[:2]), "uncertainty has 3 rows but losses has 2"),
        (lambda: scores.risk_at_coverage(TARGET, TARGET, 0), "coverage is 0 but should be above 0 and at most 1"),
        (lambda: scores.risk_at_coverage(TARGET, TARGET, 1.1), "coverage is 1.1 but should be above 0"),
        (lambda: scores.risk_coverage(TARGET, WITH_NAN), "losses has 1 of 2 values NaN"),
        (lambda: scores.jackknife(float, 0), "num_batches is 0 but should be at least 1"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_public_names_come_from_their_rooms():
    for module in (calibration, decomposition, distance, moments, regression, resampling, selective):
        assert set(module.__all__) <= set(scores.__all__)
    assert set(score_base.__all__) <= set(scores.__all__)
