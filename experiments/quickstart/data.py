"""Chorales in three disjoint sets, and batches of whole pieces."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from experiments.data import music
from experiments.data.music import Floats

if TYPE_CHECKING:
    from experiments.quickstart.settings import Settings


@dataclasses.dataclass(frozen=True)
class Chorales:
    """Disjoint sets of pieces."""

    train: list[music.Piece]
    validation: list[music.Piece]
    test: list[music.Piece]


SAMPLES_PER_QUARTER = 4
"""Of the score as written."""


@dataclasses.dataclass(frozen=True)
class Written:
    """The score of a piece at constant tempo, and where in it the performance is.

    Attributes
    ----------
    chords : (S, 12) float32
        What is written at uniform times of the score, from that of the first frame to that of the last.
    place : (N,) float64
        The true warp: where in the score each frame is, from 0, its first sample, to 1, its last one.
    """

    chords: Floats
    place: Floats


@dataclasses.dataclass(frozen=True)
class Batch:
    """B whole pieces, padded with zeros to the longest.

    Attributes
    ----------
    features : (B, N, F) float32
    n_frames : (B,) int64
    strong : (B, N, 12) float32
        What sounds at each frame: known here, but no weak training looks at it.
    chords : (B, M, 12) float32
        The weak target: the sets of pitch classes in their order, without times.
    n_chords : (B,) int64
    written : (B, S, 12) float32
        Score as written.
    n_written : (B,) int64
    place : (B, N) float32
        Where in the score each frame is, from 0 to 1.
    seconds : (B,) float32
        From the first to the last frame.
    """

    features: Tensor
    n_frames: Tensor
    strong: Tensor
    chords: Tensor
    n_chords: Tensor
    written: Tensor
    n_written: Tensor
    place: Tensor
    seconds: Tensor

    def to(self, device: str | torch.device) -> Batch:
        """The same batch on another device."""
        moved = {field.name: getattr(self, field.name).to(device) for field in dataclasses.fields(self)}
        return Batch(**moved)


def load_chorales(settings: Settings) -> Chorales:
    """Four-part chorales of at most a minute, performed at 60 to 100 quarter notes per minute; the seed picks them."""
    names = music.chorale_names()
    np.random.default_rng(settings.seed).shuffle(names)
    sizes = (settings.n_train, settings.n_validation, settings.n_test)
    rendered = music.make_pieces(names, _recipe(settings), sum(sizes))
    pieces = list(tqdm(rendered, total=sum(sizes), desc="music ", unit="piece"))
    first, second = sizes[0], sizes[0] + sizes[1]
    return Chorales(pieces[:first], pieces[first:second], pieces[second:])


def _recipe(settings: Settings) -> music.Recipe:
    return music.Recipe(seed=settings.seed, cache=settings.cache)


def load_melodies(chorales: Chorales, settings: Settings) -> Chorales:
    """The top voices of the same chorales, performed alone: one pitch class at a time."""
    recipe = _recipe(settings)

    def alone(piece: music.Piece) -> music.Piece:
        voice = top_voice(music.load_score(piece.name, recipe.cache))
        return as_melody(music.make_piece(voice, recipe.style, recipe.spectrum, recipe.seed, recipe.cache))

    parts = (chorales.train, chorales.validation, chorales.test)
    with tqdm(total=sum(map(len, parts)), desc="melodies ", unit="piece") as progress:
        rendered: list[list[music.Piece]] = []
        for part in parts:
            rendered.append([])
            for piece in part:
                rendered[-1].append(alone(piece))
                progress.update()
    return Chorales(*rendered)


def top_voice(score: music.Score) -> music.Score:
    """The highest part alone, of notes that begin together the highest."""
    notes = score.notes
    at = np.flatnonzero(notes.part == notes.part.min())
    at = at[np.append(np.diff(notes.onset[at]) > 0, True)]  # sorted by onset, then pitch
    columns = (notes.onset[at], notes.offset[at], notes.pitch[at], notes.part[at])
    return music.Score(score.name, 1, music.Notes(*columns))


def as_melody(piece: music.Piece) -> music.Piece:
    """A piece of single notes with a target for each of them: `chords` of its own joins notes that repeat.

    A rest counts to the note before it.
    """
    notes = piece.performance.notes
    sets = (notes.pitch % 12)[:, None] == np.arange(12)
    chords = music.Chords(sets.astype(np.uint8), notes.onset, np.append(notes.onset[1:], piece.chords.end[-1]))
    return dataclasses.replace(piece, chords=chords)


def as_written(piece: music.Piece) -> Written:
    """Take the tempo out of a piece."""
    quarters = piece.performance.time_map.quarters
    place = quarters(piece.frames.times)
    samples = int(np.ceil(np.ptp(place) * SAMPLES_PER_QUARTER)) + 1
    times = np.linspace(place[0], place[-1], max(samples, 2))
    chord = np.searchsorted(quarters(piece.chords.start), times, side="right") - 1
    chords = piece.chords.pitch_classes[chord.clip(min=0)]
    return Written(chords.astype(np.float32), (place - place[0]) / np.ptp(place))


def collate(pieces: list[music.Piece]) -> Batch:
    """Pad pieces to a batch."""

    def pad(arrays: list[np.ndarray]) -> Tensor:
        return pad_sequence([torch.as_tensor(array, dtype=torch.float32) for array in arrays], batch_first=True)

    scores = [as_written(piece) for piece in pieces]
    return Batch(
        features=pad([piece.frames.values for piece in pieces]),
        n_frames=torch.tensor([len(piece.frames.times) for piece in pieces]),
        strong=pad([piece.strong for piece in pieces]),
        chords=pad([piece.chords.pitch_classes for piece in pieces]),
        n_chords=torch.tensor([len(piece.chords) for piece in pieces]),
        written=pad([score.chords for score in scores]),
        n_written=torch.tensor([len(score.chords) for score in scores]),
        place=pad([score.place for score in scores]),
        seconds=torch.tensor([np.ptp(piece.frames.times) for piece in pieces], dtype=torch.float32),
    )


def shuffled_batches(pieces: list[music.Piece], size: int, generator: torch.Generator) -> Iterator[Batch]:
    """One epoch: every piece once, in random order."""
    order = torch.randperm(len(pieces), generator=generator).tolist()
    for start in range(0, len(order), size):
        yield collate([pieces[index] for index in order[start : start + size]])
