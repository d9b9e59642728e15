"""The training loop: whole pieces, Adam, a one-cycle learning rate."""

from __future__ import annotations

import copy
import dataclasses
import time
from typing import TYPE_CHECKING

import torch
from torch.nn.utils import clip_grad_norm_
from tqdm import tqdm

from experiments.data import music
from experiments.quickstart import losses
from experiments.quickstart.data import Chorales, shuffled_batches
from experiments.quickstart.evaluation import Scores, score
from experiments.quickstart.network import PitchClassNet

if TYPE_CHECKING:
    from experiments.quickstart.settings import Settings


@dataclasses.dataclass
class Result:
    """A trained network and how it got there.

    Attributes
    ----------
    untrained, network : PitchClassNet
        Before and after.
    step_losses : list of float
        Loss per frame of each training step.
    epoch_scores : list of Scores
        On the validation pieces, before training and after each epoch.
    test : Scores
        On the held-out pieces, after training.
    seconds : float
        Time of the training itself, without evaluation.
    """

    untrained: PitchClassNet
    network: PitchClassNet
    step_losses: list[float]
    epoch_scores: list[Scores]
    test: Scores
    seconds: float


def train(name: str, chorales: Chorales, settings: Settings) -> Result:
    """Train a network with the loss of that name; the same seed gives all losses the same start and the same order."""
    way = losses.training(name)
    torch.manual_seed(settings.seed)
    network = PitchClassNet(way.has_blank, single_label=way.of_melody).to(settings.device)
    untrained = copy.deepcopy(network)
    trainer = _Trainer(network, name, chorales.train, settings)
    epoch_scores, seconds = [score(network, chorales.validation)], 0.0
    for epoch in range(settings.epochs):
        started = time.perf_counter()
        trainer.run_epoch(f"{name} {epoch + 1}/{settings.epochs}")
        seconds += time.perf_counter() - started
        epoch_scores.append(score(network, chorales.validation))
    test = score(network, chorales.test)
    return Result(untrained, network, trainer.step_losses, epoch_scores, test, seconds)


class _Trainer:
    """The state that lives from epoch to epoch."""

    def __init__(self, network: PitchClassNet, name: str, pieces: list[music.Piece], settings: Settings) -> None:
        self.network, self.pieces, self.settings = network, pieces, settings
        self.loss = losses.training(name).make(settings)
        self.order = torch.Generator().manual_seed(settings.seed)
        self.n_batches = -(-len(pieces) // settings.batch_size)
        self.optimizer = torch.optim.Adam(network.parameters(), lr=settings.learning_rate)
        # A slow start keeps the first, still blind, alignments from pulling the network to one chord for all frames.
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer, max_lr=settings.learning_rate, total_steps=settings.epochs * self.n_batches
        )
        self.step_losses: list[float] = []

    def run_epoch(self, label: str) -> None:
        self.network.train()
        batches = shuffled_batches(self.pieces, self.settings.batch_size, self.order)
        with tqdm(batches, total=self.n_batches, desc=label, unit="batch", leave=False) as progress:
            for batch in progress:
                on_device = batch.to(self.settings.device)
                self.optimizer.zero_grad()
                per_piece = self.loss(self.network(on_device.features), on_device)
                # Divided by its length a long piece weighs as much as a short one.
                loss = (per_piece / on_device.n_frames).mean()
                if not torch.isfinite(loss):
                    raise RuntimeError(f"{label}: the loss is {loss.item()}; try a smaller learning rate")
                loss.backward()
                clip_grad_norm_(self.network.parameters(), max_norm=5.0)
                self.optimizer.step()
                self.schedule.step()
                self.step_losses.append(loss.item())
                progress.set_postfix(loss=f"{self.step_losses[-1]:.3f}")
