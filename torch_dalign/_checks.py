"""Checks of what users pass in. Each names the argument, what it was and what was expected, before any kernel runs.

Shapes, dtypes and options are always checked; values of tensors only in eager mode (a compiled graph must not wait for
them), where the op itself keeps memory safe.
"""

from __future__ import annotations

import math
import numbers
import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

METRICS = ("sqeuclidean", "euclidean", "manhattan", "cosine", "nll", "bce")
REDUCTIONS = ("mean", "sum", "none")
HALF = (torch.float16, torch.bfloat16)


def choice(value: object, name: str, options: Sequence[object]) -> None:
    """ValueError unless value is one of the options."""
    known = value in options if isinstance(value, str) else any(value is option for option in options)
    if not known:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, options))}, got {value!r}")


def apart(second: Any, first: Any) -> Any:
    """second, as a tensor of its own when it is first: torch.compile allows no Function to take one tensor twice."""
    return second.view_as(second) if isinstance(second, Tensor) and second is first else second


def tensor(value: object, name: str) -> Tensor:
    """TypeError unless value is a tensor; NotImplementedError unless it is on the CPU."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(value).__name__}")
    if not value.is_cpu and value.device.type not in ("cpu", "meta"):
        raise NotImplementedError(
            f"{name} is on device '{value.device}', but this version of torch-dalign is built without CUDA kernels: "
            f"move it to the CPU"
        )
    return value


def real(value: object, name: str) -> Tensor:
    """A float32 or float64 tensor; half types are cast to float32, everything else is a TypeError."""
    checked = tensor(value, name)
    if checked.dtype in (torch.float32, torch.float64):
        return checked
    if checked.dtype in HALF:
        return checked.float()
    raise TypeError(f"{name} must be a floating-point tensor (float16, bfloat16, 32 or 64), got {checked.dtype}")


def dimensions(value: Tensor, name: str, letters: str) -> None:
    """ValueError unless the shape has one dimension per letter, and all but the batch B have at least one entry."""
    shape = value.shape
    if len(shape) == len(letters) and 0 not in shape[1:]:
        return
    expected = "(" + ", ".join(letters) + ")"
    if len(shape) != len(letters):
        raise ValueError(f"{name} must have shape {expected}, got {tuple(shape)}")
    raise ValueError(f"{name} must have shape {expected} with {', '.join(letters[1:])} >= 1, got {tuple(shape)}")


def lattice(cost: object, name: str = "cost") -> Tensor:
    """A cost lattice (B, N, M)."""
    checked = real(cost, name)
    dimensions(checked, name, "BNM")
    return checked


def features(x: object, y: object, metric: str, names: tuple[str, str] = ("x", "y")) -> tuple[Tensor, Tensor]:
    """Two batches of sequences that fit each other: (B, N, D) and (B, M, D), or (B, M) class indices for "nll"."""
    of_x, of_y = names
    checked_x = real(x, of_x)
    dimensions(checked_x, of_x, "BND" if metric != "nll" else "BNC")
    checked_y = labels(y, of_y) if metric == "nll" else real(y, of_y)
    shapes = f"got shapes {tuple(checked_x.shape)} and {tuple(checked_y.shape)}"
    if metric != "nll":
        dimensions(checked_y, of_y, "BMD")
        if checked_x.shape[2] != checked_y.shape[2]:
            raise ValueError(f"{of_x} and {of_y} must have the same number of features, {shapes}")
        if checked_x.dtype != checked_y.dtype:
            raise TypeError(f"{of_x} and {of_y} must have the same dtype, got {checked_x.dtype} and {checked_y.dtype}")
    if checked_x.shape[0] != checked_y.shape[0]:
        raise ValueError(f"{of_x} and {of_y} must have the same batch size, {shapes}")
    return checked_x, checked_y


def labels(y: object, name: str = "y") -> Tensor:
    """Class indices (B, M) as int64."""
    checked = tensor(y, name)
    if not _is_integer(checked):
        raise TypeError(f"{name} must hold integer class indices for metric 'nll', got {checked.dtype}")
    dimensions(checked, name, "BM")
    return checked.to(torch.int64)


def label_values(y: Tensor, classes: int, y_lengths: Tensor | None, name: str = "y") -> None:
    """ValueError for a label outside [0, classes) among the first y_lengths[b] of a row."""
    if torch.compiler.is_compiling() or not y.numel() or y.is_meta:
        return
    wrong = (y < 0) | (y >= classes)
    if y_lengths is not None:
        wrong &= ~padding(y.shape[1], y_lengths)
    if wrong.any():
        b, j = wrong.nonzero()[0].tolist()
        raise ValueError(f"{name}[{b}, {j}] = {int(y[b, j])} is not a class index of x, expected [0, {classes})")


def padding(longest: int, lengths: Tensor) -> Tensor:
    """(B, longest): True past an item's length."""
    return torch.arange(longest) >= lengths[:, None]


def lengths(value: object, name: str, batch: int, longest: int) -> Tensor | None:
    """Lengths (B,) in [1, longest] as int64 on the CPU, or None."""
    if value is None:
        return None
    if not isinstance(value, Tensor) or not _is_integer(value):
        kind = value.dtype if isinstance(value, Tensor) else type(value).__name__
        raise TypeError(f"{name} must be an integer tensor of shape ({batch},), got {kind}")
    if value.dim() != 1 or value.shape[0] != batch:
        raise ValueError(f"{name} must have shape ({batch},), one length per batch item, got {tuple(value.shape)}")
    checked = value.to("cpu", torch.int64)
    if batch and not torch.compiler.is_compiling() and not value.is_meta:
        low, high = (int(bound) for bound in checked.aminmax())
        if low < 1 or high > longest:
            b, wrong = next((b, v) for b, v in enumerate(checked.tolist()) if not 1 <= v <= longest)
            raise ValueError(f"{name}[{b}] = {wrong} is outside [1, {longest}]")
    return checked


def _is_integer(value: Tensor) -> bool:
    return not (value.is_floating_point() or value.is_complex() or value.dtype == torch.bool)


def gamma(value: object) -> Tensor:
    """gamma as a 0-dim float64 CPU tensor, attached to the graph when it came as a tensor."""
    if isinstance(value, Tensor):
        if value.dim() != 0 or not value.is_floating_point():
            raise ValueError(
                f"gamma must be a number or a 0-dim floating-point tensor, got {value.dtype} of shape "
                f"{tuple(value.shape)}"
            )
        result = value.to("cpu", torch.float64)
        if not torch.compiler.is_compiling() and not value.is_meta:
            positive_gamma(result.item())
        return result
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"gamma must be a number or a 0-dim tensor, got {type(value).__name__}")
    checked = as_float(value)
    positive_gamma(checked)
    return torch.tensor(checked, dtype=torch.float64, device="cpu")


def as_float(value: Any) -> float:
    """value as a float, infinite where an integer or fraction is too large for one."""
    exact = isinstance(value, numbers.Rational)
    if exact and abs(value) > sys.float_info.max:
        return math.inf if value > 0 else -math.inf
    return float(value)


def positive_gamma(value: float) -> None:
    """ValueError unless 0 < value < inf."""
    if not 0 < value < math.inf:
        raise ValueError(f"gamma must be positive and finite, got {value}")


def band(value: object) -> float:
    """The band as the ops take it: negative for none."""
    if value is None:
        return -1.0
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"band must be None or a number, got {type(value).__name__}")
    width = as_float(value)
    if not width >= (1 if isinstance(value, numbers.Integral) else 0.5):
        raise ValueError(f"band must be an integer >= 1 or a float >= 0.5 (in frames of the shorter one), got {value}")
    return -1.0 if width == math.inf else width


def step_weights(value: object) -> list[float]:
    """Three weights (down, right, diagonal) in [0, inf]; None means ones."""
    if value is None:
        return [1.0, 1.0, 1.0]
    if not isinstance(value, (list, tuple)) or not all(isinstance(w, numbers.Real) for w in value):
        raise TypeError(f"step_weights must be three numbers (down, right, diagonal), got {value!r}")
    if len(value) != 3 or not all(w >= 0 for w in value):
        raise ValueError(f"step_weights must be three numbers >= 0 (down, right, diagonal), got {value!r}")
    return [as_float(w) for w in value]


def slope(value: object) -> float:
    """The slope of Itakura's parallelogram as the ops take it: 0 for none."""
    if value is None:
        return 0.0
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"itakura must be None or a number, got {type(value).__name__}")
    largest = as_float(value)
    if not largest >= 1:
        raise ValueError(f"itakura must be a slope >= 1, got {value}")
    return 0.0 if largest == math.inf else largest


def steps(value: object, longest: int | None, most: int) -> list[tuple[int, int]]:
    """Pairs of whole numbers in [0, longest] (None: of any length), not both 0."""
    upto = ">= 0" if longest is None else f"from 0 to {longest}"
    expected = f"steps must be 1 to {most} pairs (x, y) of whole numbers {upto}, not both 0"
    if not isinstance(value, Sequence):
        raise TypeError(f"{expected}, got {type(value).__name__}")
    pairs = []
    for pair in value:
        if not isinstance(pair, Sequence) or not all(isinstance(number, numbers.Integral) for number in pair):
            raise TypeError(f"{expected}, got {pair!r} among them")
        if len(pair) != 2 or not all(0 <= number <= (longest or 2**31) for number in pair) or not any(pair):
            raise ValueError(f"{expected}, got {pair!r} among them")
        pairs.append((int(pair[0]), int(pair[1])))
    if not 1 <= len(pairs) <= most:
        raise ValueError(f"{expected}, got {len(pairs)} of them")
    return pairs


def weights_of_steps(value: object, count: int) -> list[float]:
    """One weight in [0, inf] for each step."""
    if not isinstance(value, Sequence) or not all(isinstance(weight, numbers.Real) for weight in value):
        raise TypeError(f"step_weights must be {count} numbers, one for each step, got {value!r}")
    if len(value) != count or not all(weight >= 0 for weight in value):
        raise ValueError(f"step_weights must be {count} numbers >= 0, one for each step, got {value!r}")
    return [as_float(weight) for weight in value]
