"""soft-DTW against other people's programs: values, alignments and gradients that they computed (see golden/README.md).

What counts as equal follows from the rounding of both sides. Let S = <E, C> + gamma (N + M) bound what is added up
along a path, and eps belong to the type of the features.

* Values are sums of size S: a few roundings, eps S.
* The golden alignments come from exp((R_next - R - C) / gamma) with R of size S in float64: an error of
  eps64 S / gamma in each exponent, besides N + M products that are rounded. Ours have relative exponents.
* In float32 the costs are rounded too, which moves the alignment itself. The promise is three times the error that a
  float64 recursion on the rounded costs has, besides the N + M roundings.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from reference import softdtw as reference

import torch_dalign as dalign
from torch_dalign import functional

HERE = Path(__file__).parent
FOLDERS = [HERE / "golden", HERE.parent.parent / "shared" / "golden" / "softdtw"]
FILES = [folder / "softdtw.npz" for folder in FOLDERS]
CASES, GAMMAS = range(9), range(5)
DTYPES = [torch.float64, torch.float32]


class Golden(NamedTuple):
    """One case at one gamma."""

    gamma: float
    x: np.ndarray
    y: np.ndarray
    cost: np.ndarray
    value: float
    value_tslearn: float
    alignment: np.ndarray
    grad_x: np.ndarray
    grad_y: np.ndarray

    @property
    def steps(self) -> int:
        return len(self.x) + len(self.y)

    @property
    def size(self) -> float:
        """S: what is added up along a path."""
        return float((self.alignment * self.cost).sum()) + self.gamma * self.steps


def load(file: Path, case: int, level: int) -> Golden:
    if not file.exists():
        pytest.skip("the whole folder of golden cases is not beside this checkout")
    with np.load(file, allow_pickle=False) as data:
        own = {key.split("_", 1)[1]: data[key] for key in data.files if key.startswith(f"c{case}_")}
        gamma = float(data["gammas"][level])
    return Golden(
        gamma,
        own["x"],
        own["y"],
        own["cost"],
        float(own["value"][level]),
        float(own["value_tslearn"][level]),
        own["E"][level],
        own["gx"][level],
        own["gy"][level],
    )


def tensors(golden: Golden, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    x, y = (torch.tensor(side, dtype=dtype)[None].requires_grad_() for side in (golden.x, golden.y))
    return x, y


def difference(actual: torch.Tensor | np.ndarray, expected: np.ndarray) -> float:
    """Largest difference, as a share of the largest entry expected (or of 1, if that is larger)."""
    actual = np.asarray(actual.detach().double() if isinstance(actual, torch.Tensor) else actual)
    assert actual.shape == expected.shape
    return float(np.abs(actual - expected).max() / max(1.0, np.abs(expected).max()))


def rounded(golden: Golden, x: torch.Tensor, y: torch.Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Alignment and gradients of float64 recursions on features and costs that were rounded to float32."""
    x32, y32 = x.detach()[0].numpy(), y.detach()[0].numpy()
    cost = ((x32[:, None] - y32[None]) ** 2).sum(2)
    assert cost.dtype == np.float32
    align = reference.alignment_fast(cost.astype(np.float64), golden.gamma)
    gap = 2 * (x32.astype(np.float64)[:, None] - y32.astype(np.float64)[None])
    flow = align[..., None] * gap
    return align, flow.sum(1), -flow.sum(0)


def tolerances(golden: Golden, x: torch.Tensor, y: torch.Tensor) -> tuple[float, float, float]:
    """Of the alignment and of the gradients for x and y."""
    eps = torch.finfo(torch.float64).eps
    own = 4 * eps * golden.size / golden.gamma + eps * golden.steps
    if x.dtype == torch.float64:
        return own, own, own
    roundings = golden.steps * torch.finfo(torch.float32).eps
    expected = (golden.alignment, golden.grad_x, golden.grad_y)
    a, b, c = (
        own + roundings + 3 * difference(found, exact)
        for found, exact in zip(rounded(golden, x, y), expected, strict=True)
    )
    return a, b, c


files = pytest.mark.parametrize("file", FILES, ids=["copied", "whole"])
cases = pytest.mark.parametrize("case", CASES)
levels = pytest.mark.parametrize("level", GAMMAS)
dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=["float64", "float32"])


@files
def test_all_cases_are_tested(file):
    if not file.exists():
        pytest.skip("the whole folder of golden cases is not beside this checkout")
    with np.load(file, allow_pickle=False) as data:
        assert len(data["shapes"]) == len(CASES)
        assert len(data["gammas"]) == len(GAMMAS)
        for case, (n, m, d) in enumerate(data["shapes"]):
            assert data[f"c{case}_x"].shape == (n, d)
            assert data[f"c{case}_y"].shape == (m, d)


@files
@cases
@levels
@dtypes
def test_values(file, case, level, dtype):
    golden = load(file, case, level)
    x, y = tensors(golden, dtype)
    value = dalign.SoftDTW(golden.gamma)(x, y).item()
    tolerance = 4 * torch.finfo(dtype).eps * golden.size
    assert abs(value - golden.value) <= tolerance
    assert abs(value - golden.value_tslearn) <= tolerance
    cost = torch.tensor(golden.cost, dtype=dtype)[None]
    assert abs(functional.soft_dtw(cost, golden.gamma).item() - golden.value) <= tolerance
    log_kernel = dalign.gak(x, y, golden.gamma).item()
    assert abs(log_kernel + golden.value / golden.gamma) <= tolerance / golden.gamma


@files
@cases
@levels
@dtypes
def test_alignments_and_gradients(file, case, level, dtype):
    golden = load(file, case, level)
    x, y = tensors(golden, dtype)
    loss = dalign.SoftDTW(golden.gamma)
    loss(x, y).backward()
    alignment_tolerance, x_tolerance, y_tolerance = tolerances(golden, x, y)
    assert difference(loss.alignment(x, y)[0], golden.alignment) <= alignment_tolerance
    assert difference(x.grad[0], golden.grad_x) <= x_tolerance
    assert difference(y.grad[0], golden.grad_y) <= y_tolerance


@files
@cases
@levels
def test_gradient_for_given_costs_is_the_alignment(file, case, level):
    golden = load(file, case, level)
    cost = torch.tensor(golden.cost)[None].requires_grad_()
    functional.soft_dtw(cost, golden.gamma).backward()
    tolerance, _, _ = tolerances(golden, *tensors(golden, torch.float64))
    assert difference(cost.grad[0], golden.alignment) <= tolerance
    assert difference(functional.alignment(cost, golden.gamma)[0], golden.alignment) <= tolerance


@files
@pytest.mark.parametrize("case", CASES)
def test_costs(file, case):
    golden = load(file, case, 0)
    cost = dalign.pairwise(*tensors(golden, torch.float64))
    d = golden.x.shape[1]
    np.testing.assert_allclose(cost[0].detach().numpy(), golden.cost, rtol=(d + 3) * torch.finfo(torch.float64).eps)


@pytest.mark.parametrize("dtype", DTYPES, ids=["float64", "float32"])
@levels
def test_all_cases_in_one_batch(level, dtype):
    """Pairs of all lengths padded to the longest, one feature each: the same values as alone."""
    goldens = [golden for case in CASES if (golden := load(FILES[0], case, level)).x.shape[1] == 1]
    n, m = max(len(g.x) for g in goldens), max(len(g.y) for g in goldens)
    x, y = (
        torch.full((len(goldens), n, 1), torch.nan, dtype=dtype),
        torch.full((len(goldens), m, 1), torch.nan, dtype=dtype),
    )
    for b, golden in enumerate(goldens):
        x[b, : len(golden.x)], y[b, : len(golden.y)] = torch.tensor(golden.x), torch.tensor(golden.y)
    lengths = (torch.tensor([len(g.x) for g in goldens]), torch.tensor([len(g.y) for g in goldens]))
    values = dalign.SoftDTW(goldens[0].gamma, reduction="none")(x, y, *lengths)
    for value, golden in zip(values.tolist(), goldens, strict=True):
        assert abs(value - golden.value) <= 4 * torch.finfo(dtype).eps * golden.size
