"""The problems that DTW peers solve: shapes, seeded inputs, float64 answers and errors against them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import antidiagonal
from ..inputs import uniform
from .peers import Peer

TASKS = ("value", "path")
MAIN_DIM = 12  # of the figures to reach, and of given costs


@dataclass(frozen=True)
class Case:
    """One shape: the `task` ("value" or "path") for `batch` pairs of sequences of `length` frames, `dim` features.

    `source` is "features", or "cost" when the costs of these features are given.
    """

    task: str
    source: str
    batch: int
    length: int
    dim: int

    @property
    def cells(self) -> int:
        """Cells of all lattices of the batch."""
        return self.batch * self.length**2


def inputs(case: Case, seed: int) -> tuple[Tensor, ...]:
    """Make the float32 inputs: (x, y), or (cost,)."""
    x, y = (uniform(case.length, case.dim, range(case.batch), side, seed) for side in (0, 1))
    if case.source == "features":
        return x, y
    return (torch.cat([antidiagonal.squared_distances(*pair) for pair in zip(x.split(1), y.split(1), strict=True)]),)


def call(peer: Peer, case: Case, given: tuple[Tensor, ...]) -> Callable[[], Any]:
    """Return the call that is timed."""
    solve = getattr(peer, f"{case.task}_from_{case.source}")
    arranged = peer.arrange(case.source, given)
    return lambda: solve(*arranged)


def error(peer: Peer, case: Case, seed: int, outcome: Any) -> float:
    """Compare the last item of a batch with float64: the value, or the costs along the path, relative to the value.

    Raises
    ------
    ValueError
        When a path is none.
    """
    truth, cost = _reference(case.source, case.batch, case.length, case.dim, peer.metric, seed)
    found = _last_value(outcome) if case.task == "value" else _along(_last_path(outcome, case), cost)
    return abs(found - truth) / abs(truth)


def _last_value(outcome: Any) -> float:
    return float(np.asarray(outcome).reshape(-1)[-1])


def _last_path(outcome: Any, case: Case) -> np.ndarray:
    of_batch = isinstance(outcome, list) and isinstance(outcome[-1], Tensor)
    return np.asarray(outcome[-1] if of_batch else outcome)


def _along(path: np.ndarray, cost: Tensor) -> float:
    """Add the costs of a path up, after a look at whether it is one."""
    n, m = cost.shape
    steps = np.diff(path, axis=0)
    ends = path[0].tolist() == [0, 0] and path[-1].tolist() == [n - 1, m - 1]
    if not ends or steps.min() < 0 or steps.max() > 1 or not steps.any(1).all():
        raise ValueError("what came back is no path from the first cell to the last")
    return float(cost[path[:, 0].astype(int), path[:, 1].astype(int)].sum())


@lru_cache(maxsize=2)
def _reference(source: str, batch: int, length: int, dim: int, metric: str, seed: int) -> tuple[float, Tensor]:
    """Return value and costs of the last item, in float64 from the very float32 numbers that the peers get."""
    last = range(batch - 1, batch)
    sides = [uniform(length, dim, last, side, seed) for side in (0, 1)]
    if source == "cost":
        cost = antidiagonal.squared_distances(*sides).double()
    else:
        cost = torch.cdist(sides[0].double(), sides[1].double(), compute_mode="donot_use_mm_for_euclid_dist")
        cost = cost if metric == "euclidean" else cost.square()
    return float(antidiagonal.dtw(cost)), cost[0]
