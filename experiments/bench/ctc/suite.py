"""The CTC benchmark: which combinations are measured, and how."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch

from .. import packages
from ..harness import Job, Limits, Policy, Predictor, Spread, interleave, peak_extra_bytes
from ..options import Options
from ..packages import OURS
from ..session import Session, conduct
from ..worker import results
from . import peers, problems
from .figures import FASTER, figures
from .peers import TORCH, Peer
from .problems import TASKS, Case
from .report import Report, Row


@dataclass(frozen=True)
class Plan:
    """The sizes of a run."""

    cases: tuple[Case, ...] = (*FASTER, Case(250, 32, 1000, 40), Case(4000, 4, 64, 800))
    isas: tuple[str, ...] = ("avx2", "generic")
    policy: Policy = field(default_factory=Policy)

    @classmethod
    def quick(cls) -> Plan:
        """Return about a minute's worth."""
        return cls(cases=tuple(FASTER), isas=("avx2",), policy=Policy(target=0.1, minimum=2, maximum=5, patience=2.0))


State = Session[Plan, Peer, Row]


def run(options: Options) -> Report:
    """Measure all families that are asked for."""
    plan = Plan.quick() if options.quick else Plan()
    report = Report(**conduct("ctc", options, peers.ALL, lambda chosen: State(options, plan, chosen), FAMILIES))
    report.figures = figures(report)
    return report


# ---------------------------------------------------------------- families


def _grid(state: State) -> None:
    """All peers on all shapes, values and gradients."""
    seconds = Predictor()
    for case in state.plan.cases:
        for task in TASKS:
            rows = {
                (peer.name, threads): _planned(state, _row("grid", peer.name, case, task, threads), case, seconds)
                for peer in state.loaded.values()
                for threads in state.options.threads
            }
            running = {key: row for key, row in rows.items() if row.status == "ok"}
            rows |= _timed(list(state.loaded.values()), running, case, state.options.seed, state.plan.policy)
            for row in rows.values():
                if row.time is not None:
                    seconds.record((row.peer, task, row.threads), case.states, row.time.median)
                _add(state, row)


def _isa(state: State) -> None:
    """Lower instruction sets, each in a process that is told to use it, with torch beside."""
    names = [name for name in (OURS, TORCH) if name in state.loaded]
    for isa in state.plan.isas:
        _work(state, "isa", names, list(FASTER), isa)


def _memory(state: State) -> None:
    """Peak memory of a gradient, each in a process of its own: kept workspace would hide memory from the next."""
    for case in FASTER:
        for name in state.loaded:
            _work(state, "memory", [name], [case])


# In this order: what comes late is skipped when the minutes are over.
FAMILIES = {"grid": _grid, "isa": _isa, "memory": _memory}


# ---------------------------------------------------------------- rows


def _row(family: str, peer: str, case: Case, task: str, threads: int, isa: str | None = None) -> Row:
    return Row(family, peer, task, threads, case.batch, case.frames, case.classes, case.labels, isa)


def _planned(state: State, row: Row, case: Case, seconds: Predictor) -> Row:
    """Mark a row as skipped when the limits or the time budget say so."""
    if state.out_of_time is not None:
        return replace(row, status="skipped", reason=state.out_of_time)
    size = 4.0 * case.frames * case.batch * case.classes * 4  # logits, log-probabilities, two gradients
    expected = seconds.predict((row.peer, row.task, row.threads), case.states)
    reason = state.options.limits.reason(expected, size)
    return row if reason is None else replace(row, status="skipped", reason=reason)


def _add(state: State, row: Row) -> None:
    state.rows.append(row)
    found = f"{row.time.median * 1e3:.4g} ms" if row.time else f"{row.extra_bytes} bytes" if row.extra_bytes else ""
    state.say(f"{row.family} {row.shape} {row.task} {row.peer} x{row.threads} {row.isa or ''} {row.status} {found}")


def _timed(
    group: Sequence[Peer], rows: Mapping[tuple[str, int], Row], case: Case, seed: int, policy: Policy
) -> dict[tuple[str, int], Row]:
    """Fill rows by (peer, threads) of one shape and task with times, interleaved, and errors."""
    given = problems.inputs(case, seed)
    found: dict[tuple[str, int], dict[str, float]] = {}

    def job(peer: Peer, row: Row) -> Job:
        def inspect(outcome: tuple[torch.Tensor, ...]) -> None:
            found[row.peer, row.threads] = problems.errors(case, seed, row.task, outcome)

        key = row.peer, row.threads
        return Job(key, peers.call(peer, row.task, given), lambda: packages.set_threads(row.threads), inspect)

    by_name = {peer.name: peer for peer in group}
    times = interleave([job(by_name[name], row) for (name, _), row in rows.items()], policy)
    return {key: _filled(row, times[key], found.get(key, {})) for key, row in rows.items()}


def _filled(row: Row, outcome: Spread | Exception, errors: Mapping[str, Any]) -> Row:
    if isinstance(outcome, Exception):
        reason = f"{type(outcome).__name__}: {outcome}".replace("\n", " ")
        return replace(row, status="failed", reason=reason)
    return replace(row, time=outcome, **errors)


# ---------------------------------------------------------------- in a process of its own


def _work(state: State, family: str, names: Sequence[str], cases: Sequence[Case], isa: str | None = None) -> None:
    """Let a worker process measure gradients of some peers, and add the rows."""
    blank = [_row(family, name, case, "gradient", 1, isa) for case in cases for name in names]
    if state.out_of_time is not None:
        for row in blank:
            _add(state, replace(row, status="skipped", reason=state.out_of_time))
        return
    entries = [{**asdict(case), "peer": name} for case in cases for name in names]
    job = {
        "suite": "ctc",
        "peer": ", ".join(names),
        "peers": list(names),
        "family": family,
        "seed": state.options.seed,
        "policy": asdict(state.plan.policy),
        "limits": asdict(state.options.limits),
        "cases": entries,
    }
    for row, result in zip(blank, results(job, {"DALIGN_ISA": isa} if isa else None), strict=True):
        time = Spread(**result["time"]) if result.get("time") else None
        _add(state, replace(row, **{**result, "time": time}))


def work(job: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Measure gradients in this process: times of some peers that take turns, or peak memory of one.

    Yields
    ------
    dict
        For each case and peer: "time", "error" and "error_gradient", or "extra_bytes"; or "status" and "reason".
    """
    loaded, _ = packages.load([kind for kind in peers.ALL if kind.name in job["peers"]])
    packages.set_threads(1)
    size = len(job["peers"])
    for first in job["cases"][::size]:
        case = Case(**{name: first[name] for name in ("frames", "batch", "classes", "labels")})
        reason = Limits(**job["limits"]).reason(None, 16.0 * case.frames * case.batch * case.classes)
        if reason is not None:
            yield from [{"status": "skipped", "reason": reason}] * size
        elif job["family"] == "memory":
            (peer,) = loaded.values()
            yield {"extra_bytes": _extra_bytes(peer, case, job["seed"])}
        else:
            rows = {(name, 1): _row("isa", name, case, "gradient", 1) for name in loaded}
            done = _timed(list(loaded.values()), rows, case, job["seed"], Policy(**job["policy"]))
            for row in done.values():
                entries = row.to_json()
                yield {name: entries[name] for name in ("status", "reason", "time", "error", "error_gradient")}


def _extra_bytes(peer: Peer, case: Case, seed: int) -> int:
    """Peak memory of one gradient beyond logits and results, after a small one that loads everything."""
    peers.call(peer, "gradient", problems.inputs(Case(20, 2, 5, 3), seed))()
    given = problems.inputs(case, seed)
    extra, outcome = peak_extra_bytes(peers.call(peer, "gradient", given))
    return extra - sum(part.numel() * part.element_size() for part in outcome)
