"""Runs a script in two processes that talk through gloo."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

START = """
    import os
    import sys
    import torch
    import torch.distributed as dist
    import torch_dalign as dalign

    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank = dist.get_rank()
"""
END = """
    sys.stdout.write(f"rank {rank} agrees\\n")  # one write: print's pieces mix with those of the other rank
    sys.stdout.flush()
    dist.barrier()
    dist.destroy_process_group()
    os._exit(0)  # twice a rank aborted (std::terminate) on a loaded machine, probably in its threads' teardown
"""


def run_on_two_ranks(script: str, folder: Path) -> None:
    """Run `script` (where `rank` is 0 or 1) on both ranks; fails unless both come to its end."""
    file = folder / "ranks.py"
    file.write_text("".join(textwrap.dedent(part) for part in (START, script, END)))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "rank 0 agrees" in done.stdout
    assert "rank 1 agrees" in done.stdout
