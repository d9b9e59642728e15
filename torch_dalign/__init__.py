"""torch-dalign: differentiable sequence alignment for PyTorch."""

from . import functional, metrics, plot, presets
from ._build_info import build_info
from .averaging import SoftDTWBarycenter
from .clustering import SoftDTWKMeans
from .cost import pairwise
from .ctc import CTCLoss, MCTCLoss, ctc_align
from .ddtw import DDTW, SubsequenceSoftDTW
from .decode import NGram, ctc_beam_decode, ctc_greedy_decode
from .dilate import DILATE
from .dtw import dtw, dtw_path
from .gdtw import DecDTW, GDTWInfo, gdtw
from .pairs import cdist_dtw, cdist_soft_dtw, dtw_neighbors
from .paths import PathCost, PathNLL, expected_warp, sample_paths
from .softdtw import SoftDTW, gak

__version__: str = build_info()["version"]

__all__ = [
    "DDTW",
    "DILATE",
    "CTCLoss",
    "DecDTW",
    "GDTWInfo",
    "MCTCLoss",
    "NGram",
    "PathCost",
    "PathNLL",
    "SoftDTW",
    "SoftDTWBarycenter",
    "SoftDTWKMeans",
    "SubsequenceSoftDTW",
    "build_info",
    "cdist_dtw",
    "cdist_soft_dtw",
    "ctc_align",
    "ctc_beam_decode",
    "ctc_greedy_decode",
    "dtw",
    "dtw_neighbors",
    "dtw_path",
    "expected_warp",
    "functional",
    "gak",
    "gdtw",
    "metrics",
    "pairwise",
    "plot",
    "presets",
    "sample_paths",
]
