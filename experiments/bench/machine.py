"""On what a benchmark ran: processor, system, versions."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

PACKAGES = (
    "torch",
    "numpy",
    "numba",
    "llvmlite",
    "scipy",
    "scikit-learn",
    "aeon",
    "dtaidistance",
    "gdtw",
    "librosa",
    "linmdtw",
    "torchdtw",
    "tslearn",
    "pysdtw",
    "soft-dtw",
    "Cython",
    "matplotlib",
)


def describe() -> dict[str, Any]:
    """Return the facts about this machine and its software that a reader of timings needs."""
    return {
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "load_before": [round(load, 2) for load in os.getloadavg()],  # of other programs: 1, 5 and 15 minutes
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: version for name in PACKAGES if (version := _version(name)) is not None},
        "dalign": _build_info(),
    }


def cpu_model() -> str:
    """Return the processor's name and its family and model numbers (names of virtual processors say little)."""
    facts = _first_processor()
    numbers = " ".join(f"{key} {facts[key]}" for key in ("cpu family", "model") if key in facts)
    return f"{facts.get('model name', platform.processor() or 'unknown')} ({numbers or platform.machine()})"


def _first_processor() -> dict[str, str]:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return {}
    pairs = (line.partition(":") for line in text.split("\n\n")[0].splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _build_info() -> dict[str, Any] | None:
    try:
        import torch_dalign
    except ImportError:
        return None
    return {
        key: value if isinstance(value, str | int | float | bool) else str(value)
        for key, value in torch_dalign.build_info().items()
    }
