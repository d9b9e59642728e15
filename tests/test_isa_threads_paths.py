"""DILATE and what is built on paths on every instruction set, and with any number of threads to the same bits.

As test_isa_threads.py: each instruction set has a process of its own, which runs this file as a script.
"""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from reference import cost as reference_cost
from reference import dtw as reference_dtw
from reference import paths as reference_paths
from reference import softdtw as reference
from test_isa_threads import LEVELS, environment_with, same_bits, supported
from torch import Tensor

import torch_dalign as dalign
from torch_dalign import functional

DTYPES = {"float32": torch.float32, "float64": torch.float64}
UNIT = (1.0, 1.0, 1.0)


class Case(NamedTuple):
    """A batch of three pairs of frames, the last two shorter, and options."""

    shape: tuple[int, int, int]  # N, M, D
    penalty: str = "squared"
    metric: str = "sqeuclidean"
    gamma: float = 0.5
    band: float | None = None
    step_weights: tuple[float, float, float] = UNIT
    ends: tuple[str, str] = ("corner", "corner")
    alpha: float = 0.3

    @property
    def lengths(self) -> list[tuple[int, int]]:
        n, m, _ = self.shape
        return [(n, m), (max(1, n - 5), max(1, m - 2)), (1, m)]

    @property
    def is_dilate(self) -> bool:
        """Whether `DILATE` has all these options."""
        return self.step_weights == UNIT and self.ends == ("corner", "corner")

    def features(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        n, m, d = self.shape
        generator = torch.Generator().manual_seed(n * m + d)
        x, y = (torch.rand(3, size, d, generator=generator, dtype=dtype) for size in (n, m))
        return (0.1 + 0.8 * x, (y > 0.5).to(dtype)) if self.metric == "bce" else (x, y)

    def omega(self, dtype: torch.dtype) -> Tensor:
        n, m, _ = self.shape
        return torch.randn(3, n, m, generator=torch.Generator().manual_seed(m), dtype=dtype)


# Shapes on both sides of what vectors (4 to 16 lanes) hold, several blocks of waves, frames of few numbers and of many.
CASES = [
    Case((1, 1, 1)),
    Case((2, 40, 1), "absolute"),
    Case((33, 17, 1)),
    Case((17, 33, 2), "relative"),
    Case((31, 30, 3), "given"),
    Case((30, 28, 12), "squared", gamma=0.05),
    Case((26, 30, 5), "relative", band=5),
    Case((30, 20, 4), "given", "manhattan", band=3.5),
    Case((24, 25, 6), "absolute", "bce", gamma=2.0),
    Case((20, 22, 3), "squared", "euclidean"),
    Case((25, 24, 3), "squared", gamma=1e-9),  # exponents too large for floats
    Case((21, 20, 2), "given", step_weights=(0.5, 1.0, 2.0)),
    Case((18, 35, 2), "squared", ends=("any_y", "any_y")),
]


def compute(case: Case, dtype: torch.dtype) -> dict[str, Tensor]:
    """Everything that the kernels give, weighed by what stands for the derivative of a loss."""
    x, y = (side.requires_grad_() for side in case.features(dtype))
    lengths = dict(zip(("x_lengths", "y_lengths"), torch.tensor(case.lengths).T, strict=True))
    omega = case.omega(dtype).requires_grad_() if case.penalty == "given" else case.penalty
    results: dict[str, Tensor] = {}
    if case.is_dilate:
        loss = dalign.DILATE(case.alpha, case.gamma, omega, case.metric, case.band, "none")
        found = loss(x, y, **lengths, return_parts=True)
        grads = torch.autograd.grad(found[0].sum(), (x, y))
        results |= dict(zip(("loss", "shape", "temporal", "grad_x", "grad_y"), (*found, *grads), strict=True))
    cost = dalign.pairwise(x, y, case.metric).detach().requires_grad_()
    options: dict[str, Any] = {"band": case.band, "step_weights": case.step_weights}
    start, end = case.ends
    mean = functional.expected_cost(cost, omega, case.gamma, start=start, end=end, **options, **lengths)
    leaves = (cost, omega) if isinstance(omega, Tensor) else (cost,)
    results |= {"mean": mean}
    results |= dict(zip(("grad_cost", "grad_omega"), torch.autograd.grad(mean.sum(), leaves), strict=False))
    if case.ends == ("corner", "corner"):
        results |= compute_paths(case, x, y, cost, lengths, options)
    return {name: tensor.detach() for name, tensor in results.items()}


def compute_paths(
    case: Case, x: Tensor, y: Tensor, cost: Tensor, lengths: dict[str, Tensor], options: dict[str, Any]
) -> dict[str, Tensor]:
    """Losses of paths that are drawn, their gradients, and expected times."""
    paths, counts = drawn(case, cost, lengths, options)
    along = dalign.PathCost(case.metric, "none", step_weights=case.step_weights)(x, y, paths, counts, **lengths)
    likely = dalign.PathNLL(case.gamma, case.metric, reduction="none", **options)(x, y, paths, counts, **lengths)
    align = functional.alignment(cost, case.gamma, **options, **lengths)
    warp = dalign.expected_warp(align, **lengths)
    results = {"paths": paths, "path_cost": along, "path_nll": likely, "warp": warp.mean, "deviation": warp.deviation}
    return results | dict(zip(("nll_x", "nll_y"), torch.autograd.grad(likely.sum(), (x, y)), strict=True))


def drawn(case: Case, cost: Tensor, lengths: dict[str, Tensor], options: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """A path of each item, by the float64 costs of rounded frames, which have the same bits everywhere."""
    generator = torch.Generator().manual_seed(7)
    sampled = dalign.sample_paths(
        cost.double().round(decimals=3), 1, case.gamma, generator=generator, padded=True, **options, **lengths
    )
    assert isinstance(sampled, tuple)
    return sampled[0][:, 0], sampled[1][:, 0]


def save(path: str) -> None:
    """All results of this process and the name of its instruction set; what the subprocess does."""
    results = {
        f"{index}_{name}_{key}": tensor.numpy()
        for index, case in enumerate(CASES)
        for name, dtype in DTYPES.items()
        for key, tensor in compute(case, dtype).items()
    }
    np.savez(path, isa=dalign.build_info()["isa"], **results)


# ---------------------------------------------------------------- every instruction set against the reference


@pytest.fixture(scope="module", params=LEVELS)
def level_results(request, tmp_path_factory) -> dict[str, np.ndarray]:
    """Results of one instruction set."""
    level = request.param
    if not supported(level):
        pytest.skip(f"this CPU has no {level}")
    path = tmp_path_factory.mktemp(level) / "results.npz"
    done = subprocess.run(
        [sys.executable, __file__, str(path)], env=environment_with(level), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    with np.load(path, allow_pickle=False) as data:
        assert data["isa"] == level
        return dict(data)


class Expected(NamedTuple):
    """What the reference says of one item, and what errors of results are measured by."""

    value: float
    mean: float
    align: np.ndarray
    product: np.ndarray
    omega: np.ndarray
    size: float  # 1 + largest cost / gamma: by it rounded costs move a path's probability
    frames: int  # N + M, of which a path has fewer cells
    mean_size: float  # <|Omega|, H>
    product_size: float  # the product is a covariance: a difference of numbers as large as mean / gamma
    visits: float  # of the frame that paths visit most


@functools.cache
def expected(index: int, name: str) -> list[Expected]:
    """Of each item of a case with ends in the corners."""
    case = CASES[index]
    x, y = (side.detach().double().numpy() for side in case.features(DTYPES[name]))
    given = case.omega(DTYPES[name]).double().numpy()
    options = {"step_weights": case.step_weights, "band": case.band}
    result = []
    for b, (n, m) in enumerate(case.lengths):
        cost = reference_cost.pairwise(x[b, :n], y[b, :m], case.metric)
        omega = given[b, :n, :m] if case.penalty == "given" else formula(case.penalty, n, m)
        align = reference.alignment_fast(cost, case.gamma, **options)
        product = reference.hessian_product(cost, omega, case.gamma, **options)
        value, size = reference.softdtw_fast(cost, case.gamma, **options), 1 + np.abs(cost).max() / case.gamma
        mean_size = float((align * np.abs(omega)).sum())
        product_size = float(size * np.abs(product).max()) + mean_size / case.gamma
        visits = max(align.sum(0).max(), align.sum(1).max())
        result.append(
            Expected(value, (align * omega).sum(), align, product, omega, size, n + m, mean_size, product_size, visits)
        )
    return result


def formula(name: str, n: int, m: int) -> np.ndarray:
    i, j = np.arange(n)[:, None], np.arange(m)
    return {"squared": (i - j) ** 2.0, "absolute": np.abs(i - j) * 1.0, "relative": (i / n - j / m) ** 2}[name]


def close(found: np.ndarray, exact: np.ndarray | float, name: str, size: float, what: str) -> None:
    """Within a few roundings of numbers of that size. The reference's own, of logarithms, are those in float64."""
    rounding = {"float32": 1e-5, "float64": 3e-12}[name]
    np.testing.assert_allclose(found, exact, rtol=0, atol=rounding * size, err_msg=what)


SOFT = [index for index, case in enumerate(CASES) if case.ends == ("corner", "corner") and case.gamma > 1e-6]
STEEPEST = {"sqeuclidean": 2.0, "euclidean": 1.0, "manhattan": 1.0, "bce": 10.0}  # |d cost / d x|, here


@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize("index", [index for index in SOFT if CASES[index].is_dilate])
def test_dilate_matches_the_reference(level_results, index, name):
    case = CASES[index]
    found = {key: level_results[f"{index}_{name}_{key}"] for key in ("loss", "shape", "temporal", "grad_x", "grad_y")}
    x, y = (side.double().numpy() for side in case.features(DTYPES[name]))
    for b, ((n, m), own) in enumerate(zip(case.lengths, expected(index, name), strict=True)):
        by_shape, by_time = case.alpha, (1 - case.alpha) / (n * m)
        shape_size, mean_size = case.gamma * own.size * own.frames, own.size * own.mean_size
        close(found["shape"][b], own.value, name, shape_size, "shape")
        close(found["temporal"][b], own.mean / (n * m), name, mean_size / (n * m), "temporal")
        loss = by_shape * own.value + by_time * own.mean
        close(found["loss"][b], loss, name, by_shape * shape_size + by_time * mean_size, "loss")
        slope = by_shape * own.align + by_time * own.product
        slope_size = (by_shape * own.size + by_time * own.product_size) * own.visits * STEEPEST[case.metric]
        grads = reference_cost.pairwise_backward(x[b, :n], y[b, :m], case.metric, slope)
        for key, grad, frames in (("grad_x", grads[0], n), ("grad_y", grads[1], m)):
            close(found[key][b, :frames], grad, name, slope_size, key)
            assert not found[key][b, frames:].any()


@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize("index", SOFT)
def test_expected_cost_matches_the_reference(level_results, index, name):
    found = {key: level_results.get(f"{index}_{name}_{key}") for key in ("mean", "grad_cost", "grad_omega")}
    for b, ((n, m), own) in enumerate(zip(CASES[index].lengths, expected(index, name), strict=True)):
        close(found["mean"][b], own.mean, name, own.size * own.mean_size, "mean")
        close(found["grad_cost"][b, :n, :m], own.product, name, own.product_size, "grad_cost")
        if found["grad_omega"] is not None:
            close(found["grad_omega"][b, :n, :m], own.align, name, own.size, "grad_omega")


@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize("index", SOFT)
def test_paths_match_the_reference(level_results, index, name):
    case = CASES[index]
    keys = ("paths", "path_cost", "path_nll", "nll_x", "nll_y", "warp", "deviation")
    found = {key: level_results[f"{index}_{name}_{key}"] for key in keys}
    x, y = (side.double().numpy() for side in case.features(DTYPES[name]))
    for b, ((n, m), own) in enumerate(zip(case.lengths, expected(index, name), strict=True)):
        path = found["paths"][b][found["paths"][b, :, 0] >= 0]
        cost = reference_cost.pairwise(x[b, :n], y[b, :m], case.metric)
        weights = path_weights(path, case.step_weights)
        along = float((weights * cost[tuple(path.T)]).sum())
        assert along == pytest.approx(reference_dtw.path_cost(cost, path, reference.STEPS, case.step_weights))
        close(found["path_cost"][b], along, name, along, "path_cost")
        close(found["path_nll"][b], (along - own.value) / case.gamma, name, own.size * own.frames, "path_nll")
        slope = -own.align
        np.add.at(slope, tuple(path.T), weights)
        grads = reference_cost.pairwise_backward(x[b, :n], y[b, :m], case.metric, slope / case.gamma)
        slope_size = own.size * own.visits * STEEPEST[case.metric] / case.gamma
        for key, grad, frames in (("nll_x", grads[0], n), ("nll_y", grads[1], m)):
            close(found[key][b, :frames], grad, name, slope_size, key)
        mean, deviation = reference_paths.expected_warp(own.align, np.arange(m))
        close(found["warp"][b, :n], mean, name, own.size * m, "warp")
        variance = found["deviation"][b, :n].astype(np.float64) ** 2
        close(variance, deviation**2, name, own.size * m * m, "variance")


def path_weights(path: np.ndarray, step_weights: tuple[float, float, float]) -> np.ndarray:
    """Of each cell, 1 for the first."""
    of_step = dict(zip(reference.STEPS, step_weights, strict=True))
    return np.array([1.0, *(of_step[tuple(step)] for step in np.diff(path, axis=0).tolist())])


@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize("index", [index for index in range(len(CASES)) if index not in SOFT])
def test_other_lattices_agree_with_their_alignment(level_results, index, name):
    """Free ends, and a temperature of hard DTW: <Omega, H> and H of the general lattice, in this process."""
    case = CASES[index]
    x, y = (side.double() for side in case.features(DTYPES[name]))
    lengths = dict(zip(("x_lengths", "y_lengths"), torch.tensor(case.lengths).T, strict=True))
    start, end = case.ends
    align = functional.ddtw_alignment(
        dalign.pairwise(x, y, case.metric), case.gamma, start=start, end=end, **lengths
    ).numpy()
    for b, (n, m) in enumerate(case.lengths):
        mean = float((align[b, :n, :m] * formula(case.penalty, n, m)).sum())
        close(level_results[f"{index}_{name}_mean"][b], mean, name, 10 * mean, "mean")


# ---------------------------------------------------------------- threads


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    """Sets the number of threads, and puts it back."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


THREADED = {
    "formula": Case((90, 80, 1)),
    "frames": Case((70, 120, 6), "relative", gamma=0.1),
    "band": Case((120, 110, 3), "absolute", band=9),
    "given": Case((80, 90, 2), "given"),
    "weights": Case((70, 60, 3), "given", step_weights=(0.5, 1.0, 2.0)),
    "too far for floats": Case((60, 70, 2), gamma=1e-9),
    "free ends": Case((50, 130, 2), "squared", ends=("any_y", "any_y")),
}


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@pytest.mark.parametrize("name", THREADED)
def test_threads_do_not_change_a_bit(name, dtype, threads):
    results = []
    for number in (1, 2, 3):
        threads(number)
        results.append(list(compute(THREADED[name], dtype).values()))
    assert results[0][0].isfinite().any()
    assert all(same_bits(results[0], other) for other in results[1:])


if __name__ == "__main__":
    save(sys.argv[1])
