"""One entry per way of training: a function from predictions and a batch to one loss per piece.

To add one, write a function `make(settings)` that returns such a loss, and give it a line in `LOSSES`. Settings of the
general lattice have names of their own, "ddtw:" and that of the preset.
"""

from __future__ import annotations

import dataclasses
import functools
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
"""(probabilities (B, N, 12 or 13), batch) to (B,): summed over frames and classes, not yet divided by the length."""

STEP_WEIGHTS = (0.1, 1.0, 1.0)
"""Weights of the steps (1, 0), (0, 1), (1, 1) through the lattice of frames and chords.

Staying on a chord for another frame, step (1, 0), is cheap: otherwise the many frames of long chords outweigh the few
where the chord changes.
"""


REG_WEIGHT = 0.3
"""Of DecDTW: how much it keeps to one tempo."""


@dataclasses.dataclass(frozen=True)
class Training:
    """A way of training.

    Attributes
    ----------
    title : str
        In tables and pictures.
    make : callable
        Makes the loss.
    has_blank : bool
        The network has one output more, the blank of CTC.
    of_melody : bool
        The music is the top voices alone, with one pitch class at a time, and notes in place of chords.
    """

    title: str
    make: Callable[[Settings], Loss]
    has_blank: bool = False
    of_melody: bool = False


def soft_dtw(settings: Settings) -> Loss:
    """Weak targets: align every frame softly with the chord sequence, and learn through the alignment.

    loss = soft-DTW of C, C[i, j] = binary cross-entropy, summed over the classes, of frame i against chord j.
    """
    layer = dalign.SoftDTW(gamma=settings.gamma, metric="bce", step_weights=STEP_WEIGHTS, reduction="none")
    return _where_kernels_are(settings, lambda p, b: layer(p, b.chords, b.n_frames, b.n_chords))


def mctc(settings: Settings) -> Loss:
    """Weak targets: multi-label CTC, which learns a blank between the chords."""
    layer = dalign.MCTCLoss(reduction="none")
    return _where_kernels_are(settings, lambda p, b: layer(p, b.chords, b.n_frames, b.n_chords))


def ctc(settings: Settings) -> Loss:
    """Weak targets, one at a time: CTC for the notes of a melody, pitch classes 1 to 12 beside the blank 0."""
    layer = dalign.CTCLoss(reduction="none")

    def loss(probabilities: Tensor, batch: Batch) -> Tensor:
        log_probs = probabilities.clamp(min=torch.finfo(probabilities.dtype).tiny).log()
        return layer(log_probs.transpose(0, 1), 1 + batch.chords.argmax(2), batch.n_frames, batch.n_chords)

    return _where_kernels_are(settings, loss)


def decdtw(settings: Settings) -> Loss:
    """True times, no targets: align the predictions with the score as written, and learn where the warp goes wrong.

    loss = mean distance in seconds between the warp of DecDTW and the true one, where each frame is in the score.
    """
    layer = dalign.DecDTW(reg_weight=REG_WEIGHT, quality="fast")

    def loss(probabilities: Tensor, batch: Batch) -> Tensor:
        phi = layer(probabilities, batch.written, batch.n_frames, batch.n_written)
        frame = torch.arange(phi.shape[1], device=phi.device)
        times = frame / (batch.n_frames[:, None] - 1)
        found, true, n = (times, phi), (times, batch.place), batch.n_frames
        error = dalign.metrics.time_error(found, true, input_lengths=n, target_lengths=n, reduction="none")
        return error * batch.seconds * n

    return _where_kernels_are(settings, loss)


def ddtw(preset: str, settings: Settings) -> Loss:
    """Weak targets: a setting of the general lattice by its name, with the same cost as soft-DTW or multi-label CTC."""
    layer = _preset(preset, gamma=settings.gamma)

    def loss(probabilities: Tensor, batch: Batch) -> Tensor:
        if (1, 0) in layer.steps:
            return layer(probabilities, batch.chords, batch.n_frames, batch.n_chords)
        # Without a step that repeats a chord the sequences must be about equally long.
        return layer(probabilities, stretched(batch), batch.n_frames, batch.n_frames)

    return _where_kernels_are(settings, loss)


def _preset(name: str, gamma: float = 1.0) -> dalign.presets.DDTWPreset:
    layer = dalign.presets.ddtw(name, gamma=gamma, reduction="none")
    return layer if layer.has_blank else dalign.presets.ddtw(name, gamma=gamma, reduction="none", metric="bce")


def _where_kernels_are(settings: Settings, loss: Loss) -> Loss:
    """A build without CUDA kernels still trains a network on the GPU: only the loss is computed on the CPU."""
    device = settings.device if dalign.build_info()["cuda"] else "cpu"
    return lambda probabilities, batch: loss(probabilities.to(device), batch.to(device)).to(probabilities.device)


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
    "mctc": Training("weak targets, multi-label CTC", mctc, has_blank=True),
    "decdtw": Training("true times, DecDTW", decdtw),
    "ctc": Training("melodies alone, CTC", ctc, has_blank=True, of_melody=True),
}
DDTW = "ddtw:"


def training(name: str) -> Training:
    """The way of training of that name.

    Raises
    ------
    ValueError
        When there is none.
    """
    if name in LOSSES:
        return LOSSES[name]
    preset = name.removeprefix(DDTW)
    if preset == name or preset not in dalign.presets.names():
        presets = ", ".join(dalign.presets.names())
        raise ValueError(
            f"no such loss: {name!r}; there are {', '.join(LOSSES)}, and {DDTW}NAME with NAME of {presets}"
        )
    title = f"weak targets, dDTW {preset}"
    return Training(title, functools.partial(ddtw, preset), _preset(preset).has_blank)
