"""All pairs of two collections of series of any lengths: matrices of DTW and soft-DTW, nearest neighbours."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import _checks
from ._estimator import counted, integer
from ._ops import ops
from ._series import Batch, Series, same_features, series
from .cost import Metric
from .dtw import Options, Step, path_options
from .softdtw import SoftDTW

PAIRS = ("sqeuclidean", "euclidean", "manhattan", "cosine", "bce")
BOUNDED = ("sqeuclidean", "euclidean", "manhattan")  # the metrics that have a lower bound
CHUNK = 4096  # pairs of one call, so that a progress bar moves
BLOCK = 32  # candidates of one call in a search for neighbours, after which the limit is set anew
WINDOW_NUMBERS = 1 << 22  # numbers of frames inside windows, looked at together


# ---------------------------------------------------------------- matrices


def cdist_dtw(
    X: Any,
    Y: Any = None,
    metric: str = "sqeuclidean",
    *,
    band: float | None = None,
    itakura: float | None = None,
    steps: str | Sequence[Step] | None = None,
    step_weights: Sequence[float] | None = None,
    subsequence: bool = False,
    open_begin: bool = False,
    open_end: bool = False,
    progress: bool = False,
) -> Tensor:
    r"""Hard DTW of every series of X against every one of Y.

    .. math:: D_{pq} = \text{dtw}(X_p, Y_q)

    Parameters
    ----------
    X, Y : tensor, array or list
        Collections of P and Q series: a list of (N_p,) or (N_p, D), or a padded (P, N) or (P, N, D) without lengths.
        Without Y the pairs of X with itself; each pair is then computed once where the steps allow.
    metric : str, default "sqeuclidean"
        "sqeuclidean", "euclidean", "manhattan", "cosine" or "bce" (see `pairwise`).
    band, itakura, steps, step_weights, subsequence, open_begin, open_end
        As in `dtw`.
    progress : bool, default False
        Show a bar (tqdm, the extra ``[progress]``).

    Returns
    -------
    Tensor
        (P, Q), float64 if any series is, else float32; +inf where no path is left. Not differentiable: use `dtw`.

    Raises
    ------
    ValueError, TypeError
        For collections, metrics or options that do not fit; each message names the argument.

    Examples
    --------
    >>> import torch, torch_dalign as dalign
    >>> dalign.cdist_dtw([torch.tensor([0.0, 1.0]), torch.tensor([2.0])])
    tensor([[0., 5.],
            [5., 0.]])
    """
    first, second = _collections(X, Y, metric)
    options = path_options(band, itakura, steps, step_weights, open_begin or subsequence, open_end or subsequence)
    once = Y is None and _is_symmetric(options)
    result = torch.empty(len(first), len(second), dtype=first.dtype)
    chunks = list(_chunks(len(first), len(second), once))
    x, y = _whole(first), _whole(second)
    for k in counted(len(chunks), "pairs", progress):
        rows, columns = chunks[k]
        values = _values(x, y, metric, rows, columns, options)
        result[rows, columns] = values
        if once:
            result[columns, rows] = values
    return result


def cdist_soft_dtw(
    X: Any,
    Y: Any = None,
    gamma: float = 1.0,
    metric: Metric = "sqeuclidean",
    *,
    band: float | None = None,
    divergence: bool | str = False,
    step_weights: tuple[float, float, float] | None = None,
    progress: bool = False,
) -> Tensor:
    r"""soft-DTW, or its divergence, of every series of X against every one of Y.

    .. math:: D_{pq} = \text{soft-DTW}_\gamma(X_p, Y_q), \quad\text{or}\quad
              D_{pq} = s(X_p, Y_q) - \tfrac12 s(X_p, X_p) - \tfrac12 s(Y_q, Y_q)

    Parameters
    ----------
    X, Y, progress
        As in `cdist_dtw`.
    gamma, metric, band, divergence, step_weights
        As in `SoftDTW`.

    Returns
    -------
    Tensor
        (P, Q), float64 if any series is, else float32. Not differentiable: use `SoftDTW`.

    Raises
    ------
    ValueError, TypeError
        For collections or options that do not fit; each message names the argument.

    Examples
    --------
    >>> import torch, torch_dalign as dalign
    >>> X = torch.tensor([[0.0, 1.0, 2.0], [2.0, 1.0, 0.0]])
    >>> dalign.cdist_soft_dtw(X, gamma=0.01, divergence=True).round(decimals=2)
    tensor([[0., 8.],
            [8., 0.]])
    """
    loss = SoftDTW(gamma, metric, band, divergence, step_weights, reduction="none")
    first, second = _collections(X, Y, None)
    once = Y is None and (step_weights is None or step_weights[0] == step_weights[1])
    result = torch.empty(len(first), len(second), dtype=first.dtype)
    chunks = list(_chunks(len(first), len(second), once))
    for k in counted(len(chunks), "pairs", progress):
        rows, columns = chunks[k]
        x, y = first.batch(rows), second.batch(columns)
        with torch.no_grad():
            values = loss(x.values, y.values, x.lengths, y.lengths)
        result[rows, columns] = values
        if once:
            result[columns, rows] = values
    return result


# ---------------------------------------------------------------- neighbours


class Neighbors(NamedTuple):
    """The k nearest series of each query: their distances (Q, k), ascending, and their numbers (Q, k)."""

    distances: Tensor
    indices: Tensor


def dtw_neighbors(
    queries: Any,
    references: Any,
    k: int = 1,
    metric: str = "sqeuclidean",
    *,
    band: float | None = None,
    progress: bool = False,
) -> Neighbors:
    r"""The references nearest to each query by hard DTW.

    The same as sorting the rows of `cdist_dtw`, but most pairs need no DTW at all: references are tried in the order of
    a lower bound (LB_Keogh)

    .. math:: \text{lb}(x, y) = \sum_i \min_{z \in [L_i, U_i]} C(x_i, z)

    with L, U the smallest and largest numbers of y in the columns that the band leaves to row i, until the bound
    exceeds the k-th best distance; and the DTW of a pair stops once all its paths exceed that distance.

    Parameters
    ----------
    queries, references : tensor, array or list
        Collections as in `cdist_dtw`.
    k : int, default 1
        Neighbours of each query, at most as many as there are references.
    metric : str, default "sqeuclidean"
        As in `cdist_dtw`, but not "bce". "cosine" has no lower bound: every pair is tried.
    band : int or float, optional
        As in `dtw`. The narrower, the better the bound.
    progress : bool, default False
        Show a bar (tqdm, the extra ``[progress]``).

    Returns
    -------
    Neighbors
        distances (Q, k) and indices (Q, k) int64. Of equally near references the one with the smaller number is first.

    Raises
    ------
    ValueError, TypeError
        For collections or options that do not fit; each message names the argument.

    References
    ----------
    Keogh and Ratanamahatana, "Exact Indexing of Dynamic Time Warping", 2005.

    Examples
    --------
    >>> import torch, torch_dalign as dalign
    >>> references = [torch.tensor([0.0, 0.0, 1.0]), torch.tensor([2.0, 1.0])]
    >>> dalign.dtw_neighbors([torch.tensor([0.0, 1.0])], references).indices
    tensor([[0]])
    """
    _checks.choice(metric, "metric", PAIRS[:-1])  # costs below 0 or above a bound would break the search
    first, second = _collections(queries, references, metric, ("queries", "references"))
    integer(k, "k", 1)
    if k > len(second):
        raise ValueError(f"k must be at most the number of references, {len(second)}, got {k}")
    options = path_options(band, None, None, None, False, False)
    x, y = _whole(first), _whole(second)
    bounds = _Bounds(second, metric, options.band)
    found = [_search(q, x, y, k, metric, options, bounds(first[q])) for q in counted(len(first), "queries", progress)]
    return Neighbors(torch.stack([f.distances for f in found]), torch.stack([f.indices for f in found]))


def _search(q: int, x: Batch, y: Batch, k: int, metric: str, options: Options, bounds: Tensor) -> Neighbors:
    """One query: candidates by bound, block after block."""
    order = bounds.argsort(stable=True)
    best = Neighbors(torch.full((k,), torch.inf, dtype=x.values.dtype), torch.full((k,), len(order)))
    for start in range(0, len(order), BLOCK):
        block = order[start : start + BLOCK]
        limit = float(best.distances[-1]) * (1 + 4 * torch.finfo(best.distances.dtype).eps)  # of equals, all
        block = block[bounds[block] <= limit]
        if not len(block):
            break
        values = _values(x, y, metric, torch.full_like(block, q), block, options, limit)
        best = _merge(best, values, block)
    return best


def _merge(best: Neighbors, values: Tensor, indices: Tensor) -> Neighbors:
    """The k best of both, equal ones by their number."""
    all_values, all_indices = torch.cat((best.distances, values)), torch.cat((best.indices, indices))
    by_number = all_indices.argsort(stable=True)
    order = by_number[all_values[by_number].argsort(stable=True)][: len(best.indices)]
    return Neighbors(all_values[order], all_indices[order])


class _Bounds:
    """Lower bounds of a query against all references, whose envelopes are kept for one length of query at a time."""

    def __init__(self, references: Series, metric: str, band: float) -> None:
        self.references, self.metric, self.band = references, metric, band
        self.rows = -1
        self.groups: list[tuple[Tensor, Tensor, Tensor]] = []

    def __call__(self, query: Tensor) -> Tensor:
        """Bounds (R,)."""
        result = torch.zeros(len(self.references), dtype=query.dtype)
        if self.metric not in BOUNDED:
            return result
        if len(query) != self.rows:
            self.rows = len(query)
            self.groups = [self._envelope(at) for at in _same_length(self.references)]
        for at, low, high in self.groups:
            away = query - torch.minimum(torch.maximum(query, low), high)
            result[at] = self._cost(away).sum(1)
        # rounding may not lift a bound above the distance
        return result * (1 - 32 * torch.finfo(query.dtype).eps)

    def _cost(self, away: Tensor) -> Tensor:
        if self.metric == "manhattan":
            return away.abs().sum(2)
        squares = away.square().sum(2)
        return squares.sqrt() if self.metric == "euclidean" else squares

    def _envelope(self, at: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Smallest and largest numbers (r, n or 1, D) of references of one length in each row's columns."""
        values = self.references.batch(at).values
        if self.band < 0:
            return at, values.amin(1, keepdim=True), values.amax(1, keepdim=True)
        columns = _window_columns(self.rows, values.shape[1], self.band)
        size = max(1, WINDOW_NUMBERS // (columns.numel() * values.shape[2]))
        windows = [part[:, columns] for part in values.split(size)]
        return at, torch.cat([w.amin(2) for w in windows]), torch.cat([w.amax(2) for w in windows])


def _window_columns(n: int, m: int, band: float) -> Tensor:
    """Columns of each row inside the band (n, W), rows that have fewer repeat their last one."""
    rows, columns = torch.arange(n)[:, None], torch.arange(m)
    inside = (rows * (m - 1) - columns * (n - 1)).abs() <= band * (max(n, m) - 1)
    first, count = inside.int().argmax(1, keepdim=True), inside.sum(1, keepdim=True)
    return first + torch.minimum(torch.arange(int(count.max())), count - 1)


def _same_length(collection: Series) -> list[Tensor]:
    """The numbers of the series, by length."""
    return [(collection.lengths == length).nonzero().flatten() for length in collection.lengths.unique()]


# ---------------------------------------------------------------- what both need


def _collections(X: Any, Y: Any, metric: str | None, names: tuple[str, str] = ("X", "Y")) -> tuple[Series, Series]:
    """Both collections in one dtype; the second is the first where there is none."""
    if metric is not None:
        _checks.choice(metric, "metric", PAIRS)
    first = series(X, name=names[0])
    second = first if Y is None else series(Y, name=names[1])
    same_features(second.features, first.features, names[1])
    dtype = torch.promote_types(first.dtype, second.dtype)
    return _cast(first, dtype), _cast(second, dtype)


def _cast(collection: Series, dtype: torch.dtype) -> Series:
    return Series(collection.frames.to(dtype), collection.lengths, collection.univariate, collection.as_numpy)


def _whole(collection: Series) -> Batch:
    """All series, padded."""
    return collection.batch(torch.arange(len(collection)))


def _chunks(p: int, q: int, once: bool) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows and columns of all pairs, or of those with row <= column, some at a time."""
    rows = max(1, CHUNK // q)
    for start in range(0, p, rows):
        block = torch.cartesian_prod(torch.arange(start, min(start + rows, p)), torch.arange(q))
        for part in (block[block[:, 0] <= block[:, 1]] if once else block).split(CHUNK):
            if len(part):
                yield part[:, 0], part[:, 1]


def _values(
    x: Batch, y: Batch, metric: str, rows: Tensor, columns: Tensor, options: Options, limit: float = torch.inf
) -> Tensor:
    return ops.dtw_pairs(x.values, y.values, metric, rows, columns, x.lengths, y.lengths, *options, limit)


def _is_symmetric(options: Options) -> bool:
    """Whether dtw(x, y) = dtw(y, x)."""
    if options.free_start or options.free_end:
        return False
    pairs = zip(options.steps[::2], options.steps[1::2], options.step_weights, strict=True)
    weights: dict[Step, float] = {}
    for dx, dy, weight in pairs:
        weights[dx, dy] = min(weight, weights.get((dx, dy), weight))
    return all(weights.get((dy, dx)) == weight for (dx, dy), weight in weights.items())
