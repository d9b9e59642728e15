"""Metrics one item at a time: distortion of paths, and integrals between warps in exact fractions."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

Point = tuple[Fraction, Fraction]


def squared_distortion(path: np.ndarray) -> float:
    """Sum of (i - j)^2 over N M."""
    n, m = path[-1] + 1
    return sum((int(i) - int(j)) ** 2 for i, j in path) / (n * m)


def area_distortion(path: np.ndarray) -> float:
    """Twice the area between the path's polyline and the line from its first to its last cell, over N M."""
    n, m = (int(size) for size in path[-1] + 1)
    polyline = [(Fraction(int(i)), Fraction(int(j))) for i, j in path]
    if n == 1 or m == 1:
        return 0.0
    area = integral(polyline, [polyline[0], polyline[-1]], polyline[0][0], polyline[-1][0])[0]
    return float(2 * area / (n * m))


def integral(
    first: Sequence[Point], second: Sequence[Point], start: Fraction, end: Fraction
) -> tuple[Fraction, Fraction]:
    """Integrals of |f - g| and (f - g)^2 from start to end, f and g lines through breakpoints, constant outside.

    Each interval without a breakpoint is cut once more where f = g; the differences at its ends follow from those at a
    third and two thirds of it, where no jump can be.
    """
    inner = {t for t, _ in (*first, *second) if start < t < end}
    size = square = Fraction(0)
    for left, right in itertools.pairwise(sorted({start, end} | inner)):
        near, far = (
            value(first, left + (right - left) * share) - value(second, left + (right - left) * share)
            for share in (Fraction(1, 3), Fraction(2, 3))
        )
        a, b = 2 * near - far, 2 * far - near
        cuts = [Fraction(0), Fraction(1)] if a * b >= 0 else [Fraction(0), a / (a - b), Fraction(1)]
        for low, high in itertools.pairwise(cuts):
            ends = abs(a + (b - a) * low), abs(a + (b - a) * high)
            width = (high - low) * (right - left)
            size += width * sum(ends) / 2
            square += width * (ends[0] ** 2 + ends[0] * ends[1] + ends[1] ** 2) / 3
    return size, square


def value(points: Sequence[Point], t: Fraction) -> Fraction:
    """Value of the line through the breakpoints at a time that is none of them."""
    if t < points[0][0]:
        return points[0][1]
    for (t0, v0), (t1, v1) in itertools.pairwise(points):
        if t0 < t < t1:
            return v0 + (v1 - v0) * (t - t0) / (t1 - t0)
    return points[-1][1]


def time_errors(
    predicted: Sequence[tuple[float, float]],
    true: Sequence[tuple[float, float]],
    span: tuple[float, float] | None = None,
) -> tuple[float, float]:
    """Mean absolute and root mean square difference."""
    first, second = ([(Fraction(t), Fraction(v)) for t, v in points] for points in (predicted, true))
    start, end = (Fraction(bound) for bound in (span or (true[0][0], true[-1][0])))
    size, square = integral(first, second, start, end)
    return float(size / (end - start)), float(square / (end - start)) ** 0.5
