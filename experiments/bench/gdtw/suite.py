"""The GDTW benchmark: which combinations are measured, and how."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from .. import packages
from ..harness import Job, Policy, Predictor, Spread, interleave
from ..options import Options
from ..packages import OURS
from ..session import Session, conduct
from . import peers, problems
from .figures import DILATE, DTW, SOFT_DTW, figures
from .peers import KERNEL, LAYER, Dalign, Peer
from .problems import MAIN_DIM, REG_WEIGHT, Case, Floats, Pair
from .report import BATCH, CALLS, GROWTH, SOLVERS, TRAINING, Report, Row

QUALITIES = ("fast", "default")
GAMMA = 1.0
SHORT = 2e-3  # seconds: shorter calls are repeated within one measurement


@dataclass(frozen=True)
class Plan:
    """The sizes of a run."""

    calls: tuple[tuple[int, int, str], ...] = (
        *((length, MAIN_DIM, quality) for quality in QUALITIES for length in (64, 256, 512, 1024)),
        (512, 128, "default"),
        (1024, 128, "default"),
    )
    batch: tuple[int, int] = (64, 256)
    solvers: tuple[tuple[int, int], ...] = tuple((n, dim) for dim in (1, MAIN_DIM) for n in (32, 64, 128, 256))
    lengths: tuple[int, ...] = (64, 128, 256, 512, 1024, 2048, 4096)
    policy: Policy = field(default_factory=Policy)

    @classmethod
    def quick(cls) -> Plan:
        """Return about a minute's worth."""
        return cls(
            calls=((64, MAIN_DIM, "fast"), (256, MAIN_DIM, "fast"), (512, 128, "default")),
            batch=(16, 64),
            solvers=((32, 1), (64, MAIN_DIM)),
            lengths=(64, 256, 1024),
            policy=Policy(target=0.05, minimum=2, maximum=20, patience=1.0),
        )


@dataclass
class Run(Session[Plan, Peer, Row]):
    """The state of a run, with what was needed so far."""

    seconds: Predictor = field(default_factory=Predictor)


def run(options: Options) -> Report:
    """Measure all families that are asked for."""
    plan = Plan.quick() if options.quick else Plan()
    report = Report(**conduct("gdtw", options, peers.ALL, lambda chosen: Run(options, plan, chosen), FAMILIES))
    report.figures = figures(report)
    return report


def work(job: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Do nothing: all runs are in one process, no memory is measured."""
    raise NotImplementedError("the suite gdtw has no jobs for worker processes")


# ---------------------------------------------------------------- families


def _calls(state: Run) -> None:
    """Kernel and layer."""
    ours = _ours(state)
    if ours is None:
        return
    for length, dim, quality in state.plan.calls:
        given = problems.inputs(Case(1, length, dim), state.options.seed)
        entries = [
            Entry(_row(CALLS, quality, task, 1, 1, length, dim, through), getattr(ours, task)(given, quality, through))
            for task in ("forward", "backward")
            for through in (KERNEL, LAYER)
        ]
        _together(state, entries)


def _batch(state: Run) -> None:
    """Many pairs on each number of threads."""
    ours = _ours(state)
    if ours is None:
        return
    batch, length = state.plan.batch
    given = problems.inputs(Case(batch, length, MAIN_DIM), state.options.seed)
    for task in ("forward", "backward"):
        call = getattr(ours, task)(given, "fast", KERNEL)
        rows = [
            _row(BATCH, "fast", task, threads, batch, length, MAIN_DIM, KERNEL) for threads in state.options.threads
        ]
        _together(state, [Entry(row, call) for row in rows])


def _solvers(state: Run) -> None:
    """All solvers on one pair; then each objective is compared with the lowest."""
    for length, dim in state.plan.solvers:
        case = Case(1, length, dim)
        given = problems.inputs(case, state.options.seed)
        entries = [
            Entry(
                replace(_row(SOLVERS, setting, "forward", 1, 1, length, dim), peer=peer.name),
                peer.call(given, setting),
                _judge(peer, Pair.of(given)),
                case.work(peer.order),
            )
            for peer in state.loaded.values()
            for setting in peer.settings
        ]
        rows = _together(state, entries)
        lowest = min((row.objective for row in rows if row.objective is not None), default=0.0)
        state.rows[-len(rows) :] = [_compared(row, lowest) for row in rows]


def _judge(peer: Peer, pair: Pair) -> Callable[[Any], dict[str, Any]]:
    """Return the check of what a solver gives."""

    def check(outcome: Any) -> dict[str, Any]:
        phi = feasible(pair, peer.warp(outcome))
        return {"objective": pair.objective(phi)}

    return check


def feasible(pair: Pair, phi: Floats, tolerance: float = 1e-9) -> Floats:
    """Return the warp if it is one.

    Raises
    ------
    ValueError
        When it falls or misses an end by more than the tolerance, or has another length.
    """
    if phi.shape != pair.times.shape or not pair.violation(phi) <= tolerance:
        raise ValueError("what came back is no warp from the first to the last time")
    return phi.clip(0, 1)


def _compared(row: Row, lowest: float) -> Row:
    return row if row.objective is None else replace(row, excess=(row.objective - lowest) / lowest)


def _growth(state: Run) -> None:
    """Warps and paths."""
    for length in state.plan.lengths:
        case = Case(1, length, MAIN_DIM)
        given = problems.inputs(case, state.options.seed)
        calls = {} if (ours := _ours(state)) is None else _inference(ours, given)
        entries = [Entry(_row(GROWTH, name, "forward", 1, 1, length, MAIN_DIM), call) for name, call in calls.items()]
        for peer in state.loaded.values():
            if peer is not ours:
                row = replace(_row(GROWTH, "", "forward", 1, 1, length, MAIN_DIM), peer=peer.name)
                entries.append(Entry(row, peer.call(given, ""), work=case.work(peer.order)))
        _together(state, entries)


def _inference(ours: Dalign, given: tuple[Tensor, Tensor]) -> dict[str, Callable[[], Any]]:
    """Return our ways to align a pair, by name."""
    warps = {f"GDTW {quality}": ours.inference(given, quality) for quality in QUALITIES}
    return warps | {DTW: lambda: ours.dalign.dtw_path(*given)}


def _training(state: Run) -> None:
    """A loss and its gradients."""
    ours = _ours(state)
    if ours is None:
        return
    for length in state.plan.lengths:
        given = problems.inputs(Case(1, length, MAIN_DIM), state.options.seed)
        entries = [
            Entry(_row(TRAINING, name, "step", 1, 1, length, MAIN_DIM), _step(loss, given))
            for name, loss in losses(ours.dalign, length).items()
        ]
        _together(state, entries)


def losses(dalign: Any, length: int) -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
    """Return what is trained with, by name."""
    truth = torch.linspace(0, 1, length) ** 1.1

    def by_warp(quality: str) -> Callable[[Tensor, Tensor], Tensor]:
        layer = dalign.DecDTW(REG_WEIGHT, quality=quality)
        return lambda x, y: (layer(x, y) - truth).abs().mean()

    decdtw = {f"DecDTW {quality}": by_warp(quality) for quality in QUALITIES}
    return decdtw | {SOFT_DTW: dalign.SoftDTW(GAMMA), DILATE: dalign.DILATE(0.5, GAMMA)}


def _step(loss: Callable[[Tensor, Tensor], Tensor], given: tuple[Tensor, Tensor]) -> Callable[[], Any]:
    leaves = [side.clone().requires_grad_() for side in given]
    return lambda: torch.autograd.grad(loss(*leaves), leaves)


# In this order: what comes late is skipped when the minutes are over.
FAMILIES = {CALLS: _calls, BATCH: _batch, SOLVERS: _solvers, GROWTH: _growth, TRAINING: _training}


def _ours(state: Run) -> Dalign | None:
    found = state.loaded.get(OURS)
    return found if isinstance(found, Dalign) else None


def _row(
    family: str, setting: str, task: str, threads: int, batch: int, length: int, dim: int, through: str = ""
) -> Row:
    return Row(family, OURS, setting, task, threads, batch, length, dim, through)


# ---------------------------------------------------------------- measuring: peers take turns


@dataclass(frozen=True)
class Entry:
    """One thing to time.

    Attributes
    ----------
    row : Row
        Is filled.
    call : callable
        What is timed.
    check : callable
        Gives more results from what the call returned.
    work : int or None
        What its time grows with, where long runs are to be skipped. None: calls may be short.
    """

    row: Row
    call: Callable[[], Any]
    check: Callable[[Any], dict[str, Any]] = lambda outcome: {}
    work: int | None = None

    @property
    def kind(self) -> tuple[Any, ...]:
        """What must agree for one run's time to predict another's."""
        return self.row.peer, self.row.setting, self.row.dim


def _together(state: Run, entries: Sequence[Entry]) -> list[Row]:
    """Time several entries, interleaved, and add their rows."""
    rows = [_planned(state, entry) for entry in entries]
    running = [at for at, row in enumerate(rows) if row.status == "ok"]
    checked: dict[int, dict[str, Any]] = {}
    loops = {at: _loops(entries[at]) for at in running}
    jobs = [_job(state, at, entries[at], loops[at], checked) for at in running]
    times = interleave(jobs, state.plan.policy)
    for at in running:
        rows[at] = _filled(rows[at], times[at], loops[at], checked.get(at, {}))
        spread, work = rows[at].time, entries[at].work
        if spread is not None and work is not None:
            state.seconds.record(entries[at].kind, work, spread.median)
    for row in rows:
        _add(state, row)
    return rows


def _planned(state: Run, entry: Entry) -> Row:
    """Return the row, marked as skipped when the limits or the time budget say so."""
    reason = state.out_of_time or state.options.limits.reason(_expected(state, entry), None)
    return entry.row if reason is None else replace(entry.row, status="skipped", reason=reason)


def _expected(state: Run, entry: Entry) -> float | None:
    return None if entry.work is None else state.seconds.predict(entry.kind, entry.work)


def _loops(entry: Entry) -> int:
    """How often a call is made within one measurement: a single short one would be that of cold caches."""
    if entry.work is not None:
        return 1
    packages.set_threads(entry.row.threads)
    entry.call()
    start = time.perf_counter()
    entry.call()
    return min(1000, math.ceil(SHORT / max(time.perf_counter() - start, 1e-9)))


def _job(state: Run, at: int, entry: Entry, loops: int, checked: dict[int, dict[str, Any]]) -> Job:
    def run() -> Any:
        for _ in range(loops - 1):
            entry.call()
        return entry.call()

    def prepare() -> None:
        packages.set_threads(entry.row.threads)

    def inspect(outcome: Any) -> None:
        checked[at] = entry.check(outcome)

    return Job(at, run, prepare, inspect, _expected(state, entry))


def _filled(row: Row, result: Spread | Exception, loops: int, more: Mapping[str, Any]) -> Row:
    if isinstance(result, Exception):
        return replace(row, status="failed", reason=f"{type(result).__name__}: {result}".replace("\n", " "))
    once = Spread(result.minimum / loops, result.median / loops, result.maximum / loops, result.repeats)
    return replace(row, time=once, **more)


def _add(state: Run, row: Row) -> None:
    state.rows.append(row)
    shape = f"{row.family} {row.task} B={row.batch} N={row.length} D={row.dim} {row.who} {row.through} x{row.threads}"
    ms = f"{row.milliseconds:.4g} ms" if row.milliseconds else ""
    objective = f"F = {row.objective:.7g}" if row.objective else ""
    state.say(f"{shape} {row.status} {row.reason or ''} {ms} {objective}")
