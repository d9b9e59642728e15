"""The base network: descriptors of single frames that tell places apart, by a contrastive loss."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from experiments.gdtw.place.geography import distance
from experiments.gdtw.place.networks import Encoder
from experiments.gdtw.place.sequences import Data, Views


@dataclasses.dataclass(frozen=True)
class Contrast:
    """Contrastive training with Adam and a one-cycle rate.

    Attributes
    ----------
    steps, places : int
        Steps, and places of each.
    rate : float
        Highest learning rate.
    temperature : float
        Similarities are divided by it.
    apart : float
        Places nearer to each other than so many spacings are no negatives (the paper's are 25 m apart, five spacings).
    """

    steps: int
    places: int
    rate: float
    temperature: float = 0.07
    apart: float = 5.0


def contrast(encoder: Encoder, views: Views, temperature: float, apart: float) -> Tensor:
    r"""Cross-entropy of finding a place again among the others, both ways (InfoNCE).

    .. math:: -\frac{1}{2n} \sum_i \Big( \log \frac{e^{S_{ii}}}{\sum_j e^{S_{ij}}}
        + \log \frac{e^{S_{ii}}}{\sum_j e^{S_{ji}}} \Big), \qquad S_{ij} = q_i^\top r_j / \tau

    over places j that are at least `apart` km from i, and i itself.
    """
    descriptors = encoder(torch.cat([views.query, views.reference]))
    query, reference = descriptors.chunk(2)
    close = distance(views.points[:, None], views.points[None]) < apart
    scores = (query @ reference.T / temperature).masked_fill(close.fill_diagonal_(False), -torch.inf)
    own = torch.arange(len(scores))
    return (F.cross_entropy(scores, own) + F.cross_entropy(scores.T, own)) / 2


def train(encoder: Encoder, data: Data, plan: Contrast, seed: int) -> list[float]:
    """Train all of the network; the losses of the steps."""
    rng = np.random.default_rng([seed, 1])
    with torch.no_grad():
        encoder.eval().pool.start_from(encoder.maps(data.views(plan.places, rng).reference), seed)
    optimizer = torch.optim.Adam(encoder.parameters(), lr=plan.rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, plan.rate, total_steps=plan.steps + 1, pct_start=0.2)
    encoder.train()
    losses = list[float]()
    with tqdm(range(plan.steps), desc="contrastive", unit="step", leave=False) as steps:
        for _ in steps:
            loss = contrast(encoder, data.views(plan.places, rng), plan.temperature, plan.apart * data.spacing)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
            steps.set_postfix(loss=f"{losses[-1]:.3f}")
    encoder.eval()
    return losses


@torch.no_grad()
def recall(encoder: Encoder, data: Data, count: int, seed: int) -> float:
    """Share of `count` places seen anew whose most similar reference, of all of these, is within half a spacing."""
    views = data.views(count, np.random.default_rng([seed, 2]))
    encoder.eval()
    found = (encoder(views.query) @ encoder(views.reference).T).argmax(dim=1)
    return float((distance(views.points[found], views.points) < data.spacing / 2).float().mean())
