"""Recordings of one's own, in the folders that the paper's data set is made in.

Thickstun, Brennan and Verma ("Rethinking Evaluation Methodology for Audio-to-Score Alignment", 2020) pair scores of
KernScores with performances of MAESTRO; their program writes

    PATH/data/score/wtc1p01.midi        scores, or .mid, .krn (KernScores as it is), .mxl, .musicxml
    PATH/data/perf/000_bwv846p.wav      performances as sound
    PATH/data/perf/000_bwv846p.midi     the same as recorded by the piano
    PATH/align/ground/000_bwv846p.txt   rows "score seconds, performance seconds" of the true warp

A performance NNN_bwvBBB[p|f] belongs to the prelude or fugue of that number of the Well-Tempered Clavier, any other
NAME or NAME_ANYTHING to the score NAME. Where there is no file of the true warp it is found from the performance's
notes, see `match`. Sound is read by librosa, so .flac and .ogg do as well.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

import torch_dalign as dalign
from experiments.data import music
from experiments.data.music import Floats, Ints, Notes
from experiments.gdtw.score import performance
from experiments.gdtw.score.data import Parts, Recording, cached_features
from experiments.gdtw.score.performance import SAMPLE_RATE

SHARES = {"test": 0.25, "validation": 0.25, "train": 0.5}
"""Of the pieces, as in the paper."""
SOUND_SUFFIXES, MIDI_SUFFIXES = (".wav", ".flac", ".ogg"), (".midi", ".mid")
SCORE_SUFFIXES = (*MIDI_SUFFIXES, ".krn", ".mxl", ".musicxml", ".xml")
KERN_TEMPO = 80.0
"""Quarter notes per minute of scores that tell none."""


def load(folder: Path, seed: int = 0, cache: Path | None = None) -> Parts:
    """All recordings, pieces shared out at random.

    Raises
    ------
    FileNotFoundError
        If there are no performances, or a score is missing.
    ValueError
        If there are fewer than three pieces.
    """
    found = [path for path in sorted((folder / "data" / "perf").glob("*")) if path.suffix in SOUND_SUFFIXES]
    if not found:
        raise FileNotFoundError(f"{folder}: no performances data/perf/*.wav; see experiments.gdtw.score.archive")
    return split([read(path, folder, cache) for path in found], seed)


def split(recordings: Sequence[Recording], seed: int = 0) -> Parts:
    """Parts without a common piece."""
    pieces = sorted({recording.piece for recording in recordings})
    if len(pieces) < len(SHARES):
        raise ValueError(f"at least {len(SHARES)} pieces are needed, for training, validation and test; got {pieces}")
    np.random.default_rng(seed).shuffle(pieces)
    n_test, n_validation = (max(1, round(SHARES[part] * len(pieces))) for part in ("test", "validation"))
    of = dict.fromkeys(pieces, "train")
    of.update(dict.fromkeys(pieces[:n_test], "test"))
    of.update(dict.fromkeys(pieces[n_test : n_test + n_validation], "validation"))
    return {part: [one for one in recordings if of[one.piece] == part] for part in SHARES}


def score_name(performance_name: str) -> str:
    """The score of a performance: 000_bwv846p is wtc1p01, bach_take2 is bach."""
    found = re.fullmatch(r".*_?bwv(\d{3})([fp])", performance_name)
    if found is None:
        return performance_name.partition("_")[0]
    number, part = int(found[1]), found[2]
    book = 1 if number < 870 else 2
    return f"wtc{book}{part}{number - (845 if book == 1 else 869):02d}"


def read(path: Path, folder: Path, cache: Path | None = None) -> Recording:
    """One performance and its score."""
    piece = score_name(path.stem)
    written = read_score(_score_path(folder, piece))
    end = np.array([0.0, float(written.offset.max())])
    score = performance.as_written(written, piece, music.TimeMap(end, end))
    contents = hashlib.sha256(path.read_bytes()).hexdigest()
    return Recording(
        path.stem,
        piece,
        cached_features(piece, {"score": music.digest(score)}, lambda: performance.sound(score, None), cache),
        cached_features(path.stem, {"sound": contents}, lambda: _sound(path), cache),
        truth(path, folder, written),
        written,
    )


def _sound(path: Path) -> performance.Audio:
    import librosa

    audio, _ = librosa.load(path, sr=SAMPLE_RATE)
    return audio


# --- Scores -----------------------------------------------------------------------------------------------------------


def _score_path(folder: Path, piece: str) -> Path:
    for suffix in SCORE_SUFFIXES:
        path = folder / "data" / "score" / (piece + suffix)
        if path.is_file():
            return path
    raise FileNotFoundError(f"{folder / 'data' / 'score'}: no score {piece} with one of {', '.join(SCORE_SUFFIXES)}")


def read_score(path: Path) -> Notes:
    """Notes in seconds: of a MIDI file in its own tempo, of other scores at `KERN_TEMPO`."""
    if path.suffix in MIDI_SUFFIXES:
        return read_midi(path)
    from music21 import converter

    onset, offset, pitch, part, _ = music.note_columns(converter.parse(path), path.stem)
    return _sorted(onset * 60 / KERN_TEMPO, offset * 60 / KERN_TEMPO, pitch, part)


def read_midi(path: Path) -> Notes:
    """Notes in seconds, a part for each instrument."""
    import pretty_midi

    rows = [
        (note.start, note.end, note.pitch, part)
        for part, instrument in enumerate(pretty_midi.PrettyMIDI(str(path)).instruments)
        for note in instrument.notes
        if not instrument.is_drum
    ]
    if not rows:
        raise ValueError(f"{path}: no notes found")
    onset, offset, pitch, part = (np.array(column) for column in zip(*rows, strict=True))
    return _sorted(onset, offset, pitch, part)


def _sorted(onset: Floats, offset: Floats, pitch: Ints, part: Ints) -> Notes:
    order = np.lexsort((pitch, onset))
    return Notes(onset[order], offset[order], pitch[order], part[order])


# --- The true warp ----------------------------------------------------------------------------------------------------


def truth(path: Path, folder: Path, written: Notes) -> Floats:
    """(K, 2) from the file of the warp, else from the performance's notes."""
    ground = folder / "align" / "ground" / f"{path.stem}.txt"
    if ground.is_file():
        return growing(np.loadtxt(ground, ndmin=2))
    for suffix in MIDI_SUFFIXES:
        if path.with_suffix(suffix).is_file():
            return match(written, read_midi(path.with_suffix(suffix)))
    raise FileNotFoundError(f"{path.stem}: neither {ground} nor the performance's notes, {path.with_suffix('.midi')}")


def growing(points: Floats) -> Floats:
    """The rows in which both times are later than in all rows before."""
    kept = [0]
    for row in range(1, len(points)):
        if (points[row] > points[kept[-1]]).all():
            kept.append(row)
    return points[kept]


def match(written: Notes, played: Notes) -> Floats:
    """(K, 2) times at which the keys held down change in the score, and when they do so in the performance.

    DTW of the sets of keys between two changes. A set costs the number of keys that differ, times how long it is held
    in the performance: so the short sets in which the notes of one chord come one by one hardly count. This is
    Thickstun et al.'s cost; they step through the performance frame by frame, from change to change is the same.
    """
    (sets, starts), (played_sets, played_starts) = key_sets(written), key_sets(played)
    held = np.diff(np.append(played_starts, played.offset.max()))
    apart = dalign.pairwise(torch.from_numpy(sets)[None], torch.from_numpy(played_sets)[None], "manhattan")
    (path,) = dalign.dtw_path(apart * torch.from_numpy(held), metric="precomputed")
    first = np.full(len(sets), len(played_sets))
    np.minimum.at(first, path[:, 0].numpy(), path[:, 1].numpy())
    ends = np.array([[written.offset.max(), played.offset.max()]])
    return growing(np.concatenate([np.stack([starts, played_starts[first]], axis=1), ends]))


def key_sets(notes: Notes) -> tuple[Floats, Floats]:
    """(K, 128) which keys are held between any two changes, and (K,) since when."""
    events = np.unique(np.concatenate([notes.onset, notes.offset]))
    sets = np.zeros((len(events) - 1, 128))
    begin, end = np.searchsorted(events, notes.onset), np.searchsorted(events, notes.offset)
    for first, last, pitch in zip(begin, end, notes.pitch, strict=True):
        sets[first:last, pitch] = 1
    return sets, events[:-1]
