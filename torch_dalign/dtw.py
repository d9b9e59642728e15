r"""Dynamic time warping with a hard minimum: value, best path, gradient along the path.

.. math::
    R_{0,0} = C_{0,0}, \quad R_{i,j} = \min_k \big(R_{(i,j) - \text{step}_k} + w_k C_{i,j}\big)

The value is R in the last corner: a sum of costs, without a root.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, NoReturn

import torch
from torch import Tensor

from . import _checks
from ._autograd import BatchedFunction, is_differentiated_again
from ._ops import ops
from .cost import Metric, lattice_or_features

Step = tuple[int, int]

#: Names of usual step sets: the steps (x, y) and their weights. With "symmetric2", also called "1-1-2", a diagonal
#: step costs as much as the two others that it replaces; "asymmetric" advances x by one frame always, as if y were
#: resampled; "2-1" lets neither sequence stand still.
STEP_PATTERNS: dict[str, tuple[tuple[Step, ...], tuple[float, ...]]] = {
    "symmetric1": (((1, 0), (0, 1), (1, 1)), (1.0, 1.0, 1.0)),
    "symmetric2": (((1, 0), (0, 1), (1, 1)), (1.0, 1.0, 2.0)),
    "1-1-2": (((1, 0), (0, 1), (1, 1)), (1.0, 1.0, 2.0)),
    "asymmetric": (((1, 0), (1, 1), (1, 2)), (1.0, 1.0, 1.0)),
    "2-1": (((1, 1), (2, 1), (1, 2)), (1.0, 1.0, 1.0)),
}
LONGEST_STEP = 4
MOST_STEPS = 16


def dtw(
    x: Tensor,
    y: Tensor | None = None,
    metric: Metric = "sqeuclidean",
    *,
    band: float | None = None,
    itakura: float | None = None,
    steps: str | Sequence[Step] | None = None,
    step_weights: Sequence[float] | None = None,
    subsequence: bool = False,
    open_begin: bool = False,
    open_end: bool = False,
    x_lengths: Tensor | None = None,
    y_lengths: Tensor | None = None,
) -> Tensor:
    r"""Exact dynamic time warping of each pair of a batch.

    .. math:: \text{value} = \min_{\pi} \sum_{(i,j) \in \pi} w_{ij}\, C(x_i, y_j)

    over all paths :math:`\pi` of the given steps, where :math:`w_{ij}` is the weight of the step into the cell and 1 in
    the first cell. It is a sum of costs: for the Euclidean DTW distance of other packages take the root of it.

    Parameters
    ----------
    x, y : Tensor
        (B, N, D) and (B, M, D), float32 or float64; float16 and bfloat16 are computed in float32. For metric "nll" y
        holds (B, M) class indices; for "precomputed" x is the lattice of costs (B, N, M) and y is left out.
    metric : str or callable, default "sqeuclidean"
        A metric of `pairwise`, a callable ``metric(x, y) -> cost`` (B, N, M), or "precomputed".
    band : int or float, optional
        Sakoe-Chiba band as in `SoftDTW`: cell (i, j) is allowed when
        :math:`|i (M - 1) - j (N - 1)| \le \text{band} \cdot \max(N - 1, M - 1)`.
    itakura : float, optional
        Itakura parallelogram, the largest slope s >= 1 against the diagonal: with u = i / (N - 1) and v = j / (M - 1),
        a cell is allowed when :math:`u / s \le v \le s u` and :math:`(1 - u) / s \le 1 - v \le s (1 - u)`.
    steps : str or sequence of pairs, optional
        Steps (x, y), each number from 0 to 4; or "symmetric1" (the default: (1, 0), (0, 1), (1, 1)), "symmetric2" =
        "1-1-2", "asymmetric", "2-1" (see `STEP_PATTERNS`). Cells that a longer step passes over do not count.
    step_weights : sequence of floats, optional
        A weight >= 0 for each step, in their order; inf blocks a step. Default: ones, or the named set's.
    subsequence : bool, default False
        The whole of x against any part of y, that is ``open_begin`` and ``open_end``.
    open_begin, open_end : bool, default False
        The path may begin, or end, at any frame of y.
    x_lengths, y_lengths : Tensor, optional
        (B,) integers: item b uses the first x_lengths[b] and y_lengths[b] frames; what lies beyond is never read, its
        gradient is 0.

    Returns
    -------
    Tensor
        (B,), float64 for float64 input, else float32. +inf with gradient 0 where no path is left; NaN with gradient NaN
        for an item with a NaN cost. Differentiable once, along the best path (a subgradient where several are best).

    Raises
    ------
    ValueError
        For shapes, lengths or options out of range.
    TypeError
        For other dtypes.

    References
    ----------
    Sakoe and Chiba, "Dynamic Programming Algorithm Optimization for Spoken Word Recognition", 1978. Itakura, "Minimum
    Prediction Residual Principle Applied to Speech Recognition", 1975.

    Examples
    --------
    >>> import torch, torch_dalign as dalign
    >>> x = torch.tensor([[[0.0], [1.0], [1.0], [3.0]]])
    >>> y = torch.tensor([[[0.0], [1.0], [2.0]]])
    >>> dalign.dtw(x, y)
    tensor([1.])
    """
    problem = _problem(x, y, metric, x_lengths, y_lengths)
    options = path_options(band, itakura, steps, step_weights, open_begin or subsequence, open_end or subsequence)
    return problem.value(options)


def dtw_path(
    x: Tensor,
    y: Tensor | None = None,
    metric: Metric = "sqeuclidean",
    *,
    band: float | None = None,
    itakura: float | None = None,
    steps: str | Sequence[Step] | None = None,
    step_weights: Sequence[float] | None = None,
    subsequence: bool = False,
    open_begin: bool = False,
    open_end: bool = False,
    x_lengths: Tensor | None = None,
    y_lengths: Tensor | None = None,
) -> list[Tensor]:
    """Best path of each pair of a batch.

    Of equally good paths the one whose steps, from the end on, are the longest.

    Parameters
    ----------
    x, y, metric, band, itakura, steps, step_weights, subsequence, open_begin, open_end, x_lengths, y_lengths
        As in `dtw`.

    Returns
    -------
    list of Tensor
        B tensors (L, 2) int64: the cells (i, j) from the first to the last; (0, 2) where no path is left.

    Raises
    ------
    ValueError, TypeError
        As `dtw`.

    Examples
    --------
    >>> import torch, torch_dalign as dalign
    >>> x = torch.tensor([[[0.0], [1.0], [3.0]]])
    >>> dalign.dtw_path(x, x[:, :2])
    [tensor([[0, 0],
            [1, 1],
            [2, 1]])]
    """
    options = path_options(band, itakura, steps, step_weights, open_begin or subsequence, open_end or subsequence)
    _, paths, lengths = _problem(x, y, metric, x_lengths, y_lengths).run(options, True)
    return [path[:length] for path, length in zip(paths, lengths.tolist(), strict=True)]


def padded_paths(
    x: Tensor, y: Tensor, metric: Metric, *, band: float | None, y_lengths: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Best paths of the usual steps (B, N + M - 1, 2), -1 behind their ends, and their lengths (B,)."""
    options = path_options(band, None, None, None, False, False)
    return _problem(x, y, metric, None, y_lengths).run(options, True)[1:]


def dtw_of_costs(
    cost: Tensor,
    *,
    band: float | None = None,
    itakura: float | None = None,
    steps: str | Sequence[Step] | None = None,
    step_weights: Sequence[float] | None = None,
    subsequence: bool = False,
    open_begin: bool = False,
    open_end: bool = False,
    x_lengths: Tensor | None = None,
    y_lengths: Tensor | None = None,
) -> Tensor:
    """Hard DTW value of given costs: ``dtw(cost, metric="precomputed", ...)``.

    Parameters
    ----------
    cost : Tensor
        (B, N, M), float32 or float64; float16 and bfloat16 are computed in float32. A cell of cost +inf is blocked.
    band, itakura, steps, step_weights, subsequence, open_begin, open_end, x_lengths, y_lengths
        As in `dtw`.

    Returns
    -------
    Tensor
        (B,), as `dtw`; the gradient with respect to the costs is the weight of each cell of the best path.

    Raises
    ------
    ValueError, TypeError
        As `dtw`.

    Examples
    --------
    >>> import torch
    >>> from torch_dalign import functional
    >>> functional.dtw(torch.tensor([[[0.0, 1.0], [1.0, 0.0]]]))
    tensor([0.])
    """
    problem = _problem(cost, None, "precomputed", x_lengths, y_lengths)
    options = path_options(band, itakura, steps, step_weights, open_begin or subsequence, open_end or subsequence)
    return problem.value(options)


# ---------------------------------------------------------------- a checked problem


class Options(NamedTuple):
    """Checked options, in the order in which every op takes them after the lengths."""

    steps: list[int]
    step_weights: list[float]
    band: float
    itakura: float
    free_start: bool
    free_end: bool


class _Problem(NamedTuple):
    """A checked batch: features with a named metric, or a lattice of costs (then y and metric are None)."""

    x: Tensor
    y: Tensor | None
    metric: str | None
    x_lengths: Tensor | None
    y_lengths: Tensor | None

    def run(self, options: Options, need_path: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Value (B,), path (B, N + M - 1, 2) and its length (B,)."""
        if self.y is None:
            return ops.dtw(self.x, self.x_lengths, self.y_lengths, *options, need_path)
        return ops.dtw_features(self.x, self.y, self.metric, self.x_lengths, self.y_lengths, *options, need_path)

    def value(self, options: Options) -> Tensor:
        """Value (B,), differentiable."""
        needs_gradient = self.x.requires_grad or (self.y is not None and self.y.requires_grad)
        if needs_gradient and torch.is_grad_enabled():
            return DTWFunction.apply(*self, *options)[0]
        return self.run(options, False)[0]


def _problem(
    x: Tensor, y: Tensor | None, metric: Metric, x_lengths: Tensor | None, y_lengths: Tensor | None
) -> _Problem:
    x, y, name = lattice_or_features(x, y, metric)
    columns = x.shape[2] if y is None else y.shape[1]
    x_lengths = _checks.lengths(x_lengths, "x_lengths", x.shape[0], x.shape[1])
    y_lengths = _checks.lengths(_checks.apart(y_lengths, x_lengths), "y_lengths", x.shape[0], columns)
    if y is not None and name == "nll":
        _checks.label_values(y, x.shape[2], y_lengths)
    return _Problem(x, y, name, x_lengths, y_lengths)


def path_options(
    band: float | None,
    itakura: float | None,
    steps: str | Sequence[Step] | None,
    step_weights: Sequence[float] | None,
    open_begin: bool,
    open_end: bool,
) -> Options:
    """Options as the ops take them, checked."""
    usual = steps is None and step_weights is None
    flat, weights = _USUAL_STEPS if usual else _flat_steps(steps, step_weights)
    return Options(flat, weights, _checks.band(band), _checks.slope(itakura), bool(open_begin), bool(open_end))


def _flat_steps(steps: str | Sequence[Step] | None, weights: Sequence[float] | None) -> tuple[list[int], list[float]]:
    """The steps one after the other, x and y of each, with their weights."""
    pairs, numbers = _steps(steps, weights)
    return [number for pair in pairs for number in pair], numbers


def _steps(steps: str | Sequence[Step] | None, weights: Sequence[float] | None) -> tuple[list[Step], list[float]]:
    """The steps that are not blocked, with their weights."""
    if steps is None:
        steps = "symmetric1"
    if isinstance(steps, str):
        _checks.choice(steps, "steps (if a name)", tuple(STEP_PATTERNS))
        named, usual = STEP_PATTERNS[steps]
        pairs = list(named)
    else:
        pairs = _checks.steps(steps, LONGEST_STEP, MOST_STEPS)
        usual = (1.0,) * len(pairs)
    numbers = list(usual) if weights is None else _checks.weights_of_steps(weights, len(pairs))
    kept = [(pair, weight) for pair, weight in zip(pairs, numbers, strict=True) if weight < float("inf")]
    if not kept:
        raise ValueError(f"step_weights must leave at least one step open, got {numbers}")
    return [pair for pair, _ in kept], [weight for _, weight in kept]


_USUAL_STEPS = _flat_steps(None, None)  # worked out once: of a short pair's time, checks are the most


# ---------------------------------------------------------------- autograd


class DTWFunction(BatchedFunction):
    """(C) or (x, y) -> value, and the path along which backward goes."""

    @staticmethod
    def forward(
        x: Tensor,
        y: Tensor | None,
        metric: str | None,
        x_lengths: Tensor | None,
        y_lengths: Tensor | None,
        steps: list[int],
        step_weights: list[float],
        band: float,
        itakura: float,
        free_start: bool,
        free_end: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Value (B,), path, length."""
        options = Options(steps, step_weights, band, itakura, free_start, free_end)
        return _Problem(x, y, metric, x_lengths, y_lengths).run(options, True)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
        """Keep the inputs and the path."""
        x, y, ctx.metric, x_lengths, y_lengths, ctx.steps, ctx.step_weights, *_ = inputs
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(x, y, x_lengths, y_lengths, *output)

    @staticmethod
    def backward(ctx: Any, grad_value: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        """The gradient of each cell of the path, added up."""
        if is_differentiated_again():
            _refuse_second_derivative()
        x, y, x_lengths, y_lengths, value, path, length = ctx.saved_tensors
        weights = _weights_along(path, length, ctx.steps, ctx.step_weights).to(value.dtype) * grad_value[:, None]
        rows, columns = path.clamp(min=0).unbind(2)
        invalid = value.isnan()
        if y is None:
            grad = _nan_where(_grad_lattice(x, rows, columns, weights), invalid, x_lengths, 1)
            return _zero_beyond(grad, y_lengths, 2), *(None,) * 10
        grads = _grad_features(x, y, ctx.metric, rows, columns, weights, ctx.needs_input_grad[:2])
        sides = zip(grads, (x_lengths, y_lengths), strict=True)
        return *(None if g is None else _nan_where(g, invalid, lengths, 1) for g, lengths in sides), *(None,) * 9


def _refuse_second_derivative() -> NoReturn:
    raise RuntimeError(
        "torch_dalign: dtw is piecewise linear in the costs and has no second derivative (SoftDTW has one)"
    )


def _weights_along(path: Tensor, length: Tensor, steps: list[int], step_weights: list[float]) -> Tensor:
    """Weight of the step into each cell of the path (B, L), 1 for the first, 0 beyond the length."""
    least = torch.full(((LONGEST_STEP + 1) ** 2,), torch.inf, dtype=torch.float64)
    for dx, dy, weight in zip(steps[::2], steps[1::2], step_weights, strict=True):
        at = dx * (LONGEST_STEP + 1) + dy
        least[at] = least[at].clamp(max=weight)  # the cheaper of two equal steps
    taken = path.diff(dim=1)
    inside = torch.arange(path.shape[1]) < length[:, None]
    into = (taken[..., 0] * (LONGEST_STEP + 1) + taken[..., 1]).masked_fill(~inside[:, 1:], 0)
    first = torch.ones(path.shape[0], 1, dtype=torch.float64)
    return torch.cat((first, least[into]), 1).masked_fill(~inside, 0)


def _grad_lattice(cost: Tensor, rows: Tensor, columns: Tensor, weights: Tensor) -> Tensor:
    grad = torch.zeros_like(cost, memory_format=torch.contiguous_format)
    grad.flatten(1).scatter_add_(1, rows * cost.shape[2] + columns, weights)
    return grad


def _grad_features(
    x: Tensor, y: Tensor, metric: str, rows: Tensor, columns: Tensor, weights: Tensor, needs: Sequence[bool]
) -> tuple[Tensor | None, Tensor | None]:
    """Each cell of the path is a pair of one frame each for the adjoint of the cost."""
    frames_x, frames_y = _take(x, rows), _take(y, columns)
    cells = weights.reshape(-1, 1, 1)
    grads = ops.cost_backward(frames_x, frames_y, metric, cells, *needs)
    sides = zip(grads, needs, (x, y), (rows, columns), strict=True)
    return tuple(_add_up(g, like, at) if need else None for g, need, like, at in sides)  # type: ignore[return-value]


def _take(frames: Tensor, at: Tensor) -> Tensor:
    """(B, N[, D]) at (B, L) as (B L, 1[, D])."""
    if frames.dim() == 2:
        return frames.gather(1, at).reshape(-1, 1)
    return frames.gather(1, at[..., None].expand(-1, -1, frames.shape[2])).reshape(-1, 1, frames.shape[2])


def _add_up(grads: Tensor, like: Tensor, at: Tensor) -> Tensor:
    total = torch.zeros_like(like, memory_format=torch.contiguous_format)
    return total.scatter_add_(1, at[..., None].expand(-1, -1, like.shape[2]), grads.view(*at.shape, like.shape[2]))


def _nan_where(grad: Tensor, invalid: Tensor, lengths: Tensor | None, dim: int) -> Tensor:
    """NaN for invalid items, but not beyond their lengths."""
    return _zero_beyond(grad.masked_fill(invalid[:, None, None], torch.nan), lengths, dim)


def _zero_beyond(grad: Tensor, lengths: Tensor | None, dim: int) -> Tensor:
    if lengths is None:
        return grad
    beyond = _checks.padding(grad.shape[dim], lengths)
    return grad.masked_fill(beyond.unsqueeze(3 - dim), 0)
