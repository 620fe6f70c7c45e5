"""The figures of a run, from its fits and their evaluations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import arviz as az
import numpy as np

from hmcvi import inference, plots
from hmcvi.inference import ClassPredictive, Fit, NormalPredictive, predict, scores

from .datasets import Dataset
from .evaluate import Evaluation, Row
from .ood import OODSet
from .shifts import LEVELS

__all__ = ["draw_figures"]

MOST_WEIGHTS = 1_000_000
"""Weights that a histogram is made of at most."""

GRID_ROWS = 200
"""Inputs at which the bands of a one-dimensional regression are drawn."""


def draw_figures(
    folder: Path,
    data: Dataset,
    foreign: Sequence[OODSet],
    fits: Mapping[str, Fit],
    evaluations: Mapping[str, Evaluation],
) -> list[Path]:
    """Draw every figure that suits the data, each as PNG and SVG, and return their paths.

    Arguments:
        folder: where to write.
        data: the data set.
        foreign: its OOD sets.
        fits: fits by method.
        evaluations: their evaluations by method.
    """
    paths: list[Path] = []

    def save(figure: object, name: str) -> None:
        paths.extend(plots.save(figure, folder / name))

    predictions = {name: evaluation.predictions for name, evaluation in evaluations.items()}
    classes = {name: p for name, p in predictions.items() if isinstance(p, ClassPredictive)}
    normals = {name: p for name, p in predictions.items() if isinstance(p, NormalPredictive)}
    if classes:
        save(plots.reliability({name: p.probs for name, p in classes.items()}, data.y_test), "reliability")
    if normals:
        save(plots.interval_coverage({name: _pit(p, data) for name, p in normals.items()}), "coverage")
        if data.x_train.shape[1:] == (1,):
            save(_bands(data, fits), "bands")
    curves = _severity_curves(evaluations, foreign, data.scored_on)
    shown = [data.scored_on, *(ood_set.name for ood_set in foreign if ood_set.shift not in curves)]
    uncertainty = {
        name: {part: evaluation.uncertainty[part] for part in shown} for name, evaluation in evaluations.items()
    }
    if len(next(iter(uncertainty.values()))) > 1:
        limit = np.log(data.num_classes) if data.num_classes else None
        save(plots.entropy_histograms(uncertainty, in_distribution=data.scored_on, max_entropy=limit), "entropy")
    trees = {name: az.from_dict({"posterior": dict(fit.draws)}) for name, fit in fits.items()}
    save(plots.forest(trees), "forest")
    for name, fit in fits.items():
        if fit.stats and fit.num_chains > 1:
            save(plots.rank(trees[name]), f"rank-{name}")
    for shift, methods in curves.items():
        save(plots.severity_curves(methods, shift=shift), f"shift-{shift}")
    kernels = {name: _kernels(fit) for name, fit in fits.items()}
    if all(kernels.values()):
        save(plots.weight_histograms(kernels), "weights")
    gaussian = {name: fit for name, fit in fits.items() if fit.scale is not None and kernels[name]}
    if gaussian:
        ratios = {name: inference.signal_to_noise(fit) for name, fit in gaussian.items()}
        save(
            plots.signal_to_noise(
                {name: {layer: of[f"{layer}.kernel"].ravel() for layer in kernels[name]} for name, of in ratios.items()}
            ),
            "signal-to-noise",
        )
    if classes and data.image_shape is not None:
        chosen = _from_sure_to_unsure(next(iter(evaluations.values())).uncertainty[data.scored_on])
        for name, fit in fits.items():
            if fit.num_chains * fit.num_draws == 1:
                continue  # one draw has no spread to hold an influence against
            save(_importance(fit, classes[name], data, chosen), f"importance-{name}")
    losses: dict[str, dict[str, np.ndarray]] = {}
    for name, fit in fits.items():
        if fit.losses is not None:
            losses.setdefault(fit.method.loss_name, {})[name] = fit.losses
    for quantity, traces in losses.items():
        stem = "loss" if quantity == "negative ELBO" else f"loss-{quantity.replace(' ', '-')}"
        save(plots.loss_curves(traces, quantity=quantity), stem)
    return paths


def _kernels(fit: Fit) -> dict[str, np.ndarray]:
    """Return draws of each layer's kernel (weight,), as many as a histogram needs."""
    kernels = {}
    for site, draws in fit.draws.items():
        layer, dot, part = site.rpartition(".")
        if dot and part == "kernel":
            size = int(np.prod(draws.shape[2:]))
            step = max(1, draws.shape[0] * draws.shape[1] * size // MOST_WEIGHTS)
            flat = np.asarray(draws[:, ::step]).ravel()
            kernels[layer] = flat[:: -(-len(flat) // MOST_WEIGHTS)]
    return kernels


def _from_sure_to_unsure(entropy: np.ndarray) -> np.ndarray:
    """Return the rows of the lowest, the middle, the 90 % and the highest entropy."""
    order = np.argsort(entropy, kind="stable")
    return order[[0, len(order) // 2, 9 * len(order) // 10, -1]]


def _importance(fit: Fit, predictions: ClassPredictive, data: Dataset, rows: np.ndarray) -> np.ndarray:
    """Draw which pixels the prediction of these test rows hangs on."""
    assert data.image_shape is not None
    shape = (len(rows), *data.image_shape)
    probs = predictions.probs[rows]
    found = inference.feature_importance(fit, data.x_test[rows], probs.argmax(1))
    names = data.class_names or tuple(map(str, range(probs.shape[1])))
    labels = [
        f"{names[y]}, predicted\n{names[p.argmax()]} at {p.max():.2f}"
        for y, p in zip(data.y_test[rows], probs, strict=True)
    ]
    images, mean, sd = (np.asarray(array).reshape(shape) for array in (data.x_test[rows], found.mean, found.sd))
    return plots.feature_importance(images, mean, sd, labels=labels)


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
    )
