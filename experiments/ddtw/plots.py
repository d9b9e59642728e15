"""Pictures after Figs. 9 to 11 of the paper. Colours by Okabe and Ito; rows of the blank are red, as in the paper."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from experiments.data.music import PITCH_CLASS_NAMES
from experiments.data.themes import REST
from experiments.ddtw.metrics import Floats, one_hot
from experiments.ddtw.settings import SAMPLE_RATE
from experiments.ddtw.tables import Content, runs, values

Example = Mapping[str, Floats]

FIG_9 = ("CTC-A", "CTC-B", "SDTW-E", "SDTW-E-W", "EM", "strong")
FIG_10 = ("CTC-A", "SDTW-E", "CTC-A-W", "CTC-B-W", "SDTW-E-W", "strong")
BLUE, ORANGE, GREY = "#0072B2", "#E69F00", "0.45"
NAMES = PITCH_CLASS_NAMES[::2]


def draw(content: Content, examples: Mapping[str, Example], folder: Path) -> list[Path]:
    """Write the pictures of a task; `examples`: by method, of the networks with the lowest validation losses."""
    frame_rate = SAMPLE_RATE / content["settings"]["hop"]
    if content["settings"]["task"] == "single":
        drawn = {name: examples[name] for name in FIG_9 if name in examples}
        return [_save(_themes(drawn, frame_rate), folder / "predictions.png")] if drawn else []
    written = [_save(_bars(content), folder / "f_measure.png")] if runs(content) else []
    drawn = {name: examples[name] for name in FIG_10 if name in examples}
    return [*written, _save(_alignments(drawn, frame_rate), folder / "alignments.png")] if drawn else written


def _themes(examples: Mapping[str, Example], frame_rate: float) -> Any:
    """Fig. 9: predicted pitch classes of one theme, a panel per method, the reference last."""
    figure, panels = _panels(len(examples) + 1, 1, (7.5, 1.15))
    for panel, (method, example) in zip(panels[:, 0], examples.items(), strict=False):
        _chroma(panel, example["probabilities"], frame_rate, blank_first=False)
        panel.set_title(method, fontsize=9)
    reference = next(iter(examples.values()))["strong"]
    _chroma(panels[-1, 0], one_hot(reference.astype(np.int64)), frame_rate, blank_first=False)
    panels[-1, 0].set_title("what is played", fontsize=9)
    panels[-1, 0].set_xlabel("seconds")
    return figure


def _alignments(examples: Mapping[str, Example], frame_rate: float) -> Any:
    """Fig. 10: predictions on the left, soft alignments on the right, a row per method."""
    figure, panels = _panels(len(examples) + 1, 2, (5.2, 1.5))
    for row, (method, example) in zip(panels, examples.items(), strict=False):
        probabilities = example["probabilities"]
        _chroma(row[0], probabilities, frame_rate, blank_first=probabilities.shape[1] > REST)
        _alignment(row[1], example["alignment"], frame_rate, with_blanks=probabilities.shape[1] > REST)
        row[0].set_title(method, fontsize=9)
    reference = next(iter(examples.values()))["strong"]
    _chroma(panels[-1, 0], reference, frame_rate, blank_first=False)
    changes = np.concatenate([[0], (reference[1:] != reference[:-1]).any(axis=1).cumsum()])
    _alignment(
        panels[-1, 1], (changes[:, None] == np.arange(changes[-1] + 1)).astype(float), frame_rate, with_blanks=False
    )
    panels[-1, 0].set_title("what is played", fontsize=9)
    panels[-1, 0].set_xlabel("seconds")
    panels[-1, 1].set_xlabel("seconds")
    return figure


def _chroma(panel: Any, probabilities: Floats, frame_rate: float, blank_first: bool) -> None:
    """Pitch classes upwards in grey, and below them the blank in red where there is one."""
    has_blank = probabilities.shape[1] > REST
    blank = (probabilities[:, 0] if blank_first else probabilities[:, REST]) if has_blank else None
    classes = probabilities[:, 1:] if blank_first else probabilities[:, :REST]
    shades = np.ones((REST + int(has_blank), len(classes), 3))
    shades[int(has_blank) :] -= classes.T[:, :, None]
    if blank is not None:
        shades[0, :, 1:] -= blank[:, None]
    bottom = -1.5 if has_blank else -0.5
    _image(panel, shades, (0, len(classes) / frame_rate, bottom, REST - 0.5))
    panel.set_yticks([*([-1] if has_blank else []), *range(0, REST, 2)], [*(["blank"] if has_blank else []), *NAMES])


def _alignment(panel: Any, alignment: Floats, frame_rate: float, with_blanks: bool) -> None:
    """Targets upwards; with blanks between them these rows are red.

    The weights of each frame are divided by their sum: as gradients they are small where a step's weight is.
    """
    weight = (alignment / np.maximum(alignment.sum(axis=1, keepdims=True), 1e-9)).T
    shades = np.repeat(1 - weight[:, :, None], 3, axis=2)
    if with_blanks:
        shades[0::2, :, 0] = 1
    _image(panel, np.clip(shades, 0, 1), (0, len(alignment) / frame_rate, -0.5, len(weight) - 0.5))
    panel.set_ylabel("extended target" if with_blanks else "target")


def _image(panel: Any, shades: Floats, extent: tuple[float, float, float, float]) -> None:
    panel.imshow(np.clip(shades, 0, 1), origin="lower", aspect="auto", interpolation="nearest", extent=extent)


def _bars(content: Content) -> Any:
    """Fig. 11: median F-measure with the range of the networks."""
    from matplotlib.figure import Figure

    found = runs(content)
    figure = Figure(figsize=(6.5, 0.32 * len(found) + 1.0), layout="constrained")
    panel = figure.subplots()
    for place, (method, networks) in enumerate(found.items()):
        f_measure = values(networks, "f_measure")
        median = float(np.median(f_measure))
        colour = GREY if method in ("EM", "strong") else ORANGE if method.startswith("CTC") else BLUE
        spread = [[median - min(f_measure)], [max(f_measure) - median]]
        panel.barh(place, median, color=colour, height=0.7, xerr=spread, ecolor="black", capsize=3)
        panel.text(0.01, place, f"{median:.3f}", va="center", color="white", fontsize=8)
    panel.set_yticks(range(len(found)), list(found))
    panel.invert_yaxis()
    panel.set(xlabel="F-measure on the test pieces: median, lowest, highest", xlim=(0, 1))
    panel.spines[["top", "right"]].set_visible(False)
    return figure


def _panels(rows: int, columns: int, size: tuple[float, float]) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(columns * size[0], rows * size[1]), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True)
    for panel in panels.flat:
        panel.tick_params(labelsize=7)
        panel.yaxis.label.set_fontsize(8)
    return figure, panels


def _save(figure: Any, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    return path
