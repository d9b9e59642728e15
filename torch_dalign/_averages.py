r"""Averages of series: the objective, and the methods that minimise it.

.. math:: L(z) = \sum_i w_i\, d(z, X_i) \; [ + a \sum_k c(z_k, z^0_k) ]

where d is DTW, soft-DTW or its divergence, c the metric of the frames and the bracket an anchor: what was seen before
speaks for its result :math:`z^0` with the weight a. That is how minibatches add up; for series of one frame and squared
Euclidean costs it is the running mean of minibatch k-means.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ._series import Batch, Series, weights_of
from ._shards import Shards
from .cost import Metric, pairwise
from .dtw import dtw, padded_paths
from .softdtw import SoftDTW

METRICS = ("sqeuclidean", "euclidean", "manhattan", "cosine")


class Distance:
    """d of two batches of series: soft-DTW, its divergence, or DTW for gamma = 0."""

    def __init__(self, gamma: float, metric: Metric, band: float | None, divergence: bool) -> None:
        self.gamma, self.metric, self.band = gamma, metric, band
        self.divergence = divergence and gamma > 0  # d(x, x) is 0 for DTW
        self._soft = SoftDTW(gamma, metric, band, reduction="none") if gamma > 0 else None

    def plain(self, x: Tensor, y: Tensor, x_lengths: Tensor | None = None, y_lengths: Tensor | None = None) -> Tensor:
        """(B,) DTW or soft-DTW, without the other terms of a divergence."""
        if self._soft is not None:
            return self._soft(x, y, x_lengths, y_lengths)
        return dtw(x, y, self.metric, band=self.band, x_lengths=x_lengths, y_lengths=y_lengths)

    def of_center(self, center: Tensor, batch: Batch) -> Tensor:
        """(B,) of one series (K, D) and each of a batch, without the other terms of a divergence."""
        return self.plain(_repeat(center, len(batch.values)), batch.values, None, batch.lengths)

    def of_itself(self, center: Tensor) -> Tensor:
        """What a divergence takes off for the series (K, D): half its soft-DTW with itself; else 0."""
        return self.plain(center[None], center[None])[0] / 2 if self.divergence else center.new_zeros(())

    def of_themselves(self, collection: Series) -> Tensor:
        """The same for each series of a collection, (n,) in float64."""
        terms = torch.zeros(len(collection), dtype=torch.float64)
        if self.divergence:
            for batch in collection.batches():
                value = self.plain(batch.values, batch.values, batch.lengths, batch.lengths)
                terms[batch.indices] = value.double() / 2
        return terms


def _repeat(center: Tensor, times: int) -> Tensor:
    return center.expand(times, *center.shape)


class Anchor(NamedTuple):
    """A series (K, D) that stands for series seen before, with their weight."""

    center: Tensor
    weight: float

    def loss(self, z: Tensor, metric: Metric) -> Tensor:
        """weight times the cost between frames of the same number."""
        cost = diagonal_cost(z, self.center.to(z.dtype), metric)
        return self.weight * cost.double()


def diagonal_cost(x: Tensor, y: Tensor, metric: Metric) -> Tensor:
    """Sum of the costs along the diagonal, from frames one by one so that no lattice is made."""
    frames = (x[:, None], y[:, None])
    return (metric(*frames) if callable(metric) else pairwise(*frames, metric)).sum()


class Task:
    """A collection with weights, and the distance that is summed over it.

    Parameters
    ----------
    collection : Series
        This rank's shard.
    sample_weight : Tensor, array or None
        (n,) weights >= 0 of its series; None for ones.
    distance : Distance
        What is summed.
    shards : Shards
        The other ranks.
    """

    def __init__(self, collection: Series, sample_weight: Any, distance: Distance, shards: Shards) -> None:
        self.collection, self.distance, self.shards = collection, distance, shards
        self.weights = weights_of(sample_weight, len(collection), shards)
        self.own = distance.of_themselves(collection)
        self.floor = self.floor_of(float(shards.sum(self.weights.sum())))

    def floor_of(self, weight: float) -> float:
        """What is small for a loss of series of that weight: soft-DTW may be near 0 without being small."""
        return 0.0 if self.distance.divergence else self.distance.gamma * weight


class Problem:
    """What an average minimises: L over all series of a task, or over some, taken batch by batch.

    Parameters
    ----------
    task : Task
        Series, weights, distance.
    beside : int
        How many frames an average has, for the size of the batches.
    indices : Tensor, optional
        Numbers of this rank's series that count; default: all. It may have none.
    anchor : Anchor, optional
        What was seen before.
    """

    def __init__(self, task: Task, beside: int, indices: Tensor | None = None, anchor: Anchor | None = None) -> None:
        chosen = torch.arange(len(task.collection)) if indices is None else indices
        self.distance, self.anchor = task.distance, anchor
        self._shards, self._dtype = task.shards, task.collection.dtype
        self._batches = [(batch, task.weights[batch.indices]) for batch in task.collection.batches(beside, chosen)]
        weights = task.weights[chosen]
        # the second is the terms of a divergence that no average changes
        sums = task.shards.sum(torch.stack([weights.sum(), weights @ task.own[chosen]]))
        self.weight, self._constant = sums.tolist()
        self.floor = task.floor_of(self.weight)

    def loss(self, z: Tensor) -> float:
        """L without the anchor."""
        total = torch.zeros((), dtype=torch.float64)
        with torch.no_grad():
            for batch, weights in self._batches:
                total += weights @ self.distance.of_center(self._cast(z), batch).double()
            own = self.weight * self.distance.of_itself(self._cast(z)).double()
        return float(self._shards.sum(total) - own) - self._constant

    def loss_and_gradient(self, z: Tensor) -> tuple[float, Tensor]:
        """L, and its gradient (K, D) in float64."""
        leaf = self._cast(z).clone().requires_grad_()
        both = torch.zeros(1 + z.numel(), dtype=torch.float64)  # in one message to the other ranks
        with torch.enable_grad():
            for batch, weights in self._batches:
                both += _with_gradient((weights * self.distance.of_center(leaf, batch)).sum(), leaf)
            both = self._shards.sum(both)
            if self.distance.divergence:
                both += _with_gradient(-self.weight * self.distance.of_itself(leaf).double(), leaf)
            if self.anchor is not None:
                both += _with_gradient(self.anchor.loss(leaf, self.distance.metric), leaf)
        return float(both[0]) - self._constant, both[1:].view_as(z)

    def loss_and_mean(self, z: Tensor) -> tuple[float, Tensor]:
        """L for DTW and squared Euclidean costs, and for each frame of z the mean of the frames aligned with it."""
        size = z.numel()
        totals = torch.zeros(1 + size + len(z), dtype=torch.float64)
        loss, sums, mass = totals[:1], totals[1 : 1 + size].view_as(z), totals[1 + size :]
        for batch, weights in self._batches:
            rows, frames, weight = _aligned(self._cast(z), batch, weights, self.distance)
            loss += weight @ (z[rows] - frames).square().sum(1)
            sums.index_add_(0, rows, weight[:, None] * frames)
            mass.index_add_(0, rows, weight)
        totals = self._shards.sum(totals)
        loss, sums, mass = totals[:1], totals[1 : 1 + size].view_as(z), totals[1 + size :]
        if self.anchor is not None:
            loss = loss + self.anchor.weight * (z - self.anchor.center).square().sum()
            sums, mass = sums + self.anchor.weight * self.anchor.center, mass + self.anchor.weight
        return float(loss), sums / mass[:, None]

    def _cast(self, z: Tensor) -> Tensor:
        return z.to(self._dtype)


def _with_gradient(loss: Tensor, leaf: Tensor) -> Tensor:
    """The loss and then its gradient, flat, in float64."""
    (gradient,) = torch.autograd.grad(loss, leaf)
    return torch.cat([loss.detach().double()[None], gradient.double().flatten()])


def _aligned(z: Tensor, batch: Batch, weights: Tensor, distance: Distance) -> tuple[Tensor, Tensor, Tensor]:
    """Pairs of the best paths: the frame's number in z, the frame of the series, the series' weight (float64).

    The paths' padding stays, with the weight 0: to take it out would cost more than to add it up.
    """
    paths, lengths = padded_paths(
        _repeat(z, len(batch.values)), batch.values, distance.metric, band=distance.band, y_lengths=batch.lengths
    )
    paths = paths[:, : int(lengths.max())]
    weight = weights[:, None] * (paths[..., 0] >= 0)
    rows, columns = paths.clamp(min=0).unbind(2)
    frames = batch.values.gather(1, columns[..., None].expand(-1, -1, batch.values.shape[2]))
    return rows.flatten(), frames.flatten(0, 1).double(), weight.flatten()


# ---------------------------------------------------------------- methods


class Average(NamedTuple):
    """What a method found: the series (K, D) in float64, iterations made, the losses at the start and after each."""

    center: Tensor
    n_iter: int
    history: list[float]


def lbfgs(problem: Problem, start: Tensor, steps: Iterable[int], tol: float) -> Average:
    """Quasi-Newton steps: L-BFGS with a line search for the strong Wolfe conditions."""
    center = start.double()
    loss, gradient = problem.loss_and_gradient(center)
    history = [check_loss(loss)]
    slope = float(gradient.abs().sum())
    if slope == 0:
        return Average(center, 0, history)
    # The optimizer's first step has length 1. In these units that is about Newton's: with squared Euclidean costs the
    # second derivative is twice the weight of what is aligned with a frame. Losses are scaled up, as the optimizer
    # forgets steps whose curvature is below 1e-10.
    unit = slope / (2 * problem.weight)
    path = _Lbfgs(problem, center, unit, scale=1e6 / (slope * unit))
    for _ in steps:
        loss = path.next()
        if not loss <= history[-1]:  # the line search found nothing better: what is left is rounding
            break
        center = path.center
        history.append(loss)
        if is_settled(history, problem.floor, tol):
            break
    return Average(center, len(history) - 1, history)


class _Lbfgs:
    """torch's optimizer, one iteration at a time; what it asks for twice is computed once."""

    def __init__(self, problem: Problem, center: Tensor, unit: float, scale: float) -> None:
        self._problem, self._unit, self._scale = problem, unit, scale
        self._point = (center / unit).requires_grad_()
        self._known: dict[bytes, tuple[float, Tensor]] = {}
        self._optimizer = torch.optim.LBFGS(
            [self._point],
            max_iter=1,
            max_eval=25,
            tolerance_grad=0,
            tolerance_change=0,
            history_size=10,
            line_search_fn="strong_wolfe",
        )

    @property
    def center(self) -> Tensor:
        """Where it is, (K, D)."""
        return self._point.detach() * self._unit

    def next(self) -> float:
        """One iteration; the loss after it."""
        self._optimizer.step(self._closure)
        self._known = {self._key(): self._here()}
        return self._here()[0]

    def _closure(self) -> Tensor:
        loss, gradient = self._here()
        self._point.grad = gradient * (self._unit * self._scale)
        return torch.tensor(loss * self._scale, dtype=torch.float64)

    def _here(self) -> tuple[float, Tensor]:
        if self._key() not in self._known:
            self._known[self._key()] = self._problem.loss_and_gradient(self.center)
        return self._known[self._key()]

    def _key(self) -> bytes:
        return self._point.detach().numpy().tobytes()


def minimizer(method: str, distance: Distance) -> Callable[[Problem, Tensor, Iterable[int], float], Average]:
    """The method of that name; "auto": DBA where it can be used."""
    if method == "auto":
        method = "dba" if distance.gamma == 0 and distance.metric == "sqeuclidean" else "lbfgs"
    return dba if method == "dba" else lbfgs


def dba(problem: Problem, start: Tensor, steps: Iterable[int], tol: float) -> Average:
    """DTW barycenter averaging (Petitjean et al. 2011): each frame becomes the mean of those aligned with it."""
    center = start.double()
    loss, mean = problem.loss_and_mean(center)
    history = [check_loss(loss)]
    for _ in steps:
        candidate = mean
        loss, mean = problem.loss_and_mean(candidate)
        if loss > history[-1]:  # by rounding alone: neither of the two steps that lead here can add to it
            break
        center = candidate
        history.append(loss)
        if is_settled(history, problem.floor, tol):
            break
    return Average(center, len(history) - 1, history)


def subgradient(problem: Problem, start: Tensor, step: float) -> Average:
    """One step against the (sub)gradient of the mean distance; the loss is that at the start."""
    loss, gradient = problem.loss_and_gradient(start.double())
    return Average(start.double() - step / problem.weight * gradient, 1, [check_loss(loss)])


def check_loss(loss: float) -> float:
    """ValueError for a loss at the start that is not finite."""
    if not math.isfinite(loss):
        raise ValueError(f"the loss of the initial series is {loss}: metric or band leave no finite cost")
    return loss


def is_settled(history: list[float], floor: float, tol: float) -> bool:
    """Whether the last step lowered the loss by no more than tol, as a share of its size or of `floor`."""
    before, after = history[-2:]
    return before - after <= tol * max(abs(before), abs(after), floor)


def minibatches(collection: Series, batch_size: int, rng: np.random.Generator, shards: Shards) -> Iterator[Tensor]:
    """The numbers of this rank's series, shuffled, in as many parts on every rank; some may be empty."""
    parts = max(shards.gather(-(-len(collection) // batch_size)))
    order = torch.from_numpy(rng.permutation(len(collection)))
    return iter(order.tensor_split(parts))


def own_generator(rng: np.random.Generator, shards: Shards) -> np.random.Generator:
    """Random numbers of this rank alone; `rng` gives the same ones on all ranks, also afterwards."""
    return np.random.default_rng([int(rng.integers(2**62)), shards.rank])
