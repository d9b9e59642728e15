"""What the dDTW benchmark found, as tables."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from .. import report
from ..harness import Spread
from ..packages import OURS
from ..report import number, table, threads_named, unique
from .paper import DEVICE, LOSSES, TABLE_VI

TABLE, LATTICE, CTC_SHAPES = "table", "lattice", "ctc"


@dataclass(frozen=True)
class Row(report.Row):
    """One measurement, forward and backward.

    Attributes
    ----------
    family : str
        "table" (Table VI of the paper), "lattice" (given costs) or "ctc".
    peer, task, threads
        Who ran; the loss, or the setting of the lattice.
    batch, length, columns, dim : int
        B, N, M (targets of a loss, columns of a given lattice), features or classes.
    cells : int
        Of all lattices.
    status, reason
        As in `..report.Row`.
    time : Spread or None
        In seconds.
    value_error, gradient_error : float or None
        Against float64: relative, and relative to the gradient's largest entry.
    extra_bytes : int or None
        Peak memory beyond inputs and results, on one thread.
    """

    spreads: ClassVar = ("time",)

    family: str
    peer: str
    task: str
    threads: int
    batch: int
    length: int
    columns: int
    dim: int
    cells: int
    status: str = "ok"
    reason: str | None = None
    time: Spread | None = None
    value_error: float | None = None
    gradient_error: float | None = None
    extra_bytes: int | None = None

    @property
    def ns_per_cell(self) -> float | None:
        """Median nanoseconds per cell."""
        return None if self.time is None else self.time.median * 1e9 / self.cells

    def derived(self) -> dict[str, float | None]:
        return {"ns_per_cell": self.ns_per_cell}


class Report(report.Report):
    """Tables of times, memory and errors."""

    row_type = Row

    def tables(self) -> Iterable[str]:
        yield from self._table_vi()
        yield from self._lattices()
        yield from self._ctc()

    def _table_vi(self) -> Iterable[str]:
        """Ours beside the paper's, then everybody, for each number of threads."""
        rows = self.find(family=TABLE)
        for threads in unique(row.threads for row in rows):
            chosen = [row for row in rows if row.threads == threads]
            tasks = unique(row.task for row in chosen if row.peer == OURS)
            heads = ["(N, M)", *(f"{task} of ours" for task in tasks), *(f"{loss}, paper's GPU" for loss in LOSSES)]
            found = {(row.length, row.columns, row.task, row.peer): row for row in chosen}
            shapes = unique((row.length, row.columns) for row in chosen)
            lines = [
                [str(shape), *(_milliseconds(found.get((*shape, task, OURS))) for task in tasks), *_of_paper(shape)]
                for shape in shapes
            ]
            text = f"## Table VI: ms and MB, forward and backward, {threads_named(threads)}\n\n{table(heads, lines)}\n"
            text += f"The right columns are the paper's own, on a GPU ({DEVICE}).\n\n"
            pairs = unique((row.task, row.peer) for row in chosen)
            everybody = [
                [str(shape), *(_milliseconds(found.get((*shape, *pair))) for pair in pairs)] for shape in shapes
            ]
            yield text + table(["(N, M)", *(f"{task}: {peer}" for task, peer in pairs)], everybody) + _errors(chosen)

    def _lattices(self) -> Iterable[str]:
        """One table for each number of threads."""
        rows = self.find(family=LATTICE)
        for threads in unique(row.threads for row in rows):
            chosen = [row for row in rows if row.threads == threads]
            peers = unique(row.peer for row in chosen)
            found = {(row.batch, row.length, row.task, row.peer): row for row in chosen}
            lines = []
            for batch, length, task in unique((row.batch, row.length, row.task) for row in chosen):
                cells = [_nanoseconds(found.get((batch, length, task, peer))) for peer in peers]
                lines.append([task, str(batch), str(length), *cells])
            heading = f"## ns per cell of the lattice alone, {threads_named(threads)}; extra bytes per cell\n\n"
            yield heading + table(["setting", "B", "N", *peers], lines) + _errors(chosen)

    def _ctc(self) -> Iterable[str]:
        rows = self.find(family=CTC_SHAPES)
        for threads in unique(row.threads for row in rows):
            chosen = [row for row in rows if row.threads == threads]
            peers = unique(row.peer for row in chosen)
            shapes = unique((row.length, row.batch, row.dim, row.columns) for row in chosen)
            found = {(row.length, row.batch, row.dim, row.columns, row.peer): row for row in chosen}
            lines = [[str(shape), *(_milliseconds(found.get((*shape, peer))) for peer in peers)] for shape in shapes]
            heading = f"## CTC from logits, ms and MB, {threads_named(threads)}\n\n"
            yield heading + table(["(T, B, C, S)", *peers], lines) + _errors(chosen)


def _milliseconds(row: Row | None) -> str:
    """Time and memory, where it was measured."""
    if row is None:
        return ""
    if row.status != "ok":
        return f"{row.status}: {row.reason}"
    memory = "" if row.extra_bytes is None else f" / {number(max(row.extra_bytes, 0) / 1e6)}"
    return number(row.time.median * 1e3 if row.time else None) + memory


def _nanoseconds(row: Row | None) -> str:
    if row is None:
        return ""
    if row.status != "ok":
        return f"{row.status}: {row.reason}"
    memory = "" if row.extra_bytes is None else f"; {number(max(row.extra_bytes, 0) / row.cells, 2)} B"
    return number(row.ns_per_cell) + memory


def _of_paper(shape: tuple[int, int]) -> list[str]:
    entries = TABLE_VI.get(shape)
    return [""] * len(LOSSES) if entries is None else [f"{time:g} / {memory:g}" for time, memory in entries]


def _errors(rows: Iterable[Row]) -> str:
    """One line: the largest errors of each peer."""
    worst: dict[str, tuple[float, float]] = {}
    for row in rows:
        if row.value_error is not None and row.gradient_error is not None:
            value, gradient = worst.get(row.peer, (0.0, 0.0))
            worst[row.peer] = max(value, row.value_error), max(gradient, row.gradient_error)
    each = [f"{peer} {value:.1e} / {gradient:.1e}" for peer, (value, gradient) in worst.items()]
    return f"\nLargest errors against float64, value / gradient: {', '.join(each)}.\n" if each else ""
