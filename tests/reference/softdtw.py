"""soft-DTW in float64, log domain, one pair: three independent ways, from the slowest to the least slow.

* `enumerate_paths` and the `brute_*` functions list every path: only for lattices of some ten cells.
* `softdtw`, `transitions`, `occupancy`, `alignment`, `hessian_product`: plain recursions, a Python loop per cell.
* `softdtw_fast`, `alignment_fast`: the same recursions by anti-diagonals, for N = M of some thousands.

    R(0, 0) = C(0, 0)
    R(i, j) = softmin_gamma_k( R(i - down_k, j - right_k) + w_k C(i, j) )   for the steps k
    softmin_gamma(a) = -gamma log sum_k exp(-a_k / gamma),   k = down (1, 0), right (0, 1), diagonal (1, 1)

A +inf cost blocks its cell, a +inf weight its step; where no path is left the value is +inf and every derivative 0.
A NaN or -inf cost in an allowed cell makes everything NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

STEPS = ((1, 0), (0, 1), (1, 1))
UNIT = (1.0, 1.0, 1.0)


# ---------------------------------------------------------------- band and blocked cells


def band_mask(n: int, m: int, band: float | None) -> np.ndarray:
    """Cells (i, j) with |i (m-1) - j (n-1)| <= band max(n-1, m-1); all cells without a band."""
    mask = np.ones((n, m), dtype=bool)
    if band is not None:
        for i in range(n):
            for j in range(m):
                mask[i, j] = abs(i * (m - 1) - j * (n - 1)) <= band * max(n - 1, m - 1)
    return mask


def masked(cost: np.ndarray, band: float | None) -> np.ndarray:
    """The cost in float64 with +inf outside the band."""
    cost = np.asarray(cost, dtype=np.float64)
    return np.where(band_mask(cost.shape[0], cost.shape[1], band), cost, np.inf)


def is_invalid(cost: np.ndarray) -> bool:
    """True when an allowed cell is NaN or -inf."""
    return bool((np.isnan(cost) | (cost == -np.inf)).any())


def weighted(weight: float, cost: float) -> float:
    """weight * cost, where either infinity blocks (also 0 * inf)."""
    return np.inf if np.isinf(weight) or np.isinf(cost) else weight * cost


def softmin(values: list[float], gamma: float) -> float:
    """-gamma log sum exp(-values / gamma), +inf for no finite value."""
    smallest = min(values, default=np.inf)
    if np.isinf(smallest):
        return np.inf
    return float(smallest - gamma * np.log(sum(np.exp(-(v - smallest) / gamma) for v in values)))


# ---------------------------------------------------------------- every path, one by one


def enumerate_paths(n: int, m: int) -> Iterator[tuple[list[tuple[int, int]], list[int]]]:
    """All paths from (0, 0) to (n-1, m-1): their cells, and the index of the step that led into each but the first."""

    def extend(cells: list[tuple[int, int]], steps: list[int]) -> Iterator[tuple[list[tuple[int, int]], list[int]]]:
        i, j = cells[-1]
        if (i, j) == (n - 1, m - 1):
            yield cells, steps
        for k, (down, right) in enumerate(STEPS):
            if i + down < n and j + right < m:
                yield from extend([*cells, (i + down, j + right)], [*steps, k])

    yield from extend([(0, 0)], [])


def brute_paths(
    cost: np.ndarray, step_weights: tuple[float, ...] = UNIT, band: float | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cost (P,), weight matrix (P, N, M) and cells (P, N, M) of every path that nothing blocks."""
    cost = masked(cost, band)
    totals, weights, visits = [], [], []
    for cells, steps in enumerate_paths(*cost.shape):
        weight, visit, total = np.zeros(cost.shape), np.zeros(cost.shape), 0.0
        for cell, w in zip(cells, [1.0, *(step_weights[k] for k in steps)], strict=True):
            weight[cell] += w
            visit[cell] += 1
            total += weighted(w, cost[cell])
        if np.isfinite(total):
            totals.append(total)
            weights.append(weight)
            visits.append(visit)
    shape = (0, *cost.shape)
    return np.array(totals), np.array(weights).reshape(-1, *shape[1:]), np.array(visits).reshape(-1, *shape[1:])


def brute_force(
    cost: np.ndarray, gamma: float, step_weights: tuple[float, ...] = UNIT, band: float | None = None
) -> tuple[float, np.ndarray, np.ndarray]:
    """Value, H = d value / d cost, and E (expected visits), by listing all paths."""
    totals, weights, visits = brute_paths(cost, step_weights, band)
    if not len(totals):
        return np.inf, np.zeros(np.shape(cost)), np.zeros(np.shape(cost))
    value = softmin(list(totals), gamma)
    probability = np.exp(-(totals - value) / gamma)
    return value, np.tensordot(probability, weights, 1), np.tensordot(probability, visits, 1)


def brute_hessian_product(
    cost: np.ndarray,
    tangent: np.ndarray,
    gamma: float,
    step_weights: tuple[float, ...] = UNIT,
    band: float | None = None,
) -> np.ndarray:
    """-1/gamma Cov(weights, <weights, tangent>) over the paths."""
    totals, weights, _ = brute_paths(cost, step_weights, band)
    if not len(totals):
        return np.zeros(np.shape(cost))
    probability = np.exp(-(totals - softmin(list(totals), gamma)) / gamma)
    slopes = (weights * tangent).sum((1, 2))
    centred = slopes - probability @ slopes
    return -np.tensordot(probability * centred, weights, 1) / gamma


# ---------------------------------------------------------------- recursions, cell by cell


def lattice(cost: np.ndarray, gamma: float, step_weights: tuple[float, ...] = UNIT) -> np.ndarray:
    """R (N, M)."""
    n, m = cost.shape
    total = np.full((n, m), np.inf)
    for i in range(n):
        for j in range(m):
            total[i, j] = cost[0, 0] if i == j == 0 else softmin(arrivals(total, cost, step_weights, i, j), gamma)
    return total


def arrivals(total: np.ndarray, cost: np.ndarray, step_weights: tuple[float, ...], i: int, j: int) -> list[float]:
    """What each of the three steps into (i, j) would cost so far; +inf for a step from outside."""
    return [
        total[i - down, j - right] + weighted(w, cost[i, j]) if i >= down and j >= right else np.inf
        for (down, right), w in zip(STEPS, step_weights, strict=True)
    ]


def softdtw(cost: np.ndarray, gamma: float, step_weights: tuple[float, ...] = UNIT, band: float | None = None) -> float:
    """The value of one pair."""
    cost = masked(cost, band)
    return float("nan") if is_invalid(cost) else float(lattice(cost, gamma, step_weights)[-1, -1])


def transitions(
    cost: np.ndarray, gamma: float, step_weights: tuple[float, ...] = UNIT
) -> tuple[np.ndarray, np.ndarray]:
    """R (N, M), and (N, M, 3): the probability that a path through (i, j) came by step k (0 for unreachable cells)."""
    n, m = cost.shape
    total = lattice(cost, gamma, step_weights)
    probability = np.zeros((n, m, 3))
    for i in range(n):
        for j in range(m):
            if (i or j) and np.isfinite(total[i, j]):
                came = np.array(arrivals(total, cost, step_weights, i, j))
                probability[i, j] = np.exp(-(came - total[i, j]) / gamma)
    return total, probability


def occupancy(probability: np.ndarray, reachable: bool) -> np.ndarray:
    """E (N, M): the expected number of visits, from the last cell backwards."""
    n, m, _ = probability.shape
    mass = np.zeros((n, m))
    mass[-1, -1] = float(reachable)
    for i in reversed(range(n)):
        for j in reversed(range(m)):
            for k, (down, right) in enumerate(STEPS):
                if i >= down and j >= right:
                    mass[i - down, j - right] += mass[i, j] * probability[i, j, k]
    return mass


def expected_alignment(
    cost: np.ndarray, gamma: float, step_weights: tuple[float, ...] = UNIT, band: float | None = None
) -> np.ndarray:
    """E (N, M): the probability that a path visits (i, j)."""
    cost = masked(cost, band)
    if is_invalid(cost):
        return np.full(cost.shape, np.nan)
    total, probability = transitions(cost, gamma, step_weights)
    return occupancy(probability, bool(np.isfinite(total[-1, -1])))


def finite_weights(step_weights: tuple[float, ...]) -> np.ndarray:
    """The weights with 0 for a blocked step, which has probability 0."""
    return np.where(np.isinf(step_weights), 0.0, step_weights)


def alignment(
    cost: np.ndarray, gamma: float, step_weights: tuple[float, ...] = UNIT, band: float | None = None
) -> np.ndarray:
    """H (N, M) = d value / d cost = E times the expected weight of the step into the cell."""
    cost = masked(cost, band)
    if is_invalid(cost):
        return np.full(cost.shape, np.nan)
    total, probability = transitions(cost, gamma, step_weights)
    mass = occupancy(probability, bool(np.isfinite(total[-1, -1])))
    weight = probability @ finite_weights(step_weights)
    weight[0, 0] = 1.0
    return mass * weight


def mean_cost(cost: np.ndarray, align: np.ndarray) -> float:
    """<H, C>, where a cell without mass adds nothing, even a blocked one."""
    return float(np.where(align == 0, 0.0, align * np.where(align == 0, 0.0, cost)).sum())


def gamma_derivative(
    cost: np.ndarray, gamma: float, step_weights: tuple[float, ...] = UNIT, band: float | None = None
) -> float:
    """d value / d gamma = (value - <H, C>) / gamma, 0 where there is no path."""
    value = softdtw(cost, gamma, step_weights, band)
    return 0.0 if np.isinf(value) else (value - mean_cost(cost, alignment(cost, gamma, step_weights, band))) / gamma


def hessian_product(
    cost: np.ndarray,
    tangent: np.ndarray,
    gamma: float,
    step_weights: tuple[float, ...] = UNIT,
    band: float | None = None,
) -> np.ndarray:
    """Derivative of `alignment` in the direction of tangent: both recursions differentiated, cell by cell."""
    cost = masked(cost, band)
    n, m = cost.shape
    total, probability = transitions(cost, gamma, step_weights)
    weight = finite_weights(step_weights)
    slope, slope_probability = np.zeros((n, m)), np.zeros((n, m, 3))
    slope[0, 0] = tangent[0, 0]
    for i in range(n):
        for j in range(m):
            if probability[i, j].any():
                came = np.zeros(3)
                for k, (down, right) in enumerate(STEPS):
                    if probability[i, j, k] > 0:
                        came[k] = slope[i - down, j - right] + weight[k] * tangent[i, j]
                slope[i, j] = probability[i, j] @ came
                slope_probability[i, j] = -probability[i, j] * (came - slope[i, j]) / gamma
    mass, slope_mass = occupancy(probability, bool(np.isfinite(total[-1, -1]))), np.zeros((n, m))
    for i in reversed(range(n)):
        for j in reversed(range(m)):
            for k, (down, right) in enumerate(STEPS):
                if i >= down and j >= right:
                    slope_mass[i - down, j - right] += (
                        slope_mass[i, j] * probability[i, j, k] + mass[i, j] * slope_probability[i, j, k]
                    )
    return slope_mass * (probability @ weight) + mass * (slope_probability @ weight) + start_slope(slope_mass)


def start_slope(slope_mass: np.ndarray) -> np.ndarray:
    """The first cell has no step into it and weight 1; its mass is 1 on every path, so its slope is (numerically) 0."""
    result = np.zeros_like(slope_mass)
    result[0, 0] = slope_mass[0, 0]
    return result


# ---------------------------------------------------------------- the same by anti-diagonals


def diagonal(n: int, m: int, d: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the cells with i + j = d."""
    i = np.arange(max(0, d - m + 1), min(n - 1, d) + 1)
    return i, d - i


def block(weight: float, cost: np.ndarray) -> np.ndarray:
    """`weighted` for an array."""
    with np.errstate(invalid="ignore"):
        return np.where(np.isinf(cost) | np.isinf(weight), np.inf, weight * cost)


def lattice_fast(cost: np.ndarray, gamma: float, step_weights: tuple[float, ...] = UNIT) -> np.ndarray:
    """R with a border of +inf above and to the left: (N + 1, M + 1)."""
    n, m = cost.shape
    total = np.full((n + 1, m + 1), np.inf)
    total[1, 1] = cost[0, 0]
    for d in range(1, n + m - 1):
        i, j = diagonal(n, m, d)
        came = np.stack(
            [
                total[i + 1 - down, j + 1 - right] + block(w, cost[i, j])
                for (down, right), w in zip(STEPS, step_weights, strict=True)
            ]
        )
        smallest = came.min(0)
        with np.errstate(invalid="ignore"):
            soft = smallest - gamma * np.log(np.exp(-(came - smallest) / gamma).sum(0))
        total[i + 1, j + 1] = np.where(np.isinf(smallest), np.inf, soft)
    return total


def softdtw_fast(
    cost: np.ndarray, gamma: float, step_weights: tuple[float, ...] = UNIT, band: float | None = None
) -> float:
    """As `softdtw`."""
    cost = masked_fast(cost, band)
    return float("nan") if is_invalid(cost) else float(lattice_fast(cost, gamma, step_weights)[-1, -1])


def alignment_fast(
    cost: np.ndarray, gamma: float, step_weights: tuple[float, ...] = UNIT, band: float | None = None
) -> np.ndarray:
    """As `alignment`."""
    cost = masked_fast(cost, band)
    if is_invalid(cost):
        return np.full(cost.shape, np.nan)
    n, m = cost.shape
    total = lattice_fast(cost, gamma, step_weights)
    mass, align = np.zeros((n + 1, m + 1)), np.zeros((n, m))
    mass[n, m] = float(np.isfinite(total[-1, -1]))
    weight = finite_weights(step_weights)
    for d in reversed(range(1, n + m - 1)):
        i, j = diagonal(n, m, d)
        here = total[i + 1, j + 1]
        for k, (down, right) in enumerate(STEPS):
            came = total[i + 1 - down, j + 1 - right] + block(step_weights[k], cost[i, j])
            with np.errstate(invalid="ignore"):
                share = np.where(np.isinf(came), 0.0, np.exp(-(came - here) / gamma)) * mass[i + 1, j + 1]
            mass[i + 1 - down, j + 1 - right] += share
            align[i, j] += weight[k] * share
    align[0, 0] = mass[1, 1]
    return align


def masked_fast(cost: np.ndarray, band: float | None) -> np.ndarray:
    """As `masked`."""
    cost = np.asarray(cost, dtype=np.float64)
    if band is None:
        return cost
    n, m = cost.shape
    offset = np.abs(np.arange(n)[:, None] * (m - 1) - np.arange(m)[None, :] * (n - 1))
    return np.where(offset <= band * max(n - 1, m - 1), cost, np.inf)


# ---------------------------------------------------------------- batches and divergences


def batch(
    function: Callable[..., Any],
    costs: np.ndarray,
    x_lengths: Sequence[int] | None = None,
    y_lengths: Sequence[int] | None = None,
    **options: Any,
) -> list[Any]:
    """function(cost[:n, :m], **options) for each item with its own lengths."""
    n = [costs.shape[1]] * len(costs) if x_lengths is None else [int(v) for v in x_lengths]
    m = [costs.shape[2]] * len(costs) if y_lengths is None else [int(v) for v in y_lengths]
    return [function(cost[:a, :b], **options) for cost, a, b in zip(costs, n, m, strict=True)]


def padded(alignments: list[np.ndarray], n: int, m: int) -> np.ndarray:
    """Stack per-item matrices into (B, n, m) with zeros outside."""
    result = np.zeros((len(alignments), n, m))
    for b, item in enumerate(alignments):
        result[b, : item.shape[0], : item.shape[1]] = item
    return result


def term(
    cost: np.ndarray,
    gamma: float,
    kind: bool | str,
    step_weights: tuple[float, ...] = UNIT,
    band: float | None = None,
) -> float:
    """One term of a divergence: the value (True), <H, C> ("sharp"), or <H at zero cost, C> ("mean_cost")."""
    if kind is True:
        return softdtw(cost, gamma, step_weights, band)
    source = cost if kind == "sharp" else np.where(np.isinf(cost), np.inf, 0.0)
    return mean_cost(cost, alignment(source, gamma, step_weights, band))


def divergence(
    cost_xy: np.ndarray,
    cost_xx: np.ndarray,
    cost_yy: np.ndarray,
    gamma: float,
    kind: bool | str,
    step_weights: tuple[float, ...] = UNIT,
    band: float | None = None,
) -> float:
    """Blondel, Mensch and Vert 2021: term(x, y) - (term(x, x) + term(y, y)) / 2."""
    xy, xx, yy = (term(c, gamma, kind, step_weights, band) for c in (cost_xy, cost_xx, cost_yy))
    return xy - (xx + yy) / 2
