"""GDTW on every instruction set, and with any number of threads to the same bits.

As in test_isa_threads, each instruction set has a process of its own: this file, run as a script, computes all cases.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from reference import gdtw as reference
from test_isa_threads import DTYPES, LEVELS, environment_with, same_bits, supported, threads
from torch import Tensor

import torch_dalign as dalign
from torch_dalign import functional

__all__ = ["threads"]  # a fixture
ENTRIES = ("phi", "objective", "x", "y", "reg_weight", "x_times", "y_times")


class Case(NamedTuple):
    """A batch of three pairs, the last two shorter, and options."""

    shape: tuple[int, int, int]  # N, M, D
    options: dict[str, Any]
    reg: float = 0.01

    @property
    def lengths(self) -> tuple[list[int], list[int]]:
        n, m, _ = self.shape
        return [n, max(2, n - 5), n], [m, m, max(2, m - 3)]

    def inputs(self, dtype: torch.dtype) -> dict[str, Tensor]:
        """Features, lambda and uneven times."""
        n, m, d = self.shape
        rng = np.random.default_rng(n * m + d)
        x, y = (np.stack([reference.smooth(rng, length, d) for _ in range(3)]) for length in (n, m))
        tx, ty = (reference.random_times(rng, length, True) for length in (n, m))
        arrays = {"x": x.astype(np.float32), "y": y.astype(np.float32)}  # the same problem in both types
        result = {name: torch.from_numpy(array).to(dtype) for name, array in arrays.items()}
        result["reg_weight"] = torch.tensor(self.reg, dtype=torch.float64)
        return result | {"x_times": torch.from_numpy(tx), "y_times": torch.from_numpy(ty)}

    def nominal_slopes(self, inputs: dict[str, Tensor]) -> Tensor:
        """(3, 1): durations of y over those of x; with free ends 1. Slope bounds of cases are multiples of them."""
        if self.options.get("ends", "fixed") != "fixed":
            return torch.ones(3, 1, dtype=torch.float64)
        durations = (
            [t[length - 1] - t[0] for length in lengths]
            for t, lengths in zip((inputs["x_times"].detach(), inputs["y_times"].detach()), self.lengths, strict=True)
        )
        return torch.stack([of_y / of_x for of_x, of_y in zip(*durations, strict=True)])[:, None]


# Numbers of features on both sides of what vectors hold, lattices shorter and longer than blocks of 64.
CASES = [
    Case((2, 2, 1), {}),
    Case((9, 40, 3), {"slope_max": 2.3}),
    Case((40, 9, 8), {"slope_min": 0.4}),
    Case((33, 47, 12), {"slope_min": 0.3, "slope_max": 2.2}),
    Case((47, 33, 13), {"ends": "free"}),
    Case((64, 80, 16), {}, 0.001),
    Case((65, 63, 17), {"ends": "free_end", "regularizer": ("p", 3.0)}),
    Case((30, 34, 7), {"loss": ("huber", 0.4), "regularizer": ("huber", 0.5)}),
    Case((20, 150, 5), {"loss": ("p", 1.5)}),
    Case((31, 29, 4), {"quality": "fast"}),
    Case((31, 29, 4), {"quality": "thorough"}),
]


def compute(case: Case, dtype: torch.dtype) -> dict[str, Tensor]:
    """Warp, objective, and all derivatives of their weighted sum."""
    leaves = {name: leaf.requires_grad_() for name, leaf in case.inputs(dtype).items()}
    numbers = {name: leaves[name] for name in ENTRIES[4:]}
    x_lengths, y_lengths = (torch.tensor(v) for v in case.lengths)
    slopes = case.nominal_slopes(leaves)
    scaled = {name: value * slopes if name.startswith("slope") else value for name, value in case.options.items()}
    options = {"x_lengths": x_lengths, "y_lengths": y_lengths, **numbers, **scaled}
    phi, objective = functional.gdtw(leaves["x"], leaves["y"], **options)
    weights = torch.linspace(-1, 1, phi.numel(), dtype=phi.dtype).view_as(phi)
    derivatives = torch.autograd.grad((phi * weights).sum() + objective.sum(), [leaves[name] for name in ENTRIES[2:]])
    return dict(zip(ENTRIES, (phi.detach(), objective.detach(), *derivatives), strict=True))


def problem(case: Case, item: int) -> reference.Problem:
    """One item as the reference has it."""
    given = case.inputs(torch.float64)
    inputs = {name: tensor.numpy() for name, tensor in given.items()}
    n, m = (lengths[item] for lengths in case.lengths)
    t, ty = inputs["x_times"][:n], inputs["y_times"][:m]
    low, high = np.full(n, ty[0]), np.full(n, ty[-1])
    ends = case.options.get("ends", "fixed")
    if ends in ("fixed", "free_end"):
        high[0] = ty[0]
    if ends in ("fixed", "free_start"):
        low[-1] = ty[-1]
    slope = case.nominal_slopes(given)[item].item()
    least, most = (
        np.full(n - 1, case.options.get(k, v) * slope) for k, v in (("slope_min", 0.0), ("slope_max", np.inf))
    )
    kinds = (case.options.get(name, ("sq2", 2.0)) for name in ("loss", "regularizer"))
    bounds = (least, most, low, high)
    return reference.Problem(
        inputs["x"][item, :n], inputs["y"][item, :m], t, ty, np.full(n - 1, case.reg), slope, *bounds, *kinds
    )


def save(path: str) -> None:
    """All results of this process and the name of its instruction set; what the subprocess does."""
    results = {
        f"{index}_{name}_{key}": tensor.numpy()
        for index, case in enumerate(CASES)
        for name, dtype in DTYPES.items()
        for key, tensor in compute(case, dtype).items()
    }
    np.savez(path, isa=dalign.build_info()["isa"], **results)


@pytest.fixture(scope="module", params=LEVELS)
def level_results(request, tmp_path_factory) -> dict[str, np.ndarray]:
    """Results of one instruction set."""
    level = request.param
    if not supported(level):
        pytest.skip(f"this CPU has no {level}")
    path = tmp_path_factory.mktemp(level) / "results.npz"
    command = [sys.executable, __file__, str(path)]
    done = subprocess.run(command, env=environment_with(level), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    with np.load(path, allow_pickle=False) as data:
        assert data["isa"] == level
        return dict(data)


@pytest.mark.parametrize("index", range(len(CASES)))
def test_every_instruction_set_finds_a_stationary_warp(level_results, index):
    """Feasible, in balance, with the reference's objective; float features have the warp of their exact values."""
    case = CASES[index]
    for name in DTYPES:
        for item, n in enumerate(case.lengths[0]):
            phi, objective = (level_results[f"{index}_{name}_{key}"][item] for key in ("phi", "objective"))
            exact = problem(case, item)
            assert reference.violation(exact, phi[:n]) <= 1e-14
            assert reference.kkt_residual(exact, phi[:n]) <= 1e-10
            np.testing.assert_allclose(objective, reference.objective(exact, phi[:n]), rtol=1e-12, atol=1e-15)
            assert np.array_equal(phi[n:], np.full(len(phi) - n, phi[n - 1]))


@pytest.mark.parametrize("index", range(len(CASES)))
def test_instruction_sets_and_types_agree(level_results, index):
    """Derivatives of the same warp; the lattice's rounding may choose another of two that are about as good."""
    expected = {key: tensor.numpy() for key, tensor in compute(CASES[index], torch.float64).items()}
    for name in DTYPES:
        found = {key: level_results[f"{index}_{name}_{key}"] for key in ENTRIES}
        np.testing.assert_allclose(found["objective"], expected["objective"], rtol=1e-3)
        if np.abs(found["phi"] - expected["phi"]).max() > 1e-9:
            continue
        for key in ENTRIES[1:]:
            tolerance = 1e-6 if name == "float32" and key in "xy" else 1e-8
            error = np.abs(found[key] - expected[key]).max()
            assert error <= tolerance * max(1.0, np.abs(expected[key]).max()), (name, key)


def test_most_cases_find_the_very_same_warp(level_results):
    """So that the derivatives above are really compared."""
    same = [
        np.abs(level_results[f"{index}_{name}_phi"] - compute(case, torch.float64)["phi"].numpy()).max() <= 1e-9
        for index, case in enumerate(CASES)
        for name in DTYPES
    ]
    assert np.mean(same) >= 0.8


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@pytest.mark.parametrize("size", [12, 90])
def test_threads_do_not_change_a_bit(size, dtype, threads):
    rng = np.random.default_rng(size)
    x, y = (torch.from_numpy(np.stack([reference.smooth(rng, size, 5) for _ in range(11)])).to(dtype) for _ in "xy")
    lengths = {name: torch.randint(2, size + 1, (11,)) for name in ("x_lengths", "y_lengths")}
    reg = torch.tensor(0.003, dtype=torch.float64)
    leaves = [leaf.requires_grad_() for leaf in (x, y, reg)]

    def run() -> list[Tensor]:
        phi, objective = functional.gdtw(x, y, reg_weight=reg, slope_max=4.0, **lengths, on_infeasible="nan")
        return [phi.detach(), objective.detach(), *torch.autograd.grad(phi.nansum() + objective[0], leaves)]

    threads(1)
    alone = run()
    assert alone[0].isfinite().any()
    for number in (2, 3):
        threads(number)
        assert same_bits(run(), alone), f"{number} threads"


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    save(sys.argv[1])
