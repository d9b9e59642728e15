"""Training on sequences with the paper's four losses, and the errors of a network."""

from __future__ import annotations

import copy
import dataclasses
import time
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

import torch_dalign as dalign
from experiments.gdtw.place import alignment
from experiments.gdtw.place.geography import distance
from experiments.gdtw.place.networks import Encoder
from experiments.gdtw.place.sequences import Batch, Data, Pairs

Loss = Callable[[Tensor, Tensor, Batch], Tensor]
"""From descriptors (B, N, D) of queries and (B, M, D) of their references to a scalar."""


@dataclasses.dataclass(frozen=True)
class Tuning:
    """Training with Adam; the network of the lowest mean largest error on validation pairs is kept.

    Attributes
    ----------
    epochs, batch_size : int
        A batch holds whole groups of queries with the same reference, about `batch_size` queries.
    rate : float
        Learning rate.
    checks : int
        Validations in each epoch.
    """

    epochs: int
    batch_size: int
    rate: float
    checks: int


@dataclasses.dataclass(frozen=True)
class Course:
    """How a training went.

    Attributes
    ----------
    validation : list of float
        Mean largest error of the validation pairs in km, before the training first, then at each check.
    losses : list of float
        Mean loss of the steps between the checks.
    seconds : float
        CPU time of training and validation.
    """

    validation: list[float]
    losses: list[float]
    seconds: float


# --- The losses -------------------------------------------------------------------------------------------------------


def otam() -> Loss:
    """Soft-DTW with free ends, gamma = 1: no positions are used."""
    loss = dalign.SubsequenceSoftDTW(gamma=1.0)
    return lambda query, reference, batch: loss(query, reference)


def along_truth() -> Loss:
    """Cost of the features along the path nearest to the true positions: no alignment is computed."""
    loss = dalign.PathCost(breakpoints=True)

    def value(query: Tensor, reference: Tensor, batch: Batch) -> Tensor:
        rows = torch.arange(query.shape[1], dtype=batch.truth.dtype).expand_as(batch.truth)
        return loss(query, reference, torch.stack([rows, batch.truth], dim=2))

    return value


def dilate(spacing: float) -> Loss:
    r"""DILATE with alpha = 0 and gamma = 0.1, its paths with free ends: :math:`\langle \Omega, E \rangle / (N M)`.

    :math:`\Omega_{ij}` is the squared distance between query frame i and reference frame j, in spacings.
    """

    def value(query: Tensor, reference: Tensor, batch: Batch) -> Tensor:
        gaps = distance(batch.query_points[:, :, None], batch.reference_points[:, None]) / spacing
        cost = dalign.pairwise(query, reference, "sqeuclidean")
        mean = dalign.functional.expected_cost(cost, gaps.square().to(cost.dtype), 0.1, start="any_y", end="any_y")
        return mean.mean() / (cost.shape[1] * cost.shape[2])

    return value


def decdtw(reg_weight: float, pace: float) -> Loss:
    """The task itself: the largest error along the optimal warp in km, a mean over the batch."""
    layer = alignment.warp_layer(reg_weight)

    def value(query: Tensor, reference: Tensor, batch: Batch) -> Tensor:
        index = alignment.gdtw(layer, query, reference, pace)
        return alignment.errors(index, batch.query_points, batch.reference_points).amax(dim=1).mean()

    return value


METHODS = ("DecDTW", "DILATE", "OTAM", "along truth")
"""In the order in which they are trained."""
ALIGNED_BY = {"base": "DTW", "OTAM": "DTW", "along truth": "DTW", "DILATE": "DTW", "DecDTW": "GDTW"}
"""How validation aligns, as the paper does."""


def make_loss(method: str, data: Data, reg_weight: float) -> Loss:
    """The loss of that name."""
    makers: Mapping[str, Callable[[], Loss]] = {
        "OTAM": otam,
        "along truth": along_truth,
        "DILATE": lambda: dilate(data.spacing),
        "DecDTW": lambda: decdtw(reg_weight, data.parts["train"].pace),
    }
    return makers[method]()


# --- Training ---------------------------------------------------------------------------------------------------------


def encoded(encoder: Encoder, batch: Batch) -> tuple[Tensor, Tensor]:
    """Descriptors of the queries (B, N, D) and of the reference of each (B, M, D)."""
    return encoder(batch.query_frames), encoder(batch.reference_frames)[batch.reference_of]


def tune(encoder: Encoder, method: str, data: Data, plan: Tuning, reg_weight: float, seed: int) -> Course:
    """Train; the network ends as it was at its best check, which may be the one before all training."""
    encoder.tuning = True
    loss, train, pace = make_loss(method, data, reg_weight), data.parts["train"], data.parts["train"].pace
    optimizer = torch.optim.Adam(encoder.tuned(), lr=plan.rate)
    order, started = np.random.default_rng([seed, 3]), time.process_time()

    def check() -> float:
        index = predict(encoder, data.parts["validation"], (ALIGNED_BY[method],), pace, reg_weight)
        return float(pair_errors(index[ALIGNED_BY[method]], data.parts["validation"]).amax(dim=1).mean())

    validation, losses, recent = [check()], list[float](), list[float]()
    kept = copy.deepcopy(encoder.state_dict())
    with tqdm(range(plan.epochs), desc=method, unit="epoch", leave=False) as epochs:
        for _ in epochs:
            batches = train.grouped(plan.batch_size, order)
            checks = {round(len(batches) * (k + 1) / plan.checks) for k in range(plan.checks)}
            for number, queries in enumerate(batches, start=1):
                batch = train.batch(queries)
                encoder.train()
                value = loss(*encoded(encoder, batch), batch)
                optimizer.zero_grad()
                value.backward()
                optimizer.step()
                recent.append(value.item())
                if number not in checks:
                    continue
                validation.append(check())
                losses.append(float(np.mean(recent)))
                recent.clear()
                epochs.set_postfix(error=f"{validation[-1] / data.unit_km:.1f} {data.unit}")
                if validation[-1] < min(validation[:-1]):
                    kept = copy.deepcopy(encoder.state_dict())
    encoder.load_state_dict(kept)
    encoder.eval()
    return Course(validation, losses, time.process_time() - started)


# --- Evaluation -------------------------------------------------------------------------------------------------------


@torch.no_grad()
def predict(
    encoder: Encoder, pairs: Pairs, aligners: tuple[str, ...], pace: float, reg_weight: float, batch_size: int = 16
) -> dict[str, Tensor]:
    """Indices (Q, N) by each aligner."""
    encoder.eval()
    found = {name: torch.zeros_like(pairs.truth) for name in aligners}
    for queries in pairs.grouped(batch_size):
        query, reference = encoded(encoder, pairs.batch(queries))
        for name in aligners:
            found[name][queries] = alignment.align(name, query, reference, pace, reg_weight)
    return found


def pair_errors(index: Tensor, pairs: Pairs) -> Tensor:
    """Errors (Q, N) of indices (Q, N), in km."""
    return alignment.errors(index, pairs.queries.points, pairs.references.points[pairs.reference_of])


@torch.no_grad()
def choose_reg_weight(encoder: Encoder, pairs: Pairs, pace: float, grid: tuple[float, ...]) -> dict[float, float]:
    """Mean largest error in km of the pairs for each lambda."""
    encoder.eval()
    total = dict.fromkeys(grid, 0.0)
    for queries in pairs.grouped(16):
        batch = pairs.batch(queries)
        query, reference = encoded(encoder, batch)
        for reg_weight in grid:
            index = alignment.align("GDTW", query, reference, pace, reg_weight)
            worst = alignment.errors(index, batch.query_points, batch.reference_points).amax(dim=1)
            total[reg_weight] += float(worst.sum())
    return {reg_weight: value / len(pairs) for reg_weight, value in total.items()}
