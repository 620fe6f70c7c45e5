"""Compiled programs on disk: JAX's compilation cache, on by default, in a folder that can be moved or switched off.

XLA takes most of the time of a small comparison; a second run in a new process reads what the first one compiled. An
entry is found by the program, the versions, the device and its options. JAX compresses it by zlib, whose checksum tells
a damaged entry, which is compiled anew (or by zstd, which has none by default, where the package zstandard is installed
or Python has it: from 3.14 on). It holds machine code: a folder that others can write to is refused.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from pathlib import Path

import platformdirs

from .arguments import path

__all__ = ["add_options", "keep_programs"]

MOST_BYTES = 2**31
"""What the folder holds at most; the entries that were read longest ago go first."""

DAMAGED = "Error (reading|writing) persistent compilation cache entry"
"""How JAX's warning begins where an entry cannot be used, or kept: it compiles, and goes on."""


def add_options(parser: argparse._ActionsContainer) -> None:
    """Add the options that move the folder, or switch it off."""
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--programs",
        type=path,
        metavar="FOLDER",
        help="keep compiled programs here, for later runs to read. Default: $JAX_COMPILATION_CACHE_DIR, else "
        "hmcvi/programs in the user's cache folder",
    )
    where.add_argument("--no-programs", action="store_true", help="keep no compiled programs, and read none")


def keep_programs(options: argparse.Namespace) -> None:
    """Have JAX keep what it compiles, and read what it compiled before, as the options say.

    JAX's own settings (JAX_COMPILATION_CACHE_DIR, JAX_ENABLE_COMPILATION_CACHE and the rest) hold where no option is
    given. A default folder that cannot be written is said, and done without.

    Raises:
        UsageError: a folder that was asked for cannot be made or written, or others can write to it.
    """
    import jax

    if options.no_programs:
        jax.config.update("jax_enable_compilation_cache", False)
        return
    if options.programs is None and jax.config.jax_compilation_cache_dir is not None:
        return
    if options.programs is None and not jax.config.jax_enable_compilation_cache:
        return
    folder = options.programs or Path(platformdirs.user_cache_dir("hmcvi", appauthor=False)) / "programs"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        fault = "cannot be written" if not os.access(folder, os.W_OK | os.X_OK) else _open_to_others(folder)
    except OSError:
        fault = "cannot be written"
    if fault:
        if options.programs is not None:
            from .options import UsageError  # JAX is there by now

            raise UsageError(f"--programs {folder} {fault}: name another folder, or --no-programs")
        sentence = f"{folder} {fault}: no compiled programs are kept; --programs FOLDER keeps them elsewhere"
        print(f"hmcvi: {sentence}", file=sys.stderr)
        return
    jax.config.update("jax_enable_compilation_cache", True)
    jax.config.update("jax_compilation_cache_dir", str(folder.resolve()))
    jax.config.update("jax_compilation_cache_max_size", MOST_BYTES)
    # Every program: the many small ones together take as long as the few large ones.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    warnings.filterwarnings("ignore", DAMAGED)


def _open_to_others(folder: Path) -> str:
    """Say who else can write to a folder; "" where nobody can, or where the system knows no owners."""
    if not hasattr(os, "getuid"):
        return ""
    found = folder.stat()
    if found.st_uid != os.getuid():
        return "is another user's, and programs read from there would run"
    return "can be written by others, and programs read from there would run" if found.st_mode & 0o022 else ""
