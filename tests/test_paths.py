"""Losses of given paths, expected times, and sampling, against the reference and against lists of all paths."""

from __future__ import annotations

import copy
import math
import pickle
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import cost as reference_cost
from reference import dtw as reference_dtw
from reference import paths as reference
from reference import softdtw as reference_soft
from scipy import stats
from torch import nn
from torch.autograd import gradcheck, gradgradcheck

import torch_dalign as dalign
from torch_dalign import functional
from torch_dalign.dtw import STEP_PATTERNS

INF = math.inf
DTYPES = (torch.float32, torch.float64)
METRICS = ("sqeuclidean", "euclidean", "manhattan", "cosine", "nll", "bce")
STEPS = ((1, 0), (0, 1), (1, 1))


def frames(metric, batch, n, m, d, dtype=torch.float64):
    x, y = torch.rand(batch, n, d, dtype=dtype), torch.rand(batch, m, d, dtype=dtype)
    if metric == "nll":
        return x.log_softmax(2), torch.randint(d, (batch, m))
    return (x * 0.9 + 0.05, (y > 0.5).to(dtype)) if metric == "bce" else (x, y)


def random_path(n, m):
    """A path from corner to corner."""
    cells = [(0, 0)]
    while cells[-1] != (n - 1, m - 1):
        i, j = cells[-1]
        open_steps = [(a, b) for a, b in STEPS if i + a < n and j + b < m]
        a, b = open_steps[int(torch.randint(len(open_steps), ()))]
        cells.append((i + a, j + b))
    return torch.tensor(cells)


def pad(paths, value=-1):
    return nn.utils.rnn.pad_sequence(paths, batch_first=True, padding_value=value)


def all_paths(n, m):
    return [torch.tensor(cells) for cells, _ in reference_soft.enumerate_paths(n, m)]


def tolerance(dtype):
    return {"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 1e-12, "atol": 1e-12}


# ---------------------------------------------------------------- cost along a path


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("metric", METRICS)
def test_path_cost_against_the_reference(metric, dtype):
    x, y = frames(metric, 3, 12, 17, 5, dtype)
    sizes = [(12, 17), (1, 9), (7, 1)]
    paths = [random_path(n, m) for n, m in sizes]
    lengths = {"x_lengths": torch.tensor([12, 1, 7]), "y_lengths": torch.tensor([17, 9, 1])}
    values = dalign.PathCost(metric, reduction="none")(x, y, paths, **lengths)
    assert values.dtype == dtype
    for b, (n, m) in enumerate(sizes):
        lattice = reference_cost.pairwise(x[b, :n].numpy(), y[b, :m].numpy(), metric)
        np.testing.assert_allclose(
            values[b].item(), reference_dtw.path_cost(lattice, paths[b].numpy()), **tolerance(dtype)
        )


def test_all_forms_of_paths_agree():
    x, y = frames("manhattan", 3, 9, 8, 4)
    paths = [random_path(9, 8) for _ in range(3)]
    own = torch.tensor([len(path) for path in paths])
    loss = dalign.PathCost("manhattan", reduction="none")
    expected = loss(x, y, paths)
    for form in (tuple(paths), pad(paths), [path.int() for path in paths], pad(paths).short()):
        assert torch.equal(loss(x, y, form), expected)
    assert torch.equal(loss(x, y, [path.to(torch.uint8) for path in paths]), expected)
    assert torch.equal(loss(x, y, pad(paths, 1000), path_lengths=own), expected)
    shared = loss(x, y, paths[0])
    assert torch.equal(shared, loss(x, y, [paths[0]] * 3))
    assert torch.equal(dalign.PathCost("manhattan")(x, y, paths), expected.mean())
    assert torch.equal(dalign.PathCost("manhattan", "sum")(x, y, paths), expected.sum())


@pytest.mark.parametrize("name", STEP_PATTERNS)
def test_along_the_best_path_it_is_dtw(name):
    x, y = (torch.rand(4, n, 3, dtype=torch.float64, requires_grad=True) for n in (20, 23))
    options = {"steps": name, "x_lengths": torch.tensor([20, 14, 9, 20]), "y_lengths": torch.tensor([23, 12, 11, 17])}
    paths = dalign.dtw_path(x, y, **options)
    kept = [b for b, path in enumerate(paths) if len(path)]
    assert len(kept) >= 3
    sides = {key: value[kept] for key, value in options.items() if key != "steps"}
    loss = dalign.PathCost(steps=name, reduction="none")
    along = loss(x[kept], y[kept], [paths[b] for b in kept], **sides)
    best = dalign.dtw(x, y, **options)[kept]
    torch.testing.assert_close(along, best)
    grads = (torch.autograd.grad(value.sum(), (x, y)) for value in (along, best))
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize("metric", METRICS)
def test_conventions_are_those_of_pairwise(metric):
    # zero frames, equal frames, probabilities 0 and 1, each against each
    rows = torch.tensor([[0.0, 0.0], [1.0, 1.0], [0.0, 1.0], [0.3, 0.6], [1e-30, 1.0]])
    x = rows[None].clone().requires_grad_()
    y = torch.tensor([[0, 1, 1, 0, 1]]) if metric == "nll" else rows[None].clone().requires_grad_(metric != "bce")
    weights, inputs = torch.rand(5, 5), [t for t in (x, y) if t.requires_grad]
    lattice = dalign.pairwise(x, y, metric)[0]
    pairs = [torch.tensor([[i, j]]) for i in range(5) for j in range(5)]
    cells = dalign.PathCost(metric, "none")(x.expand(25, -1, -1), y.expand(25, *y.shape[1:]), pairs).view(5, 5)
    torch.testing.assert_close(cells, lattice)
    expected = torch.autograd.grad((lattice * weights).sum(), inputs)
    torch.testing.assert_close(torch.autograd.grad((cells * weights).sum(), inputs), expected)


def test_step_weights_and_their_gradient():
    cost = torch.rand(1, 4, 4, dtype=torch.float64, requires_grad=True)
    path = torch.tensor([[0, 0], [1, 0], [2, 1], [2, 2], [3, 3]])
    value = functional.path_cost(cost, path, step_weights=(0.5, 3.0, 2.0))
    value.sum().backward()
    weights = torch.zeros(4, 4, dtype=torch.float64)
    weights[path[:, 0], path[:, 1]] = torch.tensor([1.0, 0.5, 2.0, 3.0, 2.0], dtype=torch.float64)
    assert torch.equal(cost.grad[0], weights)
    torch.testing.assert_close(value[0], (cost[0] * weights).sum())


def test_named_callable_and_precomputed_agree():
    x, y = frames("manhattan", 2, 8, 6, 3)
    path = random_path(8, 6)
    named = dalign.PathCost("manhattan")(x, y, path)
    torch.testing.assert_close(dalign.PathCost(lambda a, b: torch.cdist(a, b, p=1))(x, y, path), named)
    torch.testing.assert_close(dalign.PathCost("precomputed")(dalign.pairwise(x, y, "manhattan"), path=path), named)


@pytest.mark.parametrize("metric", METRICS)
def test_path_cost_gradients(metric):
    x, y = frames(metric, 2, 5, 4, 3)
    y = torch.rand_like(y) if metric == "bce" else y
    inputs = [t.requires_grad_(t.is_floating_point()) for t in (x, y)]
    loss, paths = dalign.PathCost(metric, "sum"), [random_path(5, 4), random_path(3, 4)]
    assert gradcheck(lambda x, y: loss(x, y, paths), inputs)
    assert gradgradcheck(lambda x, y: loss(x, y, paths), inputs)


def test_no_lattice_is_made():
    n = 60_000  # a lattice would take 14 GB
    x, y = torch.rand(1, n, 1, requires_grad=True), torch.rand(1, n, 1)
    value = dalign.PathCost(breakpoints=True)(x, y, torch.tensor([[0, 0], [n - 1, n - 1]]))
    torch.testing.assert_close(value, (x - y).square().sum())
    value.backward()
    torch.testing.assert_close(x.grad, 2 * (x.detach() - y))


@pytest.mark.parametrize("loss", [dalign.PathCost(reduction="sum"), dalign.PathNLL(reduction="sum")], ids=repr)
def test_padding_is_never_read(loss):
    x, y = (torch.rand(2, n, 3, dtype=torch.float64) for n in (9, 8))
    paths = [random_path(9, 8), random_path(4, 5)]
    lengths = {"x_lengths": torch.tensor([9, 4]), "y_lengths": torch.tensor([8, 5])}
    expected = loss(x[:1], y[:1], paths[:1]) + loss(x[1:, :4], y[1:, :5], paths[1:])
    x[1, 4:], y[1, 5:] = torch.nan, INF
    x.requires_grad_()
    value = loss(x, y, paths, **lengths)
    torch.testing.assert_close(value, expected)
    value.backward()
    assert not x.grad[1, 4:].any()
    assert x.grad.isfinite().all()


def test_blocked_and_invalid_cells():
    cost = torch.rand(3, 3, 3, requires_grad=True)
    with torch.no_grad():
        cost[0, 1, 1], cost[1, 1, 1], cost[2, 0, 2] = INF, torch.nan, torch.nan
    value = functional.path_cost(cost, torch.tensor([[0, 0], [1, 1], [2, 2]]))
    assert value[0] == INF
    assert value[1].isnan()
    assert value[2].isfinite()
    value.sum().backward()
    assert not cost.grad[0].any()
    assert torch.equal(cost.grad[2], torch.eye(3))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types_are_computed_in_float32(dtype):
    x, y, path = torch.rand(1, 6, 3).to(dtype), torch.rand(1, 5, 3).to(dtype), random_path(6, 5)
    for loss in (dalign.PathCost(), dalign.PathNLL()):
        assert torch.equal(loss(x, y, path), loss(x.float(), y.float(), path))


def test_empty_batch_and_strides():
    x, y, path = torch.rand(7, 2, 3).mT.mT.transpose(0, 1), torch.rand(2, 3, 6).mT, random_path(7, 6)
    for loss in (dalign.PathCost(reduction="none"), dalign.PathNLL(reduction="none")):
        assert torch.equal(loss(x, y, path), loss(x.contiguous(), y.contiguous(), path))
        assert loss(x[:0], y[:0], []).shape == (0,)
        assert loss(x[:0], y[:0], path).shape == (0,)


# ---------------------------------------------------------------- lines between anchors


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_lines_visit_the_cells_of_the_reference(data):
    n, m = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 40))
    count = data.draw(st.integers(1, 6))
    eighths = st.integers(0, 8)
    coordinates = [
        sorted(
            min(size - 1, i * (size - 1) / 8 + data.draw(eighths) / 8) for i in data.draw(st.tuples(*[eighths] * count))
        )
        for size in (n, m)
    ]
    anchors = list(zip(*coordinates, strict=True))
    cells = reference.line_cells(anchors)
    cost = torch.rand(1, n, m, dtype=torch.float64, requires_grad=True)
    functional.path_cost(cost, torch.tensor(anchors, dtype=torch.float64), breakpoints=True).sum().backward()
    expected = torch.zeros(n, m, dtype=torch.float64)
    for cell in cells:
        expected[cell] += 1
    assert torch.equal(cost.grad[0], expected)


def test_which_cells_a_line_visits():
    cost = torch.zeros(1, 4, 7, requires_grad=True)
    functional.path_cost(cost, torch.tensor([[0, 0], [3, 6]]), breakpoints=True).sum().backward()
    # columns 0 ... 6 once each; rows j / 2, halves up
    assert cost.grad[0].nonzero().tolist() == [[0, 0], [1, 1], [1, 2], [2, 3], [2, 4], [3, 5], [3, 6]]


def test_anchors_of_a_batch():
    cost = torch.rand(2, 6, 6, dtype=torch.float64)
    anchors = [torch.tensor([[0.0, 0.0], [2.4, 2.6], [5.0, 5.0]]), torch.tensor([[0, 0], [5, 5], [5, 5]])]
    lists = functional.path_cost(cost, anchors, breakpoints=True)
    cells = [torch.tensor(reference.line_cells(a.tolist())) for a in anchors]
    torch.testing.assert_close(lists, functional.path_cost(cost, cells))
    padded = pad([a.double() for a in anchors], -1.0)
    assert torch.equal(functional.path_cost(cost, padded, breakpoints=True), lists)
    shorter = functional.path_cost(
        cost, pad([a.double() for a in anchors]), path_lengths=torch.tensor([2, 2]), breakpoints=True
    )
    torch.testing.assert_close(shorter[0], functional.path_cost(cost[:1], cells[0][:4])[0])
    nll = functional.path_nll(cost, anchors, breakpoints=True)
    torch.testing.assert_close(nll, functional.path_nll(cost, cells))


# ---------------------------------------------------------------- likelihood of a path


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("shape", "weights", "band"),
    [((4, 5), None, None), ((4, 4), (1.0, 0.3, 2.0), None), ((5, 3), None, 1), ((1, 4), (2.0, 0.5, 1.0), None)],
)
def test_nll_of_every_path(shape, weights, band, dtype):
    cost = torch.rand(1, *shape, dtype=dtype)
    paths = all_paths(*shape)
    options = {"step_weights": weights, "band": band}
    nll = functional.path_nll(cost.expand(len(paths), -1, -1), paths, 0.4, **options)
    torch.testing.assert_close((-nll).exp().sum(), torch.ones((), dtype=dtype))
    assert (nll > -1e-5).all()
    mask = reference_soft.band_mask(*shape, band)
    for path, value in zip(paths, nll, strict=True):
        inside = mask[tuple(path.T.numpy())].all()
        expected = (
            reference.path_nll(cost[0].numpy(), path.numpy(), 0.4, weights or (1.0,) * 3, band) if inside else INF
        )
        np.testing.assert_allclose(value.item(), expected, rtol=1e-4 if dtype == torch.float32 else 1e-11)


def test_nll_gradient_is_path_minus_alignment():
    cost = torch.rand(2, 6, 5, dtype=torch.float64, requires_grad=True)
    gamma = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    paths = [random_path(6, 5), random_path(4, 4)]
    lengths = {"x_lengths": torch.tensor([6, 4]), "y_lengths": torch.tensor([5, 4])}
    nll = functional.path_nll(cost, paths, gamma, **lengths)
    grad_cost, grad_gamma = torch.autograd.grad(nll.sum(), (cost, gamma))
    visits = torch.zeros_like(cost)
    for b, path in enumerate(paths):
        visits[b, path[:, 0], path[:, 1]] = 1
    expected = (visits - functional.alignment(cost, gamma, **lengths)) / gamma
    torch.testing.assert_close(grad_cost, expected)
    # d nll / d gamma = -(<path, C> - <H, C>) / gamma^2
    torch.testing.assert_close(grad_gamma, -(expected * cost).sum() / gamma)


@pytest.mark.parametrize("metric", METRICS)
def test_nll_gradients(metric):
    x, y = frames(metric, 2, 4, 5, 3)
    y = torch.rand_like(y) if metric == "bce" else y
    gamma = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    inputs = [*(t.requires_grad_(t.is_floating_point()) for t in (x, y)), gamma]
    paths = [random_path(4, 5) for _ in range(2)]

    def loss(x, y, gamma):
        return dalign.PathNLL(gamma, metric, step_weights=(1.0, 0.5, 2.0), reduction="sum")(x, y, paths)

    assert gradcheck(loss, inputs)
    assert gradgradcheck(loss, inputs)


def test_paths_of_probability_zero_have_no_gradient():
    cost = torch.rand(3, 4, 4, dtype=torch.float64)
    cost[1, 1, 1] = INF
    cost.requires_grad_()
    around = torch.tensor([[0, 0], [0, 1], [0, 2], [0, 3], [1, 3], [2, 3], [3, 3]])
    diagonal = torch.arange(4)[:, None].expand(-1, 2)
    nll = functional.path_nll(cost, [around, diagonal, diagonal], band=1)
    assert nll.tolist()[:2] == [INF, INF]
    assert nll[2].isfinite()
    nll.sum().backward()
    assert cost.grad.isfinite().all()
    assert not cost.grad[:2].any()
    assert cost.grad[2].any()
    assert functional.path_nll(cost, diagonal, step_weights=(1, 1, INF)).tolist() == [INF] * 3


def test_an_item_with_a_nan_gives_nan():
    cost = torch.rand(2, 3, 3)
    cost[0, 0, 2] = torch.nan  # not on the path
    nll = functional.path_nll(cost, torch.tensor([[0, 0], [1, 1], [2, 2]]))
    assert nll[0].isnan()
    assert nll[1].isfinite()


def test_the_likelihood_is_best_at_the_temperature_of_the_paths():
    cost = torch.rand(1, 4, 4, dtype=torch.float64)
    paths, own = dalign.sample_paths(cost, 4000, 0.2, generator=torch.Generator().manual_seed(1), padded=True)
    loss = dalign.PathNLL(nn.Parameter(torch.tensor(1.0, dtype=torch.float64)), "precomputed")
    slopes = []
    for gamma in (0.05, 0.18, 0.22, 1.0):
        loss.gamma.data.fill_(gamma)
        value = loss(cost.expand(4000, -1, -1), path=paths[0], path_lengths=own[0])
        slopes += torch.autograd.grad(value, loss.gamma)
    assert [slope.sign().item() for slope in slopes] == [-1, -1, 1, 1]


def test_training_with_the_likelihood_recovers_the_path():
    # the path cost alone has a trivial optimum, all features equal, where every path is equally likely
    truth = torch.tensor([[0, 0], [1, 0], [2, 1], [3, 2], [3, 3], [4, 4]])
    x, y = (torch.randn(1, 5, 2, dtype=torch.float64).requires_grad_() for _ in range(2))
    loss = dalign.PathNLL(gamma=0.5)
    optimizer = torch.optim.Adam([x, y], lr=0.05)
    for _ in range(200):
        optimizer.zero_grad()
        loss(x, y, truth).backward()
        optimizer.step()
    assert torch.equal(dalign.dtw_path(x, y)[0], truth)
    assert loss(x, y, truth) < 0.1


# ---------------------------------------------------------------- modules


def test_compiles_whole():
    torch._dynamo.reset()
    x, y = torch.rand(2, 12, 3, requires_grad=True), torch.rand(2, 9, 3)
    paths = pad([random_path(12, 9), random_path(12, 9)])
    anchors = torch.tensor([[0.0, 0.0], [4.5, 3.0], [11.0, 8.0]])
    likelihood, along = dalign.PathNLL(0.3), dalign.PathCost(breakpoints=True)

    def step(x, y, paths, anchors):
        return likelihood(x, y, paths) + along(x, y, anchors)

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    (expected,) = torch.autograd.grad(step(x, y, paths, anchors), x)
    (got,) = torch.autograd.grad(compiled(x, y, paths, anchors), x)
    torch.testing.assert_close(got, expected)
    torch._dynamo.reset()


def test_a_compiled_step_gives_nan_for_a_wrong_path():
    torch._dynamo.reset()
    cost = torch.rand(3, 4, 4)
    jumps, leaves = torch.tensor([[0, 0], [2, 2], [3, 3]]), torch.tensor([[0, 0], [1, 1], [1, 9]])
    fine = torch.tensor([[0, 0], [1, 1], [2, 2]])
    compiled = torch.compile(functional.path_cost, fullgraph=True, backend="aot_eager")
    values = compiled(cost, torch.stack((jumps, leaves, fine)))
    assert values.isnan().tolist() == [True, True, False]
    torch._dynamo.reset()


def test_modules_print_copy_and_pickle():
    likelihood = dalign.PathNLL(0.5, "cosine", band=3, step_weights=(1, 1, 2), reduction="sum", breakpoints=True)
    assert repr(likelihood) == (
        "PathNLL(gamma=0.5, metric='cosine', reduction='sum', breakpoints=True, band=3, step_weights=(1, 1, 2))"
    )
    assert repr(dalign.PathCost(steps="2-1")) == "PathCost(metric='sqeuclidean', steps='2-1')"
    assert not likelihood.state_dict()
    x, y, path = torch.rand(1, 5, 2), torch.rand(1, 5, 2), torch.tensor([[0, 0], [4, 4]])
    for twin in (copy.deepcopy(likelihood), pickle.loads(pickle.dumps(likelihood))):
        assert torch.equal(twin(x, y, path), likelihood(x, y, path))


# ---------------------------------------------------------------- expected times


def test_expected_warp_against_the_reference():
    alignment = torch.rand(2, 6, 5, dtype=torch.float64)
    times = torch.rand(2, 5, dtype=torch.float64)
    mean, deviation = dalign.expected_warp(alignment, times)
    for b in range(2):
        expected = reference.expected_warp(alignment[b].numpy(), times[b].numpy())
        np.testing.assert_allclose(mean[b], expected[0], rtol=1e-12)
        np.testing.assert_allclose(deviation[b], expected[1], rtol=1e-12)
    frames_of_y = dalign.expected_warp(alignment)
    torch.testing.assert_close(frames_of_y, dalign.expected_warp(alignment, torch.arange(5.0)))


def test_expected_warp_gradients():
    alignment = torch.rand(2, 4, 5, dtype=torch.float64, requires_grad=True)
    times = torch.rand(5, dtype=torch.float64, requires_grad=True)
    lengths = {"x_lengths": torch.tensor([4, 2]), "y_lengths": torch.tensor([5, 3])}
    assert gradcheck(lambda a, t: dalign.expected_warp(a, t), (alignment, times))
    assert gradgradcheck(lambda a, t: dalign.expected_warp(a, t), (alignment, times))

    def within(a, t):
        warp = dalign.expected_warp(a, t, **lengths)
        return warp.mean[0], warp.mean[1, :2], warp.deviation[1, :2]

    assert gradcheck(within, (alignment, times))


def test_expected_warp_through_soft_dtw():
    x, y = (torch.rand(1, n, 2, dtype=torch.float64, requires_grad=True) for n in (5, 4))
    loss = dalign.SoftDTW(0.5)
    assert gradcheck(lambda x, y: dalign.expected_warp(loss.alignment(x, y)), (x, y))


def test_expected_warp_beyond_lengths_and_without_mass():
    alignment = torch.rand(2, 4, 3, dtype=torch.float64)
    expected = dalign.expected_warp(alignment[1:, :2, :2])
    alignment[1, 2:], alignment[1, :, 2], alignment[0, 1] = torch.nan, torch.nan, 0
    alignment.requires_grad_()
    times = torch.tensor([[0.0, 1.0, 2.0], [0.0, 1.0, torch.nan]])
    lengths = {"x_lengths": torch.tensor([4, 2]), "y_lengths": torch.tensor([3, 2])}
    warp = dalign.expected_warp(alignment, times, **lengths)
    for got, want in zip(warp, expected, strict=True):
        torch.testing.assert_close(got[1], want[0, [0, 1, 1, 1]])
        assert got[0].isnan().tolist() == [False, True, False, False]
    (warp.mean.nansum() + warp.deviation.nansum()).backward()
    assert alignment.grad.isfinite().all()
    assert not alignment.grad[1, 2:].any()
    assert not alignment.grad[0, 1].any()


def test_a_sharp_alignment_has_no_deviation_and_no_gradient_there():
    alignment = torch.eye(4, requires_grad=True)[None]
    mean, deviation = dalign.expected_warp(alignment, torch.tensor([0.0, 0.5, 1.0, 4.0]))
    assert mean.tolist() == [[0.0, 0.5, 1.0, 4.0]]
    assert not deviation.any()
    (grad,) = torch.autograd.grad(deviation.sum(), alignment)
    assert not grad.any()


# ---------------------------------------------------------------- sampling


@pytest.mark.parametrize(
    ("shape", "weights", "band", "gamma"),
    [
        ((3, 3), None, None, 0.5),
        ((4, 3), (1.0, 0.5, 2.0), None, 0.3),
        ((4, 4), None, 1, 1.0),
        ((2, 5), (1.0, 1.0, 0.0), None, 0.2),
    ],
)
def test_samples_have_the_exact_probabilities(shape, weights, band, gamma):
    cost = torch.rand(1, *shape, dtype=torch.float64)
    count = 20_000
    drawn = dalign.sample_paths(
        cost, count, gamma, generator=torch.Generator().manual_seed(3), band=band, step_weights=weights
    )[0]
    found = Counter(tuple(map(tuple, path.tolist())) for path in drawn)
    mask = reference_soft.band_mask(*shape, band)
    paths = [path for path in all_paths(*shape) if mask[tuple(path.T.numpy())].all()]
    steps = weights or (1.0, 1.0, 1.0)
    expected = [count * math.exp(-reference.path_nll(cost[0].numpy(), p.numpy(), gamma, steps, band)) for p in paths]
    observed = [found.pop(tuple(map(tuple, path.tolist())), 0) for path in paths]
    assert not found  # nothing but paths that are allowed
    assert stats.chisquare(observed, expected).pvalue > 1e-3


def test_samples_visit_cells_as_the_alignment_says():
    cost = torch.rand(2, 30, 20, dtype=torch.float64)
    lengths = {"x_lengths": torch.tensor([30, 11]), "y_lengths": torch.tensor([20, 16])}
    count = 5000
    generator = torch.Generator().manual_seed(5)
    paths, own = dalign.sample_paths(cost, count, 0.1, generator=generator, padded=True, **lengths)
    assert paths.shape == (2, count, 49, 2)
    align = functional.alignment(cost, 0.1, **lengths)
    for b in range(2):
        inside = torch.arange(49) < own[b][:, None]
        assert (paths[b][~inside] == -1).all()
        cells = paths[b][inside]
        visits = torch.zeros(30, 20, dtype=torch.float64)
        visits.index_put_((cells[:, 0], cells[:, 1]), torch.ones(1, dtype=torch.float64), accumulate=True)
        # a cell is visited at most once by a path: binomial, here within five standard deviations
        spread = (align[b] * (1 - align[b]) / count).clamp(min=0).sqrt()
        assert ((visits / count - align[b]).abs() <= 5 * spread + 1e-3).all()


def test_sampled_paths_feed_the_losses_and_give_the_mean_cost():
    cost = torch.rand(1, 9, 7, dtype=torch.float64)
    generator = torch.Generator().manual_seed(2)
    paths, own = dalign.sample_paths(cost, 8000, 0.2, generator=generator, padded=True)
    along = functional.path_cost(cost.expand(8000, -1, -1), paths[0], path_lengths=own[0])
    expected = (functional.alignment(cost, 0.2) * cost).sum()
    assert abs(along.mean() - expected) < 5 * along.std() / 8000**0.5


def test_equal_seeds_give_equal_paths_in_both_forms():
    cost = torch.rand(2, 8, 9)
    draws = [
        dalign.sample_paths(cost, 5, 0.5, generator=torch.Generator().manual_seed(7), padded=form)
        for form in (False, True, False)
    ]
    padded, own = draws[1]
    for b in range(2):
        for k in range(5):
            assert torch.equal(draws[0][b][k], draws[2][b][k])
            assert torch.equal(draws[0][b][k], padded[b, k, : own[b, k]])
    other = dalign.sample_paths(cost, 5, 0.5, generator=torch.Generator().manual_seed(8))
    assert any(not torch.equal(p, q) for p, q in zip(draws[0][0], other[0], strict=True))
    torch.manual_seed(11)
    usual = dalign.sample_paths(cost, 2)
    torch.manual_seed(11)
    assert all(torch.equal(p, q) for p, q in zip(usual[1], dalign.sample_paths(cost, 2)[1], strict=True))


def test_sampling_without_a_path_and_with_one():
    cost = torch.rand(4, 3, 3)
    cost[0, 1, :], cost[1, 1, 1], cost[2, 2, 0] = INF, INF, torch.nan
    drawn = dalign.sample_paths(cost, 50, 1e-6)
    assert all(path.shape == (0, 2) for path in (*drawn[0], *drawn[2]))
    assert all(len(path) >= 4 and [1, 1] not in path.tolist() for path in drawn[1])
    best = dalign.dtw_path(cost[3:], metric="precomputed")[0]
    assert all(torch.equal(path, best) for path in drawn[3])
    paths, own = dalign.sample_paths(cost, 2, padded=True)
    assert (paths[0] == -1).all()
    assert not own[0].any()
    assert dalign.sample_paths(cost[:0], 3) == []
    assert dalign.sample_paths(torch.rand(1, 1, 1), 1)[0][0].tolist() == [[0, 0]]
    blocked = dalign.sample_paths(torch.rand(1, 3, 3), 20, step_weights=(1, 1, INF))[0]
    assert all(len(path) == 5 for path in blocked)


def test_padding_is_not_sampled():
    cost = torch.rand(1, 6, 5)
    cost[0, 4:], cost[0, :, 3:] = torch.nan, -INF
    lengths = {"x_lengths": torch.tensor([4]), "y_lengths": torch.tensor([3])}
    drawn = dalign.sample_paths(cost, 10, generator=torch.Generator().manual_seed(0), **lengths)[0]
    assert all(path[-1].tolist() == [3, 2] for path in drawn)


# ---------------------------------------------------------------- misuse

X, Y, COST = torch.rand(2, 5, 3), torch.rand(2, 4, 3), torch.rand(2, 5, 4)
FINE = torch.tensor([[0, 0], [1, 1], [2, 2], [3, 3], [4, 3]])


def along(path, **options):
    return dalign.PathCost(**options)(X, Y, path)


def likelihood(path, **options):
    return dalign.PathNLL(**options)(X, Y, path)


def cells(*pairs):
    return torch.tensor(pairs)


MISUSE = {
    "no path": (lambda: along(None), TypeError, r"path is missing"),
    "no path, nll": (lambda: likelihood(None), TypeError, r"path is missing"),
    "a number": (lambda: along(3), TypeError, r"path must be a tensor \(L, 2\) or \(2, L, 2\), or a list.*got int"),
    "a list of lists": (lambda: along([[0, 0], [1, 1]]), TypeError, r"path\[0\] must be a tensor, got list"),
    "floats": (lambda: along(FINE.float()), TypeError, r"path must hold integers.*float32.*breakpoints=True"),
    "too few": (lambda: along([FINE]), ValueError, r"path must have one path for each of the 2 items.*got 1"),
    "one dimension": (
        lambda: along(FINE[:, 0]),
        ValueError,
        r"path must have shape \(L, 2\) or \(2, L, 2\), got \(5,\)",
    ),
    "three columns": (lambda: along(torch.zeros(2, 4, 3).long()), ValueError, r"path must have shape.*got \(2, 4, 3\)"),
    "three columns for all": (
        lambda: along(torch.zeros(5, 3).long()),
        ValueError,
        r"path must have shape.*got \(5, 3\)",
    ),
    "other batch": (lambda: along(FINE.expand(3, -1, -1)), ValueError, r"path must have shape.*got \(3, 5, 2\)"),
    "no cells": (lambda: along(FINE[:0]), ValueError, r"path must have at least one cell, got shape \(0, 2\)"),
    "an item's shape": (lambda: along([FINE, FINE.T]), ValueError, r"path\[1\] must have shape \(L, 2\), got \(2, 5\)"),
    "an empty item": (lambda: along([FINE, FINE[:0]]), ValueError, r"path\[1\] is empty"),
    "an empty row": (
        lambda: along(torch.stack((FINE, torch.full_like(FINE, -1)))),
        ValueError,
        r"path\[1\] is empty",
    ),
    "leaves x": (
        lambda: along(cells((4, 0), (5, 0))),
        ValueError,
        r"path\[0\] leaves.*cell 1 is \(5, 0\).*\[0, 5\).*\[0, 4\)",
    ),
    "leaves y": (lambda: along(cells((0, 3), (0, 4))), ValueError, r"path\[0\] leaves.*cell 1 is \(0, 4\)"),
    "negative": (lambda: along(cells((-1, 0), (0, 0))), ValueError, r"path\[0\] leaves.*cell 0 is \(-1, 0\)"),
    "a gap in the padding": (
        lambda: along(cells((0, 0), (-1, -1), (1, 1))),
        ValueError,
        r"path\[0\] leaves.*cell 1 is \(-1, -1\)",
    ),
    "beyond a length": (
        lambda: dalign.PathCost()(X, Y, FINE, x_lengths=torch.tensor([5, 4])),
        ValueError,
        r"path\[1\] leaves.*cell 4 is \(4, 3\), expected i in \[0, 4\) and j in \[0, 4\)",
    ),
    "jumps": (
        lambda: along(cells((0, 0), (2, 1))),
        ValueError,
        r"path\[0\] jumps at its cell 1: from \(0, 0\) to \(2, 1\), .*\(1, 1\)",
    ),
    "goes back": (lambda: along([FINE, cells((1, 1), (1, 0))]), ValueError, r"path\[1\] goes back at its cell 1"),
    "stands still": (lambda: along(cells((1, 1), (1, 1))), ValueError, r"path\[0\] stands still at its cell 1"),
    "another step set": (
        lambda: along(FINE, steps="2-1"),
        ValueError,
        r"path\[0\] jumps.*from \(3, 3\) to \(4, 3\), expected one of the steps \(1, 1\), \(2, 1\), \(1, 2\)",
    ),
    "anchors back": (
        lambda: along(cells((2, 2), (1, 3)), breakpoints=True),
        ValueError,
        r"path\[0\] goes back from anchor \(2.0, 2.0\) to \(1.0, 3.0\)",
    ),
    "anchors out": (
        lambda: along(cells((0, 0), (9, 3)), breakpoints=True),
        ValueError,
        r"path\[0\] leaves the lattice",
    ),
    "anchors far out": (
        lambda: along(torch.tensor([[0.0, 0.0], [1e300, 1e300]], dtype=torch.float64), breakpoints=True),
        ValueError,
        r"path\[0\] leaves the lattice",
    ),
    "anchors not finite": (
        lambda: along(torch.tensor([[0.0, 0.0], [math.nan, 2.0]]), breakpoints=True),
        ValueError,
        r"path\[0\] has an anchor that is not finite.*at 1",
    ),
    "anchors bool": (lambda: along(FINE.bool(), breakpoints=True), TypeError, r"path must hold numbers.*bool"),
    "lengths of a list": (
        lambda: dalign.PathCost()(X, Y, [FINE, FINE], torch.tensor([5, 5])),
        ValueError,
        r"path_lengths must be left out",
    ),
    "path_lengths": (
        lambda: dalign.PathCost()(X, Y, FINE, torch.tensor([5, 6])),
        ValueError,
        r"path_lengths\[1\] = 6 is outside \[1, 5\]",
    ),
    "starts late": (
        lambda: likelihood(FINE[1:]),
        ValueError,
        r"path\[0\] starts in \(1, 1\), expected the corner \(0, 0\)",
    ),
    "ends early": (
        lambda: likelihood([FINE, FINE[:4]]),
        ValueError,
        r"path\[1\] ends in \(3, 3\), expected the corner \(4, 3\)",
    ),
    "metric": (lambda: dalign.PathCost("l2"), ValueError, r"metric.*must be one of.*'l2'"),
    "reduction": (lambda: dalign.PathCost(reduction="max"), ValueError, r"reduction must be one of.*'max'"),
    "steps": (lambda: dalign.PathCost(steps="3-1"), ValueError, r"steps.*must be one of.*'3-1'"),
    "all steps blocked": (lambda: dalign.PathCost(step_weights=(INF,) * 3), ValueError, r"step_weights must leave"),
    "gamma": (lambda: dalign.PathNLL(0), ValueError, r"gamma must be positive and finite, got 0"),
    "band": (lambda: dalign.PathNLL(band=0), ValueError, r"band must be"),
    "weights": (lambda: dalign.PathNLL(step_weights=(1, 1)), ValueError, r"step_weights must be three numbers"),
    "y with a lattice": (lambda: dalign.PathCost("precomputed")(COST, Y, FINE), ValueError, r"y must be left out"),
    "no y": (lambda: dalign.PathCost()(X, path=FINE), TypeError, r"y is missing"),
    "labels": (
        lambda: dalign.PathCost("nll")(X, torch.full((2, 4), 3), FINE),
        ValueError,
        r"y\[0, 0\] = 3 is not a class index",
    ),
    "alignment": (
        lambda: dalign.expected_warp(COST[0]),
        ValueError,
        r"alignment must have shape \(B, N, M\), got \(5, 4\)",
    ),
    "y_times": (
        lambda: dalign.expected_warp(COST, torch.rand(5)),
        ValueError,
        r"y_times must have shape \(4,\) or \(2, 4\), got \(5,\)",
    ),
    "y_times kind": (lambda: dalign.expected_warp(COST, [0, 1]), TypeError, r"y_times must be a tensor, got list"),
    "warp lengths": (
        lambda: dalign.expected_warp(COST, x_lengths=torch.tensor([5])),
        ValueError,
        r"x_lengths must have shape \(2,\)",
    ),
    "n": (lambda: dalign.sample_paths(COST, 0), ValueError, r"n must be >= 1, got 0"),
    "n kind": (lambda: dalign.sample_paths(COST, 2.0), TypeError, r"n must be a whole number, got float"),
    "generator": (
        lambda: dalign.sample_paths(COST, 1, generator=3),
        TypeError,
        r"generator must be a torch.Generator.*int",
    ),
    "sample gamma": (lambda: dalign.sample_paths(COST, 1, -1.0), ValueError, r"gamma must be positive"),
    "sample cost": (lambda: dalign.sample_paths(COST[0], 1), ValueError, r"cost must have shape \(B, N, M\)"),
}


@pytest.mark.parametrize("what", MISUSE)
def test_misuse(what):
    call, error, message = MISUSE[what]
    with pytest.raises(error, match=message):
        call()
