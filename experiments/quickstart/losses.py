"""One entry per way of training: a function from predictions and a batch to one loss per piece.

To add one, write a function `make(settings)` that returns such a loss, and give it a line in `LOSSES`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

import torch_dalign as dalign
from experiments.quickstart.data import Batch

if TYPE_CHECKING:
    from experiments.quickstart.settings import Settings

Loss = Callable[[Tensor, Batch], Tensor]
"""(probabilities (B, N, 12), batch) to (B,): summed over frames and classes, not yet divided by the length."""

STEP_WEIGHTS = (0.1, 1.0, 1.0)
"""Weights of the steps (1, 0), (0, 1), (1, 1) through the lattice of frames and chords.

Staying on a chord for another frame, step (1, 0), is cheap: otherwise the many frames of long chords outweigh the few
where the chord changes.
"""


@dataclasses.dataclass(frozen=True)
class Training:
    """A way of training: its title in tables and pictures, and the maker of its loss."""

    title: str
    make: Callable[[Settings], Loss]


def soft_dtw(settings: Settings) -> Loss:
    """Weak targets: align every frame softly with the chord sequence, and learn through the alignment.

    loss = soft-DTW of C, C[i, j] = binary cross-entropy, summed over the classes, of frame i against chord j.
    """
    layer = dalign.SoftDTW(gamma=settings.gamma, metric="bce", step_weights=STEP_WEIGHTS, reduction="none")
    # A build without CUDA kernels still trains a network on the GPU: only the loss is computed on the CPU.
    device = settings.device if dalign.build_info()["cuda"] else "cpu"

    def loss(probabilities: Tensor, batch: Batch) -> Tensor:
        targets = batch.to(device)
        per_piece = layer(probabilities.to(device), targets.chords, targets.n_frames, targets.n_chords)
        return per_piece.to(probabilities.device)

    return loss


def strong(settings: Settings) -> Loss:
    """Strong targets: at each frame, what really sounds there. The best that any weak training can hope for."""

    def loss(probabilities: Tensor, batch: Batch) -> Tensor:
        return framewise(probabilities, batch.strong, batch.n_frames)

    return loss


def linear(settings: Settings) -> Loss:
    """Weak targets stretched to the length of the piece, as if all chords lasted equally long: what is to be beaten."""

    def loss(probabilities: Tensor, batch: Batch) -> Tensor:
        return framewise(probabilities, stretched(batch), batch.n_frames)

    return loss


def framewise(probabilities: Tensor, target: Tensor, n_frames: Tensor) -> Tensor:
    """Binary cross-entropy (B,), summed over classes and the frames of each piece."""
    cost = F.binary_cross_entropy(probabilities, target, reduction="none").sum(dim=2)
    return (cost * (torch.arange(cost.shape[1], device=cost.device) < n_frames[:, None])).sum(dim=1)


def stretched(batch: Batch) -> Tensor:
    """Chord sequences (B, N, 12) in which the M chords share the N frames equally."""
    frame = torch.arange(batch.features.shape[1], device=batch.chords.device)
    chord = (frame * batch.n_chords[:, None]) // batch.n_frames[:, None]
    chord = chord.clamp(max=batch.chords.shape[1] - 1)
    return batch.chords.gather(1, chord[:, :, None].expand(-1, -1, batch.chords.shape[2]))


LOSSES = {
    "softdtw": Training("weak targets, soft-DTW", soft_dtw),
    "strong": Training("strong targets", strong),
    "linear": Training("weak targets, stretched", linear),
}
