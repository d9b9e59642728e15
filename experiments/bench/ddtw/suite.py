"""The dDTW benchmark: which combinations are measured, and how."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from .. import packages
from ..harness import Job, Policy, Predictor, Spread, interleave
from ..options import Options
from ..session import Session, conduct
from ..softdtw.suite import extra_bytes
from ..worker import results
from . import peers, problems
from .figures import LENGTH, figures
from .paper import TABLE_VI
from .peers import Peer
from .problems import CTC, LOSSES, MAIN_BATCH, Case
from .report import CTC_SHAPES, LATTICE, TABLE, Report, Row
from .settings import SETTINGS, Setting


@dataclass(frozen=True)
class Plan:
    """The sizes of a run."""

    table: tuple[tuple[int, int], ...] = tuple(TABLE_VI)
    lattices: tuple[tuple[int, int], ...] = ((MAIN_BATCH, 256), (1, LENGTH), (MAIN_BATCH, LENGTH))  # B, N
    settings: tuple[str, ...] = tuple(SETTINGS)
    ctc: tuple[tuple[int, int, int, int], ...] = ((1000, 16, 13, 512), (1000, 16, 32, 100), (500, 32, 5000, 60))
    policy: Policy = field(default_factory=Policy)
    table_policy: Policy = field(default_factory=lambda: Policy(minimum=20, maximum=20, patience=30.0))

    @classmethod
    def quick(cls) -> Plan:
        """Return about a minute's worth."""
        few = Policy(target=0.05, minimum=2, maximum=5, patience=1.0)
        return cls(
            table=((256, 64), (512, 128)),
            lattices=((MAIN_BATCH, 128), (MAIN_BATCH, LENGTH)),
            settings=("CTC-A", "SDTW-E"),
            ctc=((200, 16, 13, 100), (1000, 16, 32, 100)),
            policy=few,
            table_policy=few,
        )


@dataclass
class Run(Session[Plan, Peer, Row]):
    """The state of a run, with what was needed so far."""

    seconds: Predictor = field(default_factory=Predictor)
    bytes: Predictor = field(default_factory=Predictor)


def run(options: Options) -> Report:
    """Measure all families that are asked for."""
    plan = Plan.quick() if options.quick else Plan()
    report = Report(**conduct("ddtw", options, peers.ALL, lambda chosen: Run(options, plan, chosen), FAMILIES))
    report.figures = figures(report)
    return report


# ---------------------------------------------------------------- families


def _table(state: Run) -> None:
    """Table VI, a loss after the other, small shapes first."""
    cases = [
        Case(task, MAIN_BATCH, n, m, problems.MAIN_DIM + (task in LOSSES[2:]), repeats=False)
        for task in LOSSES
        for n, m in state.plan.table
    ]
    _measure(state, TABLE, cases, state.plan.table_policy, cases)


def _lattice(state: Run) -> None:
    """Given costs."""
    shapes = state.plan.lattices
    settings = [SETTINGS[name] for name in state.plan.settings]
    cases = [Case(own.name, batch, n, _columns(own, n)) for own in settings for batch, n in shapes]
    largest = max(case.batch * case.length for case in cases)
    _measure(state, LATTICE, cases, state.plan.policy, [case for case in cases if case.batch * case.length == largest])


def _columns(setting: Setting, length: int) -> int:
    """About as many columns as rows."""
    return setting.columns(length if setting.blank is None else length // 2)


def _ctc(state: Run) -> None:
    """CTC alone, from logits."""
    cases = [Case(CTC, b, t, s, c) for t, b, c, s in state.plan.ctc]
    _measure(state, CTC_SHAPES, cases, state.plan.policy, cases)


# In this order: what comes late is skipped when the minutes are over.
FAMILIES = {LATTICE: _lattice, CTC_SHAPES: _ctc, TABLE: _table}


def _measure(state: Run, family: str, cases: Sequence[Case], policy: Policy, of_memory: Sequence[Case]) -> None:
    """Memory of every peer first, each run in a process of its own; then times, for which the peers take turns."""
    memory = {}
    for case in of_memory:
        for peer in state.loaded.values():
            if peer.offers(case.task) and state.out_of_time is None:
                memory[peer.name, case] = _memory(state, peer, case)
    for case in cases:
        _together(state, family, case, policy, memory)


# ---------------------------------------------------------------- in this process: peers take turns


def _together(state: Run, family: str, case: Case, policy: Policy, memory: Mapping[Any, Mapping[str, Any]]) -> None:
    """Time all peers on one problem, interleaved, and add their rows."""
    group = [peer for peer in state.loaded.values() if peer.offers(case.task)]
    rows = {
        (peer.name, threads): replace(_planned(state, family, peer, case, threads), **memory.get((peer.name, case), {}))
        for peer in group
        for threads in state.options.threads
    }
    running = [key for key, row in rows.items() if row.status == "ok"]
    given = problems.inputs(case, state.options.seed) if running else None
    checks: dict[tuple[str, int], tuple[float, float]] = {}
    jobs = [_job(state, state.loaded[name], threads, case, given, checks) for name, threads in running]
    times = interleave(jobs, policy)
    for key in running:
        rows[key] = _filled(rows[key], times[key], checks.get(key))
        if (spread := rows[key].time) is not None:
            state.seconds.record(_kind(*key, case), case.cells, spread.median)
    state.rows += rows.values()
    _tell(state, case, list(rows.values()))


def _planned(state: Run, family: str, peer: Peer, case: Case, threads: int) -> Row:
    """Return a row without results, marked as skipped when the limits or the time budget say so."""
    shape = case.batch, case.length, case.columns, case.dim, case.cells
    row = Row(family, peer.name, case.task, threads, *shape)
    if state.out_of_time is not None:
        return replace(row, status="skipped", reason=state.out_of_time)
    seconds = state.seconds.predict(_kind(peer.name, threads, case), case.cells)
    reason = state.options.limits.reason(seconds, state.bytes.predict((peer.name, case.task), case.cells))
    return row if reason is None else replace(row, status="skipped", reason=reason)


def _job(
    state: Run, peer: Peer, threads: int, case: Case, given: Any, checks: dict[tuple[str, int], tuple[float, float]]
) -> Job:
    def prepare() -> None:
        packages.set_threads(threads)

    def check(outcome: Any) -> None:
        checks[peer.name, threads] = problems.errors(case, given, outcome)

    expected = state.seconds.predict(_kind(peer.name, threads, case), case.cells)
    return Job((peer.name, threads), peer.call(case, given), prepare, check, expected)


def _kind(peer: str, threads: int, case: Case) -> Hashable:
    """What must agree for one run's time to predict another's."""
    return peer, threads, case.task, case.dim


def _filled(row: Row, result: Spread | Exception, check: tuple[float, float] | None) -> Row:
    """Return the row with its results, or with the failure."""
    if isinstance(result, Exception):
        return replace(row, status="failed", reason=f"{type(result).__name__}: {result}".replace("\n", " "))
    value, gradient = check or (math.inf, math.inf)
    if not math.isfinite(value + gradient):
        return replace(row, time=result, reason="value or gradient is not finite")
    return replace(row, time=result, value_error=value, gradient_error=gradient)


def _tell(state: Run, case: Case, rows: Sequence[Row]) -> None:
    speeds = [
        f"{row.peer} x{row.threads} {row.status if row.ns_per_cell is None else f'{row.ns_per_cell:.3g}'}"
        for row in rows
    ]
    state.say(f"{case.task} B={case.batch} N={case.length} M={case.columns} ns per cell: {', '.join(speeds)}")


# ---------------------------------------------------------------- in a process of its own


def _memory(state: Run, peer: Peer, case: Case) -> dict[str, Any]:
    """Return what a row needs to know of its peak memory: bytes, or why there are none."""
    job = {"suite": "ddtw", "peer": peer.name, "seed": state.options.seed, "cases": [asdict(case)]}
    (found,) = results(job)  # kept workspace would hide memory from a second case
    if "extra_bytes" in found:
        state.bytes.record((peer.name, case.task), case.cells, max(found["extra_bytes"], 0))
    return found


def work(job: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Measure in this process the peak memory of single runs of one peer, on one thread.

    Yields
    ------
    dict
        For each case: "extra_bytes".
    """
    peer = next(kind for kind in peers.ALL if kind.name == job["peer"])()
    peer.load()
    packages.set_threads(1)
    for entry in job["cases"]:
        case = Case(**entry)
        small = replace(case, batch=1, length=9, columns=9)  # lets a peer load what it needs
        peer.call(small, problems.inputs(small, job["seed"]))()
        given = problems.inputs(case, job["seed"])
        yield {"extra_bytes": extra_bytes(peer.call(case, given))}
