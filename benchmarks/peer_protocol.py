"""How a contestant of `speed.py` speaks from a process of its own, and the work that all of a case share.

Needs Python and NumPy alone, so that the peers under another interpreter import it too. A contestant is made, says that
it is ready, and answers each line on standard input, the number of a round, with one line of JSON on standard output.
What a library prints goes to standard error.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

__all__ = ["Ready", "inputs", "repeated", "serve", "weights"]


@dataclass(frozen=True)
class Ready:
    """A contestant that can begin.

    Attributes:
        run: the number of a round -> what it took: "count" (of what the case counts) and "seconds", of which compiling
            took none; "compile" seconds; perhaps a "note", or in place of all of them a "failure", each a sentence.
        facts: numbers that all contestants of a case must share, as the log joint at the same weights: they show that
            all do the same work.
        about: versions and settings that a reader must know.
        compile_seconds: compiling that is done by now.
    """

    run: Callable[[int], Mapping[str, Any]]
    facts: Mapping[str, float] = field(default_factory=dict)
    about: str = ""
    compile_seconds: float = 0.0


def serve(contestants: Mapping[str, Callable[..., Ready]]) -> None:
    """Make the contestant that the first argument of the command names, and answer until the input ends.

    Arguments:
        contestants: what makes each of them, by name, from the sizes of the case.
    """
    asked = json.loads(sys.argv[1])
    with os.fdopen(os.dup(1), "w", buffering=1) as answers:
        os.dup2(2, 1)
        ready = contestants[asked["contestant"]](**asked["size"])
        said = {"facts": ready.facts, "about": ready.about, "compile": ready.compile_seconds}
        print(json.dumps(said), file=answers)
        for line in sys.stdin:
            print(json.dumps(ready.run(int(line))), file=answers)


def inputs(rows: int, shape: tuple[int, ...], classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return inputs (row, *shape) in float32, uniform from 0 to 1, and random labels (row,), always the same."""
    random = np.random.default_rng(0)
    return random.random((rows, *shape), dtype=np.float32), random.integers(classes, size=rows)


def weights(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Return weights in float32 by site, Normal(0, 1 / fan-in), always the same for the same sites.

    Arguments:
        shapes: by site, (..., in, out) of a kernel and (out,) of a bias.
    """
    random = np.random.default_rng(1)

    def drawn(shape: tuple[int, ...]) -> np.ndarray:
        fan_in = max(1, int(np.prod(shape[:-1])))
        return random.standard_normal(shape, dtype=np.float32) / np.float32(np.sqrt(fan_in))

    return {site: drawn(shapes[site]) for site in sorted(shapes)}


def repeated(
    take: Callable[[int], Any],
    seconds: float,
    count: float = 1.0,
    facts: Mapping[str, float] | None = None,
    about: str = "",
    compile_seconds: float = 0.0,
) -> Ready:
    """Return a contestant that takes as many steps a round as fill so many seconds, after a first one that counts not.

    Arguments:
        take: takes so many steps, and returns when they are over.
        seconds: of a round, about.
        count: what one step counts for.
        facts: see `Ready`, as the rest.
    """

    def took(steps: int) -> float:
        begun = time.perf_counter()
        take(steps)
        return time.perf_counter() - begun

    took(1)
    steps = 1
    while (pace := took(steps) / steps) * steps < seconds / 4:
        steps *= 4
    steps = max(1, round(seconds / pace))

    def run(number: int) -> dict[str, float]:
        return {"count": steps * count, "seconds": took(steps)}

    return Ready(run, facts or {}, about, compile_seconds)
