r"""Plain PyTorch soft-DTW and DTW, one anti-diagonal at a time: the baseline that needs no compiled code.

With s = -R / gamma and c = C / gamma the recursion reads

    s(i, j) = logaddexp( s(i-1, j), s(i, j-1), s(i-1, j-1) ) - c(i, j)

and with the maximum in the place of logaddexp, and gamma = 1, it is that of DTW.

All cells of an anti-diagonal i + j = k, of all items of the batch, are computed together; autograd does the rest. The
costs are brought into anti-diagonal order once, by one gather, so a diagonal is a contiguous slice. In float64 it is
the reference against which all peers are checked.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import pad, softplus

NO_PATH = -1e30  # stands for -inf: the softmax of three -inf has no gradient


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """Return |x_i - y_j|^2 for all pairs of frames: x (B, N, D), y (B, M, D) -> (B, N, M), by one matrix product."""
    squares = (x * x).sum(-1).unsqueeze(2) + (y * y).sum(-1).unsqueeze(1)
    return torch.baddbmm(squares, x, y.mT, alpha=-2)


def soft_dtw(cost: Tensor, gamma: float, twice: bool = False) -> Tensor:
    """Return the soft-DTW values (B,) of given costs (B, N, M), differentiable by autograd once, or twice."""
    return -gamma * _last_score(cost / gamma, _twice_differentiable if twice else torch.logaddexp)


def _twice_differentiable(a: Tensor, b: Tensor) -> Tensor:
    """Return logaddexp(a, b). The second derivative of torch's own is inf / inf where one of them means no path."""
    high, low = torch.maximum(a, b), torch.minimum(a, b)
    return high + softplus(low - high)


def dtw(cost: Tensor) -> Tensor:
    """Return the DTW values (B,) of given costs (B, N, M); a cell of cost +inf is blocked (1e30: no path)."""
    return -_last_score(cost, torch.maximum)


def _last_score(cost: Tensor, join: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Return s in the last corners (B,)."""
    _, n, m = cost.shape
    diagonals = _anti_diagonals(cost)
    current = -diagonals[0]
    last = pad(current, (1, 1), value=NO_PATH)
    before = torch.full_like(last, NO_PATH)
    for k in range(1, n + m - 1):
        size = diagonals[k].shape[1]
        drop = int(k >= m)  # from diagonal m on, the first row of a diagonal is one further down than on the last
        up = last[:, drop : drop + size]
        left = last[:, drop + 1 : drop + 1 + size]
        skip = drop + int(k > m)
        corner = before[:, skip : skip + size] if k > 1 else torch.full_like(up, NO_PATH)
        current = join(join(up, left), corner) - diagonals[k]
        before, last = last, pad(current, (1, 1), value=NO_PATH)
    return current[:, 0]


def _anti_diagonals(cost: Tensor) -> tuple[Tensor, ...]:
    """Split costs (B, N, M) into N + M - 1 anti-diagonals (B, length), rows ascending."""
    order, sizes = _order(cost.shape[1], cost.shape[2])
    return cost.flatten(1).index_select(1, order).split(sizes, dim=1)


@lru_cache(maxsize=1)
def _order(n: int, m: int) -> tuple[Tensor, list[int]]:
    """Return the flat indices of the cells in anti-diagonal order and the lengths of the diagonals."""
    k = torch.arange(n + m - 1)
    first_row = (k - m + 1).clamp(min=0)
    sizes = k.clamp(max=n - 1) - first_row + 1
    diagonal = torch.repeat_interleave(k, sizes)
    first_cell = sizes.cumsum(0) - sizes
    row = torch.arange(n * m) - (first_cell - first_row)[diagonal]
    return diagonal + row * (m - 1), sizes.tolist()
