"""The tables as pictures: solid lines are ours, dotted ones the paper's. Colours by Okabe and Ito."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.softdtw import paper
from experiments.softdtw.settings import EUCLIDEAN, GAMMAS, STARTS, soft
from experiments.softdtw.tables import (
    COMPETITORS,
    JUDGES,
    START_NAMES,
    Content,
    Entries,
    average_ranks,
    win_rate,
)

COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00")
SIDE = 3.4  # inches of one panel


def draw(content: Content, folder: Path) -> list[Path]:
    """Write a picture for each table that has numbers; needs matplotlib (extra "experiments")."""
    entries, written = content["entries"], []
    for experiment, figures in (("barycenters", paper.BARYCENTERS), ("kmeans", paper.KMEANS)):
        if entries.get(experiment):
            written.append(_save(_wins(entries[experiment], figures), folder / f"{experiment}.png"))
    if entries.get("prediction"):
        written.append(_save(_ranks(entries["prediction"]), folder / "prediction.png"))
    return written


def draw_example(experiment: str, example: Mapping[str, Any], path: Path) -> Path:
    """Write the picture of what an experiment gave as an example."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return _save(EXAMPLES[experiment](example), path)


def _averages(example: Mapping[str, Any]) -> Any:
    """The series in grey and their average, a row per start and a column per method."""
    averages = example["averages"]
    methods = list(averages[STARTS[0]])
    figure, panels = _panels(len(methods), rows=len(STARTS), side=1.8)
    for row, start in zip(panels, STARTS, strict=True):
        row[0].set_ylabel(START_NAMES[start])
        for panel, method in zip(row, methods, strict=True):
            for series in example["series"]:
                panel.plot(series, color="0.8", lw=0.6)
            panel.plot(averages[start][method], color=COLOURS[1], lw=1.4)
            panel.set_title(method, fontsize=9)
    return figure


def _forecasts(example: Mapping[str, Any]) -> Any:
    """What was seen, what came after it, and what each network had said, a panel per series (first dimension)."""
    seen, after = example["seen"][..., 0], example["after"][..., 0]
    figure, panels = _panels(len(seen))
    places = range(seen.shape[1], seen.shape[1] + after.shape[1])
    for index, panel in enumerate(panels):
        panel.plot(seen[index], color="0.2", label="seen")
        panel.plot(places, after[index], color="0.6", lw=2.5, label="came after")
        for colour, (name, forecast) in zip(COLOURS, example["forecasts"].items(), strict=False):
            panel.plot(places, forecast[index, :, 0], color=colour, lw=1.1, label=name)
    return _with_legend(figure, panels)


EXAMPLES = {"barycenters": _averages, "prediction": _forecasts}


def _wins(entries: Entries, figures: Mapping[str, Mapping[float, paper.Columns]]) -> Any:
    """Percentage of sets won against gamma, a panel per competitor."""
    figure, panels = _panels(len(COMPETITORS))
    for panel, (competitor, name) in zip(panels, COMPETITORS.items(), strict=True):
        for index, start in enumerate(STARTS):
            ours = [win_rate(entries, start, competitor, gamma) for gamma in GAMMAS]
            theirs = [figures[competitor][gamma][index] for gamma in GAMMAS]
            _pair(panel, GAMMAS, ours, theirs, COLOURS[index], START_NAMES[start])
        panel.set(title=f"against {name}", xscale="log", xlabel="gamma", ylim=(-4, 104))
        panel.set_xticks(GAMMAS, [f"{gamma:g}" for gamma in GAMMAS])
        panel.minorticks_off()
        panel.invert_xaxis()
    panels[0].set_ylabel(f"% of {len(entries)} sets with a lower DTW loss")
    return _with_legend(figure, panels)


def _ranks(entries: Entries) -> Any:
    """Average rank against the training loss, a panel per judge."""
    figure, panels = _panels(len(JUDGES))
    names = [EUCLIDEAN, *(soft(gamma) for gamma in GAMMAS)]
    labels = ["Euclid", *(f"{gamma:g}" for gamma in GAMMAS)]
    for panel, (judge, title) in zip(panels, JUDGES.items(), strict=True):
        for index, start in enumerate(STARTS):
            ranks = average_ranks(entries, judge, start)
            theirs = [columns[index] for columns in paper.RANKS[judge].values()]
            places = range(len(names))
            _pair(panel, places, [ranks[name] for name in names], theirs, COLOURS[index], START_NAMES[start])
        panel.set(title=f"judged by the {title} loss", xlabel="trained with Euclid or gamma", ylim=(5.1, 0.9))
        panel.set_xticks(range(len(names)), labels)
    panels[0].set_ylabel(f"average rank over {len(entries)} sets")
    return _with_legend(figure, panels)


def _pair(panel: Any, places: Any, ours: list[float], theirs: list[float], colour: str, label: str) -> None:
    panel.plot(places, ours, "o-", color=colour, label=f"{label}, here")
    panel.plot(places, theirs, "x:", color=colour, alpha=0.7, label=f"{label}, paper")


def _panels(count: int, rows: int = 1, side: float = SIDE) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(side * 1.3 * count, side * rows), layout="constrained")
    panels = figure.subplots(rows, count, sharey=True, squeeze=False)
    for panel in panels.flat:
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(True, axis="y", color="0.9")
    return figure, panels if rows > 1 else panels[0]


def _with_legend(figure: Any, panels: Any) -> Any:
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    return figure


def _save(figure: Any, path: Path) -> Path:
    figure.savefig(path, dpi=150)
    return path
