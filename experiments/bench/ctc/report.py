"""What the CTC benchmark found, as tables."""

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
        "grid" (peers beside each other), "isa" (instruction sets) or "memory".
    peer, task, threads
        Who ran; "value" or "gradient".
    batch, length, classes, labels : int
        B, T, C and S.
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
    classes: int
    labels: int
    isa: str | None = None
    status: str = "ok"
    reason: str | None = None
    time: Spread | None = None
    error: float | None = None
    error_gradient: float | None = None
    extra_bytes: int | None = None

    @property
    def shape(self) -> str:
        """T, B, C and S, for people."""
        return f"T {self.length}, B {self.batch}, C {self.classes}, S {self.labels}"

    @property
    def ns_per_state(self) -> float | None:
        """Median nanoseconds per state and frame."""
        states = self.batch * self.length * (2 * self.labels + 1)
        return None if self.time is None else self.time.median * 1e9 / states

    def derived(self) -> dict[str, float | None]:
        return {"ns_per_state": self.ns_per_state}


class Report(report.Report):
    """Tables of times, errors and memory."""

    row_type = Row

    def tables(self) -> Iterable[str]:
        return [*self._grid(), *self._isa(), *self._memory()]

    def _grid(self) -> Iterable[str]:
        """One table of times for each task and number of threads, and one of errors."""
        rows = self.find(family="grid")
        for task, threads in unique((row.task, row.threads) for row in rows):
            chosen = [row for row in rows if (row.task, row.threads) == (task, threads)]
            yield f"## Milliseconds: {task} from logits, {threads_named(threads)}\n\n" + _by_shape(
                chosen, _milliseconds
            )
        exact = [row for row in rows if row.task == "gradient" and row.threads == 1 and row.error is not None]
        if exact:
            yield "## Error against float64: value / gradient\n\n" + _by_shape(exact, _errors)

    def _isa(self) -> Iterable[str]:
        rows = self.find(family="isa")
        for isa in unique(row.isa for row in rows):
            chosen = [row for row in rows if row.isa == isa]
            heading = f"## Milliseconds: gradient from logits, 1 thread, ours with {isa}\n\n"
            yield heading + _by_shape(chosen, _milliseconds)

    def _memory(self) -> Iterable[str]:
        rows = self.find(family="memory")
        if rows:
            yield "## MiB beyond logits and gradient, 1 thread\n\n" + _by_shape(rows, _mebibytes)


def _by_shape(rows: Sequence[Row], show: Callable[[Row], str]) -> str:
    """Return a table with a line per shape and a column per peer."""
    names = unique(row.peer for row in rows)
    found = {(row.shape, row.peer): row for row in rows}
    lines = []
    for shape in unique(row.shape for row in rows):
        cells = [found.get((shape, name)) for name in names]
        lines.append([shape, *("" if row is None else show(row) for row in cells)])
    return table(["", *names], lines)


def _milliseconds(row: Row) -> str:
    return number(row.time.median * 1e3) if row.time else f"{row.status}: {row.reason}"


def _errors(row: Row) -> str:
    return f"{number(row.error, 2)} / {number(row.error_gradient, 2)}"


def _mebibytes(row: Row) -> str:
    return number(row.extra_bytes / 2**20) if row.extra_bytes is not None else f"{row.status}: {row.reason}"
