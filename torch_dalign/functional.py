"""Functions of cost lattices: costs (B, N, M) in, values per batch item out. The modules' plain twins."""

from .ddtw import ddtw, ddtw_alignment
from .dtw import dtw_of_costs as dtw
from .softdtw import alignment, soft_dtw

__all__ = ["alignment", "ddtw", "ddtw_alignment", "dtw", "soft_dtw"]
