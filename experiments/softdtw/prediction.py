"""Table 3: the last 40 % of a series predicted from its first 60 % by a network with one hidden layer.

The network (sigmoid units) is trained on the training part with each loss and judged on the test part. With the random
start all losses share the same random weights. With the Euclidean start soft-DTW goes on, for as many updates again,
from the network that the Euclidean loss has trained, and is compared with that network.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

import torch_dalign as dalign
from experiments.data.ucr import Dataset, resample
from experiments.softdtw.settings import EUCLIDEAN, GAMMAS, STARTS, Settings, soft
from experiments.softdtw.store import Found

SEEN = 0.6

Loss = Callable[[Tensor, Tensor], Tensor]


def run(dataset: Dataset, settings: Settings) -> Found:
    """Loss on the test part by judge ("dtw", "euclidean"), start and training loss; some forecasts as an example."""
    length = common_length(dataset)
    train, test = (split_in_time(part.series, length) for part in (dataset.train, dataset.test))
    networks = train_all(train, settings, dataset.name)
    judged = {
        judge: {
            start: {name: evaluate(network, test, loss) for name, network in found.items()}
            for start, found in networks.items()
        }
        for judge, loss in JUDGES.items()
    }
    numbers = {**judged, "length": length, "seen": train[0].shape[1]}
    return Found(numbers, make_example(networks["random"], test))


def common_length(dataset: Dataset) -> int:
    """The median length: a network has one size. Only sets whose lengths differ are resampled."""
    return int(torch.tensor(dataset.lengths).median())


def split_in_time(series: list[Tensor], length: int) -> tuple[Tensor, Tensor]:
    """What is seen and what comes after it, (n, 0.6 N, D) and (n, 0.4 N, D)."""
    whole = torch.stack([resample(one, length) for one in series])
    seen = min(max(round(SEEN * length), 1), length - 1)
    return whole[:, :seen], whole[:, seen:]


# --- Losses: per frame of the target, one number per item ------------------------------------------------------------


def euclidean(prediction: Tensor, target: Tensor) -> Tensor:
    """Squared distance, frame by frame."""
    return ((prediction - target) ** 2).sum(dim=(1, 2)) / target.shape[1]


def dtw(prediction: Tensor, target: Tensor) -> Tensor:
    """Cost of the best alignment."""
    return dalign.dtw(prediction, target) / target.shape[1]


def soft_dtw(gamma: float) -> Loss:
    """Smoothed cost of all alignments."""
    loss = dalign.SoftDTW(gamma=gamma, reduction="none")
    return lambda prediction, target: loss(prediction, target) / target.shape[1]


JUDGES: dict[str, Loss] = {"dtw": dtw, "euclidean": euclidean}


def training_losses() -> dict[str, Loss]:
    """By name, as they are named in the results."""
    return {EUCLIDEAN: euclidean, **{soft(gamma): soft_dtw(gamma) for gamma in GAMMAS}}


# --- Training ---------------------------------------------------------------------------------------------------------


class Network(nn.Module):
    """(B, N, D) to (B, M, D) through one hidden layer."""

    def __init__(self, n_seen: int, n_after: int, n_dims: int, hidden_units: int) -> None:
        super().__init__()
        self.shape = (n_after, n_dims)
        self.layers = nn.Sequential(
            nn.Linear(n_seen * n_dims, hidden_units), nn.Sigmoid(), nn.Linear(hidden_units, n_after * n_dims)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Predict what comes after x."""
        prediction: Tensor = self.layers(x.flatten(1)).unflatten(1, self.shape)
        return prediction


def train_all(data: tuple[Tensor, Tensor], settings: Settings, name: str) -> dict[str, dict[str, Network]]:
    """Networks by start and training loss."""
    seen, after = data
    torch.manual_seed(settings.seed)
    start = Network(seen.shape[1], after.shape[1], seen.shape[2], settings.scale.hidden_units).to(seen.dtype)
    losses = training_losses()
    networks: dict[str, dict[str, Network]] = {}
    with tqdm(total=len(STARTS) * len(losses), desc=f"{name}: training", leave=False) as progress:
        for column in STARTS:
            networks[column] = {}
            for loss_name, loss in losses.items():
                is_trained = (column, loss_name) == (EUCLIDEAN, EUCLIDEAN)
                networks[column][loss_name] = start if is_trained else train(start, data, loss, settings)
                progress.update()
            start = networks[column][EUCLIDEAN]
    return networks


def train(start: Network, data: tuple[Tensor, Tensor], loss: Loss, settings: Settings) -> Network:
    """A trained copy of the network; all losses see the same batches in the same order."""
    network = copy.deepcopy(start)
    scale = settings.scale
    optimizer = torch.optim.Adam(network.parameters(), lr=scale.learning_rate)
    order = torch.Generator().manual_seed(settings.seed)
    seen, after = data
    batches: list[Tensor] = []
    for _ in range(scale.updates):
        batches = batches or list(torch.randperm(len(seen), generator=order).split(scale.batch_size))
        batch = batches.pop()
        optimizer.zero_grad()
        loss(network(seen[batch]), after[batch]).mean().backward()
        optimizer.step()
    return network


@torch.no_grad()
def evaluate(network: Network, data: tuple[Tensor, Tensor], loss: Loss) -> float:
    """Mean over the items."""
    seen, after = data
    return loss(network(seen), after).mean().item()


N_EXAMPLES = 3


@torch.no_grad()
def make_example(networks: dict[str, Network], data: tuple[Tensor, Tensor]) -> dict[str, Any]:
    """What the networks say of the first test series."""
    seen, after = (part[:N_EXAMPLES] for part in data)
    return {"seen": seen, "after": after, "forecasts": {name: network(seen) for name, network in networks.items()}}
