"""What holds for soft-DTW whatever the input: hypothesis draws shapes, lengths, costs and options.

The examples are the same in every run. `DALIGN_EXAMPLES=2000 pytest tests/test_properties_softdtw.py` draws that many
new ones instead.

Tolerances follow from rounding. With S = <H, |C|> + gamma (N + M), which bounds what is added up along a path, and eps
of the kernel's type, a value is off by a few eps S; the float64 recursion that it is compared with rounds a number up
to S at each of its N + M steps. An alignment is off by what a relative rounding of the costs does to it, three times
at most, besides the roundings of its own N + M steps, back and forth.
"""

from __future__ import annotations

import math
import os
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from reference import cost as reference_cost
from reference import softdtw as reference
from torch import Tensor

import torch_dalign as dalign
from torch_dalign import functional

INF = math.inf
EXAMPLES = int(os.environ.get("DALIGN_EXAMPLES", "0"))
EPS64 = torch.finfo(torch.float64).eps


def examples(count: int) -> settings:
    """The same examples in every run, unless more are asked for."""
    if EXAMPLES:
        return settings(max_examples=EXAMPLES, deadline=None, database=None)
    return settings(max_examples=count, deadline=None, database=None, derandomize=True)


# ---------------------------------------------------------------- what is drawn

SIZES = st.one_of(st.integers(1, 12), st.integers(1, 40), st.sampled_from((15, 16, 17, 31, 32, 33, 63, 64, 65, 70)))
GAMMAS = st.floats(-4, 3).map(lambda exponent: 10**exponent)
DTYPES = st.sampled_from((torch.float32, torch.float64))
WEIGHT = st.sampled_from((0.0, 0.1, 0.5, 1.0, 1.0, 2.0, 3.7, INF))
WEIGHTS = st.one_of(st.just(reference.UNIT), st.just((1.0, 1.0, 2.0)), st.tuples(WEIGHT, WEIGHT, WEIGHT))
BANDS = st.one_of(st.none(), st.integers(1, 20), st.floats(0.5, 20))
KINDS = ("uniform", "normal", "whole", "zero", "large", "blocked")


class Problem(NamedTuple):
    """A batch of costs (B, N, M) with options."""

    cost: Tensor
    gamma: float
    lengths: dict[str, Tensor]
    options: dict[str, Any]

    def value(self) -> Tensor:
        return functional.soft_dtw(self.cost, self.gamma, **self.lengths, **self.options)

    def alignment(self) -> Tensor:
        return functional.alignment(self.cost, self.gamma, **self.lengths, **self.options)

    def items(self) -> list[np.ndarray]:
        """Costs of each item, cut to its lengths, in float64."""
        sizes = zip(*(self.lengths[name].tolist() for name in ("x_lengths", "y_lengths")), strict=True)
        return [cost[:n, :m].double().numpy() for cost, (n, m) in zip(self.cost.detach(), sizes, strict=True)]


def random_costs(generator: torch.Generator, kind: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    if kind == "normal":
        return torch.randn(shape, dtype=dtype, generator=generator)
    if kind == "whole":  # many ties
        return torch.randint(0, 3, shape, generator=generator).to(dtype)
    if kind == "zero":
        return torch.zeros(shape, dtype=dtype)
    cost = torch.rand(shape, dtype=dtype, generator=generator)
    if kind == "large":
        return cost * 1000
    if kind == "blocked":
        cost[torch.rand(shape, generator=generator) < 0.15] = INF
    return cost


@st.composite
def problems(draw, kinds=KINDS, gammas=GAMMAS, weights=WEIGHTS, bands=BANDS, batches=(1, 3), ragged=True):
    shape = (draw(st.integers(*batches)), draw(SIZES), draw(SIZES))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    cost = random_costs(generator, draw(st.sampled_from(kinds)), shape, draw(DTYPES))
    lengths = {}
    for name, longest in (("x_lengths", shape[1]), ("y_lengths", shape[2])):
        one = st.integers(1, longest) if ragged else st.just(longest)
        lengths[name] = torch.tensor(draw(st.lists(one, min_size=shape[0], max_size=shape[0])))
    return Problem(cost, draw(gammas), lengths, {"step_weights": draw(weights), "band": draw(bands)})


UNIT_PROBLEMS = problems(weights=st.just(reference.UNIT))


@st.composite
def features(draw, metric: str, longest: int = 20, dtypes=DTYPES):
    """x, y and lengths."""
    batch, n, m = draw(st.integers(1, 3)), draw(st.integers(1, longest)), draw(st.integers(1, longest))
    d, dtype = draw(st.integers(1, 20)), draw(dtypes)
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    x, y = (torch.randn(batch, length, d, dtype=dtype, generator=generator) for length in (n, m))
    if metric == "nll":
        x, y = x.log_softmax(2), torch.randint(d, (batch, m), generator=generator)
    elif metric == "bce":
        x, y = x.sigmoid(), (y > 0).to(dtype)
    lengths = {
        name: torch.tensor(draw(st.lists(st.integers(1, most), min_size=batch, max_size=batch)))
        for name, most in (("x_lengths", n), ("y_lengths", m))
    }
    return x, y, lengths


# ---------------------------------------------------------------- what counts as equal


def size(cost: np.ndarray, align: np.ndarray, gamma: float) -> float:
    """S = <H, |C|> + gamma (N + M)."""
    return reference.mean_cost(np.abs(cost), align) + gamma * sum(cost.shape)


def sizes(problem: Problem) -> np.ndarray:
    """S of every item, from its own alignment."""
    pairs = zip(problem.items(), problem.alignment().detach().double().numpy(), strict=True)
    return np.array([size(c, h[: c.shape[0], : c.shape[1]], problem.gamma) for c, h in pairs])


def shaken(cost: np.ndarray, eps: float) -> np.ndarray:
    """The cost with every entry moved by eps, up or down."""
    signs = np.random.default_rng(0).choice((-1.0, 1.0), size=cost.shape)
    return cost * (1 + eps * signs)


def near(actual: Tensor, expected: np.ndarray | float, tolerance: np.ndarray | float) -> None:
    """Equal up to the tolerance; infinities in the same places."""
    actual = actual.detach().double().numpy()
    assert actual.shape == np.shape(expected)
    same = actual == expected  # infinities too
    with np.errstate(invalid="ignore"):
        off = np.where(same, 0.0, np.abs(actual - expected))
    assert (off <= tolerance).all(), f"off by {np.max(off)}, allowed {np.max(tolerance)}"


def largest_weight(options: dict[str, Any]) -> float:
    return max(1.0, *(w for w in options["step_weights"] if w < INF), 0.0)


# ---------------------------------------------------------------- against the recursions


@examples(120)
@given(problems())
def test_lattices_match_the_recursions(problem):
    eps = torch.finfo(problem.cost.dtype).eps
    gamma = torch.tensor(problem.gamma, dtype=torch.float64, requires_grad=True)
    cost = problem.cost.clone().requires_grad_()
    values = functional.soft_dtw(cost, gamma, **problem.lengths, **problem.options)
    (grad,) = torch.autograd.grad(values.sum(), cost, retain_graph=True)
    slopes = [torch.autograd.grad(value, gamma, retain_graph=True)[0] for value in values]
    aligns = problem.alignment()
    for b, item in enumerate(problem.items()):
        n, m = item.shape
        value = reference.softdtw_fast(item, problem.gamma, **problem.options)
        align = reference.alignment_fast(item, problem.gamma, **problem.options)
        scale = size(item, align, problem.gamma)
        value_tolerance = (4 * eps + (n + m) * EPS64) * scale
        near(values[b], value, value_tolerance)

        moved = reference.alignment_fast(shaken(item, eps), problem.gamma, **problem.options)
        roundings = (4 * eps * (n + m) + 4 * EPS64 * scale / problem.gamma) * largest_weight(problem.options)
        tolerance = 3 * np.abs(moved - align).max() + roundings
        for actual in (aligns[b], grad[b]):
            near(actual[:n, :m], align, tolerance)
            assert (actual[n:] == 0).all()
            assert (actual[:, m:] == 0).all()
        mean_cost = reference.mean_cost(item, align)
        moved_cost = reference.mean_cost(item, moved)
        slope = 0.0 if value == INF else (value - mean_cost) / problem.gamma
        slope_tolerance = (2 * value_tolerance + 3 * abs(moved_cost - mean_cost) + 4 * eps * scale) / problem.gamma
        near(slopes[b], slope, slope_tolerance + roundings * scale / problem.gamma)


@pytest.mark.parametrize("metric", reference_cost.METRICS)
@examples(25)
@given(data=st.data())
def test_features_match_costs_then_recursion(metric, data):
    x, y, lengths = data.draw(features(metric))
    gamma, options = data.draw(GAMMAS), {"band": data.draw(BANDS), "step_weights": data.draw(WEIGHTS)}
    x.requires_grad_()
    y.requires_grad_(metric != "nll")
    values = dalign.SoftDTW(gamma, metric, reduction="none", **options)(x, y, **lengths)
    values.sum().backward()
    eps = torch.finfo(x.dtype).eps
    d = x.shape[2]
    for b, (n, m) in enumerate(zip(*(v.tolist() for v in lengths.values()), strict=True)):
        item_x, item_y = x[b, :n].detach().double().numpy(), y[b, :m].detach().numpy()
        cost = reference_cost.pairwise(item_x, item_y, metric)
        align = reference.alignment_fast(cost, gamma, **options)
        floor = align.sum() if metric == "cosine" else 0.0  # 1 - similarity rounds numbers of size 1
        scale = size(cost, align, gamma) + floor
        value = reference.softdtw_fast(cost, gamma, **options)
        near(values[b], value, ((d + 4) * eps + (n + m) * EPS64) * scale)

        shift = shaken(cost, (d + 4) * eps) + (shaken(np.ones_like(cost), (d + 4) * eps) - 1) * (metric == "cosine")
        flows = (align, reference.alignment_fast(shift, gamma, **options))
        own = (4 * eps * (n + m + d) + 4 * EPS64 * scale / gamma) * largest_weight(options)
        gradients, moved = (reference_cost.pairwise_backward(item_x, item_y, metric, flow) for flow in flows)
        for leaf, length, exact, other in zip((x, y), (n, m), gradients, moved, strict=True):
            if exact is not None:
                slopes = steepest(item_x, item_y, metric)
                near(leaf.grad[b, :length], exact, 3 * np.abs(other - exact).max() + own * slopes * max(n, m))
                assert (leaf.grad[b, length:] == 0).all()


def steepest(x: np.ndarray, y: np.ndarray, metric: str) -> float:
    """Size of the numbers of which the derivative of a cost for a feature is made."""
    if metric == "nll":
        return 1.0
    if metric == "cosine":  # a difference of two unit vectors by the length
        return float(1 / min(np.linalg.norm(side, axis=1).min() for side in (x, y)))
    return float(max(np.abs(g).max() for a in x for c in y for g in reference_cost.frame_gradients(a, c, metric)))


# ---------------------------------------------------------------- soft and hard


def hard_dtw(cost: np.ndarray, step_weights: tuple[float, ...], band: float | None) -> tuple[float, int, float]:
    """Smallest cost of a path, how many paths have it, and log10 of the number of all paths."""
    cost = reference.masked_fast(cost, band)
    n, m = cost.shape
    best, count, paths = (
        np.full((n + 1, m + 1), INF),
        np.zeros((n + 1, m + 1), object),
        np.zeros((n + 1, m + 1), object),
    )
    for i in range(1, n + 1):
        for j in range(1, m + 1):
            arrivals = [
                (best[i - down, j - right] + reference.weighted(w, cost[i - 1, j - 1]), (i - down, j - right))
                for (down, right), w in zip(reference.STEPS, step_weights, strict=True)
            ]
            if i == j == 1:
                best[i, j], count[i, j], paths[i, j] = cost[0, 0], 1, 1
            else:
                best[i, j] = min(a for a, _ in arrivals)
                count[i, j] = sum(count[cell] for a, cell in arrivals if a == best[i, j] < INF)
                paths[i, j] = sum(paths[cell] for a, cell in arrivals if a < INF)
    return best[n, m], count[n, m], math.log(paths[n, m]) if paths[n, m] else 0.0


@examples(80)
@given(problems(batches=(1, 1)))
def test_soft_lies_below_hard_by_the_number_of_paths_at_most(problem):
    best, _, log_paths = hard_dtw(problem.items()[0], **problem.options)
    value = problem.value().item()
    tolerance = (4 * torch.finfo(problem.cost.dtype).eps) * sizes(problem)[0]
    if best == INF:
        assert value == INF
    else:
        scale = tolerance + EPS64 * abs(best) * sum(problem.cost.shape)
        assert best - problem.gamma * log_paths - scale <= value <= best + scale


@examples(80)
@given(problems(kinds=("whole",), gammas=st.floats(1e-4, 1e-2), batches=(1, 1), weights=st.just(reference.UNIT)))
def test_tiny_gamma_counts_the_best_paths(problem):
    """Costs are whole numbers: other paths are exp(-100) as likely, whatever is rounded."""
    item = problem.items()[0]
    best, count, _ = hard_dtw(item, **problem.options)
    expected = best - problem.gamma * math.log(count)
    steps, eps = sum(item.shape), torch.finfo(problem.cost.dtype).eps
    near(problem.value()[0], expected, 4 * eps * (abs(best) + problem.gamma * steps))
    align = problem.alignment()[0][: item.shape[0], : item.shape[1]]
    near(align, best_paths(item, count, **problem.options), 4 * eps * steps)


def best_paths(cost: np.ndarray, count: int, step_weights: tuple[float, ...], band: float | None) -> np.ndarray:
    """Share of the best paths that visit each cell: alignments of hard DTW there and back."""
    cost = reference.masked_fast(cost, band)
    there, back = lattice_of_counts(cost), lattice_of_counts(cost[::-1, ::-1])
    share = np.zeros(cost.shape)
    for i in range(cost.shape[0]):
        for j in range(cost.shape[1]):
            (cost_there, ways_there), (cost_back, ways_back) = there[i][j], back[-1 - i][-1 - j]
            if cost[i, j] < INF and cost_there + cost_back - cost[i, j] == there[-1][-1][0]:
                share[i, j] = float(ways_there * ways_back) / float(count)
    return share


def lattice_of_counts(cost: np.ndarray) -> list[list[tuple[float, int]]]:
    """Cost of the best paths to each cell with unit weights, and their number."""
    table: dict[tuple[int, int], tuple[float, int]] = {}
    for i in range(cost.shape[0]):
        for j in range(cost.shape[1]):
            came = [table[cell] for cell in ((i - 1, j), (i, j - 1), (i - 1, j - 1)) if cell in table] or [(0.0, 1)]
            best = min(total for total, _ in came)
            ways = sum(ways for total, ways in came if total == best < INF)
            table[i, j] = (best + cost[i, j], ways)
    return [[table[i, j] for j in range(cost.shape[1])] for i in range(cost.shape[0])]


@examples(60)
@given(problems(), GAMMAS)
def test_larger_gamma_gives_smaller_values(problem, gamma):
    low, high = sorted((problem.gamma, gamma))
    sharper, smoother = problem._replace(gamma=low), problem._replace(gamma=high)
    tolerance = 4 * torch.finfo(problem.cost.dtype).eps * np.maximum(sizes(sharper), sizes(smoother))
    a, b = (p.value().double().numpy() for p in (sharper, smoother))
    assert (b <= a + tolerance).all()


# ---------------------------------------------------------------- symmetries


def close(problem: Problem, other: Problem) -> None:
    """Two problems with the same paths in another order: values and, after undoing the order, alignments."""
    eps = torch.finfo(problem.cost.dtype).eps
    near(problem.value(), other.value().double().numpy(), 8 * eps * sizes(problem))


@examples(60)
@given(problems(ragged=False))
def test_transposed_lattice_with_exchanged_weights(problem):
    down, right, diagonal = problem.options["step_weights"]
    mirrored = Problem(
        problem.cost.transpose(1, 2),
        problem.gamma,
        {"x_lengths": problem.lengths["y_lengths"], "y_lengths": problem.lengths["x_lengths"]},
        {"step_weights": (right, down, diagonal), "band": problem.options["band"]},
    )
    close(problem, mirrored)
    alignments_agree(problem, mirrored.alignment().transpose(1, 2))


@examples(60)
@given(problems(ragged=False, weights=st.just(reference.UNIT)))
def test_time_may_run_backwards(problem):
    """With unit weights; the first cell has weight 1 and not that of a step."""
    backwards = problem._replace(cost=problem.cost.flip(1, 2))
    close(problem, backwards)
    alignments_agree(problem, backwards.alignment().flip(1, 2))


def alignments_agree(problem: Problem, other: Tensor) -> None:
    eps = torch.finfo(problem.cost.dtype).eps
    for b, item in enumerate(problem.items()):
        exact, moved = (
            reference.alignment_fast(c, problem.gamma, **problem.options) for c in (item, shaken(item, eps))
        )
        scale = size(item, exact, problem.gamma) / problem.gamma
        own = (8 * eps * sum(item.shape) + 4 * EPS64 * scale) * largest_weight(problem.options)
        near(other[b], problem.alignment()[b].double().numpy(), own + 6 * np.abs(moved - exact).max())


@pytest.mark.parametrize("metric", ["sqeuclidean", "euclidean", "manhattan", "cosine"])
@examples(25)
@given(data=st.data())
def test_exchanging_x_and_y_with_their_weights(metric, data):
    x, y, lengths = data.draw(features(metric, 40))
    gamma, (down, right, diagonal), band = data.draw(GAMMAS), data.draw(WEIGHTS), data.draw(BANDS)
    loss = dalign.SoftDTW(gamma, metric, band=band, step_weights=(down, right, diagonal), reduction="none")
    exchanged = dalign.SoftDTW(gamma, metric, band=band, step_weights=(right, down, diagonal), reduction="none")
    problem = Problem(
        dalign.pairwise(x, y, metric), gamma, lengths, {"band": band, "step_weights": (down, right, diagonal)}
    )
    eps = torch.finfo(x.dtype).eps * (x.shape[2] + 4)
    scale = sizes(problem) + (problem.alignment().sum((1, 2)).double().numpy() if metric == "cosine" else 0)
    other = exchanged(y, x, lengths["y_lengths"], lengths["x_lengths"])
    near(loss(x, y, **lengths), other.double().numpy(), 2 * eps * scale)


# ---------------------------------------------------------------- the alignment is a distribution of paths


@examples(80)
@given(UNIT_PROBLEMS)
def test_every_path_visits_every_row_and_column_and_both_corners(problem):
    eps = torch.finfo(problem.cost.dtype).eps
    for value, align, item in zip(problem.value(), problem.alignment(), problem.items(), strict=True):
        n, m = item.shape
        if value == INF:
            assert (align == 0).all()
            continue
        slack = 4 * eps * (n + m)
        own = align[:n, :m]
        assert abs(own[-1, -1].item() - 1) <= eps  # backward starts from 1 / p times p, both rounded
        assert abs(own[0, 0].item() - 1) <= slack  # and brings the whole weight to the first corner
        assert (own >= 0).all()
        assert (own <= 1 + slack).all()
        assert (own.double().sum(0) >= 1 - slack).all()
        assert (own.double().sum(1) >= 1 - slack).all()
        assert max(n, m) - slack * max(n, m) <= own.double().sum() <= (n + m - 1) * (1 + slack)
        assert (own[torch.from_numpy(np.isinf(reference.masked_fast(item, problem.options["band"])))] == 0).all()


@examples(60)
@given(problems(weights=st.just((1.0, 1.0, 2.0))), st.floats(-5, 5))
def test_a_constant_cost_more_in_every_cell(problem, constant):
    """With weights 1, 1, 2 every path has weight N + M - 1 in all, so a constant moves the value and no path."""
    constant = round(constant * 8) / 8
    moved = problem._replace(cost=problem.cost + constant)
    eps = torch.finfo(problem.cost.dtype).eps
    weight = np.array([sum(item.shape) - 1 for item in problem.items()])
    tolerance = 8 * eps * (np.maximum(sizes(problem), sizes(moved)) + weight * abs(constant))
    near(moved.value(), problem.value().double().numpy() + constant * weight, tolerance)


# ---------------------------------------------------------------- lattices with a single path


@examples(60)
@given(
    problems(ragged=False, kinds=("uniform", "normal", "large"), bands=st.none()), st.sampled_from(("row", "column"))
)
def test_one_frame_has_a_single_path(problem, axis):
    cost = problem.cost[:, :1] if axis == "row" else problem.cost[:, :, :1]
    weights = torch.full(cost.shape, problem.options["step_weights"][1 if axis == "row" else 0], dtype=torch.float64)
    weights[:, 0, 0] = 1
    expect_single_path(cost, problem, weights)


@examples(60)
@given(problems(ragged=False, kinds=("uniform", "normal", "large")), st.floats(0, 3))
def test_diagonal_steps_alone_leave_a_single_path(problem, weight):
    shortest = min(problem.cost.shape[1:])
    cost = problem.cost[:, :shortest, :shortest]
    weights = torch.eye(shortest, dtype=torch.float64).expand(cost.shape) * weight
    weights[:, 0, 0] = 1
    options = {**problem.options, "step_weights": (INF, INF, weight)}
    expect_single_path(cost, problem._replace(options=options), weights)


def expect_single_path(cost: Tensor, problem: Problem, weights: Tensor) -> None:
    """Value: the sum along the path; alignment: its weights."""
    terms = torch.where(weights == 0, 0, weights * cost.double())
    value = functional.soft_dtw(cost, problem.gamma, **problem.options)
    align = functional.alignment(cost, problem.gamma, **problem.options)
    if terms.isinf().any():  # a blocked step
        assert value.isinf().all()
        assert (align == 0).all()
        return
    steps, eps = sum(cost.shape[1:]), torch.finfo(cost.dtype).eps
    scale = terms.abs().sum((1, 2)).numpy() + problem.gamma * steps
    near(value, terms.sum((1, 2)).numpy(), 4 * eps * scale)
    near(align, weights.numpy(), 4 * eps * steps * weights.max().item())


# ---------------------------------------------------------------- scale


@examples(80)
@given(problems(), st.integers(-6, 6))
def test_powers_of_two_scale_cost_and_gamma_exactly(problem, exponent):
    factor = 2.0**exponent
    scaled = problem._replace(cost=problem.cost * factor, gamma=problem.gamma * factor)
    assert torch.equal(scaled.value(), problem.value() * factor)
    assert torch.equal(scaled.alignment(), problem.alignment())


@examples(60)
@given(problems(), st.floats(0.01, 100))
def test_any_factor_scales_cost_and_gamma(problem, factor):
    scaled = problem._replace(cost=problem.cost * factor, gamma=problem.gamma * factor)
    eps = torch.finfo(problem.cost.dtype).eps
    near(scaled.value(), problem.value().double().numpy() * factor, 8 * eps * factor * sizes(problem))


# ---------------------------------------------------------------- bits that must not change


@examples(80)
@given(problems())
def test_padding_never_matters(problem):
    rows = torch.arange(problem.cost.shape[1])[:, None] >= problem.lengths["x_lengths"][:, None, None]
    columns = torch.arange(problem.cost.shape[2]) >= problem.lengths["y_lengths"][:, None, None]
    results = []
    for filling in (0.0, math.nan, INF, -INF):
        cost = problem.cost.masked_fill(rows | columns, filling).requires_grad_()
        filled = problem._replace(cost=cost)
        value = filled.value()
        (grad,) = torch.autograd.grad(value.sum(), cost)
        results.append((value.detach(), grad, filled.alignment().detach()))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@examples(80)
@given(problems(bands=st.none(), ragged=True), st.floats(0, 1e6))
def test_wide_band_is_no_band(problem, more):
    width = max(1, *(min(item.shape) - 1 for item in problem.items())) + more
    wide = problem._replace(options={**problem.options, "band": width})
    assert torch.equal(wide.value(), problem.value())
    assert torch.equal(wide.alignment(), problem.alignment())


@examples(60)
@given(problems(), st.floats(0, 10))
def test_wider_band_gives_smaller_values(problem, more):
    assume(problem.options["band"] is not None)
    wider = problem._replace(options={**problem.options, "band": float(problem.options["band"] + more)})
    eps = torch.finfo(problem.cost.dtype).eps
    assert (wider.value().double().numpy() <= problem.value().double().numpy() + 4 * eps * sizes(problem)).all()


@examples(80)
@given(problems(batches=(2, 5)))
def test_batch_equals_its_items(problem):
    values, aligns = problem.value(), problem.alignment()
    for b, item in enumerate(problem.items()):
        n, m = item.shape
        alone = Problem(problem.cost[b : b + 1, :n, :m], problem.gamma, {}, problem.options)
        assert torch.equal(alone.value()[0], values[b])
        assert torch.equal(alone.alignment()[0], aligns[b, :n, :m])


@pytest.mark.parametrize("metric", reference_cost.METRICS)
@examples(15)
@given(data=st.data())
def test_batch_of_features_equals_its_items(metric, data):
    x, y, lengths = data.draw(features(metric, 40))
    loss = dalign.SoftDTW(
        data.draw(GAMMAS), metric, band=data.draw(BANDS), step_weights=data.draw(WEIGHTS), reduction="none"
    )
    inputs = [x.requires_grad_()] + ([y.requires_grad_()] if metric != "nll" else [])
    together = loss(x, y, **lengths)
    grads = torch.autograd.grad(together.sum(), inputs)
    for b, (n, m) in enumerate(zip(*(v.tolist() for v in lengths.values()), strict=True)):
        item_x, item_y = x[b : b + 1, :n], y[b : b + 1, :m]
        alone = loss(item_x, item_y)
        assert torch.equal(alone[0], together[b])
        for whole, part in zip(grads, torch.autograd.grad(alone, inputs), strict=True):
            assert torch.equal(whole[b], part[b])


# ---------------------------------------------------------------- divergences


@examples(80)
@given(features("sqeuclidean", 40), GAMMAS)
def test_divergence_is_not_negative(batch, gamma):
    """Of values. "sharp" and "mean_cost" can be negative when one sequence is much longer than the other."""
    x, y, lengths = batch
    loss = dalign.SoftDTW(gamma, divergence=True, reduction="none")
    value = loss(x, y, **lengths).double().numpy()
    scale = sum(
        sizes(Problem(dalign.pairwise(a, b), gamma, {"x_lengths": p, "y_lengths": q}, {}))
        for a, p in ((x, lengths["x_lengths"]), (y, lengths["y_lengths"]))
        for b, q in ((x, lengths["x_lengths"]), (y, lengths["y_lengths"]))
    )
    assert (value >= -torch.finfo(x.dtype).eps * (x.shape[2] + 4) * scale).all()


@pytest.mark.parametrize("kind", [True, "sharp", "mean_cost"])
@pytest.mark.parametrize("metric", ["sqeuclidean", "euclidean", "manhattan", "cosine"])
@examples(15)
@given(data=st.data())
def test_divergence_of_equal_sequences_is_nothing(metric, kind, data):
    x, _, lengths = data.draw(features(metric, 40))
    loss = dalign.SoftDTW(data.draw(GAMMAS), metric, divergence=kind, band=data.draw(BANDS), reduction="none")
    assert (loss(x, x, lengths["x_lengths"], lengths["x_lengths"]) == 0).all()


# ---------------------------------------------------------------- bad input

HUGE = 10**400
GARBAGE = st.one_of(st.text(max_size=5), st.binary(max_size=3), st.complex_numbers(), st.just(object()), st.just({}))
BAD_TENSORS = st.one_of(
    st.lists(st.integers(0, 3), max_size=5).filter(lambda s: len(s) != 3 or 0 in s[1:]).map(torch.ones),
    st.sampled_from((torch.int32, torch.int64, torch.bool, torch.complex64, torch.uint8)).map(
        lambda dtype: torch.ones(2, 5, 3, dtype=dtype)
    ),
    st.just(torch.ones(2, 5, 3).numpy()),
    st.none(),
    GARBAGE,
)
OUTSIDE = st.one_of(st.integers(-(2**63), 0), st.integers(10, 2**63 - 1))
BAD_LENGTHS = st.one_of(
    st.tuples(OUTSIDE, st.integers(1, 3)).map(lambda v: torch.tensor(v)),
    st.tuples(st.integers(1, 3), OUTSIDE).map(lambda v: torch.tensor(v)),
    st.lists(st.integers(0, 3), max_size=3)
    .filter(lambda shape: shape != [2])
    .map(lambda shape: torch.ones(shape, dtype=torch.int64)),
    st.sampled_from((torch.float32, torch.bool, torch.complex64)).map(lambda dtype: torch.ones(2, dtype=dtype)),
    st.just([3, 3]),
    st.integers(),
    GARBAGE,
)
BAD = {
    "x": BAD_TENSORS,
    "y": BAD_TENSORS,
    "x_lengths": BAD_LENGTHS,
    "y_lengths": BAD_LENGTHS,
    "gamma": st.one_of(
        st.floats(max_value=0),
        st.sampled_from((math.nan, INF, HUGE, -HUGE, True, None, torch.ones(1), torch.tensor(2), torch.tensor(-1.0))),
        st.just([1.0]),
        GARBAGE,
    ),
    "band": st.one_of(
        st.floats(max_value=0.499),
        st.integers(max_value=0),
        st.sampled_from((math.nan, True, -HUGE, torch.tensor(3))),
        GARBAGE,
    ),
    "step_weights": st.one_of(
        st.lists(st.floats(0, 9), max_size=6).filter(lambda w: len(w) != 3),
        st.tuples(st.floats(0, 9), st.floats(max_value=-1e-300) | st.just(math.nan), st.floats(0, 9)),
        st.tuples(st.floats(0, 9), st.floats(0, 9), GARBAGE),
        st.sampled_from((torch.ones(3), 1.0, range(3), (1, 1, -HUGE))),
        GARBAGE,
    ),
    "metric": st.text(max_size=12) | st.integers() | st.none() | st.just(["sqeuclidean"]),
}


def call(name: str, arguments: dict[str, Any]) -> None:
    """One of the public functions of two sequences, with all options."""
    arguments = dict(arguments)
    if name == "gak":
        dalign.gak(**arguments)
    elif name == "pairwise":
        dalign.pairwise(arguments["x"], arguments["y"], arguments["metric"])
    else:
        inputs = {key: arguments.pop(key) for key in ("x", "y", "x_lengths", "y_lengths")}
        loss = dalign.SoftDTW(**arguments)
        (loss if name == "SoftDTW" else loss.alignment)(**inputs)


def good_arguments() -> dict[str, Any]:
    return {
        "x": torch.ones(2, 9, 3),
        "y": torch.zeros(2, 9, 3),
        "x_lengths": torch.tensor([9, 2]),
        "y_lengths": torch.tensor([1, 9]),
        "gamma": 0.1,
        "band": 3,
        "step_weights": (1.0, 2.0, INF),
        "metric": "sqeuclidean",
    }


@pytest.mark.parametrize("name", ["SoftDTW", "alignment", "gak", "pairwise"])
@examples(250)
@given(data=st.data())
def test_bad_arguments_are_refused(name, data):
    arguments = good_arguments()
    call(name, arguments)
    allowed = ("x", "y", "metric") if name == "pairwise" else tuple(BAD)
    for argument in data.draw(st.lists(st.sampled_from(allowed), min_size=1, max_size=3, unique=True)):
        arguments[argument] = data.draw(BAD[argument], label=argument)
    with pytest.raises((ValueError, TypeError)):
        call(name, arguments)


@pytest.mark.parametrize("function", [functional.soft_dtw, functional.alignment])
@examples(150)
@given(data=st.data())
def test_bad_arguments_of_lattices_are_refused(function, data):
    names = [name for name in BAD if name not in ("x", "y", "metric")]
    arguments = {name: value for name, value in good_arguments().items() if name in names}
    arguments["cost"] = torch.ones(2, 9, 9)
    function(**arguments)
    argument = data.draw(st.sampled_from((*names, "cost")))
    arguments[argument] = data.draw(BAD.get(argument, BAD_TENSORS), label=argument)
    with pytest.raises((ValueError, TypeError)):
        function(**arguments)


@examples(100)
@given(st.data())
def test_labels_outside_the_classes_are_refused(data):
    x, y = torch.zeros(2, 3, 4), torch.zeros(2, 5, dtype=torch.int64)
    b, j = data.draw(st.integers(0, 1)), data.draw(st.integers(0, 4))
    y[b, j] = data.draw(st.one_of(st.integers(-(2**63), -1), st.integers(4, 2**63 - 1)))
    lengths = torch.tensor([5, 5])
    loss = dalign.SoftDTW(metric="nll")
    for refused in (loss, loss.alignment, lambda x, y, **_: dalign.pairwise(x, y, "nll")):
        with pytest.raises(ValueError, match="is not a class index"):
            refused(x, y, y_lengths=lengths)
    if j:  # in padding it is not looked at
        lengths[b] = data.draw(st.integers(1, j))
        assert loss(x, y, y_lengths=lengths).isfinite()
        assert loss.alignment(x, y, y_lengths=lengths).isfinite().all()
