"""What a benchmark found: rows and figures, as JSON and as markdown tables."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .harness import Spread

SCHEMA = 1
STATUSES = ("ok", "skipped", "failed")


@dataclass(frozen=True)
class Row:
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

    def to_json(self) -> dict[str, Any]:
        """Return the row with the derived numbers that a reader looks for."""
        derived = {
            "forward_ns_per_cell": self.ns_per_cell("forward"),
            "forward_backward_ns_per_cell": self.ns_per_cell("forward_backward"),
            "extra_bytes_per_cell": self.bytes_per_cell,
        }
        return {**asdict(self), **derived}

    @classmethod
    def from_json(cls, entries: dict[str, Any]) -> Row:
        """Read a row; raises KeyError or TypeError when it does not have the schema."""
        known = {name: entries[name] for name in cls.__dataclass_fields__}
        for direction in ("forward", "forward_backward"):
            if known[direction] is not None:
                known[direction] = Spread(**known[direction])
        return cls(**known)


@dataclass(frozen=True)
class Figure:
    """A number that is to be reached: at most `required` (and better `goal`), or at least when `higher_is_better`."""

    name: str
    measured: float | None
    required: float | None = None
    goal: float | None = None
    higher_is_better: bool = False

    @property
    def verdict(self) -> str:
        """Return "goal reached", "reached", "missed", "not measured" or "" where nothing is asked for."""
        if self.measured is None:
            return "not measured"
        if self.goal is not None and self._reaches(self.goal):
            return "goal reached"
        if self.required is None:
            return ""
        return "reached" if self._reaches(self.required) else "missed"

    def _reaches(self, bound: float) -> bool:
        assert self.measured is not None
        return self.measured >= bound if self.higher_is_better else self.measured <= bound


@dataclass
class Report:
    """Everything one run found."""

    suite: str
    date: str
    seconds: float
    options: dict[str, Any]
    machine: dict[str, Any]
    peers: list[dict[str, Any]]
    rows: list[Row] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    schema: int = SCHEMA

    def find(self, **wanted: Any) -> list[Row]:
        """Return the rows with these attributes."""
        return [row for row in self.rows if all(getattr(row, name) == value for name, value in wanted.items())]

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON objects."""
        figures = [{**asdict(figure), "verdict": figure.verdict} for figure in self.figures]
        rest = {name: getattr(self, name) for name in self.__dataclass_fields__ if name not in ("rows", "figures")}
        return {**rest, "figures": figures, "rows": [row.to_json() for row in self.rows]}

    @classmethod
    def from_json(cls, entries: dict[str, Any]) -> Report:
        """Read a report; raises ValueError, KeyError or TypeError when it does not have the schema."""
        if entries["schema"] != SCHEMA:
            raise ValueError(f"schema: expected {SCHEMA}, got {entries['schema']}")
        known = {name: entries[name] for name in cls.__dataclass_fields__}
        known["rows"] = [Row.from_json(row) for row in entries["rows"]]
        known["figures"] = [
            Figure(**{name: figure[name] for name in Figure.__dataclass_fields__}) for figure in entries["figures"]
        ]
        return cls(**known)

    def write(self, folder: Path) -> None:
        """Write <suite>.json and <suite>.md."""
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.to_json(), indent=1, allow_nan=False)
        (folder / f"{self.suite}.json").write_text(text + "\n")
        (folder / f"{self.suite}.md").write_text(self.markdown())

    def markdown(self) -> str:
        """Return all tables."""
        return "\n".join([self._heading(), self.figures_table(), *self._time_tables(), *self._tables_by_length()])

    def figures_table(self) -> str:
        """Return the figures to reach."""
        lines = [
            [
                figure.name,
                _number(figure.measured),
                _bound(figure, figure.required),
                _bound(figure, figure.goal),
                figure.verdict,
            ]
            for figure in self.figures
        ]
        return "## Figures to reach\n\n" + table(["figure", "measured", "required", "goal", ""], lines)

    def _heading(self) -> str:
        dalign = self.machine.get("dalign") or {}
        lines = [
            f"# Benchmark: {self.suite}",
            "",
            f"{self.machine['cpu']}, {self.machine['cores']} cores, instruction set {dalign.get('isa', 'unknown')}; "
            f"{self.date}; {self.seconds / 60:.0f} minutes; seed {self.options.get('seed')}. Made by "
            f"`python -m experiments.bench {self.suite}`; how is told in `experiments/bench/__init__.py`.",
            "",
        ]
        peers = [[peer["name"], peer["version"] or "-", peer["computes"], peer["missing"] or ""] for peer in self.peers]
        return "\n".join(lines) + table(["peer", "version", "computes in", "missing because"], peers)

    def _time_tables(self) -> Iterable[str]:
        """Return one table of times for each (family, source, dim, gamma, threads)."""
        timed = [row for row in self.rows if row.family in ("grid", "gamma", "threads", "isa")]
        for group in _unique((row.family, row.source, row.dim, row.gamma, row.threads, row.isa) for row in timed):
            rows = [row for row in timed if (row.family, row.source, row.dim, row.gamma, row.threads, row.isa) == group]
            yield _title(*group) + _by_shape(rows, _times) + "\n" + _errors_if_any(rows)

    def _tables_by_length(self) -> Iterable[str]:
        """Return growth of time and memory with length."""
        for family, title in (("memory", "Extra memory"), ("growth", "Growth with length")):
            rows = [row for row in self.rows if row.family == family]
            for group in _unique((row.source, row.dim, row.threads) for row in rows):
                chosen = [row for row in rows if (row.source, row.dim, row.threads) == group]
                source, dim, threads = group
                yield f"## {title}: {_given(source, dim)}, B = 1, {_threads(threads)}\n\n" + _by_shape(chosen, _memory)


def table(heads: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Return a markdown table."""
    cells = [list(heads), ["---"] * len(heads), *map(list, lines)]
    return "".join("| " + " | ".join(line) + " |\n" for line in cells)


def _by_shape(rows: Sequence[Row], show: Callable[[Row], str]) -> str:
    """Return a table with a line per shape and a column per peer."""
    peers = _unique(row.peer for row in rows)
    found = {(row.batch, row.length, row.peer): row for row in rows}
    shapes = _unique((row.batch, row.length) for row in rows)
    lines = []
    for batch, length in shapes:
        cells = [found.get((batch, length, peer)) for peer in peers]
        lines.append([str(batch), str(length), *("" if row is None else show(row) for row in cells)])
    return table(["B", "N = M", *peers], lines)


def _times(row: Row) -> str:
    if row.status != "ok":
        return f"{row.status}: {row.reason}"
    return f"{_number(row.ns_per_cell('forward'))} / {_number(row.ns_per_cell('forward_backward'))}"


def _memory(row: Row) -> str:
    if row.status != "ok":
        return f"{row.status}: {row.reason}"
    parts = [f"{_number(row.bytes_per_cell)} B per cell ({_number((row.extra_bytes or 0) / 2**20)} MiB)"]
    if row.forward_backward is not None:
        parts.append(f"{_times(row)} ns, {_number(row.forward_backward.median)} s")
    return "; ".join(parts)


def _errors_if_any(rows: Sequence[Row]) -> str:
    checked = [row for row in rows if row.gradient_error is not None or (row.status == "ok" and row.reason)]
    if not checked:
        return ""
    return "Error against float64 (value / gradient):\n\n" + _by_shape(checked, _errors) + "\n"


def _errors(row: Row) -> str:
    return row.reason or f"{_number(row.value_error, 2)} / {_number(row.gradient_error, 2)}"


def _title(family: str, source: str, dim: int, gamma: float, threads: int, isa: str | None) -> str:
    where = f", DALIGN_ISA={isa}" if isa else ""
    what = f"{_given(source, dim)}, gamma {gamma:g}, {_threads(threads)}{where}"
    return f"## ns per cell, forward / forward+backward: {what} ({family})\n\n"


def _given(source: str, dim: int) -> str:
    return "from a given cost" if source == "cost" else f"from features, D = {dim}"


def _threads(threads: int) -> str:
    return "1 thread" if threads == 1 else f"{threads} threads"


def _bound(figure: Figure, bound: float | None) -> str:
    return "" if bound is None else f"{'>=' if figure.higher_is_better else '<='} {bound:g}"


def _number(value: float | None, digits: int = 3) -> str:
    """Show some significant digits, without exponents between .001 and a million."""
    if value is None:
        return "-"
    if value != 0 and not 1e-3 <= abs(value) < 1e6:
        return f"{value:.{digits - 1}e}"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.{digits}g}"


def _unique(items: Iterable[Any]) -> list[Any]:
    """Return the distinct items in the order of their first appearance."""
    return list(dict.fromkeys(items))
