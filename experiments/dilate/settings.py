"""What can be chosen on the command line, and the two scales of the experiment."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from experiments.data import ucr
from experiments.dilate.data import DATA, SYNTHETIC, WEATHER_FILE
from experiments.dilate.networks import NETWORKS
from experiments.dilate.training import DILATE, GAMMA, LOSSES

ALPHAS = {
    SYNTHETIC: 0.5,
    "ECG5000": 0.5,
    "ECG200": 0.5,
    "pulse": 0.5,
    "ItalyPowerDemand": 0.8,
    "weather": 0.8,
}
"""DILATE's alpha: the paper's for its synthetic series and heartbeats, and its 0.8 of traffic for the rest."""
SWEEP = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)
"""Alphas that are compared on the synthetic series."""

BESIDE = Path(__file__).parents[3] / "shared" / "data"
"""Data beside the repository, which are used when they are there."""


@dataclasses.dataclass(frozen=True)
class Scale:
    """How much of everything.

    Attributes
    ----------
    n_seeds, sweep_seeds : int
        Networks for each loss, and for each alpha.
    most : int or None
        Pairs in each part of what is not synthetic; None: all there are.
    hidden : dict
        Units of each kind of network.
    epochs, patience : int
        At most, and without a lower validation loss.
    batch_size, learning_rate
        Of Adam, the same for all losses.
    """

    n_seeds: int = 5
    sweep_seeds: int = 2
    most: int | None = 200
    hidden: dict[str, int] = dataclasses.field(default_factory=lambda: {"mlp": 128, "gru": 32})
    epochs: int = 150
    patience: int = 30
    batch_size: int = 100
    learning_rate: float = 1e-2


SCALES = {
    "small": Scale(),  # a quarter of an hour of CPU time
    "paper": Scale(
        n_seeds=10,
        sweep_seeds=10,
        most=None,
        hidden={"mlp": 128, "gru": 128},
        epochs=1000,
        patience=100,
        learning_rate=1e-3,
    ),
}


class Job(NamedTuple):
    """One network to train."""

    data: str
    network: str
    loss: str
    alpha: float
    seed: int

    @property
    def method(self) -> str:
        """Name of the loss, with DILATE's alpha."""
        return method(self.loss, self.alpha)

    @property
    def key(self) -> str:
        """Name in the results of this source."""
        return f"{self.network} {self.method} {self.seed}"


def method(loss: str, alpha: float) -> str:
    """Name of a loss in results."""
    return f"{loss} {alpha:g}" if loss == DILATE else loss


@dataclasses.dataclass(frozen=True)
class Settings:
    """All settings of one run; `data` None stands for all that is found."""

    scale_name: str = "small"
    scale: Scale = SCALES["small"]
    data: tuple[str, ...] | None = None
    networks: tuple[str, ...] = tuple(NETWORKS)
    losses: tuple[str, ...] = LOSSES
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    sweep: tuple[float, ...] = SWEEP
    sources: tuple[str, ...] = (ucr.AEON,)
    weather: Path | None = None
    threads: int | None = 1
    out: Path = Path("out/dilate")

    def as_dict(self) -> dict[str, Any]:
        """What decides the numbers: results of runs that agree in it belong together."""
        return {"scale": self.scale_name, **dataclasses.asdict(self.scale), "gamma": GAMMA, "alphas": ALPHAS}

    def jobs(self, names: Collection[str]) -> Iterator[Job]:
        """What is trained, source by source, then the other alphas on the synthetic one."""
        for data in names:
            for seed in self.seeds:
                for network in self.networks:
                    yield from (Job(data, network, loss, ALPHAS[data], seed) for loss in self.losses)
        if SYNTHETIC in names and DILATE in self.losses:
            others = [alpha for alpha in self.sweep if alpha != ALPHAS[SYNTHETIC]]
            for network in self.networks:
                for seed in self.seeds[: self.scale.sweep_seeds]:
                    yield from (Job(SYNTHETIC, network, DILATE, alpha, seed) for alpha in others)


def parse(arguments: list[str] | None = None) -> Settings:
    """Settings from the command line."""
    asked = _parser().parse_args(arguments)
    scale = SCALES[asked.scale]
    return Settings(
        scale_name=asked.scale,
        scale=scale,
        data=tuple(name for name in DATA if name in asked.data) if asked.data else None,
        networks=tuple(name for name in NETWORKS if name in asked.networks),
        losses=tuple(name for name in LOSSES if name in asked.methods),
        seeds=tuple(asked.seeds if asked.seeds is not None else range(scale.n_seeds)),
        sweep=() if asked.no_sweep else SWEEP,
        sources=tuple(asked.ucr),
        weather=asked.weather,
        threads=asked.threads,
        out=asked.out,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.dilate",
        description="Forecasting several steps: an MLP and a GRU encoder and decoder trained with MSE, soft-DTW and "
        "DILATE, judged by MSE, DTW and TDI. A run that was stopped goes on where it was when it is started again with "
        "the same --out.",
    )
    add = parser.add_argument
    add("--scale", choices=tuple(SCALES), default="small", help="small: a quarter of an hour of CPU time (default)")
    add("--data", nargs="+", choices=DATA, metavar="NAME", help=f"of {', '.join(DATA)} (default: all that are found)")
    add("--networks", nargs="+", choices=tuple(NETWORKS), default=tuple(NETWORKS), help="default: both")
    add("--methods", nargs="+", choices=LOSSES, default=LOSSES, help="losses to train with (default: all)")
    add("--seeds", nargs="+", type=int, metavar="SEED", help="a network for each (default: small 0 to 4, paper 0 to 9)")
    add("--no-sweep", action="store_true", help="leave out the comparison of alphas")
    add(
        "--ucr",
        nargs="+",
        default=[ucr.AEON, *([str(BESIDE / "ucr")] if (BESIDE / "ucr").is_dir() else [])],
        metavar="FOLDER",
        help="folders with sets of the UCR archive; 'aeon': those inside that package (default)",
    )
    add(
        "--weather",
        type=Path,
        default=BESIDE / "forecast" if (BESIDE / "forecast").is_dir() else None,
        metavar="FILE",
        help=f"{WEATHER_FILE}, or the folder that holds it",
    )
    add("--threads", type=_count, default=1, help="threads that torch may use (default: 1, for such small networks)")
    add("--out", type=Path, default=Path("out/dilate"), help="folder of results (default: out/dilate)")
    return parser


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"a whole number from 1 expected, got {text}")
    return value
