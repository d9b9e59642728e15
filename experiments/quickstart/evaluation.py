"""How good the predictions are, and how good the alignment that they give."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

import torch_dalign as dalign
from experiments.data import music
from experiments.data.music import Floats
from experiments.quickstart.data import as_written
from experiments.quickstart.losses import REG_WEIGHT
from experiments.quickstart.network import PitchClassNet

THRESHOLD = 0.5
"""A pitch class counts as found from this probability on."""


@dataclasses.dataclass(frozen=True)
class Scores:
    """Over all frames and pitch classes of a set of pieces: precision, recall, and their harmonic mean F."""

    precision: float
    recall: float
    f_measure: float


@dataclasses.dataclass(frozen=True)
class AlignmentScores:
    """How well soft-DTW finds known chords in the predictions, and DecDTW the way through the score.

    Attributes
    ----------
    hit_rate : float
        Share of the frames whose most likely chord is the one that sounds.
    onset_error : float
        Median distance in seconds between the found and the true start of a chord.
    warp_error : float
        Mean distance in seconds between where DecDTW sees a frame in the score as written and where it is.
    """

    hit_rate: float
    onset_error: float
    warp_error: float


def predict(network: PitchClassNet, piece: music.Piece) -> Floats:
    """Probabilities (N, 12) of one piece, of a network with a blank without it."""
    device = next(network.parameters()).device
    network.eval()
    with torch.inference_mode():
        outputs = network(torch.as_tensor(piece.frames.values, device=device)[None])[0]
        return network.without_blank(outputs).cpu().numpy()


def score(network: PitchClassNet, pieces: list[music.Piece]) -> Scores:
    """Frame-wise precision, recall and F against the known performance.

    Of a single label the likeliest class counts, in the frames that have one: then all three are the accuracy.
    """
    probabilities = np.concatenate([predict(network, piece) for piece in pieces])
    true = np.concatenate([piece.strong for piece in pieces]).astype(bool)
    if not network.single_label:
        return compare(probabilities >= THRESHOLD, true)
    likeliest = probabilities.argmax(1)[:, None] == np.arange(probabilities.shape[1])
    sounds = true.any(1)
    return compare(likeliest[sounds], true[sounds])


def compare(found: np.ndarray, true: np.ndarray) -> Scores:
    """Scores of boolean predictions; a ratio without cases counts as 0."""
    hits = int((found & true).sum())
    precision, recall = hits / max(int(found.sum()), 1), hits / max(int(true.sum()), 1)
    return Scores(precision, recall, 2 * precision * recall / max(precision + recall, 1e-12))


def soft_alignment(network: PitchClassNet, piece: music.Piece, gamma: float) -> Floats:
    """Probability mass (N, M) that soft-DTW with unit weights sends through each pair of frame and chord."""
    layer = dalign.SoftDTW(gamma=gamma, metric="bce")
    probabilities = torch.as_tensor(predict(network, piece))[None]
    chords = torch.as_tensor(piece.chords.pitch_classes, dtype=torch.float32)[None]
    return layer.alignment(probabilities, chords)[0].detach().numpy()


def score_alignment(network: PitchClassNet, pieces: list[music.Piece], gamma: float) -> AlignmentScores:
    """Compare soft alignments with the true times of the chords, and warps with the true ones."""
    hits, errors, warp_errors = [], [], []
    for piece in pieces:
        seconds = float(np.ptp(piece.frames.times))
        warp_errors.append(seconds * np.abs(find_warp(network, piece) - as_written(piece).place).mean())
        chord = soft_alignment(network, piece, gamma).argmax(axis=1)
        hits.append(chord == true_chord(piece))
        errors.append(np.abs(found_onsets(chord, piece) - piece.chords.start))
    hit_rate, onset_error = np.concatenate(hits).mean(), np.median(np.concatenate(errors))
    return AlignmentScores(float(hit_rate), float(onset_error), float(np.mean(warp_errors)))


def find_warp(network: PitchClassNet, piece: music.Piece) -> Floats:
    """Where DecDTW sees each frame (N,) in the score as written, from 0 to 1."""
    layer = dalign.DecDTW(reg_weight=REG_WEIGHT)
    predicted, score = torch.as_tensor(predict(network, piece)), torch.as_tensor(as_written(piece).chords)
    return layer(predicted[None], score[None])[0].numpy()


def true_chord(piece: music.Piece) -> np.ndarray:
    """Index (N,) of the chord that sounds at each frame."""
    return np.searchsorted(piece.chords.start, piece.frames.times, side="right") - 1


def found_onsets(chord: np.ndarray, piece: music.Piece) -> Floats:
    """Time (M,) of the first frame at which the alignment has arrived at each chord, or the end where it never does."""
    arrived = np.maximum.accumulate(chord)
    times = np.append(piece.frames.times, piece.performance.last_offset)
    return times[np.searchsorted(arrived, np.arange(len(piece.chords)))]
