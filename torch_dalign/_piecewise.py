"""Piecewise linear functions: which segment of their breakpoints a time lies in, and where in it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Segments(NamedTuple):
    """For each of I times per item the breakpoints around it, (B, I); outside of all breakpoints twice the same one."""

    low: Tensor
    high: Tensor
    start: Tensor
    duration: Tensor

    @classmethod
    def of(cls, times: Tensor, at: Tensor) -> Segments:
        """Where `at` (B, I) lies among breakpoints at times (B, K), which never fall; of two segments the right one."""
        last = times.shape[1] - 1
        at = at.detach().expand(times.shape[0], -1).contiguous()
        found = torch.searchsorted(times.detach().contiguous(), at, right=True) - 1
        low, high = found.clamp(min=0), (found + 1).clamp(max=last)
        start = times.gather(1, low)
        return cls(low, high, start, times.gather(1, high) - start)

    def share(self, time: Tensor) -> Tensor:
        """Where a time lies on the line through the segment: 0 at its start, 1 at its end; 0 where it has no length."""
        flat = self.duration == 0
        return ((time - self.start) / self.duration.masked_fill(flat, 1)).masked_fill(flat, 0)


class PiecewiseLinear(NamedTuple):
    """Functions given by breakpoints, constant before the first and after the last.

    Times, which never fall, and values, both (B, K), float64. Two equal times make a jump.
    """

    times: Tensor
    values: Tensor

    def over(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        """Values at both ends of intervals (B, I) that hold no breakpoint inside, of the line that leads through."""
        segments = Segments.of(self.times, left)
        value = self.values.gather(1, segments.low)
        rise = self.values.gather(1, segments.high) - value
        return value + rise * segments.share(left), value + rise * segments.share(right)

    def at(self, time: Tensor) -> Tensor:
        """Values at times (B, I), at a jump the later ones."""
        return self.over(time, time)[0]


def repeat_last(values: Tensor, lengths: Tensor) -> Tensor:
    """(B, K, ...) with an item's last entry in place of what lies beyond its length."""
    at = torch.arange(values.shape[1]).expand(len(lengths), -1).minimum(lengths[:, None] - 1)
    return take(values, at)


def take(values: Tensor, at: Tensor) -> Tensor:
    """values (B, K) or (B, K, D) at (B, I)."""
    return (
        values.gather(1, at) if values.dim() == 2 else values.gather(1, at[..., None].expand(-1, -1, values.shape[2]))
    )
