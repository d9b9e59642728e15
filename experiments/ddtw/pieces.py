"""Polyphonic pieces for the multi-label task: rendered chorales and quartets, their pitch classes in every frame."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from experiments.data import hcqt, music
from experiments.ddtw.networks import ChordNet
from experiments.ddtw.settings import Multi

QUARTETS = ("k80", "k155", "k156", "k458", "opus1no1", "opus74no1", "opus74no2", "opus18no1", "opus18no3")
"""Folders of music21's corpus: by Mozart, Haydn and Beethoven."""

QUARTET_SHARE = 4
"""One piece of so many is a movement of a quartet, as long as there are some."""

STYLE = music.Style(tempo=(60.0, 100.0), presets=(music.PIANO, music.CHURCH_ORGAN, music.STRINGS, music.CHOIR))


@dataclasses.dataclass(frozen=True)
class Piece:
    """A performed piece from its first onset to its last release.

    Attributes
    ----------
    name : str
    features : (N, 6, 216) float16
        Magnitudes of the harmonic constant-Q transform.
    strong : (N, 12) uint8
        Pitch classes that sound at each frame.
    """

    name: str
    features: NDArray[np.float16]
    strong: NDArray[np.uint8]


class Segment(NamedTuple):
    """N frames for training: features (1, 6, N + 74, 216) with context, and their targets (N, 12) and (M, 12)."""

    features: Tensor
    strong: Tensor
    weak: Tensor


def load(size: Multi, cache: Path | None) -> tuple[list[Piece], list[Piece], list[Piece]]:
    """Disjoint pieces for training, validation and test, of each about the same share of quartets."""
    from tqdm import tqdm

    spectrum = hcqt.HarmonicSpectrum(hop=size.hop)
    total = size.n_train + size.n_validation + size.n_test
    found = list[Piece]()
    with tqdm(total=total, desc="music ", unit="piece", leave=False) as progress:
        for name in names():
            score = shorten(music.load_score(name, cache), size.quarters)
            found.append(render(score, spectrum, cache))
            progress.update()
            if len(found) == total:
                break
    if len(found) < total:
        raise ValueError(f"the corpus holds {len(found)} pieces, {total} expected")
    # The test pieces come first, so that they stay the same when others are added.
    test, rest = found[: size.n_test], found[size.n_test :]
    return rest[size.n_validation :], rest[: size.n_validation], test


def names() -> Iterator[str]:
    """Chorales in random order, and after each few a movement of a quartet."""
    rng = np.random.default_rng(0)
    chorales, quartets = music.chorale_names(), quartet_names()
    rng.shuffle(chorales)
    rng.shuffle(quartets)
    for number, chorale in enumerate(chorales, start=1):
        yield chorale
        if number % (QUARTET_SHARE - 1) == 0 and quartets:
            yield quartets.pop()


def quartet_names() -> list[str]:
    """Names of the movements of the quartets."""
    from music21 import corpus

    paths = [Path(path) for path in corpus.getCorePaths()]
    found = {
        f"{path.parent.parent.name}/{path.parent.name}/{path.stem}" for path in paths if path.parent.name in QUARTETS
    }
    return sorted(found)


def shorten(score: music.Score, quarters: float) -> music.Score:
    """The beginning of a score."""
    notes = score.notes
    kept = notes.onset < quarters
    return dataclasses.replace(
        score,
        notes=music.Notes(
            notes.onset[kept], np.minimum(notes.offset[kept], quarters), notes.pitch[kept], notes.part[kept]
        ),
    )


def render(score: music.Score, spectrum: hcqt.HarmonicSpectrum, cache: Path | None) -> Piece:
    """Perform and render a score, and write down what sounds."""
    played = music.perform(score, STYLE)
    frames = hcqt.features(played, spectrum, cache).between(played.first_onset, played.last_offset)
    return Piece(score.name, frames.values.astype(np.float16), music.pitch_classes(played.notes, frames.times))


def network_input(features: NDArray[np.float16]) -> Tensor:
    """(1, 6, N + 74, 216) compressed magnitudes, with silence as the context of the first and last frames."""
    compressed = torch.log1p(10.0 * torch.as_tensor(features).float()).transpose(0, 1)
    return F.pad(compressed, (0, 0, ChordNet.CONTEXT, ChordNet.CONTEXT))[None]


def segments(pieces: Sequence[Piece], size: Multi) -> list[tuple[Piece, int]]:
    """(piece, first frame) of the segments; a piece that is shorter than one gives one."""
    return [
        (piece, first)
        for piece in pieces
        for first in range(0, max(len(piece.strong) - size.segment, 0) + 1, size.stride)
    ]


def cut(piece: Piece, first: int, length: int) -> Segment:
    """A segment, with what sounds around it as its context."""
    context = ChordNet.CONTEXT
    last = min(first + length, len(piece.strong))
    before, after = max(first - context, 0), min(last + context, len(piece.strong))
    inside = network_input(piece.features[before:after])
    start = first - before
    strong = torch.as_tensor(piece.strong[first:last]).float()
    return Segment(inside[:, :, start : start + last - first + 2 * context], strong, collapse(strong))


def collapse(strong: Tensor) -> Tensor:
    """(M, 12): equal neighbours merged."""
    return torch.unique_consecutive(strong, dim=0)
