"""Functions of cost lattices: costs (B, N, M) in, values per batch item out. The modules' plain twins."""

from .dtw import dtw_of_costs as dtw
from .softdtw import alignment, soft_dtw

__all__ = ["alignment", "dtw", "soft_dtw"]
