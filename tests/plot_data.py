"""Synthetic fits to draw, in the sizes that a benchmark gives."""

import numpy as np

import hmcvi.plots as plots

METHODS = ("nuts", "svi", "bbb-local")
SETS = ("permuted", "held-out classes", "fashion_mnist", "rotated 90°", "noise")


def class_probs(num_rows=1000, num_classes=10):
    """A calibrated, an overconfident and an underconfident classifier on labels drawn from the first."""
    rng = np.random.default_rng(0)
    logits = 2.0 * rng.normal(size=(num_rows, num_classes))

    def softmax(z):
        return np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)

    y = np.array([rng.choice(num_classes, p=p) for p in softmax(logits)])
    return {m: softmax(s * logits) for m, s in zip(METHODS, (1.0, 1.6, 0.6), strict=True)}, y


def entropies(num_sets=3):
    rng = np.random.default_rng(1)
    return {
        method: {
            "test": 2.3 * rng.beta(0.2, 2, size=800),
            **{name: 2.3 * rng.beta(1 + place, 2, size=300) for place, name in enumerate(SETS[:num_sets])},
        }
        for method in METHODS
    }


def losses(num_steps=3000):
    rng = np.random.default_rng(2)
    step = np.arange(num_steps)
    return {
        m: 900 + 5 * place + 1e5 * np.exp(-step / 50) + rng.gamma(4, 10, size=num_steps)
        for place, m in enumerate((*METHODS, "bbb-shared"))
    }


def pit():
    rng = np.random.default_rng(3)
    return {m: rng.beta(a, a, size=300) for m, a in zip(METHODS, (1.0, 0.6, 1.7), strict=True)}


def bands():
    x = np.linspace(-2, 2, 101)
    return {
        m: plots.Band(x=x, mean=np.sin(x), epistemic_sd=s * np.abs(x), total_sd=s * np.abs(x) + 0.1)
        for m, s in zip(METHODS, (0.3, 0.1, 0.2), strict=True)
    }


def train_points():
    rng = np.random.default_rng(4)
    x = np.concatenate([rng.uniform(-1, -0.4, 30), rng.uniform(0.4, 1, 30)])
    return x, np.sin(x) + 0.1 * rng.normal(size=60)


def draw_bands(**kwargs):
    return plots.predictive_bands(bands(), *train_points(), **kwargs)
