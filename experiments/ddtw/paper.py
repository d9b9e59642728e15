"""Tables III and IV and Fig. 11 of the paper.

Zeitler and Müller, "A Unified Perspective on CTC and Soft-DTW Using Differentiable DTW", IEEE/ACM Transactions on
Audio, Speech, and Language Processing 34, 2026.
"""

from __future__ import annotations

from typing import NamedTuple

SOURCE = "Zeitler and Müller, TASLPRO 34, 2026"


class Frames(NamedTuple):
    """Table III: accuracy (mean and best of five runs), retrieval with the network of the lowest validation loss."""

    mean: float
    best: float
    top1: float
    top10: float
    top50: float
    mrr: float


class Labels(NamedTuple):
    """Table IV: label error rates, mean and best of five runs, greedy and by beam search."""

    greedy_mean: float
    greedy_best: float
    beam_mean: float
    beam_best: float


FRAMES: dict[str, Frames] = {
    "CTC-A": Frames(0.473, 0.574, 0.870, 0.939, 0.963, 0.895),
    "CTC-B": Frames(0.555, 0.583, 0.832, 0.923, 0.952, 0.864),
    "CTC-C": Frames(0.588, 0.590, 0.795, 0.894, 0.941, 0.830),
    "SDTW-D": Frames(0.657, 0.661, 0.856, 0.936, 0.957, 0.889),
    "SDTW-E": Frames(0.648, 0.654, 0.870, 0.939, 0.960, 0.893),
    "CTC-A-W": Frames(0.230, 0.230, 0.000, 0.000, 0.048, 0.005),
    "CTC-B-W": Frames(0.228, 0.230, 0.000, 0.005, 0.082, 0.007),
    "CTC-C-W": Frames(0.311, 0.646, 0.843, 0.926, 0.963, 0.871),
    "SDTW-D-W": Frames(0.650, 0.655, 0.891, 0.944, 0.957, 0.908),
    "SDTW-E-W": Frames(0.643, 0.650, 0.864, 0.934, 0.963, 0.889),
    "EM": Frames(0.653, 0.657, 0.888, 0.949, 0.973, 0.907),
    "strong": Frames(0.676, 0.679, 0.878, 0.947, 0.968, 0.901),
}

LABELS: dict[str, Labels] = {
    "CTC-A": Labels(0.282, 0.212, 0.256, 0.189),
    "CTC-B": Labels(0.251, 0.220, 0.431, 0.207),
    "CTC-C": Labels(0.271, 0.257, 0.618, 0.594),
    "SDTW-D": Labels(0.281, 0.275, 0.437, 0.428),
    "SDTW-E": Labels(0.285, 0.266, 0.415, 0.400),
    "CTC-A-W": Labels(0.500, 0.500, 1.999, 1.997),
    "CTC-B-W": Labels(0.476, 0.470, 1.793, 1.288),
    "CTC-C-W": Labels(0.433, 0.276, 1.893, 0.955),
    "SDTW-D-W": Labels(0.282, 0.270, 0.938, 0.925),
    "SDTW-E-W": Labels(0.278, 0.271, 1.013, 0.967),
    "EM": Labels(0.577, 0.550, 0.691, 0.663),
    "strong": Labels(0.263, 0.256, 0.752, 0.724),
}

F_MEASURES: dict[str, str] = {
    "CTC-A": ".81, high variance",
    "CTC-B": "no run converged",
    "CTC-C": "above CTC-A, low variance",
    "SDTW-D": "as CTC-C, slightly better",
    "SDTW-E": "median slightly below SDTW-D",
    "CTC-A-W": "above CTC-A, some runs fail",
    "CTC-B-W": "well above CTC-B, some runs fail",
    "CTC-C-W": "hardly any variance, as SDTW-D-W",
    "SDTW-D-W": "as CTC-C-W",
    "SDTW-E-W": "at best over .84",
    "EM": "below SDTW-E-W's best",
    "strong": "slightly above SDTW-E-W",
}
"""Fig. 11, median F-measure of five runs: the text gives two figures, and for the rest what it says of them."""
