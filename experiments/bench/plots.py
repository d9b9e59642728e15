"""Pictures of a benchmark: what the pictures of all suites share. Colours by Okabe and Ito."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .harness import Spread
from .report import Report, RowT

COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "os^Dvp*"
SIDE = 4.2  # inches of one panel
Picture = Callable[[Any], Any]  # takes a suite's report, gives a matplotlib figure or None


def draw(report: Report, folder: Path, pictures: Mapping[str, Picture]) -> list[Path]:
    """Draw the pictures, by name, for which the report has rows.

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
    for name, picture in pictures.items():
        figure = picture(report)
        if figure is not None:
            written.append(_save(figure, folder / f"{report.suite}_{name}.png", report))
    return written


def make_panels(count: int, label: str, logarithmic: bool = True, share: bool = False) -> tuple[Any, Sequence[Any]]:
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


def draw_lines(
    panel: Any,
    report: Report,
    rows: Iterable[RowT],
    height: Callable[[RowT], float | None],
    bars: Callable[[RowT], tuple[float, float]] | None = None,
) -> None:
    """Draw a line per peer over length; `bars` gives the distances down and up of an error bar."""
    for peer in peer_names(report):
        points = sorted((row.length, at, row) for row in rows if row.peer == peer and (at := height(row)) is not None)
        if not points:
            continue
        colour, marker = style_of(report, peer)
        spread = None if bars is None else list(zip(*(bars(row) for *_, row in points), strict=True))
        panel.errorbar(
            [length for length, *_ in points],
            [at for _, at, _ in points],
            yerr=spread,
            color=colour,
            marker=marker,
            markersize=5,
            linewidth=2.2 if peer == own_name(report) else 1.4,
            capsize=2,
            label=peer,
        )


def with_legend(figure: Any, panels: Sequence[Any], columns: int = 5) -> Any:
    """Put one legend under all panels, with every label once, in at most so many columns."""
    found: dict[str, Any] = {}
    for panel in panels:
        handles, labels = panel.get_legend_handles_labels()
        found.update(zip(labels, handles, strict=True))
    figure.legend(
        found.values(), found.keys(), loc="outside lower center", ncols=min(len(found), columns), frameon=False
    )
    return figure


def _save(figure: Any, path: Path, report: Report) -> Path:
    """Write the picture, with the machine it was made on in small print."""
    isa = (report.machine.get("dalign") or {}).get("isa", "")
    figure.suptitle(f"{report.machine['cpu']}, {isa}, {report.date[:10]}", fontsize=8, color="0.4")
    figure.savefig(path, dpi=150)
    return path


def peer_names(report: Report) -> list[str]:
    """Return the names of all peers, ours first."""
    return [peer["name"] for peer in report.peers]


def own_name(report: Report) -> str:
    """Return what our own package is called."""
    return peer_names(report)[0]


def style_of(report: Report, peer: str) -> tuple[str, str]:
    """Return the colour and marker of a peer, the same in all pictures."""
    index = peer_names(report).index(peer)
    return COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]


def time_bars(spread: Spread, cells: int) -> tuple[float, float]:
    """Return how far the fastest and the slowest run lie from the median, in ns per cell."""
    return (spread.median - spread.minimum) * 1e9 / cells, (spread.maximum - spread.median) * 1e9 / cells


def number(height: float) -> str:
    """Three digits, without a power of ten."""
    return f"{height:.0f}" if height >= 100 else f"{height:.3g}"


def _short(length: float) -> str:
    return f"{length / 1024:g}k" if length >= 1024 and length % 1024 == 0 else f"{length:g}"
