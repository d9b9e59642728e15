"""What the GDTW benchmark found, as tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from .. import report
from ..harness import Spread
from ..report import number, table, threads_named, unique
from .peers import KERNEL, LAYER

CALLS, BATCH, SOLVERS, GROWTH, TRAINING = "calls", "batch", "solvers", "growth", "training"


@dataclass(frozen=True)
class Row(report.Row):
    """One measurement.

    Attributes
    ----------
    family : str
        "calls", "batch", "solvers", "growth" or "training".
    peer, setting : str
        Who ran, and with which quality or of which kind, "" where there is only one.
    task : str
        "forward", "backward", or "step", both with a loss between.
    threads, batch, length, dim : int
        Pairs, frames of each signal, features.
    through : str
        Ours: "kernel" or "layer".
    status, reason
        As in `..report.Row`.
    time : Spread or None
        In seconds.
    objective : float or None
        F of the warp that was found, in float64.
    excess : float or None
        Share by which it lies above the lowest F of all solvers.
    """

    spreads: ClassVar = ("time",)

    family: str
    peer: str
    setting: str
    task: str
    threads: int
    batch: int
    length: int
    dim: int
    through: str = ""
    status: str = "ok"
    reason: str | None = None
    time: Spread | None = None
    objective: float | None = None
    excess: float | None = None

    @property
    def who(self) -> str:
        """Peer and setting."""
        return f"{self.peer}, {self.setting}" if self.setting else self.peer

    @property
    def milliseconds(self) -> float | None:
        """Median."""
        return None if self.time is None else self.time.median * 1e3

    def derived(self) -> dict[str, float | None]:
        return {"milliseconds": self.milliseconds}


class Report(report.Report):
    """Tables of times and objectives."""

    row_type = Row

    def tables(self) -> Iterable[str]:
        return [*self._calls(), *self._batch(), *self._solvers(), *self._growth(), *self._training()]

    def _calls(self) -> Iterable[str]:
        rows = self.find(family=CALLS)
        lines = []
        for length, dim, quality in unique((row.length, row.dim, row.setting) for row in rows):
            shape = [row for row in rows if (row.length, row.dim, row.setting) == (length, dim, quality)]
            cells = [_first(shape, task, through) for task in ("forward", "backward") for through in (KERNEL, LAYER)]
            lines.append([str(length), str(dim), quality, *cells])
        heads = ["N = M", "D", "quality", "forward, kernel", "layer", "backward, kernel", "layer"]
        return [f"## Milliseconds of one pair, {threads_named(1)}\n\n" + table(heads, lines)] if rows else []

    def _batch(self) -> Iterable[str]:
        rows = self.find(family=BATCH)
        lines = [[row.task, row.setting, str(row.threads), _milliseconds(row)] for row in rows]
        if not rows:
            return []
        heading = f"## A batch of {rows[0].batch} pairs, N = M = {rows[0].length}, D = {rows[0].dim}\n\n"
        return [heading + table(["", "quality", "threads", "ms"], lines)]

    def _solvers(self) -> Iterable[str]:
        """One table for each D and length."""
        rows = self.find(family=SOLVERS)
        for dim, length in unique((row.dim, row.length) for row in rows):
            chosen = [row for row in rows if (row.dim, row.length) == (dim, length)]
            lines = [[row.who, _milliseconds(row), number(row.objective, 7), number(row.excess, 2)] for row in chosen]
            heads = ["", "ms", "objective", "above the lowest by"]
            yield f"## Solvers: one pair, N = M = {length}, D = {dim}, one thread\n\n" + table(heads, lines)

    def _growth(self) -> Iterable[str]:
        return self._by_length(GROWTH, "Milliseconds of a warp or path, without gradients")

    def _training(self) -> Iterable[str]:
        return self._by_length(TRAINING, "Milliseconds of a training step: loss and gradients")

    def _by_length(self, family: str, what: str) -> Iterable[str]:
        """A line per length, a column for each way."""
        rows = self.find(family=family)
        ways = unique(row.who for row in rows)
        lines = []
        for length in unique(row.length for row in rows):
            found = {row.who: _milliseconds(row) for row in rows if row.length == length}
            lines.append([str(length), *(found.get(who, "") for who in ways)])
        return (
            [f"## {what}: one pair, D = {rows[0].dim}, one thread\n\n" + table(["N = M", *ways], lines)] if rows else []
        )


def _first(rows: Sequence[Row], task: str, through: str) -> str:
    found = [row for row in rows if (row.task, row.through) == (task, through)]
    return _milliseconds(found[0]) if found else ""


def _milliseconds(row: Row) -> str:
    return number(row.milliseconds) if row.status == "ok" else f"{row.status}: {row.reason}"
