"""The ops of TAP against a slow reference, in pairs of different lengths, with every part of the state kept or not."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from reference import tap as reference
from torch import Tensor

from torch_dalign._ops import ops

ALL = 1 << 40  # bytes: the whole state is kept


@dataclass
class Head:
    layers: list[tuple[Tensor, Tensor]]
    last_relu: bool = True
    precise: bool = False
    energy_scale: float = 1.0
    position_scale: float = 0.0

    def parameters(self, like: Tensor) -> Tensor:
        return (
            torch.cat([part.flatten() for layer in self.layers for part in layer]) if self.layers else like.new_empty(0)
        )


@dataclass
class Found:
    value: Tensor
    alignment: Tensor
    transport: Tensor
    state: tuple[Tensor, Tensor]


@dataclass
class Gradients:
    x: Tensor
    y: Tensor
    energy_x: Tensor
    energy_y: Tensor
    layers: list[tuple[Tensor, Tensor]] = field(default_factory=list)


Pair = tuple[Tensor | None, Tensor | None]
NONE: Pair = (None, None)


def arguments(head: Head, x: Tensor, y: Tensor, lengths: Pair, of: Pair, energies: Pair) -> tuple[Any, ...]:
    kernels, channels = [w.shape[-1] for w, _ in head.layers], [w.shape[0] for w, _ in head.layers]
    flags = head.energy_scale, head.position_scale, head.last_relu, head.precise
    return x, y, *lengths, *of, *energies, head.parameters(x), kernels, channels, *flags


def run(
    head: Head,
    x: Tensor,
    y: Tensor,
    *,
    lengths: Pair = NONE,
    of: Pair = NONE,
    energies: Pair = NONE,
    keep: int = ALL,
) -> Found:
    value, alignment, transport, *state = ops.tap(*arguments(head, x, y, lengths, of, energies), True, True, keep)
    return Found(value, alignment, transport, (state[0], state[1]))


def back(
    head: Head,
    x: Tensor,
    y: Tensor,
    found: Found,
    *,
    grad_value: Tensor | None = None,
    grad_alignment: Tensor | None = None,
    grad_transport: Tensor | None = None,
    lengths: Pair = NONE,
    of: Pair = NONE,
    energies: Pair = NONE,
) -> Gradients:
    need = [1, 1, int(energies[0] is not None), int(energies[0] is not None), 1]
    upstream = grad_value, grad_alignment, grad_transport
    *frames, parameters = ops.tap_backward(*arguments(head, x, y, lengths, of, energies), *found.state, *upstream, need)
    layers, used = [], 0
    for weight, bias in head.layers:
        parts = parameters[used:].split(
            [weight.numel(), bias.numel(), len(parameters) - used - weight.numel() - bias.numel()]
        )
        layers.append((parts[0].view_as(weight), parts[1]))
        used += weight.numel() + bias.numel()
    return Gradients(*frames, layers)


def random_head(kernels: tuple[int, ...], channels: int, dtype: torch.dtype, **options: Any) -> Head:
    """Weights as torch draws them, the last ones three times as large: g matters, and is above zero in parts."""
    inputs, layers = 2, []
    for k, kernel in enumerate(kernels):
        last = k == len(kernels) - 1
        outputs = 1 if last else channels
        bound = (inputs * kernel * kernel) ** -0.5
        weight = (2 * torch.rand(outputs, inputs, kernel, kernel) - 1) * bound * (3 if last else 1)
        bias = (2 * torch.rand(outputs) - 1) * bound + (0.3 if last else 0)
        layers.append((weight.to(dtype), bias.to(dtype)))
        inputs = outputs
    return Head(layers, **options)


def relative(found: Tensor, expected: np.ndarray) -> float:
    return float(np.abs(found.double().numpy() - expected).max() / (np.abs(expected).max() + 1e-9))


@pytest.mark.parametrize("keep", [0, 40_000, ALL])
@pytest.mark.parametrize(
    ("dtype", "precise", "limit"),
    [(torch.float64, False, 1e-12), (torch.float32, False, 5e-5), (torch.float32, True, 1e-5)],
)
@pytest.mark.parametrize(("kernels", "channels"), [((5, 5, 3), 30), ((3, 3), 5), ((5, 5, 5, 3), 12), ((7, 7, 5), 8)])
def test_reference(kernels, channels, dtype, precise, limit, keep):
    torch.manual_seed(len(kernels) + channels)
    head = random_head(kernels, channels, dtype, last_relu=channels != 12, precise=precise)
    x, y = torch.rand(5, 21, 4).to(dtype), torch.rand(5, 17, 4).to(dtype)
    lengths = torch.tensor([21, 1, 5, 8, 13]), torch.tensor([17, 9, 1, 8, 3])
    upstream = {
        "grad_value": torch.randn(5).to(dtype),
        "grad_alignment": torch.randn(5, 21, 17).to(dtype),
        "grad_transport": torch.randn(5, 21, 17).to(dtype),
    }
    found = run(head, x, y, lengths=lengths, keep=keep)
    grads = back(head, x, y, found, lengths=lengths, **upstream)
    layers = [(w.double().numpy(), b.double().numpy()) for w, b in head.layers]
    sums = [[np.zeros(w.shape), np.zeros(b.shape)] for w, b in layers]
    for p, (n, m) in enumerate(zip(*(side.tolist() for side in lengths), strict=True)):
        frames = x[p, :n].double().numpy(), y[p, :m].double().numpy()
        a = reference.align(*frames, layers, head.last_relu)
        assert abs(found.value[p].item() - a.value) <= (1e-6 if dtype == torch.float32 else 1e-13) * a.value
        assert relative(found.alignment[p, :n, :m], a.alignment) < limit
        assert not found.alignment[p, n:].any()
        assert not found.alignment[p, :, m:].any()
        torch.testing.assert_close(found.transport[p], found.alignment[p] / n)
        along = [upstream[k][p].double().numpy()[..., :n, :m] for k in ("grad_alignment", "grad_transport")]
        expected = reference.backward(a, *frames, layers, head.last_relu, upstream["grad_value"][p].item(), *along)
        assert relative(grads.x[p, :n], expected.x) < limit
        assert relative(grads.y[p, :m], expected.y) < limit
        assert not grads.x[p, n:].any()
        assert not grads.y[p, m:].any()
        for total, parts in zip(sums, expected.layers, strict=True):
            total[0] += parts[0]
            total[1] += parts[1]
    for total, parts in zip(sums, grads.layers, strict=True):
        assert relative(parts[0], total[0]) < limit
        # Without a relu the last bias moves no softmax: its gradient is zero, beside those of the weights.
        assert total[0].any()
        assert np.abs(parts[1].double().numpy() - total[1]).max() < limit * max(np.abs(t).max() for t in total)


def test_shared_sequences_are_as_copies_of_them():
    torch.manual_seed(2)
    head = random_head((5, 5, 3), 8, torch.float32)
    x, y, lengths = torch.rand(3, 9, 4), torch.rand(2, 7, 4), (torch.tensor([9, 4, 7]), torch.tensor([7, 5]))
    of = torch.arange(3).repeat_interleave(2), torch.arange(2).repeat(3)
    one = torch.randn(6)
    shared = run(head, x, y, lengths=lengths, of=of)
    copies = lengths[0][of[0]], lengths[1][of[1]]
    single = run(head, x[of[0]], y[of[1]], lengths=copies)
    assert torch.equal(shared.value, single.value)
    assert torch.equal(shared.transport, single.transport)
    got = back(head, x, y, shared, grad_value=one, lengths=lengths, of=of)
    expected = back(head, x[of[0]], y[of[1]], single, grad_value=one, lengths=copies)
    assert torch.equal(got.x, expected.x)
    assert torch.equal(got.y, expected.y)


def test_bits_depend_on_neither_threads_nor_what_is_kept():
    torch.manual_seed(3)
    head = random_head((5, 5, 3), 30, torch.float32)
    x, y = torch.rand(30, 30, 4), torch.rand(30, 26, 4)
    one, threads, results = torch.randn(30), torch.get_num_threads(), []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            found = run(head, x, y, keep=ALL if count < 3 else 2_000_000)
            grads = back(head, x, y, found, grad_value=one)
            results.append(
                [found.value, found.alignment, grads.x, grads.y, *(p for part in grads.layers for p in part)]
            )
    finally:
        torch.set_num_threads(threads)
    for result in results[1:]:
        assert all(torch.equal(*pair) for pair in zip(results[0], result, strict=True))


def test_no_pairs():
    head = random_head((5, 5, 3), 4, torch.float32)
    x, y = torch.rand(0, 5, 2), torch.rand(0, 6, 2)
    found = run(head, x, y)
    grads = back(head, x, y, found, grad_value=torch.ones(0))
    assert found.value.shape == (0,)
    assert found.alignment.shape == (0, 5, 6)
    assert grads.x.shape == (0, 5, 2)
    assert all(not part.any() for layer in grads.layers for part in layer)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kernels": [5]}, "a number for each layer"),
        ({"kernels": [5, 5, 99]}, "out of range"),
        ({"parameters": torch.zeros(7)}, "must hold"),
        ({"x_lengths": torch.tensor([0, 3])}, "outside"),
        ({"x_of": torch.tensor([0, 9])}, "outside"),
        ({"x_of": torch.tensor([0])}, "as many pairs"),
        ({"y": torch.zeros(2, 4, 9)}, "the same dtype"),
        ({"energy_x": torch.zeros(2, 5, 3)}, "go together"),
    ],
)
def test_misuse_of_the_op(change, message):
    names = ["x", "y", "x_lengths", "y_lengths", "x_of", "y_of", "energy_x", "energy_y", "parameters", "kernels"]
    head = random_head((5, 5, 3), 4, torch.float32)
    given = list(arguments(head, torch.rand(2, 5, 3), torch.rand(2, 4, 3), NONE, NONE, NONE))
    for name, value in change.items():
        given[names.index(name)] = value
    with pytest.raises(RuntimeError, match=message):
        ops.tap(*given, False, False, 0)


def test_state_of_other_inputs():
    head = random_head((5, 5, 3), 4, torch.float32)
    x, y = torch.rand(2, 5, 3), torch.rand(2, 4, 3)
    found = run(head, x, y)
    with pytest.raises(RuntimeError, match="does not belong"):
        back(head, x, y, found, grad_value=torch.ones(2), lengths=(torch.tensor([5, 1]), None))


@pytest.mark.parametrize("keep", [0, ALL])
def test_opcheck(keep):
    head = random_head((5, 5, 3), 4, torch.float32)
    x, y, tests = torch.rand(2, 5, 3), torch.rand(2, 4, 3), ("test_schema", "test_faketensor")
    given = arguments(head, x, y, NONE, NONE, NONE)
    torch.library.opcheck(ops.tap.default, (*given, True, False, keep), test_utils=tests)
    state = run(head, x, y, keep=keep).state
    upstream = torch.ones(2), None, None
    torch.library.opcheck(ops.tap_backward.default, (*given, *state, *upstream, [1, 0, 0, 0, 1]), test_utils=tests)
