"""The figures that GDTW is to reach, read from the rows of a run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..packages import OURS
from ..report import Figure
from .peers import KERNEL, LAYER
from .problems import MAIN_DIM
from .report import BATCH, CALLS, GROWTH, SOLVERS, TRAINING, Report, Row

FORWARD = {  # milliseconds at most, of the kernel
    (64, MAIN_DIM, "fast"): 0.15,
    (256, MAIN_DIM, "fast"): 0.8,
    (512, MAIN_DIM, "fast"): 2.5,
    (1024, MAIN_DIM, "fast"): 8.0,
    (512, 128, "default"): 4.0,
    (1024, 128, "default"): 12.0,
}
BACKWARD = {
    (64, MAIN_DIM, "fast"): 0.006,
    (256, MAIN_DIM, "fast"): 0.03,
    (512, MAIN_DIM, "fast"): 0.07,
    (1024, MAIN_DIM, "fast"): 0.2,
}
OF_LAYER = 0.1  # milliseconds
SPEEDUP = 1.8
ABOVE_LOWEST = 1e-9  # share; rounding of F
RATIO_LENGTH = 1024
DTW, SOFT_DTW, DILATE = "DTW path", "soft-DTW", "DILATE"
IN_PAPER = {DTW: "15 to 50 in the paper", SOFT_DTW: "4 to 20 in the paper", DILATE: "below 1 in the paper"}


def figures(report: Report) -> list[Figure]:
    """Return the figures that this package is to reach, as far as they were measured."""
    return [*_calls(report), *_layer(report), *_threads(report), *_objectives(report), *_ratios(report)]


def _calls(report: Report) -> Iterator[Figure]:
    for task, bounds in (("forward", FORWARD), ("backward", BACKWARD)):
        for (length, dim, quality), bound in bounds.items():
            row = _call(report, task, KERNEL, length, dim, quality)
            name = f'ms, kernel, {task}, N = M = {length}, D = {dim}, "{quality}", one pair, one thread'
            yield Figure(name, row.time.median * 1e3 if row and row.time else None, bound)


def _layer(report: Report) -> Iterator[Figure]:
    """Differences of shortest times: what the layer adds is the same in every call."""
    for task in ("forward", "backward"):
        shape = (64, MAIN_DIM, "fast")
        kernel, layer = (_call(report, task, through, *shape) for through in (KERNEL, LAYER))
        both = kernel and kernel.time and layer and layer.time
        added = (layer.time.minimum - kernel.time.minimum) * 1e3 if both else None  # type: ignore[union-attr]
        yield Figure(f"ms that the layer adds to the kernel, {task}, N = M = 64, D = {MAIN_DIM}", added, OF_LAYER)


def _threads(report: Report) -> Iterator[Figure]:
    for task in ("forward", "backward"):
        rows = {row.threads: row for row in _timed(report, family=BATCH, task=task, batch=64, length=256)}
        speedup = rows[1].time.median / rows[2].time.median if {1, 2} <= rows.keys() else None  # type: ignore[union-attr]
        name = f"times faster on two threads, {task} of a batch of 64, N = M = 256, D = {MAIN_DIM}"
        yield Figure(name, speedup, SPEEDUP if task == "forward" else None, higher_is_better=True)


def _objectives(report: Report) -> Iterator[Figure]:
    for quality in ("fast", "default", "thorough"):
        rows = _timed(report, family=SOLVERS, peer=OURS, setting=quality)
        worst = max((row.excess for row in rows if row.excess is not None), default=None)
        bound = None if quality == "fast" else ABOVE_LOWEST
        yield Figure(f'share by which F of "{quality}" lies above the lowest of all solvers, at most', worst, bound)


def _ratios(report: Report) -> Iterator[Figure]:
    for family, other, ours in ((GROWTH, DTW, "GDTW"), (TRAINING, SOFT_DTW, "DecDTW"), (TRAINING, DILATE, "DecDTW")):
        for quality in ("fast", "default"):
            times = [
                _timed(report, family=family, setting=setting, length=RATIO_LENGTH)
                for setting in (f"{ours} {quality}", other)
            ]
            ratio = times[0][0].time.median / times[1][0].time.median if all(times) else None  # type: ignore[union-attr]
            what = "a training step" if family == TRAINING else "a warp"
            name = f'{what} of {ours} "{quality}" in times of {other}, N = M = {RATIO_LENGTH} ({IN_PAPER[other]})'
            yield Figure(name, ratio)


def _call(report: Report, task: str, through: str, length: int, dim: int, quality: str) -> Row | None:
    shape = {"length": length, "dim": dim, "setting": quality}
    return next(iter(_timed(report, family=CALLS, task=task, through=through, **shape)), None)


def _timed(report: Report, **wanted: Any) -> list[Row]:
    return [row for row in report.find(**wanted) if row.time is not None and row.status == "ok"]
