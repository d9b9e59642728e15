"""Named settings of the general lattice: CTC by torch, the table's weights cell by cell, costs of labels, misuse."""

from __future__ import annotations

import copy
import itertools
import math
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from reference import ddtw as reference
from torch import Tensor, nn
from torch.autograd import grad, gradcheck, gradgradcheck
from torch.nn.functional import ctc_loss

import torch_dalign as dalign
from torch_dalign import presets

INF = math.inf
CTC_STEPS, THREE = ((1, 0), (1, 1), (1, 2)), ((1, 0), (0, 1), (1, 1))
WITH_BLANKS = ["CTC-A", "CTC-B", "CTC-C"]
WITHOUT_BLANKS = ["SDTW-D", "SDTW-E", "1-1-2", "2-1-softDTW", "subsequence-softDTW", "EM"]
# Steps, weights and ends of the settings without blanks.
PLAIN = {
    "SDTW-D": (((1, 0), (1, 1)), (1, 1), "corner"),
    "SDTW-E": (THREE, (1, 1, 1), "corner"),
    "EM": (THREE, (1, 1, 1.5), "corner"),
    "1-1-2": (THREE, (1, 1, 2), "corner"),
    "2-1-softDTW": (((1, 1), (2, 1), (1, 2)), (1, 1, 1), "corner"),
    "subsequence-softDTW": (THREE, (1, 1, 1), "any_y"),
}


def logits_and_targets(
    batch: int, frames: int, classes: int, count: int, blank: int = 0, repeat: float = 0.4
) -> tuple[Tensor, Tensor]:
    """Logits (B, N, C), targets (B, M) that often repeat the one before, without the blank."""
    logits = torch.randn(batch, frames, classes, dtype=torch.float64)
    targets = torch.randint(classes - 1, (batch, count))
    for m in range(1, count):
        targets[:, m] = torch.where(torch.rand(batch) < repeat, targets[:, m - 1], targets[:, m])
    return logits.requires_grad_(), targets + (targets >= blank)


# ---------------------------------------------------------------- CTC-A is CTC


@pytest.mark.parametrize(
    ("batch", "frames", "classes", "count", "blank"),
    [
        (1, 1, 2, 1, 0),
        (3, 9, 2, 4, 1),
        (4, 12, 5, 4, 0),
        (4, 12, 5, 4, 3),
        (5, 20, 4, 11, 2),
        (2, 70, 13, 33, 12),
        (3, 150, 6, 20, 0),
        (2, 33, 30, 16, 29),
    ],
)
def test_ctc_a_is_ctc(batch, frames, classes, count, blank):
    logits, targets = logits_and_targets(batch, frames, classes, count, blank)
    full = torch.full((batch,), frames), torch.full((batch,), count)
    drawn = torch.randint(1, frames + 1, (batch,)), torch.randint(1, count + 1, (batch,))
    ours = presets.ddtw("CTC-A", blank=blank, reduction="none")
    for lengths in (full, drawn):
        log_probs = logits.log_softmax(2)
        value = ours(log_probs, targets, *lengths)
        expected = ctc_loss(log_probs.transpose(0, 1), targets, *lengths, blank, "none", zero_infinity=False)
        torch.testing.assert_close(value, expected, rtol=1e-10, atol=1e-10)
        finite = ctc_loss(log_probs.transpose(0, 1), targets, *lengths, blank, "none", zero_infinity=True)
        weights = torch.rand(batch, dtype=torch.float64)
        slopes = [grad(v, logits, weights, retain_graph=True)[0] for v in (value, finite)]
        torch.testing.assert_close(*slopes, rtol=0, atol=1e-10)


def test_ctc_a_without_lengths_is_ctc_of_everything():
    logits, targets = logits_and_targets(3, 15, 4, 5)
    value = presets.ddtw("CTC-A", reduction="sum")(logits.log_softmax(2), targets)
    lengths = torch.tensor([15] * 3), torch.tensor([5] * 3)
    expected = ctc_loss(logits.log_softmax(2).transpose(0, 1), targets, *lengths, reduction="sum")
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=0)


def test_infeasible_items_are_infinite_and_have_no_gradient():
    logits = torch.randn(4, 5, 3, dtype=torch.float64, requires_grad=True)
    targets = torch.tensor([[1, 1, 1], [1, 2, 1], [1, 1, 2], [2, 1, 2]])
    lengths = torch.tensor([4, 3, 4, 2])  # needs 5, 3, 4 and 3 frames
    value = presets.ddtw("CTC-A", reduction="none")(logits.log_softmax(2), targets, lengths)
    assert value.isinf().tolist() == [True, False, False, True]
    (slope,) = grad(value[[0, 3]].sum(), logits)
    assert not slope.any()


def test_in_float32():
    logits, targets = logits_and_targets(2, 60, 6, 20)
    for name in presets.names():
        loss = presets.ddtw(name)
        single, double = logits.detach().float().log_softmax(2), logits.detach().log_softmax(2)
        torch.testing.assert_close(loss(single, targets).double(), loss(double, targets), rtol=1e-5, atol=0)
        half = logits.detach().half().log_softmax(2)
        assert torch.equal(loss(half, targets), loss(half.float(), targets))


# ---------------------------------------------------------------- the table, cell by cell


def table_weights(name: str, labels: list, w_h: float) -> np.ndarray:
    """(2 M + 1, 3): weights of (1, 0), (1, 1), (1, 2) into blank, label, blank, ... as Section VII-A tells them."""
    blank = {"A": 1.0, "B": 2.0, "C": INF}[name[4]]
    weights = np.full((2 * len(labels) + 1, 3), INF)
    for column in range(2 * len(labels) + 1):
        if column % 2 == 0:
            weights[column, :2] = blank
            is_between = 0 < column < 2 * len(labels)
            if is_between and np.array_equal(labels[column // 2 - 1], labels[column // 2]):
                weights[column, 1] = 1  # the blank between equal labels must be passed
        else:
            weights[column] = w_h, 1, 1
            label = column // 2
            if label > 0 and np.array_equal(labels[label - 1], labels[label]):
                weights[column, 2] = INF
    return weights


def blank_lattice(cost: np.ndarray, name: str, labels: list, w_h: float) -> reference.Lattice:
    n, m = cost.shape
    start, end = np.full((n, m), INF), np.full((n, m), INF)
    start[0, :2] = end[-1, -2:] = 0
    return reference.lattice(cost, CTC_STEPS, table_weights(name, labels, w_h)[None], start, end)


@pytest.mark.parametrize(("suffix", "w_h"), [("", None), ("-W", None), ("", 0.3), ("-W", 2.0), ("", 0.0), ("", INF)])
@pytest.mark.parametrize("name", WITH_BLANKS)
def test_settings_with_blanks_cell_by_cell(name, suffix, w_h):
    logits, targets = logits_and_targets(3, 11, 4, 4, blank=2)
    x_lengths, y_lengths = [11, 9, 7], [4, 3, 1]
    log_probs = logits.log_softmax(2)
    loss = presets.ddtw(name + suffix, gamma=0.8, w_h=w_h, blank=2, reduction="none")
    value = loss(log_probs, targets, torch.tensor(x_lengths), torch.tensor(y_lengths))
    align = loss.alignment(log_probs, targets, torch.tensor(x_lengths), torch.tensor(y_lengths))
    paths = loss.best_path(log_probs, targets, torch.tensor(x_lengths), torch.tensor(y_lengths))
    weight = w_h if w_h is not None else 0.1 if suffix else 1.0
    for b, (n, m) in enumerate(zip(x_lengths, y_lengths, strict=True)):
        labels = targets[b, :m].tolist()
        extended = [2, *itertools.chain.from_iterable((label, 2) for label in labels)]
        problem = blank_lattice(-log_probs[b, :n].detach().numpy()[:, extended], name, labels, weight)
        expected = reference.gradients(problem, 0.8)
        assert value[b].item() == pytest.approx(expected.value, rel=1e-12)
        np.testing.assert_allclose(align[b, :n, : 2 * m + 1].detach().numpy(), expected.cost, rtol=0, atol=1e-12)
        assert not align[b, n:].any()
        assert paths[b].tolist() == [list(cell) for cell in reference.best_path(problem)]


@pytest.mark.parametrize("name", WITH_BLANKS)
def test_padding_repeats_no_label(name):
    """Padding is filled with 0, which may be the last label."""
    logits, _ = logits_and_targets(1, 8, 4, 3, blank=2)
    targets = torch.tensor([[1, 0, 0]])
    loss, lengths = presets.ddtw(name, blank=2), torch.tensor([2])
    x = logits.log_softmax(2)
    torch.testing.assert_close(loss(x, targets, y_lengths=lengths), loss(x, targets[:, :2]))
    vectors, frames = torch.zeros(1, 3, 2), torch.rand(1, 8, 3)
    torch.testing.assert_close(loss(frames, vectors, y_lengths=lengths), loss(frames, vectors[:, :2]))
    assert torch.equal(loss.step_weights(targets, lengths)[:, :5], loss.step_weights(targets[:, :2]))


@pytest.mark.parametrize("name", WITH_BLANKS)
def test_blanks_of_multiple_labels(name):
    """p(blank) = x_0 and p(labels) = (1 - x_0) prod_d x_d^y_d (1 - x_d)^(1 - y_d); labels repeat when all are equal."""
    x = 0.02 + 0.96 * torch.rand(2, 10, 4, dtype=torch.float64)
    targets = torch.tensor([[[1, 0, 1], [1, 0, 1], [0, 0, 1]], [[0, 0, 0], [1, 1, 1], [1, 1, 0]]])
    loss = presets.ddtw(name, reduction="none")
    for kind in (targets, targets.double(), targets.float(), targets.bool()):
        value = loss(x, kind, None, torch.tensor([3, 2]))
        for b, m in enumerate((3, 2)):
            frames, labels = x[b].numpy(), targets[b, :m].numpy()
            cost = np.empty((10, 2 * m + 1))
            cost[:, ::2] = -np.log(frames[:, :1])
            for k, label in enumerate(labels):
                of_labels = np.where(label == 1, frames[:, 1:], 1 - frames[:, 1:]).prod(1)
                cost[:, 2 * k + 1] = -np.log((1 - frames[:, 0]) * of_labels)
            expected = reference.gradients(blank_lattice(cost, name, list(labels), 1.0)).value
            assert value[b].item() == pytest.approx(expected, rel=1e-12)


def test_logarithms_of_probabilities_0_and_1_are_clamped():
    x = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [1.0, 0.5]]], dtype=torch.float64, requires_grad=True)
    value = presets.ddtw("CTC-A", gamma=1e-3, reduction="none")(x, torch.ones(1, 1, 1))
    assert value.item() == pytest.approx(0, abs=1e-9)  # blank, label, blank, each of probability 1
    impossible = torch.zeros(1, 1, 2, dtype=torch.float64, requires_grad=True)
    value = presets.ddtw("CTC-A", gamma=1e-3)(impossible, torch.ones(1, 1, 1))
    assert value.item() == pytest.approx(100)
    assert grad(value, impossible)[0].isfinite().all()


@pytest.mark.parametrize("w_h", [None, 0.25])
@pytest.mark.parametrize("suffix", ["", "-W"])
@pytest.mark.parametrize("name", ["SDTW-D", "SDTW-E", "1-1-2", "2-1-softDTW", "subsequence-softDTW"])
@pytest.mark.parametrize("kind", ["single", "multiple"])
def test_settings_without_blanks(kind, name, suffix, w_h):
    steps, weights, ends = PLAIN[name]
    if (1, 0) not in steps and (suffix or w_h is not None):
        assert name + "-W" not in presets.names()
        return
    if kind == "single":
        logits, targets = logits_and_targets(2, 9, 5, 6)
        x, metric = logits.log_softmax(2), "nll"
    else:
        x, targets = torch.rand(2, 9, 5, dtype=torch.float64), torch.rand(2, 6, 5).round()
        metric = "bce" if name.startswith("SDTW") else "sqeuclidean"
    weight = w_h if w_h is not None else 0.1 if suffix else 1.0
    own = tuple(weight if step == (1, 0) else w for step, w in zip(steps, weights, strict=True))
    expected = dalign.DDTW(steps, own, ends, ends, metric=metric, reduction="none")
    ours = presets.ddtw(name + suffix, w_h=w_h, reduction="none")
    lengths = torch.tensor([9, 8]), torch.tensor([6, 5])
    y = targets if kind == "single" else targets.double()
    torch.testing.assert_close(ours(x, targets, *lengths), expected(x, y, *lengths), rtol=1e-14, atol=0)
    torch.testing.assert_close(ours.alignment(x, targets, *lengths), expected.alignment(x, y, *lengths))
    paths = ours.best_path(x, targets), expected.best_path(x, y)
    assert all(torch.equal(a, b) for a, b in zip(*paths, strict=True))
    given = ours.step_weights(targets)
    assert given.shape == (2, 6, len(steps))
    assert (given == torch.tensor(own, dtype=torch.float64)).all()


def test_a_setting_takes_another_metric():
    x, y = torch.randn(2, 8, 3), torch.randn(2, 5, 3)
    for metric in ("euclidean", "cosine", "manhattan"):
        ours = presets.ddtw("1-1-2", metric=metric)(x, y)
        torch.testing.assert_close(ours, dalign.DDTW(step_weights=(1, 1, 2), metric=metric)(x, y))


# ---------------------------------------------------------------- EM


@pytest.mark.parametrize("lengths", [None, ([12, 7, 3, 12], [5, 5, 4, 1])])
def test_em_repeats_targets_uniformly(lengths):
    logits, targets = logits_and_targets(4, 12, 6, 5)
    x = logits.log_softmax(2)
    loss = presets.ddtw("EM", reduction="none")
    tensors = () if lengths is None else tuple(torch.tensor(side) for side in lengths)
    value, paths = loss(x, targets, *tensors), loss.best_path(x, targets, *tensors)
    (slope,) = grad(value.sum(), logits)
    for b in range(4):
        n, m = (12, 5) if lengths is None else (lengths[0][b], lengths[1][b])
        repeated = targets[b, [k * m // n for k in range(n)]]
        alone = x[b : b + 1, :n].detach().requires_grad_()
        expected = dalign.DDTW(step_weights=(1, 1, 1.5), smoothing="hardmin", metric="nll")
        own = expected(alone, repeated[None])
        torch.testing.assert_close(value[b], own)
        assert torch.equal(paths[b], expected.best_path(alone, repeated[None])[0])
        assert not slope[b, n:].any()


def test_em_of_vectors():
    x, targets = torch.rand(2, 9, 3), torch.rand(2, 4, 3).round()
    at = torch.tensor([k * 4 // 9 for k in range(9)])
    expected = dalign.DDTW(step_weights=(1, 1, 1.5), smoothing="hardmin", metric="bce")(x, targets[:, at])
    torch.testing.assert_close(presets.ddtw("EM")(x, targets), expected)


# ---------------------------------------------------------------- options


@pytest.mark.parametrize("name", ["CTC-A", "SDTW-E", "EM"])
def test_normalisations_and_reductions(name):
    logits, targets = logits_and_targets(3, 14, 5, 4)
    x, lengths = logits.log_softmax(2), (torch.tensor([14, 11, 12]), torch.tensor([4, 1, 3]))
    plain = presets.ddtw(name, reduction="none")(x, targets, *lengths)
    frames, columns = lengths[0].double(), lengths[1].double()
    columns = {"CTC-A": 2 * columns + 1, "SDTW-E": columns, "EM": frames}[name]
    divisors = {
        "N": frames,
        "M": columns,
        "NM": frames * columns,
        "paper": (columns - 1).clamp(min=1) / 2,
        None: torch.ones(3, dtype=torch.float64),
    }
    for kind, divisor in divisors.items():
        for reduction, reduce in (("none", lambda v: v), ("mean", torch.mean), ("sum", torch.sum)):
            loss = presets.ddtw(name, normalize=kind, reduction=reduction)
            torch.testing.assert_close(loss(x, targets, *lengths), reduce(plain / divisor))
    whole = presets.ddtw(name, normalize="NM")(x, targets)
    size = {"CTC-A": 9, "SDTW-E": 4, "EM": 14}[name] * 14
    torch.testing.assert_close(whole, presets.ddtw(name)(x, targets) / size)


def test_targets_beyond_their_lengths_may_be_anything():
    logits, targets = logits_and_targets(3, 10, 4, 4)
    lengths = torch.tensor([4, 2, 1])
    other = targets.clone()
    other[1, 2:], other[2, 1:] = -100, 99
    frames = torch.rand(3, 10, 5)
    vectors = torch.rand(3, 4, 4).round()
    poisoned = vectors.clone()
    poisoned[1, 2:] = poisoned[2, 1:] = math.nan
    for name in presets.names():
        loss = presets.ddtw(name, reduction="none")
        x = logits.log_softmax(2)
        assert torch.equal(loss(x, other, y_lengths=lengths), loss(x, targets, y_lengths=lengths))
        f = frames if name.startswith("CTC") else frames[..., 1:]
        assert torch.equal(loss(f, poisoned, y_lengths=lengths), loss(f, vectors, y_lengths=lengths))


def test_frames_beyond_their_lengths_may_be_anything():
    logits, targets = logits_and_targets(2, 10, 4, 3)
    poisoned = logits.log_softmax(2).detach().clone()
    poisoned[1, 7:] = math.nan
    poisoned.requires_grad_()
    for name in presets.names():
        value = presets.ddtw(name, reduction="none")(poisoned, targets, torch.tensor([10, 7]))
        clean = presets.ddtw(name, reduction="none")(logits.log_softmax(2), targets, torch.tensor([10, 7]))
        torch.testing.assert_close(value, clean)
        (slope,) = grad(value.sum(), poisoned)
        assert slope.isfinite().all()
        assert not slope[1, 7:].any()


def test_names_and_what_a_setting_tells():
    assert set(presets.names()) == {
        *WITH_BLANKS,
        *WITHOUT_BLANKS,
        *(f"{name}-W" for name in (*WITH_BLANKS, *WITHOUT_BLANKS) if name != "2-1-softDTW"),
    }
    assert presets.ddtw("CTC-A").steps == CTC_STEPS
    assert presets.ddtw("CTC-A").has_blank
    assert not presets.ddtw("SDTW-D").has_blank
    assert presets.ddtw("SDTW-E-W").label_weights == (0.1, 1, 1)
    assert presets.ddtw("SDTW-E-W", w_h=0.5).label_weights == (0.5, 1, 1)
    assert repr(presets.ddtw("CTC-B")) == "DDTWPreset('CTC-B', gamma=1)"
    loss = presets.ddtw("CTC-B-W", gamma=0.5, w_h=0.2, normalize="N", blank=3, reduction="sum")
    assert repr(loss) == "DDTWPreset('CTC-B-W', gamma=0.5, w_h=0.2, normalize='N', blank=3, reduction='sum')"
    assert repr(presets.ddtw("1-1-2", metric="cosine")) == "DDTWPreset('1-1-2', gamma=1, metric='cosine')"


def test_copies_pickles_and_state():
    logits, targets = logits_and_targets(2, 9, 4, 3)
    loss = presets.ddtw("CTC-C-W", gamma=nn.Parameter(torch.tensor(0.7)))
    for twin in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):
        assert torch.equal(twin(logits.log_softmax(2), targets), loss(logits.log_softmax(2), targets))
    assert list(loss.state_dict()) == ["gamma"]
    assert presets.ddtw("CTC-A").state_dict() == {}


# ---------------------------------------------------------------- derivatives, compilation


@pytest.mark.parametrize("name", ["CTC-A", "CTC-C-W", "SDTW-D", "EM"])
def test_gradcheck_of_single_labels(name):
    logits, targets = logits_and_targets(2, 6, 3, 2)
    gamma = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)

    def value(logits: Tensor, gamma: Tensor) -> Tensor:
        return presets.ddtw(name, gamma=gamma, reduction="none")(
            logits.log_softmax(2), targets, torch.tensor([6, 5]), torch.tensor([2, 1])
        )

    assert gradcheck(value, (logits, gamma))
    if name == "CTC-C-W":
        assert gradgradcheck(value, (logits, gamma))


@pytest.mark.parametrize("name", ["CTC-A", "CTC-B", "SDTW-E-W"])
def test_gradcheck_of_multiple_labels(name):
    x = (0.1 + 0.8 * torch.rand(2, 5, 3, dtype=torch.float64)).requires_grad_()
    targets = torch.rand(2, 2, 2 + (name == "SDTW-E-W")).round()
    assert gradcheck(lambda x: presets.ddtw(name, reduction="none")(x, targets), (x,))


@pytest.mark.parametrize("name", ["CTC-A", "EM", "SDTW-E-W"])
def test_compiles_whole(name):
    torch._dynamo.reset()
    logits, targets = logits_and_targets(2, 9, 4, 3)
    loss = presets.ddtw(name, normalize="paper")
    arguments = targets, torch.tensor([9, 8]), torch.tensor([3, 2])

    def step(logits: Tensor) -> Tensor:
        return loss(logits.log_softmax(2), *arguments)

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    with torch._dynamo.config.patch(error_on_recompile=True):
        for gamma in (1.0, 0.3):
            loss.gamma = gamma
            values = compiled(logits), step(logits)
            torch.testing.assert_close(*values)
            torch.testing.assert_close(*(grad(value, logits)[0] for value in values))
    torch._dynamo.reset()


# ---------------------------------------------------------------- annealing


@pytest.mark.parametrize("loss", [dalign.SoftDTW(), dalign.DDTW(), presets.ddtw("SDTW-E")], ids=type)
def test_annealing_is_geometric_and_stops(loss):
    schedule = presets.GammaAnnealing(loss, first=10.0, last=0.01, steps=3)
    seen = []
    for _ in range(6):
        seen.append(loss.gamma.item())
        schedule.step()
    assert seen == pytest.approx([10, 1, 0.1, 0.01, 0.01, 0.01])


def test_annealing_goes_on_where_it_stopped():
    first, second = dalign.SoftDTW(), dalign.SoftDTW()
    schedule = presets.GammaAnnealing(first, 8.0, 0.5, steps=4)
    schedule.step()
    schedule.step()
    again = presets.GammaAnnealing(second, 8.0, 0.5, steps=4)
    again.load_state_dict(pickle.loads(pickle.dumps(schedule.state_dict())))
    assert second.gamma.item() == first.gamma.item() == pytest.approx(2)
    for each in (schedule, again):
        each.step()
    assert second.gamma.item() == first.gamma.item() == pytest.approx(1)
    fresh = presets.GammaAnnealing(second, 8.0, 0.5, steps=4)
    again.load_state_dict(fresh.state_dict())
    assert second.gamma.item() == 8


# ---------------------------------------------------------------- misuse

X, TARGETS = torch.randn(2, 6, 4).log_softmax(2), torch.tensor([[1, 2], [3, 1]])
VECTORS = torch.ones(2, 3, 4)


def called(*arguments: Any, name: str = "CTC-A", **options: Any) -> Any:
    return lambda: presets.ddtw(name, **options)(*arguments)


MISUSES = {
    "an unknown name": (lambda: presets.ddtw("CTC-D"), ValueError, "name must be one of .*'CTC-A'.*'CTC-D'"),
    "no step to weigh": (lambda: presets.ddtw("2-1-softDTW", w_h=0.1), ValueError, "which '2-1-softDTW' has not"),
    "a setting that has no -W": (lambda: presets.ddtw("2-1-softDTW-W"), ValueError, "name must be one of"),
    "a negative w_h": (lambda: presets.ddtw("CTC-A", w_h=-1), ValueError, "w_h must be a number >= 0, got -1"),
    "w_h that is NaN": (lambda: presets.ddtw("CTC-A", w_h=math.nan), ValueError, "w_h must be a number >= 0"),
    "w_h of another type": (lambda: presets.ddtw("CTC-A", w_h="low"), TypeError, "w_h must be a number"),
    "an unknown normalisation": (lambda: presets.ddtw("CTC-A", normalize="T"), ValueError, "normalize must be one of"),
    "an unknown metric": (lambda: presets.ddtw("SDTW-E", metric="hamming"), ValueError, "metric must be one of"),
    "a metric beside blanks": (lambda: presets.ddtw("CTC-A", metric="nll"), ValueError, "blanks have a cost"),
    "a reduction": (lambda: presets.ddtw("CTC-A", reduction="avg"), ValueError, "reduction must be one of"),
    "gamma": (lambda: presets.ddtw("CTC-A", gamma=0), ValueError, "gamma must be positive"),
    "a negative blank": (lambda: presets.ddtw("CTC-A", blank=-1), ValueError, "blank must be a class index >= 0"),
    "half a blank": (lambda: presets.ddtw("CTC-A", blank=0.5), TypeError, "blank must be a class index"),
    "a blank that is no class": (called(X, TARGETS, blank=4), ValueError, r"blank = 4 is not a class of x, .*\[0, 4\)"),
    "a label that is no class": (called(X, TARGETS + 1), ValueError, r"targets\[1, 0\] = 4 is not a class index"),
    "labels of numbers": (called(X, TARGETS.float()), TypeError, "must be integer class indices, got torch.float32"),
    "labels of one dimension": (called(X, TARGETS[0]), ValueError, "targets must be class indices"),
    "no label": (called(X, TARGETS[:, :0]), ValueError, r"M, D >= 1, got shape \(2, 0\)"),
    "labels of another batch": (called(X, TARGETS[:1]), ValueError, "same batch size"),
    "vectors beside the blank": (called(X, VECTORS), ValueError, "D = 3 .*holds the blank"),
    "vectors too short": (called(X, VECTORS[..., 1:], name="SDTW-E"), ValueError, r"with D = 4, got \(2, 3, 3\)"),
    "two dimensions": (called(X[0], TARGETS), ValueError, "x must have shape"),
    "integers": (called(X.long(), TARGETS), TypeError, "x must be a floating-point tensor"),
    "no tensor": (called(X, [[1, 2], [3, 1]]), TypeError, "targets must be a tensor"),
    "frames": (called(X, TARGETS, torch.tensor([7, 1])), ValueError, r"x_lengths\[0\] = 7 is outside \[1, 6\]"),
    "count": (called(X, TARGETS, None, torch.tensor([2, 0])), ValueError, r"y_lengths\[1\] = 0 is outside \[1, 2\]"),
    "annealing from 0": (
        lambda: presets.GammaAnnealing(dalign.SoftDTW(), 0, 1, 2),
        ValueError,
        "first must be positive",
    ),
    "annealing to inf": (
        lambda: presets.GammaAnnealing(dalign.SoftDTW(), 1, INF, 2),
        ValueError,
        "last must be positive",
    ),
    "no step": (lambda: presets.GammaAnnealing(dalign.SoftDTW(), 1, 0.1, 0), ValueError, "steps must be at least 1"),
}


@pytest.mark.parametrize("what", MISUSES)
def test_misuse(what):
    call, error, message = MISUSES[what]
    with pytest.raises(error, match=message):
        call()
