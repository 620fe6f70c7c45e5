"""PSIS-LOO: against leaving rows out in closed form, against ArviZ itself, and where it must not be believed."""

from __future__ import annotations

import dataclasses
from functools import partial

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from hmcvi.benchmarks.loo import BAD_ROWS, ELPD, compare_methods, loo_rows, score_training_rows
from hmcvi.inference import MAP, SVI, BayesByBackprop, Fit, Method
from hmcvi.inference.loo import compare_loo, from_log_likelihood, leave_one_out, why_no_loo
from hmcvi.models import gp

from .targets import NOISE_SCALE, ConjugateRegression, conjugate_regression, linear_regression

TARGET = conjugate_regression()


def fitted(method: Method, num_draws: int = 1000, target: ConjugateRegression = TARGET) -> Fit:
    """Draws of the exact posterior of a linear regression, as if the method had made them."""
    random = np.random.default_rng(0)
    draws = random.multivariate_normal(target.mean, target.covariance, size=(1, num_draws))[..., None]
    return Fit(
        model=linear_regression,
        method=method,
        x=jnp.asarray(target.x, jnp.float32),
        y=jnp.asarray(target.y, jnp.float32),
        key=jax.random.key(0),
        draws={"out.kernel": draws.astype(np.float32)},
        num_gradients=0,
        rows_per_gradient=0,
        run_seconds=0.0,
        losses=np.zeros(1),
        finished=True,
    )


def left_out_densities(target: ConjugateRegression) -> np.ndarray:
    """log p(y_i | the other rows) (row,), each posterior without a row in closed form."""
    rows = np.arange(len(target.y))
    found = []
    for row in rows:
        rest = ConjugateRegression(target.x[rows != row], target.y[rows != row])
        x = target.x[row]
        scale = np.sqrt(NOISE_SCALE**2 + x @ rest.covariance @ x)
        found.append(stats.norm.logpdf(target.y[row], x @ rest.mean, scale))
    return np.array(found)


@pytest.fixture(scope="module")
def exact() -> Fit:
    return fitted(SVI(), 2000)


def test_it_is_what_leaving_each_row_out_gives(exact: Fit) -> None:
    found = leave_one_out(exact)
    wanted = left_out_densities(TARGET)
    assert found.num_bad == 0
    assert found.allowed
    # 2,000 draws know a row's log density to a few hundredths; all 40 together to a tenth of that.
    np.testing.assert_allclose(found.result.elpd_i.values, wanted, atol=0.1)
    assert found.per_row.value == pytest.approx(wanted.mean(), abs=0.01)
    assert found.per_row.standard_error == pytest.approx(wanted.std() / np.sqrt(40), rel=0.05)
    in_halves = leave_one_out(exact, unit=2.0).per_row  # a density per unit of a target twice as wide
    assert in_halves.value == pytest.approx(found.per_row.value - np.log(2))
    rows = {row.score: row for row in loo_rows(found)}
    assert (rows[ELPD].value, rows[ELPD].standard_error) == found.per_row
    assert rows[BAD_ROWS].value == 0


def test_outliers_that_the_draws_cannot_leave_out_forbid_the_number() -> None:
    y = TARGET.y.copy()
    y[:3] += 25
    found = leave_one_out(fitted(SVI(), 500, ConjugateRegression(TARGET.x, y)))
    assert found.num_bad >= 1  # of 40 rows, more than one in a hundred
    assert not found.allowed
    assert np.isnan(found.per_row).all()
    assert {row.score: row.value for row in loo_rows(found)}[BAD_ROWS] == found.num_bad


def test_the_tables_are_those_of_arviz(exact: Fit) -> None:
    other = fitted(BayesByBackprop(), 1000)
    found, reasons = score_training_rows({"svi": exact, "bbb": other, "map": fitted(MAP(), 1)})
    assert list(found) == ["svi", "bbb"]
    assert reasons == {"map": "one draw is no posterior"}
    table = compare_methods({3: found})
    wanted = az.compare({name: one.result for name, one in found.items()}, round_to="none")
    assert table["method"].tolist() == wanted.index.tolist()
    np.testing.assert_array_equal(table["elpd_diff"], wanted["elpd_diff"])
    assert set(table["seed"]) == {3}
    assert compare_methods({0: {}}) is None
    with pytest.raises(ValueError, match="fitted to the same rows"):
        compare_loo({"a": found["svi"], "b": from_log_likelihood(np.zeros((1, 200, 3)), chains=False)})


def test_chains_that_remember_count_for_less_than_their_draws() -> None:
    random = np.random.default_rng(0)
    walk = np.zeros((4, 500, 1))
    for draw in range(1, 500):
        walk[:, draw] = 0.95 * walk[:, draw - 1] + random.normal(size=(4, 1))
    log_likelihood = stats.norm.logpdf(random.normal(size=12), 0.3 * walk, 2)
    as_chains, as_draws = (from_log_likelihood(log_likelihood, chains=chains) for chains in (True, False))
    # Fewer effective draws, a longer tail to smooth: another elpd of the same numbers.
    assert as_chains.result.elpd != as_draws.result.elpd
    assert as_chains.result.elpd == pytest.approx(as_draws.result.elpd, abs=0.05)


def test_it_is_arviz_s_own_where_arviz_has_an_answer_and_rows_without_a_tail_are_told_apart() -> None:
    random = np.random.default_rng(1)
    values = -np.abs(random.normal(size=(2, 300, 6)))
    plain = az.loo(az.from_dict({"log_likelihood": {"y": values}}), pointwise=True, reff=1.0)
    found = from_log_likelihood(values, chains=False)
    np.testing.assert_allclose(found.result.elpd_i, plain.elpd_i)
    np.testing.assert_allclose(found.result.pareto_k, plain.pareto_k)
    values[..., 0] = -0.25  # the same under every draw: its own density, left out or not
    values[:, ::2, 1] = np.log(np.finfo(np.float32).tiny)  # half of the draws ruled it out
    found = from_log_likelihood(values, chains=False)
    assert found.result.elpd_i.values[0] == pytest.approx(-0.25)
    assert found.result.pareto_k.values[:2].tolist() == [-np.inf, np.inf]
    np.testing.assert_allclose(found.result.elpd_i.values[2:], plain.elpd_i.values[2:])
    assert found.num_bad == 1


def with_method(method: Method) -> Fit:
    return dataclasses.replace(fitted(SVI(), 200), method=method)


@pytest.mark.parametrize(
    ("fit", "reason"),
    [
        (lambda: fitted(MAP(), 1), "one draw is no posterior"),
        (lambda: fitted(SVI(), 99), "99 draws are too few for a tail: 100 are wanted"),
        (lambda: with_method(BayesByBackprop(temperature=0.5)), "a tempered posterior"),
        (lambda: dataclasses.replace(fitted(SVI(), 200), model=partial(gp)), "rows are not independent"),
    ],
)
def test_where_there_is_none_the_reason_is_said(fit, reason: str) -> None:
    assert reason in why_no_loo(fit())
    with pytest.raises(ValueError, match="has no PSIS-LOO: .*" + reason):
        leave_one_out(fit())


def test_too_many_values_are_not_made() -> None:
    reason = why_no_loo(fitted(SVI(), 200), max_values=7999)
    assert reason == "40 rows × 200 draws are over the bound of 7,999"
    assert why_no_loo(fitted(SVI(), 200), max_values=8000) == ""
