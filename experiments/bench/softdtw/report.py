"""What the soft-DTW benchmark found, as tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from .. import report
from ..harness import Spread
from ..report import by_shape, given, number, threads_named, unique


@dataclass(frozen=True)
class Row(report.Row):
    """One peer on one shape.

    Attributes
    ----------
    family : str
        The part of the benchmark it belongs to.
    peer, source, threads, batch, length, dim, gamma
        What ran; `length` is N = M.
    status : str
        "ok", "skipped" (by a prediction or the time budget) or "failed"; the last two say why in `reason`, and "ok"
        says there when a result is not finite.
    isa : str or None
        Instruction set asked for, None for the default.
    forward, forward_backward : Spread or None
        Times in seconds.
    value_error, gradient_error : float or None
        Against float64, relative to the value and to the largest entry of the gradient.
    extra_bytes : int or None
        Peak memory of forward and backward beyond inputs, value and gradients.
    """

    spreads: ClassVar = ("forward", "forward_backward")

    family: str
    peer: str
    source: str
    threads: int
    batch: int
    length: int
    dim: int
    gamma: float
    status: str = "ok"
    reason: str | None = None
    isa: str | None = None
    forward: Spread | None = None
    forward_backward: Spread | None = None
    value_error: float | None = None
    gradient_error: float | None = None
    extra_bytes: int | None = None

    @property
    def cells(self) -> int:
        """Cells of all lattices of the batch."""
        return self.batch * self.length**2

    def ns_per_cell(self, direction: str) -> float | None:
        """Median nanoseconds per cell of "forward" or "forward_backward"."""
        spread: Spread | None = getattr(self, direction)
        return None if spread is None else spread.median * 1e9 / self.cells

    @property
    def bytes_per_cell(self) -> float | None:
        """Extra bytes per cell."""
        return None if self.extra_bytes is None else self.extra_bytes / self.cells

    def derived(self) -> dict[str, float | None]:
        return {
            "forward_ns_per_cell": self.ns_per_cell("forward"),
            "forward_backward_ns_per_cell": self.ns_per_cell("forward_backward"),
            "extra_bytes_per_cell": self.bytes_per_cell,
        }


class Report(report.Report):
    """Tables of times, errors and memory."""

    row_type = Row

    def tables(self) -> Iterable[str]:
        return [*self._time_tables(), *self._tables_by_length()]

    def _time_tables(self) -> Iterable[str]:
        """Return one table of times for each (family, source, dim, gamma, threads)."""
        timed = [row for row in self.rows if row.family in ("grid", "gamma", "threads", "isa")]
        for group in unique((row.family, row.source, row.dim, row.gamma, row.threads, row.isa) for row in timed):
            rows = [row for row in timed if (row.family, row.source, row.dim, row.gamma, row.threads, row.isa) == group]
            yield _title(*group) + by_shape(rows, _times) + "\n" + _errors_if_any(rows)

    def _tables_by_length(self) -> Iterable[str]:
        """Return growth of time and memory with length."""
        for family, title in (("memory", "Extra memory"), ("growth", "Growth with length")):
            rows = [row for row in self.rows if row.family == family]
            for group in unique((row.source, row.dim, row.threads) for row in rows):
                chosen = [row for row in rows if (row.source, row.dim, row.threads) == group]
                source, dim, threads = group
                heading = f"## {title}: {given(source, dim)}, B = 1, {threads_named(threads)}\n\n"
                yield heading + by_shape(chosen, _memory)


def _times(row: Row) -> str:
    if row.status != "ok":
        return f"{row.status}: {row.reason}"
    return f"{number(row.ns_per_cell('forward'))} / {number(row.ns_per_cell('forward_backward'))}"


def _memory(row: Row) -> str:
    if row.status != "ok":
        return f"{row.status}: {row.reason}"
    parts = [f"{number(row.bytes_per_cell)} B per cell ({number((row.extra_bytes or 0) / 2**20)} MiB)"]
    if row.forward_backward is not None:
        parts.append(f"{_times(row)} ns, {number(row.forward_backward.median)} s")
    return "; ".join(parts)


def _errors_if_any(rows: Sequence[Row]) -> str:
    checked = [row for row in rows if row.gradient_error is not None or (row.status == "ok" and row.reason)]
    if not checked:
        return ""
    return "Error against float64 (value / gradient):\n\n" + by_shape(checked, _errors) + "\n"


def _errors(row: Row) -> str:
    return row.reason or f"{number(row.value_error, 2)} / {number(row.gradient_error, 2)}"


def _title(family: str, source: str, dim: int, gamma: float, threads: int, isa: str | None) -> str:
    where = f", DALIGN_ISA={isa}" if isa else ""
    what = f"{given(source, dim)}, gamma {gamma:g}, {threads_named(threads)}{where}"
    return f"## ns per cell, forward / forward+backward: {what} ({family})\n\n"
