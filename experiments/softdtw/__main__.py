"""Run the experiments: `python -m experiments.softdtw`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import torch

from experiments.bench import machine
from experiments.data import ucr
from experiments.data.ucr import DataError, Dataset, Files
from experiments.softdtw import barycenters, kmeans, neighbors, plots, prediction, tables
from experiments.softdtw.settings import Settings, parse
from experiments.softdtw.store import Found, Numbers, Store

RUN: dict[str, Callable[[Dataset, Settings], Found]] = {
    "barycenters": barycenters.run,
    "kmeans": kmeans.run,
    "prediction": prediction.run,
    "neighbors": neighbors.run,
}


def run(settings: Settings) -> Store:
    """Run what is chosen and not yet done, then write tables and pictures."""
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    sets = choose(settings)
    store = Store(settings.out, settings.as_dict(), machine.describe())
    for number, files in enumerate(sets, start=1):
        todo = [experiment for experiment in settings.experiments if not store.has(experiment, files.name)]
        if not todo:
            continue
        dataset = ucr.load(files)
        for experiment in todo:
            print(f"[{number}/{len(sets)}] {files.name}: {experiment}", end=" ", flush=True)
            entry = measure(experiment, dataset, settings)
            store.add(experiment, files.name, entry)
            print(f"{entry['seconds']:.0f} s", flush=True)
    tables.write(store.content, settings.out)
    plots.draw(store.content, settings.out)
    return store


def choose(settings: Settings) -> list[Files]:
    """The wanted sets of all sources, in alphabetical order."""
    found: dict[str, Files] = {}
    for source in settings.sources:
        found = {**ucr.find(source), **found}
    unknown = set(settings.sets).difference(found)
    if unknown:
        raise DataError(f"--sets: {', '.join(sorted(unknown))} not found; there are {', '.join(sorted(found))}")
    return [found[name] for name in sorted(found) if not settings.sets or name in settings.sets]


def measure(experiment: str, dataset: Dataset, settings: Settings) -> Numbers:
    """The numbers of one experiment on one set, with the facts that its tables show; draws its example."""
    # Accuracies are compared with published ones, which are of the whole series.
    used = dataset if experiment == "neighbors" else dataset.shortened(settings.scale.longest)
    started = time.perf_counter()
    found = RUN[experiment](used, settings)
    seconds = time.perf_counter() - started
    if found.example is not None:
        plots.draw_example(experiment, found.example, settings.out / "examples" / f"{experiment}_{dataset.name}.png")
    return {**found.numbers, "set": describe(dataset), "used_length": max(used.lengths), "seconds": round(seconds, 2)}


def describe(dataset: Dataset) -> dict[str, Any]:
    """Sizes of a set."""
    lengths = dataset.lengths
    return {
        "train": len(dataset.train),
        "test": len(dataset.test),
        "classes": dataset.n_classes,
        "dims": dataset.n_dims,
        "shortest": min(lengths),
        "longest": max(lengths),
    }


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line, run, and print the tables."""
    settings = parse(arguments)
    try:
        store = run(settings)
    except DataError as error:
        sys.exit(str(error))
    print(f"\n{tables.markdown(store.content)}\nTables, pictures and numbers: {settings.out.resolve()}")


if __name__ == "__main__":
    main()
