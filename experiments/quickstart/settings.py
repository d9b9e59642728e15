"""What can be chosen on the command line, and the two sizes of the demo."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from experiments.quickstart.losses import DDTW, LOSSES, training


@dataclasses.dataclass(frozen=True)
class Settings:
    """All settings of one run; the defaults are those of `make demo`."""

    losses: tuple[str, ...] = ("softdtw", "strong", "linear")
    gamma: float = 1.0
    epochs: int = 5
    batch_size: int = 2
    learning_rate: float = 8e-3
    n_train: int = 60
    n_validation: int = 10
    n_test: int = 20
    seed: int = 0
    device: str = "cpu"
    threads: int | None = 1  # the network is so small that a second thread makes it four times slower
    out: Path = Path("demo-output")
    cache: Path | None = None


QUICK = Settings(epochs=6, batch_size=1, n_train=20, n_validation=2, n_test=6)
"""The size that CI runs: under a minute with rendering."""


def parse(arguments: list[str] | None = None) -> Settings:
    """Settings from the command line."""
    options = _parser().parse_args(arguments)
    base = QUICK if options.quick else Settings()
    given = {name: value for name, value in vars(options).items() if name != "quick" and value is not None}
    if "losses" in given:
        given["losses"] = tuple(given["losses"])
    return dataclasses.replace(base, **given)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.quickstart",
        description="Learn the pitch classes of Bach chorales from chord sequences without durations.",
    )
    add = parser.add_argument
    trainings = ", ".join(f"{name} ({loss.title})" for name, loss in LOSSES.items())
    add("--quick", action="store_true", help="20 chorales instead of 60: under a minute")
    add(
        "--loss",
        dest="losses",
        nargs="+",
        type=_loss,
        metavar="NAME",
        help=f"trainings to run and compare; the first one is drawn. {trainings}, or {DDTW}PRESET with a preset of "
        "torch_dalign.presets, such as ddtw:SDTW-E-W. A loss with a blank adds an output to the network, which is left "
        "out when it is evaluated. decdtw is told where in the score each frame is, not what sounds. ctc knows one "
        "class at a time: its music is the top voices of the same chorales, "
        "performed alone, its targets are their notes, and it needs twice the epochs (default: softdtw strong linear)",
    )
    add("--gamma", type=_positive, help="smoothing of soft-DTW and dDTW (default: 1)")
    add("--epochs", type=_count, help="passes over the training pieces (default: 5, quick: 6)")
    add("--device", help="where the network is trained (default: cpu)")
    add("--out", type=Path, help="folder for pictures and tables (default: demo-output)")
    add("--seed", type=int, help="seed of everything random (default: 0)")
    add("--threads", type=_count, help="threads that torch may use (default: 1, the fastest for so small a network)")
    add("--cache", type=Path, help="folder for rendered music (default: $DALIGN_CACHE, or torch-dalign in ~/.cache)")
    return parser


def _loss(text: str) -> str:
    try:
        training(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def _positive(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"a positive number expected, got {text}")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"a whole number from 1 expected, got {text}")
    return value
