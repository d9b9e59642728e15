"""Time series with class labels, from the folders in which the UCR archive and its copies come.

    sets = find("UCRArchive_2018")                 # name -> where its files are; `find("aeon")` for the package's sets
    coffee = load(sets["Coffee"])                  # a Dataset: train and test, series of (N, D) float64

Layouts, told apart by their names, directly in the folder or in a subfolder NAME:

========================  ==========================================================================================
NAME_TRAIN.ts             timeseriesclassification.com: a header, then `v,v,v:label`, dimensions separated by colons
NAME_TRAIN.tsv            UCR archive of 2018: `label<TAB>v<TAB>v`
NAME_TRAIN.txt            copies of it: `label v v`, separated by spaces or commas
NAME_TRAIN                UCR archive of 2015: `label,v,v`
NAME.npz                  arrays X_train (n, length) or (n, length, D), y_train, X_test, y_test
========================  ==========================================================================================

and NAME_TEST likewise. What is done to the values:

- Values that are not there ("NaN", "?", empty) at the end of a series end it: that is how tables of the archive hold
  series of different length. Elsewhere they are interpolated linearly; before the first value they repeat it.
- Each series is z-normalised, each dimension on its own, as the archive of 2015 was and later sets are not. A constant
  one becomes zero.
"""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.float64]

AEON = "aeon"
AEON_SETS = ("ACSF1", "ArrowHead", "GunPoint", "ItalyPowerDemand", "OSULeaf", "PickupGestureWiimoteZ")
"""Sets of the UCR archive that the aeon package contains whole."""

CONSTANT = 1e-8
"""A standard deviation below this is rounding."""


class DataError(ValueError):
    """A file that is not what its name says, or a folder without sets."""


@dataclasses.dataclass(frozen=True)
class Split:
    """Series and their classes.

    Attributes
    ----------
    series : list of (N, D) float64
    labels : (n,) int64
        Classes 0, 1, ...
    """

    series: list[Tensor]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.series)


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A data set with its two parts."""

    name: str
    train: Split
    test: Split

    @property
    def everything(self) -> Split:
        """Train and test together, in this order."""
        labels = np.concatenate([self.train.labels, self.test.labels])
        return Split([*self.train.series, *self.test.series], labels)

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return len(np.unique(self.everything.labels))

    @property
    def n_dims(self) -> int:
        """Number of dimensions D."""
        return self.train.series[0].shape[1]

    @property
    def lengths(self) -> list[int]:
        """Length of every series, train before test."""
        return [len(one) for one in self.everything.series]

    def shortened(self, longest: int | None) -> Dataset:
        """The same set with all series resampled by one factor, if need be, so that none is longer than `longest`."""
        if longest is None or max(self.lengths) <= longest:
            return self
        factor = longest / max(self.lengths)

        def shorten(split: Split) -> Split:
            return Split([resample(one, max(round(len(one) * factor), 2)) for one in split.series], split.labels)

        return Dataset(self.name, shorten(self.train), shorten(self.test))


@dataclasses.dataclass(frozen=True)
class Files:
    """Where a set is: its two text files, or the same npz file twice."""

    name: str
    train: Path
    test: Path


# --- Finding ----------------------------------------------------------------------------------------------------------


def find(folder: str | Path) -> dict[str, Files]:
    """Return the sets of a folder by name, in alphabetical order; "aeon" stands for those in the aeon package.

    Raises
    ------
    DataError
        If there is no such folder, it has no sets, or aeon is not installed.
    """
    if str(folder) == AEON:
        found = _scan(aeon_folder())
        return {name: found[name] for name in AEON_SETS if name in found}
    root = Path(folder)
    if not root.is_dir():
        raise DataError(f"data: no folder {root}")
    sets = _scan(root)
    if not sets:
        raise DataError(f"data: no sets in {root}; expected NAME_TRAIN.ts, .tsv, .txt and NAME_TEST, or NAME.npz")
    return sets


def aeon_folder() -> Path:
    # Found, not imported: aeon pins older versions of packages that others here need newer, and only its files matter.
    spec = importlib.util.find_spec(AEON)
    if spec is None or not spec.submodule_search_locations:
        raise DataError(
            "data: the package aeon, whose sets are the default, is not installed: pip install --no-deps aeon"
        )
    return Path(next(iter(spec.submodule_search_locations))) / "datasets" / "data"


def _scan(root: Path) -> dict[str, Files]:
    found: dict[str, Files] = {}
    for suffix in (*_READERS, ""):  # the first layout of a set counts
        for train in sorted([*root.glob(f"*_TRAIN{suffix}"), *root.glob(f"*/*_TRAIN{suffix}")]):
            name = train.name.removesuffix(f"_TRAIN{suffix}")
            test = train.with_name(f"{name}_TEST{suffix}")
            if test.is_file():
                found.setdefault(name, Files(name, train, test))
    for path in sorted(root.glob("*.npz")):
        found.setdefault(path.stem, Files(path.stem, path, path))
    return dict(sorted(found.items()))


# --- Reading ----------------------------------------------------------------------------------------------------------


def load(files: Files) -> Dataset:
    """Read a set, repair and normalise its series.

    Raises
    ------
    DataError
        If a file is malformed, or train and test do not have the same number of dimensions.
    """
    parts = _read_npz(files.train) if files.train.suffix == ".npz" else (_read(files.train), _read(files.test))
    classes, numbers = np.unique(np.concatenate([labels for _, labels in parts]), return_inverse=True)
    boundary = len(parts[0][0])
    numbered = (numbers[:boundary].astype(np.int64), numbers[boundary:].astype(np.int64))
    splits = [
        Split([torch.from_numpy(normalise(repair(one, files.name))) for one in series], labels)
        for (series, _), labels in zip(parts, numbered, strict=True)
    ]
    dims = {one.shape[1] for split in splits for one in split.series}
    if len(classes) == 0 or not all(map(len, splits)):
        raise DataError(f"data: {files.name} has no series in one of its parts")
    if len(dims) > 1:
        raise DataError(f"data: {files.name}: series with different numbers of dimensions {sorted(dims)}")
    return Dataset(files.name, *splits)


_Part = tuple[list[Floats], NDArray[Any]]


def _read(path: Path) -> _Part:
    reader = _READERS.get(path.suffix, _read_table)
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    series: list[Floats] = []
    labels: list[str] = []
    for number, values, label in reader(lines, path):
        if not values.size:
            raise DataError(f"data: {path.name}, line {number}: no values")
        series.append(values)
        labels.append(label)
    return series, np.array(labels)


def _read_table(lines: Sequence[str], path: Path) -> Iterable[tuple[int, Floats, str]]:
    """Label first, then values, separated by tabs, commas or spaces."""
    for number, line in enumerate(lines, start=1):
        cells = _cells(line)
        if cells:
            yield number, _numbers(cells[1:], path, number)[:, None], _label(cells[0])


def _cells(line: str) -> list[str]:
    # Between tabs or commas an empty cell is a missing value; spaces come in runs.
    for separator in ("\t", ","):
        if separator in line:
            return [cell.strip() for cell in line.strip("\r\n").split(separator)]
    return line.split()


def _read_ts(lines: Sequence[str], path: Path) -> Iterable[tuple[int, Floats, str]]:
    """Header lines with @, then one series a line: dimensions and label separated by colons."""
    in_data = False
    for number, line in enumerate(map(str.strip, lines), start=1):
        if not line or line[0] in "#%":
            continue
        if line[0] == "@":
            in_data = in_data or line.lower() == "@data"
            if line.lower().split() == ["@timestamps", "true"]:
                raise DataError(f"data: {path.name}: time stamps are not supported")
        elif not in_data:
            raise DataError(f"data: {path.name}, line {number}: values before @data")
        else:
            *dims, label = line.split(":")
            yield number, _stack([_numbers(dim.split(","), path, number) for dim in dims]), _label(label)


def _stack(dims: list[Floats]) -> Floats:
    """(N, D) from D dimensions, the shorter ones filled with NaN."""
    stacked = np.full((max(map(len, dims), default=0), len(dims)), np.nan)
    for index, values in enumerate(dims):
        stacked[: len(values), index] = values
    return stacked


def _numbers(cells: Sequence[str], path: Path, line: int) -> Floats:
    try:
        return np.array([np.nan if cell.strip() in ("", "?") else float(cell) for cell in cells])
    except ValueError as error:
        raise DataError(f"data: {path.name}, line {line}: {error}") from None


def _label(text: str) -> str:
    """One spelling for 1, 1.0 and 1.0e+00."""
    try:
        return repr(float(text))
    except ValueError:
        return text.strip()


def _read_npz(path: Path) -> tuple[_Part, _Part]:
    with np.load(path) as arrays:
        missing = {"X_train", "y_train", "X_test", "y_test"}.difference(arrays.files)
        if missing:
            raise DataError(f"data: {path.name} lacks {', '.join(sorted(missing))}")
        return _part(arrays["X_train"], arrays["y_train"], path), _part(arrays["X_test"], arrays["y_test"], path)


def _part(X: NDArray[Any], y: NDArray[Any], path: Path) -> _Part:
    if X.ndim not in (2, 3) or y.shape != X.shape[:1]:
        raise DataError(f"data: {path.name}: expected X (n, length[, D]) and y (n,), got {X.shape} and {y.shape}")
    return [one.reshape(len(one), -1).astype(np.float64) for one in X], y


_READERS: dict[str, Callable[[Sequence[str], Path], Iterable[tuple[int, Floats, str]]]] = {
    ".ts": _read_ts,
    ".tsv": _read_table,
    ".txt": _read_table,
}


# --- Values -----------------------------------------------------------------------------------------------------------


def repair(series: Floats, name: str = "series") -> Floats:
    """Cut missing values off the end of (N, D), interpolate the others.

    Examples
    --------
    >>> repair(np.array([[np.nan], [1.0], [np.nan], [3.0], [np.nan]])).ravel()
    array([1., 1., 2., 3.])
    """
    known = np.isfinite(series)
    if not known.any(axis=0).all():
        raise DataError(f"data: {name}: a series without any value")
    end = int(np.flatnonzero(known.any(axis=1))[-1]) + 1
    repaired, known, places = series[:end].copy(), known[:end], np.arange(end)
    for dim in range(series.shape[1]):
        repaired[:, dim] = np.interp(places, places[known[:, dim]], repaired[known[:, dim], dim])
    return repaired


def normalise(series: Floats) -> Floats:
    """Mean 0 and standard deviation 1 of each column of (N, D); a constant column becomes 0."""
    centred = series - series.mean(axis=0)
    deviation = centred.std(axis=0)
    return np.where(deviation > CONSTANT, centred / np.maximum(deviation, CONSTANT), 0.0)


def resample(series: Tensor, length: int) -> Tensor:
    """(N, D) at `length` places evenly from first to last frame, by linear interpolation.

    Examples
    --------
    >>> resample(torch.tensor([[0.0], [2.0], [4.0]]), 5).ravel()
    tensor([0., 1., 2., 3., 4.])
    """
    if len(series) == length:
        return series
    columns = series.T[None]
    return torch.nn.functional.interpolate(columns, size=length, mode="linear", align_corners=True)[0].T.contiguous()
