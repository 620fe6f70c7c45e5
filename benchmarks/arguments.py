"""The parser of the command's arguments, their types, and the options that several commands have."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import NoReturn

from .reference import REFERENCES
from .refusal import say

__all__ = ["Parser", "add_data_dir", "add_require_converged", "interval", "number", "path", "status_of", "whole"]


class Parser(argparse.ArgumentParser):
    """One that says what is wrong in a sentence, without a screen of usage before it."""

    def error(self, message: str) -> NoReturn:
        """Say it and exit with status 2."""
        say(f"{message}; {self.prog} --help lists what there is")
        raise SystemExit(2)


def whole(text: str) -> int:
    """Read a whole number."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text[:80]!r} is no whole number") from None


def number(text: str) -> float:
    """Read a number."""
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text[:80]!r} is no number") from None


def interval(text: str) -> float:
    """Read a number of seconds, at least 0."""
    seconds = number(text)
    if not seconds >= 0:
        raise argparse.ArgumentTypeError(f"{text} is no number of seconds of at least 0")
    return seconds


def path(text: str) -> Path:
    """Read a path: not empty, and one that the system can name."""
    try:
        is_path = bool(text.strip()) and b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        is_path = False
    if not is_path:
        raise argparse.ArgumentTypeError(f"{text[:80]!r} is no path")
    return Path(text)


def add_data_dir(parser: argparse._ActionsContainer) -> None:
    """Add the option of TFDS's data folder."""
    parser.add_argument(
        "--data-dir", metavar="FOLDER", help="TFDS's data folder. Default: $TFDS_DATA_DIR, else ~/tensorflow_datasets"
    )


def add_require_converged(parser: argparse._ActionsContainer) -> None:
    """Add the option that asks for a converged reference."""
    parser.add_argument(
        "--require-converged",
        action="store_true",
        help=(
            f"exit with status 1 where the reference (the first of {', '.join(REFERENCES)} among the methods) is "
            "unconverged at any seed, and with 2 where there is none"
        ),
    )


def status_of(unconverged: str) -> int:
    """Say that the reference is unconverged, where it is required and so, and return the exit status."""
    if unconverged:
        print(f"hmcvi: {unconverged}", file=sys.stderr)
    return 1 if unconverged else 0
