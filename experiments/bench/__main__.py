"""Command line: ``python -m experiments.bench softdtw --quick``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from . import plots, suites
from .harness import Limits
from .options import RESULTS, Options


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one benchmark and write its results."""
    parser = _parser()
    asked = parser.parse_args(arguments)
    options = Options(
        quick=asked.quick,
        threads=tuple(asked.threads),
        only=frozenset(asked.only),
        out=asked.out,
        seed=asked.seed,
        minutes=asked.minutes,
        limits=Limits(asked.limit_seconds, asked.limit_gib),
        dilate_repo=asked.dilate_repo,
    )
    suite = suites.find(asked.suite)
    report = suite.run(options)
    report.write(options.out)
    pictures = plots.draw(report, options.out, suite.PICTURES)
    print(report.figures_table())
    print(f"written: {options.out / report.suite}.json, .md and {len(pictures)} pictures")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m experiments.bench", description=__doc__)
    parser.add_argument("suite", choices=suites.NAMES)
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="a small grid, about a minute")
    size.add_argument("--full", dest="quick", action="store_false", help="everything (the default)")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], metavar="T")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="families (grid, gamma, ...) or peers")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=40.0, help="then the rest of the grid is skipped and marked")
    parser.add_argument("--limit-seconds", type=float, default=60.0, help="longer runs are skipped and marked")
    parser.add_argument("--limit-gib", type=float, default=8.0, help="larger runs are skipped and marked")
    parser.add_argument(
        "--dilate-repo", type=Path, metavar="PATH", help="a checkout of vincent-leguen/DILATE, a peer of suite dilate"
    )
    return parser


if __name__ == "__main__":
    main()
