"""What can be chosen on the command line, and the two scales of the experiments."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from experiments.ddtw.networks import CHORD_CHANNELS, THEME_CHANNELS

ROWS = ("CTC-A", "CTC-B", "CTC-C", "SDTW-D", "SDTW-E")
METHODS = (*ROWS, *(f"{row}-W" for row in ROWS), "EM", "strong")
"""Rows of Table I, with horizontal weight 1 and .1; hard alignment; and the known alignment."""

SAMPLE_RATE = 22050
MTD_HOP = 896
"""Samples between the frames of the Musical Theme Dataset's features."""

TASKS = ("single", "multi", "models")


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Training with Adam; the network with the lowest validation loss is kept.

    Attributes
    ----------
    epochs : int
        At most.
    batch_size : int
        Items of each step.
    rate : float
        Learning rate at the start.
    halve_after, stop_after : int
        Epochs without a lower validation loss.
    """

    epochs: int
    batch_size: int
    rate: float
    halve_after: int
    stop_after: int


@dataclasses.dataclass(frozen=True)
class Single:
    """Themes: how many tunes, samples between their frames, and the channels of the network."""

    hop: int
    n_train: int
    n_validation: int
    n_test: int
    channels: tuple[int, ...]
    schedule: Schedule

    @property
    def frame_rate(self) -> float:
        """Frames per second."""
        return SAMPLE_RATE / self.hop


@dataclasses.dataclass(frozen=True)
class Multi:
    """Polyphonic pieces: how many, how long, and the channels of the network.

    Attributes
    ----------
    quarters : float
        Longer pieces are cut after so many quarter notes.
    segment, stride : int
        Frames of the training segments, and between their beginnings.
    """

    hop: int
    n_train: int
    n_validation: int
    n_test: int
    quarters: float
    segment: int
    stride: int
    channels: tuple[int, ...]
    schedule: Schedule

    @property
    def frame_rate(self) -> float:
        """Frames per second."""
        return SAMPLE_RATE / self.hop


@dataclasses.dataclass(frozen=True)
class Scale:
    """How much of everything; `n_seeds` networks for each method."""

    n_seeds: int
    single: Single
    multi: Multi


SCALES = {
    # For two hours on two cores: half as many frames per second, a quarter of the channels, half where there are few.
    "small": Scale(
        n_seeds=2,
        single=Single(1792, 120, 24, 50, (16, 8, 8, 8, 8), Schedule(30, 2, 3e-3, 4, 10)),
        multi=Multi(1024, 32, 8, 16, 48.0, 250, 250, (8, 8, 8, 1), Schedule(8, 1, 2e-3, 2, 5)),
    ),
    "paper": Scale(
        n_seeds=5,
        single=Single(896, 1313, 377, 377, THEME_CHANNELS, Schedule(200, 8, 1e-3, 5, 10)),
        multi=Multi(512, 200, 60, 60, 256.0, 500, 200, CHORD_CHANNELS, Schedule(50, 1, 1e-3, 4, 12)),
    ),
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """All settings of one run."""

    task: str = "single"
    scale_name: str = "small"
    scale: Scale = SCALES["small"]
    methods: tuple[str, ...] = METHODS
    seeds: tuple[int, ...] = (0, 1)
    mtd: Path | None = None
    models: Path | None = None
    device: str = "cpu"
    threads: int | None = None
    cache: Path | None = None
    out: Path = Path("out/ddtw")

    @property
    def size(self) -> Single | Multi:
        """The part of the scale that this task needs."""
        return self.scale.single if self.task == "single" else self.scale.multi

    def as_dict(self) -> dict[str, Any]:
        """What decides the numbers: results of runs that agree in it belong together."""
        size = {**dataclasses.asdict(self.size), "channels": list(self.size.channels)}
        if self.task == "single" and self.mtd is not None:
            size.update(hop=MTD_HOP, n_train=None, n_validation=None, n_test=None)
        return {"task": self.task, "scale": self.scale_name, **size}


def parse(arguments: list[str] | None = None) -> Settings:
    """Settings from the command line."""
    parser = _parser()
    asked = parser.parse_args(arguments)
    if asked.task == "models" and not (asked.mtd and asked.models):
        parser.error("models: --mtd and --models are needed")
    scale = _resized(SCALES[asked.scale], asked)
    return Settings(
        task=asked.task,
        scale_name=asked.scale,
        scale=scale,
        methods=tuple(name for name in METHODS if name in asked.methods),
        seeds=tuple(asked.seeds if asked.seeds is not None else range(scale.n_seeds)),
        mtd=asked.mtd,
        models=asked.models,
        device=asked.device,
        threads=asked.threads,
        cache=asked.cache,
        out=asked.out / asked.task,
    )


def _resized(scale: Scale, asked: argparse.Namespace) -> Scale:
    """The scale with the sizes that were given beside it."""

    def resize(part: Any) -> Any:
        sizes = {"n_train": asked.train, "n_validation": asked.validation, "n_test": asked.test}
        given = {name: size for name, size in sizes.items() if size is not None}
        schedule = part.schedule if asked.epochs is None else dataclasses.replace(part.schedule, epochs=asked.epochs)
        return dataclasses.replace(part, schedule=schedule, **given)

    return dataclasses.replace(scale, single=resize(scale.single), multi=resize(scale.multi))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.ddtw",
        description="The two music tasks of the dDTW paper. A run that was stopped goes on where it was when it is "
        "started again with the same --out.",
    )
    add = parser.add_argument
    add(
        "task",
        choices=TASKS,
        help="single: pitch classes of themes (Tables III and IV); multi: of polyphonic pieces (Figs. 10 and 11); "
        "models: the authors' trained networks on their themes",
    )
    add("--scale", choices=tuple(SCALES), default="small", help="small: up to two hours on two cores (default)")
    add("--methods", nargs="+", choices=METHODS, default=METHODS, metavar="NAME", help=f"of {', '.join(METHODS)}")
    add("--seeds", nargs="+", type=int, metavar="SEED", help="a network for each (default: small 0 1, paper 0 to 4)")
    add("--mtd", type=Path, metavar="FOLDER", help="themes in the layout of the Musical Theme Dataset")
    add("--models", type=Path, metavar="FOLDER", help="the authors' files model_NAME_bestVal.pt, for the task models")
    add("--train", type=_count, help="training tunes or pieces, in place of the scale's")
    add("--validation", type=_count, help="validation tunes or pieces, in place of the scale's")
    add("--test", type=_count, help="test tunes or pieces, in place of the scale's")
    add("--epochs", type=_count, help="at most, in place of the scale's")
    add("--device", default="cpu", help="where networks are trained; losses are computed on the CPU (default: cpu)")
    add("--threads", type=_count, help="threads of each computation (default: torch's choice)")
    add("--cache", type=Path, help="folder for rendered music (default: $DALIGN_CACHE, or torch-dalign in ~/.cache)")
    add("--out", type=Path, default=Path("out/ddtw"), help="folder of results (default: out/ddtw)")
    return parser


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"a whole number from 1 expected, got {text}")
    return value
