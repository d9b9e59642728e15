r"""The general lattice in plain PyTorch, a wave of cells at a time: the baseline that needs no compiled code.

A wave is a row where every step advances x, else an anti-diagonal: no step leads from a cell of a wave to another one.
All cells of a wave, of all items of the batch, are computed together, on contiguous memory: the lattice is stored as
(wave, lane, item), where a lane is a column, or of anti-diagonals a row. Gradients are written by hand. For softmin,
with scores a = -D / gamma and c = C / gamma,

    a(n, m) = log sum_s exp( a(n - i_s, m - j_s) - W_s(n, m) c(n, m) )
    E(n, m) = sum_s p_s(n + i_s, m + j_s) E(n + i_s, m + j_s)
    H(n, m) = E(n, m) sum_s W_s p_s(n, m)

where p_s is the share of step s in the sum; it is computed again on the way back. The other operators keep the gradient
of each cell's minimum (Algorithms 1 and 2 of the dDTW paper). Powers and logarithms are of base 2, whose exponential is
the faster one in PyTorch. In float64 this is the answer against which all peers are checked. There must be a path.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import pad

from .settings import Setting

FAR = 1e30  # stands for inf, so that differences stay numbers
LOG2_E = 1 / math.log(2)


def value(cost: Tensor, setting: Setting, weights: Tensor | None, gamma: float = 1.0) -> Tensor:
    """Return the values (B,) of given costs (B, N, M), differentiable in the costs.

    Weights are (B | 1, M | 1, S), inf blocks, or None for ones.
    """
    function = _Softmin if setting.smoothing == "softmin" else _Other
    return function.apply(cost, setting, weights, gamma)


# ---------------------------------------------------------------- the waves of a lattice


@dataclass(frozen=True)
class _Waves:
    """How a lattice (B, N, M) is stored as (wave, lane, item), behind a margin that no path visits."""

    setting: Setting
    n: int
    m: int

    @property
    def by_rows(self) -> bool:
        return all(i > 0 for i, _ in self.setting.steps)

    @property
    def count(self) -> int:
        return self.n if self.by_rows else self.n + self.m - 1

    @property
    def lanes(self) -> int:
        return self.m if self.by_rows else self.n

    @property
    def moves(self) -> list[tuple[int, int]]:
        """How many waves and lanes each step goes on."""
        return [(i, j) if self.by_rows else (i + j, i) for i, j in self.setting.steps]

    @property
    def margin(self) -> tuple[int, int]:
        return max(wave for wave, _ in self.moves), max(lane for _, lane in self.moves)

    def span(self, wave: int) -> tuple[int, int]:
        """First lane of a wave, and the one after its last."""
        return (0, self.m) if self.by_rows else (max(0, wave - self.m + 1), min(wave, self.n - 1) + 1)

    def ends(self) -> slice:
        """Lanes of the last wave where paths end."""
        return slice(max(self.lanes - self.setting.sides, 0), self.lanes)

    def fold(self, lattice: Tensor) -> Tensor:
        """(B, N, M) as (wave, lane, item), 0 where there is no cell. Rows are a view."""
        if self.by_rows:
            return lattice.permute(1, 2, 0)
        folded = lattice.new_zeros(self.count, self.n, lattice.shape[0])
        self._cells(folded).copy_(lattice)
        return folded

    def unfold(self, folded: Tensor) -> Tensor:
        """View (wave, lane, item) as (B, N, M)."""
        return folded.permute(2, 0, 1) if self.by_rows else self._cells(folded)

    def _cells(self, folded: Tensor) -> Tensor:
        """View anti-diagonals as (B, N, M): cell (n, m) is lane n of wave n + m."""
        wave, lane, item = folded.stride()
        size = folded.shape[2], self.n, self.m
        return folded.as_strided(size, (item, wave + lane, wave), folded.storage_offset())

    def of_step(self, weights: Tensor, dtype: torch.dtype) -> Tensor:
        """Weights (B | 1, M | 1) of a step, to broadcast over (wave, lane, item)."""
        assert self.by_rows or weights.shape[1] == 1, "weights that depend on the column are known by rows alone"
        return weights.to(dtype).T[None]

    def room(self, like: Tensor, fill: float) -> Tensor:
        """Storage of all waves with margins before and after them, on both sides of the lanes."""
        waves, lanes = self.count + 2 * self.margin[0], self.lanes + 2 * self.margin[1]
        if self.by_rows:
            return like.new_full((like.shape[2], waves, lanes), fill).permute(1, 2, 0)
        return like.new_full((waves, lanes, like.shape[2]), fill)

    def inner(self, room: Tensor, waves: int = 0, lanes: int = 0) -> Tensor:
        """View the cells that lie so many waves and lanes beyond each one; a single wave or lane stands for all."""
        for axis, count, start in ((0, self.count, waves), (1, self.lanes, lanes)):
            size = [-1, -1, -1]
            size[axis] = count
            whole = room.shape[axis] > 1
            room = room.narrow(axis, self.margin[axis] + start, count) if whole else room.expand(size)
        return room

    def with_margins(self, folded: Tensor) -> Tensor:
        """(wave | 1, lane | 1, item | 1) with margins along what is more than 1."""
        waves, lanes = (margin if size > 1 else 0 for margin, size in zip(self.margin, folded.shape[:2], strict=True))
        return pad(folded, (0, 0, lanes, lanes, waves, waves))


# ---------------------------------------------------------------- softmin


class _Softmin(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, cost: Tensor, setting: Setting, weights: Tensor | None, gamma: float) -> Tensor:
        waves = _Waves(setting, cost.shape[1], cost.shape[2])
        scaled = waves.fold(cost * (LOG2_E / gamma))
        gains = _gains(waves, scaled, weights)
        scores, joined = waves.room(scaled, -FAR), waves.room(scaled, FAR)
        _forward(waves, scaled, gains, scores, joined)
        ends = waves.inner(scores)[-1, waves.ends()]
        total = ends.mul(1 / LOG2_E).logsumexp(0)
        ctx.save_for_backward(scores, joined, (ends - ends.amax(0)).exp2())
        ctx.gains, ctx.waves = gains, waves
        return -gamma * total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        scores, joined, ends = ctx.saved_tensors
        mass = _backward(ctx.waves, ctx.gains, scores, joined, ends / ends.sum(0) * grad)
        return ctx.waves.unfold(mass), None, None, None


@dataclass(frozen=True)
class _Gain:
    """What the score of a step has beyond -c: (1 - W) c, or far below 0 where it is blocked; W - 1 where that is not 0.

    Both have margins.
    """

    score: Tensor
    factor: Tensor | None


def _gains(waves: _Waves, scaled: Tensor, weights: Tensor | None) -> list[_Gain | None]:
    """One for each step, None where all its weights are 1."""
    found: list[_Gain | None] = []
    for step in range(len(waves.moves)):
        weight = None if weights is None else waves.of_step(weights[..., step], scaled.dtype)
        if weight is None or bool((weight == 1).all()):
            found.append(None)
            continue
        score = weight.isinf().to(scaled.dtype) * -FAR
        factor = weight.masked_fill(weight.isinf(), 1) - 1
        if bool(factor.any()):
            found.append(_Gain(waves.with_margins(score - factor * scaled), waves.with_margins(factor)))
        else:
            found.append(_Gain(waves.with_margins(score), None))
    return found


def _forward(waves: _Waves, scaled: Tensor, gains: list[_Gain | None], scores: Tensor, joined: Tensor) -> None:
    """Fill in a, and a + c; all paths start in the first wave."""
    here, sums, sides = waves.inner(scores), waves.inner(joined), waves.setting.sides
    sums[0, :sides] = 0
    torch.neg(scaled[0, :sides], out=here[0, :sides])
    before = [waves.inner(scores, -wave, -lane) for wave, lane in waves.moves]
    more = [None if gain is None else waves.inner(gain.score) for gain in gains]
    for wave in range(1, waves.count):
        lanes = slice(*waves.span(wave))
        first, *rest = (
            part[wave, lanes] if gain is None else part[wave, lanes] + gain[wave, lanes]
            for part, gain in zip(before, more, strict=True)
        )
        for part in rest[:-1]:
            first = torch.logaddexp2(first, part)
        torch.logaddexp2(first, rest[-1], out=sums[wave, lanes])
        torch.sub(sums[wave, lanes], scaled[wave, lanes], out=here[wave, lanes])


def _backward(waves: _Waves, gains: list[_Gain | None], scores: Tensor, joined: Tensor, ends: Tensor) -> Tensor:
    """Return H, from the derivatives by the D of the last wave: mass goes back along each step by its share."""
    mass = waves.room(scores, 0.0)
    found = mass if all(gain is None or gain.factor is None for gain in gains) else waves.room(scores, 0.0)
    here, own = waves.inner(mass), waves.inner(scores)
    here[-1, waves.ends()] = ends
    views = [(waves.inner(mass, *move), waves.inner(joined, *move), waves.inner(found, *move)) for move in waves.moves]
    more = [
        (None, None)
        if gain is None
        else (waves.inner(gain.score, *move), None if gain.factor is None else waves.inner(gain.factor, *move))
        for gain, move in zip(gains, waves.moves, strict=True)
    ]
    for wave in reversed(range(waves.count - 1)):
        lanes = slice(*waves.span(wave))
        for (after, sums, weighted), (gain, factor) in zip(views, more, strict=True):
            share = own[wave, lanes] - sums[wave, lanes]
            if gain is not None:
                share += gain[wave, lanes]
            if factor is None:
                here[wave, lanes].addcmul_(after[wave, lanes], share.exp2_())
                continue
            moved = share.exp2_().mul_(after[wave, lanes])
            here[wave, lanes] += moved
            weighted[wave, lanes].addcmul_(moved, factor[wave, lanes])
    return waves.inner(mass if found is mass else found.add_(mass))


# ---------------------------------------------------------------- the other operators


class _Other(torch.autograd.Function):
    """Ones as weights; D has a margin of FAR."""

    @staticmethod
    def forward(ctx: Any, cost: Tensor, setting: Setting, weights: Tensor | None, gamma: float) -> Tensor:
        if weights is not None or setting.sides > 1:
            raise ValueError("settings with these operators have unit weights, and start and end in the corners")
        waves = _Waves(setting, cost.shape[1], cost.shape[2])
        scaled = waves.fold(cost / gamma)
        room = waves.room(scaled, FAR)
        here = waves.inner(room)
        here[0, 0] = scaled[0, 0]
        before = [waves.inner(room, -wave, -lane) for wave, lane in waves.moves]
        shares = room.new_zeros(len(before), *room.shape)
        minimum = OPERATORS[setting.smoothing]
        for wave in range(1, waves.count):
            lanes = slice(*waves.span(wave))
            least, share = minimum(torch.stack([part[wave, lanes] for part in before]))
            torch.add(least, scaled[wave, lanes], out=here[wave, lanes])
            for step, part in enumerate(share):
                waves.inner(shares[step])[wave, lanes] = part
        ctx.save_for_backward(shares)
        ctx.waves = waves
        return gamma * here[-1, -1]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        waves: _Waves = ctx.waves
        (shares,) = ctx.saved_tensors
        room = waves.room(waves.inner(shares[0]), 0.0)
        here = waves.inner(room)
        here[-1, -1] = grad
        after = [(waves.inner(room, *move), waves.inner(shares[step], *move)) for step, move in enumerate(waves.moves)]
        for wave in reversed(range(waves.count - 1)):
            lanes = slice(*waves.span(wave))
            for mass, share in after:
                here[wave, lanes].addcmul_(mass[wave, lanes], share[wave, lanes])
        return waves.unfold(here), None, None, None


Minimum = tuple[Tensor, Tensor]  # over the first axis, and its gradient


def _sparsemin(q: Tensor) -> Minimum:
    """min over the simplex of <y, q> + (|y|^2 - 1) / 2: y is the projection of -q, found by sorting."""
    z = -q
    ordered = z.sort(0, descending=True).values
    sums = ordered.cumsum(0) - 1
    counts = torch.arange(1, len(q) + 1, dtype=q.dtype).view(-1, *(1,) * (q.dim() - 1))
    support = (counts * ordered > sums).sum(0, keepdim=True)
    y = (z - sums.gather(0, support - 1) / support).clamp(min=0)
    return (y * q).sum(0) + ((y * y).sum(0) - 1) / 2, y


def _smoothmin(q: Tensor) -> Minimum:
    """The mean of q under softmax(-q)."""
    p = torch.softmax(-q, 0)
    mean = (p * q).sum(0)
    return mean, p * (1 - q + mean)


def _hardmin(q: Tensor) -> Minimum:
    """The least one, and where it is."""
    least, at = q.min(0)
    return least, torch.zeros_like(q).scatter_(0, at[None], 1)


OPERATORS: dict[str, Callable[[Tensor], Minimum]] = {
    "sparsemin": _sparsemin,
    "smoothmin": _smoothmin,
    "hardmin": _hardmin,
}


# ---------------------------------------------------------------- the same by autograd

ByAutograd = Callable[[Tensor, "Tensor | None"], Tensor]


def by_autograd(setting: Setting) -> ByAutograd | None:
    """Softmin row by row as most would write it: costs (B, N, M) and weights in, gamma = 1. None: not written."""
    if setting.smoothing != "softmin" or any(i == 0 and j > 1 for i, j in setting.steps):
        return None
    return lambda cost, weights: _rows_by_autograd(cost, setting, weights)


def _rows_by_autograd(cost: Tensor, setting: Setting, weights: Tensor | None) -> Tensor:
    """A row after the other; the last rows stay at hand as scores."""
    farthest = max(j for _, j in setting.steps)
    first, *rows = cost.unbind(1)
    start = torch.full_like(first, -FAR)
    start[:, : setting.sides] = -first[:, : setting.sides]
    current = _along(start, first, setting, weights)
    nothing = pad(torch.full_like(first, -FAR), (farthest, 0), value=-FAR)
    last = [pad(current, (farthest, 0), value=-FAR)] + [nothing] * max(i for i, _ in setting.steps)
    for row in rows:
        parts = [
            last[i - 1][:, farthest - j : farthest - j + row.shape[1]] - _times(weights, step, row)
            for step, (i, j) in enumerate(setting.steps)
            if i > 0
        ]
        current = parts[0]
        for part in parts[1:]:
            current = torch.logaddexp(current, part)
        current = _along(current, row, setting, weights)
        last = [pad(current, (farthest, 0), value=-FAR), *last[:-1]]
    return -current[:, -setting.sides :].logsumexp(1)


def _along(scores: Tensor, row: Tensor, setting: Setting, weights: Tensor | None) -> Tensor:
    """Join the paths that go on inside the row, all at once.

    With s the scores of what comes from other rows and S the sums of W c up to a column, a(m) = log(exp(s(m)) +
    exp(a(m-1) - W c(m))) is the same as a(m) + S(m) = log sum_{k <= m} exp(s(k) + S(k)).
    """
    if (0, 1) not in setting.steps:
        return scores
    sums = _times(weights, setting.steps.index((0, 1)), row).cumsum(1)
    return (scores + sums).logcumsumexp(1) - sums


def _times(weights: Tensor | None, step: int, row: Tensor) -> Tensor:
    """W c of a step, far above all costs where it is blocked."""
    if weights is None:
        return row
    own = weights[..., step]
    return torch.where(own.isinf(), FAR, own.masked_fill(own.isinf(), 1) * row)
