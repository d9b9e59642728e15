r"""DILATE, a loss of shape and time, and the expected cost of paths that it is made of.

.. math:: T(C; \Omega) = \langle \Omega, H(C) \rangle, \quad H_{ij} = \frac{\partial\, \text{soft-DTW}}{\partial C_{ij}}

With unit step weights H is the probability that a path visits a cell, so T is the mean, over all paths with the
probabilities that soft-DTW gives them, of the sum of :math:`\Omega` along the path. Its own gradient is a Hessian
product of soft-DTW, computed in one sweep each way.
"""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from typing import Any, NamedTuple, NoReturn

import torch
from torch import Tensor, nn

from . import _checks
from ._autograd import BatchedFunction, is_differentiated_again
from ._modules import SmoothedLoss
from ._ops import ops
from .cost import Metric, check_metric, lattice_or_features
from .ddtw import THREE_STEPS, sides

Penalty = str | Tensor | None
PENALTIES = ("squared", "absolute", "relative")


# ---------------------------------------------------------------- functions of a cost lattice


def expected_cost(
    cost: Tensor,
    omega: Penalty,
    gamma: float | Tensor = 1.0,
    *,
    x_lengths: Tensor | None = None,
    y_lengths: Tensor | None = None,
    band: float | None = None,
    step_weights: Sequence[float] | None = None,
    start: str = "corner",
    end: str = "corner",
) -> Tensor:
    r"""Mean cost, by another lattice :math:`\Omega`, of the paths of soft-DTW.

    .. math:: T = \langle \Omega, H(C) \rangle, \quad
        H_{ij} = \frac{\partial\, \text{soft-DTW}_\gamma(C)}{\partial C_{ij}}

    Parameters
    ----------
    cost : Tensor
        (B, N, M), float32 or float64; float16 and bfloat16 are computed in float32. A cell of cost +inf is blocked.
    omega : Tensor or str
        (B, N, M) or (1, N, M); or the name of a formula, see `DILATE`. What paths cannot reach may hold anything.
    gamma, x_lengths, y_lengths, band, step_weights
        As in `functional.soft_dtw`.
    start, end : str, default "corner"
        "corner", "any_x", "any_y", or two whole numbers, as in `DDTW`.

    Returns
    -------
    Tensor
        (B,), float64 for float64 costs, else float32. 0 where no path is left; NaN where a cost is NaN. Differentiable
        once in cost, omega (its gradient is H) and gamma.

    Raises
    ------
    ValueError, TypeError
        For shapes, lengths or options out of range, and other dtypes.

    References
    ----------
    Le Guen and Thome, "Shape and Time Distortion Loss for Training Deep Time Series Forecasting Models", NeurIPS 2019,
    equation 4.

    Examples
    --------
    >>> import torch
    >>> from torch_dalign import functional
    >>> functional.expected_cost(torch.zeros(1, 2, 2), "squared")  # two of three paths go around the corner
    tensor([0.6667])
    """
    lattice = _checks.lattice(cost)
    _check_penalty(omega, tuple(lattice.shape), "omega")
    problem = _problem(
        lattice, None, None, gamma, omega, x_lengths, y_lengths, band, step_weights, start, end, lattice.shape
    )
    return problem.run(torch.zeros((), dtype=lattice.dtype), torch.ones((), dtype=lattice.dtype)).functional


def dilate(
    cost: Tensor,
    alpha: float = 0.5,
    gamma: float | Tensor = 0.01,
    *,
    penalty: Penalty = None,
    x_lengths: Tensor | None = None,
    y_lengths: Tensor | None = None,
    band: float | None = None,
) -> Tensor:
    r"""DILATE of given costs: see `DILATE` for the formula.

    Parameters
    ----------
    cost : Tensor
        (B, N, M), float32 or float64; float16 and bfloat16 are computed in float32.
    alpha, gamma, penalty, band
        As in `DILATE`.
    x_lengths, y_lengths : Tensor, optional
        (B,) integers: item b uses the first x_lengths[b] rows and y_lengths[b] columns.

    Returns
    -------
    Tensor
        (B,), differentiable once in cost, penalty and gamma.

    Raises
    ------
    ValueError, TypeError
        For shapes, lengths or options out of range, and other dtypes.

    Examples
    --------
    >>> import torch
    >>> from torch_dalign import functional
    >>> functional.dilate(torch.zeros(1, 2, 2), alpha=0.0, gamma=1.0)  # (2 / 3) / 4
    tensor([0.1667])
    """
    lattice = _checks.lattice(cost)
    share = _alpha(alpha)
    problem = _problem(
        lattice, None, None, gamma, penalty, x_lengths, y_lengths, band, None, "corner", "corner", lattice.shape
    )
    return problem.run(*problem.dilate_weights(share)).loss


# ---------------------------------------------------------------- the module


class DILATE(SmoothedLoss):
    r"""DILATE: soft-DTW for the shape of a series, and a penalty for warping time.

    .. math::
        \text{loss} = \alpha\, \text{soft-DTW}_\gamma(C) + (1 - \alpha)\, \frac{\langle \Omega, H(C) \rangle}{N M}

    with :math:`C_{ij}` the cost of input frame i against target frame j and H the alignment, :math:`\partial\,
    \text{soft-DTW} / \partial C`.

    Parameters
    ----------
    alpha : float, default 0.5
        Share of the shape in the loss, from 0 to 1.
    gamma : float, Tensor or nn.Parameter, default 0.01
        Smoothing > 0; a tensor that requires grad or a parameter is learned.
    penalty : str or Tensor, optional
        :math:`\Omega`: "squared" (the default) :math:`(i - j)^2`, "absolute" :math:`|i - j|`, "relative"
        :math:`(i / N - j / M)^2` with frames counted from 0 and the item's own lengths; or a tensor (B, N, M) or
        (1, N, M), rows input, columns target. A tensor that requires grad gets one; an nn.Parameter becomes one of the
        module.
    metric : str or callable, default "sqeuclidean"
        As in `SoftDTW`; "precomputed": the module is called as ``loss(cost)``.
    band : int or float, optional
        Sakoe-Chiba band, as in `SoftDTW`.
    reduction : str, default "mean"
        "mean" or "sum" over the batch, or "none".

    Notes
    -----
    Call: ``loss(input, target, x_lengths=None, y_lengths=None, return_parts=False)``; with `return_parts` the result is
    ``(loss, shape, temporal)``, each reduced, so that loss = alpha shape + (1 - alpha) temporal.

    * input (B, N, D), target (B, M, D), float32 or float64; float16 and bfloat16 are computed in float32. The lengths
      are those of input and target.
    * With a named metric and penalty no lattice (B, N, M) is stored.
    * Differentiable once in input, target, gamma and penalty; a second time is a RuntimeError.
    * An item without a path (by blocked cells) has value +inf and gradient 0; one with a NaN value and gradient NaN.
    * Where a gradient may be needed, it is computed with the value: evaluate under ``torch.no_grad()``.
    * The gradient of the temporal term is a difference of numbers of size temporal N M / gamma. In float32 it has few
      digits where one path is almost certain, as with small gamma and many features: then small beside that of the
      shape; alone (alpha near 0) better computed in float64.

    Raises
    ------
    ValueError
        For alpha outside [0, 1], shapes, lengths or options out of range.
    TypeError
        For other dtypes.

    References
    ----------
    Le Guen and Thome, "Shape and Time Distortion Loss for Training Deep Time Series Forecasting Models", NeurIPS 2019.

    Examples
    --------
    >>> import torch, torch_dalign as dalign
    >>> forecast, future = torch.randn(8, 20, 1, requires_grad=True), torch.randn(8, 20, 1)
    >>> loss, shape, temporal = dalign.DILATE(alpha=0.8)(forecast, future, return_parts=True)
    >>> loss.backward()
    >>> torch.allclose(loss, 0.8 * shape + 0.2 * temporal)
    True
    """

    def __init__(
        self,
        alpha: float = 0.5,
        gamma: float | Tensor = 0.01,
        penalty: Penalty = None,
        metric: Metric = "sqeuclidean",
        band: float | None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(gamma, reduction)
        check_metric(metric)
        _checks.band(band)
        self.alpha, self.metric, self.band = _alpha(alpha), metric, band
        _check_penalty(penalty, None)
        if isinstance(penalty, nn.Parameter) or not isinstance(penalty, Tensor):
            self.penalty = penalty
        else:
            self.register_buffer("penalty", penalty, persistent=False)

    def forward(
        self,
        input: Tensor,
        target: Tensor | None = None,
        x_lengths: Tensor | None = None,
        y_lengths: Tensor | None = None,
        return_parts: bool = False,
    ) -> Any:
        """The loss; ``input`` is the cost lattice for metric "precomputed"."""
        x, y, name = lattice_or_features(input, target, self.metric, ("input", "target"))
        shape = x.shape if y is None else (x.shape[0], x.shape[1], y.shape[1])
        problem = _problem(
            x, y, name, self.gamma, self.penalty, x_lengths, y_lengths, self.band, None, "corner", "corner", shape
        )
        values = problem.run(*problem.dilate_weights(self.alpha))
        if not return_parts:
            return self._reduce(values.loss)
        parts = values.loss, values.value, values.functional / problem.cells()
        return tuple(self._reduce(part) for part in parts)

    def extra_repr(self) -> str:
        """Alpha, gamma, and what differs from the defaults."""
        name = getattr(self.metric, "__name__", repr(self.metric)) if callable(self.metric) else repr(self.metric)
        parts = [f"alpha={self.alpha:g}", self._gamma_repr(), f"metric={name}"]
        if isinstance(self.penalty, Tensor):
            parts.append(f"penalty=tensor{tuple(self.penalty.shape)}")
        elif self.penalty is not None:
            parts.append(f"penalty={self.penalty!r}")
        parts += [f"band={self.band!r}"] if self.band is not None else []
        parts += [f"reduction={self.reduction!r}"] if self.reduction != "mean" else []
        return ", ".join(parts)


def _alpha(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"alpha must be a number from 0 to 1, got {type(value).__name__}")
    share = _checks.as_float(value)
    if not 0 <= share <= 1:
        raise ValueError(f"alpha must be a number from 0 to 1, got {value}")
    return share


# ---------------------------------------------------------------- a checked problem


class _Values(NamedTuple):
    """Per item: the weighted sum, soft-DTW, and T."""

    loss: Tensor
    value: Tensor
    functional: Tensor


class _Problem(NamedTuple):
    """A checked batch: features with a named metric, or a lattice of costs (then y and metric are None)."""

    x: Tensor
    y: Tensor | None
    metric: str | None
    gamma: Tensor
    omega: Tensor | None
    x_lengths: Tensor | None
    y_lengths: Tensor | None
    step_weights: list[float]
    start: list[int]
    end: list[int]
    band: float
    penalty: str
    shape: tuple[int, ...]

    def cells(self) -> Tensor:
        """N M with each item's own lengths, (B,) or ()."""
        n = torch.tensor(self.shape[1]) if self.x_lengths is None else self.x_lengths
        m = torch.tensor(self.shape[2]) if self.y_lengths is None else self.y_lengths
        return (n * m).to(self.x)

    def dilate_weights(self, alpha: float) -> tuple[Tensor, Tensor]:
        """Of soft-DTW and of T in the loss."""
        return self.x.new_tensor(alpha), (1 - alpha) / self.cells()

    def run(self, by_value: Tensor, by_functional: Tensor) -> _Values:
        """Values with these weights (B,) or () of soft-DTW and T in the loss."""
        batch = self.x.shape[0]
        weights = [w.to(self.x).expand(batch).contiguous() for w in (by_value, by_functional)]
        tensors = (self.x, self.y, self.gamma, self.omega)
        need = [torch.is_grad_enabled() and t is not None and t.requires_grad for t in tensors]
        found = PathFunction.apply(*tensors, *weights, *self[5:12], self.metric, *need)
        return _Values(*found[:3])


def _problem(
    x: Tensor,
    y: Tensor | None,
    metric: str | None,
    gamma: float | Tensor,
    penalty: Penalty,
    x_lengths: Tensor | None,
    y_lengths: Tensor | None,
    band: float | None,
    step_weights: Sequence[float] | None,
    start: str,
    end: str,
    shape: tuple[int, ...],
) -> _Problem:
    x_lengths = _checks.lengths(x_lengths, "x_lengths", shape[0], shape[1])
    y_lengths = _checks.lengths(_checks.apart(y_lengths, x_lengths), "y_lengths", shape[0], shape[2])
    if y is not None and metric == "nll":
        _checks.label_values(y, x.shape[2], y_lengths, "target")
    _check_penalty(penalty, shape)
    omega = penalty.to(x.dtype) if isinstance(penalty, Tensor) else None
    name = "given" if omega is not None else penalty or "squared"
    return _Problem(
        x,
        y,
        metric,
        _checks.gamma(gamma),
        omega,
        x_lengths,
        y_lengths,
        _checks.step_weights(step_weights),
        sides(start, "start"),
        sides(end, "end"),
        _checks.band(band),
        str(name),
        shape,
    )


def _check_penalty(penalty: object, shape: tuple[int, ...] | None, name: str = "penalty") -> None:
    """ValueError or TypeError unless it is None, the name of a formula or floating-point numbers (B|1, N, M)."""
    if penalty is None:
        return
    if isinstance(penalty, str):
        _checks.choice(penalty, f"{name} (if a name)", PENALTIES)
        return
    if not isinstance(penalty, Tensor) or not penalty.is_floating_point():
        kind = penalty.dtype if isinstance(penalty, Tensor) else type(penalty).__name__
        raise TypeError(f"{name} must be a name or a floating-point tensor, got {kind}")
    _checks.tensor(penalty, name)
    expected = "(B, N, M) or (1, N, M)" if shape is None else f"{tuple(shape)}, or 1 for the batch"
    fits = penalty.dim() == 3 and (
        shape is None or (penalty.shape[1:] == tuple(shape[1:]) and penalty.shape[0] in (1, shape[0]))
    )
    if not fits:
        raise ValueError(f"{name} must have shape {expected}, got {tuple(penalty.shape)}")


# ---------------------------------------------------------------- autograd

#: In the order of step_weights: down (1, 0), right (0, 1), diagonal (1, 1).
_STEPS = [number for step in THREE_STEPS for number in step]


class PathFunction(BatchedFunction):
    """(x, y, gamma, omega) -> loss, soft-DTW, T, and gradients of the loss for backward to scale.

    Backward computes them anew where soft-DTW or T are used on their own.
    """

    @staticmethod
    def forward(
        x: Tensor,
        y: Tensor | None,
        gamma: Tensor,
        omega: Tensor | None,
        by_value: Tensor,
        by_functional: Tensor,
        x_lengths: Tensor | None,
        y_lengths: Tensor | None,
        step_weights: list[float],
        start: list[int],
        end: list[int],
        band: float,
        penalty: str,
        metric: str | None,
        need_x: bool,
        need_y: bool,
        need_gamma: bool,
        need_omega: bool,
    ) -> tuple[Tensor, ...]:
        """Loss, soft-DTW and T (B,), then the loss's derivatives in x, y and omega and the mean cost."""
        options = (gamma, x_lengths, y_lengths, step_weights, start, end, band, penalty, omega)
        value, functional, *grads = _run(
            x, y, metric, options, by_value, by_functional, need_x, need_y, need_omega, need_gamma
        )
        loss = (by_value * value + by_functional * functional).masked_fill(value == torch.inf, torch.inf)
        return loss, value, functional, *grads

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        """Keep inputs and outputs."""
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(*output[3:])
        ctx.save_for_backward(*inputs[:8], *output[1:])
        ctx.options, ctx.metric = inputs[8:13], inputs[13]

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor | None, *others: Tensor | None) -> tuple[Tensor | None, ...]:
        """Gradients in x, y, gamma and omega."""
        run: Any = PathGradFunction.apply if is_differentiated_again() else PathGradFunction.forward
        needs = ctx.needs_input_grad[:4]
        found = run(grad_loss, *others[:2], *ctx.saved_tensors, ctx.options, ctx.metric, needs)
        return *(grad if need else None for grad, need in zip(found, needs, strict=True)), *(None,) * 14


class PathGradFunction(BatchedFunction):
    """Gradients of a weighted sum of loss, soft-DTW and T; they cannot be differentiated themselves."""

    @staticmethod
    def forward(
        grad_loss: Tensor | None,
        grad_value: Tensor | None,
        grad_functional: Tensor | None,
        x: Tensor,
        y: Tensor | None,
        gamma: Tensor,
        omega: Tensor | None,
        by_value: Tensor,
        by_functional: Tensor,
        x_lengths: Tensor | None,
        y_lengths: Tensor | None,
        value: Tensor,
        functional: Tensor,
        grad_x: Tensor,
        grad_y: Tensor,
        grad_omega: Tensor,
        mean_cost: Tensor,
        options: tuple[Any, ...],
        metric: str | None,
        needs: tuple[bool, ...],
    ) -> tuple[Tensor, ...]:
        """In x, y, gamma and omega; empty where not needed."""
        need_x, need_y, need_gamma, need_omega = needs
        zero = torch.zeros_like(value)
        factor = zero if grad_loss is None else grad_loss
        scale: Tensor | None = factor
        if grad_value is not None or grad_functional is not None:
            by_value = factor * by_value + (zero if grad_value is None else grad_value)
            by_functional = factor * by_functional + (zero if grad_functional is None else grad_functional)
            arguments = (gamma, x_lengths, y_lengths, *options, omega)
            _, _, grad_x, grad_y, grad_omega, mean_cost = _run(
                x, y, metric, arguments, by_value, by_functional, need_x, need_y, need_omega, need_gamma
            )
            scale = None
        if need_omega and omega is not None:
            grad_omega = _scaled(grad_omega, scale)
            grad_omega = grad_omega.sum(0, keepdim=True) if omega.shape[0] != x.shape[0] else grad_omega
        return (
            _scaled(grad_x, scale) if need_x else x.new_empty(0),
            _scaled(grad_y, scale) if need_y else x.new_empty(0),
            _grad_gamma(value, by_value, mean_cost, gamma, scale) if need_gamma else x.new_empty(0),
            grad_omega if need_omega else x.new_empty(0),
        )

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        """Nothing to keep."""

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> NoReturn:
        """Refuse."""
        raise RuntimeError(
            "torch_dalign: the expected cost of paths holds second derivatives of soft-DTW, and third-order "
            "derivatives are not implemented"
        )


def _run(
    x: Tensor,
    y: Tensor | None,
    metric: str | None,
    options: tuple[Any, ...],
    by_value: Tensor,
    by_functional: Tensor,
    need_x: bool,
    need_y: bool,
    need_omega: bool,
    need_mean_cost: bool,
) -> tuple[Tensor, ...]:
    """Soft-DTW, T, derivatives of their weighted sum in x, y and omega, mean cost; empty where not needed."""
    gamma, x_lengths, y_lengths, *rest = options
    arguments = (gamma, x_lengths, y_lengths, _STEPS, *rest, by_value, by_functional)
    if y is not None:
        return ops.dilate_features(x, y, metric, *arguments, need_x, need_y, need_omega, need_mean_cost)
    value, functional, grad_cost, grad_omega, mean_cost = ops.dilate(x, *arguments, need_x, need_omega, need_mean_cost)
    return value, functional, grad_cost, x.new_empty(0), grad_omega, mean_cost


def _scaled(grad: Tensor, factor: Tensor | None) -> Tensor:
    return grad if factor is None else factor[:, None, None] * grad


def _grad_gamma(value: Tensor, by_value: Tensor, mean_cost: Tensor, gamma: Tensor, factor: Tensor | None) -> Tensor:
    """Soft-DTW is homogeneous of degree 1 in (C, gamma), T of degree 0, so the sum's slope follows from <G, C>."""
    slope = ((by_value * value - mean_cost) / gamma).masked_fill(value == torch.inf, 0)
    return (slope if factor is None else factor * slope).sum()
