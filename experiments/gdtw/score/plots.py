"""Pictures: alignments as in Figs. 4 and 8 of the paper, and the course of the trainings. Colours by Okabe and Ito."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.gdtw.score.features import FRAME_RATE
from experiments.gdtw.score.settings import KINDS, METHODS
from experiments.gdtw.score.tables import KIND_NAMES, NAMES, Content, entries

Example = Mapping[str, NDArray[np.floating[Any]]]
"""Of one slice: "truth" (K, 2), "notes" (L, 3) onset, offset, pitch, and warps "dtw", "gdtw" (N,), all in seconds."""

ROWS = (
    ("Base (D)", "base", "dtw"),
    ("Base (G)", "base", "gdtw"),
    ("DILATE", "dilate", "dtw"),
    ("DecDTW", "decdtw", "gdtw"),
)
COLOURS = dict(zip(METHODS[1:], ("#0072B2", "#009E73", "#CC79A7", "#D55E00", "#E69F00"), strict=True))
BOTH, ONLY_FOUND, ONLY_TRUE = "#000000", "#D55E00", "#F0E442"
STEP = 1 / (4 * FRAME_RATE)
"""Seconds of the performance from one column of a roll to the next."""


def draw(content: Content, examples: Mapping[tuple[str, str], list[Example]], folder: Path) -> list[Path]:
    """Write the pictures; `examples`: by features and method, the same slices of each."""
    written = []
    for number in range(min((len(one) for one in examples.values()), default=0)):
        figure = _alignments({key: one[number] for key, one in examples.items()})
        written.append(_save(figure, folder / f"alignments_{number + 1}.png"))
    if any(of[0]["course"] is not None for of in entries(content).values()):
        written.append(_save(_courses(content), folder / "training.png"))
    return written


# --- Alignments -------------------------------------------------------------------------------------------------------


def roll(example: Example, times: NDArray[Any], values: NDArray[Any], columns: NDArray[Any]) -> NDArray[np.bool_]:
    """(T, 128) keys that sound at times (T,) of the performance, by the score read through a warp.

    The score's time at a time of the performance is the inverse of the warp, the line through (values, times).
    """
    onset, offset, pitch = example["notes"].T
    position = np.interp(columns, values, times)[:, None]
    sounding = (onset <= position) & (position < offset)
    found = np.zeros((len(columns), 128), dtype=np.bool_)
    for key in np.unique(pitch).astype(np.int64):
        found[:, key] = sounding[:, pitch == key].any(axis=1)
    return found


def _alignments(examples: Mapping[tuple[str, str], Example]) -> Any:
    """A row per method and a column per kind of features: scores read through the warps that were found."""
    kinds = [kind for kind in KINDS if any(key[0] == kind for key in examples)]
    rows = [row for row in ROWS if any(key[1] == row[1] for key in examples)]
    figure, panels = _panels(len(rows), len(kinds), (4.2, 1.7))
    for line, (name, method, aligner) in zip(panels, rows, strict=True):
        for panel, kind in zip(line, kinds, strict=True):
            if (kind, method) in examples:
                _alignment(panel, examples[kind, method], aligner)
            panel.set_title(f"{KIND_NAMES[kind]}, {name}", fontsize=8, loc="left")
    for panel in panels[-1]:
        panel.set_xlabel("seconds of the performance")
    _legend(figure)
    return figure


def _alignment(panel: Any, example: Example, aligner: str) -> None:
    from matplotlib.colors import to_rgb

    times, true = example["truth"].T
    found = example[aligner]
    columns = np.arange(0.0, true[-1], STEP)
    rolls = roll(example, np.arange(len(found)) / FRAME_RATE, found, columns), roll(example, times, true, columns)
    shades = np.ones((len(columns), 128, 3))
    for colour, cells in (
        (BOTH, rolls[0] & rolls[1]),
        (ONLY_FOUND, rolls[0] & ~rolls[1]),
        (ONLY_TRUE, ~rolls[0] & rolls[1]),
    ):
        shades[cells] = to_rgb(colour)
    keys = np.flatnonzero((rolls[0] | rolls[1]).any(axis=0))
    low, high = (keys.min() - 2, keys.max() + 3) if len(keys) else (60, 61)
    panel.imshow(
        shades[:, low:high].transpose(1, 0, 2),
        origin="lower",
        aspect="auto",
        interpolation="nearest",
        extent=(0, columns[-1], low - 0.5, high - 0.5),
    )
    panel.set_title(f"{example[f'{aligner}_error'].item():.0f} ms", fontsize=8, loc="right")


def _legend(figure: Any) -> None:
    from matplotlib.patches import Patch

    labels = ((BOTH, "found and true"), (ONLY_FOUND, "found only"), (ONLY_TRUE, "true only"))
    handles = [Patch(facecolor=colour, label=label) for colour, label in labels]
    figure.legend(handles=handles, loc="outside upper right", ncols=3, fontsize=8, frameon=False)


# --- Trainings --------------------------------------------------------------------------------------------------------


def _courses(content: Content) -> Any:
    """TimeErr on the validation slices after each epoch, a panel per kind of features."""
    found = entries(content)
    kinds = [kind for kind in KINDS if any(key[0] == kind for key in found)]
    figure, panels = _panels(1, len(kinds), (3.6, 2.8))
    for panel, kind in zip(panels[0], kinds, strict=True):
        for method, colour in COLOURS.items():
            for entry in found.get((kind, method), [])[:1]:
                validation = entry["course"]["validation"]
                panel.plot(np.arange(len(validation)), validation, color=colour, lw=1.3, label=NAMES[method])
        panel.set_title(KIND_NAMES[kind], fontsize=9)
        panel.set_xlabel("epoch")
        panel.set_ylim(bottom=0)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0, 0].set_ylabel("validation TimeErr, ms")
    handles = {handle.get_label(): handle for panel in panels[0] for handle in panel.get_lines()}
    figure.legend(
        handles=list(handles.values()), loc="outside lower center", ncols=2 * len(kinds), fontsize=8, frameon=False
    )
    return figure


def _panels(rows: int, columns: int, size: tuple[float, float]) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(size[0] * columns, size[1] * rows + 0.4), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def _save(figure: Any, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    return path
