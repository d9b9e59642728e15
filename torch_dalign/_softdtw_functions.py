"""The autograd Functions of soft-DTW: from a lattice of costs, and fused from features.

With P = (d H / d C) T the Hessian product of a tangent T::

    d value / d C     = H                          d value / d gamma = (value - <H, C>) / gamma =: slope
    d H / d gamma     = -(d H / d C) C / gamma     d slope / d C     = -(d H / d C) C / gamma
    d slope / d gamma = <C, (d H / d C) C> / gamma^2

(value is homogeneous of degree 1 in (C, gamma), H and slope of degree 0.)
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import _checks
from ._autograd import BatchedFunction, LastDerivative, inner, is_differentiated_again
from ._ops import ops
from .cost import CostFunction, CostGradFunction, gradients, leaf


class Options(NamedTuple):
    """Checked options, in the order in which every op and Function takes them after its costs."""

    gamma: Tensor
    x_lengths: Tensor | None
    y_lengths: Tensor | None
    step_weights: list[float]
    band: float


def blank_padding(x: Tensor, y: Tensor, x_lengths: Tensor | None, y_lengths: Tensor | None) -> tuple[Tensor, Tensor]:
    """The features with zeros beyond the lengths, where they may hold anything."""
    return _blank(x, x_lengths), _blank(y, y_lengths)


def _blank(x: Tensor, lengths: Tensor | None) -> Tensor:
    if lengths is None:
        return x
    padding = _checks.padding(x.shape[1], lengths)
    return x.masked_fill(padding if x.dim() == 2 else padding.unsqueeze(2), 0)


# ---------------------------------------------------------------- autograd: from costs


def gamma_slope(value: Tensor, mean_cost: Tensor, gamma: Tensor, need: bool) -> Tensor:
    """d value / d gamma (B,) in float64, 0 where no path is left; empty, as is mean_cost, where it is not needed."""
    if not need:
        return mean_cost
    return ((value - mean_cost) / gamma).masked_fill(value == torch.inf, 0)


class SoftDTWFunction(BatchedFunction):
    """(C, gamma) -> value, and the state that backward reads."""

    @staticmethod
    def forward(
        cost: Tensor,
        gamma: Tensor,
        x_lengths: Tensor | None,
        y_lengths: Tensor | None,
        step_weights: list[float],
        band: float,
        keep: bool,
    ) -> tuple[Tensor, Tensor]:
        """Value (B,), state."""
        return ops.softdtw(cost, gamma, x_lengths, y_lengths, step_weights, band, keep)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        """Keep inputs and outputs."""
        cost, gamma, x_lengths, y_lengths, ctx.step_weights, ctx.band, _ = inputs
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(cost, gamma, x_lengths, y_lengths, *output)

    @staticmethod
    def backward(ctx: Any, grad_value: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
        """grad_value H, and its inner product with the slope."""
        if grad_value is None:
            return (None,) * 7
        run: Any = SoftDTWGradFunction.apply if is_differentiated_again() else SoftDTWGradFunction.forward
        need_gamma = ctx.needs_input_grad[1]
        grad_cost, slope = run(grad_value, *ctx.saved_tensors, ctx.step_weights, ctx.band, need_gamma)
        grad_gamma = (grad_value * slope).sum() if need_gamma else None
        return grad_cost, grad_gamma, None, None, None, None, None


class SoftDTWGradFunction(BatchedFunction):
    """(g, C, gamma) -> g H, slope."""

    @staticmethod
    def forward(
        grad_value: Tensor,
        cost: Tensor,
        gamma: Tensor,
        x_lengths: Tensor | None,
        y_lengths: Tensor | None,
        value: Tensor,
        state: Tensor,
        step_weights: list[float],
        band: float,
        need_gamma: bool,
    ) -> tuple[Tensor, Tensor]:
        """G (B, N, M), slope (B,) in float64 (empty where not needed)."""
        grad_cost, mean_cost = ops.softdtw_backward(
            cost, gamma, x_lengths, y_lengths, step_weights, band, value, state, grad_value, need_gamma
        )
        return grad_cost, gamma_slope(value, mean_cost, gamma, need_gamma)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        """Keep the inputs, but not the state: the second derivative starts afresh."""
        grad_value, cost, gamma, x_lengths, y_lengths, _, _, ctx.step_weights, ctx.band, ctx.need_gamma = inputs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(grad_value, cost, gamma, x_lengths, y_lengths)

    @staticmethod
    def backward(ctx: Any, tangent: Tensor | None, grad_slope: Tensor | None) -> tuple[Tensor | None, ...]:
        """Derivatives of <tangent, g H> + <grad_slope, slope>."""
        grad_value, cost, gamma, x_lengths, y_lengths = ctx.saved_tensors
        options = (gamma, x_lengths, y_lengths, ctx.step_weights, ctx.band)
        direction = torch.zeros_like(cost)
        grad_grad_value = None
        if tangent is not None:
            direction = direction + grad_value[:, None, None] * tangent
            if ctx.needs_input_grad[0]:
                grad_grad_value = inner(AlignmentFunction.apply(cost, *options), tangent).to(grad_value.dtype)
        if grad_slope is not None and ctx.need_gamma:
            direction = direction - (grad_slope / gamma).to(cost.dtype)[:, None, None] * cost
        grad_cost, grad_gamma = second_order(cost, direction, *options)
        return grad_grad_value, grad_cost, grad_gamma, *(None,) * 7


class AlignmentFunction(BatchedFunction):
    """(C, gamma) -> H."""

    @staticmethod
    def forward(
        cost: Tensor,
        gamma: Tensor,
        x_lengths: Tensor | None,
        y_lengths: Tensor | None,
        step_weights: list[float],
        band: float,
    ) -> Tensor:
        """H (B, N, M)."""
        return ops.softdtw_alignment(cost, gamma, x_lengths, y_lengths, step_weights, band)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Keep the inputs."""
        cost, gamma, x_lengths, y_lengths, ctx.step_weights, ctx.band = inputs
        ctx.save_for_backward(cost, gamma, x_lengths, y_lengths)

    @staticmethod
    def backward(ctx: Any, tangent: Tensor) -> tuple[Tensor | None, ...]:
        """The Hessian product of the tangent."""
        cost, *rest = ctx.saved_tensors
        grad_cost, grad_gamma = second_order(cost, tangent, *rest, ctx.step_weights, ctx.band)
        return grad_cost, grad_gamma, None, None, None, None


class HessianFunction(LastDerivative):
    """(C, T) -> (d H / d C) T."""

    @staticmethod
    def forward(
        cost: Tensor,
        tangent: Tensor,
        gamma: Tensor,
        x_lengths: Tensor | None,
        y_lengths: Tensor | None,
        step_weights: list[float],
        band: float,
    ) -> Tensor:
        """P (B, N, M)."""
        return ops.softdtw_hvp(cost, tangent, gamma, x_lengths, y_lengths, step_weights, band)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Nothing to keep."""


def second_order(cost: Tensor, tangent: Tensor, gamma: Tensor, *options: Any) -> tuple[Tensor, Tensor]:
    """P = (d H / d C) T for the costs, and -<C, P> / gamma for gamma."""
    run = HessianFunction.apply if is_differentiated_again() else HessianFunction.forward
    product = run(cost, tangent, gamma, *options)
    return product, -inner(product, cost).sum() / gamma


# ---------------------------------------------------------------- autograd: from features


class FeaturesFunction(BatchedFunction):
    """(x, y, gamma) -> value, and its gradients for backward to scale.

    One pass computes both: then nothing of the pass itself is kept, and the costs are never stored.
    """

    @staticmethod
    def forward(
        x: Tensor,
        y: Tensor,
        metric: str,
        gamma: Tensor,
        x_lengths: Tensor | None,
        y_lengths: Tensor | None,
        step_weights: list[float],
        band: float,
        need_x: bool,
        need_y: bool,
        need_gamma: bool,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Value (B,), d value / d x, d value / d y, <H, C> (B,); empty where not needed."""
        return ops.softdtw_features(
            x, y, metric, gamma, x_lengths, y_lengths, step_weights, band, need_x, need_y, need_gamma
        )

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        """Keep inputs and outputs."""
        x, y, ctx.metric, gamma, x_lengths, y_lengths, ctx.step_weights, ctx.band, *_ = inputs
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(x, y, gamma, x_lengths, y_lengths, *output)

    @staticmethod
    def backward(ctx: Any, grad_value: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
        """Gradients of x, y and gamma."""
        if grad_value is None:
            return (None,) * 11
        need_x, need_y, _, need_gamma = ctx.needs_input_grad[:4]
        run: Any = FeaturesGradFunction.apply if is_differentiated_again() else FeaturesGradFunction.forward
        grad_x, grad_y, slope = run(
            grad_value, *ctx.saved_tensors, ctx.metric, ctx.step_weights, ctx.band, need_x, need_y, need_gamma
        )
        grad_gamma = (grad_value * slope).sum() if need_gamma else None
        return grad_x if need_x else None, grad_y if need_y else None, None, grad_gamma, *(None,) * 7


class FeaturesGradFunction(BatchedFunction):
    """(g, x, y, gamma) -> gradients of <g, value> in x and y, slope."""

    @staticmethod
    def forward(
        grad_value: Tensor,
        x: Tensor,
        y: Tensor,
        gamma: Tensor,
        x_lengths: Tensor | None,
        y_lengths: Tensor | None,
        value: Tensor,
        slope_x: Tensor,
        slope_y: Tensor,
        mean_cost: Tensor,
        metric: str,
        step_weights: list[float],
        band: float,
        need_x: bool,
        need_y: bool,
        need_gamma: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Both gradients, and slope (B,) in float64; empty where not needed."""
        weights = grad_value[:, None, None]
        grad_x, grad_y = (weights * slope if need else slope for slope, need in ((slope_x, need_x), (slope_y, need_y)))
        return grad_x, grad_y, gamma_slope(value, mean_cost, gamma, need_gamma)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        """Keep the inputs alone: the second derivative starts afresh."""
        ctx.save_for_backward(*inputs[:6])
        ctx.options, ctx.needs = inputs[10:13], inputs[13:]

    @staticmethod
    def backward(ctx: Any, tangent_x: Tensor, tangent_y: Tensor, grad_slope: Tensor) -> tuple[Tensor | None, ...]:
        """Derivatives of <tangent_x, grad_x> + <tangent_y, grad_y> + <grad_slope, slope>."""
        tangents = (tangent_x, tangent_y, grad_slope)
        needed = [t if need else None for t, need in zip(tangents, ctx.needs, strict=True)]
        grads = FeaturesHessianFunction.apply(*ctx.saved_tensors, *needed, *ctx.options)
        results = [g if need else None for g, need in zip(grads, ctx.needs_input_grad[:4], strict=True)]
        return *results, *(None,) * 12


class FeaturesHessianFunction(LastDerivative):
    """The second derivative, composed of those of the costs and of soft-DTW from a lattice."""

    @staticmethod
    def forward(
        grad_value: Tensor,
        x: Tensor,
        y: Tensor,
        gamma: Tensor,
        x_lengths: Tensor | None,
        y_lengths: Tensor | None,
        tangent_x: Tensor | None,
        tangent_y: Tensor | None,
        grad_slope: Tensor | None,
        metric: str,
        step_weights: list[float],
        band: float,
    ) -> tuple[Tensor, ...]:
        """Gradients in g, x, y and gamma (zeros where there is none)."""
        with torch.enable_grad():
            inputs = [leaf(t) for t in (grad_value, x, y, gamma)]
            g, features_x, features_y, smoothing = inputs
            blank_x, blank_y = blank_padding(features_x, features_y, x_lengths, y_lengths)
            lattice = CostFunction.apply(blank_x, blank_y, metric)
            value, state = ops.softdtw(lattice.detach(), gamma, x_lengths, y_lengths, step_weights, band, True)
            grad_cost, slope = SoftDTWGradFunction.apply(
                g, lattice, smoothing, x_lengths, y_lengths, value, state, step_weights, band, grad_slope is not None
            )
            grads = CostGradFunction.apply(
                blank_x, blank_y, grad_cost, metric, tangent_x is not None, tangent_y is not None
            )
            return gradients((*grads, slope), (tangent_x, tangent_y, grad_slope), inputs)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        """Nothing to keep."""
