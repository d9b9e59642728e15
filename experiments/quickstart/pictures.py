"""The PNG files: one excerpt of a held-out chorale from sound to alignment, and the course of the training.

Colours are from Okabe and Ito's palette, cividis and the greys, which people with colour-blindness can tell apart.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from experiments.data import music
from experiments.data.music import Floats
from experiments.quickstart.data import as_written
from experiments.quickstart.evaluation import find_warp, predict, soft_alignment
from experiments.quickstart.losses import training

if TYPE_CHECKING:
    from experiments.quickstart.network import PitchClassNet
    from experiments.quickstart.training import Result

SECONDS = 15.0
"""Length of the excerpt: short enough for every chord to have its name on the axis."""

ORANGE, SKY, GREEN, BLUE, VERMILLION, PURPLE = "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7"
VOICES = (("soprano", VERMILLION), ("alto", ORANGE), ("tenor", GREEN), ("bass", BLUE))
CURVES = (BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILLION)

STYLE = {
    "font.size": 9.0,
    "axes.titlesize": 10.0,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.labelsize": 9.0,
    "xtick.labelsize": 8.0,
    "ytick.labelsize": 8.0,
    "legend.fontsize": 8.0,
    "legend.frameon": False,
    "figure.dpi": 110,
}

CHORD_SHAPES = {
    (0, 4, 7): "",
    (0, 3, 7): "m",
    (0, 3, 6): "°",
    (0, 4, 8): "+",
    (0, 4, 7, 10): "7",
    (0, 4, 7, 11): "maj7",
    (0, 3, 7, 10): "m7",
    (0, 3, 6, 10): "ø7",
    (0, 3, 6, 9): "°7",
    (0, 5, 7): "sus4",
}
"""Intervals above the root, and what is written after its name."""


@dataclasses.dataclass(frozen=True)
class Excerpt:
    """The beginning of a piece with all that is drawn of it; frames are rows.

    Attributes
    ----------
    piece : Piece
        Cut to the excerpt.
    predictions, alignments : pair of arrays
        (N, 12) and (N, M), before and after training.
    """

    piece: music.Piece
    predictions: tuple[Floats, Floats]
    alignments: tuple[Floats, Floats]


def draw_all(results: Mapping[str, Result], piece: music.Piece, gamma: float, folder: Path) -> list[Path]:
    """Write all pictures and return their paths; the networks are those of the first result."""
    first = next(iter(results.values()))
    excerpt = make_excerpt(first.untrained, first.network, piece, gamma)
    panels: dict[str, Callable[[Axes], None]] = {
        "features": lambda axes: draw_features(axes, excerpt.piece),
        "reference": lambda axes: draw_notes(axes, excerpt.piece),
        "prediction_before": lambda axes: draw_prediction(axes, excerpt, 0),
        "prediction_after": lambda axes: draw_prediction(axes, excerpt, 1),
        "alignment_before": lambda axes: draw_alignment(axes, excerpt, 0),
        "alignment_after": lambda axes: draw_alignment(axes, excerpt, 1),
    }
    figures = {name: _single(draw, tall=name.startswith("alignment")) for name, draw in panels.items()}
    figures["loss"] = draw_training(results)
    figures["warp"] = draw_warps((first.untrained, first.network), piece)
    figures["demo"] = draw_overview(panels, piece.name)
    return [_save(figure, folder / f"{name}.png") for name, figure in figures.items()]


def make_excerpt(untrained: PitchClassNet, trained: PitchClassNet, piece: music.Piece, gamma: float) -> Excerpt:
    """Predict and align the whole piece, then cut out its beginning, up to the end of a chord."""
    n_chords = max(int((piece.chords.end <= piece.performance.first_onset + SECONDS).sum()), 1)
    end = piece.chords.end[n_chords - 1]
    n_frames = int((piece.frames.times < end).sum())
    networks = (untrained, trained)
    predictions = [predict(network, piece)[:n_frames] for network in networks]
    alignments = [soft_alignment(network, piece, gamma)[:n_frames, :n_chords] for network in networks]
    return Excerpt(_cut(piece, n_frames, n_chords), (predictions[0], predictions[1]), (alignments[0], alignments[1]))


def _cut(piece: music.Piece, n_frames: int, n_chords: int) -> music.Piece:
    frames, chords = piece.frames, piece.chords
    return dataclasses.replace(
        piece,
        frames=music.Frames(frames.values[:n_frames], frames.times[:n_frames]),
        strong=piece.strong[:n_frames],
        chords=music.Chords(chords.pitch_classes[:n_chords], chords.start[:n_chords], chords.end[:n_chords]),
    )


# --- Panels: time in seconds from left to right -----------------------------------------------------------------------


def draw_features(axes: Axes, piece: music.Piece) -> None:
    """Constant-Q features, with the octaves' C on the axis."""
    axes.set_title("Input: constant-Q features of the rendered sound")
    semitones = piece.frames.values.shape[1] / 3
    axes.imshow(piece.frames.values.T, cmap="cividis", extent=(*_span(piece), 0, semitones), **_IMAGE)
    octaves = np.arange(0, semitones, 12)
    axes.set_yticks(octaves + 0.5, [f"C{index + 1}" for index in range(len(octaves))])
    axes.set_ylabel("pitch")


def draw_notes(axes: Axes, piece: music.Piece) -> None:
    """The notes that were played, a colour for each voice."""
    axes.set_title("Reference: the notes that were played")
    notes, end = piece.performance.notes, _span(piece)[1]
    for part, (_, colour) in enumerate(VOICES):
        mine = (notes.part == part) & (notes.onset < end)
        length = np.minimum(notes.offset[mine], end) - notes.onset[mine]
        axes.barh(notes.pitch[mine], length, left=notes.onset[mine], height=0.8, color=colour, ec="white", lw=0.6)
    heard = notes.pitch[notes.onset < end]
    lowest, highest = int(heard.min()), int(heard.max())
    octaves = np.arange(-(-lowest // 12) * 12, highest + 1, 12)
    axes.set_yticks(octaves, [f"C{pitch // 12 - 1}" for pitch in octaves])
    axes.set_ylim(lowest - 1, highest + 6)
    axes.set_ylabel("pitch")
    axes.set_xlim(*_span(piece))
    names = [Patch(color=colour, label=name) for name, colour in VOICES]
    axes.legend(handles=names, ncols=4, loc="upper right", handlelength=1.0, columnspacing=1.2, borderaxespad=0.1)


def draw_prediction(axes: Axes, excerpt: Excerpt, stage: int) -> None:
    """Predicted pitch classes in grey, the true ones outlined."""
    axes.set_title(f"Predicted pitch classes {_STAGES[stage]}")
    extent = (*_span(excerpt.piece), -0.5, 11.5)
    axes.imshow(excerpt.predictions[stage].T, cmap="Greys", vmin=0, vmax=1, extent=extent, **_IMAGE)
    _outline(axes, excerpt.piece.strong, excerpt.piece)
    axes.set_yticks(range(12), music.PITCH_CLASS_NAMES)
    axes.legend(
        handles=[Patch(color="0.2", label="predicted"), Line2D([], [], color=VERMILLION, lw=1.0, label="true")],
        ncols=2, loc="lower right", bbox_to_anchor=(1.0, 1.0), handlelength=1.0, columnspacing=1.2, borderaxespad=0.1,
    )  # fmt: skip


def draw_alignment(axes: Axes, excerpt: Excerpt, stage: int) -> None:
    """Soft alignment between the frames and the chord sequence, with the chords' true times as a staircase."""
    axes.set_title(f"Soft alignment with the chord sequence {_STAGES[stage]}")
    chords = excerpt.piece.chords
    extent = (*_span(excerpt.piece), len(chords) - 0.5, -0.5)
    axes.imshow(excerpt.alignments[stage].T, cmap="Blues", vmin=0, vmax=1, extent=extent, **_TOP_DOWN)
    edges = np.append(chords.start, chords.end[-1:])
    axes.stairs(np.arange(len(chords)), edges, baseline=None, color=VERMILLION, lw=0.9)
    axes.set_yticks(range(len(chords)), [chord_label(row) for row in chords.pitch_classes], fontsize=6.0)
    axes.set_ylabel("chord sequence (no durations)")
    axes.legend(
        handles=[Patch(color="#2f7ebc", label="alignment"), Line2D([], [], color=VERMILLION, lw=1.0, label="true")],
        ncols=1, loc="upper right", handlelength=1.0,
    )  # fmt: skip


_STAGES = ("before training", "after training")
_IMAGE = {"aspect": "auto", "origin": "lower", "interpolation": "nearest"}
_TOP_DOWN = {"aspect": "auto", "origin": "upper", "interpolation": "nearest"}


def _span(piece: music.Piece) -> tuple[float, float]:
    """Edges in seconds of the first and the last frame."""
    times = piece.frames.times
    half = (times[1] - times[0]) / 2
    return float(times[0] - half), float(times[-1] + half)


def _outline(axes: Axes, roll: np.ndarray, piece: music.Piece) -> None:
    """Draw the border of every run of ones in a (N, 12) roll."""
    start, end = _span(piece)
    edges = np.linspace(start, end, len(roll) + 1)
    for pitch_class in range(roll.shape[1]):
        change = np.flatnonzero(np.diff(np.pad(roll[:, pitch_class].astype(int), 1)))
        for on, off in change.reshape(-1, 2):
            x, y = edges[[on, off, off, on, on]], pitch_class + np.array([-0.42, -0.42, 0.42, 0.42, -0.42])
            axes.plot(x, y, color=VERMILLION, lw=0.8, solid_joinstyle="miter")
    axes.set_xlim(start, end)
    axes.set_ylim(-0.5, 11.5)


def chord_label(pitch_classes: np.ndarray) -> str:
    """Name of a chord, such as "C", "Am" or "G7"; else its pitch classes, such as "C D G"; "-" for a rest.

    Examples
    --------
    >>> chord_label(np.isin(np.arange(12), [9, 0, 4]))
    'Am'
    """
    members = np.flatnonzero(pitch_classes)
    for root in members:
        shape = tuple(sorted((members - root) % 12))
        if shape in CHORD_SHAPES:
            return music.PITCH_CLASS_NAMES[root] + CHORD_SHAPES[shape]
    return " ".join(music.PITCH_CLASS_NAMES[member] for member in members) or "-"


# --- Figures ----------------------------------------------------------------------------------------------------------


def _figure(width: float, height: float) -> Figure:
    # Style and figure without pyplot: no global state, no window, nothing to close.
    return Figure(figsize=(width, height), layout="constrained")


def _single(draw: Callable[[Axes], None], tall: bool) -> Figure:
    with matplotlib.rc_context(STYLE):
        figure = _figure(7.5, 5.2 if tall else 3.0)
        axes = figure.add_subplot()
        draw(axes)
        axes.set_xlabel("time (s)")
    return figure


def draw_overview(panels: Mapping[str, Callable[[Axes], None]], title: str) -> Figure:
    """All panels in one figure: input and reference, then before and after training from left to right."""
    with matplotlib.rc_context(STYLE):
        figure = _figure(12.0, 9.6)
        grid = figure.subplots(3, 2, sharex=True, height_ratios=(1.0, 1.0, 1.9))
        for axes, draw in zip(grid.flat, panels.values(), strict=True):
            draw(axes)
        for axes in grid[-1]:
            axes.set_xlabel("time (s)")
        figure.suptitle(f"Held-out chorale {title.removeprefix('bach/').upper()}", x=0.01, ha="left", fontsize=11)
    return figure


def draw_warps(networks: tuple[PitchClassNet, PitchClassNet], piece: music.Piece) -> Figure:
    """The way through the score that DecDTW finds, before and after training, over the costs that it sees."""
    with matplotlib.rc_context(STYLE):
        figure = _figure(9.5, 4.2)
        for axes, network, stage in zip(figure.subplots(1, 2, sharey=True), networks, _STAGES, strict=True):
            _draw_warp(axes, network, piece)
            axes.set(title=f"Warp {stage}", xlabel="time (s)")
        figure.axes[0].set_ylabel("score (quarter notes)")
        figure.axes[1].legend(loc="lower right", labelcolor="black", frameon=True, framealpha=0.9, edgecolor="none")
    return figure


def _draw_warp(axes: Axes, network: PitchClassNet, piece: music.Piece) -> None:
    score, (start, end) = as_written(piece), _span(piece)
    cost = np.square(predict(network, piece)[:, None] - score.chords).sum(2)
    first, last = piece.performance.time_map.quarters(piece.frames.times[[0, -1]])
    axes.imshow(cost.T, cmap="Greys", extent=(start, end, first, last), **_IMAGE)
    warp, colour = first + (last - first) * find_warp(network, piece), BLUE
    axes.plot(piece.frames.times[[0, -1]], (first, last), color="0.45", lw=1.0, ls="--", label="one tempo")
    axes.plot(piece.frames.times, first + (last - first) * score.place, color=VERMILLION, lw=3.0, label="true")
    axes.plot(piece.frames.times, warp, color=colour, lw=1.2, label="DecDTW")
    axes.autoscale_view()


def draw_training(results: Mapping[str, Result]) -> Figure:
    """Loss of every step on the left, F-measure on the validation pieces on the right."""
    with matplotlib.rc_context(STYLE):
        figure = _figure(9.5, 3.4)
        left, right = figure.subplots(1, 2)
        for colour, (name, result) in zip(CURVES * len(results), results.items(), strict=False):
            _draw_losses(left, result, colour)
            f_measures = [scores.f_measure for scores in result.epoch_scores]
            right.plot(f_measures, "o-", color=colour, ms=4, label=training(name).title)
        left.set(title="Training loss", xlabel="epoch", ylabel="loss per frame")
        right.set(title="F-measure on validation pieces", xlabel="epoch", ylabel="F", ylim=(-0.03, 1.0))
        right.legend(loc="lower right")
        for axes in (left, right):
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.grid(alpha=0.25, lw=0.6)
    return figure


def _draw_losses(axes: Axes, result: Result, colour: str) -> None:
    """Each step faintly, and their running mean."""
    losses = np.array(result.step_losses)
    epochs = np.arange(1, len(losses) + 1) * (len(result.epoch_scores) - 1) / len(losses)
    width = max(len(losses) // 20, 1)
    mean = np.convolve(losses, np.ones(width) / width, mode="valid")
    axes.plot(epochs, losses, color=colour, alpha=0.25, lw=0.7)
    axes.plot(epochs[width - 1 :], mean, color=colour, lw=1.6)


def _save(figure: Figure, path: Path) -> Path:
    figure.savefig(path)
    return path
