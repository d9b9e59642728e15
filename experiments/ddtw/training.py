"""The training loop of both tasks: Adam, a rate that is halved when nothing improves, the best network kept."""

from __future__ import annotations

import copy
import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn
from tqdm import tqdm

from experiments.ddtw.settings import Schedule

Item = TypeVar("Item")
Batch = TypeVar("Batch")


@dataclasses.dataclass(frozen=True)
class Course:
    """How a training went.

    Attributes
    ----------
    validation : list of float
        Mean loss of the validation items after each epoch.
    seconds : float
        Of training and validation.
    """

    validation: list[float]
    seconds: float

    @property
    def best(self) -> float:
        """The lowest validation loss, that of the network which was kept."""
        return min(self.validation)


@dataclasses.dataclass(frozen=True)
class Trainer(Generic[Item, Batch]):
    """What a task trains with: its data, how items become a batch, and the loss of a batch, a mean over its items."""

    train: Sequence[Item]
    validation: Sequence[Item]
    collate: Callable[[Sequence[Item]], Batch]
    loss: Callable[[nn.Module, Batch], Tensor]

    def fit(self, network: nn.Module, schedule: Schedule, seed: int, label: str) -> Course:
        """Train a network; it ends as it was after its best epoch. The same seed gives the same order of the items."""
        optimizer = torch.optim.Adam((p for p in network.parameters() if p.requires_grad), lr=schedule.rate)
        halve = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=schedule.halve_after)
        order = torch.Generator().manual_seed(seed)
        best, kept, losses = float("inf"), copy.deepcopy(network.state_dict()), list[float]()
        started, waiting = time.perf_counter(), 0
        with tqdm(range(schedule.epochs), desc=label, unit="epoch", leave=False) as epochs:
            for _ in epochs:
                self._epoch(network, optimizer, torch.randperm(len(self.train), generator=order).tolist(), schedule)
                losses.append(self.validate(network, schedule.batch_size))
                halve.step(losses[-1])
                epochs.set_postfix(loss=f"{losses[-1]:.3f}")
                if losses[-1] < best:
                    best, kept, waiting = losses[-1], copy.deepcopy(network.state_dict()), 0
                else:
                    waiting += 1
                if waiting >= schedule.stop_after:
                    break
        network.load_state_dict(kept)
        network.eval()
        return Course(losses, time.perf_counter() - started)

    def _epoch(
        self, network: nn.Module, optimizer: torch.optim.Optimizer, order: list[int], schedule: Schedule
    ) -> None:
        network.train()
        for start in range(0, len(order), schedule.batch_size):
            batch = self.collate([self.train[index] for index in order[start : start + schedule.batch_size]])
            optimizer.zero_grad()
            self.loss(network, batch).backward()
            optimizer.step()

    @torch.no_grad()
    def validate(self, network: nn.Module, batch_size: int) -> float:
        """Mean loss of the validation items."""
        network.eval()
        total = 0.0
        for start in range(0, len(self.validation), batch_size):
            items = self.validation[start : start + batch_size]
            total += len(items) * float(self.loss(network, self.collate(items)))
        return total / len(self.validation)
