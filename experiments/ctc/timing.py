"""The losses side by side on the same outputs of a network: values, gradients, time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from experiments.ctc.data import Batch, Utterance, training_batches
from experiments.ctc.network import CharacterNet
from experiments.ctc.training import Loss, loss_and_gradient


def compare(
    network: CharacterNet,
    utterances: Sequence[Utterance],
    losses: dict[str, Callable[[], Loss]],
    size: int,
    repetitions: int = 5,
) -> dict[str, Any]:
    """Milliseconds per batch of each loss, and how far values and gradients are from the first one's in float64.

    The losses take turns on each batch, and of each the fastest repetition counts: other programs only make it slower.
    """
    made = {name: make() for name, make in losses.items()}
    found = [_one_batch(network, batch, made, repetitions) for batch in training_batches(utterances, size, _rng())]

    def difference(name: str, index: int) -> float:
        return max(_relative(one.exact[index], one.results[name][index]) for one in found)

    return {
        "batches": len(found),
        "milliseconds": {name: 1000 * float(np.mean([one.seconds[name] for one in found])) for name in made},
        "value_difference": {name: difference(name, 0) for name in made},
        "gradient_difference": {name: difference(name, 1) for name in made},
    }


def _rng() -> np.random.Generator:
    return np.random.default_rng(0)


class _Measured(NamedTuple):
    """Value and gradient, by the first loss in float64 and by each in float32, and the seconds that each took."""

    exact: tuple[float, Tensor]
    results: dict[str, tuple[float, Tensor]]
    seconds: dict[str, float]


def _one_batch(network: CharacterNet, batch: Batch, losses: dict[str, Loss], repetitions: int) -> _Measured:
    with torch.no_grad():
        logits, lengths = network(batch.features, batch.lengths)
    exact = loss_and_gradient(next(iter(losses.values())), logits.double(), lengths, batch)
    results = {name: loss_and_gradient(loss, logits, lengths, batch) for name, loss in losses.items()}
    seconds = dict.fromkeys(losses, float("inf"))
    for _ in range(repetitions):
        for name, loss in losses.items():
            started = time.process_time()
            loss_and_gradient(loss, logits, lengths, batch)
            seconds[name] = min(seconds[name], time.process_time() - started)
    return _Measured(exact, results, seconds)


def _relative(exact: Tensor | float, other: Tensor | float) -> float:
    """Largest difference, as a share of the largest number."""
    one = torch.as_tensor(exact, dtype=torch.float64)
    return float((one - torch.as_tensor(other, dtype=torch.float64)).abs().max() / one.abs().max())
