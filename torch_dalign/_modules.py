"""What the loss modules of this package share: a smoothing parameter gamma, and a reduction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from . import _checks


def reduced(values: Tensor, reduction: str) -> Tensor:
    """Mean or sum of the items' values (B,), or themselves."""
    if reduction == "mean":
        return values.mean()
    return values.sum() if reduction == "sum" else values


class SmoothedLoss(nn.Module):
    """A loss with a parameter gamma > 0, held so that changing it never recompiles a compiled graph.

    A number becomes a float64 buffer, not part of the state_dict, which stays on the CPU in float64 whatever the module
    is moved or cast to. A tensor that requires grad is kept as it is, and an nn.Parameter becomes a parameter of the
    module. Assigning to `gamma` follows the same rules.
    """

    def __init__(self, gamma: float | Tensor, reduction: str) -> None:
        super().__init__()
        _checks.choice(reduction, "reduction", _checks.REDUCTIONS)
        self.reduction = reduction
        self.gamma = gamma

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "gamma":
            self._set_gamma(value)
        else:
            super().__setattr__(name, value)

    def _set_gamma(self, value: float | Tensor) -> None:
        checked = _checks.gamma(value)
        self._parameters.pop("gamma", None)
        self._buffers.pop("gamma", None)
        if isinstance(value, nn.Parameter):
            self.register_parameter("gamma", value)
        elif isinstance(value, Tensor) and value.requires_grad:
            self.register_buffer("gamma", value, persistent=False)
        else:
            self.register_buffer("gamma", checked.detach().clone(), persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> SmoothedLoss:
        """Move or cast everything but a gamma that is a buffer."""
        gamma = self._buffers.pop("gamma", None)
        try:
            super()._apply(fn, recurse)
        finally:
            if gamma is not None:
                self._buffers["gamma"] = gamma
        return self

    def _reduce(self, values: Tensor) -> Tensor:
        return reduced(values, self.reduction)

    def _gamma_repr(self) -> str:
        gamma = _checks.gamma(self.gamma)
        return f"gamma={gamma.item():g}" + (" (learned)" if gamma.requires_grad else "")
