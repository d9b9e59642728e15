"""What the DILATE benchmark found, as tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from .. import report
from ..harness import Spread
from ..report import number, table, threads_named, unique


@dataclass(frozen=True)
class Row(report.Row):
    """One measurement.

    Attributes
    ----------
    family : str
        "grid" (peers beside each other), "growth" (one ever longer item), "isa" (instruction sets) or "memory".
    peer, task, threads
        Who ran; "value" or "gradient".
    batch, length, dim : int
        B, N = M and D.
    isa : str or None
        The instruction set that was asked for.
    status, reason
        As in `..report.Row`.
    time : Spread or None
        In seconds.
    error, error_gradient : float or None
        Against float64, relative.
    extra_bytes : int or None
        Peak memory beyond inputs and results.
    """

    spreads: ClassVar = ("time",)

    family: str
    peer: str
    task: str
    threads: int
    batch: int
    length: int
    dim: int
    isa: str | None = None
    status: str = "ok"
    reason: str | None = None
    time: Spread | None = None
    error: float | None = None
    error_gradient: float | None = None
    extra_bytes: int | None = None

    @property
    def shape(self) -> str:
        """B, N and D, for people."""
        return f"B {self.batch}, N {self.length}, D {self.dim}"

    @property
    def cells(self) -> int:
        """Cells of all items."""
        return self.batch * self.length**2

    @property
    def ns_per_cell(self) -> float | None:
        """Median nanoseconds per cell."""
        return None if self.time is None else self.time.median * 1e9 / self.cells

    @property
    def bytes_per_cell(self) -> float | None:
        """Peak memory per cell."""
        return None if self.extra_bytes is None else self.extra_bytes / self.cells

    def derived(self) -> dict[str, float | None]:
        return {"ns_per_cell": self.ns_per_cell, "bytes_per_cell": self.bytes_per_cell}


class Report(report.Report):
    """Tables of times, growth, errors and memory."""

    row_type = Row

    def tables(self) -> Iterable[str]:
        return [*self._grid(), *self._errors(), *self._growth(), *self._isa(), *self._memory()]

    def _grid(self) -> Iterable[str]:
        rows = self.find(family="grid")
        for task, threads in unique((row.task, row.threads) for row in rows):
            chosen = [row for row in rows if (row.task, row.threads) == (task, threads)]
            heading = f"## {_named(task)}, {threads_named(threads)}: milliseconds (ns per cell)"
            yield f"{heading}\n\n" + _by_shape(chosen, _milliseconds)

    def _errors(self) -> Iterable[str]:
        exact = [row for row in self.find(family="grid", task="gradient", threads=1) if row.error is not None]
        if exact:
            yield "## Error against float64: value / gradient\n\n" + _by_shape(exact, _errors)

    def _growth(self) -> Iterable[str]:
        rows = self.find(family="growth")
        if rows:
            yield "## ns per cell of one item, value and gradient, 1 thread\n\n" + _by_shape(rows, _nanoseconds)

    def _isa(self) -> Iterable[str]:
        rows = self.find(family="isa")
        for isa in unique(row.isa for row in rows):
            chosen = [row for row in rows if row.isa == isa]
            yield f"## ns per cell, value and gradient, 1 thread, ours with {isa}\n\n" + _by_shape(chosen, _nanoseconds)

    def _memory(self) -> Iterable[str]:
        rows = self.find(family="memory")
        if rows:
            heading = "## MiB beyond inputs, value and gradient (bytes per cell), 1 thread"
            yield f"{heading}\n\n" + _by_shape(rows, _mebibytes)


def _named(task: str) -> str:
    return "Value and gradient" if task == "gradient" else "Value"


def _by_shape(rows: Sequence[Row], show: Callable[[Row], str]) -> str:
    """Return a table with a line per shape and a column per peer."""
    names = unique(row.peer for row in rows)
    found = {(row.shape, row.peer): row for row in rows}
    lines = []
    for shape in unique(row.shape for row in rows):
        cells = [found.get((shape, name)) for name in names]
        lines.append([shape, *("" if row is None else show(row) for row in cells)])
    return table(["", *names], lines)


def _missing(row: Row) -> str:
    return f"{row.status}: {row.reason}"


def _milliseconds(row: Row) -> str:
    return f"{number(row.time.median * 1e3)} ({number(row.ns_per_cell)})" if row.time else _missing(row)


def _nanoseconds(row: Row) -> str:
    return number(row.ns_per_cell) if row.time else _missing(row)


def _errors(row: Row) -> str:
    return f"{number(row.error, 2)} / {number(row.error_gradient, 2)}"


def _mebibytes(row: Row) -> str:
    if row.extra_bytes is None:
        return _missing(row)
    return f"{number(row.extra_bytes / 2**20)} ({number(row.bytes_per_cell)})"
