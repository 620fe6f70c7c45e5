"""Audit the locked dependencies for known vulnerabilities (OSV, by pip-audit): a part of `make check`.

Ends with 1 where one is found, or the lock file cannot be read. Where the database cannot be reached, or takes more
than a minute, it says so and ends with 0: checks work without a network.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

LOCK = Path(__file__).resolve().parent.parent / "requirements.txt"

UNREACHABLE = ("requests.exceptions.", "pip_audit._service.", "ERROR:pip_audit._cli:Could not connect")
"""How the lines begin that pip-audit ends with where the database could not be asked."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Audit, say in a line what was found, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lock", type=Path, default=LOCK, help="requirements with hashes. Default: %(default)s")
    parser.add_argument("--service", metavar="URL", help="a database that speaks as OSV does. Default: OSV")
    parser.add_argument("--seconds", type=float, default=60.0, help="what it may take. Default: %(default)g")
    options = parser.parse_args(arguments)
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(options.lock), "--require-hashes"]
    # no pip: the lock names every package, and nothing is resolved or downloaded
    command += ["--disable-pip", "--vulnerability-service", "osv"]
    command += [] if options.service is None else ["--osv-url", options.service]
    command += ["--progress-spinner", "off", "--timeout", "10", "--format", "json"]
    service = options.service or "the database of vulnerabilities"
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=options.seconds, check=False)
    except subprocess.TimeoutExpired:
        return _skipped(f"{service} took more than {options.seconds:g} s")
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        said = done.stderr.strip().splitlines() or ["it said nothing"]
        if any(line.startswith(UNREACHABLE) for line in said):
            return _skipped(f"{service} cannot be reached")
        print(f"audit failed: {said[-1]}", file=sys.stderr)
        return 1
    found = [(package, vulnerability) for package in packages for vulnerability in package.get("vulns", ())]
    for package, vulnerability in found:
        fixed = ", ".join(vulnerability["fix_versions"]) or "no version yet"
        print(f"{package['name']} {package['version']}: {vulnerability['id']}, fixed in {fixed}", file=sys.stderr)
    if found:
        print(f"audit: {len(found)} known vulnerabilities in {options.lock}: run `make lock`", file=sys.stderr)
        return 1
    print(f"audit: no known vulnerability in {len(packages)} packages")
    return 0


def _skipped(reason: str) -> int:
    print(f"audit skipped: {reason}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
