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

if TYPE_CHECKING:
    from experiments.quickstart.settings import Settings


@dataclasses.dataclass(frozen=True)
class Chorales:
    """Disjoint sets of pieces."""

    train: list[music.Piece]
    validation: list[music.Piece]
    test: list[music.Piece]


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
    """

    features: Tensor
    n_frames: Tensor
    strong: Tensor
    chords: Tensor
    n_chords: Tensor

    def to(self, device: str | torch.device) -> Batch:
        """The same batch on another device."""
        moved = {field.name: getattr(self, field.name).to(device) for field in dataclasses.fields(self)}
        return Batch(**moved)


def load_chorales(settings: Settings) -> Chorales:
    """Four-part chorales of at most a minute, performed at 60 to 100 quarter notes per minute; the seed picks them."""
    names = music.chorale_names()
    np.random.default_rng(settings.seed).shuffle(names)
    sizes = (settings.n_train, settings.n_validation, settings.n_test)
    recipe = music.Recipe(seed=settings.seed, cache=settings.cache)
    rendered = music.make_pieces(names, recipe, sum(sizes))
    pieces = list(tqdm(rendered, total=sum(sizes), desc="music ", unit="piece"))
    first, second = sizes[0], sizes[0] + sizes[1]
    return Chorales(pieces[:first], pieces[first:second], pieces[second:])


def collate(pieces: list[music.Piece]) -> Batch:
    """Pad pieces to a batch."""

    def pad(arrays: list[np.ndarray]) -> Tensor:
        return pad_sequence([torch.as_tensor(array, dtype=torch.float32) for array in arrays], batch_first=True)

    return Batch(
        features=pad([piece.frames.values for piece in pieces]),
        n_frames=torch.tensor([len(piece.frames.times) for piece in pieces]),
        strong=pad([piece.strong for piece in pieces]),
        chords=pad([piece.chords.pitch_classes for piece in pieces]),
        n_chords=torch.tensor([len(piece.chords) for piece in pieces]),
    )


def shuffled_batches(pieces: list[music.Piece], size: int, generator: torch.Generator) -> Iterator[Batch]:
    """One epoch: every piece once, in random order."""
    order = torch.randperm(len(pieces), generator=generator).tolist()
    for start in range(0, len(order), size):
        yield collate([pieces[index] for index in order[start : start + size]])
