"""What the command says where something went wrong: one sentence on standard error, and an exit status."""

from __future__ import annotations

import argparse
import errno
import sys
import tempfile
import traceback
from pathlib import Path

__all__ = ["FAULT", "refuse", "say"]

FAULT = 70
"""The exit status of a fault of hmcvi itself: EX_SOFTWARE of sysexits.h."""

EXTRAS = {
    "blackjax": "samplers",
    "tensorflow": "prepare",
    "bayesian_torch": "peers",
    "torch": "peers",
    "distributed": "sweep",
    "submitit": "sweep",
}
"""Optional packages, and the extra of hmcvi that installs each."""

ADVICE = {
    errno.ENOSPC: "make room, or give another folder",
    errno.EDQUOT: "make room, or give another folder",
    errno.EACCES: "give another folder, or change who may use it",
    errno.EPERM: "give another folder, or change who may use it",
    errno.EROFS: "give another folder",
    errno.ENAMETOOLONG: "give a shorter name",
}
"""What to do about what the system refuses."""

GOES_ON = ("compare", "reproduce", "sweep")
"""Commands that continue from what they finished."""


def refuse(error: Exception, options: argparse.Namespace) -> int:
    """Say what is wrong, and return the exit status.

    2 where what was asked for is impossible, 1 where a fit, the system or the memory failed, and `FAULT` where none of
    them is to blame: then the traceback is written to a file that the sentence names.

    Arguments:
        error: what ended the command.
        options: what it was asked for; its `command` is None where that was not read yet.
    """
    from .raw import DataError

    kept = "; what is finished is kept, and the same command goes on" if options.command in GOES_ON else ""
    if isinstance(error, DataError):  # before the others, whose classes take JAX to import
        return say(str(error), 2)
    if isinstance(error, ModuleNotFoundError) and error.name and not error.name.startswith("hmcvi"):
        package = error.name.partition(".")[0]
        wanted = f"hmcvi[{EXTRAS[package]}]" if package in EXTRAS else package
        return say(f"the package {package} is not installed: pip install '{wanted}'", 2)
    if isinstance(error, OSError):
        where = f"{error.filename} cannot be read or written" if error.filename else "the system refused"
        advice = ADVICE.get(error.errno or 0, "check the path and the disk")
        return say(f"{where} ({error.strerror or error}): {advice}{kept}", 1)
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
        return say(f"the memory is full: take fewer rows, fewer draws or a smaller model{kept}", 1)
    if isinstance(error, ValueError | RuntimeError):
        from hmcvi.inference import CheckpointError, FitError
        from hmcvi.inference.processes import ElsewhereError

        from .distributed import LostError
        from .options import UsageError

        if isinstance(error, FitError | LostError):
            return say(str(error), 1)
        if isinstance(error, UsageError | CheckpointError | ElsewhereError):
            return say(str(error), 2)
    file = _write_fault(error, options)
    written = f"the traceback is in {file}" if file else "the traceback could not be written"
    return say(f"{type(error).__name__}: {error}; this is a fault of hmcvi and not of what was asked, {written}", FAULT)


def say(sentence: str, status: int = 2) -> int:
    """Print one line of letters that a terminal shows, whatever the sentence quotes, and return the status."""
    line = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in " ".join(sentence.split()))
    print(f"hmcvi: error: {line}", file=sys.stderr)
    return status


def _write_fault(error: Exception, options: argparse.Namespace) -> Path | None:
    """Write the traceback to the folder of --out, or else to one for temporary files; None where none can be."""
    folder = getattr(options, "out", None)
    text = "".join(traceback.format_exception(error))
    from hmcvi.inference.durable import write_whole  # JAX is there, or the fault was in getting it

    content = f"{options}\n\n{text}".encode(errors="backslashreplace")
    try:
        if folder is not None and (Path(folder) / "config.json").is_file():
            file = Path(folder) / "fault.txt"
            write_whole(file, content)
        else:
            descriptor, name = tempfile.mkstemp(prefix="hmcvi-fault-", suffix=".txt")
            with open(descriptor, "wb") as opened:
                opened.write(content)
            file = Path(name)
    except OSError:
        return None
    return file
