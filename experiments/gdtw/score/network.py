"""One bidirectional GRU for each side, from frames of a spectrum to features of norm 1."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from experiments.gdtw.score.data import Batch


class Sides(NamedTuple):
    """Features (B, N, D) of the scores and (B, M, D) of the performances."""

    score: Tensor
    played: Tensor


class Identity(nn.Module):
    """Base features: frames as they are."""

    def forward(self, batch: Batch) -> Sides:
        return Sides(batch.score, batch.played)


class Extractor(nn.Module):
    """The paper's network: one layer, features of both directions side by side, and a network for each side.

    Both start from the same weights, so that equal frames have equal features at first. On a CPU the time of a GRU is
    the number of its steps, not their size; so both sides and both directions go through `scan` together.
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.score = nn.GRU(in_features, out_features // 2, bidirectional=True, batch_first=True)
        self.played = copy.deepcopy(self.score)

    def forward(self, batch: Batch) -> Sides:
        count = max(batch.score.shape[1], batch.played.shape[1])
        orders = [_reversal(lengths, count) for lengths in (batch.score_lengths, batch.played_lengths)]
        networks = self.score, self.played
        gates = [
            gate
            for gru, frames, order in zip(networks, (batch.score, batch.played), orders, strict=True)
            for gate in _gates(gru, frames, order)
        ]
        weights, biases = (
            torch.stack([parameter for gru in networks for parameter in _directions(gru, name)])
            for name in ("weight_hh", "bias_hh")
        )
        states = scan(torch.stack(gates, dim=1), weights, biases)
        score, played = (
            _features(pair[:, 0], pair[:, 1], order) for pair, order in zip(states.split(2, dim=1), orders, strict=True)
        )
        return Sides(score[:, : batch.score.shape[1]], played[:, : batch.played.shape[1]])


def make(in_features: int, out_features: int, seed: int) -> Extractor:
    """The untrained network, the same for the same seed."""
    torch.manual_seed(seed)
    return Extractor(in_features, out_features)


def _reversal(lengths: Tensor, count: int) -> Tensor:
    """(B, count) frames of each item from its end to its start, and its padding where it was."""
    frame = torch.arange(count)
    return torch.where(frame < lengths[:, None], lengths[:, None] - 1 - frame, frame)


def _directions(gru: nn.GRU, name: str) -> tuple[Tensor, Tensor]:
    """A parameter of the forward and of the backward direction."""
    return gru.get_parameter(f"{name}_l0"), gru.get_parameter(f"{name}_l0_reverse")


def _gates(gru: nn.GRU, frames: Tensor, order: Tensor) -> tuple[Tensor, Tensor]:
    """(T, B, 3H) what a GRU's input adds to its gates, step by step of both directions."""
    frames = F.pad(frames, (0, 0, 0, order.shape[1] - frames.shape[1]))
    weights, biases = _directions(gru, "weight_ih"), _directions(gru, "bias_ih")
    forward, backward = (F.linear(frames, weight, bias) for weight, bias in zip(weights, biases, strict=True))
    return forward.transpose(0, 1), _reordered(backward, order).transpose(0, 1)


def _features(forward: Tensor, backward: Tensor, order: Tensor) -> Tensor:
    """(B, T, 2H) of norm 1, from the states (T, B, H) of both directions."""
    both = torch.cat([forward.transpose(0, 1), _reordered(backward.transpose(0, 1), order)], dim=2)
    return F.normalize(both, dim=2)


def _reordered(rows: Tensor, order: Tensor) -> Tensor:
    return rows.gather(1, order[:, :, None].expand_as(rows))


# --- Several GRUs in step ---------------------------------------------------------------------------------------------


def scan(gates: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    r"""States (T, G, B, H) of G GRUs, from states 0.

    With (r, z, n) the parts of the input's `gates` (T, G, B, 3H) and (r', z', n') those of W h + b, as torch has them:

    .. math:: R = \sigma(r + r'), \quad Z = \sigma(z + z'), \quad C = \tanh(n + R n'), \quad h \leftarrow C + Z (h - C)

    Parameters: `weight` (G, 3H, H), `bias` (G, 3H). The states of an item after its last frame mean nothing, and as
    nothing looks at them nothing flows back.
    """
    states: Tensor = _Scan.apply(gates, weight, bias)
    return states


class _Scan(torch.autograd.Function):
    """Steps without a graph; backward a step is dh -> Z dh + W^T (K dh) with K known for all steps at once."""

    @staticmethod
    def forward(ctx: Any, gates: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        steps, groups, batch, _ = gates.shape
        size = weight.shape[2]
        states = gates.new_zeros(steps + 1, groups, batch, size)
        opened, candidate = gates.new_empty(steps, groups, batch, 2 * size), torch.empty_like(states[1:])
        recurrent = torch.empty_like(candidate)
        across, offset = weight.transpose(1, 2).contiguous(), bias[:, None]
        for step in range(steps):
            added = torch.baddbmm(offset, states[step], across)
            torch.add(gates[step, ..., : 2 * size], added[..., : 2 * size], out=opened[step]).sigmoid_()
            reset, update = opened[step].split(size, dim=-1)
            recurrent[step] = added[..., 2 * size :]
            torch.addcmul(gates[step, ..., 2 * size :], reset, recurrent[step], out=candidate[step]).tanh_()
            torch.lerp(candidate[step], states[step], update, out=states[step + 1])
        ctx.save_for_backward(weight, states, opened, candidate, recurrent)
        return states[1:].clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        weight, states, opened, candidate, recurrent = ctx.saved_tensors
        steps, groups, batch, size = candidate.shape
        reset, update = opened.split(size, dim=-1)
        of_candidate = (1 - update) * (1 - candidate**2)
        of_update = (states[:-1] - candidate) * update * (1 - update)
        of_reset = of_candidate * recurrent * reset * (1 - reset)
        factors = torch.stack([of_reset, of_update, of_candidate * reset], dim=3)  # of dh, in W h + b's parts
        to_states = grad.clone()
        for step in range(steps - 1, 0, -1):
            dh = to_states[step]
            parts = (factors[step] * dh[:, :, None]).flatten(2)
            to_states[step - 1] += torch.baddbmm(update[step] * dh, parts, weight)
        to_parts = (factors * to_states[:, :, :, None]).flatten(3)
        to_gates = torch.cat([to_parts[..., : 2 * size], of_candidate * to_states], dim=3)
        rows = to_parts.transpose(0, 1).reshape(groups, steps * batch, 3 * size)
        before = states[:-1].transpose(0, 1).reshape(groups, steps * batch, size)
        return to_gates, rows.transpose(1, 2) @ before, rows.sum(1)
