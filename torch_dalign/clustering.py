r"""k-means of series under DTW and soft-DTW.

.. math:: \min_{z_1 \dots z_k} \sum_i w_i \min_c d(z_c, X_i)

Two steps take turns: each series goes to its nearest center, and each center becomes the average of its series.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from typing_extensions import Self

from . import _checks
from ._averages import Anchor, Distance, Problem, Task, is_settled, minibatches, minimizer, own_generator
from ._estimator import Estimator, counted, integer, number, seed
from ._series import same_features, series
from ._shards import Shards
from .averaging import check_batch_metric, make_distance, stretch
from .cost import Metric

DISTANCES = ("softdtw", "dtw", "divergence")
INITS = ("k-means++", "random")


class SoftDTWKMeans(Estimator):
    r"""k-means clustering of series of any lengths.

    .. math:: \min_{z_1 \dots z_k} \sum_i w_i \min_c d(z_c, X_i)

    where d is soft-DTW, DTW, or soft-DTW's divergence.

    Parameters
    ----------
    n_clusters : int, default 3
        k, at most the number of series.
    gamma : float, default 1.0
        Smoothing of soft-DTW, in units of the metric; 0 is DTW.
    metric : str or callable, default "sqeuclidean"
        Cost of two frames, as in `SoftDTWBarycenter`.
    distance : str, default "softdtw"
        "softdtw", "dtw" (gamma plays no part then), or "divergence": :math:`s(z, X_i) - \tfrac12 s(z, z) - \tfrac12
        s(X_i, X_i)` with s = soft-DTW, which compares series of different spread or length more fairly for large gamma.
    band : int or float, optional
        Sakoe-Chiba band, as in `SoftDTW`.
    n_init : int, default 1
        So many runs from different first centers; the one with the least inertia counts.
    init : str, Tensor, array or list, default "k-means++"
        First centers: "k-means++" (series far from each other, drawn one after the other), "random" (any series), or
        the centers, in a form that `fit` takes.
    length : int, optional
        Length of the centers. Default: each keeps the length of the series that it started from.
    max_iter : int, default 50
        At most so many updates of the centers; passes over the series with `batch_size`.
    tol : float, default 1e-5
        An update that lowers the inertia by less than this share of it is the last. As soft-DTW may be about 0, the
        share is that of gamma times the sum of weights at least.
    max_iter_barycenter : int, default 20
        At most so many iterations for one update of a center, from where it is.
    batch_size : int, optional
        Update the centers after so many series (of each rank), drawn in a new order in every pass, as minibatch k-means
        does. Not with "euclidean" and "manhattan". Default: after all series; memory is bounded in either case.
    random_state : int, Generator or RandomState, optional
        Where random numbers come from: a seed, or a generator of NumPy or torch. None: torch's global generator.
    progress : bool, default False
        Show a bar. Needs tqdm: ``pip install torch-dalign[progress]``.
    distributed : bool or ProcessGroup, default False
        True: each process of torch.distributed (or of the group) calls `fit` with its own shard of the series. All get
        the same centers and the inertia of all series; `labels_` are those of the shard.

    Attributes
    ----------
    cluster_centers_ : Tensor or array, or list of them
        (k, K, D), or (k, K) if the series came without an axis of features; a list of k series if lengths differ.
        Arrays if the series came as arrays.
    labels_ : Tensor or array
        (n,) int64, the nearest center of each series.
    inertia_ : float
        :math:`\sum_i w_i \min_c d(z_c, X_i)`: the sum of the distances to the nearest center. They are not squared, as
        "sqeuclidean" costs are squares already. soft-DTW, and so the inertia, can be negative.
    n_iter_ : int
        Updates made in the run that counts (passes with `batch_size`).
    history_ : list of float
        The inertia at the start of that run and after each update. Of minibatches: the sum over a pass of the distances
        as they were when the series had their turn.

    Notes
    -----
    A center that no series is nearest to starts anew from the series that is worst off, in its distance to its center.

    Time: k forward passes of soft-DTW for each series and assignment, and about one forward and backward pass for each
    series and iteration of a barycenter. Memory: the series twice and k distances for each. float32 series are computed
    in float32, sums in float64. Results do not depend on the number of threads.

    References
    ----------
    Cuturi and Blondel, "Soft-DTW: a Differentiable Loss Function for Time-Series", ICML 2017, section 3.2.
    Arthur and Vassilvitskii, "k-means++: the advantages of careful seeding", SODA 2007.
    Sculley, "Web-scale k-means clustering", WWW 2010.

    Examples
    --------
    >>> import torch, torch_dalign as dalign
    >>> up, down = torch.linspace(0, 1, 20), torch.linspace(1, 0, 30)
    >>> kmeans = dalign.SoftDTWKMeans(2, gamma=0.01, random_state=0)
    >>> a, b, c, d = kmeans.fit_predict([up, down, up + 0.1, down - 0.1]).tolist()
    >>> a == c, b == d, a != b
    (True, True, True)
    """

    _kind = "clusterer"

    def __init__(
        self,
        n_clusters: int = 3,
        gamma: float = 1.0,
        metric: Metric = "sqeuclidean",
        *,
        distance: str = "softdtw",
        band: float | None = None,
        n_init: int = 1,
        init: Any = "k-means++",
        length: int | None = None,
        max_iter: int = 50,
        tol: float = 1e-5,
        max_iter_barycenter: int = 20,
        batch_size: int | None = None,
        random_state: Any = None,
        progress: bool = False,
        distributed: Any = False,
    ) -> None:
        self.n_clusters, self.gamma, self.metric = n_clusters, gamma, metric
        self.distance, self.band = distance, band
        self.n_init, self.init, self.length = n_init, init, length
        self.max_iter, self.tol, self.max_iter_barycenter = max_iter, tol, max_iter_barycenter
        self.batch_size = batch_size
        self.random_state, self.progress, self.distributed = random_state, progress, distributed

    # ------------------------------------------------------------ the methods of scikit-learn

    @torch.inference_mode(False)  # gradients are needed, whoever asks
    def fit(self, X: Any, y: Any = None, sample_weight: Any = None, lengths: Any = None) -> Self:
        """Find the centers.

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
        SoftDTWKMeans
            Itself.

        Raises
        ------
        ValueError
            For shapes, lengths, weights or parameters out of range, NaN and infinity, fewer series than clusters.
        TypeError
            For other types.
        ImportError
            For ``progress=True`` without tqdm.
        """
        distance, shards = self._check(), Shards(self.distributed)
        rng = np.random.default_rng(seed(self.random_state, shards))
        task = Task(series(X, lengths), sample_weight, distance, shards)
        lloyd = _Lloyd(task, rng, self)
        found = min((lloyd.run() for _ in range(self._runs())), key=lambda run: run.inertia)
        self.cluster_centers_ = _stacked([task.collection.result(center) for center in found.centers])
        self.labels_ = task.collection.array(found.labels)
        self.inertia_, self.n_iter_, self.history_ = found.inertia, found.n_iter, found.history
        return self

    def predict(self, X: Any, lengths: Any = None) -> Any:
        """The nearest center of each series, (n,) int64. `lengths` as in `fit`."""
        task, distances = self._distances(X, lengths)
        return task.collection.array(distances.argmin(1))

    def transform(self, X: Any, lengths: Any = None) -> Any:
        """The distance of each series to each center, (n, k). `lengths` as in `fit`."""
        task, distances = self._distances(X, lengths)
        return task.collection.array(distances)

    def score(self, X: Any, y: Any = None, sample_weight: Any = None, lengths: Any = None) -> float:
        """Minus the inertia of these series, with `distributed` of those of all ranks. Arguments as in `fit`."""
        task, distances = self._distances(X, lengths, sample_weight, Shards(self.distributed))
        return -float(task.shards.sum(task.weights @ distances.amin(1).double()))

    def fit_predict(self, X: Any, y: Any = None, sample_weight: Any = None, lengths: Any = None) -> Any:
        """`fit`, then `labels_`."""
        return self.fit(X, y, sample_weight, lengths).labels_

    def fit_transform(self, X: Any, y: Any = None, sample_weight: Any = None, lengths: Any = None) -> Any:
        """`fit`, then `transform`."""
        return self.fit(X, y, sample_weight, lengths).transform(X, lengths)

    # ------------------------------------------------------------

    def _check(self) -> Distance:
        """What is summed, from parameters that are all checked here."""
        _checks.choice(self.distance, "distance", DISTANCES)
        for name, least in (("n_clusters", 1), ("n_init", 1), ("max_iter", 0), ("max_iter_barycenter", 0)):
            integer(getattr(self, name), name, least)
        for name in ("length", "batch_size"):
            if getattr(self, name) is not None:
                integer(getattr(self, name), name, 1)
        number(self.tol, "tol")
        if isinstance(self.init, str):
            _checks.choice(self.init, "init", INITS)
        check_batch_metric(self.batch_size, self.metric)
        gamma = number(self.gamma, "gamma")
        gamma = 0.0 if self.distance == "dtw" else gamma
        return make_distance(gamma, self.metric, self.band, self.distance == "divergence")

    def _runs(self) -> int:
        """Runs from different starts: one where the start is given."""
        return self.n_init if isinstance(self.init, str) else 1

    def _distances(
        self, X: Any, lengths: Any, sample_weight: Any = None, shards: Shards | None = None
    ) -> tuple[Task, Tensor]:
        """A task of these series, and their distances (n, k) to the centers; without `shards` each rank for itself."""
        self._check_fitted("cluster_centers_")
        task = Task(series(X, lengths), sample_weight, self._check(), shards or Shards())
        found = series(self.cluster_centers_, name="cluster_centers_")
        same_features(task.collection.features, found.features, "X")
        result = task.collection.frames.new_empty(len(task.collection), len(found))
        for numbers, distances in _to_centers(task, [found[c] for c in range(len(found))]):
            result[numbers] = distances
        return task, result


def _stacked(centers: list[Any]) -> Any:
    """One array or tensor of centers, or the list if their lengths differ."""
    if len({len(center) for center in centers}) > 1:
        return centers
    return torch.stack(centers) if isinstance(centers[0], Tensor) else np.stack(centers)


def _to_centers(task: Task, centers: list[Tensor], indices: Tensor | None = None) -> Iterator[tuple[Tensor, Tensor]]:
    """Numbers (B,) of series and their distances (B, k) to the centers, until all (or these) have had their turn."""
    dtype, distance = task.collection.dtype, task.distance
    centers = [center.to(dtype) for center in centers]
    with torch.no_grad():
        theirs = [distance.of_itself(center) for center in centers]
    for batch in task.collection.batches(max(len(center) for center in centers), indices):
        own = task.own[batch.indices].to(dtype)
        with torch.no_grad():
            columns = [distance.of_center(center, batch) - its for center, its in zip(centers, theirs, strict=True)]
        yield batch.indices, torch.stack(columns, 1) - own[:, None]


# ---------------------------------------------------------------- one run


class _Found(NamedTuple):
    """What a run found."""

    centers: list[Tensor]
    labels: Tensor
    inertia: float
    n_iter: int
    history: list[float]


class _Lloyd:
    """The two steps in turns, over the series of all ranks."""

    def __init__(self, task: Task, rng: np.random.Generator, options: SoftDTWKMeans) -> None:
        self._task, self._collection, self._shards = task, task.collection, task.shards
        self._rng, self._order, self._options = rng, own_generator(rng, task.shards), options
        self._all_weights = task.shards.concatenate(task.weights)
        n = int((self._all_weights > 0).sum())
        if n < options.n_clusters:
            raise ValueError(f"n_clusters={options.n_clusters} needs as many series with a weight, got n_samples={n}")

    def run(self) -> _Found:
        """From first centers to the last."""
        centers = [stretch(center, self._options.length) for center in self._first_centers()]
        steps = counted(self._options.max_iter, "k-means", self._options.progress)
        if self._options.batch_size is None:
            return self._run_full(centers, steps)
        return self._run_in_minibatches(centers, steps, self._options.batch_size)

    def _run_full(self, centers: list[Tensor], steps: Iterable[int]) -> _Found:
        labels, nearest = self._assign(centers)
        history = [self._inertia(nearest)]
        for _ in steps:
            centers, labels, _ = self._fill(centers, labels, nearest)
            centers, _ = self._update(centers, labels, torch.arange(len(labels)), [0.0] * len(centers))
            labels, nearest = self._assign(centers)
            history.append(self._inertia(nearest))
            if is_settled(history, self._task.floor, self._options.tol):
                break
        return _Found(centers, labels, history[-1], len(history) - 1, history)

    def _run_in_minibatches(self, centers: list[Tensor], steps: Iterable[int], batch_size: int) -> _Found:
        seen = [0.0] * len(centers)  # weight of the series that each center was made of
        history: list[float] = []
        labels = torch.empty(len(self._collection), dtype=torch.int64)
        nearest = torch.empty(len(self._collection), dtype=torch.float64)
        for n in steps:
            for indices in minibatches(self._collection, batch_size, self._order, self._shards):
                self._assign_some(centers, indices, labels, nearest)
                centers, seen = self._update(centers, labels, indices, seen)
            history.append(self._inertia(nearest))
            if n and is_settled(history, self._task.floor, self._options.tol):
                break
            centers, labels, filled = self._fill(centers, labels, nearest)
            seen = [0.0 if c in filled else weight for c, weight in enumerate(seen)]
        labels, nearest = self._assign(centers)
        return _Found(centers, labels, self._inertia(nearest), len(history), history)

    def _inertia(self, nearest: Tensor) -> float:
        return float(self._shards.sum(self._task.weights @ nearest))

    # ------------------------------------------------------------ each series to its center

    def _assign(self, centers: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Number of the nearest center, and its distance in float64, of each series."""
        labels = torch.empty(len(self._collection), dtype=torch.int64)
        nearest = torch.empty(len(self._collection), dtype=torch.float64)
        self._assign_some(centers, None, labels, nearest)
        return labels, nearest

    def _assign_some(self, centers: list[Tensor], indices: Tensor | None, labels: Tensor, nearest: Tensor) -> None:
        for numbers, distances in _to_centers(self._task, centers, indices):
            best = distances.min(1)
            labels[numbers], nearest[numbers] = best.indices, best.values.double()

    def _distances_to(self, center: Tensor) -> Tensor:
        """Distance of every series of all ranks to one center, in float64."""
        mine = torch.empty(len(self._collection), dtype=torch.float64)
        for numbers, distances in _to_centers(self._task, [center]):
            mine[numbers] = distances[:, 0].double()
        return self._shards.concatenate(mine)

    # ------------------------------------------------------------ each center to its series

    def _update(
        self, centers: list[Tensor], labels: Tensor, indices: Tensor, seen: list[float]
    ) -> tuple[list[Tensor], list[float]]:
        """Each center as the average of its series among these and of what it has seen before; what it has seen now."""
        updated, weights = [], []
        for c, center in enumerate(centers):
            members = indices[labels[indices] == c]
            anchor = Anchor(center.double(), seen[c]) if seen[c] else None
            problem = Problem(self._task, len(center), members, anchor)
            updated.append(self._average(problem, center) if problem.weight else center)
            weights.append(seen[c] + problem.weight)
        return updated, weights

    def _average(self, problem: Problem, start: Tensor) -> Tensor:
        find = minimizer("auto", self._task.distance)
        found = find(problem, start, range(self._options.max_iter_barycenter), self._options.tol)
        return found.center.to(self._collection.dtype)

    # ------------------------------------------------------------ centers without series

    def _fill(self, centers: list[Tensor], labels: Tensor, nearest: Tensor) -> tuple[list[Tensor], Tensor, list[int]]:
        """Centers without series become series that are far from theirs, which are theirs then; and which they are."""
        sizes = self._shards.sum(torch.bincount(labels, self._task.weights, len(centers)))
        empty = (sizes == 0).nonzero().flatten().tolist()
        if not empty:
            return centers, labels, []
        centers, labels = list(centers), labels.clone()
        worst = self._worst(labels, nearest, len(empty))
        first = self._shards.first(len(labels))
        for c, chosen, center in zip(empty, worst, self._fetch(worst), strict=True):
            centers[c] = stretch(center, self._options.length)
            if 0 <= chosen - first < len(labels):
                labels[chosen - first] = c
        return centers, labels, empty

    def _worst(self, labels: Tensor, nearest: Tensor, count: int) -> list[int]:
        """Numbers of the series farthest from their center, of which none is the only one of its cluster."""
        labels, nearest = self._shards.concatenate(labels), self._shards.concatenate(nearest)
        left = torch.bincount(labels[self._all_weights > 0]).tolist()
        chosen: list[int] = []
        for i in nearest.argsort(descending=True, stable=True).tolist():
            if len(chosen) < count and self._all_weights[i] > 0 and left[labels[i]] > 1:
                left[labels[i]] -= 1
                chosen.append(i)
        return chosen

    # ------------------------------------------------------------ where to start

    def _fetch(self, numbers: list[int]) -> list[Tensor]:
        return self._shards.fetch(self._collection.__getitem__, len(self._collection), numbers)

    def _first_centers(self) -> list[Tensor]:
        init = self._options.init
        if not isinstance(init, str):
            return self._given_centers(init)
        if init == "k-means++":
            return self._plus_plus()
        candidates = np.flatnonzero(self._all_weights.numpy() > 0)
        return self._fetch(self._rng.permutation(candidates)[: self._options.n_clusters].tolist())

    def _given_centers(self, init: Any) -> list[Tensor]:
        given = series(init, name="init")
        if len(given) != self._options.n_clusters:
            raise ValueError(f"init must hold n_clusters={self._options.n_clusters} series, got {len(given)}")
        same_features(given.features, self._collection.features, "init")
        return [given[c].to(self._collection.dtype) for c in range(len(given))]

    def _plus_plus(self) -> list[Tensor]:
        """Series drawn in proportion to their distance to the nearest one drawn before, the best of a few each time."""
        weight = self._all_weights.numpy()
        chosen = self._draw(weight, 1)
        centers = self._fetch(chosen)
        nearest = self._distances_to(centers[0])
        while len(centers) < self._options.n_clusters:
            gap = weight * (nearest - nearest.min()).numpy()  # soft-DTW may be negative
            gap[chosen] = 0
            left = np.where(np.isin(np.arange(len(weight)), chosen), 0, weight)
            tried = self._draw(gap if gap.any() else left, 2 + int(np.log(self._options.n_clusters)))
            candidates = self._fetch(tried)
            outcomes = [torch.minimum(nearest, self._distances_to(center)) for center in candidates]
            best = int(np.argmin([float(self._all_weights @ outcome) for outcome in outcomes]))
            chosen.append(tried[best])
            centers.append(candidates[best])
            nearest = outcomes[best]
        return centers

    def _draw(self, odds: np.ndarray, count: int) -> list[int]:
        drawn: list[int] = self._rng.choice(len(odds), count, p=odds / odds.sum()).tolist()
        return drawn
