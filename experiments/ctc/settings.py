"""What can be chosen on the command line, and the two scales of the experiment."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from experiments.ctc.training import LOSSES


@dataclasses.dataclass(frozen=True)
class Scale:
    """How much of everything.

    Attributes
    ----------
    longest : float
        Seconds; longer prompts are left out.
    channels, hidden : int
        Of the convolutions, and of each direction of the GRU.
    dropout : float
        Share of the GRU's inputs and outputs that are dropped in training.
    epochs, batch_size, learning_rate
        Adam with a one-cycle learning rate.
    order : int
        Of the character n-gram.
    beam_width : int
        Of the beam search.
    weights, bonuses : tuple of float
        Tried for the scorer's weight and the bonus per character; the pair with the lowest character error rate on the
        validation prompts is used.
    """

    longest: float = 10.0
    channels: int = 128
    hidden: int = 192
    dropout: float = 0.1
    epochs: int = 60
    batch_size: int = 8
    learning_rate: float = 3e-3
    order: int = 6
    beam_width: int = 50
    weights: tuple[float, ...] = (0.5, 0.75, 1.0, 1.25)
    bonuses: tuple[float, ...] = (1.0, 2.0, 3.0)


SCALES = {
    "small": Scale(),  # about five minutes of CPU time for each training
    "paper": Scale(hidden=320, dropout=0.25, epochs=300, beam_width=100),
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """All settings of one run."""

    scale_name: str = "small"
    scale: Scale = SCALES["small"]
    losses: tuple[str, ...] = tuple(LOSSES)
    speech: Path | None = None
    seed: int = 0
    threads: int | None = 1
    out: Path = Path("out/ctc")
    cache: Path | None = None

    def as_dict(self) -> dict[str, Any]:
        """What decides the numbers."""
        return {"scale": self.scale_name, **dataclasses.asdict(self.scale), "seed": self.seed}


def parse(arguments: list[str] | None = None) -> Settings:
    """Settings from the command line."""
    asked = _parser().parse_args(arguments)
    return Settings(
        scale_name=asked.scale,
        scale=SCALES[asked.scale],
        losses=tuple(name for name in LOSSES if name in asked.losses),
        speech=asked.speech,
        seed=asked.seed,
        threads=asked.threads,
        out=asked.out,
        cache=asked.cache,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.ctc",
        description="Characters from recorded prompts: training with torch.nn.CTCLoss and with dalign.CTCLoss, "
        "decoding, forced alignment.",
    )
    add = parser.add_argument
    add(
        "--speech",
        type=Path,
        metavar="FOLDER",
        help="folder with the recordings, see experiments.data.speech (default: Debian's packages, downloaded once)",
    )
    add("--scale", choices=tuple(SCALES), default="small", help="small: ten minutes of CPU time (default)")
    add("--losses", nargs="+", choices=tuple(LOSSES), default=tuple(LOSSES), help="trainings (default: both)")
    add("--seed", type=int, default=0, help="of everything random (default: 0)")
    add("--threads", type=_count, default=1, help="threads that torch may use (default: 1)")
    add("--out", type=Path, default=Path("out/ctc"), help="folder of results (default: out/ctc)")
    add("--cache", type=Path, help="folder of downloads (default: $DALIGN_CACHE, or torch-dalign in ~/.cache)")
    return parser


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"a whole number from 1 expected, got {text}")
    return value
