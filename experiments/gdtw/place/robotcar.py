"""Pairs of sequences from folders of the Oxford RobotCar dataset (Maddern, Pascoe, Linegar and Newman, IJRR 2017).

Each traverse is a folder with the names of the dataset's own archives:

    2015-08-17-13-30-19/stereo.timestamps      microseconds and chunk in each line
    2015-08-17-13-30-19/stereo/centre/*.png    the time is the file's name; raw (Bayer) or colour, PNG or JPEG
    2015-08-17-13-30-19/rtk.csv                or gps/ins.csv or gps/gps.csv: timestamp, latitude, longitude, ...

The RTK positions are a download of their own. Sequences are made as the paper makes them (its appendix A.5): images 5 m
apart along a reference traverse, 25 to a sequence, which overlap; queries of 10 images, one each second, of the other
traverses. The paper's lists of sequences are not public, so the split is made here: the last fifth of the reference
traverse is for the test; queries of the last other traverse are for validation.
"""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from experiments.gdtw.place.geography import EARTH_RADIUS, Doubles, from_degrees, normalised, project
from experiments.gdtw.place.sequences import Data, Pairs, Sequences, Views

POSITIONS = ("rtk.csv", "gps/ins.csv", "gps/gps.csv")
"""The first of them that is there is used."""
IMAGES = "stereo/centre"
NEAR_KM = 0.010
"""A query image is on the reference's route when it is nearer than this."""
TEST_SHARE = 0.2
UNIT, UNIT_KM, TOLERANCES = "m", 0.001, (2.0, 3.0, 5.0, 10.0)


class RobotCarError(Exception):
    """The folder does not hold what is needed."""


@dataclasses.dataclass(frozen=True)
class Layout:
    """How sequences are cut out of traverses; the paper's numbers.

    Attributes
    ----------
    spacing : float
        km between reference images.
    reference_frames, query_frames : int
        Images of a sequence.
    overlap : tuple of int
        Images that neighbouring references share, in training and elsewhere (20 m, and 12 m rounded down).
    queries : int
        For each reference.
    seconds : float
        Between the images of a query.
    width, height : int
        To which images are resized.
    """

    spacing: float = 0.005
    reference_frames: int = 25
    query_frames: int = 10
    overlap: tuple[int, int] = (4, 2)
    queries: int = 5
    seconds: float = 1.0
    width: int = 240
    height: int = 180


@dataclasses.dataclass(frozen=True)
class Traverse:
    """A drive: images by time, with their positions.

    Attributes
    ----------
    files : tuple of Path
        In order of time.
    times : array
        Seconds (n,).
    points : array
        (n, 3).
    """

    name: str
    files: tuple[Path, ...]
    times: Doubles
    points: Doubles

    def pick(self, indices: NDArray[np.int64]) -> Traverse:
        """Some of the images."""
        return Traverse(self.name, tuple(self.files[i] for i in indices), self.times[indices], self.points[indices])

    def travelled(self) -> Doubles:
        """km from the first image to each, (n,)."""
        steps = EARTH_RADIUS * np.linalg.norm(np.diff(self.points, axis=0), axis=1)
        return np.concatenate([[0.0], steps.cumsum()])


# --- Reading ----------------------------------------------------------------------------------------------------------


def read_traverse(folder: Path) -> Traverse:
    """Images that are there, between the first and the last known position."""
    listed = folder / "stereo.timestamps"
    if not listed.is_file():
        raise RobotCarError(f"{folder}: no stereo.timestamps; is this a traverse of the dataset?")
    stamps = [line.split()[0] for line in listed.read_text(encoding="utf-8").splitlines() if line.strip()]
    present = {path.stem: path for path in (folder / IMAGES).glob("*.*")}
    known_times, known_points = _positions(folder)
    kept = [stamp for stamp in stamps if stamp in present and known_times[0] <= int(stamp) / 1e6 <= known_times[-1]]
    if len(kept) < 2:
        raise RobotCarError(f"{folder}: fewer than two images in {IMAGES} with known positions")
    times = np.array([int(stamp) / 1e6 for stamp in kept])
    points = np.stack([np.interp(times, known_times, known_points[:, k]) for k in range(3)], axis=1)
    return Traverse(folder.name, tuple(present[stamp] for stamp in kept), times, normalised(points))


def _positions(folder: Path) -> tuple[Doubles, Doubles]:
    path = next((folder / name for name in POSITIONS if (folder / name).is_file()), None)
    if path is None:
        raise RobotCarError(f"{folder}: none of {', '.join(POSITIONS)}")
    with path.open(encoding="utf-8", newline="") as file:
        rows = [(row["timestamp"], row["latitude"], row["longitude"]) for row in csv.DictReader(file)]
    if not rows:
        raise RobotCarError(f"{path}: no positions")
    time, latitude, longitude = np.array(rows, dtype=np.float64).T
    order = time.argsort()
    return time[order] / 1e6, from_degrees(latitude[order], longitude[order])


def read_image(path: Path, layout: Layout) -> Tensor:
    """(3, height, width) uint8; raw images are put together at half their size, as the stereo camera's GBRG pattern is.

    The lens is not undistorted: the dataset's camera models would be needed.
    """
    from PIL import Image

    with Image.open(path) as image:
        if image.mode == "L":
            raw = np.asarray(image).astype(np.uint16)
            green = (raw[0::2, 0::2] + raw[1::2, 1::2]) // 2
            colours = np.stack([raw[1::2, 0::2], green, raw[0::2, 1::2]], axis=2).astype(np.uint8)
        else:
            colours = np.asarray(image.convert("RGB"))
    resized = Image.fromarray(colours).resize((layout.width, layout.height), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(resized)).permute(2, 0, 1)


# --- Cutting ----------------------------------------------------------------------------------------------------------


def at_distances(drive: Traverse, spacing: float) -> Traverse:
    """The images nearest to multiples of a spacing in km; where the car stands there is one."""
    travelled = drive.travelled()
    wanted = np.arange(0.0, travelled[-1] + 1e-9, spacing)
    return drive.pick(_nearest(travelled, wanted))


def at_times(drive: Traverse, seconds: float) -> Traverse:
    """The images nearest to multiples of some seconds."""
    wanted = np.arange(drive.times[0], drive.times[-1] + 1e-9, seconds)
    return drive.pick(_nearest(drive.times, wanted))


def _nearest(values: Doubles, wanted: Doubles) -> NDArray[np.int64]:
    """Indices of rising values nearest to the wanted ones, each once."""
    after = np.clip(values.searchsorted(wanted), 1, len(values) - 1)
    return np.unique(after - (wanted - values[after - 1] < values[after] - wanted))


def cut_references(route: Traverse, layout: Layout, of_train: bool) -> list[Traverse]:
    """Sequences along a route that is already sampled by distance."""
    stride = layout.reference_frames - layout.overlap[0 if of_train else 1]
    starts = range(0, len(route.files) - layout.reference_frames + 1, stride)
    return [route.pick(np.arange(start, start + layout.reference_frames)) for start in starts]


def cut_query(drive: Traverse, reference: Traverse, layout: Layout, rng: np.random.Generator) -> _Query | None:
    """A random query of a drive (already sampled by time) that lies within the reference and drives along it."""
    index, gap = project(reference.points, drive.points)
    count, last = layout.query_frames, layout.reference_frames - 1
    inside = (gap < NEAR_KM) & (index > 0) & (index < last)
    if len(index) < count:
        return None
    windows = np.lib.stride_tricks.sliding_window_view
    fits = windows(inside, count).all(axis=1)
    fits &= (windows(np.diff(index), count - 1) >= 0).all(axis=1) & (index[count - 1 :] > index[: 1 - count])
    starts = np.flatnonzero(fits)
    if not len(starts):
        return None
    chosen = np.arange(count) + rng.choice(starts)
    return _Query(drive.pick(chosen), index[chosen])


@dataclasses.dataclass(frozen=True)
class _Query:
    drive: Traverse
    truth: Doubles


def make_pairs(
    references: Sequence[Traverse], drives: Sequence[Traverse], layout: Layout, rng: np.random.Generator
) -> Pairs:
    """Queries for each reference from random drives; their traverse is their condition."""
    if not references:
        raise RobotCarError("the reference traverse is too short for sequences of training and test")
    queries, reference_of = list[_Query](), list[int]()
    for number, reference in enumerate(references):
        for _ in range(layout.queries):
            for choice in rng.permutation(len(drives)):
                query = cut_query(drives[choice], reference, layout, rng)
                if query is not None:
                    queries.append(query)
                    reference_of.append(number)
                    break
    if not queries:
        raise RobotCarError("no traverse follows another one for as long as a query is")
    return Pairs(
        _on_disk([query.drive for query in queries], layout),
        _on_disk(references, layout),
        torch.tensor(reference_of),
        torch.from_numpy(np.stack([query.truth for query in queries])),
        tuple(query.drive.name for query in queries),
    )


def _on_disk(sequences: Sequence[Traverse], layout: Layout) -> Sequences:
    """Sequences whose images are read when they are needed."""

    def read(numbers: Sequence[int]) -> Tensor:
        return torch.stack(
            [torch.stack([read_image(path, layout) for path in sequences[number].files]) for number in numbers]
        )

    return Sequences(torch.from_numpy(np.stack([one.points for one in sequences])), read)


def load(folder: Path, reference: str | None, layout: Layout, seed: int) -> Data:
    """The three parts from all traverses in a folder; the reference is the first of them unless it is named.

    Raises
    ------
    RobotCarError
        If there are fewer than two traverses, or they have no stretch in common.
    """
    names = sorted(path.parent.name for path in folder.glob("*/stereo.timestamps"))
    if len(names) < 2:
        raise RobotCarError(f"{folder}: at least two traverses (folders with stereo.timestamps) are needed")
    chosen = reference or names[0]
    if chosen not in names:
        raise RobotCarError(f"{folder}: no traverse {chosen}; there are {', '.join(names)}")
    route = at_distances(read_traverse(folder / chosen), layout.spacing)
    others = [at_times(read_traverse(folder / name), layout.seconds) for name in names if name != chosen]
    border = round((1 - TEST_SHARE) * len(route.files))
    known, new = route.pick(np.arange(border)), route.pick(np.arange(border, len(route.files)))
    learned = others[:-1] or others
    streams = np.random.default_rng(seed).spawn(3)
    parts = {
        "train": make_pairs(cut_references(known, layout, True), learned, layout, streams[0]),
        "validation": make_pairs(cut_references(known, layout, False), others[-1:], layout, streams[1]),
        "test": make_pairs(cut_references(new, layout, False), others, layout, streams[2]),
    }
    views = _Views(known, learned, layout)
    return Data(parts, views, layout.spacing, UNIT, UNIT_KM, TOLERANCES)


class _Views:
    """Places of the route, and the nearest image of a random other drive that came by."""

    def __init__(self, route: Traverse, drives: Sequence[Traverse], layout: Layout) -> None:
        self.route, self.drives, self.layout = route, drives, layout
        met = [project(route.points, drive.points) for drive in drives]
        self.found = [
            (drive, image, int(index.round()))
            for drive, (indices, gaps) in enumerate(met)
            for image, (index, gap) in enumerate(zip(indices, gaps, strict=True))
            if gap < NEAR_KM
        ]

    def __call__(self, count: int, rng: np.random.Generator) -> Views:
        chosen = [self.found[k] for k in rng.choice(len(self.found), count, replace=count > len(self.found))]
        places = [place for _, _, place in chosen]
        return Views(
            torch.stack([read_image(self.route.files[place], self.layout) for place in places]),
            torch.stack([read_image(self.drives[drive].files[image], self.layout) for drive, image, _ in chosen]),
            torch.from_numpy(self.route.points[places]),
        )
