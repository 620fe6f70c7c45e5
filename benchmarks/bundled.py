"""Data sets that need no network: scikit-learn's, and one that is generated."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .raw import Raw, Task

__all__ = ["BUNDLED"]


def _digits(seed: int) -> Raw:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return Raw(
        name="digits",
        x=bunch.images[..., None],
        y=bunch.target,
        task="classification",
        class_names=tuple(str(name) for name in bunch.target_names),
        brightness=16.0,
        description="1,797 8x8 grey images of handwritten digits (Alpaydin & Kaynak 1998, by scikit-learn).",
    )


def _table(name: str, task: Task, description: str) -> Callable[[int], Raw]:
    def read(seed: int) -> Raw:
        import sklearn.datasets

        # unscaled: scikit-learn's own scaling of diabetes has seen the test rows
        options = {"scaled": False} if name == "diabetes" else {}
        bunch = getattr(sklearn.datasets, f"load_{name}")(**options)
        return Raw(
            name=name,
            x=bunch.data,
            y=bunch.target,
            task=task,
            class_names=None if task == "regression" else tuple(str(label) for label in bunch.target_names),
            feature_names=tuple(str(feature) for feature in bunch.feature_names),
            description=description,
        )

    return read


def _curve(x: np.ndarray) -> np.ndarray:
    return np.cos(4 * x + 0.8)


def _wave(seed: int) -> Raw:
    """Two clusters of inputs, where an honest posterior widens in between (arXiv:1906.11537)."""
    generator = np.random.default_rng([seed, 3])
    # Test rows cost nothing here, so there are enough for the test score's own error not to matter.
    num_train, num_test = 100, 200
    left = generator.uniform(-1.0, -0.7, num_train + num_test)
    right = generator.uniform(0.5, 1.0, num_train + num_test)
    x = np.where(generator.random(num_train + num_test) < 0.5, left, right)
    noise = generator.normal(0.0, 0.1, num_train + num_test)
    low, high = -0.7, 0.5
    x = np.concatenate([x, generator.uniform(low, high, num_test)])  # in the gap: foreign, never trained on
    y = _curve(x) + np.concatenate([noise, generator.normal(0.0, 0.1, num_test)])
    return Raw(
        name="wave",
        x=x[:num_train, None],
        y=y[:num_train],
        x_test=x[num_train:, None],
        y_test=y[num_train:],
        task="regression",
        feature_names=("x",),
        gap=(0, low, high),
        curve=_curve,
        description="y = cos(4x + 0.8) + N(0, 0.1²), x in two clusters with a gap (after Foong et al. 2019).",
    )


# Each takes the seed, which only a generated set reads, and may import what it needs.
BUNDLED: dict[str, Callable[[int], Raw]] = {
    "digits": _digits,
    "breast_cancer": _table(
        "breast_cancer",
        "classification",
        "569 tumours, 30 measures of their cells, malignant or benign (UCI).",
    ),
    "wine": _table("wine", "classification", "178 Italian wines, 13 chemical measures, three growers (UCI)."),
    "diabetes": _table(
        "diabetes",
        "regression",
        "442 patients, 10 measures, progress of diabetes after a year (Efron et al. 2004).",
    ),
    "wave": _wave,
}
