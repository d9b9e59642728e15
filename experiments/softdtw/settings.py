"""What can be chosen on the command line, and the two scales of the experiments."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from experiments.data import ucr

GAMMAS = (1.0, 0.1, 0.01, 0.001)
STARTS = ("random", "euclidean")
EXPERIMENTS = ("barycenters", "kmeans", "prediction", "neighbors")
EUCLIDEAN = "euclidean"
"""Name of the Euclidean loss in results, as a judge and as what is trained with."""


@dataclasses.dataclass(frozen=True)
class Scale:
    """How much of everything.

    Attributes
    ----------
    draws : int
        How often a class and its series are drawn per set, for barycenters.
    n_series : int
        Series of a class that are averaged.
    iterations : int
        At most, of each barycenter.
    kmeans_series : int or None
        At most so many training series are clustered; None: all.
    kmeans_rounds : int
        At most, of assigning series and moving centres.
    kmeans_iterations : int
        At most, of each centre in each round.
    hidden_units, updates, batch_size, learning_rate
        The network, and its training with Adam.
    longest : int or None
        Longer series are resampled to this length; None: never.
    """

    draws: int
    n_series: int
    iterations: int
    kmeans_series: int | None
    kmeans_rounds: int
    kmeans_iterations: int
    hidden_units: int
    updates: int
    batch_size: int
    learning_rate: float
    longest: int | None


SCALES = {
    # For two hours on two cores over the dozen sets that are easily at hand.
    "small": Scale(
        draws=3,
        n_series=10,
        iterations=100,
        kmeans_series=50,
        kmeans_rounds=10,
        kmeans_iterations=20,
        hidden_units=50,
        updates=2000,
        batch_size=8,
        learning_rate=1e-3,
        longest=512,
    ),
    "paper": Scale(
        draws=10,
        n_series=10,
        iterations=100,
        kmeans_series=None,
        kmeans_rounds=30,
        kmeans_iterations=100,
        hidden_units=50,
        updates=6000,
        batch_size=8,
        learning_rate=1e-3,
        longest=None,
    ),
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """All settings of one run."""

    scale_name: str = "small"
    scale: Scale = SCALES["small"]
    sources: tuple[str, ...] = (ucr.AEON,)
    experiments: tuple[str, ...] = EXPERIMENTS
    sets: tuple[str, ...] = ()
    seed: int = 0
    threads: int | None = None
    out: Path = Path("out/softdtw")

    def as_dict(self) -> dict[str, Any]:
        """What decides the numbers: results of runs that agree in it belong together."""
        return {"scale": self.scale_name, **dataclasses.asdict(self.scale), "gammas": list(GAMMAS), "seed": self.seed}


def soft(gamma: float) -> str:
    """Name of soft-DTW with that gamma in results."""
    return f"softdtw {gamma:g}"


def parse(arguments: list[str] | None = None) -> Settings:
    """Settings from the command line."""
    asked = _parser().parse_args(arguments)
    return Settings(
        scale_name=asked.scale,
        scale=SCALES[asked.scale],
        sources=tuple(asked.ucr),
        experiments=tuple(name for name in EXPERIMENTS if name in asked.only),
        sets=tuple(asked.sets),
        seed=asked.seed,
        threads=asked.threads,
        out=asked.out,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.softdtw",
        description="The three tables of the soft-DTW paper, and 1-NN classification with DTW. A run that was stopped "
        "goes on where it was when it is started again with the same --out.",
    )
    add = parser.add_argument
    add(
        "--ucr",
        nargs="+",
        default=[ucr.AEON],
        metavar="FOLDER",
        help="folders with sets (.ts, .tsv, .txt, .npz); 'aeon': those inside that package (default). The first folder "
        "that has a set counts",
    )
    add("--scale", choices=tuple(SCALES), default="small", help="small: up to two hours on two cores (default)")
    add("--only", nargs="+", choices=EXPERIMENTS, default=EXPERIMENTS, help="experiments to run (default: all)")
    add("--sets", nargs="+", default=[], metavar="NAME", help="sets to run (default: all that are found)")
    add("--seed", type=int, default=0, help="of everything random (default: 0)")
    add("--threads", type=_count, help="threads of each computation (default: torch's choice)")
    add("--out", type=Path, default=Path("out/softdtw"), help="folder of results (default: out/softdtw)")
    return parser


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"a whole number from 1 expected, got {text}")
    return value
