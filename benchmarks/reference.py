"""The reference: the method that the others' distances are taken to, and what it means that it is this one."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

__all__ = ["REFERENCES", "UNADJUSTED", "bias_notes", "possessive", "recorded_reference", "reference_of"]

REFERENCES = ("nuts", "hmc", "mams", "mclmc")
"""Methods that earn the name of reference where their diagnostics pass, the most trusted first.

The draws of all but those in `UNADJUSTED` are exact in the limit of long chains."""

UNADJUSTED = {"mclmc": "at its default tuning, variances of correlated Gaussians came out 0.4 to 3.7 % too small"}
"""Samplers without a Metropolis step, with what is known of their bias: the numbers that `MCLMC` states."""


def reference_of(methods: Iterable[str]) -> str | None:
    """Return the most trusted sampler among the methods asked of a run; None where they hold none.

    Whether it converged is not asked here: another reference at an unlucky seed would be another quantity.

    Arguments:
        methods: names in `hmcvi.benchmarks.experiment.METHODS`.

    Example:
        >>> reference_of(["svi", "mclmc", "hmc"]), reference_of(["svi", "map"])
        ('hmc', None)
    """
    asked = set(methods)
    return next((name for name in REFERENCES if name in asked), None)


def recorded_reference(summary: Mapping[str, Any]) -> str | None:
    """Return the reference of a run by its summary.json, whether it converged, failed or neither; None without one.

    Runs of before it was recorded were held against NUTS, or nothing.

    Example:
        >>> recorded_reference({"fits": {"nuts": [], "hmc": []}}), recorded_reference({"fits": {"hmc": []}})
        ('nuts', None)
    """
    if "reference" in summary:
        recorded: str | None = summary["reference"]
        return recorded
    return "nuts" if "nuts" in {*summary["fits"], *summary.get("failed", {})} else None


def bias_notes(methods: Iterable[str], references: Collection[str]) -> list[str]:
    """Return a sentence on each method of a board whose draws are biased.

    Arguments:
        methods: the methods on the board.
        references: those that distances on the board are taken to.

    Example:
        >>> bias_notes(["nuts", "mclmc"], ["nuts"])[0].split("; ")[1]
        'its distance to nuts, beside the noise floor, shows how much.'
    """
    notes = []
    for method in dict.fromkeys(methods):
        if method in UNADJUSTED:
            biased = f"{method} is unadjusted: its step size biases its draws, which no diagnostic of convergence sees"
            exact = [name for name in references if name not in UNADJUSTED]
            if method in references:
                notes.append(f"{biased}, so that distances to {method} hold this bias too ({UNADJUSTED[method]}).")
            elif exact:
                to = " and ".join(exact)
                notes.append(f"{biased}; its distance to {to}, beside the noise floor, shows how much.")
            else:
                notes.append(f"{biased}.")
    return notes


def possessive(name: str) -> str:
    """Return whose.

    Example:
        >>> possessive("nuts"), possessive("hmc")
        ("nuts'", "hmc's")
    """
    return f"{name}'" if name.lower().endswith("s") else f"{name}'s"
