r"""Losses of a known alignment path, and what can be read off the distribution of paths of soft-DTW.

Soft-DTW defines a Gibbs distribution over the paths :math:`\pi` of a lattice of costs C,

.. math:: p(\pi) = e^{-(\langle \pi, C \rangle - \text{soft-DTW}_\gamma(C)) / \gamma}.

`PathCost` is :math:`\langle \pi, C \rangle`, `PathNLL` :math:`-\log p(\pi)`, `sample_paths` draws from p, and
`expected_warp` gives mean and deviation of the time of y for each frame of x.
"""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from . import _checks
from ._modules import SmoothedLoss, reduced
from ._paths import Cells, PathLike, Sizes, check_ends, costs_along, read, total, weights_along
from .cost import Metric, check_metric, lattice_or_features
from .ddtw import THREE_STEPS
from .dtw import Step, _steps
from .softdtw import _Problem as _SoftProblem
from .softdtw import _problem as _soft_problem

# ---------------------------------------------------------------- functions of a cost lattice


def path_cost(
    cost: Tensor,
    path: PathLike,
    *,
    path_lengths: Tensor | None = None,
    breakpoints: bool = False,
    steps: str | Sequence[Step] | None = None,
    step_weights: Sequence[float] | None = None,
    x_lengths: Tensor | None = None,
    y_lengths: Tensor | None = None,
) -> Tensor:
    """Cost along given paths: ``PathCost("precomputed", ..., reduction="none")``.

    Parameters
    ----------
    cost : Tensor
        (B, N, M), float32 or float64; float16 and bfloat16 are computed in float32.
    path, path_lengths, x_lengths, y_lengths
        As `PathCost` takes them in its call.
    breakpoints, steps, step_weights
        As in `PathCost`.

    Returns
    -------
    Tensor
        (B,); the gradient with respect to the costs is the weight of each cell of the path.

    Raises
    ------
    ValueError, TypeError
        As `PathCost`.

    Examples
    --------
    >>> import torch
    >>> from torch_dalign import functional
    >>> cost = torch.tensor([[[0.0, 1.0], [2.0, 3.0]]])
    >>> functional.path_cost(cost, torch.tensor([[0, 0], [1, 0], [1, 1]]))
    tensor([5.])
    """
    return _path_cost(
        cost, None, "precomputed", path, path_lengths, steps, step_weights, breakpoints, x_lengths, y_lengths
    )


def path_nll(
    cost: Tensor,
    path: PathLike,
    gamma: float | Tensor = 1.0,
    *,
    path_lengths: Tensor | None = None,
    breakpoints: bool = False,
    band: float | None = None,
    step_weights: tuple[float, float, float] | None = None,
    x_lengths: Tensor | None = None,
    y_lengths: Tensor | None = None,
) -> Tensor:
    """Negative log-likelihood of given paths: ``PathNLL(gamma, "precomputed", ..., reduction="none")``.

    Parameters
    ----------
    cost : Tensor
        (B, N, M), float32 or float64; float16 and bfloat16 are computed in float32. A cell of cost +inf is blocked.
    path, path_lengths, x_lengths, y_lengths
        As `PathNLL` takes them in its call.
    gamma, band, step_weights, breakpoints
        As in `PathNLL`.

    Returns
    -------
    Tensor
        (B,), in nats.

    Raises
    ------
    ValueError, TypeError
        As `PathNLL`.

    Examples
    --------
    >>> import torch
    >>> from torch_dalign import functional
    >>> diagonal = torch.tensor([[0, 0], [1, 1]])
    >>> functional.path_nll(torch.zeros(1, 2, 2), diagonal).exp()  # one of three equally likely paths
    tensor([3.])
    """
    problem = _soft_problem(cost, None, "precomputed", gamma, x_lengths, y_lengths, step_weights, band)
    return _path_nll(problem, path, path_lengths, breakpoints)


# ---------------------------------------------------------------- the losses


class PathCost(nn.Module):
    r"""Cost of the features along a given path: training "along ground truth".

    .. math:: \text{loss}(x, y, \pi) = \sum_{(i,j) \in \pi} w_{ij}\, C(x_i, y_j)

    where :math:`w_{ij}` is the weight of the step into the cell and 1 in the first cell. Along the best path it is
    `dtw`. Costs are computed for the cells of the path alone, O(L D) in time and memory (a callable metric makes the
    lattice).

    Parameters
    ----------
    metric : str or callable, default "sqeuclidean"
        A metric of `pairwise`, a callable ``metric(x, y) -> cost`` (B, N, M), or "precomputed": the module is then
        called as ``loss(cost, path=path)``.
    reduction : str, default "mean"
        "mean" or "sum" over the batch, or "none".
    breakpoints : bool, default False
        The paths are anchors (i, j) in frames, possibly fractions, which are rounded to the nearest cell (halves up)
        and joined by straight lines. A line from (i, j) to (i', j') adds :math:`L = \max(i' - i, j' - j)` cells: the
        k-th, k = 1 ... L, is :math:`(\lfloor i + k (i' - i) / L + \tfrac12 \rfloor,
        \lfloor j + k (j' - j) / L + \tfrac12 \rfloor)`. So it visits every frame of the sequence that advances more
        exactly once, by diagonal steps and steps along that sequence. Anchors may be repeated.
    steps : str or sequence of pairs, optional
        The steps a path may take, as in `dtw`. Default: (1, 0), (0, 1), (1, 1).
    step_weights : sequence of floats, optional
        A weight >= 0 for each step, as in `dtw`; a step of weight inf is not one that a path may take.

    Notes
    -----
    Call: ``loss(x, y, path, path_lengths=None, x_lengths=None, y_lengths=None)``.

    * x (B, N, D), y (B, M, D), x_lengths, y_lengths (B,), as `SoftDTW` takes them.
    * path: a list of B integer tensors (L, 2) of cells (i, j) = (frame of x, frame of y), 0-based, as `dtw_path` gives
      them; or a tensor (B, L, 2) with path_lengths (B,), or padded with (-1, -1) behind the ends; or a tensor (L, 2)
      for all items. A path may start and end anywhere in the item's lattice.
    * Output: a scalar, or (B,) with reduction "none". +inf with gradient 0 for an item whose path visits a cell of cost
      +inf.
    * Differentiable twice in x and y (the second time in eager mode only).

    Raises
    ------
    ValueError
        For a path that is empty, leaves the lattice, goes back, or jumps; for shapes, lengths or options out of range.
    TypeError
        For other dtypes, or a missing path.

    References
    ----------
    "Along GT" in Xu, Garg, Milford and Gould, "Deep Declarative Dynamic Time Warping for End-to-End Learning of
    Alignment Paths", ICLR 2023, Section 7.

    Examples
    --------
    >>> import torch, torch_dalign as dalign
    >>> x, y = torch.tensor([[[0.0], [1.0], [3.0]]]), torch.tensor([[[0.0], [2.0]]])
    >>> dalign.PathCost()(x, y, [torch.tensor([[0, 0], [1, 1], [2, 1]])])
    tensor(2.)
    >>> dalign.PathCost(breakpoints=True)(x, y, torch.tensor([[0, 0], [2, 1]]))  # through (1, 1)
    tensor(2.)
    """

    def __init__(
        self,
        metric: Metric = "sqeuclidean",
        reduction: str = "mean",
        *,
        breakpoints: bool = False,
        steps: str | Sequence[Step] | None = None,
        step_weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        check_metric(metric)
        _checks.choice(reduction, "reduction", _checks.REDUCTIONS)
        _steps(steps, step_weights)
        self.metric, self.reduction, self.breakpoints = metric, reduction, bool(breakpoints)
        self.steps, self.step_weights = steps, step_weights

    def forward(
        self,
        x: Tensor,
        y: Tensor | None = None,
        path: PathLike | None = None,
        path_lengths: Tensor | None = None,
        x_lengths: Tensor | None = None,
        y_lengths: Tensor | None = None,
    ) -> Tensor:
        """The loss; ``x`` is the cost lattice for metric "precomputed"."""
        along = _path_cost(
            x, y, self.metric, path, path_lengths, self.steps, self.step_weights, self.breakpoints, x_lengths, y_lengths
        )
        return reduced(along, self.reduction)

    def extra_repr(self) -> str:
        """The metric, and what differs from the defaults."""
        given = [f"{k}={getattr(self, k)!r}" for k in ("steps", "step_weights") if getattr(self, k) is not None]
        return ", ".join([*_usual_repr(self), *given])


class PathNLL(SmoothedLoss):
    r"""Negative log-likelihood of a given path under the distribution of paths of soft-DTW.

    .. math:: \text{loss}(x, y, \pi) = -\log p(\pi) =
              \frac{1}{\gamma} \Big(\sum_{(i,j) \in \pi} w_{ij}\, C(x_i, y_j) - \text{soft-DTW}_\gamma(x, y)\Big) \ge 0

    `PathCost` pulls the features along the path together, and is 0 as well when all features are equal; here the
    soft-DTW term pushes those of all other paths apart, so that the loss is small only where the true path is the
    likely one. Its gradient with respect to the costs is (path - expected alignment) / gamma. Costs are fused: from
    features in, no lattice is stored.

    Parameters
    ----------
    gamma : float, Tensor or nn.Parameter, default 1.0
        Temperature > 0. A tensor that requires grad or a parameter is learned; unlike the value of soft-DTW a
        likelihood has a best gamma.
    metric : str or callable, default "sqeuclidean"
        As in `SoftDTW`; for "precomputed" the module is called as ``loss(cost, path=path)``.
    band : int or float, optional
        Sakoe-Chiba band as in `SoftDTW`; a path that leaves it has probability 0.
    step_weights : tuple of three floats, optional
        Weights >= 0 of the steps down (1, 0), right (0, 1), diagonal (1, 1); inf blocks a step. Default: ones.
    reduction : str, default "mean"
        "mean" or "sum" over the batch, or "none".
    breakpoints : bool, default False
        The paths are anchors that straight lines join, as in `PathCost`.

    Notes
    -----
    Call: ``loss(x, y, path, path_lengths=None, x_lengths=None, y_lengths=None)``.

    * All arguments as `PathCost` takes them; a path must run from the first to the last corner of the item's lattice by
      the three steps.
    * Output: a scalar, or (B,) with reduction "none", in nats. A path of probability 0 (out of the band, by a blocked
      step, through a cell of cost +inf) has loss +inf and gradient 0; an item with a NaN has loss and gradient NaN. It
      is a difference of two sums of costs: >= 0 up to their rounding over gamma.
    * Differentiable twice in x, y and gamma; the second time in eager mode only, and then lattices are stored.

    Raises
    ------
    ValueError
        For a path that is empty, leaves the lattice, goes back, jumps, or does not run from corner to corner; for
        shapes, lengths or options out of range.
    TypeError
        For other dtypes, or a missing path.

    References
    ----------
    Cuturi and Blondel, "Soft-DTW: a Differentiable Loss Function for Time-Series", ICML 2017, for the distribution.

    Examples
    --------
    >>> import torch, torch_dalign as dalign
    >>> x = torch.tensor([[[0.0], [1.0], [3.0]]], requires_grad=True)
    >>> y = torch.tensor([[[0.0], [1.0]]])
    >>> loss = dalign.PathNLL(gamma=0.5)
    >>> truth = torch.tensor([[0, 0], [1, 1], [2, 1]])
    >>> (-loss(x, y, truth)).exp()  # the probability of the path
    tensor(0.7112, grad_fn=<ExpBackward0>)
    """

    def __init__(
        self,
        gamma: float | Tensor = 1.0,
        metric: Metric = "sqeuclidean",
        band: float | None = None,
        step_weights: tuple[float, float, float] | None = None,
        reduction: str = "mean",
        *,
        breakpoints: bool = False,
    ) -> None:
        super().__init__(gamma, reduction)
        check_metric(metric)
        _checks.band(band)
        _checks.step_weights(step_weights)
        self.metric, self.band, self.step_weights, self.breakpoints = metric, band, step_weights, bool(breakpoints)

    def forward(
        self,
        x: Tensor,
        y: Tensor | None = None,
        path: PathLike | None = None,
        path_lengths: Tensor | None = None,
        x_lengths: Tensor | None = None,
        y_lengths: Tensor | None = None,
    ) -> Tensor:
        """The loss; ``x`` is the cost lattice for metric "precomputed"."""
        problem = _soft_problem(x, y, self.metric, self.gamma, x_lengths, y_lengths, self.step_weights, self.band)
        return self._reduce(_path_nll(problem, path, path_lengths, self.breakpoints))

    def extra_repr(self) -> str:
        """Gamma, the metric, and what differs from the defaults."""
        given = [f"{k}={getattr(self, k)!r}" for k in ("band", "step_weights") if getattr(self, k) is not None]
        return ", ".join([self._gamma_repr(), *_usual_repr(self), *given])


def _usual_repr(loss: PathCost | PathNLL) -> list[str]:
    metric = loss.metric
    name = getattr(metric, "__name__", repr(metric)) if callable(metric) else repr(metric)
    parts = [f"metric={name}"]
    parts += [f"reduction={loss.reduction!r}"] if loss.reduction != "mean" else []
    return [*parts, "breakpoints=True"] if loss.breakpoints else parts


def _given(path: PathLike | None) -> PathLike:
    if path is None:
        raise TypeError("path is missing: loss(x, y, path), or loss(cost, path=path) for metric 'precomputed'")
    return path


def _path_cost(
    x: Tensor,
    y: Tensor | None,
    metric: Metric,
    path: PathLike | None,
    path_lengths: Tensor | None,
    steps: str | Sequence[Step] | None,
    step_weights: Sequence[float] | None,
    breakpoints: bool,
    x_lengths: Tensor | None,
    y_lengths: Tensor | None,
) -> Tensor:
    pairs, weights = _steps(steps, step_weights)
    given = _given(path)
    x, y, name = lattice_or_features(x, y, metric)
    sizes = _sizes(x, y, x_lengths, y_lengths)
    if y is not None and name == "nll":
        _checks.label_values(y, x.shape[2], sizes.columns)
    cells = read(given, path_lengths, sizes, pairs, breakpoints)
    return total(costs_along(x, y, name, cells, sizes), weights_along(cells, pairs, weights))


def _path_nll(problem: _SoftProblem, path: PathLike | None, path_lengths: Tensor | None, breakpoints: bool) -> Tensor:
    options = problem.options
    sizes = _sizes(problem.x, problem.y, options.x_lengths, options.y_lengths)
    cells = read(_given(path), path_lengths, sizes, THREE_STEPS, breakpoints)
    check_ends(cells, sizes)
    weights = weights_along(cells, THREE_STEPS, options.step_weights)
    weights = weights.masked_fill(cells.inside & ~_in_band(cells, sizes, options.band), torch.inf)
    along = total(costs_along(problem.x, problem.y, problem.metric, cells, sizes), weights)
    value = problem.value()
    impossible = (along == torch.inf) & ~value.isnan()
    excess = along.masked_fill(impossible, 0) - value.masked_fill(impossible, 0)
    return (excess / options.gamma.to(value.dtype)).masked_fill(impossible, torch.inf)


def _sizes(x: Tensor, y: Tensor | None, x_lengths: Tensor | None, y_lengths: Tensor | None) -> Sizes:
    batch, n = x.shape[:2]
    m = x.shape[2] if y is None else y.shape[1]
    x_lengths = _checks.lengths(x_lengths, "x_lengths", batch, n)
    y_lengths = _checks.lengths(_checks.apart(y_lengths, x_lengths), "y_lengths", batch, m)
    return Sizes.of(batch, (n, m), x_lengths, y_lengths)


def _in_band(path: Cells, sizes: Sizes, band: float) -> Tensor:
    """(B, L): |i (M - 1) - j (N - 1)| <= band max(N - 1, M - 1) with the item's own lengths."""
    rows, columns = path.cells.unbind(2)
    return _near_diagonal(rows, columns, (sizes.rows - 1)[:, None], (sizes.columns - 1)[:, None], band)


def _near_diagonal(i: Tensor, j: Tensor, last_i: Tensor, last_j: Tensor, band: float) -> Tensor:
    apart = (i * last_j - j * last_i).abs()
    return (apart <= band * torch.maximum(last_i, last_j)) if band >= 0 else torch.ones_like(apart, dtype=torch.bool)


# ---------------------------------------------------------------- expected times


class ExpectedWarp(NamedTuple):
    """Mean and standard deviation of the time of y for each frame of x, (B, N) each."""

    mean: Tensor
    deviation: Tensor


def expected_warp(
    alignment: Tensor,
    y_times: Tensor | None = None,
    *,
    x_lengths: Tensor | None = None,
    y_lengths: Tensor | None = None,
) -> ExpectedWarp:
    r"""Time of y to which each frame of x is aligned: mean and standard deviation.

    .. math:: p_{ij} = \frac{H_{ij}}{\sum_k H_{ik}}, \quad \mu_i = \sum_j p_{ij} t_j, \quad
              \sigma_i = \Big(\sum_j p_{ij} (t_j - \mu_i)^2\Big)^{1/2}

    A loss on :math:`\mu` is a loss on predicted times themselves (see `torch_dalign.metrics.time_error`). A row of H is
    the expected number of visits of a path, so a cell counts as often as the path is likely to visit it.

    Parameters
    ----------
    alignment : Tensor
        H (B, N, M) >= 0, from ``SoftDTW.alignment``, ``DDTW.alignment`` or `functional.alignment`. With step weights H
        is the weighted number of visits.
    y_times : Tensor, optional
        Times of the frames of y, (M,) or (B, M), in any unit. Default: 0, 1, 2, ... frames. May require grad.
    x_lengths, y_lengths : Tensor, optional
        (B,) integers. What lies beyond is never read. Beyond x_lengths both results repeat their last value, without
        gradient.

    Returns
    -------
    ExpectedWarp
        The tuple (mean, deviation), (B, N) each, in the unit of y_times and the dtype of the alignment. NaN with
        gradient 0 for a row without mass (no path visits it). Differentiable (the deviation, where it is 0, with
        gradient 0).

    Raises
    ------
    ValueError, TypeError
        For shapes and lengths out of range, and other dtypes.

    Examples
    --------
    >>> import torch, torch_dalign as dalign
    >>> x = torch.tensor([[[0.0], [0.5], [1.0]]])
    >>> y = torch.tensor([[[0.0], [1.0]]])
    >>> alignment = dalign.SoftDTW(gamma=0.1).alignment(x, y)
    >>> dalign.expected_warp(alignment, y_times=torch.tensor([0.0, 0.2])).mean.round(decimals=2)
    tensor([[0.0000, 0.1000, 0.2000]])
    """
    mass = _checks.lattice(alignment, "alignment")
    batch, n, m = mass.shape
    rows = _checks.lengths(x_lengths, "x_lengths", batch, n)
    columns = _checks.lengths(_checks.apart(y_lengths, x_lengths), "y_lengths", batch, m)
    times = _frame_times(y_times, "y_times", batch, m, mass)
    if columns is not None:
        beyond = _checks.padding(m, columns)
        mass, times = mass.masked_fill(beyond[:, None], 0), times.masked_fill(beyond, 0)
    beyond_rows = torch.zeros(batch, n, dtype=torch.bool) if rows is None else _checks.padding(n, rows)
    warp = _moments(mass.masked_fill(beyond_rows[..., None], 0), times)
    return warp if rows is None else ExpectedWarp(*(_repeat_last(v, rows, beyond_rows) for v in warp))


def _moments(mass: Tensor, times: Tensor) -> ExpectedWarp:
    weight = mass.sum(2)
    empty = weight == 0
    share = mass / weight.masked_fill(empty, 1)[..., None]
    mean = (share @ times[..., None])[..., 0]
    variance = (share * (times[:, None] - mean[..., None]).square()).sum(2)
    spread = variance > 0
    deviation = torch.where(spread, torch.where(spread, variance, 1).sqrt(), variance.detach())  # NaN stays NaN
    return ExpectedWarp(mean.masked_fill(empty, torch.nan), deviation.masked_fill(empty, torch.nan))


def _repeat_last(values: Tensor, lengths: Tensor, beyond: Tensor) -> Tensor:
    return torch.where(beyond, values.detach().gather(1, lengths[:, None] - 1), values)


def _frame_times(times: Tensor | None, name: str, batch: int, frames: int, like: Tensor) -> Tensor:
    """(B, frames) in the dtype of `like`."""
    if times is None:
        return torch.arange(frames, dtype=like.dtype).expand(batch, -1)
    checked = _checks.real(times, name)
    if checked.shape not in ((frames,), (batch, frames)):
        raise ValueError(f"{name} must have shape ({frames},) or ({batch}, {frames}), got {tuple(checked.shape)}")
    return checked.to(like.dtype).expand(batch, -1)


# ---------------------------------------------------------------- sampling


def sample_paths(
    cost: Tensor,
    n: int,
    gamma: float | Tensor = 1.0,
    *,
    generator: torch.Generator | None = None,
    x_lengths: Tensor | None = None,
    y_lengths: Tensor | None = None,
    band: float | None = None,
    step_weights: tuple[float, float, float] | None = None,
    padded: bool = False,
) -> list[list[Tensor]] | tuple[Tensor, Tensor]:
    r"""Independent paths drawn from the distribution that soft-DTW defines.

    .. math:: p(\pi) = e^{-(\langle \pi, C \rangle - \text{soft-DTW}_\gamma(C)) / \gamma}

    The draws are exact: from the last corner backwards the step k into a cell is taken with probability
    :math:`e^{-(R_{(i,j) - \text{step}_k} + w_k C_{ij} - R_{ij}) / \gamma}`, R being soft-DTW's accumulated costs. The
    frequency with which a cell is visited tends to `functional.alignment` (with unit step weights).

    Parameters
    ----------
    cost : Tensor
        (B, N, M), float32 or float64, computed in float64. A cell of cost +inf is blocked.
    n : int
        Number of paths per item, >= 1.
    gamma, x_lengths, y_lengths, band, step_weights
        As in `functional.soft_dtw`.
    generator : torch.Generator, optional
        Source of randomness, on the CPU; default: torch's own. The same state, costs and n give the same paths.
    padded : bool, default False
        Whether the paths come as one tensor.

    Returns
    -------
    list of lists of Tensor
        For each item n tensors (L, 2), int64: the cells (i, j) from the first to the last; (0, 2) where no path is left
        or an allowed cost is NaN or -inf.
    (Tensor, Tensor)
        If padded: paths (B, n, N + M - 1, 2), -1 behind their ends, and lengths (B, n). ``paths[:, k]`` with
        ``lengths[:, k]`` is what `PathCost` takes.

    Raises
    ------
    ValueError, TypeError
        For shapes, lengths and options out of range, and other dtypes.

    Notes
    -----
    2 (N + M) rounds of vectorised operations, over the anti-diagonals of the batch and then over the samples. Memory:
    about 30 bytes for each of the B N M cells, and 70 for each of the B n (N + M) cells of paths. Not differentiable:
    the score-function gradient goes through `functional.path_nll`.

    Examples
    --------
    >>> import torch, torch_dalign as dalign
    >>> cost = torch.tensor([[[0.0, 9.0], [9.0, 0.0]]])
    >>> dalign.sample_paths(cost, 2, gamma=0.1)[0]
    [tensor([[0, 0],
            [1, 1]]), tensor([[0, 0],
            [1, 1]])]
    """
    lattice = _checks.lattice(cost).detach()
    if isinstance(n, bool) or not isinstance(n, numbers.Integral):
        raise TypeError(f"n must be a whole number, got {type(n).__name__}")
    if n < 1:
        raise ValueError(f"n must be >= 1, got {n}")
    if generator is not None and not isinstance(generator, torch.Generator):
        raise TypeError(f"generator must be a torch.Generator or None, got {type(generator).__name__}")
    temperature, weights = _checks.gamma(gamma).item(), _checks.step_weights(step_weights)
    sizes = _sizes(lattice, None, x_lengths, y_lengths)
    costs = _open_costs(lattice, sizes, _checks.band(band))
    reached = _accumulated(costs, temperature, weights)
    paths, lengths = _walk_back(costs, reached, sizes, int(n), temperature, weights, generator)
    if padded:
        return paths, lengths
    return [[p[:length] for p, length in zip(*item, strict=True)] for item in zip(paths, lengths.tolist(), strict=True)]


def _open_costs(lattice: Tensor, sizes: Sizes, band: float) -> Tensor:
    """Costs in float64, +inf out of the band and beyond the lengths; all +inf where one that is left is invalid."""
    i, j = torch.arange(sizes.shape[0])[:, None], torch.arange(sizes.shape[1])
    rows, columns = sizes.rows[:, None, None], sizes.columns[:, None, None]
    is_open = (i < rows) & (j < columns) & _near_diagonal(i, j, rows - 1, columns - 1, band)
    costs = lattice.to(torch.float64, memory_format=torch.contiguous_format).masked_fill(~is_open, torch.inf)
    invalid = (costs.isnan() | (costs == -torch.inf)).flatten(1).any(1)
    return costs.masked_fill_(invalid[:, None, None], torch.inf)


def _accumulated(costs: Tensor, gamma: float, weights: Sequence[float]) -> Tensor:
    """R behind a border of +inf above and to the left, (B, N + 1, M + 1), anti-diagonal by anti-diagonal."""
    batch, n, m = costs.shape
    total_costs = costs.new_full((batch, n + 1, m + 1), torch.inf)
    total_costs[:, 1, 1] = costs[:, 0, 0]
    for d in range(1, n + m - 1):
        top = max(0, d - m + 1)
        count = min(n - 1, d) - top + 1
        here = _antidiagonal(costs, top, d, count)
        came = torch.stack(
            [
                _antidiagonal(total_costs, top + 1 - down, d + 2 - down - right, count) + _weighted(weight, here)
                for (down, right), weight in zip(THREE_STEPS, weights, strict=True)
            ]
        )
        _antidiagonal(total_costs, top + 1, d + 2, count).copy_(-gamma * torch.logsumexp(-came / gamma, 0))
    return total_costs


def _antidiagonal(lattice: Tensor, top: int, d: int, count: int) -> Tensor:
    """View (B, count) of the cells (i, d - i) of a contiguous lattice, i = top, top + 1, ..."""
    batch, n, m = lattice.shape
    return lattice.as_strided((batch, count), (n * m, max(m - 1, 1)), lattice.storage_offset() + d + top * (m - 1))


def _weighted(weight: float, costs: Tensor) -> Tensor:
    """weight * costs, where either infinity blocks (also 0 * inf)."""
    return torch.where(costs == torch.inf, torch.inf, costs * weight) if weight < torch.inf else costs + torch.inf


def _walk_back(
    costs: Tensor,
    reached: Tensor,
    sizes: Sizes,
    n: int,
    gamma: float,
    weights: Sequence[float],
    generator: torch.Generator | None,
) -> tuple[Tensor, Tensor]:
    """Paths (B, n, N + M - 1, 2), -1 behind their ends, and lengths (B, n)."""
    batch, longest = costs.shape[0], sum(sizes.shape) - 1
    width = reached.shape[2]
    steps = torch.tensor(THREE_STEPS)
    offsets = torch.tensor([width + 1 - down * width - right for down, right in THREE_STEPS])
    flat_costs, flat_reached = costs.flatten(1), reached.flatten(1)
    cells = torch.stack((sizes.rows, sizes.columns), 1)[:, None].expand(-1, n, -1) - 1
    found = flat_reached.gather(1, (sizes.rows * width + sizes.columns)[:, None]) < torch.inf  # (B, 1)
    lengths = found.expand(-1, n).long()
    cells = cells * found[..., None]
    backwards = [cells]
    while (moving := cells.any(2)).any():
        i, j = cells.unbind(2)
        here = flat_costs.gather(1, i * sizes.shape[1] + j)
        before = flat_reached.gather(1, (i * width + j)[..., None].add(offsets).flatten(1)).view(batch, n, 3)
        came = before + torch.stack([_weighted(weight, here) for weight in weights], 2)
        chosen = _draw(torch.softmax(-came / gamma, 2), generator)
        cells = cells - steps[chosen] * moving[..., None]
        lengths = lengths + moving
        backwards.append(cells)
    return _forwards(torch.stack(backwards, 2), lengths, longest), lengths


def _draw(probabilities: Tensor, generator: torch.Generator | None) -> Tensor:
    """One index per row: the race of exponential clocks of these rates, in which a rate of 0 never wins."""
    clocks = torch.empty_like(probabilities).exponential_(generator=generator)
    return (probabilities / clocks).argmax(-1)


def _forwards(backwards: Tensor, lengths: Tensor, longest: int) -> Tensor:
    """Paths from their first cells on, -1 behind their ends."""
    position = torch.arange(longest)
    source = (lengths[..., None] - 1 - position).clamp(0, backwards.shape[2] - 1)
    paths = backwards.gather(2, source[..., None].expand(*source.shape, 2))
    return paths.masked_fill((position >= lengths[..., None])[..., None], -1)
