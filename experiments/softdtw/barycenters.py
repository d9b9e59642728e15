"""Table 1: averages of ten series of a class, judged by the DTW loss.

    loss(X) = 1/n sum_j dtw(X, Y_j) / m_j        (equation 4 of the paper at gamma = 0, equal lambdas)

All methods minimise it, soft-DTW with its gamma in place of 0, with the same weights 1 / (n m_j) and the same start.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

import torch_dalign as dalign
from experiments.data.ucr import Dataset, Split, resample
from experiments.softdtw.settings import GAMMAS, STARTS, Settings, soft
from experiments.softdtw.store import Found

METHODS: dict[str, dict[str, Any]] = {
    "dba": {"method": "dba"},
    "subgradient": {"method": "subgradient"},
    **{soft(gamma): {"method": "lbfgs", "gamma": gamma} for gamma in GAMMAS},
}
"""By name, the arguments of SoftDTWBarycenter."""


TOLERANCE = 1e-8
"""Of the loss, relatively: small enough for no method to end before it has converged or reached its last iteration."""


def run(dataset: Dataset, settings: Settings) -> Found:
    """DTW losses by start and method, one for each draw, and how many series each draw had; the last one's averages."""
    rng = np.random.default_rng(settings.seed)
    losses: dict[str, dict[str, list[float]]] = {start: {method: [] for method in METHODS} for start in STARTS}
    counts: list[int] = []
    averages: dict[str, dict[str, Tensor]] = {start: {} for start in STARTS}
    steps = settings.scale.draws * len(STARTS) * len(METHODS)
    with tqdm(total=steps, desc=f"{dataset.name}: barycenters", leave=False) as progress:
        for _ in range(settings.scale.draws):
            series = draw(dataset.everything, settings.scale.n_series, rng)
            counts.append(len(series))
            for start, first in make_starts(series, rng).items():
                for method in METHODS:
                    averages[start][method] = barycenter(series, first, method, settings.scale.iterations)
                    losses[start][method].append(dtw_loss(averages[start][method], series))
                    progress.update()
    return Found({"losses": losses, "n_series": counts}, {"series": series, "averages": averages})


def draw(split: Split, n_series: int, rng: np.random.Generator) -> list[Tensor]:
    """A random class, and so many of its series; all of them where it has fewer."""
    members = np.flatnonzero(split.labels == rng.choice(np.unique(split.labels)))
    chosen = rng.permutation(members)[:n_series]
    return [split.series[index] for index in chosen]


def make_starts(series: list[Tensor], rng: np.random.Generator) -> dict[str, Tensor]:
    """Where the methods begin: white noise, and the mean of the series at their median length."""
    length = int(np.median([len(one) for one in series]))
    noise = torch.from_numpy(rng.standard_normal((length, series[0].shape[1])))
    mean = torch.stack([resample(one, length) for one in series]).mean(dim=0)
    return {"random": noise.to(mean.dtype), "euclidean": mean}


def barycenter(series: list[Tensor], start: Tensor, method: str, iterations: int) -> Tensor:
    """The average that the method finds from that start."""
    estimator = dalign.SoftDTWBarycenter(init=start, max_iter=iterations, tol=TOLERANCE, **METHODS[method])
    average: Tensor = estimator.fit(series, sample_weight=weights(series)).barycenter_
    return average


def weights(series: list[Tensor]) -> Tensor:
    """1 / (n m_j)."""
    return torch.tensor([1 / (len(series) * len(one)) for one in series], dtype=series[0].dtype)


def dtw_loss(average: Tensor, series: list[Tensor]) -> float:
    """What all methods are judged by."""
    return (dalign.cdist_dtw([average], series)[0] * weights(series)).sum().item()
