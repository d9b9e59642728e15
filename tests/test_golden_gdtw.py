"""GDTW against the best solutions known and derivatives by differences (see golden/README.md)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from reference import gdtw as reference
from torch import Tensor

from torch_dalign import functional

HERE = Path(__file__).parent
COPIES = HERE / "golden" / "gdtw.npz"
FOLDER = HERE.parent.parent / "shared" / "golden" / "gdtw"
PENALTIES = {"sq2": ("sqeuclidean", "quadratic"), "p": ("p", "p"), "huber": ("huber", "huber")}
ENTRIES = ("x", "y", "lam", "smin", "smax", "bmin", "bmax")
Case = dict[str, np.ndarray]


def names() -> list[str]:
    with np.load(COPIES, allow_pickle=False) as data:
        copied = sorted({key.split("|")[0] for key in data.files})
    return copied + [f"whole folder: {file.stem}" for file in sorted(FOLDER.glob("*.npz"))]


def load(name: str) -> Case:
    folder, _, rest = name.partition(": ")
    if rest:
        with np.load(FOLDER / f"{rest}.npz", allow_pickle=False) as data:
            return dict(data)
    with np.load(COPIES, allow_pickle=False) as data:
        return {key.split("|")[1]: data[key] for key in data.files if key.startswith(f"{folder}|")}


def inputs(case: Case) -> dict[str, Tensor]:
    """What is differentiated, in a batch of one."""
    leaves = {name: torch.from_numpy(np.array(case[name]))[None] for name in ENTRIES}
    # Bounds at y's ends are those that hold anyway; at fixed ends both are.
    free = {"bmin": leaves["bmin"] > case["ty"][0], "bmax": leaves["bmax"] < case["ty"][-1]}
    for name, inside in free.items():
        if case["fixed"]:
            inside[:, [0, -1]] = False
        leaves[name] = leaves[name].where(inside, -torch.inf if name == "bmin" else torch.inf)
    return {name: leaf.requires_grad_() for name, leaf in leaves.items()}


def solve(case: Case, leaves: dict[str, Tensor], quality: str) -> tuple[Tensor, Tensor]:
    kinds = {}
    for side, (argument, letter) in enumerate((("loss", "l"), ("regularizer", "r"))):
        name = PENALTIES[str(case[f"{letter}type"])][side]
        kinds[argument] = name if str(case[f"{letter}type"]) == "sq2" else (name, float(case[f"{letter}p"]))
    phi, objective = functional.gdtw(
        leaves["x"],
        leaves["y"],
        x_times=torch.from_numpy(case["t"]),
        y_times=torch.from_numpy(case["ty"]),
        reg_weight=leaves["lam"].reshape(1, 1),
        nominal_slope=float(case["s0"]),
        slope_min=leaves["smin"],
        slope_max=leaves["smax"],
        band_min=leaves["bmin"],
        band_max=leaves["bmax"],
        ends="fixed" if case["fixed"] else "free",
        quality=quality,
        **kinds,
    )
    return phi[0], objective[0]


def problem(case: Case) -> reference.Problem:
    numbers = (case[name] for name in ("smin", "smax", "bmin", "bmax"))
    kinds = ((str(case[f"{k}type"]), float(case[f"{k}p"])) for k in "lr")
    reg = np.full(len(case["t"]) - 1, float(case["lam"]))
    return reference.Problem(case["x"], case["y"], case["t"], case["ty"], reg, float(case["s0"]), *numbers, *kinds)


def same_warp(case: Case, objective: float) -> bool:
    return abs(objective - float(case["F"])) <= 1e-9 * float(case["F"]) + 1e-12


def compared(case: Case, grads: dict[str, Tensor]) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Derivatives that exist on both sides, ours and by differences."""
    for name, grad in grads.items():
        expected = np.asarray(case[f"fd_{name}"])
        exists = np.asarray(case[f"ok_{name}"]) & np.isfinite(expected)
        yield name, grad.numpy().reshape(expected.shape)[exists], expected[exists]


@pytest.mark.parametrize("name", names())
def test_golden(name):
    case = load(name)
    leaves = inputs(case)
    phi, objective = solve(case, leaves, "thorough")
    assert objective.item() <= float(case["F"]) * (1 + 1e-9) + 1e-12
    warp = phi.detach().numpy()
    assert reference.violation(problem(case), warp) <= 1e-14
    np.testing.assert_allclose(reference.objective(problem(case), warp), objective.item(), rtol=1e-12, atol=1e-15)
    if not same_warp(case, objective.item()):
        return  # a better one: nothing to compare with
    if float(case["lam"]) > 0:  # without it some directions are flat
        np.testing.assert_allclose(warp, case["phi"], rtol=0, atol=1e-7)
    if np.abs(warp - case["phi"]).max() > 1e-7:
        return
    found = torch.autograd.grad(phi @ torch.from_numpy(case["v"]), list(leaves.values()))
    for entry, grad, expected in compared(case, dict(zip(leaves, found, strict=True))):
        assert np.all(np.abs(grad - expected) <= 1e-4 * (1e-2 + np.abs(expected))), entry


@pytest.mark.parametrize("quality", ["fast", "default"])
def test_most_are_found_by_less_work(quality):
    """Of the copied problems at least 12 of 14, and none is better than the best known by more than rounding."""
    cases = [load(name) for name in names() if ":" not in name]
    found = [solve(case, inputs(case), quality)[1].item() for case in cases]
    assert sum(same_warp(case, value) for case, value in zip(cases, found, strict=True)) >= 12
