"""The figures that CTC is to reach, read from the rows of a run."""

from __future__ import annotations

from collections.abc import Iterator

from ..packages import OURS
from ..report import Figure, unique
from .peers import TORCH
from .problems import Case
from .report import Report, Row

FASTER = {Case(1000, 16, 13, 512): 8.0, Case(1000, 16, 32, 100): 8.0, Case(500, 32, 5000, 60): 3.0}


def figures(report: Report) -> list[Figure]:
    """Return the figures that this package is to reach, as far as they were measured."""
    return [*_grid(report), *_isa(report)]


def _grid(report: Report) -> Iterator[Figure]:
    for threads in report.options.get("threads", (1, 2)):
        for case, bound in FASTER.items():
            rows = _rows(report, "grid", case, task="gradient", threads=threads)
            yield Figure(f"{_name(case)}, threads: {threads}", _times_faster(rows), bound, higher_is_better=True)


def _isa(report: Report) -> Iterator[Figure]:
    for isa in unique(row.isa for row in report.find(family="isa")):
        for case, bound in FASTER.items():
            rows = _rows(report, "isa", case, isa=isa)
            if rows:
                yield Figure(
                    f"{_name(case)}, one thread, {isa}",
                    _times_faster(rows),
                    bound if isa != "generic" else None,
                    higher_is_better=True,
                )


def _name(case: Case) -> str:
    shape = f"T {case.frames}, B {case.batch}, C {case.classes}, S {case.labels}"
    return f"times faster than torch, value and gradient from logits, {shape}"


def _rows(report: Report, family: str, case: Case, **wanted: object) -> list[Row]:
    shape = {"length": case.frames, "batch": case.batch, "classes": case.classes, "labels": case.labels}
    return [row for row in report.find(family=family, **shape, **wanted) if row.time is not None]


def _times_faster(rows: list[Row]) -> float | None:
    """Return how many times as long as ours torch takes."""
    times = {row.peer: row.time.median for row in rows if row.time is not None}
    return times[TORCH] / times[OURS] if {TORCH, OURS} <= times.keys() else None
