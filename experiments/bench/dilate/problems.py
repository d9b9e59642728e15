"""The problems that DILATE solves: shapes, seeded inputs, float64 answers and errors against them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from .. import antidiagonal, inputs

TASKS = ("value", "gradient")
ALPHA = 0.5
GAMMA = 0.01
LONGEST_CHECKED = 1024  # the reference stores about two thousand bytes per cell


@dataclass(frozen=True)
class Case:
    """One shape: `batch` B pairs of `length` N = M frames of `dim` D numbers."""

    batch: int
    length: int
    dim: int = 1

    @property
    def cells(self) -> int:
        """Cells of all items."""
        return self.batch * self.length**2


class Series(NamedTuple):
    """Forecast and target, (B, N, D)."""

    forecast: Tensor
    target: Tensor


def series(case: Case, seed: int, items: range | None = None) -> Series:
    """Make float32 series of some items, by default of all."""
    chosen = range(case.batch) if items is None else items
    return Series(*(inputs.uniform(case.length, case.dim, chosen, side, seed) for side in (0, 1)))


def plain_dilate(forecast: Tensor, target: Tensor) -> Tensor:
    """Return the mean loss by plain PyTorch; its graph holds the second derivatives when gradients are on."""
    with torch.enable_grad():
        cost = antidiagonal.squared_distances(forecast, target)
        cost = cost if cost.requires_grad else cost.requires_grad_()
        shape = antidiagonal.soft_dtw(cost, GAMMA, twice=True)
        (alignment,) = torch.autograd.grad(shape.sum(), cost, create_graph=forecast.requires_grad)
    frames = torch.arange(cost.shape[1], dtype=cost.dtype)
    penalty = (frames[:, None] - frames).square()
    temporal = (alignment * penalty).sum((1, 2)) / penalty.numel()
    return (ALPHA * shape + (1 - ALPHA) * temporal).mean()


def outcome(loss: Callable[[Tensor, Tensor], Tensor], task: str, given: Series) -> tuple[Tensor, ...]:
    """Return the mean loss, and for the task "gradient" its gradient with respect to the forecast."""
    if task == "value":
        with torch.no_grad():
            return (loss(*given).detach(),)
    forecast = given.forecast.detach().requires_grad_()
    value = loss(forecast, given.target)
    return value.detach(), *torch.autograd.grad(value, forecast)


def errors(
    case: Case, seed: int, task: str, loss: Callable[[Tensor, Tensor], Tensor], found: tuple[Tensor, ...]
) -> dict[str, float]:
    """Compare with float64: the value of the last item alone, and for the task "gradient" its part of `found`."""
    if case.length > LONGEST_CHECKED:
        return {}
    value, grad = _reference(case, seed)
    (own,) = outcome(loss, "value", series(case, seed, range(case.batch - 1, case.batch)))
    result = {"error": abs(float(own) - value) / abs(value)}
    if task == "gradient":
        difference = (found[1][-1].double() * case.batch - grad).abs().max() / grad.abs().max()
        result["error_gradient"] = float(difference)
    return result


@lru_cache(maxsize=1)
def _reference(case: Case, seed: int) -> tuple[float, Tensor]:
    """Value and gradient (N, D) of the last item."""
    given = series(case, seed, range(case.batch - 1, case.batch))
    value, grad = outcome(plain_dilate, "gradient", Series(*(part.double() for part in given)))
    return value.item(), grad[0]
