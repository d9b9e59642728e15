"""CTC in float64 and the log domain, one item, straight from its definition.

States are blank, label 0, blank, label 1, ..., blank. A path takes a state at each frame: the one before again, the
next, or the one after next where that skips a blank between two different labels. It begins in one of the first two
states and ends in one of the last two. The value is -log of the sum over all paths of the product of probabilities.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np


def classes(labels: Sequence[int], blank: int) -> np.ndarray:
    """Class of each state."""
    states = np.full(2 * len(labels) + 1, blank)
    states[1::2] = labels
    return states


def steps_into(states: np.ndarray, s: int) -> list[int]:
    """States from which state s can be entered."""
    skips = s % 2 == 1 and s > 1 and states[s] != states[s - 2]
    return [source for source in (s, s - 1, *([s - 2] if skips else [])) if source >= 0]


def paths(frames: int, labels: Sequence[int], blank: int) -> Iterator[list[int]]:
    """All paths, by trying all sequences of states."""
    states = classes(labels, blank)
    last = len(states) - 1
    for path in itertools.product(range(last + 1), repeat=frames):
        starts, ends = path[0] <= 1, path[-1] >= last - 1
        if starts and ends and all(a in steps_into(states, b) for a, b in itertools.pairwise(path)):
            yield list(path)


def enumerated(log_probs: np.ndarray, labels: Sequence[int], blank: int = 0) -> tuple[float, np.ndarray]:
    """Value and alignment (T, 2 S + 1) from all paths one by one."""
    frames, states = len(log_probs), classes(labels, blank)
    total, mass = 0.0, np.zeros((frames, len(states)))
    for path in paths(frames, labels, blank):
        p = np.exp(log_probs[np.arange(frames), states[path]].sum())
        total += p
        mass[np.arange(frames), path] += p
    with np.errstate(divide="ignore", invalid="ignore"):
        return -np.log(total), np.where(total > 0, mass / total, 0)


def log_sum_exp(numbers: np.ndarray) -> np.ndarray:
    """Along the first axis; -inf where all are."""
    return np.logaddexp.reduce(numbers, axis=0)


def shifted(row: np.ndarray, by: int) -> np.ndarray:
    """Entry s is that of s - by, -inf where there is none."""
    result = np.full_like(row, -np.inf)
    if by >= 0:
        result[by:] = row[: len(row) - by]
    else:
        result[:by] = row[-by:]
    return result


def skip_bar(states: np.ndarray) -> np.ndarray:
    """0 for states that may be entered from the one before the last, -inf for others."""
    bar = np.full(len(states), -np.inf)
    s = np.arange(3, len(states), 2)
    bar[s[states[s] != states[s - 2]]] = 0
    return bar


def forward(log_probs: np.ndarray, labels: Sequence[int], blank: int = 0) -> np.ndarray:
    """log A (T, 2 S + 1): paths that end in a state, with its frame."""
    states = classes(labels, blank)
    bar = skip_bar(states)
    emissions = log_probs[:, states]
    rows = [np.where(np.arange(len(states)) < 2, emissions[0], -np.inf)]
    for t in range(1, len(log_probs)):
        last = rows[-1]
        rows.append(emissions[t] + log_sum_exp(np.stack((last, shifted(last, 1), shifted(last, 2) + bar))))
    return np.stack(rows)


def backward(log_probs: np.ndarray, labels: Sequence[int], blank: int = 0) -> np.ndarray:
    """log B (T, 2 S + 1): paths that go on from a state, without its frame."""
    states = classes(labels, blank)
    bar = skip_bar(states)
    emissions = log_probs[:, states]
    rows = [np.where(np.arange(len(states)) >= len(states) - 2, 0.0, -np.inf)]
    for t in range(len(log_probs) - 1, 0, -1):
        q = rows[-1] + emissions[t]
        rows.append(log_sum_exp(np.stack((q, shifted(q, -1), shifted(q + bar, -2)))))
    return np.stack(rows[::-1])


def value(log_probs: np.ndarray, labels: Sequence[int], blank: int = 0) -> float:
    """-log of the sum over all paths; +inf where there is none."""
    if len(log_probs) == 0:
        return 0.0 if len(labels) == 0 else np.inf
    return float(-log_sum_exp(forward(log_probs, labels, blank)[-1][-2:]))


def alignment(log_probs: np.ndarray, labels: Sequence[int], blank: int = 0) -> np.ndarray:
    """Probability of each state at each frame (T, 2 S + 1); 0 where there is no path."""
    if len(log_probs) == 0:
        return np.zeros((0, 2 * len(labels) + 1))
    log_mass = forward(log_probs, labels, blank) + backward(log_probs, labels, blank)
    total = log_sum_exp(log_mass.T)[:, None]
    with np.errstate(invalid="ignore"):
        return np.where(total > -np.inf, np.exp(log_mass - total), 0)


def gradient(log_probs: np.ndarray, labels: Sequence[int], blank: int = 0) -> np.ndarray:
    """d value / d log_probs (T, C): minus the alignment, added by class."""
    result = np.zeros_like(log_probs)
    align = alignment(log_probs, labels, blank)
    for s, c in enumerate(classes(labels, blank)):
        result[:, c] -= align[:, s]
    return result


def best_path(log_probs: np.ndarray, labels: Sequence[int], blank: int = 0) -> tuple[float, list[int]]:
    """The most probable path's -log p and states; going back from the end, the shortest step of equally good ones."""
    states = classes(labels, blank)
    if len(log_probs) == 0:
        return (0.0 if len(labels) == 0 else np.inf), []
    best = np.where(np.arange(len(states)) < 2, log_probs[0][states], -np.inf)
    taken = []
    for t in range(1, len(log_probs)):
        sources = [max(steps_into(states, s), key=lambda source: (best[source], source)) for s in range(len(states))]
        taken.append(sources)
        best = best[sources] + log_probs[t][states]
    s = len(states) - 1
    if s > 0 and not best[s] > best[s - 1]:
        s -= 1
    cost, path = -float(best[s]), [s]
    for sources in reversed(taken):
        path.append(sources[path[-1]])
    return cost, path[::-1] if cost < np.inf else []


def set_log_probs(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Of multi-label CTC (N, 1 + M): blank and sets y (M, D) under activities x (N, 1 + D), logarithms from -100 on."""
    with np.errstate(divide="ignore"):
        on, off = np.maximum(np.log(x), -100), np.maximum(np.log(1 - x), -100)
    sets = off[:, :1] + on[:, 1:] @ y.T + off[:, 1:] @ (1 - y).T
    return np.concatenate((on[:, :1], sets), 1)


def set_classes(y: np.ndarray) -> list[int]:
    """Class of each set: 1 + the first of its run of equal sets."""
    first = 0
    result = []
    for m in range(len(y)):
        if m == 0 or (y[m] != y[m - 1]).any():
            first = m
        result.append(first + 1)
    return result
