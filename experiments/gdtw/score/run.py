"""Run the experiment: `python -m experiments.gdtw score`."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from experiments.bench import machine
from experiments.gdtw.score import archive, data, methods, network, plots, tables
from experiments.gdtw.score.data import Parts, Recording, Slice
from experiments.gdtw.score.features import SIZES
from experiments.gdtw.score.methods import GDTW, Aligner, Loss, Warp
from experiments.gdtw.score.settings import GRID, WEIGHTS, Scale, Settings, parse
from experiments.gdtw.score.training import Trainer, evaluate
from experiments.softdtw.store import Numbers, Store

N_EXAMPLES = 2
"""Test slices that are drawn."""

Slices = dict[str, list[Slice]]


def run(settings: Settings) -> Store:
    """Train and evaluate what is chosen and not yet done, then write tables and pictures."""
    prepare(settings)
    store = Store(settings.out, settings.as_dict(), machine.describe())
    todo = [
        (kind, method, seed)
        for kind in settings.kinds
        for seed in settings.seeds
        for method in settings.methods
        if not store.has("score", key(kind, method, seed)) and (method != "base" or seed == settings.seeds[0])
    ]
    parts = load(settings) if todo else {}
    for number, (kind, method, seed) in enumerate(todo, start=1):
        print(f"[{number}/{len(todo)}] {kind}, {method}, seed {seed}:", end=" ", flush=True)
        entry = one(kind, method, seed, parts, settings)
        store.add("score", key(kind, method, seed), entry)
        print(f"DTW {entry['dtw'][0]:.1f} ms, GDTW {entry['gdtw'][0]:.1f} ms, {entry['seconds']:.0f} s", flush=True)
        tables.write(store.content, settings.out)
    report(store.content, settings.out)
    return store


def prepare(settings: Settings) -> None:
    """Threads, and numbers too small to matter as zeros, which halves the time of long trainings on a CPU."""
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    torch.set_flush_denormal(True)


def load(settings: Settings) -> Parts:
    """Rendered pieces, or the recordings of a folder."""
    if settings.data is not None:
        return archive.load(settings.data, cache=settings.cache)
    scale = settings.scale
    # The test pieces come first, so that they stay the same when others are added.
    counts = {"test": scale.n_test, "validation": scale.n_validation, "train": scale.n_train}
    return data.load(counts, scale.quarters, settings.sound, cache=settings.cache)


def key(kind: str, method: str, seed: int) -> str:
    """Name of a network in the results."""
    return f"{kind} {method} {seed}"


def one(kind: str, method: str, seed: int, parts: Parts, settings: Settings) -> Numbers:
    """Train a network, or take base features, and align the test slices both ways."""
    scale, started = settings.scale, time.process_time()
    slices: Slices = {part: data.slices(recordings, kind, scale.length) for part, recordings in parts.items()}
    check(slices, scale)
    if method == "base":
        net: nn.Module = network.Identity()
        entry: Numbers = {"course": None, "grid": grid(slices, scale), "weight": WEIGHTS[kind]}
    else:
        net = network.make(SIZES[kind], scale.features, seed)
        entry = train(net, kind, method, seed, slices, scale)
    aligners: dict[str, Aligner] = {"dtw": methods.dtw, "gdtw": GDTW(entry["weight"]), "straight": methods.straight}
    for name, aligner in aligners.items():
        entry[name] = evaluate(net, aligner, slices["test"], scale.batch_size).means()
    keep_examples(net, aligners, slices["test"], parts["test"], settings.out, key(kind, method, seed))
    entry["slices"] = [len(slices[part]) for part in ("train", "validation", "test")]
    entry["seconds"] = round(time.process_time() - started, 1)
    return entry


def check(slices: Slices, scale: Scale) -> None:
    """ValueError for parts without a slice."""
    for part, found in slices.items():
        if not found:
            raise ValueError(f"{part}: no recording is as long as a slice, {scale.length} frames")


def grid(slices: Slices, scale: Scale) -> Numbers:
    """Base features with other lambdas: [TimeErr, TimeDev] of validation and test."""
    base = network.Identity()
    return {
        f"{weight:g}": {
            part: evaluate(base, GDTW(weight), slices[part], scale.batch_size).means()
            for part in ("validation", "test")
        }
        for weight in GRID
    }


def train(net: nn.Module, kind: str, method: str, seed: int, slices: Slices, scale: Scale) -> Numbers:
    """Train by one method; the result has the lambda that was used or learned."""
    loss, aligner = objective(method, WEIGHTS[kind], scale)
    trainer = Trainer(slices["train"], slices["validation"], loss, aligner, scale.weight_rate)
    course = trainer.fit(net, scale.schedule(method), seed, f"{kind} {method}")
    weight = aligner.weight if isinstance(aligner, GDTW) else WEIGHTS[kind]
    return {"course": course._asdict(), "grid": None, "weight": weight}


def objective(method: str, weight: float, scale: Scale) -> tuple[Loss, Aligner]:
    """The loss, and the alignment that judges on the validation slices: as in the paper that of the method."""
    if method.startswith("decdtw"):
        layer = GDTW(weight, "fast", learn=method == "decdtw-learned")
        return methods.time_error(layer), layer
    losses = {
        "soft-dtw": lambda: methods.soft_dtw(scale.soft_gamma),
        "along-gt": methods.along_truth,
        "dilate": lambda: methods.dilate(scale.dilate_gamma),
    }
    return losses[method](), methods.dtw


# --- Examples and report ----------------------------------------------------------------------------------------------


@torch.no_grad()
def keep_examples(
    net: nn.Module,
    aligners: Mapping[str, Aligner],
    items: Sequence[Slice],
    recordings: Sequence[Recording],
    folder: Path,
    name: str,
) -> None:
    """Truth, notes and warps of a few test slices, the same for all networks."""
    recording_of = {recording.name: recording for recording in recordings}
    chosen = [items[(2 * index + 1) * len(items) // (2 * N_EXAMPLES)] for index in range(N_EXAMPLES)]
    arrays: dict[str, Any] = {}
    for number, item in enumerate(chosen):
        batch = data.collate([item])
        sides = net(batch)
        arrays[f"{number} truth"] = item.truth.numpy()
        arrays[f"{number} notes"] = notes_of(item, recording_of[item.name])
        for aligner in ("dtw", "gdtw"):
            warp: Warp = aligners[aligner](sides, batch)
            arrays[f"{number} {aligner}"] = warp.values[0].numpy()
            arrays[f"{number} {aligner}_error"] = 1000 * warp.errors(batch, "target").error.numpy()
    path = folder / "examples" / f"{name.replace(' ', '_')}.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    single: dict[str, Any] = {entry: np.asarray(array, np.float32) for entry, array in arrays.items()}
    np.savez_compressed(path, **single)


def notes_of(item: Slice, recording: Recording) -> NDArray[np.float64]:
    """(L, 3) onset, offset and pitch of the score's notes in a slice, in seconds from its first frame."""
    notes = recording.notes
    rows = np.stack([notes.onset - item.start, notes.offset - item.start, notes.pitch], axis=1)
    return rows[(rows[:, 1] > 0) & (rows[:, 0] < float(item.truth[-1, 0]))]


def examples(content: Mapping[str, Any], folder: Path) -> dict[tuple[str, str], list[plots.Example]]:
    """By features and method, the slices of the first seed that was run."""
    found: dict[tuple[str, str], list[plots.Example]] = {}
    for name in content["entries"].get("score", {}):
        kind, method, _ = name.split()
        path = folder / "examples" / f"{name.replace(' ', '_')}.npz"
        if (kind, method) not in found and path.is_file():
            with np.load(path) as arrays:
                found[kind, method] = [
                    {entry.partition(" ")[2]: arrays[entry] for entry in arrays if entry.startswith(f"{number} ")}
                    for number in range(N_EXAMPLES)
                ]
    return found


def report(content: Mapping[str, Any], folder: Path) -> None:
    """Write tables and pictures of what there is."""
    if tables.entries(content):
        tables.write(content, folder)
        plots.draw(content, examples(content, folder), folder)


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line, run, and print the tables."""
    settings = parse(arguments)
    try:
        text = tables.markdown(run(settings).content)
    except (FileNotFoundError, ValueError) as error:
        sys.exit(str(error))
    print(f"\n{text}\nTables, pictures and numbers: {settings.out.resolve()}")
