"""How often GDTW's search misses the best warp known: ``python -m experiments.bench.gdtw.optimum``.

The problem is not convex, so its solver can end in the wrong valley. `optimum.c` solves random problems by each quality
and by a search much finer than any of them; a miss is an objective more than 1e-4 (relative) above the best of all. A
second set of problems, without bounds, is also solved by the grids of the DecDTW paper (`optimum.c` tells them), which
`thorough` must never be above. It needs a C compiler, is built from the sources of this checkout, and writes
``gdtw_optimum.md`` into ``--out``.
"""

from __future__ import annotations

import argparse
import csv
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

import torch_dalign

from .. import machine

ROOT = Path(__file__).parents[3]
RESULTS = Path(__file__).parents[1] / "results"
MISS = 1e-4
SCHEDULES = ("fast", "default", "thorough", "finest")


@dataclass(frozen=True)
class Problems:
    """Seeds [first, first + count), numbers of knots and samples between `least` and `most`."""

    first: int
    count: int
    least: int
    most: int
    grids: bool = False

    @property
    def words(self) -> list[str]:
        """The program's arguments."""
        numbers = [str(number) for number in (self.first, self.count, self.least, self.most)]
        return numbers + ["grids"] * self.grids

    @property
    def title(self) -> str:
        size = f"{self.least}" if self.least == self.most else f"{self.least} to {self.most}"
        return f"{self.count} problems, n and m {size}" + (", without bounds" if self.grids else "")


@dataclass(frozen=True)
class Outcome:
    """Objectives and milliseconds by method; the best objective of each problem."""

    objectives: dict[str, np.ndarray]
    milliseconds: dict[str, np.ndarray]

    @property
    def best(self) -> np.ndarray:
        return np.min(list(self.objectives.values()), axis=0)

    def excess(self, method: str) -> np.ndarray:
        """How much a method's objectives are above the best, relative to it."""
        return self.objectives[method] / self.best - 1


def read_flags() -> dict[str, list[str]]:
    """Read the compiler's flags from csrc/flags.mk, as setup.py does."""
    lines = (ROOT / "csrc/flags.mk").read_text().splitlines()
    pairs = [line.split("=", 1) for line in lines if line[:1].isalpha()]
    return {name.strip(): shlex.split(words) for name, words in pairs}


def build(folder: Path, isa: str, options: Sequence[str] = ()) -> Path:
    """Compile optimum.c, which includes the kernel, for one instruction set."""
    compiler = shlex.split(os.environ.get("CC", "")) or [shutil.which("cc") or "gcc"]
    flags, program = read_flags(), folder / "optimum"
    source = Path(__file__).with_suffix(".c")
    settings = [*flags["C_FLAGS"], *flags[f"ISA_{isa}"], f"-DDALIGN_ISA={isa}", *options]
    subprocess.run([*compiler, *settings, str(source), "-lm", "-o", str(program)], check=True, cwd=ROOT)
    return program


def solve(program: Path, problems: Problems) -> Outcome:
    """Run the program; problems without any warp are left out."""
    done = subprocess.run([str(program), *problems.words], check=True, capture_output=True, text=True)
    header, *rows = csv.reader(done.stdout.splitlines())
    numbers = np.array([[float(word) for word in row[3:]] for row in rows])
    numbers = numbers[np.isfinite(numbers).all(axis=1)]
    methods = header[3::2]
    return Outcome(dict(zip(methods, numbers.T[::2], strict=True)), dict(zip(methods, numbers.T[1::2], strict=True)))


def table(outcome: Outcome) -> list[str]:
    """Markdown: a line for each method."""
    lines = ["| search | misses | mean excess | worst excess | ms, mean |", "| --- | --- | --- | --- | --- |"]
    for method in outcome.objectives:
        excess, time = outcome.excess(method), outcome.milliseconds[method].mean()
        misses = f"{np.sum(excess > MISS)} ({100 * np.mean(excess > MISS):.2f} %)"
        lines.append(f"| {method} | {misses} | {excess.mean():.1e} | {excess.max():.1e} | {time:.3g} |")
    return lines


def against_grids(outcome: Outcome) -> str:
    """How many objectives of each quality are above those of the paper's grids."""
    grids = outcome.objectives["grids"]
    above = {name: int(np.sum(outcome.objectives[name] > grids * (1 + 1e-12))) for name in SCHEDULES[:3]}
    return "Above the grids: " + ", ".join(f"{name} in {count}" for name, count in above.items()) + "."


def section(program: Path, problems: Problems) -> list[str]:
    """Markdown for one set of problems."""
    outcome = solve(program, problems)
    lines = [f"## {problems.title}", "", *table(outcome)]
    return [*lines, "", against_grids(outcome), ""] if problems.grids else [*lines, ""]


def head(isa: str) -> list[str]:
    """What was run where."""
    facts = machine.describe()
    when = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    return [
        "# How often GDTW's search misses the best warp known",
        "",
        f"{facts['cpu']}, {facts['cores']} cores, instruction set {isa}; {when}; load {facts['load_before'][0]} before "
        "the run. One thread, CPU time of search and polish. Made by `python -m experiments.bench.gdtw.optimum`.",
        "",
        f"A miss: an objective more than {MISS:g} (relative) above the best of all searches. `finest` has 16383 values "
        "in its first lattice and corridors of 4095. Problems: eight kinds in turn (none, slopes, band, free ends, "
        "uneven times, tight slopes, related sequences, free ends with slopes), 3 to 6 features, lambda 1e-4 to 0.3.",
        "",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m experiments.bench.gdtw.optimum", description=__doc__)
    parser.add_argument("--count", type=int, default=400, help="problems in each set (400)")
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 256, 512], help="knots and samples (64 256 512)")
    parser.add_argument("--seed", type=int, default=5000, help="the first problem's seed (5000)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of gdtw_optimum.md")
    wish = parser.parse_args()
    isa = torch_dalign.build_info()["isa"]
    sets = [Problems(wish.seed, wish.count, size, size) for size in wish.sizes]
    sets.append(Problems(wish.seed, wish.count, 10, 270, grids=True))
    with tempfile.TemporaryDirectory() as folder:
        program = build(Path(folder), isa)
        lines = head(isa) + [line for problems in sets for line in section(program, problems)]
    (wish.out / "gdtw_optimum.md").write_text("\n".join(lines).rstrip() + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
