"""What holds for the general lattice whatever the input: hypothesis draws shapes, steps, weights, ends, lengths, costs.

The examples are the same in every run. `DALIGN_EXAMPLES=2000 pytest tests/test_properties_ddtw.py` draws that many new
ones instead.
"""

from __future__ import annotations

import math
import os
from typing import Any, NamedTuple

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import ddtw as reference
from torch import Tensor

from torch_dalign import functional

INF = math.inf
EXAMPLES = int(os.environ.get("DALIGN_EXAMPLES", "0"))
SMOOTHINGS = ("softmin", "sparsemin", "smoothmin", "hardmin")


def examples(count: int) -> settings:
    """The same examples in every run, unless more are asked for."""
    if EXAMPLES:
        return settings(max_examples=EXAMPLES, deadline=None, database=None)
    return settings(max_examples=count, deadline=None, database=None, derandomize=True)


# ---------------------------------------------------------------- what is drawn

STEP = st.tuples(st.integers(0, 3), st.integers(0, 3)).filter(any)
STEPS = st.one_of(
    st.sampled_from((((1, 0), (0, 1), (1, 1)), ((1, 0), (1, 1), (1, 2)), ((0, 1), (1, 1)), ((1, 1), (1, 2), (2, 1)))),
    st.lists(STEP, min_size=1, max_size=6).map(tuple),
)
SIZES = st.one_of(st.integers(1, 9), st.integers(1, 20))
GAMMAS = st.floats(-1.5, 1).map(lambda exponent: 10**exponent)
SIDES = st.one_of(
    st.sampled_from(("corner", "any_x", "any_y")), st.tuples(st.integers(1, 5), st.integers(1, 5)), st.just("costs")
)


class Problem(NamedTuple):
    """A batch in float64, every number of which is one of float32."""

    cost: Tensor
    gamma: float
    options: dict[str, Any]  # as functional.ddtw takes them, but for lengths
    lengths: list[tuple[int, int]] | None
    factors: Tensor

    @property
    def named_lengths(self) -> dict[str, Tensor]:
        if self.lengths is None:
            return {}
        x, y = torch.tensor(self.lengths).reshape(-1, 2).T
        return {"x_lengths": x, "y_lengths": y}

    def value(self, dtype: torch.dtype = torch.float64, **changes: Any) -> Tensor:
        options = {name: to(option, dtype) for name, option in (self.options | changes).items()}
        cost = to(options.pop("cost", self.cost), dtype)
        return functional.ddtw(cost, options.pop("gamma", self.gamma), **(self.named_lengths | options))


def to(value: Any, dtype: torch.dtype) -> Any:
    return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value


class Numbers:
    """Random arrays of numbers that are exact in float32."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def uniform(self, *shape: int) -> np.ndarray:
        return self.rng.random(shape, dtype=np.float32).astype(np.float64)

    def some(self, array: np.ndarray, share: float, other: float) -> np.ndarray:
        """The array with about a share of its entries replaced."""
        return np.where(self.rng.random(array.shape) < share, other, array)


@st.composite
def problems(draw: st.DrawFn, smoothings: tuple[str, ...] = SMOOTHINGS) -> Problem:
    batch, n, m = draw(st.integers(1, 3)), draw(SIZES), draw(SIZES)
    steps, numbers = draw(STEPS), Numbers(draw(st.integers(0, 2**32 - 1)))
    cost = numbers.some(numbers.uniform(batch, n, m), draw(st.sampled_from((0, 0, 0.1, 0.5))), INF)
    if draw(st.booleans()):
        cost = 2 * cost - 1
    options: dict[str, Any] = {"steps": steps, "smoothing": draw(st.sampled_from(smoothings))}
    if draw(st.booleans()):
        apart = draw(st.tuples(*[st.booleans()] * 3))
        shape = [size if told else 1 for size, told in zip((batch, n, m), apart, strict=True)]
        weights = numbers.some(numbers.some(2 * numbers.uniform(*shape, len(steps)), 0.2, 1), 0.1, 0)
        options["step_weights"] = torch.tensor(numbers.some(weights, draw(st.sampled_from((0, 0.2))), INF))
    for name in ("start", "end"):
        side = draw(SIDES)
        if side == "costs":
            shape = (draw(st.sampled_from((1, batch))), n, m)
            side = torch.tensor(numbers.some(3 * numbers.uniform(*shape), 0.5, INF))
        options[name] = side
    lengths = (
        [(draw(st.integers(1, n)), draw(st.integers(1, m))) for _ in range(batch)] if draw(st.booleans()) else None
    )
    factors = torch.tensor(numbers.uniform(batch)) - 0.5
    return Problem(torch.tensor(cost), draw(GAMMAS), options, lengths, factors)


def near(found: Tensor, expected: np.ndarray, tolerance: float, what: str) -> None:
    """As a share of the largest expected, or of 1."""
    largest = np.abs(expected[np.isfinite(expected)]).max(initial=1)
    np.testing.assert_allclose(found.double().numpy(), expected, rtol=0, atol=tolerance * largest, err_msg=what)


# ---------------------------------------------------------------- against the reference


@examples(250)
@given(problems(), st.sampled_from((torch.float32, torch.float64)))
def test_values_and_derivatives_are_those_of_the_reference(problem, dtype):
    names = [name for name in ("step_weights", "start", "end") if isinstance(problem.options.get(name), Tensor)]
    leaves = {name: to(problem.options[name], dtype).clone().requires_grad_() for name in names}
    leaves["cost"] = to(problem.cost, dtype).clone().requires_grad_()
    value = problem.value(dtype, **leaves)
    slopes = torch.autograd.grad(value, leaves.values(), problem.factors.to(dtype))
    arrays = {
        name: option.numpy() if isinstance(option, Tensor) else option for name, option in problem.options.items()
    }
    expected = reference.batch(
        problem.cost.numpy(),
        problem.gamma,
        arrays["smoothing"],
        steps=arrays["steps"],
        weights=arrays.get("step_weights"),
        start=arrays["start"],
        end=arrays["end"],
        lengths=problem.lengths,
        factors=problem.factors.numpy(),
    )
    is_single = dtype == torch.float32
    near(value.detach(), expected.value, 1e-5 if is_single else 1e-10, "value")
    for name, slope in zip(leaves, slopes, strict=True):
        part = expected.weights if name == "step_weights" else getattr(expected, name)
        near(slope, part, 1e-4 if is_single else 1e-9, name)


# ---------------------------------------------------------------- what needs no reference


@examples(60)
@given(problems(), st.sampled_from((0.25, 2.0, 1024.0)))
def test_a_unit_of_costs_is_a_unit_of_values(problem, unit):
    """Costs, costs of ends and gamma in another unit, a power of 2: the same value in that unit, to the bit nearly."""
    ends = {name: problem.options[name] for name in ("start", "end")}
    scaled = {name: unit * end if isinstance(end, Tensor) else end for name, end in ends.items()}
    value = problem.value(cost=unit * problem.cost, gamma=unit * problem.gamma, **scaled)
    torch.testing.assert_close(value, unit * problem.value(), rtol=1e-12, atol=1e-12 * unit)


@examples(60)
@given(problems(), st.randoms(use_true_random=False))
def test_the_order_of_the_steps_does_not_matter(problem, random):
    order = list(range(len(problem.options["steps"])))
    random.shuffle(order)
    changes: dict[str, Any] = {"steps": tuple(problem.options["steps"][k] for k in order)}
    if "step_weights" in problem.options:
        changes["step_weights"] = problem.options["step_weights"][..., order]
    torch.testing.assert_close(problem.value(**changes), problem.value(), rtol=1e-11, atol=1e-11)


@examples(60)
@given(problems())
def test_rows_and_columns_may_change_places(problem):
    turned: dict[str, Any] = {"steps": tuple((j, i) for i, j in problem.options["steps"])}
    names = {"corner": "corner", "any_x": "any_y", "any_y": "any_x"}
    for name in ("start", "end"):
        end = problem.options[name]
        turned[name] = end.mT if isinstance(end, Tensor) else names[end] if isinstance(end, str) else end[::-1]
    if "step_weights" in problem.options:
        turned["step_weights"] = problem.options["step_weights"].transpose(1, 2)
    other = problem._replace(lengths=problem.lengths and [(m, n) for n, m in problem.lengths])
    value = other.value(cost=problem.cost.mT, **turned)
    torch.testing.assert_close(value, problem.value(), rtol=1e-11, atol=1e-11)


@examples(60)
@given(problems(("softmin", "hardmin")))
def test_paths_may_be_walked_backwards(problem):
    """Without weights every cell of a path counts alike, so start and end may change places."""
    plain = {"step_weights": None, "x_lengths": None, "y_lengths": None}
    start, end = (problem.options[name] for name in ("start", "end"))
    flipped = {
        "start": end.flip(1, 2) if isinstance(end, Tensor) else end,
        "end": start.flip(1, 2) if isinstance(start, Tensor) else start,
    }
    value = problem.value(cost=problem.cost.flip(1, 2), **plain, **flipped)
    torch.testing.assert_close(value, problem.value(**plain), rtol=1e-11, atol=1e-11)


@examples(60)
@given(problems())
def test_operators_lie_on_their_side_of_the_hard_minimum(problem):
    """softmin and sparsemin are at most the least of their arguments, smoothmin, a mean of them, at least that."""
    hard, slack = problem.value(smoothing="hardmin"), 1e-9
    finite = hard.isfinite()
    for smoothing, side in (("softmin", -1), ("sparsemin", -1), ("smoothmin", 1)):
        value = problem.value(smoothing=smoothing)
        assert torch.equal(value.isfinite(), finite)
        assert (side * (value - hard)[finite] >= -slack).all()


@examples(60)
@given(problems(("softmin", "hardmin", "sparsemin")))
def test_more_ways_cost_no_more(problem):
    """With another step, or where every cell is an end of cost 0."""
    value, slack = problem.value(), 1e-9
    anywhere = torch.zeros(1, *problem.cost.shape[1:], dtype=torch.float64)
    costs = problem.options["end"]
    cheaper = torch.minimum(costs, anywhere) if isinstance(costs, Tensor) else anywhere
    assert (problem.value(end=cheaper) <= value + slack).all()
    weights = problem.options.get("step_weights", torch.ones(1, 1, 1, len(problem.options["steps"])))
    more = torch.cat((weights, torch.ones(*weights.shape[:3], 1, dtype=weights.dtype)), 3)
    steps = (*problem.options["steps"], (1, 1))
    assert (problem.value(steps=steps, step_weights=more) <= value + slack).all()


@examples(60)
@given(problems())
def test_a_blocked_step_and_blocked_cells_are_as_none(problem):
    weights = problem.options.get("step_weights", torch.ones(1, 1, 1, len(problem.options["steps"])))
    more = torch.cat((torch.full((*weights.shape[:3], 1), INF, dtype=weights.dtype), weights), 3)
    steps = ((0, 1), *problem.options["steps"])
    value = problem.value()
    torch.testing.assert_close(problem.value(steps=steps, step_weights=more), value, rtol=1e-11, atol=1e-11)
    _, n, m = problem.cost.shape
    wider = torch.nn.functional.pad(problem.cost, (0, 3, 0, 2), value=INF)
    own = problem.named_lengths or {"x_lengths": [n] * len(wider), "y_lengths": [m] * len(wider)}
    changes: dict[str, Any] = {name: torch.as_tensor(length) for name, length in own.items()}
    for name in ("start", "end"):
        if isinstance(problem.options[name], Tensor):
            changes[name] = torch.nn.functional.pad(problem.options[name], (0, 3, 0, 2))
    if "step_weights" in problem.options:
        apart = [size > 1 for size in weights.shape[1:3]]
        changes["step_weights"] = torch.nn.functional.pad(weights, (0, 0, 0, 3 * apart[1], 0, 2 * apart[0]), value=7)
        if (apart[0] is False and n == 1) or (apart[1] is False and m == 1):
            changes["step_weights"] = weights
    torch.testing.assert_close(problem.value(cost=wider, **changes), value, rtol=1e-11, atol=1e-11)


@examples(60)
@given(problems(), st.sampled_from((torch.float32, torch.float64)))
def test_an_item_has_the_same_bits_alone(problem, dtype):
    """But for the layout of what is shared, which decides on the order of sums."""
    cost = to(problem.cost, dtype)
    value = problem.value(dtype)
    align = functional.ddtw_alignment(
        cost, problem.gamma, **{k: to(v, dtype) for k, v in problem.options.items()}, **problem.named_lengths
    )
    for b in range(len(cost)):
        own = {
            name: to(option[b : b + 1] if len(option) > 1 else option, dtype) if isinstance(option, Tensor) else option
            for name, option in problem.options.items()
        }
        lengths = {name: length[b : b + 1] for name, length in problem.named_lengths.items()}
        alone = functional.ddtw(cost[b : b + 1], problem.gamma, **own, **lengths)
        assert torch.equal(alone, value[b : b + 1])
        own_align = functional.ddtw_alignment(cost[b : b + 1], problem.gamma, **own, **lengths)
        assert torch.equal(own_align, align[b : b + 1])


@examples(60)
@given(problems(("softmin",)))
def test_where_every_step_advances_x_each_row_is_visited_once(problem):
    cost = torch.where(problem.cost.isfinite(), problem.cost, 1.0)
    steps = ((1, 0), (1, 1), (1, 2))
    align = functional.ddtw_alignment(cost, problem.gamma, steps=steps, start="any_y", end="any_y")
    torch.testing.assert_close(align.sum(2), torch.ones(cost.shape[:2], dtype=torch.float64), rtol=1e-12, atol=1e-12)
