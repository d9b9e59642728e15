"""soft-DTW's values, alignments and derivatives against slow recursions, and the rules that hold for every input."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from reference import cost as reference_cost
from reference import softdtw as reference
from torch.autograd import gradcheck, gradgradcheck

import torch_dalign as dalign
from torch_dalign import _C, functional

INF = math.inf
DTYPES = [torch.float32, torch.float64]
WEIGHTS = [(1.0, 1.0, 1.0), (1.0, 1.0, 2.0), (0.1, 0.5, 1.0), (INF, 1.0, 1.0), (0.0, 1.0, 1.0), (1.0, 1.0, INF)]
BANDS = [None, 0.5, 1, 2.5]


def assert_near(actual: torch.Tensor, expected: np.ndarray | list, tolerance: float) -> None:
    """Equal up to tolerance times the largest finite entry, inf and NaN in the same places."""
    actual, expected = actual.detach().double().numpy(), np.asarray(expected, dtype=np.float64)
    finite = np.abs(expected[np.isfinite(expected)])
    scale = max(1e-3, finite.max()) if finite.size else 1.0
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * scale)


def tolerances(dtype: torch.dtype) -> tuple[float, float]:
    """Of values and of gradients, relative to the largest entry."""
    return (2e-6, 1e-5) if dtype == torch.float32 else (1e-12, 1e-10)


def problem(
    dtype: torch.dtype, batch: int = 4, n: int = 8, m: int = 6
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Costs with a few blocked cells, and lengths of every kind."""
    cost = torch.rand(batch, n, m, dtype=dtype) * 3
    cost[1, 2, 1] = cost[2, 0, 1] = INF
    return cost, torch.tensor([n, n - 3, 1, n - 1][:batch]), torch.tensor([m, m, m - 1, 1][:batch])


def sequences(metric: str, batch: int, n: int, m: int, d: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Random features that fit the metric."""
    x = torch.randn(batch, n, d, dtype=dtype)
    if metric == "nll":
        return x.log_softmax(2), torch.randint(d, (batch, m))
    if metric == "bce":
        return x.sigmoid(), (torch.rand(batch, m, d) < 0.4).to(dtype)
    return x, torch.randn(batch, m, d, dtype=dtype)


# ---------------------------------------------------------------- against the references


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("band", BANDS)
@pytest.mark.parametrize("weights", WEIGHTS)
def test_value_alignment_and_hessian_match_the_recursions(weights, band, dtype):
    cost, x_lengths, y_lengths = problem(dtype)
    tangent = torch.randn_like(cost)
    options = {"gamma": 0.6, "step_weights": weights, "band": band}
    lengths = {"x_lengths": x_lengths, "y_lengths": y_lengths}
    cost.requires_grad_()
    values = functional.soft_dtw(cost, **options, **lengths)
    align = functional.alignment(cost, **options, **lengths)
    (grad,) = torch.autograd.grad(values.sum(), cost)
    (product,) = torch.autograd.grad(align, cost, tangent)

    costs = cost.detach().double().numpy()
    value_tolerance, tolerance = tolerances(dtype)
    assert_near(values, reference.batch(reference.softdtw, costs, x_lengths, y_lengths, **options), value_tolerance)
    expected = reference.padded(reference.batch(reference.alignment, costs, x_lengths, y_lengths, **options), 8, 6)
    assert_near(align, expected, tolerance)
    assert_near(grad, expected, tolerance)
    products = [
        reference.hessian_product(costs[b, :n, :m], tangent[b, :n, :m].double().numpy(), **options)
        for b, (n, m) in enumerate(zip(x_lengths, y_lengths, strict=True))
    ]
    assert_near(product, reference.padded(products, 8, 6), 10 * tolerance)


@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (4, 1), (2, 2), (4, 3), (4, 4)])
def test_tiny_lattices_match_the_list_of_all_paths(shape):
    cost = torch.randn(1, *shape, dtype=torch.float64)
    tangent = torch.randn_like(cost)
    for weights in WEIGHTS:
        for band in (None, 1):
            options = {"gamma": 0.7, "step_weights": weights, "band": band}
            value, align, mass = reference.brute_force(cost[0].numpy(), **options)
            assert_near(functional.soft_dtw(cost, **options), [value], 1e-13)
            assert_near(functional.alignment(cost, **options)[0], align, 1e-13)
            np.testing.assert_allclose(reference.expected_alignment(cost[0].numpy(), **options), mass, atol=1e-13)
            product = reference.brute_hessian_product(cost[0].numpy(), tangent[0].numpy(), **options)
            gamma = torch.tensor(0.7, dtype=torch.float64)
            band_number = -1.0 if band is None else float(band)
            actual = torch.ops.dalign.softdtw_hvp(cost, tangent, gamma, None, None, list(weights), band_number)
            assert_near(actual[0], product, 1e-12)


@pytest.mark.parametrize("gamma", [1e-4, 1e-2, 1.0, 100.0, 1e3])
@pytest.mark.parametrize("dtype", DTYPES)
def test_gammas(gamma, dtype):
    cost = torch.rand(3, 40, 50, dtype=dtype)
    costs = cost.double().numpy()
    value_tolerance, tolerance = tolerances(dtype)
    values = functional.soft_dtw(cost, gamma)
    assert_near(values, [reference.softdtw_fast(c, gamma) for c in costs], value_tolerance)
    expected = np.stack([reference.alignment_fast(c, gamma) for c in costs])
    assert_near(functional.alignment(cost, gamma), expected, tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("band", [None, 3])
@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (0.2, 1.0, 2.0)])
@pytest.mark.parametrize("metric", reference_cost.METRICS)
def test_features_match_costs_then_recursion(metric, weights, band, dtype):
    batch, n, m, d = 3, 21, 18, 5
    x, y = sequences(metric, batch, n, m, d, dtype)
    x_lengths, y_lengths = torch.tensor([n, 9, 17]), torch.tensor([4, m, 17])
    x.requires_grad_()
    y.requires_grad_(metric != "nll")
    loss = dalign.SoftDTW(0.5, metric, band=band, step_weights=weights, reduction="none")
    values = loss(x, y, x_lengths, y_lengths)
    grad_value = torch.rand(batch, dtype=dtype)
    values.backward(grad_value)

    value_tolerance, tolerance = tolerances(dtype)
    for b in range(batch):
        item_x = x[b, : x_lengths[b]].detach().double().numpy()
        item_y = y[b, : y_lengths[b]].detach().numpy()
        cost = reference_cost.pairwise(item_x, item_y, metric)
        assert_near(values[b], reference.softdtw_fast(cost, 0.5, weights, band), value_tolerance)
        flow = float(grad_value[b]) * reference.alignment_fast(cost, 0.5, weights, band)
        grad_x, grad_y = reference_cost.pairwise_backward(item_x, item_y, metric, flow)
        assert_near(x.grad[b, : x_lengths[b]], grad_x, tolerance)
        assert (x.grad[b, x_lengths[b] :] == 0).all()
        if grad_y is not None:
            assert_near(y.grad[b, : y_lengths[b]], grad_y, tolerance)
            assert (y.grad[b, y_lengths[b] :] == 0).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_one_long_pair_on_all_threads(dtype):
    x, y = sequences("sqeuclidean", 1, 500, 430, 7, dtype)
    x.requires_grad_()
    y.requires_grad_()
    value = dalign.SoftDTW(0.3)(x, y)
    value.backward()
    cost = reference_cost_fast(x[0].detach().double().numpy(), y[0].detach().double().numpy())
    value_tolerance, tolerance = tolerances(dtype)
    assert_near(value, reference.softdtw_fast(cost, 0.3), value_tolerance)
    align = reference.alignment_fast(cost, 0.3)
    item_x, item_y = x[0].detach().double().numpy(), y[0].detach().double().numpy()
    assert_near(x.grad[0], 2 * (align.sum(1, keepdims=True) * item_x - align @ item_y), tolerance)
    assert_near(y.grad[0], 2 * (align.sum(0)[:, None] * item_y - align.T @ item_x), tolerance)


def reference_cost_fast(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return ((x[:, None] - y[None]) ** 2).sum(2)


@pytest.mark.parametrize("metric", reference_cost.METRICS)
def test_module_alignment_is_the_gradient_for_the_costs(metric):
    x, y = sequences(metric, 3, 9, 7, 4, torch.float64)
    x_lengths, y_lengths = torch.tensor([9, 5, 2]), torch.tensor([3, 7, 7])
    loss = dalign.SoftDTW(0.5, metric, band=4, step_weights=(0.3, 1.0, 2.0))
    cost = dalign.pairwise(x, y, metric).requires_grad_()
    options = {"x_lengths": x_lengths, "y_lengths": y_lengths, "band": 4, "step_weights": (0.3, 1.0, 2.0)}
    (expected,) = torch.autograd.grad(functional.soft_dtw(cost, 0.5, **options).sum(), cost)
    torch.testing.assert_close(loss.alignment(x, y, x_lengths, y_lengths), expected)


# ---------------------------------------------------------------- derivatives


@pytest.mark.parametrize(
    "options", [{}, {"step_weights": (0.3, 1.0, 2.0)}, {"band": 1}, {"step_weights": (1.0, INF, 1.0)}]
)
def test_gradcheck_of_costs_and_gamma(options):
    cost = torch.rand(3, 5, 4, dtype=torch.float64, requires_grad=True)
    gamma = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    lengths = {"x_lengths": torch.tensor([5, 3, 1]), "y_lengths": torch.tensor([2, 4, 4])}
    infeasible = functional.soft_dtw(cost, 1.0, **options, **lengths).isinf()

    def value(cost, gamma):
        return functional.soft_dtw(cost, gamma, **options, **lengths).masked_fill(infeasible, 0)

    assert gradcheck(value, (cost, gamma))
    assert gradgradcheck(value, (cost, gamma))
    assert gradcheck(lambda *inputs: functional.alignment(*inputs, **options, **lengths), (cost, gamma))


@pytest.mark.parametrize("metric", reference_cost.METRICS)
def test_gradcheck_of_features_and_gamma(metric):
    x, y = sequences(metric, 2, 4, 5, 3, torch.float64)
    gamma = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    lengths = torch.tensor([4, 2]), torch.tensor([3, 5])
    inputs = (x.requires_grad_(), y.requires_grad_(metric != "nll"), gamma)

    def loss(x, y, gamma):
        return dalign.SoftDTW(gamma, metric, band=2, step_weights=(0.5, 1.0, 1.5), reduction="none")(x, y, *lengths)

    assert gradcheck(loss, inputs)
    assert gradgradcheck(loss, inputs)


def test_double_backward_ignores_what_lies_in_padding():
    x, y = sequences("cosine", 2, 5, 4, 3, torch.float64)
    lengths = torch.tensor([5, 3]), torch.tensor([2, 4])

    def second(x, y):
        x = x.clone().requires_grad_()
        (grad,) = torch.autograd.grad(dalign.SoftDTW(metric="cosine")(x, y, *lengths), x, create_graph=True)
        return torch.autograd.grad(grad.square().sum(), x)[0]

    expected = second(x, y)
    x[1, 3:], y[0, 2:] = float("nan"), float("nan")
    torch.testing.assert_close(second(x, y), expected)


def test_double_backward_beside_blocked_cells():
    cost = torch.rand(1, 4, 4, dtype=torch.float64)
    cost[0, 1, 2] = INF
    cost.requires_grad_()
    gamma = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    (grad, slope) = torch.autograd.grad(functional.soft_dtw(cost, gamma).sum(), (cost, gamma), create_graph=True)
    (second, mixed) = torch.autograd.grad((grad * cost.detach().nan_to_num(posinf=0)).sum() + slope, (cost, gamma))
    assert torch.isfinite(second).all()
    assert torch.isfinite(mixed)
    # H and slope have degree 0 in (C, gamma) together: no change along (C, gamma) itself
    torch.testing.assert_close(
        (second * cost.detach().nan_to_num(posinf=0)).sum() + mixed * gamma, torch.zeros((), dtype=torch.float64)
    )


@pytest.mark.parametrize("which", ["costs", "features", "alignment"])
def test_third_derivative_is_refused(which):
    x, y = sequences("sqeuclidean", 1, 4, 4, 2, torch.float64)
    x.requires_grad_()
    if which == "alignment":
        first = dalign.SoftDTW().alignment(x, y)
    elif which == "features":
        (first,) = torch.autograd.grad(dalign.SoftDTW()(x, y), x, create_graph=True)
    else:
        x = dalign.pairwise(x, y).detach().requires_grad_()
        (first,) = torch.autograd.grad(functional.soft_dtw(x).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="third-order derivatives are not implemented"):
        second.square().sum().backward()


def test_torch_func_grad():
    x, y = sequences("sqeuclidean", 2, 5, 4, 3, torch.float64)
    loss = dalign.SoftDTW(0.5)
    grad = torch.func.grad(lambda x: loss(x, y))(x)
    leaf = x.clone().requires_grad_()
    loss(leaf, y).backward()
    torch.testing.assert_close(grad, leaf.grad)


def test_nothing_but_gradients_is_kept_for_backward():
    """Saved for backward are the inputs and what has the size of the inputs, whatever N M is."""
    x, y = (torch.rand(2, n, 3, requires_grad=True) for n in (700, 600))
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        loss = dalign.SoftDTW()(x, y)
    assert sum(kept) <= 2 * (x.numel() + y.numel()) + 10
    loss.backward()
    assert x.grad.shape == x.shape
    assert y.grad.shape == y.shape


def test_backward_twice_through_one_graph():
    x, y = sequences("cosine", 3, 9, 7, 4, torch.float64)
    x.requires_grad_()
    values = dalign.SoftDTW(0.3, "cosine", reduction="none")(x, y)
    weights = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    first = torch.autograd.grad(values, x, torch.ones_like(values), retain_graph=True)[0]
    second = torch.autograd.grad(values, x, weights)[0]
    torch.testing.assert_close(second, weights[:, None, None] * first)


def test_vmap_is_refused_with_advice():
    x, y = sequences("sqeuclidean", 3, 5, 4, 3, torch.float32)
    with pytest.raises(RuntimeError, match="fold the mapped dimension into the batch"):
        torch.func.vmap(lambda a, b: dalign.SoftDTW()(a[None], b[None]))(x, y)


# ---------------------------------------------------------------- inputs at the edge


@pytest.mark.parametrize("dtype", DTYPES)
def test_no_path_left_gives_infinity_and_gradient_zero(dtype):
    cost = torch.rand(3, 4, 5, dtype=dtype)
    cost[1, 2] = INF
    cost.requires_grad_()
    gamma = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    value = functional.soft_dtw(cost, gamma)
    assert value.isinf().tolist() == [False, True, False]
    value[1].backward()
    assert (cost.grad == 0).all()
    assert gamma.grad == 0
    diagonal_only = functional.soft_dtw(cost, step_weights=(INF, INF, 1.0))
    assert diagonal_only.isinf().all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bad", [float("nan"), -INF])
def test_nan_stays_in_its_item(bad, dtype):
    cost = torch.rand(3, 20, 17, dtype=dtype)
    clean = cost.clone().requires_grad_()
    functional.soft_dtw(clean).sum().backward()
    cost[1, 5, 5] = bad
    cost.requires_grad_()
    value = functional.soft_dtw(cost)
    value.sum().backward()
    assert value.isnan().tolist() == [False, True, False]
    assert cost.grad[1].isnan().all()
    assert torch.equal(cost.grad[::2], clean.grad[::2])


@pytest.mark.parametrize("metric", ["sqeuclidean", "euclidean", "manhattan", "cosine"])
def test_nan_features_stay_in_their_item(metric):
    x, y = sequences(metric, 3, 19, 21, 3, torch.float32)
    x[1, 7, 1] = float("nan")
    x.requires_grad_()
    y.requires_grad_()
    value = dalign.SoftDTW(metric=metric, reduction="none")(x, y)
    value.sum().backward()
    assert value.isnan().tolist() == [False, True, False]
    assert x.grad[1].isnan().any()
    assert y.grad[1].isnan().any()
    assert x.grad[::2].isfinite().all()
    assert y.grad[::2].isfinite().all()


@pytest.mark.parametrize("metric", reference_cost.METRICS)
def test_padding_is_never_read(metric):
    x, y = sequences(metric, 3, 20, 35, 4, torch.float32)
    x_lengths, y_lengths = torch.tensor([20, 7, 1]), torch.tensor([35, 18, 2])
    padded_x, padded_y = x.clone(), y.clone()
    for b in range(3):
        padded_x[b, x_lengths[b] :] = float("nan")
        padded_y[b, y_lengths[b] :] = -999 if metric == "nll" else float("nan")
    results = []
    for features_x, features_y in ((x, y), (padded_x, padded_y)):
        leaf = features_x.clone().requires_grad_()
        loss = dalign.SoftDTW(0.5, metric, reduction="none")
        value = loss(leaf, features_y, x_lengths, y_lengths)
        align = loss.alignment(leaf, features_y, x_lengths, y_lengths)
        (value.sum() + align.square().sum()).backward()
        results.append((value, align, leaf.grad))
    for clean, dirty in zip(*results, strict=True):
        assert torch.equal(clean, dirty)
    assert (results[0][2][1, 7:] == 0).all()


def test_padding_of_costs_is_never_read():
    cost, x_lengths, y_lengths = problem(torch.float64)
    poisoned = cost.clone()
    for b in range(len(cost)):
        poisoned[b, x_lengths[b] :] = float("nan")
        poisoned[b, :, y_lengths[b] :] = float("nan")
    lengths = {"x_lengths": x_lengths, "y_lengths": y_lengths}
    grads = []
    for lattice in (cost, poisoned):
        lattice.requires_grad_()
        (grad,) = torch.autograd.grad(functional.soft_dtw(lattice, **lengths).sum(), lattice, create_graph=True)
        (second,) = torch.autograd.grad(grad.square().sum(), lattice)
        grads.append((grad.detach(), second))
    for clean, dirty in zip(*grads, strict=True):
        assert torch.equal(clean, dirty)


def test_items_of_a_batch_do_not_depend_on_each_other():
    x, y = sequences("sqeuclidean", 5, 30, 40, 3, torch.float32)
    x_lengths, y_lengths = torch.tensor([30, 1, 12, 17, 30]), torch.tensor([40, 9, 1, 16, 33])
    loss = dalign.SoftDTW(0.1, band=5, reduction="none")
    together = loss(x, y, x_lengths, y_lengths)
    for b in range(5):
        alone = loss(x[b : b + 1, : x_lengths[b]], y[b : b + 1, : y_lengths[b]])
        torch.testing.assert_close(alone[0], together[b])


def test_lengths_may_have_any_integer_type():
    cost, x_lengths, y_lengths = problem(torch.float32)
    expected = functional.soft_dtw(cost, x_lengths=x_lengths, y_lengths=y_lengths)
    for dtype in (torch.int32, torch.int16, torch.uint8):
        lengths = {"x_lengths": x_lengths.to(dtype), "y_lengths": y_lengths.to(dtype)}
        assert torch.equal(functional.soft_dtw(cost, **lengths), expected)


def test_non_contiguous_input():
    x, y = sequences("sqeuclidean", 3, 9, 8, 4, torch.float64)
    strided_x = x.transpose(0, 1).contiguous().transpose(0, 1).requires_grad_()
    strided_y = torch.stack([y, y], -1)[..., 0].requires_grad_()
    x.requires_grad_()
    y.requires_grad_()
    value, strided_value = dalign.SoftDTW()(x, y), dalign.SoftDTW()(strided_x, strided_y)
    grads = torch.autograd.grad(value, (x, y))
    strided_grads = torch.autograd.grad(strided_value, (strided_x, strided_y))
    assert torch.equal(value, strided_value)
    assert all(torch.equal(a, b) for a, b in zip(grads, strided_grads, strict=True))
    cost = torch.rand(4, 5, 6)[:, :, ::2].transpose(1, 2)
    assert torch.equal(functional.soft_dtw(cost), functional.soft_dtw(cost.contiguous()))
    assert torch.equal(functional.alignment(cost), functional.alignment(cost.contiguous()))


def test_expanded_batch():
    cost = torch.rand(1, 5, 4).expand(3, 5, 4)
    assert functional.soft_dtw(cost).unique().numel() == 1


@pytest.mark.parametrize("metric", reference_cost.METRICS)
def test_empty_batch(metric):
    x, y = sequences(metric, 0, 4, 3, 2, torch.float32)
    loss = dalign.SoftDTW(metric=metric, reduction="sum")
    value = loss(x.requires_grad_(), y)
    value.backward()
    assert value == 0
    assert x.grad.shape == (0, 4, 2)
    assert loss.alignment(x, y).shape == (0, 4, 3)


def test_nothing_is_kept_without_grad():
    cost = torch.rand(2, 30, 40)
    gamma = torch.tensor(1.0, dtype=torch.float64)
    value, state = torch.ops.dalign.softdtw(cost, gamma, None, None, [1.0, 1.0, 1.0], -1.0, False)
    assert state.shape == (2, 0)
    kept, state = torch.ops.dalign.softdtw(cost, gamma, None, None, [1.0, 1.0, 1.0], -1.0, True)
    assert torch.equal(value, kept)
    assert state.shape[1] > 0


def test_backward_without_state_repeats_the_forward():
    cost = torch.rand(2, 30, 40)
    gamma = torch.tensor(0.3, dtype=torch.float64)
    options = (gamma, None, None, [1.0, 1.0, 1.0], -1.0)
    grads = []
    for keep in (True, False):
        value, state = torch.ops.dalign.softdtw(cost, *options, keep)
        grads.append(torch.ops.dalign.softdtw_backward(cost, *options, value, state, torch.ones(2), True))
    for kept, repeated in zip(*grads, strict=True):
        assert torch.equal(kept, repeated)


# ---------------------------------------------------------------- the module


@pytest.mark.parametrize("kind", [True, "sharp", "mean_cost"])
@pytest.mark.parametrize("weights", [None, (0.5, 1.0, 1.5)])
def test_divergences_match_their_definition(kind, weights):
    x, y = sequences("sqeuclidean", 3, 7, 6, 3, torch.float64)
    x_lengths, y_lengths = torch.tensor([7, 4, 6]), torch.tensor([6, 6, 2])
    loss = dalign.SoftDTW(0.5, band=3, divergence=kind, step_weights=weights, reduction="none")
    actual = loss(x, y, x_lengths, y_lengths)
    for b in range(3):
        item_x, item_y = x[b, : x_lengths[b]].numpy(), y[b, : y_lengths[b]].numpy()
        pairs = ((item_x, item_y), (item_x, item_x), (item_y, item_y))
        costs = [reference_cost.pairwise(a, c, "sqeuclidean") for a, c in pairs]
        expected = reference.divergence(*costs, gamma=0.5, kind=kind, step_weights=weights or reference.UNIT, band=3)
        assert_near(actual[b], expected, 1e-11)


@pytest.mark.parametrize("kind", [True, "sharp", "mean_cost"])
def test_divergence_vanishes_at_equality_and_is_differentiable(kind):
    x, y = sequences("sqeuclidean", 2, 5, 4, 2, torch.float64)
    gamma = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    loss = dalign.SoftDTW(gamma, divergence=kind, reduction="none")
    assert_near(loss(x, x), [0, 0], 1e-12)
    assert (loss(x, y) > 0).all()
    assert gradcheck(lambda x, y, _: loss(x, y), (x.requires_grad_(), y.requires_grad_(), gamma))


def test_sharp_divergence_of_blocked_paths_is_infinite():
    loss = dalign.SoftDTW(divergence="sharp", step_weights=(INF, INF, 1.0), reduction="none")
    x, y = sequences("sqeuclidean", 1, 5, 4, 2, torch.float64)
    assert loss(x, y).isinf().all()
    assert loss(x, x).isfinite().all()


def test_metric_may_be_a_callable_or_precomputed():
    x, y = sequences("manhattan", 2, 5, 6, 3, torch.float64)
    named = dalign.SoftDTW(0.3, "manhattan", divergence=False)
    called = dalign.SoftDTW(0.3, lambda x, y: torch.cdist(x, y, p=1.0))
    given = dalign.SoftDTW(0.3, "precomputed")
    lengths = {"x_lengths": torch.tensor([5, 2]), "y_lengths": torch.tensor([3, 6])}
    expected = named(x, y, **lengths)
    torch.testing.assert_close(called(x, y, **lengths), expected)
    torch.testing.assert_close(given(dalign.pairwise(x, y, "manhattan"), **lengths), expected)
    torch.testing.assert_close(called.alignment(x, y, **lengths), named.alignment(x, y, **lengths))


def test_reductions():
    x, y = sequences("sqeuclidean", 3, 5, 6, 3, torch.float32)
    items = dalign.SoftDTW(reduction="none")(x, y)
    assert items.shape == (3,)
    torch.testing.assert_close(dalign.SoftDTW(reduction="sum")(x, y), items.sum())
    torch.testing.assert_close(dalign.SoftDTW()(x, y), items.mean())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types_are_computed_in_float32(dtype):
    x, y = torch.randn(2, 9, 3).to(dtype).requires_grad_(), torch.randn(2, 8, 3).to(dtype)
    value = dalign.SoftDTW()(x, y)
    assert value.dtype == torch.float32
    assert torch.equal(value, dalign.SoftDTW()(x.float(), y.float()))
    value.backward()
    assert x.grad.dtype == dtype
    assert dalign.SoftDTW().alignment(x, y).dtype == torch.float32
    assert functional.soft_dtw(torch.rand(1, 3, 3).to(dtype)).dtype == torch.float32


def test_gak_is_the_logarithm_of_a_sum_over_paths():
    x, y = sequences("sqeuclidean", 2, 4, 3, 2, torch.float64)
    gamma = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    totals = [
        reference.brute_paths(reference_cost.pairwise(*pair, "sqeuclidean"))[0]
        for pair in zip(x.numpy(), y.numpy(), strict=True)
    ]
    expected = [np.log(np.exp(-t / 0.7).sum()) for t in totals]
    assert_near(dalign.gak(x, y, gamma), expected, 1e-12)
    assert gradcheck(lambda x, y, gamma: dalign.gak(x, y, gamma), (x.requires_grad_(), y.requires_grad_(), gamma))
    weights = {"band": 1, "step_weights": (1.0, 1.0, 2.0), "y_lengths": torch.tensor([3, 2])}
    loss = dalign.SoftDTW(0.7, "manhattan", band=1, step_weights=(1.0, 1.0, 2.0), reduction="none")
    expected = -loss(x, y, y_lengths=torch.tensor([3, 2])) / 0.7
    torch.testing.assert_close(dalign.gak(x, y, 0.7, "manhattan", **weights), expected)


# ---------------------------------------------------------------- ops


def op_inputs(dtype: torch.dtype) -> dict[str, tuple]:
    """Arguments of every soft-DTW op."""
    x, y = sequences("sqeuclidean", 2, 5, 4, 3, dtype)
    cost, tangent, ones = torch.rand(2, 5, 4, dtype=dtype), torch.rand(2, 5, 4, dtype=dtype), torch.ones(2, dtype=dtype)
    gamma = torch.tensor(0.5, dtype=torch.float64)
    options = (gamma, torch.tensor([5, 3]), torch.tensor([4, 4]), [1.0, 1.0, 2.0], 2.0)
    return {
        "softdtw": (cost, *options, True),
        "softdtw_backward": (cost, *options, *torch.ops.dalign.softdtw(cost, *options, True), ones, True),
        "softdtw_alignment": (cost, *options),
        "softdtw_hvp": (cost, tangent, *options),
        "softdtw_features": (x, y, "sqeuclidean", *options, True, True, True),
    }


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("lengths", [True, False])
@pytest.mark.parametrize("name", list(op_inputs(torch.float32)))
def test_opcheck(name, lengths, dtype):
    op = getattr(torch.ops.dalign, name).default
    names = [argument.name for argument in op._schema.arguments]
    args = dict(zip(names, op_inputs(dtype)[name], strict=True))
    if not lengths:
        args |= {"x_lengths": None, "y_lengths": None}
    flags = [flag for flag, value in args.items() if isinstance(value, bool)]
    for wanted in itertools.product((True, False), repeat=len(flags)):
        torch.library.opcheck(op, tuple((args | dict(zip(flags, wanted, strict=True))).values()))


@pytest.mark.parametrize(("n", "bytes_per_cell"), [(4096, 1.0), (32768, 0.1)])
def test_state_is_far_smaller_than_the_lattice_and_smaller_in_a_band(n, bytes_per_cell):
    whole, banded = (_C.softdtw_state_bytes(n, n, band, False) for band in (-1.0, 10.0))
    assert whole <= bytes_per_cell * n * n
    assert banded <= whole / 8


@pytest.mark.parametrize("band", [-1.0, 0.5, 3.0, 1e9])
@pytest.mark.parametrize("dtype", DTYPES)
def test_state_has_the_size_that_compiled_graphs_expect(band, dtype):
    gamma = torch.tensor(1.0, dtype=torch.float64)
    for n, m in ((1, 1), (7, 40), (130, 33), (300, 301)):
        cost = torch.rand(1, n, m, dtype=dtype)
        state = torch.ops.dalign.softdtw(cost, gamma, None, None, [1.0, 1.0, 1.0], band, True)[1]
        assert state.shape[1] == _C.softdtw_state_bytes(n, m, band, dtype == torch.float64)
