"""How exact soft-DTW's numbers are: float32 against float64, float64 against the slow recursions.

Two bounds hold. On features uniform on [0, 1] float32 is exact to 1e-5 (value) and 1e-4 of the largest entry
(gradient). And for any numbers the error is at most three times what rounding the costs to float32 does to a float64
recursion: where costs are large against gamma no arithmetic can repair what the rounding has taken away.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pytest
import torch
from reference import softdtw as reference
from torch import Tensor

import torch_dalign as dalign
from torch_dalign import functional

GAMMAS = [1e-4, 1e-3, 1e-2, 1e-1, 1.0, 1e1, 1e2, 1e3]
SCALES = [1.0, 10.0, 100.0]


class Outcome(NamedTuple):
    """Value, <H, C> and gradients of one pair, all float64."""

    value: float
    mean_cost: float
    grad_x: Tensor
    grad_y: Tensor


def draw(n: int, m: int, d: int = 12, scale: float = 1.0, offset: float = 0.0) -> tuple[Tensor, Tensor]:
    """float32 features, uniform on [offset, offset + scale]."""
    return offset + scale * torch.rand(1, n, d), offset + scale * torch.rand(1, m, d)


def from_features(x: Tensor, y: Tensor, gamma: float, metric: str = "sqeuclidean") -> Outcome:
    """Fused, in the features' own type."""
    x, y = x.clone().requires_grad_(), y.clone().requires_grad_()
    learned = torch.tensor(gamma, dtype=torch.float64, requires_grad=True)
    return differentiate(dalign.SoftDTW(learned, metric)(x, y), x, y, learned)


def from_rounded_costs(x: Tensor, y: Tensor, gamma: float, metric: str = "sqeuclidean") -> Outcome:
    """float64 throughout, but for costs rounded to float32; their derivatives by the features are exact."""
    x, y = x.double().requires_grad_(), y.double().requires_grad_()
    cost = dalign.pairwise(x, y, metric)
    cost = cost + (cost.float().double() - cost).detach()
    learned = torch.tensor(gamma, dtype=torch.float64, requires_grad=True)
    return differentiate(functional.soft_dtw(cost, learned).sum(), x, y, learned)


def differentiate(value: Tensor, x: Tensor, y: Tensor, gamma: Tensor) -> Outcome:
    """d value / d gamma = (value - <H, C>) / gamma tells the mean cost."""
    grad_x, grad_y, grad_gamma = torch.autograd.grad(value, (x, y, gamma))
    mean_cost = value.item() - gamma.item() * grad_gamma.item()
    return Outcome(value.item(), mean_cost, grad_x.double(), grad_y.double())


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """Largest difference, as a share of the largest entry."""
    return ((actual - expected).abs().max() / expected.abs().max()).item()


class Errors(NamedTuple):
    """Of the value, as a share of its terms: it is <H, C> less gamma times an entropy, which may cancel. Of the worse
    gradient, as a share of its largest entry.
    """

    value: float
    gradient: float


def errors(actual: Outcome, expected: Outcome) -> Errors:
    """How far actual is off."""
    gradient = max(relative_error(a, e) for a, e in zip(actual[2:], expected[2:], strict=True))
    return Errors(abs(actual.value - expected.value) / (abs(expected.value) + abs(expected.mean_cost)), gradient)


def assert_within(actual: Errors, value: float, gradient: float) -> None:
    assert actual.value <= value
    assert actual.gradient <= gradient


# ---------------------------------------------------------------- float32 against float64


@pytest.mark.parametrize("gamma", [1e-3, 1e-2, 1e-1, 1.0, 10.0])
def test_stated_accuracy_of_float32_for_features_on_the_unit_interval(gamma):
    x, y = draw(4096, 4096)
    actual, exact = from_features(x, y, gamma), from_features(x.double(), y.double(), gamma)
    assert actual.value == pytest.approx(exact.value, rel=1e-5)
    assert errors(actual, exact).gradient <= 1e-4


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize(("n", "m"), [(64, 64), (512, 470), (37, 900)])
def test_float32_is_as_exact_as_float64_on_rounded_costs(n, m, scale, gamma):
    check_against_rounded_costs(n, m, scale, gamma, value=2e-7, gradient=1e-5)


@pytest.mark.parametrize("gamma", GAMMAS[1::2])
@pytest.mark.parametrize("scale", SCALES)
def test_long_float32_is_as_exact_as_float64_on_rounded_costs(scale, gamma):
    check_against_rounded_costs(4096, 4096, scale, gamma, value=2e-7, gradient=3e-5)


def check_against_rounded_costs(n: int, m: int, scale: float, gamma: float, value: float, gradient: float) -> None:
    """Three times the error of rounded costs; what rounding of the sums alone may do is `value` and `gradient`."""
    x, y = draw(n, m, scale=scale)
    exact = from_features(x.double(), y.double(), gamma)
    rounded = errors(from_rounded_costs(x, y, gamma), exact)
    allowed = Errors(max(value, 3 * rounded.value), max(gradient, 3 * rounded.gradient))
    assert_within(errors(from_features(x, y, gamma), exact), *allowed)


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("scale", SCALES)
def test_alignment_of_given_float32_costs(scale, gamma):
    x, y = draw(300, 280, scale=scale)
    cost = dalign.pairwise(x.double(), y.double(), "sqeuclidean")
    exact = functional.alignment(cost, gamma)
    rounded = relative_error(functional.alignment(cost.float().double(), gamma), exact)
    assert relative_error(functional.alignment(cost.float(), gamma).double(), exact) <= max(1e-5, 3 * rounded)


@pytest.mark.parametrize("metric", ["sqeuclidean", "euclidean", "manhattan"])
@pytest.mark.parametrize("gamma", [1e-3, 1e-2, 1.0])
def test_near_duplicates_with_a_large_common_offset(metric, gamma):
    """x^2 - 2 x y + y^2 would lose every digit."""
    x, _ = draw(400, 400, scale=1.0, offset=1000.0)
    y = x[:, ::2] + 1e-2 * torch.rand(1, 200, 12)
    exact = from_features(x.double(), y.double(), gamma, metric)
    rounded = errors(from_rounded_costs(x, y, gamma, metric), exact)
    actual = errors(from_features(x, y, gamma, metric), exact)
    assert_within(actual, max(1e-6, 3 * rounded.value), max(1e-5, 3 * rounded.gradient))


@pytest.mark.parametrize("gamma", [1e-3, 1e-2, 1.0])
@pytest.mark.parametrize("offset", [0.0, 10.0, 100.0, 1000.0])
def test_nearly_parallel_frames(offset, gamma):
    """Cosine costs see the differences of unit frames that lie close together."""
    x, y = draw(200, 220, offset=offset)
    exact = from_features(x.double(), y.double(), gamma, "cosine")
    assert_within(errors(from_features(x, y, gamma, "cosine"), exact), 1e-6, 1e-5)


@pytest.mark.parametrize("n", [1000, 2000])
def test_a_value_far_below_its_terms(n):
    """Every R is near 0 while costs and entropy are not: the digits that cancel are those of costs and gamma log 3."""
    cost = torch.full((1, n, n), math.log(3.0) / 2) + 0.01 * torch.rand(1, n, n)
    actual, exact = functional.soft_dtw(cost), functional.soft_dtw(cost.double())
    terms = n * math.log(3.0)
    assert abs(actual.item() - exact.item()) <= 1e-6 * terms


# ---------------------------------------------------------------- float64 against the recursion


def blur(cost: np.ndarray, gamma: float) -> float:
    """What rounding in double does to the exponents along a path, in the reference as in the kernel."""
    return float(np.finfo(np.float64).eps * np.abs(cost).max() * sum(cost.shape) / gamma)


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("scale", SCALES)
def test_float64_matches_the_recursion(scale, gamma):
    x, y = draw(50, 61, d=5, scale=scale)
    check_float64(dalign.pairwise(x.double(), y.double(), "sqeuclidean"), gamma)


def test_long_float64_matches_the_recursion():
    x, y = draw(1100, 1300, d=3)
    check_float64(dalign.pairwise(x.double(), y.double(), "sqeuclidean"), 0.1)


def check_float64(cost: Tensor, gamma: float) -> None:
    expected = cost[0].numpy()
    value = reference.softdtw_fast(expected, gamma)
    assert functional.soft_dtw(cost, gamma).item() == pytest.approx(value, rel=1e-13, abs=1e-13 * gamma)
    align = torch.from_numpy(reference.alignment_fast(expected, gamma))[None]
    assert relative_error(functional.alignment(cost, gamma), align) <= 1e-12 + blur(expected, gamma)


@pytest.mark.parametrize("gamma", [1e-4, 1.0, 1e3])
def test_fused_float64_matches_costs_given(gamma):
    x, y = draw(130, 120, scale=10.0)
    x, y = x.double().requires_grad_(), y.double().requires_grad_()
    learned = torch.tensor(gamma, dtype=torch.float64, requires_grad=True)
    given = differentiate(functional.soft_dtw(dalign.pairwise(x, y, "sqeuclidean"), learned).sum(), x, y, learned)
    fused = from_features(x.detach(), y.detach(), gamma)
    assert_within(errors(fused, given), 1e-13, 1e-12 + blur(np.array([[1e4 * 12.0]]), gamma))
