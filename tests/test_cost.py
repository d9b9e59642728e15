"""Pairwise costs and their derivatives against the formulas in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from reference import cost as reference
from torch.autograd import gradcheck, gradgradcheck

import torch_dalign as dalign
from torch_dalign.cost import adjoint

DTYPES = [torch.float32, torch.float64]
SHAPES = [(1, 1, 1, 1), (2, 5, 4, 3), (3, 17, 33, 13), (1, 40, 7, 70)]


def sequences(metric: str, batch: int, n: int, m: int, d: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Random features that fit the metric, away from the clamps."""
    x = torch.randn(batch, n, d, dtype=dtype)
    if metric == "nll":
        return x.log_softmax(2), torch.randint(d, (batch, m))
    if metric == "bce":
        return x.sigmoid(), (torch.rand(batch, m, d) < 0.4).to(dtype)
    return x, torch.randn(batch, m, d, dtype=dtype)


def tolerance(dtype: torch.dtype) -> dict[str, float]:
    return {"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 1e-11, "atol": 1e-12}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("metric", reference.METRICS)
def test_cost_and_gradients_match_the_formulas(metric, shape, dtype):
    x, y = sequences(metric, *shape, dtype)
    grad_cost = torch.randn(shape[0], shape[1], shape[2], dtype=dtype)
    x.requires_grad_()
    y.requires_grad_(y.is_floating_point())
    cost = dalign.pairwise(x, y, metric)
    cost.backward(grad_cost)
    for b in range(shape[0]):
        item_x, item_y = x[b].detach().double().numpy(), y[b].detach().numpy()
        np.testing.assert_allclose(cost[b].detach(), reference.pairwise(item_x, item_y, metric), **tolerance(dtype))
        grad_x, grad_y = reference.pairwise_backward(item_x, item_y, metric, grad_cost[b].double().numpy())
        scale = max(1.0, float(np.abs(grad_x).max()))
        np.testing.assert_allclose(x.grad[b] / scale, grad_x / scale, **tolerance(dtype))
        if grad_y is not None:
            scale = max(1.0, float(np.abs(grad_y).max()))
            np.testing.assert_allclose(y.grad[b] / scale, grad_y / scale, **tolerance(dtype))


@pytest.mark.parametrize("metric", reference.METRICS)
def test_gradcheck_twice(metric):
    x, y = sequences(metric, 2, 3, 4, 3, torch.float64)
    inputs = (x.requires_grad_(), y.requires_grad_(y.is_floating_point()))
    assert gradcheck(lambda x, y: dalign.pairwise(x, y, metric), inputs)
    assert gradgradcheck(lambda x, y: dalign.pairwise(x, y, metric), inputs)


@pytest.mark.parametrize("metric", reference.METRICS)
def test_formulas_of_the_second_derivative_agree_with_the_kernel(metric):
    x, y = sequences(metric, 2, 5, 4, 3, torch.float64)
    grad_cost = torch.randn(2, 5, 4, dtype=torch.float64)
    need_y = metric != "nll"
    grad_x, grad_y = torch.ops.dalign.cost_backward(x, y, metric, grad_cost, True, need_y)
    expected_x, expected_y = adjoint(x, y, grad_cost, metric)
    torch.testing.assert_close(grad_x, expected_x)
    if need_y:
        torch.testing.assert_close(grad_y, expected_y)


def test_euclidean_at_distance_zero_has_gradient_zero():
    x = torch.ones(1, 2, 3, requires_grad=True)
    y = torch.ones(1, 2, 3, requires_grad=True)
    cost = dalign.pairwise(x, y, "euclidean")
    cost.sum().backward()
    assert (cost == 0).all()
    assert (x.grad == 0).all()
    assert (y.grad == 0).all()


def test_cosine_of_a_zero_frame_is_one_with_gradient_zero():
    x = torch.tensor([[[0.0, 0.0], [1.0, 2.0]]], requires_grad=True)
    y = torch.tensor([[[3.0, 4.0], [0.0, 0.0]]], requires_grad=True)
    cost = dalign.pairwise(x, y, "cosine")
    cost.sum().backward()
    assert cost[0, 0].tolist() == [1, 1]
    assert cost[0, 1, 1] == 1
    assert (x.grad[0, 0] == 0).all()
    assert (y.grad[0, 1] == 0).all()
    assert (x.grad[0, 1] != 0).any()


@pytest.mark.parametrize("dtype", DTYPES)
def test_bce_clamps_logarithms_as_torch_does(dtype):
    x = torch.tensor([[[0.0, 1.0, 0.3]]], dtype=dtype, requires_grad=True)
    y = torch.tensor([[[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]], dtype=dtype)
    cost = dalign.pairwise(x, y, "bce")
    for j in range(2):
        expected = torch.nn.functional.binary_cross_entropy(x[0, 0], y[0, j], reduction="sum")
        torch.testing.assert_close(cost[0, 0, j], expected)
    cost.sum().backward()
    assert torch.isfinite(x.grad).all()


def test_impossible_classes_block_and_have_no_gradient():
    x = torch.tensor([[[0.0, -torch.inf], [-0.5, -1.0]]], requires_grad=True)
    cost = dalign.pairwise(x, torch.tensor([[0, 1]]), "nll")
    assert cost.tolist() == [[[0.0, torch.inf], [0.5, 1.0]]]
    cost.backward(torch.tensor([[[1.0, 0.0], [2.0, 3.0]]]))
    assert x.grad.tolist() == [[[-1.0, 0.0], [-2.0, -3.0]]]


@pytest.mark.parametrize("metric", reference.METRICS)
def test_non_contiguous_input(metric):
    x, y = sequences(metric, 2, 6, 5, 4, torch.float64)
    strided_x = x.transpose(0, 1).contiguous().transpose(0, 1)
    strided_y = torch.stack([y, y], -1)[..., 0]
    assert not strided_x.is_contiguous()
    assert not strided_y.is_contiguous()
    assert torch.equal(dalign.pairwise(strided_x, strided_y, metric), dalign.pairwise(x, y, metric))


@pytest.mark.parametrize("metric", reference.METRICS)
def test_empty_batch(metric):
    x, y = sequences(metric, 0, 4, 3, 2, torch.float32)
    cost = dalign.pairwise(x.requires_grad_(), y, metric)
    assert cost.shape == (0, 4, 3)
    cost.sum().backward()
    assert x.grad.shape == (0, 4, 2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types_are_computed_in_float32(dtype):
    x = torch.randn(2, 4, 3).to(dtype).requires_grad_()
    y = torch.randn(2, 5, 3).to(dtype)
    cost = dalign.pairwise(x, y)
    assert cost.dtype == torch.float32
    assert torch.equal(cost, dalign.pairwise(x.float(), y.float()))
    cost.sum().backward()
    assert x.grad.dtype == dtype


@pytest.mark.parametrize("metric", reference.METRICS)
def test_third_derivative_is_refused(metric):
    x, y = sequences(metric, 1, 3, 3, 2, torch.float64)
    x.requires_grad_()
    (first,) = torch.autograd.grad(dalign.pairwise(x, y, metric).square().sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="third-order derivatives are not implemented"):
        second.sum().backward()


@pytest.mark.parametrize("metric", reference.METRICS)
def test_opcheck(metric):
    for dtype in DTYPES:
        x, y = sequences(metric, 2, 3, 4, 2, dtype)
        torch.library.opcheck(torch.ops.dalign.cost.default, (x, y, metric))
        args = (x, y, metric, torch.randn(2, 3, 4, dtype=dtype), True, metric != "nll")
        torch.library.opcheck(torch.ops.dalign.cost_backward.default, args)
