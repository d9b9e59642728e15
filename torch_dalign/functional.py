"""The modules' plain twins. Most are functions of cost lattices: costs (B, N, M) in, values per batch item out."""

from .ctc import ctc_loss
from .ddtw import ddtw, ddtw_alignment
from .dilate import dilate, expected_cost
from .dtw import dtw_of_costs as dtw
from .gdtw import gdtw
from .paths import path_cost, path_nll
from .softdtw import alignment, soft_dtw

__all__ = [
    "alignment",
    "ctc_loss",
    "ddtw",
    "ddtw_alignment",
    "dilate",
    "dtw",
    "expected_cost",
    "gdtw",
    "path_cost",
    "path_nll",
    "soft_dtw",
]
