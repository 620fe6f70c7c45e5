"""The figures of a run's predictions, and all figures of a run in their files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot as plt

from hmcvi import inference, plots
from hmcvi.inference import ClassPredictive, Fit, NormalPredictive, predict, predict_draws, scores
from hmcvi.inference.progress import Progress

from .datasets import Dataset
from .evaluate import Evaluation, Row, row_scores
from .figures_of_fits import fit_figures
from .ood import OODSet
from .shifts import LEVELS

__all__ = ["draw_figures"]

Named = Iterator[tuple[str, Callable[[], Any]]]
"""Stems of files, each with what draws its figure."""

GRID_ROWS = 200
"""Inputs at which the bands of a one-dimensional regression are drawn."""

MOST_INPUTS = 6
"""Inputs shown on either side of the most and the least certain ones."""


def draw_figures(
    folder: Path,
    data: Dataset,
    foreign: Sequence[OODSet],
    fits: Mapping[str, Fit],
    evaluations: Mapping[str, Evaluation],
    further: Mapping[str, Callable[[], Any]],
    progress: Progress,
) -> dict[str, str]:
    """Draw every figure that suits the data, each as PNG and SVG.

    Arguments:
        folder: where to write.
        data: the data set.
        foreign: its OOD sets.
        fits: fits by method.
        evaluations: their evaluations by method.
        further: what draws other figures, by the stem of their files.
        progress: told after every figure.

    Returns:
        By stem why a figure could not be drawn: a run of hours does not fail on a picture.
    """
    faults: dict[str, str] = {}
    figures = [
        *_calibration(data, evaluations),
        *_inputs(data, fits, evaluations),
        *_detection(data, foreign, evaluations),
        *fit_figures(fits, evaluations),
        *further.items(),
    ]
    for place, (stem, draw) in enumerate(figures, 1):
        for old in folder.glob(f"{stem}.*"):  # of an earlier version: a failure would leave them
            old.unlink()
        try:
            plots.save(draw(), folder / stem)
        except Exception as error:  # whatever a plotting library raises: the scores are yet to be printed
            faults[stem] = f"{type(error).__name__}: {error}"
            plt.close("all")
        progress.update(place, len(figures), "figures", stem)
    return faults


def _calibration(data: Dataset, evaluations: Mapping[str, Evaluation]) -> Named:
    """Do probabilities mean what they say?"""
    classes, normals = _classes(evaluations), _normals(evaluations)
    if classes:
        probs = {name: predictions.probs for name, predictions in classes.items()}
        yield "reliability", partial(plots.reliability, probs, data.y_test)
        yield "confidence", partial(plots.confidence_histograms, probs, data.y_test)
    if normals:
        pit = {name: _pit(predictions, data) for name, predictions in normals.items()}
        yield "coverage", partial(plots.interval_coverage, pit)
    score, label = ("accuracy", "error rate") if classes else ("squared error", "mean squared error (target's unit²)")
    losses = {name: row_scores(evaluation.predictions, data)[score] for name, evaluation in evaluations.items()}
    if classes:
        losses = {name: 1 - right for name, right in losses.items()}
    entropies = {name: evaluation.uncertainty["entropy"][data.scored_on] for name, evaluation in evaluations.items()}
    if any(of_method.any() for of_method in losses.values()):  # without an error there is none to reject
        yield "rejection", partial(plots.rejection_curves, entropies, losses, ylabel=label)


def _inputs(data: Dataset, fits: Mapping[str, Fit], evaluations: Mapping[str, Evaluation]) -> Named:
    """Predictions, input by input."""
    if _normals(evaluations) and data.x_train.shape[1:] == (1,):
        yield "bands", lambda: _bands(data, fits)
    classes = _classes(evaluations)
    if not classes:
        return
    entropies = {name: evaluation.uncertainty["entropy"][data.scored_on] for name, evaluation in evaluations.items()}
    first = next(iter(evaluations))
    chosen = _from_sure_to_unsure(entropies[first])
    yield "probabilities", lambda: _probabilities(data, fits, first, classes[first], chosen)
    if data.image_shape is None:
        return
    number = min(MOST_INPUTS, len(data.x_test))
    orders = [np.argsort(entropy, kind="stable") for entropy in entropies.values()]
    ends = np.unique(np.concatenate([part for order in orders for part in (order[:number], order[-number:])]))
    images = data.x_test[ends].reshape(len(ends), *data.image_shape)  # of tens of thousands no more than are shown
    names = _class_names(data, classes[first])
    labels = [names[label] for label in data.y_test[ends]]
    of_ends = {name: entropy[ends] for name, entropy in entropies.items()}
    yield "certain", partial(plots.certain_inputs, images, of_ends, labels=labels, num_inputs=number)
    for name, fit in fits.items():
        if fit.num_chains * fit.num_draws > 1:  # one draw has no spread to hold an influence against
            yield f"importance-{name}", partial(_importance, fit, classes[name], data, chosen)


def _detection(data: Dataset, foreign: Sequence[OODSet], evaluations: Mapping[str, Evaluation]) -> Named:
    """Does it know what it does not know?"""
    inside = data.scored_on
    curves = _severity_curves(evaluations, foreign, inside)
    shown = [inside, *(ood_set.name for ood_set in foreign if ood_set.shift not in curves)]
    if len(shown) > 1:
        limit = np.log(data.num_classes) if data.num_classes else None
        for measure, stem in (("entropy", "entropy"), ("mutual information", "mutual-information")):
            found = {
                name: {part: evaluation.uncertainty[measure][part] for part in shown}
                for name, evaluation in evaluations.items()
                if measure == "entropy" or evaluation.num_draws > 1
            }
            if not found:
                continue
            label = f"{'predictive ' if measure == 'entropy' else ''}{measure} (nats)"
            limits = {"max_entropy": limit} if measure == "entropy" else {}
            yield stem, partial(plots.entropy_histograms, found, in_distribution=inside, xlabel=label, **limits)
            if measure == "entropy":
                yield "roc", partial(plots.roc, found, in_distribution=inside)
    for shift, methods in curves.items():
        yield f"shift-{shift}", partial(plots.severity_curves, methods, shift=shift)


def _classes(evaluations: Mapping[str, Evaluation]) -> dict[str, ClassPredictive]:
    return {name: e.predictions for name, e in evaluations.items() if isinstance(e.predictions, ClassPredictive)}


def _normals(evaluations: Mapping[str, Evaluation]) -> dict[str, NormalPredictive]:
    return {name: e.predictions for name, e in evaluations.items() if isinstance(e.predictions, NormalPredictive)}


def _class_names(data: Dataset, predictions: ClassPredictive) -> Sequence[str]:
    return data.class_names or tuple(map(str, range(predictions.probs.shape[1])))


def _from_sure_to_unsure(entropy: np.ndarray) -> np.ndarray:
    """Return the rows of the lowest, the middle, the 90 % and the highest entropy."""
    order = np.argsort(entropy, kind="stable")
    return order[[0, len(order) // 2, 9 * len(order) // 10, -1]]


def _labels(data: Dataset, predictions: ClassPredictive, rows: np.ndarray) -> list[str]:
    """Return for each row its class and its prediction."""
    names = _class_names(data, predictions)
    return [
        f"{names[y]}, predicted\n{names[p.argmax()]} at {p.max():.2f}"
        for y, p in zip(data.y_test[rows], predictions.probs[rows], strict=True)
    ]


def _probabilities(
    data: Dataset, fits: Mapping[str, Fit], first: str, predictions: ClassPredictive, rows: np.ndarray
) -> np.ndarray:
    """Draw class probabilities of these rows with intervals over draws, labelled by what the first method predicts."""
    draws = {name: predict_draws(fit, data.x_test[rows]) for name, fit in fits.items()}
    by = f" by {first}" if len(fits) > 1 else ""
    labels = [f"{label.replace('\n', ' ')}{by}" for label in _labels(data, predictions, rows)]
    if data.image_shape is None:
        images, labels = None, [f"test row {row}: {label}" for row, label in zip(rows, labels, strict=True)]
    else:
        images = data.x_test[rows].reshape(len(rows), *data.image_shape)
    return plots.class_probabilities(
        {name: of.reshape(-1, *of.shape[2:]) for name, of in draws.items()},
        images=images,
        labels=labels,
        class_names=_class_names(data, predictions),
    )


def _importance(fit: Fit, predictions: ClassPredictive, data: Dataset, rows: np.ndarray) -> np.ndarray:
    """Draw which pixels the prediction of these test rows hangs on."""
    assert data.image_shape is not None
    shape = (len(rows), *data.image_shape)
    found = inference.feature_importance(fit, data.x_test[rows], predictions.probs[rows].argmax(1))
    images, mean, sd = (np.asarray(array).reshape(shape) for array in (data.x_test[rows], found.mean, found.sd))
    return plots.feature_importance(images, mean, sd, labels=_labels(data, predictions, rows))


def _severity_curves(
    evaluations: Mapping[str, Evaluation], foreign: Sequence[OODSet], inside: str
) -> dict[str, dict[str, dict[str, dict[str, np.ndarray]]]]:
    """Return scores against severity, shift -> method -> score -> arrays (level,), the unshifted rows as level 0.

    A change that was asked for at a few severities only has no curve.
    """
    shifts: dict[str, list[tuple[int, str]]] = {}
    for ood_set in foreign:
        if ood_set.shift is not None and ood_set.level is not None:
            shifts.setdefault(ood_set.shift, [(0, inside)]).append((ood_set.level, ood_set.name))
    curves: dict[str, dict[str, dict[str, dict[str, np.ndarray]]]] = {}
    for shift, levels in shifts.items():
        if len(levels) <= len(LEVELS):
            continue
        for name, evaluation in evaluations.items():
            rows = {(row.set, row.score): row for row in evaluation.rows}
            # where labels do not survive the shift there is only the entropy, which every set has as a mean
            common = [score for part, score in rows if part == levels[-1][1] and (inside, score) in rows]
            wanted = {score: score for score in common} or {"entropy, total": "mean entropy"}
            curves.setdefault(shift, {})[name] = {
                score: _curve(
                    [(level, rows[part, score if part == inside else foreign_score]) for level, part in levels]
                )
                for score, foreign_score in wanted.items()
            }
    return curves


def _curve(points: Sequence[tuple[int, Row]]) -> dict[str, np.ndarray]:
    return {
        "severity": np.array([level for level, _ in points]),
        "value": np.array([row.value for _, row in points]),
        "standard_error": np.array([row.standard_error for _, row in points]),
    }


def _pit(predictions: NormalPredictive, data: Dataset) -> np.ndarray:
    rows = predictions.loc.shape[-1]
    return scores.pit(predictions.loc.reshape(-1, rows), predictions.scale.reshape(-1, rows), data.y_test)


def _bands(data: Dataset, fits: Mapping[str, Fit]) -> np.ndarray:
    """Draw the bands over the training range and a third of it on either side, in the data's own units."""
    low, high = data.x_train.min(), data.x_train.max()
    grid = np.linspace(low - (high - low) / 3, high + (high - low) / 3, GRID_ROWS, dtype=np.float32)
    x = grid * data.feature_scale + data.feature_loc
    bands = {}
    for name, fit in fits.items():
        predictions = predict(fit, grid[:, None])
        assert isinstance(predictions, NormalPredictive)
        bands[name] = plots.Band(
            x=x,
            mean=predictions.mean * data.target_scale + data.target_loc,
            epistemic_sd=predictions.epistemic_sd * data.target_scale,
            total_sd=predictions.total_sd * data.target_scale,
        )
    return plots.predictive_bands(
        bands,
        data.x_train[:, 0] * data.feature_scale + data.feature_loc,
        data.y_train * data.target_scale + data.target_loc,
        truth=None if data.curve is None else (x, data.curve(x)),
    )
