"""The figures that the general lattice and CTC are to reach, read from the rows of a run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..packages import OURS
from ..report import Figure
from .peers import AUTOGRAD, PLAIN, TORCH_CTC
from .problems import MAIN_BATCH
from .report import CTC_SHAPES, LATTICE, Report
from .settings import CTC_A, SDTW_E

LENGTH = 1024  # of the figures to reach
NANOSECONDS = 6.0
FASTER_THAN_PLAIN = 10.0
FASTER_THAN_TORCH = {(1000, 512): 8.0, (1000, 100): 8.0, (500, 60): 3.0}  # by (T, S)


def figures(report: Report) -> list[Figure]:
    """Return the figures that this package is to reach, as far as they were measured."""
    return [*_speeds(report), *_against_plain(report), *_threads(report), *_against_torch(report)]


def _speeds(report: Report) -> Iterator[Figure]:
    """The bound is for AVX-512; with another instruction set the number stands without one."""
    isa = (report.machine.get("dalign") or {}).get("isa", "unknown")
    for setting in (CTC_A.name, SDTW_E.name):
        name = f"ns per cell, forward+backward, {setting}, B = {MAIN_BATCH}, N = {LENGTH}, one thread, {isa}"
        yield Figure(name, _nanoseconds(report, setting, OURS), NANOSECONDS if isa == "avx512" else None)


def _against_plain(report: Report) -> Iterator[Figure]:
    for setting in (CTC_A.name, SDTW_E.name):
        ours = _nanoseconds(report, setting, OURS)
        for peer in (AUTOGRAD, PLAIN):
            name = f"times faster than {peer}, {setting}, B = {MAIN_BATCH}, N = {LENGTH}, one thread"
            yield Figure(
                name, _quotient(_nanoseconds(report, setting, peer), ours), FASTER_THAN_PLAIN, higher_is_better=True
            )


def _threads(report: Report) -> Iterator[Figure]:
    for setting in (CTC_A.name, SDTW_E.name):
        one, two = (_nanoseconds(report, setting, OURS, threads) for threads in (1, 2))
        name = f"two threads against one, {setting}, B = {MAIN_BATCH}, N = {LENGTH}"
        yield Figure(name, _quotient(one, two), higher_is_better=True)


def _against_torch(report: Report) -> Iterator[Figure]:
    for (length, columns), bound in FASTER_THAN_TORCH.items():
        for threads in (1, 2):
            shape = {"family": CTC_SHAPES, "length": length, "columns": columns, "threads": threads}
            times = _quotient(_median(report, **shape, peer=TORCH_CTC), _median(report, **shape, peer=OURS))
            name = f"times faster than torch's CTC, T = {length}, S = {columns}, threads: {threads}"
            yield Figure(name, times, bound, higher_is_better=True)


def _nanoseconds(report: Report, setting: str, peer: str, threads: int = 1) -> float | None:
    shape = {"family": LATTICE, "task": setting, "batch": MAIN_BATCH, "length": LENGTH}
    rows = report.find(**shape, peer=peer, threads=threads, status="ok")
    return rows[0].ns_per_cell if rows else None


def _median(report: Report, **wanted: Any) -> float | None:
    rows = [row for row in report.find(**wanted, status="ok") if row.time]
    return rows[0].time.median if rows else None


def _quotient(slow: float | None, fast: float | None) -> float | None:
    return slow / fast if slow and fast else None
