"""CTC decoding in float64, one item (T, C): all paths one by one, textbook prefix beam search, n-grams from counts.

A labelling is a tuple of labels: a path without repetitions, then without blanks.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

Labels = tuple[int, ...]
Scorer = Callable[[Labels, int | None], float]  # the label None is the end


class Found(NamedTuple):
    labels: Labels
    score: float
    log_prob: float


def log_sum(*logs: float) -> float:
    high = max(logs)
    return high if high == -math.inf else high + math.log(sum(math.exp(x - high) for x in logs))


def collapse(path: Sequence[int], blank: int) -> Labels:
    return tuple(label for label, _ in itertools.groupby(path) if label != blank)


def greedy(log_probs: np.ndarray, blank: int) -> tuple[Labels, float, list[tuple[int, int]]]:
    """Labels of the best path, its log-probability, and the frames [first, end) of each label."""
    path = [int(frame.argmax()) for frame in log_probs]
    spans, t = [], 0
    for label, run in itertools.groupby(path):
        length = len(list(run))
        if label != blank:
            spans.append((t, t + length))
        t += length
    score = sum(float(frame[label]) for frame, label in zip(log_probs, path, strict=True))
    if score == -math.inf:
        return (), score, []
    return collapse(path, blank), score, spans


def all_labellings(log_probs: np.ndarray, blank: int) -> dict[Labels, float]:
    """log p of each labelling of positive probability, from a walk over all C^T paths."""
    frames, classes = log_probs.shape
    paths: dict[Labels, list[float]] = defaultdict(list)
    for path in itertools.product(range(classes), repeat=frames):
        log_prob = sum(float(log_probs[t, c]) for t, c in enumerate(path))
        if log_prob > -math.inf:
            paths[collapse(path, blank)].append(log_prob)
    return {labels: log_sum(*logs) for labels, logs in paths.items()}


def scored(labels: Labels, log_prob: float, scorer: Scorer | None, weight: float, bonus: float) -> float:
    """The score of a whole labelling."""
    total = log_prob + bonus * len(labels)
    if scorer is not None:
        total += weight * (sum(scorer(labels[:k], label) for k, label in enumerate(labels)) + scorer(labels, None))
    return total


def exhaustive(
    log_probs: np.ndarray, blank: int, scorer: Scorer | None = None, weight: float = 1.0, bonus: float = 0.0
) -> list[Found]:
    """All labellings of positive probability, the best first."""
    found = [
        Found(labels, scored(labels, log_prob, scorer, weight, bonus), log_prob)
        for labels, log_prob in all_labellings(log_probs, blank).items()
    ]
    return sorted((f for f in found if f.score > -math.inf), key=lambda f: -f.score)


def beam_search(
    log_probs: np.ndarray,
    blank: int,
    width: int,
    scorer: Scorer | None = None,
    weight: float = 1.0,
    bonus: float = 0.0,
    threshold: float = math.inf,
) -> list[Found]:
    """Prefix beam search as in Hannun et al. 2014, the scorer's part kept apart; the best first."""
    beam: dict[Labels, tuple[float, float]] = {(): (0.0, -math.inf)}  # ends in a blank, in the last label
    for frame in log_probs:
        new: dict[Labels, list[list[float]]] = defaultdict(lambda: [[-math.inf], [-math.inf]])
        for prefix, (in_blank, in_label) in beam.items():
            both = log_sum(in_blank, in_label)
            new[prefix][0].append(both + frame[blank])
            if prefix:
                new[prefix][1].append(in_label + frame[prefix[-1]])
            for c in range(len(frame)):
                if c != blank and frame[c] >= frame.max() - threshold:
                    new[(*prefix, c)][1].append((in_blank if prefix and c == prefix[-1] else both) + frame[c])
        after = {prefix: (log_sum(*blanks), log_sum(*labels)) for prefix, (blanks, labels) in new.items()}

        def score(prefix: Labels, after: dict[Labels, tuple[float, float]] = after) -> float:
            total = log_sum(*after[prefix]) + bonus * len(prefix)
            if scorer is not None:
                total += weight * sum(scorer(prefix[:k], label) for k, label in enumerate(prefix))
            return total

        scores = {prefix: score(prefix) for prefix in after}
        best = sorted((prefix for prefix in after if scores[prefix] > -math.inf), key=lambda prefix: -scores[prefix])
        beam = {prefix: after[prefix] for prefix in best[:width]}
    found = [
        Found(prefix, scored(prefix, log_sum(*logs), scorer, weight, bonus), log_sum(*logs))
        for prefix, logs in beam.items()
    ]
    return sorted((f for f in found if f.score > -math.inf), key=lambda f: -f.score)


class NGram:
    """Interpolated Witten-Bell from plain counts: p(c | h) = (#(h c) + tau(h) p(c | h')) / (#(h) + tau(h))."""

    def __init__(self, sequences: Sequence[Sequence[int]], classes: int, order: int) -> None:
        self.classes, self.order = classes, order
        self.followers: dict[tuple, Counter] = defaultdict(Counter)
        for sequence in sequences:
            text = ("start", *sequence, "end")
            for i in range(1, len(text)):
                for size in range(min(order, i + 1)):
                    self.followers[text[i - size : i]][text[i]] += 1

    def probability(self, history: tuple, symbol: int | str) -> float:
        shorter = self.probability(history[1:], symbol) if history else 1 / self.classes
        counts = self.followers.get(history, Counter())
        total, different = sum(counts.values()), len(counts)
        return (counts[symbol] + different * shorter) / (total + different) if total else shorter

    def __call__(self, prefix: Labels, label: int | None) -> float:
        history = ("start", *prefix)[max(0, len(prefix) + 2 - self.order) :] if self.order > 1 else ()
        return math.log(self.probability(history, "end" if label is None else label))
