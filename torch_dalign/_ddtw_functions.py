"""The autograd Functions of the general lattice.

value is homogeneous of degree 1 in (z, gamma), where z = (costs, costs of starting and ending); step weights W have no
unit. So with L = <g, value> over the batch

    d L / d gamma = (L - <z, d L / d z>) / gamma

and the derivative of <T, grad L> for tangents T of z, W and gamma follows from one Hessian product H along
d = (T_z - T_gamma z / gamma, T_W):

    in z: H_z d        in W: H_W d + T_gamma / gamma d L / d W        in g: <d, grad value> + T_gamma value / gamma
    in gamma: (<T_W, d L / d W> - <z, H_z d>) / gamma
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ._autograd import BatchedFunction, LastDerivative, inner, is_differentiated_again
from ._ops import ops


class Options(NamedTuple):
    """Checked options, in the order in which every Function takes them after its tensors."""

    x_lengths: Tensor | None
    y_lengths: Tensor | None
    steps: list[int]
    start: list[int]
    end: list[int]
    smoothing: str


class Lattice(NamedTuple):
    """What is differentiable: costs, gamma, step weights (B|1, N|1, M|1, S), costs of the ends (B|1, N, M)."""

    cost: Tensor
    gamma: Tensor
    weights: Tensor | None
    start_cost: Tensor | None
    end_cost: Tensor | None


def _arguments(lattice: Lattice, options: Options) -> tuple[Any, ...]:
    """As the ops take them."""
    cost, gamma, weights, start_cost, end_cost = lattice
    x_lengths, y_lengths, steps, start, end, _ = options
    return cost, gamma, x_lengths, y_lengths, steps, weights, start, start_cost, end, end_cost


class DDTWFunction(BatchedFunction):
    """Lattice -> value, and what backward only has to scale.

    The derivative in the costs comes with the value, in one pass. Weights and ends may be shared by the items of the
    batch, each of which backward weighs by its own factor, so their derivatives are computed there.
    """

    @staticmethod
    def forward(
        cost: Tensor,
        gamma: Tensor,
        weights: Tensor | None,
        start_cost: Tensor | None,
        end_cost: Tensor | None,
        x_lengths: Tensor | None,
        y_lengths: Tensor | None,
        steps: list[int],
        start: list[int],
        end: list[int],
        smoothing: str,
        need_cost: bool,
        need_gamma: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Value (B,), d value / d cost, mean cost (B,); empty where not needed."""
        lattice = Lattice(cost, gamma, weights, start_cost, end_cost)
        options = Options(x_lengths, y_lengths, steps, start, end, smoothing)
        value, grad_cost, _, _, _, mean_cost = ops.ddtw(
            *_arguments(lattice, options), smoothing, None, need_cost, False, False, False, need_gamma
        )
        return value, grad_cost, mean_cost

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        """Keep inputs and outputs."""
        x_lengths, y_lengths, ctx.steps, ctx.start, ctx.end, ctx.smoothing = inputs[5:11]
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(*output[1:])
        value, slope, mean_cost = output
        compiling = torch.compiler.is_compiling()
        ctx.slope = None if compiling else slope  # no other owner, see _scaled
        ctx.save_for_backward(*inputs[:5], x_lengths, y_lengths, value, mean_cost, slope if compiling else None)

    @staticmethod
    def backward(ctx: Any, grad_value: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
        """Gradients of all that is differentiable."""
        if grad_value is None:
            return (None,) * 13
        *inputs, value, mean_cost, slope = ctx.saved_tensors
        options = (ctx.steps, ctx.start, ctx.end, ctx.smoothing)
        needs = ctx.needs_input_grad[:5]
        again, kept = is_differentiated_again(), ctx.slope if slope is None else slope
        if again or any(needs[2:]) or kept is None:
            run: Any = DDTWGradFunction.apply if again else DDTWGradFunction.forward
            grads = run(grad_value, *inputs, *options, *needs)
        else:
            ctx.slope = None
            grad_cost = kept * grad_value[:, None, None] if kept is slope else _scaled(kept, grad_value)
            grads = (
                grad_cost if needs[0] else None,
                _gamma_gradient(value, mean_cost, inputs[1], grad_value),
                None,
                None,
                None,
            )
        return *(g if need else None for g, need in zip(grads, needs, strict=True)), *(None,) * 8


def _scaled(slope: Tensor, grad_value: Tensor) -> Tensor:
    """The gradient that forward made, scaled in place: it is large. A second backward makes it anew."""
    return slope.mul_(grad_value[:, None, None]) if slope.numel() else slope


def _gamma_gradient(value: Tensor, mean_cost: Tensor, gamma: Tensor, grad_value: Tensor | None) -> Tensor:
    """d <g, value> / d gamma, from the mean cost with factor g (or without, when g is given here); 0 without a path."""
    if not mean_cost.numel():
        return torch.zeros_like(gamma)
    slopes = ((value - mean_cost) / gamma).masked_fill(value.isinf(), 0)
    return (slopes if grad_value is None else grad_value * slopes).sum()


class DDTWGradFunction(BatchedFunction):
    """(g, lattice) -> gradients of <g, value>."""

    @staticmethod
    def forward(
        grad_value: Tensor,
        cost: Tensor,
        gamma: Tensor,
        weights: Tensor | None,
        start_cost: Tensor | None,
        end_cost: Tensor | None,
        x_lengths: Tensor | None,
        y_lengths: Tensor | None,
        steps: list[int],
        start: list[int],
        end: list[int],
        smoothing: str,
        need_cost: bool,
        need_gamma: bool,
        need_weights: bool,
        need_start: bool,
        need_end: bool,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """In cost, gamma, weights, start and end; empty (gamma: 0) where not needed."""
        lattice = Lattice(cost, gamma, weights, start_cost, end_cost)
        options = Options(x_lengths, y_lengths, steps, start, end, smoothing)
        value, grad_cost, grad_weights, grad_start, grad_end, mean_cost = ops.ddtw(
            *_arguments(lattice, options),
            smoothing,
            grad_value,
            need_cost,
            need_weights,
            need_start,
            need_end,
            need_gamma,
        )
        grad_gamma = _gamma_gradient(value * grad_value, mean_cost, gamma, None)
        return grad_cost, grad_gamma, grad_weights, grad_start, grad_end

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        """Keep the inputs."""
        ctx.save_for_backward(*inputs[:8])
        ctx.options, ctx.needs = inputs[8:12], inputs[12:]

    @staticmethod
    def backward(ctx: Any, *tangents: Tensor) -> tuple[Tensor | None, ...]:
        """Derivatives of the gradients' inner product with the tangents."""
        if ctx.options[-1] != "softmin":
            raise RuntimeError(f"torch_dalign: second derivatives need smoothing='softmin', not {ctx.options[-1]!r}")
        asked = [t if need else None for t, need in zip(tangents, ctx.needs, strict=True)]
        grads = DDTWHessianFunction.apply(*ctx.saved_tensors, *asked, *ctx.options)
        return *(g if need else None for g, need in zip(grads, ctx.needs_input_grad[:6], strict=True)), *(None,) * 11


class DDTWHessianFunction(LastDerivative):
    """Derivatives of <T, grad <g, value>> for tangents T."""

    @staticmethod
    def forward(
        grad_value: Tensor,
        cost: Tensor,
        gamma: Tensor,
        weights: Tensor | None,
        start_cost: Tensor | None,
        end_cost: Tensor | None,
        x_lengths: Tensor | None,
        y_lengths: Tensor | None,
        tangent_cost: Tensor | None,
        tangent_gamma: Tensor | None,
        tangent_weights: Tensor | None,
        tangent_start: Tensor | None,
        tangent_end: Tensor | None,
        steps: list[int],
        start: list[int],
        end: list[int],
        smoothing: str,
    ) -> tuple[Tensor, ...]:
        """In g, cost, gamma, weights, start and end."""
        lattice = Lattice(cost, gamma, weights, start_cost, end_cost)
        arguments = _arguments(lattice, Options(x_lengths, y_lengths, steps, start, end, smoothing))
        share = torch.zeros_like(gamma) if tangent_gamma is None else tangent_gamma / gamma
        along = [
            _direction(tangent, part, share if tangent_gamma is not None else None)
            for tangent, part in ((tangent_cost, cost), (tangent_start, start_cost), (tangent_end, end_cost))
        ]
        has = [part is not None for part in (weights, start_cost, end_cost)]
        h_cost, h_weights, h_start, h_end, slope = ops.ddtw_hvp(
            *arguments, grad_value, along[0], tangent_weights, along[1], along[2], *has
        )
        flags = (False, weights is not None, False, False, False)
        value, _, grad_weights, *_ = ops.ddtw(*arguments, smoothing, grad_value, *flags)
        by_value = slope + share * value.masked_fill(value.isinf(), 0)
        by_gamma = -sum(_inner(h, part) for h, part in ((h_cost, cost), (h_start, start_cost), (h_end, end_cost)))
        if tangent_weights is not None:
            by_gamma = by_gamma + _inner(tangent_weights, grad_weights)
        if weights is not None:
            h_weights = h_weights + share.to(cost.dtype) * grad_weights
        return by_value.to(grad_value.dtype), h_cost, by_gamma / gamma, h_weights, h_start, h_end

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        """Nothing to keep."""


def _direction(tangent: Tensor | None, part: Tensor | None, share: Tensor | None) -> Tensor | None:
    """T - share z, where z is finite."""
    if part is None or share is None:
        return tangent
    scaled = share.to(part.dtype) * part.masked_fill(part.isinf(), 0)
    return -scaled if tangent is None else tangent - scaled


def _inner(weights: Tensor, values: Tensor | None) -> Tensor:
    """<weights, values> in float64, 0 of nothing."""
    return torch.zeros((), dtype=torch.float64) if values is None else inner(weights, values).sum()
