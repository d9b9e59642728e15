"""Pictures of the GDTW benchmark: calls, solvers at their objectives, and the paper's Figures 5 and 7."""

from __future__ import annotations

from typing import Any

from ..plots import COLOURS, MARKERS, Picture, make_panels, style_of, with_legend
from ..report import unique
from .peers import KERNEL
from .report import CALLS, GROWTH, SOLVERS, TRAINING, Report, Row

LEAST_EXCESS = 1e-13  # what lies on the lowest is drawn here: a logarithmic axis has no 0


def _calls(report: Report) -> Any:
    """Milliseconds of the kernel against length, forward and backward."""
    rows = [row for row in report.find(family=CALLS, through=KERNEL) if row.time]
    if not rows:
        return None
    figure, panels = make_panels(2, "ms", share=True)
    for panel, task in zip(panels, ("forward", "backward"), strict=True):
        _lines(panel, [row for row in rows if row.task == task], lambda row: f"D = {row.dim}, {row.setting}")
        panel.set_title(f"{task}, one pair, one thread")
    return with_legend(figure, panels)


def _solvers(report: Report) -> Any:
    """How far above the lowest objective, against time, a panel for each problem."""
    rows = [row for row in report.find(family=SOLVERS) if row.time and row.excess is not None]
    problems = unique((row.length, row.dim) for row in rows)[-4:]
    if not problems:
        return None
    figure, panels = make_panels(len(problems), "objective above the lowest, share", share=True)
    for (length, dim), panel in zip(problems, panels, strict=True):
        for row in rows:
            if (row.length, row.dim) == (length, dim):
                colour, marker = style_of(report, row.peer)
                at = row.milliseconds, max(row.excess or 0, LEAST_EXCESS)
                panel.plot(*([value] for value in at), marker, color=colour, label=row.peer)
                panel.annotate(row.setting, at, textcoords="offset points", xytext=(2, 5), fontsize=7, rotation=40)
        panel.set_xscale("log")
        panel.set(xlabel="ms", title=f"N = M = {length}, D = {dim}")
        panel.margins(x=0.2)
    return with_legend(figure, panels)


def _growth(report: Report) -> Any:
    return _against_length(report, GROWTH, "ms of a warp or path", "Figure 5 of the DecDTW paper, redrawn")


def _training(report: Report) -> Any:
    return _against_length(report, TRAINING, "ms of a training step", "Figure 7 of the DecDTW paper, redrawn")


def _against_length(report: Report, family: str, label: str, title: str) -> Any:
    rows = [row for row in report.find(family=family) if row.time]
    if not rows:
        return None
    figure, panels = make_panels(1, label)
    _lines(panels[0], rows, lambda row: row.setting or row.peer)
    panels[0].set_title(f"{title}: one pair, D = {rows[0].dim}, one thread", fontsize=9)
    return with_legend(figure, panels, columns=3)


def _lines(panel: Any, rows: list[Row], name: Any) -> None:
    for at, label in enumerate(unique(map(name, rows))):
        points = sorted((row.length, row.milliseconds) for row in rows if name(row) == label)
        look = {"color": COLOURS[at % len(COLOURS)], "marker": MARKERS[at % len(MARKERS)]}
        panel.plot(*zip(*points, strict=True), label=label, linewidth=1.6, markersize=5, **look)


PICTURES: dict[str, Picture] = {"calls": _calls, "solvers": _solvers, "growth": _growth, "training": _training}
