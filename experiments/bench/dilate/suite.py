"""The DILATE benchmark: which combinations are measured, and how."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from .. import packages
from ..harness import Job, Policy, Predictor, Spread, interleave, peak_extra_bytes
from ..options import Options
from ..packages import OURS
from ..session import Session, conduct
from ..worker import results
from . import peers, problems
from .figures import FORECAST, LARGEST, LONG, MAIN, figures
from .peers import Peer
from .problems import TASKS, Case
from .report import Report, Row


@dataclass(frozen=True)
class Plan:
    """The sizes of a run."""

    cases: tuple[Case, ...] = (*(Case(4, length) for length in (20, 50, 100, 256)), *MAIN)
    growth: tuple[Case, ...] = tuple(Case(1, length) for length in (64, 128, 256, 512, 1024, 2048, 4096))
    memory: tuple[Case, ...] = (FORECAST, *(Case(1, length) for length in (256, 512, 1024, 2048)), LARGEST, *LONG)
    isas: tuple[str, ...] = ("avx2", "generic")
    policy: Policy = field(default_factory=Policy)

    @classmethod
    def quick(cls) -> Plan:
        """Return a few minutes' worth."""
        return cls(
            cases=(Case(4, 20), Case(4, 100), *MAIN[:2], LONG[-1]),
            growth=tuple(Case(1, length) for length in (64, 256, 1024)),
            memory=(FORECAST, Case(1, 512), LARGEST),
            isas=("avx2",),
            policy=Policy(target=0.1, minimum=2, maximum=5, patience=2.0),
        )


@dataclass
class State(Session[Plan, Peer, Row]):
    """What a run knows besides: seconds and bytes of earlier rows, by which later ones are skipped."""

    seconds: Predictor = field(default_factory=Predictor)
    bytes: Predictor = field(default_factory=Predictor)


def run(options: Options) -> Report:
    """Measure all families that are asked for."""
    plan = Plan.quick() if options.quick else Plan()
    kinds = peers.kinds(options.dilate_repo)
    report = Report(**conduct("dilate", options, kinds, lambda chosen: State(options, plan, chosen), FAMILIES))
    report.figures = figures(report)
    return report


# ---------------------------------------------------------------- families


def _memory(state: State) -> None:
    """Peak memory of a gradient, each in a process of its own: kept workspace would hide memory from the next.

    From small to large, so that a peer whose memory would not fit is skipped in time.
    """
    for case in state.plan.memory:
        for peer in _offering(state, case):
            row = _planned(state, _row("memory", peer, case, "gradient", 1), case)
            if row.status == "ok":
                found = next(results(_job(state, "memory", [peer.name], [case])))
                row = replace(row, **found)
                if row.extra_bytes is not None:
                    state.bytes.record(_kind(row), case.cells, max(row.extra_bytes, 0))
            _add(state, row)


def _grid(state: State) -> None:
    """All peers on all shapes, values and gradients, one thread and more."""
    for case in state.plan.cases:
        for task in TASKS:
            _measure(state, "grid", case, task, state.options.threads)


def _growth(state: State) -> None:
    """One item, ever longer, one thread."""
    for case in state.plan.growth:
        _measure(state, "growth", case, "gradient", (1,))


def _isa(state: State) -> None:
    """Lower instruction sets, each in a process that is told to use it."""
    cases = [case for case in MAIN if case in state.plan.cases]
    for isa in state.plan.isas if OURS in state.loaded else ():
        blank = [_row("isa", state.loaded[OURS], case, "gradient", 1, isa) for case in cases]
        if state.out_of_time is not None:
            done = [replace(row, status="skipped", reason=state.out_of_time) for row in blank]
        else:
            found = results(_job(state, "isa", [OURS], cases), {"DALIGN_ISA": isa})
            done = [_read(row, result) for row, result in zip(blank, found, strict=True)]
        for row in done:
            _add(state, row)


# In this order: memory tells which runs would not fit; what comes late is skipped when the minutes are over.
FAMILIES = {"memory": _memory, "grid": _grid, "growth": _growth, "isa": _isa}


# ---------------------------------------------------------------- rows


def _offering(state: State, case: Case) -> list[Peer]:
    return [peer for peer in state.loaded.values() if peer.offers(case)]


def _row(family: str, peer: Peer, case: Case, task: str, threads: int, isa: str | None = None) -> Row:
    return Row(family, peer.name, task, threads, case.batch, case.length, case.dim, isa)


def _kind(row: Row) -> tuple[str, int]:
    """What must agree for one run's memory to predict another's."""
    return row.peer, row.dim


def _planned(state: State, row: Row, case: Case) -> Row:
    """Mark a row as skipped when the limits or the time budget say so."""
    if state.out_of_time is not None:
        return replace(row, status="skipped", reason=state.out_of_time)
    seconds = state.seconds.predict((row.peer, row.task, row.threads), case.cells)
    reason = state.options.limits.reason(seconds, state.bytes.predict(_kind(row), case.cells))
    return row if reason is None else replace(row, status="skipped", reason=reason)


def _add(state: State, row: Row) -> None:
    state.rows.append(row)
    bytes_found = "" if row.extra_bytes is None else f"{row.extra_bytes / 2**20:.3g} MiB"
    found = f"{row.ns_per_cell:.4g} ns per cell" if row.time else bytes_found
    state.say(f"{row.family} {row.shape} {row.task} {row.peer} x{row.threads} {row.isa or ''} {row.status} {found}")


def _measure(state: State, family: str, case: Case, task: str, threads: Sequence[int]) -> None:
    """Time all peers on one shape and task, in turns."""
    rows = {
        (peer.name, count): _planned(state, _row(family, peer, case, task, count), case)
        for peer in _offering(state, case)
        for count in threads
        if count == 1 or peer.max_threads is None
    }
    running = {key: row for key, row in rows.items() if row.status == "ok"}
    rows |= _timed(state.loaded, running, case, state.options.seed, state.plan.policy)
    for row in rows.values():
        if row.time is not None:
            state.seconds.record((row.peer, task, row.threads), case.cells, row.time.median)
        _add(state, row)


def _timed(
    loaded: Mapping[str, Peer], rows: Mapping[tuple[str, int], Row], case: Case, seed: int, policy: Policy
) -> dict[tuple[str, int], Row]:
    """Fill rows by (peer, threads) of one shape and task with times, interleaved, and errors."""
    given = problems.series(case, seed)
    found: dict[tuple[str, int], dict[str, float]] = {}

    def job(key: tuple[str, int], row: Row) -> Job:
        peer = loaded[row.peer]

        def inspect(outcome: tuple[Tensor, ...]) -> None:
            found[key] = problems.errors(case, seed, row.task, peer.checked, outcome)

        return Job(key, peer.call(row.task, given), lambda: packages.set_threads(row.threads), inspect)

    times = interleave([job(key, row) for key, row in rows.items()], policy)
    return {key: _filled(row, times[key], found.get(key, {})) for key, row in rows.items()}


def _filled(row: Row, outcome: Spread | Exception, errors: Mapping[str, Any]) -> Row:
    if isinstance(outcome, Exception):
        reason = f"{type(outcome).__name__}: {outcome}".replace("\n", " ")
        return replace(row, status="failed", reason=reason)
    return replace(row, time=outcome, **errors)


def _read(row: Row, result: Mapping[str, Any]) -> Row:
    """Return the row with what a worker found."""
    return replace(row, **{**result, "time": Spread(**result["time"]) if result.get("time") else None})


# ---------------------------------------------------------------- in a process of its own


def _job(state: State, family: str, names: Sequence[str], cases: Sequence[Case]) -> dict[str, Any]:
    repository = state.options.dilate_repo
    return {
        "suite": "dilate",
        "peer": ", ".join(names),
        "peers": list(names),
        "repository": None if repository is None else str(repository),
        "family": family,
        "seed": state.options.seed,
        "policy": asdict(state.plan.policy),
        "cases": [asdict(case) for case in cases],
    }


def work(job: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Measure gradients of one peer in this process: times, or peak memory.

    Yields
    ------
    dict
        For each case "time", "error" and "error_gradient", or "extra_bytes"; or "status" and "reason".
    """
    repository = None if job["repository"] is None else Path(job["repository"])
    loaded, _ = packages.load([kind for kind in peers.kinds(repository) if kind.name in job["peers"]])
    (peer,) = loaded.values()
    packages.set_threads(1)
    for entry in job["cases"]:
        case = Case(**entry)
        if job["family"] == "memory":
            yield {"extra_bytes": _extra_bytes(peer, case, job["seed"])}
            continue
        rows = {(peer.name, 1): _row("isa", peer, case, "gradient", 1)}
        (row,) = _timed(loaded, rows, case, job["seed"], Policy(**job["policy"])).values()
        entries = row.to_json()
        yield {name: entries[name] for name in ("status", "reason", "time", "error", "error_gradient")}


def _extra_bytes(peer: Peer, case: Case, seed: int) -> int:
    """Peak memory of one gradient beyond inputs and results, after a small one that loads everything."""
    peer.call("gradient", problems.series(Case(2, 9, case.dim), seed))()
    extra, outcome = peak_extra_bytes(peer.call("gradient", problems.series(case, seed)))
    return extra - sum(part.numel() * part.element_size() for part in outcome)
