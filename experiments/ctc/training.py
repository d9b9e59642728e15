"""The training loop, the same for both losses, with a clock for the loss alone; trained networks are kept."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from tqdm import tqdm

import torch_dalign as dalign
from experiments.ctc import evaluation
from experiments.ctc.data import Batch, Utterance, training_batches
from experiments.ctc.network import CharacterNet

if TYPE_CHECKING:
    from experiments.ctc.settings import Settings

Loss = Callable[[Tensor, Tensor, Batch], Tensor]
"""From logits (T, B, C), their lengths and the batch to a scalar."""


def behind_log_softmax(module: nn.Module) -> Loss:
    """Both modules are called alike: the drop-in is another name in one line."""

    def loss(logits: Tensor, lengths: Tensor, batch: Batch) -> Tensor:
        return module(logits.log_softmax(2), batch.targets, lengths, batch.target_lengths)

    return loss


def from_logits(logits: Tensor, lengths: Tensor, batch: Batch) -> Tensor:
    """log-softmax as a part of the loss."""
    module = dalign.CTCLoss(zero_infinity=True, from_logits=True)
    return module(logits, batch.targets, lengths, batch.target_lengths)


# zero_infinity: a prompt that is too fast for its text after a change of speed counts 0.
LOSSES: dict[str, Callable[[], Loss]] = {
    "torch": lambda: behind_log_softmax(nn.CTCLoss(zero_infinity=True)),
    "dalign": lambda: behind_log_softmax(dalign.CTCLoss(zero_infinity=True)),
}
"""What is trained with."""
TIMED: dict[str, Callable[[], Loss]] = {**LOSSES, "dalign, from logits": lambda: from_logits}
"""What is timed on one network's outputs."""


@dataclasses.dataclass
class Result:
    """A trained network and how it got there.

    Attributes
    ----------
    network : CharacterNet
    step_losses : list of float
        Of each step.
    epoch_losses : list of float
        Mean of each epoch's steps.
    epoch_errors : list of float
        Character error rate of greedy decoding on the validation prompts, after each epoch.
    seconds : dict of float
        CPU time, which other programs do not lengthen as they do the time of the clock.
        "loss": log-softmax, CTC and the gradient with respect to the logits; "rest": network, its gradient, update.
    """

    network: CharacterNet
    step_losses: list[float] = dataclasses.field(default_factory=list)
    epoch_losses: list[float] = dataclasses.field(default_factory=list)
    epoch_errors: list[float] = dataclasses.field(default_factory=list)
    seconds: dict[str, float] = dataclasses.field(default_factory=lambda: {"loss": 0.0, "rest": 0.0})


def loss_and_gradient(loss: Loss, logits: Tensor, lengths: Tensor, batch: Batch) -> tuple[float, Tensor]:
    """Value, and the gradient with respect to the logits."""
    leaf = logits.detach().requires_grad_()
    value = loss(leaf, lengths, batch)
    (gradient,) = torch.autograd.grad(value, leaf)
    return value.item(), gradient


def make_network(settings: Settings) -> CharacterNet:
    """The untrained network, the same for the same seed."""
    torch.manual_seed(settings.seed)
    scale = settings.scale
    return CharacterNet(scale.channels, scale.hidden, scale.dropout)


def train(name: str, parts: dict[str, list[Utterance]], settings: Settings) -> Result:
    """Train with the loss of that name: start, batches, changes and dropout come from the seed, whatever the loss."""
    result = Result(make_network(settings))
    trainer = _Trainer(result, LOSSES[name](), parts["train"], settings)
    for epoch in range(settings.scale.epochs):
        trainer.run_epoch(f"{name} {epoch + 1}/{settings.scale.epochs}")
        hypotheses = evaluation.greedy(evaluation.outputs(result.network, parts["validation"]))
        texts = [one.prompt.text for one in parts["validation"]]
        result.epoch_errors.append(evaluation.error_rates(hypotheses, texts)["cer"])
    return result


def train_or_restore(name: str, parts: dict[str, list[Utterance]], settings: Settings) -> Result:
    """The training of that name, from `settings.out` where a run with equal settings has kept it, else made now."""
    path = settings.out / "trained" / f"{name}.pt"
    key = {"settings": settings.as_dict(), "prompts": [one.prompt.name for one in parts["train"]]}
    kept = torch.load(path, weights_only=True) if path.exists() else {}
    if kept.get("key") == key:
        result = Result(make_network(settings), **kept["numbers"])
        result.network.load_state_dict(kept["network"])
        return result
    result = train(name, parts, settings)
    numbers = {field.name: getattr(result, field.name) for field in dataclasses.fields(result)[1:]}
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"key": key, "network": result.network.state_dict(), "numbers": numbers}, path)
    return result


class _Trainer:
    """The state that lives from epoch to epoch."""

    def __init__(self, result: Result, loss: Loss, utterances: Sequence[Utterance], settings: Settings) -> None:
        self.result, self.loss, self.utterances = result, loss, utterances
        self.size = settings.scale.batch_size
        self.rng = np.random.default_rng(settings.seed)
        self.n_batches = len(list(training_batches(utterances, self.size, np.random.default_rng(settings.seed))))
        self.optimizer = torch.optim.Adam(result.network.parameters(), lr=settings.scale.learning_rate)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer,
            max_lr=settings.scale.learning_rate,
            total_steps=settings.scale.epochs * self.n_batches + 1,
            pct_start=0.2,
        )

    def run_epoch(self, label: str) -> None:
        self.result.network.train()
        batches = training_batches(self.utterances, self.size, self.rng)
        before = len(self.result.step_losses)
        with tqdm(batches, total=self.n_batches, desc=label, unit="batch", leave=False) as progress:
            for batch in progress:
                self._step(batch)
                progress.set_postfix(loss=f"{self.result.step_losses[-1]:.3f}")
        self.result.epoch_losses.append(float(np.mean(self.result.step_losses[before:])))

    def _step(self, batch: Batch) -> None:
        started = time.process_time()
        self.optimizer.zero_grad()
        logits, lengths = self.result.network(batch.features, batch.lengths)
        before_loss = time.process_time()
        value, gradient = loss_and_gradient(self.loss, logits, lengths, batch)
        after_loss = time.process_time()
        if not np.isfinite(value):
            raise RuntimeError(f"the loss is {value}; try a smaller learning rate")
        logits.backward(gradient)
        clip_grad_norm_(self.result.network.parameters(), max_norm=5.0)
        self.optimizer.step()
        self.schedule.step()
        seconds = self.result.seconds
        seconds["loss"] += after_loss - before_loss
        seconds["rest"] += time.process_time() - after_loss + before_loss - started
        self.result.step_losses.append(value)
