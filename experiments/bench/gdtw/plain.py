r"""A plain NumPy solver of GDTW, as the DecDTW paper describes its own: dynamic programming on a lattice, refined.

Each knot i has M times between bounds l_i and u_i, at first 0 and 1. The recursion over all pairs of neighbours,

    V_{i+1}(k) = w_{i+1} L_{i+1}(tau_{i+1,k}) + min_j  V_i(j) + lambda dt ((tau_{i+1,k} - tau_{i,j}) / dt - 1)^2,

gives the best warp on the lattice; bounds then close in on it, to eta of their distance, three times.
"""

from __future__ import annotations

import numpy as np

from .problems import Floats, Pair

LEAST_POINTS = 50
REFINEMENTS = 3
ETA = 0.125


def solve(pair: Pair) -> Floats:
    """Return the warp (N,)."""
    knots = len(pair.x)
    low, high = np.zeros(knots), np.ones(knots)
    low[-1], high[0] = 1, 0
    outer_low, outer_high = low, high
    phi = _best(pair, low, high)
    for _ in range(REFINEMENTS):
        reach = ETA / 2 * (high - low)
        low, high = np.maximum(phi - reach, outer_low), np.minimum(phi + reach, outer_high)
        phi = _best(pair, low, high)
    return phi


def _best(pair: Pair, low: Floats, high: Floats) -> Floats:
    """Return the best warp on a lattice between bounds."""
    knots, dt = len(low), 1 / (len(low) - 1)
    shares = np.linspace(0, 1, max(LEAST_POINTS, knots))
    times = low[:, None] + (high - low)[:, None] * shares
    fit = pair.weights[:, None] * pair.fit(slice(None), times)[0]
    total, came_from = fit[0], np.zeros(times.shape, dtype=int)
    for i in range(1, knots):
        step = times[i][:, None] - times[i - 1]
        edge = total + pair.reg_weight * dt * np.square(step / dt - 1)
        edge[step < 0] = np.inf
        came_from[i] = edge.argmin(1)
        total = fit[i] + edge[np.arange(len(shares)), came_from[i]]
    path = [int(total.argmin())]
    for i in range(knots - 1, 0, -1):
        path.append(int(came_from[i, path[-1]]))
    return np.asarray(times[np.arange(knots), path[::-1]])
