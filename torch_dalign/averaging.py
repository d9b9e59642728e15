r"""Averages of series under DTW and soft-DTW.

.. math:: \min_z \sum_i w_i\, d(z, X_i)

where d is soft-DTW (solved by L-BFGS), its divergence, or DTW (solved by DBA or by subgradient steps).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from typing_extensions import Self

from . import _checks
from ._averages import (
    METRICS,
    Anchor,
    Average,
    Distance,
    Problem,
    Task,
    is_settled,
    minibatches,
    minimizer,
    own_generator,
    subgradient,
)
from ._estimator import Estimator, counted, integer, number, seed
from ._series import Batch, resample, series, single
from ._shards import Shards
from .cost import Metric

METHODS = ("auto", "lbfgs", "subgradient", "dba")
INITS = ("mean", "random", "medoid")

# At most so many series are tried as medoids: each is compared with the whole collection.
MEDOID_CANDIDATES = 32
# Iterations of L-BFGS or DBA on one minibatch. More would fit what is seen no better after the next one.
MINIBATCH_ITERATIONS = 5


class SoftDTWBarycenter(Estimator):
    r"""The average of series of any lengths.

    .. math:: \text{barycenter} = \arg\min_z \sum_i w_i\, \text{soft-DTW}_\gamma(z, X_i)

    The average has a length of its own. For gamma = 0 it is that of DTW.

    Parameters
    ----------
    gamma : float, default 1.0
        Smoothing of soft-DTW, in units of the metric; 0 is DTW. Small values give sharp averages, large ones are easier
        to minimise. It plays no part for the methods "dba" and "subgradient", which are for DTW.
    metric : str or callable, default "sqeuclidean"
        Cost of two frames: "sqeuclidean", "euclidean", "manhattan", "cosine", or a callable
        ``metric(x, y) -> cost`` (B, N, M), which is then stored.
    max_iter : int, default 100
        At most so many iterations; with `batch_size`, and for "subgradient", passes over the series.
    tol : float, default 1e-5
        An iteration that lowers the loss by less than this share of it is the last ("subgradient": changes it by less).
        As soft-DTW may be about 0, the share is that of gamma times the sum of weights at least.
    length : int, optional
        Length of the average. Default: that of `init`, or the mean length of the series, rounded.
    init : str or Tensor or array, default "mean"
        Where to start: "mean" (of the series, interpolated linearly to `length`), "random" (normal noise with the mean
        and standard deviation of all frames), "medoid" (the series with the least loss, among 32 drawn at random if
        there are more), or a series (K,) or (K, D). A series or medoid is interpolated if `length` is another.
    method : str, default "auto"
        "lbfgs" (quasi-Newton; for gamma = 0 it may stop early, at a kink of the loss), "dba" (DTW barycenter averaging,
        for squared Euclidean costs), "subgradient", or "auto": "dba" for gamma = 0 and squared Euclidean costs, else
        "lbfgs".
    band : int or float, optional
        Sakoe-Chiba band, as in `SoftDTW`.
    divergence : bool, default False
        Minimise the divergence :math:`s(z, X_i) - \tfrac12 s(z, z) - \tfrac12 s(X_i, X_i)` with s = soft-DTW, whose
        averages are less flat for large gamma.
    batch_size : int, optional
        Take minibatches of so many series (of each rank), in a new order in every pass. What was seen before then
        speaks by its result and weight. Needs a metric that is smooth where frames are equal: not "euclidean" and
        "manhattan" (but for "subgradient"). Default: all series at each step; memory is bounded in either case.
    step_size : float, default 0.05
        Of the method "subgradient": the first step, in units of the gradient of the mean distance. Steps decrease
        linearly to a tenth of it in the last pass.
    random_state : int, Generator or RandomState, optional
        Where random numbers come from: a seed, or a generator of NumPy or torch. None: torch's global generator.
    progress : bool, default False
        Show a bar. Needs tqdm: ``pip install torch-dalign[progress]``.
    distributed : bool or ProcessGroup, default False
        True: each process of torch.distributed (or of the group) calls `fit` with its own shard of the series, and all
        get the same average of all series. Sums alone travel, not series (but for "medoid").

    Attributes
    ----------
    barycenter_ : Tensor or array
        (K, D), or (K,) if the series came without an axis of features; an array if they came as arrays.
    loss_ : float
        :math:`\sum_i w_i\, d(z, X_i)` at `barycenter_`.
    n_iter_ : int
        Iterations made (passes where `max_iter` counts passes).
    history_ : list of float
        The loss at the start and after each iteration. Of minibatches, and for "subgradient": the sum over a pass of
        the losses as they were when their turn came.

    Notes
    -----
    Time: about one forward and backward of soft-DTW for all series and iteration. Memory: the series twice, and no
    lattice for the named metrics. float32 series are computed in float32, sums and the optimizer in float64. Results do
    not depend on the number of threads.

    To weigh series of different lengths alike, pass ``sample_weight=1 / lengths``.

    References
    ----------
    Cuturi and Blondel, "Soft-DTW: a Differentiable Loss Function for Time-Series", ICML 2017, section 3.1.
    Petitjean, Ketterlin and Gançarski, "A global averaging method for dynamic time warping", Pattern Recognition, 2011.
    Schultz and Jain, "Nonsmooth analysis and subgradient methods for averaging in dynamic time warping spaces", Pattern
    Recognition, 2018.

    Examples
    --------
    >>> import torch, torch_dalign as dalign
    >>> early, late = torch.zeros(40), torch.zeros(30)
    >>> early[10:15] = late[20:25] = 1.0
    >>> average = dalign.SoftDTWBarycenter(gamma=0.01).fit([early, late]).barycenter_
    >>> average.shape, average.max().round(decimals=1)
    (torch.Size([35]), tensor(1.))
    """

    def __init__(
        self,
        gamma: float = 1.0,
        metric: Metric = "sqeuclidean",
        *,
        max_iter: int = 100,
        tol: float = 1e-5,
        length: int | None = None,
        init: Any = "mean",
        method: str = "auto",
        band: float | None = None,
        divergence: bool = False,
        batch_size: int | None = None,
        step_size: float = 0.05,
        random_state: Any = None,
        progress: bool = False,
        distributed: Any = False,
    ) -> None:
        self.gamma, self.metric = gamma, metric
        self.max_iter, self.tol = max_iter, tol
        self.length, self.init = length, init
        self.method, self.band, self.divergence = method, band, divergence
        self.batch_size, self.step_size = batch_size, step_size
        self.random_state, self.progress, self.distributed = random_state, progress, distributed

    @torch.inference_mode(False)  # gradients are needed, whoever asks
    def fit(self, X: Any, y: Any = None, sample_weight: Any = None, lengths: Any = None) -> Self:
        """Find the average.

        Parameters
        ----------
        X : Tensor, array or sequence
            (n, N) or (n, N, D), or a sequence of n series (N_i,) or (N_i, D).
        y
            Ignored, for scikit-learn's sake.
        sample_weight : Tensor or array, optional
            (n,) weights >= 0 of the series. Default: ones.
        lengths : Tensor or array, optional
            (n,) lengths, where X is padded; what lies beyond may be anything.

        Returns
        -------
        SoftDTWBarycenter
            Itself.

        Raises
        ------
        ValueError
            For shapes, lengths, weights or parameters out of range, NaN and infinity.
        TypeError
            For other types.
        ImportError
            For ``progress=True`` without tqdm.
        """
        distance, shards = self._check(), Shards(self.distributed)
        rng = np.random.default_rng(seed(self.random_state, shards))
        task = Task(series(X, lengths), sample_weight, distance, shards)
        found = self._search(task, _start(self.init, self.length, task, rng), rng)
        center = found.center.to(task.collection.dtype)
        self.barycenter_ = task.collection.result(center)
        self.loss_ = Problem(task, len(center)).loss(center)
        self.n_iter_, self.history_ = found.n_iter, found.history
        return self

    def _check(self) -> Distance:
        """What is minimised, from parameters that are all checked here."""
        _checks.choice(self.method, "method", METHODS)
        for name, least in (("max_iter", 0), ("batch_size", 1), ("length", 1)):
            if name == "max_iter" or getattr(self, name) is not None:
                integer(getattr(self, name), name, least)
        number(self.tol, "tol")
        number(self.step_size, "step_size")
        if isinstance(self.init, str):
            _checks.choice(self.init, "init", INITS)
        if self.method == "dba" and self.metric != "sqeuclidean":
            raise ValueError(f"method 'dba' needs metric 'sqeuclidean', got {self.metric!r}: try 'subgradient'")
        if self.method != "subgradient":
            check_batch_metric(self.batch_size, self.metric)
        gamma = number(self.gamma, "gamma")
        gamma = 0.0 if self.method in ("dba", "subgradient") else gamma
        return make_distance(gamma, self.metric, self.band, self.divergence)

    def _search(self, task: Task, start: Tensor, rng: np.random.Generator) -> Average:
        steps = counted(self.max_iter, "barycenter", self.progress)
        find = minimizer(self.method, task.distance)
        if self.method == "subgradient":
            return _passes(task, start, steps, self._descend, self.tol, _parts(task, self.batch_size, rng), False)
        if self.batch_size is None:
            return find(Problem(task, len(start)), start, steps, self.tol)

        def step(problem: Problem, center: Tensor, _: int) -> Average:
            return find(problem, center, range(MINIBATCH_ITERATIONS), 0.0)

        return _passes(task, start, steps, step, self.tol, _parts(task, self.batch_size, rng), True)

    def _descend(self, problem: Problem, center: Tensor, n: int) -> Average:
        return subgradient(problem, center, self.step_size * (1 - 0.9 * n / max(self.max_iter - 1, 1)))


def check_batch_metric(batch_size: int | None, metric: Metric) -> None:
    """ValueError for minibatches of a metric with a kink where frames are equal: an anchor would never be left."""
    if batch_size is not None and metric in ("euclidean", "manhattan"):
        raise ValueError(f"batch_size needs the metric 'sqeuclidean', 'cosine' or a smooth callable, got {metric!r}")


def make_distance(gamma: float, metric: Metric, band: float | None, divergence: bool) -> Distance:
    """The distance with these parameters, which are checked."""
    if not callable(metric):
        _checks.choice(metric, "metric of an average (if not callable)", METRICS)
    if not isinstance(divergence, bool):
        raise TypeError(f"divergence must be a bool, got {divergence!r}")
    _checks.band(band)
    return Distance(gamma, metric, band, divergence)


# ---------------------------------------------------------------- minibatches


def _passes(
    task: Task,
    start: Tensor,
    steps: Iterable[int],
    step: Callable[[Problem, Tensor, int], Average],
    tol: float,
    parts: Callable[[], Iterable[Tensor]],
    anchored: bool,
) -> Average:
    """A step for each part of the series, pass by pass.

    `anchored` ones are told what was seen before; the others may also raise the loss, which is not the end then.
    """
    center, seen, history = start.double(), 0.0, []
    for n in steps:
        loss = 0.0
        for indices in parts():
            problem = Problem(task, len(center), indices, Anchor(center, seen) if anchored and seen else None)
            if problem.weight:
                found = step(problem, center, n)
                center, seen, loss = found.center, seen + problem.weight, loss + found.history[0]
        history.append(loss)
        last = history[-2:] if anchored else sorted(history[-2:], reverse=True)
        if n and is_settled(last, task.floor, tol):
            break
    return Average(center, len(history), history)


def _parts(task: Task, batch_size: int | None, rng: np.random.Generator) -> Callable[[], Iterable[Tensor]]:
    """What to call at each pass for the numbers of the series in its minibatches."""
    if batch_size is None:
        return lambda: [torch.arange(len(task.collection))]
    order = own_generator(rng, task.shards)
    return lambda: minibatches(task.collection, batch_size, order, task.shards)


# ---------------------------------------------------------------- where to start


def _start(init: Any, length: int | None, task: Task, rng: np.random.Generator) -> Tensor:
    """The first series (K, D), in float64."""
    if not isinstance(init, str):
        return stretch(single(init, "init", task.collection).double(), length)
    if init == "medoid":
        return stretch(_medoid(task, rng).double(), length)
    length = _mean_length(task) if length is None else length
    return _noise(task, length, rng) if init == "random" else _mean(task, length)


def stretch(values: Tensor, length: int | None) -> Tensor:
    """The series (K, D) at another length, if one is given."""
    if length is None or length == len(values):
        return values
    return resample(Batch(values[None], None, torch.arange(1)), length)[0]


def _mean_length(task: Task) -> int:
    mine = torch.tensor([len(task.collection.frames), len(task.collection)])
    frames, n = task.shards.sum(mine).tolist()
    return max(1, round(frames / n))


def _mean(task: Task, length: int) -> Tensor:
    total = torch.zeros(length, task.collection.features, dtype=torch.float64)
    for batch in task.collection.batches(length):
        total += torch.einsum("b,bkd->kd", task.weights[batch.indices], resample(batch, length).double())
    return task.shards.sum(total) / task.shards.sum(task.weights.sum())


def _noise(task: Task, length: int, rng: np.random.Generator) -> Tensor:
    frames = task.collection.frames.double()
    n = task.shards.sum(torch.tensor(len(frames)))
    mean = task.shards.sum(frames.sum(0)) / n
    deviation = (task.shards.sum((frames - mean).square().sum(0)) / n).sqrt()
    return mean + deviation * torch.from_numpy(rng.standard_normal((length, task.collection.features)))


def _medoid(task: Task, rng: np.random.Generator) -> Tensor:
    size = len(task.collection)
    n = sum(task.shards.gather(size))
    tried = sorted(rng.permutation(n)[:MEDOID_CANDIDATES].tolist())
    candidates = task.shards.fetch(task.collection.__getitem__, size, tried)
    losses = [Problem(task, len(candidate)).loss(candidate) for candidate in candidates]
    return candidates[int(np.argmin(losses))]
