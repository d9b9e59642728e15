"""The problems that soft-DTW peers solve: shapes, seeded inputs, float64 answers and errors against them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from .. import antidiagonal
from ..inputs import uniform
from .peers import Outcome, Peer, differentiate

FLOAT_BYTES = 4
MAIN_DIM = 12  # of the figures to reach, and of all families but the grid


@dataclass(frozen=True)
class Case:
    """One shape: `batch` pairs of sequences of `length` frames with `dim` features.

    `source` is "features", or "cost" when the costs of these features are given. Both sequences have the same length.
    """

    source: str
    batch: int
    length: int
    dim: int
    gamma: float = 1.0

    @property
    def cells(self) -> int:
        """Cells of all lattices of the batch."""
        return self.batch * self.length**2

    @property
    def input_bytes(self) -> int:
        """Bytes of the float32 tensors that a peer is given; the gradients take as many."""
        numbers = self.cells if self.source == "cost" else 2 * self.batch * self.length * self.dim
        return numbers * FLOAT_BYTES

    @property
    def output_bytes(self) -> int:
        """Bytes of values and gradients in float32."""
        return self.batch * FLOAT_BYTES + self.input_bytes


def inputs(case: Case, seed: int) -> tuple[Tensor, ...]:
    """Make the float32 inputs of a case: (x, y), or (cost,). A smaller batch holds the first items of a larger one."""
    features = [_items(case, seed, side, range(case.batch)) for side in (0, 1)]
    return _given(case, features)


def call(peer: Peer, case: Case, given: tuple[Tensor, ...], backward: bool) -> Callable[[], Outcome]:
    """Return the call that is timed."""
    if case.source == "cost":
        (cost,) = given
        return lambda: peer.from_cost(cost, case.gamma, backward)
    x, y = given
    return lambda: peer.from_features(x, y, case.gamma, backward)


def errors(case: Case, seed: int, outcome: Outcome) -> tuple[float, float]:
    """Compare the last item of a batch with float64.

    Returns
    -------
    tuple
        Error of the value, relative to it, and the largest error of a gradient entry, relative to the largest entry.
    """
    value, *gradients = _reference(case, seed)
    value_error = abs(float(outcome.value[-1]) - float(value)) / abs(float(value))
    return value_error, max(
        float((ours[-1].double() - truth).abs().max() / truth.abs().max())
        for ours, truth in zip(outcome.gradients, gradients, strict=True)
    )


def _given(case: Case, features: list[Tensor]) -> tuple[Tensor, ...]:
    if case.source == "features":
        return tuple(features)
    return (torch.cat([antidiagonal.squared_distances(*_pair(features, item)) for item in range(len(features[0]))]),)


def _pair(features: list[Tensor], item: int) -> tuple[Tensor, Tensor]:
    x, y = (side[item : item + 1] for side in features)
    return x, y


def _items(case: Case, seed: int, side: int, items: range) -> Tensor:
    return uniform(case.length, case.dim, items, side, seed)


@lru_cache(maxsize=2)
def _reference(case: Case, seed: int) -> tuple[Tensor, ...]:
    """Solve the last item in float64 from the very float32 numbers that the peers get: value, gradients."""
    last = range(case.batch - 1, case.batch)
    given = _given(case, [_items(case, seed, side, last) for side in (0, 1)])
    return _solve_in_float64(case, tuple(part.double() for part in given))


def _solve_in_float64(case: Case, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    def loss(*parts: Tensor) -> Tensor:
        cost = parts[0] if case.source == "cost" else antidiagonal.squared_distances(parts[0], parts[1])
        return antidiagonal.soft_dtw(cost, case.gamma)

    outcome = differentiate(loss, given, backward=True)
    return (outcome.value[0], *(gradient[0] for gradient in outcome.gradients))
