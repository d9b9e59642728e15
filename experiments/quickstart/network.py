"""A small convolutional network from constant-Q features to the probabilities of the pitch classes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

N_BINS = 216
"""Six octaves of 36 bins: three per semitone."""

N_CLASSES = 12


class PitchClassNet(nn.Module):
    """Probabilities of the 12 pitch classes at every frame; 2,423 parameters.

    Shapes: (B, N, 216) to (B, N, 12). The stride in frequency leaves one row per semitone. The last layer slides one
    61-semitone filter to 12 positions, so each class looks at its own five octaves through the same weights.
    """

    def __init__(self) -> None:
        super().__init__()
        self.normalise = nn.LayerNorm(N_BINS)
        self.to_semitones = nn.Conv2d(1, 8, (5, 5), stride=(1, 3), padding=(2, 1))
        self.refine = nn.Conv2d(8, 8, (3, 3), padding=1)
        self.overtones = nn.Conv2d(8, 8, (1, 13), padding=(0, 6))
        self.context = nn.Conv2d(8, 4, (9, 1), padding=(4, 0))
        self.mix = nn.Conv2d(4, 1, 1)
        self.to_classes = nn.Conv2d(1, 1, (1, 61))
        self.activation = nn.LeakyReLU(0.2)

    def forward(self, features: Tensor) -> Tensor:
        hidden = self.normalise(features).unsqueeze(1)
        hidden = self.activation(self.to_semitones(hidden))
        hidden = hidden + self.activation(self.refine(hidden))
        hidden = self.activation(self.overtones(hidden))
        hidden = self.activation(self.context(hidden))
        hidden = self.activation(self.mix(hidden))
        return torch.sigmoid(self.to_classes(hidden)).squeeze(1)
