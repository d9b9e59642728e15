"""The GDTW benchmark's own numbers: objectives, solvers, figures and the form of its report."""

from __future__ import annotations

import json
from dataclasses import astuple, replace

import numpy as np
import pytest
import torch
from reference import gdtw as reference
from scipy.optimize import check_grad

import torch_dalign as dalign
from experiments.bench import packages, plots
from experiments.bench.gdtw import PICTURES, figures, peers, plain, problems, suite
from experiments.bench.gdtw.problems import Case, Pair
from experiments.bench.gdtw.report import BATCH, CALLS, GROWTH, SOLVERS, TRAINING, Report, Row
from experiments.bench.harness import Limits, Policy, Spread, interleave
from experiments.bench.options import Options


def pair_of(length: int, dim: int, seed: int = 0) -> Pair:
    return Pair.of(problems.inputs(Case(1, length, dim), seed))


def same_problem(pair: Pair) -> reference.Problem:
    """As the package's own tests have it."""
    n = len(pair.x)
    slopes, inner = (np.zeros(n - 1), np.full(n - 1, np.inf)), np.zeros(n)
    low, high = inner.copy(), inner + 1
    low[-1], high[0] = 1, 0
    kind = ("sq2", 2.0)
    reg = np.full(n - 1, pair.reg_weight)
    return reference.Problem(pair.x, pair.y, pair.times, pair.times, reg, 1.0, *slopes, low, high, kind, kind)


# ---------------------------------------------------------------- problems


def test_every_feature_runs_from_minus_one_to_one():
    """So that a solver that scales signals changes nothing."""
    for side in problems.inputs(Case(3, 40, 5), seed=1):
        assert side.dtype == torch.float32
        assert side.shape == (3, 40, 5)
        assert torch.equal(side.amin(1), torch.full((3, 5), -1.0))
        assert torch.equal(side.amax(1), torch.full((3, 5), 1.0))


def test_items_do_not_depend_on_the_batch_but_on_the_seed():
    small, large = (problems.inputs(Case(batch, 20, 2), seed=1) for batch in (1, 3))
    assert torch.equal(small[0], large[0][:1])
    assert not torch.equal(large[0][0], large[0][1])
    assert not torch.equal(small[0], problems.inputs(Case(1, 20, 2), seed=2)[0])


def test_warps_of_signals_always_rise():
    rng = np.random.default_rng(0)
    for _ in range(50):
        warp = problems.smooth_warp(200, rng)
        assert warp[0] == 0
        assert warp[-1] == pytest.approx(1, abs=1e-12)
        assert np.diff(warp).min() > 0


@pytest.mark.parametrize("dim", [1, 4])
def test_objective_is_the_reference_s(dim):
    pair, rng = pair_of(23, dim), np.random.default_rng(0)
    phi = np.concatenate([[0], np.sort(rng.random(21)), [1]])
    assert pair.objective(phi) == pytest.approx(reference.objective(same_problem(pair), phi), rel=1e-12)
    np.testing.assert_allclose(pair.gradient(phi), reference.gradient(same_problem(pair), phi), rtol=1e-9, atol=1e-12)


def test_gradient_is_that_of_the_objective():
    pair, rng = pair_of(15, 3), np.random.default_rng(0)
    phi = np.sort(rng.random(15))
    assert check_grad(pair.objective, pair.gradient, phi, epsilon=1e-7) < 1e-4 * np.abs(pair.gradient(phi)).max()


def test_a_warp_must_be_one():
    pair = pair_of(12, 2)
    assert suite.feasible(pair, pair.times) == pytest.approx(pair.times)
    falling = pair.times.copy()
    falling[[4, 5]] = falling[[5, 4]]
    for bad in (falling, pair.times[:-1], pair.times * 0.9, pair.times + 0.01, np.full(12, np.nan)):
        with pytest.raises(ValueError, match="no warp"):
            suite.feasible(pair, bad)


# ---------------------------------------------------------------- solvers


@pytest.fixture(scope="module")
def loaded():
    """All solvers that are installed, ours at least."""
    found, _ = packages.load(peers.ALL)
    assert packages.OURS in found
    return found


@pytest.mark.parametrize("dim", [1, 3])
@pytest.mark.parametrize("kind", peers.ALL, ids=lambda kind: kind.name)
def test_solvers_solve_the_same_problem(loaded, kind, dim):
    """Ours is the lowest objective, all are within some per cent of what there is to win."""
    if kind.name not in loaded:
        pytest.skip(f"{kind.name} is not installed")
    given = problems.inputs(Case(1, 40, dim), seed=3)
    pair, peer = Pair.of(given), loaded[kind.name]
    ours = loaded[packages.OURS]
    lowest = pair.objective(ours.warp(ours.call(given, "thorough")()))
    line = pair.objective(pair.times)
    for setting in peer.settings:
        found = pair.objective(suite.feasible(pair, peer.warp(peer.call(given, setting)())))
        assert found >= lowest * (1 - 1e-10)
        assert found - lowest < 0.03 * (line - lowest)


def test_plain_solver_is_the_best_of_a_dense_lattice_at_least():
    pair = pair_of(20, 2)
    dense, _ = reference.dense_lattice(same_problem(pair), plain.LEAST_POINTS)
    assert pair.objective(plain.solve(pair)) <= dense


def test_ours_through_kernel_and_layer_is_the_same(loaded):
    ours, given = loaded[packages.OURS], problems.inputs(Case(2, 30, 4), seed=0)
    phi = dalign.DecDTW(problems.REG_WEIGHT)(*given)
    for through in (peers.KERNEL, peers.LAYER):
        outcome = ours.forward(given, "default", through)()
        found = outcome[0] if through == peers.KERNEL else outcome
        torch.testing.assert_close(found.float(), phi)
    torch.testing.assert_close(ours.inference(given, "default")(), phi)


def test_gradients_through_kernel_and_layer_are_the_same(loaded):
    ours, given = loaded[packages.OURS], problems.inputs(Case(2, 30, 4), seed=0)
    of_kernel, of_layer = (ours.backward(given, "default", through)() for through in (peers.KERNEL, peers.LAYER))
    torch.testing.assert_close(of_kernel[0], of_layer[0])
    torch.testing.assert_close(of_kernel[1], of_layer[1])
    torch.testing.assert_close(of_kernel[4].sum().float(), of_layer[2])
    assert of_layer[0].abs().max() > 0


def test_losses_of_training_have_gradients():
    leaves = [side.requires_grad_() for side in problems.inputs(Case(1, 20, 3), seed=0)]
    for name, loss in suite.losses(dalign, 20).items():
        slopes = torch.autograd.grad(loss(*leaves), leaves)
        assert all(slope.abs().max() > 0 for slope in slopes), name


# ---------------------------------------------------------------- the suite


class Wrong(peers.Numpy):
    """Its warps fall."""

    name = "wrong"

    def call(self, given, setting):
        return lambda: np.linspace(1, 0, given[0].shape[1])


@pytest.fixture
def state():
    """A short run of ours, of a plain solver and of a bad one."""
    found, _ = packages.load([peers.Dalign, peers.Numpy, Wrong])
    plan = suite.Plan(
        calls=((12, 2, "fast"),),
        batch=(3, 12),
        solvers=((12, 1),),
        lengths=(12, 16),
        policy=Policy(target=0.0, minimum=2, maximum=2, patience=0.1),
    )
    return suite.Run(Options(threads=(1,)), plan, found)


def test_all_families_are_measured(state):
    for measure in suite.FAMILIES.values():
        measure(state)
    count = {family: len(state_rows) for family, state_rows in by_family(state).items()}
    assert count == {CALLS: 4, BATCH: 2, SOLVERS: 5, GROWTH: 2 * 5, TRAINING: 2 * 4}
    failed = [row for row in state.rows if row.status != "ok"]
    assert {(row.family, row.peer) for row in failed} == {(SOLVERS, "wrong")}
    assert "no warp" in failed[0].reason
    assert all(0 < row.time.minimum <= row.time.median for row in state.rows if row.status == "ok")


def test_short_calls_are_repeated_and_their_mean_is_told(state, monkeypatch):
    """By a clock on which each call takes a tenth of a millisecond, or five."""
    now, calls = [0.0], []
    monkeypatch.setattr(suite.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(suite, "interleave", lambda jobs, policy: interleave(jobs, policy, lambda: now[0]))
    for seconds, most in ((1e-4, 20), (5e-3, 1)):

        def call(seconds=seconds) -> None:
            calls.append(seconds)
            now[0] += seconds

        (row,) = suite._together(state, [suite.Entry(timed(CALLS, "fast", "forward", 1.0, 12), call)])
        assert astuple(row.time) == pytest.approx((seconds, seconds, seconds, 2))
        assert calls.count(seconds) == 2 + 3 * most


def by_family(state) -> dict[str, list[Row]]:
    return {family: [row for row in state.rows if row.family == family] for family in suite.FAMILIES}


def test_objectives_are_compared_with_the_lowest(state):
    suite._solvers(state)
    rows = {(row.peer, row.setting): row for row in state.rows}
    assert min(row.excess for row in rows.values() if row.excess is not None) == 0
    thorough, lattice = rows["dalign", "thorough"], rows["NumPy lattice", ""]
    assert thorough.excess == pytest.approx(0, abs=1e-12)
    assert lattice.excess == pytest.approx(lattice.objective / thorough.objective - 1)
    assert rows["wrong", ""].excess is None


def test_what_is_predicted_to_take_too_long_is_skipped(state):
    state.options = replace(state.options, limits=Limits(seconds=1e-9))
    suite._growth(state)
    status = {(row.peer, row.length): row.status for row in state.rows}
    assert status["NumPy lattice", 12] == "ok"  # nothing to predict from
    assert status["NumPy lattice", 16] == "skipped"
    assert status["dalign", 16] == "ok"


def test_when_the_time_budget_is_over_the_rest_is_marked(state):
    state.options = Options(minutes=-1.0, threads=(1,))
    for measure in suite.FAMILIES.values():
        measure(state)
    assert {row.status for row in state.rows} == {"skipped"}
    assert {row.reason for row in state.rows} == {"the -1 minutes of the run were over"}


def test_without_ours_others_are_still_compared(state):
    del state.loaded[packages.OURS]
    for measure in suite.FAMILIES.values():
        measure(state)
    assert {row.family for row in state.rows} == {SOLVERS, GROWTH}


# ---------------------------------------------------------------- report


def timed(family: str, setting: str, task: str, ms: float, length: int, dim: int = 12, **more) -> Row:
    seconds = ms / 1e3
    row = {"peer": "dalign", "threads": 1, "batch": 1, "time": Spread(seconds * 0.9, seconds, seconds * 1.2, 5)}
    return Row(family=family, setting=setting, task=task, length=length, dim=dim, **{**row, **more})


@pytest.fixture
def report():
    present = [{"name": kind.name, "version": "1", "computes": "float64", "missing": None} for kind in peers.ALL]
    machine = {"cpu": "a processor", "cores": 2, "dalign": {"isa": "avx512"}}
    found = Report("gdtw", "2000-01-01 00:00 UTC", 60.0, {"seed": 0}, machine, present)
    found.rows = [
        timed(CALLS, "fast", "forward", 0.1, 64, through="kernel"),
        timed(CALLS, "fast", "forward", 0.15, 64, through="layer"),
        timed(CALLS, "fast", "backward", 0.01, 64, through="kernel"),
        timed(CALLS, "fast", "backward", 0.2, 64, through="layer"),
        timed(CALLS, "default", "forward", 13.0, 1024, 128, through="kernel"),
        timed(BATCH, "fast", "forward", 50.0, 256, batch=64, through="kernel"),
        timed(BATCH, "fast", "forward", 26.0, 256, batch=64, threads=2, through="kernel"),
        timed(SOLVERS, "fast", "forward", 1.0, 32, objective=2.002, excess=1e-3),
        timed(SOLVERS, "thorough", "forward", 3.0, 32, objective=2.0, excess=0.0),
        timed(SOLVERS, "", "forward", 90.0, 32, peer="SciPy SLSQP", objective=2.2, excess=0.1),
        timed(SOLVERS, "fine", "forward", 1.0, 32, peer="gdtw", time=None, status="failed", reason="OSError: no"),
        timed(GROWTH, "GDTW fast", "forward", 6.0, 1024),
        timed(GROWTH, figures.DTW, "forward", 2.0, 1024),
        timed(GROWTH, "", "forward", 9000.0, 1024, peer="gdtw"),
        timed(TRAINING, "DecDTW default", "step", 12.0, 1024),
        timed(TRAINING, figures.SOFT_DTW, "step", 4.0, 1024),
        timed(TRAINING, figures.DILATE, "step", 24.0, 1024),
    ]
    found.figures = figures.figures(found)
    return found


def test_figures_are_read_from_the_rows(report):
    def only(*parts):
        (figure,) = [figure for figure in report.figures if all(part in figure.name for part in parts)]
        return figure

    assert only("ms, kernel, forward", "N = M = 64,").verdict == "reached"
    assert only("ms, kernel, backward", "N = M = 64,").verdict == "missed"
    assert only("kernel, forward", "1024, D = 128").verdict == "missed"
    assert only("kernel, forward", "512, D = 128").verdict == "not measured"
    assert only("layer adds", "forward").measured == pytest.approx(0.045)
    assert only("layer adds", "forward").verdict == "reached"
    assert only("layer adds", "backward").verdict == "missed"
    assert only("two threads, forward").measured == pytest.approx(50 / 26)
    assert only("two threads, backward").verdict == "not measured"
    assert only('"fast" lies above').measured == pytest.approx(1e-3)
    assert only('"thorough" lies above').verdict == "reached"
    assert only('GDTW "fast"', "DTW path").measured == pytest.approx(3.0)
    assert only('DecDTW "default"', "soft-DTW").measured == pytest.approx(3.0)
    assert only('DecDTW "default"', "DILATE").measured == pytest.approx(0.5)
    assert only('DecDTW "fast"', "DILATE").verdict == "not measured"


def test_report_survives_json(report, tmp_path):
    report.write(tmp_path)
    entries = json.loads((tmp_path / "gdtw.json").read_text())
    assert Report.from_json(entries) == report
    assert entries["rows"][0]["milliseconds"] == pytest.approx(0.1)


def test_tables_show_everything(report):
    text = report.markdown()
    assert "| 64 | 12 | fast | 0.1 | 0.15 | 0.01 | 0.2 |" in text
    assert "| forward | fast | 2 | 26 |" in text
    assert "| dalign, thorough | 3 | 2 | 0 |" in text
    assert "| gdtw, fine | failed: OSError: no | - | - |" in text
    assert "| 1024 | 6 | 2 | 9000 |" in text
    assert "| 1024 | 12 | 4 | 24 |" in text


def test_pictures_are_drawn(report, tmp_path):
    pytest.importorskip("matplotlib")
    drawn = plots.draw(report, tmp_path, PICTURES)
    assert [path.name for path in drawn] == [f"gdtw_{name}.png" for name in PICTURES]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in drawn)
