"""Probabilities, labels and Normals that the tests of scores draw on."""

import numpy as np
from scipy.special import softmax

NUM_ROWS, NUM_CLASSES, NUM_DRAWS = 400, 4, 7


def classification(seed=0, rows=NUM_ROWS, classes=NUM_CLASSES):
    rng = np.random.default_rng(seed)
    return softmax(rng.normal(size=(rows, classes)), axis=1), rng.integers(classes, size=rows)


def detection(seed=0, rows_in=NUM_ROWS, rows_out=300, shift=1.0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=rows_in), rng.normal(shift, size=rows_out)


def normals(seed=0, rows=NUM_ROWS, draws=NUM_DRAWS):
    rng = np.random.default_rng(seed)
    loc, scale = rng.normal(size=(draws, rows)), rng.uniform(0.5, 2.0, size=(draws, rows))
    return loc, scale, rng.normal(size=rows)


def two_class(confidence):
    """Probabilities whose top label is class 1 at these confidences (all at least 0.5)."""
    confidence = np.asarray(confidence, dtype=float)
    return np.stack([1 - confidence, confidence], axis=1)
