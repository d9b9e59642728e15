"""Pictures of the dDTW benchmark: Table VI as lines, the lattice alone as bars, CTC as bars."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..plots import COLOURS, Picture, make_panels, number, own_name, style_of, with_legend
from ..report import threads_named, unique
from .paper import DEVICE, LOSSES, TABLE_VI
from .report import CTC_SHAPES, LATTICE, TABLE, Report, Row

GREY = "0.6"
LEAST_MEGABYTES = 0.1  # less than that is not seen: memory of before serves again


def _table(report: Report) -> Any:
    """Time and memory of all shapes, one thread; the paper's GPU figures dotted in grey."""
    rows = [row for row in report.find(family=TABLE, threads=1, status="ok") if row.time]
    if not rows:
        return None
    shapes = sorted(unique((row.length, row.columns) for row in rows))
    tasks = unique(row.task for row in rows)
    figure, (times, memory) = make_panels(2, "ms, forward + backward", logarithmic=False)
    for task, peer in unique((row.task, row.peer) for row in rows):
        found = {(row.length, row.columns): row for row in rows if (row.task, row.peer) == (task, peer)}
        _, marker = style_of(report, peer)
        look = {
            "color": COLOURS[tasks.index(task) % len(COLOURS)],
            "marker": marker,
            "linestyle": "-" if peer == own_name(report) else "--",
            "markersize": 5,
            "label": f"{task}: {peer}",
        }
        own = [shape for shape in shapes if shape in found]
        at = [shapes.index(shape) for shape in own]
        times.plot(at, [found[shape].time.median * 1e3 for shape in own], **look)
        memory.plot(at, [_megabytes(found[shape]) for shape in own], **look)
    _add_paper(times, memory, shapes)
    for panel in (times, memory):
        panel.set_yscale("log")
        panel.set_xticks(range(len(shapes)), [f"{n}\n{m}" for n, m in shapes])
        panel.set_xlabel("N above M; B = 16, D = 12, one thread")
    memory.set_ylabel("extra memory, MB")
    figure.set_size_inches(9.5, 5.4)  # room for the legend
    return with_legend(figure, [times, memory], columns=3)


def _add_paper(times: Any, memory: Any, shapes: Sequence[tuple[int, int]]) -> None:
    known = [shape for shape in shapes if shape in TABLE_VI]
    at = [shapes.index(shape) for shape in known]
    for index, loss in enumerate(LOSSES):
        look = {"color": GREY, "linestyle": ":", "marker": "x+1"[index], "label": f"paper's {loss}, GPU {DEVICE}"}
        times.plot(at, [TABLE_VI[shape][index][0] for shape in known], **look)
        memory.plot(at, [TABLE_VI[shape][index][1] for shape in known], **look)


def _megabytes(row: Row) -> float | None:
    return None if row.extra_bytes is None else max(row.extra_bytes / 1e6, LEAST_MEGABYTES)


def _lattice(report: Report) -> Any:
    """Time per cell of each setting at the largest shape, a panel for each number of threads."""
    rows = [row for row in report.find(family=LATTICE, status="ok") if row.time]
    if not rows:
        return None
    largest = max((row.batch * row.length, row.batch) for row in rows)
    rows = [row for row in rows if (row.batch * row.length, row.batch) == largest]
    settings = unique(row.task for row in rows)
    threads = sorted({row.threads for row in rows})
    figure, panels = make_panels(len(threads), "ns per cell, forward + backward", logarithmic=False, share=True)
    for count, panel in zip(threads, panels, strict=True):
        chosen = [row for row in rows if row.threads == count]
        _bars(panel, report, settings, chosen, [row.ns_per_cell for row in chosen])
        panel.set_title(f"B = {rows[0].batch}, N = {rows[0].length}, {threads_named(count)}")
    return with_legend(figure, panels)


def _ctc(report: Report) -> Any:
    """Milliseconds of each shape, a panel for each number of threads."""
    rows = [row for row in report.find(family=CTC_SHAPES, status="ok") if row.time]
    if not rows:
        return None
    threads = sorted({row.threads for row in rows})
    figure, panels = make_panels(len(threads), "ms, forward + backward from logits", logarithmic=False, share=True)
    for count, panel in zip(threads, panels, strict=True):
        chosen = [row for row in rows if row.threads == count]
        names = {id(row): f"T {row.length}\nB {row.batch}\nC {row.dim}\nS {row.columns}" for row in chosen}
        heights = [row.time.median * 1e3 for row in chosen if row.time]
        _bars(panel, report, unique(names.values()), chosen, heights, lambda row, names=names: names[id(row)])
        panel.set_title(f"CTC, {threads_named(count)}")
    return with_legend(figure, panels)


def _bars(
    panel: Any,
    report: Report,
    groups: Sequence[str],
    rows: Sequence[Row],
    heights: Sequence[float | None],
    group_of: Any = lambda row: row.task,
) -> None:
    """Draw groups of bars, one for each peer, with their numbers."""
    peers = unique(row.peer for row in rows)
    width = 0.8 / max(len(peers), 1)
    for row, height in zip(rows, heights, strict=True):
        at = groups.index(group_of(row)) + (peers.index(row.peer) - (len(peers) - 1) / 2) * width
        colour, _ = style_of(report, row.peer)
        bar = panel.bar([at], [height], width, color=colour, label=row.peer)
        panel.bar_label(bar, fmt=number, fontsize=6, padding=1)
    panel.set_yscale("log")
    upright = len(groups) > 4
    panel.set_xticks(range(len(groups)), groups, rotation=40 if upright else 0, ha="right" if upright else "center")
    panel.tick_params(axis="x", labelsize=8)
    panel.set_xlabel("")
    panel.margins(y=0.12)


PICTURES: dict[str, Picture] = {"table": _table, "lattice": _lattice, "ctc": _ctc}
