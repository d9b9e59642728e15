"""What is compared: ours in float32 and float64, the authors' code, and plain PyTorch."""

from __future__ import annotations

import importlib
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..packages import OURS, OwnPackage, Package
from .problems import ALPHA, GAMMA, Case, Series, outcome, plain_dilate

OURS64 = f"{OURS}, float64"
AUTHORS = "authors' code"
PLAIN = "plain PyTorch"


class Peer(Package):
    """One implementation."""

    dtype: ClassVar[torch.dtype] = torch.float32

    def offers(self, case: Case) -> bool:
        """Tell whether it can compute this shape."""
        return True

    def loss(self, forecast: Tensor, target: Tensor) -> Tensor:
        """Return the mean loss."""
        raise NotImplementedError

    def prepared(self, given: Series) -> Series:
        """Return the inputs as they are handed over, outside of the time."""
        return Series(*(part.to(self.dtype) for part in given))

    def checked(self, forecast: Tensor, target: Tensor) -> Tensor:
        """Return the mean loss of float32 series."""
        return self.loss(*self.prepared(Series(forecast, target)))

    def call(self, task: str, given: Series) -> Callable[[], tuple[Tensor, ...]]:
        """Return the call that is timed."""
        ready = self.prepared(given)
        return lambda: outcome(self.loss, task, ready)


class Dalign(OwnPackage, Peer):
    """Our own package."""

    def load(self) -> None:
        super().load()
        self._module = self.dalign.DILATE(ALPHA, GAMMA)

    def loss(self, forecast: Tensor, target: Tensor) -> Tensor:
        return self._module(forecast, target)


class Dalign64(Dalign):
    """Our own package in double precision."""

    name = OURS64
    computes = "float64"
    dtype = torch.float64


class PlainTorch(Peer):
    """The anti-diagonal version of this folder, differentiated twice by autograd."""

    name = PLAIN

    def loss(self, forecast: Tensor, target: Tensor) -> Tensor:
        return plain_dilate(forecast, target)


class Authors(Peer):
    """The authors' own, from a checkout of their repository."""

    name = AUTHORS
    computes = "float64, rounded to float32"
    max_threads = 1
    repository: ClassVar[Path | None] = None

    def load(self) -> None:
        if self.repository is None:
            raise FileNotFoundError("--dilate-repo names no checkout of vincent-leguen/DILATE")
        self._loss = _module_of(self.repository).dilate_loss

    def version(self) -> str | None:
        commit = subprocess.run(
            ["git", "-C", str(self.repository), "rev-parse", "--short", "HEAD"], capture_output=True, text=True
        )
        return commit.stdout.strip() or None

    def offers(self, case: Case) -> bool:
        return case.dim == 1

    def loss(self, forecast: Tensor, target: Tensor) -> Tensor:
        return self._loss(forecast, target, ALPHA, GAMMA, forecast.device)[0]


def _module_of(repository: Path) -> Any:
    """Import loss/dilate_loss.py, which imports its neighbours, under a name that is nobody else's."""
    name = "dilate_of_its_authors"
    folder = repository / "loss"
    if not (folder / "dilate_loss.py").exists():
        raise FileNotFoundError("--dilate-repo: there is no loss/dilate_loss.py in it")
    package = ModuleType(name)
    package.__path__ = [str(folder)]
    sys.modules[name] = package
    warnings.filterwarnings("ignore", message="torch.range is deprecated")
    return importlib.import_module(f"{name}.dilate_loss")


def kinds(repository: Path | None) -> tuple[type[Peer], ...]:
    """Return all peers, the authors' code from this checkout."""
    return Dalign, Dalign64, type("Authors", (Authors,), {"repository": repository}), PlainTorch
