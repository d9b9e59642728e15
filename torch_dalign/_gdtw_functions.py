"""GDTW as an autograd Function, and the checks of what goes into it."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import _checks
from ._autograd import BatchedFunction, is_differentiated_again
from ._ops import ops

Penalty = str | tuple[str, float]
Number = float | Tensor | None
Times = Tensor | None
INFEASIBLE = 1
ENDS = ("fixed", "free", "free_start", "free_end")
QUALITIES = ("fast", "default", "thorough")
ON_INFEASIBLE = ("raise", "nan")


class Problem(NamedTuple):
    """A checked batch, in the order of the ops: features, then numbers per knot, edge or item, all float64."""

    x: Tensor
    y: Tensor
    x_lengths: Tensor | None
    y_lengths: Tensor | None
    x_times: Tensor | None
    y_times: Tensor | None
    reg_weight: Tensor
    nominal_slope: Tensor | None
    slope_min: Tensor | None
    slope_max: Tensor | None
    band_min: Tensor | None
    band_max: Tensor | None
    fixed_start: bool
    fixed_end: bool
    loss: str
    loss_parameter: float
    regularizer: str
    regularizer_parameter: float
    quality: str


class Solution(NamedTuple):
    """What the op gives."""

    phi: Tensor
    objective: Tensor
    status: Tensor
    blocked: Tensor
    counts: Tensor
    state: Tensor


class GDTWFunction(BatchedFunction):
    """Problem -> Solution; phi and objective are differentiable, by the implicit function theorem."""

    @staticmethod
    def forward(
        x: Tensor,
        y: Tensor,
        x_lengths: Tensor | None,
        y_lengths: Tensor | None,
        x_times: Tensor | None,
        y_times: Tensor | None,
        reg_weight: Tensor,
        nominal_slope: Tensor | None,
        slope_min: Tensor | None,
        slope_max: Tensor | None,
        band_min: Tensor | None,
        band_max: Tensor | None,
        fixed_start: bool,
        fixed_end: bool,
        loss: str,
        loss_parameter: float,
        regularizer: str,
        regularizer_parameter: float,
        quality: str,
    ) -> tuple[Tensor, ...]:
        """The warp."""
        problem = Problem(
            x,
            y,
            x_lengths,
            y_lengths,
            x_times,
            y_times,
            reg_weight,
            nominal_slope,
            slope_min,
            slope_max,
            band_min,
            band_max,
            fixed_start,
            fixed_end,
            loss,
            loss_parameter,
            regularizer,
            regularizer_parameter,
            quality,
        )
        return ops.gdtw(*problem)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        """Keep the inputs, and which segments and constraints hold each knot."""
        phi, objective, status, blocked, counts, state = output
        ctx.mark_non_differentiable(status, blocked, counts, state)
        ctx.save_for_backward(*inputs[:12], phi, objective, status, state)
        ctx.options = inputs[12:]

    @staticmethod
    def backward(ctx: Any, grad_phi: Tensor, grad_objective: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        """The adjoint, in time O(m D)."""
        if is_differentiated_again():
            raise RuntimeError("torch_dalign: gdtw has no second derivative: it would need the third ones of the loss")
        saved = ctx.saved_tensors
        needed = [flag for at, flag in enumerate(ctx.needs_input_grad[:12]) if at not in (2, 3)]
        problem, solution = (*saved[:12], *ctx.options), saved[12:]
        grads = ops.gdtw_backward(*problem, *solution, grad_phi, grad_objective, [int(flag) for flag in needed])
        found = [grad if flag else None for grad, flag in zip(grads, needed, strict=True)]
        return *found[:2], None, None, *found[2:], *(None,) * len(ctx.options)


def solve(problem: Problem, on_infeasible: str) -> Solution:
    """The solution; ValueError for an item without one, where that is asked for."""
    solution = Solution(*GDTWFunction.apply(*problem))
    if on_infeasible == "raise" and not torch.compiler.is_compiling() and not solution.status.is_meta:
        status = solution.status.tolist()
        if INFEASIBLE in status:
            item = status.index(INFEASIBLE)
            knot = int(solution.blocked[item])
            raise ValueError(
                f"no warp of item {item} meets its bounds: knot {knot} is the first to which they leave no room "
                f"(on_infeasible='nan' gives NaN for such items)"
            )
    return solution


def result_dtype(x: Tensor, *times: object) -> torch.dtype:
    """float64 where features or times are, else float32."""
    double = any(isinstance(t, Tensor) and t.dtype == torch.float64 for t in (x, *times))
    return torch.float64 if double else torch.float32


# ---------------------------------------------------------------- checks


def penalty(value: object, name: str, plain: str) -> tuple[str, float]:
    """Kind and parameter as the ops take them: plain squares, ("p", p > 1) or ("huber", delta > 0)."""
    expected = f"{name} must be {plain!r}, ('p', p) with p > 1 or ('huber', delta) with delta > 0"
    if value == plain:
        return "squares", 2.0
    if isinstance(value, str) or not isinstance(value, Sequence) or len(value) != 2 or value[0] not in ("p", "huber"):
        raise ValueError(f"{expected}, got {value!r}")
    kind, parameter = value
    if isinstance(parameter, bool) or not isinstance(parameter, numbers.Real):
        raise TypeError(f"{expected}, got {parameter!r}")
    size = _checks.as_float(parameter)
    if kind == "p" and size == 1:
        raise ValueError(f"{expected}: p = 1 has kinks between the samples; ('huber', delta) with small delta is close")
    if not (1 if kind == "p" else 0) < size < math.inf:
        raise ValueError(f"{expected}, got {value!r}")
    return ("power" if kind == "p" else "huber"), size


def series(value: object, name: str, batch: int, count: int) -> Tensor | None:
    """Numbers (batch, count) in float64, expanded, attached to the graph where they came as a tensor."""
    if value is None:
        return None
    if not isinstance(value, Tensor):
        return torch.tensor(number(value, name), dtype=torch.float64).expand(batch, count)
    checked = _checks.real(value, name)
    own = (1,) * (2 - checked.dim()) + tuple(checked.shape)
    if checked.dim() > 2 or own[0] not in (1, batch) or own[1] not in (1, count):
        raise ValueError(f"{name} must be a number or broadcast to ({batch}, {count}), got shape {tuple(value.shape)}")
    return checked.double().expand(batch, count)


def number(value: object, name: str) -> float:
    """A float that is not NaN."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number or a tensor, got {type(value).__name__}")
    checked = _checks.as_float(value)
    if math.isnan(checked):
        raise ValueError(f"{name} must be a number, got nan")
    return checked


def reg_weight(value: object, batch: int, edges: int) -> Tensor:
    """lambda of every edge, finite and not negative."""
    checked = series(value, "reg_weight", batch, edges)
    if checked is None:
        raise TypeError("reg_weight must be a number or a tensor, got NoneType")
    given = value.detach() if isinstance(value, Tensor) else checked[:1, :1]
    if given.numel() and not torch.compiler.is_compiling() and not checked.is_meta:
        low, high = (bound.item() for bound in given.aminmax())  # both NaN where there is one
        if not 0 <= low <= high < math.inf:
            wrong = ~((given >= 0) & (given < math.inf))
            raise ValueError(f"reg_weight must be finite and >= 0, got {given[wrong][0].item():g}")
    return checked


def nominal_slope(value: object, batch: int) -> Tensor | None:
    """s0 of every item (batch,)."""
    if isinstance(value, Tensor) and value.dim() == 1:
        if value.shape[0] != batch:
            raise ValueError(f"nominal_slope must be a number or have shape ({batch},), got {tuple(value.shape)}")
        return _checks.real(value, "nominal_slope").double()
    if isinstance(value, Tensor) and value.dim():
        raise ValueError(f"nominal_slope must be a number or have shape ({batch},), got {tuple(value.shape)}")
    checked = series(value, "nominal_slope", batch, 1)
    return None if checked is None else checked[:, 0]


def times(value: object, name: str, batch: int, frames: int, lengths: Tensor | None) -> Tensor | None:
    """Time stamps (batch, frames) in float64, which grow up to each item's length."""
    if value is None:
        return None
    checked = _checks.real(value, name)
    if checked.shape not in ((frames,), (1, frames), (batch, frames)):
        raise ValueError(f"{name} must have shape ({frames},) or ({batch}, {frames}), got {tuple(checked.shape)}")
    checked = checked.double().expand(batch, frames)
    if not torch.compiler.is_compiling() and not checked.is_meta:
        wrong = ~(checked.detach().diff(dim=1) > 0)
        if lengths is not None:
            wrong = wrong & ~_checks.padding(frames, lengths)[:, 1:]
        if wrong.any():
            b, i = wrong.nonzero()[0].tolist()
            before, after = checked[b, i : i + 2].tolist()
            raise ValueError(f"{name} must grow, got {before:g} and then {after:g} in item {b} at frame {i + 1}")
    return checked
