"""Models that keep or break the contract in ways their authors would not notice."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers

from hmcvi.inference import NUTS, SVI, BayesByBackprop, fit, predict, to_datatree
from hmcvi.models import dense, gp, mlp

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
X = RNG.normal(size=(300, 3)).astype(np.float32)
LABELS = (X[:, 0] > 0).astype(int)
BRIEF = {"num_steps": 50, "num_draws": 20}


def bernoulli(x, y=None, *, num_rows=None):
    logits = dense("out", x, 1)[:, 0]
    with numpyro.plate("data", num_rows or len(x), subsample_size=len(x)):
        numpyro.sample("y", dist.Bernoulli(logits=logits), obs=y)


def test_a_model_that_passes_keywords_on_is_not_taken_for_one_that_conditions_on_training_rows() -> None:
    def passes_on(x, y=None, **keywords):
        return mlp(x, y, widths=(4,), num_classes=2, **keywords)

    result = fit(KEY, passes_on, X, LABELS, SVI(**BRIEF))
    assert result.rows_per_gradient == 300  # it names no num_rows: no minibatches on a guess
    assert predict(result, X[:7]).probs.shape == (7, 2)


def test_a_model_that_does_not_scale_its_likelihood_is_fitted_on_all_rows() -> None:
    def unscaled(x, y=None, *, num_rows=None):
        logits = dense("out", x, 2)
        with numpyro.plate("data", len(x)):
            numpyro.sample("y", dist.Categorical(logits=logits), obs=y)

    assert fit(KEY, unscaled, X, LABELS, BayesByBackprop(**BRIEF)).rows_per_gradient == 300
    with pytest.raises(ValueError, match="is scaled by 1 and not by 300/64"):
        fit(KEY, unscaled, X, LABELS, BayesByBackprop(batch_size=64, **BRIEF))


def test_bernoulli_labels_given_as_floats_are_labels() -> None:
    floats = LABELS.astype(np.float32)
    result = fit(KEY, bernoulli, X, floats, SVI(**BRIEF))
    tree = to_datatree(result, X[:50], floats[:50])
    assert set(np.unique(tree["posterior_predictive"]["y"])) <= {0, 1}
    given = predict(result, X[:50], floats[:50])
    np.testing.assert_allclose(tree["log_likelihood"]["y"].values, given.log_likelihood, rtol=1e-4, atol=1e-5)
    chosen = np.where(LABELS[:50] == 1, given.probs[:, 1], given.probs[:, 0])
    np.testing.assert_allclose(np.exp(given.log_likelihood).mean((0, 1)), chosen, rtol=1e-4)


def test_whole_number_targets_of_a_regression_are_targets() -> None:
    counts = np.round(3 * X[:, 0]).astype(int)
    model = lambda x, y=None, *, num_rows=None: mlp(x, y, widths=(4,), likelihood="normal", num_rows=num_rows)  # noqa: E731
    result = fit(KEY, model, X, counts, SVI(**BRIEF))
    tree = to_datatree(result, X[:9], counts[:9])
    given = predict(result, X[:9], counts[:9])
    np.testing.assert_allclose(tree["log_likelihood"]["y"].values, given.log_likelihood, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("bad", [-1, 2])
def test_labels_the_model_does_not_know_are_refused_at_prediction(bad: int) -> None:
    result = fit(KEY, bernoulli, X, LABELS, SVI(**BRIEF))
    with pytest.raises(ValueError, match="the model knows whole numbers from 0 to 1"):
        predict(result, X[:2], np.array([0, bad]))


def test_a_layer_with_a_known_bias_is_inferred_by_every_estimator() -> None:
    known = handlers.condition(bernoulli, {"out.bias": jnp.zeros(1)})
    result = fit(KEY, known, X, LABELS, BayesByBackprop(**{**BRIEF, "num_steps": 2000}, batch_size=300))
    assert set(result.draws) == {"out.kernel"}
    # The labels are the sign of the first input: its weight is far above 0, the others are not.
    weights = np.asarray(result.draws["out.kernel"]).mean((0, 1))[:, 0]
    assert weights[0] > 3 * np.abs(weights[1:]).max()


def test_discrete_sites_are_refused_by_name() -> None:
    def mixture(x, y=None):
        numpyro.sample("component", dist.Bernoulli(0.5))
        numpyro.sample("scale", dist.HalfNormal())
        numpyro.sample("y", dist.Normal(jnp.zeros(len(x))).to_event(1), obs=y)

    with pytest.raises(ValueError, match="site 'component' is discrete"):
        fit(KEY, mixture, X, X[:, 0], SVI(**BRIEF))


def test_svi_and_bayes_by_backprop_start_alike_and_see_the_same_minibatches() -> None:
    """From scales near 0 the two losses of the first steps differ by noise of that size only."""
    settings = {"num_steps": 20, "init_scale": 1e-6, "num_draws": 1, "batch_size": 32}
    one = fit(KEY, bernoulli, X, LABELS, SVI(**settings))
    other = fit(KEY, bernoulli, X, LABELS, BayesByBackprop("shared", **settings))
    np.testing.assert_allclose(one.losses, other.losses, rtol=1e-4)


def test_gp_classification_by_every_method_is_sure_where_it_has_seen_and_unsure_between() -> None:
    x = np.concatenate([np.linspace(-2, -1, 15), np.linspace(1, 2, 15)])[:, None].astype(np.float32)
    y = (x[:, 0] > 0).astype(int)
    model = partial(gp, likelihood="categorical", num_classes=2)
    methods = [NUTS(num_warmup=150, num_draws=150, num_chains=2), SVI(num_steps=3000), BayesByBackprop(num_steps=3000)]
    for method in methods:
        probs = predict(fit(KEY, model, x, y, method), np.array([[-1.5], [0.0], [1.5]], np.float32)).probs[:, 1]
        assert probs[0] < 0.15, method.name
        assert probs[2] > 0.85, method.name
        # By symmetry the truth is 1/2 between; 5 standard errors of 300 draws of a probability are at most 0.14.
        assert abs(probs[1] - 0.5) < 0.14, method.name
