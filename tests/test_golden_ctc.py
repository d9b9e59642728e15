"""CTC against torch 2.13's ctc_loss and a plain recursion: values and gradients made once (see golden/README.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import torch_dalign as dalign
from torch_dalign import functional

HERE = Path(__file__).parent
FILES = [HERE / "golden" / "ctc_torch.npz", HERE.parent.parent / "shared" / "golden" / "ddtw" / "ctc_torch.npz"]
CASES = ["basic", "blank_last", "blank_mid", "empty", "impossible", "long", "one_frame", "repeats"]

files = pytest.mark.parametrize("file", FILES, ids=["copied", "whole"])
cases = pytest.mark.parametrize("case", CASES)


def load(file: Path, case: str) -> dict[str, np.ndarray]:
    if not file.exists():
        pytest.skip("the whole folder of golden cases is not beside this checkout")
    with np.load(file, allow_pickle=False) as data:
        return {key.removeprefix(f"{case}_"): data[key] for key in data.files if key.startswith(f"{case}_")}


def arguments(golden: dict[str, np.ndarray]) -> tuple[tuple[torch.Tensor, ...], dict[str, Any]]:
    names = ("targets", "input_lengths", "target_lengths")
    return tuple(torch.from_numpy(golden[name]) for name in names), {"blank": int(golden["blank"])}


@files
def test_all_cases_are_tested(file):
    if not file.exists():
        pytest.skip("the whole folder of golden cases is not beside this checkout")
    with np.load(file, allow_pickle=False) as data:
        assert sorted(key.removesuffix("_blank") for key in data.files if key.endswith("_blank")) == CASES


@files
@cases
@pytest.mark.parametrize("zero_infinity", [False, True])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("fused", [False, True])
def test_as_torch(file, case, zero_infinity, reduction, fused):
    golden = load(file, case)
    targets, options = arguments(golden)
    logits = torch.from_numpy(golden["logits"]).requires_grad_()
    log_probs = logits if fused else logits.log_softmax(2)
    loss = dalign.CTCLoss(reduction=reduction, zero_infinity=zero_infinity, from_logits=fused, **options)
    values = loss(log_probs, *targets)
    expected = golden[f"{reduction}_zi{int(zero_infinity)}_value"]
    np.testing.assert_allclose(values.detach().numpy(), expected, rtol=1e-10, atol=1e-12)
    (grad,) = torch.autograd.grad(values.sum(), logits)
    np.testing.assert_allclose(grad.numpy(), golden[f"{reduction}_zi1_grad_logits"], rtol=0, atol=1e-10)


@files
@cases
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_true_derivative(file, case, dtype, tolerance):
    golden = load(file, case)
    targets, options = arguments(golden)
    log_probs = torch.from_numpy(golden["logits"]).log_softmax(2).to(dtype).requires_grad_()
    values = functional.ctc_loss(log_probs, *targets, reduction="none", **options)
    np.testing.assert_allclose(values.detach().numpy(), golden["ref_value"], rtol=tolerance)
    (grad,) = torch.autograd.grad(values.sum(), log_probs)
    np.testing.assert_allclose(grad.numpy(), golden["ref_grad_logp_true"], rtol=0, atol=tolerance)
