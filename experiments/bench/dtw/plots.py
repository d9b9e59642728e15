"""Pictures of the DTW benchmark: values and paths against length, averages and all pairs as bars, long pairs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..plots import Picture, draw_lines, make_panels, own_name, style_of, time_bars, with_legend
from ..report import given, threads_named, unique
from .averages import OWN_END
from .report import Report, Row


def _values(report: Report) -> Any:
    return _speeds(report, "value")


def _paths(report: Report) -> Any:
    return _speeds(report, "path")


def _speeds(report: Report, task: str) -> Any:
    """Time per cell of one pair against length, one thread, a panel for each kind of input."""
    rows = [row for row in report.find(family="grid", task=task, batch=1, threads=1) if row.time]
    sources = unique((row.source, row.dim) for row in rows)
    if not sources:
        return None
    figure, panels = make_panels(len(sources), f"ns per cell, {task}", share=True)
    for (source, dim), panel in zip(sources, panels, strict=True):
        chosen = [row for row in rows if (row.source, row.dim) == (source, dim)]
        draw_lines(panel, report, chosen, lambda row: row.ns_per_cell, _bars)
        panel.set_title(f"{given(source, dim)}, one thread")
    return with_legend(figure, panels)


def _bars(row: Row) -> tuple[float, float]:
    assert row.time is not None
    assert row.cells is not None
    return time_bars(row.time, row.cells)


def _long(report: Report) -> Any:
    """Time and memory of our own long pairs."""
    rows = [row for row in report.find(family="long", status="ok") if row.time]
    if not rows:
        return None
    figure, (times, memory) = make_panels(2, "seconds")
    for task, threads in unique((row.task, row.threads) for row in rows):
        chosen = [row for row in rows if (row.task, row.threads) == (task, threads)]
        look = {"marker": "os"[task == "path"], "label": f"{task}, {threads_named(threads)}"}
        look["linestyle"] = "-" if threads == 1 else "--"
        lengths = [row.length for row in chosen]
        times.plot(lengths, [row.time.median for row in chosen], **look)
        memory.plot(lengths, [max(row.extra_bytes or 0, 4096) / 2**20 for row in chosen], **look)
    times.set_title(f"one pair, {given('features', rows[0].dim)}")
    memory.set_ylabel("extra memory, MiB")
    memory.axhline(1024, color="0.6", linestyle=":", linewidth=1)
    memory.set_title("peak memory beyond inputs and results")
    return with_legend(figure, [times, memory])


def _pairs(report: Report) -> Any:
    """Seconds of all pairs, as bars."""
    rows = [row for row in report.find(family="pairs") if row.time]
    groups = unique((row.band, row.threads) for row in rows)
    titles = [f"{'no band' if band is None else f'band {band}'}, {threads_named(threads)}" for band, threads in groups]
    chosen = [[row for row in rows if (row.band, row.threads) == group] for group in groups]
    return _grouped(report, "seconds, all pairs", titles, chosen)


def _averages(report: Report) -> Any:
    """Seconds until tslearn's objective, as bars."""
    rows = [row for row in report.find(family="averages", threads=1) if row.time]
    rows = [row for row in rows if row.peer != own_name(report) or row.until != OWN_END]
    tasks = unique(row.task for row in rows)
    groups = [[row for row in rows if row.task == task] for task in tasks]
    return _grouped(report, "seconds until tslearn's objective, one thread", tasks, groups)


def _grouped(report: Report, label: str, titles: Sequence[str], groups: Sequence[Sequence[Row]]) -> Any:
    """Draw a panel with a bar per peer for each group, each with its number."""
    if not groups:
        return None
    figure, panels = make_panels(len(groups), label, logarithmic=False, share=True)
    for title, rows, panel in zip(titles, groups, panels, strict=True):
        for place, row in enumerate(rows):
            colour, _ = style_of(report, row.peer)
            assert row.time is not None
            bar = panel.bar([place], [row.time.median], color=colour, label=row.peer)
            panel.bar_label(bar, fmt="%.3g", fontsize=8, padding=2)
        panel.set_yscale("log")
        panel.set_xticks(range(len(rows)), [row.computes or "" for row in rows])
        panel.set_xlabel("")
        panel.set_title(title)
        panel.margins(y=0.12)
    return with_legend(figure, panels)


PICTURES: dict[str, Picture] = {
    "value": _values,
    "path": _paths,
    "pairs": _pairs,
    "averages": _averages,
    "long": _long,
}
