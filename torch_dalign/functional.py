"""The modules' plain twins. Most are functions of cost lattices: costs (B, N, M) in, values per batch item out."""

from .ctc import ctc_loss
from .ddtw import ddtw, ddtw_alignment
from .dtw import dtw_of_costs as dtw
from .softdtw import alignment, soft_dtw

__all__ = ["alignment", "ctc_loss", "ddtw", "ddtw_alignment", "dtw", "soft_dtw"]
