"""Collections of series of any lengths, as users have them: lists, or padded arrays with lengths."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from . import _checks
from ._shards import Shards

# Numbers in one batch, which bounds the memory of a pass over a collection of any size.
BATCH_NUMBERS = 1 << 22


class Batch(NamedTuple):
    """Some series of a collection: padded values (B, N, D), lengths (B,) unless all are N, and which they are."""

    values: Tensor
    lengths: Tensor | None
    indices: Tensor


class Series:
    """n series (N_i, D), held one after the other, so that memory is that of the frames whatever the lengths.

    Parameters
    ----------
    frames : Tensor
        (sum of N_i, D), float32 or float64.
    lengths : Tensor
        (n,) int64, all >= 1.
    univariate : bool
        Whether the series came as (N_i,), and results have no axis of features either.
    as_numpy : bool
        Whether results are given as NumPy arrays, as the series were.
    """

    def __init__(self, frames: Tensor, lengths: Tensor, univariate: bool, as_numpy: bool) -> None:
        self.frames, self.lengths = frames, lengths
        self.univariate, self.as_numpy = univariate, as_numpy
        self._starts = lengths.cumsum(0) - lengths

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, i: int) -> Tensor:
        """Series i (N_i, D)."""
        start = int(self._starts[i])
        return self.frames[start : start + int(self.lengths[i])]

    @property
    def features(self) -> int:
        """D."""
        return self.frames.shape[1]

    @property
    def dtype(self) -> torch.dtype:
        """float32 or float64."""
        return self.frames.dtype

    def batch(self, indices: Tensor) -> Batch:
        """These series, padded to the longest with their own last frames."""
        lengths, starts = self.lengths[indices], self._starts[indices]
        longest = int(lengths.max())
        steps = torch.minimum(torch.arange(longest), lengths[:, None] - 1)
        values = self.frames[starts[:, None] + steps]
        return Batch(values, None if int(lengths.min()) == longest else lengths, indices)

    def batches(self, beside: int = 0, indices: Tensor | None = None) -> Iterator[Batch]:
        """All series (or these) in batches of bounded memory, the longest first.

        `beside` is how many frames belong to a series besides its own, those of what it is compared with.
        """
        chosen = torch.arange(len(self)) if indices is None else indices
        chosen = chosen[self.lengths[chosen].argsort(descending=True, stable=True)]
        first = 0
        while first < len(chosen):
            frames = max(int(self.lengths[chosen[first]]), beside)
            size = max(1, BATCH_NUMBERS // (frames * self.features))
            yield self.batch(chosen[first : first + size])
            first += size

    def result(self, values: Tensor) -> Any:
        """A series (K, D) in the layout and of the type in which the collection came."""
        return self.array(values.squeeze(-1) if self.univariate else values)

    def array(self, values: Tensor) -> Any:
        """A tensor, or a NumPy array where the collection came as one."""
        return values.numpy() if self.as_numpy else values


def resample(batch: Batch, length: int) -> Tensor:
    """(B, length, D): each series interpolated linearly at as many equally spaced times, its ends included."""
    values = batch.values
    n = values.shape[1]
    last = (torch.full((len(values),), n) if batch.lengths is None else batch.lengths)[:, None] - 1
    position = torch.arange(length, dtype=torch.float64) * last / max(length - 1, 1)
    low = position.floor().long()
    at = [i[..., None].expand(-1, -1, values.shape[2]) for i in (low, torch.minimum(low + 1, last))]
    weight = (position - low)[..., None].to(values.dtype)
    return torch.lerp(values.gather(1, at[0]), values.gather(1, at[1]), weight)


# ---------------------------------------------------------------- from what users have


def series(X: Any, lengths: Any = None, name: str = "X") -> Series:
    """The collection that X is.

    Parameters
    ----------
    X : Tensor, array or sequence
        (n, N) or (n, N, D), or a sequence of n series (N_i,) or (N_i, D). Integers become float64, half types float32.
    lengths : Tensor, array or sequence of int, optional
        (n,), for a padded array.
    name : str
        What X is called in messages.

    Raises
    ------
    ValueError
        For shapes, lengths, NaN and infinity.
    TypeError
        For anything that holds no real numbers.
    """
    if hasattr(X, "toarray"):
        raise TypeError(f"{name} is a sparse matrix, which is not supported: pass {name}.toarray()")
    if isinstance(X, (Tensor, np.ndarray)) or (hasattr(X, "__array__") and not isinstance(X, (list, tuple))):
        values = X if isinstance(X, Tensor) else np.asarray(X)
        if not _is_ragged(values):
            return _dense(values, lengths, name)
        X = list(values)
    if not isinstance(X, (list, tuple)):
        raise TypeError(f"{name} must be a tensor, an array or a list of series, got {type(X).__name__}")
    if lengths is not None:
        raise ValueError(f"lengths goes with a padded array; the series of a list have their own, got {name} as a list")
    return _listed(X, name)


def single(value: Any, name: str, like: Series) -> Tensor:
    """One series (K, D) that fits the collection, of its type; (K,) is taken as (K, 1)."""
    found = numbers(value, name)
    found = found[:, None] if found.dim() == 1 else found
    if found.dim() != 2 or not found.numel():
        raise ValueError(f"{name} must have shape (K,) or (K, D) with K, D >= 1, got {tuple(np.shape(value))}")
    _finite(found, name)
    same_features(found.shape[1], like.features, name)
    return found.to(like.dtype)


def same_features(found: int, expected: int, name: str) -> None:
    """ValueError unless two numbers of features are equal."""
    if found != expected:
        raise ValueError(f"{name} has {found} features per frame, expected {expected}")


def weights_of(value: Any, n: int, shards: Shards) -> Tensor:
    """Weights (n,) of series in float64, ones for None; not all 0, taking all ranks together."""
    if value is None:
        return torch.ones(n, dtype=torch.float64)
    found = numbers(value, "sample_weight").double()
    if found.shape != (n,):
        raise ValueError(f"sample_weight must have shape ({n},), one weight per series, got {tuple(found.shape)}")
    if not bool((found >= 0).all()) or not bool(found.isfinite().all()):
        raise ValueError("sample_weight must be finite and >= 0")
    if float(shards.sum(found.sum())) == 0:
        raise ValueError("sample_weight must not be zero for all series")
    return found


def numbers(value: Any, name: str) -> Tensor:
    """A detached float32 or float64 CPU tensor of real numbers."""
    if not isinstance(value, Tensor):
        value = _from_array(value, name)
    if value.is_complex():
        raise ValueError(f"Complex data not supported: {name} has dtype {value.dtype}")
    if not value.is_floating_point():
        value = value.double()
    found = _checks.real(value, name).detach()
    return found.clone() if found.is_inference() else found  # a copy may be part of a graph


def _from_array(value: Any, name: str) -> Tensor:
    try:
        array = np.asarray(value)
        if array.dtype.kind not in "fc":
            array = array.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name} must hold real numbers: {error}") from error
    if array.dtype.kind == "f" and array.dtype.itemsize not in (2, 4, 8):
        array = array.astype(np.float64)
    native = array.astype(array.dtype.newbyteorder("="), copy=False)
    # torch takes no array that may not be written, nor one that is read backwards
    return torch.from_numpy(np.require(native, requirements=("C", "W")))


def _is_ragged(values: Any) -> bool:
    """A NumPy array of arrays, NumPy's own way to hold series of several lengths."""
    return isinstance(values, np.ndarray) and values.dtype == object and values.ndim == 1


def _dense(values: Any, lengths: Any, name: str) -> Series:
    found = numbers(values, name)
    if found.dim() not in (2, 3) or 0 in found.shape:
        raise ValueError(
            f"{name} must have shape (n, N) or (n, N, D) with n, N, D >= 1, or be a list of series; "
            f"got {tuple(found.shape)}"
        )
    univariate = found.dim() == 2
    found = found[..., None] if univariate else found
    n, longest, features = found.shape
    if lengths is None:
        own, frames = torch.full((n,), longest), found.reshape(-1, features)
    else:
        own = _lengths(lengths, n, longest)
        frames = found[torch.arange(longest) < own[:, None]]
    return _checked(Series(frames.contiguous(), own, univariate, not isinstance(values, Tensor)), name)


def _listed(items: Sequence[Any], name: str) -> Series:
    if not items:
        raise ValueError(f"{name} holds no series")
    found = [numbers(item, f"{name}[{i}]") for i, item in enumerate(items)]
    dimensions, features, dtype = found[0].dim(), found[0].shape[1:], found[0].dtype
    for i, item in enumerate(found):
        if item.dim() not in (1, 2) or 0 in item.shape:
            raise ValueError(f"{name}[{i}] must have shape (N,) or (N, D) with N, D >= 1, got {tuple(item.shape)}")
        if item.dim() != dimensions or item.shape[1:] != features:
            raise ValueError(
                f"all series of {name} must have the same features, got shapes {tuple(found[0].shape)} for {name}[0] "
                f"and {tuple(item.shape)} for {name}[{i}]"
            )
        dtype = torch.promote_types(dtype, item.dtype)
    frames = torch.cat([item.to(dtype) for item in found])
    lengths = torch.tensor([len(item) for item in found])
    as_numpy = not any(isinstance(item, Tensor) for item in items)
    frames = frames[:, None] if dimensions == 1 else frames
    return _checked(Series(frames, lengths, dimensions == 1, as_numpy), name)


def _lengths(value: Any, n: int, longest: int) -> Tensor:
    found = value if isinstance(value, Tensor) else torch.from_numpy(np.array(value))
    checked = _checks.lengths(found, "lengths", n, longest)
    assert checked is not None  # it is None for None alone
    return checked


def _checked(collection: Series, name: str) -> Series:
    if not bool(collection.frames.isfinite().all()):
        bad = next(i for i in range(len(collection)) if not bool(collection[i].isfinite().all()))
        _finite(collection[bad], f"{name}[{bad}]")
    return collection


def _finite(values: Tensor, name: str) -> None:
    if not bool(values.isfinite().all()):
        raise ValueError(f"{name} contains NaN or inf (series of several lengths: pass a list, or lengths=)")
