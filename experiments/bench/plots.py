"""Pictures of a benchmark: time per cell, memory, speed-up, growth and errors. Colours by Okabe and Ito."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from .report import Report, Row

COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "os^Dvp*"
SIDE = 4.2  # inches of one panel
BAR_SHAPES = [(16, 256), (16, 1024), (1, 4096)]  # (B, N)
Shape = tuple[int, int, int]  # B, N, threads


def draw(report: Report, folder: Path) -> list[Path]:
    """Draw what the report has rows for.

    Returns
    -------
    list of Path
        The PNG files; none, with a note, when matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError:
        print("no pictures: matplotlib is not installed")
        return []
    matplotlib.use("Agg")
    written = []
    for name, picture in PICTURES.items():
        figure = picture(report)
        if figure is not None:
            written.append(_save(figure, folder / f"{report.suite}_{name}.png", report))
    return written


def _speed(report: Report) -> Any:
    """Time per cell against length, one thread."""
    rows = [
        row for row in report.find(family="grid", source="features", threads=1, gamma=1.0) if row.dim == _dim(report)
    ]
    batches = sorted({row.batch for row in rows if row.forward_backward})
    if not batches:
        return None
    figure, panels = _panels(len(batches), "ns per cell, forward + backward")
    for batch, panel in zip(batches, panels, strict=True):
        _lines(panel, report, [row for row in rows if row.batch == batch], _time_per_cell, _time_bars)
        panel.set_title(f"B = {batch}, D = {_dim(report)}, one thread")
    return _with_legend(figure, panels)


def _memory(report: Report) -> Any:
    """Extra memory against length: the lattices of the peers, and the fused version as it grows."""
    rows = report.find(family="memory", source="features", dim=_dim(report), threads=1)
    grown = report.find(family="growth", threads=1)
    rows = [row for row in rows if (row.peer, row.length) not in {(other.peer, other.length) for other in grown}]
    if not any(row.extra_bytes for row in rows + grown):
        return None
    figure, (panel,) = _panels(1, "extra memory, MiB (forward + backward)")
    _lines(panel, report, rows + grown, lambda row: _positive(row.extra_bytes, 2**20))
    panel.axhline(8 * 2**10, color="0.6", linestyle=":", linewidth=1)
    panel.annotate("8 GiB", (0.01, 8 * 2**10), xycoords=("axes fraction", "data"), color="0.4", va="bottom")
    panel.set_title(f"from features, D = {_dim(report)}, one pair")
    return _with_legend(figure, [panel])


def _growth(report: Report) -> Any:
    """Time and memory of one fused pair up to long sequences."""
    rows = report.find(family="growth", status="ok")
    if not rows:
        return None
    figure, (times, memory) = _panels(2, "seconds")
    for index, threads in enumerate(sorted({row.threads for row in rows})):
        style = {"color": COLOURS[index], "marker": MARKERS[index], "label": f"{threads} thread{'s' * (threads > 1)}"}
        chosen = [row for row in rows if row.threads == threads]
        lengths = [row.length for row in chosen]
        times.plot(lengths, [row.forward_backward.median if row.forward_backward else None for row in chosen], **style)
        memory.plot(lengths, [row.bytes_per_cell for row in chosen], **style)
    times.set_title("forward + backward, one pair")
    memory.set_ylabel("extra bytes per cell")
    memory.set_title("peak memory beyond inputs and gradients")
    return _with_legend(figure, [times, memory])


def _speedup(report: Report) -> Any:
    """How many times faster than each peer, as bars."""
    speedups = _speedups(report)
    threads = sorted({shape[2] for shape, _ in speedups})
    if not threads:
        return None
    figure, panels = _panels(len(threads), "times faster, forward + backward", logarithmic=False)
    for count, panel in zip(threads, panels, strict=True):
        _bars(panel, report, {key: times for key, times in speedups.items() if key[0][2] == count})
        panel.set_title(f"{count} thread{'s' * (count > 1)}, D = {_dim(report)}")
        panel.set_xlabel("")
        panel.margins(y=0.12)
    return _with_legend(figure, panels)


def _speedups(report: Report) -> dict[tuple[Shape, str], float]:
    """Return by (shape, peer) how many times slower than ours the peer is."""
    rows = [row for row in report.find(family="grid", source="features", dim=_dim(report)) if row.forward_backward]
    speeds = {((row.batch, row.length, row.threads), row.peer): row.ns_per_cell("forward_backward") for row in rows}
    return {
        (shape, peer): speed / ours
        for (shape, peer), speed in speeds.items()
        if shape[:2] in BAR_SHAPES and peer != _ours(report) and speed and (ours := speeds.get((shape, _ours(report))))
    }


def _bars(panel: Any, report: Report, speedups: dict[tuple[Shape, str], float]) -> None:
    """Draw a group of bars per shape, a bar per peer, each with its number."""
    shapes = sorted({shape for shape, _ in speedups}, key=lambda shape: BAR_SHAPES.index(shape[:2]))
    peers = [peer for peer in _peers(report) if any(name == peer for _, name in speedups)]
    width = 0.8 / len(peers)
    for index, peer in enumerate(peers):
        both = [(place, speedups[shape, peer]) for place, shape in enumerate(shapes) if (shape, peer) in speedups]
        places = [place - 0.4 + width * (index + 0.5) for place, _ in both]
        colour, _ = _style(report, peer)
        bars = panel.bar(places, [times for _, times in both], width * 0.92, color=colour, label=peer)
        panel.bar_label(bars, fmt="%.0f", fontsize=8, padding=2)
    panel.set_xticks(range(len(shapes)), [f"B = {batch}\nN = M = {length}" for batch, length, _ in shapes])


def _errors(report: Report) -> Any:
    """Largest error of the gradient against length, by gamma."""
    rows = [row for row in report.find(source="features", dim=_dim(report), batch=1, threads=1) if row.gradient_error]
    gammas = sorted({row.gamma for row in rows}, reverse=True)
    if not gammas:
        return None
    figure, panels = _panels(len(gammas), "largest error of the gradient / its largest entry", share=True)
    for gamma, panel in zip(gammas, panels, strict=True):
        chosen = [row for row in rows if row.gamma == gamma and row.family in ("grid", "gamma")]
        _lines(panel, report, chosen, lambda row: row.gradient_error)
        panel.axhline(1, color="0.6", linestyle=":", linewidth=1)
        panel.set_title(f"gamma = {gamma:g}")
    return _with_legend(figure, panels)


PICTURES: dict[str, Callable[[Report], Any]] = {
    "speed": _speed,
    "speedup": _speedup,
    "memory": _memory,
    "growth": _growth,
    "errors": _errors,
}


# ---------------------------------------------------------------- parts


def _panels(count: int, label: str, logarithmic: bool = True, share: bool = False) -> tuple[Any, Sequence[Any]]:
    """Return a figure with panels side by side, the y axis of the first one labelled."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(SIDE * max(count, 1.4), SIDE), layout="constrained")
    panels = figure.subplots(1, count, squeeze=False, sharey=share)[0]
    panels[0].set_ylabel(label)
    for panel in panels:
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(True, axis="y", color="0.9")
        panel.set_axisbelow(True)
        panel.set_xlabel("N = M")
        if logarithmic:
            panel.set_xscale("log", base=2)
            panel.set_yscale("log")
            panel.xaxis.set_major_formatter(lambda length, _: _short(length))
    return figure, panels


def _lines(
    panel: Any,
    report: Report,
    rows: Iterable[Row],
    height: Callable[[Row], float | None],
    bars: Callable[[Row], tuple[float, float]] | None = None,
) -> None:
    """Draw a line per peer over length; `bars` gives the distances down and up of an error bar."""
    for peer in _peers(report):
        points = sorted((row.length, at, row) for row in rows if row.peer == peer and (at := height(row)) is not None)
        if not points:
            continue
        colour, marker = _style(report, peer)
        spread = None if bars is None else list(zip(*(bars(row) for *_, row in points), strict=True))
        panel.errorbar(
            [length for length, *_ in points],
            [at for _, at, _ in points],
            yerr=spread,
            color=colour,
            marker=marker,
            markersize=5,
            linewidth=2.2 if peer == _ours(report) else 1.4,
            capsize=2,
            label=peer,
        )


def _time_per_cell(row: Row) -> float | None:
    return row.ns_per_cell("forward_backward")


def _time_bars(row: Row) -> tuple[float, float]:
    """Return how far the fastest and the slowest run lie from the median."""
    spread = row.forward_backward
    assert spread is not None
    scale = 1e9 / row.cells
    return (spread.median - spread.minimum) * scale, (spread.maximum - spread.median) * scale


def _with_legend(figure: Any, panels: Sequence[Any]) -> Any:
    """Put one legend under all panels, with every label once."""
    found: dict[str, Any] = {}
    for panel in panels:
        handles, labels = panel.get_legend_handles_labels()
        found.update(zip(labels, handles, strict=True))
    figure.legend(found.values(), found.keys(), loc="outside lower center", ncols=min(len(found), 5), frameon=False)
    return figure


def _save(figure: Any, path: Path, report: Report) -> Path:
    """Write the picture, with the machine it was made on in small print."""
    isa = (report.machine.get("dalign") or {}).get("isa", "")
    figure.suptitle(f"{report.machine['cpu']}, {isa}, {report.date[:10]}", fontsize=8, color="0.4")
    figure.savefig(path, dpi=150)
    return path


def _dim(report: Report) -> int:
    """Return the dimension that the pictures show: the one of the first row of the grid."""
    return next((row.dim for row in report.rows if row.family == "grid"), report.rows[0].dim if report.rows else 0)


def _peers(report: Report) -> list[str]:
    return [peer["name"] for peer in report.peers]


def _ours(report: Report) -> str:
    return _peers(report)[0]


def _style(report: Report, peer: str) -> tuple[str, str]:
    """Return the colour and marker of a peer, the same in all pictures."""
    index = _peers(report).index(peer)
    return COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]


def _positive(amount: float | None, unit: float) -> float | None:
    """Return an amount that a logarithmic axis can show: a page at least."""
    return None if amount is None else max(amount, 4096) / unit


def _short(length: float) -> str:
    return f"{length / 1024:g}k" if length >= 1024 and length % 1024 == 0 else f"{length:g}"
