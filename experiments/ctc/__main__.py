"""Run the experiment: `python -m experiments.ctc`."""

from __future__ import annotations

import sys
from typing import Any

import torch

from experiments.bench import machine
from experiments.ctc import data, evaluation, plots, report, timing, training
from experiments.ctc.data import Utterance
from experiments.ctc.settings import Settings, parse
from experiments.data.speech import DataError

ALIGNED_SECONDS = 4.0
"""The test prompt whose length is nearest to this is drawn."""
FIRST_STEPS = 20


def run(settings: Settings) -> dict[str, Any]:
    """Train, time, decode, draw; the numbers and pictures are in `settings.out` afterwards."""
    # Adam's averages of vanishing gradients become denormal numbers, which CPUs handle in slow motion.
    torch.set_flush_denormal(True)
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    described = machine.describe()
    parts = data.load(settings.speech, settings.scale.longest, settings.seed, settings.cache)
    results = {name: training.train_or_restore(name, parts, settings) for name in settings.losses}
    last = list(results.values())[-1].network
    content = {
        "settings": settings.as_dict(),
        "machine": described,
        "data": {name: describe(part) for name, part in parts.items()},
        "parameters": sum(parameter.numel() for parameter in last.parameters()),
        "trainings": {name: numbers(result, parts, settings) for name, result in results.items()},
        "timing": timing.compare(last, parts["train"], training.TIMED, settings.scale.batch_size),
    }
    report.write(content, settings.out)
    plots.draw_training(content, settings.out / "training.png")
    drawn = min(parts["test"], key=lambda one: abs(one.prompt.seconds - ALIGNED_SECONDS))
    plots.draw_alignment(last, drawn, settings.out / "alignment.png")
    return content


def describe(part: list[Utterance]) -> dict[str, Any]:
    """Size of a part of the data."""
    return {
        "prompts": len(part),
        "seconds": round(sum(one.prompt.seconds for one in part), 1),
        "characters": sum(len(one.prompt.text) for one in part),
    }


def numbers(result: training.Result, parts: dict[str, list[Utterance]], settings: Settings) -> dict[str, Any]:
    """What results.json keeps of a training."""
    return {
        "steps": len(result.step_losses),
        "first_losses": result.step_losses[:FIRST_STEPS],
        "epoch_losses": [round(loss, 5) for loss in result.epoch_losses],
        "epoch_errors": [round(error, 5) for error in result.epoch_errors],
        "seconds": {name: round(seconds, 2) for name, seconds in result.seconds.items()},
        "decoding": evaluation.decode_all(result.network, parts, settings.scale),
    }


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line, run, and print the report."""
    settings = parse(arguments)
    try:
        content = run(settings)
    except DataError as error:
        sys.exit(str(error))
    print(f"\n{report.markdown(content)}\nTables, pictures and numbers: {settings.out.resolve()}")


if __name__ == "__main__":
    main()
