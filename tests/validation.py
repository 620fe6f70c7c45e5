"""What `make validate` leaves behind: a row for every number that was judged or reported, joined over all workers.

A test takes the fixture `record` and calls it with what it found and the bounds that are wanted of it. Rows travel
with the reports of pytest from the workers to the process that started them, which writes the table.
"""

from __future__ import annotations

import csv
import math
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

__all__ = ["Row", "Validation", "record"]

PROPERTY = "validation"


@dataclass(frozen=True)
class Row:
    """A number and the open interval it is wanted in; without bounds it is reported, and not judged."""

    check: str
    what: str
    value: float
    low: float = -math.inf
    high: float = math.inf

    @property
    def judged(self) -> bool:
        """Whether there is a bound."""
        return math.isfinite(self.low) or math.isfinite(self.high)

    @property
    def passed(self) -> bool:
        """Whether the number lies between its bounds; NaN does not."""
        return not self.judged or self.low < self.value < self.high

    @property
    def limit(self) -> str:
        """The bounds in words."""
        if math.isfinite(self.low) and math.isfinite(self.high):
            return f"{self.low:.3g} … {self.high:.3g}"
        return f"> {self.low:.3g}" if math.isfinite(self.low) else f"< {self.high:.3g}" if self.judged else "–"


@pytest.fixture
def record(request: pytest.FixtureRequest) -> Any:
    """Record a number: record(check, what, value, low=..., high=...); the test fails where one is out of bounds."""
    rows: list[Row] = []

    def add(check: str, what: str, value: float, low: float = -math.inf, high: float = math.inf) -> None:
        row = Row(check, what, float(value), low, high)
        rows.append(row)
        request.node.user_properties.append((PROPERTY, (check, what, row.value, low, high)))

    yield add
    wrong = [f"{row.check}, {row.what}: {row.value:.4g}, wanted {row.limit}" for row in rows if not row.passed]
    assert not wrong, "\n".join(wrong)
    assert rows, "nothing was recorded"


@dataclass
class Validation:
    """The pytest plug-in that joins the rows and, after all checks have run, writes validate.md and validate.csv.

    Attributes:
        config: pytest's configuration.
        folder: where the two files go.
    """

    config: pytest.Config
    folder: Path
    rows: list[tuple[str, Row]] = field(default_factory=list)
    failed: dict[str, None] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take the rows of a test that has ended, and note one that failed or was left out."""
        if report.failed:
            self.failed[report.nodeid] = None
        if report.skipped:
            self.skipped.append(report.nodeid)
        if report.when == "teardown":
            found = [Row(*values) for name, values in report.user_properties if name == PROPERTY]
            self.rows += [(report.nodeid.partition("::")[0], row) for row in found]

    def pytest_sessionfinish(self, exitstatus: int) -> None:
        """Write the table of a whole run; one of a part of the checks leaves an older table as it is."""
        option = self.config.option
        selected = self.config.args_source is not pytest.Config.ArgsSource.TESTPATHS or any(
            (option.keyword, option.deselect, option.maxfail, option.markexpr != "validate", self.skipped)
        )
        if not selected and exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
            self.write()

    def write(self) -> None:
        """Write validate.md and validate.csv."""
        rows = [row for _, row in sorted(self.rows, key=lambda pair: pair[0])]  # files in order, whoever ran them
        self.folder.mkdir(parents=True, exist_ok=True)
        made = _made(time.monotonic() - self.started)
        (self.folder / "validate.md").write_text(_markdown(rows, list(self.failed), made))
        with open(self.folder / "validate.csv", "w", newline="") as file:
            file.write(f"# {made}\n")
            table = csv.writer(file, lineterminator="\n")
            table.writerow(["check", "what", "value", "low", "high", "judged", "passed"])
            for row in rows:
                value = f"{row.value:.6g}"
                passed = row.passed if row.judged else ""
                table.writerow([row.check, row.what, value, row.low, row.high, row.judged, passed])


def _made(seconds: float) -> str:
    """Return when, where and with what the checks ran."""
    from hmcvi.inference.provenance import made_with, processor, visible_cores  # not before JAX's settings are made

    cores = visible_cores()
    with_ = made_with()
    versions = [f"Python {with_['python']}", *(f"{name} {version}" for name, version in with_["versions"].items())]
    return (
        f"{datetime.now(UTC):%Y-%m-%d} (UTC), {cores} cores of {processor()}, {seconds:,.0f} seconds; "
        f"{', '.join(versions)}"
    )


def _markdown(rows: list[Row], failed: list[str], made: str) -> str:
    judged = [row for row in rows if row.judged]
    wrong = [row for row in judged if not row.passed]
    verdict = "all within their limits" if not wrong else f"{len(wrong)} out of their limits, marked **no**"
    verdict += f", and {len(failed)} tests failed" if failed else ""
    lines = [
        "# Statistical checks: what `make validate` found",
        "",
        f"{made}.",
        "",
        f"{len(judged)} numbers were judged, {verdict}; {len(rows) - len(judged)} are reported without a limit.",
        "What each number is, the tests marked `validate` say.",
    ]
    if failed:
        lines += ["", "Tests that failed:", "", *(f"- `{name}`" for name in failed)]
    for check in dict.fromkeys(row.check for row in rows):
        lines += ["", f"## {check}", "", "| what | found | wanted | within |", "|---|--:|--:|:-:|"]
        for row in rows:
            if row.check == check:
                within = ("yes" if row.passed else "**no**") if row.judged else ""
                lines.append(f"| {row.what} | {row.value:.3g} | {row.limit} | {within} |")
    return "\n".join(lines) + "\n"
