"""Pairwise costs and their adjoints, written as the formulas of the documentation (float64, one pair of sequences).

x is (N, D); y is (M, D), or (M,) class indices for "nll". A cost is (N, M).
"""

from __future__ import annotations

import numpy as np

METRICS = ("sqeuclidean", "euclidean", "manhattan", "cosine", "nll", "bce")
LOG_FLOOR = -100.0  # torch's BCE clamps its logarithms here


def pairwise(x: np.ndarray, y: np.ndarray, metric: str) -> np.ndarray:
    """Cost (N, M) of every pair of frames."""
    x = np.asarray(x, dtype=np.float64)
    if metric == "nll":
        return -x[:, np.asarray(y)]
    y = np.asarray(y, dtype=np.float64)
    cost = np.empty((len(x), len(y)))
    for i in range(len(x)):
        for j in range(len(y)):
            cost[i, j] = frame_cost(x[i], y[j], metric)
    return cost


def frame_cost(x: np.ndarray, y: np.ndarray, metric: str) -> float:
    """Cost of one frame against one frame."""
    if metric == "sqeuclidean":
        return float(((x - y) ** 2).sum())
    if metric == "euclidean":
        return float(np.sqrt(((x - y) ** 2).sum()))
    if metric == "manhattan":
        return float(np.abs(x - y).sum())
    if metric == "cosine":
        norm_x, norm_y = np.sqrt((x * x).sum()), np.sqrt((y * y).sum())
        return 1.0 if norm_x == 0 or norm_y == 0 else float(1.0 - (x @ y) / (norm_x * norm_y))
    if metric == "bce":
        return float(-(y * clamped_log(x) + (1 - y) * clamped_log(1 - x)).sum())
    raise ValueError(metric)


def clamped_log(p: np.ndarray) -> np.ndarray:
    """max(log p, -100)."""
    with np.errstate(divide="ignore"):
        return np.maximum(np.log(p), LOG_FLOOR)


def clamped_log_derivative(p: np.ndarray) -> np.ndarray:
    """Derivative of `clamped_log`: 1 / p, and 0 where the clamp holds."""
    with np.errstate(divide="ignore"):
        return np.where(np.log(p) > LOG_FLOOR, 1.0 / p, 0.0)


def frame_gradients(x: np.ndarray, y: np.ndarray, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Derivatives of `frame_cost` with respect to x and y."""
    if metric == "sqeuclidean":
        return 2 * (x - y), 2 * (y - x)
    if metric == "euclidean":
        distance = np.sqrt(((x - y) ** 2).sum())
        direction = np.zeros_like(x) if distance == 0 else (x - y) / distance
        return direction, -direction
    if metric == "manhattan":
        return np.sign(x - y), np.sign(y - x)
    if metric == "cosine":
        norm_x, norm_y = np.sqrt((x * x).sum()), np.sqrt((y * y).sum())
        if norm_x == 0 or norm_y == 0:
            return np.zeros_like(x), np.zeros_like(y)
        unit_x, unit_y = x / norm_x, y / norm_y
        similarity = unit_x @ unit_y
        return -(unit_y - similarity * unit_x) / norm_x, -(unit_x - similarity * unit_y) / norm_y
    if metric == "bce":
        grad_x = -(y * clamped_log_derivative(x) - (1 - y) * clamped_log_derivative(1 - x))
        return grad_x, -(clamped_log(x) - clamped_log(1 - x))
    raise ValueError(metric)


def pairwise_backward(
    x: np.ndarray, y: np.ndarray, metric: str, grad_cost: np.ndarray
) -> tuple[np.ndarray, np.ndarray | None]:
    """Adjoint: gradients of sum(grad_cost * pairwise(x, y)) for x and y (None for class indices).

    A pair whose grad_cost is 0 adds nothing, whatever its cost.
    """
    x = np.asarray(x, dtype=np.float64)
    grad_x = np.zeros_like(x)
    if metric == "nll":
        for i in range(len(x)):
            for j, label in enumerate(y):
                grad_x[i, label] -= grad_cost[i, j]
        return grad_x, None
    y = np.asarray(y, dtype=np.float64)
    grad_y = np.zeros_like(y)
    for i in range(len(x)):
        for j in range(len(y)):
            if grad_cost[i, j] != 0:
                dx, dy = frame_gradients(x[i], y[j], metric)
                grad_x[i] += grad_cost[i, j] * dx
                grad_y[j] += grad_cost[i, j] * dy
    return grad_x, grad_y
