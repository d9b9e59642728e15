"""The DTW benchmark's own numbers: answers, checks of peers, equal objectives, figures and the form of its report."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import torch_dalign as dalign
from experiments.bench import antidiagonal, packages, plots, worker
from experiments.bench.dtw import PICTURES, averages, pairs, peers, problems, suite
from experiments.bench.dtw.averages import OWN_END, OWN_TARGET, Problem
from experiments.bench.dtw.figures import LONGEST, figures
from experiments.bench.dtw.pairs import Collection
from experiments.bench.dtw.problems import Case
from experiments.bench.dtw.report import Report, Row
from experiments.bench.harness import Policy, Spread
from experiments.bench.options import Options

RESET_PEAK = Path("/proc/self/clear_refs")
SOURCES = ("features", "cost")


def naive_dtw(cost):
    """The recursion cell by cell."""
    n, m = cost.shape
    value = np.full((n + 1, m + 1), np.inf)
    value[0, 0] = 0
    for i in range(n):
        for j in range(m):
            value[i + 1, j + 1] = cost[i, j] + min(value[i, j + 1], value[i + 1, j], value[i, j])
    return value[n, m]


@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 4), (5, 1), (4, 7), (6, 3), (5, 5)])
def test_plain_version_agrees_with_the_recursion(n, m):
    torch.manual_seed(n * 10 + m)
    cost = torch.rand(3, n, m, dtype=torch.float64)
    expected = [naive_dtw(item) for item in cost.numpy()]
    np.testing.assert_allclose(antidiagonal.dtw(cost), expected, rtol=1e-14)


def test_plain_version_goes_around_blocked_cells():
    cost = torch.rand(1, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    cost[0, 2, 1:] = torch.inf
    np.testing.assert_allclose(antidiagonal.dtw(cost), [naive_dtw(cost[0].numpy())], rtol=1e-14)
    cost[0, 2] = torch.inf
    assert antidiagonal.dtw(cost).item() >= -antidiagonal.NO_PATH


# ---------------------------------------------------------------- peers on small shapes


@pytest.fixture(scope="module")
def loaded():
    """All peers that are installed, ours at least."""
    found, _ = packages.load(peers.ALL)
    assert packages.OURS in found
    return found


@pytest.mark.parametrize("task", problems.TASKS)
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("kind", peers.ALL, ids=lambda kind: kind.name)
def test_peers_answer_right(loaded, kind, source, task):
    if kind.name not in loaded:
        pytest.skip(f"{kind.name} is not installed")
    peer = loaded[kind.name]
    cases = [Case(task, source, batch, 24, dim) for batch, dim in ((1, 3), (1, 1), (3, 3))]
    asked = [case for case in cases if peer.offers(task, source, case.batch)]
    if not asked:
        pytest.skip(f"{kind.name} has no {task} from {source}")
    for case in asked:
        outcome = problems.call(peer, case, problems.inputs(case, seed=1))()
        assert problems.error(peer, case, 1, outcome) < 1e-5


def test_ours_offers_everything_and_others_no_batches():
    assert all(
        peers.Dalign().offers(task, source, batch) for task in problems.TASKS for source in SOURCES for batch in (1, 16)
    )
    assert peers.Tslearn().offers("value", "cost", 1)
    assert not peers.Tslearn().offers("value", "cost", 16)
    assert not peers.Dtaidistance().offers("value", "cost", 1)
    assert not peers.Torchdtw().offers("path", "cost", 16)


def test_errors_are_those_of_the_last_item():
    case = Case("value", "features", 2, 16, 3)
    x, y = problems.inputs(case, seed=3)
    truth = [naive_dtw(cost) for cost in torch.cdist(x.double(), y.double()).square().numpy()]
    assert problems.error(peers.Dalign(), case, 3, torch.tensor(truth)) == pytest.approx(0.0, abs=1e-14)
    wrong = torch.tensor([truth[0], truth[1] * 1.5])
    assert problems.error(peers.Dalign(), case, 3, wrong) == pytest.approx(0.5)
    assert problems.error(peers.Dalign(), case, 3, wrong.flip(0)) > 0.01


def test_a_path_must_be_one():
    case = Case("path", "features", 1, 16, 3)
    diagonal = np.stack([np.arange(16)] * 2, 1)
    assert problems.error(peers.Dalign(), case, 0, diagonal) > 0.01  # a path, but not the best
    for bad in (diagonal[1:], diagonal[:-1], diagonal[::2], diagonal[::-1], np.repeat(diagonal, 2, 0)):
        with pytest.raises(ValueError, match="no path"):
            problems.error(peers.Dalign(), case, 0, bad)


@pytest.mark.parametrize("band", [None, 3])
@pytest.mark.parametrize("kind", [peers.Dalign, peers.Dtaidistance, peers.Tslearn, peers.Aeon], ids=lambda k: k.name)
def test_all_pairs(loaded, kind, band):
    if kind.name not in loaded:
        pytest.skip(f"{kind.name} is not installed")
    collection = Collection(5, 20, band)
    walks = pairs.series(collection, seed=0)
    outcome = pairs.call(loaded[kind.name], collection, walks, threads=1)()
    assert pairs.error(collection, walks, outcome) < 1e-5
    bad = np.asarray(outcome).copy()
    bad[0, 3] *= 1.01
    assert pairs.error(collection, walks, bad) == pytest.approx(0.01, rel=1e-3)


def test_a_band_makes_distances_larger_and_lattices_smaller():
    narrow, free = Collection(5, 20, 1), Collection(5, 20, None)
    walks = pairs.series(free, seed=0)
    assert (pairs.reference(narrow, walks) >= pairs.reference(free, walks)).all()
    assert pairs.reference(narrow, walks).sum() > pairs.reference(free, walks).sum()
    assert free.cells == 10 * 400
    assert narrow.cells == 10 * (20 + 2 * 19)


# ---------------------------------------------------------------- averages


SMALL = [
    Problem("soft-DTW barycenter", 1.0, 0, 6, 20, 5),
    Problem("DTW barycenter", 0.0, 0, 6, 20, 5),
    Problem("soft-DTW k-means", 1.0, 2, 8, 20, 3, 3),
    Problem("DTW k-means", 0.0, 2, 8, 20, 3, 3),
]


@pytest.mark.parametrize("problem", SMALL, ids=lambda problem: problem.name)
def test_objective_is_that_of_the_estimator(problem):
    given = averages.series(problem, seed=0)
    fitted = averages.call(dalign, problem, given, max_iter=2)()
    found = averages.objective(problem, given, averages.centers_of(fitted))
    assert found == pytest.approx(fitted.history_[-1], rel=1e-5, abs=1e-4)
    first = averages.objective(problem, given, averages.start(problem, given))
    assert first == pytest.approx(fitted.history_[0], rel=1e-5, abs=1e-4)
    assert found < first


@pytest.mark.parametrize("problem", SMALL, ids=lambda problem: problem.name)
def test_iterations_to_an_objective(problem):
    given = averages.series(problem, seed=0)
    history = averages.call(dalign, problem, given, max_iter=2 * problem.iterations, tol=0.0)().history_
    assert averages.iterations_to(dalign, problem, given, history[0] + 1.0) == 0
    assert averages.iterations_to(dalign, problem, given, (history[0] + history[1]) / 2) == 1
    assert averages.iterations_to(dalign, problem, given, history[-1] - 1.0) is None


def test_tslearn_gets_the_same_problem():
    pytest.importorskip("tslearn")
    problem = SMALL[1]
    given = averages.series(problem, seed=0)
    ours = averages.call(dalign, problem, given, max_iter=problem.iterations)()
    found = averages.of_tslearn(problem, given)
    assert found.objective == pytest.approx(averages.objective(problem, given, averages.centers_of(ours)), rel=1e-3)


# ---------------------------------------------------------------- the suite


class Wrong(peers.Dalign):
    """Its values are a tenth too large, and it has no paths."""

    name = "wrong"

    def value_from_features(self, x, y):
        return super().value_from_features(x, y) * 1.1

    def path_from_features(self, x, y):
        raise RuntimeError("no paths")


@pytest.fixture
def state():
    """A short run of ours and of a bad peer."""
    found, _ = packages.load([peers.Dalign, Wrong])
    plan = suite.Plan(
        batches=(1, 2),
        lengths=(8,),
        sources=(("features", 2),),
        collections=(Collection(4, 10, 2),),
        averages=(SMALL[1],),
        long_lengths=(40,),
        policy=Policy(target=0.0, minimum=2, maximum=2, patience=0.1),
    )
    return suite.State(Options(threads=(1,)), plan, found)


def test_grid_rows_tell_time_and_error(state):
    suite._grid(state)
    rows = {(row.peer, row.task, row.batch): row for row in state.rows}
    assert len(rows) == 8
    ours = rows["dalign", "value", 2]
    assert (ours.status, ours.cells) == ("ok", 128)
    assert 0 < ours.time.minimum <= ours.time.median
    assert ours.ns_per_cell == pytest.approx(ours.time.median * 1e9 / 128)
    assert ours.error < 1e-6
    assert rows["wrong", "value", 1].error == pytest.approx(0.1, rel=1e-4)
    assert rows["wrong", "path", 1].status == "failed"
    assert rows["wrong", "path", 1].reason == "RuntimeError: no paths"


def test_pairs_and_averages_without_tslearn(state):
    suite._pairs(state)
    suite._averages(state)
    found = {(row.family, row.peer): row for row in state.rows}
    assert found["pairs", "dalign"].error < 1e-5
    assert found["pairs", "dalign"].band == 2
    alone = found["averages", "dalign"]
    assert (alone.until, alone.status) == (OWN_END, "ok")
    assert alone.objective > 0
    assert alone.iterations > 0


def test_an_objective_that_is_never_reached_is_told(state):
    suite._ours(state, SMALL[1], averages.series(SMALL[1], 0), target=-1.0, threads=(1,))
    failed = next(row for row in state.rows if row.until == OWN_TARGET)
    assert (failed.status, failed.reason) == ("failed", "from this start -1 is not reached")


def test_when_the_time_budget_is_over_the_rest_is_marked(state):
    state.options = Options(minutes=-1.0, threads=(1,))
    for measure in (suite._grid, suite._pairs):
        measure(state)
    assert {row.status for row in state.rows} == {"skipped"}
    assert {row.reason for row in state.rows} == {"the -1 minutes of the run were over"}


@pytest.mark.skipif(not RESET_PEAK.exists(), reason="peak memory is read from Linux's /proc")
def test_long_pairs_are_measured_in_a_process_of_their_own(state):
    state.plan = replace(state.plan, long_lengths=(2000,))
    suite._long(state)
    value, path = state.rows
    assert (value.task, path.task) == ("value", "path")
    assert path.status == "ok"
    assert path.time.repeats == 1
    assert path.extra_bytes < 2000**2  # less than a byte for each cell


def test_worker_process_that_ends_badly_fails_all_its_cases():
    case = {"task": "value", "source": "features", "batch": 1, "length": 8, "dim": 2}
    job = {"suite": "dtw", "peer": "nobody", "seed": 0, "threads": 1, "cases": [case, case]}
    assert [entry["status"] for entry in worker.results(job)] == ["failed", "failed"]


# ---------------------------------------------------------------- report


def timed(family, peer, task, seconds, **more):
    spread = Spread(seconds * 0.9, seconds, seconds * 1.2, 5)
    row = {"source": "features", "threads": 1, "batch": 1, "length": 1024, "dim": 12, "time": spread}
    return Row(family, peer, task, **{**row, **more})


@pytest.fixture
def report():
    names = [kind.name for kind in peers.ALL]
    present = [{"name": name, "version": "1", "computes": "float32", "missing": None} for name in names]
    machine = {"cpu": "a processor", "cores": 2, "dalign": {"isa": "avx512"}}
    found = Report("dtw", "2000-01-01 00:00 UTC", 60.0, {"seed": 0}, machine, present)
    cells = 1024**2
    average = {"batch": 50, "length": 500, "dim": 1, "objective": 12.345678, "computes": "float64"}
    found.rows = [
        timed("grid", "dalign", "value", cells * 0.8e-9, cells=cells, error=1e-7),
        timed("grid", "tslearn", "value", cells * 8e-9, cells=cells, error=0.0),
        timed("grid", "dalign", "value", cells * 0.7e-9, cells=cells, source="cost"),
        timed("grid", "dalign", "path", cells * 2e-9, cells=cells),
        timed("grid", "tslearn", "path", cells * 1e-9, cells=cells),
        Row("grid", "aeon", "path", "features", 1, 1, 1024, 12, status="failed", reason="MemoryError: no room"),
        timed("pairs", "dalign", "all pairs", 1.0, band=15, cells=10**6, error=1e-7),
        timed("pairs", "aeon", "all pairs", 3.0, band=15, cells=10**6, error=0.0),
        timed("averages", "tslearn", "DTW barycenter", 12.0, until="at most 30 iterations", **average),
        timed("averages", "dalign", "DTW barycenter", 0.5, until=OWN_TARGET, iterations=7, **average),
        timed("averages", "dalign", "DTW barycenter", 0.1, until=OWN_END, iterations=3, **average),
        timed("long", "dalign", "path", 50.0, length=LONGEST, cells=LONGEST**2, extra_bytes=2**29),
    ]
    found.figures = figures(found, (Problem("DTW barycenter", 0.0, 0, 50, 500, 30), SMALL[2]))
    return found


def test_figures_are_read_from_the_rows(report):
    def only(*parts):
        (figure,) = [figure for figure in report.figures if all(part in figure.name for part in parts)]
        return figure

    assert only("ns per cell", "features").verdict == "reached"
    assert only("ns per cell", "given cost").measured == pytest.approx(0.7)
    assert only("ns per cell", "given cost").verdict == "missed"
    assert only("fastest peer, value from features, D = 12").measured == pytest.approx(10.0)
    assert only("fastest peer, path from features, D = 12").verdict == "missed"
    assert only("fastest peer, value from a given cost").verdict == "not measured"
    assert only("tslearn", "DTW barycenter of 50").measured == pytest.approx(24.0)
    assert only("tslearn", "soft-DTW k-means").verdict == "not measured"
    assert only("GiB").measured == pytest.approx(0.5)
    assert only("all pairs").measured == pytest.approx(3.0)


def test_report_survives_json(report, tmp_path):
    report.write(tmp_path)
    entries = json.loads((tmp_path / "dtw.json").read_text())
    assert Report.from_json(entries) == report
    assert entries["rows"][0]["ns_per_cell"] == pytest.approx(0.8)


def test_tables_show_everything(report):
    text = report.markdown()
    assert "| B | N = M | dalign | tslearn | aeon |" in text
    assert "| 1 | 1024 | 2 | 1 | failed: MemoryError: no room |" in text
    assert "| tslearn | float64 | at most 30 iterations | 1 | 12 | 12.345678 |  |" in text
    assert f"| dalign | float64 | {OWN_TARGET} | 1 | 0.5 | 12.345678 | 7 |" in text
    assert "band of 15 frames to each side, 1 thread" in text
    assert "| path | 100000 | 1 | 50 | 5 | 512 |" in text


def test_pictures_are_drawn(report, tmp_path):
    pytest.importorskip("matplotlib")
    drawn = plots.draw(report, tmp_path, PICTURES)
    assert [path.name for path in drawn] == [f"dtw_{name}.png" for name in PICTURES]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in drawn)
