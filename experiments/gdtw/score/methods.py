"""Ways to align, and the losses that features are trained with."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

import torch_dalign as dalign
from experiments.gdtw.score.data import Batch, frame_times
from experiments.gdtw.score.features import FRAME_RATE
from experiments.gdtw.score.network import Sides

# --- Alignments -------------------------------------------------------------------------------------------------------


class Errors(NamedTuple):
    """TimeErr and TimeDev (B,) in seconds."""

    error: Tensor
    deviation: Tensor


class Warp(NamedTuple):
    """Times (B, K), which never fall, of the performance in seconds at times (B, K) of the score; lengths (B,)."""

    times: Tensor
    values: Tensor
    lengths: Tensor

    def errors(self, batch: Batch, breakpoints: str) -> Errors:
        """Deviation from the truth over the whole slice."""
        arguments = {
            "input_lengths": self.lengths,
            "target_lengths": batch.truth_lengths,
            "breakpoints": breakpoints,
            "reduction": "none",
        }
        warp, truth = (self.times, self.values), (batch.truth_times, batch.truth_values)
        return Errors(
            dalign.metrics.time_error(warp, truth, **arguments),  # type: ignore[arg-type]
            dalign.metrics.time_deviation(warp, truth, **arguments),  # type: ignore[arg-type]
        )


class Aligner(Protocol):
    """Features of both sides to a warp."""

    def __call__(self, sides: Sides, batch: Batch) -> Warp: ...


def dtw(sides: Sides, batch: Batch) -> Warp:
    """Exact DTW; a frame of the score belongs to the last of its frames of the performance, as in the paper's code."""
    paths = dalign.dtw_path(
        sides.score.detach(), sides.played.detach(), x_lengths=batch.score_lengths, y_lengths=batch.played_lengths
    )
    last = torch.zeros(sides.score.shape[:2], dtype=torch.int64)
    for item, path in enumerate(paths):
        # Frames of the performance grow along a path, so the last one is the largest.
        last[item].scatter_reduce_(0, path[:, 0], path[:, 1], "amax")
    return Warp(_score_times(batch), last / FRAME_RATE, batch.score_lengths)


class GDTW(nn.Module):
    """DTW in continuous time with both ends held, the layer DecDTW.

    Parameters
    ----------
    reg_weight : float
        lambda, on times scaled to [0, 1].
    quality : str
        Of the solver.
    learn : bool
        Whether lambda is trained, by its logarithm, which keeps it positive.
    """

    def __init__(self, reg_weight: float, quality: str = "default", learn: bool = False) -> None:
        super().__init__()
        start = torch.tensor(math.log(reg_weight), dtype=torch.float64)
        self.log_weight = nn.Parameter(start, requires_grad=learn)
        self.quality = quality

    @property
    def weight(self) -> float:
        """Lambda."""
        return float(self.log_weight.detach().exp())

    def forward(self, sides: Sides, batch: Batch) -> Warp:
        phi = dalign.gdtw(
            sides.score,
            sides.played,
            reg_weight=self.log_weight.exp(),
            quality=self.quality,
            x_lengths=batch.score_lengths,
            y_lengths=batch.played_lengths,
        )[0]
        return Warp(_score_times(batch), phi * batch.duration[:, None], batch.score_lengths)


def straight(sides: Sides, batch: Batch) -> Warp:
    """The line from corner to corner: what is known without listening."""
    share = _score_times(batch) * FRAME_RATE / (batch.score_lengths - 1)[:, None]
    return Warp(_score_times(batch), share.clamp(max=1) * batch.duration[:, None], batch.score_lengths)


def _score_times(batch: Batch) -> Tensor:
    return frame_times(batch.score.shape[1]).expand(len(batch.score), -1)


# --- Losses -----------------------------------------------------------------------------------------------------------

Loss = Callable[[Sides, Batch], Tensor]


def soft_dtw(gamma: float) -> Loss:
    """The discrepancy itself, per frame of the score; nothing of the truth goes in."""
    loss = dalign.SoftDTW(gamma, reduction="none")

    def value(sides: Sides, batch: Batch) -> Tensor:
        return (loss(*sides, batch.score_lengths, batch.played_lengths) / batch.score_lengths).mean()

    return value


def along_truth() -> Loss:
    """Squared distance of the features along the true path, per frame of the score."""
    loss = dalign.PathCost(reduction="none", breakpoints=True)

    def value(sides: Sides, batch: Batch) -> Tensor:
        cost = loss(*sides, anchors(batch), batch.truth_lengths, batch.score_lengths, batch.played_lengths)
        return (cost / batch.score_lengths).mean()

    return value


def anchors(batch: Batch) -> Tensor:
    """(B, K, 2) the truth's breakpoints in frames, inside of the lattice."""
    cells = torch.stack([batch.truth_times, batch.truth_values], dim=2) * FRAME_RATE
    last = torch.stack([batch.score_lengths, batch.played_lengths], dim=1)[:, None] - 1
    return cells.clamp(min=0).minimum(last)


def dilate(gamma: float) -> Loss:
    """DILATE with alpha = 0: the expected deviation from the truth, in seconds per frame of the score.

    Omega_ij = M |t_j - phi*(s_i)|; DILATE divides by N M.
    """

    def value(sides: Sides, batch: Batch) -> Tensor:
        omega = deviation(batch) * batch.played_lengths[:, None, None]
        loss = dalign.DILATE(0.0, gamma, penalty=omega.to(sides.score.dtype))
        return loss(*sides, batch.score_lengths, batch.played_lengths)

    return value


def deviation(batch: Batch) -> Tensor:
    """(B, N, M) seconds from each frame of the performance to where the score's frame truly is."""
    heard = frame_times(batch.played.shape[1])
    true = torch.stack([_interpolate(*one) for one in zip(_score_times(batch), *_truths(batch), strict=True)])
    return (heard - true[:, :, None]).abs()


def _truths(batch: Batch) -> tuple[list[Tensor], list[Tensor]]:
    lengths = batch.truth_lengths.tolist()
    return (
        [times[:length] for times, length in zip(batch.truth_times, lengths, strict=True)],
        [values[:length] for values, length in zip(batch.truth_values, lengths, strict=True)],
    )


def _interpolate(at: Tensor, times: Tensor, values: Tensor) -> Tensor:
    """Piecewise linear, constant beyond the ends."""
    segment = torch.searchsorted(times, at.contiguous(), right=True).clamp(1, len(times) - 1)
    start, duration = times[segment - 1], times[segment] - times[segment - 1]
    share = ((at - start) / duration).clamp(0, 1)
    return values[segment - 1] + share * (values[segment] - values[segment - 1])


def time_error(aligner: Aligner) -> Loss:
    """TimeErr of the alignment that the layer finds, in seconds, at all frames."""

    def value(sides: Sides, batch: Batch) -> Tensor:
        return aligner(sides, batch).errors(batch, "merged").error.mean()

    return value
