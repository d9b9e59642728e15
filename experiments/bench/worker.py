"""One benchmark job in a process of its own: a job comes as JSON on standard input, results leave as JSON lines.

A fresh process has no memory of other peers, and it may run with another instruction set (``DALIGN_ISA``).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Any

MARK = "bench-result "  # other lines may come from a peer


def run_in_process(job: Mapping[str, Any], environment: Mapping[str, str] | None = None) -> Iterator[dict[str, Any]]:
    """Run a job of a suite in another process and yield its results as they come.

    Parameters
    ----------
    job : mapping
        JSON; "suite" names the suite whose `work` does it.
    environment : mapping, optional
        Variables added to this process's.

    Raises
    ------
    RuntimeError
        When the process ends otherwise than well, after its results have been yielded.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "experiments.bench.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **(environment or {})},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process.stdin as stdin:
        stdin.write(json.dumps(job))
    with process.stdout as stdout:
        for line in stdout:
            if line.startswith(MARK):
                yield json.loads(line.removeprefix(MARK))
    if process.wait() != 0:
        raise RuntimeError(f"the process of {job.get('peer')} ended with status {process.returncode}")


def results(job: Mapping[str, Any], environment: Mapping[str, str] | None = None) -> Iterator[dict[str, Any]]:
    """Yield one result for each of job["cases"], as `run_in_process`; those that never came are failures."""
    done = 0
    try:
        for result in run_in_process(job, environment):
            yield result
            done += 1
    except RuntimeError as error:  # out of memory, say: what came before it stands
        for _ in job["cases"][done:]:
            yield {"status": "failed", "reason": str(error)}


def main() -> None:
    """Do the job on standard input."""
    from . import suites

    job = json.load(sys.stdin)
    for result in suites.find(job["suite"]).work(job):
        print(MARK + json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
