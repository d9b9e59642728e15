"""TAP's kernels against golden cases: the paper's head and its variants (see golden/README.md)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from test_tap import Head, back, run
from torch import Tensor

HERE = Path(__file__).parent
VARIANTS = HERE / "golden" / "tap_variants.npz"
HEAD = HERE.parent.parent / "shared" / "golden" / "tap" / "head.npz"
KERNELS = {"l": (30, (7, 7, 5)), "d": (30, (5, 5, 5, 3)), "fs64": (64, (5, 5, 3))}
# float32 with sums by values at points: of d, and of the largest entry of a gradient
TOLERANCE = {torch.float64: (1e-13, 1e-12), torch.float32: (1e-6, 5e-5)}


def tensor(array: np.ndarray, dtype: torch.dtype) -> Tensor:
    return torch.from_numpy(np.array(array)).to(dtype)


def check(name: str, found: Tensor, expected: np.ndarray, tolerance: float) -> None:
    largest = float(np.abs(expected).max())
    np.testing.assert_allclose(found.double().numpy(), expected, rtol=0, atol=tolerance * largest + 1e-12, err_msg=name)


def drawn_head(name: str, seed: int, dtype: torch.dtype, last_relu: bool) -> Head:
    """Weights as the golden cases' own README tells to draw them."""
    channels, kernels = KERNELS[name]
    rng, inputs, layers = np.random.default_rng(seed), 2, []
    for k, kernel in enumerate(kernels):
        last = k == len(kernels) - 1
        outputs = 1 if last else channels
        bound = 1 / np.sqrt(inputs * kernel * kernel)
        weight = ((3 if last else 1) * rng.uniform(-bound, bound, (outputs, inputs, kernel, kernel))).astype(np.float32)
        layers.append((tensor(weight, dtype), tensor(rng.uniform(-bound, bound, outputs).astype(np.float32), dtype)))
        inputs = outputs
    return Head(layers, last_relu=last_relu)


def projections(gradient: Tensor) -> float:
    numbers = gradient.double().flatten()
    return float(numbers @ torch.arange(len(numbers), dtype=torch.float64).cos())


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("last_relu", [True, False])
@pytest.mark.parametrize("name", KERNELS)
def test_variants(name, last_relu, dtype):
    with np.load(VARIANTS, allow_pickle=False) as data:
        case, tag = dict(data), f"{name}_r{int(last_relu)}"
    value_tolerance, tolerance = TOLERANCE[dtype]
    x, y = (tensor(case[frames], dtype)[None] for frames in "xy")
    head = drawn_head(name, int(case[f"{name}_seed"]), dtype, last_relu)
    found = run(head, x, y)
    np.testing.assert_allclose(found.value.item(), case[f"{tag}_d"], rtol=value_tolerance)
    check("T", found.transport[0], case[f"{tag}_T"], 10 * value_tolerance)
    gradients = back(head, x, y, found, grad_value=torch.ones(1, dtype=dtype))
    check("gx", gradients.x[0], case[f"{tag}_gx"], tolerance)
    check("gy", gradients.y[0], case[f"{tag}_gy"], tolerance)
    biases = torch.cat([bias for _, bias in gradients.layers])
    check("biases", biases, case[f"{tag}_gb"], tolerance)
    for k, part in enumerate(part for layer in gradients.layers for part in layer):
        size = float(part.double().norm()) * part.numel() ** 0.5
        assert abs(projections(part) - case[f"{tag}_gproj"][k]) <= tolerance * size + 1e-12


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("form", ["paper", "code"])
def test_projected_distances(form, dtype):
    """TAP-trans: rows from distances of projected frames and of positions, without convolutions."""
    with np.load(VARIANTS, allow_pickle=False) as data:
        case, tag = dict(data), f"trans_{form}"
    value_tolerance, tolerance = TOLERANCE[dtype]
    x, y, query, key = (tensor(case[n], dtype) for n in ("x", "y", "trans_Wq", "trans_Wk"))
    root = 30**-0.5
    head = Head([], energy_scale=root, position_scale=50 * (1 if form == "paper" else root))
    energies = ((x @ query.T)[None], (y @ key.T)[None])
    found = run(head, x[None], y[None], energies=energies)
    np.testing.assert_allclose(found.value.item(), case[f"{tag}_d"], rtol=3 * value_tolerance)
    check("T", found.transport[0], case[f"{tag}_T"], 30 * value_tolerance)
    grads = back(head, x[None], y[None], found, grad_value=torch.ones(1, dtype=dtype), energies=energies)
    check("gWq", grads.energy_x[0].T @ x, case[f"{tag}_gWq"], tolerance)
    check("gWk", grads.energy_y[0].T @ y, case[f"{tag}_gWk"], tolerance)
    check("gx", grads.x[0] + grads.energy_x[0] @ query, case[f"{tag}_gx"], tolerance)
    check("gy", grads.y[0] + grads.energy_y[0] @ key, case[f"{tag}_gy"], tolerance)


@pytest.mark.skipif(not HEAD.exists(), reason="no golden cases beside the repository")
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("last_relu", [True, False])
def test_head(last_relu, dtype):
    with np.load(HEAD, allow_pickle=False) as data:
        cases = dict(data)
    layers = [(tensor(cases[f"w{k}"], dtype), tensor(cases[f"b{k}"], dtype)) for k in (1, 2, 3)]
    head = Head(layers, last_relu=last_relu)
    value_tolerance, tolerance = TOLERANCE[dtype]
    for number in range(len(cases["cases"])):
        tag = f"c{number}_r{int(last_relu)}"
        x, y, along = (tensor(cases[f"c{number}_{n}"], dtype)[None] for n in ("x", "y", "gA"))
        found = run(head, x, y)
        np.testing.assert_allclose(found.value.item(), cases[f"{tag}_d"], rtol=value_tolerance, err_msg=tag)
        check(f"{tag} A", found.alignment[0], cases[f"{tag}_A"], 10 * value_tolerance)
        one = torch.ones(1, dtype=dtype)
        grads = back(head, x, y, found, grad_value=one)
        (w1, b1), (w2, b2), (w3, b3) = grads.layers
        for entry, got in (("gx", grads.x[0]), ("gy", grads.y[0]), ("gw1", w1), ("gw3", w3)):
            check(f"{tag} {entry}", got, cases[f"{tag}_{entry}"], tolerance)
        for entry, got in (("gb1", b1), ("gb2", b2), ("gb3", b3), ("gw2_sum", w2.sum((2, 3)))):
            check(f"{tag} {entry}", got, cases[f"{tag}_{entry}"], 4 * tolerance)  # sums over many that cancel
        check(f"{tag} w2", w2[:3, :4], cases[f"{tag}_gw2_slice"], 4 * tolerance)
        np.testing.assert_allclose(float(w2.double().norm()), cases[f"{tag}_gw2_norm"], rtol=tolerance, atol=1e-12)
        both = back(head, x, y, found, grad_value=one, grad_alignment=along)
        for entry, got in (("ggx", both.x[0]), ("ggy", both.y[0])):
            check(f"{tag} {entry}", got, cases[f"{tag}_{entry}"], tolerance)
        check(f"{tag} ggw1", both.layers[0][0], cases[f"{tag}_ggw1"], tolerance)
        check(f"{tag} ggw3", both.layers[2][0], cases[f"{tag}_ggw3"], tolerance)
