"""The problems that CTC losses solve: shapes, seeded inputs, float64 answers and errors against them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import ctc_loss

TASKS = ("value", "gradient")


@dataclass(frozen=True)
class Case:
    """One shape: `frames` T, `batch` B, `classes` C with the blank, `labels` S of each target."""

    frames: int
    batch: int
    classes: int
    labels: int

    @property
    def states(self) -> int:
        """States of all items and frames."""
        return self.batch * self.frames * (2 * self.labels + 1)


class Inputs(NamedTuple):
    """What a loss takes."""

    logits: Tensor
    targets: Tensor
    input_lengths: Tensor
    target_lengths: Tensor

    def last(self) -> Inputs:
        """The last item alone."""
        return Inputs(self.logits[:, -1:], *(part[-1:] for part in self[1:]))


def inputs(case: Case, seed: int) -> Inputs:
    """Make logits (T, B, C), labels (B, S) and full lengths."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(case.frames, case.batch, case.classes, generator=generator)
    targets = torch.randint(1, case.classes, (case.batch, case.labels), generator=generator)
    return Inputs(logits, targets, torch.full((case.batch,), case.frames), torch.full((case.batch,), case.labels))


def errors(case: Case, seed: int, task: str, outcome: tuple[Tensor, ...]) -> dict[str, float]:
    """Compare values (B,), and for the task "gradient" gradients (T, B, C), of the last item with float64."""
    value, grad = _reference(case, seed)
    found = {"error": abs(float(outcome[0][-1]) - value) / abs(value)}
    if task == "gradient":
        difference = (outcome[1][:, -1].double() - grad).abs().max() / grad.abs().max()
        found["error_gradient"] = float(difference)
    return found


@lru_cache(maxsize=1)
def _reference(case: Case, seed: int) -> tuple[float, Tensor]:
    """Value and gradient (T, C) of the last item."""
    given = inputs(case, seed).last()
    logits = given.logits.double().requires_grad_()
    value = ctc_loss(logits.log_softmax(2), *given[1:], reduction="sum")
    value.backward()
    assert logits.grad is not None
    return value.item(), logits.grad[:, 0]
