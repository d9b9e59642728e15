"""The problems that GDTW peers solve: seeded smooth signals, and the objective in NumPy, which judges every warp."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.float64]
MAIN_DIM = 12  # of the figures to reach
REG_WEIGHT = 0.1  # the layer's default
WAVES = 6
NOISE = 0.05


@dataclass(frozen=True)
class Case:
    """`batch` pairs of signals of `length` frames with `dim` features, N = M, at uniform times on [0, 1]."""

    batch: int
    length: int
    dim: int

    def work(self, order: int) -> int:
        """What time grows with, where it grows as the length to this power."""
        return self.batch * self.length**order


def inputs(case: Case, seed: int) -> tuple[Tensor, Tensor]:
    """Return x and y, float32 (B, N, D).

    Both are sums of the same waves along a smooth random warp each, with noise of their own, and every feature runs
    from -1 to 1: so the package gdtw, which scales all signals to that range, has the same problem.
    """
    pairs = [_pair(case, np.random.default_rng([seed, case.length, case.dim, item])) for item in range(case.batch)]
    x, y = (torch.from_numpy(np.stack(side)).float() for side in zip(*pairs, strict=True))
    return x, y


def _pair(case: Case, rng: np.random.Generator) -> tuple[Floats, Floats]:
    shape = (WAVES, 1, case.dim)
    height, phase, rate = rng.normal(size=shape), rng.uniform(0, 2 * np.pi, shape), rng.uniform(2, 25, shape)
    sides = []
    for _ in "xy":
        time = smooth_warp(case.length, rng)[None, :, None]
        clean = (height * np.sin(rate * time + phase)).sum(0)
        sides.append(_scaled(clean + NOISE * rng.standard_normal(clean.shape)))
    return sides[0], sides[1]


def smooth_warp(length: int, rng: np.random.Generator) -> Floats:
    """Return a warp of [0, 1] at uniform times: t and three slow waves, so weak that it always rises."""
    t, k = np.linspace(0, 1, length), np.arange(1, 4)
    waves = rng.uniform(-0.1, 0.1, 3) / k * np.sin(np.pi * k * t[:, None])
    return np.asarray(t + waves.sum(1))


def _scaled(signal: Floats) -> Floats:
    low, high = signal.min(0), signal.max(0)
    return np.asarray(2 * (signal - low) / np.where(high > low, high - low, 1) - 1)


@dataclass(frozen=True)
class Pair:
    """One problem in float64: x (N, D) and y (M, D), at uniform times on [0, 1], both ends fixed, slopes from 0.

    F(phi) = sum_i w_i |x_i - y(phi_i)|^2 + lambda sum_i dt ((phi_{i+1} - phi_i) / dt - 1)^2
    """

    x: Floats
    y: Floats
    reg_weight: float = REG_WEIGHT

    @classmethod
    def of(cls, given: tuple[Tensor, Tensor], item: int = 0) -> Pair:
        """Take an item of a batch."""
        x, y = (side[item].double().numpy() for side in given)
        return cls(x, y)

    @property
    def times(self) -> Floats:
        """Of the knots, the frames of x."""
        return np.linspace(0, 1, len(self.x))

    @property
    def weights(self) -> Floats:
        """Of the trapezoidal rule."""
        edges = np.full(len(self.x), 1 / (len(self.x) - 1))
        edges[[0, -1]] /= 2
        return edges

    def fit(self, knots: slice | Floats, phi: Floats) -> tuple[Floats, Floats]:
        """Return |x_i - y(phi)|^2 of knots i and its derivative; phi (K,), or (K, J) for J times per knot."""
        last = len(self.y) - 1
        segment = np.clip((phi * last).astype(int), 0, last - 1)
        share, rise = phi * last - segment, (self.y[1:] - self.y[:-1])[segment]
        x = self.x[knots].reshape(-1, *(1,) * (phi.ndim - 1), self.x.shape[1])
        error = x - self.y[segment] - share[..., None] * rise
        return np.square(error).sum(-1), -2 * last * (error * rise).sum(-1)

    def objective(self, phi: Floats) -> float:
        """F."""
        bend = np.square(np.diff(phi) * (len(phi) - 1) - 1).mean()
        return float(self.weights @ self.fit(slice(None), phi)[0] + self.reg_weight * bend)

    def gradient(self, phi: Floats) -> Floats:
        """F'(phi)."""
        force = 2 * self.reg_weight * (np.diff(phi) * (len(phi) - 1) - 1)
        return np.asarray(self.weights * self.fit(slice(None), phi)[1] + np.append(0, force) - np.append(force, 0))

    def violation(self, phi: Floats) -> float:
        """Return the largest distance by which phi misses an end or falls."""
        return float(max(abs(phi[0]), abs(phi[-1] - 1), -np.diff(phi).min(), 0))
