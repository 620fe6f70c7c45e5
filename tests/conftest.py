"""How the tests and the processes they start compile, with one cache for all, and the table of `make validate`."""

import os
import tempfile
from pathlib import Path

from .validation import Validation, record

__all__ = ["record"]

LONGEST = ("test_distributed", "test_examples", "test_compare", "test_interrupts", "test_kept_programs", "test_mesh")
"""Files of few tests that start processes: minutes each. xdist's own order, by number of tests, has them last."""


def pytest_addoption(parser):
    parser.addoption("--validation", metavar="FOLDER", type=Path, help="where the table of a whole validation goes")


def pytest_configure(config):
    if hasattr(config, "workerinput"):
        return  # a worker of xdist has the settings of the process that started it
    config._compilation_cache = tempfile.TemporaryDirectory(prefix="hmcvi-tests-")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = config._compilation_cache.name
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
    if config.option.markexpr != "validate":
        # Compiling is much of the tests' time: without LLVM's passes those of the samplers took 66 s of a processor in
        # place of 88. `make validate` compiles as users do, and so does who sets another level: XLA takes the last one.
        flags = os.environ.get("XLA_FLAGS", "").split()
        os.environ["XLA_FLAGS"] = " ".join(["--xla_backend_optimization_level=0", *flags])
    if config.option.validation:
        config.pluginmanager.register(Validation(config, config.option.validation))


def pytest_collection_modifyitems(items):
    """Put the files that take longest first: begun last, one would keep a worker busy while the other has none."""
    assert all((Path(__file__).parent / f"{name}.py").exists() for name in LONGEST)
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))


def pytest_unconfigure(config):
    if hasattr(config, "_compilation_cache"):
        config._compilation_cache.cleanup()
