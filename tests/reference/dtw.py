"""Hard dynamic time warping in float64, one pair, a Python loop per cell.

    R(0, 0) = C(0, 0)
    R(i, j) = min_k R(i - x_k, j - y_k) + w_k C(i, j)

open_begin lets every cell (0, j) start a path, open_end every cell (n - 1, j) end one. A +inf cost blocks its cell, a
+inf weight its step; where no path is left the value is +inf and the path empty. A NaN or -inf cost in an allowed cell
makes the value NaN.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from .softdtw import band_mask, is_invalid, weighted

Step = tuple[int, int]
STEPS: tuple[Step, ...] = ((1, 0), (0, 1), (1, 1))


def itakura_mask(n: int, m: int, slope: float | None) -> np.ndarray:
    """Cells between the lines of slope 1 / s and s from both corners, in whole numbers; all cells without a slope."""
    mask = np.ones((n, m), dtype=bool)
    if slope is not None and n > 1 and m > 1:
        for i in range(n):
            for j in range(m):
                u, v = i * (m - 1), j * (n - 1)
                rest_u, rest_v = (n - 1 - i) * (m - 1), (m - 1 - j) * (n - 1)
                mask[i, j] = u <= slope * v and v <= slope * u and rest_u <= slope * rest_v and rest_v <= slope * rest_u
    return mask


def allowed(cost: np.ndarray, band: float | None, itakura: float | None) -> np.ndarray:
    """The cost in float64 with +inf outside band and parallelogram."""
    cost = np.asarray(cost, dtype=np.float64)
    return np.where(band_mask(*cost.shape, band) & itakura_mask(*cost.shape, itakura), cost, np.inf)


def accumulated(
    cost: np.ndarray, steps: Sequence[Step], weights: Sequence[float], open_begin: bool
) -> tuple[np.ndarray, dict[tuple[int, int], Step | None]]:
    """R, and the step into each cell that has a path (None where it starts)."""
    n, m = cost.shape
    total = np.full((n, m), np.inf)
    taken: dict[tuple[int, int], Step | None] = {}
    for i in range(n):
        for j in range(m):
            if i == 0 and (j == 0 or open_begin) and cost[i, j] < np.inf:
                total[i, j] = cost[i, j]
                taken[i, j] = None
            if i == 0 and j == 0:
                continue
            for (dx, dy), weight in zip(steps, weights, strict=True):
                if dx > i or dy > j:
                    continue
                candidate = total[i - dx, j - dy] + weighted(weight, cost[i, j])
                if candidate < total[i, j]:
                    total[i, j] = candidate
                    taken[i, j] = (dx, dy)
    return total, taken


def dtw(
    cost: np.ndarray,
    steps: Sequence[Step] = STEPS,
    weights: Sequence[float] | None = None,
    band: float | None = None,
    itakura: float | None = None,
    open_begin: bool = False,
    open_end: bool = False,
) -> tuple[float, np.ndarray]:
    """Value, and a best path (L, 2)."""
    cost = allowed(cost, band, itakura)
    nothing = np.zeros((0, 2), dtype=np.int64)
    if is_invalid(cost):
        return np.nan, nothing
    total, taken = accumulated(cost, steps, weights or (1.0,) * len(steps), open_begin)
    n, m = cost.shape
    j = int(total[-1].argmin()) if open_end else m - 1
    if not total[-1, j] < np.inf:
        return np.inf, nothing
    return float(total[-1, j]), np.array(list(_back(taken, n - 1, j)))[::-1]


def _back(taken: dict[tuple[int, int], Step | None], i: int, j: int) -> Iterator[tuple[int, int]]:
    step: Step | None = (0, 0)
    while step is not None:
        yield i, j
        step = taken[i, j]
        if step is not None:
            i, j = i - step[0], j - step[1]


def path_cost(
    cost: np.ndarray, path: np.ndarray, steps: Sequence[Step] = STEPS, weights: Sequence[float] | None = None
) -> float:
    """Sum of the weighted costs along a path; +inf where it takes a step that is not given."""
    weights = weights or (1.0,) * len(steps)
    total = float(cost[tuple(path[0])])
    for before, cell in itertools.pairwise(path):
        step = tuple(cell - before)
        usable = [w for s, w in zip(steps, weights, strict=True) if s == step]
        total += weighted(min(usable, default=np.inf), cost[tuple(cell)])
    return total
