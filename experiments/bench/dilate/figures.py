"""The figures that DILATE is to reach, read from the rows of a run."""

from __future__ import annotations

from collections.abc import Iterator

from ..packages import OURS
from ..report import Figure, unique
from .peers import AUTHORS, OURS64, PLAIN
from .problems import Case
from .report import Report

FORECAST = Case(64, 96)
LONG = (Case(16, 1024), Case(16, 1024, 12))
MAIN = (FORECAST, Case(64, 96, 12), *LONG)
LARGEST = Case(1, 4096)
FASTER = 50.0
NANOSECONDS, NANOSECONDS_GOAL = 6.0, 5.0
BYTES = 2.0  # a float for each cell would be 4; what is kept grows as N sqrt(N)


def figures(report: Report) -> list[Figure]:
    """Return the figures that this package is to reach, as far as they were measured."""
    return [*_faster(report), *_speeds(report), *_threads(report), *_isa(report), *_memory(report)]


def _faster(report: Report) -> Iterator[Figure]:
    for peer, bound in ((AUTHORS, FASTER), (PLAIN, None)):
        measured = _quotient(_time(report, FORECAST, peer), _time(report, FORECAST))
        name = f"times faster than {peer}, value and gradient, {_shape(FORECAST)}, one thread"
        yield Figure(name, measured, bound, higher_is_better=True)


def _speeds(report: Report) -> Iterator[Figure]:
    """The bound is for float32 and AVX-512; other numbers stand without one."""
    isa = (report.machine.get("dalign") or {}).get("isa", "unknown")
    for peer in (OURS, OURS64):
        for case in MAIN:
            time = _time(report, case, peer)
            measured = None if time is None else time * 1e9 / case.cells
            name = f"ns per cell, value and gradient, {peer}, {_shape(case)}, one thread, {isa}"
            bounded = isa == "avx512" and peer == OURS
            yield Figure(name, measured, NANOSECONDS if bounded else None, NANOSECONDS_GOAL if bounded else None)


def _threads(report: Report) -> Iterator[Figure]:
    for case in (FORECAST, LONG[-1]):
        measured = _quotient(_time(report, case), _time(report, case, threads=2))
        yield Figure(f"two threads against one, {_shape(case)}", measured, higher_is_better=True)


def _isa(report: Report) -> Iterator[Figure]:
    for isa in unique(row.isa for row in report.find(family="isa")):
        for case in MAIN:
            time = _time(report, case, family="isa", isa=isa)
            if time is not None:
                name = f"ns per cell, value and gradient, {OURS}, {_shape(case)}, one thread, {isa}"
                yield Figure(name, time * 1e9 / case.cells)


def _memory(report: Report) -> Iterator[Figure]:
    rows = report.find(family="memory", peer=OURS, batch=LARGEST.batch, length=LARGEST.length, status="ok")
    measured = rows[0].bytes_per_cell if rows else None
    yield Figure(f"bytes per cell beyond inputs and results, {OURS}, {_shape(LARGEST)}", measured, BYTES)


def _shape(case: Case) -> str:
    return f"B {case.batch}, N {case.length}, D {case.dim}"


def _time(
    report: Report, case: Case, peer: str = OURS, threads: int = 1, family: str = "grid", isa: str | None = None
) -> float | None:
    """Return the median seconds of value and gradient."""
    shape = {"batch": case.batch, "length": case.length, "dim": case.dim}
    rows = report.find(family=family, task="gradient", peer=peer, threads=threads, isa=isa, **shape)
    return rows[0].time.median if rows and rows[0].time else None


def _quotient(slow: float | None, fast: float | None) -> float | None:
    return slow / fast if slow and fast else None
