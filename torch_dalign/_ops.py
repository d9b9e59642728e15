"""Loads the compiled library, which registers the ops ``torch.ops.dalign.*``, and tells torch.compile their shapes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch  # before _C: the library needs torch's own
from torch import Tensor

from . import _C

ops = torch.ops.dalign

Pair = tuple[Tensor, Tensor]


def _fake(name: str) -> Callable[..., Any]:
    return torch.library.register_fake(f"dalign::{name}")


def _result(like: Tensor, need: bool) -> Tensor:
    """A contiguous gradient for `like`, or an empty tensor when it is not needed."""
    return like.new_empty(like.shape if need else (0,))


def _mean_cost(like: Tensor, need: bool) -> Tensor:
    return like.new_empty((like.shape[0] if need else 0,), dtype=torch.float64)


def _state(like: Tensor, n: int, m: int, band: float, keep: bool) -> Tensor:
    """What backward needs. Its size is known to the C library alone: with symbolic lengths it is a new symbol."""
    if not keep:
        size = 0
    elif isinstance(n, int) and isinstance(m, int):
        size = _C.softdtw_state_bytes(n, m, band, like.dtype == torch.float64)
    else:
        size = torch.library.get_ctx().new_dynamic_size(min=0)
    return like.new_empty((like.shape[0], size), dtype=torch.uint8)


@_fake("cost")
def _(x: Tensor, y: Tensor, metric: str) -> Tensor:
    return x.new_empty((x.shape[0], x.shape[1], y.shape[1]))


@_fake("cost_backward")
def _(x: Tensor, y: Tensor, metric: str, grad_cost: Tensor, need_x: bool, need_y: bool) -> Pair:
    return _result(x, need_x), _result(y, need_y)


@_fake("softdtw")
def _(
    cost: Tensor,
    gamma: Tensor,
    x_lengths: Tensor | None,
    y_lengths: Tensor | None,
    step_weights: list[float],
    band: float,
    keep: bool,
) -> Pair:
    return cost.new_empty((cost.shape[0],)), _state(cost, cost.shape[1], cost.shape[2], band, keep)


@_fake("softdtw_backward")
def _(
    cost: Tensor,
    gamma: Tensor,
    x_lengths: Tensor | None,
    y_lengths: Tensor | None,
    step_weights: list[float],
    band: float,
    value: Tensor,
    state: Tensor,
    grad_value: Tensor,
    need_mean_cost: bool,
) -> Pair:
    return _result(cost, True), _mean_cost(cost, need_mean_cost)


@_fake("softdtw_alignment")
def _(
    cost: Tensor,
    gamma: Tensor,
    x_lengths: Tensor | None,
    y_lengths: Tensor | None,
    step_weights: list[float],
    band: float,
) -> Tensor:
    return _result(cost, True)


@_fake("softdtw_hvp")
def _(
    cost: Tensor,
    tangent: Tensor,
    gamma: Tensor,
    x_lengths: Tensor | None,
    y_lengths: Tensor | None,
    step_weights: list[float],
    band: float,
) -> Tensor:
    return _result(cost, True)


@_fake("softdtw_features")
def _(
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
    need_mean_cost: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    value = x.new_empty((x.shape[0],))
    return value, _result(x, need_x), _result(y, need_y), _mean_cost(x, need_mean_cost)


def _paths(like: Tensor, n: int, m: int, need: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Values, paths and their lengths."""
    batch = like.shape[0]
    path = like.new_empty((batch, n + m - 1 if need else 0, 2), dtype=torch.int64)
    return like.new_empty((batch,)), path, like.new_empty((batch if need else 0,), dtype=torch.int64)


@_fake("dtw")
def _(
    cost: Tensor,
    x_lengths: Tensor | None,
    y_lengths: Tensor | None,
    steps: list[int],
    step_weights: list[float],
    band: float,
    itakura: float,
    free_start: bool,
    free_end: bool,
    need_path: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    return _paths(cost, cost.shape[1], cost.shape[2], need_path)


@_fake("dtw_features")
def _(
    x: Tensor,
    y: Tensor,
    metric: str,
    x_lengths: Tensor | None,
    y_lengths: Tensor | None,
    steps: list[int],
    step_weights: list[float],
    band: float,
    itakura: float,
    free_start: bool,
    free_end: bool,
    need_path: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    return _paths(x, x.shape[1], y.shape[1], need_path)


@_fake("dtw_pairs")
def _(
    x: Tensor,
    y: Tensor,
    metric: str,
    x_items: Tensor,
    y_items: Tensor,
    x_lengths: Tensor | None,
    y_lengths: Tensor | None,
    steps: list[int],
    step_weights: list[float],
    band: float,
    itakura: float,
    free_start: bool,
    free_end: bool,
    limit: float,
) -> Tensor:
    return x.new_empty(x_items.shape)


def _like(tensor: Tensor | None, of: Tensor, need: bool) -> Tensor:
    """The gradient of something that need not be there."""
    return of.new_empty((0,)) if tensor is None or not need else of.new_empty(tensor.shape)


@_fake("ddtw")
def _(
    cost: Tensor,
    gamma: Tensor,
    x_lengths: Tensor | None,
    y_lengths: Tensor | None,
    steps: list[int],
    step_weights: Tensor | None,
    start: list[int],
    start_cost: Tensor | None,
    end: list[int],
    end_cost: Tensor | None,
    smoothing: str,
    grad_value: Tensor | None,
    need_cost: bool,
    need_weights: bool,
    need_start: bool,
    need_end: bool,
    need_mean_cost: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    return (
        cost.new_empty((cost.shape[0],)),
        _result(cost, need_cost),
        _like(step_weights, cost, need_weights),
        _like(start_cost, cost, need_start),
        _like(end_cost, cost, need_end),
        _mean_cost(cost, need_mean_cost),
    )


@_fake("ddtw_path")
def _(
    cost: Tensor,
    x_lengths: Tensor | None,
    y_lengths: Tensor | None,
    steps: list[int],
    step_weights: Tensor | None,
    start: list[int],
    start_cost: Tensor | None,
    end: list[int],
    end_cost: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    return _paths(cost, cost.shape[1], cost.shape[2], True)


@_fake("ddtw_hvp")
def _(
    cost: Tensor,
    gamma: Tensor,
    x_lengths: Tensor | None,
    y_lengths: Tensor | None,
    steps: list[int],
    step_weights: Tensor | None,
    start: list[int],
    start_cost: Tensor | None,
    end: list[int],
    end_cost: Tensor | None,
    grad_value: Tensor | None,
    along_cost: Tensor | None,
    along_weights: Tensor | None,
    along_start: Tensor | None,
    along_end: Tensor | None,
    need_weights: bool,
    need_start: bool,
    need_end: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    return (
        _result(cost, True),
        _like(step_weights, cost, need_weights),
        _like(start_cost, cost, need_start),
        _like(end_cost, cost, need_end),
        _mean_cost(cost, True),
    )


# ---------------------------------------------------------------- decode


def _beams(like: Tensor, batch: int, top: int, frames: int) -> list[Tensor]:
    """Labels, lengths, log-probabilities, scores, and how many were found."""
    labels = like.new_empty((batch, top, frames), dtype=torch.int64)
    numbers = [like.new_empty((batch, top), dtype=dtype) for dtype in (torch.int64, torch.float64, torch.float64)]
    return [labels, *numbers, like.new_empty((batch,), dtype=torch.int64)]


@_fake("ctc_greedy_decode")
def _(log_probs: Tensor, input_lengths: Tensor | None, blank: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    frames, batch, _ = log_probs.shape
    shapes = ((batch, frames), (batch, frames, 2), (batch,))
    labels, spans, length = (log_probs.new_empty(shape, dtype=torch.int64) for shape in shapes)
    return labels, spans, length, log_probs.new_empty((batch,), dtype=torch.float64)


@_fake("ctc_beam_decode")
def _(
    log_probs: Tensor,
    input_lengths: Tensor | None,
    blank: int,
    width: int,
    top: int,
    token_threshold: float,
    scorer_weight: float,
    length_bonus: float,
    ngram: list[Tensor],
    contexts: int,
) -> tuple[Tensor, ...]:
    return tuple(_beams(log_probs, log_probs.shape[1], top, log_probs.shape[0]))


@_fake("ctc_beam_open")
def _(
    log_probs: Tensor,
    input_lengths: Tensor | None,
    blank: int,
    width: int,
    top: int,
    token_threshold: float,
    scorer_weight: float,
    length_bonus: float,
) -> tuple[Tensor, ...]:
    state = log_probs.new_empty((torch.library.get_ctx().new_dynamic_size(),), dtype=torch.uint8)
    return (state, *_beams(log_probs, 1, top, log_probs.shape[0]))


@_fake("ctc_beam_step")
def _(
    log_probs: Tensor,
    input_lengths: Tensor | None,
    blank: int,
    width: int,
    top: int,
    token_threshold: float,
    scorer_weight: float,
    length_bonus: float,
    state: Tensor,
    labels: Tensor,
    length: Tensor,
    log_prob: Tensor,
    score: Tensor,
    found: Tensor,
    answers: Tensor,
) -> tuple[Tensor, ...]:
    questions, rows = (torch.library.get_ctx().new_dynamic_size(min=0) for _ in range(2))
    shapes = ((questions,), (questions,), (rows, log_probs.shape[0]), (rows,))
    return tuple(log_probs.new_empty(shape, dtype=torch.int64) for shape in shapes)


@_fake("ngram_log_probs")
def _(labels: Tensor, ngram: list[Tensor], classes: int, contexts: int) -> Tensor:
    return labels.new_empty((labels.shape[0] + 1,), dtype=torch.float64)


def _laid_out_as(like: Tensor, need: bool) -> Tensor:
    """A gradient with the strides of `like`, or of a contiguous copy where its last dimension has gaps."""
    if not need:
        return like.new_empty((0,))
    return torch.empty_like(like if like.stride(2) == 1 else like.contiguous())


@_fake("ctc")
def _(
    log_probs: Tensor,
    targets: Tensor,
    input_lengths: Tensor,
    target_lengths: Tensor,
    blank: int,
    from_logits: bool,
    weights: Tensor | None,
    need_grad: bool,
) -> Pair:
    return log_probs.new_empty((log_probs.shape[0],)), _laid_out_as(log_probs, need_grad)


@_fake("ctc_alignment")
def _(
    log_probs: Tensor, targets: Tensor, input_lengths: Tensor, target_lengths: Tensor, blank: int, columns: int
) -> Tensor:
    return log_probs.new_empty((*log_probs.shape[:2], columns))


@_fake("ctc_hvp")
def _(
    log_probs: Tensor,
    tangent: Tensor,
    targets: Tensor,
    input_lengths: Tensor,
    target_lengths: Tensor,
    blank: int,
    by_states: bool,
) -> Tensor:
    return log_probs.new_empty(log_probs.shape)


@_fake("ctc_align")
def _(
    log_probs: Tensor, targets: Tensor, input_lengths: Tensor, target_lengths: Tensor, blank: int, labels: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    batch, frames, _ = log_probs.shape
    value = log_probs.new_empty((batch,), dtype=torch.float64)
    states = log_probs.new_empty((batch, frames), dtype=torch.int64)
    spans = log_probs.new_empty((batch, labels, 2), dtype=torch.int64)
    return value, states, spans, log_probs.new_empty((batch, labels), dtype=torch.float64)


@_fake("dilate")
def _(
    cost: Tensor,
    gamma: Tensor,
    x_lengths: Tensor | None,
    y_lengths: Tensor | None,
    steps: list[int],
    step_weights: list[float],
    start: list[int],
    end: list[int],
    band: float,
    penalty: str,
    omega: Tensor | None,
    grad_value: Tensor | None,
    grad_functional: Tensor | None,
    need_cost: bool,
    need_omega: bool,
    need_mean_cost: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    value = cost.new_empty((cost.shape[0],))
    grad_omega = cost.new_empty((cost.shape[0] if need_omega else 0, *cost.shape[1:]))
    return value, torch.empty_like(value), _result(cost, need_cost), grad_omega, _mean_cost(cost, need_mean_cost)


@_fake("dilate_features")
def _(
    x: Tensor,
    y: Tensor,
    metric: str,
    gamma: Tensor,
    x_lengths: Tensor | None,
    y_lengths: Tensor | None,
    steps: list[int],
    step_weights: list[float],
    start: list[int],
    end: list[int],
    band: float,
    penalty: str,
    omega: Tensor | None,
    grad_value: Tensor | None,
    grad_functional: Tensor | None,
    need_x: bool,
    need_y: bool,
    need_omega: bool,
    need_mean_cost: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    value = x.new_empty((x.shape[0],))
    grad_omega = x.new_empty((x.shape[0] if need_omega else 0, x.shape[1], y.shape[1]))
    grads = _result(x, need_x), _result(y, need_y), grad_omega
    return value, torch.empty_like(value), *grads, _mean_cost(x, need_mean_cost)


# ---------------------------------------------------------------- gdtw


@_fake("gdtw")
def _(
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
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    batch, knots, _ = x.shape
    phi = x.new_empty((batch, knots), dtype=torch.float64)
    objective, status = phi.new_empty((batch,)), x.new_empty((batch,), dtype=torch.int32)
    blocked, counts = (x.new_empty(shape, dtype=torch.int64) for shape in ((batch,), (batch, 4)))
    return phi, objective, status, blocked, counts, x.new_empty((batch, knots, 3), dtype=torch.int32)


@_fake("gdtw_backward")
def _(
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
    phi: Tensor,
    objective: Tensor,
    status: Tensor,
    state: Tensor,
    grad_phi: Tensor,
    grad_objective: Tensor,
    need: list[int],
) -> tuple[Tensor, ...]:
    batch, knots, _ = x.shape
    edge, knot, item = (batch, knots - 1), (batch, knots), (batch,)
    shapes = (knot, (batch, y.shape[1]), edge, item, edge, edge, knot, knot)
    numbers = (phi.new_empty(shape if wanted else (0,)) for shape, wanted in zip(shapes, need[2:], strict=True))
    return _result(x, bool(need[0])), _result(y, bool(need[1])), *numbers


# ---------------------------------------------------------------- tap


def _tap_pairs(x: Tensor, x_of: Tensor | None) -> int:
    return (x if x_of is None else x_of).shape[0]


@_fake("tap")
def _(
    x: Tensor,
    y: Tensor,
    x_lengths: Tensor | None,
    y_lengths: Tensor | None,
    x_of: Tensor | None,
    y_of: Tensor | None,
    energy_x: Tensor | None,
    energy_y: Tensor | None,
    parameters: Tensor,
    kernels: list[int],
    channels: list[int],
    energy_scale: float,
    position_scale: float,
    last_relu: bool,
    precise: bool,
    need_alignment: bool,
    need_transport: bool,
    keep_bytes: int,
) -> tuple[Tensor, ...]:
    pairs = _tap_pairs(x, x_of)
    maps = (x.new_empty((pairs, x.shape[1], y.shape[1]) if need else (0,)) for need in (need_alignment, need_transport))
    # The state depends on the lengths, which only the call itself knows.
    size = torch.library.get_ctx().new_dynamic_size(min=0) if keep_bytes > 0 else 0
    state = x.new_empty((size,), dtype=torch.uint8)
    return x.new_empty((pairs,)), *maps, state, x.new_empty((pairs if keep_bytes > 0 else 0,), dtype=torch.int64)


@_fake("tap_backward")
def _(
    x: Tensor,
    y: Tensor,
    x_lengths: Tensor | None,
    y_lengths: Tensor | None,
    x_of: Tensor | None,
    y_of: Tensor | None,
    energy_x: Tensor | None,
    energy_y: Tensor | None,
    parameters: Tensor,
    kernels: list[int],
    channels: list[int],
    energy_scale: float,
    position_scale: float,
    last_relu: bool,
    precise: bool,
    state: Tensor,
    state_at: Tensor,
    grad_value: Tensor | None,
    grad_alignment: Tensor | None,
    grad_transport: Tensor | None,
    need: list[int],
) -> tuple[Tensor, ...]:
    pairs = _tap_pairs(x, x_of)
    frames = [
        x.new_empty((0,)) if like is None or not wanted else x.new_empty((pairs, *like.shape[1:]))
        for like, wanted in zip((x, y, energy_x, energy_y), need[:4], strict=True)
    ]
    return *frames, _result(parameters, bool(need[4]))
