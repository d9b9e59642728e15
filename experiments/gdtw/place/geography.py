"""Points of the Earth as unit vectors (..., 3), in float64: no date line, no poles, metres are not lost.

Functions on arrays make the data. Those on tensors are part of the loss, differentiable.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Doubles = NDArray[np.float64]

EARTH_RADIUS = 6371.0088
"""Mean radius in km."""


# --- Arrays -----------------------------------------------------------------------------------------------------------


def from_degrees(latitude: Any, longitude: Any) -> Doubles:
    """Points from degrees, (...) to (..., 3)."""
    phi, lam = np.radians(latitude), np.radians(longitude)
    return np.stack([np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi)], axis=-1)


def to_degrees(points: Doubles) -> tuple[Doubles, Doubles]:
    """Latitude and longitude, (..., 3) to (...) twice."""
    x, y, z = np.moveaxis(points, -1, 0)
    return np.degrees(np.arctan2(z, np.hypot(x, y))), np.degrees(np.arctan2(y, x))


def normalised(vectors: Doubles) -> Doubles:
    """Vectors of length one."""
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def heading(points: Doubles, degrees: Any) -> Doubles:
    """Unit tangent vectors, `degrees` east of north."""
    east = normalised(np.cross([0.0, 0.0, 1.0], points))
    north = np.cross(points, east)
    angle = np.radians(np.asarray(degrees))[..., None]
    return np.cos(angle) * north + np.sin(angle) * east


def right_of(points: Doubles, tangents: Doubles) -> Doubles:
    """Unit tangent vectors a quarter turn clockwise of the given ones."""
    return np.cross(tangents, points)


def turned(points: Doubles, tangents: Doubles, degrees: Any) -> Doubles:
    """Tangent vectors turned clockwise."""
    angle = np.radians(np.asarray(degrees))[..., None]
    return np.cos(angle) * tangents + np.sin(angle) * right_of(points, tangents)


def moved(points: Doubles, tangents: Doubles, km: Any) -> tuple[Doubles, Doubles]:
    """Points at the end of great-circle arcs that start along unit tangents, and the tangents there."""
    angle = np.asarray(km)[..., None] / EARTH_RADIUS
    cos, sin = np.cos(angle), np.sin(angle)
    return cos * points + sin * tangents, cos * tangents - sin * points


def project(track: Doubles, points: Doubles) -> tuple[Doubles, Doubles]:
    """Nearest positions on a track (M, 3) of points (n, 3): index in its frames (fractions), and distance in km."""
    starts, steps = track[:-1], np.diff(track, axis=0)
    relative = points[:, None] - starts
    share = (relative * steps).sum(axis=2) / np.maximum((steps * steps).sum(axis=1), 1e-30)
    share = np.clip(share, 0.0, 1.0)
    gaps = np.linalg.norm(relative - share[..., None] * steps, axis=2)
    best = gaps.argmin(axis=1)
    row = np.arange(len(points))
    return best + share[row, best], EARTH_RADIUS * gaps[row, best]


# --- Tensors ----------------------------------------------------------------------------------------------------------


def between(track: Tensor, index: Tensor) -> Tensor:
    """Positions on the lines between the frames of tracks, back on the sphere: (B, M, 3), (B, N) to (B, N, 3).

    The derivative with respect to the index is that of the line between its two frames.
    """
    before = index.detach().floor().clamp(0, track.shape[1] - 2)
    at = before.long()[..., None].expand(-1, -1, 3)
    start, stop = track.gather(1, at), track.gather(1, at + 1)
    share = (index.to(track.dtype) - before)[..., None]
    return torch.nn.functional.normalize((1 - share) * start + share * stop, dim=-1)


def distance(one: Tensor, other: Tensor) -> Tensor:
    """Great-circle distances in km, (..., 3) twice to (...); the gradient is 0 where points coincide."""
    chord = (one - other).square().sum(dim=-1).clamp(min=1e-30).sqrt()
    return 2 * EARTH_RADIUS * torch.asin((chord / 2).clamp(max=1 - 1e-12))
