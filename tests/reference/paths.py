"""Paths in exact fractions: the cells of straight lines between anchors; likelihoods by listing every path."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from fractions import Fraction
from math import floor

import numpy as np

from . import dtw, softdtw

Cell = tuple[int, int]


def nearest(value: Fraction | float) -> int:
    """The nearest whole number, halves up."""
    return floor(Fraction(value) + Fraction(1, 2))


def line_cells(anchors: Sequence[tuple[float, float]]) -> list[Cell]:
    """Cells that straight lines between the anchors visit, each line one cell per frame of its longer side."""
    points = [(nearest(i), nearest(j)) for i, j in anchors]
    cells = [points[0]]
    for (i, j), (next_i, next_j) in itertools.pairwise(points):
        parts = max(next_i - i, next_j - j)
        for k in range(1, parts + 1):
            share = Fraction(k, parts)
            cells.append((nearest(i + share * (next_i - i)), nearest(j + share * (next_j - j))))
    return cells


def path_nll(
    cost: np.ndarray,
    path: np.ndarray,
    gamma: float,
    step_weights: tuple[float, ...] = softdtw.UNIT,
    band: float | None = None,
) -> float:
    """-log of the path's share of the sum over all paths."""
    totals, _, _ = softdtw.brute_paths(cost, step_weights, band)
    own = dtw.path_cost(softdtw.masked(cost, band), path, softdtw.STEPS, step_weights)
    return float(own / gamma + np.log(np.exp(-totals / gamma).sum()))


def expected_warp(alignment: np.ndarray, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of the times under each row (N,)."""
    means, deviations = [], []
    for row in alignment:
        share = row / row.sum()
        mean = sum(p * t for p, t in zip(share, times, strict=True))
        means.append(mean)
        deviations.append(sum(p * (t - mean) ** 2 for p, t in zip(share, times, strict=True)) ** 0.5)
    return np.array(means), np.array(deviations)
