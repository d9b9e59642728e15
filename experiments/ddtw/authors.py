"""The networks that the paper's authors have trained, evaluated on the themes of their data set that are at hand.

A check from end to end: layout of the data, network, decoding and measures have to be as they were to give the same
figures.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from experiments.data import themes
from experiments.data.themes import REST, Theme
from experiments.ddtw import metrics
from experiments.ddtw.decoding import beam, greedy
from experiments.ddtw.networks import ThemeNet, load_theme_net
from experiments.ddtw.settings import METHODS, Settings
from experiments.ddtw.single import as_recording, find, has_blank, predict
from experiments.softdtw.store import Numbers


def run(settings: Settings) -> dict[str, Numbers]:
    """Figures by method, of the files `model_NAME_bestVal.pt` that are there.

    Raises
    ------
    FileNotFoundError
        If none is.
    """
    if settings.models is None or settings.mtd is None:
        raise ValueError("models: the folders of networks and themes are needed")
    files = {name: settings.models / f"model_{name}_bestVal.pt" for name in METHODS}
    there = {name: path for name, path in files.items() if path.is_file()}
    if not there:
        raise FileNotFoundError(f"{settings.models}: no files model_NAME_bestVal.pt")
    excerpts = themes.from_mtd(settings.mtd)
    return {name: evaluate(load_theme_net(path), excerpts, has_blank(name)) for name, path in there.items()}


def evaluate(network: ThemeNet, excerpts: Sequence[Theme], blank: bool) -> Numbers:
    """Means over the themes.

    The paper decodes all networks with the output for the blank, although only the methods of CTC train it; for these
    files that makes no difference to leaving it out. The loss of CTC per label needs it.
    """
    both = [predict(network, theme.features, blank=True) for theme in excerpts]
    own = [predict(network, theme.features, blank) for theme in excerpts]
    notes = [theme.notes.tolist() for theme in excerpts]
    recordings = [as_recording(theme) for theme in excerpts]
    pairs = list(zip(own, excerpts, strict=True))
    accuracies = [metrics.frame_accuracy(scores, theme.strong) for scores, theme in pairs]
    published = [metrics.published_frame_accuracy(scores, theme.strong) for scores, theme in pairs]
    decoded = {
        "greedy_ler": greedy(own, blank),
        "beam_ler": beam(own, blank),
    }
    return {
        "themes": len(excerpts),
        "accuracy": float(np.mean(accuracies)),
        "published_accuracy": float(np.mean(published)),
        **{
            name: float(np.mean([metrics.label_error_rate(*pair) for pair in zip(found, notes, strict=True)]))
            for name, found in decoded.items()
        },
        "ctc_loss": float(
            np.mean([ctc_loss(scores, theme.notes) for scores, theme in zip(both, excerpts, strict=True)])
        ),
        "mrr": find(network, recordings, blank)["mrr"],
    }


def ctc_loss(log_probabilities: np.ndarray, notes: np.ndarray) -> float:
    """Loss of one theme, per label."""
    frames = torch.as_tensor(log_probabilities)[:, None]
    lengths = torch.tensor([len(frames)]), torch.tensor([len(notes)])
    return float(F.ctc_loss(frames, torch.as_tensor(notes)[None], *lengths, blank=REST))


def write(found: dict[str, Numbers], folder: Path) -> Path:
    """Write models.json and the table models.md."""
    import json

    folder.mkdir(parents=True, exist_ok=True)
    rounded = {name: {key: round(value, 5) for key, value in numbers.items()} for name, numbers in found.items()}
    (folder / "models.json").write_text(json.dumps(rounded, indent=1) + "\n", encoding="utf-8")
    path = folder / "models.md"
    path.write_text(markdown(found), encoding="utf-8")
    return path


COLUMNS = {
    "published_accuracy": "accuracy, paper's way",
    "accuracy": "accuracy, sounding frames",
    "greedy_ler": "greedy LER",
    "beam_ler": "beam LER",
    "ctc_loss": "CTC loss per label",
    "mrr": "MRR",
}


def markdown(found: dict[str, Numbers]) -> str:
    """The table of all networks."""
    count = next(iter(found.values()))["themes"]
    lines = [
        "# The paper's trained networks\n",
        f"Means over {count} themes of the Musical Theme Dataset, all folds together, so not comparable with the "
        "paper's tables, which are of its whole test fold. Paper's way: a rest counts as the pitch class C. "
        "MRR: among the excerpts themselves. Made by `python -m experiments.ddtw models`.\n",
        "| network | " + " | ".join(COLUMNS.values()) + " |",
        "| --- |" + " ---: |" * len(COLUMNS),
    ]
    for name, numbers in found.items():
        lines.append(f"| {name} | " + " | ".join(f"{numbers[key]:.3f}" for key in COLUMNS) + " |")
    return "\n".join(lines) + "\n"
