"""The general lattice: values and all derivatives against the slow reference and every path, options, edges, misuse."""

from __future__ import annotations

import copy
import itertools
import math
import pickle
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from reference import ddtw as reference
from torch import Tensor, nn
from torch.autograd import grad, gradcheck, gradgradcheck
from torch.utils._python_dispatch import TorchDispatchMode

import torch_dalign as dalign
from torch_dalign import functional

INF, NAN = math.inf, math.nan
DTYPES = (torch.float32, torch.float64)
SMOOTHINGS = ("softmin", "sparsemin", "smoothmin", "hardmin")
THREE = ((1, 0), (0, 1), (1, 1))
STEP_SETS = {
    "three": THREE,
    "rows": ((1, 0), (1, 1)),
    "CTC": ((1, 0), (1, 1), (1, 2)),
    "columns": ((0, 1), (1, 1), (2, 1)),
    "no side stands still": ((1, 1), (1, 2), (2, 1)),
    "far": ((1, 0), (0, 1), (1, 1), (3, 1), (1, 4)),
    "no diagonal": ((0, 2), (3, 0), (0, 1), (1, 0)),
    "twice the same": ((1, 1), (1, 0), (1, 1), (0, 1)),
    "down alone": ((1, 0),),
    "beyond the lattice": ((1, 1), (1, 0), (90, 1), (1, 90), (2**31, 2**31)),
}


# ---------------------------------------------------------------- a problem, for the package and for the reference


class Problem(NamedTuple):
    """A batch of costs (B, N, M) with options; ends are names, pairs or costs, lengths pairs of an item each."""

    cost: Tensor
    steps: tuple[tuple[int, int], ...] = THREE
    weights: Tensor | None = None
    start: Any = "corner"
    end: Any = "corner"
    gamma: float = 0.7
    smoothing: str = "softmin"
    lengths: list[tuple[int, int]] | None = None
    factors: Tensor | None = None

    @property
    def options(self) -> dict[str, Any]:
        """As `functional.ddtw` takes what is not differentiated."""
        lengths = {}
        if self.lengths is not None:
            x, y = torch.tensor(self.lengths).T
            lengths = {"x_lengths": x, "y_lengths": y}
        return {"steps": self.steps, "smoothing": self.smoothing, **lengths}

    def differentiated(self) -> tuple[Tensor, dict[str, Tensor]]:
        """Values, and the derivatives of their sum, weighed by the factors, in all that is a tensor."""
        leaves = {
            name: tensor.clone().requires_grad_()
            for name in ("cost", "weights", "start", "end")
            if isinstance(tensor := getattr(self, name), Tensor)
        }
        leaves["gamma"] = torch.tensor(self.gamma, dtype=torch.float64, requires_grad=True)
        ends = {name: leaves.get(name, getattr(self, name)) for name in ("start", "end")}
        value = functional.ddtw(
            leaves["cost"], leaves["gamma"], step_weights=leaves.get("weights"), **ends, **self.options
        )
        factors = torch.ones_like(value) if self.factors is None else self.factors.to(value.dtype)
        return value.detach(), dict(zip(leaves, grad(value, leaves.values(), factors), strict=True))

    def expected(self) -> reference.Batch:
        def array(value: Any) -> Any:
            return value.double().numpy() if isinstance(value, Tensor) else value

        return reference.batch(
            array(self.cost),
            self.gamma,
            self.smoothing,
            steps=self.steps,
            weights=array(self.weights),
            start=array(self.start),
            end=array(self.end),
            lengths=self.lengths,
            factors=array(self.factors),
        )


def check(problem: Problem) -> None:
    """Values to 1e-5 in float32, derivatives to 1e-4 of their largest; in float64 to 1e-10 and 1e-9."""
    is_single = problem.cost.dtype == torch.float32
    values, grads = problem.differentiated()
    expected = problem.expected()
    near(values, expected.value, 1e-5 if is_single else 1e-10)
    near_slope(grads.pop("gamma").item(), expected, problem)
    for name, found in grads.items():
        near(found, getattr(expected, name), 1e-4 if is_single else 1e-9, name)


def near_slope(found: float, expected: reference.Batch, problem: Problem) -> None:
    """d value / d gamma is (value - mean cost) / gamma: it keeps the digits of value / gamma."""
    size = np.abs(expected.value[np.isfinite(expected.value)]).sum() / problem.gamma + abs(expected.gamma)
    tolerance = 16 * torch.finfo(problem.cost.dtype).eps * size + 1e-9
    assert found == pytest.approx(
        expected.gamma, rel=1e-4 if problem.cost.dtype == torch.float32 else 1e-9, abs=tolerance
    )


def near(found: Tensor, expected: np.ndarray, tolerance: float, what: str = "value") -> None:
    """As a share of the largest expected, or of 1."""
    largest = np.abs(expected[np.isfinite(expected)]).max(initial=1)
    np.testing.assert_allclose(found.double().numpy(), expected, rtol=0, atol=tolerance * largest, err_msg=what)


def some_costs(*shape: int, blocked: float = 0.6) -> Tensor:
    return torch.rand(shape, dtype=torch.float64).masked_fill(torch.rand(shape) < blocked, INF)


def some_weights(*shape: int, blocked: float = 0.15) -> Tensor:
    weights = 2 * torch.rand(shape, dtype=torch.float64)
    weights = weights.masked_fill(torch.rand(shape) < 0.2, 1).masked_fill(torch.rand(shape) < 0.1, 0)
    return weights.masked_fill(torch.rand(shape) < blocked, INF)


def weight_shapes(b: int, n: int, m: int, s: int) -> list[tuple[int, ...]]:
    """Every way to broadcast to (B, N, M, S)."""
    of_four = [(*sizes, s) for sizes in itertools.product((1, b), (1, n), (1, m))]
    return [(m, s), (n, m, s), (n, 1, s), (s,), *of_four]


def cast(problem: Problem, dtype: torch.dtype) -> Problem:
    """All floating-point tensors of a problem."""
    return problem._replace(
        **{name: value.to(dtype) for name, value in problem._asdict().items() if isinstance(value, Tensor)}
    )


def random_ends(kind: int, n: int, m: int, b: int) -> Any:
    return ["corner", "any_x", "any_y", (2, 3), some_costs(1, n, m), some_costs(b, n, m)][kind % 6]


# ---------------------------------------------------------------- against the reference


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("smoothing", SMOOTHINGS)
@pytest.mark.parametrize("name", STEP_SETS)
def test_derivatives_against_the_reference(name, smoothing, dtype):
    steps, b = STEP_SETS[name], 3
    n, m = 6, 8
    for k, shape in enumerate(weight_shapes(b, n, m, len(steps))):
        cost = torch.rand(b, n, m, dtype=torch.float64)
        if k % 3 == 1:
            cost = cost.masked_fill(torch.rand(b, n, m) < 0.1, INF)
        problem = Problem(
            cost,
            steps,
            some_weights(*shape, blocked=0.15 * (k % 2)),
            random_ends(k, n, m, b),
            random_ends(k // 2, n, m, b),
            smoothing=smoothing,
            lengths=[(n, m), (n - 2, m - 1), (2, 3)] if k % 2 else None,
            factors=torch.randn(b, dtype=torch.float64),
        )
        check(cast(problem, dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["three", "CTC", "columns", "far"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (33, 50), (70, 17)])
def test_shapes_on_both_sides_of_a_vector(shape, name, dtype):
    for weighted in (False, True):
        weights = some_weights(1, shape[1], len(STEP_SETS[name]), blocked=0) if weighted else None
        cost = 2 * torch.rand(1, *shape, dtype=torch.float64) - 0.5
        check(cast(Problem(cost, STEP_SETS[name], weights, "any_y", "any_x"), dtype))


@pytest.mark.parametrize("name", STEP_SETS)
def test_value_is_the_sum_over_every_path(name):
    steps = STEP_SETS[name]
    for n, m, gamma in ((1, 1, 1.0), (4, 3, 0.5), (3, 4, 2.0), (4, 4, 0.1)):
        cost, weights = some_costs(1, n, m, blocked=0.1), some_weights(1, n, m, len(steps))
        start, end = some_costs(1, n, m, blocked=0.5), some_costs(1, n, m, blocked=0.5)
        value = functional.ddtw(cost, gamma, steps=steps, step_weights=weights, start=start, end=end)
        problem = reference.lattice(*(t[0].numpy() if isinstance(t, Tensor) else t for t in (cost, steps, weights)))
        problem = problem._replace(start=start[0].numpy(), end=end[0].numpy())
        assert value.item() == pytest.approx(reference.brute_softmin(problem, gamma), abs=1e-12)


def test_alignment_is_the_share_of_paths_through_a_cell():
    cost = torch.rand(1, 4, 4, dtype=torch.float64)
    problem = reference.lattice(cost[0].numpy(), THREE)
    paths = list(reference.every_path(problem))
    assert len(paths) == 63  # the Delannoy number D(3, 3)
    shares = np.exp(-np.array([total for _, total in paths]))
    through = np.zeros((4, 4))
    for (cells, _), share in zip(paths, shares / shares.sum(), strict=True):
        through[tuple(np.array(cells).T)] += share
    near(functional.ddtw_alignment(cost)[0], through, 1e-14)


def test_hardmin_takes_the_first_of_equal_steps():
    cost = torch.zeros(1, 2, 2)
    for steps, expected in (
        (THREE, [[1, 1], [0, 1]]),
        (THREE[::-1], [[1, 0], [0, 1]]),
        (((0, 1), (1, 0)), [[1, 0], [1, 1]]),
    ):
        assert functional.ddtw_alignment(cost, steps=steps, smoothing="hardmin").tolist() == [expected]


@pytest.mark.parametrize("smoothing", SMOOTHINGS)
def test_masks_pairs_and_names_are_costs_of_0(smoothing):
    cost = torch.rand(2, 7, 9, dtype=torch.float64)
    for ends in ("corner", "any_x", "any_y", (3, 2), (100, 100)):
        options = {"smoothing": smoothing, "start": ends, "end": ends}
        value = functional.ddtw(cost, **options)
        start, end = (torch.tensor(reference.side(ends, 7, 9, is_end))[None] for is_end in (False, True))
        torch.testing.assert_close(functional.ddtw(cost, smoothing=smoothing, start=start, end=end), value)
        masked = functional.ddtw(cost, smoothing=smoothing, start=start == 0, end=(end == 0).expand(2, -1, -1))
        torch.testing.assert_close(masked, value)


# ---------------------------------------------------------------- derivatives of autograd


def learned(b: int = 2, n: int = 5, m: int = 4) -> dict[str, Tensor]:
    """All that may be learned, told apart by everything."""
    torch.manual_seed(1)
    shapes = {"cost": (b, n, m), "weights": (b, n, m, 3), "start": (b, n, m), "end": (b, n, m)}
    tensors = {name: torch.rand(shape, dtype=torch.float64) for name, shape in shapes.items()}
    return {name: t.requires_grad_() for name, t in (tensors | {"gamma": torch.tensor(0.7).double()}).items()}


def shared(tensors: dict[str, Tensor], layout: str) -> dict[str, Tensor]:
    """The same with less told apart."""
    weights = {
        "each": tensors["weights"],
        "batch": tensors["weights"][:1],
        "columns": tensors["weights"][:, :1],
        "rows": tensors["weights"][:1, :, :1],
        "steps": tensors["weights"][0, 0, 0],
    }[layout]
    ends = {name: tensors[name] if layout in ("each", "columns") else tensors[name][:1] for name in ("start", "end")}
    return {name: t.detach().requires_grad_() for name, t in (tensors | {"weights": weights} | ends).items()}


def as_function(**options: Any) -> Callable[..., Tensor]:
    def value(cost: Tensor, weights: Tensor, start: Tensor, end: Tensor, gamma: Tensor) -> Tensor:
        return functional.ddtw(cost, gamma, step_weights=weights, start=start, end=end, **options)

    return value


LENGTHS = {"x_lengths": torch.tensor([5, 3]), "y_lengths": torch.tensor([3, 4])}
LAYOUTS = ("each", "batch", "columns", "rows", "steps")


@pytest.mark.parametrize("smoothing", ["softmin", "sparsemin", "smoothmin"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradcheck(layout, smoothing):
    tensors = shared(learned(), layout)
    assert gradcheck(as_function(smoothing=smoothing, **LENGTHS), tuple(tensors.values()))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradgradcheck(layout):
    tensors = shared(learned(2, 4, 4), layout)
    lengths = {"x_lengths": torch.tensor([4, 3])}
    assert gradgradcheck(as_function(**lengths), tuple(tensors.values()))


@pytest.mark.parametrize("name", ["CTC", "columns", "no side stands still", "far"])
def test_gradgradcheck_of_costs_alone(name):
    cost = torch.rand(2, 6, 6, dtype=torch.float64, requires_grad=True)
    options = {"steps": STEP_SETS[name], "start": "any_x", "end": (2, 3)}
    assert gradgradcheck(lambda c: functional.ddtw(c, 0.5, **options), (cost,))
    assert gradcheck(lambda c: functional.ddtw_alignment(c, 0.5, **options), (cost,))


def test_gradgradcheck_with_blocked_cells_steps_and_ends():
    cost, weights, start = some_costs(2, 5, 5, blocked=0.1), some_weights(1, 1, 5, 3), some_costs(1, 5, 5, blocked=0.4)
    cost[0].fill_diagonal_(0.2)
    cost[1, 2] = INF  # no path left in this item
    weights[..., 2], start[0, 0, 0] = 0.5, 0.1
    finite = [t.isfinite() for t in (cost, weights, start)]
    parts = [t[mask].requires_grad_() for t, mask in zip((cost, weights, start), finite, strict=True)]
    gamma = torch.tensor(0.6, dtype=torch.float64, requires_grad=True)

    def value(*values: Tensor) -> Tensor:
        spread = [
            torch.full_like(mask, INF, dtype=torch.float64).masked_scatter(mask, part)
            for mask, part in zip(finite, values[:3], strict=True)
        ]
        return functional.ddtw(spread[0], values[3], step_weights=spread[1], start=spread[2])[:1]

    assert gradcheck(value, (*parts, gamma))
    assert gradgradcheck(value, (*parts, gamma))


@pytest.mark.parametrize("smoothing", ["sparsemin", "smoothmin", "hardmin"])
def test_only_softmin_has_second_derivatives(smoothing):
    tensors = learned()
    (slope,) = grad(as_function(smoothing=smoothing)(**tensors).sum(), tensors["cost"], create_graph=True)
    with pytest.raises(RuntimeError, match=f"second derivatives need smoothing='softmin', not '{smoothing}'"):
        slope.sum().backward()


def test_third_derivative_is_refused():
    tensors = learned()
    (first,) = grad(as_function()(**tensors).sum(), tensors["cost"], create_graph=True)
    (second,) = grad((first**2).sum(), tensors["cost"], create_graph=True)
    with pytest.raises(RuntimeError, match="third-order derivatives are not implemented"):
        second.sum().backward()


def test_vmap_is_refused():
    with pytest.raises(RuntimeError, match="fold the mapped dimension into the batch"):
        torch.vmap(functional.ddtw)(torch.rand(2, 3, 4, 5))


def test_alignment_is_the_gradient():
    for smoothing in SMOOTHINGS:
        cost = torch.rand(2, 9, 8, dtype=torch.float64, requires_grad=True)
        options = {"smoothing": smoothing, "step_weights": (1.0, 0.5, 2.0), **LENGTHS}
        (slope,) = grad(functional.ddtw(cost, 0.3, **options).sum(), cost)
        torch.testing.assert_close(functional.ddtw_alignment(cost, 0.3, **options), slope, rtol=1e-13, atol=1e-13)


# ---------------------------------------------------------------- equality with other parts of the package


@pytest.mark.parametrize("weights", [None, (1.0, 1.0, 2.0), (0.1, INF, 1.0)])
def test_three_steps_are_soft_dtw(weights):
    x = torch.randn(3, 40, 4, dtype=torch.float64, requires_grad=True)
    y = torch.randn(3, 31, 4, dtype=torch.float64)
    lengths = torch.tensor([40, 12, 7]), torch.tensor([20, 31, 5])
    ours = dalign.DDTW(gamma=0.3, step_weights=weights, reduction="none")
    theirs = dalign.SoftDTW(0.3, step_weights=weights, reduction="none")
    values = [loss(x, y, *lengths) for loss in (ours, theirs)]
    torch.testing.assert_close(*values, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(ours.alignment(x, y, *lengths), theirs.alignment(x, y, *lengths), rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(*(grad(v.sum(), x)[0] for v in values), rtol=1e-9, atol=1e-11)


PATTERNS = {
    "symmetric1": (THREE, (1.0, 1.0, 1.0)),
    "weighted": (THREE, (2.0, 1.0, 1.5)),
    "2-1": (((1, 1), (2, 1), (1, 2)), (1.0, 1.0, 1.0)),
    "asymmetric": (((1, 0), (1, 1), (1, 2)), (1.0, 1.0, 1.0)),
}


@pytest.mark.parametrize("subsequence", [False, True])
@pytest.mark.parametrize("name", PATTERNS)
def test_hardmin_is_dtw(name, subsequence):
    steps, weights = PATTERNS[name]
    x, y = torch.randn(2, 30, 3, dtype=torch.float64), torch.randn(2, 41, 3, dtype=torch.float64)
    ends = "any_y" if subsequence else "corner"
    loss = dalign.DDTW(steps, weights, ends, ends, "hardmin", reduction="none")
    options = {"steps": steps, "step_weights": weights, "subsequence": subsequence}
    torch.testing.assert_close(loss(x, y), dalign.dtw(x, y, **options), rtol=1e-12, atol=1e-12)
    paths = dalign.dtw_path(x, y, **options)
    assert all(torch.equal(a, b) for a, b in zip(loss.best_path(x, y), paths, strict=True))


# ---------------------------------------------------------------- best paths


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", STEP_SETS)
def test_best_paths_against_the_reference(name, dtype):
    steps, lengths = STEP_SETS[name], [(9, 11), (5, 11), (2, 1)]
    for k in range(6):
        cost, weights = some_costs(3, 9, 11, blocked=0.05), some_weights(3, 1, 11, len(steps), blocked=0.05)
        problem = cast(Problem(cost, steps, weights, random_ends(k, 9, 11, 3), random_ends(k + 2, 9, 11, 3)), dtype)
        problem = problem._replace(lengths=lengths)
        loss = dalign.DDTW(steps, problem.weights, problem.start, problem.end, metric="precomputed")
        paths = loss.best_path(problem.cost, None, *torch.tensor(lengths).T)
        arrays = [t.double().numpy() if isinstance(t, Tensor) else t for t in problem[:5]]
        for b, path in enumerate(paths):
            expected = reference.best_path(reference.item(*arrays, lengths[b], b))
            assert path.dtype == torch.int64
            assert path.shape == (len(expected), 2)
            assert path.tolist() == [list(cell) for cell in expected]


def test_best_path_where_rows_come_in_blocks():
    """The rows of a long lattice are computed again, block by block, on the way back."""
    x, y = torch.rand(1, 900, 2, dtype=torch.float64), torch.rand(1, 800, 2, dtype=torch.float64)
    steps = ((1, 0), (0, 1), (2, 1), (1, 3))
    loss = dalign.DDTW(steps, smoothing="hardmin", start="any_y", end="any_x")
    path = loss.best_path(x, y)[0]
    moves = {tuple(move) for move in (path[1:] - path[:-1]).tolist()}
    assert moves <= set(steps)
    assert path[0, 0] == 0
    assert path[-1, 1] == 799
    cost = dalign.pairwise(x, y)[0]
    assert cost[tuple(path.T)].sum().item() == pytest.approx(loss(x, y).item(), rel=1e-12)
    on_path = torch.zeros_like(cost)
    on_path[tuple(path.T)] = 1
    assert torch.equal(loss.alignment(x, y)[0], on_path)


# ---------------------------------------------------------------- large and small numbers


@pytest.mark.parametrize("gamma", [1e-4, 1e-2, 1.0, 1e3])
@pytest.mark.parametrize("scale", [1, 10, 100])
@pytest.mark.parametrize("name", ["three", "CTC", "columns", "no side stands still"])
def test_float32_keeps_its_digits(name, scale, gamma):
    """Where exponents outgrow a float, doubles take over, and logarithms where they outgrow these."""
    check_digits(scale * torch.rand(1, 260, 4), scale * torch.rand(1, 230, 4), STEP_SETS[name], gamma)


@pytest.mark.parametrize(("scale", "gamma"), [(1, 1e-4), (10, 1.0), (100, 1e-4), (100, 1e3)])
def test_float32_keeps_its_digits_in_long_pairs(scale, gamma):
    check_digits(scale * torch.rand(1, 2000, 4), scale * torch.rand(1, 1500, 4), THREE, gamma)


def check_digits(x: Tensor, y: Tensor, steps: tuple, gamma: float) -> None:
    """float32 beside float64 on the same costs."""
    cost = dalign.pairwise(x, y)
    options = {"steps": steps, "end": "any_x"}
    (value, slope), (exact, exact_slope) = (
        (functional.ddtw(c, gamma, **options), functional.ddtw_alignment(c, gamma, **options))
        for c in (cost, cost.double())
    )
    torch.testing.assert_close(value.double(), exact, rtol=1e-5, atol=0)
    torch.testing.assert_close(slope.double(), exact_slope, rtol=0, atol=1e-4)
    assert exact_slope.sum() > 0


@pytest.mark.parametrize(
    ("scale", "gamma"), [(s, g) for s in (1e-3, 1e5, 1e10, 1e30, 1e37) for g in (1e-300, 1e-30, s / 1e5)]
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_far_smaller_gammas_than_costs_give_hard_dtw(scale, gamma, dtype):
    cost = (scale * (1 + torch.rand(2, 20, 25))).to(dtype)
    for weights, steps in itertools.product((None, (1.0, 2.0, 0.5)), (THREE, STEP_SETS["CTC"])):
        options = {"step_weights": weights, "steps": steps}
        hard = functional.ddtw(cost, smoothing="hardmin", **options)
        torch.testing.assert_close(functional.ddtw(cost, gamma, **options), hard, rtol=1e-5, atol=0)
        on_path = functional.ddtw_alignment(cost, smoothing="hardmin", **options)
        torch.testing.assert_close(functional.ddtw_alignment(cost, gamma, **options), on_path, rtol=0, atol=1e-4)


@pytest.mark.parametrize("dtype", DTYPES)
def test_steps_of_huge_weight_are_as_good_as_blocked(dtype):
    cost = 0.5 + torch.rand(2, 25, 25, dtype=dtype)
    for weights in ((1.0, 1e20, 1.0), (1e30, 1.0, 1.0)):
        blocked = tuple(INF if w > 1 else w for w in weights)
        for function in (functional.ddtw, functional.ddtw_alignment):
            torch.testing.assert_close(function(cost, step_weights=weights), function(cost, step_weights=blocked))


@pytest.mark.parametrize("dtype", DTYPES)
def test_negative_costs_and_ends(dtype):
    problem = Problem(-1000 * torch.rand(2, 12, 15, dtype=torch.float64), gamma=30.0)
    ends = -500 * torch.rand(2, 12, 15, dtype=torch.float64)
    check(cast(problem, dtype))
    check(cast(problem._replace(start=ends, end=ends[:1], weights=some_weights(15, 3)), dtype))


def test_ends_of_costs_far_from_the_lattices():
    cost = torch.rand(1, 20, 20)
    for far in (1e6, 1e10, 1e30):
        ends = torch.full((1, 20, 20), far)
        value = functional.ddtw(cost, 0.01, start=ends)
        exact = functional.ddtw(cost.double(), 0.01, start="corner") + far
        torch.testing.assert_close(value.double(), exact, rtol=1e-5, atol=0)
        ends[0, 3, 4] = 0
        ends[0, 0, 0] = INF
        torch.testing.assert_close(
            functional.ddtw(cost, 0.01, start=ends), functional.ddtw(cost[:, 3:, 4:], 0.01), rtol=1e-5, atol=0
        )


# ---------------------------------------------------------------- edges


@pytest.mark.parametrize("smoothing", SMOOTHINGS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_no_path_left(dtype, smoothing):
    cost = torch.rand(3, 5, 6, dtype=dtype)
    cost[0, 2] = INF
    cost[2] = INF
    tensors = [cost, torch.ones(3, dtype=dtype), torch.zeros(1, 5, 6, dtype=dtype), torch.tensor(0.5).double()]
    cost, weights, start, gamma = (t.requires_grad_() for t in tensors)
    value = functional.ddtw(cost, gamma, step_weights=weights, start=start, smoothing=smoothing)
    assert value.isinf().tolist() == [False, False, True]
    corner = functional.ddtw(cost, gamma, step_weights=weights, smoothing=smoothing)
    assert corner.isinf().tolist() == [True, False, True]
    grads = grad(corner.sum(), (cost, weights, gamma))
    assert (grads[0][[0, 2]] == 0).all()
    assert all(g.isfinite().all() for g in grads)
    alone = functional.ddtw(cost[1:2], gamma, step_weights=weights, smoothing=smoothing)
    for both, single in zip(grads, grad(alone.sum(), (cost, weights, gamma)), strict=True):
        torch.testing.assert_close(both, single)


@pytest.mark.parametrize("what", ["costs", "steps", "start", "end", "shape"])
def test_every_way_to_leave_no_path(what):
    cost = torch.rand(1, 4, 6)
    options: dict[str, Any] = {
        "costs": {},
        "steps": {"step_weights": (INF, INF, INF)},
        "start": {"start": torch.zeros(1, 4, 6, dtype=torch.bool)},
        "end": {"end": torch.full((1, 4, 6), INF)},
        "shape": {"steps": [(1, 1)]},
    }[what]
    if what == "costs":
        cost[0, -1, -1] = INF
    for smoothing in SMOOTHINGS:
        assert functional.ddtw(cost, smoothing=smoothing, **options).item() == INF
        assert not functional.ddtw_alignment(cost, smoothing=smoothing, **options).any()
    assert dalign.DDTW(metric="precomputed", **options).best_path(cost)[0].shape == (0, 2)


@pytest.mark.parametrize("bad", [NAN, -INF])
@pytest.mark.parametrize("smoothing", SMOOTHINGS)
@pytest.mark.parametrize("name", ["three", "CTC", "columns"])
def test_nan_stays_in_its_item(name, smoothing, bad):
    cost = torch.rand(3, 20, 25)
    clean = cost.clone()
    cost[1, 14, 3] = bad
    cost[2, 16] = bad  # beyond the length
    steps, lengths = STEP_SETS[name], torch.tensor([20, 15, 12])
    options = {"smoothing": smoothing, "steps": steps, "end": "any_y", "x_lengths": lengths}
    cost.requires_grad_()
    value = functional.ddtw(cost, **options)
    assert value.isnan().tolist() == [False, True, False]
    (slope,) = grad(value.sum(), cost)
    assert slope[1, :15].isnan().all()
    assert (slope[1, 15:] == 0).all()
    torch.testing.assert_close(slope[[0, 2]], functional.ddtw_alignment(clean, **options)[[0, 2]])
    paths = dalign.DDTW(steps, end="any_y", metric="precomputed").best_path(cost, x_lengths=lengths)
    assert [len(path) > 0 for path in paths] == [True, False, True]


def test_nan_in_the_second_derivative_stays_in_its_item():
    cost = torch.rand(2, 6, 7, dtype=torch.float64)
    cost[0, 1, 1] = NAN
    cost.requires_grad_()
    (second,) = grad((functional.ddtw_alignment(cost, 0.5) ** 2).sum(), cost)
    assert second[0].isnan().all()
    lone = cost.detach()[1:].requires_grad_()
    torch.testing.assert_close(second[1:], grad((functional.ddtw_alignment(lone, 0.5) ** 2).sum(), lone)[0])


@pytest.mark.parametrize("smoothing", SMOOTHINGS)
def test_items_of_other_lengths_are_as_alone(smoothing):
    cost = torch.full((3, 20, 30), NAN, dtype=torch.float64)
    weights, start = some_weights(3, 20, 30, 3, blocked=0), torch.rand(3, 20, 30, dtype=torch.float64)
    lengths = [(20, 30), (1, 7), (13, 1)]
    for b, (n, m) in enumerate(lengths):
        cost[b, :n, :m] = torch.rand(n, m)
        weights[b, n:] = weights[b, :, m:] = INF
    problem = Problem(cost, THREE, weights, start, (2, 3), smoothing=smoothing, lengths=lengths)
    values, grads = problem.differentiated()
    for b, (n, m) in enumerate(lengths):
        part = (slice(b, b + 1), slice(n), slice(m))
        alone = Problem(cost[part], THREE, weights[part], start[part], (2, 3), smoothing=smoothing)
        value, own = alone.differentiated()
        torch.testing.assert_close(values[b : b + 1], value, rtol=1e-13, atol=1e-13)
        for name in ("cost", "weights", "start"):
            torch.testing.assert_close(grads[name][part], own[name], rtol=1e-12, atol=1e-12)
            assert grads[name][b].count_nonzero() == own[name].count_nonzero()


def test_empty_batch():
    cost = torch.zeros(0, 5, 4, requires_grad=True)
    weights = torch.ones(3, requires_grad=True)
    for smoothing in SMOOTHINGS:
        value = functional.ddtw(cost, step_weights=weights, start=torch.zeros(1, 5, 4), smoothing=smoothing)
        assert value.shape == (0,)
        slopes = grad(value.sum(), (cost, weights))
        assert [tuple(s.shape) for s in slopes] == [(0, 5, 4), (3,)]
        assert not slopes[1].any()
    assert functional.ddtw_alignment(cost).shape == (0, 5, 4)
    assert dalign.DDTW(metric="precomputed").best_path(cost) == []
    assert dalign.DDTW(reduction="none")(torch.zeros(0, 3, 2), torch.zeros(0, 4, 2)).shape == (0,)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types_are_computed_in_float32(dtype):
    cost, weights, start = (torch.rand(2, 9, 8).to(dtype) for _ in range(3))
    options = {"step_weights": weights[0, 0, :3], "start": start}
    leaf = cost.clone().requires_grad_()
    value = functional.ddtw(leaf, **options)
    assert value.dtype == torch.float32
    exact = functional.ddtw(cost.float(), step_weights=weights[0, 0, :3].float(), start=start.float())
    assert torch.equal(value, exact)
    assert grad(value.sum(), leaf)[0].dtype == dtype


def test_dtypes_of_weights_and_ends_may_differ_from_the_costs():
    cost = torch.rand(2, 6, 7)
    weights = torch.rand(3, dtype=torch.float64, requires_grad=True)
    start = torch.rand(1, 6, 7, dtype=torch.bfloat16, requires_grad=True)
    value = functional.ddtw(cost, step_weights=weights, start=start)
    assert torch.equal(value, functional.ddtw(cost, step_weights=weights.float(), start=start.float()))
    assert [g.dtype for g in grad(value.sum(), (weights, start))] == [torch.float64, torch.bfloat16]


def test_non_contiguous_input():
    cost = torch.rand(9, 12, 8).permute(2, 0, 1)[::2]
    weights = torch.rand(3, 24, 4).permute(2, 1, 0)[:, None, ::2]
    start = torch.rand(12, 9, 1).permute(2, 1, 0)
    assert not any(t.is_contiguous() for t in (cost, weights, start))
    assert (cost.shape, weights.shape, start.shape) == ((4, 9, 12), (4, 1, 12, 3), (1, 9, 12))
    plain = functional.ddtw(cost.contiguous(), step_weights=weights.contiguous(), start=start.contiguous())
    assert torch.equal(functional.ddtw(cost, step_weights=weights, start=start), plain)


class WeightsOfOps(TorchDispatchMode):
    """Notes the weights that reach the kernels."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.dalign.ddtw.default:
            self.shapes.append(tuple(args[5].shape))
        return func(*args, **(kwargs or {}))


def test_expanded_weights_are_not_stored():
    cost, few = torch.rand(2, 6, 7), torch.rand(7, 3)
    weights = few.expand(2, 6, 7, 3)
    with WeightsOfOps() as seen:
        value = functional.ddtw(cost, step_weights=weights)
    assert seen.shapes == [(1, 1, 7, 3)]
    assert torch.equal(value, functional.ddtw(cost, step_weights=few))


def test_expanded_weights_that_learn_have_a_derivative_each():
    cost, few = torch.rand(2, 6, 7), torch.rand(3)
    expanded, stored = few.expand(2, 6, 7, 3).detach().requires_grad_(), few.expand(2, 6, 7, 3).clone().requires_grad_()
    slopes = [grad(functional.ddtw(cost, step_weights=w).sum(), w)[0] for w in (expanded, stored)]
    torch.testing.assert_close(*slopes)
    few.requires_grad_()
    (summed,) = grad(functional.ddtw(cost, step_weights=few.expand(2, 6, 7, 3)).sum(), few)
    torch.testing.assert_close(summed, slopes[1].sum((0, 1, 2)))


def test_costs_alone_ask_for_no_other_derivative():
    """What is not differentiated stays out of the backward pass, and comes back as None."""
    cost = torch.rand(2, 6, 7, requires_grad=True)
    weights = torch.rand(3, requires_grad=True)
    value = functional.ddtw(cost, step_weights=weights)
    value.sum().backward(inputs=[weights])
    assert cost.grad is None
    (expected,) = grad(functional.ddtw(cost.detach(), step_weights=weights).sum(), weights)
    torch.testing.assert_close(weights.grad, expected)
    with torch.no_grad():
        assert not functional.ddtw(cost, step_weights=weights).requires_grad


# ---------------------------------------------------------------- the module


def test_repr_tells_what_is_not_default():
    assert repr(dalign.DDTW()) == (
        "DDTW(steps=((1, 0), (0, 1), (1, 1)), smoothing='softmin', gamma=1, metric='sqeuclidean')"
    )
    loss = dalign.DDTW(
        [(1, 0), (1, 1)], nn.Parameter(torch.ones(2)), "any_x", torch.zeros(1, 3, 4), "hardmin", 0.1, torch.cdist, "sum"
    )
    assert repr(loss) == (
        "DDTW(steps=((1, 0), (1, 1)), smoothing='hardmin', gamma=0.1, metric=cdist, step_weights=tensor(2,) (learned), "
        "start='any_x', end=tensor(1, 3, 4), reduction='sum')"
    )
    assert "step_weights=(1, 2, 1), end=(2, 2)" in repr(dalign.DDTW(step_weights=(1, 2, 1), end=(2, 2)))


def test_state_dict_holds_parameters_alone():
    assert dalign.DDTW(start=torch.zeros(1, 3, 4), step_weights=torch.ones(3)).state_dict() == {}
    loss = dalign.DDTW(
        step_weights=nn.Parameter(torch.ones(3)),
        end=nn.Parameter(torch.zeros(1, 3, 4)),
        gamma=nn.Parameter(torch.ones(())),
    )
    assert sorted(loss.state_dict()) == ["end", "gamma", "step_weights"]
    other = dalign.DDTW(
        step_weights=nn.Parameter(torch.rand(3)),
        end=nn.Parameter(torch.rand(1, 3, 4)),
        gamma=nn.Parameter(torch.rand(()) + 1),
    )
    other.load_state_dict(loss.state_dict())
    cost = torch.rand(2, 3, 4)
    for module in (loss, other):
        module.metric = "precomputed"
    assert torch.equal(loss(cost), other(cost))


def test_moves_and_casts_take_weights_and_ends_along_but_gamma():
    loss = dalign.DDTW(
        step_weights=torch.ones(3), start=torch.zeros(1, 3, 4), end=torch.ones(1, 3, 4).bool(), gamma=0.3
    )
    loss.double()
    assert (loss.step_weights.dtype, loss.start.dtype, loss.end.dtype) == (torch.float64, torch.float64, torch.bool)
    loss.half()
    assert (loss.gamma.dtype, loss.gamma.item()) == (torch.float64, 0.3)


def test_copies_and_pickles_are_independent_and_equal():
    x, y = torch.rand(2, 7, 3), torch.rand(2, 6, 3)
    loss = dalign.DDTW(
        ((1, 0), (1, 1)),
        nn.Parameter(torch.rand(2)),
        torch.rand(1, 7, 6),
        "any_y",
        gamma=nn.Parameter(torch.tensor(0.3)),
    )
    for twin in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):
        assert torch.equal(twin(x, y), loss(x, y))
        assert repr(twin) == repr(loss)
        with torch.no_grad():
            twin.step_weights += 1
            twin.gamma += 1
        assert not torch.equal(twin(x, y), loss(x, y))


def test_everything_learned_moves_with_an_optimizer():
    x, y = torch.rand(3, 8, 2), torch.rand(3, 6, 2)
    loss = dalign.DDTW(
        step_weights=nn.Parameter(torch.ones(6, 3)),
        start=nn.Parameter(torch.zeros(1, 8, 6)),
        end=nn.Parameter(torch.zeros(1, 8, 6)),
        gamma=nn.Parameter(torch.tensor(0.5)),
    )
    optimizer = torch.optim.SGD(loss.parameters(), lr=0.01)
    assert len(list(loss.parameters())) == 4
    before, values = {name: p.clone() for name, p in loss.named_parameters()}, []
    for _ in range(3):
        optimizer.zero_grad()
        values.append(loss(x, y))
        values[-1].backward()
        optimizer.step()
    assert values[0] > values[1] > values[2]
    assert all((p != before[name]).any() for name, p in loss.named_parameters())


def test_call_overrides_the_constructor():
    cost, weights = torch.rand(2, 5, 6), torch.rand(2, 1, 6, 3)
    start, end = torch.rand(1, 5, 6), torch.rand(2, 5, 6) > 0.3
    fixed = dalign.DDTW(THREE, weights, start, end, metric="precomputed")
    free = dalign.DDTW(THREE, (1.0, 2.0, 3.0), "any_x", (2, 2), metric="precomputed")
    given = {"step_weights": weights, "start": start, "end": end}
    assert torch.equal(free(cost, **given), fixed(cost))
    assert torch.equal(free.alignment(cost, **given), fixed.alignment(cost))
    assert [p.tolist() for p in free.best_path(cost, **given)] == [p.tolist() for p in fixed.best_path(cost)]
    assert torch.equal(fixed(cost, start="any_x", end=(2, 2), step_weights=(1.0, 2.0, 3.0)), free(cost))


def test_reductions_and_metrics():
    x, y = torch.rand(3, 7, 4), torch.rand(3, 5, 4)
    labels = torch.randint(4, (3, 5))
    for metric in ("sqeuclidean", "euclidean", "manhattan", "cosine", "bce", torch.cdist):
        values = dalign.DDTW(metric=metric, reduction="none")(x, y)
        cost = metric(x, y) if callable(metric) else dalign.pairwise(x, y, metric)
        torch.testing.assert_close(values, functional.ddtw(cost))
        assert dalign.DDTW(metric=metric, reduction="sum")(x, y) == values.sum()
        assert dalign.DDTW(metric=metric)(x, y) == values.mean()
    log_probs = x.log_softmax(2)
    values = dalign.DDTW(metric="nll", reduction="none")(log_probs, labels, y_lengths=torch.tensor([5, 2, 1]))
    cost = dalign.pairwise(log_probs, labels, "nll")
    torch.testing.assert_close(values, functional.ddtw(cost, y_lengths=torch.tensor([5, 2, 1])))


def test_best_path_of_learned_weights_is_no_part_of_a_graph(recwarn):
    loss = dalign.DDTW(step_weights=nn.Parameter(torch.rand(3)), start=nn.Parameter(torch.rand(1, 4, 5)))
    paths = loss.best_path(torch.rand(1, 4, 2, requires_grad=True), torch.rand(1, 5, 2))
    assert not paths[0].requires_grad
    assert not recwarn.list


# ---------------------------------------------------------------- torch.compile, opcheck


@pytest.fixture
def fresh_dynamo() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.usefixtures("fresh_dynamo")
@pytest.mark.parametrize(("smoothing", "backend"), [("softmin", "inductor"), ("sparsemin", "aot_eager")])
def test_compiles_whole_and_gamma_does_not_compile_again(smoothing, backend):
    loss = dalign.DDTW(STEP_SETS["CTC"], nn.Parameter(torch.rand(7, 3)), start="any_y", smoothing=smoothing)
    x, y, lengths = torch.rand(2, 9, 3, requires_grad=True), torch.rand(2, 7, 3), torch.tensor([9, 8])
    compiled = torch.compile(loss, fullgraph=True, backend=backend)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for gamma in (1.0, 0.1, 0.37):
            loss.gamma = gamma
            values = [f(x, y, lengths) for f in (compiled, loss)]
            torch.testing.assert_close(*values)
            for found in zip(*(grad(v, (x, loss.step_weights)) for v in values), strict=True):
                torch.testing.assert_close(*found)


@pytest.mark.usefixtures("fresh_dynamo")
def test_compiles_everything_that_learns():
    tensors = learned()

    def score(cost: Tensor, weights: Tensor, start: Tensor, end: Tensor, gamma: Tensor) -> Tensor:
        options = {"step_weights": weights, "start": start, "end": end}
        align = functional.ddtw_alignment(cost, gamma, **options)
        return (align.detach() * cost).sum() + functional.ddtw(cost, gamma, **options).sum()

    expected = grad(score(**tensors), tensors.values())
    actual = grad(torch.compile(score, fullgraph=True, backend="aot_eager")(**tensors), tensors.values())
    torch.testing.assert_close(actual, expected)


def op_arguments(dtype: torch.dtype, full: bool) -> tuple:
    """What all three ops take first; everything optional is there, or nothing."""
    cost, gamma = torch.rand(2, 5, 4, dtype=dtype), torch.tensor(0.5, dtype=torch.float64)
    lengths = (torch.tensor([5, 3]), torch.tensor([4, 4])) if full else (None, None)
    weights = torch.rand(2, 1, 4, 3, dtype=dtype) if full else None
    ends = [torch.rand(k, 5, 4, dtype=dtype) if full else None for k in (1, 2)]
    return cost, gamma, *lengths, [1, 0, 0, 1, 1, 1], weights, [1, 1], ends[0], [1, 2], ends[1]


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_opcheck(dtype, full):
    arguments, ops = op_arguments(dtype, full), torch.ops.dalign
    cost, factors = arguments[0], torch.rand(2, dtype=dtype)
    for smoothing, needs in (
        ("softmin", [True] * 5),
        ("hardmin", [False] * 5),
        ("smoothmin", [False, *[True] * 3, False]),
    ):
        flags = [need and (full or k in (0, 4)) for k, need in enumerate(needs)]
        torch.library.opcheck(ops.ddtw.default, (*arguments, smoothing, factors if full else None, *flags))
    torch.library.opcheck(ops.ddtw_path.default, (arguments[0], *arguments[2:]))
    along = [torch.rand_like(t) if full else None for t in (cost, arguments[5], arguments[7], arguments[9])]
    torch.library.opcheck(ops.ddtw_hvp.default, (*arguments, factors if full else None, *along, full, full, full))


# ---------------------------------------------------------------- misuse


COST = torch.rand(2, 5, 4)


def of_function(**options: Any) -> Callable[[], Tensor]:
    return lambda: functional.ddtw(COST, **options)


def of_module(**options: Any) -> Callable[[], Tensor]:
    return lambda: dalign.DDTW(metric="precomputed", **options)(COST)


MISUSES = {
    "fractional steps": (of_function(steps=[(0.5, 1)]), TypeError, "steps must be 1 to 32 pairs"),
    "steps of another type": (of_function(steps=3), TypeError, "steps must be 1 to 32 pairs"),
    "no step": (of_function(steps=[]), ValueError, "steps must be 1 to 32 pairs"),
    "too many steps": (of_function(steps=[(1, 1)] * 33), ValueError, "got 33 of them"),
    "a step that stands still": (of_function(steps=[(1, 1), (0, 0)]), ValueError, "not both 0"),
    "a step back": (of_function(steps=[(1, -1)]), ValueError, "whole numbers >= 0"),
    "a step in three dimensions": (of_function(steps=[(1, 1, 1)]), ValueError, "pairs"),
    "too few weights": (of_function(step_weights=(1, 1)), ValueError, "step_weights must be 3 numbers"),
    "a negative weight": (of_function(step_weights=(1, 1, -1)), ValueError, "step_weights must be 3 numbers >= 0"),
    "a weight that is NaN": (of_function(step_weights=(1, NAN, 1)), ValueError, "step_weights must be 3 numbers >= 0"),
    "weights of another type": (of_function(step_weights="111"), TypeError, "step_weights must be 3 numbers"),
    "weights of another shape": (
        of_function(step_weights=torch.ones(5, 3)),
        ValueError,
        r"broadcast to .*\(2, 5, 4, 3\)",
    ),
    "weights of the wrong number": (
        of_function(step_weights=torch.ones(4)),
        ValueError,
        r"got torch.float32 of shape \(4,\)",
    ),
    "a weight for all": (of_function(step_weights=torch.tensor(1.0)), ValueError, r"of shape \(\)"),
    "weights in five dimensions": (of_function(step_weights=torch.ones(1, 1, 1, 1, 3)), ValueError, "step_weights"),
    "integer weights": (of_function(step_weights=torch.ones(3).long()), ValueError, "floating-point .* torch.int64"),
    "a tensor with a negative weight": (of_function(step_weights=-torch.ones(3)), ValueError, "must be >= 0"),
    "a tensor with a NaN": (of_function(step_weights=torch.full((3,), NAN)), ValueError, "negative one or NaN"),
    "weights elsewhere": (of_function(step_weights=torch.ones(3, device="meta")), ValueError, "device of the costs"),
    "an unknown start": (of_function(start="left"), ValueError, "start .* must be one of 'corner', 'any_x', 'any_y'"),
    "an unknown end": (of_function(end="any"), ValueError, "end .* must be one of"),
    "an end of another type": (of_function(end=3), TypeError, "end must be"),
    "an end of three numbers": (of_function(end=(1, 1, 1)), TypeError, "end must be"),
    "no cell to start in": (of_function(start=(0, 1)), TypeError, "two whole numbers >= 1"),
    "ends of another shape": (
        of_function(start=torch.zeros(2, 5, 5)),
        ValueError,
        r"start must have shape .*\(2, 5, 4\)",
    ),
    "ends of two dimensions": (of_function(end=torch.zeros(5, 4)), ValueError, r"end must be .*\(5, 4\)"),
    "ends of another batch": (of_function(end=torch.zeros(3, 5, 4)), ValueError, "or 1 for B"),
    "ends that are integers": (of_function(end=torch.zeros(1, 5, 4).int()), ValueError, "end must be a boolean mask"),
    "ends of NaN": (of_function(start=torch.full((1, 5, 4), NAN)), ValueError, "start must hold costs above -inf"),
    "ends of -inf": (of_function(end=torch.full((1, 5, 4), -INF)), ValueError, "end must hold costs above -inf"),
    "ends elsewhere": (of_function(end=torch.zeros(1, 5, 4, device="meta")), ValueError, "end must be on the device"),
    "an unknown smoothing": (of_function(smoothing="max"), ValueError, "smoothing must be one of"),
    "no gamma": (of_function(gamma=0.0), ValueError, "gamma must be positive"),
    "two dimensions": (lambda: functional.ddtw(COST[0]), ValueError, "cost must have shape"),
    "integer costs": (lambda: functional.ddtw(COST.long()), TypeError, "cost must be a floating-point tensor"),
    "lengths": (of_function(x_lengths=torch.tensor([6, 1])), ValueError, r"x_lengths\[0\] = 6 is outside \[1, 5\]"),
    "y missing": (lambda: dalign.DDTW()(COST), TypeError, "y is missing"),
    "y beside costs": (lambda: dalign.DDTW(metric="precomputed")(COST, COST), ValueError, "y must be left out"),
    "an unknown metric": (lambda: dalign.DDTW(metric="hamming"), ValueError, "metric"),
    "a label that is no class": (
        lambda: dalign.DDTW(metric="nll")(COST, torch.full((2, 3), 4)),
        ValueError,
        r"y\[0, 0\] = 4 is not a class",
    ),
    "a reduction": (lambda: dalign.DDTW(reduction="max"), ValueError, "reduction must be one of"),
}


@pytest.mark.parametrize("what", MISUSES)
def test_misuse(what):
    call, error, message = MISUSES[what]
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"steps": [(0, 0)]}, ValueError),
        ({"step_weights": (1, 1)}, ValueError),
        ({"step_weights": torch.ones(4)}, ValueError),
        ({"start": "left"}, ValueError),
        ({"end": torch.zeros(4)}, ValueError),
        ({"smoothing": "max"}, ValueError),
    ],
)
def test_the_constructor_says_what_it_can_tell(options, error):
    with pytest.raises(error, match=next(iter(options))):
        dalign.DDTW(**options)
    with pytest.raises(error, match=next(iter(options))):
        of_module(**options)()


def with_argument(index: int, value: Any, full: bool = True) -> tuple:
    arguments = list(op_arguments(torch.float32, full))
    arguments[index] = value
    return tuple(arguments)


OP_MISUSES = {
    "two dimensions": (0, torch.rand(5, 4), "cost must have shape"),
    "no columns": (0, torch.rand(2, 5, 0), "N, M >= 1"),
    "half costs": (0, torch.rand(2, 5, 4).half(), "dtype of cost|must be float32 or float64"),
    "gamma of another dtype": (1, torch.tensor(0.5), "gamma"),
    "gamma 0": (1, torch.tensor(0.0).double(), "gamma"),
    "lengths": (2, torch.tensor([6, 1]), r"x_lengths\[0\] = 6"),
    "lengths of another batch": (3, torch.tensor([1]), "y_lengths"),
    "half a step": (4, [1, 0, 1], "steps must be 1 to 32 pairs"),
    "no step": (4, [], "steps must be 1 to 32 pairs"),
    "too many steps": (4, [1, 1] * 33, "steps must be 1 to 32 pairs"),
    "a step back": (4, [1, -1, 0, 1, 1, 1], "refused its arguments"),
    "a step that stands still": (4, [1, 0, 0, 1, 0, 0], "refused its arguments"),
    "weights of another shape": (5, torch.rand(2, 5, 5, 3), "step_weights must have shape"),
    "weights of another dtype": (5, torch.rand(1, 1, 1, 3).double(), "step_weights must have shape .* dtype"),
    "one number for the start": (6, [1], "start must be two numbers"),
    "a start before the corner": (6, [-5, 1], "start must be two numbers"),
    "costs of starting of another shape": (7, torch.rand(1, 4, 5), "start must have shape"),
    "an end behind the corner": (8, [1, -5], "end must be two numbers"),
    "costs of ending of another batch": (9, torch.rand(3, 5, 4), "end must have shape"),
}


@pytest.mark.parametrize("what", OP_MISUSES)
def test_ops_are_memory_safe(what):
    index, value, message = OP_MISUSES[what]
    arguments, ops = with_argument(index, value), torch.ops.dalign
    with pytest.raises(RuntimeError, match=message):
        ops.ddtw(*arguments, "softmin", None, True, False, False, False, True)
    with pytest.raises(RuntimeError, match=message):
        ops.ddtw_hvp(*arguments, None, None, None, None, None, False, False, False)
    if index != 1:
        with pytest.raises(RuntimeError, match=message):
            ops.ddtw_path(arguments[0], *arguments[2:])


HVP_MISUSES = {
    "factors": (0, torch.rand(3), "grad_value must have the shape"),
    "a direction in the costs": (1, torch.rand(2, 4, 5), "the direction must have the shape"),
    "a direction in the weights": (2, torch.rand(1, 1, 4, 3), "the direction must be like step_weights"),
    "a direction in the starts": (3, torch.rand(2, 5, 4), "the direction must be like start"),
    "a direction in the ends": (4, torch.rand(1, 5, 4), "the direction must be like end"),
}


@pytest.mark.parametrize("what", HVP_MISUSES)
def test_hvp_is_memory_safe(what):
    index, value, message = HVP_MISUSES[what]
    rest: list[Tensor | None] = [None] * 5
    rest[index] = value
    with pytest.raises(RuntimeError, match=message):
        torch.ops.dalign.ddtw_hvp(*op_arguments(torch.float32, True), *rest, False, False, False)
    if index > 1:
        with pytest.raises(RuntimeError, match=re.compile("needs (step_weights|their costs)")):
            torch.ops.dalign.ddtw_hvp(*op_arguments(torch.float32, False), *rest, False, False, False)


def test_derivatives_of_what_is_not_there_are_refused():
    for k in range(1, 4):
        flags = [j == k for j in range(5)]
        with pytest.raises(RuntimeError, match="a gradient is wanted for what was not given"):
            torch.ops.dalign.ddtw(*op_arguments(torch.float32, False), "softmin", None, *flags)
    with pytest.raises(RuntimeError, match="smoothing 'max' is unknown"):
        torch.ops.dalign.ddtw(*op_arguments(torch.float32, False), "max", None, *[False] * 5)
    with pytest.raises(RuntimeError, match="grad_value must have the shape"):
        torch.ops.dalign.ddtw(*op_arguments(torch.float32, False), "softmin", torch.ones(3), True, *[False] * 4)


def test_a_second_backward_gives_the_same_gradient() -> None:
    cost = torch.rand(3, 6, 5, requires_grad=True)
    values = functional.ddtw(cost, 0.5)
    weights = torch.tensor([1.0, -2.0, 0.5])
    first, second = (torch.autograd.grad(values, cost, weights, retain_graph=True)[0].clone() for _ in range(2))
    assert torch.equal(first, second)
