"""From the numbers of each network to the paper's tables, beside the paper's figures."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from experiments.ddtw import paper
from experiments.ddtw.settings import METHODS, SAMPLE_RATE, SCALES

SIZES = ("n_train", "n_validation", "n_test")

Content = Mapping[str, Any]
Runs = list[Mapping[str, Any]]


def runs(content: Content) -> dict[str, Runs]:
    """The networks of each method, in the order of Table I."""
    task = content["settings"]["task"]
    entries = content["entries"].get(task, {})
    found: dict[str, Runs] = {}
    for method in METHODS:
        named = [entry for name, entry in entries.items() if name.rpartition(" ")[0] == method]
        if named:
            found[method] = named
    return found


def chosen(networks: Runs) -> Mapping[str, Any]:
    """The network with the lowest validation loss."""
    return min(networks, key=lambda one: one["validation_loss"])


def values(networks: Runs, name: str) -> list[float]:
    """One number of all networks."""
    return [one[name] for one in networks]


# --- Markdown ---------------------------------------------------------------------------------------------------------


def write(content: Content, folder: Path) -> Path:
    """Write results.md."""
    path = folder / "results.md"
    path.write_text(markdown(content), encoding="utf-8")
    return path


def markdown(content: Content) -> str:
    """The whole report."""
    found = runs(content)
    task = content["settings"]["task"]
    sections = [_frames(found), _labels(found)] if task == "single" else [_multi(found)]
    return "\n".join([_heading(content, found), *sections, _trainings(found)])


def _heading(content: Content, found: Mapping[str, Runs]) -> str:
    settings, machine = content["settings"], content["machine"]
    title = "themes, single-label" if settings["task"] == "single" else "polyphonic pieces, multi-label"
    seconds = sum(one["train_seconds"] for networks in found.values() for one in networks)
    counts = " or ".join(map(str, sorted({len(networks) for networks in found.values()}))) or "no"
    return (
        f"# dDTW: {title}, scale {settings['scale']}\n\n"
        f"Beside ours in brackets the figures of the paper ({paper.SOURCE}), which are of other music, of far more of "
        "it and of wider networks: what can be compared is the order of the methods, not the figures.\n\n"
        f"{machine['cpu']}, {machine['cores']} cores, torch {machine['packages']['torch']}; networks of each method: "
        f"{counts}; {seconds / 60:.0f} minutes of training. Made by `python -m experiments.ddtw {settings['task']} "
        f"--scale {settings['scale']}` with the sizes that follow.\n\n{_sizes(settings)}"
    )


def _sizes(settings: Mapping[str, Any]) -> str:
    schedule = settings["schedule"]
    channels = ", ".join(map(str, settings["channels"]))
    return (
        f"Data: {_data(settings)}; {SAMPLE_RATE / settings['hop']:.1f} frames per second. Channels of the "
        f"network: {channels}. Epochs: at most {schedule['epochs']}, batches of {schedule['batch_size']}, Adam with "
        f"rate {schedule['rate']:g}, halved after {schedule['halve_after']} epochs without a lower validation loss, "
        f"stopped after {schedule['stop_after']}; the network with the lowest one is kept."
        f"{_smaller(settings)}\n"
    )


def _smaller(settings: Mapping[str, Any]) -> str:
    """What was chosen other than the scale has it."""
    scale = SCALES[settings["scale"]]
    usual = dataclasses.asdict(scale.single if settings["task"] == "single" else scale.multi)
    pairs = [(name, settings[name], usual[name]) for name in SIZES if settings[name] is not None]
    pairs.append(("epochs", settings["schedule"]["epochs"], usual["schedule"]["epochs"]))
    other = [f"{name} {ours} ({theirs})" for name, ours, theirs in pairs if ours != theirs]
    return f" Not as the scale has it, in brackets: {', '.join(other)}." if other else ""


def _data(settings: Mapping[str, Any]) -> str:
    if settings["n_train"] is None:
        return "Musical Theme Dataset, folds 1 to 3 for training, 4 for validation, 5 for the test"
    return (
        f"rendered; {settings['n_train']} for training, {settings['n_validation']} for validation, "
        f"{settings['n_test']} for the test"
    )


def _frames(found: Mapping[str, Runs]) -> str:
    lines = [
        "## Table III: frames and retrieval\n",
        "Accuracy over the frames in which the theme sounds, the blank left out, mean and best of the networks; blank: "
        "share of the frames in which it is the most likely class. Retrieval by subsequence DTW, with the network of "
        "the lowest validation loss.\n",
        "| method | accuracy | best | blank | top 1 | top 10 | top 50 | MRR |",
        "| --- |" + " ---: |" * 7,
    ]
    for method, networks in found.items():
        theirs, best = paper.FRAMES[method], chosen(networks)
        accuracy = values(networks, "accuracy")
        cells = [
            _cell(float(np.mean(accuracy)), theirs.mean),
            _cell(max(accuracy), theirs.best),
            f"{np.mean(values(networks, 'blank_share')):.2f}" if method.startswith("CTC") else "",
            *(_cell(best[name], getattr(theirs, name)) for name in ("top1", "top10", "top50", "mrr")),
        ]
        lines.append(_row(method, cells))
    return "\n".join(lines) + "\n"


def _labels(found: Mapping[str, Runs]) -> str:
    lines = [
        "## Table IV: label error rates\n",
        "Against the notes, repeated ones included, of which only methods with a blank can tell two. Beam search "
        "adds up all paths of a sequence, with a width of 10.\n",
        "| method | greedy | best | beam | best |",
        "| --- |" + " ---: |" * 4,
    ]
    for method, networks in found.items():
        theirs = paper.LABELS[method]
        greedy, beam = values(networks, "greedy_ler"), values(networks, "beam_ler")
        cells = [
            _cell(float(np.mean(greedy)), theirs.greedy_mean),
            _cell(min(greedy), theirs.greedy_best),
            _cell(float(np.mean(beam)), theirs.beam_mean),
            _cell(min(beam), theirs.beam_best),
        ]
        lines.append(_row(method, cells))
    return "\n".join(lines) + "\n"


def _multi(found: Mapping[str, Runs]) -> str:
    lines = [
        "## Fig. 11: F-measure\n",
        "Median, lowest and highest of the networks; precision, recall and mean probability of the blank for that with "
        "the lowest validation loss. Means over the test pieces, threshold .5.\n",
        "| method | median | lowest | highest | precision | recall | blank | paper |",
        "| --- |" + " ---: |" * 6 + " --- |",
    ]
    for method, networks in found.items():
        f_measure, best = values(networks, "f_measure"), chosen(networks)
        numbers = [float(np.median(f_measure)), min(f_measure), max(f_measure), best["precision"], best["recall"]]
        blank = "" if best["blank_mean"] is None else f"{best['blank_mean']:.2f}"
        lines.append(_row(method, [*(f"{number:.3f}" for number in numbers), blank, paper.F_MEASURES[method]]))
    return "\n".join(lines) + "\n"


def _trainings(found: Mapping[str, Runs]) -> str:
    lines = [
        "## Training\n",
        "Of the network with the lowest validation loss; losses of different methods cannot be compared.\n",
        "| method | epochs | best epoch | validation loss, first and best | seconds |",
        "| --- |" + " ---: |" * 4,
    ]
    for method, networks in found.items():
        best = chosen(networks)
        course = best["validation_losses"]
        cells = [
            str(len(course)),
            str(int(np.argmin(course)) + 1),
            f"{course[0]:.3f}, {min(course):.3f}",
            f"{best['train_seconds']:.0f}",
        ]
        lines.append(_row(method, cells))
    return "\n".join(lines) + "\n"


def _cell(ours: float, theirs: float) -> str:
    return f"{ours:.3f} ({theirs:.3f})"


def _row(name: str, cells: list[str]) -> str:
    return f"| {name} | " + " | ".join(cells) + " |"
