"""scikit-learn's conventions for an estimator, without scikit-learn: it is neither needed nor imported.

`sklearn.base.clone`, pipelines and searches ask for the methods below, not for a base class.
"""

from __future__ import annotations

import inspect
import numbers
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from typing_extensions import Self

from ._shards import Shards


class Estimator:
    """Parameters are the arguments of ``__init__``, each kept as it came under its own name; `fit` checks them."""

    _kind: str | None = None  # scikit-learn's estimator_type

    @classmethod
    def _defaults(cls) -> dict[str, Any]:
        arguments = list(inspect.signature(cls.__init__).parameters.values())[1:]
        return {argument.name: argument.default for argument in arguments}

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The parameters by name; `deep` plays no part, as none is an estimator itself."""
        return {name: getattr(self, name) for name in self._defaults()}

    def set_params(self, **params: Any) -> Self:
        """Set parameters by name; ValueError for an unknown one."""
        known = self._defaults()
        for name, value in params.items():
            if name not in known:
                raise ValueError(f"{name!r} is no parameter of {type(self).__name__}; there are {', '.join(known)}")
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        changed = [
            f"{name}={getattr(self, name)!r}"
            for name, default in self._defaults().items()
            if not _is_same(getattr(self, name), default)
        ]
        return f"{type(self).__name__}({', '.join(changed)})"

    def __sklearn_tags__(self) -> Any:
        """What scikit-learn wants to know of an estimator (only scikit-learn asks)."""
        from sklearn.utils import InputTags, Tags, TargetTags, TransformerTags

        return Tags(
            estimator_type=self._kind,
            target_tags=TargetTags(required=False),
            transformer_tags=TransformerTags(["float64", "float32"]) if hasattr(self, "transform") else None,
            input_tags=InputTags(three_d_array=True),
        )

    def _check_fitted(self, attribute: str) -> None:
        """scikit-learn's NotFittedError where there is scikit-learn, else one like it, unless `fit` was called."""
        if attribute not in vars(self):
            raise _not_fitted_error()(f"this {type(self).__name__} is not fitted yet: call fit first")


class NotFittedError(ValueError, AttributeError):
    """As scikit-learn's error of that name."""


def _not_fitted_error() -> type[Exception]:
    try:
        from sklearn.exceptions import NotFittedError as Error
    except ImportError:
        return NotFittedError
    return Error


def _is_same(value: Any, default: Any) -> bool:
    return value is default or (
        type(value) is type(default) and isinstance(value, (str, int, float)) and value == default
    )


# ---------------------------------------------------------------- parameters


def integer(value: Any, name: str, least: int) -> int:
    """A whole number >= least."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} must be an integer, got {type(value).__name__}")
    if value < least:
        raise ValueError(f"{name} must be >= {least}, got {value}")
    return int(value)


def number(value: Any, name: str, least: float = 0.0) -> float:
    """A finite number >= least."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number, got {type(value).__name__}")
    if not least <= float(value) < np.inf:
        raise ValueError(f"{name} must be finite and >= {least:g}, got {value}")
    return float(value)


def seed(random_state: Any, shards: Shards) -> int:
    """A seed from what a user may pass as random_state, the same on all ranks.

    None draws one from torch's global generator, so that torch.manual_seed makes results reproducible.
    """
    return int(shards.gather(_seed(random_state))[0])


def _seed(random_state: Any) -> int:
    if random_state is None or isinstance(random_state, torch.Generator):
        return int(torch.randint(2**62, (), generator=random_state))
    if isinstance(random_state, np.random.RandomState):
        return int(random_state.randint(2**31 - 1))
    if isinstance(random_state, np.random.Generator):
        return int(random_state.integers(2**62))
    return integer(random_state, "random_state", 0)


def counted(steps: int, description: str, progress: Any) -> Iterator[int]:
    """The numbers 0, 1, ..., with a bar of tqdm if there is to be one."""
    if not progress:
        return iter(range(steps))
    try:
        from tqdm.auto import tqdm
    except ImportError as error:
        raise ImportError("progress=True needs tqdm: pip install torch-dalign[progress]") from error
    return iter(tqdm(range(steps), desc=description))
