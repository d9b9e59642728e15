"""Table VI of the dDTW paper: milliseconds and megabytes, forward and backward, B = 16, D = 12, NVIDIA RTX A5500 GPU.

Zeitler and Müller, "A Unified Perspective on CTC and Soft-DTW Using Differentiable DTW", TASLPRO 2026. Theirs are
Maghoumi's soft-DTW, the authors' dDTW toolbox, and PyTorch's CTC loss.
"""

from __future__ import annotations

DEVICE = "RTX A5500"
LOSSES = ("SDTW", "dDTW", "CTC")
Entry = tuple[float, float]  # milliseconds, megabytes

TABLE_VI: dict[tuple[int, int], tuple[Entry, Entry, Entry]] = {
    (256, 64): ((3.9, 73), (8.3, 23), (1.2, 1)),
    (256, 128): ((6.8, 146), (8.8, 45), (0.8, 2)),
    (512, 64): ((7.3, 146), (7.3, 46), (1.1, 3)),
    (512, 128): ((12.4, 293), (10.1, 91), (1.1, 3)),
    (1024, 128): ((20.4, 586), (12.1, 182), (1.4, 7)),
    (1024, 512): ((61.9, 2345), (26.6, 722), (1.4, 8)),
    (1024, 1024): ((118.5, 4689), (43.0, 1441), (1.4, 8)),
}
