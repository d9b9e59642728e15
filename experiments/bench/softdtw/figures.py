"""The figures that soft-DTW is to reach, read from the rows of a run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from ..packages import OURS
from ..report import Figure
from . import peers
from .peers import PLAIN
from .problems import MAIN_DIM
from .report import Report

GRID = {"family": "grid", "source": "features", "dim": MAIN_DIM, "gamma": 1.0}


def figures(report: Report, long_pair: int) -> list[Figure]:
    """Return the figures that this package is to reach, as far as they were measured."""
    return [
        *_speed_figures(report),
        *_ratio_figures(report),
        *_memory_figures(report),
        *_thread_figures(report, long_pair),
    ]


def _speed_figures(report: Report) -> Iterator[Figure]:
    isa = (report.machine.get("dalign") or {}).get("isa", "unknown")
    shape = {**GRID, "length": 1024, "threads": 1, "peer": OURS}
    for batch in (1, 16):
        what = f"ns per cell, forward+backward, D = {MAIN_DIM}, N = M = 1024, B = {batch}, one thread"
        bounds = (3.5, 3.0) if isa == "avx512" else (6.0, None)
        yield Figure(f"{what}, {isa}", _speed(report, **{**shape, "batch": batch}), *bounds)
        yield Figure(f"{what}, avx2", _speed(report, **{**shape, "family": "isa", "isa": "avx2", "batch": batch}), 6.0)


def _ratio_figures(report: Report) -> Iterator[Figure]:
    packages = [kind.name for kind in peers.ALL if kind.runs_on_torch and kind.name not in (OURS, PLAIN)]
    for threads in (1, 2):
        for length in (256, 1024):
            shape = {**GRID, "batch": 16, "length": length, "threads": threads}
            where = f"at B = 16, N = M = {length}, {'one thread' if threads == 1 else 'two threads'}"
            required, goal = (22.0, 30.0) if threads == 1 else (None, None)
            fastest = _quotient(_fastest(report, packages, shape), _speed(report, peer=OURS, **shape))
            plain = _quotient(_speed(report, peer=PLAIN, **shape), _speed(report, peer=OURS, **shape))
            name = f"times faster than the fastest torch package {where}"
            yield Figure(name, fastest, required, goal, higher_is_better=True)
            yield Figure(f"times faster than plain PyTorch {where}", plain, higher_is_better=True)


def _memory_figures(report: Report) -> Iterator[Figure]:
    for length, bound in ((4096, 1.0), (32768, 0.1)):
        rows = report.find(family="growth", peer=OURS, length=length, threads=1, status="ok")
        yield Figure(f"extra bytes per cell, fused, N = M = {length}", rows[0].bytes_per_cell if rows else None, bound)


def _thread_figures(report: Report, long_pair: int) -> Iterator[Figure]:
    for family, batch, length in (("grid", 16, 1024), ("threads", 1, long_pair)):
        shape = {**GRID, "family": family, "peer": OURS, "batch": batch, "length": length}
        speedup = _quotient(_speed(report, threads=1, **shape), _speed(report, threads=2, **shape))
        yield Figure(f"two threads against one, B = {batch}, N = M = {length}", speedup, 1.8, higher_is_better=True)


def _speed(report: Report, **wanted: Any) -> float | None:
    rows = report.find(**wanted)
    return rows[0].ns_per_cell("forward_backward") if rows else None


def _fastest(report: Report, names: Iterable[str], shape: dict[str, Any]) -> float | None:
    speeds = [speed for name in names if (speed := _speed(report, peer=name, **shape)) is not None]
    return min(speeds, default=None)


def _quotient(slow: float | None, fast: float | None) -> float | None:
    return slow / fast if slow and fast else None
