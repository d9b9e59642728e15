"""The DTW benchmark: which combinations are measured, and how."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from torch import Tensor

from .. import packages
from ..harness import Job, Policy, Spread, interleave, peak_extra_bytes
from ..options import Options
from ..packages import OURS
from ..session import Session, conduct
from ..worker import results
from . import averages, pairs, peers, problems
from .averages import OWN_END, OWN_TARGET, Problem
from .figures import LONGEST, figures
from .pairs import Collection
from .peers import Peer
from .problems import MAIN_DIM, TASKS, Case
from .report import Report, Row

BASELINE = "tslearn"  # whose averages ours are compared with


@dataclass(frozen=True)
class Plan:
    """The sizes of a run."""

    batches: tuple[int, ...] = (1, 16)
    lengths: tuple[int, ...] = (150, 500, 1024, 4096)
    sources: tuple[tuple[str, int], ...] = (("cost", MAIN_DIM), ("features", MAIN_DIM), ("features", 1))
    collections: tuple[Collection, ...] = (Collection(200, 150, None), Collection(200, 150, 15))
    averages: tuple[Problem, ...] = (
        Problem("soft-DTW barycenter", 1.0, 0, 50, 500, 50),
        Problem("DTW barycenter", 0.0, 0, 50, 500, 30),
        Problem("soft-DTW k-means", 1.0, 3, 1000, 150, 10, 5),
        Problem("DTW k-means", 0.0, 3, 1000, 150, 10, 30),
    )
    long_lengths: tuple[int, ...] = (10_000, 20_000, 50_000, LONGEST)
    policy: Policy = field(default_factory=Policy)

    @classmethod
    def quick(cls) -> Plan:
        """Return about a minute's worth, most of which Numba needs to compile."""
        return cls(
            lengths=(150, 1024),
            sources=(("cost", MAIN_DIM), ("features", MAIN_DIM)),
            collections=(Collection(40, 150, None), Collection(40, 150, 15)),
            averages=(
                Problem("soft-DTW barycenter", 1.0, 0, 10, 100, 10),
                Problem("DTW k-means", 0.0, 3, 60, 50, 5, 30),
            ),
            long_lengths=(10_000,),
            policy=Policy(target=0.05, minimum=2, maximum=5, patience=1.0),
        )

    def grid(self) -> Iterator[Case]:
        """Yield the shapes of the grid, small ones first."""
        for length in self.lengths:
            for source, dim in self.sources:
                for batch in self.batches:
                    for task in TASKS:
                        yield Case(task, source, batch, length, dim)


State = Session[Plan, Peer, Row]


def run(options: Options) -> Report:
    """Measure all families that are asked for."""
    plan = Plan.quick() if options.quick else Plan()
    report = Report(**conduct("dtw", options, peers.ALL, lambda chosen: State(options, plan, chosen), FAMILIES))
    report.figures = figures(report, plan.averages)
    return report


# ---------------------------------------------------------------- families


def _grid(state: State) -> None:
    """All peers on all shapes; those that take single pairs alone, on these."""
    for case in state.plan.grid():
        entries = []
        given = problems.inputs(case, state.options.seed)
        for peer in state.loaded.values():
            if peer.offers(case.task, case.source, case.batch):
                entries += [_grid_entry(state, peer, case, given, threads) for threads in _threads(state, peer)]
        _together(state, entries)


def _grid_entry(state: State, peer: Peer, case: Case, given: tuple[Tensor, ...], threads: int) -> Entry:
    def check(outcome: Any) -> dict[str, Any]:
        return {"error": problems.error(peer, case, state.options.seed, outcome)}

    shape = case.task, case.source, threads, case.batch, case.length, case.dim
    return Entry(Row("grid", peer.name, *shape, cells=case.cells), problems.call(peer, case, given), check)


def _pairs(state: State) -> None:
    """Matrices of distances."""
    for collection in state.plan.collections:
        walks = pairs.series(collection, state.options.seed)
        for threads in state.options.threads:
            group = [peer for peer in state.loaded.values() if type(peer).all_pairs is not Peer.all_pairs]
            _together(state, [_pairs_entry(peer, collection, walks, threads) for peer in group])


def _pairs_entry(peer: Peer, collection: Collection, walks: Tensor, threads: int) -> Entry:
    def check(outcome: Any) -> dict[str, Any]:
        return {"error": pairs.error(collection, walks, outcome)}

    row = Row("pairs", peer.name, "all pairs", "features", threads, collection.count, collection.length, 1)
    row = replace(row, band=collection.band, cells=collection.cells)
    return Entry(row, pairs.call(peer, collection, walks, threads), check)


def _averages(state: State) -> None:
    """Barycenters and k-means: tslearn once, ours until its objective and until our own end."""
    for problem in state.plan.averages:
        given = averages.series(problem, state.options.seed)
        target = _of_baseline(state, problem, given) if BASELINE in state.loaded else None
        if OURS in state.loaded:
            _ours(state, problem, given, target, state.options.threads)
            _ours(state, problem, given.double(), target, (1,))


def _of_baseline(state: State, problem: Problem, given: Tensor) -> float | None:
    """Add tslearn's row, and return its objective."""
    row = replace(_averages_row(problem, BASELINE, 1), until=problem.limit, computes="float64")
    packages.set_threads(1)
    if state.out_of_time is not None:
        _add(state, replace(row, status="skipped", reason=state.out_of_time))
        return None
    try:
        found = averages.of_tslearn(problem, given)
    except Exception as error:  # a peer's failure is a result, whatever its type
        _add(state, _failed(row, error))
        return None
    spread = Spread.of([found.seconds])
    _add(state, replace(row, time=spread, objective=found.objective, iterations=found.iterations))
    return found.objective


def _ours(state: State, problem: Problem, given: Tensor, target: float | None, threads: Sequence[int]) -> None:
    """Add our rows, computed in the type of the series."""
    dalign = state.loaded[OURS].dalign  # type: ignore[attr-defined]
    computes = str(given.dtype).removeprefix("torch.")
    rows = [replace(_averages_row(problem, OURS, count), computes=computes) for count in threads]
    entries = [_averages_entry(replace(row, until=OWN_END), dalign, problem, given) for row in rows]
    if target is not None and state.out_of_time is None:
        rows = [replace(row, until=OWN_TARGET) for row in rows]
        iterations = averages.iterations_to(dalign, problem, given, target)
        for row in rows:
            if iterations is None:
                _add(state, replace(row, status="failed", reason=f"from this start {target:.8g} is not reached"))
            else:
                entries.append(_averages_entry(row, dalign, problem, given, max_iter=iterations, tol=0.0))
    _together(state, entries)


def _averages_entry(row: Row, dalign: Any, problem: Problem, given: Tensor, **options: Any) -> Entry:
    def check(fitted: Any) -> dict[str, Any]:
        found = averages.objective(problem, given, averages.centers_of(fitted))
        return {"objective": found, "iterations": fitted.n_iter_}

    return Entry(row, averages.call(dalign, problem, given, **options), check)


def _averages_row(problem: Problem, peer: str, threads: int) -> Row:
    return Row("averages", peer, problem.name, "features", threads, problem.count, problem.length, 1)


def _long(state: State) -> None:
    """Long pairs of ours, each once, in a process of its own: kept workspace would hide memory from the next."""
    if OURS not in state.loaded:
        return
    cases = [Case(task, "features", 1, length, MAIN_DIM) for length in state.plan.long_lengths for task in TASKS]
    for case in cases:
        job = {"suite": "dtw", "peer": OURS, "seed": state.options.seed, "threads": 1, "cases": [asdict(case)]}
        (result,) = results(job)
        row = Row("long", OURS, case.task, case.source, 1, 1, case.length, case.dim, cells=case.cells)
        _add(state, replace(row, **{**result, "time": Spread(**result["time"]) if "time" in result else None}))


# In this order: what comes late is skipped when the minutes are over.
FAMILIES = {"grid": _grid, "pairs": _pairs, "averages": _averages, "long": _long}


# ---------------------------------------------------------------- in this process: peers take turns


@dataclass(frozen=True)
class Entry:
    """One thing to time: the row that it fills, the call, and a check of what it returns, which gives more results."""

    row: Row
    call: Callable[[], Any]
    check: Callable[[Any], dict[str, Any]]


def _threads(state: State, peer: Peer) -> list[int]:
    return [count for count in state.options.threads if peer.max_threads is None or count <= peer.max_threads]


def _together(state: State, entries: Sequence[Entry]) -> None:
    """Time several entries, interleaved, and add their rows."""
    if state.out_of_time is not None:
        for entry in entries:
            _add(state, replace(entry.row, status="skipped", reason=state.out_of_time))
        return
    checked: dict[int, dict[str, Any]] = {}
    times = interleave([_job(index, entry, checked) for index, entry in enumerate(entries)], state.plan.policy)
    for index, entry in enumerate(entries):
        found = times[index]
        if isinstance(found, Exception):
            _add(state, _failed(entry.row, found))
        else:
            _add(state, replace(entry.row, time=found, **checked[index]))


def _job(index: int, entry: Entry, checked: dict[int, dict[str, Any]]) -> Job:
    def prepare() -> None:
        packages.set_threads(entry.row.threads)

    def inspect(outcome: Any) -> None:
        checked[index] = entry.check(outcome)

    return Job(index, entry.call, prepare, inspect)


def _failed(row: Row, error: Exception) -> Row:
    return replace(row, status="failed", reason=f"{type(error).__name__}: {error}".replace("\n", " "))


def _add(state: State, row: Row) -> None:
    state.rows.append(row)
    shape = f"{row.family} {row.task} {row.source} B={row.batch} N={row.length} D={row.dim} {row.peer} x{row.threads}"
    seconds = f"{row.time.median:.4g} s" if row.time else ""
    speed = f"{row.ns_per_cell:.3g} ns per cell" if row.ns_per_cell else ""
    state.say(f"{shape} {row.until or ''} {row.status} {row.reason or ''} {seconds} {speed}")


# ---------------------------------------------------------------- in a process of its own


def work(job: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Measure in this process the time and peak memory of single runs of one peer.

    Yields
    ------
    dict
        For each case: "time" and "extra_bytes".
    """
    peer = next(kind for kind in peers.ALL if kind.name == job["peer"])()
    peer.load()
    packages.set_threads(job["threads"])
    for entry in job["cases"]:
        case = Case(**entry)
        small = replace(case, length=64)
        problems.call(peer, small, problems.inputs(small, job["seed"]))()
        yield _measured(problems.call(peer, case, problems.inputs(case, job["seed"])))


def _measured(solve: Callable[[], Any]) -> dict[str, Any]:
    start = time.perf_counter()
    extra, outcome = peak_extra_bytes(solve)
    seconds = time.perf_counter() - start
    returned = outcome if isinstance(outcome, list) else [outcome]
    own = sum(part.numel() * part.element_size() for part in returned)
    return {"time": asdict(Spread.of([seconds])), "extra_bytes": extra - own}
