"""What the DTW benchmark found, as tables."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from .. import report
from ..harness import Spread
from ..report import by_shape, given, number, table, threads_named, unique


@dataclass(frozen=True)
class Row(report.Row):
    """One measurement.

    Attributes
    ----------
    family : str
        "grid" (single pairs and batches), "long" (long pairs of ours), "pairs" (all pairs) or "averages".
    peer, task, source, threads
        Who ran; "value", "path", "all pairs" or the name of an average; from "features" or "cost".
    batch : int
        Pairs of the grid, series of the other families.
    length, dim : int
        Frames of each sequence, features.
    band : int or None
        Half-width of the Sakoe-Chiba band in frames.
    until, computes : str or None
        Of averages: what ended the search, and the number type.
    status, reason
        As in `..report.Row`.
    cells : int or None
        Cells of the lattices that are solved, where their number is known beforehand.
    time : Spread or None
        In seconds.
    error : float or None
        Against float64, relative.
    objective : float or None
        Of averages: the sum of (soft-)DTW to the nearest center, in float64.
    iterations : int or None
        Of averages.
    extra_bytes : int or None
        Peak memory beyond inputs and results.
    """

    spreads: ClassVar = ("time",)

    family: str
    peer: str
    task: str
    source: str
    threads: int
    batch: int
    length: int
    dim: int
    band: int | None = None
    until: str | None = None
    computes: str | None = None
    status: str = "ok"
    reason: str | None = None
    cells: int | None = None
    time: Spread | None = None
    error: float | None = None
    objective: float | None = None
    iterations: int | None = None
    extra_bytes: int | None = None

    @property
    def ns_per_cell(self) -> float | None:
        """Median nanoseconds per cell."""
        return None if self.time is None or not self.cells else self.time.median * 1e9 / self.cells

    def derived(self) -> dict[str, float | None]:
        return {"ns_per_cell": self.ns_per_cell}


class Report(report.Report):
    """Tables of times, errors, memory and objectives."""

    row_type = Row

    def tables(self) -> Iterable[str]:
        return [*self._grid(), *self._pairs(), *self._averages(), *self._long()]

    def _grid(self) -> Iterable[str]:
        """One table for each (task, source, dim, threads), and one of its errors."""
        rows = self.find(family="grid")
        for group in unique((row.task, row.source, row.dim, row.threads) for row in rows):
            chosen = [row for row in rows if (row.task, row.source, row.dim, row.threads) == group]
            task, source, dim, threads = group
            heading = f"## ns per cell: {task} {given(source, dim)}, {threads_named(threads)}\n\n"
            errors = [row for row in chosen if row.error is not None]
            below = "Relative error against float64:\n\n" + by_shape(errors, _error) + "\n" if errors else ""
            yield heading + by_shape(chosen, _speed) + "\n" + below

    def _pairs(self) -> Iterable[str]:
        rows = self.find(family="pairs")
        for group in unique((row.band, row.threads) for row in rows):
            chosen = [row for row in rows if (row.band, row.threads) == group]
            band, threads = group
            where = "no band" if band is None else f"band of {band} frames to each side"
            heading = f"## All pairs of {chosen[0].batch} series of length {chosen[0].length}: {where}, "
            lines = [[row.peer, _seconds(row), number(row.ns_per_cell), _error(row)] for row in chosen]
            heads = ["", "seconds", "ns per cell of a pair", "error of the first row"]
            yield f"{heading}{threads_named(threads)}\n\n" + table(heads, lines)

    def _averages(self) -> Iterable[str]:
        rows = self.find(family="averages")
        for task in unique(row.task for row in rows):
            chosen = [row for row in rows if row.task == task]
            lines = [
                [
                    row.peer,
                    row.computes or "",
                    row.until or "",
                    str(row.threads),
                    _seconds(row),
                    _objective(row),
                    str(row.iterations or ""),
                ]
                for row in chosen
            ]
            heading = f"## {task} of {chosen[0].batch} series of length {chosen[0].length}\n\n"
            yield heading + table(["", "computes in", "until", "threads", "seconds", "objective", "iterations"], lines)

    def _long(self) -> Iterable[str]:
        rows = self.find(family="long")
        if not rows:
            return
        lines = [
            [row.task, str(row.length), str(row.threads), _seconds(row), number(row.ns_per_cell), _mebibytes(row)]
            for row in rows
        ]
        heads = ["", "N = M", "threads", "seconds", "ns per cell", "extra MiB"]
        yield f"## Long pairs of ours, {given('features', rows[0].dim)}\n\n" + table(heads, lines)


def _speed(row: Row) -> str:
    return number(row.ns_per_cell) if row.status == "ok" else f"{row.status}: {row.reason}"


def _seconds(row: Row) -> str:
    return number(row.time.median if row.time else None) if row.status == "ok" else f"{row.status}: {row.reason}"


def _error(row: Row) -> str:
    return number(row.error, 2)


def _mebibytes(row: Row) -> str:
    return number(None if row.extra_bytes is None else row.extra_bytes / 2**20)


def _objective(row: Row) -> str:
    return "-" if row.objective is None else f"{row.objective:.8g}"
