"""Several draws in one step give the numbers of one at a time, in memory that does not grow with draws or rows."""

from functools import partial

import jax
import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from hmcvi.inference import predict, predict_draws
from hmcvi.inference.draw_steps import MOST_DRAWS, batch_steps
from hmcvi.inference.predict import _batches, _outcome
from hmcvi.models import cnn, gp, mlp

from .test_predict import LABELS, NUMBERS, ROWS, X, classifier, forward, made, network, regressor

PROCESS = {"lengthscale": np.ones((1, 2, 3)), "amplitude": np.ones((1, 2)), "noise_scale": np.ones((1, 2))}


@pytest.mark.parametrize(("chains", "draws"), [(4, 1000), (1, 999), (3, 40), (3, 7), (1, 1), (40, 5)])
@pytest.mark.parametrize("most", [1, 4, 32])
def test_steps_count_every_draw_of_a_batch_once_and_no_other(chains, draws, most):
    sizes = np.bincount(_batches(chains, draws).ravel())
    first, counted = batch_steps(sizes, most)
    assert counted.shape[-1] <= most
    taken = first[..., None] + np.arange(counted.shape[-1])
    ends = np.cumsum(sizes)
    for batch, size in enumerate(sizes):
        assert taken[batch].min() >= ends[batch] - size
        assert taken[batch].max() < ends[batch]
        # In order: log-likelihoods are told apart by their place.
        np.testing.assert_array_equal(taken[batch][counted[batch]], np.arange(ends[batch] - size, ends[batch]))


def steps_of(result, x):
    return _outcome(result, jax.numpy.asarray(x)).draws_per_step


def test_batches_that_are_no_whole_number_of_steps_are_predicted_draw_by_draw_the_same():
    draws = network(chains=3, draws=40)  # 18 batches of six draws or seven, in two steps of four
    result = made(classifier, draws)
    assert steps_of(result, X) > 4
    prediction = predict(result, X, LABELS)
    assert sorted(set(prediction.batch_size)) == [6, 7]
    logits = forward(draws, X)
    probs = softmax(logits, axis=-1)
    np.testing.assert_allclose(prediction.probs, probs.mean((0, 1)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(prediction.batch_probs[7], probs[1, 7:14].mean(0), rtol=1e-4, atol=1e-6)
    entropy = -(probs * log_softmax(logits, axis=-1)).sum(-1)
    np.testing.assert_allclose(prediction.aleatoric_entropy, entropy.mean((0, 1)), rtol=1e-4, atol=1e-6)
    chosen = log_softmax(logits, axis=-1)[..., np.arange(ROWS), LABELS]
    np.testing.assert_allclose(prediction.log_likelihood, chosen, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(predict_draws(result, X), probs, rtol=1e-4, atol=1e-6)


def test_only_what_gains_takes_several_draws_a_step():
    """A convolution with a kernel for each draw and a factorisation for each go one by one, as they did."""
    assert steps_of(made(classifier, network()), X) == MOST_DRAWS
    noise = {"noise_scale": np.ones((2, 30))}
    assert steps_of(made(regressor, network(1) | noise, y=NUMBERS), X) == MOST_DRAWS
    wide = {"out.kernel": np.zeros((1, 2, 3, 100)), "out.bias": np.zeros((1, 2, 100))}
    assert steps_of(made(partial(mlp, widths=(), num_classes=100), wide), X) == 5
    assert steps_of(made(gp, PROCESS, y=NUMBERS), X) == 1
    images = np.zeros((4, 8, 8, 1), np.float32)
    shapes = {"conv_0.kernel": (3, 3, 1, 2), "conv_0.bias": (2,), "out.kernel": (32, 3), "out.bias": (3,)}
    convolution = partial(cnn, channels=(2,), widths=(), num_classes=3)
    draws = {site: np.zeros((1, 2, *shape)) for site, shape in shapes.items()}
    assert steps_of(made(convolution, draws, images, np.zeros(4, int)), images) == 1


def working_memory(monkeypatch, call):
    """Bytes of working memory of the programs that are compiled in a call."""
    found = []
    original = jax.stages.Compiled.memory_analysis

    def noting(self):
        found.append(original(self).temp_size_in_bytes)
        return original(self)

    with monkeypatch.context() as patched:
        patched.setattr(jax.stages.Compiled, "memory_analysis", noting)
        call()
    return found


def test_working_memory_does_not_grow_with_draws(monkeypatch):
    few, many = (made(classifier, network(chains=4, draws=draws)) for draws in (640, 2560))  # both in steps of 32
    (of_few,) = working_memory(monkeypatch, lambda: predict(few, X))
    (of_many,) = working_memory(monkeypatch, lambda: predict(many, X))
    assert of_few > 0
    copied = 4 * 3 * 640 * sum(value[0, 0].size for value in network().values())  # were the draws copied once
    assert of_many - of_few < copied / 10


@pytest.mark.parametrize(
    ("bounds", "result"),
    [
        ({"MOST_ROWS": 9, "MOST_ROWS_OF_STACKED": 25}, made(classifier, network())),
        ({"MOST_ROWS": 25, "MOST_BYTES_OF_STACKED": 24 * X[:1].nbytes}, made(classifier, network())),
        ({"MOST_ROWS": 25}, made(classifier, {site: draws[:1, :1] for site, draws in network().items()})),
        ({"MOST_ROWS": 25}, made(gp, PROCESS, y=NUMBERS)),
    ],
    ids=["several draws", "wide rows", "one draw", "draws one by one"],
)
def test_working_memory_does_not_grow_with_rows(monkeypatch, bounds, result):
    for name, value in bounds.items():
        monkeypatch.setitem(predict.__globals__, name, value)
    assert len(working_memory(monkeypatch, lambda: predict(result, X[:25]))) == 1
    # Twice the rows are two chunks by the same program: nothing is compiled, and one chunk is worked on at a time.
    assert working_memory(monkeypatch, lambda: predict(result, X)) == []
