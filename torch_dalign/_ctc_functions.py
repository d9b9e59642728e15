"""The autograd Functions of CTC: the loss with its gradient, and the alignment.

With E the probability of each class at each frame among all paths of an item, the value is -log Z and::

    d value / d log_probs = -E                     d value / d logits = softmax(logits) - E
    d E / d log_probs     = P (a Hessian product)  E depends on logits as it does on log_probs: not on their sum
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import _checks
from ._autograd import BatchedFunction, LastDerivative, inner, is_differentiated_again
from ._ops import ops


class Targets(NamedTuple):
    """Checked targets, in the order in which every op and Function takes them."""

    labels: Tensor
    input_lengths: Tensor
    target_lengths: Tensor
    blank: int


class CTCFunction(BatchedFunction):
    """log_probs (B, T, C) -> value, and its gradient times weights for backward to hand out.

    The weights are those with which a reduction adds the values: then backward has nothing left to do but to look.
    """

    @staticmethod
    def forward(
        log_probs: Tensor,
        labels: Tensor,
        input_lengths: Tensor,
        target_lengths: Tensor,
        weights: Tensor | None,
        blank: int,
        from_logits: bool,
        zero_infinity: bool,
        need_grad: bool,
    ) -> tuple[Tensor, Tensor]:
        """Value (B,), weights d value / d log_probs (empty where not needed)."""
        value, slope = ops.ctc(log_probs, labels, input_lengths, target_lengths, blank, from_logits, weights, need_grad)
        return value.masked_fill(value == torch.inf, 0) if zero_infinity else value, slope

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        """Keep the inputs, and the gradient where no other owner is needed (see _handed_out)."""
        *tensors, ctx.blank, ctx.from_logits, _, _ = inputs
        slope = output[1]
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(slope)
        compiling = torch.compiler.is_compiling()
        ctx.slope = None if compiling else slope
        ctx.save_for_backward(*tensors, slope if compiling else None)

    @staticmethod
    def backward(ctx: Any, grad_value: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
        """The gradient times that of the values, beyond the weights it holds already."""
        if grad_value is None:
            return (None,) * 9
        log_probs, *targets, weights, slope = ctx.saved_tensors
        if is_differentiated_again():
            grad = CTCGradFunction.apply(grad_value, log_probs, *targets, ctx.blank, ctx.from_logits)
        elif slope is not None:
            grad = slope * _beyond(grad_value, weights)
        else:
            grad = _handed_out(ctx, grad_value, log_probs, targets, weights)
        return grad, *(None,) * 8


def _beyond(grad_value: Tensor, weights: Tensor | None) -> Tensor:
    return (grad_value if weights is None else grad_value / weights)[:, None, None]


def _handed_out(
    ctx: Any, grad_value: Tensor, log_probs: Tensor, targets: list[Tensor], weights: Tensor | None
) -> Tensor:
    """The gradient that forward made, scaled in place: it is large. A second backward makes it again."""
    grad, ctx.slope = ctx.slope, None
    if grad is None:
        grad = ops.ctc(log_probs, *targets, ctx.blank, ctx.from_logits, weights, True)[1]
    expected = torch.ones_like(grad_value) if weights is None else weights
    return grad if torch.equal(grad_value, expected) else grad.mul_(_beyond(grad_value, weights))


class CTCGradFunction(BatchedFunction):
    """(g, log_probs) -> g d value / d log_probs."""

    @staticmethod
    def forward(
        grad_value: Tensor,
        log_probs: Tensor,
        labels: Tensor,
        input_lengths: Tensor,
        target_lengths: Tensor,
        blank: int,
        from_logits: bool,
    ) -> Tensor:
        """G (B, T, C)."""
        targets = Targets(labels, input_lengths, target_lengths, blank)
        return grad_value[:, None, None] * ops.ctc(log_probs, *targets, from_logits, None, True)[1]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Keep the inputs."""
        *tensors, ctx.blank, ctx.from_logits = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, tangent: Tensor) -> tuple[Tensor | None, ...]:
        """Derivatives of <tangent, G>."""
        grad_value, log_probs, *targets = ctx.saved_tensors
        grads = CTCHessianFunction.apply(grad_value, log_probs, tangent, *targets, ctx.blank, ctx.from_logits)
        return *grads, *(None,) * 5


class CTCHessianFunction(LastDerivative):
    """(g, log_probs, tangent) -> derivatives of <tangent, g d value / d log_probs> in g and log_probs."""

    @staticmethod
    def forward(
        grad_value: Tensor,
        log_probs: Tensor,
        tangent: Tensor,
        labels: Tensor,
        input_lengths: Tensor,
        target_lengths: Tensor,
        blank: int,
        from_logits: bool,
    ) -> tuple[Tensor, Tensor]:
        """Gradients in g (B,) and in log_probs (B, T, C)."""
        targets = Targets(labels, input_lengths, target_lengths, blank)
        value, slope = ops.ctc(log_probs, *targets, from_logits, None, True)
        product = -ops.ctc_hvp(log_probs, tangent, *targets, False)
        if from_logits:
            product += _softmax_product(log_probs, tangent, input_lengths, value)
        return inner(slope, tangent).to(value.dtype), grad_value[:, None, None] * product

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        """Nothing to keep."""


def _softmax_product(logits: Tensor, tangent: Tensor, input_lengths: Tensor, value: Tensor) -> Tensor:
    """(d softmax / d logits) tangent, 0 behind the lengths and where there is no path."""
    unused = _checks.padding(logits.shape[1], input_lengths) | (value == torch.inf)[:, None]
    p = logits.masked_fill(unused.unsqueeze(2), 0).softmax(2)
    product = p * (tangent - (p * tangent).sum(2, keepdim=True))
    return product.masked_fill(unused.unsqueeze(2), 0)


class CTCAlignmentFunction(BatchedFunction):
    """log_probs (B, T, C) -> probability of each state at each frame."""

    @staticmethod
    def forward(
        log_probs: Tensor,
        labels: Tensor,
        input_lengths: Tensor,
        target_lengths: Tensor,
        blank: int,
        columns: int,
    ) -> Tensor:
        """H (B, T, columns)."""
        return ops.ctc_alignment(log_probs, labels, input_lengths, target_lengths, blank, columns)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Keep the inputs."""
        *tensors, ctx.blank, _ = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, tangent: Tensor) -> tuple[Tensor | None, ...]:
        """The Hessian product of the tangent."""
        log_probs, *targets = ctx.saved_tensors
        run: Any = CTCAlignmentGradFunction.apply if is_differentiated_again() else CTCAlignmentGradFunction.forward
        return run(log_probs, tangent, *targets, ctx.blank), *(None,) * 5


class CTCAlignmentGradFunction(LastDerivative):
    """(log_probs, tangent) -> d <tangent, H> / d log_probs."""

    @staticmethod
    def forward(
        log_probs: Tensor, tangent: Tensor, labels: Tensor, input_lengths: Tensor, target_lengths: Tensor, blank: int
    ) -> Tensor:
        """P (B, T, C)."""
        return ops.ctc_hvp(log_probs, tangent, labels, input_lengths, target_lengths, blank, True)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Nothing to keep."""
