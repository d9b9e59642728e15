"""Slope bounds, bands and knots of DecDTW in PyTorch operations, so that all of them can be learned."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ._piecewise import PiecewiseLinear, Segments, repeat_last, take

Bounds = tuple[Tensor | None, Tensor | None]


class Clock(NamedTuple):
    """Times (B, N) of one side's frames in float64, given or uniform on [0, 1], and each item's length (B,)."""

    times: Tensor
    lengths: Tensor
    given: bool

    @classmethod
    def of(cls, times: Tensor | None, lengths: Tensor | None, batch: int, frames: int) -> Clock:
        """Behind an item's end its last time is repeated."""
        if lengths is None:
            lengths = torch.full((batch,), frames)
        if times is not None:
            return cls(repeat_last(times, lengths), lengths, True)
        frame = torch.arange(frames).expand(batch, -1).minimum(lengths[:, None] - 1)
        return cls(frame / (lengths[:, None] - 1).clamp(min=1).double(), lengths, False)

    @property
    def start(self) -> Tensor:
        """First time (B, 1)."""
        return self.times[:, :1]

    @property
    def duration(self) -> Tensor:
        """(B, 1)."""
        return self.times[:, -1:] - self.start

    @property
    def shares(self) -> Tensor:
        """Times as shares of the duration, 0 to 1; 0 where there is none."""
        none = self.duration == 0
        return (self.times - self.start) / self.duration.masked_fill(none, 1)


def nominal_slope(x: Clock, y: Clock, fixed: bool) -> Tensor:
    """s0 (B,) where none is given, as the op has it."""
    if fixed:
        none = x.duration == 0
        return (y.duration / x.duration.masked_fill(none, 1))[:, 0]
    if x.given or y.given:
        return torch.ones(len(x.lengths), dtype=torch.float64)
    return (x.lengths - 1).double() / (y.lengths - 1).clamp(min=1)


def sakoe_chiba(width: Tensor, x: Clock, y: Clock) -> Bounds:
    """The straight line from corner to corner, give or take `width` of the duration of y."""
    line, half = y.start + y.duration * x.shares, width.double() * y.duration
    return line - half, line + half


def ratanamahatana_keogh(width: Tensor, x: Clock, y: Clock) -> Bounds:
    """A band whose width R varies along the diagonal: above it by R, and beside it by R.

    In shares of both durations, with K widths R_k at u_k = k / (K - 1): the upper bound is the line through the points
    (u_k, u_k + R_k), the lower one that through (u_k + R_k, u_k).
    """
    width = width.double().expand(len(x.times), -1)
    node = torch.linspace(0, 1, width.shape[1], dtype=torch.float64).expand_as(width)
    beside = (node + width).cummax(1).values  # where R falls steeply, the lower line would run back
    low = PiecewiseLinear(beside, node).at(x.shares)
    high = PiecewiseLinear(node, node + width).at(x.shares)
    return y.start + y.duration * low, y.start + y.duration * high


class Knots(NamedTuple):
    """x at knots: features (B, K, D), and their times (B, K)."""

    features: Tensor
    times: Tensor


def uniform_knots(features: Tensor, clock: Clock, count: int) -> Knots:
    """x interpolated linearly at `count` knots from each item's first to its last time."""
    shares = torch.linspace(0, 1, count, dtype=torch.float64)
    at = clock.start + clock.duration * shares
    segments = Segments.of(clock.times, at)
    last = clock.lengths[:, None] - 1
    low, high = (take(features, index.minimum(last)) for index in (segments.low, segments.high))
    share = segments.share(at).to(features.dtype)[..., None]
    return Knots(low + share * (high - low), at)
