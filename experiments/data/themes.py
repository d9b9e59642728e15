"""Musical themes: a melody that sounds above an accompaniment, and the sequence of its pitch classes.

Two sources give the same `Theme`:

- `from_mtd(folder)`: the layout of the Musical Theme Dataset (Zalkow et al., TISMIR 2020) as prepared for the dDTW
  paper, a folder per kind of array and a file per theme;
- `Recipe(...).themes(...)`: folk songs of the Essen collection, which music21's corpus holds by the thousand. A tune
  is harmonised with triads, performed with a tempo curve and rendered (`experiments.data.music`); its theme is a run
  of its notes, so a theme is an excerpt of a longer recording, as in the dataset.

    recipe = Recipe(cache=None)
    themes = recipe.themes(count=100, first=0)           # excerpts, for training
    songs  = recipe.recordings(count=50, first=100)      # whole recordings and the theme of each, for retrieval
"""

from __future__ import annotations

import csv
import dataclasses
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.data import hcqt, music
from experiments.data.music import Floats, Ints, Notes, Score

REST = 12
"""The class of silence, after the twelve pitch classes."""

COLLECTIONS = ("boehme10", "erk10", "fink0", "altdeu10", "erk30", "lux", "zuccal0")
"""Files of the Essen collection, about 4000 tunes; the first one suffices for the small scale."""


@dataclasses.dataclass(frozen=True)
class Theme:
    """N frames of sound, and the theme in them.

    Attributes
    ----------
    name : str
    features : (N, 6, 216) float32
        Magnitudes of the harmonic constant-Q transform.
    strong : (N,) int64
        Pitch class that sounds at each frame, `REST` where the theme is silent.
    notes : (L,) int64
        Pitch class of each note, repeated notes included, without rests: the target of CTC.
    """

    name: str
    features: NDArray[np.float32]
    strong: Ints
    notes: Ints

    @property
    def weak(self) -> Ints:
        """(M,) the strong target without durations: equal neighbours merged, rests kept."""
        return collapse(self.strong)

    @property
    def stretched(self) -> Ints:
        """(N,) the weak target stretched uniformly to the length of the theme."""
        return stretch(self.weak, len(self.strong))


@dataclasses.dataclass(frozen=True)
class Recording:
    """A whole piece and the theme that is to be found in it; `query` is that theme as its score tells it."""

    name: str
    features: NDArray[np.float32]
    query: Ints


def collapse(labels: Ints) -> Ints:
    """Equal neighbours merged."""
    return labels[np.concatenate([[True], labels[1:] != labels[:-1]])]


def stretch(labels: Ints, length: int) -> Ints:
    """Every label for an equal share of `length` frames."""
    return labels[np.arange(length) * len(labels) // length]


# --- The layout of the Musical Theme Dataset --------------------------------------------------------------------------

TRAIN_FOLDS, VALIDATION_FOLDS, TEST_FOLDS = (1, 2, 3), (4,), (5,)


def from_mtd(folder: Path, folds: tuple[int, ...] | None = None) -> list[Theme]:
    """Themes that have features, of some folds or of all, in the order of their names.

    Raises
    ------
    FileNotFoundError
        If the folder has no features.
    """
    names = sorted(path.stem for path in (folder / "hcqt").glob("*.npy"))
    if not names:
        raise FileNotFoundError(f"{folder}: no files hcqt/*.npy; the layout of the Musical Theme Dataset is expected")
    if folds is not None:
        wanted = {name for fold in folds for name in _fold(folder, fold)}
        names = [name for name in names if name in wanted]
    return [_mtd_theme(folder, name) for name in names]


def _fold(folder: Path, fold: int) -> list[str]:
    with (folder / "MTD_splits" / f"MTD_split5-{fold}.csv").open(encoding="utf-8", newline="") as file:
        return [Path(row[0]).stem for row in csv.reader(file) if row]


def _mtd_theme(folder: Path, name: str) -> Theme:
    def read(kind: str) -> NDArray[Any]:
        return np.load(folder / kind / f"{name}.npy")

    magnitude = read("hcqt").transpose(1, 2, 0).astype(np.float32)
    return Theme(name, magnitude, classes(read("strong_targets_chroma").T), read("CTC_targets_chroma"))


def classes(one_hot: NDArray[Any]) -> Ints:
    """(N,) classes of one-hot rows (N, 12); an empty row is a rest."""
    return np.where(one_hot.any(axis=1), one_hot.argmax(axis=1), REST)


# --- Tunes ------------------------------------------------------------------------------------------------------------


def load_tunes(collection: str, cache: Path | None = None) -> list[Score]:
    """All tunes of a file of the Essen collection, as one-voice scores that start at 0."""

    def compute() -> music.Arrays:
        tunes = list(_parse(collection))
        rows = np.array([row for tune in tunes for row in tune]).reshape(-1, 3)
        return {"rows": rows, "lengths": np.array([len(tune) for tune in tunes])}

    found = music.cached(
        "tunes", collection, {"collection": collection, "versions": music.versions("music21")}, compute, cache
    )
    tunes = np.split(found["rows"], np.cumsum(found["lengths"])[:-1])
    return [_tune(f"essen/{collection}-{number}", rows) for number, rows in enumerate(tunes) if len(rows)]


def _parse(collection: str) -> Iterator[list[tuple[float, float, int]]]:
    """(onset, offset, pitch) of the notes of each tune, tied ones joined; of two notes at once the higher."""
    from music21 import corpus

    for score in corpus.parse(f"essenFolksong/{collection}").scores:
        rows: dict[float, tuple[float, float, int]] = {}
        for note in score.stripTies().flatten().notes:
            onset, length, pitch = float(note.offset), float(note.quarterLength), max(p.midi for p in note.pitches)
            if length > 0 and (onset not in rows or pitch > rows[onset][2]):
                rows[onset] = (onset, onset + length, pitch)
        yield [rows[onset] for onset in sorted(rows)]


def _tune(name: str, rows: Floats) -> Score:
    onset, offset = rows[:, 0] - rows[0, 0], rows[:, 1] - rows[0, 0]
    offset = np.minimum(offset, np.append(onset[1:], np.inf))
    pitch = rows[:, 2].astype(np.int64)
    return Score(name, 1, Notes(onset, offset, pitch, np.zeros(len(rows), dtype=np.int64)))


# --- Accompaniment ----------------------------------------------------------------------------------------------------

MAJOR_SCALE = (0, 2, 4, 5, 7, 9, 11)
TRIADS = ((0, 4, 7), (2, 5, 9), (4, 7, 11), (5, 9, 0), (7, 11, 2), (9, 0, 4))
"""Major and minor triads of the scale, as pitch classes above its tonic."""

HARMONY_SPAN = 2.0
"""Quarter notes of each chord."""

LOWEST_CHORD_PITCH = 43


def accompany(tune: Score) -> Score:
    """The tune as part 0, and as part 1 a triad every `HARMONY_SPAN` quarters: the one that shares most with the tune.

    Chords stand in the octave and a half above `LOWEST_CHORD_PITCH`, mostly below the tune.
    """
    notes = tune.notes
    tonic = _tonic(notes)
    starts = np.arange(0.0, notes.offset.max(), HARMONY_SPAN)
    rows = [
        (start, min(start + HARMONY_SPAN, notes.offset.max()), LOWEST_CHORD_PITCH + (pitch - LOWEST_CHORD_PITCH) % 12)
        for start in starts
        for pitch in _triad(notes, start, tonic)
    ]
    onset, offset, pitch = (np.array(column) for column in zip(*rows, strict=True))
    joined = Notes(
        np.concatenate([notes.onset, onset]),
        np.concatenate([notes.offset, offset]),
        np.concatenate([notes.pitch, pitch]),
        np.concatenate([notes.part, np.ones(len(rows), dtype=np.int64)]),
    )
    return Score(tune.name, 2, _sorted(joined))


def _tonic(notes: Notes) -> int:
    """The major key whose scale holds most of the tune; between equal ones the tonic that sounds longest."""
    held = np.bincount(notes.pitch % 12, weights=notes.offset - notes.onset, minlength=12)
    return max(range(12), key=lambda tonic: (sum(held[(tonic + step) % 12] for step in MAJOR_SCALE), held[tonic]))


def _triad(notes: Notes, start: float, tonic: int) -> tuple[int, ...]:
    overlap = np.minimum(notes.offset, start + HARMONY_SPAN) - np.maximum(notes.onset, start)
    held = np.bincount((notes.pitch - tonic) % 12, weights=np.maximum(overlap, 0.0), minlength=12)
    best = max(TRIADS, key=lambda triad: held[list(triad)].sum())
    return tuple((tonic + step) % 12 for step in best)


def _sorted(notes: Notes) -> Notes:
    order = np.lexsort((notes.pitch, notes.onset))
    return Notes(notes.onset[order], notes.offset[order], notes.pitch[order], notes.part[order])


def keep(performance: music.Performance, kept: NDArray[np.bool_], shift: float = 0.0) -> music.Performance:
    """Some of the notes, `shift` seconds earlier; the map from score to sound is shifted along."""
    notes, time_map = performance.notes, performance.time_map
    return dataclasses.replace(
        performance,
        notes=Notes(notes.onset[kept] - shift, notes.offset[kept] - shift, notes.pitch[kept], notes.part[kept]),
        velocity=performance.velocity[kept],
        time_map=music.TimeMap(time_map.score_knots, time_map.sound_knots - shift),
    )


# --- Rendered themes --------------------------------------------------------------------------------------------------

SPECTRUM = hcqt.HarmonicSpectrum(hop=896)
STYLE = music.Style(
    tempo=(90.0, 140.0), velocity=(80, 110), presets=(music.PIANO, music.HARPSICHORD, music.STRINGS, music.CHOIR)
)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What rendered themes have in common.

    Attributes
    ----------
    style : Style
        Of the performances. Velocities are those of the tune.
    accompaniment : float or None
        Velocity of the chords as a share of the tune's; None: the tune alone.
    n_notes : (int, int)
        Bounds of the length of a theme, drawn anew for each.
    max_seconds : float
        Longer tunes are left out.
    margin : float
        Seconds of music before and after a theme that are rendered with it, so that it starts and ends in the middle
        of the sound.
    """

    spectrum: hcqt.HarmonicSpectrum = SPECTRUM
    style: music.Style = STYLE
    accompaniment: float | None = 0.6
    n_notes: tuple[int, int] = (10, 24)
    max_seconds: float = 45.0
    margin: float = 1.0
    collections: tuple[str, ...] = COLLECTIONS
    seed: int = 0
    cache: Path | None = None

    def tunes(self) -> Iterator[Score]:
        """All tunes that fit, in random order; a collection is only parsed when those before it are used up."""
        for collection in self.collections:
            tunes = load_tunes(collection, self.cache)
            for index in np.random.default_rng([self.seed, zlib.crc32(collection.encode())]).permutation(len(tunes)):
                if self._fits(tunes[index]):
                    yield tunes[index]

    def themes(self, count: int, first: int = 0) -> list[Theme]:
        """The themes of `count` tunes, rendered without the rest of the tune."""
        return [self.theme(tune) for tune in self._some(count, first)]

    def recordings(self, count: int, first: int = 0) -> tuple[list[Recording], list[Theme]]:
        """The recordings of `count` whole tunes, and the theme of each, cut out of the same frames."""
        both = [self.recording(tune) for tune in self._some(count, first)]
        return [recording for recording, _ in both], [theme for _, theme in both]

    def _some(self, count: int, first: int) -> Iterator[Score]:
        from itertools import islice

        from tqdm import tqdm

        chosen = list(islice(self.tunes(), first, first + count))
        if len(chosen) < count:
            raise ValueError(f"collections: only {first + len(chosen)} tunes fit the recipe, {first + count} expected")
        return tqdm(chosen, desc="music ", unit="tune", leave=False)

    def _fits(self, tune: Score) -> bool:
        return (
            len(tune.notes) >= self.n_notes[1]
            and music.perform(tune, self.style, self.seed).last_offset < self.max_seconds
        )

    def perform(self, tune: Score) -> music.Performance:
        """The tune as played, with its accompaniment."""
        if self.accompaniment is None:
            return music.perform(tune, self.style, self.seed)
        played = music.perform(accompany(tune), self.style, self.seed)
        softer = np.maximum(1, np.round(self.accompaniment * played.velocity)).astype(played.velocity.dtype)
        return dataclasses.replace(played, velocity=np.where(played.notes.part == 0, played.velocity, softer))

    def excerpt(self, played: music.Performance) -> Notes:
        """The notes of the theme, in seconds: a run of the tune's notes."""
        tune = np.flatnonzero(played.notes.part == 0)
        rng = np.random.default_rng([self.seed, 1, zlib.crc32(played.name.encode())])
        length = int(rng.integers(self.n_notes[0], self.n_notes[1] + 1))
        start = int(rng.integers(0, len(tune) - length + 1))
        chosen = tune[start : start + length]
        notes = played.notes
        return Notes(notes.onset[chosen], notes.offset[chosen], notes.pitch[chosen], notes.part[chosen])

    def theme(self, tune: Score) -> Theme:
        """Render the theme of a tune and what sounds up to `margin` seconds before and after it."""
        played = self.perform(tune)
        notes = self.excerpt(played)
        start, end = float(notes.onset[0]), float(notes.offset[-1])
        heard = (played.notes.offset > start - self.margin) & (played.notes.onset < end + self.margin)
        shift = float(played.notes.onset[heard].min())
        frames = hcqt.features(keep(played, heard, shift), self.spectrum, self.cache)
        return _cut(tune.name, music.Frames(frames.values, frames.times + shift), notes)

    def recording(self, tune: Score) -> tuple[Recording, Theme]:
        """Render a whole tune, and cut its theme out."""
        played = self.perform(tune)
        frames = hcqt.features(played, self.spectrum, self.cache).between(played.first_onset, played.last_offset)
        theme = _cut(tune.name, frames, self.excerpt(played))
        return Recording(tune.name, frames.values, theme.stretched), theme


def _cut(name: str, frames: music.Frames, notes: Notes) -> Theme:
    """The frames from the first onset to the last release of the theme's notes."""
    inside = frames.between(float(notes.onset[0]), float(notes.offset[-1]))
    return Theme(name, inside.values, sounding(notes, inside.times), notes.pitch % 12)


def sounding(notes: Notes, times: Floats) -> Ints:
    """(N,) pitch class of the note of a melody that sounds at each time, or `REST`."""
    index = np.searchsorted(notes.onset, times, side="right") - 1
    heard = (index >= 0) & (times < notes.offset[np.maximum(index, 0)])
    return np.where(heard, notes.pitch[np.maximum(index, 0)] % 12, REST)
