"""The CTC benchmark's own numbers: checks of peers, rows, figures and the form of its report."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from experiments.bench import packages, plots, suites, worker
from experiments.bench.ctc import PICTURES, peers, problems, suite
from experiments.bench.ctc.figures import FASTER, figures
from experiments.bench.ctc.peers import DROP_IN, TORCH
from experiments.bench.ctc.problems import Case
from experiments.bench.ctc.report import Report, Row
from experiments.bench.harness import Limits, Policy, Spread
from experiments.bench.options import Options
from experiments.bench.packages import OURS

RESET_PEAK = Path("/proc/self/clear_refs")
SMALL = Case(20, 3, 6, 5)


@pytest.fixture(scope="module")
def loaded():
    found, _ = packages.load(peers.ALL)
    assert list(found) == [OURS, DROP_IN, TORCH]
    return found


@pytest.mark.parametrize("task", problems.TASKS)
@pytest.mark.parametrize("name", [OURS, DROP_IN, TORCH])
def test_peers_answer_right(loaded, name, task):
    outcome = peers.call(loaded[name], task, problems.inputs(SMALL, seed=1))()
    errors = problems.errors(SMALL, 1, task, outcome)
    assert list(errors) == ["error", "error_gradient"][: len(outcome)]
    assert all(error < 1e-4 for error in errors.values())


def test_errors_are_those_of_the_last_item(loaded):
    values, grad = peers.call(loaded[OURS], "gradient", problems.inputs(SMALL, 0))()
    wrong = values * torch.tensor([9.0, 9.0, 1.5]), grad * torch.tensor([9.0, 9.0, 1.25])[:, None]
    errors = problems.errors(SMALL, 0, "gradient", wrong)
    assert errors["error"] == pytest.approx(0.5, rel=1e-4)
    assert errors["error_gradient"] == pytest.approx(0.25, rel=1e-3)


def test_labels_are_never_the_blank():
    given = problems.inputs(SMALL, 0)
    assert given.targets.min() >= 1
    assert given.targets.max() < SMALL.classes
    assert SMALL.states == 3 * 20 * 11


# ---------------------------------------------------------------- the suite


class Broken(peers.Dalign):
    """It cannot do it."""

    name = "broken"

    def loss(self, logits, given):
        raise RuntimeError("no loss")


@pytest.fixture
def state():
    """A short run of ours, torch and a bad peer."""
    found, _ = packages.load([peers.Dalign, peers.Torch, Broken])
    plan = suite.Plan((SMALL,), (), Policy(target=0.0, minimum=2, maximum=2, patience=0.1))
    return suite.State(Options(threads=(1,)), plan, found)


def test_grid_rows_tell_time_and_errors(state):
    suite._grid(state)
    rows = {(row.peer, row.task): row for row in state.rows}
    assert len(rows) == 6
    ours = rows[OURS, "gradient"]
    assert ours.status == "ok"
    assert ours.ns_per_state == pytest.approx(ours.time.median * 1e9 / SMALL.states)
    assert max(ours.error, ours.error_gradient) < 1e-5
    assert rows[TORCH, "value"].error < 1e-5
    assert rows[TORCH, "value"].error_gradient is None
    assert (rows["broken", "value"].status, rows["broken", "value"].reason) == ("failed", "RuntimeError: no loss")


def test_what_takes_too_long_or_too_much_is_skipped(state):
    state.options = Options(threads=(1,), limits=Limits(gibibytes=1e-9))
    suite._grid(state)
    assert {row.status for row in state.rows} == {"skipped"}
    assert "GiB" in state.rows[0].reason
    state.rows.clear()
    state.options = Options(minutes=-1.0, threads=(1,))
    for measure in suite.FAMILIES.values():
        measure(state)
    assert {row.reason for row in state.rows} == {"the -1 minutes of the run were over"}


@pytest.mark.skipif(not RESET_PEAK.exists(), reason="peak memory is read from Linux's /proc")
def test_other_instruction_sets_and_memory_in_processes_of_their_own(state):
    suite._work(state, "isa", [OURS, TORCH], [SMALL], "generic")
    suite._work(state, "memory", [OURS], [replace(SMALL, frames=2000, classes=100)])
    ours, torch_row, memory = state.rows
    assert (ours.peer, torch_row.peer, ours.isa) == (OURS, TORCH, "generic")
    assert max(ours.error, ours.error_gradient, torch_row.error) < 1e-4
    assert ours.time.minimum > 0
    assert 0 <= memory.extra_bytes < 2**24


def test_worker_process_that_ends_badly_fails_all_its_cases():
    case = {"frames": 5, "batch": 1, "classes": 3, "labels": 1, "peer": "nobody"}
    job = {"suite": "ctc", "peers": ["nobody"], "cases": [case, case]}
    assert [entry["status"] for entry in worker.results(job)] == ["failed", "failed"]


# ---------------------------------------------------------------- report


def timed(family, peer, task, seconds, case, **more):
    spread = Spread(seconds * 0.9, seconds, seconds * 1.2, 5)
    row = {"threads": 1, "batch": case.batch, "length": case.frames, "classes": case.classes, "labels": case.labels}
    return Row(family, peer, task, time=spread, **{**row, **more})


@pytest.fixture
def report():
    names = [kind.name for kind in peers.ALL]
    present = [{"name": name, "version": "1", "computes": "float32", "missing": None} for name in names]
    machine = {"cpu": "a processor", "cores": 2, "dalign": {"isa": "avx512"}}
    found = Report("ctc", "2000-01-01 00:00 UTC", 60.0, {"seed": 0, "threads": (1,)}, machine, present)
    first, second, third = FASTER
    found.rows = [
        timed("grid", OURS, "gradient", 0.01, first, error=1e-8, error_gradient=2e-7),
        timed("grid", TORCH, "gradient", 0.5, first, error=1e-7, error_gradient=5e-4),
        timed("grid", OURS, "gradient", 0.02, second),
        timed("grid", TORCH, "gradient", 0.1, second),
        timed("grid", OURS, "value", 0.1, third),
        replace(timed("grid", TORCH, "value", 0.1, third), time=None, status="skipped", reason="9 GiB > 8 GiB"),
        timed("isa", OURS, "gradient", 0.04, third, isa="avx2"),
        timed("isa", TORCH, "gradient", 0.2, third, isa="avx2"),
        replace(timed("memory", OURS, "gradient", 1.0, first), time=None, extra_bytes=2**20),
    ]
    found.figures = figures(found)
    return found


def test_figures_are_read_from_the_rows(report):
    by_name = {figure.name.split("logits, ")[1]: figure for figure in report.figures}
    assert len(by_name) == 4
    assert by_name["T 1000, B 16, C 13, S 512, threads: 1"].measured == pytest.approx(50)
    assert by_name["T 1000, B 16, C 13, S 512, threads: 1"].verdict == "reached"
    assert by_name["T 1000, B 16, C 32, S 100, threads: 1"].verdict == "missed"
    assert by_name["T 500, B 32, C 5000, S 60, threads: 1"].verdict == "not measured"
    assert by_name["T 500, B 32, C 5000, S 60, one thread, avx2"].measured == pytest.approx(5)


def test_report_survives_json(report, tmp_path):
    report.options["threads"] = [1]
    report.write(tmp_path)
    entries = json.loads((tmp_path / "ctc.json").read_text())
    assert Report.from_json(entries) == report
    assert entries["rows"][0]["ns_per_state"] == pytest.approx(0.01e9 / (16 * 1000 * 1025))


def test_tables_show_everything(report):
    text = report.markdown()
    assert "| T 1000, B 16, C 13, S 512 | 10 | 500 |" in text
    assert "| T 500, B 32, C 5000, S 60 | 100 | skipped: 9 GiB > 8 GiB |" in text
    assert "| T 1000, B 16, C 13, S 512 | 1.0e-08 / 2.0e-07 | 1.0e-07 / 5.0e-04 |" in text
    assert "gradient from logits, 1 thread, ours with avx2" in text
    assert "## MiB beyond logits and gradient" in text


def test_pictures_are_drawn(report, tmp_path):
    pytest.importorskip("matplotlib")
    drawn = plots.draw(report, tmp_path, PICTURES)
    assert [path.name for path in drawn] == [f"ctc_{name}.png" for name in PICTURES]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in drawn)


def test_the_suite_is_known_by_name():
    found = suites.find("ctc")
    assert found.Report is Report
    assert found.run is suite.run
