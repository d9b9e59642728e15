"""From descriptors to places: which index in the reference, a fraction of a frame, belongs to each query frame."""

from __future__ import annotations

import torch
from torch import Tensor

import torch_dalign as dalign
from experiments.gdtw.place.geography import between, distance

ALIGNERS = ("DTW", "GDTW", "single")
"""Subsequence DTW, subsequence GDTW, and the nearest frame for each frame on its own."""


def warp_layer(reg_weight: float) -> dalign.DecDTW:
    """The query is a part of the reference; its ends are free."""
    return dalign.DecDTW(reg_weight, subsequence=True)


def gdtw(layer: dalign.DecDTW, query: Tensor, reference: Tensor, pace: float) -> Tensor:
    """Indices (B, N), differentiable.

    Times are such that y, the reference, is [0, 1], and x, the query, takes its frames as one at usual speed would: so
    the slope 1, from which the regulariser measures, is this speed.
    """
    last = reference.shape[1] - 1
    y_times = torch.arange(last + 1, dtype=torch.float64) / last
    x_times = torch.arange(query.shape[1], dtype=torch.float64) * (pace / last)
    return last * layer(query, reference, x_times=x_times, y_times=y_times)


def dtw(query: Tensor, reference: Tensor) -> Tensor:
    """Indices (B, N): the mean of the reference frames that the best path gives to a query frame."""
    paths = dalign.dtw_path(query, reference, subsequence=True)
    index = torch.zeros(query.shape[:2], dtype=torch.float64)
    for row, path in zip(index, paths, strict=True):
        visits = path[:, 0].bincount(minlength=len(row))
        row.index_add_(0, path[:, 0], path[:, 1].double()).div_(visits)
    return index


def single(query: Tensor, reference: Tensor) -> Tensor:
    """Indices (B, N) of the nearest frames."""
    return torch.cdist(query, reference).argmin(dim=2).double()


def align(name: str, query: Tensor, reference: Tensor, pace: float, reg_weight: float) -> Tensor:
    """Indices (B, N) by the aligner of that name."""
    if name == "GDTW":
        return gdtw(warp_layer(reg_weight), query, reference, pace).double()
    return dtw(query, reference) if name == "DTW" else single(query, reference)


def errors(index: Tensor, query_points: Tensor, reference_points: Tensor) -> Tensor:
    """Distances in km between where frames were, and where the reference says they were, (B, N)."""
    return distance(between(reference_points, index), query_points)
