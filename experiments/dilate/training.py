"""Training with one of the three losses; the network with the lowest validation loss is kept."""

from __future__ import annotations

import copy
import dataclasses
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

import torch_dalign as dalign
from experiments.dilate.data import Part, Task
from experiments.dilate.networks import NETWORKS

if TYPE_CHECKING:
    from experiments.dilate.settings import Scale

Loss = Callable[[Tensor, Tensor], Tensor]
"""From forecast and future (B, M, 1) to a scalar, the mean over the batch."""

GAMMA = 0.01
MSE, SOFT_DTW, DILATE = "mse", "softdtw", "dilate"
LOSSES = (MSE, SOFT_DTW, DILATE)


def make_loss(name: str, alpha: float) -> Loss:
    """The loss of that name; alpha is DILATE's."""
    if name == MSE:
        return nn.MSELoss()
    return dalign.SoftDTW(gamma=GAMMA) if name == SOFT_DTW else dalign.DILATE(alpha=alpha, gamma=GAMMA)


@dataclasses.dataclass
class Result:
    """A trained network and how it got there.

    Attributes
    ----------
    network : nn.Module
        With the weights after epoch `best`.
    train_losses, validation_losses : list of float
        Of each epoch.
    best : int
        Epoch of the lowest validation loss, from 1.
    seconds : float
        CPU time of the training.
    """

    network: nn.Module
    train_losses: list[float] = dataclasses.field(default_factory=list)
    validation_losses: list[float] = dataclasses.field(default_factory=list)
    best: int = 0
    seconds: float = 0.0


def train(task: Task, network: str, loss: Loss, seed: int, scale: Scale) -> Result:
    """Train with Adam until the validation loss has not fallen for `scale.patience` epochs, or for `scale.epochs`.

    The seed decides on weights and batches, which are the same for all losses.
    """
    torch.manual_seed(seed)
    result = Result(NETWORKS[network](task.n_seen, task.n_future, scale.hidden[network]))
    optimizer = torch.optim.Adam(result.network.parameters(), lr=scale.learning_rate)
    batches = torch.Generator().manual_seed(seed)
    weights = copy.deepcopy(result.network.state_dict())
    started = time.process_time()
    for epoch in range(1, scale.epochs + 1):
        result.train_losses.append(_epoch(result.network, loss, task.train, optimizer, scale.batch_size, batches))
        result.validation_losses.append(evaluate(result.network, loss, task.validation))
        if not result.validation_losses[-1] < float("inf"):
            raise RuntimeError(f"the validation loss is {result.validation_losses[-1]}; try a smaller learning rate")
        if result.validation_losses[-1] <= min(result.validation_losses):
            result.best, weights = epoch, copy.deepcopy(result.network.state_dict())
        if epoch - result.best >= scale.patience:
            break
    result.seconds = time.process_time() - started
    result.network.load_state_dict(weights)
    return result


def _epoch(
    network: nn.Module, loss: Loss, part: Part, optimizer: torch.optim.Optimizer, size: int, batches: torch.Generator
) -> float:
    """Mean loss of the batches."""
    losses = []
    for chosen in torch.randperm(len(part.seen), generator=batches).split(size):
        optimizer.zero_grad()
        value = loss(network(part.seen[chosen]), part.future[chosen])
        value.backward()
        optimizer.step()
        losses.append(value.item())
    return sum(losses) / len(losses)


@torch.no_grad()
def evaluate(network: nn.Module, loss: Loss, part: Part) -> float:
    """Loss over a whole part."""
    return loss(network(part.seen), part.future).item()
