"""Run the experiment: `python -m experiments.dilate`."""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import Tensor

from experiments.bench import machine
from experiments.data.ucr import DataError
from experiments.dilate import data, evaluation, plots, tables, training
from experiments.dilate.data import DATA, Task
from experiments.dilate.settings import Job, Settings, parse
from experiments.softdtw.store import Numbers, Store

TASKS = "tasks"
"""Name of the facts about the sources among the entries; the others are the networks of each source."""


def run(settings: Settings) -> Store:
    """Train and judge what is chosen and not yet done, then write tables and pictures."""
    # Adam's averages of vanishing gradients become denormal numbers, which CPUs handle in slow motion.
    torch.set_flush_denormal(True)
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    store = Store(settings.out, settings.as_dict(), machine.describe())
    tasks = {task.name: task for task in load(settings)}
    for task in tasks.values():
        if not store.has(TASKS, task.name):
            store.add(TASKS, task.name, describe(task))
    todo = [job for job in settings.jobs(tasks) if not store.has(job.data, job.key)]
    for number, job in enumerate(todo, start=1):
        entry = measure(job, tasks[job.data], settings)
        store.add(job.data, job.key, entry)
        print(f"[{number}/{len(todo)}] {job.data}: {job.key}: {summary(entry)}", flush=True)
    tables.write(store.content, settings.out)
    plots.draw(store.content, settings.out)
    return store


def load(settings: Settings) -> list[Task]:
    """The wanted sources; those that nobody asked for by name are left out where they are not found."""
    found = (_load_or_none(name, settings) for name in settings.data or DATA)
    return [task for task in found if task is not None]


def _load_or_none(name: str, settings: Settings) -> Task | None:
    try:
        return data.load(name, settings.scale.most, settings.sources, settings.weather)
    except DataError as error:
        if settings.data is not None:
            raise
        print(f"left out: {error}", flush=True)
        return None


def describe(task: Task) -> Numbers:
    """Sizes, the forecast that needs no learning, and the series for the picture."""
    chosen = evaluation.shown(task.test)
    return {
        "sizes": [len(part.seen) for part in (task.train, task.validation, task.test)],
        "n_seen": task.n_seen,
        "n_future": task.n_future,
        "last_value": evaluation.judge(evaluation.last_value(task.test), task.test.future),
        "seen": _rounded(task.test.seen[chosen]),
        "future": _rounded(task.test.future[chosen]),
    }


def measure(job: Job, task: Task, settings: Settings) -> Numbers:
    """Train one network; its errors on the test part, and for the first seed its forecast of the series shown."""
    loss = training.make_loss(job.loss, job.alpha)
    result = training.train(task, job.network, loss, job.seed, settings.scale)
    forecast = evaluation.predict(result.network, task.test)
    entry: Numbers = {
        **evaluation.judge(forecast, task.test.future),
        "epochs": len(result.train_losses),
        "best": result.best,
        "validation_loss": result.validation_losses[result.best - 1],
        "seconds": round(result.seconds, 2),
    }
    if job.seed == settings.seeds[0]:
        entry["forecast"] = _rounded(forecast[evaluation.shown(task.test)])
    return entry


def _rounded(series: Tensor) -> list[float]:
    return [round(value, 4) for value in series.flatten().tolist()]


def summary(entry: Numbers) -> str:
    """A line for who waits."""
    errors = ", ".join(f"{name} {entry[name]:.4f}" for name in evaluation.MEASURES)
    return f"{errors}; best of {entry['epochs']} epochs: {entry['best']}; {entry['seconds']:.0f} s"


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line, run, and print the tables."""
    settings = parse(arguments)
    try:
        content: Any = run(settings).content
    except ValueError as error:
        sys.exit(str(error))
    print(f"\n{tables.markdown(content)}\nTables, pictures and numbers: {settings.out.resolve()}")


if __name__ == "__main__":
    main()
