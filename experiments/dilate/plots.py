"""Forecasts of the three losses side by side, and the errors against alpha. Colours by Okabe and Ito."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from experiments.dilate import paper
from experiments.dilate.data import SYNTHETIC
from experiments.dilate.evaluation import MEASURES
from experiments.dilate.settings import SWEEP, method
from experiments.dilate.tables import (
    LOSS_NAMES,
    MEASURE_NAMES,
    NETWORK_NAMES,
    Content,
    methods,
    sources,
    values,
)
from experiments.dilate.training import DILATE, LOSSES, MSE

COLOURS = ("#D55E00", "#0072B2", "#009E73")


def draw(content: Content, folder: Path) -> list[Path]:
    """Write both pictures, as far as there are numbers; needs matplotlib (extra "experiments")."""
    written = [draw_forecasts(content, folder / "forecasts.png")]
    if len(_swept(content)) > 1:
        written.append(draw_alphas(content, folder / "alpha.png"))
    return written


# --- Forecasts --------------------------------------------------------------------------------------------------------


def draw_forecasts(content: Content, path: Path) -> Path:
    """A row for each source: what was seen, what came, and the forecast by each loss (GRU where it was trained)."""
    from matplotlib.figure import Figure

    names = sources(content)
    figure = Figure(figsize=(10.5, 1.9 * len(names) + 0.5), layout="constrained")
    panels = figure.subplots(len(names), len(LOSSES), squeeze=False, sharey="row")
    for row, data in zip(panels, names, strict=True):
        row[0].set_ylabel(data)
        for column, (panel, name) in enumerate(zip(row, methods(content, data), strict=True)):
            _draw_forecast(panel, content, data, name, COLOURS[column])
    for panel, loss in zip(panels[0], LOSSES, strict=True):
        panel.set_title(f"trained with {LOSS_NAMES[loss]}", fontsize=10)
    for panel in panels[-1]:
        panel.set_xlabel("frame")
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    return _save(figure, path)


def _draw_forecast(panel: Any, content: Content, data: str, name: str, colour: str) -> None:
    facts = content["entries"]["tasks"][data]
    seen, future = facts["seen"], facts["future"]
    after = np.arange(len(seen), len(seen) + len(future))
    panel.plot(seen, color="0.2", lw=1.2, label="seen")
    panel.plot(after, future, color="0.65", lw=3, label="came after")
    forecast = _forecast(content, data, name)
    panel.axvline(len(seen) - 0.5, color="0.85", lw=0.8, zorder=0)
    panel.spines[["top", "right"]].set_visible(False)
    if forecast is not None:
        panel.plot(after, forecast, color=colour, lw=1.4)
    panel.plot([], [], color="0.4", lw=1.4, label="forecast (in colour)")


def _forecast(content: Content, data: str, name: str) -> list[float] | None:
    for network in ("gru", "mlp"):
        for key, entry in content["entries"][data].items():
            if key.rpartition(" ")[0] == f"{network} {name}" and "forecast" in entry:
                return entry["forecast"]
    return None


# --- Alpha ------------------------------------------------------------------------------------------------------------


def _swept(content: Content) -> list[float]:
    """Alphas of which there are networks."""
    found = ((alpha, net) for alpha in SWEEP for net in NETWORK_NAMES)
    return sorted({a for a, net in found if values(content, SYNTHETIC, net, method(DILATE, a), "mse")})


def draw_alphas(content: Content, path: Path) -> Path:
    """A panel for each measure, a line for each network; dashed: trained with MSE."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.4), layout="constrained")
    panels = figure.subplots(1, len(MEASURES))
    for panel, measure in zip(panels, MEASURES, strict=True):
        for colour, (network, label) in zip(COLOURS, NETWORK_NAMES.items(), strict=False):
            _draw_alphas(panel, content, network, measure, colour, label)
        factor = paper.FACTORS[measure]
        panel.set(title=f"{MEASURE_NAMES[measure]} x {factor}", xlabel="alpha", yscale="log")
        panel.yaxis.set_major_formatter("{x:g}")
        panel.yaxis.set_minor_formatter("{x:g}")
        panel.tick_params(axis="y", which="minor", labelsize=7)
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(True, axis="y", which="both", color="0.93")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    return _save(figure, path)


def _draw_alphas(panel: Any, content: Content, network: str, measure: str, colour: str, label: str) -> None:
    factor = paper.FACTORS[measure]
    points = [(a, values(content, SYNTHETIC, network, method(DILATE, a), measure)) for a in _swept(content)]
    points = [(alpha, numbers) for alpha, numbers in points if numbers]
    for alpha, numbers in points:
        panel.plot([alpha] * len(numbers), np.multiply(factor, numbers), ".", color=colour, alpha=0.5, ms=4)
    means = [factor * float(np.mean(numbers)) for _, numbers in points]
    panel.plot([alpha for alpha, _ in points], means, "-", color=colour, label=f"{label}, DILATE")
    reference = values(content, SYNTHETIC, network, MSE, measure)
    if reference:
        panel.axhline(factor * float(np.mean(reference)), color=colour, ls="--", lw=1, label=f"{label}, MSE")


def _save(figure: Any, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    return path
