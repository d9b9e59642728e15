"""The loop that all methods share: the network with the lowest TimeErr on the validation slices is kept."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.utils import clip_grad_norm_

from experiments.gdtw.score import data
from experiments.gdtw.score.data import Slice
from experiments.gdtw.score.methods import Aligner, Loss

CLIP = 1.0
"""Norm of the gradient at most."""


class Schedule(NamedTuple):
    """Adam with a constant rate."""

    epochs: int
    batch_size: int
    rate: float


class Course(NamedTuple):
    """TimeErr in ms on the validation slices before training and after each epoch, the kept epoch, CPU seconds."""

    validation: list[float]
    losses: list[float]
    best: int
    seconds: float


class Milliseconds(NamedTuple):
    """TimeErr and TimeDev of each slice."""

    error: NDArray[np.float64]
    deviation: NDArray[np.float64]

    def means(self) -> list[float]:
        """Over the slices."""
        return [round(float(values.mean()), 3) for values in self]


@torch.no_grad()
def evaluate(network: nn.Module, aligner: Aligner, items: Sequence[Slice], batch_size: int) -> Milliseconds:
    """Errors at the truth's breakpoints, between them linear, as the published figures are computed."""
    network.eval()
    found = [
        torch.stack(aligner(network(batch), batch).errors(batch, "target")) for batch in data.batches(items, batch_size)
    ]
    error, deviation = 1000 * torch.cat(found, dim=1).double().numpy()
    return Milliseconds(error, deviation)


class Trainer:
    """Training slices, a loss, and the aligner that judges on the validation slices (`aligner_rate`: its own)."""

    def __init__(
        self,
        train: Sequence[Slice],
        validation: Sequence[Slice],
        loss: Loss,
        aligner: Aligner,
        aligner_rate: float = 0.02,
    ) -> None:
        self.train, self.validation, self.loss, self.aligner = train, validation, loss, aligner
        self.aligner_rate = aligner_rate

    def fit(self, network: nn.Module, schedule: Schedule, seed: int, label: str = "") -> Course:
        """Train the network, and the aligner where it has something to learn; both are left as they were at best."""
        from tqdm import tqdm

        both = nn.ModuleList([network, *([self.aligner] if isinstance(self.aligner, nn.Module) else [])])
        rates = (schedule.rate, self.aligner_rate)
        optimizer = torch.optim.Adam(
            [{"params": list(part.parameters()), "lr": rate} for part, rate in zip(both, rates, strict=False)]
        )
        order = torch.Generator().manual_seed(seed)
        started = time.process_time()
        validation, losses = [self._validate(network, schedule)], list[float]()
        best, kept = 0, copy.deepcopy(both.state_dict())
        with tqdm(range(1, schedule.epochs + 1), desc=label, unit="epoch", leave=False) as epochs:
            for epoch in epochs:
                shuffled = torch.randperm(len(self.train), generator=order).tolist()
                losses.append(self._epoch(network, optimizer, shuffled, schedule))
                validation.append(self._validate(network, schedule))
                epochs.set_postfix(ms=f"{validation[-1]:.1f}")
                if validation[-1] < validation[best]:
                    best, kept = epoch, copy.deepcopy(both.state_dict())
        both.load_state_dict(kept)
        return Course(validation, losses, best, round(time.process_time() - started, 1))

    def _epoch(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        order: list[int],
        schedule: Schedule,
    ) -> float:
        network.train()
        losses = []
        for batch in data.batches(self.train, schedule.batch_size, order):
            optimizer.zero_grad()
            loss = self.loss(network(batch), batch)
            loss.backward()
            clip_grad_norm_(network.parameters(), CLIP)
            optimizer.step()
            losses.append(float(loss.detach()))
        return round(float(np.mean(losses)), 6)

    def _validate(self, network: nn.Module, schedule: Schedule) -> float:
        return round(float(evaluate(network, self.aligner, self.validation, schedule.batch_size).error.mean()), 3)
