"""Timing, peak memory and skipping: what all benchmarks share. Nothing here knows an algorithm."""

from __future__ import annotations

import ctypes
import gc
import math
import statistics
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Key = Hashable
LONG_SECONDS = 1.0  # a first run this long is no warm-up: it counts, unless it took much longer than was expected
SURPRISE = 3.0  # times longer than expected: a compiler ran, say


@dataclass(frozen=True)
class Spread:
    """Smallest, middle and largest of some times in seconds, and how many they were."""

    minimum: float
    median: float
    maximum: float
    repeats: int

    @classmethod
    def of(cls, samples: Sequence[float]) -> Spread:
        """Summarise a non-empty sequence of times."""
        if not samples:
            raise ValueError("Spread.of: expected at least one sample, got none")
        return cls(min(samples), statistics.median(samples), max(samples), len(samples))


@dataclass(frozen=True)
class Policy:
    """How often a combination runs: about `target` seconds in all, within bounds on the count.

    `minimum` runs are wanted even of a slow combination, unless they would take longer than `patience` seconds.
    """

    target: float = 0.3
    minimum: int = 3
    maximum: int = 30
    patience: float = 3.0

    def repeats(self, once: float) -> int:
        """Return the number of runs for a combination of which one run takes `once` seconds."""
        once = max(once, 1e-9)
        affordable = max(1, min(self.minimum, int(self.patience / once)))
        return min(self.maximum, max(affordable, math.ceil(self.target / once)))


@dataclass(frozen=True)
class Limits:
    """What a single run may need at most; beyond it a combination is skipped and marked."""

    seconds: float = 60.0
    gibibytes: float = 8.0

    def reason(self, seconds: float | None, size: float | None) -> str | None:
        """Say why a run that is predicted to need this time and this many bytes is skipped, or None to run it."""
        if size is not None and size > self.gibibytes * 2**30:
            return f"predicted {size / 2**30:.1f} GiB > {self.gibibytes:g} GiB"
        if seconds is not None and seconds > self.seconds:
            return f"predicted {seconds:.0f} s > {self.seconds:g} s"
        return None


@dataclass
class Predictor:
    """Predicts a quantity from the largest smaller run of the same kind, in proportion to the cells.

    Fixed costs make this an overestimate, never an underestimate.
    """

    seen: dict[Key, dict[int, float]] = field(default_factory=dict)

    def record(self, kind: Key, cells: int, amount: float) -> None:
        """Remember what a run of this kind and size needed."""
        self.seen.setdefault(kind, {})[cells] = amount

    def predict(self, kind: Key, cells: int) -> float | None:
        """Predict what a run needs; None when no run of its kind has been seen."""
        runs = self.seen.get(kind)
        if not runs:
            return None
        nearest = max((size for size in runs if size <= cells), default=min(runs))
        return runs[nearest] * cells / nearest


@dataclass(frozen=True)
class Job:
    """One thing to time.

    Attributes
    ----------
    key : hashable
        Names the job in the results.
    run : callable
        The timed call.
    prepare : callable
        Runs before each timed call, outside the time: sets the number of threads.
    inspect : callable
        Gets what the first run returned.
    expected : float or None
        Seconds that a run is expected to take.
    """

    key: Key
    run: Callable[[], Any]
    prepare: Callable[[], None] = lambda: None
    inspect: Callable[[Any], None] = lambda result: None
    expected: float | None = None


def interleave(
    jobs: Sequence[Job], policy: Policy, clock: Callable[[], float] = time.perf_counter
) -> dict[Key, Spread | Exception]:
    """Time several jobs that take turns.

    Parameters
    ----------
    jobs : sequence of Job
        Each runs once first, then all take turns until each has its number of repeats.
    policy : Policy
        Decides the number of repeats from the first run.
    clock : callable
        Seconds, for tests.

    Returns
    -------
    dict
        By job key: the spread of its times, or the exception that it raised (the others go on).
    """
    gc.collect()
    gc.freeze()  # what lives now is not looked at again: collecting before each run costs little
    try:
        return _take_turns(jobs, policy, clock)
    finally:
        gc.unfreeze()


def _take_turns(jobs: Sequence[Job], policy: Policy, clock: Callable[[], float]) -> dict[Key, Spread | Exception]:
    samples: dict[Key, list[float]] = {}
    failed: dict[Key, Exception] = {}
    wanted: dict[Key, int] = {}
    for job in jobs:
        try:
            once = _first(job, clock)
        except Exception as error:  # a peer's failure is a result, whatever its type
            failed[job.key] = error
            continue
        samples[job.key] = [once] if once >= LONG_SECONDS else []
        wanted[job.key] = policy.repeats(once)
    for turn in range(max(wanted.values(), default=0)):
        for job in _rotated([job for job in jobs if job.key in samples], turn):
            if len(samples[job.key]) < wanted[job.key]:
                samples[job.key].append(_time(job, clock))
    return {**{key: Spread.of(times) for key, times in samples.items()}, **failed}


def _first(job: Job, clock: Callable[[], float]) -> float:
    """Run a job for the first time; a surprisingly long run is repeated, since its time tells nothing."""
    once = _time(job, clock, job.inspect)
    surprising = job.expected is None or once > SURPRISE * job.expected
    return _time(job, clock) if once >= LONG_SECONDS and surprising else once


def _time(job: Job, clock: Callable[[], float], inspect: Callable[[Any], None] = lambda result: None) -> float:
    job.prepare()
    gc.collect()
    gc.disable()
    try:
        start = clock()
        result = job.run()
        seconds = clock() - start
    finally:
        gc.enable()
    inspect(result)
    return seconds


def _rotated(jobs: Sequence[Job], turn: int) -> list[Job]:
    """Let another job go first at each turn, so that none always follows the same one."""
    cut = turn % len(jobs) if jobs else 0
    return [*jobs[cut:], *jobs[:cut]]


def peak_extra_bytes(run: Callable[[], Any]) -> tuple[int, Any]:
    """Run once and measure by how much the process's resident memory grew at its highest.

    Returns
    -------
    tuple
        Bytes between the resident memory before and its high-water mark during the run, and what the run returned (its
        size is part of the bytes).
    """
    _release_freed_memory()
    Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark to the present size
    before = _status_bytes("VmRSS")
    result = run()
    return _status_bytes("VmHWM") - before, result


def _release_freed_memory() -> None:
    """Give freed heap memory back, else a run would reuse it unseen."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)


def _status_bytes(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no line {name}")


def ratio(times: Mapping[Key, Spread], slow: Key, fast: Key) -> float | None:
    """Return how many times faster `fast` is than `slow` by their medians; None when one is missing."""
    if slow not in times or fast not in times:
        return None
    return times[slow].median / times[fast].median
