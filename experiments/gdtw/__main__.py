"""Run a task: `python -m experiments.gdtw TASK`, with the options that `--help` behind the task's name lists."""

from __future__ import annotations

import argparse
import importlib

TASKS: dict[str, str] = {
    "score": "audio to score alignment: Tables 1, 3 and 4",
    "place": "place recognition along routes: Tables 2, 5 and 6",
}
"""Packages beside this file; each has a module `run` with `main(arguments: list[str]) -> None`."""


def main(arguments: list[str] | None = None) -> None:
    """Hand the options over to the task."""
    lines = "\n".join(f"  {name:8} {about}" for name, about in TASKS.items())
    parser = argparse.ArgumentParser(
        prog="python -m experiments.gdtw",
        description="The applications of DecDTW.",
        epilog=f"tasks:\n{lines}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("task", choices=tuple(TASKS), help="what to run")
    parser.add_argument("options", nargs=argparse.REMAINDER, help="of the task: `TASK --help` lists them")
    asked = parser.parse_args(arguments)
    importlib.import_module(f"experiments.gdtw.{asked.task}.run").main(asked.options)


if __name__ == "__main__":
    main()
