"""Pictures of the CTC benchmark: times of all shapes as bars."""

from __future__ import annotations

from typing import Any

from ..plots import Picture, make_panels, number, style_of, with_legend
from ..report import threads_named, unique
from .report import Report


def _value(report: Report) -> Any:
    return _bars(report, "value")


def _gradient(report: Report) -> Any:
    return _bars(report, "gradient")


def _bars(report: Report, task: str) -> Any:
    """Milliseconds of one task on one thread: a panel for each shape, a bar for each peer with its number."""
    rows = [row for row in report.find(family="grid", task=task, threads=1) if row.time]
    if not rows:
        return None
    shapes = unique(row.shape for row in rows)
    figure, panels = make_panels(len(shapes), f"ms, {task} from logits, {threads_named(1)}", logarithmic=False)
    for shape, panel in zip(shapes, panels, strict=True):
        for place, row in enumerate(row for row in rows if row.shape == shape):
            colour, _ = style_of(report, row.peer)
            assert row.time is not None
            bar = panel.bar([place], [row.time.median * 1e3], color=colour, label=row.peer)
            panel.bar_label(bar, fmt=number, fontsize=8, padding=2)
        panel.set_yscale("log")
        panel.set_xticks([])
        panel.set_xlabel("")
        panel.set_title(shape, fontsize=9)
        panel.margins(y=0.12)
    return with_legend(figure, panels)


PICTURES: dict[str, Picture] = {"gradient": _gradient, "value": _value}
