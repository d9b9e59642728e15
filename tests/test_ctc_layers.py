"""Multi-label CTC and forced alignment against their references; CTC modules in training scripts; misuse."""

from __future__ import annotations

import copy
import io
import math
import pickle
import re
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import ctc as reference
from test_ctc import DTYPES, Batch, make, relative
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import torch_dalign as dalign
from torch_dalign import functional

INF = math.inf

# ---------------------------------------------------------------- multi-label CTC


def sets(batch: int, size: int, width: int, seed: int = 0) -> Tensor:
    """Multi-hot sets, some equal to the one before, some empty."""
    generator = torch.Generator().manual_seed(seed)
    y = (torch.rand(batch, size, width, generator=generator) < 0.3).double()
    for m in range(1, size):
        same = torch.rand(batch, generator=generator) < 0.3
        y[same, m] = y[same, m - 1]
    return y


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1, 1), (5, 2, 3), (40, 9, 12), (60, 25, 4)])
def test_label_sets(shape, dtype):
    n, m, d = shape
    x, y = torch.rand(3, n, 1 + d).to(dtype), sets(3, m, d)
    x_lengths, y_lengths = torch.tensor([n, n, max(1, n - 3)]), torch.tensor([m, 0, max(0, m - 1)])
    leaf = x.clone().requires_grad_()
    loss = dalign.MCTCLoss("none")
    values = loss(leaf, y, x_lengths, y_lengths)
    align = loss.alignment(leaf, y, x_lengths, y_lengths)
    assert values.dtype == dtype
    tolerance = 1e-11 if dtype == torch.float64 else 1e-5
    for b, (frames, size) in enumerate(zip(x_lengths.tolist(), y_lengths.tolist(), strict=True)):
        given_sets = y[b, :size].numpy()
        log_probs = reference.set_log_probs(x[b, :frames].double().numpy(), given_sets)
        classes = reference.set_classes(given_sets)
        assert relative(values[b], np.asarray(reference.value(log_probs, classes))) <= tolerance
        assert relative(align[b, :frames, : 2 * size + 1], reference.alignment(log_probs, classes)) <= 10 * tolerance


def test_equal_sets_need_a_blank_between_them():
    x = torch.rand(1, 4, 3, dtype=torch.float64)
    y = torch.tensor([[[1, 0], [1, 0], [0, 1]]])
    log_probs = reference.set_log_probs(x[0].numpy(), y[0].double().numpy())
    value, _ = reference.enumerated(log_probs, [1, 1, 3])
    assert dalign.MCTCLoss("sum")(x, y).item() == pytest.approx(value, rel=1e-13)
    assert dalign.MCTCLoss("sum")(x[:, :3], y) == INF
    assert dalign.MCTCLoss("sum", zero_infinity=True)(x[:, :3], y) == 0


def test_one_label_at_a_time_is_ctc_with_other_probabilities():
    """Sets of one label each: the log-probabilities of CTC may be any numbers."""
    x = torch.rand(2, 30, 1 + 5, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([[1, 2, 2, 5], [3, 1, 4, 4]])
    value = dalign.MCTCLoss()(x, F.one_hot(labels - 1, 5))
    off = (1 - x).log().sum(2, keepdim=True)
    log_probs = torch.cat((x[..., :1].log(), off + x[..., 1:].log() - (1 - x[..., 1:]).log()), 2)
    expected = functional.ctc_loss(log_probs.transpose(0, 1), labels, (30, 30), (4, 4))
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(torch.autograd.grad(value, x)[0], torch.autograd.grad(expected, x)[0])


def test_derivatives_of_label_sets():
    x = (0.1 + 0.8 * torch.rand(2, 6, 4, dtype=torch.float64)).requires_grad_()
    y, lengths = sets(2, 3, 3), torch.tensor([3, 1])
    loss = dalign.MCTCLoss(zero_infinity=True)
    assert torch.autograd.gradcheck(lambda x: loss(x, y, y_lengths=lengths), x)
    assert torch.autograd.gradgradcheck(lambda x: loss(x, y, y_lengths=lengths), x)
    assert torch.autograd.gradcheck(lambda x: loss.alignment(x, y, y_lengths=lengths), x)


@pytest.mark.parametrize("dtype", DTYPES)
def test_sure_activities_are_clamped(dtype):
    y = sets(1, 3, 4)
    x = torch.zeros(1, 5, 5, dtype=dtype)
    x[0, 0, 1:] = y[0, 0]
    x[0, 2, 0] = 1
    leaf = x.requires_grad_()
    value = dalign.MCTCLoss("sum")(leaf, y)
    log_probs = reference.set_log_probs(x[0].detach().double().numpy(), y[0].numpy())
    assert value.item() == pytest.approx(reference.value(log_probs, reference.set_classes(y[0].numpy())), rel=1e-6)
    value.backward()
    assert leaf.grad.isfinite().all()


def test_label_sets_of_any_type_and_padding():
    x, y = torch.rand(2, 20, 5), sets(2, 4, 4)
    lengths = torch.tensor([20, 12]), torch.tensor([4, 2])
    expected = dalign.MCTCLoss()(x, y, *lengths)
    for other in (y.bool(), y.int(), y.half(), y.to(torch.uint8)):
        assert torch.equal(dalign.MCTCLoss()(x, other, *lengths), expected)
    assert torch.equal(dalign.MCTCLoss()(x, y, lengths[0].tolist(), tuple(lengths[1].tolist())), expected)
    x[1, 12:], y[1, 2:] = math.nan, math.nan
    leaf = x.requires_grad_()
    value = dalign.MCTCLoss()(leaf, y, *lengths)
    value.backward()
    assert torch.equal(value, expected)
    assert not leaf.grad[1, 12:].any()
    assert leaf.grad.isfinite().all()
    x = x.detach().clone()
    x[0, 3, 2] = math.nan
    assert dalign.MCTCLoss("none")(x, y, *lengths).isnan().tolist() == [True, False]
    assert dalign.MCTCLoss()(torch.rand(2, 20, 5).half(), y[:, :0]).dtype == torch.float32


# ---------------------------------------------------------------- forced alignment


def check_path(batch: Batch, blank: int = 0) -> None:
    """States, labels, spans and scores of a batch against the reference."""
    found = dalign.ctc_align(*batch, blank)
    kind = batch.log_probs.dtype
    assert found.scores.dtype == found.value.dtype == kind
    for b, (log_probs, labels) in enumerate(batch.items):
        value, states = reference.best_path(log_probs, labels, blank)
        frames, size = len(states), len(labels)
        torch.testing.assert_close(found.value[b], torch.tensor(value, dtype=kind))
        assert found.states[b, :frames].tolist() == states
        assert (found.states[b, frames:] == -1).all()
        assert (found.labels[b, frames:] == -1).all()
        assert found.labels[b, :frames].tolist() == reference.classes(labels, blank)[states].tolist()
        for k in range(found.spans.shape[1]):
            within = [t for t, s in enumerate(states) if s == 2 * k + 1]
            assert found.spans[b, k].tolist() == ([within[0], within[-1] + 1] if within else [-1, -1])
            mean = log_probs[within, labels[k]].mean() if within else (-INF if k < size else 0.0)
            torch.testing.assert_close(found.scores[b, k], torch.tensor(mean, dtype=kind))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 2, 3, 0), (4, 3, 3, 3), (50, 3, 6, 12), (200, 2, 9, 40)])
def test_forced_alignment(shape, dtype):
    check_path(make(*shape, dtype=dtype))
    check_path(make(*shape, dtype=dtype, blank=2), blank=2)


@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_forced_alignment_of_any_batch(data):
    frames, batch, classes = (data.draw(st.integers(1, high)) for high in (30, 3, 5))
    found = make(frames, batch, classes, data.draw(st.integers(0, 12)), seed=data.draw(st.integers(0, 2**31)))
    if data.draw(st.booleans()):  # equally good paths
        found = found._replace(log_probs=found.log_probs.round())
    check_path(found)


def test_forced_alignment_of_concatenated_targets_logits_and_single_items():
    batch = make(40, 3, 6, 7)
    expected = dalign.ctc_align(*batch)
    joined = torch.cat([row[:size] for row, size in zip(batch.targets, batch.target_lengths.tolist(), strict=True)])
    found = dalign.ctc_align(batch.log_probs, joined, *batch[2:])
    for part, other in zip(found, expected, strict=True):
        assert torch.equal(part, other)
    alone = dalign.ctc_align(batch.log_probs[:, 0], batch.targets[0], (40,), (7,))
    for part, other in zip(alone, expected, strict=True):
        assert torch.equal(part, other[0])
    logits = dalign.ctc_align(batch.log_probs + 3, *batch[1:], from_logits=True)
    assert torch.equal(logits.states, expected.states)
    torch.testing.assert_close(logits.scores, expected.scores)


def test_forced_alignment_without_a_path_and_with_nan():
    batch = make(20, 4, 6, 3, ragged=False)
    batch.input_lengths[1] = 2
    batch.log_probs[5, 2, batch.targets[2, 1]] = math.nan
    batch.input_lengths[3], batch.target_lengths[3] = 0, 0
    found = dalign.ctc_align(*batch)
    assert found.value[1] == INF
    assert found.value[2].isnan()
    assert found.value[3] == 0
    assert (found.scores[1] == -INF).all()
    assert found.scores[2].isnan().all()
    assert not found.scores[3].any()
    for part in (found.states, found.labels, found.spans):
        assert (part[1:] == -1).all()


def test_forced_alignment_is_no_part_of_a_graph():
    batch = make(20, 2, 6, 3)
    assert not any(part.requires_grad for part in dalign.ctc_align(*batch.on(batch.log_probs.requires_grad_())))


# ---------------------------------------------------------------- modules


def test_repr_tells_what_is_not_default():
    assert repr(dalign.CTCLoss()) == "CTCLoss()"
    assert repr(dalign.CTCLoss(3, "sum", True, from_logits=True)) == (
        "CTCLoss(blank=3, reduction='sum', zero_infinity=True, from_logits=True)"
    )
    assert repr(dalign.MCTCLoss("none", True)) == "MCTCLoss(reduction='none', zero_infinity=True)"


def test_copies_and_pickles():
    batch = make(20, 3, 6, 4)
    loss = dalign.CTCLoss(1, "sum", True, from_logits=True)
    stored = io.BytesIO()
    torch.save(loss, stored)
    stored.seek(0)
    for twin in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss)), torch.load(stored, weights_only=False)):
        assert torch.equal(twin(*batch), loss(*batch))
    assert loss.state_dict() == {}


def test_autocast_computes_in_float32():
    batch = make(20, 3, 6, 4, dtype=torch.float32)
    net = nn.Linear(6, 6)
    with torch.autocast("cpu", torch.bfloat16):
        logits = net(batch.log_probs)
        value = dalign.CTCLoss(from_logits=True)(*batch.on(logits))
    assert logits.dtype == torch.bfloat16
    assert torch.equal(value, functional.ctc_loss(*batch.on(logits.float()), from_logits=True))
    value.backward()
    assert net.weight.grad.isfinite().all()


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_checkpointing(use_reentrant):
    batch = make(20, 3, 6, 4)
    leaf = batch.log_probs.clone().requires_grad_()
    loss = dalign.CTCLoss(from_logits=True)
    (expected,) = torch.autograd.grad(loss(*batch.on(leaf)), leaf)
    checkpoint(loss, *batch.on(leaf), use_reentrant=use_reentrant).backward()
    assert torch.equal(leaf.grad, expected)


def test_trains_as_torch_does():
    """The same seed gives the same losses step by step, with the import alone exchanged."""
    batch = make(30, 4, 6, 5, ragged=False)
    curves = []
    for loss in (nn.CTCLoss(), dalign.CTCLoss()):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 6)).double()
        optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
        curve = []
        for _ in range(30):
            optimizer.zero_grad()
            value = loss(*batch.on(net(batch.log_probs).log_softmax(2)))
            value.backward()
            optimizer.step()
            curve.append(value.item())
        curves.append(curve)
    np.testing.assert_allclose(*curves, rtol=1e-8)
    assert curves[0][-1] < 0.8 * curves[0][0]


def test_vmap_is_refused():
    batch = make(10, 2, 4, 2)
    with pytest.raises(RuntimeError, match="fold the mapped dimension into the batch"):
        torch.vmap(lambda x: functional.ctc_loss(*batch.on(x)))(torch.rand(3, 10, 2, 4))


# ---------------------------------------------------------------- torch.compile, opcheck


@pytest.fixture
def fresh_dynamo():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.usefixtures("fresh_dynamo")
@pytest.mark.parametrize(
    ("fused", "reduction", "backend"),
    [(False, "mean", "aot_eager"), (True, "none", "aot_eager"), (True, "mean", "inductor")],
)
def test_compile(fused, reduction, backend):
    net = nn.Linear(6, 6)
    loss = dalign.CTCLoss(reduction=reduction, from_logits=fused)

    def step(x: Tensor, *targets: Tensor) -> Tensor:
        logits = net(x)
        return loss(logits if fused else logits.log_softmax(2), *targets).sum()

    compiled = torch.compile(step, fullgraph=True, backend=backend, dynamic=True)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for shape in [(20, 3, 6, 4), (31, 5, 6, 7)]:
            batch = make(*shape, dtype=torch.float32, ragged=False)
            value, expected = compiled(*batch), step(*batch)
            torch.testing.assert_close(value, expected)
            grads = [torch.autograd.grad(v, net.weight)[0] for v in (value, expected)]
            torch.testing.assert_close(*grads)


@pytest.mark.usefixtures("fresh_dynamo")
def test_compile_alignment_label_sets_and_forced_alignment():
    batch = make(20, 3, 6, 4, dtype=torch.float32, ragged=False)
    x, y = torch.rand(3, 20, 5), sets(3, 4, 4)

    def score(log_probs: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        align = dalign.CTCLoss().alignment(*batch.on(log_probs))
        return align.square().sum() + dalign.MCTCLoss()(x, y), dalign.ctc_align(*batch.on(log_probs)).states

    compiled = torch.compile(score, fullgraph=True, backend="aot_eager")
    inputs = batch.log_probs.requires_grad_(), x.requires_grad_()
    (value, states), (expected, expected_states) = compiled(*inputs), score(*inputs)
    assert torch.equal(states, expected_states)
    grads = [torch.autograd.grad(v, inputs) for v in (value, expected)]
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize(("dtype", "transposed"), [(torch.float32, True), (torch.float64, False)])
def test_opcheck(dtype, transposed):
    batch = make(12, 3, 5, 4, dtype=dtype)
    log_probs = batch.log_probs.transpose(0, 1)
    log_probs = log_probs if transposed else log_probs.contiguous()
    targets, weights = (*batch[1:], 0), torch.rand(3, dtype=dtype)
    ops = torch.ops.dalign
    for fused, given_weights, need in ((False, weights, True), (True, None, True), (True, weights, False)):
        torch.library.opcheck(ops.ctc.default, (log_probs, *targets, fused, given_weights, need))
    torch.library.opcheck(ops.ctc_alignment.default, (log_probs, *targets, 9))
    torch.library.opcheck(ops.ctc_align.default, (log_probs, *targets, 4))
    torch.library.opcheck(ops.ctc_hvp.default, (log_probs, torch.rand(3, 12, 5, dtype=dtype), *targets, False))
    torch.library.opcheck(ops.ctc_hvp.default, (log_probs, torch.rand(3, 12, 9, dtype=dtype), *targets, True))


# ---------------------------------------------------------------- misuse

LOG_PROBS = torch.rand(6, 2, 4).log_softmax(2)
TARGETS = torch.tensor([[1, 2], [3, 1]])
GOOD: dict[str, Any] = {
    "log_probs": LOG_PROBS,
    "targets": TARGETS,
    "input_lengths": (6, 6),
    "target_lengths": (2, 2),
}
MISUSES: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"log_probs": [[1.0]]}, TypeError, "log_probs must be a tensor, got list"),
    ({"log_probs": LOG_PROBS.int()}, TypeError, "log_probs must be a floating-point tensor"),
    ({"log_probs": LOG_PROBS[0, 0]}, ValueError, "log_probs must have shape (T, B, C) or (T, C)"),
    ({"log_probs": LOG_PROBS[..., :0]}, ValueError, "with C >= 1, got (6, 2, 0)"),
    ({"targets": [[1, 2], [3, 1]]}, TypeError, "targets must be a tensor, got list"),
    ({"targets": TARGETS.float()}, TypeError, "targets must hold integer class indices, got torch.float32"),
    ({"targets": TARGETS.bool()}, TypeError, "targets must hold integer class indices, got torch.bool"),
    ({"targets": TARGETS[:1]}, ValueError, "targets must have shape (2, S) or (sum of target_lengths,), got (1, 2)"),
    ({"targets": TARGETS[None]}, ValueError, "got (1, 2, 2)"),
    ({"targets": TARGETS.flatten()[:3]}, ValueError, "(sum of target_lengths,) = (4,) when concatenated, got (3,)"),
    ({"targets": TARGETS + 1}, ValueError, "targets[1, 0] = 4 is not a class of log_probs, expected [0, 4)"),
    ({"targets": TARGETS.flatten() - 2}, ValueError, "targets[0] = -1 is not a class of log_probs"),
    ({"input_lengths": (6,)}, ValueError, "input_lengths must have shape (2,), one length per batch item, got (1,)"),
    ({"input_lengths": (6, 7)}, ValueError, "input_lengths[1] = 7 is outside [0, 6]"),
    ({"input_lengths": torch.tensor([-1, 6])}, ValueError, "input_lengths[0] = -1 is outside [0, 6]"),
    ({"input_lengths": torch.tensor([6.0, 6.0])}, TypeError, "input_lengths must hold integers, got torch.float32"),
    ({"input_lengths": 6}, TypeError, "input_lengths must be an integer tensor or a sequence of integers, got int"),
    ({"target_lengths": (2, 3)}, ValueError, "target_lengths[1] = 3 is outside [0, 2]"),
    ({"target_lengths": (2.0, 2.0)}, TypeError, "target_lengths must be an integer tensor or a sequence"),
    ({"target_lengths": torch.tensor(2)}, ValueError, "target_lengths must have shape (2,)"),
    ({"blank": 4}, ValueError, "blank = 4 is not a class of log_probs, expected [0, 4)"),
    ({"blank": -1}, ValueError, "blank = -1 is not a class"),
    ({"blank": 0.0}, TypeError, "blank must be an integer, got float"),
    ({"reduction": "average"}, ValueError, "reduction must be one of 'mean', 'sum', 'none', got 'average'"),
    ({"log_probs": LOG_PROBS[:, 0]}, ValueError, "targets must have shape (S,), got (2, 2)"),
]


@pytest.mark.parametrize(("wrong", "error", "message"), MISUSES, ids=[message for *_, message in MISUSES])
def test_misuse(wrong, error, message):
    options = {**GOOD, **wrong}
    with pytest.raises(error, match=re.escape(message)):
        functional.ctc_loss(**options)
    if not {"blank", "reduction"} & wrong.keys():
        with pytest.raises(error, match=re.escape(message)):
            dalign.ctc_align(**options)
        with pytest.raises(error, match=re.escape(message)):
            dalign.CTCLoss().alignment(**options)


def test_misuse_of_modules():
    with pytest.raises(TypeError, match="blank must be an integer, got str"):
        dalign.CTCLoss("0")
    with pytest.raises(ValueError, match="reduction must be one of"):
        dalign.CTCLoss(reduction="batchmean")
    with pytest.raises(ValueError, match="reduction must be one of"):
        dalign.MCTCLoss("batchmean")


X, Y = torch.rand(2, 6, 4), torch.zeros(2, 3, 3)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda loss: loss(X[0], Y), ValueError, "x must have shape (B, N, 1 + D) with D >= 1, got (6, 4)"),
        (lambda loss: loss(X[..., :1], Y), ValueError, "x must have shape (B, N, 1 + D) with D >= 1, got (2, 6, 1)"),
        (lambda loss: loss(X.int(), Y), TypeError, "x must be a floating-point tensor"),
        (lambda loss: loss(X, None), TypeError, "y must be a tensor, got NoneType"),
        (lambda loss: loss(X, Y[..., :2]), ValueError, "y must have shape (2, M, 3) to fit x of shape (2, 6, 4)"),
        (lambda loss: loss(X, Y[:1]), ValueError, "got (1, 3, 3)"),
        (lambda loss: loss(X, Y.to(torch.complex64)), TypeError, "y must hold 0 and 1, got torch.complex64"),
        (lambda loss: loss(X, Y, (6, 7)), ValueError, "x_lengths[1] = 7 is outside [0, 6]"),
        (lambda loss: loss(X, Y, y_lengths=(4, 3)), ValueError, "y_lengths[0] = 4 is outside [0, 3]"),
    ],
)
def test_misuse_of_label_sets(call, error, message):
    with pytest.raises(error, match=re.escape(message)):
        call(dalign.MCTCLoss())
    with pytest.raises(error, match=re.escape(message)):
        call(dalign.MCTCLoss().alignment)


def test_ops_check_what_could_break_memory():
    """Also behind torch.compile, which sees no values."""
    log_probs, lengths = torch.rand(2, 6, 4), torch.tensor([6, 6])
    bad: list[tuple[Any, ...]] = [
        (TARGETS + 9, lengths, torch.tensor([2, 2]), 0),
        (TARGETS, lengths + 1, torch.tensor([2, 2]), 0),
        (TARGETS, lengths, torch.tensor([2, 3]), 0),
        (TARGETS, lengths, torch.tensor([2, -1]), 0),
        (TARGETS.flatten(), lengths, torch.tensor([2, 3]), 0),
        (TARGETS.int(), lengths, torch.tensor([2, 2]), 0),
        (TARGETS, lengths, torch.tensor([2, 2]), 4),
        (TARGETS[:1], lengths, torch.tensor([2, 2]), 0),
        (TARGETS, lengths[:1], torch.tensor([2, 2]), 0),
    ]
    for targets in bad:
        with pytest.raises(RuntimeError):
            torch.ops.dalign.ctc(log_probs, *targets, False, None, True)
    with pytest.raises(RuntimeError):
        torch.ops.dalign.ctc_alignment(log_probs, TARGETS, lengths, torch.tensor([2, 2]), 0, 4)
    with pytest.raises(RuntimeError):
        torch.ops.dalign.ctc_align(log_probs, TARGETS, lengths, torch.tensor([2, 2]), 0, 1)
    with pytest.raises(RuntimeError):
        torch.ops.dalign.ctc(log_probs.half(), TARGETS, lengths, torch.tensor([2, 2]), 0, False, None, True)
