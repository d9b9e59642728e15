"""Alignment paths as users give them, checked and brought into one form, and what stands along them.

A path is a list of cells (i, j) = (frame of x, frame of y), or a list of anchors that straight lines join.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from . import _checks
from .cost import paired
from .dtw import LONGEST_STEP, Step, _take

PathLike = Tensor | Sequence[Tensor]
_UNKNOWN = (LONGEST_STEP + 1) ** 2  # where the table of weights keeps all steps that are not given

_FAR = 2.0**31  # anchors farther out are moved here, where they leave any lattice and whole numbers do not overflow


class Sizes(NamedTuple):
    """Shape of the lattice of a batch, and each item's own part of it, (B,) each."""

    shape: tuple[int, int]
    rows: Tensor
    columns: Tensor

    @classmethod
    def of(cls, batch: int, shape: tuple[int, int], x_lengths: Tensor | None, y_lengths: Tensor | None) -> Sizes:
        """Checked lengths, or the whole shape."""
        sides = zip((x_lengths, y_lengths), shape, strict=True)
        return cls(shape, *(torch.full((batch,), size) if own is None else own for own, size in sides))


class Cells(NamedTuple):
    """A batch of paths: the cells (B, L, 2), int64, and how many of them each item has, (B,).

    Behind the end an item's first cell is repeated, so that nothing is read that the path does not visit.
    """

    cells: Tensor
    lengths: Tensor

    @property
    def inside(self) -> Tensor:
        """(B, L): True for the cells before the end."""
        return ~_checks.padding(self.cells.shape[1], self.lengths)


# ---------------------------------------------------------------- reading


def read(path: object, path_lengths: Tensor | None, sizes: Sizes, steps: Sequence[Step], breakpoints: bool) -> Cells:
    """Cells of every item, all of them in the lattice and joined by the given steps."""
    batch = sizes.rows.shape[0]
    points, lengths = padded(path, path_lengths, batch, "path", breakpoints)
    if breakpoints:
        _check_anchors(points, lengths)
        nearest = (points + 0.5).floor().clamp(-_FAR, _FAR).long()
        points, lengths = line_cells(nearest, lengths, sum(sizes.shape) - 1)
    result = Cells(points.where(~_checks.padding(points.shape[1], lengths)[..., None], points[:, :1]), lengths)
    _check_cells(result, sizes, steps)
    return result


def padded(
    path: object, path_lengths: Tensor | None, batch: int, name: str, fractions: bool = False
) -> tuple[Tensor, Tensor]:
    """(B, L, 2), int64 or with fractions float64, and the lengths (B,)."""
    if isinstance(path, Tensor):
        points = _points(path, name, fractions)
        is_shared = points.dim() == 2
        if points.dim() not in (2, 3) or points.shape[-1] != 2 or not (is_shared or points.shape[0] == batch):
            raise ValueError(f"{name} must have shape (L, 2) or ({batch}, L, 2), got {tuple(path.shape)}")
        points = points.expand(batch, -1, 2) if is_shared else points
        if not points.shape[1]:
            raise ValueError(f"{name} must have at least one cell, got shape {tuple(path.shape)}")
        lengths = _checks.lengths(path_lengths, f"{name}_lengths", batch, points.shape[1])
        return points, _lengths_of(points, name) if lengths is None else lengths
    return _padded_list(path, path_lengths, batch, name, fractions)


def _padded_list(
    path: object, path_lengths: Tensor | None, batch: int, name: str, fractions: bool
) -> tuple[Tensor, Tensor]:
    if not isinstance(path, Sequence) or isinstance(path, str):
        expected = f"a tensor (L, 2) or ({batch}, L, 2), or a list of {batch} tensors (L, 2)"
        raise TypeError(f"{name} must be {expected}, got {type(path).__name__}")
    if path_lengths is not None:
        raise ValueError(f"{name}_lengths must be left out where {name} is a list: each path has its own length")
    if len(path) != batch:
        raise ValueError(f"{name} must have one path for each of the {batch} items of the batch, got {len(path)}")
    items = [_points(item, f"{name}[{b}]", fractions) for b, item in enumerate(path)]
    for b, item in enumerate(items):
        if item.dim() != 2 or item.shape[1] != 2:
            raise ValueError(f"{name}[{b}] must have shape (L, 2), got {tuple(item.shape)}")
        if not len(item):
            raise ValueError(f"{name}[{b}] is empty, expected at least one cell")
    if not items:
        return torch.zeros(0, 1, 2, dtype=torch.float64 if fractions else torch.int64), torch.zeros(
            0, dtype=torch.int64
        )
    lengths = torch.tensor([len(item) for item in items])
    return torch.nn.utils.rnn.pad_sequence(items, batch_first=True, padding_value=-1), lengths


def _points(value: object, name: str, fractions: bool) -> Tensor:
    points = _checks.tensor(value, name)
    if points.dtype == torch.bool or points.is_complex() or (points.is_floating_point() and not fractions):
        kind = "numbers" if fractions else "integers"
        hint = "" if fractions else " (anchors between frames: breakpoints=True)"
        raise TypeError(f"{name} must hold {kind} (i, j), got {points.dtype}{hint}")
    return points.detach().to(torch.float64 if fractions else torch.int64)


def _lengths_of(points: Tensor, name: str) -> Tensor:
    """Lengths of paths that are padded with (-1, -1) behind their ends."""
    position = torch.arange(1, points.shape[1] + 1)
    lengths = torch.where((points != -1).any(2), position, 0).amax(1)
    if not torch.compiler.is_compiling() and not (lengths > 0).all():
        raise ValueError(f"{name}[{int((lengths == 0).nonzero()[0])}] is empty, expected at least one cell")
    return lengths


def _check_anchors(points: Tensor, lengths: Tensor) -> None:
    """ValueError for anchors that are not finite, or go back."""
    if torch.compiler.is_compiling():
        return
    inside = ~_checks.padding(points.shape[1], lengths)
    wrong = inside & ~points.isfinite().all(2)
    if wrong.any():
        b, k = wrong.nonzero()[0].tolist()
        raise ValueError(f"path[{b}] has an anchor that is not finite: {tuple(points[b, k].tolist())} at {k}")
    back = inside[:, 1:] & (points.diff(dim=1) < 0).any(2)
    if back.any():
        b, k = back.nonzero()[0].tolist()
        before, after = (tuple(point) for point in points[b, k : k + 2].tolist())
        raise ValueError(f"path[{b}] goes back from anchor {before} to {after}, expected i and j never to fall")


def _check_cells(path: Cells, sizes: Sizes, steps: Sequence[Step]) -> None:
    """ValueError for a cell outside an item's lattice, or a step that is not given."""
    if torch.compiler.is_compiling():
        return
    cells, inside = path.cells, path.inside
    ends = torch.stack((sizes.rows, sizes.columns), 1)
    outside = inside & ((cells < 0) | (cells >= ends[:, None])).any(2)
    if outside.any():
        b, k = outside.nonzero()[0].tolist()
        n, m = ends[b].tolist()
        raise ValueError(
            f"path[{b}] leaves the lattice: its cell {k} is {tuple(cells[b, k].tolist())}, "
            f"expected i in [0, {n}) and j in [0, {m})"
        )
    taken = cells.diff(dim=1)
    known = (taken[:, :, None] == torch.tensor(list(steps))).all(3).any(2)
    wrong = inside[:, 1:] & ~known
    if wrong.any():
        b, k = wrong.nonzero()[0].tolist()
        before, after = (tuple(cell) for cell in cells[b, k : k + 2].tolist())
        step = tuple(taken[b, k].tolist())
        how = "goes back" if min(step) < 0 else "stands still" if not any(step) else "jumps"
        raise ValueError(
            f"path[{b}] {how} at its cell {k + 1}: from {before} to {after}, expected one of the steps "
            f"{', '.join(map(str, steps))}"
        )


def check_ends(path: Cells, sizes: Sizes) -> None:
    """ValueError unless every path runs from the first to the last corner of its item."""
    if torch.compiler.is_compiling():
        return
    first, last = path.cells[:, 0], path.cells.gather(1, (path.lengths - 1)[:, None, None].expand(-1, 1, 2))[:, 0]
    corner = torch.stack((sizes.rows, sizes.columns), 1) - 1
    for verb, cell, expected in (("starts", first, torch.zeros_like(first)), ("ends", last, corner)):
        wrong = (cell != expected).any(1)
        if wrong.any():
            b = int(wrong.nonzero()[0])
            raise ValueError(
                f"path[{b}] {verb} in {tuple(cell[b].tolist())}, expected the corner {tuple(expected[b].tolist())}"
            )


# ---------------------------------------------------------------- lines between anchors


def line_cells(anchors: Tensor, lengths: Tensor, longest: int) -> tuple[Tensor, Tensor]:
    """The cells that straight lines between anchors (B, K, 2), int64, visit: (B, L, 2) with L <= longest, and how many.

    The line from (i, j) to (i', j') adds L = max(i' - i, j' - j) cells, of which the k-th, k = 1 ... L, is
    (floor(i + k (i' - i) / L + 1/2), floor(j + k (j' - j) / L + 1/2)).
    """
    steps, count = _lines(anchors, lengths)
    ends = count.cumsum(1)  # the cell, counted along the path, in which line s ends
    total = ends[:, -1] + 1
    # sizes of anchors that leave the lattice are unknown until the cells are checked
    size = longest if torch.compiler.is_compiling() or not total.numel() else int(total.amax().clamp(max=longest + 1))
    position = torch.arange(size).expand(len(anchors), -1).contiguous()
    line = torch.searchsorted(ends, position).clamp(max=count.shape[1] - 1)
    along = (position - (ends - count).gather(1, line))[..., None]
    parts = count.gather(1, line).clamp(min=1)[..., None]
    chosen = line[..., None].expand(-1, -1, 2)
    moved = (2 * along * steps.gather(1, chosen) + parts).div(2 * parts, rounding_mode="floor")
    return anchors.gather(1, chosen) + moved, total.clamp(max=size)


def _lines(anchors: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Of the line behind each anchor the step (B, K, 2) and the number of cells (B, K); 0 behind the last."""
    steps = torch.cat((anchors, anchors[:, -1:]), 1).diff(dim=1)
    steps = steps.masked_fill(_checks.padding(anchors.shape[1], lengths - 1)[..., None], 0)
    return steps, steps.amax(2)


# ---------------------------------------------------------------- along a path


def weights_along(path: Cells, steps: Sequence[Step], weights: Sequence[float]) -> Tensor:
    """Weight of the step into each cell (B, L), float64: 1 for the first cell, 0 behind the end, NaN if not given."""
    table = [float("nan")] * (_UNKNOWN + 1)
    for (dx, dy), weight in zip(steps, weights, strict=True):
        at = dx * (LONGEST_STEP + 1) + dy
        table[at] = weight if table[at] != table[at] else min(table[at], weight)
    taken = path.cells.diff(dim=1)
    possible = ((taken >= 0) & (taken <= LONGEST_STEP)).all(2)
    into = torch.where(possible, taken[..., 0] * (LONGEST_STEP + 1) + taken[..., 1], _UNKNOWN)
    first = torch.ones(path.cells.shape[0], 1, dtype=torch.float64)
    along = torch.cat((first, torch.tensor(table, dtype=torch.float64)[into]), 1)
    return along.masked_fill(~path.inside, 0)


def costs_along(x: Tensor, y: Tensor | None, metric: str | None, path: Cells, sizes: Sizes) -> Tensor:
    """C at each cell (B, L): of pairs of single frames, or read off a lattice; NaN outside of it."""
    limit = torch.tensor(sizes.shape) - 1
    cells = path.cells.clamp(min=0).minimum(limit)
    rows, columns = cells.unbind(2)
    if y is None or metric is None:
        costs = x.flatten(1).gather(1, rows * x.shape[2] + columns)
    else:
        costs = paired(_take(x, rows)[:, 0], _take(y, columns)[:, 0], metric).view(rows.shape)
    return costs.masked_fill((cells != path.cells).any(2), torch.nan) if torch.compiler.is_compiling() else costs


def total(costs: Tensor, weights: Tensor) -> Tensor:
    """Sum of weights * costs (B,); +inf, with gradient 0, where a cost or a weight is."""
    blocked = ((costs == torch.inf) | (weights == torch.inf)).any(1)
    summands = costs.masked_fill(blocked[:, None], 0) * weights.masked_fill(blocked[:, None], 0)
    return summands.sum(1).to(costs.dtype).masked_fill(blocked, torch.inf)
