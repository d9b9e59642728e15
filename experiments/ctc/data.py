"""Prompts as tensors, and padded batches of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from experiments.data import speech


@dataclasses.dataclass(frozen=True)
class Utterance:
    """A prompt with its features (N, 80) and labels (S,)."""

    prompt: speech.Prompt
    features: Tensor
    labels: Tensor


@dataclasses.dataclass(frozen=True)
class Batch:
    """Padded features (B, N, 80) and targets (B, S), and the lengths (B,) of both."""

    features: Tensor
    lengths: Tensor
    targets: Tensor
    target_lengths: Tensor


def load(folder: Path | None, longest: float, seed: int, cache: Path | None = None) -> dict[str, list[Utterance]]:
    """Train, validation and test."""
    prompts = [prompt for prompt in speech.load(folder, cache) if prompt.seconds <= longest]
    parts = speech.split(prompts, seed)
    if not all(parts.values()):
        raise speech.DataError(f"{len(prompts)} prompts of at most {longest} seconds are too few to split")
    return {name: [utterance(prompt) for prompt in part] for name, part in parts.items()}


def utterance(prompt: speech.Prompt) -> Utterance:
    """Features and labels of a prompt."""
    return Utterance(prompt, torch.from_numpy(speech.mel(prompt.audio)), torch.tensor(speech.encode(prompt.text)))


def collate(utterances: Sequence[Utterance]) -> Batch:
    """One batch."""
    return Batch(
        pad_sequence([one.features for one in utterances], batch_first=True),
        torch.tensor([len(one.features) for one in utterances]),
        pad_sequence([one.labels for one in utterances], batch_first=True),
        torch.tensor([len(one.labels) for one in utterances]),
    )


def training_batches(utterances: Sequence[Utterance], size: int, rng: np.random.Generator) -> Iterator[Batch]:
    """One pass: shuffled, prompts of about equal length together, each a little changed."""
    order = np.array_split(rng.permutation(len(utterances)), max(1, len(utterances) // (8 * size)))
    groups = []
    for part in order:  # neighbours by length, but never the same ones
        by_length = sorted(part, key=lambda index: len(utterances[index].features))
        groups += [by_length[start : start + size] for start in range(0, len(by_length), size)]
    for place in rng.permutation(len(groups)):
        yield collate([changed(utterances[index], rng) for index in groups[place]])


def changed(one: Utterance, rng: np.random.Generator) -> Utterance:
    """Spoken up to a tenth faster or slower, and with a band and two stretches of time hidden (Park et al. 2019)."""
    frames, bands = one.features.shape
    at = np.linspace(0, frames - 1, round(frames * rng.uniform(0.9, 1.1)))
    low = np.minimum(at.astype(np.int64), max(frames - 2, 0))
    weight = torch.from_numpy((at - low).astype(np.float32))[:, None]
    following = np.minimum(low + 1, frames - 1)
    features = one.features[low] * (1 - weight) + one.features[following] * weight
    first, width = rng.integers(bands), rng.integers(bands // 6)
    features[:, first : first + width] = 0
    for _ in range(2):
        begin, length = rng.integers(len(features)), rng.integers(1 + min(15, len(features) // 8))
        features[begin : begin + length] = 0
    return dataclasses.replace(one, features=features)
