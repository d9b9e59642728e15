"""Averages of series: their loss and its gradient against slow code, the methods, and what fit takes and gives."""

from __future__ import annotations

import copy
import math
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from distributed import run_on_two_ranks
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import averaging as reference

import torch_dalign as dalign
from torch_dalign import _series
from torch_dalign._averages import Anchor, Distance, Problem, Task
from torch_dalign._shards import Shards

GOLDEN = Path(__file__).parent / "golden" / "barycenter_kmeans.npz"


def ragged(rng: np.random.Generator, lengths: list[int], features: int = 1) -> list[np.ndarray]:
    """Smooth series of these lengths."""
    return [rng.standard_normal((n, features)).cumsum(0) for n in lengths]


def bumps(n: int, rng: np.random.Generator, length: int = 30) -> list[np.ndarray]:
    """One bump each, at different times, a little noise."""
    times = np.arange(length)
    return [np.exp(-((times - rng.uniform(8, 22)) ** 2) / 8) + 0.05 * rng.standard_normal(length) for _ in range(n)]


# ---------------------------------------------------------------- loss and gradient against slow code

problems = given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=5),
    length=st.integers(1, 8),
    features=st.integers(1, 3),
    gamma=st.sampled_from([0.0, 0.01, 1.0, 10.0]),
    band=st.sampled_from([None, 1, 2.5]),
    seed=st.integers(0, 1000),
)


def problem(series: list[np.ndarray], weights: np.ndarray, distance: Distance, length: int, **options) -> Problem:
    return Problem(Task(_series.series(series), weights, distance, Shards()), length, **options)


@settings(max_examples=60, deadline=None)
@problems
def test_loss_gradient_and_mean_match_slow_code(lengths, length, features, gamma, band, seed):
    rng = np.random.default_rng(seed)
    series, weights = ragged(rng, lengths, features), rng.uniform(0.1, 2, len(lengths))
    z = rng.standard_normal((length, features))
    ours = problem(series, weights, Distance(gamma, "sqeuclidean", band, False), length)
    expected = reference.loss(z, series, weights, gamma, band=band)
    loss, gradient = ours.loss_and_gradient(torch.from_numpy(z))
    size = max(1.0, abs(expected))
    assert abs(loss - expected) <= 1e-12 * size
    assert abs(ours.loss(torch.from_numpy(z)) - expected) <= 1e-12 * size
    if gamma > 0:
        slow = reference.gradient(z, series, weights, gamma, band)
        np.testing.assert_allclose(gradient, slow, rtol=0, atol=1e-10 * max(1, np.abs(slow).max()))
    else:
        loss, mean = ours.loss_and_mean(torch.from_numpy(z))
        assert abs(loss - expected) <= 1e-12 * size
        np.testing.assert_allclose(mean, reference.dba_update(z, series, weights, band), atol=1e-12 * size)


@settings(max_examples=30, deadline=None)
@problems
def test_divergence_and_anchor(lengths, length, features, gamma, band, seed):
    rng = np.random.default_rng(seed)
    series, weights = ragged(rng, lengths, features), rng.uniform(0.1, 2, len(lengths))
    z, before = rng.standard_normal((2, length, features))
    distance = Distance(gamma, "sqeuclidean", band, divergence=True)
    ours = problem(series, weights, distance, length, anchor=Anchor(torch.from_numpy(before), 0.7))
    leaf = torch.from_numpy(z)

    def slow(z: np.ndarray) -> float:
        options = {"band": band, "divergence": gamma > 0}
        return reference.loss(z, series, weights, gamma, **options) + 0.7 * ((z - before) ** 2).sum()

    loss, gradient = ours.loss_and_gradient(leaf)
    scale = max(1.0, sum(abs(reference.loss(z, series, weights, gamma, band=band)) for z in (z, *series)))
    assert abs(loss - slow(z)) <= 1e-11 * scale
    step, direction = 1e-5, rng.standard_normal(z.shape)
    slope = (slow(z + step * direction) - slow(z - step * direction)) / (2 * step)
    if gamma > 0.01:  # else the loss has kinks within the step
        assert abs(float((gradient * torch.from_numpy(direction)).sum()) - slope) <= 1e-5 * scale


@pytest.mark.parametrize("gamma", [0.0, 0.1])
def test_batches_of_any_size_add_up(gamma, monkeypatch):
    rng = np.random.default_rng(0)
    series, weights = ragged(rng, [5, 9, 3, 9, 7, 1], 2), rng.uniform(0.1, 2, 6)
    z = torch.from_numpy(rng.standard_normal((6, 2)))
    whole = problem(series, weights, Distance(gamma, "sqeuclidean", None, False), 6)
    monkeypatch.setattr(_series, "BATCH_NUMBERS", 36)
    parts = problem(series, weights, Distance(gamma, "sqeuclidean", None, False), 6)
    assert len(whole._batches) == 1
    assert len(parts._batches) >= 3
    for (a, b), (c, d) in ((p.loss_and_gradient(z), q.loss_and_gradient(z)) for p, q in [(whole, parts)]):
        assert math.isclose(a, c, rel_tol=1e-13)
        torch.testing.assert_close(b, d, rtol=1e-12, atol=1e-12)


# ---------------------------------------------------------------- what fit finds


@pytest.mark.parametrize("metric", ["sqeuclidean", "euclidean", "manhattan", "cosine", torch.cdist])
@pytest.mark.parametrize("gamma", [0.1, 1.0])
def test_fit_ends_where_the_gradient_is_zero(gamma, metric):
    rng = np.random.default_rng(0)
    series = [torch.from_numpy(s) + 3 for s in ragged(rng, [12, 9, 14, 10], 2)]
    average = dalign.SoftDTWBarycenter(gamma, metric, tol=1e-14, max_iter=500).fit(series)
    z = average.barycenter_.clone().requires_grad_()
    loss = dalign.SoftDTW(gamma, metric)

    def total(z):
        return sum(loss(z[None], x[None]) for x in series)

    value = total(z)
    (gradient,) = torch.autograd.grad(value, z)
    (first,) = torch.autograd.grad(total(start := average_of_four(series).requires_grad_()), start)
    assert math.isclose(average.loss_, value.item(), rel_tol=1e-12)
    assert average.history_ == sorted(average.history_, reverse=True)
    assert math.isclose(average.history_[0], total(start).item(), rel_tol=1e-10)
    assert average.n_iter_ == len(average.history_) - 1
    if metric in ("sqeuclidean", "cosine"):  # the others have kinks, and minima in them
        assert gradient.abs().max() <= 1e-5 * first.abs().max()


def average_of_four(series: list[torch.Tensor]) -> torch.Tensor:
    length = round(sum(map(len, series)) / len(series))
    items = [s.numpy() for s in series]
    return torch.from_numpy(reference.resampled_mean(items, np.ones(len(items)), length))


def test_dba_is_the_slow_dba():
    rng = np.random.default_rng(1)
    series, weights = ragged(rng, [12, 9, 14], 2), np.array([1.0, 0.5, 2.0])
    start = rng.standard_normal((10, 2))
    z, losses = start, []
    for _ in range(5):
        losses.append(reference.loss(z, series, weights, 0))
        z = reference.dba_update(z, series, weights)
    average = dalign.SoftDTWBarycenter(gamma=0, init=start, max_iter=5, tol=0).fit(series, sample_weight=weights)
    np.testing.assert_allclose(average.barycenter_, z, atol=1e-12)
    np.testing.assert_allclose(average.history_[:5], losses, rtol=1e-12)
    assert average.history_ == sorted(average.history_, reverse=True)
    assert math.isclose(average.loss_, reference.loss(z, series, weights, 0), rel_tol=1e-12)
    by_name = dalign.SoftDTWBarycenter(method="dba", init=start, max_iter=5, tol=0).fit(series, sample_weight=weights)
    np.testing.assert_array_equal(by_name.barycenter_, average.barycenter_)


def test_subgradient_steps_are_those_of_the_paper():
    """z <- z - rate_t dL/dz / W, with dL/dz along the best paths."""
    rng = np.random.default_rng(1)
    series, weights = ragged(rng, [12, 9, 14], 2), np.array([1.0, 0.5, 2.0])
    start = rng.standard_normal((10, 2))
    options = {"method": "subgradient", "init": start, "max_iter": 4, "tol": 0}
    average = dalign.SoftDTWBarycenter(step_size=0.1, **options).fit(series, sample_weight=weights)
    z = start
    for rate in (0.1, 0.07, 0.04, 0.01):
        gradient = np.zeros_like(z)
        for x, weight in zip(series, weights, strict=True):
            for i, j in reference.dtw(reference.costs(z, x))[1]:
                gradient[i] += 2 * weight * (z[i] - x[j])
        z = z - rate * gradient / weights.sum()
    np.testing.assert_allclose(average.barycenter_, z, atol=1e-12)


@pytest.mark.parametrize("method", ["dba", "subgradient"])
def test_methods_of_dtw_find_about_the_same(method):
    rng = np.random.default_rng(0)
    series = bumps(12, rng)
    start = np.mean(series, axis=0)
    found = dalign.SoftDTWBarycenter(method=method, init=start, max_iter=60, tol=1e-9).fit(series).loss_
    soft = dalign.SoftDTWBarycenter(1e-3, init=start).fit(series)
    as_dtw = reference.loss(soft.barycenter_[:, None], [s[:, None] for s in series], np.ones(12), 0)
    assert found < 0.5 * reference.loss(start[:, None], [s[:, None] for s in series], np.ones(12), 0)
    assert as_dtw < 1.1 * found


@pytest.mark.parametrize("options", [{"gamma": 0.1}, {"gamma": 0}, {"method": "subgradient"}])
def test_minibatches_come_near_the_whole(options):
    rng = np.random.default_rng(0)
    series = bumps(24, rng)
    whole = dalign.SoftDTWBarycenter(**options, max_iter=60).fit(series)
    parts = dalign.SoftDTWBarycenter(**options, max_iter=30, batch_size=5, random_state=0, tol=1e-3).fit(series)
    start = dalign.SoftDTWBarycenter(**options, max_iter=0).fit(series)
    assert parts.loss_ - whole.loss_ < 0.15 * (start.loss_ - whole.loss_)
    assert parts.n_iter_ == len(parts.history_)


@pytest.mark.parametrize("gamma", [0, 1.0])
def test_minibatches_of_single_frames_are_the_running_mean(gamma):
    """For series of one frame everything is plain Euclidean: the average is the weighted mean after a pass."""
    x = torch.randn(11, 1, 3, dtype=torch.float64)
    weights = torch.rand(11)
    options = {"batch_size": 4, "max_iter": 1, "random_state": 0, "init": torch.zeros(1, 3)}
    average = dalign.SoftDTWBarycenter(gamma, **options).fit(x, sample_weight=weights)
    expected = (weights.double()[:, None] * x[:, 0]).sum(0, keepdim=True) / weights.double().sum()
    torch.testing.assert_close(average.barycenter_, expected, rtol=0, atol=1e-7)


def test_divergence_averages_are_less_flat():
    series = bumps(8, np.random.default_rng(0))
    plain, sharp = (dalign.SoftDTWBarycenter(5.0, divergence=d).fit(series) for d in (False, True))
    assert np.ptp(sharp.barycenter_) > 2 * np.ptp(plain.barycenter_)
    expected = reference.loss(
        sharp.barycenter_[:, None], [s[:, None] for s in series], np.ones(8), 5.0, divergence=True
    )
    assert math.isclose(sharp.loss_, expected, rel_tol=1e-9)
    assert math.isclose(sharp.history_[-1], expected, rel_tol=1e-9)


def test_average_of_one_series_at_small_gamma_is_that_series():
    x = torch.randn(20, 2, dtype=torch.float64).cumsum(0)
    average = dalign.SoftDTWBarycenter(1e-4, tol=1e-12).fit([x])
    torch.testing.assert_close(average.barycenter_, x, rtol=0, atol=1e-3)


# ---------------------------------------------------------------- where to start


def started(init: object = "mean", **options) -> dalign.SoftDTWBarycenter:
    return dalign.SoftDTWBarycenter(init=init, max_iter=0, **options)


@pytest.mark.parametrize("length", [None, 1, 4, 17])
def test_mean_start(length):
    rng = np.random.default_rng(0)
    series, weights = ragged(rng, [5, 9, 8, 5], 2), rng.uniform(0.1, 2, 4)
    average = started(length=length).fit(series, sample_weight=weights)
    expected = reference.resampled_mean(series, weights, 7 if length is None else length)
    np.testing.assert_allclose(average.barycenter_, expected, atol=1e-13)
    assert average.history_ == [pytest.approx(average.loss_)]
    assert average.n_iter_ == 0


def test_mean_of_equal_lengths_is_exact():
    x = np.random.default_rng(0).standard_normal((5, 24, 2))
    np.testing.assert_allclose(started().fit(x).barycenter_, x.mean(0), rtol=1e-14)


def test_random_start_has_the_moments_of_the_frames():
    rng = np.random.default_rng(0)
    series = [rng.standard_normal((n, 2)) * [1.0, 20.0] + [5.0, -3.0] for n in (50, 80)]
    noise = started("random", length=20000, random_state=0).fit(series).barycenter_
    frames = np.concatenate(series)
    np.testing.assert_allclose(noise.mean(0), frames.mean(0), atol=0.6)
    np.testing.assert_allclose(noise.std(0), frames.std(0), rtol=0.03)
    assert started("random", random_state=0).fit(series).barycenter_.shape == (65, 2)


@pytest.mark.parametrize("gamma", [0, 0.5])
def test_medoid_start_is_the_series_of_least_loss(gamma):
    rng = np.random.default_rng(0)
    series, weights = ragged(rng, [5, 9, 8, 5, 6]), rng.uniform(0.1, 2, 5)
    losses = [reference.loss(x, series, weights, gamma) for x in series]
    average = started("medoid", gamma=gamma).fit(series, sample_weight=weights)
    np.testing.assert_array_equal(average.barycenter_, series[int(np.argmin(losses))])
    assert math.isclose(average.loss_, min(losses), rel_tol=1e-12)


def test_medoid_tries_32_series_of_many():
    x = np.random.default_rng(0).standard_normal((60, 4))
    medoid = started("medoid", random_state=3).fit(x).barycenter_
    assert (x == medoid).all(1).any()


@pytest.mark.parametrize(("given_length", "expected"), [(None, 5), (9, 9)])
def test_given_start(given_length, expected):
    x = torch.randn(3, 8)
    start = torch.linspace(0, 4, 5)
    average = started(start, length=given_length).fit(x)
    torch.testing.assert_close(average.barycenter_, torch.linspace(0, 4, expected))
    assert torch.equal(start, torch.linspace(0, 4, 5))


# ---------------------------------------------------------------- what fit takes and gives

FORMS = {
    "tensor (n, N)": lambda x: torch.from_numpy(x),
    "tensor (n, N, 1)": lambda x: torch.from_numpy(x)[..., None],
    "array (n, N)": lambda x: x,
    "array (n, N, 1)": lambda x: x[..., None],
    "list of tensors": lambda x: list(torch.from_numpy(x)),
    "list of arrays (N, 1)": lambda x: list(x[..., None]),
    "tuple of lists": lambda x: tuple(x.tolist()),
    "backwards in memory": lambda x: np.ascontiguousarray(x[:, ::-1])[:, ::-1],
    "big-endian": lambda x: x.astype(">f8"),
    "requires grad": lambda x: torch.from_numpy(x).requires_grad_(),
}


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_series(form):
    x = np.random.default_rng(0).standard_normal((4, 7))
    expected = dalign.SoftDTWBarycenter(max_iter=3).fit(x)
    average = dalign.SoftDTWBarycenter(max_iter=3).fit(FORMS[form](x))
    result = average.barycenter_
    assert isinstance(result, torch.Tensor if "tensor" in form or "grad" in form else np.ndarray)
    assert tuple(result.shape) == ((7, 1) if "1)" in form else (7,))
    np.testing.assert_array_equal(np.asarray(result).reshape(7), expected.barycenter_)
    assert average.loss_ == expected.loss_


def test_ragged_object_array_and_padding_with_lengths():
    rng = np.random.default_rng(0)
    series = ragged(rng, [4, 7, 5], 2)
    expected = dalign.SoftDTWBarycenter(max_iter=3).fit(series)
    objects = np.empty(3, dtype=object)
    objects[:] = series
    padded = torch.full((3, 9, 2), torch.nan, dtype=torch.float64)
    for row, s in zip(padded, series, strict=True):
        row[: len(s)] = torch.from_numpy(s)
    for average in (
        dalign.SoftDTWBarycenter(max_iter=3).fit(objects),
        dalign.SoftDTWBarycenter(max_iter=3).fit(padded, lengths=torch.tensor([4, 7, 5])),
        dalign.SoftDTWBarycenter(max_iter=3).fit(padded.numpy(), lengths=[4, 7, 5]),
    ):
        np.testing.assert_array_equal(np.asarray(average.barycenter_), expected.barycenter_)


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        (torch.float64, torch.float64),
        (torch.float32, torch.float32),
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.int32, torch.float64),
    ],
)
def test_dtypes(dtype, expected):
    x = torch.randint(-5, 5, (4, 6, 2)).to(dtype)
    average = dalign.SoftDTWBarycenter(0.5, max_iter=30).fit(x)
    assert average.barycenter_.dtype == expected
    double = dalign.SoftDTWBarycenter(0.5, max_iter=30).fit(x.double())
    assert math.isclose(average.loss_, double.loss_, rel_tol=1e-5)


def test_weights_count_series():
    rng = np.random.default_rng(0)
    a, b, c = ragged(rng, [4, 7, 5], 2)
    start = rng.standard_normal((5, 2))

    def fit(series, weights=None):
        return dalign.SoftDTWBarycenter(0.3, init=start, tol=1e-10).fit(series, sample_weight=weights)

    expected = fit([a, a, a, b])
    weighted = fit([a, b, c], [3, 1, 0])
    assert math.isclose(weighted.loss_, expected.loss_, rel_tol=1e-9)
    np.testing.assert_allclose(weighted.barycenter_, expected.barycenter_, atol=1e-4)
    np.testing.assert_allclose(fit([a, b], [3e9, 1e9]).barycenter_, expected.barycenter_, atol=1e-4)
    np.testing.assert_allclose(fit([a, b], [3e-9, 1e-9]).barycenter_, expected.barycenter_, atol=1e-4)


def test_result_of_no_dependence_on_threads():
    x = torch.randn(70, 40, 2).cumsum(1)
    results = []
    for threads in (1, 2):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        fits = [dalign.SoftDTWBarycenter(gamma, max_iter=6).fit(x) for gamma in (0, 0.5)]
        torch.set_num_threads(before)
        results.append([(f.barycenter_, f.loss_) for f in fits])
    for (a, loss_a), (b, loss_b) in zip(*results, strict=True):
        assert torch.equal(a, b)
        assert loss_a == loss_b


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("gamma", [0, 0.5])
def test_fit_where_gradients_are_off(mode, gamma):
    x = torch.randn(5, 8)
    expected = dalign.SoftDTWBarycenter(gamma, max_iter=4).fit(x)
    with mode():
        average = dalign.SoftDTWBarycenter(gamma, max_iter=4).fit(x.clone())
    assert torch.equal(average.barycenter_, expected.barycenter_)
    average.barycenter_.clone().requires_grad_().sum().backward()


@pytest.mark.parametrize(
    "state", [lambda: 7, lambda: np.random.RandomState(7), lambda: np.random.default_rng(7), None], ids=str
)
def test_random_state(state):
    x = torch.randn(9, 8)

    def fit():
        torch.manual_seed(5)
        random = None if state is None else state()
        return dalign.SoftDTWBarycenter(init="random", batch_size=2, max_iter=2, random_state=random).fit(x)

    assert torch.equal(fit().barycenter_, fit().barycenter_)
    other = dalign.SoftDTWBarycenter(init="random", batch_size=2, max_iter=2, random_state=8).fit(x)
    assert not torch.equal(fit().barycenter_, other.barycenter_)


def test_torch_generator_as_random_state():
    x = torch.randn(9, 8)
    fits = [started("random", random_state=torch.Generator().manual_seed(s)).fit(x).barycenter_ for s in (1, 1, 2)]
    assert torch.equal(fits[0], fits[1])
    assert not torch.equal(fits[0], fits[2])


def test_progress_shows_a_bar(capfd):
    pytest.importorskip("tqdm")
    dalign.SoftDTWBarycenter(max_iter=2, progress=True).fit(torch.randn(3, 5))
    assert "barycenter" in capfd.readouterr().err


def test_progress_without_tqdm_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    with pytest.raises(ImportError, match=r"torch-dalign\[progress\]"):
        dalign.SoftDTWBarycenter(progress=True).fit(torch.randn(3, 5))


# ---------------------------------------------------------------- misuse

X = torch.zeros(3, 5, 2)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda fit: fit(None), TypeError, "X must be a tensor, an array or a list of series, got NoneType"),
        (lambda fit: fit(X[0, 0]), ValueError, r"X must have shape \(n, N\) or \(n, N, D\).*got \(2,\)"),
        (lambda fit: fit(X[:0]), ValueError, r"X must have shape.*>= 1.*got \(0, 5, 2\)"),
        (lambda fit: fit([]), ValueError, "X holds no series"),
        (lambda fit: fit([1.0, 2.0]), ValueError, r"X\[0\] must have shape \(N,\) or \(N, D\).*got \(\)"),
        (lambda fit: fit([X[0], X[0, :0]]), ValueError, r"X\[1\] must have shape"),
        (
            lambda fit: fit([X[0], X[0, :, :1]]),
            ValueError,
            r"same features.*\(5, 2\) for X\[0\] and \(5, 1\) for X\[1\]",
        ),
        (lambda fit: fit([X[0], X[0, :, 0]]), ValueError, r"same features"),
        (lambda fit: fit([["a", "b"]]), ValueError, r"X\[0\] must hold real numbers"),
        (lambda fit: fit(X.to(torch.complex64)), ValueError, "Complex data not supported: X"),
        (lambda fit: fit(torch.full((2, 3), torch.nan)), ValueError, r"X\[0\] contains NaN or inf.*lengths="),
        (lambda fit: fit([X[0], X[0] / 0 + math.inf]), ValueError, r"X\[1\] contains NaN or inf"),
        (lambda fit: fit(list(X), lengths=[1, 2, 3]), ValueError, "lengths goes with a padded array"),
        (lambda fit: fit(X, lengths=[1, 2]), ValueError, r"lengths must have shape \(3,\)"),
        (lambda fit: fit(X, lengths=[1, 2, 6]), ValueError, r"lengths\[2\] = 6 is outside \[1, 5\]"),
        (lambda fit: fit(X, lengths=[1.0, 2.0, 3.0]), TypeError, "lengths must be an integer tensor"),
        (lambda fit: fit(X, sample_weight=[1, 2]), ValueError, r"sample_weight must have shape \(3,\)"),
        (lambda fit: fit(X, sample_weight=[1, -1, 1]), ValueError, "sample_weight must be finite and >= 0"),
        (lambda fit: fit(X, sample_weight=[1, math.nan, 1]), ValueError, "sample_weight must be finite and >= 0"),
        (lambda fit: fit(X, sample_weight=[0, 0, 0]), ValueError, "sample_weight must not be zero for all series"),
    ],
)
def test_misuse_of_fit(call, error, message):
    with pytest.raises(error, match=f"(?s){message}"):
        call(dalign.SoftDTWBarycenter().fit)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"gamma": -1}, ValueError, "gamma must be finite and >= 0, got -1"),
        ({"gamma": "1"}, TypeError, "gamma must be a number, got str"),
        ({"metric": "nll"}, ValueError, "metric of an average.*got 'nll'"),
        ({"metric": "l2"}, ValueError, "metric of an average.*got 'l2'"),
        ({"max_iter": -1}, ValueError, "max_iter must be >= 0"),
        ({"max_iter": 1.5}, TypeError, "max_iter must be an integer, got float"),
        ({"tol": -1}, ValueError, "tol must be finite and >= 0"),
        ({"tol": math.nan}, ValueError, "tol must be finite and >= 0"),
        ({"length": 0}, ValueError, "length must be >= 1"),
        ({"batch_size": 0}, ValueError, "batch_size must be >= 1"),
        ({"batch_size": 2, "metric": "euclidean"}, ValueError, "batch_size needs .* metric 'sqeuclidean', 'cosine' or"),
        ({"batch_size": True}, TypeError, "batch_size must be an integer, got bool"),
        ({"step_size": -0.1}, ValueError, "step_size must be finite and >= 0"),
        ({"init": "best"}, ValueError, "init must be one of 'mean', 'random', 'medoid', got 'best'"),
        ({"init": torch.zeros(4, 3)}, ValueError, "init has 3 features per frame, expected 2"),
        ({"init": torch.zeros(4)}, ValueError, "init has 1 features per frame, expected 2"),
        ({"init": torch.zeros(1, 4, 2)}, ValueError, r"init must have shape \(K,\) or \(K, D\).*\(1, 4, 2\)"),
        ({"init": torch.full((4, 2), math.nan)}, ValueError, "init contains NaN or inf"),
        ({"method": "newton"}, ValueError, "method must be one of"),
        ({"method": "dba", "metric": "euclidean"}, ValueError, "method 'dba' needs metric 'sqeuclidean'"),
        ({"band": 0}, ValueError, "band must be an integer >= 1"),
        ({"divergence": "sharp"}, TypeError, "divergence must be a bool"),
        ({"random_state": -1}, ValueError, "random_state must be >= 0"),
        ({"random_state": "0"}, TypeError, "random_state must be an integer"),
        ({"distributed": True}, ValueError, "distributed needs torch.distributed.init_process_group"),
        ({"metric": lambda x, y: torch.cdist(x, y) + math.inf}, ValueError, "loss of the initial series is inf"),
    ],
    ids=str,
)
def test_misuse_of_parameters_shows_in_fit(options, error, message):
    average = dalign.SoftDTWBarycenter(**options)
    with pytest.raises(error, match=f"(?s){message}"):
        average.fit(X)


# ---------------------------------------------------------------- scikit-learn's conventions


def test_parameters():
    average = dalign.SoftDTWBarycenter(0.3, "euclidean", band=4)
    params = average.get_params()
    assert params["gamma"] == 0.3
    assert params["band"] == 4
    assert params == dalign.SoftDTWBarycenter(**params).get_params()
    assert average.set_params(gamma=2, init="medoid") is average
    assert repr(average) == "SoftDTWBarycenter(gamma=2, metric='euclidean', init='medoid', band=4)"
    with pytest.raises(ValueError, match="'gama' is no parameter of SoftDTWBarycenter; there are gamma, metric"):
        average.set_params(gama=1)


def test_copies_and_pickles_keep_what_was_found():
    average = dalign.SoftDTWBarycenter(max_iter=2).fit(torch.randn(3, 6))
    for other in (copy.deepcopy(average), pickle.loads(pickle.dumps(average))):
        assert torch.equal(other.barycenter_, average.barycenter_)
        assert other.get_params() == average.get_params()


def test_clone_of_scikit_learn():
    base = pytest.importorskip("sklearn.base")
    average = dalign.SoftDTWBarycenter(0.3, init=torch.ones(4)).fit(torch.randn(3, 6))
    clone = base.clone(average)
    assert not hasattr(clone, "barycenter_")
    assert clone.gamma == 0.3
    assert torch.equal(clone.init, torch.ones(4))


def test_neither_scikit_learn_nor_scipy_is_needed():
    script = """
import sys
sys.modules.update(dict.fromkeys(("sklearn", "scipy", "tqdm")))
import torch, torch_dalign as dalign
x = torch.randn(6, 9)
dalign.SoftDTWBarycenter(0.1, max_iter=2).fit(x)
kmeans = dalign.SoftDTWKMeans(2, max_iter=1)
try:
    kmeans.predict(x)
except (ValueError, AttributeError) as error:
    assert "call fit first" in str(error)
kmeans.fit_predict(x)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


# ---------------------------------------------------------------- shards

SHARDS = """
    torch.manual_seed(0)
    series = [torch.randn(int(n), 2, dtype=torch.float64).cumsum(0) for n in torch.randint(5, 20, (13,))]
    weights = torch.rand(13)
    mine = slice(0, 4) if rank == 0 else slice(4, None)
    for options in (
        {}, {"gamma": 0}, {"init": "medoid"}, {"init": "random"}, {"divergence": True}, {"method": "subgradient"}
    ):
        options = {"max_iter": 8, "random_state": 3, "gamma": 0.3, **options}
        alone = dalign.SoftDTWBarycenter(**options).fit(series, sample_weight=weights)
        for group in (True, dist.group.WORLD):
            shared = dalign.SoftDTWBarycenter(distributed=group, **options)
            shared.fit(series[mine], sample_weight=weights[mine])
            torch.testing.assert_close(shared.barycenter_, alone.barycenter_, rtol=1e-7, atol=1e-7)
            torch.testing.assert_close(shared.history_, alone.history_, rtol=1e-9, atol=0)
            torch.testing.assert_close(shared.loss_, alone.loss_, rtol=1e-9, atol=0)
            found = [None, None]
            dist.all_gather_object(found, (shared.barycenter_, shared.loss_))
            assert torch.equal(found[0][0], found[1][0]) and found[0][1] == found[1][1]
    # minibatches, of which rank 0 runs out before rank 1; without a seed
    parts = dalign.SoftDTWBarycenter(0.3, init="random", batch_size=2, max_iter=3, distributed=True)
    parts.fit(series[mine], sample_weight=weights[mine])
    dist.all_gather_object(found, parts.barycenter_)
    assert torch.equal(found[0], found[1])
    assert parts.history_[-1] < parts.history_[0]
"""


def test_two_processes_find_what_one_finds(tmp_path):
    run_on_two_ranks(SHARDS, tmp_path)


# ---------------------------------------------------------------- golden cases (see golden/README.md)


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(GOLDEN, allow_pickle=False) as data:
        return {key: data[key] for key in data.files}


def assert_same_minimum(
    gamma: float, series: list[np.ndarray], weights: np.ndarray, init: np.ndarray | str, center: np.ndarray, loss: float
) -> None:
    """From `init`, ours ends at their center, up to what optimizers leave over.

    Both stop when an iteration lowers the loss by about 1e-10 of it, so that theirs is less than 1e-9 of it above the
    minimum. Where the second derivative is c or more, it is at most sqrt(2e-9 L / c) away from it then; the factor 1.5
    is for the change of the derivative on the way.
    """
    average = dalign.SoftDTWBarycenter(gamma, init=init, max_iter=500, tol=1e-13).fit(series, sample_weight=weights)
    assert abs(average.loss_ - loss) <= 1e-9 * abs(loss)
    soft = dalign.SoftDTW(gamma)

    def total(z):
        losses = [soft(z[None], torch.from_numpy(x)[None]) for x in series]
        return sum(weight * value for weight, value in zip(weights, losses, strict=True))

    z = torch.from_numpy(average.barycenter_)
    curvature = torch.linalg.eigvalsh(torch.autograd.functional.hessian(total, z).view(z.numel(), -1)).min().item()
    assert curvature > 0
    assert np.abs(average.barycenter_ - center).max() <= 1.5 * math.sqrt(2e-9 * abs(loss) / curvature)


@pytest.mark.parametrize("gamma", [1.0, 0.1, 0.01])
@pytest.mark.parametrize("program", ["mblondel", "tslearn"])
def test_golden_loss_at_their_averages(golden, gamma, program):
    x, z = golden["ipd_X"][:8], golden[f"bary_{program}_g{gamma}"]
    loss = started(z, gamma=gamma).fit(x).loss_
    assert math.isclose(loss, golden[f"bary_{program}_g{gamma}_obj"], rel_tol=1e-11)
    start = started(golden["bary_init"], gamma=gamma).fit(x).loss_
    assert math.isclose(start, golden[f"bary_init_g{gamma}_obj"], rel_tol=1e-11)


@pytest.mark.parametrize("gamma", [1.0, 0.1])
@pytest.mark.parametrize("program", ["mblondel", "tslearn"])
def test_golden_averages(golden, gamma, program):
    name = f"bary_{program}_g{gamma}"
    assert_same_minimum(gamma, golden["ipd_X"][:8], np.ones(8), "mean", golden[name], golden[f"{name}_obj"])


def test_golden_average_among_several_minima(golden):
    """At gamma = .01 the way decides which minimum is found; theirs is one for us too, and ours about as good."""
    x, center, loss = golden["ipd_X"][:8], golden["bary_mblondel_g0.01"], golden["bary_mblondel_g0.01_obj"]
    assert_same_minimum(0.01, x, np.ones(8), center, center, loss)
    assert dalign.SoftDTWBarycenter(0.01).fit(x).loss_ < 1.01 * loss


def test_golden_weighted_average(golden):
    center, loss = golden["bary_tslearn_weighted_g0.1"], golden["bary_mblondel_weighted_g0.1_obj"]
    assert_same_minimum(0.1, golden["ipd_X"][:8], golden["bary_w"], golden["bary_init"], center, loss)


def test_golden_average_of_unequal_lengths(golden):
    series = [s[:n] for s, n in zip(golden["ipd_X"], golden["ubary_lengths"], strict=False)]
    center, loss = golden["ubary_mblondel_g0.1"], golden["ubary_mblondel_g0.1_obj"]
    assert_same_minimum(0.1, series, np.ones(5), golden["ubary_init"], center, loss)


@pytest.mark.parametrize("iterations", [10, 50])
def test_golden_dba(golden, iterations):
    average = dalign.SoftDTWBarycenter(0, max_iter=iterations, tol=0).fit(golden["ipd_X"][:8])
    np.testing.assert_allclose(average.barycenter_, golden[f"dba_it{iterations}"], atol=1e-13)
    assert math.isclose(average.loss_ / 8, golden[f"dba_it{iterations}_obj_sqdtw_mean"], rel_tol=1e-13)
