"""soft-DTW and the general lattice on every instruction set, and with any number of threads to the same bits.

The instruction set is chosen when the library is loaded, so each has a process of its own: this file, run as a script,
computes all cases and saves them.
"""

from __future__ import annotations

import functools
import math
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from reference import cost as reference_cost
from reference import ddtw as reference_ddtw
from reference import softdtw as reference
from torch import Tensor

import torch_dalign as dalign
from torch_dalign import functional

INF = math.inf
LEVELS = dalign.build_info()["isa_levels"]
DTYPES = {"float32": torch.float32, "float64": torch.float64}
UNIT = (1.0, 1.0, 1.0)
EPS64 = torch.finfo(torch.float64).eps


# ---------------------------------------------------------------- cases for every instruction set


class Case(NamedTuple):
    """A batch of two pairs of sequences and options; the second pair is shorter, by an odd number of frames."""

    metric: str
    shape: tuple[int, int, int]  # N, M, D
    gamma: float
    band: float | None = None
    step_weights: tuple[float, float, float] = UNIT

    @property
    def options(self) -> dict[str, Any]:
        return {"band": self.band, "step_weights": self.step_weights}

    @property
    def lengths(self) -> tuple[list[int], list[int]]:
        n, m, _ = self.shape
        return [n, max(1, n - 5)], [m, max(1, m - 3)]

    def features(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        n, m, d = self.shape
        generator = torch.Generator().manual_seed(n * m + d)
        x, y = (torch.randn(2, length, d, generator=generator, dtype=dtype) for length in (n, m))
        if self.metric == "nll":
            return x.log_softmax(2), torch.randint(d, (2, m), generator=generator)
        return (x.sigmoid(), (y > 0).to(dtype)) if self.metric == "bce" else (x, y)


# Shapes on both sides of what vectors (4 to 16 lanes) and strips of rows (up to 64) hold, and D of every remainder.
CASES = [
    Case("sqeuclidean", (1, 1, 1), 1.0),
    Case("sqeuclidean", (3, 50, 2), 0.1),
    Case("sqeuclidean", (50, 3, 5), 0.1),
    Case("sqeuclidean", (65, 63, 12), 1.0),
    Case("sqeuclidean", (40, 47, 16), 100.0),
    Case("sqeuclidean", (33, 31, 1), 1e-4),  # costs of more than 2^14 gamma: the wide path
    Case("sqeuclidean", (70, 75, 3), 0.3, band=6),
    Case("sqeuclidean", (17, 90, 7), 0.3, band=2.5),
    Case("euclidean", (31, 34, 4), 0.5, step_weights=(0.3, 1.0, 2.0)),
    Case("manhattan", (16, 17, 9), 0.5, step_weights=(INF, 1.0, 1.0)),
    Case("cosine", (32, 33, 13), 0.05),
    Case("nll", (35, 20, 8), 1.0, step_weights=(0.1, INF, 1.0)),
    Case("bce", (30, 26, 12), 0.5, band=4, step_weights=(1.0, 1.0, 2.0)),
]


def compute(case: Case, dtype: torch.dtype) -> dict[str, Tensor]:
    """Everything the kernels give: from features, and from a lattice with blocked cells."""
    x, y = case.features(dtype)
    lengths = [torch.tensor(v) for v in case.lengths]
    inputs = [x.requires_grad_()] + ([y.requires_grad_()] if case.metric != "nll" else [])
    loss = dalign.SoftDTW(case.gamma, case.metric, reduction="none", **case.options)
    value = loss(x, y, *lengths)
    results = {"value": value, "alignment": loss.alignment(x, y, *lengths)}
    results |= dict(zip(("grad_x", "grad_y"), torch.autograd.grad(value.sum(), inputs), strict=False))

    cost = lattice(case, dtype).requires_grad_()
    named = dict(zip(("x_lengths", "y_lengths"), lengths, strict=True))
    given = functional.soft_dtw(cost, case.gamma, **named, **case.options)
    (align,) = torch.autograd.grad(given.sum(), cost, create_graph=True)
    (product,) = torch.autograd.grad(align, cost, tangent(cost))
    results |= {"given_value": given, "given_alignment": align, "product": product}
    return {name: tensor.detach() for name, tensor in results.items()}


def lattice(case: Case, dtype: torch.dtype) -> Tensor:
    n, m, d = case.shape
    generator = torch.Generator().manual_seed(d)
    cost = torch.rand(2, n, m, generator=generator, dtype=dtype)
    cost[torch.rand(2, n, m, generator=generator) < 0.03] = INF
    cost[:, 0, 0] = 0.5
    return cost


def tangent(cost: Tensor) -> Tensor:
    return torch.randn(cost.shape, generator=torch.Generator().manual_seed(1), dtype=cost.dtype)


class DDTWCase(NamedTuple):
    """A batch of three lattices, the last two shorter; weights are told apart by batch, rows, columns, or None."""

    shape: tuple[int, int]
    steps: tuple[tuple[int, int], ...]
    weights: tuple[bool, bool, bool] | None = None
    start: Any = "corner"
    end: Any = "corner"
    gamma: float = 0.5
    smoothing: str = "softmin"

    @property
    def lengths(self) -> list[tuple[int, int]]:
        n, m = self.shape
        return [(n, m), (max(1, n - 5), m), (max(1, n - 1), max(1, m - 3))]

    def inputs(self, dtype: torch.dtype) -> dict[str, Tensor]:
        """Costs, weights, costs of the ends, factors; as functional.ddtw names them."""
        n, m = self.shape
        generator = torch.Generator().manual_seed(n * m)

        def draw(*shape: int) -> Tensor:
            return torch.rand(shape, generator=generator, dtype=dtype)

        found = {"cost": 2 * draw(3, n, m) - 0.2, "factors": draw(3) - 0.5}
        if self.weights is not None:
            shape = [size if apart else 1 for size, apart in zip((3, n, m), self.weights, strict=True)]
            weights = 2 * draw(*shape, len(self.steps))
            found["step_weights"] = weights.masked_fill(draw(*weights.shape) < 0.05, INF)
        for name in ("start", "end"):
            if getattr(self, name) == "costs":
                found[name] = draw(1, n, m).masked_fill(draw(1, n, m) < 0.5, INF)
        return found


THREE, CTC, COLUMNS = ((1, 0), (0, 1), (1, 1)), ((1, 0), (1, 1), (1, 2)), ((0, 1), (1, 1), (2, 1))
DDTW_CASES = [
    DDTWCase((1, 1), THREE),
    DDTWCase((33, 31), THREE, end="any_y"),
    DDTWCase((20, 47), THREE, (False, False, False), "costs", "costs"),
    DDTWCase((47, 20), THREE, (True, True, True), "any_x"),
    DDTWCase((40, 33), CTC),
    DDTWCase((17, 65), CTC, (True, False, True), (1, 2), (1, 2)),
    DDTWCase((35, 16), CTC, (False, True, False)),
    DDTWCase((31, 40), COLUMNS),
    DDTWCase((31, 40), COLUMNS, (False, True, False), "any_y", "costs"),
    DDTWCase((30, 34), ((1, 0), (0, 1), (3, 1), (1, 4)), (False, False, True)),
    DDTWCase((32, 33), THREE, gamma=1e-7),  # too far for floats
    DDTWCase((20, 22), THREE, (True, False, False), smoothing="smoothmin"),
    DDTWCase((20, 22), CTC, (False, True, True), smoothing="sparsemin"),
]


def compute_ddtw(case: DDTWCase, dtype: torch.dtype) -> dict[str, Tensor]:
    """Values, and the derivatives of their sum weighed by the factors."""
    leaves = case.inputs(dtype)
    factors = leaves.pop("factors")
    leaves = {name: leaf.requires_grad_() for name, leaf in leaves.items()}
    x_lengths, y_lengths = torch.tensor(case.lengths).T
    options = {"start": case.start, "end": case.end, "x_lengths": x_lengths, "y_lengths": y_lengths} | leaves
    value = functional.ddtw(options.pop("cost"), case.gamma, steps=case.steps, smoothing=case.smoothing, **options)
    slopes = torch.autograd.grad(value, leaves.values(), factors)
    return {"value": value.detach()} | dict(zip(leaves, slopes, strict=True))


def save(path: str) -> None:
    """All results of this process and the name of its instruction set; what the subprocess does."""
    results = {
        f"ddtw_{index}_{name}_{key}": tensor.numpy()
        for index, case in enumerate(DDTW_CASES)
        for name, dtype in DTYPES.items()
        for key, tensor in compute_ddtw(case, dtype).items()
    }
    results |= {
        f"{index}_{name}_{key}": tensor.numpy()
        for index, case in enumerate(CASES)
        for name, dtype in DTYPES.items()
        for key, tensor in compute(case, dtype).items()
    }
    np.savez(path, isa=dalign.build_info()["isa"], **results)


# ---------------------------------------------------------------- every instruction set against the reference


def supported(level: str) -> bool:
    """Whether this CPU has a level, by what torch found."""
    return LEVELS.index(level) <= {"AVX2": 1, "AVX512": 2}.get(torch.backends.cpu.get_cpu_capability(), 0)


def environment_with(level: str) -> dict[str, str]:
    return os.environ | {"DALIGN_ISA": level, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}


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


@pytest.mark.skipif("DALIGN_ISA" in os.environ, reason="this process was asked for an instruction set itself")
def test_an_unknown_level_is_not_taken():
    script = "import torch_dalign; print(torch_dalign.build_info()['isa'])"
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment_with("avx1024"), capture_output=True, text=True, timeout=300
    )
    assert done.stdout.strip() == dalign.build_info()["isa"]


@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize("index", range(len(CASES)))
def test_features_match_the_reference(level_results, index, name):
    results = {key: level_results.get(f"{index}_{name}_{key}") for key in ("value", "alignment", "grad_x", "grad_y")}
    for b, expected in enumerate(expected_of_features(index, name)):
        expected.lattice.check(results["value"][b], results["alignment"][b])
        for key, gradient in (("grad_x", expected.grad_x), ("grad_y", expected.grad_y)):
            if gradient is not None:
                gradient.check(results[key][b])


@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize("index", range(len(CASES)))
def test_lattices_match_the_reference(level_results, index, name):
    values, aligns, products = (
        level_results[f"{index}_{name}_{key}"] for key in ("given_value", "given_alignment", "product")
    )
    for b, expected in enumerate(expected_of_lattices(index, name)):
        expected.lattice.check(values[b], aligns[b])
        if expected.product is not None:
            expected.product.check(products[b])


@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize("index", range(len(DDTW_CASES)))
def test_general_lattices_match_the_reference(level_results, index, name):
    """Values to 1e-5 in float32, derivatives to 1e-4 of their largest; in float64 to 1e-10 and 1e-9."""
    expected, is_single = expected_of_ddtw(index, name), name == "float32"
    for key, part in (
        ("value", "value"),
        ("cost", "cost"),
        ("step_weights", "weights"),
        ("start", "start"),
        ("end", "end"),
    ):
        found, exact = level_results.get(f"ddtw_{index}_{name}_{key}"), getattr(expected, part)
        if found is None:
            continue
        one, other = (1e-5, 1e-10) if key == "value" else (1e-4, 1e-9)
        largest = np.abs(exact[np.isfinite(exact)]).max(initial=1)
        np.testing.assert_allclose(found, exact, rtol=0, atol=(one if is_single else other) * largest, err_msg=key)


# ---------------------------------------------------------------- what the reference says, once for all levels


class Near(NamedTuple):
    """An array and how far others may be from it."""

    array: np.ndarray
    tolerance: float

    def check(self, padded: np.ndarray) -> None:
        """padded has zeros after the array in every dimension."""
        inside = tuple(slice(size) for size in self.array.shape)
        assert np.abs(padded[inside] - self.array).max() <= self.tolerance
        assert np.count_nonzero(padded) == np.count_nonzero(padded[inside])


class Lattice(NamedTuple):
    """Value and alignment of one pair, within what costs rounded by eps explain."""

    value: float
    value_tolerance: float
    alignment: Near
    moved: np.ndarray  # the alignment of costs that are rounded by eps
    roundings: float  # of an alignment, besides those of the costs

    def check(self, value: float, align: np.ndarray) -> None:
        assert value == self.value or abs(value - self.value) <= self.value_tolerance  # equal: infinity
        self.alignment.check(align)


class FeaturesExpected(NamedTuple):
    lattice: Lattice
    grad_x: Near
    grad_y: Near | None


class LatticeExpected(NamedTuple):
    lattice: Lattice
    product: Near | None


@functools.cache
def expected_of_features(index: int, name: str) -> list[FeaturesExpected]:
    """Of each pair of a case."""
    case, eps, d = CASES[index], torch.finfo(DTYPES[name]).eps, CASES[index].shape[2]
    x, y = (side if side.dtype == torch.int64 else side.double() for side in case.features(DTYPES[name]))
    result = []
    for item_x, item_y, n, m in zip(x.numpy(), y.numpy(), *case.lengths, strict=True):
        pair = item_x[:n], item_y[:m]
        given = expected_of(reference_cost.pairwise(*pair, case.metric), case, (d + 4) * eps)
        own = given.roundings + 4 * eps * d
        flows = (given.alignment.array, given.moved)
        grads = [reference_cost.pairwise_backward(*pair, case.metric, flow) for flow in flows]
        nears = [
            None if exact is None else Near(exact, own * max(1, np.abs(exact).max()) + 3 * np.abs(moved - exact).max())
            for exact, moved in zip(*grads, strict=True)
        ]
        result.append(FeaturesExpected(given, *nears))
    return result


@functools.cache
def expected_of_lattices(index: int, name: str) -> list[LatticeExpected]:
    """Of each pair of a case."""
    case, eps = CASES[index], torch.finfo(DTYPES[name]).eps
    costs = lattice(case, DTYPES[name])
    directions = tangent(costs).double().numpy()
    result = []
    for cost, direction, n, m in zip(costs.double().numpy(), directions, *case.lengths, strict=True):
        item, along, product = cost[:n, :m], direction[:n, :m], None
        if n * m < 1000:  # a Python step per cell
            exact = reference.hessian_product(item, along, case.gamma, **case.options)
            product = Near(exact, eps * np.abs(exact).max() + EPS64 * product_error(item, along, case))
        result.append(LatticeExpected(expected_of(item, case, eps), product))
    return result


def expected_of(cost: np.ndarray, case: Case, eps: float) -> Lattice:
    """Tolerances: sums along a path of size S = <H, C> + gamma (N + M) round by a few eps S, in the reference by
    (N + M) S in float64; an alignment has N + M steps back and forth, and the reference exponents of S / gamma.
    """
    steps, weight = sum(cost.shape), max(w for w in case.step_weights if w < INF)
    paths = reference.alignment_fast(cost, case.gamma, **case.options)
    moved = reference.alignment_fast(shaken(cost, eps), case.gamma, **case.options)
    size = reference.mean_cost(np.abs(cost), paths) + case.gamma * steps
    own = (4 * eps * steps + 4 * EPS64 * size / case.gamma) * weight
    return Lattice(
        reference.softdtw_fast(cost, case.gamma, **case.options),
        (4 * eps + steps * EPS64) * size,
        Near(paths, own + 3 * np.abs(moved - paths).max()),
        moved,
        own,
    )


def shaken(cost: np.ndarray, eps: float) -> np.ndarray:
    """The cost with every entry moved by eps, up or down."""
    return cost * (1 + eps * np.random.default_rng(0).choice((-1.0, 1.0), size=cost.shape))


def product_error(cost: np.ndarray, direction: np.ndarray, case: Case) -> float:
    """Of a Hessian product computed in float64, in units of eps.

    It is -1/gamma times a covariance with sums of N + M tangents, under probabilities exp(-(R_next - R - C) / gamma)
    that both sides round: relatively by R / gamma a step at most, besides the N + M products.
    """
    steps, weight = sum(cost.shape), max(w for w in case.step_weights if w < INF)
    path = reference.mean_cost(cost, reference.alignment_fast(cost, case.gamma, **case.options)) / case.gamma
    return 4 * (path + steps) * steps * weight * np.abs(direction).max() / case.gamma


@functools.cache
def expected_of_ddtw(index: int, name: str) -> reference_ddtw.Batch:
    """Of a case."""
    case = DDTW_CASES[index]
    given = {key: tensor.double().numpy() for key, tensor in case.inputs(DTYPES[name]).items()}
    return reference_ddtw.batch(
        given["cost"],
        case.gamma,
        case.smoothing,
        steps=case.steps,
        weights=given.get("step_weights"),
        start=given.get("start", case.start),
        end=given.get("end", case.end),
        lengths=case.lengths,
        factors=given["factors"],
    )


# ---------------------------------------------------------------- threads


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    """Sets the number of threads, and puts it back."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


class Load(NamedTuple):
    """A batch that takes a certain way through the threads."""

    batch: int
    n: int
    m: int
    dtype: torch.dtype = torch.float32
    gamma: float = 0.3
    band: float | None = None
    metric: str = "sqeuclidean"
    ragged: bool = False
    blocked: bool = False  # a NaN and a pair without a path


LOADS = {
    "items": Load(13, 90, 80, ragged=True),
    "items, float64": Load(9, 90, 80, torch.float64),
    "items, band": Load(13, 150, 160, band=9, ragged=True),
    "items, bce": Load(7, 120, 100, metric="bce"),
    "pipeline": Load(1, 700, 650),
    "pipeline, float64": Load(1, 400, 640, torch.float64),
    "pipeline, tall": Load(1, 2300, 60),
    "pipeline, wide": Load(1, 60, 2300),
    "pipeline, band": Load(1, 900, 1000, band=40),
    "pipeline, narrow band": Load(1, 1500, 1400, torch.float64, band=0.5),
    "pipeline, cosine": Load(1, 512, 512, metric="cosine"),
    "pipeline, wide exponents": Load(1, 400, 500, gamma=1e-4),
    "items, then pipeline": Load(4, 380, 390, ragged=True),
    "items with wide exponents, then pipeline": Load(5, 400, 410, gamma=1e-4, ragged=True),
    "NaN, then pipeline": Load(5, 400, 410, blocked=True),
    "state kept in blocks": Load(1, 8300, 8200),
    "nothing to share": Load(2, 20, 20),
}


def load_inputs(load: Load) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(load.n)
    x, y = (torch.randn(load.batch, size, 5, generator=generator, dtype=load.dtype) for size in (load.n, load.m))
    if load.metric == "bce":
        x, y = x.sigmoid(), (y > 0).to(load.dtype)
    if load.blocked:
        x[1, 7, 1] = math.nan
        y[-1, 100, 0] = math.nan
        x[2, 30] = INF
    lengths = {}
    if load.ragged:
        for name, longest in (("x_lengths", load.n), ("y_lengths", load.m)):
            lengths[name] = torch.randint(1, longest + 1, (load.batch,), generator=generator)
            lengths[name][-1] = longest
    return x, y, lengths


def run(load: Load, second_order: bool = False) -> list[Tensor]:
    """Values and first derivatives from features; from costs too, unless they are many."""
    x, y, lengths = load_inputs(load)
    gamma = torch.tensor(load.gamma, dtype=torch.float64, requires_grad=True)
    inputs = (x.requires_grad_(), y.requires_grad_(), gamma)
    loss = dalign.SoftDTW(gamma, load.metric, band=load.band, reduction="none")
    values = loss(x, y, **lengths)
    weights = torch.linspace(0.5, 1.5, load.batch, dtype=load.dtype)
    results = [values, *torch.autograd.grad(values, inputs, weights)]
    if load.n * load.m < 2**21:
        cost = dalign.pairwise(x, y, load.metric).detach().requires_grad_()
        given = functional.soft_dtw(cost, gamma, band=load.band, **lengths)
        results += [cost, given, *torch.autograd.grad(given, (cost, gamma), weights)]
        align = loss.alignment(x, y, **lengths)
        results.append(align)
        if second_order:
            results += torch.autograd.grad(
                align, (x, y), torch.linspace(-1, 1, align.numel(), dtype=load.dtype).view_as(align)
            )
    return [result.detach() for result in results]


def bits(tensor: Tensor) -> Tensor:
    """NaN equals itself here, and 0 differs from -0."""
    return tensor.reshape(-1).view(torch.uint8)


def same_bits(results: list[Tensor], others: list[Tensor]) -> bool:
    return all(torch.equal(bits(a), bits(b)) for a, b in zip(results, others, strict=True))


@pytest.mark.parametrize("name", LOADS)
def test_threads_do_not_change_a_bit(name, threads):
    load = LOADS[name]
    second_order = load.n * load.m < 200_000
    threads(1)
    alone = run(load, second_order)
    assert alone[0].isfinite().any()
    for number in (2, 3):
        threads(number)
        assert same_bits(run(load, second_order), alone), f"{number} threads"


DDTW_LOADS = {
    "rows": DDTWCase((90, 160), CTC),
    "columns": DDTWCase((120, 110), COLUMNS),
    "diagonals": DDTWCase((120, 110), THREE, end="any_x"),
    "weights of each item": DDTWCase((80, 90), THREE, (True, False, True)),
    "weights, starts and ends of all items": DDTWCase((80, 90), THREE, (False, False, True), "costs", "costs"),
    "too far for floats": DDTWCase((80, 90), CTC, gamma=1e-7),
    "smoothmin": DDTWCase((80, 90), THREE, smoothing="smoothmin"),
    "hardmin": DDTWCase((80, 90), THREE, (False, False, True), smoothing="hardmin"),
}


def run_ddtw(case: DDTWCase, dtype: torch.dtype) -> list[Tensor]:
    """Values, all first derivatives, best paths, and for softmin second derivatives, of 8 ragged items."""
    leaves = case.inputs(dtype)
    generator, (n, m) = torch.Generator().manual_seed(1), case.shape
    leaves["cost"] = torch.rand(8, n, m, generator=generator, dtype=dtype)
    leaves.pop("factors")
    if "step_weights" in leaves and len(leaves["step_weights"]) > 1:
        leaves["step_weights"] = leaves["step_weights"].repeat(3, 1, 1, 1)[:8]
    leaves["gamma"] = torch.tensor(case.gamma, dtype=torch.float64)
    leaves = {name: leaf.requires_grad_() for name, leaf in leaves.items()}
    sides = (("x_lengths", n), ("y_lengths", m))
    lengths = {name: torch.randint(1, size + 1, (8,), generator=generator) for name, size in sides}
    ends = {"start": case.start, "end": case.end} | {k: leaves[k] for k in ("start", "end") if k in leaves}
    options = {"steps": case.steps, "smoothing": case.smoothing, "step_weights": leaves.get("step_weights"), **ends}
    value = functional.ddtw(leaves["cost"], leaves["gamma"], **options, **lengths)
    weights = torch.linspace(-1, 1, 8, dtype=dtype)
    finite = value.isfinite()
    results = [value, *torch.autograd.grad(value[finite], leaves.values(), weights[finite], retain_graph=True)]
    loss = dalign.DDTW(metric="precomputed", **options)
    results += loss.best_path(leaves["cost"], **lengths)
    if case.smoothing == "softmin":
        align = functional.ddtw_alignment(leaves["cost"], leaves["gamma"], **options, **lengths)
        along = torch.linspace(-1, 1, align.numel(), dtype=dtype).view_as(align)
        results += [align, *torch.autograd.grad(align, leaves.values(), along)]
    return [result.detach() for result in results]


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@pytest.mark.parametrize("name", DDTW_LOADS)
def test_threads_do_not_change_a_bit_of_general_lattices(name, dtype, threads):
    threads(1)
    alone = run_ddtw(DDTW_LOADS[name], dtype)
    assert alone[0].isfinite().any()
    for number in (2, 3):
        threads(number)
        assert same_bits(run_ddtw(DDTW_LOADS[name], dtype), alone), f"{number} threads"


def test_sums_over_the_lattice_of_one_pair_do_not_change_a_bit(threads):
    """Second derivatives in gamma and sharp divergences are sums over all cells, which torch sums up on threads."""
    x, y, _ = load_inputs(LOADS["pipeline, float64"])
    cost = dalign.pairwise(x, y).requires_grad_()
    along = torch.linspace(-1, 1, cost.numel(), dtype=cost.dtype).view_as(cost)
    results = []
    for number in (1, 2, 3):
        threads(number)
        gamma = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
        slopes = [
            torch.autograd.grad(function(cost, gamma), gamma, along)[0]
            for function in (functional.alignment, functional.ddtw_alignment)
        ]
        results.append([*slopes, dalign.SoftDTW(0.3, divergence="sharp")(x, y).detach()])
    assert all(same_bits(results[0], other) for other in results[1:])


def test_forward_on_one_thread_and_backward_on_three(threads):
    results = []
    for forward, backward in ((1, 1), (1, 3), (3, 1), (2, 3)):
        x, y, _ = load_inputs(LOADS["pipeline"])
        threads(forward)
        value = dalign.SoftDTW(0.3)(x.requires_grad_(), y.requires_grad_())
        threads(backward)
        results.append([value.detach(), *torch.autograd.grad(value, (x, y))])
    assert all(same_bits(results[0], other) for other in results[1:])


def test_the_last_item_has_the_same_bits_alone_and_after_others(threads):
    """Alone it is a pipeline, among others an item of one thread."""
    load = LOADS["items, then pipeline"]._replace(ragged=False)
    x, y, _ = load_inputs(load)
    threads(2)
    loss = dalign.SoftDTW(0.3, reduction="none")
    together = loss(x.requires_grad_(), y)
    (grads,) = torch.autograd.grad(together.sum(), x)
    for b in range(load.batch):
        leaf = x[b : b + 1].detach().requires_grad_()
        value = loss(leaf, y[b : b + 1])
        (grad,) = torch.autograd.grad(value.sum(), leaf)
        assert same_bits([value.detach(), grad], [together[b : b + 1].detach(), grads[b : b + 1]])


@pytest.mark.parametrize("number", [1, 2, 3])
def test_python_threads_at_the_same_time(number, threads):
    """Each Python thread runs a whole training step of its own; memory and counters belong to a call."""
    names = ("items", "pipeline", "pipeline, band", "items, then pipeline")
    threads(1)
    expected = {name: run(LOADS[name]) for name in names}
    threads(number)
    agree: dict[str, bool] = {}

    def work(name: str) -> None:
        torch.set_num_threads(number)  # some of torch's back ends count per thread
        agree[name] = all(same_bits(run(LOADS[name]), expected[name]) for _ in range(3))

    workers = [threading.Thread(target=work, args=(name,)) for name in names]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=120)
    assert agree == dict.fromkeys(names, True)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    save(sys.argv[1])
