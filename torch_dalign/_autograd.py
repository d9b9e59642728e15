"""What all autograd Functions of this package share."""

from __future__ import annotations

import inspect
from typing import Any, NamedTuple, NoReturn

import torch
from torch import Tensor
from torch.autograd import Function


class _Bound(NamedTuple):
    """Arguments as `inspect.BoundArguments` has them."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def apply_defaults(self) -> None:
        """There are none."""


class _AllByPosition(inspect.Signature):
    """Signature of a function that always gets all its arguments by position.

    Function.apply asks for the signature of forward at every call and fits the arguments to it, which costs up to 80
    microseconds.
    """

    def bind(self, *args: Any) -> _Bound:  # type: ignore[override]
        """As they come."""
        return _Bound(args, {})


class BatchedFunction(Function):
    """A Function over a batch that torch.vmap cannot map once more."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "forward" in cls.__dict__:
            parameters = inspect.signature(cls.forward).parameters.values()
            cls.__dict__["forward"].__func__.__signature__ = _AllByPosition(list(parameters))

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> NoReturn:
        """Refuse, and say what to do."""
        raise RuntimeError("torch.vmap cannot map over torch_dalign: fold the mapped dimension into the batch (B, ...)")


class LastDerivative(BatchedFunction):
    """A second derivative. Its own derivative is a third one, which is not implemented."""

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> NoReturn:
        """Refuse."""
        raise RuntimeError("torch_dalign: third-order derivatives are not implemented")


def is_differentiated_again() -> bool:
    """Inside a backward: whether its result must itself be differentiable (torch.compile knows no create_graph)."""
    return torch.is_grad_enabled() and not torch.compiler.is_compiling()


def inner(weights: Tensor, values: Tensor) -> Tensor:
    """<weights, values> per item (B,), in float64; a cell of weight 0 adds nothing, be its value inf or NaN.

    Summed axis by axis: where torch sums up all of a large tensor at once, the bits depend on the number of threads.
    """
    products = weights * values.masked_fill(weights == 0, 0)
    while products.dim() > 1:
        products = products.sum(-1, dtype=torch.float64)
    return products
