"""Harmonic constant-Q transform: one transform per harmonic, so that the overtones of a note lie above each other.

Channel h starts at h times the lowest frequency, so bin k of every channel belongs to the same fundamental: a filter
that looks at one place through all channels sees the harmonics of one note (Bittner et al., "Deep salience
representations for F0 tracking in polyphonic music", ISMIR 2017).

    settings = HarmonicSpectrum(hop=896)
    frames   = features(played, settings)      # (N, 6, 216), of a performance from experiments.data.music; cached
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.data import music

SEMITONE = 3
"""Bins per semitone; the middle one is the tuned semitone."""


@dataclasses.dataclass(frozen=True)
class HarmonicSpectrum:
    """Settings of the transform: magnitudes of `n_bins` bins for each of the `harmonics`.

    Attributes
    ----------
    hop : int
        Samples between frames; at 22,050 Hz 896 gives 24.6 and 512 gives 43.1 frames per second.
    lowest_pitch : int
        MIDI number of the lowest semitone of harmonic 1: C1.
    n_bins : int
        Six octaves of 36 bins.
    harmonics : tuple of float
        Multiples of the lowest frequency, one channel each.
    """

    hop: int = 896
    sample_rate: int = 22050
    lowest_pitch: int = 24
    n_bins: int = 216
    harmonics: tuple[float, ...] = (0.5, 1.0, 2.0, 3.0, 4.0, 5.0)

    @property
    def bins_per_octave(self) -> int:
        """Bins of 12 semitones."""
        return 12 * SEMITONE

    @property
    def frame_rate(self) -> float:
        """Frames per second."""
        return self.sample_rate / self.hop


def harmonic_cqt(audio: NDArray[np.float32], settings: HarmonicSpectrum) -> NDArray[np.float32]:
    """Magnitudes (N, H, F), not compressed; frame i is centred on sample i * hop.

    Harmonics an octave apart share their bins, so one long transform serves 1/2, 1, 2 and 4, and two more 3 and 5.
    """
    channels: dict[float, NDArray[Any]] = {}
    for group in _octave_groups(settings.harmonics):
        octaves = [round(math.log2(harmonic / group[0])) for harmonic in group]
        long = _cqt(audio, settings, group[0], settings.n_bins + octaves[-1] * settings.bins_per_octave)
        for harmonic, octave in zip(group, octaves, strict=True):
            first = octave * settings.bins_per_octave
            channels[harmonic] = long[:, first : first + settings.n_bins]
    return np.stack([channels[harmonic] for harmonic in settings.harmonics], axis=1).astype(np.float32)


def _octave_groups(harmonics: tuple[float, ...]) -> list[list[float]]:
    """Harmonics in ascending order, those that are powers of two apart together."""
    groups: dict[float, list[float]] = {}
    for harmonic in sorted(harmonics):
        mantissa, _ = math.frexp(harmonic)
        groups.setdefault(mantissa, []).append(harmonic)
    return list(groups.values())


def _cqt(audio: NDArray[np.float32], settings: HarmonicSpectrum, harmonic: float, n_bins: int) -> NDArray[Any]:
    import librosa

    lowest = librosa.midi_to_hz(settings.lowest_pitch - 1 / SEMITONE)
    magnitude = librosa.cqt(
        audio,
        sr=settings.sample_rate,
        hop_length=settings.hop,
        fmin=harmonic * lowest,
        n_bins=n_bins,
        bins_per_octave=settings.bins_per_octave,
        tuning=0.0,
    )
    return np.abs(magnitude).T


def features(
    performance: music.Performance, settings: HarmonicSpectrum | None = None, cache: Path | None = None
) -> music.Frames:
    """Transform (N, H, F) of a performance, rendered once and then read from the cache (kept in half precision)."""
    chosen = settings or HarmonicSpectrum()

    def compute() -> music.Arrays:
        audio = music.synthesize(performance, chosen.sample_rate)
        return {"values": harmonic_cqt(audio, chosen).astype(np.float16)}

    key = {
        "performance": music.digest(performance),
        "spectrum": dataclasses.asdict(chosen),
        "versions": music.versions("librosa", "tinysoundfont", "pretty_midi"),
    }
    found = music.cached("harmonics", performance.name.replace("/", "-"), key, compute, cache)
    values = found["values"].astype(np.float32)
    return music.Frames(values, np.arange(len(values)) / chosen.frame_rate)
