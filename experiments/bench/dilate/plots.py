"""Pictures of the DILATE benchmark: times of forecasts, growth in time and memory."""

from __future__ import annotations

from typing import Any

from ..plots import Picture, draw_lines, make_panels, time_bars, with_legend
from ..report import threads_named
from .problems import TASKS
from .report import Report, Row


def _forecasts(report: Report) -> Any:
    """Time per cell over the length of short series in small batches: a panel for each task."""
    rows = [row for row in report.find(family="grid", threads=1, batch=4) if row.time]
    if not rows:
        return None
    figure, panels = make_panels(len(TASKS), "ns per cell", share=True)
    for task, panel in zip(TASKS, panels, strict=True):
        draw_lines(panel, report, [row for row in rows if row.task == task], _nanoseconds, _bars)
        panel.set_title(f"{'value and gradient' if task == 'gradient' else 'value'}, B = 4, {threads_named(1)}")
    return with_legend(figure, panels)


def _growth(report: Report) -> Any:
    """Time and memory of one ever longer item."""
    times, memory = report.find(family="growth"), report.find(family="memory", batch=1)
    if not any(row.time for row in times):
        return None
    figure, (left, right) = make_panels(2, "ms, value and gradient, B = 1")
    draw_lines(left, report, times, lambda row: row.time.median * 1e3 if row.time else None)
    draw_lines(right, report, memory, _mebibytes)
    right.set_ylabel("MiB beyond inputs and results")
    return with_legend(figure, (left, right))


def _nanoseconds(row: Row) -> float | None:
    return row.ns_per_cell


def _mebibytes(row: Row) -> float | None:
    return row.extra_bytes / 2**20 if row.extra_bytes and row.extra_bytes > 0 else None


def _bars(row: Row) -> tuple[float, float]:
    assert row.time is not None
    return time_bars(row.time, row.cells)


PICTURES: dict[str, Picture] = {"forecasts": _forecasts, "growth": _growth}
