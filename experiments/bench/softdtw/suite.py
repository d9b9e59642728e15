"""The soft-DTW benchmark: which combinations are measured, and how."""

from __future__ import annotations

import math
import time
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from torch import Tensor

from .. import packages
from ..harness import Job, Limits, Policy, Predictor, Spread, interleave, peak_extra_bytes
from ..options import Options
from ..packages import OURS
from ..session import Session, conduct
from ..worker import results
from . import peers, problems
from .figures import figures
from .peers import Outcome, Peer
from .problems import MAIN_DIM, Case
from .report import Report, Row

DIRECTIONS = {"forward": False, "forward_backward": True}
LONGEST_ON_THREADS = 32768
PROBE_LENGTH = 512  # long enough that the memory of the lattice shows


@dataclass(frozen=True)
class Plan:
    """The sizes of a run."""

    batches: tuple[int, ...] = (1, 16, 64)
    lengths: tuple[int, ...] = (64, 256, 1024, 4096)
    dims: tuple[int, ...] = (MAIN_DIM, 1, 64, 128)
    memory_lengths: tuple[int, ...] = (1024, 4096, 8192)
    growth_lengths: tuple[int, ...] = (1024, 2048, 4096, 8192, 16384, 32768, 65536, 100_000)
    gammas: tuple[float, ...] = (0.1, 0.01)
    long_pair: int = 8192
    first: tuple[Case, ...] = ()  # shapes of the grid that its product of sizes lacks
    policy: Policy = field(default_factory=Policy)

    @classmethod
    def quick(cls) -> Plan:
        """Return about a minute's worth."""
        return cls(
            batches=(1, 16),
            lengths=(64, 256),
            dims=(MAIN_DIM,),
            memory_lengths=(1024,),
            growth_lengths=(1024, 4096),
            gammas=(0.01,),
            long_pair=2048,
            first=tuple(Case("features", batch, 1024, MAIN_DIM) for batch in (1, 16)),  # of the figures to reach
            policy=Policy(target=0.05, minimum=2, maximum=5, patience=1.0),
        )

    def grid(self) -> Iterator[Case]:
        """Yield the shapes of the grid, small ones first: the time budget cuts the large ones.

        Given costs come once, since they have no D.
        """
        yield from self.first
        kinds = [("features", dim) for dim in self.dims] + [("cost", self.dims[0])]
        shapes = [(length, batch) for length in self.lengths for batch in self.batches]
        for length, batch in sorted(shapes, key=lambda shape: shape[0] ** 2 * shape[1]):
            for source, dim in kinds:
                yield Case(source, batch, length, dim)


@dataclass
class Run(Session[Plan, Peer, Row]):
    """The state of a run, with what was needed so far."""

    seconds: Predictor = field(default_factory=Predictor)
    bytes: Predictor = field(default_factory=Predictor)


def run(options: Options) -> Report:
    """Measure all families that are asked for."""

    def begin(chosen: dict[str, Peer]) -> Run:
        for peer in chosen.values():
            _warm_up(peer, options.seed)
        return Run(options, Plan.quick() if options.quick else Plan(), chosen)

    report = Report(**conduct("softdtw", options, peers.ALL, begin, FAMILIES))
    report.figures = figures(report, (Plan.quick() if options.quick else Plan()).long_pair)
    return report


def _warm_up(peer: Peer, seed: int) -> None:
    for source in ("features", "cost"):
        for batch in (1, 2):  # layouts differ, and compilers specialise on them
            case = Case(source, batch, 8, 3)
            problems.call(peer, case, problems.inputs(case, seed), backward=True)()


# ---------------------------------------------------------------- families


def _memory(state: Run) -> None:
    """Peak memory of every peer; the smallest size of each kind also feeds the predictions."""
    probes = [Case("features", 1, PROBE_LENGTH, dim) for dim in state.plan.dims]
    probes.append(Case("cost", 1, PROBE_LENGTH, MAIN_DIM))
    sources = ("features", "cost")
    longer = [Case(source, 1, length, MAIN_DIM) for source in sources for length in state.plan.memory_lengths]
    for name in state.loaded:
        _work(state, "memory", name, [*probes, *longer], threads=1, times=False)


def _probe(state: Run) -> None:
    """Measure memory for the predictions of the grid, when it has not been done."""
    if not any(row.family == "memory" for row in state.rows):
        state.plan, plan = replace(state.plan, memory_lengths=()), state.plan
        _memory(state)
        state.plan = plan


def _grid(state: Run) -> None:
    """All peers on all shapes."""
    _probe(state)
    for case in state.plan.grid():
        _together(state, "grid", case, state.loaded.values(), state.options.threads)


def _gamma(state: Run) -> None:
    """Small gamma, where float32 gradients go wrong."""
    _probe(state)
    for gamma in state.plan.gammas:
        for length in state.plan.lengths:
            _together(state, "gamma", Case("features", 1, length, MAIN_DIM, gamma), state.loaded.values(), (1,))


def _threads(state: Run) -> None:
    """One long pair on several threads."""
    if OURS in state.loaded:
        case = Case("features", 1, state.plan.long_pair, MAIN_DIM)
        _together(state, "threads", case, [state.loaded[OURS]], state.options.threads)


def _isa(state: Run) -> None:
    """Lower instruction sets, each in a process that is told to use it."""
    if OURS in state.loaded:
        cases = [Case("features", batch, 1024, MAIN_DIM) for batch in (1, 16)]
        for isa in ("avx2", "generic"):
            _work(state, "isa", OURS, cases, threads=1, isa=isa)


def _growth(state: Run) -> None:
    """Time and memory of one fused pair as it grows."""
    if OURS in state.loaded:
        cases = [Case("features", 1, length, MAIN_DIM) for length in state.plan.growth_lengths]
        for threads in state.options.threads:
            # The longest take minutes: once, on one thread, is enough to see how time and memory grow.
            own = [case for case in cases if threads == 1 or case.length <= LONGEST_ON_THREADS]
            _work(state, "growth", OURS, own, threads)


# In this order; the grid last, since the time budget cuts its end.
FAMILIES = {"memory": _memory, "threads": _threads, "isa": _isa, "growth": _growth, "gamma": _gamma, "grid": _grid}


# ---------------------------------------------------------------- in this process: peers take turns


def _together(state: Run, family: str, case: Case, group: Iterable[Peer], threads: Sequence[int]) -> None:
    """Time several peers on one shape, interleaved, and add their rows."""
    rows = {
        (peer, count): _planned(state, family, peer, case, count)
        for peer in group
        for count in threads
        if peer.max_threads is None or count <= peer.max_threads
    }
    checks: dict[tuple[str, int], tuple[float, float]] = {}
    running = [key for key, row in rows.items() if row.status == "ok"]
    given = problems.inputs(case, state.options.seed) if running else ()
    times = interleave([job for key in running for job in _jobs(state, *key, case, given, checks)], state.plan.policy)
    for peer, count in running:
        own = {name: times[peer.name, count, name] for name in DIRECTIONS}
        row = rows[peer, count] = _filled(rows[peer, count], own, checks.get((peer.name, count)))
        if row.forward_backward is not None:
            state.seconds.record(_kind(peer, case, count), case.cells, row.forward_backward.median)
    state.rows += rows.values()
    state.say(_summary(case, rows.values()))


def _planned(state: Run, family: str, peer: Peer, case: Case, threads: int) -> Row:
    """Return a row without results, marked as skipped when the limits or the time budget say so."""
    row = _row(family, peer.name, case, threads)
    if state.out_of_time is not None:
        return replace(row, status="skipped", reason=state.out_of_time)
    seconds = state.seconds.predict(_kind(peer, case, threads), case.cells)
    reason = state.options.limits.reason(seconds, _predicted_bytes(state.bytes, peer.name, case))
    return row if reason is None else replace(row, status="skipped", reason=reason)


def _jobs(
    state: Run,
    peer: Peer,
    threads: int,
    case: Case,
    given: tuple[Tensor, ...],
    checks: dict[tuple[str, int], tuple[float, float]],
) -> list[Job]:
    """Return the forward job and the forward+backward job of a peer; the first run of the latter is checked."""

    def check(outcome: Outcome) -> None:
        checks[peer.name, threads] = problems.errors(case, state.options.seed, outcome)

    def prepare() -> None:
        packages.set_threads(threads)

    expected = state.seconds.predict(_kind(peer, case, threads), case.cells)
    key = peer.name, threads
    forward, both = (problems.call(peer, case, given, backward) for backward in DIRECTIONS.values())
    return [
        Job((*key, "forward"), forward, prepare, expected=expected),
        Job((*key, "forward_backward"), both, prepare, check, expected),
    ]


def _kind(peer: Peer, case: Case, threads: int) -> Hashable:
    """Return what must agree for one run's time to predict another's."""
    return peer.name, case.source, case.dim, threads


def _predicted_bytes(seen: Predictor, peer: str, case: Case) -> float | None:
    extra = seen.predict((peer, case.source, case.dim), case.cells)
    return None if extra is None else extra + case.input_bytes + case.output_bytes


def _filled(row: Row, times: Mapping[str, Spread | Exception], check: tuple[float, float] | None) -> Row:
    """Return the row with its results, or with the first failure."""
    spreads = {}
    for name, result in times.items():
        if isinstance(result, Exception):
            return replace(row, status="failed", reason=f"{type(result).__name__}: {result}")
        spreads[name] = result
    value_error, gradient_error = check or (math.inf, math.inf)
    return replace(
        row,
        reason=None if math.isfinite(value_error + gradient_error) else "value or gradient is not finite",
        forward=spreads["forward"],
        forward_backward=spreads["forward_backward"],
        value_error=_finite(value_error),
        gradient_error=_finite(gradient_error),
    )


def _finite(number: float) -> float | None:
    """Return the number if JSON can hold it."""
    return number if math.isfinite(number) else None


def _row(family: str, peer: str, case: Case, threads: int, isa: str | None = None) -> Row:
    return Row(family, peer, case.source, threads, case.batch, case.length, case.dim, case.gamma, isa=isa)


def _summary(case: Case, rows: Iterable[Row]) -> str:
    def short(row: Row) -> str:
        speed = row.ns_per_cell("forward_backward")
        return f"{row.peer} x{row.threads} {row.status if speed is None else f'{speed:.3g}'}"

    shape = f"{case.source} B={case.batch} N={case.length} D={case.dim} gamma={case.gamma:g}"
    return f"{shape}, ns per cell: " + ", ".join(map(short, rows))


# ---------------------------------------------------------------- in a process of its own


def _work(
    state: Run,
    family: str,
    peer: str,
    cases: Sequence[Case],
    threads: int,
    isa: str | None = None,
    times: bool = True,
) -> None:
    """Let a worker process measure some cases of a peer, and add the rows."""
    job = {
        "suite": "softdtw",
        "peer": peer,
        "cases": [asdict(case) for case in cases],
        "threads": threads,
        "times": times,
        "seed": state.options.seed,
        "limits": asdict(state.options.limits),
        "policy": asdict(state.plan.policy),
    }
    for case, result in zip(cases, results(job, {"DALIGN_ISA": isa} if isa else None), strict=True):
        _add(state, _row(family, peer, case, threads, isa), case, result)


def _add(state: Run, row: Row, case: Case, result: Mapping[str, Any]) -> None:
    times = {name: Spread(**result[name]) for name in DIRECTIONS if result.get(name)}
    row = replace(row, **{**result, **times})
    state.rows.append(row)
    if row.extra_bytes is not None:
        state.bytes.record((row.peer, case.source, case.dim), case.cells, max(row.extra_bytes, 0))
    state.say(f"{row.family} {row.isa or ''} {_summary(case, [row])}, bytes per cell: {row.bytes_per_cell}")


def work(job: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Measure in this process what a job asks for: peak memory and times of some cases of one peer.

    Yields
    ------
    dict
        For each case: "extra_bytes", and with job["times"] the spreads; or "status" and "reason".
    """
    kind = next(kind for kind in peers.ALL if kind.name == job["peer"])
    peer = kind()
    peer.load()
    packages.set_threads(job["threads"])
    _warm_up(peer, job["seed"])
    limits, policy = Limits(**job["limits"]), Policy(**job["policy"])
    seconds, sizes = Predictor(), Predictor()
    for entry in job["cases"]:
        case = Case(**entry)
        about = (case.source, case.dim)
        reason = limits.reason(seconds.predict(about, case.cells), _predicted_bytes(sizes, peer.name, case))
        if reason is not None:
            yield {"status": "skipped", "reason": reason}
            continue
        given = problems.inputs(case, job["seed"])
        start = time.perf_counter()
        extra = extra_bytes(problems.call(peer, case, given, backward=True))
        seconds.record(about, case.cells, time.perf_counter() - start)
        sizes.record((peer.name, *about), case.cells, extra)
        yield {"extra_bytes": extra, **(_timed(peer, case, given, policy) if job["times"] else {})}


def extra_bytes(solve: Any) -> int:
    """Return the peak memory of a run beyond what it returns."""
    extra, outcome = peak_extra_bytes(solve)
    returned = [outcome.value, *outcome.gradients]
    return extra - sum(part.numel() * part.element_size() for part in returned)


def _timed(peer: Peer, case: Case, given: tuple[Tensor, ...], policy: Policy) -> dict[str, Any]:
    jobs = [Job(name, problems.call(peer, case, given, backward)) for name, backward in DIRECTIONS.items()]
    spreads: dict[str, Any] = {}
    for name, spread in interleave(jobs, policy).items():
        if isinstance(spread, Exception):
            return {"status": "failed", "reason": f"{type(spread).__name__}: {spread}"}
        spreads[str(name)] = asdict(spread)
    return spreads
