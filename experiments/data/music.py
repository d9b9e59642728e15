"""Rendered music with exact ground truth.

A *score* (music21's corpus ships with its package, so nothing is downloaded) is *performed*: a random smooth tempo
curve turns score time into seconds, every note gets a velocity. A soundfont synthesiser plays the performance sample by
sample, and a constant-Q transform of the sound gives the *features*. Because the performance is made here, everything
in the sound is known exactly: when each note starts and ends, which chord sounds, and where in the score the music is.

    score   = load_score("bach/bwv269")
    played  = perform(score, Style(tempo=(60, 100)), seed=0)      # or Style(tempo=(80, 80)): the score as written
    audio   = synthesize(played)                                  # 22,050 samples per second
    frames  = features(played, Spectrum())                        # cached on disk
    target  = pitch_classes(played.notes, frames.times)           # what sounds at each frame
    chords  = chord_sequence(score.notes)                         # the same without durations: a weak target
    seconds = played.time_map.seconds(chords.start)               # and when each chord really starts

Parsed scores and features are cached under `$DALIGN_CACHE`, or `torch-dalign` in the XDG cache folder. The key of an
entry is a hash of everything it depends on: for features, the performed notes themselves, the settings of sound and
spectrum, the versions of the packages and `VERSION`. The ground truth is never cached; it is computed anew, in
milliseconds.

Needs the extra ``experiments`` (music21, librosa, pretty_midi for its soundfont) and tinysoundfont, all imported only
where they are used.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.integer[Any]]
Arrays = dict[str, NDArray[Any]]

VERSION = 1
"""Raise it when the same settings give another sound or other features: every cached entry then counts as missing."""

PITCH_CLASS_NAMES = ("C", "C♯", "D", "E♭", "E", "F", "F♯", "G", "A♭", "A", "B♭", "B")

# General MIDI program numbers of presets that hold a note long enough to be heard until its end.
PIANO, HARPSICHORD, CHURCH_ORGAN, STRINGS, CHOIR = 0, 6, 19, 48, 52


# --- What is known: notes, chords, and the way from score time to seconds ---------------------------------------------


@dataclasses.dataclass(frozen=True)
class Notes:
    """K notes, sorted by onset, then pitch.

    Attributes
    ----------
    onset, offset : (K,) float64
        Quarter notes from the start of the score, or seconds from the start of the sound.
    pitch : (K,) int64
        MIDI numbers; 60 is middle C.
    part : (K,) int64
        Index of the part (voice) that plays the note, from the highest down.
    """

    onset: Floats
    offset: Floats
    pitch: Ints
    part: Ints

    def __len__(self) -> int:
        return len(self.pitch)


@dataclasses.dataclass(frozen=True)
class Chords:
    """M chords in a row: what sounds together between two changes of the pitch-class set.

    Attributes
    ----------
    pitch_classes : (M, 12) uint8
        Multi-hot sets; neighbours differ. An all-zero row is a rest.
    start, end : (M,) float64
        In the unit of the notes they come from; `end[i] == start[i + 1]`.
    """

    pitch_classes: NDArray[np.uint8]
    start: Floats
    end: Floats

    def __len__(self) -> int:
        return len(self.start)


@dataclasses.dataclass(frozen=True)
class TimeMap:
    """Strictly increasing, piecewise linear map between score time (quarter notes) and sound time (seconds).

    Attributes
    ----------
    score_knots, sound_knots : (K,) float64
        The map goes through these points exactly, and on beyond the last ones at the outermost tempo.
    """

    score_knots: Floats
    sound_knots: Floats

    def seconds(self, quarters: Floats | float) -> Floats:
        """Sound time of a score time."""
        return _interpolate(quarters, self.score_knots, self.sound_knots)

    def quarters(self, seconds: Floats | float) -> Floats:
        """Score time of a sound time: the inverse of `seconds`."""
        return _interpolate(seconds, self.sound_knots, self.score_knots)

    def tempo(self, quarters: Floats | float) -> Floats:
        """Tempo in quarter notes per minute at a score time."""
        slope = np.diff(self.sound_knots) / np.diff(self.score_knots)
        segment = np.searchsorted(self.score_knots, quarters, side="right") - 1
        return 60.0 / slope[np.clip(segment, 0, len(slope) - 1)]


def _interpolate(at: Floats | float, x: Floats, y: Floats) -> Floats:
    """Piecewise linear interpolation that goes straight on beyond the ends (np.interp stays constant there)."""
    segment = np.clip(np.searchsorted(x, at, side="right") - 1, 0, len(x) - 2)
    return y[segment] + (np.asarray(at) - x[segment]) * (y[segment + 1] - y[segment]) / (x[segment + 1] - x[segment])


def pitch_classes(notes: Notes, times: Floats) -> NDArray[np.uint8]:
    """Strong target: the multi-hot set of pitch classes that sound at each time.

    Parameters
    ----------
    notes : Notes
    times : (N,) floats
        In the unit of the notes. A note sounds from its onset (included) to its offset (excluded).

    Returns
    -------
    (N, 12) uint8
    """
    roll = np.zeros((len(times), 12), dtype=np.uint8)
    for onset, offset, pitch in zip(notes.onset, notes.offset, notes.pitch, strict=True):
        roll[(times >= onset) & (times < offset), pitch % 12] = 1
    return roll


def chord_sequence(notes: Notes) -> Chords:
    """Weak target: the sets of pitch classes in the order they sound, equal neighbours merged.

    The set can only change at an onset or an offset, so it is read once between any two of these.
    """
    events = np.unique(np.concatenate([notes.onset, notes.offset]))
    sets = pitch_classes(notes, (events[:-1] + events[1:]) / 2)
    changes = np.concatenate([[True], (sets[1:] != sets[:-1]).any(axis=1)])
    start = events[:-1][changes]
    return Chords(sets[changes], start, np.append(start[1:], events[-1]))


# --- Scores -----------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Score:
    """A piece as written: its name in the corpus, the number of parts, and its notes in quarter notes."""

    name: str
    n_parts: int
    notes: Notes


def chorale_names() -> list[str]:
    """Names of the pieces by Bach in music21's corpus, about 410, nearly all of them four-part chorales."""
    from music21 import corpus

    names = {f"bach/{Path(path).stem}" for path in corpus.getCorePaths() if Path(path).parent.name == "bach"}
    return sorted(name for name in names if name.startswith("bach/bwv"))


def load_score(name: str, cache: Path | None = None) -> Score:
    """Read a piece of music21's corpus: sounding pitch, tied notes joined, repeats not played, grace notes left out."""

    def compute() -> Arrays:
        onset, offset, pitch, part, n_parts = _parse(name)
        order = np.lexsort((pitch, onset))
        return {
            "onset": np.round(onset, 6)[order],
            "offset": np.round(offset, 6)[order],
            "pitch": pitch[order],
            "part": part[order],
            "n_parts": np.array(n_parts),
        }

    key = {"name": name, "versions": versions("music21")}
    found = cached("scores", name.replace("/", "-"), key, compute, cache)
    notes = Notes(found["onset"], found["offset"], found["pitch"], found["part"])
    return Score(name, int(found["n_parts"]), notes)


def _parse(name: str) -> tuple[Floats, Floats, Ints, Ints, int]:
    from music21 import corpus

    return note_columns(corpus.parse(name), name)


def note_columns(stream: Any, name: str) -> tuple[Floats, Floats, Ints, Ints, int]:
    """Onset and offset in quarter notes, pitch and part of all notes of a score that music21 has read; how many parts.

    Raises
    ------
    ValueError
        If there are no notes.
    """
    parts = list(stream.toSoundingPitch().stripTies().parts)
    rows = [
        (float(note.offset), float(note.offset + note.quarterLength), pitch.midi, index)
        for index, part in enumerate(parts)
        for note in part.flatten().notes
        if note.quarterLength > 0
        for pitch in note.pitches
    ]
    if not rows:
        raise ValueError(f"score {name!r}: no notes found")
    onset, offset, pitch, part = (np.array(column) for column in zip(*rows, strict=True))
    return onset, offset, pitch, part, len(parts)


# --- Performances -----------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Style:
    """How a score is performed. Whatever is a range is drawn anew for every piece.

    Attributes
    ----------
    tempo : (float, float)
        Bounds of the tempo curve in quarter notes per minute; equal bounds give a constant tempo.
    tempo_span : float
        Quarter notes between two random points of the tempo curve: the smaller, the more restless.
    velocity : (int, int)
        Bounds of the MIDI velocities, 1 to 127.
    presets : tuple of int
        General MIDI program numbers (0 to 127) of which each piece gets one.
    """

    tempo: tuple[float, float] = (60.0, 100.0)
    tempo_span: float = 6.0
    velocity: tuple[int, int] = (60, 100)
    presets: tuple[int, ...] = (PIANO,)

    def __post_init__(self) -> None:
        if not 0 < self.tempo[0] <= self.tempo[1]:
            raise ValueError(f"tempo: two positive numbers in ascending order expected, got {self.tempo}")
        if not self.tempo_span > 0:
            raise ValueError(f"tempo_span: a positive number of quarter notes expected, got {self.tempo_span}")
        if not 1 <= self.velocity[0] <= self.velocity[1] <= 127:
            raise ValueError(f"velocity: two numbers from 1 to 127 in ascending order expected, got {self.velocity}")
        if not self.presets or not all(0 <= preset <= 127 for preset in self.presets):
            raise ValueError(f"presets: at least one number from 0 to 127 expected, got {self.presets}")


@dataclasses.dataclass(frozen=True)
class Performance:
    """A score as played: `notes` in seconds, a `velocity` for each, the `preset` and the `time_map` that was used."""

    name: str
    notes: Notes
    velocity: Ints
    preset: int
    time_map: TimeMap

    @property
    def first_onset(self) -> float:
        """Seconds until the music starts."""
        return float(self.notes.onset.min())

    @property
    def last_offset(self) -> float:
        """Seconds until the last note is released."""
        return float(self.notes.offset.max())


def perform(score: Score, style: Style | None = None, seed: int = 0) -> Performance:
    """Play a score: tempo curve, velocities and preset are drawn from `seed` and the name of the piece.

    So a piece sounds the same whatever other pieces are drawn beside it.
    """
    style = style or Style()
    rng = np.random.default_rng([seed, zlib.crc32(score.name.encode())])
    time_map = random_time_map(float(score.notes.offset.max()), style, rng)
    notes = dataclasses.replace(
        score.notes, onset=time_map.seconds(score.notes.onset), offset=time_map.seconds(score.notes.offset)
    )
    velocity = rng.integers(style.velocity[0], style.velocity[1] + 1, size=len(notes))
    preset = int(rng.choice(style.presets))
    return Performance(score.name, notes, velocity, preset, time_map)


def random_time_map(length: float, style: Style, rng: np.random.Generator) -> TimeMap:
    """Draw a tempo curve for `length` quarter notes and integrate it.

    log tempo = cubic interpolation (monotone between points, so it stays in bounds) of uniform random points that are
    `style.tempo_span` quarter notes apart; seconds = integral of 60 / tempo, by the midpoint rule on a grid of 1/8.
    """
    from scipy.interpolate import PchipInterpolator

    points = np.arange(0.0, length + 2 * style.tempo_span, style.tempo_span)
    slowest, fastest = np.log(style.tempo)
    log_tempo = PchipInterpolator(points, rng.uniform(slowest, fastest, size=len(points)))
    score_knots = np.arange(0.0, length + 0.25, 0.125)
    tempo = np.exp(log_tempo((score_knots[:-1] + score_knots[1:]) / 2))
    sound_knots = np.concatenate([[0.0], np.cumsum(np.diff(score_knots) * 60.0 / tempo)])
    return TimeMap(score_knots, sound_knots)


# --- Sound ------------------------------------------------------------------------------------------------------------


def soundfont_path() -> Path:
    """The TimGM6mb soundfont that ships in pretty_midi's wheel."""
    spec = importlib.util.find_spec("pretty_midi")
    folder = Path(spec.origin).parent if spec and spec.origin else None
    if folder is None or not (folder / "TimGM6mb.sf2").is_file():
        raise FileNotFoundError("no soundfont: TimGM6mb.sf2 comes with `pip install pretty_midi`")
    return folder / "TimGM6mb.sf2"


def synthesize(performance: Performance, sample_rate: int = 22050, tail: float = 1.0) -> NDArray[np.float32]:
    """Play a performance with the soundfont.

    Every part has a MIDI channel of its own (two voices may hold the same key) and every note starts and ends at the
    sample nearest to its time.

    Parameters
    ----------
    performance : Performance
    sample_rate : int
        Samples per second.
    tail : float
        Seconds after the last note is released.

    Returns
    -------
    (T,) float32
        Mono, the loudest sample scaled to 0.9.
    """
    synth = _synth(performance, sample_rate)
    blocks, now = [], 0
    for sample, starts, channel, pitch, velocity in _events(performance, sample_rate):
        if sample > now:
            blocks.append(_generate(synth, sample - now))
            now = sample
        if starts:
            synth.noteon(channel, pitch, velocity)
        else:
            synth.noteoff(channel, pitch)
    blocks.append(_generate(synth, round(tail * sample_rate)))
    audio = np.concatenate(blocks)
    return audio * np.float32(0.9 / max(float(np.abs(audio).max()), 1e-6))


def _synth(performance: Performance, sample_rate: int) -> Any:
    try:
        import tinysoundfont
    except ImportError as error:
        raise ImportError("tinysoundfont is missing: `pip install --no-deps tinysoundfont`") from error
    synth = tinysoundfont.Synth(samplerate=sample_rate)
    font = synth.sfload(str(soundfont_path()))
    for channel in {_channel(part) for part in performance.notes.part}:
        synth.program_select(channel, font, 0, performance.preset)
    return synth


def _channel(part: int) -> int:
    """MIDI channel of a part; the tenth channel is for drums."""
    return (0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 14, 15)[int(part) % 15]


def _events(performance: Performance, sample_rate: int) -> list[tuple[int, bool, int, int, int]]:
    """(sample, starts, channel, pitch, velocity), releases before starts where both fall on one sample."""
    notes = performance.notes
    events = []
    for index, (pitch, part) in enumerate(zip(notes.pitch.tolist(), notes.part.tolist(), strict=True)):
        velocity = int(performance.velocity[index])
        events.append((round(float(notes.onset[index]) * sample_rate), True, _channel(part), pitch, velocity))
        events.append((round(float(notes.offset[index]) * sample_rate), False, _channel(part), pitch, 0))
    return sorted(events)


def _generate(synth: Any, samples: int) -> NDArray[np.float32]:
    stereo = np.frombuffer(synth.generate_simple(samples), dtype=np.float32).reshape(-1, 2)
    return stereo.mean(axis=1)


# --- Features ---------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Spectrum:
    """Settings of the constant-Q transform: log(1 + compression |CQT|), from `lowest_pitch` (MIDI number) upwards."""

    sample_rate: int = 22050
    hop: int = 896
    lowest_pitch: int = 24
    n_bins: int = 216
    bins_per_octave: int = 36
    compression: float = 100.0

    @property
    def frame_rate(self) -> float:
        """Frames per second."""
        return self.sample_rate / self.hop


@dataclasses.dataclass(frozen=True)
class Frames:
    """Features of a sound: `values` (N, F) float32 and the `times` (N,) of the frames' centres in seconds."""

    values: NDArray[np.float32]
    times: Floats

    def between(self, start: float, end: float) -> Frames:
        """The frames whose centres lie in [start, end)."""
        inside = (self.times >= start) & (self.times < end)
        return Frames(self.values[inside], self.times[inside])


def constant_q(audio: NDArray[np.float32], spectrum: Spectrum) -> NDArray[np.float32]:
    """Compressed magnitudes (N, F) of the constant-Q transform; frame i is centred on sample i * hop."""
    import librosa

    magnitude = np.abs(
        librosa.cqt(
            audio,
            sr=spectrum.sample_rate,
            hop_length=spectrum.hop,
            fmin=librosa.midi_to_hz(spectrum.lowest_pitch),
            n_bins=spectrum.n_bins,
            bins_per_octave=spectrum.bins_per_octave,
            tuning=0.0,
        )
    )
    return np.log1p(spectrum.compression * magnitude.T).astype(np.float32)


def features(performance: Performance, spectrum: Spectrum | None = None, cache: Path | None = None) -> Frames:
    """Constant-Q features of a performance, rendered once and then read from the cache (kept in half precision)."""
    settings = spectrum or Spectrum()

    def compute() -> Arrays:
        audio = synthesize(performance, settings.sample_rate)
        return {"values": constant_q(audio, settings).astype(np.float16)}

    key = {
        "performance": digest(performance),
        "spectrum": dataclasses.asdict(settings),
        "versions": versions("librosa", "tinysoundfont", "pretty_midi"),
    }
    values = cached("features", performance.name.replace("/", "-"), key, compute, cache)["values"].astype(np.float32)
    return Frames(values, np.arange(len(values)) / settings.frame_rate)


def digest(performance: Performance) -> str:
    """Hash of all that can be heard in a performance."""
    notes = performance.notes
    digest = hashlib.sha256(str(performance.preset).encode())
    for array in (notes.onset, notes.offset, notes.pitch, notes.part, performance.velocity):
        digest.update(np.ascontiguousarray(array, dtype=np.float64).tobytes())
    return digest.hexdigest()


# --- Pieces: all of the above for many names --------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Piece:
    """One performed piece from its first onset to its last release: there is no silence before or after the music.

    Attributes
    ----------
    name : str
    performance : Performance
        Note onsets and offsets in seconds, and the map between score and sound.
    frames : Frames
        N feature vectors and their times.
    strong : (N, 12) uint8
        Pitch classes that sound at each frame.
    chords : Chords
        The M sets without their durations are the weak target; `start` and `end` are in seconds here.
    """

    name: str
    performance: Performance
    frames: Frames
    strong: NDArray[np.uint8]
    chords: Chords


def make_piece(score: Score, style: Style, spectrum: Spectrum, seed: int = 0, cache: Path | None = None) -> Piece:
    """Perform and render one score, and write down what is known about it."""
    played = perform(score, style, seed)
    frames = features(played, spectrum, cache).between(played.first_onset, played.last_offset)
    chords = chord_sequence(score.notes)
    in_seconds = Chords(
        chords.pitch_classes, played.time_map.seconds(chords.start), played.time_map.seconds(chords.end)
    )
    return Piece(score.name, played, frames, pitch_classes(played.notes, frames.times), in_seconds)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What the pieces of a data set have in common."""

    style: Style = Style()
    spectrum: Spectrum = Spectrum()
    seed: int = 0
    max_seconds: float = 60.0
    n_parts: int | None = 4
    cache: Path | None = None

    def piece(self, name: str) -> Piece | None:
        """The piece of that name, or None where it is too long or has another number of parts."""
        score = load_score(name, self.cache)
        if self.n_parts is not None and score.n_parts != self.n_parts:
            return None
        if perform(score, self.style, self.seed).last_offset > self.max_seconds:
            return None
        return make_piece(score, self.style, self.spectrum, self.seed, self.cache)


def make_pieces(names: Iterable[str], recipe: Recipe, count: int) -> Iterator[Piece]:
    """The first `count` pieces, in the order of `names`, that fit the recipe; rendered as they are asked for.

    Raises
    ------
    ValueError
        If fewer than `count` of the names fit.
    """
    found = 0
    for name in names:
        if found == count:
            return
        piece = recipe.piece(name)
        if piece is not None:
            found += 1
            yield piece
    if found < count:
        raise ValueError(f"names: only {found} pieces fit the recipe, {count} expected")


# --- The cache --------------------------------------------------------------------------------------------------------


def cache_folder() -> Path:
    """`$DALIGN_CACHE`, else `torch-dalign` in `$XDG_CACHE_HOME` or `~/.cache`."""
    if os.environ.get("DALIGN_CACHE"):
        return Path(os.environ["DALIGN_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "torch-dalign"


def cached(
    kind: str, name: str, key: dict[str, Any], compute: Callable[[], Arrays], cache: Path | None = None
) -> Arrays:
    """Arrays from the cache, or computed and kept there.

    Parameters
    ----------
    kind, name : str
        Folder and readable start of the file name.
    key : dict
        Everything (JSON) that the arrays depend on; its hash, with `VERSION`, is the rest of the file name.
    compute : callable
        Gives the arrays when they are not there, or cannot be read.
    cache : Path, optional
        The folder to use instead of `cache_folder()`.
    """
    text = json.dumps([VERSION, kind, key], sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    path = (cache or cache_folder()) / "music" / kind / f"{name}-{digest}.npz"
    try:
        with np.load(path) as found:
            return dict(found)
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error):
        pass
    arrays = compute()
    _write(path, arrays)
    return arrays


def _write(path: Path, arrays: Arrays) -> None:
    """Write beside, then rename: a reader never sees half a file, and two writers do not meet."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".tmp", delete=False) as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
    os.replace(file.name, path)


@functools.cache
def versions(*packages: str) -> dict[str, str]:
    """Installed versions, "" for a package that is missing."""
    return {package: _version(package) for package in packages}


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""
