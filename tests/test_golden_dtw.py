"""Hard DTW against other people's programs: values and paths that they computed (see golden/README.md).

The costs are random numbers of float64, so best paths are unique and must be the same cell by cell.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import torch_dalign as dalign
from torch_dalign import functional

CASES = range(4)


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(Path(__file__).parent / "golden" / "dtw.npz", allow_pickle=False) as data:
        return {key: data[key] for key in data.files}


def cost_of(golden: dict[str, np.ndarray], case: int) -> torch.Tensor:
    return torch.from_numpy(golden[f"c{case}_cost"])[None]


def compare(cost: torch.Tensor, value: Any, path: np.ndarray | None = None, **options: Any) -> None:
    """value and, from its first cell on, path."""
    np.testing.assert_allclose(functional.dtw(cost, **options).item(), value, rtol=1e-12)
    if path is not None:
        found = dalign.dtw_path(cost, metric="precomputed", **options)[0].numpy()
        np.testing.assert_array_equal(found, path if path[0].sum() <= path[-1].sum() else path[::-1])


@pytest.mark.parametrize("case", CASES)
def test_plain(golden, case):
    cost = cost_of(golden, case)
    compare(cost, golden[f"c{case}_librosa_D"][-1, -1], golden[f"c{case}_librosa_path"])
    compare(cost, golden[f"c{case}_tslearn_dtw"] ** 2, golden[f"c{case}_tslearn_path"])
    compare(cost, golden[f"c{case}_aeon_dtw"])
    compare(cost, golden[f"c{case}_dtaidistance"] ** 2)


@pytest.mark.parametrize("case", CASES)
def test_from_features(golden, case):
    x, y = (torch.from_numpy(golden[f"c{case}_{side}"])[None] for side in "xy")
    np.testing.assert_allclose(dalign.dtw(x, y).item(), golden[f"c{case}_aeon_dtw"], rtol=1e-12)
    path = dalign.dtw_path(x, y)[0].numpy()
    np.testing.assert_array_equal(path, golden[f"c{case}_tslearn_path"])


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("pattern", ["symmetric1", "symmetric2", "asymmetric"])
def test_step_patterns_of_dtw_python(golden, pattern, case):
    key = f"c{case}_dtwpy_{pattern}"
    if f"{key}_dist" not in golden:
        pytest.skip("dtw-python finds no path in this case")
    path = np.stack([golden[f"{key}_i1"], golden[f"{key}_i2"]], 1)
    compare(cost_of(golden, case), golden[f"{key}_dist"], path, steps=pattern)


@pytest.mark.parametrize("case", CASES)
def test_steps_of_one_and_two(golden, case):
    cost, total = cost_of(golden, case), golden[f"c{case}_librosa_112_D"]
    compare(cost, total[-1, -1], golden[f"c{case}_librosa_112_path"], steps="2-1")


@pytest.mark.parametrize("case", CASES)
def test_subsequences(golden, case):
    cost = cost_of(golden, case)
    shorter_first = cost if cost.shape[1] <= cost.shape[2] else cost.transpose(1, 2)
    total, path = golden[f"c{case}_librosa_subseq_D"], golden[f"c{case}_librosa_subseq_path"]
    compare(shorter_first, total[-1].min(), path, subsequence=True)
    if f"c{case}_tslearn_subseq_dtw" in golden:  # not for the longer x
        value, path = golden[f"c{case}_tslearn_subseq_dtw"], golden[f"c{case}_tslearn_subseq_path"]
        compare(shorter_first, value**2, path, subsequence=True)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("begin", [False, True])
def test_open_ends_of_dtw_python(golden, begin, case):
    key = f"c{case}_dtwpy_open_b{int(begin)}e1"
    if f"{key}_dist" not in golden:
        pytest.skip("dtw-python finds no path in this case")
    path = np.stack([golden[f"{key}_i1"], golden[f"{key}_i2"]], 1)
    options = {"steps": "asymmetric", "open_begin": begin, "open_end": True}
    compare(cost_of(golden, case), golden[f"{key}_dist"], path, **options)


@pytest.mark.parametrize("case", CASES)
def test_blocked_cells_are_their_masks(golden, case):
    """tslearn's bands and parallelograms, given as blocked cells."""
    prefix = f"c{case}_"
    for key in [key.removesuffix("_mask") for key in golden if key.startswith(prefix) and key.endswith("_mask")]:
        cost = cost_of(golden, case).masked_fill(torch.from_numpy(~golden[f"{key}_mask"]), torch.inf)
        compare(cost, golden[f"{key}_dtw"] ** 2, golden[f"{key}_path"])


def test_bands_of_equal_lengths(golden):
    """For N = M the three programs and ours mean the same band, and tslearn's parallelogram is ours."""
    cost = cost_of(golden, 1)
    for radius in (1, 2, 4):
        compare(cost, golden[f"c1_tslearn_sc{radius}_dtw"] ** 2, golden[f"c1_tslearn_sc{radius}_path"], band=radius)
    for slope in (1.5, 2.0, 3.0):
        compare(cost, golden[f"c1_tslearn_it{slope}_dtw"] ** 2, golden[f"c1_tslearn_it{slope}_path"], itakura=slope)
    path = np.stack([golden["c1_dtwpy_sakoechiba_i1"], golden["c1_dtwpy_sakoechiba_i2"]], 1)
    compare(cost, golden["c1_dtwpy_sakoechiba_dist"], path, band=3, steps="symmetric2")
