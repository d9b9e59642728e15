"""What a benchmark found: rows and figures, as JSON and as markdown tables. What is in a row, each suite knows."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

from typing_extensions import Self

from .harness import Spread

SCHEMA = 1
STATUSES = ("ok", "skipped", "failed")


@dataclass(frozen=True)
class Row:
    """One measurement: a base for the rows of the suites.

    They have the attributes `family` (the part of the benchmark), `peer`, `batch`, `length`, and `status`: "ok",
    "skipped" (by a prediction or the time budget) or "failed"; the last two say why in `reason`, and "ok" says there
    when a result is not finite. Those named in `spreads` are times.
    """

    spreads: ClassVar[tuple[str, ...]] = ()

    def derived(self) -> dict[str, float | None]:
        """Return numbers that a reader of the JSON looks for, and that follow from the others."""
        return {}

    def to_json(self) -> dict[str, Any]:
        """Return the row with the derived numbers."""
        return {**asdict(self), **self.derived()}

    @classmethod
    def from_json(cls, entries: dict[str, Any]) -> Self:
        """Read a row; raises KeyError or TypeError when it does not have the schema."""
        known = {name: entries[name] for name in _names(cls)}
        for name in cls.spreads:
            if known[name] is not None:
                known[name] = Spread(**known[name])
        return cls(**known)


class Shaped(Protocol):
    """What tables and plots by shape ask of a row."""

    @property
    def peer(self) -> str:
        """Who ran."""

    @property
    def batch(self) -> int:
        """Pairs."""

    @property
    def length(self) -> int:
        """N = M."""


RowT = TypeVar("RowT", bound=Shaped)


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
    """Everything one run found. Each suite has its own `row_type` and `tables`."""

    row_type: ClassVar[type[Row]] = Row

    suite: str
    date: str
    seconds: float
    options: dict[str, Any]
    machine: dict[str, Any]
    peers: list[dict[str, Any]]
    rows: list[Any] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    schema: int = SCHEMA

    def find(self, **wanted: Any) -> list[Any]:
        """Return the rows with these attributes."""
        return [row for row in self.rows if all(getattr(row, name) == value for name, value in wanted.items())]

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON objects."""
        figures = [{**asdict(figure), "verdict": figure.verdict} for figure in self.figures]
        rest = {name: getattr(self, name) for name in _names(type(self)) if name not in ("rows", "figures")}
        return {**rest, "figures": figures, "rows": [row.to_json() for row in self.rows]}

    @classmethod
    def from_json(cls, entries: dict[str, Any]) -> Report:
        """Read a report; raises ValueError, KeyError or TypeError when it does not have the schema."""
        if entries["schema"] != SCHEMA:
            raise ValueError(f"schema: expected {SCHEMA}, got {entries['schema']}")
        known = {name: entries[name] for name in _names(cls)}
        known["rows"] = [cls.row_type.from_json(row) for row in entries["rows"]]
        known["figures"] = [Figure(**{name: figure[name] for name in _names(Figure)}) for figure in entries["figures"]]
        return cls(**known)

    def write(self, folder: Path) -> None:
        """Write <suite>.json and <suite>.md."""
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.to_json(), indent=1, allow_nan=False)
        (folder / f"{self.suite}.json").write_text(text + "\n")
        (folder / f"{self.suite}.md").write_text(self.markdown())

    def markdown(self) -> str:
        """Return all tables."""
        return "\n".join([self._heading(), self.figures_table(), *self.tables()])

    def tables(self) -> Iterable[str]:
        """Return the tables of the rows."""
        raise NotImplementedError

    def figures_table(self) -> str:
        """Return the figures to reach."""
        lines = [
            [
                figure.name,
                number(figure.measured),
                _bound(figure, figure.required),
                _bound(figure, figure.goal),
                figure.verdict,
            ]
            for figure in self.figures
        ]
        return "## Figures to reach\n\n" + table(["figure", "measured", "required", "goal", ""], lines)

    def _heading(self) -> str:
        dalign = self.machine.get("dalign") or {}
        load = self.machine.get("load_before")
        busy = "" if load is None else f"load {load[0]:g} before the run; "
        lines = [
            f"# Benchmark: {self.suite}",
            "",
            f"{self.machine['cpu']}, {self.machine['cores']} cores, instruction set {dalign.get('isa', 'unknown')}; "
            f"{self.date}; {busy}{self.seconds / 60:.0f} minutes; seed {self.options.get('seed')}. Made by "
            f"`python -m experiments.bench {self.suite}`; how is told in `experiments/bench/__init__.py`.",
            "",
        ]
        peers = [[peer["name"], peer["version"] or "-", peer["computes"], peer["missing"] or ""] for peer in self.peers]
        return "\n".join(lines) + table(["peer", "version", "computes in", "missing because"], peers)


def table(heads: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Return a markdown table."""
    cells = [list(heads), ["---"] * len(heads), *map(list, lines)]
    return "".join("| " + " | ".join(line) + " |\n" for line in cells)


def by_shape(rows: Sequence[RowT], show: Callable[[RowT], str]) -> str:
    """Return a table with a line per shape and a column per peer."""
    peers = unique(row.peer for row in rows)
    found = {(row.batch, row.length, row.peer): row for row in rows}
    shapes = unique((row.batch, row.length) for row in rows)
    lines = []
    for batch, length in shapes:
        cells = [found.get((batch, length, peer)) for peer in peers]
        lines.append([str(batch), str(length), *("" if row is None else show(row) for row in cells)])
    return table(["B", "N = M", *peers], lines)


def given(source: str, dim: int) -> str:
    return "from a given cost" if source == "cost" else f"from features, D = {dim}"


def threads_named(threads: int) -> str:
    return "1 thread" if threads == 1 else f"{threads} threads"


def _bound(figure: Figure, bound: float | None) -> str:
    return "" if bound is None else f"{'>=' if figure.higher_is_better else '<='} {bound:g}"


def number(value: float | None, digits: int = 3) -> str:
    """Show some significant digits, without exponents between .001 and a million."""
    if value is None:
        return "-"
    if value != 0 and not 1e-3 <= abs(value) < 1e6:
        return f"{value:.{digits - 1}e}"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.{digits}g}"


def _names(kind: type) -> list[str]:
    return [field.name for field in fields(kind)]


def unique(items: Iterable[Any]) -> list[Any]:
    """Return the distinct items in the order of their first appearance."""
    return list(dict.fromkeys(items))
