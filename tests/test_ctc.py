"""CTC loss: against its definition, against torch, at the limits of numbers, twice differentiated, on all ISAs."""

from __future__ import annotations

import itertools
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import ctc as reference
from torch import Tensor
from torch.nn import functional as F

import torch_dalign as dalign
from torch_dalign import functional

INF = math.inf
LEVELS = dalign.build_info()["isa_levels"]
DTYPES = [torch.float64, torch.float32]


class Batch(NamedTuple):
    """What a loss takes."""

    log_probs: Tensor
    targets: Tensor
    input_lengths: Tensor
    target_lengths: Tensor

    def on(self, log_probs: Tensor) -> tuple[Any, ...]:
        return log_probs, *self[1:]

    @property
    def items(self) -> Iterator[tuple[np.ndarray, list[int]]]:
        """Log-probabilities (T_b, C) and labels of each item, in float64."""
        for b, (frames, size) in enumerate(zip(self.input_lengths.tolist(), self.target_lengths.tolist(), strict=True)):
            yield self.log_probs[:frames, b].detach().double().numpy(), self.targets[b, :size].tolist()


def make(
    frames: int,
    batch: int,
    classes: int,
    longest: int,
    *,
    dtype: torch.dtype = torch.float64,
    blank: int = 0,
    scale: float = 1.0,
    ragged: bool = True,
    seed: int = 0,
) -> Batch:
    """Random log-probabilities, and labels of every class but the blank; some items may have no path."""
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(frames, batch, classes, generator=generator, dtype=torch.float64)
    targets = torch.randint(max(classes - 1, 1), (batch, longest), generator=generator)
    targets = targets + (targets >= blank) if classes > 1 else targets
    input_lengths, target_lengths = torch.full((batch,), frames), torch.full((batch,), longest)
    if ragged:
        input_lengths = torch.randint(frames // 2, frames + 1, (batch,), generator=generator)
        target_lengths = torch.randint(longest + 1, (batch,), generator=generator)
        input_lengths[0], target_lengths[0] = frames, longest
    return Batch(logits.log_softmax(2).to(dtype), targets, input_lengths, target_lengths)


def relative(actual: Tensor | np.ndarray, expected: Tensor | np.ndarray) -> float:
    """Largest difference as a share of the largest number expected; infinities must be equal."""
    actual, expected = (np.asarray(torch.as_tensor(x).detach().double()) for x in (actual, expected))
    assert actual.shape == expected.shape
    np.testing.assert_array_equal(np.isinf(actual), np.isinf(expected))
    finite = np.isfinite(expected)
    largest = np.abs(expected[finite]).max(initial=0)
    return float(np.abs(actual[finite] - expected[finite]).max(initial=0) / max(largest, 1e-300))


def both(batch: Batch, from_logits: bool = False, **options: Any) -> tuple[Tensor, Tensor]:
    """Values and the gradient of their sum."""
    leaf = batch.log_probs.detach().clone().requires_grad_()
    values = functional.ctc_loss(*batch.on(leaf), reduction="none", from_logits=from_logits, **options)
    (grad,) = torch.autograd.grad(values.sum(), leaf)
    return values.detach(), grad


def torch_from_logits(batch: Batch, **options: Any) -> tuple[Tensor, Tensor]:
    """Torch's value, and gradient with respect to logits, in float64, without the NaN of items that have no path."""
    leaf = batch.log_probs.detach().double().requires_grad_()
    log_probs = leaf.log_softmax(2)
    values = F.ctc_loss(*batch.on(log_probs), **options)
    (grad,) = torch.autograd.grad(F.ctc_loss(*batch.on(log_probs), **{**options, "zero_infinity": True}).sum(), leaf)
    return values.detach(), grad


def ours_from_logits(batch: Batch, fused: bool, **options: Any) -> tuple[Tensor, Tensor]:
    leaf = batch.log_probs.detach().clone().requires_grad_()
    log_probs = leaf if fused else leaf.log_softmax(2)
    values = functional.ctc_loss(*batch.on(log_probs), **options, from_logits=fused)
    (grad,) = torch.autograd.grad(values.sum(), leaf)
    return values.detach(), grad


# ---------------------------------------------------------------- against the definition


@pytest.mark.parametrize(
    ("frames", "size", "blank"), [(1, 0, 0), (1, 1, 2), (2, 1, 1), (3, 2, 0), (4, 2, 2), (5, 3, 1)]
)
def test_every_path_is_counted_once(frames, size, blank):
    log_probs = make(frames, 1, 3, 0).log_probs[:, 0]
    others = [c for c in range(3) if c != blank]
    for labels in itertools.product(others, repeat=size):
        value, align = reference.enumerated(log_probs.numpy(), labels, blank)
        batch = Batch(log_probs[:, None], torch.tensor([labels], dtype=torch.int64), *torch.tensor([[frames], [size]]))
        found, grad = both(batch, blank=blank)
        np.testing.assert_allclose(found.item(), value, rtol=1e-13)
        found_align = dalign.CTCLoss(blank).alignment(*batch)[0]
        np.testing.assert_allclose(found_align.numpy(), align, atol=1e-13)
        np.testing.assert_allclose(reference.alignment(log_probs.numpy(), labels, blank), align, atol=1e-13)
        by_class = np.stack([align[:, reference.classes(labels, blank) == c].sum(1) for c in range(3)], 1)
        np.testing.assert_allclose(grad[:, 0].numpy(), -by_class, atol=1e-13)


# T, B, C, S: on both sides of what vectors (2 to 16 lanes) and blocks of frames (16) hold
SHAPES = [
    (1, 1, 1, 0),
    (2, 2, 2, 1),
    (15, 3, 4, 3),
    (16, 2, 40, 7),
    (17, 3, 3, 8),
    (33, 2, 5, 15),
    (48, 2, 9, 16),
    (70, 3, 6, 31),
    (130, 2, 70, 64),
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("blank", [0, -1])
def test_against_the_reference(shape, blank, dtype):
    batch = make(*shape, dtype=dtype, blank=blank % shape[2], seed=sum(shape))
    blank %= shape[2]
    values, grad = both(batch, blank=blank)
    align = dalign.CTCLoss(blank).alignment(*batch)
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    for b, (log_probs, labels) in enumerate(batch.items):
        frames, states = len(log_probs), 2 * len(labels) + 1
        assert relative(values[b], np.asarray(reference.value(log_probs, labels, blank))) <= tolerance / 10
        assert relative(grad[:frames, b], reference.gradient(log_probs, labels, blank)) <= tolerance
        assert relative(align[b, :frames, :states], reference.alignment(log_probs, labels, blank)) <= tolerance
        assert not grad[frames:, b].any()
        assert not align[b, frames:].any()
        assert not align[b, :, states:].any()
        if values[b] < INF and frames:
            np.testing.assert_allclose(align[b, :frames].sum(1).numpy(), 1, rtol=1e-5)


# ---------------------------------------------------------------- against torch


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("zero_infinity", [False, True])
@pytest.mark.parametrize("blank", [0, 3, 5])
def test_drop_in(fused, reduction, zero_infinity, blank):
    batch = make(20, 6, 6, 12, blank=blank)
    batch.input_lengths[1] = 3  # no path
    options = {"blank": blank, "reduction": reduction, "zero_infinity": zero_infinity}
    expected, expected_grad = torch_from_logits(batch, **options)
    values, grad = ours_from_logits(batch, fused, **options)
    assert expected.isinf().any() != zero_infinity
    torch.testing.assert_close(values, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(grad, expected_grad, rtol=0, atol=1e-12)
    module = dalign.CTCLoss(blank, reduction, zero_infinity)
    torch.testing.assert_close(module(*batch), expected, rtol=1e-12, atol=1e-12)


def test_all_forms_of_targets_and_lengths_give_the_same():
    batch = make(20, 4, 6, 5, dtype=torch.float32)
    expected = functional.ctc_loss(*batch)
    log_probs, targets, input_lengths, target_lengths = batch
    joined = torch.cat([row[:size] for row, size in zip(targets, target_lengths.tolist(), strict=True)])
    lists = input_lengths.tolist(), target_lengths.tolist()
    forms = itertools.product(
        [targets, targets.int(), targets.to(torch.uint8), joined, joined.int(), targets.mT.contiguous().mT],
        [(input_lengths, target_lengths), lists, tuple(map(tuple, lists)), (input_lengths.int(), lists[1])],
    )
    for labels, lengths in forms:
        assert torch.equal(functional.ctc_loss(log_probs, labels, *lengths), expected)
    assert torch.equal(dalign.CTCLoss()(log_probs, targets, input_lengths, target_lengths), expected)
    torch.testing.assert_close(expected, F.ctc_loss(*batch))


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_without_a_batch_dimension(reduction):
    log_probs = make(20, 1, 6, 4).log_probs[:, 0]
    targets = torch.tensor([1, 2, 2, 5])
    lengths = [(torch.tensor(18), torch.tensor(4)), (torch.tensor([18]), torch.tensor([4])), ((18,), (4,))]
    for pair in lengths:
        expected = F.ctc_loss(log_probs, targets, *pair, reduction=reduction)
        found = functional.ctc_loss(log_probs, targets, *pair, reduction=reduction)
        assert found.shape == expected.shape == ()
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    assert functional.ctc_loss(log_probs, targets[None], (18,), (4,)).shape == ()
    assert dalign.CTCLoss().alignment(log_probs, targets, (18,), (4,)).shape == (20, 9)


def test_padding_may_hold_anything():
    batch = make(20, 4, 6, 5)
    expected, expected_grad = both(batch)
    for b in range(4):
        batch.log_probs[batch.input_lengths[b] :, b] = math.nan
        batch.targets[b, batch.target_lengths[b] :] = torch.tensor([-100, 10**12, 6, 0, 3])[
            : 5 - batch.target_lengths[b]
        ]
    for fused in (False, True):
        leaf = batch.log_probs.clone().requires_grad_()
        values = functional.ctc_loss(*batch.on(leaf), reduction="none", from_logits=fused)
        (grad,) = torch.autograd.grad(values.sum(), leaf, create_graph=True)
        (second,) = torch.autograd.grad((grad**2).sum(), leaf)
        torch.testing.assert_close(values, expected, rtol=1e-12, atol=0)
        assert fused or torch.equal(grad, expected_grad)
        assert second.isfinite().all()
        for b in range(4):
            assert not grad[batch.input_lengths[b] :, b].any()


def test_a_blank_among_the_labels_is_a_label_like_any_other():
    batch = make(9, 3, 4, 3)
    batch.targets[:] = torch.tensor([[0, 1, 2], [1, 0, 0], [0, 0, 0]])
    full = batch._replace(input_lengths=torch.full((3,), 9), target_lengths=torch.full((3,), 3))
    values, grad = both(full)
    torch.testing.assert_close(values, F.ctc_loss(*full, reduction="none"), rtol=1e-12, atol=0)
    for b, (log_probs, labels) in enumerate(full.items):
        assert relative(grad[:, b], reference.gradient(log_probs, labels)) <= 1e-12


def test_empty_targets_and_no_frames():
    log_probs = make(6, 4, 4, 0).log_probs
    targets, input_lengths = torch.ones(4, 2, dtype=torch.int64), torch.tensor([6, 0, 0, 1])
    batch = Batch(log_probs, targets, input_lengths, torch.tensor([0, 0, 1, 0]))
    values, grad = both(batch)
    expected = torch.stack((-log_probs[:, 0, 0].sum(), *torch.tensor([0.0, INF]), -log_probs[0, 3, 0]))
    torch.testing.assert_close(values, expected)
    torch.testing.assert_close(values, F.ctc_loss(*batch, reduction="none"))
    torch.testing.assert_close(grad[:, 0, 0], -torch.ones(6, dtype=torch.float64))
    assert grad.sum() == pytest.approx(-7)
    assert functional.ctc_loss(log_probs, targets[:, :0], (6,) * 4, (0,) * 4).isfinite()
    assert functional.ctc_loss(log_probs, targets[0, :0], (6,) * 4, (0,) * 4).isfinite()


@pytest.mark.parametrize("fused", [False, True])
def test_nothing_to_do(fused):
    options = {"from_logits": fused, "reduction": "sum"}
    none = torch.zeros(0, dtype=torch.int64)
    leaf = torch.zeros(5, 0, 3, requires_grad=True)
    functional.ctc_loss(leaf, none.reshape(0, 2), none, none, **options).backward()
    assert leaf.grad.shape == (5, 0, 3)
    leaf = torch.zeros(0, 2, 3, requires_grad=True)
    value = functional.ctc_loss(leaf, none.reshape(2, 0), (0, 0), (0, 0), **options)
    value.backward()
    assert value == 0


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_batch_as_torch(data):
    frames, batch, classes = (data.draw(st.integers(1, high)) for high in (40, 4, 7))
    longest, blank = data.draw(st.integers(0, 20)), data.draw(st.integers(0, classes - 1))
    scale = data.draw(st.sampled_from([0.0, 1.0, 10.0, 100.0]))
    found = make(frames, batch, classes, longest, blank=blank, scale=scale, seed=data.draw(st.integers(0, 2**31)))
    options = {
        "blank": blank,
        "reduction": data.draw(st.sampled_from(["mean", "sum", "none"])),
        "zero_infinity": data.draw(st.booleans()),
    }
    expected, expected_grad = torch_from_logits(found, **options)
    for fused in (False, True):
        values, grad = ours_from_logits(found, fused, **options)
        torch.testing.assert_close(values, expected, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(grad, expected_grad, rtol=0, atol=1e-10)


# ---------------------------------------------------------------- types and layouts


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_half_types_are_computed_in_float32(half):
    batch = make(20, 3, 6, 5)
    leaf = batch.log_probs.to(half).requires_grad_()
    loss = functional.ctc_loss(*batch.on(leaf))
    loss.backward()
    assert (loss.dtype, leaf.grad.dtype) == (torch.float32, half)
    exact = leaf.detach().float().requires_grad_()
    again = functional.ctc_loss(*batch.on(exact))
    again.backward()
    assert torch.equal(loss, again)
    assert torch.equal(leaf.grad, exact.grad.to(half))


@pytest.mark.parametrize("fused", [False, True])
def test_layouts(fused):
    batch = make(40, 3, 6, 5)
    expected = both(batch, fused)
    x = batch.log_probs
    views = [x.transpose(0, 1).contiguous().transpose(0, 1), x.permute(2, 0, 1).contiguous().permute(1, 2, 0)]
    wide = torch.full((80, 6, 9), math.nan, dtype=x.dtype)
    wide[::2, ::2, 1:7] = x
    views += [wide[::2, ::2, 1:7], x.repeat_interleave(2, 2)[..., ::2]]
    for view in views:
        leaf = view.detach().requires_grad_()
        values = functional.ctc_loss(*batch.on(leaf), reduction="none", from_logits=fused)
        (grad,) = torch.autograd.grad(values.sum(), leaf)
        assert torch.equal(values, expected[0])
        assert torch.equal(grad, expected[1])
    same = functional.ctc_loss(*batch.on(x[:, :1].expand(-1, 3, -1)), reduction="none", from_logits=fused)
    assert same.isfinite().any()


# ---------------------------------------------------------------- numbers


def frames_of(rows: Tensor) -> Tensor:
    """One item (T, 1, C)."""
    return rows[:, None]


def confident(frames: int, labels: list[int], classes: int, low: float) -> Tensor:
    """Each label in turn for an equal share of the frames, then a blank, all other classes at low."""
    rows = torch.full((frames, classes), low, dtype=torch.float64)
    share = frames / len(labels)
    for t in range(frames):
        k = min(int(t / share), len(labels) - 1)
        rows[t, labels[k] if t % share < share / 2 else 0] = 0
    return rows.log_softmax(1)


def extremes() -> dict[str, tuple[Tensor, list[int]]]:
    """Log-probabilities (T, C) and labels."""
    generator = torch.Generator().manual_seed(0)

    def noise(frames: int, classes: int, scale: float) -> Tensor:
        rows = scale * torch.randn(frames, classes, generator=generator, dtype=torch.float64)
        return rows.log_softmax(1)

    def labels(size: int, classes: int) -> list[int]:
        return (torch.randint(classes - 1, (size,), generator=generator) + 1).tolist()

    unlikely = torch.full((600, 30), -100.0, dtype=torch.float64)
    unlikely[:, 0] = 0
    falling = noise(500, 8, 1.0)
    falling[:, 1:] -= torch.linspace(0, 3000, 500, dtype=torch.float64)[:, None]
    return {
        "labels at -100 in each frame": (unlikely, labels(200, 30)),
        "no frame to spare": (noise(300, 40, 5.0), [1 + k % 39 for k in range(300)]),
        "one frame to spare": (noise(301, 40, 30.0), [1 + k % 39 for k in range(300)]),
        "repeats, no frame to spare": (noise(199, 5, 3.0), [2] * 100),
        "very sure of something else": (confident(700, labels(40, 30), 30, -60), labels(40, 30)),
        "wild": (noise(600, 12, 300.0), labels(150, 12)),
        "ever less likely": (falling, labels(60, 8)),
        "beyond float exponents": (noise(500, 12, 1e5), labels(150, 12)),
        "one label far off": (noise(300, 6, 1.0) - torch.tensor([0, 0, 0, 2e4, 0, 0]), [1, 2, 3, 4]),
        "hardly any loss": (confident(800, [1, 2, 3, 2, 1, 4], 6, -14.0), [1, 2, 3, 2, 1, 4]),
        "no loss": (confident(800, [1, 2, 3, 2, 1, 4], 6, -50.0), [1, 2, 3, 2, 1, 4]),
        "positive logarithms": (noise(300, 6, 3.0) + 700, labels(50, 6)),
    }


@pytest.mark.parametrize("name", extremes())
@pytest.mark.parametrize("dtype", DTYPES)
def test_extremes(name, dtype):
    rows, labels = extremes()[name]
    rows = rows.to(dtype)
    batch = Batch(frames_of(rows), torch.tensor([labels]), *torch.tensor([[len(rows)], [len(labels)]]))
    exact = rows.double().numpy()
    expected, expected_grad = reference.value(exact, labels), reference.gradient(exact, labels)
    values, grad = both(batch)
    size = np.abs(exact).max() * len(rows)  # what is added up along a path, and rounded
    digits = 1e-5 if dtype == torch.float32 else 1e-12
    assert abs(values.item() - expected) <= digits * abs(expected) + 1e-15 * size
    assert relative(grad[:, 0], expected_grad) <= (1e-4 if dtype == torch.float32 else max(1e-10, 1e-15 * size))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("level", [-1000.0, -1.0, -1e-3])
def test_a_hundred_thousand_frames(dtype, level):
    frames = 100_000
    generator = torch.Generator().manual_seed(0)
    rows = level * torch.rand(frames, 1, 8, generator=generator, dtype=torch.float64)
    rows = rows.to(dtype)
    batch = Batch(rows, torch.tensor([[1, 2, 2, 5, 7, 3]]), torch.tensor([frames]), torch.tensor([6]))
    values, grad = both(batch)
    leaf = rows.double().requires_grad_()
    expected = F.ctc_loss(*batch.on(leaf), reduction="none")
    (theirs,) = torch.autograd.grad(expected.sum(), leaf)
    expected_grad = theirs - rows.double().exp()  # without the softmax that torch adds
    assert relative(values, expected) <= (1e-5 if dtype == torch.float32 else 1e-12)
    assert relative(grad, expected_grad) <= (1e-4 if dtype == torch.float32 else 1e-6)


def exact_log_softmax(logits: np.ndarray) -> np.ndarray:
    """With all digits also where one class has nearly all the probability."""
    below = logits - logits.max(1, keepdims=True)
    others = np.exp(below)
    np.put_along_axis(others, below.argmax(1)[:, None], 0, 1)
    return below - np.log1p(others.sum(1, keepdims=True))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("offset", [0.0, 1e3, -1e6])
def test_logits_of_any_offset_and_sureness(dtype, offset):
    """The reference takes the same rounded logits in float64."""
    labels = [1, 2, 3, 2, 1, 4]
    for low in (-3.0, -14.0, -40.0):
        logits = (confident(400, labels, 600, low) + offset).to(dtype)
        log_probs = exact_log_softmax(logits.double().numpy())
        batch = Batch(frames_of(logits), torch.tensor([labels]), *torch.tensor([[400], [6]]))
        values, grad = both(batch, from_logits=True)
        expected = reference.value(log_probs, labels)
        expected_grad = reference.gradient(log_probs, labels) + np.exp(log_probs)
        assert abs(values.item() - expected) <= (1e-5 if dtype == torch.float32 else 1e-9) * expected + 1e-13
        bound = 1e-4 if dtype == torch.float32 else 1e-9
        assert np.abs(grad[:, 0].double().numpy() - expected_grad).max() <= bound * np.abs(expected_grad).max() + 1e-12


@pytest.mark.parametrize("sure", [6.0, 10.0, 14.0, 18.0])
def test_a_sure_network_in_float32(sure):
    """Softmax minus posterior of a class that has nearly all of both."""
    generator = torch.Generator().manual_seed(int(sure))
    labels = [1, 5, 2, 2, 7, 3, 1]
    logits = torch.randn(700, 9, generator=generator) / 4
    for t in range(700):
        logits[t, labels[t // 100] if t % 100 < 60 else 0] += sure
    log_probs = exact_log_softmax(logits.double().numpy())
    batch = Batch(frames_of(logits), torch.tensor([labels]), *torch.tensor([[700], [7]]))
    values, grad = both(batch, from_logits=True)
    exact = frames_of(logits.double())
    expected, expected_grad = both(batch._replace(log_probs=exact), from_logits=True)
    assert expected.item() == pytest.approx(reference.value(log_probs, labels), rel=1e-8)
    assert relative(values, expected) <= 1e-5
    assert relative(grad, expected_grad) <= 1e-4


def test_blocked_classes():
    batch = make(30, 3, 5, 4)
    batch.log_probs[3:9, 0, 1:] = -INF  # nothing but blanks
    batch.log_probs[:, 1, batch.targets[1, 0]] = -INF  # a label that is needed
    batch.target_lengths[1] = 4
    values, grad = both(batch)
    assert values.isinf().tolist() == [False, True, False]
    assert not grad[:, 1].any()
    for b, (log_probs, labels) in enumerate(batch.items):
        assert relative(values[b], np.asarray(reference.value(log_probs, labels))) <= 1e-13
        assert relative(grad[: len(log_probs), b], reference.gradient(log_probs, labels)) <= 1e-12
    logits = batch._replace(log_probs=batch.log_probs + 3)
    fused, fused_grad = both(logits, from_logits=True)
    expected, expected_grad = torch_from_logits(logits, reduction="none")
    torch.testing.assert_close(fused, expected)
    torch.testing.assert_close(fused_grad, expected_grad.nan_to_num())
    blocked = batch._replace(log_probs=torch.full_like(batch.log_probs, -INF))
    values, grad = both(blocked)
    assert values.isinf().all()
    assert not grad.any()


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("wrong", [math.nan, INF])
def test_nan_stays_in_its_item(fused, dtype, wrong):
    batch = make(40, 4, 5, 4, dtype=dtype, ragged=False)
    expected, expected_grad = both(batch, fused)
    batch.log_probs[21, 1, batch.targets[1, 2]] = wrong
    batch.log_probs[39, 2, 0] = wrong
    values, grad = both(batch, fused)
    align = dalign.CTCLoss().alignment(*batch)
    assert values.isnan().tolist() == [False, True, True, False]
    assert grad[:, 1:3].isnan().all()
    assert align[1:3].isnan().all()
    for b in (0, 3):
        assert torch.equal(values[b], expected[b])
        assert torch.equal(grad[:, b], expected_grad[:, b])
        assert align[b].isfinite().all()


# ---------------------------------------------------------------- derivatives


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_first_and_second_derivatives(fused, reduction):
    batch = make(7, 3, 4, 3)
    batch.targets[0] = 2
    batch.input_lengths[2], batch.target_lengths[2] = 2, 3  # no path

    def loss(x: Tensor) -> Tensor:
        return functional.ctc_loss(*batch.on(x), reduction=reduction, zero_infinity=True, from_logits=fused)

    leaf = batch.log_probs.requires_grad_()
    assert torch.autograd.gradcheck(loss, leaf)
    assert torch.autograd.gradgradcheck(loss, leaf)


def test_alignment_derivative():
    batch = make(7, 2, 4, 3)
    leaf = batch.log_probs.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: dalign.CTCLoss().alignment(*batch.on(x)), leaf)
    shifted = dalign.CTCLoss().alignment(*batch.on(leaf + torch.randn(7, 2, 1, dtype=torch.float64)))
    torch.testing.assert_close(shifted, dalign.CTCLoss().alignment(*batch))


def test_third_derivatives_are_refused():
    batch = make(7, 2, 4, 2)
    for loss in (functional.ctc_loss, dalign.CTCLoss(from_logits=True)):
        leaf = batch.log_probs.clone().requires_grad_()
        (grad,) = torch.autograd.grad(loss(*batch.on(leaf)), leaf, create_graph=True)
        (second,) = torch.autograd.grad((grad**2).sum(), leaf, create_graph=True)
        with pytest.raises(RuntimeError, match="third-order"):
            torch.autograd.grad(second.sum(), leaf)


@pytest.mark.parametrize("fused", [False, True])
def test_a_second_backward_and_one_with_another_factor(fused):
    batch = make(30, 3, 6, 5)
    for reduction in ("mean", "sum"):
        leaf = batch.log_probs.clone().requires_grad_()
        loss = functional.ctc_loss(*batch.on(leaf), reduction=reduction, from_logits=fused)
        loss.backward(retain_graph=True)
        once = leaf.grad.clone()
        loss.backward(retain_graph=True)
        assert torch.equal(leaf.grad, once * 2)
        leaf.grad.zero_()
        (-3 * loss).backward(retain_graph=True)
        torch.testing.assert_close(leaf.grad, -3 * once, rtol=1e-14, atol=0)
        leaf.grad = None
        loss.backward()
        assert torch.equal(leaf.grad, once)


def test_no_gradient_is_made_where_none_is_asked_for(monkeypatch):
    batch = make(30, 3, 6, 5)
    asked = []
    forward = torch.ops.dalign.ctc

    class Spy:
        def __getattr__(self, name: str) -> Any:
            if name == "ctc":
                return lambda *args: asked.append(args[-1]) or forward(*args)
            return getattr(torch.ops.dalign, name)

    monkeypatch.setattr("torch_dalign._ctc_functions.ops", Spy())
    functional.ctc_loss(*batch)
    leaf = batch.log_probs.clone().requires_grad_()
    with torch.no_grad():
        functional.ctc_loss(*batch.on(leaf))
    functional.ctc_loss(*batch.on(leaf)).backward()
    assert asked == [False, False, True]


# ---------------------------------------------------------------- instruction sets, threads


ISA_SHAPES = {(40, 3, 6, 7): 1.0, (130, 2, 9, 40): 5.0, (100, 2, 70, 33): 1e4, (300, 2, 4, 130): 1.0}
SCRIPT = """
import sys, torch, test_ctc, torch_dalign
torch.save((torch_dalign.build_info()["isa"], test_ctc.isa_cases()), sys.argv[1])
"""


def isa_cases() -> dict[str, Tensor]:
    """What one process computes: every shape in both types, wide numbers among them, values, gradients, alignments."""
    results = {}
    for dtype, fused in itertools.product(DTYPES, (False, True)):
        for shape, scale in [
            ((40, 3, 6, 7), 1.0),
            ((130, 2, 9, 40), 5.0),
            ((100, 2, 70, 33), 1e4),
            ((300, 2, 4, 130), 1.0),
        ]:
            batch = make(*shape, dtype=dtype, scale=scale)
            key = f"{dtype}_{fused}_{shape}"
            results[f"{key}_value"], results[f"{key}_grad"] = both(batch, fused)
            results[f"{key}_alignment"] = dalign.CTCLoss().alignment(*batch)
            results[f"{key}_path"] = dalign.ctc_align(*batch).states
    return results


@pytest.mark.parametrize("level", LEVELS)
def test_every_instruction_set(level, tmp_path):
    path = tmp_path / "results.pt"
    environment = {**os.environ, "DALIGN_ISA": level}
    command = [sys.executable, "-c", SCRIPT, str(path)]
    folders = [str(Path(__file__).parent), str(Path(dalign.__file__).parent.parent)]
    environment["PYTHONPATH"] = os.pathsep.join(folders)
    subprocess.run(command, env=environment, check=True, cwd=tmp_path)
    isa, results = torch.load(path, weights_only=False)
    if isa != level:
        pytest.skip(f"this CPU has no {level}")
    for key, expected in isa_cases().items():
        if key.endswith("path"):
            assert torch.equal(results[key], expected), key
        else:
            assert relative(results[key], expected) <= (1e-5 if "float32" in key else 1e-11), key


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    """Sets the number of threads, and puts it back."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", DTYPES)
def test_threads_do_not_change_a_bit(dtype, threads):
    batch = make(200, 13, 9, 40, dtype=dtype)
    batch.log_probs[30, 4] *= 1e5  # an item for the double kernel
    batch.log_probs[3, 2, :] = math.nan
    results = []
    for number in (1, 2, 3):
        threads(number)
        results.append(
            (*both(batch), *both(batch, True), dalign.CTCLoss().alignment(*batch), *dalign.ctc_align(*batch))
        )
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            assert torch.equal(a.nan_to_num(12345.0), b.nan_to_num(12345.0))


def test_an_item_has_the_same_bits_alone():
    batch = make(120, 5, 9, 20, dtype=torch.float32)
    values, grad = both(batch)
    for b in range(5):
        alone = Batch(batch.log_probs[:, b : b + 1], *(part[b : b + 1] for part in batch[1:]))
        value, own = both(alone)
        assert torch.equal(value[0], values[b])
        assert torch.equal(own[:, 0], grad[:, b])
