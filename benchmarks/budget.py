"""Equal budgets: one allowance for every method."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from hmcvi.inference import Method
from hmcvi.inference.chains import Sampler

from .options import UsageError

__all__ = ["Budget"]

MOST = 1e15
"""What a budget may be: far more than any machine spends, and a number that counts of steps can be made of."""

LEAST_WARMUP = 10
"""Draws of warm-up at the smallest share."""


@dataclass(frozen=True)
class Budget:
    """What each method may spend on a fit.

    Attributes:
        amount: how much.
        unit: "passes" over the training data (gradient evaluations of all rows, or of as many rows in minibatches;
            warm-up and all chains included), or "seconds" of the compiled loop, compile time apart.
    """

    amount: float
    unit: Literal["passes", "seconds"]

    def __post_init__(self) -> None:
        if not 0 < self.amount <= MOST:
            raise UsageError(
                f"a budget of {self.amount:g} {self.unit} was asked for: give a number above 0, and at most {MOST:g}"
            )

    def __str__(self) -> str:
        """Return the amount and its unit."""
        return f"{self.amount:,.6g} {'passes over the data' if self.unit == 'passes' else 'seconds'}"

    def limit(self, method: Method, share: float = 1.0) -> Method:
        """Return the method with this allowance, or a share of it.

        A method that is done sooner stops sooner: an allowance is no minimum. At a share a sampler's warm-up is that
        share of its own: one planned for the whole would take most of it.
        """
        changes: dict[str, Any] = {f"max_{self.unit}": share * self.amount}
        if isinstance(method, Sampler):
            changes["num_warmup"] = min(method.num_warmup, max(LEAST_WARMUP, round(share * method.num_warmup)))
        return dataclasses.replace(method, **changes)  # type: ignore[type-var]
