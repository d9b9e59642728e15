"""The general lattice and its named settings against the dDTW authors' own toolbox (see golden/README.md).

Both sides compute in float64, so they agree but for the roundings of a dozen steps; weights of 0.1 were rounded to
float32 there. Where no path reaches the corner theirs gives 1e20 for smoothmin, and no usable derivative.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import torch_dalign as dalign
from torch_dalign import functional, presets

HERE = Path(__file__).parent
FOLDERS = [HERE / "golden", HERE.parent.parent / "shared" / "golden" / "ddtw"]
folders = pytest.mark.parametrize("folder", FOLDERS, ids=["copied", "whole"])
dtypes = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
STEP_SETS = {
    "S1": ((1, 0), (0, 1), (1, 1)),
    "S2": ((1, 1), (1, 2), (2, 1)),
    "S3": ((1, 0), (1, 1)),
    "S4": ((1, 0), (1, 1), (1, 2)),
}
SMOOTHINGS = ("softmin", "sparsemin", "smoothmin", "hardmin")


@functools.cache
def load(file: Path) -> dict[str, np.ndarray]:
    if not file.exists():
        pytest.skip("the whole folder of golden cases is not beside this checkout")
    with np.load(file, allow_pickle=False) as data:
        return dict(data)


def toolbox(folder: Path) -> dict[str, np.ndarray]:
    return load(folder / "ddtw_toolbox.npz")


def leaf(array: np.ndarray, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.tensor(array, dtype=dtype).requires_grad_()


def close(found: Tensor, expected: np.ndarray, tolerance: float) -> None:
    """As a share of the largest, or of 1."""
    found = found.detach().double().numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * max(1, np.abs(expected).max()))


# ---------------------------------------------------------------- lattices of given costs


def cases(golden: dict[str, np.ndarray], smoothing: str) -> list[str]:
    """Keys without what they give: costs, steps, weights, operator, gamma."""
    keys = [key.removesuffix("|value") for key in golden if key.count("|") == 5 and key.endswith("|value")]
    return [key for key in keys if key.split("|")[3] == smoothing]


@folders
@dtypes
@pytest.mark.parametrize("smoothing", SMOOTHINGS)
def test_given_costs(folder, smoothing, dtype):
    golden = toolbox(folder)
    assert len(cases(golden, smoothing)) >= 18
    for key in cases(golden, smoothing):
        name, steps, weights, _, gamma = key.split("|")
        cost = leaf(golden[f"C_{name}"], dtype)
        options: dict[str, Any] = {
            "steps": STEP_SETS[steps],
            "step_weights": [float(weight) for weight in weights[1:].split("-")],
            "smoothing": smoothing,
        }
        value = functional.ddtw(cost, float(gamma[1:]), **options)
        (slope,) = torch.autograd.grad(value.sum(), cost)
        expected = float(golden[f"{key}|value"])
        if expected >= 1e19:
            assert value.item() == np.inf
            assert not slope.any()
            continue
        is_single = dtype == torch.float32
        close(value[0], np.asarray(expected), 1e-6 if is_single else 1e-13)
        close(slope[0], golden[f"{key}|gradC"], 1e-4 if is_single else 1e-11)
        if set(options["step_weights"]) == {1.0} and f"{key}|E" in golden:
            close(slope[0], golden[f"{key}|E"], 1e-4 if is_single else 1e-11)


@folders
@pytest.mark.parametrize("smoothing", ["softmin", "hardmin"])
def test_free_ends(folder, smoothing):
    golden = toolbox(folder)
    cost = leaf(golden["C_n"])
    value = functional.ddtw(cost, 0.5, start="any_y", end="any_y", smoothing=smoothing)
    close(value[0], golden[f"subseq|{smoothing}|g0.5|value"], 1e-13)
    close(torch.autograd.grad(value.sum(), cost)[0][0], golden[f"subseq|{smoothing}|g0.5|gradC"], 1e-12)


def costs_at(cost: Tensor, factors: dict[tuple[int, int], float]) -> Tensor:
    """Some multiple of the costs of some cells, and +inf elsewhere."""
    mask = torch.zeros_like(cost, dtype=torch.bool)
    times = torch.zeros_like(cost)
    for cell, factor in factors.items():
        mask[(0, *cell)], times[(0, *cell)] = True, factor
    return torch.where(mask, times * cost, torch.inf)


@folders
@pytest.mark.parametrize("smoothing", ["softmin", "hardmin"])
def test_ends_of_a_cost(folder, smoothing):
    """A start cell with 2 times its cost is one whose start costs as much again."""
    golden = toolbox(folder)
    cost = leaf(golden["C_n"])
    start = costs_at(cost, {(0, 0): 0, (0, 2): 1, (3, 0): 2})
    end = costs_at(cost, {(7, 8): 0, (6, 8): 0.7})
    value = functional.ddtw(cost, 0.5, start=start, end=end, smoothing=smoothing)
    close(value[0], golden[f"bounds|{smoothing}|g0.5|value"], 1e-13)
    if smoothing == "softmin":  # central differences
        close(torch.autograd.grad(value.sum(), cost)[0][0], golden["bounds|softmin|g0.5|gradC_fd_true"], 1e-8)


@folders
@pytest.mark.parametrize("kind", ["N", "M", "NM", "none"])
def test_batches_with_lengths(folder, kind):
    golden = toolbox(folder)
    cost = leaf(golden["batch_C"])
    n, m = (torch.tensor(golden[f"batch_list{axis}"]) for axis in "NM")
    value = functional.ddtw(cost, 0.3, x_lengths=n, y_lengths=m)
    loss = (value / {"N": n, "M": m, "NM": n * m, "none": torch.ones(3)}[kind]).mean()
    close(loss, golden[f"batch_norm_{kind}_value"], 1e-13)
    close(torch.autograd.grad(loss, cost)[0], golden[f"batch_norm_{kind}_gradC"], 1e-13)


@folders
@pytest.mark.parametrize(("name", "metric"), [("MSE", "sqeuclidean"), ("BCE", "bce")])
def test_sequences(folder, name, metric):
    golden = toolbox(folder)
    x, y = leaf(golden["xy_X"]), leaf(golden["xy_Y"])
    loss = dalign.DDTW(gamma=0.2, metric=metric)(x, y if name == "MSE" else y.detach()) / x.shape[1]
    close(loss, golden[f"xy_{name}_value"], 1e-13)
    for side, grad in zip("XY", torch.autograd.grad(loss, (x, y), allow_unused=True), strict=True):
        if f"xy_{name}_g{side}" in golden:
            close(grad, golden[f"xy_{name}_g{side}"], 1e-13)


# ---------------------------------------------------------------- Table I

WITH_BLANKS = ["CTC-A", "CTC-B", "CTC-C", "CTC-A-W", "CTC-B-W", "CTC-C-W"]
WITHOUT_BLANKS = ["SDTW-D", "SDTW-E", "SDTW-D-W", "SDTW-E-W"]


def tolerance(name: str) -> float:
    """Their weights of 0.1 are float32."""
    return 2e-7 if name.endswith("-W") else 1e-12


@folders
@pytest.mark.parametrize("case", [0, 1])
@pytest.mark.parametrize("name", WITH_BLANKS)
def test_rows_with_blanks(folder, name, case):
    golden = load(folder / "ddtw_ctc_presets.npz")
    own = {key: torch.tensor(golden[f"case{case}_{key}"]) for key in ("targets", "input_lengths", "target_lengths")}
    logits = leaf(golden[f"case{case}_logits"])
    loss = presets.ddtw(name, blank=int(golden[f"case{case}_blank"]), reduction="none")
    arguments = logits.log_softmax(2), own["targets"], own["input_lengths"], own["target_lengths"]
    value = loss(*arguments)
    close(value, golden[f"case{case}_{name}_value"], tolerance(name))
    if name == "CTC-A":
        close(value, golden[f"case{case}_torch_ctc"], 1e-12)
    (slope,) = torch.autograd.grad(value.sum(), logits)
    align, weights = loss.alignment(*arguments), loss.step_weights(own["targets"])
    for b, (n, m) in enumerate(
        zip(own["input_lengths"].tolist(), (2 * own["target_lengths"] + 1).tolist(), strict=True)
    ):
        close(slope[b, :n], golden[f"case{case}_{name}_b{b}_grad_logits"], tolerance(name))
        assert not slope[b, n:].any()
        expected = golden[f"case{case}_b{b}_{name}_W"].astype(np.float64)
        found = weights[b, :m].numpy()
        check_weights(found, expected)
        if name == "CTC-A":
            close(align[b, :n, :m], golden[f"case{case}_{name}_b{b}_E"], 1e-12)


def check_weights(found: np.ndarray, expected: np.ndarray) -> None:
    """Equal but for float32, where a step can be taken: from column 0 on."""
    reached = np.arange(len(expected))[:, None] >= np.array([0, 1, 2])
    blocked = expected >= 1e19
    assert (np.isinf(found) == blocked)[reached].all()
    usable = reached & ~blocked
    np.testing.assert_allclose(found[usable], expected[usable], rtol=1e-7)


@folders
@pytest.mark.parametrize("name", WITHOUT_BLANKS)
def test_rows_without_blanks(folder, name):
    golden = load(folder / "ddtw_ctc_presets.npz")
    logits, targets = leaf(golden["sdtw_logits"]), torch.tensor(golden["sdtw_targets"])[None]
    loss = presets.ddtw(name)
    value = loss(logits.log_softmax(2), targets)
    close(value, golden[f"{name}_value"], tolerance(name))
    close(torch.autograd.grad(value, logits)[0][0], golden[f"{name}_grad_logits"], tolerance(name))
    if not name.endswith("-W"):
        close(loss.alignment(logits.log_softmax(2), targets)[0], golden[f"{name}_E"], 1e-12)
