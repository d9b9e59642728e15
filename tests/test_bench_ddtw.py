"""The dDTW benchmark's own numbers: the plain versions, checks of peers, figures, and the form of its report."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from reference import ddtw as reference

import torch_dalign as dalign
from experiments.bench import packages, plots, worker
from experiments.bench.ddtw import PICTURES, paper, peers, plain, problems, suite
from experiments.bench.ddtw.figures import LENGTH, figures
from experiments.bench.ddtw.problems import CTC, DDTW, DDTW_CTC, LOSSES, SOFT_DTW, Case
from experiments.bench.ddtw.report import CTC_SHAPES, LATTICE, TABLE, Report, Row
from experiments.bench.ddtw.settings import SETTINGS
from experiments.bench.harness import Limits, Policy, Spread
from experiments.bench.options import Options
from experiments.bench.softdtw.peers import Outcome

RESET_PEAK = Path("/proc/self/clear_refs")
SHAPES = [(9, 6), (12, 7), (6, 6)]  # frames, labels


def problem(setting, frames, count):
    """Costs (2, N, M) in float64, and labels of which some follow themselves."""
    generator = torch.Generator().manual_seed(frames)
    labels = torch.randint(0, 3, (2, count), generator=generator)
    labels[0, 1] = labels[0, 0]
    cost = 3 * torch.rand(2, frames, setting.columns(count), dtype=torch.float64, generator=generator)
    return cost, labels


def slow(setting, cost, weights, gamma):
    """The reference of one item."""
    start, end = np.full(cost.shape, np.inf), np.full(cost.shape, np.inf)
    start[0, : setting.sides] = end[-1, -setting.sides :] = 0
    weights = np.ones(len(setting.steps)) if weights is None else weights.double().numpy()
    lattice = reference.lattice(cost.numpy(), setting.steps, weights, start, end)
    return reference.gradients(lattice, gamma, setting.smoothing)


@pytest.mark.parametrize("gamma", [0.3, 1.0])
@pytest.mark.parametrize(("frames", "count"), SHAPES)
@pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS)
def test_plain_version_agrees_with_the_recursion(setting, frames, count, gamma):
    cost, labels = problem(setting, frames, count // 2 if setting.blank else count)
    weights = setting.weights(labels)
    asked = cost.clone().requires_grad_()
    value = plain.value(asked, setting, weights, gamma)
    (gradient,) = torch.autograd.grad((value * torch.tensor([1.0, 3.0])).sum(), asked)
    for item, factor in enumerate((1.0, 3.0)):
        own = None if weights is None else weights[item % len(weights)]
        expected = slow(setting, cost[item], own, gamma)
        np.testing.assert_allclose(value[item].item(), expected.value, rtol=1e-12)
        np.testing.assert_allclose(gradient[item], factor * expected.cost, atol=1e-11)


def test_plain_version_leaves_its_input_alone():
    cost = torch.rand(1, 1, 1)
    kept = cost.clone()
    plain.value(cost, SETTINGS["SDTW-D"], None, gamma=0.5)
    assert torch.equal(cost, kept)


@pytest.mark.parametrize("name", [name for name, setting in SETTINGS.items() if plain.by_autograd(setting)])
def test_autograd_version_agrees(name):
    setting = SETTINGS[name]
    cost, labels = problem(setting, 11, 7)
    weights = setting.weights(labels)
    found = []
    for solve in (lambda c: plain.value(c, setting, weights), lambda c: plain.by_autograd(setting)(c, weights)):
        asked = cost.clone().requires_grad_()
        value = solve(asked)
        found.append((value.detach(), torch.autograd.grad(value.sum(), asked)[0]))
    torch.testing.assert_close(found[0], found[1])


def test_which_settings_have_no_autograd_version():
    without = {name for name, setting in SETTINGS.items() if plain.by_autograd(setting) is None}
    assert without == {"SDTW-E, sparsemin", "SDTW-E, smoothmin", "SDTW-E, hardmin"}


@pytest.mark.parametrize("name", ["CTC-A", "CTC-A-W", "SDTW-D", "SDTW-E", "SDTW-E-W"])
def test_settings_are_those_of_the_presets(name):
    labels = torch.tensor([[1, 1, 2, 1], [0, 2, 2, 2]])
    preset, own = dalign.presets.ddtw(name), SETTINGS[name]
    assert own.steps == preset.steps
    weights = own.weights(labels)
    expected = preset.step_weights(labels).float()
    assert torch.equal(torch.ones_like(expected) if weights is None else weights.expand_as(expected), expected)


# ---------------------------------------------------------------- problems and peers


@pytest.fixture(scope="module")
def loaded():
    """All peers that are installed, ours at least."""
    found, _ = packages.load(peers.ALL)
    assert packages.OURS in found
    return found


CASES = [Case(loss, 3, 20, 12, 13 if loss in (CTC, DDTW_CTC) else 12, repeats=False) for loss in LOSSES]
CASES += [Case(own.name, 3, 20, own.columns(8 if own.blank else 16)) for own in SETTINGS.values()]


@pytest.mark.parametrize("kind", peers.ALL, ids=lambda kind: kind.name)
def test_peers_answer_right(loaded, kind):
    if kind.name not in loaded:
        pytest.skip(f"{kind.name} is not installed")
    asked = [case for case in CASES if loaded[kind.name].offers(case.task)]
    assert asked
    for case in asked:
        given = problems.inputs(case, seed=1)
        value, gradient = problems.errors(case, given, loaded[kind.name].call(case, given)())
        assert value < 1e-5, case
        assert gradient < 1e-4, case


def test_everybody_has_its_tasks(loaded):
    assert all(loaded[packages.OURS].offers(task) for task in (*LOSSES, *SETTINGS))
    assert [task for task in (*LOSSES, *SETTINGS) if loaded[peers.TORCH_CTC].offers(task)] == [CTC]
    assert not loaded[peers.AUTOGRAD].offers(CTC)


def test_the_answers_are_those_of_torch(loaded):
    case = Case(CTC, 2, 15, 6, 5)
    given = problems.inputs(case, seed=0)
    log_probs = given.x.double().log_softmax(2).transpose(0, 1)
    lengths = torch.tensor([15, 15]), torch.tensor([6, 6])
    expected = torch.nn.functional.ctc_loss(log_probs, given.targets, *lengths, reduction="none")
    torch.testing.assert_close(problems.answer(case, given).value, expected[-1:])
    features = problems.inputs(Case(DDTW, 2, 6, 5), seed=0)
    x, y = features.x[:, :, None].expand(-1, -1, 5, -1), features.targets[:, None].expand(-1, 6, -1, -1)
    cost = torch.nn.functional.binary_cross_entropy(x, y, reduction="none").sum(3)
    torch.testing.assert_close(problems.cross_entropy(features.x, features.targets), cost)


def test_errors_are_those_of_the_last_item(loaded):
    case = Case("SDTW-D", 2, 10, 8)
    given = problems.inputs(case, seed=0)
    right = loaded[packages.OURS].call(case, given)()
    assert max(problems.errors(case, given, right)) < 1e-5
    scale = torch.tensor([1.0, 1.5])
    wrong = Outcome(right.value * scale, (right.gradients[0] * scale[:, None, None],))
    assert problems.errors(case, given, wrong) == pytest.approx((0.5, 0.5), rel=1e-4)
    assert max(problems.errors(case, given, Outcome(right.value / scale.flip(0), right.gradients))) < 1e-5


def test_labels_of_the_table_never_follow_themselves():
    labels = problems.inputs(Case(CTC, 4, 64, 64, 13, repeats=False), seed=0).targets
    assert labels.min() >= 1
    assert labels.max() <= 12
    assert not (labels[:, 1:] == labels[:, :-1]).any()
    free = problems.inputs(Case(CTC, 4, 64, 64, 13), seed=0).targets
    assert (free[:, 1:] == free[:, :-1]).any()


# ---------------------------------------------------------------- the suite


class Wrong(peers.Dalign):
    """It knows no CTC, and its lattices are a tenth too dear."""

    name = "wrong"

    def call(self, case, given):
        right = super().call(case, given)

        def run():
            if case.task == CTC:
                raise RuntimeError("no CTC")
            return Outcome(1.1 * right().value, right().gradients)

        return run


@pytest.fixture
def state():
    """A short run of ours and of a bad peer."""
    found, _ = packages.load([peers.Dalign, Wrong])
    few = Policy(target=0.0, minimum=2, maximum=2, patience=0.1)
    plan = suite.Plan(((16, 8),), ((2, 20),), ("CTC-A", "SDTW-E"), ((30, 2, 6, 8),), few, few)
    return suite.Run(Options(threads=(1,)), plan, found)


@pytest.fixture
def without_memory(monkeypatch):
    """No process for each case."""
    monkeypatch.setattr(suite, "_memory", lambda state, peer, case: {"extra_bytes": 64 * case.cells})


@pytest.mark.usefixtures("without_memory")
def test_lattice_rows_tell_time_memory_and_errors(state):
    suite._lattice(state)
    rows = {(row.peer, row.task): row for row in state.rows}
    assert len(rows) == 4
    ours = rows["dalign", "CTC-A"]
    assert (ours.status, ours.family, ours.columns, ours.cells) == ("ok", LATTICE, 21, 2 * 20 * 21)
    assert ours.ns_per_cell == pytest.approx(ours.time.median * 1e9 / 840)
    assert ours.extra_bytes == 64 * 840
    assert ours.value_error < 1e-6
    assert rows["wrong", "SDTW-E"].value_error == pytest.approx(0.1, rel=1e-4)


@pytest.mark.usefixtures("without_memory")
def test_a_peer_that_fails_is_told_of(state):
    suite._ctc(state)
    ours, bad = state.rows
    assert (ours.status, ours.family, ours.cells) == ("ok", CTC_SHAPES, 2 * 30 * 17)
    assert (bad.status, bad.reason) == ("failed", "RuntimeError: no CTC")


@pytest.mark.usefixtures("without_memory")
def test_the_table_has_every_loss(state):
    suite._table(state)
    ours = [row for row in state.rows if row.peer == packages.OURS]
    assert [row.task for row in ours] == list(LOSSES)
    assert {row.status for row in ours} == {"ok"}
    assert {row.batch for row in ours} == {16}


@pytest.mark.usefixtures("without_memory")
def test_predictions_and_the_clock_skip(state):
    state.options = Options(threads=(1,), limits=Limits(gibibytes=1e-9))
    suite._lattice(state)
    assert {row.status for row in state.rows} == {"ok"}  # nothing is known before
    state.bytes.record(("dalign", "SDTW-E"), 800, 64 * 800)
    state.rows.clear()
    suite._lattice(state)
    assert {row.status for row in state.rows if (row.peer, row.task) == ("dalign", "SDTW-E")} == {"skipped"}
    state.rows.clear()
    state.options = Options(minutes=-1.0, threads=(1,))
    for measure in suite.FAMILIES.values():
        measure(state)
    assert {(row.status, row.reason) for row in state.rows} == {("skipped", "the -1 minutes of the run were over")}


@pytest.mark.skipif(not RESET_PEAK.exists(), reason="peak memory is read from Linux's /proc")
def test_memory_is_measured_in_a_process_of_its_own(state):
    case = Case("SDTW-E", 4, 500, 500)
    found = suite._memory(state, peers.PlainTorch(), case)
    assert case.cells * 4 < found["extra_bytes"] < case.cells * 60
    assert state.bytes.predict((peers.PLAIN, "SDTW-E"), case.cells) == found["extra_bytes"]


def test_worker_process_that_ends_badly_fails_its_case():
    case = {"task": "SDTW-E", "batch": 1, "length": 8, "columns": 8}
    job = {"suite": "ddtw", "peer": "nobody", "seed": 0, "cases": [case]}
    assert [entry["status"] for entry in worker.results(job)] == ["failed"]


# ---------------------------------------------------------------- report


def timed(family, peer, task, seconds, **more):
    spread = Spread(seconds * 0.9, seconds, seconds * 1.2, 20)
    row = {"threads": 1, "batch": 16, "length": LENGTH, "columns": LENGTH, "dim": 12, "cells": 10**6, "time": spread}
    return Row(family, peer, task, **{**row, **more})


@pytest.fixture
def report():
    present = [{"name": kind.name, "version": "1", "computes": "float32", "missing": None} for kind in peers.ALL]
    machine = {"cpu": "a processor", "cores": 2, "dalign": {"isa": "avx512"}}
    found = Report("ddtw", "2000-01-01 00:00 UTC", 60.0, {"seed": 0}, machine, present)
    shape = {"length": 256, "columns": 64}
    speech = {"length": 1000, "columns": 100, "dim": 32, "batch": 16}
    found.rows = [
        timed(LATTICE, "dalign", "CTC-A", 5e-3, extra_bytes=4 * 10**6, value_error=1e-7, gradient_error=2e-6),
        timed(LATTICE, peers.PLAIN, "CTC-A", 40e-3),
        timed(LATTICE, peers.AUTOGRAD, "CTC-A", 100e-3),
        timed(LATTICE, "dalign", "CTC-A", 2.5e-3, threads=2),
        timed(LATTICE, "dalign", "SDTW-E", 7e-3),
        timed(TABLE, "dalign", SOFT_DTW, 2e-3, extra_bytes=5 * 10**5, **shape),
        timed(TABLE, "dalign", CTC, 1e-3, **shape),
        timed(TABLE, peers.TORCH_CTC, CTC, 9e-3, **shape),
        Row(TABLE, "pysdtw", SOFT_DTW, 1, 16, 256, 64, 12, 1, status="failed", reason="MemoryError: no room"),
        timed(CTC_SHAPES, "dalign", CTC, 4e-3, extra_bytes=0, **speech),
        timed(CTC_SHAPES, peers.TORCH_CTC, CTC, 40e-3, **speech),
    ]
    found.figures = figures(found)
    return found


def test_figures_are_read_from_the_rows(report):
    def only(*parts):
        (figure,) = [figure for figure in report.figures if all(part in figure.name for part in parts)]
        return figure

    assert (only("ns per cell", "CTC-A").measured, only("ns per cell", "CTC-A").verdict) == (5.0, "reached")
    assert only("ns per cell", "SDTW-E").verdict == "missed"
    assert only(f"than {peers.PLAIN}, CTC-A").measured == pytest.approx(8.0)
    assert only(f"than {peers.PLAIN}, CTC-A").verdict == "missed"
    assert only(f"than {peers.AUTOGRAD}, CTC-A").measured == pytest.approx(20.0)
    assert only(f"than {peers.PLAIN}, SDTW-E").verdict == "not measured"
    assert only("two threads", "CTC-A").measured == pytest.approx(2.0)
    assert only("torch's CTC", "T = 1000, S = 100, threads: 1").verdict == "reached"
    assert only("torch's CTC", "T = 500", "threads: 2").verdict == "not measured"


def test_report_survives_json(report, tmp_path):
    report.write(tmp_path)
    entries = json.loads((tmp_path / "ddtw.json").read_text())
    assert Report.from_json(entries) == report
    assert entries["rows"][0]["ns_per_cell"] == pytest.approx(5.0)


def test_tables_show_everything_and_what_is_the_papers(report):
    text = report.markdown()
    assert "SDTW, paper's GPU | dDTW, paper's GPU | CTC, paper's GPU |" in text
    assert "| (256, 64) | 2 / 0.5 | 1 | 3.9 / 73 | 8.3 / 23 | 1.2 / 1 |" in text
    assert "failed: MemoryError: no room" in text
    assert "| CTC-A | 16 | 1024 | 5; 4 B | 40 | 100 |" in text
    assert "| (1000, 16, 32, 100) | 4 / 0 | 40 |" in text
    assert "dalign 1.0e-07 / 2.0e-06" in text


def test_the_papers_table_is_whole():
    assert len(paper.TABLE_VI) == 7
    assert all(len(entries) == len(paper.LOSSES) for entries in paper.TABLE_VI.values())
    assert paper.TABLE_VI[1024, 1024] == ((118.5, 4689), (43.0, 1441), (1.4, 8))


def test_pictures_are_drawn(report, tmp_path):
    pytest.importorskip("matplotlib")
    drawn = plots.draw(report, tmp_path, PICTURES)
    assert [path.name for path in drawn] == [f"ddtw_{name}.png" for name in PICTURES]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in drawn)
