"""What results depend on besides the request: versions, device, precision, processor and cores."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

import jax

from .durable import sha256_of

__all__ = ["environment", "made_with", "processor", "visible_cores"]

PACKAGES = ("hmcvi", "jax", "jaxlib", "numpyro", "flax", "optax", "arviz", "numpy", "scipy", "scikit-learn")


def made_with() -> dict[str, Any]:
    """Return what a fit must have been made with to be continued from: versions, device and precision."""
    device = jax.devices()[0]
    return {
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "device": f"{device.platform}: {device.device_kind}",
        "precision": "float64" if jax.config.read("jax_enable_x64") else "float32",
        # None is JAX's own choice, by device: float32 on a CPU, TF32 on recent NVIDIA GPUs.
        "matmul_precision": jax.config.jax_default_matmul_precision,
    }


def environment() -> str:
    """Return a hash of the names and versions of all installed packages: what a lock file decides."""
    installed = {(dist.name, dist.version) for dist in importlib.metadata.distributions()}
    return sha256_of(repr(sorted(installed)).encode())


def processor() -> str:
    """Return the processor's name, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def visible_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
