"""DILATE and the expected cost of paths: values and gradients against soft-DTW's own alignment, in all its settings."""

from __future__ import annotations

import copy
import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import torch_dalign as dalign
from torch_dalign import functional

GOLDEN = Path(__file__).parents[2] / "shared" / "golden" / "softdtw" / "dilate.npz"
METRICS = ("sqeuclidean", "euclidean", "manhattan", "cosine", "bce")
PENALTIES = ("squared", "absolute", "relative")
EXACT = torch.float64


def formula(name: str, n: int, m: int) -> Tensor:
    """Omega (n, m)."""
    i, j = torch.arange(n, dtype=EXACT)[:, None], torch.arange(m, dtype=EXACT)
    return {"squared": (i - j) ** 2, "absolute": (i - j).abs(), "relative": (i / n - j / m) ** 2}[name]


def by_alignment(cost: Tensor, omega: Tensor, gamma: float | Tensor, **options: Any) -> tuple[Tensor, Tensor]:
    """Soft-DTW and <Omega, H> from the differentiable alignment of soft-DTW."""
    value = functional.soft_dtw(cost, gamma, **options)
    return value, (functional.alignment(cost, gamma, **options) * omega).sum((1, 2))


def dilate_by_alignment(x: Tensor, y: Tensor, alpha: float, gamma: float, penalty: str, metric: str) -> Tensor:
    cost = dalign.pairwise(x, y, metric)
    n, m = cost.shape[1:]
    shape, path = by_alignment(cost, formula(penalty, n, m), gamma)
    return alpha * shape + (1 - alpha) * path / (n * m)


def series(
    n: int, m: int, d: int = 2, batch: int = 2, dtype: torch.dtype = EXACT, seed: int = 0
) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x, y = (torch.rand(batch, k, d, dtype=EXACT, generator=generator) * 0.8 + 0.1 for k in (n, m))
    return x.to(dtype).requires_grad_(), y.to(dtype).requires_grad_()


# ---------------------------------------------------------------- values and gradients


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("penalty", PENALTIES)
def test_loss_and_gradients_are_those_of_the_alignment(metric: str, penalty: str) -> None:
    for n, m in ((1, 1), (1, 6), (7, 1), (9, 7), (40, 33)):
        x, y = series(n, m)
        loss = dalign.DILATE(0.3, 0.5, penalty, metric, reduction="none")(x, y)
        want = dilate_by_alignment(x, y, 0.3, 0.5, penalty, metric)
        torch.testing.assert_close(loss, want, rtol=1e-11, atol=1e-12)
        weights = torch.tensor([1.0, -2.0], dtype=EXACT)
        got = torch.autograd.grad((loss * weights).sum(), (x, y))
        for ours, theirs in zip(got, torch.autograd.grad((want * weights).sum(), (x, y)), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("gamma", [1e-3, 0.1, 10.0, 1e3])
@pytest.mark.parametrize("scale", [1.0, 10.0, 100.0])
def test_float32_is_close_to_float64(gamma: float, scale: float) -> None:
    x, y = (t.detach() * scale for t in series(200, 150, 5, dtype=torch.float32))
    found = []
    for kind in (torch.float32, EXACT):
        leaf = x.to(kind).requires_grad_()
        loss = dalign.DILATE(0.5, gamma)(leaf, y.to(kind))
        found.append((loss.double(), torch.autograd.grad(loss, leaf)[0].double()))
    (loss, grad), (exact, exact_grad) = found
    # float32 costs are rounded by 2^-24 of their size, which the paths' probabilities see divided by gamma
    rounding = max(1.0, scale**2 / gamma / 100)
    assert abs(loss - exact) <= 1e-5 * abs(exact) * rounding
    assert (grad - exact_grad).abs().max() <= 2e-4 * exact_grad.abs().max() * rounding


def test_lengths_cut_a_batch_and_padding_is_never_read() -> None:
    x, y = series(12, 9, batch=3)
    x_lengths, y_lengths = torch.tensor([12, 5, 1]), torch.tensor([9, 4, 7])
    with torch.no_grad():
        x[1, 5:] = torch.nan
        y[1, 4:] = torch.inf
    loss = dalign.DILATE(0.4, 0.2, reduction="none")(x, y, x_lengths, y_lengths)
    loss.sum().backward()
    for b, (n, m) in enumerate(zip(x_lengths.tolist(), y_lengths.tolist(), strict=True)):
        one, other = (t.detach()[b : b + 1, :k].clone().requires_grad_() for t, k in ((x, n), (y, m)))
        alone = dilate_by_alignment(one, other, 0.4, 0.2, "squared", "sqeuclidean")
        alone.sum().backward()
        torch.testing.assert_close(loss[b : b + 1], alone)
        assert x.grad is not None
        assert y.grad is not None
        torch.testing.assert_close(x.grad[b : b + 1, :n], one.grad)
        torch.testing.assert_close(y.grad[b : b + 1, :m], other.grad)
        assert not x.grad[b, n:].any()
        assert not y.grad[b, m:].any()


@pytest.mark.parametrize("band", [1, 2.5, 20])
@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (6, 1), (23, 23), (40, 17), (31, 90)])
def test_band(band: float, shape: tuple[int, int]) -> None:
    cost = torch.rand(2, *shape, dtype=EXACT).requires_grad_()
    value, path = by_alignment(cost, formula("absolute", *shape), 0.3, band=band)
    want = 0.5 * value + 0.5 * path / (shape[0] * shape[1])
    got = functional.dilate(cost, 0.5, 0.3, penalty="absolute", band=band)
    torch.testing.assert_close(got, want)
    for ours, theirs in zip(*(torch.autograd.grad(t.sum(), cost) for t in (got, want)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("weights", [(0.1, 1.0, 1.0), (1.0, 1.0, 2.0), (math.inf, 1.0, 1.0), (0.0, 0.5, 0.5)])
def test_expected_cost_with_step_weights(weights: tuple[float, float, float]) -> None:
    cost = torch.rand(2, 9, 13, dtype=EXACT).requires_grad_()
    omega = torch.randn(2, 9, 13, dtype=EXACT)
    want = by_alignment(cost, omega, 0.4, step_weights=weights)[1]
    got = functional.expected_cost(cost, omega, 0.4, step_weights=list(weights))
    torch.testing.assert_close(got, want)
    ours, theirs = (torch.autograd.grad(t.sum(), cost)[0] for t in (got, want))
    torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize("ends", ["any_x", "any_y", (3, 2)])
def test_expected_cost_with_free_ends(ends: Any) -> None:
    cost = torch.rand(2, 8, 11, dtype=EXACT).requires_grad_()
    omega = torch.randn(1, 8, 11, dtype=EXACT)
    align = functional.ddtw_alignment(cost, 0.4, start=ends, end=ends)
    want = (align * omega).sum((1, 2))
    got = functional.expected_cost(cost, omega, 0.4, start=ends, end=ends)
    torch.testing.assert_close(got, want)
    ours, theirs = (torch.autograd.grad(t.sum(), cost)[0] for t in (got, want))
    torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-11)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 60), st.integers(1, 60), st.floats(0.01, 100), st.sampled_from(PENALTIES), st.integers(0, 1 << 30)
)
def test_any_shape(n: int, m: int, gamma: float, penalty: str, seed: int) -> None:
    cost = torch.rand(1, n, m, dtype=EXACT, generator=torch.Generator().manual_seed(seed)).requires_grad_()
    value, path = by_alignment(cost, formula(penalty, n, m), gamma)
    got = functional.dilate(cost, 0.7, gamma, penalty=penalty)
    want = 0.7 * value + 0.3 * path / (n * m)
    torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)
    ours, theirs = (torch.autograd.grad(t.sum(), cost)[0] for t in (got, want))
    torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("shared", [False, True])
def test_gradcheck_of_everything(shared: bool) -> None:
    x, y = series(5, 4)
    gamma = torch.tensor(0.6, dtype=EXACT, requires_grad=True)
    omega = torch.randn(1 if shared else 2, 5, 4, dtype=EXACT, requires_grad=True)

    def parts(x: Tensor, y: Tensor, gamma: Tensor, omega: Tensor) -> tuple[Tensor, ...]:
        return dalign.DILATE(0.3, gamma, omega, reduction="none")(x, y, return_parts=True)

    assert torch.autograd.gradcheck(parts, (x, y, gamma, omega))
    assert torch.autograd.gradcheck(lambda *t: parts(*t)[0], (x, y, gamma, omega))
    cost = torch.rand(2, 5, 4, dtype=EXACT, requires_grad=True)
    assert torch.autograd.gradcheck(lambda c, o, g: functional.expected_cost(c, o, g), (cost, omega, gamma))


def test_parts_add_up_and_carry_their_own_gradients() -> None:
    x, y = series(10, 12)
    loss, shape, temporal = dalign.DILATE(0.25, 0.1)(x, y, return_parts=True)
    torch.testing.assert_close(loss, 0.25 * shape + 0.75 * temporal)
    whole = torch.autograd.grad(loss, x, retain_graph=True)[0]
    parts = torch.autograd.grad(0.25 * shape + 0.75 * temporal, x, retain_graph=True)[0]
    torch.testing.assert_close(whole, parts)
    mixed = torch.autograd.grad(loss + shape, x)[0]
    assert not torch.allclose(mixed, whole)


@pytest.mark.skipif(not GOLDEN.exists(), reason="the golden cases are not beside the repository")
def test_golden() -> None:
    golden = np.load(GOLDEN)
    for case in ("c0", "c1", "c2"):
        x, y = (torch.tensor(golden[f"{case}_{name}"], dtype=EXACT) for name in ("outputs", "targets"))
        for gamma in ("0.1", "0.01", "1.0"):
            key = f"{case}_g{gamma}"
            leaf = x.clone().requires_grad_()
            _, shape, temporal = dalign.DILATE(0.5, float(gamma), reduction="none")(leaf, y, return_parts=True)
            np.testing.assert_allclose(shape.detach(), golden[f"{key}_f64_shape_per_item"], rtol=1e-9)
            np.testing.assert_allclose(temporal.detach(), golden[f"{key}_f64_temporal_per_item"], rtol=1e-8, atol=1e-12)
            for alpha in ("0.0", "0.5", "1.0"):
                leaf = x.clone().requires_grad_()
                loss = dalign.DILATE(float(alpha), float(gamma))(leaf, y)
                np.testing.assert_allclose(loss.detach(), golden[f"{key}_a{alpha}_f64_loss"], rtol=1e-8)
                (grad,) = torch.autograd.grad(loss, leaf)
                want = golden[f"{key}_a{alpha}_f64_grad"]
                np.testing.assert_allclose(grad, want, rtol=1e-6, atol=1e-8 * np.abs(want).max())


# ---------------------------------------------------------------- numbers that are not numbers


def test_nan_and_blocked_cells_touch_their_item_alone() -> None:
    cost = torch.rand(3, 6, 5, dtype=EXACT)
    cost[0, 2, 2] = torch.nan
    cost[1, :, 2] = torch.inf
    cost.requires_grad_()
    loss = functional.dilate(cost, 0.5, 1.0)
    assert loss[0].isnan()
    assert loss[1] == torch.inf
    assert loss[2].isfinite()
    loss[2].backward(retain_graph=True)
    (grad,) = torch.autograd.grad(loss.sum(), cost)
    assert grad[0].isnan().all()
    assert not grad[1].any()
    assert grad[2].isfinite().all()
    assert functional.expected_cost(cost, "squared")[1] == 0


def test_where_doubles_tell_no_paths_apart_it_is_hard_dtw() -> None:
    cost = (1e9 * torch.rand(2, 7, 6, dtype=EXACT)).requires_grad_()
    loss = dalign.DILATE(0.5, 1e-9, "absolute", metric="precomputed", reduction="none")
    _, shape, temporal = loss(cost, return_parts=True)
    torch.testing.assert_close(shape, functional.dtw(cost.detach()))
    for b, path in enumerate(dalign.dtw_path(cost.detach(), metric="precomputed")):
        i, j = path.unbind(1)
        torch.testing.assert_close(temporal[b] * 42, (i - j).abs().sum().to(EXACT))
        (grad,) = torch.autograd.grad(shape[b] + temporal[b], cost, retain_graph=True)
        assert torch.equal(grad[b].nonzero(), path)


def test_a_given_penalty_is_not_looked_at_where_no_path_comes_by() -> None:
    cost = torch.rand(1, 5, 5, dtype=EXACT)
    cost[0, 4, 0] = torch.inf
    omega = formula("squared", 5, 5)[None].clone()
    want = functional.expected_cost(cost, omega)
    omega[0, 4, 0] = torch.nan
    torch.testing.assert_close(functional.expected_cost(cost, omega), want)


# ---------------------------------------------------------------- what training scripts expect


def test_third_derivatives_are_refused() -> None:
    x, y = series(4, 4)
    for alpha in (1.0, 0.5, 0.0):  # 1: soft-DTW alone, of which SoftDTW has second derivatives
        with pytest.raises(RuntimeError, match="third-order"):
            torch.autograd.gradgradcheck(lambda x, alpha=alpha: dalign.DILATE(alpha, 0.5)(x, y), x)


def test_a_graph_of_the_gradient_is_no_harm_until_it_is_differentiated() -> None:
    x, y = series(6, 5)
    omega = torch.rand(1, 6, 5, dtype=EXACT).requires_grad_()
    gamma = torch.tensor(0.3, dtype=EXACT).requires_grad_()
    leaves = (x, y, gamma, omega)
    loss = dalign.DILATE(0.4, gamma, omega)(x, y)
    want = torch.autograd.grad(loss, leaves, retain_graph=True)
    found = torch.autograd.grad(loss, leaves, create_graph=True)
    for ours, theirs in zip(found, want, strict=True):
        assert torch.equal(ours, theirs)
    with pytest.raises(RuntimeError, match="third-order"):
        found[0].sum().backward()
    assert torch.equal(torch.func.grad(lambda x: dalign.DILATE(0.4, gamma, omega)(x, y))(x.detach()), want[0])
    shape = dalign.DILATE(0.4, 0.3)(x, y, return_parts=True)[1]
    penalised = shape + torch.autograd.grad(dalign.SoftDTW(0.3)(x, y), x, create_graph=True)[0].square().sum()
    penalised.backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_threads_and_levels_agree() -> None:
    x, y = series(90, 70, 6, batch=8, dtype=torch.float32)
    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            loss = dalign.DILATE(0.5, 0.1, reduction="none")(x, y)
            found.append((loss, torch.autograd.grad(loss.sum(), x)[0]))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])


def test_half_types_and_non_contiguous_input() -> None:
    x, y = (t.detach() for t in series(12, 10, dtype=torch.float32))
    loss = dalign.DILATE(0.5, 0.1)
    assert loss(x.half(), y.half()).dtype == torch.float32
    strided = x.transpose(1, 2).contiguous().transpose(1, 2)
    assert not strided.is_contiguous()
    torch.testing.assert_close(loss(strided, y), loss(x, y))


def test_shapes_alone() -> None:
    x, y = (torch.empty(2, n, 3, device="meta") for n in (5, 4))
    for part in dalign.DILATE(reduction="none")(x, y, torch.tensor([5, 2]), return_parts=True):
        assert (part.shape, part.device.type) == ((2,), "meta")


def test_empty_batch() -> None:
    x, y = torch.rand(0, 5, 2, requires_grad=True), torch.rand(0, 4, 2)
    loss = dalign.DILATE(reduction="sum")(x, y)
    loss.backward()
    assert loss == 0
    assert x.grad is not None
    assert x.grad.shape == (0, 5, 2)


def test_module_is_a_good_citizen() -> None:
    loss = dalign.DILATE(0.8, 0.02, "absolute", band=5)
    assert "alpha=0.8" in repr(loss)
    assert "absolute" in repr(loss)
    assert not loss.state_dict()
    x, y = series(9, 9)
    for twin in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):
        torch.testing.assert_close(twin(x, y), loss(x, y))
    learned = dalign.DILATE(penalty=torch.nn.Parameter(torch.rand(1, 9, 9, dtype=EXACT)))
    assert [name for name, _ in learned.named_parameters()] == ["penalty"]
    learned(x, y).backward()
    assert learned.penalty.grad is not None
    assert learned.penalty.grad.shape == (1, 9, 9)


def test_compile_fullgraph() -> None:
    loss = dalign.DILATE(0.5, 0.1)
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    x, y = series(8, 7)
    torch.testing.assert_close(compiled(x, y), loss(x, y))
    ours, theirs = (torch.autograd.grad(f(x, y), x)[0] for f in (compiled, loss))
    torch.testing.assert_close(ours, theirs)


def test_opcheck() -> None:
    cost, omega = torch.rand(2, 5, 4), torch.rand(1, 5, 4)
    gamma = torch.tensor(0.5, dtype=EXACT)
    common = (gamma, None, None, [1, 0, 0, 1, 1, 1], [1.0, 1.0, 1.0], [1, 1], [1, 1], -1.0)
    torch.library.opcheck(
        torch.ops.dalign.dilate.default, (cost, *common, "given", omega, None, None, True, True, True)
    )
    x, y = torch.rand(2, 5, 3), torch.rand(2, 4, 3)
    factor = torch.rand(2)
    torch.library.opcheck(
        torch.ops.dalign.dilate_features.default,
        (x, y, "sqeuclidean", *common, "squared", None, factor, factor, True, True, False, True),
    )


def test_subsequence_is_the_lattice_with_free_ends() -> None:
    x, y = series(6, 20)
    loss = dalign.SubsequenceSoftDTW(gamma=0.3)
    want = dalign.DDTW(start="any_y", end="any_y", gamma=0.3)
    torch.testing.assert_close(loss(x, y), want(x, y))
    assert loss(x, y) <= dalign.SoftDTW(gamma=0.3)(x, y)


# ---------------------------------------------------------------- misuse


X, Y, COST = torch.rand(2, 5, 3), torch.rand(2, 4, 3), torch.rand(2, 5, 4)


def loss_of(x: Any = X, y: Any = Y, x_lengths: Any = None, y_lengths: Any = None, **options: Any) -> Any:
    return dalign.DILATE(**options)(x, y, x_lengths, y_lengths)


MISUSE = {
    "alpha below": (lambda: loss_of(alpha=-0.1), ValueError, r"alpha must be a number from 0 to 1, got -0\.1"),
    "alpha above": (lambda: loss_of(alpha=1.5), ValueError, r"alpha must be a number from 0 to 1, got 1\.5"),
    "alpha nan": (lambda: loss_of(alpha=math.nan), ValueError, r"alpha must be a number from 0 to 1, got nan"),
    "alpha of a lattice": (
        lambda: functional.dilate(COST, 2),
        ValueError,
        r"alpha must be a number from 0 to 1, got 2",
    ),
    "alpha kind": (lambda: loss_of(alpha="half"), TypeError, r"alpha must be a number from 0 to 1, got str"),
    "alpha bool": (lambda: loss_of(alpha=True), TypeError, r"alpha must be a number.*got bool"),
    "gamma": (lambda: loss_of(gamma=0.0), ValueError, r"gamma must be positive and finite, got 0"),
    "penalty name": (lambda: loss_of(penalty="cubic"), ValueError, r"penalty \(if a name\) must be one of.*'cubic'"),
    "penalty kind": (lambda: loss_of(penalty=COST.numpy()), TypeError, r"penalty must be a name or a.*got ndarray"),
    "penalty function": (lambda: loss_of(penalty=torch.sub), TypeError, r"penalty must be a name or a.*got builtin"),
    "penalty dtype": (lambda: loss_of(penalty=torch.ones(1, 5, 4).long()), TypeError, r"penalty must be.*torch\.int64"),
    "penalty without a batch": (
        lambda: dalign.DILATE(penalty=COST[0]),
        ValueError,
        r"penalty must have shape \(B, N, M\) or \(1, N, M\), got \(5, 4\)",
    ),
    "penalty turned": (
        lambda: loss_of(penalty=torch.rand(2, 4, 5)),
        ValueError,
        r"penalty must have shape \(2, 5, 4\), or 1 for the batch, got \(2, 4, 5\)",
    ),
    "penalty of another batch": (lambda: loss_of(penalty=torch.rand(3, 5, 4)), ValueError, r"penalty.*\(3, 5, 4\)"),
    "omega": (lambda: functional.expected_cost(COST, COST[0]), ValueError, r"omega must have shape \(2, 5, 4\)"),
    "omega kind": (lambda: functional.expected_cost(COST, 3), TypeError, r"omega must be a name or a.*got int"),
    "metric": (lambda: loss_of(metric="l2"), ValueError, r"metric.*must be one of.*'l2'"),
    "band": (lambda: loss_of(band=0), ValueError, r"band must be"),
    "reduction": (lambda: loss_of(reduction="max"), ValueError, r"reduction must be one of.*'max'"),
    "no frames of numbers": (
        lambda: loss_of(X[..., 0]),
        ValueError,
        r"input must have shape \(B, N, D\), got \(2, 5\)",
    ),
    "target's dimensions": (lambda: loss_of(y=Y[0]), ValueError, r"target must have shape \(B, M, D\), got \(4, 3\)"),
    "batches": (lambda: loss_of(y=Y[:1]), ValueError, r"input and target must have the same batch size"),
    "features": (lambda: loss_of(y=Y[..., :1]), ValueError, r"input and target must have the same number of features"),
    "dtypes": (lambda: loss_of(y=Y.double()), TypeError, r"input and target must have the same dtype"),
    "integers": (lambda: loss_of(y=Y.long()), TypeError, r"target must be a floating-point tensor"),
    "no frames": (lambda: loss_of(X[:, :0]), ValueError, r"input must have shape.*with N, D >= 1, got \(2, 0, 3\)"),
    "no target": (lambda: loss_of(y=None), TypeError, r"target is missing"),
    "target of a lattice": (lambda: loss_of(COST, metric="precomputed"), ValueError, r"target must be left out"),
    "labels": (
        lambda: loss_of(y=torch.full((2, 4), 3), metric="nll"),
        ValueError,
        r"target\[0, 0\] = 3 is not a class index",
    ),
    "x_lengths": (
        lambda: loss_of(x_lengths=torch.tensor([5, 6])),
        ValueError,
        r"x_lengths\[1\] = 6 is outside \[1, 5\]",
    ),
    "no length": (
        lambda: loss_of(y_lengths=torch.tensor([0, 4])),
        ValueError,
        r"y_lengths\[0\] = 0 is outside \[1, 4\]",
    ),
    "lengths of floats": (lambda: loss_of(x_lengths=torch.ones(2)), TypeError, r"x_lengths must be an integer tensor"),
    "start": (
        lambda: functional.expected_cost(COST, "squared", start=torch.ones(2, 5, 4)),  # type: ignore[arg-type]
        TypeError,
        r"start must be .* got a tensor",
    ),
    "end": (lambda: functional.expected_cost(COST, "squared", end="free"), ValueError, r"end.*must be one of.*'free'"),
}


@pytest.mark.parametrize("what", MISUSE)
def test_misuse(what: str) -> None:
    call, error, message = MISUSE[what]
    with pytest.raises(error, match=message):
        call()
