"""Bad input: each public function names the argument, what it got and what it expected, before any kernel runs."""

from __future__ import annotations

import re

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import torch_dalign as dalign
from torch_dalign import functional

X, Y = torch.rand(2, 5, 3), torch.rand(2, 4, 3)
COST = torch.rand(2, 5, 4)
LABELS = torch.tensor([[0, 1, 2, 0], [2, 1, 0, 0]])
LENGTHS = torch.tensor([5, 3])


def fails(call, error, *words):
    """One misuse: the call, the kind of error, and words of its message in order."""
    return pytest.param(call, error, ".*".join(re.escape(word) for word in words), id=" ".join(words) or error.__name__)


def check(call, error, message):
    with pytest.raises(error, match=f"(?s){message}"):
        call()


# ---------------------------------------------------------------- features, wherever they go in

FEATURE_MISUSES = [
    (lambda f: f([[1.0]], Y), TypeError, "x must be a tensor", "list"),
    (lambda f: f(X, Y.numpy()), TypeError, "y must be a tensor", "ndarray"),
    (lambda f: f(X[0], Y), ValueError, "x must have shape (B, N, D)", "(5, 3)"),
    (lambda f: f(X, Y[..., 0]), ValueError, "y must have shape (B, M, D)", "(2, 4)"),
    (lambda f: f(X[:, :0], Y), ValueError, "x", "N, D >= 1", "(2, 0, 3)"),
    (lambda f: f(X, Y[:, :0]), ValueError, "y", "M, D >= 1", "(2, 0, 3)"),
    (lambda f: f(X[..., :0], Y[..., :0]), ValueError, "x", "N, D >= 1", "(2, 5, 0)"),
    (lambda f: f(X, Y[..., :2]), ValueError, "same number of features", "(2, 5, 3)", "(2, 4, 2)"),
    (lambda f: f(X, Y[:1]), ValueError, "same batch size", "(2, 5, 3)", "(1, 4, 3)"),
    (lambda f: f(X.double(), Y), TypeError, "same dtype", "float64", "float32"),
    (lambda f: f(X.int(), Y.int()), TypeError, "x must be a floating-point tensor", "int32"),
    (lambda f: f(X, Y.bool()), TypeError, "y must be a floating-point tensor", "bool"),
    (lambda f: f(X.to(torch.complex64), Y), TypeError, "x must be a floating-point tensor", "complex64"),
]
LABEL_MISUSES = [
    (lambda f: f(X, Y), TypeError, "y must hold integer class indices", "float32"),
    (lambda f: f(X, LABELS[0]), ValueError, "y must have shape (B, M)", "(4,)"),
    (lambda f: f(X, LABELS + 1), ValueError, "y[0, 2] = 3 is not a class index", "[0, 3)"),
    (lambda f: f(X, LABELS - 1), ValueError, "y[0, 0] = -1 is not a class index", "[0, 3)"),
]
FEATURE_FUNCTIONS = {
    "pairwise": dalign.pairwise,
    "SoftDTW": lambda x, y: dalign.SoftDTW()(x, y),
    "alignment": lambda x, y: dalign.SoftDTW().alignment(x, y),
    "gak": dalign.gak,
}
LABEL_FUNCTIONS = {
    "pairwise": lambda x, y: dalign.pairwise(x, y, "nll"),
    "SoftDTW": lambda x, y: dalign.SoftDTW(metric="nll")(x, y),
    "alignment": lambda x, y: dalign.SoftDTW(metric="nll").alignment(x, y),
    "gak": lambda x, y: dalign.gak(x, y, metric="nll"),
}


@pytest.mark.parametrize("function", FEATURE_FUNCTIONS)
@pytest.mark.parametrize(("call", "error", "message"), [fails(*misuse) for misuse in FEATURE_MISUSES])
def test_features(call, error, message, function):
    check(lambda: call(FEATURE_FUNCTIONS[function]), error, message)


@pytest.mark.parametrize("function", LABEL_FUNCTIONS)
@pytest.mark.parametrize(("call", "error", "message"), [fails(*misuse) for misuse in LABEL_MISUSES])
def test_labels(call, error, message, function):
    check(lambda: call(LABEL_FUNCTIONS[function]), error, message)


# ---------------------------------------------------------------- cost lattices

LATTICE_FUNCTIONS = {
    "soft_dtw": functional.soft_dtw,
    "functional.alignment": functional.alignment,
    "SoftDTW": lambda cost: dalign.SoftDTW(metric="precomputed")(cost),
    "alignment": lambda cost: dalign.SoftDTW(metric="precomputed").alignment(cost),
}


@pytest.mark.parametrize("function", LATTICE_FUNCTIONS)
@pytest.mark.parametrize(
    ("cost", "error", "message"),
    [
        fails([[[1.0]]], TypeError, "cost must be a tensor", "list"),
        fails(COST[0], ValueError, "cost must have shape (B, N, M)", "(5, 4)"),
        fails(COST[:, :0], ValueError, "cost must have shape (B, N, M)", ">= 1", "(2, 0, 4)"),
        fails(COST.long(), TypeError, "cost must be a floating-point tensor", "int64"),
    ],
)
def test_lattices(cost, error, message, function):
    check(lambda: LATTICE_FUNCTIONS[function](cost), error, message)


# ---------------------------------------------------------------- options, wherever they go in

OPTION_MISUSES = [
    fails({"gamma": 0.0}, ValueError, "gamma must be positive", "0.0"),
    fails({"gamma": -1}, ValueError, "gamma must be positive", "-1"),
    fails({"gamma": float("nan")}, ValueError, "gamma must be positive", "nan"),
    fails({"gamma": float("inf")}, ValueError, "gamma must be positive and finite", "inf"),
    fails({"gamma": torch.tensor(-2.0)}, ValueError, "gamma must be positive", "-2.0"),
    fails({"gamma": torch.ones(2)}, ValueError, "gamma must be a number or a 0-dim", "(2,)"),
    fails({"gamma": torch.tensor(1)}, ValueError, "gamma must be a number or a 0-dim floating-point", "int64"),
    fails({"gamma": "small"}, TypeError, "gamma must be a number", "str"),
    fails({"gamma": True}, TypeError, "gamma must be a number", "bool"),
    fails({"band": 0}, ValueError, "band must be an integer >= 1", "got 0"),
    fails({"band": -3}, ValueError, "band must be an integer >= 1", "got -3"),
    fails({"band": 0.4}, ValueError, "float >= 0.5", "got 0.4"),
    fails({"band": float("nan")}, ValueError, "float >= 0.5", "got nan"),
    fails({"band": "wide"}, TypeError, "band must be None or a number", "str"),
    fails({"band": True}, TypeError, "band must be None or a number", "bool"),
    fails({"step_weights": (1.0, 1.0)}, ValueError, "three numbers >= 0", "(1.0, 1.0)"),
    fails({"step_weights": (1.0, -1.0, 1.0)}, ValueError, "three numbers >= 0", "-1.0"),
    fails({"step_weights": (1.0, float("nan"), 1.0)}, ValueError, "three numbers >= 0", "nan"),
    fails({"step_weights": 2.0}, TypeError, "three numbers (down, right, diagonal)", "2.0"),
    fails({"step_weights": (1.0, "a", 1.0)}, TypeError, "three numbers (down, right, diagonal)", "'a'"),
]
OPTION_FUNCTIONS = {
    "soft_dtw": lambda options: functional.soft_dtw(COST, **options),
    "functional.alignment": lambda options: functional.alignment(COST, **options),
    "SoftDTW": lambda options: dalign.SoftDTW(**options),
    "gak": lambda options: dalign.gak(X, Y, **options),
}


@pytest.mark.parametrize("function", OPTION_FUNCTIONS)
@pytest.mark.parametrize(("options", "error", "message"), OPTION_MISUSES)
def test_options(options, error, message, function):
    check(lambda: OPTION_FUNCTIONS[function](options), error, message)


LENGTH_MISUSES = [
    fails({"x_lengths": torch.tensor([5, 6])}, ValueError, "x_lengths[1] = 6 is outside [1, 5]"),
    fails({"x_lengths": torch.tensor([0, 5])}, ValueError, "x_lengths[0] = 0 is outside [1, 5]"),
    fails({"y_lengths": torch.tensor([4, -1])}, ValueError, "y_lengths[1] = -1 is outside [1, 4]"),
    fails({"y_lengths": torch.tensor([4])}, ValueError, "y_lengths must have shape (2,)", "(1,)"),
    fails({"x_lengths": torch.tensor([[5, 5]])}, ValueError, "x_lengths must have shape (2,)", "(1, 2)"),
    fails({"x_lengths": torch.tensor([5.0, 5.0])}, TypeError, "x_lengths must be an integer tensor", "float32"),
    fails({"y_lengths": torch.tensor([True, True])}, TypeError, "y_lengths must be an integer tensor", "bool"),
    fails({"y_lengths": [4, 4]}, TypeError, "y_lengths must be an integer tensor", "list"),
]
LENGTH_FUNCTIONS = {
    "soft_dtw": lambda lengths: functional.soft_dtw(COST, **lengths),
    "functional.alignment": lambda lengths: functional.alignment(COST, **lengths),
    "SoftDTW": lambda lengths: dalign.SoftDTW()(X, Y, **lengths),
    "SoftDTW of costs": lambda lengths: dalign.SoftDTW(metric="precomputed")(COST, **lengths),
    "alignment": lambda lengths: dalign.SoftDTW().alignment(X, Y, **lengths),
    "gak": lambda lengths: dalign.gak(X, Y, **lengths),
}


@pytest.mark.parametrize("function", LENGTH_FUNCTIONS)
@pytest.mark.parametrize(("lengths", "error", "message"), LENGTH_MISUSES)
def test_lengths(lengths, error, message, function):
    check(lambda: LENGTH_FUNCTIONS[function](lengths), error, message)


# ---------------------------------------------------------------- what one function alone can be asked


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        fails(lambda: dalign.pairwise(X, Y, "hamming"), ValueError, "metric must be one of", "'hamming'"),
        fails(lambda: dalign.pairwise(X, Y, 3), ValueError, "metric must be one of", "got 3"),
        fails(lambda: dalign.SoftDTW(metric="hamming"), ValueError, "metric", "'precomputed'", "'hamming'"),
        fails(lambda: dalign.gak(X, Y, metric="hamming"), ValueError, "metric", "'hamming'"),
        fails(lambda: dalign.SoftDTW(reduction="avg"), ValueError, "reduction must be one of", "'avg'"),
        fails(lambda: dalign.SoftDTW(divergence="soft"), ValueError, "divergence must be one of", "'soft'"),
        fails(lambda: dalign.SoftDTW(divergence=1), ValueError, "divergence must be one of", "got 1"),
        fails(lambda: dalign.SoftDTW(metric="nll", divergence=True), ValueError, "divergence=True", "'nll'"),
        fails(lambda: dalign.SoftDTW(metric="bce", divergence="sharp"), ValueError, "divergence='sharp'", "'bce'"),
        fails(
            lambda: dalign.SoftDTW(metric="precomputed", divergence="mean_cost"),
            ValueError,
            "divergence='mean_cost'",
            "'precomputed'",
        ),
        fails(lambda: dalign.SoftDTW()(X), TypeError, "y is missing", "'sqeuclidean'"),
        fails(lambda: dalign.SoftDTW().alignment(X), TypeError, "y is missing", "'sqeuclidean'"),
        fails(lambda: dalign.SoftDTW(metric="precomputed")(COST, COST), ValueError, "y must be left out"),
        fails(
            lambda: dalign.SoftDTW(metric=lambda x, y: x)(X[0], Y), ValueError, "metric(x, y)", "(B, N, M)", "(5, 3)"
        ),
        fails(
            lambda: dalign.SoftDTW(metric=lambda x, y: 3)(X, Y), TypeError, "metric(x, y)", "must be a tensor", "int"
        ),
        fails(lambda: setattr(dalign.SoftDTW(), "gamma", 0), ValueError, "gamma must be positive"),
        fails(
            lambda: dalign.plot.alignment(torch.rand(2, 3, 4)), ValueError, "align must have shape (N, M)", "(2, 3, 4)"
        ),
        fails(lambda: dalign.plot.cost(torch.rand(3)), ValueError, "cost must have shape (N, M)", "(3,)"),
        fails(lambda: dalign.plot.cost(COST[0], path=[1, 2]), ValueError, "path must have shape (L, 2)", "(2,)"),
        fails(lambda: dalign.plot.barycenter([X], X[0]), ValueError, "series[0] must have shape", "(2, 5, 3)"),
        fails(lambda: dalign.plot.barycenter([X[0]], X[0], feature=3), ValueError, "feature 3 is outside [0, 3)"),
        fails(lambda: dalign.plot.warp(X[0], Y[0], torch.rand(4, 5)), ValueError, "align", "(5, 4)", "(4, 5)"),
        fails(lambda: dalign.plot.warp(X[0], Y[0], torch.tensor([[0, 9]])), ValueError, "leaves the lattice", "(5, 4)"),
    ],
)
def test_single_misuses(call, error, message):
    check(call, error, message)


def test_labels_beyond_the_length_may_be_anything():
    labels = LABELS.clone()
    labels[1, 2:] = -100
    loss = dalign.SoftDTW(metric="nll", reduction="none")
    lengths = {"y_lengths": torch.tensor([4, 2])}
    assert torch.equal(loss(X, labels, **lengths), loss(X, LABELS, **lengths))
    labels[1, 1] = 7
    with pytest.raises(ValueError, match=re.escape("y[1, 1] = 7 is not a class index")):
        loss(X, labels, **lengths)


def test_other_devices_are_refused_by_name():
    with FakeTensorMode():
        x, y, cost = (torch.empty(2, 5, 4, device="cuda") for _ in range(3))
        calls = (
            lambda: dalign.pairwise(x, y),
            lambda: dalign.SoftDTW()(x, y),
            lambda: dalign.SoftDTW().alignment(x, y),
            lambda: functional.soft_dtw(cost),
            lambda: functional.alignment(cost),
            lambda: dalign.gak(x, y),
        )
        for call in calls:
            with pytest.raises(NotImplementedError, match=r"(x|cost) is on device 'cuda:0'.*without CUDA kernels"):
                call()


# ---------------------------------------------------------------- the ops check again what memory depends on

GAMMA = torch.tensor(1.0, dtype=torch.float64)
PLAIN = (GAMMA, None, None, [1.0, 1.0, 1.0], -1.0)
ops = torch.ops.dalign


def with_lengths(x_lengths, y_lengths=None):
    return (GAMMA, x_lengths, y_lengths, [1.0, 1.0, 1.0], -1.0)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        fails(lambda: ops.softdtw(COST[0], *PLAIN, True), RuntimeError, "cost must have shape (B, N, M)"),
        fails(lambda: ops.softdtw(COST.half(), *PLAIN, True), RuntimeError, "must be float32 or float64"),
        fails(lambda: ops.softdtw(COST, *with_lengths(LENGTHS + 1), True), RuntimeError, "x_lengths[0] = 6", "[1, 5]"),
        fails(lambda: ops.softdtw(COST, *with_lengths(LENGTHS - 3), True), RuntimeError, "x_lengths[1] = 0", "[1, 5]"),
        fails(
            lambda: ops.softdtw(COST, *with_lengths(None, LENGTHS), True), RuntimeError, "y_lengths[0] = 5", "[1, 4]"
        ),
        fails(
            lambda: ops.softdtw(COST, *with_lengths(LENGTHS.int()), True), RuntimeError, "x_lengths must be an int64"
        ),
        fails(lambda: ops.softdtw(COST, *with_lengths(LENGTHS[:1]), True), RuntimeError, "x_lengths", "(2,)"),
        fails(lambda: ops.softdtw(COST, -GAMMA, *PLAIN[1:], True), RuntimeError, "gamma must be positive"),
        fails(lambda: ops.softdtw(COST, GAMMA.float(), *PLAIN[1:], True), RuntimeError, "gamma", "float64"),
        fails(lambda: ops.softdtw(COST, GAMMA, None, None, [1.0], -1.0, True), RuntimeError, "three numbers"),
        fails(
            lambda: ops.softdtw_backward(COST, *PLAIN, *ops.softdtw(COST, *PLAIN, True), torch.ones(3), True),
            RuntimeError,
            "grad_value must have the shape",
        ),
        fails(
            lambda: ops.softdtw_backward(
                COST, *PLAIN, torch.ones(2), torch.ones(2, 1, dtype=torch.uint8), torch.ones(2), True
            ),
            RuntimeError,
            "state must be what forward returned",
        ),
        fails(lambda: ops.softdtw_hvp(COST, COST[:, 1:], *PLAIN), RuntimeError, "tangent must have the shape"),
        fails(lambda: ops.cost(X, Y, "hamming"), RuntimeError, "metric 'hamming' is unknown"),
        fails(lambda: ops.cost(X, Y[:1], "cosine"), RuntimeError, "same batch size"),
        fails(lambda: ops.cost(X, Y[..., 1:], "cosine"), RuntimeError, "same number of features"),
        fails(lambda: ops.cost(X, Y.double(), "cosine"), RuntimeError, "same dtype"),
        fails(lambda: ops.cost(X, LABELS.int(), "nll"), RuntimeError, "int64 class indices"),
        fails(lambda: ops.cost(X, LABELS + 1, "nll"), RuntimeError, "y[0, 2] = 3 is not a class"),
        fails(lambda: ops.cost_backward(X, Y, "cosine", COST[0], True, True), RuntimeError, "grad_cost"),
        fails(lambda: ops.cost_backward(X, LABELS, "nll", COST, True, True), RuntimeError, "no gradient"),
        fails(
            lambda: ops.softdtw_features(X, LABELS - 1, "nll", *PLAIN, True, False, False), RuntimeError, "y[0, 0] = -1"
        ),
        fails(
            lambda: ops.softdtw_features(X, Y[:, :0], "cosine", *PLAIN, True, False, False),
            RuntimeError,
            "at least one frame",
        ),
    ],
)
def test_ops_are_memory_safe(call, error, message):
    check(call, error, message)
