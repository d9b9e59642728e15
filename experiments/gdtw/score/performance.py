"""Scores played as people play them: tempo curves, asynchrony, articulation, instruments, rooms, noise.

`experiments.data.music` plays a score exactly as a tempo curve tells. Here the curve has what performances show
(Todd, "The dynamics of dynamics: a model of musical expression", JASA 1992: arcs over phrases): faster in the middle of
a phrase than at its ends, a ritardando at its end, a slow random walk, and deviations from beat to beat; notes that
belong together start a little apart; and the sound is that of another instrument, out of tune, in a room. The truth is
the tempo curve, known exactly; what single notes do around it is part of the task.

    played   = play(score, seed=0)
    written  = at_constant_tempo(score, played.score_tempo)
    audio    = sound(played, ROOM, seed=0)               # 22,050 samples per second
"""

from __future__ import annotations

import dataclasses
import zlib

import numpy as np
from numpy.typing import NDArray

from experiments.data import music
from experiments.data.music import Floats, Notes, Score, TimeMap

SAMPLE_RATE = 22050
STEP = 0.125
"""Quarter notes between the points of a tempo curve."""
LEAD = 0.5
"""Seconds of silence before the first note."""

PIANOS = (0, 1, 3, 4)
OTHERS = (music.HARPSICHORD, 11, music.CHURCH_ORGAN, 24, music.STRINGS, 68)
"""Harpsichord, vibraphone, organ, guitar, strings, oboe."""

Range = tuple[float, float]
Audio = NDArray[np.float32]


@dataclasses.dataclass(frozen=True)
class Manner:
    """How scores are played; whatever is a range is drawn anew, uniformly, for each piece or phrase.

    Attributes
    ----------
    tempo : Range
        Quarter notes per minute.
    score_tempo : Range
        Tempo of the synthesised score, as a multiple of the performance's.
    phrase : Range
        Quarter notes.
    arc, ritardando : Range
        How much faster the middle of a phrase is than its ends, and how much slower its last fifth ends, in log tempo.
    walk, walk_span : float
        Standard deviation of a random walk that returns to the tempo (Ornstein and Uhlenbeck) in log tempo, and the
        quarter notes over which it forgets.
    rubato : float
        Standard deviation of the log tempo of half quarter notes.
    asynchrony : float
        Standard deviation of a note's onset in seconds.
    articulation : Range
        Share of its written duration that a note is held.
    pedal : float
        How likely a piece for a piano is played with the pedal, which holds notes until the next whole note.
    """

    tempo: Range = (60.0, 105.0)
    score_tempo: Range = (0.85, 1.2)
    phrase: Range = (8.0, 16.0)
    arc: Range = (0.05, 0.25)
    ritardando: Range = (0.1, 0.5)
    walk: float = 0.08
    walk_span: float = 8.0
    rubato: float = 0.06
    asynchrony: float = 0.018
    articulation: Range = (0.8, 1.0)
    pedal: float = 0.5
    velocity: tuple[int, int] = (45, 110)
    presets: tuple[int, ...] = (*PIANOS, *OTHERS)


@dataclasses.dataclass(frozen=True)
class Room:
    """What happens to the sound on its way.

    Attributes
    ----------
    detuning : float
        Cents at most, up or down.
    reverberation : Range
        Seconds until an echo has lost 60 dB.
    wet : Range
        Energy of the reverberation as a share of the sound's.
    cutoff : Range
        Hertz from which on the sound loses 12 dB per octave.
    noise : Range, optional
        Decibels of the sound above pink noise; None: no noise.
    """

    detuning: float = 25.0
    reverberation: Range = (0.3, 1.2)
    wet: Range = (0.1, 0.5)
    cutoff: Range = (2500.0, 8000.0)
    noise: Range | None = None


ROOM = Room()
NOISY = Room(noise=(0.0, 18.0))


@dataclasses.dataclass(frozen=True)
class Played:
    """A performance, and the tempo in quarter notes per minute at which its score is synthesised."""

    performance: music.Performance
    score_tempo: float


# --- Playing ----------------------------------------------------------------------------------------------------------


def play(score: Score, manner: Manner | None = None, seed: int = 0) -> Played:
    """Play a score: all that is drawn comes from `seed` and the name of the piece."""
    manner = manner or Manner()
    rng = np.random.default_rng([seed, 2, zlib.crc32(score.name.encode())])
    tempo = rng.uniform(*manner.tempo)
    time_map = tempo_curve(float(score.notes.offset.max()), tempo, manner, rng)
    preset = int(rng.choice(manner.presets))
    pedal = preset in PIANOS and rng.random() < manner.pedal
    notes = _played_notes(score.notes, time_map, manner, pedal, rng)
    velocity = rng.integers(manner.velocity[0], manner.velocity[1] + 1, size=len(notes))
    performance = music.Performance(score.name, notes, velocity, preset, time_map)
    return Played(performance, tempo * rng.uniform(*manner.score_tempo))


def at_constant_tempo(score: Score, tempo: float) -> music.Performance:
    """The score as written, on a piano, all notes equally loud."""
    length = float(score.notes.offset.max())
    knots = np.array([0.0, length])
    time_map = TimeMap(knots, LEAD + knots * 60.0 / tempo)
    notes = dataclasses.replace(
        score.notes, onset=time_map.seconds(score.notes.onset), offset=time_map.seconds(score.notes.offset)
    )
    return as_written(notes, score.name, time_map)


def as_written(notes: Notes, name: str, time_map: TimeMap) -> music.Performance:
    """Notes in seconds, all equally loud, on a piano."""
    return music.Performance(name, notes, np.full(len(notes), 80), music.PIANO, time_map)


def tempo_curve(length: float, tempo: float, manner: Manner, rng: np.random.Generator) -> TimeMap:
    """Draw the log tempo of `length` quarter notes and integrate it, by the midpoint rule on a grid of `STEP`."""
    score_knots = np.arange(0.0, length + 2 * STEP, STEP)
    middles = (score_knots[:-1] + score_knots[1:]) / 2
    log_tempo = np.log(tempo) + _phrases(middles, manner, rng) + _walk(len(middles), manner, rng)
    log_tempo += rng.normal(0.0, manner.rubato, size=len(middles))[(2 * middles).astype(np.int64)]
    seconds = STEP * 60.0 / np.exp(log_tempo)
    return TimeMap(score_knots, LEAD + np.concatenate([[0.0], np.cumsum(seconds)]))


def _phrases(quarters: Floats, manner: Manner, rng: np.random.Generator) -> Floats:
    """Log tempo of arcs over u in [0, 1), a (1 - (2 u - 1)^2) - 2 a / 3 with mean 0, less ritardandi at their ends."""
    lengths = rng.uniform(*manner.phrase, size=2 + int(quarters[-1] / manner.phrase[0]))
    starts = np.concatenate([[0.0], np.cumsum(lengths)])
    phrase = np.searchsorted(starts, quarters, side="right") - 1
    u = (quarters - starts[phrase]) / lengths[phrase]
    arc, ritardando = (rng.uniform(*bounds, size=len(starts))[phrase] for bounds in (manner.arc, manner.ritardando))
    return arc * (1 - (2 * u - 1) ** 2) - arc * 2 / 3 - ritardando * np.clip(5 * u - 4, 0, None) ** 2


def _walk(count: int, manner: Manner, rng: np.random.Generator) -> Floats:
    """Ornstein-Uhlenbeck process on the grid: x_k = r x_(k-1) + sqrt(1 - r^2) walk e_k, r = exp(-STEP / span)."""
    from scipy.signal import lfilter

    r = np.exp(-STEP / manner.walk_span)
    start = rng.normal(0.0, manner.walk)
    steps = rng.normal(0.0, manner.walk * np.sqrt(1 - r**2), size=count)
    walk, _ = lfilter([1.0], [1.0, -r], steps, zi=[r * start])
    return walk


def _played_notes(notes: Notes, time_map: TimeMap, manner: Manner, pedal: bool, rng: np.random.Generator) -> Notes:
    """Notes in seconds, each a little early or late, not sorted anew: they stay in the order of the score."""
    late = np.clip(rng.normal(0.0, manner.asynchrony, size=len(notes)), -3 * manner.asynchrony, 3 * manner.asynchrony)
    onset = time_map.seconds(notes.onset) + late
    held = (time_map.seconds(notes.offset) - time_map.seconds(notes.onset)) * rng.uniform(*manner.articulation)
    offset = onset + np.maximum(held, 0.05)
    if pedal:
        offset = np.maximum(offset, time_map.seconds(4 * np.floor(notes.onset / 4) + 4))
    return dataclasses.replace(notes, onset=onset, offset=np.minimum(offset, _struck_again(notes, onset)))


def _struck_again(notes: Notes, onset: Floats) -> Floats:
    """When the same key is struck next by the same part; a release after that would end the new note."""
    order = np.lexsort((onset, notes.pitch, notes.part))
    same = (np.diff(notes.pitch[order]) == 0) & (np.diff(notes.part[order]) == 0)
    again = np.full(len(notes), np.inf)
    again[order[:-1]] = np.where(same, onset[order[1:]], np.inf)
    return np.maximum(again, onset + 0.01)


# --- Sound ------------------------------------------------------------------------------------------------------------


def sound(played: music.Performance, room: Room | None, seed: int = 0) -> Audio:
    """The performance as it is heard in a room; without one, the synthesiser's sound."""
    if room is None:
        return music.synthesize(played, SAMPLE_RATE)
    rng = np.random.default_rng([seed, 3, zlib.crc32(played.name.encode())])
    audio = detuned(played, rng.uniform(-room.detuning, room.detuning))
    audio = reverberated(audio, rng.uniform(*room.reverberation), rng.uniform(*room.wet), rng)
    audio = muffled(audio, rng.uniform(*room.cutoff))
    return audio if room.noise is None else with_noise(audio, rng.uniform(*room.noise), rng)


def detuned(played: music.Performance, cents: float) -> Audio:
    """All pitches changed by some cents, times as they were.

    The synthesiser is asked for samples at the rate r = `SAMPLE_RATE` / 2^(cents / 1200) of a performance slowed down
    by `SAMPLE_RATE` / r; read at `SAMPLE_RATE`, times are right again and pitches are 2^(cents / 1200) times as high.
    """
    rate = round(SAMPLE_RATE / 2 ** (cents / 1200))
    slower = SAMPLE_RATE / rate
    notes = dataclasses.replace(played.notes, onset=played.notes.onset * slower, offset=played.notes.offset * slower)
    return music.synthesize(dataclasses.replace(played, notes=notes), rate)


def reverberated(audio: Audio, seconds: float, wet: float, rng: np.random.Generator) -> Audio:
    """Echoes like noise that decays exponentially, 60 dB in `seconds`, added with the share `wet` of the energy."""
    from scipy.signal import fftconvolve

    times = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    response = rng.normal(size=len(times)) * 10.0 ** (-3.0 * times / seconds)
    response *= np.sqrt(wet / np.square(response).sum())
    return (audio + fftconvolve(audio, response)[: len(audio)]).astype(np.float32)


def muffled(audio: Audio, cutoff: float) -> Audio:
    """Low pass of second order (Butterworth)."""
    from scipy.signal import butter, sosfilt

    return sosfilt(butter(2, cutoff, fs=SAMPLE_RATE, output="sos"), audio).astype(np.float32)


def with_noise(audio: Audio, decibels: float, rng: np.random.Generator) -> Audio:
    """Pink noise (power 1 / f), the sound's energy `decibels` above it."""
    spectrum = np.fft.rfft(rng.normal(size=len(audio)))
    noise = np.fft.irfft(spectrum / np.sqrt(np.maximum(np.arange(len(spectrum)), 1)), n=len(audio))
    noise *= np.sqrt(np.square(audio).mean() / np.square(noise).mean() / 10 ** (decibels / 10))
    return (audio + noise).astype(np.float32)
