"""Seeded inputs."""

from __future__ import annotations

import random

import torch
from torch import Tensor


def uniform(length: int, dim: int, items: range, side: int, seed: int) -> Tensor:
    """Return float32 features (items, length, dim), uniform on [0, 1]; `side` 0 is x, 1 is y.

    Each item has a stream of its own, so an item is the same in every batch.
    """
    frames = []
    for item in items:
        stream = torch.Generator().manual_seed(_stream_seed(seed, length, dim, side, item))
        frames.append(torch.rand(length, dim, generator=stream))
    return torch.stack(frames)


def _stream_seed(*numbers: int) -> int:
    return random.Random("/".join(map(str, numbers))).getrandbits(63)
