"""functional.gdtw: symmetries, limits, batches and lengths, types, statuses, and how it fails."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from reference import gdtw as reference
from torch import Tensor

import torch_dalign as dalign
from torch_dalign import functional

INF = math.inf
DOUBLE = torch.float64


def signals(batch: int = 3, n: int = 20, m: int = 24, d: int = 3, dtype: torch.dtype = DOUBLE) -> tuple[Tensor, Tensor]:
    """Smooth random signals, (batch, n, d) and (batch, m, d)."""
    rng = np.random.default_rng(7)
    sides = ([reference.smooth(rng, length, d) for _ in range(batch)] for length in (n, m))
    x, y = (torch.from_numpy(np.stack(side)).to(dtype) for side in sides)
    return x, y


# ---------------------------------------------------------------- symmetries and limits


def test_time_scales_with_its_unit():
    x, y = signals()
    tx, ty = torch.rand(20, dtype=DOUBLE).cumsum(0), torch.rand(24, dtype=DOUBLE).cumsum(0)
    options = {"slope_max": 2.5 * (ty[-1] - ty[0]) / (tx[-1] - tx[0])}
    phi, value = functional.gdtw(x, y, x_times=tx, y_times=ty, reg_weight=0.01, **options)
    scaled, other = functional.gdtw(x, y, x_times=8 * tx + 3, y_times=8 * ty - 5, reg_weight=0.01, **options)
    torch.testing.assert_close(scaled, 8 * phi - 5, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(other, 8 * value, rtol=1e-10, atol=1e-12)


def test_rotated_features_have_the_same_warp():
    x, y = signals(d=4)
    rotation = torch.linalg.qr(torch.randn(4, 4, dtype=DOUBLE)).Q
    phi, value = functional.gdtw(x, y, reg_weight=0.01)
    turned, other = functional.gdtw(x @ rotation, y @ rotation, reg_weight=0.01)
    torch.testing.assert_close(turned, phi, rtol=0, atol=1e-9)
    torch.testing.assert_close(other, value, rtol=1e-12, atol=0)


@pytest.mark.parametrize("quality", ["fast", "default", "thorough"])
def test_equal_signals_are_not_warped(quality):
    x, _ = signals()
    x.requires_grad_()
    phi, value = functional.gdtw(x, x, quality=quality)
    torch.testing.assert_close(phi, torch.linspace(0, 1, 20, dtype=DOUBLE).expand(3, -1), rtol=0, atol=1e-12)
    assert value.abs().max() <= 1e-24
    assert all(grad.isfinite().all() for grad in torch.autograd.grad(phi.square().sum() + value.sum(), x))


def test_constant_signals_leave_the_straight_line():
    x, y = torch.full((2, 9, 2), 0.5, dtype=DOUBLE), torch.full((2, 13, 2), 0.2, dtype=DOUBLE)
    phi, value = functional.gdtw(x, y, reg_weight=0.1)
    torch.testing.assert_close(phi, torch.linspace(0, 1, 9, dtype=DOUBLE).expand(2, -1), rtol=0, atol=1e-9)
    torch.testing.assert_close(value, torch.full((2,), 2 * 0.09, dtype=DOUBLE))


def test_without_regulariser_the_warp_follows_the_signal():
    """x is y read at a known warp that visits no frame twice as fast as another."""
    time = torch.linspace(0, 1, 200, dtype=DOUBLE)
    y = torch.stack((time, (2 * time).square()), 1)[None]
    truth = (0.4 * time + 0.6 * time.square())[::10]
    x = torch.stack((truth, (2 * truth).square()), 1)[None]
    options = {"x_times": time[::10], "y_times": time, "reg_weight": 0.0, "ends": "free"}
    phi, value, info = functional.gdtw(x, y, **options, return_info=True)
    torch.testing.assert_close(phi[0], truth, rtol=0, atol=1e-3)
    assert value.item() < 1e-6
    assert info.status.tolist() == [0]


def test_a_huge_regulariser_leaves_the_straight_line():
    x, y = signals()
    phi, _ = functional.gdtw(x, y, reg_weight=1e9)
    torch.testing.assert_close(phi, torch.linspace(0, 1, 20, dtype=DOUBLE).expand(3, -1), rtol=0, atol=1e-6)


def test_a_part_is_found_in_the_whole():
    _, y = signals(batch=1, m=60)
    frames = torch.arange(20, 45)
    phi, value = functional.gdtw(y[:, 20:45], y, ends="free", reg_weight=0.01)
    torch.testing.assert_close(phi[0], frames.double() / 59, rtol=0, atol=1e-9)
    assert value.item() <= 1e-20


@pytest.mark.parametrize(("ends", "touches"), [("free_start", (False, True)), ("free_end", (True, False))])
def test_one_free_end(ends, touches):
    _, y = signals(batch=1, m=60)
    phi, _ = functional.gdtw(y[:, 20:45], y, ends=ends, reg_weight=1e-4)
    assert (phi[0, 0].item() == 0, phi[0, -1].item() == 1) == touches
    free, _ = functional.gdtw(y[:, 20:45], y, ends="free", reg_weight=1e-4)
    assert (free[0, 0].item() > 0.1, free[0, -1].item() < 0.9) == (True, True)


def test_nominal_slope_without_time_stamps_is_one_frame_of_y_for_each_of_x():
    x, y = torch.zeros(1, 11, 1, dtype=DOUBLE), torch.zeros(1, 41, 1, dtype=DOUBLE)
    phi, _ = functional.gdtw(x, y, ends="free")
    torch.testing.assert_close(phi.diff(dim=1), torch.full((1, 10), 1 / 40, dtype=DOUBLE))
    phi, _ = functional.gdtw(x, y, ends="free", x_times=torch.arange(11.0), y_times=torch.arange(41.0) / 2)
    torch.testing.assert_close(phi.diff(dim=1), torch.ones(1, 10, dtype=DOUBLE))


def test_qualities_do_not_get_worse_by_much_and_thorough_is_best():
    x, y = signals(batch=12, n=40, m=50)
    values = {q: functional.gdtw(x, y, reg_weight=0.003, quality=q)[1] for q in ("fast", "default", "thorough")}
    assert (values["thorough"] <= values["default"] * (1 + 1e-9)).all()
    assert (values["thorough"] <= values["fast"] * (1 + 1e-9)).all()
    assert (values["fast"] <= values["thorough"] * 1.05).all()


# ---------------------------------------------------------------- batches


def test_a_batch_with_lengths_is_its_items_and_padding_is_never_read():
    x, y = signals(dtype=DOUBLE)
    x_lengths, y_lengths = torch.tensor([20, 2, 13]), torch.tensor([5, 24, 9])
    for b in range(3):
        x[b, x_lengths[b] :], y[b, y_lengths[b] :] = math.nan, math.nan
    reg = (torch.rand(3, 19, dtype=DOUBLE) + 0.1) / 100
    leaves = [x.requires_grad_(), y.requires_grad_(), reg.requires_grad_()]
    lengths = {"x_lengths": x_lengths, "y_lengths": y_lengths}
    phi, value, info = functional.gdtw(x, y, reg_weight=reg, slope_max=3.0, **lengths, return_info=True)
    weights = torch.randn(3, 20, dtype=DOUBLE)
    whole = torch.autograd.grad((phi * weights).sum() + value.sum(), leaves)
    assert info.status.tolist() == [0, 0, 0]
    for b, (n, m) in enumerate(zip(x_lengths.tolist(), y_lengths.tolist(), strict=True)):
        alone = [x[b : b + 1, :n], y[b : b + 1, :m], reg[b : b + 1, : n - 1]]
        own, own_value = functional.gdtw(*alone[:2], reg_weight=alone[2], slope_max=3.0)
        assert torch.equal(phi[b, :n], own[0])
        assert torch.equal(phi[b, n:], own[0, -1:].expand(20 - n))
        assert value[b] == own_value[0]
        grads = torch.autograd.grad((own * weights[b, :n]).sum() + own_value.sum(), alone)
        for found, expected in zip(whole, grads, strict=True):
            size = expected.shape[1]
            assert torch.equal(found[b, :size], expected[0])
            assert not found[b, size:].any()


def test_shared_numbers_collect_the_gradients_of_all_items():
    x, y = signals()
    weights = torch.randn(3, 20, dtype=DOUBLE)
    shapes = {"number": (), "per item": (3, 1), "per edge": (19,), "both": (3, 19)}
    grads = {}
    for name, shape in shapes.items():
        reg = torch.full(shape, 0.01, dtype=DOUBLE, requires_grad=True)
        (grads[name],) = torch.autograd.grad((functional.gdtw(x, y, reg_weight=reg)[0] * weights).sum(), reg)
    torch.testing.assert_close(grads["number"], grads["both"].sum())
    torch.testing.assert_close(grads["per item"], grads["both"].sum(1, keepdim=True))
    torch.testing.assert_close(grads["per edge"], grads["both"].sum(0))


def test_strided_inputs():
    x, y = signals()
    expected = functional.gdtw(x, y, reg_weight=0.01)
    wide = torch.stack((x, x), 3)[..., 0]
    swapped = y.transpose(1, 2).contiguous().transpose(1, 2)
    times = torch.linspace(0, 1, 40, dtype=DOUBLE)[: 2 * 20 : 2]
    assert not wide.is_contiguous()
    assert not swapped.is_contiguous()
    found = functional.gdtw(wide, swapped, reg_weight=0.01)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    expected = functional.gdtw(x, y, x_times=times.clone())
    found = functional.gdtw(x, y, x_times=times)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_an_empty_batch(dtype):
    x, y = torch.zeros(0, 5, 2, dtype=dtype, requires_grad=True), torch.zeros(0, 4, 2, dtype=dtype)
    reg = torch.tensor(0.1, requires_grad=True)
    phi, value = functional.gdtw(x, y, reg_weight=reg)
    assert (phi.shape, value.shape, phi.dtype) == ((0, 5), (0,), dtype)
    (phi.sum() + value.sum()).backward()
    assert x.grad.shape == x.shape
    assert reg.grad.item() == 0


def test_one_frame():
    x, y = signals(batch=2, n=1, m=6)
    phi, value = functional.gdtw(x, y, ends="free")
    best = (x - y).square().sum(2).amin(1)
    assert (value <= best * (1 + 1e-9)).all()  # between two samples it can be better
    assert ((phi >= 0) & (phi <= 1)).all()
    phi, value = functional.gdtw(y, x)
    assert torch.equal(phi, torch.zeros(2, 6, dtype=DOUBLE))
    distance = (y - x).square().sum(2)
    torch.testing.assert_close(value, torch.trapezoid(distance, dx=1 / 5, dim=1))
    with pytest.raises(ValueError, match="item 0"):
        functional.gdtw(x, y)


# ---------------------------------------------------------------- types


def test_float32_is_close_to_float64():
    x, y = signals()
    leaves = [x.float().requires_grad_(), y.float().requires_grad_()]
    wide = [leaf.detach().double().requires_grad_() for leaf in leaves]
    weights = torch.randn(3, 20, dtype=DOUBLE)
    phi, value = functional.gdtw(*leaves, reg_weight=0.01)
    expected, expected_value = functional.gdtw(*wide, reg_weight=0.01)
    assert (phi.dtype, value.dtype) == (torch.float32, torch.float32)
    torch.testing.assert_close(phi, expected.float(), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(value, expected_value.float(), rtol=1e-5, atol=1e-7)
    grads = torch.autograd.grad((phi * weights.float()).sum() + value.sum(), leaves)
    others = torch.autograd.grad((expected * weights).sum() + expected_value.sum(), wide)
    for grad, other in zip(grads, others, strict=True):
        assert grad.dtype == torch.float32
        assert (grad - other).abs().max() <= 1e-4 * other.abs().max()


def test_double_times_give_a_double_warp_of_float_features():
    x, y = signals(dtype=torch.float32)
    phi, value = functional.gdtw(x, y, y_times=torch.arange(24, dtype=DOUBLE) + 1e6)
    assert (phi.dtype, value.dtype) == (DOUBLE, DOUBLE)
    assert (phi[:, 0].tolist(), phi[:, -1].tolist()) == ([1e6] * 3, [1e6 + 23] * 3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types_are_computed_in_float32(dtype):
    x, y = (side.to(dtype) for side in signals())
    x.requires_grad_()
    phi, _ = functional.gdtw(x, y)
    assert torch.equal(phi, functional.gdtw(x.detach().float(), y.float())[0])
    phi.square().sum().backward()
    assert x.grad.dtype == dtype


# ---------------------------------------------------------------- statuses


def test_an_item_without_a_warp_is_named_with_its_knot():
    x, y = signals()
    bound = torch.full((3, 20), -INF)
    bound[1, 7] = 0.9
    options = {"band_min": bound, "slope_max": torch.tensor([[9.0], [1.5], [9.0]])}
    with pytest.raises(ValueError, match=r"no warp of item 1 .* knot 7 is the first"):
        functional.gdtw(x, y, **options)
    leaf = x.clone().requires_grad_()
    phi, value, info = functional.gdtw(leaf, y, **options, on_infeasible="nan", return_info=True)
    assert info.status.tolist() == [0, 1, 0]
    assert info.blocked.tolist() == [-1, 7, -1]
    assert phi[1].isnan().all()
    assert not phi[[0, 2]].isnan().any()
    assert value.isinf().tolist() == [False, True, False]
    phi.nansum().backward()
    assert leaf.grad.isfinite().all()
    assert not leaf.grad[1].any()
    assert torch.equal(phi[::2], functional.gdtw(x[::2], y[::2], slope_max=9.0, band_min=bound[::2])[0])


@pytest.mark.parametrize("side", ["x", "y"])
def test_a_nan_stays_in_its_item(side):
    x, y = signals()
    expected, expected_value = functional.gdtw(x, y)
    {"x": x, "y": y}[side][1, 3, 0] = math.nan
    leaves = [x.requires_grad_(), y.requires_grad_()]
    phi, value, info = functional.gdtw(*leaves, return_info=True)
    assert info.status.tolist() == [0, 3, 0]
    assert phi[1].isnan().all()
    assert value[1].isnan()
    assert torch.equal(phi[::2], expected[::2])
    assert torch.equal(value[::2], expected_value[::2])
    for grad in torch.autograd.grad(phi.sum() + value.sum(), leaves):
        assert grad[1].isnan().all()
        assert grad[::2].isfinite().all()


def test_counts_tell_where_nothing_holds_the_warp():
    flat = torch.zeros(1, 6, 1, dtype=DOUBLE)
    *_, info = functional.gdtw(flat, flat, reg_weight=0.0, return_info=True)
    assert info.status.tolist() == [0]
    assert info.degenerate.item() + info.singular.item() + info.weak.item() >= 4  # of six knots two are ends
    x, y = signals(batch=1)
    *_, info = functional.gdtw(x, y, reg_weight=10.0, return_info=True)
    assert (info.singular.item(), info.degenerate.item(), info.weak.item()) == (0, 0, 0)


# ---------------------------------------------------------------- how it fails


def test_no_second_derivative():
    x, y = signals()
    x.requires_grad_()
    with pytest.raises(RuntimeError, match="gdtw has no second derivative"):
        torch.autograd.grad(functional.gdtw(x, y)[0].sum(), x, create_graph=True)


def test_vmap_is_refused():
    x, y = signals()
    with pytest.raises(RuntimeError, match="fold the mapped dimension"):
        torch.vmap(lambda a, b: functional.gdtw(a[None], b[None])[0])(x, y)


X, Y = torch.zeros(2, 5, 3), torch.zeros(2, 4, 3)
MISUSE = {
    "kind": ({"x": None}, TypeError, r"x must be a tensor, got NoneType"),
    "dtype": ({"x": X.int()}, TypeError, r"x must be a floating-point tensor"),
    "dtypes": ({"x": X.double()}, TypeError, r"x and y must have the same dtype"),
    "shape": ({"y": Y[0]}, ValueError, r"y must have shape \(B, M, D\), got \(4, 3\)"),
    "no frames": ({"y": Y[:, :0]}, ValueError, r"y must have shape \(B, M, D\) with M, D >= 1"),
    "features": ({"y": Y[..., :2]}, ValueError, r"x and y must have the same number of features"),
    "items": ({"y": Y[:1]}, ValueError, r"x and y must have the same batch size"),
    "lengths": ({"x_lengths": torch.tensor([5, 6])}, ValueError, r"x_lengths\[1\] = 6 is outside \[1, 5\]"),
    "x_times shape": (
        {"x_times": torch.rand(4)},
        ValueError,
        r"x_times must have shape \(5,\) or \(2, 5\), got \(4,\)",
    ),
    "x_times kind": ({"x_times": [0.0, 1.0]}, TypeError, r"x_times must be a tensor, got list"),
    "y_times type": ({"y_times": torch.arange(4)}, TypeError, r"y_times must be a floating-point tensor"),
    "times that fall": (
        {"y_times": torch.tensor([0.0, 2.0, 1.0, 3.0])},
        ValueError,
        r"y_times must grow, got 2 and then 1 in item 0 at frame 2",
    ),
    "times that stand": ({"x_times": torch.zeros(5)}, ValueError, r"x_times must grow, got 0 and then 0 in item 0"),
    "negative lambda": ({"reg_weight": -0.1}, ValueError, r"reg_weight must be finite and >= 0, got -0.1"),
    "lambda nan": ({"reg_weight": torch.tensor(math.nan)}, ValueError, r"reg_weight must be finite and >= 0, got nan"),
    "lambda inf": ({"reg_weight": INF}, ValueError, r"reg_weight must be finite and >= 0, got inf"),
    "lambda kind": ({"reg_weight": "much"}, TypeError, r"reg_weight must be a number or a tensor, got str"),
    "no lambda": ({"reg_weight": None}, TypeError, r"reg_weight must be a number or a tensor, got NoneType"),
    "lambda shape": (
        {"reg_weight": torch.rand(2, 5)},
        ValueError,
        r"reg_weight must be a number or broadcast to \(2, 4\), got shape \(2, 5\)",
    ),
    "slope shape": (
        {"slope_max": torch.rand(3, 1)},
        ValueError,
        r"slope_max must be a number or broadcast to \(2, 4\), got shape \(3, 1\)",
    ),
    "slope kind": ({"slope_min": True}, TypeError, r"slope_min must be a number or a tensor, got bool"),
    "slope nan": ({"slope_min": math.nan}, ValueError, r"slope_min must be a number, got nan"),
    "band shape": (
        {"band_min": torch.rand(2, 2, 5)},
        ValueError,
        r"band_min must be a number or broadcast to \(2, 5\), got shape \(2, 2, 5\)",
    ),
    "band type": ({"band_max": torch.zeros(5).long()}, TypeError, r"band_max must be a floating-point tensor"),
    "nominal slope": (
        {"nominal_slope": torch.rand(3)},
        ValueError,
        r"nominal_slope must be a number or have shape \(2,\), got \(3,\)",
    ),
    "nominal slopes": ({"nominal_slope": torch.rand(2, 4)}, ValueError, r"nominal_slope must be .*got \(2, 4\)"),
    "ends": (
        {"ends": "open"},
        ValueError,
        r"ends must be one of 'fixed', 'free', 'free_start', 'free_end', got 'open'",
    ),
    "quality": ({"quality": "best"}, ValueError, r"quality must be one of 'fast', 'default', 'thorough', got 'best'"),
    "on_infeasible": ({"on_infeasible": "skip"}, ValueError, r"on_infeasible must be one of 'raise', 'nan'"),
    "loss": ({"loss": "euclidean"}, ValueError, r"loss must be 'sqeuclidean', \('p', p\).*got 'euclidean'"),
    "loss pair": ({"loss": ("q", 2.0)}, ValueError, r"loss must be 'sqeuclidean'.*got \('q', 2.0\)"),
    "p = 1": ({"loss": ("p", 1)}, ValueError, r"loss must be .*p = 1 has kinks.*\('huber', delta\)"),
    "p < 1": ({"regularizer": ("p", 0.5)}, ValueError, r"regularizer must be 'quadratic', .*got \('p', 0.5\)"),
    "delta": ({"loss": ("huber", 0.0)}, ValueError, r"loss must be .*got \('huber', 0.0\)"),
    "parameter": ({"loss": ("huber", "small")}, TypeError, r"loss must be .*got 'small'"),
    "regularizer": ({"regularizer": "sqeuclidean"}, ValueError, r"regularizer must be 'quadratic'"),
}


@pytest.mark.parametrize("name", MISUSE)
def test_misuse(name):
    wrong, error, message = MISUSE[name]
    arguments = {"x": X, "y": Y} | wrong
    with pytest.raises(error, match=message):
        functional.gdtw(arguments.pop("x"), arguments.pop("y"), **arguments)


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_opcheck(dtype):
    x, y = (side.requires_grad_() for side in signals(dtype=dtype))
    lengths = torch.tensor([20, 7, 13])
    times = torch.linspace(0, 1, 20, dtype=DOUBLE).expand(3, -1)
    reg = torch.full((), 0.1, dtype=DOUBLE).expand(3, 19)
    numbers = (lengths, None, times, None, reg, None, None, reg * 30, None, torch.ones(3, 20, dtype=DOUBLE))
    options = (True, False, "squares", 2.0, "huber", 0.4, "fast")
    torch.library.opcheck(torch.ops.dalign.gdtw, (x.detach(), y.detach(), *numbers, *options))
    phi, objective, status, _, _, state = torch.ops.dalign.gdtw(x.detach(), y.detach(), *numbers, *options)
    for need in ([1] * 10, [0] * 10, [1, 0, 0, 1, 1, 0, 0, 1, 0, 1]):
        results = (phi, objective, status, state, torch.ones_like(phi), torch.ones_like(objective), need)
        torch.library.opcheck(torch.ops.dalign.gdtw_backward, (x.detach(), y.detach(), *numbers, *options, *results))


def test_dalign_gdtw_is_the_same_function():
    assert dalign.gdtw is functional.gdtw
