"""All pairs of a collection of univariate series, with and without a band."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import antidiagonal
from ..inputs import uniform
from .peers import Peer


@dataclass(frozen=True)
class Collection:
    """So many series of one length; the paths stay within `band` frames of the diagonal."""

    count: int
    length: int
    band: int | None

    @property
    def cells(self) -> int:
        """Cells inside the band, of each pair once."""
        return self.count * (self.count - 1) // 2 * int(_inside(self).sum())


def series(collection: Collection, seed: int) -> Tensor:
    """Return random walks (n, N), float32, with mean 0 and variance 1 each."""
    walks = (uniform(collection.length, 1, range(collection.count), 0, seed)[..., 0] - 0.5).cumsum(1)
    return (walks - walks.mean(1, keepdim=True)) / walks.std(1, keepdim=True)


def call(peer: Peer, collection: Collection, walks: Tensor, threads: int) -> Callable[[], Any]:
    """Return the call that is timed."""
    arranged = peer.arrange_series(walks)
    return lambda: peer.all_pairs(arranged, collection.band, threads)


def error(collection: Collection, walks: Tensor, outcome: Any) -> float:
    """Return the largest error of the first series' distances to the others, relative to the distance."""
    truth = reference(collection, walks)
    return float((np.abs(np.asarray(outcome)[0, 1:] - truth) / truth).max())


def reference(collection: Collection, walks: Tensor) -> np.ndarray:
    """Return the first series' distances to the others (n - 1,), in float64."""
    walks = walks.double()
    cost = (walks[:1, :, None] - walks[1:, None, :]).square()
    return antidiagonal.dtw(cost.masked_fill(~_inside(collection), torch.inf)).numpy()


def _inside(collection: Collection) -> Tensor:
    """Which cells (N, N) the band leaves."""
    at = torch.arange(collection.length)
    distance = (at[:, None] - at).abs()
    return distance <= (collection.length if collection.band is None else collection.band)
