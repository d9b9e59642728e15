"""What is forecast: (seen, future) pairs of five sources, each in three parts.

=================  ================================================================================================
synthetic          two peaks foretell a step, as in the DILATE paper; see `step_series`
ECG5000, ECG200    heartbeats of the UCR archive: the first 60 % of each series is seen, 40 % are forecast
ItalyPowerDemand   days of electricity demand, in the same way (inside the aeon package)
pulse              a recording of blood pressure from the UCR anomaly archive (inside the aeon package), every ninth
                   sample: two beats are seen, one is forecast
weather            daily mean temperature at stations: four weeks are seen, two are forecast
=================  ================================================================================================

Series of the archive keep its two parts where the training part is large enough, and a fifth of it is for validation;
else all of them are mixed and split. A single long series is split in time, and no window reaches over a border.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from experiments.data import ucr
from experiments.data.ucr import DataError

Floats = NDArray[np.float64]

SYNTHETIC = "synthetic"
ARCHIVE = ("ECG5000", "ECG200", "ItalyPowerDemand")
DATA = (SYNTHETIC, "ECG5000", "ECG200", "pulse", "ItalyPowerDemand", "weather")
"""In the order of the report."""

SHARES = (0.6, 0.2, 0.2)
"""Of what is split here: training, validation, test."""
SEEN_SHARE = 0.6
ENOUGH = 200
"""Training series of a set of the archive that keeps its parts."""

PULSE_FILE = "135_UCR_Anomaly_InternalBleeding16_TEST.csv"  # the whole series; TRAIN is its beginning
WEATHER_FILE = "weather35_daily.npz"
WEATHER_VARIABLE = "TM"


class Part(NamedTuple):
    """Pairs for one purpose: seen (n, N, 1) and future (n, M, 1), float32."""

    seen: Tensor
    future: Tensor

    def thinned(self, at_most: int | None) -> Part:
        """That many of the pairs at even distances, or all."""
        if at_most is None or len(self.seen) <= at_most:
            return self
        chosen = torch.linspace(0, len(self.seen) - 1, at_most).round().long()
        return Part(self.seen[chosen], self.future[chosen])


@dataclasses.dataclass(frozen=True)
class Task:
    """One source: what is learned from, what decides when to stop, and what is judged."""

    name: str
    train: Part
    validation: Part
    test: Part

    @property
    def n_seen(self) -> int:
        """N."""
        return self.train.seen.shape[1]

    @property
    def n_future(self) -> int:
        """M."""
        return self.train.future.shape[1]

    def thinned(self, at_most: int | None) -> Task:
        """With at most so many pairs in each part."""
        parts = (part.thinned(at_most) for part in (self.train, self.validation, self.test))
        return Task(self.name, *parts)

    def normalised(self) -> Task:
        """With mean 0 and deviation 1 over the training part; the others by the same two numbers."""
        values = torch.cat([self.train.seen.flatten(), self.train.future.flatten()]).double()
        mean, deviation = values.mean().item(), values.std(correction=0).item()
        if deviation < ucr.CONSTANT:
            raise DataError(f"data: {self.name}: all training values are equal")
        parts = (
            Part(*((tensor - mean) / deviation for tensor in part)) for part in (self.train, self.validation, self.test)
        )
        return Task(self.name, *parts)


def load(name: str, at_most: int | None, sources: tuple[str, ...], weather: Path | None) -> Task:
    """The task of that name; at most so many pairs in each part of what is not synthetic.

    Raises
    ------
    DataError
        If its files are not there.
    """
    if name == SYNTHETIC:
        return synthetic(N_SYNTHETIC)
    if name in ARCHIVE:
        return _from_archive(name, sources).thinned(at_most).normalised()
    if name == "pulse":
        return _pulse().thinned(at_most).normalised()
    return _weather(weather).thinned(at_most).normalised()


# ---------------------------------------------------------------- synthetic

N_SYNTHETIC = 500
N_STEPS = 20
"""Seen, and to be forecast."""
NOISE = 0.01
FIRST, SECOND, JITTER = (1, 10), (10, 18), 3
"""Where the peaks are (both ends included), and how far the step's time strays."""


class Steps(NamedTuple):
    """Series (n, 40), places and heights (n, 2) of their peaks, and times of their steps (n,)."""

    series: Floats
    places: NDArray[np.int64]
    heights: Floats
    onsets: NDArray[np.int64]


def step_series(n: int, rng: np.random.Generator) -> Steps:
    r"""Series of the DILATE paper, Section 4.1, with the constants of its authors' program.

    Peaks of heights :math:`j_1, j_2 \sim U(0, 1)`, one frame each, at :math:`i_1 \in \{1..10\}` and
    :math:`i_2 \in \{10..18\}`; from frame :math:`i_2 + (i_2 - i_1) + U\{-3..3\}` on :math:`j_2 - j_1` is added. Where
    the peaks are near each other that is within the first 20 frames. Noise is uniform on [0, 0.01]: the paper speaks of
    Gaussian noise of variance 0.01, but its program adds this, and no forecast could reach the paper's errors with the
    other.
    """
    places = np.stack([rng.integers(*bounds, size=n, endpoint=True) for bounds in (FIRST, SECOND)], axis=1)
    heights = rng.uniform(size=(n, 2))
    onsets = 2 * places[:, 1] - places[:, 0] + rng.integers(-JITTER, JITTER, size=n, endpoint=True)
    series = rng.uniform(0, NOISE, size=(n, 2 * N_STEPS))
    for peak in range(2):
        series[np.arange(n), places[:, peak]] += heights[:, peak]
    series += (np.arange(2 * N_STEPS) >= onsets[:, None]) * (heights[:, 1] - heights[:, 0])[:, None]
    return Steps(series, places, heights, onsets)


def synthetic(n: int, seed: int = 0) -> Task:
    """Three parts of n series; not normalised, as in the paper."""
    series = torch.from_numpy(step_series(3 * n, np.random.default_rng(seed)).series).float()[..., None]
    parts = (Part(part[:, :N_STEPS], part[:, N_STEPS:]) for part in series.split(n))
    return Task(SYNTHETIC, *parts)


def least_squared_error() -> float:
    r"""The mean squared error of the best forecast of the synthetic series, noise aside.

    Who knows :math:`i_1, i_2, j_1, j_2` knows the step but for its time t, which is one of seven, and none that has
    been seen to pass. The conditional mean is the best forecast: :math:`E[(j_2 - j_1)^2] = 1/6` times the mean over
    frames k of :math:`p_k (1 - p_k)`, with :math:`p_k = P(t \le k)` given that :math:`t \ge 20`.
    """
    frames = np.arange(N_STEPS, 2 * N_STEPS)
    total = cases = 0.0
    for first in range(FIRST[0], FIRST[1] + 1):
        for second in range(SECOND[0], SECOND[1] + 1):
            onsets = 2 * second - first + np.arange(-JITTER, JITTER + 1)
            ahead = onsets[onsets >= N_STEPS]
            cases += len(onsets)
            if len(ahead):
                passed = (ahead[:, None] <= frames).mean(axis=0)
                total += len(ahead) * (passed * (1 - passed)).mean()
    return float(total / cases / 6)


# ---------------------------------------------------------------- series of the UCR archive


def _from_archive(name: str, sources: tuple[str, ...]) -> Task:
    found: dict[str, ucr.Files] = {}
    for source in sources:
        found = {**ucr.find(source), **found}
    if name not in found:
        raise DataError(f"data: {name} is in none of {', '.join(map(str, sources))}")
    return split_archive(ucr.load(found[name]))


def split_archive(dataset: ucr.Dataset, seed: int = 0) -> Task:
    """Three parts of a set of series of equal length."""
    lengths = set(dataset.lengths)
    if len(lengths) > 1 or dataset.n_dims > 1:
        raise DataError(f"data: {dataset.name}: series of one dimension and one length expected")
    rng = np.random.default_rng(seed)
    if len(dataset.train) >= ENOUGH:
        learned, test = torch.stack(dataset.train.series), torch.stack(dataset.test.series)
        learned = learned[torch.from_numpy(rng.permutation(len(learned)))]
        train, validation = learned.split(_sizes(len(learned), (0.8, 0.2)))
    else:
        mixed = torch.stack(dataset.everything.series)[torch.from_numpy(rng.permutation(len(dataset.lengths)))]
        train, validation, test = mixed.split(_sizes(len(mixed), SHARES))
    cut = round(SEEN_SHARE * lengths.pop())
    parts = (Part(part[:, :cut].float(), part[:, cut:].float()) for part in (train, validation, test))
    return Task(dataset.name, *parts)


def _sizes(n: int, shares: tuple[float, ...]) -> list[int]:
    borders = np.round(np.cumsum([0.0, *shares]) * n).astype(int)
    return np.diff(borders).tolist()


# ---------------------------------------------------------------- long series


def windows(series: Floats, n_seen: int, n_future: int) -> tuple[Part, Part, Part]:
    """All windows of series (S, T) within the first 60 % of the time, the next 20 %, the last 20 %."""
    length = n_seen + n_future
    parts = []
    start = 0
    for size in _sizes(series.shape[1], SHARES):
        if size < length:
            raise DataError(f"data: {series.shape[1]} frames are too few for windows of {length} in three parts")
        cut = np.lib.stride_tricks.sliding_window_view(series[:, start : start + size], length, axis=1)
        pairs = torch.from_numpy(cut.reshape(-1, length, 1).astype(np.float32))
        parts.append(Part(pairs[:, :n_seen], pairs[:, n_seen:]))
        start += size
    return parts[0], parts[1], parts[2]


PULSE_EVERY, PULSE_BEAT = 9, 20
"""One sample in nine is kept, which makes about so many a beat."""


def _pulse() -> Task:
    path = next(iter(ucr.aeon_folder().glob(f"*/{PULSE_FILE}")), None)
    if path is None:
        raise DataError(f"data: no {PULSE_FILE} in the aeon package")
    series = np.genfromtxt(path, delimiter=",", skip_header=1)[:, 1]
    return Task("pulse", *windows(series[None, ::PULSE_EVERY], 2 * PULSE_BEAT, PULSE_BEAT))


WEATHER_SEEN, WEATHER_FUTURE = 28, 14
"""Days."""


def _weather(path: Path | None) -> Task:
    if path is not None and path.is_dir():
        path = path / WEATHER_FILE
    if path is None or not path.is_file():
        raise DataError(f"data: no {WEATHER_FILE}; say where it is with --weather")
    with np.load(path) as arrays:
        variable = arrays["variables"].tolist().index(WEATHER_VARIABLE)
        series = arrays["values"][:, variable].astype(np.float64)
    filled = ucr.repair(series.T, "weather").T  # missing days are interpolated
    return Task("weather", *windows(filled, WEATHER_SEEN, WEATHER_FUTURE))
