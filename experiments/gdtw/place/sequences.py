"""Pairs of a query and a reference sequence, wherever they come from."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

PARTS = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True)
class Sequences:
    """Sequences of frames with their positions.

    Attributes
    ----------
    points : Tensor
        (S, L, 3) float64, unit vectors.
    read : callable
        From S' numbers of sequences to frames (S', L, 3, H, W), uint8.
    """

    points: Tensor
    read: Callable[[Sequence[int]], Tensor]


class Batch(NamedTuple):
    """Some pairs. Frames of each reference once: `reference_of` says which row belongs to a query."""

    query_frames: Tensor
    reference_frames: Tensor
    reference_of: Tensor
    query_points: Tensor
    reference_points: Tensor
    truth: Tensor


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Queries (Q, N frames) and references (R, M frames).

    Attributes
    ----------
    reference_of : Tensor
        (Q,): the reference sequence of each query.
    truth : Tensor
        (Q, N) float64: where in its reference each frame is, in frames, never falling.
    conditions : tuple of str
        The weather of each query.
    """

    queries: Sequences
    references: Sequences
    reference_of: Tensor
    truth: Tensor
    conditions: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.conditions)

    @property
    def pace(self) -> float:
        """Mean number of reference frames from one frame of a query to the next."""
        return float(self.truth.diff(dim=1).mean())

    def batch(self, numbers: Sequence[int]) -> Batch:
        """The pairs of those queries."""
        queries = torch.tensor(numbers)
        used, inverse = self.reference_of[queries].unique(return_inverse=True)
        return Batch(
            self.queries.read(numbers),
            self.references.read(used.tolist()),
            inverse,
            self.queries.points[queries],
            self.references.points[used][inverse],
            self.truth[queries],
        )

    def grouped(self, size: int, order: np.random.Generator | None = None) -> list[list[int]]:
        """Batches of about `size` queries that share references, whose frames then are looked at once.

        In random order with a generator.
        """
        by_reference: list[list[int]] = [[] for _ in range(len(self.references.points))]
        for number, reference in enumerate(self.reference_of.tolist()):
            by_reference[reference].append(number)
        places = np.arange(len(by_reference)) if order is None else order.permutation(len(by_reference))
        batches: list[list[int]] = [[]]
        for place in places:
            if len(batches[-1]) >= size:
                batches.append([])
            batches[-1].extend(by_reference[place])
        return [batch for batch in batches if batch]


class Views(NamedTuple):
    """Places seen twice: frames (n, 3, H, W) of reference and query, and where the reference was, (n, 3)."""

    reference: Tensor
    query: Tensor
    points: Tensor


@dataclasses.dataclass(frozen=True)
class Data:
    """Everything that training and evaluation need.

    Attributes
    ----------
    parts : dict of Pairs
        "train", "validation", "test".
    views : callable
        (n, generator) to `Views` of n places for contrastive training, none of them in the test's area.
    spacing : float
        km between the frames of references.
    unit, unit_km : str, float
        In which errors are shown.
    tolerances : tuple of float
        In that unit; those of Tables 2 and 5, scaled by the spacing.
    """

    parts: dict[str, Pairs]
    views: Callable[[int, np.random.Generator], Views]
    spacing: float
    unit: str
    unit_km: float
    tolerances: tuple[float, ...]
