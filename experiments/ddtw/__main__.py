"""Run the experiments: `python -m experiments.ddtw single`, `multi` or `models`."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from experiments.bench import machine
from experiments.ddtw import authors, multi, plots, single, tables
from experiments.ddtw.settings import Settings, parse
from experiments.softdtw.store import Numbers, Store

TASKS: dict[str, ModuleType] = {"single": single, "multi": multi}


def run(settings: Settings) -> Store:
    """Train and evaluate what is chosen and not yet done, then write tables and pictures."""
    prepare(settings)
    task = TASKS[settings.task]
    store = Store(settings.out, settings.as_dict(), machine.describe())
    todo = [
        (method, seed)
        for seed in settings.seeds
        for method in settings.methods
        if not store.has(settings.task, key(method, seed))
    ]
    data: Any = task.load(settings) if todo else None
    for number, (method, seed) in enumerate(todo, start=1):
        print(f"[{number}/{len(todo)}] {method}, seed {seed}:", end=" ", flush=True)
        started = time.perf_counter()
        found = task.run(method, seed, data, settings)
        keep_example(found.example, settings.out, key(method, seed))
        store.add(
            settings.task, key(method, seed), {**found.numbers, "seconds": round(time.perf_counter() - started, 1)}
        )
        print(summary(found.numbers), flush=True)
        report(store.content, settings.out)
    report(store.content, settings.out)
    return store


def prepare(settings: Settings) -> None:
    """Threads, and numbers too small to matter as zeros, which halves the time of long trainings on a CPU."""
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    torch.set_flush_denormal(True)


def key(method: str, seed: int) -> str:
    """Name of a network in the results."""
    return f"{method} {seed}"


def summary(numbers: Numbers) -> str:
    """The most important numbers of a network in a line."""
    shown = ("accuracy", "greedy_ler", "beam_ler", "mrr", "f_measure", "precision", "recall")
    found = [f"{name} {numbers[name]:.3f}" for name in shown if name in numbers]
    return ", ".join([*found, f"{len(numbers['validation_losses'])} epochs", f"{numbers['train_seconds']:.0f} s"])


def keep_example(example: Numbers | None, folder: Path, name: str) -> None:
    """Arrays for the pictures, in half precision."""
    path = folder / "examples" / f"{name.replace(' ', '_')}.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays: Any = {kind: np.asarray(array, np.float16) for kind, array in (example or {}).items()}
    np.savez_compressed(path, **arrays)


def examples(content: Numbers, folder: Path) -> dict[str, Any]:
    """By method, the example of the network with the lowest validation loss."""
    found: dict[str, Any] = {}
    entries = content["entries"].get(content["settings"]["task"], {})
    for method in tables.runs(content):
        names = [name for name in entries if name.rpartition(" ")[0] == method]
        best = min(names, key=lambda name: entries[name]["validation_loss"])
        path = folder / "examples" / f"{best.replace(' ', '_')}.npz"
        if path.is_file():
            with np.load(path) as arrays:
                found[method] = {kind: arrays[kind].astype(np.float32) for kind in arrays}
    return found


def report(content: Numbers, folder: Path) -> None:
    """Write tables and pictures of what there is."""
    if tables.runs(content):
        tables.write(content, folder)
        plots.draw(content, examples(content, folder), folder)


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line, run, and print the tables."""
    settings = parse(arguments)
    try:
        if settings.task == "models":
            prepare(settings)
            text, folder = authors.write(authors.run(settings), settings.out).read_text(encoding="utf-8"), settings.out
        else:
            text, folder = tables.markdown(run(settings).content), settings.out
    except (FileNotFoundError, ValueError) as error:
        sys.exit(str(error))
    print(f"\n{text}\nTables, pictures and numbers: {folder.resolve()}")


if __name__ == "__main__":
    main()
