"""Selective prediction against orders whose risk is known."""

import numpy as np
import pytest

from hmcvi.inference import scores


def test_a_perfect_order_puts_the_errors_last_and_a_useless_one_scores_the_mean():
    losses = np.repeat([0.0, 1.0], [60, 40])
    curve = scores.risk_coverage(np.arange(100.0), losses)
    np.testing.assert_allclose(curve.coverage, np.arange(1, 101) / 100)
    np.testing.assert_allclose(curve.risk, np.maximum(np.arange(1, 101) - 60, 0) / np.arange(1, 101))
    assert scores.aurc(np.arange(100.0), losses).value == pytest.approx(curve.risk.mean())
    assert scores.risk_at_coverage(np.arange(100.0), losses, 0.6).value == 0
    assert scores.risk_at_coverage(np.arange(100.0), losses, 0.8).value == pytest.approx(0.25)
    # all alike: any order is as good, and every share of the rows has the mean loss
    np.testing.assert_allclose(scores.risk_coverage(np.zeros(100), losses).risk, 0.4)
    assert scores.aurc(-np.arange(100.0), losses).value > 0.4


def test_ties_share_their_mean_loss():
    uncertainty, losses = np.array([0.0, 1.0, 1.0, 2.0]), np.array([0.0, 1.0, 0.0, 1.0])
    np.testing.assert_allclose(scores.risk_coverage(uncertainty, losses).risk, [0, 0.25, 1 / 3, 0.5])


@pytest.mark.parametrize(
    ("coverage", "rows", "answered"), [(0.1, 10, 1), (0.3, 10, 3), (0.25, 10, 3), (1.0, 7, 7), (0.01, 10, 1)]
)
def test_a_coverage_is_rounded_up_to_whole_rows(coverage, rows, answered):
    losses = np.arange(rows, dtype=float)
    wanted = losses[:answered].mean()
    assert scores.risk_at_coverage(np.arange(rows, dtype=float), losses, coverage).value == pytest.approx(wanted)
