"""The soft-DTW implementations that are compared, behind one face.

Each peer answers two calls: from features x (B, N, D), y (B, M, D), and from a given cost (B, N, M). Both return the
values (B,) and, when asked, the gradients of the inputs of their sum. A peer that is not installed is reported.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import antidiagonal
from ..packages import OwnPackage, Package

PLAIN = "plain PyTorch"


class Outcome(NamedTuple):
    """Values (B,) and the gradients of the inputs, none for a forward run."""

    value: Tensor
    gradients: tuple[Tensor, ...]


class Peer(Package):
    """One implementation.

    Attributes
    ----------
    runs_on_torch : bool
        True when it takes and gives torch tensors with gradients of its own.
    """

    runs_on_torch = True

    def from_features(self, x: Tensor, y: Tensor, gamma: float, backward: bool) -> Outcome:
        """Soft-DTW of squared distances between features."""
        raise NotImplementedError

    def from_cost(self, cost: Tensor, gamma: float, backward: bool) -> Outcome:
        """Soft-DTW of given costs."""
        raise NotImplementedError


class Dalign(OwnPackage, Peer):
    """Our own package."""

    def load(self) -> None:
        super().load()
        self._module = lru_cache(maxsize=None)(
            lambda gamma, metric: self.dalign.SoftDTW(gamma=gamma, metric=metric, reduction="none")
        )

    def from_features(self, x: Tensor, y: Tensor, gamma: float, backward: bool) -> Outcome:
        return differentiate(self._module(gamma, "sqeuclidean"), (x, y), backward)

    def from_cost(self, cost: Tensor, gamma: float, backward: bool) -> Outcome:
        return differentiate(self._module(gamma, "precomputed"), (cost,), backward)


class PlainTorch(Peer):
    """The anti-diagonal version of this folder, differentiated by autograd."""

    name = PLAIN

    def from_features(self, x: Tensor, y: Tensor, gamma: float, backward: bool) -> Outcome:
        def loss(x: Tensor, y: Tensor) -> Tensor:
            return antidiagonal.soft_dtw(antidiagonal.squared_distances(x, y), gamma)

        return differentiate(loss, (x, y), backward)

    def from_cost(self, cost: Tensor, gamma: float, backward: bool) -> Outcome:
        return differentiate(lambda cost: antidiagonal.soft_dtw(cost, gamma), (cost,), backward)


class Tslearn(Peer):
    """tslearn's SoftDTWLossPyTorch (Numba)."""

    name = "tslearn"
    distribution = "tslearn"

    def load(self) -> None:
        from tslearn.metrics import SoftDTWLossPyTorch

        self._loss = SoftDTWLossPyTorch

    def from_features(self, x: Tensor, y: Tensor, gamma: float, backward: bool) -> Outcome:
        return differentiate(self._loss(gamma=gamma), (x, y), backward)

    def from_cost(self, cost: Tensor, gamma: float, backward: bool) -> Outcome:
        return differentiate(_as_distance(self._loss, gamma=gamma), (cost,), backward)


class Pysdtw(Peer):
    """pysdtw on the CPU (Numba)."""

    name = "pysdtw"
    distribution = "pysdtw"
    computes = "float64, rounded to float32"

    def load(self) -> None:
        import pysdtw

        self._loss = pysdtw.SoftDTW

    def from_features(self, x: Tensor, y: Tensor, gamma: float, backward: bool) -> Outcome:
        return differentiate(self._loss(gamma=gamma, use_cuda=False), (x, y), backward)

    def from_cost(self, cost: Tensor, gamma: float, backward: bool) -> Outcome:
        return differentiate(_as_distance(self._loss, gamma=gamma, use_cuda=False), (cost,), backward)


class SoftDtw(Peer):
    """Blondel's soft-dtw (Cython, NumPy arrays, one pair at a time, no threads)."""

    name = "soft-dtw"
    distribution = "soft-dtw"
    computes = "float64"
    max_threads = 1
    runs_on_torch = False

    def load(self) -> None:
        from sdtw import SoftDTW
        from sdtw.distance import SquaredEuclidean

        self._loss, self._distance = SoftDTW, SquaredEuclidean

    def from_features(self, x: Tensor, y: Tensor, gamma: float, backward: bool) -> Outcome:
        pairs = zip(x.numpy(), y.numpy(), strict=True)
        return _stacked([self._pair(x_item, y_item, gamma, backward) for x_item, y_item in pairs])

    def from_cost(self, cost: Tensor, gamma: float, backward: bool) -> Outcome:
        return _stacked([self._lattice(item, gamma, backward) for item in cost.numpy()])

    def _pair(self, x: Any, y: Any, gamma: float, backward: bool) -> list[Any]:
        recursion = self._loss(self._distance(x, y), gamma=gamma)
        value = recursion.compute()
        if not backward:
            return [value]
        alignment = recursion.grad()
        return [
            value,
            self._distance(x, y).jacobian_product(alignment),
            self._distance(y, x).jacobian_product(alignment.T),
        ]

    def _lattice(self, cost: Any, gamma: float, backward: bool) -> list[Any]:
        recursion = self._loss(cost, gamma=gamma)
        value = recursion.compute()
        return [value, recursion.grad()] if backward else [value]


def differentiate(loss: Callable[..., Tensor], inputs: Sequence[Tensor], backward: bool) -> Outcome:
    """Call a torch loss, with gradients of all inputs or without any."""
    if not backward:
        with torch.no_grad():
            return Outcome(loss(*inputs), ())
    leaves = [tensor.detach().requires_grad_() for tensor in inputs]
    value = loss(*leaves)
    return Outcome(value.detach(), torch.autograd.grad(value.sum(), leaves))


def _as_distance(loss: Callable[..., Callable[[Tensor, Tensor], Tensor]], **options: Any) -> Callable[[Tensor], Tensor]:
    """Hand a given cost to a peer that insists on features: they only carry the lengths."""

    def from_cost(cost: Tensor) -> Tensor:
        batch, n, m = cost.shape
        return loss(dist_func=lambda x, y: cost, **options)(cost.new_empty(batch, n, 1), cost.new_empty(batch, m, 1))

    return from_cost


def _stacked(items: Sequence[Sequence[Any]]) -> Outcome:
    """Collect (value, gradient, ...) of single pairs into a batch."""
    value, *gradients = (_stack([torch.as_tensor(part) for part in parts]) for parts in zip(*items, strict=True))
    return Outcome(value, tuple(gradients))


def _stack(parts: Sequence[Tensor]) -> Tensor:
    """Stack, without a copy of a single part: the copy is ours, not the peer's."""
    return torch.stack(list(parts)) if len(parts) > 1 else parts[0].unsqueeze(0)


ALL: tuple[type[Peer], ...] = (Dalign, PlainTorch, Pysdtw, Tslearn, SoftDtw)
