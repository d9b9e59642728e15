"""The problems that are solved: shapes, seeded inputs, float64 answers and errors against them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .. import antidiagonal
from ..inputs import uniform
from ..softdtw.peers import Outcome, differentiate
from . import plain
from .settings import CTC_A, SDTW_E, SETTINGS

SOFT_DTW, DDTW, DDTW_CTC, CTC = LOSSES = ("soft-DTW", "dDTW, SDTW-E", "dDTW, CTC-A", "CTC")
MAIN_BATCH = 16
MAIN_DIM = 12  # features of the table
LABELS = 12  # classes of the lattice alone


@dataclass(frozen=True)
class Case:
    """One problem: `task` is one of `LOSSES`, or the name of a setting whose lattice is given.

    `length` is N; `columns` are the M targets of a loss, or the columns of a given lattice; `dim` are features, or
    classes with the blank. `repeats`: equal labels of CTC may follow each other.
    """

    task: str
    batch: int
    length: int
    columns: int
    dim: int = MAIN_DIM
    repeats: bool = True

    @property
    def has_labels(self) -> bool:
        """Whether the targets are classes."""
        return self.task in (CTC, DDTW_CTC)

    @property
    def cells(self) -> int:
        """Cells of all lattices of the batch."""
        width = CTC_A.columns(self.columns) if self.has_labels else self.columns
        return self.batch * self.length * width


@dataclass(frozen=True)
class Inputs:
    """What the gradient is asked of (features, logits or costs), and the targets or labels of the columns."""

    x: Tensor
    targets: Tensor


def inputs(case: Case, seed: int) -> Inputs:
    """Make the float32 inputs."""
    items = range(case.batch)
    if case.task in SETTINGS:
        labels = _labels(case, seed, max(case.columns // 2, 1), LABELS, repeats=True)
        return Inputs(3 * uniform(case.length, case.columns, items, 0, seed), labels)
    if case.has_labels:
        logits = 6 * uniform(case.length, case.dim, items, 0, seed)
        return Inputs(logits, 1 + _labels(case, seed, case.columns, case.dim - 1, case.repeats))
    hot = (uniform(case.columns, case.dim, items, 1, seed) < 0.5).float()
    return Inputs(uniform(case.length, case.dim, items, 0, seed), hot)


def _labels(case: Case, seed: int, count: int, classes: int, repeats: bool) -> Tensor:
    """(B, count) out of 0 ... classes - 1; without repeats each is one of the others than the one before."""
    draws = uniform(count, 1, range(case.batch), 1, seed)[..., 0]
    if repeats:
        return (draws * classes).long()
    return (1 + (draws * (classes - 1)).long()).cumsum(1) % classes


def answer(case: Case, given: Inputs) -> Outcome:
    """Value and gradient of the last item in float64, from the very float32 numbers that the peers get."""
    last = Inputs(given.x[-1:].double(), given.targets[-1:])
    return plain_outcome(case, last)


def errors(case: Case, given: Inputs, outcome: Outcome) -> tuple[float, float]:
    """Compare the last item: value relative to the value, gradient relative to its largest entry."""
    truth = answer(case, given)
    value = (outcome.value[-1].double() - truth.value[0]).abs() / truth.value[0].abs()
    (found,), (right,) = outcome.gradients, truth.gradients
    gradient = (found[-1].double() - right[0]).abs().max() / right.abs().max()
    return float(value), float(gradient)


def plain_outcome(case: Case, given: Inputs) -> Outcome:
    """Solve a problem in plain PyTorch, in the type of the input."""
    return differentiate(lambda x: _plain_loss(case, x, given.targets), (given.x,), backward=True)


def _plain_loss(case: Case, x: Tensor, targets: Tensor) -> Tensor:
    if case.task in SETTINGS:
        setting = SETTINGS[case.task]
        return plain.value(x, setting, setting.weights(targets))
    if case.has_labels:
        return plain.value(label_costs(x, targets), CTC_A, CTC_A.weights(targets))
    cost = antidiagonal.squared_distances if case.task == SOFT_DTW else cross_entropy
    return plain.value(cost(x, targets.to(x.dtype)), SDTW_E, None)


def cross_entropy(x: Tensor, y: Tensor) -> Tensor:
    """Binary cross-entropy of all pairs (eq. 31 of the dDTW paper), by two matrix products."""
    on, off = (part.log().clamp(min=-100) for part in (x, 1 - x))
    return -(torch.bmm(on, y.mT) + torch.bmm(off, (1 - y).mT))


def label_costs(logits: Tensor, labels: Tensor) -> Tensor:
    """-log p of blanks and labels in turn: (B, N, 2 M + 1); the blank is class 0."""
    columns = labels.new_zeros(labels.shape[0], CTC_A.columns(labels.shape[1]))
    columns[:, 1::2] = labels
    return -logits.log_softmax(2).gather(2, columns[:, None].expand(-1, logits.shape[1], -1))
