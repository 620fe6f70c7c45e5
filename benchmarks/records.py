"""What the scoreboard says of a fit itself: how it ended, what it cost, and whether its family fits."""

from __future__ import annotations

from typing import Any

import numpy as np

from hmcvi.inference import Fit, completion, family_fit

from .cost import gradient_operations
from .evaluate import Evaluation
from .experiment import temperature_of

__all__ = ["fit_record"]

MOST_KHAT_OPERATIONS = 1e11
"""Floating-point operations that Pareto k-hat may take: some ten seconds on two cores of a laptop."""


def fit_record(result: Fit, evaluation: Evaluation) -> dict[str, Any]:
    """Return what the scoreboard says of a fit itself, as plain data.

    Arguments:
        result: the fit.
        evaluation: its scores, which hold the verdict on a sampler.
    """
    verdict = evaluation.convergence
    record: dict[str, Any] = {
        "run_seconds": result.run_seconds,
        "compile_seconds": result.compile_seconds,
        "num_gradients": result.num_gradients,
        "num_passes": result.num_passes,
        "chain_method": result.chain_method,
        "temperature": temperature_of(result.method),
        "num_chains": result.num_chains,
        "num_draws": result.num_draws,
        "num_scored_draws": evaluation.num_draws,
        "num_parameters": int(sum(np.prod(d.shape[2:]) for d in result.draws.values())),
        "num_optimised": result.num_optimised,
        "rhat": None,
        "ess": None,
        "gradient_snr": None,
        "restarts": None,
        "khat": None,
    }
    if verdict is not None:
        state = "converged" if verdict.converged else "unconverged"
        low = min(verdict.ess_bulk, verdict.ess_tail)
        return record | {"verdict": state, "reason": verdict.reason, "rhat": verdict.rhat, "ess": low}
    ending = completion(result)
    assert ending is not None
    tempered = ""
    if record["temperature"] != 1:
        tempered = f"; tempered: its KL is multiplied by {record['temperature']:g}, so it is not the model's posterior"
    is_posterior = record["temperature"] == 1  # of a tempered one k-hat would blame the family for the temperature
    family = None if result.log_q is None or not is_posterior else family_fit(result, num_draws=_khat_draws(result))
    return record | {
        "verdict": ending.verdict,
        "reason": "; ".join([ending.reason, *([] if family is None else [family.reason])]) + tempered,
        "gradient_snr": ending.gradient_snr,
        "restarts": None if result.restarts is None else [float(loss) for loss in result.restarts],
        "khat": None if family is None else family.khat,
    }


def _khat_draws(result: Fit) -> int:
    """Return how many draws Pareto k-hat is asked of: each takes a log joint, a third of a gradient, over all rows."""
    operations = gradient_operations(result.model, result.x, result.y) / 3
    return max(1, int(MOST_KHAT_OPERATIONS / max(operations, 1)))
