"""Barycenters and k-means of univariate series: ours against tslearn's at equal objective."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .. import antidiagonal

TOLERANCE = 1e-6  # share of the objective by which ours may be above tslearn's: the rounding of float32 sums
OWN_TARGET = "tslearn's objective"  # what ends our search: this, or our own rule
OWN_END = "own stopping rule"
CHUNK = 50  # series whose lattices are in memory at a time


@dataclass(frozen=True)
class Problem:
    """What is averaged, and for how long tslearn does it.

    Attributes
    ----------
    name : str
        As in tables.
    gamma : float
        Of soft-DTW; 0 is DTW, whose averages are those of DBA.
    clusters : int
        0 for a barycenter, else of k-means.
    count, length : int
        Of the series.
    iterations : int
        At most so many of tslearn.
    iterations_inside : int
        At most so many for each update of a center of k-means, on both sides. tslearn's DTW k-means knows only 30.
    """

    name: str
    gamma: float
    clusters: int
    count: int
    length: int
    iterations: int
    iterations_inside: int = 0

    @property
    def limit(self) -> str:
        """What ends tslearn's search, beside its own rule."""
        inside = f" of {self.iterations_inside} for each center" if self.clusters else ""
        return f"at most {self.iterations} iterations{inside}"


class Found(NamedTuple):
    """A result: its objective in float64, the seconds that it took and, where known, the iterations."""

    objective: float
    seconds: float
    iterations: int | None


def series(problem: Problem, seed: int) -> Tensor:
    """Return series (n, N), float32: bumps of as many shapes as clusters, in turns, warped in time, with noise.

    They are normalised to mean 0 and variance 1, as in the UCR archive.
    """
    rng = np.random.default_rng(seed)
    shapes = max(problem.clusters, 1)
    centers, heights = rng.uniform(0.1, 0.9, (shapes, 4)), rng.uniform(-2, 2, (shapes, 4))
    shape = np.arange(problem.count) % shapes
    at = np.linspace(0, 1, problem.length) ** rng.uniform(0.7, 1.4, (problem.count, 1))
    bumps = heights[shape][:, :, None] * np.exp(-(((at[:, None] - centers[shape][:, :, None]) / 0.06) ** 2))
    noisy = bumps.sum(1) + 0.1 * rng.standard_normal(at.shape)
    normal = (noisy - noisy.mean(1, keepdims=True)) / noisy.std(1, keepdims=True)
    return torch.from_numpy(normal).float()


def start(problem: Problem, given: Tensor) -> Tensor:
    """Where both sides begin: the mean (1, N), or for k-means a series of each shape (k, N)."""
    if not problem.clusters:
        return given.double().mean(0, keepdim=True)
    return given[: problem.clusters]


def objective(problem: Problem, given: Tensor, centers: Any) -> float:
    """Return the sum over the series of the (soft-)DTW to the nearest center, in float64, by the plain version."""
    centers = torch.as_tensor(np.asarray(centers)).double().reshape(max(problem.clusters, 1), -1)
    total = 0.0
    for part in given.double().split(CHUNK):
        costs = [(center[:, None] - part[:, None, :]).square() for center in centers]
        distances = [
            antidiagonal.soft_dtw(cost, problem.gamma) if problem.gamma else antidiagonal.dtw(cost) for cost in costs
        ]
        total += float(torch.stack(distances).amin(0).sum())
    return total


# ---------------------------------------------------------------- tslearn


def of_tslearn(problem: Problem, given: Tensor) -> Found:
    """Let tslearn find its average, once, after its compiler has seen a small one."""
    small = Problem("", problem.gamma, problem.clusters, 4 * max(problem.clusters, 1), 8, 2, 1)
    _solve_with_tslearn(small, series(small, 0))
    begin = time.perf_counter()
    centers, iterations = _solve_with_tslearn(problem, given)
    seconds = time.perf_counter() - begin
    return Found(objective(problem, given, centers), seconds, iterations)


def _solve_with_tslearn(problem: Problem, given: Tensor) -> tuple[np.ndarray, int | None]:
    """Return the centers, and how many iterations were made where tslearn tells."""
    from tslearn import barycenters, clustering

    frames, first = given.double().numpy()[..., None], start(problem, given).double().numpy()[..., None]
    if problem.clusters:
        options: dict[str, Any] = {"metric_params": {"gamma": problem.gamma}} if problem.gamma else {}
        found = clustering.TimeSeriesKMeans(
            problem.clusters,
            metric="softdtw" if problem.gamma else "dtw",
            init=first,
            max_iter=problem.iterations,
            max_iter_barycenter=problem.iterations_inside,
            **options,
        ).fit(frames)
        return found.cluster_centers_, found.n_iter_
    if problem.gamma:
        found = barycenters.softdtw_barycenter(frames, gamma=problem.gamma, max_iter=problem.iterations, init=first[0])
        return found, None
    return barycenters.dtw_barycenter_averaging(frames, init_barycenter=first[0], max_iter=problem.iterations), None


# ---------------------------------------------------------------- ours


def estimator(dalign: Any, problem: Problem, given: Tensor, **options: Any) -> Any:
    """Return our estimator for the problem, with the same start."""
    first = start(problem, given).to(given.dtype)
    if not problem.clusters:
        return dalign.SoftDTWBarycenter(problem.gamma, init=first[0], **options)
    options = {"max_iter_barycenter": problem.iterations_inside, **options}
    distance = "softdtw" if problem.gamma else "dtw"
    return dalign.SoftDTWKMeans(problem.clusters, problem.gamma, distance=distance, init=first, **options)


def centers_of(fitted: Any) -> Any:
    """Return what a fitted estimator found."""
    return fitted.cluster_centers_ if hasattr(fitted, "cluster_centers_") else fitted.barycenter_


def iterations_to(dalign: Any, problem: Problem, given: Tensor, target: float) -> int | None:
    """Return after how many of our iterations the objective is not above the target.

    Our history tells where to look; the objective in float64 decides. None when twice as many iterations as tslearn may
    make are not enough.
    """
    history = estimator(dalign, problem, given, max_iter=2 * problem.iterations, tol=0.0).fit(given).history_
    bound = target + TOLERANCE * abs(target)
    for iterations in _near(history, bound):
        fitted = estimator(dalign, problem, given, max_iter=iterations, tol=0.0).fit(given)
        if objective(problem, given, centers_of(fitted)) <= bound:
            return iterations
    return None


def _near(history: list[float], bound: float) -> Iterator[int]:
    """Yield the iterations whose objective is about the bound, at most three: ours is a sum in float32."""
    close = (n for n, value in enumerate(history) if value <= bound + 10 * TOLERANCE * abs(bound))
    return itertools.islice(close, 3)


def call(dalign: Any, problem: Problem, given: Tensor, **options: Any) -> Callable[[], Any]:
    """Return the call that is timed: a `fit`, which returns the estimator."""
    return lambda: estimator(dalign, problem, given, **options).fit(given)
