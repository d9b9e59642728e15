"""Averages and clusters in float64, slow and plain: squared Euclidean costs, one pair of series at a time.

soft:  L(z) = sum_i w_i soft-DTW(z, X_i),   dL/dz_k = sum_i w_i sum_j H_kj 2 (z_k - X_ij)
hard:  L(z) = sum_i w_i DTW(z, X_i),        DBA: z_k <- mean of all X_ij on best paths through row k, weighted by w_i
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from . import softdtw

Series = Sequence[np.ndarray]


def costs(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """|x_i - y_j|^2 (N, M)."""
    return ((x[:, None] - y[None]) ** 2).sum(2)


def dtw(cost: np.ndarray, band: float | None = None) -> tuple[float, list[tuple[int, int]]]:
    """Least sum of costs of a path, and that path (the diagonal step first where several are as good)."""
    n, m = cost.shape
    cost = softdtw.masked(cost, band)
    total = np.full((n + 1, m + 1), np.inf)
    total[0, 0] = 0
    for i in range(n):
        for j in range(m):
            total[i + 1, j + 1] = cost[i, j] + min(total[i, j], total[i, j + 1], total[i + 1, j])
    i, j = n - 1, m - 1
    path = [(i, j)]
    while (i, j) != (0, 0):
        before = [(i - 1, j - 1), (i - 1, j), (i, j - 1)]
        i, j = min(before, key=lambda cell: total[cell[0] + 1, cell[1] + 1] if min(cell) >= 0 else np.inf)
        path.append((i, j))
    return float(total[n, m]), path[::-1]


def distance(x: np.ndarray, y: np.ndarray, gamma: float, band: float | None = None, divergence: bool = False) -> float:
    """soft-DTW, its divergence, or DTW for gamma = 0."""
    if gamma == 0:
        return dtw(costs(x, y), band)[0]

    def soft(x: np.ndarray, y: np.ndarray) -> float:
        return softdtw.softdtw_fast(costs(x, y), gamma, band=band)

    return soft(x, y) - (soft(x, x) + soft(y, y)) / 2 if divergence else soft(x, y)


def distances(series: Series, centers: Series, gamma: float, **options: object) -> np.ndarray:
    """(n, k)."""
    return np.array([[distance(center, x, gamma, **options) for center in centers] for x in series])


def loss(z: np.ndarray, series: Series, weights: np.ndarray, gamma: float, **options: object) -> float:
    """L."""
    return float(weights @ distances(series, [z], gamma, **options)[:, 0])


def gradient(z: np.ndarray, series: Series, weights: np.ndarray, gamma: float, band: float | None = None) -> np.ndarray:
    """dL/dz (K, D) of soft-DTW."""
    total = np.zeros_like(z)
    for x, weight in zip(series, weights, strict=True):
        align = softdtw.alignment_fast(costs(z, x), gamma, band=band)
        total += 2 * weight * (align.sum(1, keepdims=True) * z - align @ x)
    return total


def dba_update(z: np.ndarray, series: Series, weights: np.ndarray, band: float | None = None) -> np.ndarray:
    """One step of DBA."""
    sums, mass = np.zeros_like(z), np.zeros(len(z))
    for x, weight in zip(series, weights, strict=True):
        for i, j in dtw(costs(z, x), band)[1]:
            sums[i] += weight * x[j]
            mass[i] += weight
    return sums / mass[:, None]


def resampled_mean(series: Series, weights: np.ndarray, length: int) -> np.ndarray:
    """Weighted mean of the series, each interpolated linearly at `length` equally spaced times."""
    stretched = []
    for x in series:
        times = np.linspace(0, len(x) - 1, length)
        stretched.append(np.stack([np.interp(times, np.arange(len(x)), column) for column in x.T], 1))
    return np.tensordot(weights / weights.sum(), np.stack(stretched), 1)


def kmeans(series: Series, centers: Series, updates: int, dba_updates: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """Lloyd's two steps for DTW: labels for the last centers, and these. No cluster may become empty."""
    centers = list(centers)
    for _ in range(updates):
        labels = distances(series, centers, 0).argmin(1)
        for c, center in enumerate(centers):
            members = [x for x, label in zip(series, labels, strict=True) if label == c]
            for _ in range(dba_updates):
                center = dba_update(center, members, np.ones(len(members)))
            centers[c] = center
    return distances(series, centers, 0).argmin(1), centers
