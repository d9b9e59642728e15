"""Three kinds of frames of a sound: constant-Q, chroma and mel spectrum, in decibels, each frame of norm 1.

Settings of the constant-Q transform (48 semitones from C2) and of chroma are those of Thickstun, Brennan and Verma,
"Rethinking Evaluation Methodology for Audio-to-Score Alignment", 2020, as the DecDTW paper has them; the hop of 1024
samples is the paper's, 21.5 frames per second. Frame i is centred on sample i * `HOP`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from experiments.gdtw.score.performance import SAMPLE_RATE, Audio

HOP = 1024
FRAME_RATE = SAMPLE_RATE / HOP
WINDOW = 4096

Features = NDArray[np.float32]


def cqt(audio: Audio) -> Features:
    """(N, 48): the four octaves from C2 (MIDI number 36)."""
    import librosa

    transform = librosa.cqt(audio, sr=SAMPLE_RATE, hop_length=HOP, fmin=librosa.midi_to_hz(36), n_bins=48, tuning=0.0)
    return _frames(librosa.amplitude_to_db(np.abs(transform), ref=np.max))


def chroma(audio: Audio) -> Features:
    """(N, 12): energy of each pitch class."""
    import librosa

    energies = librosa.feature.chroma_stft(y=audio, sr=SAMPLE_RATE, hop_length=HOP, n_fft=WINDOW, tuning=0.0, norm=2)
    return _frames(librosa.power_to_db(energies, ref=np.max))


def melspec(audio: Audio) -> Features:
    """(N, 128): bands of the mel scale."""
    import librosa

    energies = librosa.feature.melspectrogram(y=audio, sr=SAMPLE_RATE, hop_length=HOP, n_fft=WINDOW, n_mels=128)
    return _frames(librosa.power_to_db(energies, ref=np.max))


KINDS: dict[str, Callable[[Audio], Features]] = {"cqt": cqt, "chroma": chroma, "melspec": melspec}
SIZES = {"cqt": 48, "chroma": 12, "melspec": 128}


def _frames(decibels: NDArray[np.floating]) -> Features:
    """(N, D) rows of norm 1 from decibels (D, N) below the loudest, which librosa cuts off at -80."""
    rows = np.asarray(decibels.T, dtype=np.float64)
    return (rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)).astype(np.float32)


def times(count: int) -> NDArray[np.float64]:
    """Seconds of the centres of frames."""
    return np.arange(count) / FRAME_RATE
