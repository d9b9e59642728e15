"""The figures that hard DTW and the averages are to reach, read from the rows of a run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..packages import OURS
from ..report import Figure
from .averages import OWN_TARGET, Problem
from .problems import MAIN_DIM
from .report import Report, Row

LENGTH = 1024  # of the figures to reach
LONGEST = 100_000
AHEAD = 1.0  # times as fast as the fastest peer
FASTER_THAN_TSLEARN = 10.0


def figures(report: Report, problems: tuple[Problem, ...]) -> list[Figure]:
    """Return the figures that this package is to reach, as far as they were measured."""
    return [*_speeds(report), *_against_peers(report), *_averages(report, problems), *_long(report), *_pairs(report)]


def _speeds(report: Report) -> Iterator[Figure]:
    """Bounds are for AVX-512; with another instruction set the number stands without one."""
    isa = (report.machine.get("dalign") or {}).get("isa", "unknown")
    for source, what, bound in (("cost", "a given cost", 0.5), ("features", f"features, D = {MAIN_DIM}", 0.9)):
        row = _own(report, task="value", source=source)
        name = f"ns per cell, value from {what}, N = M = {LENGTH}, one pair, one thread, {isa}"
        yield Figure(name, row.ns_per_cell if row else None, bound if isa == "avx512" else None)


def _against_peers(report: Report) -> Iterator[Figure]:
    for task in ("value", "path"):
        for source, dim, what in (
            ("cost", MAIN_DIM, "a given cost"),
            ("features", MAIN_DIM, f"features, D = {MAIN_DIM}"),
            ("features", 1, "features, D = 1"),
        ):
            shape = {"family": "grid", "task": task, "source": source, "dim": dim}
            peers = _timed(report, **shape, batch=1, length=LENGTH, threads=1)
            name = f"times faster than the fastest peer, {task} from {what}, N = M = {LENGTH}, one thread"
            yield Figure(name, _times_faster(peers), AHEAD, higher_is_better=True)


def _averages(report: Report, problems: tuple[Problem, ...]) -> Iterator[Figure]:
    for problem in problems:
        rows = _timed(report, family="averages", task=problem.name, threads=1)
        rows = [row for row in rows if row.peer != OURS or row.until == OWN_TARGET]
        what = f"{problem.name} of {problem.count} series of length {problem.length}"
        name = f"times faster than tslearn at equal objective, {what}, one thread"
        yield Figure(name, _times_faster(rows), FASTER_THAN_TSLEARN, higher_is_better=True)


def _long(report: Report) -> Iterator[Figure]:
    rows = report.find(family="long", task="path", length=LONGEST, status="ok")
    extra = rows[0].extra_bytes / 2**30 if rows else None
    yield Figure(f"GiB of extra memory, path of {LONGEST} x {LONGEST}, D = {MAIN_DIM}", extra, 1.0)


def _pairs(report: Report) -> Iterator[Figure]:
    for row in _timed(report, family="pairs", peer=OURS):
        rows = _timed(report, family="pairs", band=row.band, threads=row.threads)
        where = "no band" if row.band is None else f"band {row.band}"
        name = f"times faster than the fastest peer, all pairs of {row.batch} series, {where}, threads: {row.threads}"
        yield Figure(name, _times_faster(rows), higher_is_better=True)


def _own(report: Report, **wanted: Any) -> Row | None:
    shape = {"family": "grid", "peer": OURS, "batch": 1, "length": LENGTH, "dim": MAIN_DIM, "threads": 1}
    return next(iter(_timed(report, **shape, **wanted)), None)


def _timed(report: Report, **wanted: Any) -> list[Row]:
    return [row for row in report.find(**wanted) if row.time is not None and row.status == "ok"]


def _times_faster(rows: list[Row]) -> float | None:
    """Return how many times as long as ours the fastest of the others takes."""
    times = [(row.peer == OURS, row.time.median) for row in rows if row.time is not None]
    ours, others = ([seconds for own, seconds in times if own is wanted] for wanted in (True, False))
    return min(others) / min(ours) if ours and others else None
