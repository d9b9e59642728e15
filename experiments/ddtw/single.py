"""Single-label task (Section VII-B): the pitch class of a theme in every frame, learned from its notes in their order.

Methods with a blank train with 13 classes on the notes, repeated ones included; the others with 12 classes on the
notes with equal neighbours merged, in which a rest fits every frame at no cost.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from experiments.data import hcqt, themes
from experiments.data.themes import REST, Recording, Theme
from experiments.ddtw import metrics
from experiments.ddtw.decoding import beam, greedy
from experiments.ddtw.metrics import Floats
from experiments.ddtw.networks import ThemeNet, outputs
from experiments.ddtw.settings import Settings, Single
from experiments.ddtw.training import Trainer
from experiments.softdtw.store import Found, Numbers
from torch_dalign import presets

BLANK = REST
"""The last of 13 classes: the blank of CTC; for the other methods a rest."""


def has_blank(method: str) -> bool:
    """Tell whether a method uses the output for the blank."""
    return method.startswith("CTC")


# --- Data -------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Data:
    """Disjoint sets of themes, and the recordings in which those of the test set are looked for, in their order."""

    train: list[Theme]
    validation: list[Theme]
    test: list[Theme]
    recordings: list[Recording]


def load(settings: Settings) -> Data:
    """Themes of the Musical Theme Dataset where its folder was given, else rendered ones."""
    if settings.mtd is not None:
        train, validation, test = (
            themes.from_mtd(settings.mtd, folds)
            for folds in (themes.TRAIN_FOLDS, themes.VALIDATION_FOLDS, themes.TEST_FOLDS)
        )
        # The whole recordings are not part of the layout: themes are looked for among the excerpts.
        return Data(train, validation, test, [as_recording(theme) for theme in test])
    size, rendered = settings.scale.single, recipe(settings)
    recordings, test = rendered.recordings(size.n_test)
    validation = rendered.themes(size.n_validation, first=size.n_test)
    train = rendered.themes(size.n_train, first=size.n_test + size.n_validation)
    return Data(train, validation, test, recordings)


def as_recording(theme: Theme) -> Recording:
    """An excerpt in the place of the recording that it comes from."""
    return Recording(theme.name, theme.features, theme.stretched)


def recipe(settings: Settings) -> themes.Recipe:
    """How themes are rendered."""
    return themes.Recipe(hcqt.HarmonicSpectrum(hop=settings.scale.single.hop), cache=settings.cache)


class Batch(NamedTuple):
    """B themes, padded: features (B, 6, N, 216), targets (B, ...) and the lengths (B,) of each."""

    features: Tensor
    n_frames: Tensor
    strong: Tensor
    weak: Tensor
    n_weak: Tensor
    notes: Tensor
    n_notes: Tensor


def collate(items: Sequence[Theme]) -> Batch:
    """Pad themes to a batch; padded frames count as rests."""
    features, n_frames = _pad([theme.features for theme in items])
    strong, _ = _pad([theme.strong for theme in items], REST)
    return Batch(
        features.transpose(1, 2),
        n_frames,
        strong,
        *_pad([theme.weak for theme in items]),
        *_pad([theme.notes for theme in items]),
    )


def _pad(arrays: Sequence[np.ndarray], value: int = 0) -> tuple[Tensor, Tensor]:
    tensors = [torch.as_tensor(array) for array in arrays]
    padded = pad_sequence(tensors, batch_first=True, padding_value=value)
    return padded, torch.tensor([len(tensor) for tensor in tensors])


# --- Losses -----------------------------------------------------------------------------------------------------------

Loss = Callable[[nn.Module, Batch], Tensor]


def make_loss(method: str) -> Loss:
    """Mean over the items of the method's loss, divided as in the paper's code: by half of one less than the targets.

    With blanks between the notes, that is the number of notes.
    """
    if method == "strong":
        return _strong
    layer = presets.ddtw(method, blank=BLANK, normalize="paper")

    def loss(network: nn.Module, batch: Batch) -> Tensor:
        scores = outputs(network, batch.features)
        if layer.has_blank:
            return layer(scores.log_softmax(dim=2), batch.notes, batch.n_frames, batch.n_notes)
        return layer(with_free_rest(scores), batch.weak, batch.n_frames, batch.n_weak)

    return loss


def with_free_rest(scores: Tensor) -> Tensor:
    """Log-probabilities (B, N, 13): of 12 pitch classes, and 0 for a rest, so that it costs nothing.

    This is the cost -<y, log x> with a row of zeros as the target of a rest, as in the paper.
    """
    return F.pad(scores[..., :REST].log_softmax(dim=2), (0, 1))


def _strong(network: nn.Module, batch: Batch) -> Tensor:
    """Cross-entropy of each frame; rests and padding are left out."""
    log_probabilities = with_free_rest(outputs(network, batch.features))
    cost = -log_probabilities.gather(2, batch.strong[:, :, None]).squeeze(2)
    return (cost.sum(dim=1) / batch.n_frames).mean()


# --- Training and evaluation ------------------------------------------------------------------------------------------


def run(method: str, seed: int, data: Data, settings: Settings) -> Found:
    """Train a network with a method and evaluate it on the test themes."""
    size: Single = settings.scale.single
    torch.manual_seed(seed)
    network = ThemeNet(size.channels).to(settings.device)
    trainer = Trainer(data.train, data.validation, collate, make_loss(method))
    course = trainer.fit(network, size.schedule, seed, f"{method} {seed}")
    numbers = {
        **evaluate(network, data.test, blank=has_blank(method)),
        **find(network, data.recordings, blank=has_blank(method)),
        "validation_loss": course.best,
        "validation_losses": [round(loss, 4) for loss in course.validation],
        "train_seconds": round(course.seconds, 1),
    }
    return Found(numbers, example(network, data.test[0], blank=has_blank(method)))


def predict(network: nn.Module, features: np.ndarray, blank: bool) -> Floats:
    """Log-probabilities (N, 13), or (N, 12) where there is no blank."""
    network.eval()
    with torch.inference_mode():
        scores = outputs(network, torch.as_tensor(features).transpose(0, 1)[None])[0]
    return (scores if blank else scores[:, :REST]).log_softmax(dim=1).numpy()


def evaluate(network: nn.Module, test: Sequence[Theme], blank: bool) -> Numbers:
    """Means over the themes."""
    predictions = [predict(network, theme.features, blank) for theme in test]
    pairs = list(zip(predictions, test, strict=True))
    notes = [theme.notes.tolist() for theme in test]
    decoded = {"greedy": greedy(predictions, blank), "beam": beam(predictions, blank)}
    return {
        "accuracy": _mean(metrics.frame_accuracy(scores, theme.strong) for scores, theme in pairs),
        "published_accuracy": _mean(metrics.published_frame_accuracy(scores, theme.strong) for scores, theme in pairs),
        "blank_share": _mean((scores.argmax(axis=1) == BLANK).mean() for scores, _ in pairs),
        **{f"{name}_ler": _mean(map(metrics.label_error_rate, found, notes)) for name, found in decoded.items()},
    }


def _mean(values: object) -> float:
    return float(np.mean(list(values)))  # type: ignore[call-overload]


def find(network: nn.Module, recordings: Sequence[Recording], blank: bool) -> Numbers:
    """Look for every theme in all recordings. A blank is left out; the cosine cost does not see how much that was."""
    chromagrams = [np.exp(predict(network, recording.features, blank)[:, :REST]) for recording in recordings]
    distances = metrics.match([recording.query for recording in recordings], chromagrams)
    return metrics.retrieval(distances)._asdict()


def example(network: nn.Module, theme: Theme, blank: bool) -> Numbers:
    """What is drawn: probabilities (N, 12 or 13) and the reference (N,)."""
    return {"probabilities": np.exp(predict(network, theme.features, blank)), "strong": theme.strong}
