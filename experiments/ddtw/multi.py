"""Multi-label task (Section VII-C): the pitch classes of polyphonic music in every frame, from chords in their order.

Methods with a blank (multi-label CTC) have a thirteenth output; whether a pitch class is found does not depend on it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from experiments.ddtw import metrics, pieces
from experiments.ddtw.metrics import Floats
from experiments.ddtw.networks import N_CLASSES, ChordNet, outputs
from experiments.ddtw.pieces import Piece, Segment
from experiments.ddtw.settings import Multi, Settings
from experiments.ddtw.single import has_blank
from experiments.ddtw.training import Trainer
from experiments.softdtw.store import Found, Numbers
from torch_dalign import presets

EXAMPLE_SECONDS = 10.0


@dataclasses.dataclass(frozen=True)
class Data:
    """Segments of the training and validation pieces, and the test pieces."""

    train: list[tuple[Piece, int]]
    validation: list[tuple[Piece, int]]
    test: list[Piece]


def load(settings: Settings) -> Data:
    """Rendered chorales and quartets."""
    size = settings.scale.multi
    train, validation, test = pieces.load(size, settings.cache)
    return Data(pieces.segments(train, size), pieces.segments(validation, size), test)


# --- Losses -----------------------------------------------------------------------------------------------------------

Batch = list[Segment]
Loss = Callable[[nn.Module, Batch], Tensor]


def make_loss(method: str) -> Loss:
    """Mean over the segments of the method's loss per frame."""
    if method == "strong":
        value = _strong
    else:
        layer = presets.ddtw(method, normalize="N")

        def value(probabilities: Tensor, segment: Segment) -> Tensor:
            return layer(probabilities, segment.weak[None])

    def loss(network: nn.Module, batch: Batch) -> Tensor:
        # One by one, as segments of short pieces are shorter: a batch would gain nothing.
        return torch.stack([value(outputs(network, one.features), one) for one in batch]).mean()

    return loss


def _strong(probabilities: Tensor, segment: Segment) -> Tensor:
    return F.binary_cross_entropy(probabilities[0], segment.strong, reduction="sum") / len(segment.strong)


# --- Training and evaluation ------------------------------------------------------------------------------------------


def run(method: str, seed: int, data: Data, settings: Settings) -> Found:
    """Train a network with a method and evaluate it on the test pieces."""
    size: Multi = settings.scale.multi
    torch.manual_seed(seed)
    network = ChordNet(has_blank(method), size.channels).to(settings.device)

    def collate(items: Sequence[tuple[Piece, int]]) -> Batch:
        return [pieces.cut(piece, first, size.segment) for piece, first in items]

    trainer = Trainer(data.train, data.validation, collate, make_loss(method))
    course = trainer.fit(network, size.schedule, seed, f"{method} {seed}")
    numbers = {
        **evaluate(network, data.test),
        "validation_loss": course.best,
        "validation_losses": [round(loss, 4) for loss in course.validation],
        "train_seconds": round(course.seconds, 1),
    }
    n_frames = int(EXAMPLE_SECONDS * size.frame_rate)
    return Found(numbers, example(method, network, data.test[0], n_frames))


def predict(network: nn.Module, piece: Piece) -> Floats:
    """Probabilities (N, 12), or (N, 13) with the blank first, of a whole piece."""
    network.eval()
    with torch.inference_mode():
        return outputs(network, pieces.network_input(piece.features))[0].numpy()


def evaluate(network: nn.Module, test: Sequence[Piece]) -> Numbers:
    """Means over the pieces."""
    predictions = [predict(network, piece) for piece in test]
    each = [metrics.scores(found[:, -N_CLASSES:], piece.strong) for found, piece in zip(predictions, test, strict=True)]
    precision, recall, f_measure = np.mean(each, axis=0).tolist()
    blank = [found[:, 0].mean() for found in predictions if found.shape[1] > N_CLASSES]
    return {
        "precision": precision,
        "recall": recall,
        "f_measure": f_measure,
        "blank_mean": float(np.mean(blank)) if blank else None,
    }


def example(method: str, network: nn.Module, piece: Piece, n_frames: int) -> Numbers:
    """What is drawn of the beginning of a piece: probabilities (N, 12 or 13), reference (N, 12), soft alignment."""
    probabilities = predict(network, piece)[:n_frames]
    strong = torch.as_tensor(piece.strong[:n_frames]).float()
    weak = pieces.collapse(strong)
    if method in ("strong", "EM"):
        alignment = known_alignment(strong)
    else:
        layer = presets.ddtw(method)
        alignment = layer.alignment(torch.as_tensor(probabilities)[None], weak[None])[0].detach()
    return {"probabilities": probabilities, "strong": strong.numpy(), "alignment": alignment.numpy()}


def known_alignment(strong: Tensor) -> Tensor:
    """(N, M): 1 where a frame belongs to a target."""
    target = torch.unique_consecutive(strong, dim=0, return_inverse=True)[1]
    return F.one_hot(target).float()
