"""Soft-DTW beside its peers: time and memory of forward and backward.

- `suite`: which combinations are measured; `figures`: which figures are to be reached,
- `peers` and `..antidiagonal`: what soft-DTW is compared with,
- `problems`: shapes, seeded inputs, float64 answers,
- `report` and `plots`: tables and pictures.
"""

from .plots import PICTURES
from .report import Report
from .suite import run, work

__all__ = ["PICTURES", "Report", "run", "work"]
