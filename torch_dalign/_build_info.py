"""What this installation is made of."""

from __future__ import annotations

from typing import Any

import torch

from . import _C


def build_info() -> dict[str, Any]:
    """Facts about this build and this machine, for bug reports.

    Returns
    -------
    dict
        "version"; "isa" in use ("generic", "avx2" or "avx512"; the environment variable DALIGN_ISA asks for a lower
        one); "isa_levels" compiled; "threads" that torch allows; "cuda" (kernels compiled), "cuda_archs"; "compiler";
        "torch" (running) and "torch_built" (whose headers were used); "torch_abi" (the torch that this binary needs).

    Examples
    --------
    >>> import torch_dalign as dalign
    >>> dalign.build_info()["isa"] in ("generic", "avx2", "avx512")
    True
    """
    facts = _C.build_facts()
    return {
        "version": facts["version"],
        "isa": _C.isa(),
        "isa_levels": facts["isa_levels"],
        "threads": torch.get_num_threads(),
        "cuda": facts["cuda"],
        "cuda_archs": facts["cuda_archs"],
        "compiler": facts["compiler"],
        "torch": torch.__version__,
        "torch_built": facts["torch"],
        "torch_abi": "stable, torch >= 2.10",
    }
