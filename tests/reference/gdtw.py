"""GDTW in plain NumPy and SciPy float64: the objective, what is feasible, when a warp is stationary, and two solvers.

    minimise  F(phi) = sum_i w_i L(x_i - y(phi_i)) + sum_i lambda_i dt_i R((phi_{i+1} - phi_i) / dt_i - s0)
    subject to  smin_i dt_i <= phi_{i+1} - phi_i <= smax_i dt_i,   bmin_i <= phi_i <= bmax_i

over phi at the knots t of x, with dt_i = t_{i+1} - t_i, trapezoid weights w and y(.) the line through the samples (Xu
et al. 2023, eq. 4 to 6). Everything follows the formulas knot by knot.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import LinearConstraint, minimize

Floats = NDArray[np.float64]
Penalty = tuple[str, float]
INF = np.inf


class Problem(NamedTuple):
    """x (m, D) at times t (m,), y (n, D) at ty (n,); of the edges reg, smin, smax (m - 1,), of the knots bmin, bmax."""

    x: Floats
    y: Floats
    t: Floats
    ty: Floats
    reg: Floats
    s0: float
    smin: Floats
    smax: Floats
    bmin: Floats
    bmax: Floats
    loss: Penalty = ("sq2", 2.0)
    regularizer: Penalty = ("sq2", 2.0)

    @property
    def dt(self) -> Floats:
        return np.diff(self.t)

    @property
    def weights(self) -> Floats:
        """Trapezoid weights of the knots."""
        return (np.append(self.dt, 0) + np.append(0, self.dt)) / 2

    @property
    def tolerance(self) -> float:
        """Below this two times are one."""
        return 1e-10 * (self.ty[-1] - self.ty[0])


# ---------------------------------------------------------------- objective


def penalty(kind: Penalty, e: Floats) -> tuple[Floats, Floats]:
    """Value and derivative: e^2, |e|^p, or Huber's, which is e^2 up to delta and goes on as its tangent."""
    name, number = kind
    size = np.abs(e)
    if name == "sq2":
        return e * e, 2 * e
    if name == "p":
        return size**number, number * np.sign(e) * size ** (number - 1)
    inside = size <= number
    value = np.where(inside, e * e, 2 * number * size - number**2)
    return value, np.where(inside, 2 * e, 2 * number * np.sign(e))


def segment(problem: Problem, time: float, side: int = 1) -> int:
    """k with ty_k <= time <= ty_{k+1}; at a sample the segment on the right (side 1) or left (-1)."""
    near = np.flatnonzero(np.abs(problem.ty - time) <= problem.tolerance)
    k = near[0] - (side < 0) if len(near) else np.searchsorted(problem.ty, time) - 1
    return int(np.clip(k, 0, len(problem.ty) - 2))


def node(problem: Problem, i: int, time: float, side: int = 1) -> tuple[float, float]:
    """L(x_i - y(time)) and its derivative in time, from the right or left."""
    k = segment(problem, time, side)
    slope = (problem.y[k + 1] - problem.y[k]) / (problem.ty[k + 1] - problem.ty[k])
    value, change = penalty(problem.loss, problem.x[i] - problem.y[k] - (time - problem.ty[k]) * slope)
    return float(value.sum()), float(-(change * slope).sum())


def objective(problem: Problem, phi: Floats) -> float:
    """F."""
    fit = sum(w * node(problem, i, phi[i])[0] for i, w in enumerate(problem.weights))
    bend, _ = penalty(problem.regularizer, np.diff(phi) / problem.dt - problem.s0)
    return float(fit + (problem.reg * problem.dt * bend).sum())


def slopes_of_bend(problem: Problem, phi: Floats) -> Floats:
    """Derivative of the regulariser in every phi_i."""
    _, change = penalty(problem.regularizer, np.diff(phi) / problem.dt - problem.s0)
    force = problem.reg * change
    return np.append(0, force) - np.append(force, 0)


def gradient(problem: Problem, phi: Floats, side: int = 1) -> Floats:
    """Derivative of F in phi, from one side."""
    fit = [w * node(problem, i, phi[i], side)[1] for i, w in enumerate(problem.weights)]
    return np.array(fit) + slopes_of_bend(problem, phi)


# ---------------------------------------------------------------- constraints


def violation(problem: Problem, phi: Floats) -> float:
    """The largest distance by which a bound is missed, in time."""
    rise = np.diff(phi)
    misses = [problem.bmin - phi, phi - problem.bmax]
    misses += [problem.smin * problem.dt - rise, rise - problem.smax * problem.dt]
    return max(0.0, *(float(miss.max()) for miss in misses if miss.size))


def reachable(problem: Problem) -> tuple[Floats, Floats, int]:
    """What bounds and slopes leave of every knot, and the first knot without room, coming from the left; or -1."""
    low, high = problem.bmin.copy(), problem.bmax.copy()
    for i, dt in enumerate(problem.dt):
        low[i + 1] = max(low[i + 1], low[i] + problem.smin[i] * dt)
        high[i + 1] = min(high[i + 1], high[i] + problem.smax[i] * dt)
    empty = np.flatnonzero(low > high + problem.tolerance)
    for i, dt in reversed(list(enumerate(problem.dt))):
        low[i] = max(low[i], low[i + 1] - problem.smax[i] * dt)
        high[i] = min(high[i], high[i + 1] - problem.smin[i] * dt)
    return low, high, int(empty[0]) if len(empty) else -1


def repaired(problem: Problem, phi: Floats) -> Floats:
    """The nearest feasible warp, knot after knot from the left."""
    low, high, _ = reachable(problem)
    phi = np.clip(phi, low, high)
    for i, dt in enumerate(problem.dt):
        least = max(low[i + 1], phi[i] + problem.smin[i] * dt)
        most = min(high[i + 1], phi[i] + problem.smax[i] * dt)
        phi[i + 1] = np.clip(phi[i + 1], least, max(least, most))
    return phi


# ---------------------------------------------------------------- stationarity


def kkt_residual(problem: Problem, phi: Floats) -> float:
    """Least r by which all forces must be allowed to be off to be in balance, over the largest force around.

    In balance means: there are multipliers mu_i of the edges, of the right sign (<= 0 at smin, >= 0 at smax, 0 in
    between), with mu_i = mu_{i-1} + s_i, mu_{-1} = mu_{m-1} = 0, where the force s_i of a knot is the derivative of F,
    anything between both derivatives at a sample, and anything less at bmin or more at bmax. The set of mu_i that can
    be reached from the left is an interval; it must not be empty.
    """
    forces, edges = list(_forces(problem, phi)), list(_edges(problem, phi))
    scale = _largest_force(problem, phi)
    low, high = 0.0, 2 * scale * len(phi)
    if _in_balance(forces, edges, 0.0):
        return 0.0
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (low, middle) if _in_balance(forces, edges, middle) else (middle, high)
    return high / scale


def _largest_force(problem: Problem, phi: Floats) -> float:
    """Of the regulariser, and of the loss at both ends of the segments in which phi is."""
    largest = float(np.abs(slopes_of_bend(problem, phi)).max(initial=1e-300))
    for i, w in enumerate(problem.weights):
        k = segment(problem, phi[i])
        ends = ((problem.ty[k], 1), (problem.ty[k + 1], -1))
        largest = max(largest, *(abs(w * node(problem, i, time, side)[1]) for time, side in ends))
    return largest


def _in_balance(forces: list[tuple[float, float]], edges: list[tuple[float, float]], slack: float) -> bool:
    low = high = 0.0
    for (least, most), (bottom, top) in zip(forces, edges, strict=True):
        low, high = max(low + least - slack, bottom), min(high + most + slack, top)
        if low > high:
            return False
    return True


def _forces(problem: Problem, phi: Floats) -> Iterator[tuple[float, float]]:
    """Smallest and largest force of each knot, within a rounding of phi: |e|^1.5 turns 1e-16 into 1e-8."""
    rounding = 2.0**-51 * (problem.ty[-1] - problem.ty[0])
    fits = [
        [w * node(problem, i, phi[i] + shift, side)[1] for side in (-1, 1) for shift in (-rounding, rounding)]
        for i, w in enumerate(problem.weights)
    ]
    slope = np.diff(phi) / problem.dt - problem.s0
    bends = [problem.reg * penalty(problem.regularizer, slope + sign * rounding / problem.dt)[1] for sign in (-1, 1)]
    least, most = np.minimum(*bends), np.maximum(*bends)
    tolerance = problem.tolerance
    for i, time in enumerate(phi):
        low = min(fits[i]) + (least[i - 1] if i else 0) - (most[i] if i < len(most) else 0)
        high = max(fits[i]) + (most[i - 1] if i else 0) - (least[i] if i < len(least) else 0)
        at_low, at_high = time <= problem.bmin[i] + tolerance, time >= problem.bmax[i] - tolerance
        yield -INF if at_low else low, INF if at_high else high


def _edges(problem: Problem, phi: Floats) -> Iterator[tuple[float, float]]:
    rise, tolerance = np.diff(phi), problem.tolerance
    for i, dt in enumerate(problem.dt):
        at_min, at_max = rise[i] <= problem.smin[i] * dt + tolerance, rise[i] >= problem.smax[i] * dt - tolerance
        yield -INF if at_min else 0.0, INF if at_max else 0.0
    yield 0.0, 0.0


# ---------------------------------------------------------------- solvers


def dense_lattice(problem: Problem, points: int) -> tuple[float, Floats]:
    """Best warp on `points` equidistant times: every pair of neighbouring knots is tried."""
    times = np.linspace(problem.ty[0], problem.ty[-1], points)
    total = np.zeros(points)
    came_from = []
    for i, w in enumerate(problem.weights):
        fit = np.array([w * node(problem, i, time)[0] for time in times])
        inside = (times >= problem.bmin[i] - problem.tolerance) & (times <= problem.bmax[i] + problem.tolerance)
        if i:
            steps = times[:, None] - times[None, :]  # to k from j
            slope = steps / problem.dt[i - 1]
            bend, _ = penalty(problem.regularizer, slope - problem.s0)
            allowed = (slope >= problem.smin[i - 1] - 1e-9) & (slope <= problem.smax[i - 1] + 1e-9)
            cost = np.where(allowed, total[None, :] + problem.reg[i - 1] * problem.dt[i - 1] * bend, INF)
            came_from.append(cost.argmin(1))
            total = cost.min(1)
        total = np.where(inside, total + fit, INF)
    path = [int(total.argmin())]
    for back in reversed(came_from):
        path.append(int(back[path[-1]]))
    return float(total.min()), times[path[::-1]]


def slsqp(problem: Problem, starts: list[Floats]) -> tuple[float, Floats]:
    """The best of SciPy's SLSQP from these starts, made feasible again."""
    tries = [repaired(problem, _slsqp(problem, repaired(problem, start))) for start in starts]
    values = [objective(problem, phi) for phi in tries]
    best = int(np.argmin(values))
    return values[best], tries[best]


def _slsqp(problem: Problem, start: Floats) -> Floats:
    m = len(start)
    edges = np.diff(np.eye(m), axis=0) / problem.dt[:, None]
    bounded = np.isfinite(problem.smin) | np.isfinite(problem.smax)
    constraints = [LinearConstraint(edges[bounded], problem.smin[bounded], problem.smax[bounded])]
    found = minimize(
        lambda phi: objective(problem, np.clip(phi, problem.ty[0], problem.ty[-1])),
        start,
        jac=lambda phi: gradient(problem, np.clip(phi, problem.ty[0], problem.ty[-1])),
        method="SLSQP",
        bounds=list(zip(problem.bmin, problem.bmax, strict=True)),
        constraints=constraints if bounded.any() else [],
        options={"ftol": 1e-12, "maxiter": 300},
    )
    return found.x if np.isfinite(found.x).all() else start


def starts(problem: Problem, count: int, rng: np.random.Generator) -> list[Floats]:
    """The straight line between what is reachable, and random warps."""
    low, high, _ = reachable(problem)
    shares = [np.full(len(low), 0.5), np.linspace(0, 1, len(low))]
    shares += [np.sort(rng.random(len(low))) for _ in range(count - 2)]
    return [repaired(problem, low + share * (high - low)) for share in shares[:count]]


# ---------------------------------------------------------------- problems


def smooth(rng: np.random.Generator, length: int, features: int) -> Floats:
    """A smooth random signal of order 1."""
    phase, rate = rng.uniform(0, 2 * np.pi, features), rng.uniform(2, 9, features)
    return np.sin(np.linspace(0, 1, length)[:, None] * rate + phase) + 0.05 * rng.standard_normal((length, features))


def random_times(rng: np.random.Generator, length: int, uneven: bool, start: float = 0.0, end: float = 1.0) -> Floats:
    """From start to end, uneven with gaps up to five times as long as others."""
    gaps = rng.uniform(0.2, 1.0, length - 1) if uneven else np.ones(length - 1)
    times = start + (end - start) * np.append(0, np.cumsum(gaps)) / gaps.sum()
    times[-1] = end
    return times


def random_problem(
    rng: np.random.Generator,
    m: int,
    n: int,
    *,
    features: int = 2,
    reg: float = 0.01,
    fixed: bool = True,
    uneven: bool = False,
    slopes: tuple[float, float] | None = None,
    band: float | None = None,
    loss: Penalty = ("sq2", 2.0),
    regularizer: Penalty = ("sq2", 2.0),
) -> Problem:
    """A feasible problem; slopes bound those of the warp, the band holds it near the diagonal."""
    t, ty = random_times(rng, m, uneven), random_times(rng, n, uneven)
    low, high = np.zeros(m), np.ones(m)
    if band is not None:
        low, high = np.clip(t - band, 0, 1), np.clip(t + band, 0, 1)
    if fixed:
        low[-1], high[0] = 1.0, 0.0
    least, most = (-INF, INF) if slopes is None else slopes
    return Problem(
        smooth(rng, m, features),
        smooth(rng, n, features),
        t,
        ty,
        np.full(m - 1, reg),
        1.0,
        np.full(m - 1, least),
        np.full(m - 1, most),
        low,
        high,
        loss,
        regularizer,
    )
