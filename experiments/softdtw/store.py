"""Results on disk, set by set, so that a run that was stopped goes on where it was."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

SCHEMA = 1

Numbers = dict[str, Any]


class Found(NamedTuple):
    """What an experiment found on one set: numbers for the tables, and maybe series for a picture."""

    numbers: Numbers
    example: Numbers | None = None


class Store:
    """The file results.json in a folder: settings, machine, and what was found by experiment and set.

    Raises
    ------
    ValueError
        If the file is there and was made with other settings: its numbers would not belong to the same table.
    """

    def __init__(self, folder: Path, settings: Numbers, machine: Numbers) -> None:
        self.path = folder / "results.json"
        self.content: Numbers = {"schema": SCHEMA, "settings": settings, "machine": machine, "entries": {}}
        if self.path.exists():
            self._resume(read(self.path))

    def _resume(self, found: Numbers) -> None:
        for name in ("schema", "settings"):
            if found.get(name) != self.content[name]:
                raise ValueError(
                    f"{self.path}: made with other {name}: {found.get(name)}, now {self.content[name]}; "
                    "choose another --out or remove it"
                )
        self.content["entries"] = found["entries"]

    def has(self, experiment: str, name: str) -> bool:
        """Tell whether this set is done."""
        return name in self.content["entries"].get(experiment, {})

    def add(self, experiment: str, name: str, entry: Numbers) -> None:
        """Keep what was found, at once and whole: a run may be stopped at any time."""
        self.content["entries"].setdefault(experiment, {})[name] = entry
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(".tmp")
        partial.write_text(json.dumps(self.content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        os.replace(partial, self.path)


def read(path: Path) -> Numbers:
    """The content of a results file."""
    content: Numbers = json.loads(path.read_text(encoding="utf-8"))
    return content
