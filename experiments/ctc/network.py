"""Two convolutions, a bidirectional GRU, one linear layer: logits of 29 classes every 40 ms."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from experiments.data.speech import HOP, N_CLASSES, SAMPLE_RATE

STRIDE = 4
"""Of both convolutions together."""
SECONDS_PER_FRAME = STRIDE * HOP / SAMPLE_RATE


class CharacterNet(nn.Module):
    """Logits (T, B, 29) and lengths (B,) from features (B, N, 80) and lengths (B,), T = ceil(N / 4)."""

    def __init__(self, channels: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.first = nn.Conv1d(80, channels, kernel_size=5, stride=2, padding=2)
        self.second = nn.Conv1d(channels, channels, kernel_size=5, stride=2, padding=2)
        self.norm = nn.LayerNorm(channels)  # of each frame alone: padding does not matter
        self.dropout = nn.Dropout(dropout)
        self.gru = nn.GRU(channels, hidden, bidirectional=True)
        self.classes = nn.Linear(2 * hidden, N_CLASSES)

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and their lengths."""
        x = self.first(features.mT).relu()
        x = x * (torch.arange(x.shape[2]) < (lengths[:, None] + 1) // 2)[:, None]  # padding stays silent
        lengths = (lengths + STRIDE - 1) // STRIDE
        x = self.dropout(self.norm(self.second(x).relu().permute(2, 0, 1)))
        packed, _ = self.gru(pack_padded_sequence(x, lengths, enforce_sorted=False))
        x, _ = pad_packed_sequence(packed, total_length=len(x))
        return self.classes(self.dropout(x)), lengths
