"""Matrices of DTW and soft-DTW over collections, and nearest neighbours, against the pairs one by one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import torch_dalign as dalign

METRICS = ("sqeuclidean", "euclidean", "manhattan", "cosine")


def collection(count: int, longest: int, d: int, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    return [torch.rand(int(n), d, dtype=dtype) for n in torch.randint(1, longest + 1, (count,))]


def one_by_one(X, Y, function) -> torch.Tensor:
    return torch.stack([torch.stack([function(x[None], y[None])[0] for y in Y]) for x in X])


# ---------------------------------------------------------------- matrices


@pytest.mark.parametrize("metric", [*METRICS, "bce"])
@pytest.mark.parametrize("options", [{}, {"band": 2}, {"steps": "asymmetric"}, {"subsequence": True}])
def test_cdist_dtw_is_dtw_of_each_pair(options, metric):
    X, Y = collection(7, 30, 3), collection(5, 40, 3)
    expected = one_by_one(X, Y, lambda x, y: dalign.dtw(x, y, metric, **options))
    torch.testing.assert_close(dalign.cdist_dtw(X, Y, metric, **options), expected)


@pytest.mark.parametrize("options", [{}, {"steps": "asymmetric"}, {"open_end": True}, {"step_weights": (1, 3, 1)}])
def test_cdist_dtw_with_itself(options):
    X = collection(9, 25, 2)
    found = dalign.cdist_dtw(X, **options)
    torch.testing.assert_close(found, one_by_one(X, X, lambda x, y: dalign.dtw(x, y, **options)))
    if not options:
        assert torch.equal(found, found.T)


def test_cdist_in_many_chunks(monkeypatch):
    X, Y = collection(9, 12, 1), collection(6, 12, 1)
    whole, alone = dalign.cdist_dtw(X, Y), dalign.cdist_soft_dtw(X)
    monkeypatch.setattr(dalign.pairs, "CHUNK", 4)
    assert torch.equal(dalign.cdist_dtw(X, Y), whole)
    torch.testing.assert_close(dalign.cdist_soft_dtw(X), alone)


@pytest.mark.parametrize("divergence", [False, True, "sharp"])
@pytest.mark.parametrize("weights", [None, (1.0, 2.0, 1.0)])
def test_cdist_soft_dtw_is_soft_dtw_of_each_pair(weights, divergence):
    X, Y = collection(4, 20, 2, torch.float64), collection(3, 15, 2, torch.float64)
    loss = dalign.SoftDTW(0.5, divergence=divergence, step_weights=weights, reduction="none")
    options = {"gamma": 0.5, "divergence": divergence, "step_weights": weights}
    torch.testing.assert_close(dalign.cdist_soft_dtw(X, Y, **options), one_by_one(X, Y, loss))
    torch.testing.assert_close(dalign.cdist_soft_dtw(X, **options), one_by_one(X, X, loss))


def test_layouts_of_a_collection():
    X = torch.rand(4, 10)
    expected = dalign.cdist_dtw(list(X))
    for layout in (X, X.numpy(), X[..., None], list(X[..., None]), [x.numpy() for x in X]):
        assert torch.equal(dalign.cdist_dtw(layout), expected)
    assert dalign.cdist_dtw(X, X.double()).dtype == torch.float64


def test_progress_changes_nothing():
    pytest.importorskip("tqdm")
    X = collection(3, 10, 1)
    assert torch.equal(dalign.cdist_dtw(X, progress=True), dalign.cdist_dtw(X))


# ---------------------------------------------------------------- neighbours


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_neighbors_are_the_least_of_the_matrix(data):
    d, equal = data.draw(st.integers(1, 3)), data.draw(st.booleans())
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    dtype = data.draw(st.sampled_from([np.float32, np.float64]))

    def draw(count):
        lengths = rng.integers(1, 30, count) if not equal else [20] * count
        # whole numbers, so that many distances are equal
        return [rng.integers(0, 4, (n, d)).astype(dtype) for n in lengths]

    queries, references = draw(data.draw(st.integers(1, 6))), draw(data.draw(st.integers(1, 90)))
    k = data.draw(st.integers(1, len(references)))
    metric = data.draw(st.sampled_from(("sqeuclidean", "euclidean", "manhattan")))
    band = data.draw(st.none() | st.integers(1, 8))
    found = dalign.dtw_neighbors(queries, references, k, metric, band=band)
    matrix = dalign.cdist_dtw(queries, references, metric, band=band)
    order = matrix.argsort(dim=1, stable=True)[:, :k]
    torch.testing.assert_close(found.distances, matrix.gather(1, order))
    if metric != "euclidean":  # whose roots may differ in their last digit
        assert torch.equal(found.indices, order)


def test_neighbors_by_cosine_and_far_more_references_than_a_block():
    queries, references = collection(3, 30, 4), collection(200, 30, 4)
    found = dalign.dtw_neighbors(queries, references, 3, "cosine")
    matrix = dalign.cdist_dtw(queries, references, "cosine")
    torch.testing.assert_close(found.distances, matrix.topk(3, largest=False).values)


def test_a_narrow_band_leaves_most_references_untried(monkeypatch):
    t = torch.linspace(0, 6, 100)
    references = [torch.sin(t + phase) for phase in torch.linspace(0, 3, 150)]
    tried = []
    values = dalign.pairs._values

    def counting(x, y, metric, rows, columns, *rest):
        tried.append(len(columns))
        return values(x, y, metric, rows, columns, *rest)

    monkeypatch.setattr(dalign.pairs, "_values", counting)
    found = dalign.dtw_neighbors([references[40] + 0.001], references, band=2)
    assert found.indices.tolist() == [[40]]
    assert sum(tried) < 75


# ---------------------------------------------------------------- misuse


MISUSE = {
    "features": (lambda X: dalign.cdist_dtw(X, [torch.rand(5, 3)]), ValueError, "Y has 3 features"),
    "class indices": (lambda X: dalign.cdist_dtw(X, metric="nll"), ValueError, "metric"),
    "a number": (lambda X: dalign.cdist_dtw(3), TypeError, "X must be"),
    "empty": (lambda X: dalign.cdist_soft_dtw([]), ValueError, "X holds no series"),
    "NaN": (lambda X: dalign.cdist_dtw([*X, X[0] * torch.nan]), ValueError, "X.2. contains NaN"),
    "gamma": (lambda X: dalign.cdist_soft_dtw(X, gamma=0), ValueError, "gamma"),
    "band": (lambda X: dalign.cdist_dtw(X, band=0), ValueError, "band"),
    "k too large": (lambda X: dalign.dtw_neighbors(X, X, 3), ValueError, "k must be at most"),
    "k below 1": (lambda X: dalign.dtw_neighbors(X, X, 0), ValueError, "k must be >= 1"),
    "k of another type": (lambda X: dalign.dtw_neighbors(X, X, 1.5), TypeError, "k must be an integer"),
    "bce": (lambda X: dalign.dtw_neighbors(X, X, metric="bce"), ValueError, "metric"),
    "references": (lambda X: dalign.dtw_neighbors(X, "abc"), TypeError, "references"),
}


@pytest.mark.parametrize("what", MISUSE)
def test_misuse(what):
    call, error, message = MISUSE[what]
    with pytest.raises(error, match=message):
        call(collection(2, 8, 2))
