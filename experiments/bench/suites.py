"""Which benchmarks there are. A new one is a package that offers what `Suite` tells, and a name in this list."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from typing import Any, Protocol, cast

from . import report
from .options import Options
from .plots import Picture

NAMES = ("softdtw", "dtw", "ddtw", "ctc", "dilate", "gdtw")


class Suite(Protocol):
    """What a benchmark's package offers."""

    @property
    def Report(self) -> type[report.Report]:
        """What `run` returns; reads its JSON again."""

    @property
    def PICTURES(self) -> Mapping[str, Picture]:
        """Its pictures by name."""

    def run(self, options: Options) -> report.Report:
        """Measure everything and return the report."""

    def work(self, job: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Do one job inside a worker process."""


def find(name: str) -> Suite:
    """Return a suite by its name."""
    if name not in NAMES:
        raise ValueError(f"suite: expected one of {', '.join(NAMES)}, got {name!r}")
    return cast(Suite, importlib.import_module(f"{__package__}.{name}"))
