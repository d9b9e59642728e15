"""How good predictions are: frame by frame, label by label, and for finding a theme."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import torch_dalign as dalign
from experiments.data.themes import REST

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.integer[Any]]


# --- Single label -----------------------------------------------------------------------------------------------------


def frame_accuracy(scores: Floats, strong: Ints) -> float:
    """Share of the sounding frames whose most likely of the twelve pitch classes is the right one.

    Parameters
    ----------
    scores : (N, 12 or 13) floats
        A blank, the last one, does not take part.
    strong : (N,) ints
        Frames of `REST` are left out.
    """
    heard = strong != REST
    return float((scores[heard, :REST].argmax(axis=1) == strong[heard]).mean())


def published_frame_accuracy(scores: Floats, strong: Ints) -> float:
    """The same as the paper's authors count it: over all frames, and a rest counts as the pitch class C."""
    return float((scores[:, :REST].argmax(axis=1) == np.where(strong == REST, 0, strong)).mean())


def label_error_rate(found: Sequence[int], true: Sequence[int]) -> float:
    """Insertions, deletions and substitutions that turn one sequence into the other, per label of the true one."""
    row = np.arange(len(found) + 1)
    places = row.copy()
    for label in true:
        change = np.minimum(row[1:] + 1, row[:-1] + (np.asarray(found, dtype=np.int64) != label))
        # Insertions run along the row: row[j] = min_k (change[k] + j - k), a running minimum.
        row = np.minimum.accumulate(np.concatenate([[row[0] + 1], change]) - places) + places
    return float(row[-1]) / len(true)


class Ranks(NamedTuple):
    """Retrieval: shares of the queries whose recording is among the first, and the mean reciprocal rank."""

    top1: float
    top10: float
    top50: float
    mrr: float


def retrieval(distances: Floats) -> Ranks:
    """Ranks of the right recordings.

    Parameters
    ----------
    distances : (Q, R) floats
        Of queries to recordings; recording q is the right one of query q. Of equally near ones the right one counts
        as the last, so that a network that says the same of all recordings finds none.
    """
    right = np.diagonal(distances)[:, None]
    rank = (distances <= right).sum(axis=1)
    top1, top10, top50 = (float((rank <= k).mean()) for k in (1, 10, 50))
    return Ranks(top1, top10, top50, float((1 / rank).mean()))


MATCH_STEPS = ((2, 1), (1, 2), (1, 1))
MATCH_WEIGHTS = (2.0, 1.0, 1.0)
"""Steps (query, recording) and weights of the paper: each frame of the query counts once, whatever the path."""


def match(queries: Sequence[Ints], chromagrams: Sequence[Floats]) -> Floats:
    """(Q, R) distances of themes to recordings by subsequence DTW with the cosine cost, per frame of the query.

    Parameters
    ----------
    queries : Q arrays (N_q,)
        Pitch classes, or `REST`, whose row of zeros is equally far from everything.
    chromagrams : R arrays (N_r, 12)
        Predicted probabilities.
    """
    x, x_lengths = _pad([one_hot(query) for query in queries])
    columns = []
    for chromagram in chromagrams:
        y = torch.as_tensor(chromagram, dtype=torch.float32).expand(len(queries), -1, -1)
        value = dalign.dtw(
            x,
            y,
            metric="cosine",
            steps=MATCH_STEPS,
            step_weights=MATCH_WEIGHTS,
            subsequence=True,
            x_lengths=x_lengths,
        )
        columns.append((value / x_lengths).numpy())
    return np.stack(columns, axis=1)


def one_hot(labels: Ints) -> Floats:
    """(N, 12) rows of one-hot pitch classes; a rest is a row of zeros."""
    return (np.asarray(labels)[:, None] == np.arange(REST)).astype(np.float32)


def _pad(arrays: Sequence[Floats]) -> tuple[Tensor, Tensor]:
    tensors = [torch.as_tensor(array, dtype=torch.float32) for array in arrays]
    return torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True), torch.tensor([len(one) for one in tensors])


# --- Multi-label ------------------------------------------------------------------------------------------------------

THRESHOLD = 0.5
"""A pitch class counts as found from this probability on."""


class Scores(NamedTuple):
    """Over the frames and pitch classes of a piece: precision, recall, and their harmonic mean F."""

    precision: float
    recall: float
    f_measure: float


def scores(probabilities: Floats, true: NDArray[Any]) -> Scores:
    """Scores (N, 12) of one piece; a ratio without cases counts as 0."""
    found, wanted = probabilities >= THRESHOLD, true.astype(bool)
    hits = int((found & wanted).sum())
    precision, recall = hits / max(int(found.sum()), 1), hits / max(int(wanted.sum()), 1)
    return Scores(precision, recall, 2 * precision * recall / max(precision + recall, 1e-12))
