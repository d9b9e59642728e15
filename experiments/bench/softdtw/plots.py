"""Pictures of the soft-DTW benchmark: time per cell, memory, speed-up, growth and errors."""

from __future__ import annotations

from typing import Any

from ..plots import (
    COLOURS,
    MARKERS,
    Picture,
    draw_lines,
    make_panels,
    own_name,
    peer_names,
    style_of,
    time_bars,
    with_legend,
)
from .report import Report, Row

BAR_SHAPES = [(16, 256), (16, 1024), (1, 4096)]  # (B, N)
Shape = tuple[int, int, int]  # B, N, threads


def _speed(report: Report) -> Any:
    """Time per cell against length, one thread."""
    rows = [
        row for row in report.find(family="grid", source="features", threads=1, gamma=1.0) if row.dim == _dim(report)
    ]
    batches = sorted({row.batch for row in rows if row.forward_backward})
    if not batches:
        return None
    figure, panels = make_panels(len(batches), "ns per cell, forward + backward")
    for batch, panel in zip(batches, panels, strict=True):
        draw_lines(panel, report, [row for row in rows if row.batch == batch], _time_per_cell, _time_bars)
        panel.set_title(f"B = {batch}, D = {_dim(report)}, one thread")
    return with_legend(figure, panels)


def _memory(report: Report) -> Any:
    """Extra memory against length: the lattices of the peers, and the fused version as it grows."""
    rows = report.find(family="memory", source="features", dim=_dim(report), threads=1)
    grown = report.find(family="growth", threads=1)
    rows = [row for row in rows if (row.peer, row.length) not in {(other.peer, other.length) for other in grown}]
    if not any(row.extra_bytes for row in rows + grown):
        return None
    figure, (panel,) = make_panels(1, "extra memory, MiB (forward + backward)")
    draw_lines(panel, report, rows + grown, lambda row: _positive(row.extra_bytes, 2**20))
    panel.axhline(8 * 2**10, color="0.6", linestyle=":", linewidth=1)
    panel.annotate("8 GiB", (0.01, 8 * 2**10), xycoords=("axes fraction", "data"), color="0.4", va="bottom")
    panel.set_title(f"from features, D = {_dim(report)}, one pair")
    return with_legend(figure, [panel])


def _growth(report: Report) -> Any:
    """Time and memory of one fused pair up to long sequences."""
    rows = report.find(family="growth", status="ok")
    if not rows:
        return None
    figure, (times, memory) = make_panels(2, "seconds")
    for index, threads in enumerate(sorted({row.threads for row in rows})):
        style = {"color": COLOURS[index], "marker": MARKERS[index], "label": f"{threads} thread{'s' * (threads > 1)}"}
        chosen = [row for row in rows if row.threads == threads]
        lengths = [row.length for row in chosen]
        times.plot(lengths, [row.forward_backward.median if row.forward_backward else None for row in chosen], **style)
        memory.plot(lengths, [row.bytes_per_cell for row in chosen], **style)
    times.set_title("forward + backward, one pair")
    memory.set_ylabel("extra bytes per cell")
    memory.set_title("peak memory beyond inputs and gradients")
    return with_legend(figure, [times, memory])


def _speedup(report: Report) -> Any:
    """How many times faster than each peer, as bars."""
    speedups = _speedups(report)
    threads = sorted({shape[2] for shape, _ in speedups})
    if not threads:
        return None
    figure, panels = make_panels(len(threads), "times faster, forward + backward", logarithmic=False)
    for count, panel in zip(threads, panels, strict=True):
        _bars(panel, report, {key: times for key, times in speedups.items() if key[0][2] == count})
        panel.set_title(f"{count} thread{'s' * (count > 1)}, D = {_dim(report)}")
        panel.set_xlabel("")
        panel.margins(y=0.12)
    return with_legend(figure, panels)


def _speedups(report: Report) -> dict[tuple[Shape, str], float]:
    """Return by (shape, peer) how many times slower than ours the peer is."""
    rows = [row for row in report.find(family="grid", source="features", dim=_dim(report)) if row.forward_backward]
    speeds = {((row.batch, row.length, row.threads), row.peer): row.ns_per_cell("forward_backward") for row in rows}
    own = own_name(report)
    return {
        (shape, peer): speed / ours
        for (shape, peer), speed in speeds.items()
        if shape[:2] in BAR_SHAPES and peer != own and speed and (ours := speeds.get((shape, own)))
    }


def _bars(panel: Any, report: Report, speedups: dict[tuple[Shape, str], float]) -> None:
    """Draw a group of bars per shape, a bar per peer, each with its number."""
    shapes = sorted({shape for shape, _ in speedups}, key=lambda shape: BAR_SHAPES.index(shape[:2]))
    peers = [peer for peer in peer_names(report) if any(name == peer for _, name in speedups)]
    width = 0.8 / len(peers)
    for index, peer in enumerate(peers):
        both = [(place, speedups[shape, peer]) for place, shape in enumerate(shapes) if (shape, peer) in speedups]
        places = [place - 0.4 + width * (index + 0.5) for place, _ in both]
        colour, _ = style_of(report, peer)
        bars = panel.bar(places, [times for _, times in both], width * 0.92, color=colour, label=peer)
        panel.bar_label(bars, fmt="%.0f", fontsize=8, padding=2)
    panel.set_xticks(range(len(shapes)), [f"B = {batch}\nN = M = {length}" for batch, length, _ in shapes])


def _errors(report: Report) -> Any:
    """Largest error of the gradient against length, by gamma."""
    rows = [row for row in report.find(source="features", dim=_dim(report), batch=1, threads=1) if row.gradient_error]
    gammas = sorted({row.gamma for row in rows}, reverse=True)
    if not gammas:
        return None
    figure, panels = make_panels(len(gammas), "largest error of the gradient / its largest entry", share=True)
    for gamma, panel in zip(gammas, panels, strict=True):
        chosen = [row for row in rows if row.gamma == gamma and row.family in ("grid", "gamma")]
        draw_lines(panel, report, chosen, lambda row: row.gradient_error)
        panel.axhline(1, color="0.6", linestyle=":", linewidth=1)
        panel.set_title(f"gamma = {gamma:g}")
    return with_legend(figure, panels)


PICTURES: dict[str, Picture] = {
    "speed": _speed,
    "speedup": _speedup,
    "memory": _memory,
    "growth": _growth,
    "errors": _errors,
}


# ---------------------------------------------------------------- parts


def _time_per_cell(row: Row) -> float | None:
    return row.ns_per_cell("forward_backward")


def _time_bars(row: Row) -> tuple[float, float]:
    spread = row.forward_backward
    assert spread is not None
    return time_bars(spread, row.cells)


def _dim(report: Report) -> int:
    """Return the dimension that the pictures show: the one of the first row of the grid."""
    return next((row.dim for row in report.rows if row.family == "grid"), report.rows[0].dim if report.rows else 0)


def _positive(amount: float | None, unit: float) -> float | None:
    """Return an amount that a logarithmic axis can show: a page at least."""
    return None if amount is None else max(amount, 4096) / unit
