"""Functions of cost lattices: costs (B, N, M) in, values per batch item out. The modules' plain twins."""

from .softdtw import alignment, soft_dtw

__all__ = ["alignment", "soft_dtw"]
