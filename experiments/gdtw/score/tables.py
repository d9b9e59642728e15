"""From the numbers of each run to the paper's tables, beside the paper's figures."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.gdtw.score import paper
from experiments.gdtw.score.features import FRAME_RATE
from experiments.gdtw.score.settings import KINDS, METHODS, SCALES, WEIGHTS

NAMES = {
    "base": "Base",
    "soft-dtw": "Soft-DTW",
    "along-gt": "Along GT",
    "dilate": "DILATE",
    "decdtw": "DecDTW",
    "decdtw-learned": "DecDTW, λ learned",
}
KIND_NAMES = {"cqt": "CQT", "chroma": "Chroma", "melspec": "Melspec"}

Content = Mapping[str, Any]
Entry = Mapping[str, Any]
Entries = dict[tuple[str, str], list[Entry]]


def entries(content: Content) -> Entries:
    """By features and method, in the order of the tables, the entries of all seeds."""
    found: Entries = {}
    named = content["entries"].get("score", {})
    for kind in KINDS:
        for method in METHODS:
            of = [entry for name, entry in named.items() if name.split()[:2] == [kind, method]]
            if of:
                found[kind, method] = of
    return found


def mean(of: Sequence[Entry], aligner: str) -> tuple[float, float]:
    """TimeErr and TimeDev of the test slices in ms, mean over the seeds."""
    error, deviation = np.mean([entry[aligner] for entry in of], axis=0)
    return float(error), float(deviation)


# --- Markdown ---------------------------------------------------------------------------------------------------------


def write(content: Content, folder: Path) -> Path:
    """Write results.md."""
    path = folder / "results.md"
    path.write_text(markdown(content), encoding="utf-8")
    return path


def markdown(content: Content) -> str:
    """The whole report."""
    found = entries(content)
    return "\n".join([_heading(content, found), _summary(found), *_crossed(found), _weights(found), _trainings(found)])


def _heading(content: Content, found: Entries) -> str:
    settings, machine = content["settings"], content["machine"]
    seconds = sum(entry["seconds"] for of in found.values() for entry in of)
    first = next(iter(found.values()))[0]
    train, validation, test = first["slices"]
    straight = _pair(first["straight"])
    return (
        f"# DecDTW: audio to score alignment, scale {settings['scale']}\n\n"
        f"TimeErr / TimeDev in ms on held-out pieces; in brackets the paper's figures ({paper.SOURCE}), which are of "
        "recorded pianos: what can be compared is the order of the methods, not the figures. A straight line from "
        f"corner to corner has {straight} here.\n\n"
        f"{machine['cpu']}, {machine['cores']} cores, torch {machine['packages']['torch']}; {seconds / 60:.0f} minutes "
        "of CPU time. Made by `python -m experiments.gdtw score` with the sizes that follow.\n\n"
        f"{_data(settings)}; {train} slices of {settings['length']} frames "
        f"({settings['length'] / FRAME_RATE:.1f} s) for training, {validation} for validation, {test} for the test. "
        f"Networks: one GRU for each side, {settings['features']} features. {settings['epochs']} epochs "
        f"({settings['dilate_epochs']} for DILATE), batches of {settings['batch_size']}, Adam with rate "
        f"{settings['rate']:g}; the network with the lowest TimeErr on the validation slices is kept."
        f"{_other_sizes(settings)}\n"
    )


def _data(settings: Mapping[str, Any]) -> str:
    if settings["n_train"] is None:
        return "Recordings of a folder"
    return (
        f'Rendered pieces of music21\'s corpus, sound "{settings["sound"]}": {settings["n_train"]} for training, '
        f"{settings['n_validation']} for validation, {settings['n_test']} for the test, each at most "
        f"{settings['quarters']:g} quarter notes"
    )


def _other_sizes(settings: Mapping[str, Any]) -> str:
    """What was chosen other than the scale has it."""
    usual = dataclasses.asdict(SCALES[settings["scale"]])
    other = [
        f"{name} {settings[name]} ({theirs})"
        for name, theirs in usual.items()
        if settings[name] is not None and settings[name] != theirs
    ]
    return f" Not as the scale has it, in brackets: {', '.join(other)}." if other else ""


def _summary(found: Entries) -> str:
    columns = [(name, method, aligner) for name, method, aligner in paper.TABLE_1 if _any(found, method)]
    if _any(found, "decdtw-learned"):
        columns.append((NAMES["decdtw-learned"], "decdtw-learned", "gdtw"))
    title = (
        "## Table 1: every method with its own alignment\n\n"
        "(D): DTW, as for Soft-DTW, Along GT and DILATE; (G): GDTW, as for DecDTW, with the paper's λ: "
        + ", ".join(f"{WEIGHTS[kind]:g} for {KIND_NAMES[kind]}" for kind in KINDS)
        + ". The paper took them from its validation slices; the last column has what ours choose for base features.\n"
    )
    kinds = [kind for kind in KINDS if any(key[0] == kind for key in found)]
    rows = [[KIND_NAMES[kind], *(_cell(found, kind, *of) for _, *of in columns), _tuned(found, kind)] for kind in kinds]
    header = ["features", *(name for name, _, _ in columns), "Base (G), λ by validation"]
    return f"{title}\n{_table(header, rows)}\n"


def _tuned(found: Entries, kind: str) -> str:
    """GDTW of base features with the lambda that is best on the validation slices."""
    if (kind, "base") not in found:
        return ""
    cells = found[kind, "base"][0]["grid"]
    weight = _best(cells)
    return f"{_pair(cells[weight]['test'])} (λ = {weight})"


def _best(grid: Mapping[str, Any]) -> str:
    return min(grid, key=lambda weight: grid[weight]["validation"][0])


def _crossed(found: Entries) -> list[str]:
    """Tables 3 and 4."""
    methods = [method for method in METHODS if _any(found, method)]
    kinds = [kind for kind in KINDS if any(key[0] == kind for key in found)]
    sections = []
    for number, aligner in ((3, "dtw"), (4, "gdtw")):
        rows = [[KIND_NAMES[kind], *(_cell(found, kind, method, aligner) for method in methods)] for kind in kinds]
        header = ["features", *(NAMES[method] for method in methods)]
        sections.append(
            f"## Table {number}: features of each method, aligned by {aligner.upper()}\n\n{_table(header, rows)}\n"
        )
    return sections


def _weights(found: Entries) -> str:
    """GDTW of base features for each lambda, and what was learned."""
    rows = []
    for kind in KINDS:
        base, learned = found.get((kind, "base")), found.get((kind, "decdtw-learned"))
        if base is None and learned is None:
            continue
        grid = base[0]["grid"] if base else {}
        best = _best(grid) if grid else None
        cells = [_bold(_pair(cell["test"]), weight == best) for weight, cell in grid.items()]
        value = ", ".join(f"{entry['weight']:.3f}" for entry in learned) if learned else ""
        rows.append([KIND_NAMES[kind], *cells, f"{WEIGHTS[kind]:g}", value])
    if not rows:
        return ""
    weights = next((list(of[0]["grid"]) for (_, method), of in found.items() if method == "base"), [])
    rows = [row if len(row) == len(weights) + 3 else [row[0], *[""] * len(weights), *row[-2:]] for row in rows]
    header = ["features", *(f"λ = {weight}" for weight in weights), "the paper's λ", "learned from there"]
    note = "Base features on the test slices; bold: lowest TimeErr on the validation slices.\n"
    return f"## λ\n\n{note}\n{_table(header, rows)}\n"


def _trainings(found: Entries) -> str:
    rows = []
    for (kind, method), of in found.items():
        course = of[0]["course"]
        if course is not None:
            validation = course["validation"]
            rows.append(
                [
                    KIND_NAMES[kind],
                    NAMES[method],
                    f"{len(validation) - 1}",
                    f"{course['best']}",
                    f"{validation[0]:.1f}, {min(validation):.1f}, {validation[-1]:.1f}",
                    f"{course['seconds']:.0f}",
                ]
            )
    if not rows:
        return ""
    header = ["features", "method", "epochs", "kept", "validation TimeErr: before, best, last", "CPU s"]
    note = "Of the first seed. Kept 0: no epoch was better on the validation slices than the untrained network.\n"
    return f"## Training\n\n{note}\n{_table(header, rows)}\n"


def _any(found: Entries, method: str) -> bool:
    return any(key[1] == method for key in found)


def _cell(found: Entries, kind: str, method: str, aligner: str) -> str:
    if (kind, method) not in found:
        return ""
    theirs = (paper.DTW if aligner == "dtw" else paper.GDTW)[kind].get(method)
    ours = _pair(mean(found[kind, method], aligner))
    return ours if theirs is None else f"{ours} ({_pair(theirs)})"


def _pair(values: Sequence[float]) -> str:
    return f"{values[0]:.0f}/{values[1]:.0f}"


def _bold(text: str, condition: bool) -> str:
    return f"**{text}**" if condition else text


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [list(header), ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
