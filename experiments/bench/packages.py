"""The packages that are compared: whether they load here, versions, threads. Nothing here knows an algorithm."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

OURS = "dalign"


class Package:
    """One implementation.

    Attributes
    ----------
    name : str
        As in tables and plots.
    distribution : str or None
        The package whose version is reported.
    computes : str
        Number type of the recursion when the input is float32.
    max_threads : int or None
        None: as many as asked for.
    """

    name: str
    distribution: str | None = None
    computes = "float32"
    max_threads: int | None = None

    def load(self) -> None:
        """Import what is needed; raises when that is not installed or does not work."""

    def version(self) -> str | None:
        """Return the version of the package, None for code of this folder."""
        return importlib.metadata.version(self.distribution) if self.distribution else None


class OwnPackage(Package):
    """Our own package, as `self.dalign`."""

    name = OURS
    dalign: Any

    def load(self) -> None:
        import torch_dalign

        self.dalign = torch_dalign

    def version(self) -> str | None:
        return str(self.dalign.build_info()["version"])


@dataclass(frozen=True)
class Presence:
    """Whether a package can run: its version and what it computes in, or why it is missing."""

    name: str
    version: str | None
    computes: str
    missing: str | None


PackageT = TypeVar("PackageT", bound=Package)


def load(kinds: Sequence[type[PackageT]]) -> tuple[dict[str, PackageT], list[Presence]]:
    """Load the packages that work here; the others are reported, whatever keeps them from loading."""
    loaded: dict[str, PackageT] = {}
    presences = []
    for kind in kinds:
        package = kind()
        try:
            package.load()
            presences.append(Presence(package.name, package.version(), package.computes, None))
            loaded[package.name] = package
        except Exception as error:  # an incompatible dependency may raise anything
            presences.append(Presence(package.name, None, package.computes, f"{type(error).__name__}: {error}"))
    return loaded, presences


def set_threads(threads: int) -> None:
    """Set the number of threads of torch and, where it is loaded, of Numba."""
    torch.set_num_threads(threads)
    numba = sys.modules.get("numba")
    if numba is not None:
        numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
