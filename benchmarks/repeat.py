"""The command that repeats a run, from its configuration."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Any

__all__ = ["is_of_arrays", "repeat_command"]

FLAGS = {
    "data": "--data",
    "target": "--target",
    "task": "--task",
    "rows": "--rows",
    "test_rows": "--test-rows",
    "splits": "--splits",
    "image_size": "--image-size",
    "model": "--model",
    "methods": "--methods",
    "seeds": "--seeds",
    "ood": "--ood",
    "shifts": "--shift",
    "chains_per_device": "--chains-per-device",
    "shard_rows": "--shard-rows",
}
"""Flags that take a value or several, by field of the configuration."""

SWITCHES = {"tune": "--tune", "quick": "--quick", "rows_across_processes": "--rows-across-processes"}
"""Flags that take none."""

BUDGETS = {"seconds": "--budget-seconds", "passes": "--budget-gradients"}
"""Flags of a budget, by its unit."""

DEFAULTS: dict[str, Any] = {"data": "digits", "model": "mlp", "seeds": [0], "shifts": []}
"""Values that need no flag; those of the other fields are None."""


def is_of_arrays(configuration: Mapping[str, Any]) -> bool:
    """Return whether the run's data were arrays given from Python, which no command names."""
    return re.search(r" [0-9a-f]{64}$", str(configuration.get("data"))) is not None


def repeat_command(configuration: Mapping[str, Any]) -> str:
    """Return the `hmcvi compare` command of a run, as a shell takes it.

    Arguments:
        configuration: what config.json holds; fields of older versions may be missing.

    Example:
        >>> repeat_command({"data": "wine", "model": "mlp", "methods": ["svi", "bbb"], "seeds": [0], "quick": True,
        ...                 "options": {"model": ["widths=8"], "svi": ["num_steps=500"]}})
        'hmcvi compare --data wine --methods svi bbb --quick --model-options widths=8 --svi num_steps=500'
    """
    parts = ["hmcvi", "compare"]
    for field, flag in FLAGS.items():
        value = configuration.get(field)
        if value is not None and value != DEFAULTS.get(field):
            parts += [flag, *map(str, value if isinstance(value, list) else [value])]
    parts += [flag for field, flag in SWITCHES.items() if configuration.get(field)]
    if configuration.get("budget"):
        parts += [BUDGETS[configuration["budget"]["unit"]], repr(configuration["budget"]["amount"])]
    for group, options in configuration.get("options", {}).items():
        parts += ["--model-options" if group == "model" else f"--{group}", *options]
    return shlex.join(parts)
