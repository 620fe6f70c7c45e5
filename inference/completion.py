"""Did the optimiser finish? Asked of the loss, of the gradient and of the restarts; whether the family fits is another
question (`hmcvi.inference.family`)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .base import Fit
from .plateau import LEAST_FALL

__all__ = ["Completion", "completion"]

Z_LIMIT = 4.0
"""How sure a direction of the gradient may be at the end: 3e-5 of finished fits exceed it by chance alone.

Measured on digits, one seed: AutoNormal 4.5 where the plateau rule had ended a fit after 4,800 steps, 50 nats above
where a longer one ended, 2.5 after 16,000 steps and 1.5 after 32,000; Bayes-by-Backprop 4.0 after 14,000, 2.5 after
24,000, 1.9 after 60,000. Of fits of 600 to 2,000 steps 64 to 125 gradients saw nothing (2 to 4): of those the plateau
tells, the shorter ones are not asked at all, and finished is where neither speaks against it."""

AGREEMENT = 3.0
"""Standard errors that the final losses of two restarts may differ by: false alarms of two in 0.3 %."""


@dataclass(frozen=True)
class Completion:
    """The verdict on an optimisation, and the numbers behind it.

    Attributes:
        verdict: "finished": the loss reached its plateau and nothing speaks against it; "unfinished": it did not, or
            the gradient still had a direction; "schedule ended": a schedule decided the end, where any loss is flat;
            "restarts disagree": each ended, in different places.
        reason: the three checks in one line.
        plateau: whether the loss reached a plateau before its budget; None where a schedule decided the end.
        gradient_snr: signal-to-noise ratio of one step's gradient at the end; None where it has no noise, or the
            fit had too few steps to ask.
        gradient_z: how surely the gradient still had a direction, as a standard Normal's value; None there too.
        spread: largest difference of the restarts' final mean losses from the lowest, in its standard errors; None
            with one start.
    """

    verdict: str
    reason: str
    plateau: bool | None
    gradient_snr: float | None
    gradient_z: float | None
    spread: float | None


def completion(fit: Fit) -> Completion | None:
    """Judge the end of an optimisation; None for samplers."""
    if fit.losses is None:
        return None
    steps = f"{len(fit.losses):,} steps"
    allowances = [getattr(fit.method, name, None) for name in ("max_passes", "max_seconds")]
    cut = allowances != [None, None] and len(fit.losses) < getattr(fit.method, "num_steps", 0) and not fit.finished
    longer = "raise the allowance" if cut else "raise num_steps"
    plateau = {
        True: f"the loss reached its plateau within {steps}",
        False: f"the loss reached no plateau within the budget of {steps}: {longer}",
        None: f"the learning rate fell to its end over {steps}, where any loss is flat",
    }[fit.finished]
    spread, agreement = _agreement(fit.restarts, fit.restart_errors)
    snr, z = fit.gradient_snr, fit.gradient_z
    moving = z is not None and not z <= Z_LIMIT
    gradient = (
        "gradient not asked (no noise in it, or too few steps)"
        if z is None
        else f"gradient signal/noise {snr:.3f}, z = {z:.1f}"
    )
    if moving:
        gradient += f", wanted z ≤ {Z_LIMIT:g}: {longer}"
    if fit.finished is False or moving:
        verdict = "unfinished"
    elif spread is not None and not spread <= AGREEMENT:
        verdict = "restarts disagree"
    else:
        verdict = "finished" if fit.finished else "schedule ended"
    return Completion(verdict, f"{plateau}; {gradient}; {agreement}", fit.finished, snr, z, spread)


def _agreement(losses: np.ndarray | None, errors: np.ndarray | None) -> tuple[float | None, str]:
    """Return the restarts' spread in standard errors, and what is said of it."""
    if losses is None or errors is None:
        return None, "members are meant to differ"
    if len(losses) == 1:
        return None, "one start: agreement of restarts unknown"
    number, failed = len(losses), int((~np.isfinite(losses)).sum())
    if failed:
        return np.inf, f"{failed} of {number} restarts failed"
    best = int(losses.argmin())
    gaps = losses - losses[best]
    noise = np.sqrt(errors**2 + errors[best] ** 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        # the rule that ends a loss without noise leaves gaps of its own
        spread = float(np.max(np.where(gaps > LEAST_FALL, gaps / noise, 0.0)))
    return spread, f"{number} restarts within {gaps.max():.3g} nats, {spread:.1f} standard errors"
