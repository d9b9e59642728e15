"""Pairs of a synthesised score and a performance, with the warp between them, and slices of them.

A *recording* is a pair: frames of the score, frames of the performance, and breakpoints (score time, performance time)
of the true warp, both in seconds, one wherever a note of the score starts or ends. *Slices* are 256 frames of the
performance, one after the other, and the frames of the score that belong to them; their ends are known to belong
together, and alignments go from end to end.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from experiments.data import music
from experiments.data.music import Floats, Score
from experiments.ddtw.pieces import quartet_names, shorten
from experiments.gdtw.score import performance
from experiments.gdtw.score.features import FRAME_RATE, KINDS, times
from experiments.gdtw.score.performance import NOISY, ROOM, Room

SOUNDS: dict[str, Room | None] = {"clean": None, "room": ROOM, "noise": NOISY}
"""What a performance sounds like: as synthesised, detuned in a room, or that with noise."""

KEYBOARD = (
    "chopin/mazurka06-2",
    "cpebach/h186",
    "joplin/maple_leaf_rag",
    "mozart/k545/movement1_exposition",
    "schoenberg/opus19/movement6",
    "schumann_clara/polonaise_op1n1",
    "schumann_clara/polonaise_op1n2",
    "schumann_clara/polonaise_op1n3",
    "schumann_clara/polonaise_op1n4",
)
"""Piano pieces of music21's corpus."""

Arrays = Mapping[str, NDArray[np.float32]]


@dataclasses.dataclass(frozen=True)
class Recording:
    """A score and a performance of it.

    Attributes
    ----------
    name, piece : str
        Performances of one piece stay in one part of the data.
    score, played : mapping
        By kind of features, frames (N, D) of the synthesised score and (M, D) of the performance.
    truth : (K, 2) float64
        Score time and performance time in seconds; both grow.
    notes : Notes
        Of the score, in seconds of its synthesis.
    """

    name: str
    piece: str
    score: Arrays
    played: Arrays
    truth: Floats
    notes: music.Notes


@dataclasses.dataclass(frozen=True)
class Slice:
    """Part of a recording: `score` (N, D), `played` (M, D), and the truth (K, 2) in seconds from their first frames."""

    name: str
    first: int
    start: float
    score: Tensor
    played: Tensor
    truth: Tensor


class Batch(NamedTuple):
    """Padded slices: features (B, N, D) and (B, M, D), their lengths, the true warp's times and values (B, K)."""

    score: Tensor
    played: Tensor
    score_lengths: Tensor
    played_lengths: Tensor
    truth_times: Tensor
    truth_values: Tensor
    truth_lengths: Tensor

    @property
    def duration(self) -> Tensor:
        """(B,) seconds from the first to the last frame of the performances."""
        return (self.played_lengths - 1) / FRAME_RATE


Parts = dict[str, list[Recording]]


# --- Pieces of the corpus ---------------------------------------------------------------------------------------------


def load(counts: Mapping[str, int], quarters: float, sound: str, seed: int = 0, cache: Path | None = None) -> Parts:
    """So many rendered pieces for each part, all different; the first part named has the same ones at any scale.

    Raises
    ------
    ValueError
        If the corpus has too few.
    """
    from tqdm import tqdm

    found = iter(names())
    parts: Parts = {}
    with tqdm(total=sum(counts.values()), desc="music ", unit="piece", leave=False) as progress:
        for part, count in counts.items():
            parts[part] = []
            for name in found:
                parts[part].append(render(shorten(music.load_score(name, cache), quarters), sound, seed, cache))
                progress.update()
                if len(parts[part]) == count:
                    break
            if len(parts[part]) < count:
                raise ValueError(f"{part}: the corpus has {len(parts[part])} more pieces, {count} expected")
    return parts


def names() -> Iterator[str]:
    """Chorales in random order; after each a movement of a quartet or a piano piece, as long as there are any."""
    rng = np.random.default_rng(0)
    chorales, others = music.chorale_names(), [*quartet_names(), *KEYBOARD]
    rng.shuffle(chorales)
    rng.shuffle(others)
    for chorale in chorales:
        yield chorale
        if others:
            yield others.pop()


def render(score: Score, sound: str, seed: int = 0, cache: Path | None = None) -> Recording:
    """Play a score, synthesise both, and write down where it is when. Features are cached."""
    played = performance.play(score, seed=seed)
    written = performance.at_constant_tempo(score, played.score_tempo)
    events = np.unique(np.concatenate([score.notes.onset, score.notes.offset]))
    truth = np.stack([written.time_map.seconds(events), played.performance.time_map.seconds(events)], axis=1)
    return Recording(
        score.name,
        score.name,
        _features(written, "clean", seed, cache),
        _features(played.performance, sound, seed, cache),
        truth,
        written.notes,
    )


def _features(played: music.Performance, sound: str, seed: int, cache: Path | None) -> Arrays:
    room = SOUNDS[sound]
    made = {
        "performance": music.digest(played),
        "room": None if room is None else dataclasses.asdict(room),
        "seed": seed,
    }
    return cached_features(played.name, made, lambda: performance.sound(played, room, seed), cache)


def cached_features(
    name: str, made: Mapping[str, Any], sound: Callable[[], performance.Audio], cache: Path | None = None
) -> Arrays:
    """All kinds of frames of a sound, kept in half precision; `made` tells all that the sound depends on."""

    def compute() -> music.Arrays:
        audio = sound()
        return {kind: extract(audio).astype(np.float16) for kind, extract in KINDS.items()}

    key = {**made, "code": _source(), "versions": music.versions("librosa", "tinysoundfont", "pretty_midi")}
    found = music.cached("warps", name.replace("/", "-"), key, compute, cache)
    return {kind: found[kind].astype(np.float32) for kind in KINDS}


def _source() -> str:
    """Hash of the code that sound and features depend on."""
    folder = Path(__file__).parent
    texts = [(folder / name).read_bytes() for name in ("performance.py", "features.py")]
    return hashlib.sha256(b"".join(texts)).hexdigest()[:16]


# --- Slices -----------------------------------------------------------------------------------------------------------


def slices(recordings: Sequence[Recording], kind: str, length: int) -> list[Slice]:
    """All slices, of one kind of features."""
    return [one for recording in recordings for one in cut(recording, kind, length)]


def cut(recording: Recording, kind: str, length: int) -> Iterator[Slice]:
    """Slices of `length` frames of the performance, one after the other, from the first note on."""
    written, heard = recording.truth.T
    score, played = recording.score[kind], recording.played[kind]
    end = min(int(np.floor(heard[-1] * FRAME_RATE)) + 1, len(played))
    for first in range(int(np.ceil(heard[0] * FRAME_RATE)), end - length + 1, length):
        ends = np.array([first, first + length - 1]) / FRAME_RATE
        low, high = np.round(np.interp(ends, heard, written) * FRAME_RATE).astype(np.int64)
        high = min(int(high), len(score) - 1)
        if high - low < length // 4:  # hardly any score, as in a long held note
            continue
        span = np.array([low, high]) / FRAME_RATE
        inside = written[(written > span[0]) & (written < span[1])]
        at = np.concatenate([span[:1], inside, span[1:]])
        truth = np.stack([at - span[0], np.interp(at, written, heard) - ends[0]], axis=1)
        yield Slice(
            recording.name,
            int(first),
            float(span[0]),
            torch.from_numpy(score[low : high + 1]),
            torch.from_numpy(played[first : first + length]),
            torch.from_numpy(truth),
        )


def collate(items: Sequence[Slice]) -> Batch:
    """One batch; the truth is padded with its last breakpoint, which `time_error` does not look at."""

    def padded(tensors: list[Tensor]) -> tuple[Tensor, Tensor]:
        return pad_sequence(tensors, batch_first=True), torch.tensor([len(one) for one in tensors])

    score, score_lengths = padded([one.score for one in items])
    played, played_lengths = padded([one.played for one in items])
    truth, truth_lengths = padded([one.truth for one in items])
    times, values = truth.mT.contiguous().unbind(1)
    return Batch(score, played, score_lengths, played_lengths, times, values, truth_lengths)


def batches(items: Sequence[Slice], size: int, order: Sequence[int] | None = None) -> Iterator[Batch]:
    """Batches in that order."""
    order = range(len(items)) if order is None else order
    for start in range(0, len(order), size):
        yield collate([items[index] for index in order[start : start + size]])


def frame_times(count: int) -> Tensor:
    """(N,) seconds of frames, from the first one."""
    return torch.from_numpy(times(count))
