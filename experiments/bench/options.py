"""What the user of the command line may choose."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from .harness import Limits

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Options:
    """Options of a run.

    Attributes
    ----------
    quick : bool
        A small grid, about a minute.
    threads : tuple of int
        Numbers of threads.
    only : frozenset of str
        Names of families and peers to run; empty: all. Naming peers alone leaves all families, and the other way round.
    out : Path
        Folder of the results.
    seed : int
        Of the inputs.
    minutes : float
        When they are over, what is left of the grid is marked as skipped.
    limits : Limits
        Beyond these a combination is skipped.
    dilate_repo : Path or None
        A checkout of the code of DILATE's authors, for the suite of that name.
    """

    quick: bool = False
    threads: tuple[int, ...] = (1, 2)
    only: frozenset[str] = frozenset()
    out: Path = RESULTS
    seed: int = 0
    minutes: float = 40.0
    limits: Limits = field(default_factory=Limits)
    dilate_repo: Path | None = None

    def wants(self, name: str, names: tuple[str, ...]) -> bool:
        """Tell whether one of several names is chosen: none of them chosen means all."""
        chosen = self.only.intersection(names)
        return not chosen or name in chosen
