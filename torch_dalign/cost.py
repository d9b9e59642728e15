"""Pairwise costs of the frames of two sequences, and their gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from . import _checks
from ._autograd import BatchedFunction, LastDerivative, is_differentiated_again
from ._ops import ops

Metric = str | Callable[[Tensor, Tensor], Tensor]
LOG_FLOOR = -100.0  # the "bce" metric clamps its logarithms here, as torch does


def pairwise(x: Tensor, y: Tensor, metric: str = "sqeuclidean") -> Tensor:
    r"""Cost of every frame of x against every frame of y.

    ============== ======================================================= ==================================
    metric         :math:`C_{ij}`                                          note
    ============== ======================================================= ==================================
    "sqeuclidean"  :math:`\sum_d (x_{id} - y_{jd})^2`
    "euclidean"    :math:`\sqrt{\sum_d (x_{id} - y_{jd})^2}`               gradient 0 at distance 0
    "manhattan"    :math:`\sum_d |x_{id} - y_{jd}|`                        gradient 0 at difference 0
    "cosine"       :math:`1 - \langle x_i, y_j \rangle / (|x_i| |y_j|)`    1, gradient 0 for a zero frame
    "nll"          :math:`-x_{i, y_j}`                                     x: log-probabilities, y: classes
    "bce"          :math:`-\sum_d y_{jd} \log x_{id}                       x: probabilities, y: multi-hot;
                   + (1 - y_{jd}) \log(1 - x_{id})`                        logarithms clamped at -100
    ============== ======================================================= ==================================

    Parameters
    ----------
    x : Tensor
        (B, N, D), float32 or float64; float16 and bfloat16 are computed in float32.
    y : Tensor
        (B, M, D) of the same dtype, or (B, M) integer class indices in [0, D) for "nll".
    metric : str
        One of the six above.

    Returns
    -------
    Tensor
        (B, N, M), float64 for float64 input, else float32. Twice differentiable in x and y (the second time in eager
        mode only, and for "euclidean" and "manhattan" with B N M D numbers of memory).

    Raises
    ------
    ValueError
        For an unknown metric, shapes that do not fit, or a class index out of range.
    TypeError
        For other dtypes.

    Examples
    --------
    >>> import torch, torch_dalign as dalign
    >>> x, y = torch.tensor([[[0.0], [2.0]]]), torch.tensor([[[0.0], [1.0], [3.0]]])
    >>> dalign.pairwise(x, y, "sqeuclidean")
    tensor([[[0., 1., 9.],
             [4., 1., 1.]]])
    """
    _checks.choice(metric, "metric", _checks.METRICS)
    x, y = _checks.features(x, y, metric)
    if metric == "nll":
        _checks.label_values(y, x.shape[2], None)
    return CostFunction.apply(x, y, metric)


def check_metric(metric: object) -> None:
    """ValueError unless metric is the name of one, "precomputed", or callable."""
    if not callable(metric):
        _checks.choice(metric, "metric (if not callable)", (*_checks.METRICS, "precomputed"))


def lattice_or_features(
    x: Tensor, y: Tensor | None, metric: Metric, names: tuple[str, str] = ("x", "y")
) -> tuple[Tensor, Tensor | None, str | None]:
    """Checked features with the name of their metric; or a lattice (B, N, M), None, None. names: for messages."""
    check_metric(metric)
    second = names[1]
    if metric == "precomputed":
        if y is not None:
            raise ValueError(
                f"{second} must be left out for metric 'precomputed': loss(cost, x_lengths=..., y_lengths=...)"
            )
        return _checks.lattice(x), None, None
    if y is None:
        raise TypeError(f"{second} is missing (it may be left out for metric 'precomputed' alone, not for {metric!r})")
    if not isinstance(metric, str):
        return _checks.lattice(metric(x, y), "the result of metric(x, y)"), None, None
    return *_checks.features(x, _checks.apart(y, x), metric, names), metric


def paired(x: Tensor, y: Tensor, metric: str) -> Tensor:
    """Costs (P,) of frames x (P, D) against frames y (P, D), or (P,) classes: `pairwise` for given pairs.

    Plain differentiable expressions with the same conventions, as the kernel's tiles would hold one pair each; but
    "bce" takes the kernel, whose gradient is not that of the formula where probabilities are 0 or 1.
    """
    if metric == "nll":
        return -x.gather(1, y[:, None])[:, 0]
    if metric == "cosine":
        (unit_x, _), (unit_y, _) = (_unit(frames[None]) for frames in (x, y))
        return 1 - (unit_x * unit_y)[0].sum(1)
    if metric == "bce":
        return CostFunction.apply(x[:, None], y[:, None], metric)[:, 0, 0]
    if metric == "manhattan":
        return (x - y).abs().sum(1)
    squared = (x - y).square().sum(1)
    if metric == "sqeuclidean":
        return squared
    apart = squared != 0
    return torch.where(apart, torch.where(apart, squared, 1).sqrt(), 0)


class CostFunction(BatchedFunction):
    """(x, y) -> C."""

    @staticmethod
    def forward(x: Tensor, y: Tensor, metric: str) -> Tensor:
        """C (B, N, M)."""
        return ops.cost(x, y, metric)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Keep the features."""
        x, y, ctx.metric = inputs
        ctx.save_for_backward(x, y)

    @staticmethod
    def backward(ctx: Any, grad_cost: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of x and y."""
        x, y = ctx.saved_tensors
        need_x, need_y = ctx.needs_input_grad[0], ctx.needs_input_grad[1]
        run = CostGradFunction.apply if is_differentiated_again() else CostGradFunction.forward
        grad_x, grad_y = run(x, y, grad_cost, ctx.metric, need_x, need_y)
        return grad_x if need_x else None, grad_y if need_y else None, None


class CostGradFunction(BatchedFunction):
    """(x, y, G) -> gradients of <G, C(x, y)> in x and y."""

    @staticmethod
    def forward(
        x: Tensor, y: Tensor, grad_cost: Tensor, metric: str, need_x: bool, need_y: bool
    ) -> tuple[Tensor, Tensor]:
        """Both gradients; the one that is not needed is empty."""
        return ops.cost_backward(x, y, metric, grad_cost, need_x, need_y)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        """Keep everything."""
        x, y, grad_cost, ctx.metric, ctx.need_x, ctx.need_y = inputs
        ctx.save_for_backward(x, y, grad_cost)

    @staticmethod
    def backward(ctx: Any, tangent_x: Tensor, tangent_y: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of <tangent_x, grad_x> + <tangent_y, grad_y> in x, y and G."""
        x, y, grad_cost = ctx.saved_tensors
        grads = CostHessianFunction.apply(
            x,
            y,
            grad_cost,
            tangent_x if ctx.need_x else None,
            tangent_y if ctx.need_y else None,
            ctx.metric,
        )
        needed = [g if need else None for g, need in zip(grads, ctx.needs_input_grad[:3], strict=True)]
        return *needed, None, None, None


class CostHessianFunction(LastDerivative):
    """The second derivative, by torch's own differentiation of the formulas of `adjoint`."""

    @staticmethod
    def forward(
        x: Tensor, y: Tensor, grad_cost: Tensor, tangent_x: Tensor | None, tangent_y: Tensor | None, metric: str
    ) -> tuple[Tensor, ...]:
        """Gradients in x, y and G (zeros where there is none)."""
        with torch.enable_grad():
            inputs = [leaf(t) for t in (x, y, grad_cost)]
            outputs = adjoint(inputs[0], inputs[1], inputs[2], metric)
            return gradients(outputs, (tangent_x, tangent_y), inputs)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        """Nothing to keep."""


def leaf(value: Tensor) -> Tensor:
    """A copy-free leaf of a new graph (class indices have none)."""
    return value.detach().requires_grad_(value.is_floating_point())


def gradients(
    outputs: tuple[Tensor | None, ...], grad_outputs: tuple[Tensor | None, ...], inputs: list[Tensor]
) -> tuple[Tensor, ...]:
    """Gradients of sum_k <outputs_k, grad_outputs_k> in the inputs, zeros where there is none."""
    pairs = [(o, g) for o, g in zip(outputs, grad_outputs, strict=True) if o is not None and g is not None]
    pairs = [(o, g) for o, g in pairs if o.requires_grad]
    wanted = [t for t in inputs if t.requires_grad]
    found = iter(
        torch.autograd.grad([o for o, _ in pairs], wanted, [g for _, g in pairs], allow_unused=True)
        if pairs
        else [None] * len(wanted)
    )
    results = [next(found) if t.requires_grad else None for t in inputs]
    return tuple(torch.zeros_like(t) if g is None else g for t, g in zip(inputs, results, strict=True))


def adjoint(x: Tensor, y: Tensor, grad_cost: Tensor, metric: str) -> tuple[Tensor, Tensor | None]:
    """The gradients of <G, C(x, y)> in x and y as plain, differentiable torch expressions."""
    if metric == "nll":
        classes = torch.nn.functional.one_hot(y, x.shape[2]).to(x.dtype)
        return -(grad_cost @ classes), None
    return {
        "sqeuclidean": _adjoint_sqeuclidean,
        "euclidean": _adjoint_euclidean,
        "manhattan": _adjoint_manhattan,
        "cosine": _adjoint_cosine,
        "bce": _adjoint_bce,
    }[metric](x, y, grad_cost)


def _adjoint_sqeuclidean(x: Tensor, y: Tensor, grad_cost: Tensor) -> tuple[Tensor, Tensor]:
    rows, columns = grad_cost.sum(2, keepdim=True), grad_cost.sum(1).unsqueeze(2)
    return 2 * (rows * x - grad_cost @ y), 2 * (columns * y - grad_cost.mT @ x)


def _adjoint_euclidean(x: Tensor, y: Tensor, grad_cost: Tensor) -> tuple[Tensor, Tensor]:
    squared = (x.unsqueeze(2) - y.unsqueeze(1)).square().sum(3)
    apart = squared != 0
    slope = torch.where(apart, grad_cost / (2 * torch.where(apart, squared, 1).sqrt()), 0)
    return _adjoint_sqeuclidean(x, y, slope)


def _adjoint_manhattan(x: Tensor, y: Tensor, grad_cost: Tensor) -> tuple[Tensor, Tensor]:
    flow = grad_cost.unsqueeze(3) * (x.unsqueeze(2) - y.unsqueeze(1)).sign()
    return flow.sum(2), -flow.sum(1)


def _adjoint_cosine(x: Tensor, y: Tensor, grad_cost: Tensor) -> tuple[Tensor, Tensor]:
    (unit_x, inverse_x), (unit_y, inverse_y) = _unit(x), _unit(y)
    alike = grad_cost * (unit_x @ unit_y.mT)
    grad_x = alike.sum(2, keepdim=True) * unit_x - grad_cost @ unit_y
    grad_y = alike.sum(1).unsqueeze(2) * unit_y - grad_cost.mT @ unit_x
    return grad_x * inverse_x, grad_y * inverse_y


def _unit(x: Tensor) -> tuple[Tensor, Tensor]:
    """x / |x| and 1 / |x|, both 0 for a zero frame."""
    squared = x.square().sum(2, keepdim=True)
    filled = squared != 0
    inverse = torch.where(filled, torch.where(filled, squared, 1).rsqrt(), 0)
    return x * inverse, inverse


def _adjoint_bce(x: Tensor, y: Tensor, grad_cost: Tensor) -> tuple[Tensor, Tensor]:
    on, total = grad_cost @ y, grad_cost.sum(2, keepdim=True)
    grad_x = (total - on) * _log_slope(1 - x) - on * _log_slope(x)
    grad_y = grad_cost.mT @ (_clamped_log(1 - x) - _clamped_log(x))
    return grad_x, grad_y


def _clamped_log(p: Tensor) -> Tensor:
    free = ~(p.detach().log() <= LOG_FLOOR)
    return torch.where(free, torch.where(free, p, 1).log(), LOG_FLOOR)


def _log_slope(p: Tensor) -> Tensor:
    """Derivative of the clamped logarithm."""
    free = ~(p.detach().log() <= LOG_FLOOR)
    return torch.where(free, 1 / torch.where(free, p, 1), 0)
