"""Metrics against the slow reference, closed forms, NumPy's interpolation, and gradients by differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import cost as reference_cost
from reference import dtw as reference_dtw
from reference import metrics as reference
from scipy.integrate import trapezoid
from torch.autograd import gradcheck

import torch_dalign as dalign
from torch_dalign import metrics

INF = math.inf
DTYPES = (torch.float32, torch.float64)
LATE = torch.tensor([[[0.0], [0.0], [0.0], [1.0]]])
TRUTH = torch.tensor([[[0.0], [1.0], [1.0], [1.0]]])


def tolerance(dtype):
    return {"rtol": 1e-5, "atol": 1e-6} if dtype == torch.float32 else {"rtol": 1e-12, "atol": 1e-12}


# ---------------------------------------------------------------- forecasts


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("metric", ["sqeuclidean", "manhattan"])
def test_dtw_and_tdi_against_the_reference(metric, dtype):
    x, y = torch.rand(3, 15, 2, dtype=dtype), torch.rand(3, 11, 2, dtype=dtype)
    sizes = [(15, 11), (6, 11), (1, 4)]
    options = {
        "metric": metric,
        "band": 4,
        "input_lengths": torch.tensor([n for n, _ in sizes]),
        "target_lengths": torch.tensor([m for _, m in sizes]),
        "reduction": "none",
    }
    distances, sums = (metrics.dtw(x, y, root=root, **options) for root in (True, False))
    squared, area = (metrics.tdi(x, y, kind=kind, **options) for kind in ("squared", "area"))
    assert all(result.dtype == dtype for result in (distances, sums, squared, area))
    for b, (n, m) in enumerate(sizes):
        lattice = reference_cost.pairwise(x[b, :n].numpy(), y[b, :m].numpy(), metric)
        best, path = reference_dtw.dtw(lattice, band=4)
        np.testing.assert_allclose(sums[b].item(), best, **tolerance(dtype))
        np.testing.assert_allclose(distances[b].item(), best**0.5, **tolerance(dtype))
        np.testing.assert_allclose(squared[b].item(), reference.squared_distortion(path), **tolerance(dtype))
        np.testing.assert_allclose(area[b].item(), reference.area_distortion(path), **tolerance(dtype))


def test_reductions_and_identity():
    x, y = torch.rand(4, 9, 2), torch.rand(4, 9, 2)
    for metric in (metrics.dtw, metrics.tdi):
        each = metric(x, y, reduction="none")
        assert each.shape == (4,)
        torch.testing.assert_close(metric(x, y), each.mean())
        torch.testing.assert_close(metric(x, y, reduction="sum"), each.sum())
        assert metric(x, x) == 0
    assert metrics.tdi(x, x, kind="area") == 0


def test_a_delay_costs_time_but_no_shape():
    assert metrics.dtw(LATE, TRUTH) == 0
    assert metrics.tdi(LATE, TRUTH) == 10 / 16  # of (0,0) (1,0) (2,0) (3,1) (3,2) (3,3): 1 + 4 + 4 + 1
    assert metrics.tdi(LATE, TRUTH, kind="area") == 0.5


@pytest.mark.parametrize("n", [2, 5, 9])
def test_the_largest_area_is_that_of_the_corner(n):
    # the path along two sides of the lattice, with the corner cut: (n - 1)^2 / 2 - 1 / 2
    x, y = torch.zeros(1, n, 1), torch.ones(1, n, 1)
    x[0, -1] = 1
    y[0, 0] = 0
    expected = n * (n - 2)
    area = metrics.tdi(x.double(), y.double(), kind="area").item() * n * n
    assert area == pytest.approx(expected)


def test_area_agrees_with_the_trapezoid_rule_for_equal_lengths():
    # sum of trapezoids of |i - j| over j: the definition as it is computed for forecasts
    x, y = torch.rand(5, 30, 1, dtype=torch.float64), torch.rand(5, 30, 1, dtype=torch.float64)
    area = metrics.tdi(x, y, kind="area", reduction="none")
    for b, path in enumerate(dalign.dtw_path(x, y)):
        i, j = path.double().T.numpy()
        np.testing.assert_allclose(area[b].item(), 2 / 900 * trapezoid(np.abs(i - j), j), rtol=1e-12)


def test_dtw_gradient():
    x, y = (torch.rand(2, 6, 2, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert gradcheck(metrics.dtw, (x, y))
    same = x.detach().clone().requires_grad_()
    metrics.dtw(same, x.detach()).backward()
    assert not same.grad.any()
    assert not metrics.tdi(x, y).requires_grad


def test_an_item_with_a_nan():
    x, y = torch.rand(2, 5, 1), torch.rand(2, 5, 1)
    x[0, 2] = torch.nan
    for metric in (metrics.dtw, metrics.tdi):
        assert metric(x, y, reduction="none").isnan().tolist() == [True, False]


# ---------------------------------------------------------------- alignments


def warp(*points, dtype=torch.float64):
    return tuple(torch.tensor(column, dtype=dtype) for column in zip(*points, strict=True))


def both(*args, **options):
    return metrics.time_error(*args, **options).item(), metrics.time_deviation(*args, **options).item()


def test_closed_forms():
    truth = warp((0, 0), (4, 2))
    assert both(warp((0, 0.25), (4, 2.25)), truth) == pytest.approx((0.25, 0.25))
    assert both(truth, truth) == (0, 0)
    # a triangle of height 1 / 2: mean 1 / 4, mean square 1 / 12
    assert both(warp((0, 0), (2, 1.5), (4, 2)), truth) == pytest.approx((0.25, 12**-0.5))
    # a difference from -1 to 1: mean size 1 / 2, mean square 1 / 3
    assert both(warp((0, -1), (4, 3)), truth) == pytest.approx((0.5, 3**-0.5))
    # a jump by 1 in the middle of the constant 0
    assert both(warp((0, 0), (1, 0), (1, 1), (2, 1)), warp((0, 0), (2, 0))) == pytest.approx((0.5, 0.5**0.5))
    # constant beyond the ends
    assert both(warp((1, 1)), warp((0, 1), (2, 2))) == pytest.approx((0.5, 3**-0.5))


@st.composite
def breakpoints(draw):
    count = draw(st.integers(1, 7))
    eighths = st.integers(0, 24)
    times = sorted(draw(st.tuples(*[eighths] * count)))
    return [(t / 8, draw(st.integers(-16, 16)) / 8) for t in times]


@settings(deadline=None, max_examples=150)
@given(breakpoints(), breakpoints(), st.tuples(st.integers(-4, 28), st.integers(-4, 28)))
def test_any_two_warps(predicted, true, bounds):
    span = tuple(sorted(bound / 8 for bound in bounds))
    if span[0] == span[1]:
        span = (span[0], span[1] + 1)
    expected = reference.time_errors(predicted, true, span)
    np.testing.assert_allclose(both(warp(*predicted), warp(*true), span=span), expected, rtol=1e-12, atol=1e-12)
    if true[0][0] < true[-1][0]:
        expected = reference.time_errors(predicted, true)
        np.testing.assert_allclose(both(warp(*predicted), warp(*true)), expected, rtol=1e-12, atol=1e-12)


def test_against_a_fine_sum():
    times, others = (torch.rand(2, 20, dtype=torch.float64).sort(1).values for _ in range(2))
    values, truth = (torch.rand(2, 20, dtype=torch.float64).cumsum(1) for _ in range(2))
    errors = metrics.time_error((times, values), (others, truth), reduction="none")
    deviations = metrics.time_deviation((times, values), (others, truth), reduction="none")
    for b in range(2):
        grid = np.linspace(others[b, 0].item(), others[b, -1].item(), 400_001)
        grid = (grid[1:] + grid[:-1]) / 2
        gap = np.interp(grid, times[b], values[b]) - np.interp(grid, others[b], truth[b])
        np.testing.assert_allclose(errors[b], np.abs(gap).mean(), rtol=1e-7)
        np.testing.assert_allclose(deviations[b], np.square(gap).mean() ** 0.5, rtol=1e-7)


def test_resampled_at_the_targets_breakpoints():
    times, others = (torch.rand(1, 15, dtype=torch.float64).sort(1).values for _ in range(2))
    values, truth = (torch.rand(1, 15, dtype=torch.float64).cumsum(1) for _ in range(2))
    # as the published code does: interpolate, then add up the exact integrals of the pieces
    error = truth[0].numpy() - np.interp(others[0], times[0], values[0])
    widths = np.diff(others[0].numpy())
    a, b = np.abs(error[:-1]), np.abs(error[1:])
    same = np.sign(error[:-1]) == np.sign(error[1:])
    sizes = np.where(same, (a + b) / 2, (a**2 + b**2) / (2 * (a + b)))
    squares = (error[:-1] ** 2 + error[:-1] * error[1:] + error[1:] ** 2) / 3
    expected = (sizes @ widths) / widths.sum(), ((squares @ widths) / widths.sum()) ** 0.5
    got = both((times, values), (others, truth), breakpoints="target")
    np.testing.assert_allclose(got, expected, rtol=1e-12)
    assert got != both((times, values), (others, truth))


def test_gradients():
    times, others = (torch.rand(2, 6, dtype=torch.float64).sort(1).values.requires_grad_() for _ in range(2))
    values, truth = (torch.rand(2, 6, dtype=torch.float64).requires_grad_() for _ in range(2))
    lengths = {"input_lengths": torch.tensor([6, 4]), "target_lengths": torch.tensor([5, 6])}
    for mode in ("merged", "target"):
        for metric in (metrics.time_error, metrics.time_deviation):

            def loss(times, values, others, truth, metric=metric, mode=mode):
                return metric((times, values), (others, truth), breakpoints=mode, **lengths)

            assert gradcheck(loss, (times, values, others, truth))


def test_no_deviation_has_gradient_zero():
    values = torch.tensor([0.0, 1.0], requires_grad=True)
    times = torch.tensor([0.0, 1.0])
    metrics.time_deviation((times, values), (times, values.detach())).backward()
    assert not values.grad.any()


def test_paths_as_warps():
    x_times, y_times = torch.tensor([0.0, 0.1, 0.3, 0.6]).double(), torch.tensor([0.0, 0.2, 0.4]).double()
    path, other = torch.tensor([[0, 0], [1, 0], [1, 1], [2, 2], [3, 2]]), torch.tensor([[0, 0], [1, 1], [2, 1], [3, 2]])
    frames = {"x_times": x_times, "y_times": y_times}
    as_warps = [(x_times[p[:, 0]], y_times[p[:, 1]]) for p in (path, other)]
    expected = both(*as_warps)
    points = [list(zip(*(column.tolist() for column in w), strict=True)) for w in as_warps]
    np.testing.assert_allclose(expected, reference.time_errors(*points), rtol=1e-12)
    assert both(path, other, **frames) == expected
    assert both([path], other, **frames) == expected
    assert both(path[None], (None, torch.tensor([0.0, 0.2, 0.2, 0.4]).double()), **frames) == expected
    padded = torch.cat((path, torch.full((2, 2), -1)))[None]
    assert both(padded, other, **frames) == expected
    longer = torch.cat((path, torch.full((2, 2), 99)))[None]
    assert both(longer, other, input_lengths=torch.tensor([5]), **frames) == expected
    # a number of seconds per frame
    seconds = both(path, other, x_times=0.5, y_times=0.25)
    np.testing.assert_allclose(seconds, [0.25 * error for error in both(path, other)], rtol=1e-6)


def test_warp_error_is_both_errors_of_a_warp_with_time_stamps():
    """TimeErr and TimeDev of eq. 9 by a fine sum, in seconds, and in the gradient of the predicted warp."""
    seconds = torch.tensor([0.0, 0.7, 1.0, 2.2], dtype=torch.float64)
    phi = torch.tensor([[0.1, 0.6, 1.4, 2.0], [0.0, 0.9, 0.9, 2.5]], dtype=torch.float64, requires_grad=True)
    truth = (torch.tensor([0.0, 1.1, 2.2], dtype=torch.float64), torch.tensor([0.0, 1.0, 2.2], dtype=torch.float64))
    options = {"x_times": seconds, "reduction": "none"}
    found = metrics.warp_error((None, phi), truth, **options)
    assert torch.equal(found.time_error, metrics.time_error((None, phi), truth, **options))
    assert torch.equal(found.time_deviation, metrics.time_deviation((None, phi), truth, **options))
    at = np.linspace(0, 2.2, 200_001)
    for b in range(2):
        apart = np.interp(at, seconds, phi[b].detach()) - np.interp(at, *truth)
        np.testing.assert_allclose(found.time_error[b].item(), trapezoid(np.abs(apart), at) / 2.2, rtol=1e-8)
        np.testing.assert_allclose(found.time_deviation[b].item(), (trapezoid(apart**2, at) / 2.2) ** 0.5, rtol=1e-8)
    lengths = torch.tensor([4, 3])
    assert gradcheck(lambda values: tuple(metrics.warp_error((seconds, values), truth, input_lengths=lengths)), (phi,))


def test_a_batch_is_its_items():
    paths = [torch.tensor([[0, 0], [1, 1], [2, 2]]), torch.tensor([[0, 0], [0, 1], [1, 2], [2, 2], [3, 2]])]
    truth = warp((0, 0.5), (1.5, 1), (3, 2))
    each = metrics.time_error(paths, truth, reduction="none", span=(torch.tensor([0, 1]), 2.5))
    for b, path in enumerate(paths):
        torch.testing.assert_close(each[b], metrics.time_error(path, truth, span=([0, 1][b], 2.5)))
    torch.testing.assert_close(metrics.time_error(paths, truth, span=(torch.tensor([0, 1]), 2.5)), each.mean())


def test_padding_is_never_read():
    times, values = torch.rand(2, 6).sort(1).values, torch.rand(2, 6)
    truth = (torch.tensor([0.0, 1.0]), torch.tensor([0.0, 1.0]))
    expected = metrics.time_error((times[1, :4], values[1, :4]), truth)
    times[1, 4:], values[1, 4:] = torch.nan, torch.nan
    values.requires_grad_()
    got = metrics.time_error((times, values), truth, input_lengths=torch.tensor([6, 4]), reduction="none")
    torch.testing.assert_close(got[1], expected)
    got.sum().backward()
    assert values.grad.isfinite().all()


def test_float32_of_long_times_is_computed_in_float64():
    seconds = torch.arange(4096.0)
    offset = metrics.time_error((seconds, seconds + 0.125), (seconds, seconds))
    assert offset.dtype == torch.float32
    assert offset == 0.125


def test_training_on_predicted_time():
    """An error of expected times moves features so that the alignment follows the truth."""
    truth = torch.tensor([[0, 0], [1, 0], [2, 0], [3, 1], [4, 2], [5, 3]])
    x = torch.linspace(0, 1, 6)[None, :, None].clone().requires_grad_()
    y = torch.linspace(0, 1, 4)[None, :, None]
    aligner = dalign.SoftDTW(gamma=0.02)
    optimizer = torch.optim.Adam([x], lr=0.02)
    losses = []
    for _ in range(80):
        warped = dalign.expected_warp(aligner.alignment(x, y))
        loss = metrics.time_error((None, warped.mean), truth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]


# ---------------------------------------------------------------- misuse

X, Y = torch.rand(2, 5, 3), torch.rand(2, 4, 3)
RAMP = (torch.tensor([0.0, 1.0]), torch.tensor([0.0, 1.0]))
PATH = torch.tensor([[0, 0], [1, 1]])
error = metrics.time_error

MISUSE = {
    "input kind": (lambda: metrics.dtw([0.0], Y), TypeError, r"input must be a tensor, got list"),
    "input shape": (lambda: metrics.dtw(X[0], Y), ValueError, r"input must have shape \(B, N, D\), got \(5, 3\)"),
    "target shape": (
        lambda: metrics.tdi(X, Y[..., 0]),
        ValueError,
        r"target must have shape \(B, M, D\), got \(2, 4\)",
    ),
    "features": (lambda: metrics.dtw(X, Y[..., :1]), ValueError, r"input and target must have the same.*\(2, 4, 1\)"),
    "items": (lambda: metrics.tdi(X, Y[:1]), ValueError, r"input and target must have the same batch size"),
    "dtypes": (lambda: metrics.dtw(X, Y.double()), TypeError, r"input and target must have the same dtype"),
    "metric": (lambda: metrics.dtw(X, Y, metric="nll"), ValueError, r"metric.*must be one of.*'nll'"),
    "kind": (
        lambda: metrics.tdi(X, Y, kind="cubic"),
        ValueError,
        r"kind must be one of 'squared', 'area', got 'cubic'",
    ),
    "reduction": (lambda: metrics.dtw(X, Y, reduction="max"), ValueError, r"reduction must be one of"),
    "band": (lambda: metrics.tdi(X, Y, band=0), ValueError, r"band must be"),
    "lengths": (
        lambda: metrics.dtw(X, Y, input_lengths=torch.tensor([5, 6])),
        ValueError,
        r"input_lengths\[1\] = 6 is outside \[1, 5\]",
    ),
    "target lengths": (
        lambda: metrics.tdi(X, Y, target_lengths=torch.tensor([4])),
        ValueError,
        r"target_lengths must have shape \(2,\)",
    ),
    "no warp": (lambda: error(None, RAMP), TypeError, r"input must be a tuple \(times, values\).*got NoneType"),
    "expected warp": (
        lambda: error(dalign.expected_warp(torch.rand(1, 2, 2)), RAMP),
        TypeError,
        r"input must be \(times, values\), got an ExpectedWarp: give \(None, warp.mean\)",
    ),
    "more times": (
        lambda: error((torch.rand(3), torch.rand(2)), RAMP),
        ValueError,
        r"input must have as many times as values.*3 and 2",
    ),
    "no points": (
        lambda: error((torch.rand(0), torch.rand(0)), RAMP),
        ValueError,
        r"input must have as many times as values, at least one",
    ),
    "dimensions": (
        lambda: error((torch.rand(1, 1, 2), torch.rand(2)), RAMP),
        ValueError,
        r"input must be times \(K,\) or.*\(1, 1, 2\)",
    ),
    "batches": (
        lambda: error([PATH, PATH], [PATH] * 3),
        ValueError,
        r"input and target must have the same batch size, got 2 and 3",
    ),
    "falling times": (
        lambda: error(RAMP, (torch.tensor([0.0, 2.0, 1.0]), torch.rand(3))),
        ValueError,
        r"target must have times that never fall, got 2.0 and then 1.0 in item 0",
    ),
    "nan times": (
        lambda: error((torch.tensor([0.0, math.nan]), torch.rand(2)), RAMP),
        ValueError,
        r"input must have times that never fall",
    ),
    "a path that goes back": (lambda: error(PATH.flip(0), RAMP), ValueError, r"input must have times that never fall"),
    "a path of floats": (lambda: error([PATH.float()], RAMP), TypeError, r"input\[0\] must hold integers"),
    "frames of x": (
        lambda: error(PATH, RAMP, x_times=torch.rand(1)),
        ValueError,
        r"input\[0\] has frame 1 in its cell 1, expected \[0, 1\), the frames of x_times",
    ),
    "frames below 0": (
        lambda: error(PATH - 1, RAMP, input_lengths=torch.tensor([2])),
        ValueError,
        r"input\[0\] has frame -1 in its cell 0",
    ),
    "x_times": (lambda: error(PATH, RAMP, x_times=0), ValueError, r"x_times must be positive and finite"),
    "y_times": (
        lambda: error([PATH] * 2, RAMP, y_times=torch.rand(3, 4)),
        ValueError,
        r"y_times must have shape \(K,\) or \(2, K\)",
    ),
    "instant": (
        lambda: error(RAMP, (torch.zeros(2), torch.rand(2))),
        ValueError,
        r"target, whose breakpoints give the span, must end after",
    ),
    "span": (lambda: error(RAMP, RAMP, span=(1, 1)), ValueError, r"span must end after it starts, got 1.0 to 1.0"),
    "span kind": (lambda: error(RAMP, RAMP, span=3), TypeError, r"span must be a pair"),
    "span part": (lambda: error(RAMP, RAMP, span=(0, None)), TypeError, r"span must hold numbers"),
    "span shape": (
        lambda: error(RAMP, RAMP, span=(0, torch.ones(2))),
        ValueError,
        r"span must hold numbers or tensors \(1,\)",
    ),
    "breakpoints": (
        lambda: error(RAMP, RAMP, breakpoints="input"),
        ValueError,
        r"breakpoints must be one of 'merged', 'target'",
    ),
    "error reduction": (lambda: error(RAMP, RAMP, reduction=None), ValueError, r"reduction must be one of"),
}


@pytest.mark.parametrize("what", MISUSE)
def test_misuse(what):
    call, kind, message = MISUSE[what]
    with pytest.raises(kind, match=message):
        call()
