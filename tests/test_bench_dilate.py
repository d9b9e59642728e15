"""The DILATE benchmark's own numbers: checks of peers, rows, figures and the form of its report."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import torch_dalign as dalign
from experiments.bench import packages, plots, suites
from experiments.bench.dilate import PICTURES, peers, problems, suite
from experiments.bench.dilate.figures import FORECAST, LARGEST, LONG, figures
from experiments.bench.dilate.peers import AUTHORS, OURS64, PLAIN
from experiments.bench.dilate.problems import Case
from experiments.bench.dilate.report import Report, Row
from experiments.bench.harness import Limits, Policy, Spread
from experiments.bench.options import Options
from experiments.bench.packages import OURS

RESET_PEAK = Path("/proc/self/clear_refs")
SMALL = Case(3, 12, 2)


@pytest.fixture(scope="module")
def loaded():
    found, presences = packages.load(peers.kinds(None))
    assert list(found) == [OURS, OURS64, PLAIN]
    assert "--dilate-repo" in next(p.missing for p in presences if p.name == AUTHORS)
    return found


@pytest.mark.parametrize("task", problems.TASKS)
@pytest.mark.parametrize(("name", "most"), [(OURS, 1e-3), (OURS64, 1e-9), (PLAIN, 2e-2)])
def test_peers_answer_right(loaded, name, most, task):
    peer = loaded[name]
    outcome = peer.call(task, problems.series(SMALL, seed=1))()
    errors = problems.errors(SMALL, 1, task, peer.checked, outcome)
    assert list(errors) == ["error", "error_gradient"][: len(outcome)]
    assert all(error < most for error in errors.values())


def test_the_reference_is_dilate():
    given = problems.Series(*(part.double() for part in problems.series(SMALL, 0)))
    value, grad = problems.outcome(problems.plain_dilate, "gradient", given)
    forecast = given.forecast.clone().requires_grad_()
    loss = dalign.DILATE(problems.ALPHA, problems.GAMMA)(forecast, given.target)
    torch.testing.assert_close(value, loss.detach())
    torch.testing.assert_close(grad, torch.autograd.grad(loss, forecast)[0])


def test_errors_are_those_of_the_last_item(loaded):
    loss, grad = loaded[OURS64].call("gradient", problems.series(SMALL, 0))()
    wrong = loss, grad * torch.tensor([9.0, 9.0, 1.25])[:, None, None]
    errors = problems.errors(SMALL, 0, "gradient", lambda x, y: 1.5 * loaded[OURS64].checked(x, y), wrong)
    assert errors["error"] == pytest.approx(0.5)
    assert errors["error_gradient"] == pytest.approx(0.25)
    assert problems.errors(Case(1, 2000), 0, "gradient", loaded[OURS].checked, (loss, grad)) == {}


def test_a_checkout_of_the_authors_is_a_peer(tmp_path):
    (tmp_path / "loss").mkdir()
    (tmp_path / "loss" / "neighbour.py").write_text("def total(x):\n    return x.sum()\n")
    (tmp_path / "loss" / "dilate_loss.py").write_text(
        "from . import neighbour\n\n\ndef dilate_loss(outputs, targets, alpha, gamma, device):\n"
        "    shape = neighbour.total(outputs)\n    return alpha * shape, shape, gamma\n"
    )
    (peer,) = (kind() for kind in peers.kinds(tmp_path) if kind.name == AUTHORS)
    peer.load()
    assert peer.offers(Case(1, 5))
    assert not peer.offers(SMALL)
    value, grad = peer.call("gradient", problems.series(Case(2, 5), 0))()
    assert value == pytest.approx(problems.ALPHA * float(problems.series(Case(2, 5), 0).forecast.sum()))
    assert (grad == problems.ALPHA).all()
    with pytest.raises(FileNotFoundError, match=r"dilate_loss\.py"):
        peers.kinds(tmp_path / "loss")[2]().load()


# ---------------------------------------------------------------- the suite


class Broken(peers.Dalign):
    """It cannot do it."""

    name = "broken"

    def loss(self, forecast, target):
        raise RuntimeError("no loss")


@pytest.fixture
def state():
    """A short run of ours, plain PyTorch and a bad peer."""
    found, _ = packages.load([peers.Dalign, peers.PlainTorch, Broken])
    policy = Policy(target=0.0, minimum=2, maximum=2, patience=0.1)
    plan = suite.Plan((SMALL,), (Case(1, 8), Case(1, 16)), (Case(1, 16),), (), policy)
    return suite.State(Options(threads=(1,)), plan, found)


def test_grid_rows_tell_time_and_errors(state):
    suite._grid(state)
    rows = {(row.peer, row.task): row for row in state.rows}
    assert len(rows) == 6
    ours = rows[OURS, "gradient"]
    assert ours.status == "ok"
    assert ours.ns_per_cell == pytest.approx(ours.time.median * 1e9 / SMALL.cells)
    assert max(ours.error, ours.error_gradient) < 1e-3
    assert rows[PLAIN, "value"].error_gradient is None
    assert (rows["broken", "value"].status, rows["broken", "value"].reason) == ("failed", "RuntimeError: no loss")


def test_growth_is_of_one_item(state):
    suite._growth(state)
    assert {(row.batch, row.length, row.task) for row in state.rows} == {(1, 8, "gradient"), (1, 16, "gradient")}


def test_what_takes_too_long_or_too_much_is_skipped(state):
    state.options = Options(threads=(1,), limits=Limits(gibibytes=1.0))
    for peer in state.loaded:
        state.bytes.record((peer, SMALL.dim), 1, 2.0**30)
    suite._grid(state)
    assert {row.status for row in state.rows} == {"skipped"}
    assert "GiB" in state.rows[0].reason
    state.rows.clear()
    state.options = Options(minutes=-1.0, threads=(1,))
    state.plan = replace(state.plan, isas=("generic",), cases=(FORECAST,))
    for measure in suite.FAMILIES.values():
        measure(state)
    assert {row.family for row in state.rows} == set(suite.FAMILIES)
    assert {row.reason for row in state.rows} == {"the -1 minutes of the run were over"}


@pytest.mark.skipif(not RESET_PEAK.exists(), reason="peak memory is read from Linux's /proc")
def test_other_instruction_sets_and_memory_in_processes_of_their_own(state):
    state.plan = replace(state.plan, isas=("generic",), cases=(FORECAST,), memory=(Case(1, 1000),))
    state.loaded = {OURS: state.loaded[OURS]}
    suite._isa(state)
    suite._memory(state)
    isa, memory = state.rows
    assert (isa.family, isa.isa, isa.status) == ("isa", "generic", "ok")
    assert isa.error_gradient < 1e-3
    assert 0 <= memory.bytes_per_cell < 8


# ---------------------------------------------------------------- report


def timed(family, peer, seconds, case, **more):
    spread = Spread(seconds * 0.9, seconds, seconds * 1.2, 5)
    row = {"task": "gradient", "threads": 1, "batch": case.batch, "length": case.length, "dim": case.dim}
    return Row(family, peer, time=spread, **{**row, **more})


@pytest.fixture
def report():
    present = [
        {"name": kind.name, "version": "1", "computes": "float32", "missing": None} for kind in peers.kinds(None)
    ]
    machine = {"cpu": "a processor", "cores": 2, "dalign": {"isa": "avx512"}}
    found = Report("dilate", "2000-01-01 00:00 UTC", 60.0, {"seed": 0, "threads": [1]}, machine, present)
    found.rows = [
        timed("grid", OURS, 0.004, FORECAST, error=1e-8, error_gradient=2e-7),
        timed("grid", AUTHORS, 0.4, FORECAST, error=1e-7, error_gradient=63.0),
        timed("grid", PLAIN, 0.2, FORECAST),
        timed("grid", OURS, 0.002, FORECAST, threads=2),
        timed("grid", OURS, 0.12, LONG[0]),
        timed("grid", OURS, 0.001, Case(4, 20), task="value"),
        timed("grid", PLAIN, 0.002, Case(4, 20), task="value"),
        replace(timed("grid", PLAIN, 1.0, LONG[0]), time=None, status="skipped", reason="9 GiB > 8 GiB"),
        timed("growth", OURS, 0.001, Case(1, 64)),
        timed("growth", OURS, 0.01, Case(1, 512)),
        timed("isa", OURS, 0.008, FORECAST, isa="avx2"),
        replace(timed("memory", OURS, 1.0, LARGEST), time=None, extra_bytes=2**23),
    ]
    found.figures = figures(found)
    return found


def test_figures_are_read_from_the_rows(report):
    found = {figure.name: figure for figure in report.figures}
    authors = found[f"times faster than {AUTHORS}, value and gradient, B 64, N 96, D 1, one thread"]
    assert (authors.measured, authors.verdict) == (pytest.approx(100), "reached")
    long = found[f"ns per cell, value and gradient, {OURS}, B 16, N 1024, D 1, one thread, avx512"]
    assert (long.measured, long.verdict) == (pytest.approx(0.12e9 / 2**24), "missed")
    assert found["two threads against one, B 64, N 96, D 1"].measured == pytest.approx(2)
    avx2 = found[f"ns per cell, value and gradient, {OURS}, B 64, N 96, D 1, one thread, avx2"]
    assert (avx2.measured, avx2.verdict) == (pytest.approx(0.008e9 / 64 / 96**2), "")
    assert found[f"bytes per cell beyond inputs and results, {OURS}, B 1, N 4096, D 1"].measured == pytest.approx(0.5)


def test_report_survives_json(report, tmp_path):
    report.write(tmp_path)
    entries = json.loads((tmp_path / "dilate.json").read_text())
    assert Report.from_json(entries) == report
    assert entries["rows"][0]["ns_per_cell"] == pytest.approx(0.004e9 / (64 * 96**2))


def test_tables_show_everything(report):
    text = report.markdown()
    assert "| B 64, N 96, D 1 | 4 (6.78) | 400 (678) | 200 (339) |" in text
    assert "| skipped: 9 GiB > 8 GiB |" in text
    assert "| 1.0e-08 / 2.0e-07 | 1.0e-07 / 63 |" in text
    assert "ours with avx2" in text
    assert "| B 1, N 4096, D 1 | 8 (0.5) |" in text


def test_pictures_are_drawn(report, tmp_path):
    pytest.importorskip("matplotlib")
    drawn = plots.draw(report, tmp_path, PICTURES)
    assert [path.name for path in drawn] == [f"dilate_{name}.png" for name in PICTURES]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in drawn)


def test_the_suite_is_known_by_name():
    found = suites.find("dilate")
    assert found.Report is Report
    assert found.run is suite.run
