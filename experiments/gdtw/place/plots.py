"""Pictures: frames of queries and what they were matched with, positions on the map, accuracy by tolerance.

Colours by Okabe and Ito.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from experiments.gdtw.place.geography import Doubles, between, heading, to_degrees
from experiments.gdtw.place.sequences import Data, Pairs
from experiments.gdtw.place.tables import Content, entries, errors, rows

COLOURS = {
    "base, DTW": "#999999",
    "base, GDTW": "#000000",
    "OTAM, DTW": "#CC79A7",
    "along truth, DTW": "#E69F00",
    "DILATE, DTW": "#009E73",
    "DecDTW, GDTW": "#0072B2",
}
WRONG = "#D55E00"
SHOWN = ("base, GDTW", "DILATE, DTW", "DecDTW, GDTW")
"""Rows whose matches are drawn."""
EXAMPLES = 4


def draw(content: Content, data: Data, folder: Path) -> list[Path]:
    """Write the pictures of what is done."""
    found = {label: row for label, row in rows(content).items() if label in COLOURS}
    if not found:
        return []
    written = [_save(_accuracy(content, found, data), folder / "accuracy.png", 120)]
    shown = {label: found[label] for label in SHOWN if label in found}
    chosen = pick(content, list(shown.values())[-1], data)
    written.append(_save(_routes(content, shown, chosen, data), folder / "routes.png", 120))
    written.append(_save(_matches(content, shown, chosen[:2], data), folder / "matches.png", 85))
    return written


def pick(content: Content, row: tuple[str, str], data: Data) -> list[int]:
    """Test queries to draw: of each weather in turn, spread evenly over the order of their largest errors.

    So there are good and bad ones, and nobody chose them.
    """
    worst = errors(entries(content)[row[0]], row[1]).max(axis=1)
    conditions = np.array(data.parts["test"].conditions)
    names = list(dict.fromkeys(conditions))
    chosen = list[int]()
    for k in range(EXAMPLES):
        members = np.flatnonzero(conditions == names[k % len(names)])
        chosen.append(int(members[worst[members].argsort()][int((k + 0.5) / EXAMPLES * len(members))]))
    return chosen


# --- Accuracy ---------------------------------------------------------------------------------------------------------


def _accuracy(content: Content, found: Mapping[str, tuple[str, str]], data: Data) -> Any:
    """Share of sequences by tolerance, for all tolerances up to twice the last of the table's."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    panel = figure.subplots()
    limit = 2 * data.tolerances[-1]
    done = entries(content)
    for label, (name, aligner) in found.items():
        worst = np.sort(errors(done[name], aligner).max(axis=1)) / data.unit_km
        share = 100 * np.arange(len(worst) + 1) / len(worst)
        panel.step([0, *worst], share, where="post", color=COLOURS[label], label=label, lw=1.6)
    for tolerance in data.tolerances:
        panel.axvline(tolerance, color="0.85", lw=0.8, zorder=0)
    panel.set(xlim=(0, limit), ylim=(0, 100), xlabel=f"largest error of a sequence, {data.unit}")
    panel.set_ylabel("sequences within it, %")
    panel.legend(frameon=False, fontsize=8, loc="upper left")
    panel.spines[["top", "right"]].set_visible(False)
    return figure


# --- Routes -----------------------------------------------------------------------------------------------------------


def _routes(content: Content, shown: Mapping[str, tuple[str, str]], chosen: list[int], data: Data) -> Any:
    """After Fig. 9: reference positions, the query's, and a line from each of these to where it was matched."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.1 * len(shown), 2.9 * len(chosen)), layout="constrained")
    panels = figure.subplots(len(chosen), len(shown), squeeze=False)
    test = data.parts["test"]
    for line, number in zip(panels, chosen, strict=True):
        plane = _plane(test, number, data.unit_km)
        for panel, (label, (name, aligner)) in zip(line, shown.items(), strict=True):
            entry = entries(content)[name]
            worst = errors(entry, aligner)[number].max() / data.unit_km
            matched = plane(_positions(test, number, entry["index"][aligner][number]))
            _route(panel, plane, test, number, matched, COLOURS[label])
            panel.set_title(f"{label}: {worst:.0f} {data.unit}" if worst >= 10 else f"{label}: {worst:.1f} {data.unit}")
            panel.title.set_fontsize(9)
        line[0].set_ylabel(f"{test.conditions[number]}\n{data.unit}", fontsize=8)
    return figure


def _route(panel: Any, plane: Any, test: Pairs, number: int, matched: Doubles, colour: str) -> None:
    reference = plane(test.references.points[test.reference_of[number]].numpy())
    query = plane(test.queries.points[number].numpy())
    panel.plot(*reference.T, ".-", color="0.75", ms=4, lw=1)
    for start, stop in zip(query, matched, strict=True):
        panel.plot([start[0], stop[0]], [start[1], stop[1]], color=colour, lw=0.9)
    panel.plot(*query.T, "^", color=WRONG, ms=4)
    panel.plot(*matched.T, "o", color=colour, ms=3)
    panel.set_aspect("equal", adjustable="datalim")
    panel.locator_params(nbins=5)
    panel.tick_params(labelsize=7)
    panel.spines[["top", "right"]].set_visible(False)


def _plane(test: Pairs, number: int, unit_km: float) -> Any:
    """East and north of the middle of the reference, in the unit (orthographic)."""
    from experiments.gdtw.place.geography import EARTH_RADIUS

    track = test.references.points[test.reference_of[number]].numpy()
    centre = track[len(track) // 2]
    axes = np.stack([heading(centre, 90), heading(centre, 0)], axis=1)
    return lambda points: (points - centre) @ axes * (EARTH_RADIUS / unit_km)


def _positions(test: Pairs, number: int, index: list[float]) -> Doubles:
    track = test.references.points[test.reference_of[number]]
    return between(track[None], torch.tensor([index], dtype=torch.float64))[0].numpy()


# --- Frames -----------------------------------------------------------------------------------------------------------


def _matches(content: Content, shown: Mapping[str, tuple[str, str]], chosen: list[int], data: Data) -> Any:
    """Frames of queries, below them the nearest reference frames in truth and by each method, with errors."""
    from matplotlib.figure import Figure

    test = data.parts["test"]
    lines = 2 + len(shown)
    count = test.truth.shape[1]
    figure = Figure(figsize=(1.05 * count, 1.2 * lines * len(chosen)))
    grids = figure.subfigures(len(chosen), 1, squeeze=False)[:, 0]
    for grid, number in zip(grids, chosen, strict=True):
        panels = grid.subplots(lines, count, squeeze=False)
        grid.subplots_adjust(left=0.1, right=0.995, top=0.9, bottom=0.03, wspace=0.06, hspace=0.3)
        reference = test.references.read([int(test.reference_of[number])])[0]
        _strip(panels[0], test.queries.read([number])[0], "query")
        _strip(panels[1], reference[test.truth[number].round().long()], "truth")
        for line, (label, (name, aligner)) in zip(panels[2:], shown.items(), strict=True):
            entry = entries(content)[name]
            index = torch.tensor(entry["index"][aligner][number])
            _strip(line, reference[index.round().long()], label.replace(", ", "\n"))
            for panel, error in zip(line, errors(entry, aligner)[number] / data.unit_km, strict=True):
                far = error > data.tolerances[2]
                panel.set_title(f"{error:.0f}" if error >= 10 else f"{error:.1f}", fontsize=7, pad=1.5)
                panel.title.set_color(WRONG if far else "black")
        middle = test.queries.points[number][count // 2].numpy()
        latitude, longitude = (float(value) for value in to_degrees(middle))
        grid.suptitle(
            f"{test.conditions[number]}, around {latitude:.1f}°, {longitude:.1f}°; errors in {data.unit}, "
            f"orange above {data.tolerances[2]:g}",
            fontsize=9,
        )
    return figure


def _strip(line: Any, frames: torch.Tensor, label: str) -> None:
    for panel, frame in zip(line, frames, strict=True):
        panel.imshow(frame.permute(1, 2, 0).numpy())
        panel.set(xticks=[], yticks=[])
    line[0].set_ylabel(label, fontsize=8, rotation=0, ha="right", va="center")


def _save(figure: Any, path: Path, dpi: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=dpi)
    return path
