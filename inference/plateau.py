"""Has an optimisation arrived? What its losses say, and what is left of its gradient's mean."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["LEAST_FALL", "Signal", "plateaued", "signal_of"]

LEAST_FALL = 0.01
"""What a loss that has noise no more, in nats of the whole data set, must still fall by if it is to go on: a hundredth
of a nat changes a density by a hundredth."""


@dataclass(frozen=True)
class Signal:
    """What is left of the gradient's mean at the end of an optimisation.

    Attributes:
        snr: length of the mean gradient over the standard deviation of one step's gradient.
        z: how surely it is not 0, as a standard Normal's value.
    """

    snr: float
    z: float


def signal_of(products: np.ndarray, squares: np.ndarray) -> Signal:
    """Return ‖μ‖ / √tr Σ of gradients of mean μ and covariance Σ, and how surely μ is not 0.

    With Sₖ the sum of the first k of K independent gradients, U = Σₖ gₖ·Sₖ₋₁ adds up the products of all pairs, so
    that 2 U / (K (K − 1)) has mean ‖μ‖². Where μ = 0 its terms are a martingale's, and z = U / √Σₖ (gₖ·Sₖ₋₁)² is about
    standard Normal if noise goes in many directions. If in one, z has the lighter upper tail of Dickey and Fuller
    (1979): so, unlike a bound on the ratio itself, one on z is right whatever the number of directions.

    Arguments:
        products: gₖ·Sₖ₋₁ (gradient,), the first of which is 0.
        squares: ‖gₖ‖² (gradient,).

    Example:
        >>> gradients = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
        >>> before = np.cumsum(gradients, 0) - gradients
        >>> found = signal_of((gradients * before).sum(1), (gradients**2).sum(1))
        >>> found.snr, round(found.z, 3)
        (0.0, -1.414)
    """
    number, mean_square = len(squares), float(squares.mean())
    square_of_mean = max(2 * float(products.sum()) / (number * (number - 1)), 0.0)
    # single precision: of a signal that drowns all noise, no more than a ratio of 1000 is known
    variance = max(mean_square - square_of_mean, 1e-6 * mean_square)
    spread = float(np.sqrt((products**2).sum()))
    return Signal(
        snr=float(np.sqrt(square_of_mean / variance)) if variance > 0 else 0.0,
        z=float(products.sum()) / spread if spread > 0 else 0.0,
    )


def plateaued(losses: np.ndarray, window: int) -> bool:
    """Return whether the mean loss of the last window is no better than the one before, at two standard errors.

    Losses on minibatches are noisy: a fall that two windows' noise can explain is no fall. Losses without noise fall
    for as long as they are let, so that they are also at their plateau where what is left to fall is under
    `LEAST_FALL`, if each window goes on to fall by as much less than the one before as the last two did (Aitken 1926).
    """
    if len(losses) < 2 * window:
        return False
    before, last = losses[-2 * window : -window], losses[-window:]
    error = np.sqrt((before.var() + last.var()) / window)
    fall = before.mean() - last.mean()
    if fall <= 2 * error:
        return True
    if len(losses) < 3 * window:
        return False
    earlier = losses[-3 * window : -2 * window].mean() - before.mean()
    if max(fall, earlier) > LEAST_FALL:  # a first descent foretells nothing of what comes after it
        return False
    rounding = np.finfo(np.float32).eps * abs(last.mean())
    return bool(fall <= rounding or (fall < earlier and fall**2 <= LEAST_FALL * (earlier - fall)))
