"""Run the demo: `python -m experiments.quickstart`."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from experiments.quickstart.data import load_chorales, load_melodies
from experiments.quickstart.evaluation import score_alignment
from experiments.quickstart.losses import training
from experiments.quickstart.pictures import draw_all
from experiments.quickstart.report import Report
from experiments.quickstart.settings import Settings, parse
from experiments.quickstart.training import train


def run(settings: Settings) -> Report:
    """Render, train, evaluate, draw; pictures and tables are in `settings.out` afterwards."""
    # Adam's averages of vanishing gradients become denormal numbers, which CPUs handle in slow motion.
    torch.set_flush_denormal(True)
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    settings.out.mkdir(parents=True, exist_ok=True)
    seconds: dict[str, float] = {}
    with _timed(seconds, "music"):
        chorales = load_chorales(settings)
        of_melody = [name for name in settings.losses if training(name).of_melody]
        melodies = load_melodies(chorales, settings) if of_melody else chorales
        pieces = {name: melodies if name in of_melody else chorales for name in settings.losses}
    with _timed(seconds, "training"):
        results = {name: train(name, pieces[name], settings) for name in settings.losses}
    with _timed(seconds, "evaluation"):
        alignments = {
            name: (
                score_alignment(result.untrained, pieces[name].test, settings.gamma),
                score_alignment(result.network, pieces[name].test, settings.gamma),
            )
            for name, result in results.items()
        }
    with _timed(seconds, "pictures"):
        draw_all(results, pieces[settings.losses[0]].test[0], settings.gamma, settings.out)
    report = Report(settings, results, alignments, seconds)
    report.write(settings.out)
    return report


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    seconds[stage] = round(time.perf_counter() - started, 2)


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line, run, and print the table."""
    settings = parse(arguments)
    report = run(settings)
    stages = ", ".join(f"{stage} {seconds:.0f} s" for stage, seconds in report.seconds.items())
    print(f"\nPitch classes of {settings.n_test} held-out chorales, frame by frame (seed {settings.seed}):\n")
    print(report.text())
    print(f"\nTime: {stages}.\nPictures and tables: {settings.out.resolve()}", file=sys.stdout)


if __name__ == "__main__":
    main()
