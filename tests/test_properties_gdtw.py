"""Random warping problems of every kind: feasible, stationary, never above SciPy's best, and gradients of the solution.

The checks are those of the slow reference, which knows the formulas alone.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from reference import gdtw as reference
from torch import Tensor

from torch_dalign import functional

PENALTIES = [("sq2", 2.0), ("p", 1.5), ("p", 3.0), ("huber", 0.3)]
RELAXED = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def problems(draw: Callable, largest: int = 9) -> reference.Problem:
    """Feasible problems with every kind of times, ends, bounds, losses and regularisers."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    slopes = draw(st.sampled_from([None, None, (0.0, np.inf), (0.0, 1.8), (0.4, np.inf), (0.3, 2.2), (0.9, 1.1)]))
    return reference.random_problem(
        rng,
        draw(st.integers(2, largest)),
        draw(st.integers(2, largest)),
        features=draw(st.integers(1, 3)),
        reg=draw(st.sampled_from([0.0, 1e-5, 1e-3, 0.03, 1.0, 100.0])),
        fixed=draw(st.booleans()),
        uneven=draw(st.booleans()),
        slopes=slopes,
        band=draw(st.sampled_from([None, None, 0.1, 0.3])),
        loss=draw(st.sampled_from(PENALTIES)),
        regularizer=draw(st.sampled_from(PENALTIES)),
    )


def tensors(problem: reference.Problem) -> dict[str, Tensor]:
    """The problem as functional.gdtw takes it, in a batch of one; bounds that y's ends set anyway are left out."""
    names = {"t": "x_times", "ty": "y_times", "reg": "reg_weight", "smin": "slope_min", "smax": "slope_max"}
    low = np.where(problem.bmin > problem.ty[0], problem.bmin, -np.inf)
    high = np.where(problem.bmax < problem.ty[-1], problem.bmax, np.inf)
    if is_fixed(problem):
        low[-1], high[0] = -np.inf, np.inf
    arrays = {theirs: getattr(problem, ours) for ours, theirs in ({"x": "x", "y": "y"} | names).items()}
    arrays |= {"band_min": low, "band_max": high}
    return {name: torch.from_numpy(np.array(array))[None] for name, array in arrays.items()}


def is_fixed(problem: reference.Problem) -> bool:
    return bool(problem.bmax[0] <= problem.ty[0] and problem.bmin[-1] >= problem.ty[-1])


def options(problem: reference.Problem) -> dict[str, object]:
    plain = {"loss": "sqeuclidean", "regularizer": "quadratic"}
    kinds = {k: v if getattr(problem, k)[0] == "sq2" else getattr(problem, k) for k, v in plain.items()}
    return {"nominal_slope": problem.s0, "ends": "fixed" if is_fixed(problem) else "free", **kinds}


def solve(problem: reference.Problem, quality: str = "default") -> tuple[np.ndarray, float, int]:
    """Warp, objective, status."""
    given_numbers = tensors(problem)
    x, y = given_numbers.pop("x"), given_numbers.pop("y")
    phi, objective, info = functional.gdtw(
        x, y, **given_numbers, **options(problem), quality=quality, on_infeasible="nan", return_info=True
    )
    return phi[0].numpy(), objective.item(), int(info.status[0])


@RELAXED
@given(problems())
def test_feasible_stationary_and_its_objective_is_right(problem):
    phi, objective, status = solve(problem)
    low, high, blocked = reference.reachable(problem)
    if blocked >= 0 or np.any(low > high + 1e-12):
        assert status == 1
        assert np.isnan(phi).all()
        return
    assert status == 0
    assert reference.violation(problem, phi) <= 1e-14
    np.testing.assert_allclose(objective, reference.objective(problem, phi), rtol=1e-12, atol=1e-15)
    assert reference.kkt_residual(problem, phi) <= 1e-10


@settings(RELAXED, max_examples=40)
@given(problems(), st.integers(0, 2**32 - 1))
def test_never_above_the_best_of_several_runs_of_slsqp(problem, seed):
    low, high, blocked = reference.reachable(problem)
    assume(blocked < 0 and np.all(low <= high))
    _, objective, _ = solve(problem, "thorough")
    best, _ = reference.slsqp(problem, reference.starts(problem, 5, np.random.default_rng(seed)))
    assert objective <= best * (1 + 1e-9) + 1e-12


@settings(RELAXED, max_examples=25)
@given(problems(6))
def test_never_above_a_dense_lattice(problem):
    low, high, blocked = reference.reachable(problem)
    assume(blocked < 0 and np.all(low <= high))
    _, objective, _ = solve(problem, "thorough")
    best, _ = reference.dense_lattice(problem, 121)
    assert objective <= best * (1 + 1e-9) + 1e-12


# ---------------------------------------------------------------- derivatives of the whole solution

CONSTRAINTS = {
    "plain": {},
    "free ends": {"fixed": False},
    "smax": {"slopes": (0.0, 1.4)},
    "smin": {"slopes": (0.5, np.inf)},
    "both slopes": {"slopes": (0.57, 1.53)},
    "band": {"band": 0.08},
    "band and slopes, uneven": {"band": 0.1, "slopes": (0.4, 1.7), "uneven": True},
    "huber": {"loss": ("huber", 0.3), "regularizer": ("huber", 0.3)},
    "powers": {"loss": ("p", 3.0), "regularizer": ("p", 1.5)},
    "free, band, uneven": {"fixed": False, "band": 0.15, "uneven": True},
}


def value(problem: reference.Problem, leaves: dict[str, Tensor], weights: Tensor) -> Tensor:
    """J = weights . phi + F / 2, as a function of all numbers of the problem."""
    numbers = dict(leaves)
    x, y = numbers.pop("x"), numbers.pop("y")
    phi, objective = functional.gdtw(x, y, **numbers, **options(problem))
    return (phi[0] * weights).sum() + objective[0] / 2


def differences(
    problem: reference.Problem, leaves: dict[str, Tensor], name: str, weights: Tensor, step: float
) -> tuple[np.ndarray, np.ndarray]:
    """Central differences in the entries of one tensor, and where those of both sides agree."""
    middle = value(problem, leaves, weights).item()
    central, exists = [], []
    for at in range(leaves[name].numel()):
        sides = []
        for sign in (1, -1):
            moved = leaves[name].clone()
            moved.view(-1)[at] += sign * step
            sides.append(value(problem, leaves | {name: moved}, weights).item())
        plus, minus = (sides[0] - middle) / step, (middle - sides[1]) / step
        central.append((plus + minus) / 2)
        exists.append(abs(plus - minus) <= 1e-3 * (1e-1 + abs(central[-1])))
    return np.array(central), np.array(exists)


@pytest.mark.parametrize("constraints", CONSTRAINTS)
@pytest.mark.parametrize("seed", range(3))
def test_gradients_of_the_whole_solution(seed, constraints):
    """Against differences, in every number of the problem that is not infinite and not held by y's ends."""
    rng = np.random.default_rng(100 + seed)
    m, n = 9 + seed, 12 - seed
    problem = reference.random_problem(rng, m, n, reg=0.005, **CONSTRAINTS[constraints])
    leaves, weights = tensors(problem), torch.from_numpy(rng.standard_normal(m))
    for tensor in leaves.values():
        tensor.requires_grad_()
    grads = torch.autograd.grad(value(problem, leaves, weights), list(leaves.values()))
    plain = {name: leaf.detach() for name, leaf in leaves.items()}
    compared = existing = 0
    for (name, leaf), grad in zip(plain.items(), grads, strict=True):
        finite = np.isfinite(leaf.numpy().ravel())
        if not finite.any():
            continue
        expected, exists = differences(problem, plain, name, weights, 1e-6)
        exists &= finite
        compared, existing = compared + finite.sum(), existing + exists.sum()
        error = np.abs(grad.numpy().ravel() - expected)[exists]
        assert np.all(error <= 2e-4 * (1e-1 + np.abs(expected[exists]))), (name, error.max())
    assert existing >= 0.9 * compared


def test_gradients_reach_s0():
    problem = reference.random_problem(np.random.default_rng(3), 9, 10, reg=0.01)
    leaves = tensors(problem)
    weights = torch.randn(9, dtype=torch.float64)
    x, y = leaves.pop("x"), leaves.pop("y")

    def of_slope(slope: Tensor) -> Tensor:
        return (functional.gdtw(x, y, nominal_slope=slope, **leaves)[0] * weights).sum()

    slope = torch.tensor([1.1], dtype=torch.float64, requires_grad=True)
    (grad,) = torch.autograd.grad(of_slope(slope), slope)
    step = 1e-6
    expected = (of_slope(slope.detach() + step) - of_slope(slope.detach() - step)) / (2 * step)
    torch.testing.assert_close(grad[0], expected, rtol=1e-5, atol=1e-7)
