"""What can be chosen on the command line, and the two scales of the experiment."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from experiments.gdtw.score.features import SIZES
from experiments.gdtw.score.training import Schedule

KINDS = tuple(SIZES)
METHODS = ("base", "soft-dtw", "along-gt", "dilate", "decdtw", "decdtw-learned")
"""No training; three losses whose features DTW aligns; TimeErr through DecDTW, with lambda fixed and learned."""
SOUNDS = ("clean", "room", "noise")

WEIGHTS = {"cqt": 0.1, "chroma": 0.7, "melspec": 0.9}
"""Lambda of the paper."""
GRID = (0.03, 0.1, 0.3, 1.0, 3.0)
"""Of lambda, for base features: the paper chose its own by such a grid, on its validation slices."""


@dataclasses.dataclass(frozen=True)
class Scale:
    """How much of everything.

    Attributes
    ----------
    n_train, n_validation, n_test : int
        Pieces.
    quarters : float
        Longer pieces are cut after so many quarter notes.
    length : int
        Frames of a slice.
    features : int
        Numbers that the network gives for each frame.
    epochs, dilate_epochs : int
        DILATE learns slowly: the paper gives it 15 times as many.
    weight_rate : float
        Learning rate of the logarithm of lambda.
    """

    n_train: int
    n_validation: int
    n_test: int
    quarters: float
    epochs: int
    dilate_epochs: int
    rate: float
    batch_size: int = 5
    length: int = 256
    features: int = 128
    weight_rate: float = 0.02
    soft_gamma: float = 1.0
    dilate_gamma: float = 0.1

    def schedule(self, method: str) -> Schedule:
        """Of a training with that method."""
        return Schedule(self.dilate_epochs if method == "dilate" else self.epochs, self.batch_size, self.rate)


SCALES = {
    # A quarter of an hour of CPU time for each seed. Few slices, so few steps: they are ten times as large.
    "small": Scale(60, 14, 24, quarters=64.0, epochs=12, dilate_epochs=24, rate=1e-3),
    "paper": Scale(280, 70, 70, quarters=160.0, epochs=20, dilate_epochs=300, rate=1e-4),
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """All settings of one run."""

    scale_name: str = "small"
    scale: Scale = SCALES["small"]
    kinds: tuple[str, ...] = KINDS
    methods: tuple[str, ...] = METHODS
    seeds: tuple[int, ...] = (0,)
    sound: str = "room"
    data: Path | None = None
    threads: int | None = None
    cache: Path | None = None
    out: Path = Path("out/gdtw/score")

    def as_dict(self) -> dict[str, Any]:
        """What decides the numbers: results of runs that agree in it belong together."""
        size = dataclasses.asdict(self.scale)
        if self.data is not None:
            size.update(n_train=None, n_validation=None, n_test=None, quarters=None)
        sound = self.sound if self.data is None else "given"
        return {"task": "score", "scale": self.scale_name, "sound": sound, **size}


def parse(arguments: list[str] | None = None) -> Settings:
    """Settings from the command line."""
    asked = _parser().parse_args(arguments)
    return Settings(
        scale_name=asked.scale,
        scale=_resized(SCALES[asked.scale], asked),
        kinds=tuple(name for name in KINDS if name in asked.features),
        methods=tuple(name for name in METHODS if name in asked.methods),
        seeds=tuple(asked.seeds),
        sound=asked.sound,
        data=asked.data,
        threads=asked.threads,
        cache=asked.cache,
        out=asked.out,
    )


def _resized(scale: Scale, asked: argparse.Namespace) -> Scale:
    """The scale with the sizes that were given beside it."""
    sizes = {
        "n_train": asked.train,
        "n_validation": asked.validation,
        "n_test": asked.test,
        "epochs": asked.epochs,
        "dilate_epochs": asked.epochs,
        "rate": asked.rate,
    }
    return dataclasses.replace(scale, **{name: size for name, size in sizes.items() if size is not None})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.gdtw score",
        description="Audio to score alignment: Tables 1, 3 and 4 of the DecDTW paper. A run that was stopped goes on "
        "where it was when it is started again with the same --out.",
    )
    add = parser.add_argument
    add("--scale", choices=tuple(SCALES), default="small", help="small: some 15 minutes of one core (default)")
    add("--features", nargs="+", choices=KINDS, default=KINDS, help="base features (default: all)")
    add("--methods", nargs="+", choices=METHODS, default=METHODS, help="default: all")
    add("--seeds", nargs="+", type=int, default=(0,), metavar="SEED", help="a network for each (default: 0)")
    add(
        "--sound",
        choices=SOUNDS,
        default="room",
        help="of rendered performances: as synthesised, detuned in a room (default), or that with noise",
    )
    add(
        "--data",
        type=Path,
        metavar="PATH",
        help="recordings of your own, such as KernScores and MAESTRO: PATH/data/score, PATH/data/perf and "
        "PATH/align/ground, see experiments.gdtw.score.archive",
    )
    add("--train", type=_count, help="training pieces, in place of the scale's")
    add("--validation", type=_count, help="validation pieces, in place of the scale's")
    add("--test", type=_count, help="test pieces, in place of the scale's")
    add("--epochs", type=_count, help="of every method, in place of the scale's")
    add("--rate", type=float, help="learning rate, in place of the scale's")
    add("--threads", type=_count, help="threads of each computation (default: torch's choice)")
    add("--cache", type=Path, help="folder for rendered music (default: $DALIGN_CACHE, or torch-dalign in ~/.cache)")
    add("--out", type=Path, default=Path("out/gdtw/score"), help="folder of results (default: out/gdtw/score)")
    return parser


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"a whole number from 1 expected, got {text}")
    return value
