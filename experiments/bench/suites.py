"""Which benchmarks there are. A new one is a module with `run` and `work`, and a name in this list."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from typing import Any, Protocol, cast

from .options import Options
from .report import Report

NAMES = ("softdtw",)


class Suite(Protocol):
    """What a benchmark's module offers."""

    def run(self, options: Options) -> Report:
        """Measure everything and return the report."""

    def work(self, job: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Do one job inside a worker process."""


def find(name: str) -> Suite:
    """Return a suite by its name."""
    if name not in NAMES:
        raise ValueError(f"suite: expected one of {', '.join(NAMES)}, got {name!r}")
    return cast(Suite, importlib.import_module(f"{__package__}.{name}"))
