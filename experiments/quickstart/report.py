"""The table of a run: as text, as Markdown, and as JSON with everything needed to repeat it."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

import torch_dalign as dalign
from experiments.quickstart.evaluation import AlignmentScores
from experiments.quickstart.losses import training

if TYPE_CHECKING:
    from experiments.quickstart.settings import Settings
    from experiments.quickstart.training import Result

HEADER = ("training", "precision", "recall", "F", "chord found", "onset error", "warp error", "training time")


@dataclasses.dataclass(frozen=True)
class Report:
    """What a run has measured.

    Attributes
    ----------
    settings : Settings
    results : dict of Result
        By the name of the loss.
    alignments : dict of (AlignmentScores, AlignmentScores)
        On the held-out pieces, before and after training.
    seconds : dict of float
        Time of each stage.
    """

    settings: Settings
    results: Mapping[str, Result]
    alignments: Mapping[str, tuple[AlignmentScores, AlignmentScores]]
    seconds: Mapping[str, float]

    def rows(self) -> list[tuple[str, ...]]:
        """The table's cells below the header."""
        return [self._row(name) for name in self.results]

    def _row(self, name: str) -> tuple[str, ...]:
        result, alignment = self.results[name], self.alignments[name][1]
        scores = (f"{value:.3f}" for value in dataclasses.astuple(result.test))
        found, *errors = (
            f"{100 * alignment.hit_rate:.1f} %",
            _short(alignment.onset_error),
            _short(alignment.warp_error),
        )
        return (training(name).title, *scores, found, *errors, f"{result.seconds:.1f} s")

    def text(self) -> str:
        """The table for the terminal."""
        table = [HEADER, *self.rows()]
        widths = [max(len(row[column]) for row in table) for column in range(len(HEADER))]
        lines = ["  ".join(_align(row, widths)) for row in table]
        return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])

    def markdown(self) -> str:
        """The table, and what its columns mean."""
        rule = "|---|" + "---:|" * (len(HEADER) - 1)
        lines = [f"| {' | '.join(row)} |" for row in (HEADER, *self.rows())]
        settings = self.settings
        note = (
            f"{settings.n_test} held-out chorales; {settings.n_train} chorales for training, {settings.epochs} epochs, "
            f"seed {settings.seed}. Precision, recall and F: per frame and pitch class. Chord found: share of the "
            "frames that soft-DTW assigns to the chord that sounds, given the chord sequence. Onset error: median "
            "distance between the found and the true start of a chord. Warp error: mean distance between where DecDTW "
            "sees a frame in the score as written and where it is."
        )
        if "decdtw" in self.results:
            note += " True times: known is where in the score each frame is; no target is ever shown to a prediction."
        if any(training(name).of_melody for name in self.results):
            note += (
                " Melodies alone: the top voices of these chorales, notes in place of chords; scores of the likeliest "
                "class in the frames in which one sounds."
            )
        return "\n".join([lines[0], rule, *lines[1:], "", note, ""])

    def as_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        return {
            "settings": {k: v for k, v in dataclasses.asdict(self.settings).items() if k not in ("out", "cache")},
            "results": {name: self._numbers(name) for name in self.results},
            "seconds": dict(self.seconds),
            "environment": {
                "python": platform.python_version(),
                "machine": platform.machine(),
                "threads": torch.get_num_threads(),
                "versions": {name: _version(name) for name in ("torch", "librosa", "music21")},
                "torch_dalign": dalign.build_info(),
            },
        }

    def _numbers(self, name: str) -> dict[str, Any]:
        result, (before, after) = self.results[name], self.alignments[name]
        return {
            "test": dataclasses.asdict(result.test),
            "validation": [dataclasses.asdict(scores) for scores in result.epoch_scores],
            "alignment_before": dataclasses.asdict(before),
            "alignment_after": dataclasses.asdict(after),
            "step_losses": result.step_losses,
            "training_seconds": result.seconds,
        }

    def write(self, folder: Path) -> list[Path]:
        """Write results.md and results.json."""
        markdown, numbers = folder / "results.md", folder / "results.json"
        markdown.write_text(self.markdown(), encoding="utf-8")
        numbers.write_text(json.dumps(self.as_dict(), indent=1) + "\n", encoding="utf-8")
        return [markdown, numbers]


def _short(seconds: float) -> str:
    return f"{1000 * seconds:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def _align(row: tuple[str, ...], widths: list[int]) -> list[str]:
    """First cell to the left, numbers to the right."""
    return [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]


def _version(name: str) -> str | None:
    """Version of a package; None where it is missing and the music came from the cache."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
