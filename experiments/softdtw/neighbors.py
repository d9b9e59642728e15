"""1-NN classification: each test series gets the class of the nearest training series.

Not in the paper, but the check that data and DTW are what everybody else has: these accuracies are published.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

import torch_dalign as dalign
from experiments.data.ucr import Dataset
from experiments.softdtw.settings import Settings
from experiments.softdtw.store import Found

WINDOW = 0.1
DISTANCES = ("euclidean", "dtw", "dtw_window")


def run(dataset: Dataset, settings: Settings) -> Found:
    """Accuracies on the test part; "euclidean" is None when lengths differ."""
    del settings
    train, test = dataset.train, dataset.test
    window = max(int(WINDOW * min(dataset.lengths)), 1)
    distances: dict[str, Tensor | None] = {
        "euclidean": _euclidean(test.series, train.series),
        "dtw": dalign.cdist_dtw(test.series, train.series),
        "dtw_window": dalign.cdist_dtw(test.series, train.series, band=window),
    }
    labels = train.labels, test.labels
    return Found({name: None if table is None else accuracy(table, *labels) for name, table in distances.items()})


def accuracy(distances: Tensor, train_labels: np.ndarray, test_labels: np.ndarray) -> float:
    """Share of test series whose nearest training series has their class; of equally near ones the first counts."""
    return float(np.mean(train_labels[distances.argmin(dim=1).numpy()] == test_labels))


def _euclidean(X: list[Tensor], Y: list[Tensor]) -> Tensor | None:
    if len({len(one) for one in (*X, *Y)}) > 1:
        return None
    x, y = (torch.stack(series).flatten(1) for series in (X, Y))
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")
