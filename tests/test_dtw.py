"""Hard DTW: values, paths and gradients against the slow reference; options, edges, compilation."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import cost as reference_cost
from reference import dtw as reference
from torch.autograd import gradcheck

import torch_dalign as dalign
from torch_dalign import functional
from torch_dalign.dtw import STEP_PATTERNS

DTYPES = (torch.float32, torch.float64)
INF = float("inf")
METRICS = ("sqeuclidean", "euclidean", "manhattan", "cosine", "nll", "bce")
STEP_SETS = {
    **STEP_PATTERNS,
    "far": (((1, 0), (0, 1), (1, 1), (3, 1), (1, 4), (4, 4)), (1.0, 2.0, 0.5, 3.0, 0.0, 2.0)),
    "no way down": (((0, 1), (1, 1)), (1.0, 1.0)),
}


def tolerance(dtype: torch.dtype) -> dict[str, float]:
    return {"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 1e-12, "atol": 1e-12}


def frames(metric: str, batch: int, n: int, m: int, d: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    x, y = torch.rand(batch, n, d, dtype=dtype), torch.rand(batch, m, d, dtype=dtype)
    if metric == "nll":
        return x.log_softmax(2), torch.randint(d, (batch, m))
    return (x * 0.9 + 0.05, (y > 0.5).to(dtype)) if metric == "bce" else (x, y)


# ---------------------------------------------------------------- value and path


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("ends", [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize("name", STEP_SETS)
def test_costs_against_the_reference(name, ends, dtype):
    steps, weights = STEP_SETS[name]
    for n, m in ((1, 1), (1, 9), (9, 1), (6, 7), (20, 33), (70, 50), (65, 140)):
        cost = torch.rand(2, n, m, dtype=dtype)
        options = {"steps": steps, "step_weights": weights, "open_begin": ends[0], "open_end": ends[1]}
        values = functional.dtw(cost, **options)
        paths = dalign.dtw_path(cost, metric="precomputed", **options)
        for b in range(2):
            lattice = cost[b].double().numpy()
            expected, _ = reference.dtw(lattice, steps, weights, None, None, *ends)
            np.testing.assert_allclose(values[b].item(), expected, **tolerance(dtype))
            if expected == INF:
                assert paths[b].shape == (0, 2)
                continue
            path = paths[b].numpy()
            assert path[-1, 0] == n - 1
            assert ends[1] or path[-1, 1] == m - 1
            assert path[0, 0] == 0
            assert ends[0] or path[0, 1] == 0
            along = reference.path_cost(lattice, path, steps, weights)
            np.testing.assert_allclose(along, expected, **tolerance(dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("metric", METRICS)
def test_features_against_the_reference(metric, dtype):
    x, y = frames(metric, 3, 40, 75, 5, dtype)
    x_lengths, y_lengths = torch.tensor([40, 1, 33]), torch.tensor([75, 20, 2])
    values = dalign.dtw(x, y, metric, band=3, x_lengths=x_lengths, y_lengths=y_lengths)
    for b, (n, m) in enumerate(zip(x_lengths, y_lengths, strict=True)):
        lattice = reference_cost.pairwise(x[b, :n].numpy(), y[b, :m].numpy(), metric)
        expected, path = reference.dtw(lattice, band=3)
        np.testing.assert_allclose(values[b].item(), expected, **tolerance(dtype))
        single = dalign.dtw_path(x[b : b + 1, :n], y[b : b + 1, :m], metric, band=3)[0]
        np.testing.assert_allclose(reference.path_cost(lattice, single.numpy()), expected, **tolerance(dtype))
        assert len(path) >= max(n, m)


def test_paths_of_items_with_lengths_ignore_the_rest():
    cost = torch.rand(2, 30, 20)
    cost[1, 12:] = torch.nan
    cost[1, :, 7:] = torch.nan
    lengths = {"x_lengths": torch.tensor([30, 12]), "y_lengths": torch.tensor([20, 7])}
    paths = dalign.dtw_path(cost, metric="precomputed", **lengths)
    assert torch.equal(paths[1], dalign.dtw_path(cost[1:, :12, :7], metric="precomputed")[0])
    assert torch.equal(paths[0], dalign.dtw_path(cost[:1], metric="precomputed")[0])


@pytest.mark.parametrize("shape", [(10, 10), (30, 17), (17, 30), (2, 9), (1, 5), (5, 1)])
@pytest.mark.parametrize("slope", [1, 1.5, 2.0, 4])
def test_itakura(slope, shape):
    cost = torch.rand(1, *shape, dtype=torch.float64)
    expected, _ = reference.dtw(cost[0].numpy(), itakura=slope)
    np.testing.assert_allclose(functional.dtw(cost, itakura=slope).item(), expected, rtol=1e-12)
    path = dalign.dtw_path(cost, metric="precomputed", itakura=slope)[0]
    if expected < INF:
        assert reference.itakura_mask(*shape, slope)[tuple(path.T.numpy())].all()


def test_equally_good_paths_take_the_longer_steps():
    path = dalign.dtw_path(torch.zeros(1, 4, 6), metric="precomputed")[0]
    assert path.tolist() == [[0, 0], [0, 1], [0, 2], [1, 3], [2, 4], [3, 5]]


def test_subsequence_finds_the_part():
    y = torch.rand(1, 300, 4)
    x = y[:, 120:180]
    assert dalign.dtw(x, y, subsequence=True).item() == 0
    path = dalign.dtw_path(x, y, subsequence=True)[0]
    assert path[:, 1].tolist() == list(range(120, 180))


def test_precomputed_and_callable_metrics():
    x, y = frames("manhattan", 2, 20, 30, 3, torch.float64)
    direct = dalign.dtw(x, y, "manhattan")
    torch.testing.assert_close(dalign.dtw(dalign.pairwise(x, y, "manhattan"), metric="precomputed"), direct)
    torch.testing.assert_close(dalign.dtw(x, y, lambda a, b: torch.cdist(a, b, p=1)), direct)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types_are_computed_in_float32(dtype):
    x, y = torch.rand(1, 10, 3).to(dtype), torch.rand(1, 12, 3).to(dtype)
    assert torch.equal(dalign.dtw(x, y), dalign.dtw(x.float(), y.float()))


# ---------------------------------------------------------------- edges


@pytest.mark.parametrize("dtype", DTYPES)
def test_no_path_left(dtype):
    cost = torch.rand(2, 5, 6, dtype=dtype)
    cost[0, 2] = INF
    cost.requires_grad_()
    value = functional.dtw(cost)
    assert value[0] == INF
    value.sum().backward()
    assert (cost.grad[0] == 0).all()
    assert cost.grad[1].sum() > 0
    assert dalign.dtw_path(cost.detach(), metric="precomputed")[0].shape == (0, 2)


@pytest.mark.parametrize("bad", [float("nan"), -INF])
def test_nan_stays_in_its_item(bad):
    x, y = torch.rand(3, 20, 2), torch.rand(3, 25, 2)
    x[1, 3, 0] = bad
    if bad == -INF:
        x, y = dalign.pairwise(x, y).nan_to_num(), None
        x[1, 3, 4] = bad
    x.requires_grad_()
    lengths = {"x_lengths": torch.tensor([20, 15, 20])}
    value = dalign.dtw(x, y, "sqeuclidean" if y is not None else "precomputed", **lengths)
    assert value.isnan().tolist() == [False, True, False]
    value.sum().backward()
    assert x.grad[1, :15].isnan().all()
    assert (x.grad[1, 15:] == 0).all()
    assert x.grad[[0, 2]].isfinite().all()


def test_blocked_cells_and_steps():
    cost = torch.rand(1, 6, 6, dtype=torch.float64)
    cost[0, 2, 2] = INF
    expected, _ = reference.dtw(cost[0].numpy())
    assert functional.dtw(cost).item() == pytest.approx(expected, rel=1e-12)
    assert functional.dtw(cost, step_weights=(INF, INF, 1)).item() == INF
    zero_weight = functional.dtw(cost, step_weights=(0, 0, 1)).item()
    assert zero_weight == pytest.approx(reference.dtw(cost[0].numpy(), weights=(0, 0, 1))[0], rel=1e-12)


def test_empty_batch():
    assert dalign.dtw(torch.zeros(0, 3, 2), torch.zeros(0, 4, 2)).shape == (0,)
    assert dalign.dtw_path(torch.zeros(0, 3, 2), torch.zeros(0, 4, 2)) == []


def test_non_contiguous_input():
    x, y = torch.rand(4, 30, 3).transpose(0, 1)[:, ::2], torch.rand(30, 25, 3)[:, ::2]
    assert torch.equal(dalign.dtw(x, y), dalign.dtw(x.contiguous(), y.contiguous()))


def test_long_pairs_keep_their_digits():
    x, y = torch.rand(1, 6000, 2), torch.rand(1, 5000, 2)
    exact = dalign.dtw(x.double(), y.double())
    torch.testing.assert_close(dalign.dtw(x, y).double(), exact, rtol=2e-6, atol=0)


# ---------------------------------------------------------------- gradients


@pytest.mark.parametrize("metric", METRICS)
def test_gradcheck_of_features(metric):
    x, y = frames(metric, 2, 7, 9, 3, torch.float64)
    x.requires_grad_()
    if metric not in ("nll", "bce"):
        y.requires_grad_()
    lengths = {"x_lengths": torch.tensor([7, 5]), "y_lengths": torch.tensor([8, 9])}
    assert gradcheck(lambda a, b: dalign.dtw(a, b, metric, steps="1-1-2", **lengths), (x, y))


def test_gradcheck_of_costs():
    cost = torch.rand(2, 6, 8, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda c: functional.dtw(c, steps=((1, 1), (2, 1), (1, 2)), subsequence=True), (cost,))


def test_gradient_of_costs_is_the_path():
    cost = torch.rand(1, 20, 30, requires_grad=True)
    functional.dtw(cost).backward()
    path = dalign.dtw_path(cost.detach(), metric="precomputed")[0]
    on_path = torch.zeros(20, 30)
    on_path[tuple(path.T)] = 1
    assert torch.equal(cost.grad[0], on_path)


def test_second_derivative_is_refused():
    x = torch.rand(1, 5, 2, requires_grad=True)
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(dalign.dtw(x, torch.rand(1, 4, 2)).sum(), x, create_graph=True)


# ---------------------------------------------------------------- threads, compilation


@pytest.mark.parametrize("shape", [(9, 60, 70), (1, 700, 900), (3, 500, 400)])
def test_threads_give_the_same_bits(shape):
    batch, n, m = shape
    x, y = torch.rand(batch, n, 5), torch.rand(batch, m, 5)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            results.append((dalign.dtw(x, y), dalign.dtw_path(x, y)))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(results[0][0], results[1][0])
    assert all(torch.equal(a, b) for a, b in zip(results[0][1], results[1][1], strict=True))


ONE_PROCESS = """
import json, torch, torch_dalign as dalign
from torch_dalign import functional
torch.manual_seed(0)
found = []
for n, m in ((1, 1), (50, 7), (66, 131), (140, 60)):
    for dtype in (torch.float32, torch.float64):
        cost = torch.rand(1, n, m).to(dtype)
        for options in ({}, {"steps": "2-1", "subsequence": True}, {"band": 4, "steps": "symmetric2"}):
            path = dalign.dtw_path(cost, metric="precomputed", **options)[0]
            found.append([functional.dtw(cost, **options).item(), path.tolist()])
print(json.dumps([dalign.build_info()["isa"], found]))
"""


def run_on(level: str) -> list:
    """What a process prints that is told to use an instruction set."""
    environment = {**os.environ, "DALIGN_ISA": level}
    done = subprocess.run([sys.executable, "-c", ONE_PROCESS], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    isa, found = json.loads(done.stdout)
    assert isa == level
    return found


@pytest.mark.parametrize("level", dalign.build_info()["isa_levels"])
def test_every_instruction_set_finds_the_same_paths(level):
    torch.manual_seed(0)
    found = iter(run_on(level))
    for n, m in ((1, 1), (50, 7), (66, 131), (140, 60)):
        for dtype in DTYPES:
            cost = torch.rand(1, n, m)[0].double().numpy()
            for steps, weights, ends, band in (
                (*STEP_PATTERNS["symmetric1"], False, None),
                (*STEP_PATTERNS["2-1"], True, None),
                (*STEP_PATTERNS["symmetric2"], False, 4),
            ):
                value, path = next(found)
                expected, best = reference.dtw(cost, steps, weights, band, None, ends, ends)
                np.testing.assert_allclose(value, expected, **tolerance(dtype))
                if dtype == torch.float64 or n * m < 10000:  # in float32 another path may be as good
                    assert path == best.tolist()


def op_inputs(dtype: torch.dtype) -> dict[str, tuple]:
    x, y, cost = torch.rand(2, 5, 3, dtype=dtype), torch.rand(2, 4, 3, dtype=dtype), torch.rand(2, 5, 4, dtype=dtype)
    lengths = torch.tensor([5, 3]), torch.tensor([4, 4])
    options = ([1, 0, 0, 1, 1, 1], [1.0, 1.0, 2.0], 2.0, 0.0, False, True)
    items = torch.tensor([0, 1, 1]), torch.tensor([1, 1, 0])
    return {
        "dtw": (cost, *lengths, *options, True),
        "dtw_features": (x, y, "manhattan", *lengths, *options, True),
        "dtw_pairs": (x, y, "sqeuclidean", *items, *lengths, *options, INF),
    }


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", list(op_inputs(torch.float32)))
def test_opcheck(name, dtype):
    op = getattr(torch.ops.dalign, name).default
    args = op_inputs(dtype)[name]
    for need_path in (True, False) if isinstance(args[-1], bool) else (None,):
        torch.library.opcheck(op, args if need_path is None else (*args[:-1], need_path))


def test_compiles_whole():
    x, y = torch.rand(2, 30, 3, requires_grad=True), torch.rand(2, 25, 3)

    def step(x, y):
        return dalign.dtw(x, y, steps="symmetric2", band=5).sum()

    compiled = torch.compile(step, fullgraph=True)
    (expected,) = torch.autograd.grad(step(x, y), x)
    (got,) = torch.autograd.grad(compiled(x, y), x)
    torch.testing.assert_close(got, expected)


# ---------------------------------------------------------------- properties


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_any_lattice(data):
    n, m = data.draw(st.integers(1, 90)), data.draw(st.integers(1, 90))
    name = data.draw(st.sampled_from(sorted(STEP_SETS)))
    steps, weights = STEP_SETS[name]
    dtype = data.draw(st.sampled_from(DTYPES))
    options = {
        "band": data.draw(st.none() | st.integers(1, 20) | st.floats(0.5, 30)),
        "itakura": data.draw(st.none() | st.floats(1, 6)),
        "open_begin": data.draw(st.booleans()),
        "open_end": data.draw(st.booleans()),
    }
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    lattice = rng.random((n, m)).astype(np.float32).astype(np.float64)
    lattice[rng.random((n, m)) < data.draw(st.sampled_from([0, 0.05, 0.4]))] = np.inf
    cost = torch.tensor(lattice, dtype=dtype)[None]
    expected, _ = reference.dtw(lattice, steps, weights, **options)
    value = functional.dtw(cost, steps=steps, step_weights=weights, **options).item()
    np.testing.assert_allclose(value, expected, **tolerance(dtype))
    path = dalign.dtw_path(cost, metric="precomputed", steps=steps, step_weights=weights, **options)[0].numpy()
    assert len(path) == 0 if expected == np.inf else len(path) <= n + m - 1
    if expected < np.inf:
        allowed = reference.allowed(lattice, options["band"], options["itakura"])
        np.testing.assert_allclose(reference.path_cost(allowed, path, steps, weights), expected, **tolerance(dtype))


# ---------------------------------------------------------------- misuse


MISUSE = {
    "band": (lambda c: functional.dtw(c, band=0), ValueError, "band"),
    "itakura below 1": (lambda c: functional.dtw(c, itakura=0.5), ValueError, "itakura"),
    "itakura of another type": (lambda c: functional.dtw(c, itakura="wide"), TypeError, "itakura"),
    "unknown steps": (lambda c: functional.dtw(c, steps="sideways"), ValueError, "symmetric1"),
    "steps of another type": (lambda c: functional.dtw(c, steps=3), TypeError, "steps"),
    "fractional steps": (lambda c: functional.dtw(c, steps=((0.5, 1),)), TypeError, "steps"),
    "no step": (lambda c: functional.dtw(c, steps=()), ValueError, "steps"),
    "steps too far": (lambda c: functional.dtw(c, steps=((5, 1),)), ValueError, "steps"),
    "a step that stands still": (lambda c: functional.dtw(c, steps=((0, 0),)), ValueError, "steps"),
    "steps backwards": (lambda c: functional.dtw(c, steps=((1, -1),)), ValueError, "steps"),
    "too many steps": (lambda c: functional.dtw(c, steps=((1, 1),) * 17), ValueError, "steps"),
    "too few weights": (lambda c: functional.dtw(c, step_weights=(1, 1)), ValueError, "step_weights"),
    "a negative weight": (lambda c: functional.dtw(c, step_weights=(1, -1, 1)), ValueError, "step_weights"),
    "weights of another type": (lambda c: functional.dtw(c, step_weights="111"), TypeError, "step_weights"),
    "every step blocked": (lambda c: functional.dtw(c, step_weights=(INF,) * 3), ValueError, "step_weights"),
    "two dimensions": (lambda c: functional.dtw(c[0]), ValueError, "cost"),
    "integers": (lambda c: functional.dtw(c.long()), TypeError, "cost"),
    "lengths": (lambda c: functional.dtw(c, x_lengths=torch.tensor([9, 1])), ValueError, "x_lengths"),
    "y missing": (lambda c: dalign.dtw(c), TypeError, "y is missing"),
    "y beside costs": (lambda c: dalign.dtw(c, c, "precomputed"), ValueError, "y must be left out"),
    "metric": (lambda c: dalign.dtw(c, c, "hamming"), ValueError, "metric"),
    "depths": (lambda c: dalign.dtw(c, c[..., :2]), ValueError, "features"),
}


@pytest.mark.parametrize("what", MISUSE)
def test_misuse(what):
    call, error, names = MISUSE[what]
    with pytest.raises(error, match=names):
        call(torch.rand(2, 5, 4))


@pytest.mark.parametrize(
    ("steps", "weights"), [([1, 1, 1], [1.0]), ([], []), ([1, 1] * 17, [1.0] * 17), ([1, 1], [1.0, 1.0])]
)
def test_the_op_refuses_odd_steps(steps, weights):
    with pytest.raises(RuntimeError, match="steps must be"):
        torch.ops.dalign.dtw(torch.rand(1, 3, 3), None, None, steps, weights, -1.0, 0.0, False, False, True)


@pytest.mark.parametrize(
    "options", [([5, 1], [1.0], -1.0, 0.0), ([1, 1], [-1.0], -1.0, 0.0), ([1, 1], [1.0], 0.1, 0.0)]
)
def test_the_op_refuses_odd_numbers(options):
    with pytest.raises(RuntimeError, match="refused its arguments"):
        torch.ops.dalign.dtw(torch.rand(1, 3, 3), None, None, *options, False, False, True)


def test_the_pairs_op_refuses_odd_items():
    x = torch.rand(2, 3, 1)
    options = (None, None, [1, 1], [1.0], -1.0, 0.0, False, False, INF)
    for x_items, y_items in itertools.product(([0], [2], [-1]), repeat=2):
        if x_items == y_items == [0]:
            continue
        with pytest.raises(RuntimeError, match="_items"):
            torch.ops.dalign.dtw_pairs(x, x, "cosine", torch.tensor(x_items), torch.tensor(y_items), *options)
