"""Table 2: k-means with as many clusters as there are classes, judged by the DTW loss.

    loss(X_1, ..., X_k) = sum_j min_i dtw(X_i, Y_j) / m_j        (equation 5 of the paper at gamma = 0)

All methods begin with the same k centres. Random start: k of the series. Euclidean start: the centres that k-means
finds with the Euclidean distance. Labels are not looked at.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

import torch_dalign as dalign
from experiments.data.ucr import Dataset, resample
from experiments.softdtw.barycenters import METHODS, TOLERANCE
from experiments.softdtw.settings import STARTS, Scale, Settings
from experiments.softdtw.store import Found


def run(dataset: Dataset, settings: Settings) -> Found:
    """DTW losses by start and method (lists of one number), and the numbers of series and clusters."""
    rng = np.random.default_rng(settings.seed)
    series = draw(dataset.train.series, settings.scale.kmeans_series, rng)
    starts = make_starts(series, dataset.n_classes, rng)
    losses: dict[str, dict[str, list[float]]] = {start: {} for start in STARTS}
    with tqdm(total=len(STARTS) * len(METHODS), desc=f"{dataset.name}: k-means", leave=False) as progress:
        for start, first in starts.items():
            for method in METHODS:
                losses[start][method] = [dtw_loss(centers(series, first, method, settings), series)]
                progress.update()
    return Found({"losses": losses, "n_series": len(series), "n_clusters": len(starts["random"])})


def draw(series: list[Tensor], at_most: int | None, rng: np.random.Generator) -> list[Tensor]:
    """That many of the series at random, or all."""
    if at_most is None or len(series) <= at_most:
        return series
    return [series[index] for index in rng.permutation(len(series))[:at_most]]


def make_starts(series: list[Tensor], n_clusters: int, rng: np.random.Generator) -> dict[str, Tensor]:
    """First centres (k, N, D); N is the median length."""
    from sklearn.cluster import KMeans

    n_clusters = min(n_clusters, len(series))
    length = int(np.median([len(one) for one in series]))
    whole = torch.stack([resample(one, length) for one in series])
    euclidean = KMeans(n_clusters, n_init=1, random_state=int(rng.integers(2**31))).fit(whole.flatten(1).numpy())
    return {
        "random": whole[torch.from_numpy(rng.permutation(len(series))[:n_clusters])],
        "euclidean": torch.from_numpy(euclidean.cluster_centers_).reshape(n_clusters, *whole.shape[1:]).to(whole.dtype),
    }


def centers(series: list[Tensor], first: Tensor, method: str, settings: Settings) -> list[Tensor]:
    """The centres that the method finds from the first ones."""
    if method == "subgradient":
        return subgradient_centers(series, list(first), settings.scale)
    estimator = dalign.SoftDTWKMeans(
        n_clusters=len(first),
        gamma=METHODS[method].get("gamma", 0.0),  # 0 is DTW, whose centres are averages of DBA
        init=first,
        max_iter=settings.scale.kmeans_rounds,
        max_iter_barycenter=settings.scale.kmeans_iterations,
        tol=TOLERANCE,
        random_state=settings.seed,
    )
    return list(estimator.fit(series, sample_weight=frame_weights(series)).cluster_centers_)


def subgradient_centers(series: list[Tensor], found: list[Tensor], scale: Scale) -> list[Tensor]:
    """The same two steps in turns, with averages by subgradient steps, which SoftDTWKMeans does not offer.

    They may make a centre worse, so all rounds are made and the best centres count. One without series stays as it is.
    """
    rounds = [found]
    for _ in range(scale.kmeans_rounds):
        labels = dalign.cdist_dtw(found, series).argmin(dim=0).tolist()
        members = [[one for one, label in zip(series, labels, strict=True) if label == c] for c in range(len(found))]
        found = [subgradient_average(own, center, scale) for own, center in zip(members, found, strict=True)]
        rounds.append(found)
    return min(rounds, key=lambda centers: dtw_loss(centers, series))


def subgradient_average(series: list[Tensor], start: Tensor, scale: Scale) -> Tensor:
    """The average of a cluster."""
    if not series:
        return start
    estimator = dalign.SoftDTWBarycenter(
        init=start, max_iter=scale.kmeans_iterations, tol=TOLERANCE, **METHODS["subgradient"]
    )
    average: Tensor = estimator.fit(series, sample_weight=frame_weights(series)).barycenter_
    return average


def frame_weights(series: list[Tensor]) -> Tensor:
    """1 / m_j."""
    return torch.tensor([1 / len(one) for one in series], dtype=series[0].dtype)


def dtw_loss(found: list[Tensor], series: list[Tensor]) -> float:
    """What all methods are judged by."""
    return (dalign.cdist_dtw(found, series).amin(dim=0) * frame_weights(series)).sum().item()
