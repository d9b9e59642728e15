"""The general lattice in float64, one pair: Algorithms 1 and 2 of Zeitler and Mueller 2026 as a Python loop per cell.

    f_s(n, m) = D(n - i_s, m - j_s) + W_s(n, m) C(n, m)   for each step s
    f_0(n, m) = C(n, m) + start(n, m)
    D = mu(f),   value = mu of D + end over all cells

with the operators' own definitions: softmin by logarithms, smoothmin as a mean, sparsemin by the sorted projection on
the simplex, hardmin as the first least one, the start behind the steps. `brute_softmin` lists every path instead, and
`batch` goes through the items of a padded batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

Step = tuple[int, int]


class Lattice(NamedTuple):
    """Costs (N, M), steps, weights (N, M, S), costs of starting and ending (N, M), +inf where a path must not."""

    cost: np.ndarray
    steps: Sequence[Step]
    weights: np.ndarray
    start: np.ndarray
    end: np.ndarray


class Gradients(NamedTuple):
    """Value, and its derivatives."""

    value: float
    cost: np.ndarray
    weights: np.ndarray
    start: np.ndarray
    end: np.ndarray


def lattice(
    cost: np.ndarray,
    steps: Sequence[Step],
    weights: np.ndarray | None = None,
    start: np.ndarray | None = None,
    end: np.ndarray | None = None,
) -> Lattice:
    """A lattice with unit weights, from corner to corner unless something else is given."""
    cost = np.asarray(cost, dtype=np.float64)
    n, m = cost.shape
    if weights is None:
        weights = np.ones(len(steps))
    corner = np.full((n, m), np.inf)
    first, last = corner.copy(), corner.copy()
    first[0, 0] = last[n - 1, m - 1] = 0
    return Lattice(
        cost,
        steps,
        np.broadcast_to(np.asarray(weights, dtype=np.float64), (n, m, len(steps))),
        first if start is None else np.broadcast_to(np.asarray(start, dtype=np.float64), (n, m)),
        last if end is None else np.broadcast_to(np.asarray(end, dtype=np.float64), (n, m)),
    )


# ---------------------------------------------------------------- operators: value and gradient


def softmin(q: np.ndarray, gamma: float) -> tuple[float, np.ndarray]:
    """-gamma log sum exp(-q / gamma)."""
    e = np.exp(-(q - q.min()) / gamma)
    return float(q.min() - gamma * np.log(e.sum())), e / e.sum()


def smoothmin(q: np.ndarray, gamma: float) -> tuple[float, np.ndarray]:
    """The mean of q under softmax(-q / gamma)."""
    p = softmin(q, gamma)[1]
    finite = np.where(p > 0, q, 0)
    value = float((p * finite).sum())
    return value, np.where(p > 0, p * (1 - (finite - value) / gamma), 0)


def sparsemin(q: np.ndarray, gamma: float) -> tuple[float, np.ndarray]:
    """min over the simplex of <p, q> + gamma / 2 |p|^2 - gamma / 2, by sorting (Held, Wolfe and Crowder 1974)."""
    z = np.sort(-q[np.isfinite(q)] / gamma)[::-1]
    totals = np.cumsum(z) - 1
    support = np.flatnonzero(z * np.arange(1, len(z) + 1) > totals)[-1]
    p = np.maximum(-q / gamma - totals[support] / (support + 1), 0)
    finite = np.where(p > 0, q, 0)
    return float(p @ finite + gamma / 2 * (p @ p) - gamma / 2), p


def hardmin(q: np.ndarray, gamma: float) -> tuple[float, np.ndarray]:
    """The first least one."""
    return float(q.min()), np.eye(len(q))[int(np.argmin(q))]


OPERATORS = {"softmin": softmin, "smoothmin": smoothmin, "sparsemin": sparsemin, "hardmin": hardmin}


def mu(q: np.ndarray, gamma: float, smoothing: str) -> tuple[float, np.ndarray]:
    """Operator and gradient; +inf and 0 where nothing is finite."""
    return OPERATORS[smoothing](q, gamma) if np.isfinite(q).any() else (np.inf, np.zeros(len(q)))


# ---------------------------------------------------------------- Algorithms 1 and 2


def product(weight: float, cost: float) -> float:
    """weight * cost; either infinity blocks."""
    return np.inf if weight == np.inf or cost == np.inf else weight * cost


def terms(problem: Lattice, sums: np.ndarray, n: int, m: int) -> np.ndarray:
    """f(n, m), the start last."""
    cost, steps, weights, start, _ = problem
    q = [
        sums[n - i, m - j] + product(weights[n, m, s], cost[n, m]) if n >= i and m >= j else np.inf
        for s, (i, j) in enumerate(steps)
    ]
    return np.array([*q, cost[n, m] + start[n, m]])


def forward(problem: Lattice, gamma: float, smoothing: str) -> np.ndarray:
    """D (N, M)."""
    sums = np.full(problem.cost.shape, np.inf)
    for n, m in np.ndindex(*sums.shape):
        sums[n, m] = mu(terms(problem, sums, n, m), gamma, smoothing)[0]
    return sums


def gradients(problem: Lattice, gamma: float = 1.0, smoothing: str = "softmin") -> Gradients:
    """Value and every derivative. A NaN or -inf cost makes all of them NaN."""
    shape, steps = problem.cost.shape, problem.steps
    if (np.isnan(problem.cost) | (problem.cost == -np.inf)).any():
        nan = np.full(shape, np.nan)
        return Gradients(np.nan, nan, np.full(problem.weights.shape, np.nan), nan, nan)
    sums = forward(problem, gamma, smoothing)
    value, ends = mu((sums + problem.end).ravel(), gamma, smoothing)
    mass = ends.reshape(shape).copy()
    grads = Gradients(value, np.zeros(shape), np.zeros(problem.weights.shape), np.zeros(shape), ends.reshape(shape))
    for n, m in reversed(list(np.ndindex(*shape))):
        if mass[n, m] == 0:
            continue
        p = mass[n, m] * mu(terms(problem, sums, n, m), gamma, smoothing)[1]
        grads.start[n, m] = grads.cost[n, m] = p[-1]
        for s, (i, j) in enumerate(steps):
            if p[s] == 0:
                continue
            mass[n - i, m - j] += p[s]
            grads.cost[n, m] += p[s] * problem.weights[n, m, s]
            grads.weights[n, m, s] = p[s] * problem.cost[n, m]
    return grads


def best_path(problem: Lattice) -> list[tuple[int, int]]:
    """The path of hardmin; empty where there is none."""
    sums = forward(problem, 1.0, "hardmin")
    total = sums + problem.end
    if total.min() == np.inf:
        return []
    n, m = (int(k) for k in np.unravel_index(np.argmin(total), total.shape))
    path = [(n, m)]
    while (term := int(np.argmin(terms(problem, sums, n, m)))) < len(problem.steps):
        n, m = n - problem.steps[term][0], m - problem.steps[term][1]
        path.append((n, m))
    return path[::-1]


# ---------------------------------------------------------------- a padded batch


SIDES = {"corner": (1, 1), "any_x": (2**31, 1), "any_y": (1, 2**31)}
Ends = str | tuple[int, int] | np.ndarray


class Batch(NamedTuple):
    """Values (B,), derivatives of <factors, values> of the shapes of the input; steps into blocked cells have none."""

    value: np.ndarray
    cost: np.ndarray
    gamma: float
    weights: np.ndarray
    start: np.ndarray
    end: np.ndarray


def side(ends: Ends, n: int, m: int, is_end: bool) -> np.ndarray:
    """Costs (n, m) of starting, or ending, in the cells that a name or a pair stands for."""
    along_x, along_y = SIDES[ends] if isinstance(ends, str) else ends
    i, j = np.ogrid[:n, :m]
    if is_end:
        i, j = n - 1 - i, m - 1 - j
    return np.where(((j == 0) & (i < along_x)) | ((i == 0) & (j < along_y)), 0, np.inf)


def item(
    cost: np.ndarray,
    steps: Sequence[Step],
    weights: np.ndarray,
    start: Ends,
    end: Ends,
    lengths: tuple[int, int],
    b: int,
) -> Lattice:
    """Item b of a batch without its padding."""
    n, m = lengths

    def costs(ends: Ends, is_end: bool) -> np.ndarray:
        return ends[b % len(ends), :n, :m] if isinstance(ends, np.ndarray) else side(ends, n, m, is_end)

    spread = np.broadcast_to(weights, (*cost.shape, len(steps)))[b, :n, :m]
    return lattice(cost[b, :n, :m], steps, spread, costs(start, False), costs(end, True))


def mean_cost(problem: Lattice, grads: Gradients) -> float:
    """Every cost times its derivative."""
    pairs = ((grads.cost, problem.cost), (grads.start, problem.start), (grads.end, problem.end))
    return sum(float((g[g != 0] * cost[g != 0]).sum()) for g, cost in pairs)


def _sum_to(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The sums over what a shape repeats."""
    array = array.sum(axis=tuple(range(array.ndim - len(shape))))
    return array.sum(axis=tuple(k for k, size in enumerate(shape) if size == 1), keepdims=True)


def batch(
    cost: np.ndarray,
    gamma: float = 1.0,
    smoothing: str = "softmin",
    *,
    steps: Sequence[Step],
    weights: np.ndarray | None = None,
    start: Ends = "corner",
    end: Ends = "corner",
    lengths: Sequence[tuple[int, int]] | None = None,
    factors: np.ndarray | None = None,
) -> Batch:
    """All items; costs of ends (B|1, N, M), weights that broadcast to (B, N, M, S)."""
    size = len(cost)
    weights = np.ones(len(steps)) if weights is None else weights
    factors = np.ones(size) if factors is None else factors
    value, slope, total = np.zeros(size), 0.0, np.zeros((*cost.shape, len(steps)))
    flow, begin, finish = (np.zeros(cost.shape) for _ in range(3))
    for b in range(size):
        n, m = cost.shape[1:] if lengths is None else lengths[b]
        problem = item(cost, steps, weights, start, end, (n, m), b)
        grads = gradients(problem, gamma, smoothing)
        value[b] = grads.value
        for out, part in ((flow, grads.cost), (total, grads.weights), (begin, grads.start), (finish, grads.end)):
            out[b, :n, :m] = factors[b] * part
        if grads.value != np.inf:
            slope += factors[b] * (grads.value - mean_cost(problem, grads)) / gamma
    ends = (
        _sum_to(grad, costs.shape) if isinstance(costs, np.ndarray) else grad
        for grad, costs in ((begin, start), (finish, end))
    )
    return Batch(value, flow, slope, _sum_to(total, weights.shape), *ends)


# ---------------------------------------------------------------- every path, one by one


def every_path(problem: Lattice) -> Iterator[tuple[list[tuple[int, int]], float]]:
    """All paths that are not blocked, with their costs."""
    cost, steps, weights, start, end = problem
    shape = cost.shape

    def extend(cells: list[tuple[int, int]], total: float) -> Iterator[tuple[list[tuple[int, int]], float]]:
        n, m = cells[-1]
        if total + end[n, m] < np.inf:
            yield cells, total + end[n, m]
        for s, (i, j) in enumerate(steps):
            a, b = n + i, m + j
            if a < shape[0] and b < shape[1]:
                more = total + product(weights[a, b, s], cost[a, b])
                if more < np.inf:
                    yield from extend([*cells, (a, b)], more)

    for n, m in np.ndindex(*shape):
        if start[n, m] + cost[n, m] < np.inf:
            yield from extend([(n, m)], start[n, m] + cost[n, m])


def brute_softmin(problem: Lattice, gamma: float) -> float:
    """-gamma log of the sum over all paths."""
    totals = np.array([total for _, total in every_path(problem)])
    return softmin(totals, gamma)[0] if len(totals) else np.inf
