"""The benchmark's own numbers: statistics, skipping, missing peers, memory, and the form of its report."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from experiments.bench import antidiagonal, packages, plots, suites, worker
from experiments.bench.harness import Job, Limits, Policy, Predictor, Spread, interleave, peak_extra_bytes
from experiments.bench.options import RESULTS, Options
from experiments.bench.report import Figure
from experiments.bench.softdtw import PICTURES, peers, problems, suite
from experiments.bench.softdtw.figures import figures
from experiments.bench.softdtw.problems import Case
from experiments.bench.softdtw.report import Report, Row

RESET_PEAK = Path("/proc/self/clear_refs")


class Clock:
    """A clock that only the jobs move."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def job(self, key, *durations, **options):
        """A job whose runs take these times, the last one from then on."""
        left = list(durations)

        def run():
            self.now += left.pop(0) if len(left) > 1 else left[0]
            return key

        return Job(key, run, **options)


def test_spread_is_minimum_median_maximum_and_count():
    assert Spread.of([4.0, 1.0, 2.0, 9.0]) == Spread(1.0, 3.0, 9.0, 4)
    with pytest.raises(ValueError, match="at least one sample"):
        Spread.of([])


@pytest.mark.parametrize(("once", "repeats"), [(1e-6, 30), (0.0, 30), (0.02, 15), (0.9, 3), (1.4, 2), (60.0, 1)])
def test_repeats_fall_with_the_time_of_a_run(once, repeats):
    assert Policy(target=0.3, minimum=3, maximum=30, patience=3.0).repeats(once) == repeats


def test_prediction_is_the_largest_smaller_run_in_proportion():
    predictor = Predictor()
    assert predictor.predict("a", 100) is None
    predictor.record("a", 10, 1.0)
    predictor.record("a", 100, 5.0)
    assert predictor.predict("a", 200) == 10.0
    assert predictor.predict("a", 50) == 5.0
    assert predictor.predict("a", 5) == 0.5
    assert predictor.predict("b", 100) is None


def test_limits_name_what_is_exceeded():
    limits = Limits(seconds=60, gibibytes=8)
    assert limits.reason(60.0, 8 * 2**30) is None
    assert limits.reason(None, None) is None
    assert limits.reason(61.0, None) == "predicted 61 s > 60 s"
    assert limits.reason(1e9, 9 * 2**30) == "predicted 9.0 GiB > 8 GiB"


def test_first_short_run_is_thrown_away():
    clock = Clock()
    times = interleave([clock.job("a", 0.5, 0.1)], Policy(target=0.3, minimum=3), clock)
    assert times["a"].repeats == 3
    assert times["a"].maximum == pytest.approx(0.1)


def test_long_first_run_counts_only_when_it_was_expected():
    clock = Clock()
    jobs = [clock.job("expected", 5.0, 4.0, expected=4.5), clock.job("compiled", 50.0, 4.0, expected=4.5)]
    times = interleave([*jobs, clock.job("unknown", 50.0, 4.0)], Policy(patience=3.0), clock)
    assert times["expected"] == Spread(5.0, 5.0, 5.0, 1)
    assert times["compiled"].maximum == pytest.approx(4.0)
    assert times["unknown"].maximum == pytest.approx(4.0)


def test_jobs_take_turns_and_another_goes_first():
    order = []
    clock = Clock()
    jobs = [clock.job(key, 0.1, prepare=lambda key=key: order.append(key)) for key in "abc"]
    interleave(jobs, Policy(target=0.3, minimum=3, maximum=3), clock)
    assert "".join(order) == "abc" + "abc" + "bca" + "cab"


def test_a_failing_job_does_not_stop_the_others():
    def fail():
        raise MemoryError("no room")

    seen = []
    clock = Clock()
    times = interleave([Job("bad", fail), clock.job("good", 0.1, inspect=seen.append)], Policy(), clock)
    assert isinstance(times["bad"], MemoryError)
    assert times["good"].median == pytest.approx(0.1)
    assert seen == ["good"]


@pytest.mark.skipif(not RESET_PEAK.exists(), reason="peak memory is read from Linux's /proc")
def test_peak_memory_sees_what_is_freed_again():
    def run():
        torch.ones(16 * 2**20).sum()  # 64 MiB, gone at the end
        return torch.ones(2**20)

    extra, kept = peak_extra_bytes(run)
    assert kept.shape == (2**20,)
    assert 60 * 2**20 < extra < 90 * 2**20
    again, _ = peak_extra_bytes(lambda: None)
    assert again < 8 * 2**20


def naive_soft_dtw(cost, gamma):
    """The recursion cell by cell."""
    n, m = cost.shape
    value = {}
    for i in range(n):
        for j in range(m):
            before = [value[at] for at in ((i - 1, j), (i, j - 1), (i - 1, j - 1)) if at in value]
            soft = -gamma * torch.logsumexp(torch.stack(before) / -gamma, 0) if before else 0.0
            value[i, j] = cost[i, j] + soft
    return value[n - 1, m - 1]


@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 4), (5, 1), (4, 7), (6, 3), (5, 5)])
def test_plain_version_agrees_with_the_recursion(n, m):
    torch.manual_seed(n * 10 + m)
    cost = torch.rand(3, n, m, dtype=torch.float64, requires_grad=True)
    value = antidiagonal.soft_dtw(cost, 0.1)
    expected = torch.stack([naive_soft_dtw(item, 0.1) for item in cost])
    torch.testing.assert_close(value, expected)
    gradient, slow = (torch.autograd.grad(total.sum(), cost)[0] for total in (value, expected))
    torch.testing.assert_close(gradient, slow)


def test_squared_distances():
    x, y = torch.rand(2, 5, 3, dtype=torch.float64), torch.rand(2, 4, 3, dtype=torch.float64)
    torch.testing.assert_close(antidiagonal.squared_distances(x, y), torch.cdist(x, y) ** 2)


def test_an_item_is_the_same_in_every_batch():
    small, large = (problems.inputs(Case("features", batch, 8, 3), seed=5) for batch in (2, 4))
    assert all(torch.equal(part, whole[:2]) for part, whole in zip(small, large, strict=True))
    assert not torch.equal(large[0][0], large[0][1])
    assert not torch.equal(large[0], large[1])
    (cost,) = problems.inputs(Case("cost", 2, 8, 3), seed=5)
    torch.testing.assert_close(cost, antidiagonal.squared_distances(*small))


def test_case_counts_cells_and_bytes():
    features, cost = Case("features", 2, 100, 3), Case("cost", 2, 100, 3)
    assert features.cells == cost.cells == 20_000
    assert features.input_bytes == 2 * 2 * 100 * 3 * 4
    assert cost.input_bytes == 80_000
    assert cost.output_bytes == 80_000 + 8


class Absent(peers.Peer):
    name = "absent"

    def load(self):
        raise ImportError("No module named 'absent'")


class Wrong(peers.PlainTorch):
    """Fails on costs, and its gradient of features is off by a tenth."""

    name = "wrong"

    def from_features(self, x, y, gamma, backward):
        value, gradients = super().from_features(x, y, gamma, backward)
        return peers.Outcome(value, tuple(gradient * 1.1 for gradient in gradients))

    def from_cost(self, cost, gamma, backward):
        raise RuntimeError("no costs")


class Endless(peers.PlainTorch):
    name = "endless"

    def from_features(self, x, y, gamma, backward):
        value, gradients = super().from_features(x, y, gamma, backward)
        return peers.Outcome(value * math.nan, gradients)


def test_a_missing_peer_is_reported_and_not_fatal():
    loaded, presences = packages.load([Absent, peers.PlainTorch])
    assert list(loaded) == [peers.PLAIN]
    assert [presence.missing for presence in presences] == ["ImportError: No module named 'absent'", None]


@pytest.fixture
def state():
    """A run that knows the plain version and two bad ones, and keeps it short."""
    loaded, _ = packages.load([peers.PlainTorch, Wrong, Endless])
    plan = suite.Plan(policy=Policy(target=0.0, minimum=2, maximum=2, patience=0.1))
    return suite.Run(Options(threads=(1,)), plan, loaded)


def measured(state, case):
    suite._together(state, "grid", case, state.loaded.values(), (1,))
    return {row.peer: row for row in state.rows if row.source == case.source and row.length == case.length}


def test_rows_tell_time_and_error(state):
    rows = measured(state, Case("features", 2, 8, 3))
    plain = rows[peers.PLAIN]
    assert plain.status == "ok"
    assert 0 < plain.forward.minimum <= plain.forward.median <= plain.forward.maximum
    assert plain.ns_per_cell("forward") == pytest.approx(plain.forward.median * 1e9 / (2 * 8 * 8))
    assert plain.value_error < 1e-5
    assert plain.gradient_error < 1e-4
    assert rows["wrong"].value_error == plain.value_error
    assert rows["wrong"].gradient_error == pytest.approx(0.1, rel=0.01)
    assert rows["endless"].value_error is None
    assert rows["endless"].reason == "value or gradient is not finite"


def test_a_failing_peer_has_a_failed_row(state):
    rows = measured(state, Case("cost", 1, 8, 3))
    assert rows[peers.PLAIN].status == "ok"
    assert (rows["wrong"].status, rows["wrong"].reason) == ("failed", "RuntimeError: no costs")


def test_a_combination_beyond_the_limits_is_skipped_and_marked(state):
    first = measured(state, Case("features", 1, 4, 3))
    state.options = Options(limits=Limits(seconds=1e-9))
    second = measured(state, Case("features", 1, 8, 3))
    assert all(row.status == "ok" for row in first.values())
    assert all(row.status == "skipped" and "predicted" in row.reason for row in second.values())
    assert all(row.forward is None for row in second.values())


def test_memory_counts_inputs_and_gradients(state):
    state.bytes.record((peers.PLAIN, "cost", 3), 64, 64 * 100)
    state.options = Options(limits=Limits(gibibytes=(256 * 107) / 2**30))
    assert measured(state, Case("cost", 1, 16, 3))[peers.PLAIN].status == "skipped"


def test_when_the_time_budget_is_over_the_rest_is_marked(state):
    state.options = Options(minutes=-1.0)
    row = measured(state, Case("features", 1, 4, 3))[peers.PLAIN]
    assert (row.status, row.reason) == ("skipped", "the -1 minutes of the run were over")


def job(**changes):
    cases = [{"source": "features", "batch": 1, "length": length, "dim": 3, "gamma": 1.0} for length in (256, 4096)]
    limits = {"seconds": 60.0, "gibibytes": 0.1}
    policy = {"target": 0.0, "minimum": 1, "maximum": 1, "patience": 0.1}
    common = {"suite": "softdtw", "peer": peers.PLAIN, "cases": cases, "threads": 1, "times": True, "seed": 0}
    return {**common, "limits": limits, "policy": policy, **changes}


@pytest.mark.skipif(not RESET_PEAK.exists(), reason="peak memory is read from Linux's /proc")
def test_worker_process_measures_and_skips():
    short, long = worker.run_in_process(job())
    assert 10 * 256**2 < short["extra_bytes"] < 500 * 256**2
    assert short["forward_backward"]["minimum"] > 0
    assert long["status"] == "skipped"
    assert "GiB" in long["reason"]


def test_worker_process_that_ends_badly_is_told():
    with pytest.raises(RuntimeError, match="process of nobody ended with status 1"):
        list(worker.run_in_process(job(peer="nobody")))


def test_unknown_suite_is_named():
    with pytest.raises(ValueError, match=f"expected one of {', '.join(suites.NAMES)}, got 'softddtw'"):
        suites.find("softddtw")


def test_only_chooses_families_or_peers():
    options = Options(only=frozenset({"grid"}))
    assert options.wants("grid", ("grid", "growth"))
    assert not options.wants("growth", ("grid", "growth"))
    assert options.wants("pysdtw", ("dalign", "pysdtw"))


def test_figure_verdicts():
    assert Figure("time", 3.2, 3.5, 3.0).verdict == "reached"
    assert Figure("time", 2.9, 3.5, 3.0).verdict == "goal reached"
    assert Figure("time", 3.6, 3.5, 3.0).verdict == "missed"
    assert Figure("ratio", 21.0, 22.0, 30.0, higher_is_better=True).verdict == "missed"
    assert Figure("ratio", 31.0, 22.0, 30.0, higher_is_better=True).verdict == "goal reached"
    assert Figure("ratio", None, 22.0).verdict == "not measured"
    assert Figure("ratio", 5.0).verdict == ""


def timed_row(family, peer, ns, length=1024, batch=16, threads=1, **more):
    seconds = ns * 1e-9 * batch * length**2
    spread = Spread(seconds * 0.9, seconds, seconds * 1.2, 5)
    row = {"source": "features", "batch": batch, "length": length, "dim": 12, "gamma": 1.0, "gradient_error": 1e-5}
    return Row(family, peer, threads=threads, forward=spread, forward_backward=spread, **{**row, **more})


@pytest.fixture
def report():
    names = [kind.name for kind in peers.ALL]
    present = [{"name": name, "version": "1", "computes": "float32", "missing": None} for name in names]
    machine = {"cpu": "a processor", "cores": 2, "dalign": {"isa": "avx512"}}
    found = Report("softdtw", "2000-01-01 00:00 UTC", 60.0, {"seed": 0}, machine, present)
    speeds = {"dalign": 2.9, "pysdtw": 90.0, "tslearn": 120.0, peers.PLAIN: 60.0, "soft-dtw": 30.0}
    found.rows = [
        *(timed_row("grid", peer, ns) for peer, ns in speeds.items()),
        timed_row("grid", "dalign", 1.6, threads=2),
        timed_row("isa", "dalign", 7.0, isa="avx2"),
        timed_row("growth", "dalign", 3.0, length=4096, batch=1, extra_bytes=4096**2 // 2),
        timed_row("growth", "dalign", 3.0, length=32768, batch=1, extra_bytes=32768**2 // 5),
        Row("grid", "tslearn", "features", 1, 64, 4096, 12, 1.0, "skipped", "predicted 9.0 GiB > 8 GiB"),
    ]
    found.figures = figures(found, long_pair=8192)
    return found


def test_figures_are_read_from_the_rows(report):
    by_name = {figure.name: figure for figure in report.figures}
    speed = by_name["ns per cell, forward+backward, D = 12, N = M = 1024, B = 16, one thread, avx512"]
    assert (speed.measured, speed.verdict) == (pytest.approx(2.9), "goal reached")
    slower = by_name["ns per cell, forward+backward, D = 12, N = M = 1024, B = 16, one thread, avx2"]
    assert (slower.measured, slower.verdict) == (pytest.approx(7.0), "missed")
    packages = by_name["times faster than the fastest torch package at B = 16, N = M = 1024, one thread"]
    assert (packages.measured, packages.verdict) == (pytest.approx(90 / 2.9), "goal reached")
    assert by_name["extra bytes per cell, fused, N = M = 4096"].verdict == "reached"
    assert by_name["extra bytes per cell, fused, N = M = 32768"].verdict == "missed"
    assert by_name["two threads against one, B = 16, N = M = 1024"].measured == pytest.approx(2.9 / 1.6)
    assert by_name["two threads against one, B = 1, N = M = 8192"].verdict == "not measured"


def test_report_survives_json(report, tmp_path):
    report.write(tmp_path)
    entries = json.loads((tmp_path / "softdtw.json").read_text())
    assert Report.from_json(entries) == report
    assert entries["rows"][0]["forward_backward_ns_per_cell"] == pytest.approx(2.9)
    assert entries["machine"]["cpu"] == "a processor"
    without_error = {name: entry for name, entry in entries["rows"][0].items() if name != "gradient_error"}
    with pytest.raises(KeyError, match="gradient_error"):
        Report.from_json({**entries, "rows": [without_error]})
    with pytest.raises(ValueError, match="schema: expected 1, got 0"):
        Report.from_json({**entries, "schema": 0})


def test_tables_show_skips_figures_and_missing_peers(report):
    report.peers[3]["missing"] = "ImportError: no tslearn"
    report.rows = [row for row in report.rows if row.peer in ("dalign", "tslearn")]
    text = report.markdown()
    assert "a processor, 2 cores, instruction set avx512" in text
    assert "ImportError: no tslearn" in text
    assert "skipped: predicted 9.0 GiB > 8 GiB" in text
    assert "| B | N = M | dalign | tslearn |" in text
    assert "| 16 | 1024 | 2.9 / 2.9 | 120 / 120 |" in text
    assert "goal reached" in text


def test_pictures_are_drawn(report, tmp_path):
    pytest.importorskip("matplotlib")
    drawn = plots.draw(report, tmp_path, PICTURES)
    assert [path.name for path in drawn] == [f"softdtw_{name}.png" for name in PICTURES]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in drawn)


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda path: path.name)
def test_committed_results_have_the_schema(path):
    report = suites.find(path.stem).Report.from_json(json.loads(path.read_text()))
    assert report.suite == path.stem
    assert report.machine["cpu"]
    assert all(row.status in ("ok", "skipped", "failed") for row in report.rows)
    assert all(row.reason for row in report.rows if row.status != "ok")
